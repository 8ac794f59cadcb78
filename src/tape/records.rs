//! The lines of one unpacked frame after another, with the requests held to their order.

use memchr::memchr;

use super::error::ErrorKind;
use super::line::{self, Line};

/// Walks the lines of a frame.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// The frame's number.
    pub(super) frame: usize,
    /// The frame's bytes; whoever fills them calls [`Records::rewind`].
    pub(super) bytes: Vec<u8>,
    /// The index that the next request must have.
    pub(super) due: u64,
    /// Whether responses are parsed, rather than passed over.
    pub(super) with_responses: bool,
    at: usize,
}

impl Records {
    /// No lines yet; the request that is due first, and whether responses are parsed.
    pub(super) fn from(due: u64, with_responses: bool) -> Self {
        Self { due, with_responses, ..Self::default() }
    }

    /// Starts again at the frame's first line.
    pub(super) fn rewind(&mut self) {
        self.at = 0;
    }

    /// The next line of the frame.
    pub(super) fn next(&mut self) -> Option<Result<Line, ErrorKind>> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return None;
        }
        let Some(length) = memchr(b'\n', rest) else {
            return Some(Err(self.malformed("the frame ends within a line".to_owned())));
        };
        self.at += length + 1;
        let line = match line::parse(&rest[..length], self.with_responses) {
            Ok(line) => line,
            Err(reason) => return Some(Err(self.malformed(reason))),
        };
        match &line {
            Line::Request(request) if request.index == self.due => self.due += 1,
            Line::Request(request) => {
                return Some(Err(ErrorKind::Order {
                    due: self.due,
                    found: request.index,
                    frame: self.frame,
                }));
            }
            Line::Response(response) if response.index >= self.due => {
                let reason = format!("a response to request {}, which has not come", response.index);
                return Some(Err(self.malformed(reason)));
            }
            Line::Footer(_) | Line::Passed | Line::Response(_) => {}
        }
        Some(Ok(line))
    }

    pub(super) fn malformed(&self, reason: String) -> ErrorKind {
        ErrorKind::Record { due: self.due, frame: self.frame, reason }
    }
}
