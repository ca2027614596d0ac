//! RocksDB behind [`Kv`], set for machines of 1 GB. The only file that names it.

use std::fs;
use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, Direction, Env, Error, ErrorKind, IteratorMode,
    LogLevel, Options, ReadOptions, ReadTier, WriteBatch, WriteBufferManager, WriteOptions,
};

use crate::error::StoreError;
use crate::kv::{Cached, Family, Kv, Op};

/// Memtables and blocks together, bytes: one cap for all families. Two weeks of shares are read in order, seldom twice.
const MEMORY_BYTES: usize = 16 << 20;
/// One memtable, bytes. Shares come in at less than 1 kB/s; a larger one would only slow recovery.
const WRITE_BUFFER_BYTES: usize = 2 << 20;
/// Memtables of a family, the one being flushed included.
const WRITE_BUFFERS: i32 = 2;
/// Open table files. The rest of the process's descriptors are for connections.
const OPEN_FILES: i32 = 64;
/// Write-ahead log, bytes: what a start has to replay.
const WAL_BYTES: u64 = 16 << 20;
/// One flush and one compaction at a time: more would fight the reactor for four cores.
const BACKGROUND_JOBS: i32 = 2;
/// A table file, bytes: short compactions, little temporary disk.
const FILE_BYTES: u64 = 8 << 20;
/// Bytes after which a file being written is sent to the disk, so that a slow card does not stall on all of it at once.
const SYNC_EVERY_BYTES: u64 = 512 << 10;
/// One of RocksDB's own log files, bytes, and how many are kept.
const LOG_BYTES: usize = 1 << 20;
const LOG_FILES: usize = 3;
/// A block, bytes: four times fewer index entries than with the default.
const BLOCK_BYTES: usize = 16 << 10;

/// The list of table files, bytes: how far it grows before it is written anew, and in what steps.
const MANIFEST_BYTES: usize = 1 << 20;
const MANIFEST_STEP_BYTES: usize = 64 << 10;

const SHARES: &str = "shares";
const BITCOIN: &str = "bitcoin";
const TEMPLATES: &str = "templates";
/// The family that RocksDB has anyway.
const META: &str = rocksdb::DEFAULT_COLUMN_FAMILY_NAME;

/// Rows in RocksDB.
pub struct RocksKv {
    db: DB,
    dir: PathBuf,
}

impl RocksKv {
    /// Opens the store in this directory, which is made if it is not there.
    pub fn open(dir: &Path) -> Result<RocksKv, StoreError> {
        let failed = |why: String| StoreError::Open { dir: dir.display().to_string(), why };
        fs::create_dir_all(dir).map_err(|error| failed(error.to_string()))?;
        let cache = Cache::new_lru_cache(MEMORY_BYTES);
        let families = [META, SHARES, BITCOIN, TEMPLATES].map(|name| ColumnFamilyDescriptor::new(name, family_options(&cache)));
        let db = DB::open_cf_descriptors(&db_options(&cache), dir, families).map_err(|error| {
            let why = error.into_string();
            if is_lock(&why) { StoreError::InUse(dir.display().to_string()) } else { failed(why) }
        })?;
        // Without a thread for flushes they share the one for compactions: at a share in ten seconds neither keeps the other waiting, and a
        // small machine has better uses for a thread. Opening a database makes one each time.
        let mut env = Env::new().map_err(|error| failed(error.into_string()))?;
        env.set_high_priority_background_threads(0);
        Ok(RocksKv { db, dir: dir.to_path_buf() })
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, StoreError> {
        let name = match family {
            Family::Shares => SHARES,
            Family::Bitcoin => BITCOIN,
            Family::Templates => TEMPLATES,
            Family::Meta => META,
        };
        self.db.cf_handle(name).ok_or_else(|| StoreError::Damaged(format!("there is no column family {name}")))
    }
}

impl Kv for RocksKv {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.db.get_cf(self.family(family)?, key).map_err(failure)
    }

    fn get_cached(&self, family: Family, key: &[u8]) -> Result<Cached, StoreError> {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::BlockCache);
        match self.db.get_cf_opt(self.family(family)?, key, &options) {
            Ok(row) => Ok(row.map_or(Cached::Absent, Cached::Hit)),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(Cached::Unknown),
            Err(error) => Err(failure(error)),
        }
    }

    fn scan(&self, family: Family, from: &[u8], row: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        let mut options = ReadOptions::default();
        // What is read once and in order must not push out what is asked for again.
        options.fill_cache(false);
        for entry in self.db.iterator_cf_opt(self.family(family)?, options, IteratorMode::From(from, Direction::Forward)) {
            let (key, value) = entry.map_err(failure)?;
            if !row(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, ops: &[Op], sync: bool) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        for op in ops {
            match op {
                Op::Put(family, key, value) => batch.put_cf(self.family(*family)?, key, value),
                Op::Delete(family, key) => batch.delete_cf(self.family(*family)?, key),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(batch, &options).map_err(failure)
    }

    fn free_space(&self) -> Result<u64, StoreError> {
        let space = rustix::fs::statvfs(&self.dir).map_err(|error| StoreError::Disk(error.to_string()))?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.db.flush_wal(true).map_err(failure)
    }
}

fn db_options(cache: &Cache) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_write_buffer_manager(&WriteBufferManager::new_write_buffer_manager_with_cache(MEMORY_BYTES / 2, false, cache.clone()));
    options.set_max_open_files(OPEN_FILES);
    options.set_max_file_opening_threads(1);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    options.set_max_total_wal_size(WAL_BYTES);
    options.set_bytes_per_sync(SYNC_EVERY_BYTES);
    options.set_wal_bytes_per_sync(SYNC_EVERY_BYTES);
    options.set_manifest_preallocation_size(MANIFEST_STEP_BYTES);
    options.set_max_manifest_file_size(MANIFEST_BYTES);
    options.set_keep_log_file_num(LOG_FILES);
    options.set_max_log_file_size(LOG_BYTES);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_paranoid_checks(true);
    options.set_track_and_verify_wals_in_manifest(true);
    options
}

fn family_options(cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(BLOCK_BYTES);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(WRITE_BUFFERS);
    options.set_target_file_size_base(FILE_BYTES);
    options.set_max_bytes_for_level_base(8 * FILE_BYTES);
    options.set_compression_type(DBCompressionType::Lz4);
    options
}

/// Whether an open failed since somebody holds the lock, in this process or another; a lock file that may not be written is another matter.
fn is_lock(why: &str) -> bool {
    why.contains("lock hold by current process") || (why.contains("While lock file") && why.contains("temporarily unavailable"))
}

fn failure(error: Error) -> StoreError {
    let kind = error.kind();
    let why = error.into_string();
    match kind {
        ErrorKind::Corruption => StoreError::Damaged(why),
        _ if why.contains("No space left on device") => StoreError::NoSpace,
        _ => StoreError::Disk(why),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_second_opener_is_told_that_the_directory_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let kv = RocksKv::open(&dir.path().join("db")).unwrap();
        assert!(matches!(RocksKv::open(&dir.path().join("db")), Err(StoreError::InUse(_))));
        drop(kv);
        RocksKv::open(&dir.path().join("db")).unwrap();
    }

    #[test]
    fn what_cannot_be_opened_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"not a directory").unwrap();
        assert!(matches!(RocksKv::open(&file), Err(StoreError::Open { .. })));
        // A store whose CURRENT file names nothing.
        let db = dir.path().join("db");
        drop(RocksKv::open(&db).unwrap());
        fs::write(db.join("CURRENT"), b"MANIFEST-999999\n").unwrap();
        assert!(matches!(RocksKv::open(&db), Err(StoreError::Open { .. })));
    }

    #[test]
    fn reasons_are_told_apart() {
        assert!(is_lock("IO error: While lock file: /x/LOCK: Resource temporarily unavailable"));
        assert!(!is_lock("IO error: While open a file for appending: /x/LOCK: Permission denied"));
    }

    #[test]
    fn the_cache_tier_never_asks_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let row = Op::Put(Family::Shares, vec![1], vec![7; 900]);
        let kv = RocksKv::open(dir.path()).unwrap();
        kv.write(&[row], true).unwrap();
        assert_eq!(kv.get_cached(Family::Shares, &[1]).unwrap(), Cached::Hit(vec![7; 900]));
        assert_eq!(kv.get_cached(Family::Shares, &[2]).unwrap(), Cached::Absent);
        kv.db.flush_cf(kv.family(Family::Shares).unwrap()).unwrap();
        drop(kv);
        let kv = RocksKv::open(dir.path()).unwrap();
        assert_eq!(kv.get_cached(Family::Shares, &[1]).unwrap(), Cached::Unknown);
        assert_eq!(kv.get(Family::Shares, &[1]).unwrap(), Some(vec![7; 900]));
        assert_eq!(kv.get_cached(Family::Shares, &[1]).unwrap(), Cached::Hit(vec![7; 900]));
        assert!(kv.free_space().unwrap() > 0);
    }
}
