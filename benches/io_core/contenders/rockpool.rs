//! The house's reactor and hub, with as much judgement as the load asks for, done as the node's sessions do it: by slot, boxed, the
//! handshake's table, messages decoded and encoded, a timer set anew with each word.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use rockpool::limits::{HANDSHAKE_MAX, PING_EVERY, SILENCE_MAX};
use rockpool::peer::handshake::{self, State, Step};
use rockpool_net::close::CloseReason;
use rockpool_net::frame::Frame;
use rockpool_net::hub::io::{Dispatch, Input, Stage};
use rockpool_net::hub::{FramerKind, Hub, HubConfig, ListenerRow, Outlet};
use rockpool_net::id::{ConnId, Lane};
use rockpool_net::reactor::Reactor;
use rockpool_net::time::Now;
use rockpool_net::times::Histogram;
use rockpool_net::wire::message::{Command, Message, NetAddr, PROTOCOL_VERSION, Version};
use serde_json::{Map, Value, json};

use crate::process::announce;
use crate::wire::MAGIC;

pub fn serve(peers: usize) -> io::Result<()> {
    let row = ListenerRow {
        lane: Lane::Peer,
        framer: FramerKind::V1,
        conns_max: peers,
        per_addr_max: peers,
        per_group_max: peers,
        spare_private: false,
        first_frame: HANDSHAKE_MAX,
    };
    let config = HubConfig { magic: MAGIC, listeners: vec![row], dials_max: 0, bitcoin_magic: [0; 4], bitcoin_dials_max: 0 };
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut reactor = Reactor::<()>::new(&[anywhere], config.conns_max(), 1).map_err(io::Error::other)?;
    let mut hub = Hub::new(config);
    let (counters, times) = (hub.counters(), Arc::clone(hub.times()));
    announce(reactor.local_addrs()[0], move || {
        let mut all: Map<_, _> = counters.rows().into_iter().map(|row| (row.name.to_owned(), row.value.into())).collect();
        all.insert("longest_us".into(), json!(times.slowest().first().map(|turn| turn.times.busy().as_micros() as u64)));
        all.insert("most_us".into(), json!(most_us(times.turns())));
        let sum = |stage: Stage| (format!("{stage:?}"), json!(times.stage(stage).sum().as_micros() as u64));
        all.insert("stages_us".into(), Value::Object(Stage::ALL.into_iter().map(sum).collect()));
        Value::Object(all)
    })?;
    let (mut rng, mut node) = (ChaCha12Rng::from_seed([7; 32]), Node::default());
    loop {
        reactor.turn(&mut hub, &mut rng, &mut node)?;
    }
}

/// Microseconds that 999 of 1,000 keep below, as well as the histogram knows.
fn most_us(turns: &Histogram) -> Option<u64> {
    let buckets = turns.buckets();
    let most = buckets.iter().sum::<u64>() * 999 / 1_000;
    let mut seen = 0;
    let reached = buckets.iter().position(|count| {
        seen += count;
        seen >= most
    });
    reached.and_then(Histogram::bound_us)
}

struct Peer {
    conn: ConnId,
    state: State,
    heard: Duration,
    ping_at: Duration,
}

/// Answers the handshake and pings, pings itself, and passes shares on.
#[derive(Default)]
struct Node {
    slots: Vec<Option<Box<Peer>>>,
}

impl Dispatch for Node {
    type Answer = ();

    fn on(&mut self, now: Now, input: Input<()>, out: &mut Outlet) {
        match input {
            Input::Opened { conn, .. } => self.open(conn, now.mono, out),
            Input::Frame { conn, frame: Frame::Message { command, payload, checksum } } => {
                let Some(peer) = self.slots.get_mut(conn.slot as usize).and_then(Option::as_mut).filter(|peer| peer.conn == conn) else {
                    return;
                };
                peer.heard = now.mono;
                match peer.step(command, &payload, checksum, out) {
                    Err(why) => out.close(conn, why),
                    Ok(()) if command == Command::Share => self.pass_on(conn, &payload, out),
                    Ok(()) => peer.set_timer(out),
                }
            }
            Input::Timer { conn } => {
                if let Some(Some(peer)) = self.slots.get_mut(conn.slot as usize) {
                    peer.on_timer(now.mono, out);
                }
            }
            Input::Closed { conn, .. } => {
                if let Some(slot) = self.slots.get_mut(conn.slot as usize) {
                    *slot = None;
                }
            }
            Input::Frame { .. } | Input::Room { .. } | Input::Wake | Input::Answer(()) => {}
        }
    }

    fn turn_ends(&mut self, _: Now, _: &mut Outlet) {}
}

impl Node {
    fn open(&mut self, conn: ConnId, now: Duration, out: &mut Outlet) {
        let slot = conn.slot as usize;
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
        }
        // As in a node that has been up for a while: the pings do not come at one moment.
        let first = PING_EVERY.mul_f64(f64::from(conn.slot * 7_919 % 1_000) / 1_000.0);
        let peer = Peer { conn, state: State::VersionWanted, heard: now, ping_at: now + first };
        peer.set_timer(out);
        self.slots[slot] = Some(Box::new(peer));
    }

    /// Encoded once.
    fn pass_on(&self, from: ConnId, share: &[u8], out: &mut Outlet) {
        let payload = Message::share_from_bytes(MAGIC, share);
        for peer in self.slots.iter().flatten().filter(|peer| peer.conn != from && peer.state == State::Ready) {
            out.send(peer.conn, Arc::clone(&payload));
        }
    }
}

impl Peer {
    fn step(&mut self, command: Command, payload: &[u8], checksum: Option<[u8; 4]>, out: &mut Outlet) -> Result<(), CloseReason> {
        let (state, step) = handshake::step(self.state, command).map_err(|why| CloseReason::Misbehaviour(why.into()))?;
        self.state = state;
        // The bench's shares are of the right size only.
        if command == Command::Share {
            return Ok(());
        }
        let message = Message::decode(command, payload).map_err(|error| CloseReason::Misbehaviour(error.to_string()))?;
        match step {
            Step::Answer => {
                self.say(&version(), out);
                self.say(&Message::Verack, out);
            }
            Step::Up => out.set_handshaken(self.conn),
            Step::Dispatch => {
                if let Message::Ping(nonce) = message {
                    out.send_copy(self.conn, &Message::pong(MAGIC, nonce, checksum));
                }
            }
        }
        Ok(())
    }

    fn on_timer(&mut self, now: Duration, out: &mut Outlet) {
        if now >= self.heard + SILENCE_MAX {
            return out.close(self.conn, CloseReason::Timeout("silent peer"));
        }
        if now >= self.ping_at {
            self.ping_at = now + PING_EVERY;
            self.say(&Message::Ping(now.as_nanos() as u64), out);
        }
        self.set_timer(out);
    }

    fn set_timer(&self, out: &mut Outlet) {
        let due = if self.state == State::Ready { self.ping_at.min(self.heard + SILENCE_MAX) } else { self.heard + HANDSHAKE_MAX };
        out.set_timer(self.conn, Some(due));
    }

    fn say(&self, message: &Message, out: &mut Outlet) {
        if let Ok(bytes) = message.to_bytes(MAGIC) {
            out.send_bytes(self.conn, bytes);
        }
    }
}

fn version() -> Message {
    let nobody = NetAddr { services: 0, addr: SocketAddr::from(([0, 0, 0, 0], 0)) };
    Message::Version(Version {
        protocol: PROTOCOL_VERSION,
        services: 0,
        time: 0,
        receiver: nobody,
        sender: nobody,
        nonce: 1,
        user_agent: "/bench/".into(),
        start_height: 0,
        relay: true,
    })
}
