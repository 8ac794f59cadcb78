//! Connections and threads: one thread accepts, and deals the connections out to workers, each a single-threaded
//! runtime. A connection, and the one to the server behind it, stay with their worker.

use std::future::{Future, pending};
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

use super::client::Client;
use super::proxy::Proxy;
use crate::replay::transport::{SharedStamps, Stamped};

/// How often somebody is told how far it has come.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Serves until `shutdown` is ready; then takes no more requests, and gives those that are under way `grace` to end.
/// Calls `tell` now and then.
pub(super) fn serve(
    listener: TcpListener,
    proxy: &Arc<Proxy>,
    workers: usize,
    grace: Duration,
    shutdown: impl Future<Output = ()>,
    mut tell: impl FnMut(),
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = watch::channel(false);
    let start = |number| Worker::start(number, proxy, grace, stopped.clone());
    let workers = (0..workers.max(1)).map(start).collect::<io::Result<Vec<_>>>()?;
    let accepted = runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let accept = async {
            for worker in workers.iter().cycle() {
                worker.take(accept(&listener).await);
            }
        };
        let telling = async {
            let mut ticks = tokio::time::interval(TELL_EVERY);
            loop {
                ticks.tick().await;
                tell();
            }
        };
        tokio::select! {
            () = accept => {}
            () = telling => {}
            () = shutdown => {}
        }
        Ok(())
    });
    stop.send_replace(true);
    // All are told before one is waited for.
    let threads: Vec<_> = workers.into_iter().map(|worker| worker.thread).collect();
    for thread in threads {
        thread.join().unwrap_or_else(|_| Err(io::Error::other("a worker thread panicked")))?;
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

/// One thread that passes requests on.
#[derive(Debug)]
struct Worker {
    connections: UnboundedSender<std::net::TcpStream>,
    thread: JoinHandle<io::Result<()>>,
}

impl Worker {
    fn start(
        number: usize,
        proxy: &Arc<Proxy>,
        grace: Duration,
        stopped: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let (connections, incoming) = unbounded_channel();
        let proxy = Arc::clone(proxy);
        let thread = std::thread::Builder::new()
            .name(format!("record-{number}"))
            .spawn(move || work(&proxy, incoming, grace, &stopped))?;
        Ok(Self { connections, thread })
    }

    fn take(&self, socket: std::net::TcpStream) {
        // A worker that ended has failed; the end of the recording says why.
        self.connections.send(socket).unwrap_or_default();
    }
}

/// Serves every connection that comes in; when no more can come, waits for those that are left, and drops them when
/// their time is over.
fn work(
    proxy: &Arc<Proxy>,
    mut incoming: UnboundedReceiver<std::net::TcpStream>,
    grace: Duration,
    stopped: &watch::Receiver<bool>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                socket = incoming.recv() => match socket {
                    Some(socket) => {
                        connections.spawn_local(converse(Arc::clone(proxy), socket, stopped.clone()));
                    }
                    None => break,
                },
                // Those that have ended need not be kept.
                Some(_) = connections.join_next() => {}
            }
        }
        let ended = tokio::time::timeout(grace, async { while connections.join_next().await.is_some() {} });
        if ended.await.is_err() {
            // What is dropped now, the recorder broke off.
            proxy.outbox.stopping.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// Serves one connection until it is closed, or, when the recorder stops, until its answer has ended. What breaks a
/// connection is on the tape, where it broke an answer off.
async fn converse(proxy: Arc<Proxy>, socket: std::net::TcpStream, mut stopped: watch::Receiver<bool>) {
    let Ok(socket) = socket.set_nodelay(true).and_then(|()| TcpStream::from_std(socket)) else {
        return;
    };
    let stamps = SharedStamps::default();
    let transport = TokioIo::new(Stamped::new(socket, Rc::clone(&stamps)));
    let client = Rc::new(Client::new(stamps));
    let service = service_fn(move |request: Request<Incoming>| {
        let (proxy, client) = (Arc::clone(&proxy), Rc::clone(&client));
        async move { proxy.pass(client, request).await }
    });
    // The server's own date, and none where it says none.
    let mut builder = http1::Builder::new();
    builder.preserve_header_case(true).auto_date_header(false);
    let mut connection = pin!(builder.serve_connection(transport, service));
    let stop = async {
        if stopped.wait_for(|stopped| *stopped).await.is_err() {
            pending::<()>().await;
        }
    };
    tokio::select! {
        ended = &mut connection => return drop(ended),
        () = stop => {}
    }
    connection.as_mut().graceful_shutdown();
    drop(connection.await);
}
