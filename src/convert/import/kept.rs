//! The rows that become requests: the first ones of the file, each checked.

use super::{Error, Format, Input, MAX_TOKENS, Params};
use crate::convert::source::{Imported, Lengths, Source};

/// The requests that are imported, each checked.
pub(super) struct Kept {
    source: Box<dyn Source>,
    name: String,
    left: u64,
    block_tokens: Option<u32>,
    skip_empty: bool,
    /// Rows left out so far.
    pub(super) skipped: u64,
}

impl Kept {
    pub(super) fn open(format: Format, params: &Params, input: &Input) -> Result<Self, Error> {
        Ok(Self {
            source: format.source(input, params)?,
            name: input.name(),
            left: params.requests.unwrap_or(u64::MAX),
            block_tokens: params.block_tokens,
            skip_empty: params.skip_empty,
            skipped: 0,
        })
    }

    /// Whether a row can be a request; none where it is to be left out.
    fn check(&self, row: &Lengths) -> Result<bool, Error> {
        let error = |reason| Error::Line { name: self.name.clone(), line: row.line, reason };
        if row.input_tokens == 0 || row.output_tokens == 0 {
            let what = if row.input_tokens == 0 { "a prompt" } else { "an answer" };
            if self.skip_empty {
                return Ok(false);
            }
            let reason = format!("{what} of no tokens: leave such rows out with --skip-empty");
            return Err(error(reason));
        }
        if let Some(tokens) = [row.input_tokens, row.output_tokens].into_iter().find(|&n| n > MAX_TOKENS) {
            return Err(error(format!(
                "{tokens} tokens are more than any model takes: at most {MAX_TOKENS}"
            )));
        }
        if let Some(size) = self.block_tokens {
            let most = row.input_tokens.div_ceil(size) as usize;
            if row.blocks.len() > most {
                return Err(error(format!(
                    "{} hashes for {} tokens; blocks of {size} tokens make at most {most}: is this another format, or \
                     do its blocks have another size (--block-tokens)?",
                    row.blocks.len(),
                    row.input_tokens
                )));
            }
        }
        Ok(true)
    }
}

impl Iterator for Kept {
    type Item = Result<Imported, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            let imported = match self.source.next().transpose()? {
                Ok(imported) => imported,
                Err(error) => return Some(Err(error)),
            };
            let is_kept = match &imported {
                Imported::Lengths(row) => self.check(row),
                Imported::Nothing { .. } if self.skip_empty => Ok(false),
                Imported::Nothing { line, what } => Err(Error::Line {
                    name: self.name.clone(),
                    line: *line,
                    reason: format!("{what}: leave such rows out with --skip-empty"),
                }),
                Imported::Asked(_) | Imported::Whole(_) => Ok(true),
            };
            match is_kept {
                Ok(true) => {
                    self.left -= 1;
                    return Some(Ok(imported));
                }
                Ok(false) => self.skipped += 1,
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}
