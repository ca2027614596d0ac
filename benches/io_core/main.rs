//! The network core against the floor: a bare epoll loop, a thread per peer, tokio, and bitcoind where `BITCOIND_EXE` names one. Each serves
//! in a process of its own; all are put the same load by this one, in turn, in one run.
//!
//! `--only TEXT` measures the rows alone whose name holds it.

#![allow(dead_code, unused_imports)]

mod client;
mod contenders;
mod process;
#[path = "../report/mod.rs"]
mod report;
mod rows;
mod wire;

use std::io;

use crate::report::{Asked, Figure, asked, print};
use crate::rows::{Effort, PING_PONG};

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--serve") {
        let peers = args.get(at + 2).and_then(|peers| peers.parse().ok()).unwrap_or_default();
        return contenders::serve(&args[at + 1], peers);
    }
    let asked = asked();
    let only = args.iter().position(|arg| arg == "--only").and_then(|at| args.get(at + 1));
    process::raise_files();
    let figures = figures(&asked, only.map_or("", |only| only))?;
    print(&asked, &figures);
    Ok(())
}

fn figures(asked: &Asked, only: &str) -> io::Result<Vec<Figure>> {
    let effort = Effort::of(asked);
    let mut figures = Vec::new();
    for row in PING_PONG.iter().filter(|row| row.name().contains(only)) {
        figures.extend(row.figures(&effort)?);
    }
    Ok(figures)
}
