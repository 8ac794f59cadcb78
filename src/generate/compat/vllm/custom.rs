//! `custom`: prompts from a JSONL file, rendered by the tokenizer's chat template before they are sent.
//!
//! The original reads the file with pandas, which takes a column of nothing but numerals for numbers; here a prompt is
//! a string or an error.

use serde::Deserialize;
use serde_json::json;
use tokentape_tokenizer::Tokenizer;

use super::{Params, Prompt, Sample, oversample, wrong};
use crate::generate::Error;
use crate::generate::compat::Data;
use crate::generate::compat::mt19937::PythonRandom;
use crate::metrics::vllm::Version;

/// A line of the file; other keys mean nothing.
#[derive(Deserialize)]
struct Row {
    prompt: String,
    output_tokens: Option<u32>,
}

/// The requests' prompts (`CustomDataset.sample`).
pub(super) fn sample(
    params: &Params,
    output_len: Option<u32>,
    skip_chat_template: bool,
    tokenizer: &Tokenizer,
    data: Data<'_>,
) -> Result<Vec<Sample>, Error> {
    if output_len.is_none() && params.version == Version::V0_11_0 {
        return wrong("--output-tokens", "has to be given: vllm 0.11.0 does not read the rows' own");
    }
    let mut rows = rows(data)?;
    if !params.disable_shuffle {
        PythonRandom::new(params.shuffle_seed()).shuffle(&mut rows);
    }
    let n = if params.num_prompts == 0 { rows.len() } else { params.num_prompts as usize };
    let mut samples = rows
        .into_iter()
        .take(n)
        .map(|(line, row)| {
            let output_len = output_len.or(row.output_tokens).ok_or_else(|| {
                data.error(Some(line), "no \"output_tokens\": add it, or give --output-tokens for all")
            })?;
            let text = if skip_chat_template {
                row.prompt
            } else {
                tokenizer.render_chat(&json!([{"role": "user", "content": row.prompt}]), true)?
            };
            let prompt_len = tokenizer.count(&text)? + tokenizer.special_tokens_to_add();
            Ok(Sample { prompt: Prompt::Text(text), prompt_len, output_len })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    oversample(params, &mut samples, n);
    Ok(samples)
}

/// The rows with the numbers of their lines.
fn rows(data: Data<'_>) -> Result<Vec<(usize, Row)>, Error> {
    let rows = data
        .lines()
        .map(|(line, text)| match serde_json::from_slice(text) {
            Ok(row) => Ok((line, row)),
            Err(error) => Err(data.error(
                Some(line),
                format!("not an object with a \"prompt\" and perhaps \"output_tokens\": {error}"),
            )),
        })
        .collect::<Result<Vec<_>, Error>>()?;
    if rows.is_empty() {
        return Err(data.error(None, "no prompts in it"));
    }
    Ok(rows)
}
