//! The KV cache's blocks: who holds them, which are free, and which still hold a known prefix.

use std::collections::HashMap;

/// Stands for no block, and for the ends of the list of free ones.
const NONE: u32 = u32::MAX;

/// All blocks. A free block keeps its name, and can be found by it, until it is taken for something else; the one that
/// has been free for longest is taken first.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    blocks: Vec<Block>,
    /// The block that holds the tokens up to the end of a prefix, by the prefix's hash.
    named: HashMap<u64, u32>,
    oldest: u32,
    newest: u32,
    free: u32,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    holders: u32,
    name: Option<u64>,
    /// Neighbours among the free blocks.
    older: u32,
    newer: u32,
}

impl Pool {
    pub(super) fn new(blocks: u32) -> Self {
        let unused = Block { holders: 0, name: None, older: NONE, newer: NONE };
        let mut pool = Self {
            blocks: vec![unused; blocks as usize],
            named: HashMap::new(),
            oldest: NONE,
            newest: NONE,
            free: 0,
        };
        for block in 0..blocks {
            pool.push_free(block);
        }
        pool
    }

    /// Blocks that can be taken.
    pub(super) fn free(&self) -> u32 {
        self.free
    }

    /// How many blocks of a prefix are here, from its beginning.
    pub(super) fn hits(&self, prefix: &[u64]) -> usize {
        prefix.iter().take_while(|name| self.named.contains_key(name)).count()
    }

    /// Takes the blocks of a prefix that is here, and free ones up to `total`; none at all if there are not enough.
    pub(super) fn admit(&mut self, prefix: &[u64], total: u32, held: &mut Vec<u32>) -> bool {
        let idle =
            |name: &u64| self.named.get(name).is_some_and(|block| self.blocks[*block as usize].holders == 0);
        let revived = prefix.iter().filter(|name| idle(name)).count();
        let more = (total as usize).saturating_sub(prefix.len());
        if revived + more > self.free as usize {
            return false;
        }
        for name in prefix {
            if let Some(&block) = self.named.get(name) {
                self.hold(block);
                held.push(block);
            }
        }
        self.extend(total, held)
    }

    /// Takes free blocks until `held` has `total`; none at all if there are not enough.
    pub(super) fn extend(&mut self, total: u32, held: &mut Vec<u32>) -> bool {
        let more = (total as usize).saturating_sub(held.len());
        if more > self.free as usize {
            return false;
        }
        for _ in 0..more {
            let block = self.oldest;
            if let Some(name) = self.blocks[block as usize].name.take()
                && self.named.get(&name) == Some(&block)
            {
                self.named.remove(&name);
            }
            self.hold(block);
            held.push(block);
        }
        true
    }

    /// From now on a block is found by this name, unless another one is already.
    pub(super) fn name(&mut self, block: u32, name: u64) {
        self.named.entry(name).or_insert(block);
        self.blocks[block as usize].name = Some(name);
    }

    /// Gives blocks back, the last first: a prefix loses its end before its beginning.
    pub(super) fn release(&mut self, held: &mut Vec<u32>) {
        for block in held.drain(..).rev() {
            let entry = &mut self.blocks[block as usize];
            entry.holders -= 1;
            if entry.holders == 0 {
                self.push_free(block);
            }
        }
    }

    fn hold(&mut self, block: u32) {
        let entry = &mut self.blocks[block as usize];
        entry.holders += 1;
        if entry.holders > 1 {
            return;
        }
        let Block { older, newer, .. } = *entry;
        (entry.older, entry.newer) = (NONE, NONE);
        match self.blocks.get_mut(older as usize) {
            Some(neighbour) => neighbour.newer = newer,
            None => self.oldest = newer,
        }
        match self.blocks.get_mut(newer as usize) {
            Some(neighbour) => neighbour.older = older,
            None => self.newest = older,
        }
        self.free -= 1;
    }

    fn push_free(&mut self, block: u32) {
        let newest = std::mem::replace(&mut self.newest, block);
        self.blocks[block as usize].older = newest;
        self.blocks[block as usize].newer = NONE;
        match self.blocks.get_mut(newest as usize) {
            Some(neighbour) => neighbour.newer = block,
            None => self.oldest = block,
        }
        self.free += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(pool: &mut Pool, prefix: &[u64]) -> Vec<u32> {
        let mut held = Vec::new();
        assert!(pool.extend(u32::try_from(prefix.len()).unwrap(), &mut held));
        for (block, name) in held.iter().zip(prefix) {
            pool.name(*block, *name);
        }
        held
    }

    #[test]
    fn a_prefix_is_shared_and_outlives_its_holder() {
        let mut pool = Pool::new(4);
        let mut first = named(&mut pool, &[1, 2]);
        let mut second = Vec::new();
        assert!(pool.admit(&[1, 2], 3, &mut second));
        assert_eq!((&second[..2], pool.free()), (&first[..], 1));
        pool.release(&mut first);
        assert_eq!(pool.free(), 1);
        pool.release(&mut second);
        assert_eq!((pool.free(), pool.hits(&[1, 2, 3])), (4, 2));
    }

    #[test]
    fn the_block_free_for_longest_goes_first_and_a_prefix_from_its_end() {
        let mut pool = Pool::new(4);
        let mut old = named(&mut pool, &[1, 2]);
        let mut new = named(&mut pool, &[7, 8]);
        pool.release(&mut old);
        pool.release(&mut new);
        let mut taken = Vec::new();
        for (hits_old, hits_new) in [(1, 2), (0, 2), (0, 1), (0, 0)] {
            let held = u32::try_from(taken.len()).unwrap();
            assert!(pool.extend(held + 1, &mut taken));
            assert_eq!((pool.hits(&[1, 2]), pool.hits(&[7, 8])), (hits_old, hits_new));
        }
        assert!(!pool.extend(5, &mut taken));
        assert_eq!(taken.len(), 4);
    }

    /// Reviving a free prefix takes from what is free as well.
    #[test]
    fn what_is_revived_counts() {
        let mut pool = Pool::new(3);
        let mut held = named(&mut pool, &[1, 2]);
        pool.release(&mut held);
        let mut other = Vec::new();
        assert!(!pool.admit(&[1, 2], 4, &mut other));
        assert!(other.is_empty() && pool.free() == 3);
        assert!(pool.admit(&[1, 2], 3, &mut other));
        assert_eq!(pool.free(), 0);
    }
}
