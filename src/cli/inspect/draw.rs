//! Figures as pictures of characters: block elements where the locale has UTF-8, plain ASCII elsewhere.

use std::env;

use crate::tape::Bucket;

/// The narrowest and the widest picture, in columns.
const WIDTHS: (usize, usize) = (40, 100);

/// What the terminal can show.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) blocks: bool,
}

impl Canvas {
    /// The terminal that stdout is; 80 columns where it is none. The locale is told by the variables of POSIX, the first
    /// that is set.
    pub(super) fn of_terminal() -> Self {
        let width = terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0));
        let locale =
            ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(env::var_os).find(|set| !set.is_empty());
        let locale = locale.map(|set| set.to_string_lossy().to_uppercase()).unwrap_or_default();
        let blocks = locale.contains("UTF-8") || locale.contains("UTF8");
        Self { width: width.clamp(WIDTHS.0, WIDTHS.1), blocks }
    }

    /// A histogram: a line for each bucket, with its bounds, a bar and its number. Empty buckets at both ends are left
    /// out.
    pub(super) fn histogram(self, buckets: &[Bucket]) -> String {
        let first = buckets.iter().position(|bucket| bucket.count > 0).unwrap_or(0);
        let last = buckets.iter().rposition(|bucket| bucket.count > 0).map_or(0, |last| last + 1);
        let shown = &buckets[first.min(last)..last];
        let most = shown.iter().map(|bucket| bucket.count).max().unwrap_or(0);
        let label = |bucket: &Bucket| match bucket {
            Bucket { from, to, .. } if from == to => from.to_string(),
            Bucket { from, to, .. } => format!("{from} to {to}"),
        };
        let labels = shown.iter().map(|bucket| label(bucket).len()).max().unwrap_or(0).max(16);
        let room = self.width.saturating_sub(labels + 12).max(8);
        let line = |bucket: &Bucket| {
            let bar = self.bar(bucket.count as f64 / most.max(1) as f64, room);
            format!("  {:>labels$} {bar} {}\n", label(bucket), bucket.count)
        };
        shown.iter().map(line).collect()
    }

    /// A bar of a share of `room` columns; what is not nothing is never invisible.
    fn bar(self, share: f64, room: usize) -> String {
        const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most a hundred columns"
        )]
        let eighths = (share * room as f64 * 8.0).round().max(f64::from(u8::from(share > 0.0))) as usize;
        if self.blocks {
            "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
        } else {
            match (eighths + 4) / 8 {
                0 if share > 0.0 => ".".to_owned(),
                whole => "#".repeat(whole),
            }
        }
    }

    /// Numbers over time as one line of columns, as many as there are numbers, or fewer where there is no room: then each
    /// column is the sum of as many of them. Also gives how many that are.
    pub(super) fn over_time(self, counts: &[u64]) -> (String, usize) {
        const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        const PLAIN: [char; 8] = ['.', ':', '-', '=', '+', '*', '%', '#'];

        let room = self.width.saturating_sub(4);
        let each = counts.len().div_ceil(room.max(1)).max(1);
        let columns: Vec<u64> = counts.chunks(each).map(|counts| counts.iter().sum()).collect();
        let most = columns.iter().max().copied().unwrap_or(0).max(1);
        let column = |&count: &u64| {
            // Nothing is blank, and anything else is not.
            let level = usize::try_from(count.saturating_mul(8).div_ceil(most)).unwrap_or(8);
            let columns = if self.blocks { BLOCKS } else { PLAIN };
            level.checked_sub(1).map_or(' ', |level| columns[level.min(7)])
        };
        (columns.iter().map(column).collect(), each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Canvas = Canvas { width: 40, blocks: false };
    const BLOCKS: Canvas = Canvas { width: 40, blocks: true };

    #[test]
    fn bars_are_as_long_as_their_numbers() {
        let bucket = |from, to, count| Bucket { from, to, count };
        let buckets = [
            bucket(0, 0, 0),
            bucket(1, 1, 60),
            bucket(2, 3, 0),
            bucket(4, 7, 1),
            bucket(8, 15, 30),
            bucket(16, 31, 0),
        ];
        let expected = "                 1 ############ 60
            2 to 3  0
            4 to 7 . 1
           8 to 15 ###### 30
";
        assert_eq!(PLAIN.histogram(&buckets), expected);
        let blocks = BLOCKS.histogram(&buckets);
        assert!(
            blocks.contains("████████████ 60") && blocks.contains(" ▎ 1") && blocks.contains(" ██████ 30"),
            "{blocks}"
        );
        assert_eq!(PLAIN.histogram(&[]), "");
    }

    #[test]
    fn time_runs_from_left_to_right() {
        assert_eq!(PLAIN.over_time(&[0, 1, 4, 8]), (" .=#".to_owned(), 1));
        assert_eq!(BLOCKS.over_time(&[8, 0, 1]), ("█ ▁".to_owned(), 1));
        // 36 columns of two.
        let (line, each) = PLAIN.over_time(&[1; 71]);
        assert_eq!((line.len(), each), (36, 2));
        assert_eq!(PLAIN.over_time(&[]), (String::new(), 1));
    }
}
