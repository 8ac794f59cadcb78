//! The limits of a request: its prompt against the context, its answer's length, its sampling parameters.

use super::fields::Fields;
use super::python::float;
use super::{Endpoint, MAX_CHOICES, MAX_LOGPROBS, Parser};
use crate::refusal::Refusal;

impl Parser<'_> {
    /// Later servers refuse a text that cannot fit before they tokenize it.
    pub(super) fn check_characters(&self, text: &str) -> Result<(), Refusal> {
        let context = self.config.max_model_len as usize;
        let most = context.saturating_mul(self.vocabulary.longest);
        // Bytes bound characters from above, so most texts are not counted.
        if self.is_verbose() || text.len() <= most || text.chars().count() <= most {
            return Ok(());
        }
        let characters = text.chars().count();
        Err(self.check(
            &format!(
                "This model's maximum context length is {context} tokens. However, your prompt contains {characters} \
                 characters (more than {most} characters, which is the upper bound for {context} input tokens). \
                 Please reduce the length of the input prompt."
            ),
            Some(("input_text", Some(characters.to_string()))),
        ))
    }

    /// The most tokens of an answer to a prompt of `prompt_tokens`.
    pub(super) fn max_tokens(&self, fields: &Fields<'_>, prompt_tokens: usize) -> Result<u32, Refusal> {
        let chat = self.endpoint == Endpoint::Chat;
        let (name, asked) = match fields.max_completion_tokens.filter(|_| chat) {
            Some(asked) => ("max_completion_tokens", Some(asked)),
            None => ("max_tokens", fields.max_tokens),
        };
        match (self.is_verbose(), chat) {
            (true, true) => self.early_chat_limit(asked, prompt_tokens),
            (true, false) => self.early_completions_limit(asked.unwrap_or(16), prompt_tokens),
            (false, _) => self.late_limit(name, asked, prompt_tokens),
        }
    }

    fn late_limit(&self, name: &str, asked: Option<i64>, prompt_tokens: usize) -> Result<u32, Refusal> {
        let context = self.config.max_model_len;
        let room = context.saturating_sub(u32::try_from(prompt_tokens).unwrap_or(u32::MAX));
        if let Some(asked) = asked.filter(|&asked| asked > i64::from(context)) {
            let message = format!(
                "{name}={asked} cannot be greater than max_model_len={context}. Please request fewer output tokens."
            );
            return Err(self.check(&message, Some((name, Some(asked.to_string())))));
        }
        if room == 0 {
            // The tokenizer stops one token past the limit, so no more than that is known.
            let counted = prompt_tokens.min(context as usize + 1);
            return Err(self.check(
                &format!(
                    "This model's maximum context length is {context} tokens. However, your prompt contains at least \
                     {counted} input tokens, which exceeds this limit even without any output tokens. Please reduce \
                     the length of the input prompt."
                ),
                Some(("input_tokens", Some(counted.to_string()))),
            ));
        }
        let default = match self.endpoint {
            Endpoint::Chat => self.config.chat_max_tokens,
            Endpoint::Completions => 16,
        };
        Ok(self.at_least_one(asked.unwrap_or(i64::from(default)))?.min(room))
    }

    fn early_chat_limit(&self, asked: Option<i64>, prompt_tokens: usize) -> Result<u32, Refusal> {
        let context = self.config.max_model_len;
        let room = context.saturating_sub(u32::try_from(prompt_tokens).unwrap_or(u32::MAX));
        if room == 0 {
            return Err(self.too_long(i64::from(context), prompt_tokens, " None"));
        }
        match asked {
            None => Ok(self.config.chat_max_tokens.min(room)),
            Some(asked) if asked > i64::from(room) => Err(self.check(
                &format!(
                    "'max_tokens' or 'max_completion_tokens' is too large: {asked}. This model's maximum context length \
                     is {context} tokens and your request has {prompt_tokens} input tokens \
                     ({asked} > {context} - {prompt_tokens}). None"
                ),
                None,
            )),
            Some(asked) => self.at_least_one(asked),
        }
    }

    fn early_completions_limit(&self, asked: i64, prompt_tokens: usize) -> Result<u32, Refusal> {
        let max_tokens = self.at_least_one(asked)?;
        let room = i64::from(self.config.max_model_len) - i64::from(max_tokens);
        if i64::try_from(prompt_tokens).is_ok_and(|prompt| prompt <= room) {
            Ok(max_tokens)
        } else {
            Err(self.too_long(room, prompt_tokens, ""))
        }
    }

    fn at_least_one(&self, asked: i64) -> Result<u32, Refusal> {
        if asked < 1 {
            let message = format!("max_tokens must be at least 1, got {asked}.");
            return Err(self.check(&message, Some(("max_tokens", Some(asked.to_string())))));
        }
        Ok(u32::try_from(asked).unwrap_or(u32::MAX))
    }

    /// vLLM 0.11's chat endpoint appends an exception's cause, which is `None`.
    fn too_long(&self, context: i64, prompt_tokens: usize, cause: &str) -> Refusal {
        let message = format!(
            "This model's maximum context length is {context} tokens. However, your request has {prompt_tokens} input \
             tokens. Please reduce the length of the input messages.{cause}"
        );
        self.check(&message, None)
    }

    /// The sampling parameters, in vLLM's order (`SamplingParams._verify_args`).
    pub(super) fn check_sampling(&self, fields: &Fields<'_>, max_tokens: u32) -> Result<(), Refusal> {
        let named = |name, value: f64| Some((name, Some(float(value))));
        match fields.n {
            Some(n) if n < 1 => return Err(self.check(&format!("n must be at least 1, got {n}."), None)),
            Some(n) if n > MAX_CHOICES => {
                let message =
                    format!("this mock server answers with at most {MAX_CHOICES} choices, not n={n}.");
                return Err(self.check(&message, None));
            }
            _ => {}
        }
        for (name, penalty) in
            [("presence_penalty", fields.presence_penalty), ("frequency_penalty", fields.frequency_penalty)]
        {
            if let Some(value) = penalty.filter(|value| !(-2.0..=2.0).contains(value)) {
                let message = format!("{name} must be in [-2, 2], got {}.", float(value));
                return Err(self.check(&message, named(name, value)));
            }
        }
        if let Some(value) = fields.temperature {
            if value < 0.0 {
                let message = format!("temperature must be non-negative, got {}.", float(value));
                return Err(self.check(&message, named("temperature", value)));
            }
            if value > 2.0 && !self.is_verbose() {
                let message = format!("temperature must be in [0, 2], got {}.", float(value));
                return Err(self.check(&message, named("temperature", value)));
            }
        }
        if let Some(value) = fields.top_p.filter(|&value| value <= 0.0 || value > 1.0) {
            let message = format!("top_p must be in (0, 1], got {}.", float(value));
            return Err(self.check(&message, named("top_p", value)));
        }
        self.check_lengths(fields, max_tokens)
    }

    fn check_lengths(&self, fields: &Fields<'_>, max_tokens: u32) -> Result<(), Refusal> {
        if let Some(min_tokens) = fields.min_tokens {
            if min_tokens < 0 {
                let message = format!("min_tokens must be greater than or equal to 0, got {min_tokens}.");
                return Err(self.check(&message, None));
            }
            if min_tokens > i64::from(max_tokens) {
                let message = format!(
                    "min_tokens must be less than or equal to max_tokens={max_tokens}, got {min_tokens}."
                );
                return Err(self.check(&message, None));
            }
        }
        if fields.stop.iter().any(String::is_empty) {
            return Err(self.check("stop cannot contain an empty string.", None));
        }
        let asked = match self.endpoint {
            Endpoint::Chat => fields.top_logprobs.filter(|_| fields.chat_logprobs),
            Endpoint::Completions => fields.logprobs,
        };
        if let Some(asked) = asked.filter(|&asked| asked > MAX_LOGPROBS) {
            let message = format!(
                "Requested sample logprobs of {asked}, which is greater than max allowed: {MAX_LOGPROBS}"
            );
            return Err(self.check(&message, Some(("logprobs", Some(asked.to_string())))));
        }
        Ok(())
    }
}
