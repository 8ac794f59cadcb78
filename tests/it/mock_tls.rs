//! The mock server behind TLS: what a client gets there, and what it makes of faults.

use std::fs;
use std::path::{Path, PathBuf};

use tokentape::run::Run;
use tokentape_mock::truth;

use crate::support::{LENIENT, Mock, bad, failed, shown, tape, tokentape};

/// A certificate for this machine's own address, and its key.
fn pair(folder: &Path) -> [String; 2] {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let written = |name: &str, text: String| {
        let path: PathBuf = folder.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    [written("cert.pem", certified.cert.pem()), written("key.pem", certified.signing_key.serialize_pem())]
}

#[test]
fn a_run_over_tls_agrees_with_the_truth() {
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = pair(folder.path());
    let (tape_path, log) = (folder.path().join("t.tape.zst"), folder.path().join("truth.jsonl"));
    tape(&tape_path, 4, &[]);
    let mock =
        Mock::start(&["--tls-cert", &certificate, "--tls-key", &key, "--truth-log", log.to_str().unwrap()]);
    assert!(mock.url.starts_with("https://127.0.0.1:"), "{}", mock.url);
    let replay = |name: &str, fault: &str| {
        let run = folder.path().join(name);
        let output = tokentape(["replay", tape_path.to_str().unwrap(), "--url", &mock.url, "-o"])
            .arg(&run)
            .args(["--ca-file", &certificate, "--no-scrape", "--verdict", LENIENT, "--timeout", "1m"])
            .args(["--header", &format!("x-mock-fault: {fault}")])
            .output()
            .unwrap();
        (output.status.code().unwrap(), Run::load(&run).unwrap())
    };
    let (code, run) = replay("plain", "none");
    assert_eq!((code, run.info.counts.succeeded), (0, 4));
    // Whatever was written before the end has arrived, and the end is no success.
    for (fault, events) in [("fin:3", 2), ("rst:0", 0), ("cut-chunk:3", 2)] {
        let (code, run) = replay(&fault.replace(':', "_"), fault);
        assert_eq!((code, run.info.counts.failed["truncated"]), (1, 4), "{fault}");
        for timeline in &run.timelines {
            let outputs = timeline.events.facts.iter().filter(|facts| facts.is_output()).count();
            assert_eq!(outputs, events, "{fault}");
        }
    }
    mock.stop();
    let records = truth::read(&log).unwrap().records;
    let check = tokentape::truth::check(&run.timelines, &tokentape::truth::by_id(&records));
    assert_eq!((check.matched, check.unmatched), (4, 0));
    for record in &records[..4] {
        assert!(record.read_ns >= record.arrival_ns && record.written_ns.len() == record.due_ns.len());
        assert!(record.written_ns.is_sorted(), "{record:?}");
    }
}

#[test]
fn a_certificate_needs_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = pair(folder.path());
    let output = tokentape(["mock", "--port", "0", "--tls-cert", &certificate]).output().unwrap();
    failed(2, &output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("--tls-key"), "{}", shown(&output));
    let error = bad(3, ["mock", "--port", "0", "--tls-cert", &key, "--tls-key", &key]);
    assert!(error.contains("key.pem: it holds no certificate in PEM"), "{error}");
}
