//! Whether a run's figures can be trusted, and if not, why: after the manner of MLPerf LoadGen, every run says it.
//!
//! Two kinds of reason make a run INVALID: requests that did not end well, and a client that was too slow for what it
//! measured. The first have no threshold; those of the second are [`Thresholds`]. A warning says what to keep in mind
//! when reading a valid run. `docs/verdict.md` explains each rule.

mod thresholds;

use serde::{Deserialize, Serialize};

use super::{Counts, Traffic, Workload};
use crate::metrics::client::Client;
use crate::metrics::native::{Distribution, Metrics};

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
        let warnings: String = self.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
        format!("verdict: {}\n{warnings}", self.line())
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
        let (warmup, failures) = (traffic.warmup, traffic.warmup_failures);
        self.warn_if(failures > 0, || format!("warm-up: {failures} of {warmup} warm-up requests failed"));
    }

    /// Whether the client was quick enough for what it measured.
    fn client(&mut self, evidence: &Evidence<'_>, thresholds: &Thresholds) {
        let Evidence { traffic, metrics, client, .. } = evidence;
        self.dispatch(evidence, thresholds);

        let read_delays = [
            ("read delay", &client.read_delay_us, "ITL", &metrics.itl_ms),
            ("read delay of first tokens", &client.first_token_read_delay_us, "TTFT", &metrics.ttft_ms),
        ];
        for (what, delay, metric, latency) in read_delays {
            let limit = thresholds.read_delay;
            let words = || too_long("read-delay", what, delay.p99, (metric, latency), limit);
            self.invalid_if(client.kernel_stamps && exceeds(delay.p99, latency, limit), words);
        }
        self.warn_if(!client.kernel_stamps && metrics.requests.succeeded > 0, || {
            "stamps: the kernel stamped no arrival; the client's read delay is unknown, and part of every figure"
                .to_owned()
        });
        let (delay, limit) = (client.write_delay_us.p99, thresholds.write_delay);
        self.warn_if(exceeds(delay, &metrics.ttft_ms, limit), || {
            too_long("write-delay", "write delay", delay, ("TTFT", &metrics.ttft_ms), limit)
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
        match (&traffic.arrival, traffic.concurrency) {
            (Some(_), None) => {
                let limit = thresholds.late_dispatch;
                self.invalid_if(exceeds(late, &metrics.ttft_ms, limit), || {
                    too_long("late-dispatch", "dispatch lateness", late, ("TTFT", &metrics.ttft_ms), limit)
                });
            }
            // Waiting for a slot is no fault of the client's, and cannot be told from one.
            (Some(_), Some(slots)) => {
                let limit = thresholds.late_dispatch;
                self.warn_if(exceeds(late, &metrics.ttft_ms, limit), || {
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

/// Whether a delay in us is more than this share of a latency's median.
fn exceeds(delay_us: f64, latency_ms: &Distribution, share: f64) -> bool {
    latency_ms.count > 0 && delay_us > share * latency_ms.p50 * 1000.0
}

fn too_long(
    rule: &str,
    what: &str,
    delay_us: f64,
    (metric, latency_ms): (&str, &Distribution),
    share: f64,
) -> String {
    format!(
        "{rule}: the client's p99 {what} was {}, more than {} of the median {metric} ({})",
        microseconds(delay_us),
        percent(share),
        microseconds(latency_ms.p50 * 1000.0),
    )
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
