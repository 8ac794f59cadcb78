//! The report on a sweep of 1.14.1 (`LLMSummaryRenderer` in `evalscope/perf/utils/rich_display.py`).

use super::super::rich::{self, Align};
use super::{RATES, Sheet, WINDOWS, shown, windows};
use crate::metrics::evalscope::v1_14_1::{Column, Percentiles};
use crate::metrics::evalscope::workload::Throughput;
use crate::python;

/// What the report on a sweep says of one run.
pub(crate) struct Entry<'a> {
    pub(crate) sheet: Sheet,
    pub(crate) percentiles: &'a Percentiles,
    pub(crate) throughput: Option<Throughput>,
}

impl Entry<'_> {
    fn key(&self) -> (f64, f64) {
        let or_last = |x: Option<f64>| x.unwrap_or(f64::INFINITY);
        let traffic = self.sheet.traffic;
        (or_last(traffic.concurrency.map(f64::from)), or_last(traffic.request_rate))
    }

    /// The first two cells of its block: on the first line alone.
    fn label(&self, is_first: bool) -> [String; 2] {
        if !is_first {
            return [String::new(), String::new()];
        }
        let traffic = self.sheet.traffic;
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            or_dash(traffic.concurrency.map(|limit| limit.to_string())),
            or_dash(traffic.request_rate.map(|rate| shown(rate, 2))),
        ]
    }
}

/// What the report on a sweep says of the sweep itself.
pub(crate) struct Head<'a> {
    pub(crate) model: &'a str,
    pub(crate) alias: Option<&'a str>,
    pub(crate) dataset: &'a str,
    pub(crate) api: &'a str,
    pub(crate) url: &'a str,
    pub(crate) output_path: &'a str,
}

/// `performance_summary.txt`, which the console shows too. Empty without a run.
pub(crate) fn report(head: &Head<'_>, mut entries: Vec<Entry<'_>>) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let basic = basic_information(head, &entries);
    entries.sort_by(|a, b| {
        let ((a, a_rate), (b, b_rate)) = (a.key(), b.key());
        a.total_cmp(&b).then(a_rate.total_cmp(&b_rate))
    });
    let mut tables = vec![overview(&entries), per_request(&entries)];
    tables.extend(throughputs(&entries));
    let tables: Vec<String> = tables.iter().map(|table| format!("\n\n{}", table.render(CONSOLE))).collect();
    let title = rich::panel("Performance Test Summary Report", 80);
    format!("{title}\nBasic Information:\n{}{}", basic.render(CONSOLE), tables.concat())
}

/// The width of the original's console.
const CONSOLE: usize = 120;

fn basic_information(head: &Head<'_>, entries: &[Entry<'_>]) -> rich::Table {
    let tokens: f64 =
        entries.iter().fold(0.0, |sum, entry| sum + entry.sheet.output_tokens * entry.sheet.succeeded as f64);
    let duration = entries.iter().fold(0.0, |sum, entry| sum + entry.sheet.duration);
    let mut table = rich::Table::headless(80, [25, 55]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("Model", head.model.to_owned());
    if let Some(alias) = head.alias {
        row("Alias", alias.to_owned());
    }
    row("Test Dataset", head.dataset.to_owned());
    row("API Type", head.api.to_owned());
    row("Endpoint", endpoint(head.url));
    row("Total Generated", format!("{} tokens", python::grouped(tokens)));
    let rate =
        if duration > 0.0 { format!("{} tok/s", shown(tokens / duration, 2)) } else { "N/A".to_owned() };
    row("Avg Output Rate", rate);
    row("Total Test Time", format!("{} s", shown(duration, 2)));
    row("Output Path", head.output_path.to_owned());
    table
}

/// `sanitize_endpoint` (`evalscope/utils/uri_utils.py`): host and port alone.
fn endpoint(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.is_empty() { "—".to_owned() } else { host.to_lowercase() }
}

fn overview(entries: &[Entry<'_>]) -> rich::Table {
    let mut table = rich::Table::new("Performance Overview");
    for header in ["Conc.", "Rate", "Num", "RPS", "Gen/s", "Success"] {
        table.column(header, Align::Right);
    }
    for entry in entries {
        let sheet = &entry.sheet;
        let figures = [
            sheet.total.to_string(),
            shown(sheet.request_throughput, 2),
            shown(sheet.output_throughput, 2),
            format!("{}%", shown(sheet.success_percent(), 1)),
        ];
        table.row(entry.label(true).into_iter().chain(figures));
    }
    table
}

fn per_request(entries: &[Entry<'_>]) -> rich::Table {
    let any = |has: &dyn Fn(&Sheet) -> bool| entries.iter().any(|entry| has(&entry.sheet));
    let has_ttft = any(&|sheet| sheet.ttft != 0.0);
    let has_tpot = any(&|sheet| sheet.tpot != 0.0);
    let has_steady_itl = any(&|sheet| sheet.steady_itl.is_some());
    let has_handoff_latency = any(&|sheet| sheet.handoff_latency.is_some());
    let has_handoff_overhead = any(&|sheet| sheet.handoff_overhead.is_some());
    let has_output = any(&|sheet| sheet.output_tokens != 0.0);
    let has_cache = any(&|sheet| sheet.cache_hit_percent.is_some());
    let has_steps = any(&|sheet| sheet.decoded_per_step.is_some());

    let mut table = rich::Table::new("Per-Request Metrics");
    for header in ["Conc.", "Rate"] {
        table.column(header, Align::Right);
    }
    table.column("Metric", Align::Left);
    for header in ["avg", "p50", "p99", "max"] {
        table.column(header, Align::Right);
    }
    for (i, entry) in entries.iter().enumerate() {
        if i > 0 {
            table.section();
        }
        let (sheet, p) = (&entry.sheet, entry.percentiles);
        let tokens_per_second = (sheet.tpot > 0.0).then(|| 1000.0 / sheet.tpot);
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let number = |x: Option<f64>, decimals| or_dash(x.map(|x| shown(x, decimals)));
        let percent = |x: Option<f64>| or_dash(x.map(|x| format!("{}%", shown(x, 1))));
        let spread = |column: Option<&Column>, decimals: usize| {
            // The lines of 50 %, 99 % and max.
            [5, 9, 10].map(|at| number(column.map(|column| column[at]).filter(|&x| x != 0.0), decimals))
        };
        let none = || spread(None, 0);
        let lines = [
            (true, "Latency (s)", number(Some(sheet.latency), 3), spread(Some(&p.latency), 3)),
            (has_ttft, "TTFT (ms)", number(Some(sheet.ttft), 2), spread(Some(&p.ttft), 2)),
            (has_tpot, "TPOT (ms)", number(Some(sheet.tpot), 2), spread(Some(&p.tpot), 2)),
            (
                has_steady_itl,
                "Steady ITL (ms)",
                number(sheet.steady_itl, 2),
                spread(p.steady_itl.as_ref(), 2),
            ),
            (
                has_handoff_latency,
                "PD Handoff Latency (ms)",
                number(sheet.handoff_latency, 2),
                spread(p.handoff_latency.as_ref(), 2),
            ),
            (
                has_handoff_overhead,
                "PD Handoff Overhead (ms)",
                number(sheet.handoff_overhead, 2),
                spread(p.handoff_overhead.as_ref(), 2),
            ),
            (true, "Input Tokens", number(Some(sheet.input_tokens), 0), spread(Some(&p.input_tokens), 0)),
            (
                has_output,
                "Output Tokens",
                number(Some(sheet.output_tokens), 0),
                spread(Some(&p.output_tokens), 0),
            ),
            (has_cache, "Cache Hit (%)", percent(sheet.cache_hit_percent), none()),
            (has_tpot, "Decode toks/s", number(tokens_per_second, 2), none()),
            (has_steps, "Decoded Tok/Iter", number(sheet.decoded_per_step, 2), none()),
            (has_steps, "Spec. Accept Rate", percent(sheet.accept_rate.map(|rate| rate * 100.0)), none()),
        ];
        let lines = lines.into_iter().filter(|(has, ..)| *has).enumerate();
        for (i, (_, name, mean, spread)) in lines {
            table.row(entry.label(i == 0).into_iter().chain([name.to_owned(), mean]).chain(spread));
        }
    }
    table
}

/// The throughput of each run with a success; no table without one.
fn throughputs(entries: &[Entry<'_>]) -> Option<rich::Table> {
    let mut table = rich::Table::new("Workload Throughput");
    for header in ["Conc.", "Rate"] {
        table.column(header, Align::Right);
    }
    table.column("Metric (tok/s)", Align::Left);
    for window in WINDOWS {
        table.column(window, Align::Right);
    }
    let mut any = false;
    for (entry, throughput) in entries.iter().filter_map(|entry| entry.throughput.map(|it| (entry, it))) {
        if any {
            table.section();
        }
        any = true;
        for (i, (name, rate)) in RATES.into_iter().enumerate() {
            let figures = windows(&throughput, rate);
            table.row(entry.label(i == 0).into_iter().chain([name.to_owned()]).chain(figures));
        }
    }
    any.then_some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_host_and_port() {
        for (url, expected) in [
            ("http://127.0.0.1:8801/v1/chat/completions", "127.0.0.1:8801"),
            ("https://user:key@API.example.com/v1?x=/", "api.example.com"),
            ("localhost:80", "localhost:80"),
            ("http://[::1]:9/v1", "[::1]:9"),
            ("", "—"),
        ] {
            assert_eq!(endpoint(url), expected);
        }
    }
}
