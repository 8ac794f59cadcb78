//! Counts tokens, decodes them and renders chat templates, for tokentape and its mock server.
//!
//! A [`Tokenizer`] is what stands in a model's `tokenizer.json`, together with the chat template beside it. It comes
//! from a folder, a file, the hub, or out of this crate ([`Tokenizer::embedded`]), and counts as `vLLM` counts: a
//! completion's prompt as its text, a chat's prompt as the rendered template, both without tokens that a
//! post-processor would add.
//!
//! Encoding is exact and always equal to the `tokenizers` crate's; where the tokenizer's form allows a proof that text
//! may be cut between words, known words are looked up instead (`words.rs` has the proof).

mod error;
mod hub;
mod source;
mod template;
mod words;

use serde_json::Value;
use tokenizers::PostProcessor;

pub use error::Error;
pub use words::Word;

use source::Source;
use template::ChatTemplate;
use words::{Pieces, Span};

/// The name under which [`Tokenizer::load`] finds the tokenizer that this crate carries.
pub const EMBEDDED: &str = "embedded";

/// A tokenizer with its chat template.
#[derive(Debug)]
pub struct Tokenizer {
    name: String,
    digest: String,
    inner: tokenizers::Tokenizer,
    template: Option<ChatTemplate>,
    special_ids: Vec<u32>,
    words: Vec<Word>,
    /// Texts known to be one token when cut out at a word's bounds; empty where no such cut is proved exact.
    pieces: Option<Pieces>,
}

impl Tokenizer {
    /// The tokenizer that this crate carries: a byte-level BPE of 8,192 tokens with a `ChatML` template. No model uses
    /// it; it makes everything work without a network.
    pub fn embedded() -> Result<Self, Error> {
        Self::from_source(Source::embedded())
    }

    /// The tokenizer called `name`: [`EMBEDDED`], a folder that holds a `tokenizer.json`, such a file, or a hub name
    /// (`org/model`), which is downloaded once and kept in the user's cache folder.
    ///
    /// `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` mean what they mean to the hub's own client.
    pub fn load(name: &str) -> Result<Self, Error> {
        Self::from_source(Source::find(name)?)
    }

    fn from_source(source: Source) -> Result<Self, Error> {
        let Source { name, json, template, special_tokens } = source;
        let digest = blake3::hash(&json).to_hex().to_string();
        let mut inner = tokenizers::Tokenizer::from_bytes(&json)
            .map_err(|reason| Error::Parse { name: name.clone(), reason: reason.to_string() })?;
        // Both are habits of a training script that some files carry along; a count must see the whole text alone.
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|reason| Error::Parse { name: name.clone(), reason: reason.to_string() })?;
        drop(json);
        let template = template.map(ChatTemplate::new);
        let mut special_ids: Vec<u32> =
            special_tokens.iter().filter_map(|token| inner.token_to_id(token)).collect();
        special_ids.sort_unstable();
        special_ids.dedup();
        let (words, pieces) = words::find(&inner)?;
        Ok(Self { name, digest, inner, template, special_ids, words, pieces })
    }

    /// The name it goes by. For a local folder or file its last component, never the path: it stands in tapes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// BLAKE3 of the bytes of `tokenizer.json`, in hex.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Number of tokens, special ones included. Ids may have gaps above it.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Number of tokens without the added ones: what `transformers` calls `vocab_size`.
    #[must_use]
    pub fn base_vocab_size(&self) -> usize {
        self.inner.get_vocab_size(false)
    }

    /// The ids of the special tokens that `tokenizer_config.json` names, in order: what `transformers` calls
    /// `all_special_ids`. A `tokenizer.json` alone names none.
    #[must_use]
    pub fn special_ids(&self) -> &[u32] {
        &self.special_ids
    }

    /// Every id of the vocabulary, added tokens included, in order.
    #[must_use]
    pub fn ids(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = self.inner.get_vocab(true).into_values().collect();
        ids.sort_unstable();
        ids
    }

    /// A token as it stands in the vocabulary, not the text that it decodes to (`convert_ids_to_tokens`).
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// How many tokens a post-processor adds to a text: 1 where it puts a BOS before it
    /// (`num_special_tokens_to_add` in `transformers`).
    #[must_use]
    pub fn special_tokens_to_add(&self) -> usize {
        self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(false))
    }

    /// The ids of `text`, without any that a post-processor would add (no BOS). A special token's own text
    /// (`<|im_end|>`) becomes that token, as it does in a server.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let Some(pieces) = &self.pieces else {
            return self.encode_plain(text);
        };
        let mut ids = Vec::with_capacity(text.len() / 4);
        for span in pieces.cut(text) {
            match span {
                Span::Token(id) => ids.push(id),
                Span::Text(text) => ids.extend(plain(&self.inner, text)?.get_ids()),
            }
        }
        Ok(ids)
    }

    /// The number of ids that [`encode`](Self::encode) gives.
    pub fn count(&self, text: &str) -> Result<usize, Error> {
        let Some(pieces) = &self.pieces else {
            return Ok(plain(&self.inner, text)?.len());
        };
        let mut count = 0;
        for span in pieces.cut(text) {
            count += match span {
                Span::Token(_) => 1,
                Span::Text(text) => plain(&self.inner, text)?.len(),
            };
        }
        Ok(count)
    }

    /// The ids of `text` as the `tokenizers` crate alone gives them: the oracle for [`encode`](Self::encode).
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(plain(&self.inner, text)?.get_ids().to_vec())
    }

    /// The text of `ids`, special tokens included. Bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        self.inner.decode(ids, false).map_err(|reason| Error::Decode { reason: reason.to_string() })
    }

    /// Whether `id` is a token that ordinary text can be made of: in the vocabulary, and not an added one.
    #[must_use]
    pub fn is_ordinary(&self, id: u32) -> bool {
        !self.inner.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id)
            && self.inner.id_to_token(id).is_some()
    }

    /// Whether [`render_chat`](Self::render_chat) has a template to render.
    #[must_use]
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    /// The prompt that a server makes of `messages` (an array of `{role, content, …}`): the tokenizer's own template,
    /// rendered as `transformers` 4.57 does (`utils/chat_template_utils.py`). Content given as parts is joined to one
    /// string first, as `vLLM` 0.11 does for templates that expect a string (`entrypoints/chat_utils.py`).
    pub fn render_chat(&self, messages: &Value, add_generation_prompt: bool) -> Result<String, Error> {
        let template = self.template.as_ref().ok_or_else(|| Error::NoTemplate { name: self.name.clone() })?;
        template
            .render(messages, add_generation_prompt)
            .map_err(|reason| Error::Template { name: self.name.clone(), reason })
    }

    /// The tokens of the prompt that a server makes of `messages`, with the generation prompt: what `vLLM` reports as
    /// `usage.prompt_tokens`.
    pub fn count_chat(&self, messages: &Value) -> Result<usize, Error> {
        self.count(&self.render_chat(messages, true)?)
    }

    /// The texts that are one token each, whatever words stand around them, in order of their ids.
    #[must_use]
    pub fn words(&self) -> &[Word] {
        &self.words
    }
}

/// The `tokenizers` crate's own encoding, without offsets and without a post-processor's tokens.
fn plain(inner: &tokenizers::Tokenizer, text: &str) -> Result<tokenizers::Encoding, Error> {
    inner.encode_fast(text, false).map_err(|reason| Error::Encode { reason: reason.to_string() })
}

#[cfg(test)]
mod tests;
