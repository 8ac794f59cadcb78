//! Prompts that begin anew: the same requests once more, of which a prefix cache has seen nothing.
//!
//! A cache finds a prompt by its tokens from the first one on, block by block. So it is enough that the first tokens of
//! a round's prompts are seeded words of that round. They are the same in the whole round: what its prompts share with
//! each other, they still share.

use serde::Deserialize;
use serde_json::Value;
use tokentape_tokenizer::Tokenizer;

use super::Error;
use super::stream::Purpose;
use crate::tape::edit::text;
use crate::tape::format::Request;

/// Words at the beginning of each prompt.
const WORDS: usize = 8;
/// How many places are tried at which the words could end and the prompt go on.
const TRIES: usize = 32;

/// Gives prompts fresh beginnings.
#[derive(Debug)]
pub struct Fresh<'a> {
    purpose: Purpose,
    tokenizer: &'a Tokenizer,
    exact: bool,
    /// Each without its space; words that can open a text.
    words: Vec<&'a str>,
}

/// What became of a request's prompt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Renewed {
    /// It has its words, and as many tokens as before.
    Exact,
    /// It has its words, and another number of tokens.
    Inexact,
    /// It has no text to begin anew: nothing was changed.
    Unchanged,
}

impl<'a> Fresh<'a> {
    /// With `exact`, the words take the place of the prompt's first tokens, and the prompt keeps the number of tokens that
    /// `tokenizer` counts. Else the words, which are those of `tokenizer`, stand before the prompt, and it has no count.
    pub fn new(seed: u64, tokenizer: &'a Tokenizer, exact: bool) -> Result<Self, Error> {
        let words: Vec<&str> =
            tokenizer.words().iter().filter(|word| word.opens).map(|word| word.text.trim_start()).collect();
        if words.is_empty() {
            return Err(Error::NoText { name: tokenizer.name().to_owned() });
        }
        Ok(Self { purpose: Purpose::new(seed, "fresh prefix"), tokenizer, exact, words })
    }

    /// Gives a request's prompt the beginning of `round`.
    pub fn renew(&self, request: &mut Request, round: u64) -> Result<Renewed, Error> {
        let places = text::beginnings(&request.body);
        if places.is_empty() {
            return Ok(Renewed::Unchanged);
        }
        if !self.exact {
            let words = self.words(round, WORDS) + " ";
            // From the last on, so that the places before it stay. Letters and spaces need no escape in JSON.
            for place in places.into_iter().rev() {
                let start = place.start + 1;
                request.body.splice(start..start, words.bytes());
            }
            request.input_tokens = None;
            return Ok(Renewed::Inexact);
        }
        let mut added = 0;
        for place in places.into_iter().rev() {
            // It was read as JSON before.
            let text: String = serde_json::from_slice(&request.body[place.clone()]).unwrap_or_default();
            let before = self.count(&request.body, &text)?;
            let mut renewed = None;
            for (words, rest) in self.cuts(&text)? {
                let fresh = self.words(round, words) + rest;
                let json = Value::from(fresh.as_str()).to_string();
                let body =
                    [&request.body[..place.start], json.as_bytes(), &request.body[place.end..]].concat();
                let after = self.count(&body, &fresh)?;
                renewed = Some((body, after));
                if after == before {
                    break;
                }
            }
            if let Some((body, after)) = renewed {
                request.body = body;
                added += i64::try_from(after).unwrap_or(0) - i64::try_from(before).unwrap_or(0);
            }
        }
        let count = |tokens: u32| u32::try_from((i64::from(tokens) + added).max(0)).unwrap_or(u32::MAX);
        request.input_tokens = request.input_tokens.map(count);
        Ok(if added == 0 { Renewed::Exact } else { Renewed::Inexact })
    }

    /// The first `count` words of a round.
    fn words(&self, round: u64, count: usize) -> String {
        let mut stream = self.purpose.stream(round);
        let mut draw = || {
            #[expect(clippy::cast_possible_truncation, reason = "below the number of words")]
            let pick = stream.below(self.words.len() as u64) as usize;
            self.words[pick]
        };
        (0..count).map(|_| draw()).collect::<Vec<_>>().join(" ")
    }

    /// Where a text could be cut, so that it keeps its number of tokens with as many words in the place of what is cut
    /// off: for each cut the words, and the rest. Before a space first, where most tokenizers cut; then between any two
    /// characters. A text too short for that is cut off whole.
    fn cuts<'t>(&self, text: &'t str) -> Result<Vec<(usize, &'t str)>, Error> {
        const REACH: usize = 40 * WORDS;

        let places = || text.char_indices().map(|(at, _)| at).take(REACH).skip(1);
        let is_space = |at: &usize| text[*at..].starts_with(' ');
        let mut cuts = Vec::new();
        for (limit, at) in places()
            .filter(is_space)
            .map(|at| (TRIES / 2, at))
            .chain(places().filter(|at| !is_space(at)).map(|at| (TRIES, at)))
        {
            let tokens = if cuts.len() < limit { self.tokenizer.count(&text[..at])? } else { 0 };
            if tokens >= WORDS {
                cuts.push((tokens, &text[at..]));
            }
        }
        if cuts.is_empty() && !text.is_empty() {
            cuts.push((self.tokenizer.count(text)?, ""));
        }
        Ok(cuts)
    }

    /// The tokens of a chat, or of `text` where the body is none.
    fn count(&self, body: &[u8], text: &str) -> Result<usize, Error> {
        #[derive(Deserialize)]
        struct Chat {
            messages: Value,
        }
        match serde_json::from_slice::<Chat>(body) {
            Ok(Chat { messages }) => Ok(self.tokenizer.count_chat(&messages)?),
            Err(_) => Ok(self.tokenizer.count(text)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Lengths, Params, Random};

    fn prompt(request: &Request) -> String {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        body["messages"][0]["content"].as_str().unwrap().to_owned()
    }

    fn some(tokenizer: &Tokenizer) -> Vec<Request> {
        let params = Params { requests: 6, input_tokens: Lengths::new(40, 40).unwrap(), ..Params::default() };
        let mut requests = Vec::new();
        let source = Random::new(params, tokenizer).unwrap();
        let mut keep = |request| {
            requests.push(request);
            Ok(())
        };
        source.run(1, &mut keep).unwrap();
        requests
    }

    #[test]
    fn a_round_has_words_of_its_own_and_every_prompt_its_length() {
        let tokenizer = Tokenizer::embedded().unwrap();
        let fresh = Fresh::new(7, &tokenizer, true).unwrap();
        for request in some(&tokenizer) {
            let renewed = |round| {
                let mut request = request.clone();
                assert_eq!(fresh.renew(&mut request, round).unwrap(), Renewed::Exact);
                assert_eq!(request.input_tokens, Some(40));
                assert_eq!(tokenizer.count(&prompt(&request)).unwrap(), 40);
                prompt(&request)
            };
            let (first, second) = (renewed(1), renewed(2));
            assert!(first.starts_with(&fresh.words(1, WORDS)), "{first}");
            assert!(second.starts_with(&fresh.words(2, WORDS)), "{second}");
            assert_ne!(fresh.words(1, 1), fresh.words(2, 1));
            let tail = |text: &str| text.split(' ').skip(12).collect::<Vec<_>>().join(" ");
            assert_eq!(tail(&first), tail(&prompt(&request)));
            assert_eq!(tail(&first), tail(&second));
        }
    }

    #[test]
    fn any_text_keeps_its_count_or_says_that_it_does_not() {
        let tokenizer = Tokenizer::embedded().unwrap();
        let fresh = Fresh::new(0, &tokenizer, true).unwrap();
        for text in [
            "",
            "a",
            "\n",
            "Hello, world",
            "日本語の文章は長いですが空白がありません。それでも数は同じです。",
            "one two three four five six seven eight nine ten",
            "   indented\n\tcode() { return 1; }   and so on \u{1f600}",
        ] {
            let body = serde_json::json!({"prompt": text}).to_string().into_bytes();
            let mut request = Request { body, input_tokens: Some(1000), ..some(&tokenizer)[0].clone() };
            let how = fresh.renew(&mut request, 1).unwrap();
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let new = body["prompt"].as_str().unwrap();
            let (old, new) = (tokenizer.count(text).unwrap(), tokenizer.count(new).unwrap());
            assert_eq!(how == Renewed::Exact, old == new, "{text:?}");
            assert_eq!(request.input_tokens.unwrap() as usize + old, 1000 + new);
            assert_eq!(how, Renewed::Exact, "{text:?}");
        }
    }

    #[test]
    fn without_a_count_the_words_stand_before_the_prompt() {
        let tokenizer = Tokenizer::embedded().unwrap();
        let fresh = Fresh::new(0, &tokenizer, false).unwrap();
        let mut request = some(&tokenizer)[0].clone();
        let old = prompt(&request);
        assert_eq!(fresh.renew(&mut request, 3).unwrap(), Renewed::Inexact);
        assert_eq!(prompt(&request), format!("{} {old}", fresh.words(3, WORDS)));
        assert_eq!(request.input_tokens, None);
        let mut ids = Request { body: br#"{"prompt":[1,2]}"#.to_vec(), ..request };
        let before = ids.clone();
        assert_eq!(fresh.renew(&mut ids, 3).unwrap(), Renewed::Unchanged);
        assert_eq!(ids, before);
    }
}
