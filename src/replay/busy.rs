//! How long this thread, or this process, has computed: read before and after the measured part.

use tokentape_pacer::monotonic_ns;

use crate::effort::Busy;

/// The calling thread's time so far; none where the system does not tell.
#[cfg(target_os = "linux")]
pub(super) fn thread() -> Option<Busy> {
    let mut busy = usage(nix::sys::resource::UsageWho::RUSAGE_THREAD)?.0;
    // "computing waiting slices", the times in ns; absent from kernels without scheduler statistics.
    let schedule = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    busy.waited_ns = schedule.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    Some(busy)
}

/// The calling thread's time so far; none where the system does not tell.
#[cfg(not(target_os = "linux"))]
pub(super) const fn thread() -> Option<Busy> {
    None
}

/// The process's time so far, and the most memory it has held, in bytes.
pub(super) fn process() -> (Busy, u64) {
    usage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap_or_default()
}

fn usage(who: nix::sys::resource::UsageWho) -> Option<(Busy, u64)> {
    // Linux and the BSDs count in KiB, macOS in bytes.
    const MEMORY_UNIT: u64 = if cfg!(target_vendor = "apple") { 1 } else { 1024 };

    let usage = nix::sys::resource::getrusage(who).ok()?;
    let ns = |time: nix::sys::time::TimeVal| {
        u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000
            + u64::try_from(time.tv_usec()).unwrap_or(0) * 1000
    };
    let busy = Busy {
        wall_ns: monotonic_ns(),
        user_ns: ns(usage.user_time()),
        system_ns: ns(usage.system_time()),
        waited_ns: None,
    };
    Some((busy, u64::try_from(usage.max_rss()).unwrap_or(0) * MEMORY_UNIT))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn computing_shows_and_sleeping_does_not() {
        let (begun, process_begun) = (thread().unwrap(), process().0);
        std::thread::sleep(std::time::Duration::from_millis(30));
        let slept = thread().unwrap();
        assert!(slept.since(&begun).share() < 0.5, "{slept:?}");
        let mut sum = 0u64;
        while thread().unwrap().since(&slept).user_ns < 20_000_000 {
            sum = (0..10_000u64).fold(sum, |sum, i| std::hint::black_box(sum ^ i));
        }
        let (process_ended, memory) = process();
        assert!(process_ended.since(&process_begun).user_ns >= 20_000_000);
        assert!(memory > 1 << 20, "{memory}");
    }
}
