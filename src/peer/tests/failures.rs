//! Where nodes of other share chains are known to have failed among their peers: none of it happens here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::wire::message::{GetHeaders, Message, Start};
use rockpool_net::wire::share::{Layout, Share};
use rockpool_store::bitcoin::Block;
use rockpool_store::chain::{Chain, Offer, Source};
use rockpool_store::kv::MemKv;
use rockpool_store::testing::{ShareBuilder, bitcoin_header};
use rockpool_workers::embedded::EmbeddedChain;
use rockpool_workers::jobs::Answer;

use crate::limits::{REORG_ALARM, SYNC_ANSWER_MAX, SYNC_SETTLE_MAX, SYNC_SHARES};
use crate::peer::tests::{ALICE, BOB, peer, tip_of};
use crate::status::Serving;
use crate::testing::{Grower, Inline, PEER, World, at, exchange, regtest};

fn build() -> ShareBuilder {
    ShareBuilder::new(regtest())
}

fn fresh() -> Chain {
    Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap()
}

/// So many shares of this builder, the first on `parent`, known to the chain.
fn grow(chain: &mut Chain, builder: &ShareBuilder, parent: ShareId, count: usize) -> Vec<Share> {
    let mut shares: Vec<Share> = Vec::new();
    for _ in 0..count {
        let share = builder.build(chain, &shares.last().map_or(parent, Share::id));
        assert_eq!(chain.offer(at(Duration::ZERO), &share, Source::Peer), Offer::Taken);
        shares.push(share);
    }
    shares
}

fn confirmed(world: &World<Inline>) -> ShareId {
    world.node.chain().view.confirmed_tip().id
}

/// Ids of the shares among messages.
fn shares(messages: &[Message]) -> Vec<ShareId> {
    // On regtest each is a block, and may be told of as one.
    let told = messages.iter().filter_map(|message| match message {
        Message::Share(share) | Message::BlockFound(share) => Some(share.id()),
        _ => None,
    });
    told.collect()
}

/// A peer that has this chain answers what it was asked for. Whether it was asked.
fn serve(world: &mut World<Inline>, conn: ConnId, chain: &[Share]) -> bool {
    let mut asked = false;
    for message in world.messages(conn) {
        let Message::GetHeaders(GetHeaders { from, .. }) = message else { continue };
        let first = match from {
            Start::Height(height) => height as usize - 1,
            Start::Locator(ids) => ids.iter().find_map(|id| chain.iter().position(|share| share.id() == *id)).map_or(0, |at| at + 1),
        };
        asked = true;
        world.say(conn, &Message::ShareHeaders(chain[first.min(chain.len())..].iter().take(SYNC_SHARES).cloned().collect()));
        world.settle();
    }
    asked
}

/// In the first 80 bytes it would be another id.
#[test]
fn an_honest_id_relayed_with_each_byte_flipped_is_never_marked() {
    for layout in [Layout::Tail, Layout::Front] {
        let mut chain = fresh();
        let genesis = regtest().genesis_id();
        let past = grow(&mut chain, &build(), genesis, 3);
        chain.confirm(3);
        let honest = build().salt(5).layout(layout).build(&chain, &past[2].id());
        let (id, bytes) = (honest.id(), honest.encode());
        let mut world = World::whole(&[], 1);
        world.offer(past.clone());
        assert_eq!(confirmed(&world), past[2].id());
        let (relay, listener) = (peer(&mut world), peer(&mut world));
        let mut dropped = 0;
        for at in 80..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            let liar = peer(&mut world);
            world.feed(liar, Message::share_from_bytes(regtest().magic, &flipped).bytes());
            world.settle();
            // In layout front an extranonce shows only when the coinbase is rebuilt.
            dropped += usize::from(!world.is_open(liar));
            assert!(!world.is_open(liar) || layout == Layout::Front, "byte {at}");
            assert_eq!((confirmed(&world), world.node.chain().view.get(&id).is_some()), (past[2].id(), false), "byte {at}");
            assert_eq!(shares(&world.messages(listener)), [], "byte {at}");
            if world.is_open(liar) {
                world.hang_up(liar);
            }
        }
        assert!(dropped >= bytes.len() - 80 - 12, "{dropped} liars were dropped");
        world.say(relay, &Message::Share(Box::new(honest)));
        world.settle();
        assert_eq!((confirmed(&world), shares(&world.messages(listener))), (id, vec![id]), "{layout:?}");
        assert!(world.is_open(relay));
        assert_eq!((world.node.counters().shares_invalid.get(), world.hub.outlet().tickets_out()), (0, 0));
    }
}

/// Elsewhere shares are relayed, and confirmed, before anybody has looked at whom their coinbases pay.
#[test]
fn what_is_not_proved_is_neither_relayed_nor_mined_upon() {
    let mut chain = fresh();
    let genesis = regtest().genesis_id();
    let past = grow(&mut chain, &build(), genesis, 2);
    // It is tied and worked for; the change tells of it as the candidate tip, and of no proof.
    let candidate = build().salt(1).build(&chain, &past[1].id());
    chain.confirm(2);
    let mut world = World::recorded(&[], true);
    let (sender, listener) = (peer(&mut world), peer(&mut world));
    let told = |world: &mut World<_>, chain: &mut Chain| {
        let change = chain.take_change().map(|(change, _)| Box::new(change));
        let answer = Answer::Organised { change, refused: Vec::new(), fates: Vec::new(), missing: Vec::new(), bulk_done: Vec::new() };
        world.mail(answer, Vec::new());
        shares(&world.messages(listener))
    };
    assert_eq!(told(&mut world, &mut chain), [past[0].id(), past[1].id()]);
    assert_eq!(chain.offer(at(Duration::ZERO), &candidate, Source::Peer), Offer::Taken);
    assert_eq!(told(&mut world, &mut chain), []);
    let view = &world.node.chain().view;
    assert_eq!((view.tip().id, view.confirmed_tip().id), (candidate.id(), past[1].id()));
    assert_eq!((view.next(regtest(), at(Duration::ZERO)).parent, view.payouts().parent), (past[1].id(), past[1].id()));
    world.say(sender, &Message::GetHeaders(GetHeaders { from: Start::Height(1), stop: ShareId::default() }));
    assert!(world.messages(sender).contains(&Message::ShareHeaders(past.clone())), "nor is it served as part of the chain");
    world.say(sender, &Message::GetData(vec![candidate.id()]));
    assert_eq!(world.messages(sender), [Message::NotFound(vec![candidate.id()])], "nor by its id");
    chain.confirm(1);
    assert_eq!(told(&mut world, &mut chain), [candidate.id()]);

    // One that pays whom it likes, and what builds on it.
    let mut world = World::whole(&[], 1);
    world.offer(past.clone());
    let (sender, listener) = (peer(&mut world), peer(&mut world));
    let bad = build().salt(2).bad_coinbase().build(&chain, &past[1].id());
    assert_eq!(chain.offer(at(Duration::ZERO), &bad, Source::Peer), Offer::Taken);
    let child = build().salt(3).build(&chain, &bad.id());
    for share in [&bad, &child] {
        world.say(sender, &Message::Share(Box::new(share.clone())));
        world.settle();
        assert_eq!((confirmed(&world), shares(&world.messages(listener))), (past[1].id(), vec![]));
    }
    world.say(listener, &Message::GetData(vec![bad.id()]));
    world.settle();
    assert!(world.messages(listener).contains(&Message::NotFound(vec![bad.id()])));
    assert!(world.is_open(sender), "it may have relayed it in good faith");
}

/// Elsewhere a peer that has more than twenty shares of one height is dropped, so that whoever makes them cuts honest nodes off.
#[test]
fn many_shares_of_one_height_hold_up_no_sync_and_cost_nobody_the_connection() {
    let mut chain = fresh();
    let genesis = regtest().genesis_id();
    let main = grow(&mut chain, &build(), genesis, 8);
    chain.confirm(8);
    let siblings: Vec<Share> = (0..150).map(|salt| build().salt(100 + salt).build(&chain, &main[4].id())).collect();
    let mut old = World::whole(&[], 2);
    old.offer(main.clone());
    let giver = peer(&mut old);
    for share in &siblings {
        old.say(giver, &Message::Share(Box::new(share.clone())));
        old.settle();
    }
    assert!(old.is_open(giver));
    assert!(siblings.iter().all(|share| old.node.chain().view.beside(&share.id()).is_some()), "all are proved and kept beside the chain");
    let mut new = World::whole(&[SocketAddr::from(([127, 0, 0, 1], 9333))], 1);
    new.settle();
    let (on_new, on_old) = (new.pick_up(), old.connect(PEER));
    exchange(&mut new, on_new, &mut old, on_old);
    assert_eq!((confirmed(&new), confirmed(&old)), (main[7].id(), main[7].id()));
    // It hears of them all.
    for share in &siblings {
        new.feed(on_new, Message::share_from_bytes(regtest().magic, &share.encode()).bytes());
        new.settle();
    }
    assert_eq!(confirmed(&new), main[7].id());
    assert!(new.is_open(on_new) && old.is_open(on_old));
    // The next share goes from one to the other as ever.
    let next = build().salt(7).build(&chain, &main[7].id());
    old.say(giver, &Message::Share(Box::new(next.clone())));
    exchange(&mut new, on_new, &mut old, on_old);
    assert_eq!((confirmed(&new), confirmed(&old)), (next.id(), next.id()));
}

/// Elsewhere one peer's bad shares held up the sync with all others until somebody cleared them by hand.
#[test]
fn a_chain_that_proves_bad_does_not_hold_up_an_honest_one() {
    let mut chain = fresh();
    let genesis = regtest().genesis_id();
    let good = grow(&mut chain, &build(), genesis, 40);
    let bad = grow(&mut chain, &build().bad_coinbase(), genesis, 1);
    let above = grow(&mut chain, &build().salt(1), bad[0].id(), 80);
    let bad = [bad, above].concat();
    let kv = Arc::new(MemKv::new());
    let mut world = World::whole_on(&kv, regtest(), &[], 1);
    let (liar, honest) = (peer(&mut world), peer(&mut world));
    world.say(liar, &tip_of(bad.last().unwrap()));
    world.say(honest, &tip_of(good.last().unwrap()));
    let (mut asked, mut seconds) = ((false, false), 0);
    while confirmed(&world) != good[39].id() {
        asked.0 |= serve(&mut world, liar, &bad);
        asked.1 |= serve(&mut world, honest, &good);
        world.skip(Duration::from_secs(1));
        world.settle();
        seconds += 1;
        assert!(seconds <= (SYNC_SETTLE_MAX + SYNC_ANSWER_MAX).as_secs(), "held up");
    }
    assert_eq!(asked, (true, true));
    assert!(world.is_open(honest));
    // Nor does the liar's next claim, nor what it left on the disk.
    for _ in 0..=SYNC_SETTLE_MAX.as_secs() {
        world.skip(Duration::from_secs(1));
        world.settle();
    }
    assert!(!world.is_open(liar) && world.is_open(honest));
    let again = Chain::open(regtest(), [1, 2], &*kv).unwrap();
    assert_eq!((again.tip().id, again.confirmed_tip().id), (good[39].id(), good[39].id()));
}

/// SHARECHAIN §3: who keeps a share keeps the Bitcoin header that it builds on, and sends it along.
#[test]
fn a_fresh_node_syncs_past_a_share_on_a_stale_bitcoin_block() {
    let mut chain = fresh();
    let above = |chain: &mut Chain, on: &Arc<Block>, after: u32| {
        let new = chain.offer_blocks(&[bitcoin_header(on, after)]).new[0];
        Arc::clone(chain.bitcoin().get(&new.0).unwrap())
    };
    let root = Arc::clone(chain.bitcoin().root().unwrap());
    let first = above(&mut chain, &root, 600);
    let stale = above(&mut chain, &first, 600);
    let second = above(&mut chain, &first, 601);
    let third = above(&mut chain, &second, 600);
    let mut made = Vec::new();
    for (number, block) in [&first, &stale, &stale, &second, &third, &third].into_iter().enumerate() {
        let builder = build().bitcoin(block.hash, block.height + 1, block.bits()).time(third.time() + 10 + number as u32);
        let parent = chain.tip().id;
        made.extend(grow(&mut chain, &builder, parent, 1));
        chain.confirm(1);
    }
    let headers = |blocks: &[&Arc<Block>]| blocks.iter().map(|block| block.header).collect::<Vec<_>>();
    let mut old = World::whole(&[], 2);
    old.headers(headers(&[&first, &stale]));
    old.headers(headers(&[&second, &third]));
    old.offer(made.clone());
    assert_eq!(confirmed(&old), made[5].id());
    // Its own Bitcoin side has never heard of the stale block.
    let mut new = World::whole(&[SocketAddr::from(([127, 0, 0, 1], 9333))], 1);
    new.headers(headers(&[&first, &second, &third]));
    assert!(new.node.chain().view.bitcoin().get(&stale.hash).is_none());
    new.settle();
    let (on_new, on_old) = (new.pick_up(), old.connect(PEER));
    exchange(&mut new, on_new, &mut old, on_old);
    assert_eq!(confirmed(&new), made[5].id());
    assert_eq!(new.node.chain().view.payouts(), old.node.chain().view.payouts());
    assert!(new.node.chain().view.bitcoin().get(&stale.hash).is_some(), "and it can serve the next one");
    assert!(new.is_open(on_new) && old.is_open(on_old));
}

/// SHARECHAIN §5: none is forbidden, and from 36 shares on somebody should look.
#[test]
fn a_reorg_of_36_shares_raises_an_alarm() {
    let mut chain = fresh();
    let genesis = regtest().genesis_id();
    let past = grow(&mut chain, &build(), genesis, 5);
    for (deep, alarms) in [(REORG_ALARM - 1, 0), (REORG_ALARM, 1)] {
        let (ours, theirs) = (deep as usize, deep as usize + 1);
        let mut both = fresh();
        for share in &past {
            assert_eq!(both.offer(at(Duration::ZERO), share, Source::Peer), Offer::Taken);
        }
        let ours = grow(&mut both, &build(), past[4].id(), ours);
        let theirs = grow(&mut both, &build().salt(1), past[4].id(), theirs);
        let mut world = World::whole(&[], 1);
        world.offer([&past[..], &ours].concat());
        assert_eq!((confirmed(&world), world.node.counters().reorgs_deep.get()), (ours[ours.len() - 1].id(), 0));
        world.offer(theirs.clone());
        assert_eq!((confirmed(&world), world.node.counters().reorgs_deep.get()), (theirs[theirs.len() - 1].id(), alarms), "{deep} deep");
    }
}

/// Elsewhere a node whose tip is five minutes old neither relays nor serves miners: a chain that has paused would stay so.
#[test]
fn the_tips_age_plays_no_part() {
    let mut grower = Grower::new();
    let past = grower.grow_many(5, ALICE);
    let mut world = World::whole(&[], 1);
    world.skip(Duration::from_secs(5));
    world.offer(past.clone());
    world.skip(Duration::from_secs(365 * 86_400));
    world.settle();
    world.template(&EmbeddedChain::new(regtest(), None), 1);
    world.settle();
    assert_eq!(world.node.server.serving, Serving::Yes);
    let (giver, listener) = (peer(&mut world), peer(&mut world));
    let next = grower.grow(BOB);
    world.say(giver, &Message::Share(Box::new(next.clone())));
    world.settle();
    assert_eq!((confirmed(&world), shares(&world.messages(listener))), (next.id(), vec![next.id()]));
    world.say(listener, &Message::GetHeaders(GetHeaders { from: Start::Locator(vec![past[2].id()]), stop: ShareId::default() }));
    world.settle();
    assert!(world.messages(listener).contains(&Message::ShareHeaders([&past[3..], &[next]].concat())));
}
