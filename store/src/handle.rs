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
