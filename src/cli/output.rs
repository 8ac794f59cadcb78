//! Where a command's output goes: stdout for what machines read, stderr for what people watch.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::Failure;

/// Creates `path` for writing, and its parent folder where that is missing: at the start of a command, so that a bad
/// path fails in the first second.
pub(super) fn create(path: &Path) -> Result<BufWriter<File>, Failure> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|error| {
            Failure::run(format_args!("cannot create the folder {}: {error}", parent.display()))
        })?;
    }
    let file = File::create(path)
        .map_err(|error| Failure::run(format_args!("cannot write {}: {error}", path.display())))?;
    Ok(BufWriter::new(file))
}

/// Writes `text` to stdout.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// Writes bytes to stdout.
pub(super) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()?;
    Ok(())
}

/// Writes bytes to this file, or to stdout.
pub(super) fn write(path: Option<&Path>, bytes: &[u8]) -> Result<(), Failure> {
    let Some(path) = path else { return print_bytes(bytes) };
    let mut file = create(path)?;
    file.write_all(bytes).and_then(|()| file.flush())?;
    Ok(())
}
