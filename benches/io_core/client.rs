//! The load: one thread, any number of peers, one epoll. Every answer is compared byte by byte with the one that is due, its checksum
//! with it; what a server says beside is skipped, its pings are answered.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rockpool_net::limits::HEADER_BYTES;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::crypted::Crypted;
use crate::wire::{PING, PING_BYTES, PONG, SHARE, VERACK, VERSION, bad, cut, put, version};

/// Peers that shake hands at once: fewer than wait in any server's backlog.
const HANDSHAKES: usize = 100;
/// A server that is silent for so long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(20);
const BUFFER_BYTES: usize = 64 << 10;
/// Batches that differ, so that a server is not seen to answer the one before.
const BATCHES: usize = 8;
/// Source addresses, all of loopback: the ports of one are not enough for all connections of a run.
const SOURCES: usize = 8;

/// Pings encoded beforehand with the answers that are due: making them is no part of what is measured.
pub struct Batches {
    pings: Vec<Vec<u8>>,
    pongs: Vec<Vec<u8>>,
}

impl Batches {
    /// Batches of so many pings.
    pub fn new(size: usize, magic: [u8; 4]) -> Batches {
        let encode = |command: &[u8; 12], batch: usize| {
            let mut bytes = Vec::new();
            (0..size).for_each(|at| put(&mut bytes, magic, command, &((batch << 32 | at) as u64).to_be_bytes()));
            bytes
        };
        let all = |command| (0..BATCHES).map(|batch| encode(command, batch)).collect();
        Batches { pings: all(PING), pongs: all(PONG) }
    }
}

/// What the load has to know of a server.
#[derive(Clone, Copy)]
pub struct Manner {
    /// What its messages begin with.
    pub magic: [u8; 4],
    /// It does not compute checksums.
    pub blind: bool,
    /// It is spoken to in v2.
    pub v2: bool,
}

/// One peer of a server.
struct Peer {
    stream: TcpStream,
    manner: Manner,
    crypted: Option<Box<Crypted>>,
    /// The front of a message whose rest has not come.
    rest: Vec<u8>,
    /// The batch in flight, and bytes of its answer that have come.
    batch: usize,
    answered: usize,
    /// The pings in flight of an open loop: their nonces, and when they were to be sent.
    due: VecDeque<(u64, Instant)>,
}

/// What came of a peer, for who drives the load.
enum Heard {
    /// The message that is due, of so many bytes.
    Due(usize),
    /// Another, of so many.
    Other(usize),
    /// The front of a message.
    Part,
}

/// All peers of one server.
pub struct Client {
    epoll: OwnedFd,
    peers: Vec<Peer>,
    events: Vec<Event>,
    buffer: Vec<u8>,
    /// When something last came that was due.
    due: Instant,
}

impl Client {
    /// Connects so many peers and shakes hands.
    pub fn connect(addr: SocketAddr, peers: usize, manner: Manner) -> io::Result<Client> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut client = Client { epoll, peers: Vec::new(), events: Vec::with_capacity(1_024), buffer: vec![0; BUFFER_BYTES], due: now() };
        client.add(addr, peers, manner)?;
        Ok(client)
    }

    fn add(&mut self, addr: SocketAddr, peers: usize, manner: Manner) -> io::Result<()> {
        let end = self.peers.len() + peers;
        while self.peers.len() < end {
            let begin = self.peers.len();
            for slot in begin..end.min(begin + HANDSHAKES) {
                let peer = Peer::dial(addr, slot, manner)?;
                epoll::add(&self.epoll, &peer.stream, EventData::new_u64(slot as u64), EventFlags::IN)?;
                self.peers.push(peer);
            }
            self.due = now();
            let mut wanted = self.peers.len() - begin;
            while wanted > 0 {
                self.hear(SILENCE_MAX, |peer, bytes| {
                    let Some(message) = cut(bytes, peer.manner.magic)? else { return Ok(Heard::Part) };
                    match &message.command {
                        VERACK => {
                            peer.say(VERACK, &[])?;
                            peer.say(PING, &[0; 8])?;
                        }
                        // Before this the server may not have heard the verack.
                        PONG => {
                            wanted -= 1;
                            return Ok(Heard::Due(message.whole.len()));
                        }
                        _ => {}
                    }
                    Ok(Heard::Other(message.whole.len()))
                })?;
            }
        }
        Ok(())
    }

    /// One batch in flight per peer for so long, then to the end of those in flight. Returns the answers and the time.
    pub fn closed_loop(&mut self, batches: &Batches, time: Duration) -> io::Result<(u64, Duration)> {
        let begin = now();
        self.due = begin;
        for peer in &mut self.peers {
            peer.send_batch(batches)?;
        }
        let (mut answers, mut flying) = (0, self.peers.len());
        while flying > 0 {
            let last = begin.elapsed() >= time;
            self.hear(SILENCE_MAX, |peer, bytes| {
                let due = &batches.pongs[peer.batch];
                let next = due.get(peer.answered..peer.answered + PING_BYTES).unwrap_or_default();
                let heard = peer.compare(bytes, next)?;
                if let Heard::Due(bytes) = heard {
                    answers += 1;
                    peer.answered += bytes;
                    if peer.answered == due.len() && last {
                        flying -= 1;
                    } else if peer.answered == due.len() {
                        peer.send_batch(batches)?;
                    }
                }
                Ok(heard)
            })?;
        }
        Ok((answers, begin.elapsed()))
    }

    /// Sends so many pings a second, peer after peer, whatever has come back, for so long. Returns what passed from when each was to be sent
    /// until its answer was there, in no order: a server that stalls is charged for all that it kept waiting.
    pub fn open_loop(&mut self, rate: u32, time: Duration) -> io::Result<Vec<Duration>> {
        let begin = now();
        let count = u64::from(rate) * time.as_millis() as u64 / 1_000;
        let (mut sent, mut took) = (0, Vec::with_capacity(count as usize));
        let mut heard_at = begin;
        while took.len() < count as usize {
            while sent < count && heard_at >= begin + Duration::from_secs(sent) / rate {
                let slot = sent as usize % self.peers.len();
                let peer = &mut self.peers[slot];
                peer.due.push_back((sent, begin + Duration::from_secs(sent) / rate));
                peer.say(PING, &sent.to_be_bytes())?;
                sent += 1;
            }
            self.hear(Duration::ZERO, |peer, bytes| {
                let mut pong = Vec::with_capacity(PING_BYTES);
                peer.due.front().inspect(|(nonce, _)| put(&mut pong, peer.manner.magic, PONG, &nonce.to_be_bytes()));
                let heard = peer.compare(bytes, &pong)?;
                if matches!(heard, Heard::Due(_)) {
                    took.extend(peer.due.pop_front().map(|(_, due)| due.elapsed()));
                }
                Ok(heard)
            })?;
            heard_at = now();
            if heard_at > begin + time + SILENCE_MAX {
                return Err(silent());
            }
        }
        Ok(took)
    }

    /// The first peer says something of so many bytes that is passed on to all others, so many times, each when the one before has come to
    /// all. Returns how many came.
    pub fn fan_out(&mut self, bytes: usize, times: usize) -> io::Result<u64> {
        for time in 0..times {
            let mut share = Vec::new();
            put(&mut share, self.peers[0].manner.magic, SHARE, &vec![time as u8; bytes - HEADER_BYTES]);
            self.due = now();
            self.peers[0].send(&share)?;
            let mut wanted = self.peers.len() - 1;
            while wanted > 0 {
                self.hear(SILENCE_MAX, |peer, bytes| {
                    let heard = peer.compare(bytes, &share)?;
                    wanted -= usize::from(matches!(heard, Heard::Due(_)));
                    Ok(heard)
                })?;
            }
        }
        Ok((times * (self.peers.len() - 1)) as u64)
    }

    /// Says nothing but answers to pings, for so long. Returns how many.
    pub fn idle(&mut self, time: Duration) -> io::Result<usize> {
        let (begin, mut pings) = (now(), 0);
        while let Some(left) = time.checked_sub(begin.elapsed()) {
            self.hear(left, |peer, bytes| {
                let heard = peer.compare(bytes, &[])?;
                pings += usize::from(matches!(heard, Heard::Other(PING_BYTES)));
                Ok(heard)
            })?;
        }
        Ok(pings)
    }

    /// Waits for events and gives all bytes that have come to `judge`, message by message. Fails if for long nothing came that was due; not
    /// so who waits less.
    fn hear(&mut self, timeout: Duration, mut judge: impl FnMut(&mut Peer, &[u8]) -> io::Result<Heard>) -> io::Result<()> {
        self.events.clear();
        let wait = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&wait))?;
        let mut due = false;
        for event in &self.events {
            let peer = &mut self.peers[event.data.u64() as usize];
            let read = peer.stream.read(&mut self.buffer)?;
            if read == 0 {
                return Err(bad("end: the server has closed"));
            }
            let opened = peer.open(&self.buffer[..read])?;
            peer.take(opened.as_deref().unwrap_or(&self.buffer[..read]), &mut |peer: &mut Peer, bytes: &[u8]| {
                let heard = judge(peer, bytes)?;
                due |= matches!(heard, Heard::Due(_));
                Ok(heard)
            })?;
        }
        if due {
            self.due = now();
        } else if timeout == SILENCE_MAX && self.due.elapsed() > SILENCE_MAX {
            return Err(silent());
        }
        Ok(())
    }
}

impl Peer {
    fn dial(addr: SocketAddr, slot: usize, manner: Manner) -> io::Result<Peer> {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        bind(&socket, &SocketAddr::from(([127, 0, 0, 1 + (slot % SOURCES) as u8], 0)))?;
        connect(&socket, &addr)?;
        // A reset at the end: nothing of a measurement is left in the kernel for the next one.
        set_socket_linger(&socket, Some(Duration::ZERO))?;
        let stream = TcpStream::from(socket);
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let mut peer = Peer { stream, manner, crypted: None, rest: Vec::new(), batch: 0, answered: 0, due: VecDeque::new() };
        if manner.v2 {
            let (crypted, hello) = Crypted::begin(slot);
            peer.send(&hello)?;
            peer.crypted = Some(Box::new(crypted));
        }
        peer.say(VERSION, &version())?;
        Ok(peer)
    }

    /// What came, where it is not the messages themselves.
    fn open(&mut self, bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let Some(crypted) = &mut self.crypted else { return Ok(None) };
        let (plain, says) = crypted.open(bytes)?;
        self.write(&says)?;
        Ok(Some(plain))
    }

    fn say(&mut self, command: &[u8; 12], payload: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
        put(&mut bytes, self.manner.magic, command, payload);
        self.send(&bytes)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.crypted {
            None => self.write(bytes),
            Some(crypted) => {
                let wire = crypted.seal(bytes);
                self.write(&wire)
            }
        }
    }

    /// There is always room: no more than a batch is in flight.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.stream.write(bytes)? == bytes.len() { Ok(()) } else { Err(bad("room: the server does not read")) }
    }

    fn send_batch(&mut self, batches: &Batches) -> io::Result<()> {
        self.batch = (self.batch + 1) % BATCHES;
        self.answered = 0;
        self.send(&batches.pings[self.batch])
    }

    fn take(&mut self, bytes: &[u8], judge: &mut impl FnMut(&mut Peer, &[u8]) -> io::Result<Heard>) -> io::Result<()> {
        if self.rest.is_empty() {
            let used = self.judge(bytes, judge)?;
            self.rest.extend_from_slice(&bytes[used..]);
        } else {
            let mut rest = std::mem::take(&mut self.rest);
            rest.extend_from_slice(bytes);
            let used = self.judge(&rest, judge)?;
            rest.drain(..used);
            self.rest = rest;
        }
        Ok(())
    }

    fn judge(&mut self, bytes: &[u8], judge: &mut impl FnMut(&mut Peer, &[u8]) -> io::Result<Heard>) -> io::Result<usize> {
        let mut used = 0;
        while used < bytes.len() {
            match judge(self, &bytes[used..])? {
                Heard::Due(bytes) | Heard::Other(bytes) => used += bytes,
                Heard::Part => break,
            }
        }
        Ok(used)
    }

    /// Whether the next message is the one that is due. Nothing due: it must be none that was asked for.
    fn compare(&mut self, bytes: &[u8], due: &[u8]) -> io::Result<Heard> {
        if !due.is_empty() && bytes.starts_with(due) {
            return Ok(Heard::Due(due.len()));
        }
        let Some(message) = cut(bytes, self.manner.magic)? else { return Ok(Heard::Part) };
        match &message.command {
            PONG if self.manner.blind && due.ends_with(message.payload) => return Ok(Heard::Due(due.len())),
            PONG | SHARE => return Err(bad("answer")),
            PING => self.say(PONG, message.payload)?,
            _ => {}
        }
        Ok(Heard::Other(message.whole.len()))
    }
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the server does not answer")
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}
