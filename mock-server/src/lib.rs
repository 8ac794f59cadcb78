//! A mock OpenAI-compatible server that answers as a [profile](Profile) of vLLM does, byte for byte, at a pace it was
//! told, and keeps a record of what it really did: the [truth log](truth).
//!
//! A client that measures this server can be held against that record. For that to mean anything the server must be
//! more exact than what it tests: each token has an absolute deadline, kept to microseconds by
//! [`tokentape_pacer`]; every byte is made before its deadline; every event is a write of its own, whose return is
//! stamped in the transport.
//!
//! ```text
//! server ── workers, each one thread ── transport (stamps reads and writes)
//!                                        │
//!              api (routes) ── request (what is asked) ── timing (when each token is due)
//!                                        │
//!              text or answers (tokens) ── chunks (stop strings, intervals)
//!                                        │
//!                        stream (one event a write) ◄── wire (vLLM's bytes)
//!                                        │
//!                                      truth (the log)
//! ```
//!
//! It plays no model: an answer is as many words as were asked for, drawn with a seed, each exactly one token of the
//! tokenizer in use, unless [`answers`], or whole [`recordings`], come from elsewhere. It ends by its length or by the request's stop strings and
//! stop tokens (`ignore_eos` changes nothing).

mod admin;
pub mod answers;
mod api;
mod args;
mod chunks;
mod config;
mod deadlines;
mod duration;
mod embed;
mod embeddings;
pub mod engine;
mod faulted;
pub mod faults;
mod lateness;
mod metrics;
mod playback;
mod profile;
pub mod recordings;
mod refusal;
mod request;
mod responses;
mod server;
mod settings;
mod stream;
mod text;
mod timing;
mod tls;
mod transport;
pub mod truth;
mod wire;

#[doc(hidden)]
pub use api::read_request;
pub use args::{Args, run, run_with};
pub use config::{Config, Oracle};
pub use embed::MockServer;
pub use profile::{Profile, RoleChunk, Wire};
pub use server::{Error, serve};
pub use timing::{Circumstances, Law, Timing, request_key};
pub use tls::{Tls, TlsError};
