//! Server-sent events out of a response's bytes: pure, after the WHATWG HTML specification ("Server-sent events",
//! section "Parsing an event stream"). It shares nothing with the mock's writer: each is the other's oracle.

use std::borrow::Cow;

use memchr::memchr2;

/// One event, or one comment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event<'a> {
    /// What the event holds.
    pub payload: Payload<'a>,
    /// The offset in the body just behind the last byte of the payload. The read that brought that byte brought the
    /// event: the blank line that closes it carries nothing.
    pub end: usize,
}

/// What an event holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Payload<'a> {
    /// The `data` lines, joined by newlines.
    Data(Cow<'a, [u8]>),
    /// A comment line outside any event: servers send them to keep a connection alive.
    Comment,
}

/// The events of a body, in order. Data that no blank line closes at the body's end is still an event: the peers
/// take it as one, and a stream that was cut is told by its missing end, not by its last event.
#[must_use]
pub fn events(body: &[u8]) -> Events<'_> {
    let start = if body.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    Events { body, at: start }
}

/// The events of what follows a blank line in a body.
#[must_use]
pub fn later_events(body: &[u8]) -> Events<'_> {
    Events { body, at: 0 }
}

/// An iterator over the events of a body.
#[derive(Debug)]
pub struct Events<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Events<'a> {
    /// The next line and the offset where it ends, without its line ending.
    fn line(&mut self) -> Option<(&'a [u8], usize)> {
        let rest = &self.body[self.at..];
        if rest.is_empty() {
            return None;
        }
        let length = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let end = self.at + length;
        let ending = match rest.get(length..) {
            Some([b'\r', b'\n', ..]) => 2,
            Some([_, ..]) => 1,
            _ => 0,
        };
        self.at = end + ending;
        Some((&rest[..length], end))
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        let mut data: Option<Event<'a>> = None;
        while let Some((line, end)) = self.line() {
            if line.is_empty() {
                if data.is_some() {
                    break;
                }
            } else if let Some(value) = field(line, b"data") {
                let joined = match data.take() {
                    Some(Event { payload: Payload::Data(before), .. }) => {
                        Cow::Owned([before.as_ref(), b"\n", value].concat())
                    }
                    _ => Cow::Borrowed(value),
                };
                data = Some(Event { payload: Payload::Data(joined), end });
            } else if line[0] == b':' && data.is_none() {
                return Some(Event { payload: Payload::Comment, end });
            }
            // `event`, `id`, `retry` and unknown fields carry nothing that is measured.
        }
        data
    }
}

/// The value of a line `NAME:VALUE`, `NAME: VALUE` or `NAME`.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    match line.strip_prefix(name)? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data(body: &[u8]) -> Vec<(String, usize)> {
        events(body)
            .map(|event| match event.payload {
                Payload::Data(data) => (String::from_utf8_lossy(&data).into_owned(), event.end),
                Payload::Comment => ("(comment)".to_owned(), event.end),
            })
            .collect()
    }

    #[test]
    fn vllm_framing() {
        let body = b"data: {\"a\":1}\n\ndata: [DONE]\n\n";
        assert_eq!(data(body), [("{\"a\":1}".to_owned(), 13), ("[DONE]".to_owned(), 27)]);
    }

    #[test]
    fn every_line_ending_and_field_form() {
        for body in [
            "data: x\r\n\r\ndata:y\r\n\r\n",
            "data: x\r\rdata:y\r\r",
            "\u{feff}data: x\n\nevent: e\nid: 3\ndata:y",
        ] {
            let found: Vec<String> = data(body.as_bytes()).into_iter().map(|(data, _)| data).collect();
            assert_eq!(found, ["x", "y"], "{body:?}");
        }
    }

    #[test]
    fn several_data_lines_are_joined_and_comments_stand_apart() {
        let found = data(b": ping\n\ndata: a\n: inside\ndata\ndata:  b\n\n:\n");
        assert_eq!(
            found,
            [("(comment)".to_owned(), 6), ("a\n\n b".to_owned(), 38), ("(comment)".to_owned(), 41)]
        );
    }

    #[test]
    fn an_event_without_data_is_none() {
        assert_eq!(data(b"event: ping\n\nretry: 10\n\n\n\n"), []);
        assert_eq!(data(b""), []);
    }

    proptest! {
        /// What a writer frames, a reader finds, whatever the line ending.
        #[test]
        fn framed_payloads_come_back(payloads in prop::collection::vec("[^\r\n]{1,30}", 0..20), ending in "\r\n|\n|\r") {
            let body = payloads.iter().fold(String::new(), |body, p| body + "data: " + p + &ending + &ending);
            let found: Vec<String> = data(body.as_bytes()).into_iter().map(|(data, _)| data).collect();
            prop_assert_eq!(found, payloads);
        }

        /// No bytes make it panic, and ends rise within the body.
        #[test]
        fn any_bytes_are_taken(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut last = 0;
            for event in events(&body) {
                prop_assert!(event.end > last || last == 0);
                prop_assert!(event.end <= body.len());
                last = event.end;
            }
        }
    }
}
