//! The `workload_trace` dataset of `evalscope perf` 1.9.1 and later: JSON lines `{"body", "timestamp", "request_id"}`.
//! Facts: `evalscope/perf/plugin/datasets/workload_trace.py` and `plugin/api/openai_api.py` of 1.14.1.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::export::{BASE_URL, Carries, Exporter, Offsets, Usage, command, comments, quoted};
use super::import::{Error, Input};
use super::moment::{Decimal, calendar_ns};
use super::prompt::object;
use super::raw_payload;
use super::rows::Rows;
use super::source::{Imported, Source};
use crate::tape::Request;

/// Whatever else a line has, above all its headers, with their keys, is not read.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
    #[serde(borrow)]
    timestamp: &'a RawValue,
    completion_tokens: Option<u32>,
}

/// Reads such a file. A body has the bytes that stand in it; one that is a string is the string's text.
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
        let line: Line<'_> = row.json(r#"{"body": …, "timestamp": …}"#)?;
        let time = line.timestamp.get();
        let offset_ns = match serde_json::from_str::<String>(time) {
            Ok(text) => match calendar_ns(text.trim()) {
                Some(ns) => ns,
                None => row.offset_ns(text.trim(), Decimal::ONE)?,
            },
            Err(_) => row.offset_ns(time, Decimal::ONE)?,
        };
        let body = line.body.get();
        let unpacked = serde_json::from_str::<String>(body);
        let imported = raw_payload::posted(unpacked.as_deref().unwrap_or(body), offset_ns);
        let mut imported = imported.map_err(|reason| row.error(reason))?;
        if let (Imported::Whole(whole), Some(tokens)) = (&mut imported, line.completion_tokens) {
            whole.output_tokens = whole.output_tokens.or(Some(tokens));
        }
        Ok(Some(imported))
    }
}

/// Counts what evalscope will add to the bodies.
#[derive(Debug, Default)]
pub(super) struct Trace {
    first: Option<(u64, String)>,
    requests: u64,
    spread_ns: u64,
    added: Added,
}

/// The bodies to which evalscope adds a key, because they lack it.
#[derive(Debug, Default)]
pub(super) struct Added {
    temperature: u64,
    max_tokens: u64,
    beside_max_completion_tokens: u64,
    stream: u64,
    stream_options: u64,
    dropped_stream_options: u64,
}

impl Added {
    pub(super) fn count(&mut self, body: &Map<String, Value>) {
        let lacks = |key: &str| u64::from(!body.contains_key(key));
        self.temperature += lacks("temperature");
        self.stream += lacks("stream");
        if lacks("max_tokens") == 1 {
            match lacks("max_completion_tokens") {
                0 => self.beside_max_completion_tokens += 1,
                _ => self.max_tokens += 1,
            }
        }
        match body.get("stream") {
            None | Some(Value::Bool(true)) => self.stream_options += lacks("stream_options"),
            _ => self.dropped_stream_options += 1 - lacks("stream_options"),
        }
    }

    /// Each addition in words, of so many requests.
    pub(super) fn traps(&self, requests: u64) -> Vec<String> {
        let of = |count: u64| format!("{count} of {requests} bodies");
        [
            (self.temperature, "\"temperature\": 0.0 is added to", "; no flag prevents it"),
            (self.max_tokens, "\"max_tokens\": 2048 is added to", ""),
            (
                self.beside_max_completion_tokens,
                "\"max_tokens\": 2048 is added beside max_completion_tokens in",
                "; vLLM obeys max_completion_tokens",
            ),
            (self.stream, "\"stream\": true is added to", ""),
            (self.stream_options, "\"stream_options\": {\"include_usage\": true} is added to", ""),
            (self.dropped_stream_options, "\"stream_options\" is taken out of", ", which ask for no stream"),
        ]
        .into_iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, what, more)| format!("- {what} {}{more}.", of(count)))
        .collect()
    }
}

/// A body on one line: its own bytes, where they are.
pub(super) fn on_one_line(request: &Request, body: &Map<String, Value>) -> String {
    match std::str::from_utf8(&request.body) {
        Ok(text) if !text.contains(['\n', '\r']) => text.trim().to_owned(),
        // A line end in JSON is white space: strings have theirs escaped.
        _ => Value::Object(body.clone()).to_string(),
    }
}

impl Exporter for Trace {
    fn line(&mut self, request: &Request) -> Result<String, String> {
        let body = object(request)?;
        if request.method != "POST" {
            return Err(format!("its method is {}; evalscope only posts", request.method));
        }
        if let Some(session) = request.session.as_ref().filter(|session| session.turn > 0) {
            return Err(format!(
                "it is turn {} of session {:?}, sent only when the turn before has ended; the format knows no order \
                 but time",
                session.turn, session.id
            ));
        }
        let (index, path) = self.first.get_or_insert_with(|| (request.index, request.path.clone()));
        if *path != request.path {
            return Err(format!(
                "its path is {}, that of record {index} {path}; evalscope sends to one",
                request.path
            ));
        }
        self.requests += 1;
        self.spread_ns = self.spread_ns.max(request.offset_ns);
        self.added.count(&body);
        let body = on_one_line(request, &body);
        let (seconds, ns) = (request.offset_ns / 1_000_000_000, request.offset_ns % 1_000_000_000);
        Ok(format!(
            r#"{{"body": {body}, "timestamp": {seconds}.{ns:09}, "request_id": "{}"}}"#,
            request.index
        ))
    }

    fn remedy(&self) -> &'static str {
        "replay the tape with tokentape"
    }

    fn carries(&self) -> Carries {
        Carries { bodies: true, offsets: Offsets::Exact, ..Carries::default() }
    }

    fn command(&self, usage: Usage<'_>) -> Result<String, String> {
        let (_, path) = self.first.as_ref().ok_or("the tape holds no request: there is nothing to send")?;
        let words = [
            "evalscope perf".to_owned(),
            format!("--url {} --api openai", quoted(&format!("{BASE_URL}{path}"))),
            format!("--dataset workload_trace --dataset-path {} --open-loop", quoted(usage.file)),
            "--no-test-connection".to_owned(),
        ];
        let mut traps = vec![
            "Traps:".to_owned(),
            "- evalscope 1.9.1 or later (seen with 1.14.1). Only an open loop: there is no limit of requests in flight."
                .to_owned(),
            "- Bodies keep their keys and order, but are written anew, with spaces; --model does not change them.".to_owned(),
            "- The format has one path, and no sessions or recorded answers.".to_owned(),
        ];
        if self.spread_ns == 0 {
            traps.push("- The tape has no arrival times: all requests are sent at once.".to_owned());
        }
        traps.extend(self.added.traps(self.requests));
        Ok(comments(&["evalscope 1.14.1".to_owned()]) + &command(&words) + &comments(&traps))
    }
}
