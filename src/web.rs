//! An HTTP connection: requests in order, each answered before the next is looked at.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use rockpool_net::close::CloseReason;
use rockpool_net::frame::http::Request;
use rockpool_net::hub::tickets::Ticket;
use rockpool_net::id::ConnId;
use rockpool_workers::jobs::ReadJob;

use crate::http::{Answer, Pages, blocknotify, peers, told};
use crate::limits::HTTP_MAX;
use crate::peer::Peers;
use crate::session::Sessions;
use crate::status::{Facts, Status};
use crate::turn::Turn;

/// What answers are made of, beside what a turn has.
pub struct Desk<'a> {
    /// What is rendered and remembered.
    pub pages: &'a mut Pages,
    /// The other sessions.
    pub sessions: &'a mut Sessions,
    /// Peers.
    pub peers: &'a mut Peers,
    /// The node at this moment.
    pub status: &'a Status,
}

/// A browser or a script.
#[derive(Debug)]
pub struct Web {
    /// The other side.
    pub addr: SocketAddr,
    /// When it is closed if nothing more is heard.
    deadline: Duration,
    /// Requests behind one that waits for the disk, with their tickets, which bound them.
    waiting: VecDeque<(Request, Ticket)>,
    /// A row is being read for the request before them.
    reading: Option<u64>,
}

impl Web {
    /// A connection that stands.
    pub fn open(conn: ConnId, addr: SocketAddr, turn: &mut Turn<'_>) -> Web {
        let deadline = turn.now.mono + HTTP_MAX;
        turn.out.set_timer(conn, Some(deadline));
        Web { addr, deadline, waiting: VecDeque::new(), reading: None }
    }

    /// A request came.
    pub fn on_request(&mut self, conn: ConnId, request: Request, desk: &mut Desk<'_>, turn: &mut Turn<'_>) {
        self.deadline = turn.now.mono + HTTP_MAX;
        turn.out.set_timer(conn, Some(self.deadline));
        if let Some(ticket) = turn.out.take_ticket() {
            self.waiting.push_back((request, ticket));
        }
        self.serve(conn, desk, turn);
    }

    /// The rows that a request waited for.
    pub fn on_read(&mut self, conn: ConnId, tag: u64, rows: &[Option<Vec<u8>>], desk: &mut Desk<'_>, turn: &mut Turn<'_>) {
        if self.reading.take_if(|reading| *reading == tag).is_none() {
            return;
        }
        let answer = desk.pages.read(tag, rows, facts(desk.status, turn));
        self.finish(conn, answer, turn);
        self.serve(conn, desk, turn);
    }

    /// Its timer is due.
    pub fn on_timer(&mut self, conn: ConnId, turn: &mut Turn<'_>) {
        turn.out.close(conn, CloseReason::Timeout("idle HTTP connection"));
    }

    /// Kept tickets go home: it has gone, or the node stops.
    pub fn release(&mut self, turn: &mut Turn<'_>) {
        self.waiting.drain(..).for_each(|(_, ticket)| turn.out.home(ticket));
    }

    /// Serves while there is room and nothing is being read.
    pub fn serve(&mut self, conn: ConnId, desk: &mut Desk<'_>, turn: &mut Turn<'_>) {
        while self.reading.is_none() && turn.out.room(conn) {
            let Some((request, ticket)) = self.waiting.pop_front() else { return };
            match self.answer(&request, desk, turn) {
                Answer::Read { rows, tag } => {
                    self.reading = Some(tag);
                    turn.jobs.read.push(ReadJob { conn, tag, rows, ticket });
                }
                answer @ Answer::Send { .. } => {
                    // In this order: a client that has ended is closed once all its tickets are home and what was said is flushed.
                    self.finish(conn, answer, turn);
                    turn.out.home(ticket);
                }
            }
        }
    }

    fn answer(&self, request: &Request, desk: &mut Desk<'_>, turn: &mut Turn<'_>) -> Answer {
        if let Some((answer, heard)) = blocknotify(request, self.addr) {
            turn.jobs.blocknotify |= heard;
            return answer;
        }
        if let Some(reply) = peers::answer(request, self.addr, desk.sessions, desk.peers, turn) {
            return told(request, &reply);
        }
        desk.pages.answer(turn.now, request, facts(desk.status, turn))
    }

    fn finish(&mut self, conn: ConnId, answer: Answer, turn: &mut Turn<'_>) {
        // A row that was read is never read again for the same request.
        let Answer::Send { payload, close } = answer else { return };
        turn.out.send(conn, payload);
        if close {
            self.release(turn);
            turn.out.close_after_flush(conn, CloseReason::Done("HTTP answer sent"));
        }
    }
}

fn facts<'a>(status: &'a Status, turn: &'a Turn<'_>) -> Facts<'a> {
    Facts { status, chain: turn.chain, blocks: turn.blocks, counters: turn.counters, net: turn.out.counters(), times: turn.out.times() }
}
