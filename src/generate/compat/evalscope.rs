//! The requests of `evalscope perf` 1.1.1 and 1.14.1, byte for byte.
//!
//! Each run of the client makes a connection test, then its data set, then one body for each request, and draws from
//! two streams on the way: numpy's global generator for the data set (and for the schedule after it), Python's
//! `random` for the number of output tokens where that is a range. Neither is seeded anew between the runs of a sweep,
//! so a run depends on those before it: [`Streams`] carries the state, and [`requests`] goes through the earlier runs.
//!
//! Where the versions differ, the module of the part says so. Not here: several turns, images, embeddings, `openai`'s
//! responses API, and `--dataset-args` other than those of `workload_trace`.

mod body;
mod params;
mod random;
mod text;
mod timestamp;
mod trace;

use serde_json::{Map, Value, json};
use tokentape_tokenizer::Tokenizer;

pub use params::{Dataset, Params, TraceArgs};

use super::mt19937::{NumpyLegacy, PythonRandom};
use super::{Data, Sampled, numbered, required};
use crate::generate::Error;
use crate::metrics::evalscope::Version;
use crate::schedule;
use crate::tape::format::{Header, Request};

/// The two global generators of the client's process.
#[derive(Clone, Debug)]
pub struct Streams {
    numpy: NumpyLegacy,
    python: PythonRandom,
}

impl Streams {
    /// As `--seed` leaves them (`evalscope/utils/model_utils.py`, `seed_everything`).
    #[must_use]
    pub fn seeded(seed: u32) -> Self {
        Self { numpy: NumpyLegacy::new(seed), python: PythonRandom::new(seed.into()) }
    }

    /// The data set's and the schedule's.
    pub(crate) fn numpy(&mut self) -> &mut NumpyLegacy {
        &mut self.numpy
    }
}

/// What a data set hands over for one request.
#[derive(Clone, Debug, PartialEq)]
enum Message {
    /// A whole body: the client only adds what it lacks.
    Body(Map<String, Value>),
    /// A prompt as token ids.
    Ids(Vec<u32>),
    /// What is sent as `messages`; a list, unless a line of a file says otherwise.
    Messages(Value),
    /// What is sent as `prompt`.
    Text(String),
}

impl Message {
    /// A prompt, as one user message where the client applies a chat template.
    fn of(params: &Params, prompt: String) -> Self {
        if params.applies_chat_template() {
            Message::Messages(json!([{"role": "user", "content": prompt}]))
        } else {
            Message::Text(prompt)
        }
    }
}

/// The header of a tape with these requests.
pub fn header(params: &Params, tokenizer: &Tokenizer) -> Result<Header, Error> {
    let seed = params.seed.or(params.unsent_seed).map(u64::from);
    super::header(params.source(), params, seed, tokenizer)
}

/// The requests of a run, with those of the earlier runs of its sweep drawn before it. Warm-up requests come first.
///
/// Only `workload_trace` says when its requests are sent; the offsets of all others are 0. A trace's headers and
/// request ids have no place in a tape.
pub fn requests(
    params: &Params,
    tokenizer: &Tokenizer,
    data: Option<Data<'_>>,
) -> Result<Vec<Request>, Error> {
    let mut streams = params.streams()?;
    let mut this = params.clone();
    for &number in &params.earlier {
        this.number = Some(number);
        one_run(&this, &mut streams, tokenizer, data)?;
        // 1.1.1 has no offset.
        if params.version == Version::V1_14_1 {
            this.dataset_offset += u64::from(number);
        }
    }
    this.number = params.number;
    one_run(&this, &mut streams, tokenizer, data)
}

fn one_run(
    params: &Params,
    streams: &mut Streams,
    tokenizer: &Tokenizer,
    data: Option<Data<'_>>,
) -> Result<Vec<Request>, Error> {
    if params.test_connection {
        connection_test(params, streams, tokenizer)?;
    }
    run(params, streams, tokenizer, data)
}

/// The body of the request that the client sends before each run, to see whether there is a server. It goes to the
/// same path as the others, is no part of the figures, and takes a draw where `--max-tokens` is a range.
pub fn connection_test(
    params: &Params,
    streams: &mut Streams,
    tokenizer: &Tokenizer,
) -> Result<Vec<u8>, Error> {
    params.check()?;
    let hello = Message::of(params, "hello".to_owned());
    Ok(sampled(params, streams, tokenizer, &hello)?.body)
}

/// The requests of one run after its [`connection_test`], drawn from the streams as that left them: for a sweep, whose
/// next run begins with its own connection test, a `dataset_offset` that is larger by this run's `number`, and the
/// streams as the run's schedule left them.
pub fn run(
    params: &Params,
    streams: &mut Streams,
    tokenizer: &Tokenizer,
    data: Option<Data<'_>>,
) -> Result<Vec<Request>, Error> {
    params.check()?;
    if let Some(prompt) = &params.prompt {
        let message = Message::of(params, prompt.clone());
        return Ok(numbered(vec![sampled(params, streams, tokenizer, &message)?; params.total()]));
    }
    let data = || required(&params.source(), params.data.as_ref(), data);
    let (messages, offsets_s) = match &params.dataset {
        Dataset::Random => (random::messages(params, &mut streams.numpy, tokenizer)?, None),
        Dataset::WorkloadTrace(args) => {
            let (messages, offsets_s) = trace::messages(params, args, data()?)?;
            (messages, Some(offsets_s))
        }
        text => (text::messages(params, text, tokenizer, data()?)?, None),
    };
    let total = if offsets_s.is_some() { messages.len() } else { params.total() };
    let bodies: Result<Vec<Sampled>, Error> = messages
        .iter()
        .cycle()
        .take(total)
        .map(|message| sampled(params, streams, tokenizer, message))
        .collect();
    let mut requests = numbered(bodies?);
    for (request, offset_s) in requests.iter_mut().zip(offsets_s.unwrap_or_default()) {
        request.offset_ns = schedule::offset_ns(offset_s);
    }
    Ok(requests)
}

/// `build_request`: one body, with its draw of the output tokens.
fn sampled(
    params: &Params,
    streams: &mut Streams,
    tokenizer: &Tokenizer,
    message: &Message,
) -> Result<Sampled, Error> {
    let range = params.max_tokens.range();
    let max_tokens = if params.max_tokens.is_fixed() {
        u64::from(*range.start())
    } else {
        streams.python.randint(u64::from(*range.start()), u64::from(*range.end()))
    };
    let body = body::compose(params, tokenizer, message, max_tokens)?;
    Ok(Sampled {
        path: params.path().to_owned(),
        input_tokens: body::input_tokens(&body, tokenizer)?,
        output_tokens: body::output_tokens(&body, max_tokens),
        body: body::dumps(body),
    })
}
