//! Whether a run's figures can be trusted, and if not, why: after the manner of MLPerf LoadGen, every run says it.
//!
//! Two kinds of reason make a run INVALID: requests that did not end well, and a client that was too slow for what it
//! measured. The first have no threshold; those of the second are [`Thresholds`]. A warning says what to keep in mind
//! when reading a valid run. `docs/verdict.md` explains each rule.

mod thresholds;

use serde::{Deserialize, Serialize};

use super::{Counts, Traffic, Workload};
use crate::metrics::client::Client;
use crate::metrics::native::Metrics;

pub(crate) use thresholds::parse_share;
pub use thresholds::{Thresholds, UnknownThreshold};

/// VALID, or INVALID with reasons.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Verdict {
    /// Whether there is no reason against the run.
    pub valid: bool,
    /// Each reason against it, in words, after the name of its rule.
    pub reasons: Vec<String>,
    /// What else a reader should know, in the same form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What was held against what.
    #[serde(default)]
    pub thresholds: Thresholds,
}

/// What a verdict is based on.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// How the requests ended.
    pub counts: &'a Counts,
    /// What was sent.
    pub workload: &'a Workload,
    /// How it was sent.
    pub traffic: &'a Traffic,
    /// The native figures.
    pub metrics: &'a Metrics,
    /// The client's own part in them.
    pub client: &'a Client,
}

impl Verdict {
    /// The verdict on a run.
    #[must_use]
    pub fn of(evidence: &Evidence<'_>, thresholds: &Thresholds) -> Self {
        let mut findings = Findings::default();
        findings.requests(evidence);
        findings.client(evidence, thresholds);
        findings.samples(evidence, thresholds);
        Self {
            valid: findings.reasons.is_empty(),
            reasons: findings.reasons,
            warnings: findings.warnings,
            thresholds: *thresholds,
        }
    }

    /// `VALID`, or `INVALID: reason; reason`.
    #[must_use]
    pub fn line(&self) -> String {
        if self.valid { "VALID".to_owned() } else { format!("INVALID: {}", self.reasons.join("; ")) }
    }

    /// The verdict as the end of a table: its line, and one more for each warning.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("verdict: {}\n", self.line());
        for warning in &self.warnings {
            text += &format!("warning: {warning}\n");
        }
        text
    }
}

#[derive(Default)]
struct Findings {
    reasons: Vec<String>,
    warnings: Vec<String>,
}

impl Findings {
    fn invalid_if(&mut self, condition: bool, words: impl FnOnce() -> String) {
        if condition {
            self.reasons.push(words());
        }
    }

    fn warn_if(&mut self, condition: bool, words: impl FnOnce() -> String) {
        if condition {
            self.warnings.push(words());
        }
    }

    /// Whether every request was sent, and ended well.
    fn requests(&mut self, evidence: &Evidence<'_>) {
        let Evidence { counts, workload, traffic, .. } = evidence;
        let all = counts.requests;
        let unaccounted = counts.unaccounted();
        self.invalid_if(unaccounted > 0, || {
            format!("unaccounted: {unaccounted} of {all} requests are unaccounted for: a fault of tokentape")
        });
        let unsent = counts.cancelled + counts.not_sent;
        self.invalid_if(unsent > 0, || {
            format!("interrupted: {unsent} of {all} requests were cut off or not sent")
        });
        let kinds: Vec<String> =
            counts.failed.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        self.invalid_if(!kinds.is_empty(), || {
            format!("failed: {} of {all} requests failed: {}", counts.all_failed(), kinds.join(", "))
        });
        let is_other =
            workload.tape_digest.as_ref().is_some_and(|digest| *digest != workload.workload_digest);
        self.invalid_if(is_other, || {
            "digest: what was sent is not what the tape's footer says it holds".to_owned()
        });
        let (retried, attempts) = (counts.retried, counts.attempts);
        self.warn_if(retried > 0, || {
            format!(
                "retries: {retried} of {all} requests were sent more than once ({attempts} attempts in all); their latencies count from the first"
            )
        });
        let rebuilt = workload.rebuilt;
        self.warn_if(rebuilt > 0, || {
            format!(
                "history: {rebuilt} of {all} requests repeat what the server said in this run: their bodies are not the tape's, and another run has others"
            )
        });
        let (warmup, failures) = (traffic.warmup, traffic.warmup_failures);
        self.warn_if(failures > 0, || format!("warm-up: {failures} of {warmup} warm-up requests failed"));
    }

    /// Whether the client was quick enough for what it measured.
    fn client(&mut self, evidence: &Evidence<'_>, thresholds: &Thresholds) {
        let Evidence { traffic, metrics, client, .. } = evidence;
        self.dispatch(evidence, thresholds);

        let median_ttft = Yardstick::median_ttft(metrics);
        // Unlike their median, the mean of the gaps stays what it is when a late client reads tokens together.
        let mean_itl = Yardstick { name: "mean ITL", ms: metrics.itl_ms.mean }.or_median_e2el(metrics);
        let read_delays = [
            ("read delay", &client.read_delay_us, mean_itl),
            ("read delay of first tokens", &client.first_token_read_delay_us, median_ttft),
        ];
        for (what, delay, yardstick) in read_delays {
            let limit = thresholds.read_delay;
            let is_late = client.kernel_stamps && yardstick.is_exceeded(delay.p99, limit);
            self.invalid_if(is_late, || yardstick.words("read-delay", what, delay.p99, limit));
        }
        self.warn_if(!client.kernel_stamps && metrics.requests.succeeded > 0, || {
            "stamps: the kernel stamped no arrival; the client's read delay is unknown, and part of every figure"
                .to_owned()
        });
        let (delay, limit) = (client.write_delay_us.p99, thresholds.write_delay);
        self.warn_if(median_ttft.is_exceeded(delay, limit), || {
            median_ttft.words("write-delay", "write delay", delay, limit)
        });

        let Some(cpu) = client.cpu else { return };
        let (busy, limit) = (cpu.busiest_worker_share, thresholds.cpu);
        self.invalid_if(busy > limit, || {
            let workers = traffic.workers;
            format!(
                "cpu: a sending thread (of {workers}) was computing {} of the time, more than {}; more --workers, or fewer requests at once, would help",
                percent(busy), percent(limit),
            )
        });
        let (waiting, limit) = (cpu.waiting_worker_share.unwrap_or(0.0), thresholds.cpu_wait);
        self.invalid_if(waiting > limit, || {
            format!(
                "cpu-wait: a sending thread waited for a processor {} of the time, more than {}; something else on this machine had it",
                percent(waiting), percent(limit),
            )
        });
    }

    /// Whether the traffic was what was asked for.
    fn dispatch(&mut self, evidence: &Evidence<'_>, thresholds: &Thresholds) {
        let Evidence { traffic, metrics, client, .. } = evidence;
        let late = client.dispatch_lateness_us.p99;
        let median_ttft = Yardstick::median_ttft(metrics);
        let limit = thresholds.late_dispatch;
        match (&traffic.arrival, traffic.concurrency) {
            (Some(_), None) => {
                self.invalid_if(median_ttft.is_exceeded(late, limit), || {
                    median_ttft.words("late-dispatch", "dispatch lateness", late, limit)
                });
            }
            // Waiting for a slot is no fault of the client's, and cannot be told from one.
            (Some(_), Some(slots)) => {
                self.warn_if(median_ttft.is_exceeded(late, limit), || {
                    format!(
                        "late-dispatch: requests went out up to {} (p99) after their time: the limit of {slots} at once held the schedule back",
                        microseconds(late),
                    )
                });
            }
            (None, _) => {
                let (idle, limit) = (client.lateness_share, thresholds.idle);
                self.invalid_if(idle > limit, || {
                    format!(
                        "idle: slots with requests to send stood idle {} of the time, more than {}: the load was less than asked for",
                        percent(idle), percent(limit),
                    )
                });
            }
        }
    }

    /// Whether there is enough to take percentiles of.
    fn samples(&mut self, evidence: &Evidence<'_>, thresholds: &Thresholds) {
        let metrics = evidence.metrics;
        let (count, limit) = (metrics.requests.succeeded, thresholds.samples);
        self.warn_if(count < limit, || {
            format!("samples: {count} successful requests; a p99 of TTFT or E2EL takes {limit}")
        });
        let (share, limit) = (metrics.tokens.merged_read_share, thresholds.merged);
        self.warn_if(share > limit, || {
            format!(
                "merged: {} of the tokens shared a socket read, more than {}; ITL's percentiles tell little of the server",
                percent(share), percent(limit),
            )
        });
    }
}

/// A latency of the run, which the client's delays are held against.
#[derive(Clone, Copy)]
struct Yardstick {
    name: &'static str,
    ms: f64,
}

impl Yardstick {
    fn median_ttft(metrics: &Metrics) -> Self {
        Self { name: "median TTFT", ms: metrics.ttft_ms.p50 }.or_median_e2el(metrics)
    }

    /// Where no response is a stream, its end is all that it has.
    fn or_median_e2el(self, metrics: &Metrics) -> Self {
        if metrics.ttft_ms.count == 0 && metrics.e2el_ms.count > 0 {
            return Self { name: "median E2EL", ms: metrics.e2el_ms.p50 };
        }
        self
    }

    /// Whether a delay in us is more than this share of it. Where it is 0 (there is no such latency, or every answer
    /// came in one read), there is nothing to hold a delay against.
    fn is_exceeded(self, delay_us: f64, share: f64) -> bool {
        self.ms > 0.0 && delay_us > share * self.ms * 1000.0
    }

    fn words(self, rule: &str, what: &str, delay_us: f64, share: f64) -> String {
        format!(
            "{rule}: the client's p99 {what} was {}, more than {} of the {} ({})",
            microseconds(delay_us),
            percent(share),
            self.name,
            microseconds(self.ms * 1000.0),
        )
    }
}

/// `12 us`, `3.45 ms`.
fn microseconds(us: f64) -> String {
    if us < 1000.0 { format!("{us:.0} us") } else { format!("{:.2} ms", us / 1000.0) }
}

/// `12.5 %`.
fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::client::Cpu;
    use crate::metrics::native::{Distribution, Requests, Tokens};
    use crate::metrics::{Measurement, native};

    /// A run of 200 good requests in a closed loop: TTFT 20 ms, ITL 10 ms, a client without delay.
    struct Case {
        counts: Counts,
        workload: Workload,
        traffic: Traffic,
        metrics: Metrics,
        client: Client,
    }

    impl Case {
        fn good() -> Self {
            let measurement =
                Measurement { timelines: &[], duration_ns: 0, concurrency: None, request_rate: None };
            let latency = |ms| Distribution { count: 200, mean: ms, p50: ms, ..Distribution::default() };
            Self {
                counts: Counts { requests: 200, succeeded: 200, ..Counts::default() },
                workload: Workload {
                    tape: "t".to_owned(),
                    source: "random".to_owned(),
                    seed: None,
                    tokenizer: None,
                    workload_digest: "a".to_owned(),
                    tape_digest: Some("a".to_owned()),
                    wire_digest: "a".to_owned(),
                    model: None,
                    rebuilt: 0,
                },
                traffic: Traffic {
                    concurrency: Some(4),
                    request_rate: None,
                    arrival: None,
                    workers: 1,
                    timeout_ms: 1,
                    warmup: 3,
                    warmup_failures: 0,
                    ..Traffic::default()
                },
                metrics: Metrics {
                    requests: Requests { total: 200, succeeded: 200, ..Requests::default() },
                    ttft_ms: latency(20.0),
                    itl_ms: latency(10.0),
                    ..native::calculate(&measurement)
                },
                client: Client {
                    kernel_stamps: true,
                    cpu: Some(Cpu { workers: 1, waiting_worker_share: Some(0.0), ..Cpu::default() }),
                    ..Client::default()
                },
            }
        }

        fn cpu(&mut self) -> &mut Cpu {
            self.client.cpu.get_or_insert_default()
        }

        fn open_loop(&mut self) {
            self.traffic.arrival = Some("poisson".to_owned());
            self.traffic.concurrency = None;
        }

        fn judge(&self, thresholds: &Thresholds) -> Verdict {
            let Self { counts, workload, traffic, metrics, client } = self;
            Verdict::of(&Evidence { counts, workload, traffic, metrics, client }, thresholds)
        }
    }

    /// The default verdict on the good run with one thing changed: the rules of its reasons, and of its warnings.
    fn findings(change: impl FnOnce(&mut Case)) -> (Vec<String>, Vec<String>) {
        let mut case = Case::good();
        change(&mut case);
        let verdict = case.judge(&Thresholds::default());
        assert_eq!(verdict.valid, verdict.reasons.is_empty());
        let rules = |findings: Vec<String>| -> Vec<String> {
            findings.into_iter().map(|finding| finding.split_once(": ").unwrap().0.to_owned()).collect()
        };
        let (reasons, warnings) = (rules(verdict.reasons), rules(verdict.warnings));
        let docs = include_str!("../../docs/verdict.md");
        for rule in reasons.iter().chain(&warnings) {
            assert!(docs.contains(&format!("| `{rule}` |")), "{rule} is not documented");
        }
        (reasons, warnings)
    }

    fn reasons(change: impl FnOnce(&mut Case)) -> Vec<String> {
        let (reasons, warnings) = findings(change);
        assert!(warnings.is_empty(), "{warnings:?}");
        reasons
    }

    fn warnings(change: impl FnOnce(&mut Case)) -> Vec<String> {
        let (reasons, warnings) = findings(change);
        assert!(reasons.is_empty(), "{reasons:?}");
        warnings
    }

    const NONE: [&str; 0] = [];

    #[test]
    fn every_request_must_have_ended_well() {
        assert_eq!(Case::good().judge(&Thresholds::default()).text(), "verdict: VALID\n");
        let mut case = Case::good();
        case.counts = Counts { requests: 9, succeeded: 2, cancelled: 1, not_sent: 2, ..Counts::default() };
        case.counts.failed.insert("timeout".to_owned(), 3);
        let line = case.judge(&Thresholds::default()).line();
        assert_eq!(
            line,
            "INVALID: unaccounted: 1 of 9 requests are unaccounted for: a fault of tokentape; \
             interrupted: 3 of 9 requests were cut off or not sent; \
             failed: 3 of 9 requests failed: 3 timeout"
        );
    }

    #[test]
    fn what_was_broken_off_on_purpose_is_no_reason() {
        assert_eq!(
            reasons(|case| (case.counts.succeeded, case.counts.cancelled_on_purpose) = (150, 50)),
            NONE
        );
    }

    #[test]
    fn the_digest_is_the_tapes() {
        assert_eq!(reasons(|case| case.workload.workload_digest = "b".to_owned()), ["digest"]);
        assert_eq!(reasons(|case| case.workload.wire_digest = "b".to_owned()), NONE);
        assert_eq!(reasons(|case| case.workload.tape_digest = None), NONE);
    }

    /// Embeddings and whole answers.
    #[test]
    fn without_a_stream_delays_are_held_against_the_end() {
        let late = |us| Distribution { count: 9, p99: us, ..Distribution::default() };
        let whole = |case: &mut Case| {
            case.metrics.ttft_ms = Distribution::default();
            case.metrics.itl_ms = Distribution::default();
            case.metrics.e2el_ms = Distribution { count: 200, p50: 40.0, ..Distribution::default() };
        };
        let read_late = |us| move |case: &mut Case| (whole(case), case.client.read_delay_us = late(us)).1;
        assert_eq!(reasons(read_late(20_000.0)), NONE);
        assert_eq!(reasons(read_late(20_000.1)), ["read-delay"]);
    }

    #[test]
    fn delays_are_held_against_what_is_measured() {
        let late = |us| Distribution { count: 9, p99: us, ..Distribution::default() };
        assert_eq!(reasons(|case| case.client.read_delay_us = late(5000.0)), NONE);
        assert_eq!(reasons(|case| case.client.read_delay_us = late(5000.1)), ["read-delay"]);
        assert_eq!(reasons(|case| case.client.first_token_read_delay_us = late(10_000.0)), NONE);
        assert_eq!(reasons(|case| case.client.first_token_read_delay_us = late(10_000.1)), ["read-delay"]);
        // A late client reads most tokens with others. Where each answer came in one read, there are no gaps.
        let merged = |mean| {
            move |case: &mut Case| {
                case.client.read_delay_us = late(5000.1);
                (case.metrics.itl_ms.p50, case.metrics.itl_ms.mean) = (0.0, mean);
            }
        };
        assert_eq!(reasons(merged(10.0)), ["read-delay"]);
        assert_eq!(reasons(merged(0.0)), NONE);
        assert_eq!(warnings(|case| case.client.write_delay_us = late(2000.0)), NONE);
        assert_eq!(warnings(|case| case.client.write_delay_us = late(2000.1)), ["write-delay"]);
        assert_eq!(warnings(|case| case.client.kernel_stamps = false), ["stamps"]);
    }

    #[test]
    fn the_traffic_must_be_what_was_asked_for() {
        let late = |us| Distribution { count: 9, p99: us, ..Distribution::default() };
        let in_open_loop = |us| {
            move |case: &mut Case| {
                case.open_loop();
                case.client.dispatch_lateness_us = late(us);
                case.client.lateness_share = 0.5;
            }
        };
        assert_eq!(reasons(in_open_loop(2000.0)), NONE);
        assert_eq!(reasons(in_open_loop(2000.1)), ["late-dispatch"]);
        let limited = |case: &mut Case| {
            in_open_loop(2000.1)(case);
            case.traffic.concurrency = Some(2);
        };
        assert_eq!(warnings(limited), ["late-dispatch"]);
        // A closed loop has no times to keep, and slots to keep busy.
        assert_eq!(reasons(|case| case.client.dispatch_lateness_us = late(1e9)), NONE);
        assert_eq!(reasons(|case| case.client.lateness_share = 0.05), NONE);
        assert_eq!(reasons(|case| case.client.lateness_share = 0.051), ["idle"]);
    }

    #[test]
    fn a_client_needs_a_processor() {
        assert_eq!(reasons(|case| case.cpu().busiest_worker_share = 0.9), NONE);
        assert_eq!(reasons(|case| case.cpu().busiest_worker_share = 0.91), ["cpu"]);
        assert_eq!(reasons(|case| case.cpu().waiting_worker_share = Some(0.15)), NONE);
        assert_eq!(reasons(|case| case.cpu().waiting_worker_share = Some(0.16)), ["cpu-wait"]);
        assert_eq!(reasons(|case| case.cpu().waiting_worker_share = None), NONE);
        assert_eq!(reasons(|case| case.client.cpu = None), NONE);
    }

    #[test]
    fn what_a_reader_should_know_is_a_warning() {
        assert_eq!(warnings(|case| case.metrics.requests.succeeded = 99), ["samples"]);
        assert_eq!(warnings(|case| case.traffic.warmup_failures = 1), ["warm-up"]);
        assert_eq!(warnings(|case| (case.counts.attempts, case.counts.retried) = (201, 1)), ["retries"]);
        assert_eq!(warnings(|case| case.workload.rebuilt = 1), ["history"]);
        let merged = |share| Tokens { merged_read_share: share, ..Tokens::default() };
        assert_eq!(warnings(|case| case.metrics.tokens = merged(0.05)), NONE);
        assert_eq!(warnings(|case| case.metrics.tokens = merged(0.051)), ["merged"]);
    }

    #[test]
    fn findings_say_what_was_measured_and_against_what() {
        let mut case = Case::good();
        case.client.read_delay_us.p99 = 5123.4;
        case.cpu().busiest_worker_share = 0.987;
        case.traffic.warmup_failures = 2;
        assert_eq!(
            case.judge(&Thresholds::default()).text(),
            "verdict: INVALID: read-delay: the client's p99 read delay was 5.12 ms, more than 50 % of the mean ITL \
             (10.00 ms); cpu: a sending thread (of 1) was computing 98.7 % of the time, more than 90 %; more \
             --workers, or fewer requests at once, would help\n\
             warning: warm-up: 2 of 3 warm-up requests failed\n"
        );
    }

    #[test]
    fn a_verdict_of_before_there_were_thresholds_can_be_read() {
        let verdict: Verdict = serde_json::from_str(r#"{"valid":false,"reasons":["3 failed"]}"#).unwrap();
        assert_eq!(verdict.text(), "verdict: INVALID: 3 failed\n");
        assert_eq!(verdict.thresholds, Thresholds::default());
    }

    proptest! {
        /// No threshold makes a run valid that lost a request.
        #[test]
        fn a_lost_request_is_never_valid(
            succeeded in 0u64..9, cancelled_on_purpose in 0u64..9, failed in 0u64..9, cancelled in 0u64..9,
            not_sent in 0u64..9, lost in 0u64..9,
            threshold in 0.0..1e9f64,
        ) {
            let mut case = Case::good();
            let requests = succeeded + cancelled_on_purpose + failed + cancelled + not_sent + lost;
            case.counts =
                Counts { requests, succeeded, cancelled_on_purpose, cancelled, not_sent, ..Counts::default() };
            if failed > 0 {
                case.counts.failed.insert("timeout".to_owned(), failed);
            }
            let mut thresholds = Thresholds::default();
            for name in ["cpu", "cpu-wait", "idle", "late-dispatch", "merged", "read-delay", "write-delay"] {
                thresholds.set(&format!("{name}={threshold}")).unwrap();
            }
            prop_assert_eq!(case.judge(&thresholds).valid, succeeded + cancelled_on_purpose == requests);
        }
    }
}
