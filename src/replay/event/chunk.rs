//! A chunk of chat or completions.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::message::Message;
use super::usage::Counts;
use super::{Meaning, Text, is_filled, lenient};
use crate::timeline::{Facts, ServerTimes};

/// Values that a server may send in more than one shape are kept raw: only their emptiness matters here.
#[derive(Deserialize)]
pub(super) struct Chunk<'a> {
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    /// What an event of the responses API is told by.
    #[serde(borrow, default, rename = "type")]
    pub(super) kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    object: Option<Text<'a>>,
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow, default)]
    usage: Option<Counts<'a>>,
    #[serde(borrow, default)]
    metrics: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    /// Raw, so that what is no number spoils no event that could be read without it.
    #[serde(borrow, default)]
    index: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<Message<'a>>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    finish_reason: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Times<'a> {
    #[serde(borrow, default)]
    queue_time_ms: Option<&'a RawValue>,
    #[serde(borrow, default)]
    time_to_first_token_ms: Option<&'a RawValue>,
}

/// The times of a `metrics` object; what is no number is none.
fn server_times(metrics: &RawValue) -> Option<ServerTimes> {
    let times: Times<'_> = lenient(metrics)?;
    let number = |value: Option<&RawValue>| value?.get().parse().ok();
    Some(ServerTimes { queue_ms: number(times.queue_time_ms), ttft_ms: number(times.time_to_first_token_ms) })
}

impl<'a> Chunk<'a> {
    /// What it says. Where it has several choices, its facts are those of the first.
    pub(super) fn meaning(self) -> Meaning<'a> {
        let mut facts = Facts::JSON;
        let mut set = |condition: bool, fact: Facts| {
            if condition {
                facts = facts.with(fact);
            }
        };
        let object = self.object.as_deref();
        set(self.error.is_some() || object == Some("error"), Facts::ERROR);
        set(object == Some("text_completion"), Facts::COMPLETION);
        set(self.usage.is_some(), Facts::USAGE);
        let (mut choice_index, mut text, mut finish_reason) = (0, None, None);
        if let Some(choice) = self.choices.and_then(|choices| choices.into_iter().next()) {
            set(true, Facts::CHOICES);
            choice_index = choice.index.and_then(|index| index.get().parse().ok()).unwrap_or(0);
            let delta = choice.delta.as_ref();
            text = delta.and_then(|delta| delta.content).or(choice.text);
            set(text.is_some_and(is_filled), Facts::CONTENT);
            set(text.is_some_and(|text| text.get() == "\"\""), Facts::EMPTY_CONTENT);
            if let Some(delta) = delta {
                set(delta.role.is_some(), Facts::ROLE);
                set(delta.has_reasoning(), Facts::REASONING);
                set(delta.has_reasoning_content(), Facts::REASONING_CONTENT);
                set(delta.has_call(), Facts::TOOL_CALL);
            }
            set(choice.finish_reason.is_some(), Facts::FINISH);
            finish_reason = choice.finish_reason;
        }
        Meaning {
            facts,
            choice: choice_index,
            usage: self.usage.map(|counts| counts.usage()),
            server_times: self.metrics.and_then(server_times),
            id: self.id.map(|id| id.0),
            finish_reason: finish_reason.map(|reason| reason.0),
            text,
        }
    }
}
