//! What is missing, from the first peer that knows of it to the disk: the fetcher's policy with a whole node around it, who is pushed what,
//! and a sync that a restart interrupts.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::wire::message::{GetHeaders, Message, Start};
use rockpool_net::wire::share::{Layout, Share};
use rockpool_store::chain::{Chain, Offer, Source};
use rockpool_store::kv::MemKv;
use rockpool_store::testing::ShareBuilder;
use rockpool_workers::limits::{FETCH_DEADLINE, FETCH_DEADLINE_MAX, FETCH_PEER_MAX};

use crate::limits::{PUSH_DEPTH, SYNC_SHARES};
use crate::peer::tests::{ALICE, peer, tip_of};
use crate::testing::{Grower, Inline, PEER, World, at, messages, regtest};

fn confirmed(world: &World<Inline>) -> (u32, ShareId) {
    let tip = world.node.chain().view.confirmed_tip();
    (tip.height, tip.id)
}

/// Ids that a peer was asked for since this was last looked at.
fn wanted(world: &mut World<Inline>, conn: ConnId) -> Vec<ShareId> {
    let ids = world.messages(conn).into_iter().filter_map(|message| if let Message::GetData(ids) = message { Some(ids) } else { None });
    ids.flatten().collect()
}

/// Ids of the shares that a peer was sent since this was last looked at.
fn pushed(world: &mut World<Inline>, conn: ConnId) -> Vec<ShareId> {
    let sent = world.messages(conn).into_iter();
    sent.filter_map(|message| if let Message::Share(share) = message { Some(share.id()) } else { None }).collect()
}

/// Time passes, second by second, for hub and stages.
fn wait(world: &mut World<Inline>, time: Duration) {
    for _ in 0..time.as_secs() {
        world.skip(Duration::from_secs(1));
        world.settle();
    }
}

#[test]
fn a_missing_parent_is_asked_of_one_after_the_other_and_of_none_twice() {
    let mut world = World::whole(&[], 1);
    world.skip(Duration::from_secs(9));
    let shares = Grower::new().grow_many(2, ALICE);
    let parent = shares[0].id();
    let peers: Vec<ConnId> = (0..5).map(|_| peer(&mut world)).collect();
    world.say(peers[0], &Message::Share(Box::new(shares[1].clone())));
    world.settle();
    assert_eq!(wanted(&mut world, peers[0]), [parent], "who sent the child is asked first");
    let mut left = peers[1..].to_vec();
    // Exactly one of those that were not asked is asked next.
    let mut next = |world: &mut World<Inline>| {
        let asked: Vec<ConnId> = left.iter().copied().filter(|conn| wanted(world, *conn) == [parent]).collect();
        assert_eq!(asked.len(), 1, "{asked:?}");
        left.retain(|conn| *conn != asked[0]);
        asked[0]
    };
    // It has not got it; the second leaves; the third is silent.
    world.say(peers[0], &Message::NotFound(vec![parent]));
    world.settle();
    let second = next(&mut world);
    world.hang_up(second);
    world.settle();
    let third = next(&mut world);
    wait(&mut world, 4 * FETCH_DEADLINE);
    let fourth = next(&mut world);
    // A word from somebody who is not asked at present changes nothing, and the last is not asked before the fourth has had its time.
    world.say(peers[0], &Message::NotFound(vec![parent]));
    world.settle();
    assert!(peers.iter().all(|conn| !world.is_open(*conn) || wanted(&mut world, *conn).is_empty()));
    world.say(fourth, &Message::NotFound(vec![parent]));
    world.settle();
    let fifth = next(&mut world);
    wait(&mut world, FETCH_DEADLINE_MAX);
    assert!(peers.iter().all(|conn| !world.is_open(*conn) || wanted(&mut world, *conn).is_empty()), "nobody twice");
    // Slow, but it comes; and nobody is dropped for having been slow.
    world.say(third, &Message::Share(Box::new(shares[0].clone())));
    world.settle();
    assert_eq!(confirmed(&world), (2, shares[1].id()));
    assert!([peers[0], third, fourth, fifth].iter().all(|conn| world.is_open(*conn)));
    assert_eq!(world.hub.outlet().tickets_out(), 0);
}

#[test]
fn sixteen_are_asked_of_a_peer_at_once_and_each_that_comes_makes_room_for_another() {
    let mut chain = Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap();
    let family = |salt: u32| {
        let parent = ShareBuilder::new(regtest()).salt(salt).build(&chain, &regtest().genesis_id());
        assert_eq!(chain.offer(at(Duration::ZERO), &parent, Source::Peer), Offer::Taken);
        let child = ShareBuilder::new(regtest()).salt(salt).build(&chain, &parent.id());
        (parent, child)
    };
    let families: Vec<(Share, Share)> = (0..40).map(family).collect();
    let mut world = World::whole(&[], 1);
    let conn = peer(&mut world);
    for (_, child) in &families {
        world.say(conn, &Message::Share(Box::new(child.clone())));
        world.settle();
    }
    let (mut open, mut ever) = (BTreeSet::new(), BTreeSet::new());
    let mut look = |world: &mut World<Inline>, open: &mut BTreeSet<ShareId>| {
        for id in wanted(world, conn) {
            assert!(ever.insert(id), "{id} was asked for twice");
            open.insert(id);
        }
        assert!(open.len() <= FETCH_PEER_MAX);
        ever.len()
    };
    assert_eq!(look(&mut world, &mut open), FETCH_PEER_MAX);
    for count in 1..=families.len() {
        let id = open.pop_first().unwrap();
        let (parent, _) = families.iter().find(|(parent, _)| parent.id() == id).unwrap();
        world.say(conn, &Message::Share(Box::new(parent.clone())));
        world.settle();
        assert_eq!(look(&mut world, &mut open), (FETCH_PEER_MAX + count).min(families.len()));
    }
    assert!(open.is_empty() && world.is_open(conn));
    assert_eq!((confirmed(&world).0, world.hub.outlet().tickets_out()), (2, 0));
}

#[test]
fn who_has_told_of_a_share_or_was_sent_it_is_not_pushed_it() {
    let mut world = World::whole(&[], 1);
    world.skip(Duration::from_secs(9));
    let mut grower = Grower::new();
    let share = grower.grow(ALICE);
    let [giver, announcer, other] = [0; 3].map(|_| peer(&mut world));
    world.say(announcer, &Message::Inv(vec![share.id()]));
    world.say(giver, &Message::Share(Box::new(share.clone())));
    world.settle();
    assert_eq!([giver, announcer, other].map(|conn| pushed(&mut world, conn)), [vec![], vec![], vec![share.id()]]);
    // Whoever comes now is told of the tip, and asks.
    let late = peer(&mut world);
    assert_eq!(pushed(&mut world, late), []);
    let next = grower.grow(ALICE);
    world.say(other, &Message::Share(Box::new(next.clone())));
    world.settle();
    assert_eq!([giver, announcer, other, late].map(|conn| pushed(&mut world, conn).len()), [1, 1, 0, 1]);
}

#[test]
fn who_brought_a_sync_is_not_pushed_what_it_brought() {
    let mut world = World::whole(&[], 1);
    let shares = Grower::new().grow_many(60, ALICE);
    world.skip(Duration::from_secs(100));
    let (owner, other) = (peer(&mut world), peer(&mut world));
    world.say(owner, &tip_of(&shares[59]));
    world.say(owner, &Message::ShareHeaders(shares.clone()));
    world.settle();
    assert_eq!(confirmed(&world), (60, shares[59].id()));
    assert_eq!(pushed(&mut world, owner).len(), 0);
    // Those that are near the tip when they are confirmed.
    let near: Vec<ShareId> = shares[60 - PUSH_DEPTH as usize..].iter().map(Share::id).collect();
    assert!(pushed(&mut world, other).ends_with(&near));
}

/// A node that catches up confirms shares all the time, which those ahead of it have long had.
#[test]
fn who_is_ahead_is_not_pushed_what_we_catch_up_with() {
    let shares = Grower::new().grow_many(3 * SYNC_SHARES, ALICE);
    let mut world = World::whole(&[], 1);
    world.skip(Duration::from_secs(3_000));
    let (owner, ahead, behind) = (peer(&mut world), peer(&mut world), peer(&mut world));
    for conn in [owner, ahead] {
        world.say(conn, &tip_of(&shares[3 * SYNC_SHARES - 1]));
    }
    let (mut to_ahead, mut to_behind) = (0, 0);
    for at in 1..=shares.len() {
        if at % 100 == 0 {
            world.offer(shares[at - 100..at].to_vec());
            to_ahead += pushed(&mut world, ahead).len();
            to_behind += pushed(&mut world, behind).len();
        }
    }
    assert_eq!(confirmed(&world).0 as usize, shares.len());
    assert!(to_behind > 0, "who has not said where he stands may lack them");
    assert!(to_ahead <= PUSH_DEPTH as usize, "{to_ahead} shares were pushed to who has them");
}

/// Carries bytes until the first node's candidate tip is this high or all is quiet. Heights of the shares that it was sent in bulk.
fn carry(new: &mut World<Inline>, on_new: ConnId, old: &mut World<Inline>, on_old: ConnId, height: u32) -> Vec<u32> {
    let mut came = Vec::new();
    for _ in 0..10_000 {
        new.settle();
        old.settle();
        let (from_new, from_old) = (new.taken(on_new), old.taken(on_old));
        if from_new.is_empty() && from_old.is_empty() || new.node.chain().view.tip().height >= height {
            return came;
        }
        for message in messages(&from_old) {
            if let Message::ShareHeaders(shares) = message {
                came.extend(shares.iter().map(|share| share.height));
            }
        }
        new.feed(on_new, &from_old);
        old.feed(on_old, &from_new);
    }
    panic!("they never fall silent");
}

/// A node that is stopped, or loses its power, in the middle of a sync asks for the rest alone.
#[test]
fn a_sync_that_a_restart_interrupts_goes_on_where_it_was() {
    let total = 5 * SYNC_SHARES;
    let shares = Grower::new().grow_many(total, ALICE);
    for power_fails in [false, true] {
        let kv = Arc::new(MemKv::new());
        let start = || World::whole_on(&kv, regtest(), &[SocketAddr::from(([127, 0, 0, 1], 9333))], 1);
        let (mut new, mut old) = (start(), World::whole(&[], 2));
        for world in [&mut new, &mut old] {
            world.skip(Duration::from_secs(total as u64 + 60));
        }
        old.offer(shares.clone());
        new.settle();
        let (on_new, on_old) = (new.pick_up(), old.connect(PEER));
        carry(&mut new, on_new, &mut old, on_old, 2 * SYNC_SHARES as u32);
        let reached = new.node.chain().view.tip().height;
        assert!((2 * SYNC_SHARES..total).contains(&(reached as usize)), "{reached}");
        drop(new);
        old.hang_up(on_old);
        if power_fails {
            kv.crash(kv.unsynced() / 2);
        }
        let mut new = start();
        new.skip(Duration::from_secs(total as u64 + 60));
        let tip = new.node.chain().view.tip().clone();
        assert!(tip.height <= reached && tip.height > 0 && (power_fails || tip.height == reached), "{} of {reached}", tip.height);
        new.settle();
        let (on_new, on_old) = (new.pick_up(), old.connect(PEER));
        // The handshake, the claim, and the first question: where the chains part is our own tip.
        let mut asked = None;
        for _ in 0..20 {
            new.settle();
            old.settle();
            let (from_new, from_old) = (new.taken(on_new), old.taken(on_old));
            asked = messages(&from_new).into_iter().find_map(|message| match message {
                Message::GetHeaders(GetHeaders { from: Start::Locator(ids), .. }) => Some(ids),
                _ => None,
            });
            new.feed(on_new, &from_old);
            old.feed(on_old, &from_new);
            if asked.is_some() {
                break;
            }
        }
        assert_eq!(asked.unwrap()[0], tip.id);
        let came = carry(&mut new, on_new, &mut old, on_old, u32::MAX);
        assert_eq!(confirmed(&new), (total as u32, shares[total - 1].id()));
        assert_eq!(came.iter().min(), Some(&(tip.height + 1)), "nothing that it has comes a second time");
        assert!(new.is_open(on_new) && old.is_open(on_old));
        assert_eq!(new.hub.outlet().tickets_out() + old.hub.outlet().tickets_out(), 0);
    }
}

/// In layout front a relay can change the extranonce and the id stays. What waits so changed for its parent does not keep the honest
/// share out for ever.
#[test]
fn a_changed_share_of_layout_front_that_waits_does_not_keep_the_honest_one_out() {
    let mut chain = Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap();
    let build = ShareBuilder::new(regtest()).layout(Layout::Front);
    let parent = build.build(&chain, &regtest().genesis_id());
    assert_eq!(chain.offer(at(Duration::ZERO), &parent, Source::Peer), Offer::Taken);
    chain.confirm(1);
    let honest = build.build(&chain, &parent.id());
    let mut changed = honest.clone();
    changed.proof.extranonce[0] ^= 1;
    assert_eq!(changed.id(), honest.id());
    let mut world = World::whole(&[], 1);
    let (liar, giver) = (peer(&mut world), peer(&mut world));
    world.say(liar, &Message::Share(Box::new(changed)));
    world.settle();
    world.say(giver, &tip_of(&honest));
    for share in [&honest, &parent] {
        world.say(giver, &Message::Share(Box::new(share.clone())));
        world.settle();
    }
    for _ in 0..5 {
        let asked = world.messages(giver).into_iter().find_map(|message| match message {
            Message::GetHeaders(_) => Some(Message::ShareHeaders(vec![parent.clone(), honest.clone()])),
            Message::GetData(ids) if ids.contains(&honest.id()) => Some(Message::Share(Box::new(honest.clone()))),
            _ => None,
        });
        asked.iter().for_each(|answer| world.say(giver, answer));
        wait(&mut world, Duration::from_secs(1));
    }
    assert_eq!((confirmed(&world), world.is_open(giver)), ((2, honest.id()), true));
}

/// A chain of so many shares, all of layout front or tail.
fn long(layout: Layout, count: usize) -> Vec<Share> {
    let mut chain = Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap();
    let build = ShareBuilder::new(regtest()).layout(layout);
    (0..count)
        .map(|_| {
            let share = build.build(&chain, &chain.tip().id);
            assert_eq!(chain.offer(at(Duration::ZERO), &share, Source::Peer), Offer::Taken);
            chain.confirm(1);
            share
        })
        .collect()
}

/// Answers what a peer was asked for in a sync, from this chain.
fn serve(world: &mut World<Inline>, conn: ConnId, chain: &[Share]) {
    for message in world.messages(conn) {
        let Message::GetHeaders(GetHeaders { from, .. }) = message else { continue };
        let first = match from {
            Start::Height(height) => height as usize - 1,
            Start::Locator(ids) => ids.iter().find_map(|id| chain.iter().position(|share| share.id() == *id)).map_or(0, |at| at + 1),
        };
        world.say(conn, &Message::ShareHeaders(chain[first.min(chain.len())..].iter().take(SYNC_SHARES).cloned().collect()));
        world.settle();
    }
}

/// A helper changes a share on its way: the owner of the claim did nothing wrong, and its chain becomes ours all the same.
#[test]
fn a_helper_that_changes_shares_costs_the_owner_nothing() {
    for layout in [Layout::Tail, Layout::Front] {
        let honest = long(layout, 4 * SYNC_SHARES);
        let mut changed = honest.clone();
        // In layout front this shows only when the coinbase is rebuilt.
        changed.iter_mut().skip(SYNC_SHARES).step_by(50).for_each(|share| share.proof.extranonce[0] ^= 1);
        let mut world = World::whole(&[], 1);
        let (owner, liar) = (peer(&mut world), peer(&mut world));
        for conn in [owner, liar] {
            world.say(conn, &tip_of(&honest[4 * SYNC_SHARES - 1]));
        }
        for _ in 0..90 {
            serve(&mut world, liar, &changed);
            serve(&mut world, owner, &honest);
            wait(&mut world, Duration::from_secs(1));
        }
        let reached = confirmed(&world);
        assert_eq!((reached.0, world.is_open(owner)), (4 * SYNC_SHARES as u32, true), "{layout:?}");
        assert_eq!(world.hub.outlet().tickets_out(), 0);
    }
}
