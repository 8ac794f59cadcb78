//! A response that is one JSON document: of chat, completions, the responses API or embeddings.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::message::Message;
use super::typed::Outline;
use super::usage::Counts;
use super::{is_filled, lenient};
use crate::timeline::Usage;

/// What a document says.
#[derive(Debug, Default, PartialEq)]
pub struct Document {
    /// Whether there is anything in it: a token, by its text or by the server's count, or an embedding.
    pub has_output: bool,
    /// Whether it is an error.
    pub is_error: bool,
    /// The server's token counts, where sent.
    pub usage: Option<Usage>,
    /// The response's id.
    pub id: Option<String>,
    /// The last choice's finish reason.
    pub finish_reason: Option<String>,
    /// The generated text, of all choices; absent where nothing is generated (embeddings).
    pub text: Option<String>,
}

/// The documents of all endpoints in one: each has `choices`, `output` or `data`.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow, default)]
    output: Option<Vec<Item<'a>>>,
    #[serde(borrow, default)]
    data: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    usage: Option<Counts<'a>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
}

/// An item of the responses API's output.
#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    content: Option<Vec<Part<'a>>>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
}

/// Reads a whole response; nothing where it is not the JSON of an answer, or of an error.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<Document> {
    let text = std::str::from_utf8(bytes).ok()?;
    // serde takes an array for a struct too.
    let body: Body<'_> =
        text.trim_ascii_start().starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()?;
    let mut document = Document {
        is_error: body.error.is_some(),
        usage: body.usage.as_ref().map(Counts::usage),
        id: body.id.map(Cow::into_owned),
        ..Document::default()
    };
    // A token need not show: where the server counts it, it is there.
    document.has_output = document.usage.is_some_and(|usage| usage.completion_tokens > 0);
    if let Some(choices) = body.choices {
        for choice in choices {
            document.add_choice(choice);
        }
    } else if let Some(output) = body.output {
        for item in &output {
            document.add_item(item);
        }
        let outline = serde_json::from_str::<Outline<'_>>(text).unwrap_or_default();
        document.finish_reason = outline.finish_reason().map(Cow::into_owned);
    } else if let Some(data) = body.data {
        document.has_output = data.iter().any(|value| is_filled(value));
    } else if !document.is_error {
        return None;
    }
    Some(document)
}

impl Document {
    fn add_choice(&mut self, choice: Choice<'_>) {
        let message = choice.message.as_ref();
        self.add_text(message.and_then(|message| message.content).or(choice.text));
        self.has_output |= message.is_some_and(|message| {
            message.has_reasoning() || message.has_reasoning_content() || message.has_call()
        });
        self.finish_reason = choice.finish_reason.map(Cow::into_owned).or(self.finish_reason.take());
    }

    fn add_item(&mut self, item: &Item<'_>) {
        let is_message = item.kind.as_deref() == Some("message");
        if is_message {
            for part in item.content.iter().flatten() {
                self.add_text(part.text);
            }
        }
        // Reasoning, or a call: not there unless the model wrote it.
        self.has_output |= !is_message;
    }

    fn add_text(&mut self, text: Option<&RawValue>) {
        self.has_output |= text.is_some_and(is_filled);
        let text = text.and_then(|text| serde_json::from_str::<String>(text.get()).ok());
        self.text.get_or_insert_default().extend(text);
    }
}

/// Whether a request's body asks for a stream.
#[must_use]
pub fn asks_for_stream(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Asks<'a> {
        #[serde(borrow, default)]
        stream: Option<&'a RawValue>,
    }
    let body: Option<&RawValue> = serde_json::from_slice(body).ok();
    let asks = body.and_then(lenient::<Asks<'_>>);
    asks.and_then(|asks| asks.stream).is_some_and(|stream| stream.get() == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Document {
        read(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_chat_of_two_choices() {
        let document = read_text(include_str!("../../../fixtures/wire/chat_nonstream_n2.json"));
        let usage = document.usage.unwrap();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens), (5, 4, Some(0)));
        assert_eq!(document.text.as_deref(), Some(" while\u{fffd}zen"));
        assert_eq!(document.finish_reason.as_deref(), Some("length"));
        assert_eq!(document.id.as_deref(), Some("chatcmpl-8a43b2ce0fca3927"));
        assert!(document.has_output && !document.is_error);
    }

    #[test]
    fn a_call_and_silent_tokens_are_output() {
        let document = read_text(include_str!("../../../fixtures/wire/tool_named_n.json"));
        assert!(document.has_output);
        let silent = r#"{"choices":[{"message":{"content":""}}],"usage":{"completion_tokens":1}}"#;
        assert!(read_text(silent).has_output);
        let nothing =
            r#"{"choices":[{"message":{"content":"","tool_calls":[]}}],"usage":{"completion_tokens":0}}"#;
        assert!(!read_text(nothing).has_output);
    }

    #[test]
    fn a_completion() {
        let document =
            read_text(r#"{"object":"text_completion","choices":[{"text":"a","finish_reason":"stop"}]}"#);
        assert_eq!((document.text.as_deref(), document.usage), (Some("a"), None));
    }

    #[test]
    fn a_response() {
        let document = read_text(
            r#"{"id":"resp_1","object":"response","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"error":null,"output":[{"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]},{"type":"message","content":[{"type":"output_text","text":"a"},{"type":"output_text","text":"b"}]}],"usage":{"input_tokens":3,"output_tokens":4}}"#,
        );
        assert_eq!((document.text.as_deref(), document.has_output), (Some("ab"), true));
        assert_eq!(document.finish_reason.as_deref(), Some("max_output_tokens"));
        assert_eq!(document.usage.unwrap().completion_tokens, 4);
        assert!(!read_text(r#"{"status":"queued","output":[],"usage":null}"#).has_output);
    }

    #[test]
    fn embeddings() {
        let document = read_text(
            r#"{"id":"embd-1","object":"list","data":[{"index":0,"object":"embedding","embedding":[0.5]}],"usage":{"prompt_tokens":3,"total_tokens":3,"completion_tokens":0,"prompt_tokens_details":null}}"#,
        );
        assert_eq!((document.text, document.has_output), (None, true));
        assert_eq!(document.usage.unwrap().prompt_tokens, 3);
        assert!(!read_text(r#"{"object":"list","data":[]}"#).has_output);
    }

    #[test]
    fn what_is_no_answer() {
        for text in ["", "{}", "[]", "{\"choices\":", "ok", "{\"choices\":7}"] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
        assert!(read_text(r#"{"error":{"message":"boom"}}"#).is_error);
    }

    #[test]
    fn a_body_asks_for_a_stream() {
        assert!(asks_for_stream(br#"{"messages":[{"stream":false}], "stream" : true}"#));
        for body in [&br#"{"stream":false}"#[..], br#"{"a":{"stream":true}}"#, b"{}", b"", b"\xff"] {
            assert!(!asks_for_stream(body));
        }
    }
}
