//! Judgement: what a Rockpool node does with what it hears. Sessions (peers, miners, HTTP), dispatch, configuration and assembly.
//!
//! Nothing here blocks, and but for assembly nothing reads a clock or a socket: `node::Node` is driven by the hub's turn, in the node by
//! `mio` and threads, in the simulator by byte pipes and inline stages.

mod answers;
pub mod assemble;
pub mod bitcoin;
pub mod blocks;
pub mod cli;
pub mod config;
pub mod demo;
pub mod exit;
mod fetch;
pub mod http;
pub mod inspect;
pub mod journal;
pub mod limits;
pub mod logging;
pub mod miner;
pub mod miners;
pub mod node;
pub mod peer;
pub mod portfolio;
pub mod process;
mod rows;
pub mod run;
pub mod secret;
pub mod session;
pub mod shunned;
pub mod signals;
pub mod status;
pub mod stratum;
mod templates;
pub mod turn;
pub mod web;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod testing;
