//! The servers that are measured. All verify every checksum and compute their own, but the blind one.

mod epoll;
mod rockpool;
mod threads;
mod tokio;

use std::io;

use crate::process::bitcoind;

/// The floor: ratios are to it.
pub const FLOOR: &str = "epoll";
/// The house's.
pub const OURS: &str = "rockpool";
/// Does not verify, and is not verified.
pub const BLIND: &str = "epoll-blind";

/// All that are there.
pub fn all() -> Vec<&'static str> {
    let there = bitcoind().map(|_| "bitcoind");
    [OURS, FLOOR, BLIND, "threads", "tokio"].into_iter().chain(there).collect()
}

/// Serves until stdin ends.
pub fn serve(contender: &str, peers: usize) -> io::Result<()> {
    match contender {
        OURS => rockpool::serve(peers),
        FLOOR => epoll::serve(false),
        BLIND => epoll::serve(true),
        "threads" => threads::serve(),
        "tokio" => tokio::serve(),
        _ => Err(io::Error::other("no such contender")),
    }
}
