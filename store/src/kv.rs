//! The seam between the share chain and the disk: six methods. RocksDB in the node; in the simulator a log of batches with
//! sync marks, of which a crash keeps a drawn prefix.

use crate::error::StoreError;

/// Column families. `store/SCHEMA.md` has a table for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// height u32 big-endian ‖ id → share bytes.
    Shares,
    /// Small rows: format number, network, tip.
    Meta,
}

/// One change of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a row.
    Put(Family, Vec<u8>, Vec<u8>),
    /// Deletes a row.
    Delete(Family, Vec<u8>),
}

/// What a read of the cache-only tier found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cached {
    /// The row.
    Hit(Vec<u8>),
    /// There is no such row.
    Absent,
    /// Only the disk can tell.
    Unknown,
}

/// Rows by key, ordered, in families; batches are atomic.
pub trait Kv: Send + Sync {
    /// Reads a row, from disk if need be.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Reads a row without touching the disk.
    fn get_cached(&self, family: Family, key: &[u8]) -> Result<Cached, StoreError>;
    /// Calls `row` for every row with `from ≤ key`, ascending, until it returns false.
    fn scan(&self, family: Family, from: &[u8], row: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError>;
    /// Writes a batch atomically; with `sync` it has reached the disk when this returns.
    fn write(&self, ops: &[Op], sync: bool) -> Result<(), StoreError>;
    /// Bytes free where the rows live.
    fn free_space(&self) -> Result<u64, StoreError>;
    /// Everything written has reached the disk when this returns.
    fn flush(&self) -> Result<(), StoreError>;
}
