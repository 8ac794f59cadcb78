//! Whether a run's figures can be trusted, and if not, why: after the manner of MLPerf LoadGen, every run says it.

use serde::{Deserialize, Serialize};

use super::Counts;

/// VALID, or INVALID with reasons.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Verdict {
    /// Whether there is no reason against the run.
    pub valid: bool,
    /// Each reason against it, in words.
    pub reasons: Vec<String>,
}

impl Verdict {
    /// The verdict on a run whose requests ended so.
    #[must_use]
    pub fn of(counts: &Counts) -> Self {
        let mut reasons = Vec::new();
        let mut against = |condition: bool, reason: String| {
            if condition {
                reasons.push(reason);
            }
        };
        let all = counts.requests;
        let unaccounted = counts.unaccounted();
        against(
            unaccounted > 0,
            format!("{unaccounted} of {all} requests are unaccounted for: a fault of tokentape"),
        );
        let unsent = counts.cancelled + counts.not_sent;
        against(unsent > 0, format!("interrupted: {unsent} of {all} requests were cut off or not sent"));
        let kinds: Vec<String> =
            counts.failed.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        against(
            !kinds.is_empty(),
            format!("{} of {all} requests failed: {}", counts.all_failed(), kinds.join(", ")),
        );
        Self { valid: reasons.is_empty(), reasons }
    }

    /// `VALID`, or `INVALID: reason; reason`.
    #[must_use]
    pub fn line(&self) -> String {
        if self.valid { "VALID".to_owned() } else { format!("INVALID: {}", self.reasons.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_must_have_ended_well() {
        let good = Counts { requests: 2, succeeded: 2, ..Counts::default() };
        assert_eq!(Verdict::of(&good).line(), "VALID");
        let mut bad = Counts { requests: 9, succeeded: 2, cancelled: 1, not_sent: 2, ..Counts::default() };
        bad.failed.insert("timeout".to_owned(), 3);
        let line = Verdict::of(&bad).line();
        for part in ["INVALID", "1 of 9 requests are unaccounted", "3 of 9", "3 timeout"] {
            assert!(line.contains(part), "{line}");
        }
    }
}
