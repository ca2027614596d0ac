//! Submits of one miner, remembered to tell duplicates. Where our miners are a pool of their own, nothing else does.

use std::collections::BTreeSet;

use crate::limits::SUBMITS_SEEN_MAX;

/// A submit among those of one connection: the board, what the miner rolled, and the job's bits. In words, which compare faster than bytes.
pub type Submitted = [u64; 4];

/// The submits of one miner.
#[derive(Debug, Default)]
pub struct Seen {
    submits: BTreeSet<Submitted>,
    /// Of boards before this number some were forgotten.
    whole_from: u64,
}

impl Seen {
    /// Remembers a submit. Whether it is new, as far as is known: see [`Seen::is_whole`].
    pub fn insert(&mut self, submit: Submitted) -> bool {
        let new = self.submits.insert(submit);
        if self.submits.len() > SUBMITS_SEEN_MAX
            && let Some([board, ..]) = self.submits.pop_first()
        {
            self.whole_from = self.whole_from.max(board.saturating_add(1));
        }
        new
    }

    /// Whether every submit of this board is remembered: one that is new is new for certain, and may be paid for.
    pub fn is_whole(&self, board: u64) -> bool {
        board >= self.whole_from
    }

    /// Boards before this number have no jobs any more.
    pub fn forget_before(&mut self, board: u64) {
        self.submits = self.submits.split_off(&[board, 0, 0, 0]);
    }

    /// Submits at once.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.submits.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many are sent, what is new of a whole board was never there before.
    #[test]
    fn no_submit_of_a_whole_board_is_new_twice() {
        let mut seen = Seen::default();
        let most = SUBMITS_SEEN_MAX as u64;
        assert!((1..=most).all(|roll| seen.insert([7, roll, 0, 0])) && !seen.insert([7, 1, 0, 0]));
        assert!(seen.is_whole(7));
        // The smallest of all pushes itself out, and would be new for ever.
        assert!(seen.insert([7, 0, 0, 0]) && seen.insert([7, 0, 0, 0]));
        assert!(!seen.is_whole(7) && seen.is_whole(8));
        assert!(seen.insert([8, 0, 0, 0]) && !seen.insert([8, 0, 0, 0]) && seen.is_whole(8));
        seen.forget_before(8);
        assert_eq!((seen.len(), seen.is_whole(7)), (1, false));
    }
}
