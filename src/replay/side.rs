//! Requests beside the measured ones: a readiness check, a scrape of the server's metrics. One at a time, each on a
//! connection of its own, and nothing of them in the figures.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use tokentape_pacer::monotonic_ns;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::connection::Connector;
use super::exchange::Exchange;
use super::plan::Prepared;
use super::slot::{Patience, Slot};
use super::{Error, Target};
use crate::timeline::Outcome;

/// What a server answered to a side request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status; none if no response came.
    pub status: Option<u16>,
    /// The body, whatever it is.
    pub body: Vec<u8>,
    /// How it went, as for a measured request: a success is a whole stream of events with at least one token.
    pub outcome: Outcome,
}

impl Answer {
    /// Whether the response was a whole one with status 200, of any content.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.status == Some(200)
            && !matches!(self.outcome, Outcome::Timeout { .. } | Outcome::Truncated { .. })
    }

    /// The failure in one line, for a message.
    #[must_use]
    pub fn failure(&self) -> String {
        let status = self.status.filter(|status| *status != 200);
        let status = status.map_or(String::new(), |status| format!("HTTP {status}: "));
        let words: String = self.outcome.detail().unwrap_or_default().chars().take(300).collect();
        format!("{}: {status}{words}", self.outcome.kind())
    }
}

/// What sends side requests to one server.
pub struct Sender<'a> {
    target: &'a Target,
    connector: Connector,
    runtime: Runtime,
}

impl std::fmt::Debug for Sender<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("target", &self.target).finish_non_exhaustive()
    }
}

impl<'a> Sender<'a> {
    /// Gets ready: TLS, where the target asks for it, is set up once.
    pub fn new(target: &'a Target) -> Result<Self, Error> {
        let connector = Connector::new(target)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        Ok(Self { target, connector, runtime })
    }

    /// Sends one request and waits for the whole answer, or until `interrupt` turns true. Blocks the calling thread.
    #[must_use]
    pub fn send(&self, request: &Prepared, timeout: Duration, interrupt: &watch::Receiver<bool>) -> Answer {
        let now = monotonic_ns();
        let exchange = Exchange::new(request, 0, now, now);
        let slot = Slot { number: 0, connection: None };
        let server = (&self.connector, self.target);
        let carry = slot.carry(exchange, request, server, Patience::new(timeout), interrupt.clone());
        let (_, exchange) = self.runtime.block_on(carry);
        let (status, body) = (exchange.head.as_ref().map(|head| head.status), exchange.body.bytes.clone());
        Answer { status, body, outcome: exchange.timeline(now).outcome }
    }
}

/// Sends one request; see [`Sender::send`].
pub fn send(
    target: &Target,
    request: &Prepared,
    timeout: Duration,
    interrupt: &watch::Receiver<bool>,
) -> Result<Answer, Error> {
    Ok(Sender::new(target)?.send(request, timeout, interrupt))
}

/// A request with a path, headers and a body of its own; a GET where the body is empty, else a POST.
#[must_use]
pub fn request(path: Uri, headers: HeaderMap, body: Bytes) -> Prepared {
    Prepared {
        index: 0,
        offset_ns: 0,
        method: if body.is_empty() { Method::GET } else { Method::POST },
        path,
        body,
        headers: Some(headers),
        input_tokens: None,
        output_tokens: None,
        session: None,
    }
}
