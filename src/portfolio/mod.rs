//! Users' portfolios: what they own elsewhere and here, what it is worth, and how both came about. Off unless configured.

pub mod book;
pub mod chains;
pub mod config;
pub mod model;
mod text;
