//! Faults as a person writes them: `KIND[:ARG[:ARG]][@RATE]`, several with commas between them.

use std::str::FromStr;

use super::{Fault, Faults, Rate, Rule};
use crate::duration::parse_ns;

/// Each kind's name and its arguments, as they are written on the command line.
pub const KINDS: [(&str, &str); 19] = [
    ("bad-json", "[:AFTER]"),
    ("comments", "[:EVERY]"),
    ("crlf", ""),
    ("cut-chunk", "[:AFTER]"),
    ("delay", ":SPAN"),
    ("drip", ":SPAN[:BYTES]"),
    ("duplicate", "[:AFTER]"),
    ("error", "[:AFTER]"),
    ("fin", "[:AFTER]"),
    ("hang", "[:AFTER[:SPAN]]"),
    ("hang-head", ""),
    ("merge", "[:COUNT]"),
    ("no-done", ""),
    ("no-usage", ""),
    ("refuse", ""),
    ("rst", "[:AFTER]"),
    ("split", "[:COUNT]"),
    ("split-utf8", "[:AFTER]"),
    ("status", ":CODE[:SECONDS]"),
];

/// The most events of one write, and writes of one event.
const MAX_COUNT: u32 = 10_000;

impl Fault {
    /// Its name on the command line.
    pub(super) const fn name(self) -> &'static str {
        let index = match self {
            Self::BadJson(_) => 0,
            Self::Comments(_) => 1,
            Self::Crlf => 2,
            Self::CutChunk(_) => 3,
            Self::Delay(_) => 4,
            Self::Drip { .. } => 5,
            Self::Duplicate(_) => 6,
            Self::Error(_) => 7,
            Self::Fin(_) => 8,
            Self::Hang(..) => 9,
            Self::HangHead => 10,
            Self::Merge(_) => 11,
            Self::NoDone => 12,
            Self::NoUsage => 13,
            Self::Refuse => 14,
            Self::Rst(_) => 15,
            Self::Split(_) => 16,
            Self::SplitUtf8(_) => 17,
            Self::Status(..) => 18,
        };
        KINDS[index].0
    }
}

impl Faults {
    /// Several rules with commas between them; none of an empty text, or of `none`.
    pub(crate) fn parse_rules(text: &str) -> Result<Vec<Rule>, String> {
        if text.trim().is_empty() || text.trim() == "none" {
            return Ok(Vec::new());
        }
        text.split(',').map(|rule| rule.trim().parse()).collect()
    }
}

/// The error is a whole sentence for the command line.
impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (fault, rate) = text.split_once('@').map_or((text, None), |(fault, rate)| (fault, Some(rate)));
        let rate = rate.map_or(Ok(Rate::Always), |rate| {
            parse_rate(rate).ok_or_else(|| {
                format!("the rate in `{text}` is neither a share such as 10% nor one of n such as 1/20")
            })
        })?;
        Ok(Self { fault: fault.parse()?, rate })
    }
}

/// The error is a whole sentence for the command line.
impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let Some((_, arguments)) = KINDS.iter().find(|(kind, _)| *kind == name) else {
            let kinds: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
            return Err(format!("there is no fault `{name}`; there are {}", kinds.join(", ")));
        };
        let parts: Vec<&str> = parts.collect();
        parse_arguments(name, &parts)
            .ok_or_else(|| format!("`{text}` is no fault; it is written {name}{arguments}"))
    }
}

fn parse_arguments(name: &str, parts: &[&str]) -> Option<Fault> {
    let number = |text: &str| text.parse::<u32>().ok();
    // At most one argument, a number.
    let optional = || match parts {
        [] => Some(None),
        [one] => number(one).map(Some),
        _ => None,
    };
    let count = |default| optional()?.map_or(Some(default), |n| (1..=MAX_COUNT).contains(&n).then_some(n));
    let bare = |fault| parts.is_empty().then_some(fault);
    let span = |text: &str| parse_ns(text).ok();
    match name {
        "bad-json" => optional().map(Fault::BadJson),
        "comments" => count(1).map(Fault::Comments),
        "crlf" => bare(Fault::Crlf),
        "cut-chunk" => optional().map(Fault::CutChunk),
        "delay" => match parts {
            [one] => span(one).map(Fault::Delay),
            _ => None,
        },
        "drip" => {
            let (gap, bytes) = match parts {
                [gap] => (gap, 1),
                [gap, bytes] => (gap, number(bytes).filter(|n| *n > 0)?),
                _ => return None,
            };
            Some(Fault::Drip { gap_ns: span(gap)?, bytes })
        }
        "duplicate" => optional().map(Fault::Duplicate),
        "error" => optional().map(Fault::Error),
        "fin" => optional().map(Fault::Fin),
        "hang" => match parts {
            [] => Some(Fault::Hang(None, None)),
            [after] => Some(Fault::Hang(Some(number(after)?), None)),
            [after, length] => Some(Fault::Hang(Some(number(after)?), Some(span(length)?))),
            _ => None,
        },
        "hang-head" => bare(Fault::HangHead),
        "merge" => count(2).map(Fault::Merge),
        "no-done" => bare(Fault::NoDone),
        "no-usage" => bare(Fault::NoUsage),
        "refuse" => bare(Fault::Refuse),
        "rst" => optional().map(Fault::Rst),
        "split" => count(2).map(Fault::Split),
        "split-utf8" => optional().map(Fault::SplitUtf8),
        "status" => {
            let (status, retry_after) = match parts {
                [status] => (status, None),
                [status, seconds] => (status, Some(number(seconds)?)),
                _ => return None,
            };
            let status = status.parse().ok().filter(|status| (400..600).contains(status))?;
            Some(Fault::Status(status, retry_after))
        }
        _ => None,
    }
}

fn parse_rate(text: &str) -> Option<Rate> {
    if let Some(n) = text.strip_prefix("1/") {
        return n.parse().ok().filter(|n| *n > 0).map(Rate::Every);
    }
    crate::args::parse_millipercent(text).ok().map(Rate::Share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_written_as_it_is_read() {
        for (kind, arguments) in KINDS {
            let written = match arguments {
                ":SPAN" | ":SPAN[:BYTES]" => format!("{kind}:7ms"),
                ":CODE[:SECONDS]" => format!("{kind}:429"),
                _ => kind.to_owned(),
            };
            let fault: Fault = written.parse().unwrap();
            assert_eq!(fault.name(), kind);
            assert_eq!(fault.to_string().parse(), Ok(fault), "{fault}");
        }
        for written in ["hang:3:20ms", "hang:3", "drip:1us:16", "status:503:2", "fin:9", "merge:4"] {
            let fault: Fault = written.parse().unwrap();
            assert_eq!(fault.to_string().parse(), Ok(fault));
        }
    }

    #[test]
    fn rates() {
        let rate = |text: &str| text.parse::<Rule>().map(|rule| rule.rate);
        assert_eq!(rate("crlf"), Ok(Rate::Always));
        assert_eq!(rate("crlf@2.5%"), Ok(Rate::Share(2500)));
        assert_eq!(rate("fin:3@1/20"), Ok(Rate::Every(20)));
        for wrong in ["crlf@", "crlf@1/0", "crlf@2/3", "crlf@101%", "crlf@x"] {
            assert!(rate(wrong).unwrap_err().contains("neither a share"), "{wrong}");
        }
        assert_eq!(Faults::parse_rules("rst:1, crlf@1/2").unwrap().len(), 2);
        assert_eq!(Faults::parse_rules("none"), Ok(Vec::new()));
    }

    #[test]
    fn slips_are_named() {
        let error = |text: &str| text.parse::<Fault>().unwrap_err();
        assert!(error("explode").starts_with("there is no fault `explode`; there are bad-json, "));
        assert_eq!(error("delay"), "`delay` is no fault; it is written delay:SPAN");
        assert_eq!(error("status:200"), "`status:200` is no fault; it is written status:CODE[:SECONDS]");
        for wrong in
            ["crlf:1", "fin:x", "merge:0", "merge:99999", "drip:1ms:0", "hang:1:2", "refuse:1", "rst:1:2"]
        {
            assert!(error(wrong).contains("is no fault"), "{wrong}");
        }
    }
}
