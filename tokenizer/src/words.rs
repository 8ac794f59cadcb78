//! Words: texts that are one token each, and the exact short cut that they allow.
//!
//! A byte-level BPE cuts a text into pieces with a regular expression and encodes each piece by itself. With the
//! expressions of [`LETTER_RUNS`], a piece that holds an ASCII letter always ends where a space follows that letter,
//! and a space before an ASCII letter always begins a piece: none of their alternatives goes on after a run of letters
//! into a space, none looks behind, and the one look-ahead concerns spaces at the end of a run of spaces. So a text may
//! be cut at each `letter|space letter` and its parts encoded one by one, with the same ids as the whole. A part that
//! is known to be one token is then looked up, and only the rest is encoded. For tokenizers of another form there is no
//! such proof, and the whole text is encoded.

use std::collections::HashMap;
use std::iter;

use tokenizers::SplitDelimiterBehavior;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::split::SplitPattern;

use crate::{Error, plain};

/// A text that is one token, whatever words stand before and after it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Word {
    /// The token.
    pub id: u32,
    /// A space and ASCII letters.
    pub text: String,
    /// Whether the letters alone are one token as well, so that the word can open a text without its space.
    pub opens: bool,
}

/// The pre-tokenizing expressions of which the module's proof holds.
pub(crate) const LETTER_RUNS: [&str; 4] = [
    // Qwen 2 to 3.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // GPT-4, Llama 3.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // GPT-4o, gpt-oss, Llama 4.
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // GPT-2, written out.
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
];

/// The tokenizer's words in order of their ids, and its known pieces where the module's proof holds.
pub(crate) fn find(inner: &tokenizers::Tokenizer) -> Result<(Vec<Word>, Option<Pieces>), Error> {
    let candidates = candidates(inner);
    if cuts_between_words(inner) {
        let mut known = HashMap::with_capacity(2 * candidates.len());
        let mut words = Vec::with_capacity(candidates.len());
        for (id, letters) in candidates {
            let text = format!(" {letters}");
            if only(inner, &text)? != Some(id) {
                continue;
            }
            let bare = only(inner, &letters)?;
            known.extend(bare.map(|bare| (letters.into(), bare)));
            known.insert(text.as_str().into(), id);
            words.push(Word { id, text, opens: bare.is_some() });
        }
        return Ok((words, Some(Pieces { known })));
    }

    let mut words = Vec::new();
    for (id, letters) in candidates {
        let text = format!(" {letters}");
        let alone = plain(inner, &letters)?.get_ids().to_vec();
        let thrice = plain(inner, &format!("{letters}{text}{text}"))?;
        if thrice.get_ids().strip_prefix(&*alone) == Some(&[id, id]) {
            words.push(Word { id, text, opens: alone.len() == 1 });
        }
    }
    Ok((words, None))
}

/// The tokens that may be words, by their letters: those after the mark of a space (`Ġ` in byte-level vocabularies,
/// `▁` in `SentencePiece`'s), or all where the vocabulary knows no such mark (`WordPiece`).
fn candidates(inner: &tokenizers::Tokenizer) -> Vec<(u32, String)> {
    const SPACE: [char; 2] = ['Ġ', '▁'];
    let vocabulary = inner.get_vocab(false);
    let marked = vocabulary.keys().any(|token| token.starts_with(SPACE));
    let mut candidates: Vec<(u32, String)> = vocabulary
        .into_iter()
        .filter_map(|(token, id)| {
            let letters = if marked { token.strip_prefix(SPACE)? } else { &token };
            (!letters.is_empty() && letters.bytes().all(|byte| byte.is_ascii_alphabetic()))
                .then(|| (id, letters.to_owned()))
        })
        .collect();
    candidates.sort_unstable();
    candidates
}

/// The one id of `text`, if it has just one.
fn only(inner: &tokenizers::Tokenizer, text: &str) -> Result<Option<u32>, Error> {
    match plain(inner, text)?.get_ids() {
        [id] => Ok(Some(*id)),
        _ => Ok(None),
    }
}

/// Whether the module's proof holds for the tokenizer.
fn cuts_between_words(inner: &tokenizers::Tokenizer) -> bool {
    // Composition joins no letter with a space.
    let normalizer = matches!(inner.get_normalizer(), None | Some(NormalizerWrapper::NFC(_)));
    // Added tokens are found in the text before it is cut; none may reach over a space.
    let added = inner
        .get_added_tokens_decoder()
        .values()
        .all(|token| !token.content.contains(' ') && !token.lstrip && !token.rstrip);
    normalizer && added && inner.get_pre_tokenizer().is_some_and(cuts_at_letter_runs)
}

fn cuts_at_letter_runs(pre_tokenizer: &PreTokenizerWrapper) -> bool {
    let steps = match pre_tokenizer {
        PreTokenizerWrapper::Sequence(steps) => steps.as_ref(),
        step => std::slice::from_ref(step),
    };
    let mut cuts = false;
    for step in steps {
        match step {
            PreTokenizerWrapper::Split(split) => {
                // Two ways to say the same: keep each match, or drop all that is none.
                let whole = (&split.behavior, split.invert);
                let keeps_matches = whole == (&SplitDelimiterBehavior::Isolated, false)
                    || whole == (&SplitDelimiterBehavior::Removed, true);
                match &split.pattern {
                    SplitPattern::Regex(pattern)
                        if LETTER_RUNS.contains(&pattern.as_str()) && keeps_matches =>
                    {
                        cuts = true;
                    }
                    // Another expression may look over a word's bounds.
                    _ => return false,
                }
            }
            PreTokenizerWrapper::ByteLevel(bytes) if !bytes.add_prefix_space => cuts |= bytes.use_regex,
            PreTokenizerWrapper::Digits(_) => {}
            _ => return false,
        }
    }
    cuts
}

/// Texts that are one token when cut out of any text at a `letter|space letter`.
#[derive(Debug)]
pub(crate) struct Pieces {
    known: HashMap<Box<str>, u32>,
}

/// A part of a text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Span<'a> {
    /// A known piece: its token.
    Token(u32),
    /// Anything else, as long as it goes.
    Text(&'a str),
}

impl Pieces {
    /// Cuts `text` between words; neighbours that are not known stay together.
    pub(crate) fn cut<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Span<'a>> {
        let mut rest = text;
        let mut token = None;
        iter::from_fn(move || {
            if let Some(id) = token.take() {
                return Some(Span::Token(id));
            }
            let mut unknown = 0;
            while unknown < rest.len() {
                let length = piece_length(&rest[unknown..]);
                match self.known.get(&rest[unknown..unknown + length]) {
                    Some(&id) if unknown == 0 => {
                        rest = &rest[length..];
                        return Some(Span::Token(id));
                    }
                    Some(&id) => {
                        let (before, after) = rest.split_at(unknown);
                        rest = &after[length..];
                        token = Some(id);
                        return Some(Span::Text(before));
                    }
                    None => unknown += length,
                }
            }
            let last = std::mem::take(&mut rest);
            (!last.is_empty()).then_some(Span::Text(last))
        })
    }
}

/// The bytes of `text` up to the first `letter|space letter`, or all of them.
fn piece_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b' ', bytes)
        .find(|&at| {
            at > 0
                && bytes[at - 1].is_ascii_alphabetic()
                && bytes.get(at + 1).is_some_and(u8::is_ascii_alphabetic)
        })
        .unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_only_where_a_letter_and_a_space_before_a_letter_meet() {
        assert_eq!(piece_length("one two"), 3);
        assert_eq!(piece_length(" one two"), 4);
        assert_eq!(piece_length("one  two"), 8);
        assert_eq!(piece_length("one 2 two"), 9);
        assert_eq!(piece_length("1 two"), 5);
        assert_eq!(piece_length("one "), 4);
        assert_eq!(piece_length("é a b"), 4);
        assert_eq!(piece_length(""), 0);
    }

    #[test]
    fn unknown_pieces_stay_together_and_nothing_is_lost() {
        let known = [("one", 1), (" two", 2)].map(|(text, id)| (text.into(), id)).into();
        let pieces = Pieces { known };
        let cut = |text| pieces.cut(text).collect::<Vec<_>>();
        assert_eq!(cut("one two two"), [Span::Token(1), Span::Token(2), Span::Token(2)]);
        assert_eq!(cut("x y one two z!"), [Span::Text("x y one"), Span::Token(2), Span::Text(" z!")]);
        assert_eq!(cut(""), []);
    }
}
