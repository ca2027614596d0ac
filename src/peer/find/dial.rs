//! Peers and Bitcoin nodes from the configuration: dialled, and dialled again for ever, with growing pauses.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rockpool_net::close::CloseReason;
use rockpool_net::hub::Outlet;
use rockpool_net::id::{ConnId, Lane};
use rockpool_net::transport::Wrapping;

use crate::limits::{DIAL_FIRST, DIAL_GOOD, DIAL_LAST, PEERS_CONFIGURED_MAX};
use crate::peer::find::wrap::Wrap;

/// One peer to dial.
#[derive(Debug)]
struct Row {
    addr: SocketAddr,
    /// The dial under way or the connection that stands.
    conn: Option<ConnId>,
    /// When its handshake was done, on this connection.
    up: Option<Duration>,
    /// When it is dialled next.
    next: Duration,
    /// The pause after the next failure.
    pause: Duration,
    /// v2 or v1.
    wrap: Wrap,
}

/// All peers to dial of one kind.
#[derive(Debug)]
pub struct Dials {
    lane: Lane,
    rows: Vec<Row>,
    /// Nonces of our `version`s on connections that we dialled: who hears one has dialled himself.
    nonces: BTreeMap<u64, ConnId>,
}

impl Dials {
    /// To be dialled at once.
    pub fn new(lane: Lane, peers: &[SocketAddr]) -> Dials {
        Dials { lane, rows: peers.iter().map(|addr| Row::new(*addr, Duration::ZERO)).collect(), nonces: BTreeMap::new() }
    }

    /// Dials all that are due, but for banned ones.
    pub fn dial(&mut self, now: Duration, banned: impl Fn(IpAddr) -> bool, out: &mut Outlet) {
        for row in self.rows.iter_mut().filter(|row| row.conn.is_none() && row.next <= now) {
            if banned(row.addr.ip()) {
                row.fail(now);
                continue;
            }
            match out.dial(self.lane, row.addr, row.wrap.dial(now)) {
                Ok(conn) => row.conn = Some(conn),
                Err(why) => {
                    log::info!("node {} cannot be dialled: {why}; it is tried again", row.addr);
                    row.fail(now);
                }
            }
        }
    }

    /// One more, or one that is there already, to be dialled at once. Whether there is room for it.
    pub fn add(&mut self, now: Duration, addr: SocketAddr) -> bool {
        if let Some(row) = self.rows.iter_mut().find(|row| row.addr == addr) {
            (row.next, row.pause) = (now, DIAL_FIRST);
            return true;
        }
        let room = self.rows.len() < PEERS_CONFIGURED_MAX;
        if room {
            self.rows.push(Row::new(addr, now));
        }
        room
    }

    /// Their addresses.
    pub fn addrs(&self) -> impl Iterator<Item = SocketAddr> {
        self.rows.iter().map(|row| row.addr)
    }

    /// Whether a peer of this address is among them.
    pub fn names(&self, ip: IpAddr) -> bool {
        self.rows.iter().any(|row| row.addr.ip().to_canonical() == ip.to_canonical())
    }

    /// When the next dial is due.
    pub fn due(&self) -> Option<Duration> {
        self.rows.iter().filter(|row| row.conn.is_none()).map(|row| row.next).min()
    }

    /// We have said `version` on a connection that we dialled.
    pub fn spoke(&mut self, conn: ConnId, nonce: u64) {
        self.nonces.insert(nonce, conn);
    }

    /// Whether a nonce that we hear is our own; then its row is dropped: the address is this node's.
    pub fn is_self(&mut self, nonce: u64) -> bool {
        let Some(conn) = self.nonces.get(&nonce) else { return false };
        if let Some(index) = self.rows.iter().position(|row| row.conn == Some(*conn)) {
            let row = self.rows.swap_remove(index);
            log::warn!("{} is this node itself; it is not dialled again", row.addr);
        }
        true
    }

    /// The handshake on this connection is done.
    pub fn up(&mut self, now: Duration, conn: ConnId, wrapping: Wrapping) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.conn == Some(conn)) {
            row.up = Some(now);
            row.wrap.up(now, wrapping);
        }
    }

    /// What is behind this connection is left alone for so long once it has ended.
    pub fn rest(&mut self, conn: ConnId, pause: Duration) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.conn == Some(conn)) {
            (row.up, row.pause) = (None, pause);
        }
    }

    /// The address of a dial, unless it failed the time before too.
    pub fn failed_first(&self, conn: ConnId) -> Option<SocketAddr> {
        self.rows.iter().find(|row| row.conn == Some(conn) && row.pause == DIAL_FIRST).map(|row| row.addr)
    }

    /// A dial has failed or a connection ended. One that stood long was a good one; one that was not v2 is dialled at once for v1, once.
    pub fn closed(&mut self, now: Duration, conn: ConnId, why: &CloseReason) {
        self.nonces.retain(|_, of| *of != conn);
        if let Some(row) = self.rows.iter_mut().find(|row| row.conn == Some(conn)) {
            if row.up.is_some_and(|up| now.saturating_sub(up) >= DIAL_GOOD) {
                row.pause = DIAL_FIRST;
            }
            if row.wrap.closed(why) {
                (row.conn, row.next) = (None, now);
            } else {
                row.fail(now);
            }
        }
    }
}

impl Row {
    fn new(addr: SocketAddr, next: Duration) -> Row {
        Row { addr, conn: None, up: None, next, pause: DIAL_FIRST, wrap: Wrap::default() }
    }

    fn fail(&mut self, now: Duration) {
        (self.conn, self.up, self.next) = (None, None, now + self.pause);
        self.pause = (self.pause * 2).min(DIAL_LAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONN: ConnId = ConnId { slot: 3, generation: 1 };

    fn dialled() -> Dials {
        let mut dials = Dials::new(Lane::Peer, &[SocketAddr::from(([127, 0, 0, 1], 9333))]);
        dials.rows[0].conn = Some(CONN);
        dials
    }

    #[test]
    fn pauses_double_to_a_minute_and_begin_anew_after_a_good_connection() {
        let mut dials = dialled();
        let mut pauses = Vec::new();
        for second in 1..9 {
            let now = Duration::from_secs(second * 100);
            dials.rows[0].conn = Some(CONN);
            assert_eq!(dials.due(), None);
            dials.closed(now, CONN, &CloseReason::Remote);
            pauses.push(dials.due().unwrap_or_default().saturating_sub(now).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        dials.rows[0].conn = Some(CONN);
        dials.up(Duration::from_secs(2_000), CONN, Wrapping::V2);
        dials.closed(Duration::from_secs(2_000) + DIAL_GOOD, CONN, &CloseReason::Remote);
        assert_eq!(dials.due(), Some(Duration::from_secs(2_000) + DIAL_GOOD + DIAL_FIRST));
    }

    #[test]
    fn who_broke_the_rules_is_left_alone_and_then_begins_anew() {
        let (mut dials, hour) = (dialled(), Duration::from_secs(3_600));
        assert!(dials.failed_first(CONN).is_some());
        dials.up(Duration::ZERO, CONN, Wrapping::V2);
        dials.rest(CONN, hour);
        assert!(dials.failed_first(CONN).is_none());
        dials.closed(DIAL_GOOD, CONN, &CloseReason::Remote);
        assert_eq!(dials.due(), Some(DIAL_GOOD + hour));
        dials.rows[0].conn = Some(CONN);
        dials.closed(2 * hour, CONN, &CloseReason::Remote);
        assert_eq!(dials.due(), Some(2 * hour + DIAL_LAST));
    }

    #[test]
    fn what_is_no_v2_is_dialled_at_once_and_then_after_the_pause() {
        let mut dials = dialled();
        let (now, not_v2) = (Duration::from_secs(100), CloseReason::NotV2("test".into()));
        dials.closed(now, CONN, &not_v2);
        assert_eq!((dials.due(), dials.rows[0].wrap.dial(now)), (Some(now), Wrapping::V1));
        dials.rows[0].conn = Some(CONN);
        dials.closed(now, CONN, &CloseReason::Remote);
        assert_eq!((dials.due(), dials.rows[0].wrap.dial(now)), (Some(now + DIAL_FIRST), Wrapping::V2));
    }

    #[test]
    fn who_hears_his_own_nonce_is_not_dialled_again() {
        let mut dials = dialled();
        dials.spoke(CONN, 7);
        assert!(!dials.is_self(8));
        assert!(dials.is_self(7));
        dials.closed(Duration::ZERO, CONN, &CloseReason::Remote);
        assert_eq!(dials.due(), None);
        assert!(!dials.is_self(7), "a nonce is forgotten with its connection");
    }
}
