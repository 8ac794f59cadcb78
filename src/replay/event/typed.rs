//! An event of the responses API, told by its `type`.
//!
//! | event | facts |
//! |---|---|
//! | `response.output_text.delta`, `response.refusal.delta` | content, or empty content |
//! | `response.reasoning_text.delta`, `response.reasoning_summary_text.delta` | reasoning |
//! | `response.function_call_arguments.delta` and those of the other tools; `response.output_item.added` of a call, which names its tool | tool call |
//! | `response.completed`, `response.incomplete` | finish, and usage where sent |
//! | `response.failed` | error |
//!
//! All others (`response.created`, `response.content_part.added`, each `….done`, …) frame or repeat these. There is one
//! choice. The grammar is that of `OpenAI`'s API; vLLM's events are a part of it (`serving_responses.py`).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::usage::Counts;
use super::{Meaning, Text, is_filled, lenient};
use crate::timeline::Facts;

#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    item: Option<&'a RawValue>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
}

/// An item of the output, by its type.
#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
}

/// A response object without its output.
#[derive(Default, Deserialize)]
pub(super) struct Outline<'a> {
    #[serde(borrow, default)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow, default)]
    status: Option<Text<'a>>,
    #[serde(borrow, default)]
    incomplete_details: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) usage: Option<Counts<'a>>,
}

#[derive(Deserialize)]
struct Incomplete<'a> {
    #[serde(borrow, default)]
    reason: Option<Text<'a>>,
}

impl<'a> Outline<'a> {
    /// Why it ended: what made it incomplete, else its status.
    pub(super) fn finish_reason(&self) -> Option<Cow<'a, str>> {
        let incomplete = self.incomplete_details.and_then(lenient::<Incomplete<'a>>);
        incomplete.and_then(|incomplete| incomplete.reason).or_else(|| self.status.clone()).map(|text| text.0)
    }
}

/// Reads an event of the responses API.
pub(super) fn read(text: &str) -> Meaning<'_> {
    let Ok(event) = serde_json::from_str::<Typed<'_>>(text) else {
        return Meaning::default();
    };
    let mut meaning = Meaning::of(Facts::JSON);
    let mut set = |condition: bool, fact: Facts| {
        if condition {
            meaning.facts = meaning.facts.with(fact);
        }
    };
    let outline = event.response.and_then(lenient::<Outline<'_>>).unwrap_or_default();
    match event.kind.strip_prefix("response.").unwrap_or_default() {
        "output_text.delta" | "refusal.delta" => {
            set(event.delta.is_some_and(is_filled), Facts::CONTENT);
            set(event.delta.is_some_and(|delta| delta.get() == "\"\""), Facts::EMPTY_CONTENT);
            meaning.text = event.delta;
        }
        "reasoning_text.delta" | "reasoning_summary_text.delta" => {
            set(event.delta.is_some_and(is_filled), Facts::REASONING);
        }
        "output_item.added" => {
            let item = event.item.and_then(lenient::<Item<'_>>);
            set(item.is_some_and(|item| item.kind.ends_with("_call")), Facts::TOOL_CALL);
        }
        "completed" | "incomplete" => {
            set(true, Facts::FINISH);
            set(outline.usage.is_some(), Facts::USAGE);
            meaning.finish_reason = outline.finish_reason();
        }
        "failed" => set(true, Facts::ERROR),
        kind if is_tool_delta(kind) => set(event.delta.is_some_and(is_filled), Facts::TOOL_CALL),
        _ => {}
    }
    meaning.usage = outline.usage.map(|counts| counts.usage());
    meaning.id = outline.id.map(|id| id.0);
    meaning
}

/// What a model writes for a tool: `function_call_arguments.delta`, `mcp_call_arguments.delta`, …
fn is_tool_delta(kind: &str) -> bool {
    let written = kind.strip_suffix(".delta").unwrap_or_default();
    written.ends_with("_call_arguments")
        || matches!(written, "custom_tool_call_input" | "code_interpreter_call_code")
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    fn facts(data: &str) -> Facts {
        read(data.as_bytes()).facts
    }

    #[test]
    fn deltas_are_told_apart() {
        let delta = |kind: &str| {
            facts(&format!(
                r#"{{"type":"response.{kind}.delta","sequence_number":4,"item_id":"i","delta":"x"}}"#
            ))
        };
        for (kind, fact) in [
            ("output_text", Facts::CONTENT),
            ("refusal", Facts::CONTENT),
            ("reasoning_text", Facts::REASONING),
            ("reasoning_summary_text", Facts::REASONING),
            ("function_call_arguments", Facts::TOOL_CALL),
            ("mcp_call_arguments", Facts::TOOL_CALL),
            ("custom_tool_call_input", Facts::TOOL_CALL),
            ("code_interpreter_call_code", Facts::TOOL_CALL),
        ] {
            assert_eq!(delta(kind), Facts::JSON.with(fact), "{kind}");
        }
        assert_eq!(delta("audio"), Facts::JSON);
        let silent = r#"{"type":"response.output_text.delta","delta":""}"#;
        assert_eq!(facts(silent), Facts::JSON.with(Facts::EMPTY_CONTENT));
        assert!(facts(silent).is_output());
        let text = r#"{"delta":"a\"b","type":"response.output_text.delta"}"#;
        assert_eq!(read(text.as_bytes()).text().unwrap(), "a\"b");
    }

    #[test]
    fn what_frames_an_answer_is_no_output() {
        for data in [
            r#"{"type":"response.created","response":{"id":"resp_1","usage":null,"output":[]}}"#,
            r#"{"type":"response.output_item.added","item":{"type":"message","content":[]}}"#,
            r#"{"type":"response.content_part.added","part":{"type":"output_text","text":""}}"#,
            r#"{"type":"response.output_text.done","text":"all of it"}"#,
            r#"{"type":"response.output_item.done","item":{"type":"function_call"}}"#,
        ] {
            assert_eq!(facts(data), Facts::JSON, "{data}");
        }
        let call = r#"{"type":"response.output_item.added","item":{"type":"function_call","name":"f"}}"#;
        assert_eq!(facts(call), Facts::JSON.with(Facts::TOOL_CALL));
    }

    #[test]
    fn the_end_has_the_counts() {
        let event = r#"{"type":"response.completed","response":{"id":"resp_1","status":"completed","incomplete_details":null,"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":14}}}"#;
        let meaning = read(event.as_bytes());
        assert_eq!(meaning.facts, Facts::JSON.with(Facts::FINISH).with(Facts::USAGE));
        assert_eq!(
            (meaning.id.as_deref(), meaning.finish_reason.as_deref()),
            (Some("resp_1"), Some("completed"))
        );
        let usage = meaning.usage.unwrap();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (9, 5));
        assert_eq!((usage.cached_tokens, usage.reasoning_tokens), (Some(4), Some(2)));
        let cut = r#"{"type":"response.incomplete","response":{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"}}}"#;
        assert_eq!(read(cut.as_bytes()).finish_reason.as_deref(), Some("max_output_tokens"));
    }

    #[test]
    fn failures_are_errors() {
        assert!(
            facts(r#"{"type":"response.failed","response":{"error":{"code":"server_error"}}}"#)
                .has(Facts::ERROR)
        );
        assert!(facts(r#"{"type":"error","code":"x","message":"boom","param":null}"#).has(Facts::ERROR));
        // A chunk of chat that has a type of its own stays a chunk.
        assert!(facts(r#"{"type":"chunk","choices":[{"delta":{"content":"x"}}]}"#).has(Facts::CONTENT));
    }
}
