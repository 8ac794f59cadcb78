//! A [recorded](crate::recordings) response on its way: each piece at its time, and all of it in the truth log.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use memchr::memmem;
use tokentape_pacer::Pacer;

use crate::deadlines::Deadlines;
use crate::faulted::Faulted;
use crate::faults::{Event, Step, Then};
use crate::recordings::{Head, Recorded};
use crate::timing::Ticket;
use crate::transport::Connection;
use crate::truth::{EventKind, Log, Outcome, Record};

/// A response that begins now.
#[derive(Debug)]
pub(crate) struct Playback {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Faulted,
}

/// Begins the record, and waits until the head is due; none where the connection is to be closed without one.
pub(crate) async fn begin(
    recorded: Recorded,
    path: &str,
    log: &Log,
    (pacer, connection): (Pacer, Rc<Connection>),
    ticket: Ticket,
) -> Option<Playback> {
    let arrival_ns = connection.arrival_ns();
    let Recorded { head, pieces, breaks_ns } = recorded;
    let due_ns: Vec<u64> = pieces.iter().map(|(at_ns, _)| arrival_ns.saturating_add(*at_ns)).collect();
    let first = pieces.first().map(|(_, bytes)| bytes.as_ref()).unwrap_or_default();
    let record = Record {
        id: id(first).unwrap_or_default(),
        path: path.to_owned(),
        arrival_ns,
        read_ns: connection.read_ns(),
        events: vec![EventKind::Piece; pieces.len()],
        due_ns: due_ns.clone(),
        ..Record::empty()
    };
    let Some(Head { status, headers, at_ns }) = head else {
        connection.begin(log.begin(Record { outcome: Outcome::Fault, ..record }));
        pacer.sleep_until(arrival_ns.saturating_add(breaks_ns.unwrap_or_default())).await;
        connection.end();
        return None;
    };
    // It is complete when it breaks off where the recording does; that it breaks off, the log says beforehand.
    let outcome = if breaks_ns.is_some() { Outcome::Fault } else { record.outcome };
    connection.begin(log.begin(Record { outcome, ..record }));
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let length: usize = pieces.iter().map(|(_, bytes)| bytes.len()).sum();
    let headers = as_sent(status, headers, breaks_ns.is_none().then_some(length));
    let body = Faulted::of(
        steps(pieces, breaks_ns).into_iter(),
        due_ns,
        Deadlines::none(ticket),
        pacer.clone(),
        connection,
    );
    pacer.sleep_until(arrival_ns.saturating_add(at_ns)).await;
    Some(Playback { status, headers, body })
}

/// One step a piece; and one that closes the connection, where the recording breaks off.
fn steps(pieces: Vec<(u64, Bytes)>, breaks_ns: Option<u64>) -> Vec<Step> {
    let last_ns = pieces.last().map_or(0, |(at_ns, _)| *at_ns);
    let last = pieces.len().saturating_sub(1);
    let step = |(source, (_, bytes)): (usize, (u64, Bytes))| Step {
        source,
        delay_ns: 0,
        bytes,
        ends: vec![Event { kind: EventKind::Piece, source }],
        then: Then::Next,
    };
    let mut steps: Vec<Step> = pieces.into_iter().enumerate().map(step).collect();
    steps.extend(breaks_ns.map(|at_ns| Step {
        source: last,
        delay_ns: at_ns.saturating_sub(last_ns),
        // There has to be something that hyper wants to write.
        bytes: Bytes::from_static(b"\n"),
        ends: Vec::new(),
        then: Then::Break { keep: 0, reset: false },
    }));
    steps
}

/// The headers as they go out: the recorded ones, but for the framing, which is of this connection. A whole body that is
/// no stream has its length told, as servers do.
fn as_sent(status: StatusCode, recorded: Vec<(String, String)>, length: Option<usize>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in recorded {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(&value))
            && name != CONTENT_LENGTH
            && name != TRANSFER_ENCODING
        {
            headers.append(name, value);
        }
    }
    let is_stream =
        headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    let has_body =
        !status.is_informational() && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED;
    if let Some(length) = length.filter(|_| has_body && !is_stream) {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    headers
}

/// The answer's id, by which a client's timeline finds its record: the first `"id"` of the body's first piece.
fn id(piece: &[u8]) -> Option<String> {
    let key = memmem::find(piece, br#""id":"#)? + 5;
    let rest = piece[key..].trim_ascii_start().strip_prefix(b"\"")?;
    let end = memchr::memchr(b'"', rest)?;
    std::str::from_utf8(&rest[..end]).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_the_bodys_first() {
        assert_eq!(id(br#"data: {"id":"chatcmpl-1","x":{"id":"no"}}"#).as_deref(), Some("chatcmpl-1"));
        assert_eq!(id(br#"{"id": "cmpl-2"}"#).as_deref(), Some("cmpl-2"));
        assert_eq!(id(br#"{"id":null}"#), None);
        assert_eq!(id(br#"{"id":"cut"#), None);
        assert_eq!(id(b""), None);
    }

    #[test]
    fn framing_is_the_connections_own() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let json = vec![
            header("content-type", "application/json"),
            header("content-length", "9"),
            header("transfer-encoding", "chunked"),
            header("x-request-id", "7"),
            header("bad name", "x"),
        ];
        let sent = as_sent(StatusCode::OK, json.clone(), Some(4));
        assert_eq!((sent.len(), &sent[CONTENT_LENGTH], &sent["x-request-id"]), (3, &4.into(), &7.into()));
        // One that breaks off has no length to tell, and a stream never has.
        assert!(!as_sent(StatusCode::OK, json, None).contains_key(CONTENT_LENGTH));
        let stream = vec![header("content-type", "text/event-stream; charset=utf-8")];
        assert!(!as_sent(StatusCode::OK, stream, Some(4)).contains_key(CONTENT_LENGTH));
        assert!(as_sent(StatusCode::NO_CONTENT, Vec::new(), Some(0)).is_empty());
    }

    #[test]
    fn a_broken_recording_ends_in_a_break() {
        let pieces = vec![(5, Bytes::from_static(b"a")), (8, Bytes::from_static(b"b"))];
        assert!(steps(pieces.clone(), None).iter().all(|step| step.then == Then::Next));
        let broken = steps(pieces, Some(20));
        assert_eq!(broken.len(), 3);
        assert_eq!((broken[2].source, broken[2].delay_ns), (1, 12));
        assert_eq!(broken[2].then, Then::Break { keep: 0, reset: false });
    }
}
