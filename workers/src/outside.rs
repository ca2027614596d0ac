//! Everything outside this process that is asked over HTTP: bitcoind, and what tells owners of portfolios what they have and what it is
//! worth. Nothing else may block on a socket.

pub mod bitcoind;
pub mod cache;
pub mod call;
#[cfg(any(test, feature = "testing"))]
pub mod fake;

pub use bitcoind::{BitcoindConfig, BitcoindMistake, Check};
pub(crate) use bitcoind::{submit, watch};
