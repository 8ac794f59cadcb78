//! What other lengths and another traffic can be expected to change. Every prediction starts from the first subject's
//! figures and changes one thing; what two changes do together stays in the rest.

use super::super::metric::{Figures, Latency, Metric, Statistic};
use super::super::subject::{Record, Subject};

const MEAN_TPOT: Metric = Metric::Latency(Latency::Tpot, Statistic::Mean);
const MEAN_E2EL: Metric = Metric::Latency(Latency::E2el, Statistic::Mean);

/// How the requests of two subjects differ in number and length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Lengths {
    /// They are the same requests.
    SameRequests,
    /// As many, with the same mean numbers of tokens.
    Same,
    /// Numbers are not kept.
    Unknown,
    /// They differ: of each the first's and the second's.
    Differ {
        /// Requests.
        requests: [f64; 2],
        /// Mean prompt tokens.
        input: [f64; 2],
        /// Mean output tokens.
        output: [f64; 2],
    },
}

/// What other lengths change.
pub(super) struct Workload<'a> {
    pub(super) lengths: Lengths,
    pub(super) counts_alike: bool,
    from: &'a Figures,
    /// Milliseconds of TTFT a prompt token, over the first subject's requests.
    slope: Option<f64>,
    closed_loop: bool,
}

impl<'a> Workload<'a> {
    pub(super) fn of(a: &Subject, b: &Subject, from: &'a Figures, to: &Figures, counts_alike: bool) -> Self {
        let same_digest = a.workload_digest.is_some() && a.workload_digest == b.workload_digest;
        let lengths = if same_digest {
            Lengths::SameRequests
        } else {
            lengths(from, to, counts_alike).unwrap_or(Lengths::Unknown)
        };
        let slope = if counts_alike { slope(&a.record) } else { None };
        Self { lengths, counts_alike, from, slope, closed_loop: a.traffic.is_closed_loop() }
    }

    /// The part of a metric's difference that the lengths predict, in the metric's unit.
    pub(super) fn part(&self, metric: Metric) -> Option<f64> {
        let Lengths::Differ { requests, input, output } = self.lengths else {
            return (self.lengths != Lengths::Unknown).then_some(0.0);
        };
        let figure = |metric: Metric| self.from.get(metric);
        let ratio = |pair: [f64; 2]| if pair[0] > 0.0 { pair[1] / pair[0] } else { 1.0 };

        // Prompts: a straight line through A's requests. Answers: each token more takes one more TPOT.
        let ttft_shift = match self.slope {
            Some(slope) => Some(slope * (input[1] - input[0])),
            None if self.counts_alike && same(input) => Some(0.0),
            None => None,
        };
        let e2el_shift = || {
            let decode = if same(output) { 0.0 } else { figure(MEAN_TPOT)? * (output[1] - output[0]) };
            Some(ttft_shift.unwrap_or(0.0) + decode)
        };
        // A closed loop takes as long as its requests together; an open one as long as it has requests.
        let longer = || {
            let each = if self.closed_loop {
                let e2el = figure(MEAN_E2EL).filter(|&e2el| e2el > 0.0)?;
                ((e2el + e2el_shift()?) / e2el).max(0.0)
            } else {
                1.0
            };
            Some(ratio(requests) * each).filter(|&longer| longer > 0.0)
        };
        let grown = |metric: Metric, factor: f64| Some(figure(metric)? * (factor - 1.0));
        let input_ratio = if self.counts_alike { ratio(input) } else { 1.0 };
        match metric {
            Metric::Succeeded => grown(metric, ratio(requests)),
            Metric::InputTokens => {
                self.counts_alike.then(|| grown(metric, ratio(requests) * ratio(input))).flatten()
            }
            Metric::OutputTokens => grown(metric, ratio(requests) * ratio(output)),
            Metric::Duration => grown(metric, longer()?),
            Metric::RequestThroughput => grown(metric, ratio(requests) / longer()?),
            Metric::OutputThroughput => grown(metric, ratio(requests) * ratio(output) / longer()?),
            Metric::TotalThroughput => {
                let each = [input[0] + output[0], input[0] * input_ratio + output[1]];
                grown(metric, ratio(requests) * ratio(each) / longer()?)
            }
            Metric::Latency(_, Statistic::Std) => None,
            Metric::Latency(Latency::Ttft, _) => ttft_shift,
            Metric::Failed | Metric::Latency(Latency::Tpot | Latency::Itl, _) => Some(0.0),
            Metric::Latency(Latency::E2el, _) => e2el_shift(),
        }
    }
}

fn lengths(from: &Figures, to: &Figures, counts_alike: bool) -> Option<Lengths> {
    let pair = |metric: Metric| Some([from.get(metric)?, to.get(metric)?]);
    let succeeded = pair(Metric::Succeeded)?;
    let failed = pair(Metric::Failed).unwrap_or([0.0; 2]);
    let requests = [succeeded[0] + failed[0], succeeded[1] + failed[1]];
    let mean = |total: [f64; 2]| {
        let each = |side: usize| if succeeded[side] > 0.0 { total[side] / succeeded[side] } else { 0.0 };
        [each(0), each(1)]
    };
    let (input, output) = (mean(pair(Metric::InputTokens)?), mean(pair(Metric::OutputTokens)?));
    let alike = same(requests) && same(output) && (same(input) || !counts_alike);
    Some(if alike { Lengths::Same } else { Lengths::Differ { requests, input, output } })
}

/// Equal, as far as a tool that keeps four decimals of a mean can say.
fn same([a, b]: [f64; 2]) -> bool {
    (a - b).abs() <= 1e-4
}

/// The slope of TTFT (ms) over prompt tokens, by least squares; none where the prompts are all of one length.
fn slope(record: &Record) -> Option<f64> {
    let points: Vec<(f64, f64)> = match record {
        Record::None => return None,
        Record::Samples(samples) => samples
            .iter()
            .filter(|sample| sample.success)
            .map(|sample| (f64::from(sample.input_tokens), sample.ttft * 1000.0))
            .collect(),
        Record::Timelines { timelines, .. } => timelines
            .iter()
            .filter(|timeline| timeline.outcome.is_success())
            .filter_map(|timeline| {
                let first = timeline.stamped_events().find(|(_, facts)| facts.is_output())?.0;
                let tokens = timeline.prompt_tokens()?;
                Some((f64::from(tokens), first.saturating_sub(timeline.dispatched_ns) as f64 / 1e6))
            })
            .collect(),
    };
    let n = points.len() as f64;
    let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / n;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let together: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    (points.len() > 2 && spread > 0.0).then(|| together / spread)
}

/// The part of a metric's difference that comes from other numbers of requests in flight.
///
/// By Little's law the request rate is the mean number in flight over the mean latency, so rates and durations change
/// in proportion to that number. For latencies, another limit or rate acts through the server, and cannot be told from
/// it; with the same limits their part is 0.
pub(super) fn traffic(metric: Metric, a: &Subject, b: &Subject, from: &Figures, to: &Figures) -> Option<f64> {
    let busier = || Some(in_flight(to)? / in_flight(from)?);
    let figure = from.get(metric);
    match metric {
        Metric::Duration => Some(figure? * (1.0 / busier()? - 1.0)),
        Metric::RequestThroughput | Metric::OutputThroughput | Metric::TotalThroughput => {
            Some(figure? * (busier()? - 1.0))
        }
        _ => a.traffic.is_like(&b.traffic).then_some(0.0),
    }
}

/// The mean number of requests in flight: request throughput times mean E2EL.
fn in_flight(figures: &Figures) -> Option<f64> {
    let mean = figures.get(Metric::RequestThroughput)? * figures.get(MEAN_E2EL)? / 1000.0;
    (mean > 0.0).then_some(mean)
}

pub(super) fn traffic_note(a: &Subject, b: &Subject, from: &Figures, to: &Figures) -> String {
    let limits = if a.traffic.is_like(&b.traffic) {
        format!("the same limits ({})", a.traffic.words())
    } else {
        format!(
            "{} against {}: of latencies not separable from the server",
            a.traffic.words(),
            b.traffic.words()
        )
    };
    match in_flight(from).zip(in_flight(to)) {
        Some((from, to)) => {
            format!(
                "{limits}; on average {from:.2} against {to:.2} requests in flight, ramp and tail included"
            )
        }
        None => format!("{limits}; the mean number in flight is not known, since mean E2EL is not kept"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::subject::Sample;
    use super::*;

    #[test]
    fn the_slope_is_that_of_a_line() {
        let sample = |input_tokens: u32| Sample {
            success: true,
            ttft: 0.010 + f64::from(input_tokens) * 0.000_5,
            input_tokens,
            ..Sample::default()
        };
        let slope_of =
            |lengths: &[u32]| slope(&Record::Samples(lengths.iter().copied().map(sample).collect()));
        assert!((slope_of(&[100, 200, 400]).unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(slope_of(&[100, 100, 100]), None);
        assert_eq!(slope_of(&[]), None);
    }
}
