//! What sending cost the client: the processor time of its threads while the clock ran.
//!
//! Replay writes it, metrics and the verdict read it; nothing is measured here.

use serde::{Deserialize, Serialize};

/// The processor time that a run took of the client.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Effort {
    /// Each sending thread, from the run's start until it had no more to do. Empty where the system does not tell
    /// (it does on Linux).
    pub workers: Vec<Busy>,
    /// The whole process over the same time: the sending threads, and the one that collects and parses.
    pub process: Busy,
    /// How the sending threads ran.
    #[serde(default)]
    pub priority: Priority,
    /// The most memory that the process held at one moment, in bytes, from its own start.
    pub peak_memory_bytes: u64,
}

/// Whether threads have to wait behind others for a processor.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Before all ordinary threads, where the system grants it.
    RealTime,
    /// In turn with the others.
    #[default]
    Normal,
}

/// How long a thread, or a process, computed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Busy {
    /// The time that passed, in ns.
    pub wall_ns: u64,
    /// Of it, spent computing in user space, in ns.
    pub user_ns: u64,
    /// Spent computing in the kernel, in ns.
    pub system_ns: u64,
    /// Spent ready to compute and waiting for a processor, in ns; absent where the system does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_ns: Option<u64>,
}

impl Busy {
    /// The share of the time spent computing: 1 is one whole processor.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.of_wall(self.user_ns.saturating_add(self.system_ns))
    }

    /// The share of the time spent waiting for a processor.
    #[must_use]
    pub fn waited_share(&self) -> Option<f64> {
        self.waited_ns.map(|waited| self.of_wall(waited))
    }

    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            wall_ns: self.wall_ns.saturating_sub(earlier.wall_ns),
            user_ns: self.user_ns.saturating_sub(earlier.user_ns),
            system_ns: self.system_ns.saturating_sub(earlier.system_ns),
            waited_ns: self.waited_ns.zip(earlier.waited_ns).map(|(now, then)| now.saturating_sub(then)),
        }
    }

    fn of_wall(&self, ns: u64) -> f64 {
        if self.wall_ns == 0 { 0.0 } else { ns as f64 / self.wall_ns as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_time_that_passed() {
        let then = Busy { wall_ns: 100, user_ns: 10, system_ns: 1, waited_ns: Some(5) };
        let now = Busy { wall_ns: 300, user_ns: 90, system_ns: 21, waited_ns: Some(25) };
        let busy = now.since(&then);
        assert_eq!((busy.share(), busy.waited_share()), (0.5, Some(0.1)));
        assert_eq!(Busy { waited_ns: None, ..now }.since(&then).waited_share(), None);
        assert_eq!((Busy::default().share(), Busy::default().waited_share()), (0.0, None));
    }
}
