//! The stages as pure steps, the one thread runner, and `outside`, the one file that may block on a socket.

pub mod callers;
mod credits;
pub mod crew;
pub mod embedded;
pub mod emission;
pub mod fetcher;
pub mod jobs;
pub mod limits;
pub mod organise;
pub mod outside;
mod pending;
pub mod policy;
pub mod reader;
pub mod template;
#[cfg(test)]
mod testing;
pub mod trim;
pub mod work;
pub mod writer;
