//! Figures of the store itself, taken now and then by the thread that writes.

rockpool_net::counters! {
    /// What RocksDB tells of itself, all families together.
    Gauges {
        memtables: "bytes" Level, "Bytes of rows that are not yet in a table file.";
        immutable_memtables: "tables" Level, "Memtables that wait to be written to a table file.";
        block_cache: "bytes" Level, "Bytes of the cache in use, memtables among them.";
        block_cache_capacity: "bytes" Level, "Bytes that the cache may have.";
        pending_compaction: "bytes" Level, "Bytes that compactions have yet to rewrite, estimated.";
        live_data: "bytes" Level, "Bytes of rows that are in force, estimated.";
        table_files: "bytes" Level, "Bytes of table files in force.";
        files_level_0: "files" Level, "Table files of level 0.";
        files_level_1: "files" Level, "Table files of level 1.";
        files_level_2: "files" Level, "Table files of level 2.";
        files_level_3: "files" Level, "Table files of level 3.";
        files_level_4: "files" Level, "Table files of level 4.";
        files_level_5: "files" Level, "Table files of level 5.";
        files_level_6: "files" Level, "Table files of level 6.";
        running_flushes: "flushes" Level, "Memtables that are being written to a table file.";
        running_compactions: "compactions" Level, "Compactions that run.";
        writes_stopped: "yes or no" Level, "1 while RocksDB takes no writes until compactions have caught up.";
        delayed_write: "bytes a second" Level, "Bytes a second that RocksDB slows writes down to; 0 while it does not.";
        background_errors: "errors", "Flushes and compactions that failed.";
        free_space: "bytes" Level, "Bytes free on the disk of the data directory.";
    }
}

impl Gauges {
    /// Table files of a level.
    pub fn files(&self) -> [&rockpool_net::counters::Counter; 7] {
        [
            &self.files_level_0,
            &self.files_level_1,
            &self.files_level_2,
            &self.files_level_3,
            &self.files_level_4,
            &self.files_level_5,
            &self.files_level_6,
        ]
    }
}
