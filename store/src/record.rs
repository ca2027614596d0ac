//! What the chain index keeps of a share: everything the rules ask of an ancestor, without the proof.

use rockpool_net::id::ShareId;
use rockpool_net::wire::share::{Class, Script};

/// One share of the index. Shared between the organiser's index and the reactor's view, never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its id.
    pub id: ShareId,
    /// The share it builds on.
    pub parent: ShareId,
    /// Height; genesis is 0.
    pub height: u32,
    /// Seconds that the chain runs ahead of its schedule.
    pub lead: u32,
    /// The sum that decides between branches.
    pub score: u128,
    /// Its own target, compact.
    pub bits: u32,
    /// Work of its own target.
    pub work: u128,
    /// Work of the easiest target that was allowed to it.
    pub demand: u128,
    /// Share time, Unix seconds.
    pub time: u32,
    /// Who is paid.
    pub script: Script,
    /// Coinbase class.
    pub class: Class,
    /// Uncles it credits.
    pub uncles: Box<[ShareId]>,
    /// Parent of the Bitcoin header.
    pub bitcoin_prev: [u8; 32],
    /// Height of the Bitcoin block that it tried to be.
    pub bitcoin_height: u32,
    /// Target of the Bitcoin header, compact.
    pub bitcoin_bits: u32,
}
