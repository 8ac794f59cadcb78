//! Log-probabilities, in the two forms of the two endpoints.

use std::borrow::Cow;

use super::{Writer, push_ids, push_string};
use crate::answers::Token;
use crate::chunks::Chunk;

/// vLLM's smallest: JSON has no minus infinity.
const LEAST: f64 = -9999.0;

impl Writer<'_> {
    /// `{"content":[…]}` of the tokens of `chunks`, or `null` where it was not asked for.
    pub(super) fn chat_logprobs<'t>(&mut self, chunks: impl Iterator<Item = &'t Chunk<'t>>) {
        if !self.answer.logprobs {
            self.text.push_str("null");
            return;
        }
        self.text.push_str("{\"content\":[");
        let mut separator = "";
        for token in chunks.flat_map(|chunk| chunk.tokens.iter()) {
            let Known { text, logprob, top } = known(token);
            self.text.push_str(separator);
            separator = ",";
            self.text.push('{');
            self.candidate(text, logprob);
            self.text.push_str(",\"top_logprobs\":[");
            for (place, (token, logprob)) in top.iter().enumerate() {
                self.text.push_str(if place > 0 { ",{" } else { "{" });
                self.candidate(token, *logprob);
                self.text.push('}');
            }
            self.text.push_str("]}");
        }
        self.text.push_str("]}");
    }

    fn candidate(&mut self, token: &str, logprob: f64) {
        self.text.push_str("\"token\":");
        push_string(&mut self.text, token);
        self.write(format_args!(",\"logprob\":{:?},\"bytes\":", logprob.max(LEAST)));
        push_ids(&mut self.text, token.bytes().map(u32::from));
    }

    /// `{"text_offset":[…],…}` of the tokens of `chunks`, or `null` where it was not asked for. Offsets count characters.
    pub(super) fn completions_logprobs<'t>(&mut self, chunks: impl Iterator<Item = &'t Chunk<'t>>) {
        if !self.answer.logprobs {
            self.text.push_str("null");
            return;
        }
        let mut chunks = chunks.peekable();
        let mut offset = chunks.peek().map_or(0, |chunk| chunk.text_offset);
        let tokens: Vec<Known<'t>> = chunks.flat_map(|chunk| chunk.tokens.iter().map(known)).collect();
        self.text.push_str("{\"text_offset\":[");
        for (place, token) in tokens.iter().enumerate() {
            self.separate(place);
            self.write(format_args!("{offset}"));
            offset += token.text.chars().count();
        }
        self.text.push_str("],\"token_logprobs\":[");
        for (place, token) in tokens.iter().enumerate() {
            self.separate(place);
            self.write(format_args!("{:?}", token.logprob.max(LEAST)));
        }
        self.text.push_str("],\"tokens\":[");
        for (place, token) in tokens.iter().enumerate() {
            self.separate(place);
            push_string(&mut self.text, token.text);
        }
        self.text.push_str("],\"top_logprobs\":[");
        for (place, token) in tokens.iter().enumerate() {
            self.separate(place);
            self.text.push('{');
            for (place, (text, logprob)) in token.top.iter().enumerate() {
                self.separate(place);
                push_string(&mut self.text, text);
                self.write(format_args!(":{:?}", logprob.max(LEAST)));
            }
            self.text.push('}');
        }
        self.text.push_str("]}");
    }

    fn separate(&mut self, place: usize) {
        if place > 0 {
            self.text.push(',');
        }
    }
}

/// What is told of a token.
struct Known<'t> {
    text: &'t str,
    logprob: f64,
    top: &'t [(Cow<'t, str>, f64)],
}

/// A token whose log-probability was not told was certain.
fn known<'t>(token: &'t Token<'t>) -> Known<'t> {
    match &token.logprob {
        Some(known) => Known { text: &known.token, logprob: known.logprob, top: &known.top },
        None => Known { text: &token.text, logprob: 0.0, top: &[] },
    }
}
