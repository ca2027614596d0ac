//! Reading and cutting, within the budgets of a connection and of the turn.

use std::io::ErrorKind;

use rand_chacha::ChaCha12Rng;

use crate::close::CloseReason;
use crate::hub::conn::{Conn, State};
use crate::hub::io::{Io, Stage};
use crate::hub::received::Next;
use crate::hub::timers::Due;
use crate::hub::{Hub, Outlet};
use crate::id::{ConnId, Lane};
use crate::limits::{FRAMES_A_ROUND, POOL_GRACE, READ_TURN_BYTES, RECEIVE_POOL_BYTES, UNHEARD_MAX, V2_SKIP_COST, read_bytes};
use crate::transport::Transport;

impl<A> Hub<A> {
    /// Reads from who has something and may be read. Nobody tells again of what is left, so who is not drained stays in the backlog.
    pub(super) fn read(&mut self, rng: &mut ChaCha12Rng, io: &mut impl Io<Answer = A>) {
        let (mut budget, mut starved) = (READ_TURN_BYTES, false);
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
                starved |= self.out.conns.get(id).is_some_and(|conn| conn.starved);
                self.out.want_read(id);
                continue;
            }
            budget -= self.read_one(id, budget, io);
            self.out.want_read(id);
        }
        if starved {
            self.out.relieve_pool();
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
        // What cannot be cut for want of a ticket is not hoarded: the pool is for messages that are coming.
        let able = conn.may_cut() && out.lanes.has(conn.lane);
        let space = conn.received.space(pool_free);
        let want = if able { space } else { space.min(conn.received.space(0).max(1)) }.min(read_bytes(conn.lane)).min(budget);
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
                conn.received.traffic.0 += n as u64;
                self.report.bytes_in += n;
                if !flushing {
                    let before = conn.received.pooled();
                    conn.received.grow(n, &mut out.spare).extend_from_slice(&self.buffer[..n]);
                    out.pool += conn.received.pooled() - before;
                    out.want_cut_of_read(id);
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
    ///
    /// Runs in rounds with dispatch, as tickets come home: at most [`FRAMES_A_ROUND`] frames of each connection in one round, so that who
    /// says much takes turns with the others. Returns the frames.
    pub(super) fn frame(&mut self, rng: &mut ChaCha12Rng, io: &mut impl Io<Answer = A>) -> usize {
        if !self.out.can_cut() {
            return 0;
        }
        io.stage(Stage::Frame);
        let mut frames = 0;
        for lane in Lane::ALL {
            self.out.frames[lane as usize].begin(rng);
            while self.cut_left[lane as usize] > 0
                && self.out.reading
                && self.out.lanes.has(lane)
                && let Some(slot) = self.out.frames[lane as usize].next()
            {
                let Some((id, conn)) = self.out.conns.at_mut(slot).filter(|(_, conn)| conn.in_frames) else { continue };
                conn.in_frames = false;
                if matches!(conn.state, State::Open) {
                    frames += self.cut(id, lane);
                }
            }
            let waits = !self.out.lanes.has(lane) && !self.out.frames[lane as usize].is_empty();
            self.out.counters.tickets_waited.add(u64::from(waits));
        }
        self.report.frames += frames;
        frames
    }

    /// Cuts what there is of one connection. Returns how many frames that were.
    fn cut(&mut self, id: ConnId, lane: Lane) -> usize {
        let out = &mut self.out;
        let Some(conn) = out.conns.get_mut(id) else { return 0 };
        let (held, unfinished, wanted) = (conn.received.pooled(), conn.received.unfinished(), conn.received.wanted());
        let was_ready = conn.transport.is_ready();
        let mut frames = 0;
        let end = loop {
            if conn.received.unfinished() == 0 {
                break End::NoFrame;
            }
            if !conn.may_cut() || !out.lanes.has(lane) {
                break End::NoTicket;
            }
            if frames == FRAMES_A_ROUND {
                break End::Round;
            }
            match conn.received.next_frame(&mut conn.transport) {
                Ok(Next::Frame(frame)) => {
                    frames += 1;
                    let ticket = out.lanes.give(lane, id, frame.bytes());
                    conn.tickets += 1;
                    conn.inbox += 1;
                    self.inbox.push_back((id, frame, ticket));
                }
                Ok(Next::Nothing) => break End::NoFrame,
                Ok(Next::Keys) => break End::Keys,
                Ok(Next::Enough) => break End::Round,
                Err(error) => break End::Bad(CloseReason::BadFrame(error.to_string())),
            }
        };
        let left = &mut self.cut_left[lane as usize];
        *left = left.saturating_sub(unfinished - conn.received.unfinished());
        let (skipped, unknown) = (conn.received.take_skipped(), conn.received.framer.take_unknown());
        *left = left.saturating_sub(skipped as usize * V2_SKIP_COST);
        conn.received.settle(&mut out.spare);
        out.pool -= held - conn.received.pooled();
        conn.spoke |= frames > 0;
        conn.message_deadline(out.now.mono, wanted, frames + skipped as usize > 0);
        conn.uncut = matches!(end, End::NoTicket | End::Round | End::Keys);
        // Its frames in the inbox bring their tickets home in this turn or soon; for what jobs hold it has to wait.
        out.counters.tickets_waited.add(u64::from(matches!(end, End::NoTicket) && conn.tickets > conn.inbox));
        conn.bar(out.now.mono);
        if unknown > 0 {
            out.counters.frames_unknown.add(u64::from(unknown));
        }
        conn.received.unheard = conn.received.unheard.saturating_add(skipped.max(unknown));
        if lane == Lane::Peer && conn.received.unheard >= UNHEARD_MAX {
            conn.session = Due::at(out.now.mono);
        }
        out.counters.frames(lane).add(frames as u64);
        if let Transport::V2(v2) = &mut conn.transport {
            out.counters.v2_decoys.add(u64::from(v2.take_decoys()));
            out.counters.v2_opened.add(u64::from(!was_ready && v2.is_ready()));
        }
        if !was_ready {
            out.want_write(id.slot);
        }
        out.counters.tickets(lane).set(out.lanes.out(lane) as u64);
        out.rearm(id.slot);
        match end {
            End::NoTicket | End::Round => out.want_cut(id),
            End::Keys => out.want_keys(id),
            End::NoFrame => {
                out.want_read(id);
                out.finish_if_ended(id);
            }
            End::Bad(why) => out.close(id, why),
        }
        frames
    }
}

/// Why no more was cut.
enum End {
    /// What is left is no whole frame.
    NoFrame,
    /// There may be one, but no ticket.
    NoTicket,
    /// There may be one, for the next round.
    Round,
    /// An exchange of keys comes first.
    Keys,
    /// It cannot be one.
    Bad(CloseReason),
}

impl Outlet {
    /// Whether a connection with bytes is read now. Notes who starves for want of room in the pool.
    fn may_read(&mut self, id: ConnId) -> bool {
        let (now, pool_free) = (self.now.mono, RECEIVE_POOL_BYTES - self.pool);
        let Some(conn) = self.conns.get_mut(id) else { return false };
        let starved = conn.received.space(pool_free) == 0;
        if starved != conn.starved {
            self.counters.receive_waited.add(u64::from(starved));
            conn.starved = starved;
            conn.bar(now);
        }
        let may = self.reading && conn.can_read(pool_free);
        self.rearm(id.slot);
        may
    }

    /// The pool is used up and somebody wants of it: of those who hold a part and have had [`POOL_GRACE`], the one whose message has come
    /// most slowly goes. One a turn.
    fn relieve_pool(&mut self) {
        let now = self.now.mono;
        let holds = |conn: &Conn| matches!(conn.state, State::Open) && conn.received.pooled() > 0 && !conn.uncut;
        let slowness = |(id, conn): (ConnId, &Conn)| {
            let age = conn.message_age(now).filter(|age| *age >= POOL_GRACE && holds(conn))?;
            Some((age.as_micros() as u64 / conn.received.unfinished() as u64, id))
        };
        let Some((_, slowest)) = self.conns.iter().filter_map(slowness).max() else { return };
        self.counters.receive_cut.add(1);
        self.close(slowest, CloseReason::Timeout("a large message came slowly while others waited for its room"));
    }

    /// Puts a connection on the read stage's backlog, if there is something to read and it may be.
    pub(crate) fn want_read(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.is_readable() && !conn.in_reads) {
            conn.in_reads = true;
            self.reads.push(id.slot);
        }
    }

    /// Bytes were read: they are cut before more is.
    fn want_cut_of_read(&mut self, id: ConnId) {
        let now = self.now.mono;
        if let Some(conn) = self.conns.get_mut(id).filter(|conn| matches!(conn.state, State::Open)) {
            conn.uncut = true;
            conn.bar(now);
            self.want_cut(id);
        }
    }

    /// Puts a connection with uncut bytes on its lane's backlog, unless all its tickets are out: then the first to come home does.
    pub(crate) fn want_cut(&mut self, id: ConnId) {
        if let Some(conn) =
            self.conns.get_mut(id).filter(|conn| conn.uncut && !conn.paused && !conn.in_frames && !conn.in_keys && conn.may_cut())
        {
            conn.in_frames = true;
            self.frames[conn.lane as usize].push(id.slot);
        }
    }

    /// Whether a read could bring something now.
    pub(super) fn can_read(&self) -> bool {
        let pool_free = RECEIVE_POOL_BYTES - self.pool;
        self.reading && self.reads.iter().any(|slot| self.conns.at(slot).is_some_and(|(_, conn)| conn.in_reads && conn.can_read(pool_free)))
    }

    /// Whether a frame could be cut now.
    pub(super) fn can_cut(&self) -> bool {
        self.reading && Lane::ALL.into_iter().any(|lane| self.lanes.has(lane) && !self.frames[lane as usize].is_empty())
    }
}

impl Conn {
    /// Whether there may be something to read, and nothing but the pool speaks against it.
    fn is_readable(&self) -> bool {
        let open = matches!(self.state, State::Open | State::Flushing(_));
        open && self.readable && !self.ended && !self.paused && !self.uncut
    }

    fn can_read(&self, pool_free: usize) -> bool {
        self.is_readable() && self.received.space(pool_free) > 0
    }
}
