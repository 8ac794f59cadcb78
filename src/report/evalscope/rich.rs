//! Tables and panels of rich 15.0 (`rich/table.py`, `_wrap.py`, `_ratio.py`), as far as `evalscope perf` uses them:
//! without colour, and with one cell a character. A model's name is shown as it is, where rich would take what stands
//! in brackets for a style. Each table and panel ends with a line end.

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Align {
    Center,
    Left,
    Right,
}

struct Column {
    header: String,
    align: Align,
    /// The width of its text; else that of its longest cell.
    width: Option<usize>,
}

/// A table in the layout that rich has by default (`HEAVY_HEAD`; `SQUARE` without a header).
pub(super) struct Table {
    title: Option<String>,
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    /// The rows that begin a section: a rule stands before each.
    sections: Vec<usize>,
    has_header: bool,
    has_border: bool,
    /// Whether the outer edges have a space, as the inner ones do.
    pad_edge: bool,
    /// What the table must be wide, and what it is stretched to where it is narrower.
    width: Option<(usize, usize)>,
}

impl Table {
    /// A table with a title and headers, as wide as it has to be, its outer edges without a space.
    pub(super) fn new(title: &str) -> Self {
        Self {
            title: Some(title.to_owned()),
            columns: Vec::new(),
            rows: Vec::new(),
            sections: Vec::new(),
            has_header: true,
            has_border: true,
            pad_edge: false,
            width: None,
        }
    }

    /// A table of names and values of a given width, without headers.
    pub(super) fn headless(width: usize, columns: [usize; 2]) -> Self {
        let column = |width| Column { header: String::new(), align: Align::Left, width: Some(width) };
        Self {
            title: None,
            columns: columns.map(column).into(),
            has_header: false,
            pad_edge: true,
            width: Some((width, width)),
            ..Self::new("")
        }
    }

    pub(super) fn titled(self, title: &str) -> Self {
        Self { title: Some(title.to_owned()), ..self }
    }

    /// At most `width` wide, and at least `least`.
    pub(super) fn wide(self, width: usize, least: usize) -> Self {
        Self { width: Some((width, least)), ..self }
    }

    pub(super) fn borderless(self) -> Self {
        Self { has_border: false, ..self }
    }

    pub(super) fn column(&mut self, header: &str, align: Align) {
        self.columns.push(Column { header: header.to_owned(), align, width: None });
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Begins a section with the next row.
    pub(super) fn section(&mut self) {
        self.sections.push(self.rows.len());
    }

    /// The table on a console of a given width.
    pub(super) fn render(&self, console: usize) -> String {
        let widths = self.widths(console);
        let mut lines = Vec::new();
        if let Some(title) = &self.title {
            let width = widths.iter().sum::<usize>() + self.edges();
            lines.extend(wrap(title, width).iter().map(|line| place(line, width, Align::Center)));
        }
        let rule = |[left, fill, between, right]: [&str; 4]| {
            let fills: Vec<String> = widths.iter().map(|&width| fill.repeat(width)).collect();
            format!("{left}{}{right}", fills.join(between))
        };
        if self.has_header {
            lines.push(rule(["┏", "━", "┳", "┓"]));
            let headers: Vec<&str> = self.columns.iter().map(|column| column.header.as_str()).collect();
            lines.extend(self.lines(&headers, &widths, "┃", true));
            lines.push(rule(["┡", "━", "╇", "┩"]));
        } else if self.has_border {
            lines.push(rule(["┌", "─", "┬", "┐"]));
        }
        let edge = if self.has_border { "│" } else { "" };
        for (i, row) in self.rows.iter().enumerate() {
            if self.sections.contains(&i) {
                lines.push(rule(["├", "─", "┼", "┤"]));
            }
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            lines.extend(self.lines(&cells, &widths, edge, false));
        }
        if self.has_border {
            lines.push(rule(["└", "─", "┴", "┘"]));
        }
        lines.join("\n") + "\n"
    }

    /// One row, as tall as its tallest cell. Headers stand at the bottom, other cells at the top.
    fn lines(&self, cells: &[&str], widths: &[usize], edge: &str, at_bottom: bool) -> Vec<String> {
        let columns: Vec<Vec<String>> = cells
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(i, (cell, &width))| {
                let [left, right] = self.padding(i);
                let inner = width.saturating_sub(left + right);
                let line = |line: &String| {
                    let text = place(line, inner, self.columns[i].align);
                    format!("{}{text}{}", " ".repeat(left), " ".repeat(right))
                };
                wrap(cell, inner).iter().map(line).collect()
            })
            .collect();
        let height = columns.iter().map(Vec::len).max().unwrap_or(0);
        let line = |at: usize| {
            let cells = columns.iter().zip(widths).map(|(lines, &width)| {
                let above = if at_bottom { height - lines.len() } else { 0 };
                let text = at.checked_sub(above).and_then(|at| lines.get(at));
                text.cloned().unwrap_or_else(|| " ".repeat(width))
            });
            format!("{edge}{}{edge}", cells.collect::<Vec<_>>().join(edge))
        };
        (0..height).map(line).collect()
    }

    /// The spaces on the left and on the right of a column's cells.
    fn padding(&self, column: usize) -> [usize; 2] {
        let first = column == 0;
        let last = column + 1 == self.columns.len();
        [usize::from(!first || self.pad_edge), usize::from(!last || self.pad_edge)]
    }

    /// What the table is wider than its columns.
    fn edges(&self) -> usize {
        if self.has_border { self.columns.len() + 1 } else { 0 }
    }

    /// The columns' widths with their padding (`_calculate_column_widths`).
    fn widths(&self, console: usize) -> Vec<usize> {
        let most = self.width.map_or(console, |(width, _)| width).saturating_sub(self.edges());
        let mut widths: Vec<usize> = (0..self.columns.len())
            .map(|i| match self.columns[i].width {
                Some(width) => width + 2,
                None => self.content_width(i) + self.padding(i).iter().sum::<usize>(),
            })
            .collect();
        let sum: usize = widths.iter().sum();
        if sum > most {
            let wrappable: Vec<bool> = self.columns.iter().map(|column| column.width.is_none()).collect();
            collapse(&mut widths, &wrappable, most);
            let excess = widths.iter().sum::<usize>().saturating_sub(most);
            if excess > 0 {
                let ratios = vec![1; widths.len()];
                let limits = widths.clone();
                reduce(&mut widths, excess, &ratios, &limits);
            }
        } else if let Some((_, least)) = self.width {
            stretch(&mut widths, least.saturating_sub(self.edges()).min(most));
        }
        widths
    }

    fn content_width(&self, column: usize) -> usize {
        let header = self.has_header.then_some(&self.columns[column].header);
        let cells = self.rows.iter().map(|row| &row[column]).chain(header);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(1)
    }
}

/// Makes the widest columns narrower until they fit (`_collapse_widths`).
fn collapse(widths: &mut [usize], wrappable: &[bool], most: usize) {
    loop {
        let excess = widths.iter().sum::<usize>().saturating_sub(most);
        let of_wrappable =
            || widths.iter().zip(wrappable).filter(|(_, wraps)| **wraps).map(|(width, _)| *width);
        let Some(widest) = of_wrappable().max() else {
            return;
        };
        let second = of_wrappable().filter(|&width| width != widest).max().unwrap_or(0);
        if excess == 0 || widest == second {
            return;
        }
        let ratios: Vec<usize> = widths
            .iter()
            .zip(wrappable)
            .map(|(&width, &wraps)| usize::from(wraps && width == widest))
            .collect();
        let limits = vec![excess.min(widest - second); widths.len()];
        reduce(widths, excess, &ratios, &limits);
    }
}

/// Takes `total` away from the widths, by their ratios and up to their limits (`ratio_reduce`).
fn reduce(widths: &mut [usize], total: usize, ratios: &[usize], limits: &[usize]) {
    let counted = |(&ratio, &limit): (&usize, &usize)| if limit > 0 { ratio } else { 0 };
    let mut ratio_left: usize = ratios.iter().zip(limits).map(counted).sum();
    let mut left = total;
    for (width, (ratio, limit)) in widths.iter_mut().zip(ratios.iter().zip(limits)) {
        let ratio = counted((ratio, limit));
        if ratio > 0 && ratio_left > 0 {
            let share = (*limit).min(round_half_even(ratio * left, ratio_left));
            *width -= share;
            left -= share;
            ratio_left -= ratio;
        }
    }
}

/// Python's `round` of a quotient.
fn round_half_even(numerator: usize, denominator: usize) -> usize {
    let (quotient, rest) = (numerator / denominator, numerator % denominator);
    match (2 * rest).cmp(&denominator) {
        std::cmp::Ordering::Less => quotient,
        std::cmp::Ordering::Equal => quotient + quotient % 2,
        std::cmp::Ordering::Greater => quotient + 1,
    }
}

/// Widens the columns by their widths until their sum is `least` (`ratio_distribute`).
fn stretch(widths: &mut [usize], least: usize) {
    let mut ratio_left: usize = widths.iter().sum();
    let mut left = least.saturating_sub(ratio_left);
    for width in widths {
        let ratio = *width;
        let share = if ratio_left > 0 { (ratio * left).div_ceil(ratio_left) } else { left };
        *width += share;
        ratio_left -= ratio;
        left -= share;
    }
}

/// Breaks a text between words into lines of a width (`divide_line`, without folding). What is still too long ends
/// in an ellipsis.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in words(text) {
        let length = word.trim_end().chars().count();
        let fits = used + length <= width;
        let last = lines.len() - 1;
        if fits || lines[last].is_empty() {
            used += word.chars().count();
            lines[last].push_str(word);
        } else {
            used = word.chars().count();
            lines.push(word.to_owned());
        }
    }
    lines.iter().map(|line| truncate(line.trim_end(), width)).collect()
}

/// The words of a text, each with the space after it; the first also with what is before it.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.len() - rest.trim_start().len();
        let word = &rest[start..];
        let end = start + word.find(char::is_whitespace).unwrap_or(word.len());
        let next = end + (rest[end..].len() - rest[end..].trim_start().len());
        let (word, tail) = rest.split_at(next);
        rest = tail;
        (end > start).then_some(word)
    })
}

fn truncate(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    line.chars().take(width.saturating_sub(1)).chain(['…'; 1].into_iter().take(width)).collect()
}

/// Fills a line up to a width.
fn place(line: &str, width: usize, align: Align) -> String {
    match align {
        Align::Left => format!("{line:<width$}"),
        Align::Center => format!("{line:^width$}"),
        Align::Right => format!("{line:>width$}"),
    }
}

/// A line of text in a rounded box.
pub(super) fn panel(text: &str, width: usize) -> String {
    let inner = width.saturating_sub(2);
    let rule = "─".repeat(inner);
    let text = place(text, inner.saturating_sub(2), Align::Left);
    format!("╭{rule}╮\n│ {text} │\n╰{rule}╯\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_break_between_words_and_end_in_an_ellipsis() {
        // rich 15.0: [line.plain for line in Text(text).wrap(console, width, overflow="ellipsis")]
        assert_eq!(wrap("a name of words", 7), ["a name", "of", "words"]);
        assert_eq!(wrap("abcdefghij", 4), ["abc…"]);
        assert_eq!(wrap("ab cdefghij kl", 4), ["ab", "cde…", "kl"]);
        assert_eq!(wrap("", 4), [""]);
    }

    #[test]
    fn halves_go_to_the_even_number() {
        let quotients = [(7, 2), (5, 2), (1, 2), (4, 3), (5, 3), (6, 3)];
        assert_eq!(quotients.map(|(a, b)| round_half_even(a, b)), [4, 2, 0, 1, 2, 2]);
    }

    proptest! {
        #[test]
        fn every_line_of_a_table_is_as_wide_as_every_other(
            cells in prop::collection::vec(prop::collection::vec("[a-z ]{0,30}", 4), 0..5),
            console in 30usize..120,
        ) {
            let mut table = Table::new("A title");
            for header in ["First", "Second one", "Third", "The fourth of them"] {
                table.column(header, Align::Right);
            }
            for row in cells {
                table.row(row);
            }
            let text = table.render(console);
            let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
            prop_assert!(widths.iter().all(|&width| width == widths[0] && width <= console), "{}", text);
        }
    }
}
