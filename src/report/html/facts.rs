//! What ran: the lines that a page says of a run.

use crate::compare::subject::{Subject, Traffic};
use crate::run::RunInfo;

/// A label and a value each.
pub(super) type Facts = Vec<(&'static str, String)>;

/// What ran, where and how.
pub(super) fn of_run(info: &RunInfo) -> Facts {
    let RunInfo { workload, target, traffic, machine, .. } = info;
    let server = info.server.as_ref();
    let mut facts = vec![("Server", target.url.clone())];
    facts.extend(server.and_then(|server| server.version.clone()).map(|version| ("Server version", version)));
    let served = server.and_then(|server| server.model.as_ref()).map(|model| model.id.clone());
    facts.extend(workload.model.clone().or(served).map(|model| ("Model", model)));
    facts.push(("Tape", format!("{} ({})", workload.tape, workload.source)));
    facts.push(("Workload digest", workload.workload_digest.clone()));
    if workload.wire_digest != workload.workload_digest {
        facts.push(("Digest as sent", workload.wire_digest.clone()));
    }
    let shape = Traffic {
        concurrency: traffic.concurrency,
        request_rate: traffic.request_rate,
        arrival: traffic.arrival.clone(),
    };
    facts.push(("Traffic", shape.words()));
    facts.push(("Requests", format!("{} measured, {} to warm up", info.counts.requests, traffic.warmup)));
    if info.counts.left_out > 0 {
        facts.push(("Left out", format!("{} requests of the tape, by the time limit", info.counts.left_out)));
    }
    facts.push(("Started", info.started_at.clone()));
    facts.push(("Lasted", format!("{:.3} s", info.duration_ns as f64 / 1e9)));
    let threads = if traffic.workers == 1 { "thread" } else { "threads" };
    facts.push(("Client", format!("{}, {} sending {threads}", info.created_by, traffic.workers)));
    facts.push(("Machine", format!("{}, {}, {} processors", machine.system, machine.arch, machine.cpus)));
    facts
}

/// What is compared.
pub(super) fn of_subject(subject: &Subject) -> Facts {
    let mut facts = vec![
        ("Measured by", subject.tool.clone()),
        ("Definitions", subject.dialect.name().to_owned()),
        ("Traffic", subject.traffic.words()),
    ];
    facts.extend(subject.workload_digest.clone().map(|digest| ("Workload digest", digest)));
    facts
}
