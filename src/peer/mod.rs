//! Other Rockpool nodes.
//!
//! | file | what |
//! |---|---|
//! | `handshake` | the table of states |
//! | `session` | a peer's connection |
//! | `serve` | what it asked for |
//! | `relay` | what it is sent unasked |
//! | `sync` | the shares of a better claim, from several peers |
//! | `base` | where a node without a chain begins |
//! | `found` | news of Bitcoin blocks |
//! | `body` | the blocks themselves, as they are pulled |
//! | `find` | how peers are found, and whom we dial |
//! | `gate` | who comes in, what each may cost us, and who has to leave |

pub mod base;
pub mod body;
pub mod find;
pub mod found;
pub mod gate;
pub mod handshake;
pub mod relay;
pub mod serve;
pub mod session;
pub mod sync;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rockpool_net::close::CloseReason;
use rockpool_net::id::{ConnId, Lane, ShareId};
use rockpool_net::payload::Payload;
use rockpool_net::wire::WireError;
use rockpool_net::wire::message::{BlockBodyPart, Command, Message};
use rockpool_net::wire::share::Share;
use rockpool_store::params::Network;
use rockpool_store::peers::PeerRows;
use rockpool_store::view::ChainView;
use rockpool_workers::jobs::{OrganiseJob, SubmitJob};

use crate::limits::{BODY_HEARD_MAX, CLAIM_LOWERED_EVERY, PROGRESS_EVERY, PROGRESS_FROM};
use crate::node::NodeConfig;
use crate::peer::base::Probes;
use crate::peer::body::{Pulls, Step};
use crate::peer::find::book::Book;
use crate::peer::find::dial::Dials;
use crate::peer::find::gossip::Gossip;
use crate::peer::find::kept::Kept;
use crate::peer::find::outbound::Outbound;
use crate::peer::find::wrap::Wraps;
use crate::peer::gate::Gate;
use crate::peer::relay::{Known, Push};
use crate::peer::sync::{Claim, Late, Sync};
use crate::session::Sessions;
use crate::turn::Turn;

/// How far a sync is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Height of the candidate tip.
    pub height: u32,
    /// Height up to which coinbases are rebuilt.
    pub confirmed: u32,
    /// Height of the best claim.
    pub target: u32,
    /// Time left at the speed so far, seconds; unknown at first.
    pub seconds_left: Option<u64>,
}

/// What all peers share.
#[derive(Debug)]
pub struct Peers {
    /// Those to dial.
    pub dials: Dials,
    /// Who comes in and who has to leave.
    pub gate: Gate,
    /// Addresses of others.
    pub book: Book,
    /// Whom of them we dial.
    pub outbound: Outbound,
    /// How those of the book speak.
    wraps: Wraps,
    /// What is said of addresses.
    pub gossip: Gossip,
    /// What is kept on disk.
    pub kept: Kept,
    /// How many have done their handshake.
    pub up: usize,
    /// Height of the best claim that is better than our confirmed tip.
    pub ahead: Option<u32>,
    /// Found blocks that all peers are to be told of, at once.
    pub blocks: Vec<Push>,
    /// The newest that they were told of.
    told_blocks: Known,
    /// Blocks that peers told of and that are to be pulled, with who told and his address.
    pub heard: VecDeque<(Box<Share>, ConnId, SocketAddr)>,
    /// Blocks that are being pulled.
    pub pulls: Pulls,
    sync: Option<Sync>,
    probes: Probes,
    /// Answers to come that no sync wants any more: they are let pass.
    late: Late,
    /// Since when a claim has been better than our confirmed tip, and where that stood.
    behind: Option<(Duration, u32)>,
    /// When progress was last told.
    told: Duration,
    /// When the owner of a sync last had less than before, and was held to that.
    lowered: Option<Duration>,
    /// Claims or our tip have changed.
    dirty: bool,
    /// When claims are to be looked at in any case.
    due: Option<Duration>,
}

impl Peers {
    /// None yet; those of the configuration will be dialled, and those that the rows know of.
    pub fn new(config: &NodeConfig, rows: &PeerRows, gate: Gate, rng: &mut ChaCha12Rng) -> Peers {
        let local = config.params.network == Network::Regtest;
        Peers {
            dials: Dials::new(Lane::Peer, &config.peers),
            gate,
            book: Book::open(rows, local, rng),
            outbound: Outbound::new(&rows.anchors),
            wraps: Wraps::default(),
            gossip: Gossip::default(),
            kept: Kept::default(),
            up: 0,
            ahead: None,
            sync: None,
            probes: Probes::default(),
            late: Late::default(),
            behind: None,
            told: Duration::ZERO,
            lowered: None,
            blocks: Vec::new(),
            told_blocks: Known::default(),
            heard: VecDeque::new(),
            pulls: Pulls::default(),
            dirty: false,
            due: None,
        }
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
    pub fn due(&self, inbound_max: usize) -> Option<Duration> {
        let book = [self.outbound.due()].into_iter().chain(self.kept.due(&self.book)).chain(self.gate.due(inbound_max));
        self.dials.due().into_iter().chain(self.due).chain(self.pulls.due()).chain(book).min()
    }

    /// How far we are, if a better claim is being looked into or its coinbases are still being rebuilt.
    pub fn progress(&self, view: &ChainView, now: Duration) -> Option<Progress> {
        let (target, (since, from)) = (self.ahead?, self.behind?);
        let (height, confirmed) = (view.tip().height, view.confirmed_height());
        let (done, left) = (confirmed.saturating_sub(from), target.saturating_sub(confirmed));
        let took = now.saturating_sub(since);
        let seconds_left = (done > 0 && took >= PROGRESS_FROM).then(|| (took.as_secs_f64() / f64::from(done) * f64::from(left)) as u64);
        Some(Progress { height, confirmed, target, seconds_left })
    }

    /// This share is a Bitcoin block, of one of our miners or of a peer's: all who are not known to have it are told before anything else.
    /// Whether that is news.
    pub fn block_found(&mut self, share: &Share, turn: &Turn<'_>) -> bool {
        let id = share.id();
        let news = self.told_blocks.insert(id);
        if news {
            let payload = encoded(&Message::BlockFound(Box::new(share.clone())), turn);
            self.blocks.push(Push { id, height: u32::MAX, payload });
        }
        news
    }

    /// A peer has told of a block that costs its maker what a block costs: it is to be pulled. Who says so again says nothing new, and must
    /// not push out what others said.
    pub fn heard(&mut self, share: &Share, conn: ConnId, addr: SocketAddr) {
        if self.heard.iter().any(|(known, from, _)| *from == conn && known.header == share.header) {
            return;
        }
        if self.heard.len() == BODY_HEARD_MAX {
            self.heard.pop_front();
        }
        self.heard.push_back((Box::new(share.clone()), conn, addr));
    }

    /// Part of a block that is being pulled.
    pub fn on_body(&mut self, conn: ConnId, part: BlockBodyPart, turn: &mut Turn<'_>) -> Result<(), CloseReason> {
        let step = self.pulls.on_part(turn.now.mono, conn, part).map_err(|why| CloseReason::Misbehaviour(why.to_owned()))?;
        pulled(step, turn);
        Ok(())
    }

    /// A peer has not got what was asked for; perhaps a block.
    pub fn on_no_body(&mut self, conn: ConnId, id: &ShareId, turn: &mut Turn<'_>) {
        pulled(self.pulls.on_not_found(turn.now.mono, conn, id), turn);
    }

    /// Peers that have had their time with a block make room for others.
    pub fn on_time(&mut self, turn: &mut Turn<'_>) {
        let steps = self.pulls.on_time(turn.now.mono, |conn| turn.out.is_arriving(conn, Command::BlockBody));
        pulled(steps, turn);
    }

    /// An answer to `getheaders`.
    pub fn on_shares(&mut self, conn: ConnId, shares: Vec<Share>, turn: &mut Turn<'_>) -> Result<(), CloseReason> {
        self.dirty = true;
        if let Some(shown) = self.probes.on_shares(conn, &shares) {
            return shown;
        }
        if self.late.came(conn) {
            return Ok(());
        }
        let answer = self.sync.as_mut().and_then(|sync| sync.on_shares(conn, shares, turn));
        answer.unwrap_or_else(|| Err(CloseReason::Misbehaviour("shareheaders that were not asked for".to_owned())))
    }

    /// The organiser has worked off an answer of this sync.
    pub fn on_bulk_done(&mut self, conn: ConnId, height: u32, turn: &mut Turn<'_>) {
        if let Some(sync) = self.sync.as_mut().filter(|sync| sync.conn == conn)
            && let Err(why) = sync.on_bulk_done(height, turn)
        {
            turn.out.close(conn, why);
        }
        self.dirty = true;
    }

    /// A connection of this lane, or a dial, has ended.
    pub fn on_closed(&mut self, conn: ConnId, why: &CloseReason, turn: &mut Turn<'_>) {
        self.dials.closed(turn.now.mono, conn, why);
        self.book_closed(conn, why, turn);
        pulled(self.pulls.on_closed(turn.now.mono, conn), turn);
        self.probes.on_closed(conn);
        if let Some(sync) = &mut self.sync {
            sync.on_closed(conn);
            if sync.conn == conn {
                self.fail(turn);
            }
        }
        self.late.gone(conn);
        self.dirty = true;
    }

    /// A peer's claim is another. Whose is being looked into may have less than before while a better chain is confirmed over there: it is
    /// held to what it says now, but not time after time, or nobody else's claim would ever be looked into.
    pub fn claimed(&mut self, conn: ConnId, claim: Claim, now: Duration) {
        self.dirty = true;
        let rested = self.lowered.is_none_or(|at| now >= at + CLAIM_LOWERED_EVERY);
        if let Some(sync) = self.sync.as_mut().filter(|sync| rested && sync.conn == conn)
            && sync.lower(claim)
        {
            self.lowered = Some(now);
        }
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
        let confirmed = turn.chain.view.confirmed_tip().score;
        let claims: BTreeMap<ConnId, Claim> =
            sessions.peers_mut().filter_map(|(conn, peer)| Some((conn, peer.claim.filter(|_| peer.ready())?))).collect();
        self.ahead = claims.values().filter(|claim| claim.score > confirmed).map(|claim| claim.height).max();
        let from = turn.chain.view.confirmed_height();
        self.behind = self.ahead.map(|_| self.behind.unwrap_or((now, from)));
        // While a sync is under way, or coinbases are rebuilt, the others' claims wait; but they help.
        if let Some(sync) = &mut self.sync {
            let helpers: Vec<(ConnId, Claim)> = claims.into_iter().filter(|(conn, _)| !self.late.owes(*conn)).collect();
            sync.ask(&helpers, turn);
        } else {
            self.begin_sync(&claims, turn);
        }
        let ripe = claims_due(sessions, turn).filter(|_| self.sync.is_none());
        self.due = ripe.into_iter().chain(self.probes.due(now)).chain(self.sync.as_ref().and_then(Sync::due)).min();
        self.tell(turn);
    }

    /// Begins a sync on the best claim, if one is better than what we have.
    fn begin_sync(&mut self, claims: &BTreeMap<ConnId, Claim>, turn: &mut Turn<'_>) {
        let (tip, now, kept) = (turn.chain.view.tip().clone(), turn.now.mono, turn.config.params.kept);
        let better = claims.iter().filter(|(conn, claim)| claim.score > tip.score && !self.late.owes(**conn));
        let ripe = better.filter(|(_, claim)| claim.due(tip.height) <= now);
        // Who has nothing yet cannot begin at genesis with a peer that keeps less than all.
        let (far, near): (Vec<_>, Vec<_>) = ripe.partition(|(_, claim)| tip.height == 0 && claim.height > kept);
        let best = near.into_iter().max_by_key(|(_, claim)| claim.score);
        let (conn, claim, base) = match best {
            Some((conn, claim)) if far.is_empty() => (*conn, *claim, None),
            _ => {
                far.iter().for_each(|(conn, claim)| self.probes.ask(**conn, claim, turn));
                let Some((conn, claim, base)) = self.probes.best(claims, now) else { return };
                (conn, claim, Some(base))
            }
        };
        std::mem::take(&mut self.probes).unanswered().for_each(|conn| self.late.expect(conn));
        log::info!("syncing from height {} to {}", base.map_or(tip.height, |base| base.height), claim.height);
        self.sync = Some(Sync::begin(conn, claim, base, turn));
    }

    fn end_sync(&mut self, sessions: &mut Sessions, turn: &mut Turn<'_>) {
        if let Some(conn) = self.probes.late(turn.now.mono) {
            turn.out.close(conn, CloseReason::Timeout("answer to getheaders"));
            self.probes.on_closed(conn);
        }
        let Some(sync) = &mut self.sync else { return };
        let conn = sync.conn;
        sync.put_off(turn);
        if let Some(why) = sync.look(turn.now.mono) {
            turn.out.close(conn, why);
            // It is still here until the turn ends, and must not be chosen again. A claim that was reached needs no such thing: it says
            // nothing any more, or it has grown meanwhile and is worth the next sync.
            if let Some(peer) = sessions.peer_mut(conn) {
                peer.claim = None;
            }
            self.fail(turn);
        } else if sync.finished(turn) {
            self.drop_sync(turn);
        }
    }

    /// The sync did not bring what was claimed. A chain that was begun with its base, and is not whole, is worth nothing.
    fn fail(&mut self, turn: &mut Turn<'_>) {
        turn.counters.syncs_failed.add(1);
        self.drop_sync(turn);
        let (lowest, tip) = (turn.chain.view.lowest().height, turn.chain.view.tip().height);
        if lowest > 0 && tip < lowest + turn.config.params.kept {
            log::warn!("a chain begun at height {lowest} ends at {tip}, below what was claimed; it is given up");
            turn.jobs.organise.push(OrganiseJob::BeginAnew);
        }
    }

    fn drop_sync(&mut self, turn: &mut Turn<'_>) {
        if let Some(mut sync) = self.sync.take() {
            sync.drop_parts(turn);
            self.late.join(sync.late);
        }
    }

    /// Says how far we are, now and then.
    fn tell(&mut self, turn: &Turn<'_>) {
        let now = turn.now.mono;
        let Some(progress) = self.progress(&turn.chain.view, now) else { return };
        if now.saturating_sub(self.told) >= PROGRESS_EVERY {
            self.told = now;
            let Progress { height, confirmed, target, seconds_left } = progress;
            let left = seconds_left.map_or(String::new(), |seconds| format!(", {} left", minutes(seconds)));
            log::info!("height {target} is the best that is claimed; {height} have come, {confirmed} are confirmed{left}");
        }
    }
}

/// When the next claim is worth a sync.
fn claims_due(sessions: &mut Sessions, turn: &Turn<'_>) -> Option<Duration> {
    let (tip, now) = (turn.chain.view.tip(), turn.now.mono);
    let better = sessions.peers_mut().filter_map(|(_, peer)| peer.claim).filter(|claim| claim.score > tip.score);
    better.map(|claim| claim.due(tip.height)).filter(|ripe| now < *ripe).min()
}

/// A time for people.
pub fn minutes(seconds: u64) -> String {
    if seconds < 100 { format!("{seconds} s") } else { format!("{} min", seconds.div_ceil(60)) }
}

/// Encodes and sends.
pub(crate) fn say(conn: ConnId, message: &Message, turn: &mut Turn<'_>) {
    let bytes = message.to_bytes(turn.config.params.magic).unwrap_or_else(|error| nothing(message, &error));
    turn.out.send_bytes(conn, bytes);
}

/// What is to be done about blocks that are being pulled: peers are asked, and what is whole goes to every bitcoind before anything else
/// happens to it.
pub(crate) fn pulled(steps: impl IntoIterator<Item = Step>, turn: &mut Turn<'_>) {
    for step in steps {
        match step {
            Step::Ask(conn, wanted) => {
                turn.out.expect(conn, Command::BlockBody);
                say(conn, &Message::GetBlockBody(wanted), turn);
            }
            Step::Done { share, block } => {
                let (hash, height, block): (_, _, Arc<[u8]>) = (share.id(), share.bitcoin_height, block.into());
                log::info!("block {hash} at height {height}: all of it has come from peers, {} bytes; handing it in too", block.len());
                turn.jobs.submit.push(SubmitJob { hash, height, block: Arc::clone(&block), own: false });
                turn.blocks.has_body(hash, block);
            }
        }
    }
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
