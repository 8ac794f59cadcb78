//! What an answer says, told from outside: token texts, their ids and log-probabilities, in the order in which an engine
//! put them out. A server without such a source makes answers of its own.

use std::borrow::Cow;
use std::fmt::Debug;

/// A source of answers.
pub trait Answers: Debug + Send + Sync {
    /// The answer to `question`; `None` leaves it to the server.
    fn answer(&self, question: &Question<'_>) -> Option<Answer<'static>>;
}

/// A request as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Its path, such as `/v1/chat/completions`.
    pub path: &'a str,
    /// Its `X-Request-Id`, empty where it brought none.
    pub request_id: &'a [u8],
    /// Its body.
    pub body: &'a [u8],
}

/// What one request is answered with. The server still applies what the request asked for: its limits, its stop strings,
/// `stream_interval`, the shape of its events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer<'a> {
    /// The engine's outputs in order, those of several choices mixed as they came.
    pub outputs: Vec<Output<'a>>,
}

/// What an engine puts out at once for one choice: one event of a stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output<'a> {
    /// Which choice, from 0; of several prompts, the first has the first `n`.
    pub choice: usize,
    /// One token or several.
    pub tokens: Vec<Token<'a>>,
}

/// One token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Token<'a> {
    /// What it adds to the text; empty where it completes no character yet.
    pub text: Cow<'a, str>,
    /// Its id.
    pub id: u32,
    /// How likely it was, where that was asked for.
    pub logprob: Option<Logprob<'a>>,
}

/// The log-probability of a token, and of those that came nearest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logprob<'a> {
    /// The token's own text, which may differ from what it adds.
    pub token: Cow<'a, str>,
    /// Natural logarithm of its probability.
    pub logprob: f64,
    /// The best alternatives in the engine's order, with theirs.
    pub top: Vec<(Cow<'a, str>, f64)>,
}
