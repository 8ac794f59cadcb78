//! Closed forms, invariants, and a golden digest.

#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers from 0")]

use std::collections::HashMap;

use proptest::prelude::*;

use super::profile::{Cache, Scheduler, Speculation, StepTime};
use super::prompt::mixed;
use super::*;

/// A profile with these limits whose steps take 5 ns, and 20 ns where they compute any of a prompt.
fn small(max_num_seqs: u32, max_num_batched_tokens: u32, blocks: u32) -> Profile {
    Profile {
        scheduler: Scheduler { max_num_seqs, max_num_batched_tokens, chunked_prefill: true },
        cache: Cache { block_tokens: 4, blocks, prefix_caching: true },
        step: StepTime::Linear {
            base_ns: 5000.0,
            prefill_ns: 15_000.0,
            prompt_token_ns: 0.0,
            sequence_ns: 0.0,
            context_token_ns: 0.0,
        },
        ..Profile::load("fixed").unwrap()
    }
}

fn request(prompt_tokens: u32, max_tokens: u32) -> Request {
    Request { prompt_tokens, max_tokens, ..Request::default() }
}

/// Steps until nothing is left: when each output came, and the steps.
fn run(engine: &mut Engine, mut now_ns: u64) -> (Vec<(u64, Output)>, Vec<Step>) {
    let (mut all, mut steps, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(step) = engine.step(now_ns, &mut outputs) {
        all.extend(outputs.drain(..).map(|output| (step.end_ns, output)));
        now_ns = step.end_ns;
        steps.push(step);
        assert!(steps.len() < 1_000_000, "it goes on for ever");
    }
    (all, steps)
}

fn tokens(outputs: &[(u64, Output)], id: Id) -> u32 {
    outputs.iter().filter(|(_, output)| output.id == id).map(|(_, output)| output.tokens).sum()
}

/// Where every round's requests fit a step: rounds * (TTFT + (n - 1) * ITL).
#[test]
fn fixed_times_have_a_closed_form() {
    for (seqs, rounds, n) in [(1, 1, 1), (4, 3, 10), (256, 5, 100)] {
        let mut engine = Engine::new(Profile::load("fixed").unwrap());
        engine.profile.scheduler.max_num_seqs = seqs;
        for _ in 0..seqs * rounds {
            engine.submit(request(100, n)).unwrap();
        }
        let (outputs, _) = run(&mut engine, 0);
        let (ttft_ns, itl_ns) = (20_000_000, 5_000_000);
        assert_eq!(outputs.last().unwrap().0, u64::from(rounds) * (ttft_ns + u64::from(n - 1) * itl_ns));
    }
}

/// One server, Poisson arrivals, a constant service time D: the mean time in the queue is rho * D / (2 * (1 - rho))
/// (Pollaczek and Khinchine). The interval is that of batch means, and a wrong D falls out of it.
#[test]
fn a_single_slot_is_an_m_d_1_queue() {
    const SERVICE_NS: f64 = 20_000.0;
    for rho in [0.3, 0.7] {
        let mut engine = Engine::new(small(1, 64, 64));
        let (mut now_ns, mut next_arrival, mut state) = (0_u64, 0.0_f64, 7_u64);
        let mut arrivals = HashMap::new();
        let (mut waits, mut outputs) = (Vec::new(), Vec::new());
        while waits.len() < 200_000 {
            while next_arrival <= now_ns as f64 || (engine.waiting() == 0 && engine.running() == 0) {
                arrivals.insert(engine.submit(request(8, 1)).unwrap(), next_arrival);
                now_ns = now_ns.max(next_arrival.ceil() as u64);
                state = mixed(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
                let unit = ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
                next_arrival += -unit.ln() * SERVICE_NS / rho;
            }
            let step = engine.step(now_ns, &mut outputs).unwrap();
            for output in outputs.drain(..) {
                waits.push(now_ns as f64 - arrivals.remove(&output.id).unwrap());
            }
            now_ns = step.end_ns;
        }
        let batches: Vec<f64> =
            waits.chunks(10_000).map(|batch| batch.iter().sum::<f64>() / 10_000.0).collect();
        let count = batches.len() as f64;
        let mean = batches.iter().sum::<f64>() / count;
        let variance = batches.iter().map(|batch| (batch - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let half_width = 2.86 * (variance / count).sqrt(); // Student's t, 19 degrees, 99 %.
        let expected = |service: f64| rho * service / (2.0 * (1.0 - rho));
        assert!((mean - expected(SERVICE_NS)).abs() < half_width, "{rho}: {mean} +- {half_width}");
        assert!((mean - expected(SERVICE_NS * 1.1)).abs() > half_width, "the test would see nothing");
    }
}

#[test]
fn a_long_prompt_is_computed_in_parts_while_others_go_on() {
    let mut engine = Engine::new(small(4, 8, 100));
    let short = engine.submit(request(3, 6)).unwrap();
    let mut outputs = Vec::new();
    engine.step(0, &mut outputs);
    let long = engine.submit(request(20, 1)).unwrap();
    let (outputs, steps) = run(&mut engine, 20);
    // 7 tokens a step beside the one that decodes: 20 take three.
    assert_eq!(steps.iter().map(|step| step.batched_tokens).collect::<Vec<_>>(), [8, 8, 7, 1, 1]);
    assert_eq!((tokens(&outputs, short), tokens(&outputs, long)), (5, 1));
}

#[test]
fn without_chunks_a_prompt_waits_for_room() {
    let mut profile = small(4, 8, 100);
    profile.scheduler.chunked_prefill = false;
    let mut engine = Engine::new(profile);
    for _ in 0..3 {
        engine.submit(request(5, 1)).unwrap();
    }
    let (_, steps) = run(&mut engine, 0);
    assert_eq!(steps.iter().map(|step| step.batched_tokens).collect::<Vec<_>>(), [5, 5, 5]);
}

/// Two sequences that grow beyond the cache: the later one makes room, is computed anew, and loses no token.
#[test]
fn a_full_cache_sends_the_last_one_back() {
    let mut engine = Engine::new(small(4, 64, 6));
    let ids = [engine.submit(request(8, 12)).unwrap(), engine.submit(request(8, 12)).unwrap()];
    let (outputs, steps) = run(&mut engine, 0);
    assert!(steps.iter().any(|step| step.preempted > 0));
    assert!(engine.totals().preemptions > 0);
    let last = |id| outputs.iter().rposition(|(_, output)| output.id == id);
    assert!(last(ids[0]) < last(ids[1]));
    assert_eq!(ids.map(|id| tokens(&outputs, id)), [12, 12]);
    assert_eq!(engine.pool.free(), 6);
}

#[test]
fn a_known_prefix_is_not_computed_again() {
    let mut engine = Engine::new(small(4, 64, 20));
    let prompt = Request { prefix: [1, 2, 3].into(), ..request(12, 1) };
    engine.submit(prompt.clone()).unwrap();
    let (_, first) = run(&mut engine, 0);
    engine.submit(prompt).unwrap();
    let (outputs, second) = run(&mut engine, 0);
    // Of a prompt that is known to its end, the last block is computed for the sake of its last token.
    assert_eq!((first[0].batched_tokens, second[0].batched_tokens), (12, 4));
    assert_eq!(outputs[0].1.cached_tokens, 8);
    assert_eq!((engine.totals().queried_tokens, engine.totals().hit_tokens), (24, 8));
}

#[test]
fn what_never_fits_is_refused() {
    let mut engine = Engine::new(small(4, 64, 6));
    assert_eq!(engine.submit(request(20, 5)), Err(TooLong { tokens: 25, room: 24 }));
    assert!(engine.submit(request(20, 4)).is_ok());
}

#[test]
fn certain_drafts_come_together() {
    let mut engine = Engine::new(small(4, 64, 60));
    engine.profile.speculation = Some(Speculation { tokens: 3, acceptance: 1.0 });
    engine.submit(request(8, 10)).unwrap();
    let (outputs, _) = run(&mut engine, 0);
    assert_eq!(outputs.iter().map(|(_, output)| output.tokens).collect::<Vec<_>>(), [1, 4, 4, 1]);
}

/// Golden: a change here changes every simulated run, and needs an entry in the changelog.
#[test]
fn steps_are_golden() {
    let mut profile = Profile::load("h100-llama-3.1-8b").unwrap();
    profile.cache.blocks = 250;
    profile.speculation = Some(Speculation { tokens: 2, acceptance: 0.6 });
    let mut engine = Engine::new(profile);
    for seed in 0..40 {
        let prefix = (0..20).map(|block| mixed(seed % 5 * 100 + block)).collect();
        let (prompt_tokens, max_tokens) = (330 + seed as u32, 20 + seed as u32 * 7 % 90);
        engine.submit(Request { prompt_tokens, max_tokens, prefix, seed, tag: 0 }).unwrap();
    }
    let (outputs, steps) = run(&mut engine, 0);
    let mut hasher = blake3::Hasher::new();
    for (at_ns, output) in &outputs {
        hasher
            .update(&at_ns.to_le_bytes())
            .update(&output.id.place.to_le_bytes())
            .update(&output.tokens.to_le_bytes());
    }
    let told =
        (steps.len(), engine.totals().preemptions, engine.totals().hit_tokens, outputs.last().unwrap().0);
    assert_eq!((told, &hasher.finalize().to_hex()[..16]), ((60, 2, 11_200, 513_084_439), "fbc5aaaa5b44d731"));
}

fn profiles() -> impl Strategy<Value = Profile> {
    let speculation = prop::option::of((1..4_u32, 0.0..=1.0_f64))
        .prop_map(|drafts| drafts.map(|(tokens, acceptance)| Speculation { tokens, acceptance }));
    (1..8_u32, 5..64_u32, 10..40_u32, 1..8_u32, any::<bool>(), any::<bool>(), speculation).prop_map(
        |(seqs, budget, blocks, block_tokens, chunked_prefill, prefix_caching, speculation)| Profile {
            scheduler: Scheduler { max_num_seqs: seqs, max_num_batched_tokens: budget, chunked_prefill },
            cache: Cache { block_tokens, blocks, prefix_caching },
            speculation,
            ..small(1, 1, 1)
        },
    )
}

#[derive(Clone, Debug)]
enum Happening {
    Cancel { nth: usize },
    Step,
    Submit { share: f64, output_share: f64, family: u64 },
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let happening = prop_oneof![
        1 => any::<usize>().prop_map(|nth| Happening::Cancel { nth }),
        4 => Just(Happening::Step),
        4 => (0.0..1.0, 0.0..1.0, 0..3_u64)
            .prop_map(|(share, output_share, family)| Happening::Submit { share, output_share, family }),
    ];
    prop::collection::vec(happening, 0..80)
}

/// Every block is free, or held by as many sequences as it says.
fn check_blocks(engine: &Engine) -> Result<(), TestCaseError> {
    let mut held: HashMap<u32, u32> = HashMap::new();
    for place in &engine.running {
        for block in &engine.sequences[*place as usize].blocks {
            *held.entry(*block).or_default() += 1;
        }
    }
    prop_assert_eq!(engine.pool.free() as usize + held.len(), engine.profile.cache.blocks as usize);
    for place in &engine.waiting {
        prop_assert!(engine.sequences[*place as usize].blocks.is_empty());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_block_leaks_nobody_starves_and_limits_are_kept(profile in profiles(), happenings in happenings()) {
        let room = profile.cache.tokens() as f64;
        let scheduler = profile.scheduler;
        let block_tokens = profile.cache.block_tokens;
        let mut engine = Engine::new(profile);
        // What each request still has to come, in the order of their arrival.
        let mut open: Vec<(Id, u32)> = Vec::new();
        let (mut now_ns, mut outputs, mut idle_steps) = (0, Vec::new(), 0);
        for happening in happenings.into_iter().chain(std::iter::repeat_n(Happening::Step, 100_000)) {
            match happening {
                Happening::Submit { share, output_share, family } => {
                    let tokens = (share * room).max(2.0) as u32;
                    let max_tokens = (f64::from(tokens) * output_share).clamp(1.0, f64::from(tokens - 1)) as u32;
                    let prompt_tokens = tokens - max_tokens;
                    let prefix = (0..u64::from(prompt_tokens / block_tokens)).map(|block| mixed(family << 32 | block));
                    let request = Request { prompt_tokens, max_tokens, prefix: prefix.collect(), seed: family, tag: 0 };
                    open.push((engine.submit(request).unwrap(), max_tokens));
                }
                Happening::Cancel { nth } if !open.is_empty() => {
                    let (id, _) = open.remove(nth % open.len());
                    engine.cancel(id);
                    engine.cancel(id);
                }
                Happening::Cancel { .. } => {}
                Happening::Step => {
                    let Some(step) = engine.step(now_ns, &mut outputs) else {
                        prop_assert!(open.is_empty());
                        idle_steps += 1;
                        if idle_steps > 80 { break }
                        continue;
                    };
                    prop_assert!(step.end_ns > now_ns);
                    now_ns = step.end_ns;
                    prop_assert!(0 < step.batched_tokens && step.batched_tokens <= scheduler.max_num_batched_tokens);
                    prop_assert!(0 < step.sequences && step.sequences <= scheduler.max_num_seqs);
                    prop_assert!(engine.running() <= scheduler.max_num_seqs as usize);
                    for output in outputs.drain(..) {
                        let place = open.iter().position(|(id, _)| *id == output.id);
                        let (_, left) = &mut open[place.expect("an output of a request that is open")];
                        prop_assert!(0 < output.tokens && output.tokens <= *left);
                        *left -= output.tokens;
                        prop_assert_eq!(output.is_last, *left == 0);
                        if output.is_last {
                            open.remove(place.unwrap());
                        }
                    }
                }
            }
            check_blocks(&engine)?;
        }
        prop_assert!(open.is_empty(), "starved: {:?}", open);
        prop_assert_eq!(engine.pool.free(), engine.profile.cache.blocks);
        prop_assert_eq!(engine.running() + engine.waiting(), 0);
    }
}
