//! The share chain: rules, index, payouts, rows and RocksDB.
//!
//! Opens no socket, spawns no thread, reads no clock. `rocksdb` is named in `rocks.rs` alone, behind the feature `rocks`.

pub mod bitcoin;
pub mod blocks;
pub mod chain;
pub mod check;
pub mod error;
pub mod figures;
pub mod gauges;
pub mod handle;
pub mod kv;
pub mod limits;
pub mod organised;
pub mod params;
pub mod payouts;
pub mod peers;
pub mod portfolios;
pub mod pplns;
pub mod record;
#[cfg(feature = "rocks")]
pub mod rocks;
pub mod rules;
pub mod schema;
pub mod table;
pub mod templates;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod view;
