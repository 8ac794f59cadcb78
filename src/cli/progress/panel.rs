//! The words of the display. Pure.

use std::time::Duration;

use super::tally::{Percentiles, Told};

/// A replay at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// Since the display began.
    pub(super) elapsed: Duration,
    /// Requests that have ended.
    pub(super) done: u64,
    pub(super) total: u64,
    /// Requests in flight; none before the first one has ended.
    pub(super) in_flight: Option<u64>,
    /// The most of them at once.
    pub(super) limit: Option<u64>,
    /// About how long it still takes.
    pub(super) left: Option<Duration>,
    /// How much is over, from 0 to 1.
    pub(super) share: f64,
    pub(super) requests_per_s: f64,
    pub(super) tokens_per_s: f64,
    pub(super) told: Told,
}

impl View {
    /// Several lines, cut to this width.
    pub(super) fn panel(&self, width: usize) -> Vec<String> {
        let left = self.left.map_or(String::new(), |left| format!(", about {} left", clock(left)));
        let mut lines = vec![
            bar(self.share, width),
            format!("{} of {} requests in {}{left}", self.done, self.total, clock(self.elapsed)),
            self.rates("   "),
        ];
        lines.extend(self.latencies().map(|(name, of)| format!("{name:<5} {}", shown(of))));
        lines.extend(self.client().map(|client| format!("client  {client}")));
        lines.extend(self.failed());
        // A character is a column.
        lines.into_iter().map(|line| line.chars().take(width).collect()).collect()
    }

    /// One line.
    pub(super) fn line(&self) -> String {
        let mut line = format!("{} s: {} of {} requests", self.elapsed.as_secs(), self.done, self.total);
        line += &format!(", {}", self.rates(", "));
        for (name, of) in self.latencies() {
            line += &format!(", {name} {}", shown(of));
        }
        for more in [self.client(), self.failed()].into_iter().flatten() {
            line += &format!(", {more}");
        }
        line
    }

    fn rates(&self, between: &str) -> String {
        let Some(in_flight) = self.in_flight else { return "no answer yet".to_owned() };
        let of = self.limit.map_or(String::new(), |limit| format!(" of {limit}"));
        let rates = [
            format!("{in_flight}{of} in flight"),
            format!("{:.1} req/s", self.requests_per_s),
            format!("{:.0} tok/s", self.tokens_per_s),
        ];
        rates.join(between)
    }

    fn latencies(&self) -> impl Iterator<Item = (&'static str, Percentiles)> {
        [("TTFT", self.told.ttft), ("ITL", self.told.itl)]
            .into_iter()
            .filter_map(|(name, of)| Some((name, of?)))
    }

    fn client(&self) -> Option<String> {
        let late = self.told.late.map(|late| format!("sends {} late", ms(late)));
        let read = self.told.read_delay.map(|read| format!("reads {} late", ms(read)));
        let parts: Vec<String> = [late, read].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| format!("{} (p99)", parts.join(", ")))
    }

    fn failed(&self) -> Option<String> {
        let kinds: Vec<String> =
            self.told.failed.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let all: u64 = self.told.failed.values().sum();
        (all > 0).then(|| format!("{all} failed: {}", kinds.join(", ")))
    }
}

/// Draws lines in the place of as many as there were. The cursor is left below them, at the beginning of a line, where
/// the terminal's own `^C` breaks nothing; nothing else of the terminal is changed, so nothing is to be put back.
pub(super) fn redrawn(before: usize, lines: &[String]) -> String {
    // Up by so many lines; of each, and of what is below, what stood there is erased.
    let mut text = if before > 0 { format!("\r\x1b[{before}A") } else { "\r".to_owned() };
    for line in lines {
        text += &format!("{line}\x1b[K\n");
    }
    text + "\x1b[J"
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the width")]
fn bar(share: f64, width: usize) -> String {
    let share = share.clamp(0.0, 1.0);
    let room = width.saturating_sub(6).min(74);
    let full = (share * room as f64) as usize;
    format!("{}{} {:>3.0} %", "#".repeat(full), "-".repeat(room - full), (share * 100.0).floor())
}

fn shown(Percentiles { p50, p90, p99 }: Percentiles) -> String {
    format!("p50 {} p90 {} p99 {}", ms(p50), ms(p90), ms(p99))
}

fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    let decimals = if ms < 10.0 { 2 } else { usize::from(ms < 1000.0) };
    format!("{ms:.decimals$} ms")
}

/// `7 s`, `2:05` or `1:02:05`.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let percentiles = |p50, p90, p99| {
            let [p50, p90, p99] = [p50, p90, p99].map(Duration::from_micros);
            Some(Percentiles { p50, p90, p99 })
        };
        View {
            elapsed: Duration::from_secs(125),
            done: 400,
            total: 1000,
            in_flight: Some(50),
            limit: Some(50),
            left: Some(Duration::from_secs(3725)),
            share: 0.4,
            requests_per_s: 61.25,
            tokens_per_s: 6125.4,
            told: Told {
                started: None,
                failed: [("status", 1), ("timeout", 2)].into(),
                ttft: percentiles(20_300, 31_000, 1_200_000),
                itl: percentiles(9_990, 10_010, 12_000),
                late: Some(Duration::from_micros(120)),
                read_delay: Some(Duration::from_micros(70)),
            },
        }
    }

    #[test]
    fn the_panel() {
        let panel = view().panel(40).join("\n");
        let expected = "\
#############---------------------  40 %
400 of 1000 requests in 2:05, about 1:02
50 of 50 in flight   61.2 req/s   6125 t
TTFT  p50 20.3 ms p90 31.0 ms p99 1200 m
ITL   p50 9.99 ms p90 10.0 ms p99 12.0 m
client  sends 0.12 ms late, reads 0.07 m
3 failed: 1 status, 2 timeout";
        assert_eq!(panel, expected);
        assert!(view().panel(80).contains(&"400 of 1000 requests in 2:05, about 1:02:05 left".to_owned()));
    }

    #[test]
    fn a_panel_takes_the_place_of_the_one_before() {
        let lines = ["a".to_owned(), "b".to_owned()];
        assert_eq!(redrawn(0, &lines), "\ra\x1b[K\nb\x1b[K\n\x1b[J");
        assert_eq!(redrawn(2, &lines), "\r\x1b[2Aa\x1b[K\nb\x1b[K\n\x1b[J");
        assert_eq!(redrawn(2, &[]), "\r\x1b[2A\x1b[J");
    }

    #[test]
    fn the_line() {
        let expected = "125 s: 400 of 1000 requests, 50 of 50 in flight, 61.2 req/s, 6125 tok/s, \
                        TTFT p50 20.3 ms p90 31.0 ms p99 1200 ms, ITL p50 9.99 ms p90 10.0 ms p99 12.0 ms, \
                        sends 0.12 ms late, reads 0.07 ms late (p99), 3 failed: 1 status, 2 timeout";
        assert_eq!(view().line(), expected);
        let nothing = View { total: 9, elapsed: Duration::from_secs(2), ..View::default() };
        assert_eq!(nothing.line(), "2 s: 0 of 9 requests, no answer yet");
    }
}
