//! Chat: the chunks of a stream, and the choices of a whole answer.

use super::{Shape, UsageMode, Writer, push_escaped, push_string};
use crate::chunks::{Chunk, Finish};
use crate::profile::RoleChunk;
use crate::truth::EventKind;

impl Writer<'_> {
    /// Every event of a stream before its usage.
    pub(super) fn chat_events(&mut self) {
        let answer = self.answer;
        if matches!(answer.role_chunk, RoleChunk::FirstToken | RoleChunk::OnAccept) {
            self.token = Some(0).filter(|_| answer.role_chunk == RoleChunk::FirstToken);
            for choice in 0..answer.choices() {
                self.event(EventKind::Role, |out| out.role_choice(choice));
            }
        }
        let mut begun = vec![false; answer.choices()];
        for chunk in answer.chunks {
            self.due_with(chunk);
            let first = begun.get_mut(chunk.choice).is_some_and(|begun| !std::mem::replace(begun, true));
            match answer.tool {
                Some((name, id)) => self.tool_events(chunk, first, name, id),
                None => self.content_event(chunk, first),
            }
        }
    }

    fn content_event(&mut self, chunk: &Chunk<'_>, first: bool) {
        let answer = self.answer;
        let empty = answer.parsed && chunk.text.is_empty();
        if empty && chunk.finish.is_none() {
            return;
        }
        let merged = first && answer.role_chunk == RoleChunk::Merged;
        if self.shape() == Shape::OpenAi {
            self.token_event(chunk, first, |out| {
                out.open_content(chunk, merged, false);
                out.close_choice(chunk, None);
            });
            if chunk.finish.is_some() {
                self.event(EventKind::Finish, |out| out.finish_choice(chunk));
            }
            return;
        }
        self.token_event(chunk, first, |out| {
            out.open_content(chunk, merged, empty);
            out.close_choice(chunk, chunk.finish.as_ref());
        });
    }

    fn open_content(&mut self, chunk: &Chunk<'_>, merged: bool, empty: bool) {
        self.open_delta(chunk.choice);
        self.text.push_str(if merged { "\"role\":\"assistant\"" } else { "" });
        if !empty {
            self.text.push_str(if merged { ",\"" } else { "\"" });
            let reasons = self.reasons(chunk);
            self.text.push_str(if reasons { self.answer.traits.reasoning_key } else { "content" });
            self.text.push_str("\":\"");
            self.push_told(&chunk.text);
            self.text.push('"');
        }
    }

    /// `OpenAI` tells the finish alone.
    fn finish_choice(&mut self, chunk: &Chunk<'_>) {
        let Chunk { choice, tokens_so_far, .. } = *chunk;
        self.open_delta(choice);
        self.close_choice(&Chunk { choice, tokens_so_far, ..Chunk::default() }, chunk.finish.as_ref());
    }

    /// The name of the tool with the first token, each token as a piece of its arguments, the finish alone. vLLM 0.11 has
    /// the name and the finish in the events of the first and of the last token.
    fn tool_events(&mut self, chunk: &Chunk<'_>, first: bool, name: &str, id: &str) {
        if self.shape() == Shape::First {
            self.event(EventKind::Token, |out| {
                out.tool_arguments(chunk, Some((name, id)).filter(|_| first));
                out.close_choice(chunk, chunk.finish.as_ref());
            });
            return;
        }
        if first {
            self.event(EventKind::Tool, |out| {
                out.open_tool(chunk.choice, Some((name, id)));
                out.text.push_str("}}]");
                out.close_choice(chunk, None);
            });
        }
        if !chunk.text.is_empty() {
            self.event(EventKind::Token, |out| {
                out.tool_arguments(chunk, None);
                out.close_choice(chunk, None);
            });
        }
        if chunk.finish.is_some() {
            self.event(EventKind::Finish, |out| {
                out.open_delta(chunk.choice);
                out.close_choice(chunk, chunk.finish.as_ref());
            });
        }
    }

    fn tool_arguments(&mut self, chunk: &Chunk<'_>, named: Option<(&str, &str)>) {
        self.open_tool(chunk.choice, named);
        self.text.push_str(if named.is_some() { ",\"arguments\":\"" } else { "\"arguments\":\"" });
        push_escaped(&mut self.text, &chunk.text);
        self.text.push_str("\"}}]");
    }

    fn open_tool(&mut self, choice: usize, named: Option<(&str, &str)>) {
        self.open_delta(choice);
        self.push_since(Shape::Second, "\"content\":null,");
        self.text.push_str("\"tool_calls\":[{");
        if let Some((name, id)) = named {
            self.text.push_str("\"id\":");
            push_string(&mut self.text, id);
            self.text.push_str(",\"type\":\"function\",\"index\":0,\"function\":{\"name\":");
            push_string(&mut self.text, name);
        } else {
            self.text.push_str("\"index\":0,\"function\":{");
        }
    }

    fn open_delta(&mut self, choice: usize) {
        self.write(format_args!("{{\"index\":{choice},\"delta\":{{"));
    }

    /// From the end of a delta to the end of the event, which tells `finish`: not the chunk's where that has an event of
    /// its own.
    fn close_choice(&mut self, chunk: &Chunk<'_>, finish: Option<&Finish>) {
        let answer = self.answer;
        self.text.push_str("},\"logprobs\":");
        if chunk.tokens.is_empty() {
            self.text.push_str("null");
        } else {
            self.chat_logprobs(std::iter::once(chunk));
        }
        self.text.push_str(",\"finish_reason\":");
        // vLLM 0.11 says so however a call ends.
        let called = match finish {
            None => false,
            Some(Finish::Length) => self.shape() == Shape::First,
            Some(Finish::StopString(_) | Finish::StopToken(_)) => true,
        };
        if answer.tool.is_some() && called {
            self.text.push_str("\"tool_calls\",\"stop_reason\":null");
        } else {
            self.finish(finish, false);
        }
        if self.shape() == Shape::OpenAi {
            self.text.push_str("}]");
            self.usage_to_come();
            return;
        }
        self.text.push_str(",\"token_ids\":");
        self.token_ids(answer.return_token_ids, std::iter::once(chunk));
        if finish.is_some() {
            self.push_since(Shape::Third, ",\"weight_versions\":null");
        }
        self.text.push_str("}]");
        if answer.usage == UsageMode::Continuous {
            self.running_usage(chunk.choice, chunk.tokens_so_far);
        }
        self.event_fingerprint(finish);
        self.push_since(Shape::Third, ",\"kv_transfer_params\":null");
    }

    fn role_choice(&mut self, choice: usize) {
        self.open_delta(choice);
        self.text.push_str("\"role\":\"assistant\",\"content\":\"\"");
        if self.shape() == Shape::OpenAi {
            self.text.push_str(",\"refusal\":null},\"logprobs\":null,\"finish_reason\":null}]");
            self.usage_to_come();
            return;
        }
        self.text.push_str("},\"logprobs\":null,\"finish_reason\":null}]");
        if self.answer.usage == UsageMode::Continuous {
            self.running_usage(choice, 0);
        }
        self.text.push_str(",\"prompt_token_ids\":");
        self.prompt_ids(choice, self.answer.return_token_ids);
        self.push_since(Shape::Second, ",\"prompt_text\":null");
    }

    /// One choice of a whole answer.
    pub(super) fn chat_body_choice(&mut self, choice: usize) {
        let answer = self.answer;
        let (first, openai) = (self.shape() == Shape::First, self.shape() == Shape::OpenAi);
        let reasons = |chunk: &&Chunk<'_>| chunk.tokens_so_far <= answer.reasoning_tokens;
        self.write(format_args!("{{\"index\":{choice},\"message\":{{\"role\":\"assistant\",\"content\":\""));
        if answer.tool.is_none() {
            let content = self.chunks_of(choice).filter(|chunk| !reasons(chunk));
            content.for_each(|chunk| push_escaped(&mut self.text, &chunk.text));
        }
        self.text.push_str("\",\"refusal\":null,\"annotations\":");
        self.text.push_str(if openai { "[]" } else { "null,\"audio\":null,\"function_call\":null" });
        if let Some((name, id)) = answer.tool {
            self.text.push_str(",\"tool_calls\":[{\"id\":");
            push_string(&mut self.text, id);
            self.text.push_str(",\"type\":\"function\",\"function\":{\"name\":");
            push_string(&mut self.text, name);
            self.text.push_str(",\"arguments\":\"");
            self.chunks_of(choice).for_each(|chunk| push_escaped(&mut self.text, &chunk.text));
            self.text.push_str("\"}}]");
        } else if first {
            self.text.push_str(",\"tool_calls\":[]");
        }
        if !openai {
            self.write(format_args!(",\"{}\":", answer.traits.reasoning_key));
            if answer.reasoning_tokens > 0 {
                self.text.push('"');
                let reasoning = self.chunks_of(choice).filter(reasons);
                reasoning.for_each(|chunk| push_escaped(&mut self.text, &chunk.text));
                self.text.push('"');
            } else {
                self.text.push_str("null");
            }
        }
        self.text.push_str("},\"logprobs\":");
        self.chat_logprobs(self.chunks_of(choice));
        self.text.push_str(",\"finish_reason\":");
        if let Some(last) = self.chunks_of(choice).last() {
            self.finish(last.finish.as_ref(), true);
        }
        if !openai {
            self.text.push_str(",\"token_ids\":");
            self.token_ids(answer.return_token_ids, self.chunks_of(choice));
            self.push_since(Shape::Second, ",\"routed_experts\":null");
            self.push_since(Shape::Third, ",\"weight_versions\":null");
        }
        self.text.push('}');
    }
}
