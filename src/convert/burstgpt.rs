//! `BurstGPT`: CSV `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`, of late with `Session ID` and
//! `Elapsed time`; timestamps in seconds (HPMLL/BurstGPT). Requests that failed have no response tokens.
//!
//! Rows of one session are its turns, in the file's order.

use std::collections::HashMap;

use super::csv::Table;
use super::import::{Error, Input};
use super::source::{Imported, Lengths, Source};
use crate::tape::format::Session;

/// Reads such a trace.
pub(super) struct Trace {
    table: Table,
    /// How many turns of each session have been.
    turns: HashMap<String, u32>,
}

impl Trace {
    pub(super) fn open(input: &Input) -> Result<Self, Error> {
        let table = Table::open(input, &["Timestamp", "Request tokens", "Response tokens"])?;
        Ok(Self { table, turns: HashMap::new() })
    }
}

impl Source for Trace {
    fn next(&mut self) -> Result<Option<Imported>, Error> {
        let [time, input, output, session] = ["Timestamp", "Request tokens", "Response tokens", "Session ID"]
            .map(|name| self.table.column(name));
        let Some(record) = self.table.next()? else { return Ok(None) };
        let id = record.field(session);
        // Only conversations have one.
        let session = (!id.is_empty() && !id.eq_ignore_ascii_case("nan")).then(|| {
            let turns = self.turns.entry(id.to_owned()).or_default();
            *turns += 1;
            Session { id: id.to_owned(), turn: *turns - 1 }
        });
        Ok(Some(Imported::Lengths(Lengths {
            line: record.row.line,
            offset_ns: record.offset_ns(time)?,
            input_tokens: record.tokens(input)?,
            output_tokens: record.tokens(output)?,
            session,
            ..Lengths::default()
        })))
    }
}
