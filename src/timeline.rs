//! The raw record of one request: what happened to it, in nanoseconds from the run's start.
//!
//! Replay writes timelines, metrics read them; nothing is computed here. A run keeps them as JSON lines
//! (`timelines.jsonl.zst`), one request a line, in the order in which they ended. The columns of `reads` and `events` are stored as
//! arrays, so that a line stays short and loads into a data frame as it is.

use serde::{Deserialize, Serialize};

/// Nanoseconds since the run's start on the monotonic clock.
pub type Ns = u64;

/// What happened to one request.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Timeline {
    /// The request's index in the tape.
    pub index: u64,
    /// The connection slot that carried it, from 0.
    pub slot: u32,
    /// When the schedule wanted it sent. In a closed loop: when its slot became free.
    pub scheduled_ns: Ns,
    /// When the client began to send it: just before its first byte was handed to the transport, or, where no held
    /// connection was left, before one was opened for it. Of a request that was sent more than once: for the first time.
    pub dispatched_ns: Ns,
    /// When a connection opened for this request was ready; absent where a held one was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_ns: Option<Ns>,
    /// When the kernel had taken the request's last byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_ns: Option<Ns>,
    /// The read that completed the response's head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_ns: Option<Ns>,
    /// The response's HTTP status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Each read of the socket that returned bytes while this request was in flight.
    pub reads: Reads,
    /// Each server-sent event of the response; none where it was one JSON document.
    pub events: Events,
    /// When the response ended, or the failure was known.
    pub end_ns: Ns,
    /// How it ended.
    pub outcome: Outcome,
    /// Each attempt, in order, where there were several: all else here is about the last one, but for `scheduled_ns` and
    /// `dispatched_ns`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// The tape's own count of the prompt's tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u32>,
    /// The tape's own count of the tokens asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u32>,
    /// The server's own counts, from the last event that carried them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The server's own times, from the last event that carried them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_times: Option<ServerTimes>,
    /// The `id` of the first event that had one (`chatcmpl-…`), or of the body: what a server's log calls this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// The `finish_reason` of the last choice that had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// The generated text, kept where the server sent no usage, so that its tokens can still be counted, and where it
    /// was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// One attempt at a request that was sent more than once.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Attempt {
    /// When the client began to send it.
    pub dispatched_ns: Ns,
    /// When the response ended, or the failure was known.
    pub end_ns: Ns,
    /// The response's HTTP status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Attempt {
    /// The attempt that a timeline tells of.
    #[must_use]
    pub fn of(timeline: &Timeline) -> Self {
        Self {
            dispatched_ns: timeline.dispatched_ns,
            end_ns: timeline.end_ns,
            status: timeline.status,
            outcome: timeline.outcome.clone(),
        }
    }
}

/// The reads of one response's socket, as columns of one length.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Reads {
    /// When the kernel had the last byte of each read (Linux, `SO_TIMESTAMPNS`); where it does not tell, when the read
    /// returned.
    pub at_ns: Vec<Ns>,
    /// How much later, in ns, each read returned: the client's own delay, of which no figure knows. Empty where a run
    /// was recorded without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late_ns: Vec<u32>,
    /// How many bytes each read returned (HTTP head and chunk framing included).
    pub bytes: Vec<u32>,
}

/// The server-sent events of one response, as columns of one length.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Events {
    /// The index into [`Reads`] of the read that brought the last byte of the event's data.
    pub read: Vec<u32>,
    /// What each event carried: a sum of [`Facts`] bits.
    pub facts: Vec<Facts>,
    /// The server's running count of completion tokens after each event, where it sends one with every event
    /// (`continuous_usage_stats`); else empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<u32>,
    /// The index of the choice that each event belongs to (`choices[0].index`), where the response has several; else
    /// empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<u32>,
}

impl Events {
    /// Adds an event. The column of choices begins with the first event that is not of choice 0.
    pub fn push(&mut self, read: u32, facts: Facts, choice: u32) {
        if choice > 0 && self.choices.is_empty() {
            self.choices.resize(self.len(), 0);
        }
        if choice > 0 || !self.choices.is_empty() {
            self.choices.push(choice);
        }
        self.read.push(read);
        self.facts.push(facts);
    }

    /// The choice that event `i` belongs to.
    #[must_use]
    pub fn choice(&self, i: usize) -> u32 {
        self.choices.get(i).copied().unwrap_or(0)
    }

    /// Number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read.len()
    }

    /// Whether there was no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read.is_empty()
    }
}

/// What one server-sent event carried, as bits. Every dialect decides from these alone what is a token, what ends a
/// request and what counts as output. "The choice" is `choices[0]`, the only one that the peers look at; servers send
/// an event for each choice. What stands in an event of the responses API for each bit, `replay::event` says.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Facts(pub u16);

impl Facts {
    /// Valid JSON object.
    pub const JSON: Facts = Facts(1);
    /// `choices` is a non-empty array.
    pub const CHOICES: Facts = Facts(1 << 1);
    /// The choice's `delta` has a `role`.
    pub const ROLE: Facts = Facts(1 << 2);
    /// The choice has non-empty text (`delta.content`, or `text`).
    pub const CONTENT: Facts = Facts(1 << 3);
    /// The choice has text that is the empty string.
    pub const EMPTY_CONTENT: Facts = Facts(1 << 4);
    /// The choice's `delta` has non-empty `reasoning`.
    pub const REASONING: Facts = Facts(1 << 5);
    /// The choice's `delta` has non-empty `reasoning_content`, the older name.
    pub const REASONING_CONTENT: Facts = Facts(1 << 6);
    /// The choice's `delta` has non-empty `tool_calls` or `function_call`.
    pub const TOOL_CALL: Facts = Facts(1 << 7);
    /// The choice has a `finish_reason`.
    pub const FINISH: Facts = Facts(1 << 8);
    /// `usage` is an object.
    pub const USAGE: Facts = Facts(1 << 9);
    /// `error` is present, or `object` is `"error"`.
    pub const ERROR: Facts = Facts(1 << 10);
    /// The data was `[DONE]`.
    pub const DONE: Facts = Facts(1 << 11);
    /// The event ended a `text_completion` object rather than a chat one.
    pub const COMPLETION: Facts = Facts(1 << 12);
    /// A comment line (`: ping`) and no data.
    pub const COMMENT: Facts = Facts(1 << 13);

    /// Whether every bit of `other` is set.
    #[must_use]
    pub const fn has(self, other: Facts) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any bit of `other` is set.
    #[must_use]
    pub const fn any(self, other: Facts) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the event carried output of the model: text, reasoning or a tool call; or an empty text without a
    /// role, which is how vLLM sends a token whose bytes do not yet end a character (and its end-of-text token).
    /// The rule of `vllm bench serve` 0.33.0 (`endpoint_request_func.py`, `_choice_has_streamed_output`), with the
    /// older name of the reasoning field added.
    #[must_use]
    pub const fn is_output(self) -> bool {
        self.is_visible() || (self.has(Facts::EMPTY_CONTENT) && !self.has(Facts::ROLE))
    }

    /// Whether a reader can see something of it: text, reasoning or a tool call.
    #[must_use]
    pub const fn is_visible(self) -> bool {
        let visible = Facts::CONTENT.0 | Facts::REASONING.0 | Facts::REASONING_CONTENT.0 | Facts::TOOL_CALL.0;
        self.any(Facts(visible))
    }

    /// Whether it carries reasoning, under either name.
    #[must_use]
    pub const fn is_reasoning(self) -> bool {
        self.any(Facts::REASONING.with(Facts::REASONING_CONTENT))
    }

    /// Both sets of bits.
    #[must_use]
    pub const fn with(self, other: Facts) -> Facts {
        Facts(self.0 | other.0)
    }
}

/// The server's own token counts for one request.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Usage {
    /// `usage.prompt_tokens`; of the responses API, `usage.input_tokens`.
    pub prompt_tokens: u32,
    /// `usage.completion_tokens`, of all choices; of the responses API, `usage.output_tokens`.
    pub completion_tokens: u32,
    /// `usage.prompt_tokens_details.cached_tokens` (or of `input_tokens_details`), where sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_tokens: Option<u32>,
    /// `usage.completion_tokens_details.reasoning_tokens` (or of `output_tokens_details`), where sent: how many of the
    /// completion's tokens are reasoning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_tokens: Option<u32>,
}

/// The server's own times for one request (`metrics` of an event; vLLM sends it with the last usage event, if asked).
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ServerTimes {
    /// `metrics.queue_time_ms`: in the server's queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_ms: Option<f64>,
    /// `metrics.time_to_first_token_ms`: the server's own TTFT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<f64>,
}

/// How a request ended. Each request of a run has exactly one outcome, so that requests in = requests out.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// Never sent: the run was interrupted first.
    #[default]
    NotSent,
    /// A complete response with at least one token, or one embedding.
    Success,
    /// Cut off because the run was interrupted.
    Cancelled,
    /// Broken off on purpose, as by a user who has seen enough: neither a success nor a failure.
    CancelledOnPurpose,
    /// No connection could be opened.
    Connect {
        /// The system's reason.
        message: String,
    },
    /// The response was not complete within the request's time limit.
    Timeout {
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// A status other than 200.
    Status {
        /// The response's body, its first 4 KiB.
        body: String,
    },
    /// An error event inside a 200 response.
    InBand {
        /// The event's data, its first 4 KiB.
        message: String,
    },
    /// The connection closed, or broke, before the response was complete.
    Truncated {
        /// What was seen.
        message: String,
    },
    /// A complete response that held no token.
    NoTokens,
    /// Bytes that are not HTTP, not a stream of events, or not JSON where JSON was due.
    Protocol {
        /// What was seen.
        message: String,
    },
}

impl Outcome {
    /// The outcome's name as it stands in the files: `success`, `connect`, `timeout`, …
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Outcome::NotSent => "not_sent",
            Outcome::Success => "success",
            Outcome::Cancelled => "cancelled",
            Outcome::CancelledOnPurpose => "cancelled_on_purpose",
            Outcome::Connect { .. } => "connect",
            Outcome::Timeout { .. } => "timeout",
            Outcome::Status { .. } => "status",
            Outcome::InBand { .. } => "in_band",
            Outcome::Truncated { .. } => "truncated",
            Outcome::NoTokens => "no_tokens",
            Outcome::Protocol { .. } => "protocol",
        }
    }

    /// What was seen, in words, where there is more to say than the kind.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        match self {
            Outcome::Connect { message }
            | Outcome::InBand { message }
            | Outcome::Truncated { message }
            | Outcome::Protocol { message } => Some(message.clone()),
            Outcome::Timeout { limit_ms } => Some(format!("no complete response within {limit_ms} ms")),
            Outcome::Status { body } => Some(body.clone()),
            Outcome::NoTokens => Some("a complete response without a token".to_owned()),
            Outcome::NotSent | Outcome::Success | Outcome::Cancelled | Outcome::CancelledOnPurpose => None,
        }
    }

    /// Whether the request succeeded.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self, Outcome::Success)
    }

    /// Whether the request was sent and failed by itself (not because it was cut off from this side).
    #[must_use]
    pub fn is_failure(&self) -> bool {
        !matches!(
            self,
            Outcome::Success | Outcome::NotSent | Outcome::Cancelled | Outcome::CancelledOnPurpose
        )
    }
}

impl Timeline {
    /// The timeline of a request's last attempt, after these that failed.
    #[must_use]
    pub fn after(mut self, mut failed: Vec<Attempt>) -> Self {
        if let Some(first) = failed.first() {
            let last = Attempt::of(&self);
            self.dispatched_ns = first.dispatched_ns;
            failed.push(last);
            self.attempts = failed;
        }
        self
    }

    /// When the client began to send it for the last time.
    #[must_use]
    pub fn last_dispatched_ns(&self) -> Ns {
        self.attempts.last().map_or(self.dispatched_ns, |attempt| attempt.dispatched_ns)
    }

    /// How often it was sent.
    #[must_use]
    pub fn times_sent(&self) -> u64 {
        if self.outcome == Outcome::NotSent { 0 } else { self.attempts.len().max(1) as u64 }
    }

    /// The prompt's tokens: the server's count, else the tape's.
    #[must_use]
    pub fn prompt_tokens(&self) -> Option<u32> {
        self.usage.map(|usage| usage.prompt_tokens).or(self.input_tokens)
    }

    /// What the server said, as far as its reader wanted to hear: nothing where the request failed.
    #[must_use]
    pub fn answer(&self) -> Option<&str> {
        let is_heard = matches!(self.outcome, Outcome::Success | Outcome::CancelledOnPurpose);
        self.text.as_deref().filter(|text| is_heard && !text.is_empty())
    }

    /// The timeline as user space saw it: each read at the moment it returned.
    #[must_use]
    pub fn as_read(mut self) -> Self {
        for (at_ns, late_ns) in self.reads.at_ns.iter_mut().zip(self.reads.late_ns.drain(..)) {
            *at_ns = at_ns.saturating_add(Ns::from(late_ns));
        }
        self.end_ns = self.end_ns.max(self.reads.at_ns.last().copied().unwrap_or(0));
        self
    }

    /// When event `i` arrived: the stamp of the read that completed it.
    ///
    /// # Panics
    ///
    /// When `i` is not an event of this timeline.
    #[must_use]
    pub fn event_ns(&self, i: usize) -> Ns {
        self.reads.at_ns[self.events.read[i] as usize]
    }

    /// When the response's first byte arrived: the first read that returned bytes.
    #[must_use]
    pub fn first_byte_ns(&self) -> Option<Ns> {
        self.reads.at_ns.first().copied()
    }

    /// When the first event arrived of which `is_wanted`.
    pub fn first_event_ns(&self, is_wanted: impl Fn(Facts) -> bool) -> Option<Ns> {
        self.stamped_events().find(|(_, facts)| is_wanted(*facts)).map(|(at, _)| at)
    }

    /// Each event's arrival and what it carried, in order.
    pub fn stamped_events(&self) -> impl Iterator<Item = (Ns, Facts)> + '_ {
        (0..self.events.len()).map(|i| (self.event_ns(i), self.events.facts[i]))
    }
}
