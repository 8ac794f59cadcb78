//! The client's own share of a run: what it spent before a request was with the kernel.

use std::collections::BTreeMap;

use crate::timeline::{Ns, Timeline};

/// The same run, had the client sent each request the moment it was scheduled, and at once.
///
/// Two delays are taken out of each timeline: from scheduled to dispatched (the client was late), and from dispatched
/// to written (it connected, and handed the request over). The send moves to where the last byte was written, and
/// everything moves earlier by both delays. In a closed loop the next request of the same slot moves with it, and so
/// the run gets shorter. The server is taken to answer as it did: that it saw the requests at other times is not
/// modelled.
pub(super) fn undelayed(timelines: &[Timeline], duration_ns: Ns, closed_loop: bool) -> (Vec<Timeline>, Ns) {
    let mut order: Vec<&Timeline> = timelines.iter().collect();
    order.sort_by_key(|timeline| timeline.dispatched_ns);
    let mut earlier_by_slot: BTreeMap<u32, Ns> = BTreeMap::new();
    let mut moved: Vec<Timeline> = order
        .into_iter()
        .map(|timeline| {
            let (late, sending) = delays(timeline);
            let slot = earlier_by_slot.entry(timeline.slot).or_default();
            let before = if closed_loop { *slot } else { 0 };
            *slot = before + late + sending;
            sent_earlier(timeline, sending, *slot)
        })
        .collect();
    moved.sort_by_key(|timeline| timeline.index);

    let last = |timelines: &[Timeline]| timelines.iter().map(|timeline| timeline.end_ns).max().unwrap_or(0);
    let shorter_by = last(timelines).saturating_sub(last(&moved));
    (moved, duration_ns.saturating_sub(shorter_by))
}

/// From scheduled to dispatched, and from dispatched (for the last time) to written.
fn delays(timeline: &Timeline) -> (Ns, Ns) {
    let late = timeline.dispatched_ns.saturating_sub(timeline.scheduled_ns);
    // A server may answer before it has read everything; then only the time before its answer was the client's.
    let answered = timeline.reads.at_ns.first().copied().unwrap_or(Ns::MAX);
    let dispatched = timeline.last_dispatched_ns();
    let written = timeline.written_ns.unwrap_or(dispatched).min(answered);
    (late, written.saturating_sub(dispatched))
}

fn sent_earlier(timeline: &Timeline, sending: Ns, earlier: Ns) -> Timeline {
    let mut timeline = timeline.clone();
    timeline.dispatched_ns += sending;
    let move_it = |at: &mut Ns| *at = at.saturating_sub(earlier);
    move_it(&mut timeline.dispatched_ns);
    move_it(&mut timeline.end_ns);
    timeline.reads.at_ns.iter_mut().for_each(move_it);
    [&mut timeline.connected_ns, &mut timeline.written_ns, &mut timeline.head_ns]
        .into_iter()
        .flatten()
        .for_each(move_it);
    timeline.scheduled_ns = timeline.dispatched_ns;
    timeline
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::Reads;

    fn timeline(index: u64, slot: u32, stamps: [Ns; 5]) -> Timeline {
        let [scheduled_ns, dispatched_ns, written, read, end_ns] = stamps;
        Timeline {
            index,
            slot,
            scheduled_ns,
            dispatched_ns,
            written_ns: Some(written),
            reads: Reads { at_ns: vec![read], bytes: vec![1], ..Reads::default() },
            end_ns,
            ..Timeline::default()
        }
    }

    #[test]
    fn a_slot_moves_up_by_what_its_requests_waited() {
        let run = [
            timeline(0, 0, [0, 1, 3, 10, 12]),
            timeline(1, 0, [12, 14, 15, 20, 24]),
            timeline(2, 1, [0, 0, 0, 30, 31]),
        ];
        let stamps = |timelines: &[Timeline]| -> Vec<[Ns; 3]> {
            timelines
                .iter()
                .map(|timeline| [timeline.dispatched_ns, timeline.reads.at_ns[0], timeline.end_ns])
                .collect()
        };
        let (closed, duration) = undelayed(&run, 40, true);
        assert_eq!(stamps(&closed), [[0, 7, 9], [9, 14, 18], [0, 30, 31]]);
        assert_eq!(duration, 40, "the last request had no delay");
        let (open, _) = undelayed(&run, 40, false);
        assert_eq!(stamps(&open), [[0, 7, 9], [12, 17, 21], [0, 30, 31]]);
        assert_eq!(undelayed(&run[..2], 25, true).1, 19);
    }
}
