//! The reactor's view of the chain: its own table over the organiser's records, changed by [`ChainChange`]s alone.

use std::collections::HashMap;
use std::sync::Arc;

use rockpool_net::id::ShareId;
use rockpool_net::time::Now;

use crate::limits::MEDIAN_SPAN;
use crate::organised::ChainChange;
use crate::params::Params;
use crate::payouts::Payouts;
use crate::record::Record;
use crate::rules::{self, difficulty, score};
use crate::table::{Keyed, Table};

/// What follows from the confirmed tip for the share that is mined on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// The confirmed tip.
    pub parent: ShareId,
    /// Height of the share to be.
    pub height: u32,
    /// Its lead.
    pub lead: u32,
    /// Its score.
    pub score: u128,
    /// The easiest target allowed to it, compact.
    pub bits: u32,
    /// Its time, Unix seconds.
    pub time: u32,
}

/// The chain as the reactor knows it.
#[derive(Clone, Debug)]
pub struct ChainView {
    table: Table,
    confirmed_height: u32,
    payouts: Arc<Payouts>,
    /// Encoded shares that are not yet stored.
    unstored: HashMap<ShareId, Arc<[u8]>, Keyed>,
}

impl ChainView {
    /// What `Chain::view` makes.
    pub(crate) fn new(table: Table, confirmed_height: u32, payouts: Arc<Payouts>, keyed: Keyed) -> ChainView {
        ChainView { table, confirmed_height, payouts, unstored: HashMap::with_hasher(keyed) }
    }

    /// Does what the organiser did. Returns how many heights of the best chain were cut: the depth of a reorg, 0 for a mere extension.
    pub fn apply(&mut self, change: &ChainChange) -> u32 {
        let cut = self.table.cut(change.fork_height);
        for record in &change.added {
            let fits = self.table.push(Arc::clone(record));
            debug_assert!(fits, "changes are applied in the order of their making");
        }
        self.confirmed_height = change.confirmed_height;
        if let Some(payouts) = &change.payouts {
            self.payouts = Arc::clone(payouts);
        }
        self.unstored.extend(change.bytes.iter().map(|(id, bytes)| (*id, Arc::clone(bytes))));
        cut.len() as u32
    }

    /// Rows of these ids are on disk: from now on they are read there.
    pub fn stored(&mut self, ids: &[ShareId]) {
        for id in ids {
            self.unstored.remove(id);
        }
    }

    /// The highest share of the best chain, candidates included.
    pub fn tip(&self) -> &Arc<Record> {
        self.table.tip()
    }

    /// The highest confirmed share: the one to mine on and to announce.
    pub fn confirmed_tip(&self) -> &Arc<Record> {
        self.table.at(self.confirmed_height).unwrap_or(self.table.tip())
    }

    /// Its height.
    pub fn confirmed_height(&self) -> u32 {
        self.confirmed_height
    }

    /// The best chain's share at a height.
    pub fn at_height(&self, height: u32) -> Option<&Arc<Record>> {
        self.table.at(height)
    }

    /// A share of the best chain.
    pub fn get(&self, id: &ShareId) -> Option<&Arc<Record>> {
        self.table.get(id)
    }

    /// Whether the share is of the confirmed chain.
    pub fn is_confirmed(&self, id: &ShareId) -> bool {
        self.get(id).is_some_and(|record| record.height <= self.confirmed_height)
    }

    /// Ids by which a peer finds where our chains part.
    pub fn locator(&self) -> Vec<ShareId> {
        self.table.locator()
    }

    /// Height at which a peer's chain parts from ours, by its locator.
    pub fn find_fork(&self, locator: &[ShareId]) -> u32 {
        self.table.find_fork(locator)
    }

    /// What a share on the confirmed tip must carry if its job is made now.
    pub fn next(&self, params: &Params, now: Now) -> Next {
        let parent = self.confirmed_tip();
        let newest: Vec<u32> =
            (0..=parent.height).rev().take(MEDIAN_SPAN).filter_map(|height| self.table.at(height)).map(|record| record.time).collect();
        let time = now.unix().max(difficulty::median_time(&newest).saturating_add(1));
        let below = score::excess_height(parent.height.saturating_add(1)).and_then(|height| self.table.at(height));
        let derived = rules::child(params, parent, below.map_or(0, |record| score::excess(record)), time);
        Next { parent: parent.id, height: derived.height, lead: derived.lead, score: derived.score, bits: derived.allowed_bits, time }
    }

    /// Payouts at the confirmed tip.
    pub fn payouts(&self) -> &Arc<Payouts> {
        &self.payouts
    }

    /// The bytes of a share that is not yet stored.
    pub fn bytes(&self, id: &ShareId) -> Option<Arc<[u8]>> {
        self.unstored.get(id).cloned()
    }

    /// Shares whose bytes wait here to be stored.
    pub fn unstored(&self) -> usize {
        self.unstored.len()
    }

    /// Whether the view agrees with itself. For tests and invariants.
    pub fn sanity_check(&self) -> Result<(), String> {
        self.table.sanity_check()?;
        if self.confirmed_height > self.tip().height {
            return Err(format!("confirmed height {}, tip {}", self.confirmed_height, self.tip().height));
        }
        let confirmed = self.confirmed_tip().id;
        if self.payouts.parent != confirmed {
            return Err(format!("payouts of {}, confirmed tip {confirmed}", self.payouts.parent));
        }
        Ok(())
    }
}
