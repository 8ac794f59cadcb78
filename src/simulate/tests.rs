//! Closed forms on the simulated clock.

use proptest::prelude::*;
use tokentape_mock::Timing;
use tokentape_mock::engine::Profile;

use super::workload::Form;
use super::*;
use crate::metrics::native;

const MS: Ns = 1_000_000;
const FORM: Form = Form { is_completion: false, is_stream: true, has_usage: true };

fn workload(count: u64, output_tokens: u32) -> Workload {
    let item = |index| Item { index, prompt_tokens: 10, output_tokens, form: FORM, ..Item::default() };
    Workload { items: (0..count).map(item).collect(), digest: String::new() }
}

fn flights(workload: Workload, options: &Options, server: &mut Server) -> (Report, Vec<Flight>) {
    let mut flights = Vec::new();
    let report = run::<Refused>(workload, options, server, &mut |flight| {
        flights.push(flight.clone());
        Ok(())
    });
    (report.unwrap(), flights)
}

fn fixed() -> Server {
    Server::engine(Profile::load("fixed").unwrap())
}

/// rounds * (TTFT + (n - 1) * ITL), from the engine and from the model.
#[test]
fn a_closed_loop_of_fixed_times_takes_its_rounds() {
    let options = Options { concurrency: Some(8), ..Options::default() };
    for mut server in [fixed(), Server::timing(Timing::fixed(20 * MS, 5 * MS), 0)] {
        let (report, flights) = flights(workload(40, 10), &options, &mut server);
        assert_eq!(report.duration_ns, 5 * (20 + 9 * 5) * MS);
        assert_eq!((report.ended, report.left_out, report.peak_concurrency), (40, 0, 8));
        assert!(flights.iter().all(|flight| flight.tokens_ns.len() == 10));
        assert!(flights.iter().all(|flight| flight.tokens_ns[0] - flight.dispatched_ns == 20 * MS));
    }
}

#[test]
fn a_schedule_is_kept_and_a_limit_makes_requests_wait() {
    let schedule = Some(vec![0, 10 * MS, 20 * MS]);
    let timing = || Server::timing(Timing::fixed(20 * MS, 5 * MS), 0);
    let options = Options { schedule, ..Options::default() };
    let (_, open) = flights(workload(3, 2), &options, &mut timing());
    assert_eq!(open.iter().map(|flight| flight.dispatched_ns).collect::<Vec<_>>(), [0, 10 * MS, 20 * MS]);
    assert_eq!(open.iter().map(|flight| flight.slot).collect::<Vec<_>>(), [0, 1, 2]);
    let (_, limited) = flights(workload(3, 2), &Options { concurrency: Some(1), ..options }, &mut timing());
    let times = |flight: &Flight| (flight.scheduled_ns, flight.dispatched_ns, flight.end_ns());
    assert_eq!(
        limited.iter().map(times).collect::<Vec<_>>(),
        [(0, 0, 25 * MS), (10 * MS, 25 * MS, 50 * MS), (20 * MS, 50 * MS, 75 * MS)]
    );
}

/// A later turn waits for the one before and the time between them, and keeps its slot.
#[test]
fn a_session_takes_its_turns() {
    let mut workload = workload(3, 2);
    workload.items[0].next_turn = Some(2);
    workload.items[2].is_later_turn = true;
    workload.items[2].offset_ns = 7 * MS;
    let options = Options { concurrency: Some(1), ..Options::default() };
    let (_, flights) = flights(workload, &options, &mut Server::timing(Timing::fixed(20 * MS, 5 * MS), 0));
    let times = |flight: &Flight| (flight.item.index, flight.dispatched_ns);
    assert_eq!(flights.iter().map(times).collect::<Vec<_>>(), [(0, 0), (2, 32 * MS), (1, 57 * MS)]);
}

/// The first finds the engine at rest; the others, a gap later, are in its next step.
#[test]
fn a_client_sends_one_by_one() {
    let options = Options { concurrency: Some(3), gap_ns: MS, ..Options::default() };
    let (_, flights) = flights(workload(3, 2), &options, &mut fixed());
    let times = |flight: &Flight| (flight.dispatched_ns / MS, flight.tokens_ns[0] / MS, flight.end_ns() / MS);
    assert_eq!(flights.iter().map(times).collect::<Vec<_>>(), [(0, 20, 40), (1, 40, 45), (2, 40, 45)]);
}

#[test]
fn nothing_is_sent_after_the_limit_in_time() {
    let options = Options { concurrency: Some(1), until: Some(70 * MS), ..Options::default() };
    let (report, flights) = flights(workload(10, 2), &options, &mut fixed());
    assert_eq!((report.ended, report.left_out, flights.len()), (3, 7, 3));
}

#[test]
fn a_request_that_never_fits_is_named() {
    let mut profile = Profile::load("fixed").unwrap();
    profile.cache.blocks = 1;
    let mut workload = workload(2, 2);
    workload.items[1].prompt_tokens = 100;
    let error = run::<Refused>(workload, &Options::default(), &mut Server::engine(profile), &mut |_| Ok(()));
    assert!(error.unwrap_err().to_string().starts_with("request 1: it needs room for 102 tokens"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the traffic: every request ends once, with its tokens, in order, and not before it was sent.
    #[test]
    fn every_request_is_accounted_for(
        tokens in prop::collection::vec((1..400_u32, 1..40_u32), 1..40),
        concurrency in prop::option::of(1..8_u32),
        gaps in prop::option::of(prop::collection::vec(0..40 * MS, 40)),
    ) {
        let mut profile = Profile::load("h100-llama-3.1-8b").unwrap();
        profile.cache.blocks = 60;
        let mut workload = workload(tokens.len() as u64, 1);
        for (item, (prompt, output)) in workload.items.iter_mut().zip(&tokens) {
            (item.prompt_tokens, item.output_tokens) = (*prompt, *output);
        }
        let schedule = gaps.map(|gaps| gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect());
        let options = Options { concurrency, schedule, ..Options::default() };
        let (report, mut flights) = flights(workload.clone(), &options, &mut Server::engine(profile));
        prop_assert_eq!(report.ended, tokens.len() as u64);
        flights.sort_by_key(|flight| flight.item.index);
        for (flight, (_, output)) in flights.iter().zip(&tokens) {
            prop_assert_eq!(flight.tokens_ns.len(), *output as usize);
            prop_assert!(flight.tokens_ns.is_sorted() && flight.tokens_ns[0] > flight.dispatched_ns);
            prop_assert!(flight.dispatched_ns >= flight.scheduled_ns);
        }
        if let Some(limit) = concurrency {
            prop_assert!(report.peak_concurrency <= u64::from(limit));
        }
    }

    /// The summary is that of the timelines: exact where it says so, within its histograms' digits elsewhere.
    #[test]
    fn a_summary_agrees_with_the_timelines(seed: u64, concurrency in 1..6_u32) {
        let timing = Timing {
            ttft: tokentape_mock::Law::parse_ttft("lognormal:20ms,cv=0.5").unwrap(),
            itl: tokentape_mock::Law::parse_itl("gamma:5ms,cv=0.5").unwrap(),
            jitter_millipercent: 0,
        };
        let mut workload = workload(30, 9);
        for item in &mut workload.items {
            item.key = [u8::try_from(item.index).unwrap(); 32];
        }
        let options = Options { concurrency: Some(concurrency), ..Options::default() };
        let (report, flights) = flights(workload, &options, &mut Server::timing(timing, seed));
        let timelines: Vec<_> = flights.iter().map(answer::timeline).collect();
        let mut summary = summary::Summary::default();
        for timeline in &timelines {
            summary.add(timeline);
        }
        let measurement = crate::metrics::Measurement {
            timelines: &timelines,
            duration_ns: report.duration_ns,
            concurrency: Some(concurrency),
            request_rate: None,
        };
        let exact = native::calculate(&measurement);
        let samples = native::samples(&measurement);
        let near = summary.metrics(&measurement, report.peak_concurrency);
        prop_assert_eq!((&near.requests, near.tokens, near.peak_concurrency), (&exact.requests, exact.tokens, exact.peak_concurrency));
        for (near, exact, values_ns) in [
            (near.ttft_ms, exact.ttft_ms, &samples.ttft_ns),
            (near.itl_ms, exact.itl_ms, &samples.itl_ns),
            (near.tpot_ms, exact.tpot_ms, &samples.tpot_ns),
            (near.e2el_ms, exact.e2el_ms, &samples.e2el_ns),
        ] {
            let is_near = |a: f64, b: f64, by: f64| (a - b).abs() <= by * b;
            prop_assert_eq!(near.count, exact.count);
            prop_assert!(is_near(near.mean, exact.mean, 1e-9) && is_near(near.std, exact.std, 1e-6));
            prop_assert!(is_near(near.max, exact.max, 1e-12));
            let sorted = crate::metrics::stats::sorted(values_ns);
            for (percentile, permille) in [(near.p50, 500), (near.p90, 900), (near.p99, 990)] {
                let rank = (sorted.len() * permille).div_ceil(1000).max(1) - 1;
                prop_assert!(is_near(percentile, sorted[rank] / 1e6, 1e-3), "{} {}", percentile, sorted[rank]);
            }
        }
    }
}
