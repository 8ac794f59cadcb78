//! Points in time as a trace writes them, as Python 3.11 reads them (`float`, `datetime.fromisoformat`).

/// Seconds, as a number, or as a date and time of ISO 8601 in its extended form (`2026-01-31T12:00:00.5+01:00`; the
/// time, its seconds and its zone may be left out) since 1970. A time without a zone is UTC.
pub(super) fn seconds(text: &str) -> Option<f64> {
    text.parse().ok().or_else(|| unix_seconds(text))
}

/// To the microsecond, as `datetime.timestamp` gives it: what is finer is cut off.
fn unix_seconds(text: &str) -> Option<f64> {
    let (date, time) = text.split_once(['T', 't', ' ']).unwrap_or((text, "00:00"));
    let [year, month, day] = fields(date, '-', [4, 2, 2])?;
    let (clock, zone_s) = zone(time)?;
    let (clock_s, microseconds) = match clock.split_once(['.', ',']) {
        Some((clock, fraction)) => (seconds_of(clock)?, microseconds(fraction)?),
        None => (seconds_of(clock)?, 0),
    };
    let at = days_since_1970(year, month, day)? * 86_400 + clock_s - zone_s;
    Some((at * 1_000_000 + microseconds) as f64 / 1e6)
}

/// The clock's part of a time, and its zone's seconds east of UTC.
fn zone(time: &str) -> Option<(&str, i64)> {
    if let Some(clock) = time.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    match time.rfind(['+', '-']) {
        None => Some((time, 0)),
        Some(at) => {
            let sign = if time[at..].starts_with('-') { -1 } else { 1 };
            Some((&time[..at], sign * seconds_of(&time[at + 1..])?))
        }
    }
}

/// The seconds of `HH:MM` or `HH:MM:SS`.
fn seconds_of(clock: &str) -> Option<i64> {
    let [hour, minute, second] = fields(clock, ':', [2, 2, 2])
        .or_else(|| fields(clock, ':', [2, 2]).map(|[hour, minute]| [hour, minute, 0]))?;
    (hour < 24 && minute < 60 && second < 60).then_some(hour * 3600 + minute * 60 + second)
}

/// A fraction's first six digits.
fn microseconds(fraction: &str) -> Option<i64> {
    if fraction.is_empty() || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let six: String = fraction.chars().chain("000000".chars()).take(6).collect();
    six.parse().ok()
}

/// Numbers of just so many digits, with a separator between.
fn fields<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[i64; N]> {
    let mut numbers = [0; N];
    let mut parts = text.split(separator);
    for (number, width) in numbers.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Days from 1 January 1970, in the Gregorian calendar.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let month = usize::try_from(month - 1).ok().filter(|&month| month < 12)?;
    if year < 1 || !(1..=lengths[month]).contains(&day) {
        return None;
    }
    let before = year - 1;
    let days_before_year = before * 365 + before / 4 - before / 100 + before / 400;
    let days_before_month: i64 = lengths[..month].iter().sum();
    Some(days_before_year + days_before_month + day - 1 - 719_162)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_as_python_reads_them() {
        // From `datetime.fromisoformat(…).timestamp()`.
        for (text, at) in [
            ("1700000000.25", 1_700_000_000.25),
            ("2026-01-01T00:00:00Z", 1_767_225_600.0),
            ("2026-01-01T00:00:00.123456789", 1_767_225_600.123_456),
            ("2024-02-29 23:59:59.5+05:30", 1_709_231_399.5),
            ("1969-12-31T12:00-08:00", -14_400.0),
            ("2000-03-01", 951_868_800.0),
            ("0001-01-01T00:00:00Z", -62_135_596_800.0),
            ("9999-12-31T23:59:59Z", 253_402_300_799.0),
        ] {
            assert_eq!(seconds(text), Some(at), "{text}");
        }
        for text in [
            "2025-02-29",
            "2100-02-29",
            "2026-13-01",
            "2026-01-01T24:00",
            "2026-01-01T00:00:00.",
            "2026-01-01T00:00:00:00",
            "26-01-01",
            "yesterday",
            "",
            "T",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn each_day_is_one_after_the_day_before(year in 1i64..9999, month in 1i64..=12, day in 1i64..=31) {
            let Some(days) = days_since_1970(year, month, day) else {
                return Ok(());
            };
            let next = [(year, month, day + 1), (year, month + 1, 1), (year + 1, 1, 1)]
                .into_iter()
                .find_map(|(year, month, day)| days_since_1970(year, month, day));
            prop_assert_eq!(next, Some(days + 1));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9:.TZz ]{0,30}|.{0,20}") {
            // A date is within the years 1 to 9999; only a number may be anything.
            let dated = |at: f64| at.abs() < 3e11;
            prop_assert!(seconds(&text).is_none_or(|at| dated(at) || text.parse::<f64>().is_ok()));
        }
    }
}
