//! Bitcoin's v1 messages for the contenders that are not ours, and for the load: as little as does the same honest work. The hash is the
//! house's, so that all contenders pay the same for a checksum.

use std::io;

use rockpool_net::limits::HEADER_BYTES;
use rockpool_net::sha256::Checksum;

/// Bitcoin's regtest: what all contenders speak but the whole node.
pub const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
/// Bytes of a `ping` or a `pong`.
pub const PING_BYTES: usize = HEADER_BYTES + 8;

pub const VERSION: &[u8; 12] = b"version\0\0\0\0\0";
pub const VERACK: &[u8; 12] = b"verack\0\0\0\0\0\0";
pub const PING: &[u8; 12] = b"ping\0\0\0\0\0\0\0\0";
pub const PONG: &[u8; 12] = b"pong\0\0\0\0\0\0\0\0";
pub const SHARE: &[u8; 12] = b"share\0\0\0\0\0\0\0";

/// Most bytes of a payload: over what bitcoind says unasked.
const PAYLOAD_MAX: usize = 64 << 10;

/// A message at the front of a buffer.
pub struct Cut<'a> {
    pub command: [u8; 12],
    pub checksum: [u8; 4],
    pub payload: &'a [u8],
    /// All its bytes.
    pub whole: &'a [u8],
}

/// The message at the front of these bytes, if all of it is there. Its checksum is the caller's to verify.
pub fn cut(bytes: &[u8], magic: [u8; 4]) -> io::Result<Option<Cut<'_>>> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let [m0, m1, m2, m3, name @ .., l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if [m0, m1, m2, m3] != magic || len > PAYLOAD_MAX {
        return Err(bad("header"));
    }
    let Some(whole) = bytes.get(..HEADER_BYTES + len) else { return Ok(None) };
    Ok(Some(Cut { command: name, checksum: [c0, c1, c2, c3], payload: &whole[HEADER_BYTES..], whole }))
}

/// Appends a message with this checksum.
pub fn put_with(out: &mut Vec<u8>, magic: [u8; 4], command: &[u8; 12], payload: &[u8], checksum: [u8; 4]) {
    out.extend_from_slice(&magic);
    out.extend_from_slice(command);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&checksum);
    out.extend_from_slice(payload);
}

/// Appends a message.
pub fn put(out: &mut Vec<u8>, magic: [u8; 4], command: &[u8; 12], payload: &[u8]) {
    put_with(out, magic, command, payload, checksum(payload));
}

pub fn checksum(payload: &[u8]) -> [u8; 4] {
    Checksum::default().finish(payload)
}

/// A `version` payload of who is nobody in particular.
pub fn version() -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend_from_slice(&70_016u32.to_le_bytes());
    // Services, time, and two addresses of services 8, IPv6 16, port 2: nothing that anyone looks at.
    payload.extend_from_slice(&[0; 8 + 8 + 26 + 26]);
    payload.extend_from_slice(&0x0123_4567_89ab_cdefu64.to_le_bytes());
    // No user agent, height 0, no transactions wanted.
    payload.extend_from_slice(&[0; 1 + 4 + 1]);
    payload
}

/// Answers all whole messages of these bytes into `out`; returns the bytes they took. What was asked to be passed on is given to `pass_on`,
/// encoded anew. Blind: checksums are neither verified nor computed.
pub fn answer(bytes: &[u8], blind: bool, out: &mut Vec<u8>, mut pass_on: impl FnMut(Vec<u8>)) -> io::Result<usize> {
    let mut used = 0;
    while let Some(message) = cut(&bytes[used..], MAGIC)? {
        used += message.whole.len();
        if !blind && checksum(message.payload) != message.checksum {
            return Err(bad("checksum"));
        }
        match &message.command {
            PING if blind => put_with(out, MAGIC, PONG, message.payload, [0; 4]),
            PING => put(out, MAGIC, PONG, message.payload),
            VERSION => {
                put(out, MAGIC, VERSION, &version());
                put(out, MAGIC, VERACK, &[]);
            }
            SHARE => {
                let mut share = Vec::with_capacity(message.whole.len());
                put(&mut share, MAGIC, SHARE, message.payload);
                pass_on(share);
            }
            _ => {}
        }
    }
    Ok(used)
}

pub fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("bad {what}"))
}
