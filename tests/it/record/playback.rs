//! What was recorded, played back by the mock, and recorded once more.

use super::{Recorder, entries_of};
use crate::support::{LENIENT, Mock, good, tape};

/// A client sees the same bytes from the tape as from the server.
#[test]
fn a_tape_played_back_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let load = "load.tape.zst";
    let at = |name: &str| folder.path().join(name);
    tape(&at(load), 8, &[]);
    let sent = |url: &str, run: &str| {
        let (load, run) = (at(load), at(run));
        let args = ["replay", load.to_str().unwrap(), "--url", url, "-o", run.to_str().unwrap()];
        good(args.into_iter().chain(["--concurrency", "3", "--verdict", LENIENT]));
    };
    let recorded = |upstream: &str, name: &str| {
        std::fs::create_dir(at(name)).unwrap();
        let recorder = Recorder::start(upstream, &at(name), &[]);
        sent(&recorder.url, &format!("{name}-run"));
        let path = recorder.tape.clone();
        assert!(recorder.stop().status.success());
        path
    };
    let mock = Mock::start(&["--model", "tokentape"]);
    let first = recorded(&mock.url, "first");
    let player = Mock::start(&["--answers", first.to_str().unwrap()]);
    let second = recorded(&player.url, "second");

    let ((asked, said), (asked_again, said_again)) = (entries_of(&first), entries_of(&second));
    assert_eq!((asked.len(), said.len(), asked_again.len(), said_again.len()), (8, 8, 8, 8));
    // Concurrent requests may arrive in another order: each is found by its body.
    for (request, response) in asked.iter().zip(&said) {
        let again = asked_again.iter().position(|again| again.body == request.body).unwrap();
        let again = &said_again[again];
        assert_eq!(String::from_utf8_lossy(&again.body), String::from_utf8_lossy(&response.body));
        let head = |head: &Option<tokentape::tape::ResponseHead>| {
            let head = head.as_ref().unwrap();
            (head.status, head.headers.clone())
        };
        assert_eq!(head(&again.head), head(&response.head));
        assert_eq!(again.outcome, response.outcome);
    }
}
