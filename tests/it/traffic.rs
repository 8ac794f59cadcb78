//! Traffic's shapes: through the binary, against the bundled mock server.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use tokentape::run::Run;
use tokentape::schedule::{Law, Pace, Shape, Slots};
use tokentape::tape::format::Session;
use tokentape::tape::{Reader, Writer};

use crate::support::{LENIENT, Mock, bad, good, shown, tape, tokentape};

const MS: u64 = 1_000_000;

/// A tape, a server, and a folder for runs.
struct Stage {
    folder: TempDir,
    tape: PathBuf,
    mock: Mock,
}

impl Stage {
    fn new(requests: u32, mock: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.tape.zst");
        tape(&path, requests, &[]);
        let mock: Vec<&str> = ["--model", "tokentape"].iter().chain(mock).copied().collect();
        Self { folder, tape: path, mock: Mock::start(&mock) }
    }

    fn args<'a>(&'a self, command: &'a str, out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec![command, self.tape.to_str().unwrap(), "--url", &self.mock.url];
        args.extend(["-o", out.to_str().unwrap(), "--quiet", "--verdict", LENIENT]);
        args.extend(more);
        args
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn replay(&self, more: &[&str]) -> Run {
        let out = self.out();
        good(self.args("replay", &out, more));
        let run = Run::load(&out).unwrap();
        assert!(run.info.verdict.valid);
        assert_eq!(run.info.counts.unaccounted(), 0);
        run
    }

    /// The tape again, its requests at these times, and in this many sessions, dealt out in turn.
    fn at_times(&mut self, times_ms: &[u64], sessions: Option<u64>) {
        let path = self.folder.path().join("timed.tape.zst");
        let reader = Reader::open(&self.tape).unwrap();
        let mut writer = Writer::new(fs::File::create(&path).unwrap(), reader.header()).unwrap();
        for (request, ms) in reader.requests().zip(times_ms) {
            let mut request = request.unwrap();
            request.offset_ns = ms * MS;
            request.session = sessions.map(|count| Session {
                id: format!("s{}", request.index % count),
                turn: u32::try_from(request.index / count).unwrap(),
            });
            writer.write(&request).unwrap();
        }
        writer.finish().unwrap();
        self.tape = path;
    }
}

/// The times at which a run's requests were due.
fn due(run: &Run) -> Vec<u64> {
    run.timelines.iter().map(|timeline| timeline.scheduled_ns).collect()
}

#[test]
fn a_rate_sends_the_schedule_of_its_seed() {
    let stage = Stage::new(40, &[]);
    let run = stage.replay(&["--rate", "200", "--seed", "5"]);
    let pace = Pace::Constant { rate: 200.0 };
    let shape = Shape::Paced { pace, law: Law::Poisson, seed: 5 };
    assert_eq!(due(&run), shape.offsets(&[0; 40]).unwrap());
    assert!(run.timelines.iter().all(|timeline| timeline.dispatched_ns >= timeline.scheduled_ns));

    let traffic = &run.info.traffic;
    assert_eq!((traffic.concurrency, traffic.request_rate), (None, Some(200.0)));
    assert_eq!((traffic.arrival.as_deref(), traffic.shape), (Some("poisson"), Some(shape)));
}

#[test]
fn ramps_and_bursts_send_theirs() {
    let stage = Stage::new(12, &[]);
    let run = stage.replay(&["--burst", "4@50ms"]);
    assert_eq!(due(&run), [0, 50, 100].map(|ms| [ms * MS; 4]).concat());
    let run = stage.replay(&["--ramp", "linear:20..100", "--arrival", "constant", "--force"]);
    let due = due(&run);
    let gaps: Vec<u64> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.is_sorted_by(|a, b| a > b), "{gaps:?}");
    assert!(matches!(
        run.info.traffic.shape,
        Some(Shape::Paced { pace: Pace::Linear { .. }, law: Law::Constant, .. })
    ));
}

#[test]
fn a_tapes_own_times_are_kept() {
    let mut stage = Stage::new(6, &[]);
    stage.at_times(&[0, 40, 40, 100, 140, 200], None);
    let run = stage.replay(&["--as-recorded"]);
    assert_eq!(due(&run), [0, 40, 40, 100, 140, 200].map(|ms| ms * MS));

    let window = ["--as-recorded", "--speed", "2", "--from", "40ms", "--to", "140ms", "--force"];
    let run = stage.replay(&window);
    assert_eq!(run.timelines.iter().map(|timeline| timeline.index).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(due(&run), [0, 0, 30 * MS]);
    assert_eq!(run.info.traffic.window_ns, Some(40 * MS..140 * MS));
    assert_eq!(run.info.counts.requests, 3);

    let out = stage.out();
    let empty = stage.args("replay", &out, &["--as-recorded", "--from", "1s", "--force"]);
    assert!(bad(2, empty).contains("no request of the tape arrives in this window"));
}

#[test]
fn a_time_limit_leaves_the_rest_out_and_the_run_valid() {
    let stage = Stage::new(100, &["--ttft", "20ms"]);
    for more in [
        &["--rate", "100", "--arrival", "constant"][..],
        &["--rate", "100", "--arrival", "constant", "--concurrency", "50", "--workers", "2"],
        &["--concurrency", "2"],
    ] {
        let run = stage.replay(&[more, &["--duration", "150ms", "--force"]].concat());
        let counts = &run.info.counts;
        assert_eq!(counts.requests + counts.left_out, 100);
        assert_eq!((counts.succeeded, counts.not_sent), (counts.requests, 0));
        assert!(counts.left_out > 0 && counts.requests > 0, "{counts:?}");
        // Those that are left out are the tape's last.
        let sent: Vec<u64> = run.timelines.iter().map(|timeline| timeline.index).collect();
        assert_eq!(sent, (0..counts.requests).collect::<Vec<_>>());
        assert!(due(&run).iter().all(|due| *due < 150 * MS));
        if run.info.traffic.request_rate.is_some() {
            assert_eq!(counts.requests, 15);
        }
        assert_eq!(run.info.traffic.duration_limit_ms, Some(150));
    }
}

#[test]
fn static_slots_carry_the_same_requests_in_every_run() {
    let stage = Stage::new(20, &[]);
    for workers in ["1", "2"] {
        let run = stage.replay(&["--concurrency", "3", "--slots", "static", "--workers", workers, "--force"]);
        assert!(run.timelines.iter().all(|timeline| u64::from(timeline.slot) == timeline.index % 3));
        assert_eq!(run.info.traffic.slots, Slots::Static);
        assert_eq!(run.info.counts.succeeded, 20);
    }
}

/// A server that is busy makes those wait who come on time: the figures from the schedule tell, the others cannot.
#[test]
fn waiting_for_a_slot_is_in_the_figures_from_the_schedule() {
    let stage = Stage::new(10, &["--ttft", "40ms"]);
    stage.replay(&["--rate", "1000", "--arrival", "constant", "--concurrency", "1"]);
    let json: Value =
        serde_json::from_str(&good(["report", stage.out().to_str().unwrap(), "--json"])).unwrap();
    let mean = |key: &str| json[key]["mean"].as_f64().unwrap();
    // Request i waits for i answers of 40 ms and more: 180 ms in the mean, less the 4.5 ms at which it was due.
    let waited = mean("ttft_from_scheduled_ms") - mean("ttft_ms");
    assert!(waited > 170.0, "{waited}");
    assert!((mean("e2el_from_scheduled_ms") - mean("e2el_ms") - waited).abs() < 1e-6);
}

#[test]
fn a_turn_waits_for_the_one_before_it() {
    let mut stage = Stage::new(9, &["--ttft", "30ms"]);
    stage.at_times(&[0, 0, 0, 20, 50, 50, 60, 60, 60], Some(3));
    for more in [&["--concurrency", "2"][..], &["--as-recorded"], &["--as-recorded", "--concurrency", "3"]] {
        let run = stage.replay(&[more, &["--force"]].concat());
        let (tape_ns, timelines) = ([0, 0, 0, 20, 50, 50, 60, 60, 60].map(|ms| ms * MS), &run.timelines);
        for place in 3..9 {
            let (turn, before) = (&timelines[place], &timelines[place - 3]);
            let scheduled = if run.info.traffic.shape.is_some() {
                before.end_ns.max(tape_ns[place])
            } else {
                before.end_ns + tape_ns[place] - tape_ns[place - 3]
            };
            assert_eq!(turn.scheduled_ns, scheduled);
            assert!(turn.dispatched_ns >= scheduled);
            assert_eq!(turn.slot, before.slot);
        }
    }
    // What never came up because of a time limit is left out, later turns too.
    let run = stage.replay(&["--concurrency", "3", "--duration", "45ms", "--force"]);
    assert_eq!(run.info.counts.requests + run.info.counts.left_out, 9);
    assert!(run.info.counts.left_out >= 5, "{:?}", run.info.counts);
}

#[test]
fn a_sweep_is_a_run_a_point() {
    let stage = Stage::new(8, &[]);
    let out = stage.out();
    let goodput = ["--goodput", "ttft:10s"];
    let table = good(stage.args("replay", &out, &[&["--concurrency", "1,4"], &goodput[..]].concat()));
    assert!(table.contains("concurrency-1 ") && table.contains("concurrency-4 "), "{table}");
    assert_eq!(table.matches("  VALID\n").count(), 2, "{table}");
    for (name, limit) in [("concurrency-1", 1), ("concurrency-4", 4)] {
        let run = Run::load(&out.join(name)).unwrap();
        assert_eq!((run.info.traffic.concurrency, run.info.counts.succeeded), (Some(limit), 8));
    }
    let json = good(stage.args("replay", &out, &["--rate", "100,200", "--json", "--goodput", "ttft:1us"]));
    let rows: Vec<Value> = serde_json::from_str(&json).unwrap();
    assert_eq!(
        rows.iter().map(|row| row["run"].as_str().unwrap()).collect::<Vec<_>>(),
        ["rate-100", "rate-200"]
    );
    assert_eq!(
        (&rows[0]["metrics"]["request_rate_per_s"], &rows[0]["goodput"]["requests"]),
        (&100.0.into(), &0.into())
    );

    // Nothing is overwritten unasked.
    assert!(bad(2, stage.args("replay", &out, &["--concurrency", "1,4"])).contains("--force"));
}

#[test]
fn goodput_is_counted_in_each_dialect() {
    let stage = Stage::new(6, &[]);
    stage.replay(&["--concurrency", "2"]);
    let out = stage.out();
    let out = out.to_str().unwrap();
    let table = good(["report", out, "--goodput", "ttft:1h,e2el:1h"]);
    assert!(table.contains("good requests             6 (100.00 %)"), "{table}");
    let vllm = good(["report", out, "--dialect", "vllm-0.32.0", "--goodput", "ttft:1us"]);
    let line = vllm.lines().find(|line| line.starts_with("Request goodput (req/s):")).unwrap();
    assert!(line.trim_end().ends_with(" 0.00"), "{line}");
    assert!(bad(2, ["report", out, "--goodput", "itl:3ms"]).contains("ttft, tpot and e2el"));
}

#[test]
fn the_steady_part_leaves_out_both_ends() {
    let stage = Stage::new(30, &[]);
    let run = stage.replay(&["--concurrency", "4"]);
    let out = stage.out();
    let out = out.to_str().unwrap();
    let json: Value = serde_json::from_str(&good(["report", out, "--steady", "--json"])).unwrap();
    let window_ns = json["steady"]["end_ns"].as_u64().unwrap() - json["steady"]["begin_ns"].as_u64().unwrap();
    assert!(window_ns < run.info.duration_ns);
    assert_eq!(json["steady"]["level"], 4);
    // The first slots filled before the window, and the last ones emptied after it.
    let within = json["requests"]["total"].as_u64().unwrap();
    assert!((20..=27).contains(&within), "{within}");
    let table = good(["report", out, "--steady"]);
    assert!(table.starts_with("Steady part ") && table.contains("at least 4 in flight"), "{table}");
    bad(2, ["report", out, "--steady", "--dialect", "vllm-0.11.0"]);
}

#[test]
fn capacity_is_the_most_that_meets_the_objectives() {
    let stage = Stage::new(12, &["--ttft", "30ms"]);
    let out = stage.out();
    let carried = ["--slo", "ttft:mean<5s,e2el:max<60s", "--max", "6", "--resolution", "0"];
    let output = tokentape(stage.args("capacity", &out, &carried)).output().unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("capacity: at least concurrency 6 under ttft:mean<5000ms,e2el:max<60000ms"),
        "{text}"
    );
    for load in [1, 2, 4, 6] {
        assert!(out.join(format!("concurrency-{load}")).join("run.json").exists());
    }

    let refused = ["--slo", "ttft:p50<20ms", "--json", "--by", "rate", "--start", "50", "--requests", "2"];
    let output = tokentape(stage.args("capacity", &out, &refused)).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["capacity"], &answer["at_least"]), (&Value::Null, &false.into()));
    let loads: Vec<u64> =
        answer["probes"].as_array().unwrap().iter().map(|probe| probe["load"].as_u64().unwrap()).collect();
    assert_eq!(loads, [50, 25, 12, 6, 3, 1]);
}

#[test]
fn a_tape_that_is_too_short_for_a_load_carries_no_claim() {
    let stage = Stage::new(12, &["--ttft", "30ms"]);
    // Each answer takes 30 ms and more, so that a rate of 400 has more than 12 in flight.
    for (by, most) in [("concurrency", 12), ("rate", 400)] {
        let out = stage.out().join(by);
        let more = ["--slo", "ttft:mean<5s", "--resolution", "0", "--by", by, "--start", "8", "--json"];
        let output = tokentape(stage.args("capacity", &out, &more)).output().unwrap();
        assert!(output.status.success(), "{}", shown(&output));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let capacity = answer["capacity"].as_u64().unwrap();
        assert!((8..=most).contains(&capacity) && answer["at_least"] == true, "{answer}");
        let above = answer["probes"].as_array().unwrap().iter().filter(|probe| probe["carried"] == false);
        assert!(
            above.clone().count() > 0 && above.clone().all(|probe| probe["limited_by"] == "tape"),
            "{answer}"
        );
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_sent() {
    let stage = Stage::new(1, &[]);
    let out = stage.out();
    for (more, part) in [
        (&["--rate", "0"][..], "--rate must be above 0"),
        (&["--rate", "5", "--slots", "static"], "--concurrency"),
        (&["--rate", "1,2", "--concurrency", "1,2"], "not both"),
        (&["--burst", "20"], "20@1s"),
        (&["--ramp", "linear:1-2"], "linear:1..50"),
    ] {
        let error = bad(2, stage.args("replay", &out, more));
        assert!(error.contains(part), "{error}");
    }
    assert!(bad(2, stage.args("capacity", &out, &["--slo", "ttft:p99"])).contains("ttft:p99<200ms"));
    assert!(!out.exists());
}
