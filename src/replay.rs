//! Sends a tape to a server and keeps what happened to each request.
//!
//! ```text
//! plan ──► engine ──► exchange ──► timeline
//!          (threads)  (raw bytes)  (parsed)
//! ```
//!
//! [`plan`] prepares every body before the clock starts. [`engine`] runs one single-threaded runtime a worker, its
//! connections pinned to it; each slot holds one [`connection`] and polls it in the task that reads the body. The
//! [`transport`] under hyper stamps each socket read before anything looks at the bytes. Of each [`exchange`], full parts
//! of the body, and at its end the rest, go to the collecting thread, which parses events ([`reading`], [`sse`],
//! [`event`]) and makes [`crate::timeline::Timeline`]s.
//!
//! [`behaviour`] is what the client does besides: it breaks requests off ([`cancel`]), sends them again ([`retry`]), and
//! goes on with a conversation from what the server really said.
//!
//! [`side`] makes requests beside the measured ones: readiness checks, and the scrapes of a [`scraper`], which reads the
//! server's own metrics while the run goes on.

mod alarm;
pub mod behaviour;
mod busy;
pub mod cancel;
mod collector;
pub mod connection;
pub(crate) mod drive;
pub mod engine;
pub mod event;
pub mod exchange;
mod history;
pub mod plan;
mod queue;
pub mod reading;
pub mod retry;
pub mod scraper;
pub mod side;
mod slot;
pub mod sse;
pub mod target;
pub mod transport;
mod turnstile;

pub use behaviour::{Behaviour, History};
pub use engine::{Options, Report, run};
pub use plan::Plan;
pub use target::Target;

/// Why a replay could not start. What goes wrong with a request once the clock runs is an outcome of that request,
/// not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tape could not be read.
    #[error(transparent)]
    Tape(#[from] crate::tape::Error),
    /// The URL is not one that can be replayed to.
    #[error("cannot replay to '{url}': {reason}")]
    Url {
        /// The URL as given.
        url: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// A header is not `Name: value`.
    #[error("the header '{name}' is malformed; give it as 'Name: value'")]
    Header {
        /// The header's name; never its value, which may be a secret.
        name: String,
    },
    /// The server takes no connection.
    #[error("cannot connect to {url}: {reason}; is the server running, and is the URL right?")]
    Unreachable {
        /// The server.
        url: String,
        /// The system's reason.
        reason: String,
    },
    /// TLS could not be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// A body cannot take another model name.
    #[error("request {index}: cannot set the model: the body {reason}")]
    Model {
        /// The request's index in the tape.
        index: u64,
        /// Why not.
        reason: String,
    },
    /// A turn of a conversation cannot take what the server said before it.
    #[error(
        "request {index}: cannot take the server's answers: the body {reason}; leave out --history answers to send it as it is"
    )]
    History {
        /// The request's index in the tape.
        index: u64,
        /// Why not.
        reason: String,
    },
    /// There is nothing to send.
    #[error("nothing to send: the tape holds no request")]
    Empty,
    /// No request of the tape arrives in the window asked for.
    #[error(
        "nothing to send: no request of the tape arrives in this window; see tokentape inspect for its times"
    )]
    EmptyWindow,
    /// The operating system refused a thread, a runtime or a timer.
    #[error("cannot start the replay engine: {0}")]
    System(#[from] std::io::Error),
}
