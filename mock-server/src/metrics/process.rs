//! What Linux knows of the process. Elsewhere nothing is told.

use std::fs;

/// One value.
#[derive(Debug)]
pub(super) struct Gauge {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: &'static str,
    pub(super) value: f64,
}

/// Clock ticks a second and bytes a page, as on every Linux that this runs on.
const TICKS: f64 = 100.0;
const PAGE_BYTES: f64 = 4096.0;

/// The process's memory, start, CPU time and descriptors, where `/proc` tells all of them.
pub(super) fn read() -> Vec<Gauge> {
    values().unwrap_or_default()
}

fn values() -> Option<Vec<Gauge>> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in brackets, may hold spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |place: usize| fields.get(place)?.parse::<f64>().ok();
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()?;
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    let gauge = |name, help, value| Gauge { name, help, kind: "gauge", value };
    Some(vec![
        gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", field(20)?),
        gauge("process_resident_memory_bytes", "Resident memory size in bytes.", field(21)? * PAGE_BYTES),
        gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            boot + field(19)? / TICKS,
        ),
        Gauge {
            name: "process_cpu_seconds_total",
            help: "Total user and system CPU time spent in seconds.",
            kind: "counter",
            value: (field(11)? + field(12)?) / TICKS,
        },
        gauge("process_open_fds", "Number of open file descriptors.", open as f64),
        gauge(
            "process_max_fds",
            "Maximum number of open file descriptors.",
            limit.split_whitespace().next()?.parse().ok()?,
        ),
    ])
}
