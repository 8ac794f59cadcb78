// Line charts: an SVG as wide as its place, a cursor for pointer and keys, and the numbers as a table behind it.

const DASHES = ['', '7 4', '2 3', '9 3 2 3'];
const HEIGHT = 230;
const MARGIN = { top: 8, right: 24, bottom: 40, left: 58 };

// `spec`: title; x, y: { label, scale(from, to, wanted), show(value) }; series: [{ name, colour, dash, points, band }],
// points [x, y] in the order of x, band [x, low, high]; table: () => node.
function chart(spec) {
  const plot = draw('svg', { class: 'plot', height: HEIGHT, tabindex: 0, role: 'img', 'aria-label': `${spec.title}: ${summary(spec)}. Arrow keys move a cursor; the numbers are in the table below.` });
  const readout = el('p', { class: 'readout', 'aria-live': 'polite' });
  const legend = el('ul', { class: 'legend' }, spec.series.map((series) => el('li', {}, key(series), series.name)));
  const numbers = el('details', {}, el('summary', {}, `Table: ${spec.title}`));
  numbers.addEventListener('toggle', () => { if (numbers.open && numbers.childElementCount === 1) numbers.append(spec.table()); });
  let scales = null;
  let cursor = null;

  function render() {
    const width = Math.max(plot.clientWidth || plot.parentNode.clientWidth || 0, 240);
    plot.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
    const [left, right, top, bottom] = [MARGIN.left, width - MARGIN.right, MARGIN.top, HEIGHT - MARGIN.bottom];
    const x = spec.x.scale(left, right, Math.floor((right - left) / 80));
    const y = spec.y.scale(bottom, top, 5);
    scales = { x, y, left, right, top, bottom };
    plot.replaceChildren(
      ...y.ticks.flatMap(([value, label]) => [
        draw('line', { class: 'grid', x1: left, x2: right, y1: y.at(value), y2: y.at(value) }),
        draw('text', { x: left - 6, y: y.at(value) + 4, 'text-anchor': 'end' }, label),
      ]),
      ...spaced(x.ticks, x.at).flatMap(([value, label]) => [
        draw('line', { class: 'grid', x1: x.at(value), x2: x.at(value), y1: top, y2: bottom }),
        draw('text', { x: x.at(value), y: bottom + 16, 'text-anchor': 'middle' }, label),
      ]),
      draw('line', { class: 'axis', x1: left, x2: right, y1: bottom, y2: bottom }),
      draw('text', { x: (left + right) / 2, y: HEIGHT - 6, 'text-anchor': 'middle' }, spec.x.label),
      draw('text', { transform: `translate(12 ${(top + bottom) / 2}) rotate(-90)`, 'text-anchor': 'middle' }, spec.y.label),
      ...spec.series.flatMap((series) => lines(series, x, y)),
      draw('line', { class: 'cursor', y1: top, y2: bottom, visibility: 'hidden' }),
    );
    if (cursor !== null) point(cursor);
  }

  // Says what every line has at this place.
  function point(place) {
    cursor = Math.min(Math.max(place, scales.left), scales.right);
    const line = plot.querySelector('.cursor');
    fill(line, { x1: cursor, x2: cursor, visibility: 'visible' }, []);
    const value = scales.x.back(cursor);
    const told = spec.series.map((series) => [series, nearest(series.points, cursor, scales.x)]).filter(([, found]) => found);
    readout.textContent = `${spec.x.show(value)}: ${told.map(([series, found]) => `${series.name} ${spec.y.show(found[1])}`).join('; ')}`;
  }
  const ofEvent = (event) => { const box = plot.getBoundingClientRect(); return event.clientX - box.left; };
  plot.addEventListener('pointermove', (event) => point(ofEvent(event)));
  plot.addEventListener('pointerdown', (event) => point(ofEvent(event)));
  plot.addEventListener('keydown', (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 }[event.key];
    if (!steps) return;
    event.preventDefault();
    const width = scales.right - scales.left;
    point((cursor ?? (scales.left + scales.right) / 2) + steps * (event.shiftKey ? width / 10 : width / 100));
  });
  const figure = el('figure', {}, el('figcaption', {}, spec.title), legend, plot, readout, numbers);
  let before = 0;
  new ResizeObserver(() => { if (plot.clientWidth !== before) { before = plot.clientWidth; render(); } }).observe(plot);
  return figure;
}

const summary = (spec) => spec.series.map((series) => {
  const values = series.points.map(([, y]) => y).filter((y) => y !== null);
  if (!values.length) return `${series.name} has no value`;
  const [low, high] = values.reduce(([low, high], y) => [Math.min(low, y), Math.max(high, y)], [Infinity, -Infinity]);
  return `${series.name} from ${spec.y.show(low)} to ${spec.y.show(high)}`;
}).join(', ');

function key(series) {
  return draw('svg', { width: 26, height: 10, 'aria-hidden': 'true' },
    draw('line', { x1: 1, x2: 25, y1: 5, y2: 5, 'stroke-width': 2.5, 'stroke-dasharray': series.dash, style: `stroke: var(${series.colour})` }));
}

// Ticks that do not touch.
function spaced(ticks, at) {
  let last = -Infinity;
  return ticks.filter(([value, label]) => {
    const half = label.length * 3.6 + 5;
    const fits = at(value) - half > last;
    if (fits) last = at(value) + half;
    return fits;
  });
}

function lines(series, x, y) {
  const place = ([a, b]) => `${x.at(a).toFixed(1)} ${y.at(b).toFixed(1)}`;
  let path = '';
  let pen = 'M';
  for (const point of series.points) {
    // Where there is no value, the line has a gap.
    if (point[1] === null) { pen = 'M'; continue; }
    path += `${pen}${place(point)}`;
    pen = 'L';
  }
  const drawn = [];
  if (series.band) {
    const there = series.band.map(([a, , high]) => place([a, high]));
    const back = series.band.map(([a, low]) => place([a, low])).reverse();
    drawn.push(draw('path', { d: `M${there.concat(back).join('L')}Z`, 'fill-opacity': 0.2, style: `fill: var(${series.colour})` }));
  }
  // A lone point between gaps is a line of no length: round ends make it a dot.
  drawn.push(draw('path', { d: path, fill: 'none', 'stroke-width': 2, 'stroke-linecap': 'round', 'stroke-linejoin': 'round', 'stroke-dasharray': series.dash, style: `stroke: var(${series.colour})` }));
  return drawn;
}

function nearest(points, place, scale) {
  let best = null;
  let distance = Infinity;
  for (const point of points) {
    const away = Math.abs(scale.at(point[0]) - place);
    if (point[1] !== null && away < distance) [best, distance] = [point, away];
  }
  return best;
}

// The scale that suits values: logarithmic where they span much.
function scaleOf(values, zero) {
  const known = values.filter((value) => value !== null);
  const [low, high] = known.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]);
  if (!known.length) return (from, to, wanted) => linear(0, 1, from, to, wanted);
  if (low < 0) return (from, to, wanted) => linear(low, high, from, to, wanted);
  const positive = known.filter((value) => value > 0).reduce((least, v) => Math.min(least, v), Infinity);
  const middle = [...known].sort((a, b) => a - b)[Math.floor(known.length / 2)];
  if (!zero && middle > 0 && high / middle > 12) {
    // What is smaller than a microsecond is at the axis.
    const least = Math.max(positive, high / 1e5, 1e-3);
    return (from, to, wanted) => logarithmic(least * 0.9, high * 1.1, from, to, wanted);
  }
  const floor = zero || low < high / 3 ? 0 : low - (high - low || low || 1) * 0.1;
  return (from, to, wanted) => linear(Math.max(0, floor), high + (high - Math.max(0, floor)) * 0.05 || 1, from, to, wanted);
}
