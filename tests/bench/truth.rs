//! Measured against true: 50 streams, TTFT 20 ms, ITL 10 ms, 100 tokens, on the bundled mock in a process of its own.
//!
//! Prints what the client measured, what the truth log says, and their difference. It judges nothing: the machine does
//! not stand still, so run it several times and quote medians.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let folder = std::env::temp_dir().join("tokentape-bench-truth");
    let status = Command::new(env!("CARGO_BIN_EXE_tokentape"))
        .args([
            "demo",
            "--quiet",
            "--requests",
            "500",
            "--concurrency",
            "50",
            "--ttft",
            "20ms",
            "--itl",
            "10ms",
        ])
        .arg("--output")
        .arg(folder)
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
