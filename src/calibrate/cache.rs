//! The last calibration of this machine, in the user's cache.
//!
//! The file's name holds a digest of the machine's facts: a home that several machines share holds one for each, and a
//! machine that got another processor or kernel has none until it is calibrated again.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Calibration, FORMAT};
use crate::run::Machine;

/// Where this machine's calibration lies: below `$XDG_CACHE_HOME`, or else `$HOME/.cache`; none where neither is set.
#[must_use]
pub fn path() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
    let cache = variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")))?;
    Some(
        cache
            .join("tokentape")
            .join(format!("calibration-{}.json", digest(&Machine::this(), cpu().as_deref()))),
    )
}

/// The last calibration of this machine. What another version wrote, or nobody can read, is as good as none.
#[must_use]
pub fn load() -> Option<Calibration> {
    read(&path()?)
}

/// Keeps a calibration as this machine's last; returns where.
pub fn save(calibration: &Calibration) -> io::Result<Option<PathBuf>> {
    let Some(path) = path() else { return Ok(None) };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Written whole or not at all, whoever else calibrates.
    let part = path.with_extension(format!("{}.part", std::process::id()));
    fs::write(&part, serde_json::to_string_pretty(calibration)? + "\n")?;
    fs::rename(&part, &path)?;
    Ok(Some(path))
}

/// The processor's name, where the system tells.
#[must_use]
pub fn cpu() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn read(path: &Path) -> Option<Calibration> {
    let calibration: Calibration = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
    (calibration.format == FORMAT).then_some(calibration)
}

fn digest(machine: &Machine, cpu: Option<&str>) -> String {
    let facts =
        [&machine.system, &machine.arch, &machine.cpus.to_string(), cpu.unwrap_or_default()].join("\n");
    blake3::hash(facts.as_bytes()).to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::Setting;

    #[test]
    fn only_this_format_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calibration.json");
        assert_eq!(read(&path), None);
        let setting = Setting { ttft_ns: 1, itl_ns: 2, output_tokens: 3 };
        let mut calibration = Calibration::new("t".to_owned(), "now".to_owned(), cpu(), setting, vec![]);
        fs::write(&path, serde_json::to_string(&calibration).unwrap()).unwrap();
        assert_eq!(read(&path).as_ref(), Some(&calibration));
        calibration.format = FORMAT + 1;
        fs::write(&path, serde_json::to_string(&calibration).unwrap()).unwrap();
        assert_eq!(read(&path), None);
        fs::write(&path, "{").unwrap();
        assert_eq!(read(&path), None);
    }

    #[test]
    fn another_machine_has_another_name() {
        let this = Machine::this();
        let other = Machine { cpus: this.cpus + 1, ..this.clone() };
        assert_ne!(digest(&this, Some("a")), digest(&other, Some("a")));
        assert_ne!(digest(&this, Some("a")), digest(&this, Some("b")));
    }
}
