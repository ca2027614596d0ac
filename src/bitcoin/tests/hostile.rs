//! Nodes that lie, stall, or are not what they should be.

use rockpool_net::events::Event;
use rockpool_net::id::ShareId;
use rockpool_net::wire::message::Command;
use rockpool_store::limits::HEADER_AHEAD_MAX_S;
use rockpool_workers::jobs::{Answer, Missing};

use super::*;
use crate::limits::{BITCOIN_REST, BITCOIN_STRIKES_MAX, BITCOIN_STRIKES_SPAN, DIAL_LAST, HANDSHAKE_MAX, SILENCE_MAX};

/// Why the newest connection ended.
fn why(world: &mut World<Inline>) -> String {
    let down = |event| if let Event::BitcoinPeerDown { why, .. } = event { Some(why.to_string()) } else { None };
    world.published().into_iter().filter_map(down).next_back().unwrap_or_default()
}

/// A node that has shaken hands.
fn ready() -> (World<Inline>, ConnId) {
    let (mut world, conns) = world(1);
    shake_hands(&mut world, conns[0], 10);
    (world, conns[0])
}

/// Not dialled again before it has rested.
fn rests(world: &mut World<Inline>) {
    world.pass(2 * DIAL_LAST);
    assert!(world.wires.dials.is_empty());
    world.pass(BITCOIN_REST - 2 * DIAL_LAST);
    assert_eq!(world.wires.dials.len(), 1);
}

#[test]
fn headers_that_connect_to_nothing_are_bounded() {
    let (mut world, conn) = ready();
    let (chain, mut elsewhere) = (Headers::new(3), Headers::new(40));
    for strike in 1..=BITCOIN_STRIKES_MAX + 1 {
        assert!(world.is_open(conn), "{strike}");
        world.taken(conn);
        say(&mut world, conn, Message::Headers(elsewhere.grow(2, 600)));
        let asks = asked(&mut world, conn);
        assert_eq!(asks, vec![chain.hash(0); usize::from(strike <= BITCOIN_STRIKES_MAX)], "once each");
    }
    assert!(why(&mut world).contains("nothing we know"));
    assert_eq!((height(&world), world.hub.outlet().tickets_out()), (0, 0));
    rests(&mut world);

    // A few in a while are no lie.
    let (mut world, conn) = ready();
    for _ in 0..3 {
        (0..BITCOIN_STRIKES_MAX).for_each(|_| say(&mut world, conn, Message::Headers(elsewhere.grow(2, 600))));
        let end = world.now().mono + BITCOIN_STRIKES_SPAN + PING_EVERY;
        while world.now().mono < end {
            world.pass(PING_EVERY);
            say(&mut world, conn, Message::Headers(Vec::new()));
        }
    }
    assert!(world.is_open(conn));
}

#[test]
fn headers_without_end_that_lead_nowhere_are_bounded() {
    let (mut world, conn) = ready();
    // Each message goes on from the one before, but for the first header they are made up.
    let mut from = Headers::new(0).above(0);
    from.resize(BTC_HEADERS_MAX, [7; 80]);
    from[0] = Headers::new(1).above(0)[0];
    for messages in 0.. {
        assert!(messages < 10 && world.is_open(conn) == (messages == 0 || !from.is_empty()));
        let last = rockpool_net::sha256::sha256d(from.last().unwrap());
        say(&mut world, conn, Message::Headers(from.clone()));
        if !world.is_open(conn) {
            break;
        }
        from[0][4..36].copy_from_slice(&last);
    }
    assert_eq!(height(&world), 1);

    // The same true headers over and over.
    let (mut world, conn) = ready();
    let chain = Headers::new(BTC_HEADERS_MAX);
    for message in 0..=BITCOIN_STRIKES_MAX + 1 {
        assert!(world.is_open(conn), "{message}");
        say(&mut world, conn, Message::Headers(chain.above(0)));
    }
    assert!(!world.is_open(conn) && why(&mut world).contains("elsewhere than asked"));
}

#[test]
fn what_is_not_asked_for_in_disorder_or_no_header_ends_the_connection() {
    let chain = Headers::new(20);
    // An answer, and another that nobody asked for.
    let (mut world, conn) = ready();
    say(&mut world, conn, Message::Headers(chain.above(0)));
    say(&mut world, conn, Message::Headers(chain.above(10)));
    assert!(why(&mut world).contains("not asked for"));
    rests(&mut world);

    let (mut world, conn) = ready();
    let mut two = chain.above(18);
    two.swap(0, 1);
    say(&mut world, conn, Message::Headers(chain.above(0)));
    two[0][4..36].copy_from_slice(&chain.hash(20));
    say(&mut world, conn, Message::Headers(two));
    assert!(why(&mut world).contains("disorder"));

    // A header without its work, with the reason, and a long rest.
    let (mut world, conn) = ready();
    let mut worthless = chain.above(19);
    say(&mut world, conn, Message::Headers(chain.above(0)));
    worthless[0][4..36].copy_from_slice(&chain.hash(20));
    worthless[0][72..76].copy_from_slice(&0x1d00_ffff_u32.to_le_bytes());
    say(&mut world, conn, Message::Headers(worthless));
    assert!(!world.node.stages_mut().notified(), "it is no news");
    assert!(why(&mut world).contains("bad Bitcoin header"));
    rests(&mut world);

    // One header more than a message may have.
    let (mut world, conn) = ready();
    let mut long = Message::Headers(vec![[7; 80]; BTC_HEADERS_MAX]).to_bytes(MAGIC).unwrap();
    long[16..20].copy_from_slice(&(3 + 81 * (BTC_HEADERS_MAX as u32 + 1)).to_le_bytes());
    world.feed(conn, &long);
    world.settle();
    assert!(why(&mut world).contains(Command::BtcHeaders.name()));
}

#[test]
fn who_is_no_full_node_of_our_network_or_ourselves_is_refused() {
    let refused = |change: fn(&mut Version)| {
        let (mut world, conns) = world(1);
        let mut hello = version(10);
        change(&mut hello);
        say(&mut world, conns[0], Message::Version(Box::new(hello)));
        !world.is_open(conns[0])
    };
    assert!(!refused(|_| {}));
    assert!(refused(|version| version.services = NODE_WITNESS), "it has no blocks");
    assert!(refused(|version| version.protocol = 70_011), "it is too old");

    let (mut world, conns) = world(2);
    // What it heard of us: somebody who sends it back is us.
    let nonce = told(&mut world, conns[0])[0].1[72..80].try_into().map(u64::from_le_bytes).unwrap();
    say(&mut world, conns[0], Message::Version(Box::new(Version { nonce, ..version(10) })));
    let of_main = Message::Version(Box::new(version(10))).to_bytes(magic(Network::Main)).unwrap();
    world.feed(conns[1], &of_main);
    world.settle();
    assert!(conns.iter().all(|&conn| !world.is_open(conn)));
    world.pass(BITCOIN_REST);
    let again: Vec<_> = world.wires.dials.iter().map(|(_, addr)| *addr).collect();
    assert_eq!(again, [addr(1)], "one's own address is not dialled again, the other may become what it should be");
}

#[test]
fn silence_ends_a_connection() {
    let (mut world, conns) = world(2);
    shake_hands(&mut world, conns[0], 10);
    say(&mut world, conns[0], Message::Headers(Vec::new()));
    world.pass(HANDSHAKE_MAX);
    assert!(world.is_open(conns[0]) && !world.is_open(conns[1]), "a handshake has its time");
    world.pass(SILENCE_MAX - HANDSHAKE_MAX);
    assert!(!world.is_open(conns[0]));
    assert!(why(&mut world).contains("silent"));
}

/// On testnet4 most blocks are two hours ahead, so that every clock that is a little slow meets them.
#[test]
fn what_was_left_out_for_its_time_is_asked_for_again() {
    let (mut world, conn) = ready();
    let mut chain = Headers::new(3);
    say(&mut world, conn, Message::Headers(chain.above(0)));
    let early = world.now().unix() + HEADER_AHEAD_MAX_S + 45 - chain.tree.best().unwrap().time();
    let early = chain.grow(1, early);
    say(&mut world, conn, Message::Headers(early));
    world.taken(conn);
    // What builds on it is no lie, however much it is.
    for later in 0..2 * BITCOIN_STRIKES_MAX {
        let mut best = (**chain.tree.best().unwrap()).clone();
        best.header[68..72].copy_from_slice(&(world.now().unix() + later).to_le_bytes());
        let next = bitcoin_header(&best, 0);
        chain.tree.add(&next).unwrap();
        say(&mut world, conn, Message::Headers(vec![next]));
        assert_eq!((height(&world), asked(&mut world, conn)), (3, vec![chain.hash(3)]));
        say(&mut world, conn, Message::Headers(chain.above(3)));
    }
    // Its time comes, and no other block.
    for asks in 1..=2 {
        assert_eq!((height(&world), world.is_open(conn)), (3, true));
        world.pass(PING_EVERY);
        assert_eq!(asked(&mut world, conn), [chain.hash(3)], "{asks}");
        say(&mut world, conn, Message::Headers(chain.above(3)));
    }
    assert_eq!(height(&world), 4 + 2 * BITCOIN_STRIKES_MAX);
    world.pass(PING_EVERY);
    assert_eq!((asked(&mut world, conn).len(), world.hub.outlet().tickets_out()), (0, 0));
}

/// The organiser's tree does not have what the session thinks it has.
#[test]
fn headers_that_could_not_be_placed_are_asked_for_again_and_not_for_ever() {
    let (mut world, conn) = ready();
    let chain = Headers::new(4);
    say(&mut world, conn, Message::Headers(chain.above(0)));
    for strike in 1..=BITCOIN_STRIKES_MAX + 1 {
        assert!(world.is_open(conn), "{strike}");
        world.taken(conn);
        let missing = vec![Missing { id: ShareId([7; 32]), from: conn, bulk: true }];
        let answer = || Answer::Organised { change: None, refused: vec![], fates: vec![], missing: missing.clone(), bulk_done: vec![] };
        // Of several messages in a row that go on from each other none can be placed: that counts once.
        world.mail(answer(), Vec::new());
        world.mail(answer(), Vec::new());
        let asks = asked(&mut world, conn);
        assert_eq!(asks, vec![chain.hash(4); usize::from(strike <= BITCOIN_STRIKES_MAX)]);
        say(&mut world, conn, Message::Headers(chain.above(3)));
    }
    assert!(why(&mut world).contains("nothing we know"));
}
