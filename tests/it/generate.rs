//! `tokentape generate` through the binary.

use std::path::Path;

use serde_json::Value;
use tokentape::generate;
use tokentape::tape::Reader;

use crate::support::tokentape;

/// Runs `tokentape generate random` with the flags, and returns its exit code, stdout and stderr.
fn random(folder: &Path, flags: &[&str]) -> (i32, String, String) {
    let output = tokentape(["generate", "random"]).current_dir(folder).args(flags).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn digest(path: &Path) -> String {
    blake3::hash(&std::fs::read(path).unwrap()).to_hex()[..16].to_owned()
}

#[test]
fn one_command_makes_one_file_whatever_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    for (name, threads) in [("a", "1"), ("b", "2"), ("c", "3"), ("d", "2")] {
        let (code, _, stderr) = random(folder.path(), &["-o", name, "--threads", threads]);
        assert_eq!((code, stderr.as_str()), (0, ""));
    }
    let digests = ["a", "b", "c", "d"].map(|name| digest(&folder.path().join(name)));
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4, "no partial files stay");
}

#[test]
fn what_was_made_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let flags = [
        "-o",
        "tapes/new/t.tape.zst",
        "--requests",
        "3",
        "--input-tokens",
        "7",
        "--output-tokens",
        "9",
        "--json",
    ];
    let (code, stdout, _) = random(folder.path(), &flags);
    assert_eq!(code, 0);
    let told: Value = serde_json::from_str(&stdout).unwrap();
    let reader = Reader::open(folder.path().join("tapes/new/t.tape.zst")).unwrap();
    assert_eq!(told["requests"], 3);
    assert_eq!(told["input_tokens"], 21);
    assert_eq!(told["output_tokens"], 27);
    assert_eq!(told["inexact_prompts"], 0);
    assert_eq!(told["workload_digest"], reader.footer().workload_digest.as_str());
    assert_eq!(told["tokenizer"]["name"], "embedded");

    let (_, text, _) = random(folder.path(), &flags[..flags.len() - 1]);
    for part in ["requests         3\n", &reader.footer().workload_digest, "exact prompts    3 of 3\n"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_tapes_own_header_makes_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let flags = [
        "-o",
        "t.tape.zst",
        "--requests",
        "50",
        "--input-tokens",
        "20..40",
        "--prefix-tokens",
        "8",
        "--num-prefixes",
        "2",
        "--seed",
        "18446744073709551615",
        "--api",
        "completions",
        "--temperature",
        "0.25",
        "--ignore-eos",
        "--extra-body",
        r#"{"top_k": 3, "stop": ["é"]}"#,
    ];
    let (code, _, stderr) = random(folder.path(), &flags);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let reader = Reader::open(folder.path().join("t.tape.zst")).unwrap();
    let mut recorded = reader.requests();
    let made = generate::regenerate(reader.header(), 2, &mut |request| {
        assert_eq!(request, recorded.next().unwrap().unwrap());
        Ok(())
    })
    .unwrap();
    assert_eq!(made.requests, 50);
    assert!(recorded.next().is_none());
}

#[test]
fn wrong_usage_is_named_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (flags, part) in [
        (&["--input-tokens", "9..3"][..], "9..3 ends before it begins"),
        (&["--input-tokens", "many"], "neither a number of tokens (100) nor a range"),
        (&["--output-tokens", "0"], "not between 1 and"),
        (&["--range-ratio", "1"], "--range-ratio must be at least 0 and below 1"),
        (&["--range-ratio", "0.5", "--input-tokens", "1..2"], "cannot be given with a range"),
        (&["--count-template", "--api", "completions"], "--count-template needs --api chat"),
        (&["--count-template", "--input-tokens", "2"], "leaves no room for a prompt"),
        (&["--extra-body", "[1]"], "not a JSON object"),
        (&["--extra-body", r#"{"prompt": 1}"#], "may not set \"prompt\""),
        (&["--temperature", "-1"], "not a number from 0 on"),
        (&["--temperature", "warm"], "not a number from 0 on"),
        (&["--requests", "0"], "--requests must be at least 1"),
        (&["--num-prefixes", "3"], "--num-prefixes needs --prefix-tokens"),
        (&["--prefix-tokens", "3000000"], "--prefix-tokens"),
    ] {
        let (code, stdout, stderr) = random(folder.path(), &[&["-o", "t.tape.zst"], flags].concat());
        assert_eq!((code, stdout.as_str()), (2, ""), "{flags:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(part), "{flags:?}: {stderr}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_missing_tokenizer_is_unreadable_input_and_keeps_the_old_tape() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.tape.zst"), "old").unwrap();
    let (code, _, stderr) = random(folder.path(), &["-o", "t.tape.zst", "--tokenizer", "./none"]);
    assert_eq!(code, 3);
    assert!(stderr.starts_with("error: no tokenizer \"./none\": give a folder"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1);
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    let (code, _, stderr) = random(folder.path(), &["-o", "t.tape.zst", "--tokenizer", "tokenizer.json"]);
    assert_eq!(code, 3);
    assert!(stderr.starts_with("error: tokenizer \"tokenizer.json\" cannot be used: "), "{stderr}");
    assert_eq!(std::fs::read(folder.path().join("t.tape.zst")).unwrap(), b"old");
}

#[test]
fn prompts_of_another_length_are_counted_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let letters = include_bytes!("../../fixtures/tokenizer/letters/tokenizer.json");
    std::fs::write(folder.path().join("tokenizer.json"), letters).unwrap();
    std::fs::write(folder.path().join("chat_template.jinja"), "{{ messages[0].content * 2 }}").unwrap();
    let flags = [
        "-o",
        "t.tape.zst",
        "--tokenizer",
        ".",
        "--count-template",
        "--input-tokens",
        "31",
        "--requests",
        "40",
    ];
    let (code, stdout, stderr) = random(folder.path(), &flags);
    assert_eq!(code, 0, "{stderr}");
    let reader = Reader::open(folder.path().join("t.tape.zst")).unwrap();
    let inexact =
        reader.requests().filter(|request| request.as_ref().unwrap().input_tokens != Some(31)).count();
    assert!(inexact > 0, "{stdout}");
    assert!(
        stdout.contains(&format!("{inexact} of 40 prompts could not be made exactly as long as asked")),
        "{stdout}"
    );
}
