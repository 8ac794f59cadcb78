//! JSON as the servers write it: compact, UTF-8 as it is, control characters escaped.

use std::fmt::Write;

/// `text` as a JSON string, quotes included.
pub(crate) fn json_string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    push_string(&mut quoted, text);
    quoted
}

/// Adds `text` as a JSON string, quotes included.
pub(crate) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    push_escaped(out, text);
    out.push('"');
}

/// Adds `text` as the inside of a JSON string: as it is, which nearly every token is, or as serde escapes it.
pub(crate) fn push_escaped(out: &mut String, text: &str) {
    let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        out.push_str(text);
        return;
    }
    let quoted = serde_json::Value::from(text).to_string();
    out.push_str(&quoted[1..quoted.len() - 1]);
}

/// Adds a list of numbers.
pub(crate) fn push_ids(out: &mut String, ids: impl Iterator<Item = u32>) {
    out.push('[');
    for (index, id) in ids.enumerate() {
        let separator = if index > 0 { "," } else { "" };
        write!(out, "{separator}{id}").unwrap_or_default();
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn strings_are_those_of_serde(text: String) {
            prop_assert_eq!(json_string(&text), serde_json::Value::from(text.as_str()).to_string());
        }
    }

    #[test]
    fn ids() {
        let mut out = String::new();
        push_ids(&mut out, [1, 22].into_iter());
        push_ids(&mut out, [].into_iter());
        assert_eq!(out, "[1,22][]");
        assert_eq!(json_string("\u{1}\u{8}\u{c}\u{7f}é\""), "\"\\u0001\\b\\f\u{7f}é\\\"\"");
    }
}
