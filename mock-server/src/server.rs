//! Connections and threads: one thread accepts, and deals the connections out to workers, each a single-threaded
//! runtime with its own pacer. A connection stays with its worker, so no answer ever waits for another thread.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use socket2::SockRef;
use tokentape_pacer::{Pacer, go_first, monotonic_ns, stamp_arrivals};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};

use crate::admin;
use crate::api::{self, Server};
use crate::config::Config;
use crate::engine::driver::Driver;
use crate::settings::Settings;
use crate::tls::{Socket, TlsError};
use crate::transport::{Connection, Transport};
use crate::truth::{Lateness, Log, LogWriter};

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
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
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
            Self::Tokenizer(_) | Self::NoWords | Self::Tls(_) => 3,
            Self::Bind { .. } | Self::Runtime(_) | Self::Stdout(_) | Self::TruthLog { .. } => 1,
        }
    }
}

/// Serves on `listener` until `shutdown` is ready, then cuts what is under way, completes the truth log and says how
/// late it was. Blocks the calling thread, which accepts; `shutdown` is polled there, within a tokio runtime.
pub fn serve(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<Lateness, Error> {
    Service::new(config, None)?.run(listener, shutdown)
}

/// A server that is ready to run.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) shared: Arc<Shared>,
    log_writer: LogWriter,
    engine: Option<JoinHandle<()>>,
    truth_log: Option<PathBuf>,
    workers: usize,
    pace: Pace,
}

/// How a worker keeps its deadlines.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// For how long it turns in a loop before each.
    spin_ns: u64,
    /// Whether it runs before all ordinary threads, where the system grants it.
    real_time: bool,
}

impl Service {
    /// `settings` are what the configuration was made of, where they can be changed while the server runs.
    pub(crate) fn new(config: Config, settings: Option<Settings>) -> Result<Self, Error> {
        if config.tokenizer.words().is_empty() {
            return Err(Error::NoWords);
        }
        let (truth_log, workers) = (config.truth_log.clone(), config.workers.max(1));
        let pace = Pace { spin_ns: config.spin_ns, real_time: config.real_time };
        let (log, log_writer) = Log::new(truth_log.as_deref(), config.truth_header(), config.keep_records)
            .map_err(|source| Error::TruthLog { path: truth_log.clone().unwrap_or_default(), source })?;
        let (driver, engine) =
            config.engine.clone().map(Driver::start).transpose().map_err(Error::Runtime)?.unzip();
        let server = Arc::new(Server::new(config, log, driver));
        let shared = Arc::new(Shared { current: Mutex::new((server, settings)), editing: Mutex::default() });
        Ok(Self { shared, log_writer, engine, truth_log, workers, pace })
    }

    pub(crate) fn run(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<Lateness, Error> {
        let served = deal_out(listener, &self.shared, self.workers, self.pace, shutdown);
        let lateness = self.shared.server().log().meter().summary();
        // The last holder of the log's sender: its thread ends with it.
        drop(self.shared);
        if self.engine.is_some_and(|thread| thread.join().is_err()) {
            return Err(Error::Runtime(io::Error::other("the engine's thread panicked")));
        }
        let truth_log = self.truth_log.unwrap_or_default();
        self.log_writer.finish().map_err(|source| Error::TruthLog { path: truth_log, source })?;
        served.map(|()| lateness).map_err(Error::Runtime)
    }
}

/// What all workers share: how requests that arrive now are answered.
#[derive(Debug)]
pub(crate) struct Shared {
    current: Mutex<(Arc<Server>, Option<Settings>)>,
    /// Held from the reading of the settings to their change.
    editing: Mutex<()>,
}

impl Shared {
    /// How requests that arrive now are answered.
    pub(crate) fn server(&self) -> Arc<Server> {
        Arc::clone(&self.lock().0)
    }

    /// What that was made of.
    pub(crate) fn settings(&self) -> Option<Settings> {
        self.lock().1.clone()
    }

    /// Until this is dropped, nobody else changes what is made of the settings: a change is laid over those that there
    /// are, and two at once would each undo the other. Requests go on being answered meanwhile.
    pub(crate) fn edit(&self) -> MutexGuard<'_, ()> {
        self.editing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the next request on, answers are made as `config` says. Others see the old settings or the new ones, and
    /// never some of each.
    pub(crate) fn change(&self, config: Config, settings: Option<Settings>) {
        let mut current = self.lock();
        let server = Arc::new(current.0.with_config(config));
        server.log().change(monotonic_ns(), server.config().truth_header());
        *current = (server, settings);
    }

    /// Nothing under the lock can panic half-way, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, (Arc<Server>, Option<Settings>)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts until `shutdown` is ready; then stops the workers and waits for them.
fn deal_out(
    listener: TcpListener,
    shared: &Arc<Shared>,
    workers: usize,
    pace: Pace,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    SockRef::from(&listener).listen(BACKLOG)?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let start = |number| Worker::start(number, shared, pace);
    let workers = (0..workers).map(start).collect::<io::Result<Vec<_>>>()?;
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
    shared.server().log().stop();
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
    fn start(number: usize, shared: &Arc<Shared>, pace: Pace) -> io::Result<Self> {
        let (connections, incoming) = unbounded_channel();
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new()
            .name(format!("mock-{number}"))
            .spawn(move || work(&shared, pace, incoming))?;
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
fn work(
    shared: &Arc<Shared>,
    pace: Pace,
    mut incoming: UnboundedReceiver<std::net::TcpStream>,
) -> io::Result<()> {
    if pace.real_time {
        // A refusal leaves the thread as it is, which is later and not wrong.
        let _granted = go_first();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let pacer = Pacer::start()?.spinning(pace.spin_ns);
        while let Some(socket) = incoming.recv().await {
            spawn_local(converse(Arc::clone(shared), pacer.clone(), socket));
        }
        Ok(())
    })
}

/// Answers on one connection until it is closed. What breaks a connection is the client's affair, and in the truth log.
async fn converse(shared: Arc<Shared>, pacer: Pacer, socket: std::net::TcpStream) {
    let Ok(socket) = socket.set_nodelay(true).and_then(|()| TcpStream::from_std(socket)) else {
        return;
    };
    // Without the kernel's stamps a request has arrived when it is read.
    stamp_arrivals(&socket).unwrap_or_default();
    let connection = Rc::new(Connection::default());
    let tls = shared.server().config().tls.clone();
    let Ok(socket) = Socket::accept(socket, Rc::clone(&connection), tls.as_ref()).await else { return };
    let transport = Transport::new(socket, Rc::clone(&connection));
    let service = service_fn(move |request: Request<Incoming>| {
        let is_admin = request.uri().path().starts_with(admin::PREFIX);
        let (shared, pacer, connection) = (Arc::clone(&shared), pacer.clone(), Rc::clone(&connection));
        async move {
            if is_admin {
                return admin::answer(&shared, request).await;
            }
            api::answer(shared.server(), pacer, connection, request).await
        }
    });
    // An event is some hundred bytes: one piece of memory is written sooner than three.
    drop(http1::Builder::new().writev(false).serve_connection(transport, service).await);
}
