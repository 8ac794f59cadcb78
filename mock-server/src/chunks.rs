//! From an engine's outputs to what a server tells of them: stop strings and stop tokens end a choice, text that may yet
//! become a stop string is held back, `stream_interval` gathers tokens. Pure, and the rules are vLLM's
//! (`v1/engine/detokenizer.py`, `output_processor.py`).

use std::borrow::Cow;
use std::ops::Deref;

use crate::answers::{Answer, Token};

/// What ends a choice, and how its tokens are gathered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rules {
    /// Texts that end it.
    pub(crate) stop: Vec<String>,
    /// Tokens that end it.
    pub(crate) stop_token_ids: Vec<u32>,
    /// Whether what ended it is part of its text.
    pub(crate) include_stop: bool,
    /// Tokens before which nothing ends it.
    pub(crate) min_tokens: u32,
    /// Tokens in each chunk after the first; at least 1.
    pub(crate) interval: u32,
}

/// What one event of a stream tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Chunk<'a> {
    pub(crate) choice: usize,
    pub(crate) text: Cow<'a, str>,
    pub(crate) tokens: Tokens<'a>,
    /// Characters of this choice's text in the chunks before.
    pub(crate) text_offset: usize,
    /// This choice's tokens up to and with this chunk.
    pub(crate) tokens_so_far: u32,
    pub(crate) finish: Option<Finish>,
}

/// The tokens of one output: as a rule one, and an answer has thousands of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tokens<'a> {
    One(Token<'a>),
    Any(Vec<Token<'a>>),
}

impl<'a> Tokens<'a> {
    fn truncate(&mut self, length: usize) {
        match self {
            Self::One(_) if length > 0 => {}
            Self::One(_) => *self = Self::default(),
            Self::Any(tokens) => tokens.truncate(length),
        }
    }

    fn append(&mut self, more: Self) {
        if self.is_empty() {
            *self = more;
            return;
        }
        let mut tokens = std::mem::take(self).into_vec();
        tokens.extend(more.into_vec());
        *self = Self::Any(tokens);
    }

    fn into_vec(self) -> Vec<Token<'a>> {
        match self {
            Self::One(token) => vec![token],
            Self::Any(tokens) => tokens,
        }
    }
}

impl Default for Tokens<'_> {
    fn default() -> Self {
        Self::Any(Vec::new())
    }
}

impl<'a> Deref for Tokens<'a> {
    type Target = [Token<'a>];

    fn deref(&self) -> &[Token<'a>] {
        match self {
            Self::One(token) => std::slice::from_ref(token),
            Self::Any(tokens) => tokens,
        }
    }
}

/// Why a choice ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Finish {
    Length,
    StopString(String),
    StopToken(u32),
}

/// The chunks of an answer that came from elsewhere, in order.
pub(crate) fn chunks<'a>(answer: Answer<'a>, rules: &Rules) -> Vec<Chunk<'a>> {
    let mut lengths = Vec::new();
    for output in &answer.outputs {
        lengths.resize(lengths.len().max(output.choice + 1), 0);
        lengths[output.choice] += 1;
    }
    let mut gathering = Gathering::new(lengths, rules);
    for output in answer.outputs {
        gathering.take(output.choice, Tokens::Any(output.tokens));
    }
    gathering.chunks
}

/// Chunks in the making.
#[derive(Debug)]
pub(crate) struct Gathering<'a, 'r> {
    choices: Vec<Choice<'a>>,
    rules: &'r Rules,
    /// Those that are complete, in order.
    pub(crate) chunks: Vec<Chunk<'a>>,
}

impl<'a, 'r> Gathering<'a, 'r> {
    /// Nothing yet of choices that will have so many outputs. A choice that nothing else ends, ends by its length with
    /// its last output.
    pub(crate) fn new(outputs: Vec<usize>, rules: &'r Rules) -> Self {
        let chunks = Vec::with_capacity(outputs.iter().sum());
        let choice = |outputs_left| Choice { outputs_left, ..Choice::default() };
        Self { choices: outputs.into_iter().map(choice).collect(), rules, chunks }
    }

    /// Takes the next output of a choice.
    pub(crate) fn take(&mut self, choice: usize, tokens: Tokens<'a>) {
        let chunk = self.choices[choice].take(tokens, self.rules);
        self.chunks.extend(chunk.map(|chunk| Chunk { choice, ..chunk }));
    }
}

/// One choice under way.
#[derive(Debug, Default)]
struct Choice<'a> {
    outputs_left: usize,
    /// Its whole text; kept only where there are stop strings.
    text: String,
    /// Where the newest token's text begins in it.
    newest: usize,
    /// Bytes of `text` that have been told.
    told: usize,
    tokens: u32,
    characters: usize,
    /// What is gathered for the next chunk.
    pending: Chunk<'a>,
    chunks: usize,
    ended: bool,
}

impl<'a> Choice<'a> {
    fn take(&mut self, mut tokens: Tokens<'a>, rules: &Rules) -> Option<Chunk<'a>> {
        self.outputs_left -= 1;
        if self.ended {
            return None;
        }
        let (mut finish, mut taken) = (None, 0);
        for token in tokens.iter() {
            self.tokens += 1;
            taken += 1;
            let ends = self.tokens > rules.min_tokens && rules.stop_token_ids.contains(&token.id);
            if ends {
                finish = Some(Finish::StopToken(token.id));
            }
            if !ends || rules.include_stop {
                self.append(token, rules);
            }
            if finish.is_none() {
                finish = self.stopped(rules);
            }
            if finish.is_some() {
                break;
            }
        }
        tokens.truncate(taken);
        self.pending.tokens.append(tokens);
        if finish.is_none() && self.outputs_left == 0 {
            finish = Some(Finish::Length);
        }
        self.ended = finish.is_some();
        let gathered = u32::try_from(self.pending.tokens.len()).unwrap_or(u32::MAX);
        if self.chunks > 0 && gathered < rules.interval && !self.ended {
            return None;
        }
        self.chunks += 1;
        self.tell_rest(rules);
        let text_offset = self.characters;
        self.characters += self.pending.text.chars().count();
        let chunk = std::mem::take(&mut self.pending);
        Some(Chunk { text_offset, tokens_so_far: self.tokens, finish, ..chunk })
    }

    fn append(&mut self, token: &Token<'a>, rules: &Rules) {
        if !rules.stop.is_empty() {
            self.newest = self.text.len();
            self.text.push_str(&token.text);
        } else if self.pending.text.is_empty() {
            self.pending.text.clone_from(&token.text);
        } else {
            self.pending.text.to_mut().push_str(&token.text);
        }
    }

    /// The first stop string that the newest token completed; the text is cut there.
    fn stopped(&mut self, rules: &Rules) -> Option<Finish> {
        if self.tokens <= rules.min_tokens {
            return None;
        }
        let (stop, at) = rules.stop.iter().find_map(|stop| {
            let from = floor_boundary(&self.text, (self.newest + 1).saturating_sub(stop.len()));
            self.text[from..].find(stop.as_str()).map(|at| (stop, from + at))
        })?;
        self.text.truncate(if rules.include_stop { at + stop.len() } else { at.max(self.told) });
        Some(Finish::StopString(stop.clone()))
    }

    /// Moves what may be told into the pending chunk: all but what could become a stop string, or all at the end.
    fn tell_rest(&mut self, rules: &Rules) {
        if rules.stop.is_empty() {
            return;
        }
        let longest = rules.stop.iter().map(|stop| stop.chars().count()).max().unwrap_or(0);
        let held = if self.ended || rules.include_stop { 0 } else { longest.saturating_sub(1) };
        let end = self.text.char_indices().rev().take(held).last().map_or(self.text.len(), |(at, _)| at);
        if end > self.told {
            self.pending.text = Cow::Owned(self.text[self.told..end].to_owned());
            self.told = end;
        }
    }
}

fn floor_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(texts: &[&'static str]) -> Answer<'static> {
        let token = |(id, text): (usize, &&'static str)| Token {
            text: Cow::Borrowed(*text),
            id: u32::try_from(id).unwrap(),
            logprob: None,
        };
        let outputs = texts
            .iter()
            .enumerate()
            .map(|text| crate::answers::Output { choice: 0, tokens: vec![token(text)] });
        Answer { outputs: outputs.collect() }
    }

    fn told(texts: &[&'static str], rules: &Rules) -> (Vec<String>, Finish, u32) {
        let chunks = chunks(answer(texts), rules);
        let last = chunks.last().unwrap();
        let end = (last.finish.clone().unwrap(), last.tokens_so_far);
        (chunks.into_iter().map(|chunk| chunk.text.into_owned()).collect(), end.0, end.1)
    }

    fn rules(stop: &[&str]) -> Rules {
        Rules { stop: stop.iter().map(|&stop| stop.to_owned()).collect(), interval: 1, ..Rules::default() }
    }

    #[test]
    fn what_may_become_a_stop_string_is_held_back() {
        let stopped = Finish::StopString("ooo".to_owned());
        let texts = ["", "o", "", "o", "", "o", "x"];
        let nothing = vec![String::new(); 6];
        assert_eq!(told(&texts, &rules(&["ooo"])), (nothing, stopped.clone(), 6));
        let held = told(&["ab", "o", "o", "c", "d"], &rules(&["ooo"]));
        assert_eq!(
            held,
            (vec![String::new(), "a".into(), "b".into(), "o".into(), "ocd".into()], Finish::Length, 5)
        );
        let included = Rules { include_stop: true, ..rules(&["ooo"]) };
        assert_eq!(told(&["a", "oooo", "b"], &included).0, ["a", "ooo"]);
        assert_eq!(
            told(&["a", "b"], &rules(&["a"])),
            (vec![String::new()], Finish::StopString("a".into()), 1)
        );
        let late = Rules { min_tokens: 1, ..rules(&["b"]) };
        assert_eq!(told(&["b", "ab"], &late).2, 2);
    }

    #[test]
    fn a_stop_token_is_counted_and_not_told() {
        let rules = Rules { stop_token_ids: vec![1], interval: 1, ..Rules::default() };
        let expected = (vec!["a".to_owned(), String::new()], Finish::StopToken(1), 2);
        assert_eq!(told(&["a", "b", "c"], &rules), expected);
        let late = Rules { min_tokens: 2, ..rules };
        assert_eq!(told(&["a", "b", "c"], &late).1, Finish::Length);
    }

    #[test]
    fn an_interval_gathers_after_the_first() {
        let rules = Rules { interval: 4, ..Rules::default() };
        let chunks = chunks(answer(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]), &rules);
        let counts: Vec<u32> = chunks.iter().map(|chunk| chunk.tokens_so_far).collect();
        assert_eq!(counts, [1, 5, 9, 10]);
        assert_eq!(chunks[1].text, "bcde");
        assert_eq!(chunks[1].text_offset, 1);
    }
}
