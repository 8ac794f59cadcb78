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
    let Samples {
        ttft_ns,
        itl_ns,
        tpot_ns,
        e2el_ns,
        ..
    } = samples(measurement);
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("tokentape native latencies; values in nanoseconds, Interval_Max in milliseconds")
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut bytes, &mut serializer)
        .map_err(|error| HlogError(error.to_string()))?;
    let duration = Duration::from_nanos(measurement.duration_ns);
    for (tag, values) in [
        ("ttft", ttft_ns),
        ("itl", itl_ns),
        ("tpot", tpot_ns),
        ("e2el", e2el_ns),
    ] {
        let histogram = histogram(&values)?;
        log.write_histogram(&histogram, Duration::ZERO, duration, Tag::new(tag))
            .map_err(|error| HlogError(format!("{tag}: {error:?}")))?;
    }
    drop(log);
    Ok(bytes)
}
