//! What a foreign file is read from, and its rows: lines, or the elements of one JSON array. One row is in memory at a
//! time, and every row knows its place for an error.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;

use super::import::Error;
use super::moment::Decimal;

/// The largest row, in bytes: no tape can hold a larger request.
const MAX_ROW: usize = 256 << 20;

/// The first bytes of a Zstandard frame and of a gzip member.
const ZSTD: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
const GZIP: [u8; 2] = [0x1F, 0x8B];

/// What is imported. It is read more than once.
#[derive(Clone, Debug)]
pub enum Input {
    /// A file, which may be compressed with Zstandard.
    File(PathBuf),
    /// The same as bytes.
    Bytes {
        /// What errors call it.
        name: String,
        /// All of it.
        bytes: Arc<[u8]>,
    },
}

impl Input {
    /// What errors call it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Bytes { name, .. } => name.clone(),
        }
    }

    /// Its contents from the beginning, uncompressed, without a byte order mark.
    pub(super) fn open(&self) -> Result<Box<dyn BufRead + Send>, Error> {
        let failed = |source| self.failed(source);
        let mut raw: Box<dyn BufRead + Send> = match self {
            Self::File(path) => Box::new(BufReader::new(File::open(path).map_err(failed)?)),
            Self::Bytes { bytes, .. } => Box::new(io::Cursor::new(Arc::clone(bytes))),
        };
        let start = raw.fill_buf().map_err(failed)?;
        if start.starts_with(&GZIP) {
            return Err(Error::Gzip { name: self.name() });
        }
        let mut plain = if start.starts_with(&ZSTD) {
            let decoder = zstd::Decoder::with_buffer(raw).map_err(failed)?;
            Box::new(BufReader::new(decoder))
        } else {
            raw
        };
        if plain.fill_buf().map_err(failed)?.starts_with("\u{feff}".as_bytes()) {
            plain.consume('\u{feff}'.len_utf8());
        }
        Ok(plain)
    }

    /// BLAKE3 of its uncompressed contents, in hex.
    pub(super) fn digest(&self) -> Result<String, Error> {
        let mut contents = self.open()?;
        let mut hasher = blake3::Hasher::new();
        io::copy(&mut contents, &mut hasher).map_err(|source| self.failed(source))?;
        Ok(hasher.finalize().to_hex().to_string())
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::File { name: self.name(), source }
    }
}

/// A line, or an element of an array.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    /// What errors call the file.
    pub(super) name: &'a str,
    /// The line on which it begins, from 1.
    pub(super) line: u64,
    /// Its bytes, without blanks around them.
    pub(super) bytes: &'a [u8],
}

impl Row<'_> {
    /// What is wrong with it, and what to do.
    pub(super) fn error(&self, reason: impl Into<String>) -> Error {
        Error::Line { name: self.name.to_owned(), line: self.line, reason: reason.into() }
    }

    /// It as JSON; `expected` is what it should be, for the error.
    pub(super) fn json<'de, T: serde::Deserialize<'de>>(&'de self, expected: &str) -> Result<T, Error> {
        serde_json::from_slice(self.bytes).map_err(|error| {
            let reason = error.to_string().replace(" at line 1 column ", " at byte ");
            self.error(format!("{reason}; expected {expected}: is this another format?"))
        })
    }

    /// A time that stands in it, in units of so many seconds, as nanoseconds.
    pub(super) fn offset_ns(&self, text: &str, unit: Decimal) -> Result<u64, Error> {
        Decimal::parse(text).and_then(|time| time.nanoseconds(unit)).ok_or_else(|| {
            self.error(format!("the timestamp {text:?} is no time from 0 to 500 years: correct the line"))
        })
    }

    /// It as text.
    pub(super) fn text(&self) -> Result<&str, Error> {
        str::from_utf8(self.bytes).map_err(|_| self.error("not UTF-8: save the file as UTF-8"))
    }
}

/// Reads a file's rows.
pub(super) struct Rows {
    name: String,
    contents: Box<dyn BufRead + Send>,
    is_array: bool,
    /// Lines read to their ends so far.
    lines: u64,
    row: Vec<u8>,
}

impl Rows {
    /// The lines.
    pub(super) fn lines(input: &Input) -> Result<Self, Error> {
        Ok(Self { name: input.name(), contents: input.open()?, is_array: false, lines: 0, row: Vec::new() })
    }

    /// JSON values: the elements of one array where the file begins as an array, else one a line.
    pub(super) fn json(input: &Input) -> Result<Self, Error> {
        let mut rows = Self::lines(input)?;
        rows.is_array = rows.skip(u8::is_ascii_whitespace)? == Some(b'[');
        if rows.is_array {
            rows.contents.consume(1);
        }
        Ok(rows)
    }

    /// Whether it is JSON as far as its first character tells.
    pub(super) fn begins_as_json(&mut self) -> Result<bool, Error> {
        Ok(self.is_array || matches!(self.skip(u8::is_ascii_whitespace)?, None | Some(b'{')))
    }

    /// The next row that holds something; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Row<'_>>, Error> {
        let line = if self.is_array { self.element()? } else { self.line()? };
        let row = |line| Row { name: &self.name, line, bytes: self.row.trim_ascii() };
        Ok(line.map(row))
    }

    fn line(&mut self) -> Result<Option<u64>, Error> {
        loop {
            self.row.clear();
            let mut limited = self.contents.by_ref().take(MAX_ROW as u64 + 1);
            let read = limited.read_until(b'\n', &mut self.row);
            if read.map_err(|source| self.failed(source))? == 0 {
                return Ok(None);
            }
            self.lines += 1;
            if self.row.len() > MAX_ROW {
                return Err(self.too_large(self.lines));
            }
            if !self.row.trim_ascii().is_empty() {
                return Ok(Some(self.lines));
            }
        }
    }

    /// Cuts out an element: up to a comma or the bracket that is in no string and in no other bracket.
    fn element(&mut self) -> Result<Option<u64>, Error> {
        self.row.clear();
        let cut_short = "the file ends within its array: it is cut short, take a whole copy";
        match self.skip(|byte| byte.is_ascii_whitespace() || *byte == b',')? {
            None => return Err(self.error(self.lines + 1, cut_short)),
            Some(b']') => return Ok(None),
            Some(_) => {}
        }
        let line = self.lines + 1;
        let (mut depth, mut in_string, mut escaped) = (0_u32, false, false);
        loop {
            let chunk = match self.contents.fill_buf() {
                Ok(chunk) => chunk,
                Err(source) => return Err(self.failed(source)),
            };
            if chunk.is_empty() {
                return Err(self.error(line, cut_short));
            }
            let end = chunk.iter().position(|&byte| {
                if in_string {
                    in_string = escaped || byte != b'"';
                    escaped = !escaped && byte == b'\\';
                    return false;
                }
                match byte {
                    b'"' => in_string = true,
                    b'[' | b'{' => depth += 1,
                    b']' | b'}' if depth > 0 => depth -= 1,
                    b',' | b']' | b'}' => return depth == 0,
                    _ => {}
                }
                false
            });
            let part = &chunk[..end.unwrap_or(chunk.len())];
            self.lines += memchr::memchr_iter(b'\n', part).count() as u64;
            self.row.extend_from_slice(part);
            let length = part.len();
            self.contents.consume(length);
            if self.row.len() > MAX_ROW {
                return Err(self.too_large(line));
            }
            if end.is_some() {
                return Ok(Some(line));
            }
        }
    }

    /// Passes over some bytes, and gives the first of the others without taking it.
    fn skip(&mut self, passed: impl Fn(&u8) -> bool) -> Result<Option<u8>, Error> {
        loop {
            let chunk = match self.contents.fill_buf() {
                Ok(chunk) => chunk,
                Err(source) => return Err(self.failed(source)),
            };
            let length = chunk.iter().take_while(|byte| passed(byte)).count();
            let next = chunk.get(length).copied();
            let is_end = chunk.is_empty();
            self.lines += memchr::memchr_iter(b'\n', &chunk[..length]).count() as u64;
            self.contents.consume(length);
            if next.is_some() || is_end {
                return Ok(next);
            }
        }
    }

    fn too_large(&self, line: u64) -> Error {
        self.error(line, format!("longer than {} MiB: no request is; is this another format?", MAX_ROW >> 20))
    }

    fn error(&self, line: u64, reason: impl Into<String>) -> Error {
        Error::Line { name: self.name.clone(), line, reason: reason.into() }
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::File { name: self.name.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(bytes: &[u8]) -> Input {
        Input::Bytes { name: "in".to_owned(), bytes: bytes.into() }
    }

    fn all(mut rows: Rows) -> Result<Vec<(u64, String)>, Error> {
        let mut seen = Vec::new();
        while let Some(row) = rows.next()? {
            seen.push((row.line, row.text()?.to_owned()));
        }
        Ok(seen)
    }

    #[test]
    fn lines_have_their_numbers_and_no_blanks() {
        let seen = all(Rows::lines(&input(b"\xEF\xBB\xBFone\r\n\n  two \nthree")).unwrap()).unwrap();
        assert_eq!(seen, [(1, "one".to_owned()), (3, "two".to_owned()), (4, "three".to_owned())]);
    }

    #[test]
    fn an_arrays_elements_are_its_rows() {
        let text = "\n [ {\"a\": \"],\\\"}\"},\n\n [1, [2]] , 3\n]\n";
        let seen = all(Rows::json(&input(text.as_bytes())).unwrap()).unwrap();
        let expected = [(2, r#"{"a": "],\"}"}"#), (4, "[1, [2]]"), (4, "3")];
        assert_eq!(seen, expected.map(|(line, text)| (line, text.to_owned())));
        assert_eq!(all(Rows::json(&input(b"[]")).unwrap()).unwrap(), []);
        assert_eq!(all(Rows::json(&input(b"{}\n{}")).unwrap()).unwrap().len(), 2);
    }

    #[test]
    fn an_array_that_is_cut_short_is_an_error_with_its_line() {
        for text in ["[1,\n{\"a\": [", "[1,\n\"", "[1,\n"] {
            let error = all(Rows::json(&input(text.as_bytes())).unwrap()).unwrap_err().to_string();
            assert!(error.starts_with("in, line 2: the file ends within its array"), "{text}: {error}");
        }
    }

    #[test]
    fn a_compressed_file_is_read_as_its_contents() {
        let packed = zstd::encode_all(&b"one\ntwo"[..], 3).unwrap();
        assert_eq!(all(Rows::lines(&input(&packed)).unwrap()).unwrap().len(), 2);
        assert_eq!(input(&packed).digest().unwrap(), input(b"one\ntwo").digest().unwrap());
        assert!(matches!(input(b"\x1F\x8B\x08").open(), Err(Error::Gzip { .. })));
    }
}
