//! Several tapes as one.

use crate::tape::format::{Entry, Session};

/// How tapes are put together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// One after the other, each from the last arrival before it on; else by their arrival times.
    pub append: bool,
    /// Sessions of one name are one session; else those of the second tape become `NAME#2`, and so on.
    pub same_sessions: bool,
}

/// The records of several tapes as one stream: each with the number of its tape, from 0, and the index that it had there.
/// Each tape's own order is kept; of requests that arrive at one time, the earlier tape's come first.
#[derive(Debug)]
pub struct Merge<I, E> {
    sources: Vec<Source<I, E>>,
    options: Options,
    /// The latest arrival so far: where an appended tape begins.
    latest_ns: u64,
    /// Where the tape at hand was appended.
    begin_ns: u64,
}

#[derive(Debug)]
struct Source<I, E> {
    entries: I,
    head: Option<Result<Entry, E>>,
    number: u64,
}

impl<I, E> Merge<I, E>
where
    I: Iterator<Item = Result<Entry, E>>,
{
    /// Merges `tapes`, the first one first.
    pub fn new(tapes: impl IntoIterator<Item = I>, options: Options) -> Self {
        let sources = tapes.into_iter().zip(0..).map(|(mut entries, number)| {
            let head = entries.next();
            Source { entries, head, number }
        });
        Self { sources: sources.collect(), options, latest_ns: 0, begin_ns: 0 }
    }

    /// The place of the tape whose record is next. A response has waited for its request: it is next as soon as there is
    /// one; so is an error.
    fn next_place(&self) -> Option<usize> {
        let heads = self.sources.iter().enumerate();
        let due = |source: &Source<I, E>| match &source.head {
            Some(Ok(Entry::Request(request))) if !self.options.append => Some(request.offset_ns),
            Some(_) => Some(0),
            None => None,
        };
        heads.filter_map(|(place, source)| Some((due(source)?, place))).min().map(|(_, place)| place)
    }
}

impl<I, E> Iterator for Merge<I, E>
where
    I: Iterator<Item = Result<Entry, E>>,
{
    type Item = Result<(u64, Entry), E>;

    fn next(&mut self) -> Option<Self::Item> {
        let place = self.next_place()?;
        let source = &mut self.sources[place];
        let mut next = std::mem::replace(&mut source.head, source.entries.next())?;
        if let Ok(Entry::Request(request)) = &mut next {
            if self.options.append {
                request.offset_ns = request.offset_ns.saturating_add(self.begin_ns);
            }
            self.latest_ns = self.latest_ns.max(request.offset_ns);
            if source.number > 0 && !self.options.same_sessions {
                set_apart(&mut request.session, source.number + 1);
            }
        }
        let number = source.number;
        if source.head.is_none() {
            self.begin_ns = self.latest_ns;
        }
        Some(next.map(|entry| (number, entry)))
    }
}

/// Gives a session a name of its own: `NAME#2` for the second tape, or the second time.
pub(super) fn set_apart(session: &mut Option<Session>, number: u64) {
    if let Some(session) = session {
        session.id.push_str(&format!("#{number}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::edit::tests::{request, response};
    use crate::tape::format::Request;

    fn merged(tapes: &[&[u64]], options: Options) -> Vec<(u64, u64, String)> {
        let tapes = tapes.iter().map(|offsets| {
            let talk = |(index, &offset)| Request {
                session: Some(Session { id: "s".to_owned(), turn: 0 }),
                ..request(index, offset)
            };
            (0..).zip(*offsets).map(talk).map(|request| Ok::<_, ()>(Entry::Request(request)))
        });
        let entries = Merge::new(tapes, options).map(|item| item.unwrap().1);
        let shown = |entry| match entry {
            Entry::Request(request) => (request.index, request.offset_ns, request.session.unwrap().id),
            Entry::Response(_) => unreachable!("no tape here has one"),
        };
        entries.map(shown).collect()
    }

    fn shown(requests: &[(u64, u64, String)]) -> Vec<(u64, u64, &str)> {
        requests.iter().map(|(index, offset, id)| (*index, *offset, id.as_str())).collect()
    }

    #[test]
    fn arrivals_interleave_and_the_earlier_tape_comes_first() {
        let all = merged(&[&[0, 5, 9], &[], &[3, 5]], Options::default());
        let expected = [(0, 0, "s"), (0, 3, "s#3"), (1, 5, "s"), (1, 5, "s#3"), (2, 9, "s")];
        assert_eq!(shown(&all), expected);
    }

    /// A recorded tape's arrivals may step back by a little.
    #[test]
    fn each_tape_keeps_its_own_order() {
        let all = merged(&[&[5, 3, 8], &[4, 6]], Options { same_sessions: true, append: false });
        assert_eq!(shown(&all), [(0, 4, "s"), (0, 5, "s"), (1, 3, "s"), (1, 6, "s"), (2, 8, "s")]);
    }

    #[test]
    fn an_appended_tape_begins_where_the_ones_before_it_end() {
        let all = merged(&[&[0, 7], &[1, 2], &[], &[0]], Options { append: true, same_sessions: true });
        assert_eq!(shown(&all), [(0, 0, "s"), (1, 7, "s"), (0, 8, "s"), (1, 9, "s"), (0, 9, "s")]);
    }

    #[test]
    fn responses_keep_their_places_and_errors_are_passed_on() {
        let ask = |index, offset| Ok(Entry::Request(request(index, offset)));
        let answer = |index| Ok(Entry::Response(response(index)));
        let tapes =
            [vec![ask(0, 5), answer(0), Err("bad")], vec![ask(0, 5), ask(1, 9), answer(1), answer(0)]];
        let merge = Merge::new(tapes.map(Vec::into_iter), Options::default());
        let shown = |(tape, entry): (u64, Entry)| (tape, entry.index(), matches!(entry, Entry::Response(_)));
        let all: Vec<_> = merge.map(|item| item.map(shown)).collect();
        let expected = [
            Ok((0, 0, false)),
            Ok((0, 0, true)),
            Err("bad"),
            Ok((1, 0, false)),
            Ok((1, 1, false)),
            Ok((1, 1, true)),
            Ok((1, 0, true)),
        ];
        assert_eq!(all, expected);
    }
}
