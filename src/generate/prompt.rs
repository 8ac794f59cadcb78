//! Prompts of an exact number of tokens.
//!
//! A prompt is drawn from texts that are one token each ([`Tokenizer::words`]), and then encoded as a whole to see
//! that it is as long as was asked for. Where it is not, its end is drawn again, a bounded number of times; a prompt
//! that still has another length keeps it, and is reported as inexact with its true number of tokens.

use std::borrow::Cow;

use serde_json::json;
use tokentape_tokenizer::Tokenizer;

use super::Error;
use super::stream::Stream;

/// With fewer words than this, prompts would repeat themselves: other tokens are taken in.
const ENOUGH_WORDS: usize = 256;
/// How often a prompt's end is drawn again before its length is taken as it is.
const REPAIRS: u32 = 32;

/// Makes prompts with one tokenizer.
#[derive(Debug)]
pub(crate) struct Prompts<'a> {
    tokenizer: &'a Tokenizer,
    units: Vec<Cow<'a, str>>,
    /// The units that stay one token without their space, so that they can open a prompt.
    openers: Vec<Cow<'a, str>>,
    /// Tokens of the chat template around the prompt, where they are counted.
    template_tokens: Option<usize>,
}

/// A prompt and its true number of tokens.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Prompt {
    pub(crate) text: String,
    pub(crate) tokens: usize,
}

impl<'a> Prompts<'a> {
    /// With `count_template`, a prompt's tokens are those of the whole rendered chat.
    pub(crate) fn new(tokenizer: &'a Tokenizer, count_template: bool) -> Result<Self, Error> {
        let words = tokenizer.words();
        let openers = words
            .iter()
            .filter(|word| word.opens)
            .map(|word| Cow::Borrowed(word.text.trim_start()))
            .collect();
        let units = if words.len() >= ENOUGH_WORDS {
            words.iter().map(|word| Cow::Borrowed(word.text.as_str())).collect()
        } else {
            tokens_of_one_text(tokenizer)?
        };
        if units.is_empty() {
            return Err(Error::NoText { name: tokenizer.name().to_owned() });
        }
        let mut prompts = Self { tokenizer, units, openers, template_tokens: None };
        if count_template {
            let probe = prompts.openers.first().unwrap_or(&prompts.units[0]);
            let tokens = prompts.count_chat(probe)?.saturating_sub(1);
            prompts.template_tokens = Some(tokens);
        }
        Ok(prompts)
    }

    /// The tokens that a prompt has besides its text: of the chat template where they are counted, else none.
    pub(super) fn overhead(&self) -> usize {
        self.template_tokens.unwrap_or(0)
    }

    /// A prompt of `tokens` tokens. Those at its beginning, as many as `prefix` says, are drawn from the prefix's own
    /// stream, the others from `rest`.
    pub(crate) fn make(
        &self,
        tokens: usize,
        prefix: Option<(Stream, usize)>,
        mut rest: Stream,
    ) -> Result<Prompt, Error> {
        let wanted = tokens.saturating_sub(self.overhead()).max(1);
        // Words of common vocabularies take about seven bytes.
        let mut text = String::with_capacity(8 * wanted);
        let mut drawn = 0;
        if let Some((mut prefix, length)) = prefix {
            (0..length).for_each(|_| self.draw(&mut text, &mut prefix));
            drawn = length;
        }
        let mut end = Vec::with_capacity(wanted.saturating_sub(drawn));
        self.lengthen(&mut text, &mut end, &mut rest, wanted.saturating_sub(drawn));
        self.repair(text, end, tokens, rest)
    }

    /// A prompt of `tokens` tokens made of blocks of `size` tokens each, the last one cut: equal streams are equal
    /// blocks, and where the tokenizer's words are exact, a block's tokens stand at the block's own place in the prompt,
    /// so that a server's prefix cache sees them. Tokens beyond the last block are drawn from `rest`.
    pub(crate) fn make_of_blocks(
        &self,
        tokens: usize,
        size: usize,
        blocks: impl Iterator<Item = Stream>,
        mut rest: Stream,
    ) -> Result<Prompt, Error> {
        let wanted = tokens.saturating_sub(self.overhead()).max(1);
        let mut text = String::with_capacity(8 * wanted);
        let mut end = Vec::new();
        let mut missing = wanted;
        for mut block in blocks {
            let units = missing.min(size);
            if units == 0 {
                break;
            }
            // Only what is not a whole block may be cut to repair the length.
            let is_cut = units < size;
            if is_cut {
                end.push(text.len());
            }
            self.draw_first(&mut text, &mut block);
            if is_cut {
                self.lengthen(&mut text, &mut end, &mut block, units - 1);
            } else {
                (1..units).for_each(|_| self.draw(&mut text, &mut block));
            }
            missing -= units;
        }
        self.lengthen(&mut text, &mut end, &mut rest, missing);
        self.repair(text, end, tokens, rest)
    }

    /// Adds units to the end, of which `end` keeps where each begins.
    fn lengthen(&self, text: &mut String, end: &mut Vec<usize>, stream: &mut Stream, units: usize) {
        for _ in 0..units {
            end.push(text.len());
            self.draw(text, stream);
        }
    }

    /// Draws the end again until the text has `tokens` tokens, a bounded number of times.
    fn repair(
        &self,
        mut text: String,
        mut end: Vec<usize>,
        tokens: usize,
        mut rest: Stream,
    ) -> Result<Prompt, Error> {
        let mut count = self.count(&text)?;
        for round in 0..REPAIRS {
            if count == tokens {
                break;
            }
            // A unit may count for more than one token (a template may repeat the prompt): smaller and smaller steps
            // keep from going to and fro.
            let step = (tokens.abs_diff(count) >> (round / 4)).max(1);
            if count < tokens {
                self.lengthen(&mut text, &mut end, &mut rest, step);
            } else {
                let kept = end.len().saturating_sub(step).max(1);
                if let Some(&start) = end.get(kept) {
                    text.truncate(start);
                    end.truncate(kept);
                }
            }
            count = self.count(&text)?;
        }
        Ok(Prompt { text, tokens: count })
    }

    /// The first unit of a block: one that is one token both within a text and, without its space, at its beginning.
    fn draw_first(&self, text: &mut String, stream: &mut Stream) {
        let Some(opener) = pick(&self.openers, stream) else {
            return self.draw(text, stream);
        };
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(opener);
    }

    fn draw(&self, text: &mut String, stream: &mut Stream) {
        let units = if text.is_empty() && !self.openers.is_empty() { &self.openers } else { &self.units };
        text.push_str(pick(units, stream).unwrap_or_default());
    }

    /// The prompt's true number of tokens, from its text alone.
    fn count(&self, text: &str) -> Result<usize, Error> {
        if self.template_tokens.is_some() { self.count_chat(text) } else { Ok(self.tokenizer.count(text)?) }
    }

    fn count_chat(&self, text: &str) -> Result<usize, Error> {
        Ok(self.tokenizer.count_chat(&json!([{"role": "user", "content": text}]))?)
    }
}

/// One of the units, each with the same probability; none where there are none.
fn pick<'u>(units: &'u [Cow<'_, str>], stream: &mut Stream) -> Option<&'u str> {
    #[expect(clippy::cast_possible_truncation, reason = "below the number of units")]
    let place = stream.below(units.len() as u64) as usize;
    units.get(place).map(AsRef::as_ref)
}

/// The texts of the tokens that stand for a whole text by themselves; next to each other they may still merge.
fn tokens_of_one_text(tokenizer: &Tokenizer) -> Result<Vec<Cow<'_, str>>, Error> {
    let mut texts = Vec::new();
    for id in (0..).take(tokenizer.vocab_size()).filter(|&id| tokenizer.is_ordinary(id)) {
        let text = tokenizer.decode(&[id])?;
        if !text.contains(char::REPLACEMENT_CHARACTER) && tokenizer.encode(&text)? == [id] {
            texts.push(Cow::Owned(text));
        }
    }
    Ok(texts)
}
