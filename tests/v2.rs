//! BIP324 with a real bitcoind: we dial it, it dials us, and one that speaks v1 alone is dialled once more.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests of a real process, which owns a clock")]

#[path = "e2e/daemon.rs"]
#[expect(dead_code, reason = "the whole-process tests ask for more")]
mod daemon;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use daemon::{Bitcoind, PATIENCE, until};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use rockpool::peer::find::wrap::Wrap;
use rockpool_net::close::CloseReason;
use rockpool_net::frame::Frame;
use rockpool_net::hub::io::{Dispatch, Input};
use rockpool_net::hub::{FramerKind, Hub, HubConfig, ListenerRow, Outlet};
use rockpool_net::id::{ConnId, Lane};
use rockpool_net::reactor::Reactor;
use rockpool_net::sha256::sha256d;
use rockpool_net::time::Now;
use rockpool_net::transport::Wrapping;
use rockpool_net::wire::message::Command;

/// Bitcoin's magic on regtest.
const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
/// Before `wtxidrelay` and what else stands between `version` and `verack`: what is tested is the wrapping.
const PROTOCOL: u32 = 70_015;

fn message(command: Command, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_le_bytes();
    [&MAGIC[..], &command.field(), &len, &sha256d(payload)[..4], payload].concat()
}

fn version(nonce: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend(PROTOCOL.to_le_bytes());
    payload.extend([0; 8 + 8 + 26 + 26]);
    payload.extend(nonce.to_le_bytes());
    payload.extend([0; 1 + 4 + 1]);
    message(Command::Version, &payload)
}

/// Says `version` and `verack`, and remembers.
#[derive(Default)]
struct Talk {
    opened: Vec<ConnId>,
    heard: Vec<(ConnId, Command)>,
    closed: Vec<(ConnId, CloseReason)>,
}

impl Dispatch for Talk {
    type Answer = ();

    fn on(&mut self, _: Now, input: Input<()>, out: &mut Outlet) {
        match input {
            Input::Opened { conn, listener, .. } => {
                self.opened.push(conn);
                if listener.is_none() {
                    out.send_bytes(conn, version(1));
                }
            }
            Input::Frame { conn, frame: Frame::Message { command, payload, checksum } } => {
                assert_eq!(checksum.is_none(), out.wrapping(conn) == Some(Wrapping::V2));
                self.heard.push((conn, command));
                match command {
                    Command::Version => {
                        if out.wrapping(conn).is_some() && !self.dialled(conn) {
                            out.send_bytes(conn, version(2));
                        }
                        out.send_bytes(conn, message(Command::Verack, &[]));
                    }
                    Command::Ping => out.send_bytes(conn, message(Command::Pong, &payload)),
                    _ => {}
                }
            }
            Input::Closed { conn, why } => self.closed.push((conn, why)),
            _ => {}
        }
    }

    fn turn_ends(&mut self, _: Now, _: &mut Outlet) {}
}

impl Talk {
    /// A test dials, or it is dialled.
    fn dialled(&self, conn: ConnId) -> bool {
        self.opened.first() == Some(&conn)
    }
}

/// A hub that speaks as a Bitcoin node of regtest, at a free port.
struct House {
    reactor: Reactor<()>,
    hub: Hub<()>,
    rng: ChaCha12Rng,
    talk: Talk,
}

impl House {
    fn new() -> House {
        let row = ListenerRow {
            lane: Lane::Peer,
            framer: FramerKind::V1,
            conns_max: 8,
            per_addr_max: 8,
            per_group_max: 8,
            spare_private: true,
            first_frame: PATIENCE,
        };
        let config = HubConfig { magic: MAGIC, listeners: vec![row], dials_max: 8, bitcoin_magic: MAGIC, bitcoin_dials_max: 8 };
        let reactor = Reactor::new(&["127.0.0.1:0".parse().unwrap()], config.conns_max(), 2).unwrap();
        House { reactor, hub: Hub::new(config), rng: ChaCha12Rng::seed_from_u64(1), talk: Talk::default() }
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut House) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "waited for: {what}; {:?}, {:?}", self.talk.heard, self.talk.closed);
            self.reactor.turn(&mut self.hub, &mut self.rng, &mut self.talk).unwrap();
        }
    }

    fn dial(&mut self, addr: SocketAddr, wrapping: Wrapping) -> ConnId {
        self.hub.outlet().dial(Lane::Peer, addr, wrapping).unwrap()
    }

    /// Until a ping of the other side has come: both have the other's `verack`, and bytes went both ways.
    fn until_pinged(&mut self, conn: ConnId) {
        self.until("a ping", |house| house.talk.heard.contains(&(conn, Command::Ping)));
        assert_eq!(
            self.talk.heard.iter().filter(|(of, _)| *of == conn).map(|(_, c)| *c).take(2).collect::<Vec<_>>(),
            [Command::Version, Command::Verack]
        );
    }
}

/// A bitcoind that listens, with this option for v2, and where.
fn listening(test: &str, v2: &str) -> Option<(Bitcoind, SocketAddr)> {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let bind = format!("-bind=127.0.0.1:{port}");
    let bitcoind = Bitcoind::start_with(test, &["-listen=1", &bind, "-listenonion=0", "-natpmp=0", v2])?;
    Some((bitcoind, SocketAddr::from(([127, 0, 0, 1], port))))
}

/// How bitcoind says that its one peer is wrapped, and which pongs it got.
fn seen_as(bitcoind: &Bitcoind) -> String {
    until("bitcoind's peer", || {
        let peers = bitcoind.call(&["getpeerinfo"]);
        let peer = peers.as_array().filter(|peers| peers.len() == 1)?.first()?.clone();
        let kind = peer["transport_protocol_type"].as_str()?;
        (kind != "detecting").then(|| kind.to_owned())
    })
}

#[test]
fn bitcoind_is_dialled_for_v2() {
    let Some((bitcoind, addr)) = listening("v2 to bitcoind", "-v2transport=1") else { return };
    let mut house = House::new();
    let conn = house.dial(addr, Wrapping::V2);
    house.until_pinged(conn);
    assert_eq!(house.hub.outlet().wrapping(conn), Some(Wrapping::V2));
    assert_eq!(seen_as(&bitcoind), "v2");
    // Over a change of keys and back: each of our pings is answered.
    for n in 0..500u64 {
        house.hub.outlet().send_bytes(conn, message(Command::Ping, &n.to_le_bytes()));
    }
    house.until("500 pongs", |house| house.talk.heard.iter().filter(|(_, command)| *command == Command::Pong).count() == 500);
    assert_eq!(house.talk.closed, []);
    // And the same in v1: it takes both.
    let plain = house.dial(addr, Wrapping::V1);
    house.until("a version", |house| house.talk.heard.contains(&(plain, Command::Version)));
    assert_eq!(house.hub.outlet().wrapping(plain), Some(Wrapping::V1));
}

#[test]
fn bitcoind_dials_for_v2_or_v1() {
    for (v2, want) in [("true", Wrapping::V2), ("false", Wrapping::V1)] {
        let Some((bitcoind, _)) = listening("v2 from bitcoind", "-v2transport=1") else { return };
        let mut house = House::new();
        // The first name is that of who was dialled by us; here nobody is.
        house.talk.opened.push(ConnId { slot: u32::MAX, generation: 1 });
        let own = house.reactor.local_addrs()[0].to_string();
        bitcoind.call(&["addnode", &own, "onetry", v2]);
        house.until("its dial", |house| house.talk.opened.len() == 2);
        let conn = house.talk.opened[1];
        house.until_pinged(conn);
        assert_eq!(house.hub.outlet().wrapping(conn), Some(want));
        assert_eq!(seen_as(&bitcoind), want.to_string());
    }
}

#[test]
fn a_bitcoind_of_v1_alone_is_dialled_once_more_at_once() {
    let Some((bitcoind, addr)) = listening("v1 fallback", "-v2transport=0") else { return };
    let (mut house, mut wrap, now) = (House::new(), Wrap::default(), Duration::from_secs(1));
    let mut dials = Vec::new();
    loop {
        let wrapping = wrap.dial(now);
        dials.push(wrapping);
        let conn = house.dial(addr, wrapping);
        house.talk.opened.clear();
        house.until("an end or a verack", |house| {
            house.talk.closed.iter().any(|(of, _)| *of == conn) || house.talk.heard.contains(&(conn, Command::Verack))
        });
        let Some((_, why)) = house.talk.closed.iter().find(|(of, _)| *of == conn) else {
            wrap.up(now, house.hub.outlet().wrapping(conn).unwrap());
            break;
        };
        assert!(matches!(why, CloseReason::NotV2(_)), "{why}");
        assert!(wrap.closed(why), "{why}");
    }
    assert_eq!(dials, [Wrapping::V2, Wrapping::V1]);
    assert_eq!((seen_as(&bitcoind).as_str(), wrap.dial(now)), ("v1", Wrapping::V1));
}
