//! The requests of `evalscope perf`, held against bodies that the client itself made or sent.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokentape::generate::compat::Data;
use tokentape::generate::compat::evalscope::{self, Dataset, Params, Streams};
use tokentape::generate::{Api, Lengths};
use tokentape::metrics::evalscope::Version;
use tokentape::tape::format::Request;
use tokentape_tokenizer::Tokenizer;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/requests/evalscope")
}

fn text(body: &[u8]) -> &str {
    std::str::from_utf8(body).unwrap()
}

/// The lines of a packed fixture.
fn lines(name: &str) -> Vec<String> {
    let packed = std::fs::read(folder().join(format!("{name}.jsonl.zst"))).unwrap();
    let mut text = String::new();
    zstd::Decoder::new(&packed[..]).unwrap().read_to_string(&mut text).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Each line of what `fixtures/requests/evalscope/make.py` wrote: the runs of a sweep, and what the client made of them.
fn hold(name: &str, cases: usize, tokenizer: &Tokenizer) {
    let golden = lines(name);
    for line in &golden {
        let line: Value = serde_json::from_str(line).unwrap();
        let params: Params = serde_json::from_value(line["params"].clone()).unwrap();
        let file = line["file"].as_str().map(|name| (name, std::fs::read(folder().join(name)).unwrap()));
        let data = file.as_ref().map(|(name, bytes)| Data { name, bytes });
        let runs = line["runs"].as_array().unwrap();
        let mut numbers: Vec<Option<u32>> = params.earlier.iter().copied().map(Some).collect();
        numbers.push(params.number);
        assert_eq!(numbers.len(), runs.len());

        let mut streams = params.streams().unwrap();
        let mut this = Params { earlier: Vec::new(), ..params.clone() };
        let mut last = Vec::new();
        for (number, run) in numbers.into_iter().zip(runs) {
            this.number = number;
            let test = evalscope::connection_test(&this, &mut streams, tokenizer).unwrap();
            assert_eq!(text(&test), run["test"], "{}", line["params"]);
            last = evalscope::run(&this, &mut streams, tokenizer, data).unwrap();
            let bodies: Vec<&str> = last.iter().map(|request| text(&request.body)).collect();
            assert_eq!(Value::from(bodies), run["bodies"], "{}", line["params"]);
            for (request, offset_s) in last.iter().zip(run["offsets_s"].as_array().into_iter().flatten()) {
                assert_eq!(request.offset_ns, tokentape::schedule::offset_ns(offset_s.as_f64().unwrap()));
            }
            if params.version == Version::V1_14_1 {
                this.dataset_offset += u64::from(number.unwrap_or_default());
            }
        }
        // The last run by itself, the earlier ones gone through on the way.
        assert_eq!(evalscope::requests(&params, tokenizer, data).unwrap(), last);
    }
    assert_eq!(golden.len(), cases);
}

#[test]
fn bodies_are_the_clients_byte_for_byte() {
    let tokenizer = Tokenizer::embedded().unwrap();
    hold("1.1.1", 18, &tokenizer);
    hold("1.14.1", 33, &tokenizer);
}

/// With tokens that stand for bytes, and a BOS before each text.
#[test]
fn bodies_are_the_clients_byte_for_byte_with_a_vocabulary_of_bytes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tokenizer/bytes");
    let tokenizer = Tokenizer::load(folder.to_str().unwrap()).unwrap();
    hold("1.1.1-bytes", 18, &tokenizer);
    hold("1.14.1-bytes", 33, &tokenizer);
}

/// The captures' parameters.
fn random(version: Version, number: u32, lengths: [u32; 2], prefix_length: u32, seed: Option<u32>) -> Params {
    Params {
        version,
        dataset: Dataset::Random,
        number: Some(number),
        seed,
        tokenizer: Some("qwen3".to_owned()),
        model: Some("truth".to_owned()),
        api: Api::Chat,
        min_prompt_length: lengths[0],
        max_prompt_length: lengths[1],
        prefix_length,
        max_tokens: Lengths::new(10, 10).unwrap(),
        extra_args: [("ignore_eos".to_owned(), true.into())].into_iter().collect(),
        ..Params::default()
    }
}

#[test]
fn captured_traffic_is_made_again_with_the_real_tokenizer() {
    let Ok(folder) = std::env::var("TOKENTAPE_QWEN3") else {
        eprintln!("skipped: TOKENTAPE_QWEN3 names no folder with Qwen3's tokenizer.json");
        return;
    };
    let tokenizer = Tokenizer::load(&folder).unwrap();
    for (version, name, number) in [
        (Version::V1_1_1, "captured-1.1.1_chat_random-100-300-prefix20_seed7", 30),
        (Version::V1_14_1, "captured-1.14.1_chat_random-100-300-prefix20_seed7", 20),
    ] {
        let captured = lines(name);
        let params = random(version, number, [100, 300], 20, Some(7));
        let mut streams = params.streams().unwrap();
        let test = evalscope::connection_test(&params, &mut streams, &tokenizer).unwrap();
        assert_eq!(text(&test), captured[0]);
        let requests = evalscope::requests(&params, &tokenizer, None).unwrap();
        // Of the first few, sent at once, any may be first on the wire; `hold` has the client's own order.
        let mut made: Vec<&str> = requests.iter().map(|request| text(&request.body)).collect();
        let mut sent: Vec<&str> = captured[1..].iter().map(String::as_str).collect();
        made.sort_unstable();
        sent.sort_unstable();
        assert_eq!(made, sent, "{name}");
    }

    // Without a seed the client's words are its own; lengths and keys are not.
    let captured = lines("captured-1.14.1_chat_random-100_noseed");
    let params = Params { unsent_seed: Some(0), ..random(Version::V1_14_1, 20, [100, 100], 0, None) };
    let requests = evalscope::requests(&params, &tokenizer, None).unwrap();
    assert_eq!(requests.len(), captured.len() - 1);
    for (request, captured) in requests.iter().zip(&captured[1..]) {
        let (made, sent) = (shape(text(&request.body)), shape(captured));
        assert_eq!(made, sent);
        let sent: Value = serde_json::from_str(captured).unwrap();
        let counts = (request.input_tokens, tokenizer.count_chat(&sent["messages"]).unwrap());
        assert_eq!(counts, (Some(100), 100));
    }
    let mut streams = Streams::seeded(0);
    let test = evalscope::connection_test(&params, &mut streams, &tokenizer).unwrap();
    assert_eq!(text(&test), captured[0]);
}

/// A body with its prompt taken out.
fn shape(body: &str) -> String {
    let mut body: Value = serde_json::from_str(body).unwrap();
    body["messages"][0]["content"] = Value::Null;
    body.to_string()
}

#[test]
fn a_header_makes_the_same_requests_again() {
    let tokenizer = Tokenizer::embedded().unwrap();
    let params = random(Version::V1_14_1, 4, [40, 60], 5, Some(3));
    let header = evalscope::header(&params, &tokenizer).unwrap();
    assert_eq!((header.source.as_str(), header.seed), ("evalscope-1.14.1/random", Some(3)));
    let again: Params = serde_json::from_value(Value::Object(header.params)).unwrap();
    assert_eq!(again, params);
    let make = |params: &Params| -> Vec<Request> { evalscope::requests(params, &tokenizer, None).unwrap() };
    assert_eq!(make(&again), make(&params));
}

#[test]
fn what_the_client_cannot_do_is_refused_by_its_flag() {
    let tokenizer = Tokenizer::embedded().unwrap();
    let good = random(Version::V1_1_1, 2, [40, 60], 0, Some(3));
    let of = |params: Params| evalscope::requests(&params, &tokenizer, None).unwrap_err().to_string();
    for (params, message) in [
        (Params { seed: None, ..good.clone() }, "--seed is needed: without one"),
        (Params { number: Some(0), ..good.clone() }, "--number must be at least 1"),
        (Params { model: None, ..good.clone() }, "--model is needed"),
        (Params { tokenize_prompt: true, ..good.clone() }, "--tokenize-prompt is not in evalscope 1.1.1"),
        (
            Params { dataset: Dataset::ShareGpt, ..good.clone() },
            "--dataset share-gpt is not in evalscope 1.1.1",
        ),
        (
            Params { max_tokens: Lengths::new(1, 2).unwrap(), ..good.clone() },
            "--max-tokens takes a single number in evalscope 1.1.1",
        ),
        (Params { prefix_count: 0, ..good.clone() }, "--prefix-count must be at least 1"),
        (
            Params { dataset: Dataset::Openqa, ..good },
            "evalscope-1.1.1/openqa takes its prompts from a data file",
        ),
    ] {
        let error = of(params);
        assert!(error.starts_with(message), "{error}");
    }
}
