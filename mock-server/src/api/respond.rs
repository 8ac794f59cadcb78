//! The two endpoints that have a wire of their own: `/v1/responses` and `/v1/embeddings`.

use http::HeaderMap;

use super::Server;
use super::head::{request_id, unix_seconds};
use super::send::{Content, Ready};
use crate::metrics::{ChoiceCount, Exchange};
use crate::refusal::Refusal;
use crate::timing::{self, Purpose, RequestKey};
use crate::transport::Connection;
use crate::truth::Record;
use crate::wire::Failure;
use crate::{embeddings, responses, text};

/// The answer of `/v1/responses`.
pub(super) fn respond(
    server: &Server,
    connection: &Connection,
    headers: &HeaderMap,
    body: &[u8],
    exchange: Option<Exchange>,
) -> Result<Ready, Refusal> {
    let asked = responses::parse(body, &server.config)?;
    let key = RequestKey::new(responses::PATH, request_id(headers), body);
    let mut random = timing::Stream::new(server.config.seed, Purpose::Fault, &key);
    let faults = server.faults(headers, &mut random)?;
    // They stand as they are within JSON strings: words are letters and a space.
    let tokens = text::texts(server.config.tokenizer.words(), server.config.seed, &key, asked.max_tokens);
    let id = asked.id.clone().unwrap_or_else(|| format!("resp_{}", server.fresh_id()));
    let answer = responses::Answer {
        asked: &asked,
        shape: server.traits().shape,
        id: &id,
        item_digits: &server.fresh_id(),
        message_digits: &server.fresh_id(),
        created: unix_seconds(),
        model: &server.config.model,
        tokens: &tokens,
    };
    let arrival_ns = connection.arrival_ns();
    let pace = server.pace(headers, &key, arrival_ns, (asked.prompt_tokens, asked.max_tokens), body)?;
    let content = if asked.stream {
        Content::Stream(responses::stream(&answer), Failure::Typed)
    } else {
        Content::Whole(responses::body(&answer), asked.max_tokens.saturating_sub(1))
    };
    let (prompt_tokens, completion_tokens) = (asked.prompt_tokens as u64, tokens.len() as u64);
    let count = ChoiceCount {
        prompt_tokens,
        tokens: completion_tokens,
        max_tokens: asked.max_tokens.into(),
        stopped: false,
    };
    let path = responses::PATH.to_owned();
    let record = Record { id, path, prompt_tokens, completion_tokens, ..begun(connection) };
    Ok(Ready { content, pace, record, faults, random, choices: vec![count], n: 1, exchange })
}

/// The answer of `/v1/embeddings`: when a first token would be due.
pub(super) fn embed(
    server: &Server,
    connection: &Connection,
    headers: &HeaderMap,
    body: &[u8],
    exchange: Option<Exchange>,
) -> Result<Ready, Refusal> {
    let asked = embeddings::parse(body, &server.config)?;
    let key = RequestKey::new(embeddings::PATH, request_id(headers), body);
    let mut random = timing::Stream::new(server.config.seed, Purpose::Fault, &key);
    let faults = server.faults(headers, &mut random)?;
    let id = format!("embd-{}", server.id_suffix(request_id(headers), asked.id.as_deref()));
    let vectors = embeddings::vectors(&asked, server.config.seed);
    let text = embeddings::body(&asked, &id, unix_seconds(), &server.config.model, &vectors);
    let arrival_ns = connection.arrival_ns();
    let pace = server.pace(headers, &key, arrival_ns, (asked.prompt_tokens(), 1), body)?;
    let (path, prompt_tokens) = (embeddings::PATH.to_owned(), asked.prompt_tokens() as u64);
    let record = Record { id, path, prompt_tokens, ..begun(connection) };
    // No token is generated, and vLLM's series of requests are about those.
    let choices = Vec::new();
    Ok(Ready { content: Content::Whole(text, 0), pace, record, faults, random, choices, n: 1, exchange })
}

/// The record of a request that has come.
fn begun(connection: &Connection) -> Record {
    Record { arrival_ns: connection.arrival_ns(), read_ns: connection.read_ns(), ..Record::empty() }
}
