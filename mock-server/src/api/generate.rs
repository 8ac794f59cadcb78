//! The two generating endpoints: from a request to its answer, each event with its deadline.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::Either;
use tokentape_pacer::Pacer;

use super::head::{self, json, refuse, streamed, unix_seconds};
use super::{BrokenBody, Reply, Server};
use crate::answers::Question;
use crate::chunks::{Chunk, Finish, chunks};
use crate::deadlines::{Deadlines, Pace};
use crate::faulted::{self, Remains};
use crate::metrics::{ChoiceCount, Exchange, Observation};
use crate::refusal::Refusal;
use crate::request::{self, Request};
use crate::stream::Stream;
use crate::text;
use crate::timing::{self, Purpose, RequestKey};
use crate::transport::{Connection, Part};
use crate::truth::{Entry, EventKind, Record};
use crate::wire::{self, Endpoint, Frames, Times};

/// A request whose body has been read.
pub(super) struct Asked<'a> {
    pub(super) endpoint: Endpoint,
    pub(super) parts: &'a Parts,
    pub(super) body: &'a Bytes,
    /// How it is counted.
    pub(super) exchange: Option<Exchange>,
}

/// Answers a request.
pub(super) async fn generate(
    server: &Server,
    pacer: Pacer,
    connection: Rc<Connection>,
    Asked { endpoint, parts, body, exchange }: Asked<'_>,
) -> Result<Response<Reply>, BrokenBody> {
    let config = &server.config;
    let arrival_ns = connection.arrival_ns();
    let asked = match request::parse(endpoint, body, config, server.vocabulary) {
        Ok(asked) => asked,
        Err(refusal) => return Ok(refuse(refusal)),
    };
    let request_id = head::request_id(&parts.headers);
    let key = RequestKey::new(endpoint.path(), request_id, body);
    let mut random = timing::Stream::new(config.seed, Purpose::Fault, &key);
    let faults = match server.faults(&parts.headers, &mut random) {
        Ok(faults) => faults,
        Err(refusal) => return Ok(refuse(refusal)),
    };
    let question = Question { path: endpoint.path(), request_id, body };
    let chunks = chunks_for(server, &question, key, &asked);

    let id = format!("{}{}", endpoint.id_prefix(), server.id_suffix(request_id, asked.id.as_deref()));
    let steps = chunks.iter().map(|chunk| chunk.tokens_so_far).max().unwrap_or(0);
    let prompt_tokens = asked.prompts.iter().map(|prompt| prompt.tokens).sum();
    let pace = match server.pace(&parts.headers, &key, arrival_ns, (prompt_tokens, steps), body) {
        Ok(pace) => pace,
        Err(refusal) => return Ok(refuse(refusal)),
    };
    let (times, first_due_ns) = match &pace {
        Pace::Model(due_ns, _) => (Some(times(arrival_ns, due_ns)), due_ns.first().copied()),
        // An engine's word comes too late for what is written beforehand.
        Pace::Engine(_) => (None, None),
    };
    let tool_id = asked.tool.as_ref().map(|_| format!("chatcmpl-tool-{}", server.fresh_id()));
    let answer =
        Said { server, endpoint, asked: &asked, id: &id, tool_id: tool_id.as_deref() }.answer(&chunks, times);
    let record = Record {
        id: id.clone(),
        path: endpoint.path().to_owned(),
        arrival_ns,
        read_ns: connection.read_ns(),
        prompt_tokens: answer.prompt_tokens() as u64,
        completion_tokens: answer.completion_tokens() as u64,
        ..Record::empty()
    };
    let choices = choice_counts(&asked, &chunks);
    server.metrics.begun(choices.len());
    let observation = Observation {
        metrics: Arc::clone(&server.metrics),
        choices,
        n: asked.n,
        first_due_ns: first_due_ns.filter(|_| !asked.stream),
        // A body that is there at once is counted with its head.
        exchange: exchange.filter(|_| {
            if faults.is_empty() { asked.stream } else { !faults.iter().any(|fault| fault.is_instead()) }
        }),
    };

    if !faults.is_empty() {
        let (events, deadlines) = if asked.stream {
            let frames = wire::stream(&answer);
            let deadlines = stream_deadlines(pace, arrival_ns, &frames).0;
            (frames.kinds().to_vec().into_iter().zip(frames).collect(), deadlines)
        } else {
            let deadlines = pace.deadlines(vec![steps.saturating_sub(1)]).0;
            (vec![(EventKind::Body, wire::body(&answer).into())], deadlines)
        };
        let answer = faulted::Answer { events, deadlines, record, faults, random, observation };
        let remains = answer.begin(&server.log, pacer, connection).await;
        return remains.into_response(server, asked.stream);
    }
    if asked.stream {
        let frames = wire::stream(&answer);
        let (deadlines, due_ns) = stream_deadlines(pace, arrival_ns, &frames);
        let events = frames.kinds().to_vec();
        let entry = server.log.begin(Record { events, due_ns, ..record });
        connection.begin(entry.observed_by(observation));
        return Ok(streamed(Either::Left(Stream::new(frames, deadlines, pacer, connection))));
    }
    let entry = server.log.begin(record).observed_by(observation);
    Ok(whole(&pacer, &connection, entry, (pace, steps.saturating_sub(1)), wire::body(&answer)).await)
}

/// One body, when that token is due. The record is without its event.
pub(super) async fn whole(
    pacer: &Pacer,
    connection: &Connection,
    mut entry: Entry,
    (pace, token): (Pace, u32),
    body: String,
) -> Response<Reply> {
    let arrival_ns = entry.record.arrival_ns;
    let (mut deadlines, due_ns) = pace.deadlines(vec![token]);
    entry.record.events = vec![EventKind::Body];
    entry.record.due_ns = due_ns;
    connection.begin(entry);
    let due_ns = poll_fn(|cx| deadlines.poll_next(cx)).await.unwrap_or(arrival_ns);
    if deadlines.is_fed() {
        connection.due(due_ns);
    }
    pacer.sleep_until(due_ns).await;
    let response = json(StatusCode::OK, body);
    connection.hand_over(Part::Event);
    response
}

/// When a stream's events are due, and the list of that as far as it is known.
fn stream_deadlines(pace: Pace, arrival_ns: u64, frames: &Frames) -> (Deadlines, Vec<u64>) {
    let early = frames.tokens().iter().take_while(|token| token.is_none()).count();
    pace.deadlines_after(early, arrival_ns, event_tokens(frames))
}

impl Remains {
    fn into_response(self, server: &Server, is_stream: bool) -> Result<Response<Reply>, BrokenBody> {
        Ok(match self {
            Self::Body(body) if is_stream => streamed(Either::Right(body)),
            Self::Body(body) => head::faulted(body),
            Self::Nothing => return Err(BrokenBody("closed on purpose".into())),
            Self::Status(status, retry_after) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let (kind, message) = ("InjectedError", "injected by the mock server");
                head::injected(Refusal::new(server.traits(), status, kind, message, None), retry_after)
            }
        })
    }
}

/// What is told of the answer that the server was given for a question, or of one of its own.
fn chunks_for<'a>(
    server: &'a Server,
    question: &Question<'_>,
    key: RequestKey,
    asked: &Request,
) -> Vec<Chunk<'a>> {
    let given = server.config.answers.as_ref().and_then(|answers| answers.answer(question));
    if let Some(answer) = given {
        return chunks(answer, &asked.rules);
    }
    let Question { path, request_id, body } = *question;
    text::chunks(server.config.tokenizer.words(), server.config.seed, asked, |choice| match choice {
        0 => key,
        // A choice of its own is a request of its own.
        choice => RequestKey::new(&format!("{path}#{choice}"), request_id, body),
    })
}

/// How each choice is counted.
fn choice_counts(asked: &Request, chunks: &[Chunk<'_>]) -> Vec<ChoiceCount> {
    let count = |choice: usize| {
        let last = chunks.iter().rfind(|chunk| chunk.choice == choice);
        let prompt = choice / asked.n.max(1);
        ChoiceCount {
            prompt_tokens: asked.prompts.get(prompt).map_or(0, |prompt| prompt.tokens as u64),
            tokens: last.map_or(0, |last| u64::from(last.tokens_so_far)),
            max_tokens: asked.max_tokens.get(prompt).copied().map_or(0, u64::from),
            stopped: last.is_some_and(|last| last.finish != Some(Finish::Length)),
        }
    };
    (0..asked.prompts.len() * asked.n).map(count).collect()
}

/// What goes into an answer besides its chunks.
struct Said<'a> {
    server: &'a Server,
    endpoint: Endpoint,
    asked: &'a Request,
    id: &'a str,
    tool_id: Option<&'a str>,
}

impl<'a> Said<'a> {
    fn answer(&self, chunks: &'a [Chunk<'a>], times: Option<Times>) -> wire::Answer<'a> {
        let (asked, wire) = (self.asked, &self.server.config.wire);
        let chat = self.endpoint == Endpoint::Chat;
        let reasons = chat && wire.reasoning_parser.is_some() && asked.tool.is_none();
        wire::Answer {
            traits: wire.profile.traits(),
            role_chunk: wire.role_chunk,
            endpoint: self.endpoint,
            id: self.id,
            created: unix_seconds(),
            model: &self.server.config.model,
            fingerprint: &self.server.fingerprint,
            prompts: &asked.prompts,
            n: asked.n,
            chunks,
            usage: asked.usage,
            logprobs: asked.logprobs.is_some(),
            return_token_ids: asked.return_token_ids,
            echo: asked.echo,
            tool: asked.tool.as_deref().zip(self.tool_id),
            parsed: chat && wire.is_parsed(),
            reasoning_tokens: if reasons { wire.reasoning_tokens } else { 0 },
            prompt_details: wire.enable_prompt_tokens_details,
            times: times.filter(|_| wire.enable_per_request_metrics),
        }
    }
}

/// An answer's times, by its deadlines.
fn times(arrival_ns: u64, token_due_ns: &[u64]) -> Times {
    let first_ns = token_due_ns.first().copied().unwrap_or(arrival_ns);
    let last_ns = token_due_ns.last().copied().unwrap_or(arrival_ns);
    let milliseconds = |from_ns: u64, to_ns: u64| to_ns.saturating_sub(from_ns) as f64 / 1e6;
    Times {
        first_token_ms: milliseconds(arrival_ns, first_ns),
        generation_ms: milliseconds(first_ns, last_ns),
    }
}

/// The token that each event goes out with: the role with the first, as vLLM sends it with the engine's first output,
/// and what follows the last token with that. Choices that were played from elsewhere need not keep step, but no event
/// is due before the one that precedes it.
pub(super) fn event_tokens(frames: &Frames) -> Vec<u32> {
    let latest = frames.tokens().iter().scan(0, |latest, token| {
        *latest = token.unwrap_or(0).max(*latest);
        Some(*latest)
    });
    latest.collect()
}
