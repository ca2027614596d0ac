//! What is known of a peer beside its protocol: what the API tells of it, and eviction goes by.

use std::net::SocketAddr;
use std::time::Duration;

use rockpool_net::id::ConnId;

use crate::peer::Peers;
use crate::peer::gate::evict::Candidate;
use crate::peer::gate::ping::Pings;
use crate::turn::Turn;

/// What a peer is like, as far as we know.
#[derive(Clone, Debug)]
pub struct Traits {
    /// When it came, Unix seconds.
    pub since: u32,
    /// What it calls itself.
    pub agent: String,
    /// How far away it is.
    pub pings: Pings,
    /// When it last gave us a good share that we had not got.
    pub gave: Option<Duration>,
    /// Whether the user has named its address.
    pub named: bool,
    /// Whether its address misbehaved lately, as it came.
    pub discouraged: bool,
    /// Its network, hashed with a key that nobody else knows.
    group: u64,
}

impl Traits {
    /// Those of a connection that has just come to stand.
    pub fn new(addr: SocketAddr, peers: &Peers, turn: &Turn<'_>) -> Traits {
        Traits {
            since: turn.now.unix(),
            agent: String::new(),
            pings: Pings::default(),
            gave: None,
            named: peers.dials.names(addr.ip()),
            discouraged: peers.gate.is_discouraged(turn.now.mono, addr),
            group: peers.gate.group(addr.ip()),
        }
    }

    /// What eviction goes by.
    pub fn candidate(&self, conn: ConnId, addr: SocketAddr, opened: Duration) -> Candidate {
        let exempt = self.named || addr.ip().to_canonical().is_loopback();
        let Traits { group, gave, discouraged, .. } = *self;
        Candidate { conn, group, opened, ping: self.pings.best, gave, discouraged, exempt }
    }
}
