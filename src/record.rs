//! The recording reverse proxy: requests and answers pass through it untouched, and stand on a tape.
//!
//! ```text
//! client ──► server (threads) ──► proxy ──► upstream ──► the server that is recorded
//!                                  │ exchange
//!                                  ▼
//!                               archive (a thread): redact, count tokens, write, flush
//! ```
//!
//! A worker passes pieces of bodies on as they come and copies them; the archive's thread does all the rest. A request
//! is in the file before the first byte of its answer goes to the client, and the answer before its end does.

mod archive;
mod bodies;
mod client;
mod exchange;
mod headers;
mod part;
mod proxy;
mod redact;
mod replace;
mod server;
mod tokens;
mod upstream;

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use serde_json::json;
use tokentape_tokenizer::Tokenizer;
use tokio::sync::{Semaphore, watch};

pub use archive::Summary;
pub use part::PartSummary;

use crate::replay::connection::Connector;
use crate::replay::{self, Target};
use crate::tape::{Header, TokenizerId, VERSION, WriteError};
use archive::{Archive, Setup, Shared};
use exchange::Outbox;
use proxy::Proxy;
use redact::{Policy, Redactor};
use replace::Replacer;
use tokens::Counter;

/// As many exchanges as may be under way, or wait to be written, at a time. The next client waits.
const IN_FLIGHT: usize = 1 << 16;

/// What happens to the texts of requests and answers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Redaction {
    /// They stay.
    #[default]
    Keep,
    /// They become empty; counts of tokens stay.
    Drop,
    /// They become words of as many tokens, the same where their beginnings were the same.
    Seeded {
        /// Makes the same text the same in every recording; else it is so within one.
        seed: Option<u64>,
        /// Tokens that are replaced together: where two texts part within one, they part at its start.
        block: usize,
    },
}

/// How to record.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server that is recorded.
    pub upstream: Target,
    /// The first file; it must not exist.
    pub output: PathBuf,
    /// Counts the tokens of prompts; seeded redaction needs it.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// What happens to texts.
    pub redaction: Redaction,
    /// JSON pointers to values of request bodies that are left out.
    pub redact_paths: Vec<String>,
    /// A new file is begun when one has this many bytes.
    pub rotate_bytes: Option<u64>,
    /// A new file is begun when one is this old.
    pub rotate_after: Option<Duration>,
    /// The header that names a request's session.
    pub session_header: Option<String>,
    /// A JSON pointer to the session's name in the body.
    pub session_path: Option<String>,
    /// Whether responses are recorded.
    pub responses: bool,
    /// Whether all requests are recorded, rather than those of method POST.
    pub all: bool,
    /// How long what is under way may take to end when the recorder is stopped.
    pub grace: Duration,
    /// Threads that pass requests on.
    pub workers: usize,
}

/// Why a recording did not begin, or ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the recording cannot be created.
    #[error("cannot create {}: {source}; a recording never overwrites a file: name another with -o", path.display())]
    Create {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The tokenizer has no words to put in a text's place.
    #[error(
        "the tokenizer {name} has no word that is always one token, so no text can be made of it: name another"
    )]
    NoWords {
        /// The tokenizer.
        name: String,
    },
    /// Seeded redaction has nothing to count tokens with.
    #[error("--redact seeded replaces texts token by token: name the model's tokenizer with --tokenizer")]
    NoTokenizer,
    /// A runtime or a thread.
    #[error("cannot run the recorder: {0}")]
    Runtime(io::Error),
    /// The server cannot be reached, or the URL is wrong.
    #[error(transparent)]
    Upstream(#[from] replay::Error),
    /// A file cannot be written. What is in it stays readable.
    #[error(
        "{source} {}; the recording has ended there, and what it had can be read as a tape that was cut short", path.display()
    )]
    Write {
        /// Which file.
        path: PathBuf,
        /// The reason.
        source: WriteError,
    },
}

/// A recording that is ready to begin: its first file is there.
#[derive(Debug)]
pub struct Recorder {
    options: Options,
    connector: Connector,
    archive: Archive,
    summary: Shared,
}

impl Recorder {
    /// Resolves the server's name, and creates the first file.
    pub fn new(options: Options) -> Result<Self, Error> {
        let policy = match options.redaction {
            Redaction::Keep => Policy::Keep,
            Redaction::Drop => Policy::Drop,
            Redaction::Seeded { seed, block } => {
                let tokenizer = options.tokenizer.clone().ok_or(Error::NoTokenizer)?;
                Policy::Seeded(Box::new(Replacer::new(tokenizer, seed, block)?))
            }
        };
        let connector = Connector::new(&options.upstream)?;
        let summary = Shared::default();
        let setup = Setup {
            output: options.output.clone(),
            header: header(&options),
            rotate_bytes: options.rotate_bytes,
            rotate_after: options.rotate_after,
            responses: options.responses,
            session_path: options.session_path.clone(),
            redactor: Redactor::new(policy, options.redact_paths.clone()),
            counter: options.tokenizer.clone().map(Counter::new),
        };
        let archive = Archive::create(setup, summary.clone())?;
        Ok(Self { options, connector, archive, summary })
    }

    /// Records what comes to `listener` until `shutdown` is ready; then takes no more, waits for what is under way,
    /// and ends the tape. Calls `tell` with what there is so far, now and then. Blocks the calling thread.
    pub fn run(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
        mut tell: impl FnMut(&Summary),
    ) -> Result<Summary, Error> {
        let Self { options, connector, archive, summary } = self;
        let (messages, receiver) = mpsc::channel();
        let (failed, mut has_failed) = watch::channel(false);
        let thread = std::thread::Builder::new()
            .name("record-archive".to_owned())
            .spawn(move || archive.run(&receiver, &failed))
            .map_err(Error::Runtime)?;
        let proxy = Arc::new(Proxy {
            target: options.upstream,
            connector,
            all: options.all,
            session_header: options.session_header,
            outbox: Outbox { messages, stopping: Arc::new(AtomicBool::new(false)) },
            next_exchange: Arc::new(AtomicU64::new(0)),
            permits: Arc::new(Semaphore::new(IN_FLIGHT)),
        });
        let shutdown = async {
            tokio::select! {
                () = shutdown => {}
                // Its sender goes early only when the archive has panicked: that ends the recording as well.
                _ = has_failed.wait_for(|failed| *failed) => {}
            }
        };
        let tell = || tell(&summary.lock());
        let served = server::serve(listener, &proxy, options.workers, options.grace, shutdown, tell);
        // The last holder of the archive's sender: its thread ends with it.
        drop(proxy);
        let panicked = |_| Err(Error::Runtime(io::Error::other("the archive's thread panicked")));
        thread.join().unwrap_or_else(panicked)?;
        served.map_err(Error::Runtime)?;
        let summary = summary.lock().clone();
        Ok(summary)
    }
}

/// What a recording's header says: how it was made, and not when, where or of which server.
fn header(options: &Options) -> Header {
    let redaction = match options.redaction {
        Redaction::Keep => json!("keep"),
        Redaction::Drop => json!("drop"),
        Redaction::Seeded { block, .. } => json!({"seeded": {"block": block}}),
    };
    let mut params = serde_json::Map::new();
    params.insert("requests".to_owned(), if options.all { "all" } else { "post" }.into());
    params.insert("responses".to_owned(), options.responses.into());
    params.insert("redaction".to_owned(), redaction);
    if !options.redact_paths.is_empty() {
        params.insert("redact_paths".to_owned(), options.redact_paths.clone().into());
    }
    Header {
        version: VERSION,
        created_by: concat!("tokentape ", env!("CARGO_PKG_VERSION")).to_owned(),
        source: "record".to_owned(),
        params,
        seed: None,
        tokenizer: options.tokenizer.as_ref().map(|tokenizer| TokenizerId {
            name: tokenizer.name().to_owned(),
            digest: tokenizer.digest().to_owned(),
        }),
    }
}
