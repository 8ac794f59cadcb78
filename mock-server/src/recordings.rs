//! Whole responses told from outside: what a recorder saw, played as it came. A server without such a source, or with one
//! that leaves a request to it, makes answers of its own.

use std::fmt::Debug;

use bytes::Bytes;

/// A source of recorded responses.
pub trait Recordings: Debug + Send + Sync {
    /// What to do about `call`. A source that has several responses to one call plays them in order.
    fn play(&self, call: &Call<'_>) -> Played;
}

/// A request as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The path with its query.
    pub path: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// What is done about a request.
#[derive(Clone, Debug)]
pub enum Played {
    /// It is left to the server.
    Left,
    /// There is no recording, and nothing is made up: 404. What only the server can know of itself (its models, its
    /// health) it still tells.
    Missing,
    /// A recorded response.
    Response(Recorded),
}

/// A recorded response. All times are in nanoseconds from the request's arrival.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recorded {
    /// Status and headers, and when they go out; none where the connection closes without them.
    pub head: Option<Head>,
    /// The body's pieces, each a write of its own, and when they go out.
    pub pieces: Vec<(u64, Bytes)>,
    /// Where it broke off: when the connection closes, after the last piece. None where it came to its end.
    pub breaks_ns: Option<u64>,
}

/// The head of a recorded response.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Head {
    /// The HTTP status.
    pub status: u16,
    /// Its headers; of one that HTTP would not have, nothing is sent.
    pub headers: Vec<(String, String)>,
    /// When it goes out.
    pub at_ns: u64,
}
