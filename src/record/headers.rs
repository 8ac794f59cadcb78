//! What a proxy does to headers: those of one hop are dropped, secrets are known, and a few of the answer's are kept.

use http::header::{
    AUTHORIZATION, CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};

/// Headers of an answer that a tape keeps; all others stay out of it.
const KEPT: [&str; 7] = [
    "content-encoding",
    "content-type",
    "retry-after",
    "server",
    "x-correlation-id",
    "x-envoy-upstream-service-time",
    "x-request-id",
];

/// A value shorter than this is no secret that could be told from other text.
const SHORTEST_SECRET: usize = 6;

/// Parts of the name of a header, or of a query's parameter, whose value is a secret.
const SECRET_NAMES: [&str; 6] = ["auth", "cookie", "key", "secret", "signature", "token"];

/// Removes what concerns one connection only (RFC 9110, section 7.6.1). `te: trailers` is said anew: the answer's
/// trailers are passed on.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    let is_trailers = |value: &HeaderValue| {
        let parts = value.to_str().unwrap_or_default().split(',');
        parts.into_iter().any(|part| part.trim().eq_ignore_ascii_case("trailers"))
    };
    let trailers = headers.get_all(TE).iter().any(is_trailers);
    for name in [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// The headers that go to the server: the client's, for that server's host.
pub(super) fn to_upstream(headers: &mut HeaderMap, host: Option<&HeaderValue>) {
    remove_hop_by_hop(headers);
    headers.remove(PROXY_AUTHORIZATION);
    if let Some(host) = host {
        headers.insert(HOST, host.clone());
    }
}

/// The headers of an answer that a tape keeps.
pub(super) fn kept(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter(|(name, _)| KEPT.contains(&name.as_str()))
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect()
}

/// The values of a request that must not reach the tape wherever they turn up again: keys and cookies, without the
/// scheme before a key or the name before a cookie.
pub(super) fn secrets(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let mut secrets = Vec::new();
    for (name, value) in headers {
        if !is_secret_name(name.as_str()) {
            continue;
        }
        let value = value.as_bytes();
        if name == COOKIE {
            let pairs = value.split(|&byte| byte == b';');
            secrets
                .extend(pairs.filter_map(|pair| Some(pair.splitn(2, |&byte| byte == b'=').nth(1)?.to_vec())));
        } else if name == AUTHORIZATION || name == PROXY_AUTHORIZATION {
            secrets.extend(value.splitn(2, |&byte| byte == b' ').nth(1).or(Some(value)).map(<[u8]>::to_vec));
        } else {
            secrets.push(value.to_vec());
        }
    }
    for secret in &mut secrets {
        *secret = secret.trim_ascii().to_vec();
    }
    secrets.retain(|secret| secret.len() >= SHORTEST_SECRET);
    // The longest first: one may be a part of another.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

/// Whether a header or a query's parameter of this name holds a secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        headers.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn headers_of_one_hop_go_no_further() {
        let mut client = headers(&[
            ("host", "proxy:1"),
            ("connection", "keep-alive, X-Hop"),
            ("keep-alive", "timeout=5"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip, trailers"),
            ("x-end", "2"),
            ("authorization", "Bearer sk-1"),
        ]);
        to_upstream(&mut client, Some(&HeaderValue::from_static("server:2")));
        assert_eq!(client["host"], "server:2");
        assert_eq!(client["te"], "trailers");
        assert_eq!(client["connection"], "te");
        let mut names = names(&client);
        names.sort_unstable();
        assert_eq!(names, ["authorization", "connection", "host", "te", "x-end"]);
    }

    #[test]
    fn secrets_are_known_by_the_names_of_their_headers() {
        let found = secrets(&headers(&[
            ("authorization", "Bearer sk-longer-secret"),
            ("cookie", "session=abcdefgh; a=b"),
            ("x-api-key", "  key-123456 "),
            ("x-auth-token", "tok456"),
            ("content-type", "application/json"),
            ("x-token", "short"),
        ]));
        let found: Vec<_> = found.iter().map(|secret| String::from_utf8_lossy(secret)).collect();
        assert_eq!(found, ["sk-longer-secret", "key-123456", "abcdefgh", "tok456"]);
    }

    #[test]
    fn only_listed_headers_of_an_answer_are_kept() {
        let kept =
            kept(&headers(&[("set-cookie", "a=b"), ("content-type", "text/plain"), ("x-request-id", "7")]));
        assert_eq!(kept.len(), 2);
        assert!(kept.iter().all(|(name, _)| name != "set-cookie"));
    }
}
