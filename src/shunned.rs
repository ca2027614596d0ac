//! Addresses that are set apart for a while: miners after a flood, peers that misbehaved. Own networks are spared (DESIGN §4).

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rockpool_net::hub::counted;

/// Addresses, or IPv6 /64, each for the same time from when it came in. When there are too many the oldest is forgotten.
#[derive(Debug)]
pub struct Shunned {
    time: Duration,
    max: usize,
    until: BTreeMap<IpAddr, Duration>,
    /// All of them, the first to leave first.
    order: VecDeque<IpAddr>,
}

impl Shunned {
    /// Nobody; each will stay for this time, and so many at most.
    pub fn new(time: Duration, max: usize) -> Shunned {
        Shunned { time, max, until: BTreeMap::new(), order: VecDeque::new() }
    }

    /// Sets an address apart. Who is already keeps his time: to misbehave over and over moves nobody else out.
    pub fn add(&mut self, now: Duration, addr: SocketAddr) {
        let Some(ip) = counted(addr, true) else { return };
        while self.order.front().and_then(|first| self.until.get(first)).is_some_and(|until| *until <= now) {
            self.drop_first();
        }
        if self.until.contains_key(&ip) {
            return;
        }
        if self.order.len() >= self.max {
            self.drop_first();
        }
        self.until.insert(ip, now + self.time);
        self.order.push_back(ip);
    }

    /// Whether an address is set apart.
    pub fn contains(&self, now: Duration, addr: SocketAddr) -> bool {
        counted(addr, true).is_some_and(|ip| self.until.get(&ip).is_some_and(|until| *until > now))
    }

    /// How many there are, those whose time is over perhaps among them.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.order.pop_front() {
            self.until.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::limits::{BAN_TIME, BANS_MAX};

    fn addr(last: u32) -> SocketAddr {
        SocketAddr::from((std::net::Ipv4Addr::from(0x0808_0000 + last), 1))
    }

    #[test]
    fn their_time_ends_and_they_are_bounded() {
        let (mut shunned, now) = (Shunned::new(BAN_TIME, BANS_MAX), Duration::from_secs(5));
        shunned.add(now, addr(0));
        assert!(shunned.contains(now, addr(0)) && !shunned.contains(now, addr(1)));
        assert!(!shunned.contains(now + BAN_TIME, addr(0)));
        for last in 1..=BANS_MAX as u32 {
            shunned.add(now + Duration::from_secs(1), addr(last));
            shunned.add(now + Duration::from_secs(2), addr(last));
        }
        assert_eq!(shunned.len(), BANS_MAX, "nobody is in it twice");
        assert!(!shunned.contains(now, addr(0)) && shunned.contains(now, addr(1)) && shunned.contains(now, addr(BANS_MAX as u32)));
        shunned.add(now + 2 * BAN_TIME, addr(0));
        assert_eq!(shunned.len(), 1);
    }

    #[test]
    fn the_operators_own_networks_are_spared_and_an_ipv6_customer_is_one() {
        let (mut shunned, now) = (Shunned::new(BAN_TIME, BANS_MAX), Duration::ZERO);
        for own in ["127.0.0.1:1", "192.168.1.7:1", "10.0.0.1:1", "[::1]:1", "[fd00::1]:1"] {
            shunned.add(now, own.parse().unwrap_or(addr(0)));
        }
        assert!(shunned.is_empty());
        let [one, other]: [SocketAddr; 2] = ["[2001:db8::1]:1", "[2001:db8::2]:2"].map(|text| text.parse().unwrap_or(addr(0)));
        shunned.add(now, one);
        assert!(shunned.contains(now, other) && shunned.len() == 1);
    }
}
