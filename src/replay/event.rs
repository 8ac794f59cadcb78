//! What one event's data says: from JSON text to [`Facts`] and counts. Pure.
//!
//! Chat and completions send chunks, with `choices`; the responses API sends typed events, told by their `type`.
//! Of those, `response.output_text.delta` is content, `response.reasoning_text.delta` reasoning, and so on: the bits of
//! [`Facts`] mean the same for all. A response that is no stream is one [`document`].

mod chunk;
pub mod document;
mod message;
mod typed;
mod usage;

use std::borrow::Cow;
use std::ops::Deref;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::timeline::{Facts, ServerTimes, Usage};

/// What one event's data says.
#[derive(Debug, Default)]
pub struct Meaning<'a> {
    /// What the event carried.
    pub facts: Facts,
    /// The index of the choice that it belongs to.
    pub choice: u32,
    /// The server's token counts, where sent.
    pub usage: Option<Usage>,
    /// The server's own times, where sent.
    pub server_times: Option<ServerTimes>,
    /// The response's id.
    pub id: Option<Cow<'a, str>>,
    /// The choice's finish reason.
    pub finish_reason: Option<Cow<'a, str>>,
    /// The choice's text, as it stands in the JSON (quoted and escaped).
    text: Option<&'a RawValue>,
}

impl<'a> Meaning<'a> {
    /// An event that says no more than this.
    #[must_use]
    pub fn of(facts: Facts) -> Self {
        Self { facts, ..Self::default() }
    }

    /// The choice's text.
    #[must_use]
    pub fn text(&self) -> Option<Cow<'a, str>> {
        serde_json::from_str::<Text<'_>>(self.text?.get()).ok().map(|text| text.0)
    }
}

/// A JSON string, borrowed where nothing in it is escaped. An `Option<Cow<str>>` would always be copied: serde borrows
/// only for a field that is a `Cow` itself.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Reads one event's data. Data that is no JSON object of the expected shape has no [`Facts::JSON`].
#[must_use]
pub fn read(data: &[u8]) -> Meaning<'_> {
    if data.trim_ascii() == b"[DONE]" {
        return Meaning::of(Facts::DONE);
    }
    // serde takes an array for a struct too.
    if !data.trim_ascii_start().starts_with(b"{") {
        return Meaning::default();
    }
    // Held to be UTF-8 as a whole, which takes less than each of its strings by itself.
    let Ok(text) = str::from_utf8(data) else {
        return Meaning::default();
    };
    let Ok(chunk) = serde_json::from_str::<chunk::Chunk<'_>>(text) else {
        return Meaning::default();
    };
    match chunk.kind.map(RawValue::get) {
        Some("\"error\"") => Meaning::of(Facts::JSON.with(Facts::ERROR)),
        Some(kind) if kind.starts_with("\"response.") => typed::read(text),
        _ => chunk.meaning(),
    }
}

/// Whether a JSON value is one that Python calls true: not an empty string, list or object.
fn is_filled(value: &RawValue) -> bool {
    !matches!(value.get(), "\"\"" | "[]" | "{}" | "null" | "false" | "0")
}

/// A JSON object of which everything may be missing; what is none, or of another shape, is nothing.
fn lenient<'a, T: Deserialize<'a>>(value: &'a RawValue) -> Option<T> {
    // serde takes an array for a struct too.
    value.get().starts_with('{').then(|| serde_json::from_str(value.get()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(data: &str) -> Facts {
        read(data.as_bytes()).facts
    }

    fn all(facts: &[Facts]) -> Facts {
        facts.iter().fold(Facts::default(), |sum, fact| sum.with(*fact))
    }

    #[test]
    fn vllm_chat_events() {
        let role = r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null}"#;
        assert_eq!(facts(role), all(&[Facts::JSON, Facts::CHOICES, Facts::ROLE, Facts::EMPTY_CONTENT]));
        assert!(!facts(role).is_output());
        let token = r#"{"choices":[{"delta":{"content":" MD\n"},"finish_reason":"length"}]}"#;
        assert_eq!(facts(token), all(&[Facts::JSON, Facts::CHOICES, Facts::CONTENT, Facts::FINISH]));
        assert_eq!(read(token.as_bytes()).text().unwrap(), " MD\n");
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":9,"total_tokens":14,"completion_tokens":5}}"#;
        assert_eq!(facts(usage), all(&[Facts::JSON, Facts::USAGE]));
        let counts = read(usage.as_bytes()).usage.unwrap();
        assert_eq!((counts.prompt_tokens, counts.completion_tokens, counts.cached_tokens), (9, 5, None));
        assert_eq!(facts("[DONE]"), Facts::DONE);
    }

    #[test]
    fn completions_reasoning_tools_and_errors() {
        let completion =
            r#"{"object":"text_completion","choices":[{"text":"","finish_reason":null}],"usage":null}"#;
        assert_eq!(
            facts(completion),
            all(&[Facts::JSON, Facts::COMPLETION, Facts::CHOICES, Facts::EMPTY_CONTENT])
        );
        assert!(facts(completion).is_output());
        assert!(facts(r#"{"choices":[{"delta":{"reasoning":"hm"}}]}"#).has(Facts::REASONING));
        assert!(facts(r#"{"choices":[{"delta":{"reasoning_content":"hm","content":null}}]}"#).is_output());
        assert!(
            facts(r#"{"choices":[{"delta":{"content":null,"tool_calls":[{"index":0}]}}]}"#)
                .has(Facts::TOOL_CALL)
        );
        assert!(
            !facts(r#"{"choices":[{"delta":{"tool_calls":[]},"finish_reason":"tool_calls"}]}"#).is_output()
        );
        assert!(facts(r#"{"error":{"message":"out of memory","code":500}}"#).has(Facts::ERROR));
        assert!(!facts(r#"{"error":null,"choices":[]}"#).has(Facts::ERROR));
    }

    #[test]
    fn the_servers_own_times() {
        let times = |metrics: &str| read(format!(r#"{{"metrics":{metrics}}}"#).as_bytes()).server_times;
        assert_eq!(
            times(r#"{"queue_time_ms":1.25,"time_to_first_token_ms":20,"more":[1]}"#),
            Some(ServerTimes { queue_ms: Some(1.25), ttft_ms: Some(20.0) })
        );
        assert_eq!(
            times(r#"{"queue_time_ms":true,"time_to_first_token_ms":null}"#),
            Some(ServerTimes::default())
        );
        assert_eq!((times("null"), times("[1,2]"), times("7")), (None, None, None));
    }

    #[test]
    fn what_is_not_json_has_no_facts() {
        for data in ["", "nonsense", "[]", "[1]", "{\"choices\":", "42", "\"text\""] {
            assert_eq!(facts(data), Facts::default(), "{data}");
        }
        assert_eq!(read(b"{\"id\":\"\xff\"}").facts, Facts::default());
    }
}
