//! Throughput over time, in 1.14.1: `workload_timeline.json` and `workload_throughput.json`
//! (`evalscope/perf/utils/workload_timeline.py`).

use super::Row;

/// The tail window that throughput is taken over, in seconds.
pub const LAST_WINDOW_S: f64 = 30.0;
/// The share of the run that the steady state leaves out at its beginning.
pub const WARMUP_SHARE: f64 = 0.2;

/// Tokens, counted up request by request as they ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// The send of the request that ended first, on the run's clock, in seconds: the zero of the points.
    pub start: f64,
    /// One point a success. Never empty.
    pub points: Vec<Point>,
}

/// The tokens of all requests that had ended by then.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Seconds since the workload's start.
    pub t: f64,
    /// Output tokens.
    pub completion: u64,
    /// Prompt tokens that the server had to compute.
    pub new_prompt: u64,
    /// Prompt tokens that came from its cache.
    pub cached_prompt: u64,
}

/// Tokens a second over one window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// All prompt tokens.
    pub prompt: f64,
    /// Prompt tokens that the server had to compute.
    pub new_prompt: f64,
    /// Prompt tokens that came from its cache.
    pub cached_prompt: f64,
    /// Output tokens.
    pub completion: f64,
}

/// Tokens a second over three windows that all end with the last success.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throughput {
    /// Successes.
    pub samples: usize,
    /// From the workload's start to the last success, in seconds.
    pub wall_time: f64,
    /// From the start.
    pub overall: Rates,
    /// The last [`LAST_WINDOW_S`] seconds; a shorter run's whole.
    pub last_window: Rates,
    /// Without the first [`WARMUP_SHARE`] of the time.
    pub steady_state: Rates,
}

impl Workload {
    /// The workload of a run's rows, in the order of completion; none without a success.
    #[must_use]
    pub fn of(rows: &[Row]) -> Option<Self> {
        let succeeded = || rows.iter().filter(|row| row.success && row.completed_time >= row.start_time);
        // Not the earliest send: the original fixes its zero with the first record.
        let start = succeeded().next()?.start_time;
        let points = succeeded().scan(Point::default(), |sums, row| {
            let cached = row.cached_tokens.unwrap_or(0);
            sums.t = row.completed_time - start;
            sums.completion += u64::from(row.completion_tokens);
            sums.new_prompt += u64::from(row.prompt_tokens.saturating_sub(cached));
            sums.cached_prompt += u64::from(cached);
            Some(*sums)
        });
        Some(Self { start, points: points.collect() })
    }

    /// Its throughput.
    #[must_use]
    pub fn throughput(&self) -> Throughput {
        let overall = self.rates_since(Point::default());
        let wall_time = self.last().t.max(0.0);
        let since = |t: f64| {
            let anchor = self.anchor(t);
            (anchor + 1 < self.points.len()).then(|| self.rates_since(self.points[anchor]))
        };
        Throughput {
            samples: self.points.len(),
            wall_time,
            overall,
            last_window: if wall_time <= LAST_WINDOW_S {
                overall
            } else {
                since(wall_time - LAST_WINDOW_S).unwrap_or_default()
            },
            steady_state: if wall_time <= 0.0 {
                overall
            } else {
                since(wall_time * WARMUP_SHARE).unwrap_or(overall)
            },
        }
    }

    fn last(&self) -> Point {
        self.points.last().copied().unwrap_or_default()
    }

    /// The index of the last point up to `t` before the first one beyond it; the first point where `t` is before all.
    fn anchor(&self, t: f64) -> usize {
        if self.points.first().is_none_or(|first| t <= first.t) {
            return 0;
        }
        self.points.iter().take_while(|point| point.t <= t).count().saturating_sub(1)
    }

    fn rates_since(&self, anchor: Point) -> Rates {
        let last = self.last();
        let dt = last.t - anchor.t;
        if dt <= 0.0 {
            return Rates::default();
        }
        let new_prompt = last.new_prompt - anchor.new_prompt;
        let cached_prompt = last.cached_prompt - anchor.cached_prompt;
        Rates {
            prompt: (new_prompt + cached_prompt) as f64 / dt,
            new_prompt: new_prompt as f64 / dt,
            cached_prompt: cached_prompt as f64 / dt,
            completion: (last.completion - anchor.completion) as f64 / dt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(start_time: f64, completed_time: f64, cached_tokens: Option<u32>) -> Row {
        Row {
            start_time,
            completed_time,
            prompt_tokens: 10,
            completion_tokens: 100,
            cached_tokens,
            success: true,
            ..Row::default()
        }
    }

    #[test]
    fn windows_begin_at_the_last_point_before_them() {
        let rows =
            [row(0.0, 5.0, None), row(1.0, 10.0, Some(4)), row(2.0, 29.0, Some(20)), row(3.0, 50.0, None)];
        let workload = Workload::of(&rows).unwrap();
        // A server may say that more was cached than was sent.
        let new_prompts: Vec<u64> = workload.points.iter().map(|point| point.new_prompt).collect();
        assert_eq!(new_prompts, [10, 16, 16, 26]);
        let throughput = workload.throughput();
        assert_eq!(throughput.overall.completion.to_bits(), (400.0f64 / 50.0).to_bits());
        // The last 30 s begin at 20 s: the last point before is that at 10 s; so too where a fifth is left out.
        assert_eq!(throughput.last_window.completion.to_bits(), (200.0f64 / 40.0).to_bits());
        assert_eq!(throughput.steady_state, throughput.last_window);
        assert_eq!(throughput.last_window.cached_prompt.to_bits(), (20.0f64 / 40.0).to_bits());
    }

    #[test]
    fn a_run_without_a_success_has_no_workload() {
        assert_eq!(Workload::of(&[Row { success: false, ..row(0.0, 1.0, None) }]), None);
    }
}
