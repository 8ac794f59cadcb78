//! Tokenizers from the hub: downloaded once, kept in the user's cache folder.

use std::env;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::blocking::Client;

use crate::Error;
use crate::source::{CONFIG_FILE, JINJA_FILE, JSON_TEMPLATE_FILE, SIZE_LIMIT, TOKENIZER_FILE};

const ENDPOINT: &str = "https://huggingface.co";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For one file.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Where tokenizers are downloaded from, and where they are kept.
pub(crate) struct Hub {
    /// `HF_ENDPOINT`.
    pub(crate) endpoint: String,
    /// `HF_TOKEN`. Never printed.
    pub(crate) token: Option<String>,
    /// `HF_HUB_OFFLINE`.
    pub(crate) offline: bool,
    /// The folder that holds a folder a tokenizer.
    pub(crate) cache: PathBuf,
}

/// Whether the name has the form `org/model`.
pub(crate) fn is_hub_name(name: &str) -> bool {
    let valid = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphanumeric())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && !part.contains("..")
            && !part.contains("--")
    };
    name.split_once('/').is_some_and(|(org, model)| valid(org) && valid(model))
}

impl Hub {
    /// The hub as the environment describes it.
    pub(crate) fn from_env() -> Self {
        let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let cache = set("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache")))
            .unwrap_or_else(env::temp_dir)
            .join("tokentape")
            .join("tokenizers");
        Self {
            endpoint: set("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()),
            token: set("HF_TOKEN"),
            // The values that the hub's own client takes for yes.
            offline: set("HF_HUB_OFFLINE").is_some_and(|value| {
                ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
            }),
            cache,
        }
    }

    /// The folder with the files of the tokenizer `name`, downloaded where the cache lacks it.
    pub(crate) fn folder(self, name: &str) -> Result<PathBuf, Error> {
        let folder = self.cache.join(name.replace('/', "--"));
        if folder.join(TOKENIZER_FILE).is_file() {
            return Ok(folder);
        }
        if self.offline {
            return Err(Error::Offline { name: name.to_owned() });
        }
        // A thread of its own: the blocking client may not be used inside an asynchronous runtime.
        thread::scope(|scope| scope.spawn(|| self.download(name, &folder)).join().unwrap_or_else(resume))?;
        Ok(folder)
    }

    /// Each file that the hub has, `tokenizer.json` last: a folder that holds it is complete.
    fn download(&self, name: &str, folder: &Path) -> Result<(), Error> {
        // An error says that the process has chosen a provider already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .user_agent(concat!("tokentape/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Fetch { url: self.endpoint.clone(), reason: describe(&error) })?;
        fs::create_dir_all(folder).map_err(|source| Error::Cache { path: folder.to_owned(), source })?;
        for file in [CONFIG_FILE, JINJA_FILE, JSON_TEMPLATE_FILE] {
            if let Some(bytes) = self.fetch(&client, name, file)? {
                keep(folder, file, &bytes)?;
            }
        }
        let url = self.url(name, TOKENIZER_FILE);
        let bytes = self.fetch(&client, name, TOKENIZER_FILE)?.ok_or_else(|| Error::Fetch {
            url,
            reason: "no such model, or it has no tokenizer.json".to_owned(),
        })?;
        keep(folder, TOKENIZER_FILE, &bytes)
    }

    /// The file's bytes; `None` where the model has no such file.
    fn fetch(&self, client: &Client, name: &str, file: &str) -> Result<Option<Vec<u8>>, Error> {
        let url = self.url(name, file);
        let failed = |reason| Error::Fetch { url: url.clone(), reason };
        let mut request = client.get(&url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().map_err(|error| failed(describe(&error)))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let remedy = if self.token.is_some() { "HF_TOKEN does not open it" } else { "set HF_TOKEN" };
                return Err(failed(format!("no such model, or access is restricted ({remedy})")));
            }
            status => return Err(failed(format!("the server answers {status}"))),
        }
        let mut bytes = Vec::new();
        response
            .take(SIZE_LIMIT + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| failed(format!("the download broke off: {error}")))?;
        if bytes.len() as u64 > SIZE_LIMIT {
            return Err(Error::TooLarge { what: url, limit_mib: SIZE_LIMIT >> 20 });
        }
        Ok(Some(bytes))
    }

    fn url(&self, name: &str, file: &str) -> String {
        format!("{}/{name}/resolve/main/{file}", self.endpoint.trim_end_matches('/'))
    }
}

/// Writes the file under another name first, so that one that is there is whole, also where two processes download.
fn keep(folder: &Path, file: &str, bytes: &[u8]) -> Result<(), Error> {
    let path = folder.join(file);
    let part = folder.join(format!("{file}.{}.part", std::process::id()));
    fs::write(&part, bytes)
        .and_then(|()| fs::rename(&part, &path))
        .map_err(|source| Error::Cache { path, source })
}

/// The error's root: reqwest's own text repeats the URL and hides the cause.
fn describe(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// A panic of the downloading thread goes on in this one.
fn resume<T>(panic: Box<dyn std::any::Any + Send>) -> T {
    std::panic::resume_unwind(panic)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A hub that has one model's tokenizer.json and settings. Returns its URL and the requests it has seen.
    fn hub_server() -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
                let path = head[0].split(' ').nth(1).unwrap().to_owned();
                let authorized =
                    head.iter().any(|line| line.eq_ignore_ascii_case("authorization: Bearer s3cret"));
                let (status, body) = match path.as_str() {
                    "/org/model/resolve/main/tokenizer.json" => ("200 OK", "{}"),
                    "/org/model/resolve/main/tokenizer_config.json" => {
                        ("200 OK", r#"{"chat_template": "x"}"#)
                    }
                    _ if path.starts_with("/org/gated/") && !authorized => ("401 Unauthorized", ""),
                    _ => ("404 Not Found", ""),
                };
                log.lock().unwrap().push(path);
                let length = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                )
                .unwrap();
            }
        });
        (url, seen)
    }

    fn hub(endpoint: &str, cache: &Path) -> Hub {
        Hub { endpoint: endpoint.to_owned(), token: None, offline: false, cache: cache.to_owned() }
    }

    #[test]
    fn a_tokenizer_is_downloaded_once() {
        let (url, seen) = hub_server();
        let cache = tempfile::tempdir().unwrap();
        let folder = hub(&url, cache.path()).folder("org/model").unwrap();
        assert_eq!(folder, cache.path().join("org--model"));
        assert_eq!(fs::read(folder.join(TOKENIZER_FILE)).unwrap(), b"{}");
        assert_eq!(fs::read(folder.join(CONFIG_FILE)).unwrap(), br#"{"chat_template": "x"}"#);
        let requests = seen.lock().unwrap().len();
        assert_eq!(requests, 4, "each file that may exist is asked for once");
        hub(&url, cache.path()).folder("org/model").unwrap();
        let offline = Hub { offline: true, ..hub(&url, cache.path()) };
        offline.folder("org/model").unwrap();
        assert_eq!(seen.lock().unwrap().len(), requests, "the cache answers");
        let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "no partial files stay: {left:?}");
    }

    #[test]
    fn what_cannot_be_fetched_is_named_with_the_remedy() {
        let (url, _) = hub_server();
        let cache = tempfile::tempdir().unwrap();
        let fail = |hub: Hub, name: &str| hub.folder(name).unwrap_err().to_string();

        let missing = fail(hub(&url, cache.path()), "org/other");
        assert!(missing.contains("/org/other/resolve/main/tokenizer.json: no such model"), "{missing}");
        let gated = fail(hub(&url, cache.path()), "org/gated");
        assert!(gated.contains("set HF_TOKEN"), "{gated}");
        let token = Some("wr0ng".to_owned());
        let refused = fail(Hub { token, ..hub(&url, cache.path()) }, "org/gated");
        assert!(refused.contains("HF_TOKEN does not open it") && !refused.contains("wr0ng"), "{refused}");
        let offline = fail(Hub { offline: true, ..hub(&url, cache.path()) }, "org/model");
        assert!(offline.contains("HF_HUB_OFFLINE"), "{offline}");

        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let unreachable = fail(hub(&format!("http://{closed}"), cache.path()), "org/model");
        assert!(unreachable.starts_with("cannot fetch http://127.0.0.1:"), "{unreachable}");
        assert!(unreachable.ends_with("give a folder or a tokenizer.json file instead"), "{unreachable}");
    }

    #[test]
    fn a_hub_name_is_an_organisation_and_a_model() {
        for name in ["Qwen/Qwen3-0.6B", "org/a_b.c"] {
            assert!(is_hub_name(name), "{name}");
        }
        for name in
            ["gpt2", "/org/model", "org/model/x", "./model", "../model", "org/..", "a b/c", "org/", "a--b/c"]
        {
            assert!(!is_hub_name(name), "{name}");
        }
    }
}
