//! Who a stage has work for. Who was not reached in one turn comes first in the next; the rest come in drawn order.

use std::collections::VecDeque;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng;

/// Slots that wait for a stage. That a slot is in it once only is kept by a mark on its connection.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    waiting: VecDeque<u32>,
    fresh: Vec<u32>,
}

impl Backlog {
    /// Adds a slot, for the stage's next round.
    pub fn push(&mut self, slot: u32) {
        self.fresh.push(slot);
    }

    /// Begins a round: what came since the last one is shuffled behind what was left over.
    pub fn begin(&mut self, rng: &mut ChaCha12Rng) {
        for last in (1..self.fresh.len()).rev() {
            let other = (u64::from(rng.next_u32()) * (last as u64 + 1)) >> 32;
            self.fresh.swap(last, other as usize);
        }
        self.waiting.extend(self.fresh.drain(..));
    }

    /// The next of this round.
    pub fn next(&mut self) -> Option<u32> {
        self.waiting.pop_front()
    }

    /// Whether this round is not over.
    pub fn is_left(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.fresh.is_empty()
    }

    /// All that wait.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.waiting.iter().chain(&self.fresh).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn left_over_first_then_a_shuffle_that_the_seed_repeats() {
        let order = |seed| {
            let mut rng = ChaCha12Rng::seed_from_u64(seed);
            let mut backlog = Backlog::default();
            (0..50).for_each(|slot| backlog.push(slot));
            backlog.begin(&mut rng);
            let mut seen: Vec<u32> = (0..20).filter_map(|_| backlog.next()).collect();
            let left: Vec<u32> = backlog.iter().collect();
            (50..60).for_each(|slot| backlog.push(slot));
            backlog.begin(&mut rng);
            let rest: Vec<u32> = std::iter::from_fn(|| backlog.next()).collect();
            assert_eq!(rest[..30], left[..]);
            seen.extend(&rest);
            seen
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        let mut sorted = order(3);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..60).collect::<Vec<_>>());
    }
}
