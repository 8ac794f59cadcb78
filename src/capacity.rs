//! The search for the most that a server carries: double the load until it is too much, then halve the gap. Pure.

/// A search for the largest load, from 1 up, that is carried. Loads are whole numbers.
///
/// It takes it that a server which carries a load carries every smaller one: where that is not so, it finds one load
/// that is carried and, within the resolution, one above it that is not.
#[derive(Clone, Debug)]
pub struct Search {
    /// The next load while doubling.
    start: u32,
    /// The largest load asked for.
    limit: u32,
    /// How close is close enough, as a share of the load.
    resolution: f64,
    /// The largest load that was carried.
    carried: Option<u32>,
    /// The smallest that was not.
    refused: Option<u32>,
}

impl Search {
    /// A search that begins at `start`, never goes above `limit`, and ends where the answer is known to this share of
    /// it: at 0, exactly.
    #[must_use]
    pub fn new(start: u32, limit: u32, resolution: f64) -> Self {
        let start = start.clamp(1, limit.max(1));
        Self { start, limit: limit.max(1), resolution, carried: None, refused: None }
    }

    /// The load to try next; none when the answer is known.
    #[must_use]
    pub fn next(&self) -> Option<u32> {
        match (self.carried, self.refused) {
            (None, None) => Some(self.start),
            (Some(carried), None) if carried >= self.limit => None,
            (Some(carried), None) => Some(carried.saturating_mul(2).min(self.limit)),
            (None, Some(refused)) => (refused > 1).then_some(refused / 2),
            (Some(carried), Some(refused)) => {
                let gap = refused - carried;
                let is_close = gap <= 1 || f64::from(gap) <= self.resolution * f64::from(carried);
                (!is_close).then(|| carried + gap / 2)
            }
        }
    }

    /// Takes the outcome of a load.
    pub fn tried(&mut self, load: u32, is_carried: bool) {
        if is_carried {
            self.carried = self.carried.max(Some(load));
        } else {
            self.refused = Some(self.refused.map_or(load, |refused| refused.min(load)));
        }
    }

    /// The largest load that was carried.
    #[must_use]
    pub fn answer(&self) -> Option<u32> {
        self.carried
    }

    /// Whether the largest load asked for was carried: a larger one might be too.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.refused.is_none()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn search(start: u32, limit: u32, resolution: f64, capacity: u32) -> (Search, Vec<u32>) {
        let mut search = Search::new(start, limit, resolution);
        let mut tried = Vec::new();
        while let Some(load) = search.next() {
            tried.push(load);
            search.tried(load, load <= capacity);
        }
        (search, tried)
    }

    #[test]
    fn doubles_and_then_halves_the_gap() {
        let (found, tried) = search(1, 4096, 0.0, 21);
        assert_eq!(tried, [1, 2, 4, 8, 16, 32, 24, 20, 22, 21]);
        assert_eq!((found.answer(), found.is_open()), (Some(21), false));
    }

    #[test]
    fn a_start_that_is_too_much_is_halved() {
        assert_eq!(search(16, 4096, 0.0, 3).1, [16, 8, 4, 2, 3]);
        assert_eq!(search(8, 4096, 0.0, 0).0.answer(), None);
    }

    proptest! {
        #[test]
        fn finds_the_capacity(start in 1u32..300, limit in 1u32..100_000, capacity in 0u32..200_000) {
            let (found, tried) = search(start, limit, 0.0, capacity);
            let expected = capacity.min(limit);
            prop_assert_eq!(found.answer(), (expected > 0).then_some(expected));
            prop_assert_eq!(found.is_open(), capacity >= limit);
            prop_assert!(tried.len() <= 40 && tried.iter().all(|load| (1..=limit).contains(load)));
        }

        #[test]
        fn a_resolution_bounds_the_gap(capacity in 1u32..50_000, resolution in 0.01..0.5f64) {
            let found = search(1, 1 << 20, resolution, capacity).0.answer().unwrap();
            prop_assert!(found <= capacity && f64::from(capacity - found) <= (resolution * f64::from(found)).max(0.0));
        }
    }
}
