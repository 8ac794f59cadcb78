//! Settings as names and values: what a command line, a file and `PUT /admin/config` have in common. The flags are the
//! one list of what there is, so that a new flag is a new setting everywhere.

use std::collections::BTreeMap;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, FromArgMatches};
use serde_json::{Map, Value};

use crate::args::Flags;
use crate::timing::Law;

/// What is decided when the server starts.
const FIXED: [&str; 12] = [
    "config",
    "engine",
    "host",
    "max-lateness",
    "port",
    "priority",
    "spin",
    "tls-cert",
    "tls-key",
    "tokenizer",
    "truth-log",
    "workers",
];

/// What may be read from a file.
const LAWS: [&str; 2] = ["itl", "ttft"];

/// What is told to nobody.
const SECRET: &str = "api-key";

/// The settings that were given, each with its values. The others have their defaults.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Settings(BTreeMap<String, Vec<String>>);

impl Settings {
    /// Those that stand on a command line.
    pub(crate) fn of_matches(matches: &ArgMatches) -> Self {
        let given = flags()
            .filter(|arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine));
        let settings = given.filter_map(|arg| {
            let values = if arg.get_action().takes_values() {
                let raw = matches.get_raw(arg.get_id().as_str())?;
                raw.map(|value| value.to_string_lossy().into_owned()).collect()
            } else {
                vec!["true".to_owned()]
            };
            Some((arg.get_long()?.to_owned(), values))
        });
        Self(settings.collect())
    }

    /// Those of a TOML file's text. The error is a whole sentence without the file's name.
    pub(crate) fn of_toml(text: &str) -> Result<Self, String> {
        let table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| error.to_string().trim_end().to_owned())?;
        match serde_json::to_value(table) {
            Ok(Value::Object(map)) => Self::of_json(&map),
            _ => Err("it is not a table of settings".to_owned()),
        }
    }

    /// Those of a JSON object. The error is a whole sentence.
    pub(crate) fn of_json(map: &Map<String, Value>) -> Result<Self, String> {
        map.iter()
            .map(|(name, value)| {
                let values = match value {
                    Value::Array(values) => values.iter().map(scalar).collect(),
                    one => scalar(one).map(|one| vec![one]),
                };
                values.map(|values: Vec<String>| (name.clone(), values)).ok_or_else(|| {
                    format!("`{name}` is neither a text, a number, true or false, nor a list of these")
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// These, and in their places those of `over`.
    pub(crate) fn overlaid(mut self, over: Self) -> Self {
        self.0.extend(over.0);
        self
    }

    /// The first of these that is decided when the server starts.
    pub(crate) fn fixed(&self) -> Option<&str> {
        self.0.keys().map(String::as_str).find(|name| FIXED.contains(name))
    }

    /// The first of these whose value names a file.
    pub(crate) fn needs_file(&self) -> Option<&str> {
        let is_file = |values: &[String]| values.iter().any(|value| Law::names_file(value));
        let found = self.0.iter().find(|(name, values)| LAWS.contains(&name.as_str()) && is_file(values));
        found.map(|(name, _)| name.as_str())
    }

    /// The flags that they stand for. The error is a whole sentence.
    pub(crate) fn parse(&self) -> Result<Flags, String> {
        let known: Vec<Arg> = flags().collect();
        let mut line = Vec::new();
        for (name, values) in &self.0 {
            let Some(arg) = known.iter().find(|arg| arg.get_long() == Some(name)) else {
                let names: Vec<&str> = known.iter().filter_map(Arg::get_long).collect();
                return Err(format!("there is no setting `{name}`; there are {}", names.join(", ")));
            };
            match (arg.get_action().takes_values(), values.as_slice()) {
                (true, values) => line.extend(values.iter().map(|value| format!("--{name}={value}"))),
                (false, [value]) if value == "false" => {}
                (false, [value]) if value == "true" => line.push(format!("--{name}")),
                (false, _) => return Err(format!("`{name}` is true or false")),
            }
        }
        command().try_get_matches_from(line).and_then(|matches| Flags::from_arg_matches(&matches)).map_err(
            |error| {
                // The first line says what is wrong; the rest is about a command line that nobody has written.
                let text = error.to_string();
                let first = text.lines().next().unwrap_or_default();
                first.strip_prefix("error: ").unwrap_or(first).to_owned()
            },
        )
    }

    /// All settings and their values, given or not, as a JSON object; no secret, and `null` for what is unset.
    pub(crate) fn to_json(&self) -> Value {
        let settings = flags().filter_map(|arg| {
            let name = arg.get_long()?;
            let default =
                || arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned());
            let mut values = self.0.get(name).cloned().unwrap_or_else(|| default().collect());
            if !arg.get_action().takes_values() {
                return Some((name.to_owned(), Value::Bool(values == ["true"])));
            }
            if name == SECRET {
                for value in &mut values {
                    "(set)".clone_into(value);
                }
            }
            let value = match <[String; 1]>::try_from(values) {
                Ok([one]) => Value::String(one),
                Err(none) if none.is_empty() => Value::Null,
                Err(several) => several.into(),
            };
            (name != "config").then(|| (name.to_owned(), value))
        });
        Value::Object(settings.collect())
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// The flags alone: no name of a program, no help.
fn command() -> Command {
    <Flags as clap::Args>::augment_args(Command::new("settings").no_binary_name(true).disable_help_flag(true))
}

fn flags() -> impl Iterator<Item = Arg> {
    command().get_arguments().cloned().collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    fn toml(text: &str) -> Result<Flags, String> {
        Settings::of_toml(text)?.parse()
    }

    #[test]
    fn a_file_says_what_flags_say() {
        let text =
            "ttft = \"30ms\"\nport = 0\nmodel = \"m\"\nfault = [\"rst:3@1/9\", \"crlf\"]\nworkers = 3\n";
        let flags = toml(text).unwrap();
        assert_eq!((flags.ttft, flags.port, flags.model.as_str()), (Law::fixed(30_000_000), 0, "m"));
        assert_eq!((flags.faults.len(), flags.workers, flags.itl), (2, Some(3), Law::fixed(5_000_000)));
    }

    #[test]
    fn laws_engines_and_the_wire_are_settings_too() {
        let text = "ttft = \"lognormal:20ms,cv=0.3,load=0.01\"\nitl = \"normal:5ms,cv=0.1,rho=0.8\"\n\
                    profile = \"openai\"\nalias = [\"a\", \"b\"]\nstream-interval = 4\n\
                    enable-request-id-headers = true\nenable-per-request-metrics = false\n";
        let flags = toml(text).unwrap();
        assert_eq!(flags.ttft, Law::parse_ttft("lognormal:20ms,cv=0.3,load=0.01").unwrap());
        assert_eq!(flags.itl, Law::parse_itl("normal:5ms,cv=0.1,rho=0.8").unwrap());
        let wire = flags.wire;
        assert_eq!((wire.profile, wire.aliases.len(), wire.stream_interval), (Profile::OpenAi, 2, Some(4)));
        assert!(wire.enable_request_id_headers && !wire.enable_per_request_metrics);
        assert_eq!(toml("engine = \"fixed\"").unwrap().engine.unwrap().name, "fixed");
        assert!(toml("engine = \"fixed\"\nttft = \"1ms\"").unwrap_err().contains("cannot be used with"));
        assert!(toml("profile = \"vllm-9\"").unwrap_err().contains("invalid value 'vllm-9'"));
        assert!(toml("enable-request-id-headers = \"yes\"").unwrap_err().contains("is true or false"));
        let json = Settings::of_toml(text).unwrap().to_json();
        assert_eq!(
            (&json["enable-request-id-headers"], &json["enable-per-request-metrics"], &json["profile"]),
            (&true.into(), &false.into(), &"openai".into())
        );
    }

    #[test]
    fn slips_are_named() {
        let error = |text: &str| toml(text).unwrap_err();
        assert!(error("tftt = 1").starts_with("there is no setting `tftt`; there are "));
        assert!(error("ttft = 20").contains("`20` is not a span of time"), "{}", error("ttft = 20"));
        assert!(error("model = { a = 1 }").contains("`model` is neither a text"));
        assert!(error("ttft = ").contains("line 1"), "{}", error("ttft = "));
    }

    #[test]
    fn what_is_given_last_counts_and_secrets_are_kept() {
        let settings = Settings::of_toml("seed = 1\napi-key = \"hush\"\nfault = \"crlf\"").unwrap();
        let over = Settings::of_toml("seed = 2\nfault = []").unwrap();
        assert_eq!(over.fixed(), None);
        let settings = settings.overlaid(over);
        let json = settings.to_json();
        assert_eq!(
            (&json["seed"], &json["api-key"], &json["fault"]),
            (&"2".into(), &"(set)".into(), &Value::Null)
        );
        assert_eq!((&json["ttft"], json.get("config")), (&"20ms".into(), None));
        assert_eq!(settings.parse().unwrap().api_key.as_deref(), Some("hush"));
        assert_eq!(Settings::of_toml("port = 1").unwrap().fixed(), Some("port"));
    }
}
