//! Request bodies: exact, compact JSON, its keys in the order in which the peers' clients write them.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The endpoint that requests are made for. The peers' samplers know chat and completions.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// `/v1/chat/completions`: the prompt is one user message.
    #[default]
    Chat,
    /// `/v1/completions`: the prompt is sent as it is.
    Completions,
    /// `/v1/embeddings`: the prompt is the one input, and nothing is generated.
    Embeddings,
    /// `/v1/responses`: the prompt is the input.
    Responses,
}

impl Api {
    /// The path of its requests.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Api::Chat => "/v1/chat/completions",
            Api::Completions => "/v1/completions",
            Api::Embeddings => "/v1/embeddings",
            Api::Responses => "/v1/responses",
        }
    }

    /// Whether its answers are generated token by token.
    #[must_use]
    pub fn generates(self) -> bool {
        self != Api::Embeddings
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Api::Chat => "chat",
            Api::Completions => "completions",
            Api::Embeddings => "embeddings",
            Api::Responses => "responses",
        })
    }
}

/// The keys that differ from request to request, or have a flag of their own: an extra body may not set them.
pub(crate) const RESERVED: [&str; 7] =
    ["model", "messages", "prompt", "input", "max_completion_tokens", "max_output_tokens", "max_tokens"];

/// The bytes of a body around its prompt and its number of output tokens.
#[derive(Debug)]
pub(crate) struct Body {
    head: String,
    /// What stands before the number of output tokens, where there is one.
    middle: Option<&'static str>,
    tail: String,
}

/// The parts of a body that are the same in every request.
#[derive(Debug)]
pub(crate) struct Fixed<'a> {
    pub(crate) api: Api,
    pub(crate) model: &'a str,
    pub(crate) temperature: Option<&'a serde_json::Number>,
    pub(crate) ignore_eos: bool,
    /// Further keys; one that is there already is set anew in its place, as Python's `dict.update` does it.
    pub(crate) extra: &'a Map<String, Value>,
}

impl Body {
    pub(crate) fn new(fixed: &Fixed) -> Self {
        let model = json!(fixed.model);
        let (head, middle) = match fixed.api {
            Api::Chat => (
                format!(r#"{{"model":{model},"messages":[{{"role":"user","content":"#),
                Some(r#"}],"max_completion_tokens":"#),
            ),
            Api::Completions => (format!(r#"{{"model":{model},"prompt":"#), Some(r#","max_tokens":"#)),
            Api::Embeddings => (format!(r#"{{"model":{model},"input":"#), None),
            Api::Responses => (format!(r#"{{"model":{model},"input":"#), Some(r#","max_output_tokens":"#)),
        };
        let mut rest = Map::new();
        if let Some(temperature) = fixed.temperature {
            rest.insert("temperature".to_owned(), Value::Number(temperature.clone()));
        }
        match fixed.api {
            Api::Chat | Api::Completions => {
                rest.insert("stream".to_owned(), json!(true));
                rest.insert("stream_options".to_owned(), json!({"include_usage": true}));
            }
            Api::Embeddings => {
                rest.insert("encoding_format".to_owned(), json!("float"));
            }
            // The counts come unasked.
            Api::Responses => {
                rest.insert("stream".to_owned(), json!(true));
            }
        }
        if fixed.ignore_eos {
            rest.insert("ignore_eos".to_owned(), json!(true));
        }
        for (key, value) in fixed.extra {
            rest.insert(key.clone(), value.clone());
        }
        // The rest as an object of its own, its brace opened long before.
        let rest = Value::Object(rest).to_string();
        let tail = format!(",{}", rest.trim_start_matches('{'));
        Self { head, middle, tail }
    }

    /// The body of one request.
    pub(crate) fn of(&self, prompt: &str, output_tokens: u32) -> Vec<u8> {
        let prompt = json!(prompt).to_string();
        let limit = self.middle.map(|middle| format!("{middle}{output_tokens}")).unwrap_or_default();
        [&self.head, prompt.as_str(), &limit, &self.tail].concat().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(api: Api, temperature: Option<&str>, ignore_eos: bool, extra: &Value) -> String {
        let temperature = temperature.map(|number| serde_json::from_str(number).unwrap());
        let extra = extra.as_object().unwrap();
        let fixed = Fixed { api, model: "m\"1", temperature: temperature.as_ref(), ignore_eos, extra };
        String::from_utf8(Body::new(&fixed).of("say \"é\"\n", 7)).unwrap()
    }

    #[test]
    fn keys_have_the_peers_order() {
        assert_eq!(
            body(Api::Chat, None, false, &json!({})),
            r#"{"model":"m\"1","messages":[{"role":"user","content":"say \"é\"\n"}],"max_completion_tokens":7,"stream":true,"stream_options":{"include_usage":true}}"#
        );
        assert_eq!(
            body(Api::Completions, Some("0.70"), true, &json!({})),
            r#"{"model":"m\"1","prompt":"say \"é\"\n","max_tokens":7,"temperature":0.7,"stream":true,"stream_options":{"include_usage":true},"ignore_eos":true}"#
        );
    }

    #[test]
    fn the_other_endpoints() {
        assert_eq!(
            body(Api::Responses, Some("0"), false, &json!({"stream": false})),
            r#"{"model":"m\"1","input":"say \"é\"\n","max_output_tokens":7,"temperature":0,"stream":false}"#
        );
        assert_eq!(
            body(Api::Embeddings, None, false, &json!({"dimensions": 8})),
            r#"{"model":"m\"1","input":"say \"é\"\n","encoding_format":"float","dimensions":8}"#
        );
    }

    #[test]
    fn an_extra_body_overrides_in_place_and_adds_at_the_end() {
        assert_eq!(
            body(
                Api::Chat,
                Some("0"),
                false,
                &json!({"z": [1], "temperature": 1, "stream_options": null, "a": {}})
            ),
            r#"{"model":"m\"1","messages":[{"role":"user","content":"say \"é\"\n"}],"max_completion_tokens":7,"temperature":1,"stream":true,"stream_options":null,"z":[1],"a":{}}"#
        );
    }
}
