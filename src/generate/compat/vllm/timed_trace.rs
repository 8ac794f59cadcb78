//! `timed_trace`: arrivals, lengths and hashes of blocks, as Mooncake's traces have them. Prompts are token ids.
//!
//! One thing is not the original's. It seeds a block's tokens with Python's `hash` of a string, which differs from one
//! process to the next, so no two of its runs send the same prompts. Here the seed is the first 32 bits (little-endian)
//! of the BLAKE3 hash of the same string, `HASH:SIZE`; everything after it is as it was: `random.Random(seed)` and
//! `choices` over the sorted ids. Equal hashes are equal blocks in both, which is what a prefix cache sees.

use std::collections::HashMap;

use serde_json::{Map, Value};
use tokentape_tokenizer::Tokenizer;

use super::{Labels, Params, Prompt, Sample, wrong};
use crate::generate::compat::Data;
use crate::generate::compat::mt19937::PythonRandom;
use crate::generate::{Api, Error, MAX_TOKENS};
use crate::metrics::vllm::Version;

/// The requests in the file's order, each with its arrival in nanoseconds (`TimedTrace.sample`).
pub(super) fn sample(
    params: &Params,
    mut blocks: Blocks,
    sec_multiplier: f64,
    labels: &Labels,
    data: Data<'_>,
) -> Result<Vec<(Sample, u64)>, Error> {
    if params.version == Version::V0_11_0 {
        return wrong("timed_trace", "does not exist in vllm 0.11.0");
    }
    if params.backend != Api::Completions {
        return wrong("--api", "must be completions: a timed trace's prompts are token ids");
    }
    if !(sec_multiplier.is_finite() && sec_multiplier >= 0.0) {
        return wrong("--sec-multiplier", "must be a number from 0 on");
    }
    data.lines()
        .take(params.num_prompts as usize)
        .map(|(number, text)| {
            let line = Line::read(data, number, text)?;
            let input_len = line.tokens(&labels.input_length)?;
            let output_len = line.tokens(&labels.output_length)?;
            let arrival = line.number(&labels.timestamp)?.as_f64().unwrap_or(f64::NAN) * sec_multiplier;
            let offset_ns = nanoseconds(arrival).ok_or_else(|| {
                line.error(format!("{:?} is no time from 0 s to 500 years: {arrival} s", labels.timestamp))
            })?;
            let ids = blocks.prompt(&line.hashes(&labels.hash_ids)?, input_len);
            let prompt_len = ids.len();
            Ok((Sample { prompt: Prompt::Ids(ids), prompt_len, output_len }, offset_ns))
        })
        .collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the bounds just checked")]
fn nanoseconds(seconds: f64) -> Option<u64> {
    let ns = (seconds * 1e9).round();
    (0.0..1.6e19).contains(&ns).then_some(ns as u64)
}

/// Makes the tokens that a hash stands for.
#[derive(Debug)]
pub(super) struct Blocks {
    size: u32,
    /// The vocabulary without special tokens, in order.
    ids: Vec<u32>,
    known: HashMap<String, Vec<u32>>,
}

impl Blocks {
    pub(super) fn new(size: u32, tokenizer: &Tokenizer) -> Result<Self, Error> {
        if size == 0 || size > MAX_TOKENS {
            return wrong("--chunk-hash-size", format!("must be from 1 to {MAX_TOKENS}"));
        }
        let special = tokenizer.special_ids();
        let ids: Vec<u32> = tokenizer.ids().into_iter().filter(|id| !special.contains(id)).collect();
        if ids.is_empty() {
            return Err(Error::NoText { name: tokenizer.name().to_owned() });
        }
        Ok(Self { size, ids, known: HashMap::new() })
    }

    /// The blocks of the hashes, one after the other, up to `input_len` tokens. Where there are not enough hashes, the
    /// prompt is shorter; that is the original's (`_expand_prompt`).
    fn prompt(&mut self, hashes: &[Value], input_len: u32) -> Vec<u32> {
        let mut prompt = Vec::new();
        let mut missing = input_len;
        for hash in hashes {
            let size = missing.min(self.size);
            prompt.extend_from_slice(self.block(format!("{hash}:{size}"), size));
            missing -= size;
            if missing == 0 {
                break;
            }
        }
        prompt
    }

    fn block(&mut self, key: String, size: u32) -> &[u32] {
        let Self { ids, known, .. } = self;
        known.entry(key).or_insert_with_key(|key| {
            let digest = blake3::hash(key.as_bytes());
            let [a, b, c, d, ..] = *digest.as_bytes();
            let mut random = PythonRandom::new(u32::from_le_bytes([a, b, c, d]).into());
            random.choices(ids.len(), size as usize).into_iter().map(|place| ids[place]).collect()
        })
    }
}

/// One line of the file.
struct Line<'a> {
    data: Data<'a>,
    number: usize,
    fields: Map<String, Value>,
}

impl<'a> Line<'a> {
    fn read(data: Data<'a>, number: usize, text: &[u8]) -> Result<Self, Error> {
        let fields = serde_json::from_slice(text)
            .map_err(|error| data.error(Some(number), format!("not a JSON object: {error}")))?;
        Ok(Self { data, number, fields })
    }

    fn error(&self, reason: String) -> Error {
        self.data.error(Some(self.number), reason)
    }

    fn number(&self, label: &str) -> Result<&Value, Error> {
        let known = || self.fields.keys().cloned().collect::<Vec<_>>().join(", ");
        self.fields
            .get(label)
            .filter(|value| value.is_number())
            .ok_or_else(|| self.error(format!("no number {label:?}; the line has {}", known())))
    }

    /// A number of tokens.
    fn tokens(&self, label: &str) -> Result<u32, Error> {
        let value = self.number(label)?;
        let tokens = value.as_u64().and_then(|tokens| u32::try_from(tokens).ok());
        tokens
            .filter(|&tokens| tokens <= MAX_TOKENS)
            .ok_or_else(|| self.error(format!("{label:?} is {value}, not a whole number up to {MAX_TOKENS}")))
    }

    /// The hashes; none where the key is not there.
    fn hashes(&self, label: &str) -> Result<Vec<Value>, Error> {
        match self.fields.get(label) {
            None => Ok(Vec::new()),
            Some(Value::Array(hashes)) if hashes.iter().all(|hash| hash.is_i64() || hash.is_u64()) => {
                Ok(hashes.clone())
            }
            Some(_) => Err(self.error(format!("{label:?} is no list of whole numbers"))),
        }
    }
}
