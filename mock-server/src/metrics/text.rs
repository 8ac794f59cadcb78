//! The exposition, byte for byte as Python's client library writes it: counters and histograms each with a `_created`
//! gauge, labels in alphabetical order, numbers as Go writes them.

use std::fmt::Write;

use super::families::{CACHE_CONFIG, FAMILIES, FINISHED_EARLY, Family, Kind, Versions};
use super::histogram::Histogram;
use super::{Metrics, State, process};
use crate::engine::driver::Standing;
use crate::profile::Shape;

/// Labels with their values.
type Labels<'a> = Vec<(&'a str, &'a str)>;

impl Metrics {
    /// Everything that is counted, as text, with how an engine stands. It is made of a copy, so that no answer waits for
    /// it.
    pub(crate) fn text(&self, engine: Option<Standing>) -> String {
        let state = State { engine, ..self.lock().clone() };
        let mut page = Page { text: String::new(), created: number(self.created) };
        for gauge in process::read() {
            page.describe(gauge.name, gauge.help, gauge.kind);
            page.sample(gauge.name, &[], &number(gauge.value));
        }
        let early = self.profile.traits().shape == Shape::First;
        let other = if early { Versions::Late } else { Versions::Early };
        for family in FAMILIES.iter().filter(|family| family.versions != other) {
            page.family(family, &state, &self.model, early);
        }
        page.describe("vllm:cache_config_info", "Information of the LLMEngine CacheConfig", "gauge");
        let labels = CACHE_CONFIG[usize::from(!early)];
        page.line(format_args!("vllm:cache_config_info{{{labels}}} 1.0"));
        page.exchanges(&state);
        page.text
    }
}

struct Page {
    text: String,
    created: String,
}

impl Page {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // A String takes whatever is written to it.
        writeln!(self.text, "{line}").unwrap_or_default();
    }

    fn describe(&mut self, name: &str, help: &str, kind: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: &str) {
        if labels.is_empty() {
            return self.line(format_args!("{name} {value}"));
        }
        let mut sorted: Labels<'_> = labels.to_vec();
        sorted.sort_unstable();
        let escaped = |value: &str| value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
        let pairs: Vec<String> =
            sorted.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        self.line(format_args!("{name}{{{}}} {value}", pairs.join(",")));
    }

    /// The gauge that tells since when a family has been counted.
    fn created(&mut self, name: &str, help: &str, series: &[Labels<'_>]) {
        let name = format!("{}_created", name.strip_suffix("_total").unwrap_or(name));
        self.describe(&name, help, "gauge");
        let created = self.created.clone();
        for labels in series {
            self.sample(&name, labels, &created);
        }
    }

    fn family(&mut self, family: &Family, state: &State, model: &str, early: bool) {
        let Family { name, help, label, ref kind, .. } = *family;
        let mut base = vec![("engine", "0"), ("model_name", model)];
        if name.starts_with("vllm:admission") {
            // Counted before an engine is chosen.
            base.remove(0);
        }
        let mut series: Vec<Labels<'_>> = match label {
            None => vec![base],
            Some((label, values)) => {
                values.iter().map(|value| [&base[..], &[(label, *value)]].concat()).collect()
            }
        };
        if early && name == "vllm:request_success_total" {
            series.truncate(FINISHED_EARLY);
        }
        match kind {
            Kind::Counter(value) => {
                self.describe(name, help, "counter");
                for (place, labels) in series.iter().enumerate() {
                    self.sample(name, labels, &number(value(state, place)));
                }
                self.created(name, help, &series);
            }
            Kind::Gauge(value) => {
                self.describe(name, help, "gauge");
                for (place, labels) in series.iter().enumerate() {
                    self.sample(name, labels, &number(value(state, place)));
                }
            }
            Kind::Histogram(histogram) => {
                self.describe(name, help, "histogram");
                for labels in &series {
                    self.histogram(name, labels, histogram(state));
                }
                // A histogram keeps its `_total`.
                let name = format!("{name}_created");
                self.describe(&name, help, "gauge");
                let created = self.created.clone();
                for labels in &series {
                    self.sample(&name, labels, &created);
                }
            }
        }
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let bucket = format!("{name}_bucket");
        for (bound, count) in histogram.cumulative() {
            let bound = if bound.is_finite() { number(bound) } else { "+Inf".to_owned() };
            self.sample(&bucket, &[labels, &[("le", &bound)]].concat(), &number(count as f64));
        }
        self.sample(&format!("{name}_count"), labels, &number(histogram.count() as f64));
        self.sample(&format!("{name}_sum"), labels, &number(histogram.sum()));
    }

    fn exchanges(&mut self, state: &State) {
        let exchanges = &state.exchanges;
        let name = "http_requests_total";
        let help = "Total number of requests by method, status and handler.";
        self.describe(name, help, "counter");
        let classes: Vec<String> =
            exchanges.totals.iter().map(|total| format!("{}xx", total.class)).collect();
        let series: Vec<Labels<'_>> = exchanges
            .totals
            .iter()
            .zip(&classes)
            .map(|(total, class)| {
                vec![("handler", total.handler), ("method", total.method.as_str()), ("status", class)]
            })
            .collect();
        for (labels, total) in series.iter().zip(&exchanges.totals) {
            self.sample(name, labels, &number(total.count as f64));
        }
        self.created(name, help, &series);

        let series: Vec<Labels<'_>> =
            exchanges.sizes.iter().map(|sizes| vec![("handler", sizes.handler)]).collect();
        for (name, of, incoming) in [
            ("http_request_size_bytes", "incoming requests", true),
            ("http_response_size_bytes", "outgoing responses", false),
        ] {
            let help = format!(
                "Content length of {of} by handler. Only value of header is respected. Otherwise ignored. No percentile \
                 calculated. "
            );
            self.describe(name, &help, "summary");
            for (labels, sizes) in series.iter().zip(&exchanges.sizes) {
                let bytes = if incoming { sizes.request_bytes } else { sizes.response_bytes };
                self.sample(&format!("{name}_count"), labels, &number(sizes.count as f64));
                self.sample(&format!("{name}_sum"), labels, &number(bytes as f64));
            }
            self.created(name, &help, &series);
        }
        self.durations(state);
    }

    fn durations(&mut self, state: &State) {
        let name = "http_request_duration_highr_seconds";
        let help = "Latency with many buckets but no API specific labels. Made for more accurate percentile \
                    calculations. ";
        self.describe(name, help, "histogram");
        self.histogram(name, &[], &state.exchanges.fine);
        self.created(name, help, &[Vec::new()]);
        let name = "http_request_duration_seconds";
        let help = "Latency with only few buckets by handler. Made to be only used if aggregation by handler is \
                    important. ";
        self.describe(name, help, "histogram");
        let durations = &state.exchanges.durations;
        let series: Vec<Labels<'_>> = durations
            .iter()
            .map(|durations| vec![("handler", durations.handler), ("method", durations.method.as_str())])
            .collect();
        for (labels, durations) in series.iter().zip(durations) {
            self.histogram(name, labels, &durations.histogram);
        }
        self.created(name, help, &series);
    }
}

/// A number as the library writes it: Python's shortest digits, from ten million on with an exponent.
fn number(value: f64) -> String {
    let text = crate::request::python::float(value);
    let Some(dot) = text.find('.').filter(|&dot| dot > 6 && value > 0.0) else { return text };
    let digits = format!("{}.{}{}", &text[..1], &text[1..dot], &text[dot + 1..]);
    format!("{}e+{:02}", digits.trim_end_matches(['0', '.']), dot - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `prometheus_client` writes for the same numbers.
    #[test]
    fn numbers_are_the_librarys() {
        for (value, text) in [
            (0.0, "0.0"),
            (15.0, "15.0"),
            (0.001, "0.001"),
            (34.041_233_539_581_3, "34.0412335395813"),
            (999_999.5, "999999.5"),
            (1_309_626_368.0, "1.309626368e+09"),
            (7_524_569_088.0, "7.524569088e+09"),
            (10_000_000.0, "1e+07"),
            (1_795_498_737.78, "1.79549873778e+09"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
