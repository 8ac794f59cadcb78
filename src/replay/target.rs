//! Where the requests go: the server's address, its base path, and the headers that every request carries.

use std::fmt;
use std::path::PathBuf;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::uri::{Scheme, Uri};

use super::Error;

/// A server to replay to.
#[derive(Clone)]
pub struct Target {
    /// The URL as given, without its query.
    pub url: String,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether to speak TLS.
    pub tls: bool,
    /// Whether header names are sent as `Title-Case`, as most clients write them, or in lower case.
    pub title_case: bool,
    /// A PEM file of further certificate authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// The URL's path without a trailing slash: empty, or `/prefix`.
    base: String,
    headers: HeaderMap,
}

/// Header values may be secrets and are left out.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("url", &self.url)
            .field("headers", &self.header_names())
            .finish_non_exhaustive()
    }
}

impl Target {
    /// A target from a URL such as `http://127.0.0.1:8000` or `https://gateway.example/llm/v1`.
    pub fn new(url: &str) -> Result<Self, Error> {
        let wrong = |reason: &str| Error::Url { url: redacted(url), reason: reason.to_owned() };
        let example = "give one such as http://127.0.0.1:8000";
        let uri: Uri = url.parse().map_err(|error| wrong(&format!("{error}; {example}")))?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(wrong(&format!("its scheme is neither http nor https; {example}"))),
        };
        let authority = uri.authority().ok_or_else(|| wrong(&format!("it names no host; {example}")))?;
        if authority.as_str().contains('@') {
            return Err(wrong("a URL is no place for a password; use --api-key-env or --header"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let mut headers = HeaderMap::new();
        let host_value =
            HeaderValue::from_str(authority.as_str()).map_err(|_| wrong("its host is malformed"))?;
        headers.insert(HOST, host_value);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers
            .insert(USER_AGENT, HeaderValue::from_static(concat!("tokentape/", env!("CARGO_PKG_VERSION"))));
        Ok(Self {
            url: url.split(['?', '#']).next().unwrap_or(url).to_owned(),
            host,
            port,
            tls,
            title_case: false,
            ca_file: None,
            base: uri.path().trim_end_matches('/').to_owned(),
            headers,
        })
    }

    /// Adds a header from `Name: value`; it replaces one of the same name.
    pub fn header(&mut self, line: &str) -> Result<(), Error> {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let malformed = || Error::Header { name: name.trim().to_owned() };
        if !line.contains(':') {
            return Err(malformed());
        }
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| malformed())?;
        let mut value = HeaderValue::from_str(value.trim()).map_err(|_| malformed())?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(())
    }

    /// Sends `Authorization: Bearer KEY` with every request.
    pub fn api_key(&mut self, key: &str) -> Result<(), Error> {
        let malformed = |_| Error::Header { name: AUTHORIZATION.to_string() };
        let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(malformed)?;
        value.set_sensitive(true);
        self.headers.insert(AUTHORIZATION, value);
        Ok(())
    }

    /// The headers of every request.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The names of the headers of every request, for the record: values are never kept.
    #[must_use]
    pub fn header_names(&self) -> Vec<String> {
        self.headers.keys().map(ToString::to_string).collect()
    }

    /// The path to send for a tape's path. A base that ends in `/v1` and a tape's `/v1/…` share that part, so that
    /// both ways of writing a server's URL work.
    #[must_use]
    pub fn path(&self, tape_path: &str) -> String {
        let base = match self.base.strip_suffix("/v1") {
            Some(shorter) if tape_path.starts_with("/v1/") => shorter,
            _ => &self.base,
        };
        format!("{base}{tape_path}")
    }

    /// The path to send for one of the server's own, such as `/metrics`, which stands beside `/v1`.
    #[must_use]
    pub fn server_path(&self, path: &str) -> String {
        format!("{}{path}", self.base.strip_suffix("/v1").unwrap_or(&self.base))
    }
}

/// A URL without what may be a password, for error messages.
fn redacted(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}…{}", &url[..scheme + 3], &url[at..]),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_path_is_kept_and_v1_is_not_doubled() {
        for (url, path) in [
            ("http://h:1", "/v1/chat/completions"),
            ("http://h:1/", "/v1/chat/completions"),
            ("http://h:1/v1", "/v1/chat/completions"),
            ("http://h:1/v1/", "/v1/chat/completions"),
            ("https://h/gate/v1", "/gate/v1/chat/completions"),
            ("https://h/gate", "/gate/v1/chat/completions"),
        ] {
            assert_eq!(Target::new(url).unwrap().path("/v1/chat/completions"), path, "{url}");
        }
        assert_eq!(Target::new("http://h:1/v1").unwrap().path("/tokenize"), "/v1/tokenize");
        assert_eq!(Target::new("http://h:1/gate/v1/").unwrap().server_path("/metrics"), "/gate/metrics");
    }

    #[test]
    fn ports_and_addresses() {
        let target = Target::new("http://[::1]:8000").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.tls), ("::1", 8000, false));
        let target = Target::new("https://example.org").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.tls), ("example.org", 443, true));
    }

    #[test]
    fn wrong_urls_say_what_is_right() {
        for url in ["127.0.0.1:8000", "ftp://h", "/v1", "", "http://"] {
            let error = Target::new(url).unwrap_err().to_string();
            assert!(error.contains("http"), "{url}: {error}");
        }
    }

    #[test]
    fn secrets_stay_out_of_debug_and_errors() {
        let mut target = Target::new("http://h:1").unwrap();
        target.api_key("sk-secret").unwrap();
        target.header("X-Token: hush").unwrap();
        let shown = format!("{target:?} {:?}", target.headers());
        assert!(!shown.contains("secret") && !shown.contains("hush"), "{shown}");
        let error = target.header("X-Token hush").unwrap_err().to_string();
        assert!(!error.contains(": hush"), "{error}");
        let error = Target::new("http://me:pass@h:1").unwrap_err().to_string();
        assert!(!error.contains("pass@"), "{error}");
    }
}
