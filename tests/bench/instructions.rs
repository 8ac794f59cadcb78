//! Instruction counts of the hot path, held against budgets: the guard that needs no quiet machine.
//!
//! Each part runs under callgrind twice, with so many items and with twice as many. The difference, divided by the
//! items, is what one costs: starting up cancels out, and the system's own work is not counted.
//!
//! - **client**: one event of a stream, from the receive call to its place in the timeline. The server is a socket of
//!   the same thread, which gets an event whenever the client waits; so there is one read an event.
//! - **mock**: one event of a stream, made, handed out, written and put into the truth log. All are due at once: an event
//!   that comes late waits for nothing, so that what waiting costs would depend on the machine.
//! - **tape**: one record of a tape, read.
//!
//! The budgets are in `instructions.tsv`, one column for each of cargo's profiles. More than a tenth above one fails.
//!
//! ```text
//! cargo bench --profile dev --bench instructions
//! cargo bench --bench instructions -- tape
//! ```

#[path = "instructions/parts.rs"]
mod parts;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Parser;

use parts::Part;

/// What each part may cost.
const BUDGETS: &str = include_str!("instructions.tsv");
/// What a count may exceed its budget by, as a share of it: compilers and processors differ.
const TOLERANCE: f64 = 0.1;
/// The column of the budgets that holds for this build.
const PROFILE: &str = if cfg!(debug_assertions) { "dev" } else { "release" };

/// Instruction counts of the hot path, held against budgets.
#[derive(Debug, Parser)]
struct Args {
    /// What to count; without any, everything
    parts: Vec<Part>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
    /// Be the part that is counted, with so many items
    #[arg(long, hide = true, num_args = 2, value_names = ["ITEMS", "FILE"])]
    counted: Vec<String>,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args = Args::parse();
    if let ([part], [items, file]) = (args.parts.as_slice(), args.counted.as_slice()) {
        part.run(items.parse()?, Path::new(file))?;
        return Ok(ExitCode::SUCCESS);
    }
    let parts = if args.parts.is_empty() { Part::ALL.to_vec() } else { args.parts };
    let folder = std::env::temp_dir().join(format!("tokentape-instructions-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    println!("{:<8}{:>14}{:>14}{:>9}   profile {PROFILE}", "", "instructions", "budget", "off by");
    let judged = parts.iter().map(|part| judge(*part, &folder)).collect::<Result<Vec<bool>, _>>();
    fs::remove_dir_all(&folder)?;
    let good = judged?.into_iter().all(|good| good);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Counts one part and prints it; whether it is within its budget.
fn judge(part: Part, folder: &Path) -> Result<bool, Box<dyn Error>> {
    let items = part.items();
    let (once, twice) = (count(part, items, folder)?, count(part, 2 * items, folder)?);
    let counted = (twice as f64 - once as f64) / items as f64;
    let budget = budget(part)?;
    let off = counted / budget - 1.0;
    let good = off <= TOLERANCE;
    let words = match (good, off < -TOLERANCE) {
        (false, _) => "   over budget",
        (true, true) => "   the budget can be lowered",
        (true, false) => "",
    };
    println!("{:<8}{counted:>14.0}{budget:>14.0}{:>+8.1} %{words}", part.name(), off * 100.0);
    Ok(good)
}

fn budget(part: Part) -> Result<f64, Box<dyn Error>> {
    let mut lines = BUDGETS.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t'));
    let column = lines.next().and_then(|mut head| head.position(|name| name == PROFILE));
    let row = lines.find_map(|mut row| (row.next() == Some(part.name())).then_some(row));
    let cell = row.zip(column).and_then(|(mut row, column)| row.nth(column - 1));
    let cell = cell.ok_or_else(|| format!("instructions.tsv has no {PROFILE} budget for {}", part.name()))?;
    Ok(cell.parse()?)
}

/// How many instructions a part executes, all of its threads together.
fn count(part: Part, items: usize, folder: &Path) -> Result<u64, Box<dyn Error>> {
    let (profile, file) = (folder.join("callgrind.out"), folder.join(part.name()));
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--quiet"]);
    valgrind.arg(format!("--callgrind-out-file={}", profile.display()));
    part.prepare(items, &file)?;
    match part {
        Part::Mock => parts::ask_mock(valgrind, items, &file)?,
        Part::Client | Part::Tape => {
            valgrind.arg(std::env::current_exe()?).arg(part.name());
            valgrind.arg("--counted").arg(items.to_string()).arg(&file);
            let output = valgrind.stdin(Stdio::null()).output().map_err(parts::no_valgrind)?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(format!("{} ended with {}: {said}", part.name(), output.status).into());
            }
        }
    }
    total(&profile)
}

/// The sum that a file of callgrind's ends with.
fn total(profile: &PathBuf) -> Result<u64, Box<dyn Error>> {
    let text = fs::read_to_string(profile)?;
    let total = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.ok_or("callgrind left no totals")?.trim().parse()?)
}
