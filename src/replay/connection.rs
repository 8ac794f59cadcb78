//! One held connection: opened before it is needed, driven by hyper in the task that uses it.
//!
//! The connection's future is polled by whoever waits for its response, never by a task of its own: a frame that was
//! read is seen at once, without a hop through the scheduler.

use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::drive::Driver;
use super::exchange::{Ending, Exchange, Head, PART_BYTES};
use super::plan::Prepared;
use super::transport::{SharedStamps, Stamped, Stamps, Transport};
use super::{Error, Target};

/// The largest response body that is kept.
const BODY_LIMIT: usize = 256 << 20;

/// Opens connections to one server. Names are resolved and certificates loaded once, before the clock starts.
#[derive(Clone)]
pub struct Connector {
    addresses: Vec<SocketAddr>,
    title_case: bool,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Connector {
    /// Resolves the target's name and, for https, loads the trusted certificates.
    pub fn new(target: &Target) -> Result<Self, Error> {
        let addresses = (target.host.as_str(), target.port)
            .to_socket_addrs()
            .map_err(|error| Error::Unreachable { url: target.url.clone(), reason: error.to_string() })?
            .collect();
        let tls = if target.tls { Some(tls(target)?) } else { None };
        Ok(Self { addresses, title_case: target.title_case, tls })
    }

    /// Whether an address of the server is one of this machine's.
    #[must_use]
    pub fn is_local(&self) -> bool {
        // Only such an address can be bound.
        self.addresses.iter().any(|address| UdpSocket::bind((address.ip(), 0)).is_ok())
    }

    /// Opens a connection; the reason if there is none to be had.
    pub async fn open(&self) -> Result<Connection, String> {
        let (transport, stamps) = self.transport().await?;
        let handshake = http1::Builder::new()
            .title_case_headers(self.title_case)
            .handshake(TokioIo::new(transport))
            .await;
        let (sender, driver) = handshake.map_err(|error| error.to_string())?;
        Ok(Connection { sender, driver: Driver::new(driver), stamps, room: (0, 0) })
    }

    /// The stamped stream under a connection.
    pub(crate) async fn transport(&self) -> Result<(Transport, SharedStamps), String> {
        let stream =
            TcpStream::connect(self.addresses.as_slice()).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let stamps = SharedStamps::default();
        let stamped = Stamped::new(stream, Rc::clone(&stamps));
        let transport = match &self.tls {
            None => Transport::Plain(stamped),
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stamped).await;
                Transport::Tls(Box::new(stream.map_err(|error| format!("TLS: {error}"))?))
            }
        };
        Ok((transport, stamps))
    }
}

fn tls(target: &Target) -> Result<(TlsConnector, ServerName<'static>), Error> {
    let wrong = |what: String| Error::Tls(what);
    let mut roots = RootCertStore::empty();
    // A system certificate that cannot be parsed is passed over: only a server that needs it will fail.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = &target.ca_file {
        let read = |error| wrong(format!("cannot read certificates from {}: {error}", file.display()));
        for certificate in CertificateDer::pem_file_iter(file).map_err(read)? {
            roots
                .add(certificate.map_err(read)?)
                .map_err(|error| wrong(format!("{}: {error}", file.display())))?;
        }
    }
    if roots.is_empty() {
        return Err(wrong("no trusted certificates were found; name a PEM file with --ca-file".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(target.host.clone()).map_err(|error| wrong(error.to_string()))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// A held connection.
#[derive(Debug)]
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Driver,
    stamps: SharedStamps,
    /// Bytes and marks of a part of the last response: one is much like the one before it, and is read into memory that is there.
    room: (usize, usize),
}

impl Connection {
    /// Whether the connection can take a request. A server may close one that was idle.
    pub async fn is_ready(&mut self) -> bool {
        self.driver.drive(self.sender.ready()).await.is_some_and(|ready| ready.is_ok())
    }

    /// Sends one request and reads its response into `exchange`, as far as it comes: what has come stays there when
    /// this future is dropped. [`Connection::finish`] then takes the stamps.
    pub async fn send(&mut self, request: &Prepared, target: &Target, exchange: &mut Exchange) -> Ending {
        exchange.body.bytes.reserve(self.room.0);
        exchange.body.marks.reserve(self.room.1);
        let mut message = http::Request::new(Full::new(request.body.clone()));
        *message.method_mut() = request.method.clone();
        *message.uri_mut() = request.path.clone();
        *message.headers_mut() = request.headers.as_ref().unwrap_or(target.headers()).clone();
        let response = self.sender.send_request(message);
        let mut body = match self.driver.drive(response).await {
            Some(Ok(response)) => {
                exchange.head = Some(head(&response, &self.stamps.borrow()));
                response.into_body()
            }
            Some(Err(error)) => return Ending::Broken(reason(&error)),
            None => return Ending::Broken("the server closed the connection before any response".to_owned()),
        };
        loop {
            let frame = match self.driver.drive(body.frame()).await {
                Some(Some(Ok(frame))) => frame,
                Some(Some(Err(error))) => return Ending::Broken(reason(&error)),
                Some(None) => {
                    // A little more, so that a few bytes do not double it.
                    let bytes = exchange.received();
                    self.room = ((bytes + bytes / 16 + 256).min(PART_BYTES), exchange.body.marks.capacity());
                    return Ending::Complete;
                }
                None => return Ending::Broken("the server closed the connection".to_owned()),
            };
            if let Ok(data) = frame.into_data() {
                if exchange.received() + data.len() > BODY_LIMIT {
                    return Ending::TooLarge { limit: BODY_LIMIT };
                }
                // Copied, so that hyper's read buffer is free again at once.
                exchange.receive(&data, self.stamps.borrow().last_read());
                if exchange.is_enough() {
                    return Ending::CancelledOnPurpose;
                }
            }
        }
    }

    /// The stamps of the exchange that has ended; the connection starts a new set.
    #[must_use]
    pub fn finish(&mut self) -> Stamps {
        let mut stamps = self.stamps.borrow_mut();
        let next = Stamps::like(&stamps);
        std::mem::replace(&mut stamps, next)
    }
}

fn head(response: &http::Response<Incoming>, stamps: &Stamps) -> Head {
    let content_type = response.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let encoding = response
        .headers()
        .get(CONTENT_ENCODING)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase());
    let retry_after =
        response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Head {
        retry_after: retry_after.map(Duration::from_secs),
        encoding: encoding.filter(|encoding| !encoding.is_empty() && encoding != "identity"),
        status: response.status().as_u16(),
        is_stream: content_type.to_ascii_lowercase().starts_with(b"text/event-stream"),
        read: stamps.last_read(),
        written: stamps.last_write,
    }
}

/// hyper's words and those of the cause below them, which name what the system saw.
fn reason(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
