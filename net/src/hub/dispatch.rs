//! Mail, timers, and judgement: what has come is dispatched one at a time.

use rand_chacha::ChaCha12Rng;

use crate::close::CloseReason;
use crate::hub::conn::State;
use crate::hub::io::{Dispatch, Input, Io, Stage};
use crate::hub::timers::Due;
use crate::hub::{Hub, Outlet};
use crate::id::{ConnId, Lane};
use crate::limits::{DISPATCH_TURN_COST, MAIL_TURN_MAX, ROOM_COST};

impl<A> Hub<A> {
    /// Takes the mail, all of it: its senders are bounded by tickets.
    pub(super) fn mailbox(&mut self, io: &mut impl Io<Answer = A>) {
        let mut taken = 0;
        while taken < MAIL_TURN_MAX
            && let Some(mail) = io.mail()
        {
            // No mail, no stage: looking is nothing.
            io.stage(Stage::Mailbox);
            taken += 1;
            self.calls.push_back((Input::Answer(mail.answer), mail.tickets));
        }
        self.mail_left = taken == MAIL_TURN_MAX;
    }

    /// Finds all that is due: deadlines of the hub's own close, sessions are told in dispatch.
    pub(super) fn timers(&mut self) {
        let now = self.out.now.mono;
        while let Some(slot) = self.out.timers.pop_past(now) {
            let Some((id, conn)) = self.out.conns.at_mut(slot) else { continue };
            conn.entry = Due::NEVER;
            let running = conn.barred == Due::NEVER;
            if conn.stalled.is_past(now) {
                self.out.close(id, CloseReason::Timeout("nothing left the outbox in 30 s"));
            } else if running && conn.limit.is_past(now) && conn.lane == Lane::Http && matches!(conn.state, State::Open) {
                // HTTP has a word for a request that does not come to its end: the session's.
                (conn.limit, conn.session) = (Due::NEVER, Due::at(now));
                self.due.push(id);
            } else if running && conn.limit.is_past(now) {
                self.out.close_by_state(id);
            } else if running && conn.session.is_past(now) {
                self.due.push(id);
            } else {
                self.out.rearm(slot);
            }
        }
    }

    /// Hands judgement all that has come: what was opened, closed and answered; frames up to the turn's cost; timers.
    pub(super) fn dispatch(&mut self, rng: &mut ChaCha12Rng, io: &mut impl Io<Answer = A>, node: &mut impl Dispatch<Answer = A>) {
        io.stage(Stage::Dispatch);
        let now = self.out.now;
        let mut spent = 0;
        for (input, tickets) in std::mem::take(&mut self.calls) {
            self.report.inputs += 1;
            node.on(now, input, &mut self.out);
            tickets.into_iter().for_each(|ticket| self.out.home(ticket));
        }
        loop {
            self.dispatch_frames(&mut spent, node);
            // Tickets came home: another round, until nothing is left that could be cut or a budget is spent.
            let more = self.inbox.is_empty() && spent < DISPATCH_TURN_COST && self.out.can_cut();
            if !more || self.frame(rng, io) == 0 {
                break;
            }
            io.stage(Stage::Dispatch);
        }
        self.serve(rng, spent, node);
        for id in std::mem::take(&mut self.due) {
            if self.out.take_due(id) {
                self.report.inputs += 1;
                node.on(now, Input::Timer { conn: id }, &mut self.out);
            }
            self.out.rearm(id.slot);
        }
        if self.out.wake.is_past(now.mono) {
            self.out.wake = Due::NEVER;
            self.report.inputs += 1;
            node.on(now, Input::Wake, &mut self.out);
        }
        node.turn_ends(now, &mut self.out);
    }

    /// Tells those who asked for it that they have room, one after the other, each with a ticket for what it takes: at least one a turn,
    /// more while the turn's cost allows. What is dear to answer thus never stands before what is cheap.
    fn serve(&mut self, rng: &mut ChaCha12Rng, mut spent: u32, node: &mut impl Dispatch<Answer = A>) {
        self.out.rooms.begin(rng);
        let mut served = false;
        while (!served || spent < DISPATCH_TURN_COST)
            && self.out.reading
            && let Some(slot) = self.out.rooms.next()
        {
            let Some((id, conn)) = self.out.conns.at_mut(slot).filter(|(_, conn)| conn.in_rooms) else { continue };
            if conn.is_live() && !self.out.lanes.has(conn.lane) {
                self.out.rooms.push(slot);
                continue;
            }
            conn.in_rooms = false;
            if !conn.is_live() {
                continue;
            }
            conn.tickets += 1;
            self.out.ticket = Some(self.out.lanes.give(conn.lane, id, 0));
            (served, spent) = (true, spent + ROOM_COST);
            self.report.inputs += 1;
            node.on(self.out.now, Input::Room { conn: id }, &mut self.out);
            if let Some(ticket) = self.out.ticket.take() {
                self.out.home(ticket);
            }
        }
    }

    fn dispatch_frames(&mut self, spent: &mut u32, node: &mut impl Dispatch<Answer = A>) {
        while *spent < DISPATCH_TURN_COST {
            let Some((id, frame, ticket)) = self.inbox.pop_front() else { return };
            *spent += frame.cost().max(1);
            let conn = self.out.conns.get_mut(id);
            let live = conn.is_some_and(|conn| {
                conn.inbox -= 1;
                conn.is_live()
            });
            if live {
                self.report.inputs += 1;
                self.out.ticket = Some(ticket);
                node.on(self.out.now, Input::Frame { conn: id, frame }, &mut self.out);
                if let Some(ticket) = self.out.ticket.take() {
                    self.out.home(ticket);
                }
            } else {
                self.out.counters.frames_dropped.add(1);
                self.out.home(ticket);
            }
        }
        if !self.inbox.is_empty() {
            self.out.counters.budgets_spent.add(1);
        }
    }
}

impl Outlet {
    /// Closes for what the state says: the hub's own deadline has come, or a farewell is over.
    pub(crate) fn close_by_state(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let why = match &conn.state {
            State::Dialling => CloseReason::Dial("no answer in time".into()),
            State::Open if !conn.spoke => CloseReason::Timeout("no complete first frame"),
            State::Open => CloseReason::Timeout("a message was not finished"),
            State::Flushing(why) => CloseReason::clone(why),
            State::Closing => return,
        };
        self.close(id, why);
    }

    /// Whether the session's timer is to be told now. What the connection said before comes first, and may have put it off.
    fn take_due(&mut self, id: ConnId) -> bool {
        let now = self.now.mono;
        let Some(conn) = self.conns.get_mut(id) else { return false };
        let due = conn.is_live() && conn.inbox == 0 && conn.session.is_past(now);
        if due {
            conn.session = Due::NEVER;
        }
        due
    }
}
