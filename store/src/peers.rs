//! What is kept of peers on disk: addresses, the outbound peers that are dialled first at a start, and bans.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use rockpool_net::wire::WireError;
use rockpool_net::wire::codec::{Reader, Writer};

use crate::error::StoreError;
use crate::kv::{Family, Kv, Op};
use crate::limits::{ANCHORS_MAX, BAN_TEXT_BYTES, BANS_MAX, PEER_ADDRS_MAX};

const KEY: u8 = 0;
const ANCHOR: u8 = 1;
const BAN: u8 = 2;
const ADDR: u8 = 3;

/// Bits before an IPv4 address that is written as an IPv6 one.
const MAPPED_BITS: u8 = 96;

/// An address of the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddrRow {
    /// Where.
    pub addr: SocketAddr,
    /// Who told of it, or itself.
    pub source: IpAddr,
    /// What it offers, by its own or another's word.
    pub services: u64,
    /// When it was last seen up, Unix seconds, by its own or another's word.
    pub seen: u32,
    /// When we last shook hands with it on a connection of ours, Unix seconds; zero for never.
    pub success: u32,
    /// When we last dialled it, Unix seconds; zero for never.
    pub tried_at: u32,
    /// Dials since the last success.
    pub attempts: u8,
    /// Whether it stands in the table of those that we have been connected to.
    pub tried: bool,
}

impl AddrRow {
    /// The change that keeps it.
    pub fn put(&self) -> Op {
        let mut writer = Writer::with_capacity(38);
        writer.put(&mapped(self.source).octets());
        writer.u64(self.services);
        writer.u32(self.seen);
        writer.u32(self.success);
        writer.u32(self.tried_at);
        writer.u8(self.attempts);
        writer.u8(u8::from(self.tried));
        Op::Put(Family::Peers, addr_key(self.addr), writer.into_bytes())
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<AddrRow, WireError> {
        let mut reader = Reader::new(value);
        let row = AddrRow {
            addr: socket_of(key)?,
            source: plain(reader.array()?),
            services: reader.u64()?,
            seen: reader.u32()?,
            success: reader.u32()?,
            tried_at: reader.u32()?,
            attempts: reader.u8()?,
            tried: flag(reader.u8()?)?,
        };
        reader.finish()?;
        Ok(row)
    }
}

/// The change that forgets an address.
pub fn delete_addr(addr: SocketAddr) -> Op {
    Op::Delete(Family::Peers, addr_key(addr))
}

/// The change that keeps the book's key.
pub fn put_key(key: &[u8; 32]) -> Op {
    Op::Put(Family::Peers, vec![KEY], key.to_vec())
}

/// The change that keeps an anchor in one of the [`ANCHORS_MAX`] places.
pub fn put_anchor(place: u8, addr: SocketAddr) -> Op {
    let mut value = mapped(addr.ip()).octets().to_vec();
    value.extend(addr.port().to_be_bytes());
    Op::Put(Family::Peers, vec![ANCHOR, place], value)
}

/// The change that empties an anchor's place.
pub fn delete_anchor(place: u8) -> Op {
    Op::Delete(Family::Peers, vec![ANCHOR, place])
}

/// One address, or all that begin with the same bits. `Display` and `FromStr` know `203.0.113.7`, `203.0.113.0/24` and the same of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    /// IPv4 as IPv6, so that one order holds for both.
    ip: Ipv6Addr,
    /// Of all 128 bits, those that count; the others are zero.
    bits: u8,
}

impl Subnet {
    /// This address alone.
    pub fn host(ip: IpAddr) -> Subnet {
        Subnet { ip: mapped(ip), bits: 128 }
    }

    /// All addresses that begin with the first `bits` of this one, of its 32 or 128; `None` for more bits than it has.
    pub fn new(ip: IpAddr, bits: u8) -> Option<Subnet> {
        let of = mapped(ip);
        let bits = if of.to_ipv4_mapped().is_some() { bits.checked_add(MAPPED_BITS)? } else { bits };
        (bits <= 128).then(|| Subnet { ip: Ipv6Addr::from_bits(of.to_bits() & mask(bits)), bits })
    }

    /// Whether an address is of it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        mapped(ip).to_bits() & mask(self.bits) == self.ip.to_bits()
    }

    /// Whether it is one address.
    pub fn is_host(&self) -> bool {
        self.bits == 128
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = self.ip.to_canonical();
        match (self.bits, ip) {
            (128, ip) => write!(f, "{ip}"),
            (bits, IpAddr::V4(ip)) if bits >= MAPPED_BITS => write!(f, "{ip}/{}", bits - MAPPED_BITS),
            (bits, _) => write!(f, "{}/{bits}", self.ip),
        }
    }
}

/// It is no address and no subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSubnet;

impl fmt::Display for NoSubnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("neither an IP address nor a subnet such as 203.0.113.0/24")
    }
}

impl std::error::Error for NoSubnet {}

impl FromStr for Subnet {
    type Err = NoSubnet;

    fn from_str(text: &str) -> Result<Subnet, NoSubnet> {
        let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let ip: IpAddr = ip.parse().map_err(|_| NoSubnet)?;
        match bits {
            None => Ok(Subnet::host(ip)),
            // "+8" is a number to Rust.
            Some(bits) if !bits.bytes().all(|byte| byte.is_ascii_digit()) => Err(NoSubnet),
            Some(bits) => bits.parse().ok().and_then(|bits| Subnet::new(ip, bits)).ok_or(NoSubnet),
        }
    }
}

/// Who is neither dialled nor let in, until when and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Whom it is about.
    pub of: Subnet,
    /// When it ends, Unix seconds.
    pub until: u32,
    /// Why, for people; cut to [`BAN_TEXT_BYTES`].
    pub why: String,
}

impl Ban {
    /// The change that keeps it, in place of one of the same addresses.
    pub fn put(&self) -> Op {
        let end = (0..=self.why.len().min(BAN_TEXT_BYTES)).rev().find(|end| self.why.is_char_boundary(*end)).unwrap_or(0);
        let mut writer = Writer::with_capacity(8 + end);
        writer.u32(self.until);
        writer.compact_size(end as u64);
        writer.put(&self.why.as_bytes()[..end]);
        Op::Put(Family::Peers, ban_key(self.of), writer.into_bytes())
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Ban, WireError> {
        let mut reader = Reader::new(key);
        let of = Subnet { ip: Ipv6Addr::from(reader.array::<16>()?), bits: reader.u8()? };
        reader.finish()?;
        if of.bits > 128 || of.ip.to_bits() & !mask(of.bits) != 0 {
            return Err(WireError::Bad("subnet"));
        }
        let mut reader = Reader::new(value);
        let until = reader.u32()?;
        let bytes = reader.count("bytes of text", BAN_TEXT_BYTES, 1)?;
        let why = String::from_utf8(reader.take(bytes)?.to_vec()).map_err(|_| WireError::Bad("text"))?;
        reader.finish()?;
        Ok(Ban { of, until, why })
    }
}

/// The change that lifts a ban.
pub fn delete_ban(of: Subnet) -> Op {
    Op::Delete(Family::Peers, ban_key(of))
}

/// All that is stored of peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerRows {
    /// The book's key.
    pub key: Option<[u8; 32]>,
    /// Addresses, in the order of their bytes; at most [`PEER_ADDRS_MAX`].
    pub addrs: Vec<AddrRow>,
    /// Anchors; at most [`ANCHORS_MAX`].
    pub anchors: Vec<SocketAddr>,
    /// Bans, also those that have ended; at most [`BANS_MAX`].
    pub bans: Vec<Ban>,
    /// What deletes the rows that do not decode, or are more than there may be; at most [`PEER_ADDRS_MAX`] of them.
    pub bad: Vec<Op>,
}

impl PeerRows {
    /// What is stored. A row that does not decode takes nothing from the others.
    pub fn open(kv: &dyn Kv) -> Result<PeerRows, StoreError> {
        let mut rows = PeerRows::default();
        kv.scan(Family::Peers, &[], &mut |key, value| {
            if rows.take(key, value).is_none() && rows.bad.len() < PEER_ADDRS_MAX {
                rows.bad.push(Op::Delete(Family::Peers, key.to_vec()));
            }
            true
        })?;
        Ok(rows)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key.split_first()? {
            (&KEY, []) => self.key = Some(value.try_into().ok()?),
            (&ANCHOR, [place]) if usize::from(*place) < ANCHORS_MAX => self.anchors.push(socket_of(value).ok()?),
            (&BAN, key) if self.bans.len() < BANS_MAX => self.bans.push(Ban::decode(key, value).ok()?),
            (&ADDR, key) if self.addrs.len() < PEER_ADDRS_MAX => self.addrs.push(AddrRow::decode(key, value).ok()?),
            _ => return None,
        }
        Some(())
    }
}

/// An address in 16 bytes, IPv4 as IPv6.
fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// And back.
fn plain(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

/// The first so many of 128 bits.
fn mask(bits: u8) -> u128 {
    !u128::MAX.checked_shr(u32::from(bits)).unwrap_or(0)
}

fn socket_of(bytes: &[u8]) -> Result<SocketAddr, WireError> {
    let mut reader = Reader::new(bytes);
    let addr = SocketAddr::new(plain(reader.array()?), u16::from_be_bytes(reader.array()?));
    reader.finish()?;
    Ok(addr)
}

fn flag(byte: u8) -> Result<bool, WireError> {
    if byte > 1 { Err(WireError::Bad("flag")) } else { Ok(byte == 1) }
}

/// `03` ‖ address 16 ‖ port u16, big-endian.
fn addr_key(addr: SocketAddr) -> Vec<u8> {
    [&[ADDR], &mapped(addr.ip()).octets()[..], &addr.port().to_be_bytes()].concat()
}

/// `02` ‖ address 16 ‖ bits.
fn ban_key(of: Subnet) -> Vec<u8> {
    [&[BAN], &of.ip.octets()[..], &[of.bits]].concat()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::kv::MemKv;

    fn row(number: u32) -> AddrRow {
        let ip = if number.is_multiple_of(2) { IpAddr::V4((0x0a00_0000 + number).into()) } else { IpAddr::V6(u128::from(number).into()) };
        let addr = SocketAddr::new(ip, 9_333);
        let source = IpAddr::V4([203, 0, 113, number as u8].into());
        AddrRow { addr, source, services: 1 << 40, seen: 2, success: 3, tried_at: 4, attempts: 5, tried: number.is_multiple_of(3) }
    }

    fn ban(of: &str, why: &str) -> Ban {
        Ban { of: of.parse().unwrap(), until: 1_700_000_000, why: why.to_owned() }
    }

    #[test]
    fn rows_read_back_and_a_bad_one_hides_no_other() {
        let kv = MemKv::new();
        let anchors: [SocketAddr; ANCHORS_MAX] = ["203.0.113.7:9333".parse().unwrap(), "[2001:db8::1]:1".parse().unwrap()];
        let bans = [ban("203.0.113.0/24", "asked"), ban("198.51.100.7", &"é".repeat(BAN_TEXT_BYTES)), ban("2001:db8::/32", "")];
        let mut ops = vec![put_key(&[7; 32])];
        ops.extend((1..=6).map(|number| row(number).put()));
        ops.extend(anchors.iter().zip(0..).map(|(addr, place)| put_anchor(place, *addr)));
        ops.extend(bans.iter().map(Ban::put));
        kv.write(&ops, true).unwrap();
        let rows = PeerRows::open(&kv).unwrap();
        assert_eq!((rows.key, &rows.anchors[..], rows.bad.len()), (Some([7; 32]), &anchors[..], 0));
        let mut addrs = rows.addrs.clone();
        addrs.sort_by_key(|row| row.addr.ip().to_string().len());
        assert_eq!(addrs.len(), 6);
        assert!((1..=6).all(|number| addrs.contains(&row(number))));
        assert_eq!(rows.bans.iter().map(|ban| ban.of.to_string()).collect::<Vec<_>>(), ["198.51.100.7", "203.0.113.0/24", "2001:db8::/32"]);
        assert_eq!((&rows.bans[1], rows.bans[0].why.len()), (&bans[0], BAN_TEXT_BYTES));

        // Every row cut or followed by a byte, and keys of nothing: the others are there all the same.
        for op in &ops {
            let Op::Put(family, key, value) = op else { continue };
            for wrong in [value[..value.len() - 1].to_vec(), [&value[..], &[0]].concat(), Vec::new()] {
                kv.write(&[Op::Put(*family, key.clone(), wrong)], true).unwrap();
                let read = PeerRows::open(&kv).unwrap();
                assert_eq!(read.bad, [Op::Delete(*family, key.clone())]);
                let lost = rows.addrs.len() + rows.anchors.len() + rows.bans.len() + usize::from(rows.key.is_some());
                assert_eq!(read.addrs.len() + read.anchors.len() + read.bans.len() + usize::from(read.key.is_some()), lost - 1);
            }
            kv.write(std::slice::from_ref(op), true).unwrap();
        }
        let strange = [vec![], vec![9], vec![KEY, 0], vec![ANCHOR], vec![ANCHOR, ANCHORS_MAX as u8], [&[BAN][..], &[1; 16], &[8]].concat()];
        kv.write(&strange.map(|key| Op::Put(Family::Peers, key, vec![0; 32])), true).unwrap();
        let read = PeerRows::open(&kv).unwrap();
        assert_eq!(read.bad.len(), 6);
        kv.write(&read.bad, true).unwrap();
        assert_eq!(PeerRows::open(&kv).unwrap(), rows);

        let mut gone = vec![Op::Delete(Family::Peers, vec![KEY])];
        gone.extend((1..=6).map(|number| delete_addr(row(number).addr)));
        gone.extend([delete_anchor(0), delete_anchor(1)]);
        gone.extend(bans.iter().map(|ban| delete_ban(ban.of)));
        kv.write(&gone, true).unwrap();
        assert_eq!(PeerRows::open(&kv).unwrap(), PeerRows::default());
    }

    #[test]
    fn more_rows_than_there_may_be_are_left_and_deleted() {
        let kv = MemKv::new();
        let over = 3;
        let ops: Vec<Op> = (0..(PEER_ADDRS_MAX + over) as u32).map(|number| row(number).put()).collect();
        kv.write(&ops, true).unwrap();
        let subnet = |number: u32| Subnet::host(IpAddr::V4(number.into()));
        let bans: Vec<Op> =
            (0..(BANS_MAX + over) as u32).map(|number| Ban { of: subnet(number), until: number, why: String::new() }.put()).collect();
        kv.write(&bans, true).unwrap();
        let rows = PeerRows::open(&kv).unwrap();
        assert_eq!((rows.addrs.len(), rows.bans.len(), rows.bad.len()), (PEER_ADDRS_MAX, BANS_MAX, 2 * over));
        kv.write(&rows.bad, true).unwrap();
        assert_eq!(PeerRows::open(&kv).unwrap(), PeerRows { bad: Vec::new(), ..rows });
    }

    #[test]
    fn a_subnet_is_read_shown_and_holds_what_begins_with_its_bits() {
        for text in ["203.0.113.7", "203.0.113.0/24", "0.0.0.0/0", "2001:db8::1", "2001:db8::/32", "::/0"] {
            assert_eq!(text.parse::<Subnet>().unwrap().to_string(), text);
        }
        let same = [("203.0.113.7/32", "203.0.113.7"), ("203.0.113.7/24", "203.0.113.0/24"), ("::ffff:10.0.0.0/104", "10.0.0.0/8")];
        for (text, shown) in [&same[..2], &[("2001:db8::7/128", "2001:db8::7"), ("::ffff:10.0.0.1", "10.0.0.1")]].concat() {
            assert_eq!(text.parse::<Subnet>().unwrap().to_string(), shown);
        }
        for text in ["", "/", "10.0.0.1/", "10.0.0.1/33", "10.0.0.1/+8", "2001:db8::/129", "10.0.0/8", "pool.example", "10.0.0.1:9333"] {
            assert_eq!(text.parse::<Subnet>(), Err(NoSubnet), "{text}");
        }
        let holds = |subnet: &str, ip: &str| subnet.parse::<Subnet>().unwrap().contains(ip.parse().unwrap());
        assert!(holds("10.1.0.0/16", "10.1.255.255") && !holds("10.1.0.0/16", "10.2.0.0"));
        assert!(holds("10.1.0.0/16", "::ffff:10.1.2.3"), "whatever way it is written");
        assert!(holds("2001:db8::/32", "2001:db8:ffff::1") && !holds("2001:db8::/32", "2001:db9::"));
        assert!(!holds("0.0.0.0/0", "2001:db8::1") && holds("0.0.0.0/0", "255.255.255.255"));
        assert!(Subnet::host([10, 0, 0, 1].into()).is_host() && !holds("10.0.0.1", "10.0.0.2"));
    }
}
