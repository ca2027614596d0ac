//! Fork choice (SPEC, SCORE-1 to SCORE-3).

use crate::limits::EXCESS_DELAY;

/// SCORE-1: what a share's own work is above the work of the easiest target that was allowed to it.
pub fn excess(work: u128, demand: u128) -> u128 {
    work.saturating_sub(demand)
}

/// SCORE-2: score of a share, given its parent's, its demand, and the excess of the ancestor [`EXCESS_DELAY`] below it.
pub fn next(parent_score: u128, demand: u128, excess_below: u128) -> u128 {
    parent_score.saturating_add(demand).saturating_add(excess_below)
}

/// Height of the ancestor whose excess counts from this height on.
pub fn excess_height(height: u32) -> Option<u32> {
    height.checked_sub(EXCESS_DELAY)
}

/// SCORE-3: whether a head of score `new` takes the place of one of score `old`: equal stays with the first seen.
pub fn displaces(new: u128, old: u128) -> bool {
    new > old
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excess_is_own_work_above_demand() {
        assert_eq!(excess(25, 10), 15);
        // No share has less work than was demanded of it.
        assert_eq!((excess(0, 0), excess(9, 10)), (0, 0));
    }

    /// The sentence as it is meant, over a whole chain: Σ demand(all) + Σ excess(ancestors at least 16 below).
    #[test]
    fn steps_add_up_to_the_sum() {
        // Demand, work and score by height; genesis has none.
        let mut chain = vec![(0, 0, 0)];
        for height in 1..100u32 {
            let demand = 1_000 + u128::from(height * 37 % 101);
            let below = excess_height(height).map_or(0, |below| excess(chain[below as usize].1, chain[below as usize].0));
            let score = next(chain[height as usize - 1].2, demand, below);
            chain.push((demand, demand + u128::from(height * 53 % 97), score));
        }
        for (height, head) in chain.iter().enumerate() {
            let demanded: u128 = chain[..=height].iter().map(|share| share.0).sum();
            let late: u128 = chain[..height.saturating_sub(15)].iter().map(|share| share.1 - share.0).sum();
            assert_eq!(head.2, demanded + late, "height {height}");
        }
        assert_eq!([0, 15, 16, 40].map(excess_height), [None, None, Some(0), Some(24)]);
    }

    #[test]
    fn equal_stays_with_the_first() {
        assert!(displaces(2, 1) && !displaces(1, 1) && !displaces(0, 1));
    }
}
