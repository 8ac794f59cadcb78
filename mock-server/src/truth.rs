//! The truth log: the server's own record of what it did and when, to hold a client's figures against.
//!
//! JSON lines. The first is a [`Header`]; then one [`Record`] for each request that the server began to answer, in the
//! order in which they ended; the last is a [`Footer`], unless the server was killed. Requests that were refused (a bad
//! body, an unknown model, a missing key) leave no line. All times are nanoseconds on `CLOCK_MONOTONIC`, which every
//! process of the machine shares, so they compare directly with a client's stamps. A thread of its own writes the file,
//! so that no answer waits for a disk.

mod log;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

pub(crate) use log::{Entry, Kept, Log, LogWriter};
use serde::{Deserialize, Serialize};

pub use crate::lateness::Lateness;

/// One line of the log.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    /// The first.
    Header(Header),
    /// What was changed while the server ran.
    Change(Change),
    /// The last, where the server was stopped in order.
    Footer(Footer),
    /// Any other.
    Request(Record),
}

/// How the server was set.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Header {
    /// The mock's own version.
    pub version: String,
    /// The model's name.
    pub model: String,
    /// From arrival to the first token, in nanoseconds: the mean.
    pub ttft_ns: u64,
    /// From token to token, in nanoseconds: the mean.
    pub itl_ns: u64,
    /// How far each interval may stray to either side, in percent of it.
    pub jitter_percent: f64,
    /// The name of the engine's profile, where an engine kept the time and the three above did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The seed of texts and jitter.
    pub seed: u64,
    /// The clock of every time in the log: `CLOCK_MONOTONIC`.
    pub clock: String,
}

/// A change of the settings (`PUT /admin/config`); requests that arrived after it were answered by them.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Change {
    /// When.
    pub at_ns: u64,
    /// How the server is set from then on.
    pub settings: Header,
}

/// What the server says of itself when it ends.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Footer {
    /// Number of records.
    pub requests: u64,
    /// How late the tokens were written.
    pub lateness: Lateness,
}

/// One request.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Record {
    /// The `id` in the answer (`chatcmpl-…`): by it a client's timeline finds its record.
    pub id: String,
    /// The path.
    pub path: String,
    /// When the kernel had the last byte of the request (Linux, `SO_TIMESTAMPNS`); elsewhere, when it was read.
    pub arrival_ns: u64,
    /// When the read of the socket returned that brought that byte. The server's own delay is what lies between.
    #[serde(default)]
    pub read_ns: u64,
    /// The prompt's tokens.
    pub prompt_tokens: u64,
    /// The answer's tokens.
    pub completion_tokens: u64,
    /// When the write of the answer's head returned; absent where it went out with the first event, or never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_ns: Option<u64>,
    /// What each of the answer's events is, in order; in the file as runs: `[["role",1],["token",100],["done",1]]`.
    #[serde(with = "runs")]
    pub events: Vec<EventKind>,
    /// When each event was due; where an engine decides that and the answer was cut off, of those that it scheduled.
    pub due_ns: Vec<u64>,
    /// When the write of each event's last byte returned; shorter than `events` where the answer was cut off.
    pub written_ns: Vec<u64>,
    /// What was done to it on purpose, as on the command line, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// How it ended.
    pub outcome: Outcome,
}

/// What an event is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The whole body of an answer that is no stream.
    Body,
    /// A comment: a fault.
    Comment,
    /// `data: [DONE]`; of `/v1/responses`, `response.completed`.
    Done,
    /// An error in the place of what should follow: a fault.
    Error,
    /// An event that only tells why a choice ended.
    Finish,
    /// An event of `/v1/responses` that carries no token.
    Frame,
    /// Something that is not JSON: a fault.
    Malformed,
    /// A piece of a recorded response.
    Piece,
    /// The chunk that only names the assistant's role.
    Role,
    /// One token, or those of one output.
    Token,
    /// The event that only names the tool that is called.
    Tool,
    /// The final token counts.
    Usage,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The client closed the connection first.
    ClientGone,
    /// Every event was written.
    Complete,
    /// A fault ended it, or kept it from ending.
    Fault,
    /// The server was stopped first.
    Shutdown,
}

/// A truth log read back.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// How the server was set.
    pub header: Header,
    /// Its answers, in the order in which they ended.
    pub records: Vec<Record>,
    /// What it said of itself in the end; absent where it was killed, or is still running.
    pub footer: Option<Footer>,
}

/// Why a truth log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file itself.
    #[error("cannot read the truth log {path}: {source}")]
    Io {
        /// Which file.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// One of its lines.
    #[error("line {line} of the truth log {path} is not a record of this version: {source}")]
    Line {
        /// Which file.
        path: String,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The first line.
    #[error("the truth log {path} does not begin with its header: was it cut off or is it another file?")]
    NoHeader {
        /// Which file.
        path: String,
    },
}

/// Reads a truth log back.
pub fn read(path: &Path) -> Result<Truth, Error> {
    let name = || path.display().to_string();
    let file = File::open(path).map_err(|source| Error::Io { path: name(), source })?;
    let mut header = None;
    let (mut records, mut footer) = (Vec::new(), None);
    for (index, text) in BufReader::new(file).lines().enumerate() {
        let text = text.map_err(|source| Error::Io { path: name(), source })?;
        let line = serde_json::from_str(&text).map_err(|source| Error::Line {
            path: name(),
            line: index + 1,
            source,
        })?;
        match (line, &header) {
            (Line::Header(first), None) => header = Some(first),
            (Line::Request(record), Some(_)) => records.push(record),
            (Line::Footer(last), Some(_)) => footer = Some(last),
            // What was changed is there for people; each record has its own deadlines.
            (Line::Change(_), Some(_)) => {}
            _ => return Err(Error::NoHeader { path: name() }),
        }
    }
    let header = header.ok_or_else(|| Error::NoHeader { path: name() })?;
    Ok(Truth { header, records, footer })
}

impl Record {
    pub(crate) const fn empty() -> Self {
        Self {
            id: String::new(),
            path: String::new(),
            arrival_ns: 0,
            read_ns: 0,
            prompt_tokens: 0,
            completion_tokens: 0,
            head_ns: None,
            events: Vec::new(),
            due_ns: Vec::new(),
            written_ns: Vec::new(),
            faults: Vec::new(),
            outcome: Outcome::ClientGone,
        }
    }
}

/// Events in the file: runs of equal ones.
mod runs {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    use super::EventKind;

    /// More than any answer has, so that a damaged line cannot ask for all memory.
    const MAX_EVENTS: usize = 1 << 26;

    pub(super) fn serialize<S: Serializer>(events: &[EventKind], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(events.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<EventKind>, D::Error> {
        let mut events = Vec::new();
        for (kind, run) in Vec::<(EventKind, usize)>::deserialize(deserializer)? {
            if run > MAX_EVENTS - events.len() {
                return Err(D::Error::custom("more events than an answer can have"));
            }
            events.extend(std::iter::repeat_n(kind, run));
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            version: "0.1.0".to_owned(),
            model: "m".to_owned(),
            ttft_ns: 20_000_000,
            itl_ns: 5_000_000,
            jitter_percent: 2.5,
            engine: None,
            seed: 3,
            clock: "CLOCK_MONOTONIC".to_owned(),
        }
    }

    fn record(written: usize) -> Record {
        let kinds = [EventKind::Role, EventKind::Token, EventKind::Token, EventKind::Done];
        Record {
            id: "chatcmpl-1".to_owned(),
            events: kinds.to_vec(),
            due_ns: vec![1, 1, 2, 2],
            written_ns: vec![2; written],
            ..Record::empty()
        }
    }

    #[test]
    fn what_is_logged_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth.jsonl");
        let (log, writer) = Log::new(Some(&path), header(), 2).unwrap();
        drop(log.begin(record(4)));
        drop(log.begin(record(3)));
        log.stop();
        drop(log.begin(record(0)));
        log.change(7, header());
        let log_kept: Vec<Outcome> = log.kept().iter().map(|record| record.outcome).collect();
        drop(log);
        writer.finish().unwrap();

        assert_eq!(log_kept, [Outcome::ClientGone, Outcome::Shutdown]);
        let Truth { header: read_header, records, footer } = read(&path).unwrap();
        let footer = footer.unwrap();
        assert_eq!((footer.requests, footer.lateness.tokens), (3, 4));
        assert_eq!(read_header, header());
        let outcomes: Vec<Outcome> = records.iter().map(|record| record.outcome).collect();
        assert_eq!(outcomes, [Outcome::Complete, Outcome::ClientGone, Outcome::Shutdown]);
        let kinds = [EventKind::Role, EventKind::Token, EventKind::Token, EventKind::Done];
        assert_eq!(records[0].events, kinds);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(r#""events":[["role",1],["token",2],["done",1]]"#));
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth.jsonl");
        let mut bomb = serde_json::to_value(Line::Request(record(4))).unwrap();
        bomb["events"] = serde_json::json!([["token", u64::MAX], ["token", 1]]);
        let bomb = bomb.to_string();
        for (content, complaint) in [
            ("", "does not begin with its header"),
            ("{}\n", "line 1 of the truth log"),
            ("{\"type\":\"request\"}\n", "line 1 of the truth log"),
            (&bomb, "more events than an answer can have"),
        ] {
            std::fs::write(&path, content).unwrap();
            assert!(read(&path).unwrap_err().to_string().contains(complaint), "{content:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(read(&path).unwrap_err().to_string().starts_with("cannot read the truth log"));
    }
}
