//! The simulator's world: hosts joined by byte pipes under one virtual clock, everything drawn from one seed.
//!
//! Pipes are as hard on the hub as a kernel may be: readiness is told once and not again until the socket was drained, writes take part of
//! what they are given, bytes arrive in pieces of any size. Time passes only when the driver says so: a poll never waits.

mod faults;
mod host;
mod link;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use self::faults::Clock;
pub use self::faults::Felt;
pub use self::host::Host;
use self::link::Link;
use crate::hub::io::{Event, Mail};
use crate::id::ConnId;
use crate::time::Now;

/// Unix time at which every simulation begins: in the past, so that nothing works by accident of today's date.
pub const WALL_START: Duration = Duration::from_secs(1_700_000_000);

/// How the network behaves where nothing is broken.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Shortest and longest way of a piece of bytes.
    pub delay: (Duration, Duration),
    /// Most bytes that one write takes and one piece carries; each is drawn from 1 up to it.
    pub chop: usize,
    /// Bytes that a pipe holds in one direction, those under way and those not read yet.
    pub capacity: usize,
}

impl Weather {
    /// A good line: a millisecond, whole writes, the kernel's usual buffers.
    pub fn fair() -> Weather {
        Weather { delay: (Duration::from_millis(1), Duration::from_millis(1)), chop: usize::MAX, capacity: 256 << 10 }
    }
}

/// Hosts and the pipes between them.
#[derive(Debug)]
pub struct Net {
    now: Duration,
    weather: Weather,
    rng: ChaCha12Rng,
    hosts: Vec<HostState>,
    links: Vec<Link>,
    /// When something arrives, in the order of being sent: the link, and the end that it comes to.
    arrivals: BTreeSet<(Duration, u64, usize, usize)>,
    sequence: u64,
    /// One-way paths on which nothing arrives for now, from and to.
    cuts: BTreeSet<(usize, usize)>,
    /// One call in so many is interrupted by a signal; zero for none.
    interrupts: usize,
    felt: Felt,
    trace: u64,
}

#[derive(Debug, Default)]
struct HostState {
    /// Rows of the hub by port.
    ports: BTreeMap<u16, usize>,
    /// Connections to be accepted, by row, and whether that was told.
    queues: BTreeMap<usize, (VecDeque<usize>, bool)>,
    /// Where a connection of the hub's is: the link and its end.
    conns: BTreeMap<ConnId, (usize, usize)>,
    events: Vec<Event>,
    refuses: bool,
    exhausted: bool,
    clock: Clock,
}

impl Net {
    /// So many hosts without any connection, at time zero.
    pub fn new(seed: u64, hosts: usize, weather: Weather) -> Net {
        let rng = ChaCha12Rng::seed_from_u64(seed);
        let hosts = (0..hosts).map(|_| HostState::default()).collect();
        Net {
            now: Duration::ZERO,
            weather,
            rng,
            hosts,
            links: Vec::new(),
            arrivals: BTreeSet::new(),
            sequence: 0,
            cuts: BTreeSet::new(),
            interrupts: 0,
            felt: Felt::default(),
            trace: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// The address of a host's port.
    pub fn addr(host: usize, port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::from_bits(0x0a00_0001 + host as u32), port))
    }

    /// Opens a port of a host as a row of its hub.
    pub fn listen(&mut self, host: usize, row: usize, port: u16) {
        self.hosts[host].ports.insert(port, row);
    }

    /// A host's sockets, clock and mailbox, for one turn of its hub.
    pub fn io<'a, A>(&'a mut self, host: usize, mailbox: &'a mut VecDeque<Mail<A>>) -> Host<'a, A> {
        Host { net: self, host, mailbox }
    }

    /// The time as a host sees it.
    pub fn now(&self, host: usize) -> Now {
        Now { mono: self.now, wall: self.hosts[host].clock.wall(self.now) }
    }

    /// Whether a host's poll would bring an event.
    pub fn has_events(&self, host: usize) -> bool {
        !self.hosts[host].events.is_empty()
    }

    /// When the next thing arrives anywhere.
    pub fn next(&self) -> Option<Duration> {
        self.arrivals.first().map(|&(at, ..)| at)
    }

    /// Lets time pass up to this moment, and everything arrive that is due until then.
    pub fn advance(&mut self, to: Duration) {
        while let Some(&(at, sequence, link, end)) = self.arrivals.first().filter(|(at, ..)| *at <= to) {
            self.arrivals.remove(&(at, sequence, link, end));
            self.now = self.now.max(at);
            self.arrive(link, end);
        }
        self.now = self.now.max(to);
    }

    /// A number that depends on all that has arrived so far, where and when.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    fn draw(&mut self, bound: usize) -> usize {
        ((u128::from(self.rng.next_u64()) * bound as u128) >> 64) as usize
    }

    fn end(&mut self, host: usize, conn: ConnId) -> io::Result<(usize, usize)> {
        self.hosts[host].conns.get(&conn).copied().ok_or(ErrorKind::NotConnected.into())
    }
}
