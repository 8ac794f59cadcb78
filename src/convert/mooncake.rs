//! Mooncake's traces, and `timed_trace` of `vllm bench serve`, which has the same lines in other units: JSON lines
//! `{"timestamp", "input_length", "output_length", "hash_ids"}`. Mooncake's timestamps are milliseconds and its blocks
//! 512 tokens (kvcache-ai/Mooncake, `FAST25-release/traces`); vLLM's are what its flags say, 16 tokens unless told.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokentape_tokenizer::Tokenizer;

use super::asked::prompt_ids;
use super::export::{Carries, Exporter, Offsets, Usage, comments, milliseconds, quoted};
use super::import::{Error, Input};
use super::moment::Decimal;
use super::prompt::object;
use super::rows::Rows;
use super::source::{Imported, Lengths, Source};
use crate::generate::MAX_TOKENS;
use crate::tape::Request;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    timestamp: &'a RawValue,
    input_length: u32,
    output_length: u32,
    #[serde(default)]
    hash_ids: Vec<i128>,
}

/// Reads such a trace.
pub(super) struct Trace {
    rows: Rows,
    /// Seconds in one unit of the timestamps.
    unit: Decimal,
}

impl Trace {
    pub(super) fn open(input: &Input, unit: Decimal) -> Result<Self, Error> {
        Ok(Self { rows: Rows::lines(input)?, unit })
    }
}

impl Source for Trace {
    fn next(&mut self) -> Result<Option<Imported>, Error> {
        let Some(row) = self.rows.next()? else { return Ok(None) };
        let line: Line<'_> =
            row.json(r#"{"timestamp": …, "input_length": …, "output_length": …, "hash_ids": […]}"#)?;
        Ok(Some(Imported::Lengths(Lengths {
            line: row.line,
            offset_ns: row.offset_ns(line.timestamp.get(), self.unit)?,
            input_tokens: line.input_length,
            output_tokens: line.output_length,
            blocks: blocks(&line.hash_ids),
            session: None,
        })))
    }
}

/// The hashes as what blocks are drawn by.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "64 bits of any sign, and all of them"
)]
pub(super) fn blocks(hash_ids: &[i128]) -> Vec<u64> {
    hash_ids.iter().map(|&hash| hash as u64).collect()
}

/// Tokens that one hash stands for.
const BLOCK_TOKENS: usize = 512;

/// Writes such a trace, in Mooncake's units. A block's hash stands for it and all that is before it, as in a server's
/// prefix cache; the hashes are numbered as they are first seen, so that a file says nothing of its texts.
pub(super) struct Export<'a> {
    tokenizer: &'a Tokenizer,
    seen: HashMap<[u8; 16], u64>,
    requests: u64,
    chats: u64,
}

impl<'a> Export<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, seen: HashMap::new(), requests: 0, chats: 0 }
    }

    fn hash_ids(&mut self, ids: &[u32]) -> Vec<u64> {
        let mut chain = blake3::Hasher::new();
        ids.chunks(BLOCK_TOKENS)
            .map(|block| {
                for id in block {
                    chain.update(&id.to_le_bytes());
                }
                let mut hash = [0; 16];
                chain.finalize_xof().fill(&mut hash);
                let next = self.seen.len() as u64;
                *self.seen.entry(hash).or_insert(next)
            })
            .collect()
    }
}

impl Exporter for Export<'_> {
    fn line(&mut self, request: &Request) -> Result<String, String> {
        let ids = prompt_ids(self.tokenizer, &request.body)
            .map_err(|error| error.to_string())?
            .ok_or("it has no one prompt of text, messages or token ids")?;
        let told = ["max_completion_tokens", "max_tokens"]
            .into_iter()
            .find_map(|key| object(request).ok()?.get(key)?.as_u64());
        let output = told.or(request.output_tokens.map(u64::from));
        let output = output.ok_or("it does not say how many tokens it asks for")?;
        if ids.is_empty() || output == 0 || output > u64::from(MAX_TOKENS) {
            return Err(format!("it has {} tokens in and asks for {output}: no row of a trace", ids.len()));
        }
        self.requests += 1;
        self.chats += u64::from(request.path.contains("/chat/"));
        let hash_ids = self.hash_ids(&ids);
        Ok(json!({
            "timestamp": milliseconds(request.offset_ns),
            "input_length": ids.len(),
            "output_length": output,
            "hash_ids": hash_ids,
        })
        .to_string())
    }

    fn remedy(&self) -> &'static str {
        "leave it out, or replay the tape with tokentape"
    }

    fn carries(&self) -> Carries {
        Carries { offsets: Offsets::Milliseconds, ..Carries::default() }
    }

    fn lost(&self) -> Vec<String> {
        vec![format!(
            "the texts and bodies of {} requests: a trace has lengths and shared blocks alone",
            self.requests
        )]
    }

    fn command(&self, usage: Usage<'_>) -> Result<String, String> {
        if self.requests == 0 {
            return Err("the tape holds no request: there is nothing to write".to_owned());
        }
        let back = format!("tokentape import mooncake {} -o again.tape.zst", quoted(usage.file));
        let mut traps = vec![format!("Lengths and blocks are those of tokenizer {}.", self.tokenizer.name())];
        if self.chats > 0 {
            traps.push(
                "Chats count with the tokenizer's template around them, as a server's cache sees them."
                    .to_owned(),
            );
        }
        Ok(back + "\n" + &comments(&traps))
    }
}
