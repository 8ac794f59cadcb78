//! The `line_by_line` dataset of `evalscope perf`: a prompt a line, or (late versions) a whole body a line. Facts:
//! `evalscope/perf/plugin/datasets/line_by_line.py` and `plugin/api/openai_api.py` of 1.1.1 and 1.14.1.

use serde_json::{Map, Value};

use super::evalscope_trace::{Added, on_one_line};
use super::export::{Alike, BASE_URL, Carries, Exporter, Usage, command, comments, model, quoted};
use super::import::{Error, Input};
use super::prompt::{Prompt, ask, object};
use super::rows::Rows;
use super::source::{self, Answer, Asked, Imported, Source};
use super::{asked, raw_payload};
use crate::tape::Request;

/// Reads such a file: a line that is a JSON list is messages, one that is a JSON object with a prompt a whole body, and
/// every other one a prompt, as late versions take them.
pub(super) struct Reader {
    rows: Rows,
}

impl Reader {
    pub(super) fn open(input: &Input) -> Result<Self, Error> {
        Ok(Self { rows: Rows::lines(input)? })
    }
}

impl Source for Reader {
    fn next(&mut self) -> Result<Option<Imported>, Error> {
        let Some(row) = self.rows.next()? else { return Ok(None) };
        let text = row.text()?;
        if text.starts_with('{') && asked::told(text).is_ok() {
            return raw_payload::posted(text, 0).map(Some).map_err(|reason| row.error(reason));
        }
        let is_messages =
            text.starts_with('[') && serde_json::from_str::<Vec<Map<String, Value>>>(text).is_ok();
        let prompt =
            if is_messages { source::Prompt::Messages } else { source::Prompt::Text }(text.to_owned());
        Ok(Some(Imported::Asked(Asked { offset_ns: 0, prompt, answer: Answer::Unknown, session: None })))
    }
}

/// The longest prompt that is not filtered out unasked, in characters.
const MAX_PROMPT: usize = 131_072;

/// Prompts, one a line.
#[derive(Debug, Default)]
pub(super) struct Prompts {
    alike: Alike,
    output_tokens: Option<(u64, u64)>,
    longest: usize,
}

impl Exporter for Prompts {
    fn line(&mut self, request: &Request) -> Result<String, String> {
        let ask = ask(request)?;
        self.alike.add(request, &ask)?;
        let tokens = ask.output_tokens.ok_or("it does not say how many tokens it asks for")?;
        let (index, known) = *self.output_tokens.get_or_insert((request.index, tokens));
        if tokens != known {
            return Err(format!(
                "it asks for {tokens} tokens, record {index} for {known}; evalscope sends one number"
            ));
        }
        let text = ask.prompt.text();
        carried(text)?;
        self.longest = self.longest.max(text.chars().count());
        Ok(text.to_owned())
    }

    fn remedy(&self) -> &'static str {
        "export it with --bodies, for evalscope 1.14.1, or replay the tape with tokentape"
    }

    fn carries(&self) -> Carries {
        Carries::default()
    }

    fn command(&self, usage: Usage<'_>) -> Result<String, String> {
        let (path, ask) = self.alike.first()?;
        let mut words = base(path, &model(ask), usage, self.alike.requests);
        if let Some((_, tokens)) = self.output_tokens {
            words.push(format!("--max-tokens {tokens}"));
        }
        if self.longest > MAX_PROMPT {
            words.push(format!("--max-prompt-length {}", self.longest));
        }
        let mut extra = Map::new();
        for (key, value) in &ask.rest {
            match (key.as_str(), value) {
                ("model" | "stream_options", _) | ("stream", Value::Bool(true)) => {}
                ("stream", Value::Bool(false)) => words.push("--no-stream".to_owned()),
                ("temperature", Value::Number(number)) => words.push(format!("--temperature {number}")),
                _ => {
                    extra.insert(key.clone(), value.clone());
                }
            }
        }
        if !extra.is_empty() {
            words.push(format!("--extra-args {}", quoted(&Value::Object(extra).to_string())));
        }
        let mut traps = vec!["Traps:".to_owned()];
        if !ask.rest.contains_key("temperature") {
            traps.push("- The tape asks for no temperature; evalscope sends 0.0 all the same.".to_owned());
        }
        if ask.tokens_key == Some("max_completion_tokens") {
            traps.push("- The tape's max_completion_tokens is sent as max_tokens.".to_owned());
        }
        traps.push("- The bodies are not the tape's: other key order and spacing.".to_owned());
        if matches!(ask.prompt, Prompt::Completion { .. }) {
            traps.push("- 1.1.1 counts every text completion as failed.".to_owned());
        }
        traps.extend(common_traps());
        Ok(comments(&["evalscope 1.1.1 and 1.14.1".to_owned()]) + &command(&words) + &comments(&traps))
    }
}

/// Whether a prompt survives as a line: no line end in it (Python takes a lone return for one), no white space at its
/// ends (which evalscope strips), and not JSON (which late versions take apart).
fn carried(text: &str) -> Result<(), String> {
    if text.contains(['\n', '\r']) {
        return Err("its prompt has a line end, which would make two prompts of it".to_owned());
    }
    // What Python's str.strip takes off beyond Rust's white space.
    let stripped = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
    if text.starts_with(stripped) || text.ends_with(stripped) {
        return Err("its prompt begins or ends with white space, which evalscope strips".to_owned());
    }
    if text.is_empty() {
        return Err("its prompt is empty; evalscope skips empty lines".to_owned());
    }
    let python_only = ["NaN", "Infinity", "-Infinity"];
    if python_only.contains(&text) || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        return Err("its prompt is valid JSON, which late versions of evalscope take apart".to_owned());
    }
    Ok(())
}

fn base(path: &str, model: &str, usage: Usage<'_>, requests: u64) -> Vec<String> {
    vec![
        "evalscope perf".to_owned(),
        format!("--url {} --api openai --model {}", quoted(&format!("{BASE_URL}{path}")), quoted(model)),
        format!("--dataset line_by_line --dataset-path {}", quoted(usage.file)),
        format!("--number {requests} --parallel 1"),
    ]
}

fn common_traps() -> [String; 2] {
    [
        "- Without --no-test-connection (which 1.1.1 does not obey) one more request, \"hello\", is sent first.".to_owned(),
        "- If --number is more than the file has lines, it is begun again.".to_owned(),
    ]
}

/// Whole bodies, one a line.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    first: Option<(u64, String, String)>,
    requests: u64,
    added: Added,
}

impl Exporter for Bodies {
    fn line(&mut self, request: &Request) -> Result<String, String> {
        let body = object(request)?;
        let model = || body.get("model").and_then(Value::as_str).unwrap_or("MODEL").to_owned();
        let (index, path, _) =
            self.first.get_or_insert_with(|| (request.index, request.path.clone(), model()));
        if *path != request.path {
            return Err(format!(
                "its path is {}, that of record {index} {path}; evalscope sends to one",
                request.path
            ));
        }
        self.requests += 1;
        self.added.count(&body);
        Ok(on_one_line(request, &body))
    }

    fn remedy(&self) -> &'static str {
        "replay the tape with tokentape"
    }

    fn carries(&self) -> Carries {
        Carries { bodies: true, ..Carries::default() }
    }

    fn command(&self, usage: Usage<'_>) -> Result<String, String> {
        let (_, path, model) =
            self.first.as_ref().ok_or("the tape holds no request: there is nothing to send")?;
        let words = base(path, model, usage, self.requests);
        let mut traps = vec![
            "Traps:".to_owned(),
            "- 1.1.1 would send each line as a prompt: it reads only prompts.".to_owned(),
            "- Bodies keep their keys and order, but are written anew, with spaces.".to_owned(),
        ];
        traps.extend(self.added.traps(self.requests));
        traps.extend(common_traps());
        Ok(comments(&["evalscope 1.14.1".to_owned()]) + &command(&words) + &comments(&traps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_the_prompt_or_nothing() {
        for good in ["hello", "a {\"b\": 1}", "é\u{2028}é"] {
            assert_eq!(carried(good), Ok(()), "{good:?}");
        }
        for bad in ["a\nb", "a\rb", " a", "a ", "a\u{1c}", "", "42", "\"hi\"", "[]", "NaN", "null"] {
            assert!(carried(bad).is_err(), "{bad:?}");
        }
    }
}
