//! Against what the original itself made with the embedded tokenizer (`fixtures/requests/vllm/make.py`).

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const V0_11_0: &str = include_str!("../../../../fixtures/requests/vllm/0.11.0.jsonl");
/// 0.32.0 makes the same.
const V0_33_0: &str = include_str!("../../../../fixtures/requests/vllm/0.33.0.jsonl");

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::embedded().unwrap());

fn data(name: &str) -> Data<'static> {
    let bytes: &[u8] = match name {
        "custom.jsonl" => include_bytes!("../../../../fixtures/requests/vllm/custom.jsonl"),
        "sharegpt.json" => include_bytes!("../../../../fixtures/requests/vllm/sharegpt.json"),
        "trace.jsonl" => include_bytes!("../../../../fixtures/requests/vllm/trace.jsonl"),
        _ => panic!("no data {name}"),
    };
    Data { name: "fixture", bytes }
}

/// The flags of a run, each with its value if it has one.
struct Flags(Vec<String>);

impl Flags {
    fn has(&self, flag: &str) -> bool {
        self.0.iter().any(|known| known == flag)
    }

    fn text(&self, flag: &str) -> Option<&str> {
        let at = self.0.iter().position(|known| known == flag)?;
        Some(&self.0[at + 1])
    }

    fn get<T: std::str::FromStr<Err: std::fmt::Debug>>(&self, flag: &str) -> Option<T> {
        Some(self.text(flag)?.parse().unwrap())
    }

    fn json(&self, flag: &str) -> Option<Value> {
        Some(serde_json::from_str(self.text(flag)?).unwrap())
    }

    fn dataset(&self) -> Dataset {
        match self.text("--dataset-name").unwrap() {
            "random" => Dataset::Random {
                input_len: self.get("--random-input-len").unwrap(),
                output_len: self.get("--random-output-len").unwrap(),
                range_ratio: serde_json::from_value(self.json("--random-range-ratio").unwrap()).unwrap(),
                prefix_len: self.get("--random-prefix-len").unwrap(),
            },
            "custom" => Dataset::Custom {
                output_len: match self.get("--custom-output-len").unwrap_or(256) {
                    -1 => None,
                    tokens => Some(u32::try_from(tokens).unwrap()),
                },
                skip_chat_template: self.has("--custom-skip-chat-template")
                    || self.has("--skip-chat-template"),
            },
            "sharegpt" => Dataset::Sharegpt { output_len: self.get("--sharegpt-output-len") },
            "prefix_repetition" => Dataset::PrefixRepetition {
                prefix_len: self.get("--prefix-repetition-prefix-len").unwrap(),
                suffix_len: self.get("--prefix-repetition-suffix-len").unwrap(),
                num_prefixes: self.get("--prefix-repetition-num-prefixes").unwrap(),
                output_len: self.get("--prefix-repetition-output-len").unwrap(),
            },
            "timed_trace" => Dataset::TimedTrace {
                chunk_hash_size: self.get("--timed-trace-chunk-hash-size").unwrap(),
                sec_multiplier: self.get("--timed-trace-sec-multiplier").unwrap(),
                labels: Labels::default(),
            },
            name => panic!("no dataset {name}"),
        }
    }

    fn params(&self, version: Version) -> Params {
        let extra_body = match self.json("--extra-body") {
            Some(Value::Object(extra)) => extra,
            _ => Map::new(),
        };
        Params {
            backend: if self.has("openai-chat") { Api::Chat } else { Api::Completions },
            seed: self.get("--seed").unwrap(),
            ignore_eos: self.has("--ignore-eos"),
            logprobs: self.get("--logprobs"),
            sampling: Sampling {
                top_p: self.get("--top-p"),
                top_k: self.get("--top-k"),
                min_p: self.get("--min-p"),
                temperature: self.get("--temperature"),
                frequency_penalty: self.get("--frequency-penalty"),
                presence_penalty: self.get("--presence-penalty"),
                repetition_penalty: self.get("--repetition-penalty"),
            },
            extra_body,
            no_oversample: self.has("--no-oversample"),
            disable_shuffle: self.has("--disable-shuffle"),
            ..Params::new(version, self.dataset(), "m", self.get("--num-prompts").unwrap())
        }
    }
}

/// `special` in `make.py`: a token before each text, and special tokens in the midst of the vocabulary.
fn special() -> Tokenizer {
    const TOKENIZER: &[u8] = include_bytes!("../../../../tokenizer/data/tokenizer.json");
    const CONFIG: &[u8] = include_bytes!("../../../../tokenizer/data/tokenizer_config.json");
    let mut tokenizer: Value = serde_json::from_slice(TOKENIZER).unwrap();
    let text = |id, kind| json!({"Sequence": {"id": id, "type_id": kind}});
    tokenizer["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, text("A", 0)],
        "pair": [text("A", 0), text("B", 1)],
        "special_tokens": {
            "<|endoftext|>": {"id": "<|endoftext|>", "ids": [8192], "tokens": ["<|endoftext|>"]}
        },
    });
    let added = |id, content| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        })
    };
    let tokens = tokenizer["added_tokens"].as_array_mut().unwrap();
    tokens.splice(..0, [added(258, "ing"), added(259, "er")]);
    let mut config: Value = serde_json::from_slice(CONFIG).unwrap();
    config["unk_token"] = json!("ing");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let tokenizer = Tokenizer::load(folder.path().to_str().unwrap()).unwrap();
    assert_eq!(tokenizer.special_ids(), [258, 8192, 8194]);
    assert_eq!(tokenizer.special_tokens_to_add(), 1);
    tokenizer
}

fn compare(version: Version, cases: &str) -> usize {
    let special = special();
    let mut compared = 0;
    for case in cases.lines() {
        let case: Value = serde_json::from_str(case).unwrap();
        let tokenizer = if case["special"] == true { &special } else { &*TOKENIZER };
        let flags: Flags = Flags(serde_json::from_value(case["flags"].clone()).unwrap());
        let data = flags.text("--dataset-path").map(data);
        let made = requests(&flags.params(version), tokenizer, data).unwrap();
        let expected = case["requests"].as_array().unwrap();
        assert_eq!(made.len(), expected.len(), "{:?}", flags.0);
        for (made, expected) in made.iter().zip(expected) {
            let body = std::str::from_utf8(&made.body).unwrap();
            assert_eq!(body, expected["body"], "{version:?} request {} of {:?}", made.index, flags.0);
            assert_eq!(json!(made.input_tokens), expected["input_tokens"], "{:?}", flags.0);
            assert_eq!(json!(made.output_tokens), expected["output_tokens"], "{:?}", flags.0);
            let arrival = expected["timestamp"].as_f64().unwrap_or(0.0);
            let off = (made.offset_ns as f64 - arrival * 1e9).abs();
            assert!(off <= 0.5, "{:?}", flags.0);
            compared += 1;
        }
    }
    compared
}

#[test]
fn requests_are_the_originals() {
    assert_eq!(compare(Version::V0_11_0, V0_11_0), 100);
    assert_eq!(compare(Version::V0_32_0, V0_33_0), 132);
    assert_eq!(compare(Version::V0_33_0, V0_33_0), 132);
}

fn random(input_len: u32, ratio: f64, prefix_len: u32) -> Dataset {
    Dataset::Random { input_len, output_len: 5, range_ratio: RangeRatio::Both(ratio), prefix_len }
}

fn error(params: &Params, data: Option<Data<'_>>) -> String {
    requests(params, &TOKENIZER, data).unwrap_err().to_string()
}

fn file(bytes: &str) -> Data<'_> {
    Data { name: "rows.jsonl", bytes: bytes.as_bytes() }
}

#[test]
fn what_a_version_cannot_do_is_said() {
    let old = |dataset| Params::new(Version::V0_11_0, dataset, "m", 3);
    let new = |dataset| Params::new(Version::V0_33_0, dataset, "m", 3);
    let extra_body = json!({"a": 1}).as_object().unwrap().clone();
    let each = Dataset::Random {
        input_len: 9,
        output_len: 9,
        range_ratio: RangeRatio::Each { input: 0.1, output: 0.2 },
        prefix_len: 0,
    };
    let trace = |chunk_hash_size| Dataset::TimedTrace {
        chunk_hash_size,
        sec_multiplier: 1.0,
        labels: Labels::default(),
    };
    let repetition =
        Dataset::PrefixRepetition { prefix_len: 2, suffix_len: 2, num_prefixes: 4, output_len: 2 };
    let cases = [
        (Params { extra_body, ..old(random(9, 0.0, 0)) }, "--extra-body does not exist in vllm 0.11.0"),
        (old(each), "--range-ratio is one number"),
        (new(random(9, 1.0, 0)), "--range-ratio must be at least 0 and below 1"),
        (new(random(0, 0.0, 0)), "--input-tokens 0 is too small"),
        (new(random(MAX_TOKENS, 0.5, 0)), "--input-tokens makes prompts"),
        (Params { num_prompts: 0, ..new(random(9, 0.0, 0)) }, "--requests must be at least 1"),
        (
            Params { logprobs: Some(1), backend: Api::Chat, ..new(random(9, 0.0, 0)) },
            "--logprobs is not sent",
        ),
        (
            old(Dataset::Custom { output_len: None, skip_chat_template: true }),
            "--output-tokens has to be given",
        ),
        (old(trace(16)), "does not exist in vllm 0.11.0"),
        (new(trace(0)), "--chunk-hash-size must be from 1"),
        (Params { backend: Api::Chat, ..new(trace(16)) }, "--api must be completions"),
        (new(repetition), "--num-prefixes must be from 1 to the number of requests, which is 3"),
    ];
    for (params, expected) in cases {
        let message = error(&params, Some(file("{\"prompt\": \"a\"}")));
        assert!(message.contains(expected), "{message}\ndoes not say: {expected}");
    }
}

#[test]
fn a_header_of_other_parameters_is_refused() {
    let params = Params::new(Version::V0_33_0, random(9, 0.0, 0), "m", 2);
    let mut header = header(&params, &TOKENIZER).unwrap();
    let again = |header: &Header| {
        crate::generate::regenerate_with(header, &TOKENIZER, 1, &mut |_| Ok(()))
            .map_err(|error| error.to_string())
    };
    assert_eq!(again(&header).map(|made| made.requests), Ok(2));
    header.source = "vllm-0.11.0/random".to_owned();
    let message = again(&header).unwrap_err();
    assert!(message.contains("vllm-0.11.0/random") && message.contains("vllm-0.33.0/random"), "{message}");
    header.params.insert("beam".to_owned(), json!(1));
    let message = again(&header).unwrap_err();
    assert!(message.contains("unknown field `beam`"), "{message}");
}

#[test]
fn a_bad_file_is_named_with_its_line() {
    let custom = Dataset::Custom { output_len: None, skip_chat_template: false };
    let custom = Params::new(Version::V0_33_0, custom, "m", 3);
    let sharegpt = Params::new(Version::V0_33_0, Dataset::Sharegpt { output_len: None }, "m", 3);
    let trace = Dataset::TimedTrace { chunk_hash_size: 16, sec_multiplier: 1.0, labels: Labels::default() };
    let trace = Params::new(Version::V0_33_0, trace, "m", 3);
    let cases = [
        (&custom, "", "rows.jsonl: no prompts in it"),
        (&custom, "\n{\"prompt\": 5}\n", "rows.jsonl, line 2: not an object with a \"prompt\""),
        (&custom, "{\"prompt\": \"a\"}\n", "rows.jsonl, line 1: no \"output_tokens\": add it, or give"),
        (&sharegpt, "{}", "rows.jsonl: not a JSON list of objects"),
        (&sharegpt, "[]", "rows.jsonl: no conversation of two messages"),
        (
            &sharegpt,
            r#"[{"conversations": [{"value": 1}, {"value": "b"}]}]"#,
            "rows.jsonl, line 1: message 1 has no text",
        ),
        (
            &trace,
            "{\"timestamp\": 1}",
            "rows.jsonl, line 1: no number \"input_length\"; the line has timestamp",
        ),
        (
            &trace,
            "{\"timestamp\": -1, \"input_length\": 1, \"output_length\": 1}",
            "rows.jsonl, line 1: \"timestamp\" is no time",
        ),
        (
            &trace,
            "{\"timestamp\": 1, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": [\"a\"]}",
            "rows.jsonl, line 1: \"hash_ids\" is no list of whole numbers",
        ),
    ];
    for (params, bytes, expected) in cases {
        let message = error(params, Some(file(bytes)));
        assert!(message.contains(expected), "{message}\ndoes not say: {expected}");
    }
    let missing = error(&custom, None);
    assert!(
        missing.contains("vllm-0.33.0/custom takes its prompts from a data file, which a tape does not hold"),
        "{missing}"
    );
    let id = Data { name: "folder/rows.jsonl", bytes: b"other" }.id();
    assert_eq!(id.name, "rows.jsonl");
    let message = error(&Params { data: Some(id), ..custom }, Some(file("{\"prompt\": \"a\"}")));
    assert!(message.contains("its BLAKE3 digest is not"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is asked for, a version with the loop gives prompts whose own count is the one it states, and a header
    /// leads back to the same requests.
    #[test]
    fn stated_lengths_are_true_and_headers_lead_back(
        seed: u32, n in 1u32..4, len in 1u32..40, ratio in 0.0..0.99, prefix in 0u32..9, chat: bool, old: bool,
    ) {
        let version = if old { Version::V0_11_0 } else { Version::V0_33_0 };
        let backend = if chat { Api::Chat } else { Api::Completions };
        // With a prefix, no prompt is empty.
        let params = Params { backend, seed, ..Params::new(version, random(len, ratio, prefix + 1), "m", n) };
        let made = requests(&params, &TOKENIZER, None).unwrap();
        prop_assert_eq!(made.len(), n as usize);
        for request in &made {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let text = body["prompt"].as_str().or(body["messages"][0]["content"][0]["text"].as_str()).unwrap();
            if !old {
                prop_assert_eq!(TOKENIZER.count(text).unwrap(), request.input_tokens.unwrap() as usize);
            }
        }
        let header = header(&params, &TOKENIZER).unwrap();
        let back: Params = serde_json::from_value(Value::Object(header.params)).unwrap();
        prop_assert_eq!(&back, &params);
        prop_assert_eq!(requests(&back, &TOKENIZER, None).unwrap(), made);
    }
}
