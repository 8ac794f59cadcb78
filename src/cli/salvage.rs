//! `tokentape salvage`: what can still be read of a broken tape.

use std::io;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::edit::{CREATED_BY, Output, Scope};
use super::{Failure, Outcome};
use crate::tape::{Header, Salvage, edit};

/// Which tape, and where its good part goes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The broken tape
    #[arg(value_name = "BROKEN")]
    tape: PathBuf,
    #[command(flatten)]
    output: Output,
}

const EXAMPLES: &str = "\
The complete records before the break become a whole tape. Of a part that is cut off, every complete
line is kept; of one that is damaged, none, since any could be wrong. The header is that of the
broken tape, within the new one's, which also names the broken file by its BLAKE3.

Examples:
  tokentape salvage broken.tape.zst -o good.tape.zst
  tokentape cat --salvage broken.tape.zst | tail -1";

pub(super) fn exec(args: Args) -> Outcome {
    args.output.keep_apart([&args.tape])?;
    let salvage = Salvage::open(&args.tape)?;
    let header = header(&args, salvage.header())?;
    args.output.write(&header, Scope::default(), |tape| {
        let mut notes = vec!["the tape was whole: nothing was lost".to_owned()];
        for entry in salvage.entries() {
            match entry {
                Ok(entry) => tape.keep(&entry)?,
                Err(error) => notes = vec![format!("the {error}")],
            }
        }
        Ok(notes)
    })
}

/// The broken tape has no workload digest: its file's own names it.
fn header(args: &Args, of: &Header) -> Result<Header, Failure> {
    let unreadable = |error: io::Error| {
        Failure::input(format_args!("tape {} cannot be read: {error}", args.tape.display()))
    };
    let mut hasher = blake3::Hasher::new();
    let mut file = std::fs::File::open(&args.tape).map_err(unreadable)?;
    io::copy(&mut file, &mut hasher).map_err(unreadable)?;
    let mut params = Map::new();
    params.insert("file_blake3".to_owned(), hasher.finalize().to_hex().as_str().into());
    let mut of_json = json!({"created_by": of.created_by, "source": of.source, "params": of.params});
    if let Some(seed) = of.seed {
        of_json["seed"] = Value::from(seed);
    }
    params.insert("of".to_owned(), of_json);
    Ok(edit::header(CREATED_BY, "salvage", &[], params, of.tokenizer.clone()))
}
