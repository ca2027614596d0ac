//! Selfish mining: shares are withheld, and published to match or to override what others found.

use super::chain::Harder;
use super::miners::{Credited, Dated};
use super::world::{Plan, Strategy, View};

/// The ways in which selfish miners differ.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Times of its shares.
    pub dated: Dated,
    /// Uncles that it credits.
    pub credited: Credited,
    /// It overrides only when the others are about to be level with it, not when they are one behind.
    pub waits: bool,
    /// So many shares behind it still goes on with its own branch.
    pub trail: u32,
    /// It publishes as many shares as the others have, so that some of them may build on its branch.
    pub matches: bool,
    /// The power of two by which its targets are harder.
    pub log2: usize,
}

/// A selfish miner.
pub struct Selfish {
    manner: Manner,
    /// Its branch, the lowest first: what was not on the best chain when it was found.
    branch: Vec<usize>,
    /// Others are level with it, and both branches are known to all.
    race: bool,
}

impl Selfish {
    pub fn new(manner: Manner) -> Selfish {
        Selfish { manner, branch: Vec::new(), race: false }
    }

    /// Its branch has won or lost: all of it is published, for what is beaten may still be an uncle.
    fn settle(&mut self) -> Vec<usize> {
        self.race = false;
        std::mem::take(&mut self.branch)
    }
}

impl Strategy for Selfish {
    fn plan(&mut self, view: &View) -> Plan {
        let parent = self.branch.last().copied().unwrap_or(view.tip);
        Plan { parent, time: self.manner.dated.time(view, parent), harder: Harder::Times2(self.manner.log2) }
    }

    fn credits(&self, view: &View, uncle: usize) -> bool {
        self.manner.credited.holds(view.own(uncle))
    }

    fn found(&mut self, view: &View, share: usize) -> Vec<usize> {
        self.branch.push(share);
        let behind = view.tree.get(share).score <= view.tree.get(view.tip).score;
        if self.race && !behind { self.settle() } else { Vec::new() }
    }

    fn came(&mut self, view: &View, share: usize) -> Vec<usize> {
        let Some(head) = self.branch.last().copied() else { return Vec::new() };
        let (own, best, new) = (view.tree.get(head), view.tree.get(view.tip), view.tree.get(share));
        if view.tip != share && new.score < best.score {
            return Vec::new();
        }
        // Others build on what it published.
        if view.tree.ancestor(view.tip, own.height) == head {
            return self.settle();
        }
        let one = best.demand as f64;
        let lead = (own.score as f64 - best.score as f64) / one;
        if lead < -0.5 - f64::from(self.manner.trail) {
            return self.settle();
        }
        if lead < -0.5 {
            self.race = true;
            return Vec::new();
        }
        let override_below = if self.manner.waits { 0.5 } else { 1.5 };
        if own.score > best.score && lead < override_below {
            return self.settle();
        }
        if lead < 0.5 {
            // Level, and not above: it depends on who sees which first.
            self.race = true;
            return self.branch.clone();
        }
        if !self.manner.matches {
            return Vec::new();
        }
        self.branch.iter().copied().filter(|share| view.tree.get(*share).height <= best.height).collect()
    }
}
