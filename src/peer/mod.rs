//! Other Rockpool nodes.
//!
//! | file | what |
//! |---|---|
//! | `handshake` | the table of states |
//! | `session` | a peer's connection |
//! | `serve` | what it asked for |
//! | `relay` | what it is sent unasked |
//! | `sync` | shares by locator from one peer at a time |
//! | `dial` | peers from the configuration |

pub mod dial;
pub mod handshake;
pub mod relay;
pub mod serve;
pub mod session;
pub mod sync;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rockpool_net::close::CloseReason;
use rockpool_net::id::ConnId;
use rockpool_net::payload::Payload;
use rockpool_net::wire::WireError;
use rockpool_net::wire::message::{Command, Message};
use rockpool_net::wire::share::Share;

use crate::peer::dial::Dials;
use crate::peer::sync::{Claim, Sync};
use crate::session::Sessions;
use crate::turn::Turn;

/// What all peers share.
#[derive(Debug)]
pub struct Peers {
    /// Those to dial.
    pub dials: Dials,
    /// How many have done their handshake.
    pub up: usize,
    /// Height of the best claim that is better than our confirmed tip.
    pub ahead: Option<u32>,
    sync: Option<Sync>,
    /// Claims or our tip have changed.
    dirty: bool,
    /// When claims are to be looked at in any case.
    due: Option<Duration>,
}

impl Peers {
    /// None yet; these will be dialled.
    pub fn new(dial: &[SocketAddr]) -> Peers {
        Peers { dials: Dials::new(dial), up: 0, ahead: None, sync: None, dirty: false, due: None }
    }

    /// Claims or our tip have changed: they are compared when the turn ends.
    pub fn look(&mut self) {
        self.dirty = true;
    }

    /// Whether a sync is under way.
    pub fn syncing(&self) -> bool {
        self.sync.is_some()
    }

    /// When something is due that no connection's timer tells of.
    pub fn due(&self) -> Option<Duration> {
        self.dials.due().into_iter().chain(self.due).min()
    }

    /// An answer to `getheaders`.
    pub fn on_shares(&mut self, conn: ConnId, shares: Vec<Share>, turn: &mut Turn<'_>) -> Result<(), CloseReason> {
        let Some(sync) = self.sync.as_mut().filter(|sync| sync.conn == conn) else {
            return Err(CloseReason::Misbehaviour("shareheaders that were not asked for".to_owned()));
        };
        self.dirty = true;
        sync.on_shares(shares, turn)
    }

    /// The organiser has worked off an answer of this peer.
    pub fn on_bulk_done(&mut self, conn: ConnId, height: u32, turn: &mut Turn<'_>) {
        if let Some(sync) = self.sync.as_mut().filter(|sync| sync.conn == conn) {
            sync.on_bulk_done(height, turn);
        }
        self.dirty = true;
    }

    /// A connection of this lane, or a dial, has ended.
    pub fn on_closed(&mut self, conn: ConnId, turn: &mut Turn<'_>) {
        self.dials.closed(turn.now.mono, conn);
        if self.sync.as_ref().is_some_and(|sync| sync.conn == conn) {
            turn.counters.syncs_failed.add(1);
            self.sync = None;
        }
        self.dirty = true;
    }

    /// Compares claims with what we have, if there is reason to: ends the sync, drops who holds it up, begins the next. Every better claim
    /// is looked into, in the order of their scores, and each within [`SYNC_ANSWER_MAX`](crate::limits::SYNC_ANSWER_MAX) brings shares or
    /// costs its owner the connection: so none keeps miners waiting for nothing (SHARECHAIN §11).
    pub fn compare(&mut self, sessions: &mut Sessions, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        if !std::mem::take(&mut self.dirty) && self.due.is_none_or(|due| now < due) {
            return;
        }
        self.end_sync(sessions, turn);
        let (tip, confirmed) = (turn.chain.view.tip().clone(), turn.chain.view.confirmed_tip().score);
        let (mut best, mut due): (Option<(ConnId, Claim)>, _) = (None, self.sync.as_ref().and_then(Sync::due));
        self.ahead = None;
        for (conn, peer) in sessions.peers_mut() {
            let Some(claim) = peer.claim.filter(|claim| claim.score > confirmed) else { continue };
            self.ahead = self.ahead.max(Some(claim.height));
            // While a sync is under way, or coinbases are rebuilt, the others' claims wait.
            if claim.score <= tip.score || self.sync.is_some() {
                continue;
            }
            let ripe = claim.due(tip.height);
            if now < ripe {
                due = due.into_iter().chain([ripe]).min();
            } else if best.is_none_or(|(_, best)| claim.score > best.score) {
                best = Some((conn, claim));
            }
        }
        if let Some((conn, claim)) = best {
            log::info!("syncing from height {} to {}", tip.height, claim.height);
            let sync = Sync::begin(conn, &claim, turn);
            due = due.into_iter().chain(sync.due()).min();
            self.sync = Some(sync);
        }
        self.due = due;
    }

    fn end_sync(&mut self, sessions: &mut Sessions, turn: &mut Turn<'_>) {
        let Some(sync) = &mut self.sync else { return };
        let conn = sync.conn;
        // Its answer may lie in a socket that we do not read: while the disk stands still, its shares keep its tickets. Or it is coming
        // over a slow line, with a deadline of its own.
        if turn.out.is_held(conn) || turn.out.arriving(conn) == Some(Command::ShareHeaders) {
            sync.put_off(turn.now.mono);
        }
        if let Some(why) = sync.late(turn.now.mono) {
            turn.counters.syncs_failed.add(1);
            turn.out.close(conn, why);
            // It is still here until the turn ends, and must not be chosen again. A claim that was reached needs no such thing: it says
            // nothing any more, or it has grown meanwhile and is worth the next sync.
            if let Some(peer) = sessions.peer_mut(conn) {
                peer.claim = None;
            }
        } else if !sync.finished(turn) {
            return;
        }
        self.sync = None;
    }
}

/// Encodes and sends.
pub(crate) fn say(conn: ConnId, message: &Message, turn: &mut Turn<'_>) {
    let bytes = message.to_bytes(turn.config.params.magic).unwrap_or_else(|error| nothing(message, &error));
    turn.out.send_bytes(conn, bytes);
}

/// A message of our own making, encoded for several.
pub(crate) fn encoded(message: &Message, turn: &Turn<'_>) -> Arc<Payload> {
    message.encode(turn.config.params.magic).unwrap_or_else(|error| Arc::new(Payload::new(nothing(message, &error))))
}

/// Nothing that we build is over a limit; an empty payload is nothing to the hub.
fn nothing(message: &Message, error: &WireError) -> Vec<u8> {
    log::error!("{} cannot be encoded: {error}", message.command());
    Vec::new()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
pub(crate) mod tests;
