//! The hub: connections, the flat inbox, outboxes, timers, tickets, and the turn that goes round all of them.
//!
//! It owns everything but the sockets, which are behind [`Io`]: `mio` in the node, byte pipes in the simulator. It reads no clock, and
//! draws from the generator that it is given, so that the same seed makes the same turns.

pub mod io;
pub mod outbox;
pub mod tickets;

#[cfg(feature = "sim")]
mod audit;
mod backlog;
mod conn;
mod dispatch;
mod keys;
mod listeners;
mod outlet;
mod read;
mod received;
mod timers;
mod write;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use secp256k1::{Secp256k1, SignOnly};

pub use self::listeners::{counted, netgroup};
pub use self::outlet::Outlet;

use self::io::{Dispatch, Event, Input, Io, Ready, Stage};
use self::listeners::Listeners;
use self::tickets::Ticket;
use crate::counters::Counters;
use crate::events::Events;
use crate::frame::Frame;
use crate::id::{ConnId, Lane};
use crate::limits::{GAP_MAX, IDLE_MAX, READ_CONN_BYTES, READ_TURN_BYTES};
use crate::time::Now;
use crate::times::Times;

/// What a hub is made of.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// The network's magic, for peers' messages.
    pub magic: [u8; 4],
    /// The listeners; a connection that one accepts is told from the others' by its row.
    pub listeners: Vec<ListenerRow>,
    /// Connections that we dialled, at once; those to Bitcoin nodes apart.
    pub dials_max: usize,
    /// The magic of Bitcoin's own network, for its nodes' messages.
    pub bitcoin_magic: [u8; 4],
    /// Connections to Bitcoin nodes, at once.
    pub bitcoin_dials_max: usize,
}

impl HubConfig {
    /// Slots: those of all rows, those of dials, and one through which a connection too many is refused.
    pub fn conns_max(&self) -> usize {
        self.listeners.iter().map(|row| row.conns_max).sum::<usize>() + self.dials_max + self.bitcoin_dials_max + 1
    }
}

/// A listener: what is spoken there, and how many may.
#[derive(Clone, Debug)]
pub struct ListenerRow {
    /// Whose tickets its frames take.
    pub lane: Lane,
    /// How its bytes are cut.
    pub framer: FramerKind,
    /// Connections at once.
    pub conns_max: usize,
    /// Connections at once of one IPv4 address or one IPv6 /64. Loopback is spared.
    pub per_addr_max: usize,
    /// Connections at once of one IPv4 /16 or one IPv6 /32. Loopback is spared.
    pub per_group_max: usize,
    /// Spare private networks too: a farm behind one address.
    pub spare_private: bool,
    /// Time from accepting to the first complete frame.
    pub first_frame: Duration,
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramerKind {
    /// Bitcoin's P2P v1 messages, with this node's own commands.
    V1,
    /// The same with Bitcoin's.
    Bitcoin,
    /// Lines, or HTTP if the first bytes say so.
    LineOrHttp,
    /// HTTP requests.
    Http,
}

/// What one turn came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnReport {
    /// The time of the clock (not moved by suspends) up to which the next turn's poll waits if nothing happens. The past: it is to run now.
    pub due: Duration,
    /// Bytes read.
    pub bytes_in: usize,
    /// Bytes written.
    pub bytes_out: usize,
    /// Frames cut.
    pub frames: usize,
    /// Inputs dispatched.
    pub inputs: usize,
}

/// The network core. `A` is what stages answer with.
#[derive(Debug)]
pub struct Hub<A> {
    out: Outlet,
    listeners: Listeners,
    /// Frames of all connections in the order of their cutting, each with its ticket.
    inbox: VecDeque<(ConnId, Frame, Ticket)>,
    /// What comes before frames: connections opened and closed, outboxes with room, answers with the tickets that come home.
    calls: VecDeque<(Input<A>, Vec<Ticket>)>,
    /// Connections whose session's timer has come.
    due: Vec<ConnId>,
    /// There was more mail than one turn takes.
    mail_left: bool,
    /// The one read buffer.
    buffer: Box<[u8]>,
    /// Bytes that may still be cut in this turn, by lane.
    cut_left: [usize; Lane::ALL.len()],
    events: Vec<Event>,
    clock: TurnClock,
    /// For the keys of v2.
    curve: Secp256k1<SignOnly>,
    report: TurnReport,
}

/// Tells a suspended machine from passing time.
#[derive(Debug, Default)]
struct TurnClock {
    /// What the clock has gone on in gaps: the hub's time is the clock's less this.
    gaps: Duration,
    /// When the last poll returned, and when the next was to return at the latest.
    last: Duration,
    due: Duration,
}

impl<A> Hub<A> {
    /// A hub without connections. All slots are allocated now.
    pub fn new(config: HubConfig) -> Hub<A> {
        Hub {
            out: Outlet::new(&config),
            listeners: Listeners::new(config.listeners),
            inbox: VecDeque::new(),
            calls: VecDeque::new(),
            due: Vec::new(),
            mail_left: false,
            buffer: vec![0; READ_CONN_BYTES].into_boxed_slice(),
            cut_left: [0; Lane::ALL.len()],
            events: Vec::new(),
            clock: TurnClock::default(),
            curve: Secp256k1::signing_only(),
            report: TurnReport::default(),
        }
    }

    /// One turn. `now` is the clock's time, for how long to wait; everything after the wait goes by the time that the poll returns.
    pub fn turn<I: Io<Answer = A>>(
        &mut self,
        now: Now,
        rng: &mut ChaCha12Rng,
        io: &mut I,
        node: &mut impl Dispatch<Answer = A>,
    ) -> std::io::Result<TurnReport> {
        self.report = TurnReport::default();
        self.cut_left = [READ_TURN_BYTES; Lane::ALL.len()];
        self.poll(now, io)?;
        self.accept(io);
        self.read(rng, io);
        self.frame(rng, io);
        self.mailbox(io);
        self.timers();
        self.dispatch(rng, io, node);
        self.dial(io);
        self.exchange(rng, io);
        self.write(rng, io);
        self.reap(io);
        self.clock.due = self.clock.last + self.wait();
        self.report.due = self.clock.due;
        Ok(self.report)
    }

    /// What dispatch has; for the assembly before the first turn and between turns.
    pub fn outlet(&mut self) -> &mut Outlet {
        &mut self.out
    }

    /// The counters, to be read from anywhere.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.out.counters)
    }

    /// What turns take, to be read from anywhere.
    pub fn times(&self) -> &Arc<Times> {
        &self.out.times
    }

    /// The registry of notifications.
    pub fn events(&self) -> Events {
        self.out.events.clone()
    }

    /// Connections now, dials under way included.
    pub fn conns(&self) -> usize {
        self.out.conns.len()
    }

    /// Frames that wait for their dispatch.
    pub fn inbox(&self) -> usize {
        self.inbox.len()
    }

    /// Waits for events, not at all while there is something to do now. Events set marks only.
    fn poll(&mut self, now: Now, io: &mut impl Io<Answer = A>) -> std::io::Result<()> {
        io.stage(Stage::Poll);
        self.out.now = self.clock.seen(now);
        let timeout = self.wait();
        self.events.clear();
        let after = io.poll(timeout, &mut self.events)?;
        if self.clock.turn(after) {
            self.out.counters.gaps.add(1);
        }
        self.out.now = self.clock.seen(after);
        self.out.counters.turns.add(1);
        for event in &self.events {
            match *event {
                Event::Listener(row) => self.listeners.set_ready(row),
                Event::Conn(conn, ready) => self.out.set_ready(conn, ready),
            }
        }
        Ok(())
    }

    /// How long there is nothing to do: zero while any backlog holds what can run now.
    fn wait(&self) -> Duration {
        let out = &self.out;
        let given = !self.calls.is_empty() || !self.inbox.is_empty() || self.mail_left;
        let marked = !out.keys.is_empty() || !out.dials.is_empty() || !out.dialled.is_empty() || !out.closing.is_empty();
        let able =
            given || marked || self.listeners.can_accept(out) || out.can_read() || out.can_cut() || out.can_serve() || out.can_write();
        if able {
            return Duration::ZERO;
        }
        let first = out.timers.first().min(out.wake).min(self.listeners.rest_ends(out));
        first.mono().map_or(IDLE_MAX, |mono| mono.saturating_sub(out.now.mono).min(IDLE_MAX))
    }
}

impl TurnClock {
    /// The hub's time at a time of the clock.
    fn seen(&self, now: Now) -> Now {
        Now { mono: now.mono.saturating_sub(self.gaps), ..now }
    }

    /// A poll has returned: whether the machine slept since the turn before, in which case the hub's time does not go on by that gap.
    fn turn(&mut self, now: Now) -> bool {
        let gap = now.mono.saturating_sub(self.due.max(self.last));
        let slept = self.last > Duration::ZERO && gap > GAP_MAX;
        if slept {
            self.gaps += gap;
        }
        self.last = now.mono;
        slept
    }
}

impl Outlet {
    fn set_ready(&mut self, id: ConnId, ready: Ready) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if ready.readable || ready.closed {
            conn.readable = true;
            conn.hung_up |= ready.closed;
            self.want_read(id);
        }
        let Some(conn) = self.conns.get_mut(id).filter(|_| ready.writable) else { return };
        conn.full = false;
        if matches!(conn.state, conn::State::Dialling) {
            self.dialled.push(id);
        } else {
            self.want_write(id.slot);
        }
    }
}
