//! The queue of deadlines, and the rule of when the next alarm may ring. Pure: time is a value.

use std::collections::BTreeMap;

/// How early a deadline may fire, in nanoseconds: those that fall within one alarm of each other share it.
pub const LEAD_NS: u64 = 20_000;

/// The shortest time between two alarms, in nanoseconds. A deadline is therefore late by [`QUANTUM_NS`] - [`LEAD_NS`]
/// at most on the queue's account, whatever the load; the rest is the system's wake-up.
pub const QUANTUM_NS: u64 = 50_000;

/// Names one entry: its deadline, then its place among those inserted.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Key {
    deadline_ns: u64,
    seq: u64,
}

/// Deadlines in order, each with a value; equal deadlines keep the order of insertion. An ordered map rather than a
/// binary heap, because a sleeper that is dropped must leave nothing behind: a heap can only mark it dead.
#[derive(Debug)]
pub(crate) struct Deadlines<T> {
    entries: BTreeMap<Key, T>,
    next_seq: u64,
    not_before_ns: u64,
}

impl<T> Deadlines<T> {
    pub(crate) const fn new() -> Self {
        Self { entries: BTreeMap::new(), next_seq: 0, not_before_ns: 0 }
    }

    pub(crate) fn insert(&mut self, deadline_ns: u64, value: T) -> Key {
        let key = Key { deadline_ns, seq: self.next_seq };
        self.next_seq += 1;
        self.entries.insert(key, value);
        key
    }

    /// Puts `value` in the place of an entry's own and returns that; `None` where the entry has fired.
    pub(crate) fn replace(&mut self, key: Key, value: T) -> Option<T> {
        let entry = self.entries.get_mut(&key)?;
        Some(std::mem::replace(entry, value))
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        self.entries.remove(&key)
    }

    /// Moves everything that is due at `now_ns`, or within [`LEAD_NS`] of it, to the end of `due`, in order.
    pub(crate) fn drain_due(&mut self, now_ns: u64, due: &mut Vec<T>) {
        let limit_ns = now_ns.saturating_add(LEAD_NS);
        while let Some(first) = self.entries.first_entry()
            && first.key().deadline_ns <= limit_ns
        {
            due.push(first.remove());
        }
        self.not_before_ns = now_ns.saturating_add(QUANTUM_NS);
    }

    /// When the next alarm should ring: at the earliest deadline, but no sooner than [`QUANTUM_NS`] after the last.
    pub(crate) fn alarm_ns(&self) -> Option<u64> {
        let (earliest, _) = self.entries.first_key_value()?;
        Some(earliest.deadline_ns.max(self.not_before_ns))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert { after_ns: u64 },
        Remove { nth: usize },
        Drain { advance_ns: u64 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..200_000_u64).prop_map(|after_ns| Step::Insert { after_ns }),
            1 => any::<usize>().prop_map(|nth| Step::Remove { nth }),
            2 => (0..120_000_u64).prop_map(|advance_ns| Step::Drain { advance_ns }),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// Against a plain list, sorted anew at every step.
        #[test]
        fn agrees_with_a_sorted_list(steps in steps()) {
            let mut deadlines = Deadlines::new();
            let mut model: Vec<(u64, u64, Key)> = Vec::new();
            let mut now_ns = 1_000_000;
            let mut last_drain_ns = None;
            for (id, step) in (0_u64..).zip(steps) {
                match step {
                    Step::Insert { after_ns } => {
                        let deadline_ns = now_ns - 50_000 + after_ns;
                        let key = deadlines.insert(deadline_ns, id);
                        model.push((deadline_ns, id, key));
                    }
                    Step::Remove { nth } if !model.is_empty() => {
                        let (_, id, key) = model.remove(nth % model.len());
                        prop_assert_eq!(deadlines.remove(key), Some(id));
                        prop_assert_eq!(deadlines.remove(key), None);
                    }
                    Step::Remove { .. } => {}
                    Step::Drain { advance_ns } => {
                        now_ns += advance_ns;
                        let mut due = Vec::new();
                        deadlines.drain_due(now_ns, &mut due);
                        model.sort_by_key(|&(deadline_ns, id, _)| (deadline_ns, id));
                        let (fired, left) = model.into_iter().partition(|entry| entry.0 <= now_ns + LEAD_NS);
                        let fired: Vec<(u64, u64, Key)> = fired;
                        prop_assert_eq!(due, fired.iter().map(|entry| entry.1).collect::<Vec<_>>());
                        model = left;
                        last_drain_ns = Some(now_ns);
                    }
                }
                let earliest = model.iter().map(|entry| entry.0).min();
                let floor = last_drain_ns.map_or(0, |at| at + QUANTUM_NS);
                prop_assert_eq!(deadlines.alarm_ns(), earliest.map(|at| at.max(floor)));
            }
        }
    }

    #[test]
    fn the_end_of_time_does_not_overflow() {
        let mut deadlines = Deadlines::new();
        deadlines.insert(u64::MAX, ());
        let mut due = Vec::new();
        deadlines.drain_due(u64::MAX, &mut due);
        assert_eq!(due.len(), 1);
        assert_eq!(deadlines.alarm_ns(), None);
    }
}
