//! The HTML pages: what they hold, and, where there is a browser, what they show.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{LENIENT, Mock, Scripted, bad, good, stream_of, tape, tokentape};

/// A name that would break out of a page that let it.
const HOSTILE: &str = "</script><script>document.title='broken'</script><img src=x onerror=alert(1)>";

/// A folder with a tape, and runs of it.
struct Runs {
    folder: tempfile::TempDir,
}

impl Runs {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        tape(&folder.path().join("t.tape.zst"), 24, &[]);
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn replay(&self, url: &str, name: &str, more: &[&str]) {
        let mut command =
            tokentape(["replay", &self.path("t.tape.zst"), "--url", url, "-o", &self.path(name)]);
        command.args(["--concurrency", "4", "--verdict", LENIENT, "-q"]).args(more);
        // Whether requests failed is what some of these are about.
        command.output().unwrap();
    }

    fn page(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }
}

/// The data of a page, as its script reads them.
fn data(page: &str) -> Value {
    let (_, rest) = page.split_once(r#"<script type="application/json" id="data">"#).unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

fn json(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_run_leaves_a_page_with_its_figures() {
    let runs = Runs::new();
    let mock = Mock::start(&["--model", HOSTILE]);
    runs.replay(&mock.url, "run", &["--model", HOSTILE, "--goodput", "ttft:10s"]);
    let page = runs.page("run/report.html");
    let data = data(&page);
    let summary = json(&runs.path("run/summary.json"));
    for key in ["requests", "ttft_ms", "itl_ms", "tpot_ms", "e2el_ms", "output_throughput_tokens_per_s"] {
        assert_eq!(data["metrics"][key], summary[key], "{key}");
    }
    assert_eq!(data["client"], summary["client"]);
    assert_eq!(data["verdict"]["valid"], true);
    assert_eq!(data["goodput"]["requests"], 24);
    let dialects = data["dialects"].as_array().unwrap();
    assert_eq!(dialects.len(), 6);
    assert_eq!(dialects[0]["figures"]["median_ttft_ms"], summary["ttft_ms"]["p50"]);
    let total =
        |column: &Value| column.as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum::<u64>();
    assert_eq!(total(&data["requests"]["tokens"]), 24 * 7);
    assert_eq!(total(&data["sides"][0]["over_time"]["succeeded"]), 24);
    assert_eq!(data["sides"][0]["curves"]["itl"]["count"], summary["itl_ms"]["count"]);
    // Names are data and nothing else.
    assert!(data["sides"][0]["facts"].to_string().contains("onerror"));
    assert_eq!(page.matches("<script").count(), 2, "{page}");
    assert!(!page.contains("<img"));

    assert_eq!(good(["report", &runs.path("run"), "--format", "html", "--goodput", "ttft:10s"]), page);
    runs.replay(&mock.url, "run", &["--model", HOSTILE, "--force", "--no-html"]);
    assert!(!Path::new(&runs.path("run/report.html")).exists(), "the page of another run");
}

#[test]
fn failures_are_on_the_page_with_what_was_seen() {
    let runs = Runs::new();
    let server = Scripted::start(stream_of(&[r#"{"error":{"message":"<b>no</b>"}}"#], false));
    runs.replay(&server.url, "run", &[]);
    let page = runs.page("run/report.html");
    let data = data(&page);
    assert_eq!(data["verdict"]["valid"], false);
    // A request may also meet the connection that the server has just closed.
    let failures = data["failures"].as_array().unwrap();
    let counts = failures.iter().map(|failure| failure["count"].as_u64().unwrap());
    assert_eq!(counts.sum::<u64>(), 24);
    let in_band = failures.iter().find(|failure| failure["kind"] == "in_band").unwrap();
    assert!(in_band["examples"][0][0].as_str().unwrap().contains("<b>no</b>"));
    assert!(!page.contains("<b>"));
}

#[test]
fn a_comparison_is_a_page_too() {
    let runs = Runs::new();
    let mock = Mock::start(&["--model", "tokentape"]);
    for name in ["a", "b"] {
        runs.replay(&mock.url, name, &["--no-html"]);
    }
    let (a, b, page) = (runs.path("a"), runs.path("b"), runs.path("c.html"));
    good(["compare", &a, &b, "--explain", "--format", "html", "-o", &page]);
    let data = data(&runs.page("c.html"));
    let printed: Value = serde_json::from_str(&good(["compare", &a, &b, "--explain", "--json"])).unwrap();
    let compared = &data["comparisons"][0];
    for key in ["a", "b", "metrics", "notes", "explanation"] {
        assert_eq!(compared[key], printed["comparisons"][0][key], "{key}");
    }
    assert_eq!(compared["paired"]["e2el"]["count"], 24);
    assert_eq!(data["sides"].as_array().unwrap().len(), 2);
}

#[test]
fn what_has_no_page_says_so() {
    let runs = Runs::new();
    let mock = Mock::start(&["--model", "tokentape"]);
    runs.replay(&mock.url, "run", &[]);
    let run = runs.path("run");
    let error = bad(2, ["report", &run, "--format", "html", "--dialect", "vllm-0.11.0"]);
    assert!(error.contains("--format html shows every dialect"), "{error}");
    let error = bad(2, ["report", &run, "--format", "html", "--steady"]);
    assert!(error.contains("leave out"), "{error}");
}

/// A browser, where this machine has one.
fn browser() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|path| path.exists())
}

/// The page as the browser has it once its script has run.
fn shown(browser: &Path, page: &str, profile: &Path) -> String {
    let output = Command::new(browser)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{page}"))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The exact values that the page gives with its figures, by the figure's place in `summary.json`.
fn figures(dom: &str) -> Vec<(String, f64)> {
    let attribute = |tag: &str, name: &str| {
        let (_, rest) = tag.split_once(&format!("{name}=\""))?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let tags = dom.split('<').filter_map(|text| text.split_once('>')).map(|(tag, _)| tag);
    tags.filter_map(|tag| Some((attribute(tag, "data-key")?, attribute(tag, "data-value")?.parse().ok()?)))
        .collect()
}

#[test]
fn a_browser_shows_the_figures_of_the_summary() {
    let Some(browser) = browser() else {
        println!("skipped: no Chromium on this machine's PATH, so the page is not looked at in one");
        return;
    };
    let runs = Runs::new();
    let mock = Mock::start(&["--model", HOSTILE]);
    runs.replay(&mock.url, "run", &["--model", HOSTILE]);
    let profile = runs.folder.path().join("profile");
    let dom = shown(&browser, &runs.path("run/report.html"), &profile);
    let summary = json(&runs.path("run/summary.json"));
    let mut checked = 0;
    for (key, value) in figures(&dom) {
        let found = key.split('.').try_fold(&summary, |of, part| of.get(part));
        if let Some(expected) = found {
            assert_eq!(Some(value), expected.as_f64(), "{key}");
            checked += 1;
        }
    }
    // Six latencies and four delays of nine statistics each, and the tiles.
    assert!(checked >= 90, "{checked} figures\n{dom}");
    for section in ["verdict", "ran", "figures", "distributions", "time", "requests", "client", "dialects"] {
        assert!(dom.contains(&format!("<section id=\"{section}\"")), "{section}");
    }
    assert!(dom.matches("class=\"plot\"").count() >= 13 && dom.contains("<canvas"), "charts");
    assert!(dom.contains("<title>Run of t.tape.zst: tokentape</title>"), "{dom}");
    assert!(dom.contains("&lt;/script&gt;") && !dom.contains("<img"), "the name is shown as it is");

    runs.replay(&mock.url, "b", &["--model", HOSTILE]);
    let (a, b, page) = (runs.path("run"), runs.path("b"), runs.path("c.html"));
    good(["compare", &a, &b, "--explain", "--format", "html", "-o", &page]);
    let printed: Value = serde_json::from_str(&good(["compare", &a, &b, "--json"])).unwrap();
    let dom = shown(&browser, &page, &profile);
    let figures = figures(&dom);
    for row in printed["comparisons"][0]["metrics"].as_array().unwrap() {
        for side in ["a", "b", "difference"] {
            let key = format!("{side}.{}", row["metric"].as_str().unwrap());
            let value = figures.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
            assert_eq!(value, row[side].as_f64(), "{key}");
        }
    }
    for section in ["figures", "why", "distributions", "paired", "time"] {
        assert!(dom.contains(&format!("<section id=\"{section}\"")), "{section}");
    }
}
