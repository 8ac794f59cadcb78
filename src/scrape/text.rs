//! Prometheus' text form (exposition format 0.0.4): the lines with a value. Comments and whatever is not such a line
//! are passed over, so that no server's answer is an error.

use std::borrow::Cow;

/// One line: a name, labels, a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'a> {
    /// The metric's name, of a histogram with its suffix.
    pub name: &'a str,
    /// The value. Not always finite.
    pub value: f64,
    /// What stands between the braces.
    labels: &'a str,
}

/// The samples of a text, in its order.
pub fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines().filter_map(Sample::parse)
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let line = line.trim();
        if line.starts_with('#') {
            return None;
        }
        let (name, rest) = line.split_at(line.find(['{', ' ', '\t'])?);
        let rest = rest.trim_start();
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_at(unquoted(rest, b'}')?),
            None => ("", rest),
        };
        // A time may follow the value.
        let value = rest.trim_start_matches('}').split_whitespace().next()?.parse().ok()?;
        Some(Self { name, value, labels })
    }

    /// A label's value.
    #[must_use]
    pub fn label(&self, wanted: &str) -> Option<Cow<'a, str>> {
        let mut rest = self.labels;
        loop {
            let (name, value) = rest.split_once('=')?;
            let value = value.trim_start().strip_prefix('"')?;
            let end = closing_quote(value)?;
            if name.trim_matches([',', ' ', '\t']) == wanted {
                return Some(unescaped(&value[..end]));
            }
            rest = &value[end + 1..];
        }
    }
}

/// Where the quoted value ends that begins here.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// Where a byte stands first outside of quotes.
fn unquoted(text: &str, wanted: u8) -> Option<usize> {
    let mut at = 0;
    loop {
        let next = text[at..].bytes().position(|byte| byte == wanted || byte == b'"')? + at;
        if text.as_bytes()[next] == wanted {
            return Some(next);
        }
        at = next + 1 + closing_quote(&text[next + 1..])? + 1;
    }
}

fn unescaped(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(char) = chars.next() {
        plain.extend(match char {
            '\\' => chars.next().map(|escaped| if escaped == 'n' { '\n' } else { escaped }),
            _ => Some(char),
        });
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_forms_of_a_line() {
        let text = "\
# HELP a Of a.
# TYPE a counter
a 1
 a\t2.5e3
a{} 3
a{x=\"1\"} 4 1700000000000
a {x=\"1\", y=\"}{ \\\"=,\\\\\",} +Inf
a{x=\"1\" 6
a{x=\"1} 7
a
a b

<html>";
        let found: Vec<f64> = samples(text).map(|sample| sample.value).collect();
        assert_eq!(found, [1.0, 2500.0, 3.0, 4.0, f64::INFINITY]);
        assert!(samples(text).all(|sample| sample.name == "a"));
        let last = samples(text).last().unwrap();
        assert_eq!(last.label("x").as_deref(), Some("1"));
        assert_eq!(last.label("y").as_deref(), Some("}{ \"=,\\"));
        assert_eq!((last.label("z"), last.label("")), (None, None));
    }

    proptest! {
        #[test]
        fn labels_come_back(values in prop::collection::vec("\\PC{0,8}", 0..4), value in -1e12..1e12) {
            let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let labels: Vec<String> =
                values.iter().enumerate().map(|(i, value)| format!("l{i}=\"{}\"", escaped(value))).collect();
            let line = format!("name{{{}}} {value}", labels.join(","));
            let sample = samples(&line).next().unwrap();
            prop_assert_eq!((sample.name, sample.value), ("name", value));
            for (i, value) in values.iter().enumerate() {
                let label = sample.label(&format!("l{i}"));
                prop_assert_eq!(label.as_deref(), Some(value.as_str()));
            }
        }

        #[test]
        fn nothing_panics(text in "[a{}=\"\\\\,# 1.é\n]{0,40}") {
            for sample in samples(&text) {
                drop(sample.label("a"));
            }
        }
    }
}
