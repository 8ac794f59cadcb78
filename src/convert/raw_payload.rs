//! Whole bodies, one a line, each sent as it stands: `AIPerf`'s `raw_payload`. The endpoint is told by the body's keys.

use super::asked::{Told, told};
use super::import::{Error, Input};
use super::rows::Rows;
use super::source::{Imported, Source, Whole};

/// Reads such a file.
pub(super) struct Reader {
    rows: Rows,
}

impl Reader {
    pub(super) fn open(input: &Input) -> Result<Self, Error> {
        Ok(Self { rows: Rows::lines(input)? })
    }
}

impl Source for Reader {
    fn next(&mut self) -> Result<Option<Imported>, Error> {
        let Some(row) = self.rows.next()? else { return Ok(None) };
        posted(row.text()?, 0).map(Some).map_err(|reason| row.error(reason))
    }
}

/// A body that is posted to the endpoint of its keys.
pub(super) fn posted(body: &str, offset_ns: u64) -> Result<Imported, String> {
    let Told { path, output_tokens } = told(body)?;
    Ok(Imported::Whole(Whole {
        offset_ns,
        method: "POST".to_owned(),
        path: path.to_owned(),
        body: body.as_bytes().to_vec(),
        input_tokens: None,
        output_tokens,
        session: None,
    }))
}
