//! Foreign formats in and out, one file a format.
//!
//! In: what other tools leave of a run, as a [`Subject`], and traces as tapes ([`import`]). Out: a tape's prompts in the
//! files that other tools read, with the command that sends them unchanged ([`export`]).

mod aiperf;
mod asked;
mod azure;
mod bailian;
mod burstgpt;
mod csv;
mod evalscope_lines;
mod evalscope_result;
mod evalscope_trace;
pub mod export;
mod guidellm;
pub mod import;
mod jsonl;
mod moment;
mod mooncake;
mod openai_batch;
mod prompt;
mod raw_payload;
mod rows;
mod sharegpt;
mod source;
mod vllm_custom;
mod vllm_result;

pub(crate) use asked::prompt_ids;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::compare::Subject;

/// The largest result file that is read, in bytes.
const MAX_FILE: u64 = 1 << 30;

/// Why a foreign result could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file is larger than any result.
    #[error(
        "{} is larger than {} MiB: no result file; save it without --save-detailed, or name another file",
        .0.display(), MAX_FILE >> 20
    )]
    TooLarge(PathBuf),
    /// The contents are no tool's.
    #[error(
        "{} is no result that tokentape knows: expected the folder of a run, the JSON file of `vllm bench serve \
         --save-result`, or the output folder of `evalscope perf`",
        .0.display()
    )]
    Unknown(PathBuf),
    /// A folder with nothing in it that could be read.
    #[error(
        "{} holds no run, and no result of evalscope: expected a folder with run.json or benchmark_summary.json in it",
        .0.display()
    )]
    Nothing(PathBuf),
    /// A folder above several results.
    #[error("{} holds no result itself; name one of the folders in it: {}", path.display(), results.join(", "))]
    Several {
        /// The folder.
        path: PathBuf,
        /// Where its results are.
        results: Vec<String>,
    },
    /// The contents are a tool's, but damaged.
    #[error("{}: {reason}; the file is damaged or cut short: take the tool's own copy, or run it again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads what another tool left of a run, told by its contents. A file to which `--append-result` added holds several
/// results, in the order of writing; all others one. Never empty.
pub fn load(path: &Path) -> Result<Vec<Subject>, Error> {
    let name = path.display().to_string();
    if path.is_dir() {
        if evalscope_result::is_in(path) {
            return Ok(vec![evalscope_result::load(&name, path)?]);
        }
        let results = evalscope_result::below(path);
        return Err(if results.is_empty() {
            Error::Nothing(path.to_owned())
        } else {
            Error::Several { path: path.to_owned(), results }
        });
    }
    let bytes = read(path)?;
    let text = standard(&bytes);
    let mut subjects = Vec::new();
    for object in serde_json::Deserializer::from_slice(&text).into_iter::<BTreeMap<String, &RawValue>>() {
        let fields = Fields { path, fields: object.map_err(|error| foreign(path, &subjects, &error))? };
        if evalscope_result::is_summary(&fields) {
            let folder = path.parent().unwrap_or(Path::new("."));
            return Ok(vec![evalscope_result::load(&name, folder)?]);
        }
        if !vllm_result::is_result(&fields) {
            return Err(Error::Unknown(path.to_owned()));
        }
        subjects.push(vllm_result::subject(&name, &fields)?);
    }
    if subjects.is_empty() {
        return Err(Error::Unknown(path.to_owned()));
    }
    Ok(subjects)
}

/// What is not JSON from its first byte on was never a result file.
fn foreign(path: &Path, before: &[Subject], error: &serde_json::Error) -> Error {
    if before.is_empty() && !error.is_eof() {
        Error::Unknown(path.to_owned())
    } else {
        malformed(path, error)
    }
}

fn malformed(path: &Path, reason: impl ToString) -> Error {
    Error::Malformed { path: path.to_owned(), reason: reason.to_string() }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Error::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

/// Python writes `NaN`, `Infinity` and `-Infinity` where JSON has no such numbers: `null` in their place.
fn standard(json: &[u8]) -> Cow<'_, [u8]> {
    const WORDS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];

    let mut out: Option<Vec<u8>> = None;
    let (mut copied, mut at, mut in_string) = (0, 0, false);
    while at < json.len() {
        match json[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            _ => {
                if let Some(word) = WORDS.into_iter().find(|word| json[at..].starts_with(word)) {
                    let out = out.get_or_insert_default();
                    out.extend_from_slice(&json[copied..at]);
                    out.extend_from_slice(b"null");
                    at += word.len();
                    copied = at;
                    continue;
                }
            }
        }
        at += 1;
    }
    match out {
        Some(mut out) => {
            out.extend_from_slice(&json[copied..]);
            Cow::Owned(out)
        }
        None => Cow::Borrowed(json),
    }
}

/// The fields of a JSON object, each parsed only when asked for.
struct Fields<'a> {
    path: &'a Path,
    fields: BTreeMap<String, &'a RawValue>,
}

impl<'a> Fields<'a> {
    /// A whole file that is one object.
    fn parse(path: &'a Path, text: &'a [u8]) -> Result<Self, Error> {
        let fields = serde_json::from_slice(text).map_err(|error| malformed(path, error))?;
        Ok(Self { path, fields })
    }

    fn has(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    /// A field's value; none where it is absent or null.
    fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        let Some(raw) = self.fields.get(key) else {
            return Ok(None);
        };
        serde_json::from_str(raw.get()).map_err(|error| malformed(self.path, format!("its {key:?}: {error}")))
    }

    /// A number; none where it is absent, null, or a word.
    fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        Ok(self.get::<serde_json::Value>(key)?.and_then(|value| value.as_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_numbers_become_null_and_strings_stay() {
        let json = br#"{"a": NaN, "b": "NaN \" -Infinity", "c": [-Infinity, Infinity], "\\": 1}"#;
        let expected = br#"{"a": null, "b": "NaN \" -Infinity", "c": [null, null], "\\": 1}"#;
        assert_eq!(standard(json).as_ref(), expected);
        assert!(matches!(standard(b"[1]"), Cow::Borrowed(_)));
    }
}
