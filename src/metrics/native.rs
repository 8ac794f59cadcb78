//! tokentape's own definitions.
//!
//! - An **output event** is a server-sent event that carries output of the model ([`Facts::is_output`]): text,
//!   reasoning or a tool call; or empty text without a role, which is a token that cannot be shown yet (half a
//!   character) or ever (the end of text). The opening event that only names the role, the finish event with an empty
//!   delta and the usage event are none.
//! - **TTFT**, time to first token: the first output event, from the send.
//! - **ITL**, inter-token latency: the gaps between one request's consecutive output events, pooled over requests.
//! - **TPOT**, time per output token: `(last output event - first output event) / (output tokens - 1)` of each
//!   request with more than one output token. Unlike ITL it does not change with how many tokens share an event.
//! - **E2EL**, end-to-end latency: the end of the response, from the send. The end is the `[DONE]` event, the moment
//!   from which a client may act on the whole answer; without one, the last event.
//! - TTFT and E2EL also **from the scheduled time**: what a user feels who arrived when the schedule said so. Where
//!   the client or the server falls behind, the difference is the waiting that the plain figures hide.
//! - **Throughput**: the successes' requests and tokens over the measured window.
//!
//! An event's time is the stamp of the socket read that completed it. Only successful requests have latencies.
//! Statistics are those of numpy 2.3 and later: population standard deviation, percentiles interpolated linearly.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Measurement;
use super::stats::{self, Numpy};
use crate::timeline::{Facts, Ns, Outcome, Timeline};

/// The latencies of a run's successful requests, in nanoseconds, in tape order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// First output event, from the send.
    pub ttft_ns: Vec<f64>,
    /// First output event, from the scheduled time.
    pub ttft_from_scheduled_ns: Vec<f64>,
    /// Gaps between output events.
    pub itl_ns: Vec<f64>,
    /// Time per output token after the first.
    pub tpot_ns: Vec<f64>,
    /// End of the response, from the send.
    pub e2el_ns: Vec<f64>,
    /// End of the response, from the scheduled time.
    pub e2el_from_scheduled_ns: Vec<f64>,
}

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
    /// Output tokens a second.
    pub output_throughput_tokens_per_s: f64,
    /// Input and output tokens a second.
    pub total_throughput_tokens_per_s: f64,
    /// Time to first token.
    pub ttft_ms: Distribution,
    /// Time to first token from the scheduled time.
    pub ttft_from_scheduled_ms: Distribution,
    /// Inter-token latency.
    pub itl_ms: Distribution,
    /// Time per output token.
    pub tpot_ms: Distribution,
    /// End-to-end latency.
    pub e2el_ms: Distribution,
    /// End-to-end latency from the scheduled time.
    pub e2el_from_scheduled_ms: Distribution,
}

/// How many requests there were, and how they ended; `total = succeeded + failed + cancelled + not_sent`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Requests {
    /// All of them.
    pub total: u64,
    /// Complete responses with at least one token.
    pub succeeded: u64,
    /// Failed by themselves.
    pub failed: u64,
    /// The failures by [`Outcome::kind`].
    pub failed_by_kind: BTreeMap<&'static str, u64>,
    /// Cut off by an interruption of the run.
    pub cancelled: u64,
    /// Never sent.
    pub not_sent: u64,
}

/// Token and event counts of the successful requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Tokens {
    /// Prompt tokens: the server's counts, else the tape's.
    pub input: u64,
    /// Output tokens: the server's counts, else the number of output events.
    pub output: u64,
    /// Requests whose output tokens are a count of events, because the server sent no count.
    pub requests_without_usage: u64,
    /// Output events.
    pub output_events: u64,
    /// Output events that share their socket read with another of the same response: their gap of 0 says nothing
    /// about the server.
    pub merged_read_events: u64,
    /// `merged_read_events / output_events`.
    pub merged_read_share: f64,
    /// Output events with nothing to see: tokens that cannot be shown yet, or ever.
    pub silent_events: u64,
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

/// The run's figures.
#[must_use]
pub fn calculate(measurement: &Measurement<'_>) -> Metrics {
    let samples = samples(measurement);
    let requests = count_requests(measurement.timelines);
    let tokens = count_tokens(measurement.timelines);
    let window_s = measurement.duration_s();
    let rate = |count: u64| {
        if window_s > 0.0 { count as f64 / window_s } else { 0.0 }
    };
    Metrics {
        dialect: super::Dialect::Native.name(),
        window_s,
        concurrency_limit: measurement.concurrency,
        request_rate_per_s: measurement.request_rate,
        peak_concurrency: peak_concurrency(measurement.timelines),
        request_throughput_per_s: rate(requests.succeeded),
        output_throughput_tokens_per_s: rate(tokens.output),
        total_throughput_tokens_per_s: rate(tokens.input + tokens.output),
        requests,
        tokens,
        ttft_ms: Distribution::of(samples.ttft_ns),
        ttft_from_scheduled_ms: Distribution::of(samples.ttft_from_scheduled_ns),
        itl_ms: Distribution::of(samples.itl_ns),
        tpot_ms: Distribution::of(samples.tpot_ns),
        e2el_ms: Distribution::of(samples.e2el_ns),
        e2el_from_scheduled_ms: Distribution::of(samples.e2el_from_scheduled_ns),
    }
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

impl Samples {
    /// Adds one successful request.
    pub(super) fn add(&mut self, timeline: &Timeline) {
        let since_send = |at: Ns| at.saturating_sub(timeline.dispatched_ns) as f64;
        let since_schedule = |at: Ns| at.saturating_sub(timeline.scheduled_ns) as f64;

        let outputs: Vec<Ns> = output_events(timeline).map(|i| timeline.event_ns(i)).collect();
        if let (Some(&first), Some(&last)) = (outputs.first(), outputs.last()) {
            self.ttft_ns.push(since_send(first));
            self.ttft_from_scheduled_ns.push(since_schedule(first));
            self.itl_ns.extend(outputs.windows(2).map(|pair| pair[1].saturating_sub(pair[0]) as f64));
            let tokens = output_tokens(timeline).count;
            if tokens > 1 {
                self.tpot_ns.push(last.saturating_sub(first) as f64 / (tokens - 1) as f64);
            }
        }
        let end = response_end(timeline);
        self.e2el_ns.push(since_send(end));
        self.e2el_from_scheduled_ns.push(since_schedule(end));
    }
}

pub(super) fn succeeded(timelines: &[Timeline]) -> impl Iterator<Item = &Timeline> {
    timelines.iter().filter(|timeline| timeline.outcome.is_success())
}

/// The indices of the output events.
pub(super) fn output_events(timeline: &Timeline) -> impl Iterator<Item = usize> + '_ {
    let facts = &timeline.events.facts;
    (0..facts.len()).filter(|&i| facts[i].is_output())
}

/// The `[DONE]` event, else the last event, else the end of the body.
fn response_end(timeline: &Timeline) -> Ns {
    let facts = &timeline.events.facts;
    let done = facts.iter().rposition(|facts| facts.has(Facts::DONE));
    let last = || facts.iter().rposition(|facts| !facts.has(Facts::COMMENT));
    done.or_else(last).map_or(timeline.end_ns, |i| timeline.event_ns(i))
}

/// A request's output tokens.
pub(super) struct OutputTokens {
    pub(super) count: u64,
    /// Whether the server said so.
    from_server: bool,
}

pub(super) fn output_tokens(timeline: &Timeline) -> OutputTokens {
    let usage = timeline.usage.map(|usage| usage.completion_tokens);
    match usage.or(timeline.events.tokens.last().copied()) {
        Some(count) => OutputTokens { count: u64::from(count), from_server: true },
        None => OutputTokens { count: output_events(timeline).count() as u64, from_server: false },
    }
}

fn count_requests(timelines: &[Timeline]) -> Requests {
    let mut requests = Requests { total: timelines.len() as u64, ..Requests::default() };
    for timeline in timelines {
        match &timeline.outcome {
            Outcome::Success => requests.succeeded += 1,
            Outcome::Cancelled => requests.cancelled += 1,
            Outcome::NotSent => requests.not_sent += 1,
            failure => {
                requests.failed += 1;
                *requests.failed_by_kind.entry(failure.kind()).or_default() += 1;
            }
        }
    }
    requests
}

fn count_tokens(timelines: &[Timeline]) -> Tokens {
    let mut tokens = Tokens::default();
    for timeline in succeeded(timelines) {
        let prompt = timeline.usage.map(|usage| usage.prompt_tokens).or(timeline.input_tokens);
        tokens.input += u64::from(prompt.unwrap_or(0));
        let output = output_tokens(timeline);
        tokens.output += output.count;
        tokens.requests_without_usage += u64::from(!output.from_server);

        let reads: Vec<u32> = output_events(timeline).map(|i| timeline.events.read[i]).collect();
        tokens.output_events += reads.len() as u64;
        let merged = reads.chunk_by(|a, b| a == b).map(<[u32]>::len).filter(|&events| events > 1);
        tokens.merged_read_events += merged.sum::<usize>() as u64;

        let silent = |facts: &&Facts| facts.is_output() && !facts.is_visible();
        tokens.silent_events += timeline.events.facts.iter().filter(silent).count() as u64;
    }
    if tokens.output_events > 0 {
        tokens.merged_read_share = tokens.merged_read_events as f64 / tokens.output_events as f64;
    }
    tokens
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
    use super::*;
    use crate::timeline::{Events, Reads, Usage};

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
            events: Events { read, facts, tokens: Vec::new() },
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
        request.usage = Some(Usage { prompt_tokens: 7, completion_tokens: 4, cached_tokens: None });
        let metrics = figures(&[request]);
        assert_eq!(metrics.ttft_ms.mean, 20.0);
        assert_eq!((metrics.itl_ms.count, metrics.itl_ms.p50, metrics.itl_ms.max), (2, 15.0, 20.0));
        assert_eq!(metrics.tpot_ms.mean, 10.0);
        assert_eq!(metrics.e2el_ms.mean, 70.0);
        assert_eq!((metrics.tokens.input, metrics.tokens.output), (7, 4));
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
            with(Outcome::NotSent),
        ]);
        let requests = metrics.requests;
        assert_eq!(
            requests.total,
            requests.succeeded + requests.failed + requests.cancelled + requests.not_sent
        );
        assert_eq!((requests.succeeded, requests.failed), (1, 3));
        assert_eq!(requests.failed_by_kind, BTreeMap::from([("no_tokens", 1), ("truncated", 2)]));
        assert_eq!((metrics.ttft_ms.count, metrics.peak_concurrency), (1, 5));
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
