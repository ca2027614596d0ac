//! Which share this node mines upon: a policy, recorded nowhere, that binds nobody else (SPEC, BTC; SHARECHAIN §3). Of Bitcoin only headers
//! are checked here. So a share may build on a block that is invalid, or that nobody gets to see, and a coinbase on such a share would be
//! work for whoever made it. The best chain stays what it is: only our own work builds on the best share that is fit.
//!
//! Of bitcoind is asked how its branches end. Which block it has follows: those up to such ends. While it cannot be reached, Bitcoin peers
//! stand in for it, which tell of the headers of blocks that they have.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rockpool_net::id::ShareId;
use rockpool_store::bitcoin::{Block, Tree};
use rockpool_store::params::Params;
use rockpool_store::record::Record;

use crate::jobs::Tips;
use crate::limits::{KNOWN_KEPT, LACKED_KEPT, LACKED_MAX, LATE_AFTER, LATE_KEPT, LATE_LEAD};

/// What the policy must know of Bitcoin and of shares' arrivals.
#[derive(Debug)]
pub struct Policy {
    /// The easiest bits of this network.
    easiest: u32,
    /// How bitcoind's branches end. Unknown while it cannot be reached, and on the embedded chain, which lacks nothing: then, unless
    /// Bitcoin peers have told of headers, every share is fit.
    tips: Option<Tips>,
    /// The block of most work that Bitcoin peers told of; unknown while none can be reached.
    heard: Option<[u8; 32]>,
    /// The newest block that bitcoind told of since then.
    told: Option<[u8; 32]>,
    /// Blocks that it lacks, and since when a share needed them.
    lacked: BTreeMap<[u8; 32], Duration>,
    /// Work of the blocks that it mined on, each more than the one before, and since when we know.
    known: VecDeque<(u128, Duration)>,
    /// Late shares, by height.
    late: BTreeSet<(u32, ShareId)>,
}

/// The share that work builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upon {
    /// The confirmed tip.
    Tip,
    /// This one, since the confirmed tip is not fit.
    Other(ShareId),
    /// The confirmed tip, since no share near it is fit.
    Unfit,
}

impl Policy {
    /// Of a network.
    pub fn new(params: &Params) -> Policy {
        let easiest = params.bitcoin.limit_bits;
        Policy { easiest, tips: None, heard: None, told: None, lacked: BTreeMap::new(), known: VecDeque::new(), late: BTreeSet::new() }
    }

    /// bitcoind has told of headers; this is the hash of the last.
    pub fn told(&mut self, hash: [u8; 32]) {
        self.told = Some(hash);
    }

    /// bitcoind has told how its branches end.
    pub fn tips(&mut self, now: Duration, tree: &Tree, tips: Tips) {
        if let Some(active) = tree.get(&tips.active) {
            // What it went back from was no better.
            self.known.retain(|(work, _)| *work <= active.work);
            self.know(active.work, now);
        }
        (self.tips, self.told) = (Some(tips), None);
        let mut lacked = std::mem::take(&mut self.lacked);
        lacked.retain(|hash, _| tree.get(hash).is_some_and(|block| self.has(tree, block) == Some(false)));
        self.lacked = lacked;
    }

    /// A Bitcoin peer has told of headers up to this block.
    pub fn heard(&mut self, now: Duration, tree: &Tree, block: &Block) {
        let best = self.heard.and_then(|hash| tree.get(&hash)).map(|best| best.work);
        if best.is_none_or(|best| best < block.work) {
            self.heard = Some(block.hash);
            self.know(block.work, now);
        }
        if self.tips.is_none() {
            let best = best.unwrap_or(0).max(block.work);
            self.lacked.retain(|hash, _| tree.get(hash).is_some_and(|block| block.work > best));
        }
    }

    /// bitcoind cannot be reached: what it lacks nobody knows.
    pub fn lost(&mut self) {
        (self.tips, self.told) = (None, None);
        self.lacked.clear();
    }

    /// No Bitcoin peer can be reached.
    pub fn peers_lost(&mut self) {
        self.heard = None;
        if self.tips.is_none() {
            self.lacked.clear();
        }
    }

    /// There is Bitcoin work of this much now.
    fn know(&mut self, work: u128, now: Duration) {
        if self.known.back().is_none_or(|(known, _)| *known < work) {
            self.known.push_back((work, now));
        }
        if self.known.len() > KNOWN_KEPT {
            self.known.pop_front();
        }
    }

    /// A share was taken that arrived by itself at this time: whether it is late.
    pub fn arrived(&mut self, record: &Record, at: Duration) {
        let better = self.known.iter().find(|(work, _)| *work > record.bitcoin.work);
        if better.is_some_and(|(_, since)| at > *since + LATE_AFTER) {
            self.late.insert((record.height, record.id));
        }
        while self.late.len() > LATE_KEPT {
            self.late.pop_first();
        }
    }

    /// Chooses between the confirmed tip and the shares `near` it, those of the highest score first.
    pub fn choose(&mut self, now: Duration, tree: &Tree, tip: &Record, near: impl FnOnce() -> Vec<Arc<Record>>) -> Upon {
        if self.is_sound(now, tree, tip) && !self.is_late(tip) {
            return Upon::Tip;
        }
        let near: Vec<Arc<Record>> = near().into_iter().filter(|record| self.is_sound(now, tree, record)).collect();
        let fit = near.iter().find(|record| !self.is_late(record));
        // Late ones count if they lead by so much, or if there is nothing else.
        let best = near.first().filter(|best| fit.is_none_or(|fit| best.height >= fit.height.saturating_add(LATE_LEAD)));
        match best.or(fit) {
            Some(record) if record.id == tip.id => Upon::Tip,
            Some(record) => Upon::Other(record.id),
            None => Upon::Unfit,
        }
    }

    /// When time alone changes the choice next.
    pub fn due(&self, now: Duration) -> Option<Duration> {
        self.lacked.values().map(|since| *since + LACKED_MAX).filter(|due| *due > now).min()
    }

    fn is_late(&self, record: &Record) -> bool {
        self.late.contains(&(record.height, record.id))
    }

    /// Whether nothing speaks against the Bitcoin block that a share builds on. What the share chain's genesis names counts as had.
    fn is_sound(&mut self, now: Duration, tree: &Tree, record: &Record) -> bool {
        let block = &record.bitcoin;
        let had = match self.has(tree, block) {
            _ if record.height == 0 => true,
            None => false,
            Some(true) => true,
            // Headers that cost nothing are not waited for.
            Some(false) if block.bits() == self.easiest => false,
            Some(false) => {
                if self.lacked.len() >= LACKED_KEPT && !self.lacked.contains_key(&block.hash) {
                    let oldest = self.lacked.iter().min_by_key(|(_, since)| **since).map(|(hash, _)| *hash);
                    oldest.map(|hash| self.lacked.remove(&hash));
                }
                now < *self.lacked.entry(block.hash).or_insert(now) + LACKED_MAX
            }
        };
        had && !self.is_out_of_reach(tree, record)
    }

    /// Whether work on a share would break a rule: what bitcoind mines on is two blocks behind what the share or an ancestor builds on
    /// (SPEC, BTC-6).
    fn is_out_of_reach(&self, tree: &Tree, record: &Record) -> bool {
        let Some(tips) = &self.tips else { return false };
        let mined =
            [Some(&tips.active), self.told.as_ref()].into_iter().flatten().filter_map(|hash| tree.get(hash)).map(|block| block.work);
        let before = tree.prev(record.best_bitcoin()).map_or(0, |before| before.work);
        mined.max().is_some_and(|work| work < before)
    }

    /// Whether bitcoind has a block; `None` if it calls it invalid. Of a branch that holds an invalid block it names the end alone. What
    /// builds on that is invalid as well, and what is below it if it has more work than the chain that bitcoind mines on instead.
    fn has(&self, tree: &Tree, block: &Block) -> Option<bool> {
        if self.tips.is_none() {
            return Some(self.heard_has(tree, block));
        }
        let Some((tips, active)) = self.tips.as_ref().and_then(|tips| Some((tips, tree.get(&tips.active)?))) else { return Some(true) };
        let is_below = |end: &[u8; 32]| tree.is_ancestor(&block.hash, end);
        if is_below(&tips.active) {
            return Some(true);
        }
        let is_bad = |bad: &[u8; 32]| tree.is_ancestor(bad, &block.hash) || block.work > active.work && is_below(bad);
        if tips.invalid.iter().any(is_bad) {
            return None;
        }
        Some(tips.valid.iter().chain(&self.told).any(is_below))
    }

    /// Whether Bitcoin peers have a block, as far as they tell. They tell of the best chain alone, so a block of no more work than its best
    /// one may be on a branch beside it. What bitcoind had while it could be reached is no news that they could lack: a peer may be far
    /// behind, or on a branch that few mine on.
    fn heard_has(&self, tree: &Tree, block: &Block) -> bool {
        let Some(best) = self.heard.and_then(|hash| tree.get(&hash)) else { return true };
        block.work <= best.work || self.known.back().is_some_and(|(known, _)| block.work <= *known)
    }
}

#[cfg(test)]
mod tests;
