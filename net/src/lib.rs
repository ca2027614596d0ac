//! Bytes ⇄ messages, connections, limits, the hub and the reactor.
//!
//! Knows no disk, no rules and no jobs. `mio` is named in `reactor/` alone; everything else is pure and takes [`time::Now`].

pub mod close;
pub mod counters;
pub mod events;
pub mod frame;
pub mod hub;
pub mod id;
pub mod limits;
pub mod payload;
#[cfg(feature = "sim")]
pub mod pipes;
pub mod reactor;
pub mod sha256;
pub mod time;
pub mod times;
pub mod transport;
pub mod wire;
