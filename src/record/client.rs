//! A client's connection, and what lasts on it from one request to the next.

use std::cell::RefCell;

use tokentape_pacer::monotonic_ns;

use super::upstream::Upstream;
use crate::replay::transport::{SharedStamps, Stamps};

/// A client's connection.
#[derive(Debug)]
pub(super) struct Client {
    stamps: SharedStamps,
    upstream: RefCell<Option<Upstream>>,
}

impl Client {
    /// The connection whose reads are stamped there.
    pub(super) fn new(stamps: SharedStamps) -> Self {
        Self { stamps, upstream: RefCell::new(None) }
    }

    /// When the first bytes since the last answer came, on the monotonic clock.
    pub(super) fn arrival_ns(&self) -> u64 {
        self.stamps.borrow().reads_at.first().copied().unwrap_or_else(monotonic_ns)
    }

    /// The server's connection that served the request before.
    pub(super) fn take_upstream(&self) -> Option<Upstream> {
        self.upstream.take()
    }

    /// An answer has ended: what is read from now on belongs to the next request.
    pub(super) fn end_exchange(&self, upstream: Option<Upstream>) {
        drop(self.stamps.replace(Stamps::default()));
        drop(self.upstream.replace(upstream));
    }
}
