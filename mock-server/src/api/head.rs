//! The heads of responses: status and headers, in the order in which uvicorn has them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CONNECTION, CONTENT_LENGTH,
    CONTENT_TYPE, DATE, HeaderName, ORIGIN, RETRY_AFTER, SERVER, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::Either;

use super::Reply;
use super::whole::Whole;
use crate::faulted::Faulted;
use crate::playback::Playback;
use crate::refusal::Refusal;
use crate::stream::Stream;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=1.0.0; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
const CLOSE: HeaderValue = HeaderValue::from_static("close");
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(crate) fn streamed(body: Either<Stream, Faulted>) -> Response<Reply> {
    // hyper adds `transfer-encoding: chunked` at the end, where uvicorn has it.
    response(StatusCode::OK, [(CONTENT_TYPE, EVENT_STREAM), (VARY, BY_ORIGIN)], Either::Right(body))
}

pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Reply> {
    let body = body.into();
    let headers = [(CONTENT_LENGTH, body.len().into()), (CONTENT_TYPE, JSON), (VARY, BY_ORIGIN)];
    response(status, headers, Either::Left(body.into()))
}

/// A whole body that has faults in it.
pub(crate) fn faulted(body: Faulted) -> Response<Reply> {
    let headers = [(CONTENT_LENGTH, body.length().into()), (CONTENT_TYPE, JSON), (VARY, BY_ORIGIN)];
    response(StatusCode::OK, headers, Either::Right(Either::Right(body)))
}

/// A recorded response, with its own headers and no others.
pub(crate) fn played(playback: Playback) -> Response<Reply> {
    let Playback { status, headers, body } = playback;
    let mut response = Response::new(Either::Right(Either::Right(body)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A status that a fault puts in an answer's place.
pub(crate) fn injected(refusal: Refusal, retry_after: Option<u32>) -> Response<Reply> {
    let mut response = refuse(refusal);
    response.headers_mut().extend(retry_after.map(|seconds| (RETRY_AFTER, seconds.into())));
    response
}

pub(crate) fn refuse(refusal: Refusal) -> Response<Reply> {
    json(refusal.status, refusal.body)
}

pub(crate) fn metrics(body: String) -> Response<Reply> {
    let headers = [(CONTENT_LENGTH, body.len().into()), (CONTENT_TYPE, METRICS), (VARY, BY_ORIGIN)];
    response(StatusCode::OK, headers, Either::Left(body.into()))
}

pub(crate) fn empty() -> Response<Reply> {
    let headers = [(CONTENT_LENGTH, 0.into()), (VARY, BY_ORIGIN)];
    response(StatusCode::OK, headers, Either::Left(Whole::default()))
}

pub(crate) fn method_not_allowed(allowed: &Method) -> Response<Reply> {
    let body = Bytes::from_static(b"{\"detail\":\"Method Not Allowed\"}");
    let allow = HeaderValue::from_static(if allowed == Method::GET { "GET" } else { "POST" });
    let headers =
        [(ALLOW, allow), (CONTENT_LENGTH, body.len().into()), (CONTENT_TYPE, JSON), (VARY, BY_ORIGIN)];
    response(StatusCode::METHOD_NOT_ALLOWED, headers, Either::Left(body.into()))
}

/// Made outside vLLM's usual layers, so without `vary`.
pub(crate) fn unauthorized() -> Response<Reply> {
    let body = Bytes::from_static(b"{\"error\":\"Unauthorized\"}");
    let headers = [(CONTENT_LENGTH, body.len().into()), (CONTENT_TYPE, JSON)];
    response(StatusCode::UNAUTHORIZED, headers, Either::Left(body.into()))
}

/// What a browser asks before it sends a request from another origin; vLLM's default allows none.
pub(crate) fn preflight(method: &Method, headers: &HeaderMap) -> Option<Response<Reply>> {
    const VARIES: &str = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers, \
                          Access-Control-Request-Private-Network";
    const METHODS: &str = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, QUERY";
    let asks = method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if !asks {
        return None;
    }
    let body = Bytes::from_static(b"Disallowed CORS origin");
    let wanted = headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let head = [
        (VARY, HeaderValue::from_static(VARIES)),
        (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS)),
        (ACCESS_CONTROL_MAX_AGE, 600.into()),
    ];
    let tail = [(CONTENT_LENGTH, body.len().into()), (CONTENT_TYPE, TEXT)];
    let wanted = wanted.map(|wanted| (ACCESS_CONTROL_ALLOW_HEADERS, wanted));
    let headers = head.into_iter().chain(wanted).chain(tail);
    Some(response(StatusCode::BAD_REQUEST, headers, Either::Left(body.into())))
}

/// What every response says after its own headers: the request's id, where the server tells it, and that the connection
/// ends, where the client asked for that.
pub(crate) fn finish(
    mut response: Response<Reply>,
    request_id: Option<HeaderValue>,
    closes: bool,
) -> Response<Reply> {
    let headers = response.headers_mut();
    if let Some(id) = request_id {
        headers.insert(REQUEST_ID, id);
    }
    if closes {
        headers.insert(CONNECTION, CLOSE);
    }
    response
}

/// Whether the client asked for the connection to end with the response.
pub(crate) fn closes(headers: &HeaderMap) -> bool {
    headers.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// The request's `X-Request-Id`, empty where it brought none.
pub(crate) fn request_id(headers: &HeaderMap) -> &[u8] {
    headers.get(REQUEST_ID).map_or(&[], HeaderValue::as_bytes)
}

pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
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
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
