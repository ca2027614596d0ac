//! The reactor over real sockets on loopback.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use rockpool_net::close::CloseReason;
use rockpool_net::frame::Frame;
use rockpool_net::hub::io::{Dispatch, Input, Mail, Stage};
use rockpool_net::hub::{FramerKind, Hub, HubConfig, ListenerRow, Outlet};
use rockpool_net::id::{ConnId, Lane};
use rockpool_net::limits::{OUTBOX_HARD_BYTES, SOCKET_SEND_BYTES};
use rockpool_net::reactor::{Reactor, StartError};
use rockpool_net::time::Now;
use rockpool_net::transport::Wrapping;

/// Echoes lines and remembers the rest.
#[derive(Default)]
pub struct Echo {
    pub opened: Vec<(ConnId, Option<usize>)>,
    pub closed: Vec<(ConnId, CloseReason)>,
    answers: Vec<u32>,
}

impl Dispatch for Echo {
    type Answer = u32;

    fn on(&mut self, _: Now, input: Input<u32>, out: &mut Outlet) {
        match input {
            Input::Opened { conn, listener, .. } => self.opened.push((conn, listener)),
            Input::Frame { conn, frame: Frame::Line(line) } => out.send_bytes(conn, [&line[..], b"\n"].concat()),
            Input::Closed { conn, why } => self.closed.push((conn, why)),
            Input::Answer(answer) => self.answers.push(answer),
            _ => {}
        }
    }

    fn turn_ends(&mut self, _: Now, _: &mut Outlet) {}
}

/// A hub with an echo at a free port of loopback.
pub struct House {
    pub reactor: Reactor<u32>,
    pub hub: Hub<u32>,
    rng: ChaCha12Rng,
    pub node: Echo,
}

impl House {
    pub fn new() -> House {
        let first_frame = Duration::from_secs(60);
        let row = ListenerRow {
            lane: Lane::Stratum,
            framer: FramerKind::LineOrHttp,
            conns_max: 300,
            per_addr_max: 1,
            per_group_max: 1,
            spare_private: true,
            first_frame,
        };
        let config = HubConfig { magic: [1; 4], listeners: vec![row], dials_max: 8, bitcoin_magic: [0; 4], bitcoin_dials_max: 0 };
        let reactor = Reactor::new(&["127.0.0.1:0".parse().unwrap()], config.conns_max(), 2).unwrap();
        House { reactor, hub: Hub::new(config), rng: ChaCha12Rng::seed_from_u64(1), node: Echo::default() }
    }

    pub fn addr(&self) -> SocketAddr {
        self.reactor.local_addrs()[0]
    }

    pub fn turn(&mut self) {
        self.reactor.turn(&mut self.hub, &mut self.rng, &mut self.node).unwrap();
    }

    /// Turns until it is so; an event drives each, so that a node that never gets there shows as a test that hangs.
    pub fn until(&mut self, done: impl Fn(&House) -> bool) {
        while !done(self) {
            self.turn();
        }
    }
}

#[test]
fn two_hundred_miners_are_echoed_over_real_sockets() {
    const MINERS: usize = 200;
    const LINES: usize = 50;
    let mut house = House::new();
    let (addr, postbox) = (house.addr(), house.reactor.postbox());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut miners: Vec<_> = (0..MINERS).map(|_| BufReader::new(TcpStream::connect(addr).unwrap())).collect();
            for (i, miner) in miners.iter_mut().enumerate() {
                let said: String = (0..LINES).map(|j| format!("{i} {j}\n")).collect();
                miner.get_mut().write_all(said.as_bytes()).unwrap();
            }
            for (i, miner) in miners.iter_mut().enumerate() {
                miner.get_mut().set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                for j in 0..LINES {
                    let mut line = String::new();
                    miner.read_line(&mut line).unwrap();
                    assert_eq!(line, format!("{i} {j}\n"));
                }
            }
            drop(miners);
            postbox.post(vec![Mail { answer: 7, tickets: vec![] }]).unwrap();
        });
        house.until(|house| house.node.answers == [7] && house.node.closed.len() == MINERS);
    });
    assert_eq!((house.node.opened.len(), house.hub.conns()), (MINERS, 0));
    assert!(house.node.closed.iter().all(|(_, why)| *why == CloseReason::Remote), "{:?}", house.node.closed);
    assert_eq!(house.hub.counters().frames_stratum.get(), (MINERS * LINES) as u64);
    assert_eq!(house.hub.outlet().tickets_out(), 0);
}

#[test]
fn a_post_wakes_and_a_full_mailbox_gives_the_mail_back() {
    let mut house = House::new();
    let postbox = house.reactor.postbox();
    let mail = |answer| vec![Mail { answer, tickets: vec![] }, Mail { answer: answer + 1, tickets: vec![] }];
    postbox.post(mail(1)).unwrap();
    postbox.clone().post(mail(3)).unwrap();
    assert!(postbox.post(vec![]).is_ok(), "nothing to say is nothing said");
    assert_eq!(postbox.post(mail(5)).unwrap_err().len(), 2);
    house.turn();
    assert_eq!(house.node.answers, [1, 2, 3, 4]);
    drop(house);
    assert!(postbox.post(mail(7)).is_err(), "the reactor is gone");
}

#[test]
fn dials_open_or_fail() {
    let mut house = House::new();
    // A port that nobody listens on: taken, and given back.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let addr = house.addr();
    let good = house.hub.outlet().dial(Lane::Stratum, addr, Wrapping::V1).unwrap();
    let bad = house.hub.outlet().dial(Lane::Stratum, closed, Wrapping::V1).unwrap();
    house.until(|house| house.node.opened.len() == 2 && !house.node.closed.is_empty());
    assert!(matches!(&house.node.closed[..], [(conn, CloseReason::Dial(_))] if *conn == bad));
    assert!(house.node.opened.contains(&(good, None)));
    // Both ends are ours: what one says, the other echoes, for ever. One round is enough.
    house.hub.outlet().send_bytes(good, b"hello\n".to_vec());
    house.until(|house| house.hub.counters().frames_stratum.get() >= 4);
    house.hub.outlet().close(good, CloseReason::Done("test"));
    house.until(|house| house.node.closed.len() == 3 && house.hub.conns() == 0);
}

#[test]
fn the_kernel_holds_little_for_who_never_reads() {
    let mut house = House::new();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(32 << 10).unwrap();
    socket.connect(&house.addr().into()).unwrap();
    house.until(|house| !house.node.opened.is_empty());
    let (conn, _) = house.node.opened[0];
    house.hub.outlet().send_bytes(conn, vec![0; OUTBOX_HARD_BYTES]);
    let mut written = u64::MAX;
    while written != house.hub.counters().bytes_out.get() {
        written = house.hub.counters().bytes_out.get();
        // Looks again soon instead of at the idle maximum: what the kernel takes, it takes within the time of loopback.
        let soon = house.hub.outlet().now().mono + Duration::from_millis(100);
        house.hub.outlet().set_wake(Some(soon));
        house.turn();
    }
    // Linux doubles what is asked for, on both sides.
    assert!(written > 0 && written < 3 * SOCKET_SEND_BYTES as u64 + (128 << 10), "{written}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let house = House::new();
    let error = Reactor::<u32>::new(&[house.addr()], 1, 1).unwrap_err();
    assert!(matches!(error, StartError::Listen { addr, .. } if addr == house.addr()));
    assert!(error.to_string().contains(&house.addr().to_string()));
}

#[test]
fn turns_are_measured_and_the_wait_is_none() {
    let mut house = House::new();
    (0..3).for_each(|_| {
        let soon = house.hub.outlet().now().mono + Duration::from_millis(50);
        house.hub.outlet().set_wake(Some(soon));
        house.turn();
    });
    let times = house.hub.times();
    for histogram in Stage::ALL.map(|stage| times.stage(stage)).into_iter().chain([times.turns()]) {
        assert_eq!(histogram.buckets().iter().sum::<u64>(), 3);
    }
    // However busy the machine is: what was waited and what was worked are apart, and together no more than what has passed.
    let (waited, busy) = (times.stage(Stage::Poll).sum(), times.turns().sum());
    let passed = house.reactor.clock().now().mono;
    assert!(waited >= Duration::from_millis(5) && busy + waited <= passed, "{waited:?} waited, {busy:?} busy, {passed:?} in all");
    assert_eq!((house.hub.counters().turns.get(), house.reactor.heartbeat().age()), (3, Duration::ZERO));
}
