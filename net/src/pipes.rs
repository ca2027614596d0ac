//! The simulator's world: hosts joined by byte pipes under one virtual clock, everything drawn from one seed.
//!
//! Pipes are as hard on the hub as a kernel may be: readiness is told once and not again until the socket was drained, writes take part of
//! what they are given, bytes arrive in pieces of any size. Time passes only when the driver says so: a poll never waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::hub::io::{Event, Io, Mail, Ready};
use crate::id::ConnId;
use crate::time::Now;

/// Unix time at which every simulation begins: in the past, so that nothing works by accident of today's date.
pub const WALL_START: Duration = Duration::from_secs(1_700_000_000);
/// The system's error number for "too many open files".
const EMFILE: i32 = 24;

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
    wall_ahead: i64,
}

/// A connection: two ends, 0 the one that dialled.
#[derive(Debug)]
struct Link {
    port: u16,
    ends: [End; 2],
}

#[derive(Debug)]
struct End {
    host: usize,
    conn: Option<ConnId>,
    state: EndState,
    /// What is on its way to this end, in order, with the time of its arrival.
    transit: VecDeque<(Duration, Segment)>,
    transit_bytes: usize,
    /// What has arrived and is not read.
    incoming: VecDeque<u8>,
    /// The other side has said all.
    fin: bool,
    /// That there are bytes was told, and they are not drained yet.
    told: bool,
    /// A write took less than it was given: its writer waits to be told of room.
    blocked: bool,
    wants_writable: bool,
    /// It has said that it will write no more.
    finished: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndState {
    Dialling,
    Open,
    Refused,
    Reset,
    Closed,
}

#[derive(Debug)]
enum Segment {
    Dial,
    DialEnd { refused: bool },
    Bytes(Vec<u8>),
    Room,
    Fin,
    Reset,
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
        let wall = (WALL_START + self.now).as_millis() as i64 + self.hosts[host].wall_ahead;
        Now { mono: self.now, wall: Duration::from_millis(wall.max(0) as u64) }
    }

    /// Puts a host's calendar clock ahead of the true time by so many milliseconds, or behind it.
    pub fn set_wall(&mut self, host: usize, ahead_ms: i64) {
        self.hosts[host].wall_ahead = ahead_ms;
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

    /// Cuts or mends the way from one host to another, one way: what is sent waits, and the sender's pipe fills.
    pub fn cut(&mut self, from: usize, to: usize, cut: bool) {
        if cut {
            self.cuts.insert((from, to));
        } else if self.cuts.remove(&(from, to)) {
            for (link, end) in self.ends_on(|at, other| at == to && other == from) {
                self.schedule(link, end);
            }
        }
    }

    /// Cuts or mends both ways between two hosts.
    pub fn partition(&mut self, a: usize, b: usize, cut: bool) {
        self.cut(a, b, cut);
        self.cut(b, a, cut);
    }

    /// Clogs a host or frees it: nothing arrives there from anywhere.
    pub fn clog(&mut self, host: usize, clog: bool) {
        (0..self.hosts.len()).for_each(|other| self.cut(other, host, clog));
    }

    /// Resets all connections between two hosts. Returns how many.
    pub fn reset(&mut self, a: usize, b: usize) -> usize {
        let ends = self.ends_on(|at, other| (at, other) == (a, b) || (at, other) == (b, a));
        let live: Vec<_> = ends.into_iter().filter(|&(link, end)| self.links[link].ends[end].state == EndState::Open).collect();
        live.iter().for_each(|&(link, end)| self.reset_end(link, end));
        live.len().div_ceil(2)
    }

    /// A host's process dies: its ports are closed, its connections reset, what it was to be told is gone.
    pub fn crash(&mut self, host: usize) {
        for (_, (link, at)) in std::mem::take(&mut self.hosts[host].conns) {
            let end = &mut self.links[link].ends[at];
            (end.conn, end.state) = (None, EndState::Closed);
            self.send(link, 1 - at, Segment::Reset);
        }
        for (queue, _) in std::mem::take(&mut self.hosts[host].queues).into_values() {
            for link in queue {
                self.links[link].ends[1].state = EndState::Closed;
                self.send(link, 0, Segment::Reset);
            }
        }
        self.hosts[host].ports.clear();
        self.hosts[host].events.clear();
    }

    /// Makes a host refuse dials, or take them again.
    pub fn refuse(&mut self, host: usize, refuse: bool) {
        self.hosts[host].refuses = refuse;
    }

    /// Takes a host's file descriptors away, or gives them back: accepting fails meanwhile.
    pub fn exhaust(&mut self, host: usize, exhausted: bool) {
        self.hosts[host].exhausted = exhausted;
    }

    /// Bytes that the host has sent on this connection and the other side has not read.
    pub fn unread(&self, host: usize, conn: ConnId) -> usize {
        self.hosts[host].conns.get(&conn).map_or(0, |&(link, end)| self.links[link].ends[1 - end].held())
    }

    fn ends_on(&self, on: impl Fn(usize, usize) -> bool) -> Vec<(usize, usize)> {
        let all = (0..self.links.len()).flat_map(|link| [(link, 0), (link, 1)]);
        all.filter(|&(link, end)| on(self.links[link].ends[end].host, self.links[link].ends[1 - end].host)).collect()
    }

    fn draw(&mut self, bound: usize) -> usize {
        ((u128::from(self.rng.next_u64()) * bound as u128) >> 64) as usize
    }

    /// Sends a segment to an end. It arrives after the one before it.
    fn send(&mut self, link: usize, to: usize, segment: Segment) {
        let (shortest, longest) = self.weather.delay;
        let span = (longest - shortest).as_micros() as usize + 1;
        let delay = shortest + Duration::from_micros(self.draw(span) as u64);
        let end = &mut self.links[link].ends[to];
        let after = end.transit.back().map_or(Duration::ZERO, |(at, _)| *at);
        if let Segment::Bytes(bytes) = &segment {
            end.transit_bytes += bytes.len();
        }
        end.transit.push_back(((self.now + delay).max(after), segment));
        self.schedule(link, to);
    }

    /// Makes the first segment on its way to an end arrive at its time.
    fn schedule(&mut self, link: usize, to: usize) {
        if let Some((at, _)) = self.links[link].ends[to].transit.front() {
            self.sequence += 1;
            self.arrivals.insert(((*at).max(self.now), self.sequence, link, to));
        }
    }

    /// The first segment on its way to an end arrives, unless it came before or the way is cut.
    fn arrive(&mut self, link: usize, to: usize) {
        let ends = &mut self.links[link].ends;
        let cut = self.cuts.contains(&(ends[1 - to].host, ends[to].host));
        if cut || ends[to].transit.front().is_none_or(|(at, _)| *at > self.now) {
            return;
        }
        let Some((_, segment)) = ends[to].transit.pop_front() else { return };
        self.note(link, to, &segment);
        match segment {
            Segment::Dial => self.dial_arrives(link),
            Segment::DialEnd { refused } => {
                let end = &mut self.links[link].ends[to];
                if end.state == EndState::Dialling {
                    end.state = if refused { EndState::Refused } else { EndState::Open };
                    self.tell(link, to, Ready { writable: true, closed: refused, ..Ready::default() });
                }
            }
            Segment::Bytes(bytes) => self.bytes_arrive(link, to, bytes),
            Segment::Room => self.tell_room(link, to),
            Segment::Fin => {
                self.links[link].ends[to].fin = true;
                self.tell(link, to, Ready { readable: true, closed: true, ..Ready::default() });
            }
            Segment::Reset => self.reset_end(link, to),
        }
        self.schedule(link, to);
    }

    fn dial_arrives(&mut self, link: usize) {
        let Link { port, ends } = &self.links[link];
        let host = &mut self.hosts[ends[1].host];
        let row = host.ports.get(port).copied().filter(|_| !host.refuses);
        if let Some(row) = row {
            let (queue, told) = host.queues.entry(row).or_default();
            queue.push_back(link);
            if !std::mem::replace(told, true) {
                host.events.push(Event::Listener(row));
            }
            self.links[link].ends[1].state = EndState::Open;
        }
        self.send(link, 0, Segment::DialEnd { refused: row.is_none() });
    }

    fn bytes_arrive(&mut self, link: usize, to: usize, bytes: Vec<u8>) {
        let end = &mut self.links[link].ends[to];
        end.transit_bytes -= bytes.len();
        match end.state {
            // Nobody is there any more: the sender is told so.
            EndState::Closed | EndState::Refused => self.send(link, 1 - to, Segment::Reset),
            EndState::Reset => {}
            EndState::Open | EndState::Dialling => {
                end.incoming.extend(bytes);
                if !std::mem::replace(&mut end.told, true) {
                    self.tell(link, to, Ready { readable: true, ..Ready::default() });
                }
            }
        }
    }

    /// Tells an end that its socket has room, if it waits to hear that and there is.
    fn tell_room(&mut self, link: usize, to: usize) {
        let room = self.links[link].ends[1 - to].held() < self.weather.capacity;
        let end = &mut self.links[link].ends[to];
        if room && end.wants_writable && std::mem::take(&mut end.blocked) {
            self.tell(link, to, Ready { writable: true, ..Ready::default() });
        }
    }

    fn tell(&mut self, link: usize, to: usize, ready: Ready) {
        let end = &self.links[link].ends[to];
        if let Some(conn) = end.conn {
            self.hosts[end.host].events.push(Event::Conn(conn, ready));
        }
    }

    fn reset_end(&mut self, link: usize, to: usize) {
        let end = &mut self.links[link].ends[to];
        if matches!(end.state, EndState::Open | EndState::Dialling) {
            end.state = EndState::Reset;
            end.incoming.clear();
            self.tell(link, to, Ready { readable: true, writable: true, closed: true });
        }
    }

    fn note(&mut self, link: usize, to: usize, segment: &Segment) {
        let (kind, bytes): (u8, &[u8]) = match segment {
            Segment::Dial => (0, &[]),
            Segment::DialEnd { refused } => (1 + u8::from(*refused), &[]),
            Segment::Bytes(bytes) => (3, bytes),
            Segment::Room => (4, &[]),
            Segment::Fin => (5, &[]),
            Segment::Reset => (6, &[]),
        };
        let head = [self.now.as_micros() as u64, link as u64, to as u64].map(u64::to_le_bytes).concat();
        // FNV-1a: told apart is enough, nobody attacks a trace.
        for &byte in head.iter().chain([&kind]).chain(bytes) {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn end(&mut self, host: usize, conn: ConnId) -> io::Result<(usize, usize)> {
        self.hosts[host].conns.get(&conn).copied().ok_or(ErrorKind::NotConnected.into())
    }
}

impl End {
    fn new(host: usize, state: EndState) -> End {
        End {
            host,
            conn: None,
            state,
            transit: VecDeque::new(),
            transit_bytes: 0,
            incoming: VecDeque::new(),
            fin: false,
            told: false,
            blocked: false,
            wants_writable: false,
            finished: false,
        }
    }

    /// Bytes sent to it and not read.
    fn held(&self) -> usize {
        self.transit_bytes + self.incoming.len()
    }
}

/// One host's sockets, clock and mailbox.
#[derive(Debug)]
pub struct Host<'a, A> {
    net: &'a mut Net,
    host: usize,
    mailbox: &'a mut VecDeque<Mail<A>>,
}

impl<A> Io for Host<'_, A> {
    type Answer = A;

    fn poll(&mut self, _timeout: Duration, events: &mut Vec<Event>) -> io::Result<Now> {
        events.append(&mut self.net.hosts[self.host].events);
        Ok(self.net.now(self.host))
    }

    fn mail(&mut self) -> Option<Mail<A>> {
        self.mailbox.pop_front()
    }

    fn accept(&mut self, listener: usize, conn: ConnId) -> io::Result<SocketAddr> {
        let host = &mut self.net.hosts[self.host];
        let (queue, told) = host.queues.entry(listener).or_default();
        if host.exhausted && !queue.is_empty() {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        let Some(link) = queue.pop_front() else {
            *told = false;
            return Err(ErrorKind::WouldBlock.into());
        };
        host.conns.insert(conn, (link, 1));
        let Link { ends: [from, end], .. } = &mut self.net.links[link];
        end.conn = Some(conn);
        // A socket is told of as it stands when it is registered.
        let ready = Ready { readable: end.told || end.fin, writable: false, closed: end.fin || end.state == EndState::Reset };
        let addr = Net::addr(from.host, 40_000u16.wrapping_add(link as u16));
        if ready.readable || ready.closed {
            self.net.tell(link, 1, ready);
        }
        Ok(addr)
    }

    fn dial(&mut self, conn: ConnId, addr: SocketAddr) -> io::Result<()> {
        let there = (0..self.net.hosts.len()).find(|&host| Net::addr(host, 0).ip() == addr.ip()).ok_or(ErrorKind::HostUnreachable)?;
        let link = self.net.links.len();
        let ends = [End::new(self.host, EndState::Dialling), End::new(there, EndState::Closed)];
        self.net.links.push(Link { port: addr.port(), ends });
        self.net.links[link].ends[0].conn = Some(conn);
        self.net.hosts[self.host].conns.insert(conn, (link, 0));
        self.net.send(link, 1, Segment::Dial);
        Ok(())
    }

    fn dialled(&mut self, conn: ConnId) -> io::Result<()> {
        let (link, end) = self.net.end(self.host, conn)?;
        match self.net.links[link].ends[end].state {
            EndState::Dialling => Err(ErrorKind::WouldBlock.into()),
            EndState::Open => Ok(()),
            EndState::Refused | EndState::Closed => Err(ErrorKind::ConnectionRefused.into()),
            EndState::Reset => Err(ErrorKind::ConnectionReset.into()),
        }
    }

    fn read(&mut self, conn: ConnId, buf: &mut [u8]) -> io::Result<usize> {
        let (link, at) = self.net.end(self.host, conn)?;
        let capacity = self.net.weather.capacity;
        let end = &mut self.net.links[link].ends[at];
        if end.state == EndState::Reset {
            return Err(ErrorKind::ConnectionReset.into());
        }
        if end.incoming.is_empty() {
            end.told = false;
            return if end.fin { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let was_full = end.held() >= capacity;
        let n = end.incoming.len().min(buf.len());
        for (place, byte) in buf.iter_mut().zip(end.incoming.drain(..n)) {
            *place = byte;
        }
        // Drained: the next bytes are told of again.
        end.told = !end.incoming.is_empty();
        if was_full {
            self.net.send(link, 1 - at, Segment::Room);
        }
        Ok(n)
    }

    fn write(&mut self, conn: ConnId, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let (link, at) = self.net.end(self.host, conn)?;
        let Link { ends, .. } = &mut self.net.links[link];
        if ends[at].state != EndState::Open || ends[at].finished {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        let room = self.net.weather.capacity.saturating_sub(ends[1 - at].held());
        if room == 0 {
            ends[at].blocked = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        let chop = self.net.weather.chop;
        let taken = bytes.len().min(room);
        let taken = if chop == usize::MAX { taken } else { taken.min(1 + self.net.draw(chop)) };
        let mut rest = &bytes[..taken];
        while !rest.is_empty() {
            let piece = if chop == usize::MAX { rest.len() } else { rest.len().min(1 + self.net.draw(chop)) };
            self.net.send(link, 1 - at, Segment::Bytes(rest[..piece].to_vec()));
            rest = &rest[piece..];
        }
        if taken < bytes.len() {
            self.net.links[link].ends[at].blocked = true;
            // The chop took less than there was room for: nobody will read to make more, so the news comes by itself.
            if taken < room {
                self.net.send(link, at, Segment::Room);
            }
        }
        Ok(taken)
    }

    fn want_writable(&mut self, conn: ConnId, want: bool) -> io::Result<()> {
        let (link, at) = self.net.end(self.host, conn)?;
        self.net.links[link].ends[at].wants_writable = want;
        // As a kernel does: asking tells at once if it is so already.
        self.net.tell_room(link, at);
        Ok(())
    }

    fn finish(&mut self, conn: ConnId) -> io::Result<()> {
        let (link, at) = self.net.end(self.host, conn)?;
        if !std::mem::replace(&mut self.net.links[link].ends[at].finished, true) {
            self.net.send(link, 1 - at, Segment::Fin);
        }
        Ok(())
    }

    fn close(&mut self, conn: ConnId) {
        let Some((link, at)) = self.net.hosts[self.host].conns.remove(&conn) else { return };
        let end = &mut self.net.links[link].ends[at];
        let was = std::mem::replace(&mut end.state, EndState::Closed);
        end.conn = None;
        let finished = end.finished;
        let unread = !std::mem::take(&mut end.incoming).is_empty();
        match was {
            // Closing with bytes unread is a reset, as with TCP.
            EndState::Open if unread => self.net.send(link, 1 - at, Segment::Reset),
            EndState::Open if finished => {}
            EndState::Open => self.net.send(link, 1 - at, Segment::Fin),
            EndState::Dialling => self.net.send(link, 1 - at, Segment::Reset),
            EndState::Refused | EndState::Reset | EndState::Closed => {}
        }
    }
}
