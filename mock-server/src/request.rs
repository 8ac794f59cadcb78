//! What a request asks for, and the words in which the profile's server refuses it.

pub(crate) mod faults;
mod fields;
mod limits;
pub(crate) mod python;

use serde_json::Value;
use tokentape_tokenizer::Tokenizer;

use crate::chunks::Rules;
use crate::config::Config;
use crate::profile::ErrorStyle;
use crate::refusal::Refusal;
use crate::wire::{Endpoint, Prompt, UsageMode};
use faults::{Context, Fault, Place};
use fields::Fields;

/// A request that can be answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Request {
    pub(crate) stream: bool,
    pub(crate) usage: UsageMode,
    pub(crate) prompts: Vec<Prompt>,
    /// Choices for each prompt.
    pub(crate) n: usize,
    /// The most tokens of each choice, by its prompt.
    pub(crate) max_tokens: Vec<u32>,
    pub(crate) rules: Rules,
    /// How many alternatives were asked for with each token, if any log-probabilities were.
    pub(crate) logprobs: Option<usize>,
    pub(crate) return_token_ids: bool,
    pub(crate) echo: bool,
    /// The tool that has to be called.
    pub(crate) tool: Option<String>,
    /// The id that the body asks for.
    pub(crate) id: Option<String>,
}

/// What is known of a tokenizer's vocabulary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vocabulary {
    pub(crate) largest_id: u32,
    /// Characters of its longest token.
    pub(crate) longest: usize,
}

impl Vocabulary {
    pub(crate) fn of(tokenizer: &Tokenizer) -> Self {
        let ids = tokenizer.ids();
        let longest =
            ids.iter().filter_map(|&id| tokenizer.token(id)).map(|token| token.chars().count()).max();
        Self { largest_id: ids.last().copied().unwrap_or(0), longest: longest.unwrap_or(1) }
    }
}

/// The most alternatives that can be asked for with each token.
const MAX_LOGPROBS: i64 = 20;

/// The most choices of one request, as `OpenAI` has it.
const MAX_CHOICES: i64 = 128;

/// Parses and checks a body, in the order in which vLLM does.
pub(crate) fn parse(
    endpoint: Endpoint,
    body: &[u8],
    config: &Config,
    vocabulary: Vocabulary,
) -> Result<Request, Refusal> {
    let parser = Parser { endpoint, config, vocabulary };
    let value = parser.value(body)?;
    let fields = Fields::read(endpoint, &value).map_err(|faults| parser.faults(&faults))?;
    parser.check_shape(&value, &fields)?;
    Refusal::unless_served(fields.model, config)?;
    parser.request(&fields)
}

/// A JSON body, or the words for one that is none. `route` is the function that would have answered.
pub(crate) fn json(body: &[u8], config: &Config, route: &str, path: &str) -> Result<Value, Refusal> {
    let traits = config.wire.profile.traits();
    let refuse = |fault: Fault<'_>| Refusal::faults(traits, route, path, &[fault]);
    if body.is_empty() {
        return Err(refuse(Fault::new("missing", Vec::new(), "Field required", None)));
    }
    serde_json::from_slice(body).map_err(|error| {
        let text = String::from_utf8_lossy(body);
        let (at, reason) = python::json_fault(&text).unwrap_or((error.column(), "Expecting value"));
        let fault = Fault::new("json_invalid", vec![Place::Index(at)], "JSON decode error", None);
        refuse(Fault { context: Context::Json(reason), ..fault })
    })
}

struct Parser<'a> {
    endpoint: Endpoint,
    config: &'a Config,
    vocabulary: Vocabulary,
}

impl Parser<'_> {
    fn route(&self) -> &'static str {
        match self.endpoint {
            Endpoint::Chat => "create_chat_completion",
            Endpoint::Completions => "create_completion",
        }
    }

    fn value(&self, body: &[u8]) -> Result<Value, Refusal> {
        json(body, self.config, self.route(), self.endpoint.path())
    }

    fn faults(&self, faults: &[Fault<'_>]) -> Refusal {
        Refusal::faults(self.config.wire.profile.traits(), self.route(), self.endpoint.path(), faults)
    }

    fn is_verbose(&self) -> bool {
        self.config.wire.profile.traits().errors == ErrorStyle::Verbose
    }

    fn check(&self, message: &str, param: Option<(&str, Option<String>)>) -> Refusal {
        Refusal::check(self.config.wire.profile.traits(), message, param)
    }

    /// A check that pydantic runs for vLLM 0.11, and later servers themselves.
    fn validator(&self, body: &Value, message: &'static str, whole: &'static str, param: &str) -> Refusal {
        if self.is_verbose() {
            let fault = Fault::new("value_error", Vec::new(), whole, Some(body));
            return self.faults(&[Fault { context: Context::Value(message), ..fault }]);
        }
        self.check(message, Some((param, None)))
    }

    fn check_shape(&self, body: &Value, fields: &Fields<'_>) -> Result<(), Refusal> {
        if fields.stream_options.is_some() && !fields.stream {
            return Err(self.validator(
                body,
                "Stream options can only be defined when `stream=True`.",
                "Value error, Stream options can only be defined when `stream=True`.",
                "stream_options",
            ));
        }
        if self.endpoint == Endpoint::Completions {
            return Ok(());
        }
        if fields.top_logprobs.is_some_and(|top| top > 0 || top == -1) && !fields.chat_logprobs {
            return Err(self.validator(
                body,
                "when using `top_logprobs`, `logprobs` must be set to true.",
                "Value error, when using `top_logprobs`, `logprobs` must be set to true.",
                "top_logprobs",
            ));
        }
        if !self.is_verbose() && fields.tools.is_some_and(<[Value]>::is_empty) {
            let message = "`tools` must not be an empty array. Either provide at least one tool or omit the field \
                           entirely.";
            return Err(self.check(message, Some(("tools", None))));
        }
        Ok(())
    }

    fn request(&self, fields: &Fields<'_>) -> Result<Request, Refusal> {
        let tool = self.tool(fields)?;
        let prompts = match self.endpoint {
            Endpoint::Chat => vec![self.chat_prompt(fields)?],
            Endpoint::Completions => self.prompts(fields)?,
        };
        let max_tokens = prompts
            .iter()
            .map(|prompt| self.max_tokens(fields, prompt.tokens))
            .collect::<Result<Vec<_>, _>>()?;
        self.check_sampling(fields, max_tokens.first().copied().unwrap_or(1))?;
        let logprobs = match self.endpoint {
            Endpoint::Chat => fields.chat_logprobs.then(|| fields.top_logprobs.unwrap_or(0)),
            Endpoint::Completions => fields.logprobs,
        };
        Ok(Request {
            stream: fields.stream,
            usage: fields.usage(),
            prompts,
            n: usize::try_from(fields.n.unwrap_or(1)).unwrap_or(1),
            max_tokens,
            rules: Rules {
                stop: fields.stop.clone(),
                stop_token_ids: fields.stop_token_ids.clone(),
                include_stop: fields.include_stop,
                min_tokens: u32::try_from(fields.min_tokens.unwrap_or(0)).unwrap_or(0),
                interval: fields
                    .stream_interval
                    .and_then(|interval| u32::try_from(interval).ok())
                    .or(self.config.wire.stream_interval)
                    .unwrap_or(1)
                    .max(1),
            },
            logprobs: logprobs.map(|count| usize::try_from(count).unwrap_or(0)),
            return_token_ids: fields.return_token_ids,
            echo: fields.echo && self.endpoint == Endpoint::Completions,
            tool,
            id: fields.request_id.map(str::to_owned),
        })
    }

    /// The tool that `tool_choice` names, or the first where any is required.
    fn tool(&self, fields: &Fields<'_>) -> Result<Option<String>, Refusal> {
        let (Some(tools), Endpoint::Chat) = (fields.tools.filter(|tools| !tools.is_empty()), self.endpoint)
        else {
            return Ok(None);
        };
        match fields.tool_choice {
            Some(Value::String(choice)) if choice == "none" => Ok(None),
            Some(Value::String(choice)) if choice == "required" => {
                Ok(tools[0]["function"]["name"].as_str().map(str::to_owned))
            }
            Some(Value::Object(choice)) => {
                Ok(choice.get("function").and_then(|function| function["name"].as_str()).map(str::to_owned))
            }
            _ if self.config.wire.tool_call_parser.is_none() => Err(self.check(
                "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set",
                None,
            )),
            _ => Ok(None),
        }
    }

    /// A chat's prompt as vLLM counts it: the rendered template, where the tokenizer has one.
    fn chat_prompt(&self, fields: &Fields<'_>) -> Result<Prompt, Refusal> {
        let (tokenizer, messages) = (&self.config.tokenizer, fields.messages.unwrap_or(&Value::Null));
        let list = messages.as_array().map_or(&[][..], Vec::as_slice);
        if list.is_empty() {
            // 0.11's words are Python's own: it looks at the last message before it looks whether there is one.
            return Err(self.check(
                if self.is_verbose() {
                    "list index out of range list index out of range"
                } else {
                    "Cannot apply chat template to an empty conversation. Provide at least one message."
                },
                None,
            ));
        }
        let fault = |fault: tokentape_tokenizer::Error| self.check(&fault.to_string(), None);
        let text = rendered(messages, self.config).map_err(fault)?;
        self.check_characters(&text)?;
        if fields.return_token_ids {
            let ids = tokenizer.encode(&text).map_err(fault)?;
            return Ok(Prompt { tokens: ids.len(), ids, text: String::new() });
        }
        Ok(Prompt { tokens: tokenizer.count(&text).map_err(fault)?, ..Prompt::default() })
    }

    fn prompts(&self, fields: &Fields<'_>) -> Result<Vec<Prompt>, Refusal> {
        let prompts: Vec<Prompt> = match &fields.prompt {
            fields::Prompts::None => Vec::new(),
            fields::Prompts::Texts(texts) => {
                texts.iter().map(|text| self.text_prompt(text)).collect::<Result<_, _>>()?
            }
            fields::Prompts::Ids(lists) => {
                lists.iter().map(|ids| self.ids_prompt(ids)).collect::<Result<_, _>>()?
            }
        };
        if prompts.is_empty() || prompts.iter().any(|prompt| prompt.ids.is_empty()) {
            return Err(self.check(
                "Either prompt or prompt_embeds must be provided and non-empty.",
                Some(("prompt", None)),
            ));
        }
        Ok(prompts)
    }

    fn text_prompt(&self, text: &str) -> Result<Prompt, Refusal> {
        self.check_characters(text)?;
        let ids = self.config.tokenizer.encode(text).map_err(|fault| self.check(&fault.to_string(), None))?;
        Ok(Prompt { text: text.to_owned(), tokens: ids.len(), ids })
    }

    fn ids_prompt(&self, ids: &[u32]) -> Result<Prompt, Refusal> {
        if let Some(id) = ids.iter().max().filter(|&&id| id > self.vocabulary.largest_id) {
            return Err(self.check(&format!("Token id {id} is out of vocabulary"), None));
        }
        let text = self.config.tokenizer.decode(ids).unwrap_or_default();
        Ok(Prompt { text, ids: ids.to_vec(), tokens: ids.len() })
    }
}

/// The model's names: an answer always has the first.
pub(crate) fn served(config: &Config) -> Vec<&str> {
    std::iter::once(config.model.as_str()).chain(config.wire.aliases.iter().map(String::as_str)).collect()
}

/// How many tokens a chat's prompt has.
pub(crate) fn chat_tokens(messages: &Value, config: &Config) -> Result<usize, Refusal> {
    if messages.as_array().is_none_or(Vec::is_empty) {
        return Err(Refusal::bad_request("list index out of range list index out of range"));
    }
    rendered(messages, config)
        .and_then(|text| config.tokenizer.count(&text))
        .map_err(|fault| Refusal::bad_request(&fault.to_string()))
}

/// A chat's prompt: the rendered template, where the tokenizer has one.
fn rendered(messages: &Value, config: &Config) -> Result<String, tokentape_tokenizer::Error> {
    if config.tokenizer.has_chat_template() {
        return config.tokenizer.render_chat(messages, true);
    }
    Ok(contents(messages.as_array().map_or(&[][..], Vec::as_slice)))
}

/// The text of all messages, one a line.
fn contents(messages: &[Value]) -> String {
    let mut texts = Vec::new();
    for message in messages {
        match &message["content"] {
            Value::String(text) => texts.push(text.as_str()),
            Value::Array(parts) => texts.extend(parts.iter().filter_map(|part| part["text"].as_str())),
            _ => {}
        }
    }
    texts.join("\n")
}

#[cfg(test)]
mod tests;
