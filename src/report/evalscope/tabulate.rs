//! Three layouts of tabulate 0.10, as `evalscope perf` uses it. Tables are without a final line end.

/// tabulate keeps a column at least this much wider than its header, except in `pretty`.
const HEADER_PADDING: usize = 2;

/// `grid`, of keys and numbers whose decimal points stand below each other.
pub(super) fn grid(headers: [&str; 2], lines: &[(&str, String)]) -> String {
    let values = align_decimals(lines.iter().map(|(_, value)| value.clone()));
    let key_width = width(lines.iter().map(|(key, _)| *key)).max(width([headers[0]]) + HEADER_PADDING);
    let value_width = width(values.iter().map(String::as_str)).max(width([headers[1]]) + HEADER_PADDING);
    let rule = |line: &str| {
        let fill = |width: usize| line.repeat(width + 2);
        format!("+{}+{}+", fill(key_width), fill(value_width))
    };
    let row = |key: &str, value: &str| format!("| {key:<key_width$} | {value:>value_width$} |");

    let mut table = vec![rule("-"), row(headers[0], headers[1]), rule("=")];
    for ((key, _), value) in lines.iter().zip(&values) {
        table.push(row(key, value));
        table.push(rule("-"));
    }
    table.join("\n")
}

/// Pads numbers on the right so that their decimal points stand below each other.
fn align_decimals(numbers: impl Iterator<Item = String>) -> Vec<String> {
    let numbers: Vec<String> = numbers.collect();
    // What follows the point; without one, what follows the `e`; an integer has one place less than none.
    let places = |number: &str| match number.rfind('.').or_else(|| number.rfind('e')) {
        Some(point) => number.len() - point,
        None => 0,
    };
    let most = numbers.iter().map(|number| places(number)).max().unwrap_or(0);
    numbers.into_iter().map(|number| format!("{number}{}", " ".repeat(most - places(&number)))).collect()
}

/// `pretty`: each cell centred.
pub(super) fn pretty<const N: usize>(headers: [String; N], rows: &[[String; N]]) -> String {
    let lines = || std::iter::once(&headers).chain(rows);
    let widths: [usize; N] = std::array::from_fn(|column| width(lines().map(|row| row[column].as_str())));
    let rule = format!("+{}+", widths.map(|width| "-".repeat(width + 2)).join("+"));
    let line = |row: &[String; N]| {
        let cells: [String; N] = std::array::from_fn(|i| format!(" {:^1$} ", row[i], widths[i]));
        format!("|{}|", cells.join("|"))
    };
    let mut table = vec![rule.clone(), line(&headers), rule.clone()];
    table.extend(rows.iter().map(line));
    table.push(rule);
    table.join("\n")
}

/// `simple_outline`: the first column on the left, the others on the right.
pub(super) fn simple_outline(headers: &[&str], rows: &[Vec<String>]) -> String {
    let column = |i: usize| rows.iter().map(move |row| row[i].as_str());
    let widths: Vec<usize> = headers
        .iter()
        .enumerate()
        .map(|(i, header)| width(column(i)).max(width([*header]) + HEADER_PADDING))
        .collect();
    let rule = |[left, between, right]: [&str; 3]| {
        let fills: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}", fills.join(between))
    };
    let line = |cells: &[&str]| {
        let mut line = format!("│ {:<1$} │", cells[0], widths[0]);
        for (cell, width) in cells.iter().zip(&widths).skip(1) {
            line.push_str(&format!(" {cell:>width$} │"));
        }
        line
    };
    let mut table = vec![rule(["┌", "┬", "┐"]), line(headers), rule(["├", "┼", "┤"])];
    table.extend(rows.iter().map(|row| line(&row.iter().map(String::as_str).collect::<Vec<_>>())));
    table.push(rule(["└", "┴", "┘"]));
    table.join("\n")
}

fn width<'a>(cells: impl IntoIterator<Item = &'a str>) -> usize {
    cells.into_iter().map(|cell| cell.chars().count()).max().unwrap_or(0)
}
