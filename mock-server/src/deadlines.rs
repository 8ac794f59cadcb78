//! Where an answer's deadlines come from: known before it begins, or told by the engine's driver step by step.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::timing::Ticket;

/// When each of an answer's events is due.
#[derive(Debug)]
pub(crate) enum Deadlines {
    /// Known from the beginning, one for each event.
    Known {
        /// Those to come.
        due_ns: std::vec::IntoIter<u64>,
        /// Counts the answer as under way.
        #[expect(dead_code, reason = "what it does, it does when it is dropped")]
        ticket: Ticket,
    },
    /// Each event is due with a token, and the engine tells when tokens are.
    Fed {
        /// The place of each event's token among the answer's.
        tokens: std::vec::IntoIter<u32>,
        /// Where the engine's word arrives.
        feed: Feed,
    },
}

impl Deadlines {
    /// None: of an answer that brings its own. It counts as under way.
    pub(crate) fn none(ticket: Ticket) -> Self {
        Self::Known { due_ns: Vec::new().into_iter(), ticket }
    }

    /// The next event's deadline; `None` after the last event's. Pending until the engine has scheduled its token.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        match self {
            Self::Known { due_ns, .. } => Poll::Ready(due_ns.next()),
            Self::Fed { tokens, feed } => {
                let Some(&token) = tokens.as_slice().first() else { return Poll::Ready(None) };
                feed.poll_token(token, cx).map(|due_ns| {
                    tokens.next();
                    Some(due_ns)
                })
            }
        }
    }

    /// Whether deadlines become known only while the answer is under way, so that its record cannot have them yet.
    pub(crate) const fn is_fed(&self) -> bool {
        matches!(self, Self::Fed { .. })
    }
}

/// What decides when an answer's tokens are due.
#[derive(Debug)]
pub(crate) enum Pace {
    /// The engine, as it comes to them.
    Engine(Feed),
    /// A model that has decided: one moment for each token. The ticket counts the answer as under way.
    Model(Vec<u64>, Ticket),
}

impl Pace {
    /// The deadlines of events that each go out with a token, and the list of them as far as it is known. A token that
    /// there is none of counts as the last.
    pub(crate) fn deadlines(self, tokens: Vec<u32>) -> (Deadlines, Vec<u64>) {
        self.deadlines_after(0, 0, tokens)
    }

    /// As [`Pace::deadlines`], but the first `opening` events are due at `at_ns`, where a model decides: an engine has
    /// no word on them, and they go out with its first token.
    pub(crate) fn deadlines_after(
        self,
        opening: usize,
        at_ns: u64,
        tokens: Vec<u32>,
    ) -> (Deadlines, Vec<u64>) {
        match self {
            Self::Engine(feed) => (Deadlines::Fed { tokens: tokens.into_iter(), feed }, Vec::new()),
            Self::Model(token_due_ns, ticket) => {
                let due = |token: u32| token_due_ns.get(token as usize).or(token_due_ns.last()).copied();
                let mut due_ns: Vec<u64> =
                    tokens.into_iter().map(|token| due(token).unwrap_or_default()).collect();
                due_ns.iter_mut().take(opening).for_each(|due_ns| *due_ns = at_ns);
                (Deadlines::Known { due_ns: due_ns.clone().into_iter(), ticket }, due_ns)
            }
        }
    }
}

/// The deadlines of one answer's tokens, written by the driver's thread and read by a worker's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Feed(Arc<Mutex<Scheduled>>);

#[derive(Debug, Default)]
struct Scheduled {
    due_ns: Vec<u64>,
    waiting: Option<Waker>,
}

impl Feed {
    /// The next `tokens` tokens are due at one moment.
    pub(crate) fn push(&self, tokens: u32, due_ns: u64) {
        let waiting = {
            let mut scheduled = self.lock();
            let length = scheduled.due_ns.len() + tokens as usize;
            scheduled.due_ns.resize(length, due_ns);
            scheduled.waiting.take()
        };
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    /// When a token is due, as soon as that is known.
    pub(crate) fn poll_token(&self, token: u32, cx: &mut Context<'_>) -> Poll<u64> {
        let mut scheduled = self.lock();
        if let Some(&due_ns) = scheduled.due_ns.get(token as usize) {
            return Poll::Ready(due_ns);
        }
        scheduled.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether the other side is gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Nothing under the lock can panic half-way, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, Scheduled> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::UnderWay;

    fn polled(deadlines: &mut Deadlines) -> Poll<Option<u64>> {
        deadlines.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn known_deadlines_come_in_order() {
        let (_, ticket) = UnderWay::default().enter();
        let (mut deadlines, due_ns) = Pace::Model(vec![3, 5], ticket).deadlines(vec![0, 1, 1]);
        assert_eq!(due_ns, [3, 5, 5]);
        for due_ns in due_ns {
            assert_eq!(polled(&mut deadlines), Poll::Ready(Some(due_ns)));
        }
        assert_eq!(polled(&mut deadlines), Poll::Ready(None));
    }

    /// A role with the first token, two tokens of one step, and the end with the last.
    #[test]
    fn fed_deadlines_wait_for_their_tokens() {
        let feed = Feed::default();
        let mut deadlines = Deadlines::Fed { tokens: vec![0, 0, 1, 2, 2].into_iter(), feed: feed.clone() };
        assert_eq!(polled(&mut deadlines), Poll::Pending);
        feed.push(1, 10);
        assert_eq!([polled(&mut deadlines), polled(&mut deadlines)], [Poll::Ready(Some(10)); 2]);
        assert_eq!(polled(&mut deadlines), Poll::Pending);
        feed.push(2, 20);
        for _ in 0..3 {
            assert_eq!(polled(&mut deadlines), Poll::Ready(Some(20)));
        }
        assert_eq!(polled(&mut deadlines), Poll::Ready(None));
        assert!(!feed.is_abandoned());
        drop(deadlines);
        assert!(feed.is_abandoned());
    }
}
