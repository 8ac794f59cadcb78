//! tokentape's own definitions.
//!
//! - An **output event** is a server-sent event that carries output of the model
//!   ([`Facts::is_output`](crate::timeline::Facts::is_output)): text, reasoning or a tool call; or empty text without a
//!   role, which is a token that cannot be shown yet (half a character) or ever (the end of text). The opening event
//!   that only names the role, the finish event with an empty delta and the usage event are none.
//! - **TTFT**, time to first token: the first output event, from the send.
//! - **ITL**, inter-token latency: the gaps between the consecutive output events of one choice of a request, pooled
//!   over choices and requests.
//! - **TPOT**, time per output token: `(last output event - first output event) / (output tokens - 1)` of each
//!   request with more than one output token. Unlike ITL it does not change with how many tokens share an event. Of a
//!   request with several choices: the sum of their spans over `output tokens - choices`.
//! - **E2EL**, end-to-end latency: the end of the response, from the send. The end is the `[DONE]` event, the moment
//!   from which a client may act on the whole answer; without one, the last event.
//! - Where requests were sent more than once, all of these count from the first send, so that no failure is hidden; TTFT
//!   and E2EL also from the last one.
//! - TTFT and E2EL also **from the scheduled time**: what a user feels who arrived when the schedule said so. Where
//!   the client or the server falls behind, the difference is the waiting that the plain figures hide.
//! - **Throughput**: the successes' requests and tokens over the measured window.
//! - A response that is no stream has an end and token counts, and neither TTFT, ITL nor TPOT. So have embeddings.
//!
//! An event's time is the stamp of the socket read that completed it. Only successful requests have latencies and count
//! for throughput; a request that was broken off on purpose is counted, and no more.
//! Statistics are those of numpy 2.3 and later: population standard deviation, percentiles interpolated linearly.

mod counts;
mod firsts;
mod latencies;

use serde::Serialize;

pub(super) use self::counts::output_tokens;
pub use self::counts::{Requests, Tokens};
use self::firsts::FirstTimes;
pub use self::firsts::Firsts;
pub(super) use self::latencies::output_events;
pub(crate) use self::latencies::outputs_by_choice;
pub use self::latencies::{Latencies, Samples, Values};
use super::Measurement;
use super::stats::{self, Numpy};
use crate::timeline::{Ns, Outcome, Timeline};

/// The figures of a run. Serialised, this is the JSON report: the field names, with their units, are its keys.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Always `native`.
    pub dialect: &'static str,
    /// How many requests there were, and how they ended.
    pub requests: Requests,
    /// The measured window, in seconds.
    pub window_s: f64,
    /// The concurrency limit.
    pub concurrency_limit: Option<u32>,
    /// The requests a second asked for.
    pub request_rate_per_s: Option<f64>,
    /// The most requests in flight at one moment, by an exact sweep over sends and ends.
    pub peak_concurrency: u64,
    /// What the latencies stand on.
    pub tokens: Tokens,
    /// Successful requests a second.
    pub request_throughput_per_s: f64,
    /// Input tokens a second.
    pub input_throughput_tokens_per_s: f64,
    /// Output tokens a second.
    pub output_throughput_tokens_per_s: f64,
    /// Input and output tokens a second.
    pub total_throughput_tokens_per_s: f64,
    /// Time to first token.
    pub ttft_ms: Distribution,
    /// Time to first token from the scheduled time.
    pub ttft_from_scheduled_ms: Distribution,
    /// Time to the first of each thing that a response may bring.
    pub first_ms: Firsts,
    /// Inter-token latency.
    pub itl_ms: Distribution,
    /// Time per output token.
    pub tpot_ms: Distribution,
    /// End-to-end latency.
    pub e2el_ms: Distribution,
    /// End-to-end latency from the scheduled time.
    pub e2el_from_scheduled_ms: Distribution,
    /// Time to first token from the last attempt; none where every request was sent once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttft_from_last_attempt_ms: Option<Distribution>,
    /// End-to-end latency from the last attempt; none where every request was sent once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e2el_from_last_attempt_ms: Option<Distribution>,
}

/// The statistics of one quantity, in the unit that ends its key; all 0 where `count` is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Distribution {
    /// Number of values.
    pub count: usize,
    /// Mean.
    pub mean: f64,
    /// Standard deviation of the population.
    pub std: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p99_9: f64,
    /// Largest value.
    pub max: f64,
}

impl Distribution {
    /// The statistics in milliseconds of values in nanoseconds.
    #[must_use]
    pub fn of(ns: Vec<f64>) -> Self {
        Self::in_units_of(1e6, ns)
    }

    /// The statistics in microseconds of values in nanoseconds.
    #[must_use]
    pub fn in_microseconds(ns: Vec<f64>) -> Self {
        Self::in_units_of(1e3, ns)
    }

    /// Where the values are: a run has one for every token, and copies of them would be most of its memory.
    fn in_units_of(unit_ns: f64, mut values: Vec<f64>) -> Self {
        for value in &mut values {
            *value /= unit_ns;
        }
        let (mean, std) = (Numpy::FROM_2_3.mean(&values), Numpy::FROM_2_3.std(&values));
        stats::sort(&mut values);
        let percentile = |p| stats::percentile(&values, p);
        Self {
            count: values.len(),
            mean,
            std,
            p50: stats::median(&values),
            p90: percentile(90.0),
            p95: percentile(95.0),
            p99: percentile(99.0),
            p99_9: percentile(99.9),
            max: values.last().copied().unwrap_or(0.0),
        }
    }
}

/// The figures so far, to which requests are added one by one; `V` is how the values of a latency are kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally<V> {
    requests: Requests,
    tokens: Tokens,
    latencies: Latencies<V>,
    firsts: FirstTimes<V>,
}

impl<V: Values> Tally<V> {
    /// Adds a request that has ended, one way or another.
    pub fn add(&mut self, timeline: &Timeline) {
        self.requests.add(timeline);
        if timeline.outcome.is_success() {
            self.tokens.add(timeline);
            self.latencies.add(timeline);
            self.firsts.add(timeline);
        }
    }

    /// The figures over a run's window and under its limits, with this many requests in flight at most; the run's
    /// timelines are not looked at.
    #[must_use]
    pub fn metrics(self, run: &Measurement<'_>, peak_concurrency: u64) -> Metrics {
        let Self { requests, tokens, latencies, firsts } = self;
        let window_s = run.duration_s();
        let rate = |count: u64| {
            if window_s > 0.0 { count as f64 / window_s } else { 0.0 }
        };
        let last_attempt = |values: V| (requests.retried > 0).then(|| values.distribution());
        Metrics {
            dialect: super::Dialect::Native.name(),
            window_s,
            concurrency_limit: run.concurrency,
            request_rate_per_s: run.request_rate,
            peak_concurrency,
            request_throughput_per_s: rate(requests.succeeded),
            input_throughput_tokens_per_s: rate(tokens.input),
            output_throughput_tokens_per_s: rate(tokens.output),
            total_throughput_tokens_per_s: rate(tokens.input + tokens.output),
            ttft_from_last_attempt_ms: last_attempt(latencies.ttft_from_last_attempt_ns),
            e2el_from_last_attempt_ms: last_attempt(latencies.e2el_from_last_attempt_ns),
            requests,
            tokens,
            ttft_ms: latencies.ttft_ns.distribution(),
            ttft_from_scheduled_ms: latencies.ttft_from_scheduled_ns.distribution(),
            first_ms: firsts.firsts(),
            itl_ms: latencies.itl_ns.distribution(),
            tpot_ms: latencies.tpot_ns.distribution(),
            e2el_ms: latencies.e2el_ns.distribution(),
            e2el_from_scheduled_ms: latencies.e2el_from_scheduled_ns.distribution(),
        }
    }
}

/// The run's figures.
#[must_use]
pub fn calculate(measurement: &Measurement<'_>) -> Metrics {
    let mut tally = Tally::<Vec<f64>>::default();
    for timeline in measurement.timelines {
        tally.add(timeline);
    }
    tally.metrics(measurement, peak_concurrency(measurement.timelines))
}

/// The latencies behind the figures.
#[must_use]
pub fn samples(measurement: &Measurement<'_>) -> Samples {
    let mut samples = Samples::default();
    for timeline in succeeded(measurement.timelines) {
        samples.add(timeline);
    }
    samples
}

pub(super) fn succeeded(timelines: &[Timeline]) -> impl Iterator<Item = &Timeline> {
    timelines.iter().filter(|timeline| timeline.outcome.is_success())
}

/// The most requests between send and end at one moment. One that ends in the nanosecond in which another is sent
/// was not with it.
pub(super) fn peak_concurrency(timelines: &[Timeline]) -> u64 {
    let sent = || timelines.iter().filter(|timeline| timeline.outcome != Outcome::NotSent);
    let mut starts: Vec<Ns> = sent().map(|timeline| timeline.dispatched_ns).collect();
    let mut ends: Vec<Ns> = sent().map(|timeline| timeline.end_ns.max(timeline.dispatched_ns)).collect();
    starts.sort_unstable();
    ends.sort_unstable();
    let (mut peak, mut ended) = (0, 0);
    for (i, start) in starts.iter().enumerate() {
        while ends.get(ended).is_some_and(|end| end <= start) && ended < i {
            ended += 1;
        }
        peak = peak.max(i + 1 - ended);
    }
    peak as u64
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "small whole numbers are exact")]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::timeline::{Attempt, Events, Facts, Reads, Usage};

    const ROLE: Facts = Facts::JSON.with(Facts::CHOICES).with(Facts::ROLE).with(Facts::EMPTY_CONTENT);
    const TEXT: Facts = Facts::JSON.with(Facts::CHOICES).with(Facts::CONTENT);
    const SILENT: Facts = Facts::JSON.with(Facts::CHOICES).with(Facts::EMPTY_CONTENT);
    const FINISH: Facts = Facts::JSON.with(Facts::CHOICES).with(Facts::FINISH);
    const USAGE: Facts = Facts::JSON.with(Facts::USAGE);

    const MS: Ns = 1_000_000;

    /// A response whose reads come at these milliseconds with these events.
    fn timeline(sent_ms: Ns, reads: &[(Ns, &[Facts])]) -> Timeline {
        let events = reads.iter().zip(0..).flat_map(|(read, i)| read.1.iter().map(move |facts| (i, *facts)));
        let (read, facts) = events.unzip();
        let at_ns: Vec<Ns> = reads.iter().map(|read| read.0 * MS).collect();
        Timeline {
            scheduled_ns: sent_ms * MS,
            dispatched_ns: sent_ms * MS,
            end_ns: at_ns.last().copied().unwrap_or(sent_ms * MS),
            reads: Reads { bytes: vec![1; at_ns.len()], at_ns, ..Reads::default() },
            events: Events { read, facts, ..Events::default() },
            outcome: Outcome::Success,
            status: Some(200),
            ..Timeline::default()
        }
    }

    fn figures(timelines: &[Timeline]) -> Metrics {
        let duration_ns = 2_000 * MS;
        calculate(&Measurement { timelines, duration_ns, concurrency: None, request_rate: None })
    }

    #[test]
    fn neither_role_nor_finish_nor_usage_is_output() {
        let mut request = timeline(
            100,
            &[
                (101, &[ROLE]),
                (120, &[TEXT]),
                (130, &[TEXT]),
                (150, &[TEXT]),
                (151, &[FINISH]),
                (170, &[USAGE]),
            ],
        );
        request.usage = Some(Usage { prompt_tokens: 7, completion_tokens: 4, ..Usage::default() });
        let metrics = figures(&[request]);
        assert_eq!(metrics.ttft_ms.mean, 20.0);
        assert_eq!((metrics.itl_ms.count, metrics.itl_ms.p50, metrics.itl_ms.max), (2, 15.0, 20.0));
        assert_eq!(metrics.tpot_ms.mean, 10.0);
        assert_eq!(metrics.e2el_ms.mean, 70.0);
        assert_eq!((metrics.tokens.input, metrics.tokens.output, metrics.tokens.cached), (7, 4, None));
        assert_eq!((metrics.tokens.output_events, metrics.tokens.silent_events), (3, 0));
        assert_eq!(metrics.output_throughput_tokens_per_s, 2.0);
        assert_eq!(metrics.total_throughput_tokens_per_s, 5.5);
    }

    #[test]
    fn done_ends_the_response() {
        let request = timeline(0, &[(5, &[TEXT]), (9, &[TEXT, Facts::DONE]), (12, &[Facts::COMMENT])]);
        assert_eq!(figures(&[request]).e2el_ms.mean, 9.0);
    }

    #[test]
    fn waiting_for_the_send_shows_in_the_scheduled_figures_only() {
        let mut request = timeline(50, &[(60, &[TEXT]), (65, &[Facts::DONE])]);
        request.scheduled_ns = 20 * MS;
        let metrics = figures(&[request]);
        assert_eq!((metrics.ttft_ms.mean, metrics.ttft_from_scheduled_ms.mean), (10.0, 40.0));
        assert_eq!((metrics.e2el_ms.mean, metrics.e2el_from_scheduled_ms.mean), (15.0, 45.0));
    }

    #[test]
    fn an_attempt_that_failed_is_part_of_the_latency() {
        let failed = Attempt {
            dispatched_ns: 10 * MS,
            end_ns: 12 * MS,
            status: Some(503),
            outcome: Outcome::Status { body: String::new() },
        };
        let twice = timeline(50, &[(60, &[TEXT]), (65, &[Facts::DONE])]).after(vec![failed]);
        assert_eq!((twice.dispatched_ns, twice.attempts.len()), (10 * MS, 2));
        let metrics = figures(&[twice, timeline(0, &[(50, &[TEXT]), (55, &[Facts::DONE])])]);
        assert_eq!((metrics.ttft_ms.mean, metrics.e2el_ms.mean), (50.0, 55.0));
        let last = (metrics.ttft_from_last_attempt_ms.unwrap(), metrics.e2el_from_last_attempt_ms.unwrap());
        assert_eq!((last.0.mean, last.1.mean), (30.0, 35.0));
        assert_eq!((metrics.requests.attempts, metrics.requests.retried), (3, 1));
        assert_eq!(figures(&[]).ttft_from_last_attempt_ms, None);
    }

    #[test]
    fn events_that_share_a_read_are_counted_as_merged() {
        let request = timeline(0, &[(1, &[ROLE, TEXT]), (2, &[TEXT, TEXT, TEXT]), (3, &[FINISH, TEXT])]);
        let metrics = figures(&[request]);
        assert_eq!((metrics.tokens.output_events, metrics.tokens.merged_read_events), (5, 3));
        assert_eq!(metrics.tokens.merged_read_share, 0.6);
        assert_eq!((metrics.tokens.output, metrics.tokens.requests_without_usage), (5, 1));
    }

    /// A token that ends no character yet has come all the same, and so has the end of text.
    #[test]
    fn empty_text_is_a_token() {
        let end_of_text = SILENT.with(Facts::FINISH);
        let request = timeline(0, &[(1, &[ROLE]), (4, &[SILENT]), (6, &[TEXT]), (9, &[end_of_text])]);
        let metrics = figures(&[request]);
        assert_eq!((metrics.ttft_ms.mean, metrics.itl_ms.count, metrics.itl_ms.max), (4.0, 2, 3.0));
        assert_eq!((metrics.tokens.output_events, metrics.tokens.silent_events), (3, 2));
    }

    #[test]
    fn every_request_is_counted_once_and_failures_have_no_latency() {
        let with = |outcome| Timeline { outcome, ..timeline(0, &[(1, &[TEXT])]) };
        let truncated = || Outcome::Truncated { message: String::new() };
        let metrics = figures(&[
            with(Outcome::Success),
            with(truncated()),
            with(truncated()),
            with(Outcome::NoTokens),
            with(Outcome::Cancelled),
            with(Outcome::CancelledOnPurpose),
            with(Outcome::NotSent),
        ]);
        let requests = metrics.requests;
        assert_eq!(
            requests.total,
            requests.succeeded
                + requests.failed
                + requests.cancelled_on_purpose
                + requests.cancelled
                + requests.not_sent
        );
        assert_eq!((requests.succeeded, requests.failed), (1, 3));
        assert_eq!(requests.failed_by_kind, BTreeMap::from([("no_tokens", 1), ("truncated", 2)]));
        assert_eq!((requests.cancelled_on_purpose, requests.attempts, requests.retried), (1, 6, 0));
        assert_eq!((metrics.ttft_ms.count, metrics.peak_concurrency), (1, 6));
    }

    /// Two tokens of each choice; those of a step share a read.
    #[test]
    fn gaps_are_those_of_a_choice() {
        let mut request =
            timeline(0, &[(10, &[ROLE, ROLE]), (20, &[TEXT, TEXT]), (30, &[TEXT]), (50, &[TEXT, USAGE])]);
        request.events.choices = vec![0, 1, 0, 1, 0, 1, 0];
        request.usage = Some(Usage { completion_tokens: 6, ..Usage::default() });
        let metrics = figures(&[request]);
        assert_eq!((metrics.ttft_ms.count, metrics.ttft_ms.mean), (1, 20.0));
        assert_eq!((metrics.itl_ms.count, metrics.itl_ms.p50, metrics.itl_ms.max), (2, 20.0, 30.0));
        // Spans of 10 and 30 ms, two tokens after the first of either choice.
        assert_eq!(metrics.tpot_ms.mean, 10.0);
        assert_eq!((metrics.tokens.output_events, metrics.tokens.merged_read_events), (4, 0));
    }

    #[test]
    fn what_is_no_stream_has_an_end_and_counts() {
        let mut request = timeline(100, &[(130, &[])]);
        request.usage = Some(Usage {
            prompt_tokens: 7,
            completion_tokens: 4,
            cached_tokens: Some(3),
            reasoning_tokens: Some(2),
        });
        let metrics = figures(&[request, timeline(0, &[(1, &[TEXT])])]);
        assert_eq!((metrics.ttft_ms.count, metrics.itl_ms.count, metrics.tpot_ms.count), (1, 0, 0));
        assert_eq!((metrics.e2el_ms.count, metrics.e2el_ms.max), (2, 30.0));
        let Tokens { input, output, cached, reasoning, .. } = metrics.tokens;
        assert_eq!((input, output, cached, reasoning), (7, 5, Some(3), Some(2)));
        assert_eq!(metrics.input_throughput_tokens_per_s, 3.5);
    }

    #[test]
    fn peak_concurrency_is_exact() {
        let span = |from, to| timeline(from, &[(to, &[TEXT])]);
        // Five requests touch the same second; no more than two are ever in flight.
        let requests = [span(0, 10), span(5, 20), span(10, 30), span(20, 21), span(22, 40)];
        assert_eq!(figures(&requests).peak_concurrency, 2);
        assert_eq!(figures(&[]).peak_concurrency, 0);
    }

    #[test]
    fn no_request_gives_zeros() {
        let metrics = figures(&[]);
        assert_eq!(metrics.ttft_ms, Distribution::default());
        assert_eq!(metrics.request_throughput_per_s, 0.0);
    }
}
