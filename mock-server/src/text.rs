//! The server's own answers: as many words as were asked for, drawn with a seed, each exactly one token of the tokenizer
//! in use. They are the same for a request whatever else the server is doing.

use std::borrow::Cow;

use tokentape_tokenizer::Word;

use crate::answers::{Answer, Logprob, Output, Token};
use crate::request::Request;
use crate::timing::{Purpose, RequestKey, Stream};

/// An answer to `request` of `words`, its choices token by token in turn. `key` gives each choice its random numbers.
pub(crate) fn answer<'a>(
    words: &'a [Word],
    seed: u64,
    request: &Request,
    key: impl Fn(usize) -> RequestKey,
) -> Answer<'a> {
    let limits: Vec<u32> =
        request.max_tokens.iter().flat_map(|&limit| std::iter::repeat_n(limit, request.n)).collect();
    let mut random: Vec<Stream> =
        (0..limits.len()).map(|choice| Stream::new(seed, Purpose::Text, &key(choice))).collect();
    let longest = limits.iter().copied().max().unwrap_or(0);
    let total: u32 = limits.iter().fold(0, |total, &limit| total.saturating_add(limit));
    let mut outputs = Vec::with_capacity(total as usize);
    for step in 0..longest {
        for (choice, random) in random.iter_mut().enumerate().filter(|&(choice, _)| step < limits[choice]) {
            let Some(token) = token(words, random, request.logprobs) else { continue };
            outputs.push(Output { choice, tokens: vec![token] });
        }
    }
    Answer { outputs }
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
