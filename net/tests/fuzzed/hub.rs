//! The hub on byte pipes: other hosts connect, speak, read and break off, time passes, and judgement does whatever it may, all as the
//! input says. What must hold holds after every turn; in the end all leave, and nothing of them may stay.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use rockpool_net::close::CloseReason;
use rockpool_net::hub::io::{Dispatch, Input, Io, Mail};
use rockpool_net::hub::tickets::Ticket;
use rockpool_net::hub::{FramerKind, Hub, HubConfig, ListenerRow, Outlet, TurnReport};
use rockpool_net::id::{ConnId, Lane};
use rockpool_net::limits::{OUTBOX_HARD_BYTES, OUTBOX_SUM_BYTES};
use rockpool_net::payload::Payload;
use rockpool_net::pipes::{Net, Weather};
use rockpool_net::time::Now;
use rockpool_net::transport::Wrapping;
use rockpool_net::wire::message::{Command, Message};

const MAGIC: [u8; 4] = [0xf4, 0xc4, 0xb7, 0xd4];
const PORTS: [u16; 4] = [9333, 3333, 9332, 1];
/// Hosts beside the hub's, which is 0.
const RAW: usize = 2;
/// Turns that one input may take.
const TURNS_MAX: usize = 3_000;
/// Turns in a row that were to run at once and came to nothing: more is a spin.
const IDLE_TURNS_MAX: usize = 40;
/// Sizes of what is sent, up to beyond the hard cap.
const SIZES: [usize; 8] = [0, 1, 100, 4 << 10, 64 << 10, 256 << 10, OUTBOX_HARD_BYTES, OUTBOX_HARD_BYTES + 1];

/// The first three bytes are the weather, the configuration and the seed; then operations of two bytes each.
pub fn hub(data: &[u8]) {
    let Some((head, rest)) = data.split_at_checked(3) else { return };
    let mut world = World::new(head[0], head[1], head[2]);
    for op in rest.chunks_exact(2) {
        if world.turns >= TURNS_MAX {
            break;
        }
        world.op(op[0], op[1]);
    }
    world.end();
}

/// What judgement knows of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Dialling,
    Open,
    /// It was closed by judgement: nothing but `Closed` may follow.
    Farewell,
    Ended,
}

/// Does to the hub what the plan says, two bytes for each input, and nothing once there is no plan left.
#[derive(Default)]
struct Node {
    plan: VecDeque<(u8, u8)>,
    phases: BTreeMap<ConnId, Phase>,
    held: Vec<Ticket>,
    /// Tickets of each answer that is on its way.
    posted: VecDeque<usize>,
    /// Frames so far.
    heard: usize,
    stopping: bool,
}

impl Dispatch for Node {
    type Answer = ();

    fn on(&mut self, now: Now, input: Input<()>, out: &mut Outlet) {
        let conn = match &input {
            Input::Opened { conn, listener, .. } => {
                let before = self.phases.insert(*conn, Phase::Open);
                // It may have been closed before word of its opening came.
                match before {
                    None => assert!(listener.is_some(), "nobody dialled {conn}"),
                    Some(Phase::Dialling) => assert!(listener.is_none(), "{conn} was dialled"),
                    Some(Phase::Farewell) => drop(self.phases.insert(*conn, Phase::Farewell)),
                    other => panic!("{conn} opened while {other:?}"),
                }
                Some(*conn)
            }
            Input::Frame { conn, .. } => {
                assert_eq!(self.phases.get(conn), Some(&Phase::Open), "{input:?}");
                self.heard += 1;
                Some(*conn)
            }
            // Who asks while the dial is under way may be told so.
            Input::Timer { conn } | Input::Room { conn } => {
                let phase = self.phases.get(conn);
                assert!(matches!(phase, Some(Phase::Open | Phase::Dialling)), "{input:?} while {phase:?}");
                Some(*conn)
            }
            Input::Closed { conn, .. } => {
                let before = self.phases.insert(*conn, Phase::Ended);
                assert!(before.is_some_and(|phase| phase != Phase::Ended), "{conn} closed while {before:?}");
                Some(*conn)
            }
            Input::Answer(()) => {
                self.posted.pop_front().expect("an answer that was not posted");
                None
            }
            Input::Wake => None,
        };
        if let Some((what, how)) = self.plan.pop_front() {
            self.decide(now.mono, what, how, conn, out);
        }
        assert!(out.unsent() <= OUTBOX_SUM_BYTES, "{} bytes wait", out.unsent());
    }

    fn turn_ends(&mut self, _: Now, _: &mut Outlet) {}
}

impl Node {
    /// The input's own connection, or by the upper bits any, dialled and ended ones too.
    fn decide(&mut self, now: Duration, what: u8, how: u8, own: Option<ConnId>, out: &mut Outlet) {
        let other = self.phases.keys().rev().nth(usize::from(what >> 4)).copied();
        let Some(conn) = own.filter(|_| what < 128).or(other) else { return self.decide_alone(now, what, how, out) };
        let size = SIZES[usize::from(how % 8)];
        match what % 16 {
            0 => out.send_bytes(conn, vec![b'x'; size]),
            1 => out.send(conn, shared(size)),
            2 => {
                let all: Vec<ConnId> = self.phases.keys().copied().collect();
                all.into_iter().for_each(|conn| out.send(conn, shared(size)));
            }
            3 => self.farewell(conn, |conn| out.close(conn, CloseReason::Done("the input says so"))),
            4 => self.farewell(conn, |conn| out.close_after_flush(conn, CloseReason::Done("the input says so"))),
            5 => out.pause(conn, true),
            6 => out.pause(conn, false),
            7 => out.set_timer(conn, Some(now + Duration::from_millis(u64::from(how) * 50)).filter(|_| how != 255)),
            8 => self.held.extend(out.take_ticket()),
            9 => out.ask_room(conn),
            10 => {
                out.set_handshaken(conn);
                out.expect(conn, Command::ShareHeaders);
            }
            11 => {
                out.send_bytes(conn, vec![b'y'; size]);
                self.farewell(conn, |conn| out.close_after_flush(conn, CloseReason::Done("all was said")));
            }
            _ => self.decide_alone(now, what, how, out),
        }
    }

    fn decide_alone(&mut self, now: Duration, what: u8, how: u8, out: &mut Outlet) {
        match what % 16 {
            12 => {
                let lane = Lane::ALL[usize::from(how) % 3];
                // Some hosts do not exist, some ports are closed.
                let addr = Net::addr(1 + usize::from(how >> 5) % 3, PORTS[usize::from(how >> 2) % 4]);
                if let Ok(conn) = out.dial(lane, addr, Wrapping::V1) {
                    assert!(self.phases.insert(conn, Phase::Dialling).is_none(), "the name {conn} again");
                }
            }
            13 => out.set_wake(Some(now + Duration::from_millis(u64::from(how) * 20)).filter(|_| how != 255)),
            14 if !self.held.is_empty() => out.home(self.held.swap_remove(usize::from(how) % self.held.len())),
            15 if how >= 250 => {
                self.stopping = true;
                out.stop_reading();
            }
            _ => {}
        }
    }

    fn farewell(&mut self, conn: ConnId, close: impl FnOnce(ConnId)) {
        close(conn);
        if let Some(phase) = self.phases.get_mut(&conn).filter(|phase| **phase != Phase::Ended) {
            *phase = Phase::Farewell;
        }
    }
}

fn shared(size: usize) -> Arc<Payload> {
    static PAYLOADS: OnceLock<Vec<Arc<Payload>>> = OnceLock::new();
    let payloads = PAYLOADS.get_or_init(|| SIZES.map(|size| Arc::new(Payload::new(vec![b's'; size]))).to_vec());
    Arc::clone(payloads.iter().find(|payload| payload.bytes().len() == size).unwrap_or(&payloads[0]))
}

/// One connection as the other side has it, with what it is still to say.
struct Raw {
    host: usize,
    conn: ConnId,
    unsaid: Vec<u8>,
}

struct World {
    net: Net,
    hub: Hub<()>,
    node: Node,
    mail: VecDeque<Mail<()>>,
    rng: ChaCha12Rng,
    conns_max: usize,
    report: TurnReport,
    turns: usize,
    idle: usize,
    raws: Vec<Raw>,
    /// How many connections the other hosts ever had: their names.
    named: u32,
}

impl World {
    fn new(weather: u8, config: u8, seed: u8) -> World {
        let weather = Weather {
            delay: (Duration::ZERO, Duration::from_millis([0, 1, 30, 2_000][usize::from(weather % 4)])),
            chop: [usize::MAX, usize::MAX, 5_000, 50][usize::from(weather >> 2) % 4],
            capacity: [256 << 10, 4 << 10, 100, 2 << 20][usize::from(weather >> 4) % 4],
        };
        let rows = [(Lane::Peer, FramerKind::V1), (Lane::Stratum, FramerKind::LineOrHttp), (Lane::Http, FramerKind::Http)];
        let row = |(lane, framer)| ListenerRow {
            lane,
            framer,
            conns_max: [3, 40][usize::from(config % 2)],
            per_addr_max: [2, 40][usize::from(config >> 1) % 2],
            per_group_max: [40, 3][usize::from(config >> 1) % 2],
            spare_private: config & 4 > 0,
            first_frame: Duration::from_secs(30),
        };
        let config = HubConfig {
            magic: MAGIC,
            listeners: rows.map(row).to_vec(),
            dials_max: [2, 8][usize::from(config >> 3) % 2],
            bitcoin_magic: MAGIC,
            bitcoin_dials_max: 0,
        };
        let mut net = Net::new(u64::from(seed), 1 + RAW, weather);
        (0..=RAW).for_each(|host| PORTS[..3].iter().enumerate().for_each(|(row, &port)| net.listen(host, row, port)));
        let conns_max = config.conns_max();
        World {
            net,
            hub: Hub::new(config),
            node: Node::default(),
            mail: VecDeque::new(),
            rng: ChaCha12Rng::seed_from_u64(u64::from(seed)),
            conns_max,
            report: TurnReport::default(),
            turns: 0,
            idle: 0,
            raws: Vec::new(),
            named: 0,
        }
    }

    /// The lower half of the first byte is the operation, the upper half and the second byte are what and how.
    fn op(&mut self, op: u8, how: u8) {
        let which = usize::from(op >> 4);
        match op % 16 {
            0 => (0..=which).for_each(|_| self.connect(how)),
            1 | 2 => self.say(which, usize::from(op % 16 - 1) * 128 + usize::from(how) % 128),
            3 => self.read(which, 1 << (how % 21)),
            4 => self.drop_raw(which, how),
            5 => self.node.plan.push_back((op >> 4 | how << 4, how >> 2)),
            6 | 7 => self.node.plan.push_back((op >> 4, how)),
            8 => self.node.plan.push_back((op >> 4 | 128, how)),
            9 => self.post(how),
            10 => self.faults(which, how),
            11 => self.accept(),
            12 => self.go_on(Duration::from_millis([1, 10, 100, 1_000, 4_000, 10_000, 31_000, 100_000][which % 8])),
            // The machine sleeps: nobody turns meanwhile.
            13 => self.net.advance(self.net.now(0).mono + Duration::from_millis(u64::from(how) * 100)),
            14 => self.go_on(Duration::ZERO),
            _ => self.turn(),
        }
        self.turn_if_due();
    }

    fn name(&mut self) -> ConnId {
        self.named += 1;
        ConnId { slot: self.named, generation: 1 }
    }

    fn connect(&mut self, how: u8) {
        let (host, conn) = (1 + usize::from(how >> 2) % RAW, self.name());
        if self.raws.len() < 100 && self.io(host).dial(conn, Net::addr(0, PORTS[usize::from(how % 3)])).is_ok() {
            self.raws.push(Raw { host, conn, unsaid: Vec::new() });
        }
    }

    /// Takes in what the hub has dialled.
    fn accept(&mut self) {
        for (host, row) in (1..=RAW).flat_map(|host| [(host, 0), (host, 1), (host, 2)]) {
            let conn = self.name();
            if self.raws.len() < 100 && self.io(host).accept(row, conn).is_ok() {
                self.raws.push(Raw { host, conn, unsaid: Vec::new() });
            }
        }
    }

    fn say(&mut self, which: usize, what: usize) {
        let Some(at) = self.raws.len().checked_sub(1) else { return };
        let raw = &mut self.raws[at.saturating_sub(which)];
        if raw.unsaid.len() < 1 << 20 {
            raw.unsaid.extend(saying(what));
        }
        self.write(at.saturating_sub(which));
    }

    /// Writes of what is unsaid as much as there is room for.
    fn write(&mut self, at: usize) {
        let raw = &mut self.raws[at];
        let (host, conn, bytes) = (raw.host, raw.conn, std::mem::take(&mut raw.unsaid));
        let n = self.io(host).write(conn, &[IoSlice::new(&bytes)]).unwrap_or(0);
        self.raws[at].unsaid = bytes[n..].to_vec();
    }

    fn read(&mut self, which: usize, bytes: usize) {
        let Some(raw) = self.raws.iter().rev().nth(which) else { return };
        let (host, conn) = (raw.host, raw.conn);
        let _ = self.io(host).read(conn, &mut vec![0; bytes]);
    }

    /// Says that it has said all, or leaves.
    fn drop_raw(&mut self, which: usize, how: u8) {
        let Some(at) = self.raws.len().checked_sub(1 + which) else { return };
        let (host, conn) = (self.raws[at].host, self.raws[at].conn);
        if how.is_multiple_of(2) {
            let _ = self.io(host).finish(conn);
        } else {
            self.io(host).close(conn);
            self.raws.remove(at);
        }
    }

    /// An answer comes, with some of the tickets that are out.
    fn post(&mut self, how: u8) {
        let count = usize::from(how % 8).min(self.node.held.len());
        let tickets = self.node.held.drain(..count).collect();
        self.node.posted.push_back(count);
        self.mail.push_back(Mail { answer: (), tickets });
    }

    fn faults(&mut self, which: usize, how: u8) {
        let (host, on) = (usize::from(how) % (1 + RAW), how & 128 > 0);
        match which % 6 {
            0 => self.net.clog(host, on),
            1 => drop(self.net.reset(0, 1 + host % RAW)),
            2 => self.net.refuse(host, on),
            3 => self.net.exhaust(0, on),
            4 => self.net.interrupt([0, 3, 10][usize::from(how % 3)]),
            _ => self.net.heal(),
        }
    }

    /// One host's sockets; the mail of the others is never looked at.
    fn io(&mut self, host: usize) -> rockpool_net::pipes::Host<'_, ()> {
        self.net.io(host, &mut self.mail)
    }

    /// Lets time pass, with turns whenever there is something to do.
    fn go_on(&mut self, time: Duration) {
        let limit = self.net.now(0).mono + time;
        for _ in 0..400 {
            if !self.turn_if_due() {
                let now = self.net.now(0).mono;
                if now >= limit {
                    break;
                }
                self.turn_for_nothing();
                let next = self.net.next().unwrap_or(limit).min(self.report.due).min(limit);
                self.net.advance(next.max(now));
            }
        }
    }

    fn turn_if_due(&mut self) -> bool {
        let due = self.net.has_events(0) || !self.mail.is_empty() || self.report.due <= self.net.now(0).mono;
        if due {
            self.turn();
        }
        due
    }

    /// A turn that nothing calls for: what it finds to do, the hub would have slept over.
    fn turn_for_nothing(&mut self) {
        self.turn();
        let TurnReport { bytes_in, bytes_out, frames, inputs, .. } = self.report;
        assert_eq!((bytes_in, bytes_out, frames, inputs), (0, 0, 0, 0), "read, written, cut and judged when nothing was due");
    }

    fn turn(&mut self) {
        let (now, was_due) = (self.net.now(0), self.report.due);
        let told = self.net.has_events(0) || !self.mail.is_empty();
        let mut io = self.net.io(0, &mut self.mail);
        self.report = self.hub.turn(now, &mut self.rng, &mut io, &mut self.node).expect("pipes do not fail");
        self.turns += 1;
        let TurnReport { bytes_in, bytes_out, frames, inputs, due } = self.report;
        let nothing = bytes_in + bytes_out + frames + inputs == 0;
        let spun = nothing && !told && was_due <= now.mono && due <= now.mono;
        self.idle = if spun { self.idle + 1 } else { 0 };
        assert!(self.idle <= IDLE_TURNS_MAX, "turn after turn with nothing to do");
        self.check();
    }

    fn check(&mut self) {
        self.hub.audit();
        let posted: usize = self.node.posted.iter().sum();
        let (out, known) = (self.hub.outlet().tickets_out(), self.node.held.len() + posted);
        assert_eq!(out, known + self.hub.inbox(), "tickets that are out; {known} of them are held");
        assert!(self.hub.conns() <= self.conns_max, "{} connections", self.hub.conns());
        let (counters, unsent) = (self.hub.counters(), self.hub.outlet().unsent() as u64);
        assert_eq!((counters.outbox_sum.get(), counters.conns.get()), (unsent, self.hub.conns() as u64), "what metrics say");
    }

    /// All others leave, all tickets come home, judgement does nothing more: no connection may stay, nor anything of one.
    fn end(mut self) {
        self.net.heal();
        self.node.plan.clear();
        for _ in 0..20 {
            for raw in std::mem::take(&mut self.raws) {
                self.io(raw.host).close(raw.conn);
            }
            // What the hub dialled and nobody has taken in yet: of each port one at a time.
            self.go_on(Duration::from_secs(1));
            self.accept();
        }
        let conns: Vec<ConnId> = self.node.phases.keys().copied().collect();
        let held = std::mem::take(&mut self.node.held);
        let out = self.hub.outlet();
        held.into_iter().for_each(|ticket| out.home(ticket));
        for conn in conns {
            out.pause(conn, false);
            out.set_timer(conn, None);
            if self.node.stopping {
                out.close_after_flush(conn, CloseReason::Stopping);
                self.node.phases.entry(conn).and_modify(|phase| *phase = if *phase == Phase::Ended { *phase } else { Phase::Farewell });
            }
        }
        for _ in 0..30 {
            self.report.due = Duration::ZERO;
            self.go_on(Duration::from_secs(10));
        }
        let stay: Vec<_> = self.node.phases.iter().filter(|(_, phase)| **phase != Phase::Ended).collect();
        assert!(self.hub.conns() == 0 && stay.is_empty(), "{stay:?} stay, the hub has {}", self.hub.conns());
        let counters = self.hub.counters();
        assert_eq!((self.hub.outlet().tickets_out(), self.hub.outlet().unsent(), counters.receive_pool.get()), (0, 0, 0));
        if !self.node.stopping {
            self.serves_whoever_comes_next();
        }
    }

    /// After all that, a miner who comes is heard.
    fn serves_whoever_comes_next(&mut self) {
        let heard = self.node.heard;
        self.connect(1);
        self.go_on(Duration::from_secs(5));
        self.say(0, 2);
        // In drops, where the weather says so.
        for _ in 0..4 {
            self.go_on(Duration::from_secs(4));
            self.write(self.raws.len() - 1);
        }
        assert_eq!(self.node.heard, heard + 1, "lines of who came last");
    }
}

/// Something to say: the first 16 make sense to somebody, the others are pieces and pads of any length.
fn saying(what: usize) -> Vec<u8> {
    let message = |message: Message| message.to_bytes(MAGIC).unwrap_or_default();
    let claims = |command: Command, len: u32| [&MAGIC[..], &command.field(), &len.to_le_bytes(), &[0; 4]].concat();
    match what {
        0 => message(Message::Ping(7)),
        1 => message(Message::Ping(7)).repeat(100),
        2 => b"{}\n".to_vec(),
        3 => b"{\"id\":1}\r\n".repeat(9),
        4 => b"[]\n".repeat(20_000),
        5 => b"GET / HTTP/1.0\r\n\r\n".to_vec(),
        6 => b"GET / HTTP/1.0\r\n\r\n".repeat(500),
        7 => [&b"POST /x HTTP/1.0\r\nContent-Length: 16000\r\n\r\n"[..], &[b'z'; 16_000]].concat(),
        8 => version(),
        9 => message(Message::Verack),
        10 => [version(), message(Message::Verack), message(Message::Inv(Vec::new()))].concat(),
        11 => claims(Command::ShareHeaders, 500_000),
        12 => claims(Command::Inv, 32_000),
        13 => b"PUT /half HTTP/1.1\nContent-".to_vec(),
        14 => vec![0; 300_000],
        15 => message(Message::Verack)[..20].to_vec(),
        _ => vec![what as u8; what.pow(2)],
    }
}

/// A handshake's first message; only its frame is looked at here.
fn version() -> Vec<u8> {
    use rockpool_net::sha256::Checksum;
    let payload = [3; 90];
    let len = (payload.len() as u32).to_le_bytes();
    [&MAGIC[..], &Command::Version.field(), &len, &Checksum::default().finish(&payload), &payload].concat()
}
