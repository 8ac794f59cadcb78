//! Against the floor: tokentape and a bare epoll client in turn on one mock server, each in a process of its own.
//!
//! Prints, for each number of streams, the error of both against the truth log, the CPU time that each spent on an
//! event, their memory, and the ratio. Medians of the rounds. It judges nothing: the machine does not stand still.
//!
//! ```text
//! cargo bench --bench floor -- --streams 50,500,1000 --rounds 5 --json
//! ```

#[path = "floor/client.rs"]
mod client;

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use clap::Parser;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;
use tokentape::metrics::stats::{median, percentile, sorted};
use tokentape::run::Run;
use tokentape::truth::{self, Check, Comparison};
use tokentape_mock::truth::{EventKind, Record};

/// Against the floor: tokentape and a bare epoll client in turn on one mock server.
#[derive(Debug, Parser)]
struct Args {
    /// Streams at once
    #[arg(long, value_delimiter = ',', default_value = "50,500")]
    streams: Vec<usize>,
    /// How often both run at each number of streams
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Requests of each run, per stream
    #[arg(long, default_value_t = 4)]
    requests_per_stream: usize,
    /// The mock's time to first token
    #[arg(long, default_value = "20ms")]
    ttft: String,
    /// The mock's time from token to token
    #[arg(long, default_value = "10ms")]
    itl: String,
    /// Another tokentape than the one just built
    #[arg(long, default_value = env!("CARGO_BIN_EXE_tokentape"))]
    tokentape: PathBuf,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
    /// Be the bare client: TAPE ADDRESS REQUESTS STREAMS OUTPUT
    #[arg(long, hide = true, num_args = 5)]
    client: Vec<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    if let [tape, address, requests, streams, output] = args.client.as_slice() {
        let (tape, output) = (Path::new(tape), Path::new(output));
        return client::run(tape, address.parse()?, requests.parse()?, streams.parse()?, output);
    }
    let folder = std::env::temp_dir().join(format!("tokentape-floor-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let mut shown = Ok(());
    for streams in &args.streams {
        let folder = folder.join(streams.to_string());
        fs::create_dir_all(&folder)?;
        shown = load(&args, *streams, &folder);
        if shown.is_err() {
            break;
        }
    }
    fs::remove_dir_all(&folder)?;
    shown
}

/// One number of streams: the rounds on one mock, then the figures of both clients.
fn load(args: &Args, streams: usize, folder: &Path) -> Result<(), Box<dyn Error>> {
    let requests = streams * args.requests_per_stream;
    let tape = folder.join("load.tape.zst");
    let mut generate = Command::new(&args.tokentape);
    generate.args(["generate", "random", "--requests", &(requests + streams).to_string(), "-o"]);
    finish(generate.arg(&tape).stdout(Stdio::null()).spawn()?)?;
    let truth_log = folder.join("truth.jsonl");
    let (mock, address) = start_mock(args, &truth_log)?;
    let mut runs = Vec::new();
    for round in 0..args.rounds {
        for client in [Client::Floor, Client::Tokentape] {
            let output = folder.join(format!("{client:?}-{round}"));
            let cost = client.run(args, &tape, address, (requests, streams), &output)?;
            runs.push((client, output, cost));
        }
    }
    kill(Pid::from_raw(i32::try_from(mock.id())?), Signal::SIGTERM)?;
    finish(mock)?;
    let records = tokentape_mock::truth::read(&truth_log)?.records;
    let mut figures = Vec::new();
    for (client, output, cost) in runs {
        figures.push((client, Figures::of(&client.check(&output, &records)?, cost, streams)));
    }
    let of = |wanted: Client| {
        let runs: Vec<Figures> =
            figures.iter().filter(|(client, _)| *client == wanted).map(|(_, figures)| *figures).collect();
        Figures::median(&runs)
    };
    show(streams, args, (of(Client::Floor), of(Client::Tokentape)));
    Ok(())
}

fn start_mock(args: &Args, truth_log: &Path) -> Result<(Child, SocketAddr), Box<dyn Error>> {
    let mut mock = Command::new(&args.tokentape)
        .args(["mock", "--port", "0", "--ttft", &args.ttft, "--itl", &args.itl, "--truth-log"])
        .arg(truth_log)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(mock.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
    let address = line.trim().strip_prefix("listening on http://").ok_or("the mock did not start")?;
    Ok((mock, address.parse()?))
}

fn finish(mut child: Child) -> Result<(), Box<dyn Error>> {
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("a process ended with {status}").into()) }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Client {
    Floor,
    Tokentape,
}

/// What a client's process took.
#[derive(Clone, Copy, Debug)]
struct Cost {
    cpu_us: f64,
    memory_mb: f64,
}

impl Client {
    fn run(
        self,
        args: &Args,
        tape: &Path,
        address: SocketAddr,
        (requests, streams): (usize, usize),
        output: &Path,
    ) -> Result<Cost, Box<dyn Error>> {
        let (address, requests, streams) = (address.to_string(), requests.to_string(), streams.to_string());
        let mut command = match self {
            Client::Floor => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("--client").arg(tape).args([&address, &requests, &streams]).arg(output);
                command
            }
            Client::Tokentape => {
                let mut command = Command::new(&args.tokentape);
                command.arg("replay").arg(tape).args(["--url", &format!("http://{address}"), "--quiet"]);
                command.args(["--requests", &requests, "--warmup", &streams, "--concurrency", &streams]);
                command.arg("-o").arg(output);
                command
            }
        };
        let before = children_us()?;
        let mut child = command.stdout(Stdio::null()).spawn()?;
        let mut memory_mb = 0.0;
        // The system keeps a peak only of all children together.
        while child.try_wait()?.is_none() {
            memory_mb = peak_mb(child.id()).unwrap_or(memory_mb);
            thread::sleep(Duration::from_millis(20));
        }
        finish(child)?;
        Ok(Cost { cpu_us: children_us()? - before, memory_mb })
    }

    fn check(self, output: &Path, records: &[Record]) -> Result<Check, Box<dyn Error>> {
        match self {
            Client::Tokentape => Ok(truth::check(&Run::load(output)?.timelines, &truth::by_id(records))),
            Client::Floor => {
                let answers: Result<Vec<client::Answer>, _> =
                    fs::read_to_string(output)?.lines().map(serde_json::from_str).collect();
                Ok(check(&answers?, records))
            }
        }
    }
}

/// The bare client's answers against the truth: event i of an answer is event i of its record.
fn check(answers: &[client::Answer], records: &[Record]) -> Check {
    let truths: std::collections::HashMap<&str, &Record> =
        records.iter().map(|record| (record.id.as_str(), record)).collect();
    let mut check = Check::default();
    let add = |comparison: &mut Comparison, measured: u64, truth: u64| {
        comparison.measured_ns.push(measured as f64);
        comparison.true_ns.push(truth as f64);
    };
    for answer in answers {
        let record = truths.get(answer.id.as_str());
        let Some(record) = record.filter(|record| record.written_ns.len() == answer.events_ns.len()) else {
            check.unmatched += 1;
            continue;
        };
        check.matched += 1;
        let events = record.events.iter().zip(answer.events_ns.iter().zip(&record.written_ns));
        let tokens: Vec<(u64, u64)> = events
            .filter(|(kind, _)| **kind == EventKind::Token)
            .map(|(_, (measured, truth))| (*measured, *truth))
            .collect();
        if let Some((measured, truth)) = tokens.first() {
            add(&mut check.ttft, measured - answer.dispatched_ns, truth - record.arrival_ns);
        }
        for pair in tokens.windows(2) {
            add(&mut check.itl, pair[1].0 - pair[0].0, pair[1].1 - pair[0].1);
        }
    }
    check
}

/// The CPU time of all children that have ended, in us.
fn children_us() -> Result<f64, Box<dyn Error>> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64)
}

/// The most memory that a process has had so far, in MB of 2^20 bytes.
fn peak_mb(id: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// One client's figures.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
struct Figures {
    cpu_us_per_event: f64,
    memory_mb: f64,
    ttft_true_us: f64,
    ttft_mean_error_us: f64,
    ttft_error_size_p99_us: f64,
    itl_p99_true_us: f64,
    itl_p99_error_us: f64,
    matched: f64,
    unmatched: f64,
}

impl Figures {
    fn of(check: &Check, cost: Cost, warmup: usize) -> Self {
        let sizes: Vec<f64> = check.ttft.errors().iter().map(|error| error.abs()).collect();
        let p99 = |values: &[f64]| percentile(&sorted(values), 99.0) / 1e3;
        // Each answer has a role chunk before its tokens and `[DONE]` after them; the warm-up's are as long, and cost too.
        let answers = check.ttft.true_ns.len() as f64;
        let events = (check.itl.true_ns.len() as f64 + 3.0 * answers) * (answers + warmup as f64) / answers;
        Self {
            cpu_us_per_event: cost.cpu_us / events,
            memory_mb: cost.memory_mb,
            ttft_true_us: check.ttft.true_mean() / 1e3,
            ttft_mean_error_us: check.ttft.error_of_mean() / 1e3,
            ttft_error_size_p99_us: p99(&sizes),
            itl_p99_true_us: p99(&check.itl.true_ns),
            itl_p99_error_us: p99(&check.itl.measured_ns) - p99(&check.itl.true_ns),
            matched: check.matched as f64,
            unmatched: check.unmatched as f64,
        }
    }

    /// Of each figure, the median of the runs.
    fn median(runs: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(&sorted(&runs.iter().map(figure).collect::<Vec<_>>()));
        Self {
            cpu_us_per_event: of(|run| run.cpu_us_per_event),
            memory_mb: of(|run| run.memory_mb),
            ttft_true_us: of(|run| run.ttft_true_us),
            ttft_mean_error_us: of(|run| run.ttft_mean_error_us),
            ttft_error_size_p99_us: of(|run| run.ttft_error_size_p99_us),
            itl_p99_true_us: of(|run| run.itl_p99_true_us),
            itl_p99_error_us: of(|run| run.itl_p99_error_us),
            matched: of(|run| run.matched),
            unmatched: of(|run| run.unmatched),
        }
    }
}

fn show(streams: usize, args: &Args, (floor, tokentape): (Figures, Figures)) {
    let ratio = tokentape.cpu_us_per_event / floor.cpu_us_per_event;
    if args.json {
        let line = serde_json::json!({
            "streams": streams, "rounds": args.rounds, "ttft": args.ttft, "itl": args.itl,
            "floor": floor, "tokentape": tokentape, "cpu_ratio": ratio,
        });
        println!("{line}");
        return;
    }
    println!(
        "{streams} streams, medians of {} rounds; us\n\
         {:<12}{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}{:>16}",
        args.rounds,
        "",
        "TTFT true",
        "mean error",
        "error p99",
        "ITL p99",
        "error",
        "CPU/event",
        "memory MB",
        "matched",
    );
    for (name, of) in [("bare loop", floor), ("tokentape", tokentape)] {
        println!(
            "{name:<12}{:>12.1}{:>+12.1}{:>12.1}{:>12.1}{:>+12.1}{:>12.2}{:>12.1}{:>8.0} of {:<5.0}",
            of.ttft_true_us,
            of.ttft_mean_error_us,
            of.ttft_error_size_p99_us,
            of.itl_p99_true_us,
            of.itl_p99_error_us,
            of.cpu_us_per_event,
            of.memory_mb,
            of.matched,
            of.matched + of.unmatched,
        );
    }
    println!("CPU an event: {ratio:.2} times the bare loop's\n");
}
