//! What will be sent, prepared before the clock starts: pure.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Error, Target};
use crate::tape::digest::WorkloadDigest;
use crate::tape::format::{Request, Session};
use crate::timeline::Ns;

/// One request, ready to send.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Its index in the tape.
    pub index: u64,
    /// When it arrives, in ns from the tape's start.
    pub offset_ns: Ns,
    /// The HTTP method.
    pub method: http::Method,
    /// The path as sent.
    pub path: http::Uri,
    /// The body as sent.
    pub body: Bytes,
    /// The headers as sent, where they are this request's own; else the target's.
    pub headers: Option<http::HeaderMap>,
    /// The tape's count of the prompt's tokens.
    pub input_tokens: Option<u32>,
    /// The tape's count of the tokens asked for.
    pub output_tokens: Option<u32>,
    /// The session it belongs to, and its place there.
    pub session: Option<Session>,
}

/// Everything that a replay sends, in order.
#[derive(Debug)]
pub struct Plan {
    /// The measured requests: the first ones of the tape, or of a window of it, in tape order.
    pub requests: Vec<Prepared>,
    /// Sent before the clock starts, and kept out of the figures: the tape's last ones, in tape order. They are
    /// requests of their own where the tape is long enough, so that measured prompts meet a cold prefix cache.
    pub warmup: Vec<Prepared>,
    /// Whether some warm-up requests are measured again, because the tape is too short to spare them.
    pub warmup_overlaps: bool,
    /// The workload digest of the measured requests as they stand in the tape.
    pub workload_digest: String,
    /// The same digest over what is sent: it differs where `--model` or the URL's path changed a request.
    pub wire_digest: String,
}

/// How to make a plan.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// How many requests to measure; all of the tape's, or of its window's, if absent.
    pub requests: Option<u64>,
    /// Measure only requests that arrive in this part of the tape, in ns from its start.
    pub window: Option<Range<Ns>>,
    /// How many requests to send before the clock starts.
    pub warmup: u64,
    /// The model's name to put into each body.
    pub model: Option<String>,
}

impl Plan {
    /// Prepares the requests of a tape that holds `total` of them.
    pub fn new<E: Into<Error>>(
        requests: impl Iterator<Item = Result<Request, E>>,
        total: u64,
        target: &Target,
        options: &PlanOptions,
    ) -> Result<Self, Error> {
        let measured = options.requests.unwrap_or(total);
        let warmup_from = total - options.warmup.min(total);
        let mut plan = Self {
            requests: Vec::new(),
            warmup: Vec::new(),
            warmup_overlaps: false,
            workload_digest: String::new(),
            wire_digest: String::new(),
        };
        let mut workload = WorkloadDigest::new();
        let mut wire = WorkloadDigest::new();
        for request in requests {
            let request = request.map_err(Into::into)?;
            let is_within = options.window.as_ref().is_none_or(|window| window.contains(&request.offset_ns));
            let is_measured = is_within && (plan.requests.len() as u64) < measured;
            let is_warmup = request.index >= warmup_from;
            plan.warmup_overlaps |= is_measured && is_warmup;
            if !is_measured && !is_warmup {
                continue;
            }
            if is_measured {
                workload.add(&request);
            }
            let sent = as_sent(request, target, options.model.as_deref())?;
            if is_measured {
                wire.add(&sent);
            }
            let prepared = Prepared::new(sent)?;
            if is_warmup {
                plan.warmup.push(prepared.clone());
            }
            if is_measured {
                plan.requests.push(prepared);
            }
        }
        if plan.requests.is_empty() {
            return Err(if options.window.is_some() { Error::EmptyWindow } else { Error::Empty });
        }
        plan.workload_digest = workload.finish();
        plan.wire_digest = wire.finish();
        Ok(plan)
    }

    /// When each measured request arrives, in ns from the tape's start.
    #[must_use]
    pub fn offsets(&self) -> Vec<Ns> {
        self.requests.iter().map(|request| request.offset_ns).collect()
    }
}

impl Prepared {
    /// The request with another body, whose tokens nobody has counted.
    pub(super) fn with_body(&self, body: Bytes) -> Self {
        Self { body, input_tokens: None, ..self.clone() }
    }

    /// The request with this body as it would stand in a tape.
    pub(super) fn as_request(&self, body: &[u8]) -> Request {
        Request {
            index: self.index,
            offset_ns: self.offset_ns,
            method: self.method.to_string(),
            path: self.path.to_string(),
            body: body.to_vec(),
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            session: self.session.clone(),
        }
    }

    /// A request of the plan's, ready to send.
    pub fn new(request: Request) -> Result<Self, Error> {
        let wrong = |what: &str| Error::Url { url: request.path.clone(), reason: what.to_owned() };
        Ok(Self {
            index: request.index,
            offset_ns: request.offset_ns,
            method: request.method.parse().map_err(|_| wrong("its method is not an HTTP method"))?,
            path: request.path.parse().map_err(|_| wrong("it is not a path"))?,
            body: request.body.into(),
            headers: None,
            input_tokens: request.input_tokens,
            output_tokens: request.output_tokens,
            session: request.session,
        })
    }
}

/// For each request, the place of the one that must wait for its end: the next turn of its session, where there is one.
#[must_use]
pub(super) fn followers(requests: &[Prepared]) -> Vec<Option<usize>> {
    let mut sessions: HashMap<&str, Vec<(u32, usize)>> = HashMap::new();
    for (place, request) in requests.iter().enumerate() {
        if let Some(Session { id, turn }) = &request.session {
            sessions.entry(id).or_default().push((*turn, place));
        }
    }
    let mut followers = vec![None; requests.len()];
    for turns in sessions.values_mut() {
        turns.sort_unstable();
        for pair in turns.windows(2) {
            followers[pair[0].1] = Some(pair[1].1);
        }
    }
    followers
}

/// The workload digest of these requests, with some of their bodies replaced, by place.
#[must_use]
pub(super) fn digest_with(requests: &[Prepared], bodies: &HashMap<usize, Bytes>) -> String {
    let mut digest = WorkloadDigest::new();
    for (place, request) in requests.iter().enumerate() {
        digest.add(&request.as_request(bodies.get(&place).unwrap_or(&request.body)));
    }
    digest.finish()
}

/// The request with the target's base path and, if asked, another model name.
fn as_sent(mut request: Request, target: &Target, model: Option<&str>) -> Result<Request, Error> {
    request.path = target.path(&request.path);
    if let Some(model) = model {
        request.body = with_model(&request.body, model)
            .map_err(|reason| Error::Model { index: request.index, reason: reason.to_owned() })?;
    }
    Ok(request)
}

/// The body with the value of its top-level `model` replaced, and every other byte as it was.
fn with_model(body: &[u8], model: &str) -> Result<Vec<u8>, &'static str> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        model: Option<&'a RawValue>,
    }
    let text =
        std::str::from_utf8(body).map_err(|_| "is not UTF-8; leave out --model to send it as it is")?;
    // serde takes an array for a struct too.
    let named: Named<'_> = text
        .trim_start()
        .starts_with('{')
        .then(|| serde_json::from_str(text).ok())
        .flatten()
        .ok_or("is not a JSON object with one model; leave out --model to send it as it is")?;
    let old = named.model.ok_or("names no model; leave out --model to send it as it is")?.get();
    // The raw value is a slice of `text`, so its offset there is the distance between the two pointers.
    let start = old.as_ptr() as usize - text.as_ptr() as usize;
    let new = serde_json::Value::from(model).to_string();
    Ok([&body[..start], new.as_bytes(), &body[start + old.len()..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(index: u64, body: &[u8]) -> Request {
        Request {
            index,
            offset_ns: index * 1000,
            method: "POST".to_owned(),
            path: "/v1/chat/completions".to_owned(),
            body: body.to_vec(),
            input_tokens: Some(1),
            output_tokens: Some(1),
            session: None,
        }
    }

    fn plan(count: u64, options: &PlanOptions) -> Plan {
        let target = Target::new("http://h:1").unwrap();
        let requests = (0..count)
            .map(|i| Ok::<_, Error>(request(i, format!("{{\"model\":\"m\",\"i\":{i}}}").as_bytes())));
        Plan::new(requests, count, &target, options).unwrap()
    }

    #[test]
    fn only_the_model_changes() {
        for (body, expected) in [
            (r#"{"model":"a","x":1}"#, r#"{"model":"b\"","x":1}"#),
            (
                r#"{ "x": {"model": "inner"}, "model" : "a" }"#,
                r#"{ "x": {"model": "inner"}, "model" : "b\"" }"#,
            ),
            ("{\"p\":\"\\u00e9 é\",\"model\":\"a\"}\n", "{\"p\":\"\\u00e9 é\",\"model\":\"b\\\"\"}\n"),
        ] {
            assert_eq!(with_model(body.as_bytes(), "b\"").unwrap(), expected.as_bytes());
        }
    }

    #[test]
    fn a_body_without_one_model_is_refused() {
        for body in [&b"{}"[..], b"[1]", b"\xff\xfe", b"", br#"{"model":"a","model":"b"}"#] {
            assert!(with_model(body, "m").is_err(), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn any_body_keeps_its_other_bytes(before in "[ -~é\\n]{0,20}", after in "[ -~é\\n]{0,20}", model in ".{0,10}") {
            let key = |text: &str| serde_json::Value::from(text).to_string();
            let body = format!("{{{}:0 , \"model\":\"old\",{}:[1, 2]}}", key(&format!("a{before}")), key(&format!("b{after}")));
            let new = with_model(body.as_bytes(), &model).unwrap();
            let expected = body.replacen("\"old\"", &key(&model), 1);
            prop_assert_eq!(String::from_utf8(new).unwrap(), expected);
        }
    }

    #[test]
    fn warmup_takes_the_requests_that_are_not_measured() {
        let options = PlanOptions { requests: Some(6), warmup: 3, ..PlanOptions::default() };
        let plan = plan(10, &options);
        assert_eq!(plan.requests.iter().map(|r| r.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(plan.warmup.iter().map(|r| r.index).collect::<Vec<_>>(), [7, 8, 9]);
        assert!(!plan.warmup_overlaps);
    }

    #[test]
    fn a_short_tape_warms_up_with_measured_requests_and_says_so() {
        let plan = plan(4, &PlanOptions { warmup: 9, ..PlanOptions::default() });
        assert_eq!((plan.requests.len(), plan.warmup.len(), plan.warmup_overlaps), (4, 4, true));
    }

    #[test]
    fn a_window_chooses_by_the_tapes_times() {
        let window = |requests, window| {
            let plan = plan(10, &PlanOptions { requests, window: Some(window), ..PlanOptions::default() });
            plan.requests.iter().map(|request| request.index).collect::<Vec<_>>()
        };
        assert_eq!(window(None, 3000..6000), [3, 4, 5]);
        assert_eq!(window(Some(2), 2001..Ns::MAX), [3, 4]);
        let options = PlanOptions { window: Some(9001..Ns::MAX), ..PlanOptions::default() };
        let target = Target::new("http://h:1").unwrap();
        let error =
            Plan::new([Ok::<_, Error>(request(0, b"{}"))].into_iter(), 1, &target, &options).unwrap_err();
        assert!(error.to_string().contains("in this window"), "{error}");
    }

    #[test]
    fn a_turn_follows_the_one_before_it() {
        let in_session = |index, session: Option<(&str, u32)>| {
            let session = session.map(|(id, turn)| Session { id: id.to_owned(), turn });
            Prepared::new(Request { session, ..request(index, b"{}") }).unwrap()
        };
        let requests = [
            in_session(0, Some(("a", 0))),
            in_session(1, Some(("b", 1))),
            in_session(2, None),
            in_session(3, Some(("b", 0))),
            in_session(4, Some(("a", 7))),
            in_session(5, Some(("a", 9))),
        ];
        assert_eq!(followers(&requests), [Some(4), None, None, Some(1), Some(5), None]);
    }

    #[test]
    fn the_wire_digest_differs_only_where_the_bytes_do() {
        let same = plan(3, &PlanOptions::default());
        assert_eq!(same.workload_digest, same.wire_digest);
        let renamed = plan(3, &PlanOptions { model: Some("other".to_owned()), ..PlanOptions::default() });
        assert_eq!(renamed.workload_digest, same.workload_digest);
        assert_ne!(renamed.wire_digest, same.wire_digest);
        let equal = plan(3, &PlanOptions { model: Some("m".to_owned()), ..PlanOptions::default() });
        assert_eq!(equal.wire_digest, same.wire_digest);
        // The same again from what is ready to be sent, and another where a body is.
        assert_eq!(digest_with(&renamed.requests, &HashMap::new()), renamed.wire_digest);
        let bodies = HashMap::from([(1, renamed.requests[1].body.clone())]);
        let one = digest_with(&same.requests, &bodies);
        assert!(one != same.wire_digest && one != renamed.wire_digest);
    }
}
