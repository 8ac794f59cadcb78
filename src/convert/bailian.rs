//! Alibaba's Bailian traces: JSON lines `{"chat_id", "parent_chat_id", "timestamp", "input_length", "output_length",
//! "type", "turn", "hash_ids"}`, timestamps in seconds, blocks of 16 tokens (alibaba-edu/qwen-bailian-usagetraces-anon).
//!
//! A request whose `parent_chat_id` is the last turn of a session so far is that session's next turn. Any other begins a
//! session of its own: one without a parent (-1), one whose parent is not in the file, and one whose parent has been
//! continued before (its answer was tried again), since a session is one line of turns.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::import::{Error, Input};
use super::moment::Decimal;
use super::mooncake::blocks;
use super::rows::Rows;
use super::source::{Imported, Lengths, Source};
use crate::tape::format::Session;

#[derive(Deserialize)]
struct Line<'a> {
    chat_id: i64,
    #[serde(default = "no_parent")]
    parent_chat_id: i64,
    #[serde(borrow)]
    timestamp: &'a RawValue,
    input_length: u32,
    output_length: u32,
    #[serde(default)]
    hash_ids: Vec<i128>,
}

fn no_parent() -> i64 {
    -1
}

/// Reads such a trace.
pub(super) struct Trace {
    rows: Rows,
    /// The last turn of each session, by its chat: the session's first chat, and the turn.
    last: HashMap<i64, (i64, u32)>,
}

impl Trace {
    pub(super) fn open(input: &Input) -> Result<Self, Error> {
        Ok(Self { rows: Rows::lines(input)?, last: HashMap::new() })
    }
}

impl Source for Trace {
    fn next(&mut self) -> Result<Option<Imported>, Error> {
        let Some(row) = self.rows.next()? else { return Ok(None) };
        let line: Line<'_> = row.json(
            r#"{"chat_id": …, "parent_chat_id": …, "timestamp": …, "input_length": …, "output_length": …, "hash_ids": […]}"#,
        )?;
        let (first, turn) = match self.last.remove(&line.parent_chat_id) {
            Some((first, turn)) => (first, turn + 1),
            None => (line.chat_id, 0),
        };
        if self.last.insert(line.chat_id, (first, turn)).is_some() {
            return Err(
                row.error(format!("chat_id {} a second time: each request has its own", line.chat_id))
            );
        }
        Ok(Some(Imported::Lengths(Lengths {
            line: row.line,
            offset_ns: row.offset_ns(line.timestamp.get(), Decimal::ONE)?,
            input_tokens: line.input_length,
            output_tokens: line.output_length,
            blocks: blocks(&line.hash_ids),
            session: Some(Session { id: first.to_string(), turn }),
        })))
    }
}
