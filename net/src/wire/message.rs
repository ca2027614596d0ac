//! What peers say, message by message. `version`, `verack`, `ping` and `pong` are Bitcoin's own, byte for byte; integers little-endian,
//! lengths CompactSize in their shortest form.
//!
//! | command | payload |
//! |---|---|
//! | `version` | protocol 4 · services 8 · time 8 · receiver 26 · sender 26 · nonce 8 · user agent · start height 4 · relay 1 |
//! | `verack` | nothing |
//! | `ping`, `pong` | nonce 8 |
//! | `chaintip` | genesis 32 · tip 32 · height 4 · score 16 · features 8 |
//! | `getheaders` | count · locator 32n · stop 32: what follows the first id of the locator on the answerer's chain, up to `stop` |
//! | | 0 · height 4 · stop 32: the answerer's confirmed chain from this height on, up to `stop` |
//! | `shareheaders` | count · shares one after the other, ascending by height: the answer to `getheaders` and nothing else |
//! | `inv`, `getdata`, `notfound` | count · ids 32n |
//! | `share` | one share |
//! | `btcheaders` | count · Bitcoin headers 80n: those that shares build on, parents first |
//! | `gettemplate` | id 32 · first 4: the transactions of this share's block from this place on, the coinbase not counted |
//! | `template` | id 32 · first 4 · total 4 · count · (txid 32 · wtxid 32)n: the answer to `gettemplate` and nothing else |
//! | `blockfound` | one share, which is a Bitcoin block |
//! | `getblockbody` | id 32 · offset 4 · count · places 2n: transactions of the block as a stream from this byte on; no place: short ids |
//! | `blockbody` | id 32 · offset 4 · total 4 · count · bytes: part of that stream, the answer to `getblockbody` and nothing else |
//! | `getaddr` | nothing |
//! | `addrv2` | count · (time 4 · services CompactSize · network 1 · length · address · port 2 big-endian)n, as in BIP155 |
//!
//! A range is a locator of one id, or a height, with a stop; a stop of zeros is none. A list of transactions can be checked against the
//! share: the txids fold to its branch, the wtxids to its witness commitment.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::id::ShareId;
use crate::limits::{
    BTC_HEADERS_MAX, GETDATA_MAX, HEADER_BYTES, INV_MAX, LOCATOR_MAX, SHARE_BYTES_MIN, SHARE_HEADERS_BYTES_MAX, SHARE_HEADERS_MAX,
    TEMPLATE_PART_MAX, TEMPLATE_TXS_MAX, USER_AGENT_BYTES_MAX,
};
use crate::payload::Payload;
use crate::sha256::Checksum;
use crate::wire::WireError;
pub use crate::wire::addr::{AddrEntry, Host};
use crate::wire::addr::{read_addrs, write_addrs};
pub use crate::wire::body::{BlockBodyPart, GetBlockBody};
use crate::wire::codec::{Reader, Writer};
pub use crate::wire::command::Command;
use crate::wire::share::Share;

/// The protocol that this node speaks, in the numbering of Bitcoin's `version`.
pub const PROTOCOL_VERSION: u32 = 70_016;

/// Bytes of an id.
pub(super) const ID_BYTES: usize = 32;
/// Bytes of a Bitcoin header.
pub(super) const BTC_HEADER_BYTES: usize = 80;
/// Bytes of a transaction's ids.
pub(super) const TX_IDS_BYTES: usize = 64;
/// Most bytes of a CompactSize that counts what a list here may hold.
pub(super) const COUNT_BYTES: usize = 3;

/// An address as `version` carries it: services 8, IPv6 or mapped IPv4 16, port 2 big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetAddr {
    /// What the node there offers.
    pub services: u64,
    /// Where it is. A mapped IPv4 address reads as an IPv4 address.
    pub addr: SocketAddr,
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The newest protocol it speaks; [`PROTOCOL_VERSION`] of this node.
    pub protocol: u32,
    /// What it offers.
    pub services: u64,
    /// Its clock, Unix seconds.
    pub time: u64,
    /// Whom it believes to speak with.
    pub receiver: NetAddr,
    /// Who it believes to be.
    pub sender: NetAddr,
    /// Drawn for this connection: who finds its own has dialled itself.
    pub nonce: u64,
    /// Its software, printable ASCII of at most [`USER_AGENT_BYTES_MAX`] bytes.
    pub user_agent: String,
    /// Its height in the share chain.
    pub start_height: u32,
    /// Whether it wants to be told of shares.
    pub relay: bool,
}

/// Where a node's chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainTip {
    /// The chain's first share: who has another is on another chain.
    pub genesis: ShareId,
    /// The tip of the confirmed chain.
    pub tip: ShareId,
    /// The tip's height.
    pub height: u32,
    /// The tip's score.
    pub score: u128,
    /// What the node can do beyond this protocol, bit by bit. None is given out yet.
    pub features: u64,
}

/// Asks for shares from a fork point or from a height on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetHeaders {
    /// Where the answer begins.
    pub from: Start,
    /// The last share that is wanted; zero for as many as fit.
    pub stop: ShareId,
}

/// Where an answer to `getheaders` begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Behind the first of these that the answerer's chain holds. Ids of the asker's chain, newest first, steps doubling: 1 to
    /// [`LOCATOR_MAX`].
    Locator(Vec<ShareId>),
    /// At this height of the answerer's confirmed chain.
    Height(u32),
}

/// Asks for part of the list of transactions of a share's block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetTemplate {
    /// The share.
    pub id: ShareId,
    /// Place of the first transaction that is wanted; the coinbase is not counted.
    pub first: u32,
}

/// Both ids of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TxIds {
    /// Its hash without witnesses: a leaf of the block's merkle tree.
    pub txid: [u8; 32],
    /// Its hash with them: a leaf of the tree that the witness commitment is made of.
    pub wtxid: [u8; 32],
}

/// Part of the list of transactions of a share's block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplatePart {
    /// The share.
    pub id: ShareId,
    /// Place of the first transaction here.
    pub first: u32,
    /// Transactions of the whole list, at most [`TEMPLATE_TXS_MAX`].
    pub total: u32,
    /// The transactions from there on, at most [`TEMPLATE_PART_MAX`].
    pub txs: Vec<TxIds>,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// [`Command::Version`]
    Version(Version),
    /// [`Command::Verack`]
    Verack,
    /// [`Command::Ping`]
    Ping(u64),
    /// [`Command::Pong`]
    Pong(u64),
    /// [`Command::ChainTip`]
    ChainTip(ChainTip),
    /// [`Command::GetHeaders`]
    GetHeaders(GetHeaders),
    /// [`Command::ShareHeaders`]
    ShareHeaders(Vec<Share>),
    /// [`Command::Inv`]
    Inv(Vec<ShareId>),
    /// [`Command::GetData`]
    GetData(Vec<ShareId>),
    /// [`Command::NotFound`]
    NotFound(Vec<ShareId>),
    /// [`Command::Share`]
    Share(Box<Share>),
    /// [`Command::BtcHeaders`]
    BtcHeaders(Vec<[u8; 80]>),
    /// [`Command::GetTemplate`]
    GetTemplate(GetTemplate),
    /// [`Command::Template`]
    Template(TemplatePart),
    /// [`Command::BlockFound`]
    BlockFound(Box<Share>),
    /// [`Command::GetBlockBody`]
    GetBlockBody(GetBlockBody),
    /// [`Command::BlockBody`]
    BlockBody(BlockBodyPart),
    /// [`Command::GetAddr`]
    GetAddr,
    /// [`Command::AddrV2`]
    AddrV2(Vec<AddrEntry>),
}

impl Message {
    /// What it is.
    pub fn command(&self) -> Command {
        match self {
            Message::Version(_) => Command::Version,
            Message::Verack => Command::Verack,
            Message::Ping(_) => Command::Ping,
            Message::Pong(_) => Command::Pong,
            Message::ChainTip(_) => Command::ChainTip,
            Message::GetHeaders(_) => Command::GetHeaders,
            Message::ShareHeaders(_) => Command::ShareHeaders,
            Message::Inv(_) => Command::Inv,
            Message::GetData(_) => Command::GetData,
            Message::NotFound(_) => Command::NotFound,
            Message::Share(_) => Command::Share,
            Message::BtcHeaders(_) => Command::BtcHeaders,
            Message::GetTemplate(_) => Command::GetTemplate,
            Message::Template(_) => Command::Template,
            Message::BlockFound(_) => Command::BlockFound,
            Message::GetBlockBody(_) => Command::GetBlockBody,
            Message::BlockBody(_) => Command::BlockBody,
            Message::GetAddr => Command::GetAddr,
            Message::AddrV2(_) => Command::AddrV2,
        }
    }

    /// The whole message as it goes out, to be shared by all who get it.
    pub fn encode(&self, magic: [u8; 4]) -> Result<Arc<Payload>, WireError> {
        Ok(Arc::new(Payload::new(self.to_bytes(magic)?)))
    }

    /// The whole message as it goes out, header and checksum included. Refuses what another node would refuse to read.
    pub fn to_bytes(&self, magic: [u8; 4]) -> Result<Vec<u8>, WireError> {
        let mut writer = unsealed(8);
        match self {
            Message::Version(version) => version.write(&mut writer)?,
            Message::Verack | Message::GetAddr => {}
            Message::Ping(nonce) | Message::Pong(nonce) => writer.u64(*nonce),
            Message::ChainTip(tip) => tip.write(&mut writer),
            Message::GetHeaders(wanted) => wanted.write(&mut writer)?,
            Message::ShareHeaders(shares) => write_shares(&mut writer, shares)?,
            Message::Inv(ids) => write_ids(&mut writer, ids, INV_MAX)?,
            Message::GetData(ids) | Message::NotFound(ids) => write_ids(&mut writer, ids, GETDATA_MAX)?,
            Message::Share(share) | Message::BlockFound(share) => {
                share.check_limits()?;
                share.write(&mut writer);
            }
            Message::BtcHeaders(headers) => write_btc_headers(&mut writer, headers)?,
            Message::GetTemplate(wanted) => wanted.write(&mut writer),
            Message::Template(part) => part.write(&mut writer)?,
            Message::GetBlockBody(wanted) => wanted.write(&mut writer)?,
            Message::BlockBody(part) => part.write(&mut writer)?,
            Message::AddrV2(addrs) => write_addrs(&mut writer, addrs)?,
        }
        let (command, message) = (self.command(), writer.into_bytes());
        match message.len() - HEADER_BYTES {
            bytes if bytes > command.cap() => Err(too_many(command.name(), bytes, command.cap())),
            _ => Ok(seal(magic, command, message)),
        }
    }

    /// The pong to a ping: it carries the ping's payload, and so has its checksum. A ping that came with none is of a v2 peer, who is sent
    /// none.
    pub fn pong(magic: [u8; 4], nonce: u64, checksum: Option<[u8; 4]>) -> [u8; HEADER_BYTES + 8] {
        let mut message = [0; HEADER_BYTES + 8];
        message[..4].copy_from_slice(&magic);
        message[4..16].copy_from_slice(&Command::Pong.field());
        message[16..20].copy_from_slice(&8u32.to_le_bytes());
        message[20..24].copy_from_slice(&checksum.unwrap_or_default());
        message[24..].copy_from_slice(&nonce.to_le_bytes());
        message
    }

    /// The message that a frame carries. What it encodes to again are the bytes that were read.
    pub fn decode(command: Command, payload: &[u8]) -> Result<Message, WireError> {
        if payload.len() > command.cap() {
            return Err(too_many(command.name(), payload.len(), command.cap()));
        }
        let mut reader = Reader::new(payload);
        let message = match command {
            Command::Version => Message::Version(Version::read(&mut reader)?),
            Command::Verack => Message::Verack,
            Command::Ping => Message::Ping(reader.u64()?),
            Command::Pong => Message::Pong(reader.u64()?),
            Command::ChainTip => Message::ChainTip(ChainTip::read(&mut reader)?),
            Command::GetHeaders => Message::GetHeaders(GetHeaders::read(&mut reader)?),
            Command::ShareHeaders => Message::ShareHeaders(read_shares(&mut reader)?),
            Command::Inv => Message::Inv(read_ids(&mut reader, INV_MAX)?),
            Command::GetData => Message::GetData(read_ids(&mut reader, GETDATA_MAX)?),
            Command::NotFound => Message::NotFound(read_ids(&mut reader, GETDATA_MAX)?),
            Command::Share => Message::Share(Box::new(Share::read(&mut reader)?)),
            Command::BtcHeaders => Message::BtcHeaders(read_btc_headers(&mut reader)?),
            Command::GetTemplate => Message::GetTemplate(GetTemplate { id: ShareId(reader.array()?), first: reader.u32()? }),
            Command::Template => Message::Template(TemplatePart::read(&mut reader)?),
            Command::BlockFound => Message::BlockFound(Box::new(Share::read(&mut reader)?)),
            Command::GetBlockBody => Message::GetBlockBody(GetBlockBody::read(&mut reader)?),
            Command::BlockBody => Message::BlockBody(BlockBodyPart::read(&mut reader)?),
            Command::GetAddr => Message::GetAddr,
            Command::AddrV2 => Message::AddrV2(read_addrs(&mut reader)?),
            Command::Unknown => return Err(WireError::Unknown),
        };
        reader.finish()?;
        Ok(message)
    }

    /// A `share` of bytes that are a share's encoding already, as they stand in the store.
    pub fn share_from_bytes(magic: [u8; 4], share: &[u8]) -> Arc<Payload> {
        let mut writer = unsealed(share.len());
        writer.put(share);
        Arc::new(Payload::new(seal(magic, Command::Share, writer.into_bytes())))
    }

    /// A `shareheaders` of shares' encodings as they stand in the store, of as many from the front as one message may carry; says how many
    /// these are. The one after them may have been taken from the iterator.
    pub fn share_headers_from_bytes(magic: [u8; 4], shares: impl IntoIterator<Item = impl AsRef<[u8]>>) -> (Arc<Payload>, usize) {
        let (mut body, mut count) = (Vec::new(), 0);
        for share in shares {
            let share = share.as_ref();
            if count == SHARE_HEADERS_MAX || COUNT_BYTES + body.len() + share.len() > SHARE_HEADERS_BYTES_MAX {
                break;
            }
            body.extend_from_slice(share);
            count += 1;
        }
        let mut writer = unsealed(COUNT_BYTES + body.len());
        writer.compact_size(count as u64);
        writer.put(&body);
        (Arc::new(Payload::new(seal(magic, Command::ShareHeaders, writer.into_bytes()))), count)
    }
}

/// A message whose header is blank yet, with room for so many bytes behind it.
pub(super) fn unsealed(payload: usize) -> Writer {
    let mut writer = Writer::with_capacity(HEADER_BYTES + payload);
    writer.put(&[0; HEADER_BYTES]);
    writer
}

/// The one place where a message gets its header: magic, command, length, checksum.
fn seal(magic: [u8; 4], command: Command, message: Vec<u8>) -> Vec<u8> {
    seal_as(magic, &command.field(), message)
}

/// The same under any name.
pub(super) fn seal_as(magic: [u8; 4], field: &[u8; 12], mut message: Vec<u8>) -> Vec<u8> {
    let (header, payload) = message.split_at_mut(HEADER_BYTES);
    header[..4].copy_from_slice(&magic);
    header[4..16].copy_from_slice(field);
    header[16..20].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[20..].copy_from_slice(&Checksum::default().finish(payload));
    message
}

impl Version {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Version, WireError> {
        let version = Version {
            protocol: reader.u32()?,
            services: reader.u64()?,
            time: reader.u64()?,
            receiver: NetAddr::read(reader)?,
            sender: NetAddr::read(reader)?,
            nonce: reader.u64()?,
            user_agent: {
                let bytes = reader.count("bytes of user agent", USER_AGENT_BYTES_MAX, 1)?;
                String::from_utf8(reader.take(bytes)?.to_vec()).map_err(|_| WireError::Bad("user agent"))?
            },
            start_height: reader.u32()?,
            relay: match reader.u8()? {
                0 => false,
                1 => true,
                _ => return Err(WireError::Bad("relay flag")),
            },
        };
        version.check()?;
        Ok(version)
    }

    pub(super) fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        self.check()?;
        writer.u32(self.protocol);
        writer.u64(self.services);
        writer.u64(self.time);
        self.receiver.write(writer);
        self.sender.write(writer);
        writer.u64(self.nonce);
        writer.compact_size(self.user_agent.len() as u64);
        writer.put(self.user_agent.as_bytes());
        writer.u32(self.start_height);
        writer.u8(u8::from(self.relay));
        Ok(())
    }

    /// Protocol, time and height are signed in Bitcoin's layout: a set top bit is a negative number, which none of them can be.
    fn check(&self) -> Result<(), WireError> {
        let agent = self.user_agent.as_bytes();
        if agent.len() > USER_AGENT_BYTES_MAX {
            return Err(too_many("bytes of user agent", agent.len(), USER_AGENT_BYTES_MAX));
        }
        if !agent.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(WireError::Bad("user agent"));
        }
        if !matches!(i32::try_from(self.protocol), Ok(1..)) {
            return Err(WireError::Bad("protocol version"));
        }
        if i64::try_from(self.time).is_err() {
            return Err(WireError::Bad("time"));
        }
        if i32::try_from(self.start_height).is_err() {
            return Err(WireError::Bad("start height"));
        }
        Ok(())
    }
}

impl NetAddr {
    fn read(reader: &mut Reader<'_>) -> Result<NetAddr, WireError> {
        let services = reader.u64()?;
        let ip = Ipv6Addr::from(reader.array::<16>()?).to_canonical();
        Ok(NetAddr { services, addr: SocketAddr::new(ip, u16::from_be_bytes(reader.array()?)) })
    }

    fn write(&self, writer: &mut Writer) {
        let ip = match self.addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        writer.u64(self.services);
        writer.put(&ip.octets());
        writer.put(&self.addr.port().to_be_bytes());
    }
}

impl ChainTip {
    fn read(reader: &mut Reader<'_>) -> Result<ChainTip, WireError> {
        Ok(ChainTip {
            genesis: ShareId(reader.array()?),
            tip: ShareId(reader.array()?),
            height: reader.u32()?,
            score: reader.u128()?,
            features: reader.u64()?,
        })
    }

    fn write(&self, writer: &mut Writer) {
        writer.put(&self.genesis.0);
        writer.put(&self.tip.0);
        writer.u32(self.height);
        writer.u128(self.score);
        writer.u64(self.features);
    }
}

impl GetHeaders {
    fn read(reader: &mut Reader<'_>) -> Result<GetHeaders, WireError> {
        let locator = read_ids(reader, LOCATOR_MAX)?;
        let from = if locator.is_empty() { Start::Height(reader.u32()?) } else { Start::Locator(locator) };
        Ok(GetHeaders { from, stop: ShareId(reader.array()?) })
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        match &self.from {
            // It would read as a height.
            Start::Locator(ids) if ids.is_empty() => return Err(WireError::Bad("empty locator")),
            Start::Locator(ids) => write_ids(writer, ids, LOCATOR_MAX)?,
            Start::Height(height) => {
                writer.compact_size(0);
                writer.u32(*height);
            }
        }
        writer.put(&self.stop.0);
        Ok(())
    }
}

impl GetTemplate {
    fn write(&self, writer: &mut Writer) {
        writer.put(&self.id.0);
        writer.u32(self.first);
    }
}

impl TemplatePart {
    fn read(reader: &mut Reader<'_>) -> Result<TemplatePart, WireError> {
        let (id, first, total) = (ShareId(reader.array()?), reader.u32()?, reader.u32()?);
        let count = reader.count("transactions", TEMPLATE_PART_MAX, TX_IDS_BYTES)?;
        let ids = |_| Ok(TxIds { txid: reader.array()?, wtxid: reader.array()? });
        let part = TemplatePart { id, first, total, txs: (0..count).map(ids).collect::<Result<_, WireError>>()? };
        part.check()?;
        Ok(part)
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        self.check()?;
        writer.put(&self.id.0);
        writer.u32(self.first);
        writer.u32(self.total);
        writer.compact_size(self.txs.len() as u64);
        for tx in &self.txs {
            writer.put(&tx.txid);
            writer.put(&tx.wtxid);
        }
        Ok(())
    }

    /// It lies within the whole, and the whole within a block.
    fn check(&self) -> Result<(), WireError> {
        let (first, total) = (self.first as usize, self.total as usize);
        if self.txs.len() > TEMPLATE_PART_MAX {
            return Err(too_many("transactions", self.txs.len(), TEMPLATE_PART_MAX));
        }
        if total > TEMPLATE_TXS_MAX {
            return Err(too_many("transactions of a block", total, TEMPLATE_TXS_MAX));
        }
        if first.saturating_add(self.txs.len()) > total { Err(WireError::Bad("part of a template")) } else { Ok(()) }
    }
}

fn read_ids(reader: &mut Reader<'_>, max: usize) -> Result<Vec<ShareId>, WireError> {
    let count = reader.count("ids", max, ID_BYTES)?;
    (0..count).map(|_| reader.array().map(ShareId)).collect()
}

fn write_ids(writer: &mut Writer, ids: &[ShareId], max: usize) -> Result<(), WireError> {
    if ids.len() > max {
        return Err(too_many("ids", ids.len(), max));
    }
    writer.compact_size(ids.len() as u64);
    ids.iter().for_each(|id| writer.put(&id.0));
    Ok(())
}

fn read_shares(reader: &mut Reader<'_>) -> Result<Vec<Share>, WireError> {
    let count = reader.count("shares", SHARE_HEADERS_MAX, SHARE_BYTES_MIN)?;
    (0..count).map(|_| Share::read(reader)).collect()
}

fn write_shares(writer: &mut Writer, shares: &[Share]) -> Result<(), WireError> {
    if shares.len() > SHARE_HEADERS_MAX {
        return Err(too_many("shares", shares.len(), SHARE_HEADERS_MAX));
    }
    writer.compact_size(shares.len() as u64);
    shares.iter().try_for_each(|share| {
        share.check_limits()?;
        share.write(writer);
        Ok(())
    })
}

fn read_btc_headers(reader: &mut Reader<'_>) -> Result<Vec<[u8; 80]>, WireError> {
    let count = reader.count("Bitcoin headers", BTC_HEADERS_MAX, BTC_HEADER_BYTES)?;
    (0..count).map(|_| reader.array()).collect()
}

fn write_btc_headers(writer: &mut Writer, headers: &[[u8; 80]]) -> Result<(), WireError> {
    if headers.len() > BTC_HEADERS_MAX {
        return Err(too_many("Bitcoin headers", headers.len(), BTC_HEADERS_MAX));
    }
    writer.compact_size(headers.len() as u64);
    headers.iter().for_each(|header| writer.put(header));
    Ok(())
}

fn too_many(what: &'static str, count: usize, max: usize) -> WireError {
    WireError::TooMany { what, count: count as u64, max }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;
    use crate::limits::{ADDRS_MAX, UNASKED_BYTES_MAX, UNCLES_MAX};
    use crate::wire::sample::{addrs, ids, messages, share, share_of, template_part, version};

    const MAGIC: [u8; 4] = [0xf4, 0xc4, 0xb7, 0xd4];

    fn payload(message: &Message) -> Result<Vec<u8>, WireError> {
        message.encode(MAGIC).map(|payload| payload.bytes()[HEADER_BYTES..].to_vec())
    }

    #[test]
    fn every_message_reads_back_and_encodes_to_the_same_bytes() {
        let messages = messages();
        for message in &messages {
            let encoded = message.encode(MAGIC).unwrap();
            let (header, payload) = encoded.bytes().split_at(HEADER_BYTES);
            assert_eq!(header[..4], MAGIC);
            assert_eq!(header[4..16], message.command().field());
            assert_eq!(header[16..20], (payload.len() as u32).to_le_bytes());
            assert_eq!(header[20..], crate::sha256::sha256d(payload)[..4]);
            let again = Message::decode(message.command(), payload).unwrap();
            assert_eq!(&again, message);
            assert_eq!(again.encode(MAGIC).unwrap(), encoded);
        }
        for command in Command::ALL {
            let seen = messages.iter().any(|message| message.command() == command);
            assert_eq!(seen, command != Command::Unknown, "{command}");
        }
    }

    #[test]
    fn every_message_cut_short_or_with_a_byte_more_is_refused() {
        for message in messages() {
            let (command, mut bytes) = (message.command(), payload(&message).unwrap());
            for cut in 0..bytes.len() {
                let refused = Message::decode(command, &bytes[..cut]);
                assert!(matches!(refused, Err(WireError::Short { .. })), "{command} cut at {cut}: {refused:?}");
            }
            bytes.push(0);
            let refused = Message::decode(command, &bytes);
            assert!(matches!(refused, Err(WireError::Trailing(1) | WireError::TooMany { .. })), "{command}: {refused:?}");
        }
    }

    /// Bitcoin's `version` as the protocol's documentation lays it out, byte by byte.
    #[test]
    fn version_has_the_layout_of_bitcoin() {
        let mut want = Vec::new();
        want.extend(70_016u32.to_le_bytes());
        want.extend(9u64.to_le_bytes());
        want.extend(1_800_000_000u64.to_le_bytes());
        want.extend(1u64.to_le_bytes());
        want.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1, 0x24, 0x75]);
        want.extend(9u64.to_le_bytes());
        want.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0x04, 0xd2]);
        want.extend(0x0123_4567_89ab_cdefu64.to_le_bytes());
        want.push(16);
        want.extend(b"/rockpool:0.1.0/");
        want.extend(4_321u32.to_le_bytes());
        want.push(1);
        assert_eq!(payload(&Message::Version(version())), Ok(want));
    }

    #[test]
    fn a_nonsense_version_is_refused_both_ways() {
        type Spoil = fn(&mut Version);
        let cases: [(&str, Spoil); 6] = [
            ("protocol version", |version| version.protocol = 0),
            ("protocol version", |version| version.protocol = 1 << 31),
            ("time", |version| version.time = 1 << 63),
            ("start height", |version| version.start_height = 1 << 31),
            ("user agent", |version| version.user_agent = "/rock\npool/".into()),
            ("user agent", |version| version.user_agent = "/röckpool/".into()),
        ];
        for (what, spoil) in cases {
            let mut version = version();
            spoil(&mut version);
            assert_eq!(version.check(), Err(WireError::Bad(what)), "{version:?}");
            assert_eq!(payload(&Message::Version(version)), Err(WireError::Bad(what)));
        }
        let mut bytes = payload(&Message::Version(version())).unwrap();
        *bytes.last_mut().unwrap() = 2;
        assert_eq!(Message::decode(Command::Version, &bytes), Err(WireError::Bad("relay flag")));
        let agent = bytes.iter().position(|&byte| byte == b'/').unwrap();
        bytes[agent] = 0xff;
        assert_eq!(Message::decode(Command::Version, &bytes), Err(WireError::Bad("user agent")));
        bytes[agent] = 0x1b;
        *bytes.last_mut().unwrap() = 1;
        assert_eq!(Message::decode(Command::Version, &bytes), Err(WireError::Bad("user agent")));
    }

    #[test]
    fn every_cap_is_reached_and_one_more_is_refused_by_sender_and_reader() {
        let headers = |locator| Message::GetHeaders(GetHeaders { from: Start::Locator(locator), stop: ShareId([9; 32]) });
        let agent = |bytes| Message::Version(Version { user_agent: "x".repeat(bytes), ..version() });
        let small = share_of(0, false, 0);
        let shares = |count| Message::ShareHeaders(vec![small.clone(); count]);
        let most = (SHARE_HEADERS_BYTES_MAX - COUNT_BYTES) / SHARE_BYTES_MIN;
        let btc = |count| Message::BtcHeaders(vec![[7; 80]; count]);
        let template = |count| Message::Template(template_part(TEMPLATE_TXS_MAX - count, count));
        let addr = |number: usize| AddrEntry { host: Host::Other(4, vec![number as u8; 32].into()), ..addrs()[0].clone() };
        let gossip = |count| Message::AddrV2((0..count).map(addr).collect());
        let cases: [(Message, Message); 9] = [
            (gossip(ADDRS_MAX), gossip(ADDRS_MAX + 1)),
            (btc(BTC_HEADERS_MAX), btc(BTC_HEADERS_MAX + 1)),
            (template(TEMPLATE_PART_MAX), template(TEMPLATE_PART_MAX + 1)),
            (headers(ids(LOCATOR_MAX)), headers(ids(LOCATOR_MAX + 1))),
            (Message::Inv(ids(INV_MAX)), Message::Inv(ids(INV_MAX + 1))),
            (Message::GetData(ids(GETDATA_MAX)), Message::GetData(ids(GETDATA_MAX + 1))),
            (Message::NotFound(ids(GETDATA_MAX)), Message::NotFound(ids(GETDATA_MAX + 1))),
            (agent(USER_AGENT_BYTES_MAX), agent(USER_AGENT_BYTES_MAX + 1)),
            (shares(most), shares(most + 1)),
        ];
        for (fits, over) in cases {
            let bytes = payload(&fits).unwrap();
            assert!(bytes.len() <= fits.command().cap(), "{}", fits.command());
            assert_eq!(Message::decode(fits.command(), &bytes).as_ref(), Ok(&fits));
            assert!(matches!(payload(&over), Err(WireError::TooMany { .. })), "{}", over.command());
        }
        let over_the_count = Message::ShareHeaders(vec![small.clone(); SHARE_HEADERS_MAX + 1]);
        assert_eq!(payload(&over_the_count), Err(too_many("shares", SHARE_HEADERS_MAX + 1, SHARE_HEADERS_MAX)));
        for (command, max, each) in [
            (Command::GetHeaders, LOCATOR_MAX, ID_BYTES),
            (Command::Inv, INV_MAX, ID_BYTES),
            (Command::GetData, GETDATA_MAX, ID_BYTES),
            (Command::NotFound, GETDATA_MAX, ID_BYTES),
            (Command::ShareHeaders, SHARE_HEADERS_MAX, SHARE_BYTES_MIN),
            (Command::BtcHeaders, BTC_HEADERS_MAX, BTC_HEADER_BYTES),
            (Command::AddrV2, ADDRS_MAX, 9),
        ] {
            let claim = |count: usize| {
                let mut writer = Writer::default();
                writer.compact_size(count as u64);
                Message::decode(command, &writer.into_bytes())
            };
            assert!(matches!(claim(max + 1), Err(WireError::TooMany { .. })), "{command}");
            // The claim fits the cap but not the bytes that came with it: refused before the list is made.
            assert_eq!(claim(max), Err(WireError::Short { wanted: max * each, left: 0 }), "{command}");
        }
        for command in Command::ALL {
            let long = vec![0; command.cap() + 1];
            let refused = Message::decode(command, &long);
            assert_eq!(refused, Err(too_many(command.name(), long.len(), command.cap())), "{command}");
        }
    }

    #[test]
    fn a_locator_is_never_empty_and_in_its_place_stands_a_height() {
        let empty = Message::GetHeaders(GetHeaders { from: Start::Locator(Vec::new()), stop: ShareId([0; 32]) });
        assert_eq!(payload(&empty), Err(WireError::Bad("empty locator")));
        let stop = ShareId([9; 32]);
        let range = Message::GetHeaders(GetHeaders { from: Start::Height(0x0102_0304), stop });
        assert_eq!(payload(&range), Ok([&[0, 4, 3, 2, 1][..], &stop.0].concat()));
    }

    #[test]
    fn a_part_of_a_template_lies_within_the_whole_and_the_whole_within_a_block() {
        let refused = |first: usize, total: usize, why: WireError| {
            let part = TemplatePart { first: first as u32, total: total as u32, ..template_part(0, 3) };
            assert_eq!(payload(&Message::Template(part.clone())), Err(why.clone()));
            let mut bytes = payload(&Message::Template(template_part(0, 3))).unwrap();
            bytes[32..36].copy_from_slice(&part.first.to_le_bytes());
            bytes[36..40].copy_from_slice(&part.total.to_le_bytes());
            assert_eq!(Message::decode(Command::Template, &bytes), Err(why));
        };
        refused(0, 2, WireError::Bad("part of a template"));
        refused(8, 10, WireError::Bad("part of a template"));
        refused(u32::MAX as usize, 10, WireError::Bad("part of a template"));
        refused(0, TEMPLATE_TXS_MAX + 1, too_many("transactions of a block", TEMPLATE_TXS_MAX + 1, TEMPLATE_TXS_MAX));
        let whole = Message::Template(template_part(TEMPLATE_TXS_MAX - 3, 3));
        assert!(payload(&whole).is_ok());
    }

    /// A share's news come with few headers and are not asked for; a sync's are many.
    #[test]
    fn few_bitcoin_headers_may_come_unasked_and_many_may_not() {
        let bytes = |count| payload(&Message::BtcHeaders(vec![[7; 80]; count])).unwrap().len();
        assert!(bytes(800) <= UNASKED_BYTES_MAX && bytes(BTC_HEADERS_MAX) > UNASKED_BYTES_MAX);
        assert!(Command::AddrV2.cap() <= UNASKED_BYTES_MAX);
        assert!(Command::Template.cap() > UNASKED_BYTES_MAX && Command::Template.cap() <= SHARE_HEADERS_BYTES_MAX);
    }

    #[test]
    fn a_share_beyond_its_limits_is_not_sent() {
        let mut bad = share();
        bad.uncles = ids(UNCLES_MAX + 1);
        assert!(payload(&Message::Share(Box::new(bad.clone()))).is_err());
        assert!(payload(&Message::ShareHeaders(vec![bad])).is_err());
    }

    #[test]
    fn stored_bytes_are_sent_as_the_shares_would_be() {
        let shares = [share(), share_of(3, true, 16), share_of(0, false, 0)];
        let stored: Vec<Vec<u8>> = shares.iter().map(Share::encode).collect();
        let want = Message::ShareHeaders(shares.to_vec()).encode(MAGIC).unwrap();
        assert_eq!(Message::share_headers_from_bytes(MAGIC, &stored), (want, 3));
        for (share, bytes) in shares.into_iter().zip(&stored) {
            assert_eq!(Message::share_from_bytes(MAGIC, bytes), Message::Share(Box::new(share)).encode(MAGIC).unwrap());
        }
        let none: [&[u8]; 0] = [];
        assert_eq!(Message::share_headers_from_bytes(MAGIC, none), (Message::ShareHeaders(Vec::new()).encode(MAGIC).unwrap(), 0));
    }

    #[test]
    fn as_many_stored_shares_are_packed_as_another_node_reads() {
        for bytes in [share_of(0, false, 0).encode(), share().encode(), share_of(3, true, 16).encode()] {
            let endless = std::iter::repeat(&bytes);
            let (payload, count) = Message::share_headers_from_bytes(MAGIC, endless);
            let body = &payload.bytes()[HEADER_BYTES..];
            assert!(body.len() <= SHARE_HEADERS_BYTES_MAX && body.len() + bytes.len() > SHARE_HEADERS_BYTES_MAX);
            let Ok(Message::ShareHeaders(read)) = Message::decode(Command::ShareHeaders, body) else { panic!("unreadable") };
            assert_eq!(read.len(), count);
        }
        let packed = |bytes: usize| Message::share_headers_from_bytes(MAGIC, [vec![0; bytes]]).1;
        assert_eq!((packed(SHARE_HEADERS_BYTES_MAX - COUNT_BYTES), packed(SHARE_HEADERS_BYTES_MAX - COUNT_BYTES + 1)), (1, 0));
        // Only what is no share is short enough to reach the cap by count.
        let (_, count) = Message::share_headers_from_bytes(MAGIC, std::iter::repeat([0u8; 10]));
        assert_eq!(count, SHARE_HEADERS_MAX);
    }

    /// Whatever bytes come: no panic, and what is read encodes to the bytes that were read.
    #[test]
    fn arbitrary_payloads_are_refused_or_read_exactly() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let (mut read, mut refused) = (0, 0);
        let mut check = |command: Command, bytes: &[u8]| match Message::decode(command, bytes) {
            Ok(message) => {
                assert_eq!(payload(&message).as_deref(), Ok(bytes), "{command}");
                read += 1;
            }
            Err(_) => refused += 1,
        };
        for _ in 0..60_000 {
            let mut bytes = vec![0; rng.next_u32() as usize % 400];
            rng.fill_bytes(&mut bytes);
            if let Some(first) = bytes.first_mut() {
                *first %= 16;
            }
            check(Command::ALL[rng.next_u32() as usize % Command::ALL.len()], &bytes);
        }
        let samples: Vec<(Command, Vec<u8>)> = messages().iter().map(|m| (m.command(), payload(m).unwrap())).collect();
        for _ in 0..60_000 {
            let (command, mut bytes) = samples[rng.next_u32() as usize % samples.len()].clone();
            for _ in 0..=rng.next_u32() % 3 {
                mutate(&mut rng, &mut bytes);
            }
            check(command, &bytes);
        }
        assert!(read > 5_000 && refused > 50_000, "{read} read, {refused} refused");
    }

    fn mutate(rng: &mut ChaCha12Rng, bytes: &mut Vec<u8>) {
        let at = rng.next_u32() as usize % (bytes.len() + 1);
        match rng.next_u32() % 4 {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.next_u32() as u8),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (rng.next_u32() % 8);
                }
            }
        }
    }
}
