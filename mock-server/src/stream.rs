//! The body of a streamed answer: hyper gets one event at its deadline, and the next one only when that is written.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokentape_pacer::{Pacer, Sleep};

use crate::deadlines::Deadlines;
use crate::transport::{Connection, Part};
use crate::wire::Frames;

/// One answer on its way. hyper writes together whatever is ready together; so that each event, and the head before
/// them, is a write of its own, this is never ready twice without a flush in between. The end of the body is not told
/// with the last event either: the chunk that ends it is a write of its own, as uvicorn makes it.
#[derive(Debug)]
pub(crate) struct Stream {
    frames: Frames,
    deadlines: Deadlines,
    pacer: Pacer,
    connection: Rc<Connection>,
    /// Whether the head has been accounted for.
    started: bool,
    wait: Wait,
}

/// What the next event waits for.
#[derive(Debug)]
enum Wait {
    /// To be told its deadline.
    Told,
    /// Its deadline.
    Due(Sleep),
    /// Nothing: it is due, or there is none left.
    Over,
}

impl Stream {
    /// Sends `frames`, each when it is due.
    pub(crate) fn new(
        frames: Frames,
        deadlines: Deadlines,
        pacer: Pacer,
        connection: Rc<Connection>,
    ) -> Self {
        Self { frames, deadlines, pacer, connection, started: false, wait: Wait::Told }
    }

    /// Ready when the next event is due, or there is none left.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.wait = match &mut self.wait {
                Wait::Told => match ready!(self.deadlines.poll_next(cx)) {
                    Some(due_ns) => {
                        if self.deadlines.is_fed() {
                            self.connection.due(due_ns);
                        }
                        Wait::Due(self.pacer.sleep_until(due_ns))
                    }
                    None => Wait::Over,
                },
                Wait::Due(sleep) => {
                    ready!(Pin::new(sleep).poll(cx));
                    Wait::Over
                }
                Wait::Over => return Poll::Ready(()),
            };
        }
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if !this.started {
            // hyper asks for the body in the poll in which it buffered the head, before it flushes.
            this.started = true;
            this.connection.hand_over(Part::Head);
        }
        // The deadline first: while it is ahead there is no need to be woken for the write before it.
        ready!(this.poll_due(cx));
        ready!(this.connection.poll_written(cx));
        let Some(event) = this.frames.next() else {
            return Poll::Ready(None);
        };
        this.connection.hand_over(Part::Event);
        this.wait = Wait::Told;
        Poll::Ready(Some(Ok(Frame::data(event))))
    }
}
