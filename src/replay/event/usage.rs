//! The server's token counts, under the names of every endpoint.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::lenient;
use crate::timeline::Usage;

/// A `usage` object: chat, completions and embeddings count prompt and completion, the responses API input and output.
#[derive(Default, Deserialize)]
pub(super) struct Counts<'a> {
    #[serde(default)]
    prompt_tokens: Option<u32>,
    #[serde(default)]
    completion_tokens: Option<u32>,
    #[serde(borrow, default)]
    prompt_tokens_details: Option<&'a RawValue>,
    #[serde(borrow, default)]
    completion_tokens_details: Option<&'a RawValue>,
    #[serde(default)]
    input_tokens: Option<u32>,
    #[serde(default)]
    output_tokens: Option<u32>,
    #[serde(borrow, default)]
    input_tokens_details: Option<&'a RawValue>,
    #[serde(borrow, default)]
    output_tokens_details: Option<&'a RawValue>,
}

/// The details of either side.
#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    cached_tokens: Option<u32>,
    #[serde(default)]
    reasoning_tokens: Option<u32>,
}

impl Counts<'_> {
    pub(super) fn usage(&self) -> Usage {
        let details = |value: Option<&RawValue>| value.and_then(lenient::<Details>);
        let input = details(self.prompt_tokens_details.or(self.input_tokens_details));
        let output = details(self.completion_tokens_details.or(self.output_tokens_details));
        Usage {
            prompt_tokens: self.prompt_tokens.or(self.input_tokens).unwrap_or(0),
            completion_tokens: self.completion_tokens.or(self.output_tokens).unwrap_or(0),
            cached_tokens: input.and_then(|details| details.cached_tokens),
            reasoning_tokens: output.and_then(|details| details.reasoning_tokens),
        }
    }
}
