// The requests of a run, one a row, from the whole run down to single tokens.

const ROWS = DATA.requests && DATA.requests.index.length ? DATA.requests : null;
const AXIS = 22;

// The rows' times, in microseconds from the run's start.
const sentOf = (() => { let at = 0; return ROWS ? ROWS.sent_us.map((gap) => (at += gap)) : []; })();
const eventsOf = (row) => { let at = sentOf[row]; return (ROWS.events_us[row] || []).map((gap) => (at += gap)); };
const endOf = (row) => sentOf[row] + ROWS.end_us[row];

function timeline() {
  const canvas = el('canvas', { tabindex: 0, role: 'application', 'aria-label': 'Requests over time, one a row. Up and down select a request, Enter shows its tokens; plus, minus, left and right change the time shown; Page Up and Page Down the rows; Home shows all. The slowest requests are in the table below.' });
  const readout = el('p', { class: 'readout', 'aria-live': 'polite' });
  const count = ROWS.index.length;
  const end = sentOf.reduce((most, _, row) => Math.max(most, endOf(row)), 1);
  const view = {};
  let selected = null;
  let height = 0;

  const clamp = (value, low, high) => Math.min(Math.max(value, low), Math.max(low, high));
  function show(t0, span, r0, rows) {
    view.span = clamp(span, 20, end * 1.02);
    view.t0 = clamp(t0, -end * 0.01, end * 1.01 - view.span);
    view.rows = clamp(rows, Math.min(3, count), count);
    view.r0 = clamp(r0, 0, count - view.rows);
    paint();
  }
  const fit = () => show(-end * 0.01, end * 1.02, 0, count);
  const zoom = (by, at = view.t0 + view.span / 2) => show(at - (at - view.t0) * by, view.span * by, view.r0, view.rows);
  const zoomRows = (by, at = view.r0 + view.rows / 2) => show(view.t0, view.span, at - (at - view.r0) * by, view.rows * by);
  const pan = (share) => show(view.t0 + view.span * share, view.span, view.r0, view.rows);
  const panRows = (share) => show(view.t0, view.span, view.r0 + view.rows * share, view.rows);
  function select(row, reveal) {
    selected = clamp(row, 0, count - 1);
    if (reveal) show(sentOf[selected] - ROWS.end_us[selected] * 0.03, ROWS.end_us[selected] * 1.06, selected - 6, 13);
    else if (selected < view.r0 || selected >= view.r0 + view.rows) show(view.t0, view.span, selected - view.rows / 2, view.rows);
    else paint();
    readout.textContent = words(selected);
  }

  function paint() {
    const width = canvas.clientWidth;
    if (!width) return;
    height = clamp(count * 6 + AXIS, 160, 460);
    canvas.style.height = `${height}px`;
    const dots = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * dots);
    canvas.height = Math.round(height * dots);
    const pen = canvas.getContext('2d');
    pen.setTransform(dots, 0, 0, dots, 0, 0);
    const ink = Object.fromEntries(['ground', 'ink', 'soft', 'grid', 'wait', 'first', 'stream', 'token', 'cut', 'bad'].map((name) => [name, colour(`--${name}`)]));
    pen.fillStyle = ink.ground;
    pen.fillRect(0, 0, width, height);
    const x = (us) => ((us - view.t0) / view.span) * width;
    const tall = (height - AXIS) / view.rows;
    const y = (row) => AXIS + (row - view.r0) * tall;
    axis(pen, ink, width, x);

    const bar = (from, to, row, style, least) => {
      const [a, b] = [Math.max(x(from), -2), Math.min(x(to), width + 2)];
      if (b < a) return;
      pen.fillStyle = style;
      pen.fillRect(a, y(row), Math.max(b - a, 0.5), Math.max(tall > 4 ? tall - 1 : tall, least));
    };
    const [first, last] = [Math.max(0, Math.floor(view.r0)), Math.min(count, Math.ceil(view.r0 + view.rows))];
    const later = [];
    for (let row = first; row < last; row++) {
      const [sent, ended, token] = [sentOf[row], endOf(row), ROWS.first_us[row]];
      if (ended < view.t0 || sent - ROWS.late_us[row] > view.t0 + view.span) continue;
      const kind = ROWS.outcomes[ROWS.outcome[row]];
      if (kind !== 'success') { later.push([row, kind]); continue; }
      if (ROWS.late_us[row]) bar(sent - ROWS.late_us[row], sent, row, ink.wait, 0.5);
      bar(sent, token === null ? ended : sent + token, row, ink.first, 0.5);
      if (token !== null) bar(sent + token, ended, row, ink.stream, 0.5);
    }
    // What did not succeed is seen however many rows there are.
    for (const [row, kind] of later) bar(sentOf[row], endOf(row), row, kind.startsWith('cancelled') ? ink.cut : ink.bad, 1.5);
    if (tall >= 3) {
      for (let row = first; row < last; row++) {
        pen.fillStyle = ink.token;
        // Closer than this, the marks would be one block.
        let before = -Infinity;
        for (const at of eventsOf(row)) {
          const place = x(at);
          if (place < 0 || place > width || place - before < 2) continue;
          pen.fillRect(place - 0.5, y(row), tall > 12 ? 1.5 : 1, tall > 4 ? tall - 1 : tall);
          before = place;
        }
      }
    }
    if (tall >= 15) {
      pen.font = '11px system-ui, sans-serif';
      for (let row = first; row < last; row++) {
        const label = `${ROWS.index[row]}`;
        pen.fillStyle = ink.ground;
        pen.globalAlpha = 0.8;
        pen.fillRect(0, y(row), pen.measureText(label).width + 8, tall - 1);
        pen.globalAlpha = 1;
        pen.fillStyle = ink.ink;
        pen.fillText(label, 4, y(row) + tall / 2 + 3);
      }
    }
    if (selected !== null) {
      pen.strokeStyle = ink.ink;
      pen.lineWidth = 1.5;
      pen.strokeRect(-2, y(selected) - 1, width + 4, Math.max(tall, 2) + 1);
    }
  }
  function axis(pen, ink, width, x) {
    pen.font = '12px system-ui, sans-serif';
    // Single tokens are told apart in milliseconds.
    const unit = view.span < 2e6 ? 1e3 : 1e6;
    const scale = linear(view.t0 / unit, (view.t0 + view.span) / unit, 0, width, Math.floor(width / 110));
    for (const [value, label] of scale.ticks) {
      if (value < 0) continue;
      const place = x(value * unit);
      pen.fillStyle = ink.grid;
      pen.fillRect(place, AXIS - 4, 1, height);
      pen.fillStyle = ink.soft;
      const text = `${label} ${unit === 1e3 ? 'ms' : 's'}`;
      pen.fillText(text, clamp(place - pen.measureText(text).width / 2, 2, width - pen.measureText(text).width - 2), 13);
    }
  }
  function words(row) {
    const late = ROWS.late_us[row] ? `, ${time(ROWS.late_us[row])} after its time` : '';
    const first = ROWS.first_us[row] === null ? 'no token' : `first token after ${time(ROWS.first_us[row])}`;
    const gap = ROWS.gap_us[row] === null ? '' : `, largest gap ${time(ROWS.gap_us[row])}`;
    const kept = ROWS.tokens[row] && !ROWS.events_us[row] ? ' (its single tokens are not in this file)' : '';
    return `Request ${ROWS.index[row]}: sent at ${seconds(sentOf[row] / 1e6)}${late}; ${first}; ${whole(ROWS.tokens[row])} tokens${gap}${kept}; ended after ${time(ROWS.end_us[row])}; ${ROWS.outcomes[ROWS.outcome[row]]}`;
  }

  // The wheel scrolls the page until the picture is chosen, by a click or by Tab.
  canvas.addEventListener('wheel', (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey) return;
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    const by = event.deltaY > 0 ? 1.25 : 0.8;
    const [x, y] = [(event.clientX - box.left) / box.width, Math.max(0, event.clientY - box.top - AXIS) / (height - AXIS)];
    if (!event.shiftKey) zoom(by, view.t0 + view.span * x);
    if (event.shiftKey || event.altKey) zoomRows(by, view.r0 + view.rows * y);
  }, { passive: false });
  let drag = null;
  canvas.addEventListener('pointerdown', (event) => {
    drag = { x: event.clientX, y: event.clientY, t0: view.t0, r0: view.r0, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener('pointermove', (event) => {
    if (!drag) return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    drag.moved ||= Math.abs(dx) + Math.abs(dy) > 4;
    if (drag.moved) show(drag.t0 - (dx / canvas.clientWidth) * view.span, view.span, drag.r0 - (dy / (height - AXIS)) * view.rows, view.rows);
  });
  canvas.addEventListener('pointerup', (event) => {
    if (drag && !drag.moved) {
      const place = event.clientY - canvas.getBoundingClientRect().top - AXIS;
      select(Math.floor(view.r0 + (place / (height - AXIS)) * view.rows), false);
    }
    drag = null;
  });
  canvas.addEventListener('pointercancel', () => { drag = null; });
  canvas.addEventListener('keydown', (event) => {
    const next = (by) => select(selected === null ? Math.floor(view.r0) : selected + by, false);
    const actions = {
      '+': () => zoom(0.5), '=': () => zoom(0.5), '-': () => zoom(2), ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2),
      ArrowUp: () => next(-1), ArrowDown: () => next(1), PageUp: () => panRows(-0.8), PageDown: () => panRows(0.8),
      ']': () => zoomRows(0.5), '[': () => zoomRows(2), Home: fit, Enter: () => select(selected ?? Math.floor(view.r0), true),
    };
    if (!actions[event.key] || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    actions[event.key]();
  });

  const button = (text, label, action) => {
    const made = el('button', { type: 'button', 'aria-label': `${text}: ${label}`, title: label }, text);
    made.addEventListener('click', action);
    return made;
  };
  const controls = el('div', { class: 'controls', role: 'group', 'aria-label': 'What the picture shows' },
    button('Time +', 'show less time', () => zoom(0.5)), button('Time −', 'show more time', () => zoom(2)),
    button('◀', 'earlier', () => pan(-0.4)), button('▶', 'later', () => pan(0.4)),
    button('Rows +', 'show fewer rows', () => zoomRows(0.5)), button('Rows −', 'show more rows', () => zoomRows(2)),
    button('▲', 'rows before', () => panRows(-0.8)), button('▼', 'rows after', () => panRows(0.8)),
    button('All', 'show the whole run', fit));
  const swatch = (name, text) => el('li', {}, el('span', { class: 'swatch', style: `background: var(--${name})` }), text);
  const legend = el('ul', { class: 'legend' }, swatch('wait', 'waited for its send'), swatch('first', 'until the first token'), swatch('stream', 'tokens'), swatch('cut', 'cancelled'), swatch('bad', 'failed'));
  new ResizeObserver(paint).observe(canvas);
  redraws.push(paint);
  Object.assign(view, { t0: -end * 0.01, span: end * 1.02, r0: 0, rows: count });
  const reveal = (row) => { select(row, true); canvas.focus(); canvas.scrollIntoView({ block: 'center' }); };
  return [controls, legend, canvas, readout, slowest(reveal)];
}

// The slowest requests as a table, by the measure that is chosen.
function slowest(reveal) {
  const measures = { TTFT: ROWS.first_us, E2EL: ROWS.end_us, 'largest gap': ROWS.gap_us };
  const choice = el('select', { id: 'slowest' }, Object.keys(measures).map((name) => el('option', {}, name)));
  const place = el('div');
  const list = () => {
    const values = measures[choice.value];
    const rows = values.map((_, row) => row).filter((row) => values[row] !== null).sort((a, b) => values[b] - values[a]).slice(0, 10);
    place.replaceChildren(table(`The slowest requests by ${choice.value}`, ['Request', 'Sent at', 'TTFT', 'Largest gap', 'E2EL', 'Tokens', 'Outcome', 'In the picture'], rows.map((row) => {
      const go = el('button', { type: 'button', 'aria-label': `Show request ${ROWS.index[row]}` }, 'Show');
      go.addEventListener('click', () => reveal(row));
      const or = (value) => (value === null ? '-' : time(value));
      return [`${ROWS.index[row]}`, seconds(sentOf[row] / 1e6), or(ROWS.first_us[row]), or(ROWS.gap_us[row]), time(ROWS.end_us[row]), whole(ROWS.tokens[row]), { text: ROWS.outcomes[ROWS.outcome[row]], kind: 'text' }, go];
    })));
  };
  choice.addEventListener('change', list);
  list();
  return el('div', {}, el('p', { class: 'controls' }, el('label', { for: 'slowest' }, 'The slowest by'), choice), place);
}
