//! The two endpoints that have a wire of their own: `/v1/responses` and `/v1/embeddings`.

use std::rc::Rc;

use http::{Response, StatusCode};
use tokentape_pacer::Pacer;

use super::generate::event_due_ns;
use super::head::{json, refuse, streamed, unix_seconds};
use super::{Reply, Server};
use crate::stream::Stream;
use crate::timing::{self, Purpose, RequestKey};
use crate::transport::{Connection, Part};
use crate::truth::{EventKind, Record};
use crate::{embeddings, responses};

/// Answers `/v1/responses`.
pub(super) async fn respond(
    server: &Server,
    pacer: Pacer,
    connection: Rc<Connection>,
    request_id: &[u8],
    body: &[u8],
) -> Response<Reply> {
    const PATH: &str = "/v1/responses";

    let arrival_ns = connection.arrival_ns();
    let asked = match responses::parse(body, &server.config) {
        Ok(asked) => asked,
        Err(refusal) => return refuse(refusal),
    };
    let key = RequestKey::new(PATH, request_id, body);
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
    let random = timing::Stream::new(server.config.seed, Purpose::Timing, &key);
    let token_due_ns = server.config.timing.due_ns(arrival_ns, asked.max_tokens, random);
    if !asked.stream {
        let due_ns = token_due_ns.last().copied().unwrap_or(arrival_ns);
        return whole(
            server,
            &pacer,
            &connection,
            Record { due_ns: vec![due_ns], ..record },
            responses::body(&answer),
        )
        .await;
    }
    let frames = responses::stream(&answer);
    let mut due_ns = event_due_ns(&frames, arrival_ns, &token_due_ns);
    // That the request was taken is told before the engine has anything.
    due_ns.iter_mut().take(2).for_each(|at_ns| *at_ns = arrival_ns);
    let events = frames.kinds().to_vec();
    connection.begin(server.log.begin(Record { events, due_ns: due_ns.clone(), ..record }));
    streamed(Stream::new(frames, due_ns, pacer, connection))
}

/// Answers `/v1/embeddings`: when a first token would be due.
pub(super) async fn embed(
    server: &Server,
    pacer: Pacer,
    connection: Rc<Connection>,
    request_id: &[u8],
    body: &[u8],
) -> Response<Reply> {
    const PATH: &str = "/v1/embeddings";

    let arrival_ns = connection.arrival_ns();
    let asked = match embeddings::parse(body, &server.config) {
        Ok(asked) => asked,
        Err(refusal) => return refuse(refusal),
    };
    let suffix = match (request_id, &asked.id) {
        (b"", None) => server.fresh_id(),
        (b"", Some(id)) => id.clone(),
        (id, _) => String::from_utf8_lossy(id).into_owned(),
    };
    let id = format!("embd-{suffix}");
    let vectors = embeddings::vectors(&asked, server.config.seed);
    let text = embeddings::body(&asked, &id, unix_seconds(), &server.config.model, &vectors);
    let key = RequestKey::new(PATH, request_id, body);
    let random = timing::Stream::new(server.config.seed, Purpose::Timing, &key);
    let record = Record {
        id,
        path: PATH.to_owned(),
        arrival_ns,
        read_ns: connection.read_ns(),
        prompt_tokens: asked.prompt_tokens() as u64,
        due_ns: server.config.timing.due_ns(arrival_ns, 1, random),
        ..Record::empty()
    };
    whole(server, &pacer, &connection, record, text).await
}

/// One body, when it is due.
async fn whole(
    server: &Server,
    pacer: &Pacer,
    connection: &Connection,
    record: Record,
    body: String,
) -> Response<Reply> {
    let due_ns = record.due_ns.last().copied().unwrap_or(record.arrival_ns);
    connection.begin(server.log.begin(Record { events: vec![EventKind::Body], ..record }));
    pacer.sleep_until(due_ns).await;
    let response = json(StatusCode::OK, body);
    connection.hand_over(Part::Event);
    response
}
