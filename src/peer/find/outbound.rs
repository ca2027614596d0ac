//! Whom to dial from the address book, when, and who of them has to make room.
//!
//! At a start the anchors first, then what the book gives, until [`OUTBOUND_TARGET`] stand with those of the configuration; one of each
//! netgroup. Every two minutes or so a *feeler* shakes hands with an address of *new* and leaves, so that *tried* holds what answers. Who
//! dialled us has no say in any of it.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng;
use rockpool_net::id::ConnId;
use rockpool_net::time::Now;
use rockpool_store::kv::Op;
use rockpool_store::limits::ANCHORS_MAX;
use rockpool_store::peers::{AddrRow, delete_anchor, put_anchor};

use crate::limits::{
    ANCHOR_AFTER, BACKOFF_BAD_S, BACKOFF_FIRST_S, BACKOFF_LAST_S, BEHIND_MAX, DIAL_LOOK, DIAL_PAUSE, DIALS_AT_ONCE, FEELER_EVERY,
    OUTBOUND_TARGET, PUSH_DEPTH,
};
use crate::peer::find::book::{Book, keyed};
use crate::peer::find::place::{bytes, canonical, group, is_local};

/// Why an address is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// To stay.
    Peer,
    /// To see whether it answers.
    Feeler,
}

/// What there is beside the book's own connections.
pub struct Around<'a> {
    /// Peers of the configuration: others dial them.
    pub configured: &'a [SocketAddr],
    /// Those of them that are there.
    pub outbound: &'a [SocketAddr],
    /// Where peers listen that have dialled us.
    pub inbound: &'a BTreeSet<SocketAddr>,
    /// Whether an address is kept out.
    pub is_banned: &'a dyn Fn(IpAddr) -> bool,
}

/// A connection of the book's, or a dial.
#[derive(Debug)]
struct Row {
    addr: SocketAddr,
    conn: ConnId,
    aim: Aim,
    nonce: Option<u64>,
    /// Since when its handshake is done.
    up: Option<Duration>,
    /// Since when its chain has been far behind ours.
    behind: Option<Duration>,
}

/// Connections that the book gave, and the next.
#[derive(Debug)]
pub struct Outbound {
    rows: Vec<Row>,
    /// Those on disk.
    anchors: Vec<SocketAddr>,
    /// Those that are to be dialled before any other.
    first: VecDeque<SocketAddr>,
    next: Duration,
    feeler: Option<Duration>,
    /// When it is looked at who has become an anchor, and who is behind.
    look: Option<Duration>,
}

impl Outbound {
    /// Nobody yet; the anchors will be dialled first.
    pub fn new(anchors: &[SocketAddr]) -> Outbound {
        let first = anchors.iter().copied().collect();
        Outbound { rows: Vec::new(), anchors: anchors.to_vec(), first, next: Duration::ZERO, feeler: None, look: None }
    }

    /// Whom to dial now, if anybody. It counts as dialled: [`Outbound::began`] follows, unless there was no slot.
    pub fn next(&mut self, now: Now, book: &mut Book, rng: &mut ChaCha12Rng, around: &Around<'_>) -> Option<(SocketAddr, Aim)> {
        if now.mono < self.next {
            return None;
        }
        if self.rows.iter().filter(|row| row.up.is_none()).count() >= DIALS_AT_ONCE {
            self.next = now.mono + DIAL_PAUSE;
            return None;
        }
        let peers = self.rows.iter().filter(|row| row.aim == Aim::Peer).count() + around.outbound.len();
        let wanted = if peers < OUTBOUND_TARGET { self.peer(now, book, rng, around).map(|addr| (addr, Aim::Peer)) } else { None };
        let wanted = wanted.or_else(|| self.feeler(now, book, rng, around).map(|addr| (addr, Aim::Feeler)));
        self.next = now.mono + if wanted.is_some() { DIAL_PAUSE } else { DIAL_LOOK };
        if let Some((addr, _)) = wanted {
            if self.is_online(around) {
                book.online(now.unix());
            }
            book.dialled(now.unix(), addr);
        }
        wanted
    }

    /// Whether somebody answers whom we have dialled, and who is not of our own house.
    fn is_online(&self, around: &Around<'_>) -> bool {
        self.rows.iter().any(|row| row.up.is_some()) || around.outbound.iter().any(|addr| !is_local(addr.ip()))
    }

    /// Whether an address has had its pause. One that is worth no place has a long one while others answer, unless it was seen since: who
    /// told of it may have made it up, and it would be a stranger's, who is knocked at by all of the network.
    fn has_rested(&self, now: Now, book: &Book, addr: SocketAddr, online: bool) -> bool {
        let Some(row) = book.row(addr) else { return true };
        let last = if online && row.seen <= row.tried_at && book.is_bad(now.unix(), addr) { BACKOFF_BAD_S } else { 0 };
        rested(now.unix(), row, book.key()) && (row.tried_at > now.unix() || now.unix() - row.tried_at >= last)
    }

    fn peer(&mut self, now: Now, book: &Book, rng: &mut ChaCha12Rng, around: &Around<'_>) -> Option<SocketAddr> {
        let others = self.rows.iter().filter(|row| row.aim == Aim::Peer).map(|row| row.addr).chain(around.outbound.iter().copied());
        let groups: BTreeSet<_> = others.map(group).collect();
        let may = |addr: SocketAddr| self.is_free(addr, around) && !groups.contains(&group(addr));
        let mut first = self.first.clone();
        while let Some(anchor) = first.pop_front() {
            if may(anchor) && book.may_hold(anchor) {
                self.first = first;
                return Some(anchor);
            }
        }
        let online = self.is_online(around);
        let picked = book.pick(now.unix(), rng, false, &|addr| may(addr) && self.has_rested(now, book, addr, online));
        self.first = first;
        picked
    }

    /// One of *tried* whose place is wanted, or one of *new*, now and then, once our line is known to work.
    fn feeler(&mut self, now: Now, book: &mut Book, rng: &mut ChaCha12Rng, around: &Around<'_>) -> Option<SocketAddr> {
        let due = *self.feeler.get_or_insert_with(|| now.mono + pause(FEELER_EVERY, rng));
        let online = self.rows.iter().any(|row| row.up.is_some()) || !around.outbound.is_empty();
        if now.mono < due || !online {
            return None;
        }
        self.feeler = Some(now.mono + pause(FEELER_EVERY, rng));
        let stands = self.rows.iter().filter(|row| row.up.is_some()).map(|row| row.addr).chain(around.outbound.iter().copied());
        let stands: BTreeSet<_> = stands.map(canonical).collect();
        for addr in book.doubted(now.unix()).into_iter().filter(|addr| stands.contains(addr)) {
            // Who is connected answers.
            let services = book.row(addr).map_or(0, |row| row.services);
            book.good(now.unix(), addr, services);
        }
        let doubted = book.doubted(now.unix()).into_iter().find(|addr| self.is_free(*addr, around));
        let book = &*book;
        doubted.or_else(|| book.pick(now.unix(), rng, true, &|addr| self.is_free(addr, around) && self.has_rested(now, book, addr, online)))
    }

    /// Nobody has a connection to it, and nobody forbids one.
    fn is_free(&self, addr: SocketAddr, around: &Around<'_>) -> bool {
        let known = self.rows.iter().any(|row| row.addr == addr);
        let theirs = around.configured.iter().chain(around.outbound).any(|of| canonical(*of) == addr) || around.inbound.contains(&addr);
        !known && !theirs && !(around.is_banned)(addr.ip())
    }

    /// The dial of what [`Outbound::next`] gave has begun.
    pub fn began(&mut self, addr: SocketAddr, aim: Aim, conn: ConnId) {
        self.rows.push(Row { addr, conn, aim, nonce: None, up: None, behind: None });
    }

    /// The address that the book gave for this connection.
    pub fn addr(&self, conn: ConnId) -> Option<SocketAddr> {
        self.rows.iter().find(|row| row.conn == conn).map(|row| row.addr)
    }

    /// Whether this connection only sees whether an address answers.
    pub fn is_feeler(&self, conn: ConnId) -> bool {
        self.rows.iter().any(|row| row.conn == conn && row.aim == Aim::Feeler)
    }

    /// A dial is done once more at once, under another name.
    pub fn again(&mut self, conn: ConnId, again: ConnId) {
        if let Some(row) = self.row_mut(conn) {
            (row.conn, row.nonce) = (again, None);
        }
    }

    /// We have said `version` on a connection that we dialled.
    pub fn spoke(&mut self, conn: ConnId, nonce: u64) {
        if let Some(row) = self.row_mut(conn) {
            row.nonce = Some(nonce);
        }
    }

    /// The address that turned out to be our own: we hear the nonce that we sent there.
    pub fn own_addr(&self, nonce: u64) -> Option<SocketAddr> {
        self.rows.iter().find(|row| row.nonce == Some(nonce)).map(|row| row.addr)
    }

    /// The handshake on this connection is done. What it was for, if the book gave it.
    pub fn up(&mut self, now: Duration, conn: ConnId) -> Option<Aim> {
        let row = self.row_mut(conn)?;
        row.up = Some(now);
        let aim = row.aim;
        self.look = Some(self.look.map_or(now + ANCHOR_AFTER, |look| look.min(now + ANCHOR_AFTER)));
        Some(aim)
    }

    /// A dial has failed or a connection ended. Its address, if the book gave it, and whether it was up.
    pub fn closed(&mut self, now: Duration, conn: ConnId) -> Option<(SocketAddr, bool)> {
        let place = self.rows.iter().position(|row| row.conn == conn)?;
        let row = self.rows.remove(place);
        self.hurry(now);
        Some((row.addr, row.up.is_some()))
    }

    /// There may be somebody to dial.
    pub fn hurry(&mut self, now: Duration) {
        self.next = self.next.min(now + DIAL_PAUSE);
    }

    /// Whether the book gave this connection.
    pub fn holds(&self, conn: ConnId) -> bool {
        self.rows.iter().any(|row| row.conn == conn)
    }

    /// When to dial or to look next.
    pub fn due(&self) -> Duration {
        self.look.map_or(self.next, |look| look.min(self.next))
    }

    /// Whether it is time to look who has become an anchor, and who is behind.
    pub fn is_look_due(&self, now: Duration) -> bool {
        self.look.is_some_and(|look| look <= now)
    }

    /// Who should make room, if it is time to look: who has been far below our height for long, or says nothing of his, while another of
    /// those whom we dialled is not. `height` tells what a connection claims.
    pub fn look(&mut self, now: Duration, ours: u32, height: &dyn Fn(ConnId) -> Option<u32>) -> Option<(ConnId, SocketAddr)> {
        if !self.is_look_due(now) {
            return None;
        }
        let up = || self.rows.iter().any(|row| row.up.is_some());
        self.look = up().then_some(now + ANCHOR_AFTER);
        for row in self.rows.iter_mut().filter(|row| row.up.is_some()) {
            let behind = height(row.conn).is_none_or(|height| height.saturating_add(PUSH_DEPTH) < ours);
            row.behind = behind.then(|| row.behind.unwrap_or(now));
        }
        let others = self.rows.iter().any(|row| row.up.is_some() && row.behind.is_none());
        let late = |row: &&Row| row.behind.is_some_and(|since| now.saturating_sub(since) >= BEHIND_MAX);
        self.rows.iter().find(late).filter(|_| others).map(|row| (row.conn, row.addr))
    }

    /// What of the anchors has changed: those that have been up longest, and those of before while nobody replaces them, so that a line
    /// that fails leaves them. Kept while the node runs: it may be unplugged at any moment.
    pub fn anchors(&mut self, now: Duration) -> Vec<Op> {
        let settled = |row: &&Row| row.aim == Aim::Peer && row.up.is_some_and(|up| now.saturating_sub(up) >= ANCHOR_AFTER);
        let mut up: Vec<&Row> = self.rows.iter().filter(settled).collect();
        up.sort_by_key(|row| row.up);
        // Who is one stays in his place.
        let stands = |addr: &SocketAddr| up.iter().any(|row| row.addr == *addr);
        let mut fresh = up.iter().map(|row| row.addr).filter(|addr| !self.anchors.contains(addr)).collect::<VecDeque<_>>();
        let mut ops = Vec::new();
        let mut anchors = self.anchors.clone();
        for place in 0..ANCHORS_MAX {
            if anchors.get(place).is_some_and(stands) {
                continue;
            }
            let Some(addr) = fresh.pop_front() else { break };
            if place < anchors.len() {
                anchors[place] = addr
            } else {
                anchors.push(addr)
            }
            ops.push(put_anchor(place as u8, addr));
        }
        self.anchors = anchors;
        ops
    }

    /// An address is none to be dialled again, whatever it was.
    pub fn forget(&mut self, addr: SocketAddr) -> Vec<Op> {
        self.first.retain(|first| *first != addr);
        if !self.anchors.contains(&addr) {
            return Vec::new();
        }
        self.anchors.retain(|anchor| *anchor != addr);
        let kept = self.anchors.iter().enumerate().map(|(place, addr)| put_anchor(place as u8, *addr));
        kept.chain((self.anchors.len()..ANCHORS_MAX).map(|place| delete_anchor(place as u8))).collect()
    }

    fn row_mut(&mut self, conn: ConnId) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.conn == conn)
    }
}

/// Whether an address has had its pause since the last dial: it doubles with every failure, and no two have the same.
fn rested(now: u32, row: &AddrRow, key: &[u8; 32]) -> bool {
    // What lies ahead is of a clock that was set back.
    if row.tried_at == 0 || row.tried_at > now {
        return true;
    }
    let pause = BACKOFF_FIRST_S.saturating_mul(1 << row.attempts.min(16)).min(BACKOFF_LAST_S);
    let jitter = keyed(key, &[b"pause", &bytes(row.addr), &row.tried_at.to_le_bytes()]) % u64::from(pause / 2 + 1);
    u64::from(now - row.tried_at) >= u64::from(pause) * 3 / 4 + jitter
}

/// A drawn time of this mean, as of events that do not know of each other; five times as long at most.
fn pause(mean: Duration, rng: &mut ChaCha12Rng) -> Duration {
    let drawn = (f64::from(rng.next_u32()) + 1.0) / (f64::from(u32::MAX) + 1.0);
    mean.mul_f64(-drawn.ln()).min(5 * mean)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
