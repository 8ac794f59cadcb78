//! `HdrHistogram`'s interval log: one histogram a metric, for the tools that read and merge `.hlog` files.

use std::time::Duration;

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use hdrhistogram::{CreationError, Histogram};
use thiserror::Error;

use crate::metrics::Measurement;
use crate::metrics::native::{Samples, samples};

/// The range of a latency histogram, in nanoseconds: 1 µs to 1 h, to three significant digits. What is outside
/// counts at the nearer end.
const RANGE_NS: (u64, u64) = (1_000, 3_600_000_000_000);

/// Why a log could not be written.
#[derive(Debug, Error)]
#[error("cannot write the interval log: {0}")]
pub struct HlogError(String);

/// A latency histogram of values in nanoseconds, in the range that every histogram here has (so that they add up).
pub fn histogram(values_ns: &[f64]) -> Result<Histogram<u64>, HlogError> {
    let mut histogram = empty().map_err(|error| HlogError(error.to_string()))?;
    for value in values_ns {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, as the histogram does"
        )]
        histogram.saturating_record(value.round() as u64);
    }
    Ok(histogram)
}

/// An empty latency histogram.
fn empty() -> Result<Histogram<u64>, CreationError> {
    Histogram::new_with_bounds(RANGE_NS.0, RANGE_NS.1, 3)
}

/// The run's `.hlog` file: an interval of the whole run for each of the tags `ttft`, `itl`, `tpot` and `e2el` as the
/// `native` dialect defines them. Values are nanoseconds; the log's maxima are in milliseconds.
pub fn hlog(measurement: &Measurement<'_>) -> Result<Vec<u8>, HlogError> {
    let Samples { ttft_ns, itl_ns, tpot_ns, e2el_ns, .. } = samples(measurement);
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("tokentape native latencies; values in nanoseconds, Interval_Max in milliseconds")
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut bytes, &mut serializer)
        .map_err(|error| HlogError(error.to_string()))?;
    let duration = Duration::from_nanos(measurement.duration_ns);
    for (tag, values) in [("ttft", ttft_ns), ("itl", itl_ns), ("tpot", tpot_ns), ("e2el", e2el_ns)] {
        let histogram = histogram(&values)?;
        log.write_histogram(&histogram, Duration::ZERO, duration, Tag::new(tag))
            .map_err(|error| HlogError(format!("{tag}: {error:?}")))?;
    }
    drop(log);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::timeline::{Events, Facts, Outcome, Reads, Timeline};

    #[test]
    fn the_log_reads_back() {
        let token = Facts::JSON.with(Facts::CHOICES).with(Facts::CONTENT);
        let timelines = [Timeline {
            reads: Reads {
                at_ns: vec![20_000_000, 29_000_000, 40_000_000],
                bytes: vec![1; 3],
                ..Reads::default()
            },
            events: Events { read: vec![0, 1, 2], facts: vec![token; 3], ..Events::default() },
            outcome: Outcome::Success,
            ..Timeline::default()
        }];
        let measurement = Measurement {
            timelines: &timelines,
            duration_ns: 50_000_000,
            concurrency: None,
            request_rate: None,
        };
        let log = hlog(&measurement).unwrap();

        let mut read = Vec::new();
        for entry in IntervalLogIterator::new(&log) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                let bytes = base64::Engine::decode(
                    &base64::engine::general_purpose::STANDARD,
                    interval.encoded_histogram(),
                );
                let histogram: Histogram<u64> =
                    Deserializer::new().deserialize(&mut bytes.unwrap().as_slice()).unwrap();
                let tag = interval.tag().map(|tag| tag.as_str().to_owned());
                read.push((tag.unwrap(), histogram.len(), histogram.max()));
                assert_eq!(interval.duration(), Duration::from_millis(50));
            }
        }
        let near = |value: u64, ms: u64| value.abs_diff(ms * 1_000_000) < ms * 1000;
        let expected = [("ttft", 1, 20), ("itl", 2, 11), ("tpot", 1, 10), ("e2el", 1, 40)];
        assert_eq!(read.len(), expected.len());
        for ((tag, count, max), expected) in read.iter().zip(expected) {
            assert_eq!((tag.as_str(), *count), (expected.0, expected.1));
            assert!(near(*max, expected.2), "{tag}: {max}");
        }
    }

    #[test]
    fn values_out_of_range_count_at_its_end() {
        let histogram = histogram(&[0.0, 1e18, f64::NAN]).unwrap();
        assert_eq!(histogram.len(), 3);
    }
}
