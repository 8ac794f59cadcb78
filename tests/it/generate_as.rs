//! `tokentape generate --as vllm-…` through the binary: against what the client itself makes.

use std::env;
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use tokentape::tape::Reader;

use crate::support::{bad, good};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/requests/vllm");

fn fixture(name: &str) -> String {
    std::fs::read_to_string(format!("{FIXTURES}/{name}")).unwrap()
}

fn bodies(tape: &Path) -> Vec<String> {
    let reader = Reader::open(tape).unwrap();
    reader.requests().map(|request| String::from_utf8(request.unwrap().body).unwrap()).collect()
}

/// The client's flags as ours; none where one of them has no counterpart.
fn ours(flags: &[String]) -> Option<Vec<String>> {
    let named = |flag: &str| {
        let at = flags.iter().position(|known| known == flag)?;
        flags.get(at + 1).map(String::as_str)
    };
    let mut args = match named("--dataset-name")? {
        "random" => vec!["generate", "random"],
        "prefix_repetition" => vec!["generate", "dataset", "prefix-repetition"],
        "timed_trace" => vec!["generate", "dataset", "timed-trace"],
        name => vec!["generate", "dataset", name],
    }
    .into_iter()
    .map(str::to_owned)
    .collect::<Vec<_>>();
    args.extend(named("--dataset-path").map(|path| format!("{FIXTURES}/{path}")));
    let api = if flags.iter().any(|flag| flag == "openai-chat") { "chat" } else { "completions" };
    args.extend(["--api", api].map(str::to_owned));
    let mut rest = flags.iter();
    while let Some(flag) = rest.next() {
        let our = match flag.as_str() {
            "--backend" | "--dataset-name" | "--dataset-path" | "--endpoint" => {
                rest.next();
                continue;
            }
            "--custom-skip-chat-template" => "--skip-chat-template",
            flag @ ("--disable-shuffle" | "--ignore-eos" | "--no-oversample" | "--skip-chat-template") => {
                flag
            }
            flag => {
                let (our, value) = match (flag, rest.next()?.as_str()) {
                    ("--custom-output-len", "-1") => {
                        args.push("--own-output-tokens".to_owned());
                        continue;
                    }
                    ("--random-range-ratio", value) if value.starts_with('{') => return None,
                    ("--num-prompts", value) => ("--requests", value),
                    ("--random-input-len", value) => ("--input-tokens", value),
                    (
                        "--custom-output-len"
                        | "--prefix-repetition-output-len"
                        | "--random-output-len"
                        | "--sharegpt-output-len",
                        value,
                    ) => ("--output-tokens", value),
                    ("--prefix-repetition-num-prefixes", value) => ("--num-prefixes", value),
                    ("--prefix-repetition-prefix-len" | "--random-prefix-len", value) => {
                        ("--prefix-tokens", value)
                    }
                    ("--prefix-repetition-suffix-len", value) => ("--suffix-tokens", value),
                    ("--random-range-ratio", value) => ("--range-ratio", value),
                    ("--timed-trace-chunk-hash-size", value) => ("--chunk-hash-size", value),
                    ("--timed-trace-sec-multiplier", value) => ("--sec-multiplier", value),
                    ("--extra-body" | "--model" | "--seed" | "--temperature", value) => (flag, value),
                    _ => return None,
                };
                args.extend([our, value].map(str::to_owned));
                continue;
            }
        };
        args.push(our.to_owned());
    }
    Some(args)
}

#[test]
fn bodies_are_the_clients() {
    let folder = tempfile::tempdir().unwrap();
    let tape = folder.path().join("t.tape.zst");
    for (version, name, expressible) in
        [("0.11.0", "0.11.0.jsonl", 8), ("0.32.0", "0.33.0.jsonl", 12), ("0.33.0", "0.33.0.jsonl", 12)]
    {
        let mut compared = 0;
        for case in fixture(name).lines() {
            let case: Value = serde_json::from_str(case).unwrap();
            let flags: Vec<String> = serde_json::from_value(case["flags"].clone()).unwrap();
            // The library's own tests have the cases of another tokenizer.
            let Some(mut args) = ours(&flags).filter(|_| case["special"] != true) else {
                continue;
            };
            args.extend(["--as".to_owned(), format!("vllm-{version}")]);
            args.extend(["-o".to_owned(), tape.to_str().unwrap().to_owned()]);
            good(&args);
            let expected: Vec<&str> = case["requests"]
                .as_array()
                .unwrap()
                .iter()
                .map(|request| request["body"].as_str().unwrap())
                .collect();
            assert_eq!(bodies(&tape), expected, "{args:?}");
            compared += 1;
        }
        assert_eq!(compared, expressible, "{version}");
    }
}

#[test]
fn a_peers_tape_is_made_again_from_its_header_unless_it_needs_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let tape = folder.path().join("t.tape.zst");
    let tape = tape.to_str().unwrap();
    for dialect in ["vllm-0.11.0", "vllm-0.33.0", "evalscope-1.1.1", "evalscope-1.14.1"] {
        let text = good(["generate", "random", "--as", dialect, "--requests", "5", "-o", tape]);
        assert!(!text.contains("exact prompts"), "{text}");
        assert!(good(["verify", "--regenerate", tape]).contains("its header makes it again"), "{dialect}");
        assert_eq!(Reader::open(tape).unwrap().header().source, format!("{dialect}/random"));
    }
    let file = format!("{FIXTURES}/custom.jsonl");
    good(["generate", "dataset", "custom", &file, "--as", "vllm-0.33.0", "--requests", "3", "-o", tape]);
    assert!(good(["inspect", tape]).contains("custom.jsonl"));
    let line = bad(3, ["verify", "--regenerate", tape]);
    assert!(line.contains("vllm-0.33.0/custom") && line.contains("custom.jsonl"), "{line}");
}

#[test]
fn a_flag_that_the_dialect_cannot_express_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tape = folder.path().join("t.tape.zst");
    let tape = tape.to_str().unwrap();
    let random: [(&str, &[&str], &str); 9] = [
        ("vllm-0.33.0", &["--input-tokens", "5..9"], "--input-tokens 5..9: vllm-0.33.0 knows no ranges"),
        ("vllm-0.33.0", &["--num-prefixes", "2"], "--num-prefixes has no counterpart in vllm-0.33.0"),
        ("vllm-0.33.0", &["--count-template"], "--count-template has no counterpart"),
        ("vllm-0.33.0", &["--seed", "4294967296"], "--seed 4294967296: vllm-0.33.0 takes at most 4294967295"),
        ("vllm-0.11.0", &["--extra-body", "{\"a\": 1}"], "--extra-body does not exist in vllm 0.11.0"),
        ("vllm-0.11.0", &["--range-ratio", "1"], "--range-ratio must be at least 0 and below 1"),
        ("vllm-0.12.0", &[], "unknown dialect"),
        (
            "evalscope-1.14.1",
            &["--range-ratio", "0.5"],
            "--range-ratio has no counterpart in evalscope-1.14.1",
        ),
        ("evalscope-1.1.1", &["--output-tokens", "5..9"], "takes a single number in evalscope 1.1.1"),
    ];
    for (dialect, flags, expected) in random {
        let mut args = vec!["generate", "random", "--as", dialect, "-o", tape];
        args.extend(flags);
        let line = bad(2, args);
        assert!(line.contains(expected), "{line}\ndoes not say: {expected}");
    }
    let file = format!("{FIXTURES}/custom.jsonl");
    let dataset: [(&[&str], &str); 6] = [
        (&["custom", &file, "--as", "native"], "--as native"),
        (&["custom", "--as", "vllm-0.33.0"], "custom takes its prompts from a file"),
        (&["openqa", &file, "--as", "vllm-0.33.0"], "vllm-0.33.0 has no dataset openqa"),
        (&["timed-trace", &file, "--as", "evalscope-1.14.1"], "evalscope-1.14.1 has no dataset timed-trace"),
        (
            &["custom", &file, "--as", "vllm-0.33.0", "--suffix-tokens", "2"],
            "--suffix-tokens means nothing to custom",
        ),
        (
            &["openqa", &file, "--as", "evalscope-1.1.1", "--no-oversample"],
            "--no-oversample means nothing to openqa",
        ),
    ];
    for (flags, expected) in dataset {
        let line = bad(2, [&["generate", "dataset", "-o", tape], flags].concat());
        assert!(line.contains(expected), "{line}\ndoes not say: {expected}");
    }
    let line = bad(3, ["generate", "dataset", "custom", "no.jsonl", "--as", "vllm-0.33.0", "-o", tape]);
    assert!(line.contains("cannot read no.jsonl"), "{line}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written");
}

/// A capture's timed requests, in the order of their ids: 0.11.0 sends its first request once before the run, without
/// an id; 0.32.0 asks `/tokenize` and `/metrics`.
fn captured(name: &str) -> Vec<String> {
    let compressed = std::fs::read(format!("{FIXTURES}/{name}")).unwrap();
    let mut text = String::new();
    let mut decoder = zstd::Decoder::new(compressed.as_slice()).unwrap().take(1 << 20);
    decoder.read_to_string(&mut text).unwrap();
    let mut timed: Vec<(u32, String)> = text
        .lines()
        .filter_map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let id = line["x_request_id"].as_str()?;
            // `benchmark-serving7`, `bench-1f2e3d4c-7`.
            let number = id.rsplit('-').next().unwrap().trim_start_matches(|c: char| !c.is_ascii_digit());
            let number = number.parse().unwrap();
            Some((number, line["body"].as_str().unwrap().to_owned()))
        })
        .collect();
    timed.sort_unstable();
    timed.into_iter().map(|(_, body)| body).collect()
}

#[test]
fn captures_with_the_qwen3_tokenizer_are_equal() {
    let Some(tokenizer) = env::var_os("TOKENTAPE_QWEN3") else {
        println!("skipped: TOKENTAPE_QWEN3 does not name the folder of the Qwen3 tokenizer");
        return;
    };
    let tokenizer = tokenizer.to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let tape = folder.path().join("t.tape.zst");
    let chat = ["--input-tokens", "100", "--output-tokens", "10", "--seed", "0"].as_slice();
    let completions = [
        "--api",
        "completions",
        "--input-tokens",
        "200",
        "--output-tokens",
        "20",
        "--range-ratio",
        "0.5",
        "--prefix-tokens",
        "32",
        "--seed",
        "42",
    ]
    .as_slice();
    for (version, api, flags) in [
        ("0.11.0", "chat", chat),
        ("0.11.0", "completions", completions),
        ("0.32.0", "chat", chat),
        ("0.32.0", "completions", completions),
    ] {
        let dialect = format!("vllm-{version}");
        let mut args =
            vec!["generate", "random", "--as", &dialect, "--tokenizer", tokenizer, "--requests", "20"];
        args.extend(["--model", "truth", "--ignore-eos", "-o", tape.to_str().unwrap()]);
        args.extend(flags);
        good(args);
        let expected = captured(&format!("{version}_{api}.capture.jsonl.zst"));
        assert_eq!(expected.len(), 20);
        assert_eq!(bodies(&tape), expected, "{version} {api}");
    }
}
