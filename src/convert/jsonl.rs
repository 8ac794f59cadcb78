//! Our own plain form: a request a line, with what a tape knows of it, for scripts and people. `export jsonl` writes
//! it, and what `cat` prints is the same but for its bodies, which are strings there.
//!
//! A `body` that is a JSON string is the body's text; every other `body` is the body itself, to the byte. A body that is
//! not UTF-8 stands in `body_base64`. So a tape that was exported and imported again has the same workload digest.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::export::{Carries, Exporter, Offsets, Usage, comments, quoted};
use super::import::{Error, Input};
use super::rows::Rows;
use super::source::{Imported, Source, Whole};
use crate::tape::Request;
use crate::tape::format::Session;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(default)]
    offset_ns: u64,
    method: Option<String>,
    path: String,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    body_base64: Option<String>,
    input_tokens: Option<u32>,
    output_tokens: Option<u32>,
    session: Option<Session>,
}

/// Reads such a file.
pub(super) struct Reader {
    rows: Rows,
}

impl Reader {
    pub(super) fn open(input: &Input) -> Result<Self, Error> {
        Ok(Self { rows: Rows::lines(input)? })
    }
}

impl Source for Reader {
    fn next(&mut self) -> Result<Option<Imported>, Error> {
        let Some(row) = self.rows.next()? else { return Ok(None) };
        let line: Line<'_> = row.json(r#"{"offset_ns": …, "method": …, "path": …, "body": …}"#)?;
        let body = match (line.body, line.body_base64) {
            (Some(body), None) => match serde_json::from_str::<String>(body.get()) {
                Ok(text) => text.into_bytes(),
                Err(_) => body.get().as_bytes().to_vec(),
            },
            (None, Some(text)) => STANDARD
                .decode(text)
                .map_err(|error| row.error(format!("its body_base64 is not base64: {error}")))?,
            (Some(_), Some(_)) => {
                return Err(row.error("it has both a body and a body_base64: leave one out"));
            }
            (None, None) => return Err(row.error("it has neither a body nor a body_base64: add one")),
        };
        Ok(Some(Imported::Whole(Whole {
            offset_ns: line.offset_ns,
            method: line.method.unwrap_or_else(|| "POST".to_owned()),
            path: line.path,
            body,
            input_tokens: line.input_tokens,
            output_tokens: line.output_tokens,
            session: line.session,
        })))
    }
}

/// Writes such a file.
#[derive(Debug, Default)]
pub(super) struct Jsonl;

impl Exporter for Jsonl {
    fn line(&mut self, request: &Request) -> Result<String, String> {
        let mut line = format!(
            r#"{{"index": {}, "offset_ns": {}, "method": {}, "path": {}, {}"#,
            request.index,
            request.offset_ns,
            json!(request.method),
            json!(request.path),
            body(&request.body)
        );
        for (key, tokens) in
            [("input_tokens", request.input_tokens), ("output_tokens", request.output_tokens)]
        {
            if let Some(tokens) = tokens {
                line += &format!(r#", "{key}": {tokens}"#);
            }
        }
        if let Some(session) = &request.session {
            line += &format!(r#", "session": {}"#, json!(session));
        }
        line.push('}');
        Ok(line)
    }

    fn remedy(&self) -> &'static str {
        "use the tape itself"
    }

    fn carries(&self) -> Carries {
        Carries { bodies: true, offsets: Offsets::Exact, sessions: true, tokens: true }
    }

    fn command(&self, usage: Usage<'_>) -> Result<String, String> {
        let back = format!("tokentape import jsonl {} -o again.tape.zst", quoted(usage.file));
        Ok(back + "\n" + &comments(&["The same workload digest; the header tells of the import.".to_owned()]))
    }
}

/// The body's key and value.
fn body(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return format!(r#""body_base64": "{}""#, STANDARD.encode(bytes));
    };
    // As it stands, if that is one JSON value on one line, with nothing around it that a reader would drop.
    let as_it_is = serde_json::from_str::<&RawValue>(text).is_ok_and(|value| {
        value.get() == text && text != "null" && !text.starts_with('"') && !text.contains(['\n', '\r'])
    });
    if as_it_is { format!(r#""body": {text}"#) } else { format!(r#""body": {}"#, json!(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_stands_as_it_is_or_as_a_string() {
        for (bytes, expected) in [
            (&br#"{"a":  1e2}"#[..], r#""body": {"a":  1e2}"#),
            (b" {}", r#""body": " {}""#),
            (b"{\n}", r#""body": "{\n}""#),
            (b"null", r#""body": "null""#),
            (b"\"a\"", r#""body": "\"a\"""#),
            (b"", r#""body": """#),
            (b"\xff", r#""body_base64": "/w==""#),
        ] {
            assert_eq!(body(bytes), expected);
        }
    }
}
