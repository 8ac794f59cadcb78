//! The `custom` dataset of `vllm bench serve`: JSON lines `{"prompt", "output_tokens"}`, and, in other files of the
//! kind, `{"messages", "max_tokens"}`. Facts:
//! `vllm/benchmarks/datasets.py` of 0.11.0 and `vllm/benchmarks/datasets/datasets.py` of 0.33.0, `CustomDataset`.

use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::export::{Alike, BASE_URL, Carries, Exporter, Usage, command, comments, model, quoted};
use super::import::{Error, Input};
use super::prompt::{Prompt, ask};
use super::rows::Rows;
use super::source::{self, Asked, Imported, Source};
use crate::tape::Request;

#[derive(Deserialize)]
struct Line<'a> {
    prompt: Option<String>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    output_tokens: Option<u32>,
    max_tokens: Option<u32>,
    tools: Option<IgnoredAny>,
}

/// Reads such a file.
pub(super) struct Reader {
    rows: Rows,
}

impl Reader {
    pub(super) fn open(input: &Input) -> Result<Self, Error> {
        Ok(Self { rows: Rows::json(input)? })
    }
}

impl Source for Reader {
    fn next(&mut self) -> Result<Option<Imported>, Error> {
        let Some(row) = self.rows.next()? else { return Ok(None) };
        let line: Line<'_> = row.json(r#"{"prompt": …, "output_tokens": …} or {"messages": […]}"#)?;
        if line.tools.is_some() {
            return Err(row.error("it has tools, which stand in a body: import such a line as raw-payload"));
        }
        let prompt = match (line.prompt, line.messages) {
            (Some(text), None) => source::Prompt::Text(text),
            (None, Some(list)) if list.get().starts_with('[') => {
                source::Prompt::Messages(list.get().to_owned())
            }
            (None, Some(_)) => return Err(row.error("its messages are no list")),
            (Some(_), Some(_)) => return Err(row.error("it has both a prompt and messages: leave one out")),
            (None, None) => {
                return Err(row.error("it has neither a prompt nor messages: is this another format?"));
            }
        };
        let answer = line.output_tokens.or(line.max_tokens).into();
        Ok(Some(Imported::Asked(Asked { offset_ns: 0, prompt, answer, session: None })))
    }
}

/// Collects what all requests have in common.
#[derive(Debug, Default)]
pub(super) struct VllmCustom {
    alike: Alike,
    /// The number of output tokens, as long as it is one and the same.
    output_tokens: Option<u64>,
    lengths_differ: bool,
    /// Some prompt is not a number: pandas makes a column of numbers out of text that is nothing else.
    any_text: bool,
}

impl Exporter for VllmCustom {
    fn line(&mut self, request: &Request) -> Result<String, String> {
        let ask = ask(request)?;
        self.alike.add(request, &ask)?;
        if ask.rest.get("stream") == Some(&Value::Bool(false)) {
            return Err("it asks for no stream; vllm bench serve always streams".to_owned());
        }
        let tokens = ask.output_tokens.ok_or("it does not say how many tokens it asks for")?;
        self.lengths_differ |= self.output_tokens.is_some_and(|known| known != tokens);
        self.output_tokens = Some(tokens);
        self.any_text |= ask.prompt.text().trim().parse::<f64>().is_err();
        Ok(json!({ "prompt": ask.prompt.text(), "output_tokens": tokens }).to_string())
    }

    fn remedy(&self) -> &'static str {
        "replay the tape with tokentape, or export evalscope-trace, which carries whole bodies"
    }

    fn carries(&self) -> Carries {
        Carries::default()
    }

    fn command(&self, usage: Usage<'_>) -> Result<String, String> {
        // The tool itself takes no other spelling.
        if Path::new(usage.file).extension().is_none_or(|extension| extension != "jsonl") {
            return Err(format!(
                "{}: vllm bench serve reads a custom dataset only from a file whose name ends in .jsonl",
                usage.file
            ));
        }
        if !self.any_text && self.alike.requests > 0 {
            return Err("every prompt is a number: pandas, with which vllm bench serve reads the file, makes numbers \
                        of them; add a prompt with a letter, or replay the tape with tokentape"
                .to_owned());
        }
        let (path, ask) = self.alike.first()?;
        let (backend, chat) = match ask.prompt {
            Prompt::Chat { .. } => ("openai-chat", true),
            Prompt::Completion { .. } => ("openai", false),
        };
        let tokenizer = usage.header.tokenizer.as_ref().map_or("TOKENIZER", |tokenizer| &tokenizer.name);
        let common = |skip_template: &str, output_len: &str| {
            vec![
                "vllm bench serve".to_owned(),
                format!("--backend {backend} --base-url {BASE_URL} --endpoint {}", quoted(path)),
                format!("--model {} --tokenizer {}", quoted(&model(ask)), quoted(tokenizer)),
                format!("--dataset-name custom --dataset-path {}", quoted(usage.file)),
                format!("--num-prompts {}", self.alike.requests),
                format!("{skip_template} --custom-output-len {output_len}"),
            ]
        };
        let Sampling { flags, other } = Sampling::of(&ask.rest);

        let mut text = comments(&["vLLM 0.33.0".to_owned()]);
        let mut words = common("--skip-chat-template --disable-shuffle", "-1");
        words.extend(flags.clone());
        if !other.is_empty() {
            words.push(format!("--extra-body {}", quoted(&Value::Object(other.clone()).to_string())));
        }
        text += &command(&words);

        text += &comments(&["vLLM 0.11.0".to_owned()]);
        let output_tokens = self.output_tokens.filter(|_| !self.lengths_differ);
        text += &match (output_tokens, other.is_empty()) {
            (Some(tokens), true) => {
                let mut words = common("--custom-skip-chat-template", &tokens.to_string());
                words.extend(flags);
                command(&words)
            }
            (None, _) => {
                comments(&["cannot send it: it knows one output length for all requests".to_owned()])
            }
            (_, false) => {
                let keys: Vec<&str> = other.keys().map(String::as_str).collect();
                comments(&[format!("cannot send it: it has no flag for {}", keys.join(", "))])
            }
        };
        text += &comments(&self.traps(chat));
        Ok(text)
    }
}

impl VllmCustom {
    fn traps(&self, chat: bool) -> Vec<String> {
        let mut traps = vec![
            "Traps:".to_owned(),
            "- Without the flag that skips it, the tokenizer's chat template is put around each prompt here, and a chat \
             server puts it around again."
                .to_owned(),
            "- 0.11.0 has no --disable-shuffle: it sends in an order of its own, the same for the same --seed.".to_owned(),
            "- 0.11.0 sends its first request once more before it begins, to see whether the server is there.".to_owned(),
            "- Without --custom-output-len every request asks for 256 tokens.".to_owned(),
            "- If --num-prompts is more than the file has, prompts are sent twice.".to_owned(),
            "- The bodies are not the tape's: other key order and spacing, \"stream_options\" always sent.".to_owned(),
        ];
        let Ok((_, ask)) = self.alike.first() else {
            return traps;
        };
        if chat && ask.tokens_key == Some("max_tokens") {
            traps.push("- The tape's max_tokens is sent as max_completion_tokens.".to_owned());
        }
        if matches!(ask.prompt, Prompt::Chat { parts: false, .. }) {
            traps.push(
                "- The tape's content is a string; it is sent as a list of one text part, of which a server makes the \
                 same prompt, unless its chat template tells the two apart."
                    .to_owned(),
            );
        }
        if !ask.rest.contains_key("temperature") {
            traps.push(
                "- The tape asks for no temperature; 0.11.0 to 0.14.0 send 0.0 all the same.".to_owned(),
            );
        }
        traps
    }
}

/// The keys of a body that have a flag, and the others.
struct Sampling {
    flags: Vec<String>,
    other: Map<String, Value>,
}

impl Sampling {
    fn of(rest: &Map<String, Value>) -> Self {
        let mut flags = Vec::new();
        let mut other = Map::new();
        for (key, value) in rest {
            match (key.as_str(), value) {
                ("model" | "stream" | "stream_options", _) | ("ignore_eos", Value::Bool(false)) => {}
                ("ignore_eos", Value::Bool(true)) => flags.push("--ignore-eos".to_owned()),
                ("temperature" | "top_p" | "top_k" | "min_p", Value::Number(number)) => {
                    flags.push(format!("--{} {number}", key.replace('_', "-")));
                }
                _ => {
                    other.insert(key.clone(), value.clone());
                }
            }
        }
        Self { flags, other }
    }
}
