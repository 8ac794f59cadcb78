//! A tape's prompts for other tools: the file that a tool reads, and the command that sends it unchanged.
//!
//! A request that a format cannot carry is an error that names the record; what it cannot carry of the requests it takes
//! is counted and told: nothing is left out or changed silently. What the tool itself changes on the way is named beside
//! the command.

use std::io::{self, Write};

use serde_json::{Map, Value};
use tokentape_tokenizer::Tokenizer;

use super::prompt::Ask;
use super::{aiperf, evalscope_lines, evalscope_trace, jsonl, mooncake, openai_batch, vllm_custom};
use crate::tape::{self, Header, Request};

/// A format that another tool reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// `AIPerf`'s `multi_turn`: sessions of texts.
    AiperfMultiTurn,
    /// `AIPerf`'s `single_turn`: texts.
    AiperfSingleTurn,
    /// Our own plain form: whole requests, one a line.
    Jsonl,
    /// Mooncake's traces: lengths and shared blocks of 512 tokens. Needs a tokenizer.
    Mooncake,
    /// `OpenAI`'s batch files.
    OpenaiBatch,
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
    /// What counts tokens, for the formats that need it.
    pub tokenizer: Option<&'a Tokenizer>,
}

/// What came of an export.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exported {
    /// The command that uses the file, and its traps, as lines of shell.
    pub command: String,
    /// What the format does not carry, each with its count.
    pub lost: Vec<String>,
}

/// Writes the file, and gives the command and what was lost.
pub fn export(
    format: Format,
    requests: impl Iterator<Item = Result<Request, tape::Error>>,
    out: &mut impl Write,
    usage: Usage<'_>,
) -> Result<Exported, Error> {
    let mut exporter: Box<dyn Exporter + '_> = match format {
        Format::AiperfMultiTurn => Box::new(aiperf::MultiTurn::default()),
        Format::AiperfSingleTurn => Box::new(aiperf::SingleTurn::default()),
        Format::Jsonl => Box::new(jsonl::Jsonl),
        Format::Mooncake => {
            let needed =
                || Error::Tape("mooncake counts tokens: name the model's tokenizer (--tokenizer)".to_owned());
            Box::new(mooncake::Export::new(usage.tokenizer.ok_or_else(needed)?))
        }
        Format::OpenaiBatch => Box::new(openai_batch::Batch::default()),
        Format::VllmCustom => Box::new(vllm_custom::VllmCustom::default()),
        Format::EvalscopeTrace => Box::new(evalscope_trace::Trace::default()),
        Format::EvalscopeLines(Lines::Prompts) => Box::new(evalscope_lines::Prompts::default()),
        Format::EvalscopeLines(Lines::Bodies) => Box::new(evalscope_lines::Bodies::default()),
    };
    let mut losses = Losses::default();
    for request in requests {
        let request = request?;
        let index = request.index;
        let remedy = exporter.remedy();
        let line = exporter.line(&request).map_err(|reason| Error::Record { index, reason, remedy })?;
        losses.count(&request);
        write(out, &line)?;
    }
    for line in exporter.rest() {
        write(out, &line)?;
    }
    out.flush()?;
    let mut lost = losses.told(exporter.carries());
    lost.extend(exporter.lost());
    Ok(Exported { command: exporter.command(usage).map_err(Error::Tape)?, lost })
}

/// An empty line is none: the exporter keeps it for later.
fn write(out: &mut impl Write, line: &str) -> io::Result<()> {
    if !line.is_empty() {
        out.write_all(line.as_bytes())?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Turns requests into lines, and then says how they are sent.
pub(super) trait Exporter {
    /// A request's line, without its end and empty where it comes later, or what of it the format cannot carry.
    fn line(&mut self, request: &Request) -> Result<String, String>;
    /// The lines that could not be written before every request was seen.
    fn rest(&mut self) -> Vec<String> {
        Vec::new()
    }
    /// What to do with a record that cannot be carried.
    fn remedy(&self) -> &'static str;
    /// What the format carries besides what is asked.
    fn carries(&self) -> Carries;
    /// What else is lost, in words.
    fn lost(&self) -> Vec<String> {
        Vec::new()
    }
    /// The command and its traps, once every request has had its line.
    fn command(&self, usage: Usage<'_>) -> Result<String, String>;
}

/// What a format carries of a request, besides what is asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Carries {
    /// Whole bodies.
    pub(super) bodies: bool,
    pub(super) offsets: Offsets,
    pub(super) sessions: bool,
    /// The prompts' tokens as the tape counts them.
    pub(super) tokens: bool,
}

/// How a format carries arrival times.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Offsets {
    Exact,
    Milliseconds,
    #[default]
    No,
}

/// An arrival in whole milliseconds, rounded down: nothing arrives later than in the tape.
pub(super) fn milliseconds(offset_ns: u64) -> u64 {
    offset_ns / 1_000_000
}

/// What requests have that a format may not carry, counted.
#[derive(Debug, Default)]
struct Losses {
    requests: u64,
    offsets: u64,
    finer_offsets: u64,
    sessions: u64,
    counted: u64,
    broken: u64,
}

impl Losses {
    fn count(&mut self, request: &Request) {
        self.requests += 1;
        self.offsets += u64::from(request.offset_ns > 0);
        self.finer_offsets += u64::from(!request.offset_ns.is_multiple_of(1_000_000));
        self.sessions += u64::from(request.session.is_some());
        self.counted += u64::from(request.input_tokens.is_some());
        self.broken += u64::from(request.body.contains(&b'\n') || request.body.contains(&b'\r'));
    }

    fn told(&self, carries: Carries) -> Vec<String> {
        let all = self.requests;
        let of = |count: u64, what: &str| (count > 0).then(|| format!("{what} of {count} of {all} requests"));
        let offsets = match carries.offsets {
            Offsets::Exact => None,
            Offsets::Milliseconds => {
                of(self.finer_offsets, "what is finer than a millisecond in the arrival times")
            }
            Offsets::No => of(self.offsets, "the arrival times"),
        };
        let sessions = if carries.sessions { None } else { of(self.sessions, "the sessions") };
        let tokens = if carries.tokens { None } else { of(self.counted, "the prompts' counts of tokens") };
        let spacing = carries.bodies && !carries.tokens;
        let spacing = spacing.then(|| of(self.broken, "the line ends within the bodies")).flatten();
        [offsets, sessions, tokens, spacing].into_iter().flatten().collect()
    }
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
