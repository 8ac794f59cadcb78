//! Answers with [faults](crate::faults): the steps of a script, carried out.

use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokentape_pacer::{Pacer, Sleep};

use crate::faults::{Fault, Script, Step, Then};
use crate::timing::Stream as Random;
use crate::transport::{Connection, Part};
use crate::truth::{EventKind, Log, Outcome, Record};

/// An answer that faults are to be injected into.
#[derive(Debug)]
pub(crate) struct Answer {
    /// What each event is, and its bytes; of an answer that is no stream, one.
    pub(crate) events: Vec<(EventKind, Bytes)>,
    /// When each is due.
    pub(crate) due_ns: Vec<u64>,
    /// Without events and deadlines.
    pub(crate) record: Record,
    pub(crate) faults: Vec<Fault>,
    pub(crate) random: Random,
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
        let is_whole = self.events.iter().all(|(kind, _)| *kind == EventKind::Body);
        self.faults.retain(|fault| !is_whole || fault.fits_whole_answers());
        let arrival_ns = self.record.arrival_ns;
        let held_ns: u64 =
            self.faults.iter().map(|fault| if let Fault::Delay(ns) = fault { *ns } else { 0 }).sum();
        let script = Script::new(self.events, &self.faults, &mut self.random);
        self.record.faults = script.faults.iter().map(Fault::to_string).collect();
        let instead = self.faults.iter().find(|fault| fault.is_instead());
        if let Some(fault) = instead {
            connection.begin(log.begin(Record { outcome: Outcome::Fault, ..self.record }));
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
        let due_of = |source: usize| self.due_ns.get(source).copied().unwrap_or(arrival_ns);
        let events = script.events.iter().map(|event| event.kind).collect();
        let due_ns = script.events.iter().map(|event| due_of(event.source)).collect();
        connection.begin(log.begin(Record { events, due_ns, ..self.record }));
        let head_ns = if is_whole { due_of(0) } else { arrival_ns };
        pacer.sleep_until(head_ns + held_ns).await;
        Remains::Body(Faulted {
            steps: script.steps,
            due_ns: self.due_ns,
            pacer,
            connection,
            started: false,
            sleep: None,
        })
    }
}

/// A body whose writes are the steps of a script, each a write of its own, as [`crate::stream::Stream`]'s events are.
#[derive(Debug)]
pub(crate) struct Faulted {
    steps: std::vec::IntoIter<Step>,
    due_ns: Vec<u64>,
    pacer: Pacer,
    connection: Rc<Connection>,
    /// Whether the head has been accounted for.
    started: bool,
    /// Until the next step.
    sleep: Option<Sleep>,
}

impl Faulted {
    /// The bytes of all steps together.
    pub(crate) fn length(&self) -> usize {
        self.steps.as_slice().iter().map(|step| step.bytes.len()).sum()
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
        let due_ns = this.due_ns.get(next.source).copied().unwrap_or_default().saturating_add(next.delay_ns);
        let sleep = this.sleep.get_or_insert_with(|| this.pacer.sleep_until(due_ns));
        ready!(Pin::new(sleep).poll(cx));
        ready!(this.connection.poll_written(cx));
        this.sleep = None;
        let Some(step) = this.steps.next() else { return Poll::Ready(None) };
        if let Then::Break { keep, reset } = step.then {
            this.connection.break_after(keep, reset);
        }
        this.connection.hand_over(Part::Events(step.ends.len()));
        Poll::Ready(Some(Ok(Frame::data(step.bytes))))
    }
}
