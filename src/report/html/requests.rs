//! The requests of a run as rows of a picture, thinned out: the slowest and the failed ones stay.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::timeline::{Ns, Outcome, Timeline};

/// Rows at most.
const ROWS: usize = 10_000;
/// Tokens at most, of all rows whose tokens are kept.
const TOKENS: usize = 40_000;
/// How many of the slowest requests are kept, with their tokens, by each measure of slowness.
const SLOWEST: usize = 20;

/// Requests in the order of their sends, as columns of one length. Times are in microseconds.
#[derive(Debug, Default, Serialize)]
pub(super) struct Rows {
    /// Requests of the run that were sent.
    total: usize,
    /// The request's index in the tape.
    index: Vec<u64>,
    /// From the send of the row before, or the run's start, to this one's.
    sent_us: Vec<u64>,
    /// From schedule to send.
    late_us: Vec<u64>,
    /// From the send to the first output event; none without one.
    first_us: Vec<Option<u64>>,
    /// From the send to the end.
    end_us: Vec<u64>,
    /// The largest gap between two output events; none with fewer.
    gap_us: Vec<Option<u64>>,
    /// How many output events.
    tokens: Vec<u32>,
    /// How it ended: a place in `outcomes`.
    outcome: Vec<usize>,
    /// The kinds of ends.
    outcomes: Vec<&'static str>,
    /// Of some rows, each output event: from the one before it, or from the send.
    events_us: BTreeMap<usize, Vec<u64>>,
}

/// What is asked of a request, in microseconds.
struct Row<'t> {
    timeline: &'t Timeline,
    first_us: Option<u64>,
    gap_us: Option<u64>,
    tokens: usize,
}

impl<'t> Row<'t> {
    fn of(timeline: &'t Timeline) -> Self {
        let (mut first, mut last, mut gap, mut tokens) = (None, None, None, 0);
        for at in outputs(timeline) {
            first = first.or(Some(us(at.saturating_sub(timeline.dispatched_ns))));
            gap = gap.max(last.map(|last| us(at.saturating_sub(last))));
            last = Some(at);
            tokens += 1;
        }
        Self { timeline, first_us: first, gap_us: gap, tokens }
    }

    fn end_us(&self) -> u64 {
        us(self.timeline.end_ns.saturating_sub(self.timeline.dispatched_ns))
    }

    /// Gaps of rounded moments, so that their sum is a rounded moment too.
    fn events_us(&self) -> Vec<u64> {
        let mut before = 0;
        let gap = |at: Ns| {
            let at = us(at.saturating_sub(self.timeline.dispatched_ns));
            let gap = at.saturating_sub(before);
            before += gap;
            gap
        };
        outputs(self.timeline).map(gap).collect()
    }
}

fn outputs(timeline: &Timeline) -> impl Iterator<Item = Ns> + '_ {
    timeline.stamped_events().filter(|(_, facts)| facts.is_output()).map(|(at, _)| at)
}

fn us(ns: Ns) -> u64 {
    (ns + 500) / 1000
}

impl Rows {
    /// Of a run's requests.
    pub(super) fn of(timelines: &[Timeline]) -> Self {
        let sent = timelines.iter().filter(|timeline| timeline.outcome != Outcome::NotSent);
        let mut all: Vec<Row<'_>> = sent.map(Row::of).collect();
        all.sort_by_key(|row| (row.timeline.dispatched_ns, row.timeline.index));
        let slowest = slowest(&all);
        let kept = kept(&all, &slowest);

        let mut rows = Self { total: all.len(), ..Self::default() };
        let mut before = 0;
        for row in kept.iter().map(|place| &all[*place]) {
            let timeline = row.timeline;
            let sent = us(timeline.dispatched_ns);
            rows.index.push(timeline.index);
            rows.sent_us.push(sent - before);
            before = sent;
            rows.late_us.push(us(timeline.dispatched_ns.saturating_sub(timeline.scheduled_ns)));
            rows.first_us.push(row.first_us);
            rows.end_us.push(row.end_us());
            rows.gap_us.push(row.gap_us);
            rows.tokens.push(u32::try_from(row.tokens).unwrap_or(u32::MAX));
            let kind = timeline.outcome.kind();
            let known = rows.outcomes.iter().position(|outcome| *outcome == kind);
            rows.outcome.push(known.unwrap_or_else(|| {
                rows.outcomes.push(kind);
                rows.outcomes.len() - 1
            }));
        }
        // The slowest first, then ever more of the others, evenly spread.
        let by_turns = slowest.into_iter().filter_map(|place| kept.binary_search(&place).ok());
        let mut left = TOKENS;
        for at in by_turns.chain(spread(kept.len())) {
            let row = &all[kept[at]];
            if row.tokens > 0 && row.tokens <= left && !rows.events_us.contains_key(&at) {
                left -= row.tokens;
                rows.events_us.insert(at, row.events_us());
            }
        }
        rows
    }
}

/// The places of the slowest requests: by TTFT, by E2EL and by the largest gap in turns.
fn slowest(all: &[Row<'_>]) -> Vec<usize> {
    let by = |slowness: &dyn Fn(&Row<'_>) -> Option<u64>| {
        let mut places: Vec<usize> =
            (0..all.len()).filter(|place| slowness(&all[*place]).is_some()).collect();
        places.sort_by_key(|place| std::cmp::Reverse(slowness(&all[*place])));
        places.truncate(SLOWEST);
        places
    };
    let measures = [by(&|row| row.first_us), by(&|row| Some(row.end_us())), by(&|row| row.gap_us)];
    (0..SLOWEST)
        .flat_map(|turn| measures.iter().filter_map(move |places| places.get(turn).copied()))
        .collect()
}

/// The places that are kept, in order: all, or the slowest, failed ones, and evenly spread others.
fn kept(all: &[Row<'_>], slowest: &[usize]) -> Vec<usize> {
    if all.len() <= ROWS {
        return (0..all.len()).collect();
    }
    let failed: Vec<usize> =
        (0..all.len()).filter(|place| !all[*place].timeline.outcome.is_success()).collect();
    let some_failed = spread(failed.len()).take(ROWS / 4).map(|at| failed[at]);
    let mut kept: std::collections::BTreeSet<usize> = slowest.iter().copied().chain(some_failed).collect();
    for place in spread(all.len()) {
        if kept.len() == ROWS {
            break;
        }
        kept.insert(place);
    }
    kept.into_iter().collect()
}

/// The numbers below `count`, in an order of which any beginning is evenly spread: those of van der Corput's sequence.
fn spread(count: usize) -> impl Iterator<Item = usize> {
    let bits = count.next_power_of_two().trailing_zeros();
    let places = if count == 0 { 0 } else { 1_usize << bits };
    let reversed = move |i: usize| if bits == 0 { 0 } else { i.reverse_bits() >> (usize::BITS - bits) };
    (0..places).map(reversed).filter(move |place| *place < count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::{Events, Facts, Reads};

    /// A request sent then, with a token each 10 ms after the first one.
    fn request(index: u64, sent: Ns, first: Ns, tokens: u32) -> Timeline {
        let token = Facts::JSON.with(Facts::CHOICES).with(Facts::CONTENT);
        let at_ns: Vec<Ns> = (0..tokens).map(|i| sent + first + Ns::from(i) * 10_000_000).collect();
        Timeline {
            index,
            dispatched_ns: sent,
            end_ns: at_ns.last().copied().unwrap_or(sent) + 1000,
            reads: Reads { bytes: vec![1; at_ns.len()], at_ns, ..Reads::default() },
            events: Events {
                read: (0..tokens).collect(),
                facts: vec![token; tokens as usize],
                ..Events::default()
            },
            outcome: Outcome::Success,
            ..Timeline::default()
        }
    }

    #[test]
    fn a_spread_is_a_permutation() {
        for count in [0, 1, 2, 3, 7, 8, 9, 1000] {
            let mut places: Vec<usize> = spread(count).collect();
            if count == 8 {
                assert_eq!(places, [0, 4, 2, 6, 1, 5, 3, 7]);
            }
            places.sort_unstable();
            assert_eq!(places, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_row_says_what_happened() {
        let timelines =
            [request(1, 5_000_400, 20_000_000, 3), request(0, 1_000_000, 30_000_000, 1), Timeline::default()];
        let rows = Rows::of(&timelines);
        assert_eq!((rows.total, &rows.index[..]), (2, &[0, 1][..]));
        assert_eq!(rows.sent_us, [1000, 4000]);
        assert_eq!(rows.first_us, [Some(30_000), Some(20_000)]);
        assert_eq!(rows.gap_us, [None, Some(10_000)]);
        assert_eq!(rows.events_us[&1], [20_000, 10_000, 10_000]);
        assert_eq!(rows.outcomes, ["success"]);
    }

    #[test]
    fn of_many_the_slowest_and_the_failed_stay() {
        let mut timelines: Vec<Timeline> = (0..25_000).map(|i| request(i, i * 1000, 20_000_000, 6)).collect();
        timelines[12_345] = request(12_345, 12_345_000, 900_000_000, 6);
        timelines[777] = Timeline { outcome: Outcome::NoTokens, ..request(777, 777_000, 1, 0) };
        let rows = Rows::of(&timelines);
        assert_eq!((rows.total, rows.index.len()), (25_000, ROWS));
        let slow = rows.index.iter().position(|index| *index == 12_345).unwrap();
        assert_eq!(rows.events_us[&slow][0], 900_000);
        let failed = rows.index.iter().position(|index| *index == 777).unwrap();
        assert_eq!(rows.outcomes[rows.outcome[failed]], "no_tokens");
        let tokens: usize = rows.events_us.values().map(Vec::len).sum();
        assert!(tokens <= TOKENS && tokens > TOKENS - 6, "{tokens}");
        let sent: u64 = rows.sent_us.iter().sum();
        assert!(sent <= 25_000 && rows.sent_us.iter().all(|gap| *gap < 8), "evenly spread");
    }
}
