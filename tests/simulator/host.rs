//! One node's machine: the node while it runs, its disk always.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Transaction;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng;
use rockpool::config::Mode;
use rockpool::http::token::Secret;
use rockpool::node::{Node, NodeConfig};
use rockpool::status::Listen;
use rockpool_net::close::CloseReason;
use rockpool_net::hub::io::{Dispatch, Input, Mail};
use rockpool_net::hub::{FramerKind, Hub, HubConfig, ListenerRow, Outlet};
use rockpool_net::id::{ConnId, Lane, ShareId};
use rockpool_net::pipes::Net;
use rockpool_net::time::Now;
use rockpool_store::chain::Chain;
use rockpool_store::handle::{ChainStoreHandle, StoreHandle};
use rockpool_store::kv::{Family, Kv, MemKv};
use rockpool_store::params::Params;
use rockpool_store::record::Record;
use rockpool_store::schema::{self, share_key};
use rockpool_workers::embedded::{EmbeddedChain, filled};
use rockpool_workers::jobs::{Answer, BitcoinNews};

use crate::miner::Miner;
use crate::stages::{Given, Inline, Pace};
use crate::{draw, fork};

pub const P2P: u16 = 9333;
pub const STRATUM: u16 = 3333;

/// A machine.
pub struct Machine {
    pub at: usize,
    pub peers: Vec<SocketAddr>,
    pub disk: Arc<MemKv>,
    pub process: Option<Process>,
    pub pace: Pace,
    /// Transactions that its templates hold.
    pub traffic: Vec<Transaction>,
    /// It gets no turn.
    pub asleep: bool,
    /// Shares that a miner here heard `true` for and that have been on the best chain ever since.
    pub acknowledged: Vec<(u32, ShareId)>,
    /// When it was started last.
    pub started: Duration,
    rng: ChaCha12Rng,
}

/// A running node.
pub struct Process {
    pub hub: Hub<Answer>,
    pub node: Node<Given>,
    pub stages: Inline,
    pub config: HubConfig,
    rng: ChaCha12Rng,
    /// When its next turn is, at the latest.
    pub due: Duration,
    /// The newest template that it was told of.
    template: [u8; 32],
    /// Headers of its Bitcoin chain that it was told of.
    headers: u64,
    /// Who is at the other side.
    conns: BTreeMap<ConnId, SocketAddr>,
    /// The tip and the payouts' share that the invariants were checked at last.
    pub checked: [ShareId; 2],
    /// Turns that had something to do, and those that the hub asked for to find nothing but a timer.
    pub turns: [u64; 2],
    /// Connections that ended since they were looked at.
    pub ended: Vec<(SocketAddr, CloseReason)>,
}

/// Hands everything on to the node and remembers whose connections end, and why.
struct Witness<'a> {
    node: &'a mut Node<Given>,
    conns: &'a mut BTreeMap<ConnId, SocketAddr>,
    ended: &'a mut Vec<(SocketAddr, CloseReason)>,
}

impl Dispatch for Witness<'_> {
    type Answer = Answer;

    fn on(&mut self, now: Now, input: Input<Answer>, out: &mut Outlet) {
        match &input {
            Input::Opened { conn, addr, .. } => drop(self.conns.insert(*conn, *addr)),
            Input::Closed { conn, why } => self.ended.extend(self.conns.remove(conn).map(|addr| (addr, why.clone()))),
            _ => {}
        }
        self.node.on(now, input, out);
    }

    fn turn_ends(&mut self, now: Now, out: &mut Outlet) {
        self.node.turn_ends(now, out);
    }
}

impl Process {
    /// The other sides of its connections, miners among them.
    pub fn peer_addrs(&self) -> impl Iterator<Item = SocketAddr> {
        self.conns.values().copied()
    }
}

impl Machine {
    /// A machine with an empty disk, not started.
    pub fn new(at: usize, peers: &[usize], pace: Pace, rng: &mut ChaCha12Rng) -> Machine {
        let peers = peers.iter().map(|peer| Net::addr(*peer, P2P)).collect();
        let (disk, rng) = (Arc::new(MemKv::new()), fork(rng));
        Machine {
            at,
            peers,
            disk,
            process: None,
            pace,
            traffic: Vec::new(),
            asleep: false,
            acknowledged: Vec::new(),
            started: Duration::ZERO,
            rng,
        }
    }

    /// Starts the node from what is on the disk.
    pub fn start(&mut self, net: &mut Net, params: &'static Params) {
        let row = |lane, framer, conns_max, per_addr_max, spare_private| ListenerRow {
            lane,
            framer,
            conns_max,
            per_addr_max,
            per_group_max: conns_max,
            spare_private,
            first_frame: Duration::from_secs(10),
        };
        // As the assembly makes them, with fewer slots.
        let listeners = vec![row(Lane::Peer, FramerKind::V1, 24, 3, false), row(Lane::Stratum, FramerKind::LineOrHttp, 16, 8, true)];
        net.listen(self.at, 0, P2P);
        net.listen(self.at, 1, STRATUM);
        let kv: Arc<dyn Kv> = self.disk.clone();
        let rng = &mut self.rng;
        schema::open(&*kv, params, "the simulator").unwrap();
        let chain = Chain::open(params, [rng.next_u64(), rng.next_u64()], &*kv).unwrap();
        assert_eq!(chain.sanity_check(), Ok(()));
        let handle = ChainStoreHandle::new(chain.view(), StoreHandle::new(kv.clone()));
        let listen = Listen { p2p: Some(Net::addr(self.at, P2P)), ..Listen::default() };
        let peers = self.peers.clone();
        let (inbound_max, bitcoin_peers, secret) = (24, Vec::new(), Secret([7; 32]));
        let (mode, alone, portfolios) = (Mode::Chain, true, false);
        let node_config = NodeConfig { params, mode, peers, inbound_max, bitcoin_peers, alone, listen, secret, portfolios };
        let stages = Inline::new(params, chain, &kv, self.pace, fork(rng));
        let node = Node::new(node_config, handle, Given::default(), fork(rng));
        let config = HubConfig { magic: params.magic, listeners, dials_max: 16, bitcoin_magic: [0; 4], bitcoin_dials_max: 0 };
        let hub = Hub::new(config.clone());
        let (due, rng) = (Duration::ZERO, fork(rng));
        let (conns, ended) = (BTreeMap::new(), Vec::new());
        self.started = net.now(self.at).mono;
        self.process = Some(Process {
            hub,
            node,
            stages,
            config,
            rng,
            due,
            template: [0; 32],
            headers: 0,
            conns,
            checked: [ShareId::default(); 2],
            turns: [0; 2],
            ended,
        });
    }

    /// The process dies and the power fails: of what was not synced a drawn part is left. Returns how many batches were lost.
    pub fn crash(&mut self, net: &mut Net) -> u64 {
        net.crash(self.at);
        self.process = None;
        let unsynced = self.disk.unsynced();
        let keep = draw(&mut self.rng, unsynced as u64 + 1) as usize;
        self.disk.crash(keep);
        (unsynced - keep) as u64
    }

    /// When it has something to do.
    pub fn due(&self) -> Option<Duration> {
        let process = self.process.as_ref().filter(|_| !self.asleep)?;
        Some(process.due.min(process.stages.due().unwrap_or(Duration::MAX)))
    }

    /// What it has to do now. Whether it had a turn.
    pub fn step(&mut self, net: &mut Net, bitcoin: &EmbeddedChain) -> bool {
        let now = net.now(self.at);
        let Some(process) = self.process.as_mut().filter(|_| !self.asleep) else { return false };
        process.stages.step(now, bitcoin);
        let tip = bitcoin.tip().hash;
        if process.template != tip {
            process.template = tip;
            let (messages, seen) = bitcoin.headers(process.headers);
            process.headers = seen;
            let messages = messages.into_iter().map(|headers| Answer::Bitcoin(BitcoinNews::Headers(headers)));
            process.stages.mailbox.extend(messages.map(|answer| Mail { answer, tickets: Vec::new() }));
            let template = Answer::Template(Arc::new(filled(bitcoin.template(now.unix()), &self.traffic)));
            process.stages.mailbox.push_back(Mail { answer: template, tickets: Vec::new() });
        }
        let called = !process.stages.mailbox.is_empty() || net.has_events(self.at);
        if !called && process.due > now.mono {
            return false;
        }
        let mut io = net.io(self.at, &mut process.stages.mailbox);
        let mut witness = Witness { node: &mut process.node, conns: &mut process.conns, ended: &mut process.ended };
        let report = process.hub.turn(now, &mut process.rng, &mut io, &mut witness).unwrap();
        process.due = report.due;
        let worked = called || report.bytes_in + report.bytes_out + report.frames > 0;
        process.turns[usize::from(!worked)] += 1;
        process.stages.take(now.mono, process.node.stages_mut());
        true
    }

    /// Whether a share's row is on the disk.
    pub fn stores(&self, height: u32, id: &ShareId) -> bool {
        self.disk.get(Family::Shares, &share_key(height, id)).unwrap().is_some()
    }

    /// Takes note of what its miner heard `true` for. Such a share is on the disk, unless its branch has lost since.
    pub fn acknowledge(&mut self, miner: &mut Miner) {
        for id in miner.newly_acknowledged.drain(..) {
            let Some(process) = &self.process else { continue };
            // What is no longer on the best chain may be deleted.
            let Some(record) = process.node.chain().view.get(&id) else { continue };
            assert!(self.stores(record.height, &id), "share {id} was acknowledged by node {} and is not stored", self.at);
            self.acknowledged.push((record.height, id));
        }
    }

    /// The confirmed tip as its running node sees it.
    pub fn tip(&self) -> Option<&Arc<Record>> {
        self.process.as_ref().map(|process| process.node.chain().view.confirmed_tip())
    }
}

/// The host behind an address.
pub fn host_of(addr: SocketAddr) -> usize {
    let IpAddr::V4(ip) = addr.ip() else { panic!("{addr} is of no host") };
    (ip.to_bits() - 0x0a00_0001) as usize
}
