//! The bundled mock server in a process of its own, so that its work and the client's do not share a thread.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{Failure, Outcome};

/// The mock server, as a child process that ends with this value.
pub(super) struct Mock {
    process: Child,
    /// Where it listens.
    pub(super) url: String,
}

impl Mock {
    /// Starts it on a free port; `ttft` and `itl` are in the mock's own words, such as `20ms`.
    pub(super) fn start(truth_log: &Path, ttft: &str, itl: &str) -> Result<Self, Failure> {
        let program = std::env::current_exe()?;
        let mut process = Command::new(program)
            .args(["mock", "--port", "0", "--ttft", ttft, "--itl", itl])
            // It is measured here, and so is not to wait behind a client that goes first.
            .args(["--priority", "real-time"])
            // How late it was is told by whoever started it, and is no part of a client's error.
            .args(["--max-lateness", "3600s"])
            .args(["--model", "tokentape", "--truth-log"])
            .arg(truth_log)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::run(format_args!("cannot start the mock server: {error}")))?;
        let mut line = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if let Some(url) = line.trim().strip_prefix("listening on ") {
            return Ok(Self { url: url.to_owned(), process });
        }
        process.wait()?;
        Err(Failure::run("the mock server did not start; what it said is above"))
    }

    /// Asks it to end, and waits until its truth log is whole.
    pub(super) fn stop(mut self) -> Outcome {
        terminate(&mut self.process)?;
        let status = self.process.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(Failure::run(format_args!("the mock server ended with {status}")))
        }
    }
}

/// A command that fails half-way leaves no server behind.
impl Drop for Mock {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            drop(self.process.kill());
            drop(self.process.wait());
        }
    }
}

#[cfg(unix)]
fn terminate(process: &mut Child) -> std::io::Result<()> {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    let id = i32::try_from(process.id()).map_err(std::io::Error::other)?;
    Ok(kill(Pid::from_raw(id), Signal::SIGTERM)?)
}

#[cfg(not(unix))]
fn terminate(process: &mut Child) -> std::io::Result<()> {
    process.kill()
}
