//! Where a body's prompt begins.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

/// What a prompt may stand under.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

/// Where in a body the texts stand with which its prompts begin, as JSON strings with their quotes: of a chat
/// (`messages`, or `input` as a list) the first text of its first message that has one; of `prompt` and `input` the
/// text, or each text of a list. None where the body is no JSON object, or its prompt no text (token ids).
#[must_use]
pub fn beginnings(body: &[u8]) -> Vec<Range<usize>> {
    let Some(text) = std::str::from_utf8(body).ok() else { return Vec::new() };
    let Some(Body { messages, prompt, input }) = object(text.trim()) else { return Vec::new() };
    // A raw value is a slice of `text`, so its place there is the distance between the two pointers.
    let place = |raw: &RawValue| {
        let start = raw.get().as_ptr() as usize - text.as_ptr() as usize;
        start..start + raw.get().len()
    };
    if let Some(messages) = messages {
        return first_text(messages).map(place).into_iter().collect();
    }
    let Some(prompt) = prompt.or(input) else { return Vec::new() };
    if is_string(prompt) {
        return vec![place(prompt)];
    }
    let items: Vec<&RawValue> = serde_json::from_str(prompt.get()).unwrap_or_default();
    if !items.is_empty() && items.iter().all(|item| is_string(item)) {
        return items.into_iter().map(place).collect();
    }
    first_text(prompt).map(place).into_iter().collect()
}

/// A body's prompt as far as it is known by its bytes: the JSON text of `messages`, `prompt` or `input`, without its first
/// and last character. Of two prompts, where the texts begin to differ, the prompts do. None where there is none.
#[must_use]
pub fn prompt(body: &[u8]) -> Option<&[u8]> {
    let Body { messages, prompt, input } = object(std::str::from_utf8(body).ok()?.trim())?;
    let text = messages.or(prompt).or(input)?.get().as_bytes();
    text.get(1..text.len().saturating_sub(1))
}

/// The first text of a list of messages: a content that is a string, or the text of one of its parts.
fn first_text(messages: &RawValue) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        content: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Part<'a> {
        #[serde(borrow)]
        text: Option<&'a RawValue>,
    }
    let messages: Vec<&RawValue> = serde_json::from_str(messages.get()).ok()?;
    messages.into_iter().find_map(|message| {
        let content = object::<Message<'_>>(message.get())?.content?;
        if is_string(content) {
            return Some(content);
        }
        let parts: Vec<&RawValue> = serde_json::from_str(content.get()).ok()?;
        parts.into_iter().find_map(|part| object::<Part<'_>>(part.get())?.text.filter(|text| is_string(text)))
    })
}

/// serde takes an array for a struct too.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
}

fn is_string(raw: &RawValue) -> bool {
    raw.get().starts_with('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_begins_where_a_server_reads_first() {
        for (body, expected) in [
            (r#"{"model":"m", "prompt": "a b","n":1}"#, vec![r#""a b""#]),
            (r#"{"prompt":["a","\"b"]}"#, vec![r#""a""#, r#""\"b""#]),
            (
                r#"  {"messages":[{"role":"x"},{"role":"user","content":"é"},{"content":"z"}]}"#,
                vec![r#""é""#],
            ),
            (
                r#"{"messages":[{"content":[{"type":"image_url"},{"type":"text","text":"t"}]}],"prompt":"p"}"#,
                vec![r#""t""#],
            ),
            (r#"{"input":"i"}"#, vec![r#""i""#]),
            (r#"{"input":[{"role":"user","content":"i"}]}"#, vec![r#""i""#]),
            (r#"{"prompt":[1,2]}"#, vec![]),
            (r#"{"prompt":[[1],[2]]}"#, vec![]),
            (r#"{"prompt":null}"#, vec![]),
            (r#"["prompt"]"#, vec![]),
            ("", vec![]),
        ] {
            let found: Vec<&str> =
                beginnings(body.as_bytes()).into_iter().map(|place| &body[place]).collect();
            assert_eq!(found, expected, "{body}");
        }
        assert!(beginnings(b"\xff").is_empty());
    }

    #[test]
    fn prompts_that_begin_alike_have_texts_that_do() {
        let text = |body: &str| prompt(body.as_bytes()).map(|text| String::from_utf8(text.to_vec()).unwrap());
        let one = text(r#"{"n":1,"messages":[{"role":"user","content":"a"}]}"#).unwrap();
        let two = text(r#"{"messages":[{"role":"user","content":"a"},{"role":"x"}],"n":2}"#).unwrap();
        assert_eq!(one, r#"{"role":"user","content":"a"}"#);
        assert!(two.starts_with(&one));
        assert_eq!(text(r#"{"prompt":"a b"}"#).as_deref(), Some("a b"));
        assert_eq!(text(r#"{"input":[1,2]}"#).as_deref(), Some("1,2"));
        assert_eq!(text(r#"{"input":7}"#).as_deref(), None);
        assert_eq!(text("[]"), None);
    }
}
