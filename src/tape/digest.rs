//! The workload digest: what makes two tapes the same work.
//!
//! BLAKE3 (its plain hash) over the requests in order. Each request adds, with every integer little-endian:
//!
//! | field | bytes |
//! |---|---|
//! | method, path, body | for each its length as `u64`, then its bytes |
//! | arrival | `offset_ns` as `u64` |
//! | session | one byte 0 where there is none; else one byte 1, the id's length as `u64`, the id, the turn as `u32` |
//!
//! Nothing else counts: not the header, not token counts, not how the file is compressed or cut into frames.

use std::fmt;

use super::format::Request;

/// Collects a tape's workload digest.
#[derive(Clone)]
pub struct WorkloadDigest {
    hasher: blake3::Hasher,
    /// Bytes not hashed yet: BLAKE3 works on many chunks at once only when it is given many at once.
    pending: Vec<u8>,
}

const BATCH_BYTES: usize = 64 << 10;

impl WorkloadDigest {
    /// The digest of no requests.
    #[must_use]
    pub fn new() -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            pending: Vec::with_capacity(BATCH_BYTES),
        }
    }

    /// Adds the next request.
    pub fn add(&mut self, request: &Request) {
        self.add_sized(request.method.as_bytes());
        self.add_sized(request.path.as_bytes());
        self.add_sized(&request.body);
        self.pending.extend_from_slice(&request.offset_ns.to_le_bytes());
        if let Some(session) = &request.session {
            self.pending.push(1);
            self.add_sized(session.id.as_bytes());
            self.pending.extend_from_slice(&session.turn.to_le_bytes());
        } else {
            self.pending.push(0);
        }
    }

    /// The digest of the requests so far, in lowercase hex.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.hasher.update(&self.pending);
        self.hasher.finalize().to_hex().to_string()
    }

    fn add_sized(&mut self, bytes: &[u8]) {
        self.pending
            .extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        if self.pending.len() + bytes.len() > BATCH_BYTES {
            self.hasher.update(&self.pending);
            self.pending.clear();
        }
        if bytes.len() > BATCH_BYTES {
            self.hasher.update(bytes);
        } else {
            self.pending.extend_from_slice(bytes);
        }
    }
}

impl Default for WorkloadDigest {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for WorkloadDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadDigest").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::format::Session;

    fn request() -> Request {
        Request {
            index: 0,
            offset_ns: 0,
            method: "POST".to_owned(),
            path: "/v1/completions".to_owned(),
            body: br#"{"prompt":"a"}"#.to_vec(),
            input_tokens: Some(1),
            output_tokens: None,
            session: None,
        }
    }

    fn digest(requests: &[Request]) -> String {
        let mut digest = WorkloadDigest::new();
        for request in requests {
            digest.add(request);
        }
        digest.finish()
    }

    /// The worked example of the format's description, from the bytes it shows.
    #[test]
    fn the_described_layout_gives_the_described_digest() {
        let second = Request {
            index: 1,
            offset_ns: 1_000_000,
            method: "POST".to_owned(),
            path: "/v1/completions".to_owned(),
            body: vec![0xff],
            input_tokens: None,
            output_tokens: None,
            session: Some(Session {
                id: "s".to_owned(),
                turn: 2,
            }),
        };
        let mut bytes = Vec::new();
        bytes.extend(b"\x04\0\0\0\0\0\0\0POST");
        bytes.extend(b"\x0f\0\0\0\0\0\0\0/v1/completions");
        bytes.extend(b"\x0e\0\0\0\0\0\0\0{\"prompt\":\"a\"}");
        bytes.extend(b"\0\0\0\0\0\0\0\0");
        bytes.extend(b"\0");
        bytes.extend(b"\x04\0\0\0\0\0\0\0POST");
        bytes.extend(b"\x0f\0\0\0\0\0\0\0/v1/completions");
        bytes.extend(b"\x01\0\0\0\0\0\0\0\xff");
        bytes.extend(b"\x40\x42\x0f\0\0\0\0\0");
        bytes.extend(b"\x01\x01\0\0\0\0\0\0\0s\x02\0\0\0");
        let expected = blake3::hash(&bytes).to_hex().to_string();
        assert_eq!(digest(&[request(), second]), expected);
        let described = include_str!("../../docs/tape-format.md");
        assert!(
            described.contains(&expected),
            "docs/tape-format.md should show {expected}"
        );
        assert!(
            described.contains(&digest(&[])),
            "docs/tape-format.md should show {}",
            digest(&[])
        );
    }

    #[test]
    fn what_is_sent_counts_and_nothing_else() {
        let base = digest(&[request()]);
        let changed = |change: fn(&mut Request)| {
            let mut request = request();
            change(&mut request);
            digest(&[request])
        };
        assert_eq!(
            base,
            changed(|r| (r.input_tokens, r.output_tokens) = (None, Some(9)))
        );
        assert_ne!(base, changed(|r| r.method = "PUT".to_owned()));
        assert_ne!(base, changed(|r| r.path.push('/')));
        assert_ne!(base, changed(|r| r.body.push(b' ')));
        assert_ne!(base, changed(|r| r.offset_ns = 1));
        assert_ne!(
            base,
            changed(|r| r.session = Some(Session {
                id: String::new(),
                turn: 0
            }))
        );
        assert_ne!(base, digest(&[request(), request()]));
    }

    #[test]
    fn batches_do_not_show() {
        let mut requests = Vec::new();
        let mut bytes = Vec::new();
        for size in [
            0,
            1,
            BATCH_BYTES - 1,
            BATCH_BYTES,
            BATCH_BYTES + 1,
            3 * BATCH_BYTES,
            7,
        ] {
            let request = Request {
                body: vec![b'x'; size],
                ..request()
            };
            bytes.extend(b"\x04\0\0\0\0\0\0\0POST\x0f\0\0\0\0\0\0\0/v1/completions");
            bytes.extend((size as u64).to_le_bytes());
            bytes.extend(&request.body);
            bytes.extend([0; 9]);
            requests.push(request);
        }
        assert_eq!(digest(&requests), blake3::hash(&bytes).to_hex().to_string());
    }
}
