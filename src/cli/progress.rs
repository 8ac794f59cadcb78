//! What a person sees while a replay runs: one line on stderr.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::timeline::Timeline;

/// Redraws a second, at most: a person's eye, not the processor's limit.
const REDRAWS: u8 = 8;
/// Where stderr is no terminal, a plain line this often.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// The progress of a replay.
pub(super) struct Progress {
    bar: ProgressBar,
    plain: bool,
    started: Instant,
    last_plain: Instant,
    total: u64,
    done: u64,
    failed: u64,
    ttft: Option<Histogram<u32>>,
    itl: Option<Histogram<u32>>,
}

impl Progress {
    /// Progress of `total` requests; nothing at all if `quiet`.
    pub(super) fn new(total: u64, quiet: bool) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = if quiet || !is_terminal {
            ProgressBar::hidden()
        } else {
            let template = "{elapsed} {wide_bar} {human_pos}/{human_len} {msg}";
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let target = ProgressDrawTarget::stderr_with_hz(REDRAWS);
            let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style);
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        };
        // 1 us to 10 min; a display needs two digits.
        let histogram = || Histogram::new_with_bounds(1, 600_000_000, 2).ok();
        let now = Instant::now();
        Self {
            bar,
            plain: !quiet && !is_terminal,
            started: now,
            last_plain: now,
            total,
            done: 0,
            failed: 0,
            ttft: histogram(),
            itl: histogram(),
        }
    }

    /// A request has ended.
    pub(super) fn ended(&mut self, timeline: &Timeline) {
        self.done += 1;
        self.failed += u64::from(timeline.outcome.is_failure());
        let mut last = None;
        for (at, _) in timeline.stamped_events().filter(|(_, facts)| facts.is_output()) {
            let (histogram, since) = match last {
                None => (&mut self.ttft, timeline.dispatched_ns),
                Some(before) => (&mut self.itl, before),
            };
            if let Some(histogram) = histogram {
                histogram.saturating_record(at.saturating_sub(since) / 1000);
            }
            last = Some(at);
        }
        self.bar.set_position(self.done);
        let is_due = self.plain && self.last_plain.elapsed() >= PLAIN_EVERY;
        if is_due || !self.bar.is_hidden() {
            let message = self.message();
            if is_due {
                self.last_plain = Instant::now();
                let (seconds, done, total) = (self.started.elapsed().as_secs(), self.done, self.total);
                // A progress line that cannot be written is not worth ending a run for.
                drop(writeln!(std::io::stderr(), "{seconds} s: {done} of {total} requests, {message}"));
            }
            self.bar.set_message(message);
        }
    }

    fn message(&self) -> String {
        let percentiles = |name: &str, histogram: &Option<Histogram<u32>>| {
            let at = |p: f64| histogram.as_ref().map_or(0.0, |h| h.value_at_quantile(p) as f64 / 1000.0);
            format!("{name} p50 {:.1} p99 {:.1} ms", at(0.5), at(0.99))
        };
        let failed = if self.failed == 0 { String::new() } else { format!(", {} failed", self.failed) };
        format!("{}, {}{failed}", percentiles("TTFT", &self.ttft), percentiles("ITL", &self.itl))
    }

    /// Takes the line away.
    pub(super) fn finish(self) {
        self.bar.finish_and_clear();
    }
}
