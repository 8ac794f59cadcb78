//! How many tokens a recorded request brings and asks for.

use std::sync::Arc;

use serde_json::Value;
use tokentape_tokenizer::Tokenizer;

/// The tokens of a request, as far as they are known.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Asks {
    pub(super) input: Option<u32>,
    pub(super) output: Option<u32>,
}

/// What the body itself says: the tokens asked for.
pub(super) fn asked(body: &[u8]) -> Asks {
    serde_json::from_slice(body).map_or_else(|_| Asks::default(), |body| of_output(&body))
}

fn of_output(body: &Value) -> Asks {
    let stated = ["max_completion_tokens", "max_tokens", "max_output_tokens"]
        .into_iter()
        .find_map(|key| body.get(key)?.as_u64());
    Asks { input: None, output: stated.and_then(|tokens| u32::try_from(tokens).ok()) }
}

/// Counts the tokens of prompts.
#[derive(Debug)]
pub(super) struct Counter {
    tokenizer: Arc<Tokenizer>,
}

impl Counter {
    pub(super) fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer }
    }

    /// The tokens of a request. The prompt's are counted as a server counts them: a chat with its template. They are
    /// left out where the template would be given more than the messages (tools), or has no text to give (images).
    pub(super) fn asks(&self, path: &str, body: &[u8]) -> Asks {
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return Asks::default() };
        let input = if path.contains("/chat/completions") {
            let has_tools = body.get("tools").is_some_and(|tools| !tools.is_null());
            body.get("messages").filter(|_| !has_tools).and_then(|messages| self.chat(messages))
        } else {
            body.get("prompt").or_else(|| body.get("input")).and_then(|prompt| self.prompt(prompt))
        };
        Asks { input: input.and_then(|tokens| u32::try_from(tokens).ok()), ..of_output(&body) }
    }

    fn chat(&self, messages: &Value) -> Option<usize> {
        let is_text = |content: &Value| match content {
            Value::Array(parts) => parts.iter().all(|part| part["type"] == "text"),
            _ => true,
        };
        let all_text = messages.as_array()?.iter().all(|message| is_text(&message["content"]));
        all_text.then(|| self.tokenizer.count_chat(messages).ok())?
    }

    /// A text, token ids, or a list of either.
    fn prompt(&self, prompt: &Value) -> Option<usize> {
        match prompt {
            Value::String(text) => self.tokenizer.count(text).ok(),
            Value::Array(ids) if ids.iter().all(Value::is_u64) => Some(ids.len()),
            Value::Array(prompts) => prompts.iter().map(|prompt| self.prompt(prompt)).sum(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_counted_as_a_server_counts_them() {
        let tokenizer = Tokenizer::embedded().unwrap();
        let (text, words) = ("the quick brown fox", tokenizer.count("the quick brown fox").unwrap());
        let chat = tokenizer.count_chat(&serde_json::json!([{"role": "user", "content": text}])).unwrap();
        let counter = Counter::new(tokenizer.into());
        let asks = |path: &str, body: Value| {
            let asks = counter.asks(path, body.to_string().as_bytes());
            (asks.input.map(|tokens| tokens as usize), asks.output)
        };
        let messages = serde_json::json!([{"role": "user", "content": text}]);
        let body = serde_json::json!({"messages": messages, "max_tokens": 9});
        assert_eq!(asks("/v1/chat/completions", body), (Some(chat), Some(9)));
        let body = serde_json::json!({"messages": messages, "tools": [{}]});
        assert_eq!(asks("/v1/chat/completions", body), (None, None));
        let body = serde_json::json!({"prompt": text, "max_tokens": 1, "max_completion_tokens": 2});
        assert_eq!(asks("/v1/completions", body), (Some(words), Some(2)));
        let body = serde_json::json!({"prompt": [text, text]});
        assert_eq!(asks("/v1/completions", body), (Some(2 * words), None));
        assert_eq!(asks("/v1/embeddings", serde_json::json!({"input": [[1, 2], [3]]})), (Some(3), None));
        assert_eq!(counter.asks("/v1/completions", b"no JSON"), Asks::default());
    }
}
