//! The server's part of the table.

use super::{decimals, line};
use crate::metrics::native::{Distribution, Metrics};
use crate::scrape::{Figures, Gauge, Latency, Quantile};

/// The server's latencies, and the client's means of those that both measure; none where the server has none.
pub(super) fn latencies(figures: &Figures, metrics: &Metrics) -> Option<String> {
    let row = |label: &str, cells: [String; 6]| {
        let [count, mean, p50, p99, client, difference] = cells;
        format!("{label:<18}{count:>8}{mean:>11}{p50:>11}{p99:>11}{client:>14}{difference:>12}")
            .trim_end()
            .to_owned()
            + "\n"
    };
    let head = ["count", "mean", "p50", "p99", "client mean", "difference"];
    let head = row("Server (ms)", head.map(str::to_owned));
    let mut text = String::new();
    let rows: [(&str, Option<Latency>, Option<&Distribution>); 6] = [
        ("TTFT", figures.ttft_ms, Some(&metrics.ttft_ms)),
        ("  queue", figures.queue_ms, None),
        ("  prefill", figures.prefill_ms, None),
        ("ITL", figures.itl_ms, Some(&metrics.itl_ms)),
        ("Decode", figures.decode_ms, None),
        ("E2EL", figures.e2el_ms, Some(&metrics.e2el_ms)),
    ];
    for (label, latency, client) in rows {
        let Some(Latency { count, mean, p50, p99 }) = latency else { continue };
        let decimals = decimals(mean);
        let quantile = |quantile: Quantile| match quantile {
            Quantile { interpolated: Some(value), .. } => format!("{value:.decimals$}"),
            Quantile { up_to: Some(bound), .. } => format!("<{}", plain(bound)),
            Quantile { above, .. } => format!(">{}", plain(above)),
        };
        let client = client.filter(|client| client.count > 0).map(|client| client.mean);
        let difference = client.map(|client| format!("{:+.decimals$}", client - mean));
        let client = client.map(|client| format!("{client:.decimals$}"));
        let cells = [count.to_string(), format!("{mean:.decimals$}"), quantile(p50), quantile(p99)];
        let [count, mean, p50, p99] = cells;
        text +=
            &row(label, [count, mean, p50, p99, client.unwrap_or_default(), difference.unwrap_or_default()]);
    }
    (!text.is_empty()).then(|| head + &text)
}

/// A bucket's bound, without decimals that it does not have.
fn plain(bound_ms: f64) -> String {
    format!("{bound_ms:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What the server did, and how full it was.
pub(super) fn state(figures: &Figures, metrics: &Metrics) -> String {
    let reasons: Vec<String> =
        figures.finished.iter().map(|(reason, count)| format!(", {count} {reason}")).collect();
    let finished = format!("{}{}", figures.all_finished(), reasons.concat());
    let warmup = match figures.warmup {
        0 => String::new(),
        warmup => format!(" and {warmup} of its warm-up"),
    };
    let mut text =
        line("Server finished", format!("{finished}; the client's {}{warmup}", metrics.requests.succeeded));
    let (input, output) = (figures.prompt_tokens, figures.generation_tokens);
    text += &line("  input, output tokens", format!("{input}, {output}"));
    if let Some(share) = figures.prefix_cache_hit_share {
        text += &line("  found in prefix cache", format!("{:.1} %", share * 100.0));
    }
    text += &line("  preemptions", figures.preemptions);
    if figures.restarted {
        text += &line("  counted since", "the server's restart");
    }
    let mut gauge = |label: &str, gauge: Option<Gauge>, factor: f64, unit: &str| {
        if let Some(Gauge { mean, max }) = gauge {
            let (mean, max) = (mean * factor, max * factor);
            text += &line(label, format!("mean {mean:.1}{unit}, max {max:.1}{unit}"));
        }
    };
    gauge("Server running", figures.running, 1.0, "");
    gauge("  waiting", figures.waiting, 1.0, "");
    gauge("  KV cache in use", figures.kv_cache_usage, 100.0, " %");
    let failed = match figures.failed_scrapes {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    let samples = match (figures.samples, figures.failed_scrapes) {
        (0, 0) => "none: the run was shorter than --scrape-interval".to_owned(),
        (samples, _) => samples.to_string(),
    };
    text + &line("  samples of the run", samples + &failed)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::metrics::Measurement;
    use crate::metrics::native::calculate;
    use crate::scrape::{Model, Server};

    /// All that a server can tell.
    pub(in crate::report::native) fn server() -> Server {
        let quantile = |above, up_to, interpolated| Quantile { above, up_to, interpolated };
        let first = quantile(0.0, Some(300.0), None);
        let latency = |mean, p50, p99| Some(Latency { count: 2, mean, p50, p99 });
        let middle = |value| quantile(10.0, Some(20.0), Some(value));
        let figures = Figures {
            interval_s: 10.5,
            samples: 3,
            failed_scrapes: 1,
            warmup: 1,
            finished: [("length".to_owned(), 2), ("stop".to_owned(), 1)].into(),
            prompt_tokens: 300,
            generation_tokens: 6,
            prefix_cache_hit_share: Some(0.125),
            ttft_ms: latency(19.5, middle(15.0), quantile(2_560_000.0, None, None)),
            itl_ms: latency(10.0, middle(15.0), middle(19.9)),
            e2el_ms: latency(29.75, middle(15.0), middle(19.9)),
            queue_ms: latency(0.025, first, first),
            prefill_ms: latency(19.0, middle(15.0), middle(19.9)),
            decode_ms: latency(10.0, middle(15.0), middle(19.9)),
            running: Some(Gauge { mean: 1.5, max: 2.0 }),
            waiting: Some(Gauge { mean: 0.0, max: 0.0 }),
            kv_cache_usage: Some(Gauge { mean: 0.031, max: 0.04 }),
            ..Figures::default()
        };
        let model = Some(Model { id: "m".to_owned(), max_model_len: Some(4096) });
        Server { version: Some("0.32.0".to_owned()), model, figures: Some(figures) }
    }

    /// What a client measured that sent nothing.
    fn nothing() -> Metrics {
        calculate(&Measurement { timelines: &[], duration_ns: 1, concurrency: None, request_rate: None })
    }

    #[test]
    fn the_servers_part() {
        let client = |mean| Distribution { count: 2, mean, ..Distribution::default() };
        let mut metrics =
            Metrics { ttft_ms: client(20.15), itl_ms: client(10.05), e2el_ms: client(30.2), ..nothing() };
        metrics.requests.succeeded = 2;
        let figures = server().figures.unwrap();
        let expected = "\
Server (ms)          count       mean        p50        p99   client mean  difference
TTFT                     2      19.50      15.00   >2560000         20.15       +0.65
  queue                  2      0.025       <300       <300
  prefill                2      19.00      15.00      19.90
ITL                      2      10.00      15.00      19.90         10.05       +0.05
Decode                   2      10.00      15.00      19.90
E2EL                     2      29.75      15.00      19.90         30.20       +0.45
";
        assert_eq!(latencies(&figures, &metrics).unwrap(), expected);
        let expected = "\
Server finished             3, 2 length, 1 stop; the client's 2 and 1 of its warm-up
  input, output tokens      300, 6
  found in prefix cache     12.5 %
  preemptions               0
Server running              mean 1.5, max 2.0
  waiting                   mean 0.0, max 0.0
  KV cache in use           mean 3.1 %, max 4.0 %
  samples of the run        3, 1 failed
";
        assert_eq!(state(&figures, &metrics), expected);
    }

    #[test]
    fn what_the_server_does_not_tell_is_left_out() {
        let figures = Figures { finished: [("stop".to_owned(), 2)].into(), ..Figures::default() };
        let metrics = nothing();
        assert_eq!(latencies(&figures, &metrics), None);
        assert!(!state(&figures, &metrics).contains("running"));
        let ttft_ms = server().figures.and_then(|figures| figures.ttft_ms);
        let text = latencies(&Figures { ttft_ms, ..figures }, &metrics).unwrap();
        // The client measured none.
        assert!(text.ends_with("\nTTFT                     2      19.50      15.00   >2560000\n"), "{text}");
    }
}
