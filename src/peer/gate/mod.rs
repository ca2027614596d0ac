//! Who comes in and who has to leave: bans, discouraged addresses, and places for newcomers.
//!
//! | file | what |
//! |---|---|
//! | `evict` | who goes when too many come in |
//! | `bans` | whom the user does not want |
//! | `budget` | what one peer may cost us |
//! | `ping` | how far away it is |
//! | `traits` | what is known of it beside its protocol |

pub mod bans;
pub mod budget;
pub mod evict;
pub mod ping;
pub mod traits;

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rockpool_net::close::CloseReason;
use rockpool_net::hub::netgroup;
use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::sha256::tagged;
use rockpool_store::peers::Ban;

use crate::limits::{DISCOURAGED_MAX, DISCOURAGED_TIME, EVICT_EVERY, FIRSTS_KEPT, LEFT_KEPT};
use crate::peer::gate::bans::{Bans, Full};
use crate::peer::gate::evict::victims;
use crate::session::Sessions;
use crate::shunned::Shunned;
use crate::turn::Turn;

/// A peer that has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its address.
    pub addr: SocketAddr,
    /// Whether we dialled.
    pub outbound: bool,
    /// How long it was here.
    pub stayed: Duration,
    /// When it left, Unix seconds.
    pub at: u32,
    /// Why.
    pub why: CloseReason,
}

/// The gate of the peers' port.
#[derive(Debug)]
pub struct Gate {
    /// Whom the user does not want.
    pub bans: Bans,
    /// Addresses that misbehaved: the first to go when it is full.
    discouraged: Shunned,
    /// The key of networks' order.
    key: [u8; 8],
    /// Peers that have dialled us and have a session.
    inbound: usize,
    /// When the next look at whom to evict may be.
    look: Duration,
    /// Those whose budget is spent, by when they are heard again.
    resting: BTreeSet<(Duration, ConnId)>,
    /// The newest shares that the organiser was given, with who was the first to send each.
    firsts: VecDeque<(ShareId, ConnId)>,
    /// The newest of those that have left.
    left: VecDeque<Left>,
}

impl Gate {
    /// Open to all but these.
    pub fn new(bans: Bans, key: u64) -> Gate {
        let discouraged = Shunned::new(DISCOURAGED_TIME, DISCOURAGED_MAX);
        Gate {
            bans,
            discouraged,
            key: key.to_le_bytes(),
            inbound: 0,
            look: Duration::ZERO,
            resting: BTreeSet::new(),
            firsts: VecDeque::new(),
            left: VecDeque::new(),
        }
    }

    /// A network's place in an order that nobody else can foretell.
    pub fn group(&self, ip: IpAddr) -> u64 {
        let of = match netgroup(ip) {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let hash = tagged(b"rockpool/netgroup", &[&self.key, &of.octets()]);
        hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// Whether an address misbehaved lately.
    pub fn is_discouraged(&self, now: Duration, addr: SocketAddr) -> bool {
        self.discouraged.contains(now, addr)
    }

    /// A peer has dialled us.
    pub fn came(&mut self) {
        self.inbound += 1;
    }

    /// A peer's connection has ended. Whom the user has named is never discouraged.
    pub fn went(&mut self, now: Duration, left: Left, named: bool, ready: bool) {
        if !left.outbound {
            self.inbound = self.inbound.saturating_sub(1);
        }
        let fault = left.why.is_fault();
        if fault && !named {
            self.discouraged.add(now, left.addr);
        }
        // Of a storm of strangers that never were peers only the worst are worth a line.
        if ready || fault {
            if self.left.len() >= LEFT_KEPT {
                self.left.pop_front();
            }
            self.left.push_back(left);
        }
    }

    /// Those that have left lately, the newest first.
    pub fn gone(&self) -> impl Iterator<Item = &Left> {
        self.left.iter().rev()
    }

    /// A peer has sent a share that we had not got. The first to send it gets the credit, if it is good.
    pub fn sent(&mut self, id: ShareId, conn: ConnId) {
        if self.firsts.iter().any(|(known, _)| *known == id) {
            return;
        }
        if self.firsts.len() >= FIRSTS_KEPT {
            self.firsts.pop_front();
        }
        self.firsts.push_back((id, conn));
    }

    /// A share is good. Whether this peer was the first to send it.
    pub fn was_first(&self, id: &ShareId, conn: ConnId) -> bool {
        self.firsts.iter().any(|first| *first == (*id, conn))
    }

    /// A peer is not heard until then.
    pub fn rest(&mut self, until: Duration, conn: ConnId) {
        self.resting.insert((until, conn));
    }

    /// When something is due: somebody is heard again, or there are too many.
    pub fn due(&self, max: usize) -> Option<Duration> {
        let look = (self.inbound > max).then_some(self.look);
        self.resting.first().map(|(until, _)| *until).into_iter().chain(look).min()
    }

    /// Peers whose rest is over are heard, and if there are too many, some have to go.
    pub fn on_time(&mut self, sessions: &mut Sessions, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        while self.resting.first().is_some_and(|(until, _)| *until <= now)
            && let Some((_, conn)) = self.resting.pop_first()
        {
            if let Some(peer) = sessions.peer_mut(conn) {
                peer.listen(conn, turn);
            }
        }
        if self.inbound <= turn.config.inbound_max || now < self.look {
            return;
        }
        self.look = now + EVICT_EVERY;
        let here = sessions.peers_mut().filter(|(conn, peer)| !peer.outbound && turn.out.is_live(*conn));
        let candidates: Vec<_> = here.map(|(conn, peer)| peer.candidate(conn)).collect();
        for conn in victims(&candidates, now, candidates.len().saturating_sub(turn.config.inbound_max)) {
            turn.counters.peers_evicted.add(1);
            turn.out.close(conn, CloseReason::Full("others have a better claim to it"));
        }
    }

    /// Bans, and closes the connections that there are.
    pub fn ban(&mut self, ban: Ban, sessions: &mut Sessions, turn: &mut Turn<'_>) -> Result<usize, Full> {
        let of = ban.of;
        self.bans.ban(ban, turn.now.unix())?;
        let banned: Vec<_> = sessions.peers_mut().filter(|(_, peer)| of.contains(peer.addr.ip())).map(|(conn, _)| conn).collect();
        banned.iter().for_each(|conn| turn.out.close(*conn, BANNED));
        Ok(banned.len())
    }
}

/// Why a banned one's connection ends.
pub const BANNED: CloseReason = CloseReason::Done("banned by the user");
