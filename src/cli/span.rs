//! Spans as they are typed: `A..B` for indices and counts, `0s..60s` for times. The end is not part of them.

use std::ops::Range;
use std::str::FromStr;

/// `A..B`, `A..`, `..B` or `..`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Numbers(pub(super) Range<u64>);

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            text.parse().map_err(|error| format!("{text:?} is not a whole number from 0 on: {error}"))
        };
        span(text, "A..B, such as 100..110", number).map(Self)
    }
}

/// The same of times, in nanoseconds: `0s..60s`, `1m30s..`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Times(pub(super) Range<u64>);

impl FromStr for Times {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = |text: &str| {
            let time = humantime::parse_duration(text)
                .map_err(|error| format!("{text:?} is not a time such as 60s or 1m30s: {error}"))?;
            u64::try_from(time.as_nanos()).map_err(|_| format!("{text:?} is beyond 584 years"))
        };
        span(text, "FROM..TO, such as 0s..60s", time).map(Self)
    }
}

fn span(text: &str, form: &str, read: impl Fn(&str) -> Result<u64, String>) -> Result<Range<u64>, String> {
    let (start, end) = text.split_once("..").ok_or_else(|| format!("expected {form}"))?;
    let or = |text: &str, default| if text.is_empty() { Ok(default) } else { read(text) };
    let span = or(start, 0)?..or(end, u64::MAX)?;
    if span.start > span.end {
        return Err(format!("it ends before it begins; did you mean {end}..{start}?"));
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_they_are_written() {
        let read = |text: &str| text.parse().map(|Numbers(range)| range);
        assert_eq!(read("3..5"), Ok(3..5));
        assert_eq!(read("3.."), Ok(3..u64::MAX));
        assert_eq!(read("..5"), Ok(0..5));
        assert_eq!(read(".."), Ok(0..u64::MAX));
        for bad in ["", "3", "3..x", "-1..2", "5..3", "3..=5"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_have_units() {
        let read = |text: &str| text.parse().map(|Times(range)| range);
        assert_eq!(read("500ms..1m30s"), Ok(500_000_000..90_000_000_000));
        assert_eq!(read("2s.."), Ok(2_000_000_000..u64::MAX));
        for bad in ["0..60", "2s..1s", "1s", "x..y", "..1000y"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
