//! The output folder of `evalscope perf`, 1.1 to 1.14: `benchmark_summary.json`, and beside it
//! `benchmark_percentile.json`, `benchmark_args.json` and the database of its requests, `benchmark_data.db`, as far as
//! they are there. Facts: `evalscope/perf/utils/db_util.py` and `benchmark_util.py` of those versions.
//!
//! The database's `response_messages` are pickled and never read: a pickle can run code.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use serde_json::{Map, Value};

use super::{Error, Fields, malformed, read, standard};
use crate::compare::metric::{Figures, Latency, Metric, Statistic};
use crate::compare::{Record, Sample, Subject, Traffic};
use crate::metrics::evalscope::v1_1_1;
use crate::metrics::{Dialect, evalscope};
use crate::report::evalscope::v1_1_1 as evalscope_report;

const SUMMARY: &str = "benchmark_summary.json";
const PERCENTILES: &str = "benchmark_percentile.json";
const ARGS: &str = "benchmark_args.json";
const DATABASE: &str = "benchmark_data.db";

/// The most requests that are read from a database.
const MAX_ROWS: u64 = 5_000_000;
/// The longest list of gaps of one request, as text.
const MAX_GAPS_TEXT: i64 = 64 << 20;
/// How deep below a folder its results are looked for.
const DEPTH: usize = 4;
/// The most results that an error lists.
const MAX_LISTED: usize = 20;

/// Whether a folder is such an output.
pub(super) fn is_in(folder: &Path) -> bool {
    folder.join(SUMMARY).is_file()
}

/// The outputs below a folder, as paths from where it was named.
pub(super) fn below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    look(folder, DEPTH, &mut found);
    found.sort();
    found.truncate(MAX_LISTED);
    found
}

fn look(folder: &Path, depth: usize, found: &mut Vec<String>) {
    if is_in(folder) {
        found.push(folder.display().to_string());
    }
    if depth == 0 || found.len() >= MAX_LISTED {
        return;
    }
    // What cannot be listed holds nothing that could be read.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            look(&entry.path(), depth - 1, found);
        }
    }
}

/// The names of a figure, with what makes its unit ours.
type Names = &'static [(&'static str, f64)];

const SUMMARY_FIGURES: [(Metric, Names); 11] = [
    (Metric::Duration, &[("Time taken for tests (s)", 1.0), ("Test Duration (s)", 1.0)]),
    (Metric::Succeeded, &[("Succeed requests", 1.0), ("Success Requests", 1.0)]),
    (Metric::Failed, &[("Failed requests", 1.0), ("Failed Requests", 1.0)]),
    (Metric::RequestThroughput, &[("Request throughput (req/s)", 1.0), ("Req Throughput (req/s)", 1.0)]),
    (
        Metric::OutputThroughput,
        &[("Output token throughput (tok/s)", 1.0), ("Output Throughput (tok/s)", 1.0)],
    ),
    (Metric::TotalThroughput, &[("Total token throughput (tok/s)", 1.0), ("Total Throughput (tok/s)", 1.0)]),
    (
        Metric::Latency(Latency::E2el, Statistic::Mean),
        &[("Average latency (s)", 1000.0), ("Avg Latency (s)", 1000.0)],
    ),
    (
        Metric::Latency(Latency::Ttft, Statistic::Mean),
        &[
            ("Average time to first token (s)", 1000.0),
            ("Average time to first token (ms)", 1.0),
            ("Avg TTFT (ms)", 1.0),
        ],
    ),
    (
        Metric::Latency(Latency::Tpot, Statistic::Mean),
        &[
            ("Average time per output token (s)", 1000.0),
            ("Average time per output token (ms)", 1.0),
            ("Avg TPOT (ms)", 1.0),
        ],
    ),
    (
        Metric::Latency(Latency::Itl, Statistic::Mean),
        &[
            ("Average inter-token latency (s)", 1000.0),
            ("Average inter-token latency (ms)", 1.0),
            ("Avg ITL (ms)", 1.0),
        ],
    ),
    // Means, made totals below.
    (Metric::OutputTokens, &[("Average output tokens per request", 1.0), ("Avg Output Tokens", 1.0)]),
];

const INPUT_TOKENS: Names = &[("Average input tokens per request", 1.0), ("Avg Input Tokens", 1.0)];

/// Whether the fields are those of a summary.
pub(super) fn is_summary(fields: &Fields<'_>) -> bool {
    SUMMARY_FIGURES[0].1.iter().any(|(name, _)| fields.has(name))
}

/// The result in a folder.
pub(super) fn load(name: &str, folder: &Path) -> Result<Subject, Error> {
    let path = folder.join(SUMMARY);
    let bytes = read(&path)?;
    let text = standard(&bytes);
    let summary = Fields::parse(&path, &text)?;
    if !is_summary(&summary) {
        return Err(Error::Unknown(path));
    }
    let in_seconds = summary.has("Time taken for tests (s)");
    let (version, dialect) = if in_seconds {
        ("1.1 to 1.6", Dialect::Evalscope(evalscope::Version::V1_1_1))
    } else {
        ("1.7 or later", Dialect::Evalscope(evalscope::Version::V1_14_1))
    };
    let mut notes = Vec::new();
    let mut own = summary_figures(&summary)?;
    let mut table = None;
    if folder.join(PERCENTILES).is_file() {
        let path = folder.join(PERCENTILES);
        let bytes = read(&path)?;
        let lines: Vec<Line> =
            serde_json::from_slice(&standard(&bytes)).map_err(|error| malformed(&path, error))?;
        add_percentiles(&mut own, &lines);
        table = in_seconds.then(|| own_table(&summary, &lines)).transpose()?.flatten();
    }
    let samples = match folder.join(DATABASE) {
        path if path.is_file() => samples(&path)?,
        _ => None,
    };
    let record = samples.map_or_else(
        || {
            notes.push(format!(
                "{name} has no {DATABASE} that can be read: only its rounded figures are known"
            ));
            Record::None
        },
        Record::Samples,
    );
    let mut subject = Subject {
        name: name.to_owned(),
        tool: format!("evalscope perf {version}"),
        dialect,
        own,
        record,
        traffic: traffic(folder, &summary)?,
        workload_digest: None,
        notes,
        table,
    };
    // Its own figures are rounded: where its requests give the same to that digit, the unrounded ones are better.
    subject.fill_from_samples(move |metric| match metric {
        Metric::Latency(_, Statistic::Mean) if in_seconds => 0.051,
        // Later versions round TTFT, TPOT and ITL to 0.01 ms, but the latency to 0.1 ms.
        Metric::Latency(Latency::E2el, Statistic::Mean) => 0.051,
        Metric::Latency(_, Statistic::Mean) => 0.005_1,
        Metric::Duration | Metric::RequestThroughput | Metric::OutputThroughput | Metric::TotalThroughput => {
            0.000_051
        }
        Metric::InputTokens | Metric::OutputTokens => 1.0,
        _ => 0.0,
    });
    Ok(subject)
}

fn first_number(fields: &Fields<'_>, names: Names) -> Result<Option<f64>, Error> {
    for (name, factor) in names {
        if let Some(value) = fields.number(name)? {
            return Ok(Some(value * factor));
        }
    }
    Ok(None)
}

fn summary_figures(summary: &Fields<'_>) -> Result<Figures, Error> {
    let mut figures = Figures::default();
    for (metric, names) in SUMMARY_FIGURES {
        // -1 stands for what was never computed.
        figures.set(metric, first_number(summary, names)?.filter(|&value| value >= 0.0));
    }
    let succeeded = figures.get(Metric::Succeeded);
    let total = |mean: Option<f64>| Some((mean.filter(|&mean| mean >= 0.0)? * succeeded?).round());
    figures.set(Metric::OutputTokens, total(figures.get(Metric::OutputTokens)));
    figures.set(Metric::InputTokens, total(first_number(summary, INPUT_TOKENS)?));
    Ok(figures)
}

/// A line of the percentile file.
type Line = Map<String, Value>;

/// The lines of the percentile file that the neutral set has.
fn add_percentiles(figures: &mut Figures, lines: &[Line]) {
    const COLUMNS: [(Latency, Names); 4] = [
        (Latency::Ttft, &[("TTFT (s)", 1000.0), ("TTFT (ms)", 1.0)]),
        (Latency::Tpot, &[("TPOT (s)", 1000.0), ("TPOT (ms)", 1.0)]),
        (Latency::Itl, &[("ITL (s)", 1000.0), ("ITL (ms)", 1.0)]),
        (Latency::E2el, &[("Latency (s)", 1000.0)]),
    ];
    for line in lines {
        let statistic = match line.get("Percentiles").and_then(Value::as_str) {
            Some("50%") => Statistic::Median,
            Some("99%") => Statistic::P99,
            _ => continue,
        };
        for (latency, names) in COLUMNS {
            let value = names.iter().find_map(|(name, factor)| Some(line.get(*name)?.as_f64()? * factor));
            figures.set(Metric::Latency(latency, statistic), value);
        }
    }
}

/// The two tables that 1.1.1 prints; none where its percentiles are not those of 1.1.1.
fn own_table(summary: &Fields<'_>, lines: &[Line]) -> Result<Option<String>, Error> {
    let number = |key: &str| summary.number(key);
    let figure = |key: &str| Ok::<_, Error>(number(key)?.filter(|&value| value >= 0.0));
    let count = |key: &str| Ok::<usize, Error>(summary.get(key)?.unwrap_or(0));
    let figures = v1_1_1::Summary {
        time_taken: number("Time taken for tests (s)")?.unwrap_or(1.0),
        total: count("Total requests")?,
        succeeded: count("Succeed requests")?,
        failed: count("Failed requests")?,
        output_throughput: figure("Output token throughput (tok/s)")?,
        total_throughput: figure("Total token throughput (tok/s)")?,
        request_throughput: figure("Request throughput (req/s)")?,
        latency: figure("Average latency (s)")?,
        ttft: figure("Average time to first token (s)")?,
        tpot: figure("Average time per output token (s)")?,
        itl: figure("Average inter-token latency (s)")?,
        input_tokens: figure("Average input tokens per request")?,
        output_tokens: figure("Average output tokens per request")?,
    };
    let Some(percentiles) = lines.iter().map(percentile).collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let concurrency =
        summary.get::<i64>("Number of concurrency")?.and_then(|limit| u32::try_from(limit).ok());
    let [summary, percentiles] = [
        evalscope_report::summary_table(&figures, concurrency),
        evalscope_report::percentile_table(&percentiles),
    ];
    Ok(Some(format!("Benchmarking summary:\n{summary}\n\nPercentile results:\n{percentiles}\n")))
}

/// A line of 1.1.1's percentiles; none where it is not one.
fn percentile(line: &Line) -> Option<v1_1_1::Percentile> {
    let value = |key: &str| Some(line.get(key)?.as_f64().unwrap_or(f64::NAN));
    let tokens = |key: &str| Some(line.get(key)?.as_u64().and_then(|tokens| u32::try_from(tokens).ok()));
    Some(v1_1_1::Percentile {
        p: line.get("Percentiles")?.as_str()?.strip_suffix('%')?.parse().ok()?,
        ttft: value("TTFT (s)")?,
        itl: value("ITL (s)")?,
        tpot: value("TPOT (s)")?,
        latency: value("Latency (s)")?,
        input_tokens: tokens("Input tokens")?,
        output_tokens: tokens("Output tokens")?,
        output_rate: value("Output (tok/s)")?,
        total_rate: value("Total (tok/s)")?,
    })
}

/// How it was sent, by its arguments, else by its summary. What is not positive means no limit, and no rate.
fn traffic(folder: &Path, summary: &Fields<'_>) -> Result<Traffic, Error> {
    let mut concurrency = first_number(summary, &[("Number of concurrency", 1.0), ("Concurrency", 1.0)])?;
    let mut rate = summary.number("Request Rate (req/s)")?;
    let path = folder.join(ARGS);
    if path.is_file() {
        let bytes = read(&path)?;
        let text = standard(&bytes);
        let args = Fields::parse(&path, &text)?;
        concurrency = args.number("parallel")?.or(concurrency);
        rate = args.number("rate")?.or(rate);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive count; saturates"
    )]
    let concurrency = concurrency.filter(|&limit| limit >= 1.0).map(|limit| limit as u32);
    Ok(Traffic { concurrency, request_rate: rate.filter(|&rate| rate > 0.0), arrival: None })
}

/// The database's requests; none where an old version's database lacks the columns.
fn samples(path: &Path) -> Result<Option<Vec<Sample>>, Error> {
    const COLUMNS: [&str; 7] = [
        "success",
        "start_time",
        "latency",
        "first_chunk_latency",
        "inter_token_latencies",
        "prompt_tokens",
        "completion_tokens",
    ];
    let failed = |error: rusqlite::Error| malformed(path, format!("as a database: {error}"));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(path, flags).map_err(failed)?;
    let known = |column: &&str| database.column_exists(None, "result", *column).map_err(failed);
    for column in &COLUMNS {
        if !known(column)? {
            return Ok(None);
        }
    }
    let mut statement = database
        .prepare(&format!(
            "SELECT {}, length(inter_token_latencies) FROM result ORDER BY rowid LIMIT {}",
            COLUMNS.join(", "),
            MAX_ROWS + 1
        ))
        .map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut samples = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let number = samples.len() + 1;
        if number as u64 > MAX_ROWS {
            return Err(malformed(path, format!("it has more than {MAX_ROWS} requests")));
        }
        if row.get::<_, Option<i64>>(7).map_err(failed)?.unwrap_or(0) > MAX_GAPS_TEXT {
            return Err(malformed(path, format!("row {number}: its inter_token_latencies are too long")));
        }
        samples.push(sample(row).map_err(|reason| malformed(path, format!("row {number}: {reason}")))?);
    }
    Ok(Some(samples))
}

fn sample(row: &rusqlite::Row<'_>) -> Result<Sample, String> {
    let in_words = |error: rusqlite::Error| error.to_string();
    let number = |column: usize| row.get::<_, Option<f64>>(column).map_err(in_words);
    let count =
        |column: usize| Ok::<_, String>(row.get::<_, Option<u32>>(column).map_err(in_words)?.unwrap_or(0));
    let gaps = row.get::<_, Option<String>>(4).map_err(in_words)?;
    let itl = match &gaps {
        Some(text) => {
            serde_json::from_str(text).map_err(|error| format!("its inter_token_latencies: {error}"))?
        }
        None => Vec::new(),
    };
    Ok(Sample {
        success: count(0)? == 1,
        start: number(1)?,
        latency: number(2)?,
        ttft: number(3)?.unwrap_or(0.0),
        itl,
        input_tokens: count(5)?,
        output_tokens: count(6)?,
    })
}
