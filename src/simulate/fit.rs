//! An engine's profile from a run that was measured.
//!
//! Two straight lines by least squares, over the successful requests:
//!
//! - **ITL** = `base + sequence * n`, where n is the number of requests between their first token and their end in the
//!   middle of the gap;
//! - **TTFT** = `first + prompt_token * t`, where t is the number of the prompt's tokens that the server did not find in
//!   its cache; what `first` has beyond a step of one sequence is a prefill's own.
//!
//! A run whose requests queue has their waiting in its TTFT: fit from one with few requests at once, or put up with it.
//! A run cannot show the scheduler's limits or the cache's size; those are another profile's.

use tokentape_mock::engine::Profile;
use tokentape_mock::engine::profile::StepTime;

use crate::timeline::{Ns, Timeline};

/// A profile of this name with the step times of a run, and how well they fit. None where the run has no two tokens.
#[must_use]
pub fn fit(name: &str, timelines: &[Timeline], like: &Profile) -> Option<(Profile, Fit)> {
    let spans: Vec<(Ns, Vec<Ns>, &Timeline)> = timelines
        .iter()
        .filter(|timeline| timeline.outcome.is_success())
        .map(|timeline| {
            let outputs = timeline.stamped_events().filter(|(_, facts)| facts.is_output());
            (timeline.end_ns, outputs.map(|(at_ns, _)| at_ns).collect(), timeline)
        })
        .collect();
    let mut firsts: Vec<Ns> = spans.iter().filter_map(|(_, tokens, _)| tokens.first().copied()).collect();
    let mut ends: Vec<Ns> =
        spans.iter().filter(|(_, tokens, _)| !tokens.is_empty()).map(|(end, ..)| *end).collect();
    firsts.sort_unstable();
    ends.sort_unstable();
    let decoding = |at: Ns| {
        let before = |times: &[Ns]| times.partition_point(|time| *time <= at);
        before(&firsts).saturating_sub(before(&ends)).max(1) as f64
    };
    let (mut gaps, mut first_tokens) = (Line::default(), Line::default());
    for (_, tokens, timeline) in &spans {
        for pair in tokens.windows(2) {
            gaps.add(decoding(pair[0].midpoint(pair[1])), (pair[1] - pair[0]) as f64);
        }
        let usage = timeline.usage.unwrap_or_default();
        let prompt = timeline.prompt_tokens();
        if let (Some(first), Some(prompt)) = (tokens.first(), prompt) {
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
