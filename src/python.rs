//! Python's ways of writing numbers and JSON, byte for byte.

use serde_json::Value;

/// `repr(x)` of a float, which is what `json.dumps` writes: the shortest digits that read back as `x`, with an
/// exponent below 1e-4 and from 1e16 on.
pub(crate) fn float(x: f64) -> String {
    if x.is_nan() {
        return "NaN".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let exponent_form = format!("{x:e}");
    let (digits, exponent) = split_exponent(&exponent_form);
    if (-4..16).contains(&exponent) {
        // The same shortest digits; Rust drops the `.0` that Python keeps.
        let plain = format!("{x}");
        if plain.contains('.') { plain } else { plain + ".0" }
    } else {
        with_exponent(digits, exponent)
    }
}

/// `format(x, "g")`: six significant digits, no trailing zeros, an exponent below 1e-4 and from 1e6 on.
pub(crate) fn general(x: f64) -> String {
    if x.is_nan() {
        return "nan".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    // The exponent after rounding decides, so 999999.5 becomes 1e+06.
    let rounded = format!("{x:.5e}");
    let (digits, exponent) = split_exponent(&rounded);
    let trim = |digits: &str| {
        if digits.contains('.') {
            digits.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            digits.to_owned()
        }
    };
    match exponent {
        -4..=5 => trim(&format!("{x:.*}", usize::try_from(5 - exponent).unwrap_or(0))),
        _ => with_exponent(&trim(digits), exponent),
    }
}

/// `format(x, ",")`: as [`float`], with a comma between thousands.
pub(crate) fn grouped(x: f64) -> String {
    let text = float(x);
    if text.contains('e') || !x.is_finite() {
        return text;
    }
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}.{fraction}")
}

fn split_exponent(exponent_form: &str) -> (&str, i32) {
    let (digits, exponent) = exponent_form.split_once('e').unwrap_or((exponent_form, "0"));
    (digits, exponent.parse().unwrap_or(0))
}

fn with_exponent(digits: &str, exponent: i32) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

/// A JSON value with Python's three kinds of numbers: integers, floats and `NaN`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    /// `true` or `false`.
    Bool(bool),
    /// A float.
    Float(f64),
    /// An integer.
    Int(i64),
    /// A list.
    List(Vec<Json>),
    /// `null`.
    Null,
    /// An object, its keys in order.
    Object(Vec<(String, Json)>),
    /// A string.
    Str(String),
}

impl Json {
    /// `null`, or what there is.
    pub(crate) fn or_null<T: Into<Json>>(value: Option<T>) -> Json {
        value.map_or(Json::Null, Into::into)
    }

    /// A list of one item each.
    pub(crate) fn list<T: Into<Json>>(items: impl IntoIterator<Item = T>) -> Json {
        Json::List(items.into_iter().map(Into::into).collect())
    }

    /// An object of these fields, in order.
    pub(crate) fn object(fields: impl IntoIterator<Item = (&'static str, Json)>) -> Json {
        Json::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// `json.dumps(value)`: one line, `", "` and `": "` between, everything beyond ASCII escaped.
    pub(crate) fn dumps(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, &Style { indent: None, ascii: true }, 0);
        out
    }

    /// `json.dumps(value, ensure_ascii=False)`: as [`dumps`](Self::dumps), but with every character as it is.
    pub(crate) fn dumps_unicode(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, &Style { indent: None, ascii: false }, 0);
        out
    }

    /// `json.dumps(value, indent=4, ensure_ascii=False)`.
    pub(crate) fn dumps_indented(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, &Style { indent: Some(4), ascii: false }, 0);
        out
    }

    fn write(&self, out: &mut String, style: &Style, depth: usize) {
        match self {
            Json::Bool(x) => out.push_str(if *x { "true" } else { "false" }),
            Json::Float(x) => out.push_str(&float(*x)),
            Json::Int(x) => out.push_str(&x.to_string()),
            Json::Null => out.push_str("null"),
            Json::Str(text) => style.string(out, text),
            Json::List(items) => style.sequence(out, ['[', ']'], items, depth, |out, item| {
                item.write(out, style, depth + 1);
            }),
            Json::Object(fields) => style.sequence(out, ['{', '}'], fields, depth, |out, (key, value)| {
                style.string(out, key);
                out.push_str(": ");
                value.write(out, style, depth + 1);
            }),
        }
    }
}

struct Style {
    indent: Option<usize>,
    ascii: bool,
}

impl Style {
    fn sequence<T>(
        &self,
        out: &mut String,
        [open, close]: [char; 2],
        items: &[T],
        depth: usize,
        mut write: impl FnMut(&mut String, &T),
    ) {
        out.push(open);
        for (i, item) in items.iter().enumerate() {
            match self.indent {
                Some(_) => out.push_str(if i > 0 { "," } else { "" }),
                None => out.push_str(if i > 0 { ", " } else { "" }),
            }
            self.line(out, depth + 1);
            write(out, item);
        }
        if !items.is_empty() {
            self.line(out, depth);
        }
        out.push(close);
    }

    fn line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn string(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && c > '~') => {
                    out.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

impl From<bool> for Json {
    fn from(x: bool) -> Self {
        Json::Bool(x)
    }
}

/// What `json.loads` makes of the same text. An integer beyond 63 bits becomes a float here.
impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Json::Null,
            Value::Bool(x) => Json::Bool(*x),
            Value::Number(x) => match x.as_i64() {
                Some(x) => Json::Int(x),
                None => Json::Float(x.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Json::Str(text.clone()),
            Value::Array(items) => Json::list(items),
            Value::Object(fields) => {
                Json::Object(fields.iter().map(|(key, value)| (key.clone(), value.into())).collect())
            }
        }
    }
}

impl From<f64> for Json {
    fn from(x: f64) -> Self {
        Json::Float(x)
    }
}

impl From<u32> for Json {
    fn from(x: u32) -> Self {
        Json::Int(i64::from(x))
    }
}

impl From<i64> for Json {
    fn from(x: i64) -> Self {
        Json::Int(x)
    }
}

impl From<u64> for Json {
    fn from(x: u64) -> Self {
        Json::Int(i64::try_from(x).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Json {
    fn from(x: usize) -> Self {
        Json::Int(i64::try_from(x).unwrap_or(i64::MAX))
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Json::Str(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Json::Str(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each line: the bits of a float, `repr(x)`, `format(x, "g")`, `format(x, ".2f")`, from `CPython` 3.11.
    const GOLDEN: &str = include_str!("../fixtures/results/python_floats.tsv");

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for line in GOLDEN.lines() {
            let columns: Vec<&str> = line.split('\t').collect();
            let x = f64::from_bits(u64::from_str_radix(columns[0], 16).unwrap());
            assert_eq!(float(x), columns[1], "repr of {x:e}");
            assert_eq!(general(x), columns[2], "g of {x:e}");
            assert_eq!(format!("{x:.2}"), columns[3], ".2f of {x:e}");
        }
        assert!(GOLDEN.lines().count() > 500);
    }

    #[test]
    fn thousands_are_grouped_as_python_groups_them() {
        // python3 -c "print([format(x, ',') for x in (0.0, 999.0, 1000.0, -1234567.25, 50000.0, 1e16, 1e-5)])"
        let xs = [0.0, 999.0, 1000.0, -1_234_567.25, 50_000.0, 1e16, 1e-5];
        let texts = ["0.0", "999.0", "1,000.0", "-1,234,567.25", "50,000.0", "1e+16", "1e-05"];
        assert_eq!(xs.map(grouped), texts);
    }

    #[test]
    fn json_is_pythons() {
        let value = Json::Object(vec![
            ("a".into(), Json::list([1u32, 2])),
            ("b\n".into(), Json::Str("é\u{1f600}\"\u{7f}\u{1}".into())),
            ("empty".into(), Json::List(Vec::new())),
            ("none".into(), Json::Object(Vec::new())),
            ("x".into(), Json::List(vec![Json::Float(1e-5), Json::Float(f64::NAN), Json::Null])),
        ]);
        let dumped = concat!(
            r#"{"a": [1, 2], "b\n": "\u00e9\ud83d\ude00\"\u007f\u0001", "#,
            r#""empty": [], "none": {}, "x": [1e-05, NaN, null]}"#
        );
        assert_eq!(value.dumps(), dumped);
        let indented = "{\n    \"a\": [\n        1,\n        2\n    ],\n    \"b\\n\": \"é\u{1f600}\\\"\u{7f}\\u0001\",\n    \
                        \"empty\": [],\n    \"none\": {},\n    \"x\": [\n        1e-05,\n        NaN,\n        null\n    ]\n}";
        assert_eq!(value.dumps_indented(), indented);
    }

    #[test]
    fn json_goes_through_as_python_reads_and_writes_it() {
        let text = r#"{"b": 1.50, "a": [true, null, -3, 1e2, {}], "é": ""}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        let json = Json::from(&value);
        assert_eq!(json.dumps(), r#"{"b": 1.5, "a": [true, null, -3, 100.0, {}], "\u00e9": ""}"#);
        assert_eq!(json.dumps_unicode(), r#"{"b": 1.5, "a": [true, null, -3, 100.0, {}], "é": ""}"#);
    }

    proptest! {
        #[test]
        fn a_float_reads_back(bits in any::<u64>()) {
            let x = f64::from_bits(bits);
            prop_assume!(x.is_finite());
            prop_assert_eq!(float(x).parse::<f64>().unwrap().to_bits(), bits);
        }
    }
}
