//! Bitcoin's side of a share, where the chain begins, and what is kept.

use super::*;
use crate::limits::{AROUND_BASE_MAX, BITCOIN_BELOW, KEPT_SLACK, PERIOD_BLOCKS, PERIODS_KEPT};
use crate::testing::bitcoin_header;

/// Grows Bitcoin's chain above a block, known to this chain.
fn blocks(chain: &mut Chain, above: &[u8; 32], count: u32, after: u32) -> Vec<Arc<crate::bitcoin::Block>> {
    let mut at = Arc::clone(chain.bitcoin().get(above).unwrap());
    (0..count)
        .map(|_| {
            let taken = chain.offer_blocks(&[bitcoin_header(&at, after)]);
            assert_eq!((taken.new.len(), taken.missing, taken.bad), (1, None, None));
            at = Arc::clone(chain.bitcoin().get(&taken.new[0].0).unwrap());
            Arc::clone(&at)
        })
        .collect()
}

fn on(block: &crate::bitcoin::Block) -> ShareBuilder {
    build().bitcoin(block.hash, block.height + 1, 0x207f_ffff)
}

#[test]
fn a_share_may_be_one_bitcoin_block_behind_and_no_more() {
    let mut chain = fresh();
    let genesis = chain.bitcoin().root().unwrap().hash;
    let (main, stale) = (blocks(&mut chain, &genesis, 3, 600), blocks(&mut chain, &genesis, 1, 601));
    let first = on(&main[0]).time(main[2].time() + 1).build(&chain, &regtest().genesis_id());
    assert_eq!(offer(&mut chain, &first, Source::Peer), Offer::Taken);
    let mut parent = first.id();
    // Forward, one back, forward to the stale one of the same height, and so on.
    for block in [&main[0], &stale[0], &main[0], &main[1], &main[0], &stale[0], &main[2], &main[1]] {
        let share = on(block).salt(block.height).build(&chain, &parent);
        assert_eq!(offer(&mut chain, &share, Source::Peer), Offer::Taken);
        parent = share.id();
        confirm_all(&mut chain);
    }
    chain.sanity_check().unwrap();
    for block in [&main[0], &stale[0]] {
        let share = on(block).build(&chain, &parent);
        assert!(matches!(offer(&mut chain, &share, Source::Peer), Offer::Invalid(why) if why.starts_with("BTC-6")));
    }
    // However many shares are one behind, the best that was used is not forgotten.
    for salt in 0..20 {
        let share = on(&main[1]).salt(100 + salt).build(&chain, &parent);
        assert_eq!(offer(&mut chain, &share, Source::Peer), Offer::Taken);
        parent = share.id();
        // It is at hand, so that nobody can make us walk down a long branch for each of its shares.
        assert_eq!(chain.tip().best_bitcoin().hash, main[2].hash);
    }
    let share = on(&main[0]).build(&chain, &parent);
    assert!(matches!(offer(&mut chain, &share, Source::Peer), Offer::Invalid(why) if why.starts_with("BTC-6")));
}

#[test]
fn a_share_waits_for_its_bitcoin_header() {
    let (mut chain, mut other) = (fresh(), fresh());
    let genesis = chain.bitcoin().root().unwrap().hash;
    let known = blocks(&mut other, &genesis, 2, 600);
    let share = on(&known[1]).time(known[1].time() + 1).build(&other, &regtest().genesis_id());
    assert_eq!(offer(&mut chain, &share, Source::Peer), Offer::Pending { missing: ShareId(known[1].hash) });
    let orphan = chain.offer_blocks(&[known[1].header]);
    assert_eq!((orphan.new, orphan.missing), (Vec::new(), Some(ShareId(known[0].hash))));
    assert_eq!(chain.offer_blocks(&[known[0].header, known[1].header]).new.len(), 2);
    assert_eq!(offer(&mut chain, &share, Source::Peer), Offer::Taken);
    // They are told, and stored, and found again.
    let kv = MemKv::new();
    let (change, batches) = chain.take_change().unwrap();
    assert_eq!(change.blocks.len(), 2);
    batches.iter().for_each(|batch| kv.write(&batch.ops, false).unwrap());
    let again = open(&kv);
    assert_eq!(again.bitcoin().best().unwrap().hash, known[1].hash);
    assert_eq!(again.tip().bitcoin.hash, known[1].hash);
}

#[test]
fn a_header_that_is_none_of_bitcoins_is_its_senders_fault() {
    let mut chain = fresh();
    let genesis = Arc::clone(chain.bitcoin().root().unwrap());
    let mut bad = bitcoin_header(&genesis, 600);
    bad[72..76].copy_from_slice(&0x207f_fffeu32.to_le_bytes());
    assert!(chain.offer_blocks(&[bad]).bad.is_some());
    assert!(chain.take_change().is_none(), "nothing is recorded");
}

/// Regtest with a short memory.
fn forgetful(kept: u32) -> &'static Params {
    let mut params = regtest().clone();
    (params.window_min, params.window_max, params.kept) = (10, 40, kept);
    Box::leak(Box::new(params))
}

/// A chain with an uncle now and then, as its shares in an order in which they can be judged.
fn long(params: &'static Params, heights: u32) -> (Chain, Vec<Share>) {
    let build = || ShareBuilder::new(params);
    let mut chain = Chain::open(params, [1, 2], &MemKv::new()).unwrap();
    let (mut shares, mut uncle): (Vec<Share>, Option<Share>) = (Vec::new(), None);
    for height in 1..=heights {
        let parent = chain.tip().id;
        let side = (height % 7 == 3).then(|| build().miner(9).salt(height).build(&chain, &parent));
        let credited: Vec<ShareId> = uncle.iter().map(Share::id).collect();
        let share = build().miner(height as u8 % 5).uncles(&credited).build(&chain, &parent);
        shares.extend(uncle.take());
        shares.push(share.clone());
        for share in [Some(&share), side.as_ref()].into_iter().flatten() {
            assert_eq!(chain.offer(late(), share, Source::Peer), Offer::Taken);
        }
        uncle = side;
        confirm_all(&mut chain);
    }
    (chain, shares)
}

/// Feeds a sync; returns how many shares it took.
fn sync(chain: &mut Chain, shares: &[Share]) {
    chain.begin_sync(peer(1));
    for share in shares {
        let fate = chain.offer(late(), share, Source::Bulk(peer(1)));
        assert!(matches!(fate, Offer::Taken | Offer::Known), "height {}: {fate:?}", share.height);
    }
    chain.end_sync();
    confirm_all(chain);
    chain.sanity_check().unwrap();
}

#[test]
fn base_synced_and_genesis_synced_nodes_agree_on_payouts() {
    let params = forgetful(120);
    let (whole, shares) = long(params, 200);
    for base in 60..75 {
        let kv = MemKv::new();
        let mut chain = Chain::open(params, [1, 2], &kv).unwrap();
        let at = shares.iter().position(|share| share.height == base && whole.table.get(&share.id()).is_some()).unwrap();
        assert_eq!(chain.begin_at(&shares[at]), Offer::Taken);
        // As a peer sends them: uncles of the base itself are not among them.
        sync(&mut chain, &shares[at + 1..]);
        assert_eq!((chain.confirmed_tip(), chain.payouts()), (whole.confirmed_tip(), whole.payouts()), "base {base}");
        for batch in chain.take_change().unwrap().1 {
            kv.write(&batch.ops, batch.own).unwrap();
        }
        let again = Chain::open(params, [1, 2], &kv).unwrap();
        again.sanity_check().unwrap();
        assert_eq!((again.confirmed_tip(), again.payouts(), again.lowest().height), (whole.confirmed_tip(), whole.payouts(), base));
    }
}

#[test]
fn above_a_base_rules_hold_from_where_they_can_be_checked() {
    let params = forgetful(120);
    let (whole, shares) = long(params, 60);
    let main: Vec<&Share> = shares.iter().filter(|share| whole.table.get(&share.id()).is_some()).collect();
    let begin = || {
        let mut chain = Chain::open(params, [1, 2], &MemKv::new()).unwrap();
        assert_eq!(chain.begin_at(main[19]), Offer::Taken);
        chain
    };
    let mut chain = begin();
    assert_eq!(chain.begin_at(main[20]), Offer::Dropped("a chain that has begun takes no base"));
    // A coinbase that pays wrongly is found once the window does not reach down to the base.
    let at = shares.iter().position(|share| share.id() == main[19].id()).unwrap();
    sync(&mut chain, &shares[at + 1..]);
    let bad = ShareBuilder::new(params).bad_coinbase().build(&chain, &chain.tip().id);
    assert_eq!(chain.offer(late(), &bad, Source::Peer), Offer::Taken);
    confirm_all(&mut chain);
    assert_eq!(chain.tip().id, main[59].id());
    // Only the sync that began here takes what lies so low, and no score is taken as given there.
    let mut chain = begin();
    chain.begin_sync(peer(1));
    let honest = ShareBuilder::new(params).build(&chain, &main[19].id());
    assert!(matches!(chain.offer(late(), &honest, Source::Peer), Offer::Dropped(_)));
    assert_eq!(chain.offer(late(), &honest, Source::Bulk(peer(1))), Offer::Taken);
    let mut share = ShareBuilder::new(params).build(&chain, &honest.id());
    share.score += 1 << 80;
    let share = crate::testing::proved(params, share, &chain);
    let fate = chain.offer(late(), &share, Source::Bulk(peer(1)));
    assert!(matches!(fate, Offer::Invalid(why) if why.starts_with("SCORE-2")), "{fate:?}");
    chain.begin_anew();
    assert_eq!((chain.tip().height, chain.lowest().height), (0, 0));
    chain.sanity_check().unwrap();
    sync(&mut chain, &shares);
    assert_eq!(chain.confirmed_tip(), whole.confirmed_tip());
}

#[test]
fn what_is_older_than_what_is_kept_is_deleted_many_heights_at_a_time() {
    let params = forgetful(100);
    let kv = MemKv::new();
    let (whole, shares) = long(params, 100 + KEPT_SLACK + 30);
    assert_eq!(whole.lowest().height, 1 + KEPT_SLACK, "one more than kept and slack, then down to what is kept");
    let mut chain = Chain::open(params, [1, 2], &kv).unwrap();
    let mut view = chain.view();
    for share in &shares {
        assert_eq!(chain.offer(late(), share, Source::Peer), Offer::Taken);
        confirm_all(&mut chain);
        if let Some((change, batches)) = chain.take_change() {
            view.apply(&change);
            batches.iter().for_each(|batch| kv.write(&batch.ops, false).unwrap());
        }
    }
    view.sanity_check().unwrap();
    chain.sanity_check().unwrap();
    assert_eq!((view.lowest(), view.payouts()), (chain.lowest(), whole.payouts()));
    assert!(view.at_height(KEPT_SLACK).is_none());
    let mut lowest = None;
    schema::shares(&kv, |height, _, _| {
        lowest.get_or_insert(height);
        Ok(())
    })
    .unwrap();
    // Of the lowest heights' uncles some are a few below.
    assert!(lowest.is_some_and(|lowest| lowest + 6 >= chain.lowest().height), "{lowest:?}");
    let again = Chain::open(params, [1, 2], &kv).unwrap();
    again.sanity_check().unwrap();
    assert_eq!((again.tip(), again.payouts(), again.lowest()), (chain.tip(), chain.payouts(), chain.lowest()));
}

/// A retarget looks one period back, from the lowest share's block too.
#[test]
fn bitcoin_headers_are_kept_a_period_below_what_the_lowest_share_builds_on() {
    let params = forgetful(100);
    let top = (2 + PERIODS_KEPT) * PERIOD_BLOCKS;
    let (mut headers, mut grown) = (Vec::new(), fresh());
    let genesis = grown.bitcoin().root().unwrap().hash;
    headers.extend(blocks(&mut grown, &genesis, top, 600).iter().map(|block| block.header));
    let edge = 2 * PERIOD_BLOCKS + BITCOIN_BELOW;
    for (height, root) in [(edge, 2 * PERIOD_BLOCKS), (edge - 1, PERIOD_BLOCKS)] {
        let kv = MemKv::new();
        let mut chain = Chain::open(params, [1, 2], &kv).unwrap();
        let mut view = chain.view();
        assert_eq!(chain.offer_blocks(&headers).new.len(), headers.len());
        let block = Arc::clone(grown.bitcoin().at_height(height).unwrap());
        for number in 0..=params.kept + KEPT_SLACK + 1 {
            assert_eq!(chain.bitcoin().root().unwrap().height, 0, "while all shares are kept");
            let build = ShareBuilder::new(params).bitcoin(block.hash, block.height + 1, block.bits());
            let build = if number == 0 { build.time(block.time() + 1) } else { build };
            let share = build.build(&chain, &chain.tip().id);
            assert_eq!(chain.offer(late(), &share, Source::Peer), Offer::Taken);
            confirm_all(&mut chain);
            let (change, batches) = chain.take_change().unwrap();
            view.apply(&change);
            batches.iter().for_each(|batch| kv.write(&batch.ops, false).unwrap());
            if chain.lowest().height > 0 {
                break;
            }
        }
        assert_eq!((chain.lowest().bitcoin.height, chain.bitcoin().root().unwrap().height), (height, root));
        assert_eq!(view.bitcoin().root().unwrap().height, root);
        chain.sanity_check().unwrap();
        // What is kept is enough to go on with after a restart.
        let again = Chain::open(params, [1, 2], &kv).unwrap();
        assert_eq!((again.tip(), again.bitcoin().root().unwrap().height), (chain.tip(), root));
    }
}

/// SPEC, BASE-2: nothing is asked of them but their work, so that there must be an end.
#[test]
fn only_so_many_uncles_are_taken_around_a_base() {
    let params = forgetful(120);
    let (whole, shares) = long(params, 60);
    let main: Vec<&Share> = shares.iter().filter(|share| whole.table.get(&share.id()).is_some()).collect();
    let mut chain = Chain::open(params, [1, 2], &MemKv::new()).unwrap();
    assert_eq!(chain.begin_at(main[49]), Offer::Taken);
    chain.begin_sync(peer(1));
    // On what is below the base and not kept.
    let parent = main[45].id();
    let uncle = |salt: usize| ShareBuilder::new(params).salt(1_000 + salt as u32).build(&whole, &parent);
    for salt in 0..AROUND_BASE_MAX {
        assert_eq!(chain.offer(late(), &uncle(salt), Source::Bulk(peer(1))), Offer::Taken, "{salt}");
    }
    let more = uncle(AROUND_BASE_MAX);
    assert_eq!(chain.offer(late(), &more, Source::Bulk(peer(1))), Offer::Pending { missing: parent });
    chain.sanity_check().unwrap();
}
