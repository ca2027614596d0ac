//! Addresses of peers, as BIP155 lays them out in `addrv2`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::limits::{ADDR_BYTES_MAX, ADDRS_MAX};
use crate::wire::WireError;
use crate::wire::codec::{Reader, Writer};

/// Fewest bytes of an entry: time, services and lengths of one byte each, no address, port.
const ENTRY_BYTES_MIN: usize = 4 + 1 + 1 + 1 + 2;
/// Most bytes of an entry whose address is of a known network: services of nine bytes, an address of 32.
pub(super) const ENTRY_BYTES: usize = 4 + 9 + 1 + 1 + 32 + 2;

const IPV4: u8 = 1;
const IPV6: u8 = 2;

/// An address that a peer tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddrEntry {
    /// When the node there was seen last, Unix seconds.
    pub time: u32,
    /// What it offers.
    pub services: u64,
    /// Where it is.
    pub host: Host,
    /// Its port.
    pub port: u16,
}

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// On the internet.
    Ip(IpAddr),
    /// In a network that we do not dial into, kept as it came. An IPv6 address that is a mapped IPv4 one is of none either: it should have
    /// come as what it is.
    Other(u8, Box<[u8]>),
}

impl AddrEntry {
    /// One of the internet.
    pub fn new(addr: SocketAddr, services: u64, time: u32) -> AddrEntry {
        AddrEntry { time, services, host: Host::Ip(addr.ip().to_canonical()), port: addr.port() }
    }

    /// Its address, if it is one that can be dialled.
    pub fn socket(&self) -> Option<SocketAddr> {
        match &self.host {
            Host::Ip(ip) => Some(SocketAddr::new(*ip, self.port)),
            Host::Other(..) => None,
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<AddrEntry, WireError> {
        let (time, services, network) = (reader.u32()?, reader.compact_size()?, reader.u8()?);
        let bytes = reader.count("bytes of an address", ADDR_BYTES_MAX, 1)?;
        check_length(network, bytes)?;
        let bytes = reader.take(bytes)?;
        let host = Host::of(network, bytes);
        Ok(AddrEntry { time, services, host, port: u16::from_be_bytes(reader.array()?) })
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        let (v4, v6);
        let (network, bytes): (u8, &[u8]) = match &self.host {
            Host::Ip(IpAddr::V4(ip)) => {
                v4 = ip.octets();
                (IPV4, &v4)
            }
            Host::Ip(IpAddr::V6(ip)) => {
                v6 = ip.octets();
                (IPV6, &v6)
            }
            Host::Other(network, bytes) => (*network, bytes),
        };
        // It would read as another.
        if bytes.len() > ADDR_BYTES_MAX || Host::of(network, bytes) != self.host {
            return Err(WireError::Bad("address"));
        }
        check_length(network, bytes.len())?;
        writer.u32(self.time);
        writer.compact_size(self.services);
        writer.u8(network);
        writer.compact_size(bytes.len() as u64);
        writer.put(bytes);
        writer.put(&self.port.to_be_bytes());
        Ok(())
    }
}

impl Host {
    fn of(network: u8, bytes: &[u8]) -> Host {
        let ip = match network {
            IPV4 => <[u8; 4]>::try_from(bytes).ok().map(|ip| IpAddr::V4(Ipv4Addr::from(ip))),
            IPV6 => <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from).filter(|ip| ip.to_ipv4_mapped().is_none()).map(IpAddr::V6),
            _ => None,
        };
        ip.map_or_else(|| Host::Other(network, bytes.into()), Host::Ip)
    }
}

/// A known network's addresses have one length; who says otherwise speaks another protocol. Of unknown networks nothing is known.
fn check_length(network: u8, bytes: usize) -> Result<(), WireError> {
    let wanted = match network {
        IPV4 => 4,
        IPV6 | 6 => 16,
        3 => 10,
        4 | 5 => 32,
        _ => bytes,
    };
    if bytes == wanted { Ok(()) } else { Err(WireError::Bad("length of an address")) }
}

pub(super) fn read_addrs(reader: &mut Reader<'_>) -> Result<Vec<AddrEntry>, WireError> {
    let count = reader.count("addresses", ADDRS_MAX, ENTRY_BYTES_MIN)?;
    let mut addrs = Vec::with_capacity(count);
    for _ in 0..count {
        addrs.push(AddrEntry::read(reader)?);
    }
    Ok(addrs)
}

pub(super) fn write_addrs(writer: &mut Writer, addrs: &[AddrEntry]) -> Result<(), WireError> {
    if addrs.len() > ADDRS_MAX {
        return Err(WireError::TooMany { what: "addresses", count: addrs.len() as u64, max: ADDRS_MAX });
    }
    writer.compact_size(addrs.len() as u64);
    addrs.iter().try_for_each(|addr| addr.write(writer))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn entry(host: Host) -> AddrEntry {
        AddrEntry { time: 0x0102_0304, services: 0x0901, host, port: 9_333 }
    }

    fn written(entry: &AddrEntry) -> Result<Vec<u8>, WireError> {
        let mut writer = Writer::default();
        entry.write(&mut writer)?;
        Ok(writer.into_bytes())
    }

    /// The fields of BIP155, byte by byte.
    #[test]
    fn entries_have_the_layout_of_bip155() {
        let head = [4, 3, 2, 1, 0xfd, 0x01, 0x09];
        let v4 = [&head[..], &[1, 4, 203, 0, 113, 7], &[0x24, 0x75]].concat();
        assert_eq!(written(&entry(Host::Ip([203, 0, 113, 7].into()))).unwrap(), v4);
        let ip: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let v6 = [&head[..], &[2, 16], &ip.octets(), &[0x24, 0x75]].concat();
        assert_eq!(written(&entry(Host::Ip(ip.into()))).unwrap(), v6);
        let mapped = AddrEntry::new("[::ffff:203.0.113.7]:9333".parse().unwrap(), 0x0901, 0x0102_0304);
        assert_eq!(written(&mapped).unwrap(), v4, "an address has one form");
    }

    #[test]
    fn what_cannot_be_dialled_is_read_over_and_what_breaks_bip155_is_refused() {
        let read = |network: u8, bytes: usize| {
            let mut writer = Writer::default();
            [&[1, 0, 0, 0, 9, network][..]].iter().for_each(|head| writer.put(head));
            writer.compact_size(bytes as u64);
            writer.put(&vec![7; bytes]);
            writer.put(&[0x24, 0x75]);
            AddrEntry::read(&mut Reader::new(&writer.into_bytes()))
        };
        for (network, bytes) in [(3, 10), (4, 32), (5, 32), (6, 16), (0, 0), (99, 1), (255, ADDR_BYTES_MAX)] {
            let entry = read(network, bytes).unwrap();
            assert_eq!((entry.socket(), entry.host), (None, Host::Other(network, vec![7; bytes].into())));
        }
        for (network, bytes) in [(1, 3), (1, 16), (2, 4), (3, 11), (4, 10), (5, 31), (6, 4)] {
            assert_eq!(read(network, bytes), Err(WireError::Bad("length of an address")), "{network}, {bytes} bytes");
        }
        assert!(matches!(read(99, ADDR_BYTES_MAX + 1), Err(WireError::TooMany { .. })));
        // A mapped IPv4 address under IPv6's number is neither.
        let mapped: Ipv6Addr = "::ffff:203.0.113.7".parse().unwrap();
        let other = entry(Host::Other(IPV6, mapped.octets().into()));
        let bytes = written(&other).unwrap();
        assert_eq!(AddrEntry::read(&mut Reader::new(&bytes)).unwrap(), other);
        assert_eq!(other.socket(), None);
        assert_eq!(written(&entry(Host::Ip(mapped.into()))), Err(WireError::Bad("address")));
        assert_eq!(written(&entry(Host::Other(IPV4, [1, 2, 3, 4].into()))), Err(WireError::Bad("address")));
    }
}
