//! A span of time as a person writes it: `20ms`, `1.5ms`, `250us`, `0`. Exact to the nanosecond, no floats.

/// Units, the longer suffixes before those that end like them.
const UNITS: [(&str, u64); 5] =
    [("ns", 1), ("us", 1_000), ("µs", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];

/// The longest span: an hour. Longer ones are slips of the unit.
const MAX_NS: u64 = 3_600_000_000_000;

/// Parses a span to nanoseconds. The error is a whole sentence for the command line.
pub(crate) fn parse_ns(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!("`{text}` is not a span of time: write a number and its unit, such as 20ms, 1.5ms or 250us")
    };
    if text == "0" {
        return Ok(0);
    }
    let (number, unit_ns) = UNITS
        .iter()
        .find_map(|&(suffix, ns)| Some((text.strip_suffix(suffix)?.trim_end(), ns)))
        .ok_or_else(wrong)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits =
        |part: &str| (1..=18).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(wrong());
    }
    let whole: u128 = whole.parse().map_err(|_| wrong())?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| wrong())?);
    let fraction: u128 = fraction.parse().map_err(|_| wrong())?;
    let unit_ns = u128::from(unit_ns);
    if !(fraction * unit_ns).is_multiple_of(scale) {
        return Err(format!("`{text}` is finer than a nanosecond"));
    }
    let total_ns = whole * unit_ns + fraction * unit_ns / scale;
    u64::try_from(total_ns)
        .ok()
        .filter(|&ns| ns <= MAX_NS)
        .ok_or_else(|| format!("`{text}` is longer than an hour"))
}

/// A span as [`parse_ns`] reads it, in the largest unit of which it is a whole number.
pub(crate) fn format_ns(ns: u64) -> String {
    let whole = UNITS.iter().rev().find(|(unit, unit_ns)| *unit != "µs" && ns.is_multiple_of(*unit_ns));
    whole
        .filter(|_| ns > 0)
        .map_or_else(|| ns.to_string(), |(unit, unit_ns)| format!("{}{unit}", ns / unit_ns))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_and_fractions() {
        let spans = [
            ("0", 0),
            ("0ms", 0),
            ("7ns", 7),
            ("250us", 250_000),
            ("250µs", 250_000),
            ("20ms", 20_000_000),
            ("1.5ms", 1_500_000),
            ("0.000001ms", 1),
            ("1.25 s", 1_250_000_000),
            ("3600s", MAX_NS),
        ];
        for (text, ns) in spans {
            assert_eq!(parse_ns(text), Ok(ns), "{text}");
        }
    }

    #[test]
    fn slips_are_named() {
        for text in ["", "20", "ms", ".5ms", "5.ms", "-1ms", "+1ms", "1e3ms", "1m", "1.5.5ms", "NaNms", "٣ms"]
        {
            assert!(parse_ns(text).unwrap_err().contains("write a number and its unit"), "{text}");
        }
        assert_eq!(parse_ns("0.5ns"), Err("`0.5ns` is finer than a nanosecond".to_owned()));
        assert_eq!(parse_ns("3601s"), Err("`3601s` is longer than an hour".to_owned()));
        assert_eq!(
            parse_ns("999999999999999999s"),
            Err("`999999999999999999s` is longer than an hour".to_owned())
        );
    }

    #[test]
    fn spans_are_written_in_the_largest_unit() {
        for (ns, text) in [(0, "0"), (7, "7ns"), (1_500, "1500ns"), (2_000, "2us"), (3_000_000, "3ms")] {
            assert_eq!(format_ns(ns), text);
        }
        assert_eq!(format_ns(60_000_000_000), "60s");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(ns in 0..=MAX_NS) {
            prop_assert_eq!(parse_ns(&format_ns(ns)), Ok(ns));
        }

        #[test]
        fn whole_microseconds_round_trip(us in 0_u64..3_600_000_000) {
            prop_assert_eq!(parse_ns(&format!("{us}us")), Ok(us * 1_000));
            prop_assert_eq!(parse_ns(&format!("{}.{:03}ms", us / 1_000, us % 1_000)), Ok(us * 1_000));
        }

        #[test]
        fn never_panics(text in "\\PC{0,24}") {
            drop(parse_ns(&text));
        }
    }
}
