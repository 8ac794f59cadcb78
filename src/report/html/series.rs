//! What happened when: a run cut into spans of one length, with the extremes of each.

use serde::Serialize;

use crate::metrics::Measurement;
use crate::metrics::stats;
use crate::timeline::{Ns, Outcome, Timeline};

/// Spans at most: as many as a chart has room for.
const SPANS: u64 = 120;

/// A run over time. The columns are of one length, a span each; the last one ends with the run.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Series {
    /// The length of a span, in seconds.
    span_s: f64,
    /// The length of the run, in seconds.
    end_s: f64,
    /// Requests that were sent.
    sent: Vec<u32>,
    /// Requests that ended well.
    succeeded: Vec<u32>,
    /// Requests that failed.
    failed: Vec<u32>,
    /// Output events that arrived.
    output_events: Vec<u32>,
    /// The fewest requests in flight at one moment.
    in_flight_min: Vec<u32>,
    /// The mean over time.
    in_flight_mean: Vec<f64>,
    /// The most at one moment.
    in_flight_max: Vec<u32>,
    /// TTFT, in milliseconds, of the requests sent in it.
    ttft: Quantiles,
    /// Gaps between output events, in milliseconds, that ended in it.
    itl: Quantiles,
}

/// Quantiles of each span; none where it has no value.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Quantiles {
    p50: Vec<Option<f64>>,
    p99: Vec<Option<f64>>,
    max: Vec<Option<f64>>,
}

impl Series {
    /// Of a run; all is counted, whether its request succeeded or not, but latencies are the successful ones'.
    pub(super) fn of(measurement: &Measurement<'_>) -> Self {
        let end_ns = measurement.timelines.iter().map(|timeline| timeline.end_ns).max().unwrap_or(0);
        let end_ns = end_ns.max(measurement.duration_ns).max(1);
        let spans = Spans::new(end_ns);
        let mut series = Self {
            span_s: spans.length_ns as f64 / 1e9,
            end_s: end_ns as f64 / 1e9,
            sent: spans.column(),
            succeeded: spans.column(),
            failed: spans.column(),
            output_events: spans.column(),
            ..Self::default()
        };
        let mut ttft: Vec<Vec<f32>> = spans.column();
        let mut itl: Vec<Vec<f32>> = spans.column();
        let sent = || measurement.timelines.iter().filter(|timeline| timeline.outcome != Outcome::NotSent);
        for timeline in sent() {
            series.sent[spans.of(timeline.dispatched_ns)] += 1;
            let ended = spans.of(timeline.end_ns);
            series.succeeded[ended] += u32::from(timeline.outcome.is_success());
            series.failed[ended] += u32::from(timeline.outcome.is_failure());
            let mut last = None;
            for (at, _) in timeline.stamped_events().filter(|(_, facts)| facts.is_output()) {
                series.output_events[spans.of(at)] += 1;
                if timeline.outcome.is_success() {
                    let (values, since) = match last {
                        None => (&mut ttft[spans.of(timeline.dispatched_ns)], timeline.dispatched_ns),
                        Some(before) => (&mut itl[spans.of(at)], before),
                    };
                    values.push(at.saturating_sub(since) as f32 / 1e6);
                }
                last = Some(at);
            }
        }
        series.ttft = Quantiles::of(ttft);
        series.itl = Quantiles::of(itl);
        series.count_in_flight(&spans, sent());
        series
    }

    fn count_in_flight<'t>(&mut self, spans: &Spans, sent: impl Iterator<Item = &'t Timeline>) {
        // An end goes before a send of the same moment.
        let mut changes: Vec<(Ns, i32)> = sent
            .flat_map(|timeline| {
                let sent = timeline.dispatched_ns;
                [(sent, 1), (timeline.end_ns.max(sent + 1), -1)]
            })
            .collect();
        changes.sort_unstable();
        let mut changes = changes.into_iter().peekable();
        let mut in_flight = 0_u32;
        for span in 0..spans.count {
            let (begin, end) = spans.bounds(span);
            // What lasts no time at all is not seen: a slot that sends the moment it is free.
            while let Some((_, change)) = changes.next_if(|(at, _)| *at <= begin) {
                in_flight = in_flight.saturating_add_signed(change);
            }
            let (mut least, mut most, mut area, mut since) = (in_flight, in_flight, 0.0, begin);
            while let Some((at, change)) = changes.next_if(|(at, _)| *at < end) {
                area += f64::from(in_flight) * (at - since) as f64;
                since = at;
                in_flight = in_flight.saturating_add_signed(change);
                if changes.peek().is_none_or(|(next, _)| *next > at) {
                    least = least.min(in_flight);
                    most = most.max(in_flight);
                }
            }
            area += f64::from(in_flight) * (end - since) as f64;
            let mean = area / (end - begin) as f64;
            self.in_flight_min.push(least);
            self.in_flight_mean.push((mean * 100.0).round() / 100.0);
            self.in_flight_max.push(most);
        }
    }
}

impl Quantiles {
    fn of(spans: Vec<Vec<f32>>) -> Self {
        let mut quantiles = Self::default();
        for values in spans {
            let mut values: Vec<f64> = values.into_iter().map(f64::from).collect();
            stats::sort(&mut values);
            // To a microsecond.
            let round = |ms: f64| (ms * 1e3).round() / 1e3;
            let at = |p: f64| (!values.is_empty()).then(|| round(stats::percentile(&values, p)));
            quantiles.p50.push(at(50.0));
            quantiles.p99.push(at(99.0));
            quantiles.max.push(values.last().copied().map(round));
        }
        quantiles
    }
}

/// Spans of a round length: 1, 2 or 5 times a power of ten.
struct Spans {
    length_ns: Ns,
    count: usize,
    end_ns: Ns,
}

impl Spans {
    fn new(end_ns: Ns) -> Self {
        let least = end_ns.div_ceil(SPANS).max(1);
        let power = 10_u64.pow(least.ilog10());
        let round = [1, 2, 5, 10].map(|times| power.saturating_mul(times));
        let length_ns = round.into_iter().find(|length| *length >= least).unwrap_or(least);
        let count = usize::try_from(end_ns.div_ceil(length_ns)).unwrap_or(1).max(1);
        Self { length_ns, count, end_ns }
    }

    fn column<T: Clone + Default>(&self) -> Vec<T> {
        vec![T::default(); self.count]
    }

    fn of(&self, at: Ns) -> usize {
        usize::try_from(at / self.length_ns).unwrap_or(usize::MAX).min(self.count - 1)
    }

    fn bounds(&self, span: usize) -> (Ns, Ns) {
        let begin = self.length_ns * span as u64;
        (begin, (begin + self.length_ns).min(self.end_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::{Events, Facts, Reads};

    fn request(sent: Ns, reads: &[Ns], end_ns: Ns) -> Timeline {
        let token = Facts::JSON.with(Facts::CHOICES).with(Facts::CONTENT);
        Timeline {
            dispatched_ns: sent,
            reads: Reads { at_ns: reads.to_vec(), bytes: vec![1; reads.len()], ..Reads::default() },
            events: Events {
                read: (0..u32::try_from(reads.len()).unwrap()).collect(),
                facts: vec![token; reads.len()],
                ..Events::default()
            },
            end_ns,
            outcome: Outcome::Success,
            ..Timeline::default()
        }
    }

    fn of(timelines: &[Timeline], duration_ns: Ns) -> Series {
        Series::of(&Measurement { timelines, duration_ns, concurrency: None, request_rate: None })
    }

    #[test]
    fn spans_are_round_and_cover_the_run() {
        for (end_ns, length_ns, count) in
            [(1, 1, 1), (120, 1, 120), (121, 2, 61), (1_000_000_007, 10_000_000, 101)]
        {
            let spans = Spans::new(end_ns);
            assert_eq!((spans.length_ns, spans.count), (length_ns, count));
            assert_eq!(spans.bounds(spans.count - 1).1, end_ns);
        }
    }

    #[test]
    fn sums_are_those_of_the_run() {
        let ms = 1_000_000;
        let timelines = [
            request(0, &[20 * ms, 30 * ms], 40 * ms),
            request(40 * ms, &[60 * ms, 500 * ms], 1000 * ms),
            Timeline {
                dispatched_ns: 7 * ms,
                end_ns: 9 * ms,
                outcome: Outcome::NoTokens,
                ..Timeline::default()
            },
            Timeline::default(),
        ];
        let series = of(&timelines, 1000 * ms);
        let sum = |column: &[u32]| column.iter().sum::<u32>();
        assert_eq!((sum(&series.sent), sum(&series.succeeded), sum(&series.failed)), (3, 2, 1));
        assert_eq!(sum(&series.output_events), 4);
        // 40 ms + 960 ms + 2 ms in flight, over 100 spans of 10 ms.
        let area: f64 = series.in_flight_mean.iter().map(|mean| mean * 10.0).sum();
        assert!((area - 1002.0).abs() < 1e-6, "{area}");
        // One request ends in the moment in which the next is sent: there is never none.
        assert_eq!(series.in_flight_min.iter().min(), Some(&1));
        assert_eq!((series.in_flight_max[0], series.in_flight_max[3]), (2, 1));
        // The one slow gap is there as it was.
        assert_eq!(series.itl.max[50], Some(440.0));
        assert_eq!(series.ttft.max[0], Some(20.0));
        assert_eq!(series.ttft.p50[1], None);
    }
}
