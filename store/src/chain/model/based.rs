//! Nodes that know the chain from a base share on, or have deleted its lower part, beside those that know all of it.

use std::collections::BTreeSet;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_net::id::ShareId;
use rockpool_net::time::Now;

use super::node::{PEER, late, open};
use super::slow::Slow;
use super::world::{World, small_windows};
use super::{offer_chain, offer_chain_from};
use crate::chain::{Chain, Offer, Source};
use crate::kv::{Kv, MemKv};
use crate::limits::{KEPT_SLACK, REACH, UNCLE_DEPTH};
use crate::params::Params;
use crate::schema;
use crate::testing::ShareBuilder;

/// A history of good shares alone.
fn good_world(params: &'static Params, seed: u64, shares: u32) -> World {
    let mut world = World::good(params, ChaCha12Rng::seed_from_u64(seed));
    for _ in 0..shares {
        if world.once_in(10) {
            world.mine_block();
        }
        world.make_share();
    }
    world
}

fn offer_blocks(chain: &mut Chain, world: &World) {
    let headers: Vec<[u8; 80]> = world.blocks[1..].iter().map(|hash| world.slow.blocks[hash].header).collect();
    assert_eq!(chain.offer_blocks(&headers).bad, None);
}

fn write(chain: &mut Chain, kv: &dyn Kv) {
    let batches = chain.take_change().unwrap_or_default().1;
    batches.iter().for_each(|batch| kv.write(&batch.ops, batch.own).unwrap());
}

fn confirm_all(chain: &mut Chain) {
    while chain.confirm(8) > 0 {}
    let condemned = chain.take_condemned();
    assert!(condemned.is_empty(), "{condemned:?}");
    chain.sanity_check().unwrap();
}

/// A chain that was begun with the share at this height of the best chain, and has synced what is above.
fn begun(world: &World, kv: &dyn Kv, base: &ShareId, tip: &ShareId) -> Chain {
    let slow = &world.slow;
    let mut chain = open(slow.params, kv);
    offer_blocks(&mut chain, world);
    assert_eq!(chain.begin_at(slow.share(base)), Offer::Taken);
    assert!(chain.begin_sync(PEER));
    offer_chain_from(slow, tip, slow.share(base).height + 1, |share| {
        let fate = chain.offer(late(), share, Source::Bulk(PEER));
        assert!(matches!(fate, Offer::Taken | Offer::Known), "{} at {}: {fate:?}", share.id(), share.height);
    });
    chain.end_sync();
    chain
}

fn at_height(slow: &Slow, tip: &ShareId, height: u32) -> ShareId {
    *slow.line(tip).iter().find(|id| slow.share(id).height == height).unwrap()
}

#[test]
fn base_synced_and_genesis_synced_nodes_agree_on_payouts() {
    let mut compared = 0;
    for seed in 0..40 {
        let params = small_windows()[seed as usize % small_windows().len()];
        let world = good_world(params, seed, 160);
        let (slow, best) = (&world.slow, world.best());
        let height = slow.share(&best).height;
        let mut whole = open(params, &MemKv::new());
        offer_blocks(&mut whole, &world);
        assert!(whole.begin_sync(PEER));
        offer_chain(slow, &best, |share| {
            whole.offer(late(), share, Source::Bulk(PEER));
        });
        whole.end_sync();
        confirm_all(&mut whole);
        let base = at_height(slow, &best, 1 + height / 4);
        let kv = MemKv::new();
        let mut chain = begun(&world, &kv, &base, &best);
        let mut seen = BTreeSet::new();
        loop {
            let confirmed = chain.confirmed_tip().id;
            if chain.window().is_whole(params) && seen.insert(confirmed) {
                assert!(chain.payouts().weights.iter().copied().eq(slow.weights(&confirmed)), "seed {seed}");
                compared += 1;
            }
            if chain.confirm(1) == 0 {
                break;
            }
        }
        confirm_all(&mut chain);
        assert_eq!((chain.tip(), chain.confirmed_tip()), (whole.tip(), whole.confirmed_tip()));
        // And after a restart.
        write(&mut chain, &kv);
        let mut again = open(params, &kv);
        again.sanity_check().unwrap();
        assert_eq!((again.tip(), again.confirmed_tip()), (chain.tip(), chain.confirmed_tip()));
        assert_eq!((again.lowest(), again.payouts(), &again.window), (chain.lowest(), chain.payouts(), &chain.window));
        assert!(again.take_change().is_none(), "seed {seed}: an orderly stop leaves nothing to do");
        // Both take the next share, with the uncles that either of them would credit.
        for view in [whole.view(), chain.view()] {
            let next = view.next(params, late());
            let share = ShareBuilder::new(params).uncles(&next.uncles).time(next.time).build(slow, &next.parent);
            for node in [&mut whole, &mut chain] {
                let fate = node.offer(late(), &share, Source::Peer);
                assert!(matches!(fate, Offer::Taken | Offer::Known | Offer::Pending { .. }), "{fate:?}");
            }
        }
        confirm_all(&mut whole);
        confirm_all(&mut chain);
    }
    assert!(compared > 300, "{compared} windows");
}

/// A score near a base is taken as given, since what it is made of is not known: so nothing may be built there beside the sync.
#[test]
fn nobody_builds_near_the_base_of_a_chain_that_stands() {
    let params = small_windows()[3];
    let world = good_world(params, 5, 120);
    let (slow, best) = (&world.slow, world.best());
    let base = at_height(slow, &best, 5);
    let mut chain = begun(&world, &MemKv::new(), &base, &best);
    confirm_all(&mut chain);
    for above in [0, 1, REACH as u32 - 2] {
        let parent = at_height(slow, &best, 5 + above);
        let mut heavy = ShareBuilder::new(params).salt(above).build(slow, &parent);
        heavy.score = u128::MAX / 2;
        super::world::tie(params, &mut heavy);
        assert!(chain.begin_sync(PEER));
        for source in [Source::Peer, Source::Own, Source::Bulk(PEER)] {
            let fate = chain.offer(late(), &heavy, source);
            assert!(matches!(fate, Offer::Dropped(_)), "{fate:?}");
        }
        chain.end_sync();
    }
    assert_eq!(chain.tip().id, best);
}

/// Heights below what is kept are deleted, rows and all, and the rest goes on as if nothing were.
#[test]
fn a_chain_whose_oldest_heights_were_deleted_goes_on_as_before() {
    let whole_params = small_windows()[7];
    let mut params = whole_params.clone();
    params.kept = 100;
    let params: &'static Params = Box::leak(Box::new(params));
    let mut rng = ChaCha12Rng::seed_from_u64(11);
    let kv = MemKv::new();
    let (mut whole, mut chain) = (open(whole_params, &MemKv::new()), open(params, &kv));
    let (mut raised, mut uncles) = (0, 0);
    while raised < 150 {
        let next = chain.view().next(params, Now { mono: Duration::ZERO, wall: Duration::from_secs(u64::from(chain.tip().time) + 1) });
        let draw = rng.next_u32();
        let builder = ShareBuilder::new(params).miner(draw as u8 % 9).harder(draw as usize % 3).salt(draw);
        let parent = if draw % 16 == 0 && chain.tip().height > 3 { chain.tip().parent } else { next.parent };
        let builder = if parent == next.parent { builder.uncles(&next.uncles).time(next.time) } else { builder };
        let share = builder.build(&chain, &parent);
        uncles += share.uncles.len();
        for node in [&mut whole, &mut chain] {
            assert_eq!(node.offer(late(), &share, Source::Own), Offer::Taken);
            while node.confirm(8) > 0 {}
            assert!(node.take_condemned().is_empty());
        }
        assert_eq!((chain.tip(), chain.confirmed_tip(), chain.payouts()), (whole.tip(), whole.confirmed_tip(), whole.payouts()));
        if chain.lowest().height > 0 {
            raised += 1;
        }
        write(&mut chain, &kv);
        if raised % 50 == 1 {
            // At once after it, and later, the node is stopped and started again.
            chain = open(params, &kv);
            confirm_all(&mut chain);
            assert_eq!((chain.tip(), chain.confirmed_tip(), chain.payouts()), (whole.tip(), whole.confirmed_tip(), whole.payouts()));
        }
    }
    chain.sanity_check().unwrap();
    assert!(uncles > 20, "{uncles} uncles");
    assert_eq!(chain.lowest().height, KEPT_SLACK + 1);
    let mut lowest = u32::MAX;
    schema::shares(&kv, |height, _, _| {
        lowest = lowest.min(height);
        Ok(())
    })
    .unwrap();
    assert!(lowest + UNCLE_DEPTH > chain.lowest().height, "rows from height {lowest} on");
}
