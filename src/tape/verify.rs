//! Holding a tape against its own footer.

use std::path::Path;

use super::digest::WorkloadDigest;
use super::error::{Error, ErrorKind};
use super::format::{Footer, Request};
use super::reader::Reader;

/// How far a pass over a tape has come, in requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// Requests read.
    pub done: u64,
    /// Requests in the tape, by its footer.
    pub total: u64,
}

/// Opens a tape and [verifies](Reader::verify) it. Calls `progress` after each request. Returns the footer, which is
/// then known to be true.
pub fn verify(path: impl AsRef<Path>, progress: &mut dyn FnMut(Progress)) -> Result<Footer, Error> {
    let reader = Reader::open(path)?;
    let total = reader.footer().requests;
    let mut done = 0;
    reader.verify(&mut |_| {
        done += 1;
        progress(Progress { done, total });
    })?;
    Ok(reader.footer().clone())
}

impl Reader {
    /// Reads the whole tape, and checks every frame, the order of the requests, the index, the counts and the workload
    /// digest. Calls `visit` with each request on the way; what it sees is proven only when this returns.
    pub fn verify(&self, visit: &mut dyn FnMut(&Request)) -> Result<(), Error> {
        let recorded = self.footer();
        let mut found = Footer::default();
        let mut digest = WorkloadDigest::new();
        for request in self.requests() {
            let request = request?;
            digest.add(&request);
            found.count(&request);
            visit(&request);
        }
        found.workload_digest = digest.finish();
        for (what, recorded, found) in [
            ("number of requests", recorded.requests, found.requests),
            ("sum of input tokens", recorded.input_tokens, found.input_tokens),
            (
                "sum of output tokens",
                recorded.output_tokens,
                found.output_tokens,
            ),
            ("sum of body bytes", recorded.body_bytes, found.body_bytes),
        ] {
            if recorded != found {
                return Err(Error::new(
                    self.path(),
                    ErrorKind::Count {
                        what,
                        recorded,
                        found,
                    },
                ));
            }
        }
        if recorded.workload_digest != found.workload_digest {
            let recorded = recorded.workload_digest.clone();
            return Err(Error::new(
                self.path(),
                ErrorKind::Digest {
                    recorded,
                    found: found.workload_digest,
                },
            ));
        }
        Ok(())
    }
}
