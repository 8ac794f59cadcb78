//! The headers that the peers' HTTP client sends, in its order. Both use aiohttp: what the caller names comes first,
//! after `Host`, and aiohttp's own follow.
//!
//! Names are sent in `Title-Case`, which differs from the originals in two places (`user-agent` of evalscope,
//! `x-request-id` of vLLM); to HTTP both are the same.

use http::HeaderMap;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT,
};

use crate::cli::Failure;
use crate::replay::Target;

/// How aiohttp 3.14.5 on Python 3.11 names itself.
const AIOHTTP: HeaderValue = HeaderValue::from_static("Python/3.11 aiohttp/3.14.5");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Headers in the making.
#[derive(Clone, Debug)]
pub(super) struct Headers(HeaderMap);

impl Headers {
    /// `Host` alone.
    pub(super) fn new(target: &Target) -> Self {
        let mut headers = HeaderMap::new();
        if let Some(host) = target.headers().get(HOST) {
            headers.insert(HOST, host.clone());
        }
        Self(headers)
    }

    /// `Content-Type: application/json`, named by the caller.
    pub(super) fn json(mut self) -> Self {
        self.0.insert(CONTENT_TYPE, JSON);
        self
    }

    /// A header of the caller's; it takes the place of one of the same name. Its value may be a secret.
    pub(super) fn with(mut self, name: &str, value: &str) -> Result<Self, Failure> {
        let malformed = || Failure::usage(format_args!("the header '{name}' is malformed"));
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| malformed())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| malformed())?;
        value.set_sensitive(true);
        self.0.insert(key, value);
        Ok(self)
    }

    /// With aiohttp's own, for a body of this many bytes; where the caller has not said that the body is JSON, aiohttp
    /// says so last.
    pub(super) fn for_body(self, bytes: usize) -> HeaderMap {
        let mut headers = self.for_get();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
        headers.entry(CONTENT_TYPE).or_insert(JSON);
        headers
    }

    /// With aiohttp's own, for a request without a body.
    pub(super) fn for_get(self) -> HeaderMap {
        let Self(mut headers) = self;
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        headers.entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static("gzip, deflate"));
        headers.entry(USER_AGENT).or_insert(AIOHTTP);
        headers
    }
}
