//! Tapes made of tapes: pure functions over streams of requests, none of which holds more than a record at a time.
//!
//! [`select`] leaves some out, [`merge`] puts several together, [`scale`] stretches and repeats, [`diff`] compares. [`text`] says where a prompt begins.
//! What they give still has the indices of where it came from; [`Renumber`] counts anew from 0. Responses go with their
//! requests.

pub mod diff;
pub mod merge;
pub mod scale;
pub mod select;
pub mod text;

use std::collections::HashMap;

use super::format::{Entry, Header, TokenizerId, VERSION};

/// Gives the requests of a new tape their indices, and their responses the same.
#[derive(Clone, Debug, Default)]
pub struct Renumber {
    due: u64,
    /// The new index of each request whose response has not come yet, by its source and old index.
    unanswered: HashMap<(u64, u64), u64>,
}

impl Renumber {
    /// Gives a record of one source (a tape, or a round of it) its new index; false for a response whose request was
    /// left out. With `answered`, responses may follow, and the request is remembered until its own has come.
    pub fn assign(&mut self, source: u64, answered: bool, entry: &mut Entry) -> bool {
        match entry {
            Entry::Request(request) => {
                if answered {
                    self.unanswered.insert((source, request.index), self.due);
                }
                request.index = self.due;
                self.due += 1;
            }
            Entry::Response(response) => match self.unanswered.remove(&(source, response.index)) {
                Some(index) => response.index = index,
                None => return false,
            },
        }
        true
    }
}

/// The header of a tape that `tool` made of others, which it names by their workload digests. Parameters are kept as
/// given; so is the tokenizer, where every parent has the same one and the counts are still its.
#[must_use]
pub fn header(
    created_by: &str,
    tool: &str,
    parents: &[&str],
    params: serde_json::Map<String, serde_json::Value>,
    tokenizer: Option<TokenizerId>,
) -> Header {
    let mut all = serde_json::Map::new();
    all.insert("parents".to_owned(), parents.into());
    all.extend(params);
    Header {
        version: VERSION,
        created_by: created_by.to_owned(),
        source: tool.to_owned(),
        params: all,
        seed: None,
        tokenizer,
    }
}

/// The tokenizer that counted these tapes' tokens, as far as they name one; an error where they name several.
pub fn common_tokenizer<'a>(
    headers: impl IntoIterator<Item = &'a Header>,
) -> Result<Option<TokenizerId>, SeveralTokenizers> {
    let mut ids = headers.into_iter().filter_map(|header| header.tokenizer.as_ref());
    let Some(first) = ids.next() else { return Ok(None) };
    match ids.find(|id| id.digest != first.digest) {
        Some(other) => Err(SeveralTokenizers { names: [first.name.clone(), other.name.clone()] }),
        None => Ok(Some(first.clone())),
    }
}

/// Tapes whose tokens were counted by different tokenizers: in one tape, their counts would not mean the same.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SeveralTokenizers {
    /// Two of them.
    pub names: [String; 2],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::format::{Outcome, Request, Response};

    pub(super) fn response(index: u64) -> Response {
        Response {
            index,
            head: None,
            chunks: Vec::new(),
            body: Vec::new(),
            end_ns: 1,
            outcome: Outcome::ServerGone,
        }
    }

    pub(super) fn request(index: u64, offset_ns: u64) -> Request {
        Request {
            index,
            offset_ns,
            method: "POST".to_owned(),
            path: "/v1/completions".to_owned(),
            body: format!(r#"{{"prompt":"{index}"}}"#).into_bytes(),
            input_tokens: Some(1),
            output_tokens: Some(2),
            session: None,
        }
    }

    fn made_with(digest: &str) -> Header {
        let tokenizer = TokenizerId { name: "t".to_owned(), digest: digest.to_owned() };
        header("tokentape test", "test", &[], serde_json::Map::new(), Some(tokenizer))
    }

    #[test]
    fn a_header_names_its_parents_first() {
        let params = serde_json::json!({"speed": 2.0}).as_object().unwrap().clone();
        let header = header("tokentape test", "scale", &["aa", "bb"], params, None);
        let params = serde_json::to_string(&header.params).unwrap();
        assert_eq!(params, r#"{"parents":["aa","bb"],"speed":2.0}"#);
    }

    #[test]
    fn a_tokenizer_is_kept_where_it_counted_everything() {
        let (a, b) = (made_with("a"), made_with("b"));
        let none = Header { tokenizer: None, ..a.clone() };
        assert_eq!(common_tokenizer([&none, &a, &a]).unwrap().unwrap().digest, "a");
        assert!(common_tokenizer([&a, &none, &b]).is_err());
        assert_eq!(common_tokenizer([&none]), Ok(None));
    }

    #[test]
    fn a_response_gets_the_index_of_its_request() {
        let mut renumber = Renumber::default();
        let mut assigned = |source, entry: Entry| {
            let mut entry = entry;
            renumber.assign(source, true, &mut entry).then(|| entry.index())
        };
        let (ask, answer) =
            (|index| Entry::Request(request(index, 0)), |index| Entry::Response(response(index)));
        let given = [
            assigned(0, ask(7)),
            assigned(1, ask(7)),
            assigned(0, ask(9)),
            assigned(1, answer(7)),
            assigned(0, answer(8)),
            assigned(0, answer(9)),
            assigned(0, answer(7)),
            assigned(0, answer(7)),
        ];
        assert_eq!(given, [Some(0), Some(1), Some(2), Some(1), None, Some(2), Some(0), None]);
        assert!(renumber.unanswered.is_empty());
    }
}
