//! The answers of `vllm bench serve`.

use super::super::vllm::Version;
use super::Question;

pub(super) fn answer(version: Version, question: Question) -> &'static str {
    match question {
        Question::Start => "dispatch; connecting and waiting for a free connection of the pool are inside",
        Question::FirstToken if version.any_choice_is_a_chat_token() => {
            "first event with `choices`: in chat the role-only one counts"
        }
        Question::FirstToken => {
            "first output event (`reasoning_content`, the older name, is not known); in completions the first event \
             with `choices`"
        }
        Question::Token if version.any_choice_is_a_chat_token() => {
            "every event with `choices`, the finish event too"
        }
        Question::Token => {
            "every output event (without `reasoning_content`); in completions every event with `choices`"
        }
        Question::Itl if version.any_event_ends_chat() => {
            "one gap an event, pooled; in chat a gap starts at any JSON event before"
        }
        Question::Itl => "gaps between tokens, one an event however many tokens it holds, pooled",
        Question::End if version.any_event_ends_chat() => {
            "chat: the last JSON event, the usage event too; completions: the last token"
        }
        Question::End => "the last token: neither usage nor `[DONE]`",
        Question::Tpot => {
            "(latency − TTFT) / (tokens − 1), each request with more than one token; the others count as 0 for goodput \
             alone"
        }
        Question::OutputTokens => {
            "usage of an event that is no token (usage elsewhere is ignored), else a count of the text"
        }
        Question::InputTokens if version.takes_prompt_len_from_usage() => {
            "usage of an event that is no token, else the client's own count (the tape's)"
        }
        Question::InputTokens => "the client's own count (the tape's)",
        Question::NoToken if version.empty_chat_succeeds() => {
            "chat: success with a TTFT of 0; completions: failure"
        }
        Question::NoToken => "failure",
        Question::Errors => "no failure by itself, if a token came before; failure",
        Question::Completions => "as described",
        Question::Comments if version.strips_reads() => "swallows what follows until a read holds two events",
        Question::Comments => "no effect",
        Question::Counted => "successes: a 200 response read to its end, with what the rows above ask for",
        Question::Duration => {
            "the measured window: from before the first request is made to after the last ended, failures included"
        }
        Question::Rates => {
            "successful requests, their output tokens, their input and output tokens / the duration"
        }
        Question::Percentiles => "interpolated linearly (numpy); the 99th unless asked",
        Question::Sums if version > Version::V0_11_0 => {
            "numpy ≥ 2.3; standard deviation of the population, only in JSON"
        }
        Question::Sums => {
            "numpy ≤ 2.2 (runs of 8192 values); standard deviation of the population, only in JSON"
        }
        Question::Rounding => "none in JSON; two digits in the table",
        Question::Empty => "0",
        Question::Peaks => {
            "the most token events in one second counted from the first send, as tokens a second; the most requests \
             that touched one such second, as concurrency: often far above the limit"
        }
        Question::Goodput => "successes that meet every objective on TTFT, TPOT and E2EL / the duration",
        Question::Queueing if version.reports_queueing() => {
            "`queue_times` in the file; with a limit, Client Queue Time, and with a rate too, E2EL incl. Client Queue, \
             both on request; TTFT and E2EL leave the wait out"
        }
        Question::Queueing => "not seen: TTFT and E2EL leave it out",
        Question::Speculation if version.reports_counters() => {
            "from the server's counters before and after: accepted / drafted tokens, 1 + accepted tokens / drafts, and \
             each position's share"
        }
        Question::Speculation => "none",
        Question::Units => "arrays in s, statistics in ms, throughputs in 1/s",
    }
}
