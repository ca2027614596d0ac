//! Found blocks are handed over.

use rockpool_net::id::ShareId;
use rockpool_net::limits::{BITCOIN_BLOCK_BYTES_MAX, GETDATA_MAX, OUTBOX_BITCOIN_BYTES, OUTBOX_HARD_BYTES};
use rockpool_net::sha256::sha256d;
use rockpool_net::wire::bitcoin::MSG_WITNESS_BLOCK;
use rockpool_net::wire::share::Script;
use rockpool_store::blocks::{Fate, Finder, FoundBlock};
use rockpool_workers::jobs::Answer;

use super::*;
use crate::limits::{BITCOIN_HANDED_MAX, BITCOIN_SENT_MAX, DIAL_FIRST, STOP_MAX};

/// A block of so many bytes on the genesis block. What is behind its header is nothing.
fn block(number: u8, bytes: usize) -> (ShareId, Arc<[u8]>) {
    let header = bitcoin_header(Headers::new(0).tree.best().unwrap(), 600 + u32::from(number));
    let mut block = vec![number; bytes];
    block[..80].copy_from_slice(&header);
    (ShareId(sha256d(&header)), block.into())
}

/// One of our miners has found it.
fn found(world: &mut World<Inline>, (hash, block): &(ShareId, Arc<[u8]>)) {
    let (conn, script, block) = (ConnId { slot: 900, generation: 1 }, Script::P2wpkh([1; 20]), Arc::clone(block));
    world.mail(Answer::BlockFound { hash: *hash, height: 1, conn, share: None, script, value: 7, block }, Vec::new());
}

fn fates(world: &World<Inline>, hash: ShareId) -> Vec<(String, Fate)> {
    let blocks = world.node.status(world.now()).blocks;
    blocks.into_iter().find(|block| block.hash == hash).unwrap().fates
}

fn ready(nodes: u8) -> (World<Inline>, Vec<ConnId>) {
    let (mut world, conns) = world(nodes);
    for &conn in &conns {
        shake_hands(&mut world, conn, 0);
        say(&mut world, conn, Message::Headers(Vec::new()));
        world.taken(conn);
    }
    (world, conns)
}

#[test]
fn an_own_block_goes_to_all_at_once_and_what_they_say_is_noted() {
    let (mut world, conns) = ready(2);
    let own = block(1, 1_000);
    found(&mut world, &own);
    for &conn in &conns {
        let said = told(&mut world, conn);
        let names: Vec<_> = said.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(names, ["headers", "block", "getheaders"]);
        assert_eq!((&said[0].1[1..81], &said[1].1[..]), (&own.1[..80], &own.1[..]));
        assert_eq!(said[2].1[5..37], Headers::new(0).hash(0), "what follows the block before");
    }
    let name = |number| addr(number).to_string();
    assert_eq!(fates(&world, own.0), [(name(0), Fate::Handed), (name(1), Fate::Handed)]);
    // One has taken it, the other has another.
    say(&mut world, conns[0], Message::Headers(vec![*own.1.first_chunk().unwrap()]));
    say(&mut world, conns[1], Message::Headers(Vec::new()));
    assert_eq!(fates(&world, own.0), [(name(0), Fate::Accepted), (name(1), Fate::Handed)]);

    // Who asks is given it once more, with or without witnesses, and no more often; of what is not there it hears so.
    let item = |kind, hash: ShareId| Item { kind, hash: hash.0 };
    let nothing = item(MSG_BLOCK, ShareId([9; 32]));
    say(&mut world, conns[0], Message::GetData(vec![item(MSG_WITNESS_BLOCK, own.0), nothing, item(1, own.0)]));
    assert_eq!(names(&mut world, conns[0]), ["block", "getheaders", "notfound"]);
    for sent in 1..BITCOIN_SENT_MAX + 2 {
        say(&mut world, conns[1], Message::GetData(vec![item(MSG_BLOCK, own.0)]));
        let block = names(&mut world, conns[1]).contains(&"block".to_owned());
        assert_eq!(block, sent < BITCOIN_SENT_MAX, "{sent}");
    }
    say(&mut world, conns[1], Message::GetData(vec![nothing; GETDATA_MAX]));
    assert_eq!(names(&mut world, conns[1]), ["notfound"]);
}

#[test]
fn a_peers_block_is_given_to_who_asks() {
    let (mut world, conns) = ready(1);
    let theirs = block(2, 1_000);
    let finder = Finder::Peer("1.2.3.4:5".into());
    world.node.blocks.found(FoundBlock::new(theirs.0, 1, 7, finder, Script::P2wpkh([1; 20])), Some(Arc::clone(&theirs.1)));
    world.turns();
    assert_eq!(names(&mut world, conns[0]), ["headers", "getheaders"]);
    say(&mut world, conns[0], Message::Headers(Vec::new()));
    say(&mut world, conns[0], Message::GetData(vec![Item { kind: MSG_BLOCK, hash: theirs.0.0 }]));
    assert_eq!(names(&mut world, conns[0]), ["block", "getheaders"]);
}

#[test]
fn who_hung_up_on_a_block_is_told_its_header_alone_and_given_it_if_it_asks() {
    let (mut world, conns) = ready(1);
    let own = block(4, 1_000);
    found(&mut world, &own);
    assert_eq!(names(&mut world, conns[0]), ["headers", "block", "getheaders"]);
    let mut conn = conns[0];
    for _ in 0..3 {
        world.hang_up(conn);
        while world.wires.dials.is_empty() {
            world.pass(DIAL_FIRST);
        }
        conn = world.pick_up();
        shake_hands(&mut world, conn, 0);
        let heard = names(&mut world, conn);
        assert!(heard.contains(&"headers".to_owned()) && !heard.contains(&"block".to_owned()), "{heard:?}");
        say(&mut world, conn, Message::GetData(vec![Item { kind: MSG_BLOCK, hash: own.0.0 }]));
        assert!(names(&mut world, conn).contains(&"block".to_owned()));
    }
}

#[test]
fn who_comes_later_is_given_what_may_still_be_wanted() {
    let kv = Arc::default();
    let (mut world, conns) = world_on(&kv, 1);
    let own = block(3, 1_000);
    found(&mut world, &own);
    world.settle();
    assert_eq!(names(&mut world, conns[0]), ["version"], "nothing before the handshake");
    shake_hands(&mut world, conns[0], 0);
    assert_eq!(names(&mut world, conns[0]), ["verack", "sendheaders", "headers", "block", "getheaders"]);
    world.settle();
    drop(world);
    kv.crash(0);
    // After a crash it is handed over again; once it was taken it is not.
    let (mut world, conns) = world_on(&kv, 1);
    shake_hands(&mut world, conns[0], 0);
    assert_eq!(names(&mut world, conns[0]), ["version", "verack", "sendheaders", "headers", "block", "getheaders"]);
    say(&mut world, conns[0], Message::Headers(vec![*own.1.first_chunk().unwrap()]));
    world.settle();
    drop(world);
    let (mut world, conns) = world_on(&kv, 1);
    shake_hands(&mut world, conns[0], 1);
    assert!(!names(&mut world, conns[0]).contains(&"block".to_owned()));
}

#[test]
fn two_of_the_largest_blocks_wait_for_a_slow_node_in_one_copy_and_a_third_is_too_many() {
    let (mut world, conns) = ready(2);
    conns.iter().for_each(|&conn| world.clog(conn, true));
    let blocks: Vec<_> = (4..7).map(|number| block(number, BITCOIN_BLOCK_BYTES_MAX)).collect();
    blocks[..2].iter().for_each(|block| found(&mut world, block));
    assert!(conns.iter().all(|&conn| world.is_open(conn)));
    let waits = world.hub.outlet().unsent();
    assert!(waits > 4 * BITCOIN_BLOCK_BYTES_MAX && waits / 2 <= OUTBOX_BITCOIN_BYTES && OUTBOX_BITCOIN_BYTES > OUTBOX_HARD_BYTES);
    let message = world.node.blocks.message(&blocks[0].0, MAGIC).unwrap();
    assert_eq!(Arc::strong_count(&message), 3, "both wait for the same bytes");
    found(&mut world, &blocks[2]);
    assert!(conns.iter().all(|&conn| !world.is_open(conn)));
    assert_eq!(Arc::strong_count(&message), 1);
}

#[test]
fn what_a_node_was_told_is_forgotten_in_time() {
    let (mut world, conns) = ready(1);
    for number in 0..=BITCOIN_HANDED_MAX as u8 {
        found(&mut world, &block(number, 200));
        assert!(names(&mut world, conns[0]).contains(&"block".to_owned()), "{number}");
        say(&mut world, conns[0], Message::Headers(Vec::new()));
    }
    let first = block(0, 200);
    say(&mut world, conns[0], Message::Headers(vec![*first.1.first_chunk().unwrap()]));
    assert!(world.node.blocks.get(&first.0).unwrap().fates.iter().all(|(_, fate)| *fate == Fate::Handed));
}

#[test]
fn a_stop_gives_a_node_time_to_take_what_it_is_sent() {
    type Act = fn(&mut World<Inline>, ConnId, &(ShareId, Arc<[u8]>));
    let stopped = |act: Act| {
        let (mut world, conns) = ready(1);
        let own = block(1, 1_000);
        act(&mut world, conns[0], &own);
        world.settle();
        world.mail(Answer::Stop, Vec::new());
        let at_once = world.node.finished();
        world.pass(STOP_MAX);
        assert!(world.node.finished());
        at_once
    };
    assert!(stopped(|_, _, _| {}), "nothing was found");
    assert!(!stopped(|world, _, own| found(world, own)));
    assert!(stopped(|world, conn, own| {
        found(world, own);
        say(world, conn, Message::Headers(vec![*own.1.first_chunk().unwrap()]));
    }));
    assert!(stopped(|world, conn, own| {
        found(world, own);
        world.hang_up(conn);
    }));
}
