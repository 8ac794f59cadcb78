//! Tapes through the library and the binary: the committed ones here, bad ones in `bad`.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop there")]

mod bad;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use tokentape::tape::{self, Header, Reader, Request, Session, TokenizerId, VERSION, Writer};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tapes").join(name)
}

fn tokentape<const N: usize>(args: [&str; N]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tokentape")).args(args).output().unwrap()
}

fn path_str(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn save(folder: &TempDir, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join("t.tape.zst");
    fs::write(&path, bytes).unwrap();
    path
}

// The committed tapes.

/// The contents of `small.tape.zst`.
fn small() -> (Header, Vec<Request>) {
    let params = serde_json::json!({"requests": 4, "note": "é"});
    let header = Header {
        version: VERSION,
        created_by: "tokentape 0.1.0".to_owned(),
        source: "test".to_owned(),
        params: params.as_object().unwrap().clone(),
        seed: Some(7),
        tokenizer: Some(TokenizerId { name: "none".to_owned(), digest: "00".repeat(32) }),
    };
    let request = |index: u64, body: &[u8], session| Request {
        index,
        offset_ns: index * 250_000_000,
        method: "POST".to_owned(),
        path: "/v1/completions".to_owned(),
        body: body.to_vec(),
        input_tokens: Some(2),
        output_tokens: Some(16),
        session,
    };
    let requests = vec![
        request(0, br#"{"model":"m","prompt":"hello \"world\"\n"}"#, None),
        request(1, "{\"model\":\"m\",\"prompt\":\"日本 \u{1f600}\"}".as_bytes(), None),
        request(2, b"\xff\x00 not UTF-8", Some(Session { id: "s".to_owned(), turn: 0 })),
        request(3, b"", Some(Session { id: "s".to_owned(), turn: 1 })),
    ];
    (header, requests)
}

fn written(header: &Header, requests: &[Request]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, header).unwrap();
    for request in requests {
        writer.write(request).unwrap();
    }
    writer.finish().unwrap();
    file
}

/// A change of zstd's own output may change the file here; a change of the digest is a change of the format.
#[test]
fn the_small_tape_is_written_byte_for_byte() {
    let (header, requests) = small();
    let golden = fs::read(fixture("small.tape.zst")).unwrap();
    assert!(written(&header, &requests) == golden, "see fixtures/tapes/README.md");
}

#[test]
fn the_small_tape_reads_as_what_it_was_written_from() {
    let (header, requests) = small();
    let reader = Reader::open(fixture("small.tape.zst")).unwrap();
    assert_eq!(reader.header(), &header);
    assert_eq!(reader.requests().collect::<Result<Vec<_>, _>>().unwrap(), requests);
    let footer = tape::verify(fixture("small.tape.zst"), &mut |_| {}).unwrap();
    assert_eq!(footer.workload_digest, "be527d7650a27bf5c66f3136ed11f2c3662984283d2ea9167893a072c752202d");
    assert_eq!((footer.requests, footer.input_tokens, footer.output_tokens), (4, 8, 64));
}

/// Writes the committed tapes: `cargo test --test it write_the_committed_tapes -- --ignored`.
#[test]
#[ignore = "changes fixtures/tapes"]
fn write_the_committed_tapes() {
    let (header, requests) = small();
    fs::write(fixture("small.tape.zst"), written(&header, &requests)).unwrap();
    for (name, bytes) in [("newer.tape.zst", bad::newer()), ("bomb.tape.zst", bad::bomb(true))] {
        fs::write(fixture(name), bytes).unwrap();
    }
}

// The commands, on a good tape.

#[test]
fn verify_says_how_many_and_which_digest() {
    let output = tokentape(["verify", path_str(&fixture("small.tape.zst"))]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "ok: 4 requests, digest be527d7650a27bf5c66f3136ed11f2c3662984283d2ea9167893a072c752202d\n"
    );
    assert!(output.stderr.is_empty());
}

#[test]
fn cat_prints_a_range_as_json_lines() {
    let output = tokentape(["cat", path_str(&fixture("small.tape.zst")), "--range", "1..3"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @r#"
    {"index":1,"offset_ns":250000000,"method":"POST","path":"/v1/completions","body":"{\"model\":\"m\",\"prompt\":\"日本 😀\"}","input_tokens":2,"output_tokens":16}
    {"index":2,"offset_ns":500000000,"method":"POST","path":"/v1/completions","body_base64":"/wAgbm90IFVURi04","input_tokens":2,"output_tokens":16,"session":{"id":"s","turn":0}}
    "#);
    let output = tokentape(["cat", path_str(&fixture("small.tape.zst")), "--range", "5..9"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn cat_ends_quietly_when_its_reader_goes_away() {
    let (header, requests) = small();
    let requests: Vec<_> =
        (0..20_000).map(|index| Request { index, ..requests[(index % 4) as usize].clone() }).collect();
    let folder = TempDir::new().unwrap();
    let path = save(&folder, &written(&header, &requests));
    let mut child = Command::new(env!("CARGO_BIN_EXE_tokentape"))
        .args(["cat", path_str(&path)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn inspect_shows_what_the_tape_holds() {
    let mut inspect = Command::new(env!("CARGO_BIN_EXE_tokentape"));
    let output =
        inspect.args(["inspect", path_str(&fixture("small.tape.zst"))]).env("LC_ALL", "C").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, text) = text.split_once('\n').unwrap();
    insta::assert_snapshot!(text, @r#"
    format            1.1
    created by        tokentape 0.1.0
    source            test
      requests        4
      note            "é"
    seed              7
    tokenizer         none (0000000000000000000000000000000000000000000000000000000000000000)
    digest            be527d7650a27bf5c66f3136ed11f2c3662984283d2ea9167893a072c752202d
    requests          4
    sessions          1, with 2 requests; the longest has 2 turns
    size              629 bytes; 1,152 uncompressed, in 3 frames
    arrivals          over 0.750 s, 4.000 requests/s on average
    path              /v1/completions
    model             m (2 requests)

                      requests           total      min       mean      p50      p90      max
    input tokens             4               8        2        2.0        2        2        2
    output tokens            4              64       16       16.0       16       16       16
    body bytes               4              90        0       22.5       12       42       42

    arrivals: a column is 0.016 s, the highest has 1
      #              #               #              #
    "#);
    let output = tokentape(["inspect", "--json", path_str(&fixture("small.tape.zst"))]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["workload_digest"], "be527d7650a27bf5c66f3136ed11f2c3662984283d2ea9167893a072c752202d");
    assert_eq!(json["header"]["seed"], 7);
    assert_eq!(json["input_tokens"]["p50"], 2);
    assert_eq!(json["arrivals"]["mean_rate_per_s"], 4.0);
    assert_eq!(json["models"]["m"], 2);
    assert_eq!(json["sessions"]["begun"], 1);
}
