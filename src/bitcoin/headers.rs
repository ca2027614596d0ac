//! A Bitcoin node's headers: what it is asked for, and what is made of what comes.
//!
//! While it has more, the next headers are asked for as soon as the last came, and travel while these are checked. They are hashed and
//! checked by the organiser; here only what shows how they hang together.

use std::collections::VecDeque;
use std::time::Duration;

use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::limits::{BITCOIN_LOCATOR_MAX, BTC_HEADERS_MAX, TICKETS_PER_CONN};
use rockpool_net::sha256::sha256d;
use rockpool_net::wire::bitcoin::{Item, MSG_BLOCK, MSG_WITNESS_BLOCK, Message};
use rockpool_store::bitcoin::{Tree, required_bits};
use rockpool_store::limits::HEADER_AHEAD_MAX_S;
use rockpool_store::rules::target::hash_meets;
use rockpool_workers::jobs::OrganiseJob;

use crate::bitcoin::session::{BitcoinNode, Verdict, misbehaviour};
use crate::bitcoin::{Nodes, say};
use crate::limits::{BITCOIN_ANNOUNCED_MAX, BITCOIN_STRIKES_MAX, BITCOIN_STRIKES_SPAN};
use crate::turn::Turn;

/// Why a node is left that goes on with this.
const UNCONNECTED: &str = "headers that build on nothing we know, over and over";

/// How far we are with one node's headers.
#[derive(Debug, Default)]
pub struct Headers {
    /// The best height that it has told of.
    height: u32,
    /// When it was asked for headers that have not come.
    asked: Option<Duration>,
    /// Long answers that may come: announcements overtake answers, so these are counted apart.
    credit: u32,
    /// It is to be asked again once it has answered.
    again: bool,
    /// Its last answer was a full one, so there is more.
    far: bool,
    /// All that it had when it was asked is here.
    done: bool,
    /// The last header that came, and its height.
    last: Option<([u8; 32], u32)>,
    /// The last ones of its newest full answers, with their heights: they lead somewhere, or it wastes our time.
    trail: VecDeque<([u8; 32], u32)>,
    /// Answers that led nowhere, and when the newest came.
    strikes: u32,
    struck: Duration,
    /// A header was left out whose time is too far ahead: it is asked for again.
    early: bool,
}

impl Headers {
    /// What its `version` says.
    pub(super) fn claims(&mut self, height: u32) {
        self.height = height;
    }

    /// Since when an answer is awaited.
    pub(super) fn asked(&self) -> Option<Duration> {
        self.asked
    }

    /// An answer that led nowhere: a few are due to reorgs and races.
    fn strike(&mut self, now: Duration, what: &str) -> Verdict {
        if self.early {
            // We left out what it builds on.
            return Ok(());
        }
        if now.saturating_sub(self.struck) > BITCOIN_STRIKES_SPAN {
            self.strikes = 0;
        }
        (self.strikes, self.struck) = (self.strikes + 1, now);
        if self.strikes > BITCOIN_STRIKES_MAX { Err(misbehaviour(what)) } else { Ok(()) }
    }
}

impl BitcoinNode {
    /// The best height that it has told of.
    pub fn height(&self) -> u32 {
        self.headers.height
    }

    /// Whether it may have headers that it was not asked for.
    pub fn waits(&self) -> bool {
        self.ready() && !self.headers.done && self.headers.asked.is_none()
    }

    /// Whether it is known to have many.
    pub fn is_far(&self) -> bool {
        self.headers.far
    }

    /// It is the one that headers are fetched from now.
    pub(super) fn begin(&mut self, conn: ConnId, nodes: &mut Nodes, turn: &mut Turn<'_>) {
        let here = turn.chain.view.bitcoin().best().map_or(0, |best| best.height);
        if self.headers.height > here && nodes.tells(turn.now.mono) {
            log::info!("Bitcoin headers: {here} are here, node {} is asked for those up to {}", self.addr, self.headers.height);
        }
        self.ask_after(conn, nodes.locator(turn), turn);
    }

    /// Asks for what follows the headers that we know.
    pub fn ask(&mut self, conn: ConnId, turn: &mut Turn<'_>) {
        let locator = turn.chain.view.bitcoin().locator();
        self.ask_after(conn, locator, turn);
    }

    /// Asks for what follows the first of these hashes that it knows.
    pub(super) fn ask_after(&mut self, conn: ConnId, mut locator: Vec<[u8; 32]>, turn: &mut Turn<'_>) {
        locator.truncate(BITCOIN_LOCATOR_MAX);
        self.headers.asked = Some(turn.now.mono);
        self.headers.credit = self.headers.credit.saturating_add(1);
        say(conn, &Message::GetHeaders(locator), turn);
    }

    /// There are blocks: their headers are asked for.
    pub(super) fn on_inv(&mut self, conn: ConnId, items: &[Item], turn: &mut Turn<'_>) {
        let tree = turn.chain.view.bitcoin();
        let news = |item: &Item| matches!(item.kind, MSG_BLOCK | MSG_WITNESS_BLOCK) && tree.get(&item.hash).is_none();
        if items.iter().any(news) {
            self.look_again(conn, turn);
        }
    }

    fn look_again(&mut self, conn: ConnId, turn: &mut Turn<'_>) {
        if self.headers.asked.is_none() {
            self.ask(conn, turn);
        } else {
            self.headers.again = true;
        }
    }

    /// A header that was left out for its time may be due.
    pub(super) fn look_for_early(&mut self, conn: ConnId, turn: &mut Turn<'_>) {
        if std::mem::take(&mut self.headers.early) {
            self.look_again(conn, turn);
        }
    }

    /// The organiser could not place what this node told of: what comes next does not go on from it.
    pub fn on_orphans(&mut self, conn: ConnId, turn: &mut Turn<'_>) {
        if self.headers.last.take().is_none() {
            return;
        }
        match self.headers.strike(turn.now.mono, UNCONNECTED) {
            Ok(()) => self.look_again(conn, turn),
            Err(why) => turn.out.close(conn, why),
        }
    }

    /// Headers, asked for or announced.
    pub(super) fn on_headers(&mut self, conn: ConnId, mut headers: Vec<[u8; 80]>, nodes: &mut Nodes, turn: &mut Turn<'_>) -> Verdict {
        let now = turn.now.mono;
        self.headers.asked = None;
        if headers.len() > BITCOIN_ANNOUNCED_MAX {
            self.headers.credit = self.headers.credit.checked_sub(1).ok_or_else(|| misbehaviour("headers that were not asked for"))?;
        }
        // The organiser would leave them out too, and nobody would know that what follows builds on nothing.
        let latest = turn.now.unix().saturating_add(HEADER_AHEAD_MAX_S);
        let timely = headers.iter().take_while(|header| word(header, 68) <= latest).count();
        self.headers.early |= timely < headers.len();
        headers.truncate(timely);
        let count = timely;
        let (Some(first), Some(last)) = (headers.first(), headers.last()) else {
            self.ended(conn, nodes, turn);
            return Ok(());
        };
        let (prev, hash) = (prev_of(first), sha256d(last));
        let goes_on = self.headers.last.filter(|(last, _)| *last == prev).map(|(_, height)| height);
        let tree = turn.chain.view.bitcoin();
        // Where nothing is known yet the tree's own rules say with what it begins.
        let below = goes_on.or_else(|| tree.get(&prev).map(|prev| prev.height)).or(tree.is_empty().then_some(0));
        let Some(below) = below else {
            self.headers.strike(now, UNCONNECTED)?;
            self.look_again(conn, turn);
            return Ok(());
        };
        let height = below.saturating_add(count as u32);
        self.headers.last = Some((hash, height));
        self.headers.height = self.headers.height.max(height);
        if count <= BITCOIN_ANNOUNCED_MAX {
            self.on_few(conn, headers, nodes, turn)?;
        } else {
            give(headers, turn);
        }
        if count < BTC_HEADERS_MAX {
            self.ended(conn, nodes, turn);
            return Ok(());
        }
        // It was asked for what follows the last one.
        if self.headers.far && goes_on.is_none() {
            self.headers.strike(now, "headers that begin elsewhere than asked, over and over")?;
        }
        self.went_on((hash, height), turn)?;
        (self.headers.far, self.headers.done) = (true, false);
        if nodes.may_sync(conn) {
            if nodes.tells(now) {
                log::info!("Bitcoin headers: at height {height} of {}, from node {}", self.headers.height, self.addr);
            }
            let locator = std::iter::once(hash).chain(turn.chain.view.bitcoin().locator()).collect();
            self.ask_after(conn, locator, turn);
        }
        Ok(())
    }

    /// A full answer ends with this header. By now those before it are checked, all but the last few that the organiser may still have.
    fn went_on(&mut self, last: ([u8; 32], u32), turn: &Turn<'_>) -> Verdict {
        self.headers.trail.push_back(last);
        if self.headers.trail.len() > usize::from(TICKETS_PER_CONN)
            && let Some((hash, height)) = self.headers.trail.pop_front()
        {
            let tree = turn.chain.view.bitcoin();
            if tree.get(&hash).is_none() && tree.best().is_none_or(|best| best.height < height) {
                return Err(misbehaviour("headers without end that lead nowhere"));
            }
        }
        Ok(())
    }

    /// All that it has is here, or on its way to the organiser.
    fn ended(&mut self, conn: ConnId, nodes: &mut Nodes, turn: &mut Turn<'_>) {
        self.headers.trail.clear();
        (self.headers.far, self.headers.done) = (false, true);
        if nodes.done(conn, self.headers.last.map(|(hash, _)| hash)) {
            log::info!("Bitcoin headers: all that node {} has are here, up to height {}", self.addr, self.headers.height);
        }
        if std::mem::take(&mut self.headers.again) {
            self.ask(conn, turn);
        }
    }

    /// A few headers, mostly of one new block: looked at here, so that bitcoind is asked for work on it at once.
    fn on_few(&mut self, conn: ConnId, headers: Vec<[u8; 80]>, nodes: &Nodes, turn: &mut Turn<'_>) -> Verdict {
        let hashes: Vec<_> = headers.iter().map(|header| sha256d(header)).collect();
        if headers.iter().skip(1).zip(&hashes).any(|(header, before)| prev_of(header) != *before) {
            return Err(misbehaviour("headers in disorder"));
        }
        hashes.iter().for_each(|hash| self.has_block(conn, ShareId(*hash), turn));
        let tree = turn.chain.view.bitcoin();
        let known = hashes.iter().take_while(|hash| tree.get(hash).is_some()).count();
        if let Some((first, last)) = headers.get(known).zip(hashes.last())
            && nodes.synced()
            && leads(tree, first, headers.len() - known)
        {
            log::debug!("block {}: node {} has it", ShareId(*last), self.addr);
            turn.jobs.blocknotify = true;
            turn.counters.bitcoin_announced.add(1);
        }
        // Known ones too: what counts is that this node has the blocks.
        give(headers, turn);
        Ok(())
    }
}

/// Whether so many headers, the first of which is this, would be the best chain, as far as its proof of work tells.
fn leads(tree: &Tree, first: &[u8; 80], count: usize) -> bool {
    let Some((prev, best)) = tree.get(&prev_of(first)).zip(tree.best()) else { return false };
    let (time, bits) = (word(first, 68), word(first, 72));
    let proven = bits == required_bits(tree.params(), prev, time) && hash_meets(&sha256d(first), bits);
    proven && prev.height as usize + count > best.height as usize
}

/// The organiser checks them.
fn give(headers: Vec<[u8; 80]>, turn: &mut Turn<'_>) {
    if let Some(ticket) = turn.out.take_ticket() {
        turn.counters.bitcoin_headers.add(headers.len() as u64);
        turn.jobs.organise.push(OrganiseJob::Blocks { headers, own: true, ticket });
    }
}

fn prev_of(header: &[u8; 80]) -> [u8; 32] {
    let mut prev = [0; 32];
    prev.copy_from_slice(&header[4..36]);
    prev
}

fn word(header: &[u8; 80], at: usize) -> u32 {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}
