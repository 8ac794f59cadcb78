//! The way of one request through the recorder.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::Semaphore;

use super::bodies::{Broken, Relay, Upload};
use super::client::Client;
use super::exchange::{Exchange, Outbox};
use super::headers;
use super::upstream::{Refused, Upstream};
use crate::replay::Target;
use crate::replay::connection::Connector;
use crate::tape::Outcome;

/// An answer on its way to the client: the server's, or the recorder's own.
type Answer = Response<Either<Relay, Full<Bytes>>>;

/// What every request of a worker needs.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) target: Target,
    pub(super) connector: Connector,
    /// Whether requests other than POST are recorded.
    pub(super) all: bool,
    pub(super) session_header: Option<String>,
    pub(super) outbox: Outbox,
    pub(super) next_exchange: Arc<AtomicU64>,
    /// As many exchanges as may be under way, or wait to be written, at a time.
    pub(super) permits: Arc<Semaphore>,
}

impl Proxy {
    /// Passes a request on, and gives the answer as soon as its head is here. An error closes the client's connection,
    /// as the server closed its own.
    pub(super) async fn pass(
        &self,
        client: Rc<Client>,
        request: Request<Incoming>,
    ) -> Result<Answer, Broken> {
        if request.method() == Method::CONNECT {
            return Ok(own_answer(StatusCode::NOT_IMPLEMENTED, "tokentape record is no tunnel"));
        }
        let arrival_ns = client.arrival_ns();
        let (mut head, body) = request.into_parts();
        let exchange = if self.all || head.method == Method::POST {
            let permit = Arc::clone(&self.permits).acquire_owned().await?;
            let id = self.next_exchange.fetch_add(1, Ordering::Relaxed);
            let session = self.session_header.as_deref();
            Some(Exchange::begin(id, arrival_ns, &head, session, self.outbox.clone(), permit))
        } else {
            None
        };
        headers::to_upstream(&mut head.headers, self.target.headers().get(HOST));
        head.uri = self.uri(&head.uri)?;
        head.version = Version::HTTP_11;
        let upload = Upload::new(body, exchange.clone());
        let (upstream, response) = match self.send(&client, Request::from_parts(head, upload)).await {
            Ok(answered) => answered,
            Err(failure) => {
                client.end_exchange(None);
                return failure.tell(exchange.as_deref()).await;
            }
        };
        let (mut head, body) = response.into_parts();
        if let Some(exchange) = &exchange {
            exchange.head(head.status.as_u16(), &head.headers, upstream.last_read_ns());
            exchange.request_is_written().await;
        }
        headers::remove_hop_by_hop(&mut head.headers);
        head.version = Version::HTTP_11;
        let mut relay = Relay::new(body, upstream, exchange, client);
        relay.end_if_empty().await;
        Ok(Response::from_parts(head, Either::Left(relay)))
    }

    /// Sends a request on the connection that the client's last one left, or on a new one.
    async fn send(
        &self,
        client: &Client,
        mut request: Request<Upload>,
    ) -> Result<(Upstream, Response<Incoming>), Failure> {
        if let Some(mut upstream) = client.take_upstream()
            && upstream.is_ready().await
        {
            match upstream.send(request).await {
                Ok(response) => return Ok((upstream, response)),
                // The server closed it at this very moment.
                Err(Refused::Unsent(unsent)) => request = *unsent,
                Err(Refused::Broken) => return Err(Failure::Broken),
            }
        }
        let mut upstream = match Upstream::open(&self.connector).await {
            Ok(upstream) => upstream,
            Err(reason) => return Err(Failure::Unreachable { reason, request: Box::new(request) }),
        };
        match upstream.send(request).await {
            Ok(response) => Ok((upstream, response)),
            Err(Refused::Unsent(_) | Refused::Broken) => Err(Failure::Broken),
        }
    }

    /// Where the server has what the client asked for.
    fn uri(&self, uri: &Uri) -> Result<Uri, Broken> {
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        Ok(self.target.path(path).parse()?)
    }
}

/// Why a request has no answer from the server.
#[derive(Debug)]
enum Failure {
    Broken,
    Unreachable { reason: String, request: Box<Request<Upload>> },
}

impl Failure {
    /// What the client sees: a connection that breaks as the server's did, or, where there was none, an answer that
    /// says so.
    async fn tell(self, exchange: Option<&Exchange>) -> Result<Answer, Broken> {
        match self {
            Failure::Broken => {
                drop(exchange.and_then(|exchange| exchange.end(Outcome::ServerGone)));
                Err("the server closed the connection before it answered".into())
            }
            Failure::Unreachable { reason, request } => {
                // Read to its end, so that the tape has it.
                let mut upload = request.into_body();
                while let Some(frame) = upload.frame().await {
                    frame?;
                }
                drop(exchange.and_then(|exchange| exchange.end(Outcome::ServerGone)));
                let message = format!("tokentape record cannot reach the server that it records: {reason}");
                Ok(own_answer(StatusCode::BAD_GATEWAY, &message))
            }
        }
    }
}

fn own_answer(status: StatusCode, message: &str) -> Answer {
    let body = json!({"error": {"message": message, "type": "recorder", "code": status.as_u16()}});
    let mut answer = Response::new(Either::Right(Full::from(body.to_string())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
