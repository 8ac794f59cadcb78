//! Requests that are sent again after a failure, where that was asked for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When and how often a request is sent again.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Retry {
    /// How often, at most: a request is sent at most once more than this.
    pub limit: u32,
    /// After which failures.
    pub on: Vec<Failure>,
    /// The wait before the first time, in ms; it doubles with each, up to [`LONGEST_BACKOFF`].
    pub backoff_ms: u64,
}

/// A failure that a retry may mend. It is known without a look into the body.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No connection could be opened.
    Connect,
    /// Status 408, 409, 429 or 5xx: what `OpenAI`'s own clients retry.
    Status,
    /// The time limit passed.
    Timeout,
    /// The connection broke before the response was complete.
    Truncated,
}

/// The longest wait that doubling leads to.
pub const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

impl Retry {
    /// How long to wait before the next attempt, after so many; none if there is to be none. Where the server named
    /// a longer time (`Retry-After`), it is that.
    #[must_use]
    pub fn wait(&self, attempts: u32, failure: Failure, retry_after: Option<Duration>) -> Option<Duration> {
        if attempts > self.limit || !self.on.contains(&failure) {
            return None;
        }
        let doubled = 1_u64.checked_shl(attempts.saturating_sub(1)).unwrap_or(u64::MAX);
        let backoff = Duration::from_millis(self.backoff_ms.saturating_mul(doubled));
        let backoff = backoff.min(LONGEST_BACKOFF.max(Duration::from_millis(self.backoff_ms)));
        Some(backoff.max(retry_after.unwrap_or_default()))
    }
}

impl Failure {
    /// Whether a status is one of those that a retry may mend.
    #[must_use]
    pub const fn is_status(status: u16) -> bool {
        matches!(status, 408 | 409 | 429 | 500..=599)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_and_the_server_may_ask_for_more() {
        let retry = Retry { limit: 40, on: vec![Failure::Status], backoff_ms: 500 };
        let wait = |attempts, after| retry.wait(attempts, Failure::Status, after).unwrap().as_millis();
        assert_eq!([1, 2, 3, 8, 40].map(|attempts| wait(attempts, None)), [500, 1000, 2000, 60_000, 60_000]);
        assert_eq!(wait(2, Some(Duration::from_millis(999))), 1000);
        assert_eq!(wait(2, Some(Duration::from_secs(3600))), 3_600_000);
        let slow = Retry { backoff_ms: 90_000, ..retry.clone() };
        assert_eq!(slow.wait(9, Failure::Status, None), Some(Duration::from_secs(90)));
        let at_once = Retry { backoff_ms: 0, ..retry.clone() };
        assert_eq!(at_once.wait(9, Failure::Status, None), Some(Duration::ZERO));
    }

    #[test]
    fn it_ends_at_the_limit_and_knows_its_failures() {
        let retry = Retry { limit: 2, on: vec![Failure::Connect, Failure::Status], backoff_ms: 1 };
        let is_retried = |attempts, failure| retry.wait(attempts, failure, None).is_some();
        assert!(is_retried(1, Failure::Connect) && is_retried(2, Failure::Status));
        assert!(!is_retried(3, Failure::Connect) && !is_retried(1, Failure::Timeout));
        let statuses = [400, 401, 404, 408, 409, 422, 429, 499, 500, 503, 599];
        let mended: Vec<u16> = statuses.into_iter().filter(|status| Failure::is_status(*status)).collect();
        assert_eq!(mended, [408, 409, 429, 500, 503, 599]);
    }
}
