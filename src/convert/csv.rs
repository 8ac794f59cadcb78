//! Tables of comma-separated values whose first line names the columns. A field may stand in quotes (RFC 4180), but not
//! go over a line's end: the traces here hold numbers and names.

use std::borrow::Cow;

use super::import::{Error, Input};
use super::moment::Decimal;
use super::rows::{Row, Rows};

/// Reads a table.
pub(super) struct Table {
    rows: Rows,
    columns: Vec<String>,
}

impl Table {
    /// Reads the columns' names, all of `needed` among them.
    pub(super) fn open(input: &Input, needed: &[&str]) -> Result<Self, Error> {
        let mut rows = Rows::lines(input)?;
        let Some(row) = rows.next()? else { return Ok(Self { rows, columns: Vec::new() }) };
        let columns: Vec<String> =
            fields(row.text()?).into_iter().map(|name| name.trim().to_owned()).collect();
        if let Some(missing) = needed.iter().find(|needed| !columns.iter().any(|column| column == *needed)) {
            return Err(row.error(format!(
                "no column {missing:?}: expected {}, and the file has {}; is this another format?",
                needed.join(","),
                columns.join(",")
            )));
        }
        Ok(Self { rows, columns })
    }

    /// The place of a column, where the table has it.
    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }

    /// The next record; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, Error> {
        let Self { rows, columns } = self;
        let Some(row) = rows.next()? else { return Ok(None) };
        let fields = {
            // The text lives as long as the row's bytes.
            let text =
                str::from_utf8(row.bytes).map_err(|_| row.error("not UTF-8: save the file as UTF-8"))?;
            fields(text)
        };
        if fields.len() != columns.len() {
            return Err(row.error(format!(
                "{} fields, where the first line names {}: the line is cut short or damaged",
                fields.len(),
                columns.len()
            )));
        }
        Ok(Some(Record { row, columns, fields }))
    }
}

/// One line of a table.
pub(super) struct Record<'a> {
    pub(super) row: Row<'a>,
    columns: &'a [String],
    fields: Vec<Cow<'a, str>>,
}

impl Record<'_> {
    /// A field, by its column's place.
    pub(super) fn field(&self, column: Option<usize>) -> &str {
        column.and_then(|column| self.fields.get(column)).map_or("", |field| field.trim())
    }

    /// A number of tokens.
    pub(super) fn tokens(&self, column: Option<usize>) -> Result<u32, Error> {
        self.field(column).parse().map_err(|_| {
            let name = column.and_then(|column| self.columns.get(column)).map_or("", String::as_str);
            self.row.error(format!(
                "{name} is {:?}, not a whole number of tokens: correct the line",
                self.field(column)
            ))
        })
    }

    /// A time in seconds, as nanoseconds.
    pub(super) fn offset_ns(&self, column: Option<usize>) -> Result<u64, Error> {
        self.row.offset_ns(self.field(column), Decimal::ONE)
    }
}

fn fields(line: &str) -> Vec<Cow<'_, str>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => match rest.split_once(',') {
                Some((field, after)) => (Cow::Borrowed(field), Some(after)),
                None => (Cow::Borrowed(rest), None),
            },
        };
        fields.push(field);
        let Some(after) = after else { return fields };
        rest = after;
    }
}

/// A field after its opening quote, and what follows the comma behind it. Two quotes stand for one.
fn unquote(text: &str) -> (Cow<'_, str>, Option<&str>) {
    let mut at = 0;
    while let Some(found) = text[at..].find('"') {
        let quote = at + found;
        let after = &text[quote + 1..];
        if after.starts_with('"') {
            at = quote + 2;
            continue;
        }
        let after = after.find(',').map(|comma| &after[comma + 1..]);
        return (Cow::Owned(text[..quote].replace("\"\"", "\"")), after);
    }
    (Cow::Borrowed(text), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_commas_and_quotes() {
        assert_eq!(fields(r#"a,"b,""c""",,d"#), ["a", "b,\"c\"", "", "d"]);
        assert_eq!(fields(""), [""]);
        assert_eq!(fields(r#""open,"#), ["open,"]);
    }
}
