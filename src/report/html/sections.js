// The parts that the page of a run and that of a comparison share.

const LATENCIES = [['ttft', 'TTFT', 'time to first token'], ['itl', 'ITL', 'inter-token latency'], ['tpot', 'TPOT', 'time per output token'], ['e2el', 'E2EL', 'end-to-end latency']];
const made = [];

// A section, and its place in the contents; nothing where there is nothing to show.
function section(id, title, ...children) {
  if (!children.flat(Infinity).some((child) => child)) return null;
  made.push([id, title]);
  return el('section', { id, 'aria-labelledby': `${id}-title` }, el('h2', { id: `${id}-title` }, title), children);
}
const note = (text) => el('p', { class: 'soft' }, text);

function verdict(kind, head, items, warnings) {
  const list = (texts) => texts.length ? el('ul', {}, texts.map((text) => el('li', {}, text))) : null;
  return [
    el('div', { class: `verdict ${kind}`, role: 'note' }, el('strong', {}, head), list(items)),
    warnings.length ? el('div', { class: 'verdict warn', role: 'note' }, el('strong', {}, 'Keep in mind'), list(warnings)) : null,
  ];
}

const lineOf = (index, name, more) => ({ name, colour: `--c${index % 4}`, dash: DASHES[index % 4], ...more });
const msAxis = (label, values, zero) => ({ label, scale: scaleOf(values, zero), show: ms });

// Of each latency its cumulative distribution, and its percentiles up to the slowest request.
function distributions(sides) {
  return LATENCIES.flatMap(([id, name, words]) => {
    const known = sides.map((side, index) => [side, index]).filter(([side]) => side.curves && side.curves[id].count);
    if (!known.length) return [];
    const curves = known.map(([side]) => side.curves[id]);
    const values = curves.flatMap((curve) => curve.ms);
    const most = Math.max(...curves.map((curve) => curve.count));
    const legend = (side) => (sides.length > 1 ? side.name : name);
    const ranked = (x, y) => known.map(([side, index]) => {
      const curve = side.curves[id];
      return lineOf(index, legend(side), { points: curve.ms.map((value, i) => [x(value, curve.ranks[i], curve.count), y(value, curve.ranks[i], curve.count)]) });
    });
    const share = (rank, count) => (rank + 1) / count;
    const rows = () => table(`Percentiles of ${name}, in ms`, ['Percentile', ...known.map(([side]) => legend(side))],
      [0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 99.99, 100].map((p) => [`${p}`, ...curves.map((curve) => short(valueAt(curve, p)))]));
    return [
      chart({
        title: `${name}: ${words}, share of values at most this long`,
        x: msAxis(`${name} (ms)`, values), y: { label: '% of values', scale: (from, to) => linear(0, 100, from, to, 5), show: (value) => `${fixed(value, 1)} %` },
        series: ranked((value) => value, (value, rank, count) => share(rank, count) * 100), table: rows,
      }),
      chart({
        title: `${name} by percentile`,
        x: { label: 'percentile', scale: (from, to) => percentiles(most, from, to), show: (value) => `p${fixed(value * 100, 3)}` }, y: msAxis('ms', values),
        series: ranked((value, rank, count) => rank / count, (value) => value), table: rows,
      }),
    ];
  });
}

// A percentile of a thinned-out curve: interpolated between the ranks that are kept.
function valueAt(curve, p) {
  const rank = (p / 100) * (curve.count - 1);
  let i = curve.ranks.findIndex((kept) => kept >= rank);
  if (i <= 0) return curve.ms[Math.max(i, 0)];
  const [low, high] = [curve.ranks[i - 1], curve.ranks[i]];
  return curve.ms[i - 1] + ((curve.ms[i] - curve.ms[i - 1]) * (rank - low)) / (high - low);
}

// Throughput, concurrency and latencies over time.
function overTime(sides) {
  const known = sides.map((side, index) => [side.over_time, side.name, index]).filter(([series]) => series);
  if (!known.length) return [];
  const end = Math.max(...known.map(([series]) => series.end_s));
  const x = { label: 'time (s)', scale: (from, to, wanted) => linear(0, end, from, to, wanted), show: (value) => `at ${seconds(Math.max(value, 0))}` };
  const alone = sides.length === 1;
  const begin = (series, i) => i * series.span_s;
  const middle = (series, i) => Math.min(begin(series, i) + series.span_s / 2, series.end_s);
  const points = (series, column) => column.map((value, i) => [middle(series, i), value]);
  // The last span may be cut short by the run's end.
  const rate = (series, column) => points(series, column.map((count, i) => count / Math.max(Math.min(series.span_s, series.end_s - begin(series, i)), series.span_s / 10)));
  const picture = (title, unit, show, of, zero) => {
    const series = known.flatMap(([series, name, index]) => of(series, alone ? '' : `${name}: `, index));
    const values = series.flatMap((line) => line.points.map(([, y]) => y).concat((line.band || []).flatMap(([, low, high]) => [low, high])));
    return chart({ title, x, y: { label: unit, scale: scaleOf(values, zero), show }, series, table: () => numbers(title, unit, series) });
  };
  const numbers = (title, unit, series) => table(`${title}, ${unit}`, ['From (s)', ...series.map((line) => line.name)],
    series[0].points.map(([at], i) => [fixed(at, 3), ...series.map((line) => (line.points[i] && line.points[i][1] !== null ? short(line.points[i][1]) : '-'))]));
  const quantiles = (key, wanted) => (series, prefix, index) => wanted.map((q, i) => lineOf(alone ? i : index, `${prefix}${q}`, { points: points(series, series[key][q]), dash: DASHES[alone ? i : index % 2 + 2 * i] }));
  const perSecond = (unit) => (value) => `${short(value)} ${unit}`;
  return [
    picture('Requests in flight', 'requests', short, (series, prefix, index) => [lineOf(index, `${prefix}mean${alone ? ', and the least to the most' : ''}`, { points: points(series, series.in_flight_mean), band: series.in_flight_min.map((low, i) => [middle(series, i), low, series.in_flight_max[i]]) })], true),
    picture('Output events per second', 'events/s', perSecond('events/s'), (series, prefix, index) => [lineOf(index, `${prefix}output events`, { points: rate(series, series.output_events) })], true),
    picture('Requests per second', 'req/s', perSecond('req/s'), (series, prefix, index) => [
      lineOf(index, `${prefix}succeeded`, { points: rate(series, series.succeeded) }),
      ...(series.failed.some((count) => count) ? [lineOf(alone ? 1 : index, `${prefix}failed`, { points: rate(series, series.failed), colour: '--bad', dash: DASHES[1] })] : []),
    ], true),
    picture('TTFT over time, by the moment of the send', 'ms', ms, quantiles('ttft', alone ? ['p50', 'p99', 'max'] : ['p50', 'p99'])),
    picture('ITL over time, by the moment of the token', 'ms', ms, quantiles('itl', alone ? ['p50', 'p99', 'max'] : ['p50', 'p99'])),
  ];
}

function header(title, tag) {
  const dark = () => document.documentElement.dataset.theme === 'dark';
  const theme = el('button', { type: 'button' });
  const name = () => { theme.textContent = dark() ? 'Light' : 'Dark'; theme.setAttribute('aria-label', `Switch to the ${dark() ? 'light' : 'dark'} colours`); };
  theme.addEventListener('click', () => { document.documentElement.dataset.theme = dark() ? 'light' : 'dark'; name(); redraw(); });
  const print = el('button', { type: 'button' }, 'Print');
  print.addEventListener('click', () => window.print());
  name();
  document.title = `${title}: tokentape`;
  return el('div', { class: 'mast' }, el('div', {}, el('h1', {}, title), el('p', { class: 'tag' }, tag)), el('div', { class: 'controls', style: 'flex: none' }, theme, print));
}

const contents = () => el('nav', { 'aria-label': 'Sections' }, el('ul', {}, made.map(([id, title]) => el('li', {}, el('a', { href: `#${id}` }, title)))));
