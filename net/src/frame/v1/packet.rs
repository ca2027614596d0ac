//! The same messages as contents of v2 packets: one byte for a type that BIP324 has a number for, or a zero and the name's 12 bytes; then
//! the payload. No magic and no checksum: the packet's tag stands for both. What is in the house is v1 always; it is turned on its way out.

use super::{Dialect, Phase, V1};
use crate::frame::{Frame, FrameError};
use crate::limits::{HEADER_BYTES, UNASKED_BYTES_MAX, V2_PACKET_EXTRA, V2_TYPE_BYTES, VERSION_BYTES_MAX};
use crate::wire::message::Command;

/// BIP324's numbers of types, from 1.
const SHORT: [&[u8; 12]; 28] = [
    b"addr\0\0\0\0\0\0\0\0",
    b"block\0\0\0\0\0\0\0",
    b"blocktxn\0\0\0\0",
    b"cmpctblock\0\0",
    b"feefilter\0\0\0",
    b"filteradd\0\0\0",
    b"filterclear\0",
    b"filterload\0\0",
    b"getblocks\0\0\0",
    b"getblocktxn\0",
    b"getdata\0\0\0\0\0",
    b"getheaders\0\0",
    b"headers\0\0\0\0\0",
    b"inv\0\0\0\0\0\0\0\0\0",
    b"mempool\0\0\0\0\0",
    b"merkleblock\0",
    b"notfound\0\0\0\0",
    b"ping\0\0\0\0\0\0\0\0",
    b"pong\0\0\0\0\0\0\0\0",
    b"sendcmpct\0\0\0",
    b"tx\0\0\0\0\0\0\0\0\0\0",
    b"getcfilters\0",
    b"cfilters\0\0\0\0",
    b"getcfheaders",
    b"cfheaders\0\0\0",
    b"getcfcheckpt",
    b"cfcheckpt\0\0\0",
    b"addrv2\0\0\0\0\0\0",
];

/// The number of a name, if it has one.
fn short(name: &[u8; 12]) -> Option<u8> {
    SHORT.iter().position(|known| *known == name).map(|at| at as u8 + 1)
}

impl V1 {
    /// Most bytes of a packet's contents that may come now, judged by its length alone: what it is shows when all of it is there.
    pub fn packet_cap(&self) -> usize {
        let payload = match self.phase {
            Phase::AwaitVersion | Phase::AwaitVerack => VERSION_BYTES_MAX,
            // A Bitcoin node sends headers unasked too.
            Phase::Ready if self.dialect == Dialect::Bitcoin => self.dialect.cap(Command::BtcHeaders),
            Phase::Ready => self.asked().map(Command::cap).fold(UNASKED_BYTES_MAX, usize::max),
        };
        V2_TYPE_BYTES + payload
    }

    /// The message of a packet's contents; none if it is of an unknown type.
    pub fn packet(&mut self, contents: &[u8]) -> Result<Option<Frame>, FrameError> {
        let (name, payload) = match contents {
            [0, rest @ ..] => match rest.split_first_chunk::<12>() {
                Some((name, payload)) => (name, payload),
                None => return Ok(self.unknown()),
            },
            [number, payload @ ..] => match SHORT.get(usize::from(*number) - 1) {
                Some(name) => (*name, payload),
                None => return Ok(self.unknown()),
            },
            [] => return Ok(self.unknown()),
        };
        let command = self.allow(name, payload.len())?;
        if command == Command::Unknown {
            return Ok(self.unknown());
        }
        self.passed(command);
        Ok(Some(Frame::Message { command, payload: payload.into(), checksum: None }))
    }

    /// What a packet with so many bytes of contents must be, if it can only be something that was asked for.
    pub fn arriving_packet(&self, bytes: usize) -> Option<Command> {
        self.asked().find(|command| bytes <= V2_TYPE_BYTES + command.cap())
    }

    fn asked(&self) -> impl Iterator<Item = Command> {
        Command::ALL.into_iter().filter(|command| self.expected[*command as usize] > 0)
    }

    fn unknown(&mut self) -> Option<Frame> {
        self.unknown = self.unknown.saturating_add(1);
        None
    }
}

/// The v1 messages of these bytes: name and payload of each. They are our own, so what is not whole is nothing.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8; 12], &[u8])> {
    std::iter::from_fn(move || {
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
        let (name, [l0, l1, l2, l3, ..]) = header.get(4..)?.split_first_chunk::<12>()? else { return None };
        let (payload, rest) = rest.split_at_checked(u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize)?;
        bytes = rest;
        Some((name, payload))
    })
}

/// How many bytes these v1 messages are as packets.
pub(crate) fn sealed_bytes(bytes: &[u8]) -> usize {
    let contents = |(name, payload): (&[u8; 12], &[u8])| payload.len() + if short(name).is_some() { 1 } else { V2_TYPE_BYTES };
    messages(bytes).map(|message| V2_PACKET_EXTRA + contents(message)).sum()
}

/// Appends a message as a packet's contents.
pub(crate) fn put(out: &mut Vec<u8>, name: &[u8; 12], payload: &[u8]) {
    match short(name) {
        Some(number) => out.push(number),
        None => {
            out.push(0);
            out.extend_from_slice(name);
        }
    }
    out.extend_from_slice(payload);
}
