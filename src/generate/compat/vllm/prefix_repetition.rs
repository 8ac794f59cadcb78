//! `prefix_repetition`: prefixes of random tokens, each before as many different suffixes.

use tokentape_tokenizer::Tokenizer;

use super::exact::decode_to_length;
use super::random::vocab_size;
use super::{Params, Prompt, Sample, within_limit, wrong};
use crate::generate::Error;
use crate::generate::compat::mt19937::{NumpyLegacy, PythonRandom};
use crate::metrics::vllm::Version;

/// The dataset's parameters.
pub(super) struct Lens {
    pub(super) prefix_len: u32,
    pub(super) suffix_len: u32,
    pub(super) num_prefixes: u32,
    pub(super) output_len: u32,
}

/// Every prompt of the run: as many to each prefix, so that a remainder of the number asked for is left out
/// (`PrefixRepetitionRandomDataset.sample`).
pub(super) fn sample(params: &Params, lens: &Lens, tokenizer: &Tokenizer) -> Result<Vec<Sample>, Error> {
    within_limit("--prefix-tokens", f64::from(lens.prefix_len) + f64::from(lens.suffix_len))?;
    within_limit("--output-tokens", lens.output_len.into())?;
    let Some(per_prefix @ 1..) = params.num_prompts.checked_div(lens.num_prefixes) else {
        return wrong(
            "--num-prefixes",
            format!("must be from 1 to the number of requests, which is {}", params.num_prompts),
        );
    };
    let mut tokens = Tokens {
        version: params.version,
        tokenizer,
        vocab_size: vocab_size(tokenizer)?,
        rng: NumpyLegacy::new(params.seed),
    };
    let mut samples = Vec::new();
    for _ in 0..lens.num_prefixes {
        let prefix = tokens.exact(lens.prefix_len as usize)?;
        for _ in 0..per_prefix {
            let suffix = tokens.exact(lens.suffix_len as usize)?;
            let ids = [prefix.as_slice(), &suffix].concat();
            // Not encoded once more: at the seam the server may count otherwise.
            let prompt = Prompt::Text(tokenizer.decode(&ids)?);
            samples.push(Sample { prompt, prompt_len: ids.len(), output_len: lens.output_len });
        }
    }
    if !params.disable_shuffle {
        PythonRandom::new(params.seed.into()).shuffle(&mut samples);
    }
    Ok(samples)
}

struct Tokens<'a> {
    version: Version,
    tokenizer: &'a Tokenizer,
    vocab_size: u32,
    rng: NumpyLegacy,
}

impl Tokens<'_> {
    /// Tokens that stay `target` when they are decoded and encoded again (`_generate_exact_length_tokens`).
    fn exact(&mut self, target: usize) -> Result<Vec<u32>, Error> {
        if self.version == Version::V0_11_0 {
            return self.exact_by_pieces(target);
        }
        let ids = draw(&mut self.rng, self.vocab_size, target);
        let Self { tokenizer, vocab_size, rng, .. } = self;
        Ok(decode_to_length(tokenizer, ids, target, &mut |missing| draw(rng, *vocab_size, missing))?.1)
    }

    /// 0.11.0 makes what is missing in the same way, and puts the pieces together without another look. It gives up
    /// where Python's recursion does.
    fn exact_by_pieces(&mut self, target: usize) -> Result<Vec<u32>, Error> {
        let mut made = Vec::new();
        for _ in 0..1000 {
            let ids = draw(&mut self.rng, self.vocab_size, target - made.len());
            made.extend(self.tokenizer.encode(&self.tokenizer.decode(&ids)?)?);
            if made.len() >= target {
                made.truncate(target);
                return Ok(made);
            }
        }
        Err(Error::NoText { name: self.tokenizer.name().to_owned() })
    }
}

/// `np.random.randint(0, vocab_size, size=n)`.
fn draw(rng: &mut NumpyLegacy, vocab_size: u32, n: usize) -> Vec<u32> {
    let ids = rng.randints(0, vocab_size.into(), n).into_iter();
    // Below the size of the vocabulary.
    ids.map(|id| u32::try_from(id).unwrap_or(0)).collect()
}
