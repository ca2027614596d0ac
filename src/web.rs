//! An HTTP connection: requests in order, each answered before the next is looked at.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use rockpool_net::close::CloseReason;
use rockpool_net::frame::http::{Bad, Method, Request};
use rockpool_net::hub::tickets::Ticket;
use rockpool_net::id::ConnId;
use rockpool_workers::jobs::{ReadJob, UpstreamJob};

use crate::http::error::Code;
use crate::http::reply::Reply;
use crate::http::{Answer, Desk, answer, facts};
use crate::limits::HTTP_MAX;
use crate::turn::Turn;

/// Nothing can be asked behind what has no end.
const BEHIND_EVENTS: CloseReason = CloseReason::Done("a request behind that for events");

/// The deadline of a connection that streams: it has none, and only half a request behind the one for events wakes its timer.
const STREAMING: Duration = Duration::MAX;

/// A browser or a script.
#[derive(Debug)]
pub struct Web {
    /// The other side.
    pub addr: SocketAddr,
    /// When it is closed if nothing more is heard.
    deadline: Duration,
    /// Requests behind one that waits for a stage, with their tickets, which bound them.
    waiting: VecDeque<(Result<Request, Bad>, Ticket)>,
    /// The request before them, for which rows are being read, or what is left of one that the stage `upstream` has.
    reading: Option<Request>,
    /// Names the newest that a stage was asked: an answer to another is none.
    reads: u64,
}

impl Web {
    /// A connection that stands.
    pub fn open(conn: ConnId, addr: SocketAddr, turn: &mut Turn<'_>) -> Web {
        let deadline = turn.now.mono + HTTP_MAX;
        turn.out.set_timer(conn, Some(deadline));
        Web { addr, deadline, waiting: VecDeque::new(), reading: None, reads: 0 }
    }

    /// A request came, or what cannot be one: that is answered in its turn too, and ends the connection.
    pub fn on_request(&mut self, conn: ConnId, request: Result<Request, Bad>, desk: &mut Desk<'_>, turn: &mut Turn<'_>) {
        if desk.streams.has(conn) {
            return turn.out.close(conn, BEHIND_EVENTS);
        }
        self.deadline = turn.now.mono + HTTP_MAX;
        turn.out.set_timer(conn, Some(self.deadline));
        if let Some(ticket) = turn.out.take_ticket() {
            self.waiting.push_back((request, ticket));
        }
        self.serve(conn, desk, turn);
    }

    /// The rows that a request waited for.
    pub fn on_read(&mut self, conn: ConnId, tag: u64, rows: &[Option<Vec<u8>>], desk: &mut Desk<'_>, turn: &mut Turn<'_>) {
        let Some(request) = self.reading.take_if(|_| self.reads == tag) else { return };
        // A row that was read is never read again for the same request.
        if let Answer::Send(reply) = answer(&request, self.addr, Some(rows), desk, turn) {
            self.send(conn, &request, &reply, turn);
        }
        self.serve(conn, desk, turn);
    }

    /// What the stage `upstream` answers.
    pub fn on_told(&mut self, conn: ConnId, tag: u64, reply: Reply, desk: &mut Desk<'_>, turn: &mut Turn<'_>) {
        let Some(request) = self.reading.take_if(|_| self.reads == tag) else { return };
        if reply.status == Code::Unauthorized.status() {
            turn.counters.tokens_refused.add(1);
        }
        let reply = desk.pages.doors.opened(&request, reply);
        self.send(conn, &request, &reply, turn);
        self.serve(conn, desk, turn);
    }

    /// Its timer is due. Who has begun a request hears that it came too slowly.
    pub fn on_timer(&mut self, conn: ConnId, turn: &mut Turn<'_>) {
        if self.deadline == STREAMING {
            return turn.out.close(conn, BEHIND_EVENTS);
        }
        if self.reading.is_some() || !self.waiting.is_empty() || !turn.out.is_unfinished(conn) {
            return turn.out.close(conn, CloseReason::Timeout("idle HTTP connection"));
        }
        let reply = Reply::error(Code::Timeout, "the request did not come to its end in time");
        self.end(conn, &reply, CloseReason::Timeout("an HTTP request was not finished"), turn);
    }

    /// Kept tickets go home: it has gone, or the node stops.
    pub fn release(&mut self, turn: &mut Turn<'_>) {
        self.waiting.drain(..).for_each(|(_, ticket)| turn.out.home(ticket));
    }

    /// Serves while there is room and no stage is being asked.
    pub fn serve(&mut self, conn: ConnId, desk: &mut Desk<'_>, turn: &mut Turn<'_>) {
        while self.reading.is_none() && turn.out.room(conn) {
            let Some((request, ticket)) = self.waiting.pop_front() else { return };
            let request = match request {
                Ok(request) => request,
                Err(bad) => {
                    turn.out.home(ticket);
                    return self.end(conn, &Reply::bad(bad), CloseReason::BadFrame(bad.to_string()), turn);
                }
            };
            match answer(&request, self.addr, None, desk, turn) {
                Answer::Read(rows) => {
                    self.reads += 1;
                    self.reading = Some(request);
                    turn.jobs.read.push(ReadJob { conn, tag: self.reads, rows, ticket });
                }
                Answer::Upstream => {
                    self.reads += 1;
                    // The stage has the token and the body; what its answer needs stays.
                    let (origin, keep_alive) = (request.origin.clone(), request.keep_alive);
                    self.reading = Some(Request { origin, keep_alive, ..Request::new(request.method, "") });
                    turn.jobs.upstream.push(UpstreamJob::Ask { conn, tag: self.reads, request: Box::new(request), ticket });
                }
                Answer::Stream(head) => {
                    self.stream(conn, &request, &head, desk, turn);
                    turn.out.home(ticket);
                }
                Answer::Send(reply) => {
                    // In this order: a client that has ended is closed once all its tickets are home and what was said is flushed.
                    self.send(conn, &request, &reply, turn);
                    turn.out.home(ticket);
                }
            }
        }
    }

    /// The connection becomes a stream: it has no deadline any more, and nothing more is answered on it.
    fn stream(&mut self, conn: ConnId, request: &Request, head: &Reply, desk: &mut Desk<'_>, turn: &mut Turn<'_>) {
        if request.method == Method::Head {
            return self.end(conn, head, CloseReason::Done("HTTP answer sent"), turn);
        }
        if !self.waiting.is_empty() {
            return turn.out.close(conn, BEHIND_EVENTS);
        }
        // Nothing of requests is held while it lives.
        self.waiting = VecDeque::new();
        self.deadline = STREAMING;
        turn.out.set_timer(conn, None);
        let status = desk.pages.status(facts(desk.status, desk.miners, turn));
        let news = desk.streams.open(conn, request.last_event, status.body(), turn);
        turn.out.send(conn, head.payload(true, false));
        turn.out.send_bytes(conn, news.into_bytes());
    }

    fn send(&mut self, conn: ConnId, request: &Request, reply: &Reply, turn: &mut Turn<'_>) {
        turn.out.send(conn, reply.payload(request.method == Method::Head, request.keep_alive));
        if !request.keep_alive {
            self.release(turn);
            turn.out.close_after_flush(conn, CloseReason::Done("HTTP answer sent"));
        }
    }

    /// The last word.
    fn end(&mut self, conn: ConnId, reply: &Reply, why: CloseReason, turn: &mut Turn<'_>) {
        turn.out.send(conn, reply.payload(false, false));
        self.release(turn);
        turn.out.close_after_flush(conn, why);
    }
}

#[cfg(test)]
mod tests;
