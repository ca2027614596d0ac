//! Found blocks that are pulled from peers by whole nodes.

use std::sync::Arc;

use bitcoin::consensus::serialize;
use rockpool_net::limits::BODY_PART_BYTES;
use rockpool_net::wire::message::{BlockBodyPart, GetBlockBody};
use rockpool_store::blocks::{Fate, Finder};

use super::*;
use crate::limits::{BODIES_SERVED, BODY_ANSWER_MAX, BODY_HEARD_MAX, BODY_PULLS_MAX, BODY_SENT_MAX, BODY_TIME_MAX};
use crate::peer::body::Contents;
use crate::peer::body::tests::{block, template, tx};
use crate::testing::{Inline, STRATUM, exchange};

fn found(conn: ConnId, share: &Share, whole: &[u8]) -> Answer {
    let (hash, height, script, value) = (share.id(), share.bitcoin_height, share.script, share.value);
    Answer::BlockFound { hash, height, conn, share: Some(Arc::new(share.clone())), script, value, block: whole.into() }
}

/// What the node handed in by itself.
fn handed_in(world: &mut World<Inline>) -> Vec<(ShareId, Vec<u8>)> {
    world.node.stages_mut().submitted.drain(..).map(|job| (job.hash, job.block.to_vec())).collect()
}

fn asked(messages: &[Message]) -> Vec<GetBlockBody> {
    let asked = messages.iter().filter_map(|message| if let Message::GetBlockBody(wanted) = message { Some(wanted.clone()) } else { None });
    asked.collect()
}

/// Answers what the node asks this peer as the finder would, until it asks no more.
fn serve(world: &mut World<Inline>, conn: ConnId, whole: &[u8]) -> usize {
    let mut served = 0;
    loop {
        let wanted = asked(&world.messages(conn));
        if wanted.is_empty() {
            return served;
        }
        for wanted in wanted {
            served += 1;
            let part = Contents::of(&wanted.id, whole).unwrap().part(whole, &wanted).unwrap();
            world.say(conn, &Message::BlockBody(part));
        }
        world.settle();
    }
}

fn tell(world: &mut World<Inline>, conn: ConnId, share: &Share) {
    world.say(conn, &Message::BlockFound(Box::new(share.clone())));
    world.settle();
}

#[test]
fn a_block_of_one_node_is_handed_in_by_the_other_too() {
    let mut a = World::whole(&[SocketAddr::from(([127, 0, 0, 1], 9333))], 1);
    let mut b = World::whole(&[], 2);
    a.settle();
    let (on_a, on_b) = (a.pick_up(), b.connect(PEER));
    exchange(&mut a, on_a, &mut b, on_b);
    let txs: Vec<_> = (0..7).map(|n| tx(n, 100_000)).collect();
    b.mail(Answer::Template(Arc::new(template(&txs[..3]))), Vec::new());
    let (share, _, whole) = block(&txs);
    let miner = a.connect(STRATUM);
    a.mail(found(miner, &share, &whole), Vec::new());
    a.mail(Answer::Fate { hash: share.id(), height: 1, node: "dead".into(), fate: Fate::Unreachable("away".into()) }, Vec::new());
    exchange(&mut a, on_a, &mut b, on_b);
    assert!(handed_in(&mut b) == [(share.id(), whole)] && handed_in(&mut a).is_empty());
    let record = |world: &World<Inline>| world.node.status(world.now()).blocks[0].clone();
    let (ours, theirs) = (record(&a), record(&b));
    assert_eq!((ours.told, ours.served, theirs.told, theirs.served), (1, 1, 0, 0));
    assert!(matches!((ours.finder, theirs.finder), (Finder::Miner(_), Finder::Peer(_))) && theirs.is_share && theirs.bytes > 700_000);
    // It is told of once, and pulled once.
    tell(&mut b, on_b, &share);
    assert!(b.taken(on_b).is_empty() && handed_in(&mut b).is_empty());
}

#[test]
fn hostile_servers_are_dropped_and_another_is_asked() {
    let txs: Vec<_> = (0..5).map(|n| tx(n, 50)).collect();
    let (share, _, whole) = block(&txs);
    let part = |bytes: Vec<u8>| BlockBodyPart { id: share.id(), offset: 0, total: bytes.len() as u32, bytes };
    let mut world = World::whole(&[], 1);
    let [liar, cheat, mute, finder] = [(); 4].map(|()| peer(&mut world));
    [liar, cheat, mute, finder].into_iter().for_each(|conn| tell(&mut world, conn, &share));
    assert_eq!(asked(&world.messages(liar)).len(), 1, "one peer each");
    world.say(liar, &Message::BlockBody(part(vec![1; 12])));
    assert!(!world.is_open(liar));
    // The next gives true short ids and then other transactions.
    let wanted = asked(&world.messages(cheat)).remove(0);
    world.say(cheat, &Message::BlockBody(Contents::of(&share.id(), &whole).unwrap().part(&whole, &wanted).unwrap()));
    assert_eq!(asked(&world.messages(cheat))[0].places, [0, 1, 2, 3, 4]);
    world.say(cheat, &Message::BlockBody(part((0..5).map(|n| serialize(&tx(n + 9, 50))).collect::<Vec<_>>().concat())));
    assert!(!world.is_open(cheat) && handed_in(&mut world).is_empty());
    // The third says nothing, and is not to blame; when it comes at last, nobody cares.
    let late = asked(&world.messages(mute)).remove(0);
    world.pass(BODY_ANSWER_MAX);
    assert!(world.is_open(mute));
    assert!(serve(&mut world, finder, &whole) == 2 && handed_in(&mut world) == [(share.id(), whole.clone())]);
    world.say(mute, &Message::BlockBody(Contents::of(&late.id, &whole).unwrap().part(&whole, &late).unwrap()));
    assert!(world.is_open(mute));
    // What nobody asked for costs the connection.
    world.say(finder, &Message::BlockBody(part(Vec::new())));
    assert!(!world.is_open(finder) && handed_in(&mut world).is_empty());
}

#[test]
fn a_peer_that_leaves_in_the_middle_makes_room_for_the_next() {
    let txs: Vec<_> = (0..5).map(|n| tx(n, 300_000)).collect();
    let (share, _, whole) = block(&txs);
    let mut world = World::whole(&[], 1);
    let [first, second, empty] = [(); 3].map(|()| peer(&mut world));
    [first, second, empty].into_iter().for_each(|conn| tell(&mut world, conn, &share));
    for _ in 0..2 {
        let wanted = asked(&world.messages(first)).remove(0);
        world.say(first, &Message::BlockBody(Contents::of(&share.id(), &whole).unwrap().part(&whole, &wanted).unwrap()));
    }
    world.hang_up(first);
    assert_eq!(asked(&world.messages(second)).len(), 1);
    world.say(second, &Message::NotFound(vec![share.id()]));
    assert!(world.is_open(second) && serve(&mut world, empty, &whole) == 5 && handed_in(&mut world) == [(share.id(), whole)]);
}

#[test]
fn blocks_whose_payouts_are_not_known_wait_for_them() {
    let mut world = World::whole(&[], 1);
    let conn = peer(&mut world);
    let first = Grower::new().grow(ALICE);
    // Children of a share that the node does not know.
    let children: Vec<Share> =
        (0..=BODY_HEARD_MAX as u8).map(|n| Grower::fork(std::slice::from_ref(&first)).grow(Script::P2wpkh([n; 20]))).collect();
    children.iter().for_each(|share| tell(&mut world, conn, share));
    // Who says so again and again pushes nothing out.
    (0..BODY_HEARD_MAX).for_each(|_| tell(&mut world, conn, children.last().unwrap()));
    assert!(handed_in(&mut world).is_empty() && world.node.peers.heard.len() == BODY_HEARD_MAX);
    // What the peer said goes with it, but for the news of blocks.
    world.hang_up(conn);
    world.offer(vec![first]);
    // On regtest they are blocks of the coinbase alone, which the node makes itself.
    let handed: Vec<ShareId> = handed_in(&mut world).into_iter().map(|(id, _)| id).collect();
    assert_eq!(handed, children[1..].iter().map(Share::id).collect::<Vec<_>>(), "the oldest was forgotten");
    assert!(world.node.peers.heard.is_empty());
}

#[test]
fn a_block_that_comes_while_others_are_pulled_has_its_turn() {
    let mut world = World::whole(&[], 1);
    let blocks: Vec<_> = (0..=BODY_PULLS_MAX as u32).map(|n| (peer(&mut world), block(&[tx(n, 50), tx(n + 50, 50)]))).collect();
    blocks.iter().for_each(|(conn, (share, ..))| tell(&mut world, *conn, share));
    let (last, (_, _, third)) = &blocks[BODY_PULLS_MAX];
    // Who has left is not waited for.
    let gone = peer(&mut world);
    tell(&mut world, gone, &block(&[tx(90, 50)]).0);
    world.hang_up(gone);
    assert!(asked(&world.messages(*last)).is_empty() && world.node.peers.heard.len() == 2);
    let (first, (_, _, whole)) = &blocks[0];
    assert_eq!(serve(&mut world, *first, whole), 2);
    assert!(serve(&mut world, *last, third) == 2 && handed_in(&mut world).len() == 2 && world.node.peers.heard.is_empty());
}

#[test]
fn a_peer_is_sent_no_more_than_it_can_need_and_only_of_the_newest() {
    let mut world = World::whole(&[], 1);
    let (conn, miner) = (peer(&mut world), world.connect(STRATUM));
    let blocks: Vec<_> = (0..=BODIES_SERVED as u32).map(|n| block(&[tx(n, 300_000), tx(n + 50, 300_000)])).collect();
    for (share, _, whole) in &blocks {
        world.mail(found(miner, share, whole), Vec::new());
    }
    world.taken(conn);
    let ask = |world: &mut World<Inline>, share: &Share| {
        world.say(conn, &Message::GetBlockBody(GetBlockBody { id: share.id(), offset: 0, places: vec![0, 1] }));
        world.messages(conn)
    };
    let served = |messages: &[Message]| matches!(messages, [Message::BlockBody(part)] if part.bytes.len() == BODY_PART_BYTES);
    let refused = |messages: &[Message]| matches!(messages, [Message::NotFound(_)]);
    assert!(refused(&ask(&mut world, &blocks[0].0)), "the oldest is in nobody's memory");
    let newest = &blocks[BODIES_SERVED].0;
    for _ in 0..BODY_SENT_MAX / BODY_PART_BYTES {
        assert!(served(&ask(&mut world, newest)));
    }
    assert!(refused(&ask(&mut world, newest)));
    world.pass(BODY_TIME_MAX);
    world.taken(conn);
    assert!(served(&ask(&mut world, newest)) && world.is_open(conn));
}
