//! A tape at another speed, and several times over.

use super::merge::set_apart;
use crate::tape::format::Request;

/// Arrival times at `speed` times the pace: `offset / speed`, rounded to the nearest nanosecond.
#[must_use]
pub fn at_speed(offset_ns: u64, speed: f64) -> u64 {
    // An f64 has 53 bits: 104 days of nanoseconds.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as far as a u64 goes")]
    let scaled = (offset_ns as f64 / speed).round() as u64;
    // Exact where nothing changes.
    if speed.to_bits() == 1.0_f64.to_bits() { offset_ns } else { scaled }
}

/// Places the rounds of a repeated tape one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rounds {
    /// The round at hand, from 0.
    round: u64,
    requests: u64,
    first_ns: u64,
    last_ns: u64,
}

impl Rounds {
    /// The round at hand, from 0.
    #[must_use]
    pub fn round(&self) -> u64 {
        self.round
    }

    /// Puts a request into the round at hand. In the first it stays as it is; in the others it arrives later, and its
    /// session is one of its own: `NAME#2` in the second round.
    pub fn place(&mut self, request: &mut Request) {
        if self.round == 0 {
            let offset = request.offset_ns;
            self.first_ns = if self.requests == 0 { offset } else { self.first_ns.min(offset) };
            self.last_ns = self.last_ns.max(offset);
            self.requests += 1;
            return;
        }
        request.offset_ns = request.offset_ns.saturating_add(self.round.saturating_mul(self.period_ns()));
        set_apart(&mut request.session, self.round + 1);
    }

    /// Goes on to the next round.
    pub fn advance(&mut self) {
        self.round += 1;
    }

    /// How much later the next round begins: the span of the arrivals and one mean gap between them, so that the
    /// request rate stays. 0 where the tape has no times.
    fn period_ns(&self) -> u64 {
        let span = self.last_ns.saturating_sub(self.first_ns);
        span + span / self.requests.saturating_sub(1).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::edit::tests::request;
    use crate::tape::format::Session;

    #[test]
    fn twice_as_fast_is_half_the_time() {
        assert_eq!(at_speed(1_000_001, 2.0), 500_001);
        assert_eq!(at_speed(10, 0.1), 100);
        assert_eq!(at_speed(u64::MAX - 1, 1.0), u64::MAX - 1);
    }

    #[test]
    fn rounds_follow_at_the_same_rate() {
        let mut rounds = Rounds::default();
        let mut placed = Vec::new();
        for _ in 0..3 {
            for offset in [100, 110, 120] {
                let session = Some(Session { id: "s".to_owned(), turn: 4 });
                let mut request = Request { session, ..request(0, offset) };
                rounds.place(&mut request);
                placed.push((request.offset_ns, request.session.unwrap().id));
            }
            rounds.advance();
        }
        let offsets: Vec<u64> = placed.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, [100, 110, 120, 130, 140, 150, 160, 170, 180]);
        assert_eq!((placed[0].1.as_str(), placed[8].1.as_str()), ("s", "s#3"));
    }

    #[test]
    fn a_tape_without_times_stays_without() {
        let mut rounds = Rounds::default();
        for _ in 0..2 {
            let mut request = request(0, 0);
            rounds.place(&mut request);
            assert_eq!(request.offset_ns, 0);
            rounds.advance();
        }
    }
}
