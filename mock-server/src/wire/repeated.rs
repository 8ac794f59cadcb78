//! Events that repeat the one before them: of an answer's thousands nearly all say the same but for their text, so they
//! are copied rather than made.

use std::ops::Range;

use super::{UsageMode, Writer, push_escaped};
use crate::chunks::Chunk;
use crate::truth::EventKind;

/// An event of which the next one of the same choice may differ in its text only: what stands before that, and after.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    reasons: bool,
    head: Range<usize>,
    tail: Range<usize>,
}

impl Writer<'_> {
    /// The event of a chunk's tokens; `first` is that of a choice. `rest` makes the one that is copied, and those that are
    /// like no other.
    pub(super) fn token_event(&mut self, chunk: &Chunk<'_>, first: bool, rest: impl FnOnce(&mut Self)) {
        let start = self.text.len();
        let (answer, reasons) = (self.answer, self.reasons(chunk));
        let alike = !(first
            || chunk.finish.is_some()
            || chunk.text.is_empty()
            || answer.logprobs
            || answer.return_token_ids
            || answer.tool.is_some()
            || answer.usage == UsageMode::Continuous);
        let pattern = self.patterns.get(chunk.choice).cloned().flatten().filter(|_| alike);
        if let Some(Pattern { head, tail, .. }) = pattern.filter(|pattern| pattern.reasons == reasons) {
            self.text.extend_from_within(head);
            push_escaped(&mut self.text, &chunk.text);
            self.text.extend_from_within(tail);
            self.close_event(EventKind::Token, start);
            return;
        }
        self.event(EventKind::Token, rest);
        if alike && let Some(pattern) = self.patterns.get_mut(chunk.choice) {
            let (head, tail) = (start..self.told.start, self.told.end..self.text.len());
            *pattern = Some(Pattern { reasons, head, tail });
        }
    }

    /// Adds the text of a chunk, as the inside of a JSON string.
    pub(super) fn push_told(&mut self, text: &str) {
        let start = self.text.len();
        push_escaped(&mut self.text, text);
        self.told = start..self.text.len();
    }

    /// Whether a chunk is part of the reasoning.
    pub(super) fn reasons(&self, chunk: &Chunk<'_>) -> bool {
        chunk.tokens_so_far <= self.answer.reasoning_tokens
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::answers::Token;
    use crate::chunks::{Finish, Tokens};
    use crate::profile::{Profile, RoleChunk};
    use crate::wire::{Answer, Endpoint, Prompt, stream};

    const TEXTS: [&str; 6] = [" a", " b", "\"\\", " c", "", " é"];

    /// A chunk of one token, the last of its choice where it has none after it.
    fn chunk(choice: usize, place: usize, last: bool) -> Chunk<'static> {
        let text = Cow::Borrowed(TEXTS[place]);
        let token = Token { text: text.clone(), id: 7, logprob: None };
        let tokens_so_far = u32::try_from(place).unwrap() + 1;
        let finish = last.then_some(Finish::Length);
        Chunk { choice, text, tokens: Tokens::One(token), tokens_so_far, finish, ..Chunk::default() }
    }

    /// The token events of these places of two choices, which come in turn.
    fn events(answer: &Answer<'_>, places: &[usize]) -> Vec<String> {
        let last = places.len() - 1;
        let chunks: Vec<_> =
            (0..=last).flat_map(|at| [0, 1].map(|choice| chunk(choice, places[at], at == last))).collect();
        let frames = stream(&Answer { chunks: &chunks, ..*answer });
        let kinds = frames.kinds().to_vec();
        let texts = frames.map(|event| String::from_utf8(event.to_vec()).unwrap());
        kinds
            .into_iter()
            .zip(texts)
            .filter(|(kind, _)| *kind == EventKind::Token)
            .map(|(_, text)| text)
            .collect()
    }

    /// The second event of a choice is made, and those after it are copied from it.
    #[test]
    fn a_copy_is_what_would_have_been_made() {
        let prompts = [Prompt { tokens: 3, ..Prompt::default() }];
        for profile in [Profile::Vllm0110, Profile::Vllm0320, Profile::Vllm0330, Profile::OpenAi] {
            for endpoint in [Endpoint::Chat, Endpoint::Completions] {
                for (usage, reasoning_tokens) in
                    [(UsageMode::Never, 3), (UsageMode::Last, 0), (UsageMode::Continuous, 0)]
                {
                    let answer = Answer {
                        traits: profile.traits(),
                        role_chunk: RoleChunk::FirstToken,
                        endpoint,
                        id: "x",
                        created: 1,
                        model: "m",
                        fingerprint: "f",
                        prompts: &prompts,
                        n: 2,
                        chunks: &[],
                        usage,
                        logprobs: false,
                        return_token_ids: false,
                        echo: false,
                        tool: None,
                        parsed: false,
                        reasoning_tokens,
                        prompt_details: false,
                        times: None,
                    };
                    let all = events(&answer, &[0, 1, 2, 3, 4, 5]);
                    for place in 1..5 {
                        let made = &events(&answer, &[0, place, 5])[2..4];
                        assert_eq!(
                            &all[2 * place..2 * place + 2],
                            made,
                            "{profile:?} {endpoint:?} {usage:?}"
                        );
                    }
                }
            }
        }
    }
}
