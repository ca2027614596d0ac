//! What a stranger or a long separation must not bring about.

use super::*;
use crate::limits::{KEPT_SLACK, REACH, SIDE_HEADERS_MAX, UNCLE_DEPTH};
use crate::testing::bitcoin_header;

fn write(chain: &mut Chain, kv: &dyn Kv) {
    for batch in chain.take_change().unwrap_or_default().1 {
        kv.write(&batch.ops, batch.own).unwrap();
    }
}

/// The branch of an uncle may leave the chain at the oldest of the ancestors that rules ask for, and is credited to its end.
#[test]
fn the_view_credits_an_uncle_whose_branch_is_as_long_as_may_be() {
    let mut chain = fresh();
    let genesis = regtest().genesis_id();
    let side = grow(&mut chain, genesis, 9, 1, Source::Peer);
    let mut parent = genesis;
    let mut credited = 0;
    for height in 1..=REACH as u32 + 2 {
        // All of the branch but its top is credited, three at a time.
        let uncles: Vec<ShareId> = if height > 10 { side[credited..8].iter().take(3).map(Share::id).collect() } else { Vec::new() };
        let share = build().salt(2).uncles(&uncles).build(&chain, &parent);
        assert_eq!(offer(&mut chain, &share, Source::Peer), Offer::Taken);
        credited += uncles.len();
        parent = share.id();
        confirm_all(&mut chain);
        if height < 14 {
            continue;
        }
        let (reached, deep) = (height < REACH as u32, height < side[8].height + UNCLE_DEPTH);
        let next = chain.view().next(regtest(), late());
        assert_eq!(next.uncles.contains(&side[8].id()), reached && deep, "on height {height}");
    }
}

/// SHARECHAIN §3: every Bitcoin header that a share builds on is kept, or neither could the node start again nor anyone sync from it.
#[test]
fn headers_that_shares_build_on_are_not_pushed_out_by_free_ones() {
    let kv = MemKv::new();
    let mut chain = open(&kv);
    let root = Arc::clone(chain.bitcoin().root().unwrap());
    let mut tip = Arc::clone(&root);
    let add = |chain: &mut Chain, on: &crate::bitcoin::Block, after| {
        let new = chain.offer_blocks(&[bitcoin_header(on, after)]).new;
        Arc::clone(chain.bitcoin().get(&new[0].0).unwrap())
    };
    let (stale, of_uncle) = (add(&mut chain, &root, 601), add(&mut chain, &root, 602));
    for _ in 0..3 {
        tip = add(&mut chain, &tip, 600);
    }
    let share = build().bitcoin(stale.hash, stale.height + 1, stale.bits()).time(tip.time()).build(&chain, &regtest().genesis_id());
    assert_eq!(offer(&mut chain, &share, Source::Peer), Offer::Taken);
    let uncle = build().salt(1).bitcoin(of_uncle.hash, of_uncle.height + 1, of_uncle.bits()).time(tip.time());
    let uncle = uncle.build(&chain, &regtest().genesis_id());
    assert_eq!(offer(&mut chain, &uncle, Source::Peer), Offer::Taken);
    let share = build().bitcoin(tip.hash, tip.height + 1, tip.bits()).uncles(&[uncle.id()]).build(&chain, &share.id());
    assert_eq!(offer(&mut chain, &share, Source::Peer), Offer::Taken);
    confirm_all(&mut chain);
    write(&mut chain, &kv);
    for after in 0..=SIDE_HEADERS_MAX as u32 {
        chain.offer_blocks(&[bitcoin_header(&tip, 600 + after)]);
    }
    write(&mut chain, &kv);
    for block in [&stale, &of_uncle] {
        assert!(chain.bitcoin().get(&block.hash).is_some(), "nobody who has not got it could take the chain any more");
    }
    chain.sanity_check().unwrap();
    let again = Chain::open(regtest(), [1, 2], &kv).unwrap();
    assert_eq!(again.confirmed_tip(), chain.confirmed_tip());
}

/// Who has deleted old shares judges a branch whose windows reach below what is left as who began there: it takes their payouts as given.
#[test]
fn a_reorg_deeper_than_the_windows_that_are_kept_is_followed_before_a_restart_as_after_it() {
    let params = |kept| {
        let mut params = regtest().clone();
        (params.window_min, params.window_max, params.kept) = (60, 80, kept);
        &*Box::leak(Box::new(params))
    };
    let (pruning, keeping) = (params(200), params(1_000_000));
    let (kv, whole_kv) = (MemKv::new(), MemKv::new());
    let (mut chain, mut whole) = (Chain::open(pruning, [1, 2], &kv).unwrap(), Chain::open(keeping, [1, 2], &whole_kv).unwrap());
    for height in 1..=pruning.kept + KEPT_SLACK + 1 {
        let share = build_of(keeping).miner((height / 7) as u8).build(&whole, &whole.tip().id);
        for chain in [&mut chain, &mut whole] {
            assert_eq!(chain.offer(late(), &share, Source::Peer), Offer::Taken);
            confirm_all(chain);
        }
    }
    write(&mut chain, &kv);
    let fork = chain.lowest().height + REACH as u32 + 8;
    assert!(fork < chain.lowest().height + pruning.window_min && chain.lowest().height > 0);
    let (mut parent, mut branch) = (whole.at_height(fork).unwrap().id, Vec::new());
    assert!(whole.begin_sync(peer(1)));
    while branch.last().is_none_or(|share: &Share| share.score <= chain.tip().score) {
        let share = build_of(keeping).miner(200).build(&whole, &parent);
        assert_eq!(whole.offer(late(), &share, Source::Bulk(peer(1))), Offer::Taken);
        parent = share.id();
        branch.push(share);
    }
    whole.end_sync();
    confirm_all(&mut whole);
    assert_eq!((whole.confirmed_tip().id, whole.take_condemned().len()), (parent, 0));
    let again = Chain::open(pruning, [1, 2], &kv).unwrap();
    for mut chain in [again, chain] {
        assert!(chain.begin_sync(peer(1)));
        for share in &branch {
            assert_eq!(chain.offer(late(), share, Source::Bulk(peer(1))), Offer::Taken);
        }
        chain.end_sync();
        confirm_all(&mut chain);
        assert_eq!(chain.take_condemned(), []);
        assert_eq!(chain.confirmed_tip().id, parent);
        chain.sanity_check().unwrap();
    }
}

fn build_of(params: &'static Params) -> ShareBuilder {
    ShareBuilder::new(params)
}
