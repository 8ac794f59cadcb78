//! Whether and how often a replay reads the server's own metrics.

use std::time::Duration;

/// The server's side of the story.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ScrapeArgs {
    /// Read the server's /metrics this often during the run, besides before it and after it
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_interval)]
    scrape_interval: Duration,
    /// Ask the server for nothing but the tape's requests: leave out /metrics, /version and /v1/models
    #[arg(long, conflicts_with = "scrape_interval")]
    no_scrape: bool,
}

impl ScrapeArgs {
    /// How often to read; none for never.
    pub(super) fn interval(&self) -> Option<Duration> {
        (!self.no_scrape).then_some(self.scrape_interval)
    }
}

/// A scrape costs the server some milliseconds that it would have for the run.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval < Duration::from_millis(100) {
        return Err("shorter than 100ms: the scrapes would be load of their own".to_owned());
    }
    Ok(interval)
}
