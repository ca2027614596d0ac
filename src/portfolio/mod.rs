//! Users' portfolios: what they own elsewhere and here, what it is worth, and how both came about. Off unless configured.

pub mod address;
pub mod book;
pub mod chains;
pub mod config;
pub mod desk;
mod keccak;
pub mod model;
pub mod seal;
mod text;
pub mod value;
