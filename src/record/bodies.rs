//! The two bodies of an exchange on their way through: the request's to the server, the answer's to the client. Each
//! is passed on piece by piece, as fast as the other side takes it, and copied for the tape.

use std::error::Error;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;

use super::client::Client;
use super::exchange::Exchange;
use super::upstream::Upstream;
use crate::tape::Outcome;

/// Why a body broke off.
pub(super) type Broken = Box<dyn Error + Send + Sync>;

/// A request's body.
#[derive(Debug)]
pub(super) struct Upload {
    body: Incoming,
    exchange: Option<Rc<Exchange>>,
}

impl Upload {
    pub(super) fn new(body: Incoming, exchange: Option<Rc<Exchange>>) -> Self {
        let upload = Self { body, exchange };
        upload.note_end();
        upload
    }

    /// Of a body whose length is known, nobody may ask for more after its last byte.
    fn note_end(&self) {
        if let Some(exchange) = self.exchange.as_ref().filter(|_| self.body.is_end_stream()) {
            exchange.asked();
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(exchange) = &self.exchange {
            match &frame {
                Some(Ok(frame)) => exchange.ask(frame.data_ref().map_or(&[], |data| data)),
                // The server's connection breaks with it; it was the client that went.
                Some(Err(_)) => drop(exchange.end(Outcome::ClientGone)),
                None => exchange.asked(),
            }
            self.note_end();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body. Its last piece is held back until the tape has the answer: a client that has seen the end of an
/// answer can count on it. Dropped before its end, it takes the server's connection with it, so that the server knows
/// that the client has gone.
#[derive(Debug)]
pub(super) struct Relay {
    body: Incoming,
    upstream: Option<Upstream>,
    exchange: Option<Rc<Exchange>>,
    client: Rc<Client>,
    state: State,
}

#[derive(Debug)]
enum State {
    Flowing,
    /// The last piece, and what it waits for.
    Ending(Option<Frame<Bytes>>, Option<oneshot::Receiver<()>>),
    /// The server has gone. hyper drops what it holds when a body breaks off; so it is given a turn to send that first.
    Breaking(Option<Broken>),
    Ended,
}

impl Relay {
    /// An answer whose head has come.
    pub(super) fn new(
        body: Incoming,
        upstream: Upstream,
        exchange: Option<Rc<Exchange>>,
        client: Rc<Client>,
    ) -> Self {
        Self { body, upstream: Some(upstream), exchange, client, state: State::Flowing }
    }

    /// An answer that has no body ends with its head: nobody will ask for a piece.
    pub(super) async fn end_if_empty(&mut self) {
        if self.body.is_end_stream() {
            if let Some(written) = self.note_end(Outcome::Complete) {
                written.await.unwrap_or_default();
            }
            self.complete();
        }
    }

    fn note_end(&self, outcome: Outcome) -> Option<oneshot::Receiver<()>> {
        self.exchange.as_ref()?.end(outcome)
    }

    /// The server's connection waits for the client's next request.
    fn complete(&mut self) {
        self.state = State::Ended;
        self.client.end_exchange(self.upstream.take());
    }

    fn poll_flowing(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Broken>> {
        let upstream = self.upstream.as_mut().ok_or("the answer has ended")?;
        match ready!(upstream.driver.poll(cx, pin!(self.body.frame()))) {
            Some(Some(Ok(frame))) => {
                if let (Some(exchange), Some(data)) = (&self.exchange, frame.data_ref()) {
                    exchange.answer(data, upstream.last_read_ns());
                }
                Poll::Ready(Ok(Some(frame)))
            }
            Some(None) => Poll::Ready(Ok(None)),
            Some(Some(Err(error))) => Poll::Ready(Err(error.into())),
            None => Poll::Ready(Err("the server closed the connection".into())),
        }
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            match &mut self.state {
                State::Flowing => match ready!(self.poll_flowing(cx)) {
                    Ok(Some(frame)) if frame.is_data() && !self.body.is_end_stream() => {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    Ok(last) => self.state = State::Ending(last, self.note_end(Outcome::Complete)),
                    Err(error) => {
                        drop(self.note_end(Outcome::ServerGone));
                        self.state = State::Breaking(Some(error));
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                },
                State::Ending(last, written) => {
                    if let Some(written) = written {
                        // An archive that has failed ends the recorder; the answer goes on.
                        ready!(Pin::new(written).poll(cx)).unwrap_or_default();
                    }
                    let last = last.take();
                    self.complete();
                    return Poll::Ready(last.map(Ok));
                }
                State::Breaking(error) => {
                    let error = error.take();
                    self.state = State::Ended;
                    return Poll::Ready(error.map(Err));
                }
                State::Ended => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
