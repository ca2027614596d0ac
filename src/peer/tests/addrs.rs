//! What a node learns of addresses by connections, what it tells of them, and whom it dials from its book.

use std::net::IpAddr;
use std::sync::Arc;

use rockpool_net::wire::message::AddrEntry;
use rockpool_store::kv::MemKv;

use super::*;
use crate::limits::{ADDR_BURST, ANCHOR_AFTER, BOOK_WRITE_EVERY, DIAL_LOOK, FEELER_EVERY, OUTBOUND_TARGET};

const SEED: &str = "20.1.1.1:9333";

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The address of a node of its own netgroup.
fn node(number: u8) -> SocketAddr {
    SocketAddr::from(([21, number, 1, 1], 9_333))
}

fn told(world: &World<impl Stages>, addrs: &[SocketAddr]) -> Message {
    Message::AddrV2(addrs.iter().map(|addr| AddrEntry::new(*addr, 0, world.now().unix())).collect())
}

/// The `version` of a node that listens at this port and sees us there.
fn version_of(nonce: u64, port: u16, us: IpAddr) -> Message {
    let Message::Version(version) = version(nonce) else { panic!("it is one") };
    let at = |ip, port| NetAddr { services: 0, addr: SocketAddr::new(ip, port) };
    Message::Version(Version { sender: at([0, 0, 0, 0].into(), port), receiver: at(us, 1), ..version })
}

/// Somebody who listens at port 9333 dials in.
fn dials_in(world: &mut World<impl Stages>, ip: [u8; 4]) -> ConnId {
    let conn = world.connect_from(ip, PEER);
    world.say(conn, &version_of(u64::from(conn.slot) + 1, 9_333, [127, 0, 0, 1].into()));
    world.say(conn, &Message::Verack);
    world.taken(conn);
    conn
}

/// The oldest dial is answered by a node that sees us at 22.2.2.2. What it heard since its `verack`.
fn answers(world: &mut World<impl Stages>) -> (ConnId, Vec<Message>) {
    let conn = world.pick_up();
    world.taken(conn);
    world.say(conn, &version_of(u64::from(conn.slot) + 1_000, 9_333, [22, 2, 2, 2].into()));
    world.taken(conn);
    world.say(conn, &Message::Verack);
    let heard = world.messages(conn);
    (conn, heard)
}

fn addrs(messages: &[Message]) -> Vec<SocketAddr> {
    let of = |message: &Message| if let Message::AddrV2(addrs) = message { addrs.clone() } else { Vec::new() };
    messages.iter().flat_map(of).filter_map(|entry| entry.socket()).collect()
}

#[test]
fn who_dials_in_is_known_by_the_port_that_it_tells_once_it_has_shaken_hands() {
    let mut world = World::recorded(&[], true);
    let conn = world.connect_from([20, 1, 1, 1], PEER);
    world.say(conn, &version_of(5, 9_333, [127, 0, 0, 1].into()));
    assert_eq!(world.node.peers.book.sizes(), (0, 0));
    world.say(conn, &Message::Verack);
    assert!(world.node.peers.book.row(socket(SEED)).is_some_and(|row| !row.tried));
    let deaf = world.connect_from([20, 2, 1, 1], PEER);
    world.say(deaf, &version_of(6, 0, [127, 0, 0, 1].into()));
    world.say(deaf, &Message::Verack);
    assert_eq!(world.node.peers.book.sizes(), (1, 0), "who listens nowhere is of no use to others");
    // It is here already.
    world.pass(DIAL_LOOK * 3);
    assert!(world.wires.dials.is_empty());
    world.hang_up(conn);
    world.pass(DIAL_LOOK * 3);
    assert_eq!(world.wires.dials[0].1, socket(SEED), "when it has left it is dialled");
}

#[test]
fn who_dialled_us_is_answered_once_and_nobody_else() {
    let mut world = World::recorded(&[], true);
    let (one, two) = (dials_in(&mut world, [20, 1, 1, 1]), dials_in(&mut world, [20, 2, 1, 1]));
    world.say(one, &Message::GetAddr);
    let first = addrs(&world.messages(one));
    assert_eq!(first.len(), 2);
    world.say(one, &Message::GetAddr);
    assert!(world.messages(one).is_empty());
    dials_in(&mut world, [20, 3, 1, 1]);
    world.say(two, &Message::GetAddr);
    assert_eq!(addrs(&world.messages(two)), first, "all hear the same");
    let mut world = World::recorded(&[socket(SEED)], true);
    world.turns();
    let (conn, _) = answers(&mut world);
    world.say(conn, &Message::GetAddr);
    assert!(world.messages(conn).is_empty());
}

#[test]
fn whom_we_dial_is_asked_for_addresses_and_told_ours() {
    let mut world = World::recorded(&[socket(SEED)], true);
    world.node.config.listen.p2p = Some(socket("0.0.0.0:7777"));
    world.turns();
    let (conn, heard) = answers(&mut world);
    assert_eq!(heard.iter().filter(|message| matches!(message, Message::GetAddr)).count(), 1);
    assert_eq!(addrs(&heard), [socket("22.2.2.2:7777")], "as it sees us, at the port where we listen");
    assert!(world.node.peers.book.row(socket(SEED)).is_some_and(|row| row.tried && row.success == world.now().unix()));
    // An hour later not again: `next_announcement` says when.
    for _ in 0..60 {
        world.pass(Duration::from_secs(60));
        world.say(conn, &Message::Pong(0));
    }
    assert!(addrs(&world.messages(conn)).is_empty());
    // Who listens nowhere has nothing to tell.
    let mut world = World::recorded(&[socket(SEED)], true);
    world.turns();
    assert!(addrs(&answers(&mut world).1).is_empty());
}

#[test]
fn news_of_an_address_travels_on_and_a_flood_of_them_does_not() {
    let mut world = World::recorded(&[], true);
    let from = dials_in(&mut world, [20, 1, 1, 1]);
    let others: Vec<ConnId> = (2..8).map(|number| dials_in(&mut world, [20, number, 1, 1])).collect();
    let news = told(&world, &[node(1)]);
    world.say(from, &news);
    let heard: Vec<_> = others.iter().filter(|conn| addrs(&world.messages(**conn)) == [node(1)]).collect();
    assert_eq!((heard.len(), world.messages(from).len()), (2, 0));
    world.say(from, &news);
    assert!(others.iter().all(|conn| world.messages(*conn).is_empty()));
    let many: Vec<_> = (0..=255).map(node).collect();
    let flood = told(&world, &many);
    world.say(from, &flood);
    assert!(others.iter().all(|conn| world.messages(*conn).is_empty()));
    let (heard, ignored) = (world.node.counters().addrs_heard.get(), world.node.counters().addrs_ignored.get());
    assert_eq!((heard, ignored), (ADDR_BURST as u64, 258 - ADDR_BURST as u64));
    assert!(world.is_open(from), "it is no fault");
}

#[test]
fn addresses_are_dialled_until_eight_stand_and_then_only_felt() {
    let mut world = World::recorded(&[], true);
    let from = dials_in(&mut world, [20, 1, 1, 1]);
    let many: Vec<_> = (0..40).map(node).collect();
    let news = told(&world, &many);
    world.say(from, &news);
    let mut conns = vec![from];
    let quiet = |world: &mut World<Recorder>, conns: &[ConnId], time: Duration| {
        world.pass(time);
        conns.iter().for_each(|conn| world.say(*conn, &Message::Pong(0)));
    };
    for _ in 0..60 {
        quiet(&mut world, &conns, Duration::from_secs(1));
        if !world.wires.dials.is_empty() {
            conns.push(answers(&mut world).0);
        }
    }
    let up = world.node.status(world.now()).peers;
    assert!(conns.len() > OUTBOUND_TARGET && up == OUTBOUND_TARGET + 1, "{} dialled, {up} up", conns.len());
    let mut felt = 0;
    // More often than a dial that nobody answers takes to end.
    for _ in 0..FEELER_EVERY.as_secs() * 10 / 5 {
        quiet(&mut world, &conns, Duration::from_secs(5));
        while !world.wires.dials.is_empty() {
            let tried = world.node.peers.book.sizes().1;
            assert!(world.node.peers.outbound.is_feeler(world.wires.dials[0].0));
            let (conn, heard) = answers(&mut world);
            assert!(!world.is_open(conn) && heard.is_empty(), "it shakes hands and leaves");
            assert!(world.node.peers.book.sizes().1 >= tried);
            felt += 1;
        }
    }
    assert_eq!(world.node.status(world.now()).peers, up, "{:?}", world.published());
    assert!((4..=25).contains(&felt) && world.node.counters().feelers.get() >= felt, "{felt}");
    assert!(world.node.counters().book_dials.get() >= OUTBOUND_TARGET as u64);
}

#[test]
fn a_node_that_hears_of_itself_dials_itself_once() {
    let mut world = World::recorded(&[], true);
    let from = dials_in(&mut world, [20, 1, 1, 1]);
    let news = told(&world, &[socket("10.0.0.5:9333")]);
    world.say(from, &news);
    world.pass(Duration::from_secs(2));
    let (out, back) = (world.pick_up(), world.connect(PEER));
    let said = world.taken(out);
    world.feed(back, &said);
    world.turns();
    assert!(!world.is_open(back));
    world.hang_up(out);
    world.say(from, &news);
    assert!(world.node.peers.book.row(socket("10.0.0.5:9333")).is_none());
    (0..10).for_each(|_| {
        world.say(from, &Message::Pong(0));
        world.pass(Duration::from_secs(60));
    });
    assert!(world.wires.dials.is_empty());
}

/// Book and anchors are on the disk while the node runs: nothing depends on an orderly end.
#[test]
fn a_node_that_was_unplugged_finds_its_peers_without_being_told_of_any() {
    let kv = Arc::new(MemKv::new());
    let mut world = World::whole_on(&kv, regtest(), &[socket(SEED)], 1);
    world.settle();
    let (seed, _) = answers(&mut world);
    let more = told(&world, &[node(1), node(2), node(3)]);
    world.say(seed, &more);
    let mut conns = vec![seed];
    let end = (ANCHOR_AFTER + BOOK_WRITE_EVERY).as_secs() + 30;
    for _ in 0..end {
        world.skip(Duration::from_secs(1));
        world.settle();
        if !world.wires.dials.is_empty() {
            conns.push(answers(&mut world).0);
        }
        conns.iter().for_each(|conn| world.say(*conn, &Message::Pong(0)));
    }
    assert_eq!(world.node.peers.book.sizes(), (0, 4));
    drop(world);
    kv.crash(0);
    let mut world = World::whole_on(&kv, regtest(), &[], 2);
    assert_eq!(world.node.peers.book.sizes(), (0, 4));
    let mut dialled = Vec::new();
    for _ in 0..60 {
        world.skip(Duration::from_secs(1));
        world.settle();
        while !world.wires.dials.is_empty() {
            dialled.push(world.wires.dials[0].1);
            answers(&mut world);
        }
    }
    let anchors = &dialled[..2];
    assert!(anchors.iter().all(|addr| *addr != socket(SEED)), "anchors are of the book, the seed was of the configuration: {dialled:?}");
    dialled.sort_unstable();
    assert_eq!(dialled, [socket(SEED), node(1), node(2), node(3)]);
}
