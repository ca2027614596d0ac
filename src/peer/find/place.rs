//! Where addresses are: which of them can be reached at all, and which are likely to be one owner's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An address in its one form: IPv4 as IPv4, no scope.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Whether it is this machine or of a private network: its owner is who owns ours.
pub fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
    }
}

/// Whether all of the internet can reach it.
pub fn is_routable(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => routable4(ip),
        IpAddr::V6(ip) => routable6(ip),
    }
}

/// Without this network, private ones, carriers' own, link-local ones, those of protocols, examples and benchmarks, and multicast.
fn routable4(ip: Ipv4Addr) -> bool {
    let special = match ip.octets() {
        [0 | 10 | 127 | 224.., ..] => true,
        [100, second, ..] => second & 0xc0 == 64,
        [169, 254, ..] | [192, 168, ..] | [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 18 | 19, ..] => true,
        [172, second, ..] => second & 0xf0 == 16,
        [198, 51, 100, _] | [203, 0, 113, _] => true,
        _ => false,
    };
    !special
}

/// Global unicast without examples, and without tunnels: of those everybody has many, one for each address that he can make up.
fn routable6(ip: Ipv6Addr) -> bool {
    let special = match ip.segments() {
        [0x2001, second, ..] => second < 0x200 || second == 0xdb8,
        [0x2002, ..] => true,
        [0x3fff, second, ..] => second < 0x1000,
        _ => false,
    };
    ip.segments()[0] & 0xe000 == 0x2000 && !special
}

/// The netgroup of an address: what one owner easily has much of. /16 of IPv4, /32 of IPv6; a local address is a group of its own, with its
/// port, since a household and a test have several nodes there. No group is the beginning of another.
pub fn group(addr: SocketAddr) -> Vec<u8> {
    match addr.ip().to_canonical() {
        ip if is_local(ip) => [&[0], &bytes(SocketAddr::new(ip, addr.port()))[..]].concat(),
        IpAddr::V4(ip) => [&[4], &ip.octets()[..2]].concat(),
        IpAddr::V6(ip) => [&[6], &ip.octets()[..4]].concat(),
    }
}

/// An address in 18 bytes.
pub fn bytes(addr: SocketAddr) -> [u8; 18] {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&addr.port().to_be_bytes());
    bytes
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_reached_is_told_from_what_can() {
        for ip in ["1.2.3.4", "100.63.0.1", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1", "223.255.255.255", "2001:200::1"] {
            assert!(is_routable(ip.parse().unwrap()) && !is_local(ip.parse().unwrap()), "{ip}");
        }
        let special = [
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.1.1",
            "172.16.0.1",
            "172.31.255.1",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "64:ff9b::1",
            "fc00::1",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2001:10::1",
            "2002:102:304::1",
            "3fff::1",
            "4000::1",
        ];
        for ip in special {
            assert!(!is_routable(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["10.0.0.1", "127.1.2.3", "172.20.0.1", "192.168.1.1", "::1", "fd00::1", "::ffff:127.0.0.1"] {
            assert!(is_local(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn groups_are_what_one_owner_has_much_of() {
        let of = |addr: &str| group(addr.parse().unwrap());
        assert_eq!(of("1.2.3.4:9333"), of("1.2.200.1:1"));
        assert_ne!(of("1.2.3.4:9333"), of("1.3.3.4:9333"));
        assert_eq!(of("[::ffff:1.2.3.4]:9333"), of("1.2.3.4:9333"));
        assert_eq!(of("[2001:200:1::1]:9333"), of("[2001:200:2::1]:9333"));
        assert_ne!(of("[2001:200::1]:9333"), of("[2001:201::1]:9333"));
        assert_ne!(of("127.0.0.1:1"), of("127.0.0.1:2"));
        assert_ne!(of("10.0.0.1:1"), of("10.0.0.2:1"));
        assert_eq!(canonical("[::ffff:1.2.3.4]:5".parse().unwrap()), "1.2.3.4:5".parse().unwrap());
    }
}
