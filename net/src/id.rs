//! Names of things: connections, lanes, shares.

use std::fmt;

/// A connection. Slots are reused, so an answer that comes back late is told from the slot's next tenant by the generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// Index into the hub's slab.
    pub slot: u32,
    /// Counts the tenants of the slot, from 1.
    pub generation: u32,
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// Who speaks on a connection. Each lane has its own tickets and limits, so that none starves another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Another Rockpool node.
    Peer,
    /// A miner.
    Stratum,
    /// A browser, a script, a metrics scraper.
    Http,
    /// A node of Bitcoin's own network, always dialled by us.
    Bitcoin,
}

impl Lane {
    /// All lanes, in the order of their tables.
    pub const ALL: [Lane; 4] = [Lane::Peer, Lane::Stratum, Lane::Http, Lane::Bitcoin];
}

/// The id of a share: the SHA256d of its Bitcoin header, bytes as hashed (shown reversed, as Bitcoin shows hashes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareId(pub [u8; 32]);

impl fmt::Display for ShareId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().rev().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
