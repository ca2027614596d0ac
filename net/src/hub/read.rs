//! Reading and cutting, within the budgets of a connection and of the turn.

use std::io::ErrorKind;

use rand_chacha::ChaCha12Rng;

use crate::close::CloseReason;
use crate::frame::Cut;
use crate::hub::conn::{Conn, State, pooled};
use crate::hub::io::{Io, Stage};
use crate::hub::{Hub, Outlet};
use crate::id::ConnId;
use crate::limits::{READ_CONN_BYTES, READ_TURN_BYTES, RECEIVE_FREE_BYTES, RECEIVE_POOL_BYTES, TICKETS_PER_CONN};

impl<A> Hub<A> {
    /// Reads from who has something and may be read. Nobody tells again of what is left, so who is not drained stays in the backlog.
    pub(super) fn read(&mut self, rng: &mut ChaCha12Rng, io: &mut impl Io<Answer = A>) {
        let mut budget = READ_TURN_BYTES;
        self.out.reads.begin(rng);
        while budget > 0
            && let Some(slot) = self.out.reads.next()
        {
            let Some((id, conn)) = self.out.conns.at_mut(slot).filter(|(_, conn)| conn.in_reads) else { continue };
            conn.in_reads = false;
            if matches!(conn.state, State::Closing) || conn.ended {
                continue;
            }
            if std::mem::take(&mut conn.lagging) || !self.out.may_read(id) {
                self.out.want_read(id);
                continue;
            }
            budget -= self.read_one(id, budget, io);
            self.out.want_read(id);
            self.out.want_cut(id);
        }
        if self.out.reads.is_left() {
            self.out.counters.budgets_spent.add(1);
        }
    }

    /// One read of one connection, of at most the budget. Returns the bytes.
    fn read_one(&mut self, id: ConnId, budget: usize, io: &mut impl Io<Answer = A>) -> usize {
        let out = &mut self.out;
        let pool_free = RECEIVE_POOL_BYTES - out.pool;
        let Some(conn) = out.conns.get_mut(id) else { return 0 };
        let flushing = matches!(conn.state, State::Flushing(_));
        let want = room(conn, pool_free).min(READ_CONN_BYTES).min(budget);
        out.counters.reads.add(1);
        match io.read(id, &mut self.buffer[..want]) {
            Ok(0) => {
                (conn.readable, conn.ended) = (false, true);
                if !flushing {
                    out.finish_if_ended(id);
                } else if conn.outbox.is_empty() {
                    out.close_by_state(id);
                }
            }
            Ok(n) => {
                // A short read has drained the socket: what comes later is told by another event. Not so behind a hang-up: its end is due.
                conn.readable = n == want || conn.hung_up;
                out.counters.bytes_in.add(n as u64);
                self.report.bytes_in += n;
                if !flushing {
                    let before = conn.pooled();
                    conn.make_room(n);
                    let opened = conn.transport.open(&self.buffer[..n], &mut conn.received);
                    out.pool += conn.pooled() - before;
                    if let Err(why) = opened {
                        out.close(id, why);
                    }
                }
                return n;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => conn.readable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) if flushing => out.close_by_state(id),
            Err(error) => out.close(id, CloseReason::Socket(error.to_string())),
        }
        0
    }

    /// Cuts frames off what was read, each with a ticket. Who gets none keeps its bytes and is not read, and nobody else is held up.
    pub(super) fn frame(&mut self, rng: &mut ChaCha12Rng, io: &mut impl Io<Answer = A>) {
        io.stage(Stage::Frame);
        let mut budget = READ_TURN_BYTES;
        self.out.frames.begin(rng);
        while budget > 0
            && let Some(slot) = self.out.frames.next()
        {
            let Some((id, conn)) = self.out.conns.at_mut(slot).filter(|(_, conn)| conn.in_frames) else { continue };
            conn.in_frames = false;
            if !matches!(conn.state, State::Open) {
                continue;
            }
            budget = budget.saturating_sub(self.cut(id));
        }
    }

    /// Cuts what there is of one connection and drops the bytes from its buffer. Returns how many they were.
    fn cut(&mut self, id: ConnId) -> usize {
        let (mut used, mut frames) = (0, 0);
        let end = self.cut_frames(id, &mut used, &mut frames);
        let out = &mut self.out;
        let now = out.now.mono;
        let Some(conn) = out.conns.get_mut(id) else { return used };
        let before = conn.pooled();
        conn.received.drain(..used);
        conn.settle();
        out.pool -= before - conn.pooled();
        conn.spoke |= frames > 0;
        conn.message_deadline(now, frames > 0);
        out.counters.frames_unknown.add(u64::from(conn.framer.take_unknown()));
        self.report.frames += frames;
        let waits = matches!(end, End::NoTicket);
        if waits && !conn.waits {
            out.counters.tickets_waited.add(1);
        }
        conn.waits = waits;
        conn.bar(now);
        out.rearm(id.slot);
        match end {
            End::NoTicket => out.want_cut(id),
            End::NoFrame => out.finish_if_ended(id),
            End::Bad(why) => out.close(id, why),
        }
        used
    }

    /// Moves frames to the inbox until there is none, or no ticket.
    fn cut_frames(&mut self, id: ConnId, used: &mut usize, frames: &mut usize) -> End {
        let out = &mut self.out;
        let Some(conn) = out.conns.get_mut(id) else { return End::NoFrame };
        while *used < conn.received.len() {
            if conn.tickets >= TICKETS_PER_CONN || !out.lanes.has(conn.lane) || !out.reading {
                return End::NoTicket;
            }
            match conn.framer.cut(&conn.received[*used..]) {
                Ok(Cut::Frame { frame, used: bytes }) => {
                    *used += bytes;
                    *frames += 1;
                    let ticket = out.lanes.give(conn.lane, id, frame.bytes());
                    conn.tickets += 1;
                    conn.inbox += 1;
                    out.counters.frames(conn.lane).add(1);
                    out.counters.tickets(conn.lane).set(out.lanes.out(conn.lane) as u64);
                    self.inbox.push_back((id, frame, ticket));
                }
                Ok(Cut::Skip(bytes)) => *used += bytes.min(conn.received.len() - *used),
                Ok(Cut::Need(_)) => break,
                Err(error) => return End::Bad(CloseReason::BadFrame(error.to_string())),
            }
        }
        End::NoFrame
    }
}

/// Why no more was cut.
enum End {
    /// What is left is no whole frame.
    NoFrame,
    /// There may be one, but no ticket.
    NoTicket,
    /// It cannot be one.
    Bad(CloseReason),
}

impl Outlet {
    /// Whether a connection with bytes is read now. Notes who starves for want of room in the pool.
    fn may_read(&mut self, id: ConnId) -> bool {
        let (now, pool_free) = (self.now.mono, RECEIVE_POOL_BYTES - self.pool);
        let Some(conn) = self.conns.get_mut(id) else { return false };
        let starved = room(conn, pool_free) == 0;
        if starved != conn.starved {
            self.counters.receive_waited.add(u64::from(starved));
            conn.starved = starved;
            conn.bar(now);
        }
        let may = self.reading && conn.can_read(pool_free);
        self.rearm(id.slot);
        may
    }

    /// Puts a connection with bytes to be read on the backlog.
    pub(crate) fn want_read(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.readable && !conn.in_reads) {
            conn.in_reads = true;
            self.reads.push(id.slot);
        }
    }

    /// Puts a connection with bytes to be cut on the backlog.
    fn want_cut(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id).filter(|conn| !conn.received.is_empty() && !conn.in_frames) {
            conn.in_frames = true;
            self.frames.push(id.slot);
        }
    }

    /// Whether a read could bring something now.
    pub(super) fn can_read(&self) -> bool {
        let pool_free = RECEIVE_POOL_BYTES - self.pool;
        self.reading && self.reads.iter().any(|slot| self.conns.at(slot).is_some_and(|(_, conn)| conn.in_reads && conn.can_read(pool_free)))
    }

    /// Whether a frame could be cut now.
    pub(super) fn can_cut(&self) -> bool {
        let able = |conn: &Conn| conn.in_frames && conn.tickets < TICKETS_PER_CONN && self.lanes.has(conn.lane);
        self.reading && self.frames.iter().any(|slot| self.conns.at(slot).is_some_and(|(_, conn)| able(conn)))
    }
}

impl Conn {
    fn can_read(&self, pool_free: usize) -> bool {
        let open = matches!(self.state, State::Open | State::Flushing(_)) && self.readable && !self.ended;
        open && !self.paused && !self.in_frames && room(self, pool_free) > 0
    }
}

/// Bytes that a connection may take in: to the end of its current step, and what the pool has.
fn room(conn: &Conn, pool_free: usize) -> usize {
    let held = conn.received.len();
    let step = RECEIVE_FREE_BYTES + pooled(held) - held;
    step + pool_free
}
