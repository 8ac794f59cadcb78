//! Answers with [faults](crate::faults), and recorded ones: the steps of a script, carried out.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokentape_pacer::{Pacer, Sleep};

use crate::deadlines::Deadlines;
use crate::faults::{Fault, Script, Step, Then};
use crate::metrics::Observation;
use crate::timing::Stream as Random;
use crate::transport::{Connection, Part};
use crate::truth::{EventKind, Log, Outcome, Record};
use crate::wire::Failure;

/// An answer that faults are to be injected into.
#[derive(Debug)]
pub(crate) struct Answer {
    /// What each event is, and its bytes; of an answer that is no stream, one.
    pub(crate) events: Vec<(EventKind, Bytes)>,
    /// When each is due.
    pub(crate) deadlines: Deadlines,
    /// Without events and deadlines.
    pub(crate) record: Record,
    pub(crate) faults: Vec<Fault>,
    /// How its stream ends where the engine fails.
    pub(crate) failure: Failure,
    pub(crate) random: Random,
    /// Counts it when it has ended.
    pub(crate) observation: Observation,
}

/// What is left of it.
#[derive(Debug)]
pub(crate) enum Remains {
    /// A body that has its faults in it.
    Body(Faulted),
    /// Nothing: the connection is to be closed.
    Nothing,
    /// A status, and the seconds of its `Retry-After`.
    Status(u16, Option<u32>),
}

impl Answer {
    /// Begins the record, waits for as long as the head is held back, and tells what to send.
    pub(crate) async fn begin(mut self, log: &Log, pacer: Pacer, connection: Rc<Connection>) -> Remains {
        let kinds: Vec<EventKind> = self.events.iter().map(|(kind, _)| *kind).collect();
        let is_whole = kinds.contains(&EventKind::Body);
        self.faults.retain(|fault| fault.fits(&kinds));
        let arrival_ns = self.record.arrival_ns;
        let held_ns: u64 =
            self.faults.iter().map(|fault| if let Fault::Delay(ns) = fault { *ns } else { 0 }).sum();
        let script =
            Script::new(self.events, &self.faults, |after| self.failure.events(after), &mut self.random);
        self.record.faults = script.faults.iter().map(Fault::to_string).collect();
        let instead = self.faults.iter().find(|fault| fault.is_instead());
        if let Some(fault) = instead {
            let entry = log.begin(Record { outcome: Outcome::Fault, ..self.record });
            connection.begin(entry.observed_by(self.observation));
            pacer.sleep_until(arrival_ns + held_ns).await;
            if *fault == Fault::HangHead {
                pending::<()>().await;
            }
            connection.end();
            return match *fault {
                Fault::Status(status, retry_after) => Remains::Status(status, retry_after),
                _ => Remains::Nothing,
            };
        }
        let events = script.events.iter().map(|event| event.kind).collect();
        let entry = log.begin(Record { events, ..self.record });
        connection.begin(entry.observed_by(self.observation));
        let mut body = Faulted::of(script.steps, Vec::new(), self.deadlines, pacer.clone(), connection);
        let mut head_ns = arrival_ns;
        if is_whole {
            head_ns = poll_fn(|cx| body.poll_deadline(0, cx)).await;
        }
        pacer.sleep_until(head_ns + held_ns).await;
        Remains::Body(body)
    }
}

/// A body whose writes are the steps of a script, each a write of its own, as [`crate::stream::Stream`]'s events are.
#[derive(Debug)]
pub(crate) struct Faulted {
    steps: std::vec::IntoIter<Step>,
    deadlines: Deadlines,
    /// Those of the plain answer's events that are known.
    due_ns: Vec<u64>,
    pacer: Pacer,
    connection: Rc<Connection>,
    /// Whether the head has been accounted for.
    started: bool,
    /// Until the next step.
    sleep: Option<Sleep>,
}

impl Faulted {
    /// A body of these steps, each due so long after one of these moments.
    pub(crate) fn of(
        steps: std::vec::IntoIter<Step>,
        due_ns: Vec<u64>,
        deadlines: Deadlines,
        pacer: Pacer,
        connection: Rc<Connection>,
    ) -> Self {
        Self { steps, deadlines, due_ns, pacer, connection, started: false, sleep: None }
    }

    /// The bytes of all steps together.
    pub(crate) fn length(&self) -> usize {
        self.steps.as_slice().iter().map(|step| step.bytes.len()).sum()
    }

    /// The deadline of the plain answer's event `source`, as soon as it is known.
    fn poll_deadline(&mut self, source: usize, cx: &mut Context<'_>) -> Poll<u64> {
        while self.due_ns.len() <= source {
            let Some(due_ns) = ready!(self.deadlines.poll_next(cx)) else { break };
            self.due_ns.push(due_ns);
        }
        Poll::Ready(self.due_ns.get(source).or(self.due_ns.last()).copied().unwrap_or_default())
    }

    /// Ready at the next step's time.
    fn poll_due(&mut self, source: usize, delay_ns: u64, cx: &mut Context<'_>) -> Poll<()> {
        if self.sleep.is_none() {
            let due_ns = ready!(self.poll_deadline(source, cx)).saturating_add(delay_ns);
            self.sleep = Some(self.pacer.sleep_until(due_ns));
        }
        let Some(sleep) = &mut self.sleep else { return Poll::Ready(()) };
        ready!(Pin::new(sleep).poll(cx));
        self.sleep = None;
        Poll::Ready(())
    }
}

impl Body for Faulted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if !this.started {
            this.started = true;
            this.connection.hand_over(Part::Head);
        }
        let Some(next) = this.steps.as_slice().first() else {
            return this.connection.poll_written(cx).map(|()| None);
        };
        if next.then == Then::Hang {
            ready!(this.connection.poll_written(cx));
            this.connection.fail();
            return Poll::Pending;
        }
        let (source, delay_ns) = (next.source, next.delay_ns);
        // The write before it first: it is not to wait a second time for a deadline that has come.
        ready!(this.connection.poll_written(cx));
        ready!(this.poll_due(source, delay_ns, cx));
        let Some(step) = this.steps.next() else { return Poll::Ready(None) };
        for event in &step.ends {
            // A piece's was known when the record was begun.
            if event.kind != EventKind::Piece {
                this.connection.due(this.due_ns.get(event.source).copied().unwrap_or_default());
            }
        }
        if let Then::Break { keep, reset } = step.then {
            this.connection.break_after(keep, reset);
        }
        this.connection.hand_over(Part::Events(step.ends.len()));
        Poll::Ready(Some(Ok(Frame::data(step.bytes))))
    }
}
