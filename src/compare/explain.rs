//! A difference split into its causes.
//!
//! From the first subject's figure to the second one's leads a chain of steps, each of which changes one thing; a part
//! is what its step changes, and the last part is what is left of the difference:
//!
//! ```text
//! A as A's dialect defines it ─ definition ─► A as both are now defined ─ client ─► A without its client's delay
//!   ─ workload, traffic, rest ─► B without its client's delay ─ client ─► B so defined ─ definition ─► B
//! ```
//!
//! Parts are counted in whole units of the last printed decimal, so that those printed sum exactly to the difference
//! printed. A part that cannot be computed is left out, and so is in the rest; its note says why.

mod predict;

use serde_json::json;

use super::metric::{Figures, Latency, Metric, Statistic, from_steps, in_steps, shown};
use super::subject::{Basis, Subject};
use crate::metrics::definitions::Question;
use crate::metrics::{Dialect, vllm};
use predict::{Lengths, Workload};

/// What a part of a difference comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// The figures are defined differently.
    Definition,
    /// Other prompts, or other numbers of tokens asked for.
    Workload,
    /// The time a client spent before its requests were with the kernel.
    Client,
    /// Other limits, another rate, another ramp or tail.
    Traffic,
    /// What none of the others explains.
    Rest,
}

impl Cause {
    /// In the order of the chain.
    pub const ALL: [Cause; 5] =
        [Cause::Definition, Cause::Workload, Cause::Client, Cause::Traffic, Cause::Rest];

    /// Its name in tables and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Definition => "definition",
            Cause::Workload => "workload",
            Cause::Client => "client",
            Cause::Traffic => "traffic",
            Cause::Rest => "rest",
        }
    }
}

/// All differences of two subjects, split.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Each metric that both have.
    pub differences: Vec<Difference>,
    /// What each part stands for here, in the order of [`Cause::ALL`].
    pub notes: [String; 5],
    names: [String; 2],
    dialects: [Dialect; 2],
    counts_alike: bool,
}

/// One metric's difference. Numbers are whole units of the last printed decimal: see [`in_steps`].
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Which.
    pub metric: Metric,
    /// The second figure less the first.
    pub whole: i64,
    /// Its parts, in the order of [`Cause::ALL`]; none where a part cannot be told from the rest. They sum to
    /// `whole`.
    pub parts: [Option<i64>; 5],
}

impl Difference {
    /// The cause of the largest part that goes the way of the whole; none where there is no difference.
    #[must_use]
    pub fn main_cause(&self) -> Option<Cause> {
        let with_it =
            |steps: i64| (self.whole != 0 && steps.signum() == self.whole.signum()).then_some(steps.abs());
        let largest = |part: &(Cause, i64)| part.1;
        let parts = Cause::ALL.into_iter().zip(self.parts);
        let sized = parts.filter_map(|(cause, steps)| Some((cause, with_it(steps?)?)));
        // Of equals the last one would be taken: the rest. The others explain more.
        sized.rev().max_by_key(largest).map(|(cause, _)| cause)
    }
}

/// Splits each difference between two subjects.
#[must_use]
pub fn explain(a: &Subject, b: &Subject) -> Explanation {
    let common = Common::of(a, b);
    // A client's delay can be told only where it is known on both sides; else all of it is in the rest.
    let undelayed = a.undelayed(common.dialect).zip(b.undelayed(common.dialect));
    // What cannot be had under the common dialect is good enough to predict from as it is.
    let (from, to) = match &undelayed {
        Some((a, b)) => (a.clone(), b.clone()),
        None => (common.a.or(&a.own), common.b.or(&b.own)),
    };
    let (from, to) = (&from, &to);
    let workload = Workload::of(a, b, from, to, common.counts_alike);

    let difference = |metric: Metric| {
        let (own_a, own_b) = (a.own.get(metric)?, b.own.get(metric)?);
        let whole = in_steps(own_b, metric).saturating_sub(in_steps(own_a, metric));
        // Figures are rounded before they are subtracted, so that a step to the end of the chain leaves no rest.
        let change = |from: &Figures, to: &Figures| {
            Some(in_steps(to.get(metric)?, metric).saturating_sub(in_steps(from.get(metric)?, metric)))
        };
        let both = |first: Option<i64>, second: Option<i64>| Some(first?.saturating_add(second?));
        let defined = common.known && (common.counts_alike || !counts_prompts(metric));
        let definition = both(change(&a.own, &common.a), change(&common.b, &b.own)).filter(|_| defined);
        let client = undelayed.as_ref().and_then(|(undelayed_a, undelayed_b)| {
            both(change(&common.a, undelayed_a), change(undelayed_b, &common.b))
        });
        let predicted =
            |part: Option<f64>| part.filter(|part| part.is_finite()).map(|part| in_steps(part, metric));
        let mut parts = [
            definition,
            predicted(workload.part(metric)),
            client,
            predicted(predict::traffic(metric, a, b, from, to)),
            None,
        ];
        let told = parts.iter().flatten().fold(0i64, |sum, &part| sum.saturating_add(part));
        parts[4] = Some(whole.saturating_sub(told));
        Some(Difference { metric, whole, parts })
    };
    Explanation {
        differences: Metric::all().filter_map(difference).collect(),
        notes: [
            common.words(),
            workload.note(),
            client_note(a, b, &common),
            predict::traffic_note(a, b, from, to),
            rest_note(a, b),
        ],
        names: names(a, b).map(str::to_owned),
        dialects: [a.dialect, b.dialect],
        counts_alike: common.counts_alike,
    }
}

/// Short names: the last part of each path, where those differ.
fn names<'a>(a: &'a Subject, b: &'a Subject) -> [&'a str; 2] {
    let last =
        |subject: &'a Subject| subject.name.trim_end_matches('/').rsplit('/').next().unwrap_or(&subject.name);
    if last(a) == last(b) { [&a.name, &b.name] } else { [last(a), last(b)] }
}

/// Whether prompt tokens are in it.
fn counts_prompts(metric: Metric) -> bool {
    matches!(metric, Metric::InputTokens | Metric::TotalThroughput)
}

/// Both subjects under one dialect, as far as that can be had.
struct Common {
    dialect: Dialect,
    a: Figures,
    b: Figures,
    /// Whether the two are under one dialect.
    known: bool,
    /// Whether both count prompt tokens alike.
    counts_alike: bool,
    note: String,
}

impl Common {
    fn words(&self) -> String {
        let caveat = if self.counts_alike {
            ""
        } else {
            "; one counts prompts itself, the other takes the server's count: of input tokens not known"
        };
        format!("{}{caveat}", self.note)
    }

    /// The side that keeps most is seen through the other side's dialect.
    fn of(a: &Subject, b: &Subject) -> Self {
        let (own_a, own_b) = (a.own.clone(), b.own.clone());
        let [name_a, name_b] = names(a, b);
        if a.dialect == b.dialect {
            let note = format!("both as {}", a.dialect);
            return Self { dialect: a.dialect, a: own_a, b: own_b, known: true, counts_alike: true, note };
        }
        let full = |subject: &Subject, dialect: Dialect| {
            subject.figures(dialect).filter(|(_, basis)| *basis == Basis::Timelines)
        };
        let whole = |name: &str, from: Dialect, to: Dialect| {
            format!("the timelines of {name} as {to} in place of {from}")
        };
        if let Some((seen, _)) = full(a, b.dialect) {
            let note = whole(name_a, a.dialect, b.dialect);
            return Self { dialect: b.dialect, a: seen, b: own_b, known: true, counts_alike: true, note };
        }
        if let Some((seen, _)) = full(b, a.dialect) {
            let note = whole(name_b, a.dialect, b.dialect);
            return Self { dialect: a.dialect, a: own_a, b: seen, known: true, counts_alike: true, note };
        }
        let counts_alike = counts_prompts_itself(a.dialect) == counts_prompts_itself(b.dialect);
        let statistics = |name: &str, dialect: Dialect| {
            format!(
                "the statistics of {dialect} over what {name} keeps of each request; which event counts as a token \
                 cannot be changed afterwards"
            )
        };
        let as_b = a.figures(b.dialect).map(|(seen, _)| seen);
        let as_a = b.figures(a.dialect).map(|(seen, _)| seen);
        let has = |seen: &Option<Figures>| seen.as_ref().map_or(0, Figures::count);
        let b_keeps_more = has(&as_a) > has(&as_b);
        if let Some(seen) = as_b.filter(|_| !b_keeps_more) {
            let note = statistics(name_a, b.dialect);
            return Self { dialect: b.dialect, a: seen, b: own_b, known: true, counts_alike, note };
        }
        if let Some(seen) = as_a {
            let note = statistics(name_b, a.dialect);
            return Self { dialect: a.dialect, a: own_a, b: seen, known: true, counts_alike, note };
        }
        let note = format!(
            "not known: neither file keeps single requests, so {} cannot be seen as {}",
            a.name, b.dialect
        );
        Self { dialect: a.dialect, a: own_a, b: own_b, known: false, counts_alike, note }
    }
}

/// Before 0.20, `vllm bench serve` reports its own count of the prompt, without the chat template; the others report
/// the server's.
fn counts_prompts_itself(dialect: Dialect) -> bool {
    dialect == Dialect::Vllm(vllm::Version::V0_11_0)
}

/// What the client's part stands for; of a run that is held against another tool, what its own client added.
fn client_note(a: &Subject, b: &Subject, common: &Common) -> String {
    if a.is_run() && b.is_run() {
        return "late dispatch, connecting and writing, as both runs recorded them".to_owned();
    }
    let mut note = format!("not known: when requests were due and written is not in {}", foreign_names(a, b));
    for (subject, seen, name) in [(a, &common.a, names(a, b)[0]), (b, &common.b, names(a, b)[1])] {
        let added = subject
            .undelayed(common.dialect)
            .and_then(|undelayed| Some(seen.get(MEAN_TTFT)? - undelayed.get(MEAN_TTFT)?));
        if let Some(added) = added {
            let added = shown(in_steps(added, MEAN_TTFT), MEAN_TTFT, false);
            note += &format!("; the client of {name} added {added} ms to its mean TTFT");
        }
    }
    note
}

const MEAN_TTFT: Metric = Metric::Latency(Latency::Ttft, Statistic::Mean);

fn rest_note(a: &Subject, b: &Subject) -> String {
    let mut causes = Vec::new();
    if !a.traffic.is_like(&b.traffic) {
        causes.push("the other traffic".to_owned());
    }
    if a.is_run() && b.is_run() {
        causes.push("server, network and chance".to_owned());
    } else {
        causes.push(format!("client and server (not separable from {})", foreign_names(a, b)));
    }
    causes.join(", ")
}

/// What of the two is another tool's.
fn foreign_names(a: &Subject, b: &Subject) -> String {
    let named = [a, b].into_iter().zip(names(a, b));
    let foreign: Vec<&str> = named.filter(|(subject, _)| !subject.is_run()).map(|(_, name)| name).collect();
    foreign.join(" and ")
}

impl Explanation {
    /// What the two dialects define differently, of all that the neutral figures rest on: each question, and both
    /// answers.
    #[must_use]
    pub fn definitions(&self) -> Vec<(Question, [&'static str; 2])> {
        const QUESTIONS: [Question; 13] = [
            Question::FirstToken,
            Question::Token,
            Question::Itl,
            Question::End,
            Question::Tpot,
            Question::OutputTokens,
            Question::InputTokens,
            Question::NoToken,
            Question::Duration,
            Question::Rates,
            Question::Percentiles,
            Question::Sums,
            Question::Rounding,
        ];
        let answers =
            QUESTIONS.map(|question| (question, self.dialects.map(|dialect| dialect.definition(question))));
        answers.into_iter().filter(|(_, [a, b])| a != b).collect()
    }

    /// The two dialects.
    #[must_use]
    pub fn dialects(&self) -> [Dialect; 2] {
        self.dialects
    }

    /// One sentence: how much higher or lower, of what parts, and mainly why.
    #[must_use]
    pub fn sentence(&self, difference: &Difference) -> String {
        let Difference { metric, whole, parts } = difference;
        let [a, b] = &self.names;
        let label = metric.label();
        let Some(main) = difference.main_cause() else {
            return format!("{label}: no difference.");
        };
        let unit = match metric.unit() {
            "" => String::new(),
            unit => format!(" {unit}"),
        };
        let way = if *whole > 0 { "higher" } else { "lower" };
        let told = Cause::ALL.into_iter().zip(parts).filter_map(|(cause, steps)| {
            let steps = steps.filter(|&steps| steps != 0 || cause == Cause::Rest)?;
            Some(match cause {
                Cause::Rest => format!("{} the rest", shown(steps, *metric, true)),
                cause => format!("{} from {}", shown(steps, *metric, true), cause.name()),
            })
        });
        let why = match main {
            Cause::Rest if counts_prompts(*metric) && !self.counts_alike => {
                "one counts prompts itself, the other takes the server's count".to_owned()
            }
            Cause::Rest => self.notes[4].clone(),
            cause => cause.name().to_owned(),
        };
        format!(
            "{label}: {b} is {}{unit} {way} than {a}: {}. Mainly: {why}.",
            shown(whole.saturating_abs(), *metric, false),
            told.collect::<Vec<_>>().join(", "),
        )
    }

    /// As JSON, numbers in the metrics' units.
    pub(super) fn json(&self) -> serde_json::Value {
        let notes: serde_json::Map<_, _> = Cause::ALL
            .iter()
            .zip(&self.notes)
            .map(|(cause, note)| (cause.name().to_owned(), json!(note)))
            .collect();
        let differences: Vec<_> = self
            .differences
            .iter()
            .map(|difference| {
                let number = |steps: i64| from_steps(steps, difference.metric);
                let parts: serde_json::Map<_, _> = Cause::ALL
                    .iter()
                    .zip(difference.parts)
                    .map(|(cause, steps)| (cause.name().to_owned(), json!(steps.map(number))))
                    .collect();
                json!({
                    "metric": difference.metric,
                    "unit": difference.metric.unit(),
                    "difference": number(difference.whole),
                    "parts": parts,
                    "main_cause": difference.main_cause().map(Cause::name),
                    "sentence": self.sentence(difference),
                })
            })
            .collect();
        let definitions: Vec<_> = self
            .definitions()
            .into_iter()
            .map(|(question, [a, b])| json!({ "question": question.text(), "a": a, "b": b }))
            .collect();
        json!({ "causes": notes, "definitions": definitions, "differences": differences })
    }
}

impl Workload<'_> {
    fn note(&self) -> String {
        match &self.lengths {
            Lengths::SameRequests => "none: both sent the same requests (one workload digest)".to_owned(),
            Lengths::Same => {
                "none: the same numbers of requests and tokens (the prompts themselves are not checked)"
                    .to_owned()
            }
            Lengths::Unknown => "not known: the numbers of tokens are not kept".to_owned(),
            Lengths::Differ { input, output, .. } => {
                let [input_a, input_b] = input;
                let [output_a, output_b] = output;
                let caveat = if self.counts_alike {
                    ""
                } else {
                    "; vLLM before 0.20 counts prompts without the chat template, so input lengths are left out"
                };
                format!(
                    "predicted from mean lengths: input {input_a:.1} against {input_b:.1} tokens, output {output_a:.1} \
                     against {output_b:.1}{caveat}"
                )
            }
        }
    }
}
