//! The traffic's side of a replay's arguments: how many requests at once, or when each is due.

use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use crate::cli::Failure;
use crate::schedule::{self, Law, Pace, Shape, Slots};
use crate::timeline::Ns;

/// How to send.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Traffic")]
pub(in crate::cli) struct TrafficArgs {
    /// Requests in flight at once; several, such as 1,10,50, are a run each [default: 1; no limit where requests have
    /// their own times]
    #[arg(
        long,
        value_name = "N[,N...]",
        value_delimiter = ',',
        value_parser = clap::value_parser!(u32).range(1..=65_536)
    )]
    concurrency: Vec<u32>,
    /// Requests a second, whatever becomes of those before; several, such as 5,10,20, are a run each
    #[arg(long, value_name = "R[,R...]", value_delimiter = ',')]
    rate: Vec<f64>,
    /// A rate that changes over the run (over --duration, where it is given), from FROM to TO requests a second
    #[arg(long, value_name = "linear:FROM..TO", conflicts_with = "rate")]
    ramp: Option<Ramp>,
    #[command(flatten)]
    gaps: GapArgs,
    /// N requests at once, every PERIOD
    #[arg(long, value_name = "N@PERIOD", conflicts_with_all = ["rate", "ramp", "arrival", "burstiness", "seed"])]
    burst: Option<Burst>,
    /// Send each request when it arrived on the tape
    #[arg(
        long,
        conflicts_with_all = ["rate", "ramp", "burst", "arrival", "burstiness", "seed"]
    )]
    as_recorded: bool,
    /// X times as fast as on the tape
    #[arg(long, value_name = "X", default_value_t = 1.0, requires = "as_recorded")]
    speed: f64,
    /// Begin at this time of the tape
    #[arg(long, value_name = "TIME", requires = "as_recorded", value_parser = humantime::parse_duration)]
    from: Option<Duration>,
    /// End before this time of the tape
    #[arg(long, value_name = "TIME", requires = "as_recorded", value_parser = humantime::parse_duration)]
    to: Option<Duration>,
    /// Send nothing more after this time; what is in flight then is waited for, and the rest of the tape left out
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(in crate::cli) duration: Option<Duration>,
    /// Which of the slots that --concurrency makes carries a request
    #[arg(long, value_enum, default_value_t = SlotChoice::Queue)]
    slots: SlotChoice,
}

/// How far apart requests are.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct GapArgs {
    /// How far apart requests are at a rate [default: poisson]
    #[arg(long, value_enum)]
    arrival: Option<Arrival>,
    /// The gamma law's shape: 1 is poisson, below it requests come in bursts
    #[arg(long, value_name = "B")]
    burstiness: Option<f64>,
    /// The seed of the gaps [default: 0]
    #[arg(long)]
    seed: Option<u64>,
}

impl GapArgs {
    /// These gaps at a pace.
    pub(in crate::cli) fn at(&self, pace: Pace) -> Result<Shape, Failure> {
        let law = match (self.arrival, self.burstiness) {
            (Some(Arrival::Gamma), None) => {
                return Err(Failure::usage("--arrival gamma needs a --burstiness, such as 0.5"));
            }
            (Some(Arrival::Gamma) | None, Some(burstiness)) => Law::Gamma { burstiness },
            (Some(_), Some(_)) => {
                return Err(Failure::usage("--burstiness is the gamma law's; give it with --arrival gamma"));
            }
            (Some(Arrival::Constant), None) => Law::Constant,
            (Some(Arrival::Poisson) | None, None) => Law::Poisson,
        };
        Ok(Shape::Paced { pace, law, seed: self.seed.unwrap_or(0) })
    }

    pub(in crate::cli) fn is_given(&self) -> bool {
        self.arrival.is_some() || self.burstiness.is_some() || self.seed.is_some()
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Arrival {
    /// All gaps the same
    Constant,
    /// Independent users
    Poisson,
    /// As bursty, or as even, as --burstiness says
    Gamma,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum SlotChoice {
    /// The first that is free
    Queue,
    /// Slot s of n carries the requests s, s + n, s + 2n, ... in every run
    Static,
}

/// One way of sending: a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::cli) struct Traffic {
    pub(in crate::cli) concurrency: Option<u32>,
    pub(in crate::cli) shape: Option<Shape>,
    pub(in crate::cli) window: Option<Range<Ns>>,
    pub(in crate::cli) duration: Option<Duration>,
    pub(in crate::cli) slots: Slots,
}

/// One run of a sweep.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Point {
    /// The name of its folder: `concurrency-10`, `rate-2.5`.
    pub(in crate::cli) name: String,
    pub(in crate::cli) traffic: Traffic,
}

impl TrafficArgs {
    /// The runs asked for: one or more.
    pub(in crate::cli) fn points(&self) -> Result<Vec<Point>, Failure> {
        if self.concurrency.len() > 1 && self.rate.len() > 1 {
            return Err(Failure::usage("sweep --concurrency or --rate, not both at once"));
        }
        let shapes = self.shapes()?;
        let base = Traffic {
            window: self.window()?,
            duration: self.duration,
            slots: match self.slots {
                SlotChoice::Queue => Slots::Queue,
                SlotChoice::Static => Slots::Static,
            },
            ..Traffic::default()
        };
        let limits: Vec<Option<u32>> = match (self.concurrency.as_slice(), shapes.first()) {
            ([], Some(None)) => vec![Some(1)],
            ([], _) => vec![None],
            (limits, _) => limits.iter().copied().map(Some).collect(),
        };
        if base.slots == Slots::Static && limits == [None] {
            return Err(Failure::usage(
                "--slots static needs --concurrency: without a limit there are no slots",
            ));
        }
        let mut points = Vec::new();
        for shape in &shapes {
            for concurrency in &limits {
                let name = match (concurrency, shape.and_then(|shape| shape.rate())) {
                    (_, Some(rate)) if self.concurrency.len() < 2 => format!("rate-{rate}"),
                    (Some(limit), _) => format!("concurrency-{limit}"),
                    (None, _) => shape.map_or("run", |shape| shape.arrival()).to_owned(),
                };
                let traffic = Traffic { concurrency: *concurrency, shape: *shape, ..base.clone() };
                if points.iter().any(|point: &Point| point.name == name) {
                    return Err(Failure::usage(format_args!("{name} is asked for twice")));
                }
                points.push(Point { name, traffic });
            }
        }
        Ok(points)
    }

    fn shapes(&self) -> Result<Vec<Option<Shape>>, Failure> {
        if self.as_recorded {
            let from_ns = nanoseconds(self.from.unwrap_or_default());
            return Ok(vec![Some(checked(Shape::Recorded { speed: self.speed, from_ns })?)]);
        }
        if let Some(Burst { size, period }) = self.burst {
            return Ok(vec![Some(checked(Shape::Bursts { size, period_ns: nanoseconds(period) })?)]);
        }
        if let Some(Ramp { from, to }) = self.ramp {
            let over_s = self.duration.map(|duration| duration.as_secs_f64());
            return Ok(vec![Some(checked(self.gaps.at(Pace::Linear { from, to, over_s })?)?)]);
        }
        if self.rate.is_empty() {
            if self.gaps.is_given() {
                return Err(Failure::usage("--arrival, --burstiness and --seed need a --rate or a --ramp"));
            }
            return Ok(vec![None]);
        }
        let at = |rate: &f64| checked(self.gaps.at(Pace::Constant { rate: *rate })?).map(Some);
        self.rate.iter().map(at).collect()
    }

    fn window(&self) -> Result<Option<Range<Ns>>, Failure> {
        if self.from.is_none() && self.to.is_none() {
            return Ok(None);
        }
        let (from, to) = (nanoseconds(self.from.unwrap_or_default()), self.to.map_or(Ns::MAX, nanoseconds));
        if from >= to {
            return Err(Failure::usage("--to must be later than --from"));
        }
        Ok(Some(from..to))
    }
}

/// A shape that makes a schedule: what is wrong with it is known before anything is sent.
fn checked(shape: Shape) -> Result<Shape, Failure> {
    shape.offsets(&[])?;
    Ok(shape)
}

fn nanoseconds(duration: Duration) -> Ns {
    Ns::try_from(duration.as_nanos()).unwrap_or(Ns::MAX)
}

impl From<schedule::Error> for Failure {
    fn from(error: schedule::Error) -> Self {
        Self::usage(error)
    }
}

/// `linear:FROM..TO`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ramp {
    from: f64,
    to: f64,
}

impl FromStr for Ramp {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "give it as linear:FROM..TO, such as linear:1..50";
        let (from, to) = text.strip_prefix("linear:").and_then(|rates| rates.split_once("..")).ok_or(FORM)?;
        let rate = |text: &str| text.trim().parse().map_err(|_| FORM);
        Ok(Self { from: rate(from)?, to: rate(to)? })
    }
}

/// `N@PERIOD`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Burst {
    size: u32,
    period: Duration,
}

impl FromStr for Burst {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "give it as N@PERIOD, such as 20@1s";
        let (size, period) = text.split_once('@').ok_or(FORM)?;
        let size = size.trim().parse().map_err(|_| FORM)?;
        Ok(Self { size, period: humantime::parse_duration(period.trim()).map_err(|_| FORM)? })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        traffic: TrafficArgs,
    }

    fn points(line: &str) -> Vec<Point> {
        let words = std::iter::once("replay").chain(line.split_whitespace());
        Line::try_parse_from(words).unwrap().traffic.points().unwrap()
    }

    fn names(line: &str) -> Vec<String> {
        points(line).into_iter().map(|point| point.name).collect()
    }

    #[test]
    fn a_list_is_a_sweep() {
        assert_eq!(names("--concurrency 1,10,50"), ["concurrency-1", "concurrency-10", "concurrency-50"]);
        assert_eq!(names("--rate 5,2.5"), ["rate-5", "rate-2.5"]);
        assert_eq!(names("--rate 5 --concurrency 1,2"), ["concurrency-1", "concurrency-2"]);
        assert_eq!(names("--rate 5,6 --concurrency 2"), ["rate-5", "rate-6"]);
    }

    #[test]
    fn a_limit_stands_where_there_is_no_schedule_or_it_is_asked_for() {
        let limit = |line: &str| points(line)[0].traffic.concurrency;
        assert_eq!(limit(""), Some(1));
        for schedule in ["--rate 5", "--ramp linear:0..5", "--burst 3@1s", "--as-recorded"] {
            assert_eq!(limit(schedule), None, "{schedule}");
            assert_eq!(limit(&format!("{schedule} --concurrency 7")), Some(7));
        }
    }

    #[test]
    fn each_shape_has_its_parameters() {
        let shape = |line| points(line)[0].traffic.shape.unwrap();
        let paced = |pace, law, seed| Shape::Paced { pace, law, seed };
        let five = Pace::Constant { rate: 5.0 };
        assert_eq!(shape("--rate 5"), paced(five, Law::Poisson, 0));
        assert_eq!(shape("--rate 5 --arrival constant --seed 3"), paced(five, Law::Constant, 3));
        assert_eq!(shape("--rate 5 --burstiness 0.5"), paced(five, Law::Gamma { burstiness: 0.5 }, 0));
        let ramp = |over_s| paced(Pace::Linear { from: 1.0, to: 50.0, over_s }, Law::Poisson, 0);
        assert_eq!(shape("--ramp linear:1..50"), ramp(None));
        assert_eq!(shape("--ramp linear:1..50 --duration 20s"), ramp(Some(20.0)));
        assert_eq!(shape("--burst 20@500ms"), Shape::Bursts { size: 20, period_ns: 500_000_000 });
        let windowed = &points("--as-recorded --speed 2 --from 1m --to 2m")[0].traffic;
        assert_eq!(windowed.shape, Some(Shape::Recorded { speed: 2.0, from_ns: 60_000_000_000 }));
        assert_eq!(windowed.window, Some(60_000_000_000..120_000_000_000));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "--rate 5 --as-recorded",
            "--rate 5 --burst 2@1s",
            "--ramp up",
            "--burst 2",
            "--speed 2",
            "--from 1s",
            "--concurrency 0",
        ] {
            let words = std::iter::once("replay").chain(line.split_whitespace());
            assert!(Line::try_parse_from(words).is_err(), "{line}");
        }
        for line in [
            "--rate 0",
            "--rate 5,5",
            "--rate 1,2 --concurrency 1,2",
            "--rate 5 --arrival gamma",
            "--rate 5 --arrival constant --burstiness 2",
            "--arrival poisson",
            "--seed 1",
            "--burst 0@1s",
            "--ramp linear:1..0",
            "--as-recorded --speed 0",
            "--as-recorded --from 2s --to 1s",
            "--rate 5 --slots static",
        ] {
            let words = std::iter::once("replay").chain(line.split_whitespace());
            assert!(Line::try_parse_from(words).unwrap().traffic.points().is_err(), "{line}");
        }
    }
}
