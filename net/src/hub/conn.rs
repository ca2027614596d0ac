//! One connection, and the slab of all of them.

use std::net::SocketAddr;
use std::time::Duration;

use slab::Slab;

use crate::close::CloseReason;
use crate::frame::Framer;
use crate::hub::outbox::Outbox;
use crate::hub::received::Received;
use crate::hub::timers::Due;
use crate::id::{ConnId, Lane};
use crate::limits::{CONN_BYTES_MAX, MESSAGE_GRACE, MESSAGE_RATE_MIN, tickets_per_conn};
use crate::transport::Transport;

/// Where a connection stands.
#[derive(Debug)]
pub(crate) enum State {
    /// Dialled, not there yet. `limit` is the dial's end.
    Dialling,
    /// Bytes go both ways. `limit` is the end of the first frame, then of an unfinished message.
    Open,
    /// All is said, for this reason: what waits in the outbox is still written, then the other side is told so and its own end waited for,
    /// until `limit`. What it says meanwhile is read and thrown away: closing over unread bytes would reset what we wrote last.
    Flushing(Box<CloseReason>),
    /// Marked; freed at the end of the turn.
    Closing,
}

/// One connection. No buffer while it is idle.
#[derive(Debug)]
pub(crate) struct Conn {
    pub state: State,
    pub received: Box<Received>,
    pub outbox: Outbox,
    /// The session's own timer.
    pub session: Due,
    /// The hub's deadline; what for, the state says.
    pub limit: Due,
    /// When the outbox will have made no progress for too long.
    pub stalled: Due,
    /// Since when it is not read by our own choice: `session` and `limit` stand still.
    pub barred: Due,
    /// Its entry among the timers.
    pub entry: Due,
    pub addr: SocketAddr,
    pub generation: u32,
    /// The row that accepted it; dialled if none.
    pub listener: Option<u16>,
    pub lane: Lane,
    pub transport: Transport,
    /// Tickets of it that are out.
    pub tickets: u8,
    /// Frames of it in the inbox.
    pub inbox: u8,
    /// There may be bytes: told by an event, taken back by `WouldBlock`.
    pub readable: bool,
    /// The other side is gone or the socket has failed: a short read does not mean drained.
    pub hung_up: bool,
    /// It has been read to its end.
    pub ended: bool,
    /// The session does not want to hear it now.
    pub paused: bool,
    /// It has bytes that nobody looked at: they are cut before more is read.
    pub uncut: bool,
    /// It has bytes to be read for which the pool has no room.
    pub starved: bool,
    /// It sent something but not all: not read next turn.
    pub lagging: bool,
    /// The socket took no more; an event will tell when it does.
    pub full: bool,
    /// An event is asked for when the socket has room.
    pub asked: bool,
    /// Its first frame has come.
    pub spoke: bool,
    /// It waits for its exchange of keys.
    pub in_keys: bool,
    /// It is in the backlog of that stage. Who waits for one of its own tickets is in none: the ticket's coming home puts it there.
    pub in_reads: bool,
    pub in_frames: bool,
    pub in_rooms: bool,
    pub in_writes: bool,
}

const _: () = assert!(std::mem::size_of::<Conn>() <= CONN_BYTES_MAX);

impl Conn {
    /// Whether it still has a session: frames of others are dropped, and nothing is sent to them.
    pub fn is_live(&self) -> bool {
        matches!(self.state, State::Dialling | State::Open)
    }

    /// A connection at its beginning.
    pub fn new(framer: Framer, state: State, addr: SocketAddr, lane: Lane, generation: u32) -> Conn {
        Conn {
            received: Box::new(Received::new(framer)),
            state,
            outbox: Outbox::default(),
            session: Due::NEVER,
            limit: Due::NEVER,
            stalled: Due::NEVER,
            barred: Due::NEVER,
            entry: Due::NEVER,
            addr,
            generation,
            listener: None,
            lane,
            transport: Transport::Plain,
            tickets: 0,
            inbox: 0,
            readable: false,
            hung_up: false,
            ended: false,
            paused: false,
            uncut: false,
            starved: false,
            lagging: false,
            full: false,
            asked: false,
            spoke: false,
            in_keys: false,
            in_reads: false,
            in_frames: false,
            in_rooms: false,
            in_writes: false,
        }
    }

    /// Whether anything that waits may become wire bytes now, or is already.
    pub fn can_write(&self) -> bool {
        if self.transport.is_ready() { !self.outbox.is_empty() } else { self.outbox.is_sealed() }
    }

    /// The length of the packet that is arriving, where bytes come in packets; `None` while none is.
    #[expect(clippy::option_option, reason = "no packet, and no packets")]
    pub fn packet(&self) -> Option<Option<usize>> {
        if let Transport::V2(v2) = &self.transport { v2.arriving().map(Some) } else { Some(None) }
    }

    /// Whether it may have one more frame in the house.
    pub fn may_cut(&self) -> bool {
        self.tickets < tickets_per_conn(self.lane)
    }

    /// After cutting: the deadline of the unfinished message, by the length it claims. `wanted` is what it wanted before, `cut` whether it
    /// is another one since.
    pub fn message_deadline(&mut self, now: Duration, wanted: usize, cut: bool) {
        if !self.spoke {
            // The deadline of the first frame stands, whatever comes.
            return;
        }
        if self.received.unfinished() == 0 {
            self.limit = Due::NEVER;
        } else if cut || self.limit == Due::NEVER {
            self.limit = Due::at(now + message_time(self.received.wanted()));
        } else if self.received.wanted() > wanted {
            self.limit = self.limit.put_off(message_time(self.received.wanted()) - message_time(wanted));
        }
    }

    /// How long its unfinished message has been under way, if it has a deadline.
    pub fn message_age(&self, now: Duration) -> Option<Duration> {
        let end = self.limit.mono().filter(|_| self.spoke)?;
        Some((now + message_time(self.received.wanted())).saturating_sub(end))
    }

    /// Its clocks stand still while we choose not to read it, and go on with what they had left.
    pub fn bar(&mut self, now: Duration) {
        let barred = self.paused || self.uncut || self.starved;
        match (self.barred.mono(), barred) {
            (None, true) => self.barred = Due::at(now),
            (Some(since), false) => {
                let pause = now.saturating_sub(since);
                self.session = self.session.put_off(pause);
                self.limit = self.limit.put_off(pause);
                self.barred = Due::NEVER;
            }
            _ => {}
        }
    }

    /// Its earliest deadline.
    pub fn earliest(&self) -> Due {
        if self.barred == Due::NEVER { self.session.min(self.limit).min(self.stalled) } else { self.stalled }
    }
}

/// The time that a message of so many bytes has to arrive whole, from its first.
fn message_time(bytes: usize) -> Duration {
    MESSAGE_GRACE + Duration::from_micros(bytes as u64 * 1_000_000 / MESSAGE_RATE_MIN)
}

/// All connections, by slot, with the generation of every slot that was ever used.
#[derive(Debug)]
pub(crate) struct Conns {
    slab: Slab<Conn>,
    generations: Vec<u32>,
    max: usize,
}

impl Conns {
    /// Room for `max`, allocated now.
    pub fn new(max: usize) -> Conns {
        Conns { slab: Slab::with_capacity(max), generations: Vec::with_capacity(max), max }
    }

    /// The name that the next connection gets, if there is a slot.
    pub fn next_id(&mut self) -> Option<ConnId> {
        if self.slab.len() >= self.max {
            return None;
        }
        let slot = self.slab.vacant_key();
        if slot == self.generations.len() {
            self.generations.push(1);
        }
        Some(ConnId { slot: u32::try_from(slot).ok()?, generation: self.generations[slot] })
    }

    /// Takes a connection in under the name that [`Conns::next_id`] has just told.
    pub fn insert(&mut self, conn: Conn) {
        self.slab.insert(conn);
    }

    /// The connection of this name, if it is still that one.
    pub fn get(&self, id: ConnId) -> Option<&Conn> {
        self.slab.get(id.slot as usize).filter(|conn| conn.generation == id.generation)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.slab.get_mut(id.slot as usize).filter(|conn| conn.generation == id.generation)
    }

    /// Whoever is in this slot.
    pub fn at(&self, slot: u32) -> Option<(ConnId, &Conn)> {
        self.slab.get(slot as usize).map(|conn| (ConnId { slot, generation: conn.generation }, conn))
    }

    /// The same, to change it.
    pub fn at_mut(&mut self, slot: u32) -> Option<(ConnId, &mut Conn)> {
        self.slab.get_mut(slot as usize).map(|conn| (ConnId { slot, generation: conn.generation }, conn))
    }

    /// Frees a slot; its next tenant has another generation (never 0).
    pub fn remove(&mut self, id: ConnId) -> Option<Conn> {
        self.get(id)?;
        let generation = &mut self.generations[id.slot as usize];
        *generation = generation.wrapping_add(1).max(1);
        self.slab.try_remove(id.slot as usize)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (ConnId, &Conn)> {
        self.slab.iter().map(|(slot, conn)| (ConnId { slot: slot as u32, generation: conn.generation }, conn))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slab.len()
    }
}
