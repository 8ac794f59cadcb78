//! What one event's data says: from JSON text to [`Facts`] and counts. Pure.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::timeline::{Facts, ServerTimes, Usage};

/// What one event's data says.
#[derive(Debug, Default)]
pub struct Meaning<'a> {
    /// What the event carried.
    pub facts: Facts,
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

impl Meaning<'_> {
    /// An event that says no more than this.
    #[must_use]
    pub fn of(facts: Facts) -> Self {
        Self { facts, ..Self::default() }
    }

    /// The choice's text.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        serde_json::from_str(self.text?.get()).ok()
    }
}

/// Values that a server may send in more than one shape are kept raw: only their emptiness matters here.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    object: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(default)]
    usage: Option<Counts>,
    #[serde(borrow, default)]
    metrics: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    role: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow, default)]
    function_call: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Counts {
    #[serde(default)]
    prompt_tokens: Option<u32>,
    #[serde(default)]
    completion_tokens: Option<u32>,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u32>,
}

#[derive(Deserialize)]
struct Times<'a> {
    #[serde(borrow, default)]
    queue_time_ms: Option<&'a RawValue>,
    #[serde(borrow, default)]
    time_to_first_token_ms: Option<&'a RawValue>,
}

/// The times of a `metrics` object; what is no number is none.
fn server_times(metrics: &RawValue) -> Option<ServerTimes> {
    // serde takes an array for a struct too.
    let object = metrics.get().starts_with('{');
    let times: Times<'_> = serde_json::from_str(metrics.get()).ok().filter(|_| object)?;
    let number = |value: Option<&RawValue>| value?.get().parse().ok();
    Some(ServerTimes { queue_ms: number(times.queue_time_ms), ttft_ms: number(times.time_to_first_token_ms) })
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
    let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else {
        return Meaning::default();
    };
    let mut facts = Facts::JSON;
    let mut set = |condition: bool, fact: Facts| {
        if condition {
            facts = facts.with(fact);
        }
    };
    let object = chunk.object.as_deref();
    set(chunk.error.is_some() || object == Some("error"), Facts::ERROR);
    set(object == Some("text_completion"), Facts::COMPLETION);
    set(chunk.usage.is_some(), Facts::USAGE);
    let mut text = None;
    let mut finish_reason = None;
    if let Some(choice) = chunk.choices.and_then(|choices| choices.into_iter().next()) {
        set(true, Facts::CHOICES);
        let delta = choice.delta.as_ref();
        text = delta.and_then(|delta| delta.content).or(choice.text);
        set(text.is_some_and(is_filled), Facts::CONTENT);
        set(text.is_some_and(|text| text.get() == "\"\""), Facts::EMPTY_CONTENT);
        if let Some(delta) = delta {
            set(delta.role.is_some(), Facts::ROLE);
            set(delta.reasoning.is_some_and(is_filled), Facts::REASONING);
            set(delta.reasoning_content.is_some_and(is_filled), Facts::REASONING_CONTENT);
            set(
                [delta.tool_calls, delta.function_call].into_iter().flatten().any(is_filled),
                Facts::TOOL_CALL,
            );
        }
        set(choice.finish_reason.is_some(), Facts::FINISH);
        finish_reason = choice.finish_reason;
    }
    let usage = chunk.usage.map(|counts| Usage {
        prompt_tokens: counts.prompt_tokens.unwrap_or(0),
        completion_tokens: counts.completion_tokens.unwrap_or(0),
        cached_tokens: counts.prompt_tokens_details.and_then(|details| details.cached_tokens),
    });
    let server_times = chunk.metrics.and_then(server_times);
    Meaning { facts, usage, server_times, id: chunk.id, finish_reason, text }
}

/// Whether a JSON value is one that Python calls true: not an empty string, list or object.
fn is_filled(value: &RawValue) -> bool {
    !matches!(value.get(), "\"\"" | "[]" | "{}" | "null" | "false" | "0")
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
