//! The seam between the share chain and the disk: six methods. RocksDB in the node; in the simulator a log of batches with
//! sync marks, of which a crash keeps a drawn prefix.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::StoreError;
use crate::gauges::Gauges;

/// Column families. `store/SCHEMA.md` has a table for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// height u32 big-endian ‖ id → share bytes.
    Shares,
    /// height u32 big-endian ‖ hash → Bitcoin header, 80 bytes.
    Bitcoin,
    /// group u32 ‖ row u32, big-endian → a share of ours and the transactions of its block, as a difference.
    Templates,
    /// period u32 ‖ kind u8 ‖ program → work u128, big-endian: what a script did in ten minutes, in a pool of one's own.
    Pplns,
    /// kind u8 ‖ number u32, big-endian ‖ part → found blocks and what became of them.
    Blocks,
    /// kind u8 ‖ address 16 ‖ port u16 or bits u8 → addresses of peers, anchors, bans.
    Peers,
    /// kind u8 ‖ what it is of → figures of own miners and of the pool, over the years.
    Figures,
    /// kind u8 ‖ what it is of → users' portfolios.
    Portfolios,
    /// Small rows: format number, network, base, tip.
    Meta,
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 9] = [
        Family::Shares,
        Family::Bitcoin,
        Family::Templates,
        Family::Pplns,
        Family::Blocks,
        Family::Peers,
        Family::Figures,
        Family::Portfolios,
        Family::Meta,
    ];
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
    /// Takes the store's figures anew. It may wait for a lock of the store, so it is not for the reactor.
    fn measure(&self) {}
    /// The figures as they were last taken; a store in memory has none.
    fn gauges(&self) -> Option<&Gauges> {
        None
    }
}

/// Rows in memory, for the simulator and for tests: everything since the last sync can be lost by a [`MemKv::crash`].
///
/// Compiled always, since the simulator runs whole nodes on it; the binary never makes one.
#[derive(Debug, Default)]
pub struct MemKv {
    rows: Mutex<Rows>,
}

/// What stood under a key before a batch.
type Undo = (Family, Vec<u8>, Option<Vec<u8>>);

#[derive(Debug)]
struct Rows {
    rows: BTreeMap<(Family, Vec<u8>), Vec<u8>>,
    /// One entry for each batch since the last sync: how to take it back.
    unsynced: Vec<Vec<Undo>>,
    free_space: u64,
    cold: bool,
}

impl Default for Rows {
    fn default() -> Rows {
        Rows { rows: BTreeMap::new(), unsynced: Vec::new(), free_space: u64::MAX, cold: false }
    }
}

impl MemKv {
    /// An empty store with endless room.
    pub fn new() -> MemKv {
        MemKv::default()
    }

    /// Batches written since the last sync: what a crash may lose.
    pub fn unsynced(&self) -> usize {
        self.rows().unsynced.len()
    }

    /// A power loss: of the batches since the last sync only the first `keep` survive.
    pub fn crash(&self, keep: usize) {
        let rows = &mut *self.rows();
        while rows.unsynced.len() > keep {
            for (family, key, before) in rows.unsynced.pop().into_iter().flatten().rev() {
                match before {
                    Some(value) => rows.rows.insert((family, key), value),
                    None => rows.rows.remove(&(family, key)),
                };
            }
        }
        rows.unsynced.clear();
    }

    /// Sets the free space that it claims, bytes. A write that finds none fails with `NoSpace`.
    pub fn set_free_space(&self, bytes: u64) {
        self.rows().free_space = bytes;
    }

    /// Whether reads of the cache-only tier find nothing.
    pub fn set_cold(&self, cold: bool) {
        self.rows().cold = cold;
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        // Every change is complete before anything can panic, so what a dead thread left is whole.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kv for MemKv {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.rows().rows.get(&(family, key.to_vec())).cloned())
    }

    fn get_cached(&self, family: Family, key: &[u8]) -> Result<Cached, StoreError> {
        if self.rows().cold {
            return Ok(Cached::Unknown);
        }
        Ok(self.get(family, key)?.map_or(Cached::Absent, Cached::Hit))
    }

    fn scan(&self, family: Family, from: &[u8], row: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        let rows = self.rows();
        let range = rows.rows.range((Bound::Included((family, from.to_vec())), Bound::Unbounded));
        for ((_, key), value) in range.take_while(|((of, _), _)| *of == family) {
            if !row(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, ops: &[Op], sync: bool) -> Result<(), StoreError> {
        let rows = &mut *self.rows();
        if rows.free_space == 0 {
            return Err(StoreError::NoSpace);
        }
        let undo = ops.iter().map(|op| match op {
            Op::Put(family, key, value) => (*family, key.clone(), rows.rows.insert((*family, key.clone()), value.clone())),
            Op::Delete(family, key) => (*family, key.clone(), rows.rows.remove(&(*family, key.clone()))),
        });
        let undo = undo.collect();
        rows.unsynced.push(undo);
        if sync {
            rows.unsynced.clear();
        }
        Ok(())
    }

    fn free_space(&self) -> Result<u64, StoreError> {
        Ok(self.rows().free_space)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.rows().unsynced.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    fn put(key: u8, value: u8) -> Op {
        Op::Put(Family::Shares, vec![key], vec![value])
    }

    fn all(kv: &MemKv) -> Vec<(u8, u8)> {
        let mut rows = Vec::new();
        kv.scan(Family::Shares, &[], &mut |key, value| {
            rows.push((key[0], value[0]));
            true
        })
        .unwrap();
        rows
    }

    #[test]
    fn a_crash_keeps_a_prefix_and_never_less_than_the_last_sync() {
        for keep in 0..4 {
            let kv = MemKv::new();
            kv.write(&[put(1, 1), put(2, 1)], true).unwrap();
            kv.write(&[put(2, 2), put(2, 3)], false).unwrap();
            kv.write(&[Op::Delete(Family::Shares, vec![2]), put(3, 3)], false).unwrap();
            assert_eq!(kv.unsynced(), 2);
            kv.crash(keep);
            let wanted = [vec![(1, 1), (2, 1)], vec![(1, 1), (2, 3)], vec![(1, 1), (3, 3)]];
            assert_eq!(all(&kv), wanted[keep.min(2)]);
        }
    }

    #[test]
    fn a_scan_stays_in_its_family_and_begins_where_told() {
        let kv = MemKv::new();
        kv.write(&[put(1, 1), put(2, 2), put(3, 3), Op::Put(Family::Meta, vec![9], vec![9])], false).unwrap();
        let mut seen = Vec::new();
        kv.scan(Family::Shares, &[2], &mut |key, _| {
            seen.push(key[0]);
            true
        })
        .unwrap();
        assert_eq!(seen, [2, 3]);
    }

    #[test]
    fn a_full_disk_changes_nothing() {
        let kv = MemKv::new();
        kv.set_free_space(0);
        assert!(matches!(kv.write(&[put(1, 1)], true), Err(StoreError::NoSpace)));
        assert!(all(&kv).is_empty());
        kv.set_free_space(1);
        kv.write(&[put(1, 1)], true).unwrap();
        assert_eq!(kv.free_space().unwrap(), 1);
    }

    #[test]
    fn a_cold_cache_knows_nothing() {
        let kv = MemKv::new();
        kv.write(&[put(1, 7)], true).unwrap();
        assert_eq!(kv.get_cached(Family::Shares, &[1]).unwrap(), Cached::Hit(vec![7]));
        assert_eq!(kv.get_cached(Family::Shares, &[2]).unwrap(), Cached::Absent);
        kv.set_cold(true);
        assert_eq!(kv.get_cached(Family::Shares, &[1]).unwrap(), Cached::Unknown);
        assert_eq!(kv.get(Family::Shares, &[1]).unwrap(), Some(vec![7]));
    }

    /// Writes, reads and scans at random, against a plain map.
    fn agrees_with_a_map(kv: &dyn Kv, seed: u64) {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut map = BTreeMap::new();
        let key = |rng: &mut ChaCha12Rng| {
            let key = rng.next_u32().to_be_bytes()[..1 + rng.next_u32() as usize % 2].to_vec();
            (if rng.next_u32().is_multiple_of(4) { Family::Meta } else { Family::Shares }, key)
        };
        for step in 0..300u32 {
            let ops: Vec<Op> = (0..rng.next_u32() % 6)
                .map(|_| {
                    let (family, key) = key(&mut rng);
                    if rng.next_u32().is_multiple_of(3) {
                        map.remove(&(family, key.clone()));
                        return Op::Delete(family, key);
                    }
                    map.insert((family, key.clone()), step.to_be_bytes().to_vec());
                    Op::Put(family, key, step.to_be_bytes().to_vec())
                })
                .collect();
            kv.write(&ops, step.is_multiple_of(50)).unwrap();
            let (family, from) = key(&mut rng);
            assert_eq!(kv.get(family, &from).unwrap(), map.get(&(family, from.clone())).cloned());
            let mut most = rng.next_u32() % 20 + 1;
            let wanted = map.range((family, from.clone())..).take_while(|((of, _), _)| *of == family).take(most as usize);
            let wanted: Vec<_> = wanted.map(|((_, key), value)| (key.clone(), value.clone())).collect();
            let mut found = Vec::new();
            kv.scan(family, &from, &mut |key, value| {
                found.push((key.to_vec(), value.to_vec()));
                most -= 1;
                most > 0
            })
            .unwrap();
            assert_eq!(found, wanted, "seed {seed} step {step}");
        }
        assert!(map.len() > 50);
    }

    #[test]
    fn memory_agrees_with_a_map() {
        (0..4).for_each(|seed| agrees_with_a_map(&MemKv::new(), seed));
    }

    #[cfg(feature = "rocks")]
    #[test]
    fn rocksdb_agrees_with_a_map() {
        for seed in 0..4 {
            let dir = tempfile::tempdir().unwrap();
            agrees_with_a_map(&crate::rocks::RocksKv::open(dir.path()).unwrap(), seed);
        }
    }
}
