//! What a request asks for, and the words in which vLLM 0.11.0 refuses it.
//!
//! Two things differ on purpose. Where vLLM lists a body's faults it repeats the whole body and names a line of its own
//! source; only the fault is told here. And more than one choice, or more than one prompt, is refused.

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::config::Config;
use crate::wire::{Endpoint, UsageMode, error};

/// A request that can be answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Request {
    pub(crate) stream: bool,
    pub(crate) usage: UsageMode,
    pub(crate) prompt_tokens: usize,
    /// The ids of a completion's prompt; empty for a chat.
    pub(crate) prompt_ids: Vec<u32>,
    pub(crate) max_tokens: u32,
    /// The id that the body asks for.
    pub(crate) id: Option<String>,
}

/// A request that is refused: the status and vLLM's JSON body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
}

impl Refusal {
    /// vLLM's own checks.
    pub(crate) fn bad_request(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequestError", message)
    }

    /// The checks of the body's shape, which happen before vLLM sees it.
    pub(crate) fn validation(fault: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Bad Request", &format!("1 validation error:\n  {fault}"))
    }

    /// A body that is not JSON, or in which a field has the wrong type.
    pub(crate) fn shape(fault: &serde_json::Error) -> Self {
        let kind = if fault.is_data() { "type_error" } else { "json_invalid" };
        Self::validation(&format!(
            "{{'type': '{kind}', 'loc': ('body',), 'msg': 'JSON decode error: {fault}'}}"
        ))
    }

    pub(crate) fn not_found(message: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFoundError", message)
    }

    /// Refuses another model than the one that is served.
    pub(crate) fn unless_served(model: Option<&str>, config: &Config) -> Result<(), Self> {
        match model {
            Some(model) if model != config.model => {
                Err(Self::not_found(&format!("The model `{model}` does not exist.")))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn unsupported_media() -> Self {
        let fault = "Unsupported Media Type: Only 'application/json' is allowed";
        Self::validation(&format!("{fault} [\"{fault}\"]"))
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("the request's body is larger than {} MiB", limit >> 20);
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "BadRequestError", &message)
    }

    pub(crate) fn new(status: StatusCode, kind: &str, message: &str) -> Self {
        Self { status, body: error(status.as_u16(), kind, message) }
    }
}

/// The fields that the server looks at; all others are taken and ignored, as vLLM does.
#[derive(Debug, Deserialize)]
struct Fields {
    model: Option<String>,
    messages: Option<Value>,
    prompt: Option<Prompt>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    min_tokens: Option<i64>,
    n: Option<i64>,
    temperature: Option<f64>,
    request_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
    continuous_usage_stats: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    Batch(Vec<Vec<u32>>),
}

/// Parses and checks a body, in the order in which vLLM does.
pub(crate) fn parse(endpoint: Endpoint, body: &[u8], config: &Config) -> Result<Request, Refusal> {
    let fields: Fields = serde_json::from_slice(body).map_err(|fault| Refusal::shape(&fault))?;
    if fields.stream_options.is_some() && fields.stream != Some(true) {
        return Err(Refusal::validation(
            "{'type': 'value_error', 'loc': ('body',), 'msg': 'Value error, Stream options can only be defined when \
             `stream=True`.'}",
        ));
    }
    if endpoint == Endpoint::Chat && fields.messages.is_none() {
        return Err(Refusal::validation(
            "{'type': 'missing', 'loc': ('body', 'messages'), 'msg': 'Field required'}",
        ));
    }
    Refusal::unless_served(fields.model.as_deref(), config)?;
    let (prompt_tokens, prompt_ids) = match endpoint {
        Endpoint::Chat => (chat_tokens(&fields.messages.unwrap_or_default(), config)?, Vec::new()),
        Endpoint::Completions => {
            let ids = prompt_ids(fields.prompt, config)?;
            (ids.len(), ids)
        }
    };
    let asked = fields.max_completion_tokens.filter(|_| endpoint == Endpoint::Chat).or(fields.max_tokens);
    let max_tokens = match endpoint {
        Endpoint::Chat => chat_limit(asked, prompt_tokens, config)?,
        Endpoint::Completions => completions_limit(asked, prompt_tokens, config)?,
    };
    if let Some(temperature) = fields.temperature.filter(|&temperature| temperature < 0.0) {
        return Err(Refusal::bad_request(&format!("temperature must be non-negative, got {temperature:?}.")));
    }
    if let Some(min_tokens) = fields.min_tokens.filter(|&min_tokens| min_tokens > i64::from(max_tokens)) {
        return Err(Refusal::bad_request(&format!(
            "min_tokens must be less than or equal to max_tokens={max_tokens}, got {min_tokens}."
        )));
    }
    match fields.n {
        None | Some(1) => {}
        Some(n) if n < 1 => return Err(Refusal::bad_request(&format!("n must be at least 1, got {n}."))),
        Some(n) => {
            return Err(Refusal::bad_request(&format!(
                "this mock server answers with one choice, not n={n}."
            )));
        }
    }
    Ok(Request {
        stream: fields.stream.unwrap_or(false),
        usage: usage_mode(fields.stream_options.as_ref()),
        prompt_tokens,
        prompt_ids,
        max_tokens,
        id: fields.request_id,
    })
}

fn usage_mode(options: Option<&StreamOptions>) -> UsageMode {
    let included = options.and_then(|options| options.include_usage).unwrap_or(false);
    let continuous = options.and_then(|options| options.continuous_usage_stats).unwrap_or(false);
    match (included, continuous) {
        (false, _) => UsageMode::Never,
        (true, false) => UsageMode::Last,
        (true, true) => UsageMode::Continuous,
    }
}

/// The prompt's tokens as vLLM counts them: those of the rendered template, where the tokenizer has one.
pub(crate) fn chat_tokens(messages: &Value, config: &Config) -> Result<usize, Refusal> {
    let Some(list) = messages.as_array() else {
        return Err(Refusal::validation(
            "{'type': 'list_type', 'loc': ('body', 'messages'), 'msg': 'Input should be a valid list'}",
        ));
    };
    if list.is_empty() {
        // The words are Python's own: vLLM looks at the last message before it looks whether there is one.
        return Err(Refusal::bad_request("list index out of range list index out of range"));
    }
    let counted = if config.tokenizer.has_chat_template() {
        config.tokenizer.count_chat(messages)
    } else {
        config.tokenizer.count(&contents(list))
    };
    counted.map_err(|fault| Refusal::bad_request(&fault.to_string()))
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

fn prompt_ids(prompt: Option<Prompt>, config: &Config) -> Result<Vec<u32>, Refusal> {
    let encode =
        |text: &str| config.tokenizer.encode(text).map_err(|fault| Refusal::bad_request(&fault.to_string()));
    let ids = match prompt {
        None => Vec::new(),
        Some(Prompt::Text(text)) => encode(&text)?,
        Some(Prompt::Ids(ids)) => ids,
        Some(Prompt::Texts(texts)) => match texts.as_slice() {
            [text] => encode(text)?,
            texts => return Err(batch(texts.len())),
        },
        Some(Prompt::Batch(mut prompts)) => match prompts.len() {
            1 => prompts.swap_remove(0),
            prompts => return Err(batch(prompts)),
        },
    };
    if ids.is_empty() {
        return Err(Refusal::bad_request("Either prompt or prompt_embeds must be provided and non-empty."));
    }
    Ok(ids)
}

fn batch(prompts: usize) -> Refusal {
    Refusal::bad_request(&format!("this mock server answers one prompt a request, not {prompts}."))
}

fn chat_limit(asked: Option<i64>, prompt_tokens: usize, config: &Config) -> Result<u32, Refusal> {
    let context = config.max_model_len;
    let room = context.saturating_sub(u32::try_from(prompt_tokens).unwrap_or(u32::MAX));
    if room == 0 {
        return Err(too_long(i64::from(context), prompt_tokens, " None"));
    }
    match asked {
        None => Ok(config.chat_max_tokens.min(room)),
        Some(asked) if asked > i64::from(room) => Err(Refusal::bad_request(&format!(
            "'max_tokens' or 'max_completion_tokens' is too large: {asked}. This model's maximum context length is \
             {context} tokens and your request has {prompt_tokens} input tokens \
             ({asked} > {context} - {prompt_tokens}). None"
        ))),
        Some(asked) => at_least_one(asked),
    }
}

fn completions_limit(asked: Option<i64>, prompt_tokens: usize, config: &Config) -> Result<u32, Refusal> {
    let asked = asked.unwrap_or(16);
    let max_tokens = at_least_one(asked)?;
    let room = i64::from(config.max_model_len) - i64::from(max_tokens);
    if i64::try_from(prompt_tokens).is_ok_and(|prompt| prompt <= room) {
        Ok(max_tokens)
    } else {
        Err(too_long(room, prompt_tokens, ""))
    }
}

fn at_least_one(asked: i64) -> Result<u32, Refusal> {
    if asked < 1 {
        return Err(Refusal::bad_request(&format!("max_tokens must be at least 1, got {asked}.")));
    }
    Ok(u32::try_from(asked).unwrap_or(u32::MAX))
}

/// vLLM's chat endpoint appends an exception's cause, which is `None`.
fn too_long(context: i64, prompt_tokens: usize, cause: &str) -> Refusal {
    Refusal::bad_request(&format!(
        "This model's maximum context length is {context} tokens. However, your request has {prompt_tokens} input \
         tokens. Please reduce the length of the input messages.{cause}"
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, LazyLock};

    use proptest::prelude::*;
    use tokentape_tokenizer::Tokenizer;

    use super::*;
    use crate::timing::Timing;

    static CONFIG: LazyLock<Config> = LazyLock::new(|| {
        let timing = Timing::fixed(0, 0);
        let tokenizer = Arc::new(Tokenizer::embedded().unwrap());
        Config { max_model_len: 4096, ..Config::new("m", tokenizer, timing) }
    });

    fn chat(body: &str) -> Result<Request, Refusal> {
        parse(Endpoint::Chat, body.as_bytes(), &CONFIG)
    }

    fn completions(body: &str) -> Result<Request, Refusal> {
        parse(Endpoint::Completions, body.as_bytes(), &CONFIG)
    }

    fn message(refused: Result<Request, Refusal>) -> (u16, String) {
        let refusal = refused.unwrap_err();
        let body: Value = serde_json::from_str(&refusal.body).unwrap();
        assert_eq!(body["error"]["code"], refusal.status.as_u16());
        (refusal.status.as_u16(), body["error"]["message"].as_str().unwrap().to_owned())
    }

    /// A capture's body.
    macro_rules! captured {
        ($name:literal) => {{
            let capture = include_str!(concat!("../fixtures/vllm-0.11.0/", $name, ".http"));
            capture.split_once("\r\n\r\n").unwrap().1.to_owned()
        }};
    }

    #[test]
    fn refusals_are_vllms() {
        let hello = r#""messages":[{"role":"user","content":"hello"}]"#;
        let tokens = chat(&format!("{{{hello}}}")).unwrap().prompt_tokens;
        let refused = |body: &str| chat(body).unwrap_err().body;
        assert_eq!(refused(&format!(r#"{{"model":"nope",{hello}}}"#)), captured!("err_model"));
        assert_eq!(refused(r#"{"messages":[]}"#), captured!("err_empty_messages"));
        assert_eq!(refused(&format!(r#"{{{hello},"max_tokens":0}}"#)), captured!("err_max_tokens_zero"));
        assert_eq!(refused(&format!(r#"{{{hello},"temperature":-1}}"#)), captured!("err_temperature"));
        let capture = captured!("err_max_tokens_over_context")
            .replace("has 9 input", &format!("has {tokens} input"))
            .replace("4096 - 9", &format!("4096 - {tokens}"));
        assert_eq!(refused(&format!(r#"{{{hello},"max_tokens":99999}}"#)), capture);
        assert_eq!(Refusal::unsupported_media().body, captured!("err_unsupported_media"));

        let prompt = vec!["7"; 5001].join(",");
        let body = format!(r#"{{"prompt":[{prompt}],"max_tokens":5,"stream":true}}"#);
        assert_eq!(completions(&body).unwrap_err().body, captured!("err_prompt_over_context_stream"));
        let (status, told) = message(chat(&format!(
            r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#,
            "hello ".repeat(6000)
        )));
        assert_eq!(status, 400);
        assert!(
            told.starts_with(
                "This model's maximum context length is 4096 tokens. However, your request has "
            )
        );
        assert!(told.ends_with(" input tokens. Please reduce the length of the input messages. None"));
    }

    #[test]
    fn limits_and_their_defaults() {
        let hello = r#""messages":[{"role":"user","content":"hello"}]"#;
        assert_eq!(chat(&format!("{{{hello}}}")).unwrap().max_tokens, Config::CHAT_MAX_TOKENS);
        let both = format!(r#"{{{hello},"max_tokens":3,"max_completion_tokens":5,"ignore_eos":true}}"#);
        assert_eq!(chat(&both).unwrap().max_tokens, 5);
        assert_eq!(completions(r#"{"prompt":[1]}"#).unwrap().max_tokens, 16);
        let both = r#"{"prompt":[1],"max_tokens":3,"max_completion_tokens":5}"#;
        assert_eq!(completions(both).unwrap().max_tokens, 3);
        assert_eq!(completions(r#"{"prompt":[1],"max_tokens":4095}"#).unwrap().max_tokens, 4095);
        let (_, told) = message(completions(r#"{"prompt":[1],"max_tokens":4096}"#));
        assert!(told.starts_with("This model's maximum context length is 0 tokens."));
        let (_, told) = message(completions(r#"{"prompt":[1],"max_tokens":2,"min_tokens":5}"#));
        assert_eq!(told, "min_tokens must be less than or equal to max_tokens=2, got 5.");
        assert!(completions(r#"{"prompt":[1],"max_tokens":9223372036854775807}"#).is_err());
    }

    #[test]
    fn prompts_come_in_four_shapes() {
        for prompt in [r#""a""#, r#"["a"]"#, "[7]", "[[7]]"] {
            let request = completions(&format!(r#"{{"prompt":{prompt}}}"#)).unwrap();
            assert_eq!((request.prompt_tokens, request.prompt_ids.len()), (1, 1), "{prompt}");
        }
        for prompt in [r#"["a","b"]"#, "[[7],[8]]", r#""""#, "[]", "null", "7", r#"[1,"a"]"#, "[-1]"] {
            assert_eq!(message(completions(&format!(r#"{{"prompt":{prompt}}}"#))).0, 400, "{prompt}");
        }
    }

    #[test]
    fn faults_of_shape_are_named() {
        assert!(message(chat("{nope")).1.contains("json_invalid"));
        assert!(message(chat(r#"{"max_tokens":"abc"}"#)).1.contains("invalid type: string \"abc\""));
        assert!(message(chat("{}")).1.contains("('body', 'messages'), 'msg': 'Field required'"));
        assert!(message(chat(r#"{"messages":"hi"}"#)).1.contains("should be a valid list"));
        let options = r#"{"messages":[{}],"stream_options":{"include_usage":true}}"#;
        assert!(message(chat(options)).1.contains("Stream options can only be defined when `stream=True`."));
        assert_eq!(message(completions(r#"{"prompt":[1],"n":2}"#)).0, 400);
        assert_eq!(message(completions(r#"{"prompt":[1],"n":0}"#)).1, "n must be at least 1, got 0.");
    }

    #[test]
    fn usage_is_told_where_asked() {
        for (options, mode) in [
            ("null", UsageMode::Never),
            ("{}", UsageMode::Never),
            (r#"{"include_usage":true}"#, UsageMode::Last),
            (r#"{"continuous_usage_stats":true}"#, UsageMode::Never),
            (r#"{"include_usage":true,"continuous_usage_stats":true}"#, UsageMode::Continuous),
        ] {
            let body = format!(r#"{{"prompt":[1],"stream":true,"stream_options":{options}}}"#);
            assert_eq!(completions(&body).unwrap().usage, mode, "{options}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(body: Vec<u8>, chat: bool) {
            let endpoint = if chat { Endpoint::Chat } else { Endpoint::Completions };
            drop(parse(endpoint, &body, &CONFIG));
        }
    }
}
