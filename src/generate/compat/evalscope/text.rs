//! The data sets that read prompts from a file (`evalscope/perf/plugin/datasets`), line by line, as far as prompts are
//! needed.
//!
//! A prompt's length is its tokens within the chat template (in 1.1.1 without it), those of its text where no template
//! is applied, and its characters without a tokenizer; prompts outside the limits are passed over.
//!
//! JSON is what the standard says. Python also takes `NaN` and `Infinity` for it, and half a surrogate pair.

use serde_json::{Map, Value, json};
use tokentape_tokenizer::Tokenizer;

use super::super::Data;
use super::{Dataset, Message, Params};
use crate::generate::Error;
use crate::metrics::evalscope::Version;

/// The prompts of the file, as many as there are requests or as the file has.
pub(super) fn messages(
    params: &Params,
    dataset: &Dataset,
    tokenizer: &Tokenizer,
    data: Data<'_>,
) -> Result<Vec<Message>, Error> {
    let reader = Reader { params, tokenizer };
    let mut messages = Vec::new();
    for (number, line) in lines(data)? {
        if messages.len() >= params.total() {
            break;
        }
        let message = match dataset {
            Dataset::LineByLine if params.version == Version::V1_14_1 => reader.text_or_json(line),
            Dataset::Openqa => reader.question(line),
            Dataset::ShareGpt => reader.conversation(line),
            _ => reader.prompt(strip(line)),
        };
        messages.extend(message.map_err(|error| match error {
            Refused::Line(reason) => data.error(Some(number), reason),
            Refused::Tokenizer(error) => error,
        })?);
    }
    if messages.is_empty() {
        return Err(data.error(
            None,
            "it has no prompt between --min-prompt-length and --max-prompt-length: evalscope calls it empty",
        ));
    }
    Ok(messages)
}

/// Why a line gives no prompt.
enum Refused {
    Line(String),
    Tokenizer(Error),
}

impl From<tokentape_tokenizer::Error> for Refused {
    fn from(error: tokentape_tokenizer::Error) -> Self {
        Refused::Tokenizer(error.into())
    }
}

struct Reader<'a> {
    params: &'a Params,
    tokenizer: &'a Tokenizer,
}

impl Reader<'_> {
    /// `custom`, and each line of text: empty ones are prompts, too, where the limits let them through.
    fn prompt(&self, prompt: &str) -> Result<Option<Message>, Refused> {
        Ok(self.fits(prompt)?.then(|| Message::of(self.params, prompt.to_owned())))
    }

    /// `line_by_line` of 1.14.1: blank lines are passed over; what is JSON is sent as it is, with no look at its
    /// length, but for a JSON string, which is a prompt.
    fn text_or_json(&self, line: &str) -> Result<Option<Message>, Refused> {
        let line = strip(line);
        if line.is_empty() {
            return Ok(None);
        }
        match serde_json::from_str(line) {
            Err(_) => self.prompt(line),
            Ok(Value::String(prompt)) => self.prompt(&prompt),
            Ok(Value::Object(body)) => Ok(Some(Message::Body(body))),
            Ok(messages) => Ok(Some(Message::Messages(messages))),
        }
    }

    /// `openqa`.
    fn question(&self, line: &str) -> Result<Option<Message>, Refused> {
        let item = object(line)?;
        let Some(Value::String(question)) = item.get("question") else {
            return Err(Refused::Line("it has no \"question\" that is a text".to_owned()));
        };
        self.prompt(strip(question))
    }

    /// `share_gpt_*`: the whole conversation up to the last thing that the human said; only that is measured.
    fn conversation(&self, line: &str) -> Result<Option<Message>, Refused> {
        let item = object(line)?;
        let turns = match item.get("conversation") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(turns)) => turns,
            Some(_) => return Err(Refused::Line("its \"conversation\" is no list".to_owned())),
        };
        let mut messages = Vec::new();
        let mut last = None;
        for turn in turns {
            let said = |who: &str| match turn.get(who) {
                None if turn.is_object() => Ok(""),
                Some(Value::String(text)) => Ok(strip(text)),
                _ => Err(Refused::Line(format!("a turn of its \"conversation\" has no text {who:?}"))),
            };
            let (human, assistant) = (said("human")?, said("assistant")?);
            if human.is_empty() {
                continue;
            }
            messages.push(json!({"role": "user", "content": human}));
            last = Some((messages.len(), human));
            if !assistant.is_empty() {
                messages.push(json!({"role": "assistant", "content": assistant}));
            }
        }
        let Some((length, human)) = last else {
            return Ok(None);
        };
        messages.truncate(length);
        Ok(self.fits(human)?.then(|| Message::Messages(Value::Array(messages))))
    }

    /// `check_prompt_length`.
    fn fits(&self, prompt: &str) -> Result<bool, Refused> {
        let params = self.params;
        let length = if params.tokenizer.is_none() {
            prompt.chars().count()
        } else if params.version == Version::V1_14_1 && params.applies_chat_template() {
            self.tokenizer.count_chat(&json!([{"role": "user", "content": prompt}]))?
        } else {
            self.tokenizer.count(prompt)? + self.tokenizer.special_tokens_to_add()
        };
        Ok((params.min_prompt_length as usize..=params.max_prompt_length as usize).contains(&length))
    }
}

fn object(line: &str) -> Result<Map<String, Value>, Refused> {
    match serde_json::from_str(line) {
        Ok(Value::Object(item)) => Ok(item),
        Ok(_) => Err(Refused::Line("it is no JSON object".to_owned())),
        Err(error) => Err(Refused::Line(format!("it is no JSON: {error}"))),
    }
}

/// The file's lines, numbered from 1, as Python reads a text file: `\n`, `\r\n` and a lone `\r` end one.
pub(super) fn lines(data: Data<'_>) -> Result<impl Iterator<Item = (usize, &str)>, Error> {
    let text = std::str::from_utf8(data.bytes).map_err(|error| {
        let line = memchr::memchr_iter(b'\n', &data.bytes[..error.valid_up_to()]).count() + 1;
        data.error(Some(line), "it is not UTF-8")
    })?;
    let mut rest = text;
    let lines = std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.find(['\n', '\r']).unwrap_or(rest.len());
        let (line, ending) = rest.split_at(end);
        rest = ending.strip_prefix("\r\n").or_else(|| ending.get(1..)).unwrap_or_default();
        Some(line)
    });
    Ok((1..).zip(lines))
}

/// Python's `str.strip()`: it takes the four separators of ASCII for white space, which Unicode does not.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    fn data(bytes: &[u8]) -> Data<'_> {
        Data { name: "prompts.txt", bytes }
    }

    #[test]
    fn lines_end_where_python_ends_them() {
        let all = |text: &'static str| {
            lines(data(text.as_bytes())).unwrap().map(|(_, line)| line).collect::<Vec<_>>()
        };
        assert_eq!(all("a\nb\r\nc\rd\n\n\u{85}e\u{2028}f"), ["a", "b", "c", "d", "", "\u{85}e\u{2028}f"]);
        assert_eq!(all("a\n"), ["a"]);
        assert_eq!(all(""), [""; 0]);
        assert_eq!(strip("\u{1f} \u{3000}a b\u{85}\t"), "a b");
    }

    #[test]
    fn an_error_names_the_file_and_the_line() {
        let tokenizer = Tokenizer::embedded().unwrap();
        let params = Params { model: Some("m".to_owned()), ..Params::default() };
        let of = |dataset: Dataset, bytes| {
            messages(&params, &dataset, &tokenizer, data(bytes)).unwrap_err().to_string()
        };
        let cases = [
            (
                Dataset::Openqa,
                &b"{\"question\": \"a\"}\n{}\n"[..],
                "line 2: it has no \"question\" that is a text",
            ),
            (Dataset::Openqa, b"\n", "line 1: it is no JSON: EOF while parsing a value at line 1 column 0"),
            (Dataset::ShareGpt, b"[]", "line 1: it is no JSON object"),
            (Dataset::ShareGpt, b"{\"conversation\": 1}", "line 1: its \"conversation\" is no list"),
            (
                Dataset::ShareGpt,
                b"{\"conversation\": [{\"human\": 1}]}",
                "line 1: a turn of its \"conversation\" has no text \"human\"",
            ),
            (Dataset::Custom, b"good\n\xff", "line 2: it is not UTF-8"),
        ];
        for (dataset, bytes, message) in cases {
            assert_eq!(of(dataset, bytes), format!("prompts.txt, {message}"));
        }
        assert!(of(Dataset::LineByLine, b"\n \n").starts_with("prompts.txt: it has no prompt between"));
    }

    #[test]
    fn prompts_outside_the_limits_are_passed_over() {
        let tokenizer = Tokenizer::embedded().unwrap();
        let limits = Params { min_prompt_length: 2, max_prompt_length: 3, ..Params::default() };
        let contents = |params: &Params| {
            let messages =
                messages(params, &Dataset::Custom, &tokenizer, data("é\néé\n ééé \néééé".as_bytes()));
            messages.unwrap().len()
        };
        // Without a tokenizer, characters count; with one, the template alone is longer than that.
        assert_eq!(contents(&limits), 2);
        let tokens =
            Params { tokenizer: Some("embedded".to_owned()), max_prompt_length: 100, ..limits.clone() };
        assert_eq!(contents(&tokens), 4);
        assert_eq!(contents(&Params { number: Some(1), ..limits }), 1);
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0usize..4) {
            static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::embedded().unwrap());
            let dataset = [Dataset::Custom, Dataset::LineByLine, Dataset::Openqa, Dataset::ShareGpt][kind].clone();
            drop(messages(&Params::default(), &dataset, &TOKENIZER, data(&bytes)));
        }
    }
}
