//! The steady part of a run: without the time in which requests mount up, and that in which the last ones run out.

use serde::Serialize;

use super::native::{self, Metrics};
use super::{Measurement, Timeline};
use crate::timeline::{Facts, Ns, Outcome};

/// The share of the limit that must be in flight.
const SHARE: f64 = 0.95;

/// The steady window: from the first to the last moment at which enough requests are in flight.
///
/// Enough is 95 % of the concurrency limit, rounded up; without a limit, 95 % of the median of the number in flight
/// over the time from the first send to the last. In between it may fall below for a while: it does, for
/// microseconds, whenever one request makes room for the next.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Window {
    /// Requests in flight that are enough.
    pub level: u64,
    /// When they are reached first, in ns from the run's start.
    pub begin_ns: Ns,
    /// When they are last had.
    pub end_ns: Ns,
}

impl Window {
    /// The window of a run; none where so many were never in flight.
    #[must_use]
    pub fn of(measurement: &Measurement<'_>) -> Option<Self> {
        let steps = steps(measurement.timelines);
        let wanted = measurement.concurrency.map_or_else(|| median(&steps), f64::from);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count of requests, from 0"
        )]
        let level = (SHARE * wanted).ceil().max(1.0) as u64;
        let first = steps.iter().find(|step| step.in_flight >= level)?;
        let last = steps.iter().rposition(|step| step.in_flight >= level)?;
        // Nothing is in flight after the last step, so there is one after this.
        let end_ns = steps.get(last + 1)?.at_ns;
        (end_ns > first.at_ns).then_some(Self { level, begin_ns: first.at_ns, end_ns })
    }

    /// The native figures over the window.
    ///
    /// Latencies and counts are those of the requests that were sent and ended within it. Throughput is what came
    /// within it, whoever asked for it: requests that ended there; output tokens by the share of their request's
    /// output events that arrived there; input tokens with their request's first output event. All tokens of a response
    /// that is no stream come with its end.
    #[must_use]
    pub fn figures(&self, measurement: &Measurement<'_>) -> Metrics {
        let is_within = |timeline: &&Timeline| {
            was_sent(timeline) && timeline.dispatched_ns >= self.begin_ns && timeline.end_ns <= self.end_ns
        };
        let timelines: Vec<Timeline> = measurement.timelines.iter().filter(is_within).cloned().collect();
        let duration_ns = self.end_ns - self.begin_ns;
        let within = Measurement { timelines: &timelines, duration_ns, ..*measurement };
        let came = self.what_came(measurement.timelines);
        let rate = |count: f64| count / within.duration_s();
        Metrics {
            peak_concurrency: native::peak_concurrency(measurement.timelines),
            request_throughput_per_s: rate(came.requests),
            input_throughput_tokens_per_s: rate(came.input),
            output_throughput_tokens_per_s: rate(came.output),
            total_throughput_tokens_per_s: rate(came.input + came.output),
            ..native::calculate(&within)
        }
    }

    fn what_came(&self, timelines: &[Timeline]) -> Came {
        let is_within = |at: Ns| at > self.begin_ns && at <= self.end_ns;
        let mut came = Came::default();
        for timeline in timelines.iter().filter(|timeline| timeline.outcome.is_success()) {
            came.requests += f64::from(u8::from(is_within(timeline.end_ns)));
            let is_output = |(at, facts): (Ns, Facts)| facts.is_output().then_some(at);
            let mut outputs: Vec<Ns> = timeline.stamped_events().filter_map(is_output).collect();
            if outputs.is_empty() {
                outputs.push(timeline.end_ns);
            }
            let share = outputs.iter().filter(|at| is_within(**at)).count() as f64 / outputs.len() as f64;
            came.output += native::output_tokens(timeline).count as f64 * share;
            if is_within(outputs[0]) {
                came.input += f64::from(timeline.prompt_tokens().unwrap_or(0));
            }
        }
        came
    }
}

/// What arrived in a window.
#[derive(Default)]
struct Came {
    requests: f64,
    input: f64,
    output: f64,
}

/// A moment from which on so many requests are in flight.
#[derive(Clone, Copy)]
struct Step {
    at_ns: Ns,
    in_flight: u64,
    /// Whether it is a send.
    is_send: bool,
}

fn was_sent(timeline: &Timeline) -> bool {
    timeline.outcome != Outcome::NotSent
}

/// How the number in flight changes. A request that ends in the nanosecond in which another is sent was not with it.
fn steps(timelines: &[Timeline]) -> Vec<Step> {
    let sent = timelines.iter().filter(|timeline| was_sent(timeline));
    let mut changes: Vec<(Ns, bool)> = sent
        .flat_map(|timeline| {
            let sent = timeline.dispatched_ns;
            // A request takes time: its end never goes before its send.
            [(sent, true), (timeline.end_ns.max(sent + 1), false)]
        })
        .collect();
    changes.sort_unstable();
    let mut in_flight = 0;
    let step = |(at_ns, is_send)| {
        if is_send {
            in_flight += 1;
        } else {
            in_flight -= 1;
        }
        Step { at_ns, in_flight, is_send }
    };
    changes.into_iter().map(step).collect()
}

/// The median over time of the number in flight, from the first send to the last.
fn median(steps: &[Step]) -> f64 {
    let last_send = steps.iter().rposition(|step| step.is_send).unwrap_or(0);
    let pairs = steps.get(..=last_send).unwrap_or_default().windows(2);
    let mut spans: Vec<(u64, Ns)> =
        pairs.map(|pair| (pair[0].in_flight, pair[1].at_ns - pair[0].at_ns)).collect();
    spans.sort_unstable();
    let whole: Ns = spans.iter().map(|span| span.1).sum();
    let mut so_far = 0;
    let middle = spans.iter().find(|span| {
        so_far += span.1;
        so_far * 2 >= whole
    });
    // One request, or all at once: as many as there are.
    middle.map_or_else(|| steps.iter().map(|step| step.in_flight).max().unwrap_or(0), |span| span.0) as f64
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "small whole numbers are exact")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::timeline::{Events, Reads};

    const TOKEN: Facts = Facts::JSON.with(Facts::CHOICES).with(Facts::CONTENT);
    const SECOND: Ns = 1_000_000_000;

    /// A request with a token at each full second after its send, up to its end.
    fn timeline(sent_s: Ns, end_s: Ns) -> Timeline {
        let at_ns: Vec<Ns> = (sent_s + 1..=end_s).map(|s| s * SECOND).collect();
        Timeline {
            scheduled_ns: sent_s * SECOND,
            dispatched_ns: sent_s * SECOND,
            end_ns: end_s * SECOND,
            events: Events {
                read: (0..).take(at_ns.len()).collect(),
                facts: vec![TOKEN; at_ns.len()],
                ..Events::default()
            },
            reads: Reads { bytes: vec![1; at_ns.len()], at_ns, ..Reads::default() },
            outcome: Outcome::Success,
            input_tokens: Some(100),
            ..Timeline::default()
        }
    }

    fn measurement(timelines: &[Timeline], concurrency: Option<u32>) -> Measurement<'_> {
        let duration_ns = timelines.iter().map(|timeline| timeline.end_ns).max().unwrap_or(0);
        Measurement { timelines, duration_ns, concurrency, request_rate: None }
    }

    #[test]
    fn the_window_is_the_time_at_the_limit() {
        // Two slots; the second begins late, and the first ends early.
        let timelines = [timeline(0, 4), timeline(2, 6), timeline(4, 8), timeline(6, 10), timeline(10, 14)];
        let measurement = measurement(&timelines, Some(2));
        let window = Window::of(&measurement).unwrap();
        assert_eq!(window, Window { level: 2, begin_ns: 2 * SECOND, end_ns: 8 * SECOND });
        let metrics = window.figures(&measurement);
        // Sent and ended in it: the second and third. Ended in it: the first too. Tokens: two a second.
        assert_eq!((metrics.requests.total, metrics.e2el_ms.count, metrics.window_s), (2, 2, 6.0));
        assert_eq!(metrics.request_throughput_per_s, 0.5);
        assert_eq!(metrics.output_throughput_tokens_per_s, 2.0);
        // First tokens in it: those of the second, third and fourth.
        assert_eq!(metrics.total_throughput_tokens_per_s, 2.0 + 300.0 / 6.0);
        assert_eq!(metrics.peak_concurrency, 2);
    }

    #[test]
    fn a_limit_that_was_never_reached_has_no_window() {
        let timelines = [timeline(0, 4), timeline(2, 6)];
        assert_eq!(Window::of(&measurement(&timelines, Some(3))), None);
        assert_eq!(Window::of(&measurement(&[], None)), None);
    }

    #[test]
    fn without_a_limit_the_median_in_flight_stands_for_it() {
        // One a second, each four seconds long: four in flight from 3 s to the last send, and for a second after.
        let timelines: Vec<Timeline> = (0..20).map(|sent| timeline(sent, sent + 4)).collect();
        let window = Window::of(&measurement(&timelines, None)).unwrap();
        assert_eq!(window, Window { level: 4, begin_ns: 3 * SECOND, end_ns: 20 * SECOND });
    }

    proptest! {
        #[test]
        fn any_run_has_figures(
            spans in prop::collection::vec((0u64..20, 0u64..9), 0..30),
            limit in prop::option::of(1u32..6),
        ) {
            let timelines: Vec<Timeline> = spans.iter().map(|(sent, length)| timeline(*sent, sent + length)).collect();
            let measurement = measurement(&timelines, limit);
            let whole = native::calculate(&measurement);
            if let Some(window) = Window::of(&measurement) {
                prop_assert!(window.begin_ns < window.end_ns && window.end_ns <= measurement.duration_ns.max(1) + 1);
                let metrics = window.figures(&measurement);
                prop_assert!(metrics.requests.total <= whole.requests.total);
                prop_assert!(metrics.output_throughput_tokens_per_s.is_finite());
            } else {
                prop_assert!(timelines.is_empty() || limit.is_some());
            }
        }
    }
}
