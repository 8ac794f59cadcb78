//! The routes: from a request to its response.

mod generate;
pub(crate) mod head;
mod respond;
mod send;
mod whole;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use serde_json::Value;
use tokentape_pacer::{Pacer, monotonic_ns};
use tokio::task::spawn_blocking;

use crate::config::Config;
use crate::deadlines::Pace;
use crate::engine;
use crate::engine::driver::Driver;
use crate::faulted::Faulted;
use crate::faults::{Fault, Faults};
use crate::metrics::{Exchange, Metrics};
use crate::playback;
use crate::profile::{Shape, Traits};
use crate::recordings::{Call, Played};
use crate::refusal::Refusal;
use crate::request::{self, Vocabulary};
use crate::stream::Stream;
use crate::timing::{self, Circumstances, Purpose, RequestKey, UnderWay};
use crate::transport::Connection;
use crate::truth::Log;
use crate::wire::{self, Endpoint};
use crate::{embeddings, responses};
use head::{empty, json, refuse, unix_seconds};
use whole::Whole;

/// The largest request body that is read, in bytes.
const MAX_BODY_BYTES: usize = 64 << 20;

/// The header by which a request asks for faults of its own.
const FAULT_HEADER: &str = "x-mock-fault";

/// What all workers share.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    config: Config,
    vocabulary: Vocabulary,
    fingerprint: String,
    log: Log,
    metrics: Arc<Metrics>,
    answers: Arc<AtomicU64>,
    under_way: UnderWay,
    driver: Option<Driver>,
}

impl Server {
    pub(crate) fn new(config: Config, log: Log, driver: Option<Driver>) -> Self {
        let vocabulary = Vocabulary::of(&config.tokenizer);
        let (fingerprint, metrics) = (fingerprint(&config), metrics(&config));
        let (answers, under_way) = (Arc::default(), UnderWay::default());
        Self { config, vocabulary, fingerprint, log, metrics, answers, under_way, driver }
    }

    /// The same server, set otherwise, but for what is decided when it starts. Metrics that name what has changed begin
    /// anew.
    pub(crate) fn with_config(&self, config: Config) -> Self {
        let Config { tokenizer, engine, workers, tls, truth_log, keep_records, spin_ns, .. } =
            self.config.clone();
        let config = Config { tokenizer, engine, workers, tls, truth_log, keep_records, spin_ns, ..config };
        let named = |config: &Config| (config.wire.profile, config.model.clone(), config.max_model_len);
        let metrics =
            if named(&config) == named(&self.config) { Arc::clone(&self.metrics) } else { metrics(&config) };
        Self { fingerprint: fingerprint(&config), metrics, config, ..self.clone() }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    fn traits(&self) -> Traits {
        self.config.wire.profile.traits()
    }

    /// What is to be done to a request's answer: what it asks for itself, or else what the server was told.
    fn faults(&self, headers: &HeaderMap, random: &mut timing::Stream) -> Result<Vec<Fault>, Refusal> {
        let Some(asked) = headers.get(FAULT_HEADER) else { return Ok(self.config.faults.draw(random)) };
        let rules = Faults::parse_rules(asked.to_str().unwrap_or_default()).map_err(|fault| {
            let message = format!("the header {FAULT_HEADER}: {fault}");
            Refusal::new(self.traits(), StatusCode::BAD_REQUEST, "BadRequestError", &message, None)
        })?;
        Ok(self.config.faults.draw_asked(&rules, random))
    }

    /// What decides when the tokens of an answer are due: the engine, or the timing model as the request's headers
    /// change it.
    fn pace(
        &self,
        headers: &HeaderMap,
        key: &RequestKey,
        arrival_ns: u64,
        (prompt_tokens, max_tokens): (usize, u32),
        body: &[u8],
    ) -> Result<Pace, Refusal> {
        let prompt_tokens = u32::try_from(prompt_tokens).unwrap_or(u32::MAX);
        let timing = self.config.timing.for_request(headers).map_err(|words| Refusal::bad_request(&words))?;
        let Some(driver) = &self.driver else {
            let (others, ticket) = self.under_way.enter();
            let random = timing::Stream::new(self.config.seed, Purpose::Timing, key);
            let circumstances = Circumstances { prompt_tokens, others };
            return Ok(Pace::Model(timing.due_ns(arrival_ns, max_tokens, circumstances, random), ticket));
        };
        if timing != self.config.timing {
            let words = "x-mock-ttft and x-mock-itl set nothing here: an engine keeps the time";
            return Err(Refusal::bad_request(words));
        }
        let request = engine::Request {
            prompt_tokens,
            max_tokens,
            prefix: engine::prefix(body, prompt_tokens, driver.block_tokens()),
            seed: key.seed(),
            tag: 0,
        };
        let feed =
            driver.submit(arrival_ns, request).map_err(|error| Refusal::bad_request(&error.to_string()))?;
        Ok(Pace::Engine(feed))
    }

    /// 32 random hex digits: unique within this server, and seeded.
    fn fresh_digits(&self) -> String {
        let number = self.answers.fetch_add(1, Ordering::Relaxed);
        let key = RequestKey::new("", b"", &number.to_le_bytes());
        let mut random = timing::Stream::new(self.config.seed, Purpose::Id, &key);
        format!("{:016x}{:016x}", random.next_u64(), random.next_u64())
    }

    /// A fresh id, as long as the profile's are.
    fn fresh_id(&self) -> String {
        let mut id = self.fresh_digits();
        id.truncate(self.traits().id_digits);
        id
    }

    /// What an answer's id ends in: what the request's header or else its body asks for, or a fresh id.
    fn id_suffix(&self, header: &[u8], body: Option<&str>) -> String {
        match (header, body) {
            (b"", None) => self.fresh_id(),
            (b"", Some(id)) => id.to_owned(),
            (id, _) => String::from_utf8_lossy(id).into_owned(),
        }
    }
}

/// The fingerprint that answers carry.
fn fingerprint(config: &Config) -> String {
    // vLLM's ends in a digest of its configuration; here only the model can differ.
    let digest = blake3::hash(config.model.as_bytes()).to_hex();
    let traits = config.wire.profile.traits();
    match traits.shape {
        Shape::OpenAi => format!("fp_{}", &digest[..10]),
        _ => format!("vllm-{}-{}", traits.version, &digest[..8]),
    }
}

/// Metrics with nothing counted yet.
fn metrics(config: &Config) -> Arc<Metrics> {
    Arc::new(Metrics::new(config.wire.profile, &config.model, config.max_model_len, unix_seconds()))
}

/// A response's body: whole, or one event at a time.
pub(crate) type Reply = Either<Whole, Either<Stream, Faulted>>;

/// A request's body could not be read to its end: there is nobody left to answer.
#[derive(Debug, thiserror::Error)]
#[error("the request's body broke off: {0}")]
pub(crate) struct BrokenBody(pub(crate) Box<dyn std::error::Error + Send + Sync>);

/// What a path is for.
#[derive(Clone, Copy, Debug)]
enum Route {
    Generate(Endpoint),
    Models,
    Health,
    Ping,
    Version,
    Load,
    Metrics,
    Tokenize,
    Detokenize,
    Responses,
    Embeddings,
}

impl Route {
    fn find(path: &str) -> Option<Self> {
        Some(match path {
            "/v1/chat/completions" => Self::Generate(Endpoint::Chat),
            "/v1/completions" => Self::Generate(Endpoint::Completions),
            "/v1/models" => Self::Models,
            "/health" => Self::Health,
            "/ping" => Self::Ping,
            "/version" => Self::Version,
            "/load" => Self::Load,
            "/metrics" => Self::Metrics,
            "/tokenize" => Self::Tokenize,
            "/detokenize" => Self::Detokenize,
            "/v1/responses" => Self::Responses,
            "/v1/embeddings" => Self::Embeddings,
            _ => return None,
        })
    }

    /// The route of `path` on the profile's server: `OpenAI`'s has none of vLLM's own, but for the check that it is up.
    fn on(shape: Shape, path: &str) -> Option<Self> {
        Self::find(path).filter(|route| {
            let shared = matches!(
                route,
                Self::Generate(_) | Self::Responses | Self::Embeddings | Self::Models | Self::Health
            );
            shape != Shape::OpenAi || shared
        })
    }

    /// The name under which requests to it are counted; those about the server itself are not.
    const fn handler(self) -> Option<&'static str> {
        Some(match self {
            Self::Generate(endpoint) => endpoint.path(),
            Self::Models => "/v1/models",
            Self::Tokenize => "/tokenize",
            Self::Detokenize => "/detokenize",
            Self::Responses => "/v1/responses",
            Self::Embeddings => "/v1/embeddings",
            Self::Health | Self::Ping | Self::Version | Self::Load | Self::Metrics => return None,
        })
    }

    const fn method(self) -> Method {
        match self {
            Self::Models | Self::Health | Self::Ping | Self::Version | Self::Load | Self::Metrics => {
                Method::GET
            }
            _ => Method::POST,
        }
    }
}

/// Answers one request.
pub(crate) async fn answer(
    server: Arc<Server>,
    pacer: Pacer,
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, BrokenBody> {
    let request = request.map(Upload::Arriving);
    let closes = head::closes(request.headers());
    let request_id = server.config.wire.enable_request_id_headers.then(|| {
        let given = request.headers().get(head::REQUEST_ID).cloned();
        // Hex digits are always a valid header.
        given.or_else(|| HeaderValue::from_maybe_shared(server.fresh_digits()).ok())
    });
    let path = request.uri().path();
    let mut response =
        if path.starts_with("/v1") && !authorized(&server.config, request.method(), request.headers()) {
            return Ok(head::finish(head::unauthorized(), None, closes));
        } else if let Some(response) = head::preflight(request.method(), request.headers()) {
            response
        } else {
            let found = Route::on(server.traits().shape, path);
            let exchange = exchange(&server, found, &request);
            let arrival_ns = connection.arrival_ns();
            let response = match played(&server, &pacer, &connection, found, request).await? {
                Either::Left(response) => response,
                Either::Right(request) => {
                    route(&server, pacer, connection, found, request, exchange.clone()).await?
                }
            };
            count(&server, exchange, &response, arrival_ns);
            response
        };
    response = head::finish(response, request_id.flatten(), closes);
    Ok(response)
}

/// What is known of an exchange from its request; `None` where it is not counted.
fn exchange(server: &Server, route: Option<Route>, request: &Request<Upload>) -> Option<Exchange> {
    let handler = match route {
        None => "none",
        // Later servers do not know a path by another method.
        Some(route) if request.method() != route.method() && server.traits().shape > Shape::First => "none",
        Some(route) => route.handler()?,
    };
    Some(Exchange {
        handler,
        method: request.method().clone(),
        status: StatusCode::OK,
        request_bytes: length(request.headers()),
        response_bytes: 0,
        duration_ns: 0,
    })
}

/// Counts an exchange that has ended with its response; a stream is counted when that has.
fn count(server: &Server, exchange: Option<Exchange>, response: &Response<Reply>, arrival_ns: u64) {
    if let (Some(exchange), Either::Left(_)) = (exchange, response.body()) {
        let response_bytes = length(response.headers());
        let duration_ns = monotonic_ns().saturating_sub(arrival_ns);
        let status = response.status();
        server.metrics.exchanged(&Exchange { status, response_bytes, duration_ns, ..exchange });
    }
}

/// The length that a head tells.
fn length(headers: &HeaderMap) -> u64 {
    let told = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    told.and_then(|value| value.parse().ok()).unwrap_or(0)
}

async fn route(
    server: &Server,
    pacer: Pacer,
    connection: Rc<Connection>,
    route: Option<Route>,
    request: Request<Upload>,
    exchange: Option<Exchange>,
) -> Result<Response<Reply>, BrokenBody> {
    let Some(route) = route else {
        return Ok(json(StatusCode::NOT_FOUND, "{\"detail\":\"Not Found\"}"));
    };
    if request.method() != route.method() {
        return Ok(head::method_not_allowed(&route.method()));
    }
    let config = &server.config;
    Ok(match route {
        Route::Health | Route::Ping => empty(),
        Route::Version => json(StatusCode::OK, format!("{{\"version\":\"{}\"}}", server.traits().version)),
        Route::Metrics => {
            let (metrics, engine) =
                (Arc::clone(&server.metrics), server.driver.as_ref().map(Driver::standing));
            // A page takes too long for a thread that has tokens to write. It is lost only where the server ends.
            let page = spawn_blocking(move || metrics.text(engine)).await;
            head::metrics(page.map_err(|lost| BrokenBody(lost.into()))?)
        }
        Route::Load => json(StatusCode::OK, "{\"server_load\":0}"),
        Route::Models => {
            let names: Vec<_> =
                request::served(config).into_iter().map(|name| (name, server.fresh_id())).collect();
            let root = config.wire.model_root.as_deref().unwrap_or(&config.model);
            json(StatusCode::OK, wire::models(&names, root, config.max_model_len, unix_seconds()))
        }
        Route::Generate(_) | Route::Responses | Route::Embeddings | Route::Tokenize | Route::Detokenize => {
            let (parts, body) = request.into_parts();
            let body = match read(server, body).await? {
                Ok(body) => body,
                Err(refusal) => return Ok(refuse(refusal)),
            };
            if !head::is_json(&parts.headers) {
                return Ok(refuse(Refusal::unsupported_media(server.traits())));
            }
            match route {
                Route::Generate(endpoint) => {
                    let asked = generate::Asked { endpoint, parts: &parts, body: &body, exchange };
                    generate::generate(server, pacer, connection, asked).await?
                }
                Route::Tokenize => {
                    tokenize(server, &body).map_or_else(refuse, |body| json(StatusCode::OK, body))
                }
                Route::Responses | Route::Embeddings => {
                    let make =
                        if matches!(route, Route::Responses) { respond::respond } else { respond::embed };
                    match make(server, &connection, &parts.headers, &body, exchange) {
                        Ok(ready) => ready.send(server, pacer, connection).await?,
                        Err(refusal) => refuse(refusal),
                    }
                }
                _ => detokenize(server, &body).map_or_else(refuse, |body| json(StatusCode::OK, body)),
            }
        }
    })
}

/// Whether a body can be answered at `path`: all of its reading and nothing else, for the fuzzer.
#[must_use]
pub fn read_request(path: &str, body: &[u8], config: &Config) -> bool {
    match Route::find(path) {
        Some(Route::Generate(endpoint)) => {
            request::parse(endpoint, body, config, Vocabulary::of(&config.tokenizer)).is_ok()
        }
        Some(Route::Responses) => responses::parse(body, config).is_ok(),
        Some(Route::Embeddings) => embeddings::parse(body, config).is_ok(),
        _ => false,
    }
}

/// A request's body.
#[derive(Debug)]
enum Upload {
    /// Still to be read.
    Arriving(Incoming),
    /// Read before.
    Arrived(Bytes),
}

/// Plays a recorded response, where there are recordings; else gives the request back.
async fn played(
    server: &Server,
    pacer: &Pacer,
    connection: &Rc<Connection>,
    route: Option<Route>,
    request: Request<Upload>,
) -> Result<Either<Response<Reply>, Request<Upload>>, BrokenBody> {
    let Some(recordings) = &server.config.recordings else { return Ok(Either::Right(request)) };
    let (parts, body) = request.into_parts();
    let body = match read(server, body).await? {
        Ok(body) => body,
        Err(refusal) => return Ok(Either::Left(refuse(refusal))),
    };
    let path = parts.uri.path_and_query().map_or(parts.uri.path(), PathAndQuery::as_str);
    let call = Call { method: parts.method.as_str(), path, body: &body };
    let recorded = match recordings.play(&call) {
        Played::Response(recorded) => recorded,
        // Only the server itself can tell of itself.
        Played::Missing if route.is_none_or(|route| route.method() == Method::POST) => {
            let message = format!(
                "There is no recorded answer to {} {path} with this body of {} bytes (BLAKE3 {}).",
                parts.method,
                body.len(),
                blake3::hash(&body).to_hex()
            );
            let refusal =
                Refusal::new(server.traits(), StatusCode::NOT_FOUND, "NotFoundError", &message, None);
            return Ok(Either::Left(refuse(refusal)));
        }
        Played::Left | Played::Missing => {
            return Ok(Either::Right(Request::from_parts(parts, Upload::Arrived(body))));
        }
    };
    let (_, ticket) = server.under_way.enter();
    let on = (pacer.clone(), Rc::clone(connection));
    match playback::begin(recorded, parts.uri.path(), &server.log, on, ticket).await {
        Some(playback) => Ok(Either::Left(head::played(playback))),
        None => Err(BrokenBody("the recorded response has no head".into())),
    }
}

/// The whole body, or why it is refused. A length that is told is refused before anything is read; one that is not, when
/// it has been exceeded.
async fn read(server: &Server, body: Upload) -> Result<Result<Bytes, Refusal>, BrokenBody> {
    let body = match body {
        Upload::Arriving(body) => body,
        Upload::Arrived(body) => return Ok(Ok(body)),
    };
    let too_large = || Refusal::too_large(server.traits(), MAX_BODY_BYTES);
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Ok(Err(too_large()));
    }
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => Ok(Ok(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(Err(too_large())),
        Err(error) => Err(BrokenBody(error)),
    }
}

/// `/tokenize`: the ids of a prompt or of a chat.
fn tokenize(server: &Server, body: &[u8]) -> Result<String, Refusal> {
    let (config, traits) = (&server.config, server.traits());
    let body = request::json(body, config, "tokenize", "/tokenize")?;
    let fault = |fault: tokentape_tokenizer::Error| Refusal::check(traits, &fault.to_string(), None);
    let ids = match (&body["prompt"], &body["messages"]) {
        (Value::String(text), _) => config.tokenizer.encode(text).map_err(fault)?,
        (_, messages @ Value::Array(_)) => {
            let add = body["add_generation_prompt"].as_bool().unwrap_or(true);
            let text = config.tokenizer.render_chat(messages, add).map_err(fault)?;
            config.tokenizer.encode(&text).map_err(fault)?
        }
        _ => return Err(Refusal::check(traits, "either a prompt or messages must be given", None)),
    };
    let texts = body["return_token_strs"].as_bool().unwrap_or(false).then(|| {
        ids.iter().map(|&id| config.tokenizer.token(id).unwrap_or_default()).collect::<Vec<String>>()
    });
    Ok(wire::tokenized(&ids, config.max_model_len, texts.as_deref()))
}

/// `/detokenize`: the text of ids.
fn detokenize(server: &Server, body: &[u8]) -> Result<String, Refusal> {
    let (config, traits) = (&server.config, server.traits());
    let body = request::json(body, config, "detokenize", "/detokenize")?;
    let ids: Option<Vec<u32>> = body["tokens"]
        .as_array()
        .and_then(|ids| ids.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect());
    let ids = ids.ok_or_else(|| Refusal::check(traits, "`tokens` must be a list of token ids", None))?;
    let text =
        config.tokenizer.decode(&ids).map_err(|fault| Refusal::check(traits, &fault.to_string(), None))?;
    Ok(format!("{{\"prompt\":{}}}", wire::json_string(&text)))
}

/// vLLM guards what is below `/v1`, but for the preflight requests of browsers.
fn authorized(config: &Config, method: &Method, headers: &HeaderMap) -> bool {
    let Some(key) = &config.api_key else { return true };
    let given = headers.get(AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    method == Method::OPTIONS || given.strip_prefix(b"Bearer ").is_some_and(|given| given == key.as_bytes())
}

#[cfg(test)]
mod tests {
    use tokentape_tokenizer::Tokenizer;

    use super::*;
    use crate::timing::Timing;

    #[test]
    fn what_is_decided_at_the_start_stays() {
        let embedded = || Arc::new(Tokenizer::embedded().unwrap());
        let config = Config::new("m", embedded(), Timing::fixed(0, 0));
        let (log, _) = Log::new(None, config.truth_header(), 0).unwrap();
        let server = Server::new(config.clone(), log, None);
        let engine = Some(engine::Profile::load("fixed").unwrap());
        let asked = Config { tokenizer: embedded(), engine, seed: 7, ..config.clone() };
        let changed = server.with_config(asked).config;
        assert!(Arc::ptr_eq(&changed.tokenizer, &config.tokenizer));
        assert_eq!((changed.engine, changed.seed), (None, 7));
    }
}
