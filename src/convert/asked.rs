//! Bodies around the prompts of files that hold texts and no bodies, and what a body says of itself.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokentape_tokenizer::{self as tokenizer, Tokenizer};

use super::source::{Answer, Asked, Prompt};
use crate::generate::Api;
use crate::tape::format::Request;

/// The request that asks for it. Its keys stand in the order in which `generate` writes them.
pub(super) fn request(
    index: u64,
    offset_ns: u64,
    asked: Asked,
    (model, api): (&str, Api),
    tokenizer: Option<&Tokenizer>,
) -> Result<Request, tokenizer::Error> {
    let output_tokens = match &asked.answer {
        Answer::Unknown => None,
        Answer::Tokens(tokens) => Some(*tokens),
        // An answer of no token cannot be asked for.
        Answer::Text(text) => {
            tokenizer.map(|by| by.count(text)).transpose()?.map(|tokens| narrow(tokens).max(1))
        }
    };
    let (api, asks) = match (&asked.prompt, api) {
        (Prompt::Messages(list), _) => (Api::Chat, format!(r#""messages":{list}"#)),
        (Prompt::Text(text), Api::Chat) => {
            (Api::Chat, format!(r#""messages":[{{"role":"user","content":{}}}]"#, json!(text)))
        }
        (Prompt::Text(text), _) => (Api::Completions, format!(r#""prompt":{}"#, json!(text))),
    };
    let limit = if api == Api::Chat { "max_completion_tokens" } else { "max_tokens" };
    let mut body = format!(r#"{{"model":{},{asks}"#, json!(model));
    if let Some(tokens) = output_tokens {
        body += &format!(r#","{limit}":{tokens}"#);
    }
    body += r#","stream":true,"stream_options":{"include_usage":true}"#;
    if output_tokens.is_some() {
        body += r#","ignore_eos":true"#;
    }
    body.push('}');
    let body = body.into_bytes();
    let input_tokens = tokenizer.map(|by| prompt_tokens(by, &body)).transpose()?.flatten();
    Ok(Request {
        index,
        offset_ns,
        method: "POST".to_owned(),
        path: api.path().to_owned(),
        body,
        input_tokens,
        output_tokens,
        session: asked.session,
    })
}

/// The prompt's tokens, as a server would count them; none where the body holds no prompt of text or ids.
pub(super) fn prompt_tokens(tokenizer: &Tokenizer, body: &[u8]) -> Result<Option<u32>, tokenizer::Error> {
    Ok(prompt_ids(tokenizer, body)?.map(|ids| narrow(ids.len())))
}

/// The prompt's token ids: of a chat as the tokenizer's template renders it, with the generation prompt.
pub(crate) fn prompt_ids(tokenizer: &Tokenizer, body: &[u8]) -> Result<Option<Vec<u32>>, tokenizer::Error> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return Ok(None) };
    if body["messages"].is_array() {
        return tokenizer.encode(&tokenizer.render_chat(&body["messages"], true)?).map(Some);
    }
    match &body["prompt"] {
        Value::String(text) => tokenizer.encode(text).map(Some),
        Value::Array(ids) => {
            let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
            Ok(ids.iter().map(id).collect())
        }
        _ => Ok(None),
    }
}

/// What a body tells of its request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Told {
    /// The path that such bodies are posted to.
    pub(super) path: &'static str,
    /// The most tokens that it asks for.
    pub(super) output_tokens: Option<u32>,
}

/// Reads what a body tells; the error says why it is no request's.
pub(super) fn told(body: &str) -> Result<Told, String> {
    #[derive(Deserialize)]
    struct Body<'a> {
        messages: Option<IgnoredAny>,
        prompt: Option<IgnoredAny>,
        input: Option<IgnoredAny>,
        #[serde(borrow)]
        max_completion_tokens: Option<&'a RawValue>,
        #[serde(borrow)]
        max_tokens: Option<&'a RawValue>,
        #[serde(borrow)]
        max_output_tokens: Option<&'a RawValue>,
        stream: Option<IgnoredAny>,
        instructions: Option<IgnoredAny>,
    }
    let body: Body<'_> =
        serde_json::from_str(body).map_err(|error| format!("the body is not a JSON object: {error}"))?;
    // Only the responses endpoint generates from an `input`.
    let generates = body.max_output_tokens.is_some() || body.stream.is_some() || body.instructions.is_some();
    let api = match (&body.messages, &body.prompt, &body.input) {
        (Some(_), ..) => Api::Chat,
        (None, Some(_), _) => Api::Completions,
        (None, None, Some(_)) if generates => Api::Responses,
        (None, None, Some(_)) => Api::Embeddings,
        (None, None, None) => {
            return Err(
                "the body has no \"messages\", \"prompt\" or \"input\": no endpoint takes it".to_owned()
            );
        }
    };
    let count = |raw: Option<&RawValue>| raw.and_then(|raw| raw.get().parse().ok());
    let output_tokens = count(body.max_completion_tokens)
        .or_else(|| count(body.max_tokens))
        .or_else(|| count(body.max_output_tokens));
    Ok(Told { path: api.path(), output_tokens })
}

fn narrow(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bodys_keys_tell_its_endpoint_and_its_limit() {
        for (body, path, output_tokens) in [
            (
                r#"{"messages":[],"prompt":"","max_tokens":1,"max_completion_tokens":2}"#,
                "/v1/chat/completions",
                Some(2),
            ),
            (r#"{"prompt":[1],"max_tokens":3}"#, "/v1/completions", Some(3)),
            (r#"{"input":"a","max_output_tokens":4}"#, "/v1/responses", Some(4)),
            (r#"{"input":["a"],"max_tokens":"many"}"#, "/v1/embeddings", None),
        ] {
            assert_eq!(told(body), Ok(Told { path, output_tokens }), "{body}");
        }
        assert!(told("[]").unwrap_err().contains("not a JSON object"));
        assert!(told("{}").unwrap_err().contains("no endpoint"));
    }
}
