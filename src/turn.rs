//! What a session may touch while it is dispatched: the moment, the way out, the jobs for the stages and the chain.

use rand_chacha::ChaCha12Rng;
use rockpool_net::hub::Outlet;
use rockpool_net::time::Now;
use rockpool_store::handle::ChainStoreHandle;
use rockpool_workers::jobs::{FetchJob, Jobs};

use crate::blocks::Blocks;
use crate::fetch::FetchLine;
use crate::node::NodeConfig;
use crate::status::Counters;
use crate::templates::Templates;

/// One dispatch.
pub struct Turn<'a> {
    /// The moment.
    pub now: Now,
    /// The way out: bytes, timers, tickets.
    pub out: &'a mut Outlet,
    /// Jobs for the stages, handed over when the turn ends.
    pub jobs: &'a mut Jobs,
    /// Words to the fetcher, which wait for its credit.
    pub fetch: &'a mut FetchLine,
    /// Lists of our newest shares.
    pub templates: &'a Templates,
    /// Found blocks.
    pub blocks: &'a mut Blocks,
    /// The chain.
    pub chain: &'a mut ChainStoreHandle,
    /// The node's generator.
    pub rng: &'a mut ChaCha12Rng,
    /// What the node was told at start.
    pub config: &'a NodeConfig,
    /// What is counted.
    pub counters: &'a Counters,
}

impl Turn<'_> {
    /// Says something to the fetcher; too much about shares is dropped and counted.
    pub fn say_fetcher(&mut self, job: FetchJob) {
        if self.fetch.say(job) {
            self.counters.fetch_dropped.add(1);
        }
    }
}
