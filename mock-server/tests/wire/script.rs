//! What a capture says, as the script of an answer: texts, ids and log-probabilities, and nothing of its form.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;
use tokentape_mock::answers::{Answer, Logprob, Output, Token};

use crate::cases::{Case, Script};

/// The script for a case whose capture has `body`.
pub(crate) fn of(case: &Case, body: &str) -> Option<Answer<'static>> {
    let answer = match case.script {
        Script::None => return None,
        Script::Tokens(tokens) => {
            let token =
                |&(text, id): &(&'static str, u32)| Token { text: Cow::Borrowed(text), id, logprob: None };
            let outputs = tokens.iter().map(|pair| Output { choice: 0, tokens: vec![token(pair)] });
            return Some(Answer { outputs: outputs.collect() });
        }
        Script::Captured | Script::Apart => captured(body),
    };
    Some(if case.script == Script::Apart { apart(answer) } else { answer })
}

/// Each token as an output of its own.
fn apart(answer: Answer<'static>) -> Answer<'static> {
    let outputs = answer.outputs.into_iter().flat_map(|output| {
        output.tokens.into_iter().map(move |token| Output { choice: output.choice, tokens: vec![token] })
    });
    Answer { outputs: outputs.collect() }
}

fn captured(body: &str) -> Answer<'static> {
    let events: Vec<Value> = if body.starts_with("data: ") {
        let data = body.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
    } else {
        vec![serde_json::from_str(body).unwrap()]
    };
    let mut outputs = Vec::new();
    let mut told = HashMap::new();
    for event in &events {
        for choice in event["choices"].as_array().unwrap() {
            // An event that names the role or the tool says nothing.
            let tool = &choice["delta"]["tool_calls"][0]["function"]["name"];
            if choice["delta"]["role"].is_string() || tool.is_string() {
                continue;
            }
            let index = choice["index"].as_u64().unwrap();
            let tokens = tokens(choice);
            let before = told.entry(index).or_insert(0);
            // A running count tells how many tokens an event stands for.
            let running = if event["usage"].is_object() && choice["delta"].is_object() {
                event["usage"]["completion_tokens"].as_u64()
            } else {
                None
            };
            let count = running.map_or(tokens.len(), |now| usize::try_from(now - *before).unwrap());
            *before += count as u64;
            outputs.push(Output { choice: usize::try_from(index).unwrap(), tokens: padded(tokens, count) });
        }
    }
    let total = events.last().and_then(|event| event["usage"]["completion_tokens"].as_u64()).unwrap_or(0);
    spread(&mut outputs, usize::try_from(total).unwrap());
    Answer { outputs }
}

/// Tokens that no event shows: the last outputs of the choices have them, in equal parts.
fn spread(outputs: &mut [Output<'static>], total: usize) {
    let choices = outputs.iter().map(|output| output.choice + 1).max().unwrap_or(1);
    let shown: usize = outputs.iter().map(|output| output.tokens.len()).sum();
    let more = total.saturating_sub(shown) / choices;
    for choice in 0..choices {
        if let Some(last) = outputs.iter_mut().rev().find(|output| output.choice == choice) {
            let count = last.tokens.len() + more;
            last.tokens = padded(std::mem::take(&mut last.tokens), count);
        }
    }
}

fn padded(mut tokens: Vec<Token<'static>>, count: usize) -> Vec<Token<'static>> {
    tokens.resize(count.max(tokens.len()), Token::default());
    tokens
}

/// One choice's tokens: the first has all of the text, since only the sum of the texts is known.
fn tokens(choice: &Value) -> Vec<Token<'static>> {
    let texts = [
        &choice["text"],
        &choice["delta"]["content"],
        &choice["delta"]["tool_calls"][0]["function"]["arguments"],
        &choice["message"]["tool_calls"][0]["function"]["arguments"],
        &choice["message"]["content"],
    ];
    let text = texts.iter().find_map(|text| text.as_str()).unwrap_or_default().to_owned();
    let ids: Vec<u32> = choice["token_ids"]
        .as_array()
        .map(|ids| ids.iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect())
        .unwrap_or_default();
    let logprobs = logprobs(&choice["logprobs"]);
    let mut tokens = vec![Token::default(); ids.len().max(logprobs.len()).max(1)];
    tokens[0].text = Cow::Owned(text);
    tokens.iter_mut().zip(ids).for_each(|(token, id)| token.id = id);
    tokens.iter_mut().zip(logprobs).for_each(|(token, logprob)| token.logprob = Some(logprob));
    tokens
}

fn logprobs(value: &Value) -> Vec<Logprob<'static>> {
    let owned = |text: &str| Cow::Owned(text.to_owned());
    let candidate =
        |value: &Value| (owned(value["token"].as_str().unwrap()), value["logprob"].as_f64().unwrap());
    if let Some(content) = value["content"].as_array() {
        let tokens = content.iter().map(|value| {
            let (token, logprob) = candidate(value);
            let top = value["top_logprobs"].as_array().unwrap().iter().map(candidate).collect();
            Logprob { token, logprob, top }
        });
        return tokens.collect();
    }
    let list = |name: &str| value[name].as_array().cloned().unwrap_or_default();
    let (tokens, logprobs, tops) = (list("tokens"), list("token_logprobs"), list("top_logprobs"));
    let known = tokens.iter().zip(&logprobs).zip(&tops).map(|((token, logprob), top)| {
        let top =
            top.as_object().unwrap().iter().map(|(text, logprob)| (owned(text), logprob.as_f64().unwrap()));
        Logprob {
            token: owned(token.as_str().unwrap()),
            logprob: logprob.as_f64().unwrap(),
            top: top.collect(),
        }
    });
    known.collect()
}
