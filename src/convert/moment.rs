//! When something happened, exactly: decimals and calendar times as whole nanoseconds.
//!
//! A trace's times are decimals, of which a float keeps about sixteen digits; a calendar time in nanoseconds has
//! nineteen. So they are never floats here.

/// A number as it stands in the text: `digits` times ten to the power of `exponent`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Decimal {
    digits: u64,
    exponent: i32,
}

impl Decimal {
    /// One.
    pub(super) const ONE: Self = Self { digits: 1, exponent: 0 };
    /// A thousandth.
    pub(super) const MILLI: Self = Self { digits: 1, exponent: -3 };

    /// Reads a number from 0 on, as JSON and CSV files write it: `61`, `61.114`, `1.5e3`. At most 19 digits count.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (mantissa, power) = match text.split_once(['e', 'E']) {
            Some((mantissa, power)) => (mantissa, power.parse::<i16>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let fraction = fraction.trim_end_matches('0');
        let mut digits = 0_u64;
        for digit in whole.bytes().chain(fraction.bytes()) {
            digits = digits.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        }
        let exponent = i32::from(power) - i32::try_from(fraction.len()).ok()?;
        Some(Self { digits, exponent })
    }

    /// This many seconds, times `unit`, in nanoseconds, rounded to the nearest; none beyond 500 years.
    pub(super) fn nanoseconds(self, unit: Self) -> Option<u64> {
        let mut ns = u128::from(self.digits) * u128::from(unit.digits);
        let exponent = self.exponent + unit.exponent + 9;
        if ns == 0 {
            return Some(0);
        }
        for _ in 0..exponent {
            ns = ns.checked_mul(10).filter(|&ns| ns <= MAX_NS.into())?;
        }
        if exponent < 0 {
            let divisor = 10_u128.checked_pow(exponent.unsigned_abs());
            // What is smaller than any divisor is less than half a nanosecond.
            ns = divisor.map_or(0, |divisor| (ns + divisor / 2) / divisor);
        }
        u64::try_from(ns).ok().filter(|&ns| ns <= MAX_NS)
    }
}

/// 500 years, in nanoseconds.
const MAX_NS: u64 = 500 * 366 * 86_400 * 1_000_000_000;

/// A calendar time in nanoseconds since 1970, without leap seconds: `2023-11-16 18:17:03.9799600`, with a `T` or a blank
/// between date and time, any number of decimals, and `Z`, an offset such as `+01:00`, or nothing, which is UTC.
pub(super) fn calendar_ns(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', ' '])?;
    let mut parts = date.splitn(3, '-').map(number);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let (clock, ahead) = match time.find(['Z', '+', '-']) {
        Some(at) => (&time[..at], ahead_of_utc(&time[at..])?),
        None => (time, 0),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.splitn(3, ':').map(number);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?);
    let is_valid = (1970..2400).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !is_valid {
        return None;
    }
    let days = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum::<u64>()
        + (1..month).map(|month| days_of(year, month)).sum::<u64>()
        + day
        - 1;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    let utc = seconds.checked_add_signed(-ahead)?;
    let below = Decimal::parse(&format!("0.{fraction}"))?.nanoseconds(Decimal::ONE)?;
    (utc * 1_000_000_000).checked_add(below)
}

/// Seconds by which a zone is ahead of UTC: `Z`, `+01:00`, `-0530`.
fn ahead_of_utc(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, digits) = (if zone.starts_with('-') { -1 } else { 1 }, zone[1..].replace(':', ""));
    let minutes = match (digits.len(), number(&digits)?) {
        (2, hours) => hours * 60,
        (4, both) => both / 100 * 60 + both % 100,
        _ => return None,
    };
    i64::try_from(minutes).ok().filter(|&minutes| minutes < 24 * 60).map(|minutes| sign * minutes * 60)
}

fn number(digits: &str) -> Option<u64> {
    (digits.len() <= 4 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

fn days_of(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_lose_no_digit() {
        let ns = |text, unit| Decimal::parse(text).and_then(|decimal| decimal.nanoseconds(unit));
        assert_eq!(ns("61.114", Decimal::ONE), Some(61_114_000_000));
        assert_eq!(ns("3536999", Decimal::MILLI), Some(3_536_999_000_000));
        assert_eq!(ns("1700000000.123456789", Decimal::ONE), Some(1_700_000_000_123_456_789));
        assert_eq!(ns("0.0000000005", Decimal::ONE), Some(1));
        assert_eq!(ns("0.00000000049", Decimal::ONE), Some(0));
        assert_eq!(ns("1.5E3", Decimal::ONE), Some(1_500_000_000_000));
        assert_eq!(ns("0e32000", Decimal::ONE), Some(0));
        assert_eq!(ns("1e-32000", Decimal::ONE), Some(0));
        for wrong in ["", ".", "-1", "1e99", "1e", "x", "+1", "NaN", "99999999999", "1 "] {
            assert_eq!(ns(wrong, Decimal::ONE), None, "{wrong}");
        }
    }

    /// From Python's `datetime.fromisoformat(…).timestamp()`, with the digits that a float has no room for.
    #[test]
    fn calendar_times_are_pythons() {
        let cases = [
            ("2023-11-16 18:17:03.9799600", 1_700_158_623_979_960_000),
            ("2024-02-29T23:59:59.9999999Z", 1_709_251_199_999_999_900),
            ("2024-05-10 00:00:00.009930+00:00", 1_715_299_200_009_930_000),
            ("2026-01-31T12:00:00.5+01:00", 1_769_857_200_500_000_000),
            ("1970-01-01T00:00", 0),
        ];
        for (text, ns) in cases {
            assert_eq!(calendar_ns(text), Some(ns), "{text}");
        }
        for wrong in
            ["", "2023-02-29 00:00:00", "2023-11-16", "2023-11-16 24:00:00", "2023-11-16 1:2:3.x", "é"]
        {
            assert_eq!(calendar_ns(wrong), None, "{wrong}");
        }
    }
}
