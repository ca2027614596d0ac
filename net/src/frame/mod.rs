//! (in work)
pub mod http;
pub mod line;
pub mod v1;
