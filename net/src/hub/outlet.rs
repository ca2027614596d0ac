//! What judgement may do: send, close, dial, set timers, take tickets. It changes the hub's tables only; sockets are touched by the turn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::close::CloseReason;
use crate::counters::Counters;
use crate::events::{Event, Events};
use crate::frame::Framer;
use crate::hub::backlog::Backlog;
use crate::hub::conn::{Conn, Conns, State};
use crate::hub::outbox::{Entry, Outbox};
use crate::hub::received::Spare;
use crate::hub::tickets::{Lanes, Ticket};
use crate::hub::timers::{Due, Timers};
use crate::hub::{FramerKind, HubConfig};
use crate::id::{ConnId, Lane};
use crate::limits::{DIAL_MAX, FLUSH_MAX, OUTBOX_HTTP_SUM_BYTES, OUTBOX_SOFT_BYTES, OUTBOX_SUM_BYTES, outbox_bytes};
use crate::payload::Payload;
use crate::time::Now;
use crate::times::Times;
use crate::transport::v2::V2;
use crate::transport::{Transport, Wrapping};
use crate::wire::message::Command;

/// The hub as dispatch sees it. Names of connections that have ended are ignored everywhere: answers come late.
#[derive(Debug)]
pub struct Outlet {
    pub(crate) now: Now,
    pub(crate) magic: [u8; 4],
    bitcoin_magic: [u8; 4],
    pub(crate) conns: Conns,
    pub(crate) timers: Timers,
    pub(crate) lanes: Lanes,
    /// The ticket of the frame that is being dispatched.
    pub(crate) ticket: Option<Ticket>,
    /// Who has bytes to be read; bytes to be cut, by lane; bytes to be written.
    pub(crate) reads: Backlog,
    pub(crate) frames: [Backlog; Lane::ALL.len()],
    pub(crate) writes: Backlog,
    /// Who asked to be told of room.
    pub(crate) rooms: Backlog,
    /// Who waits for an exchange of keys.
    pub(crate) keys: Backlog,
    /// For a message on its way into a packet.
    pub(crate) scratch: Vec<u8>,
    /// Dials to begin, and dials that may have ended.
    pub(crate) dials: Vec<ConnId>,
    pub(crate) dialled: Vec<ConnId>,
    /// Connections that were dialled: to all but Bitcoin nodes, and to these.
    pub(crate) dials_now: [usize; 2],
    dials_max: [usize; 2],
    /// Marked to be freed, each once.
    pub(crate) closing: Vec<(ConnId, CloseReason)>,
    /// The node's own timer.
    pub(crate) wake: Due,
    pub(crate) reading: bool,
    /// Bytes in all outboxes, by lane.
    pub(crate) outbox_sums: [usize; Lane::ALL.len()],
    pub(crate) pool: usize,
    pub(crate) spare: Spare,
    pub(crate) counters: Arc<Counters>,
    pub(crate) times: Arc<Times>,
    pub(crate) events: Events,
}

impl Outlet {
    pub(crate) fn new(config: &HubConfig) -> Outlet {
        Outlet {
            now: Now { mono: Duration::ZERO, wall: Duration::ZERO },
            magic: config.magic,
            bitcoin_magic: config.bitcoin_magic,
            conns: Conns::new(config.conns_max()),
            timers: Timers::default(),
            lanes: Lanes::default(),
            ticket: None,
            reads: Backlog::default(),
            frames: Default::default(),
            writes: Backlog::default(),
            rooms: Backlog::default(),
            keys: Backlog::default(),
            scratch: Vec::new(),
            dials: Vec::new(),
            dialled: Vec::new(),
            dials_now: [0; 2],
            dials_max: [config.dials_max, config.bitcoin_dials_max],
            closing: Vec::new(),
            wake: Due::NEVER,
            reading: true,
            outbox_sums: Default::default(),
            pool: 0,
            spare: Spare::default(),
            counters: Arc::new(Counters::default()),
            times: Arc::default(),
            events: Events::default(),
        }
    }

    /// Sends a payload that others may get too. Over the hard cap the connection is closed as a slow reader.
    pub fn send(&mut self, conn: ConnId, payload: Arc<Payload>) {
        self.enqueue(conn, |outbox| outbox.push(Entry::Shared(payload)));
    }

    /// Sends bytes of this connection's own.
    pub fn send_bytes(&mut self, conn: ConnId, bytes: Vec<u8>) {
        self.enqueue(conn, |outbox| outbox.push(Entry::Own(bytes)));
    }

    /// Sends a copy of these bytes: for a few, which join what waits.
    pub fn send_copy(&mut self, conn: ConnId, bytes: &[u8]) {
        self.enqueue(conn, |outbox| outbox.push_copy(bytes));
    }

    /// Whether what the connection asked for may be served now: its outbox is under the soft cap. If not, [`Input::Room`] will tell.
    ///
    /// [`Input::Room`]: crate::hub::io::Input::Room
    pub fn room(&self, conn: ConnId) -> bool {
        self.conns.get(conn).is_some_and(|conn| conn.is_live() && conn.outbox.len() < OUTBOX_SOFT_BYTES)
    }

    /// Asks for [`Input::Room`] when the connection's turn comes to be served: for what is dear to answer, behind all that is cheap.
    ///
    /// [`Input::Room`]: crate::hub::io::Input::Room
    pub fn ask_room(&mut self, conn: ConnId) {
        if let Some(c) = self.conns.get_mut(conn).filter(|c| matches!(c.state, State::Open) && !c.in_rooms) {
            c.in_rooms = true;
            self.rooms.push(conn.slot);
        }
    }

    /// Whether somebody can be told of room now.
    pub(crate) fn can_serve(&self) -> bool {
        let able = |slot| self.conns.at(slot).is_some_and(|(_, conn)| conn.in_rooms && self.lanes.has(conn.lane));
        self.reading && self.rooms.iter().any(able)
    }

    /// Bytes that wait to be written to a connection: what it was sent and the system has not taken for it.
    pub fn unread(&self, conn: ConnId) -> usize {
        self.conns.get(conn).map_or(0, |conn| conn.outbox.len())
    }

    /// Whether a connection is there and not about to be closed.
    pub fn is_live(&self, conn: ConnId) -> bool {
        self.conns.get(conn).is_some_and(Conn::is_live)
    }

    /// Bytes that were read from a connection and written to it.
    pub fn traffic(&self, conn: ConnId) -> (u64, u64) {
        self.conns.get(conn).map_or((0, 0), |conn| conn.received.traffic)
    }

    /// Whether all its tickets are out: nothing more of it is read until one comes home, and waiting for its word is our own doing.
    pub fn is_held(&self, conn: ConnId) -> bool {
        self.conns.get(conn).is_some_and(|conn| !conn.may_cut())
    }

    /// Closes: what waits in the outbox is lost. `Closed` follows with this reason, unless it was closed before.
    pub fn close(&mut self, conn: ConnId, why: CloseReason) {
        let why = self.not_v2(conn, why);
        let Some(c) = self.conns.get_mut(conn).filter(|c| !matches!(c.state, State::Closing)) else { return };
        self.counters.v2_failed.add(u64::from(c.transport.is_opening() && !matches!(c.state, State::Dialling)));
        c.state = State::Closing;
        self.pool -= c.received.pooled();
        self.outbox_sums[c.lane as usize] -= c.outbox.len();
        c.received.clear();
        c.uncut = false;
        c.outbox = Outbox::default();
        self.timers.remove(conn.slot, &mut c.entry);
        self.closing.push((conn, why));
    }

    /// Closes once the outbox is empty and the other side has ended too, or [`FLUSH_MAX`] has passed. Nothing more is heard or sent. What
    /// was written before and is on its way still arrives, which closing at once over unread bytes would prevent.
    pub fn close_after_flush(&mut self, conn: ConnId, why: CloseReason) {
        let now = self.now.mono;
        let Some(c) = self.conns.get_mut(conn).filter(|c| c.is_live()) else { return };
        // What waits for a handshake that is not heard any more would wait in vain.
        if (c.outbox.is_empty() && c.ended) || matches!(c.state, State::Dialling) || !c.transport.is_ready() {
            return self.close(conn, why);
        }
        self.pool -= c.received.pooled();
        c.received.clear();
        (c.paused, c.uncut, c.starved) = (false, false, false);
        c.bar(now);
        (c.session, c.limit) = (Due::NEVER, Due::at(now + FLUSH_MAX));
        c.state = State::Flushing(Box::new(why));
        // The farewell is the write stage's, even if nothing is left to be written.
        if !c.full && !std::mem::replace(&mut c.in_writes, true) {
            self.writes.push(conn.slot);
        }
        self.rearm(conn.slot);
        self.want_read(conn);
    }

    /// Dials; a peer may be dialled for v2, and says [`CloseReason::NotV2`] at its end if that did not come about. `Opened` or `Closed`
    /// follows, never neither; a refusal here is followed by nothing.
    pub fn dial(&mut self, lane: Lane, addr: SocketAddr, wrapping: Wrapping) -> Result<ConnId, CloseReason> {
        let account = usize::from(lane == Lane::Bitcoin);
        if self.dials_now[account] >= self.dials_max[account] {
            return Err(CloseReason::Full("as many dialled connections as configured"));
        }
        let kind = match lane {
            Lane::Peer => FramerKind::V1,
            Lane::Stratum => FramerKind::LineOrHttp,
            Lane::Http => FramerKind::Http,
            Lane::Bitcoin => FramerKind::Bitcoin,
        };
        let id = self.admit(lane, kind, addr, None, DIAL_MAX).ok_or(CloseReason::Full("all slots are taken"))?;
        if let Some(conn) =
            self.conns.get_mut(id).filter(|_| matches!(kind, FramerKind::V1 | FramerKind::Bitcoin) && wrapping == Wrapping::V2)
        {
            conn.transport = Transport::V2(Box::new(V2::dialled()));
        }
        self.dials_now[account] += 1;
        self.dials.push(id);
        self.counters.dialled.add(1);
        Ok(id)
    }

    /// Sets or drops the session's timer of a connection: [`Input::Timer`](crate::hub::io::Input::Timer) comes at this monotonic time,
    /// later by any pause in which the connection was not read by our own choice. One timer each; the last call counts.
    pub fn set_timer(&mut self, conn: ConnId, at: Option<Duration>) {
        let Some(c) = self.conns.get_mut(conn).filter(|c| c.is_live()) else { return };
        c.session = at.map_or(Due::NEVER, Due::at);
        // Set within a pause, it is counted from now: only what is left of the pause puts it off.
        if let Some(since) = c.barred.mono() {
            let passed = self.now.mono.saturating_sub(since);
            c.session = c.session.mono().map_or(Due::NEVER, |at| Due::at(at.saturating_sub(passed)));
        }
        self.rearm(conn.slot);
    }

    /// Sets or drops the node's own timer: [`Input::Wake`](crate::hub::io::Input::Wake) comes at this monotonic time, once.
    pub fn set_wake(&mut self, at: Option<Duration>) {
        self.wake = at.map_or(Due::NEVER, Due::at);
    }

    /// Takes the ticket of the frame that is being dispatched, for the job made of it. Once; `None` for inputs that are no frame.
    pub fn take_ticket(&mut self) -> Option<Ticket> {
        self.ticket.take()
    }

    /// A ticket comes home without mail: the job was not given after all.
    pub fn home(&mut self, ticket: Ticket) {
        self.lanes.home(&ticket);
        self.counters.tickets(ticket.lane).set(self.lanes.out(ticket.lane) as u64);
        if let Some(conn) = self.conns.get_mut(ticket.conn) {
            conn.tickets = conn.tickets.saturating_sub(1);
            self.want_cut(ticket.conn);
            self.finish_if_ended(ticket.conn);
        }
    }

    /// The peer's handshake is done: its framer lets other commands through.
    pub fn set_handshaken(&mut self, conn: ConnId) {
        if let Some(conn) = self.conns.get_mut(conn) {
            conn.received.framer.set_ready();
        }
    }

    /// We ask the peer for a large message: one of this command is let through.
    pub fn expect(&mut self, conn: ConnId, command: Command) {
        if let Some(conn) = self.conns.get_mut(conn) {
            conn.received.framer.expect(command);
        }
    }

    /// The message that is arriving on this connection, its header there and its end not: under way, within a deadline of its own.
    pub fn arriving(&self, conn: ConnId) -> Option<Command> {
        let conn = self.conns.get(conn)?;
        conn.received.framer.arriving(conn.packet()?)
    }

    /// Whether it may be a message of this command.
    pub fn is_arriving(&self, conn: ConnId, command: Command) -> bool {
        let packet = self.conns.get(conn).and_then(|conn| Some((conn, conn.packet()?)));
        packet.is_some_and(|(conn, packet)| conn.received.framer.is_arriving(packet, command))
    }

    /// Whether something has come on this connection that is no whole frame yet.
    pub fn is_unfinished(&self, conn: ConnId) -> bool {
        self.conns.get(conn).is_some_and(|conn| conn.received.unfinished() > 0)
    }

    /// Messages of unknown commands and packets without one that came on this connection, since this was last asked. From
    /// [`UNHEARD_MAX`](crate::limits::UNHEARD_MAX) on a peer's session has its timer at once.
    pub fn take_unheard(&mut self, conn: ConnId) -> u32 {
        self.conns.get_mut(conn).map_or(0, |conn| std::mem::take(&mut conn.received.unheard))
    }

    /// How a connection is wrapped, once that is settled.
    pub fn wrapping(&self, conn: ConnId) -> Option<Wrapping> {
        self.conns.get(conn)?.transport.wrapping()
    }

    /// Stops or resumes reading one connection. Its clocks stand still meanwhile.
    pub fn pause(&mut self, conn: ConnId, paused: bool) {
        let now = self.now.mono;
        let Some(c) = self.conns.get_mut(conn).filter(|c| c.is_live()) else { return };
        c.paused = paused;
        c.bar(now);
        self.rearm(conn.slot);
        self.want_cut(conn);
        self.want_read(conn);
    }

    /// Reads, cuts and accepts nothing any more: the node stops. What is in the inbox is dispatched, mail is taken, outboxes are written.
    pub fn stop_reading(&mut self) {
        self.reading = false;
    }

    /// Tickets that are out, of all lanes.
    pub fn tickets_out(&self) -> usize {
        self.lanes.all_out()
    }

    /// Bytes that wait in all outboxes.
    pub fn unsent(&self) -> usize {
        self.outbox_sums.iter().sum()
    }

    /// The address at the other side.
    pub fn addr(&self, conn: ConnId) -> Option<SocketAddr> {
        self.conns.get(conn).map(|conn| conn.addr)
    }

    /// The time of this turn. Goes by suspends unmoved, unlike the clock that it is taken from.
    pub fn now(&self) -> Now {
        self.now
    }

    /// The counters.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// What turns took so far.
    pub fn times(&self) -> &Arc<Times> {
        &self.times
    }

    /// The registry of notifications, to subscribe to.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Publishes a notification.
    pub fn publish(&self, event: Event) {
        self.counters.published.add(1);
        self.events.publish(event);
    }

    /// Takes a connection in: a dial, or an accepted one. `first` is its time to the first frame, or for the dial.
    pub(crate) fn admit(
        &mut self,
        lane: Lane,
        kind: FramerKind,
        addr: SocketAddr,
        listener: Option<u16>,
        first: Duration,
    ) -> Option<ConnId> {
        let id = self.conns.next_id()?;
        let framer = match kind {
            FramerKind::V1 => Framer::v1(self.magic),
            FramerKind::Bitcoin => Framer::bitcoin(self.bitcoin_magic),
            FramerKind::LineOrHttp => Framer::Sniff,
            FramerKind::Http => Framer::http(),
        };
        let state = if listener.is_some() { State::Open } else { State::Dialling };
        let mut conn = Conn::new(framer, state, addr, lane, id.generation);
        if kind == FramerKind::V1 && listener.is_some() {
            conn.transport = Transport::Undecided;
        }
        (conn.listener, conn.limit) = (listener, Due::at(self.now.mono + first));
        self.conns.insert(conn);
        self.counters.conns.set(self.conns.len() as u64);
        self.rearm(id.slot);
        Some(id)
    }

    /// Moves a connection's one entry among the timers to its earliest deadline.
    pub(crate) fn rearm(&mut self, slot: u32) {
        if let Some((_, conn)) = self.conns.at_mut(slot) {
            let due = conn.earliest();
            // An entry that comes early finds nothing due and is set anew: cheaper than moving it whenever a deadline is put off.
            if due < conn.entry || conn.entry.is_past(self.now.mono) {
                self.timers.replace(slot, &mut conn.entry, due);
            }
        }
    }

    /// A connection whose other side has said all: it ends once all it said is answered.
    pub(crate) fn finish_if_ended(&mut self, id: ConnId) {
        if self.conns.get(id).is_some_and(|c| c.ended && !c.uncut && c.tickets == 0) {
            self.close_after_flush(id, CloseReason::Remote);
        }
    }

    fn enqueue(&mut self, id: ConnId, push: impl FnOnce(&mut Outbox)) {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.is_live()) else { return };
        let before = conn.outbox.len();
        push(&mut conn.outbox);
        let after = conn.outbox.len();
        let lane = conn.lane;
        self.outbox_sums[lane as usize] += after - before;
        if after > outbox_bytes(lane) {
            return self.close(id, CloseReason::SlowReader(after));
        }
        self.want_write(id.slot);
        while lane == Lane::Http && self.outbox_sums[lane as usize] > OUTBOX_HTTP_SUM_BYTES {
            self.cut_largest(|of| of == Lane::Http);
        }
        while self.unsent_but_blocks() > OUTBOX_SUM_BYTES {
            self.cut_largest(|of| of != Lane::Bitcoin);
        }
    }

    /// Puts a connection with output on the write stage's backlog, unless the socket is known to be full or still dialling.
    pub(crate) fn want_write(&mut self, slot: u32) {
        let Some((_, conn)) = self.conns.at_mut(slot) else { return };
        let able = matches!(conn.state, State::Open | State::Flushing(_)) && !conn.full;
        if able && conn.can_write() && !conn.in_writes {
            conn.in_writes = true;
            self.writes.push(slot);
        }
    }

    /// Whether a write could bring something now.
    pub(crate) fn can_write(&self) -> bool {
        self.writes.iter().any(|slot| self.conns.at(slot).is_some_and(|(_, conn)| conn.in_writes))
    }

    /// Bytes that wait in all outboxes that share one limit: not in those of Bitcoin nodes.
    pub(crate) fn unsent_but_blocks(&self) -> usize {
        self.unsent() - self.outbox_sums[Lane::Bitcoin as usize]
    }

    /// The sum of the outboxes of these lanes is over its limit: who holds most of it goes.
    fn cut_largest(&mut self, of: impl Fn(Lane) -> bool) {
        let sharing = self.conns.iter().filter(|(_, conn)| of(conn.lane));
        let largest = sharing.map(|(id, conn)| (conn.outbox.len(), id)).max();
        let Some((bytes, id)) = largest else { return };
        self.counters.outbox_cut.add(1);
        self.close(id, CloseReason::SlowReader(bytes));
    }
}
