//! The hub from outside: on the simulated network, and on real sockets.

#![expect(clippy::unwrap_used, reason = "tests")]

mod closing;
mod common;
mod deadlines;
mod far;
mod load;
mod loopback;
mod pieces;
mod pipes;
mod reading;
mod sockets;
mod tickets;
mod turns;
mod v2;
mod writing;
