//! Accepting: in bursts, within the caps of each row, with a rest when the process has no file descriptor left.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::hub::io::{Input, Io, Stage};
use crate::hub::timers::Due;
use crate::hub::{Hub, ListenerRow, Outlet};
use crate::limits::{ACCEPT_BURST, ACCEPT_PAUSE};

/// The rows with what is going on at them.
#[derive(Debug)]
pub(crate) struct Listeners {
    rows: Vec<Row>,
    /// Connections by row and address, of addresses that are not spared.
    by_addr: BTreeMap<(u16, IpAddr), usize>,
    /// The same by row and network.
    by_group: BTreeMap<(u16, IpAddr), usize>,
}

#[derive(Debug)]
struct Row {
    config: ListenerRow,
    /// There may be connections: told by an event, taken back by `WouldBlock`, so that a capped burst goes on next turn.
    ready: bool,
    /// It rests until then.
    rests: Due,
    conns: usize,
}

impl<A> Hub<A> {
    /// Accepts what there is, a burst from each listener.
    pub(super) fn accept(&mut self, io: &mut impl Io<Answer = A>) {
        io.stage(Stage::Read);
        for row in 0..self.listeners.rows.len() {
            if self.listeners.rows[row].can_accept(&self.out) {
                self.accept_burst(row, io);
            }
        }
    }

    fn accept_burst(&mut self, row: usize, io: &mut impl Io<Answer = A>) {
        let now = self.out.now.mono;
        self.listeners.rows[row].rests = Due::NEVER;
        for _ in 0..ACCEPT_BURST {
            // There is a slot always: one more than all rows and dials may take.
            let Some(id) = self.out.conns.next_id() else { return };
            match io.accept(row, id) {
                Ok(addr) if self.listeners.enter(row, addr) => {
                    let config = &self.listeners.rows[row].config;
                    self.out.admit(config.lane, config.framer, addr, Some(row as u16), config.first_frame);
                    self.out.counters.accepted.add(1);
                    self.calls.push_back((Input::Opened { conn: id, lane: config.lane, addr, listener: Some(row) }, Vec::new()));
                }
                Ok(_) => {
                    io.close(id);
                    self.out.counters.refused.add(1);
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => {
                        self.listeners.rows[row].ready = false;
                        return;
                    }
                    // That one has left again, or a signal came: the next may be there.
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset => {}
                    // EMFILE, ENFILE, ENOBUFS, ENOMEM, or something that asking again at once will not heal either.
                    _ => {
                        self.out.counters.accept_pauses.add(1);
                        self.listeners.rows[row].rests = Due::at(now + ACCEPT_PAUSE);
                        return;
                    }
                },
            }
        }
    }
}

impl Listeners {
    pub fn new(rows: Vec<ListenerRow>) -> Listeners {
        let rows = rows.into_iter().map(|config| Row { config, ready: false, rests: Due::NEVER, conns: 0 });
        Listeners { rows: rows.collect(), by_addr: BTreeMap::new(), by_group: BTreeMap::new() }
    }

    /// There may be connections at a row.
    pub fn set_ready(&mut self, row: usize) {
        if let Some(row) = self.rows.get_mut(row) {
            row.ready = true;
        }
    }

    /// Whether an accept could bring something now.
    pub fn can_accept(&self, out: &Outlet) -> bool {
        self.rows.iter().any(|row| row.can_accept(out))
    }

    /// Panics if these, all that were accepted, are not the connections that are counted.
    #[cfg(feature = "sim")]
    pub fn audit(&self, accepted: impl Iterator<Item = (u16, SocketAddr)>) {
        let (mut by_row, mut by_addr, mut by_group) = (vec![0; self.rows.len()], BTreeMap::new(), BTreeMap::new());
        for (row, addr) in accepted {
            by_row[usize::from(row)] += 1;
            if let Some(addr) = counted(addr, self.rows[usize::from(row)].config.spare_private) {
                *by_addr.entry((row, addr)).or_default() += 1;
                *by_group.entry((row, netgroup(addr))).or_default() += 1;
            }
        }
        assert_eq!(self.rows.iter().map(|row| row.conns).collect::<Vec<_>>(), by_row, "connections by listener");
        assert_eq!(self.by_addr, by_addr, "connections by address");
        assert_eq!(self.by_group, by_group, "connections by network");
    }

    /// When the first of those that rest goes on.
    pub fn rest_ends(&self, out: &Outlet) -> Due {
        let resting = self.rows.iter().filter(|row| row.ready && out.reading);
        resting.map(|row| row.rests).min().unwrap_or(Due::NEVER)
    }

    /// Counts a connection in, if the row's caps allow it.
    fn enter(&mut self, row: usize, addr: SocketAddr) -> bool {
        let Row { config, conns, .. } = &mut self.rows[row];
        if *conns >= config.conns_max {
            return false;
        }
        if let Some(addr) = counted(addr, config.spare_private) {
            let (addr, group) = ((row as u16, addr), (row as u16, netgroup(addr)));
            let [of_addr, of_group] = [(&self.by_addr, addr), (&self.by_group, group)].map(|(counts, key)| counts.get(&key).copied());
            if of_addr.unwrap_or(0) >= config.per_addr_max || of_group.unwrap_or(0) >= config.per_group_max {
                return false;
            }
            *self.by_addr.entry(addr).or_default() += 1;
            *self.by_group.entry(group).or_default() += 1;
        }
        *conns += 1;
        true
    }

    /// Counts a connection out.
    pub fn leave(&mut self, row: u16, addr: SocketAddr) {
        let Row { config, conns, .. } = &mut self.rows[usize::from(row)];
        *conns -= 1;
        if let Some(addr) = counted(addr, config.spare_private) {
            count_out(&mut self.by_addr, (row, addr));
            count_out(&mut self.by_group, (row, netgroup(addr)));
        }
    }
}

fn count_out(counts: &mut BTreeMap<(u16, IpAddr), usize>, key: (u16, IpAddr)) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

impl Row {
    fn can_accept(&self, out: &Outlet) -> bool {
        self.ready && out.reading && (self.rests == Due::NEVER || self.rests.is_past(out.now.mono))
    }
}

/// By what an address is counted: itself, or the /64 that an IPv6 customer has at least. `None` if it is spared.
pub fn counted(addr: SocketAddr, spare_private: bool) -> Option<IpAddr> {
    let ip = addr.ip().to_canonical();
    let private = match ip {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    if ip.is_loopback() || (private && spare_private) {
        return None;
    }
    Some(match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    })
}

/// The network that an address belongs to, as far as addresses tell: the IPv4 /16 or the IPv6 /32, what one provider is usually given.
pub fn netgroup(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & !0xffff)),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !(u128::MAX >> 32))),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::hub::FramerKind;
    use crate::id::Lane;
    use std::time::Duration;

    fn listeners(conns_max: usize, per_addr_max: usize, spare_private: bool) -> Listeners {
        grouped(conns_max, per_addr_max, conns_max, spare_private)
    }

    fn grouped(conns_max: usize, per_addr_max: usize, per_group_max: usize, spare_private: bool) -> Listeners {
        let (lane, framer, first_frame) = (Lane::Peer, FramerKind::V1, Duration::from_secs(10));
        Listeners::new(vec![ListenerRow { lane, framer, conns_max, per_addr_max, per_group_max, spare_private, first_frame }])
    }

    #[test]
    fn a_network_has_its_cap_and_gives_back_what_it_has() {
        let mut listeners = grouped(9, 2, 3, true);
        let addr = |text: &str| -> SocketAddr { text.parse().unwrap() };
        for taken in ["8.8.1.1:1", "8.8.1.1:2", "8.8.255.9:1"] {
            assert!(listeners.enter(0, addr(taken)), "{taken}");
        }
        for refused in ["8.8.7.7:1", "[::ffff:8.8.0.0]:1"] {
            assert!(!listeners.enter(0, addr(refused)), "{refused}: a fourth of the /16");
        }
        assert!(listeners.enter(0, addr("8.9.0.1:1")));
        assert!(["[2001:db8:1::1]:1", "[2001:db8:2::1]:1", "[2001:db8:3::1]:1"].iter().all(|of| listeners.enter(0, addr(of))));
        assert!(!listeners.enter(0, addr("[2001:db8:4::1]:1")), "a fourth of the /32");
        listeners.leave(0, addr("8.8.1.1:1"));
        assert!(listeners.enter(0, addr("8.8.7.7:1")) && !listeners.enter(0, addr("8.8.6.6:1")));
        let mut spared = grouped(9, 9, 0, true);
        assert!(spared.enter(0, addr("127.0.0.1:1")) && spared.enter(0, addr("10.1.1.1:1")) && !spared.enter(0, addr("8.8.8.8:1")));
        spared.leave(0, addr("10.1.1.1:1"));
        assert_eq!(spared.rows[0].conns, 1);
    }

    #[test]
    fn caps_by_row_and_address_are_kept_and_given_back() {
        let mut listeners = listeners(3, 2, false);
        let (a, b): (SocketAddr, SocketAddr) = ("8.8.8.8:1".parse().unwrap(), "9.9.9.9:1".parse().unwrap());
        assert!(listeners.enter(0, a) && listeners.enter(0, a));
        assert!(!listeners.enter(0, a), "a third of one address");
        assert!(listeners.enter(0, b));
        assert!(!listeners.enter(0, "7.7.7.7:1".parse().unwrap()), "a fourth of the row");
        listeners.leave(0, a);
        assert!(listeners.enter(0, a));
        [a, a, b].iter().for_each(|&addr| listeners.leave(0, addr));
        assert_eq!((listeners.rows[0].conns, listeners.by_addr.len()), (0, 0));
    }

    #[test]
    fn an_ipv6_network_counts_as_one_and_a_mapped_address_as_itself() {
        let mut v6 = listeners(9, 1, false);
        assert!(v6.enter(0, "[2001:db8::1]:1".parse().unwrap()));
        assert!(!v6.enter(0, "[2001:db8::ffff:2]:1".parse().unwrap()));
        assert!(v6.enter(0, "[2001:db8:0:1::1]:1".parse().unwrap()));
        assert!(v6.enter(0, "8.8.8.8:1".parse().unwrap()));
        assert!(!v6.enter(0, "[::ffff:8.8.8.8]:1".parse().unwrap()));
    }

    #[test]
    fn loopback_is_spared_and_private_networks_where_the_row_says_so() {
        let [home, lan, lan6]: [SocketAddr; 3] = ["127.0.0.1:1", "192.168.1.7:1", "[fd00::1]:1"].map(|addr| addr.parse().unwrap());
        let (mut peers, mut miners) = (listeners(9, 0, false), listeners(9, 0, true));
        assert!(peers.enter(0, home) && miners.enter(0, home));
        assert!(!peers.enter(0, lan) && !peers.enter(0, lan6));
        assert!(miners.enter(0, lan) && miners.enter(0, lan6));
    }
}
