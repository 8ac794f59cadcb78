//! Threads that go first, and threads that stand back.
//!
//! Beside a thread that reads sockets or keeps deadlines there is mostly one that parses, or writes a log. Where there
//! are fewer processors than threads, the system gives each its fair share, in slices of milliseconds; and while the
//! second has its slice, the first is late. A thread that may wait says so here, and so does one that may not.

/// From now on, the calling thread runs before all that have no deadlines (Linux, `SCHED_RR` at its lowest priority).
/// `false` where the system does not grant it: it takes `CAP_SYS_NICE`, or a limit for real-time priority (`ulimit -r`).
/// The thread then runs as before.
#[must_use]
pub fn go_first() -> bool {
    system::go_first()
}

/// From now on, the calling thread runs only where no other wants the processor (Linux, `SCHED_IDLE`). It may wait long
/// for its turn, and cannot take its word back.
/// Where the system knows no such thing, the thread runs as before.
pub fn run_in_the_gaps() {
    system::run_in_the_gaps();
}

/// From now on, the calling thread has its share of the processors, but does not push others aside when it wakes up
/// (Linux, `SCHED_BATCH`).
/// Where the system knows no such thing, the thread runs as before.
pub fn wait_for_a_turn() {
    system::wait_for_a_turn();
}

#[cfg(target_os = "linux")]
mod system {
    use thread_priority::{
        NormalThreadSchedulePolicy, RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
        set_thread_priority_and_policy, thread_native_id,
    };

    pub(super) fn go_first() -> bool {
        let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
        set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy).is_ok()
    }

    fn set(policy: NormalThreadSchedulePolicy) {
        let policy = ThreadSchedulePolicy::Normal(policy);
        // These policies have one priority, 0. A refusal leaves the thread as it is, which is slower and not wrong.
        set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy).unwrap_or_default();
    }

    pub(super) fn run_in_the_gaps() {
        set(NormalThreadSchedulePolicy::Idle);
    }

    pub(super) fn wait_for_a_turn() {
        set(NormalThreadSchedulePolicy::Batch);
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) const fn go_first() -> bool {
        false
    }

    pub(super) const fn run_in_the_gaps() {}

    pub(super) const fn wait_for_a_turn() {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use thread_priority::{
        NormalThreadSchedulePolicy, RealtimeThreadSchedulePolicy, ThreadSchedulePolicy,
        thread_schedule_policy,
    };

    use super::*;

    #[test]
    fn the_system_is_told() {
        // In a thread of its own: none of the tests' threads is to keep the policy.
        let policy_after = |stand_back: fn()| {
            let thread = std::thread::spawn(move || {
                stand_back();
                thread_schedule_policy().unwrap()
            });
            thread.join().unwrap()
        };
        let normal = ThreadSchedulePolicy::Normal;
        assert_eq!(policy_after(run_in_the_gaps), normal(NormalThreadSchedulePolicy::Idle));
        assert_eq!(policy_after(wait_for_a_turn), normal(NormalThreadSchedulePolicy::Batch));
    }

    /// Not every machine grants it; where one does, the system knows of it.
    #[test]
    fn what_is_granted_is_so() {
        let granted_and_policy = || (go_first(), thread_schedule_policy().unwrap());
        let (granted, policy) = std::thread::spawn(granted_and_policy).join().unwrap();
        let first = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
        assert_eq!(policy == first, granted);
    }
}
