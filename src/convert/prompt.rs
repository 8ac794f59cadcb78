//! What a tape's request asks, taken from its body.

use serde_json::{Map, Value};

use crate::tape::Request;

/// A request's body, taken apart: the prompt, the number of tokens asked for, and all the rest.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ask {
    pub(super) prompt: Prompt,
    /// `max_completion_tokens`, else `max_tokens`, else what the tape says.
    pub(super) output_tokens: Option<u64>,
    /// The key that it stood under.
    pub(super) tokens_key: Option<&'static str>,
    /// The other keys, in the body's order.
    pub(super) rest: Map<String, Value>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Prompt {
    /// `/chat/completions` with one user message of text.
    Chat {
        /// The text.
        text: String,
        /// Whether it is a list of one part, rather than a string.
        parts: bool,
    },
    /// `/completions` with a text.
    Completion {
        /// The text.
        text: String,
    },
}

impl Prompt {
    pub(super) fn text(&self) -> &str {
        match self {
            Prompt::Chat { text, .. } | Prompt::Completion { text } => text,
        }
    }
}

/// A body's JSON object, or why it is none.
pub(super) fn object(request: &Request) -> Result<Map<String, Value>, String> {
    serde_json::from_slice(&request.body).map_err(|error| format!("its body is not a JSON object: {error}"))
}

/// Takes a request apart, or says why it is more than one text.
pub(super) fn ask(request: &Request) -> Result<Ask, String> {
    let mut body = object(request)?;
    let path = request.path.split('?').next().unwrap_or_default().trim_end_matches('/');
    let prompt = if path.ends_with("/chat/completions") {
        chat(body.shift_remove("messages"))?
    } else if path.ends_with("/completions") {
        completion(body.shift_remove("prompt"))?
    } else {
        return Err(format!("its path {} is neither …/chat/completions nor …/completions", request.path));
    };
    let mut output_tokens = None;
    let mut tokens_key = None;
    for key in ["max_tokens", "max_completion_tokens"] {
        if let Some(value) = body.shift_remove(key).filter(|value| !value.is_null()) {
            let tokens = value.as_u64().ok_or_else(|| format!("its {key} is {value}, not a count"))?;
            (output_tokens, tokens_key) = (Some(tokens), Some(key));
        }
    }
    let output_tokens = output_tokens.or(request.output_tokens.map(u64::from));
    Ok(Ask { prompt, output_tokens, tokens_key, rest: body })
}

fn completion(prompt: Option<Value>) -> Result<Prompt, String> {
    match prompt {
        Some(Value::String(text)) => Ok(Prompt::Completion { text }),
        Some(_) => Err("its prompt is a list (several prompts, or token ids), not one text".to_owned()),
        None => Err("it has no prompt".to_owned()),
    }
}

fn chat(messages: Option<Value>) -> Result<Prompt, String> {
    let Some(Value::Array(mut messages)) = messages else {
        return Err("it has no list of messages".to_owned());
    };
    let count = messages.len();
    let (Some(Value::Object(mut message)), 1) = (messages.pop(), count) else {
        return Err(format!("it has {count} messages, not one"));
    };
    let role = message.shift_remove("role").unwrap_or_default();
    if role != "user" {
        return Err(format!("its one message is of role {role}, not of the user"));
    }
    let content = message.shift_remove("content").unwrap_or_default();
    if let Some(key) = message.keys().next() {
        return Err(format!("its message also has {key:?}"));
    }
    match content {
        Value::String(text) => Ok(Prompt::Chat { text, parts: false }),
        Value::Array(parts) => match parts.as_slice() {
            [Value::Object(part)] if part.len() == 2 && part.get("type") == Some(&"text".into()) => part
                .get("text")
                .and_then(Value::as_str)
                .map(|text| Prompt::Chat { text: text.to_owned(), parts: true })
                .ok_or_else(|| "its message's part has no text".to_owned()),
            _ => Err("its message is not one part of text".to_owned()),
        },
        _ => Err("its message has no text".to_owned()),
    }
}
