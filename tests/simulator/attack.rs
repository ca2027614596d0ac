//! Hostile peers: each on a host of its own, each with one way of being a nuisance. They speak over the same pipes as everyone.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng;
use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::limits::HEADER_BYTES;
use rockpool_net::pipes::Net;
use rockpool_net::sha256::sha256d;
use rockpool_net::time::Now;
use rockpool_net::wire::message::{AddrEntry, ChainTip, Command, GetHeaders, Message, NetAddr, PROTOCOL_VERSION, Start, Version};
use rockpool_net::wire::share::Share;
use rockpool_store::chain::{Chain, Source};
use rockpool_store::kv::MemKv;
use rockpool_store::params::Params;
use rockpool_store::payouts::Payouts;
use rockpool_store::record::{Place, Record};
use rockpool_store::rules::child;
use rockpool_store::rules::target::work;
use rockpool_store::testing::{Ancestry, ShareBuilder};
use rockpool_store::view::ChainView;

use crate::client::{Client, Line};
use crate::draw;

/// Bytes that wait to be sent over which an attacker says no more: the line is the narrow place.
const OUTPUT_MAX: usize = 4 << 10;
/// Shares that it remembers to say again.
const HEARD_MAX: usize = 32;
/// Shares of the chain that is worked out, and wrong: three full answers of a sync.
const WRONG_CHAIN: usize = 1_500;
/// Shares in a full answer.
const ANSWER: usize = 500;

/// Addresses in a message.
const ADDRS: usize = 200;

/// Work of the hardest share that it works for.
const DEMAND_MAX: u128 = 1_000;

/// Ways of being a nuisance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Begins a long message and falls silent.
    LyingLength,
    /// Claims a length that nobody asked for.
    TooLong,
    /// Sends its first message a byte a second.
    SlowLoris,
    /// Says `version` and waits.
    HalfHandshake,
    /// Asks for all there is and reads nothing.
    NonReader,
    /// Connects and leaves, as fast as it can.
    Storm,
    Pings,
    /// Announces shares that do not exist.
    Invs,
    /// Messages of unknown commands.
    Unknown,
    /// Bytes that are no messages.
    Junk,
    WrongChecksum,
    /// Shares that are not worked for, or not tied to their work.
    BadShares,
    /// Shares that are worked for and break the rules.
    InvalidShares,
    /// Says what it heard again and again, and a good share of its own many times.
    Replay,
    /// Announces good shares, sends their children, and never hands them out.
    WithheldShares,
    /// Claims a better chain and does not answer.
    WithheldHeaders,
    /// Claims a better chain and answers with what it has, which is less.
    Liar,
    /// Claims a better chain and answers with worked shares without end that break the rules.
    EndlessSync,
    /// Tells of addresses where nobody is, and of the node's own, as if seen in the future; and asks for all that the node knows.
    Addrs,
}

impl Kind {
    pub const ALL: [Kind; 19] = [
        Kind::LyingLength,
        Kind::TooLong,
        Kind::SlowLoris,
        Kind::HalfHandshake,
        Kind::NonReader,
        Kind::Storm,
        Kind::Pings,
        Kind::Invs,
        Kind::Unknown,
        Kind::Junk,
        Kind::WrongChecksum,
        Kind::BadShares,
        Kind::InvalidShares,
        Kind::Replay,
        Kind::WithheldShares,
        Kind::WithheldHeaders,
        Kind::Liar,
        Kind::EndlessSync,
        Kind::Addrs,
    ];

    /// Whether a node ends its connections. The others are borne: their tickets and their turns are all that they get.
    pub fn is_cut(self) -> bool {
        match self {
            Kind::LyingLength | Kind::TooLong | Kind::SlowLoris | Kind::HalfHandshake | Kind::NonReader | Kind::Junk => true,
            Kind::WrongChecksum | Kind::BadShares | Kind::WithheldHeaders | Kind::Liar | Kind::EndlessSync => true,
            Kind::Storm | Kind::Pings | Kind::Invs | Kind::Unknown | Kind::Addrs => false,
            Kind::InvalidShares | Kind::Replay | Kind::WithheldShares => false,
        }
    }

    /// Milliseconds between two of its deeds, about.
    fn every_ms(self) -> u64 {
        match self {
            Kind::SlowLoris | Kind::LyingLength | Kind::HalfHandshake | Kind::WithheldHeaders | Kind::Liar | Kind::EndlessSync => 1_000,
            Kind::TooLong | Kind::Junk | Kind::WrongChecksum | Kind::BadShares => 300,
            Kind::InvalidShares | Kind::WithheldShares | Kind::Addrs => 500,
            Kind::Storm => 40,
            Kind::NonReader | Kind::Pings | Kind::Invs | Kind::Unknown | Kind::Replay => 100,
        }
    }
}

/// A hostile peer.
pub struct Attacker {
    pub kind: Kind,
    pub client: Client,
    params: &'static Params,
    rng: ChaCha12Rng,
    next: Duration,
    /// Its handshake is done.
    up: bool,
    /// Deeds on this connection, and in all.
    deeds: u64,
    pub done: u64,
    /// Messages with shares that it heard.
    heard: VecDeque<Vec<u8>>,
}

impl Attacker {
    pub fn new(kind: Kind, host: usize, server: SocketAddr, params: &'static Params, rng: ChaCha12Rng) -> Attacker {
        let (client, heard) = (Client::new(host, server), VecDeque::new());
        Attacker { kind, client, params, rng, next: Duration::from_secs(2), up: false, deeds: 0, done: 0, heard }
    }

    /// When it does something unasked.
    pub fn due(&self) -> Duration {
        self.next
    }

    /// It goes, for good.
    pub fn leave(&mut self, net: &mut Net) {
        self.client.close(net);
        self.next = Duration::MAX;
    }

    /// Hears and does. It knows all that the node it attacks knows, if that runs.
    pub fn step(&mut self, net: &mut Net, view: Option<&ChainView>) {
        let now = net.now(self.client.host);
        if self.next == Duration::MAX || (!self.client.has_events(net) && now.mono < self.next) {
            return;
        }
        if self.client.receive(net) {
            (self.up, self.deeds) = (false, 0);
            self.client.reads = true;
            if self.kind != Kind::SlowLoris && self.kind != Kind::Storm {
                self.version(now);
            }
        }
        while let Some((command, message)) = self.frame() {
            self.hear(command, &message, view);
        }
        if now.mono >= self.next {
            let every = self.kind.every_ms();
            self.next = now.mono + Duration::from_millis(1 + every / 2 + draw(&mut self.rng, every));
            match self.client.line {
                Line::Closed => self.client.dial(net),
                // Of a dial into the void it takes its time to think.
                Line::Dialling => self.next += Duration::from_secs(2),
                Line::Open if self.client.output.len() < OUTPUT_MAX => self.act(now, view, net),
                Line::Open => {}
            }
        }
        self.client.send(net);
    }

    /// The next whole message that came.
    fn frame(&mut self) -> Option<(Command, Vec<u8>)> {
        let header = self.client.input.get(..HEADER_BYTES)?;
        let length = u32::from_le_bytes(header[16..20].try_into().unwrap()) as usize;
        let command = Command::from_field(header[4..16].try_into().unwrap()).unwrap();
        self.client.input.get(..HEADER_BYTES + length)?;
        Some((command, self.client.input.drain(..HEADER_BYTES + length).collect()))
    }

    fn hear(&mut self, command: Command, message: &[u8], view: Option<&ChainView>) {
        let payload = &message[HEADER_BYTES..];
        match Message::decode(command, payload).unwrap() {
            Message::Version(_) if self.kind != Kind::HalfHandshake => self.say(&Message::Verack),
            Message::Verack => self.up = true,
            Message::Ping(nonce) => self.say(&Message::Pong(nonce)),
            Message::Share(_) => {
                self.heard.truncate(HEARD_MAX - 1);
                self.heard.push_front(message.to_vec());
            }
            Message::GetHeaders(GetHeaders { from: Start::Locator(locator), .. }) => self.answer(&locator, view),
            _ => {}
        }
    }

    fn answer(&mut self, locator: &[ShareId], view: Option<&ChainView>) {
        match self.kind {
            Kind::Liar => {
                // What there is, without its end, or nothing at all.
                let below = view.filter(|_| draw(&mut self.rng, 2) == 0).and_then(|view| Some((view.find_fork(locator)?, view)));
                let shares = below
                    .into_iter()
                    .flat_map(|(fork, view)| (fork + 1..=view.tip().height).map_while(|height| view.bytes(&view.at_height(height)?.id)));
                let (payload, _) = Message::share_headers_from_bytes(self.params.magic, shares);
                self.client.output.extend_from_slice(payload.bytes());
                self.done += 1;
            }
            Kind::EndlessSync => {
                let chain = wrong_chain(self.params);
                let known = locator.iter().find_map(|id| chain.iter().position(|(known, _)| known == id));
                let first = known.map_or(0, |at| (at + 1) % WRONG_CHAIN);
                let shares = chain[first..].iter().take(ANSWER).map(|(_, bytes)| bytes);
                let (payload, _) = Message::share_headers_from_bytes(self.params.magic, shares);
                self.client.output.extend_from_slice(payload.bytes());
                self.done += 1;
            }
            _ => {}
        }
    }

    fn act(&mut self, now: Now, view: Option<&ChainView>, net: &mut Net) {
        let handshake = matches!(self.kind, Kind::SlowLoris | Kind::HalfHandshake | Kind::Storm);
        if !self.up && !handshake {
            return;
        }
        self.deeds += 1;
        self.done += 1;
        match self.kind {
            Kind::LyingLength if self.deeds == 1 => self.header(*b"inv\0\0\0\0\0\0\0\0\0", 30_000, [0; 4]),
            Kind::TooLong => self.header(*b"shareheaders", 500_000, [0; 4]),
            Kind::SlowLoris => self.byte_of_version(now),
            Kind::LyingLength | Kind::HalfHandshake => {}
            Kind::Storm => self.client.close(net),
            Kind::NonReader => self.ask_for_all(view),
            Kind::Pings => (0..200).for_each(|nonce| self.say(&Message::Ping(nonce))),
            Kind::Invs => {
                let ids = (0..100).map(|_| self.id()).collect();
                self.say(&Message::Inv(ids));
            }
            Kind::Unknown => {
                let length = draw(&mut self.rng, 2_000) as usize;
                let body = self.junk(length);
                self.header(*b"whatever\0\0\0\0", length as u32, sha256d(&body)[..4].try_into().unwrap());
                self.client.output.extend_from_slice(&body);
            }
            Kind::Junk => {
                let junk = self.junk(500);
                self.client.output.extend_from_slice(&junk);
            }
            Kind::WrongChecksum => {
                self.header(*b"ping\0\0\0\0\0\0\0\0", 8, [1, 2, 3, 4]);
                self.client.output.extend_from_slice(&[0; 8]);
            }
            Kind::BadShares | Kind::InvalidShares | Kind::Replay | Kind::WithheldShares => self.shares(now, view),
            Kind::WithheldHeaders | Kind::Liar | Kind::EndlessSync => self.claim(),
            Kind::Addrs => self.addrs(now),
        }
    }

    fn shares(&mut self, now: Now, view: Option<&ChainView>) {
        let Some(view) = view else { return };
        let (tip, next) = (view.confirmed_tip(), view.next(self.params, now));
        // Where a wrong clock has made shares hard it finds none, like everyone.
        if work(next.bits) > DEMAND_MAX {
            return;
        }
        let (tip, time) = (tip.id, next.time);
        let builder = ShareBuilder::new(self.params).miner(200).salt(self.rng.next_u32()).time(time);
        match self.kind {
            Kind::BadShares => {
                let mut share = builder.build(view, &tip);
                if draw(&mut self.rng, 2) == 0 {
                    share.salt ^= 1;
                } else {
                    share.header[31] ^= 1;
                }
                self.say(&Message::Share(Box::new(share)));
            }
            Kind::InvalidShares => {
                let share = builder.bad_coinbase().build(view, &tip);
                self.say(&Message::Share(Box::new(share)));
            }
            Kind::Replay => {
                if draw(&mut self.rng, 20) == 0 {
                    let share = Message::Share(Box::new(builder.build(view, &tip)));
                    (0..5).for_each(|_| self.say(&share));
                }
                let again: Vec<u8> = self.heard.iter().flatten().copied().collect();
                self.client.output.extend_from_slice(&again);
            }
            _ => {
                let parent = builder.build(view, &tip);
                let beyond = Beyond { view, first: &parent, params: self.params };
                // The second of two at one time may be too hard where the first was not.
                let bits = beyond.record(&parent.id()).map(|parent| child(self.params, &parent, time).allowed_bits);
                if bits.is_none_or(|bits| work(bits) > DEMAND_MAX) {
                    return;
                }
                let orphan = builder.build(&beyond, &parent.id());
                let inv = Message::Inv(vec![parent.id(), self.id()]);
                self.say(&inv);
                self.say(&Message::Share(Box::new(orphan)));
            }
        }
    }

    /// A chain that is better than all, of which it has nothing.
    fn claim(&mut self) {
        let tip = ChainTip {
            genesis: self.params.genesis_id(),
            tip: self.id(),
            height: 100_000 + self.deeds as u32,
            score: 1 << 100 | u128::from(self.deeds),
            features: 0,
        };
        self.say(&Message::ChainTip(tip));
    }

    fn addrs(&mut self, now: Now) {
        let seen = now.unix().wrapping_add(draw(&mut self.rng, 1 << 20) as u32);
        let mut addrs = vec![AddrEntry::new(self.client.server, 0, seen)];
        addrs.extend((1..ADDRS).map(|_| {
            let ip = Ipv4Addr::from_bits(0x0a00_0000 | draw(&mut self.rng, 1 << 24) as u32);
            AddrEntry::new(SocketAddr::from((ip, 1 + draw(&mut self.rng, 60_000) as u16)), 0, seen)
        }));
        self.say(&Message::AddrV2(addrs));
        self.say(&Message::GetAddr);
    }

    fn ask_for_all(&mut self, view: Option<&ChainView>) {
        self.client.reads = false;
        self.say(&Message::GetHeaders(GetHeaders { from: Start::Locator(vec![self.params.genesis_id()]), stop: ShareId::default() }));
        let Some(view) = view else { return };
        let ids: Vec<_> = (1..=view.tip().height).rev().filter_map(|height| view.at_height(height)).map(|record| record.id).collect();
        self.say(&Message::GetData(ids.into_iter().take(128).collect()));
    }

    fn byte_of_version(&mut self, now: Now) {
        let before = self.client.output.len();
        self.version(now);
        let version = self.client.output.split_off(before);
        self.client.output.extend(version.get(self.deeds as usize - 1));
    }

    fn version(&mut self, now: Now) {
        let nowhere = NetAddr { services: 0, addr: SocketAddr::from(([0, 0, 0, 0], 0)) };
        let version = Version {
            protocol: PROTOCOL_VERSION,
            services: 0,
            time: now.wall.as_secs(),
            receiver: nowhere,
            sender: nowhere,
            nonce: self.rng.next_u64(),
            user_agent: "/hostile:1/".to_owned(),
            start_height: 0,
            relay: true,
        };
        self.say(&Message::Version(version));
    }

    fn say(&mut self, message: &Message) {
        self.client.output.extend_from_slice(message.encode(self.params.magic).unwrap().bytes());
    }

    fn header(&mut self, command: [u8; 12], length: u32, checksum: [u8; 4]) {
        let header = [&self.params.magic[..], &command, &length.to_le_bytes(), &checksum].concat();
        self.client.output.extend_from_slice(&header);
    }

    fn id(&mut self) -> ShareId {
        ShareId(self.junk(32).try_into().unwrap())
    }

    fn junk(&mut self, length: usize) -> Vec<u8> {
        let mut junk = vec![0; length];
        self.rng.fill_bytes(&mut junk);
        junk
    }
}

/// A view and one share on its confirmed tip that nobody else has.
struct Beyond<'a> {
    view: &'a ChainView,
    first: &'a Share,
    params: &'static Params,
}

impl Ancestry for Beyond<'_> {
    fn record(&self, id: &ShareId) -> Option<Arc<Record>> {
        let place = || Place {
            allowed_bits: self.first.bits,
            best_bitcoin: None,
            script: Arc::new(self.first.script),
            bitcoin: Arc::clone(&self.view.confirmed_tip().bitcoin),
            uncles: Vec::new(),
        };
        if *id == self.first.id() { Some(Arc::new(place().record(self.first, *id))) } else { self.view.get(id).cloned() }
    }

    /// Wrong, which nobody can tell before it has the parent.
    fn payouts_at(&self, _id: &ShareId) -> Option<Arc<Payouts>> {
        Some(Arc::new(Payouts::new(&self.params.genesis_record(), &rockpool_store::rules::window::Window::new(0))))
    }
}

/// A chain from genesis on, each share of it worked for, whose coinbases pay the wrong people.
fn wrong_chain(params: &'static Params) -> &'static [(ShareId, Vec<u8>)] {
    static CHAIN: OnceLock<Vec<(ShareId, Vec<u8>)>> = OnceLock::new();
    struct Wrong(Chain);
    impl Ancestry for Wrong {
        fn record(&self, id: &ShareId) -> Option<Arc<Record>> {
            self.0.get(id).cloned()
        }

        fn payouts_at(&self, _id: &ShareId) -> Option<Arc<Payouts>> {
            Some(Arc::clone(self.0.payouts()))
        }
    }
    CHAIN.get_or_init(|| {
        let mut chain = Wrong(Chain::open(params, [1, 2], &MemKv::new()).unwrap());
        let now = Now { mono: Duration::ZERO, wall: rockpool_net::pipes::WALL_START };
        let mut tip = params.genesis_id();
        let mut shares = Vec::new();
        while shares.len() < WRONG_CHAIN {
            let share = ShareBuilder::new(params).miner(201).build(&chain, &tip);
            tip = share.id();
            shares.push((tip, share.encode()));
            chain.0.offer(now, &share, Source::Bulk(ConnId { slot: 0, generation: 1 }));
        }
        shares
    })
}
