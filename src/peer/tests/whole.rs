//! Whole nodes: what is synced, pushed and served.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rockpool_net::events::Event;
use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::limits::{TEMPLATE_PART_MAX, TICKETS_PER_CONN};
use rockpool_net::wire::message::{Command, GetHeaders, GetTemplate, Message, Start, TemplatePart, TxIds};
use rockpool_net::wire::share::{Class, Layout, Share};
use rockpool_store::chain::Chain;
use rockpool_store::kv::MemKv;
use rockpool_store::rules::target::target_bytes;
use rockpool_store::testing::ShareBuilder;
use rockpool_workers::embedded::EmbeddedChain;
use rockpool_workers::jobs::{Answer, Jobs, Reads};
use rockpool_workers::template::{Template, Tx, branch};
use rockpool_workers::trim::Trim;
use rockpool_workers::work::meets;

use crate::limits::{CHAINTIP_EVERY, PEER_COST_RATE, PUSH_DEPTH, REQUESTS_MAX, SYNC_BARREN_MAX, SYNC_SHARES, TEMPLATE_EVERY};
use crate::peer::tests::{ALICE, BOB, claim, peer, tip_of};
use crate::testing::{Grower, Inline, PEER, World, exchange, mined, regtest};

/// Two nodes, the second dialled by the first, connected.
fn connected(a: &mut World<Inline>, b: &mut World<Inline>) -> (ConnId, ConnId) {
    a.settle();
    let (on_a, on_b) = (a.pick_up(), b.connect(PEER));
    exchange(a, on_a, b, on_b);
    (on_a, on_b)
}

fn pair() -> (World<Inline>, World<Inline>) {
    (World::whole(&[SocketAddr::from(([127, 0, 0, 1], 9333))], 1), World::whole(&[], 2))
}

fn confirmed(world: &World<Inline>) -> (u32, ShareId) {
    let tip = world.node.chain().view.confirmed_tip();
    (tip.height, tip.id)
}

#[test]
fn a_node_syncs_by_locator_in_several_messages() {
    let (mut a, mut b) = pair();
    let mut grower = Grower::new();
    let shares = grower.grow_many(2 * SYNC_SHARES + 30, ALICE);
    a.skip(Duration::from_secs(shares.len() as u64));
    b.skip(Duration::from_secs(shares.len() as u64));
    b.offer(shares.clone());
    assert_eq!(confirmed(&b).0 as usize, shares.len());
    let (on_a, on_b) = connected(&mut a, &mut b);
    exchange(&mut a, on_a, &mut b, on_b);
    assert_eq!(confirmed(&a), confirmed(&b));
    assert_eq!(a.node.counters().syncs.get(), 1);
    assert!(a.is_open(on_a) && b.is_open(on_b));
    assert_eq!((a.hub.outlet().tickets_out(), b.hub.outlet().tickets_out()), (0, 0));
}

#[test]
fn the_better_branch_wins_over_a_stale_island() {
    let (mut a, mut b) = pair();
    let mut grower = Grower::new();
    let past = grower.grow_many(20, ALICE);
    let mut other = Grower::fork(&past);
    let (long, short) = (grower.grow_many(60, ALICE), other.grow_many(40, BOB));
    for world in [&mut a, &mut b] {
        world.skip(Duration::from_secs(100));
        world.offer(past.clone());
    }
    a.offer(short);
    b.offer(long.clone());
    let (on_a, on_b) = connected(&mut a, &mut b);
    exchange(&mut a, on_a, &mut b, on_b);
    assert_eq!(confirmed(&a).1, long.last().unwrap().id());
    assert_eq!(confirmed(&a), confirmed(&b));
}

#[test]
fn a_confirmed_share_is_pushed_once_to_who_has_not_got_it() {
    let mut world = World::whole(&[], 1);
    let (giver, taker) = (peer(&mut world), peer(&mut world));
    let mut grower = Grower::new();
    let share = grower.grow(ALICE);
    world.skip(Duration::from_secs(2));
    world.say(giver, &Message::Share(Box::new(share.clone())));
    world.settle();
    assert_eq!(confirmed(&world).1, share.id());
    let pushed = Message::Share(Box::new(share.clone()));
    assert_eq!(world.messages(taker).iter().filter(|message| **message == pushed).count(), 1);
    assert!(!world.messages(giver).contains(&pushed), "it has it already");
    assert!(world.published().iter().any(|event| matches!(event, Event::ShareAccepted { height: 1, own: false, .. })));
    world.say(taker, &Message::Share(Box::new(share)));
    world.settle();
    assert!(!world.messages(taker).contains(&pushed) && !world.messages(giver).contains(&pushed));
}

#[test]
fn shares_far_below_the_tip_are_not_pushed() {
    let mut world = World::recorded(&[], true);
    let taker = peer(&mut world);
    let shares = Grower::new().grow_many(PUSH_DEPTH as usize + 20, ALICE);
    world.confirm(&shares);
    let pushed: Vec<u32> = world
        .messages(taker)
        .iter()
        .filter_map(|message| if let Message::Share(share) = message { Some(share.height) } else { None })
        .collect();
    let tip = shares.len() as u32;
    assert_eq!(pushed, (tip - PUSH_DEPTH + 1..=tip).collect::<Vec<_>>());
}

#[test]
fn a_new_tip_is_told_at_most_once_a_second() {
    let mut world = World::whole(&[], 1);
    let (giver, other) = (peer(&mut world), peer(&mut world));
    world.skip(Duration::from_secs(60));
    world.turns();
    world.taken(other);
    let mut grower = Grower::new();
    for share in grower.grow_many(5, ALICE) {
        world.say(giver, &Message::Share(Box::new(share)));
        world.settle();
    }
    let told = |messages: &[Message]| -> Vec<u32> {
        messages.iter().filter_map(|message| if let Message::ChainTip(tip) = message { Some(tip.height) } else { None }).collect()
    };
    assert_eq!(told(&world.messages(other)), [1]);
    world.pass(CHAINTIP_EVERY);
    assert_eq!(told(&world.messages(other)), [5], "the last one is not forgotten");
}

#[test]
fn getdata_is_answered_with_shares_and_notfound() {
    let mut world = World::whole(&[], 1);
    let mut grower = Grower::new();
    let shares = grower.grow_many(5, ALICE);
    world.skip(Duration::from_secs(10));
    world.offer(shares.clone());
    let conn = peer(&mut world);
    let absent = ShareId([9; 32]);
    world.say(conn, &Message::GetData(vec![shares[1].id(), absent, shares[4].id()]));
    world.settle();
    let messages = world.messages(conn);
    let share = |index: usize| Message::Share(Box::new(shares[index].clone()));
    for wanted in [share(1), share(4), Message::NotFound(vec![absent])] {
        assert!(messages.contains(&wanted), "{messages:?}");
    }
    world.say(conn, &Message::GetHeaders(GetHeaders { from: Start::Locator(vec![shares[1].id()]), stop: shares[3].id() }));
    world.settle();
    assert!(world.messages(conn).contains(&Message::ShareHeaders(shares[2..4].to_vec())));
}

#[test]
fn a_range_by_height_is_of_the_confirmed_chain_from_there_on() {
    let mut world = World::whole(&[], 1);
    let mut grower = Grower::new();
    world.skip(Duration::from_secs(700));
    let shares = grower.grow_many(12, ALICE);
    world.offer(shares.clone());
    let conn = peer(&mut world);
    let mut range = |height: u32, stop: ShareId| {
        world.messages(conn);
        world.say(conn, &Message::GetHeaders(GetHeaders { from: Start::Height(height), stop }));
        world.settle();
        let answer = world.messages(conn).into_iter().find_map(|message| match message {
            Message::ShareHeaders(shares) => Some(shares),
            _ => None,
        });
        answer.unwrap()
    };
    // The share at height n is number n - 1.
    assert_eq!(range(5, shares[7].id()), shares[4..8]);
    assert_eq!(range(1, ShareId::default()), shares);
    assert_eq!(range(0, ShareId::default()), shares, "genesis is no share that could be sent");
    assert_eq!(range(12, ShareId::default()), shares[11..]);
    assert_eq!(range(13, ShareId::default()), []);
    assert_eq!(range(u32::MAX, ShareId::default()), []);
}

/// A confirmed share of our own miner, of template number `sequence` with these transactions.
fn own_share(world: &mut World<Inline>, sequence: u64, ids: Vec<TxIds>) -> Share {
    let txids: Vec<[u8; 32]> = ids.iter().map(|tx| tx.txid).collect();
    let embedded = EmbeddedChain::new(regtest(), None).template(world.now().unix());
    let whole = Trim { kept: ids.len(), branch: branch(txids), ..embedded.trim(Class::N360).clone() };
    let txs = ids.into_iter().map(|ids| Arc::new(Tx { ids, data: Box::default() })).collect();
    let template = Template { sequence, trims: [0; 4].map(|_| whole.clone()), txs, ..embedded };
    world.mail(Answer::Template(Arc::new(template)), Vec::new());
    let now = world.now();
    let board =
        world.node.server.boards.board(regtest(), &world.node.chain.view, (Class::N12, Layout::Tail), &ALICE, now).unwrap().unwrap();
    let share = mined(&board.work, &ALICE, [1; 12], |hash| meets(hash, &target_bytes(board.work.draft.bits)));
    world.offer(vec![share.clone()]);
    assert_eq!(confirmed(world).1, share.id());
    share
}

#[test]
fn what_the_block_of_an_own_share_would_hold_is_told_once_a_second_and_written_down() {
    let mut world = World::whole(&[], 1);
    world.settle();
    let ids = |count: usize| -> Vec<TxIds> {
        let hash = |number: usize| rockpool_net::sha256::sha256d(&number.to_le_bytes());
        (0..count).map(|number| TxIds { txid: hash(number), wtxid: hash(!number) }).collect()
    };
    let (first, second) = (own_share(&mut world, 1, ids(9)), own_share(&mut world, 2, ids(TEMPLATE_PART_MAX + 1)));
    assert!(world.node.templates.line.take().is_none(), "both lists are with the disk, one after the other");
    let conn = peer(&mut world);
    let mut ask = |id: ShareId, first: usize| {
        world.messages(conn);
        world.say(conn, &Message::GetTemplate(GetTemplate { id, first: first as u32 }));
        world.settle();
        let answer = world.messages(conn).into_iter().find(|message| matches!(message, Message::Template(_) | Message::NotFound(_)));
        world.skip(TEMPLATE_EVERY / 2);
        answer.unwrap()
    };
    let part = |id, first: usize, total: usize, txs: &[TxIds]| {
        Message::Template(TemplatePart { id, first: first as u32, total: total as u32, txs: txs.to_vec() })
    };
    assert_eq!(ask(first.id(), 0), part(first.id(), 0, 9, &ids(9)));
    let txids: Vec<[u8; 32]> = ids(9).iter().map(|tx| tx.txid).collect();
    assert_eq!(first.proof.branch, branch(txids), "the list can be checked against the share");
    assert_eq!(ask(second.id(), 0), Message::NotFound(vec![second.id()]), "a second has not passed");
    let (long, all) = (ids(TEMPLATE_PART_MAX + 1), TEMPLATE_PART_MAX + 1);
    assert_eq!(ask(second.id(), 0), part(second.id(), 0, all, &long[..TEMPLATE_PART_MAX]));
    ask(second.id(), TEMPLATE_PART_MAX);
    assert_eq!(ask(second.id(), TEMPLATE_PART_MAX), part(second.id(), TEMPLATE_PART_MAX, all, &long[TEMPLATE_PART_MAX..]));
    assert_eq!(ask(ShareId([9; 32]), 0), Message::NotFound(vec![ShareId([9; 32])]));
    (0..50).for_each(|_| drop(ask(first.id(), 0)));
    assert!(world.is_open(conn), "who asks often is not served, and not dropped");
    world.say(conn, &Message::Template(TemplatePart { id: first.id(), first: 0, total: 0, txs: Vec::new() }));
    assert!(!world.is_open(conn), "we ask for none");
}

fn found_blocks(messages: &[Message]) -> Vec<ShareId> {
    let found = messages.iter().filter_map(|message| if let Message::BlockFound(share) = message { Some(share.id()) } else { None });
    found.collect()
}

#[test]
fn a_found_block_is_told_once_to_who_has_not_got_it_and_is_a_share_like_any() {
    let mut world = World::whole(&[], 1);
    world.template(&EmbeddedChain::new(regtest(), None), 1);
    world.skip(Duration::from_secs(9));
    let share = Grower::new().grow(ALICE);
    let (finder, one, other) = (peer(&mut world), peer(&mut world), peer(&mut world));
    world.say(other, &Message::Inv(vec![share.id()]));
    world.published();
    let news = Message::BlockFound(Box::new(share.clone()));
    world.say(finder, &news);
    assert_eq!(found_blocks(&world.messages(one)), [share.id()], "before the share is judged any further");
    world.settle();
    assert_eq!(confirmed(&world).1, share.id());
    // They that said it are not told, and it is told but once, as a share neither.
    for again in [one, finder, other] {
        world.say(again, &news);
        world.settle();
    }
    for conn in [finder, one, other] {
        let messages = world.messages(conn);
        assert_eq!(found_blocks(&messages), []);
        assert!(!messages.iter().any(|message| matches!(message, Message::Share(_))), "{messages:?}");
        assert!(world.is_open(conn));
    }
    let events: Vec<Event> = world.published().into_iter().filter(|event| matches!(event, Event::BlockFound { .. })).collect();
    assert_eq!(events, [Event::BlockFound { hash: share.id(), height: share.bitcoin_height, miner: None }]);
}

/// SPEC, VAL-2: whoever tells on what another has changed would be dropped for it.
#[test]
fn a_found_block_of_layout_front_is_told_once_it_is_proved() {
    let mut world = World::whole(&[], 1);
    world.template(&EmbeddedChain::new(regtest(), None), 1);
    let chain = Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap();
    let honest = ShareBuilder::new(regtest()).layout(Layout::Front).build(&chain, &regtest().genesis_id());
    world.skip(Duration::from_secs(9));
    let mut changed = honest.clone();
    changed.proof.extranonce[0] ^= 1;
    let (liar, finder, one) = (peer(&mut world), peer(&mut world), peer(&mut world));
    world.say(liar, &Message::BlockFound(Box::new(changed)));
    world.settle();
    assert_eq!((found_blocks(&world.messages(one)), world.is_open(liar)), (vec![], false));
    world.say(finder, &Message::BlockFound(Box::new(honest.clone())));
    world.settle();
    let told = world.messages(one);
    assert_eq!((found_blocks(&told), told.iter().any(|message| matches!(message, Message::Share(_)))), (vec![honest.id()], false));
    assert!(world.is_open(finder) && confirmed(&world).1 == honest.id());
}

#[test]
fn our_own_block_is_told_before_its_share_is_judged() {
    let mut world = World::recorded(&[], true);
    let (one, other) = (peer(&mut world), peer(&mut world));
    let share = Grower::new().grow(ALICE);
    let found = crate::testing::block_found(one, share.id(), 1, Some(share.clone()));
    world.mail(found, Vec::new());
    for conn in [one, other] {
        assert_eq!(found_blocks(&world.messages(conn)), [share.id()]);
    }
}

/// SHARECHAIN §10: else anybody could have 900,000 old blocks told to all.
#[test]
fn historic_blocks_as_blockfound_cost_under_1_kb_each_and_are_refused() {
    let mut world = World::recorded(&[], true);
    let shares = Grower::new().grow_many(200, ALICE);
    // Blocks of the past: of our chain, and of branches from below what is near our tip, which this node has never seen.
    let mut old: Vec<Share> = (1..=100).map(|height| Grower::fork(&shares[..height]).grow(BOB)).collect();
    old.extend(shares.iter().take(100).cloned());
    world.skip(Duration::from_secs(700));
    world.confirm_without_bytes(&shares);
    // Bitcoin has gone on by two blocks since.
    world.bitcoin_blocks(2);
    let (sender, listener) = (peer(&mut world), peer(&mut world));
    world.skip(CHAINTIP_EVERY);
    world.turns();
    world.published();
    world.taken(sender);
    world.taken(listener);
    // The fetcher has answered what it heard of them, so that it would be given the next word at once.
    world.mail(Answer::Requests(Vec::new()), Vec::new());
    world.node.stages_mut().jobs = Jobs::default();
    for share in &old {
        let before = world.hub.counters().bytes_in.get();
        // As fast as a peer's budget allows.
        world.skip(Duration::from_secs(1) * Command::BlockFound.cost() / PEER_COST_RATE);
        world.say(sender, &Message::BlockFound(Box::new(share.clone())));
        let bytes = world.hub.counters().bytes_in.get() - before;
        assert!(bytes > 0 && bytes < 1_000, "a message of {bytes} bytes");
    }
    assert!(world.is_open(sender), "it may be that we are the ones who are late");
    assert_eq!((world.taken(sender).len(), world.taken(listener).len()), (0, 0), "nobody is told or asked");
    let Jobs { emission, organise, fetch, read, write, submit, .. } = &world.node.stages_mut().jobs;
    assert!(
        submit.is_empty() && emission.is_empty() && organise.is_empty() && read.is_empty() && write.is_empty() && fetch.is_empty(),
        "no stage has to do"
    );
    assert_eq!(world.hub.outlet().tickets_out(), 0);
    assert!(world.published().is_empty() && world.node.peers.blocks.is_empty());
    // A block of Bitcoin that is no share at all: its sender is dropped at once.
    let mut foreign = old[0].clone();
    foreign.header[36] ^= 1;
    world.say(sender, &Message::BlockFound(Box::new(foreign)));
    assert!(!world.is_open(sender));
}

#[test]
fn a_peer_that_does_not_read_is_not_served_and_holds_no_ticket() {
    let mut world = World::whole(&[], 1);
    let mut grower = Grower::new();
    world.skip(Duration::from_secs(700));
    world.offer(grower.grow_many(600, ALICE));
    let conn = peer(&mut world);
    world.clog(conn, true);
    let many = REQUESTS_MAX + 9;
    for _ in 0..many {
        world.say(conn, &Message::GetHeaders(GetHeaders { from: Start::Locator(vec![regtest().genesis_id()]), stop: ShareId::default() }));
    }
    world.settle();
    assert_eq!(world.hub.outlet().tickets_out(), 0);
    assert!(world.is_open(conn), "what was asked for does not reach the hard cap");
    let heard = world.hub.counters().frames_peer.get();
    world.say(conn, &Message::Ping(1));
    world.turns();
    assert_eq!(world.hub.counters().frames_peer.get(), heard, "it is not heard while so many of its requests wait");
    world.clog(conn, false);
    world.settle();
    let answers = world.messages(conn).iter().filter(|message| matches!(message, Message::ShareHeaders(_))).count();
    assert_eq!((answers, world.hub.outlet().tickets_out()), (many, 0));
    world.clog(conn, true);
    for _ in 0..6 {
        world.say(conn, &Message::GetHeaders(GetHeaders { from: Start::Locator(vec![regtest().genesis_id()]), stop: ShareId::default() }));
    }
    world.hang_up(conn);
    world.settle();
    assert_eq!(world.hub.outlet().tickets_out(), 0);
}

#[test]
fn cold_rows_are_read_and_served_in_order() {
    let mut world = World::recorded(&[], true);
    let conn = peer(&mut world);
    let mut grower = Grower::new();
    let shares = grower.grow_many(3, ALICE);
    // A row that the view says is stored, and that no cache holds.
    world.confirm_without_bytes(&shares);
    world.say(conn, &Message::GetData(vec![shares[2].id(), shares[0].id()]));
    world.say(conn, &Message::Ping(1));
    let read = world.node.stages_mut().jobs.read.remove(0);
    assert_eq!(read.rows, Reads::Shares(vec![(3, shares[2].id()), (1, shares[0].id())]));
    let rows = vec![Some(shares[2].encode()), None];
    world.mail(Answer::Read { conn, tag: read.tag, rows }, vec![read.ticket]);
    let messages = world.messages(conn);
    assert!(messages.contains(&Message::Share(Box::new(shares[2].clone()))));
    assert!(messages.contains(&Message::NotFound(vec![shares[0].id()])));
    assert_eq!(world.hub.outlet().tickets_out(), 0);
    // An answer that comes twice says nothing the second time.
    world.mail(Answer::Read { conn, tag: read.tag, rows: vec![Some(shares[2].encode())] }, Vec::new());
    assert!(world.messages(conn).is_empty());
}

/// A claim that our tip has reached by other ways meanwhile, and an empty answer: the frame's ticket is home all the same.
#[test]
fn an_empty_answer_to_a_sync_costs_no_ticket() {
    let mut world = World::whole(&[], 1);
    world.skip(Duration::from_secs(100));
    let shares = Grower::new().grow_many(10, ALICE);
    let (ahead, pushes) = (peer(&mut world), peer(&mut world));
    world.say(ahead, &tip_of(&shares[9]));
    world.turns();
    assert!(world.messages(ahead).iter().any(|message| matches!(message, Message::GetHeaders(_))));
    for share in &shares {
        world.say(pushes, &Message::Share(Box::new(share.clone())));
        world.settle();
    }
    assert_eq!(confirmed(&world).0, 10);
    world.say(ahead, &Message::ShareHeaders(vec![]));
    world.settle();
    assert!(world.is_open(ahead), "it did nothing wrong");
    assert_eq!(world.hub.outlet().tickets_out(), 0);
}

/// A claim that nothing follows from: shares that we have, again and again. The liar is dropped, and the next claim is looked into.
#[test]
fn a_liar_does_not_hold_the_one_sync() {
    let mut world = World::whole(&[], 1);
    let mut grower = Grower::new();
    let shares = grower.grow_many(SYNC_SHARES + 20, ALICE);
    world.skip(Duration::from_secs(shares.len() as u64 + 60));
    world.offer(shares.clone());
    let (liar, honest) = (peer(&mut world), peer(&mut world));
    claim(&mut world, liar, u32::MAX);
    let more = grower.grow_many(20, ALICE);
    world.say(honest, &tip_of(&more[19]));
    let mut answers = 0;
    while world.is_open(liar) && answers < 10 {
        world.say(liar, &Message::ShareHeaders(shares[..SYNC_SHARES].to_vec()));
        world.settle();
        answers += 1;
    }
    assert_eq!(answers, SYNC_BARREN_MAX + 1);
    world.turns();
    assert!(world.messages(honest).iter().any(|message| matches!(message, Message::GetHeaders(_))));
}

/// Peers that ask for much and read a byte now and then: they are cut, and nobody else is held up meanwhile.
#[test]
fn readers_of_a_byte_now_and_then_are_cut() {
    let mut world = World::whole(&[], 1);
    let shares = Grower::new().grow_many(SYNC_SHARES + 20, ALICE);
    world.skip(Duration::from_secs(shares.len() as u64 + 10));
    world.offer(shares);
    let honest = peer(&mut world);
    let slow: Vec<_> = (0..34).map(|_| peer(&mut world)).collect();
    let wanted = Message::GetHeaders(GetHeaders { from: Start::Locator(vec![regtest().genesis_id()]), stop: ShareId::default() });
    for conn in &slow {
        world.clog(*conn, true);
        (0..TICKETS_PER_CONN + 3).for_each(|_| world.say(*conn, &wanted));
        world.settle();
    }
    for _ in 0..3 {
        assert_eq!(world.hub.outlet().tickets_out(), 0);
        (0..29).for_each(|_| world.pass(Duration::from_secs(1)));
        world.say(honest, &Message::Ping(1));
        slow.iter().for_each(|conn| world.drip(*conn));
        world.turns();
    }
    assert!(slow.iter().all(|conn| !world.is_open(*conn)));
    world.say(honest, &Message::Ping(3));
    world.turns();
    assert!(world.messages(honest).iter().any(|message| matches!(message, Message::Pong(3))));
    assert_eq!(world.hub.outlet().tickets_out(), 0);
}

/// Peers that ask for much and read nothing: until they are cut they hold up themselves, and nobody else.
#[test]
fn those_who_do_not_read_leave_the_lane_to_the_others() {
    let mut world = World::whole(&[], 1);
    let mut grower = Grower::new();
    let shares = grower.grow_many(SYNC_SHARES + 20, ALICE);
    world.skip(Duration::from_secs(shares.len() as u64 + 10));
    world.offer(shares);
    let (honest, other) = (peer(&mut world), peer(&mut world));
    let deaf: Vec<_> = (0..rockpool_net::limits::TICKETS_PEER / usize::from(TICKETS_PER_CONN) + 2).map(|_| peer(&mut world)).collect();
    let wanted = Message::GetHeaders(GetHeaders { from: Start::Locator(vec![ShareId([7; 32])]), stop: ShareId::default() });
    for conn in &deaf {
        world.clog(*conn, true);
        (0..TICKETS_PER_CONN + 3).for_each(|_| world.say(*conn, &wanted));
        world.settle();
    }
    let share = grower.grow(ALICE);
    world.say(honest, &Message::Share(Box::new(share.clone())));
    world.settle();
    assert!(world.messages(other).contains(&Message::Share(Box::new(share))), "{} tickets are out", world.hub.outlet().tickets_out());
}

/// Dear requests are served one after the other, and who says something cheap does not wait until all are.
#[test]
fn a_cheap_word_does_not_wait_behind_dear_ones() {
    let mut world = World::whole(&[], 1);
    let honest = peer(&mut world);
    let greedy: Vec<_> = (0..60).map(|_| peer(&mut world)).collect();
    let wanted = Message::GetHeaders(GetHeaders { from: Start::Locator(vec![ShareId([7; 32])]), stop: ShareId::default() });
    for conn in &greedy {
        (0..TICKETS_PER_CONN).for_each(|_| world.feed(*conn, wanted.encode(regtest().magic).unwrap().bytes()));
    }
    world.feed(honest, Message::Ping(1).encode(regtest().magic).unwrap().bytes());
    let turns = (1..100).find(|_| {
        world.turn();
        !world.messages(honest).is_empty()
    });
    assert!(turns.is_some_and(|turns| turns <= 2), "answered in turn {turns:?}");
}
