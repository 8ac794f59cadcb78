//! Prompts cut by the server's own tokenizer, where that is another than the client's
//! (`_align_prompts_to_server_tokenizer` of `vllm/benchmarks/serve.py`, from 0.24 on).

use serde_json::{Map, Value, json};

use super::Config;
use super::run::{SIDE_TIMEOUT, base_path};
use crate::cli::Failure;
use crate::cli::compat::headers::Headers;
use crate::cli::compat::server::ask;
use crate::cli::output;
use crate::generate::compat::vllm as compat;
use crate::python::Json;
use crate::tape::format::Request;

/// Asks the server how many tokens the first prompt has. Where that is not what the client's tokenizer says, each
/// prompt that is longer to the server than it should be is cut there. Returns how many were.
///
/// Prompts that are too short stay so, and a prompt that the server fails on stays as it is: both as in the original.
pub(super) fn align(config: &Config, model: &str, requests: &mut [Request]) -> Result<u32, Failure> {
    let server = Server { config, model };
    let Some((prompt, expected)) =
        requests.first().and_then(|first| Some((text(first)?, first.input_tokens?)))
    else {
        return Ok(0);
    };
    let Some(tokens) = server.tokenize(&prompt)? else {
        output::print("WARNING: /tokenize unavailable, skipping alignment.\n")?;
        return Ok(0);
    };
    if tokens.len() == expected as usize {
        return Ok(0);
    }
    output::print(&format!(
        "WARNING: tokenizer mismatch (server={}, expected={expected}), re-aligning prompts.\n",
        tokens.len()
    ))?;
    let mut cut = 0;
    for request in requests {
        let (Some(prompt), Some(wanted)) = (text(request), request.input_tokens) else { continue };
        let Some(tokens) = server.tokenize(&prompt)? else { continue };
        let Some(kept) = tokens.get(..wanted as usize).filter(|kept| kept.len() < tokens.len()) else {
            continue;
        };
        if let Some(shorter) = server.detokenize(kept)? {
            compat::set_prompt(&config.params, request, shorter);
            cut += 1;
        }
    }
    Ok(cut)
}

/// A request's prompt, where it is a text.
fn text(request: &Request) -> Option<String> {
    let body: Map<String, Value> = serde_json::from_slice(&request.body).ok()?;
    let prompt = body.get("prompt").or_else(|| body.get("messages")?.pointer("/0/content/0/text"))?;
    prompt.as_str().map(str::to_owned)
}

/// The server's two endpoints. An answer that cannot be used is none; a server that cannot be reached is an error.
struct Server<'a> {
    config: &'a Config,
    model: &'a str,
}

impl Server<'_> {
    fn tokenize(&self, prompt: &str) -> Result<Option<Vec<Value>>, Failure> {
        let question = json!({ "model": self.model, "prompt": prompt, "add_special_tokens": false });
        let answer = self.ask("tokenize", &question)?;
        Ok(answer.and_then(|mut answer| match answer.get_mut("tokens")?.take() {
            Value::Array(tokens) => Some(tokens),
            _ => None,
        }))
    }

    fn detokenize(&self, tokens: &[Value]) -> Result<Option<String>, Failure> {
        let answer = self.ask("detokenize", &json!({ "model": self.model, "tokens": tokens }))?;
        Ok(answer.and_then(|answer| Some(answer.get("prompt")?.as_str()?.to_owned())))
    }

    fn ask(&self, endpoint: &str, question: &Value) -> Result<Option<Value>, Failure> {
        let question = Json::from(question).dumps();
        let target = &self.config.base.target;
        let path = format!("{}/{endpoint}", base_path(self.config));
        let headers = Headers::new(target).for_body(question.len());
        let answer = ask(target, &path, headers, question.into_bytes(), SIDE_TIMEOUT)?;
        Ok(answer.is_ok().then(|| serde_json::from_slice(&answer.body).ok()).flatten())
    }
}
