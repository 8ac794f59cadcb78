//! The default report: tokentape's own figures as a table, or as JSON.

mod server;

use std::borrow::Cow;
use std::fmt::Display;

use serde::Serialize;

use super::Options;
use crate::effort::Priority;
use crate::metrics::Measurement;
use crate::metrics::client::{Client, Cpu, Effect};
use crate::metrics::native::{Distribution, Metrics, calculate};
use crate::metrics::slo::Good;
use crate::metrics::steady::Window;
use crate::scrape::Server;
use crate::timeline::Ns;

/// What the JSON report holds.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    metrics: Cow<'a, Metrics>,
    #[serde(skip_serializing_if = "Option::is_none")]
    goodput: Option<Good>,
    #[serde(skip_serializing_if = "Option::is_none")]
    steady: Option<Window>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a Client>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a Server>,
}

impl<'a> Report<'a> {
    fn of(measurement: &Measurement<'_>, options: &Options<'a>) -> Self {
        let steady = if options.steady { Window::of(measurement) } else { None };
        let metrics = match (steady, options.metrics) {
            (Some(window), _) => Cow::Owned(window.figures(measurement)),
            (None, Some(metrics)) => Cow::Borrowed(metrics),
            (None, None) => Cow::Owned(calculate(measurement)),
        };
        Self {
            metrics,
            goodput: options.goodput.map(|goodput| Good::of(measurement, goodput)),
            steady,
            client: options.client,
            server: options.server,
        }
    }
}

/// The figures as JSON, indented, without a final line end. The keys are the field names of [`Metrics`].
pub(super) fn json(measurement: &Measurement<'_>, options: &Options<'_>) -> String {
    // A struct of numbers and fixed keys always serialises.
    serde_json::to_string_pretty(&Report::of(measurement, options)).unwrap_or_default()
}

/// The figures as a table, with a final line end.
pub(super) fn table(measurement: &Measurement<'_>, options: &Options<'_>) -> String {
    let Report { metrics, goodput, steady, client, server: told } = Report::of(measurement, options);
    let mut throughput = throughput(&metrics);
    if let Some(good) = goodput {
        throughput += &goodput_lines(&good);
    }
    let mut sections = vec![requests(&metrics), throughput, latencies(&metrics), tokens(&metrics)];
    if let Some(window) = steady {
        sections.insert(0, steady_line(window));
    }
    if let Some(client) = client {
        sections.extend([delays(client), effects(client)]);
        sections.extend(client.cpu.map(cpu));
    }
    // The server's figures are those of the whole run.
    let figures = told.and_then(|server| server.figures.as_ref());
    if let Some(figures) = figures.filter(|_| steady.is_none()) {
        sections.extend(server::latencies(figures, &metrics));
        sections.push(server::state(figures, &metrics));
    }
    sections.join("\n")
}

fn goodput_lines(good: &Good) -> String {
    let mut text = line("Request goodput", format!("{:.2} req/s", good.requests_per_s));
    text += &line("  good requests", format!("{} ({:.2} %)", good.requests, good.share * 100.0));
    text += &line("  which have", good.objectives());
    text
}

fn steady_line(window: Window) -> String {
    let Window { level, begin_ns, end_ns } = window;
    let second = |ns: Ns| ns as f64 / 1e9;
    let value = format!("{:.3} s to {:.3} s, at least {level} in flight", second(begin_ns), second(end_ns));
    line("Steady part", value)
}

fn line(label: &str, value: impl Display) -> String {
    format!("{label:<28}{value}\n")
}

fn requests(metrics: &Metrics) -> String {
    let requests = &metrics.requests;
    let mut text = line("Requests", requests.total);
    text += &line("  succeeded", requests.succeeded);
    text += &line("  failed", requests.failed);
    for (kind, count) in &requests.failed_by_kind {
        text += &line(&format!("    {kind}"), count);
    }
    for (label, count) in [
        ("  cancelled on purpose", requests.cancelled_on_purpose),
        ("  cancelled", requests.cancelled),
        ("  not sent", requests.not_sent),
        ("  sent more than once", requests.retried),
    ] {
        if count > 0 {
            text += &line(label, count);
        }
    }
    if requests.retried > 0 {
        text += &line("Attempts", requests.attempts);
    }
    text
}

fn throughput(metrics: &Metrics) -> String {
    let mut text = line("Measured window", format!("{:.3} s", metrics.window_s));
    if let Some(limit) = metrics.concurrency_limit {
        text += &line("Concurrency limit", limit);
    }
    if let Some(rate) = metrics.request_rate_per_s {
        text += &line("Request rate asked for", format!("{rate:.2} req/s"));
    }
    text += &line("Peak concurrency", metrics.peak_concurrency);
    text += &line("Request throughput", format!("{:.2} req/s", metrics.request_throughput_per_s));
    text += &line("Input throughput", format!("{:.2} tok/s", metrics.input_throughput_tokens_per_s));
    text += &line("Output throughput", format!("{:.2} tok/s", metrics.output_throughput_tokens_per_s));
    text += &line("Total throughput", format!("{:.2} tok/s", metrics.total_throughput_tokens_per_s));
    text
}

fn latencies(metrics: &Metrics) -> String {
    let mut rows: Vec<(&str, &Distribution)> =
        vec![("TTFT", &metrics.ttft_ms), ("  from scheduled", &metrics.ttft_from_scheduled_ms)];
    let from_last = "  from last attempt";
    rows.extend(metrics.ttft_from_last_attempt_ms.as_ref().map(|times| (from_last, times)));
    let first = &metrics.first_ms;
    if first.has_kinds() {
        let kinds = [
            ("  first reasoning", &first.reasoning),
            ("  first content", &first.content),
            ("  first tool call", &first.tool_call),
        ];
        rows.extend(kinds.into_iter().filter_map(|(label, times)| Some((label, times.as_ref()?))));
    }
    rows.extend([
        ("ITL", &metrics.itl_ms),
        ("TPOT", &metrics.tpot_ms),
        ("E2EL", &metrics.e2el_ms),
        ("  from scheduled", &metrics.e2el_from_scheduled_ms),
    ]);
    rows.extend(metrics.e2el_from_last_attempt_ms.as_ref().map(|times| (from_last, times)));
    distributions("Latency (ms)", &rows, |row| decimals(row.p50))
}

fn delays(client: &Client) -> String {
    let mut rows: Vec<(&str, &Distribution)> =
        vec![("Dispatch lateness", &client.dispatch_lateness_us), ("Write delay", &client.write_delay_us)];
    if client.kernel_stamps {
        rows.push(("Read delay", &client.read_delay_us));
        rows.push(("  first tokens", &client.first_token_read_delay_us));
    }
    distributions("Client (us)", &rows, |_| 1)
}

/// A table of distributions, one a row.
fn distributions(
    title: &str,
    rows: &[(&str, &Distribution)],
    decimals: impl Fn(&Distribution) -> usize,
) -> String {
    const COLUMNS: [&str; 8] = ["mean", "std", "p50", "p90", "p95", "p99", "p99.9", "max"];

    let row = |label: &str, count: String, cells: [String; 8]| {
        let cells = cells.map(|cell| format!("{cell:>11}")).concat();
        format!("{label:<18}{count:>8}{cells}\n")
    };
    let mut text = row(title, "count".to_owned(), COLUMNS.map(str::to_owned));
    for (label, distribution) in rows {
        let decimals = decimals(distribution);
        let cell = |value: f64| match distribution.count {
            0 => "-".to_owned(),
            _ => format!("{value:.decimals$}"),
        };
        let Distribution { count, mean, std, p50, p90, p95, p99, p99_9, max } = **distribution;
        text += &row(label, count.to_string(), [mean, std, p50, p90, p95, p99, p99_9, max].map(cell));
    }
    text
}

fn effects(client: &Client) -> String {
    if !client.kernel_stamps {
        return "The kernel stamped no arrival: the read delay is unknown, and part of every latency.\n"
            .to_owned();
    }
    let effects = &client.effect_us;
    let mut text = format!("{:<26}{:>11}{:>11}{:>11}\n", "Left out as delay (us)", "mean", "p50", "p99");
    for (label, effect) in
        [("TTFT", effects.ttft), ("ITL", effects.itl), ("TPOT", effects.tpot), ("E2EL", effects.e2el)]
    {
        let Effect { mean, p50, p99 } = effect;
        text += &format!("{label:<26}{mean:>+11.1}{p50:>+11.1}{p99:>+11.1}\n");
    }
    text
}

fn cpu(cpu: Cpu) -> String {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let mut text = String::new();
    if cpu.workers > 0 {
        text += &line("Busiest sending thread", format!("{} computing", percent(cpu.busiest_worker_share)));
    }
    if cpu.priority == Priority::RealTime {
        text += &line("  priority", "real-time".to_owned());
    }
    if let Some(waiting) = cpu.waiting_worker_share {
        text += &line("  waiting for a processor", percent(waiting));
    }
    text += &line("Whole client", format!("{} of a processor", percent(cpu.process_share)));
    let mebibytes = cpu.peak_memory_bytes as f64 / f64::from(1 << 20);
    text += &line("  memory at most", format!("{mebibytes:.1} MiB"));
    text
}

/// Decimals that leave the row's median three or four significant digits, and never less than a microsecond.
fn decimals(median_ms: f64) -> usize {
    match median_ms {
        ms if ms < 10.0 => 3,
        ms if ms < 100.0 => 2,
        ms if ms < 1000.0 => 1,
        _ => 0,
    }
}

fn tokens(metrics: &Metrics) -> String {
    let tokens = &metrics.tokens;
    let mut text = line("Input tokens", tokens.input);
    if let Some(cached) = tokens.cached {
        text += &line("  from the prefix cache", of(cached, tokens.input));
    }
    text += &line("Output tokens", tokens.output);
    if let Some(reasoning) = tokens.reasoning {
        text += &line("  of reasoning", of(reasoning, tokens.output));
    }
    if tokens.requests_without_usage > 0 {
        let note = format!("{} requests without usage: their output events", tokens.requests_without_usage);
        text += &line("  counted by events", note);
    }
    text += &line("Output events", tokens.output_events);
    if tokens.merged_read_events > 0 {
        let share = format!("{} ({:.2} %)", tokens.merged_read_events, tokens.merged_read_share * 100.0);
        text += &line("  sharing a socket read", share);
    }
    if tokens.silent_events > 0 {
        text += &line("  with empty text", tokens.silent_events);
    }
    text
}

/// A part of a whole, with its share where there is a whole.
fn of(part: u64, whole: u64) -> String {
    if whole == 0 {
        return part.to_string();
    }
    format!("{part} ({:.2} %)", part as f64 / whole as f64 * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effort::{Busy, Effort};
    use crate::metrics::client;
    use crate::metrics::vllm::Goodput;
    use crate::timeline::{Events, Facts, Outcome, Reads, Timeline, Usage};

    fn run() -> Vec<Timeline> {
        let token = Facts::JSON.with(Facts::CHOICES).with(Facts::CONTENT);
        let answered = |sent: u64| Timeline {
            scheduled_ns: sent,
            dispatched_ns: sent + 150_000,
            reads: Reads {
                at_ns: vec![sent + 20_300_000, sent + 30_350_000],
                late_ns: vec![10_000, 60_000],
                bytes: vec![1; 2],
            },
            events: Events {
                read: vec![0, 1, 1],
                facts: vec![token, token, Facts::DONE],
                ..Events::default()
            },
            end_ns: sent + 30_360_000,
            outcome: Outcome::Success,
            input_tokens: Some(100),
            ..Timeline::default()
        };
        let refused = Outcome::Connect { message: "refused".into() };
        vec![answered(0), answered(1_000), Timeline { outcome: refused, ..Timeline::default() }]
    }

    #[test]
    fn the_table() {
        let timelines = run();
        let measurement = Measurement {
            timelines: &timelines,
            duration_ns: 40_000_000,
            concurrency: Some(2),
            request_rate: None,
        };
        let expected = "\
Requests                    3
  succeeded                 2
  failed                    1
    connect                 1

Measured window             0.040 s
Concurrency limit           2
Peak concurrency            2
Request throughput          50.00 req/s
Input throughput            5000.00 tok/s
Output throughput           100.00 tok/s
Total throughput            5100.00 tok/s

Latency (ms)         count       mean        std        p50        p90        p95        p99      p99.9        max
TTFT                     2      20.15       0.00      20.15      20.15      20.15      20.15      20.15      20.15
  from scheduled         2      20.30       0.00      20.30      20.30      20.30      20.30      20.30      20.30
ITL                      2      10.05       0.00      10.05      10.05      10.05      10.05      10.05      10.05
TPOT                     2      10.05       0.00      10.05      10.05      10.05      10.05      10.05      10.05
E2EL                     2      30.20       0.00      30.20      30.20      30.20      30.20      30.20      30.20
  from scheduled         2      30.35       0.00      30.35      30.35      30.35      30.35      30.35      30.35

Input tokens                200
Output tokens               4
  counted by events         2 requests without usage: their output events
Output events               4
";
        assert_eq!(table(&measurement, &Options::default()), expected);
    }

    #[test]
    fn the_clients_part_follows() {
        let timelines = run();
        let measurement = Measurement {
            timelines: &timelines,
            duration_ns: 40_000_000,
            concurrency: Some(2),
            request_rate: None,
        };
        let effort = Effort {
            workers: vec![Busy { wall_ns: 1000, user_ns: 200, system_ns: 56, waited_ns: Some(4) }],
            process: Busy { wall_ns: 1000, user_ns: 300, system_ns: 100, waited_ns: None },
            priority: Priority::Normal,
            peak_memory_bytes: 12 << 20,
        };
        let client = client::calculate(&measurement, Some(&effort));
        let text = table(&measurement, &Options { client: Some(&client), ..Options::default() });
        let (_, client) = text.split_once("Output events               4\n\n").unwrap();
        let expected = "\
Client (us)          count       mean        std        p50        p90        p95        p99      p99.9        max
Dispatch lateness        3      100.0       70.7      150.0      150.0      150.0      150.0      150.0      150.0
Write delay              0          -          -          -          -          -          -          -          -
Read delay               4       35.0       25.0       35.0       60.0       60.0       60.0       60.0       60.0
  first tokens           2       10.0        0.0       10.0       10.0       10.0       10.0       10.0       10.0

Left out as delay (us)           mean        p50        p99
TTFT                            +10.0      +10.0      +10.0
ITL                             +50.0      +50.0      +50.0
TPOT                            +50.0      +50.0      +50.0
E2EL                            +60.0      +60.0      +60.0

Busiest sending thread      25.6 % computing
  waiting for a processor   0.4 %
Whole client                40.0 % of a processor
  memory at most            12.0 MiB
";
        assert_eq!(client, expected);
    }

    /// A request that reasons, with a prompt of which the server had a part in its cache.
    fn reasoned() -> Timeline {
        let mut request = run().swap_remove(0);
        request.events.facts[0] = Facts::JSON.with(Facts::CHOICES).with(Facts::REASONING);
        request.usage = Some(Usage {
            prompt_tokens: 100,
            completion_tokens: 2,
            cached_tokens: Some(64),
            reasoning_tokens: Some(1),
        });
        request
    }

    #[test]
    fn kinds_and_the_cache_have_lines_where_they_are_told() {
        let timelines = [reasoned()];
        let measurement =
            Measurement { timelines: &timelines, duration_ns: 1, concurrency: None, request_rate: None };
        let text = table(&measurement, &Options::default());
        let begins = |line: &str| text.lines().any(|of_text| of_text.starts_with(line));
        assert!(begins("  first reasoning        1      20.15"), "{text}");
        assert!(begins("  first content          1      30.20"), "{text}");
        assert!(!text.contains("first tool call"), "{text}");
        assert!(begins("  from the prefix cache     64 (64.00 %)"), "{text}");
        assert!(begins("  of reasoning              1 (50.00 %)"), "{text}");
    }

    #[test]
    fn the_json_has_the_documented_keys() {
        let mut timelines = run();
        timelines.push(reasoned());
        let measurement =
            Measurement { timelines: &timelines, duration_ns: 1, concurrency: None, request_rate: None };
        let client = client::calculate(&measurement, Some(&Effort::default()));
        let server = super::server::tests::server();
        let options = Options {
            goodput: Some(Goodput::default()),
            steady: true,
            client: Some(&client),
            server: Some(&server),
            ..Options::default()
        };
        let json: serde_json::Value = serde_json::from_str(&json(&measurement, &options)).unwrap();
        assert!(json["client"]["cpu"].is_object());
        assert!(json["server"]["figures"].is_object());
        let docs =
            concat!(include_str!("../../docs/metrics.md"), include_str!("../../docs/server-metrics.md"));
        let mut keys = vec![&json];
        while let Some(value) = keys.pop() {
            for (key, value) in value.as_object().into_iter().flatten() {
                assert!(
                    docs.contains(&format!("`{key}`"))
                        || ["connect", "length", "stop"].contains(&key.as_str()),
                    "{key} is not documented"
                );
                keys.push(value);
            }
        }
    }
}
