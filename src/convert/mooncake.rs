//! Mooncake's traces, and `timed_trace` of `vllm bench serve`, which has the same lines in other units: JSON lines
//! `{"timestamp", "input_length", "output_length", "hash_ids"}`. Mooncake's timestamps are milliseconds and its blocks
//! 512 tokens (kvcache-ai/Mooncake, `FAST25-release/traces`); vLLM's are what its flags say, 16 tokens unless told.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::import::{Error, Input};
use super::moment::Decimal;
use super::rows::Rows;
use super::source::{Imported, Lengths, Source};

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
