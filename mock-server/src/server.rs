//! Connections and threads: one thread accepts, and deals the connections out to workers, each a single-threaded
//! runtime with its own pacer. A connection stays with its worker, so no answer ever waits for another thread.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use socket2::SockRef;
use tokentape_pacer::{Pacer, stamp_arrivals};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};

use crate::api::{self, Server};
use crate::config::Config;
use crate::engine::driver::Driver;
use crate::transport::{Connection, Transport};
use crate::truth::Log;

/// How many connections may wait to be accepted. A load generator opens hundreds in one instant, and one that finds the
/// queue full is delayed by a whole second.
const BACKLOG: i32 = 4096;

/// Why a server did not start, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source} (--port 0 takes a free port)")]
    Bind {
        /// Which address.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A runtime, a thread or a timer.
    #[error("cannot run the server: {0}")]
    Runtime(io::Error),
    /// The line that names the port could not be printed.
    #[error("cannot write to stdout: {0}")]
    Stdout(io::Error),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] tokentape_tokenizer::Error),
    /// The tokenizer has no words to answer with.
    #[error(
        "the tokenizer has no word that is always one token, so no answer can be made of it: name another"
    )]
    NoWords,
    /// The truth log cannot be written.
    #[error("cannot write the truth log {path}: {source}")]
    TruthLog {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl Error {
    /// The exit code that fits, of those that the command documents: 3 for an input that cannot be read, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Tokenizer(_) | Self::NoWords => 3,
            Self::Bind { .. } | Self::Runtime(_) | Self::Stdout(_) | Self::TruthLog { .. } => 1,
        }
    }
}

/// Serves on `listener` until `shutdown` is ready, then cuts what is under way, completes the truth log and returns.
/// Blocks the calling thread, which accepts; `shutdown` is polled there, within a tokio runtime.
pub fn serve(listener: TcpListener, config: Config, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    if config.tokenizer.words().is_empty() {
        return Err(Error::NoWords);
    }
    let truth_log = config.truth_log.clone();
    let truth_error = |source| Error::TruthLog { path: truth_log.clone().unwrap_or_default(), source };
    let (log, log_writer) = match &config.truth_log {
        None => Log::disabled(),
        Some(path) => Log::create(path, config.truth_header()).map_err(truth_error)?,
    };
    let workers = config.workers.max(1);
    let (driver, engine) =
        config.engine.clone().map(Driver::start).transpose().map_err(Error::Runtime)?.unzip();
    let server = Arc::new(Server::new(config, log, driver));
    let served = deal_out(listener, &server, workers, shutdown).map_err(Error::Runtime);
    // The last holder of the log's sender: its thread ends with it.
    drop(server);
    if engine.is_some_and(|thread| thread.join().is_err()) {
        return Err(Error::Runtime(io::Error::other("the engine's thread panicked")));
    }
    log_writer.finish().map_err(truth_error)?;
    served
}

/// Accepts until `shutdown` is ready; then stops the workers and waits for them.
fn deal_out(
    listener: TcpListener,
    server: &Arc<Server>,
    workers: usize,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    SockRef::from(&listener).listen(BACKLOG)?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let workers = (0..workers).map(|number| Worker::start(number, server)).collect::<io::Result<Vec<_>>>()?;
    let accepted = runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let accept = async {
            for worker in workers.iter().cycle() {
                worker.take(accept(&listener).await);
            }
        };
        tokio::select! {
            () = accept => {}
            () = shutdown => {}
        }
        Ok(())
    });
    server.log().stop();
    for worker in workers {
        worker.stop()?;
    }
    accepted
}

/// The next connection. One that failed before it was accepted is the client's affair; where the process has no
/// descriptor left, a short wait lets others close.
async fn accept(listener: &tokio::net::TcpListener) -> std::net::TcpStream {
    loop {
        match listener.accept().await.and_then(|(socket, _)| socket.into_std()) {
            Ok(socket) => return socket,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// One thread that answers.
#[derive(Debug)]
struct Worker {
    connections: UnboundedSender<std::net::TcpStream>,
    thread: JoinHandle<io::Result<()>>,
}

impl Worker {
    fn start(number: usize, server: &Arc<Server>) -> io::Result<Self> {
        let (connections, incoming) = unbounded_channel();
        let server = Arc::clone(server);
        let thread = std::thread::Builder::new()
            .name(format!("mock-{number}"))
            .spawn(move || work(&server, incoming))?;
        Ok(Self { connections, thread })
    }

    fn take(&self, socket: std::net::TcpStream) {
        // A worker that ended has failed; `stop` reports why.
        self.connections.send(socket).unwrap_or_default();
    }

    fn stop(self) -> io::Result<()> {
        drop(self.connections);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("a worker thread panicked")))
    }
}

/// Serves every connection that comes in; when no more can come, drops those that are left.
fn work(server: &Arc<Server>, mut incoming: UnboundedReceiver<std::net::TcpStream>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let pacer = Pacer::start()?;
        while let Some(socket) = incoming.recv().await {
            spawn_local(converse(Arc::clone(server), pacer.clone(), socket));
        }
        Ok(())
    })
}

/// Answers on one connection until it is closed. What breaks a connection is the client's affair, and in the truth log.
async fn converse(server: Arc<Server>, pacer: Pacer, socket: std::net::TcpStream) {
    let Ok(socket) = socket.set_nodelay(true).and_then(|()| TcpStream::from_std(socket)) else {
        return;
    };
    // Without the kernel's stamps a request has arrived when it is read.
    stamp_arrivals(&socket).unwrap_or_default();
    let connection = Rc::new(Connection::default());
    let transport = Transport::new(socket, Rc::clone(&connection));
    let service = service_fn(move |request| {
        api::answer(Arc::clone(&server), pacer.clone(), Rc::clone(&connection), request)
    });
    drop(http1::Builder::new().serve_connection(transport, service).await);
}
