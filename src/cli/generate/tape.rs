//! A generated tape: written, and told about.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tokentape_tokenizer::Tokenizer;

use crate::cli::output::{create, print};
use crate::cli::verify::Meter;
use crate::cli::{Failure, Outcome};
use crate::convert::import::Survey;
use crate::generate::{Made, Random, Sink};
use crate::tape::format::Header;
use crate::tape::{Footer, Progress, Writer};

/// What was made, for a person or as JSON.
pub(in crate::cli) struct Told<'a> {
    pub(in crate::cli) path: &'a Path,
    pub(in crate::cli) footer: Footer,
    pub(in crate::cli) made: Made,
    /// What counted the tokens, where something did.
    pub(in crate::cli) tokenizer: Option<&'a Tokenizer>,
    /// Whether there is a length that each prompt was asked to have: a peer's prompts are as long as they come out.
    pub(in crate::cli) exact: bool,
    /// What was found in an imported file.
    pub(in crate::cli) survey: Option<Survey>,
}

impl Told<'_> {
    pub(in crate::cli) fn print(self, json: bool) -> Outcome {
        let bytes = fs::metadata(self.path)?.len();
        print(&if json { self.as_json(bytes) } else { self.as_text(bytes) })
    }

    fn as_text(&self, bytes: u64) -> String {
        let Self { path, footer, made: Made { requests, inexact }, tokenizer, exact, survey } = self;
        let line = |name: &str, value: &str| format!("{name:<16} {value}\n");
        let mut lines = vec![
            line("tape", &format!("{} ({bytes} bytes)", path.display())),
            line("requests", &footer.requests.to_string()),
            line("input tokens", &footer.input_tokens.to_string()),
            line("output tokens", &footer.output_tokens.to_string()),
        ];
        if let Some(tokenizer) = tokenizer {
            lines.push(line("tokenizer", &format!("{} ({})", tokenizer.name(), tokenizer.digest())));
        }
        lines.push(line("workload digest", &footer.workload_digest));
        if *exact {
            lines.push(line("exact prompts", &format!("{} of {requests}", requests - inexact)));
        }
        let Survey { skipped, unordered, .. } = survey.unwrap_or_default();
        if skipped > 0 {
            lines.push(line("left out", &format!("{skipped} rows without a token in or out")));
        }
        if unordered > 0 {
            lines.push(format!(
                "\n{unordered} of {requests} requests arrive before one above them; replay sends in the tape's order, \
                 and so these late\n"
            ));
        }
        if *inexact > 0 {
            lines.push(format!(
                "\n{inexact} of {requests} prompts could not be made exactly as long as asked; the tape holds their \
                 true lengths\n"
            ));
        }
        lines.concat()
    }

    fn as_json(&self, bytes: u64) -> String {
        let Self { path, footer, made, tokenizer, exact, survey } = &self;
        let mut json = json!({
            "tape": path.display().to_string(),
            "bytes": bytes,
            "requests": footer.requests,
            "input_tokens": footer.input_tokens,
            "output_tokens": footer.output_tokens,
            "tokenizer": tokenizer.map(|tokenizer| json!({"name": tokenizer.name(), "digest": tokenizer.digest()})),
            "workload_digest": footer.workload_digest,
        });
        if *exact {
            json["inexact_prompts"] = made.inexact.into();
        }
        if let Some(Survey { skipped, unordered, .. }) = survey {
            json["skipped_rows"] = (*skipped).into();
            json["unordered_requests"] = (*unordered).into();
        }
        format!("{json:#}\n")
    }
}

/// Writes every request of the source to a tape. The file appears under its name only once it is whole.
pub(in crate::cli) fn write_tape(
    path: &Path,
    source: &Random,
    threads: usize,
) -> Result<(Footer, Made), Failure> {
    write_with(path, source.header(), ("generating", source.requests()), |sink| source.run(threads, sink))
}

/// Writes what `run` hands over to a tape, while a meter shows what is done of how many.
pub(in crate::cli) fn write_with<E: Into<Failure>>(
    path: &Path,
    header: &Header,
    (verb, total): (&'static str, u64),
    run: impl FnOnce(Sink) -> Result<Made, E>,
) -> Result<(Footer, Made), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::run(format_args!("cannot write the tape {}: {error}", path.display()))
    };
    // What is no regular file (a pipe, a device) is written to as it is.
    let direct = path.exists() && !path.is_file();
    let part = if direct { path.to_owned() } else { part_of(path) };
    let written = (|| {
        let mut writer = Writer::new(create(&part)?, header).map_err(|error| failed(&error))?;
        let mut meter = Meter::new(verb);
        let mut done = 0;
        let made = run(&mut |request| {
            writer
                .write(&request)
                .map_err(|error| format!("cannot write the tape {}: {error}", path.display()))?;
            done += 1;
            meter.show(Progress { done, total });
            Ok(())
        })
        .map_err(Into::into)?;
        let footer = writer.finish().map_err(|error| failed(&error))?;
        if !direct {
            fs::rename(&part, path).map_err(|error| failed(&error))?;
        }
        Ok((footer, made))
    })();
    if written.is_err() && !direct {
        // The error to tell is the one that came first.
        drop(fs::remove_file(&part));
    }
    written
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}
