//! Holding a tape against its own footer.

use std::path::Path;

use super::digest::WorkloadDigest;
use super::error::{Error, ErrorKind};
use super::format::Footer;
use super::reader::Reader;

/// How far a pass over a tape has come, in requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// Requests read.
    pub done: u64,
    /// Requests in the tape, by its footer.
    pub total: u64,
}

/// Reads the whole tape, and checks every frame, the order of the requests, the index, the counts and the workload
/// digest. Calls `progress` after each request. Returns the footer, which is then known to be true.
pub fn verify(path: impl AsRef<Path>, progress: &mut dyn FnMut(Progress)) -> Result<Footer, Error> {
    let path = path.as_ref();
    let reader = Reader::open(path)?;
    let recorded = reader.footer();
    let mut digest = WorkloadDigest::new();
    let mut found = Footer::default();
    for request in reader.requests() {
        let request = request?;
        digest.add(&request);
        found.requests += 1;
        found.input_tokens += u64::from(request.input_tokens.unwrap_or(0));
        found.output_tokens += u64::from(request.output_tokens.unwrap_or(0));
        found.body_bytes += request.body.len() as u64;
        progress(Progress {
            done: found.requests,
            total: recorded.requests,
        });
    }
    let count = |what, recorded, found| {
        if recorded == found {
            Ok(())
        } else {
            Err(Error::new(
                path,
                ErrorKind::Count {
                    what,
                    recorded,
                    found,
                },
            ))
        }
    };
    count("number of requests", recorded.requests, found.requests)?;
    count("sum of input tokens", recorded.input_tokens, found.input_tokens)?;
    count(
        "sum of output tokens",
        recorded.output_tokens,
        found.output_tokens,
    )?;
    count("sum of body bytes", recorded.body_bytes, found.body_bytes)?;
    let digest = digest.finish();
    if digest != recorded.workload_digest {
        let kind = ErrorKind::Digest {
            recorded: recorded.workload_digest.clone(),
            found: digest,
        };
        return Err(Error::new(path, kind));
    }
    Ok(recorded.clone())
}
