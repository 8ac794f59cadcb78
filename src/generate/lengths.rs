//! Numbers of tokens, as a person asks for them: one number, or a range.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// More than any model's context; keeps a slip of the finger from filling the memory.
pub const MAX_TOKENS: u32 = 1 << 21;

/// How many tokens: `N`, or any number from `A` to `B`, both included (`A..B`), each with the same probability.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "serde_json::Value", into = "serde_json::Value")]
pub struct Lengths {
    low: u32,
    high: u32,
}

/// Why a text is no [`Lengths`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LengthsError {
    /// Neither a number nor a range.
    #[error("{0:?} is neither a number of tokens (100) nor a range of them (50..150)")]
    Form(String),
    /// A range that ends before it begins.
    #[error("{0}..{1} ends before it begins")]
    Order(u32, u32),
    /// Too few or too many.
    #[error("{0} is not between 1 and {MAX_TOKENS}")]
    Limits(u32),
}

impl Lengths {
    /// 100 tokens, the peers' usual length.
    pub(super) const HUNDRED: Self = Self { low: 100, high: 100 };

    /// 2048 tokens, what `evalscope perf` asks for.
    pub(super) const EVALSCOPE: Self = Self { low: 2048, high: 2048 };

    /// From `low` to `high` tokens, both included.
    pub fn new(low: u32, high: u32) -> Result<Self, LengthsError> {
        if low > high {
            return Err(LengthsError::Order(low, high));
        }
        match [low, high].into_iter().find(|tokens| !(1..=MAX_TOKENS).contains(tokens)) {
            Some(tokens) => Err(LengthsError::Limits(tokens)),
            None => Ok(Self { low, high }),
        }
    }

    /// Whether it is one number.
    #[must_use]
    pub fn is_fixed(self) -> bool {
        self.low == self.high
    }

    /// The numbers themselves.
    #[must_use]
    pub fn range(self) -> RangeInclusive<u32> {
        self.low..=self.high
    }

    /// The range around a single number `n` that `vLLM` 0.11 calls range ratio `r`: from `floor(n * (1 - r))` to
    /// `ceil(n * (1 + r))`, at least 1 (`benchmarks/datasets.py`, `RandomDataset.get_sampling_params`).
    #[must_use]
    pub fn spread(self, ratio: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most twice MAX_TOKENS, and not negative"
        )]
        let whole = |tokens: f64| (tokens as u32).clamp(1, MAX_TOKENS);
        Self {
            low: whole((f64::from(self.low) * (1.0 - ratio)).floor()),
            high: whole((f64::from(self.high) * (1.0 + ratio)).ceil()),
        }
    }
}

impl fmt::Display for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_fixed() { write!(f, "{}", self.low) } else { write!(f, "{}..{}", self.low, self.high) }
    }
}

impl FromStr for Lengths {
    type Err = LengthsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |part: &str| part.parse().map_err(|_| LengthsError::Form(text.to_owned()));
        match text.split_once("..") {
            Some((low, high)) => Self::new(number(low)?, number(high)?),
            None => number(text).and_then(|tokens| Self::new(tokens, tokens)),
        }
    }
}

/// As it stands in a header: a number, or a range's text.
impl From<Lengths> for serde_json::Value {
    fn from(lengths: Lengths) -> Self {
        if lengths.is_fixed() { lengths.low.into() } else { lengths.to_string().into() }
    }
}

impl TryFrom<serde_json::Value> for Lengths {
    type Error = LengthsError;

    fn try_from(value: serde_json::Value) -> Result<Self, Self::Error> {
        match value {
            serde_json::Value::String(text) => text.parse(),
            other => other.to_string().parse(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_and_a_range_are_understood() {
        assert_eq!("100".parse(), Lengths::new(100, 100));
        assert_eq!("50..150".parse(), Lengths::new(50, 150));
        assert_eq!("0".parse::<Lengths>(), Err(LengthsError::Limits(0)));
        assert_eq!("5..2".parse::<Lengths>(), Err(LengthsError::Order(5, 2)));
        for text in ["", "..", "1..", "..2", "-1", "1...2", "1..=2", "a", "1.5", "99999999999"] {
            assert_eq!(text.parse::<Lengths>(), Err(LengthsError::Form(text.to_owned())), "{text}");
        }
        assert_eq!("2097153".parse::<Lengths>(), Err(LengthsError::Limits(2_097_153)));
    }

    #[test]
    fn a_ratio_spreads_as_vllm_spreads() {
        let spread = |n, ratio| Lengths::new(n, n).unwrap().spread(ratio).range();
        assert_eq!(spread(100, 0.0), 100..=100);
        assert_eq!(spread(100, 0.25), 75..=125);
        assert_eq!(spread(101, 0.5), 50..=152);
        assert_eq!(spread(1, 0.9), 1..=2);
        assert_eq!(spread(MAX_TOKENS, 0.5), MAX_TOKENS / 2..=MAX_TOKENS);
    }

    proptest! {
        #[test]
        fn what_is_printed_and_stored_reads_back(low in 1..=MAX_TOKENS, more in 0..1000_u32) {
            let lengths = Lengths::new(low, (low + more).min(MAX_TOKENS)).unwrap();
            prop_assert_eq!(lengths.to_string().parse(), Ok(lengths));
            let stored = serde_json::to_string(&lengths).unwrap();
            prop_assert_eq!(serde_json::from_str::<Lengths>(&stored).unwrap(), lengths);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            drop(text.parse::<Lengths>());
        }
    }
}
