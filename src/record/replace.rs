//! Text in another's place: as many tokens, and the same where its beginning was the same.
//!
//! The tokens of a text are taken in blocks. A block's hash is that of the blocks before it and its own tokens, under
//! a key that only the recorder has; it seeds the words that stand in the block's place. So two prompts with a common
//! beginning keep one, to the block, and a prefix cache sees the reuse that it saw; nothing else of the text is left.
//! Whoever has the key could try texts block by block, which is why the key is on no tape, and why a block is more
//! than one token.

use std::io::Read;
use std::sync::Arc;

use tokentape_tokenizer::{Tokenizer, Word};

use super::Error;

/// Replaces texts with one tokenizer under one key.
#[derive(Debug)]
pub(super) struct Replacer {
    tokenizer: Arc<Tokenizer>,
    key: [u8; 32],
    block: usize,
    /// Indices of the words that can open a text without their space.
    openers: Vec<usize>,
    /// Texts whose replacement has another number of tokens.
    pub(super) inexact: u64,
}

/// How a text has gone so far: the hash of its blocks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chain([u8; 32]);

impl Replacer {
    /// With a seed, the same text becomes the same in every recording; without one, the key is this recording's own.
    pub(super) fn new(tokenizer: Arc<Tokenizer>, seed: Option<u64>, block: usize) -> Result<Self, Error> {
        let words = tokenizer.words();
        if words.is_empty() {
            return Err(Error::NoWords { name: tokenizer.name().to_owned() });
        }
        let openers = (0..words.len()).filter(|&word| words[word].opens).collect();
        let key = match seed {
            Some(seed) => blake3::derive_key("tokentape record redaction 1", &seed.to_le_bytes()),
            None => key_of_the_system().map_err(Error::Runtime)?,
        };
        Ok(Self { tokenizer, key, block: block.max(1), openers, inexact: 0 })
    }

    /// The beginning of a text of one kind.
    pub(super) fn chain(&self, kind: &str) -> Chain {
        Chain(*blake3::keyed_hash(&self.key, kind.as_bytes()).as_bytes())
    }

    /// A text in the place of `text`, which goes on from `chain`.
    pub(super) fn text(&mut self, text: &str, chain: &mut Chain) -> String {
        let Ok(ids) = self.tokenizer.encode(text) else {
            self.inexact += 1;
            return String::new();
        };
        let picks = self.picks(&ids, chain);
        let words = self.tokenizer.words();
        let mut replaced = String::with_capacity(8 * picks.len());
        for (place, pick) in picks.into_iter().enumerate() {
            if place > 0 || self.openers.is_empty() {
                replaced.push_str(&words[index(pick, words.len())].text);
            } else {
                replaced.push_str(words[self.openers[index(pick, self.openers.len())]].text.trim_start());
            }
        }
        self.inexact += u64::from(self.tokenizer.count(&replaced).ok() != Some(ids.len()));
        replaced
    }

    /// Token ids in the place of others.
    pub(super) fn ids(&self, ids: &[u32], chain: &mut Chain) -> Vec<u32> {
        let words: &[Word] = self.tokenizer.words();
        self.picks(ids, chain).into_iter().map(|pick| words[index(pick, words.len())].id).collect()
    }

    /// A name in the place of another: the same for the same, wherever it stands.
    pub(super) fn name(&self, name: &str) -> String {
        let hash = blake3::keyed_hash(&self.key, format!("name {name}").as_bytes());
        format!("n{}", &hash.to_hex()[..12])
    }

    /// A random number for each token.
    fn picks(&self, ids: &[u32], chain: &mut Chain) -> Vec<u64> {
        let mut picks = Vec::with_capacity(ids.len());
        for block in ids.chunks(self.block) {
            let mut hasher = blake3::Hasher::new_keyed(&self.key);
            hasher.update(&chain.0);
            for id in block {
                hasher.update(&id.to_le_bytes());
            }
            let mut output = hasher.finalize_xof();
            output.fill(&mut chain.0);
            for _ in block {
                let mut bytes = [0; 8];
                output.fill(&mut bytes);
                picks.push(u64::from_le_bytes(bytes));
            }
        }
        picks
    }
}

/// An index below `length` from 64 random bits. That some are more likely by one in 2^64 of the rest is no matter.
fn index(pick: u64, length: usize) -> usize {
    let product = u128::from(pick) * length as u128;
    #[expect(clippy::cast_possible_truncation, reason = "below the length")]
    let index = (product >> 64) as usize;
    index
}

fn key_of_the_system() -> std::io::Result<[u8; 32]> {
    let mut key = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replacer(block: usize) -> Replacer {
        Replacer::new(Arc::new(Tokenizer::embedded().unwrap()), Some(7), block).unwrap()
    }

    fn common(a: &[u32], b: &[u32]) -> usize {
        a.iter().zip(b).take_while(|(a, b)| a == b).count()
    }

    #[test]
    fn a_text_becomes_one_of_as_many_tokens() {
        let mut replacer = replacer(16);
        let text = "Naïve café, 東京! Ask: what is 12 + 30?\n\tEnd of it, and then some more of the same.";
        let tokens = replacer.tokenizer.count(text).unwrap();
        let mut chain = replacer.chain("messages");
        let replaced = replacer.text(text, &mut chain);
        assert_eq!(replacer.tokenizer.count(&replaced).unwrap(), tokens);
        assert_eq!(replacer.inexact, 0);
        assert!(!replaced.contains("café") && replaced.is_ascii());
        assert_eq!(replacer.text("", &mut chain), "");
    }

    #[test]
    fn what_began_alike_begins_alike_to_the_block() {
        let mut replacer = replacer(16);
        let words = replacer.tokenizer.words();
        let text_of =
            |from: usize, to: usize| words[from..to].iter().map(|word| word.text.as_str()).collect();
        let a: String = text_of(0, 100);
        let b: String = text_of(0, 40) + &text_of(100, 130);
        let tokenizer = Arc::clone(&replacer.tokenizer);
        let encode = |text: &str| tokenizer.encode(text).unwrap();
        let before = common(&encode(&a), &encode(&b));
        let start = replacer.chain("prompt");
        let (a, b) = (replacer.text(&a, &mut start.clone()), replacer.text(&b, &mut start.clone()));
        let after = common(&encode(&a), &encode(&b));
        assert!(
            before >= 40 && after / 16 == before / 16 && after < before / 16 * 16 + 3,
            "{before} {after}"
        );
        let elsewhere = replacer.text(&a, &mut replacer.chain("input"));
        assert_eq!(common(&encode(&a), &encode(&elsewhere)), 0);
    }

    #[test]
    fn the_key_decides() {
        let tokenizer = Arc::new(Tokenizer::embedded().unwrap());
        let with = |seed| {
            let replacer = Replacer::new(Arc::clone(&tokenizer), seed, 16).unwrap();
            replacer.ids(&[1, 2, 3], &mut replacer.chain("prompt"))
        };
        assert_eq!(with(Some(1)), with(Some(1)));
        assert_ne!(with(Some(1)), with(Some(2)));
        assert_ne!(with(None), with(None));
    }
}
