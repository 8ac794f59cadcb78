//! What the tools that make a tape of tapes have in common: where the new tape goes, and what is told of it.

use std::fs::{self, File, Metadata};
use std::io::BufWriter;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::output::{create, print};
use super::verify::Meter;
use super::{Failure, Outcome};
use crate::tape::edit::Renumber;
use crate::tape::{Entry, Footer, Header, Progress, Reader, Writer};

/// The program, as a header names it.
pub(super) const CREATED_BY: &str = concat!("tokentape ", env!("CARGO_PKG_VERSION"));

/// Where a new tape goes.
#[derive(Debug, clap::Args)]
pub(super) struct Output {
    /// The new tape
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Tell what was written as one JSON object
    #[arg(long)]
    json: bool,
}

impl Output {
    /// Refuses to write over one of the tapes that are read.
    pub(super) fn keep_apart<'a>(&self, inputs: impl IntoIterator<Item = &'a PathBuf>) -> Outcome {
        let identity = |path: &Path| fs::metadata(path).ok().map(|file: Metadata| (file.dev(), file.ino()));
        let Some(output) = identity(&self.output) else { return Ok(()) };
        match inputs.into_iter().find(|input| identity(input) == Some(output)) {
            None => Ok(()),
            Some(input) => Err(Failure::usage(format_args!(
                "-o names the tape that is read, {}: name another file",
                input.display()
            ))),
        }
    }

    /// Writes what `feed` hands over to a tape, and tells about it with the `notes` that `feed` gives. The file appears
    /// under its name only once it is whole. `scope` is what will be read on the way.
    pub(super) fn write(
        &self,
        header: &Header,
        scope: Scope,
        feed: impl FnOnce(&mut Tape) -> Result<Vec<String>, Failure>,
    ) -> Outcome {
        // What is no regular file (a pipe, a device) is written to as it is.
        let direct = self.output.exists() && !self.output.is_file();
        let part = if direct { self.output.clone() } else { part_of(&self.output) };
        let written = self.write_to(&part, header, scope, feed).and_then(|written| {
            if !direct {
                fs::rename(&part, &self.output).map_err(|error| self.failed(error))?;
            }
            Ok(written)
        });
        if written.is_err() && !direct {
            // The error to tell is the one that came first.
            drop(fs::remove_file(&part));
        }
        let (footer, notes) = written?;
        self.tell(&footer, &notes)
    }

    fn write_to(
        &self,
        part: &Path,
        header: &Header,
        scope: Scope,
        feed: impl FnOnce(&mut Tape) -> Result<Vec<String>, Failure>,
    ) -> Result<(Footer, Vec<String>), Failure> {
        let writer = Writer::new(create(part)?, header).map_err(|error| self.failed(error))?;
        let meter = Meter::new("writing");
        let Scope { requests: total, answered } = scope;
        let renumber = Renumber::default();
        let mut tape = Tape { writer, output: self, renumber, answered, meter, done: 0, total };
        let notes = feed(&mut tape)?;
        let footer = tape.writer.finish().map_err(|error| self.failed(error))?;
        Ok((footer, notes))
    }

    fn tell(&self, footer: &Footer, notes: &[String]) -> Outcome {
        let Footer { requests, responses, workload_digest, .. } = footer;
        let path = self.output.display();
        if self.json {
            let told = json!({
                "tape": path.to_string(),
                "requests": requests,
            "responses": responses,
                "workload_digest": workload_digest,
                "notes": notes,
            });
            return print(&format!("{told:#}\n"));
        }
        let notes = notes.iter().map(|note| format!("note: {note}\n")).collect::<Vec<_>>().concat();
        let responses = if *responses > 0 { format!(" with {responses} responses") } else { String::new() };
        print(&format!("{path}: {requests} requests{responses}, digest {workload_digest}\n{notes}"))
    }

    fn failed(&self, error: impl std::fmt::Display) -> Failure {
        Failure::run(format_args!("{}: {error}", self.output.display()))
    }
}

/// What a tool will read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scope {
    /// How many requests.
    pub(super) requests: u64,
    /// Whether some have their responses.
    pub(super) answered: bool,
}

impl Scope {
    /// A tape, so many times.
    pub(super) fn of(reader: &Reader, times: u64) -> Self {
        let footer = reader.footer();
        Self { requests: footer.requests.saturating_mul(times), answered: footer.responses > 0 }
    }
}

/// A tape that is being written.
pub(super) struct Tape<'a> {
    writer: Writer<BufWriter<File>>,
    output: &'a Output,
    renumber: Renumber,
    /// Whether there are responses to come.
    answered: bool,
    meter: Meter,
    done: u64,
    total: u64,
}

impl Tape<'_> {
    /// Writes a request under the next index, or a response, unless its request was left out. `source` tells requests of
    /// the same index in several tapes apart.
    pub(super) fn write(&mut self, source: u64, mut entry: Entry) -> Outcome {
        if !self.renumber.assign(source, self.answered, &mut entry) {
            return Ok(());
        }
        self.keep(&entry)
    }

    /// Writes a record under the index that it has.
    pub(super) fn keep(&mut self, entry: &Entry) -> Outcome {
        match entry {
            Entry::Request(request) => self.writer.write(request),
            Entry::Response(response) => self.writer.response(response),
        }
        .map_err(|error| self.output.failed(error))
    }

    /// A request was read.
    pub(super) fn step(&mut self) {
        self.done += 1;
        self.meter.show(Progress { done: self.done, total: self.total });
    }
}

/// The name of a tape until it is whole.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

/// The digest by which a new tape names the tape that it was made of.
pub(super) fn digest(reader: &Reader) -> &str {
    &reader.footer().workload_digest
}
