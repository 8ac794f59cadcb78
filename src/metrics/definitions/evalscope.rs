//! The answers of `evalscope perf`.

use super::super::evalscope::Version;
use super::Question;

pub(super) fn answer(version: Version, question: Question) -> &'static str {
    match version {
        Version::V1_1_1 => older(question),
        Version::V1_14_1 => newer(question),
    }
}

fn older(question: Question) -> &'static str {
    match question {
        Question::FirstToken => "first event with `choices`: in chat the role-only one counts",
        Question::Token => "every event with `choices`, the finish event too",
        Question::Itl => {
            "from each event with `choices` back to the JSON event before; pooled in the percentiles"
        }
        Question::Tpot => "(latency − TTFT) / (tokens − 1); one-token replies count as 0",
        Question::OutputTokens => {
            "usage of an event without `choices`, else of the last event with `choices`, else a count of the text"
        }
        Question::NoToken => "success with a TTFT of 0",
        Question::Errors => "no failure by itself; failure",
        Question::Completions => "every reply with a token fails: it looks for `delta`",
        Question::Comments => "swallows what follows until a read holds two events",
        Question::Duration => "first send to last completion of a success",
        Question::Rates => {
            "over the duration, computed before each record's own times count: one record late, and over 1.0 s for a \
             single request"
        }
        Question::Percentiles => "the value at `int(n·p/100)` of the sorted values",
        Question::Rounding => "4 digits",
        Question::Empty => "−1 for averages, NaN for percentiles",
        Question::Speculation => "none",
        Question::Units => "s everywhere",
        _ => newer(question),
    }
}

fn newer(question: Question) -> &'static str {
    match question {
        Question::Start => "dispatch; connecting and waiting for a free connection of the pool are inside",
        Question::FirstToken => "first event with something to see: text, reasoning or a tool call",
        Question::Token => "every event with something to see",
        Question::Itl => "gaps between tokens, one an event however many tokens it holds, pooled",
        Question::End => "the last JSON event, the usage event too",
        Question::Tpot => {
            "(latency − TTFT) / (tokens − 1), each request with more than one token; replies that are no stream count \
             only where there is no stream"
        }
        Question::OutputTokens => "usage of any event, else a count of the text",
        Question::InputTokens => "usage, else the client's own count (the tape's)",
        Question::NoToken => "success with a TTFT of 0",
        Question::Errors => "failure; failure",
        Question::Completions => "as chat",
        Question::Comments => "no effect",
        Question::Counted => "successes: a 200 response read to its end, with what the rows above ask for",
        Question::Duration => "first send to last end, failures included",
        Question::Rates => {
            "successful requests, their output tokens, their input and output tokens / the duration"
        }
        Question::Percentiles => {
            "the value at `ceil(n·p/100) − 1` of the sorted values, their least and their greatest; TPOT leaves replies \
             of one token out"
        }
        Question::Sums => "left to right, in order of completion; no spread",
        Question::Rounding => "4 digits; in the summary TTFT, TPOT and ITL 2 digits",
        Question::Empty => "−1 for averages (−1000 for TTFT and TPOT), 0 for ITL, NaN for percentiles",
        Question::Goodput | Question::Peaks => "none",
        Question::Queueing => "not seen: TTFT and latency leave it out",
        Question::Speculation => {
            "from the events with `choices` from the first output on: tokens an event L = (tokens − 1) / (events − 1), \
             the mean of the requests where it is above 1; accept rate 1 − 1/L"
        }
        Question::Units => "latency in s; TTFT, TPOT and ITL in ms",
    }
}
