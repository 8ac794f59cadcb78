//! The runs of a sweep: what `evalscope perf` does around its requests and after them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderMap;
use serde_json::{Map, Value};
use tokentape_tokenizer::{EMBEDDED, Tokenizer};
use tokio::sync::watch;

use super::super::headers::Headers;
use super::super::server::{pause, until_ready};
use super::super::traffic::Traffic;
use super::super::{Record, drawn, note_no_effect, stamp};
use super::{Config, Step, syntax};
use crate::cli::replay::{Pace, judge, measurement, now};
use crate::cli::{Failure, Outcome, interrupt, output};
use crate::generate;
use crate::generate::compat::Data;
use crate::generate::compat::evalscope::{self as compat, Dataset, Params, Streams};
use crate::metrics::Dialect;
use crate::metrics::evalscope::Version;
use crate::python;
use crate::replay::engine::Report;
use crate::replay::plan::Prepared;
use crate::replay::side;
use crate::report::evalscope::database;
use crate::report::evalscope::folder::{Run, RunFacts, SWEEP_FILE, Sweep};
use crate::run::RunInfo;
use crate::schedule::{self, offset_ns};
use crate::tape::Request;

/// The pause between two connection tests.
const RETRY: Duration = Duration::from_secs(10);
/// How long 1.1.1 goes on testing: its `--connect-timeout`.
const OLD_TEST_LIMIT: Duration = Duration::from_secs(600);

pub(in super::super) fn exec(version: Version, args: &[String], record: &Record) -> Outcome {
    let (mut config, given) = Config::new(version, args)?;
    note_no_effect(syntax(version).command, &given.no_effect);
    let started = now();
    if config.params.seed.is_none() {
        // The original draws anew each time, too; the tape's header keeps what was drawn.
        let drawn = drawn();
        let seed = u32::from_le_bytes([0, 1, 2, 3].map(|i| drawn.as_bytes()[i]));
        config.params.unsent_seed = Some(seed);
    }
    let name = config.params.tokenizer.as_deref();
    let needs = config.params.dataset == Dataset::Random && config.params.prompt.is_none();
    if name.is_none() && needs {
        return Err(Failure::usage("--dataset random needs --tokenizer-path"));
    }
    // Without one, the embedded tokenizer is never asked: texts are measured in characters.
    let tokenizer = Tokenizer::load(name.unwrap_or(EMBEDDED)).map_err(generate::Error::from)?;
    let file = config.dataset_path.as_ref().map(|path| {
        let bytes = fs::read(path)
            .map_err(|error| Failure::input(format_args!("cannot read {}: {error}", path.display())))?;
        Ok::<_, Failure>((path.display().to_string(), bytes))
    });
    let file = file.transpose()?;
    if file.is_none() && !needs && config.params.prompt.is_none() {
        return Err(Failure::usage(format_args!(
            "--dataset {} needs --dataset-path; nothing is downloaded",
            config.dataset_name
        )));
    }
    let data = file.as_ref().map(|(name, bytes)| Data { name, bytes });
    config.params.data = data.map(Data::id);
    let streams = config.params.streams()?;
    let folder = config.output_folder(&stamp(&started, '_'));
    let sweep = Sweeping {
        config,
        tokenizer,
        data,
        folder,
        started: stamp(&started, '-'),
        record,
        interrupt: interrupt::watch()?,
    };
    sweep.exec(streams)
}

impl Config {
    /// `outputs/TIME/NAME`, with what no file name may hold replaced.
    fn output_folder(&self, time: &str) -> PathBuf {
        let name = self.name.as_deref().unwrap_or_else(|| self.model_id());
        let path = |separators: bool| {
            name.replace(|c| "<>:\"|?*".contains(c) || (separators && "\\/\0".contains(c)), "_")
        };
        let name = path(self.version == Version::V1_14_1);
        if self.has_timestamp { self.outputs_dir.join(time).join(name) } else { self.outputs_dir.join(name) }
    }
}

/// A sweep with all that is known before it.
struct Sweeping<'a> {
    config: Config,
    tokenizer: Tokenizer,
    data: Option<Data<'a>>,
    folder: PathBuf,
    started: String,
    record: &'a Record,
    /// A signal may come between two runs, too.
    interrupt: watch::Receiver<bool>,
}

impl Sweeping<'_> {
    fn exec(&self, mut streams: Streams) -> Outcome {
        let config = &self.config;
        let mut params = config.params.clone();
        let mut runs = Vec::new();
        let mut outcome = Ok(());
        for (i, step) in config.steps.iter().enumerate() {
            if i > 0 {
                eprintln!("note: sleeping {} s before the next run", config.sleep_interval.as_secs());
                if let Err(interrupted) = pause(config.sleep_interval, &self.interrupt) {
                    // What is done is reported all the same.
                    outcome = outcome.and(Err(interrupted));
                    break;
                }
            }
            params.number = config.params.number.map(|_| step.number);
            params.warmup_num = config.warmup.of(step.number);
            let (run, info, report) = self.run(&params, *step, &mut streams)?;
            if params.version == Version::V1_14_1 {
                params.dataset_offset += u64::from(step.number);
            }
            runs.push(run);
            outcome = outcome.and(judge(&info, &report));
            if report.interrupted {
                break;
            }
        }
        self.report(&runs)?;
        eprintln!("result left in {}", self.folder.display());
        eprintln!("run left in {}", self.record.folder(self.dialect(), &self.started, None).display());
        outcome
    }

    const fn dialect(&self) -> Dialect {
        Dialect::Evalscope(self.config.version)
    }

    /// One run: its connection test, its requests, its files and tables.
    fn run(
        &self,
        params: &Params,
        step: Step,
        streams: &mut Streams,
    ) -> Result<(Run, RunInfo, Report), Failure> {
        let config = &self.config;
        self.test_connection(params, streams)?;
        let mut requests = compat::run(params, streams, &self.tokenizer, self.data)?;
        for request in &mut requests {
            config.server.path.clone_into(&mut request.path);
        }
        let warmup = (params.warmup_num as usize).min(requests.len());
        let schedule = self.schedule(step, streams, &requests, warmup)?;
        let mut measured = requests.split_off(warmup);
        for (request, index) in measured.iter_mut().zip(0..) {
            request.index = index;
        }
        if measured.is_empty() {
            return Err(Failure::input("the data set holds no request beyond the warm-up"));
        }
        let bodies: Vec<String> =
            measured.iter().map(|request| String::from_utf8_lossy(&request.body).into_owned()).collect();
        let warmup: Vec<Prepared> =
            requests.iter().map(|request| self.prepare(request)).collect::<Result<_, _>>()?;
        let headers = |request: &Request| self.headers(request.body.len());
        let traffic = Traffic {
            target: &config.server.target,
            header: compat::header(params, &self.tokenizer)?,
            requests: measured,
            warmup,
            headers: &headers,
            concurrency: step.parallel,
            pace: Pace { rate: step.rate, arrival: schedule.as_ref().map(|_| self.arrival()) },
            schedule,
            timeout: config.timeout,
            keeps_text: false,
            quiet: false,
        };
        let name = part(step);
        let name = (config.steps.len() > 1).then_some(name.as_str());
        let (info, report) =
            traffic.run(&self.record.folder(self.dialect(), &self.started, name), self.record.force)?;
        let count = |text: &str| {
            self.tokenizer.encode_plain(text).map_or(0, |ids| u32::try_from(ids.len()).unwrap_or(u32::MAX))
        };
        let facts = RunFacts { version: config.version, number: step.number.into(), handoff: config.handoff };
        let measured = measurement(&info, &report);
        let run = Run::new(&measured, facts, config.params.tokenizer.as_ref().map(|_| &count as _));
        output::print(&run.console())?;
        self.save(&run, step, &bodies)?;
        Ok((run, info, report))
    }

    fn test_connection(&self, params: &Params, streams: &mut Streams) -> Outcome {
        let config = &self.config;
        if !params.test_connection {
            return Ok(());
        }
        let body = compat::connection_test(params, streams, &self.tokenizer)?;
        let path = config.server.path.parse().map_err(|_| Failure::usage("--url: its path is malformed"))?;
        let headers = self.headers(body.len())?;
        let request = side::request(path, headers, body.into());
        let limit = if config.version == Version::V1_1_1 { OLD_TEST_LIMIT } else { config.timeout };
        until_ready(&config.server.target, &request, (RETRY, limit), &self.interrupt, side::Answer::is_ok)
    }

    /// The headers of one request, in the original's order.
    fn headers(&self, body_bytes: usize) -> Result<HeaderMap, Failure> {
        let mut headers =
            Headers::new(&self.config.server.target).json().with("user-agent", "modelscope_bench")?;
        for (name, value) in &self.config.headers {
            headers = headers.with(name, value)?;
        }
        Ok(headers.for_body(body_bytes))
    }

    fn prepare(&self, request: &Request) -> Result<Prepared, Failure> {
        let mut prepared = Prepared::new(request.clone())?;
        prepared.headers = Some(self.headers(request.body.len())?);
        Ok(prepared)
    }

    /// When each measured request is due. The warm-up is a phase of its own here, so the times that follow it are
    /// counted from its last one.
    fn schedule(
        &self,
        step: Step,
        streams: &mut Streams,
        requests: &[Request],
        warmup: usize,
    ) -> Result<Option<Vec<u64>>, Failure> {
        let config = &self.config;
        if matches!(config.params.dataset, Dataset::WorkloadTrace(_)) {
            return Ok(Some(requests[warmup..].iter().map(|request| request.offset_ns).collect()));
        }
        if step.rate.is_none() {
            return Ok(None);
        }
        let mut delays =
            |n| schedule::evalscope::delays(config.version, streams, n, step.rate).map_err(Failure::usage);
        let times = if config.open_loop() {
            // Two phases, each planned by itself.
            delays(warmup)?;
            delays(requests.len() - warmup)?
        } else {
            let all = delays(requests.len())?;
            let begin = warmup.checked_sub(1).map_or(0.0, |last| all[last]);
            all[warmup..].iter().map(|time| time - begin).collect()
        };
        Ok(Some(times.into_iter().map(offset_ns).collect()))
    }

    fn arrival(&self) -> String {
        let is_trace = matches!(self.config.params.dataset, Dataset::WorkloadTrace(_));
        if is_trace { "as the trace has it" } else { "poisson" }.to_owned()
    }

    /// Where a run's files go: 1.1.1 keeps a single run in the sweep's own folder.
    fn run_folder(&self, step: Step) -> PathBuf {
        if self.config.version == Version::V1_1_1 && self.config.steps.len() == 1 {
            self.folder.clone()
        } else {
            self.folder.join(part(step))
        }
    }

    fn save(&self, run: &Run, step: Step, bodies: &[String]) -> Outcome {
        let folder = self.run_folder(step);
        fs::create_dir_all(&folder).map_err(|error| cannot_write(&folder, &error))?;
        for (name, text) in run.files(&Value::Object(self.arguments(step, &folder))) {
            let path = folder.join(name);
            fs::write(&path, text).map_err(|error| cannot_write(&path, &error))?;
        }
        let body = |index: u64| usize::try_from(index).ok().and_then(|index| bodies.get(index)).cloned();
        database::write(&folder.join(database::FILE), self.config.version, run.rows(), &body)
            .map_err(Failure::run)
    }

    fn arguments(&self, step: Step, folder: &Path) -> Map<String, Value> {
        let mut args = self.config.args.clone();
        args.insert("number".to_owned(), step.number.into());
        args.insert("parallel".to_owned(), step.parallel.map_or(Value::from(-1), Value::from));
        if self.config.open_loop() {
            args.insert("rate".to_owned(), step.rate.unwrap_or(-1.0).into());
        }
        args.insert("outputs_dir".to_owned(), folder.display().to_string().into());
        args
    }

    /// The report on the whole sweep: 1.1.1 has one where there were several runs.
    fn report(&self, runs: &[Run]) -> Outcome {
        let config = &self.config;
        if config.version == Version::V1_1_1 && config.steps.len() == 1 {
            return Ok(());
        }
        let output_path = self.folder.display().to_string();
        let sweep = Sweep {
            version: config.version,
            model: config.model_id(),
            alias: config.alias.as_deref(),
            dataset: &config.dataset_name,
            api: "openai",
            url: &config.url,
            output_path: &output_path,
        };
        let text = sweep.report(runs);
        output::print(&text)?;
        if config.version == Version::V1_14_1 {
            let path = self.folder.join(SWEEP_FILE);
            fs::write(&path, &text).map_err(|error| cannot_write(&path, &error))?;
        }
        Ok(())
    }
}

/// The name of one run among several.
fn part(step: Step) -> String {
    match step.parallel {
        Some(parallel) => format!("parallel_{parallel}_number_{}", step.number),
        None => format!("rate_{}_number_{}", python::float(step.rate.unwrap_or(-1.0)), step.number),
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::run(format_args!("cannot write {}: {error}", path.display()))
}
