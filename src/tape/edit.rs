//! Tapes made of tapes: pure functions over streams of requests, none of which holds more than a record at a time.
//!
//! [`select`] leaves some out, [`merge`] puts several together, [`scale`] stretches and repeats, [`diff`] compares. [`text`] says where a prompt begins.
//! What they give still has the indices of where it came from; [`Renumber`] counts anew from 0.

pub mod diff;
pub mod merge;
pub mod scale;
pub mod select;
pub mod text;

use super::format::{Header, Request, TokenizerId, VERSION};

/// Gives the requests of a new tape their indices.
#[derive(Clone, Debug, Default)]
pub struct Renumber {
    due: u64,
}

impl Renumber {
    /// Gives a request the next index.
    pub fn request(&mut self, request: &mut Request) {
        request.index = self.due;
        self.due += 1;
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
}
