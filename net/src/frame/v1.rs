//! Bitcoin's P2P v1 messages: magic 4 · command 12 · length 4 · checksum 4 · payload.
//!
//! What the header claims is judged before the payload arrives, by command and by how far the handshake is. The checksum is computed as
//! bytes arrive, so that the last ones of a large message cost no more than the first.

pub(crate) mod packet;

use super::{Cut, Frame, FrameError};
use crate::limits::{HEADER_BYTES, UNASKED_BYTES_MAX};
use crate::sha256::Checksum;
use crate::wire::bitcoin;
use crate::wire::message::Command;

/// Cuts the messages of one connection.
#[derive(Clone, Debug)]
pub struct V1 {
    magic: [u8; 4],
    dialect: Dialect,
    phase: Phase,
    state: State,
    /// Askings not yet answered, by command.
    expected: [u8; Command::ALL.len()],
    unknown: u32,
}

/// Which commands there are, and how long each may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// This node's peers.
    Rockpool,
    /// Nodes of Bitcoin's own network: its names, caps and manners. Before `verack` they say what they can, in messages that are skipped;
    /// no asking is needed, since all that is long comes from nodes that the user chose.
    Bitcoin,
}

/// How far the handshake is. The framer keeps it itself: what a peer sends after its `verack` may lie in the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    AwaitVersion,
    AwaitVerack,
    Ready,
}

#[derive(Clone, Debug)]
enum State {
    Header,
    /// The header stands at the front of the buffer and is accepted, and its payload is not whole.
    Body(Box<Body>),
    /// Bytes left of an unknown message, its header's at first.
    Skip(usize),
}

/// What a header claims, and the checksum so far.
#[derive(Clone, Copy, Debug)]
struct Body {
    command: Command,
    len: usize,
    claimed: [u8; 4],
    checksum: Checksum,
}

/// What follows an accepted header.
enum Next {
    Body(Body),
    Skip(usize),
}

impl V1 {
    /// A connection of the network with this magic, before the handshake.
    pub fn new(magic: [u8; 4]) -> V1 {
        V1 {
            magic,
            dialect: Dialect::Rockpool,
            phase: Phase::AwaitVersion,
            state: State::Header,
            expected: [0; Command::ALL.len()],
            unknown: 0,
        }
    }

    /// A connection to a node of Bitcoin's own network with this magic, before the handshake.
    pub fn bitcoin(magic: [u8; 4]) -> V1 {
        V1 { dialect: Dialect::Bitcoin, ..V1::new(magic) }
    }

    /// The network's magic.
    pub fn magic(&self) -> [u8; 4] {
        self.magic
    }

    /// The next message, if all of it is there.
    pub fn cut(&mut self, buf: &[u8]) -> Result<Cut, FrameError> {
        match &mut self.state {
            State::Header => self.header(buf),
            State::Skip(left) => {
                let skipped = buf.len().min(*left);
                *left -= skipped;
                if *left == 0 {
                    self.state = State::Header;
                }
                Ok(if skipped == 0 { Cut::Need(1) } else { Cut::Skip(skipped) })
            }
            State::Body(body) => {
                let whole = HEADER_BYTES + body.len;
                if buf.len() < whole {
                    body.checksum.feed(buf.get(HEADER_BYTES..).unwrap_or_default());
                    return Ok(Cut::Need(whole));
                }
                let body = **body;
                self.state = State::Header;
                self.whole(&body, buf)
            }
        }
    }

    /// A message begins.
    fn header(&mut self, buf: &[u8]) -> Result<Cut, FrameError> {
        // Judged before the rest of the header is there: whoever speaks another language may not have 24 bytes to say.
        if let Some(&magic) = buf.first_chunk().filter(|&magic| *magic != self.magic) {
            return Err(FrameError::Magic(magic));
        }
        let Some(header) = buf.first_chunk() else { return Ok(Cut::Need(HEADER_BYTES)) };
        match self.judge(header)? {
            Next::Body(body) if buf.len() >= HEADER_BYTES + body.len => self.whole(&body, buf),
            Next::Body(body) => {
                self.state = State::Body(Box::new(body));
                self.cut(buf)
            }
            Next::Skip(bytes) => {
                self.state = State::Skip(bytes);
                self.cut(buf)
            }
        }
    }

    /// All of a message is there.
    fn whole(&mut self, body: &Body, buf: &[u8]) -> Result<Cut, FrameError> {
        let (command, whole) = (body.command, HEADER_BYTES + body.len);
        let payload = buf.get(HEADER_BYTES..whole).unwrap_or_default();
        if body.checksum.finish(payload) != body.claimed {
            return Err(FrameError::Checksum(command));
        }
        self.passed(command);
        Ok(Cut::Frame { frame: Frame::Message { command, payload: payload.into(), checksum: Some(body.claimed) }, used: whole })
    }

    /// See [`Framer::set_ready`](super::Framer::set_ready).
    pub fn set_ready(&mut self) {
        self.phase = Phase::Ready;
    }

    /// See [`Framer::expect`](super::Framer::expect).
    pub fn expect(&mut self, command: Command) {
        let expected = &mut self.expected[command as usize];
        *expected = expected.saturating_add(1);
    }

    /// See [`Framer::arriving`](super::Framer::arriving).
    pub fn arriving(&self) -> Option<Command> {
        match self.state {
            State::Body(ref body) => Some(body.command),
            State::Header | State::Skip(_) => None,
        }
    }

    /// See [`Framer::take_unknown`](super::Framer::take_unknown).
    pub fn take_unknown(&mut self) -> u32 {
        std::mem::take(&mut self.unknown)
    }

    /// What follows this header, whose magic is right.
    fn judge(&mut self, header: &[u8; HEADER_BYTES]) -> Result<Next, FrameError> {
        let mut name = [0; 12];
        name.copy_from_slice(&header[4..16]);
        let len = u32::from_le_bytes([header[16], header[17], header[18], header[19]]);
        let claimed = [header[20], header[21], header[22], header[23]];
        let bytes = usize::try_from(len).unwrap_or(usize::MAX);
        let command = self.allow(&name, bytes)?;
        if command == Command::Unknown {
            self.unknown = self.unknown.saturating_add(1);
            return Ok(Next::Skip(HEADER_BYTES + bytes));
        }
        Ok(Next::Body(Body { command, len: bytes, claimed, checksum: Checksum::default() }))
    }

    /// What a message of this name is, if it may come now and be so long.
    fn allow(&self, name: &[u8; 12], bytes: usize) -> Result<Command, FrameError> {
        let command = self.dialect.command(name).ok_or(FrameError::Command(*name))?;
        let cap = self.dialect.cap(command);
        if !self.in_turn(command) {
            return Err(FrameError::OutOfTurn(command));
        }
        if bytes > cap {
            return Err(FrameError::TooLong { command, bytes, cap });
        }
        if command != Command::Unknown
            && bytes > UNASKED_BYTES_MAX
            && self.expected[command as usize] == 0
            && self.dialect == Dialect::Rockpool
        {
            return Err(FrameError::NotAsked { command, bytes });
        }
        Ok(command)
    }

    fn in_turn(&self, command: Command) -> bool {
        match self.phase {
            Phase::AwaitVersion => command == Command::Version,
            Phase::AwaitVerack => command == Command::Verack || (command == Command::Unknown && self.dialect == Dialect::Bitcoin),
            Phase::Ready => !matches!(command, Command::Version | Command::Verack),
        }
    }

    fn passed(&mut self, command: Command) {
        let expected = &mut self.expected[command as usize];
        *expected = expected.saturating_sub(1);
        match command {
            Command::Version => self.phase = Phase::AwaitVerack,
            Command::Verack => self.phase = Phase::Ready,
            _ => {}
        }
    }
}

impl Dialect {
    fn command(self, field: &[u8; 12]) -> Option<Command> {
        match self {
            Dialect::Rockpool => Command::from_field(field),
            Dialect::Bitcoin => bitcoin::command(field),
        }
    }

    fn cap(self, command: Command) -> usize {
        match self {
            Dialect::Rockpool => command.cap(),
            Dialect::Bitcoin => bitcoin::cap(command),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::super::{Framer, tests::frames};
    use super::*;
    use crate::limits::{SHARE_BYTES_MAX, SHARE_HEADERS_BYTES_MAX, UNKNOWN_BYTES_MAX};
    use crate::sha256::sha256d;
    use crate::wire::message::Message;
    use crate::wire::sample::{messages, share, version};

    const MAGIC: [u8; 4] = [0xf4, 0xc4, 0xb7, 0xd4];

    fn ready() -> Framer {
        let mut framer = Framer::v1(MAGIC);
        framer.set_ready();
        framer
    }

    fn message(name: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut bytes = claim(name, payload.len() as u32);
        bytes[20..].copy_from_slice(&sha256d(payload)[..4]);
        [&bytes[..], payload].concat()
    }

    /// A header that claims so many bytes.
    fn claim(name: &[u8], bytes: u32) -> Vec<u8> {
        let mut field = [0; 12];
        field[..name.len()].copy_from_slice(name);
        [&MAGIC[..], &field, &bytes.to_le_bytes(), &[0; 4]].concat()
    }

    fn parts(frames: Vec<Frame>) -> Vec<(Command, Box<[u8]>)> {
        let part = |frame| match frame {
            Frame::Message { command, payload, checksum } => {
                assert_eq!(checksum.unwrap()[..], sha256d(&payload)[..4]);
                (command, payload)
            }
            other => panic!("{other:?}"),
        };
        frames.into_iter().map(part).collect()
    }

    #[test]
    fn every_message_cut_at_every_offset_gives_the_same_frames() {
        let (mut stream, mut want) = (Vec::new(), Vec::new());
        let others = messages().into_iter().filter(|message| !matches!(message, Message::Version(_) | Message::Verack));
        for message in [Message::Version(version()), Message::Verack].into_iter().chain(others) {
            let bytes = message.encode(MAGIC).unwrap().bytes().to_vec();
            want.push((message.command(), Box::from(&bytes[HEADER_BYTES..])));
            stream.extend(bytes);
        }
        assert_eq!(frames(&mut Framer::v1(MAGIC), &[&stream]).map(parts), Ok(want.clone()));
        for at in 0..=stream.len() {
            let (front, rest) = stream.split_at(at);
            assert_eq!(frames(&mut Framer::v1(MAGIC), &[front, rest]).map(parts), Ok(want.clone()), "cut at {at}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(frames(&mut Framer::v1(MAGIC), &bytes).map(parts), Ok(want.clone()));
        for (command, payload) in &want {
            assert!(Message::decode(*command, payload).is_ok(), "{command}");
        }
    }

    #[test]
    fn nothing_but_the_handshake_before_it_and_no_handshake_after_it() {
        let say = |message: Message| message.encode(MAGIC).unwrap().bytes().to_vec();
        let (hello, verack, ping) = (say(Message::Version(version())), say(Message::Verack), say(Message::Ping(1)));
        for command in Command::ALL {
            let name = command.name().as_bytes();
            let outcome = |before: &[&[u8]]| {
                let mut framer = Framer::v1(MAGIC);
                frames(&mut framer, before).unwrap();
                framer.cut(&claim(name, 1 << 20)).err()
            };
            let out_of_turn = Some(FrameError::OutOfTurn(command));
            assert_eq!(outcome(&[]) == out_of_turn, command != Command::Version, "{command} first");
            assert_eq!(outcome(&[&hello]) == out_of_turn, command != Command::Verack, "{command} after version");
            let handshake = matches!(command, Command::Version | Command::Verack);
            assert_eq!(outcome(&[&hello, &verack]) == out_of_turn, handshake, "{command} after verack");
        }
        let whole = [hello, verack, ping].concat();
        assert_eq!(frames(&mut Framer::v1(MAGIC), &[&whole]).map(|frames| frames.len()), Ok(3));
    }

    #[test]
    fn each_cap_is_reached_and_one_byte_more_is_refused_at_the_header() {
        for command in Command::ALL.into_iter().filter(|command| !matches!(command, Command::Version | Command::Verack)) {
            let name = command.name().as_bytes();
            let mut framer = ready();
            framer.expect(command);
            framer.expect(command);
            let largest = message(name, &vec![7; command.cap()]);
            let frames = frames(&mut framer, &[&largest]).unwrap();
            assert_eq!(frames.len(), usize::from(command != Command::Unknown), "{command}");
            let (bytes, cap) = (command.cap() + 1, command.cap());
            assert_eq!(framer.cut(&claim(name, bytes as u32)), Err(FrameError::TooLong { command, bytes, cap }));
            let bytes = u32::MAX as usize;
            assert_eq!(framer.cut(&claim(name, u32::MAX)), Err(FrameError::TooLong { command, bytes, cap }));
        }
        assert_eq!(Framer::v1(MAGIC).cut(&claim(b"version", 1 << 10)), Ok(Cut::Need(HEADER_BYTES + 1024)));
        assert!(matches!(Framer::v1(MAGIC).cut(&claim(b"version", 1025)), Err(FrameError::TooLong { .. })));
        assert!(matches!(ready().cut(&claim(b"share", SHARE_BYTES_MAX as u32 + 1)), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn a_large_message_needs_an_asking_and_each_answer_uses_one_up() {
        let large = claim(b"shareheaders", UNASKED_BYTES_MAX as u32 + 1);
        let not_asked = FrameError::NotAsked { command: Command::ShareHeaders, bytes: UNASKED_BYTES_MAX + 1 };
        assert_eq!(ready().cut(&large), Err(not_asked.clone()));
        assert_eq!(ready().cut(&claim(b"shareheaders", UNASKED_BYTES_MAX as u32)), Ok(Cut::Need(HEADER_BYTES + UNASKED_BYTES_MAX)));

        let mut framer = ready();
        framer.expect(Command::Inv);
        assert_eq!(framer.cut(&large), Err(not_asked.clone()), "another command's asking");

        let whole = message(b"shareheaders", &vec![0; SHARE_HEADERS_BYTES_MAX]);
        let mut framer = ready();
        framer.expect(Command::ShareHeaders);
        framer.expect(Command::ShareHeaders);
        let small = message(b"shareheaders", &[0]);
        assert_eq!(frames(&mut framer, &[&small, &whole]).map(|frames| frames.len()), Ok(2));
        assert_eq!(framer.cut(&large), Err(not_asked));
    }

    #[test]
    fn another_magic_is_refused_before_the_header_is_whole() {
        let mut bytes = message(b"version", &[0; 86]);
        assert_eq!(Framer::v1([0xf1, 0xc4, 0xb7, 0xd1]).cut(&bytes), Err(FrameError::Magic(MAGIC)));
        assert_eq!(Framer::v1(MAGIC).cut(b"GET "), Err(FrameError::Magic(*b"GET ")));
        assert_eq!(Framer::v1(MAGIC).cut(&bytes[..4]), Ok(Cut::Need(HEADER_BYTES)));
        bytes[3] ^= 1;
        assert_eq!(Framer::v1(MAGIC).cut(&bytes[..4]), Err(FrameError::Magic([0xf4, 0xc4, 0xb7, 0xd5])));
    }

    #[test]
    fn a_wrong_checksum_or_command_is_refused() {
        let good = message(b"share", &share().encode());
        for bit in 20 * 8..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ready().cut(&bytes), Err(FrameError::Checksum(Command::Share)), "bit {bit}");
        }
        let name = *b"pi\x01g\0\0\0\0\0\0\0\0";
        assert_eq!(ready().cut(&claim(&name, 8)), Err(FrameError::Command(name)));
    }

    #[test]
    fn unknown_messages_are_skipped_as_they_arrive_and_counted() {
        let unknown = message(b"getblocks", &vec![7; UNKNOWN_BYTES_MAX]);
        let stream = [unknown, message(b"sendaddrv2", b""), message(b"ping", &[1; 8])].concat();
        for step in [1, 13, 1000, stream.len()] {
            let mut framer = ready();
            let chunks: Vec<&[u8]> = stream.chunks(step).collect();
            let got = frames(&mut framer, &chunks).map(parts);
            assert_eq!(got, Ok(vec![(Command::Ping, Box::from([1; 8]))]), "steps of {step}");
            assert_eq!((framer.take_unknown(), framer.take_unknown()), (2, 0));
        }
        // Nothing of it is held: what is there is skipped, whatever is still to come.
        let mut framer = ready();
        assert_eq!(framer.cut(&stream[..1000]), Ok(Cut::Skip(1000)));
        assert_eq!(framer.cut(&[]), Ok(Cut::Need(1)));
        assert_eq!(framer.cut(&stream[1000..1010]), Ok(Cut::Skip(10)));
    }

    /// Whatever bytes come in whatever pieces: no panic, frames within their caps, and the same outcome as in one piece.
    #[test]
    fn arbitrary_streams_have_one_outcome_however_they_are_cut() {
        let mut rng = ChaCha12Rng::seed_from_u64(3);
        let encoded = |message: Message| message.encode(MAGIC).unwrap().bytes().to_vec();
        let mut good: Vec<Vec<u8>> = messages().into_iter().map(encoded).collect();
        good.push(message(b"later", &[5; 300]));
        let (mut cut, mut refused) = (0, 0);
        for _ in 0..100_000 {
            let mut stream = Vec::new();
            for _ in 0..1 + rng.next_u32() % 3 {
                stream.extend(&good[rng.next_u32() as usize % good.len()]);
            }
            let bit = rng.next_u32() as usize % (stream.len() * 16);
            if let Some(byte) = stream.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
            let at = rng.next_u32() as usize % stream.len();
            let framer = if rng.next_u32() % 2 == 0 { Framer::v1(MAGIC) } else { ready() };
            let whole = frames(&mut framer.clone(), &[&stream]);
            assert_eq!(frames(&mut framer.clone(), &[&stream[..at], &stream[at..]]), whole);
            match whole {
                Ok(frames) => cut += frames.len(),
                Err(_) => refused += 1,
            }
        }
        assert!(cut > 10_000 && refused > 10_000, "{cut} cut, {refused} refused");
    }
}
