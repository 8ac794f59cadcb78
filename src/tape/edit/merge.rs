//! Several tapes as one.

use crate::tape::format::{Request, Session};

/// How tapes are put together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// One after the other, each from the last arrival before it on; else by their arrival times.
    pub append: bool,
    /// Sessions of one name are one session; else those of the second tape become `NAME#2`, and so on.
    pub same_sessions: bool,
}

/// The requests of several tapes as one stream, with the indices that they had. Each tape's own order is kept; of
/// requests that arrive at one time, the earlier tape's come first.
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
    requests: I,
    head: Option<Result<Request, E>>,
    /// From 1.
    number: usize,
}

impl<I, E> Merge<I, E>
where
    I: Iterator<Item = Result<Request, E>>,
{
    /// Merges `tapes`, the first one first.
    pub fn new(tapes: impl IntoIterator<Item = I>, options: Options) -> Self {
        let sources = tapes.into_iter().zip(1..).map(|(mut requests, number)| {
            let head = requests.next();
            Source { requests, head, number }
        });
        Self { sources: sources.collect(), options, latest_ns: 0, begin_ns: 0 }
    }

    /// The place of the tape whose request is next; an error, as soon as there is one.
    fn next_place(&self) -> Option<usize> {
        let heads = self.sources.iter().enumerate();
        let due = |source: &Source<I, E>| match &source.head {
            Some(Ok(request)) if !self.options.append => Some(request.offset_ns),
            Some(_) => Some(0),
            None => None,
        };
        heads.filter_map(|(place, source)| Some((due(source)?, place))).min().map(|(_, place)| place)
    }
}

impl<I, E> Iterator for Merge<I, E>
where
    I: Iterator<Item = Result<Request, E>>,
{
    type Item = Result<Request, E>;

    fn next(&mut self) -> Option<Self::Item> {
        let place = self.next_place()?;
        let source = &mut self.sources[place];
        let mut next = std::mem::replace(&mut source.head, source.requests.next())?;
        if let Ok(request) = &mut next {
            if self.options.append {
                request.offset_ns = request.offset_ns.saturating_add(self.begin_ns);
            }
            self.latest_ns = self.latest_ns.max(request.offset_ns);
            if source.number > 1 && !self.options.same_sessions {
                set_apart(&mut request.session, source.number);
            }
        }
        if source.head.is_none() {
            self.begin_ns = self.latest_ns;
        }
        Some(next)
    }
}

/// Gives a session a name of its own: `NAME#2` for the second tape, or the second time.
pub(super) fn set_apart(session: &mut Option<Session>, number: impl std::fmt::Display) {
    if let Some(session) = session {
        session.id.push_str(&format!("#{number}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::edit::tests::request;

    fn merged(tapes: &[&[u64]], options: Options) -> Vec<(u64, u64, String)> {
        let tapes = tapes.iter().map(|offsets| {
            let talk = |(index, &offset)| Request {
                session: Some(Session { id: "s".to_owned(), turn: 0 }),
                ..request(index, offset)
            };
            (0..).zip(*offsets).map(talk).map(Ok::<_, ()>)
        });
        let requests = Merge::new(tapes, options).map(Result::unwrap);
        requests.map(|r| (r.index, r.offset_ns, r.session.unwrap().id)).collect()
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
    fn an_error_is_passed_on() {
        let tapes = [vec![Ok(request(0, 5)), Err("bad")], vec![Ok(request(0, 9))]];
        let merge = Merge::new(tapes.map(Vec::into_iter), Options::default());
        let ends: Vec<_> = merge.map(|item| item.map(|request| request.offset_ns)).collect();
        assert_eq!(ends, [Ok(5), Err("bad"), Ok(9)]);
    }
}
