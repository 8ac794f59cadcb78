//! A run: one replay of a tape, as a folder.
//!
//! - `run.json`: what ran, where, digests, counts, verdict ([`RunInfo`])
//! - `timelines.jsonl.zst`: the raw timelines, one a line, in the order in which requests ended
//! - `summary.json`: the native figures
//! - `report.html`: all of it to look at, where it was wanted

pub mod verdict;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::calibrate::Calibration;
use crate::effort::Effort;
use crate::replay::Behaviour;
use crate::schedule::{Shape, Slots};
use crate::scrape::Server;
use crate::tape::format::{Header, TokenizerId};
use crate::timeline::{Ns, Timeline};

pub use verdict::{Thresholds, Verdict};

/// The run format that this build writes and reads.
pub const FORMAT: u32 = 1;
/// The longest line that is read from a run's timelines.
const LINE_LIMIT: u64 = 256 << 20;

const INFO: &str = "run.json";
const TIMELINES: &str = "timelines.jsonl.zst";
const SUMMARY: &str = "summary.json";
const PAGE: &str = "report.html";

/// What ran, where, and how it went: `run.json`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RunInfo {
    /// The run format, [`FORMAT`].
    pub format: u32,
    /// The program that ran, with its version.
    pub created_by: String,
    /// Wall-clock time of the run's start, RFC 3339 in UTC.
    pub started_at: String,
    /// The run's start on the monotonic clock, in ns: the zero of every timeline, and the same clock as a truth
    /// log's on the same machine.
    pub start_monotonic_ns: u64,
    /// From the run's start to the end of its last request, in ns.
    pub duration_ns: u64,
    /// What was sent.
    pub workload: Workload,
    /// Where it was sent.
    pub target: TargetInfo,
    /// How it was sent.
    pub traffic: Traffic,
    /// How the requests ended.
    pub counts: Counts,
    /// Whether the figures can be trusted.
    pub verdict: Verdict,
    /// What sending took of the client's processors; absent from runs of before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<Effort>,
    /// What the server told of itself; absent where it told nothing or was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Server>,
    /// The machine that sent.
    pub machine: Machine,
    /// The machine's last calibration before the run, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
}

/// What a run sent.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Workload {
    /// The tape's file name.
    pub tape: String,
    /// What made the tape.
    pub source: String,
    /// The tape's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The tokenizer that counted the tape's tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerId>,
    /// The digest of the measured requests as they stand in the tape.
    pub workload_digest: String,
    /// The digest that the tape's footer has; absent where only a part of the tape was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tape_digest: Option<String>,
    /// The same digest over the requests as sent.
    pub wire_digest: String,
    /// The model's name put in place of the tape's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How many requests went out with other bodies than the tape's, because they repeat what the server said.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rebuilt: u64,
}

impl Workload {
    /// What a tape's header tells of it.
    #[must_use]
    pub fn of(tape: &Path, header: &Header) -> Self {
        Self {
            tape: tape.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            source: header.source.clone(),
            seed: header.seed,
            tokenizer: header.tokenizer.clone(),
            workload_digest: String::new(),
            tape_digest: None,
            wire_digest: String::new(),
            model: None,
            rebuilt: 0,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Where a run sent.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct TargetInfo {
    /// The server's URL.
    pub url: String,
    /// The names of the headers sent with each request; values are not kept.
    pub headers: Vec<String>,
}

/// How a run sent.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Traffic {
    /// Requests in flight at once, at most; absent where there was no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Requests a second that the schedule was made for; absent where requests were sent as soon as the limit let them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_rate: Option<f64>,
    /// How the schedule's times were drawn: `constant`, `poisson`, `gamma`, `bursts`, `recorded`, or in the words of
    /// the peer whose schedule it was; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrival: Option<String>,
    /// What the schedule was made from, so that it can be made again; absent where there was none, or a peer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
    /// The part of the tape that was sent, in ns from its start; absent where all of it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_ns: Option<Range<Ns>>,
    /// Which slot carried which request.
    #[serde(default)]
    pub slots: Slots,
    /// How long requests were sent, in ms; absent where there was no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_limit_ms: Option<u64>,
    /// What the client did besides sending each request once.
    #[serde(default, skip_serializing_if = "Behaviour::is_plain")]
    pub behaviour: Behaviour,
    /// Sending threads.
    pub workers: u32,
    /// The time limit of each request, in ms.
    pub timeout_ms: u64,
    /// Requests sent before the clock started.
    pub warmup: u64,
    /// How many of those failed.
    pub warmup_failures: u64,
}

/// How the requests of a run ended: `requests` = `succeeded` + all of `failed` + `cancelled_on_purpose` + `cancelled`
/// + `not_sent`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Counts {
    /// Requests that were to be measured.
    pub requests: u64,
    /// Those that succeeded.
    pub succeeded: u64,
    /// Those that failed, by kind.
    pub failed: BTreeMap<String, u64>,
    /// Those broken off on purpose.
    #[serde(default)]
    pub cancelled_on_purpose: u64,
    /// Those cut off by an interruption.
    pub cancelled: u64,
    /// Those never sent, because of an interruption.
    pub not_sent: u64,
    /// Requests besides, which the run's time limit left out by design.
    #[serde(default)]
    pub left_out: u64,
    /// How often requests were sent, all attempts together; 0 in runs of before it was kept.
    #[serde(default)]
    pub attempts: u64,
    /// Requests that were sent more than once.
    #[serde(default)]
    pub retried: u64,
}

impl Counts {
    /// Counts timelines by their outcomes. `requests` is what was to be measured, counted elsewhere.
    #[must_use]
    pub fn of(requests: u64, timelines: &[Timeline]) -> Self {
        let mut counts = Self { requests, ..Self::default() };
        for timeline in timelines {
            counts.attempts += timeline.times_sent();
            counts.retried += u64::from(timeline.times_sent() > 1);
            match timeline.outcome.kind() {
                "success" => counts.succeeded += 1,
                "cancelled" => counts.cancelled += 1,
                "cancelled_on_purpose" => counts.cancelled_on_purpose += 1,
                "not_sent" => counts.not_sent += 1,
                kind => *counts.failed.entry(kind.to_owned()).or_default() += 1,
            }
        }
        counts
    }

    /// All that ended as they were to end.
    #[must_use]
    pub fn ended_well(&self) -> u64 {
        self.succeeded + self.cancelled_on_purpose
    }

    /// All that failed.
    #[must_use]
    pub fn all_failed(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Requests whose end is not on record; any at all is a fault of the program.
    #[must_use]
    pub fn unaccounted(&self) -> u64 {
        self.requests.abs_diff(self.ended_well() + self.all_failed() + self.cancelled + self.not_sent)
    }
}

/// The machine that sent.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Machine {
    /// Operating system and kernel version.
    pub system: String,
    /// Processor architecture.
    pub arch: String,
    /// Processors that the program may use.
    pub cpus: u32,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn this() -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            system: format!("{} {}", std::env::consts::OS, kernel.trim()).trim().to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            cpus: std::thread::available_parallelism()
                .map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        }
    }
}

/// Why a run's folder could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the run could not be written or read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The folder is already a run.
    #[error("{} already holds a run; choose another folder, or replace it with --force", .0.display())]
    Exists(PathBuf),
    /// The folder is not a run.
    #[error("{} holds no run: it has no run.json", .0.display())]
    NotARun(PathBuf),
    /// The run was written by a newer version.
    #[error("{}: run format {found}; this tokentape reads {FORMAT}: upgrade it", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The run has figures and no timelines.
    #[error(
        "{} holds no timelines: it was simulated with --summary-only, and its figures are in summary.json; simulate it \
         again without",
        .0.display()
    )]
    NoTimelines(PathBuf),
    /// A line is not what it should be.
    #[error("{}, line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::File { path, source }
}

/// Writes a run's folder. Timelines are written as they come; `run.json` last, so that a folder with one is whole.
pub struct RunWriter {
    folder: PathBuf,
    timelines: zstd::Encoder<'static, BufWriter<File>>,
    /// The line that is being written.
    line: Vec<u8>,
}

impl std::fmt::Debug for RunWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunWriter").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl RunWriter {
    /// Makes the folder, before the run starts: a bad path fails in the first second.
    pub fn create(folder: &Path, force: bool) -> Result<Self, Error> {
        let info = folder.join(INFO);
        if info.exists() {
            if !force {
                return Err(Error::Exists(folder.to_owned()));
            }
            fs::remove_file(&info).map_err(at(&info))?;
            // The page of the run that was here would pass for this one's.
            let page = folder.join(PAGE);
            if page.exists() {
                fs::remove_file(&page).map_err(at(&page))?;
            }
        }
        fs::create_dir_all(folder).map_err(at(folder))?;
        let path = folder.join(TIMELINES);
        let file = BufWriter::new(File::create(&path).map_err(at(&path))?);
        let timelines = zstd::Encoder::new(file, 3).map_err(at(&path))?;
        Ok(Self { folder: folder.to_owned(), timelines, line: Vec::new() })
    }

    /// Adds one timeline.
    pub fn timeline(&mut self, timeline: &Timeline) -> Result<(), Error> {
        // The whole line at once: each number by itself would cost the compressor a call.
        self.line.clear();
        let written = serde_json::to_writer(&mut self.line, timeline).map_err(io::Error::from);
        self.line.push(b'\n');
        let written = written.and_then(|()| self.timelines.write_all(&self.line));
        written.map_err(at(&self.folder.join(TIMELINES)))
    }

    /// Ends the run: its timelines, its summary, and last its `run.json`.
    pub fn finish(self, info: &RunInfo, summary: &str) -> Result<(), Error> {
        let path = self.folder.join(TIMELINES);
        let end = |encoder: zstd::Encoder<'_, BufWriter<File>>| encoder.finish()?.flush();
        end(self.timelines).map_err(at(&path))?;
        let path = self.folder.join(SUMMARY);
        fs::write(&path, summary).map_err(at(&path))?;
        let path = self.folder.join(INFO);
        let json = serde_json::to_string_pretty(info).map_err(io::Error::from).map_err(at(&path))?;
        // Written whole or not at all.
        let part = self.folder.join("run.json.part");
        fs::write(&part, json + "\n").map_err(at(&part))?;
        fs::rename(&part, &path).map_err(at(&path))
    }
}

/// Leaves a run's page in its folder.
pub fn write_page(folder: &Path, page: &[u8]) -> Result<(), Error> {
    let path = folder.join(PAGE);
    fs::write(&path, page).map_err(at(&path))
}

/// The one field of `run.json` that every version can read.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// A run, read back.
#[derive(Debug)]
pub struct Run {
    /// What ran.
    pub info: RunInfo,
    /// Its timelines, in tape order.
    pub timelines: Vec<Timeline>,
}

impl Run {
    /// Reads a run's folder.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(INFO);
        if !path.exists() {
            return Err(Error::NotARun(folder.to_owned()));
        }
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        let malformed = |error: &serde_json::Error| Error::Line {
            path: path.clone(),
            line: error.line() as u64,
            reason: error.to_string(),
        };
        let Format { format } = serde_json::from_str(&text).map_err(|error| malformed(&error))?;
        if format > FORMAT {
            return Err(Error::Newer { path, found: format });
        }
        let info: RunInfo = serde_json::from_str(&text).map_err(|error| malformed(&error))?;
        let mut timelines = read_timelines(&folder.join(TIMELINES))?;
        if timelines.is_empty() && info.counts.requests > 0 {
            return Err(Error::NoTimelines(folder.to_owned()));
        }
        timelines.sort_by_key(|timeline| timeline.index);
        Ok(Self { info, timelines })
    }
}

fn read_timelines(path: &Path) -> Result<Vec<Timeline>, Error> {
    let file = File::open(path).map_err(at(path))?;
    let mut lines = BufReader::with_capacity(1 << 18, zstd::Decoder::new(file).map_err(at(path))?);
    let mut timelines = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let wrong = |reason: String| Error::Line { path: path.to_owned(), line: number, reason };
        let read = (&mut lines).take(LINE_LIMIT).read_until(b'\n', &mut line);
        if read.map_err(|error| wrong(format!("{error}; the file is damaged or cut short")))? == 0 {
            break;
        }
        if line.last() != Some(&b'\n') {
            return Err(wrong("the line has no end; the file is damaged or cut short".to_owned()));
        }
        let timeline: Timeline = serde_json::from_slice(&line).map_err(|error| wrong(error.to_string()))?;
        check(&timeline).map_err(|reason| wrong(reason.to_owned()))?;
        timelines.push(timeline);
    }
    Ok(timelines)
}

/// What every reader of a timeline relies on: columns of one length, events that point at reads.
fn check(timeline: &Timeline) -> Result<(), &'static str> {
    let (reads, events) = (&timeline.reads, &timeline.events);
    if reads.at_ns.len() != reads.bytes.len() || events.read.len() != events.facts.len() {
        return Err("its columns differ in length");
    }
    if !reads.late_ns.is_empty() && reads.late_ns.len() != reads.at_ns.len() {
        return Err("its columns differ in length");
    }
    if !events.tokens.is_empty() && events.tokens.len() != events.read.len() {
        return Err("its columns differ in length");
    }
    if !events.choices.is_empty() && events.choices.len() != events.read.len() {
        return Err("its columns differ in length");
    }
    if events.read.iter().any(|read| *read as usize >= reads.at_ns.len()) {
        return Err("an event names a read that is not there");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effort::Busy;
    use crate::timeline::{Events, Facts, Outcome, Reads};

    fn timeline(index: u64) -> Timeline {
        Timeline {
            index,
            reads: Reads { at_ns: vec![5, 6], bytes: vec![1, 2], ..Reads::default() },
            events: Events { read: vec![1], facts: vec![Facts::DONE], ..Events::default() },
            outcome: Outcome::Timeout { limit_ms: 3 },
            ..Timeline::default()
        }
    }

    fn info(timelines: &[Timeline]) -> RunInfo {
        let counts = Counts::of(timelines.len() as u64, timelines);
        RunInfo {
            format: FORMAT,
            created_by: "tokentape test".to_owned(),
            started_at: "2026-01-01T00:00:00Z".to_owned(),
            start_monotonic_ns: 1,
            duration_ns: 2,
            workload: Workload {
                tape: "t".to_owned(),
                source: "random".to_owned(),
                seed: None,
                tokenizer: None,
                workload_digest: "a".to_owned(),
                tape_digest: None,
                wire_digest: "b".to_owned(),
                model: None,
                rebuilt: 0,
            },
            target: TargetInfo { url: "http://h".to_owned(), headers: vec![] },
            traffic: Traffic {
                concurrency: Some(1),
                shape: Some(Shape::Recorded { speed: 2.0, from_ns: 7 }),
                window_ns: Some(7..9),
                workers: 1,
                timeout_ms: 1,
                ..Traffic::default()
            },
            verdict: Verdict { reasons: vec!["failed: all".to_owned()], ..Verdict::default() },
            effort: Some(Effort { workers: vec![Busy::default()], ..Effort::default() }),
            counts,
            server: Some(Server { version: Some("1".to_owned()), ..Server::default() }),
            machine: Machine::this(),
            calibration: None,
        }
    }

    #[test]
    fn a_run_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/run");
        let (one, two) = (timeline(1), timeline(0));
        let mut writer = RunWriter::create(&path, false).unwrap();
        writer.timeline(&one).unwrap();
        writer.timeline(&two).unwrap();
        let info = info(&[one.clone(), two.clone()]);
        writer.finish(&info, "{}").unwrap();
        let run = Run::load(&path).unwrap();
        assert_eq!((run.info, run.timelines), (info, vec![two, one]));
        assert!(matches!(RunWriter::create(&path, false), Err(Error::Exists(_))));
        assert!(RunWriter::create(&path, true).is_ok());
        assert!(
            matches!(Run::load(&path), Err(Error::NotARun(_))),
            "a run that is being replaced is not one"
        );
    }

    #[test]
    fn damage_is_one_error_that_names_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = RunWriter::create(folder.path(), false).unwrap();
        let mut bad = timeline(0);
        bad.events.read = vec![9];
        writer.timeline(&timeline(0)).unwrap();
        writer.timeline(&bad).unwrap();
        writer.finish(&info(&[]), "{}").unwrap();
        let error = Run::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("read that is not there"), "{error}");
        let path = folder.path().join(TIMELINES);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert!(Run::load(folder.path()).is_err());
    }
}
