//! The two generating endpoints: from a request to its answer, each event with its deadline.

use std::rc::Rc;

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use tokentape_pacer::Pacer;

use super::head::{self, refuse, unix_seconds};
use super::send::{Content, Ready};
use super::{BrokenBody, Reply, Server};
use crate::answers::Question;
use crate::chunks::{Chunk, Finish, chunks};
use crate::deadlines::Pace;
use crate::metrics::{ChoiceCount, Exchange};
use crate::request::{self, Request};
use crate::text;
use crate::timing::{self, Purpose, RequestKey};
use crate::transport::Connection;
use crate::truth::Record;
use crate::wire::{self, Endpoint, Failure, Times};

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
    let times = match &pace {
        Pace::Model(due_ns, _) => Some(times(arrival_ns, due_ns)),
        // An engine's word comes too late for what is written beforehand.
        Pace::Engine(_) => None,
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
    let content = if asked.stream {
        Content::Stream(wire::stream(&answer), Failure::Chunks(server.traits(), endpoint))
    } else {
        Content::Whole(wire::body(&answer), steps.saturating_sub(1))
    };
    let (choices, n) = (choice_counts(&asked, &chunks), asked.n);
    let ready = Ready { content, pace, record, faults, random, choices, n, exchange };
    ready.send(server, pacer, connection).await
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
