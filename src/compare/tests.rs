use proptest::prelude::*;

use super::explain::Cause;
use super::metric::{Latency, Statistic, in_steps};
use super::*;
use crate::metrics::{Dialect, Measurement};
use crate::timeline::{Events, Facts, Outcome, Reads, Timeline, Usage};

const MEAN_TTFT: Metric = Metric::Latency(Latency::Ttft, Statistic::Mean);
const MS: u64 = 1_000_000;

/// A chat answer: the role event at once, then tokens, then usage; late in being sent, and slow in being written.
fn answer(
    index: u64,
    scheduled_ns: u64,
    late: u64,
    writing: u64,
    gaps: &[u64],
    prompt_tokens: u32,
) -> Timeline {
    let role = Facts::JSON.with(Facts::CHOICES).with(Facts::ROLE).with(Facts::EMPTY_CONTENT);
    let token = Facts::JSON.with(Facts::CHOICES).with(Facts::CONTENT);
    let dispatched_ns = scheduled_ns + late;
    let written = dispatched_ns + writing;
    let mut at_ns = vec![written + MS];
    for gap in gaps {
        at_ns.push(at_ns[at_ns.len() - 1] + gap);
    }
    let end_ns = at_ns[at_ns.len() - 1] + 2 * MS;
    at_ns.push(end_ns);
    let reads = u32::try_from(at_ns.len()).unwrap();
    let mut facts = vec![token; at_ns.len()];
    facts[0] = role;
    facts[at_ns.len() - 1] = Facts::JSON.with(Facts::USAGE);
    Timeline {
        index,
        scheduled_ns,
        dispatched_ns,
        written_ns: Some(written),
        status: Some(200),
        events: Events { read: (0..reads).collect(), facts, ..Events::default() },
        reads: Reads { bytes: vec![1; at_ns.len()], at_ns, ..Reads::default() },
        end_ns,
        outcome: Outcome::Success,
        input_tokens: Some(prompt_tokens),
        usage: Some(Usage { prompt_tokens, completion_tokens: reads - 2, ..Usage::default() }),
        ..Timeline::default()
    }
}

fn run(name: &str, timelines: Vec<Timeline>, digest: &str, dialect: Dialect) -> Subject {
    let duration_ns = timelines.iter().map(|timeline| timeline.end_ns).max().unwrap_or(0) + MS;
    let mut subject = Subject {
        name: name.to_owned(),
        tool: "tokentape test".to_owned(),
        dialect,
        own: Figures::default(),
        record: Record::Timelines { timelines, duration_ns },
        traffic: Traffic { concurrency: Some(1), ..Traffic::default() },
        workload_digest: Some(digest.to_owned()),
        notes: Vec::new(),
        table: None,
    };
    subject.set_dialect(dialect);
    subject
}

/// A result of another tool that keeps single requests.
fn foreign(name: &str, samples: Vec<Sample>, dialect: Dialect) -> Subject {
    let mut own = Figures::default();
    own.set(Metric::Duration, 1.0);
    let mut subject = Subject {
        name: name.to_owned(),
        tool: "another tool".to_owned(),
        dialect,
        own,
        record: Record::Samples(samples),
        traffic: Traffic { concurrency: Some(1), ..Traffic::default() },
        workload_digest: None,
        notes: Vec::new(),
        table: None,
    };
    subject.fill_from_samples(|_| f64::INFINITY);
    subject
}

/// The requests of a run, one after another in one slot.
fn in_turn(requests: &[(u64, u64, Vec<u64>, u32)]) -> Vec<Timeline> {
    let mut free = 0;
    let mut timelines = Vec::new();
    for ((late, writing, gaps, prompt_tokens), index) in requests.iter().zip(0..) {
        let timeline = answer(index, free, *late, *writing, gaps, *prompt_tokens);
        free = timeline.end_ns;
        timelines.push(timeline);
    }
    timelines
}

fn part(explanation: &Explanation, metric: Metric, cause: Cause) -> Option<i64> {
    let difference = explanation.differences.iter().find(|difference| difference.metric == metric).unwrap();
    difference.parts[Cause::ALL.iter().position(|&known| known == cause).unwrap()]
}

#[test]
fn one_run_under_two_dialects_differs_by_definition_alone() {
    let timelines = in_turn(&[(0, MS, vec![20 * MS, 5 * MS], 10), (MS, 2 * MS, vec![30 * MS, 7 * MS], 20)]);
    let native = run("a", timelines.clone(), "x", Dialect::Native);
    let vllm = run("b", timelines, "x", "vllm-0.11.0".parse().unwrap());
    let explanation = compare(&native, &vllm, &Tolerances::default(), false).unwrap().explain();
    for difference in &explanation.differences {
        let metric = difference.metric;
        assert_eq!(difference.parts[0], Some(difference.whole), "{metric:?}");
        for cause in [Cause::Workload, Cause::Client, Cause::Rest] {
            assert_eq!(part(&explanation, metric, cause), Some(0), "{metric:?}: {cause:?}");
        }
    }
    let table = compare(&native, &vllm, &Tolerances::default(), false).unwrap().table(Some(&explanation));
    assert!(table.contains("defined differently: first token (TTFT)"), "{table}");
    // The role event: 20 and 30 ms before the first text.
    assert_eq!(part(&explanation, MEAN_TTFT, Cause::Definition), Some(-25_000));
}

#[test]
fn what_a_client_adds_is_the_clients() {
    let quick = in_turn(&[(0, 0, vec![20 * MS], 10), (0, 0, vec![20 * MS], 10)]);
    let slow = in_turn(&[(3 * MS, 4 * MS, vec![20 * MS], 10), (5 * MS, 6 * MS, vec![20 * MS], 10)]);
    let (a, b) = (run("a", quick, "x", Dialect::Native), run("b", slow, "x", Dialect::Native));
    let explanation = compare(&a, &b, &Tolerances::default(), false).unwrap().explain();
    assert_eq!(part(&explanation, MEAN_TTFT, Cause::Client), Some(5_000));
    assert_eq!(part(&explanation, MEAN_TTFT, Cause::Rest), Some(0));
    assert_eq!(part(&explanation, Metric::Duration, Cause::Client), Some(18));
    assert_eq!(part(&explanation, Metric::Duration, Cause::Rest), Some(0));
}

#[test]
fn longer_prompts_and_answers_are_the_workloads() {
    // TTFT grows by 0.5 ms a token; each answer has tokens 10 ms apart.
    let of = |lengths: &[(u32, usize)]| -> Vec<Timeline> {
        let requests: Vec<_> = lengths
            .iter()
            .map(|&(prompt, tokens)| {
                let mut gaps = vec![u64::from(prompt) * MS / 2];
                gaps.extend(vec![10 * MS; tokens - 1]);
                (0, 0, gaps, prompt)
            })
            .collect();
        in_turn(&requests)
    };
    let a = run("a", of(&[(10, 5), (20, 5), (30, 5)]), "x", Dialect::Native);
    let b = run("b", of(&[(40, 8), (50, 8), (60, 8)]), "y", Dialect::Native);
    let refused = compare(&a, &b, &Tolerances::default(), false).unwrap_err().to_string();
    assert!(refused.contains("--different-workloads"), "{refused}");

    let explanation = compare(&a, &b, &Tolerances::default(), true).unwrap().explain();
    for (metric, whole) in [
        (MEAN_TTFT, 15_000),
        (Metric::Latency(Latency::E2el, Statistic::Mean), 45_000),
        (Metric::OutputTokens, 9),
        (Metric::InputTokens, 90),
    ] {
        assert_eq!(part(&explanation, metric, Cause::Workload), Some(whole), "{metric:?}");
        assert_eq!(part(&explanation, metric, Cause::Rest), Some(0), "{metric:?}");
    }
}

#[test]
fn without_timelines_client_and_server_are_one() {
    let samples = |more: f64| -> Vec<Sample> {
        (0..20)
            .map(|i| Sample {
                success: true,
                start: Some(f64::from(i)),
                ttft: 0.02 + more + f64::from(i) * 1e-3,
                itl: vec![0.01, 0.02],
                latency: Some(0.06 + more),
                input_tokens: 10,
                output_tokens: 3,
            })
            .collect()
    };
    let a = foreign("a.json", samples(0.0), "vllm-0.32.0".parse().unwrap());
    let b = foreign("b", samples(0.005), "evalscope-1.1.1".parse().unwrap());
    let comparison = compare(&a, &b, &Tolerances::default(), false).unwrap();
    let explanation = comparison.explain();
    assert_eq!(part(&explanation, MEAN_TTFT, Cause::Definition), Some(0));
    assert_eq!(part(&explanation, MEAN_TTFT, Cause::Client), None);
    assert_eq!(part(&explanation, MEAN_TTFT, Cause::Rest), Some(5_000));
    // The median of twenty: between the tenth and the eleventh, or the eleventh.
    let median = Metric::Latency(Latency::Ttft, Statistic::Median);
    assert_eq!(part(&explanation, median, Cause::Definition), Some(500));
    let table = comparison.table(Some(&explanation));
    for words in ["not separable from a.json and b", "mean TTFT: b is 5.000 ms higher than a.json"] {
        assert!(table.contains(words), "{table}");
    }
}

/// A file may state mean E2EL without keeping any latency: that is enough for the number in flight.
#[test]
fn stated_means_are_enough_for_the_number_in_flight() {
    let sample = Sample { success: true, ttft: 0.02, itl: vec![0.01], output_tokens: 2, ..Sample::default() };
    let mut a = foreign("a.json", vec![sample.clone(); 4], "vllm-0.11.0".parse().unwrap());
    let mut b = foreign("b", vec![sample; 4], "evalscope-1.1.1".parse().unwrap());
    for (subject, rate, e2el) in [(&mut a, 100.0, 40.0), (&mut b, 150.0, 20.0)] {
        subject.own.set(Metric::RequestThroughput, rate);
        subject.own.set(Metric::Latency(Latency::E2el, Statistic::Mean), e2el);
    }
    let explanation = explain::explain(&a, &b);
    // 4 against 3 in flight: a quarter less; the rest is that each took half as long.
    assert_eq!(part(&explanation, Metric::RequestThroughput, Cause::Traffic), Some(-25_000));
    assert_eq!(part(&explanation, Metric::RequestThroughput, Cause::Rest), Some(75_000));
}

#[test]
fn a_gate_judges_what_is_printed() {
    let tolerances = Tolerances::default();
    let within = |a: f64, b: f64| Row::of(MEAN_TTFT, Some(a), Some(b), &tolerances).unwrap().within;
    assert_eq!(within(100.0, 102.9), Some(true));
    assert_eq!(within(100.0, 103.1), Some(false));
    assert_eq!(within(100.0, 96.9), Some(false));
    assert_eq!(within(0.0, 0.0), Some(true));
    assert_eq!(within(0.0, 1.0), Some(false));
    assert_eq!(within(0.000_1, 0.000_2), Some(true), "both print 0.000");
    assert_eq!(Row::of(MEAN_TTFT, Some(1.0), None, &tolerances).unwrap().within, None);
    assert_eq!(Row::of(MEAN_TTFT, None, None, &tolerances), None);
}

/// What a tool would have left of a run, as that tool's dialect computes it, read back.
fn left_by(dialect: Dialect, timelines: &[Timeline], duration_ns: u64) -> Subject {
    use crate::report::evalscope::{database, folder};

    let folder = tempfile::tempdir().unwrap();
    let measurement = Measurement { timelines, duration_ns, concurrency: Some(1), request_rate: None };
    let path = if let Dialect::Evalscope(version) = dialect {
        let facts = folder::RunFacts { version, number: timelines.len() as u64, handoff: false };
        let run = folder::Run::new(&measurement, facts, None);
        for (name, text) in run.files(&serde_json::json!({ "parallel": 1, "rate": -1 })) {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let path = folder.path().join(database::FILE);
        database::write(&path, version, run.rows(), &|_| None).unwrap();
        folder.path().to_owned()
    } else {
        let mut options = crate::report::Options::default();
        options.vllm.detailed = true;
        let path = folder.path().join("result.json");
        std::fs::write(&path, crate::report::json(&measurement, dialect, &options)).unwrap();
        path
    };
    crate::convert::load(&path).unwrap().remove(0)
}

#[test]
fn a_tools_files_give_the_figures_of_its_dialect() {
    let requests: Vec<_> = (1..40)
        .map(|i| {
            (
                i * 1000,
                i * 300,
                vec![20 * MS + i * 77_777, 5 * MS + i, 6 * MS],
                100 + u32::try_from(i).unwrap(),
            )
        })
        .collect();
    let timelines = in_turn(&requests);
    for dialect in Dialect::ALL.into_iter().filter(|dialect| *dialect != Dialect::Native) {
        let own = run("run", timelines.clone(), "x", dialect);
        let Record::Timelines { timelines, duration_ns } = &own.record else { unreachable!() };
        let mut read = left_by(dialect, timelines, *duration_ns);
        assert_eq!(read.traffic, own.traffic);
        // Its files do not tell 0.32 and 0.33 apart.
        read.measured_as(dialect).unwrap();
        for metric in Metric::all() {
            let (ours, theirs) = (own.own.get(metric), read.own.get(metric));
            let same = match (ours, theirs) {
                // By its default, vLLM before 0.30 saves neither E2EL nor latencies.
                (Some(_), None) => matches!(metric, Metric::Latency(Latency::E2el, _)),
                (Some(ours), Some(theirs)) => (ours - theirs).abs() <= ours.abs() * 1e-12,
                (ours, theirs) => ours == theirs,
            };
            assert!(same, "{dialect} {metric:?}: {ours:?} {theirs:?}");
        }
        let explanation = explain::explain(&own, &read);
        for difference in &explanation.differences {
            assert_eq!(
                (difference.whole, difference.parts[4]),
                (0, Some(0)),
                "{dialect} {:?}",
                difference.metric
            );
        }
    }
}

fn dialect() -> impl Strategy<Value = Dialect> {
    prop::sample::select(Dialect::ALL.to_vec())
}

/// Any run: with failures, without usage, of any lengths and delays.
fn timelines() -> impl Strategy<Value = Vec<Timeline>> {
    let gaps = prop::collection::vec(0u64..40_000_000, 1..8);
    let request = (0u64..9_000_000, 0u64..3_000_000, gaps, 0u32..500);
    let odd = prop::sample::select(vec![0u8, 0, 0, 0, 1, 2]);
    prop::collection::vec((request, odd), 0..12).prop_map(|requests| {
        let (requests, odd): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
        let mut timelines = in_turn(&requests);
        for (timeline, odd) in timelines.iter_mut().zip(odd) {
            match odd {
                1 => timeline.outcome = Outcome::NoTokens,
                2 => timeline.usage = None,
                _ => {}
            }
        }
        timelines
    })
}

fn samples_of(timelines: &[Timeline]) -> Vec<Sample> {
    let measurement = Measurement { timelines, duration_ns: 0, concurrency: None, request_rate: None };
    let version = crate::metrics::vllm::Version::V0_11_0;
    crate::metrics::vllm::outputs(&measurement, version, crate::metrics::vllm::Arrivals::AtStart, None)
        .into_iter()
        .map(|output| Sample {
            success: output.success,
            start: Some(output.start_time),
            ttft: output.ttft,
            itl: output.itl,
            latency: Some(output.latency),
            input_tokens: output.prompt_len,
            output_tokens: output.output_tokens,
        })
        .collect()
}

/// The text of a number as whole units of its last decimal.
fn read_back(text: &str, metric: Metric) -> i64 {
    let digits: String = text.chars().filter(|c| *c != '.').collect();
    assert_eq!(text.rsplit_once('.').map_or(0, |(_, part)| part.len()), metric.decimals(), "{text}");
    digits.parse().unwrap()
}

proptest! {
    #[test]
    fn printed_parts_sum_to_the_printed_difference(
        sides in (timelines(), timelines()),
        dialects in (dialect(), dialect()),
        kinds in (any::<bool>(), any::<bool>()),
        same in any::<bool>(),
        limits in (1u32..4, 1u32..4),
    ) {
        let subject = |name: &str, timelines: Vec<Timeline>, dialect, is_run: bool, limit| {
            let mut subject = if is_run {
                run(name, timelines, if same { "x" } else { name }, dialect)
            } else {
                foreign(name, samples_of(&timelines), dialect)
            };
            subject.traffic.concurrency = Some(limit);
            subject
        };
        let a = subject("a", sides.0, dialects.0, kinds.0, limits.0);
        let b = subject("b", sides.1, dialects.1, kinds.1, limits.1);
        let comparison = compare(&a, &b, &Tolerances::default(), true).unwrap();
        let explanation = comparison.explain();
        let table = comparison.table(Some(&explanation));
        let (_, why) = table.split_once("\nWhy:").unwrap();
        for difference in &explanation.differences {
            let metric = difference.metric;
            let (label, unit) = (metric.label(), metric.unit());
            let start = format!("{label:<18}  {unit:<6}");
            let line = why.lines().find(|line| line.starts_with(&start)).unwrap();
            let cells: Vec<&str> = line[start.len()..].split_whitespace().collect();
            prop_assert_eq!(cells.len(), 6);
            let known = cells[1..].iter().filter(|cell| **cell != "?");
            let sum: i64 = known.map(|cell| read_back(cell, metric)).sum();
            prop_assert_eq!(sum, read_back(cells[0], metric), "{}", line);

            let own = |subject: &Subject| in_steps(subject.own.get(metric).unwrap(), metric);
            prop_assert_eq!(difference.whole, own(&b) - own(&a));
        }
        let json = comparison.json(Some(&explanation)).to_string();
        prop_assert!(json.contains("explanation"));
    }

    #[test]
    fn a_run_against_itself_has_no_rest(timelines in timelines(), dialects in (dialect(), dialect())) {
        let a = run("a", timelines.clone(), "x", dialects.0);
        let b = run("b", timelines, "x", dialects.1);
        for difference in explain::explain(&a, &b).differences {
            // A metric that one dialect alone has under its own name is not among the differences at all.
            prop_assert_eq!(difference.parts[0], Some(difference.whole));
            prop_assert_eq!(difference.parts[4], Some(0), "{:?}", difference);
        }
    }
}
