//! Bitcoin's own network at first hand: nodes that the user named are dialled, their headers followed, found blocks handed to them.
//!
//! | file | what |
//! |---|---|
//! | `session` | a node's connection |
//! | `headers` | what is asked of it, and what comes |
//! | `hand` | blocks that it is given |
//!
//! Headers are fetched from one node at a time, the one that says it has most; once all of it is here, every other is asked once what it
//! has beyond. From then on blocks are announced. All headers go to the organiser, whose tree decides what is best.

pub mod hand;
pub mod headers;
pub mod session;

use std::net::SocketAddr;
use std::time::Duration;

use rockpool_net::close::CloseReason;
use rockpool_net::id::{ConnId, Lane};
use rockpool_net::wire::bitcoin::Message;
use rockpool_store::params::Network;
use rockpool_workers::jobs::{BitcoinNews, OrganiseJob};

use crate::limits::{BITCOIN_REST, PROGRESS_EVERY};
use crate::peer::find::dial::Dials;
use crate::session::Sessions;
use crate::turn::Turn;

/// What Bitcoin's own messages begin with.
pub fn magic(network: Network) -> [u8; 4] {
    match network {
        Network::Main => [0xf9, 0xbe, 0xb4, 0xd9],
        Network::Signet => [0x0a, 0x03, 0xcf, 0x40],
        Network::Testnet4 => [0x1c, 0x16, 0x3f, 0x28],
        Network::Regtest => [0xfa, 0xbf, 0xb5, 0xda],
    }
}

/// The port on which Bitcoin nodes listen for each other.
pub fn port(network: Network) -> u16 {
    match network {
        Network::Main => 8333,
        Network::Signet => 38_333,
        Network::Testnet4 => 48_333,
        Network::Regtest => 18_444,
    }
}

/// A Bitcoin node as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Where it is.
    pub addr: SocketAddr,
    /// What it calls itself.
    pub agent: String,
    /// Height of the best block that it has told of.
    pub height: u32,
    /// How long its handshake has been done.
    pub up: Duration,
}

/// What all Bitcoin nodes share.
#[derive(Debug)]
pub struct Nodes {
    /// Those to dial.
    pub dials: Dials,
    /// How many have done their handshake.
    pub up: usize,
    /// The one that headers are fetched from.
    syncing: Option<ConnId>,
    /// All headers of one node are here: what comes now is news.
    synced: bool,
    /// The last header of the node that was done with last: the tree may not have it yet.
    newest: Option<[u8; 32]>,
    /// When progress was last told.
    told: Option<Duration>,
    /// Somebody may have to be asked.
    dirty: bool,
}

impl Nodes {
    /// None yet; these will be dialled.
    pub fn new(dial: &[SocketAddr]) -> Nodes {
        let dials = Dials::new(Lane::Bitcoin, dial);
        Nodes { dials, up: 0, syncing: None, synced: false, newest: None, told: None, dirty: false }
    }

    /// Whether all headers of one node are here.
    pub fn synced(&self) -> bool {
        self.synced
    }

    /// A node has become ready.
    fn came(&mut self) {
        self.up += 1;
        self.dirty = true;
    }

    /// A node that was ready has left.
    fn went(&mut self, turn: &mut Turn<'_>) {
        self.up -= 1;
        if self.up == 0 {
            turn.jobs.organise.push(OrganiseJob::Bitcoin(BitcoinNews::PeersLost));
        }
    }

    /// A node wants to go on with a sync: whether it may.
    fn may_sync(&mut self, conn: ConnId) -> bool {
        self.dirty = true;
        *self.syncing.get_or_insert(conn) == conn
    }

    /// All headers of this node are here, up to this one. Whether these were the first.
    fn done(&mut self, conn: ConnId, last: Option<[u8; 32]>) -> bool {
        self.dirty = true;
        self.newest = last.or(self.newest);
        self.syncing.take_if(|syncing| *syncing == conn);
        !std::mem::replace(&mut self.synced, true)
    }

    /// Where our headers stand, those included that the tree is about to have.
    fn locator(&self, turn: &Turn<'_>) -> Vec<[u8; 32]> {
        self.newest.into_iter().chain(turn.chain.view.bitcoin().locator()).collect()
    }

    /// Whether it is time to tell of progress.
    fn tells(&mut self, now: Duration) -> bool {
        let tells = self.told.is_none_or(|told| now.saturating_sub(told) >= PROGRESS_EVERY);
        if tells {
            self.told = Some(now);
        }
        tells
    }

    /// A connection of this lane, or a dial, has ended. Who broke the rules is left alone for a while.
    pub fn on_closed(&mut self, conn: ConnId, why: &CloseReason, turn: &Turn<'_>) {
        if why.is_fault() {
            self.dials.rest(conn, BITCOIN_REST);
        }
        if let CloseReason::Dial(_) = why
            && let Some(addr) = self.dials.failed_first(conn)
        {
            log::warn!("Bitcoin node {addr}: {why}; it is dialled again and again");
        }
        self.dials.closed(turn.now.mono, conn, why);
        self.syncing.take_if(|syncing| *syncing == conn);
        self.dirty = true;
    }

    /// Dials who is due, and asks nodes for headers: one at a time, until all of its headers are here.
    pub fn look(&mut self, sessions: &mut Sessions, turn: &mut Turn<'_>) {
        self.dials.dial(turn.now.mono, |_| false, turn.out);
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        if self.syncing.is_none() {
            let waiting = sessions.bitcoin_mut().filter(|(_, node)| node.waits());
            if let Some((conn, node)) = waiting.max_by_key(|(_, node)| node.height()) {
                self.syncing = Some(conn);
                node.begin(conn, self, turn);
            }
        }
        // At the tip all are asked at once: their answers are short.
        if self.synced {
            for (conn, node) in sessions.bitcoin_mut().filter(|(_, node)| node.waits() && !node.is_far()) {
                node.ask_after(conn, self.locator(turn), turn);
            }
        }
    }
}

/// Encodes and sends.
fn say(conn: ConnId, message: &Message, turn: &mut Turn<'_>) {
    match message.to_bytes(magic(turn.config.params.network)) {
        Ok(bytes) => turn.out.send_bytes(conn, bytes),
        // Nothing that we build is over a limit.
        Err(error) => log::error!("a message to a Bitcoin node cannot be encoded: {error}"),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
