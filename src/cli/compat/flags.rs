//! Reads a peer's command line as its own parser (Python's argparse) does, by a table of all its flags.

use std::fmt::Display;
use std::str::FromStr;

use crate::cli::Failure;

/// What follows a flag.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Takes {
    /// Nothing.
    Nothing,
    /// One value.
    One,
    /// Every argument up to the next flag.
    Many,
}

/// What becomes of a flag.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Support {
    /// It does what it does in the original.
    Full,
    /// It is taken, and there is nothing for it to change here.
    NoEffect,
    /// It is refused.
    Refused,
}

/// One flag of a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    /// Its other name, where it has one.
    pub(super) short: Option<&'static str>,
    pub(super) takes: Takes,
    pub(super) support: Support,
    /// Whether the oldest version and the later ones have it.
    pub(super) versions: (bool, bool),
}

/// A flag that is supported, of every version.
pub(super) const fn flag(name: &'static str, takes: Takes) -> Flag {
    Flag { name, short: None, takes, support: Support::Full, versions: (true, true) }
}

impl Flag {
    pub(super) const fn or(self, short: &'static str) -> Self {
        Self { short: Some(short), ..self }
    }

    pub(super) const fn no_effect(self) -> Self {
        Self { support: Support::NoEffect, ..self }
    }

    pub(super) const fn refused(self) -> Self {
        Self { support: Support::Refused, ..self }
    }

    pub(super) const fn oldest_only(self) -> Self {
        Self { versions: (true, false), ..self }
    }

    pub(super) const fn later(self) -> Self {
        Self { versions: (false, true), ..self }
    }
}

/// A peer's command line: its flags, and how it names itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syntax {
    /// The command and its version, for messages: `vllm bench serve 0.11.0`.
    pub(super) command: &'static str,
    pub(super) flags: &'static [&'static [Flag]],
    /// Whether the version is the oldest one.
    pub(super) oldest: bool,
    /// Whether `_` stands for `-` in a flag's name.
    pub(super) underscores: bool,
}

/// The flags that were given, each with its values.
#[derive(Debug, Default)]
pub(super) struct Given {
    values: Vec<(&'static str, Vec<String>)>,
    /// Those that change nothing.
    pub(super) no_effect: Vec<&'static str>,
}

impl Syntax {
    /// Reads the arguments. What is not a flag of this version, or is one that cannot be honoured, is an error that
    /// names it: nothing is passed over.
    pub(super) fn parse(&self, args: &[String]) -> Result<Given, Failure> {
        let mut given = Given::default();
        let mut args = args.iter().map(String::as_str).peekable();
        while let Some(arg) = args.next() {
            if !is_flag(arg) {
                return Err(Failure::usage(format_args!("unexpected argument '{arg}' for {}", self.command)));
            }
            let (name, attached) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (arg, None),
            };
            let flag = self.find(name)?;
            let mut values: Vec<String> = attached.map(str::to_owned).into_iter().collect();
            match flag.takes {
                Takes::Nothing if attached.is_some() => {
                    return Err(Failure::usage(format_args!("{} takes no value", flag.name)));
                }
                Takes::Nothing => {}
                Takes::One if attached.is_some() => {}
                Takes::One => match args.next_if(|value| !is_flag(value)) {
                    Some(value) => values.push(value.to_owned()),
                    None => return Err(Failure::usage(format_args!("{} needs a value", flag.name))),
                },
                Takes::Many => {
                    while let Some(value) = args.next_if(|value| attached.is_none() && !is_flag(value)) {
                        values.push(value.to_owned());
                    }
                }
            }
            if flag.support == Support::NoEffect {
                given.no_effect.push(flag.name);
            }
            given.values.push((flag.name, values));
        }
        Ok(given)
    }

    /// Whether the version has the flag.
    const fn has(&self, flag: &Flag) -> bool {
        if self.oldest { flag.versions.0 } else { flag.versions.1 }
    }

    /// The flag of that name, or the only one that begins with it, as argparse allows.
    fn find(&self, given: &str) -> Result<Flag, Failure> {
        let name = if self.underscores { given.replace('_', "-") } else { given.to_owned() };
        let all = || self.flags.iter().copied().flatten();
        let is_here = |flag: &&Flag| self.has(flag);
        let exact = |flag: &&Flag| flag.name == name || flag.short == Some(given);
        let found = all().filter(is_here).find(exact).or_else(|| {
            let mut alike =
                all().filter(is_here).filter(|flag| given.len() > 2 && flag.name.starts_with(&name));
            alike.next().filter(|_| alike.next().is_none())
        });
        match found {
            Some(flag) if flag.support == Support::Refused => Err(Failure::usage(format_args!(
                "{} is a flag of {} that tokentape compat does not support; leave it out",
                flag.name, self.command
            ))),
            Some(flag) => Ok(*flag),
            None if all().any(|flag| exact(&flag)) => Err(Failure::usage(format_args!(
                "{given} does not exist in {}; choose a version that has it with --as, before the command",
                self.command
            ))),
            None => Err(Failure::usage(format_args!("{} has no flag {given}", self.command))),
        }
    }

    /// The flags of this version and what becomes of each, for `--help`.
    pub(super) fn help(&self) -> String {
        let of = |support: Support| {
            let all = self.flags.iter().copied().flatten();
            let names: Vec<&str> = all
                .filter(|flag| self.has(flag))
                .filter(|flag| flag.support == support)
                .map(|flag| flag.name)
                .collect();
            names.join(" ")
        };
        format!(
            "Flags of {}\n\nsupported:\n{}\n\naccepted without effect:\n{}\n\nnot supported, an error:\n{}\n",
            self.command,
            of(Support::Full),
            of(Support::NoEffect),
            of(Support::Refused)
        )
    }
}

/// Whether argparse would take it for a flag: it begins with `-` and is no number.
fn is_flag(arg: &str) -> bool {
    arg.starts_with('-') && arg.len() > 1 && arg.parse::<f64>().is_err()
}

impl Given {
    /// Whether the flag was given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.iter().any(|(given, _)| *given == name)
    }

    /// The flag's values; the last mention counts.
    pub(super) fn many(&self, name: &str) -> Option<&[String]> {
        self.values.iter().rev().find(|(given, _)| *given == name).map(|(_, values)| values.as_slice())
    }

    /// The flag's one value.
    pub(super) fn one(&self, name: &str) -> Option<&str> {
        self.many(name)?.first().map(String::as_str)
    }

    /// Which of two flags was given last; the first of them where neither was.
    pub(super) fn last_is_first(&self, yes: &str, no: &str) -> bool {
        self.values
            .iter()
            .rev()
            .find(|(given, _)| *given == yes || *given == no)
            .is_none_or(|(given, _)| *given == yes)
    }

    /// The flag's value, read.
    pub(super) fn value<T: FromStr>(&self, name: &str) -> Result<Option<T>, Failure>
    where
        T::Err: Display,
    {
        self.one(name).map(|text| read(name, text)).transpose()
    }

    /// As [`Given::value`], with what the peer takes where it was not given.
    pub(super) fn value_or<T: FromStr>(&self, name: &str, default: T) -> Result<T, Failure>
    where
        T::Err: Display,
    {
        Ok(self.value(name)?.unwrap_or(default))
    }

    /// `KEY<separator>VALUE` pairs.
    pub(super) fn pairs(&self, name: &str, separator: char) -> Result<Vec<(String, String)>, Failure> {
        let pair = |text: &String| match text.split_once(separator) {
            Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
            // The value may be a secret.
            None => Err(Failure::usage(format_args!("{name} takes pairs of the form KEY{separator}VALUE"))),
        };
        self.many(name).unwrap_or_default().iter().map(pair).collect()
    }
}

/// One value of a flag, read.
pub(super) fn read<T: FromStr>(name: &str, text: &str) -> Result<T, Failure>
where
    T::Err: Display,
{
    text.trim().parse().map_err(|error| Failure::usage(format_args!("{name}: '{text}': {error}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::metrics::Dialect;

    const FLAGS: &[Flag] = &[
        flag("--number", Takes::Many).or("-n"),
        flag("--number-of-tries", Takes::One).later(),
        flag("--rate", Takes::One),
        flag("--ignore-eos", Takes::Nothing),
        flag("--quiet", Takes::Nothing).no_effect(),
        flag("--profile", Takes::Nothing).refused(),
    ];

    fn parse(oldest: bool, line: &str) -> Result<Given, String> {
        let syntax = Syntax { command: "tool 1", flags: &[FLAGS], oldest, underscores: true };
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        syntax.parse(&args).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn as_argparse_reads_them() {
        let given = parse(false, "-n 1 2 --rate -1 --ignore_eos --quiet --rate=-2.5").unwrap();
        assert_eq!(given.many("--number").unwrap(), ["1", "2"]);
        assert_eq!(given.value::<f64>("--rate").unwrap(), Some(-2.5), "the last mention counts");
        assert!(given.has("--ignore-eos") && !given.has("--profile"));
        assert_eq!(given.no_effect, ["--quiet"]);
        assert_eq!(parse(false, "--ig").unwrap().value::<f64>("--rate").unwrap(), None);
        assert!(
            parse(false, "--ig").unwrap().has("--ignore-eos"),
            "a beginning is enough where it is the only one"
        );
    }

    /// The tables of both tools against their own parsers.
    #[test]
    fn every_flag_of_every_version_is_known_by_name() {
        let listed = include_str!("../../../fixtures/flags/flags.tsv");
        for dialect in Dialect::ALL {
            let syntax = match dialect {
                Dialect::Native => continue,
                Dialect::Vllm(version) => super::super::vllm::syntax(version),
                Dialect::Evalscope(version) => super::super::evalscope::syntax(version),
            };
            let own = listed.lines().filter_map(|line| line.strip_prefix(dialect.name())?.strip_prefix('\t'));
            let mut own: BTreeMap<&str, &str> = own.map(|line| line.split_once('\t').unwrap()).collect();
            if dialect.name() == "evalscope-1.1.1" {
                // Read more widely, or meant otherwise than its parser has it.
                own.extend([("--rate", "many"), ("--max-tokens", "many")]);
                own.extend([("--apply-chat-template", "nothing"), ("--no-apply-chat-template", "nothing")]);
            }
            let known = syntax.flags.iter().copied().flatten().filter(|flag| syntax.has(flag)).map(|flag| {
                let takes = match flag.takes {
                    Takes::Nothing => "nothing",
                    Takes::One => "one",
                    Takes::Many => "many",
                };
                (flag.name, takes)
            });
            assert_eq!(known.collect::<BTreeMap<_, _>>(), own, "{dialect}");
        }
    }

    #[test]
    fn nothing_is_passed_over() {
        for (oldest, line, expected) in [
            (false, "--profile", "does not support"),
            (false, "--prof", "does not support"),
            (false, "--nonesuch", "no flag --nonesuch"),
            (false, "stray", "unexpected argument 'stray'"),
            (false, "--rate", "--rate needs a value"),
            (false, "--rate --quiet", "--rate needs a value"),
            (false, "--ignore-eos=1", "takes no value"),
            (true, "--number-of-tries 3", "does not exist in tool 1"),
            (false, "--nu 3", "no flag --nu"),
        ] {
            let error = parse(oldest, line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
        let given = parse(true, "--nu 3").unwrap();
        assert!(given.has("--number"), "the oldest version has only one such flag");
        let error = given.value_or::<u32>("--number", 1).map(|number| number.to_string());
        assert_eq!(error.unwrap(), "3");
        assert!(parse(false, "--rate x").unwrap().value::<f64>("--rate").is_err());
    }
}
