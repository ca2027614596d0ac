//! Whether a node keeps an honest peer among those that it has chosen itself, whatever attackers tell it: 2,000 addresses of 8 netgroups
//! against 200 honest nodes, through 1,000 restarts. The address book, the choice of whom to dial and the rows are the node's own; the
//! network around them is drawn from a seed.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use rockpool::limits::{OUTBOUND_TARGET, PEERS_PER_GROUP};
use rockpool::peer::find::book::{Book, below};
use rockpool::peer::find::gossip::{Gossip, Talk};
use rockpool::peer::find::kept::Kept;
use rockpool::peer::find::outbound::{Aim, Around, Outbound};
use rockpool_net::id::ConnId;
use rockpool_net::limits::ADDRS_MAX;
use rockpool_net::time::Now;
use rockpool_net::wire::message::AddrEntry;
use rockpool_store::kv::{Kv, MemKv};
use rockpool_store::peers::PeerRows;

/// Honest nodes, and the netgroups that they are spread over.
const HONEST: usize = 200;
const HONEST_GROUPS: usize = 150;
/// Attackers, and their netgroups.
const ATTACKERS: usize = 2_000;
const ATTACKER_GROUPS: usize = 8;
/// Nodes that are attacked, and how often each is restarted.
const VICTIMS: u64 = 10;
const RESTARTS: usize = 100;
/// Honest nodes that are down at a time, of a hundred.
const DOWN: usize = 30;
/// Time between two restarts, and when it is first looked who a node has found.
const LIFE: Duration = Duration::from_secs(3_600);
const FOUND: Duration = Duration::from_secs(60);

/// An attacked node and what is around it.
struct World {
    rng: ChaCha12Rng,
    kv: MemKv,
    honest: Vec<SocketAddr>,
    attackers: Vec<SocketAddr>,
    /// Honest nodes that answer.
    up: BTreeSet<SocketAddr>,
    now: Duration,
    conns: u32,
}

/// The node while it runs.
struct Node {
    book: Book,
    outbound: Outbound,
    gossip: Gossip,
    kept: Kept,
    /// Those whom it has dialled.
    peers: Vec<(ConnId, SocketAddr)>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut groups = BTreeSet::new();
        while groups.len() < HONEST_GROUPS + ATTACKER_GROUPS {
            groups.insert([20 + below(&mut rng, 70) as u8, below(&mut rng, 256) as u8]);
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        // Whose netgroups are whose is drawn too.
        let theirs: Vec<_> = (0..ATTACKER_GROUPS).map(|_| groups.swap_remove(below(&mut rng, groups.len()))).collect();
        let mut of = |groups: &[[u8; 2]], number: usize| {
            let [a, b] = groups[number % groups.len()];
            SocketAddr::from(([a, b, below(&mut rng, 256) as u8, (number / groups.len()) as u8], 9_333))
        };
        let honest: Vec<_> = (0..HONEST).map(|number| of(&groups, number)).collect();
        let attackers: Vec<_> = (0..ATTACKERS).map(|number| of(&theirs, number)).collect();
        let up = honest.iter().copied().collect();
        World { rng, kv: MemKv::new(), honest, attackers, up, now: Duration::ZERO, conns: 0 }
    }

    fn moment(&self) -> Now {
        Now { mono: self.now, wall: Duration::from_secs(1_700_000_000) + self.now }
    }

    fn conn(&mut self) -> ConnId {
        self.conns += 1;
        ConnId { slot: self.conns, generation: 1 }
    }

    /// The node from what is on the disk, at a clock that begins anew.
    fn start(&mut self) -> Node {
        let rows = PeerRows::open(&self.kv).unwrap();
        let book = Book::open(&rows, false, &mut self.rng);
        book.sanity_check().unwrap();
        Node { book, outbound: Outbound::new(&rows.anchors), gossip: Gossip::default(), kept: Kept::default(), peers: Vec::new() }
    }

    /// One of these, as somebody tells of it who has seen it just now.
    fn told(&mut self, attackers: bool) -> AddrEntry {
        let of = if attackers { &self.attackers } else { &self.honest };
        AddrEntry::new(of[below(&mut self.rng, of.len())], 0, self.moment().unix())
    }

    /// A peer tells the node of addresses.
    fn tell(&mut self, node: &mut Node, from: IpAddr, asked: bool, addrs: Vec<AddrEntry>) {
        let (now, conn) = (self.moment(), self.conn());
        let mut talk = Talk::new(now.mono);
        if asked {
            talk.ask();
        }
        node.gossip.heard(now, &mut talk, (conn, from), addrs, &mut node.book);
    }

    /// As many attackers dial in as may, each telling of itself and of as many others as is taken from one.
    fn flood(&mut self, node: &mut Node) {
        for number in 0..ATTACKER_GROUPS * PEERS_PER_GROUP {
            let of_group = below(&mut self.rng, ATTACKERS / ATTACKER_GROUPS);
            let addr = self.attackers[number % ATTACKER_GROUPS + ATTACKER_GROUPS * of_group];
            let now = self.moment().unix();
            node.book.add(now, addr, 0, now, addr.ip());
            let addrs = (0..25).map(|_| self.told(true)).collect();
            self.tell(node, addr.ip(), false, addrs);
        }
    }

    /// What a peer answers that was asked: attackers with as many of theirs as a message holds, honest ones with what an attacked book
    /// holds.
    fn answer(&mut self, node: &mut Node, addr: SocketAddr) {
        let honest = self.honest.contains(&addr);
        let addrs: Vec<_> = if honest {
            (0..HONEST / 2).map(|number| self.told(number % 2 == 0)).collect()
        } else {
            (0..ADDRS_MAX).map(|_| self.told(true)).collect()
        };
        self.tell(node, addr.ip(), true, addrs);
    }

    /// Dials until a moment. Attackers answer always.
    fn run(&mut self, node: &mut Node, until: Duration, begun: Duration) {
        loop {
            let mono = self.now - begun;
            let now = Now { mono, ..self.moment() };
            let (none, inbound) = (Vec::new(), BTreeSet::new());
            let around = Around { configured: &none, outbound: &none, inbound: &inbound, is_banned: &|_| false };
            if node.outbound.is_look_due(mono) {
                assert_eq!(node.outbound.look(mono, 0, &|_| Some(0)), None);
                node.kept.soon(node.outbound.anchors(mono));
            }
            if let Some((addr, aim)) = node.outbound.next(now, &mut node.book, &mut self.rng, &around) {
                let conn = self.conn();
                node.outbound.began(addr, aim, conn);
                if self.up.contains(&addr) || !self.honest.contains(&addr) {
                    node.book.add(now.unix(), addr, 0, now.unix(), addr.ip());
                    node.book.good(now.unix(), addr, 0);
                    node.outbound.up(mono, conn);
                    if aim == Aim::Peer {
                        node.peers.push((conn, addr));
                        self.answer(node, addr);
                    } else {
                        node.outbound.closed(mono, conn);
                    }
                } else {
                    node.outbound.closed(mono, conn);
                }
            }
            for job in node.kept.take(mono, &mut node.book) {
                self.kv.write(&job.ops, true).unwrap();
                node.kept.line.credit();
            }
            let next = begun + node.outbound.due().min(node.kept.due(&node.book).unwrap_or(Duration::MAX));
            if next >= until {
                self.now = until;
                return;
            }
            self.now = next.max(self.now);
        }
    }

    /// Some honest nodes go down and others come back; a connection to one that goes is lost.
    fn churn(&mut self, node: &mut Node, begun: Duration) {
        for place in 0..self.honest.len() {
            if below(&mut self.rng, 5) == 0 {
                let addr = self.honest[place];
                if below(&mut self.rng, 100) < DOWN { _ = self.up.remove(&addr) } else { _ = self.up.insert(addr) }
            }
        }
        for (conn, addr) in std::mem::take(&mut node.peers) {
            if self.honest.contains(&addr) && !self.up.contains(&addr) {
                node.outbound.closed(self.now - begun, conn);
                node.book.left(self.moment().unix(), addr);
            } else {
                node.peers.push((conn, addr));
            }
        }
    }

    fn honest_peers(&self, node: &Node) -> usize {
        node.peers.iter().filter(|(_, addr)| self.honest.contains(addr)).count()
    }
}

/// What became of a node's restarts: those after which it had an honest peer, both soon and after an hour, and its honest peers in all.
struct Outcome {
    kept: usize,
    peers: usize,
    honest: usize,
    sizes: (usize, usize),
}

fn attacked(seed: u64) -> Outcome {
    let mut world = World::new(seed);
    // Before anybody attacks it has found one peer, and heard of some by it.
    let mut node = world.start();
    let first = world.honest[0];
    let addrs = (0..HONEST / 4).map(|_| world.told(false)).collect();
    world.tell(&mut node, first.ip(), true, addrs);
    world.run(&mut node, LIFE, Duration::ZERO);
    let mut outcome = Outcome { kept: 0, peers: 0, honest: 0, sizes: (0, 0) };
    for _ in 0..RESTARTS {
        let begun = world.now;
        let mut node = world.start();
        world.run(&mut node, begun + FOUND, begun);
        let soon = world.honest_peers(&node);
        outcome.peers += node.peers.len();
        outcome.honest += soon;
        for quarter in 1..=4 {
            world.flood(&mut node);
            // A few honest nodes dial in too.
            for _ in 0..3 {
                let (entry, now) = (world.told(false), world.moment().unix());
                entry.socket().into_iter().for_each(|addr| _ = node.book.add(now, addr, 0, now, addr.ip()));
            }
            world.churn(&mut node, begun);
            world.run(&mut node, begun + LIFE * quarter / 4, begun);
        }
        outcome.kept += usize::from(soon > 0 && world.honest_peers(&node) > 0);
        outcome.sizes = node.book.sizes();
    }
    outcome
}

#[test]
fn a_flooded_node_keeps_an_honest_peer_through_restarts() {
    let outcomes: Vec<_> = (0..VICTIMS).map(attacked).collect();
    let sum = |of: fn(&Outcome) -> usize| outcomes.iter().map(of).sum::<usize>();
    let (kept, all) = (sum(|outcome| outcome.kept), VICTIMS as usize * RESTARTS);
    println!(
        "{kept} of {all} restarts with an honest peer; {} of {} dialled peers honest; books {:?}",
        sum(|outcome| outcome.honest),
        sum(|outcome| outcome.peers),
        outcomes.iter().map(|outcome| outcome.sizes).collect::<Vec<_>>()
    );
    assert!(sum(|outcome| outcome.peers) > all * OUTBOUND_TARGET * 8 / 10, "the places are filled");
    assert!(kept * 100 >= all * 99, "{kept} of {all}");
}
