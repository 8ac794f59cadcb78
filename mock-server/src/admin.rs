//! `/admin`: what the server says of itself, and how it is changed while it runs. Not vLLM's, and needs no key: the
//! server is for tests, on a network that its owner trusts.
//!
//! | | |
//! |---|---|
//! | `GET /admin/config` | every setting and its value, as the flags name them |
//! | `PUT /admin/config` | some of them, as a JSON object; the next request is answered by the new ones |
//! | `GET /admin/lateness` | [how late](crate::truth::Lateness) tokens were written |
//! | `GET /admin/oracle` | the figures that a client without an error of its own would report |

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Limited};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use crate::api::{BrokenBody, Reply};
use crate::server::Shared;
use crate::settings::Settings;

/// What the paths begin with.
pub(crate) const PREFIX: &str = "/admin/";

/// The largest body that is read, in bytes.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Answers one request.
pub(crate) async fn answer(
    shared: &Shared,
    request: Request<Incoming>,
) -> Result<Response<Reply>, BrokenBody> {
    let (head, body) = request.into_parts();
    let server = shared.server();
    Ok(match (head.uri.path(), &head.method) {
        ("/admin/config", &Method::GET) => configuration(shared),
        ("/admin/config", &Method::PUT) => match Limited::new(body, MAX_BODY_BYTES).collect().await {
            Ok(body) => match change(shared, &body.to_bytes()) {
                Ok(()) => configuration(shared),
                Err(fault) => refuse(StatusCode::BAD_REQUEST, &fault),
            },
            Err(error) => return Err(BrokenBody(error)),
        },
        ("/admin/lateness", &Method::GET) => match serde_json::to_string(&server.log().meter().summary()) {
            Ok(lateness) => reply(StatusCode::OK, lateness),
            Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        },
        ("/admin/oracle", &Method::GET) => match &server.config().oracle {
            Some(oracle) => reply(StatusCode::OK, oracle.figures(&server.log().kept())),
            None => refuse(StatusCode::NOT_FOUND, "this server has no oracle; `tokentape mock` has"),
        },
        ("/admin/config", _) => not_allowed("GET, PUT"),
        ("/admin/lateness" | "/admin/oracle", _) => not_allowed("GET"),
        _ => refuse(StatusCode::NOT_FOUND, "there are /admin/config, /admin/lateness and /admin/oracle"),
    })
}

fn configuration(shared: &Shared) -> Response<Reply> {
    match shared.settings() {
        Some(settings) => reply(StatusCode::OK, settings.to_json().to_string()),
        None => refuse(StatusCode::NOT_FOUND, "this server was not set by flags"),
    }
}

/// Lays new settings over those there are. The error is a whole sentence.
fn change(shared: &Shared, body: &[u8]) -> Result<(), String> {
    let _alone = shared.edit();
    let settings = shared.settings().ok_or("this server was not set by flags")?;
    let map: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| format!("the body is not a JSON object: {error}"))?;
    let over = Settings::of_json(&map)?;
    if let Some(name) = over.fixed() {
        return Err(format!("`{name}` is decided when the server starts"));
    }
    if let Some(name) = over.needs_file() {
        return Err(format!("`{name}` takes no law from a file here"));
    }
    let settings = settings.overlaid(over);
    let config = settings.parse()?.apply(shared.server().config().clone());
    shared.change(config, Some(settings));
    Ok(())
}

fn refuse(status: StatusCode, message: &str) -> Response<Reply> {
    reply(status, json!({"error": {"message": message, "code": status.as_u16()}}).to_string())
}

fn not_allowed(allowed: &'static str) -> Response<Reply> {
    let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, "another method is meant");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn reply(status: StatusCode, body: String) -> Response<Reply> {
    let mut response = Response::new(Either::Left(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
