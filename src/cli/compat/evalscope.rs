//! `tokentape compat evalscope perf ARGS...`: the command's own flags, read into what a sweep needs.
//!
//! Flags and defaults are those of `evalscope/perf/arguments.py` of the version asked for.

mod flags;
mod run;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::flags::{Given, Syntax, read};
use super::server::Server;
use crate::cli::Failure;
use crate::generate::compat::evalscope::{Dataset, Params, TraceArgs};
use crate::generate::{Api, Lengths};
use crate::metrics::evalscope::Version;

pub(super) use run::exec;

/// What the command line says, with the version's defaults.
#[derive(Debug)]
struct Config {
    version: Version,
    server: Server,
    url: String,
    headers: Vec<(String, String)>,
    params: Params,
    dataset_name: String,
    dataset_path: Option<PathBuf>,
    /// Each run of the sweep.
    steps: Vec<Step>,
    warmup: Warmup,
    sleep_interval: Duration,
    timeout: Duration,
    handoff: bool,
    outputs_dir: PathBuf,
    has_timestamp: bool,
    name: Option<String>,
    alias: Option<String>,
    /// The arguments as `benchmark_args.json` has them, without secrets.
    args: Map<String, Value>,
}

/// One run of a sweep.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    number: u32,
    /// None in an open loop.
    parallel: Option<u32>,
    /// None for as fast as the limit allows.
    rate: Option<f64>,
}

/// `--warmup-num`: below 1 a share of each run's number.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Warmup(f64);

impl Warmup {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count, 0 or more; `as` saturates"
    )]
    fn of(self, number: u32) -> u32 {
        match self.0 {
            share if share > 0.0 && share < 1.0 => ((share * f64::from(number)) as u32).max(1),
            count => count as u32,
        }
    }
}

impl Config {
    fn new(version: Version, args: &[String]) -> Result<(Self, Given), Failure> {
        let given = syntax(version).parse(args)?;
        let oldest = version == Version::V1_1_1;
        if given.one("--api").is_some_and(|api| api != "openai") {
            return Err(Failure::usage("--api: only openai is supported"));
        }
        let (url, api) = url(&given, oldest)?;
        let server = Server::new(&url)?;
        let mut headers = given.pairs("--headers", '=')?;
        if let Some(key) = given.one("--api-key") {
            let value = format!("Bearer {key}");
            match headers.iter_mut().find(|(name, _)| name == "Authorization") {
                Some(header) => header.1 = value,
                None => headers.push(("Authorization".to_owned(), value)),
            }
        }
        let open_loop = given.has("--open-loop");
        let dataset_name = given.one("--dataset").unwrap_or("openqa").to_owned();
        let dataset = dataset(&given, &dataset_name)?;
        let is_trace = matches!(dataset, Dataset::WorkloadTrace(_));
        if is_trace && !open_loop {
            return Err(Failure::usage("--dataset workload_trace needs --open-loop"));
        }
        let steps = steps(&given, oldest, open_loop, is_trace)?;
        let given_count = given.has("--number");
        let params = Params {
            number: (given_count || !is_trace).then_some(steps[0].number),
            ..params(version, &given, dataset, api)?
        };
        let config = Self {
            version,
            server,
            headers,
            dataset_name,
            dataset_path: given.one("--dataset-path").map(PathBuf::from),
            steps,
            warmup: Warmup(given.value_or("--warmup-num", 0.0)?),
            sleep_interval: Duration::from_secs(given.value_or("--sleep-interval", 5)?),
            timeout: Duration::from_secs(given.value_or("--total-timeout", 21_600)?),
            handoff: given.has("--enable-pd-metrics"),
            outputs_dir: PathBuf::from(given.one("--outputs-dir").unwrap_or("outputs")),
            has_timestamp: !given.has("--no-timestamp"),
            name: given.one("--name").map(str::to_owned),
            alias: given.one("--alias").map(str::to_owned),
            args: arguments(version, &given, &url, &params)?,
            url,
            params,
        };
        Ok((config, given))
    }

    /// Whether requests wait for no slot.
    fn open_loop(&self) -> bool {
        self.steps.iter().all(|step| step.parallel.is_none())
    }

    /// `--model` without its folder.
    fn model_id(&self) -> &str {
        let model = self.params.model.as_deref().unwrap_or_default();
        model.rsplit('/').next().unwrap_or_default()
    }
}

/// The version's command line.
pub(super) fn syntax(version: Version) -> Syntax {
    let command = match version {
        Version::V1_1_1 => "evalscope perf 1.1.1",
        Version::V1_14_1 => "evalscope perf 1.14.1",
    };
    Syntax { command, flags: &[flags::FLAGS], oldest: version == Version::V1_1_1, underscores: false }
}

/// The URL that requests go to, and the kind of its endpoint.
fn url(given: &Given, oldest: bool) -> Result<(String, Api), Failure> {
    let url = given.one("--url").unwrap_or("http://127.0.0.1:8877/v1/chat/completions");
    let (before, query) = match url.split_once('?') {
        Some((before, query)) => (before.trim_end_matches('/'), format!("?{query}")),
        None => (url.trim_end_matches('/'), String::new()),
    };
    let full = match before {
        _ if before.ends_with("/completions") => url.to_owned(),
        _ if oldest => {
            return Err(Failure::usage(
                "--url must end with /chat/completions or /completions; no other endpoint is supported",
            ));
        }
        // Later versions add what is missing.
        _ => format!("{before}/chat/completions{query}"),
    };
    let is_chat =
        full.split('?').next().is_some_and(|path| path.trim_end_matches('/').ends_with("chat/completions"));
    if given.has("--tokenize-prompt") && is_chat {
        return Ok((full.replacen("chat/completions", "completions", 1), Api::Chat));
    }
    Ok((full, if is_chat { Api::Chat } else { Api::Completions }))
}

fn dataset(given: &Given, name: &str) -> Result<Dataset, Failure> {
    let args = given.one("--dataset-args");
    if args.is_some() && name != "workload_trace" {
        return Err(Failure::usage("--dataset-args is supported for --dataset workload_trace alone"));
    }
    Ok(match name {
        "random" => Dataset::Random,
        "openqa" => Dataset::Openqa,
        "line_by_line" => Dataset::LineByLine,
        "custom" => Dataset::Custom,
        "share_gpt_zh" | "share_gpt_en" => Dataset::ShareGpt,
        "workload_trace" => {
            let args: TraceArgs = serde_json::from_str(args.unwrap_or("{}"))
                .map_err(|error| Failure::usage(format_args!("--dataset-args: {error}")))?;
            Dataset::WorkloadTrace(args)
        }
        other => {
            return Err(Failure::usage(format_args!(
                "--dataset: '{other}' is not supported; supported are random, openqa, line_by_line, custom, share_gpt_zh, share_gpt_en and workload_trace"
            )));
        }
    })
}

/// Each run of the sweep: the lists side by side.
fn steps(given: &Given, oldest: bool, open_loop: bool, is_trace: bool) -> Result<Vec<Step>, Failure> {
    let list = |flag: &'static str| -> Result<Vec<u32>, Failure> {
        given.many(flag).unwrap_or_default().iter().map(|text| read(flag, text)).collect()
    };
    let or = |list: Vec<u32>, default: u32| if list.is_empty() { vec![default] } else { list };
    let numbers = or(list("--number")?, 1000);
    let parallels = or(list("--parallel")?, 1);
    let rates: Vec<f64> = given
        .many("--rate")
        .unwrap_or_default()
        .iter()
        .map(|text| read("--rate", text))
        .collect::<Result<_, _>>()?;
    if oldest && (rates.len() > 1 || rates.iter().any(|rate| rate.fract() != 0.0)) {
        return Err(Failure::usage("--rate takes one whole number in evalscope perf 1.1.1"));
    }
    if numbers.contains(&0) || parallels.contains(&0) {
        return Err(Failure::usage("--number and --parallel must be at least 1"));
    }
    let positive = |rate: f64| Some(rate).filter(|rate| *rate > 0.0);
    if open_loop {
        if is_trace {
            return Ok(numbers
                .into_iter()
                .map(|number| Step { number, parallel: None, rate: None })
                .collect());
        }
        if numbers.len() != rates.len() || !rates.iter().all(|rate| *rate > 0.0) {
            return Err(Failure::usage(
                "--open-loop needs as many values of --rate, all above 0, as of --number",
            ));
        }
        let pairs = numbers.into_iter().zip(rates);
        return Ok(pairs
            .map(|(number, rate)| Step { number, parallel: None, rate: positive(rate) })
            .collect());
    }
    if numbers.len() != parallels.len() {
        return Err(Failure::usage(format_args!(
            "--number has {} values and --parallel {}; both need the same number of them",
            numbers.len(),
            parallels.len()
        )));
    }
    let rate = rates.first().copied().and_then(positive);
    let pairs = numbers.into_iter().zip(parallels);
    Ok(pairs.map(|(number, parallel)| Step { number, parallel: Some(parallel), rate }).collect())
}

fn params(version: Version, given: &Given, dataset: Dataset, api: Api) -> Result<Params, Failure> {
    let default = Params::default();
    let max_tokens = match given.many("--max-tokens") {
        None => default.max_tokens,
        Some([one]) => read::<Lengths>("--max-tokens", one)?,
        Some([from, to]) => read::<Lengths>("--max-tokens", &format!("{from}..{to}"))?,
        Some(_) => {
            return Err(Failure::usage("--max-tokens takes one number, or two that are a range's ends"));
        }
    };
    let applies = given.has("--apply-chat-template") || given.has("--no-apply-chat-template");
    Ok(Params {
        version,
        dataset,
        prompt: given.one("--prompt").map(prompt).transpose()?,
        // 1.1.1 has the flag, and tests all the same.
        test_connection: version == Version::V1_1_1 || !given.has("--no-test-connection"),
        seed: given.value("--seed")?,
        tokenizer: given.one("--tokenizer-path").map(str::to_owned),
        model: given.one("--model").map(str::to_owned),
        api,
        apply_chat_template: applies
            .then(|| given.last_is_first("--apply-chat-template", "--no-apply-chat-template")),
        tokenize_prompt: given.has("--tokenize-prompt"),
        min_prompt_length: given.value_or("--min-prompt-length", default.min_prompt_length)?,
        max_prompt_length: given.value_or("--max-prompt-length", default.max_prompt_length)?,
        prefix_length: given.value_or("--prefix-length", 0)?,
        prefix_count: given.value_or("--prefix-count", 1)?,
        dataset_offset: given.value_or("--dataset-offset", 0)?,
        max_tokens,
        min_tokens: given.value("--min-tokens")?,
        frequency_penalty: given.value("--frequency-penalty")?,
        repetition_penalty: given.value("--repetition-penalty")?,
        logprobs: given.has("--logprobs"),
        n_choices: given.value("--n-choices")?,
        stop: given.many("--stop").map(<[String]>::to_vec),
        stop_token_ids: given.many("--stop-token-ids").map(<[String]>::to_vec),
        temperature: given.value_or("--temperature", 0.0)?,
        top_p: given.value("--top-p")?,
        top_k: given.value("--top-k")?,
        extra_args: object("--extra-args", given.one("--extra-args").unwrap_or("{}"))?,
        query_template: given.one("--query-template").map(template).transpose()?,
        ..default
    })
}

/// Text, or the contents of `@FILE`.
fn text_or_file(flag: &str, text: &str) -> Result<String, Failure> {
    match text.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| Failure::input(format_args!("{flag}: cannot read {path}: {error}"))),
        None => Ok(text.to_owned()),
    }
}

fn prompt(text: &str) -> Result<String, Failure> {
    text_or_file("--prompt", text)
}

fn template(text: &str) -> Result<Map<String, Value>, Failure> {
    object("--query-template", &text_or_file("--query-template", text)?)
}

fn object(flag: &str, text: &str) -> Result<Map<String, Value>, Failure> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Failure::usage(format_args!("{flag}: it is not a JSON object"))),
        Err(error) => Err(Failure::usage(format_args!("{flag}: {error}"))),
    }
}

/// What `benchmark_args.json` says: the version's defaults, and over them what was given. Keys and secret headers are
/// left out, which the original writes.
fn arguments(
    version: Version,
    given: &Given,
    url: &str,
    params: &Params,
) -> Result<Map<String, Value>, Failure> {
    let defaults = match version {
        Version::V1_1_1 => include_str!("evalscope/args-1.1.1.json"),
        Version::V1_14_1 => include_str!("evalscope/args-1.14.1.json"),
    };
    let mut args = object("the defaults", defaults)?;
    for (key, value) in &mut args {
        let flag = format!("--{}", key.replace('_', "-"));
        let Some(values) = given.many(&flag) else {
            continue;
        };
        let is_text = matches!(
            key.as_str(),
            "model"
                | "tokenizer_path"
                | "name"
                | "alias"
                | "prompt"
                | "query_template"
                | "dataset"
                | "dataset_path"
                | "stop"
                | "stop_token_ids"
        );
        let is_float = matches!(
            key.as_str(),
            "temperature" | "top_p" | "frequency_penalty" | "repetition_penalty" | "warmup_num"
        ) || (key == "rate" && version == Version::V1_14_1);
        let read = |text: &String| match serde_json::from_str::<Value>(text) {
            _ if is_text => Value::from(text.as_str()),
            Ok(number) if is_float => number.as_f64().map_or(Value::Null, Value::from),
            Ok(value) => value,
            Err(_) => Value::from(text.as_str()),
        };
        *value = match values {
            [] if key == "stop" || key == "stop_token_ids" => Value::Array(Vec::new()),
            [] => Value::Bool(true),
            [one] if key != "stop" && key != "stop_token_ids" => read(one),
            many => many.iter().map(read).collect(),
        };
    }
    let secret =
        |name: &str| name.eq_ignore_ascii_case("authorization") || name.to_ascii_lowercase().contains("key");
    let headers = given.pairs("--headers", '=')?;
    let shown = headers.into_iter().filter(|(name, _)| !secret(name));
    let mut set = |key: &str, value: Value| {
        if let Some(place) = args.get_mut(key) {
            *place = value;
        }
    };
    set("headers", Value::Object(shown.map(|(name, value)| (name, Value::from(value))).collect()));
    set("api_key", Value::Null);
    set("url", Value::from(url));
    let model = params.model.as_deref();
    set("model_id", model.and_then(|model| model.rsplit('/').next()).map_or(Value::Null, Value::from));
    let applies = params.apply_chat_template.unwrap_or(params.api == Api::Chat);
    set("apply_chat_template", Value::from(applies));
    Ok(args)
}
