//! The line of a recorded response.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, Serializer};

use super::format::{Chunk, Outcome, Response, ResponseHead};
use super::line::{body_fields, body_of};

#[derive(Deserialize, Serialize)]
pub(super) struct ResponseLine<'a> {
    index: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    head_ns: Option<u64>,
    /// Each piece's time after the one before it (the first's after the head), and its length: small numbers
    /// compress well, and no time can run backwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    chunks: Vec<(u64, u32)>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    body: Option<Cow<'a, str>>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    body_base64: Option<Cow<'a, str>>,
    end_ns: u64,
    outcome: Outcome,
}

impl<'a> ResponseLine<'a> {
    pub(super) fn of(response: &'a Response) -> Self {
        let (body, body_base64) = body_fields(&response.body);
        let head = response.head.as_ref();
        let mut last_ns = head.map_or(0, |head| head.at_ns);
        let mut after_last = |at_ns: u64| {
            let gap_ns = at_ns.saturating_sub(last_ns);
            last_ns = last_ns.max(at_ns);
            gap_ns
        };
        Self {
            index: response.index,
            status: head.map(|head| head.status),
            headers: head
                .into_iter()
                .flat_map(|head| &head.headers)
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            head_ns: head.map(|head| head.at_ns),
            chunks: response.chunks.iter().map(|chunk| (after_last(chunk.at_ns), chunk.bytes)).collect(),
            body,
            body_base64,
            end_ns: response.end_ns,
            outcome: response.outcome,
        }
    }

    pub(super) fn into_response(self) -> Result<Response, String> {
        let body = body_of(self.body, self.body_base64)?;
        let head = match (self.status, self.head_ns) {
            (Some(status), Some(at_ns)) => {
                let owned = |(name, value): (Cow<'_, str>, Cow<'_, str>)| (name.into(), value.into());
                Some(ResponseHead { status, headers: self.headers.into_iter().map(owned).collect(), at_ns })
            }
            (None, None) => None,
            _ => return Err("it has only one of status and head_ns".to_owned()),
        };
        if head.is_none() && !body.is_empty() {
            return Err("it has a body and no status".to_owned());
        }
        let mut at_ns = head.as_ref().map_or(0, |head| head.at_ns);
        let mut chunks = Vec::with_capacity(self.chunks.len());
        let mut total = 0;
        for (gap_ns, bytes) in self.chunks {
            at_ns = at_ns.checked_add(gap_ns).ok_or("the times of its chunks are out of range")?;
            total += u64::from(bytes);
            chunks.push(Chunk { at_ns, bytes });
        }
        if total != body.len() as u64 {
            return Err(format!("its chunks add up to {total} bytes, its body has {}", body.len()));
        }
        if self.end_ns < at_ns {
            return Err("it ends before its last byte came".to_owned());
        }
        Ok(Response { index: self.index, head, chunks, body, end_ns: self.end_ns, outcome: self.outcome })
    }
}

impl Serialize for Response {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ResponseLine::of(self).serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESPONSE: &str = r#"{"index":3,"status":200,"headers":[["content-type","text/event-stream"]],"head_ns":10,"chunks":[[0,2],[5,1]],"body":"abc","end_ns":20,"outcome":"client_gone"}"#;

    fn read(line: &str) -> Result<Response, String> {
        serde_json::from_str::<ResponseLine<'_>>(line).map_err(|error| error.to_string())?.into_response()
    }

    #[test]
    fn a_response_reads_as_it_is_written() {
        let response = read(RESPONSE).unwrap();
        assert_eq!(response.chunks, [Chunk { at_ns: 10, bytes: 2 }, Chunk { at_ns: 15, bytes: 1 }]);
        assert_eq!(serde_json::to_string(&response).unwrap(), RESPONSE);
        let none = r#"{"index":0,"body":"","end_ns":7,"outcome":"server_gone"}"#;
        assert_eq!(serde_json::to_string(&read(none).unwrap()).unwrap(), none);
    }

    #[test]
    fn a_response_that_contradicts_itself_is_refused() {
        for (from, to, reason) in [
            ("[5,1]", "[5,2]", "add up"),
            (r#""end_ns":20"#, r#""end_ns":14"#, "before its last byte"),
            (r#""status":200,"#, "", "only one of"),
            ("[5,1]", "[18446744073709551615,1]", "out of range"),
            ("client_gone", "asleep", "unknown variant"),
        ] {
            let error = read(&RESPONSE.replace(from, to)).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
