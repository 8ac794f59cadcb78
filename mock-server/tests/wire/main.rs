//! The mock's bytes against those of real servers: every captured response, with ids and times masked, has to equal what
//! the profile answers to the same request, field order and chunk framing included. A capture's own texts and
//! log-probabilities are what the mock is told to say.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop there")]

mod cases;
mod http;
mod masks;
mod metrics;
mod rendered;
mod script;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use cases::{Case, DIFFERENT, cases};
use http::Server;
use masks::masked;

/// Where the captures are.
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");

fn capture(name: &str) -> String {
    fs::read_to_string(Path::new(FIXTURES).join(name)).unwrap()
}

/// What differs, or nothing.
fn difference(case: &Case) -> Option<String> {
    let mut expected = http::parse(&capture(case.capture), case.is_framed());
    expected.mend_length();
    let server = Server::start(case.server, script::of(case, &expected.body()));
    let answered = http::parse(&server.exchange(case), true);
    let (expected, answered) = (masked(&expected), masked(&answered));
    let same_chunks = !case.is_framed() || expected.chunks == answered.chunks;
    if expected.head == answered.head && expected.body() == answered.body() && same_chunks {
        return None;
    }
    let mut text = format!("=== {}\n", case.capture);
    for (expected, answered) in expected.head.iter().zip(&answered.head).filter(|(a, b)| a != b) {
        writeln!(text, "- {expected}\n+ {answered}").unwrap();
    }
    if expected.head.len() != answered.head.len() {
        writeln!(text, "- {:?}\n+ {:?}", expected.head, answered.head).unwrap();
    }
    let lines = |body: String| body.split("\n\n").map(str::to_owned).collect::<Vec<_>>();
    let (expected, answered) = (lines(expected.body()), lines(answered.body()));
    for index in 0..expected.len().max(answered.len()) {
        let (expected, answered) = (expected.get(index), answered.get(index));
        if expected != answered {
            writeln!(text, "- {}", expected.map_or("", String::as_str)).unwrap();
            writeln!(text, "+ {}", answered.map_or("", String::as_str)).unwrap();
        }
    }
    Some(text)
}

#[test]
fn every_capture_is_answered_byte_for_byte() {
    let differences: Vec<String> = cases().iter().filter_map(difference).collect();
    assert!(differences.is_empty(), "{} captures differ\n{}", differences.len(), differences.join("\n"));
}

/// No capture is forgotten: each is a case, or stands in the table of those that differ, and in the manual.
#[test]
fn every_capture_is_accounted_for() {
    let mut left = BTreeSet::new();
    for folder in ["vllm-0.11.0", "vllm-0.32.0", "vllm-0.32.0-cases"] {
        for entry in fs::read_dir(Path::new(FIXTURES).join(folder)).unwrap() {
            left.insert(format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap()));
        }
    }
    for case in cases() {
        assert!(left.remove(case.capture), "{} is no capture, or stands twice", case.capture);
    }
    let manual =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/mock-wire.md")).unwrap();
    for (capture, reason) in DIFFERENT {
        assert!(left.remove(*capture), "{capture} is no capture, or stands twice");
        assert!(manual.contains(&format!("| `{capture}` | {reason} |")), "{capture} is not in the manual");
    }
    assert!(left.is_empty(), "no case and no reason for {left:?}");
}
