//! Words: texts that are one token each, and the exact short cut that they allow.
//!
//! A byte-level BPE cuts a text into pieces with a regular expression and encodes each piece by itself. With the
//! expressions of [`LETTER_RUNS`], a piece that holds an ASCII letter always ends where a space follows that letter,
//! and a space before an ASCII letter always begins a piece: none of their alternatives goes on after a run of letters
//! into a space, none looks behind, and the one look-ahead concerns spaces at the end of a run of spaces. So a text may
//! be cut at each `letter|space letter` and its parts encoded one by one, with the same ids as the whole. A part that
//! is known to be one token is then looked up, and only the rest is encoded. For tokenizers of another form there is no
//! such proof, and the whole text is encoded.
//!
//! Chat templates are cut as well. Added tokens are found before anything else, so a text may be cut around each. And a
//! line feed between ASCII letters, or the ends of the text, is a piece of its own: no run of letters goes on into it,
//! and what it could begin goes on with a further space only.

use std::collections::HashMap;
use std::iter;

use foldhash::fast::FixedState;

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
        let added = added(inner);
        let mut known = HashMap::with_capacity_and_hasher(2 * candidates.len(), FixedState::default());
        known.extend(added.iter().cloned());
        if !added.is_empty() {
            known.extend(only(inner, "\n")?.map(|id| ("\n".into(), id)));
        }
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
        return Ok((words, Some(Pieces::new(known, added))));
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

/// The added tokens, the longest first, where a text may be cut around each; none where one is looked for in another
/// way, or reaches over a line feed.
fn added(inner: &tokenizers::Tokenizer) -> Vec<(Box<str>, u32)> {
    let decoder = inner.get_added_tokens_decoder();
    if decoder.values().any(|token| token.normalized || token.single_word || token.content.contains('\n')) {
        return Vec::new();
    }
    let mut added: Vec<(Box<str>, u32)> =
        decoder.into_iter().map(|(id, token)| (token.content.into(), id)).collect();
    added.sort_unstable_by(|(one, _), (other, _)| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
    added
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

/// Texts that are one token when cut out of any text where the module's proof allows it.
#[derive(Debug)]
pub(crate) struct Pieces {
    known: HashMap<Box<str>, u32, FixedState>,
    /// The added tokens, the longest first; none where only spaces are cut at.
    added: Vec<Box<str>>,
    /// Whether an added token begins with the byte.
    opens_added: [bool; 256],
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
    fn new(known: HashMap<Box<str>, u32, FixedState>, added: Vec<(Box<str>, u32)>) -> Self {
        let added: Vec<Box<str>> = added.into_iter().map(|(text, _)| text).collect();
        let mut opens_added = [false; 256];
        for first in added.iter().filter_map(|text| text.bytes().next()) {
            opens_added[usize::from(first)] = true;
        }
        Self { known, added, opens_added }
    }

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
                let length = self.piece_length(&rest[unknown..]);
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

    /// The bytes of `text`, which is the rest after a cut, up to the next cut.
    fn piece_length(&self, text: &str) -> usize {
        let bytes = text.as_bytes();
        let is_letter = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphabetic);
        for (at, &byte) in bytes.iter().enumerate() {
            match byte {
                b' ' if at > 0 && is_letter(at - 1) && is_letter(at + 1) => return at,
                b'\n'
                    if !self.added.is_empty()
                        && (at == 0 || is_letter(at - 1))
                        && (at + 1 == bytes.len()
                            || is_letter(at + 1)
                            || self.added_at(text, at + 1).is_some()) =>
                {
                    return at.max(1);
                }
                _ if self.opens_added[usize::from(byte)] => match self.added_at(text, at) {
                    Some(length) if at == 0 => return length,
                    Some(_) => return at,
                    None => {}
                },
                _ => {}
            }
        }
        bytes.len()
    }

    /// The bytes of the added token that stands there.
    fn added_at(&self, text: &str, at: usize) -> Option<usize> {
        let rest = &text.as_bytes()[at..];
        let opens = rest.first().is_some_and(|&byte| self.opens_added[usize::from(byte)]);
        let mut added = self.added.iter().filter(|_| opens);
        added.find(|added| rest.starts_with(added.as_bytes())).map(|added| added.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_only_where_the_proof_allows_it() {
        let piece_length = |text| pieces(&[], &[]).piece_length(text);
        assert_eq!(piece_length("one two"), 3);
        assert_eq!(piece_length(" one two"), 4);
        assert_eq!(piece_length("one  two"), 8);
        assert_eq!(piece_length("one 2 two"), 9);
        assert_eq!(piece_length("1 two"), 5);
        assert_eq!(piece_length("one "), 4);
        assert_eq!(piece_length("é a b"), 4);
        assert_eq!(piece_length(""), 0);
        assert_eq!(piece_length("a\nb"), 3);
        let piece_length = |text| pieces(&[], &[("<b>", 7), ("<b", 8)]).piece_length(text);
        assert_eq!(piece_length("a\nb"), 1);
        assert_eq!(piece_length("\nb"), 1);
        assert_eq!(piece_length("\n<b"), 1);
        assert_eq!(piece_length("\n"), 1);
        assert_eq!(piece_length("\n\nb"), 3);
        assert_eq!(piece_length("1\nb"), 3);
        assert_eq!(piece_length("<a<b>"), 2);
        assert_eq!(piece_length("<b>>"), 3);
        assert_eq!(piece_length("<bb>"), 2);
    }

    fn pieces(known: &[(&str, u32)], added: &[(&str, u32)]) -> Pieces {
        let owned = |&(text, id): &(&str, u32)| (text.into(), id);
        Pieces::new(known.iter().map(owned).collect(), added.iter().map(owned).collect())
    }

    #[test]
    fn unknown_pieces_stay_together_and_nothing_is_lost() {
        let pieces = pieces(&[("one", 1), (" two", 2)], &[]);
        let cut = |text| pieces.cut(text).collect::<Vec<_>>();
        assert_eq!(cut("one two two"), [Span::Token(1), Span::Token(2), Span::Token(2)]);
        assert_eq!(cut("x y one two z!"), [Span::Text("x y one"), Span::Token(2), Span::Text(" z!")]);
        assert_eq!(cut(""), []);
    }
}
