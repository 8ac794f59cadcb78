//! `slice`, `filter`, `merge`, `scale`, `diff` and `salvage`, through the binary.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use tokentape::tape::{
    Chunk, Entry, Header, Outcome, Reader, Request, Response, ResponseHead, Session, VERSION, Writer,
};

use crate::support::{bad, good, tape, tokentape};

/// A folder, and the tapes in it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("{name}.tape.zst"))
    }

    fn name(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A tape of requests 10 ms apart; each third one is a turn of session `s`. All but
    /// the first have a response, which comes after the request behind the next one, and says the request's body.
    fn write(&self, name: &str, requests: u64) -> String {
        let header = Header {
            version: VERSION,
            created_by: "a test".to_owned(),
            source: "hand".to_owned(),
            params: serde_json::Map::new(),
            seed: None,
            tokenizer: None,
        };
        let mut writer = Writer::new(fs::File::create(self.path(name)).unwrap(), &header).unwrap();
        let mut waiting = VecDeque::new();
        for index in 0..requests {
            let turn = u32::try_from(index / 3).unwrap();
            let request = Request {
                index,
                offset_ns: 1_000_000_000 + index * 10_000_000,
                method: "POST".to_owned(),
                path: if index % 2 == 0 { "/v1/completions?x=1" } else { "/v1/chat/completions" }.to_owned(),
                body: format!(r#"{{"prompt":"{name} {index}"}}"#).into_bytes(),
                input_tokens: Some(turn + 1),
                output_tokens: (index != 0).then_some(8),
                session: (index % 3 == 0).then(|| Session { id: "s".to_owned(), turn }),
            };
            writer.write(&request).unwrap();
            let head = ResponseHead { status: 200, headers: Vec::new(), at_ns: 1 };
            let chunks = vec![Chunk { at_ns: 2, bytes: u32::try_from(request.body.len()).unwrap() }];
            let outcome = Outcome::Complete;
            waiting.push_back(Response {
                index,
                head: Some(head),
                chunks,
                body: request.body,
                end_ns: 3,
                outcome,
            });
            if index == 0 {
                waiting.clear();
            } else if waiting.len() > 2 {
                writer.response(&waiting.pop_front().unwrap()).unwrap();
            }
        }
        for response in &waiting {
            writer.response(response).unwrap();
        }
        writer.finish().unwrap();
        self.name(name)
    }

    fn read(&self, name: &str) -> (Header, Vec<Request>) {
        let reader = Reader::open(self.path(name)).unwrap();
        tokentape::tape::verify(self.path(name), &mut |_| {}).unwrap();
        let requests = reader.requests().collect::<Result<_, _>>().unwrap();
        (reader.header().clone(), requests)
    }

    fn bodies(&self, name: &str) -> Vec<String> {
        let text = |request: Request| String::from_utf8(request.body).unwrap();
        self.read(name).1.into_iter().map(text).collect()
    }
}

/// Each response with the body of the request that it stands for.
fn answered(path: &str) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    for entry in Reader::open(path).unwrap().entries() {
        match entry.unwrap() {
            Entry::Request(request) => asked.push(text(&request.body)),
            Entry::Response(response) => {
                answered
                    .push((asked[usize::try_from(response.index).unwrap()].clone(), text(&response.body)));
            }
        }
    }
    answered
}

fn digest(path: &str) -> String {
    Reader::open(path).unwrap().footer().workload_digest.clone()
}

#[test]
fn slices_put_together_are_the_tape() {
    let folder = Folder::new();
    let whole = folder.write("whole", 30);
    let (a, b, again) = (folder.name("a"), folder.name("b"), folder.name("again"));
    good(["slice", &whole, "--range", "..13", "--keep-offsets", "-o", &a]);
    good(["slice", &whole, "--window", "1130ms..", "--keep-offsets", "-o", &b]);
    let told = good(["merge", "--same-sessions", &b, &a, "-o", &again, "--json"]);
    assert_eq!(digest(&again), digest(&whole));
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["requests"], &told["workload_digest"]), (&30.into(), &digest(&whole).into()));
    let (header, _) = folder.read("again");
    assert_eq!(header.source, "merge");
    assert_eq!(header.params["parents"], serde_json::json!([digest(&b), digest(&a)]));
    let same = good(["diff", &again, &whole, "--json"]);
    let same: Value = serde_json::from_str(&same).unwrap();
    assert_eq!(
        (&same["same"], &same["first"], &same["bodies"]["same"]),
        (&30.into(), &Value::Null, &30.into())
    );
}

#[test]
fn a_slice_begins_at_once_and_counts_from_0() {
    let folder = Folder::new();
    let whole = folder.write("whole", 30);
    good(["slice", &whole, "--range", "10..13", "-o", &folder.name("range")]);
    let (header, requests) = folder.read("range");
    let times: Vec<_> = requests.iter().map(|r| (r.index, r.offset_ns / 1_000_000)).collect();
    assert_eq!(times, [(0, 0), (1, 10), (2, 20)]);
    assert_eq!(requests[2].session.as_ref().unwrap().turn, 4);
    assert_eq!(header.params["range"], serde_json::json!([10, 13]));
    // The window's own time, not the first request's.
    good(["slice", &whole, "--window", "1s5ms..1s30ms", "-o", &folder.name("window")]);
    let times: Vec<_> = folder.read("window").1.iter().map(|r| r.offset_ns / 1_000_000).collect();
    assert_eq!(times, [5, 15]);
}

#[test]
fn a_sample_is_the_seeds() {
    let folder = Folder::new();
    let whole = folder.write("whole", 100);
    let sample = |name: &str, seed: &str| {
        good([
            "slice",
            &whole,
            "--window",
            "1s..1500ms",
            "--sample",
            "20",
            "--seed",
            seed,
            "-o",
            &folder.name(name),
        ]);
        folder.bodies(name)
    };
    let (a, b, again) = (sample("a", "1"), sample("b", "2"), sample("again", "1"));
    assert_eq!(a.len(), 20);
    assert_eq!(a, again);
    assert_ne!(a, b);
    let whole = folder.bodies("whole");
    let places: Vec<_> = a.iter().map(|body| whole.iter().position(|other| other == body).unwrap()).collect();
    assert!(places.is_sorted() && places.iter().all(|&place| place < 50), "{places:?}");
}

#[test]
fn a_filter_keeps_what_is_asked_for() {
    let folder = Folder::new();
    let whole = folder.write("whole", 12);
    let kept = |args: &[&str]| {
        let name = folder.name("kept");
        good([&["filter", &whole, "-o", &name], args].concat());
        let index =
            |body: String| body.trim_end_matches("\"}").rsplit(' ').next().unwrap().parse::<u32>().unwrap();
        folder.bodies("kept").into_iter().map(index).collect::<Vec<_>>()
    };
    assert_eq!(kept(&["--input-tokens", "2..4"]), [3, 4, 5, 6, 7, 8]);
    assert_eq!(kept(&["--output-tokens", "..100", "--input-tokens", "..2"]), [1, 2]);
    assert_eq!(kept(&["--path", "/v1/chat/completions", "--session", "s", "--session", "t"]), [3, 9]);
    assert_eq!(kept(&["--path", "/v1"]), [0; 0]);
    let (header, requests) = folder.read("kept");
    assert_eq!((requests.len(), header.source.as_str()), (0, "filter"));
    assert_eq!(header.params["path"], serde_json::json!(["/v1"]));
}

#[test]
fn a_merge_keeps_sessions_apart() {
    let folder = Folder::new();
    let (a, b) = (folder.write("a", 4), folder.write("b", 2));
    good(["merge", &a, &b, "-o", &folder.name("both")]);
    let shown = |request: &Request| {
        let body = String::from_utf8(request.body.clone()).unwrap();
        (body, request.session.as_ref().map(|session| session.id.clone()))
    };
    let both: Vec<_> = folder.read("both").1.iter().map(shown).collect();
    let talk = |body: &str, id: Option<&str>| (format!(r#"{{"prompt":"{body}"}}"#), id.map(str::to_owned));
    let expected = [
        talk("a 0", Some("s")),
        talk("b 0", Some("s#2")),
        talk("a 1", None),
        talk("b 1", None),
        talk("a 2", None),
        talk("a 3", Some("s")),
    ];
    assert_eq!(both, expected);
    good(["merge", "--append", &b, &a, "-o", &folder.name("then")]);
    let times: Vec<_> = folder.read("then").1.iter().map(|r| r.offset_ns / 1_000_000).collect();
    assert_eq!(times, [1000, 1010, 2010, 2020, 2030, 2040]);
}

#[test]
fn a_repeated_tape_begins_anew_and_keeps_its_tokens() {
    let folder = Folder::new();
    tape(&folder.path("once"), 5, &["--prefix-tokens", "30"]);
    let once = folder.name("once");
    let args = ["scale", &once, "--repeat", "3", "--fresh-prefix", "--tokenizer", "embedded", "-o"];
    let told = good([&args[..], &[&folder.name("thrice")]].concat());
    assert!(!told.contains("note:"), "{told}");
    let (_, first) = folder.read("once");
    let (header, all) = folder.read("thrice");
    assert_eq!(all.len(), 15);
    assert_eq!(header.tokenizer, folder.read("once").0.tokenizer);
    assert!(all.iter().all(|request| request.input_tokens == first[0].input_tokens));
    let prompt = |request: &Request| {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        body["messages"][0]["content"].as_str().unwrap().to_owned()
    };
    let shared = |a: &Request, b: &Request| {
        prompt(a).bytes().zip(prompt(b).bytes()).take_while(|(a, b)| a == b).count()
    };
    for (place, request) in all.iter().enumerate() {
        let (round, one) = (place / 5, &first[place % 5]);
        if round == 0 {
            assert_eq!(request, &Request { index: place as u64, ..one.clone() });
        } else {
            assert!(shared(request, one) < 8, "round {round} begins as the first one does");
            // What prompts share within a round, they still share.
            let before = shared(&first[0], one);
            assert!(before > 80 && shared(&all[5 * round], request) + 30 > before);
        }
    }
    assert!(shared(&all[5], &all[10]) < 8);
    // Without the tokenizer: longer, and said so.
    let told = good(["scale", &once, "--repeat", "2", "--fresh-prefix", "-o", &folder.name("twice")]);
    assert!(told.contains("note: 5 prompts are longer"), "{told}");
    let (_, twice) = folder.read("twice");
    assert!(twice[..5] == first[..] && twice[5..].iter().all(|request| request.input_tokens.is_none()));
}

#[test]
fn a_faster_tape() {
    let folder = Folder::new();
    let once = folder.write("once", 3);
    good(["scale", &once, "--speed", "0.5", "-o", &folder.name("slow")]);
    let times: Vec<_> = folder.read("slow").1.iter().map(|r| r.offset_ns / 1_000_000).collect();
    assert_eq!(times, [2000, 2020, 2040]);
    good(["scale", &once, "--speed", "2", "--repeat", "2", "-o", &folder.name("fast")]);
    let times: Vec<_> = folder.read("fast").1.iter().map(|r| r.offset_ns / 1_000_000).collect();
    assert_eq!(times, [500, 505, 510, 515, 520, 525]);
}

#[test]
fn a_difference_is_told_and_fails() {
    let folder = Folder::new();
    let (a, shorter) = (folder.write("a", 6), folder.name("shorter"));
    good(["slice", &a, "--range", "..4", "--keep-offsets", "-o", &shorter]);
    let output = tokentape(["diff", &a, &shorter]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @r"
                      same     changed   only in A   only in B
    requests             4           0           2           0
    bodies               4           -           2           0

    first difference: request 4: missing in B
    ");
    let faster = folder.name("faster");
    good(["scale", &a, "--speed", "2", "-o", &faster]);
    let output = tokentape(["diff", &a, &faster, "--json"]).output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&found["changed"], &found["fields"]["offset_ns"], &found["fields"]["body"]),
        (&6.into(), &6.into(), &0.into())
    );
    assert_eq!(found["first"]["differs_in"], serde_json::json!(["offset_ns"]));
}

#[test]
fn responses_go_with_their_requests() {
    let folder = Folder::new();
    let (a, b) = (folder.write("a", 9), folder.write("b", 5));
    let out = folder.name("out");
    let made = |args: &[&str]| {
        good([args, &["-o", &out]].concat());
        tokentape::tape::verify(&out, &mut |_| {}).unwrap();
        answered(&out)
    };
    for (args, expected) in [
        (vec!["slice", &a, "--range", "..4"], 3),
        (vec!["slice", &a, "--sample", "5", "--seed", "3"], 4),
        (vec!["filter", &a, "--path", "/v1/chat/completions"], 4),
        (vec!["merge", &a, &b], 12),
        (vec!["merge", "--append", &b, &a, &b], 16),
        (vec!["scale", &a, "--repeat", "3"], 24),
        (vec!["salvage", &a], 8),
    ] {
        let answered = made(&args);
        assert_eq!(answered.len(), expected, "{args:?}");
        assert!(answered.iter().all(|(asked, said)| asked == said), "{args:?}: {answered:?}");
    }
    // Of a prompt that begins anew, the answer is the old one's.
    let answered = made(&["scale", &a, "--repeat", "2", "--fresh-prefix"]);
    let tail = |text: &str| text.trim_start_matches("{\"prompt\":\"").to_owned();
    assert!(answered.iter().all(|(asked, said)| asked.ends_with(&tail(said))), "{answered:?}");
}

#[test]
fn what_is_left_of_a_broken_tape() {
    let folder = Folder::new();
    tape(&folder.path("whole"), 400, &["--prefix-tokens", "1000", "--num-prefixes", "400"]);
    let (_, requests) = folder.read("whole");
    let bytes = fs::read(folder.path("whole")).unwrap();
    fs::write(folder.path("cut"), &bytes[..bytes.len() * 3 / 4]).unwrap();
    let cut = folder.name("cut");
    bad(3, ["verify", &cut]);
    let told = good(["salvage", &cut, "-o", &folder.name("good")]);
    assert!(
        told.contains("note: the tape ") && told.contains("is cut short: its last good record is request"),
        "{told}"
    );
    let (header, saved) = folder.read("good");
    assert!(saved.len() > 200 && saved[..] == requests[..saved.len()]);
    assert_eq!((header.source.as_str(), &header.params["of"]["source"]), ("salvage", &"random".into()));
    assert_eq!(header.params["file_blake3"], blake3_of(&folder.path("cut")).as_str());
    let output = tokentape(["cat", "--salvage", &cut]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), saved.len());
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("note: the tape "));
    let told = good(["salvage", &folder.name("whole"), "-o", &folder.name("good")]);
    assert!(told.contains("nothing was lost"), "{told}");
    assert_eq!(digest(&folder.name("good")), digest(&folder.name("whole")));
}

fn blake3_of(path: &Path) -> String {
    blake3::hash(&fs::read(path).unwrap()).to_hex().to_string()
}

#[test]
fn what_cannot_be_done_is_one_clear_error() {
    let folder = Folder::new();
    let a = folder.write("a", 3);
    let out = folder.name("out");
    let link = folder.name("link");
    std::os::unix::fs::symlink(&a, &link).unwrap();
    for output in [&a, &link] {
        let error = bad(2, ["filter", &a, "--path", "/", "-o", output]);
        assert!(error.contains("-o names the tape that is read"), "{error}");
    }
    let error = bad(2, ["slice", &a, "-o", &out]);
    assert!(error.contains("give --range, --window or --sample"), "{error}");
    let error = bad(2, ["slice", &a, "--range", "3..9", "-o", &out]);
    assert!(error.contains("begins at request 3"), "{error}");
    let error = bad(2, ["filter", &a, "-o", &out]);
    assert!(error.contains("what to keep is missing"), "{error}");
    let error = bad(2, ["scale", &a, "-o", &out]);
    assert!(error.contains("give --speed or --repeat"), "{error}");
    let error = bad(3, ["merge", &a, &folder.name("none"), "-o", &out]);
    assert!(error.contains("none.tape.zst"), "{error}");
    tape(&folder.path("made"), 2, &[]);
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tokenizer/letters");
    let made = folder.name("made");
    let args = ["scale", &made, "--repeat", "2", "--fresh-prefix", "--tokenizer", other, "-o", &out];
    let error = bad(2, args);
    assert!(error.contains("were counted by \"embedded\""), "{error}");
    // Nothing was written on the way.
    assert!(!folder.path("out").exists() && !folder.0.path().join("out.tape.zst.part").exists());
}
