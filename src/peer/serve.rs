//! What a peer asked for: it waits on its connection and is served while there is room to send.

use std::collections::VecDeque;
use std::sync::Arc;

use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::wire::message::{GetHeaders, Message, Start};
use rockpool_store::handle::Found;
use rockpool_workers::jobs::ReadJob;

use crate::limits::{REQUESTS_MAX, SYNC_SHARES};
use crate::turn::Turn;

/// A request.
#[derive(Debug)]
pub enum Wanted {
    /// Shares from a fork point or a height on.
    Headers(GetHeaders),
    /// Shares by id.
    Data(Vec<ShareId>),
    /// That we look through the ids of a long `inv`.
    Look(Vec<ShareId>),
}

/// What the reader was asked for on a peer's behalf.
#[derive(Debug)]
enum Reading {
    Headers(Vec<ShareId>),
    Data(Vec<ShareId>),
}

/// Requests of one peer, in order. They wait without a ticket, or a few peers that do not read would keep those of all; who has
/// [`REQUESTS_MAX`] of them waiting is not heard meanwhile.
#[derive(Debug, Default)]
pub struct Requests {
    waiting: VecDeque<Wanted>,
    reading: Option<(u64, Reading)>,
    reads: u64,
    paused: bool,
}

impl Requests {
    /// One more, to be served when it is the peer's turn.
    pub fn push(&mut self, conn: ConnId, wanted: Wanted, turn: &mut Turn<'_>) {
        self.waiting.push_back(wanted);
        self.go_on(conn, turn);
    }

    /// It is the peer's turn: the next request is served, if there is room and nothing is being read. Returns ids to be looked through.
    pub fn on_room(&mut self, conn: ConnId, turn: &mut Turn<'_>) -> Option<Vec<ShareId>> {
        let mut look = None;
        if self.reading.is_none()
            && turn.out.room(conn)
            && let Some(wanted) = self.waiting.pop_front()
        {
            match wanted {
                Wanted::Headers(headers) => self.headers(conn, &headers, turn),
                Wanted::Data(ids) => self.data(conn, ids, turn),
                Wanted::Look(ids) => look = Some(ids),
            }
        }
        self.go_on(conn, turn);
        look
    }

    /// The next turn is asked for, unless an answer from the reader or room in the outbox has to come first; both ask for it then.
    fn go_on(&mut self, conn: ConnId, turn: &mut Turn<'_>) {
        if !self.waiting.is_empty() && self.reading.is_none() && turn.out.room(conn) {
            turn.out.ask_room(conn);
        }
        let many = self.waiting.len() >= REQUESTS_MAX;
        if many != std::mem::replace(&mut self.paused, many) {
            turn.out.pause(conn, many);
        }
    }

    /// The reader's answer: what was asked for goes out, and the next request has its turn.
    pub fn on_read(&mut self, conn: ConnId, tag: u64, rows: Vec<Option<Vec<u8>>>, turn: &mut Turn<'_>) {
        match self.reading.take_if(|(asked, _)| *asked == tag) {
            None => return,
            Some((_, Reading::Headers(ids))) => {
                // A row that is gone by now (a reorg) is the end of what we can say; one not stored yet is in the view.
                let shares = ids.iter().zip(rows).map_while(|(id, row)| row.map(Arc::from).or_else(|| turn.chain.view.bytes(id)));
                let (payload, _) = Message::share_headers_from_bytes(turn.config.params.magic, shares);
                turn.out.send(conn, payload);
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
        let view = &turn.chain.view;
        // By locator the best chain, for who follows it; by height what is confirmed, which several peers tell alike.
        let (first, last) = match &wanted.from {
            Start::Locator(ids) => (view.find_fork(ids) + 1, view.tip().height),
            // Genesis is known to all and has no bytes.
            Start::Height(height) => ((*height).max(1), view.confirmed_height()),
        };
        let mut rows = Vec::new();
        for record in (first..=last).take(SYNC_SHARES).map_while(|height| view.at_height(height)) {
            rows.push((record.height, record.id));
            if record.id == wanted.stop {
                break;
            }
        }
        let mut warm = Vec::with_capacity(rows.len());
        for (_, id) in &rows {
            match turn.chain.share_bytes(id) {
                Ok(Found::Bytes(bytes)) => warm.push(bytes),
                // All of them then, so that nothing waits in memory for the rest.
                _ => {
                    let ids = rows.iter().map(|(_, id)| *id).collect();
                    return self.read(conn, Reading::Headers(ids), rows, turn);
                }
            }
        }
        let (payload, _) = Message::share_headers_from_bytes(turn.config.params.magic, warm);
        turn.out.send(conn, payload);
    }

    fn data(&mut self, conn: ConnId, ids: Vec<ShareId>, turn: &mut Turn<'_>) {
        let (mut absent, mut cold) = (Vec::new(), Vec::new());
        for id in ids {
            match turn.chain.share_bytes(&id) {
                Ok(Found::Bytes(bytes)) => turn.out.send(conn, Message::share_from_bytes(turn.config.params.magic, &bytes)),
                Ok(Found::Cold(height)) => cold.push((height, id)),
                Ok(Found::Absent) => absent.push(id),
                Err(error) => {
                    log::error!("share {id}: {error}");
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

    fn read(&mut self, conn: ConnId, reading: Reading, rows: Vec<(u32, ShareId)>, turn: &mut Turn<'_>) {
        // A turn to be served brings a ticket.
        let Some(ticket) = turn.out.take_ticket() else { return };
        self.reads += 1;
        self.reading = Some((self.reads, reading));
        turn.jobs.read.push(ReadJob { conn, tag: self.reads, rows, ticket });
    }
}

fn not_found(conn: ConnId, ids: Vec<ShareId>, turn: &mut Turn<'_>) {
    if !ids.is_empty() {
        super::say(conn, &Message::NotFound(ids), turn);
    }
}
