//! A tape's lines: the JSON text of each record.
//!
//! Reading uses neither `flatten` nor `untagged`: both buffer a line before they understand it, and report errors
//! without a place.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize, Serializer};

use super::format::{Footer, Header, Request, Response, Session, Version};
use super::response::ResponseLine;

/// Appends the header's line to `out`, with its newline.
pub(super) fn write_header(out: &mut Vec<u8>, header: &Header) -> serde_json::Result<()> {
    write(out, &Written::Header(header))
}

/// Appends a request's line to `out`, with its newline.
pub(super) fn write_request(out: &mut Vec<u8>, request: &Request) -> serde_json::Result<()> {
    write(out, &Written::Request(RequestLine::of(request)))
}

/// Appends a response's line to `out`, with its newline.
pub(super) fn write_response(out: &mut Vec<u8>, response: &Response) -> serde_json::Result<()> {
    write(out, &Written::Response(ResponseLine::of(response)))
}

/// Appends the footer's line to `out`, with its newline.
pub(super) fn write_footer(out: &mut Vec<u8>, footer: &Footer) -> serde_json::Result<()> {
    write(out, &Written::Footer(footer))
}

fn write(out: &mut Vec<u8>, line: &Written<'_>) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.push(b'\n');
    Ok(())
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Written<'a> {
    Footer(&'a Footer),
    Header(&'a Header),
    Request(RequestLine<'a>),
    Response(ResponseLine<'a>),
}

/// A line that may stand after the header's.
#[derive(Debug)]
pub(super) enum Line {
    Footer(Footer),
    /// A response that nobody asked for.
    Passed,
    Request(Request),
    Response(Response),
}

/// Parses a line that may stand after the header's; a response only if it is asked for. The error says what is wrong
/// with it.
pub(super) fn parse(line: &[u8], with_responses: bool) -> Result<Line, String> {
    // Nearly every line is one that this crate wrote; those are not scanned twice.
    if line.starts_with(br#"{"type":"request","#) {
        return parse_request(line);
    }
    if line.starts_with(br#"{"type":"response","#) {
        return parse_response(line, with_responses);
    }
    let Tag { kind } = serde_json::from_slice(line).map_err(in_words)?;
    match kind.as_ref() {
        "request" => parse_request(line),
        "response" => parse_response(line, with_responses),
        "footer" => serde_json::from_slice(line).map(Line::Footer).map_err(in_words),
        "header" => Err("a second header".to_owned()),
        other => Err(format!("a line of unknown type {other:?}")),
    }
}

/// Parses the header's line only as far as every version of the format agrees on it; none when it is no header.
pub(super) fn parse_version(line: &[u8]) -> Option<Version> {
    #[derive(Deserialize)]
    struct VersionLine<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
        version: Version,
    }
    let line: VersionLine<'_> = serde_json::from_slice(line).ok()?;
    (line.kind == "header").then_some(line.version)
}

/// Parses the header's line.
pub(super) fn parse_header(line: &[u8]) -> Result<Header, String> {
    serde_json::from_slice(line).map_err(in_words)
}

fn parse_request(line: &[u8]) -> Result<Line, String> {
    let line: RequestLine<'_> = serde_json::from_slice(line).map_err(in_words)?;
    line.into_request().map(Line::Request)
}

fn parse_response(line: &[u8], wanted: bool) -> Result<Line, String> {
    if !wanted {
        return Ok(Line::Passed);
    }
    let line: ResponseLine<'_> = serde_json::from_slice(line).map_err(in_words)?;
    line.into_response().map(Line::Response)
}

/// The parser's reason, less the line number, which is always 1 here.
fn in_words(error: serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at byte ")
}

#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

#[derive(Deserialize, Serialize)]
struct RequestLine<'a> {
    index: u64,
    offset_ns: u64,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    path: Cow<'a, str>,
    /// The body's bytes where they are UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<Cow<'a, str>>,
    /// Its bytes where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body_base64: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    input_tokens: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_tokens: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<Cow<'a, Session>>,
}

impl<'a> RequestLine<'a> {
    fn of(request: &'a Request) -> Self {
        let (body, body_base64) = body_fields(&request.body);
        Self {
            index: request.index,
            offset_ns: request.offset_ns,
            method: Cow::Borrowed(&request.method),
            path: Cow::Borrowed(&request.path),
            body,
            body_base64,
            input_tokens: request.input_tokens,
            output_tokens: request.output_tokens,
            session: request.session.as_ref().map(Cow::Borrowed),
        }
    }

    fn into_request(self) -> Result<Request, String> {
        let body = body_of(self.body, self.body_base64)?;
        Ok(Request {
            index: self.index,
            offset_ns: self.offset_ns,
            method: self.method.into_owned(),
            path: self.path.into_owned(),
            body,
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            session: self.session.map(Cow::into_owned),
        })
    }
}

/// A body as the fields `body` and `body_base64`: the first where its bytes are UTF-8, else the second.
pub(super) fn body_fields(body: &[u8]) -> (Option<Cow<'_, str>>, Option<Cow<'_, str>>) {
    match std::str::from_utf8(body) {
        Ok(text) => (Some(Cow::Borrowed(text)), None),
        Err(_) => (None, Some(Cow::Owned(STANDARD.encode(body)))),
    }
}

/// The bytes of a body that is given by one of the two fields.
pub(super) fn body_of(text: Option<Cow<'_, str>>, base64: Option<Cow<'_, str>>) -> Result<Vec<u8>, String> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_owned().into_bytes()),
        (None, Some(text)) => STANDARD
            .decode(text.as_bytes())
            .map_err(|error| format!("its body_base64 is not base64: {error}")),
        (Some(_), Some(_)) => Err("it has both a body and a body_base64".to_owned()),
        (None, None) => Err("it has neither a body nor a body_base64".to_owned()),
    }
}

impl Serialize for Request {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RequestLine::of(self).serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = r#"{"index":7,"offset_ns":5,"method":"POST","path":"/v1/x","body":"é\n"}"#;

    fn tagged(kind: &str, rest: &str) -> Vec<u8> {
        format!(r#"{{"type":{kind:?},{}"#, &rest[1..]).into_bytes()
    }

    #[test]
    fn a_request_reads_wherever_its_tag_stands() {
        let last = REQUEST.replace('}', r#","type":"request"}"#);
        for line in [tagged("request", REQUEST), last.into_bytes()] {
            let Line::Request(request) = parse(&line, true).unwrap() else { panic!("not a request") };
            assert_eq!((request.index, request.body.as_slice()), (7, "é\n".as_bytes()));
        }
    }

    #[test]
    fn unknown_fields_are_a_newer_minor_version_and_unknown_types_are_an_error() {
        let newer = REQUEST.replace('}', r#","priority":3}"#);
        assert!(matches!(parse(&tagged("request", &newer), true), Ok(Line::Request(_))));
        let response = tagged("response", r#"{"status":200}"#);
        assert!(matches!(parse(&response, false), Ok(Line::Passed)));
        assert!(parse(&response, true).unwrap_err().contains("index"));
        assert!(parse(&tagged("requests", REQUEST), true).unwrap_err().contains("unknown type"));
    }

    #[test]
    fn a_body_is_given_once() {
        let both = REQUEST.replace('}', r#","body_base64":"AA=="}"#);
        assert!(parse(&tagged("request", &both), true).unwrap_err().contains("both"));
        let none = REQUEST.replace("body", "text");
        assert!(parse(&tagged("request", &none), true).unwrap_err().contains("neither"));
        let bad = REQUEST.replace("body", "body_base64");
        assert!(parse(&tagged("request", &bad), true).unwrap_err().contains("not base64"));
    }
}
