//! The run itself: what `vllm bench serve` does around its requests and after them.

use std::fs;
use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;
use tokentape_tokenizer::Tokenizer;

use super::super::headers::Headers;
use super::super::server::{ask, never, until_ready};
use super::super::traffic::Traffic;
use super::super::{Record, drawn, note_no_effect, stamp};
use super::result::strategy;
use super::{Config, counters, syntax};
use crate::cli::replay::{Pace, judge, measurement, now, wall_clock};
use crate::cli::{Failure, Outcome, output};
use crate::generate::compat::Data;
use crate::generate::compat::vllm::{self as compat, Dataset};
use crate::generate::{self, Api};
use crate::metrics::Dialect;
use crate::metrics::vllm::{Diffusion, DiffusionCounters, SpecDecode, SpecDecodeCounters, Version};
use crate::python::{self, Json};
use crate::replay::plan::Prepared;
use crate::report;
use crate::report::vllm::{file_name, notes, result_json, table};
use crate::schedule::{self, offset_ns};
use crate::tape::Request;

/// The time limit of a request: the original's session has one of six hours.
const TIMEOUT: Duration = Duration::from_secs(6 * 60 * 60);
/// The time limit of a side request that the original gives the same six hours.
const SIDE_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause between two ready checks.
const RETRY: Duration = Duration::from_secs(5);

pub(in super::super) fn exec(version: Version, args: &[String], record: &Record) -> Outcome {
    let (mut config, given) = Config::new(version, args)?;
    note_no_effect(syntax(version).command, &given.no_effect);
    if let Some(folder) = &config.output.folder {
        fs::create_dir_all(folder).map_err(|error| {
            Failure::run(format_args!("cannot create the folder {}: {error}", folder.display()))
        })?;
    }
    let model = model(&mut config)?;
    let tokenizer_name = config.tokenizer.clone().unwrap_or_else(|| model.clone());
    let tokenizer = Tokenizer::load(&tokenizer_name).map_err(generate::Error::from)?;
    tokenizer_name.clone_into(&mut config.params.tokenizer);
    let requests = requests(&mut config, &tokenizer)?;
    let run = Run { model, tokenizer_name, started: stamp(&now(), '-'), config };
    run.exec(requests, &tokenizer, record)
}

/// The model's own name; from 0.14 on the server is asked where none was given.
fn model(config: &mut Config) -> Result<String, Failure> {
    if let Some(model) = &config.model {
        config.params.model = config.served_model_name.clone().unwrap_or_else(|| model.clone());
        return Ok(model.clone());
    }
    output::print("Model not specified, fetching first model from server...\n")?;
    let target = &config.base.target;
    let mut headers = Headers::new(target);
    for (name, value) in &config.headers {
        headers = headers.with(name, value)?;
    }
    let path = format!("{}/v1/models", base_path(config));
    let answer = ask(target, &path, headers.for_get(), Vec::new(), SIDE_TIMEOUT)?;
    let models: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let first = |key: &str| models["data"][0][key].as_str().map(str::to_owned);
    let (Some(id), true) = (first("id"), answer.is_ok()) else {
        return Err(Failure::run(format_args!("{}{path} names no model; name one with --model", target.url)));
    };
    // The original demands `root`, which servers other than vLLM do not send.
    let root = first("root").unwrap_or_else(|| id.clone());
    output::print(&format!("First model name: {id}, first model id: {root}\n"))?;
    config.params.model = id;
    Ok(root)
}

/// The base URL's path.
fn base_path(config: &Config) -> &str {
    config.base.path.trim_end_matches('/')
}

/// What the original would send, to the endpoint of the command line.
fn requests(config: &mut Config, tokenizer: &Tokenizer) -> Result<Vec<Request>, Failure> {
    let file = match &config.dataset_path {
        None => None,
        Some(path) => {
            let bytes = fs::read(path)
                .map_err(|error| Failure::input(format_args!("cannot read {}: {error}", path.display())))?;
            Some((path.display().to_string(), bytes))
        }
    };
    let data = file.as_ref().map(|(name, bytes)| Data { name, bytes });
    config.params.data = data.as_ref().map(|data| data.id());
    if data.is_none()
        && !matches!(config.params.dataset, Dataset::Random { .. } | Dataset::PrefixRepetition { .. })
    {
        return Err(Failure::usage(format_args!(
            "--dataset-name {} needs --dataset-path",
            config.params.dataset.name()
        )));
    }
    let mut requests = compat::requests(&config.params, tokenizer, data)
        .map_err(|error| in_its_words(&config.params.dataset, error))?;
    for request in &mut requests {
        config.path.clone_into(&mut request.path);
    }
    if requests.is_empty() {
        return Err(Failure::input("the data set holds no request"));
    }
    Ok(requests)
}

/// A parameter's error under the name that the command line has for it.
fn in_its_words(dataset: &Dataset, error: generate::Error) -> Failure {
    let generate::Error::Parameter { flag, reason } = error else {
        return error.into();
    };
    let of_random = matches!(dataset, Dataset::Random { .. });
    let flag = match flag {
        "--requests" => "--num-prompts",
        "--input-tokens" if of_random => "--random-input-len",
        "--input-tokens" => "--prefix-repetition-suffix-len",
        "--output-tokens" if of_random => "--random-output-len",
        "--output-tokens" => match dataset {
            Dataset::Custom { .. } => "--custom-output-len",
            Dataset::Sharegpt { .. } => "--sharegpt-output-len",
            _ => "--prefix-repetition-output-len",
        },
        "--range-ratio" => "--random-range-ratio",
        "--prefix-tokens" if of_random => "--random-prefix-len",
        "--prefix-tokens" => "--prefix-repetition-prefix-len",
        "--num-prefixes" => "--prefix-repetition-num-prefixes",
        "--chunk-hash-size" => "--timed-trace-chunk-hash-size",
        "--sec-multiplier" => "--timed-trace-sec-multiplier",
        other => other,
    };
    Failure::usage(format_args!("{flag} {reason}"))
}

/// A run with all that is known before it.
pub(super) struct Run {
    pub(super) config: Config,
    /// `--model`: the name in the result file.
    pub(super) model: String,
    pub(super) tokenizer_name: String,
    started: String,
}

impl Run {
    fn exec(&self, requests: Vec<Request>, tokenizer: &Tokenizer, record: &Record) -> Outcome {
        let Config { version, params, base, .. } = &self.config;
        if *version > Version::V0_11_0
            && matches!(params.dataset, Dataset::Random { .. } | Dataset::PrefixRepetition { .. })
        {
            self.check_server_tokenizer(&requests[0])?;
        }
        let first = self.prepare(&requests[0])?;
        self.ready_check(&first)?;
        self.announce()?;
        let before = self.scrape()?;
        let count = requests.len();
        let delays = self.delays(&requests)?;
        let begun = wall_clock();
        let prefix = self.request_id_prefix();
        let headers = |request: &Request| {
            self.headers(
                request.body.len(),
                prefix.as_ref().map(|prefix| format!("{prefix}{}", request.index)),
            )
        };
        let traffic = Traffic {
            target: &base.target,
            header: compat::header(params, tokenizer)?,
            warmup: vec![first; self.config.num_warmups],
            headers: &headers,
            concurrency: self.config.max_concurrency,
            schedule: delays.as_ref().map(|delays| delays.iter().copied().map(offset_ns).collect()),
            pace: self.pace(),
            timeout: TIMEOUT,
            keeps_text: self.config.output.save && self.config.output.detailed,
            quiet: self.config.quiet,
            requests,
        };
        let folder = record.folder(Dialect::Vllm(*version), &self.started, None);
        let (info, report) = traffic.run(&folder, record.force)?;
        let after = self.scrape()?;

        let measurement = measurement(&info, &report);
        let ended = stamp(&now(), '-');
        let count_tokens = |text: &str| {
            tokenizer.encode_plain(text).map_or(0, |ids| u32::try_from(ids.len()).unwrap_or(u32::MAX))
        };
        let options = report::Options {
            count_tokens: Some(&count_tokens),
            vllm: self.options(
                Counters::between(&before, &after, measurement.duration_s()),
                ended,
                begun,
                delays,
                count,
            ),
        };
        output::print(&notes(*version, &measurement, &options))?;
        output::print(&table(*version, &measurement, &options))?;
        if self.config.output.save {
            let traffic = report::vllm::Traffic::of(&measurement);
            let path = self.config.output.save(
                &result_json(*version, &measurement, &options),
                &file_name(traffic, &options.vllm.run),
            )?;
            eprintln!("result left in {}", path.display());
        }
        eprintln!("run left in {}", folder.display());
        judge(&info, &report)
    }

    /// The headers of one request, in the original's order.
    fn headers(&self, body_bytes: usize, request_id: Option<String>) -> Result<HeaderMap, Failure> {
        let mut headers = Headers::new(&self.config.base.target);
        if self.config.params.backend == Api::Chat {
            headers = headers.json();
        }
        match std::env::var("OPENAI_API_KEY") {
            Ok(key) => headers = headers.with("Authorization", &format!("Bearer {key}"))?,
            // Up to 0.15 the header is sent with or without a key.
            Err(_) if self.config.version == Version::V0_11_0 => {
                headers = headers.with("Authorization", "Bearer None")?;
            }
            Err(_) => {}
        }
        for (name, value) in &self.config.headers {
            headers = headers.with(name, value)?;
        }
        if let Some(id) = request_id {
            headers = headers.with("x-request-id", &id)?;
        }
        Ok(headers.for_body(body_bytes))
    }

    /// What stands before a request's number in its id. The original draws a UUID; this comes from the time and the process.
    fn request_id_prefix(&self) -> Option<String> {
        if matches!(self.config.params.dataset, Dataset::PrefixRepetition { .. }) {
            return None;
        }
        Some(match (&self.config.request_id_prefix, self.config.version) {
            (Some(prefix), _) => prefix.clone(),
            (None, Version::V0_11_0) => "benchmark-serving".to_owned(),
            (None, _) => {
                format!("bench-{}-", &drawn().to_hex()[..8])
            }
        })
    }

    /// The first request, as the ready check and the warm-up send it: without an id.
    fn prepare(&self, request: &Request) -> Result<Prepared, Failure> {
        let mut prepared = Prepared::new(request.clone())?;
        prepared.headers = Some(self.headers(request.body.len(), None)?);
        Ok(prepared)
    }

    fn ready_check(&self, first: &Prepared) -> Outcome {
        let Config { version, base, ready_check_timeout_s: seconds, num_warmups, .. } = &self.config;
        output::print("Starting initial single prompt test run...\n")?;
        if *seconds == 0 {
            output::print("Skipping endpoint ready check.\n")?;
        } else {
            output::print(&format!("Waiting for endpoint to become up in {seconds} seconds\n"))?;
            let limit = Duration::from_secs(*seconds);
            // Later versions demand a token, too.
            let is_good = |answer: &crate::replay::side::Answer| {
                answer.is_ok() && (*version == Version::V0_11_0 || answer.outcome.is_success())
            };
            until_ready(&base.target, first, (RETRY, limit), &never(), is_good)?;
            output::print("Initial test run completed.")?;
            output::print(if *version == Version::V0_11_0 {
                " Starting main benchmark run...\n"
            } else {
                "\n"
            })?;
        }
        if *num_warmups > 0 {
            output::print(&format!("Warming up with {num_warmups} requests...\n"))?;
        }
        Ok(())
    }

    /// The lines before the run.
    fn announce(&self) -> Outcome {
        let Config { version, arrival, max_concurrency, .. } = &self.config;
        if *version > Version::V0_11_0 {
            output::print("Starting main benchmark run...\n")?;
        }
        if self.config.self_timed {
            return output::print("Self timing is set, using the timestamps from the trace file.\n");
        }
        match arrival.ramp_up {
            Some(ramp) => output::print(&format!(
                "Traffic ramp-up strategy: {}.\nWill increase RPS from {} to {} RPS over the duration of the benchmark.\n",
                strategy(ramp.strategy),
                ramp.start_rps,
                ramp.end_rps
            ))?,
            None => output::print(&format!("Traffic request rate: {}\n", shown(arrival.rate)))?,
        }
        let process = if arrival.burstiness.to_bits() == 1.0f64.to_bits() {
            "Poisson process"
        } else {
            "Gamma distribution"
        };
        let limit = max_concurrency.map_or_else(|| "None".to_owned(), |limit| limit.to_string());
        output::print(&format!(
            "Burstiness factor: {} ({process})\nMaximum request concurrency: {limit}\n",
            shown(arrival.burstiness)
        ))
    }

    /// When each request is due, in seconds; none for as soon as the limit allows.
    fn delays(&self, requests: &[Request]) -> Result<Option<Vec<f64>>, Failure> {
        let Config { version, params, arrival, .. } = &self.config;
        if self.config.self_timed {
            return Ok(Some(requests.iter().map(|request| request.offset_ns as f64 / 1e9).collect()));
        }
        if arrival.rate.is_infinite() && arrival.ramp_up.is_none() {
            return Ok(None);
        }
        let delays = schedule::vllm::delays(*version, params.seed.into(), requests.len(), arrival);
        Ok(Some(delays.map_err(Failure::usage)?))
    }

    fn pace(&self) -> Pace {
        let Config { arrival, request_rate, self_timed, .. } = &self.config;
        let arrival = match arrival.ramp_up {
            _ if *self_timed => Some("as the trace has it".to_owned()),
            Some(ramp) => Some(format!(
                "gamma {}, {} from {} to {}",
                arrival.burstiness,
                strategy(ramp.strategy),
                ramp.start_rps,
                ramp.end_rps
            )),
            None => request_rate.map(|_| match arrival.burstiness {
                1.0 => "poisson".to_owned(),
                shape if shape.is_infinite() => "constant".to_owned(),
                shape => format!("gamma {shape}"),
            }),
        };
        Pace { rate: *request_rate, arrival }
    }

    /// From 0.24 on the original asks the server how many tokens the first prompt has, and cuts prompts where that is
    /// not what its own tokenizer says. Here the question is asked, and a difference is told.
    fn check_server_tokenizer(&self, first: &Request) -> Outcome {
        let body: Value = serde_json::from_slice(&first.body).unwrap_or_default();
        let prompt = body["prompt"].as_str().or(body["messages"][0]["content"][0]["text"].as_str());
        let Some(prompt) = prompt else {
            return Ok(());
        };
        let question = Json::Object(vec![
            ("model".to_owned(), self.model.as_str().into()),
            ("prompt".to_owned(), prompt.into()),
            ("add_special_tokens".to_owned(), Json::Bool(false)),
        ])
        .dumps();
        let target = &self.config.base.target;
        let path = format!("{}/tokenize", base_path(&self.config));
        let headers = Headers::new(target).for_body(question.len());
        let answer = ask(target, &path, headers, question.into_bytes(), SIDE_TIMEOUT)?;
        let answered: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        match answered["tokens"].as_array().filter(|_| answer.is_ok()) {
            None => output::print("WARNING: /tokenize unavailable, skipping alignment.\n"),
            Some(tokens) if Some(tokens.len()) == first.input_tokens.map(|count| count as usize) => Ok(()),
            Some(tokens) => {
                eprintln!(
                    "note: the server counts {} tokens in the first prompt, the tokenizer {}: the original would shorten its prompts here, and they are sent as they are; is --tokenizer the server's?",
                    tokens.len(),
                    first.input_tokens.unwrap_or_default()
                );
                Ok(())
            }
        }
    }

    /// The server's counters, from 0.14 on. Asked for twice, as the original does: once for each kind.
    fn scrape(&self) -> Result<Counters, Failure> {
        if self.config.version == Version::V0_11_0 {
            return Ok(Counters::default());
        }
        let target = &self.config.base.target;
        let text = || -> Result<String, Failure> {
            let path = format!("{}/metrics", base_path(&self.config));
            let answer = ask(target, &path, Headers::new(target).for_get(), Vec::new(), SIDE_TIMEOUT)?;
            Ok(if answer.is_ok() {
                String::from_utf8_lossy(&answer.body).into_owned()
            } else {
                String::new()
            })
        };
        Ok(Counters {
            spec_decode: counters::spec_decode(&text()?),
            diffusion: counters::diffusion(&text()?),
        })
    }
}

/// One reading of the server's counters.
#[derive(Default)]
struct Counters {
    spec_decode: Option<SpecDecodeCounters>,
    diffusion: Option<DiffusionCounters>,
}

impl Counters {
    fn between(before: &Self, after: &Self, duration_s: f64) -> (Option<SpecDecode>, Option<Diffusion>) {
        let spec = before.spec_decode.as_ref().zip(after.spec_decode.as_ref());
        let diffusion = before.diffusion.as_ref().zip(after.diffusion.as_ref());
        (
            spec.and_then(|(before, after)| SpecDecode::between(before, after)),
            diffusion.and_then(|(before, after)| Diffusion::between(before, after, duration_s)),
        )
    }
}

/// `print(x)` of a float.
fn shown(x: f64) -> String {
    if x.is_infinite() { "inf".to_owned() } else { python::float(x) }
}
