//! The two endpoints that have a wire of their own: `/v1/responses` and `/v1/embeddings`.

use std::rc::Rc;

use http::{HeaderMap, Response};
use http_body_util::Either;
use tokentape_pacer::Pacer;

use super::generate::{event_tokens, whole};
use super::head::{request_id, streamed, unix_seconds};
use super::{Reply, Server};
use crate::refusal::Refusal;
use crate::stream::Stream;
use crate::timing::RequestKey;
use crate::transport::Connection;
use crate::truth::Record;
use crate::{embeddings, responses, text};

/// Answers `/v1/responses`.
pub(super) async fn respond(
    server: &Server,
    pacer: Pacer,
    connection: Rc<Connection>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response<Reply>, Refusal> {
    const PATH: &str = "/v1/responses";

    let arrival_ns = connection.arrival_ns();
    let asked = responses::parse(body, &server.config)?;
    let key = RequestKey::new(PATH, request_id(headers), body);
    // They stand as they are within JSON strings: words are letters and a space.
    let tokens = text::texts(server.config.tokenizer.words(), server.config.seed, &key, asked.max_tokens);
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
    let pace = server.pace(headers, &key, arrival_ns, (asked.prompt_tokens, asked.max_tokens), body)?;
    if !asked.stream {
        let last = asked.max_tokens.saturating_sub(1);
        let body = responses::body(&answer);
        return Ok(whole(&pacer, &connection, server.log.begin(record), (pace, last), body).await);
    }
    let frames = responses::stream(&answer);
    // That the request was taken is told before the engine has anything.
    let (deadlines, due_ns) = pace.deadlines_after(2, arrival_ns, event_tokens(&frames));
    let events = frames.kinds().to_vec();
    connection.begin(server.log.begin(Record { events, due_ns, ..record }));
    Ok(streamed(Either::Left(Stream::new(frames, deadlines, pacer, connection))))
}

/// Answers `/v1/embeddings`: when a first token would be due.
pub(super) async fn embed(
    server: &Server,
    pacer: Pacer,
    connection: Rc<Connection>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response<Reply>, Refusal> {
    const PATH: &str = "/v1/embeddings";

    let arrival_ns = connection.arrival_ns();
    let asked = embeddings::parse(body, &server.config)?;
    let id = format!("embd-{}", server.id_suffix(request_id(headers), asked.id.as_deref()));
    let vectors = embeddings::vectors(&asked, server.config.seed);
    let text = embeddings::body(&asked, &id, unix_seconds(), &server.config.model, &vectors);
    let key = RequestKey::new(PATH, request_id(headers), body);
    let pace = server.pace(headers, &key, arrival_ns, (asked.prompt_tokens(), 1), body)?;
    let record = Record {
        id,
        path: PATH.to_owned(),
        arrival_ns,
        read_ns: connection.read_ns(),
        prompt_tokens: asked.prompt_tokens() as u64,
        ..Record::empty()
    };
    Ok(whole(&pacer, &connection, server.log.begin(record), (pace, 0), text).await)
}
