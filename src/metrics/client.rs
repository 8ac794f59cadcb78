//! The client's own part in a run: how late it sent and read, what that did to each figure, and how busy it was.
//!
//! - **Read delay**: from the moment the kernel had a read's last byte to the moment the read returned
//!   ([`Reads::late_ns`](crate::timeline::Reads::late_ns)). Figures that stand on the kernel's stamps do not contain
//!   it; a client that stamps in user space reports it as the server's latency.
//! - **Write delay**: from dispatch (or, where a connection was opened first, from its readiness) until the kernel had
//!   the request's last byte. TTFT and E2EL contain it.
//! - **Dispatch lateness**: dispatched − scheduled. With a schedule, how much too late the request went out; in a
//!   closed loop, how long the slot stood idle between an answer's end and the next request.
//! - **Effect**: each figure of [`native`] from the moments at which reads returned, less the same
//!   figure from the kernel's stamps: what the client's delay would have added.
//!
//! All in microseconds. Lateness and delays are those of every request that was sent; effects are those of the
//! successful ones.

use serde::Serialize;

use super::native::{Distribution, Samples, output_events, succeeded};
use super::{Measurement, native};
use crate::effort::{Busy, Effort, Priority};
use crate::timeline::{Outcome, Timeline};

/// The client's part in a run. Serialised, it is the `client` object of the JSON report.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Client {
    /// Whether the kernel stamped arrivals. If not, the read delay is unknown and contained in every figure.
    pub kernel_stamps: bool,
    /// Read delay of every read.
    pub read_delay_us: Distribution,
    /// Read delay of the reads that brought a request's first output event.
    pub first_token_read_delay_us: Distribution,
    /// Write delay.
    pub write_delay_us: Distribution,
    /// Dispatch lateness.
    pub dispatch_lateness_us: Distribution,
    /// Dispatch lateness as a share of the time from schedule to end, over all requests: in a closed loop, the share
    /// of time in which slots that had work to do stood idle.
    pub lateness_share: f64,
    /// What the read delay would have added to each figure.
    pub effect_us: Effects,
    /// How busy the client was; absent where a run was recorded without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
}

/// What the read delay would have added, by metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Effects {
    /// On TTFT.
    pub ttft: Effect,
    /// On ITL.
    pub itl: Effect,
    /// On TPOT.
    pub tpot: Effect,
    /// On E2EL.
    pub e2el: Effect,
}

/// What the read delay would have added to one metric's figures, in microseconds. Negative where it would have taken
/// away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Effect {
    /// On the mean.
    pub mean: f64,
    /// On the median.
    pub p50: f64,
    /// On the 99th percentile.
    pub p99: f64,
}

/// How busy the client was. A share of 1 is one whole processor for the whole run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Sending threads; 0 where the system does not tell of them.
    pub workers: usize,
    /// The share of its time that the busiest sending thread spent computing.
    pub busiest_worker_share: f64,
    /// The share of its time that a sending thread spent waiting for a processor, at most; absent where the system
    /// does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_worker_share: Option<f64>,
    /// How the sending threads ran.
    pub priority: Priority,
    /// The share of the time that the whole process spent computing; more than 1 with several threads.
    pub process_share: f64,
    /// The most memory that the process held, in bytes.
    pub peak_memory_bytes: u64,
}

/// The client's part in the run.
#[must_use]
pub fn calculate(measurement: &Measurement<'_>, effort: Option<&Effort>) -> Client {
    let sent = || measurement.timelines.iter().filter(|timeline| timeline.outcome != Outcome::NotSent);
    let late = |timeline: &Timeline| timeline.dispatched_ns.saturating_sub(timeline.scheduled_ns) as f64;
    let read_delays: Vec<f64> =
        sent().flat_map(|timeline| &timeline.reads.late_ns).map(|late| f64::from(*late)).collect();
    let first_delays: Vec<f64> = sent().filter_map(first_token_read_delay).collect();
    let write_delays: Vec<f64> = sent().filter_map(write_delay).collect();
    let lateness: Vec<f64> = sent().map(late).collect();
    let spans: f64 =
        sent().map(|timeline| timeline.end_ns.saturating_sub(timeline.scheduled_ns) as f64).sum();
    Client {
        kernel_stamps: read_delays.iter().any(|delay| *delay > 0.0),
        lateness_share: if spans > 0.0 { lateness.iter().sum::<f64>() / spans } else { 0.0 },
        read_delay_us: Distribution::in_microseconds(read_delays),
        first_token_read_delay_us: Distribution::in_microseconds(first_delays),
        write_delay_us: Distribution::in_microseconds(write_delays),
        dispatch_lateness_us: Distribution::in_microseconds(lateness),
        effect_us: effects(measurement),
        cpu: effort.map(cpu),
    }
}

fn first_token_read_delay(timeline: &Timeline) -> Option<f64> {
    let first = output_events(timeline).next()?;
    timeline.reads.late_ns.get(timeline.events.read[first] as usize).map(|late| f64::from(*late))
}

fn write_delay(timeline: &Timeline) -> Option<f64> {
    let ready = timeline.last_dispatched_ns().max(timeline.connected_ns.unwrap_or(0));
    timeline.written_ns.map(|written| written.saturating_sub(ready) as f64)
}

fn effects(measurement: &Measurement<'_>) -> Effects {
    // The ones before the others: a run's samples are large.
    let stamped = distributions(native::samples(measurement));
    let mut read = Samples::default();
    // One timeline at a time: a run's reads may fill much of the memory as they are.
    for timeline in succeeded(measurement.timelines) {
        read.add(&timeline.clone().as_read());
    }
    let read = distributions(read);
    let effect = |metric: usize| {
        let (read, stamped) = (&read[metric], &stamped[metric]);
        Effect { mean: read.mean - stamped.mean, p50: read.p50 - stamped.p50, p99: read.p99 - stamped.p99 }
    };
    Effects { ttft: effect(0), itl: effect(1), tpot: effect(2), e2el: effect(3) }
}

/// TTFT, ITL, TPOT and E2EL, in microseconds.
fn distributions(samples: Samples) -> [Distribution; 4] {
    let Samples { ttft_ns, itl_ns, tpot_ns, e2el_ns, .. } = samples;
    [ttft_ns, itl_ns, tpot_ns, e2el_ns].map(Distribution::in_microseconds)
}

fn cpu(effort: &Effort) -> Cpu {
    let most = |shares: &mut dyn Iterator<Item = f64>| shares.reduce(f64::max);
    Cpu {
        workers: effort.workers.len(),
        busiest_worker_share: most(&mut effort.workers.iter().map(Busy::share)).unwrap_or(0.0),
        waiting_worker_share: most(&mut effort.workers.iter().filter_map(Busy::waited_share)),
        priority: effort.priority,
        process_share: effort.process.share(),
        peak_memory_bytes: effort.peak_memory_bytes,
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "small whole numbers are exact")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::timeline::{Events, Facts, Ns, Reads};

    const TOKEN: Facts = Facts::JSON.with(Facts::CHOICES).with(Facts::CONTENT);

    /// A response whose tokens arrive at these microseconds, each read so much later.
    fn timeline(scheduled_us: Ns, dispatched_us: Ns, reads_us: &[(Ns, u32)]) -> Timeline {
        let at_ns: Vec<Ns> = reads_us.iter().map(|(at, _)| at * 1000).collect();
        Timeline {
            scheduled_ns: scheduled_us * 1000,
            dispatched_ns: dispatched_us * 1000,
            written_ns: Some(dispatched_us * 1000 + 7000),
            end_ns: at_ns.last().copied().unwrap_or(0),
            reads: Reads {
                late_ns: reads_us.iter().map(|(_, late)| late * 1000).collect(),
                bytes: vec![1; at_ns.len()],
                at_ns,
            },
            events: Events {
                read: (0..u32::try_from(reads_us.len()).unwrap()).collect(),
                facts: vec![TOKEN; reads_us.len()],
                ..Events::default()
            },
            outcome: Outcome::Success,
            ..Timeline::default()
        }
    }

    fn of(timelines: &[Timeline], effort: Option<&Effort>) -> Client {
        let measurement =
            Measurement { timelines, duration_ns: 1_000_000, concurrency: Some(1), request_rate: None };
        calculate(&measurement, effort)
    }

    #[test]
    fn each_delay_is_told_apart() {
        let client = of(
            &[
                timeline(0, 10, &[(100, 4), (200, 8)]),
                timeline(300, 330, &[(400, 6), (500, 6)]),
                // Never sent: no part of anything.
                Timeline { scheduled_ns: 9, ..Timeline::default() },
            ],
            None,
        );
        assert!(client.kernel_stamps);
        let means = |client: &Client| {
            [
                client.read_delay_us.mean,
                client.first_token_read_delay_us.mean,
                client.write_delay_us.mean,
                client.dispatch_lateness_us.mean,
            ]
        };
        assert_eq!(means(&client), [6.0, 5.0, 7.0, 20.0]);
        assert_eq!(client.read_delay_us.max, 8.0);
        assert_eq!(client.lateness_share, 0.1);
        // Gaps of 100 and 100 in the kernel, of 104 and 100 as read.
        let Effects { ttft, itl, tpot, e2el } = client.effect_us;
        assert_eq!((ttft.mean, itl.mean, tpot.mean, e2el.mean), (5.0, 2.0, 2.0, 7.0));
        assert_eq!(client.cpu, None);
    }

    #[test]
    fn opening_a_connection_is_no_write_delay() {
        let mut opened = timeline(0, 0, &[(100, 1)]);
        (opened.connected_ns, opened.written_ns) = (Some(50_000), Some(52_000));
        assert_eq!(of(&[opened], None).write_delay_us.mean, 2.0);
    }

    #[test]
    fn without_stamps_of_the_kernel_nothing_is_known_of_the_read_delay() {
        let mut old = timeline(0, 0, &[(100, 0)]);
        assert!(!of(&[old.clone()], None).kernel_stamps);
        old.reads.late_ns.clear();
        let client = of(&[old], None);
        assert!(!client.kernel_stamps);
        assert_eq!((client.read_delay_us.count, client.effect_us.ttft.mean), (0, 0.0));
    }

    #[test]
    fn the_worst_worker_counts() {
        let busy = |user_ns, waited_ns| Busy { wall_ns: 100, user_ns, system_ns: 10, waited_ns };
        let effort = Effort {
            workers: vec![busy(80, Some(1)), busy(20, Some(30))],
            process: busy(140, None),
            priority: Priority::RealTime,
            peak_memory_bytes: 5,
        };
        let cpu = of(&[], Some(&effort)).cpu.unwrap();
        assert_eq!((cpu.workers, cpu.busiest_worker_share, cpu.process_share), (2, 0.9, 1.5));
        assert_eq!((cpu.waiting_worker_share, cpu.peak_memory_bytes), (Some(0.3), 5));
        assert_eq!(cpu.priority, Priority::RealTime);
        let unknown = of(&[], Some(&Effort::default())).cpu.unwrap();
        assert_eq!((unknown.workers, unknown.waiting_worker_share), (0, None));
    }

    proptest! {
        /// The same delay on every read moves TTFT and E2EL by just that, and leaves the gaps alone.
        #[test]
        fn a_constant_delay_is_found_again(
            requests in prop::collection::vec(prop::collection::vec(1u64..1000, 2..6), 1..8),
            delay in 1u32..5000,
        ) {
            let timelines: Vec<Timeline> = requests.iter().map(|gaps| {
                let reads: Vec<(Ns, u32)> =
                    gaps.iter().scan(50, |at, gap| { *at += gap; Some((*at, delay)) }).collect();
                timeline(0, 20, &reads)
            }).collect();
            let Effects { ttft, itl, tpot, e2el } = of(&timelines, None).effect_us;
            for effect in [ttft, e2el] {
                for figure in [effect.mean, effect.p50, effect.p99] {
                    prop_assert!((figure - f64::from(delay)).abs() < 1e-6, "{figure} {delay}");
                }
            }
            for effect in [itl, tpot] {
                for figure in [effect.mean, effect.p50, effect.p99] {
                    prop_assert!(figure.abs() < 1e-6, "{figure}");
                }
            }
        }
    }
}
