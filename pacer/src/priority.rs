//! Threads that stand back.
//!
//! Beside a thread that reads sockets or keeps deadlines there is mostly one that parses, or writes a log. Where there
//! are fewer processors than threads, the system gives each its fair share, in slices of milliseconds; and while the
//! second has its slice, the first is late. A thread that may wait says so here.

/// From now on, the calling thread runs only where no other wants the processor (Linux, `SCHED_IDLE`). It may wait long
/// for its turn, and cannot take its word back.
///
/// Says whether the system does so; where it does not, the thread runs as before.
pub fn run_in_the_gaps() -> bool {
    system::run_in_the_gaps()
}

/// From now on, the calling thread has its share of the processors, but does not push others aside when it wakes up
/// (Linux, `SCHED_BATCH`).
///
/// Says whether the system does so; where it does not, the thread runs as before.
pub fn wait_for_a_turn() -> bool {
    system::wait_for_a_turn()
}

#[cfg(target_os = "linux")]
mod system {
    use thread_priority::{
        NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
        thread_native_id,
    };

    fn set(policy: NormalThreadSchedulePolicy) -> bool {
        let policy = ThreadSchedulePolicy::Normal(policy);
        // These policies have one priority, 0.
        set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy).is_ok()
    }

    pub(super) fn run_in_the_gaps() -> bool {
        set(NormalThreadSchedulePolicy::Idle)
    }

    pub(super) fn wait_for_a_turn() -> bool {
        set(NormalThreadSchedulePolicy::Batch)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) fn run_in_the_gaps() -> bool {
        false
    }

    pub(super) fn wait_for_a_turn() -> bool {
        false
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use thread_priority::{NormalThreadSchedulePolicy, ThreadSchedulePolicy, thread_schedule_policy};

    use super::*;

    /// In a thread of its own: none of the tests' threads is to keep the policy.
    fn policy_after(stand_back: fn() -> bool) -> (bool, ThreadSchedulePolicy) {
        std::thread::spawn(move || (stand_back(), thread_schedule_policy().unwrap())).join().unwrap()
    }

    #[test]
    fn the_system_is_told() {
        let normal = ThreadSchedulePolicy::Normal;
        assert_eq!(policy_after(run_in_the_gaps), (true, normal(NormalThreadSchedulePolicy::Idle)));
        assert_eq!(policy_after(wait_for_a_turn), (true, normal(NormalThreadSchedulePolicy::Batch)));
    }
}
