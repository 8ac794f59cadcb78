//! Prompts of an exact number of tokens: the loop that 0.11.1 brought.

use tokentape_tokenizer::Tokenizer;

use crate::generate::Error;

/// How often a text is put right before it is taken as it is.
const MAX_RETRY: u32 = 10;

/// Decodes `ids` and encodes the text again until that gives `target` ids: those missing are drawn from the whole
/// vocabulary by `draw`, those too many are cut off. Gives the text and its ids, which after ten tries may still be
/// another number (`gen_prompt_decode_to_target_len` in `vllm/benchmarks/datasets/datasets.py`).
pub(super) fn decode_to_length(
    tokenizer: &Tokenizer,
    mut ids: Vec<u32>,
    target: usize,
    draw: &mut dyn FnMut(usize) -> Vec<u32>,
) -> Result<(String, Vec<u32>), Error> {
    let mut tries = MAX_RETRY;
    loop {
        let text = tokenizer.decode(&ids)?;
        ids = tokenizer.encode(&text)?;
        if tries == 0 || ids.len() == target {
            return Ok((text, ids));
        }
        if ids.len() < target {
            ids.extend(draw(target - ids.len()));
        } else {
            ids.truncate(target);
        }
        tries -= 1;
    }
}
