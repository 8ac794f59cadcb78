//! The server's side of a replay's arguments: where requests go, and with what.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::Failure;
use crate::effort::Priority;
use crate::replay::Target;

/// Where to send, and with what.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct ServerArgs {
    /// The server, such as <http://127.0.0.1:8000>; a base path is kept, and a closing /v1 may be given or left out
    #[arg(long)]
    url: String,
    /// Put this model's name into each body, in place of the tape's
    #[arg(long)]
    pub(in crate::cli) model: Option<String>,
    /// Time limit of each request
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    pub(in crate::cli) timeout: Duration,
    /// Send `Authorization: Bearer` with the key in this environment variable
    #[arg(long, value_name = "VAR")]
    api_key_env: Option<String>,
    /// Send this header with each request; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Trust the certificate authorities in this PEM file too
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Sending threads, each with its share of the connections
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(in crate::cli) workers: u32,
    /// How these threads run. Real-time priority takes the right to it (`CAP_SYS_NICE`, or `ulimit -r`); without it they
    /// run as others do
    #[arg(long, value_enum, value_name = "HOW", default_value_t = PriorityChoice::Auto)]
    priority: PriorityChoice,
}

/// How threads run.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum PriorityChoice {
    /// Real-time where the server is on another machine; on this one it would be the server that waits
    Auto,
    /// Before all ordinary threads, where the system grants it
    RealTime,
    /// In turn with the others
    Normal,
}

impl ServerArgs {
    /// How the sending threads are to run.
    pub(in crate::cli) fn priority(&self) -> Option<Priority> {
        match self.priority {
            PriorityChoice::Auto => None,
            PriorityChoice::RealTime => Some(Priority::RealTime),
            PriorityChoice::Normal => Some(Priority::Normal),
        }
    }

    /// The server with its headers.
    pub(in crate::cli) fn target(&self) -> Result<Target, Failure> {
        let mut target = Target::new(&self.url)?;
        target.ca_file.clone_from(&self.ca_file);
        for header in &self.headers {
            target.header(header)?;
        }
        if let Some(variable) = &self.api_key_env {
            let key = std::env::var(variable).map_err(|_| {
                Failure::usage(format_args!("--api-key-env: the variable {variable} is not set"))
            })?;
            target.api_key(&key)?;
        }
        Ok(target)
    }
}
