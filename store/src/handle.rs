//! Direct reads. The lower tier knows rows, the upper one the chain; what one of them can do the other does not repeat.

use std::sync::Arc;

use rockpool_net::id::ShareId;

use crate::blocks::{self, BlockLog, FoundBlock};
use crate::error::StoreError;
use crate::figures::FigureRows;
use crate::gauges::Gauges;
use crate::kv::{Cached, Family, Kv};
use crate::limits::UNCLE_DEPTH;
use crate::peers::PeerRows;
use crate::schema;
use crate::templates::TemplateLog;
use crate::view::ChainView;

/// Reads of rows, for any thread. Writes go through `StoreWriter` alone.
#[derive(Clone)]
pub struct StoreHandle {
    kv: Arc<dyn Kv>,
}

impl StoreHandle {
    /// Reads from this store.
    pub fn new(kv: Arc<dyn Kv>) -> StoreHandle {
        StoreHandle { kv }
    }

    /// A share's bytes, from disk if need be: never on the reactor.
    pub fn get_share(&self, height: u32, id: &ShareId) -> Result<Option<Vec<u8>>, StoreError> {
        self.kv.get(Family::Shares, &schema::share_key(height, id))
    }

    /// A row of any family, from disk if need be: never on the reactor.
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.kv.get(family, key)
    }

    /// The log of own templates, from its groups on disk: before the first turn.
    pub fn template_log(&self) -> Result<TemplateLog, StoreError> {
        TemplateLog::open(&*self.kv)
    }

    /// The log of found blocks: before the first turn.
    pub fn block_log(&self) -> Result<BlockLog, StoreError> {
        BlockLog::open(&*self.kv)
    }

    /// What is kept of peers: before the first turn.
    pub fn peer_rows(&self) -> Result<PeerRows, StoreError> {
        PeerRows::open(&*self.kv)
    }

    /// What is kept of miners and of the pool: before the first turn.
    pub fn figure_rows(&self) -> Result<FigureRows, StoreError> {
        FigureRows::open(&*self.kv)
    }

    /// A found block itself, if it is stored: before the first turn.
    pub fn block_body(&self, block: &FoundBlock) -> Result<Option<Vec<u8>>, StoreError> {
        blocks::body(&*self.kv, block)
    }

    /// The store's figures, as they were last taken.
    pub fn gauges(&self) -> Option<&Gauges> {
        self.kv.gauges()
    }

    /// A share's bytes if they are in memory.
    pub fn get_share_cached(&self, height: u32, id: &ShareId) -> Result<Cached, StoreError> {
        self.kv.get_cached(Family::Shares, &schema::share_key(height, id))
    }
}

/// What a look for a share's bytes found, without touching the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Here they are.
    Bytes(Arc<[u8]>),
    /// On disk, at this height: a job for the reader.
    Cold(u32),
    /// Not of our chain.
    Absent,
}

/// The chain as the reactor sees it, rows included: heights, work, locators and payouts by `view`, bytes from memory or rows by the
/// methods here.
pub struct ChainStoreHandle {
    /// The index.
    pub view: ChainView,
    /// The rows.
    pub store: StoreHandle,
}

impl ChainStoreHandle {
    /// Of a view and the store that its rows are in.
    pub fn new(view: ChainView, store: StoreHandle) -> ChainStoreHandle {
        ChainStoreHandle { view, store }
    }

    /// A share's bytes by its id: of the confirmed chain, of an uncle that it credits, or of a proved share beside it. Of no other: who
    /// passes on what is not proved may pass on a lie (SPEC, VAL-4).
    pub fn share_bytes(&self, id: &ShareId) -> Result<Found, StoreError> {
        let confirmed = self.view.confirmed_height();
        // An uncle is proved when the share that credits it is confirmed.
        let nephews = |height: u32| (confirmed + 1..=height.saturating_add(UNCLE_DEPTH)).map_while(|height| self.view.at_height(height));
        let uncle = || self.view.uncle_height(id).filter(|height| !nephews(*height).any(|nephew| nephew.credits(id)));
        let of_chain = self.view.get(id).map(|record| record.height).or_else(uncle);
        let proved = of_chain.filter(|height| *height <= confirmed);
        let height = proved.or_else(|| self.view.beside(id).map(|beside| beside.record.height));
        height.map_or(Ok(Found::Absent), |height| self.bytes_at(height, id))
    }

    /// The bytes of a share that is known to be at this height: not yet stored ones from the view, stored ones from RocksDB's cache.
    pub fn bytes_at(&self, height: u32, id: &ShareId) -> Result<Found, StoreError> {
        if height == 0 {
            // Genesis is known to all and has no row.
            return Ok(Found::Absent);
        }
        if let Some(bytes) = self.view.bytes(id) {
            return Ok(Found::Bytes(bytes));
        }
        Ok(match self.store.get_share_cached(height, id)? {
            Cached::Hit(bytes) => Found::Bytes(bytes.into()),
            // The view says that it is stored, so an absent row is for the reader to complain about.
            Cached::Absent | Cached::Unknown => Found::Cold(height),
        })
    }

    /// Heights and ids of the confirmed chain from a height on, each share behind the uncles that it credits, at most `count` in all: what
    /// a peer that forked below it needs next, in the order in which it can judge them.
    pub fn range(&self, from: u32, count: usize) -> Vec<(u32, ShareId)> {
        let mut range = Vec::new();
        for record in (from.max(1)..=self.view.confirmed_height()).map_while(|height| self.view.at_height(height)) {
            if range.len() + record.uncles().len() + 1 > count {
                break;
            }
            // Those of the lowest are kept no more, and nobody needs them.
            let uncles = if record.id == self.view.lowest().id { &[] } else { record.uncles() };
            let mut uncles: Vec<_> = uncles.iter().map(|uncle| (uncle.height, uncle.id)).collect();
            uncles.sort_unstable();
            range.append(&mut uncles);
            range.push((record.height, record.id));
        }
        range
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use rockpool_net::time::Now;

    use super::*;
    use crate::chain::{Chain, Offer, Source};
    use crate::kv::MemKv;
    use crate::params::{Network, params};
    use crate::testing::ShareBuilder;

    #[test]
    fn bytes_come_from_the_view_then_from_rows_and_never_from_the_disk() {
        let (kv, params) = (Arc::new(MemKv::new()), params(Network::Regtest));
        let mut chain = Chain::open(params, [1, 2], &*kv).unwrap();
        let mut handle = ChainStoreHandle::new(chain.view(), StoreHandle::new(Arc::<MemKv>::clone(&kv)));
        let share = ShareBuilder::new(params).build(&chain, &chain.tip().id);
        let late = Now { mono: Duration::ZERO, wall: Duration::from_secs(2_000_000_000) };
        assert_eq!(chain.offer(late, &share, Source::Own), Offer::Taken);
        chain.confirm(1);
        let (id, bytes) = (share.id(), Found::Bytes(share.encode().into()));
        assert_eq!(handle.share_bytes(&id).unwrap(), Found::Absent);
        let (change, batches) = chain.take_change().unwrap();
        handle.view.apply(&change);
        assert_eq!(handle.share_bytes(&id).unwrap(), bytes);
        for batch in batches {
            kv.write(&batch.ops, batch.own).unwrap();
            handle.view.stored(&batch.ids);
        }
        assert_eq!(handle.share_bytes(&id).unwrap(), bytes);
        assert_eq!(handle.store.get_share(1, &id).unwrap(), Some(share.encode()));
        kv.set_cold(true);
        assert_eq!(handle.share_bytes(&id).unwrap(), Found::Cold(1));
        // Genesis is constant, and has no row.
        assert_eq!(handle.share_bytes(&params.genesis_id()).unwrap(), Found::Absent);
        assert_eq!((handle.range(0, 9), handle.range(1, 9)), (vec![(1, id)], vec![(1, id)]));
        assert_eq!((handle.range(1, 0), handle.range(2, 9)), (Vec::new(), Vec::new()));
    }

    /// SPEC, VAL-4: in layout front its extranonce may be another's lie until then.
    #[test]
    fn an_uncle_is_served_when_the_share_that_credits_it_is_confirmed() {
        let (kv, params) = (Arc::new(MemKv::new()), params(Network::Regtest));
        let mut chain = Chain::open(params, [1, 2], &*kv).unwrap();
        let mut handle = ChainStoreHandle::new(chain.view(), StoreHandle::new(Arc::<MemKv>::clone(&kv)));
        let late = Now { mono: Duration::ZERO, wall: Duration::from_secs(2_000_000_000) };
        let genesis = chain.tip().id;
        let [share, uncle] = [1, 2].map(|miner| ShareBuilder::new(params).miner(miner).build(&chain, &genesis));
        assert_eq!(chain.offer(late, &share, Source::Peer), Offer::Taken);
        chain.confirm(1);
        assert_eq!(chain.offer(late, &uncle, Source::Peer), Offer::Taken);
        let nephew = ShareBuilder::new(params).uncles(&[uncle.id()]).build(&chain, &share.id());
        assert_eq!(chain.offer(late, &nephew, Source::Peer), Offer::Taken);
        handle.view.apply(&chain.take_change().unwrap().0);
        assert_eq!((handle.view.confirmed_height(), handle.view.uncle_height(&uncle.id())), (1, Some(1)));
        assert_eq!(handle.share_bytes(&uncle.id()).unwrap(), Found::Absent);
        chain.confirm(1);
        handle.view.apply(&chain.take_change().unwrap().0);
        assert_eq!(handle.share_bytes(&uncle.id()).unwrap(), Found::Bytes(uncle.encode().into()));
    }
}
