//! What Python shows of a value, and where Python's JSON reader gives up: both stand in vLLM's refusals.

use serde_json::Value;

/// `repr(value)`.
pub(crate) fn repr(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) if number.is_f64() => number.as_f64().map_or_else(String::new, float),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(repr).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| format!("{}: {}", quoted(key), repr(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
    }
}

/// `repr` of a float: Rust's shortest digits, with Python's exponent.
pub(crate) fn float(value: f64) -> String {
    let text = format!("{value:?}");
    match text.split_once('e') {
        None => text,
        Some((digits, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent:0>2}"),
            None => format!("{digits}e+{exponent:0>2}"),
        },
    }
}

/// `repr` of a string: in single quotes, unless it holds one and no double quote.
pub(crate) fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for char in text.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            char if char == quote => out.extend(['\\', char]),
            char if char < ' ' || char == '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(char))),
            char => out.push(char),
        }
    }
    out.push(quote);
    out
}

/// Where and why Python's `json.loads` gives up on `text`: the position counts characters. `None` where it does not.
pub(crate) fn json_fault(text: &str) -> Option<(usize, &'static str)> {
    let chars: Vec<char> = text.chars().collect();
    let mut reader = Reader { chars: &chars, at: 0 };
    reader.space();
    let read = reader.value(0).and_then(|()| {
        reader.space();
        if reader.at == chars.len() { Ok(()) } else { Err((reader.at, "Extra data")) }
    });
    read.err()
}

/// Python's own limit is its stack; this one is below it.
const MAX_DEPTH: usize = 512;

type Read = Result<(), (usize, &'static str)>;

struct Reader<'a> {
    chars: &'a [char],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\n' | '\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Read {
        let start = self.at;
        match self.peek() {
            Some('"') => self.string(),
            Some('{') if depth < MAX_DEPTH => self.object(depth),
            Some('[') if depth < MAX_DEPTH => self.array(depth),
            Some('-' | '0'..='9') => self.number(),
            _ => {
                for word in ["null", "true", "false", "NaN", "Infinity"] {
                    if self.chars[start..].iter().copied().take(word.len()).eq(word.chars()) {
                        self.at += word.len();
                        return Ok(());
                    }
                }
                Err((start, "Expecting value"))
            }
        }
    }

    fn number(&mut self) -> Read {
        let start = self.at;
        if self.peek() == Some('-') {
            self.at += 1;
        }
        let digits = |reader: &mut Self| {
            let from = reader.at;
            while reader.peek().is_some_and(|char| char.is_ascii_digit()) {
                reader.at += 1;
            }
            reader.at > from
        };
        if self.peek() == Some('0') {
            self.at += 1;
        } else if !digits(self) {
            self.at = start;
            return Err((start, "Expecting value"));
        }
        let whole = self.at;
        if self.peek() == Some('.') {
            self.at += 1;
            if !digits(self) {
                self.at = whole;
            }
        }
        let mantissa = self.at;
        if matches!(self.peek(), Some('e' | 'E')) {
            self.at += 1;
            if matches!(self.peek(), Some('+' | '-')) {
                self.at += 1;
            }
            if !digits(self) {
                self.at = mantissa;
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Read {
        let start = self.at;
        self.at += 1;
        loop {
            let at = self.at;
            self.at += 1;
            match self.chars.get(at) {
                None => return Err((start, "Unterminated string starting at")),
                Some('"') => return Ok(()),
                Some('\\') => {
                    let escape = self.peek();
                    self.at += 1;
                    match escape {
                        None => return Err((start, "Unterminated string starting at")),
                        Some('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => {}
                        Some('u') => {
                            let digits = self.chars.get(self.at..self.at + 4);
                            if !digits.is_some_and(|digits| digits.iter().all(char::is_ascii_hexdigit)) {
                                return Err((at + 1, "Invalid \\uXXXX escape"));
                            }
                            self.at += 4;
                        }
                        Some(_) => return Err((at, "Invalid \\escape")),
                    }
                }
                Some(&char) if char < ' ' => return Err((at, "Invalid control character at")),
                Some(_) => {}
            }
        }
    }

    fn object(&mut self, depth: usize) -> Read {
        const NAME: &str = "Expecting property name enclosed in double quotes";
        self.at += 1;
        self.space();
        if self.peek() == Some('}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.peek() != Some('"') {
                return Err((self.at, NAME));
            }
            self.string()?;
            self.space();
            if self.peek() != Some(':') {
                return Err((self.at, "Expecting ':' delimiter"));
            }
            self.at += 1;
            self.space();
            self.value(depth + 1)?;
            self.space();
            match self.peek() {
                Some('}') => break,
                Some(',') => self.at += 1,
                _ => return Err((self.at, "Expecting ',' delimiter")),
            }
            self.space();
        }
        self.at += 1;
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Read {
        self.at += 1;
        self.space();
        if self.peek() == Some(']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            self.space();
            match self.peek() {
                Some(']') => break,
                Some(',') => self.at += 1,
                _ => return Err((self.at, "Expecting ',' delimiter")),
            }
            self.space();
        }
        self.at += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_as_python_shows_them() {
        let value = json!({"a": [1, -1.5, true, null], "it's": "x\n\"", "b": "it's"});
        assert_eq!(repr(&value), r#"{'a': [1, -1.5, True, None], "it's": 'x\n"', 'b': "it's"}"#);
        let floats = [(-1.0, "-1.0"), (1e22, "1e+22"), (1e-7, "1e-07")];
        for (value, shown) in floats {
            assert_eq!(float(value), shown);
        }
    }

    /// What Python 3.11 says of the same texts.
    #[test]
    fn faults_are_pythons() {
        for (text, fault) in [
            ("{nope", (1, "Expecting property name enclosed in double quotes")),
            (r#"{"model":"#, (9, "Expecting value")),
            (r#"{"a" 1}"#, (5, "Expecting ':' delimiter")),
            (r#"{"a": 1 "b": 2}"#, (8, "Expecting ',' delimiter")),
            (r#"{"a": "x"#, (6, "Unterminated string starting at")),
            ("{\"a\": \"\n\"}", (7, "Invalid control character at")),
            (r#"{"a": "\q"}"#, (7, "Invalid \\escape")),
            ("[1 2]", (3, "Expecting ',' delimiter")),
            ("{} x", (3, "Extra data")),
            ("", (0, "Expecting value")),
            ("01", (1, "Extra data")),
        ] {
            assert_eq!(json_fault(text), Some(fault), "{text}");
        }
        assert_eq!(json_fault(r#" {"a":[1.5e3,-0,"\u00e9"],"b":{}} "#), None);
    }
}
