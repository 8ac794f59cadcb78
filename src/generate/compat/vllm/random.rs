//! `random`: each prompt is a run of neighbouring ids of the vocabulary from a random place, decoded.

use tokentape_tokenizer::Tokenizer;

use super::exact::decode_to_length;
use super::{Params, Prompt, RangeRatio, Sample, within_limit, wrong};
use crate::generate::Error;
use crate::generate::compat::numpy::Generator;
use crate::metrics::vllm::Version;

/// The dataset's parameters.
pub(super) struct Lens {
    pub(super) input_len: u32,
    pub(super) output_len: u32,
    pub(super) range_ratio: RangeRatio,
    pub(super) prefix_len: u32,
}

/// Lowest and highest length, both included.
type Bounds = (u32, u32);

/// Every prompt of the run (`RandomDataset.sample`).
pub(super) fn sample(params: &Params, lens: &Lens, tokenizer: &Tokenizer) -> Result<Vec<Sample>, Error> {
    let (input, output) = bounds(params.version, lens, tokenizer)?;
    let n = params.num_prompts as usize;
    let vocab_size = vocab_size(tokenizer)?;
    let mut rng = Generator::new(params.seed.into());
    let input_lens = rng.integers(input.0, input.1 + 1, n);
    let output_lens = rng.integers(output.0, output.1 + 1, n);
    let offsets = rng.integers(0, vocab_size, n);

    let mut prompts = Prompts::new(params.version, tokenizer, vocab_size, rng)?;
    let prefix = prompts.prefix(lens.prefix_len)?;
    let drawn = input_lens.into_iter().zip(output_lens).zip(offsets);
    drawn
        .enumerate()
        .map(|(index, ((input_len, output_len), offset))| {
            let target = (lens.prefix_len + input_len) as usize;
            let (text, prompt_len) =
                prompts.prompt(&prefix, input_len as usize, index + offset as usize, target)?;
            Ok(Sample { prompt: Prompt::Text(text), prompt_len, output_len })
        })
        .collect()
}

/// The size of the vocabulary without added tokens, as the draws need it.
pub(super) fn vocab_size(tokenizer: &Tokenizer) -> Result<u32, Error> {
    match u32::try_from(tokenizer.base_vocab_size()) {
        Ok(size) if size > 0 => Ok(size),
        _ => Err(Error::NoText { name: tokenizer.name().to_owned() }),
    }
}

/// The bounds of both lengths (`get_sampling_params` in `vllm/benchmarks/datasets/utils.py`; the method of that name in
/// 0.11.0).
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "whole numbers from 0 to MAX_TOKENS"
)]
fn bounds(version: Version, lens: &Lens, tokenizer: &Tokenizer) -> Result<(Bounds, Bounds), Error> {
    let (input_ratio, output_ratio) = match lens.range_ratio {
        RangeRatio::Both(ratio) => (ratio, ratio),
        RangeRatio::Each { .. } if version == Version::V0_11_0 => {
            return wrong("--range-ratio", "is one number in vllm 0.11.0");
        }
        RangeRatio::Each { input, output } => (input, output),
    };
    if ![input_ratio, output_ratio].iter().all(|ratio| (0.0..1.0).contains(ratio)) {
        return wrong("--range-ratio", "must be at least 0 and below 1");
    }
    // A BOS that the tokenizer would add counts as one of the prompt's.
    let special = u32::try_from(tokenizer.special_tokens_to_add()).unwrap_or(u32::MAX);
    let real = f64::from(lens.input_len.saturating_sub(special));
    let wanted = f64::from(lens.output_len);
    let [input_low, input_high] = [(real * (1.0 - input_ratio)).floor(), (real * (1.0 + input_ratio)).ceil()];
    let [output_low, output_high] =
        [(wanted * (1.0 - output_ratio)).floor(), (wanted * (1.0 + output_ratio)).ceil()];
    within_limit("--input-tokens", input_high + f64::from(lens.prefix_len))?;
    within_limit("--output-tokens", output_high)?;
    if version != Version::V0_11_0 && f64::from(lens.prefix_len) + input_low < 1.0 {
        return wrong(
            "--input-tokens",
            format!(
                "{} is too small: {special} special tokens of the tokenizer and the range ratio leave a prompt of no \
                 tokens",
                lens.input_len
            ),
        );
    }
    if output_high < 1.0 && version == Version::V0_11_0 {
        return wrong("--output-tokens", "must be at least 1");
    }
    let least_one = |tokens: f64| tokens.max(1.0) as u32;
    Ok(((input_low as u32, input_high as u32), (least_one(output_low), least_one(output_high))))
}

/// Makes the prompts one after the other: those of a version with a loop draw from the same numbers.
struct Prompts<'a> {
    version: Version,
    tokenizer: &'a Tokenizer,
    vocab_size: u32,
    /// The ids that prompts begin with being made of: all, or from 0.11.1 on all but the special ones.
    allowed: Vec<u32>,
    rng: Generator,
}

impl<'a> Prompts<'a> {
    fn new(
        version: Version,
        tokenizer: &'a Tokenizer,
        vocab_size: u32,
        rng: Generator,
    ) -> Result<Self, Error> {
        let special = if version == Version::V0_11_0 { &[] } else { tokenizer.special_ids() };
        let allowed: Vec<u32> = (0..vocab_size).filter(|id| !special.contains(id)).collect();
        if allowed.is_empty() {
            return Err(Error::NoText { name: tokenizer.name().to_owned() });
        }
        Ok(Self { version, tokenizer, vocab_size, allowed, rng })
    }

    /// The ids of the prefix that all prompts share (`get_prefix`).
    fn prefix(&mut self, len: u32) -> Result<Vec<u32>, Error> {
        if len == 0 {
            return Ok(Vec::new());
        }
        // Fits: there are no more of them than ids.
        let places = u32::try_from(self.allowed.len()).unwrap_or(u32::MAX);
        let drawn = self.rng.integers(0, places, len as usize);
        let ids = drawn.into_iter().map(|place| self.allowed[place as usize]).collect();
        if self.version == Version::V0_11_0 {
            return Ok(ids);
        }
        Ok(self.exact(ids, len as usize)?.1)
    }

    /// A prompt of the prefix and `len` ids from place `start` on, and the number of its tokens
    /// (`generate_token_sequence`). `target` is what the lengths add up to: a prefix may have come out otherwise.
    fn prompt(
        &mut self,
        prefix: &[u32],
        len: usize,
        start: usize,
        target: usize,
    ) -> Result<(String, usize), Error> {
        let inner = (start..start + len).map(|place| self.allowed[place % self.allowed.len()]);
        let ids: Vec<u32> = prefix.iter().copied().chain(inner).collect();
        if self.version == Version::V0_11_0 {
            let mut ids = self.tokenizer.encode(&self.tokenizer.decode(&ids)?)?;
            ids.truncate(target);
            return Ok((self.tokenizer.decode(&ids)?, ids.len()));
        }
        let (text, ids) = self.exact(ids, target)?;
        Ok((text, ids.len()))
    }

    fn exact(&mut self, ids: Vec<u32>, target: usize) -> Result<(String, Vec<u32>), Error> {
        let Self { tokenizer, vocab_size, rng, .. } = self;
        decode_to_length(tokenizer, ids, target, &mut |missing| rng.integers(0, *vocab_size, missing))
    }
}
