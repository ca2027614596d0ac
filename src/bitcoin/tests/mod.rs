//! A whole node and Bitcoin nodes that the test plays, sound and hostile ones.

mod hand;
mod hostile;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rockpool_net::events::Event;
use rockpool_net::id::ConnId;
use rockpool_net::limits::{BTC_HEADERS_MAX, HEADER_BYTES};
use rockpool_net::wire::bitcoin::{Item, MSG_BLOCK, Message, NODE_NETWORK, NODE_WITNESS};
use rockpool_net::wire::message::{NetAddr, PROTOCOL_VERSION, Version};
use rockpool_store::bitcoin::Tree;
use rockpool_store::kv::MemKv;
use rockpool_store::params::Network;
use rockpool_store::testing::bitcoin_header;

use super::magic;
use crate::limits::{BITCOIN_ANNOUNCED_MAX, BITCOIN_ANSWER_MAX, DIAL_FIRST, PING_EVERY};
use crate::testing::{Inline, World, regtest};

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

fn addr(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 8333))
}

/// A node that dials so many Bitcoin nodes, all of which pick up.
fn world(nodes: u8) -> (World<Inline>, Vec<ConnId>) {
    world_on(&Arc::default(), nodes)
}

fn world_on(kv: &Arc<MemKv>, nodes: u8) -> (World<Inline>, Vec<ConnId>) {
    let mut world = World::whole_with_bitcoin(kv, &(0..nodes).map(addr).collect::<Vec<_>>());
    world.turns();
    let conns = (0..nodes).map(|_| world.pick_up()).collect();
    (world, conns)
}

fn version(height: u32) -> Version {
    let nowhere = NetAddr { services: NODE_NETWORK | NODE_WITNESS, addr: addr(9) };
    Version {
        protocol: PROTOCOL_VERSION,
        services: NODE_NETWORK | NODE_WITNESS,
        time: 1_700_000_000,
        receiver: nowhere,
        sender: nowhere,
        nonce: 77,
        user_agent: "/Satoshi:30.0.0/".to_owned(),
        start_height: height,
        relay: true,
    }
}

fn say(world: &mut World<Inline>, conn: ConnId, message: Message) {
    let bytes = message.to_bytes(MAGIC).unwrap();
    world.feed(conn, &bytes);
    world.settle();
}

fn shake_hands(world: &mut World<Inline>, conn: ConnId, height: u32) {
    say(world, conn, Message::Version(Box::new(version(height))));
    say(world, conn, Message::Verack);
}

/// What a Bitcoin node was told: names and payloads.
fn told(world: &mut World<Inline>, conn: ConnId) -> Vec<(String, Vec<u8>)> {
    let (bytes, mut messages) = (world.taken(conn), Vec::new());
    let mut rest = &bytes[..];
    while let Some((header, after)) = rest.split_at_checked(HEADER_BYTES) {
        assert_eq!(header[..4], MAGIC);
        let (payload, after) = after.split_at(u32::from_le_bytes(header[16..20].try_into().unwrap()) as usize);
        let name = String::from_utf8(header[4..16].to_vec()).unwrap();
        messages.push((name.trim_end_matches('\0').to_owned(), payload.to_vec()));
        rest = after;
    }
    messages
}

fn names(world: &mut World<Inline>, conn: ConnId) -> Vec<String> {
    told(world, conn).into_iter().map(|(name, _)| name).collect()
}

/// The first hash of the locators that it was sent.
fn asked(world: &mut World<Inline>, conn: ConnId) -> Vec<[u8; 32]> {
    let asked = told(world, conn).into_iter().filter(|(name, _)| name == "getheaders");
    asked.map(|(_, payload)| payload[5..37].try_into().unwrap()).collect()
}

/// A chain of regtest headers, each so many seconds after the one before.
struct Headers {
    tree: Tree,
}

impl Headers {
    fn new(count: usize) -> Headers {
        let mut headers = Headers { tree: Tree::new(regtest()) };
        headers.grow(count, 600);
        headers
    }

    fn grow(&mut self, count: usize, seconds: u32) -> Vec<[u8; 80]> {
        let one = |_| {
            let header = bitcoin_header(self.tree.best().unwrap(), seconds);
            self.tree.add(&header).unwrap();
            header
        };
        (0..count).map(one).collect()
    }

    /// Those above a height, at most one message full.
    fn above(&self, height: u32) -> Vec<[u8; 80]> {
        (height + 1..).map_while(|height| self.tree.at_height(height)).map(|block| block.header).take(BTC_HEADERS_MAX).collect()
    }

    fn hash(&self, height: u32) -> [u8; 32] {
        self.tree.at_height(height).unwrap().hash
    }
}

fn height(world: &World<Inline>) -> u32 {
    world.node.chain().view.bitcoin().best().unwrap().height
}

#[test]
fn the_magics_are_bitcoins() {
    let theirs = [
        (Network::Main, bitcoin::Network::Bitcoin),
        (Network::Testnet4, bitcoin::Network::Testnet4),
        (Network::Signet, bitcoin::Network::Signet),
        (Network::Regtest, bitcoin::Network::Regtest),
    ];
    for (network, theirs) in theirs {
        assert_eq!(magic(network), theirs.magic().to_bytes(), "{network}");
    }
}

#[test]
fn a_node_is_dialled_and_asked_for_headers() {
    let (mut world, conns) = world(1);
    let hello = told(&mut world, conns[0]);
    assert_eq!(hello.len(), 1);
    assert_eq!(
        (&hello[0].0[..], hello[0].1[4..12].to_vec(), hello[0].1.last()),
        ("version", NODE_WITNESS.to_le_bytes().to_vec(), Some(&0))
    );
    shake_hands(&mut world, conns[0], 7);
    let said = told(&mut world, conns[0]);
    let names: Vec<_> = said.iter().map(|(name, _)| &name[..]).collect();
    assert_eq!(names, ["verack", "sendheaders", "getheaders"]);
    let genesis = Headers::new(0).hash(0);
    assert_eq!(said[2].1, [&PROTOCOL_VERSION.to_le_bytes()[..], &[1], &genesis, &[0; 32]].concat());
    assert!(matches!(&world.published()[..], [Event::BitcoinPeerUp { height: 7, agent, .. }] if agent == "/Satoshi:30.0.0/"));
    let status = world.node.status(world.now()).bitcoin_peers;
    assert_eq!((status.len(), status[0].addr, status[0].height), (1, addr(0), 7));
    // It asks too, and is told that there is nothing; pings are answered, and it is pinged.
    say(&mut world, conns[0], Message::GetHeaders(vec![[7; 32]]));
    say(&mut world, conns[0], Message::Ping(5));
    assert_eq!(told(&mut world, conns[0]), [("headers".to_owned(), vec![0]), ("pong".to_owned(), vec![5, 0, 0, 0, 0, 0, 0, 0])]);
    world.pass(PING_EVERY);
    assert_eq!(self::names(&mut world, conns[0]), ["ping"]);
}

#[test]
fn headers_are_fetched_from_one_node_and_the_others_are_asked_once() {
    let (mut world, conns) = world(3);
    let mut chain = Headers::new(2 * BTC_HEADERS_MAX + 500);
    let (far, near) = (conns[1], [conns[0], conns[2]]);
    world.taken(far);
    shake_hands(&mut world, far, 4_500);
    near.iter().for_each(|&conn| shake_hands(&mut world, conn, 10));
    assert_eq!(asked(&mut world, far), [chain.hash(0)]);
    for from in [0, 2_000] {
        say(&mut world, far, Message::Headers(chain.above(from)));
        assert_eq!(asked(&mut world, far), [chain.hash(from + 2_000)], "more is asked for at once");
    }
    near.iter().for_each(|&conn| assert!(asked(&mut world, conn).is_empty(), "one at a time"));
    assert!(!world.node.stages_mut().notified(), "old blocks are no news");
    say(&mut world, far, Message::Headers(chain.above(4_000)));
    assert_eq!((height(&world), asked(&mut world, far).len()), (4_500, 0));
    near.iter().for_each(|&conn| assert_eq!(asked(&mut world, conn), [chain.hash(4_500)]));
    near.iter().for_each(|&conn| say(&mut world, conn, Message::Headers(Vec::new())));
    assert!(matches!(world.published().last(), Some(Event::BitcoinBlock { height: 4_500, .. })));

    // From now on each new block is news: bitcoind is asked for work on it at once, and once.
    let block = chain.grow(1, 600);
    say(&mut world, near[0], Message::Headers(block.clone()));
    assert!(world.node.stages_mut().notified());
    assert!(matches!(world.published()[..], [Event::BitcoinBlock { height: 4_501, .. }]));
    say(&mut world, far, Message::Headers(block));
    assert!(!world.node.stages_mut().notified() && world.published().is_empty());
    assert_eq!(world.node.status(world.now()).bitcoin_peers[0].height, 4_501);

    // One that tells of blocks by their hashes is asked for headers; of nothing else.
    let block = chain.grow(1, 600);
    say(&mut world, far, Message::Inv(vec![Item { kind: 1, hash: [9; 32] }, Item { kind: MSG_BLOCK, hash: chain.hash(4_501) }]));
    assert!(asked(&mut world, far).is_empty());
    say(&mut world, far, Message::Inv(vec![Item { kind: MSG_BLOCK, hash: chain.hash(4_502) }]));
    assert_eq!(asked(&mut world, far), [chain.hash(4_501)]);
    say(&mut world, far, Message::Headers(block));
    assert_eq!(height(&world), 4_502);
    assert!(conns.iter().all(|&conn| world.is_open(conn)) && world.hub.outlet().tickets_out() == 0);
}

#[test]
fn a_reorg_and_a_branch_of_less_work_are_taken() {
    let (mut world, conns) = world(1);
    let (chain, mut other) = (Headers::new(30), Headers::new(20));
    shake_hands(&mut world, conns[0], 30);
    say(&mut world, conns[0], Message::Headers(chain.above(0)));
    assert_eq!(height(&world), 30);
    other.grow(5, 601);
    say(&mut world, conns[0], Message::Headers(other.above(20)));
    let tree = world.node.chain().view.bitcoin();
    assert!(tree.best().unwrap().hash == chain.hash(30) && tree.get(&other.hash(25)).is_some());
    assert!(world.is_open(conns[0]) && !world.node.stages_mut().notified(), "which leads nowhere yet");
    let more = other.grow(6, 601);
    assert!(more.len() <= BITCOIN_ANNOUNCED_MAX);
    say(&mut world, conns[0], Message::Headers(more));
    assert_eq!(world.node.chain().view.bitcoin().best().unwrap().hash, other.hash(31));
    assert!(world.node.stages_mut().notified());
}

#[test]
fn another_node_is_asked_after_a_stall() {
    let (mut world, conns) = world(2);
    conns.iter().for_each(|&conn| shake_hands(&mut world, conn, 10));
    let chain = Headers::new(10);
    let first = usize::from(asked(&mut world, conns[0]).is_empty());
    let (slow, next) = (conns[first], conns[1 - first]);
    let mut waited = Duration::ZERO;
    while waited < BITCOIN_ANSWER_MAX {
        assert!(world.is_open(slow), "after {waited:?}");
        world.pass(PING_EVERY);
        waited += PING_EVERY;
        // It lives, but does not answer.
        conns.iter().for_each(|&conn| say(&mut world, conn, Message::Pong(1)));
    }
    assert!(!world.is_open(slow) && world.is_open(next));
    assert_eq!(asked(&mut world, next), [chain.hash(0)]);
    say(&mut world, next, Message::Headers(chain.above(0)));
    assert_eq!(height(&world), 10);
    world.pass(DIAL_FIRST);
    assert_eq!(world.wires.dials.len(), 1, "it may be mended");
}
