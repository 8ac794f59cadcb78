//! Holding a tape against its own footer.

use std::path::Path;

use super::digest::WorkloadDigest;
use super::error::{Error, ErrorKind};
use super::format::{Entry, Footer, Request, Response};
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
        self.verify_entries(&mut |entry| {
            if let Entry::Request(request) = entry {
                visit(request);
            }
        })
    }

    /// The same with the responses: each is parsed, and no request has two. It takes one bit of memory a request.
    pub fn verify_entries(&self, visit: &mut dyn FnMut(&Entry)) -> Result<(), Error> {
        let recorded = self.footer();
        let mut found = Footer::default();
        let mut digest = WorkloadDigest::new();
        let mut answered = Answered::default();
        for entry in self.entries() {
            let entry = entry?;
            match &entry {
                Entry::Request(request) => {
                    digest.add(request);
                    found.count(request);
                }
                Entry::Response(response) => {
                    found.responses += 1;
                    answered.add(response).map_err(|kind| Error::new(self.path(), kind))?;
                }
            }
            visit(&entry);
        }
        found.workload_digest = digest.finish();
        for (what, recorded, found) in [
            ("number of requests", recorded.requests, found.requests),
            ("sum of input tokens", recorded.input_tokens, found.input_tokens),
            ("sum of output tokens", recorded.output_tokens, found.output_tokens),
            ("number of responses", recorded.responses, found.responses),
            ("sum of body bytes", recorded.body_bytes, found.body_bytes),
        ] {
            if recorded != found {
                return Err(Error::new(self.path(), ErrorKind::Count { what, recorded, found }));
            }
        }
        if recorded.workload_digest != found.workload_digest {
            let recorded = recorded.workload_digest.clone();
            return Err(Error::new(
                self.path(),
                ErrorKind::Digest { recorded, found: found.workload_digest },
            ));
        }
        Ok(())
    }
}

/// Which requests have had their response: one bit each.
#[derive(Debug, Default)]
struct Answered {
    words: Vec<u64>,
}

impl Answered {
    fn add(&mut self, response: &Response) -> Result<(), ErrorKind> {
        let index = response.index;
        // A response stands after its request, so the index is below the number of requests read.
        let word = usize::try_from(index / 64).unwrap_or(usize::MAX);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (index % 64);
        if self.words[word] & bit != 0 {
            return Err(ErrorKind::Responses { index });
        }
        self.words[word] |= bit;
        Ok(())
    }
}
