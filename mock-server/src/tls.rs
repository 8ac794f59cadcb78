//! TLS in front of the server: the certificate that it shows, and the socket with or without it.
//!
//! The stamps stay where the kernel gives and takes the bytes, beneath TLS: [`Stamped`] is the socket that TLS runs over.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokentape_pacer::poll_receive;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};
use tokio_rustls::server::TlsStream;

use crate::transport::Connection;

/// A certificate and its key, ready to be shown.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

/// The key stays out of it.
impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// A certificate or a key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct TlsError {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong with it, and what is wanted.
    pub reason: String,
}

impl Tls {
    /// Loads a certificate, with the chain behind it, and its private key, both PEM.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let wrong = |path: &Path, reason: String| TlsError { path: path.to_owned(), reason };
        let not_pem = |path: &Path, what: &str, error: &dyn std::fmt::Display| {
            wrong(path, format!("it holds no {what} in PEM: {error}"))
        };
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| not_pem(certificate, "certificate", &error))?;
        if chain.is_empty() {
            return Err(not_pem(certificate, "certificate", &"there is no section of that kind"));
        }
        let private =
            PrivateKeyDer::from_pem_file(key).map_err(|error| not_pem(key, "private key", &error))?;
        let unfit = |error| wrong(key, format!("no key for {}: {error}", certificate.display()));
        let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unfit)?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(unfit)?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

/// A socket that answers go through, encrypted or not.
#[derive(Debug)]
pub(crate) enum Socket {
    Plain(Stamped),
    Tls(Box<TlsStream<Stamped>>),
}

impl Socket {
    /// Shakes hands, where there is a certificate.
    pub(crate) async fn accept(
        socket: TcpStream,
        connection: Rc<Connection>,
        tls: Option<&Tls>,
    ) -> io::Result<Self> {
        let stamped = Stamped { socket, connection };
        Ok(match tls {
            None => Self::Plain(stamped),
            Some(Tls(acceptor)) => Self::Tls(Box::new(acceptor.accept(stamped).await?)),
        })
    }

    /// The socket beneath.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stamped) => &stamped.socket,
            Self::Tls(stream) => &stream.get_ref().0.socket,
        }
    }
}

/// Forwards one poll to whichever stream it is.
macro_rules! forward {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Socket::Plain($stream) => $call,
            Socket::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        forward!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self, stream => Pin::new(stream).poll_write_vectored(cx, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// A TCP stream whose reads and writes are stamped.
#[derive(Debug)]
pub(crate) struct Stamped {
    socket: TcpStream,
    connection: Rc<Connection>,
}

impl AsyncRead for Stamped {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let received = ready!(poll_receive(&self.socket, cx, buf.initialize_unfilled()))?;
        if received.bytes > 0 {
            self.connection.received(&received);
            buf.advance(received.bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stamped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, bytes))?;
        self.connection.wrote();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, buffers))?;
        self.connection.wrote();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_pair_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let complaint = |certificate: &Path, key: &Path| Tls::load(certificate, key).unwrap_err().to_string();
        let (empty, missing) = (file("empty.pem", ""), folder.path().join("missing.pem"));
        for (path, certificate) in [(&missing, &missing), (&empty, &empty)] {
            let error = complaint(certificate, &empty);
            assert!(
                error.starts_with(&*path.to_string_lossy()) && error.contains("no certificate"),
                "{error}"
            );
        }
        // Any bytes are a certificate until they are used.
        let certificate = file("c.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let error = complaint(&certificate, &empty);
        assert!(error.contains("empty.pem: it holds no private key in PEM"), "{error}");
        let key = file("k.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
        let error = complaint(&certificate, &key);
        assert!(error.contains("k.pem: no key for ") && error.contains("c.pem"), "{error}");
    }
}
