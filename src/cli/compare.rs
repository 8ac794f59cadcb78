//! `tokentape compare`: runs, and other tools' results, side by side.

use std::path::{Path, PathBuf};

use super::{Failure, Outcome, output};
use crate::compare::tolerance::Tolerance;
use crate::compare::{Comparison, Explanation, Subject, Tolerances, compare};
use crate::metrics::Dialect;
use crate::run::Run;
use crate::{convert, report};

/// Compare runs, or other tools' results, metric by metric.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Args {
    /// Runs' folders, vLLM result files, evalscope output folders, each as PATH or PATH@DIALECT: at least two; each is
    /// held against the first
    #[arg(value_name = "PATH[@DIALECT]", num_args = 2.., required = true)]
    subjects: Vec<String>,
    /// Whose definitions are used for runs [default: native between runs, the other tool's against its result]
    #[arg(long, value_name = "DIALECT")]
    dialect: Option<Dialect>,
    /// How far figures may be apart, either way: 3%, or for some metrics ttft=5%; may be repeated
    #[arg(long = "tolerance", value_name = "[METRIC=]P%")]
    tolerances: Vec<Tolerance>,
    /// Exit with 1 when a figure is beyond its tolerance
    #[arg(long)]
    gate: bool,
    /// Split each difference into definition, workload, client, traffic and rest
    #[arg(long)]
    explain: bool,
    /// Compare runs that did not send the same requests
    #[arg(long)]
    different_workloads: bool,
    /// The form of the output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Write to this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Format {
    /// A table for each comparison
    Table,
    /// JSON
    Json,
    /// One HTML page with charts, which needs nothing else
    Html,
}

const EXAMPLES: &str = "\
Examples:
  tokentape compare runs/before runs/after --tolerance 3% --tolerance p99=10% --gate
  tokentape compare runs/before runs/after --format html -o compare.html
  tokentape compare runs/first vllm-result.json --explain
  tokentape compare runs/first outputs/20261124_120000/my-model/parallel_50_number_500 --explain
  tokentape compare runs/first@vllm-0.11.0 runs/first@evalscope-1.1.1 --explain

The tolerance is 3 % where none is given. Standard deviations are shown, and judged only when named (std=20%).
docs/compare.md says how differences are split.";

/// A comparison, and what explains it where that was asked for.
type Compared<'a> = (Comparison<'a>, Option<Explanation>);

pub(super) fn exec(args: Args) -> Outcome {
    let named: Vec<Named> = args.subjects.iter().map(|text| Named::parse(text)).collect::<Result<_, _>>()?;
    let mut subjects: Vec<Subject> = named.iter().map(Named::load).collect::<Result<_, _>>()?;
    see_alike(&mut subjects, &named, args.dialect);

    let tolerances = Tolerances::new(&args.tolerances);
    let [a, others @ ..] = subjects.as_slice() else {
        return Err(Failure::usage("nothing to compare: name at least two"));
    };
    let mut beyond = Vec::new();
    let mut comparisons = Vec::new();
    for b in others {
        let comparison = compare(a, b, &tolerances, args.different_workloads).map_err(Failure::run)?;
        let explanation = args.explain.then(|| comparison.explain());
        beyond.extend(
            comparison.beyond().into_iter().map(|metric| format!("{} of {}", metric.label(), b.name)),
        );
        comparisons.push((comparison, explanation));
    }
    let bytes = match if args.json { Format::Json } else { args.format } {
        Format::Table => {
            let table = |(comparison, why): &Compared<'_>| comparison.table(why.as_ref());
            comparisons.iter().map(table).collect::<Vec<_>>().join("\n").into_bytes()
        }
        Format::Json => {
            let object = |(comparison, why): &Compared<'_>| comparison.json(why.as_ref());
            let objects: Vec<_> = comparisons.iter().map(object).collect();
            format!("{:#}\n", serde_json::json!({ "comparisons": objects })).into_bytes()
        }
        Format::Html => report::html::comparison(&comparisons),
    };
    output::write(args.output.as_deref(), &bytes)?;
    if args.gate && !beyond.is_empty() {
        return Err(Failure::run(format_args!("beyond tolerance: {}", beyond.join(", "))));
    }
    Ok(())
}

/// Gives every run a dialect that was not named one: the one asked for, else that of the first result of another tool,
/// else native.
fn see_alike(subjects: &mut [Subject], named: &[Named], asked: Option<Dialect>) {
    let foreign = subjects.iter().find(|subject| !subject.is_run()).map(|subject| subject.dialect);
    let dialect = asked.or(foreign).unwrap_or_default();
    for (subject, named) in subjects.iter_mut().zip(named) {
        if subject.is_run() && named.dialect.is_none() {
            subject.set_dialect(dialect);
        }
    }
}

/// What was asked for: `PATH` or `PATH@DIALECT`.
#[derive(Debug, PartialEq)]
struct Named {
    text: String,
    path: PathBuf,
    dialect: Option<Dialect>,
}

impl Named {
    fn parse(text: &str) -> Result<Self, Failure> {
        let whole = |path: &str, dialect| Self { text: text.to_owned(), path: path.into(), dialect };
        match text.rsplit_once('@') {
            Some((path, name)) if !Path::new(text).exists() => {
                let dialect = name.parse::<Dialect>().map_err(Failure::usage)?;
                Ok(whole(path, Some(dialect)))
            }
            _ => Ok(whole(text, None)),
        }
    }

    fn load(&self) -> Result<Subject, Failure> {
        if self.path.is_dir() && self.path.join("run.json").exists() {
            let run = Run::load(&self.path).map_err(Failure::input)?;
            return Ok(Subject::of_run(&self.text, run, self.dialect.unwrap_or_default()));
        }
        let mut results = convert::load(&self.path).map_err(Failure::input)?;
        let count = results.len();
        let mut subject = results
            .pop()
            .ok_or_else(|| Failure::input(format_args!("{} holds no result", self.path.display())))?;
        subject.name.clone_from(&self.text);
        if count > 1 {
            subject.notes.push(format!("{} holds {count} results: the last one is taken", self.text));
        }
        if let Some(dialect) = self.dialect {
            subject.measured_as(dialect).map_err(Failure::usage)?;
        }
        Ok(subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialect_follows_the_last_at_sign() {
        let named = Named::parse("runs/a@b@vllm-0.11.0").unwrap();
        assert_eq!(named.path, Path::new("runs/a@b"));
        assert_eq!(named.dialect.map(Dialect::name), Some("vllm-0.11.0"));
        assert_eq!(Named::parse("runs/a").unwrap().dialect, None);
        assert!(Named::parse("runs/a@vllm").is_err());
    }
}
