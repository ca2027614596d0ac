//! What nodes of Bitcoin's own network and this one say to each other, as far as this one takes part: Bitcoin's P2P protocol, headers and
//! blocks only.
//!
//! | command | payload | in | out |
//! |---|---|---|---|
//! | `version`, `verack`, `ping`, `pong` | as peers say them | ✓ | ✓ |
//! | `sendheaders` | nothing: announce blocks by their headers | | ✓ |
//! | `getheaders` | version 4 · count · locator 32n · stop 32 | ✓ | ✓ |
//! | `headers` | count · (header 80 · 0)n, parents first | ✓ | ✓ |
//! | `inv`, `getdata` | count · (kind 4 · hash 32)n | ✓ | |
//! | `notfound` | the same | | ✓ |
//! | `block` | one block, with witnesses or without | | ✓ |
//!
//! Everything else that arrives is read over. Commands go by the names that peers' have; `headers` by that of `btcheaders`, since that is
//! what it carries.

use std::sync::Arc;

use crate::limits::{
    BITCOIN_BLOCK_BYTES_MAX, BITCOIN_HEADER_BYTES, BITCOIN_LOCATOR_MAX, BITCOIN_UNKNOWN_BYTES_MAX, BTC_HEADERS_MAX, GETDATA_MAX,
    HEADER_BYTES, INV_MAX,
};
use crate::payload::Payload;
use crate::wire::WireError;
use crate::wire::codec::{Reader, Writer};
use crate::wire::message::{COUNT_BYTES, Command, ID_BYTES, PROTOCOL_VERSION, Version, seal_as, unsealed};

/// The node has the whole chain.
pub const NODE_NETWORK: u64 = 1;
/// The node gives blocks with their witnesses.
pub const NODE_WITNESS: u64 = 1 << 3;
/// The node has the newest 288 blocks at least.
pub const NODE_NETWORK_LIMITED: u64 = 1 << 10;

/// A block without witnesses, as an item names it.
pub const MSG_BLOCK: u32 = 2;
/// A block with them.
pub const MSG_WITNESS_BLOCK: u32 = MSG_BLOCK | 1 << 30;

/// Bytes of an item: its kind and hash.
const ITEM_BYTES: usize = 4 + ID_BYTES;

/// A thing that is told of or asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is: [`MSG_BLOCK`], [`MSG_WITNESS_BLOCK`], or something that is none of our business.
    pub kind: u32,
    /// Its hash.
    pub hash: [u8; 32],
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who speaks. What a newer node appends is not looked at.
    Version(Box<Version>),
    /// The other's `version` is accepted.
    Verack,
    /// Are you there?
    Ping(u64),
    /// The answer, with its nonce.
    Pong(u64),
    /// Blocks are to be announced by their headers.
    SendHeaders,
    /// Asks for headers from the first of these hashes on that is in the answerer's chain, 1 to [`BITCOIN_LOCATOR_MAX`]. What a Bitcoin
    /// node asks for is not looked at: it reads as a locator of nothing.
    GetHeaders(Vec<[u8; 32]>),
    /// Headers, at most [`BTC_HEADERS_MAX`].
    Headers(Vec<[u8; 80]>),
    /// There is this.
    Inv(Vec<Item>),
    /// Asks for these.
    GetData(Vec<Item>),
    /// These were asked for and are not there.
    NotFound(Vec<Item>),
}

/// What a header's name means among Bitcoin nodes; see [`Command::from_field`].
pub fn command(field: &[u8; 12]) -> Option<Command> {
    match Command::from_field(field)? {
        _ if field == b"headers\0\0\0\0\0" => Some(Command::BtcHeaders),
        known @ (Command::Version
        | Command::Verack
        | Command::Ping
        | Command::Pong
        | Command::GetHeaders
        | Command::Inv
        | Command::GetData) => Some(known),
        _ => Some(Command::Unknown),
    }
}

/// Most bytes of the payload of a message of a Bitcoin node.
pub fn cap(command: Command) -> usize {
    match command {
        Command::GetHeaders => 4 + COUNT_BYTES + (BITCOIN_LOCATOR_MAX + 1) * ID_BYTES,
        Command::BtcHeaders => COUNT_BYTES + BTC_HEADERS_MAX * BITCOIN_HEADER_BYTES,
        Command::Inv => COUNT_BYTES + INV_MAX * ITEM_BYTES,
        Command::GetData => COUNT_BYTES + GETDATA_MAX * ITEM_BYTES,
        Command::Unknown => BITCOIN_UNKNOWN_BYTES_MAX,
        shared => shared.cap(),
    }
}

impl Message {
    /// The whole message as it goes out. Refuses what a node would refuse to read.
    pub fn to_bytes(&self, magic: [u8; 4]) -> Result<Vec<u8>, WireError> {
        let mut writer = unsealed(8);
        match self {
            Message::Version(version) => version.write(&mut writer)?,
            Message::Verack | Message::SendHeaders => {}
            Message::Ping(nonce) | Message::Pong(nonce) => writer.u64(*nonce),
            Message::GetHeaders(locator) => {
                writer.u32(PROTOCOL_VERSION);
                count(&mut writer, "hashes of a locator", locator.len(), BITCOIN_LOCATOR_MAX)?;
                locator.iter().for_each(|hash| writer.put(hash));
                writer.put(&[0; ID_BYTES]);
            }
            Message::Headers(headers) => {
                count(&mut writer, "headers", headers.len(), BTC_HEADERS_MAX)?;
                for header in headers {
                    writer.put(header);
                    writer.u8(0);
                }
            }
            Message::Inv(items) => write_items(&mut writer, items, INV_MAX)?,
            Message::GetData(items) | Message::NotFound(items) => write_items(&mut writer, items, GETDATA_MAX)?,
        }
        Ok(seal_as(magic, self.field(), writer.into_bytes()))
    }

    /// The message that a frame of a Bitcoin node carries.
    pub fn decode(command: Command, payload: &[u8]) -> Result<Message, WireError> {
        if payload.len() > cap(command) {
            return Err(WireError::TooMany { what: "bytes", count: payload.len() as u64, max: cap(command) });
        }
        let mut reader = Reader::new(payload);
        let message = match command {
            Command::Version => return Ok(Message::Version(Box::new(Version::read(&mut reader)?))),
            Command::Verack => Message::Verack,
            Command::Ping => Message::Ping(reader.u64()?),
            Command::Pong => Message::Pong(reader.u64()?),
            Command::GetHeaders => return Ok(Message::GetHeaders(Vec::new())),
            Command::BtcHeaders => Message::Headers(read_headers(&mut reader)?),
            Command::Inv => Message::Inv(read_items(&mut reader, INV_MAX)?),
            Command::GetData => Message::GetData(read_items(&mut reader, GETDATA_MAX)?),
            _ => return Err(WireError::Unknown),
        };
        reader.finish()?;
        Ok(message)
    }

    fn field(&self) -> &'static [u8; 12] {
        match self {
            Message::Version(_) => b"version\0\0\0\0\0",
            Message::Verack => b"verack\0\0\0\0\0\0",
            Message::Ping(_) => b"ping\0\0\0\0\0\0\0\0",
            Message::Pong(_) => b"pong\0\0\0\0\0\0\0\0",
            Message::SendHeaders => b"sendheaders\0",
            Message::GetHeaders(_) => b"getheaders\0\0",
            Message::Headers(_) => b"headers\0\0\0\0\0",
            Message::Inv(_) => b"inv\0\0\0\0\0\0\0\0\0",
            Message::GetData(_) => b"getdata\0\0\0\0\0",
            Message::NotFound(_) => b"notfound\0\0\0\0",
        }
    }
}

/// A `block`, to be shared by all who get it.
pub fn block(magic: [u8; 4], block: &[u8]) -> Result<Arc<Payload>, WireError> {
    if block.len() > BITCOIN_BLOCK_BYTES_MAX {
        return Err(WireError::TooMany { what: "bytes of a block", count: block.len() as u64, max: BITCOIN_BLOCK_BYTES_MAX });
    }
    let mut writer = unsealed(block.len());
    writer.put(block);
    Ok(Arc::new(Payload::new(seal_as(magic, b"block\0\0\0\0\0\0\0", writer.into_bytes()))))
}

// A block's message is the longest that goes out, and a node takes it.
const _: () = assert!(HEADER_BYTES + BITCOIN_BLOCK_BYTES_MAX <= u32::MAX as usize && BITCOIN_BLOCK_BYTES_MAX <= BITCOIN_UNKNOWN_BYTES_MAX);

fn count(writer: &mut Writer, what: &'static str, count: usize, max: usize) -> Result<(), WireError> {
    if count > max {
        return Err(WireError::TooMany { what, count: count as u64, max });
    }
    writer.compact_size(count as u64);
    Ok(())
}

fn write_items(writer: &mut Writer, items: &[Item], max: usize) -> Result<(), WireError> {
    count(writer, "items", items.len(), max)?;
    for item in items {
        writer.u32(item.kind);
        writer.put(&item.hash);
    }
    Ok(())
}

fn read_items(reader: &mut Reader<'_>, max: usize) -> Result<Vec<Item>, WireError> {
    let count = reader.count("items", max, ITEM_BYTES)?;
    (0..count).map(|_| Ok(Item { kind: reader.u32()?, hash: reader.array()? })).collect()
}

fn read_headers(reader: &mut Reader<'_>) -> Result<Vec<[u8; 80]>, WireError> {
    let count = reader.count("headers", BTC_HEADERS_MAX, BITCOIN_HEADER_BYTES)?;
    let one = |_| {
        let header = reader.array()?;
        if reader.u8()? == 0 { Ok(header) } else { Err(WireError::Bad("transactions behind a header")) }
    };
    (0..count).map(one).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;
    use crate::frame::tests::frames;
    use crate::frame::{Cut, Frame, FrameError, Framer};
    use crate::sha256::sha256d;
    use crate::wire::sample::version;

    const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

    fn items(count: usize) -> Vec<Item> {
        (0..count).map(|n| Item { kind: [MSG_BLOCK, MSG_WITNESS_BLOCK][n % 2], hash: [n as u8; 32] }).collect()
    }

    /// All that a Bitcoin node may say that is looked at.
    fn messages() -> Vec<Message> {
        vec![
            Message::Version(Box::new(version())),
            Message::Verack,
            Message::Ping(7),
            Message::Pong(8),
            Message::Headers(Vec::new()),
            Message::Headers((0..BTC_HEADERS_MAX).map(|n| [n as u8; 80]).collect()),
            Message::Inv(items(3)),
            Message::Inv(items(INV_MAX)),
            Message::GetData(items(GETDATA_MAX)),
        ]
    }

    fn said(name: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut field = [0; 12];
        field[..name.len()].copy_from_slice(name);
        [&MAGIC[..], &field, &(payload.len() as u32).to_le_bytes(), &sha256d(payload)[..4], payload].concat()
    }

    fn heard(frames: Vec<Frame>) -> Vec<Message> {
        let one = |frame| match frame {
            Frame::Message { command, payload, .. } => Message::decode(command, &payload).unwrap(),
            other => panic!("{other:?}"),
        };
        frames.into_iter().map(one).collect()
    }

    fn ready() -> Framer {
        let mut framer = Framer::bitcoin(MAGIC);
        framer.set_ready();
        framer
    }

    #[test]
    fn messages_read_back_however_they_are_cut() {
        let stream: Vec<u8> = messages().iter().flat_map(|message| message.to_bytes(MAGIC).unwrap()).collect();
        for step in [1, 7, 1_000, stream.len()] {
            let chunks: Vec<&[u8]> = stream.chunks(step).collect();
            assert_eq!(frames(&mut Framer::bitcoin(MAGIC), &chunks).map(heard), Ok(messages()), "steps of {step}");
        }
        for message in [Message::SendHeaders, Message::NotFound(items(1)), Message::GetHeaders(vec![[1; 32], [2; 32]])] {
            let bytes = message.to_bytes(MAGIC).unwrap();
            assert_eq!((&bytes[..4], &bytes[20..24]), (&MAGIC[..], &sha256d(&bytes[HEADER_BYTES..])[..4]));
        }
    }

    /// As the protocol's documentation lays them out, byte by byte.
    #[test]
    fn what_goes_out_has_the_layout_of_bitcoin() {
        let payload = |message: Message| message.to_bytes(MAGIC).unwrap()[HEADER_BYTES..].to_vec();
        let asked = payload(Message::GetHeaders(vec![[1; 32], [2; 32]]));
        assert_eq!(asked, [&70_016u32.to_le_bytes()[..], &[2], &[1; 32], &[2; 32], &[0; 32]].concat());
        assert_eq!(payload(Message::Headers(vec![[5; 80]])), [&[1][..], &[5; 80], &[0]].concat());
        let one = Item { kind: MSG_WITNESS_BLOCK, hash: [9; 32] };
        assert_eq!(payload(Message::NotFound(vec![one])), [&[1, 2, 0, 0, 0x40][..], &[9; 32]].concat());
        let bytes = block(MAGIC, &[3; 100]).unwrap();
        assert_eq!((&bytes.bytes()[4..12], bytes.bytes().len()), (&b"block\0\0\0"[..], HEADER_BYTES + 100));
        assert_eq!(&bytes.bytes()[20..24], &sha256d(&[3; 100])[..4]);
    }

    #[test]
    fn before_verack_nodes_say_what_they_can_and_it_is_read_over() {
        let say = |message: Message| message.to_bytes(MAGIC).unwrap();
        let hello = say(Message::Version(Box::new(version())));
        let stream =
            [&hello[..], &said(b"wtxidrelay", b""), &said(b"sendaddrv2", b""), &say(Message::Verack), &say(Message::Ping(1))].concat();
        let mut framer = Framer::bitcoin(MAGIC);
        assert_eq!(frames(&mut framer, &[&stream]).map(|frames| frames.len()), Ok(3));
        assert_eq!(framer.take_unknown(), 2);
        // But nothing before the version, and of what is understood nothing before the verack.
        assert_eq!(Framer::bitcoin(MAGIC).cut(&said(b"wtxidrelay", b"")), Err(FrameError::OutOfTurn(Command::Unknown)));
        let early = [&hello[..], &say(Message::Headers(Vec::new()))].concat();
        assert_eq!(frames(&mut Framer::bitcoin(MAGIC), &[&early]), Err(FrameError::OutOfTurn(Command::BtcHeaders)));
    }

    #[test]
    fn what_is_not_understood_is_read_over_and_not_held() {
        // A peer's command is none of Bitcoin's.
        for name in [&b"cmpctblock"[..], b"block", b"addr", b"feefilter", b"btcheaders", b"shareheaders", b"chaintip"] {
            let stream = [said(name, &vec![7; 300_000]), said(b"ping", &[1; 8])].concat();
            let mut framer = ready();
            assert_eq!(framer.cut(&stream[..1_000]), Ok(Cut::Skip(1_000)), "whatever is still to come");
            assert_eq!(frames(&mut ready(), &[&stream]).map(|frames| frames.len()), Ok(1));
        }
        let mut header = said(b"block", b"");
        header[16..20].copy_from_slice(&(BITCOIN_UNKNOWN_BYTES_MAX as u32).to_le_bytes());
        assert!(matches!(ready().cut(&header), Ok(Cut::Skip(_))));
        header[16..20].copy_from_slice(&(BITCOIN_UNKNOWN_BYTES_MAX as u32 + 1).to_le_bytes());
        assert!(matches!(ready().cut(&header), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn one_more_than_allowed_is_refused_at_the_header() {
        for (name, command) in
            [("headers", Command::BtcHeaders), ("inv", Command::Inv), ("getdata", Command::GetData), ("getheaders", Command::GetHeaders)]
        {
            let mut header = said(name.as_bytes(), b"");
            header[16..20].copy_from_slice(&(cap(command) as u32).to_le_bytes());
            assert_eq!(ready().cut(&header), Ok(Cut::Need(HEADER_BYTES + cap(command))), "{name}");
            header[16..20].copy_from_slice(&(cap(command) as u32 + 1).to_le_bytes());
            assert!(matches!(ready().cut(&header), Err(FrameError::TooLong { .. })), "{name}");
        }
        // 2,001 headers do not fit, and nor does a count of them.
        let many = [&[0xfd, 0xd1, 7][..], &[0; 81]].concat();
        assert!(matches!(Message::decode(Command::BtcHeaders, &many), Err(WireError::TooMany { .. })));
        assert!(Message::Headers(vec![[0; 80]; BTC_HEADERS_MAX + 1]).to_bytes(MAGIC).is_err());
        assert!(Message::GetHeaders(vec![[0; 32]; BITCOIN_LOCATOR_MAX + 1]).to_bytes(MAGIC).is_err());
        assert!(block(MAGIC, &vec![0; BITCOIN_BLOCK_BYTES_MAX]).is_ok() && block(MAGIC, &vec![0; BITCOIN_BLOCK_BYTES_MAX + 1]).is_err());
        assert_eq!(cap(Command::BtcHeaders), 3 + BTC_HEADERS_MAX * BITCOIN_HEADER_BYTES);
        let with_transactions = [&[1][..], &[0; 80], &[1]].concat();
        assert_eq!(Message::decode(Command::BtcHeaders, &with_transactions), Err(WireError::Bad("transactions behind a header")));
    }

    /// Whatever bytes come: no panic, and what is read is what was there.
    #[test]
    fn arbitrary_payloads_are_refused_or_read_exactly() {
        let mut rng = ChaCha12Rng::seed_from_u64(6);
        let good: Vec<Vec<u8>> = messages().iter().map(|message| message.to_bytes(MAGIC).unwrap()).filter(|b| b.len() < 5_000).collect();
        let (mut read, mut refused) = (0, 0);
        for _ in 0..100_000 {
            let message = &good[rng.next_u32() as usize % good.len()];
            let mut field = [0; 12];
            field.copy_from_slice(&message[4..16]);
            let mut payload = message[HEADER_BYTES..].to_vec();
            for _ in 0..rng.next_u32() % 3 {
                let at = rng.next_u32() as usize % (payload.len() + 1);
                match rng.next_u32() % 3 {
                    0 => payload.truncate(at),
                    1 => payload.insert(at, rng.next_u32() as u8),
                    _ => payload.iter_mut().skip(at).take(1).for_each(|byte| *byte = rng.next_u32() as u8),
                }
            }
            match Message::decode(command(&field).unwrap(), &payload) {
                Ok(Message::Version(_)) => read += 1,
                Ok(message) => {
                    assert_eq!(message.to_bytes(MAGIC).unwrap()[HEADER_BYTES..], payload[..]);
                    read += 1;
                }
                Err(_) => refused += 1,
            }
        }
        assert!(read > 10_000 && refused > 10_000, "{read} read, {refused} refused");
    }
}
