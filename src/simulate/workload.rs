//! What a simulation sends: of each request only what an engine looks at, so that a tape of a million takes little
//! memory.

use std::collections::HashMap;

use serde::Deserialize;
use tokentape_mock::engine;

use crate::tape::digest::WorkloadDigest;
use crate::tape::format::{Request, Session};
use crate::timeline::Ns;

/// One request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Item {
    /// Its index in the tape.
    pub index: u64,
    /// When it arrives, in ns from the tape's start.
    pub offset_ns: Ns,
    /// The prompt's tokens, by the tape's count.
    pub prompt_tokens: u32,
    /// The answer's tokens.
    pub output_tokens: u32,
    /// The prompt's full blocks; see [`engine::Request::prefix`].
    pub prefix: Box<[u64]>,
    /// What the server's random choices about it are keyed by.
    pub key: [u8; 32],
    /// Which events its answer has.
    pub form: Form,
    /// Whether it waits for another request.
    pub is_later_turn: bool,
    /// The place of the request that waits for this one.
    pub next_turn: Option<u32>,
}

/// Which events an answer has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Form {
    /// A text completion rather than a chat.
    pub is_completion: bool,
    /// Sent token by token rather than as a whole.
    pub is_stream: bool,
    /// With the token counts at its end.
    pub has_usage: bool,
}

/// All requests, in tape order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workload {
    /// The requests.
    pub items: Vec<Item>,
    /// Their digest as they stand in the tape.
    pub digest: String,
}

/// A request that cannot be simulated.
#[derive(Debug, thiserror::Error)]
#[error("request {index}: {reason}")]
pub struct Unfit {
    /// Its index in the tape.
    pub index: u64,
    /// Why, and what would help.
    pub reason: &'static str,
}

impl Workload {
    /// Reduces a tape's requests; at most so many of them, if told. `block_tokens` is the size of the cache's blocks; 0
    /// where prefixes are not looked at.
    pub fn new<E: From<Unfit>>(
        requests: impl Iterator<Item = Result<Request, E>>,
        most: Option<u64>,
        block_tokens: u32,
    ) -> Result<Self, E> {
        let most = most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let mut digest = WorkloadDigest::new();
        let mut items = Vec::new();
        let mut sessions: HashMap<String, Vec<(u32, usize)>> = HashMap::new();
        for request in requests.take(most) {
            let request = request?;
            digest.add(&request);
            items.push(item(&request, block_tokens)?);
            if let Some(Session { id, turn }) = request.session {
                sessions.entry(id).or_default().push((turn, items.len() - 1));
            }
        }
        for turns in sessions.values_mut() {
            turns.sort_unstable();
            for pair in turns.windows(2) {
                items[pair[0].1].next_turn = u32::try_from(pair[1].1).ok();
                items[pair[1].1].is_later_turn = true;
            }
        }
        Ok(Self { items, digest: digest.finish() })
    }

    /// When each request arrives, in ns from the tape's start.
    #[must_use]
    pub fn offsets(&self) -> Vec<Ns> {
        self.items.iter().map(|item| item.offset_ns).collect()
    }
}

fn item(request: &Request, block_tokens: u32) -> Result<Item, Unfit> {
    let unfit = |reason| Unfit { index: request.index, reason };
    let body = &request.body[..];
    let prompt_tokens = request.input_tokens.ok_or_else(|| {
        unfit("the tape has no count of its prompt's tokens, which the engine needs; import or generate it anew")
    })?;
    // What is of another shape asks for nothing.
    let asked: Asked = serde_json::from_slice(body).unwrap_or_default();
    let output_tokens = request.output_tokens.or_else(|| asked.limit()).ok_or_else(|| {
        unfit("neither the tape nor its body says how many tokens are asked for (max_tokens), which the engine needs")
    })?;
    Ok(Item {
        index: request.index,
        offset_ns: request.offset_ns,
        prompt_tokens,
        output_tokens: output_tokens.max(1),
        prefix: if block_tokens > 0 {
            engine::prefix(body, prompt_tokens, block_tokens)
        } else {
            Box::default()
        },
        key: tokentape_mock::request_key(&request.path, body),
        form: Form {
            is_completion: request.path.ends_with("/completions")
                && !request.path.ends_with("/chat/completions"),
            is_stream: asked.stream.unwrap_or(false),
            has_usage: asked.has_usage() || request.path.ends_with("/responses"),
        },
        ..Item::default()
    })
}

/// What a body asks for.
#[derive(Default, Deserialize)]
struct Asked {
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_completion_tokens: Option<u32>,
    max_output_tokens: Option<u32>,
    max_tokens: Option<u32>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

impl Asked {
    /// The limit on the answer's tokens, under the name of any endpoint.
    fn limit(&self) -> Option<u32> {
        self.max_completion_tokens.or(self.max_output_tokens).or(self.max_tokens)
    }

    /// Whether the stream is to end with the token counts.
    fn has_usage(&self) -> bool {
        self.stream_options.as_ref().and_then(|options| options.include_usage).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(index: u64, body: &str, session: Option<(&str, u32)>) -> Request {
        Request {
            index,
            offset_ns: index,
            method: "POST".to_owned(),
            path: "/v1/chat/completions".to_owned(),
            body: body.as_bytes().to_vec(),
            input_tokens: Some(8),
            output_tokens: None,
            session: session.map(|(id, turn)| Session { id: id.to_owned(), turn }),
        }
    }

    fn workload(requests: Vec<Request>) -> Result<Workload, Unfit> {
        Workload::new(requests.into_iter().map(Ok), None, 16)
    }

    #[test]
    fn a_body_says_what_its_answer_is() {
        let body = r#"{"messages":[{"content":"\"stream\":true"}],"stream" : false,"max_tokens":7}"#;
        let streamed = r#"{"stream":true,"stream_options":{"include_usage":true},"max_tokens":7}"#;
        let items = workload(vec![request(0, body, None), request(1, streamed, None)]).unwrap().items;
        let form = |is_stream, has_usage| Form { is_completion: false, is_stream, has_usage };
        assert_eq!((items[0].form, items[1].form), (form(false, false), form(true, true)));
        assert_eq!(items[0].output_tokens, 7);
        // Another object's keys are not the body's.
        let nested = r#"{"metadata":{"stream":true,"include_usage":true},"max_tokens":7}"#;
        // The responses API counts unasked.
        let responses = Request {
            path: "/v1/responses".to_owned(),
            ..request(1, r#"{"stream":true,"max_output_tokens":9}"#, None)
        };
        let items = workload(vec![request(0, nested, None), responses]).unwrap().items;
        assert_eq!((items[0].form, items[1].form), (form(false, false), form(true, true)));
        assert_eq!(items[1].output_tokens, 9);
    }

    #[test]
    fn turns_follow_each_other() {
        let body = r#"{"max_tokens":1}"#;
        let sessions = [Some(("a", 0)), Some(("b", 1)), None, Some(("b", 0)), Some(("a", 5))];
        let requests = (0..).zip(sessions).map(|(index, session)| request(index, body, session)).collect();
        let items = workload(requests).unwrap().items;
        assert_eq!(
            items.iter().map(|item| item.next_turn).collect::<Vec<_>>(),
            [Some(4), None, None, Some(1), None]
        );
        assert_eq!(
            items.iter().map(|item| item.is_later_turn).collect::<Vec<_>>(),
            [false, true, false, false, true]
        );
    }

    #[test]
    fn what_an_engine_needs_must_be_there() {
        let error = workload(vec![request(0, "{}", None)]).unwrap_err().to_string();
        assert!(error.starts_with("request 0: ") && error.contains("max_tokens"), "{error}");
    }
}
