//! An engine's profile from a run that was measured.
//!
//! Two straight lines by least squares, over the successful requests:
//!
//! - **ITL** = `base + sequence * n`, where n is the number of choices between their first token and their request's end
//!   in the middle of the gap: each choice is a sequence of its own, and a gap is one between two of its tokens;
//! - **TTFT** = `first + prompt_token * t`, where t is the number of the prompt's tokens that the server did not find in
//!   its cache; what `first` has beyond a step of one sequence is a prefill's own.
//!
//! A run whose requests queue has their waiting in its TTFT: fit from one with few requests at once, or put up with it.
//! A run cannot show the scheduler's limits or the cache's size; those are another profile's.

use tokentape_mock::engine::Profile;
use tokentape_mock::engine::profile::StepTime;

use crate::metrics::native::outputs_by_choice;
use crate::timeline::{Ns, Timeline};

/// A profile of this name with the step times of a run, and how well they fit. None where the run has no two tokens.
#[must_use]
pub fn fit(name: &str, timelines: &[Timeline], like: &Profile) -> Option<(Profile, Fit)> {
    let served: Vec<(&Timeline, Vec<Vec<Ns>>)> = timelines
        .iter()
        .filter(|timeline| timeline.outcome.is_success())
        .map(|timeline| {
            let outputs = outputs_by_choice(timeline).into_iter();
            let times =
                |choice: Vec<usize>| choice.into_iter().map(|event| timeline.event_ns(event)).collect();
            (timeline, outputs.map(times).collect())
        })
        .collect();
    let sequences =
        || served.iter().flat_map(|(timeline, choices)| choices.iter().map(|c| (timeline.end_ns, c)));
    let mut firsts: Vec<Ns> = sequences().filter_map(|(_, tokens)| tokens.first().copied()).collect();
    let mut ends: Vec<Ns> = sequences().map(|(end_ns, _)| end_ns).collect();
    firsts.sort_unstable();
    ends.sort_unstable();
    let decoding = |at: Ns| {
        let before = |times: &[Ns]| times.partition_point(|time| *time <= at);
        before(&firsts).saturating_sub(before(&ends)).max(1) as f64
    };
    let (mut gaps, mut first_tokens) = (Line::default(), Line::default());
    for pair in sequences().flat_map(|(_, tokens)| tokens.windows(2)) {
        gaps.add(decoding(pair[0].midpoint(pair[1])), pair[1].saturating_sub(pair[0]) as f64);
    }
    for (timeline, choices) in &served {
        let usage = timeline.usage.unwrap_or_default();
        let first = choices.iter().filter_map(|tokens| tokens.first()).min();
        if let (Some(first), Some(prompt)) = (first, timeline.prompt_tokens()) {
            let uncached = prompt.saturating_sub(usage.cached_tokens.unwrap_or(0));
            first_tokens.add(f64::from(uncached), first.saturating_sub(timeline.dispatched_ns) as f64);
        }
    }
    let (base_ns, sequence_ns) = gaps.intercept_and_slope()?;
    let (first_ns, prompt_token_ns) = first_tokens.intercept_and_slope()?;
    let step = StepTime::Linear {
        base_ns: base_ns.round(),
        prefill_ns: (first_ns - base_ns).max(0.0).round(),
        prompt_token_ns,
        sequence_ns,
        context_token_ns: 0.0,
    };
    let sources = vec![
        format!(
            "step: least squares over {} gaps between tokens and {} first tokens of a run.",
            gaps.count, first_tokens.count
        ),
        format!("scheduler and cache: those of the profile {}.", like.name),
    ];
    let fit = Fit { itl_r_squared: gaps.r_squared(), ttft_r_squared: first_tokens.r_squared() };
    Some((Profile { name: name.to_owned(), sources, step, speculation: None, ..like.clone() }, fit))
}

/// How much of the spread the lines explain: 1 is all of it, and 0 where there was only one load or one prompt length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// Of the gaps between tokens.
    pub itl_r_squared: f64,
    /// Of the times to the first token.
    pub ttft_r_squared: f64,
}

/// Sums over points, kept as distances from the running means (Welford).
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    count: u64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
    yy: f64,
}

impl Line {
    fn add(&mut self, x: f64, y: f64) {
        self.count += 1;
        let (dx, dy) = (x - self.x, y - self.y);
        self.x += dx / self.count as f64;
        self.y += dy / self.count as f64;
        self.xx += dx * (x - self.x);
        self.xy += dx * (y - self.y);
        self.yy += dy * (y - self.y);
    }

    /// The line nearest to the points, of those that nowhere from 0 on fall below 0 or fall: times are such.
    fn intercept_and_slope(&self) -> Option<(f64, f64)> {
        if self.count == 0 {
            return None;
        }
        let slope = if self.xx > 0.0 { (self.xy / self.xx).max(0.0) } else { 0.0 };
        let intercept = self.y - slope * self.x;
        if intercept >= 0.0 {
            return Some((intercept, slope));
        }
        // Through the origin: sum(xy) / sum(xx), from the sums about the means.
        let n = self.count as f64;
        Some((0.0, (self.xy + n * self.x * self.y) / (self.xx + n * self.x * self.x)))
    }

    fn r_squared(&self) -> f64 {
        let spread = self.xx * self.yy;
        if spread > 0.0 { self.xy * self.xy / spread } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::server::Server;
    use crate::simulate::workload::{Form, Item, Workload};
    use crate::simulate::{Options, Refused, answer, run};

    /// What is fitted to a simulated run is what it was simulated from.
    #[test]
    fn a_profile_comes_back() {
        let mut profile = Profile::load("fixed").unwrap();
        profile.step = StepTime::Linear {
            base_ns: 4e6,
            prefill_ns: 3e6,
            prompt_token_ns: 20_000.0,
            sequence_ns: 50_000.0,
            context_token_ns: 0.0,
        };
        let timelines: Vec<_> = (1..=8)
            .flat_map(|concurrency| {
                let form = Form { is_completion: false, is_stream: true, has_usage: true };
                let item = |index| Item {
                    index,
                    prompt_tokens: 100 * concurrency,
                    output_tokens: 30,
                    form,
                    ..Item::default()
                };
                // All at once, so that nobody's prefill is in another's gap.
                let workload = Workload {
                    items: (0..u64::from(concurrency)).map(item).collect(),
                    digest: String::new(),
                };
                let mut timelines = Vec::new();
                let mut server = Server::engine(profile.clone());
                let base = Ns::from(concurrency) * 1_000_000_000_000;
                run::<Refused>(workload, &Options::default(), &mut server, &mut |flight| {
                    let mut timeline = answer::timeline(flight);
                    timeline.dispatched_ns += base;
                    timeline.end_ns += base;
                    timeline.reads.at_ns.iter_mut().for_each(|at| *at += base);
                    timelines.push(timeline);
                    Ok(())
                })
                .unwrap();
                timelines
            })
            .collect();
        let (fitted, fit) = super::fit("again", &timelines, &profile).unwrap();
        let StepTime::Linear { base_ns, sequence_ns, .. } = fitted.step else { panic!("a line") };
        assert!((base_ns - 4e6).abs() < 10.0 && (sequence_ns - 50_000.0).abs() < 10.0, "{fitted:?}");
        assert!(fit.itl_r_squared > 0.999);
        assert_eq!(Profile::parse("again", &fitted.to_json()).unwrap(), fitted);
    }

    /// Two choices whose tokens come in one step, each a sequence: the gap is the step, not the nothing between the two.
    #[test]
    fn gaps_are_those_of_a_choice() {
        let profile = Profile::load("fixed").unwrap();
        let mut server = Server::engine(profile.clone());
        let form = Form { is_completion: false, is_stream: true, has_usage: true };
        let item = Item { prompt_tokens: 10, output_tokens: 6, form, ..Item::default() };
        let workload = Workload { items: vec![item], digest: String::new() };
        let mut timelines = Vec::new();
        run::<Refused>(workload, &Options::default(), &mut server, &mut |flight| {
            timelines.push(answer::timeline(flight));
            Ok(())
        })
        .unwrap();
        let base_ns = |timelines: &[Timeline]| {
            let StepTime::Linear { base_ns, .. } = super::fit("f", timelines, &profile).unwrap().0.step
            else {
                panic!("a line")
            };
            base_ns
        };
        let alone = base_ns(&timelines);
        let timeline = &mut timelines[0];
        let outputs: Vec<usize> =
            (0..timeline.events.len()).filter(|&event| timeline.events.facts[event].is_output()).collect();
        assert_eq!(outputs.len(), 6);
        // Each pair of tokens now comes at the time of its first, one for each choice.
        timeline.events.choices = vec![0; timeline.events.len()];
        for pair in outputs.chunks(2) {
            timeline.events.choices[pair[1]] = 1;
            timeline.events.read[pair[1]] = timeline.events.read[pair[0]];
        }
        assert!((base_ns(&timelines) - 2.0 * alone).abs() < 1.0, "{} {alone}", base_ns(&timelines));
    }

    #[test]
    fn points_on_a_line_give_the_line() {
        let mut line = Line::default();
        (0..10).for_each(|x| line.add(f64::from(x), 3.0 + 2.0 * f64::from(x)));
        let (intercept, slope) = line.intercept_and_slope().unwrap();
        assert!((intercept - 3.0).abs() < 1e-9 && (slope - 2.0).abs() < 1e-9);
        let mut one = Line::default();
        one.add(5.0, 7.0);
        assert_eq!(one.intercept_and_slope(), Some((7.0, 0.0)));
        assert_eq!(Line::default().intercept_and_slope(), None);
    }
}
