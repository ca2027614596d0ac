//! Fork choice (SPEC, SCORE-1 to SCORE-3).

/// SCORE-1: what a share adds to the score of its chain: the work that was demanded of it, as many times as it did it. A sibling that is a
/// little harder adds no more than any.
pub fn counted(work: u128, demand: u128) -> u128 {
    demand.saturating_mul(work / demand.max(1))
}

/// SCORE-2: score of a share, given its parent's.
pub fn next(parent_score: u128, work: u128, demand: u128) -> u128 {
    parent_score.saturating_add(counted(work, demand))
}

/// SCORE-3: whether a head of score `new` takes the place of one of score `old`: equal stays with the first seen.
pub fn displaces(new: u128, old: u128) -> bool {
    new > old
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_multiples_of_what_was_demanded_are_counted() {
        for (work, counts) in [(0, 0), (9, 0), (10, 10), (19, 10), (20, 20), (165, 160)] {
            assert_eq!(counted(work, 10), counts, "{work}");
        }
        assert_eq!((counted(0, 0), counted(7, 0)), (0, 0), "of genesis nothing was demanded");
        assert_eq!(next(1_000, 25, 10), 1_020);
        assert_eq!(next(u128::MAX, 25, 10), u128::MAX);
    }

    #[test]
    fn equal_stays_with_the_first() {
        assert!(displaces(2, 1) && !displaces(1, 1) && !displaces(0, 1));
    }
}
