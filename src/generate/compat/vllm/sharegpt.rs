//! `sharegpt`: the first message of each conversation, sent as it is.

use serde::Deserialize;
use serde_json::Value;
use tokentape_tokenizer::Tokenizer;

use super::{Params, Prompt, Sample, oversample};
use crate::generate::Error;
use crate::generate::compat::Data;
use crate::generate::compat::mt19937::PythonRandom;

/// Shortest prompt and, where the file tells it, shortest answer.
const MIN_LEN: usize = 4;
/// Longest prompt.
const MAX_PROMPT_LEN: usize = 1024;
/// Longest prompt and answer together.
const MAX_TOTAL_LEN: usize = 2048;

/// A conversation; entries without two messages are left out.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    conversations: Vec<Value>,
    #[serde(default)]
    image: Value,
    #[serde(default)]
    video: Value,
}

/// The requests' prompts (`ShareGPTDataset.sample`, `is_valid_sequence`).
pub(super) fn sample(
    params: &Params,
    output_len: Option<u32>,
    tokenizer: &Tokenizer,
    data: Data<'_>,
) -> Result<Vec<Sample>, Error> {
    let entries: Vec<Entry> = serde_json::from_slice(data.bytes).map_err(|error| {
        data.error(None, format!("not a JSON list of objects with \"conversations\": {error}"))
    })?;
    let mut entries: Vec<(usize, Entry)> =
        (1..).zip(entries).filter(|(_, entry)| entry.conversations.len() >= 2).collect();
    if !params.disable_shuffle {
        PythonRandom::new(params.shuffle_seed()).shuffle(&mut entries);
    }
    let n = params.num_prompts as usize;
    let mut samples = Vec::new();
    for (record, entry) in entries {
        if samples.len() >= n {
            break;
        }
        let message = |turn: usize| {
            let missing =
                || data.error(Some(record), format!("message {} has no text as its \"value\"", turn + 1));
            entry.conversations[turn]["value"].as_str().ok_or_else(missing)
        };
        let (prompt, answer) = (message(0)?, message(1)?);
        let count = |text| Ok::<_, Error>(tokenizer.count(text)? + tokenizer.special_tokens_to_add());
        let prompt_len = count(prompt)?;
        let answer_len = output_len.map_or_else(|| count(answer), |tokens| Ok(tokens as usize))?;
        let too_short = prompt_len < MIN_LEN || (output_len.is_none() && answer_len < MIN_LEN);
        let too_long = prompt_len > MAX_PROMPT_LEN || prompt_len + answer_len > MAX_TOTAL_LEN;
        if too_short || too_long {
            continue;
        }
        if is_truthy(&entry.image) || is_truthy(&entry.video) {
            return Err(
                data.error(Some(record), "has an image or a video: only conversations of text can be sent")
            );
        }
        let output_len = u32::try_from(answer_len).unwrap_or(u32::MAX);
        samples.push(Sample { prompt: Prompt::Text(prompt.to_owned()), prompt_len, output_len });
    }
    if samples.is_empty() {
        return Err(data.error(
            None,
            format!(
                "no conversation of two messages with a prompt of {MIN_LEN} to {MAX_PROMPT_LEN} tokens in it"
            ),
        ));
    }
    oversample(params, &mut samples, n);
    Ok(samples)
}

/// What Python takes for true, of the values that such a key has.
fn is_truthy(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false)) && value.as_str() != Some("")
}
