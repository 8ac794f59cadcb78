//! The archive: a header, requests with their exact bytes in order, a footer with their digest.
//!
//! On disk a tape is JSON lines in Zstandard frames with a seek table behind them (`docs/tape-format.md`):
//! [`format`](mod@format) has the records as plain data, `line` their JSON, `frame` the compressed frames and the
//! seek table. [`Writer`] and [`Reader`] stream, and neither's memory grows with the tape.

mod contents;
pub mod digest;
pub mod edit;
mod error;
pub mod format;
mod frame;
mod line;
mod reader;
mod records;
mod response;
mod reuse;
mod salvage;
mod verify;
mod writer;

pub use contents::{Arrivals, Bucket, Contents, Figures, Sessions, Spread};
pub use error::{Error, ErrorKind, Holds, WriteError};
pub use format::{
    Chunk, Entry, Footer, Header, Outcome, Request, Response, ResponseHead, Session, TokenizerId, VERSION,
    Version,
};
pub use frame::MAX_FRAME_BYTES;
pub use reader::{Entries, Reader, Requests};
pub use reuse::{Reuse, ReuseFigures};
pub use salvage::Salvage;
pub use verify::{Progress, verify};
pub use writer::{Layout, Writer};
