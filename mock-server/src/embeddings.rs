//! `/v1/embeddings` as vLLM 0.11.0 answers it. The vectors are random, of length 1, and those of an input are the same
//! in every request.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::fmt::Write;

use crate::config::Config;
use crate::refusal::Refusal;
use crate::timing::{Purpose, RequestKey, Stream};
use crate::wire::json_string;

/// The endpoint.
pub(crate) const PATH: &str = "/v1/embeddings";

/// The dimensions of a vector where a request asks for no other number.
const DIMENSIONS: u32 = 384;

/// The most that a request may ask for.
const MAX_DIMENSIONS: u32 = 16_384;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    /// The ids of each input.
    pub(crate) inputs: Vec<Vec<u32>>,
    encoding: Encoding,
    dimensions: u32,
    /// The id that the body asks for.
    pub(crate) id: Option<String>,
}

impl Asked {
    pub(crate) fn prompt_tokens(&self) -> usize {
        self.inputs.iter().map(Vec::len).sum()
    }
}

/// How a vector is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Encoding {
    /// As a list of numbers.
    #[default]
    Float,
    /// As the base64 of 32-bit numbers, little end first.
    Base64,
}

#[derive(Deserialize)]
struct Fields {
    model: Option<String>,
    input: Option<Input>,
    #[serde(default)]
    encoding_format: Encoding,
    dimensions: Option<u32>,
    request_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    Batch(Vec<Vec<u32>>),
}

/// Parses and checks a body.
pub(crate) fn parse(body: &[u8], config: &Config) -> Result<Asked, Refusal> {
    let fields: Fields = serde_json::from_slice(body).map_err(|fault| Refusal::shape(&fault))?;
    let Some(input) = fields.input else {
        return Err(Refusal::validation(
            "{'type': 'missing', 'loc': ('body', 'input'), 'msg': 'Field required'}",
        ));
    };
    Refusal::unless_served(fields.model.as_deref(), config)?;
    let encode =
        |text: &str| config.tokenizer.encode(text).map_err(|fault| Refusal::bad_request(&fault.to_string()));
    let inputs = match input {
        Input::Text(text) => vec![encode(&text)?],
        Input::Ids(ids) => vec![ids],
        Input::Texts(texts) => texts.iter().map(|text| encode(text)).collect::<Result<_, _>>()?,
        Input::Batch(inputs) => inputs,
    };
    if inputs.is_empty() || inputs.iter().any(Vec::is_empty) {
        return Err(Refusal::bad_request("Please provide at least one prompt, and none without a token."));
    }
    if let Some(long) = inputs.iter().find(|input| input.len() > config.max_model_len as usize) {
        return Err(Refusal::bad_request(&format!(
            "This model's maximum context length is {} tokens. However, your request has {} input tokens. Please \
             reduce the length of the input messages.",
            config.max_model_len,
            long.len()
        )));
    }
    let dimensions = fields.dimensions.unwrap_or(DIMENSIONS);
    if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
        return Err(Refusal::bad_request(&format!(
            "dimensions must be from 1 to {MAX_DIMENSIONS}, got {dimensions}."
        )));
    }
    Ok(Asked { inputs, encoding: fields.encoding_format, dimensions, id: fields.request_id })
}

/// The vectors of a request's inputs.
pub(crate) fn vectors(asked: &Asked, seed: u64) -> Vec<Vec<f32>> {
    asked.inputs.iter().map(|input| vector(input, asked.dimensions, seed)).collect()
}

/// A vector whose direction is drawn with a seed, from all alike.
#[expect(clippy::cast_possible_truncation, reason = "a vector's numbers have 32 bits")]
fn vector(input: &[u32], dimensions: u32, seed: u64) -> Vec<f32> {
    let bytes: Vec<u8> = input.iter().flat_map(|id| id.to_le_bytes()).collect();
    let mut random = Stream::new(seed, Purpose::Embedding, &RequestKey::new("", b"", &bytes));
    let numbers: Vec<f64> = (0..dimensions).map(|_| normal(&mut random)).collect();
    let length = numbers.iter().map(|number| number * number).sum::<f64>().sqrt();
    numbers.iter().map(|number| (number / length) as f32).collect()
}

/// A number of the normal distribution, by Box and Muller: a direction of such numbers favours no axis.
fn normal(random: &mut Stream) -> f64 {
    // Above 0, at most 1, and 53 bits of it.
    let mut uniform = || ((random.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()
}

/// The answer's JSON body.
pub(crate) fn body(asked: &Asked, id: &str, created: u64, model: &str, vectors: &[Vec<f32>]) -> String {
    let (id, model) = (json_string(id), json_string(model));
    let mut text =
        format!("{{\"id\":{id},\"object\":\"list\",\"created\":{created},\"model\":{model},\"data\":[");
    for (index, vector) in vectors.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let vector = match asked.encoding {
            Encoding::Float => floats(vector),
            Encoding::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
                format!("\"{}\"", STANDARD.encode(bytes))
            }
        };
        text += &format!("{comma}{{\"index\":{index},\"object\":\"embedding\",\"embedding\":{vector}}}");
    }
    let tokens = asked.prompt_tokens();
    text + &format!(
        "],\"usage\":{{\"prompt_tokens\":{tokens},\"total_tokens\":{tokens},\"completion_tokens\":0,\
         \"prompt_tokens_details\":null}}}}"
    )
}

/// Each number with the digits of its 64-bit form, as Python has them.
fn floats(vector: &[f32]) -> String {
    let mut text = String::with_capacity(24 * vector.len());
    let mut separator = '[';
    for number in vector {
        // A String takes whatever is written to it.
        write!(text, "{separator}{:?}", f64::from(*number)).unwrap_or_default();
        separator = ',';
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokentape_tokenizer::Tokenizer;

    use super::*;
    use crate::timing::Timing;

    fn ask(body: &str) -> Result<Asked, Refusal> {
        let timing = Timing::fixed(0, 0);
        let config =
            Config { max_model_len: 8, ..Config::new("m", Arc::new(Tokenizer::embedded().unwrap()), timing) };
        parse(body.as_bytes(), &config)
    }

    #[test]
    fn bodies_are_vllms() {
        let vectors = [vec![0.6, -0.8], vec![0.0, 1.0]];
        for (encoding, expected) in [
            ("float", include_str!("../fixtures/responses/embeddings_float.json")),
            ("base64", include_str!("../fixtures/responses/embeddings_base64.json")),
        ] {
            let asked =
                ask(&format!(r#"{{"input":[[1,2,3],[4,5]],"encoding_format":"{encoding}"}}"#)).unwrap();
            assert_eq!(body(&asked, "embd-a", 1_795_498_805, "m", &vectors), expected);
        }
    }

    #[test]
    fn vectors_have_length_one_and_belong_to_their_input() {
        let asked = ask(r#"{"input":[[1,2],[3],[1,2]],"dimensions":32}"#).unwrap();
        let made = vectors(&asked, 7);
        for vector in &made {
            let length: f64 = vector.iter().map(|number| f64::from(*number).powi(2)).sum();
            assert!(vector.len() == 32 && (length - 1.0).abs() < 1e-5, "{length}");
        }
        assert!(made[0] == made[2] && made[0] != made[1]);
        assert_ne!(made, vectors(&asked, 8));
    }

    #[test]
    fn inputs_come_in_four_shapes() {
        for input in [r#""a""#, r#"["a"]"#, "[7]", "[[7]]"] {
            let asked = ask(&format!(r#"{{"input":{input}}}"#)).unwrap();
            assert_eq!((asked.inputs.len(), asked.prompt_tokens()), (1, 1), "{input}");
        }
        for (body, status) in [
            ("{}", 400),
            (r#"{"input":[]}"#, 400),
            (r#"{"input":[[1],[]]}"#, 400),
            (r#"{"input":[1,2,3,4,5,6,7,8,9]}"#, 400),
            (r#"{"input":"a","dimensions":0}"#, 400),
            (r#"{"input":"a","encoding_format":"hex"}"#, 400),
            (r#"{"input":"a","model":"other"}"#, 404),
        ] {
            assert_eq!(ask(body).unwrap_err().status.as_u16(), status, "{body}");
        }
    }
}
