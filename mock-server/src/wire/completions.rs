//! Completions: the chunks of a stream, and the choices of a whole answer.

use super::{Shape, UsageMode, Writer, push_escaped};
use crate::chunks::Chunk;

impl Writer<'_> {
    /// Every event of a stream before its usage.
    pub(super) fn completions_events(&mut self) {
        let mut begun = vec![false; self.answer.choices()];
        for chunk in self.answer.chunks {
            self.due_with(chunk);
            let first = begun.get_mut(chunk.choice).is_some_and(|begun| !std::mem::replace(begun, true));
            self.token_event(chunk, first, |out| out.completions_choice(chunk, first));
        }
    }

    fn completions_choice(&mut self, chunk: &Chunk<'_>, first: bool) {
        let answer = self.answer;
        self.write(format_args!("{{\"index\":{},\"text\":\"", chunk.choice));
        if first && answer.echo {
            self.echo(chunk.choice);
        }
        self.push_told(&chunk.text);
        self.text.push_str("\",\"logprobs\":");
        self.completions_logprobs(std::iter::once(chunk));
        self.text.push_str(",\"finish_reason\":");
        self.finish(chunk.finish.as_ref(), true);
        if self.shape() == Shape::OpenAi {
            self.text.push_str("}]");
            self.usage_to_come();
            return;
        }
        // 0.11 repeats the prompt's ids in the first event, asked or not; later servers with an echo.
        let early = self.shape() == Shape::First;
        self.text.push_str(",\"prompt_token_ids\":");
        self.prompt_ids(chunk.choice, first && (early || answer.echo || answer.return_token_ids));
        self.text.push_str(",\"token_ids\":");
        self.token_ids(answer.return_token_ids, std::iter::once(chunk));
        self.push_since(Shape::Third, ",\"weight_versions\":null");
        self.text.push_str("}]");
        if answer.usage == UsageMode::Continuous {
            self.running_usage(chunk.choice, chunk.tokens_so_far);
        } else if early {
            self.text.push_str(",\"usage\":null");
        }
        self.event_fingerprint(chunk.finish.as_ref());
        self.push_since(Shape::Third, ",\"kv_transfer_params\":null");
    }

    fn echo(&mut self, choice: usize) {
        if let Some(prompt) = self.answer.prompt(choice) {
            push_escaped(&mut self.text, &prompt.text);
        }
    }

    /// One choice of a whole answer.
    pub(super) fn completions_body_choice(&mut self, choice: usize) {
        let answer = self.answer;
        self.write(format_args!("{{\"index\":{choice},\"text\":\""));
        if answer.echo {
            self.echo(choice);
        }
        self.chunks_of(choice).for_each(|chunk| push_escaped(&mut self.text, &chunk.text));
        self.text.push_str("\",\"logprobs\":");
        self.completions_logprobs(self.chunks_of(choice));
        self.text.push_str(",\"finish_reason\":");
        if let Some(last) = self.chunks_of(choice).last() {
            self.finish(last.finish.as_ref(), true);
        }
        if self.shape() != Shape::OpenAi {
            self.text.push_str(",\"token_ids\":");
            self.token_ids(answer.return_token_ids, self.chunks_of(choice));
            self.text.push_str(",\"prompt_logprobs\":null,\"prompt_token_ids\":");
            self.prompt_ids(choice, answer.return_token_ids);
            self.push_since(Shape::Second, ",\"routed_experts\":null");
            self.push_since(Shape::Third, ",\"weight_versions\":null");
        }
        self.text.push('}');
    }
}
