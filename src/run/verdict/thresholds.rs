//! What a verdict's rules hold the client's delays against.

use serde::{Deserialize, Serialize};

/// The thresholds of the rules that have one. A share is of the whole: 0.1 is 10 %.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Thresholds {
    /// With a schedule: the p99 of dispatch lateness, as a share of the median TTFT. INVALID above it.
    pub late_dispatch: f64,
    /// In a closed loop: the share of time in which slots that had work stood idle. INVALID above it.
    pub idle: f64,
    /// The p99 of read delay, as a share of the mean ITL; and of first tokens, of the median TTFT. INVALID above it.
    pub read_delay: f64,
    /// The share of its time that a sending thread spent computing. INVALID above it.
    pub cpu: f64,
    /// The share of its time that a sending thread waited for a processor. INVALID above it.
    pub cpu_wait: f64,
    /// The p99 of write delay, as a share of the median TTFT. A warning above it.
    pub write_delay: f64,
    /// The share of output events that shared a socket read. A warning above it.
    pub merged: f64,
    /// Successful requests. A warning below it.
    pub samples: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            late_dispatch: 0.1,
            idle: 0.05,
            read_delay: 0.5,
            cpu: 0.9,
            cpu_wait: 0.15,
            write_delay: 0.1,
            merged: 0.05,
            samples: 100,
        }
    }
}

/// What is not a threshold.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UnknownThreshold {
    /// There is no rule of that name.
    #[error("no rule with a threshold is called '{0}'; known are {names}", names = NAMES.join(", "))]
    Name(String),
    /// The value is not one.
    #[error("{name}: '{value}' is not {wanted}")]
    Value {
        /// The rule.
        name: String,
        /// The value that was given.
        value: String,
        /// What is wanted.
        wanted: &'static str,
    },
    /// There is no value.
    #[error("'{0}' has no value; give it as NAME=VALUE, such as read-delay=50%")]
    Missing(String),
}

/// The rules with a threshold, in alphabetical order.
const NAMES: [&str; 8] =
    ["cpu", "cpu-wait", "idle", "late-dispatch", "merged", "read-delay", "samples", "write-delay"];

impl Thresholds {
    /// Sets one from `NAME=VALUE`; a share is given as `5%` or `0.05`.
    pub fn set(&mut self, text: &str) -> Result<(), UnknownThreshold> {
        let (name, value) = text.split_once('=').ok_or_else(|| UnknownThreshold::Missing(text.to_owned()))?;
        let wrong =
            |wanted| UnknownThreshold::Value { name: name.to_owned(), value: value.to_owned(), wanted };
        let share = match name {
            "cpu" => &mut self.cpu,
            "cpu-wait" => &mut self.cpu_wait,
            "idle" => &mut self.idle,
            "late-dispatch" => &mut self.late_dispatch,
            "merged" => &mut self.merged,
            "read-delay" => &mut self.read_delay,
            "write-delay" => &mut self.write_delay,
            "samples" => {
                self.samples = value.parse().map_err(|_| wrong("a whole number"))?;
                return Ok(());
            }
            _ => return Err(UnknownThreshold::Name(name.to_owned())),
        };
        *share = parse_share(value).ok_or_else(|| wrong("a share, such as 5% or 0.05"))?;
        Ok(())
    }
}

/// A share, written as `5%` or `0.05`.
pub(crate) fn parse_share(text: &str) -> Option<f64> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().ok()? / 100.0,
        None => text.parse().ok()?,
    };
    // JSON knows no infinity, and nothing is less than no delay at all.
    (share >= 0.0 && share.is_finite()).then_some(share)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "decimals of one writing are one number")]
mod tests {
    use super::*;

    #[test]
    fn every_name_sets_its_own() {
        for name in NAMES {
            let mut thresholds = Thresholds::default();
            thresholds.set(&format!("{name}=3")).unwrap();
            let key = name.replace('-', "_");
            let (old, new) = (Thresholds::default(), thresholds);
            let (old, new) = (serde_json::to_value(old).unwrap(), serde_json::to_value(new).unwrap());
            for (field, value) in new.as_object().unwrap() {
                assert_eq!(*field == key, *value != old[field], "{name} {field}");
            }
            assert_eq!(new[&key].as_f64(), Some(3.0));
            let docs = include_str!("../../../docs/verdict.md");
            assert!(docs.contains(&format!("`{name}`")), "{name} is not documented");
        }
        assert_eq!(
            serde_json::to_value(Thresholds::default()).unwrap().as_object().unwrap().len(),
            NAMES.len()
        );
        assert!(NAMES.is_sorted());
    }

    #[test]
    fn a_share_may_be_a_percentage() {
        let mut thresholds = Thresholds::default();
        for (text, share) in [("idle=12.5%", 0.125), ("idle=0.25", 0.25), ("idle=0", 0.0), ("idle=300%", 3.0)]
        {
            thresholds.set(text).unwrap();
            assert_eq!(thresholds.idle, share);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("idle", "'idle' has no value"),
            ("ide=1%", "known are cpu, cpu-wait, idle"),
            ("idle=x", "idle: 'x' is not a share, such as 5% or 0.05"),
            ("idle=-1%", "not a share"),
            ("idle=inf", "not a share"),
            ("idle=NaN%", "not a share"),
            ("samples=1%", "samples: '1%' is not a whole number"),
        ] {
            let error = Thresholds::default().set(text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
