//! What can go wrong with the store, and what to do about it.

use thiserror::Error;

/// A store's failure.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another process holds the directory.
    #[error("data directory {0} is in use by another process; stop it or give another --datadir")]
    InUse(String),
    /// The rows are of another network.
    #[error("data directory {dir} belongs to network {found}, not {wanted}; give another --datadir")]
    WrongNetwork {
        /// The directory.
        dir: String,
        /// The network of its rows.
        found: String,
        /// The network asked for.
        wanted: String,
    },
    /// The rows are of a format that this version does not read.
    #[error("data directory {dir} has format {found}, this version reads {wanted}; {}", other_format(*found, *wanted))]
    WrongFormat {
        /// The directory.
        dir: String,
        /// Its format.
        found: u32,
        /// Ours.
        wanted: u32,
    },
    /// Something cannot be opened, the user can mend it.
    #[error("cannot open data directory {dir}: {why}")]
    Open {
        /// The directory.
        dir: String,
        /// What the system says.
        why: String,
    },
    /// A row does not decode or contradicts another.
    #[error("the store is damaged: {0}; `rockpool run --resync` deletes the share chain and fetches it anew")]
    Damaged(String),
    /// The disk is full: writes can be repeated when there is room.
    #[error("the disk is full")]
    NoSpace,
    /// Reading or writing failed; what is in memory must not be trusted over the disk.
    #[error("the disk failed: {0}")]
    Disk(String),
}

/// What to do about a format that is not ours. There is no migration: a share chain is fetched anew within minutes.
fn other_format(found: u32, wanted: u32) -> &'static str {
    if found > wanted {
        "use a newer version of rockpool"
    } else {
        "`rockpool run --resync` deletes its share chain and fetches it anew, or use the version that wrote it"
    }
}
