//! What each dialect means by its figures, question by question: the text of `docs/dialects.md`.
//!
//! Every dialect answers every [`Question`], so that a definition can be compared, and none can be left out. Where a
//! dialect's code asks its version, its answers ask the same methods.

mod evalscope;
mod native;
mod vllm;

use super::Dialect;

/// A question that a dialect's definitions answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Question {
    /// From when a request's latencies count.
    Start,
    /// Which event ends TTFT.
    FirstToken,
    /// Which events are tokens beside the first.
    Token,
    /// What ITL is.
    Itl,
    /// What ends a request.
    End,
    /// What TPOT is.
    Tpot,
    /// How many tokens a reply has.
    OutputTokens,
    /// How many tokens a prompt has.
    InputTokens,
    /// What becomes of a complete reply without a token.
    NoToken,
    /// What becomes of an error event in a response with status 200, and of one cut short.
    Errors,
    /// What becomes of text completions.
    Completions,
    /// What a keep-alive comment does.
    Comments,
    /// Who is counted.
    Counted,
    /// How long the run took.
    Duration,
    /// What the throughputs are.
    Rates,
    /// How percentiles are taken.
    Percentiles,
    /// How values are added up, and what spread is given.
    Sums,
    /// How far figures are rounded.
    Rounding,
    /// What stands where there is no value.
    Empty,
    /// What the peaks are.
    Peaks,
    /// What goodput is.
    Goodput,
    /// What is said of the wait before the send.
    Queueing,
    /// What is said of speculative decoding.
    Speculation,
    /// In which units the figures are.
    Units,
}

impl Question {
    /// Every question, in the order of the table.
    pub const ALL: [Question; 24] = [
        Question::Start,
        Question::FirstToken,
        Question::Token,
        Question::Itl,
        Question::End,
        Question::Tpot,
        Question::OutputTokens,
        Question::InputTokens,
        Question::NoToken,
        Question::Errors,
        Question::Completions,
        Question::Comments,
        Question::Counted,
        Question::Duration,
        Question::Rates,
        Question::Percentiles,
        Question::Sums,
        Question::Rounding,
        Question::Empty,
        Question::Peaks,
        Question::Goodput,
        Question::Queueing,
        Question::Speculation,
        Question::Units,
    ];

    /// The question in words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Question::Start => "the clock starts",
            Question::FirstToken => "first token (TTFT)",
            Question::Token => "other tokens",
            Question::Itl => "ITL",
            Question::End => "end of a request (E2EL)",
            Question::Tpot => "TPOT",
            Question::OutputTokens => "output tokens",
            Question::InputTokens => "input tokens",
            Question::NoToken => "a complete reply without a token",
            Question::Errors => "an error event in a 200 response; a response cut short",
            Question::Completions => "text completions",
            Question::Comments => "a `: ping` at the end of a read",
            Question::Counted => "who is counted",
            Question::Duration => "duration of the run",
            Question::Rates => "throughputs",
            Question::Percentiles => "percentiles",
            Question::Sums => "sums and spread",
            Question::Rounding => "rounding",
            Question::Empty => "no value at all",
            Question::Peaks => "peaks",
            Question::Goodput => "goodput",
            Question::Queueing => "the wait before the send",
            Question::Speculation => "speculative decoding",
            Question::Units => "units",
        }
    }
}

impl Dialect {
    /// The dialect's answer to a question.
    #[must_use]
    pub fn definition(self, question: Question) -> &'static str {
        match self {
            Dialect::Evalscope(version) => evalscope::answer(version, question),
            Dialect::Native => native::answer(question),
            Dialect::Vllm(version) => vllm::answer(version, question),
        }
    }

    /// The dialect's answers to all questions.
    #[must_use]
    pub fn definitions(self) -> Vec<(Question, &'static str)> {
        Question::ALL.into_iter().map(|question| (question, self.definition(question))).collect()
    }
}

/// `docs/dialects.md`: one table of all questions and answers, dialects of one answer together.
#[must_use]
pub fn document() -> String {
    let mut text = INTRODUCTION.to_owned();
    for question in Question::ALL {
        let mut answers: Vec<(&str, Vec<String>)> = Vec::new();
        for dialect in Dialect::ALL {
            let (answer, name) = (dialect.definition(question), format!("`{dialect}`"));
            match answers.iter_mut().find(|(known, _)| *known == answer) {
                Some((_, dialects)) => dialects.push(name),
                None => answers.push((answer, vec![name])),
            }
        }
        let mut first = question.text();
        for (answer, dialects) in answers {
            text += &format!("| {first} | {} | {answer} |\n", dialects.join(", "));
            first = "";
        }
    }
    text
}

const INTRODUCTION: &str = "\
<!-- Written by `tokentape::metrics::definitions`; UPDATE_DOCS=1 cargo test -p tokentape --lib definitions writes it anew. -->

# What each dialect means

All dialects read the same raw timelines, so where two of them disagree about one run, the definitions in this table
differ and nothing else. An *output event* is an event that carries output of the model: text, reasoning or a tool
call, or empty text without a role, which is a token that cannot be shown yet or ever. *Usage* is the server's own
count of tokens. Only `choices[0]` of an event is looked at.

What a dialect cannot know: the peers stamp an event when their Python gets to it, some versions before and some after
they have parsed its JSON; here every event has the stamp of the socket read that brought it, the kernel's own where
it tells. A dialect gives the figures the peer would print if it read its sockets without delay.

| | dialect | definition |
|---|---|---|
";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_document_is_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/dialects.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, document()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(written == document(), "docs/dialects.md is not what the code says; see its first line");
    }

    #[test]
    fn every_answer_fits_a_cell() {
        for dialect in Dialect::ALL {
            for (question, answer) in dialect.definitions() {
                assert!(!answer.is_empty() && !answer.contains(['|', '\n']), "{dialect}: {question:?}");
            }
        }
    }
}
