#![expect(clippy::unwrap_used, reason = "tests")]

mod base;
mod failures;
mod headers;
mod hostile;
mod uncles;

use std::collections::BTreeSet;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_net::time::Now;
use rockpool_net::wire::share::{Layout, Share};

use super::*;
use crate::error::StoreError;
use crate::kv::{Family, Kv, MemKv, Op};
use crate::limits::{SCRATCH_BYTES_MAX, SIDE_MAX, SPAM_DEPTH};
use crate::params::{Network, params};
use crate::record::Place;
use crate::rules;
use crate::schema;
use crate::testing::{Ancestry, ShareBuilder};

fn regtest() -> &'static Params {
    params(Network::Regtest)
}

fn build() -> ShareBuilder {
    ShareBuilder::new(regtest())
}

/// Late enough for every share of a test.
fn late() -> Now {
    Now { mono: Duration::ZERO, wall: Duration::from_secs(2_000_000_000) }
}

fn peer(slot: u32) -> ConnId {
    ConnId { slot, generation: 1 }
}

fn open(kv: &dyn Kv) -> Chain {
    Chain::open(regtest(), [1, 2], kv).unwrap()
}

fn fresh() -> Chain {
    open(&MemKv::new())
}

fn confirm_all(chain: &mut Chain) {
    while chain.confirm(8) > 0 {}
}

fn offer(chain: &mut Chain, share: &Share, source: Source) -> Offer {
    chain.offer(late(), share, source)
}

/// Grows a chain by shares that differ by `salt`, each taken; returns them.
fn grow(chain: &mut Chain, from: ShareId, count: usize, salt: u32, source: Source) -> Vec<Share> {
    let mut parent = from;
    let mut shares = Vec::new();
    for _ in 0..count {
        let share = build().salt(salt).build(chain, &parent);
        assert_eq!(offer(chain, &share, source), Offer::Taken);
        parent = share.id();
        shares.push(share);
    }
    shares
}

/// Builds a branch that no chain knows.
fn branch(model: &mut Model, from: ShareId, count: usize, salt: u32) -> Vec<Share> {
    let mut parent = from;
    let mut shares = Vec::new();
    for _ in 0..count {
        let share = build().salt(salt).build(model, &parent);
        model.add(&share, true);
        parent = share.id();
        shares.push(share);
    }
    shares
}

/// All shares there are and nothing else: what is best is worked out from scratch.
struct Model {
    records: BTreeMap<ShareId, Arc<Record>>,
    good: BTreeSet<ShareId>,
    order: Vec<ShareId>,
}

impl Ancestry for Model {
    fn record(&self, id: &ShareId) -> Option<Arc<Record>> {
        self.records.get(id).cloned()
    }
}

impl Model {
    fn new() -> Model {
        let genesis = Arc::new(regtest().genesis_record());
        Model { good: BTreeSet::from([genesis.id]), order: vec![genesis.id], records: BTreeMap::from([(genesis.id, genesis)]) }
    }

    fn add(&mut self, share: &Share, good: bool) {
        let (id, parent) = (share.id(), self.record(&share.parent).unwrap());
        let derived = rules::child(regtest(), &parent, share.time);
        let place = Place {
            allowed_bits: derived.allowed_bits,
            best_bitcoin: None,
            script: Arc::new(share.script),
            bitcoin: Arc::clone(&parent.bitcoin),
            uncles: share.uncles.iter().map(|uncle| self.records[uncle].as_uncle()).collect(),
        };
        self.records.insert(id, Arc::new(place.record(share, id)));
        if good && self.good.contains(&share.parent) {
            self.good.insert(id);
        }
        self.order.push(id);
    }

    /// The highest score among shares with none but good ancestors; of equal ones the first seen.
    fn best(&self) -> &Arc<Record> {
        let good = self.order.iter().filter(|id| self.good.contains(id)).map(|id| &self.records[id]);
        good.reduce(|best, record| if record.score > best.score { record } else { best }).unwrap()
    }

    /// A parent near the tip: the tip, a rival of it, so that branches overtake each other, or one of the last few.
    fn draw_parent(&self, rng: &mut ChaCha12Rng) -> ShareId {
        let best = self.best();
        let line: Vec<_> =
            std::iter::successors(Some(best), |record| self.records.get(&record.parent)).take(16).map(|record| record.id).collect();
        let last = &self.order[self.order.len().saturating_sub(16)..];
        let rivals = last.iter().filter(|id| !line.contains(id) && self.good.contains(id));
        let rival = rivals.max_by_key(|id| self.records[id].score).copied();
        match rng.next_u32() % 8 {
            0..3 => best.id,
            3..7 => rival.unwrap_or(best.id),
            _ => last[rng.next_u32() as usize % last.len()],
        }
    }

    fn draw_share(&self, rng: &mut ChaCha12Rng) -> (Share, bool) {
        let parent = self.draw_parent(rng);
        let good = !rng.next_u32().is_multiple_of(12);
        let time = self.records[&parent].time + 1 + rng.next_u32() % 3;
        let harder = [0, 0, 0, 1, 3][rng.next_u32() as usize % 5];
        let share = build().miner(rng.next_u32() as u8 % 5).salt(rng.next_u32()).time(time).harder(harder);
        let share = if good { share } else { share.bad_coinbase() };
        (share.build(self, &parent), good)
    }
}

/// Asserts that a view is the chain.
fn assert_same(view: &ChainView, chain: &Chain) {
    view.sanity_check().unwrap();
    assert_eq!(view.tip(), chain.tip());
    assert_eq!(view.confirmed_tip(), chain.confirmed_tip());
    assert_eq!(view.payouts(), chain.payouts());
    for height in 0..=chain.tip().height {
        assert_eq!(view.at_height(height), chain.table.at(height));
    }
}

#[test]
fn random_trees_agree_with_a_model_that_works_it_out_from_scratch() {
    let mut reorgs = 0;
    for seed in 0..60 {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let (mut model, mut chain) = (Model::new(), fresh());
        let mut view = chain.view();
        for step in 0..120 {
            let (share, good) = model.draw_share(&mut rng);
            let source = if rng.next_u32().is_multiple_of(3) { Source::Own } else { Source::Peer };
            match offer(&mut chain, &share, source) {
                Offer::Taken => model.add(&share, good),
                Offer::Dropped(_) => assert!(share.score + SPAM_DEPTH * model.best().demand() < model.best().score),
                Offer::Invalid(_) => assert!(!model.good.contains(&share.parent)),
                // Its parent was invalid in layout tail, so it is remembered, or was dropped.
                other => assert!(matches!(other, Offer::Pending { .. }), "seed {seed} step {step}: {other:?}"),
            }
            confirm_all(&mut chain);
            chain.sanity_check().unwrap();
            assert_eq!(chain.tip().id, model.best().id, "seed {seed} step {step}");
            assert_eq!(chain.confirmed_height(), chain.tip().height);
            assert_eq!(**chain.payouts(), *crate::testing::payouts(regtest(), &Bare(&model), model.best()));
            if let Some((change, _)) = chain.take_change() {
                reorgs += u32::from(view.apply(&change) > 0);
            }
            assert_same(&view, &chain);
        }
    }
    assert!(reorgs > 20, "{reorgs} reorgs");
}

/// An ancestry that has no payouts at hand.
struct Bare<'a>(&'a Model);

impl Ancestry for Bare<'_> {
    fn record(&self, id: &ShareId) -> Option<Arc<Record>> {
        self.0.record(id)
    }
}

#[test]
fn a_lazy_confirmation_ends_where_an_eager_one_does() {
    for seed in 100..112 {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let (mut model, mut chain) = (Model::new(), fresh());
        let mut view = chain.view();
        for _ in 0..100 {
            let (share, good) = model.draw_share(&mut rng);
            if offer(&mut chain, &share, Source::Peer) == Offer::Taken {
                model.add(&share, good);
            }
            if rng.next_u32().is_multiple_of(5) {
                chain.confirm(rng.next_u32() as usize % 4);
            }
            if rng.next_u32().is_multiple_of(4)
                && let Some((change, _)) = chain.take_change()
            {
                view.apply(&change);
                assert_same(&view, &chain);
            }
            chain.sanity_check().unwrap();
        }
        confirm_all(&mut chain);
        assert_eq!(chain.tip().id, model.best().id, "seed {seed}");
        assert!(model.good.contains(&chain.tip().id));
        if let Some((change, _)) = chain.take_change() {
            view.apply(&change);
        }
        assert_same(&view, &chain);
    }
}

/// A random history: the changes it made to rows, in order, each with the own shares that had to be on disk before it.
fn history(seed: u64, steps: usize, kvs: &[&dyn Kv]) -> (Chain, Vec<Vec<Op>>) {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let (mut model, mut chain) = (Model::new(), open(kvs[0]));
    let mut written = Vec::new();
    for _ in 0..steps {
        let (share, good) = model.draw_share(&mut rng);
        let source = if rng.next_u32().is_multiple_of(2) { Source::Own } else { Source::Peer };
        if offer(&mut chain, &share, source) == Offer::Taken {
            model.add(&share, good);
        }
        chain.confirm(rng.next_u32() as usize % 3);
        if rng.next_u32().is_multiple_of(3)
            && let Some((_, batches)) = chain.take_change()
        {
            for batch in batches {
                kvs.iter().for_each(|kv| kv.write(&batch.ops, batch.own).unwrap());
                written.push(batch.ops);
            }
        }
    }
    (chain, written)
}

fn rows(kv: &dyn Kv) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    for family in [Family::Shares, Family::Meta] {
        kv.scan(family, &[], &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            true
        })
        .unwrap();
    }
    rows
}

/// The best score among the stored shares, by rows alone.
fn best_stored(kv: &dyn Kv) -> u128 {
    let mut known = BTreeMap::from([(regtest().genesis_id(), 0)]);
    schema::shares(kv, |_, id, bytes| {
        let share = Share::decode(bytes).unwrap();
        if known.contains_key(&share.parent) {
            known.insert(id, share.score);
        }
        Ok(())
    })
    .unwrap();
    known.into_values().max().unwrap()
}

#[test]
fn a_restart_finds_what_was() {
    for seed in 0..10 {
        let kv = MemKv::new();
        let (mut chain, _) = history(seed, 80, &[&kv]);
        confirm_all(&mut chain);
        for batch in chain.take_change().unwrap_or_default().1 {
            kv.write(&batch.ops, batch.own).unwrap();
        }
        let mut again = open(&kv);
        again.sanity_check().unwrap();
        assert_eq!(again.tip(), chain.tip());
        assert_eq!(again.confirmed_tip(), chain.confirmed_tip());
        assert_eq!(again.payouts(), chain.payouts());
        assert_eq!(again.window, chain.window);
        let stored = chain.side.iter().filter(|live| live.row).map(|live| &live.record);
        assert_eq!(again.side.iter().map(|live| &live.record).collect::<Vec<_>>(), stored.collect::<Vec<_>>());
        assert!(again.take_change().is_none(), "an orderly stop leaves nothing to do");
    }
}

#[test]
fn a_crash_after_any_change_of_a_row_leaves_a_whole_chain_and_every_own_share() {
    for seed in 20..26 {
        let (_, written) = history(seed, 60, &[&MemKv::new()]);
        let kv = MemKv::new();
        let mut own = BTreeSet::new();
        // Finer than what can happen: batches are atomic, here each of their changes may be the last.
        for op in written.iter().flatten() {
            kv.write(std::slice::from_ref(op), true).unwrap();
            match op {
                Op::Put(Family::Shares, key, _) => own.insert(key.clone()),
                Op::Delete(_, key) => own.remove(key),
                Op::Put(
                    Family::Meta
                    | Family::Bitcoin
                    | Family::Templates
                    | Family::Pplns
                    | Family::Blocks
                    | Family::Peers
                    | Family::Figures
                    | Family::Portfolios,
                    ..,
                ) => false,
            };
            let mut chain = open(&kv);
            chain.sanity_check().unwrap();
            assert_eq!(chain.tip().score, best_stored(&kv), "seed {seed}");
            let kept = |key: &Vec<u8>| chain.get(&ShareId(key[4..].try_into().unwrap())).is_some();
            assert!(own.iter().all(kept), "seed {seed}: a stored share is missing");
            confirm_all(&mut chain);
            chain.sanity_check().unwrap();
        }
        assert!(own.len() > 20, "{} rows", own.len());
    }
}

#[test]
fn power_may_fail_again_and_again() {
    for seed in 40..46 {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let kv = MemKv::new();
        let mut chain = open(&kv);
        let (mut synced, mut unsynced) = (BTreeSet::new(), Vec::new());
        for step in 0..240 {
            let parent = if rng.next_u32().is_multiple_of(3) { chain.tip().parent } else { chain.confirmed_tip().id };
            let parent = if chain.get(&parent).is_some() { parent } else { chain.tip().id };
            let source = if rng.next_u32().is_multiple_of(4) { Source::Own } else { Source::Peer };
            let share = build().salt(step).miner(step as u8 % 7).build(&chain, &parent);
            assert_eq!(offer(&mut chain, &share, source), Offer::Taken);
            chain.confirm(rng.next_u32() as usize % 3);
            if source == Source::Own {
                unsynced.push(share.id());
            }
            for batch in chain.take_change().unwrap_or_default().1 {
                kv.write(&batch.ops, batch.own).unwrap();
                if batch.own {
                    synced.extend(unsynced.drain(..).filter(|id| batch.ids.contains(id)));
                }
            }
            if rng.next_u32().is_multiple_of(10) {
                kv.crash(rng.next_u32() as usize % (kv.unsynced() + 1));
                unsynced.clear();
                chain = open(&kv);
                chain.sanity_check().unwrap();
                assert!(synced.iter().all(|id| chain.get(id).is_some()), "seed {seed} step {step}: a synced own share is missing");
            }
        }
        assert!(synced.len() > 40 && chain.tip().height > 50, "{} own, height {}", synced.len(), chain.tip().height);
    }
}

#[cfg(feature = "rocks")]
#[test]
fn rocksdb_and_memory_hold_the_same_history() {
    let dir = tempfile::tempdir().unwrap();
    let (mem, rocks) = (MemKv::new(), crate::rocks::RocksKv::open(dir.path()).unwrap());
    schema::open(&mem, regtest(), "mem").unwrap();
    schema::open(&rocks, regtest(), "rocks").unwrap();
    history(7, 150, &[&mem, &rocks]);
    assert_eq!(rows(&mem), rows(&rocks));
    drop(rocks);
    let rocks = crate::rocks::RocksKv::open(dir.path()).unwrap();
    schema::open(&rocks, regtest(), "rocks").unwrap();
    assert_eq!(rows(&mem), rows(&rocks));
    let (a, b) = (open(&mem), open(&rocks));
    assert_eq!((a.tip(), a.confirmed_tip(), a.side_len()), (b.tip(), b.confirmed_tip(), b.side_len()));
    assert!(a.tip().height > 20);
}

#[test]
fn a_share_waits_for_its_parent_and_for_its_time() {
    let (mut chain, mut model) = (fresh(), Model::new());
    let shares = branch(&mut model, chain.tip().id, 2, 0);
    assert_eq!(offer(&mut chain, &shares[1], Source::Peer), Offer::Pending { missing: shares[0].id() });
    let now = |unix: u32| Now { mono: Duration::ZERO, wall: Duration::from_secs(u64::from(unix)) };
    let due = shares[0].time - regtest().time_ahead_max_s;
    assert_eq!(chain.offer(now(due - 1), &shares[0], Source::Peer), Offer::Early { due });
    assert_eq!(chain.offer(now(due), &shares[0], Source::Peer), Offer::Taken);
    assert_eq!(offer(&mut chain, &shares[0], Source::Own), Offer::Known);
    assert_eq!(offer(&mut chain, &shares[1], Source::Peer), Offer::Taken);
    assert_eq!((chain.tip().height, chain.backlog(), chain.confirmed_height()), (2, 2, 0));
    assert_eq!(chain.confirm(1), 1);
    assert_eq!((chain.backlog(), chain.confirmed_height()), (1, 1));
}

#[test]
fn flipped_bytes_of_an_honest_share_never_poison_its_id() {
    let mut chain = fresh();
    grow(&mut chain, regtest().genesis_id(), 3, 0, Source::Peer);
    confirm_all(&mut chain);
    let honest = build().salt(5).build(&chain, &chain.tip().id);
    let bytes = honest.encode();
    let mut bad = 0;
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let Ok(share) = Share::decode(&flipped) else { continue };
        let fate = offer(&mut chain, &share, Source::Peer);
        if share.id() == honest.id() {
            assert!(matches!(fate, Offer::Bad(_)), "byte {at}: {fate:?}");
            bad += 1;
        }
        assert!(!chain.invalid.contains_key(&honest.id()) && chain.get(&honest.id()).is_none(), "byte {at}");
    }
    assert!(bad > 200, "{bad} flips were refused as bad");
    assert_eq!(offer(&mut chain, &honest, Source::Peer), Offer::Taken);
}

#[test]
fn a_failed_rebuild_takes_the_children_with_it() {
    let kv = MemKv::new();
    let mut chain = open(&kv);
    let honest = grow(&mut chain, regtest().genesis_id(), 3, 0, Source::Peer);
    confirm_all(&mut chain);
    let bad = build().salt(1).bad_coinbase().build(&chain, &honest[1].id());
    assert_eq!(offer(&mut chain, &bad, Source::Own), Offer::Taken);
    let child = build().salt(2).build(&chain, &bad.id());
    assert_eq!(offer(&mut chain, &child, Source::Peer), Offer::Taken);
    let nephew = build().salt(3).build(&chain, &bad.id());
    assert_eq!(offer(&mut chain, &nephew, Source::Own), Offer::Taken);
    let grandchild = build().salt(4).build(&chain, &child.id());
    assert_eq!(chain.tip().id, child.id());
    let (change, batches) = chain.take_change().unwrap();
    assert_eq!((change.fork_height, change.confirmed_height, change.bytes.len()), (0, 2, 6));
    batches.iter().for_each(|batch| kv.write(&batch.ops, batch.own).unwrap());
    assert_eq!(chain.confirm(8), 2);
    chain.sanity_check().unwrap();
    // The honest tip comes back, without being rebuilt again, and the rows of the others go.
    assert_eq!((chain.tip().id, chain.backlog(), chain.side_len()), (honest[2].id(), 0, 0));
    let (change, batches) = chain.take_change().unwrap();
    assert_eq!((change.fork_height, change.confirmed, change.bytes.len()), (2, vec![honest[2].id()], 0));
    batches.iter().for_each(|batch| kv.write(&batch.ops, batch.own).unwrap());
    assert_eq!(rows(&kv).len(), 3 + 1);
    for share in [&bad, &child, &nephew, &grandchild, &grandchild] {
        assert!(matches!(offer(&mut chain, share, Source::Peer), Offer::Invalid(_)));
    }
    assert_eq!(open(&kv).tip().id, honest[2].id());
}

#[test]
fn in_layout_front_a_failed_rebuild_says_nothing_of_the_id() {
    let mut chain = fresh();
    let honest = build().layout(Layout::Front).build(&chain, &chain.tip().id);
    let mut flipped = honest.clone();
    flipped.proof.extranonce[3] ^= 1;
    assert_eq!(offer(&mut chain, &flipped, Source::Peer), Offer::Taken);
    assert_eq!(chain.confirm(1), 1);
    assert!(chain.get(&honest.id()).is_none());
    assert_eq!(offer(&mut chain, &honest, Source::Peer), Offer::Taken);
    assert_eq!(chain.confirm(1), 1);
    assert_eq!((chain.confirmed_tip().id, chain.invalid.len()), (honest.id(), 0));
}

#[test]
fn a_broken_rule_on_tied_fields_is_remembered() {
    let mut chain = fresh();
    grow(&mut chain, regtest().genesis_id(), 12, 0, Source::Peer);
    let stale = build().time(chain.tip().time - 8).build(&chain, &chain.tip().id);
    let why = match offer(&mut chain, &stale, Source::Peer) {
        Offer::Invalid(why) => why,
        other => panic!("{other:?}"),
    };
    assert!(why.starts_with("TIME-1"));
    assert_eq!(offer(&mut chain, &stale, Source::Peer), Offer::Invalid(why));
}

#[test]
fn invalid_shares_are_remembered_up_to_a_limit() {
    let mut chain = fresh();
    for number in 0..=INVALID_MAX as u64 {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        chain.mark_invalid(ShareId(id), "for a test");
    }
    assert_eq!((chain.invalid.len(), chain.invalid_order.len()), (INVALID_MAX, INVALID_MAX));
    assert!(!chain.invalid.contains_key(&ShareId([0; 32])), "the oldest goes first");
}

#[test]
fn what_lies_too_far_below_the_tip_is_dropped() {
    let mut chain = fresh();
    let genesis = regtest().genesis_id();
    // Each of them counts sixteen times.
    for _ in 0..30 {
        let share = build().harder(4).build(&chain, &chain.tip().id);
        assert_eq!(offer(&mut chain, &share, Source::Peer), Offer::Taken);
    }
    let stale = build().salt(1).build(&chain, &genesis);
    // 30 of the hardest shares below our tip: kept. One more: dropped, our own as well.
    assert_eq!(offer(&mut chain, &stale, Source::Peer), Offer::Taken);
    let tip = chain.tip().id;
    grow(&mut chain, tip, 2, 0, Source::Peer);
    confirm_all(&mut chain);
    for source in [Source::Own, Source::Peer, Source::Bulk(peer(1))] {
        let stale = build().salt(2).build(&chain, &genesis);
        assert!(matches!(offer(&mut chain, &stale, source), Offer::Dropped(_)));
    }
    assert_eq!(chain.side_len(), 1);
}

#[test]
fn an_own_share_on_the_confirmed_tip_is_taken_whatever_stands_above_without_proof() {
    let (mut chain, genesis) = (fresh(), regtest().genesis_id());
    let honest = grow(&mut chain, genesis, 3, 0, Source::Peer);
    confirm_all(&mut chain);
    // Worked for, and paying nobody: far better than ours until it is proved.
    let bad = build().salt(1).bad_coinbase().build(&chain, &honest[2].id());
    assert_eq!(offer(&mut chain, &bad, Source::Peer), Offer::Taken);
    grow(&mut chain, bad.id(), 40, 2, Source::Peer);
    assert_eq!((chain.tip().height, chain.confirmed_height()), (44, 3));
    let own = build().salt(3).build(&chain, &chain.confirmed_tip().id);
    assert_eq!(offer(&mut chain, &own, Source::Own), Offer::Taken);
    confirm_all(&mut chain);
    assert_eq!((chain.tip().id, chain.confirmed_tip().id), (own.id(), own.id()));
    chain.sanity_check().unwrap();
}

#[test]
fn side_shares_near_the_tip_are_limited_lowest_score_out_first() {
    let mut chain = fresh();
    let genesis = regtest().genesis_id();
    let first = grow(&mut chain, genesis, 2, 0, Source::Peer);
    confirm_all(&mut chain);
    let low = build().salt(1).build(&chain, &genesis);
    assert_eq!(offer(&mut chain, &low, Source::Own), Offer::Taken);
    let nephew = build().salt(1).build(&chain, &low.id());
    assert_eq!(offer(&mut chain, &nephew, Source::Peer), Offer::Taken);
    let sibling = |chain: &Chain, salt: usize| build().salt(10 + salt as u32).build(chain, &first[0].id());
    for salt in 2..SIDE_MAX {
        let share = sibling(&chain, salt);
        assert_eq!(offer(&mut chain, &share, Source::Peer), Offer::Taken);
    }
    assert_eq!(chain.side_len(), SIDE_MAX);
    chain.take_change();
    // One too many: the lowest goes with its child, and its row.
    let share = sibling(&chain, SIDE_MAX);
    assert_eq!(offer(&mut chain, &share, Source::Peer), Offer::Taken);
    assert_eq!(chain.side_len(), SIDE_MAX - 1);
    assert!(chain.get(&low.id()).is_none() && chain.get(&nephew.id()).is_none());
    let (_, batches) = chain.take_change().unwrap();
    assert_eq!(batches[0].ops, [Op::Delete(Family::Shares, schema::share_key(1, &low.id()))]);
    let share = sibling(&chain, SIDE_MAX + 1);
    assert_eq!(offer(&mut chain, &share, Source::Peer), Offer::Taken);
    // Now a newcomer lower than all others is the one that goes.
    let low = build().salt(2).build(&chain, &genesis);
    assert!(matches!(offer(&mut chain, &low, Source::Own), Offer::Dropped(_)));
    assert!(chain.take_change().is_none_or(|(_, batches)| batches.iter().all(|batch| batch.ids.is_empty())));
    chain.sanity_check().unwrap();
}

#[test]
fn a_sync_may_begin_far_below_and_is_kept_only_if_it_ends_above() {
    let kv = MemKv::new();
    let (mut chain, mut model) = (open(&kv), Model::new());
    let write = |chain: &mut Chain| {
        let (change, batches) = chain.take_change().unwrap();
        batches.iter().for_each(|batch| kv.write(&batch.ops, batch.own).unwrap());
        change
    };
    for share in branch(&mut model, regtest().genesis_id(), 60, 0) {
        assert_eq!(offer(&mut chain, &share, Source::Peer), Offer::Taken);
    }
    confirm_all(&mut chain);
    write(&mut chain);
    let ours = chain.tip().id;
    let fork = chain.table.at(5).unwrap().id;
    let theirs = branch(&mut model, fork, 70, 1);

    assert!(chain.begin_sync(peer(1)) && !chain.begin_sync(peer(2)));
    for share in &theirs[..54] {
        assert_eq!(offer(&mut chain, share, Source::Bulk(peer(1))), Offer::Taken);
    }
    assert!(matches!(offer(&mut chain, &theirs[0], Source::Bulk(peer(2))), Offer::Known));
    chain.sanity_check().unwrap();
    assert_eq!(write(&mut chain).added.len(), 0);
    assert_eq!(open(&kv).tip().id, ours, "rows written ahead decide nothing");
    // It ends below our tip: all of it goes, rows too.
    chain.end_sync();
    chain.sanity_check().unwrap();
    assert_eq!((chain.side_len(), chain.side.is_empty_of_scratch()), (0, true));
    write(&mut chain);
    assert_eq!(rows(&kv).len(), 60 + 1);

    assert!(chain.begin_sync(peer(2)));
    for share in &theirs {
        assert_eq!(offer(&mut chain, share, Source::Bulk(peer(2))), Offer::Taken);
    }
    chain.end_sync();
    chain.sanity_check().unwrap();
    assert_eq!(chain.tip().id, theirs[69].id());
    assert_eq!(chain.confirmed_height(), 5);
    let change = write(&mut chain);
    assert_eq!((change.fork_height, change.added.len(), change.confirmed_height), (5, 70, 5));
    assert_eq!(change.payouts.unwrap().parent, fork);
    confirm_all(&mut chain);
    assert_eq!(chain.confirmed_height(), 75);
    // What lost stays beside it, with its rows, until better side shares need the room.
    assert_eq!(chain.side_len(), 55);
    assert_eq!(open(&kv).side_len(), 55);
}

/// More work than ours, deeper than what is kept beside a chain, but paid to nobody who earned it: nothing of ours is deleted before the
/// coinbases of the better branch are rebuilt.
#[test]
fn a_deep_reorg_to_a_branch_that_proves_bad_gives_the_old_chain_back() {
    let kv = MemKv::new();
    let mut chain = open(&kv);
    let genesis = regtest().genesis_id();
    let write = |chain: &mut Chain| {
        let (_, batches) = chain.take_change().unwrap();
        batches.iter().for_each(|batch| kv.write(&batch.ops, batch.own).unwrap());
    };
    let deep = SIDE_MAX + 50;
    for _ in 0..deep {
        let tip = chain.tip().id;
        grow(&mut chain, tip, 1, 0, Source::Peer);
        confirm_all(&mut chain);
    }
    write(&mut chain);
    let ours = chain.tip().id;
    let mut other = fresh();
    let bad = build().salt(1).bad_coinbase().build(&other, &genesis);
    assert_eq!(offer(&mut other, &bad, Source::Peer), Offer::Taken);
    let theirs = grow(&mut other, bad.id(), deep + 1, 1, Source::Peer);
    assert!(chain.begin_sync(peer(1)));
    for share in std::iter::once(&bad).chain(&theirs) {
        assert_eq!(offer(&mut chain, share, Source::Bulk(peer(1))), Offer::Taken);
    }
    chain.end_sync();
    assert_eq!((chain.tip().id, chain.confirmed_height()), (theirs[deep].id(), 0));
    chain.sanity_check().unwrap();
    write(&mut chain);
    confirm_all(&mut chain);
    assert_eq!((chain.tip().id, chain.confirmed_tip().id), (ours, ours));
    write(&mut chain);
    assert_eq!(open(&kv).tip().id, ours);
    chain.sanity_check().unwrap();
}

#[test]
fn the_scratch_of_a_sync_is_limited() {
    let mut chain = fresh();
    let share = build().build(&chain, &chain.tip().id);
    let bytes: Arc<[u8]> = share.encode().into();
    let template = regtest().genesis_record();
    let scratch = |number: u64| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let record = Record { id: ShareId(id), parent: share.parent, height: 1, ..template.clone() };
        let record = Arc::new(record);
        Live { record, bytes: Some(Arc::clone(&bytes)), proven: false, uncles: Vec::new(), row: false, scratch: true, seen: 1 }
    };
    let mut held = 0;
    while !chain.side.is_full_for(&scratch(held)) {
        chain.side.insert(scratch(held));
        held += 1;
    }
    assert!((SCRATCH_BYTES_MAX / 2_000..SCRATCH_BYTES_MAX / 600).contains(&(held as usize)), "{held} shares");
    assert!(!chain.side.is_full_for(&Live { scratch: false, ..scratch(held) }), "the limit is the scratch's alone");
    chain.side.sanity_check().unwrap();
    assert_eq!(chain.side.take_scratch().len() as u64, held);
    assert!(chain.side.is_empty_of_scratch());
}

#[test]
fn an_own_share_beside_the_chain_is_written_with_what_it_stands_on() {
    let kv = MemKv::new();
    let mut chain = open(&kv);
    let genesis = regtest().genesis_id();
    grow(&mut chain, genesis, 3, 0, Source::Peer);
    let side = grow(&mut chain, genesis, 2, 1, Source::Peer);
    let (_, batches) = chain.take_change().unwrap();
    assert!(batches.iter().all(|batch| !batch.own && side.iter().all(|share| !batch.ids.contains(&share.id()))));
    batches.iter().for_each(|batch| kv.write(&batch.ops, batch.own).unwrap());
    let own = build().salt(2).build(&chain, &side[1].id());
    assert_eq!(offer(&mut chain, &own, Source::Own), Offer::Taken);
    assert_ne!(chain.tip().id, own.id(), "equal stays with the first seen");
    let (change, batches) = chain.take_change().unwrap();
    assert_eq!(batches.len(), 1);
    assert!(batches[0].own);
    assert_eq!(batches[0].ids, [side[0].id(), side[1].id(), own.id()]);
    assert_eq!(change.bytes.iter().map(|(id, _)| *id).collect::<Vec<_>>(), batches[0].ids);
    kv.write(&batches[0].ops, true).unwrap();
    assert_eq!(open(&kv).get(&own.id()), chain.get(&own.id()));
}

#[test]
fn an_own_share_whose_tip_row_was_lost_is_the_tip_again() {
    let kv = MemKv::new();
    let mut chain = open(&kv);
    let own = grow(&mut chain, regtest().genesis_id(), 1, 0, Source::Own);
    let (_, batches) = chain.take_change().unwrap();
    kv.write(&batches[0].ops[..1], true).unwrap();
    let mut again = open(&kv);
    assert_eq!((again.tip().id, again.backlog()), (own[0].id(), 1));
    let (change, batches) = again.take_change().unwrap();
    assert_eq!((change.added.len(), change.bytes.len()), (1, 0));
    assert!(matches!(&batches[0].ops[..], [Op::Put(Family::Meta, ..)]), "the tip row alone is missing");
}

#[test]
fn a_row_without_its_parent_is_deleted() {
    let (kv, mut model) = (MemKv::new(), Model::new());
    let shares = branch(&mut model, regtest().genesis_id(), 2, 0);
    let key = schema::share_key(2, &shares[1].id());
    kv.write(&[Op::Put(Family::Shares, key.clone(), shares[1].encode())], true).unwrap();
    let mut chain = open(&kv);
    assert_eq!(chain.side_len(), 0);
    assert_eq!(chain.take_change().unwrap().1[0].ops, [Op::Delete(Family::Shares, key)]);
}

#[test]
fn damage_is_told_in_a_sentence() {
    let (kv, mut model) = (MemKv::new(), Model::new());
    let mut chain = open(&kv);
    let shares = branch(&mut model, regtest().genesis_id(), 3, 0);
    for share in &shares {
        offer(&mut chain, share, Source::Peer);
    }
    confirm_all(&mut chain);
    let (_, batches) = chain.take_change().unwrap();
    let ops: Vec<Op> = batches.into_iter().flat_map(|batch| batch.ops).collect();
    let key = |height: usize| schema::share_key(height as u32, &shares[height - 1].id());
    let tip = schema::TipRow { height: 3, id: shares[2].id(), confirmed_height: 3, confirmed_id: shares[2].id() };
    let cases = [
        (Op::Delete(Family::Shares, key(2)), "has no row"),
        (Op::Put(Family::Shares, key(2), shares[0].encode()), "it holds another share"),
        (Op::Put(Family::Shares, key(2), vec![1, 2, 3]), "the row of share"),
        (Op::Put(Family::Shares, vec![1], vec![]), "key has 1 bytes"),
        (Op::Put(Family::Meta, b"tip".to_vec(), vec![1]), "the tip row does not decode"),
        (schema::TipRow { height: 2, ..tip }.put(), "has no row at height 2"),
        (schema::TipRow { confirmed_height: 4, ..tip }.put(), "the tip row says height 3"),
        (schema::TipRow { confirmed_height: 2, ..tip }.put(), "is not at the confirmed height"),
    ];
    for (op, sentence) in cases {
        let kv = MemKv::new();
        kv.write(&ops, true).unwrap();
        kv.write(&[op], true).unwrap();
        let error = Chain::open(regtest(), [1, 2], &kv).unwrap_err();
        assert!(matches!(error, StoreError::Damaged(_)));
        assert!(error.to_string().contains(sentence), "{error}");
    }
}

#[test]
fn a_record_stays_lean() {
    // Twice a pointer and a tenth of an entry beside it, in the index and in the view: for 241,920 shares some 50 MB.
    assert_eq!(size_of::<Record>(), 128);
}
