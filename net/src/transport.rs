//! How bytes are wrapped on their way over a connection: as they are, or by BIP324 ("v2"); later perhaps by TLS.
//!
//! In: bytes from the socket wait as they came, in the one buffer that is accounted, and are opened there in place when frames are cut.
//! Out: a payload waits in the outbox as it is, shared by all who get it, and becomes wire bytes only when the socket has room, since a
//! cipher's stream has one order and a connection that ends wastes no work.
//!
//! | file | what |
//! |---|---|
//! | `hello` | BIP324's handshake: keys, garbage, version |
//! | `v2` | BIP324's packets |

mod hello;
pub mod v2;

use std::fmt;

use crate::transport::v2::V2;

/// How a connection is wrapped, as people are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// Bytes as they are: Bitcoin's v1 messages, and everything that is no peer.
    V1,
    /// BIP324.
    V2,
}

impl fmt::Display for Wrapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wrapping::V1 => "v1",
            Wrapping::V2 => "v2",
        })
    }
}

/// The wrapping of one connection.
#[derive(Debug, Default)]
pub enum Transport {
    /// None: wire bytes are the payload's bytes.
    #[default]
    Plain,
    /// A peer that dialled us: its first bytes decide.
    Undecided,
    /// BIP324, from the first byte of its handshake on.
    V2(Box<V2>),
}

impl Transport {
    /// The wrapping that is settled, if one is.
    pub fn wrapping(&self) -> Option<Wrapping> {
        match self {
            Transport::Plain => Some(Wrapping::V1),
            Transport::Undecided => None,
            Transport::V2(v2) => v2.is_ready().then_some(Wrapping::V2),
        }
    }

    /// Whether what waits may become wire bytes. Until then nothing leaves but what the handshake itself says.
    pub fn is_ready(&self) -> bool {
        self.wrapping().is_some()
    }

    /// Whether a handshake of v2 has begun and is not done.
    pub fn is_opening(&self) -> bool {
        matches!(self, Transport::V2(v2) if !v2.is_ready())
    }

    /// The first bytes of who dialled us: plain if they are our network's magic, v2 from the first byte that is another. Whether they have
    /// decided; who dialled speaks first, so nothing is said before.
    ///
    /// BIP324 would have the whole header of `version` looked at, up to its length, before it is v1. But no key that begins with the magic
    /// is taken, neither by us nor by the crate; so that one dial in 2^32 fails, and who says `ping` first hears what is wrong with it.
    pub fn decide(&mut self, magic: [u8; 4], front: &[u8]) -> bool {
        if !matches!(self, Transport::Undecided) {
            return true;
        }
        let known = front.len().min(magic.len());
        if front[..known] != magic[..known] {
            *self = Transport::V2(Box::new(V2::accepted()));
        } else if known == magic.len() {
            *self = Transport::Plain;
        } else {
            return false;
        }
        true
    }
}

/// Why a v2 connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum V2Error {
    /// Whom we dialled answers in v1.
    #[error("it speaks v1")]
    SpeaksV1,
    /// The handshake's keys make no secret: never with keys that were drawn.
    #[error("no key")]
    Key,
    /// The end of the garbage did not come where it has to.
    #[error("no end of its garbage within 4,095 bytes")]
    Garbage,
    /// The handshake comes in so many pieces that looking at them is a burden.
    #[error("a handshake in too many pieces")]
    Pieces,
    /// A packet that was changed, or made without the key.
    #[error("a packet that does not verify")]
    Tag,
    /// A packet claims more than any message at this point may have.
    #[error("a packet of {bytes} bytes, at most {cap} are allowed here")]
    TooLong {
        /// What it claims.
        bytes: usize,
        /// The most allowed.
        cap: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: [u8; 4] = [0xf4, 0xc4, 0xb7, 0xd4];

    #[test]
    fn the_first_byte_that_is_not_the_magics_decides() {
        for at in 0..MAGIC.len() {
            let mut transport = Transport::Undecided;
            assert!(!transport.decide(MAGIC, &MAGIC[..at]), "{at} bytes of v1");
            let mut other = MAGIC;
            other[at] ^= 1;
            assert!(transport.decide(MAGIC, &other[..at + 1]) && transport.is_opening(), "byte {at}");
        }
        let mut transport = Transport::Undecided;
        assert!(transport.decide(MAGIC, &MAGIC) && transport.wrapping() == Some(Wrapping::V1));
    }
}
