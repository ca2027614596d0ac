//! Direct reads. The lower tier knows rows, the upper one the chain; what one of them can do the other does not repeat.

use std::sync::Arc;

use rockpool_net::id::ShareId;

use crate::error::StoreError;
use crate::kv::{Cached, Family, Kv};
use crate::schema;
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

    /// A share's bytes by its id: not yet stored ones from the view, stored ones of the best chain from RocksDB's cache.
    pub fn share_bytes(&self, id: &ShareId) -> Result<Found, StoreError> {
        if let Some(bytes) = self.view.bytes(id) {
            return Ok(Found::Bytes(bytes));
        }
        let Some(record) = self.view.get(id).filter(|record| record.height > 0) else { return Ok(Found::Absent) };
        Ok(match self.store.get_share_cached(record.height, id)? {
            Cached::Hit(bytes) => Found::Bytes(bytes.into()),
            // The view says that it is stored, so an absent row is for the reader to complain about.
            Cached::Absent | Cached::Unknown => Found::Cold(record.height),
        })
    }

    /// Ids of the confirmed chain from a height on, at most `count`: what a peer that forked below it needs next.
    pub fn range(&self, from: u32, count: usize) -> Vec<(u32, ShareId)> {
        let confirmed = self.view.confirmed_height();
        (from..=confirmed).take(count).filter_map(|height| self.view.at_height(height)).map(|record| (record.height, record.id)).collect()
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
        assert_eq!(handle.range(0, 1), [(0, params.genesis_id())]);
        assert_eq!(handle.range(1, 9), [(1, id)]);
    }
}
