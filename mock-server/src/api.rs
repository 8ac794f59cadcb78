//! The routes: from a request to its response.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{
    ALLOW, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName, RETRY_AFTER, SERVER, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use tokentape_pacer::Pacer;

use crate::config::Config;
use crate::faulted::{self, Faulted, Remains};
use crate::faults::{Fault, Faults};
use crate::request::{self, Refusal};
use crate::stream::Stream;
use crate::timing::{self, Purpose, RequestKey};
use crate::transport::{Connection, Part};
use crate::truth::{EventKind, Log, Record};
use crate::wire::{self, Answer, Endpoint, json_inside};

/// The largest request body that is read, in bytes.
const MAX_BODY_BYTES: usize = 64 << 20;

/// The vLLM version whose bytes these are.
const VLLM_VERSION: &str = "0.11.0";

/// The header by which a request asks for faults of its own.
const FAULT_HEADER: &str = "x-mock-fault";

/// What all workers share.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    config: Config,
    /// The tokenizer's words, each as the inside of a JSON string.
    words: Arc<Vec<String>>,
    log: Log,
    answers: Arc<AtomicU64>,
}

impl Server {
    pub(crate) fn new(config: Config, log: Log) -> Self {
        let words = config.tokenizer.words().iter().map(|word| json_inside(&word.text)).collect();
        Self { config, words: Arc::new(words), log, answers: Arc::default() }
    }

    /// The same server, set otherwise.
    pub(crate) fn with_config(&self, config: Config) -> Self {
        Self { config, ..self.clone() }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// A fresh id of 32 hex digits, as vLLM's: unique within this server, and seeded.
    fn fresh_id(&self) -> String {
        let number = self.answers.fetch_add(1, Ordering::Relaxed);
        let key = RequestKey::new("", b"", &number.to_le_bytes());
        let mut random = timing::Stream::new(self.config.seed, Purpose::Id, &key);
        format!("{:016x}{:016x}", random.next_u64(), random.next_u64())
    }

    /// What is to be done to a request's answer: what it asks for itself, or else what the server was told.
    fn faults(&self, headers: &HeaderMap, random: &mut timing::Stream) -> Result<Vec<Fault>, Refusal> {
        let Some(asked) = headers.get(FAULT_HEADER) else { return Ok(self.config.faults.draw(random)) };
        let rules = Faults::parse_rules(asked.to_str().unwrap_or_default()).map_err(|fault| {
            let message = format!("the header {FAULT_HEADER}: {fault}");
            Refusal::new(StatusCode::BAD_REQUEST, "BadRequestError", &message)
        })?;
        Ok(Faults::new(rules).draw(random))
    }

    /// The texts of an answer's tokens.
    fn answer_text(&self, key: &RequestKey, tokens: u32) -> Vec<&str> {
        let mut random = timing::Stream::new(self.config.seed, Purpose::Text, key);
        let words = self.words.len() as u64;
        (0..tokens)
            .filter_map(|_| self.words.get(usize::try_from(random.below(words)).ok()?))
            .map(String::as_str)
            .collect()
    }
}

/// A response's body: whole, or one event at a time.
pub(crate) type Reply = Either<Full<Bytes>, Either<Stream, Faulted>>;

/// A request's body could not be read to its end: there is nobody left to answer.
#[derive(Debug, thiserror::Error)]
#[error("the request's body broke off: {0}")]
pub(crate) struct BrokenBody(pub(crate) Box<dyn std::error::Error + Send + Sync>);

/// Answers one request.
pub(crate) async fn answer(
    server: Arc<Server>,
    pacer: Pacer,
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, BrokenBody> {
    let path = request.uri().path();
    if path.starts_with("/v1") && !authorized(&server.config, request.method(), request.headers()) {
        return Ok(unauthorized());
    }
    let (allowed, endpoint) = match path {
        "/v1/chat/completions" => (Method::POST, Some(Endpoint::Chat)),
        "/v1/completions" => (Method::POST, Some(Endpoint::Completions)),
        "/v1/models" | "/health" | "/ping" | "/version" => (Method::GET, None),
        _ => return Ok(json(StatusCode::NOT_FOUND, "{\"detail\":\"Not Found\"}")),
    };
    if request.method() != allowed {
        return Ok(method_not_allowed(&allowed));
    }
    if let Some(endpoint) = endpoint {
        return generate(&server, pacer, connection, endpoint, request).await;
    }
    Ok(match path {
        "/v1/models" => {
            let (config, created) = (&server.config, unix_seconds());
            json(
                StatusCode::OK,
                wire::models(&config.model, config.max_model_len, created, &server.fresh_id()),
            )
        }
        "/version" => json(StatusCode::OK, format!("{{\"version\":\"{VLLM_VERSION}\"}}")),
        _ => empty(),
    })
}

async fn generate(
    server: &Server,
    pacer: Pacer,
    connection: Rc<Connection>,
    endpoint: Endpoint,
    request: Request<Incoming>,
) -> Result<Response<Reply>, BrokenBody> {
    let (head, body) = request.into_parts();
    // A length that is told is refused before anything is read; one that is not, when it has been exceeded.
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Ok(refuse(Refusal::too_large(MAX_BODY_BYTES)));
    }
    let body = match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Ok(refuse(Refusal::too_large(MAX_BODY_BYTES)));
        }
        Err(error) => return Err(BrokenBody(error)),
    };
    let arrival_ns = connection.arrival_ns();
    if !is_json(&head.headers) {
        return Ok(refuse(Refusal::unsupported_media()));
    }
    let asked = match request::parse(endpoint, &body, &server.config) {
        Ok(asked) => asked,
        Err(refusal) => return Ok(refuse(refusal)),
    };

    let request_id = head.headers.get("x-request-id").map_or(&b""[..], HeaderValue::as_bytes);
    let key = RequestKey::new(endpoint.path(), request_id, &body);
    let mut fault_random = timing::Stream::new(server.config.seed, Purpose::Fault, &key);
    let faults = match server.faults(&head.headers, &mut fault_random) {
        Ok(faults) => faults,
        Err(refusal) => return Ok(refuse(refusal)),
    };
    let suffix = match (request_id, asked.id) {
        (b"", None) => server.fresh_id(),
        (b"", Some(id)) => id,
        (id, _) => String::from_utf8_lossy(id).into_owned(),
    };
    let id = format!("{}{suffix}", endpoint.id_prefix());
    let tokens = server.answer_text(&key, asked.max_tokens);
    let answer = Answer {
        endpoint,
        id: &id,
        created: unix_seconds(),
        model: &server.config.model,
        tokens: &tokens,
        prompt_tokens: asked.prompt_tokens,
        prompt_ids: &asked.prompt_ids,
        usage: asked.usage,
    };
    let random = timing::Stream::new(server.config.seed, Purpose::Timing, &key);
    let token_due_ns = server.config.timing.due_ns(arrival_ns, asked.max_tokens, random);
    let record = Record {
        id: id.clone(),
        path: endpoint.path().to_owned(),
        arrival_ns,
        read_ns: connection.read_ns(),
        prompt_tokens: asked.prompt_tokens as u64,
        completion_tokens: tokens.len() as u64,
        ..Record::empty()
    };

    if !faults.is_empty() {
        let (events, due_ns) = if asked.stream {
            let frames = wire::stream(&answer);
            let (kinds, due_ns) = (frames.kinds().to_vec(), event_due_ns(frames.kinds(), &token_due_ns));
            (kinds.into_iter().zip(frames).collect(), due_ns)
        } else {
            let due_ns = token_due_ns.last().copied().unwrap_or(arrival_ns);
            (vec![(EventKind::Body, wire::body(&answer).into())], vec![due_ns])
        };
        let answer =
            faulted::Answer { events, deadlines: due_ns.into(), record, faults, random: fault_random };
        return answer.begin(&server.log, pacer, connection).await.into_response(asked.stream);
    }
    if asked.stream {
        let frames = wire::stream(&answer);
        let due_ns = event_due_ns(frames.kinds(), &token_due_ns);
        let events = frames.kinds().to_vec();
        connection.begin(server.log.begin(Record { events, due_ns: due_ns.clone(), ..record }));
        let body = Stream::new(frames, due_ns.into(), pacer, connection);
        return Ok(streamed(Either::Left(body)));
    }
    let body = wire::body(&answer);
    let due_ns = token_due_ns.last().copied().unwrap_or(arrival_ns);
    let events = vec![EventKind::Body];
    connection.begin(server.log.begin(Record { events, due_ns: vec![due_ns], ..record }));
    pacer.sleep_until(due_ns).await;
    let response = json(StatusCode::OK, body);
    connection.hand_over(Part::Event);
    Ok(response)
}

/// When each event is due: the role with the first token, as vLLM sends it with the engine's first output, and what
/// follows the last token with that.
fn event_due_ns(kinds: &[EventKind], token_due_ns: &[u64]) -> Vec<u64> {
    let mut tokens = token_due_ns.iter().copied();
    let mut at_ns = token_due_ns.first().copied().unwrap_or_default();
    kinds
        .iter()
        .map(|&kind| {
            if kind == EventKind::Token {
                at_ns = tokens.next().unwrap_or(at_ns);
            }
            at_ns
        })
        .collect()
}

/// vLLM guards what is below `/v1`, but for the preflight requests of browsers.
fn authorized(config: &Config, method: &Method, headers: &HeaderMap) -> bool {
    let Some(key) = &config.api_key else { return true };
    let given = headers.get(AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    method == Method::OPTIONS || given.strip_prefix(b"Bearer ").is_some_and(|given| given == key.as_bytes())
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
const ORIGIN: HeaderValue = HeaderValue::from_static("Origin");

fn streamed(body: Either<Stream, Faulted>) -> Response<Reply> {
    // hyper adds `transfer-encoding: chunked` at the end, where uvicorn has it.
    response(StatusCode::OK, [(CONTENT_TYPE, EVENT_STREAM), (VARY, ORIGIN)], Either::Right(body))
}

impl Remains {
    fn into_response(self, is_stream: bool) -> Result<Response<Reply>, BrokenBody> {
        Ok(match self {
            Self::Body(body) if is_stream => streamed(Either::Right(body)),
            Self::Body(body) => {
                let headers = [(CONTENT_LENGTH, body.length().into()), (CONTENT_TYPE, JSON), (VARY, ORIGIN)];
                response(StatusCode::OK, headers, Either::Right(Either::Right(body)))
            }
            Self::Nothing => return Err(BrokenBody("closed on purpose".into())),
            Self::Status(status, retry_after) => {
                let body = wire::error(status, "InjectedError", "injected by the mock server");
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let mut response = json(status, body);
                response.headers_mut().extend(retry_after.map(|seconds| (RETRY_AFTER, seconds.into())));
                response
            }
        })
    }
}

fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Reply> {
    let body = body.into();
    let headers = [(CONTENT_LENGTH, body.len().into()), (CONTENT_TYPE, JSON), (VARY, ORIGIN)];
    response(status, headers, Either::Left(body.into()))
}

fn refuse(refusal: Refusal) -> Response<Reply> {
    json(refusal.status, refusal.body)
}

fn empty() -> Response<Reply> {
    response(StatusCode::OK, [(CONTENT_LENGTH, 0.into()), (VARY, ORIGIN)], Either::Left(Full::default()))
}

fn method_not_allowed(allowed: &Method) -> Response<Reply> {
    let body = Bytes::from_static(b"{\"detail\":\"Method Not Allowed\"}");
    let allow = HeaderValue::from_static(if allowed == Method::GET { "GET" } else { "POST" });
    let headers = [(ALLOW, allow), (CONTENT_LENGTH, body.len().into()), (CONTENT_TYPE, JSON), (VARY, ORIGIN)];
    response(StatusCode::METHOD_NOT_ALLOWED, headers, Either::Left(body.into()))
}

/// Made outside vLLM's usual layers, so without `vary`.
fn unauthorized() -> Response<Reply> {
    let body = Bytes::from_static(b"{\"error\":\"Unauthorized\"}");
    let headers = [(CONTENT_LENGTH, body.len().into()), (CONTENT_TYPE, JSON)];
    response(StatusCode::UNAUTHORIZED, headers, Either::Left(body.into()))
}

/// The headers stand in the order given, which is the order on the wire, after the two that uvicorn puts first.
fn response(
    status: StatusCode,
    headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    body: Reply,
) -> Response<Reply> {
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_seconds()));
    let mut response = Response::new(body);
    *response.status_mut() = status;
    // A date is always a valid header.
    let date = HeaderValue::from_maybe_shared(date).unwrap_or(HeaderValue::from_static(""));
    let first = [(DATE, date), (SERVER, HeaderValue::from_static("uvicorn"))];
    response.headers_mut().extend(first.into_iter().chain(headers));
    response
}

/// The wall clock, for what is shown and never measured: `created` and `date`.
#[expect(
    clippy::disallowed_methods,
    reason = "the protocol has Unix times in it; nothing is computed from them"
)]
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_due_with_their_tokens() {
        use EventKind::{Done, Role, Token, Usage};
        assert_eq!(event_due_ns(&[Role, Token, Token, Usage, Done], &[10, 20]), [10, 10, 20, 20, 20]);
        assert_eq!(event_due_ns(&[Token, Done], &[10]), [10, 10]);
    }

    /// A capture's head, as status line and headers.
    macro_rules! captured_head {
        ($name:literal) => {{
            let capture = include_str!(concat!("../fixtures/vllm-0.11.0/", $name, ".http"));
            capture.split_once("\r\n\r\n").unwrap().0
        }};
    }

    /// Names in order, and the values that do not depend on the moment.
    fn head(response: &Response<Reply>) -> Vec<String> {
        let mut lines = vec![format!("HTTP/1.1 {}", response.status())];
        for (name, value) in response.headers() {
            let value = if name == DATE { "DATE" } else { value.to_str().unwrap() };
            lines.push(format!("{name}: {value}"));
        }
        lines
    }

    fn expected(capture: &str) -> Vec<String> {
        let lines = capture.lines();
        lines
            .map(|line| if line.starts_with("date: ") { "date: DATE".to_owned() } else { line.to_owned() })
            .collect()
    }

    #[test]
    fn heads_are_vllms() {
        assert_eq!(head(&empty()), expected(captured_head!("get_health")));
        let not_found = json(StatusCode::NOT_FOUND, "{\"detail\":\"Not Found\"}");
        assert_eq!(head(&not_found), expected(captured_head!("get_notfound")));
        assert_eq!(head(&method_not_allowed(&Method::POST)), expected(captured_head!("err_method")));
    }
}
