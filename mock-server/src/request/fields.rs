//! The fields of a body that the server looks at, read as pydantic reads them: all others are taken and ignored.

use serde_json::{Map, Value};

use super::faults::{Fault, Place};
use super::{Endpoint, UsageMode};

/// A body's fields.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the protocol")]
pub(super) struct Fields<'a> {
    pub(super) model: Option<&'a str>,
    pub(super) messages: Option<&'a Value>,
    pub(super) prompt: Prompts<'a>,
    pub(super) stream: bool,
    pub(super) stream_options: Option<&'a Map<String, Value>>,
    pub(super) stream_interval: Option<i64>,
    pub(super) max_tokens: Option<i64>,
    pub(super) max_completion_tokens: Option<i64>,
    pub(super) min_tokens: Option<i64>,
    pub(super) n: Option<i64>,
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    pub(super) presence_penalty: Option<f64>,
    pub(super) frequency_penalty: Option<f64>,
    pub(super) chat_logprobs: bool,
    pub(super) top_logprobs: Option<i64>,
    pub(super) logprobs: Option<i64>,
    pub(super) echo: bool,
    pub(super) stop: Vec<String>,
    pub(super) stop_token_ids: Vec<u32>,
    pub(super) include_stop: bool,
    pub(super) return_token_ids: bool,
    pub(super) tools: Option<&'a [Value]>,
    pub(super) tool_choice: Option<&'a Value>,
    pub(super) request_id: Option<&'a str>,
}

/// The prompts of a completion: vLLM takes a text, ids, or a list of either.
#[derive(Debug, Default)]
pub(super) enum Prompts<'a> {
    #[default]
    None,
    Texts(Vec<&'a str>),
    Ids(Vec<Vec<u32>>),
}

impl<'a> Fields<'a> {
    /// The fields of `body`, or every fault of its shape.
    pub(super) fn read(endpoint: Endpoint, body: &'a Value) -> Result<Self, Vec<Fault<'a>>> {
        let Value::Object(map) = body else {
            let message = "Input should be a valid dictionary or object to extract fields from";
            return Err(vec![Fault::new("model_attributes_type", Vec::new(), message, Some(body))]);
        };
        let mut reader = Reader { map, faults: Vec::new() };
        let chat = endpoint == Endpoint::Chat;
        let fields = Self {
            messages: if chat { reader.messages(body) } else { None },
            prompt: if chat { Prompts::None } else { reader.prompts() },
            model: reader.text("model"),
            chat_logprobs: chat && reader.flag("logprobs"),
            top_logprobs: if chat { reader.integer("top_logprobs") } else { None },
            logprobs: if chat { None } else { reader.integer("logprobs") },
            stream: reader.flag("stream"),
            stream_options: reader.stream_options(),
            stream_interval: reader.integer("stream_interval"),
            max_tokens: reader.integer("max_tokens"),
            max_completion_tokens: if chat { reader.integer("max_completion_tokens") } else { None },
            min_tokens: reader.integer("min_tokens"),
            n: reader.integer("n"),
            temperature: reader.number("temperature"),
            top_p: reader.number("top_p"),
            presence_penalty: reader.number("presence_penalty"),
            frequency_penalty: reader.number("frequency_penalty"),
            echo: reader.flag("echo"),
            stop: reader.stop(),
            stop_token_ids: reader.stop_token_ids(),
            include_stop: reader.flag("include_stop_str_in_output"),
            return_token_ids: reader.flag("return_token_ids"),
            tools: map.get("tools").and_then(Value::as_array).map(Vec::as_slice),
            tool_choice: map.get("tool_choice"),
            request_id: reader.text("request_id"),
        };
        if reader.faults.is_empty() { Ok(fields) } else { Err(reader.faults) }
    }

    /// Where the answer's stream tells its token counts.
    pub(super) fn usage(&self) -> UsageMode {
        let option = |name| {
            self.stream_options
                .and_then(|options| options.get(name))
                .and_then(Value::as_bool)
                .unwrap_or(false)
        };
        match (option("include_usage"), option("continuous_usage_stats")) {
            (false, _) => UsageMode::Never,
            (true, false) => UsageMode::Last,
            (true, true) => UsageMode::Continuous,
        }
    }
}

/// The kinds of message that vLLM knows, and what each cannot do without, in the order in which they are tried.
const MESSAGE_FIELDS: [(&str, &str); 11] = [
    ("ChatCompletionDeveloperMessageParam", "role"),
    ("ChatCompletionSystemMessageParam", "role"),
    ("ChatCompletionUserMessageParam", "role"),
    ("ChatCompletionAssistantMessageParam", "role"),
    ("ChatCompletionToolMessageParam", "role"),
    ("ChatCompletionToolMessageParam", "tool_call_id"),
    ("ChatCompletionFunctionMessageParam", "name"),
    ("ChatCompletionFunctionMessageParam", "role"),
    ("CustomChatCompletionMessageParam", "role"),
    ("Message", "author"),
    ("Message", "channel"),
];

struct Reader<'a> {
    map: &'a Map<String, Value>,
    faults: Vec<Fault<'a>>,
}

impl<'a> Reader<'a> {
    /// A field's value; absent and `null` are the same.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn fault(&mut self, kind: &'static str, name: &'static str, message: &'static str, input: &'a Value) {
        self.faults.push(Fault::new(kind, vec![Place::Field(name)], message, Some(input)));
    }

    fn messages(&mut self, body: &'a Value) -> Option<&'a Value> {
        let Some(messages) = self.map.get("messages") else {
            self.faults.push(Fault::missing(vec![Place::Field("messages")], body));
            return None;
        };
        let Some(list) = messages.as_array() else {
            self.fault("list_type", "messages", "Input should be a valid list", messages);
            return None;
        };
        for (index, message) in list.iter().enumerate() {
            if message.is_object() && message.get("role").is_none() {
                for (kind, field) in MESSAGE_FIELDS.iter().filter(|(_, field)| message.get(field).is_none()) {
                    let place = [Place::Field("messages"), Place::Index(index), Place::Field(kind)];
                    let place = place.into_iter().chain([Place::Field(field)]).collect();
                    self.faults.push(Fault::missing(place, message));
                }
            }
        }
        Some(messages)
    }

    fn text(&mut self, name: &'static str) -> Option<&'a str> {
        let value = self.get(name)?;
        if !value.is_string() {
            self.fault("string_type", name, "Input should be a valid string", value);
        }
        value.as_str()
    }

    fn flag(&mut self, name: &'static str) -> bool {
        let Some(value) = self.get(name) else { return false };
        match value {
            Value::Bool(flag) => return *flag,
            Value::Number(number) if number.as_i64() == Some(0) => return false,
            Value::Number(number) if number.as_i64() == Some(1) => return true,
            Value::String(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "t" | "yes" | "y" | "on" | "1" => return true,
                "false" | "f" | "no" | "n" | "off" | "0" => return false,
                _ => {}
            },
            _ => {
                self.fault("bool_type", name, "Input should be a valid boolean", value);
                return false;
            }
        }
        self.fault("bool_parsing", name, "Input should be a valid boolean, unable to interpret input", value);
        false
    }

    fn integer(&mut self, name: &'static str) -> Option<i64> {
        let value = self.get(name)?;
        let (kind, message) = match value {
            Value::Bool(flag) => return Some(i64::from(*flag)),
            Value::Number(number) if number.is_i64() => return number.as_i64(),
            Value::Number(number) => match number.as_f64() {
                // Within i64 by the bound, and whole.
                #[expect(clippy::cast_possible_truncation, reason = "checked by the guard")]
                Some(float) if float.fract() == 0.0 && float.abs() < 9.2e18 => return Some(float as i64),
                Some(float) if float.fract() == 0.0 => return Some(i64::MAX),
                _ => {
                    ("int_from_float", "Input should be a valid integer, got a number with a fractional part")
                }
            },
            Value::String(text) => match text.trim().parse() {
                Ok(integer) => return Some(integer),
                Err(_) => {
                    ("int_parsing", "Input should be a valid integer, unable to parse string as an integer")
                }
            },
            _ => ("int_type", "Input should be a valid integer"),
        };
        self.fault(kind, name, message, value);
        None
    }

    fn number(&mut self, name: &'static str) -> Option<f64> {
        let value = self.get(name)?;
        let (kind, message) = match value {
            Value::Bool(flag) => return Some(f64::from(u8::from(*flag))),
            Value::Number(number) => return number.as_f64(),
            Value::String(text) => match text.trim().parse() {
                Ok(number) => return Some(number),
                Err(_) => {
                    ("float_parsing", "Input should be a valid number, unable to parse string as a number")
                }
            },
            _ => ("float_type", "Input should be a valid number"),
        };
        self.fault(kind, name, message, value);
        None
    }

    fn stream_options(&mut self) -> Option<&'a Map<String, Value>> {
        let value = self.get("stream_options")?;
        if !value.is_object() {
            let message = "Input should be a valid dictionary or object to extract fields from";
            self.fault("model_attributes_type", "stream_options", message, value);
        }
        value.as_object()
    }

    fn stop(&mut self) -> Vec<String> {
        let Some(value) = self.get("stop") else { return Vec::new() };
        let texts = match value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        if texts.is_none() {
            self.fault("string_type", "stop", "Input should be a valid string", value);
        }
        texts.unwrap_or_default()
    }

    fn stop_token_ids(&mut self) -> Vec<u32> {
        let Some(value) = self.get("stop_token_ids") else { return Vec::new() };
        let ids = value.as_array().and_then(|items| ids(items));
        if ids.is_none() {
            self.fault("list_type", "stop_token_ids", "Input should be a valid list", value);
        }
        ids.unwrap_or_default()
    }

    fn prompts(&mut self) -> Prompts<'a> {
        let Some(value) = self.get("prompt") else { return Prompts::None };
        let prompts = match value {
            Value::String(text) => Some(Prompts::Texts(vec![text])),
            Value::Array(items) => many(items),
            _ => None,
        };
        if prompts.is_none() {
            self.fault("string_type", "prompt", "Input should be a valid string", value);
        }
        prompts.unwrap_or_default()
    }
}

fn many(items: &[Value]) -> Option<Prompts<'_>> {
    match items.first() {
        None => Some(Prompts::None),
        Some(Value::String(_)) => items.iter().map(Value::as_str).collect::<Option<_>>().map(Prompts::Texts),
        Some(Value::Array(_)) => {
            let lists = items.iter().map(|list| list.as_array().and_then(|items| ids(items)));
            lists.collect::<Option<_>>().map(Prompts::Ids)
        }
        Some(_) => ids(items).map(|ids| Prompts::Ids(vec![ids])),
    }
}

fn ids(items: &[Value]) -> Option<Vec<u32>> {
    items.iter().map(|item| item.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
}
