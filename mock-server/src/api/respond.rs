//! The two endpoints that have a wire of their own: `/v1/responses` and `/v1/embeddings`.

use std::future::poll_fn;
use std::rc::Rc;

use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Either;
use tokentape_pacer::Pacer;

use super::generate::event_tokens;
use super::head::{json, refuse, streamed, unix_seconds};
use super::{Reply, Server};
use crate::deadlines::Pace;
use crate::stream::Stream;
use crate::timing::RequestKey;
use crate::transport::{Connection, Part};
use crate::truth::{EventKind, Record};
use crate::{embeddings, responses};

/// Answers `/v1/responses`.
pub(super) async fn respond(
    server: &Server,
    pacer: Pacer,
    connection: Rc<Connection>,
    headers: &HeaderMap,
    body: &[u8],
) -> Response<Reply> {
    const PATH: &str = "/v1/responses";

    let arrival_ns = connection.arrival_ns();
    let asked = match responses::parse(body, &server.config) {
        Ok(asked) => asked,
        Err(refusal) => return refuse(refusal),
    };
    let key = RequestKey::new(PATH, request_id(headers), body);
    let tokens = server.answer_text(&key, asked.max_tokens);
    let id = asked.id.clone().unwrap_or_else(|| format!("resp_{}", server.fresh_digits()));
    let answer = responses::Answer {
        asked: &asked,
        id: &id,
        item_digits: &server.fresh_digits(),
        message_digits: &server.fresh_digits(),
        created: unix_seconds(),
        model: &server.config.model,
        tokens: &tokens,
    };
    let record = Record {
        id: id.clone(),
        path: PATH.to_owned(),
        arrival_ns,
        read_ns: connection.read_ns(),
        prompt_tokens: asked.prompt_tokens as u64,
        completion_tokens: tokens.len() as u64,
        ..Record::empty()
    };
    let pace = match server.pace(headers, &key, arrival_ns, (asked.prompt_tokens, asked.max_tokens), body) {
        Ok(pace) => pace,
        Err(refusal) => return refuse(refusal),
    };
    if !asked.stream {
        let last = asked.max_tokens.saturating_sub(1);
        return whole(server, &pacer, &connection, record, (pace, last), responses::body(&answer)).await;
    }
    let frames = responses::stream(&answer);
    // That the request was taken is told before the engine has anything.
    let (deadlines, due_ns) = pace.deadlines_after(2, arrival_ns, event_tokens(&frames));
    let events = frames.kinds().to_vec();
    connection.begin(server.log.begin(Record { events, due_ns, ..record }));
    streamed(Either::Left(Stream::new(frames, deadlines, pacer, connection)))
}

/// Answers `/v1/embeddings`: when a first token would be due.
pub(super) async fn embed(
    server: &Server,
    pacer: Pacer,
    connection: Rc<Connection>,
    headers: &HeaderMap,
    body: &[u8],
) -> Response<Reply> {
    const PATH: &str = "/v1/embeddings";

    let arrival_ns = connection.arrival_ns();
    let asked = match embeddings::parse(body, &server.config) {
        Ok(asked) => asked,
        Err(refusal) => return refuse(refusal),
    };
    let suffix = match (request_id(headers), &asked.id) {
        (b"", None) => server.fresh_id(),
        (b"", Some(id)) => id.clone(),
        (id, _) => String::from_utf8_lossy(id).into_owned(),
    };
    let id = format!("embd-{suffix}");
    let vectors = embeddings::vectors(&asked, server.config.seed);
    let text = embeddings::body(&asked, &id, unix_seconds(), &server.config.model, &vectors);
    let key = RequestKey::new(PATH, request_id(headers), body);
    let pace = match server.pace(headers, &key, arrival_ns, (asked.prompt_tokens(), 1), body) {
        Ok(pace) => pace,
        Err(refusal) => return refuse(refusal),
    };
    let record = Record {
        id,
        path: PATH.to_owned(),
        arrival_ns,
        read_ns: connection.read_ns(),
        prompt_tokens: asked.prompt_tokens() as u64,
        ..Record::empty()
    };
    whole(server, &pacer, &connection, record, (pace, 0), text).await
}

fn request_id(headers: &HeaderMap) -> &[u8] {
    headers.get("x-request-id").map_or(&b""[..], HeaderValue::as_bytes)
}

/// One body, when that token is due.
async fn whole(
    server: &Server,
    pacer: &Pacer,
    connection: &Connection,
    record: Record,
    (pace, token): (Pace, u32),
    body: String,
) -> Response<Reply> {
    let arrival_ns = record.arrival_ns;
    let (mut deadlines, due_ns) = pace.deadlines(vec![token]);
    connection.begin(server.log.begin(Record { events: vec![EventKind::Body], due_ns, ..record }));
    let due_ns = poll_fn(|cx| deadlines.poll_next(cx)).await.unwrap_or(arrival_ns);
    if deadlines.is_fed() {
        connection.due(due_ns);
    }
    pacer.sleep_until(due_ns).await;
    let response = json(StatusCode::OK, body);
    connection.hand_over(Part::Event);
    response
}
