//! The demo: the whole job in one command.

use tokentape::run::Run;

use crate::support::good;

#[test]
fn the_demo_proves_itself() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo");
    let args = ["demo", "--requests", "40", "--concurrency", "10", "--ttft", "4ms", "--itl", "500us", "-o"];
    let shown = good(args.iter().copied().chain([out.to_str().unwrap()]));
    for part in [
        "============ Serving Benchmark Result ============",
        "| Time taken for tests (s)",
        "40 of 40 requests found in the truth log",
        "verdict: ",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    let run = Run::load(&out.join("run")).unwrap();
    assert_eq!(run.info.counts.succeeded, 40);
    assert!(
        run.timelines
            .iter()
            .all(|t| t.input_tokens == Some(100) && t.usage.unwrap().completion_tokens == 100)
    );
    // An earlier demo's files are replaced.
    good(args.iter().copied().chain([out.to_str().unwrap()]));
}
