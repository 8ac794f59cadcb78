//! Conversations that go on from what the server really said: each later turn's messages, with the answers of this run
//! where the tape has those of another. Pure.
//!
//! A later turn's `messages` begin with those of the turn before it, and what follows them belongs to the answer: the
//! tape's assistant message, whose `content` is replaced, or else the next user's, and then the answer is put before it.
//! Every other byte of the body stays as it is. A message with tool calls stays too, since the results that follow
//! it belong to those calls.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Error;
use super::plan::Prepared;

/// What the server said so far, by session.
#[derive(Debug)]
pub(super) struct Histories<'p> {
    requests: &'p [Prepared],
    /// Of each request that another follows, how many messages it has.
    lengths: HashMap<usize, usize>,
    /// Of each session under way, its answers.
    answers: HashMap<&'p str, Vec<Answer>>,
    /// The bodies that were made, by their request's place.
    bodies: HashMap<usize, Bytes>,
}

/// What the server said to one turn.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    /// How many messages stand before it.
    at: usize,
    text: String,
}

impl<'p> Histories<'p> {
    /// Nothing said yet. Every turn that follows another must be able to take its answer.
    pub(super) fn new(requests: &'p [Prepared], followers: &[Option<usize>]) -> Result<Self, Error> {
        let mut lengths = HashMap::new();
        for (place, next) in followers.iter().enumerate() {
            let Some(next) = *next else { continue };
            let (before, after) = (&requests[place], &requests[next]);
            let wrong = |index| move |reason: &str| Error::History { index, reason: reason.to_owned() };
            let said = messages(&before.body).map_err(wrong(before.index))?;
            let repeated = messages(&after.body).map_err(wrong(after.index))?;
            if repeated.len() <= said.len() || !said.iter().zip(&repeated).all(|(a, b)| is_same(a, b)) {
                let reason = "does not begin with the messages of the turn before it, and add to them";
                return Err(wrong(after.index)(reason));
            }
            lengths.insert(place, said.len());
        }
        Ok(Self { requests, lengths, answers: HashMap::new(), bodies: HashMap::new() })
    }

    /// The body of the request that follows this one, to which the server said this; nothing if it gave no answer.
    pub(super) fn follow(&mut self, place: usize, next: usize, answer: Option<String>) -> Bytes {
        let request = &self.requests[next];
        let id = request.session.as_ref().map_or("", |session| session.id.as_str());
        let answers = self.answers.entry(id).or_default();
        if let (Some(text), Some(&at)) = (answer, self.lengths.get(&place)) {
            answers.push(Answer { at, text });
        }
        // Each body was taken apart before the run.
        let body = with_answers(&request.body, answers).map_or_else(|_| request.body.clone(), Bytes::from);
        if body != request.body {
            self.bodies.insert(next, body.clone());
        }
        if !self.lengths.contains_key(&next) {
            self.answers.remove(id);
        }
        body
    }

    /// The bodies that are not the tape's, by their request's place.
    pub(super) fn into_bodies(self) -> HashMap<usize, Bytes> {
        self.bodies
    }
}

#[derive(Deserialize)]
struct Chat<'a> {
    #[serde(borrow)]
    messages: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<&'a RawValue>,
}

/// The messages of a chat request, as they stand in the body.
fn messages(body: &[u8]) -> Result<Vec<&RawValue>, &'static str> {
    let text = std::str::from_utf8(body).map_err(|_| "is not UTF-8")?;
    // serde takes an array for a struct too.
    let is_object = text.trim_start().starts_with('{');
    let chat: Option<Chat<'_>> = is_object.then(|| serde_json::from_str(text).ok()).flatten();
    chat.and_then(|chat| chat.messages).ok_or("is not a JSON object with one list of messages")
}

fn is_same(a: &RawValue, b: &RawValue) -> bool {
    let value = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).ok();
    a.get() == b.get() || value(a) == value(b)
}

/// The body with these answers in their places, which rise.
fn with_answers(body: &[u8], answers: &[Answer]) -> Result<Vec<u8>, &'static str> {
    let messages = messages(body)?;
    // A raw value is a slice of the body, so its offset there is the distance between the two pointers.
    let offset = |raw: &RawValue| raw.get().as_ptr() as usize - body.as_ptr() as usize;
    let mut new = Vec::with_capacity(body.len());
    let mut copied = 0;
    for Answer { at, text } in answers {
        let Some(old) = messages.get(*at) else { continue };
        let message: Message<'_> =
            serde_json::from_str(old.get()).map_err(|_| "has a message that is not an object")?;
        let text = Value::from(text.as_str()).to_string();
        if message.role.as_deref() != Some("assistant") {
            let here = offset(old);
            new.extend_from_slice(&body[copied..here]);
            new.extend_from_slice(format!("{{\"role\":\"assistant\",\"content\":{text}}},").as_bytes());
            copied = here;
        } else if let (Some(content), None | Some("[]")) =
            (message.content, message.tool_calls.map(RawValue::get))
        {
            let here = offset(content);
            new.extend_from_slice(&body[copied..here]);
            new.extend_from_slice(text.as_bytes());
            copied = here + content.get().len();
        }
    }
    new.extend_from_slice(&body[copied..]);
    Ok(new)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tape::format::{Request, Session};

    fn answers(answers: &[(usize, &str)]) -> Vec<Answer> {
        answers.iter().map(|(at, text)| Answer { at: *at, text: (*text).to_owned() }).collect()
    }

    fn spliced(body: &str, said: &[(usize, &str)]) -> String {
        String::from_utf8(with_answers(body.as_bytes(), &answers(said)).unwrap()).unwrap()
    }

    #[test]
    fn the_tapes_answer_is_replaced_and_nothing_else() {
        let body = r#"{ "messages": [ {"role":"user","content":"a"}, {"content" : "old" , "role":"assistant","name":"x"},
            {"role":"user","content":"b"}, {"role":"assistant","content":["old"]},{"role":"user","content":"c"}], "n":1 }"#;
        let expected = body.replacen("\"old\"", r#""n\"ew\n""#, 1).replacen("[\"old\"]", "\"é\"", 1);
        assert_eq!(spliced(body, &[(1, "n\"ew\n"), (3, "é")]), expected);
        assert_eq!(spliced(body, &[]), body);
    }

    #[test]
    fn where_the_tape_has_none_the_answer_is_put_between() {
        let body = r#"{"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"},{"role":"user","content":"c"}]}"#;
        assert_eq!(
            spliced(body, &[(1, "x"), (2, "y")]),
            r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"x"},{"role":"user","content":"b"},{"role":"assistant","content":"y"},{"role":"user","content":"c"}]}"#
        );
    }

    #[test]
    fn tool_calls_stay_with_their_results() {
        for message in [
            r#"{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]}"#,
            r#"{"role":"assistant","content":"hm","tool_calls":[{"id":"1"}]}"#,
            r#"{"role":"assistant","tool_calls":[{"id":"1"}]}"#,
        ] {
            let body =
                format!(r#"{{"messages":[{{"role":"user"}},{message},{{"role":"tool","content":"7"}}]}}"#);
            assert_eq!(spliced(&body, &[(1, "x")]), body);
        }
        let body = r#"{"messages":[{"role":"user"},{"role":"assistant","content":"a","tool_calls":[]}]}"#;
        assert_eq!(spliced(body, &[(1, "x")]), body.replace("\"a\"", "\"x\""));
    }

    fn prepared(index: u64, turn: u32, body: &str) -> Prepared {
        Prepared::new(Request {
            index,
            offset_ns: 0,
            method: "POST".to_owned(),
            path: "/v1/chat/completions".to_owned(),
            body: body.as_bytes().to_vec(),
            input_tokens: None,
            output_tokens: None,
            session: Some(Session { id: "s".to_owned(), turn }),
        })
        .unwrap()
    }

    #[test]
    fn each_turn_has_all_answers_before_it() {
        let user = r#"{"role":"user","content":"u"}"#;
        let said = |text| format!(r#"{{"role":"assistant","content":"{text}"}}"#);
        let body = |messages: &[&str]| format!("{{\"messages\":[{}]}}", messages.join(","));
        let (a, b) = (said("a"), said("b"));
        let requests = [
            prepared(0, 0, &body(&[user])),
            prepared(1, 1, &body(&[user, &a, user])),
            prepared(2, 2, &body(&[user, &a, user, &b, user])),
        ];
        let followers = [Some(1), Some(2), None];
        let mut histories = Histories::new(&requests, &followers).unwrap();
        let (x, y) = (said("x"), said("y"));
        assert_eq!(histories.follow(0, 1, Some("x".to_owned())), body(&[user, &x, user]));
        assert_eq!(histories.follow(1, 2, Some("y".to_owned())), body(&[user, &x, user, &y, user]));
        assert!(histories.answers.is_empty());
        let mut bodies: Vec<usize> = histories.into_bodies().into_keys().collect();
        bodies.sort_unstable();
        assert_eq!(bodies, [1, 2]);
        // A turn without an answer keeps the tape's, and the others theirs.
        let mut histories = Histories::new(&requests, &followers).unwrap();
        assert_eq!(histories.follow(0, 1, None), requests[1].body);
        assert_eq!(histories.follow(1, 2, Some("y".to_owned())), body(&[user, &a, user, &y, user]));
    }

    #[test]
    fn a_turn_that_cannot_take_an_answer_is_named() {
        let first = r#"{"messages":[{"role":"user","content":"a"}]}"#;
        for (body, words) in [
            (
                r#"{"prompt":"a"}"#,
                "request 8: cannot take the server's answers: the body is not a JSON object",
            ),
            (first, "does not begin with the messages"),
            (r#"{"messages":[{"role":"user","content":"z"},{"role":"user"}]}"#, "does not begin with"),
        ] {
            let requests = [prepared(7, 0, first), prepared(8, 1, body)];
            let error = Histories::new(&requests, &[Some(1), None]).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("--history"), "{error}");
        }
    }

    proptest! {
        /// Whatever the server says, the body stays one, with just that content.
        #[test]
        fn any_answer_is_taken(text in "\\PC{0,40}", space in "[ \\n\\t]{0,3}") {
            let body = format!(
                "{space}{{\"messages\":{space}[{{\"role\":\"user\"}},{space}{{\"role\":\"assistant\",\"content\":{space}\"old\"}}]}}"
            );
            let value: Value = serde_json::from_str(&spliced(&body, &[(1, &text)])).unwrap();
            prop_assert_eq!(value["messages"][1]["content"].as_str(), Some(text.as_str()));
            prop_assert_eq!(value["messages"].as_array().unwrap().len(), 2);
        }
    }
}
