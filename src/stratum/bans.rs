//! Floods of invalid shares: what makes one, and who is kept out after it (DESIGN §4: bans spare the operator's own networks, where the
//! connection alone ends).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rockpool_net::hub::counted;

use crate::limits::{BAN_TIME, BANS_MAX, INVALID_SPAN, INVALID_SUBMITS_MAX};

/// Invalid submits of one miner since its last good one. Duplicates and stale ones are none: sound firmware sends them (ESP-Miner 1587).
#[derive(Debug, Default)]
pub struct Flood {
    count: u32,
    since: Duration,
}

impl Flood {
    /// Another one. Whether it is a flood by now.
    pub fn invalid(&mut self, now: Duration) -> bool {
        if now.saturating_sub(self.since) >= INVALID_SPAN {
            (self.count, self.since) = (0, now);
        }
        self.count = self.count.saturating_add(1);
        self.is_one()
    }

    /// A good one: whoever finds shares is no flood.
    pub fn good(&mut self) {
        self.count = 0;
    }

    /// Whether it was one.
    pub fn is_one(&self) -> bool {
        self.count >= INVALID_SUBMITS_MAX
    }
}

/// Addresses that are kept out, and until when.
#[derive(Debug, Default)]
pub struct Bans {
    until: BTreeMap<IpAddr, Duration>,
}

impl Bans {
    /// Keeps an address out for [`BAN_TIME`]; who would come back first makes room.
    pub fn ban(&mut self, now: Duration, addr: SocketAddr) {
        let Some(ip) = counted(addr, true) else { return };
        self.until.retain(|_, until| *until > now);
        if self.until.len() >= BANS_MAX
            && let Some(first) = self.until.iter().min_by_key(|(_, until)| **until).map(|(ip, _)| *ip)
        {
            self.until.remove(&first);
        }
        self.until.insert(ip, now + BAN_TIME);
    }

    /// Whether an address is kept out.
    pub fn banned(&self, now: Duration, addr: SocketAddr) -> bool {
        counted(addr, true).is_some_and(|ip| self.until.get(&ip).is_some_and(|until| *until > now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(last: u32) -> SocketAddr {
        SocketAddr::from((std::net::Ipv4Addr::from(0x0808_0000 + last), 1))
    }

    #[test]
    fn a_flood_is_many_in_a_row_at_once() {
        let mut flood = Flood::default();
        let now = Duration::from_secs(100);
        assert!((1..INVALID_SUBMITS_MAX).all(|_| !flood.invalid(now)));
        flood.good();
        assert!((1..INVALID_SUBMITS_MAX).all(|_| !flood.invalid(now)));
        assert!(!flood.invalid(now + INVALID_SPAN), "slow nonsense is none");
        assert!((2..INVALID_SUBMITS_MAX).all(|_| !flood.invalid(now + INVALID_SPAN)));
        assert!(flood.invalid(now + INVALID_SPAN) && flood.is_one());
    }

    #[test]
    fn bans_end_and_are_bounded() {
        let (mut bans, now) = (Bans::default(), Duration::from_secs(5));
        bans.ban(now, addr(0));
        assert!(bans.banned(now, addr(0)) && !bans.banned(now, addr(1)));
        assert!(!bans.banned(now + BAN_TIME, addr(0)));
        (1..=BANS_MAX as u32).for_each(|last| bans.ban(now + Duration::from_secs(1), addr(last)));
        assert_eq!(bans.until.len(), BANS_MAX);
        assert!(!bans.banned(now, addr(0)) && bans.banned(now, addr(1)) && bans.banned(now, addr(BANS_MAX as u32)));
        bans.ban(now + 2 * BAN_TIME, addr(0));
        assert_eq!(bans.until.len(), 1);
    }

    #[test]
    fn the_operators_own_networks_are_spared() {
        let (mut bans, now) = (Bans::default(), Duration::ZERO);
        for own in [[127, 0, 0, 1], [192, 168, 1, 7], [10, 0, 0, 1]] {
            bans.ban(now, SocketAddr::from((own, 1)));
        }
        assert!(bans.until.is_empty());
    }
}
