//! `/v1/responses` as vLLM 0.11.0 answers it: what is asked, the typed events of a stream, and the whole answer.
//!
//! `response.created` and `response.in_progress` go out as soon as the request has come; all others with their tokens.
//! As with vLLM, the response in `response.completed` has the text of the last output alone, and no `[DONE]` follows.
//! Of what a request may set, tools, `text`, `reasoning`, `include` and `background` are taken and ignored.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::Config;
use crate::refusal::Refusal;
use crate::truth::EventKind;
use crate::wire::{Frames, json_string};

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) stream: bool,
    pub(crate) prompt_tokens: usize,
    pub(crate) max_tokens: u32,
    /// The id that the body asks for.
    pub(crate) id: Option<String>,
    temperature: f64,
    top_p: f64,
    /// What is repeated as it was given, as JSON.
    instructions: String,
    metadata: String,
    user: String,
}

#[derive(Deserialize)]
struct Fields {
    model: Option<String>,
    input: Option<Value>,
    #[serde(default)]
    instructions: Value,
    max_output_tokens: Option<i64>,
    #[serde(default)]
    metadata: Value,
    previous_response_id: Option<String>,
    request_id: Option<String>,
    stream: Option<bool>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    #[serde(default)]
    user: Value,
}

/// Parses and checks a body.
pub(crate) fn parse(body: &[u8], config: &Config) -> Result<Asked, Refusal> {
    let fields: Fields = serde_json::from_slice(body).map_err(|fault| Refusal::shape(&fault))?;
    let Some(input) = fields.input else {
        return Err(Refusal::validation(
            "{'type': 'missing', 'loc': ('body', 'input'), 'msg': 'Field required'}",
        ));
    };
    Refusal::unless_served(fields.model.as_deref(), config)?;
    if let Some(id) = fields.previous_response_id {
        // No response is stored, as vLLM stores none unless it is told to.
        return Err(Refusal::not_found(&format!("Response with id '{id}' not found.")));
    }
    let prompt_tokens = prompt_tokens(&fields.instructions, &input, config)?;
    let room = i64::from(config.max_model_len) - i64::try_from(prompt_tokens).unwrap_or(i64::MAX);
    // vLLM fills the context where no limit is given.
    let asked = fields.max_output_tokens.unwrap_or_else(|| config.chat_max_tokens.into()).min(room);
    let max_tokens = u32::try_from(asked)
        .ok()
        .filter(|&tokens| tokens > 0)
        .ok_or_else(|| Refusal::bad_request(&format!("max_tokens must be at least 1, got {asked}.")))?;
    Ok(Asked {
        stream: fields.stream.unwrap_or(false),
        prompt_tokens,
        max_tokens,
        id: fields.request_id,
        temperature: fields.temperature.unwrap_or(1.0),
        top_p: fields.top_p.unwrap_or(1.0),
        instructions: fields.instructions.to_string(),
        metadata: fields.metadata.to_string(),
        user: fields.user.to_string(),
    })
}

/// The prompt's tokens: instructions are a system message, a text is a user's message.
fn prompt_tokens(instructions: &Value, input: &Value, config: &Config) -> Result<usize, Refusal> {
    let mut messages = Vec::new();
    if instructions.is_string() {
        messages.push(json!({"role": "system", "content": instructions}));
    }
    match input {
        Value::String(_) => messages.push(json!({"role": "user", "content": input})),
        Value::Array(items) => messages.extend(items.iter().map(message)),
        _ => {
            return Err(Refusal::validation(
                "{'type': 'string_type', 'loc': ('body', 'input', 'str'), 'msg': 'Input should be a valid string'}",
            ));
        }
    }
    crate::request::chat_tokens(&Value::Array(messages), config)
}

/// An item of the input as a message: the texts of its parts.
fn message(item: &Value) -> Value {
    let content = match &item["content"] {
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part["text"].as_str()).collect::<String>().into()
        }
        content => content.clone(),
    };
    json!({"role": item["role"], "content": content})
}

/// Everything that an answer says.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) asked: &'a Asked,
    pub(crate) id: &'a str,
    /// 32 hex digits, of the item that a stream adds.
    pub(crate) item_digits: &'a str,
    /// 32 hex digits, of the message in the response.
    pub(crate) message_digits: &'a str,
    /// Unix time in seconds.
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    /// Each token's text, as the inside of a JSON string.
    pub(crate) tokens: &'a [&'a str],
}

/// The answer as a stream of typed events.
pub(crate) fn stream(answer: &Answer<'_>) -> Frames {
    let mut out = Writer::default();
    // Some 250 bytes an event, and the response thrice.
    out.text.reserve(256 * answer.tokens.len() + (8 << 10));
    let begun = answer.streamed_response("in_progress", "[]", "null");
    for kind in ["created", "in_progress"] {
        out.event(EventKind::Frame, kind, |number, text| {
            write!(text, "\"response\":{begun},\"sequence_number\":{number}")
        });
    }
    let id = uuid(answer.item_digits);
    let item = |status: &str, content: &str, more: &str| {
        format!(
            "{{\"id\":\"{id}\",\"content\":[{content}],\"role\":\"assistant\",\"status\":\"{status}\",\
             \"type\":\"message\"{more}}}"
        )
    };
    out.event(EventKind::Frame, "output_item.added", |number, text| {
        let item = item("in_progress", "", "");
        write!(text, "\"item\":{item},\"output_index\":0,\"sequence_number\":{number}")
    });
    out.event(EventKind::Frame, "content_part.added", |number, text| {
        write!(
            text,
            "\"content_index\":0,\"item_id\":\"{id}\",\"output_index\":0,\"part\":{{\"annotations\":[],\
             \"text\":\"\",\"type\":\"output_text\",\"logprobs\":[]}},\"sequence_number\":{number}"
        )
    });
    // vLLM counts a part of the content for each event.
    let mut part = 1;
    for token in answer.tokens {
        out.event(EventKind::Token, "output_text.delta", |number, text| {
            write!(
                text,
                "\"content_index\":{part},\"delta\":\"{token}\",\"item_id\":\"{id}\",\"logprobs\":[],\
                 \"output_index\":0,\"sequence_number\":{number}"
            )
        });
        part += 1;
    }
    let all = answer.tokens.concat();
    out.event(EventKind::Frame, "output_text.done", |number, text| {
        write!(
            text,
            "\"content_index\":{part},\"item_id\":\"{id}\",\"logprobs\":[],\"output_index\":0,\
             \"sequence_number\":{number},\"text\":\"{all}\""
        )
    });
    part += 1;
    let whole = output_text(&all);
    out.event(EventKind::Frame, "content_part.done", |number, text| {
        write!(
            text,
            "\"content_index\":{part},\"item_id\":\"{id}\",\"output_index\":0,\"part\":{whole},\
             \"sequence_number\":{number}"
        )
    });
    out.event(EventKind::Frame, "output_item.done", |number, text| {
        let item = item("completed", &whole, ",\"summary\":[]");
        write!(text, "\"item\":{item},\"output_index\":0,\"sequence_number\":{number}")
    });
    let last = answer.output(answer.tokens.last().copied().unwrap_or_default());
    let ended = answer.streamed_response("completed", &last, &answer.usage());
    out.event(EventKind::Done, "completed", |number, text| {
        write!(text, "\"response\":{ended},\"sequence_number\":{number}")
    });
    Frames::new(out.text, out.lengths, out.kinds)
}

/// The answer as one JSON body.
pub(crate) fn body(answer: &Answer<'_>) -> String {
    let Answer { asked, id, created, model, .. } = answer;
    let Asked { temperature, top_p, max_tokens, instructions, metadata, user, .. } = asked;
    format!(
        "{{\"id\":{id},\"created_at\":{created},\"incomplete_details\":null,\"instructions\":{instructions},\
         \"metadata\":{metadata},\"model\":{model},\"object\":\"response\",\"output\":{output},\
         \"input_messages\":null,\"output_messages\":null,\"parallel_tool_calls\":true,\
         \"temperature\":{temperature:?},\"tool_choice\":\"auto\",\"tools\":[],\"top_p\":{top_p:?},\
         \"background\":false,\"max_output_tokens\":{max_tokens},\"max_tool_calls\":null,\
         \"previous_response_id\":null,\"prompt\":null,\"reasoning\":null,\"service_tier\":\"auto\",\
         \"status\":\"completed\",\"text\":null,\"top_logprobs\":null,\"truncation\":\"disabled\",\
         \"usage\":{usage},\"user\":{user}}}",
        id = json_string(id),
        model = json_string(model),
        output = answer.output(&answer.tokens.concat()),
        usage = answer.usage(),
    )
}

impl Answer<'_> {
    /// The response as the events of a stream have it, which is not quite as the body has it.
    fn streamed_response(&self, status: &str, output: &str, usage: &str) -> String {
        let Answer { asked, id, created, model, .. } = self;
        let Asked { temperature, top_p, max_tokens, instructions, metadata, user, .. } = asked;
        format!(
            "{{\"id\":{id},\"created_at\":{created}.0,\"error\":null,\"incomplete_details\":null,\
             \"instructions\":{instructions},\"metadata\":{metadata},\"model\":{model},\"object\":\"response\",\
             \"output\":{output},\"parallel_tool_calls\":true,\"temperature\":{temperature:?},\
             \"tool_choice\":\"auto\",\"tools\":[],\"top_p\":{top_p:?},\"background\":false,\
             \"conversation\":null,\"max_output_tokens\":{max_tokens},\"max_tool_calls\":null,\
             \"previous_response_id\":null,\"prompt\":null,\"prompt_cache_key\":null,\"reasoning\":null,\
             \"safety_identifier\":null,\"service_tier\":\"auto\",\"status\":\"{status}\",\"text\":null,\
             \"top_logprobs\":null,\"truncation\":\"disabled\",\"usage\":{usage},\"user\":{user},\
             \"input_messages\":null,\"output_messages\":null}}",
            id = json_string(id),
            model = json_string(model),
        )
    }

    /// The output: one message.
    fn output(&self, text: &str) -> String {
        format!(
            "[{{\"id\":\"msg_{}\",\"content\":[{}],\"role\":\"assistant\",\"status\":\"completed\",\
             \"type\":\"message\"}}]",
            self.message_digits,
            output_text(text)
        )
    }

    fn usage(&self) -> String {
        let (input, output) = (self.asked.prompt_tokens, self.tokens.len());
        format!(
            "{{\"input_tokens\":{input},\"input_tokens_details\":{{\"cached_tokens\":0}},\
             \"output_tokens\":{output},\"output_tokens_details\":{{\"reasoning_tokens\":0,\
             \"tool_output_tokens\":0}},\"total_tokens\":{}}}",
            input + output
        )
    }
}

/// A part of a message that is complete; `text` is the inside of a JSON string.
fn output_text(text: &str) -> String {
    format!("{{\"annotations\":[],\"text\":\"{text}\",\"type\":\"output_text\",\"logprobs\":null}}")
}

/// 32 hex digits in a UUID's groups.
fn uuid(digits: &str) -> String {
    let mut text = digits.to_owned();
    for at in [20, 16, 12, 8] {
        if text.is_char_boundary(at) {
            text.insert(at, '-');
        }
    }
    text
}

/// Writes events into one buffer.
#[derive(Default)]
struct Writer {
    text: String,
    lengths: Vec<usize>,
    kinds: Vec<EventKind>,
}

impl Writer {
    /// Adds `response.KIND`; `fields` writes what stands before its type, and is told its number.
    #[expect(clippy::expect_used, reason = "a String takes whatever is written to it")]
    fn event(
        &mut self,
        kind: EventKind,
        name: &str,
        fields: impl FnOnce(usize, &mut String) -> std::fmt::Result,
    ) {
        let (number, start) = (self.kinds.len(), self.text.len());
        let text = &mut self.text;
        let written = write!(text, "event: response.{name}\ndata: {{")
            .and_then(|()| fields(number, text))
            .and_then(|()| write!(text, ",\"type\":\"response.{name}\"}}\n\n"));
        written.expect("writing to a String");
        self.lengths.push(self.text.len() - start);
        self.kinds.push(kind);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokentape_tokenizer::Tokenizer;

    use super::*;
    use crate::timing::Timing;

    const TOKENS: [&str; 3] = [r" MD\n", r#" \"é\""#, " MD"];

    fn config() -> Config {
        let timing = Timing::fixed(0, 0);
        Config { max_model_len: 100, ..Config::new("m", Arc::new(Tokenizer::embedded().unwrap()), timing) }
    }

    fn answer<'a>(asked: &'a Asked, message_digits: &'a str) -> Answer<'a> {
        Answer {
            asked,
            id: "resp_0000000000000000000000000000000a",
            item_digits: "00000000000000000000000000000001",
            message_digits,
            created: 1_795_498_805,
            model: "m",
            tokens: &TOKENS,
        }
    }

    fn asked(user: &str) -> Asked {
        let body =
            format!(r#"{{"model":"m","input":"hi","max_output_tokens":3,"temperature":0.5,"user":{user}}}"#);
        Asked { prompt_tokens: 9, ..parse(body.as_bytes(), &config()).unwrap() }
    }

    #[test]
    fn the_stream_is_vllms() {
        let asked = asked("null");
        let frames = stream(&answer(&asked, "00000000000000000000000000000002"));
        let kinds = frames.kinds().to_vec();
        assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::Token).count(), 3);
        assert_eq!(kinds.last(), Some(&EventKind::Done));
        let events: Vec<_> = frames.collect();
        assert!(events.iter().all(|event| event.starts_with(b"event: ") && event.ends_with(b"}\n\n")));
        let text = String::from_utf8(events.concat()).unwrap();
        assert_eq!(text, include_str!("../fixtures/responses/stream.sse"));
    }

    #[test]
    fn the_body_is_vllms() {
        let asked = asked("\"u\"");
        let text = body(&answer(&asked, "00000000000000000000000000000001"));
        assert_eq!(text, include_str!("../fixtures/responses/body.json"));
    }

    #[test]
    fn prompts_are_texts_or_items() {
        let tokens = |body: &str| parse(body.as_bytes(), &config()).unwrap().prompt_tokens;
        let text = tokens(r#"{"input":"say it again"}"#);
        assert!(text > 0);
        let items = r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"say it again"}]}]}"#;
        assert_eq!(tokens(items), text);
        assert!(tokens(r#"{"input":"say it again","instructions":"be brief"}"#) > text);
    }

    #[test]
    fn limits_and_refusals() {
        let parse = |body: &str| parse(body.as_bytes(), &config());
        assert_eq!(parse(r#"{"input":"hi","max_output_tokens":7}"#).unwrap().max_tokens, 7);
        let filled = parse(r#"{"input":"hi","max_output_tokens":7000}"#).unwrap();
        assert_eq!(filled.max_tokens as usize, 100 - filled.prompt_tokens);
        for (body, status, words) in [
            ("{}", 400, "'input'"),
            ("nope", 400, "json_invalid"),
            (r#"{"input":7}"#, 400, "valid string"),
            (r#"{"input":"hi","model":"other"}"#, 404, "`other` does not exist"),
            (r#"{"input":"hi","max_output_tokens":0}"#, 400, "at least 1, got 0"),
            (r#"{"input":"hi","previous_response_id":"resp_1"}"#, 404, "'resp_1' not found"),
        ] {
            let refusal = parse(body).unwrap_err();
            assert!(refusal.status.as_u16() == status && refusal.body.contains(words), "{}", refusal.body);
        }
    }
}
