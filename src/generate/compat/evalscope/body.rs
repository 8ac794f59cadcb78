//! One request's body (`evalscope/perf/plugin/api/openai_api.py`, `build_request`), and its bytes: `json.dumps` with
//! `ensure_ascii=False` in both versions.

use serde_json::{Map, Value, json};
use tokentape_tokenizer::Tokenizer;

use super::{Message, Params};
use crate::generate::Error;
use crate::metrics::evalscope::Version;
use crate::python::Json;

/// The body around a message, its keys in the client's order.
///
/// What the parameters say is written over what a template says, in its place; a whole body keeps what it has, and
/// only gets what it lacks. 1.1.1 leaves `stream` out where answers are not streamed; 1.14.1 says so.
pub(super) fn compose(
    params: &Params,
    tokenizer: &Tokenizer,
    message: &Message,
    max_tokens: u64,
) -> Result<Map<String, Value>, Error> {
    let (fields, whole) = fields(params, tokenizer, message)?;
    let mut body = Body { fields, whole };
    body.set("model", params.model.as_deref());
    body.set("max_tokens", Some(max_tokens));
    body.set("min_tokens", params.min_tokens);
    body.set("frequency_penalty", params.frequency_penalty);
    body.set("repetition_penalty", params.repetition_penalty);
    body.set("logprobs", params.logprobs.then_some(true));
    body.set("n", params.n_choices);
    body.set("seed", params.seed);
    body.set("stop", params.stop.clone());
    match params.version {
        Version::V1_1_1 if params.stream => {
            body.set("stream", Some(true));
            body.set("stream_options", Some(json!({"include_usage": true})));
        }
        Version::V1_1_1 => {}
        Version::V1_14_1 => {
            body.set("stream", Some(params.stream));
            if body.fields.get("stream") == Some(&Value::Bool(true)) {
                body.set("stream_options", Some(json!({"include_usage": true})));
            } else {
                // `remove` would put the last key in its place.
                body.fields.shift_remove("stream_options");
            }
        }
    }
    body.set("stop_token_ids", params.stop_token_ids.clone());
    body.set("temperature", Some(params.temperature));
    body.set("top_p", params.top_p);
    body.set("top_k", params.top_k);
    for (key, value) in &params.extra_args {
        body.set(key, Some(value.clone()));
    }
    Ok(body.fields)
}

/// What the body begins with, and whether that is a whole body.
fn fields(
    params: &Params,
    tokenizer: &Tokenizer,
    message: &Message,
) -> Result<(Map<String, Value>, bool), Error> {
    let one = |key: &str, value: Value| Map::from_iter([(key.to_owned(), value)]);
    if params.tokenize_prompt && !matches!(message, Message::Body(_)) {
        return Ok((one("prompt", ids(tokenizer, message)?.into()), false));
    }
    if let Some(template) = &params.query_template {
        let mut fields = template.clone();
        fields.insert("messages".to_owned(), value(message));
        return Ok((fields, false));
    }
    Ok(match message {
        Message::Body(fields) => (fields.clone(), true),
        Message::Text(_) => (one("prompt", value(message)), false),
        Message::Ids(_) | Message::Messages(_) => (one("messages", value(message)), false),
    })
}

fn value(message: &Message) -> Value {
    match message {
        Message::Body(fields) => Value::Object(fields.clone()),
        Message::Ids(ids) => ids.clone().into(),
        Message::Messages(messages) => messages.clone(),
        Message::Text(prompt) => prompt.clone().into(),
    }
}

/// `_messages_to_token_ids`: what is neither a text nor a list with something in it becomes no ids at all.
fn ids(tokenizer: &Tokenizer, message: &Message) -> Result<Vec<u32>, Error> {
    Ok(match message {
        Message::Ids(ids) => ids.clone(),
        Message::Text(prompt) => tokenizer.encode(prompt)?,
        Message::Messages(messages) if messages[0].is_object() => {
            tokenizer.encode(&tokenizer.render_chat(messages, true)?)?
        }
        Message::Messages(_) | Message::Body(_) => Vec::new(),
    })
}

struct Body {
    fields: Map<String, Value>,
    whole: bool,
}

impl Body {
    fn set(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value.filter(|_| !(self.whole && self.fields.contains_key(key))) {
            self.fields.insert(key.to_owned(), value.into());
        }
    }
}

/// The body's bytes.
pub(super) fn dumps(body: Map<String, Value>) -> Vec<u8> {
    Json::from(&Value::Object(body)).dumps_unicode().into_bytes()
}

/// The prompt's tokens as a server counts them: those of the rendered template for messages, of the text or of the ids
/// for a prompt. Messages that the tokenizer's template does not take are counted by their texts.
pub(super) fn input_tokens(body: &Map<String, Value>, tokenizer: &Tokenizer) -> Result<u32, Error> {
    let count = match (body.get("messages"), body.get("prompt")) {
        (Some(messages), _) if tokenizer.has_chat_template() => match tokenizer.count_chat(messages) {
            Ok(count) => count,
            Err(_) => count_contents(messages, tokenizer)?,
        },
        (Some(messages), _) => count_contents(messages, tokenizer)?,
        (None, Some(Value::String(prompt))) => tokenizer.count(prompt)?,
        (None, Some(Value::Array(ids))) => ids.len(),
        _ => 0,
    };
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

fn count_contents(messages: &Value, tokenizer: &Tokenizer) -> Result<usize, Error> {
    let contents =
        messages.as_array().into_iter().flatten().filter_map(|message| message["content"].as_str());
    contents.map(|content| Ok(tokenizer.count(content)?)).sum()
}

/// The tokens that the body asks for, whoever has the last word on them.
pub(super) fn output_tokens(body: &Map<String, Value>, max_tokens: u64) -> u32 {
    let asked = body.get("max_tokens").and_then(Value::as_u64).unwrap_or(max_tokens);
    u32::try_from(asked).unwrap_or(u32::MAX)
}
