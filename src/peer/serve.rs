//! What a peer asked for: it waits on its connection and is served while there is room to send.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::limits::BODY_PART_BYTES;
use rockpool_net::sha256::sha256d;
use rockpool_net::wire::message::{GetBlockBody, GetHeaders, GetTemplate, Message, Start};
use rockpool_store::handle::Found;
use rockpool_workers::jobs::{ReadJob, Reads};

use crate::limits::{
    BODY_SENT_MAX, BODY_TIME_MAX, BTC_HEADERS_ALONG_MAX, BTC_HEADERS_UNASKED_MAX, CHAINTIP_EVERY, REQUESTS_MAX, SYNC_SHARES, TEMPLATE_EVERY,
};
use crate::turn::Turn;

/// A request.
#[derive(Debug)]
pub enum Wanted {
    /// Shares from a fork point or a height on.
    Headers(GetHeaders),
    /// Shares by id.
    Data(Vec<ShareId>),
    /// Part of the list of a share's transactions.
    Template(GetTemplate),
    /// Part of a found block.
    Body(GetBlockBody),
    /// That we look through the ids of a long `inv`.
    Look(Vec<ShareId>),
}

/// What the reader was asked for on a peer's behalf.
#[derive(Debug)]
enum Reading {
    Headers(GetHeaders, Vec<(u32, ShareId)>),
    Data(Vec<ShareId>),
}

/// Requests of one peer, in order. They wait without a ticket, or a few peers that do not read would keep those of all; who has
/// [`REQUESTS_MAX`] of them waiting is not heard meanwhile.
#[derive(Debug, Default)]
pub struct Requests {
    waiting: VecDeque<Wanted>,
    reading: Option<(u64, Reading)>,
    reads: u64,
    /// Score of the tip that the peer was told of last.
    promised: u128,
    /// Nothing is served before this moment: our chain is being confirmed and does not reach that far yet.
    held: Option<Duration>,
    /// When it was sent part of a list of transactions.
    template: Option<Duration>,
    /// Bytes of found blocks that it was sent, and since when they are counted.
    bodies: (usize, Duration),
}

impl Requests {
    /// One more, to be served when it is the peer's turn.
    pub fn push(&mut self, conn: ConnId, wanted: Wanted, turn: &mut Turn<'_>) {
        self.waiting.push_back(wanted);
        self.go_on(conn, turn);
    }

    /// The peer is told of a tip of this score, and will take a shorter answer for a lie.
    pub fn promise(&mut self, score: u128) {
        self.promised = score;
    }

    /// When [`Requests::look`] is due.
    pub fn held(&self) -> Option<Duration> {
        self.held
    }

    /// What was held is tried again.
    pub fn look(&mut self, conn: ConnId, turn: &mut Turn<'_>) {
        if self.held.take_if(|at| turn.now.mono >= *at).is_some() {
            self.go_on(conn, turn);
        }
    }

    /// It is the peer's turn: the next request is served, if there is room and nothing is being read. Returns ids to be looked through.
    pub fn on_room(&mut self, conn: ConnId, turn: &mut Turn<'_>) -> Option<Vec<ShareId>> {
        let mut look = None;
        if self.reading.is_none()
            && self.held.is_none()
            && turn.out.room(conn)
            && let Some(wanted) = self.waiting.pop_front()
        {
            match wanted {
                Wanted::Headers(headers) => self.headers(conn, &headers, turn),
                Wanted::Data(ids) => self.data(conn, ids, turn),
                Wanted::Template(part) => self.template(conn, &part, turn),
                Wanted::Body(part) => self.body(conn, &part, turn),
                Wanted::Look(ids) => look = Some(ids),
            }
        }
        self.go_on(conn, turn);
        look
    }

    /// The next turn is asked for, unless an answer from the reader or room in the outbox has to come first; both ask for it then.
    fn go_on(&mut self, conn: ConnId, turn: &mut Turn<'_>) {
        if !self.waiting.is_empty() && self.reading.is_none() && self.held.is_none() && turn.out.room(conn) {
            turn.out.ask_room(conn);
        }
    }

    /// Whether so many wait that the peer is not heard meanwhile.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= REQUESTS_MAX
    }

    /// The reader's answer: what was asked for goes out, and the next request has its turn.
    pub fn on_read(&mut self, conn: ConnId, tag: u64, rows: Vec<Option<Vec<u8>>>, turn: &mut Turn<'_>) {
        match self.reading.take_if(|(asked, _)| *asked == tag) {
            None => return,
            Some((_, Reading::Headers(wanted, asked))) => {
                let view = &turn.chain.view;
                if asked.iter().all(|(height, id)| view.at_height(*height).is_some_and(|record| record.id == *id)) {
                    // A row that is not stored yet is in the view.
                    let shares = asked.iter().zip(rows).map_while(|((_, id), row)| row.map(Arc::from).or_else(|| view.bytes(id)));
                    let shares: Vec<Arc<[u8]>> = shares.collect();
                    answer(conn, asked.first().map_or(0, |(height, _)| *height), &shares, turn);
                } else {
                    // We have reorganised meanwhile: what is left of the old chain would look as if it had ended there.
                    self.waiting.push_front(Wanted::Headers(wanted));
                }
            }
            Some((_, Reading::Data(ids))) => {
                let mut absent = Vec::new();
                for (id, row) in ids.into_iter().zip(rows) {
                    match row {
                        Some(bytes) => turn.out.send(conn, Message::share_from_bytes(turn.config.params.magic, &bytes)),
                        None => absent.push(id),
                    }
                }
                not_found(conn, absent, turn);
            }
        }
        self.go_on(conn, turn);
    }

    fn headers(&mut self, conn: ConnId, wanted: &GetHeaders, turn: &mut Turn<'_>) {
        let (tip, confirmed) = (turn.chain.view.tip().score, turn.chain.view.confirmed_tip().score);
        if confirmed < self.promised && confirmed < tip {
            // Between two chains: the better one is being confirmed, and the one that the peer was told of has gone. Within this time it is
            // told of the tip that there is by then.
            self.held = Some(turn.now.mono + CHAINTIP_EVERY);
            return self.waiting.push_front(Wanted::Headers(wanted.clone()));
        }
        let first = match &wanted.from {
            // Who has nothing in common with what we keep is told nothing.
            Start::Locator(ids) => turn.chain.view.find_fork(ids).map(|fork| fork + 1),
            Start::Height(height) => Some((*height).max(turn.chain.view.lowest().height)),
        };
        let mut rows = first.map_or_else(Vec::new, |first| turn.chain.range(first, SYNC_SHARES));
        if let Some(stop) = rows.iter().position(|(_, id)| *id == wanted.stop) {
            rows.truncate(stop + 1);
        }
        let mut warm = Vec::with_capacity(rows.len());
        for (height, id) in &rows {
            match turn.chain.bytes_at(*height, id) {
                Ok(Found::Bytes(bytes)) => warm.push(bytes),
                // All of them then, so that nothing waits in memory for the rest.
                _ => return self.read(conn, Reading::Headers(wanted.clone(), rows.clone()), rows, turn),
            }
        }
        answer(conn, first.unwrap_or(0), &warm, turn);
    }

    fn data(&mut self, conn: ConnId, ids: Vec<ShareId>, turn: &mut Turn<'_>) {
        let (mut absent, mut cold) = (Vec::new(), Vec::new());
        for id in ids {
            match turn.chain.share_bytes(&id) {
                Ok(Found::Bytes(bytes)) => turn.out.send(conn, Message::share_from_bytes(turn.config.params.magic, &bytes)),
                Ok(Found::Cold(height)) => cold.push((height, id)),
                Ok(Found::Absent) if turn.chain.view.bitcoin().get(&id.0).is_some() => blocks(conn, &id.0, turn),
                Ok(Found::Absent) => absent.push(id),
                Err(error) => {
                    log::error!("share {id} cannot be read for a peer: {error}; rockpool check tells more");
                    absent.push(id);
                }
            }
        }
        not_found(conn, absent, turn);
        if !cold.is_empty() {
            let ids = cold.iter().map(|(_, id)| *id).collect();
            self.read(conn, Reading::Data(ids), cold, turn);
        }
    }

    /// A peer that asks too often is told that there is nothing, and may ask again.
    fn template(&mut self, conn: ConnId, wanted: &GetTemplate, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        let soon = self.template.is_some_and(|served| now < served + TEMPLATE_EVERY);
        match turn.templates.part(wanted).filter(|_| !soon) {
            Some(part) => {
                self.template = Some(now);
                super::say(conn, &Message::Template(part), turn);
            }
            None => not_found(conn, vec![wanted.id], turn),
        }
    }

    /// A peer that asks for more than it can need is told that there is nothing.
    fn body(&mut self, conn: ConnId, wanted: &GetBlockBody, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        if now >= self.bodies.1 + BODY_TIME_MAX {
            self.bodies = (0, now);
        }
        let room = self.bodies.0 + BODY_PART_BYTES <= BODY_SENT_MAX;
        match turn.blocks.part(wanted).filter(|_| room) {
            Some(part) => {
                self.bodies.0 += part.bytes.len();
                if wanted.places.is_empty() && wanted.offset == 0 {
                    turn.blocks.served(&wanted.id);
                }
                super::say(conn, &Message::BlockBody(part), turn);
            }
            None => not_found(conn, vec![wanted.id], turn),
        }
    }

    fn read(&mut self, conn: ConnId, reading: Reading, rows: Vec<(u32, ShareId)>, turn: &mut Turn<'_>) {
        // A turn to be served brings a ticket.
        let Some(ticket) = turn.out.take_ticket() else { return };
        self.reads += 1;
        self.reading = Some((self.reads, reading));
        turn.jobs.read.push(ReadJob { conn, tag: self.reads, rows: Reads::Shares(rows), ticket });
    }
}

/// Shares from this height of our chain on, behind the Bitcoin headers that they build on: without these nobody could judge one on a stale
/// block (SHARECHAIN §3).
fn answer(conn: ConnId, first: u32, shares: &[Arc<[u8]>], turn: &mut Turn<'_>) {
    let (view, magic) = (&turn.chain.view, turn.config.params.magic);
    let (mut headers, mut told, mut last) = (Vec::new(), BTreeSet::new(), None);
    for prev in shares.iter().filter_map(|bytes| <[u8; 32]>::try_from(bytes.get(4..36)?).ok()) {
        if last.replace(prev) != Some(prev) && !told.contains(&prev) {
            let needed = view.headers_between(first.saturating_sub(1), &prev, BTC_HEADERS_ALONG_MAX - headers.len());
            headers.extend(needed.into_iter().filter(|header| told.insert(sha256d(header))));
        }
    }
    for part in headers.chunks(BTC_HEADERS_UNASKED_MAX) {
        super::say(conn, &Message::BtcHeaders(part.to_vec()), turn);
    }
    let (payload, _) = Message::share_headers_from_bytes(magic, shares.iter().cloned());
    turn.out.send(conn, payload);
}

/// A Bitcoin header by its hash, with as many below it as may come unasked: who asks lacks perhaps more than this one.
fn blocks(conn: ConnId, hash: &[u8; 32], turn: &mut Turn<'_>) {
    let tree = turn.chain.view.bitcoin();
    let mut branch: Vec<[u8; 80]> =
        std::iter::successors(tree.get(hash), |block| tree.prev(block)).take(BTC_HEADERS_UNASKED_MAX).map(|block| block.header).collect();
    branch.reverse();
    super::say(conn, &Message::BtcHeaders(branch), turn);
}

fn not_found(conn: ConnId, ids: Vec<ShareId>, turn: &mut Turn<'_>) {
    if !ids.is_empty() {
        super::say(conn, &Message::NotFound(ids), turn);
    }
}
