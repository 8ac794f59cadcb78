//! The command line's flags as a peer's parameters.

use std::path::Path;

use serde_json::Value;
use tokentape_tokenizer::Tokenizer;

use super::Bodies;
use super::tape::{Told, write_with};
use crate::cli::{Failure, Outcome};
use crate::generate::compat::{self, Data, Peer, evalscope, vllm};
use crate::generate::{Api, Lengths};
use crate::metrics::Dialect;

impl Bodies {
    /// The parameters with what every body holds.
    pub(super) fn vllm(&self, dialect: Dialect, params: vllm::Params) -> Result<vllm::Params, Failure> {
        Ok(vllm::Params {
            backend: self.peers_api(dialect)?,
            seed: narrow(dialect, "--seed", self.seed)?,
            tokenizer: self.tokenizer.clone(),
            ignore_eos: self.ignore_eos,
            sampling: vllm::Sampling { temperature: self.temperature(), ..params.sampling },
            extra_body: self.extra_body.clone(),
            ..params
        })
    }

    /// As [`vllm`](Self::vllm). evalscope sends its seed, and 0 for a temperature that is not given; it has no flag for
    /// `ignore_eos`, which goes the way of every further key.
    pub(super) fn evalscope(
        &self,
        dialect: Dialect,
        params: evalscope::Params,
        tokenizer: &Tokenizer,
    ) -> Result<evalscope::Params, Failure> {
        let mut extra_args = self.extra_body.clone();
        if self.ignore_eos {
            extra_args.entry("ignore_eos").or_insert(Value::Bool(true));
        }
        Ok(evalscope::Params {
            api: self.peers_api(dialect)?,
            seed: Some(narrow(dialect, "--seed", self.seed)?),
            tokenizer: Some(tokenizer.name().to_owned()),
            model: Some(self.model.clone()),
            temperature: self.temperature().unwrap_or(params.temperature),
            extra_args,
            ..params
        })
    }

    /// The endpoint, if it is one of the two that the peers' samplers know.
    fn peers_api(&self, dialect: Dialect) -> Result<Api, Failure> {
        match self.api.into() {
            api @ (Api::Chat | Api::Completions) => Ok(api),
            api => Err(Failure::usage(format_args!(
                "--api {api} has no counterpart in {dialect}: give chat or completions"
            ))),
        }
    }

    fn temperature(&self) -> Option<f64> {
        self.temperature.as_ref().and_then(serde_json::Number::as_f64)
    }
}

/// A number that the peers keep in 32 bits.
pub(super) fn narrow(dialect: Dialect, flag: &str, number: u64) -> Result<u32, Failure> {
    number
        .try_into()
        .map_err(|_| Failure::usage(format_args!("{flag} {number}: {dialect} takes at most {}", u32::MAX)))
}

/// A length that a peer knows as one number only.
pub(super) fn single(dialect: Dialect, flag: &str, lengths: Lengths, remedy: &str) -> Result<u32, Failure> {
    if lengths.is_fixed() {
        return Ok(*lengths.range().start());
    }
    Err(Failure::usage(format_args!("{flag} {lengths}: {dialect} knows no ranges; {remedy}")))
}

/// The flags that are given though the dialect has no counterpart of them: an error, with what to do instead.
pub(super) fn refuse(dialect: Dialect, flags: &[(&str, bool, &str)]) -> Result<(), Failure> {
    match flags.iter().find(|(_, given, _)| *given) {
        Some((flag, _, remedy)) => {
            Err(Failure::usage(format_args!("{flag} has no counterpart in {dialect}: {remedy}")))
        }
        None => Ok(()),
    }
}

/// Writes the tape of a peer's requests, and tells about it.
pub(super) fn write(
    path: &Path,
    peer: &Peer,
    tokenizer: &Tokenizer,
    data: Option<Data<'_>>,
    json: bool,
) -> Outcome {
    let requests = peer.requests(tokenizer, data)?;
    let header = peer.header(tokenizer)?;
    let (footer, made) = write_with(path, &header, ("generating", requests.len() as u64), |sink| {
        compat::feed(requests, sink)
    })?;
    Told { path, footer, made, tokenizer: Some(tokenizer), exact: false, survey: None }.print(json)
}
