//! A tape's prompts for other tools: the file that a tool reads, and the command that sends it unchanged.
//!
//! What a format cannot carry is an error that names the record: nothing is left out or changed silently. What the
//! tool itself changes on the way is named beside the command.

use std::io::{self, Write};

use serde_json::{Map, Value};

use super::prompt::Ask;
use super::{evalscope_lines, evalscope_trace, vllm_custom};
use crate::tape::{self, Header, Request};

/// A format that another tool reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// The `custom` dataset of `vllm bench serve`: prompts and numbers of output tokens.
    VllmCustom,
    /// The `workload_trace` dataset of `evalscope perf` 1.9.1 and later: whole bodies with their arrival times.
    EvalscopeTrace,
    /// The `line_by_line` dataset of `evalscope perf`.
    EvalscopeLines(Lines),
}

/// What a line of evalscope's `line_by_line` holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lines {
    /// A prompt: what every version reads.
    Prompts,
    /// A whole body: what late versions read (1.14.1 does).
    Bodies,
}

/// Why a tape cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A record that the format cannot carry.
    #[error("record {index}: {reason}; {remedy}")]
    Record {
        /// The request's index.
        index: u64,
        /// What the format cannot carry.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The tape as a whole is something that the format cannot carry.
    #[error("{0}")]
    Tape(String),
    /// The tape could not be read.
    #[error(transparent)]
    Read(#[from] tape::Error),
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// Where the exported file is to be used; this goes into the command.
#[derive(Clone, Copy, Debug)]
pub struct Usage<'a> {
    /// The file's name, as it is to stand in the command.
    pub file: &'a str,
    /// What made the tape: names the tokenizer.
    pub header: &'a Header,
}

/// Writes the file, and gives the command and its traps, as lines of shell.
pub fn export(
    format: Format,
    requests: impl Iterator<Item = Result<Request, tape::Error>>,
    out: &mut impl Write,
    usage: Usage<'_>,
) -> Result<String, Error> {
    let mut exporter: Box<dyn Exporter> = match format {
        Format::VllmCustom => Box::new(vllm_custom::VllmCustom::default()),
        Format::EvalscopeTrace => Box::new(evalscope_trace::Trace::default()),
        Format::EvalscopeLines(Lines::Prompts) => Box::new(evalscope_lines::Prompts::default()),
        Format::EvalscopeLines(Lines::Bodies) => Box::new(evalscope_lines::Bodies::default()),
    };
    for request in requests {
        let request = request?;
        let index = request.index;
        let remedy = exporter.remedy();
        let line = exporter.line(&request).map_err(|reason| Error::Record { index, reason, remedy })?;
        out.write_all(line.as_bytes())?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    exporter.command(usage).map_err(Error::Tape)
}

/// Turns requests into lines, and then says how they are sent.
pub(super) trait Exporter {
    /// A request's line, without its end, or what of it the format cannot carry.
    fn line(&mut self, request: &Request) -> Result<String, String>;
    /// What to do with a record that cannot be carried.
    fn remedy(&self) -> &'static str;
    /// The command and its traps, once every request has had its line.
    fn command(&self, usage: Usage<'_>) -> Result<String, String>;
}

/// What a tool sends alike with every request, and so must be alike in all of a tape's.
#[derive(Debug, Default)]
pub(super) struct Alike {
    first: Option<First>,
    pub(super) requests: u64,
}

#[derive(Debug)]
struct First {
    index: u64,
    path: String,
    ask: Ask,
}

impl Alike {
    /// Holds a request against the first one: path, kind of prompt, and every key but the prompt and the number of
    /// tokens.
    pub(super) fn add(&mut self, request: &Request, ask: &Ask) -> Result<(), String> {
        self.requests += 1;
        let Some(first) = &self.first else {
            self.first = Some(First { index: request.index, path: request.path.clone(), ask: ask.clone() });
            return Ok(());
        };
        let against = first.index;
        if request.path != first.path {
            return Err(format!(
                "its path is {}, that of record {against} {}; the tool sends to one",
                request.path, first.path
            ));
        }
        if ask.tokens_key != first.ask.tokens_key {
            return Err(format!("its number of tokens stands under another key than in record {against}"));
        }
        let (ours, theirs) = (&ask.rest, &first.ask.rest);
        let differs = ours.keys().chain(theirs.keys()).find(|key| ours.get(*key) != theirs.get(*key));
        if let Some(key) = differs {
            let shown =
                |rest: &Map<String, Value>| rest.get(key).map_or("absent".to_owned(), Value::to_string);
            return Err(format!(
                "its {key:?} is {}, in record {against} {}; the tool sends one value with every request",
                shown(ours),
                shown(theirs)
            ));
        }
        Ok(())
    }

    pub(super) fn first(&self) -> Result<(&str, &Ask), String> {
        let first = self.first.as_ref().ok_or("the tape holds no request: there is nothing to send")?;
        Ok((&first.path, &first.ask))
    }
}

/// The host in front of a path, as it stands in commands.
pub(super) const BASE_URL: &str = "http://127.0.0.1:8000";

/// A command over several lines.
pub(super) fn command(words: &[String]) -> String {
    words.join(" \\\n  ") + "\n"
}

/// Lines of shell comment.
pub(super) fn comments(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines {
        text += &format!("# {line}\n");
    }
    text
}

/// A word as the shell reads it back.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The model that the bodies name.
pub(super) fn model(ask: &Ask) -> String {
    ask.rest.get("model").and_then(Value::as_str).unwrap_or("MODEL").to_owned()
}
