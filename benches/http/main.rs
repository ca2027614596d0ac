//! HTTP measured: what the node's server answers while it mines, what that does to miners, what event streams cost, and how many users
//! may look at their portfolios.
//!
//! The server is a whole node in a process of its own, on a processor of its own where there are two, as the bench of Stratum has it: rows
//! in memory, a bitcoind that this process plays, a share chain whose next share is dear. A process of two more nodes is connected to it.
//! The load is one thread on one epoll: HTTP clients, streams, and a miner who submits a hundred times a second and is told how long each
//! answer took. A loop that does nothing but answer the same bytes tells what the machine itself allows.
//!
//! `--only TEXT` measures the rows alone whose name holds it; `--quick` takes fewer and shorter rounds.

mod bare;
#[path = "../stratum/bitcoind.rs"]
#[expect(dead_code, reason = "Stratum's bench asks for new blocks")]
mod bitcoind;
#[path = "../stratum/chain.rs"]
mod chain;
#[path = "../stratum/figures.rs"]
mod figures;
mod load;
#[path = "../stratum/miner.rs"]
#[expect(dead_code, reason = "Stratum's bench has miners of every form")]
mod miner;
mod node;
mod portfolios;
mod probe;
#[path = "../stratum/process.rs"]
#[expect(dead_code, reason = "Stratum's bench counts files")]
mod process;
#[path = "../report/mod.rs"]
mod report;
mod requests;
mod streams;

use std::error::Error;

use crate::report::{Asked, Figure, asked, print};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A group of rows.
type Group = fn(&Asked) -> Outcome<Vec<Figure>>;

/// Names of the groups, for `--only`, and how each is measured.
const GROUPS: [(&str, Group); 3] = [("requests", requests::figures), ("streams", streams::figures), ("portfolios", portfolios::figures)];

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().collect();
    let after = |flag: &str| args.iter().position(|arg| arg == flag).and_then(|at| args.get(at + 1));
    process::raise_files();
    if let Some(word) = after(node::ROLE) {
        return node::play(word);
    }
    if let Some(word) = after(node::PEERS_ROLE) {
        return node::play_peers(word);
    }
    if let Some(count) = after(bare::ROLE) {
        return bare::play(count.parse()?);
    }
    let only = after("--only").map_or("", |only| only);
    let asked = asked();
    process::pin(process::LOAD_CORE);
    let mut figures = Vec::new();
    for (_, group) in GROUPS.iter().filter(|(name, _)| name.contains(only)) {
        figures.extend(group(&asked)?);
    }
    print(&asked, &figures);
    Ok(())
}
