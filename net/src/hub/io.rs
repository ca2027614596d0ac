//! The seam between the hub and the world: what it asks of sockets, and what it hands to judgement.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::close::CloseReason;
use crate::frame::Frame;
use crate::hub::Outlet;
use crate::hub::tickets::Ticket;
use crate::id::{ConnId, Lane};
use crate::time::Now;

/// What a poll reports of one source. Edge-triggered: told once, then never again until the source is drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// There may be bytes (or, for a listener, connections).
    pub readable: bool,
    /// There may be room for bytes; of a dialled socket: the dial has ended, well or badly.
    pub writable: bool,
    /// The other side has closed or the socket has failed: a short read does not mean drained.
    pub closed: bool,
}

/// One event of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection.
    Conn(ConnId, Ready),
    /// A listener, by its row.
    Listener(usize),
}

/// A message from a stage with, if it is the last answer of one, the ticket that comes home with it.
#[derive(Debug)]
pub struct Mail<A> {
    /// The answer.
    pub answer: A,
    /// Tickets that come home with it.
    pub tickets: Vec<Ticket>,
}

/// The stages of a turn, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for events.
    Poll,
    /// Accepting and reading.
    Read,
    /// Cutting frames.
    Frame,
    /// Taking mail, finding due timers.
    Mailbox,
    /// Judgement.
    Dispatch,
    /// Dialling and writing.
    Write,
    /// Freeing what was closed.
    Reap,
}

impl Stage {
    /// All stages, in the order of their tables.
    pub const ALL: [Stage; 7] = [Stage::Poll, Stage::Read, Stage::Frame, Stage::Mailbox, Stage::Dispatch, Stage::Write, Stage::Reap];

    /// Its name, as metrics show it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Poll => "poll",
            Stage::Read => "read",
            Stage::Frame => "frame",
            Stage::Mailbox => "mailbox",
            Stage::Dispatch => "dispatch",
            Stage::Write => "write",
            Stage::Reap => "reap",
        }
    }
}

/// Sockets, the clock and the mailbox: `mio` in the node, byte pipes in the simulator.
pub trait Io {
    /// What stages answer with.
    type Answer;

    /// Waits for events or mail, at most `timeout`; `None` is not offered: the hub always has an idle maximum. Returns the time after.
    fn poll(&mut self, timeout: Duration, events: &mut Vec<Event>) -> io::Result<Now>;

    /// The next message from the stages, if there is one.
    fn mail(&mut self) -> Option<Mail<Self::Answer>>;

    /// Takes one connection from a listener and names it `conn`. `WouldBlock` when there is none.
    fn accept(&mut self, listener: usize, conn: ConnId) -> io::Result<SocketAddr>;

    /// Begins to dial. The end is told by a writable event, after which `dialled` says how it went.
    fn dial(&mut self, conn: ConnId, addr: SocketAddr) -> io::Result<()>;

    /// How a dial ended: `WouldBlock` if it has not.
    fn dialled(&mut self, conn: ConnId) -> io::Result<()>;

    /// Reads what there is, at most the buffer.
    fn read(&mut self, conn: ConnId, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes what fits of these slices, in order.
    fn write(&mut self, conn: ConnId, bufs: &[io::IoSlice<'_>]) -> io::Result<usize>;

    /// Asks to be told, or no longer, when there is room again.
    fn want_writable(&mut self, conn: ConnId, want: bool) -> io::Result<()>;

    /// Tells the other side that nothing more will be written. Reading goes on.
    fn finish(&mut self, conn: ConnId) -> io::Result<()>;

    /// Closes a connection and forgets its name.
    fn close(&mut self, conn: ConnId);

    /// A stage of the turn begins: for who measures.
    fn stage(&mut self, _stage: Stage) {}
}

/// What dispatch is given, one at a time and in order.
#[derive(Debug)]
pub enum Input<A> {
    /// A connection is there: accepted on a listener's row, or dialled (`listener` is `None`).
    Opened {
        /// Its name.
        conn: ConnId,
        /// Who speaks on it.
        lane: Lane,
        /// The other side.
        addr: SocketAddr,
        /// The row of the listener that accepted it.
        listener: Option<usize>,
    },
    /// A complete frame. Its ticket waits in the outlet (`Outlet::take_ticket`) and goes home after dispatch if it is not taken.
    Frame {
        /// Where it came from.
        conn: ConnId,
        /// What it is.
        frame: Frame,
    },
    /// The session's timer of this connection is due.
    Timer {
        /// Whose.
        conn: ConnId,
    },
    /// It is this connection's turn to be served: its outbox fell under the soft cap again, or the session asked. Comes with a ticket.
    Room {
        /// Whose.
        conn: ConnId,
    },
    /// The node's own timer is due.
    Wake,
    /// A connection has ended, or a dial has failed; the name is used no more.
    Closed {
        /// Its name.
        conn: ConnId,
        /// Why.
        why: CloseReason,
    },
    /// A stage's answer.
    Answer(A),
}

/// Judgement: what the node does with each input. Never blocks, never refuses.
pub trait Dispatch {
    /// What stages answer with.
    type Answer;

    /// One input.
    fn on(&mut self, now: Now, input: Input<Self::Answer>, out: &mut Outlet);

    /// All inputs of this turn are dispatched: jobs collected for the stages go out as one message each.
    fn turn_ends(&mut self, now: Now, out: &mut Outlet);
}
