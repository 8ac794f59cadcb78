//! What is different in two tapes.

use std::collections::HashMap;

use serde::Serialize;

use crate::tape::format::Request;

/// Compares the requests of two tapes, index by index, and their bodies wherever they stand.
#[derive(Debug, Default)]
pub struct Diff {
    differences: Differences,
    /// How many more times a body was met in A than in B, by the first 64 bits of its BLAKE3; bodies met as often in
    /// both are left out, so two equal tapes take no room. That two of 10 million bodies agree by chance has a
    /// probability of 3 in a million.
    surplus: HashMap<u64, i64>,
    /// Bodies of A and of B so far.
    bodies: (u64, u64),
}

/// How two tapes differ.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Differences {
    /// Requests that are the same at the same index.
    pub same: u64,
    /// Requests that differ at the same index.
    pub changed: u64,
    /// Requests past the other tape's end.
    pub only_in_a: u64,
    /// Requests past the other tape's end.
    pub only_in_b: u64,
    /// How many of the changed requests differ in each field.
    pub fields: Fields,
    /// The first request that is not the same in both.
    pub first: Option<First>,
    /// The bodies, wherever they stand.
    pub bodies: Bodies,
}

/// Requests that differ in a field.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Fields {
    /// Arrival times.
    pub offset_ns: u64,
    /// Methods.
    pub method: u64,
    /// Paths.
    pub path: u64,
    /// Bodies.
    pub body: u64,
    /// Counts of input tokens.
    pub input_tokens: u64,
    /// Counts of output tokens.
    pub output_tokens: u64,
    /// Sessions.
    pub session: u64,
}

/// Where two tapes begin to differ.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct First {
    /// The index.
    pub index: u64,
    /// The fields, or `missing in A` or `B`.
    pub differs_in: Vec<&'static str>,
    /// Where both have a body: the first byte that is another.
    pub body_byte: Option<usize>,
}

/// Bodies as a collection: each as many times as it occurs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Bodies {
    /// In both.
    pub same: u64,
    /// Only in the first tape.
    pub only_in_a: u64,
    /// Only in the second.
    pub only_in_b: u64,
}

impl Differences {
    /// Whether the tapes hold the same requests.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.first.is_none()
    }
}

impl Diff {
    /// Adds what stands at the next index of each tape; none past its end.
    pub fn add(&mut self, a: Option<&Request>, b: Option<&Request>) {
        let found = &mut self.differences;
        let differs_in = match (a, b) {
            (Some(a), Some(b)) => {
                let differs_in = found.fields.compare(a, b);
                *if differs_in.is_empty() { &mut found.same } else { &mut found.changed } += 1;
                differs_in
            }
            (Some(_), None) => {
                found.only_in_a += 1;
                vec!["missing in B"]
            }
            (None, Some(_)) => {
                found.only_in_b += 1;
                vec!["missing in A"]
            }
            (None, None) => return,
        };
        if !differs_in.is_empty() && found.first.is_none() {
            let body_byte = a.zip(b).and_then(|(a, b)| first_byte(&a.body, &b.body));
            let index = a.or(b).map_or(0, |request| request.index);
            found.first = Some(First { index, differs_in, body_byte });
        }
        self.bodies.0 += u64::from(a.is_some());
        self.bodies.1 += u64::from(b.is_some());
        if a.map(|a| &a.body) != b.map(|b| &b.body) {
            for (request, step) in [(a, 1), (b, -1)] {
                if let Some(request) = request {
                    self.count(&request.body, step);
                }
            }
        }
    }

    fn count(&mut self, body: &[u8], step: i64) {
        let key =
            blake3::hash(body).as_bytes().iter().take(8).fold(0, |key, &byte| key << 8 | u64::from(byte));
        let surplus = self.surplus.entry(key).or_default();
        *surplus += step;
        if *surplus == 0 {
            self.surplus.remove(&key);
        }
    }

    /// What was found.
    #[must_use]
    pub fn finish(mut self) -> Differences {
        let only = |sign: i64| self.surplus.values().map(|&n| (n * sign).max(0).unsigned_abs()).sum();
        let (only_in_a, only_in_b) = (only(1), only(-1));
        self.differences.bodies = Bodies { same: self.bodies.0 - only_in_a, only_in_a, only_in_b };
        self.differences
    }
}

impl Fields {
    /// Counts the fields in which two requests differ, and names them.
    fn compare(&mut self, a: &Request, b: &Request) -> Vec<&'static str> {
        let fields = [
            ("offset_ns", a.offset_ns == b.offset_ns, &mut self.offset_ns),
            ("method", a.method == b.method, &mut self.method),
            ("path", a.path == b.path, &mut self.path),
            ("body", a.body == b.body, &mut self.body),
            ("input_tokens", a.input_tokens == b.input_tokens, &mut self.input_tokens),
            ("output_tokens", a.output_tokens == b.output_tokens, &mut self.output_tokens),
            ("session", a.session == b.session, &mut self.session),
        ];
        let mut names = Vec::new();
        for (name, _, count) in fields.into_iter().filter(|(_, same, _)| !same) {
            *count += 1;
            names.push(name);
        }
        names
    }
}

/// The place of the first byte that differs.
fn first_byte(a: &[u8], b: &[u8]) -> Option<usize> {
    let common = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    (a != b).then_some(common)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::edit::tests::request;

    fn diff(a: &[Request], b: &[Request]) -> Differences {
        let mut diff = Diff::default();
        for at in 0..a.len().max(b.len()) {
            diff.add(a.get(at), b.get(at));
        }
        diff.finish()
    }

    #[test]
    fn equal_tapes_take_no_room() {
        let tape: Vec<_> = (0..5).map(|index| request(index, index)).collect();
        let mut diff = Diff::default();
        for request in &tape {
            diff.add(Some(request), Some(request));
        }
        assert!(diff.surplus.is_empty());
        let found = diff.finish();
        assert!(found.is_none());
        assert_eq!(
            found,
            Differences {
                same: 5,
                bodies: Bodies { same: 5, ..Bodies::default() },
                ..Differences::default()
            }
        );
    }

    #[test]
    fn a_request_left_out_shifts_the_rest_but_not_their_bodies() {
        let tape: Vec<_> = (0..5).map(|index| request(index, index)).collect();
        let mut cut = tape.clone();
        cut.remove(1);
        cut.iter_mut().zip(0..).for_each(|(request, index)| request.index = index);
        let found = diff(&tape, &cut);
        assert_eq!((found.same, found.changed, found.only_in_a, found.only_in_b), (1, 3, 1, 0));
        assert_eq!(found.bodies, Bodies { same: 4, only_in_a: 1, only_in_b: 0 });
        let first = found.first.unwrap();
        assert_eq!((first.index, first.differs_in.as_slice()), (1, &["offset_ns", "body"][..]));
        // {"prompt":"1"} and {"prompt":"2"}.
        assert_eq!(first.body_byte, Some(11));
    }

    #[test]
    fn the_fields_are_counted() {
        let a = request(0, 0);
        let b = Request { output_tokens: Some(9), path: "/x".to_owned(), ..a.clone() };
        let found = diff(std::slice::from_ref(&a), &[b.clone(), b]);
        assert_eq!((found.changed, found.only_in_b), (1, 1));
        assert_eq!(found.fields, Fields { path: 1, output_tokens: 1, ..Fields::default() });
        assert_eq!(found.bodies, Bodies { same: 1, only_in_a: 0, only_in_b: 1 });
        let first = found.first.unwrap();
        assert_eq!((first.differs_in, first.body_byte), (vec!["path", "output_tokens"], None));
        let found = diff(&[], &[a]);
        assert_eq!(found.first.unwrap().differs_in, ["missing in A"]);
    }
}
