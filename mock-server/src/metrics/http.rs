//! What the HTTP layer counts, by path.

use http::{Method, StatusCode};

use super::histogram::{HTTP, HTTP_FINE, Histogram};

/// One request that was answered.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    /// Its path, or `none` where no route has it.
    pub(crate) handler: &'static str,
    pub(crate) method: Method,
    pub(crate) status: StatusCode,
    /// The lengths that the two heads tell.
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) duration_ns: u64,
}

/// All of them, in the order in which each first came.
#[derive(Clone, Debug)]
pub(super) struct Exchanges {
    pub(super) totals: Vec<Total>,
    pub(super) sizes: Vec<Sizes>,
    pub(super) durations: Vec<Durations>,
    pub(super) fine: Histogram,
}

#[derive(Clone, Debug)]
pub(super) struct Total {
    pub(super) handler: &'static str,
    pub(super) method: Method,
    /// The status's first digit.
    pub(super) class: u16,
    pub(super) count: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Sizes {
    pub(super) handler: &'static str,
    pub(super) count: u64,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Durations {
    pub(super) handler: &'static str,
    pub(super) method: Method,
    pub(super) histogram: Histogram,
}

impl Exchanges {
    pub(super) fn new() -> Self {
        Self { totals: Vec::new(), sizes: Vec::new(), durations: Vec::new(), fine: Histogram::new(HTTP_FINE) }
    }

    pub(super) fn add(&mut self, exchange: &Exchange) {
        let Exchange { handler, ref method, status, request_bytes, response_bytes, duration_ns } = *exchange;
        let class = status.as_u16() / 100;
        let same =
            |total: &&mut Total| (total.handler, &total.method, total.class) == (handler, method, class);
        match self.totals.iter_mut().find(same) {
            Some(total) => total.count += 1,
            None => self.totals.push(Total { handler, method: method.clone(), class, count: 1 }),
        }
        match self.sizes.iter_mut().find(|sizes| sizes.handler == handler) {
            Some(sizes) => {
                sizes.count += 1;
                sizes.request_bytes += request_bytes;
                sizes.response_bytes += response_bytes;
            }
            None => self.sizes.push(Sizes { handler, count: 1, request_bytes, response_bytes }),
        }
        self.fine.observe_seconds(duration_ns);
        let same = |durations: &&mut Durations| (durations.handler, &durations.method) == (handler, method);
        if let Some(durations) = self.durations.iter_mut().find(same) {
            durations.histogram.observe_seconds(duration_ns);
        } else {
            let mut histogram = Histogram::new(HTTP);
            histogram.observe_seconds(duration_ns);
            self.durations.push(Durations { handler, method: method.clone(), histogram });
        }
    }
}
