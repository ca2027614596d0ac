//! The network core against the floor: a bare epoll loop, a thread per peer, tokio, and bitcoind where `BITCOIND_EXE` names one. Each serves
//! in a process of its own; all are put the same load by this one, in turn, in one run. Then a whole node under attack.
//!
//! `--only TEXT` measures the rows alone whose name holds it.

mod attack;
mod client;
mod contenders;
mod crypted;
#[path = "../../net/tests/hub/far.rs"]
#[expect(clippy::unwrap_used, dead_code, reason = "a peer of the tests")]
mod far;
mod process;
#[path = "../report/mod.rs"]
mod report;
mod rounds;
mod rows;
mod wire;

use std::io;

use crate::report::{asked, print};

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let after = |flag: &str| args.iter().position(|arg| arg == flag).and_then(|at| args.get(at + 1..));
    // What a server of this bench is started with.
    if let Some([contender, peers, ..]) = after("--serve") {
        return contenders::serve(contender, peers.parse().map_err(io::Error::other)?);
    }
    if attack::played() {
        return Ok(());
    }
    let asked = asked();
    let only = after("--only").and_then(|rest| rest.first());
    process::raise_files();
    let only = only.map_or("", |only| only);
    let mut figures = rows::figures(&asked, only)?;
    if only.is_empty() || "attack".contains(only) {
        figures.extend(attack::figures(&asked));
    }
    print(&asked, &figures);
    Ok(())
}
