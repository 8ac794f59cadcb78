//! The bytes of answers: stream events and whole bodies, key for key as the profile's server writes them.
//!
//! Every event of a stream is built before its first deadline, in one buffer that is then handed out slice by slice,
//! so that nothing is formatted or allocated when a token is due. That costs some 230 bytes a token.

mod chat;
mod completions;
mod failure;
mod json;
mod logprobs;
mod repeated;
mod service;

use std::fmt::Write;
use std::ops::Range;

use bytes::Bytes;

use crate::chunks::{Chunk, Finish};
use crate::profile::{RoleChunk, Shape, Traits};
use crate::truth::EventKind;
use repeated::Pattern;

pub(crate) use failure::Failure;
pub(crate) use json::{json_string, push_escaped, push_ids, push_string};
pub(crate) use service::{models, tokenized};

/// Room for what an event says besides its preamble; more is only slower.
const BYTES_AFTER_PREAMBLE: usize = 128;

/// Which of the two generating endpoints.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Endpoint {
    Chat,
    Completions,
}

impl Endpoint {
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
        }
    }

    pub(crate) const fn id_prefix(self) -> &'static str {
        match self {
            Self::Chat => "chatcmpl-",
            Self::Completions => "cmpl-",
        }
    }
}

/// Where a stream tells its token counts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum UsageMode {
    #[default]
    Never,
    /// In one event of its own, after the last token.
    Last,
    /// In that, and in every event before it.
    Continuous,
}

/// One prompt of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Prompt {
    /// Its text, where an echo was asked for.
    pub(crate) text: String,
    /// Its token ids: those of a chat only where they were asked for.
    pub(crate) ids: Vec<u32>,
    pub(crate) tokens: usize,
}

/// An answer's own times, in milliseconds: vLLM's `metrics`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Times {
    pub(crate) first_token_ms: f64,
    pub(crate) generation_ms: f64,
}

/// Everything that an answer says.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of the protocol, and any may be set with any"
)]
pub(crate) struct Answer<'a> {
    pub(crate) traits: Traits,
    pub(crate) role_chunk: RoleChunk,
    pub(crate) endpoint: Endpoint,
    pub(crate) id: &'a str,
    /// Unix time in seconds.
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    pub(crate) fingerprint: &'a str,
    pub(crate) prompts: &'a [Prompt],
    /// Choices for each prompt.
    pub(crate) n: usize,
    pub(crate) chunks: &'a [Chunk<'a>],
    pub(crate) usage: UsageMode,
    /// Whether log-probabilities were asked for.
    pub(crate) logprobs: bool,
    pub(crate) return_token_ids: bool,
    pub(crate) echo: bool,
    /// The tool that has to be called, and the id of the call.
    pub(crate) tool: Option<(&'a str, &'a str)>,
    /// Whether a parser leaves out events without text.
    pub(crate) parsed: bool,
    /// How many tokens of each choice are its reasoning.
    pub(crate) reasoning_tokens: u32,
    /// Whether `usage` tells cached prompt tokens.
    pub(crate) prompt_details: bool,
    pub(crate) times: Option<Times>,
}

impl Answer<'_> {
    /// The tokens of all prompts.
    pub(crate) fn prompt_tokens(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.tokens).sum()
    }

    /// The tokens of all choices.
    pub(crate) fn completion_tokens(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.tokens.len()).sum()
    }

    fn choices(&self) -> usize {
        self.prompts.len() * self.n
    }

    /// The prompt that a choice answers.
    fn prompt(&self, choice: usize) -> Option<&Prompt> {
        self.prompts.get(choice / self.n.max(1))
    }
}

/// The events of one stream, in order.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Bytes,
    lengths: std::vec::IntoIter<usize>,
    kinds: Vec<EventKind>,
    /// With which of its choice's tokens each event is due, from 0; `None` is as soon as possible.
    tokens: Vec<Option<u32>>,
}

impl Frames {
    /// The events of a text, each so many bytes of it; the first `opening` are due at once, the others with the token
    /// before them.
    pub(crate) fn new(text: String, lengths: Vec<usize>, kinds: Vec<EventKind>, opening: usize) -> Self {
        let mut token = None;
        let place = |(number, kind): (usize, &EventKind)| {
            if *kind == EventKind::Token {
                token = Some(token.map_or(0, |token: u32| token + 1));
            }
            Some(token.unwrap_or(0)).filter(|_| number >= opening)
        };
        let tokens = kinds.iter().enumerate().map(place).collect();
        Self { bytes: text.into(), lengths: lengths.into_iter(), kinds, tokens }
    }

    /// What each event is, whether or not it has been taken.
    pub(crate) fn kinds(&self) -> &[EventKind] {
        &self.kinds
    }

    /// With which token each event is due: the place among its choice's tokens; `None` is due at once.
    pub(crate) fn tokens(&self) -> &[Option<u32>] {
        &self.tokens
    }
}

impl Iterator for Frames {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.lengths.next().map(|length| self.bytes.split_to(length))
    }
}

/// The answer as a stream of server-sent events, `data: [DONE]` included.
pub(crate) fn stream(answer: &Answer<'_>) -> Frames {
    let object = match answer.endpoint {
        Endpoint::Chat => "chat.completion.chunk",
        Endpoint::Completions => "text_completion",
    };
    let mut out = Writer::new(answer, object);
    out.reserve(answer.chunks.len() + answer.choices() + 2);
    match answer.endpoint {
        Endpoint::Chat => out.chat_events(),
        Endpoint::Completions => out.completions_events(),
    }
    if answer.usage != UsageMode::Never {
        out.event(EventKind::Usage, |out| {
            out.text.push_str("],\"usage\":");
            out.usage(answer.prompt_tokens(), answer.completion_tokens(), Details::Stream);
            out.fingerprint();
            out.times(false);
        });
    }
    out.done()
}

/// The answer as one JSON body.
pub(crate) fn body(answer: &Answer<'_>) -> String {
    let object = match answer.endpoint {
        Endpoint::Chat => "chat.completion",
        Endpoint::Completions => "text_completion",
    };
    let mut out = Writer::new(answer, object);
    out.text.push_str(&out.preamble);
    for choice in 0..answer.choices() {
        if choice > 0 {
            out.text.push(',');
        }
        match answer.endpoint {
            Endpoint::Chat => out.chat_body_choice(choice),
            Endpoint::Completions => out.completions_body_choice(choice),
        }
    }
    out.body_tail();
    out.text
}

/// Which details `usage` has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Details {
    /// In a whole body: all, `null` where there are none.
    Body,
    /// In the events before the last.
    Running,
    /// In a stream's last event: only those that there are.
    Stream,
}

/// Writes an answer's pieces into one buffer.
struct Writer<'a> {
    answer: &'a Answer<'a>,
    /// What every event begins with, up to the bracket that opens `choices`.
    preamble: String,
    text: String,
    lengths: Vec<usize>,
    kinds: Vec<EventKind>,
    tokens: Vec<Option<u32>>,
    /// With which token the next event is due.
    token: Option<u32>,
    /// Where the text of the newest event's chunk stands.
    told: Range<usize>,
    /// What the next event of each choice may repeat.
    patterns: Vec<Option<Pattern>>,
}

impl<'a> Writer<'a> {
    fn new(answer: &'a Answer<'a>, object: &str) -> Self {
        let (id, created, model) = (json_string(answer.id), answer.created, json_string(answer.model));
        let mut preamble =
            format!("{{\"id\":{id},\"object\":\"{object}\",\"created\":{created},\"model\":{model}");
        if answer.traits.shape == Shape::OpenAi {
            preamble.push_str(",\"service_tier\":\"default\"");
            push_fingerprint(&mut preamble, answer.fingerprint);
        }
        preamble.push_str(",\"choices\":[");
        Self {
            answer,
            preamble,
            text: String::new(),
            lengths: Vec::new(),
            kinds: Vec::new(),
            tokens: Vec::new(),
            token: Some(0),
            told: 0..0,
            patterns: vec![None; answer.choices()],
        }
    }

    fn reserve(&mut self, events: usize) {
        self.text.reserve(events * (self.preamble.len() + BYTES_AFTER_PREAMBLE));
        self.lengths.reserve(events);
        self.kinds.reserve(events);
        self.tokens.reserve(events);
    }

    fn shape(&self) -> Shape {
        self.answer.traits.shape
    }

    /// Whether the bytes are those of vLLM from `shape` on.
    fn is_vllm_since(&self, shape: Shape) -> bool {
        self.shape() >= shape && self.shape() != Shape::OpenAi
    }

    /// Adds what vLLM's bytes have from `shape` on.
    fn push_since(&mut self, shape: Shape, text: &str) {
        if self.is_vllm_since(shape) {
            self.text.push_str(text);
        }
    }

    /// `OpenAI` has the key in every event, where usage was asked for.
    fn usage_to_come(&mut self) {
        if self.answer.usage != UsageMode::Never {
            self.text.push_str(",\"usage\":null");
        }
    }

    fn event(&mut self, kind: EventKind, rest: impl FnOnce(&mut Self)) {
        let start = self.text.len();
        self.text.push_str("data: ");
        self.text.push_str(&self.preamble);
        rest(self);
        self.text.push_str("}\n\n");
        self.close_event(kind, start);
    }

    fn close_event(&mut self, kind: EventKind, start: usize) {
        self.lengths.push(self.text.len() - start);
        self.kinds.push(kind);
        self.tokens.push(self.token);
    }

    /// From here on, events are due with the last token of `chunk`.
    fn due_with(&mut self, chunk: &Chunk<'_>) {
        self.token = Some(chunk.tokens_so_far.saturating_sub(1));
    }

    /// The chunks of one choice.
    fn chunks_of(&self, choice: usize) -> impl Iterator<Item = &'a Chunk<'a>> + use<'a> {
        self.answer.chunks.iter().filter(move |chunk| chunk.choice == choice)
    }

    /// `finish_reason` and `stop_reason`, the latter only where `always` or at the end.
    fn finish(&mut self, finish: Option<&Finish>, always: bool) {
        match finish {
            None => self.text.push_str("null"),
            Some(Finish::Length) => self.text.push_str("\"length\""),
            Some(_) => self.text.push_str("\"stop\""),
        }
        if self.shape() == Shape::OpenAi || !(always || finish.is_some()) {
            return;
        }
        self.text.push_str(",\"stop_reason\":");
        match finish {
            Some(Finish::StopString(stop)) => push_string(&mut self.text, stop),
            Some(Finish::StopToken(id)) => self.write(format_args!("{id}")),
            _ => self.text.push_str("null"),
        }
    }

    /// `[1,2]`, or `null` where ids were not asked for.
    fn token_ids<'t>(&mut self, asked: bool, chunks: impl Iterator<Item = &'t Chunk<'t>>) {
        if asked {
            push_ids(&mut self.text, chunks.flat_map(|chunk| chunk.tokens.iter().map(|token| token.id)));
        } else {
            self.text.push_str("null");
        }
    }

    /// After the choices of an event, where it ends a choice: who answered, unless `usage` will tell.
    fn event_fingerprint(&mut self, finish: Option<&Finish>) {
        if finish.is_some() && self.answer.usage == UsageMode::Never {
            self.fingerprint();
        }
    }

    fn fingerprint(&mut self) {
        if self.answer.traits.fingerprint && self.shape() != Shape::OpenAi {
            push_fingerprint(&mut self.text, self.answer.fingerprint);
        }
    }

    /// The counts of one choice so far.
    fn running_usage(&mut self, choice: usize, completion_tokens: u32) {
        self.text.push_str(",\"usage\":");
        let prompt_tokens = self.answer.prompt(choice).map_or(0, |prompt| prompt.tokens);
        self.usage(prompt_tokens, completion_tokens as usize, Details::Running);
    }

    fn usage(&mut self, prompt_tokens: usize, completion_tokens: usize, details: Details) {
        let total_tokens = prompt_tokens + completion_tokens;
        if self.shape() == Shape::OpenAi {
            let reasoning_tokens = self.reasoning_tokens();
            self.write(format_args!(
                "{{\"prompt_tokens\":{prompt_tokens},\"completion_tokens\":{completion_tokens},\
                 \"total_tokens\":{total_tokens},\
                 \"prompt_tokens_details\":{{\"cached_tokens\":0,\"audio_tokens\":0}},\
                 \"completion_tokens_details\":{{\"reasoning_tokens\":{reasoning_tokens},\"audio_tokens\":0,\
                 \"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}}}"
            ));
            return;
        }
        self.write(format_args!(
            "{{\"prompt_tokens\":{prompt_tokens},\"total_tokens\":{total_tokens},\
             \"completion_tokens\":{completion_tokens}"
        ));
        self.usage_details(details);
        self.text.push('}');
    }

    fn usage_details(&mut self, details: Details) {
        let chat = self.answer.endpoint == Endpoint::Chat;
        let second = self.is_vllm_since(Shape::Second);
        let cached = self.answer.prompt_details && second;
        match (details, cached) {
            (Details::Running, _) => {
                if second && chat {
                    self.text.push_str(",\"completion_tokens_details\":null");
                }
                return;
            }
            (Details::Body, true) => {
                let created = if chat { "0" } else { "null" };
                self.write(format_args!(
                    ",\"prompt_tokens_details\":{{\"cached_tokens\":0,\"created_cache_tokens\":{created},\
                     \"multimodal_tokens\":null}}"
                ));
            }
            (Details::Body, false) => self.text.push_str(",\"prompt_tokens_details\":null"),
            (Details::Stream, true) => {
                self.text.push_str(",\"prompt_tokens_details\":{\"cached_tokens\":0");
                self.text.push_str(if chat { ",\"created_cache_tokens\":0}" } else { "}" });
            }
            (Details::Stream, false) => {}
        }
        let reasoning_tokens = self.reasoning_tokens();
        if second && reasoning_tokens > 0 {
            self.write(format_args!(
                ",\"completion_tokens_details\":{{\"reasoning_tokens\":{reasoning_tokens}}}"
            ));
        } else if second && details == Details::Body {
            self.text.push_str(",\"completion_tokens_details\":null");
        }
    }

    /// The reasoning tokens of all choices.
    fn reasoning_tokens(&self) -> usize {
        let each = self.answer.reasoning_tokens as usize;
        let tokens = |choice| self.chunks_of(choice).map(|chunk| chunk.tokens.len()).sum::<usize>();
        if each == 0 { 0 } else { (0..self.answer.choices()).map(|choice| tokens(choice).min(each)).sum() }
    }

    /// `metrics`: the answer's own times. A whole body has the key in any case.
    fn times(&mut self, body: bool) {
        if !self.is_vllm_since(Shape::Second) {
            return;
        }
        let Some(times) = self.answer.times else {
            self.text.push_str(if body { ",\"metrics\":null" } else { "" });
            return;
        };
        let tokens = self.answer.completion_tokens();
        let Times { first_token_ms, generation_ms } = times;
        let gaps = tokens.saturating_sub(self.answer.choices()).max(1);
        let mean_itl_ms = generation_ms / gaps as f64;
        let tokens_per_second =
            tokens as f64 * 1000.0 / (first_token_ms + generation_ms).max(f64::MIN_POSITIVE);
        self.write(format_args!(
            ",\"metrics\":{{\"time_to_first_token_ms\":{first_token_ms:?},\"generation_time_ms\":{generation_ms:?},\
             \"queue_time_ms\":0.0,\"mean_itl_ms\":{mean_itl_ms:?},\"tokens_per_second\":{tokens_per_second:?}"
        ));
        self.text.push_str(if body { ",\"speculative_decoding\":null}" } else { "}" });
    }

    /// From the end of a whole body's choices to its own end.
    fn body_tail(&mut self) {
        let (chat, shape) = (self.answer.endpoint == Endpoint::Chat, self.shape());
        self.text.push(']');
        if shape != Shape::OpenAi {
            self.text.push_str(",\"service_tier\":null");
            if self.answer.traits.fingerprint {
                self.fingerprint();
            } else {
                self.text.push_str(",\"system_fingerprint\":null");
            }
        }
        self.text.push_str(",\"usage\":");
        self.usage(self.answer.prompt_tokens(), self.answer.completion_tokens(), Details::Body);
        if shape == Shape::OpenAi {
            self.text.push('}');
            return;
        }
        if chat {
            self.text.push_str(",\"prompt_logprobs\":null,\"prompt_token_ids\":");
            self.prompt_ids(0, self.answer.return_token_ids);
            self.push_since(Shape::Second, ",\"prompt_text\":null");
        }
        self.text.push_str(",\"kv_transfer_params\":null");
        self.push_since(Shape::Second, ",\"ec_transfer_params\":null");
        self.times(true);
        self.text.push('}');
    }

    fn prompt_ids(&mut self, choice: usize, asked: bool) {
        match self.answer.prompt(choice).filter(|_| asked) {
            Some(prompt) => push_ids(&mut self.text, prompt.ids.iter().copied()),
            None => self.text.push_str("null"),
        }
    }

    fn done(mut self) -> Frames {
        let start = self.text.len();
        self.text.push_str("data: [DONE]\n\n");
        self.close_event(EventKind::Done, start);
        Frames {
            bytes: self.text.into(),
            lengths: self.lengths.into_iter(),
            kinds: self.kinds,
            tokens: self.tokens,
        }
    }

    #[expect(clippy::expect_used, reason = "a String takes whatever is written to it")]
    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.text.write_fmt(text).expect("writing to a String");
    }
}

fn push_fingerprint(text: &mut String, fingerprint: &str) {
    text.push_str(",\"system_fingerprint\":");
    push_string(text, fingerprint);
}
