//! `random` (`evalscope/perf/plugin/datasets/random_dataset.py`): consecutive tokens of the vocabulary from a random
//! place on, as text that has just so many tokens.
//!
//! - 1.1.1 takes the whole vocabulary without added tokens, and lets a text that comes out short be short.
//! - 1.14.1 leaves out special tokens and those that stand for bytes, and makes up for missing tokens with random ones
//!   from a stream of each request's own, in up to eleven rounds.

use std::collections::HashSet;

use serde_json::json;
use tokentape_tokenizer::Tokenizer;

use super::super::mt19937::NumpyLegacy;
use super::params::wrong;
use super::{Message, Params};
use crate::generate::Error;
use crate::metrics::evalscope::Version;

/// How often 1.14.1 decodes a prompt and encodes it again, looking for the right length.
const ROUNDS: usize = 11;

/// What is drawn for each request before the first is made.
struct Plan {
    /// Tokens of each prompt without its prefix.
    lengths: Vec<usize>,
    /// Where in the allowed tokens each begins.
    offsets: Vec<usize>,
    /// The seed of each request's own stream; none where ids are sent, and none in 1.1.1.
    seeds: Vec<u32>,
}

/// The prompts of one run.
pub(super) fn messages(
    params: &Params,
    numpy: &mut NumpyLegacy,
    tokenizer: &Tokenizer,
) -> Result<Vec<Message>, Error> {
    let allowed = allowed(params.version, tokenizer);
    if allowed.is_empty() {
        return Err(Error::NoText { name: tokenizer.name().to_owned() });
    }
    // The order of the draws: prefixes, lengths, offsets, seeds.
    let prefixes = prefixes(params, numpy, &allowed)?;
    let plan = plan(params, numpy, tokenizer, allowed.len())?;
    let mut messages = Vec::with_capacity(plan.lengths.len());
    for (index, (&length, &offset)) in plan.lengths.iter().zip(&plan.offsets).enumerate() {
        let mut ids = prefixes[index % prefixes.len()].clone();
        ids.extend((0..length).map(|k| allowed[(offset + index + k) % allowed.len()]));
        messages.push(match params.version {
            _ if params.tokenize_prompt => Message::Ids(ids),
            Version::V1_1_1 => Message::of(params, truncated(tokenizer, &ids)?),
            Version::V1_14_1 => {
                let own = NumpyLegacy::new(plan.seeds[index]);
                Message::of(params, converged(tokenizer, ids, own, &allowed)?)
            }
        });
    }
    Ok(messages)
}

/// The ids that prompts are made of, in order.
fn allowed(version: Version, tokenizer: &Tokenizer) -> Vec<u32> {
    let below = |size: usize| 0..u32::try_from(size).unwrap_or(u32::MAX);
    match version {
        Version::V1_1_1 => below(tokenizer.base_vocab_size()).collect(),
        Version::V1_14_1 => below(tokenizer.vocab_size())
            .filter(|id| tokenizer.special_ids().binary_search(id).is_err())
            .filter(|&id| !tokenizer.token(id).is_some_and(|token| is_byte(&token)))
            .collect(),
    }
}

/// Whether a token stands for one byte: `<0xE4>`.
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// The prefixes, at least one and perhaps an empty one. Where several are asked for, each is another: one that was
/// there before is counted up, the last token first, until it is new.
fn prefixes(params: &Params, numpy: &mut NumpyLegacy, allowed: &[u32]) -> Result<Vec<Vec<u32>>, Error> {
    let (length, count) = (params.prefix_length as usize, params.prefix_count as usize);
    let enough = (0..length).try_fold(1usize, |capacity, _| {
        capacity.checked_mul(allowed.len()).filter(|&capacity| capacity < count)
    });
    if count > 1 && enough.is_some() {
        let reason = format!("{count} is more than the prefixes of {length} tokens that there are");
        return Err(wrong("--prefix-count", reason));
    }
    let (mut seen, mut prefixes) = (HashSet::new(), Vec::new());
    for _ in 0..count {
        let mut places = draw_places(numpy, allowed.len(), length);
        while seen.contains(&places) {
            for place in places.iter_mut().rev() {
                *place = (*place + 1) % allowed.len();
                if *place != 0 {
                    break;
                }
            }
        }
        prefixes.push(places.iter().map(|&place| allowed[place]).collect());
        seen.insert(places);
    }
    Ok(prefixes)
}

fn plan(
    params: &Params,
    numpy: &mut NumpyLegacy,
    tokenizer: &Tokenizer,
    allowed: usize,
) -> Result<Plan, Error> {
    let (low, high) = bounds(params, tokenizer)?;
    let total = params.total();
    let lengths = numpy.randints(low, high, total).into_iter().map(whole).collect();
    let shift = match params.version {
        Version::V1_1_1 => 0,
        Version::V1_14_1 => params.dataset_offset % allowed as u64,
    };
    let offsets = draw_places(numpy, allowed, total)
        .into_iter()
        .map(|offset| (offset + usize::try_from(shift).unwrap_or_default()) % allowed)
        .collect();
    let seeds = if params.version == Version::V1_14_1 && !params.tokenize_prompt {
        let seeds = numpy.randints(0, i64::from(u32::MAX), total).into_iter();
        seeds.map(|seed| u32::try_from(seed).unwrap_or_default()).collect()
    } else {
        Vec::new()
    };
    Ok(Plan { lengths, offsets, seeds })
}

/// The lengths to draw from, the upper one left out. The chat template's own tokens count as the prompt's.
fn bounds(params: &Params, tokenizer: &Tokenizer) -> Result<(i64, i64), Error> {
    let (shortest, longest) = (i64::from(params.min_prompt_length), i64::from(params.max_prompt_length));
    let template = if params.applies_chat_template() && !params.tokenize_prompt {
        let count = tokenizer.count_chat(&json!([{"role": "user", "content": ""}]))?;
        i64::try_from(count).unwrap_or(i64::MAX)
    } else {
        0
    };
    let low = match params.version {
        Version::V1_1_1 if shortest < template => {
            let reason = format!("must be at least {template}: the chat template's own tokens count");
            return Err(wrong("--min-prompt-length", reason));
        }
        Version::V1_1_1 => shortest - template,
        Version::V1_14_1 => (shortest - template).max(0),
    };
    let high = longest - template + 1;
    if high <= low {
        let reason = format!(
            "{longest} leaves no length to choose: the shortest is {shortest}, and the chat template takes {template}"
        );
        return Err(wrong("--max-prompt-length", reason));
    }
    Ok((low, high))
}

/// `np.random.randint(0, len(allowed), size=n)`.
fn draw_places(numpy: &mut NumpyLegacy, allowed: usize, n: usize) -> Vec<usize> {
    numpy.randints(0, i64::try_from(allowed).unwrap_or(i64::MAX), n).into_iter().map(whole).collect()
}

/// A number that was drawn between two that are not negative.
fn whole(drawn: i64) -> usize {
    usize::try_from(drawn).unwrap_or_default()
}

/// The text of the tokens, cut where it has more than it should have.
fn truncated(tokenizer: &Tokenizer, ids: &[u32]) -> Result<String, Error> {
    let mut again = tokenizer.encode(&tokenizer.decode(ids)?)?;
    again.truncate(ids.len());
    Ok(tokenizer.decode(&again)?)
}

/// `converge_to_token_len` (`evalscope/perf/plugin/datasets/utils.py`): the last round's text stands, whatever its
/// length.
fn converged(
    tokenizer: &Tokenizer,
    mut ids: Vec<u32>,
    mut own: NumpyLegacy,
    allowed: &[u32],
) -> Result<String, Error> {
    let target = ids.len();
    let mut text = String::new();
    for _ in 0..ROUNDS {
        text = tokenizer.decode(&ids)?;
        ids = tokenizer.encode(&text)?;
        if ids.len() == target {
            break;
        }
        let missing = target.saturating_sub(ids.len());
        ids.truncate(target);
        ids.extend(draw_places(&mut own, allowed.len(), missing).into_iter().map(|place| allowed[place]));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_token_is_told_by_its_name() {
        for (token, byte) in
            [("<0xE4>", true), ("<0xe4>", true), ("<0xE>", false), ("<0xGG>", false), ("0xE4", false)]
        {
            assert_eq!(is_byte(token), byte, "{token}");
        }
    }

    #[test]
    fn several_prefixes_are_all_different_though_few_are_to_be_had() {
        let params = Params { prefix_length: 2, prefix_count: 9, ..Params::default() };
        let mut prefixes = prefixes(&params, &mut NumpyLegacy::new(0), &[10, 11, 12]).unwrap();
        prefixes.sort_unstable();
        prefixes.dedup();
        assert_eq!(prefixes.len(), 9);
        let params = Params { prefix_count: 10, ..params };
        let error =
            super::prefixes(&params, &mut NumpyLegacy::new(0), &[10, 11, 12]).unwrap_err().to_string();
        assert_eq!(error, "--prefix-count 10 is more than the prefixes of 2 tokens that there are");
    }

    #[test]
    fn the_template_leaves_room_or_the_flag_is_named() {
        let tokenizer = Tokenizer::embedded().unwrap();
        let template =
            u32::try_from(tokenizer.count_chat(&json!([{"role": "user", "content": ""}])).unwrap()).unwrap();
        let params = Params { min_prompt_length: 1, max_prompt_length: template, ..Params::default() };
        assert_eq!(bounds(&params, &tokenizer).unwrap(), (0, 1));
        let older = Params { version: Version::V1_1_1, ..params.clone() };
        let error = bounds(&older, &tokenizer).unwrap_err().to_string();
        assert!(error.starts_with("--min-prompt-length must be at least"), "{error}");
        let shorter = Params { max_prompt_length: template - 1, ..params };
        let error = bounds(&shorter, &tokenizer).unwrap_err().to_string();
        assert!(error.starts_with("--max-prompt-length"), "{error}");
    }
}
