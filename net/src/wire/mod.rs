//! (in work)
pub mod codec;
pub mod message;
pub mod share;
