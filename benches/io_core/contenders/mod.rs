//! The servers that are measured. All verify every checksum and compute their own, but the blind one.

mod epoll;
mod node;
mod rockpool;
mod threads;
mod tokio;

use std::io;

use rockpool_store::params::{Network, params};

use crate::client::Manner;
use crate::process::bitcoind;
use crate::wire::MAGIC;

/// The floor: ratios are to it.
pub const FLOOR: &str = "epoll";
/// The house's.
pub const OURS: &str = "rockpool";
/// The same, its peers in v2.
pub const V2: &str = "rockpool v2";
/// Does not verify, and is not verified.
pub const BLIND: &str = "epoll-blind";

/// The house's as a whole node, of which the above is the core.
pub const NODE: &str = "whole node";
/// Where there is one.
pub const BITCOIND: &str = "bitcoind";

/// All that are there.
pub fn all() -> Vec<&'static str> {
    let there = bitcoind().map(|_| BITCOIND);
    [OURS, V2, FLOOR, BLIND, "threads", "tokio", NODE].into_iter().chain(there).collect()
}

/// What one speaks.
pub fn manner(contender: &str) -> Manner {
    let magic = if contender == NODE { params(Network::Regtest).magic } else { MAGIC };
    Manner { magic, blind: contender == BLIND, v2: contender == V2 }
}

/// Serves until stdin ends.
pub fn serve(contender: &str, peers: usize) -> io::Result<()> {
    match contender {
        OURS | V2 => rockpool::serve(peers),
        FLOOR => epoll::serve(false),
        BLIND => epoll::serve(true),
        "threads" => threads::serve(),
        "tokio" => tokio::serve(),
        NODE => node::serve(peers),
        _ => Err(io::Error::other("no such contender")),
    }
}
