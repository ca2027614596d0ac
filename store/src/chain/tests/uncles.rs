//! Uncles, from the offer to the disk.

use super::*;
use crate::limits::{BESIDE_DEPTH, CREDITED_DEPTH, PAYOUTS_RECENT, PROVE_MAX, UNCLE_DEPTH};

/// A chain of `count` shares above genesis, all confirmed.
fn grown(kv: &dyn Kv, count: usize) -> (Chain, Vec<Share>) {
    let mut chain = open(kv);
    let shares = grow(&mut chain, regtest().genesis_id(), count, 0, Source::Peer);
    confirm_all(&mut chain);
    (chain, shares)
}

fn write(chain: &mut Chain, kv: &dyn Kv) {
    for batch in chain.take_change().unwrap_or_default().1 {
        kv.write(&batch.ops, batch.own).unwrap();
    }
}

fn taken(chain: &mut Chain, share: &Share) {
    assert_eq!(offer(chain, share, Source::Peer), Offer::Taken);
}

#[test]
fn who_lost_is_paid_nine_tenths_and_its_nephew_the_tenth() {
    let kv = MemKv::new();
    let (mut chain, shares) = grown(&kv, 5);
    let uncle = build().miner(7).build(&chain, &shares[3].id());
    taken(&mut chain, &uncle);
    confirm_all(&mut chain);
    let mut view = chain.view();
    assert_eq!(view.next(regtest(), late()).uncles, [uncle.id()], "a proved share beside the chain is offered to the next");
    let nephew = build().miner(8).uncles(&[uncle.id()]).build(&chain, &shares[4].id());
    taken(&mut chain, &nephew);
    confirm_all(&mut chain);
    chain.sanity_check().unwrap();
    let weights: BTreeMap<_, _> = chain.payouts().weights.iter().copied().collect();
    let work = chain.get(&uncle.id()).unwrap().work();
    let demand = chain.tip().demand();
    let tenth = work.min(demand);
    assert_eq!(weights[&uncle.script], 10 * work - tenth);
    assert_eq!(weights[&nephew.script], 10 * chain.tip().work() + tenth);
    // The same to who starts anew from the rows, and nobody else may credit it again.
    write(&mut chain, &kv);
    let again = open(&kv);
    again.sanity_check().unwrap();
    assert_eq!((again.tip(), again.payouts()), (chain.tip(), chain.payouts()));
    assert_eq!(again.tip().uncles(), chain.tip().uncles());
    view = again.view();
    assert!(view.next(regtest(), late()).uncles.is_empty());
    assert_eq!(view.uncle_height(&uncle.id()), Some(5));
    let second = build().uncles(&[uncle.id()]).build(&chain, &nephew.id());
    assert!(matches!(offer(&mut chain, &second, Source::Peer), Offer::Invalid(why) if why.starts_with("UNC-3")));
}

#[test]
fn what_is_no_uncle_by_its_place_is_refused() {
    let (mut chain, shares) = grown(&MemKv::new(), 27);
    let beside = |chain: &mut Chain, height: usize, salt| {
        let share = build().salt(salt).miner(9).build(chain, &shares[height - 2].id());
        taken(chain, &share);
        share
    };
    let (deep, low, near) = (beside(&mut chain, 3, 1), beside(&mut chain, 4, 2), beside(&mut chain, 27, 3));
    let child = build().salt(4).build(&chain, &near.id());
    taken(&mut chain, &child);
    let tip = shares[26].id();
    let cases = [(deep.id(), "UNC-1"), (child.id(), "UNC-1"), (shares[5].id(), "UNC-2"), (tip, "UNC-2")];
    for (salt, (uncle, sentence)) in (100..).zip(cases) {
        let share = build().salt(salt).uncles(&[uncle]).build(&chain, &tip);
        let fate = offer(&mut chain, &share, Source::Peer);
        assert!(matches!(fate, Offer::Invalid(why) if why.starts_with(sentence)), "{sentence}: {fate:?}");
    }
    // 24 below are the most; a child of a share beside the chain needs its parent credited too.
    let share = build().salt(5).uncles(&[low.id()]).build(&chain, &tip);
    taken(&mut chain, &share);
    let next = build().salt(6).build(&chain, &tip);
    taken(&mut chain, &next);
    let alone = build().salt(7).uncles(&[child.id()]).build(&chain, &next.id());
    assert!(matches!(offer(&mut chain, &alone, Source::Peer), Offer::Invalid(why) if why.starts_with("UNC-4")));
    let both = build().salt(8).uncles(&[child.id(), near.id()]).build(&chain, &next.id());
    taken(&mut chain, &both);
    confirm_all(&mut chain);
    chain.sanity_check().unwrap();
}

#[test]
fn a_share_waits_for_an_uncle_that_is_unknown() {
    let (mut chain, shares) = grown(&MemKv::new(), 3);
    let (other, _) = grown(&MemKv::new(), 3);
    let uncle = build().miner(7).build(&other, &shares[1].id());
    let nephew = build().uncles(&[uncle.id()]).build(&chain, &shares[2].id());
    assert_eq!(offer(&mut chain, &nephew, Source::Peer), Offer::Pending { missing: uncle.id() });
    taken(&mut chain, &uncle);
    taken(&mut chain, &nephew);
}

#[test]
fn who_credits_an_invalid_uncle_is_invalid_with_its_children() {
    let (mut chain, shares) = grown(&MemKv::new(), 3);
    let bad = build().miner(7).bad_coinbase().build(&chain, &shares[1].id());
    taken(&mut chain, &bad);
    // Credited before it was proved.
    let nephew = build().uncles(&[bad.id()]).build(&chain, &shares[2].id());
    taken(&mut chain, &nephew);
    let child = build().build(&chain, &nephew.id());
    taken(&mut chain, &child);
    confirm_all(&mut chain);
    assert_eq!((chain.tip().id, chain.side_len()), (shares[2].id(), 0));
    assert!(matches!(offer(&mut chain, &bad, Source::Peer), Offer::Invalid(why) if why.starts_with("COIN-9")));
    for share in [&nephew, &child] {
        assert!(matches!(offer(&mut chain, share, Source::Peer), Offer::Invalid(BUILDS_ON_INVALID)));
    }
    // And after.
    let late = build().salt(1).uncles(&[bad.id()]).build(&chain, &shares[2].id());
    assert!(matches!(offer(&mut chain, &late, Source::Peer), Offer::Invalid(BUILDS_ON_INVALID)));
    chain.sanity_check().unwrap();
}

#[test]
fn an_uncle_in_layout_front_that_a_relay_has_changed_is_fetched_again() {
    let (mut chain, shares) = grown(&MemKv::new(), 3);
    let honest = build().miner(7).layout(Layout::Front).build(&chain, &shares[1].id());
    let mut changed = honest.clone();
    changed.proof.extranonce[3] ^= 1;
    taken(&mut chain, &changed);
    let nephew = build().uncles(&[honest.id()]).build(&chain, &shares[2].id());
    taken(&mut chain, &nephew);
    confirm_all(&mut chain);
    assert_eq!(chain.tip().id, shares[2].id());
    assert_eq!(offer(&mut chain, &nephew, Source::Peer), Offer::Pending { missing: honest.id() });
    taken(&mut chain, &honest);
    taken(&mut chain, &nephew);
    confirm_all(&mut chain);
    assert_eq!(chain.confirmed_tip().id, nephew.id());
}

/// The share that was ours becomes the uncle of the branch that beat it, and back again.
#[test]
fn a_share_cut_by_a_reorg_is_the_new_chains_uncle() {
    let kv = MemKv::new();
    let (mut chain, shares) = grown(&kv, 4);
    let ours = build().miner(7).build(&chain, &shares[3].id());
    taken(&mut chain, &ours);
    confirm_all(&mut chain);
    write(&mut chain, &kv);
    let theirs = build().miner(8).build(&chain, &shares[3].id());
    taken(&mut chain, &theirs);
    let nephew = build().uncles(&[ours.id()]).build(&chain, &theirs.id());
    taken(&mut chain, &nephew);
    confirm_all(&mut chain);
    write(&mut chain, &kv);
    chain.sanity_check().unwrap();
    assert_eq!(chain.confirmed_tip().id, nephew.id());
    // A branch on ours wins again, without the uncle; its rows stay until nobody needs them.
    let back = grow(&mut chain, ours.id(), 2, 9, Source::Peer);
    confirm_all(&mut chain);
    write(&mut chain, &kv);
    chain.sanity_check().unwrap();
    let again = open(&kv);
    assert_eq!(again.confirmed_tip().id, back[1].id());
    assert!(again.get(&nephew.id()).is_some() && again.get(&theirs.id()).is_some());
    // And once more.
    let mut again = again;
    let last = grow(&mut again, nephew.id(), 2, 10, Source::Peer);
    confirm_all(&mut again);
    again.sanity_check().unwrap();
    assert_eq!(again.confirmed_tip().id, last[1].id());
    assert_eq!(again.payouts().weights, crate::testing::payouts(regtest(), &Rescan(&again), again.tip()).weights);
}

/// An ancestry that has no payouts at hand.
struct Rescan<'a>(&'a Chain);

impl Ancestry for Rescan<'_> {
    fn record(&self, id: &ShareId) -> Option<Arc<Record>> {
        self.0.get(id).cloned()
    }
}

#[test]
fn a_side_share_is_proved_when_there_is_time_and_then_relayed() {
    let (mut chain, shares) = grown(&MemKv::new(), 30);
    chain.take_change();
    let (good, bad) = (build().salt(1).build(&chain, &shares[28].id()), build().salt(2).bad_coinbase().build(&chain, &shares[28].id()));
    // Too deep to be an uncle of the next share: not worth the work.
    let deep = build().salt(3).build(&chain, &shares[2].id());
    for share in [&good, &bad, &deep] {
        taken(&mut chain, share);
    }
    assert!(chain.has_unproven());
    confirm_all(&mut chain);
    assert!(!chain.has_unproven());
    let (change, batches) = chain.take_change().unwrap();
    let told: Vec<_> = change.beside.iter().map(|beside| (beside.record.id, beside.bytes.is_some())).collect();
    assert_eq!(told, [(good.id(), true)]);
    assert!(batches.is_empty(), "it is in memory alone: {batches:?}");
    assert_eq!(chain.take_condemned().len(), 1);
    let mut view = fresh().view();
    assert!(view.beside(&good.id()).is_none());
    view = chain.view();
    assert_eq!(view.bytes(&good.id()).unwrap()[..], good.encode());
    assert!(view.beside(&deep.id()).is_none() && view.beside(&bad.id()).is_none());
}

#[test]
fn uncles_of_a_lost_branch_lose_their_rows_with_it() {
    let kv = MemKv::new();
    let (mut chain, shares) = grown(&kv, 3);
    let uncle = build().miner(7).build(&chain, &shares[1].id());
    taken(&mut chain, &uncle);
    let nephew = build().uncles(&[uncle.id()]).build(&chain, &shares[2].id());
    taken(&mut chain, &nephew);
    confirm_all(&mut chain);
    write(&mut chain, &kv);
    assert!(kv.get(Family::Shares, &schema::share_key(3, &uncle.id())).unwrap().is_some());
    grow(&mut chain, shares[2].id(), 3, 1, Source::Peer);
    confirm_all(&mut chain);
    // Everything beside the chain is pushed out.
    for live in chain.side.take_below(9) {
        chain.forget(&live);
    }
    write(&mut chain, &kv);
    for (height, id) in [(3, uncle.id()), (4, nephew.id())] {
        assert!(kv.get(Family::Shares, &schema::share_key(height, &id)).unwrap().is_none(), "height {height}");
    }
    chain.sanity_check().unwrap();
}

/// Above these the window is not walked down for an uncle: payouts at the parent of any that may be credited are at hand.
#[test]
fn payouts_are_at_hand_down_to_the_parent_of_the_deepest_uncle() {
    let check = |chain: &Chain| {
        let newest = |at: usize| chain.table.at(chain.confirmed_height() - at as u32).unwrap();
        for (at, (payouts, whole)) in chain.payouts.iter().rev().enumerate() {
            assert_eq!(payouts.parent, newest(at).id);
            assert!(*whole, "down to genesis");
            // As one computes them who has nothing but the shares: the tip's alone are taken from the chain.
            let record = newest(at);
            let below = ShareBuilder::new(regtest()).build(chain, &record.id);
            assert_eq!(crate::rules::share::check_coinbase(regtest(), &below, payouts), Ok(()), "{at} below the tip");
        }
    };
    let (mut chain, shares) = grown(&MemKv::new(), PAYOUTS_RECENT - 2);
    assert_eq!(chain.payouts.len(), shares.len() + 1, "genesis too");
    let more = grow(&mut chain, shares[shares.len() - 1].id(), 20, 0, Source::Peer);
    confirm_all(&mut chain);
    assert_eq!(chain.payouts.len(), PAYOUTS_RECENT);
    check(&chain);
    let parent = chain.table.at(chain.confirmed_height() - UNCLE_DEPTH - 1).unwrap().id;
    assert!(chain.payouts.iter().any(|(payouts, _)| payouts.parent == parent));
    // After a reorg those of the shares that were replaced are gone.
    grow(&mut chain, more[9].id(), 11, 1, Source::Peer);
    confirm_all(&mut chain);
    assert_eq!(chain.confirmed_height() as usize, PAYOUTS_RECENT - 2 + 21);
    assert!(chain.payouts.len() <= PAYOUTS_RECENT && chain.payouts.len() > 11);
    check(&chain);
}

#[test]
fn the_view_keeps_what_is_proved_beside_the_best_chain_so_deep() {
    let (mut chain, shares) = grown(&MemKv::new(), 5);
    let side = build().miner(7).build(&chain, &shares[3].id());
    taken(&mut chain, &side);
    confirm_all(&mut chain);
    let mut view = chain.view();
    chain.take_change();
    for confirmed in 5..side.height + BESIDE_DEPTH + 3 {
        assert_eq!(view.confirmed_height(), confirmed);
        assert_eq!(view.beside(&side.id()).is_some(), confirmed < side.height + BESIDE_DEPTH, "at height {confirmed}");
        let tip = chain.tip().id;
        grow(&mut chain, tip, 1, 0, Source::Peer);
        confirm_all(&mut chain);
        view.apply(&chain.take_change().unwrap().0);
    }
}

/// A branch beside the chain that others keep up with, perhaps since they do not mine upon its tip, can be gone on with.
#[test]
fn long_branches_beside_the_chain_are_proved_to_a_limit() {
    let mut chain = open(&MemKv::new());
    let genesis = regtest().genesis_id();
    let (mut main, mut branch) = (vec![grow(&mut chain, genesis, 1, 0, Source::Peer)[0].id()], Vec::new());
    for number in 0..PROVE_MAX + 2 {
        main.push(grow(&mut chain, main[number], 1, 0, Source::Peer)[0].id());
        let on = branch.last().copied().unwrap_or(genesis);
        branch.push(grow(&mut chain, on, 1, 1, Source::Peer)[0].id());
        confirm_all(&mut chain);
    }
    assert_eq!(Some(&chain.confirmed_tip().id), main.last());
    let proved: Vec<bool> = branch.iter().map(|id| chain.side.get(id).unwrap().proven).collect();
    assert_eq!(proved, [vec![true; PROVE_MAX + 1], vec![false]].concat());
    chain.sanity_check().unwrap();
}

/// A chain of which each uncle credits the one before, 22 heights below it, and is credited itself 23 heights above: the shares in an
/// order in which they can be judged, and the uncles.
fn ladder(chain: &mut Chain, heights: u32) -> (Vec<Share>, Vec<Share>) {
    let apart = UNCLE_DEPTH - 2;
    let (mut shares, mut uncles): (Vec<Share>, Vec<Share>) = (Vec::new(), Vec::new());
    for height in 1..=heights {
        let parent = chain.tip().id;
        let credited = if height % apart == 2 { uncles.iter().rev().nth(1).map(Share::id) } else { None };
        shares.push(build().uncles(credited.as_slice()).build(chain, &parent));
        if height % apart == 1 {
            let last = uncles.last().map(Share::id);
            uncles.push(build().miner(9).uncles(last.as_slice()).build(chain, &parent));
            shares.extend(uncles.last().cloned());
        }
        for share in shares.iter().filter(|share| share.height == height) {
            taken(chain, share);
        }
        confirm_all(chain);
    }
    (shares, uncles)
}

/// An uncle above a deep fork credits one that both chains credit, and that one another, and so on down to where the chain began. What our
/// own chain credits was judged when it did: it is asked for, since it is not at hand any more, but not all that it stands on.
#[test]
fn what_the_chain_credits_is_not_judged_again_with_all_that_it_stands_on() {
    let kv = MemKv::new();
    let mut chain = open(&kv);
    let (shares, uncles) = ladder(&mut chain, 160);
    let (low, below) = (&uncles[3], &uncles[2]);
    assert!(low.uncles == [below.id()] && below.uncles == [uncles[1].id()]);
    write(&mut chain, &kv);
    // The other chain parts from ours where this uncle is credited, and credits one that credits it too.
    let mut theirs = fresh();
    let fork = low.height + UNCLE_DEPTH - 1;
    shares.iter().filter(|share| share.height <= fork).for_each(|share| taken(&mut theirs, share));
    let [on, parent] = [fork, fork - 2].map(|height| theirs.at_height(height).unwrap().id);
    let uncle = build().miner(8).uncles(&[low.id()]).build(&theirs, &parent);
    taken(&mut theirs, &uncle);
    let nephew = build().salt(1).uncles(&[uncle.id()]).build(&theirs, &on);
    taken(&mut theirs, &nephew);
    let above = grow(&mut theirs, nephew.id(), 80, 1, Source::Peer);
    confirm_all(&mut theirs);
    // A restart has forgotten what was credited so far below the tip.
    let mut chain = open(&kv);
    let from = Source::Bulk(peer(1));
    assert!(chain.begin_sync(peer(1)));
    assert_eq!(offer(&mut chain, &uncle, from), Offer::Pending { missing: low.id() });
    assert_eq!(offer(&mut chain, low, from), Offer::Taken);
    assert_eq!(chain.get(&low.id()).map(|record| record.uncles()), Some(&[theirs.get(&below.id()).unwrap().as_uncle()][..]));
    for share in [&uncle, &nephew].into_iter().chain(&above) {
        assert_eq!(offer(&mut chain, share, from), Offer::Taken);
    }
    chain.end_sync();
    confirm_all(&mut chain);
    chain.sanity_check().unwrap();
    assert_eq!((chain.confirmed_tip(), chain.payouts()), (theirs.confirmed_tip(), theirs.payouts()));
    write(&mut chain, &kv);
    let again = open(&kv);
    again.sanity_check().unwrap();
    assert_eq!((again.confirmed_tip(), again.payouts()), (theirs.confirmed_tip(), theirs.payouts()));
}

/// An uncle may lie 24 below its nephew, and what it credits 24 below that: all this is at hand, whatever is kept beside the chain.
#[test]
fn what_an_uncle_of_the_next_share_credits_is_at_hand_after_a_sync_and_a_restart() {
    let kv = MemKv::new();
    let (shares, uncles) = ladder(&mut fresh(), 22 * 6 + 2);
    let mut chain = open(&kv);
    assert!(chain.begin_sync(peer(1)));
    for share in &shares {
        assert_eq!(offer(&mut chain, share, Source::Bulk(peer(1))), Offer::Taken);
        confirm_all(&mut chain);
    }
    chain.end_sync();
    write(&mut chain, &kv);
    for uncle in &uncles[..uncles.len() - 1] {
        let (at, tip, at_hand) = (uncle.height, chain.tip().height, open(&kv).named(&uncle.id()).is_some());
        assert!(at_hand || at + CREDITED_DEPTH <= tip, "at {at} of {tip}");
        assert!(!at_hand || at + CREDITED_DEPTH + UNCLE_DEPTH > tip, "at {at} of {tip}: no more than is asked for");
    }
    for mut chain in [chain, open(&kv)] {
        // The deepest that the next share may credit, beside the ladder's own, credits the step below.
        let (low, parent) = (&uncles[4], chain.at_height(chain.tip().height - UNCLE_DEPTH).unwrap().id);
        assert!(low.height + 2 * UNCLE_DEPTH == chain.tip().height + 3 && chain.table.uncle_height(&low.id()).is_some());
        let uncle = build().miner(8).uncles(&[low.id()]).build(&chain, &parent);
        taken(&mut chain, &uncle);
        confirm_all(&mut chain);
        let tip = chain.tip().id;
        let nephew = build().uncles(&[uncle.id()]).build(&chain, &tip);
        taken(&mut chain, &nephew);
        confirm_all(&mut chain);
        assert_eq!(chain.confirmed_tip().id, nephew.id());
        chain.sanity_check().unwrap();
    }
}
