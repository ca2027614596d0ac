//! The whole node on regtest, its rows in memory: everything that it does beside answering is counted, its stages' threads included.

use std::io;
use std::sync::Arc;

use rockpool::assemble;
use rockpool::config::Config;
use rockpool::exit::Failure;
use rockpool_store::kv::MemKv;

use crate::process::{announce, unclear};

pub fn serve(peers: usize) -> io::Result<()> {
    // Nothing is written there.
    let config = Config { max_peers: peers, ..Config::loopback("nowhere".into()) };
    let kv = Arc::new(MemKv::new());
    let bitcoin = assemble::bitcoin(&config, &*kv).map_err(failed)?;
    let node = assemble::build(&config, kv, bitcoin).map_err(failed)?;
    announce(node.listen().p2p.ok_or_else(|| unclear("the node's address"))?, || serde_json::Value::Null)?;
    node.run().map_err(failed)
}

fn failed(failure: Failure) -> io::Error {
    io::Error::other(failure.to_string())
}
