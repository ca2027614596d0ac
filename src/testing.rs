//! What tests of the node share: a real hub over wires held in memory, stages that record their jobs or run inline, and a chain that grows.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use rockpool_net::close::CloseReason;
use rockpool_net::events::{Event as Notice, Subscription};
use rockpool_net::hub::io::{Event, Io, Mail, Ready};
use rockpool_net::hub::tickets::Ticket;
use rockpool_net::hub::{FramerKind, Hub, HubConfig, ListenerRow, TurnReport};
use rockpool_net::id::{ConnId, Lane, ShareId};
use rockpool_net::limits::HEADER_BYTES;
use rockpool_net::time::Now;
use rockpool_net::wire::message::{Command, Message};
use rockpool_net::wire::share::{Class, Layout, Script, Share};
use rockpool_store::chain::{Chain, Source};
use rockpool_store::handle::{ChainStoreHandle, StoreHandle};
use rockpool_store::kv::MemKv;
use rockpool_store::organised::ChainChange;
use rockpool_store::params::{Network, Params, params};
use rockpool_store::pplns::Pplns;
use rockpool_store::rules::target::target_bytes;
use rockpool_store::testing::bitcoin_header;
use rockpool_workers::embedded::EmbeddedChain;
use rockpool_workers::emission::EmissionWorker;
use rockpool_workers::fetcher::BlockFetcher;
use rockpool_workers::jobs::{Answer, BitcoinNews, Jobs, OrganiseJob, Output, Stage, Stages, SubmitJob, UpstreamJob, WriteJob};
use rockpool_workers::organise::OrganiseWorker;
use rockpool_workers::outside::call::Order;
use rockpool_workers::reader::Reader;
use rockpool_workers::work::{Roll, Work, meets};
use rockpool_workers::writer::StoreWriter;

use crate::config::Mode;
use crate::http::token::Secret;
use crate::limits::{HTTP_CONNS_MAX, PEERS_RESERVE};
use crate::node::{Node, NodeConfig};
use crate::status::Listen;

pub(crate) const PEER: usize = 0;
pub(crate) const STRATUM: usize = 1;
pub(crate) const HTTP: usize = 2;

/// A P2WPKH address of regtest, and what it pays to.
pub(crate) const ADDRESS: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

/// Unix time at which tests begin: after everything that the embedded chain begins with.
/// What the node signs tokens with.
pub const SECRET: Secret = Secret([7; 32]);
const START: Duration = Duration::from_secs(1_700_000_000);

pub(crate) fn regtest() -> &'static Params {
    params(Network::Regtest)
}

pub(crate) fn at(mono: Duration) -> Now {
    Now { mono, wall: START + mono }
}

/// One side of a connection, held by the test.
#[derive(Default)]
struct Wire {
    input: VecDeque<u8>,
    output: Vec<u8>,
    /// Takes no byte more.
    clogged: bool,
    /// Takes so many all the same, one at a time.
    drips: usize,
    closed: bool,
}

/// Sockets in memory.
#[derive(Default)]
pub(crate) struct Wires {
    now: Duration,
    events: Vec<Event>,
    mail: VecDeque<Mail<Answer>>,
    accepts: [VecDeque<SocketAddr>; 3],
    conns: BTreeMap<ConnId, Wire>,
    accepted: Vec<ConnId>,
    /// Dials begun and not yet answered.
    pub(crate) dials: Vec<(ConnId, SocketAddr)>,
}

const READABLE: Ready = Ready { readable: true, writable: false, closed: false };
const WRITABLE: Ready = Ready { readable: false, writable: true, closed: false };

impl Io for Wires {
    type Answer = Answer;

    fn poll(&mut self, _: Duration, events: &mut Vec<Event>) -> io::Result<Now> {
        events.append(&mut self.events);
        Ok(at(self.now))
    }

    fn mail(&mut self) -> Option<Mail<Answer>> {
        self.mail.pop_front()
    }

    fn accept(&mut self, listener: usize, conn: ConnId) -> io::Result<SocketAddr> {
        let addr = self.accepts[listener].pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        self.conns.insert(conn, Wire::default());
        self.accepted.push(conn);
        Ok(addr)
    }

    fn dial(&mut self, conn: ConnId, addr: SocketAddr) -> io::Result<()> {
        self.conns.insert(conn, Wire::default());
        self.dials.push((conn, addr));
        Ok(())
    }

    fn dialled(&mut self, conn: ConnId) -> io::Result<()> {
        if self.dials.iter().any(|(dialled, _)| *dialled == conn) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }

    fn read(&mut self, conn: ConnId, buf: &mut [u8]) -> io::Result<usize> {
        let input = &mut self.conns.get_mut(&conn).ok_or(io::ErrorKind::NotFound)?.input;
        if input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = input.len().min(buf.len());
        buf.iter_mut().zip(input.drain(..count)).for_each(|(to, from)| *to = from);
        Ok(count)
    }

    fn write(&mut self, conn: ConnId, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let wire = self.conns.get_mut(&conn).ok_or(io::ErrorKind::NotFound)?;
        if wire.clogged && wire.drips > 0 {
            wire.drips -= 1;
            wire.output.push(bufs[0][0]);
            return Ok(1);
        }
        if wire.clogged {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        bufs.iter().for_each(|buf| wire.output.extend_from_slice(buf));
        Ok(bufs.iter().map(|buf| buf.len()).sum())
    }

    fn want_writable(&mut self, _: ConnId, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, conn: ConnId) -> io::Result<()> {
        self.close(conn);
        Ok(())
    }

    fn close(&mut self, conn: ConnId) {
        // What was written stays to be looked at.
        if let Some(wire) = self.conns.get_mut(&conn) {
            (wire.closed, wire.input) = (true, VecDeque::new());
        }
    }
}

/// Keeps what it is given.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) jobs: Jobs,
}

impl Stages for Recorder {
    fn give(&mut self, jobs: &mut Jobs) {
        self.jobs.emission.append(&mut jobs.emission);
        self.jobs.organise.append(&mut jobs.organise);
        self.jobs.fetch.append(&mut jobs.fetch);
        self.jobs.read.append(&mut jobs.read);
        self.jobs.upstream.append(&mut jobs.upstream);
        self.jobs.write.append(&mut jobs.write);
        self.jobs.submit.append(&mut jobs.submit);
        self.jobs.blocknotify |= std::mem::take(&mut jobs.blocknotify);
    }
}

/// All stages, stepped in place.
pub(crate) struct Inline {
    jobs: Jobs,
    emission: EmissionWorker,
    organiser: OrganiseWorker,
    writer: StoreWriter,
    fetcher: BlockFetcher,
    reader: Reader,
    /// Portfolios, if there are any.
    pub(crate) upstream: Option<Box<dyn Stage<Job = UpstreamJob>>>,
    /// Calls that it wants made.
    pub(crate) orders: Vec<Order>,
    /// Blocks that were found.
    pub(crate) found: usize,
    /// The disk hangs: what is written waits.
    pub(crate) hangs: bool,
    waits: Vec<WriteJob>,
    /// They themselves.
    pub(crate) blocks: Vec<SubmitJob>,
    /// Blocks that the node handed in by itself.
    pub(crate) submitted: Vec<SubmitJob>,
}

impl Stages for Inline {
    fn give(&mut self, jobs: &mut Jobs) {
        self.jobs.emission.append(&mut jobs.emission);
        self.jobs.organise.append(&mut jobs.organise);
        self.jobs.fetch.append(&mut jobs.fetch);
        self.jobs.read.append(&mut jobs.read);
        self.jobs.upstream.append(&mut jobs.upstream);
        self.jobs.write.append(&mut jobs.write);
        self.jobs.submit.append(&mut jobs.submit);
        self.jobs.blocknotify |= std::mem::take(&mut jobs.blocknotify);
    }
}

impl Inline {
    /// Whether bitcoind was to be asked for a new block since this was last asked.
    pub(crate) fn notified(&mut self) -> bool {
        std::mem::take(&mut self.jobs.blocknotify)
    }

    /// Whether it was given nothing since it last ran.
    fn rests(&self) -> bool {
        let Jobs { emission, organise, fetch, read, write, submit, upstream, .. } = &self.jobs;
        upstream.is_empty()
            && submit.is_empty()
            && emission.is_empty()
            && organise.is_empty()
            && fetch.is_empty()
            && read.is_empty()
            && write.is_empty()
    }

    /// Runs every stage until none has anything to do now. What they answer.
    fn run(&mut self, now: Now) -> Vec<Mail<Answer>> {
        let (mut mail, mut write) = (Vec::new(), std::mem::take(&mut self.waits));
        self.submitted.append(&mut self.jobs.submit);
        loop {
            let mut out = Output::default();
            self.emission.step(now, &mut self.jobs.emission, &mut out);
            self.jobs.organise.append(&mut out.organise);
            self.organiser.step(now, &mut self.jobs.organise, &mut out);
            self.reader.step(now, &mut self.jobs.read, &mut out);
            // The fetcher answers every message, and speaks when a deadline has passed.
            if !self.jobs.fetch.is_empty() || self.fetcher.due().is_some_and(|due| due <= now.mono) {
                self.fetcher.step(now, &mut self.jobs.fetch, &mut out);
            }
            if let Some(upstream) = &mut self.upstream
                && (!self.jobs.upstream.is_empty() || upstream.due().is_some_and(|due| due <= now.mono))
            {
                upstream.step(now, &mut self.jobs.upstream, &mut out);
                self.orders.append(&mut out.orders);
            }
            write.append(&mut out.write);
            write.append(&mut self.jobs.write);
            if self.hangs {
                self.waits.append(&mut write);
            } else {
                self.writer.step(now, &mut write, &mut out);
            }
            self.found += out.submit.len();
            self.blocks.append(&mut out.submit);
            mail.extend(out.mail.into_iter().map(|(answer, tickets)| Mail { answer, tickets }));
            if self.organiser.due().is_none_or(|due| due > now.mono) && self.jobs.organise.is_empty() {
                return mail;
            }
        }
    }
}

/// A node with its hub and wires.
pub(crate) struct World<S> {
    pub(crate) hub: Hub<Answer>,
    pub(crate) node: Node<S>,
    pub(crate) wires: Wires,
    rng: ChaCha12Rng,
    notices: Subscription,
}

fn config(peers: &[SocketAddr], alone: bool) -> NodeConfig {
    let (peers, bitcoin_peers) = (peers.to_vec(), Vec::new());
    let (listen, secret) = (Listen::default(), SECRET);
    let (params, mode) = (regtest(), Mode::Chain);
    NodeConfig { params, mode, peers, inbound_max: 64, bitcoin_peers, alone, listen, secret, portfolios: false }
}

fn hub() -> Hub<Answer> {
    let row = |lane, framer| ListenerRow {
        lane,
        framer,
        conns_max: if lane == Lane::Http { HTTP_CONNS_MAX } else { 64 + PEERS_RESERVE },
        per_addr_max: 64,
        per_group_max: 64,
        spare_private: true,
        first_frame: Duration::from_secs(600),
    };
    let listeners = vec![row(Lane::Peer, FramerKind::V1), row(Lane::Stratum, FramerKind::LineOrHttp), row(Lane::Http, FramerKind::Http)];
    Hub::new(HubConfig {
        magic: regtest().magic,
        listeners,
        dials_max: 16,
        bitcoin_magic: crate::bitcoin::magic(Network::Regtest),
        bitcoin_dials_max: 8,
    })
}

impl World<Recorder> {
    /// A node of an empty chain whose jobs are recorded.
    pub(crate) fn recorded(peers: &[SocketAddr], alone: bool) -> World<Recorder> {
        let kv = MemKv::new();
        let chain = Chain::open(regtest(), [1, 2], &kv).unwrap();
        let handle = ChainStoreHandle::new(chain.view(), StoreHandle::new(Arc::new(kv)));
        World::new(Node::new(config(peers, alone), handle, Recorder::default(), ChaCha12Rng::seed_from_u64(7)))
    }
}

impl World<Recorder> {
    /// The chain grows by shares that are stored, as far as the view knows, and in nobody's memory.
    pub(crate) fn confirm_without_bytes(&mut self, shares: &[Share]) {
        let ids = self.confirm(shares);
        self.mail(Answer::Stored { ids, claims: Vec::new() }, Vec::new());
    }

    /// Bitcoin's chain grows by so many blocks, as the organiser tells.
    pub(crate) fn bitcoin_blocks(&mut self, count: usize) {
        let mut chain = Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap();
        for _ in 0..count {
            let best = Arc::clone(chain.bitcoin().best().unwrap());
            chain.offer_blocks(&[bitcoin_header(&best, 600)]);
        }
        let (news, _) = chain.take_change().unwrap();
        let view = &self.node.chain.view;
        let change = ChainChange { fork_height: view.tip().height, confirmed_height: view.confirmed_height(), ..news };
        self.organised(change);
    }

    /// The organiser's word of a change.
    pub(crate) fn organised(&mut self, change: ChainChange) {
        let organised = Answer::Organised {
            change: Some(Box::new(change)),
            refused: Vec::new(),
            fates: Vec::new(),
            missing: Vec::new(),
            bulk_done: Vec::new(),
        };
        self.mail(organised, Vec::new());
    }

    /// The chain grows by these shares in one step of the organiser. Their ids.
    pub(crate) fn confirm(&mut self, shares: &[Share]) -> Vec<ShareId> {
        let mut chain = Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap();
        for share in shares {
            chain.offer(at(Duration::from_secs(60)), share, Source::Peer);
        }
        chain.confirm(shares.len());
        let (change, _) = chain.take_change().unwrap();
        let ids = change.bytes.iter().map(|(id, _)| *id).collect();
        self.organised(change);
        ids
    }
}

impl World<Inline> {
    /// A whole node of an empty chain.
    pub(crate) fn whole(peers: &[SocketAddr], seed: u64) -> World<Inline> {
        World::whole_of(regtest(), peers, seed)
    }

    /// The same by other parameters.
    pub(crate) fn whole_of(params: &'static Params, peers: &[SocketAddr], seed: u64) -> World<Inline> {
        World::whole_on(&Arc::new(MemKv::new()), params, peers, seed)
    }

    /// A whole node that finds these rows.
    pub(crate) fn whole_on(kv: &Arc<MemKv>, params: &'static Params, peers: &[SocketAddr], seed: u64) -> World<Inline> {
        World::whole_with(kv, NodeConfig { params, ..config(peers, true) }, seed)
    }

    /// A whole node that finds these rows and dials these Bitcoin nodes.
    pub(crate) fn whole_with_bitcoin(kv: &Arc<MemKv>, nodes: &[SocketAddr]) -> World<Inline> {
        World::whole_with(kv, NodeConfig { bitcoin_peers: nodes.to_vec(), ..config(&[], true) }, 1)
    }

    /// The same without a share chain.
    pub(crate) fn whole_in(mode: Mode, kv: &Arc<MemKv>) -> World<Inline> {
        let mut world = World::whole_with(kv, NodeConfig { mode, ..config(&[], true) }, 1);
        world.node.credited(Pplns::open(&**kv).unwrap().weights().collect());
        world
    }

    fn whole_with(kv: &Arc<MemKv>, config: NodeConfig, seed: u64) -> World<Inline> {
        let params = config.params;
        let kv = Arc::clone(kv);
        let chain = Chain::open(params, [1, 2], &*kv).unwrap();
        let store = StoreHandle::new(kv.clone());
        let handle = ChainStoreHandle::new(chain.view(), store.clone());
        let stages = Inline {
            jobs: Jobs::default(),
            emission: EmissionWorker::new(params),
            organiser: OrganiseWorker::new(params, chain).crediting(Pplns::open(&*kv).unwrap()),
            writer: StoreWriter::new(kv),
            fetcher: BlockFetcher::new(),
            reader: Reader::new(store),
            upstream: None,
            orders: Vec::new(),
            found: 0,
            hangs: false,
            waits: Vec::new(),
            blocks: Vec::new(),
            submitted: Vec::new(),
        };
        World::new(Node::new(config, handle, stages, ChaCha12Rng::seed_from_u64(seed)))
    }

    /// Turns and stages until nothing moves. Time passes only while the organiser holds back what it will tell.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            self.turn();
            let mail = self.node.stages_mut().run(at(self.wires.now));
            if mail.is_empty() && self.idle() && self.node.stages_mut().rests() {
                let (told, known) = (self.node.chain().view.confirmed_tip().id, self.node.stages_mut().organiser.chain());
                if told == known.confirmed_tip().id && known.backlog() == 0 {
                    return;
                }
                self.wires.now += rockpool_workers::limits::PROGRESS_MIN;
            }
            self.wires.mail.extend(mail);
        }
        panic!("it never settles");
    }

    /// Bitcoin's side tells of headers.
    pub(crate) fn headers(&mut self, headers: Vec<[u8; 80]>) {
        self.mail(Answer::Bitcoin(BitcoinNews::Headers(headers)), Vec::new());
        self.settle();
    }

    /// Gives the organiser shares as if a peer had sent them.
    pub(crate) fn offer(&mut self, shares: Vec<Share>) {
        let ticket = Ticket::for_test(Lane::Peer, ConnId { slot: 999, generation: 1 });
        self.node.stages_mut().jobs.organise.push(OrganiseJob::Bulk { sync: ticket.conn(), shares, base: false, ticket });
        self.settle();
    }
}

impl<S: Stages> World<S> {
    fn new(node: Node<S>) -> World<S> {
        let hub = hub();
        let notices = hub.events().subscribe(4096).unwrap();
        World { hub, node, wires: Wires::default(), rng: ChaCha12Rng::seed_from_u64(1), notices }
    }

    /// One turn.
    pub(crate) fn turn(&mut self) -> TurnReport {
        self.hub.turn(at(self.wires.now), &mut self.rng, &mut self.wires, &mut self.node).unwrap()
    }

    /// Somebody dials, and no turn is taken.
    pub(crate) fn knock(&mut self, ip: [u8; 4], listener: usize) {
        self.wires.accepts[listener].push_back(SocketAddr::from((ip, 40_000)));
        self.wires.events.push(Event::Listener(listener));
    }

    /// The connection that was accepted last.
    pub(crate) fn newest(&self) -> ConnId {
        *self.wires.accepted.last().unwrap()
    }

    /// Turns until the hub would wait.
    pub(crate) fn turns(&mut self) {
        for _ in 0..1_000 {
            self.turn();
            if self.idle() {
                return;
            }
        }
        panic!("the hub never rests");
    }

    fn idle(&mut self) -> bool {
        let report = self.hub.turn(at(self.wires.now), &mut self.rng, &mut self.wires, &mut self.node).unwrap();
        report.due > self.wires.now && self.wires.events.is_empty() && self.wires.mail.is_empty()
    }

    pub(crate) fn now(&self) -> Now {
        at(self.wires.now)
    }

    /// Time passes, in steps of a second so that timers come in their order; the hub takes larger ones for sleep.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.wires.now + time;
        while self.wires.now < end {
            self.wires.now = end.min(self.wires.now + Duration::from_secs(1));
            self.turns();
        }
    }

    /// Time passes without a turn.
    pub(crate) fn skip(&mut self, time: Duration) {
        self.wires.now += time;
    }

    pub(crate) fn connect(&mut self, listener: usize) -> ConnId {
        self.connect_from([127, 0, 0, 1], listener)
    }

    pub(crate) fn connect_from(&mut self, ip: [u8; 4], listener: usize) -> ConnId {
        let port = 40_000 + self.wires.accepted.len() as u16;
        self.wires.accepts[listener].push_back(SocketAddr::from((ip, port)));
        self.wires.events.push(Event::Listener(listener));
        self.turns();
        *self.wires.accepted.last().unwrap()
    }

    /// A dial succeeds, of somebody who speaks v1 alone: one for v2 is hung up, and the one that follows at once is it.
    pub(crate) fn pick_up(&mut self) -> ConnId {
        let conn = self.pick_up_v2();
        if self.hub.outlet().wrapping(conn).is_some() {
            return conn;
        }
        let addr = self.hub.outlet().addr(conn);
        self.hang_up(conn);
        let again = self.wires.dials.iter().rposition(|(_, dialled)| Some(*dialled) == addr);
        let Some(again) = again else { panic!("no dial for v1 came at once") };
        self.answer(again)
    }

    /// A dial succeeds, however it is meant.
    pub(crate) fn pick_up_v2(&mut self) -> ConnId {
        self.answer(0)
    }

    /// The dial in this place succeeds.
    fn answer(&mut self, place: usize) -> ConnId {
        let (conn, _) = self.wires.dials.remove(place);
        self.wires.events.push(Event::Conn(conn, WRITABLE));
        self.turns();
        conn
    }

    pub(crate) fn feed(&mut self, conn: ConnId, bytes: &[u8]) {
        if let Some(wire) = self.wires.conns.get_mut(&conn).filter(|wire| !wire.closed) {
            wire.input.extend(bytes);
            self.wires.events.push(Event::Conn(conn, READABLE));
        }
    }

    pub(crate) fn hang_up(&mut self, conn: ConnId) {
        self.hub.outlet().close(conn, CloseReason::Remote);
        self.turns();
    }

    pub(crate) fn clog(&mut self, conn: ConnId, clogged: bool) {
        if let Some(wire) = self.wires.conns.get_mut(&conn) {
            wire.clogged = clogged;
            self.wires.events.push(Event::Conn(conn, WRITABLE));
        }
    }

    /// One byte passes a clogged wire.
    pub(crate) fn drip(&mut self, conn: ConnId) {
        if let Some(wire) = self.wires.conns.get_mut(&conn) {
            wire.drips = 1;
            self.wires.events.push(Event::Conn(conn, WRITABLE));
        }
    }

    pub(crate) fn mail(&mut self, answer: Answer, tickets: Vec<Ticket>) {
        self.wires.mail.push_back(Mail { answer, tickets });
        self.turns();
    }

    pub(crate) fn is_open(&self, conn: ConnId) -> bool {
        self.wires.conns.get(&conn).is_some_and(|wire| !wire.closed)
    }

    /// What was written to a connection since it was last asked.
    pub(crate) fn taken(&mut self, conn: ConnId) -> Vec<u8> {
        self.wires.conns.get_mut(&conn).map(|wire| std::mem::take(&mut wire.output)).unwrap_or_default()
    }

    /// The same as lines of JSON.
    pub(crate) fn lines(&mut self, conn: ConnId) -> Vec<serde_json::Value> {
        let text = String::from_utf8(self.taken(conn)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The same as messages.
    pub(crate) fn messages(&mut self, conn: ConnId) -> Vec<Message> {
        messages(&self.taken(conn))
    }

    pub(crate) fn say(&mut self, conn: ConnId, message: &Message) {
        let payload = message.encode(regtest().magic).unwrap();
        self.feed(conn, payload.bytes());
        self.turns();
    }

    /// Sends a line to the node and lets it work.
    pub(crate) fn line(&mut self, conn: ConnId, line: &str) {
        self.feed(conn, format!("{line}\n").as_bytes());
        self.turns();
    }

    /// What was published since this was last asked.
    pub(crate) fn published(&mut self) -> Vec<Notice> {
        std::iter::from_fn(|| self.notices.take()).map(|notice| notice.event).collect()
    }

    /// A new template of this chain.
    pub(crate) fn template(&mut self, bitcoin: &EmbeddedChain, sequence: u64) {
        self.mail(Answer::Bitcoin(BitcoinNews::Headers(bitcoin.headers(0).0.concat())), Vec::new());
        let mut template = bitcoin.template(self.now().unix());
        template.sequence = sequence;
        // Each is a little different work, as bitcoind's are.
        template.mintime += sequence as u32;
        self.mail(Answer::Template(Arc::new(template)), Vec::new());
    }
}

/// Emission's word of a block of one transaction, which is none.
pub(crate) fn block_found(conn: ConnId, hash: ShareId, height: u32, share: Option<Share>) -> Answer {
    let (script, block) = (Script::P2wpkh([1; 20]), Arc::from([height as u8; 100]));
    Answer::BlockFound { hash, height, conn, share: share.map(Arc::new), script, value: 7, block }
}

/// Bytes as messages.
pub(crate) fn messages(mut bytes: &[u8]) -> Vec<Message> {
    let mut found = Vec::new();
    while bytes.len() >= HEADER_BYTES {
        let command = Command::from_field(bytes[4..16].try_into().unwrap()).unwrap();
        let length = u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
        let (message, rest) = bytes[HEADER_BYTES..].split_at(length);
        found.push(Message::decode(command, message).unwrap());
        bytes = rest;
    }
    assert!(bytes.is_empty(), "half a message");
    found
}

/// Carries bytes between two nodes whose connections are each other's ends, and lets both work, until all is quiet.
pub(crate) fn exchange(a: &mut World<Inline>, on_a: ConnId, b: &mut World<Inline>, on_b: ConnId) {
    for _ in 0..10_000 {
        a.settle();
        b.settle();
        let (from_a, from_b) = (a.taken(on_a), b.taken(on_b));
        if from_a.is_empty() && from_b.is_empty() {
            return;
        }
        a.feed(on_a, &from_b);
        b.feed(on_b, &from_a);
    }
    panic!("they never fall silent");
}

/// A chain that grows by honest work, one share a second: what a peer would send.
pub(crate) struct Grower {
    chain: Chain,
    bitcoin: EmbeddedChain,
    at: Duration,
}

impl Grower {
    pub(crate) fn new() -> Grower {
        Grower {
            chain: Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap(),
            bitcoin: EmbeddedChain::new(regtest(), None),
            at: Duration::ZERO,
        }
    }

    /// The next share. Scripts tell branches apart.
    pub(crate) fn grow(&mut self, script: Script) -> Share {
        let now = at(self.at);
        let view = self.chain.view();
        let template = Arc::new(self.bitcoin.template(now.unix()));
        let next = view.next(regtest(), now);
        let work = Work::new(regtest(), template, &next, view.payouts(), (Class::N12, Layout::Tail), Some(script), 9).unwrap();
        let share = mined(&work, &script, [5; 12], |hash| meets(hash, &target_bytes(work.draft.bits)));
        self.chain.offer(now, &share, Source::Peer);
        self.chain.confirm(1);
        assert_eq!(self.chain.confirmed_tip().id, share.id());
        self.at += Duration::from_secs(1);
        share
    }

    pub(crate) fn grow_many(&mut self, count: usize, script: Script) -> Vec<Share> {
        (0..count).map(|_| self.grow(script)).collect()
    }

    /// Another with the same past.
    pub(crate) fn fork(shares: &[Share]) -> Grower {
        let mut grower = Grower::new();
        for share in shares {
            grower.chain.offer(at(grower.at), share, Source::Peer);
            grower.chain.confirm(1);
            grower.at += Duration::from_secs(1);
        }
        grower
    }
}

/// A share of this work whose id is wanted, by trying nonces.
pub(crate) fn mined(work: &Work, script: &Script, extranonce: [u8; 12], wanted: impl Fn(&[u8; 32]) -> bool) -> Share {
    let (version, ntime) = (work.template.version, work.template.curtime);
    let mut tries = (0..=u32::MAX).map(|nonce| work.share(regtest(), script, work.draft.bits, &Roll { extranonce, version, ntime, nonce }));
    tries.find(|share| wanted(&share.id().0)).unwrap()
}
