//! The server's own answers: as many words as were asked for, drawn with a seed, each exactly one token of the tokenizer
//! in use. They are the same for a request whatever else the server is doing.

use std::borrow::Cow;

use tokentape_tokenizer::Word;

use crate::answers::{Logprob, Token};
use crate::chunks::{Chunk, Gathering, Tokens};
use crate::request::Request;
use crate::timing::{Purpose, RequestKey, Stream};

/// The chunks of an answer to `request` of `words`, its choices token by token in turn. `key` gives each choice its
/// random numbers.
pub(crate) fn chunks<'a>(
    words: &'a [Word],
    seed: u64,
    request: &Request,
    key: impl Fn(usize) -> RequestKey,
) -> Vec<Chunk<'a>> {
    let limits: Vec<usize> =
        request.max_tokens.iter().flat_map(|&limit| std::iter::repeat_n(limit as usize, request.n)).collect();
    let longest = limits.iter().copied().max().unwrap_or(0);
    let mut choices: Vec<(usize, Stream)> = limits
        .iter()
        .enumerate()
        .map(|(choice, &limit)| (limit, Stream::new(seed, Purpose::Text, &key(choice))))
        .collect();
    let mut gathering = Gathering::new(limits, &request.rules);
    for step in 0..longest {
        for (choice, (limit, random)) in choices.iter_mut().enumerate() {
            if step < *limit
                && let Some(token) = token(words, random, request.logprobs)
            {
                gathering.take(choice, Tokens::One(token));
            }
        }
    }
    gathering.chunks
}

/// The texts of an answer of one choice, where they are all that is told.
pub(crate) fn texts<'a>(words: &'a [Word], seed: u64, key: &RequestKey, tokens: u32) -> Vec<&'a str> {
    let mut random = Stream::new(seed, Purpose::Text, key);
    (0..tokens).filter_map(|_| drawn(words, &mut random)).map(|(_, word)| word.text.as_str()).collect()
}

/// A word drawn at random, and its place.
fn drawn<'a>(words: &'a [Word], random: &mut Stream) -> Option<(usize, &'a Word)> {
    let place = usize::try_from(random.below(words.len() as u64)).ok()?;
    words.get(place).map(|word| (place, word))
}

/// A token drawn at random. All are equally likely, and so say the log-probabilities.
fn token<'a>(words: &'a [Word], random: &mut Stream, alternatives: Option<usize>) -> Option<Token<'a>> {
    let (place, word) = drawn(words, random)?;
    let text = |word: &'a Word| Cow::Borrowed(word.text.as_str());
    let logprob = alternatives.map(|alternatives| {
        let logprob = -(words.len() as f64).ln();
        let nearest = words.iter().cycle().skip(place).take(alternatives.min(words.len()));
        Logprob { token: text(word), logprob, top: nearest.map(|word| (text(word), logprob)).collect() }
    });
    Some(Token { text: text(word), id: word.id, logprob })
}
