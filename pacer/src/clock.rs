//! The one clock.

use nix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC` in nanoseconds: never steps, and is comparable across the processes of one machine, so that a
/// client's stamps and a server's truth log lie on one axis.
///
/// # Panics
///
/// On a system without `CLOCK_MONOTONIC`.
#[must_use]
#[expect(clippy::expect_used, reason = "POSIX requires CLOCK_MONOTONIC of every system that this builds on")]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC is readable");
    now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_runs_backwards() {
        let stamps: Vec<u64> = (0..1000).map(|_| monotonic_ns()).collect();
        assert!(stamps.is_sorted());
    }
}
