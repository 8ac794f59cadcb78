//! The server within another program.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::config::Config;
use crate::server::{Error, Service, Shared};
use crate::truth::{Kept, Lateness, Record};

/// A server on threads of its own, for tests. It ends with this value.
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::TcpStream;
/// use std::sync::Arc;
///
/// use tokentape_mock::{Config, MockServer, Timing};
/// use tokentape_tokenizer::Tokenizer;
///
/// let timing = Timing::fixed(2_000_000, 500_000);
/// let config = Config::new("m", Arc::new(Tokenizer::load("embedded")?), timing);
/// let server = MockServer::start(config)?;
///
/// let mut client = TcpStream::connect(server.addr())?;
/// let body = r#"{"model":"m","prompt":"three blind mice","max_tokens":4,"stream":true}"#;
/// let head = "POST /v1/completions HTTP/1.1\r\nhost: m\r\nconnection: close\r\ncontent-type: application/json";
/// write!(client, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
/// let mut answer = String::new();
/// client.read_to_string(&mut answer)?;
/// assert!(answer.contains("data: [DONE]"));
///
/// let (records, lateness) = server.stop()?;
/// assert_eq!((records[0].completion_tokens, lateness.tokens), (4, 4));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MockServer {
    address: SocketAddr,
    shared: Weak<Shared>,
    kept: Kept,
    scheme: &'static str,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<Lateness, Error>>,
}

impl MockServer {
    /// Starts a server on a free port of 127.0.0.1. It keeps every record in memory.
    pub fn start(config: Config) -> Result<Self, Error> {
        Self::start_on(config, ([127, 0, 0, 1], 0).into())
    }

    /// Starts a server on an address.
    pub fn start_on(mut config: Config, address: SocketAddr) -> Result<Self, Error> {
        config.keep_records = usize::MAX;
        let scheme = config.scheme();
        let listener = TcpListener::bind(address)
            .map_err(|source| Error::Bind { address: address.to_string(), source })?;
        let address = listener.local_addr().map_err(Error::Runtime)?;
        let service = Service::new(config, None)?;
        let (shared, kept) = (Arc::downgrade(&service.shared), service.shared.server().log().keeper());
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("mock".to_owned())
            .spawn(move || {
                service.run(listener, async {
                    // Dropping the other end is a word too.
                    drop(stopped.await);
                })
            })
            .map_err(Error::Runtime)?;
        Ok(Self { address, shared, kept, scheme, running: Some(Running { stop, thread }) })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as a base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The records of the answers that have ended so far, in the order in which they ended.
    #[must_use]
    pub fn truth(&self) -> Vec<Arc<Record>> {
        self.kept.records()
    }

    /// Answers the requests that arrive from now on by `config`. Its workers, tokenizer, engine, certificate, spin, priority
    /// and truth log are those of the start.
    pub fn change(&self, config: Config) {
        if let Some(shared) = self.shared.upgrade() {
            shared.change(config, None);
        }
    }

    /// Cuts what is under way, and gives the records of all answers and how late their tokens were.
    pub fn stop(mut self) -> Result<(Vec<Arc<Record>>, Lateness), Error> {
        let lateness = self.end()?;
        Ok((self.kept.records(), lateness))
    }

    fn end(&mut self) -> Result<Lateness, Error> {
        let Some(Running { stop, thread }) = self.running.take() else { return Ok(Lateness::default()) };
        // One that has ended by itself tells why below.
        stop.send(()).unwrap_or_default();
        thread.join().unwrap_or_else(|_| Err(Error::Runtime(std::io::Error::other("its thread panicked"))))
    }
}

impl Drop for MockServer {
    fn drop(&mut self) {
        drop(self.end());
    }
}
