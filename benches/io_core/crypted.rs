//! The load's peers in v2: they say and hear v1 messages, and a peer of the crate's own making stands between them and the wire.

use std::io;

use bip324::{PacketType, Role};
use rockpool_net::limits::HEADER_BYTES;

use crate::far::Far;
use crate::wire::{MAGIC, PING, PONG, SHARE, bad, put};

/// One peer's wrapping.
pub struct Crypted {
    far: Far,
    /// What waits for the handshake.
    waiting: Vec<u8>,
}

impl Crypted {
    /// A new one, and what it says first.
    pub fn begin(slot: usize) -> (Crypted, Vec<u8>) {
        let far = Far::new(Role::Initiator, MAGIC, 1 + (slot % 200) as u8, &[]);
        let hello = far.hello.clone();
        (Crypted { far, waiting: Vec::new() }, hello)
    }

    /// These v1 messages as wire bytes: none yet, if the handshake is not done.
    pub fn seal(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.waiting.extend_from_slice(bytes);
        if !self.far.is_ready() {
            return Vec::new();
        }
        let (mut wire, waiting) = (Vec::new(), std::mem::take(&mut self.waiting));
        let mut rest = &waiting[..];
        while let Some((header, after)) = rest.split_at_checked(HEADER_BYTES) {
            let len = u32::from_le_bytes([header[16], header[17], header[18], header[19]]) as usize;
            let (payload, after) = after.split_at(len);
            rest = after;
            let contents = match &header[4..16] {
                name if name == PING => [&[18], payload].concat(),
                name if name == PONG => [&[19], payload].concat(),
                name => [&[0], name, payload].concat(),
            };
            wire.extend(self.far.packet(&contents, PacketType::Genuine));
        }
        wire
    }

    /// Wire bytes as v1 messages, and what is to be said to them.
    pub fn open(&mut self, bytes: &[u8]) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let (mut says, packets) = self.far.feed(bytes);
        let mut plain = Vec::new();
        for contents in packets {
            let (name, payload): (&[u8; 12], _) = match &contents[..] {
                [18, payload @ ..] => (PING, payload),
                [19, payload @ ..] => (PONG, payload),
                [0, rest @ ..] => rest.split_first_chunk().ok_or_else(|| bad("packet"))?,
                _ => (SHARE, &[]),
            };
            put(&mut plain, MAGIC, name, payload);
        }
        says.extend(self.seal(&[]));
        Ok((plain, says))
    }
}
