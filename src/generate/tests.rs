//! Whole generations, on the embedded tokenizer.

use std::sync::OnceLock;

use serde_json::{Value, json};

use super::*;

fn embedded() -> &'static Tokenizer {
    static EMBEDDED: OnceLock<Tokenizer> = OnceLock::new();
    EMBEDDED.get_or_init(|| Tokenizer::embedded().unwrap())
}

fn params() -> Params {
    Params { requests: 200, ..Params::default() }
}

fn all(params: Params, tokenizer: &Tokenizer, threads: usize) -> (Vec<Request>, Made) {
    let mut requests = Vec::new();
    let made = Random::new(params, tokenizer)
        .unwrap()
        .run(threads, &mut |request| {
            requests.push(request);
            Ok(())
        })
        .unwrap();
    (requests, made)
}

fn prompt(request: &Request) -> String {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let text = if body["prompt"].is_string() { &body["prompt"] } else { &body["messages"][0]["content"] };
    text.as_str().unwrap().to_owned()
}

/// BLAKE3 of the bodies in order, its first 16 hex digits.
fn digest(requests: &[Request]) -> String {
    let mut hasher = blake3::Hasher::new();
    for request in requests {
        hasher.update(&request.body);
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

/// Tapes are cited by their digests: these may change only with a new major version of the generator.
#[test]
fn bodies_are_golden_on_any_number_of_threads() {
    let completions = Params {
        api: Api::Completions,
        input_tokens: "1..40".parse().unwrap(),
        output_tokens: "7..9".parse().unwrap(),
        seed: 42,
        ignore_eos: true,
        temperature: serde_json::from_str("0.5").unwrap(),
        extra_body: json!({"top_p": 0.9}).as_object().unwrap().clone(),
        ..params()
    };
    let prefixed = Params { range_ratio: 0.3, prefix_tokens: 64, num_prefixes: 3, ..params() };
    let templated = Params { count_template: true, input_tokens: "20".parse().unwrap(), ..params() };
    for (params, golden) in [
        (params(), "27afc15de3afa146"),
        (Params { seed: 1, ..params() }, "afc83eacd7bb8f8a"),
        (completions, "88d0f6749cb0006a"),
        (prefixed, "94f3a57c083cc395"),
        (templated, "99b82a7c4622c284"),
    ] {
        for threads in [1, 2, 3] {
            let (requests, made) = all(params.clone(), embedded(), threads);
            assert_eq!(made, Made { requests: params.requests, inexact: 0 });
            assert_eq!(digest(&requests), golden, "{threads} threads, {params:?}");
        }
    }
}

#[test]
fn a_request_does_not_depend_on_the_others() {
    let many =
        Params { prefix_tokens: 5, num_prefixes: 4, input_tokens: "3..30".parse().unwrap(), ..params() };
    let (requests, _) = all(many.clone(), embedded(), 2);
    let few = Params { requests: 1, ..many };
    let alone = Random::new(few, embedded()).unwrap();
    for index in [0, 1, 77, 199] {
        assert_eq!(alone.request(index).unwrap(), requests[usize::try_from(index).unwrap()]);
    }
}

#[test]
fn each_prompt_has_the_tokens_that_were_asked_for() {
    let asked = Params { input_tokens: "1..300".parse().unwrap(), prefix_tokens: 10, ..params() };
    let (requests, _) = all(asked, embedded(), 2);
    let prefix: Vec<u32> = embedded().encode(&prompt(&requests[0])).unwrap()[..10].to_vec();
    let mut lengths = Vec::new();
    for request in &requests {
        let ids = embedded().encode_plain(&prompt(request)).unwrap();
        assert_eq!(Some(u32::try_from(ids.len()).unwrap()), request.input_tokens);
        assert_eq!(ids[..10], prefix[..], "one prefix for all");
        lengths.push(ids.len());
    }
    lengths.sort_unstable();
    assert!(lengths[0] >= 11 && lengths[199] <= 310 && lengths[0] < 30 && lengths[199] > 290, "{lengths:?}");
}

#[test]
fn prefixes_are_shared_by_requests() {
    let shared = Params { prefix_tokens: 8, num_prefixes: 5, input_tokens: "4".parse().unwrap(), ..params() };
    let (requests, _) = all(shared, embedded(), 1);
    let mut prefixes: Vec<Vec<u32>> =
        requests.iter().map(|request| embedded().encode(&prompt(request)).unwrap()[..8].to_vec()).collect();
    prefixes.sort();
    prefixes.dedup();
    assert_eq!(prefixes.len(), 5);
}

#[test]
fn the_templates_tokens_are_counted_on_the_whole_chat() {
    let (requests, _) = all(Params { count_template: true, ..params() }, embedded(), 1);
    for request in requests {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let rendered = embedded().render_chat(&body["messages"], true).unwrap();
        assert_eq!(embedded().encode_plain(&rendered).unwrap().len(), 100);
        assert_eq!(request.input_tokens, Some(100));
    }
}

#[test]
fn a_header_makes_its_tape_again() {
    let made = Params {
        input_tokens: "5..9".parse().unwrap(),
        temperature: serde_json::from_str("0").unwrap(),
        extra_body: json!({"b": 1, "a": 2}).as_object().unwrap().clone(),
        tokenizer: "./some/path/that/is/not/kept".to_owned(),
        ..params()
    };
    let header = Random::new(made.clone(), embedded()).unwrap().header().clone();
    assert!(!serde_json::to_string(&header).unwrap().contains("path"));
    let (requests, _) = all(made, embedded(), 1);
    // A header goes through a file on its way.
    let mut header: Header = serde_json::from_str(&serde_json::to_string(&header).unwrap()).unwrap();
    let mut again = Vec::new();
    regenerate(&header, 2, &mut |request| {
        again.push(request);
        Ok(())
    })
    .unwrap();
    assert_eq!(again, requests);

    let fail = |header: &Header| regenerate(header, 1, &mut |_| Ok(())).unwrap_err();
    header.params.remove("seed");
    assert!(matches!(fail(&header), Error::Header { reason } if reason.contains("seed")));
    header.params.insert("seed".to_owned(), json!(0));
    header.tokenizer.as_mut().unwrap().digest = "other".to_owned();
    assert!(matches!(fail(&header), Error::OtherTokenizer { expected, .. } if expected == "other"));
    header.source = "chronicle".to_owned();
    assert!(matches!(fail(&header), Error::UnknownSource { name } if name == "chronicle"));
}

#[test]
fn the_header_holds_every_parameter() {
    let header = Random::new(params(), embedded()).unwrap().header().clone();
    let flags: Vec<&str> = header.params.keys().map(String::as_str).collect();
    assert_eq!(
        flags,
        [
            "requests",
            "input-tokens",
            "output-tokens",
            "range-ratio",
            "prefix-tokens",
            "num-prefixes",
            "seed",
            "tokenizer",
            "model",
            "api",
            "ignore-eos",
            "temperature",
            "extra-body",
            "count-template"
        ]
    );
    assert_eq!(header.params["input-tokens"], json!(100));
}

#[test]
fn parameters_that_make_no_sense_are_named() {
    let fail = |params: Params| Random::new(params, embedded()).unwrap_err().to_string();
    let range = "1..2".parse().unwrap();
    for (params, flag) in [
        (Params { requests: 0, ..params() }, "--requests"),
        (Params { range_ratio: 1.0, ..params() }, "--range-ratio"),
        (Params { range_ratio: f64::NAN, ..params() }, "--range-ratio"),
        (Params { range_ratio: 0.1, input_tokens: range, ..params() }, "--range-ratio"),
        (Params { num_prefixes: 0, ..params() }, "--num-prefixes"),
        (Params { num_prefixes: 2, ..params() }, "--num-prefixes"),
        (Params { prefix_tokens: u32::MAX, ..params() }, "--prefix-tokens"),
        (Params { count_template: true, api: Api::Completions, ..params() }, "--count-template"),
        (Params { count_template: true, input_tokens: range, ..params() }, "--input-tokens"),
        (
            Params { extra_body: json!({"messages": []}).as_object().unwrap().clone(), ..params() },
            "--extra-body",
        ),
    ] {
        let message = fail(params);
        assert!(message.starts_with(flag), "{message}");
    }
}

/// A folder with a tokenizer of letters that may merge, and perhaps a template.
fn letters(template: Option<&str>) -> (tempfile::TempDir, Tokenizer) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("tokenizer.json"),
        include_bytes!("../../fixtures/tokenizer/letters/tokenizer.json"),
    )
    .unwrap();
    if let Some(template) = template {
        std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    }
    let tokenizer = Tokenizer::load(folder.path().to_str().unwrap()).unwrap();
    (folder, tokenizer)
}

#[test]
fn without_words_prompts_are_repaired_until_they_are_exact() {
    let (_folder, tokenizer) = letters(None);
    assert!(tokenizer.words().len() < 256, "too few");
    let (requests, made) = all(Params { prefix_tokens: 9, ..params() }, &tokenizer, 2);
    assert_eq!(made.inexact, 0);
    let first = prompt(&requests[0]);
    for request in requests {
        let text = prompt(&request);
        assert_eq!(tokenizer.encode_plain(&text).unwrap().len(), 109, "{text}");
        assert_eq!(text[..9], first[..9]);
    }
}

/// A template that says the prompt twice makes every count even: an odd one cannot be had.
#[test]
fn a_length_that_cannot_be_had_is_reported_and_the_true_one_recorded() {
    let (_folder, tokenizer) = letters(Some("{{ messages[0].content }}.{{ messages[0].content }}."));
    let odd = Params { count_template: true, input_tokens: "51".parse().unwrap(), requests: 20, ..params() };
    let (requests, made) = all(odd, &tokenizer, 1);
    assert_eq!(made, Made { requests: 20, inexact: 20 });
    for request in requests {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let count = tokenizer.count_chat(&body["messages"]).unwrap();
        assert_eq!(request.input_tokens, Some(u32::try_from(count).unwrap()));
        assert!(count % 2 == 0 && count.abs_diff(51) < 20, "{count}");
    }
}
