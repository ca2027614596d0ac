//! Hubs on a simulated network, with a node that records what it is given.

use std::collections::{BTreeSet, VecDeque};
use std::io::IoSlice;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use rockpool_net::close::CloseReason;
use rockpool_net::frame::Frame;
use rockpool_net::hub::io::{Dispatch, Input, Io, Mail};
use rockpool_net::hub::{FramerKind, Hub, HubConfig, ListenerRow, Outlet, TurnReport};
use rockpool_net::id::{ConnId, Lane};
use rockpool_net::pipes::{Net, Weather};
use rockpool_net::sha256::sha256d;
use rockpool_net::time::Now;
use rockpool_net::wire::message::Command;

pub const MAGIC: [u8; 4] = [0xf4, 0xc4, 0xb7, 0xd4];
/// Ports of the rows that [`World::new`] opens on each host.
pub const PEER: u16 = 9333;
pub const STRATUM: u16 = 3333;
pub const HTTP: u16 = 9332;

pub type Hook = Box<dyn FnMut(Now, &Input<u32>, &mut Outlet)>;

/// Records inputs; the hook acts.
pub struct Node {
    pub opened: Vec<ConnId>,
    pub frames: Vec<(ConnId, Frame)>,
    pub closed: Vec<(ConnId, CloseReason)>,
    pub timers: Vec<(Duration, ConnId)>,
    pub rooms: Vec<ConnId>,
    pub answers: Vec<u32>,
    pub wakes: Vec<Duration>,
    pub turns: usize,
    pub hook: Hook,
}

impl Default for Node {
    fn default() -> Node {
        Node {
            opened: vec![],
            frames: vec![],
            closed: vec![],
            timers: vec![],
            rooms: vec![],
            answers: vec![],
            wakes: vec![],
            turns: 0,
            hook: Box::new(|_, _, _| {}),
        }
    }
}

impl Node {
    /// The lines of one connection, in order.
    pub fn lines(&self, conn: ConnId) -> Vec<String> {
        let lines = self.frames.iter().filter(|(id, _)| *id == conn);
        lines.map(|(_, frame)| if let Frame::Line(line) = frame { String::from_utf8(line.to_vec()).unwrap() } else { panic!() }).collect()
    }

    /// Why a connection ended; it ended once.
    pub fn why(&self, conn: ConnId) -> Option<&CloseReason> {
        let mut ends = self.closed.iter().filter(|(id, _)| *id == conn);
        let first = ends.next().map(|(_, why)| why);
        assert!(ends.next().is_none(), "closed twice");
        first
    }
}

impl Dispatch for Node {
    type Answer = u32;

    fn on(&mut self, now: Now, input: Input<u32>, out: &mut Outlet) {
        (self.hook)(now, &input, out);
        match input {
            Input::Opened { conn, .. } => self.opened.push(conn),
            Input::Frame { conn, frame } => self.frames.push((conn, frame)),
            Input::Timer { conn } => self.timers.push((now.mono, conn)),
            Input::Room { conn } => self.rooms.push(conn),
            Input::Wake => self.wakes.push(now.mono),
            Input::Closed { conn, why } => self.closed.push((conn, why)),
            Input::Answer(answer) => self.answers.push(answer),
        }
    }

    fn turn_ends(&mut self, _: Now, _: &mut Outlet) {
        self.turns += 1;
    }
}

pub fn row(lane: Lane, framer: FramerKind, conns_max: usize) -> ListenerRow {
    let (per_addr_max, per_group_max, first_frame) = (conns_max, conns_max, Duration::from_secs(10));
    ListenerRow { lane, framer, conns_max, per_addr_max, per_group_max, spare_private: true, first_frame }
}

pub fn config(conns_max: usize) -> HubConfig {
    let rows = [(Lane::Peer, FramerKind::V1), (Lane::Stratum, FramerKind::LineOrHttp), (Lane::Http, FramerKind::Http)];
    let listeners = rows.map(|(lane, framer)| row(lane, framer, conns_max)).to_vec();
    HubConfig { magic: MAGIC, listeners, dials_max: 8, bitcoin_magic: [0; 4], bitcoin_dials_max: 0 }
}

/// Hubs on hosts 0.., and raw hosts behind them that tests drive by hand.
pub struct World {
    pub net: Net,
    pub hubs: Vec<Hub<u32>>,
    pub nodes: Vec<Node>,
    pub mail: Vec<VecDeque<Mail<u32>>>,
    pub rngs: Vec<ChaCha12Rng>,
    pub reports: Vec<TurnReport>,
    pub asleep: BTreeSet<usize>,
    raw_conns: u32,
}

impl World {
    pub fn new(seed: u64, hubs: usize, raw: usize, weather: Weather) -> World {
        World::with(seed, hubs, raw, weather, config(1_000))
    }

    pub fn with(seed: u64, hubs: usize, raw: usize, weather: Weather, config: HubConfig) -> World {
        let mut net = Net::new(seed, hubs + raw, weather);
        for host in 0..hubs {
            [PEER, STRATUM, HTTP].iter().enumerate().for_each(|(row, &port)| net.listen(host, row, port));
        }
        World {
            net,
            hubs: (0..hubs).map(|_| Hub::new(config.clone())).collect(),
            nodes: (0..hubs).map(|_| Node::default()).collect(),
            mail: (0..hubs + raw).map(|_| VecDeque::new()).collect(),
            rngs: (0..hubs).map(|host| ChaCha12Rng::seed_from_u64(seed ^ (host as u64) << 32)).collect(),
            reports: vec![TurnReport::default(); hubs],
            asleep: BTreeSet::new(),
            raw_conns: 0,
        }
    }

    pub fn now(&self) -> Duration {
        self.net.now(0).mono
    }

    pub fn turn(&mut self, host: usize) -> TurnReport {
        let now = self.net.now(host);
        let mut io = self.net.io(host, &mut self.mail[host]);
        let report = self.hubs[host].turn(now, &mut self.rngs[host], &mut io, &mut self.nodes[host]).unwrap();
        self.hubs[host].audit();
        self.reports[host] = report;
        report
    }

    /// Runs whoever has something to do, or lets time pass to the next thing. Never beyond `limit`.
    pub fn step(&mut self, limit: Duration) {
        let mut ran = false;
        for host in 0..self.hubs.len() {
            let ready = self.net.has_events(host) || !self.mail[host].is_empty() || self.reports[host].due <= self.now();
            if ready && !self.asleep.contains(&host) {
                self.turn(host);
                ran = true;
            }
        }
        if !ran {
            let dues = self.reports.iter().enumerate().filter(|(host, _)| !self.asleep.contains(host)).map(|(_, report)| report.due);
            let next = dues.chain(self.net.next()).min().unwrap_or(limit).min(limit);
            self.net.advance(next);
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        let limit = self.now() + time;
        while self.now() < limit {
            self.step(limit);
        }
    }

    /// Runs until it is so. Panics when it is not within five virtual minutes.
    pub fn run_until(&mut self, mut done: impl FnMut(&mut World) -> bool) {
        let limit = self.now() + Duration::from_secs(300);
        while !done(self) {
            assert!(self.now() < limit, "not within five minutes");
            self.step(limit);
        }
    }

    /// A raw host dials a hub's port.
    pub fn dial(&mut self, raw: usize, hub: usize, port: u16) -> ConnId {
        self.raw_conns += 1;
        let conn = ConnId { slot: self.raw_conns, generation: 1 };
        self.net.io(raw, &mut self.mail[raw]).dial(conn, Net::addr(hub, port)).unwrap();
        conn
    }

    /// The same, until it is open on both sides. Returns the raw side's name and the hub's.
    pub fn connect(&mut self, raw: usize, hub: usize, port: u16) -> (ConnId, ConnId) {
        let before = self.nodes[hub].opened.len();
        let conn = self.dial(raw, hub, port);
        self.run_until(|world| world.nodes[hub].opened.len() > before && world.net.io(raw, &mut world.mail[raw]).dialled(conn).is_ok());
        (conn, self.nodes[hub].opened[before])
    }

    /// Writes what fits now. Returns the bytes.
    pub fn write(&mut self, raw: usize, conn: ConnId, bytes: &[u8]) -> usize {
        self.net.io(raw, &mut self.mail[raw]).write(conn, &[IoSlice::new(bytes)]).unwrap_or(0)
    }

    /// Writes all of it, letting the world go on while it does not fit.
    pub fn write_all(&mut self, raw: usize, conn: ConnId, bytes: &[u8]) {
        let mut rest = bytes;
        self.run_until(|world| {
            let n = world.write(raw, conn, rest);
            rest = &rest[n..];
            rest.is_empty()
        });
    }

    /// Reads what is there.
    pub fn read(&mut self, raw: usize, conn: ConnId) -> Vec<u8> {
        let (mut all, mut buf) = (Vec::new(), vec![0; 1 << 20]);
        while let Ok(n @ 1..) = self.net.io(raw, &mut self.mail[raw]).read(conn, &mut buf) {
            all.extend_from_slice(&buf[..n]);
        }
        all
    }

    /// Whether the raw side sees the end of the connection.
    pub fn is_ended(&mut self, raw: usize, conn: ConnId) -> bool {
        let read = self.net.io(raw, &mut self.mail[raw]).read(conn, &mut [0]);
        read.map_or_else(|error| error.kind() == std::io::ErrorKind::ConnectionReset, |n| n == 0)
    }

    pub fn close(&mut self, raw: usize, conn: ConnId) {
        self.net.io(raw, &mut self.mail[raw]).close(conn);
    }

    pub fn count(&self, hub: usize, name: &str) -> u64 {
        self.hubs[hub].counters().rows().iter().find(|row| row.name == name).unwrap().value
    }
}

/// `n` lines of `len` bytes, numbered.
pub fn lines(n: usize, len: usize) -> Vec<u8> {
    (0..n).flat_map(|i| format!("{i:0>width$}\n", width = len - 1).into_bytes()).collect()
}

/// A v1 message of this command with any payload, its checksum right.
pub fn message(command: Command, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_le_bytes();
    [&MAGIC[..], &command.field(), &len, &sha256d(payload)[..4], payload].concat()
}

pub fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}
