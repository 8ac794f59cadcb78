//! Chat templates, rendered as `transformers` 4.57 renders them (`utils/chat_template_utils.py`): Jinja with
//! `trim_blocks` and `lstrip_blocks`, loop controls, Python's string methods, and its own `tojson`.
//!
//! One thing differs on purpose: `strftime_now` tells [`NOW`], so that a prompt does not change overnight.

use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::source::TemplateSource;

/// The moment that templates take for now: Thursday, 1 January 2026, midnight.
const NOW: [(char, &str); 17] = [
    ('%', "%"),
    ('A', "Thursday"),
    ('B', "January"),
    ('H', "00"),
    ('I', "12"),
    ('M', "00"),
    ('S', "00"),
    ('Y', "2026"),
    ('a', "Thu"),
    ('b', "Jan"),
    ('d', "01"),
    ('e', " 1"),
    ('j', "001"),
    ('m', "01"),
    ('p', "AM"),
    ('w', "4"),
    ('y', "26"),
];

const TEMPLATE: &str = "chat";

/// A tokenizer's chat template, compiled. One that does not compile is kept with its error: its tokenizer still counts.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    environment: Result<Environment<'static>, String>,
    special_tokens: Vec<(String, String)>,
}

impl ChatTemplate {
    pub(crate) fn new(TemplateSource { source, special_tokens }: TemplateSource) -> Self {
        Self { environment: environment(source).map_err(|error| describe(&error)), special_tokens }
    }

    /// The prompt for `messages`, or what the template has against them.
    pub(crate) fn render(&self, messages: &Value, add_generation_prompt: bool) -> Result<String, String> {
        let environment = self.environment.as_ref().map_err(Clone::clone)?;
        let mut context = Map::new();
        context.insert("messages".to_owned(), flatten(messages));
        context.insert("tools".to_owned(), Value::Null);
        context.insert("documents".to_owned(), Value::Null);
        context.insert("add_generation_prompt".to_owned(), add_generation_prompt.into());
        for (name, text) in &self.special_tokens {
            context.insert(name.clone(), text.clone().into());
        }
        environment
            .get_template(TEMPLATE)
            .and_then(|template| template.render(Serde(context)))
            .map_err(|error| describe(&error))
    }
}

/// Each message with its content as a string: `vLLM` 0.11 joins text parts with line feeds and takes no content for an
/// empty one (`entrypoints/chat_utils.py`).
fn flatten(messages: &Value) -> Value {
    let mut messages = messages.clone();
    for message in messages.as_array_mut().into_iter().flatten() {
        let Some(content) = message.get_mut("content") else {
            continue;
        };
        match content {
            Value::Array(parts) => {
                let texts: Vec<&str> =
                    parts.iter().filter_map(|part| part.as_str().or_else(|| part["text"].as_str())).collect();
                *content = json!(texts.join("\n"));
            }
            Value::Null => *content = json!(""),
            _ => {}
        }
    }
    messages
}

fn environment(source: String) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(format_like_python);
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |format: String| strftime_now(&format));
    environment.add_template_owned(TEMPLATE, source)?;
    Ok(environment)
}

/// `str(value)` where Python and Jinja differ.
fn format_like_python(out: &mut Output, state: &mut State, value: &minijinja::Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None => out.write_str("None")?,
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" })?,
        _ => minijinja::escape_formatter(out, state, value)?,
    }
    Ok(())
}

/// `json.dumps(value, ensure_ascii=False, …)`: no escaping for HTML, and a space after each comma and colon.
#[expect(clippy::needless_pass_by_value, reason = "the engine hands a filter its options by value")]
fn to_json(value: &minijinja::Value, options: Kwargs) -> Result<minijinja::Value, Error> {
    let failed = |error| Error::new(ErrorKind::BadSerialization, "tojson").with_source(error);
    let indent: Option<usize> = options.get("indent")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    // What `transformers` allows besides; its own default says the same, and other values have not been seen.
    let _: Option<bool> = options.get("ensure_ascii")?;
    let _: Option<minijinja::Value> = options.get("separators")?;
    options.assert_all_used()?;

    let mut value = serde_json::to_value(value).map_err(failed)?;
    if sort_keys == Some(true) {
        value.sort_all_objects();
    }
    let mut bytes = Vec::new();
    match indent {
        Some(width) => {
            let indent = " ".repeat(width);
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Spaced)),
    }
    .map_err(failed)?;
    Ok(minijinja::Value::from_safe_string(String::from_utf8_lossy(&bytes).into_owned()))
}

/// JSON on one line, spaced as Python's `json.dumps` spaces it.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// `datetime.now().strftime(format)` at [`NOW`]. `%-d` and the like drop the padding.
fn strftime_now(format: &str) -> String {
    let mut out = String::with_capacity(format.len() + 8);
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        let mut code = chars.next();
        let bare = code == Some('-');
        if bare {
            code = chars.next();
        }
        match NOW.iter().find(|(name, _)| Some(*name) == code) {
            Some((_, text)) if bare => out.push_str(text.trim_start_matches(['0', ' '])),
            Some((_, text)) => out.push_str(text),
            None => out.extend(['%'].into_iter().chain(code)),
        }
    }
    out
}

/// The error with what caused it, on one line.
fn describe(error: &Error) -> String {
    let mut parts = vec![error.to_string()];
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        parts.push(error.to_string());
        cause = error.source();
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &Value) -> Result<String, String> {
        let special_tokens = vec![("bos_token".to_owned(), "<s>".to_owned())];
        ChatTemplate::new(TemplateSource { source: source.to_owned(), special_tokens }).render(messages, true)
    }

    #[test]
    fn blocks_are_trimmed_and_special_tokens_known() {
        let source = "{{ bos_token }}\n  {% for m in messages %}\n[{{ m.role }}]\n  {% endfor %}\n";
        assert_eq!(render(source, &json!([{"role": "a"}, {"role": "b"}])).unwrap(), "<s>\n[a]\n[b]\n");
    }

    #[test]
    fn content_parts_become_one_string() {
        let parts = json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                           {"role": "assistant", "content": null}]);
        assert_eq!(
            render("{% for m in messages %}<{{ m.content }}>{% endfor %}", &parts).unwrap(),
            "<a\nb><>"
        );
    }

    #[test]
    fn json_is_spaced_and_ordered_as_python_has_it() {
        let value = json!({"z": [1, "é<&>'", null], "a": {"b": true, "c": 1.5}, "e": {}});
        assert_eq!(
            render("{{ messages | tojson }}", &value).unwrap(),
            r#"{"z": [1, "é<&>'", null], "a": {"b": true, "c": 1.5}, "e": {}}"#
        );
        assert_eq!(
            render("{{ messages | tojson(indent=2) }}", &json!({"a": [1], "e": []})).unwrap(),
            "{\n  \"a\": [\n    1\n  ],\n  \"e\": []\n}"
        );
        assert_eq!(
            render("{{ messages | tojson(sort_keys=true) }}", &json!({"b": 1, "a": 2})).unwrap(),
            r#"{"a": 2, "b": 1}"#
        );
    }

    #[test]
    fn values_print_as_python_prints_them() {
        assert_eq!(
            render("{{ none }} {{ true }} {{ 1.0 }} {{ tools }}", &json!([])).unwrap(),
            "None True 1.0 None"
        );
    }

    #[test]
    fn a_template_can_refuse_and_says_why() {
        let message = render("{{ raise_exception('roles must alternate') }}", &json!([])).unwrap_err();
        assert!(message.contains("roles must alternate"), "{message}");
        let message = render("{% if %}", &json!([])).unwrap_err();
        assert!(message.contains("syntax error"), "{message}");
    }

    #[test]
    fn now_is_always_the_same() {
        assert_eq!(strftime_now("%d %b %Y, %A %-d/%-m 100%% %Q"), "01 Jan 2026, Thursday 1/1 100% %Q");
        assert_eq!(render("{{ strftime_now('%Y-%m-%d') }}", &json!([])).unwrap(), "2026-01-01");
    }

    #[test]
    fn python_string_methods_work() {
        let messages = json!([{"role": "user", "content": "<think>x</think>\n\nyes "}]);
        let source = "{{ messages[0].content.split('</think>')[-1].lstrip('\\n').rstrip() }}{{ messages[0].content.startswith('<think>') }}";
        assert_eq!(render(source, &messages).unwrap(), "yesTrue");
    }
}
