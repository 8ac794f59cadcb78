//! `workload_trace` (1.14.1: `evalscope/perf/plugin/datasets/workload_trace.py`): recorded bodies and when they came.
//!
//! The client calls it a verbatim replay, and completes each body like any other whole body: what has no `stream`
//! becomes a streamed request, and what has no `temperature` gets 0.

use serde_json::{Map, Value};

use super::super::Data;
use super::params::wrong;
use super::text::{lines, strip};
use super::timestamp::seconds;
use super::{Message, Params, TraceArgs};
use crate::generate::Error;

/// Keys that the client itself puts into bodies on their way.
const RESERVED: [&str; 4] =
    ["__evalscope_headers", "__evalscope_request_id", "__evalscope_arrival_offset", "__evalscope_is_warmup"];

/// One line of the file.
struct Record {
    body: Map<String, Value>,
    /// Seconds.
    timestamp: f64,
    completion_tokens: Option<u64>,
}

/// The bodies in order of their times, and when each is sent, in seconds after the first.
pub(super) fn messages(
    params: &Params,
    args: &TraceArgs,
    data: Data<'_>,
) -> Result<(Vec<Message>, Vec<f64>), Error> {
    if !(args.speed > 0.0 && args.speed.is_finite()) {
        return Err(wrong("--speed", format!("must be above 0 and finite, and is {}", args.speed)));
    }
    let mut records = Vec::new();
    for (number, line) in lines(data)? {
        let line = strip(line);
        if !line.is_empty() {
            records.push(record(line).map_err(|reason| data.error(Some(number), reason))?);
        }
    }
    let Some(first) = records.iter().map(|record| record.timestamp).reduce(f64::min) else {
        return Err(data.error(None, "it has no record"));
    };
    records.sort_by(|a, b| a.timestamp.total_cmp(&b.timestamp));
    records.truncate(params.number.map_or(usize::MAX, |number| number as usize));
    let offsets = records.iter().map(|record| (record.timestamp - first) / args.speed).collect();
    Ok((records.into_iter().map(|record| Message::Body(rewritten(record, args))).collect(), offsets))
}

/// The body as the arguments change it.
fn rewritten(record: Record, args: &TraceArgs) -> Map<String, Value> {
    let mut body = record.body;
    let mapped = body.get("model").and_then(Value::as_str).and_then(|model| args.model_mapping.get(model));
    if let Some(model) = mapped.cloned().or_else(|| args.model_override.clone().map(Value::from)) {
        body.insert("model".to_owned(), model);
    }
    if let Some(tokens) = record.completion_tokens.filter(|_| args.match_output_length) {
        body.insert("max_tokens".to_owned(), tokens.into());
        // Going on past the end of a grammar would break the server.
        if !is_constrained(&body) {
            body.insert("ignore_eos".to_owned(), true.into());
        }
    }
    body
}

/// `_has_constrained_decoding`: the answer's form is given, or a tool must be called.
fn is_constrained(body: &Map<String, Value>) -> bool {
    let format = body.get("response_format").and_then(|format| format["type"].as_str());
    let free = match body.get("tool_choice") {
        None | Some(Value::Null) => true,
        Some(choice) => choice == "none" || choice == "auto",
    };
    let has_tools = body.get("tools").is_some_and(|tools| match tools {
        Value::Array(tools) => !tools.is_empty(),
        Value::Object(tools) => !tools.is_empty(),
        other => !other.is_null(),
    });
    matches!(format, Some("json_object" | "json_schema")) || (has_tools && !free)
}

fn record(line: &str) -> Result<Record, String> {
    let mut fields = parse_object(line).map_err(|reason| format!("it is {reason}"))?;
    let body = match fields.remove("body") {
        Some(Value::Object(body)) => body,
        Some(Value::String(text)) => {
            parse_object(&text).map_err(|reason| format!("its \"body\" is {reason}"))?
        }
        _ => return Err("it has no \"body\"".to_owned()),
    };
    if let Some(key) = RESERVED.into_iter().find(|&key| body.contains_key(key)) {
        return Err(format!("its \"body\" has the key {key:?}, which evalscope keeps to itself"));
    }
    let timestamp = match fields.remove("timestamp") {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => seconds(strip(&text)),
        _ => None,
    };
    let Some(timestamp) = timestamp.filter(|timestamp| timestamp.is_finite()) else {
        return Err("it has no \"timestamp\" in seconds or as 2026-01-31T12:00:00Z".to_owned());
    };
    let completion_tokens = match fields.remove("completion_tokens") {
        None | Some(Value::Null) => None,
        Some(tokens) => Some(
            tokens
                .as_u64()
                .filter(|&tokens| tokens > 0)
                .ok_or_else(|| "its \"completion_tokens\" is no number above 0".to_owned())?,
        ),
    };
    let other = fields.keys().find(|&key| key != "headers" && key != "request_id");
    match other {
        Some(key) => Err(format!("it has the field {key:?}, which evalscope does not know")),
        None => Ok(Record { body, timestamp, completion_tokens }),
    }
}

fn parse_object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err("no JSON object".to_owned()),
        Err(error) => Err(format!("no JSON: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_file_and_the_line() {
        let of = |text: &str, args: &TraceArgs| {
            let data = Data { name: "trace.jsonl", bytes: text.as_bytes() };
            messages(&Params::default(), args, data).map(|_| ()).unwrap_err().to_string()
        };
        let plain = TraceArgs::default();
        for (line, reason) in [
            ("{", "it is no JSON: EOF while parsing an object at line 1 column 1"),
            ("[1]", "it is no JSON object"),
            (r#"{"timestamp": 1}"#, r#"it has no "body""#),
            (r#"{"body": "[]", "timestamp": 1}"#, r#"its "body" is no JSON object"#),
            (r#"{"body": {}}"#, r#"it has no "timestamp" in seconds or as 2026-01-31T12:00:00Z"#),
            (
                r#"{"body": {}, "timestamp": "1e999"}"#,
                r#"it has no "timestamp" in seconds or as 2026-01-31T12:00:00Z"#,
            ),
            (
                r#"{"body": {}, "timestamp": 1, "x": 1}"#,
                r#"it has the field "x", which evalscope does not know"#,
            ),
            (
                r#"{"body": {}, "timestamp": 1, "completion_tokens": 0}"#,
                r#"its "completion_tokens" is no number above 0"#,
            ),
            (
                r#"{"body": {"__evalscope_headers": 1}, "timestamp": 1}"#,
                r#"its "body" has the key "__evalscope_headers", which evalscope keeps to itself"#,
            ),
        ] {
            let text = format!("\n{{\"body\": {{}}, \"timestamp\": 0}}\n{line}\n");
            assert_eq!(of(&text, &plain), format!("trace.jsonl, line 3: {reason}"));
        }
        assert_eq!(of(" \n", &plain), "trace.jsonl: it has no record");
        let still = TraceArgs { speed: 0.0, ..plain };
        assert_eq!(of("", &still), "--speed must be above 0 and finite, and is 0");
    }
}
