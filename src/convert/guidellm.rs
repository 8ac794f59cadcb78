//! `GuideLLM`'s traces: `timestamp` in seconds, `input_length` and `output_length`, as JSON lines, as one JSON array, or
//! as CSV. The file's first character tells which.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::csv::Table;
use super::import::{Error, Input};
use super::moment::Decimal;
use super::rows::Rows;
use super::source::{Imported, Lengths, Source};

const COLUMNS: [&str; 3] = ["timestamp", "input_length", "output_length"];

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    timestamp: &'a RawValue,
    input_length: u32,
    output_length: u32,
}

/// Reads a trace in either form.
pub(super) fn open(input: &Input) -> Result<Box<dyn Source>, Error> {
    let mut rows = Rows::json(input)?;
    Ok(if rows.begins_as_json()? {
        Box::new(JsonTrace { rows })
    } else {
        Box::new(CsvTrace { table: Table::open(input, &COLUMNS)? })
    })
}

struct JsonTrace {
    rows: Rows,
}

impl Source for JsonTrace {
    fn next(&mut self) -> Result<Option<Imported>, Error> {
        let Some(row) = self.rows.next()? else { return Ok(None) };
        let line: Line<'_> = row.json(r#"{"timestamp": …, "input_length": …, "output_length": …}"#)?;
        Ok(Some(Imported::Lengths(Lengths {
            line: row.line,
            offset_ns: row.offset_ns(line.timestamp.get(), Decimal::ONE)?,
            input_tokens: line.input_length,
            output_tokens: line.output_length,
            ..Lengths::default()
        })))
    }
}

struct CsvTrace {
    table: Table,
}

impl Source for CsvTrace {
    fn next(&mut self) -> Result<Option<Imported>, Error> {
        let [time, input, output] = COLUMNS.map(|name| self.table.column(name));
        let Some(record) = self.table.next()? else { return Ok(None) };
        Ok(Some(Imported::Lengths(Lengths {
            line: record.row.line,
            offset_ns: record.offset_ns(time)?,
            input_tokens: record.tokens(input)?,
            output_tokens: record.tokens(output)?,
            ..Lengths::default()
        })))
    }
}
