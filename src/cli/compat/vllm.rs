//! `tokentape compat vllm bench serve ARGS...`: the command's own flags, read into what a run needs.
//!
//! Flags and defaults are those of `vllm/benchmarks/serve.py` and `datasets.py` of the version asked for.

mod counters;
mod flags;
mod result;
mod run;

use std::path::PathBuf;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::flags::{Given, Syntax, read};
use super::server::Server;
use crate::cli::Failure;
use crate::generate::Api;
use crate::generate::compat::vllm::{Dataset, Labels, Params, RangeRatio, Sampling};
use crate::metrics::vllm::{Goodput, Version};
use crate::report::vllm::Metric;
use crate::schedule::vllm::{Arrival, RampUp, Strategy};

pub(super) use run::exec;

/// What the command line says, with the version's defaults.
#[derive(Debug)]
struct Config {
    version: Version,
    /// `--base-url`, or the one that host and port make.
    base: Server,
    /// The path that requests go to: that of the base URL, and the endpoint.
    path: String,
    /// `--backend`, as given.
    backend: String,
    headers: Vec<(String, String)>,
    /// `--model`; none where the server is asked.
    model: Option<String>,
    served_model_name: Option<String>,
    tokenizer: Option<String>,
    params: Params,
    dataset_path: Option<PathBuf>,
    arrival: Arrival,
    /// `--request-rate`; none for `inf`.
    request_rate: Option<f64>,
    self_timed: bool,
    max_concurrency: Option<u32>,
    num_warmups: usize,
    ready_check_timeout_s: u64,
    request_id_prefix: Option<String>,
    metrics: Vec<Metric>,
    percentiles: Vec<f64>,
    goodput: Option<Goodput>,
    output: Output,
    quiet: bool,
}

/// What is left of a run, and where.
#[derive(Debug)]
struct Output {
    save: bool,
    detailed: bool,
    append: bool,
    folder: Option<PathBuf>,
    file: Option<String>,
    label: Option<String>,
    metadata: Vec<(String, String)>,
}

impl Config {
    fn new(version: Version, args: &[String]) -> Result<(Self, Given), Failure> {
        let oldest = version == Version::V0_11_0;
        let given = syntax(version).parse(args)?;
        let Place { base, path, backend, api } = Place::new(&given, oldest)?;
        let model = given.one("--model").map(str::to_owned);
        if model.is_none() && oldest {
            return Err(Failure::usage("--model is required"));
        }
        let arrival = arrival(&given)?;
        let dataset = dataset(&given)?;
        let timed = matches!(dataset, Dataset::TimedTrace { .. });
        if !timed && (given.has("--self-timed") || given.has("--no-self-timed")) {
            return Err(Failure::usage("--self-timed is for --dataset-name timed_trace alone"));
        }
        let max_concurrency: Option<u32> = given.value("--max-concurrency")?;
        if max_concurrency == Some(0) {
            return Err(Failure::usage("--max-concurrency must be at least 1"));
        }
        let drawn_before = matches!(dataset, Dataset::PrefixRepetition { .. });
        if drawn_before && (arrival.rate.is_finite() || arrival.ramp_up.is_some()) {
            return Err(Failure::usage(
                "--request-rate with prefix_repetition is not supported: its schedule depends on the data set's own draws",
            ));
        }
        let params = Params {
            backend: api,
            seed: given.value_or("--seed", 0)?,
            ignore_eos: given.has("--ignore-eos"),
            logprobs: given.value("--logprobs")?,
            sampling: sampling(&given)?,
            extra_body: object(&given, "--extra-body")?,
            no_oversample: given.has("--no-oversample"),
            disable_shuffle: given.has("--disable-shuffle"),
            ..Params::new(version, dataset, "", given.value_or("--num-prompts", 1000)?)
        };
        let percentiles = given.one("--metric-percentiles").unwrap_or("99");
        let config = Self {
            version,
            base,
            path,
            backend,
            headers: given.pairs("--header", '=')?,
            model,
            served_model_name: given.one("--served-model-name").map(str::to_owned),
            tokenizer: given.one("--tokenizer").map(str::to_owned),
            params,
            dataset_path: given.one("--dataset-path").map(PathBuf::from),
            request_rate: Some(arrival.rate).filter(|rate| rate.is_finite()),
            arrival,
            self_timed: timed && given.last_is_first("--self-timed", "--no-self-timed"),
            max_concurrency,
            num_warmups: given.value_or("--num-warmups", 0)?,
            ready_check_timeout_s: given
                .value_or("--ready-check-timeout-sec", if oldest { 600 } else { 0 })?,
            request_id_prefix: given.one("--request-id-prefix").map(str::to_owned),
            metrics: list(
                "--percentile-metrics",
                given.one("--percentile-metrics").unwrap_or("ttft,tpot,itl"),
            )?,
            percentiles: list("--metric-percentiles", percentiles)?,
            goodput: goodput(&given)?,
            output: Output {
                save: given.has("--save-result") || given.has("--append-result"),
                detailed: given.has("--save-detailed"),
                append: given.has("--append-result"),
                folder: given.one("--result-dir").map(PathBuf::from),
                file: given.one("--result-filename").map(str::to_owned),
                label: given.one("--label").map(str::to_owned),
                metadata: given.pairs("--metadata", '=')?,
            },
            quiet: given.has("--disable-tqdm"),
        };
        if config.percentiles.iter().any(|p| !(0.0..=100.0).contains(p)) {
            return Err(Failure::usage("--metric-percentiles are from 0 to 100"));
        }
        Ok((config, given))
    }
}

/// Where requests go, and what reads them there.
struct Place {
    base: Server,
    path: String,
    backend: String,
    api: Api,
}

impl Place {
    fn new(given: &Given, oldest: bool) -> Result<Self, Failure> {
        let base = if let Some(url) = given.one("--base-url") {
            url.to_owned()
        } else {
            let (host, port) =
                (given.one("--host").unwrap_or("127.0.0.1"), given.value_or("--port", 8000u16)?);
            let host = if host.contains(':') && !oldest { format!("[{host}]") } else { host.to_owned() };
            format!("http://{host}:{port}")
        };
        let endpoint = given.one("--endpoint").unwrap_or("/v1/completions");
        let path = Server::new(&format!("{base}{endpoint}"))?.path;
        let base = Server::new(&base)?;
        let backend = given.one("--backend").or(given.one("--endpoint-type")).unwrap_or("openai").to_owned();
        let api = match backend.as_str() {
            "openai-chat" => Api::Chat,
            "openai" | "vllm" => Api::Completions,
            other => {
                return Err(Failure::usage(format_args!(
                    "--backend: '{other}' is not supported; supported are openai, vllm and openai-chat"
                )));
            }
        };
        let wanted = if api == Api::Chat { "chat/completions" } else { "completions" };
        if !path.ends_with(wanted) {
            return Err(Failure::usage(format_args!(
                "--endpoint: {backend} sends to a URL that ends with '{wanted}', and '{endpoint}' does not; give --endpoint /v1/{wanted}"
            )));
        }
        Ok(Self { base, path, backend, api })
    }
}

/// The version's command line.
pub(super) fn syntax(version: Version) -> Syntax {
    let command = match version {
        Version::V0_11_0 => "vllm bench serve 0.11.0",
        Version::V0_32_0 => "vllm bench serve 0.32.0",
        Version::V0_33_0 => "vllm bench serve 0.33.0",
    };
    let flags = &[flags::SERVE, flags::DATASETS];
    Syntax { command, flags, oldest: version == Version::V0_11_0, underscores: true }
}

fn list<T: FromStr>(flag: &str, text: &str) -> Result<Vec<T>, Failure>
where
    T::Err: std::fmt::Display,
{
    text.split(',').map(|part| read(flag, part)).collect()
}

fn object(given: &Given, flag: &str) -> Result<Map<String, Value>, Failure> {
    let text = given.one(flag).unwrap_or("{}");
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Failure::usage(format_args!("{flag}: it is not a JSON object"))),
        Err(error) => Err(Failure::usage(format_args!("{flag}: {error}"))),
    }
}

fn sampling(given: &Given) -> Result<Sampling, Failure> {
    Ok(Sampling {
        top_p: given.value("--top-p")?,
        top_k: given.value("--top-k")?,
        min_p: given.value("--min-p")?,
        temperature: given.value("--temperature")?,
        frequency_penalty: given.value("--frequency-penalty")?,
        presence_penalty: given.value("--presence-penalty")?,
        repetition_penalty: given.value("--repetition-penalty")?,
    })
}

fn dataset(given: &Given) -> Result<Dataset, Failure> {
    // `--input-len` and `--output-len` win over the data sets' own flags.
    let output = |flag: &str, default: i64| {
        given.value("--output-len").and_then(|len| match len {
            Some(len) => Ok(len),
            None => given.value_or(flag, default),
        })
    };
    let tokens = |flag: &str, value: i64| {
        u32::try_from(value)
            .map_err(|_| Failure::usage(format_args!("{flag}: {value} is no number of tokens")))
    };
    Ok(match given.one("--dataset-name").unwrap_or("random") {
        "random" => {
            if given.has("--dataset-path") {
                return Err(Failure::usage("--dataset-path: the data set 'random' has no file"));
            }
            if given.value_or("--random-batch-size", 1u32)? != 1 {
                return Err(Failure::usage(
                    "--random-batch-size above 1 is for embeddings, which are not supported",
                ));
            }
            let input: u32 = match given.value("--input-len")? {
                Some(len) => len,
                None => given.value_or("--random-input-len", 1024)?,
            };
            let ratio = given.one("--random-range-ratio").unwrap_or("0.0");
            let range_ratio: RangeRatio = serde_json::from_str(ratio).map_err(|_| {
                Failure::usage(format_args!(
                    "--random-range-ratio: '{ratio}' is neither a number nor {{\"input\": …, \"output\": …}}"
                ))
            })?;
            Dataset::Random {
                input_len: input,
                output_len: tokens("--random-output-len", output("--random-output-len", 128)?)?,
                range_ratio,
                prefix_len: given.value_or("--random-prefix-len", 0)?,
            }
        }
        "custom" => {
            let skips = given.has("--skip-chat-template") || given.has("--custom-skip-chat-template");
            let len = output("--custom-output-len", 256)?;
            Dataset::Custom {
                output_len: if len == -1 { None } else { Some(tokens("--custom-output-len", len)?) },
                skip_chat_template: skips,
            }
        }
        "sharegpt" => Dataset::Sharegpt {
            output_len: match given.value("--output-len")? {
                Some(len) => Some(len),
                None => given.value("--sharegpt-output-len")?,
            },
        },
        "prefix_repetition" => Dataset::PrefixRepetition {
            prefix_len: given.value_or("--prefix-repetition-prefix-len", 256)?,
            suffix_len: given.value_or("--prefix-repetition-suffix-len", 256)?,
            num_prefixes: given.value_or("--prefix-repetition-num-prefixes", 10)?,
            output_len: tokens(
                "--prefix-repetition-output-len",
                output("--prefix-repetition-output-len", 128)?,
            )?,
        },
        "timed_trace" => {
            let default = Labels::default();
            let label = |flag: &str, default: String| given.one(flag).map_or(default, str::to_owned);
            Dataset::TimedTrace {
                chunk_hash_size: given.value_or("--timed-trace-chunk-hash-size", 16)?,
                sec_multiplier: given.value_or("--timed-trace-sec-multiplier", 1.0)?,
                labels: Labels {
                    timestamp: label("--timed-trace-label-timestamp", default.timestamp),
                    input_length: label("--timed-trace-label-input-length", default.input_length),
                    output_length: label("--timed-trace-label-output-length", default.output_length),
                    hash_ids: label("--timed-trace-label-hash-ids", default.hash_ids),
                },
            }
        }
        other => {
            return Err(Failure::usage(format_args!(
                "--dataset-name: '{other}' is not supported; supported are random, custom, sharegpt, prefix_repetition and timed_trace"
            )));
        }
    })
}

fn arrival(given: &Given) -> Result<Arrival, Failure> {
    let rate = given.value_or("--request-rate", f64::INFINITY)?;
    let rps = |flag: &str| given.value::<u32>(flag);
    let ramp_up = match given.one("--ramp-up-strategy") {
        None => None,
        Some(name) => {
            let strategy = match name {
                "linear" => Strategy::Linear,
                "exponential" => Strategy::Exponential,
                other => {
                    return Err(Failure::usage(format_args!(
                        "--ramp-up-strategy: '{other}' is neither linear nor exponential"
                    )));
                }
            };
            let (Some(start), Some(end)) = (rps("--ramp-up-start-rps")?, rps("--ramp-up-end-rps")?) else {
                return Err(Failure::usage(
                    "--ramp-up-strategy needs --ramp-up-start-rps and --ramp-up-end-rps",
                ));
            };
            if rate.is_finite() {
                return Err(Failure::usage("--request-rate and --ramp-up-strategy exclude each other"));
            }
            if start > end {
                return Err(Failure::usage("--ramp-up-start-rps must not be above --ramp-up-end-rps"));
            }
            Some(RampUp { strategy, start_rps: f64::from(start), end_rps: f64::from(end) })
        }
    };
    Ok(Arrival { rate, burstiness: given.value_or("--burstiness", 1.0)?, ramp_up })
}

fn goodput(given: &Given) -> Result<Option<Goodput>, Failure> {
    if !given.has("--goodput") {
        return Ok(None);
    }
    let mut goodput = Goodput { ttft_ms: None, tpot_ms: None, e2el_ms: None };
    for (name, value) in given.pairs("--goodput", ':')? {
        let ms: f64 = read("--goodput", &value)?;
        if ms.is_nan() || ms < 0.0 {
            return Err(Failure::usage(format_args!("--goodput: {name}:{value} is below 0")));
        }
        match name.as_str() {
            "ttft" => goodput.ttft_ms = Some(ms),
            "tpot" => goodput.tpot_ms = Some(ms),
            "e2el" => goodput.e2el_ms = Some(ms),
            _ => {
                return Err(Failure::usage(format_args!(
                    "--goodput: '{name}' is none of ttft, tpot and e2el"
                )));
            }
        }
    }
    Ok(Some(goodput))
}
