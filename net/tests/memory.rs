//! What the hub holds in memory, counted by the allocator: never more than it says at start, little for who is idle, nothing that grows.
//!
//! One test that goes through them all: the count is the process's, and only one may run.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "hub/far.rs"]
mod far;

use std::alloc::System;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bip324::Role;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use rockpool_net::close::CloseReason;
use rockpool_net::frame::Frame;
use rockpool_net::hub::io::{Dispatch, Event, Input, Io, Mail, Ready};
use rockpool_net::hub::tickets::Ticket;
use rockpool_net::hub::{FramerKind, Hub, HubConfig, ListenerRow, Outlet};
use rockpool_net::id::{ConnId, Lane};
use rockpool_net::limits::{
    CONN_BYTES_MAX, HTTP_BODY_BYTES_MAX, LINE_BYTES_MAX, MAIL_TURN_MAX, OUTBOX_SUM_BYTES, RECEIVE_FREE_BYTES, RECEIVE_POOL_BYTES,
    RECEIVE_SPARE, SHARE_HEADERS_BYTES_MAX, TICKETS_ALL, tickets, worst_case_bytes,
};
use rockpool_net::payload::Payload;
use rockpool_net::reactor::Reactor;
use rockpool_net::sha256::sha256d;
use rockpool_net::time::Now;
use rockpool_net::wire::message::Command;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MAGIC: [u8; 4] = [0xf4, 0xc4, 0xb7, 0xd4];

/// Bytes on the heap now.
fn live() -> isize {
    let stats = COUNTING.stats();
    stats.bytes_allocated as isize - stats.bytes_deallocated as isize
}

/// How often memory was asked for so far.
fn allocations() -> usize {
    let stats = COUNTING.stats();
    stats.allocations + stats.reallocations
}

fn message(command: Command, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_le_bytes();
    [&MAGIC[..], &command.field(), &len, &sha256d(payload)[..4], payload].concat()
}

fn config(peers: usize, miners: usize, browsers: usize) -> HubConfig {
    let rows =
        [(Lane::Peer, FramerKind::V1, peers), (Lane::Stratum, FramerKind::LineOrHttp, miners), (Lane::Http, FramerKind::Http, browsers)];
    let listeners = rows.map(|(lane, framer, conns_max)| ListenerRow {
        lane,
        framer,
        conns_max,
        per_addr_max: 1,
        // All come from one network.
        per_group_max: conns_max,
        spare_private: true,
        first_frame: Duration::from_secs(10),
    });
    HubConfig { magic: MAGIC, listeners: listeners.to_vec(), dials_max: 8, bitcoin_magic: [0; 4], bitcoin_dials_max: 0 }
}

/// The far side of a connection.
#[derive(Clone, Default)]
struct Far {
    /// What it says, the same bytes for many, and how far it has got.
    says: Option<Rc<[u8]>>,
    at: usize,
    /// It reads nothing.
    deaf: bool,
    /// That it says something is to be told.
    tell: bool,
    read: usize,
    /// What it has read, if that is kept.
    got: Vec<u8>,
}

/// A world that takes no memory while it goes on: what is counted is the hub's.
struct Wire {
    now: Duration,
    /// Connections to be accepted, by row.
    waiting: [usize; 3],
    /// What a new one says, by row.
    says: [Option<Rc<[u8]>>; 3],
    deaf: bool,
    /// What the far sides read is kept.
    keep: bool,
    far: Vec<Far>,
    mail: VecDeque<Mail<u32>>,
}

impl Wire {
    fn new(conns: usize) -> Wire {
        let far = vec![Far::default(); conns];
        Wire {
            now: Duration::from_secs(1),
            waiting: [0; 3],
            says: [None, None, None],
            deaf: false,
            keep: false,
            far,
            mail: VecDeque::new(),
        }
    }

    fn say(&mut self, slot: usize, says: &Rc<[u8]>) {
        let far = &mut self.far[slot];
        (far.says, far.at, far.tell) = (Some(Rc::clone(says)), 0, true);
    }
}

impl Io for Wire {
    type Answer = u32;

    fn poll(&mut self, _: Duration, events: &mut Vec<Event>) -> io::Result<Now> {
        // Little enough that nobody reaches a deadline.
        self.now += Duration::from_micros(100);
        (0..3).filter(|&row| self.waiting[row] > 0).for_each(|row| events.push(Event::Listener(row)));
        let told = self.far.iter_mut().enumerate().filter(|(_, far)| far.tell).take(1_000);
        for (slot, far) in told {
            far.tell = false;
            let conn = ConnId { slot: slot as u32, generation: 1 };
            events.push(Event::Conn(conn, Ready { readable: true, ..Ready::default() }));
        }
        Ok(Now { mono: self.now, wall: self.now })
    }

    fn mail(&mut self) -> Option<Mail<u32>> {
        self.mail.pop_front()
    }

    fn accept(&mut self, row: usize, conn: ConnId) -> io::Result<SocketAddr> {
        self.waiting[row] = self.waiting[row].checked_sub(1).ok_or(ErrorKind::WouldBlock)?;
        let says = self.says[row].clone();
        self.far[conn.slot as usize] = Far { tell: says.is_some(), says, deaf: self.deaf, ..Far::default() };
        // Loopback and private networks are spared the cap by address, which costs an entry each: these are not.
        Ok(SocketAddr::from(((0x0800_0000 + conn.slot).to_be_bytes(), 1)))
    }

    fn dial(&mut self, _: ConnId, _: SocketAddr) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn dialled(&mut self, _: ConnId) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn read(&mut self, conn: ConnId, buf: &mut [u8]) -> io::Result<usize> {
        let far = &mut self.far[conn.slot as usize];
        let left = &far.says.as_deref().unwrap_or_default()[far.at..];
        let n = left.len().min(buf.len());
        buf[..n].copy_from_slice(&left[..n]);
        far.at += n;
        if n == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(n) }
    }

    fn write(&mut self, conn: ConnId, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let far = &mut self.far[conn.slot as usize];
        let n = bufs.iter().map(|buf| buf.len()).sum();
        far.read += n;
        if self.keep {
            bufs.iter().for_each(|buf| far.got.extend_from_slice(buf));
        }
        if far.deaf { Err(ErrorKind::WouldBlock.into()) } else { Ok(n) }
    }

    fn want_writable(&mut self, _: ConnId, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, _: ConnId) -> io::Result<()> {
        Ok(())
    }

    fn close(&mut self, conn: ConnId) {
        self.far[conn.slot as usize] = Far::default();
    }
}

/// Keeps what it is told to keep, in room made before, and remembers the most that was ever on the heap.
struct Hoard {
    kept: Vec<(Frame, Ticket)>,
    hoards: bool,
    /// Gets what anybody says, if it is set: so many of those that come after, in a ring.
    relay_to: usize,
    opened: Vec<ConnId>,
    browsers: Vec<ConnId>,
    frames: usize,
    most: isize,
}

impl Hoard {
    fn new() -> Hoard {
        let [opened, browsers] = [20_000, 128].map(Vec::with_capacity);
        Hoard { kept: Vec::with_capacity(TICKETS_ALL), hoards: false, relay_to: 0, opened, browsers, frames: 0, most: 0 }
    }
}

impl Dispatch for Hoard {
    type Answer = u32;

    fn on(&mut self, _: Now, input: Input<u32>, out: &mut Outlet) {
        self.most = self.most.max(live());
        match input {
            Input::Opened { conn, lane, .. } => {
                self.opened.push(conn);
                if lane == Lane::Http {
                    self.browsers.push(conn);
                }
                if lane == Lane::Peer && self.hoards {
                    out.set_handshaken(conn);
                    (0..9).for_each(|_| out.expect(conn, Command::ShareHeaders));
                }
            }
            Input::Frame { frame, .. } if self.hoards => self.kept.push((frame, out.take_ticket().unwrap())),
            Input::Frame { conn, frame } => {
                self.frames += 1;
                let Frame::Message { payload, .. } = frame else { return };
                if self.relay_to > 0 {
                    let shared = Arc::new(Payload::new(payload));
                    let ring = self.opened.iter().cycle().skip(conn.slot as usize + 1).take(self.relay_to);
                    ring.for_each(|&to| out.send(to, Arc::clone(&shared)));
                }
            }
            _ => {}
        }
    }

    fn turn_ends(&mut self, _: Now, _: &mut Outlet) {
        self.most = self.most.max(live());
    }
}

struct House {
    hub: Hub<u32>,
    wire: Wire,
    node: Hoard,
    rng: ChaCha12Rng,
}

impl House {
    /// A house, and what was on the heap before its hub was made.
    fn new(config: HubConfig) -> (House, isize) {
        let (wire, node, rng) = (Wire::new(config.conns_max()), Hoard::new(), ChaCha12Rng::seed_from_u64(1));
        let config = config.clone();
        let before = live();
        (House { hub: Hub::new(config), wire, node, rng }, before)
    }

    fn turn(&mut self) {
        let now = Now { mono: self.wire.now, wall: self.wire.now };
        self.hub.turn(now, &mut self.rng, &mut self.wire, &mut self.node).unwrap();
        self.node.most = self.node.most.max(live());
    }

    fn until(&mut self, done: impl Fn(&mut House) -> bool) {
        let mut turns = 0;
        while !done(self) {
            self.turn();
            turns += 1;
            assert!(turns < 100_000, "never");
        }
    }
}

/// Everything at its end at once: slots, the pool, what each connection may hold beside it, all tickets by bytes, all outboxes at their sum
/// in pieces of so many bytes and for so many connections, and all the mail that a turn takes.
fn at_its_worst(piece: usize, readers: usize) -> (isize, u64) {
    let config = config(1_000, 1_000, 128);
    let bound = worst_case_bytes(&config);
    let conns = config.conns_max() - config.dials_max - 1;
    let shares = message(Command::ShareHeaders, &vec![7; SHARE_HEADERS_BYTES_MAX]).repeat(3);
    let line = [vec![b'x'; LINE_BYTES_MAX - 1], b"\n".to_vec()].concat().repeat(64);
    let post = [format!("POST / HTTP/1.0\r\ncontent-length: {HTTP_BODY_BYTES_MAX}\r\n\r\n").into_bytes(), vec![b'b'; HTTP_BODY_BYTES_MAX]];
    let says: [Rc<[u8]>; 3] = [shares.into(), line.into(), post.concat().repeat(20).into()];
    let (mut house, before) = House::new(config);
    (house.node.hoards, house.wire.deaf) = (true, true);
    house.wire.says = says.map(Some);
    // A lane after the other takes all its tickets, the peers' but for one, without which nothing large of them is read; then everybody comes,
    // and the pool goes to the messages that are read first and never end.
    let unfinished = message(Command::ShareHeaders, &vec![7; SHARE_HEADERS_BYTES_MAX]);
    for (row, lane) in [Lane::Peer, Lane::Stratum, Lane::Http].into_iter().enumerate() {
        let of_lane = move |house: &House| {
            let frames = house.node.kept.iter().filter(|(_, ticket)| ticket.lane() == lane);
            frames.map(|(frame, _)| frame.bytes()).sum::<usize>()
        };
        let most = tickets(lane).1 - if lane == Lane::Peer { SHARE_HEADERS_BYTES_MAX } else { 0 };
        while of_lane(&house) < most {
            house.wire.waiting[row] = 1;
            (0..60).for_each(|_| house.turn());
        }
    }
    house.wire.says[0] = Some(unfinished[..SHARE_HEADERS_BYTES_MAX].into());
    // More than there is room for: the rest is refused.
    house.wire.waiting = [1_000, 1_000, 128];
    house.wire.mail = (0..MAIL_TURN_MAX as u32).map(|answer| Mail { answer, tickets: vec![] }).collect();
    let mail = std::mem::take(&mut house.wire.mail);
    let others = mail.capacity() * size_of::<Mail<u32>>();
    house.until(|house| house.node.opened.len() == conns);
    (0..500).for_each(|_| house.turn());
    assert!(house.hub.counters().receive_pool.get() as usize > RECEIVE_POOL_BYTES - 4_096);
    // Browsers last: what may wait for them is less.
    let Hoard { opened, browsers, .. } = &house.node;
    let others_than_browsers = opened.iter().filter(|conn| !browsers.contains(conn));
    let deaf: Vec<ConnId> = others_than_browsers.chain(browsers).copied().take(readers).collect();
    let deaf_bytes = deaf.capacity() * size_of::<ConnId>();
    while house.hub.outlet().unsent() + readers * piece <= OUTBOX_SUM_BYTES {
        deaf.iter().for_each(|&conn| house.hub.outlet().send_bytes(conn, vec![1; piece]));
    }
    house.wire.mail = mail;
    (0..5).for_each(|_| house.turn());
    assert!(house.hub.outlet().unsent() > OUTBOX_SUM_BYTES * 95 / 100, "{}", house.hub.outlet().unsent());
    assert_eq!(house.hub.conns(), conns, "nobody was cut");
    assert!(house.wire.mail.is_empty());
    (house.node.most - before - (others + deaf_bytes) as isize, bound)
}

fn the_worst_case_holds() -> String {
    let mut report = String::new();
    // Pieces of a pong and of a share, for everybody and for as few as can hold them, at the least favourable fill of their queues.
    for (piece, readers) in [(32, 2_128), (32, 63), (900, 2_128), (900, 33), (64 << 10, 32)] {
        let (most, bound) = at_its_worst(piece, readers);
        report += &format!("worst case, outboxes of {readers} in pieces of {piece}: {most} of {bound} bytes\n");
        assert!(most > 0 && most as u64 <= bound, "{report}");
    }
    report
}

/// A peer's handshake.
fn hello() -> Rc<[u8]> {
    [message(Command::Version, &[7; 100]), message(Command::Verack, &[])].concat().into()
}

fn an_idle_connection_costs_little() -> String {
    const CONNS: usize = 1_000;
    // The slab is there from the start: a hub without slots is what it is compared with.
    let empty = {
        let (house, before) = House::new(config(0, 0, 0));
        let bytes = live() - before;
        drop(house);
        bytes
    };
    let (mut house, before) = House::new(config(CONNS, 0, 0));
    let slab = live() - before - empty;
    house.wire.says[0] = Some(hello());
    house.wire.waiting[0] = CONNS;
    house.until(|house| house.hub.counters().frames_peer.get() as usize == 2 * CONNS);
    (0..10).for_each(|_| house.turn());
    let all = live() - before - empty;
    let sockets = {
        let before = live();
        let none = Reactor::<u32>::new(&[], 0, 1).unwrap();
        let (with_none, start) = (live() - before, live());
        let many = Reactor::<u32>::new(&[], CONNS, 1).unwrap();
        let bytes = live() - start - with_none;
        drop((none, many));
        bytes
    };
    assert_eq!((house.hub.conns(), house.hub.outlet().unsent(), house.hub.counters().receive_pool.get()), (CONNS, 0, 0));
    let each = |bytes: isize| bytes / CONNS as isize;
    let report = format!(
        "idle: {} bytes a connection, of which {} the slab (a connection inline and its slot's generation), {} its framer, its timer and its \
         places in the backlogs; and {} in the reactor's table of sockets\n",
        each(all + sockets),
        each(slab),
        each(all - slab),
        each(sockets)
    );
    assert!(each(all + sockets) <= 1_024 && each(slab) <= CONN_BYTES_MAX as isize + 16, "{report}");
    report
}

/// The same peers in v1 and in v2, through with their handshake and silent.
fn an_idle_v2_peer_costs_little_more() -> String {
    const CONNS: usize = 500;
    let bytes = [false, true].map(|v2| {
        let (mut house, before) = House::new(config(CONNS, 0, 0));
        let mut leaked = 0;
        house.wire.keep = v2;
        house.wire.says[0] = Some(if v2 { far::Far::new(Role::Initiator, MAGIC, 7, &[]).hello.into() } else { hello() });
        house.wire.waiting[0] = CONNS;
        house.until(|house| house.node.opened.len() == CONNS);
        house.until(|house| !v2 || house.wire.far.iter().filter(|far| !far.got.is_empty()).count() == CONNS);
        for slot in (0..CONNS).filter(|_| v2) {
            let mut far = far::Far::new(Role::Initiator, MAGIC, 7, &[]);
            let (mut says, _) = far.feed(&std::mem::take(&mut house.wire.far[slot].got));
            assert!(far.is_ready());
            says.extend(far.long(Command::Version.field(), &[7; 100]));
            says.extend(far.long(Command::Verack.field(), &[]));
            leaked += far.leaked;
            house.wire.say(slot, &says.into());
        }
        house.until(|house| house.hub.counters().frames_peer.get() as usize == 2 * CONNS);
        (0..10).for_each(|_| house.turn());
        house.wire.far.iter_mut().for_each(|far| far.says = None);
        house.wire.says[0] = None;
        assert_eq!(house.hub.counters().v2_opened.get() as usize, if v2 { CONNS } else { 0 });
        (live() - before - leaked as isize) / CONNS as isize
    });
    let report = format!("idle: {} bytes a peer in v1, {} in v2\n", bytes[0], bytes[1]);
    assert!(bytes[1] - bytes[0] <= 1_024 && bytes[1] > bytes[0], "{report}");
    report
}

fn a_hundred_thousand_messages_leave_nothing_behind() -> String {
    const CONNS: usize = 100;
    const RELAYED: usize = 8;
    const EACH: usize = 1_000;
    let (mut house, before) = House::new(config(CONNS, 0, 0));
    let bare = live() - before;
    house.wire.says[0] = Some(hello());
    house.wire.waiting[0] = CONNS;
    house.until(|house| house.node.frames == 2 * CONNS);
    house.node.relay_to = RELAYED;
    let shares: Rc<[u8]> = message(Command::Share, &[9; 660]).repeat(EACH).into();
    let round = |house: &mut House| {
        let (frames, asked) = (house.node.frames, allocations());
        (0..CONNS).for_each(|slot| house.wire.say(slot, &shares));
        house.until(|house| house.node.frames == frames + CONNS * EACH && house.hub.outlet().unsent() == 0);
        (0..10).for_each(|_| house.turn());
        (live(), allocations() - asked)
    };
    let (first, _) = round(&mut house);
    let (second, asked) = round(&mut house);
    let (third, _) = round(&mut house);
    let read: usize = house.wire.far.iter().map(|far| far.read).sum();
    assert_eq!(read, 3 * CONNS * EACH * RELAYED * 660);
    assert_eq!((second - first, third - first), (0, 0), "nothing grows");
    let per_message = asked as f64 / (CONNS * EACH) as f64;
    // All leave: what is left is room that queues have kept, the names of slots, and the spare buffers.
    house.node.opened.drain(..).for_each(|conn| house.hub.outlet().close(conn, CloseReason::Stopping));
    (0..5).for_each(|_| house.turn());
    drop(shares);
    let left = live() - before - bare;
    assert_eq!((house.hub.conns(), house.hub.outlet().tickets_out(), house.hub.outlet().unsent()), (0, 0, 0));
    let report =
        format!("relay: {per_message:.2} allocations a message received and sent to {RELAYED}, {left} bytes kept once all are gone\n");
    assert!(left <= (64 << 10) + (RECEIVE_SPARE * RECEIVE_FREE_BYTES) as isize, "{report}");
    report
}

#[test]
fn memory_keeps_to_its_bounds() {
    let report = [
        the_worst_case_holds(),
        an_idle_connection_costs_little(),
        an_idle_v2_peer_costs_little_more(),
        a_hundred_thousand_messages_leave_nothing_behind(),
    ]
    .concat();
    println!("{report}");
}
