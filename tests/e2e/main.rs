//! Whole processes, real sockets, real RocksDB, a real bitcoind where there is one.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests of real processes, which own a clock")]

mod bad_input;
mod bitcoind;
mod browser;
mod browser_pipe;
mod browser_portfolio;
mod daemon;
mod demo;
mod foreign;
mod full_block;
mod kill;
mod kit;
mod line;
mod modes;
mod network;
mod outage;
mod portfolios;
mod proxy;
mod stall;
mod stop;
