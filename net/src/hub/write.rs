//! Dialling, writing, and freeing what was closed.

use std::io::{ErrorKind, IoSlice};

use rand_chacha::ChaCha12Rng;

use crate::close::CloseReason;
use crate::hub::conn::State;
use crate::hub::io::{Input, Io, Stage};
use crate::hub::timers::Due;
use crate::hub::{Hub, Outlet};
use crate::id::{ConnId, Lane};
use crate::limits::{
    DIAL_MAX, OUTBOX_SOFT_BYTES, OUTBOX_STALL_MAX, OWN_RUN_BYTES, V2_CALL_BYTES, WRITE_CONN_BYTES, WRITE_SLICES, WRITE_TURN_CALLS,
};

/// How one connection's writing ended in this turn.
enum Wrote {
    /// Nothing is left.
    All,
    /// What is left waits for the transport's handshake.
    Opening,
    /// The connection's budget is spent.
    Budget,
    /// The socket takes no more.
    Full,
    /// It failed.
    Failed(CloseReason),
}

impl<A> Hub<A> {
    /// Begins the dials asked for, and ends those that have come to an end.
    pub(super) fn dial(&mut self, io: &mut impl Io<Answer = A>) {
        let out = &mut self.out;
        if out.dials.is_empty() && out.dialled.is_empty() && out.writes.is_empty() {
            return;
        }
        io.stage(Stage::Write);
        let is_dialling = |out: &Outlet, id| out.conns.get(id).is_some_and(|conn| matches!(conn.state, State::Dialling));
        for id in std::mem::take(&mut out.dials) {
            let Some(addr) = out.addr(id).filter(|_| is_dialling(out, id)) else { continue };
            if let Err(error) = io.dial(id, addr) {
                out.close(id, CloseReason::Dial(error.to_string()));
            }
        }
        for id in std::mem::take(&mut out.dialled) {
            if !is_dialling(out, id) {
                continue;
            }
            match io.dialled(id) {
                Ok(()) => {
                    let limit = Due::at(out.now.mono + DIAL_MAX);
                    let Some(conn) = out.conns.get_mut(id) else { continue };
                    (conn.state, conn.limit) = (State::Open, limit);
                    self.calls.push_back((Input::Opened { conn: id, lane: conn.lane, addr: conn.addr, listener: None }, Vec::new()));
                    if conn.transport.is_opening() {
                        out.want_keys(id);
                    }
                    out.want_read(id);
                    out.want_write(id.slot);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => out.close(id, CloseReason::Dial(error.to_string())),
            }
        }
    }

    /// Writes what waits. The socket is tried first; only when it takes no more does an event have to tell when it does.
    pub(super) fn write(&mut self, rng: &mut ChaCha12Rng, io: &mut impl Io<Answer = A>) {
        let mut calls = WRITE_TURN_CALLS;
        self.out.writes.begin(rng);
        while calls > 0
            && let Some(slot) = self.out.writes.next()
        {
            let Some((id, conn)) = self.out.conns.at_mut(slot).filter(|(_, conn)| conn.in_writes) else { continue };
            let judged_next_turn = conn.inbox > 0 || (conn.in_frames && self.out.reading && self.out.lanes.has(conn.lane));
            if judged_next_turn && conn.outbox.len() < OWN_RUN_BYTES {
                // More that it said waits for judgement: the answers leave together.
                self.out.writes.push(slot);
                continue;
            }
            conn.in_writes = false;
            if matches!(conn.state, State::Open | State::Flushing(_)) {
                self.write_conn(id, &mut calls, io);
            }
        }
        if self.out.writes.is_left() {
            self.out.counters.budgets_spent.add(1);
        }
    }

    fn write_conn(&mut self, id: ConnId, calls: &mut usize, io: &mut impl Io<Answer = A>) {
        let now = self.out.now.mono;
        let Some(conn) = self.out.conns.get_mut(id) else { return };
        let before = conn.outbox.len();
        let (wrote, sent) = self.write_some(id, calls, io);
        let Some(conn) = self.out.conns.get_mut(id) else { return };
        let after = conn.outbox.len();
        let sum = &mut self.out.outbox_sums[conn.lane as usize];
        *sum = *sum + after - before;
        self.out.counters.bytes_out.add(sent as u64);
        conn.received.traffic.1 += sent as u64;
        self.report.bytes_out += sent;
        // Sent something but not all: it is busy reading us. Sent nothing: if we did not read it, two full sides would wait for ever.
        conn.lagging = sent > 0 && after > 0;
        if after == 0 {
            conn.stalled = Due::NEVER;
        } else if conn.stalled == Due::NEVER || (sent > 0 && after < OUTBOX_SOFT_BYTES) {
            // Over the soft cap a byte now and then puts nothing off: requests wait for room there, with their tickets.
            conn.stalled = Due::at(now + OUTBOX_STALL_MAX);
        }
        if before >= OUTBOX_SOFT_BYTES && after < OUTBOX_SOFT_BYTES && matches!(conn.state, State::Open) {
            self.out.ask_room(id);
        }
        match wrote {
            Wrote::All => {
                self.want_writable(id, false, io);
                self.finish(id, io);
            }
            Wrote::Opening => self.want_writable(id, false, io),
            Wrote::Full => self.want_writable(id, true, io),
            Wrote::Budget => self.out.want_write(id.slot),
            Wrote::Failed(why) => return self.out.close(id, why),
        }
        self.out.rearm(id.slot);
    }

    /// Writes until all is out, the budget is spent or the socket is full. Returns which, and the bytes sent.
    fn write_some(&mut self, id: ConnId, calls: &mut usize, io: &mut impl Io<Answer = A>) -> (Wrote, usize) {
        let mut sent = 0;
        let Some(conn) = self.out.conns.get_mut(id) else { return (Wrote::All, 0) };
        while !conn.outbox.is_empty() {
            if *calls == 0 || sent >= WRITE_CONN_BYTES {
                return (Wrote::Budget, sent);
            }
            let encrypted = conn.outbox.seal(&mut conn.transport, &mut self.out.scratch);
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
            let (count, total) = conn.outbox.gather(WRITE_CONN_BYTES - sent, &mut slices);
            if count == 0 {
                return (Wrote::Opening, sent);
            }
            *calls = calls.saturating_sub(1 + encrypted / V2_CALL_BYTES);
            self.out.counters.writes.add(1);
            match io.write(id, &slices[..count]) {
                Ok(n) => {
                    conn.outbox.written(n);
                    sent += n;
                    if n < total {
                        return (Wrote::Full, sent);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return (Wrote::Full, sent),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) if conn.ended => return (Wrote::Failed(CloseReason::Remote), sent),
                Err(error) => return (Wrote::Failed(CloseReason::Socket(error.to_string())), sent),
            }
        }
        (Wrote::All, sent)
    }

    /// Everything is written: if it was a farewell, the other side is told, and has until the deadline to end too.
    fn finish(&mut self, id: ConnId, io: &mut impl Io<Answer = A>) {
        let Some(conn) = self.out.conns.get(id).filter(|conn| matches!(conn.state, State::Flushing(_))) else { return };
        if conn.ended || io.finish(id).is_err() {
            self.out.close_by_state(id);
        }
    }

    /// Asks for an event when the socket has room again, or no longer.
    fn want_writable(&mut self, id: ConnId, want: bool, io: &mut impl Io<Answer = A>) {
        let Some(conn) = self.out.conns.get_mut(id) else { return };
        if conn.full == want && conn.asked == want {
            return;
        }
        (conn.full, conn.asked) = (want, want);
        if let Err(error) = io.want_writable(id, want) {
            self.out.close(id, CloseReason::Socket(error.to_string()));
        }
    }

    /// Frees what was marked. Judgement is told next turn, and the slot's next tenant has another generation.
    pub(super) fn reap(&mut self, io: &mut impl Io<Answer = A>) {
        let out = &mut self.out;
        for (id, why) in std::mem::take(&mut out.closing) {
            io.stage(Stage::Reap);
            let Some(conn) = out.conns.remove(id) else { continue };
            io.close(id);
            match conn.listener {
                Some(row) => self.listeners.leave(row, conn.addr),
                None => out.dials_now[usize::from(conn.lane == Lane::Bitcoin)] -= 1,
            }
            out.counters.closed(&why).add(1);
            out.counters.conns.set(out.conns.len() as u64);
            self.calls.push_back((Input::Closed { conn: id, why }, Vec::new()));
        }
        out.counters.outbox_sum.set(out.unsent() as u64);
        out.counters.receive_pool.set(out.pool as u64);
    }
}
