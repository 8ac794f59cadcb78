//! The bodies, in the bytes of Python's `json.dumps`.

use super::{Dataset, Params, Prompt};
use crate::generate::Api;
use crate::metrics::vllm::Version;
use crate::python::Json;

/// The bodies of a run: all that is the same in every one.
#[derive(Debug)]
pub(super) struct Body<'a> {
    params: &'a Params,
    /// Sampling parameters, then the extra body.
    extra: Vec<(&'a str, Json)>,
    ignore_eos: bool,
}

impl<'a> Body<'a> {
    pub(super) fn new(params: &'a Params) -> Self {
        let sampling = &params.sampling;
        // `sampling_params` in `serve.py`, `main_async`.
        let given = [
            ("top_p", sampling.top_p.map(Json::from)),
            ("top_k", sampling.top_k.map(Json::from)),
            ("min_p", sampling.min_p.map(Json::from)),
            ("temperature", sampling.temperature.map(Json::from)),
            ("frequency_penalty", sampling.frequency_penalty.map(Json::from)),
            ("presence_penalty", sampling.presence_penalty.map(Json::from)),
            ("repetition_penalty", sampling.repetition_penalty.map(Json::from)),
        ];
        let given = given.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let further = params.extra_body.iter().map(|(key, value)| (key.as_str(), Json::from(value)));
        let forced = match params.dataset {
            Dataset::Random { .. } => params.version != Version::V0_11_0,
            Dataset::TimedTrace { .. } => true,
            _ => false,
        };
        Self { params, extra: given.chain(further).collect(), ignore_eos: params.ignore_eos || forced }
    }

    /// The body of one request (`async_request_openai_completions`, `async_request_openai_chat_completions`).
    pub(super) fn of(&self, prompt: &Prompt, output_len: u32) -> Vec<u8> {
        let prompt = match prompt {
            Prompt::Text(text) => Json::from(text.as_str()),
            Prompt::Ids(ids) => Json::list(ids.iter().copied()),
        };
        let greedy = (self.params.version == Version::V0_11_0).then(|| ("temperature", Json::from(0.0)));
        let mut payload = vec![("model", Json::from(self.params.model.as_str()))];
        match self.params.backend {
            Api::Chat => {
                let part = object([("type", "text".into()), ("text", prompt)]);
                let message = object([("role", "user".into()), ("content", Json::List(vec![part]))]);
                payload.push(("messages", Json::List(vec![message])));
                payload.extend(greedy);
                payload.push(("max_completion_tokens", output_len.into()));
            }
            // The command line refuses the other endpoints.
            Api::Completions | Api::Embeddings | Api::Responses => {
                payload.push(("prompt", prompt));
                payload.extend(greedy);
                payload.push(("repetition_penalty", 1.0.into()));
                payload.push(("max_tokens", output_len.into()));
                payload.push(("logprobs", Json::or_null(self.params.logprobs)));
            }
        }
        payload.push(("stream", true.into()));
        payload.push(("stream_options", object([("include_usage", true.into())])));
        if self.ignore_eos {
            payload.push(("ignore_eos", true.into()));
        }
        for (key, value) in &self.extra {
            // `dict.update`: a key keeps its place.
            match payload.iter_mut().find(|(known, _)| known == key) {
                Some((_, old)) => *old = value.clone(),
                None => payload.push((*key, value.clone())),
            }
        }
        object(payload).dumps().into_bytes()
    }
}

fn object<'a>(fields: impl IntoIterator<Item = (&'a str, Json)>) -> Json {
    Json::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}
