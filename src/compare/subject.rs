//! What is compared: a run of ours, or what another tool left of one.

use super::figures;
use super::metric::{Figures, Metric};
use crate::metrics::{Dialect, Measurement};
use crate::run::Run;
use crate::timeline::{Ns, Timeline};

/// A run of ours, or what another tool left of one.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What it was asked for by.
    pub name: String,
    /// What measured it, as far as its files tell: `vllm bench serve 0.30 or later`.
    pub tool: String,
    /// Whose definitions [`Subject::own`] follows.
    pub dialect: Dialect,
    /// Its figures: of another tool as that tool states them, of a run under the dialect.
    pub own: Figures,
    /// What is kept of each request.
    pub record: Record,
    /// How it was sent.
    pub traffic: Traffic,
    /// The digest of what was sent, where it is known.
    pub workload_digest: Option<String>,
    /// What a reader should know beside the figures.
    pub notes: Vec<String>,
    /// The tool's own table, where its files and its version tell all that is in it.
    pub table: Option<String>,
}

/// What is kept of each request.
#[derive(Clone, Debug, Default)]
pub enum Record {
    /// Nothing: there are only figures.
    #[default]
    None,
    /// What another tool made of each request.
    Samples(Vec<Sample>),
    /// Everything: any dialect can be computed.
    Timelines {
        /// In tape order.
        timelines: Vec<Timeline>,
        /// The measured window.
        duration_ns: Ns,
    },
}

/// One request as another tool saved it. Seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Whether it counts.
    pub success: bool,
    /// The send, on a clock of the tool's own.
    pub start: Option<f64>,
    /// Time to first token.
    pub ttft: f64,
    /// Gaps between tokens.
    pub itl: Vec<f64>,
    /// From the send to the end.
    pub latency: Option<f64>,
    /// Prompt tokens.
    pub input_tokens: u32,
    /// Output tokens.
    pub output_tokens: u32,
}

/// How requests were sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traffic {
    /// The most requests in flight; none where there was no limit.
    pub concurrency: Option<u32>,
    /// Requests a second asked for; none where they were sent as fast as the limit let them.
    pub request_rate: Option<f64>,
    /// How a run's schedule drew its times; none where there was no schedule, and of other tools.
    pub arrival: Option<String>,
}

impl Traffic {
    /// In words: `concurrency 50, no rate`.
    #[must_use]
    pub fn words(&self) -> String {
        let limit = self.concurrency.map_or("no limit".to_owned(), |limit| format!("concurrency {limit}"));
        let rate = self.request_rate.map_or("no rate".to_owned(), |rate| format!("{rate} req/s"));
        let arrival = self.arrival.as_ref().map_or(String::new(), |arrival| format!(" ({arrival})"));
        format!("{limit}, {rate}{arrival}")
    }

    /// Whether a request is sent because another one has ended, rather than because its time has come.
    #[must_use]
    pub fn is_closed_loop(&self) -> bool {
        self.request_rate.is_none() && self.arrival.is_none()
    }

    /// Whether limit and rate are the same, as far as both are known: other tools do not say how they drew their times.
    #[must_use]
    pub fn is_like(&self, other: &Traffic) -> bool {
        let arrivals_agree =
            self.arrival.is_none() || other.arrival.is_none() || self.arrival == other.arrival;
        self.concurrency == other.concurrency && self.request_rate == other.request_rate && arrivals_agree
    }
}

/// A dialect of one tool for the result of another.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{name} was measured by {tool}: it cannot be seen as {dialect}; name a version of its own tool, or see the run \
     that it is compared with as {dialect}"
)]
pub struct NotItsTool {
    /// The result.
    name: String,
    /// What measured it.
    tool: String,
    /// The dialect asked for.
    dialect: Dialect,
}

/// How the figures under a dialect were come by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Basis {
    /// The figures that the subject has by itself.
    Own,
    /// The dialect's statistics over what the tool saved of each request: which event counts as a token stays the
    /// tool's own choice.
    Samples,
    /// The whole dialect, from raw timelines.
    Timelines,
}

impl Subject {
    /// A run of ours, seen through a dialect.
    #[must_use]
    pub fn of_run(name: &str, run: Run, dialect: Dialect) -> Self {
        let Run { info, timelines } = run;
        let mut notes = Vec::new();
        if !info.verdict.valid {
            notes.push(format!("{name} is {}", info.verdict.line()));
        }
        let traffic = Traffic {
            concurrency: info.traffic.concurrency,
            request_rate: info.traffic.request_rate,
            arrival: info.traffic.arrival,
        };
        let mut subject = Self {
            name: name.to_owned(),
            tool: info.created_by,
            dialect,
            own: Figures::default(),
            record: Record::Timelines { timelines, duration_ns: info.duration_ns },
            traffic,
            workload_digest: Some(info.workload.workload_digest),
            notes,
            table: None,
        };
        subject.set_dialect(dialect);
        subject
    }

    /// Looks at a run through another dialect. What another tool measured keeps the dialect it was measured by.
    pub fn set_dialect(&mut self, dialect: Dialect) {
        if let Record::Timelines { timelines, duration_ns } = &self.record {
            self.own = figures::of_timelines(&self.measurement(timelines, *duration_ns), dialect);
            self.dialect = dialect;
        }
    }

    /// Says by which version another tool measured, where its files leave that open. Its figures stay what they are.
    pub fn measured_as(&mut self, dialect: Dialect) -> Result<(), NotItsTool> {
        let same_tool = matches!(
            (self.dialect, dialect),
            (Dialect::Vllm(_), Dialect::Vllm(_)) | (Dialect::Evalscope(_), Dialect::Evalscope(_))
        );
        if !same_tool {
            let Self { name, tool, .. } = self;
            return Err(NotItsTool { name: name.clone(), tool: tool.clone(), dialect });
        }
        self.dialect = dialect;
        Ok(())
    }

    /// Its figures as a dialect defines them, and what they stand on; none where too little is kept.
    #[must_use]
    pub fn figures(&self, dialect: Dialect) -> Option<(Figures, Basis)> {
        if dialect == self.dialect {
            return Some((self.own.clone(), Basis::Own));
        }
        match &self.record {
            Record::None => None,
            Record::Samples(samples) => {
                Some((figures::of_samples(samples, &self.own, dialect), Basis::Samples))
            }
            Record::Timelines { timelines, duration_ns } => {
                let measurement = self.measurement(timelines, *duration_ns);
                Some((figures::of_timelines(&measurement, dialect), Basis::Timelines))
            }
        }
    }

    /// Its figures as a dialect defines them, had the client sent each request the moment it was scheduled, and at once.
    /// None where there are no timelines.
    #[must_use]
    pub fn undelayed(&self, dialect: Dialect) -> Option<Figures> {
        let Record::Timelines { timelines, duration_ns } = &self.record else {
            return None;
        };
        let (timelines, duration_ns) =
            super::client::undelayed(timelines, *duration_ns, self.traffic.is_closed_loop());
        Some(figures::of_timelines(&self.measurement(&timelines, duration_ns), dialect))
    }

    /// Completes its own figures by what its samples give under its dialect: those that it does not state, and those
    /// that it states rounded, where the two are no further apart than `rounding` of that metric.
    pub fn fill_from_samples(&mut self, rounding: impl Fn(Metric) -> f64) {
        let Record::Samples(samples) = &self.record else {
            return;
        };
        let computed = figures::of_samples(samples, &self.own, self.dialect);
        for metric in Metric::all() {
            let near = |value: f64| {
                let stated = self.own.get(metric);
                stated.is_none_or(|stated| (stated - value).abs() <= rounding(metric))
            };
            if let Some(value) = computed.get(metric).filter(|&value| near(value)) {
                self.own.set(metric, value);
            }
        }
    }

    /// Whether this is a run of ours, with all that belongs to one.
    #[must_use]
    pub fn is_run(&self) -> bool {
        matches!(self.record, Record::Timelines { .. })
    }

    /// The mean of a token count over the successes.
    #[must_use]
    pub fn mean_tokens(&self, tokens: Metric) -> Option<f64> {
        let requests = self.own.get(Metric::Succeeded).filter(|&requests| requests > 0.0)?;
        Some(self.own.get(tokens)? / requests)
    }

    fn measurement<'a>(&self, timelines: &'a [Timeline], duration_ns: Ns) -> Measurement<'a> {
        Measurement {
            timelines,
            duration_ns,
            concurrency: self.traffic.concurrency,
            request_rate: self.traffic.request_rate,
        }
    }
}
