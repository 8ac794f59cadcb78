// What every part uses: elements, numbers, scales.

const DATA = JSON.parse(document.getElementById('data').textContent);
const SVG = document.getElementById('namespace').namespaceURI;

// Children are text or nodes; text never becomes markup.
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

const whole = (value) => Math.round(value).toLocaleString('en-GB');
const fixed = (value, decimals) => value.toLocaleString('en-GB', { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
// Three or four significant digits, and never less than a microsecond, as the table on the terminal has.
function decimalsOf(value) {
  const size = Math.abs(value);
  return size < 10 ? 3 : size < 100 ? 2 : size < 1000 ? 1 : 0;
}
const short = (value) => fixed(value, decimalsOf(value));
const ms = (value) => `${short(value)} ms`;
const seconds = (value) => `${fixed(value, value < 10 ? 3 : value < 100 ? 2 : 1)} s`;
const percent = (share, decimals = 1) => `${fixed(share * 100, decimals)} %`;
const time = (us) => (us < 1000 ? `${whole(us)} us` : us < 1e6 ? ms(us / 1000) : seconds(us / 1e6));

// A tick's label: no more digits than its neighbours differ by.
function tick(value, step) {
  const decimals = step ? Math.max(0, Math.ceil(-Math.log10(step) - 1e-9)) : value < 1 ? Math.ceil(-Math.log10(value)) : 0;
  return fixed(value, Math.min(decimals, 6));
}

// Scales: a value to a place, with ticks that are round.
function linear(low, high, from, to, wanted) {
  const span = high - low || 1;
  const rough = span / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push([i * step + 0, tick(i * step + 0, step)]);
  return { at: (value) => from + ((value - low) / span) * (to - from), back: (place) => low + ((place - from) / (to - from)) * span, ticks };
}
function logarithmic(low, high, from, to, wanted) {
  const [a, b] = [Math.log10(low), Math.log10(high)];
  const span = b - a || 1;
  const within = (value) => value >= low * 0.9999 && value <= high * 1.0001;
  const all = [];
  for (let power = Math.floor(a); power <= Math.ceil(b); power++) for (const times of [1, 2, 5]) all.push(times * 10 ** power);
  let values = all.filter(within);
  if (values.length > wanted) {
    const tens = values.filter((value) => Math.abs(Math.log10(value) % 1) < 1e-9);
    if (tens.length > 1) values = tens;
  }
  return {
    at: (value) => from + ((Math.log10(Math.max(value, low)) - a) / span) * (to - from),
    back: (place) => 10 ** (a + ((place - from) / (to - from)) * span),
    ticks: values.map((value) => [value, tick(value)]),
  };
}
// Percentiles, as far from 100 % as they are from one another: 0, 90, 99, 99.9.
function percentiles(count, from, to) {
  const scale = logarithmic(1, Math.max(count, 10), from, to, 9);
  const shown = [0, 50, 90, 99, 99.9, 99.99, 99.999, 99.9999].filter((p) => 1 / (1 - p / 100) <= Math.max(count, 10) * 1.001);
  const at = (share) => scale.at(1 / Math.max(1 - share, 1 / Math.max(count, 10)));
  return { at, back: (place) => 1 - 1 / scale.back(place), ticks: shown.map((p) => [p / 100, `${p}`]) };
}

// A table; what is wide scrolls, also by keyboard. A cell is text, a node, or { text, value, key, kind }.
function table(caption, head, rows) {
  const cell = (content, index) => {
    const of = content !== null && typeof content === 'object' && !(content instanceof Node) ? content : { text: content };
    const attributes = { class: of.kind, 'data-value': of.value, 'data-key': of.key };
    return index === 0 ? el('th', { ...attributes, scope: 'row' }, of.text) : el('td', attributes, of.text);
  };
  return el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': caption },
    el('table', {}, el('caption', {}, caption),
      el('thead', {}, el('tr', {}, head.map((text) => el('th', { scope: 'col' }, text)))),
      el('tbody', {}, rows.map((row) => el('tr', {}, row.map(cell))))));
}
const facts = (pairs) => el('dl', {}, pairs.flatMap(([label, value]) => [el('dt', {}, label), el('dd', {}, value)]));

// Drawn again whenever the theme changes.
const redraws = [];
const redraw = () => redraws.forEach((again) => again());
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
