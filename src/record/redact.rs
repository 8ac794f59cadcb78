//! What of an exchange must not reach the tape.
//!
//! Secrets never do. Of texts, a policy decides; what is not known to be harmless counts as text. Bodies are read as
//! JSON and written anew only where something in them has to go: else they stay as they are, to the byte.

use memchr::memmem;
use serde_json::{Map, Value};

use super::archive::Summary;
use super::headers;
use super::replace::{Chain, Replacer};
use crate::tape::{Chunk, Response};

/// What stands in the place of a value that was asked to be left out.
const REDACTED: &str = "REDACTED";

/// Keys whose strings say how something is meant, and not what somebody wrote.
const KEPT: [&str; 37] = [
    "call_id",
    "code",
    "detail",
    "effort",
    "encoding_format",
    "event",
    "finish_reason",
    "format",
    "id",
    "item_id",
    "matched_stop",
    "model",
    "modalities",
    "object",
    "param",
    "parallel_tool_calls",
    "phase",
    "previous_response_id",
    "reasoning_effort",
    "request_id",
    "required",
    "role",
    "sequence_number",
    "service_tier",
    "status",
    "stop",
    "stop_reason",
    "stream",
    "strict",
    "syntax",
    "system_fingerprint",
    "tool_call_id",
    "tool_choice",
    "truncation",
    "type",
    "verbosity",
    "version",
];

/// Keys whose lists of numbers are text: its tokens, or its bytes.
const IDS: [&str; 5] = ["bytes", "input", "prompt", "prompt_token_ids", "token_ids"];

/// What happens to texts.
#[derive(Debug)]
pub(super) enum Policy {
    /// They stay.
    Keep,
    /// They become empty.
    Drop,
    /// They become others.
    Seeded(Box<Replacer>),
}

/// Takes out what must not reach the tape.
#[derive(Debug)]
pub(super) struct Redactor {
    policy: Policy,
    /// JSON pointers to values of request bodies that are left out, whatever they are.
    pointers: Vec<String>,
    /// Bodies emptied since they were last counted.
    emptied: u64,
    /// Bodies in which a secret was starred out, since they were last counted.
    masked: u64,
}

impl Redactor {
    pub(super) fn new(policy: Policy, pointers: Vec<String>) -> Self {
        Self { policy, pointers, emptied: 0, masked: 0 }
    }

    /// Whether texts become others.
    pub(super) fn replaces(&self) -> bool {
        matches!(self.policy, Policy::Seeded(_))
    }

    /// Adds what has happened since the last call.
    pub(super) fn count(&mut self, summary: &mut Summary) {
        summary.emptied += std::mem::take(&mut self.emptied);
        summary.masked += std::mem::take(&mut self.masked);
        if let Policy::Seeded(replacer) = &mut self.policy {
            summary.inexact += std::mem::take(&mut replacer.inexact);
        }
    }

    /// A session's name: where texts do not stay, a pseudonym.
    pub(super) fn session(&self, name: String, secrets: &[Vec<u8>]) -> String {
        match &self.policy {
            Policy::Keep => masked_text(name, secrets),
            Policy::Drop => format!("s{}", &blake3::hash(name.as_bytes()).to_hex()[..12]),
            Policy::Seeded(replacer) => replacer.name(&name),
        }
    }

    /// A request's body as the tape may have it.
    pub(super) fn request(&mut self, mut body: Vec<u8>, secrets: &[Vec<u8>]) -> Vec<u8> {
        self.masked += u64::from(mask(&mut body, secrets));
        let keeps = matches!(self.policy, Policy::Keep);
        if body.is_empty() || (keeps && self.pointers.is_empty()) {
            return body;
        }
        let Ok(mut value) = serde_json::from_slice::<Value>(&body) else {
            self.emptied += 1;
            return Vec::new();
        };
        let mut changed = !keeps;
        for pointer in &self.pointers {
            if let Some(value) = value.pointer_mut(pointer) {
                *value = REDACTED.into();
                changed = true;
            }
        }
        if !changed {
            return body;
        }
        match &mut value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    self.field(key, value);
                }
            }
            other => *other = Value::Null,
        }
        value.to_string().into_bytes()
    }

    /// A field of a request's body: each has a beginning of its own, and so has each prompt of a list.
    fn field(&mut self, key: &str, value: &mut Value) {
        let start = self.chain(key);
        match value {
            Value::Array(prompts) if prompts.iter().all(|prompt| prompt.is_string() || prompt.is_array()) => {
                for prompt in prompts {
                    self.walk(key, prompt, &mut start.clone());
                }
            }
            value => self.walk(key, value, &mut start.clone()),
        }
    }

    /// Takes the texts out of a value that stands under `key`.
    fn walk(&mut self, key: &str, value: &mut Value, chain: &mut Chain) {
        match value {
            Value::String(text) if !KEPT.contains(&key) && text != REDACTED => {
                *text = self.text(key, text, chain);
            }
            Value::Array(items) if IDS.contains(&key) && items.iter().all(Value::is_u64) => {
                *value = self.ids(items, chain);
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.walk(key, item, chain)),
            Value::Object(fields) => {
                for (key, value) in fields {
                    self.walk(key, value, chain);
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, key: &str, text: &str, chain: &mut Chain) -> String {
        match &mut self.policy {
            Policy::Keep => text.to_owned(),
            Policy::Drop if key == "name" => format!("n{}", &blake3::hash(text.as_bytes()).to_hex()[..12]),
            Policy::Seeded(replacer) if key == "name" => replacer.name(text),
            // A document in a document: servers parse it.
            Policy::Drop if key == "arguments" && text.starts_with('{') => "{}".to_owned(),
            Policy::Seeded(replacer) if key == "arguments" && text.starts_with('{') => {
                Value::Object(Map::from_iter([("text".to_owned(), replacer.text(text, chain).into())]))
                    .to_string()
            }
            Policy::Drop => String::new(),
            Policy::Seeded(replacer) => replacer.text(text, chain),
        }
    }

    fn ids(&self, ids: &[Value], chain: &mut Chain) -> Value {
        let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
        match &self.policy {
            Policy::Keep => ids.to_vec().into(),
            Policy::Drop => Value::Array(Vec::new()),
            Policy::Seeded(replacer) => replacer.ids(&ids.iter().map(id).collect::<Vec<_>>(), chain).into(),
        }
    }

    fn chain(&self, kind: &str) -> Chain {
        match &self.policy {
            Policy::Keep | Policy::Drop => Chain::default(),
            Policy::Seeded(replacer) => replacer.chain(kind),
        }
    }

    /// Takes out of a response what the tape may not have.
    pub(super) fn response(&mut self, response: &mut Response, secrets: &[Vec<u8>]) {
        self.masked += u64::from(mask(&mut response.body, secrets));
        if let Some(head) = &mut response.head {
            for (_, value) in &mut head.headers {
                *value = masked_text(std::mem::take(value), secrets);
            }
        }
        if matches!(self.policy, Policy::Keep) || response.body.is_empty() {
            return;
        }
        let header = |name: &str| {
            let headers = response.head.iter().flat_map(|head| &head.headers);
            headers
                .into_iter()
                .find(|(header, _)| header == name)
                .map(|(_, value)| value.to_ascii_lowercase())
        };
        let is_encoded = header("content-encoding").is_some_and(|encoding| encoding != "identity");
        let is_stream = header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
        if is_stream && !is_encoded {
            self.stream(response);
        } else {
            let redacted = if is_encoded { None } else { self.document(&response.body) };
            self.emptied += u64::from(redacted.is_none());
            let at_ns = response.chunks.last().map_or(0, |chunk| chunk.at_ns);
            response.body = redacted.unwrap_or_default();
            let bytes = u32::try_from(response.body.len()).unwrap_or(u32::MAX);
            response.chunks = vec![Chunk { at_ns, bytes }];
        }
    }

    fn document(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        let mut value: Value = serde_json::from_slice(body).ok()?;
        let mut chain = self.chain("response");
        self.walk("", &mut value, &mut chain);
        Some(value.to_string().into_bytes())
    }

    /// Rewrites a stream line by line. A line comes with the chunk that brought its end.
    fn stream(&mut self, response: &mut Response) {
        let mut chain = self.chain("response");
        let mut body = Vec::with_capacity(response.body.len());
        let mut chunks: Vec<Chunk> = Vec::with_capacity(response.chunks.len());
        let mut arrivals = response.chunks.iter().scan(0, |end, chunk| {
            *end += chunk.bytes as usize;
            Some((*end, chunk.at_ns))
        });
        let mut arrival = arrivals.next();
        let mut read = 0;
        for line in response.body.split_inclusive(|&byte| byte == b'\n') {
            read += line.len();
            while arrival.is_some_and(|(end, _)| end < read) {
                arrival = arrivals.next();
            }
            let before = body.len();
            self.line(line, &mut body, &mut chain);
            let bytes = u32::try_from(body.len() - before).unwrap_or(u32::MAX);
            let at_ns = arrival.map_or(response.end_ns, |(_, at_ns)| at_ns);
            match chunks.last_mut() {
                Some(last) if last.at_ns == at_ns => last.bytes += bytes,
                _ => chunks.push(Chunk { at_ns, bytes }),
            }
        }
        response.body = body;
        response.chunks = chunks;
    }

    /// A line of a stream: its data as a document; what is no field of the stream is left out.
    fn line(&mut self, line: &[u8], out: &mut Vec<u8>, chain: &mut Chain) {
        let text = line.trim_ascii_end();
        let end = &line[text.len()..];
        let (field, data) = match text.iter().position(|&byte| byte == b':') {
            Some(colon) => (&text[..colon], text[colon + 1..].trim_ascii_start()),
            None => (text, &b""[..]),
        };
        match field {
            b"data" if data == b"[DONE]" => out.extend(text),
            b"data" => {
                out.extend(b"data: ");
                if let Ok(mut value) = serde_json::from_slice::<Value>(data) {
                    self.walk("", &mut value, chain);
                    out.extend(value.to_string().into_bytes());
                } else {
                    self.emptied += 1;
                }
            }
            b"event" | b"id" | b"retry" => out.extend(text),
            // A comment keeps a connection alive.
            b"" if !text.is_empty() => out.push(b':'),
            _ => {}
        }
        out.extend(end);
    }
}

/// A path whose query has no keys.
pub(super) fn redacted_path(path: &str, secrets: &[Vec<u8>]) -> String {
    let Some((path, query)) = path.split_once('?') else {
        return masked_text(path.to_owned(), secrets);
    };
    let parameter = |parameter: &str| match parameter.split_once('=') {
        Some((name, _)) if headers::is_secret_name(name) => format!("{name}={REDACTED}"),
        _ => parameter.to_owned(),
    };
    let query: Vec<String> = query.split('&').map(parameter).collect();
    masked_text(format!("{path}?{}", query.join("&")), secrets)
}

/// Writes stars over every secret; says whether there was one.
fn mask(bytes: &mut [u8], secrets: &[Vec<u8>]) -> bool {
    let mut found = false;
    for secret in secrets {
        let places: Vec<usize> = memmem::find_iter(bytes, secret).collect();
        for place in places {
            bytes[place..place + secret.len()].fill(b'*');
            found = true;
        }
    }
    found
}

fn masked_text(text: String, secrets: &[Vec<u8>]) -> String {
    if secrets.is_empty() {
        return text;
    }
    let mut bytes = text.into_bytes();
    mask(&mut bytes, secrets);
    // A secret that began or ended within a character would leave the rest of it.
    String::from_utf8_lossy(&bytes).into_owned()
}
