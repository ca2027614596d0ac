//! Miners who keep to the rules of the share chain and not to its customs, against honest ones.

pub mod chain;
pub mod chooser;
pub mod hopper;
pub mod miners;
pub mod rows;
pub mod selfish;
pub mod world;
