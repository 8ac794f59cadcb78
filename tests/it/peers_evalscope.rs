//! What `evalscope perf` writes, and what its own code makes of scripted streams and made-up rows, held against our
//! dialects to the last byte. `fixtures/results/README.md` says where each file comes from.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be read is a failed test")]

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::types::Value as Cell;
use serde::Deserialize;
use serde_json::Value;
use tokentape::metrics::evalscope::workload::{Point, Workload};
use tokentape::metrics::evalscope::{self, Row, Version};
use tokentape::metrics::{Dialect, Measurement};
use tokentape::report::evalscope::folder::{Run, RunFacts, Sweep};
use tokentape::report::evalscope::{database, v1_14_1};
use tokentape::report::{self, Options};
use tokentape::timeline::{self, Events, Outcome, Reads, Timeline, Usage};

use crate::support::result_text;

const VERSIONS: [(Version, &str); 2] =
    [(Version::V1_1_1, "evalscope-1.1.1"), (Version::V1_14_1, "evalscope-1.14.1")];

/// A row of a fixture. 1.1.1's fixtures lack what that version does not know.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    #[serde(default)]
    index: u64,
    start_time: f64,
    completed_time: f64,
    latency: f64,
    first_chunk_latency: f64,
    inter_chunk: Vec<f64>,
    prompt_tokens: u32,
    completion_tokens: u32,
    #[serde(default)]
    cached_tokens: Option<u32>,
    time_per_output_token: f64,
    #[serde(default)]
    decode_chunks: u32,
    #[serde(default = "yes")]
    stream: bool,
    success: bool,
}

fn yes() -> bool {
    true
}

impl From<Saved> for Row {
    fn from(row: Saved) -> Self {
        Self {
            index: row.index,
            start_time: row.start_time,
            completed_time: row.completed_time,
            latency: row.latency,
            first_chunk_latency: row.first_chunk_latency,
            inter_chunk: row.inter_chunk,
            prompt_tokens: row.prompt_tokens,
            completion_tokens: row.completion_tokens,
            cached_tokens: row.cached_tokens,
            time_per_output_token: row.time_per_output_token,
            decode_chunks: row.decode_chunks,
            stream: row.stream,
            success: row.success,
        }
    }
}

fn saved_rows(name: &str) -> Vec<Row> {
    result_text(name).lines().map(|line| serde_json::from_str::<Saved>(line).unwrap().into()).collect()
}

/// What `make_evalscope.py` wrote.
#[derive(Deserialize)]
struct Cases {
    streams: Vec<Script>,
    /// The streams' indices in the order of completion.
    streams_order: Vec<usize>,
    streams_run: Case,
    database: Database,
    runs: Vec<Case>,
    sweeps: Vec<SweepCase>,
}

#[derive(Deserialize)]
struct Script {
    name: String,
    outcome: String,
    status: Option<u16>,
    dispatched_ns: u64,
    end_ns: u64,
    input_tokens: u32,
    usage: Option<Vec<u32>>,
    text: Option<String>,
    reads_ns: Vec<u64>,
    event_reads: Vec<u32>,
    event_facts: Vec<u16>,
}

/// One run: its rows, and what the original's code made of them.
#[derive(Deserialize)]
struct Case {
    parallel: i64,
    rate: f64,
    handoff: bool,
    rows: Vec<Saved>,
    files: BTreeMap<String, String>,
    console: String,
}

#[derive(Deserialize)]
struct Database {
    schema: String,
    rows: Vec<serde_json::Map<String, Value>>,
    types: Vec<Vec<String>>,
}

#[derive(Deserialize)]
struct SweepCase {
    head: Head,
    runs: Vec<usize>,
    report: String,
}

#[derive(Deserialize)]
struct Head {
    model_id: String,
    alias: Option<String>,
    dataset: String,
    api: String,
    url: String,
    outputs_dir: String,
}

impl Cases {
    fn read(name: &str) -> Self {
        serde_json::from_str(&result_text(&format!("{name}/cases.json.zst"))).unwrap()
    }
}

impl Case {
    fn facts(&self, version: Version) -> RunFacts {
        RunFacts { version, number: 7, handoff: self.handoff }
    }

    fn traffic(&self) -> v1_14_1::Traffic {
        v1_14_1::Traffic {
            concurrency: self.parallel.try_into().ok(),
            request_rate: (self.rate >= 0.0).then_some(self.rate),
        }
    }

    /// The run as we compute it from the rows.
    fn run(&mut self, version: Version) -> Run {
        let rows = std::mem::take(&mut self.rows).into_iter().map(Row::from).collect();
        Run::of_rows(rows, self.facts(version), self.traffic())
    }
}

impl Script {
    fn timeline(&self, index: usize) -> Timeline {
        let message = String::new();
        Timeline {
            index: index as u64,
            dispatched_ns: self.dispatched_ns,
            status: self.status,
            reads: Reads {
                bytes: vec![0; self.reads_ns.len()],
                at_ns: self.reads_ns.clone(),
                ..Reads::default()
            },
            events: Events {
                read: self.event_reads.clone(),
                facts: self.event_facts.iter().copied().map(timeline::Facts).collect(),
                ..Events::default()
            },
            end_ns: self.end_ns,
            outcome: match self.outcome.as_str() {
                "success" => Outcome::Success,
                "no_tokens" => Outcome::NoTokens,
                "in_band" => Outcome::InBand { message },
                "truncated" => Outcome::Truncated { message },
                "protocol" => Outcome::Protocol { message },
                "timeout" => Outcome::Timeout { limit_ms: 1 },
                "status" => Outcome::Status { body: message },
                other => panic!("unknown outcome {other}"),
            },
            input_tokens: Some(self.input_tokens),
            usage: self.usage.as_ref().map(|counts| Usage {
                prompt_tokens: counts[0],
                completion_tokens: counts[1],
                cached_tokens: counts.get(2).copied(),
                ..Usage::default()
            }),
            text: self.text.clone(),
            ..Timeline::default()
        }
    }
}

/// The stand-in for a tokenizer that the original had.
fn words(text: &str) -> u32 {
    text.split_whitespace().count().try_into().unwrap()
}

fn measurement(timelines: &[Timeline]) -> Measurement<'_> {
    Measurement { timelines, duration_ns: 4_000_000_000, concurrency: Some(8), request_rate: None }
}

/// The arguments that the fixture's runs were given.
fn args() -> Value {
    serde_json::from_str(r#"{"rate": -1.0, "none": null, "yes": true, "list": [1, 2.5, {}], "é": "ü\n"}"#)
        .unwrap()
}

fn files_of(run: &Run, args: &Value) -> BTreeMap<String, String> {
    run.files(args).into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
}

#[test]
fn the_files_of_real_runs_follow_from_their_databases() {
    for (version, folder) in VERSIONS {
        let rows = saved_rows(&format!("{folder}/rows.jsonl"));
        let traffic = v1_14_1::Traffic { concurrency: Some(4), request_rate: None };
        let run = Run::of_rows(rows, RunFacts { version, number: 20, handoff: false }, traffic);
        assert_eq!(run.folder(), "parallel_4_number_20");
        let args: Value =
            serde_json::from_str(&result_text(&format!("{folder}/benchmark_args.json"))).unwrap();
        let files = files_of(&run, &args);
        assert_eq!(files.len(), if version == Version::V1_1_1 { 3 } else { 5 });
        for (name, written) in &files {
            assert_eq!(*written, result_text(&format!("{folder}/{name}")), "{name} of {folder}");
        }
        if version == Version::V1_14_1 {
            let sweep = Sweep {
                version,
                model: "truth",
                alias: None,
                dataset: "random",
                api: "openai",
                url: "http://127.0.0.1:7595/v1/chat/completions",
                output_path: "cap/es114/truth",
            };
            assert_eq!(sweep.report(&[run]), result_text(&format!("{folder}/performance_summary.txt")));
        }
    }
}

/// Of a run of 500 requests against a real server only the timeline's rounded points are left.
#[test]
fn a_real_servers_throughput_follows_from_its_timeline() {
    let folder = "evalscope-1.14.1/real-server_50x500";
    let saved = result_text(&format!("{folder}/workload_timeline.json.zst"));
    let file: Value = serde_json::from_str(&saved).unwrap();
    let points = file["points"].as_array().unwrap().iter().map(|point| {
        let tokens = |key: &str| point[key].as_u64().unwrap();
        Point {
            t: point["t"].as_f64().unwrap(),
            completion: tokens("cum_completion"),
            new_prompt: tokens("cum_new_prompt"),
            cached_prompt: tokens("cum_cached_prompt"),
        }
    });
    let workload = Workload { start: file["wall_start"].as_f64().unwrap(), points: points.collect() };
    assert_eq!(v1_14_1::timeline_file(&workload), saved);

    let written: Value = serde_json::from_str(&v1_14_1::throughput_file(&workload.throughput())).unwrap();
    let theirs: Value =
        serde_json::from_str(&result_text(&format!("{folder}/workload_throughput.json"))).unwrap();
    assert_eq!(written["n_samples"], 500);
    assert_eq!(written["wall_time_s"], theirs["wall_time_s"]);
    for (ours, theirs) in written["rows"].as_array().unwrap().iter().zip(theirs["rows"].as_array().unwrap()) {
        assert_eq!(ours["metric"], theirs["metric"]);
        for window in ["overall", "last_window", "steady_state"] {
            let (ours, theirs) = (ours[window].as_f64().unwrap(), theirs[window].as_f64().unwrap());
            assert!((ours - theirs).abs() <= 1e-6 * theirs, "{window}: {ours} is not {theirs}");
        }
    }
}

#[test]
fn evalscope_reads_these_streams_so() {
    for (version, folder) in VERSIONS {
        let cases = Cases::read(folder);
        assert_eq!(cases.streams_order.len(), cases.streams_run.rows.len());
        for (&stream, saved) in cases.streams_order.iter().zip(cases.streams_run.rows) {
            let timelines = [cases.streams[stream].timeline(stream)];
            let rows = evalscope::rows(&measurement(&timelines), version, Some(&words));
            // The fixture numbers rows, not streams; and 1.1.1 does not record what was a stream.
            let mut expected = Row::from(saved);
            expected.index = stream as u64;
            if version == Version::V1_1_1 {
                expected.stream = rows[0].stream;
            }
            assert_eq!(rows, [expected], "{}, {folder}", cases.streams[stream].name);
        }
    }
}

#[test]
fn the_files_and_tables_of_these_streams() {
    for (version, folder) in VERSIONS {
        let cases = Cases::read(folder);
        let timelines: Vec<Timeline> =
            cases.streams_order.iter().map(|&i| cases.streams[i].timeline(i)).collect();
        let run = Run::new(&measurement(&timelines), cases.streams_run.facts(version), Some(&words));
        assert_eq!(files_of(&run, &args()), cases.streams_run.files, "{folder}");
        assert_eq!(run.console(), cases.streams_run.console, "{folder}");

        let options = Options { count_tokens: Some(&words), ..Options::default() };
        let dialect = Dialect::Evalscope(version);
        assert_eq!(report::render(&measurement(&timelines), dialect, &options), cases.streams_run.console);
        let json = report::json(&measurement(&timelines), dialect, &options);
        assert_eq!(json, cases.streams_run.files["benchmark_summary.json"]);
    }
}

#[test]
fn the_files_and_tables_of_made_up_rows() {
    for (version, folder) in VERSIONS {
        for (i, mut case) in Cases::read(folder).runs.into_iter().enumerate() {
            let run = case.run(version);
            let mut args = args();
            args["rate"] = if version == Version::V1_1_1 { (-1).into() } else { case.rate.into() };
            assert_eq!(files_of(&run, &args), case.files, "run {i}, {folder}");
            assert_eq!(run.console(), case.console, "run {i}, {folder}");
        }
    }
}

#[test]
fn the_reports_on_sweeps() {
    for (version, folder) in VERSIONS {
        let mut cases = Cases::read(folder);
        let runs: Vec<Run> = cases.runs.iter_mut().map(|case| case.run(version)).collect();
        assert_eq!(cases.sweeps.len(), 6);
        for (i, case) in cases.sweeps.iter().enumerate() {
            let members: Vec<Run> = case.runs.iter().map(|&i| runs[i].clone()).collect();
            let sweep = Sweep {
                version,
                model: &case.head.model_id,
                alias: case.head.alias.as_deref(),
                dataset: &case.head.dataset,
                api: &case.head.api,
                url: &case.head.url,
                output_path: &case.head.outputs_dir,
            };
            assert_eq!(sweep.report(&members), case.report, "sweep {i}, {folder}");
        }
        let none = Sweep { version, model: "", alias: None, dataset: "", api: "", url: "", output_path: "" };
        assert_eq!(none.report(&[]), "");
    }
}

#[test]
fn a_folder_in_an_open_loop_has_the_rates_name() {
    let facts = RunFacts { version: Version::V1_14_1, number: 20, handoff: false };
    for (request_rate, name) in [
        (Some(2.5), "rate_2.5_number_20"),
        (Some(10.0), "rate_10.0_number_20"),
        (None, "rate_-1.0_number_20"),
    ] {
        let traffic = v1_14_1::Traffic { concurrency: None, request_rate };
        assert_eq!(Run::of_rows(Vec::new(), facts, traffic).folder(), name);
    }
}

#[test]
fn the_database_is_the_originals() {
    for (version, folder) in VERSIONS {
        let cases = Cases::read(folder);
        let timelines: Vec<Timeline> =
            cases.streams_order.iter().map(|&i| cases.streams[i].timeline(i)).collect();
        let rows = evalscope::rows(&measurement(&timelines), version, Some(&words));
        // What the fixture's client sent, by the stream's index.
        let request = |index: u64| {
            let script = &cases.streams[usize::try_from(index).unwrap()];
            let stream = !script.name.starts_with("a reply that is no stream");
            let name = script.name.replace('"', "\\\"");
            Some(format!(
                r#"{{"messages": [{{"role": "user", "content": "é {name}"}}], "stream": {stream}}}"#
            ))
        };
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join(database::FILE);
        database::write(&file, version, &rows, &request).unwrap();
        check_database(&file, &cases.database, folder);

        let again = database::write(&file, version, &rows, &request).unwrap_err();
        assert!(again.to_string().contains(database::FILE), "{again}");
        assert!(again.source.to_string().contains("remove it"), "{}", again.source);
    }
}

fn check_database(file: &std::path::Path, expected: &Database, folder: &str) {
    let connection = Connection::open(file).unwrap();
    let schema: String = connection.query_row("SELECT sql FROM sqlite_master", [], |row| row.get(0)).unwrap();
    assert_eq!(schema, expected.schema, "{folder}");
    let mut query = connection.prepare("SELECT * FROM result").unwrap();
    let names: Vec<String> = query.column_names().into_iter().map(str::to_owned).collect();
    let mut rows = query.query([]).unwrap();
    for (theirs, types) in expected.rows.iter().zip(&expected.types) {
        let row = rows.next().unwrap().unwrap();
        for (i, name) in names.iter().enumerate() {
            let cell: Cell = row.get(i).unwrap();
            assert_eq!(cell.data_type().to_string().to_lowercase(), types[i], "{name}, {folder}");
            match (name.as_str(), cell) {
                // The pickle of an empty list: a timeline does not keep the chunks.
                ("response_messages", cell) => assert_eq!(cell, Cell::Text("gARdlC4=".to_owned())),
                (_, Cell::Null) => assert_eq!(theirs[name], Value::Null),
                (_, Cell::Integer(x)) => assert_eq!(theirs[name], x, "{name}, {folder}"),
                (_, Cell::Real(x)) => {
                    assert_eq!(theirs[name].as_f64().unwrap().to_bits(), x.to_bits(), "{name}, {folder}");
                }
                (_, Cell::Text(x)) => assert_eq!(theirs[name], x, "{name}, {folder}"),
                (_, Cell::Blob(_)) => panic!("{name} is a blob"),
            }
        }
    }
    assert!(rows.next().unwrap().is_none());
}
