//! One place in a replay: what carries one request at a time, on a connection that it holds.

use std::time::Duration;

use tokentape_pacer::monotonic_ns;
use tokio::sync::watch;

use super::Target;
use super::alarm::Alarm;
use super::connection::{Connection, Connector};
use super::exchange::{Ending, Exchange};
use super::plan::Prepared;

/// How long a slot waits for the end of a request, from its dispatch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// How long. tokio's timer keeps it, to a millisecond or two; when it really ended is on record.
    pub(super) limit: Duration,
    /// Whether to break off then is what was asked for; else it is a failure.
    pub(super) is_purpose: bool,
}

impl Patience {
    /// A time limit.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { limit: timeout, is_purpose: false }
    }

    /// The same, or to break off on purpose if that comes first.
    pub(super) fn or_on_purpose(self, limit: Duration) -> Self {
        if limit < self.limit { Self { limit, is_purpose: true } } else { self }
    }

    fn ending(self) -> Ending {
        if self.is_purpose {
            return Ending::CancelledOnPurpose;
        }
        Ending::Timeout { limit_ms: u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX) }
    }
}

/// One place in a replay.
#[derive(Debug)]
pub(super) struct Slot {
    /// Its number, from 0.
    pub(super) number: u32,
    /// The connection it holds; none before the first request of a new slot, and after a failure.
    pub(super) connection: Option<Box<Connection>>,
}

impl Slot {
    /// Carries one request, from its dispatch to its end.
    pub(super) async fn carry(
        mut self,
        mut exchange: Exchange,
        request: &Prepared,
        server: (&Connector, &Target),
        patience: Patience,
        interrupt: watch::Receiver<bool>,
    ) -> (Self, Exchange) {
        let alarm = Alarm::new(async move {
            match tokio::time::timeout(patience.limit, interrupted(interrupt)).await {
                Ok(()) => Ending::Cancelled,
                Err(_) => patience.ending(),
            }
        });
        exchange.ending = tokio::select! {
            biased;
            ending = self.send(request, server, &mut exchange) => ending,
            ending = alarm => ending,
        };
        self.close(&mut exchange);
        (self, exchange)
    }

    async fn send(
        &mut self,
        request: &Prepared,
        (connector, target): (&Connector, &Target),
        exchange: &mut Exchange,
    ) -> Ending {
        let held = match self.connection.take() {
            Some(mut held) => held.is_ready().await.then_some(held),
            None => None,
        };
        let connection = match held {
            Some(held) => held,
            // Rarely needed, and large: not a part of every slot's future.
            None => match Box::pin(connector.open()).await {
                Ok(new) => {
                    exchange.connected = Some(monotonic_ns());
                    Box::new(new)
                }
                Err(reason) => return Ending::Connect(reason),
            },
        };
        self.connection.insert(connection).send(request, target, exchange).await
    }

    /// Takes the exchange's stamps, and drops a connection that is in the middle of a response.
    fn close(&mut self, exchange: &mut Exchange) {
        if let Some(connection) = &mut self.connection {
            exchange.stamps = connection.finish();
        }
        let complete = matches!(exchange.ending, Ending::Complete);
        // A complete response ended with its last read, whenever this task came to see it.
        exchange.ended = match exchange.stamps.reads_at.last() {
            Some(last) if complete => *last,
            _ => monotonic_ns(),
        };
        if !complete {
            self.connection = None;
        }
    }
}

/// Ends when the run is interrupted.
pub(super) async fn interrupted(mut interrupt: watch::Receiver<bool>) {
    if interrupt.wait_for(|stop| *stop).await.is_err() {
        // Nobody can interrupt any more.
        std::future::pending::<()>().await;
    }
}
