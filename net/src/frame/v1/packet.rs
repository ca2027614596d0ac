//! The same messages as contents of v2 packets: one byte for a type that BIP324 has a number for, or a zero and the name's 12 bytes; then
//! the payload. No magic and no checksum: the packet's tag stands for both. What is in the house is v1 always; it is turned on its way out.

use super::{Dialect, Phase, V1};
use crate::frame::{Frame, FrameError};
use crate::limits::{HEADER_BYTES, UNASKED_BYTES_MAX, V2_TYPE_BYTES, VERSION_BYTES_MAX};
use crate::wire::message::Command;

/// Most bytes of contents of a packet that nobody asked for.
const UNASKED_PACKET_MAX: usize = V2_TYPE_BYTES + UNASKED_BYTES_MAX;

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
    // Every message that leaves is looked for here; these are nearly all that are many.
    match name {
        b"ping\0\0\0\0\0\0\0\0" => Some(18),
        b"pong\0\0\0\0\0\0\0\0" => Some(19),
        b"share\0\0\0\0\0\0\0" => None,
        _ => SHORT.iter().position(|known| *known == name).map(|at| at as u8 + 1),
    }
}

impl V1 {
    /// Most bytes of a packet's contents that may come now, judged by its length alone: what it is shows when all of it is there.
    pub fn packet_cap(&self) -> usize {
        let payload = match self.phase {
            Phase::AwaitVersion | Phase::AwaitVerack => VERSION_BYTES_MAX,
            // A Bitcoin node sends headers unasked too.
            Phase::Ready if self.dialect == Dialect::Bitcoin => self.dialect.cap(Command::BtcHeaders),
            // Mostly nothing is: this is asked for every packet.
            Phase::Ready if self.expected == [0; Command::ALL.len()] => UNASKED_BYTES_MAX,
            Phase::Ready => self.asked().map(Command::cap).fold(UNASKED_BYTES_MAX, usize::max),
        };
        V2_TYPE_BYTES + payload
    }

    /// The message of a packet's contents; none if it is of an unknown type.
    pub fn packet(&mut self, contents: &[u8]) -> Result<Option<Frame>, FrameError> {
        let (name, payload) = match contents {
            [0, rest @ ..] => match rest.split_first_chunk::<12>() {
                Some((name, payload)) => (name, payload),
                None => return self.unknown(contents.len()),
            },
            [number, payload @ ..] => match SHORT.get(usize::from(*number) - 1) {
                Some(name) => (*name, payload),
                None => return self.unknown(contents.len()),
            },
            [] => return self.unknown(0),
        };
        let command = self.allow(name, payload.len())?;
        if command == Command::Unknown {
            return self.unknown(contents.len());
        }
        self.passed(command);
        Ok(Some(Frame::Message { command, payload: payload.into(), checksum: None }))
    }

    /// A packet with so many bytes of contents says nothing. A long one may come only because something was asked for, and must be that: or
    /// one such packet after the other would pass for an answer on its way.
    pub fn nothing(&self, bytes: usize) -> Result<(), FrameError> {
        match self.dialect {
            Dialect::Rockpool if bytes > UNASKED_PACKET_MAX => Err(FrameError::NotAsked { command: Command::Unknown, bytes }),
            Dialect::Rockpool | Dialect::Bitcoin => Ok(()),
        }
    }

    /// What a packet with so many bytes of contents must be, if it can only be something that was asked for.
    pub fn arriving_packet(&self, bytes: usize) -> Option<Command> {
        self.asked().find(|command| self.may_be(bytes, *command))
    }

    /// Whether a packet with so many bytes of contents may be of this command, and can only be something that was asked for.
    pub fn may_be(&self, bytes: usize, command: Command) -> bool {
        self.expected[command as usize] > 0 && bytes > UNASKED_PACKET_MAX && bytes <= V2_TYPE_BYTES + command.cap()
    }

    fn asked(&self) -> impl Iterator<Item = Command> {
        Command::ALL.into_iter().filter(|command| self.expected[*command as usize] > 0)
    }

    fn unknown(&mut self, bytes: usize) -> Result<Option<Frame>, FrameError> {
        self.nothing(bytes)?;
        self.unknown = self.unknown.saturating_add(1);
        Ok(None)
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_few_numbers_are_as_bip324_has_them_and_all_read_back() {
        for (name, number) in
            [("addr", 1), ("block", 2), ("getdata", 11), ("inv", 14), ("ping", 18), ("pong", 19), ("tx", 21), ("addrv2", 28)]
        {
            let mut field = [0; 12];
            field[..name.len()].copy_from_slice(name.as_bytes());
            assert_eq!(short(&field), Some(number), "{name}");
        }
        for (at, name) in SHORT.into_iter().enumerate() {
            assert_eq!(short(name), Some(at as u8 + 1));
        }
        for command in [Command::Version, Command::Verack, Command::Share, Command::ShareHeaders, Command::BlockBody] {
            assert_eq!(short(&command.field()), None, "{command}");
        }
    }

    #[test]
    fn every_command_goes_over_as_a_packet() {
        let mut framer = V1::new([1; 4]);
        for command in [Command::Version, Command::Verack].into_iter().chain(Command::ALL.into_iter().skip(2)) {
            let mut contents = Vec::new();
            put(&mut contents, &command.field(), &[]);
            let frame = framer.packet(&contents).unwrap();
            let want = Frame::Message { command, payload: Box::default(), checksum: None };
            assert_eq!(frame, (command != Command::Unknown).then_some(want));
        }
    }

    #[test]
    fn a_run_of_messages_is_taken_apart_and_a_torn_one_is_left_out() {
        let message = |command: Command, payload: &[u8]| {
            [&[9; 4], &command.field()[..], &(payload.len() as u32).to_le_bytes(), &[0; 4], payload].concat()
        };
        let run = [message(Command::Ping, &[1; 8]), message(Command::Verack, &[]), message(Command::Share, &[2; 300])].concat();
        let names = |bytes: &[u8]| messages(bytes).map(|(name, payload)| (*name, payload.len())).collect::<Vec<_>>();
        let whole = [(Command::Ping.field(), 8), (Command::Verack.field(), 0), (Command::Share.field(), 300)];
        assert_eq!(names(&run), whole);
        assert_eq!(names(&run[..run.len() - 1]), whole[..2]);
        assert_eq!(names(&run[..10]), []);
    }
}
