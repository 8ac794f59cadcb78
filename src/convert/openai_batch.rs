//! `OpenAI`'s batch files, which `vllm run-batch` reads too: JSON lines `{"custom_id", "method", "url", "body"}`.

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::asked;
use super::evalscope_trace::on_one_line;
use super::export::{Carries, Exporter, Usage, command, comments, quoted};
use super::import::{Error, Input};
use super::prompt::object;
use super::rows::Rows;
use super::source::{Imported, Source, Whole};
use crate::tape::Request;

#[derive(Deserialize)]
struct Line<'a> {
    method: String,
    url: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// Reads such a file. A body has the bytes that stand in it.
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
        let line: Line<'_> = row.json(r#"{"custom_id": …, "method": …, "url": …, "body": {…}}"#)?;
        if !line.url.starts_with('/') {
            return Err(
                row.error(format!("its url {:?} is no path: it should be as /v1/chat/completions", line.url))
            );
        }
        let body = line.body.get();
        if !body.starts_with('{') {
            return Err(row.error("its body is not a JSON object: is this another format?"));
        }
        Ok(Some(Imported::Whole(Whole {
            offset_ns: 0,
            method: line.method,
            path: line.url,
            body: body.as_bytes().to_vec(),
            input_tokens: None,
            // Other endpoints' bodies tell nothing.
            output_tokens: asked::told(body).ok().and_then(|told| told.output_tokens),
            session: None,
        })))
    }
}

/// Writes such a file.
#[derive(Debug, Default)]
pub(super) struct Batch {
    streamed: u64,
    requests: u64,
}

impl Exporter for Batch {
    fn line(&mut self, request: &Request) -> Result<String, String> {
        let body = object(request)?;
        self.requests += 1;
        self.streamed += u64::from(body.get("stream") == Some(&true.into()));
        Ok(format!(
            r#"{{"custom_id": "request-{}", "method": {}, "url": {}, "body": {}}}"#,
            request.index,
            json!(request.method),
            json!(request.path),
            on_one_line(request, &body)
        ))
    }

    fn remedy(&self) -> &'static str {
        "replay the tape with tokentape"
    }

    fn carries(&self) -> Carries {
        Carries { bodies: true, ..Carries::default() }
    }

    fn command(&self, usage: Usage<'_>) -> Result<String, String> {
        if self.requests == 0 {
            return Err("the tape holds no request: there is nothing to send".to_owned());
        }
        let words = [
            "vllm run-batch".to_owned(),
            format!("-i {} -o results.jsonl --model MODEL", quoted(usage.file)),
        ];
        let mut traps = vec![
            "Traps:".to_owned(),
            "- A batch is run by the engine itself, all at once, and not measured.".to_owned(),
        ];
        if self.streamed > 0 {
            traps.push(format!(
                "- {} of {} bodies ask for a stream; a batch has none to give, and OpenAI's refuses them.",
                self.streamed, self.requests
            ));
        }
        Ok(command(&words) + &comments(&traps))
    }
}
