//! A calibration for people.

use super::{Calibration, Load, Spread};

impl Calibration {
    /// The machine, each load's table, and what this machine is good for.
    #[must_use]
    pub fn table(&self) -> String {
        let machine = &self.machine;
        let cpu = self.cpu.as_deref().unwrap_or(&machine.arch);
        let mut text = format!("{cpu}, {} processors, {}\n", machine.cpus, machine.system);
        for load in &self.loads {
            text += "\n";
            text += &load.table();
        }
        text
    }
}

impl Load {
    /// Each figure measured, true, and off by so much; where the delays were; the marks.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} streams, {} requests; all in microseconds\n\
             {:<12} {:>12} {:>12} {:>9}   of one value: p50 {:>5} {:>7}   {:>9}\n",
            self.streams, self.requests, "", "measured", "true", "error", "p99", "max", "as read",
        );
        for metric in &self.metrics {
            let figures = [
                ("mean", metric.measured.mean, metric.truth.mean),
                ("p50", metric.measured.p50, metric.truth.p50),
                ("p99", metric.measured.p99, metric.truth.p99),
            ];
            for (name, measured, truth) in figures {
                let name = format!("{} {name}", metric.name);
                text += &format!("{name:<12} {measured:>12.1} {truth:>12.1} {:>+9.1}", measured - truth);
                if name.ends_with("mean") {
                    let Spread { p50, p99, max } = metric.error;
                    let as_read = metric.mean_error_as_read;
                    text += &format!("   {p50:>+17.1} {p99:>+5.0} {max:>+7.0}   {as_read:>+9.1}");
                }
                text += "\n";
            }
        }
        text += "delays                 p50       p99       max\n";
        let delays = [
            ("client read", self.client_read_delay),
            ("mock write", self.server_write_delay),
            ("mock read", self.server_read_delay),
        ];
        for (name, Spread { p50, p99, max }) in delays {
            text += &format!("{name:<16} {p50:>9.1} {p99:>9.1} {max:>9.1}\n");
        }
        text += "(what the mock was late is part of what is true, and not of the error)\n";
        if self.passed() { text + "PASS\n" } else { text + &format!("FAIL: {}\n", self.missed.join("; ")) }
    }
}
