//! How much of a tape's prompts was there before: what a prefix cache could find.
//!
//! A prompt is cut into blocks of one size, from its start. A block is the same as another where both, and everything
//! before them, are equal. So each is known by a hash over its predecessor's and its own bytes.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;

/// Blocks that are counted exactly. Beyond it, half of them are forgotten, by their hashes, and so on: what is left is
/// an even sample, in which each block is still counted from its first time on.
const MAX_BLOCKS: usize = 1 << 20;

/// Counts the blocks of prompts, in memory that does not grow with them.
#[derive(Clone, Debug)]
pub struct Reuse {
    times: HashMap<u64, u64>,
    limit: usize,
    /// Only hashes that end in so many zero bits are counted.
    zero_bits: u32,
    blocks: u64,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ReuseFigures {
    /// Whole blocks of all prompts.
    pub blocks: u64,
    /// The share of them that a prompt before had, from its start on.
    pub share: f64,
    /// The share is an estimate, from one block in so many.
    pub one_in: u64,
}

impl Default for Reuse {
    fn default() -> Self {
        Self { times: HashMap::new(), limit: MAX_BLOCKS, zero_bits: 0, blocks: 0 }
    }
}

impl Reuse {
    /// Adds a prompt as units of any kind, `size` of them a block. A last block that is not full is none that could be
    /// shared.
    pub fn add<T: Hash>(&mut self, units: &[T], size: usize) {
        let mut chain = 0_u64;
        for block in units.chunks_exact(size.max(1)) {
            let mut hasher = DefaultHasher::new();
            chain.hash(&mut hasher);
            block.hash(&mut hasher);
            chain = hasher.finish();
            self.blocks += 1;
            if self.is_counted(chain) {
                *self.times.entry(chain).or_default() += 1;
                while self.times.len() > self.limit {
                    self.zero_bits += 1;
                    let zero_bits = self.zero_bits;
                    self.times.retain(|hash, _| hash.trailing_zeros() >= zero_bits);
                }
            }
        }
    }

    fn is_counted(&self, hash: u64) -> bool {
        hash.trailing_zeros() >= self.zero_bits
    }

    /// The figures; none where no prompt filled a block.
    #[must_use]
    pub fn figures(&self) -> Option<ReuseFigures> {
        let (distinct, counted) = (self.times.len() as u64, self.times.values().sum::<u64>());
        (counted > 0).then(|| ReuseFigures {
            blocks: self.blocks,
            share: (counted - distinct) as f64 / counted as f64,
            one_in: 1 << self.zero_bits,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(reuse: &Reuse) -> f64 {
        reuse.figures().unwrap().share
    }

    #[test]
    fn a_block_counts_with_all_before_it() {
        let mut reuse = Reuse::default();
        assert_eq!(reuse.figures(), None);
        reuse.add(b"aabbccd", 2);
        // The same end after another start is nothing that a prefix cache finds.
        reuse.add(b"aabbcc", 2);
        reuse.add(b"xxbbcc", 2);
        reuse.add(b"a", 2);
        let figures = reuse.figures().unwrap();
        assert_eq!((figures.blocks, figures.one_in), (9, 1));
        assert!((figures.share - 3.0 / 9.0).abs() < 1e-12);
    }

    #[test]
    fn a_sample_of_blocks_tells_the_same_share() {
        let mut exact = Reuse::default();
        let mut sampled = Reuse { limit: 2_000, ..Reuse::default() };
        for prompt in 0..2_000_u64 {
            // Half of each prompt is one of ten prefixes.
            let units: Vec<u64> =
                (0..40).map(|at| if at < 20 { prompt % 10 } else { 1_000 + prompt }).collect();
            exact.add(&units, 2);
            sampled.add(&units, 2);
        }
        assert!(sampled.times.len() <= 2_000);
        assert!((share(&exact) - 0.4975).abs() < 1e-9, "{}", share(&exact));
        // About 1250 of 20,100 blocks; the prefixes' 100 weigh 200 each, and a sample has 6 of them give or take 2.5.
        assert!((share(&sampled) - share(&exact)).abs() < 0.25, "{}", share(&sampled));
        assert!(sampled.figures().unwrap().one_in >= 8);
    }
}
