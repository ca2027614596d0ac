//! RocksDB behind [`Kv`], set for machines of 1 GB. The only file that names it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, Direction, Env, Error, ErrorKind, InfoLogger,
    IteratorMode, LogLevel, Options, ReadOptions, ReadTier, WriteBatch, WriteBufferManager, WriteOptions,
};

use crate::error::StoreError;
use crate::gauges::Gauges;
use crate::kv::{Cached, Family, Kv, Op};
use crate::schema;

/// Memtables and blocks together, bytes: one cap for all families. Two weeks of shares are read in order, seldom twice.
const MEMORY_BYTES: usize = 16 << 20;
/// One memtable, bytes. Shares come in at less than 1 kB/s; a larger one would only slow recovery.
const WRITE_BUFFER_BYTES: usize = 2 << 20;
/// Memtables of a family, the one being flushed included.
const WRITE_BUFFERS: i32 = 2;
/// Open table files: four weeks of shares are 90 files of a memtable each, and a row of a file that is not open counts as not in memory.
/// The rest of the process's descriptors are for connections.
const OPEN_FILES: i32 = 128;
/// Parts of the list of open files, as a power of two. With the 64 of the default each part would hold one file or two, and where the start
/// has pinned one, others of its part would be opened anew for every row.
const OPEN_FILES_PARTS_LOG2: i32 = 0;
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
const PPLNS: &str = "pplns";
const BLOCKS: &str = "blocks";
const PEERS: &str = "peers";
const FIGURES: &str = "figures";
const PORTFOLIOS: &str = "portfolios";
/// The family that RocksDB has anyway.
const META: &str = rocksdb::DEFAULT_COLUMN_FAMILY_NAME;
/// All of them.
const FAMILIES: [&str; 9] = [META, SHARES, BITCOIN, TEMPLATES, PPLNS, BLOCKS, PEERS, FIGURES, PORTFOLIOS];

/// Rows in RocksDB.
pub struct RocksKv {
    db: DB,
    dir: PathBuf,
    gauges: Gauges,
    /// Of a store that is only read: held so that no node starts on it meanwhile.
    _lock: Option<File>,
}

impl RocksKv {
    /// Opens the store in this directory, which is made if it is not there. One of another format is refused before anything in it is
    /// changed.
    pub fn open(dir: &Path) -> Result<RocksKv, StoreError> {
        fs::create_dir_all(dir).map_err(|error| cannot_open(dir, error.to_string()))?;
        refuse_other_formats(dir)?;
        let cache = Cache::new_lru_cache(MEMORY_BYTES);
        let families = FAMILIES.map(|name| ColumnFamilyDescriptor::new(name, family_options(&cache)));
        let db = DB::open_cf_descriptors(&db_options(&cache), dir, families).map_err(|error| not_opened(dir, error))?;
        // Without a thread for flushes they share the one for compactions: at a share in ten seconds neither keeps the other waiting, and a
        // small machine has better uses for a thread. Opening a database makes one each time.
        let mut env = Env::new().map_err(|error| not_opened(dir, error))?;
        env.set_high_priority_background_threads(0);
        Ok(RocksKv { db, dir: dir.to_path_buf(), gauges: Gauges::default(), _lock: None })
    }

    /// Opens the store in this directory to be read. Nothing in the directory is changed, and a write fails. Refused while another process
    /// has it open, whose files may go at any moment; as long as this is open no other can write to it.
    pub fn open_read_only(dir: &Path) -> Result<RocksKv, StoreError> {
        if !dir.join("CURRENT").exists() {
            return Err(cannot_open(dir, "there is no share chain".into()));
        }
        let lock = share_lock(dir)?;
        let found = families(dir)?;
        let cache = Cache::new_lru_cache(MEMORY_BYTES);
        let mut options = db_options(&cache);
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        // RocksDB would write a log of its own beside the rows.
        options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| {}));
        let known = FAMILIES.into_iter().filter(|name| found.iter().any(|found| found == name));
        let known = known.map(|name| ColumnFamilyDescriptor::new(name, family_options(&cache)));
        let db = DB::open_cf_descriptors_read_only(&options, dir, known, false);
        let db = db.map_err(|error| not_opened(dir, error))?;
        Ok(RocksKv { db, dir: dir.to_path_buf(), gauges: Gauges::default(), _lock: lock })
    }

    /// Deletes the store in this directory, whatever is left of it; files that are none of RocksDB's stay.
    pub fn destroy(dir: &Path) -> Result<(), StoreError> {
        DB::destroy(&Options::default(), dir).map_err(|error| not_opened(dir, error))
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, StoreError> {
        let name = match family {
            Family::Shares => SHARES,
            Family::Bitcoin => BITCOIN,
            Family::Templates => TEMPLATES,
            Family::Pplns => PPLNS,
            Family::Blocks => BLOCKS,
            Family::Peers => PEERS,
            Family::Figures => FIGURES,
            Family::Portfolios => PORTFOLIOS,
            Family::Meta => META,
        };
        self.db.cf_handle(name).ok_or_else(|| StoreError::Damaged(format!("there is no column family {name}")))
    }

    /// A figure of RocksDB's, summed over the families.
    fn sum(&self, name: &str) -> u64 {
        let families = FAMILIES.iter().filter_map(|family| self.db.cf_handle(family));
        families.filter_map(|family| self.db.property_int_value_cf(family, name).ok().flatten()).sum()
    }

    /// A figure that is the same for all families.
    fn one(&self, name: &str) -> u64 {
        self.db.property_int_value(name).ok().flatten().unwrap_or(0)
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
        // One of an older format, opened to be read, has no such family yet.
        if matches!(family, Family::Blocks | Family::Peers | Family::Figures | Family::Portfolios) && self.family(family).is_err() {
            return Ok(());
        }
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

    fn measure(&self) {
        let gauges = &self.gauges;
        for (gauge, name) in [
            (&gauges.memtables, "rocksdb.cur-size-all-mem-tables"),
            (&gauges.immutable_memtables, "rocksdb.num-immutable-mem-table"),
            (&gauges.pending_compaction, "rocksdb.estimate-pending-compaction-bytes"),
            (&gauges.live_data, "rocksdb.estimate-live-data-size"),
            (&gauges.table_files, "rocksdb.live-sst-files-size"),
        ] {
            gauge.set(self.sum(name));
        }
        for (gauge, name) in [
            (&gauges.block_cache, "rocksdb.block-cache-usage"),
            (&gauges.block_cache_capacity, "rocksdb.block-cache-capacity"),
            (&gauges.running_flushes, "rocksdb.num-running-flushes"),
            (&gauges.running_compactions, "rocksdb.num-running-compactions"),
            (&gauges.writes_stopped, "rocksdb.is-write-stopped"),
            (&gauges.delayed_write, "rocksdb.actual-delayed-write-rate"),
            (&gauges.background_errors, "rocksdb.background-errors"),
        ] {
            gauge.set(self.one(name));
        }
        for (level, gauge) in gauges.files().into_iter().enumerate() {
            gauge.set(self.sum(&format!("rocksdb.num-files-at-level{level}")));
        }
        if let Ok(free) = self.free_space() {
            gauges.free_space.set(free);
        }
    }

    fn gauges(&self) -> Option<&Gauges> {
        Some(&self.gauges)
    }
}

/// A lock that many readers can hold at once, and that RocksDB's own is not given beside. None is needed where RocksDB has never had one.
/// It must not be taken by a process that has the store open already: that would lose its lock when this one goes.
fn share_lock(dir: &Path) -> Result<Option<File>, StoreError> {
    let file = match File::open(dir.join("LOCK")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot_open(dir, error.to_string())),
    };
    match rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Err(StoreError::InUse(dir.display().to_string())),
        Err(error) => Err(cannot_open(dir, error.to_string())),
    }
}

/// A store of another format may have other families: RocksDB would add ours to it, or not open it and tell the user nothing of use.
fn refuse_other_formats(dir: &Path) -> Result<(), StoreError> {
    // What cannot even be listed is refused with a reason when it is opened.
    let found = if dir.join("CURRENT").exists() { families(dir).unwrap_or_default() } else { Vec::new() };
    if found.is_empty() || found.len() == FAMILIES.len() && FAMILIES.iter().all(|name| found.iter().any(|found| found == name)) {
        return Ok(());
    }
    schema::has_format(&RocksKv::open_read_only(dir)?, &dir.display().to_string()).map(drop)
}

/// Names of the families that are there.
fn families(dir: &Path) -> Result<Vec<String>, StoreError> {
    DB::list_cf(&Options::default(), dir).map_err(|error| not_opened(dir, error))
}

/// RocksDB does not open a store.
fn not_opened(dir: &Path, error: Error) -> StoreError {
    let (kind, why) = (error.kind(), error.into_string());
    match kind {
        _ if is_lock(&why) => StoreError::InUse(dir.display().to_string()),
        ErrorKind::Corruption => StoreError::Damaged(why),
        _ => cannot_open(dir, why),
    }
}

fn cannot_open(dir: &Path, why: String) -> StoreError {
    StoreError::Open { dir: dir.display().to_string(), why }
}

fn db_options(cache: &Cache) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_write_buffer_manager(&WriteBufferManager::new_write_buffer_manager_with_cache(MEMORY_BYTES / 2, false, cache.clone()));
    options.set_max_open_files(OPEN_FILES);
    options.set_table_cache_num_shard_bits(OPEN_FILES_PARTS_LOG2);
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
    fn it_measures_itself() {
        let dir = tempfile::tempdir().unwrap();
        let kv = RocksKv::open(&dir.path().join("db")).unwrap();
        kv.write(&[Op::Put(Family::Shares, vec![1], vec![2; 1_000])], true).unwrap();
        let gauges = kv.gauges().unwrap();
        assert_eq!(gauges.block_cache_capacity.get(), 0, "nobody has looked yet");
        kv.measure();
        assert_eq!((gauges.block_cache_capacity.get(), gauges.writes_stopped.get()), (MEMORY_BYTES as u64, 0));
        assert!(gauges.memtables.get() > 1_000 && gauges.free_space.get() > 0);
        kv.db.flush_cf(kv.family(Family::Shares).unwrap()).unwrap();
        kv.measure();
        let files: u64 = gauges.files().iter().map(|level| level.get()).sum();
        assert!(files > 0 && gauges.table_files.get() > 0, "{gauges:?}");
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

    /// Names and contents of what lies in a directory.
    fn files(dir: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
        let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    #[test]
    fn another_format_is_refused_with_a_sentence_and_never_touched() {
        for (format, of, says) in [(1, vec![SHARES], "--resync"), (schema::FORMAT + 1, vec![SHARES, BITCOIN, "later"], "a newer version")] {
            let dir = tempfile::tempdir().unwrap();
            let mut options = Options::default();
            options.create_if_missing(true);
            options.create_missing_column_families(true);
            let db = DB::open_cf(&options, dir.path(), &of).unwrap();
            db.put(b"format", format.to_be_bytes()).unwrap();
            db.put(b"network", b"regtest:whatever it was then").unwrap();
            db.put_cf(db.cf_handle(SHARES).unwrap(), [7; 36], [7; 99]).unwrap();
            drop(db);
            let before = files(dir.path());
            let error = RocksKv::open(dir.path()).map(drop).unwrap_err();
            assert!(matches!(error, StoreError::WrongFormat { found, .. } if found == format), "{error}");
            assert!(error.to_string().contains(says), "{error}");
            let kv = RocksKv::open_read_only(dir.path()).unwrap();
            let error = crate::check::check(&kv, [1, 2], None, "d", &mut |_, _| {}).unwrap_err();
            assert!(matches!(error, StoreError::WrongFormat { found, .. } if found == format), "{error}");
            drop(kv);
            assert!(files(dir.path()) == before);
            // What `--resync` does.
            RocksKv::destroy(dir.path()).unwrap();
            assert!(!schema::has_format(&RocksKv::open(dir.path()).unwrap(), "d").unwrap());
        }
    }

    #[test]
    fn an_older_store_of_this_format_gains_what_it_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        let db = DB::open_cf(&options, dir.path(), [SHARES]).unwrap();
        db.put(b"format", schema::FORMAT.to_be_bytes()).unwrap();
        drop(db);
        let kv = RocksKv::open(dir.path()).unwrap();
        assert_eq!(kv.get(Family::Bitcoin, &[1]).unwrap(), None);
    }

    #[test]
    fn a_store_that_is_torn_or_held_is_deleted_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        let kv = RocksKv::open(&db).unwrap();
        assert!(matches!(RocksKv::destroy(&db), Err(StoreError::InUse(_))));
        drop(kv);
        fs::write(db.join("CURRENT"), b"MANIFEST-999999\n").unwrap();
        fs::write(db.join("notes.txt"), b"the user's").unwrap();
        RocksKv::destroy(&db).unwrap();
        assert_eq!(files(&db).into_keys().collect::<Vec<_>>(), [db.join("notes.txt")]);
        RocksKv::open(&db).unwrap();
        // There is nothing to be read where there is nothing, and nothing is made.
        assert!(matches!(RocksKv::open_read_only(&dir.path().join("none")), Err(StoreError::Open { .. })));
        assert!(!dir.path().join("none").exists());
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

    /// Rows of many files, as four weeks of shares are: what was read once is in memory, whichever file it is of.
    #[test]
    fn rows_of_many_files_stay_in_memory_once_they_were_read() {
        const FILES: u8 = 90;
        let dir = tempfile::tempdir().unwrap();
        let kv = RocksKv::open(dir.path()).unwrap();
        for file in 0..FILES {
            kv.write(&[Op::Put(Family::Shares, vec![file], vec![file; 900])], false).unwrap();
            kv.db.flush_cf(kv.family(Family::Shares).unwrap()).unwrap();
        }
        drop(kv);
        let kv = RocksKv::open(dir.path()).unwrap();
        assert!(kv.db.live_files().unwrap().len() > 60, "they were made one");
        for file in 0..FILES {
            assert_eq!(kv.get(Family::Shares, &[file]).unwrap(), Some(vec![file; 900]));
        }
        let cold = (0..FILES).filter(|file| kv.get_cached(Family::Shares, &[*file]).unwrap() == Cached::Unknown).count();
        assert_eq!(cold, 0, "of {FILES}");
    }
}
