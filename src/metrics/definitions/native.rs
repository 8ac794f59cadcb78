//! The answers of `native`.

use super::Question;

pub(super) fn answer(question: Question) -> &'static str {
    match question {
        Question::Start => "dispatch: just before the first byte is handed to the transport",
        Question::FirstToken => "first output event",
        Question::Token => "every output event",
        Question::Itl => "gaps between output events, pooled over the requests",
        Question::End => "`[DONE]`; without it the last event; without events the end of the body",
        Question::Tpot => "(last − first output event) / (tokens − 1), each request with more than one token",
        Question::OutputTokens => "usage, else the number of output events, and the report says for how many",
        Question::InputTokens => "usage, else the tape's own count",
        Question::NoToken => "failure",
        Question::Errors => "failure; failure",
        Question::Completions => "as chat",
        Question::Comments => "no effect",
        Question::Counted => {
            "successes: complete 200 responses with at least one token; failures are counted by kind"
        }
        Question::Duration => {
            "the measured window: from just before the first request to just after the last ended"
        }
        Question::Rates => {
            "successful requests, output tokens, input and output tokens / the measured window"
        }
        Question::Percentiles => "interpolated linearly, as numpy does",
        Question::Sums => "numpy ≥ 2.3; standard deviation of the population",
        Question::Rounding => "none in JSON; the table shows what fits",
        Question::Empty => "0, with a count of 0 beside it",
        Question::Peaks => {
            "the most requests between dispatch and end at one moment, exactly; failures count"
        }
        Question::Queueing => "TTFT and E2EL also from the scheduled time",
        Question::Goodput | Question::Speculation => "none",
        Question::Units => "the unit is part of each key",
    }
}
