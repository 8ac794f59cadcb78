//! How far off this machine's figures are: replays against the bundled mock, held against its truth log. Pure.
//!
//! A [`Calibration`] is a list of [`Load`]s, each a number of streams with every metric measured, true, and off by so
//! much, and the [`marks`] it missed. It belongs to one machine, and is kept between runs by [`cache`].

pub mod cache;
mod table;

use serde::{Deserialize, Serialize};
use tokentape_mock::truth::Record;

use crate::metrics::stats::{self, Numpy};
use crate::run::Machine;
use crate::timeline::Timeline;
use crate::truth::{Check, Comparison};

/// The calibration format that this build writes and reads.
pub const FORMAT: u32 = 1;

/// The pass marks, in microseconds. A load passes if it misses none.
pub mod marks {
    /// The mean TTFT is off by no more than this, up to [`MANY_STREAMS`].
    pub const TTFT_MEAN_US: f64 = 300.0;
    /// The mean TTFT is off by no more than this at more streams.
    pub const TTFT_MEAN_MANY_US: f64 = 500.0;
    /// Where the wider mark for the mean TTFT begins to hold: above this number of streams.
    pub const MANY_STREAMS: u32 = 500;
    /// 99 of 100 single TTFTs are off by no more than this.
    pub const TTFT_P99_US: f64 = 1000.0;
    /// The p99 of ITL is off by no more than this.
    pub const ITL_P99_US: f64 = 500.0;
    /// The mock's true mean ITL is at most this many times the one it was told to keep: beyond, the server is what
    /// gives way, and the load is not the one that was asked for.
    pub const SERVER_ITL_RATIO: f64 = 1.1;
}

/// What this machine's figures are worth.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Calibration {
    /// The calibration format, [`FORMAT`].
    pub format: u32,
    /// The program that calibrated, with its version.
    pub created_by: String,
    /// Wall-clock time of its start, RFC 3339 in UTC.
    pub started_at: String,
    /// The machine.
    pub machine: Machine,
    /// The processor's name, where the system tells.
    pub cpu: Option<String>,
    /// What the mock was told to do.
    pub setting: Setting,
    /// Each load, in the order of its replay.
    pub loads: Vec<Load>,
    /// The largest number of streams up to which every load passed; absent where the first failed.
    pub last_good_streams: Option<u32>,
}

/// What the mock was told to do.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Setting {
    /// From a request's arrival to its first token, in ns.
    pub ttft_ns: u64,
    /// From token to token, in ns.
    pub itl_ns: u64,
    /// Tokens of each answer.
    pub output_tokens: u32,
}

impl Calibration {
    /// A calibration with the loads that were replayed.
    #[must_use]
    pub fn new(
        created_by: String,
        started_at: String,
        cpu: Option<String>,
        setting: Setting,
        loads: Vec<Load>,
    ) -> Self {
        let good = loads.iter().take_while(|load| load.passed());
        let last_good_streams = good.map(|load| load.streams).max();
        Self {
            format: FORMAT,
            created_by,
            started_at,
            machine: Machine::this(),
            cpu,
            setting,
            loads,
            last_good_streams,
        }
    }

    /// Whether every load passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.loads.iter().all(Load::passed)
    }
}

/// One load: what was measured, and what was true. All times in microseconds.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Load {
    /// Requests in flight at once.
    pub streams: u32,
    /// Requests measured.
    pub requests: u64,
    /// Requests found in the truth log, token for token.
    pub matched: u64,
    /// TTFT, ITL, TPOT and E2EL.
    pub metrics: Vec<Metric>,
    /// From the arrival of bytes at this machine's socket to the return of the read that took them: the client's own
    /// delay, of which the figures above are free where the kernel tells of arrivals.
    pub client_read_delay: Spread,
    /// From the moment that a token was due to the return of its write: the mock's own delay. It is part of the truth.
    pub server_write_delay: Spread,
    /// From a request's arrival at the mock to the return of the read that took it. It is part of the truth.
    pub server_read_delay: Spread,
    /// The marks that were missed, in words.
    pub missed: Vec<String>,
}

/// One metric, measured and true, in microseconds.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// As the client measured it.
    pub measured: Figures,
    /// As it truly was.
    #[serde(rename = "true")]
    pub truth: Figures,
    /// Of each value, measured less true.
    pub error: Spread,
    /// Of each value, how far off it is, to either side, at p99.
    pub error_size_p99: f64,
    /// The error of the mean had every read been stamped when it returned, as a client without the kernel's stamps does.
    pub mean_error_as_read: f64,
}

/// Figures of one set of values, in microseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Figures {
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
}

/// How values lie, in microseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Figures {
    fn of(ns: &[f64]) -> Self {
        let sorted = stats::sorted(ns);
        let at = |p: f64| stats::percentile(&sorted, p) / 1e3;
        Self { mean: Numpy::FROM_2_3.mean(ns) / 1e3, p50: at(50.0), p99: at(99.0) }
    }
}

impl Spread {
    fn of(ns: &[f64]) -> Self {
        let sorted = stats::sorted(ns);
        let at = |p: f64| stats::percentile(&sorted, p) / 1e3;
        Self { p50: at(50.0), p99: at(99.0), max: at(100.0) }
    }
}

impl Metric {
    fn of(name: &str, comparison: &Comparison, as_read: &Comparison) -> Self {
        let errors = comparison.errors();
        let sizes: Vec<f64> = errors.iter().map(|error| error.abs()).collect();
        Self {
            name: name.to_owned(),
            measured: Figures::of(&comparison.measured_ns),
            truth: Figures::of(&comparison.true_ns),
            error: Spread::of(&errors),
            error_size_p99: Spread::of(&sizes).p99,
            mean_error_as_read: as_read.error_of_mean() / 1e3,
        }
    }

    /// The error of the mean: what a reader of the report is off by.
    #[must_use]
    pub fn mean_error(&self) -> f64 {
        self.measured.mean - self.truth.mean
    }

    /// The error of the 99th percentile.
    #[must_use]
    pub fn p99_error(&self) -> f64 {
        self.measured.p99 - self.truth.p99
    }
}

impl Load {
    /// Holds a replay against the truth. `check` is of the timelines as they are, `as_read` of
    /// [`Timeline::as_read`]; `reasons` are the run's own against itself.
    #[must_use]
    pub fn new(
        streams: u32,
        setting: Setting,
        timelines: &[Timeline],
        (check, as_read): (&Check, &Check),
        records: &[Record],
        reasons: &[String],
    ) -> Self {
        let late = timelines.iter().flat_map(|timeline| &timeline.reads.late_ns);
        let late: Vec<f64> = late.map(|late| f64::from(*late)).collect();
        let written = records.iter().flat_map(|record| record.due_ns.iter().zip(&record.written_ns));
        let written: Vec<f64> = written.map(|(due, at)| *at as f64 - *due as f64).collect();
        let read: Vec<f64> =
            records.iter().map(|record| record.read_ns.saturating_sub(record.arrival_ns) as f64).collect();
        let mut load = Self {
            streams,
            requests: timelines.len() as u64,
            matched: check.matched as u64,
            metrics: vec![
                Metric::of("TTFT", &check.ttft, &as_read.ttft),
                Metric::of("ITL", &check.itl, &as_read.itl),
                Metric::of("TPOT", &check.tpot, &as_read.tpot),
                Metric::of("E2EL", &check.e2el, &as_read.e2el),
            ],
            client_read_delay: Spread::of(&late),
            server_write_delay: Spread::of(&written),
            server_read_delay: Spread::of(&read),
            missed: reasons.to_vec(),
        };
        load.judge(setting);
        load
    }

    fn judge(&mut self, setting: Setting) {
        let mut missed = Vec::new();
        let mut hold = |what: &str, value: f64, mark: f64| {
            if value.abs() > mark {
                missed.push(format!("{what} is off by {value:+.0} us, more than {mark:.0}"));
            }
        };
        let mean_mark =
            if self.streams > marks::MANY_STREAMS { marks::TTFT_MEAN_MANY_US } else { marks::TTFT_MEAN_US };
        let metric = |name: &str| self.metrics.iter().find(|metric| metric.name == name);
        if let (Some(ttft), Some(itl)) = (metric("TTFT"), metric("ITL")) {
            hold("mean TTFT", ttft.mean_error(), mean_mark);
            hold("one TTFT of 100", ttft.error_size_p99, marks::TTFT_P99_US);
            hold("p99 ITL", itl.p99_error(), marks::ITL_P99_US);
            let asked = setting.itl_ns as f64 / 1e3;
            if itl.truth.mean > asked * marks::SERVER_ITL_RATIO {
                missed.push(format!(
                    "the mock gave way first: its mean ITL is truly {:.0} us, and {asked:.0} were asked for",
                    itl.truth.mean
                ));
            }
        }
        let unmatched = self.requests - self.matched.min(self.requests);
        if unmatched > 0 {
            missed.push(format!("{unmatched} of {} requests are not in the truth log", self.requests));
        }
        self.missed.extend(missed);
    }

    /// Whether the load passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.missed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTING: Setting = Setting { ttft_ns: 20_000_000, itl_ns: 10_000_000, output_tokens: 100 };

    fn comparison(truth: &[f64], off: impl Fn(usize) -> f64) -> Comparison {
        Comparison {
            measured_ns: truth.iter().enumerate().map(|(i, truth)| truth + off(i)).collect(),
            true_ns: truth.to_vec(),
        }
    }

    /// A load of 200 requests whose TTFTs and ITLs are off by so much.
    fn load(streams: u32, ttft: impl Fn(usize) -> f64, itl: impl Fn(usize) -> f64) -> Load {
        let check = Check {
            ttft: comparison(&[20e6; 200], ttft),
            itl: comparison(&[10e6; 200], itl),
            tpot: comparison(&[10e6; 200], |_| 0.0),
            e2el: comparison(&[1e9; 200], |_| 0.0),
            matched: 200,
            unmatched: 0,
        };
        Load::new(streams, SETTING, &vec![Timeline::default(); 200], (&check, &check), &[], &[])
    }

    #[test]
    fn each_mark_can_be_missed() {
        assert_eq!(load(50, |_| 290e3, |_| 400e3).missed, Vec::<String>::new());
        assert_eq!(load(50, |_| -310e3, |_| 0.0).missed, ["mean TTFT is off by -310 us, more than 300"]);
        assert!(load(501, |_| -310e3, |_| 0.0).passed());
        assert_eq!(load(1000, |_| 510e3, |_| 0.0).missed, ["mean TTFT is off by +510 us, more than 500"]);
        // 3 of 200 are more than 1 of 100.
        let few = |i: usize| if i < 3 { 2e6 } else { 0.0 };
        assert_eq!(load(50, few, |_| 0.0).missed, ["one TTFT of 100 is off by +2000 us, more than 1000"]);
        assert_eq!(load(50, |_| 0.0, few).missed, ["p99 ITL is off by +2000 us, more than 500"]);
    }

    #[test]
    fn a_server_that_gives_way_and_a_lost_request_are_told() {
        let check = Check {
            ttft: comparison(&[20e6; 9], |_| 0.0),
            itl: comparison(&[12e6; 9], |_| 0.0),
            matched: 9,
            ..Check::default()
        };
        let timelines = vec![Timeline::default(); 10];
        let load = Load::new(5, SETTING, &timelines, (&check, &check), &[], &["run INVALID".to_owned()]);
        let missed = load.missed.join("; ");
        for part in ["run INVALID", "the mock gave way first", "1 of 10 requests"] {
            assert!(missed.contains(part), "{missed}");
        }
    }

    #[test]
    fn the_last_good_load_is_before_the_first_failure() {
        let good = |streams| load(streams, |_| 0.0, |_| 0.0);
        let bad = |streams| load(streams, |_| 1e6, |_| 0.0);
        let last =
            |loads| Calibration::new(String::new(), String::new(), None, SETTING, loads).last_good_streams;
        assert_eq!(last(vec![good(1), good(2), bad(4), good(8)]), Some(2));
        assert_eq!(last(vec![bad(1), good(2)]), None);
    }
}
