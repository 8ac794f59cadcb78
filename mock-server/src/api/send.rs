//! An answer that is ready, on its way: with its faults or without, as a stream or whole, on record and counted.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use http::{Response, StatusCode};
use http_body_util::Either;
use tokentape_pacer::Pacer;

use super::head::{self, json, streamed};
use super::{BrokenBody, Reply, Server};
use crate::deadlines::{Deadlines, Pace};
use crate::faulted::{self, Remains};
use crate::faults::Fault;
use crate::metrics::{ChoiceCount, Exchange, Observation};
use crate::refusal::Refusal;
use crate::stream::Stream;
use crate::timing;
use crate::transport::{Connection, Part};
use crate::truth::{Entry, EventKind, Record};
use crate::wire::{Failure, Frames};

/// An answer, and all that belongs to it.
pub(super) struct Ready {
    pub(super) content: Content,
    pub(super) pace: Pace,
    /// Without events and deadlines.
    pub(super) record: Record,
    pub(super) faults: Vec<Fault>,
    /// Where the faults' places are drawn from.
    pub(super) random: timing::Stream,
    /// How it is counted.
    pub(super) choices: Vec<ChoiceCount>,
    pub(super) n: usize,
    pub(super) exchange: Option<Exchange>,
}

/// What is sent.
pub(super) enum Content {
    /// Events, and how they end where the engine fails.
    Stream(Frames, Failure),
    /// A body, with the answer's token of this number.
    Whole(String, u32),
}

impl Ready {
    /// The response to it.
    pub(super) async fn send(
        self,
        server: &Server,
        pacer: Pacer,
        connection: Rc<Connection>,
    ) -> Result<Response<Reply>, BrokenBody> {
        let Self { content, pace, record, faults, random, choices, n, exchange } = self;
        let arrival_ns = record.arrival_ns;
        let is_stream = matches!(content, Content::Stream(..));
        let first_due_ns = match &pace {
            Pace::Model(due_ns, _) => due_ns.first().copied().filter(|_| !is_stream),
            Pace::Engine(_) => None,
        };
        server.metrics.begun(choices.len());
        let observation = Observation {
            metrics: Arc::clone(&server.metrics),
            choices,
            n,
            first_due_ns,
            // A body that is there at once is counted with its head.
            exchange: exchange.filter(|_| {
                if faults.is_empty() { is_stream } else { !faults.iter().any(|fault| fault.is_instead()) }
            }),
        };
        if !faults.is_empty() {
            let (events, deadlines, failure) = match content {
                Content::Stream(frames, failure) => {
                    let deadlines = stream_deadlines(pace, arrival_ns, &frames).0;
                    (frames.kinds().to_vec().into_iter().zip(frames).collect(), deadlines, failure)
                }
                Content::Whole(body, token) => {
                    let deadlines = pace.deadlines(vec![token]).0;
                    // No body has an error in its middle.
                    (vec![(EventKind::Body, body.into())], deadlines, Failure::Typed)
                }
            };
            let answer = faulted::Answer { events, deadlines, record, faults, failure, random, observation };
            let remains = answer.begin(&server.log, pacer, connection).await;
            return remains.into_response(server, is_stream);
        }
        Ok(match content {
            Content::Stream(frames, _) => {
                let (deadlines, due_ns) = stream_deadlines(pace, arrival_ns, &frames);
                let events = frames.kinds().to_vec();
                let entry = server.log.begin(Record { events, due_ns, ..record });
                connection.begin(entry.observed_by(observation));
                streamed(Either::Left(Stream::new(frames, deadlines, pacer, connection)))
            }
            Content::Whole(body, token) => {
                let entry = server.log.begin(record).observed_by(observation);
                whole(&pacer, &connection, entry, (pace, token), body).await
            }
        })
    }
}

/// One body, when that token is due. The record is without its event.
async fn whole(
    pacer: &Pacer,
    connection: &Connection,
    mut entry: Entry,
    (pace, token): (Pace, u32),
    body: String,
) -> Response<Reply> {
    let arrival_ns = entry.record.arrival_ns;
    let (mut deadlines, due_ns) = pace.deadlines(vec![token]);
    entry.record.events = vec![EventKind::Body];
    entry.record.due_ns = due_ns;
    connection.begin(entry);
    let due_ns = poll_fn(|cx| deadlines.poll_next(cx)).await.unwrap_or(arrival_ns);
    if deadlines.is_fed() {
        connection.due(due_ns);
    }
    pacer.sleep_until(due_ns).await;
    let response = json(StatusCode::OK, body);
    connection.hand_over(Part::Event);
    response
}

/// When a stream's events are due, and the list of that as far as it is known.
fn stream_deadlines(pace: Pace, arrival_ns: u64, frames: &Frames) -> (Deadlines, Vec<u64>) {
    let early = frames.tokens().iter().take_while(|token| token.is_none()).count();
    pace.deadlines_after(early, arrival_ns, event_tokens(frames))
}

/// The token that each event goes out with: the role with the first, as vLLM sends it with the engine's first output,
/// and what follows the last token with that. Choices that were played from elsewhere need not keep step, but no event
/// is due before the one that precedes it.
fn event_tokens(frames: &Frames) -> Vec<u32> {
    let latest = frames.tokens().iter().scan(0, |latest, token| {
        *latest = token.unwrap_or(0).max(*latest);
        Some(*latest)
    });
    latest.collect()
}

impl Remains {
    fn into_response(self, server: &Server, is_stream: bool) -> Result<Response<Reply>, BrokenBody> {
        Ok(match self {
            Self::Body(body) if is_stream => streamed(Either::Right(body)),
            Self::Body(body) => head::faulted(body),
            Self::Nothing => return Err(BrokenBody("closed on purpose".into())),
            Self::Status(status, retry_after) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let (kind, message) = ("InjectedError", "injected by the mock server");
                head::injected(Refusal::new(server.traits(), status, kind, message, None), retry_after)
            }
        })
    }
}
