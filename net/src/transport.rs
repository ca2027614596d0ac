//! How bytes are wrapped on their way over a connection: as they are, or later by BIP324 or TLS.
//!
//! In: bytes from the socket become plaintext for the framer. Out: a payload waits in the outbox as it is, shared by all who get it, and
//! becomes wire bytes only when the socket has room, since a cipher's stream has one order and a connection that ends wastes no work.

use crate::close::CloseReason;
use crate::hub::outbox::Entry;

/// The wrapping of one connection.
#[derive(Debug, Default)]
pub enum Transport {
    /// None: wire bytes are the payload's bytes.
    #[default]
    Plain,
}

impl Transport {
    /// Takes bytes from the socket and appends the plaintext that they complete.
    pub fn open(&mut self, wire: &[u8], plain: &mut Vec<u8>) -> Result<(), CloseReason> {
        match self {
            Transport::Plain => plain.extend_from_slice(wire),
        }
        Ok(())
    }

    /// Turns an outbox's next entry into its wire bytes. Called once per entry, in their order, just before its first byte is written.
    pub fn seal(&mut self, entry: Entry) -> Entry {
        match self {
            Transport::Plain => entry,
        }
    }
}
