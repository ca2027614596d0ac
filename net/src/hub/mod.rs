//! (in work)
pub mod io;
pub mod tickets;
