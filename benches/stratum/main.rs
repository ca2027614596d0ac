//! Stratum measured: what a submit costs the server, what miners cost in memory, how fast they connect and hear of new work.
//!
//! The server is a whole node in a process of its own, on a processor of its own where there are two: reactor, hub, sessions, emission and
//! all other stages, over rows in memory. It mines on a bitcoind that this process plays, whose templates hold 2,500 transactions, and on
//! a share chain of 400 payees, so that every class pays as many outputs as it may. The next share of that chain is as dear as on main, so
//! what miners submit only counts, as nearly all they ever submit does.
//!
//! `--only TEXT` measures the rows alone whose name holds it; `--quick` takes fewer submits, and of the forms the smallest and the largest.

mod bare;
mod bitcoind;
mod chain;
mod crowd;
mod fan_out;
mod figures;
mod memory;
mod miner;
mod node;
#[expect(dead_code, reason = "the bench of HTTP unpins threads")]
mod process;
#[path = "../report/mod.rs"]
mod report;
mod submits;

use std::error::Error;

use crate::report::{Asked, Figure, asked, print};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A group of rows.
type Group = fn(&Asked) -> Outcome<Vec<Figure>>;

/// Names of the groups, for `--only`, and how each is measured.
const GROUPS: [(&str, Group); 5] = [
    ("submits in batches", submits::batches),
    ("submits one by one", submits::one_by_one),
    ("memory", memory::figures),
    ("crowd of 5,000", fan_out::five_thousand),
    ("crowd of 10,000", fan_out::ten_thousand),
];

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().collect();
    let after = |flag: &str| args.iter().position(|arg| arg == flag).and_then(|at| args.get(at + 1));
    process::raise_files();
    if let Some(bitcoind) = after(node::ROLE) {
        return node::play(bitcoind);
    }
    if let Some(count) = after(bare::ROLE) {
        return bare::play(count.parse()?);
    }
    if let Some(count) = after(bare::ECHO_ROLE) {
        return bare::echo(count.parse()?);
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
