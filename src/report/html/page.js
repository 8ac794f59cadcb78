// The two pages: of a run, and of a comparison.

const STATISTICS = [['mean', 'mean'], ['std', 'std'], ['p50', 'p50'], ['p90', 'p90'], ['p95', 'p95'], ['p99', 'p99'], ['p99_9', 'p99.9'], ['max', 'max']];

// A figure, with its exact value for whoever reads the page by program.
const figure = (key, value, text) => ({ text, value, key });
function spread(caption, rows, decimals) {
  return table(caption, ['Figure', 'count', ...STATISTICS.map(([, name]) => name)], rows.filter(([, , of]) => of).map(([label, key, of]) => [
    label.startsWith(' ') ? { text: label.trim(), kind: 'sub' } : label,
    figure(`${key}.count`, of.count, whole(of.count)),
    ...STATISTICS.map(([id]) => figure(`${key}.${id}`, of[id], of.count ? fixed(of[id], decimals ?? decimalsOf(of.p50)) : '-')),
  ]));
}

function runPage() {
  const { metrics, verdict: judged, sides: [side] } = DATA;
  const { requests, tokens } = metrics;
  const head = header(`Run of ${side.name}`, side.facts.find(([label]) => label === 'Server')[1]);
  const tiles = [
    tile('Succeeded', 'requests.succeeded', requests.succeeded, whole(requests.succeeded), `of ${whole(requests.total)} requests`, requests.failed ? `${whole(requests.failed)} failed` : 'none failed'),
    ...LATENCIES.filter(([id]) => metrics[`${id}_ms`].count).map(([id, name]) => {
      const of = metrics[`${id}_ms`];
      return tile(`${name}, median`, `${id}_ms.p50`, of.p50, short(of.p50), 'ms', `p99 ${ms(of.p99)}, most ${ms(of.max)}`);
    }),
    tile('Request throughput', 'request_throughput_per_s', metrics.request_throughput_per_s, fixed(metrics.request_throughput_per_s, 2), 'req/s', `over ${seconds(metrics.window_s)}`),
    tile('Output throughput', 'output_throughput_tokens_per_s', metrics.output_throughput_tokens_per_s, fixed(metrics.output_throughput_tokens_per_s, 1), 'tok/s', `${whole(tokens.output)} tokens`),
    tile('Input throughput', 'input_throughput_tokens_per_s', metrics.input_throughput_tokens_per_s, fixed(metrics.input_throughput_tokens_per_s, 1), 'tok/s', `${whole(tokens.input)} tokens`),
    tile('Peak concurrency', 'peak_concurrency', metrics.peak_concurrency, whole(metrics.peak_concurrency), 'in flight', metrics.concurrency_limit ? `limit ${whole(metrics.concurrency_limit)}` : 'no limit'),
    DATA.goodput ? tile('Request goodput', 'goodput.requests_per_s', DATA.goodput.requests_per_s, fixed(DATA.goodput.requests_per_s, 2), 'req/s', `${percent(DATA.goodput.share)} have ${DATA.objectives}`) : null,
  ];
  const valid = judged.valid ? verdict('good', 'VALID', [], judged.warnings || []) : verdict('bad', 'INVALID', judged.reasons, judged.warnings || []);
  return [head, [
    section('verdict', 'Verdict', valid),
    section('ran', 'What ran', facts(side.facts)),
    section('figures', 'Figures', el('ul', { class: 'tiles' }, tiles), spread('Latencies in ms, by native definitions', [
      ['TTFT', 'ttft_ms', metrics.ttft_ms], [' from scheduled', 'ttft_from_scheduled_ms', metrics.ttft_from_scheduled_ms], [' from last attempt', 'ttft_from_last_attempt_ms', metrics.ttft_from_last_attempt_ms],
      ['ITL', 'itl_ms', metrics.itl_ms], ['TPOT', 'tpot_ms', metrics.tpot_ms],
      ['E2EL', 'e2el_ms', metrics.e2el_ms], [' from scheduled', 'e2el_from_scheduled_ms', metrics.e2el_from_scheduled_ms], [' from last attempt', 'e2el_from_last_attempt_ms', metrics.e2el_from_last_attempt_ms],
    ])),
    section('distributions', 'Distributions', note('Of each latency: how many values are at most so long, and each percentile up to the slowest value.'), el('div', { class: 'charts' }, distributions(DATA.sides))),
    section('time', 'Over time', note(`Each point is a span of ${seconds(side.over_time.span_s)}.`), el('div', { class: 'charts' }, overTime(DATA.sides))),
    ROWS ? section('requests', 'Requests', note(timelineNote()), timeline()) : null,
    DATA.failures.length ? section('failures', 'Failures', failures()) : null,
    section('client', 'Client', clientHealth()),
    DATA.server ? section('server', 'Server', serverMetrics()) : null,
    section('dialects', 'Dialects', note('One run, as each tool defines its figures. What differs from native by more than 1 % is marked.'), dialects()),
  ]];
}

function tile(name, key, value, text, unit, more) {
  return el('li', { 'data-key': key, 'data-value': value }, el('span', { class: 'name' }, name), el('span', { class: 'value' }, text, ' ', el('small', {}, unit)), el('span', { class: 'more' }, more));
}

function timelineNote() {
  const kept = Object.keys(ROWS.events_us).length;
  const rows = ROWS.index.length < ROWS.total ? `${whole(ROWS.index.length)} of ${whole(ROWS.total)} requests, the slowest and the failed among them` : `All ${whole(ROWS.total)} requests`;
  const single = kept < ROWS.index.length ? ` Single tokens are kept of ${whole(kept)}, the slowest among them.` : '';
  return `${rows}, in the order of their sends.${single} Drag to move; choose the picture by a click, then the wheel, + and − zoom in time, and with Shift the wheel zooms in rows.`;
}

function failures() {
  return table('Failures by kind', ['Kind', 'Requests', 'What was seen'], DATA.failures.flatMap(({ kind, count, examples }) => examples.map(([text, times], i) => [
    i ? '' : kind, figure(i ? undefined : `failed.${kind}`, i ? undefined : count, i ? '' : whole(count)),
    { text: `${examples.length > 1 || times < count ? `${whole(times)} times: ` : ''}${text || '-'}`, kind: 'text wrap' },
  ])));
}

function clientHealth() {
  const { client } = DATA;
  const stamps = client.kernel_stamps
    ? 'Latencies are taken from the kernel’s stamps. What this client was late to read is in none of them; the second table has what it would have added.'
    : 'The kernel stamped no arrival: the read delay is unknown, and part of every latency.';
  const signed = (value) => `${value > 0 ? '+' : ''}${fixed(value, 1)}`;
  const { cpu } = client;
  const load = cpu ? [
    ['Busiest sending thread', `${percent(cpu.busiest_worker_share)} computing`],
    ...(cpu.waiting_worker_share === undefined ? [] : [['Waited for a processor', percent(cpu.waiting_worker_share)]]),
    ['Whole client', `${percent(cpu.process_share)} of a processor`], ['Memory at most', `${fixed(cpu.peak_memory_bytes / 2 ** 20, 1)} MiB`],
  ] : [];
  return [note(stamps),
    spread('The client’s delays, in microseconds', [
      ['Dispatch lateness', 'client.dispatch_lateness_us', client.dispatch_lateness_us], ['Write delay', 'client.write_delay_us', client.write_delay_us],
      ...(client.kernel_stamps ? [['Read delay', 'client.read_delay_us', client.read_delay_us], [' of first tokens', 'client.first_token_read_delay_us', client.first_token_read_delay_us]] : []),
    ], 1),
    client.kernel_stamps ? table('What the read delay would have added, in microseconds', ['Figure', 'mean', 'p50', 'p99'], LATENCIES.map(([id, name]) => [name, ...['mean', 'p50', 'p99'].map((q) => signed(client.effect_us[id][q]))])) : null,
    load.length ? facts(load) : null];
}

function serverMetrics() {
  const { figures } = DATA.server;
  if (!figures) return [note('The server told no figures of its own.')];
  const pairs = [['Readings', `${whole(figures.samples)} over ${seconds(figures.interval_s)}${figures.failed_scrapes ? `, ${whole(figures.failed_scrapes)} failed` : ''}`]];
  if (figures.restarted) pairs.push(['Restarted', 'its counters began anew: the counts are those since']);
  pairs.push(['Requests finished', Object.entries(figures.finished).map(([reason, count]) => `${whole(count)} ${reason}`).join(', ') || 'none'],
    ['Prompt tokens', whole(figures.prompt_tokens)], ['Generated tokens', whole(figures.generation_tokens)], ['Preemptions', whole(figures.preemptions)]);
  if (figures.prefix_cache_hit_share !== undefined) pairs.push(['Prefix cache hits', percent(figures.prefix_cache_hit_share)]);
  const gauge = (label, of, show) => (of ? [[label, show(of.mean), show(of.max)]] : []);
  const gauges = [...gauge('Requests running', figures.running, short), ...gauge('Requests waiting', figures.waiting, short), ...gauge('KV cache in use', figures.kv_cache_usage, percent)];
  // A percentile of a histogram is somewhere in a bucket.
  const bucket = ({ above, up_to, interpolated }) => {
    const bounds = up_to === undefined ? `over ${short(above)}` : `${short(above)} to ${short(up_to)}`;
    return interpolated === undefined ? bounds : `${short(interpolated)} (${bounds})`;
  };
  const rows = [['TTFT', 'ttft_ms'], ['ITL', 'itl_ms'], ['E2EL', 'e2el_ms'], ['Queue', 'queue_ms'], ['Prefill', 'prefill_ms'], ['Decode', 'decode_ms']].filter(([, id]) => figures[id]);
  return [facts(pairs),
    gauges.length ? table('The server’s gauges', ['Gauge', 'mean', 'most'], gauges) : null,
    rows.length ? table('The server’s own latencies beside the client’s, in ms', ['Latency', 'count', 'mean', 'client’s mean', 'p50', 'p99'], rows.map(([name, id]) => [
      name, whole(figures[id].count), short(figures[id].mean), DATA.metrics[id] ? short(DATA.metrics[id].mean) : '-', bucket(figures[id].p50), bucket(figures[id].p99),
    ])) : null];
}

function dialects() {
  const [native] = DATA.dialects;
  const rows = DATA.columns.filter(({ key }) => DATA.dialects.some(({ figures }) => figures[key] !== undefined)).map(({ key, label, unit, decimals }) => [
    `${label}${unit ? ` (${unit})` : ''}`,
    ...DATA.dialects.map(({ dialect, figures }) => {
      const value = figures[key];
      if (value === undefined) return '-';
      const differs = native.figures[key] !== undefined && Math.abs(value - native.figures[key]) > Math.abs(native.figures[key]) * 0.01;
      return { text: fixed(value, decimals), value, key: `${dialect}.${key}`, kind: differs ? 'differs' : undefined };
    }),
  ]);
  return table('The dialects side by side', ['Figure', ...DATA.dialects.map(({ dialect }) => dialect)], rows);
}

function comparisonPage() {
  const { sides, comparisons } = DATA;
  const [first, ...others] = sides;
  const head = header(`${others.map(({ name }) => name).join(', ')} against ${first.name}`, 'A comparison, metric by metric');
  const labels = Object.fromEntries(DATA.columns.map((column) => [column.key, column]));
  const beyond = (of) => of.metrics.filter((row) => row.within === false).map((row) => labels[row.metric].label);
  const verdicts = comparisons.flatMap((of, i) => {
    const names = beyond(of);
    const subject = others.length > 1 ? `${others[i].name}: ` : '';
    return names.length ? verdict('bad', `${subject}Beyond tolerance`, names, of.notes) : verdict('good', `${subject}All within tolerance`, [], of.notes);
  });
  return [head, [
    section('verdict', 'Verdict', verdicts),
    section('ran', 'What is compared', el('div', { class: 'columns' }, sides.map((side, i) => el('div', {}, el('h3', {}, `${letter(i)}: ${side.name}`), facts(side.facts))))),
    section('figures', 'Figures', comparisons.map((of, i) => differences(of, i + 1, labels))),
    section('why', 'Why', comparisons.map((of, i) => explained(of, others[i].name, labels))),
    sides.some(({ curves }) => curves) ? section('distributions', 'Distributions', note('By native definitions of a run; of another tool’s result, as that tool saved its requests.'), el('div', { class: 'charts' }, distributions(sides))) : null,
    comparisons.some(({ paired }) => paired) ? section('paired', 'Request by request', note('Both sent the same requests: how much longer each one took than in the first. Left of 0 it took less time.'), el('div', { class: 'charts' }, pairedCharts(comparisons, others))) : null,
    sides.some((side) => side.over_time) ? section('time', 'Over time', el('div', { class: 'charts' }, overTime(sides))) : null,
  ]];
}

const letter = (i) => String.fromCharCode(65 + i);

function differences(of, index, labels) {
  const most = Math.max(0.01, ...of.metrics.map(({ relative }) => Math.min(Math.abs(relative ?? 0), 1)));
  const rows = of.metrics.map((row) => {
    const { label, unit, decimals } = labels[row.metric];
    const value = (side) => (row[side] === null ? '-' : { text: fixed(row[side], decimals), value: row[side], key: `${side}.${row.metric}` });
    const signed = (number, text) => `${number > 0 ? '+' : ''}${text}`;
    const relative = row.difference === null ? '-' : row.relative === null ? 'new' : signed(row.relative, `${fixed(row.relative * 100, 2)} %`);
    return [`${label}${unit ? ` (${unit})` : ''}`, value('a'), value('b'),
      { text: row.difference === null ? '-' : signed(row.difference, fixed(row.difference, decimals)), value: row.difference, key: `difference.${row.metric}` },
      { text: relative, kind: row.within === false ? 'beyond' : undefined }, bar(row, most),
      row.within === null ? '-' : { text: `${row.within ? 'yes' : 'NO'} (${fixed(row.tolerance * 100, 1)} %)`, kind: row.within ? undefined : 'beyond' }];
  });
  return table(`${DATA.sides[index].name} against ${DATA.sides[0].name}`, ['Figure', 'A', letter(index), `${letter(index)} - A`, '%', 'how far', 'within'], rows);
}

// How far, and which way: from the middle, the widest bar being the largest difference of the table.
function bar(row, most) {
  const share = Math.max(-1, Math.min(1, (row.relative ?? 0) / most));
  const width = Math.abs(share) * 62;
  return draw('svg', { class: `bar${row.within === false ? ' beyond' : ''}`, viewBox: '0 0 128 18', 'aria-hidden': 'true' },
    draw('rect', { x: share < 0 ? 64 - width : 64, y: 4, width, height: 10 }), draw('line', { class: 'middle', x1: 64, x2: 64, y1: 0, y2: 18 }));
}

function explained({ explanation }, name, labels) {
  if (!explanation) return null;
  const { causes, differences: parted, definitions } = explanation;
  const names = Object.keys(causes);
  const rows = parted.map(({ metric, difference, parts }) => {
    const { label, unit, decimals } = labels[metric];
    const cell = (value) => (value === null ? '?' : fixed(value, decimals));
    return [`${label}${unit ? ` (${unit})` : ''}`, cell(difference), ...names.map((cause) => cell(parts[cause]))];
  });
  return [
    table(`Where the differences of ${name} come from`, ['Figure', 'difference', ...names], rows),
    facts(names.map((cause) => [cause, causes[cause]])),
    definitions.length ? table('Defined differently', ['Question', 'A', 'B'], definitions.map(({ question, a, b }) => [question, { text: a, kind: 'text wrap' }, { text: b, kind: 'text wrap' }])) : null,
    el('ul', {}, parted.filter(({ difference }) => difference !== 0).map(({ sentence }) => el('li', {}, sentence))),
  ];
}

function pairedCharts(comparisons, others) {
  return [['ttft', 'TTFT'], ['e2el', 'E2EL']].flatMap(([id, name]) => {
    const known = comparisons.map((of, i) => [of.paired && of.paired[id], i]).filter(([curve]) => curve && curve.count);
    if (!known.length) return [];
    const values = known.flatMap(([curve]) => curve.ms);
    return [chart({
      title: `${name}: difference of each request`,
      x: { label: 'difference (ms)', scale: (from, to, wanted) => linear(Math.min(0, ...values), Math.max(0, ...values), from, to, wanted), show: ms },
      y: { label: '% of requests', scale: (from, to) => linear(0, 100, from, to, 5), show: (value) => `${fixed(value, 1)} %` },
      series: known.map(([curve, i]) => lineOf(i + 1, others[i].name, { points: curve.ms.map((value, at) => [value, ((curve.ranks[at] + 1) / curve.count) * 100]) })),
      table: () => table(`Percentiles of the differences in ${name}, in ms`, ['Percentile', ...known.map(([, i]) => others[i].name)],
        [0, 5, 25, 50, 75, 95, 99, 100].map((p) => [`${p}`, ...known.map(([curve]) => short(valueAt(curve, p)))])),
    })];
  });
}

document.documentElement.dataset.theme = window.matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
const [masthead, sections] = DATA.kind === 'run' ? runPage() : comparisonPage();
document.getElementById('top').append(masthead, contents());
document.getElementById('main').replaceChildren(...sections.filter((part) => part));
document.getElementById('end').append(`Made by ${DATA.created_by}. TTFT: first token, from the send. ITL: gaps between tokens of a request. TPOT: time per output token after the first. E2EL: end of the response, from the send.`);
