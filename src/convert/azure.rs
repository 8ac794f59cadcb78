//! The Azure LLM inference traces of 2023 and 2024: CSV `TIMESTAMP,ContextTokens,GeneratedTokens`, the timestamps
//! calendar times with seven decimals, or with a zone (Azure/AzurePublicDataset, `data/AzureLLMInferenceTrace_*.csv`).

use super::csv::Table;
use super::import::{Error, Input};
use super::moment::calendar_ns;
use super::source::{Imported, Lengths, Source};

/// Reads such a trace.
pub(super) struct Trace {
    table: Table,
}

impl Trace {
    pub(super) fn open(input: &Input) -> Result<Self, Error> {
        Ok(Self { table: Table::open(input, &["TIMESTAMP", "ContextTokens", "GeneratedTokens"])? })
    }
}

impl Source for Trace {
    fn next(&mut self) -> Result<Option<Imported>, Error> {
        let [time, input, output] =
            ["TIMESTAMP", "ContextTokens", "GeneratedTokens"].map(|name| self.table.column(name));
        let Some(record) = self.table.next()? else { return Ok(None) };
        let text = record.field(time);
        let offset_ns = calendar_ns(text).ok_or_else(|| {
            record.row.error(format!("TIMESTAMP is {text:?}, not a time as in 2023-11-16 18:17:03.9799600"))
        })?;
        Ok(Some(Imported::Lengths(Lengths {
            line: record.row.line,
            offset_ns,
            input_tokens: record.tokens(input)?,
            output_tokens: record.tokens(output)?,
            ..Lengths::default()
        })))
    }
}
