//! The reactor's view of the chain: its own table over the organiser's records, changed by [`ChainChange`]s alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rockpool_net::id::ShareId;
use rockpool_net::limits::UNCLES_MAX;
use rockpool_net::time::Now;

use crate::bitcoin::Tree;
use crate::limits::{BESIDE_DEPTH, REACH, SIDE_MAX, UNCLE_DEPTH};
use crate::organised::{Beside, ChainChange};
use crate::params::Params;
use crate::payouts::Payouts;
use crate::record::Record;
use crate::rules::{self, Ancestors, uncles};
use crate::table::{Keyed, Table};

/// What follows for the share that is mined on the confirmed tip, or on the share that work builds on instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// The share that it builds on.
    pub parent: ShareId,
    /// Uncles that it may credit, ascending.
    pub uncles: Vec<ShareId>,
    /// Height of the share to be.
    pub height: u32,
    /// Its lead.
    pub lead: u32,
    /// Its parent's score; its own follows from that and from its bits.
    pub parent_score: u128,
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
    /// Payouts at the share that work builds on, if it is not the confirmed tip.
    upon: Option<Arc<Payouts>>,
    /// Proved shares beside the best chain, by height and id: those that may become uncles or be asked for.
    beside: BTreeMap<(u32, ShareId), Beside>,
    bitcoin: Tree,
    keyed: Keyed,
    /// Encoded shares that are not yet stored.
    unstored: HashMap<ShareId, Arc<[u8]>, Keyed>,
}

impl ChainView {
    /// What `Chain::view` makes.
    pub(crate) fn new(table: Table, confirmed_height: u32, payouts: Arc<Payouts>, bitcoin: Tree, keyed: Keyed) -> ChainView {
        let unstored = HashMap::with_hasher(keyed);
        ChainView { table, confirmed_height, payouts, upon: None, beside: BTreeMap::new(), bitcoin, keyed, unstored }
    }

    /// Does what the organiser did. Returns how many heights of the best chain were cut: the depth of a reorg, 0 for a mere extension.
    pub fn apply(&mut self, change: &ChainChange) -> u32 {
        if let Some(base) = &change.base {
            self.rebase(base);
        }
        // In the order in which it happened, or other blocks would be pushed out here.
        let mut held = change.held.iter().peekable();
        for (number, block) in change.blocks.iter().enumerate() {
            while let Some((_, hash)) = held.next_if(|(blocks, _)| *blocks <= number) {
                self.bitcoin.hold(hash);
            }
            self.bitcoin.insert(Arc::clone(block));
        }
        held.for_each(|(_, hash)| self.bitcoin.hold(hash));
        if let Some(below) = change.blocks_below {
            self.bitcoin.prune(below);
        }
        let cut = self.table.cut(change.fork_height);
        // What was confirmed is as good as before, beside the best chain; its rows are still there.
        let (depth, confirmed) = (cut.len() as u32, self.confirmed_height);
        let proved = cut.into_iter().filter(|record| record.height <= confirmed).map(|record| Beside { record, bytes: None });
        let proved: Vec<_> = proved.collect();
        for record in &change.added {
            let fits = self.table.push(Arc::clone(record));
            debug_assert!(fits, "changes are applied in the order of their making");
        }
        self.confirmed_height = change.confirmed_height;
        if let Some(payouts) = &change.payouts {
            self.payouts = Arc::clone(payouts);
        }
        self.unstored.extend(change.bytes.iter().map(|(id, bytes)| (*id, Arc::clone(bytes))));
        self.put_beside(&proved);
        self.put_beside(&change.beside);
        self.upon = change.upon.clone().filter(|upon| self.record(&upon.parent).is_some());
        depth
    }

    /// The chain begins with another share.
    fn rebase(&mut self, base: &Arc<Record>) {
        if self.table.at(base.height).is_some_and(|record| record.id == base.id) {
            self.table.raise(base.height);
            return;
        }
        self.table = Table::new(Arc::clone(base), self.keyed);
        self.confirmed_height = base.height;
        self.beside.clear();
    }

    /// Shares beside the best chain, as many as are worth it: the highest.
    pub(crate) fn put_beside(&mut self, shares: &[Beside]) {
        self.beside.extend(shares.iter().map(|share| ((share.record.height, share.record.id), share.clone())));
        let lowest = self.confirmed_height.saturating_sub(BESIDE_DEPTH);
        let (table, confirmed) = (&self.table, self.confirmed_height);
        self.beside.retain(|(height, id), _| *height > lowest && table.get(id).is_none_or(|record| record.height > confirmed));
        while self.beside.len() > SIDE_MAX {
            self.beside.pop_first();
        }
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

    /// The highest confirmed share: the one to announce, and but for a policy to mine on ([`upon`](ChainView::upon)).
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

    /// Height at which a peer's chain parts from ours, by its locator; `None` where nothing that is kept is common to both.
    pub fn find_fork(&self, locator: &[ShareId]) -> Option<u32> {
        self.table.find_fork(locator)
    }

    /// The lowest share that is kept.
    pub fn lowest(&self) -> &Arc<Record> {
        self.table.lowest()
    }

    /// A proved share beside the best chain.
    pub fn beside(&self, id: &ShareId) -> Option<&Beside> {
        self.beside.iter().rev().find(|((_, beside), _)| beside == id).map(|(_, beside)| beside)
    }

    /// Proved shares beside the best chain, the highest last.
    pub fn all_beside(&self) -> impl DoubleEndedIterator<Item = &Beside> {
        self.beside.values()
    }

    /// Height of an uncle that a share of the best chain credits: part of its row's key.
    pub fn uncle_height(&self, id: &ShareId) -> Option<u32> {
        self.table.uncle_height(id)
    }

    /// The share of the best chain that credits this uncle.
    pub fn nephew(&self, id: &ShareId) -> Option<&Arc<Record>> {
        self.table.uncle(id).map(|(nephew, _)| nephew)
    }

    /// Bitcoin's headers.
    pub fn bitcoin(&self) -> &Tree {
        &self.bitcoin
    }

    /// A share of the best chain, or a proved one beside it.
    fn record(&self, id: &ShareId) -> Option<&Arc<Record>> {
        self.table.get(id).or_else(|| self.beside(id).map(|beside| &beside.record))
    }

    /// What a share must carry if its job is made now.
    pub fn next(&self, params: &Params, now: Now) -> Next {
        let parent = self.upon.as_ref().and_then(|upon| self.record(&upon.parent)).unwrap_or(self.confirmed_tip());
        let below = std::iter::successors(Some(parent), |record| self.record(&record.parent));
        let newest: Vec<_> = below.take(REACH).cloned().collect();
        let ancestors = Ancestors::new(&newest);
        let time = now.unix().max(ancestors.median_time().saturating_add(1));
        let derived = rules::child(params, parent, time);
        let uncles = self.uncles(derived.height, time, ancestors);
        Next {
            parent: parent.id,
            uncles,
            height: derived.height,
            lead: derived.lead,
            parent_score: derived.parent_score,
            bits: derived.allowed_bits,
            time,
        }
    }

    /// Uncles for a share of this height, ascending by id: of those that it may credit the lowest, whose time is over soonest, together
    /// with what builds on them, so that a lost branch is credited before its shares are too old. None that is dated later: others may
    /// still hold it for its time, and then they would hold its nephew too.
    fn uncles(&self, height: u32, time: u32, ancestors: Ancestors<'_>) -> Vec<ShareId> {
        let from = (height.saturating_sub(UNCLE_DEPTH), ShareId::default());
        let near = self.beside.range(from..).map(|(_, beside)| &beside.record);
        let reached = |record: &Record| uncles::branch(record, ancestors, |id| self.record(id).cloned()).is_ok();
        let mut named: Vec<&Record> = Vec::new();
        for record in near.filter(|record| !ancestors.near_base() && record.time <= time) {
            if named.len() == UNCLES_MAX {
                break;
            }
            if uncles::may_credit(height, record, &named, ancestors) && reached(record) {
                named.push(record);
            }
        }
        let mut ids: Vec<ShareId> = named.into_iter().map(|record| record.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Payouts at the confirmed tip.
    pub fn payouts(&self) -> &Arc<Payouts> {
        &self.payouts
    }

    /// Payouts at the share that work builds on: the confirmed tip, or the one that the organiser chose instead.
    pub fn upon(&self) -> &Arc<Payouts> {
        self.upon.as_ref().unwrap_or(&self.payouts)
    }

    /// The bytes of a share that is in no row: not yet stored, or beside the best chain.
    pub fn bytes(&self, id: &ShareId) -> Option<Arc<[u8]>> {
        self.unstored.get(id).cloned().or_else(|| self.beside(id)?.bytes.clone())
    }

    /// Bitcoin headers that who knows what the share at `below` builds on needs to judge shares that build on `prev`, parents first.
    pub fn headers_between(&self, below: u32, prev: &[u8; 32], most: usize) -> Vec<[u8; 80]> {
        let from = self.at_height(below).map_or(*prev, |record| record.bitcoin.hash);
        self.bitcoin.path(&from, prev, most).iter().map(|block| block.header).collect()
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use super::*;
    use crate::chain::{Chain, Offer, Source};
    use crate::kv::MemKv;
    use crate::params::{Network, params};
    use crate::rules::{score, target};
    use crate::testing::{ShareBuilder, least_time};

    fn at(unix: u32) -> Now {
        Now { mono: Duration::ZERO, wall: Duration::from_secs(u64::from(unix)) }
    }

    /// A chain of confirmed shares, each as hard as allowed by choice, and its view.
    fn grown(heights: u32) -> (Chain, ChainView) {
        let params = params(Network::Regtest);
        let mut chain = Chain::open(params, [1, 2], &MemKv::new()).unwrap();
        let mut view = chain.view();
        for _ in 0..heights {
            let share = ShareBuilder::new(params).harder(2).build(&chain, &chain.tip().id);
            assert_eq!(chain.offer(at(2_000_000_000), &share, Source::Peer), Offer::Taken);
        }
        chain.confirm(heights as usize);
        view.apply(&chain.take_change().unwrap().0);
        (chain, view)
    }

    #[test]
    fn a_share_of_what_next_says_is_taken() {
        let params = params(Network::Regtest);
        for heights in [1, 10, 15, 16, 17, 40] {
            let (mut chain, view) = grown(heights);
            for now in [0, view.tip().time, view.tip().time + 1, view.tip().time + 500] {
                let next = view.next(params, at(now));
                assert_eq!(next.time, now.max(least_time(&view, &view.tip().id)));
                let share = ShareBuilder::new(params).salt(now).time(next.time).build(&view, &next.parent);
                let wanted = (share.height, share.lead, share.score, share.bits);
                let demand = target::work(next.bits);
                assert_eq!((next.height, next.lead, score::next(next.parent_score, demand, demand), next.bits), wanted);
                assert_eq!(chain.offer(at(2_000_000_000), &share, Source::Own), Offer::Taken);
            }
        }
    }

    #[test]
    fn work_is_given_on_the_confirmed_tip_alone() {
        let (mut chain, mut view) = grown(3);
        let share = ShareBuilder::new(params(Network::Regtest)).build(&chain, &chain.tip().id);
        chain.offer(at(2_000_000_000), &share, Source::Peer);
        assert_eq!(view.apply(&chain.take_change().unwrap().0), 0);
        assert_eq!((view.tip().id, view.confirmed_height()), (share.id(), 3));
        assert!(!view.is_confirmed(&share.id()));
        assert_eq!(view.next(params(Network::Regtest), at(0)).parent, share.parent);
        assert_eq!(view.payouts().parent, share.parent);
        chain.confirm(1);
        view.apply(&chain.take_change().unwrap().0);
        assert!(view.is_confirmed(&share.id()));
        assert_eq!(view.next(params(Network::Regtest), at(0)).parent, share.id());
        view.sanity_check().unwrap();
    }

    #[test]
    fn bytes_stay_until_they_are_stored() {
        let (chain, mut view) = grown(3);
        assert_eq!(view.unstored(), 3);
        let ids: Vec<ShareId> = chain_ids(&chain);
        assert!(ids.iter().all(|id| view.bytes(id).is_some()));
        view.stored(&ids[..2]);
        assert_eq!((view.bytes(&ids[0]), view.unstored()), (None, 1));
        assert!(view.bytes(&ids[2]).is_some());
    }

    fn chain_ids(chain: &Chain) -> Vec<ShareId> {
        let view = chain.view();
        (1..=chain.tip().height).map(|height| view.at_height(height).unwrap().id).collect()
    }
}
