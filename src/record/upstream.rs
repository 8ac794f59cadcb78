//! A connection to the server that is recorded.
//!
//! Each of a client's connections has one of its own to the server, opened for its first request and kept as long as
//! both sides keep theirs: the server sees as many connections, as often reused, as it would see without a recorder.

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::bodies::Upload;
use crate::replay::connection::Connector;
use crate::replay::drive::Driver;
use crate::replay::transport::{SharedStamps, Stamps};

/// A connection to the server, driven by whoever waits for its answer.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) driver: Driver<Upload>,
    sender: http1::SendRequest<Upload>,
    stamps: SharedStamps,
}

/// Why a request got no answer.
#[derive(Debug)]
pub(super) enum Refused {
    /// Not a byte of it was sent: it can be sent again.
    Unsent(Box<http::Request<Upload>>),
    /// The server closed the connection, or broke it off.
    Broken,
}

impl Upstream {
    /// Opens a connection; the reason if there is none to be had.
    pub(super) async fn open(connector: &Connector) -> Result<Self, String> {
        let (transport, stamps) = connector.transport().await?;
        let handshake =
            http1::Builder::new().preserve_header_case(true).handshake(TokioIo::new(transport)).await;
        let (sender, connection) = handshake.map_err(|error| error.to_string())?;
        Ok(Self { driver: Driver::new(connection), sender, stamps })
    }

    /// Whether it can take a request. A server may close a connection that was idle.
    pub(super) async fn is_ready(&mut self) -> bool {
        self.driver.drive(self.sender.ready()).await.is_some_and(|ready| ready.is_ok())
    }

    /// Sends a request, its body as it comes, until the answer's head is here.
    pub(super) async fn send(
        &mut self,
        request: http::Request<Upload>,
    ) -> Result<http::Response<hyper::body::Incoming>, Refused> {
        drop(self.stamps.replace(Stamps::default()));
        let response = self.sender.try_send_request(request);
        match self.driver.drive(response).await {
            Some(Ok(response)) => Ok(response),
            Some(Err(mut error)) => match error.take_message() {
                Some(request) => Err(Refused::Unsent(Box::new(request))),
                None => Err(Refused::Broken),
            },
            None => Err(Refused::Broken),
        }
    }

    /// When the kernel had the bytes of the last read, on the monotonic clock. The frame in hand came with it.
    pub(super) fn last_read_ns(&self) -> u64 {
        self.stamps.borrow().reads_at.last().copied().unwrap_or(0)
    }
}
