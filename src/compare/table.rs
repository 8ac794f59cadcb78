//! Comparisons and figures as text.

use super::explain::{Cause, Explanation};
use super::metric::{Metric, in_steps, shown};
use super::{Comparison, Row, Subject};

pub(super) fn table(comparison: &Comparison<'_>, explanation: Option<&Explanation>) -> String {
    let mut text = String::new();
    for (side, subject) in [("A", comparison.a), ("B", comparison.b)] {
        text += &format!("{side}  {}: {}\n", subject.name, described(subject));
    }
    text += "\n";
    text += &line(["metric", "", "A", "B", "B - A", "%", "within"].map(str::to_owned));
    for row in &comparison.rows {
        text += &figures_line(row);
    }
    text += "\n";
    text += &match comparison.beyond().as_slice() {
        [] => "all within tolerance\n".to_owned(),
        beyond => {
            let names: Vec<String> = beyond.iter().map(|metric| metric.label()).collect();
            format!("beyond tolerance: {}\n", names.join(", "))
        }
    };
    for note in &comparison.notes {
        text += &format!("note: {note}\n");
    }
    if let Some(explanation) = explanation {
        text += &explained(explanation);
    }
    text
}

/// A subject's own figures.
pub(super) fn figures(subject: &Subject) -> String {
    let mut text = format!("{}: {}\n\n", subject.name, described(subject));
    for metric in Metric::all() {
        if let Some(value) = subject.own.get(metric) {
            let value = shown(in_steps(value, metric), metric, false);
            text += format!("{:<20}{value:>14} {}", metric.label(), metric.unit()).trim_end();
            text += "\n";
        }
    }
    for note in &subject.notes {
        text += &format!("note: {note}\n");
    }
    text
}

fn described(subject: &Subject) -> String {
    let seen = if subject.is_run() { "seen as" } else { "defined as" };
    format!("{}, {seen} {}; {}", subject.tool, subject.dialect, subject.traffic.words())
}

fn figures_line(row: &Row) -> String {
    let metric = row.metric;
    let value = |value: Option<f64>, signed| {
        value.map_or("-".to_owned(), |value| shown(in_steps(value, metric), metric, signed))
    };
    let relative = match (row.difference, row.relative) {
        (None, _) => "-".to_owned(),
        (Some(_), None) => "new".to_owned(),
        (Some(_), Some(relative)) => format!("{:+.2}", relative * 100.0 + 0.0),
    };
    let within = match (row.within, row.tolerance) {
        (Some(true), Some(most)) => format!("yes ({}%)", percent(most)),
        (Some(false), Some(most)) => format!("NO ({}%)", percent(most)),
        _ => "-".to_owned(),
    };
    line([
        metric.label(),
        row.unit.to_owned(),
        value(row.a, false),
        value(row.b, false),
        value(row.difference, true),
        relative,
        within,
    ])
}

/// A fraction as per cent, without the last digits' noise.
fn percent(fraction: f64) -> f64 {
    (fraction * 1e6).round() / 1e4
}

fn line([label, unit, a, b, difference, relative, within]: [String; 7]) -> String {
    format!("{label:<18}  {unit:<6}{a:>13}{b:>13}{difference:>13}{relative:>9}  {within}\n")
}

fn explained(explanation: &Explanation) -> String {
    let mut text = "\nWhy: each difference is the sum of its parts\n\n".to_owned();
    let columns = Cause::ALL.map(|cause| format!("{:>13}", cause.name())).concat();
    text += &format!("{:<18}  {:<6}{:>13}{columns}\n", "metric", "", "B - A");
    for difference in &explanation.differences {
        let metric = difference.metric;
        let cell = |steps: Option<i64>| {
            format!("{:>13}", steps.map_or("?".to_owned(), |steps| shown(steps, metric, true)))
        };
        let parts = difference.parts.map(cell).concat();
        text +=
            &format!("{:<18}  {:<6}{}{parts}\n", metric.label(), metric.unit(), cell(Some(difference.whole)));
    }
    text += "\n";
    for (cause, note) in Cause::ALL.iter().zip(&explanation.notes) {
        text += &format!("{:<12}{note}\n", cause.name());
    }
    let [a, b] = explanation.dialects();
    for (question, [answer_a, answer_b]) in explanation.definitions() {
        text += &format!("defined differently: {}\n  {a}: {answer_a}\n  {b}: {answer_b}\n", question.text());
    }
    text += "\n";
    for difference in explanation.differences.iter().filter(|difference| difference.whole != 0) {
        text += &explanation.sentence(difference);
        text += "\n";
    }
    text
}
