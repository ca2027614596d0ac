//! What peers say to each other: messages and the share, with their one encoding.

mod addr;
pub mod bitcoin;
mod body;
pub mod codec;
mod command;
pub mod message;
#[cfg(test)]
pub(crate) mod sample;
pub mod share;

use thiserror::Error;

/// Why bytes are not what they should be, or why something cannot be encoded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// The bytes end before the value does.
    #[error("ends early: {wanted} bytes wanted, {left} left")]
    Short {
        /// Bytes that the value needs.
        wanted: usize,
        /// Bytes that are there.
        left: usize,
    },
    /// There are bytes after the value.
    #[error("{0} bytes too many")]
    Trailing(usize),
    /// A length is not in its shortest form.
    #[error("length not in its shortest form")]
    NotShortest,
    /// A list or text is longer than allowed.
    #[error("{what}: {count}, at most {max} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are claimed.
        count: u64,
        /// The most allowed.
        max: usize,
    },
    /// A field has a value that no sender should give it.
    #[error("bad {0}")]
    Bad(&'static str),
    /// This command is not known or carries nothing that could be read.
    #[error("unknown command")]
    Unknown,
}
