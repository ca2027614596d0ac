//! The chain index, and beside it what it should be by the slow rules: every answer and every state is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::time::Now;
use rockpool_net::wire::share::{Class, Layout, Share};

use super::slow::{Slow, Verdict};
use crate::chain::{Chain, Offer, Source};
use crate::kv::{Family, Kv, MemKv};
use crate::params::Params;
use crate::schema::{block_key, share_key};
use crate::view::ChainView;

/// The peer of bulk shares.
pub const PEER: ConnId = ConnId { slot: 7, generation: 1 };

/// Late enough for every share.
pub fn late() -> Now {
    at(2_000_000_000)
}

fn at(unix: u32) -> Now {
    Now { mono: Duration::ZERO, wall: Duration::from_secs(u64::from(unix)) }
}

pub fn open(params: &'static Params, kv: &dyn Kv) -> Chain {
    Chain::open(params, [1, 2], kv).unwrap()
}

/// A node's store side, and what is expected of it.
pub struct Node {
    pub chain: Chain,
    pub view: ChainView,
    pub kv: MemKv,
    /// What it should hold, and when that arrived; genesis apart.
    present: BTreeMap<ShareId, u64>,
    /// What it should remember as invalid.
    invalid: BTreeSet<ShareId>,
    arrivals: u64,
    /// A restart forgets what may become an uncle, as far as it has no row, and the uncles that are credited already.
    pub restarted: bool,
}

impl Node {
    pub fn new(params: &'static Params) -> Node {
        let kv = MemKv::new();
        let chain = open(params, &kv);
        let (view, present) = (chain.view(), BTreeMap::new());
        Node { chain, view, kv, present, invalid: BTreeSet::new(), arrivals: 0, restarted: false }
    }

    pub fn has(&self, slow: &Slow, id: &ShareId) -> bool {
        *id == slow.genesis() || self.present.contains_key(id)
    }

    /// Offers a share, and compares the answer with what it should be.
    pub fn offer(&mut self, slow: &Slow, share: &Share, source: Source) -> Offer {
        let expected = self.expected(slow, share, source);
        let id = share.id();
        if expected == Expected::Taken && share.time > 1_300_000_000 - 3_000_000 {
            // A moment too early it waits, and nothing is kept of it.
            let due = share.time - slow.params.time_ahead_max_s;
            assert_eq!(self.chain.offer(at(due - 1), share, source), Offer::Early { due });
        }
        let fate = self.chain.offer(late(), share, source);
        let found = match &fate {
            Offer::Taken => Expected::Taken,
            Offer::Known => Expected::Known,
            Offer::Dropped(_) => Expected::Dropped,
            Offer::Bad(_) => Expected::Bad,
            Offer::Invalid(_) => Expected::Invalid,
            Offer::Pending { missing } => {
                let known = self.has(slow, missing) || self.chain.bitcoin().get(&missing.0).is_some();
                assert!(!known, "{missing} is not missing");
                Expected::Pending
            }
            Offer::Early { .. } => panic!("{id} is early"),
        };
        // What a chain credits is known beyond a restart, though it is not held as a share.
        let remembered = self.restarted && expected == Expected::Pending;
        let verdict = slow.known[&id].verdict;
        if !(remembered && found != Expected::Known) {
            assert_eq!(found, expected, "{id} at {}: {fate:?}, {verdict:?}", share.height);
        }
        match found {
            Expected::Taken => {
                self.arrivals += 1;
                self.present.insert(id, self.arrivals);
            }
            Expected::Invalid => drop(self.invalid.insert(id)),
            _ => {}
        }
        fate
    }

    fn expected(&self, slow: &Slow, share: &Share, source: Source) -> Expected {
        let id = share.id();
        let known = &slow.known[&id];
        if self.present.contains_key(&id) {
            return Expected::Known;
        }
        if self.invalid.contains(&id) {
            return Expected::Invalid;
        }
        if let Verdict::Untied(_) = known.verdict {
            return Expected::Bad;
        }
        if slow.alone(share).is_err() {
            return Expected::Invalid;
        }
        if slow.depends_on(share).any(|id| self.invalid.contains(&id)) {
            return Expected::Invalid;
        }
        let here = |id: ShareId| id == slow.genesis() || self.present.contains_key(&id);
        if !slow.depends_on(share).all(here) || self.chain.bitcoin().get(&share.bitcoin_prev()).is_none() {
            return Expected::Pending;
        }
        if let Verdict::Broken(_) = known.verdict {
            return Expected::Invalid;
        }
        let tip = if source == Source::Own { self.chain.confirmed_tip() } else { self.chain.tip() };
        let syncing = matches!(source, Source::Bulk(peer) if self.chain.syncing() == Some(peer));
        if share.score + 480 * slow.known[&tip.id].demand < tip.score && !syncing {
            return Expected::Dropped;
        }
        Expected::Taken
    }

    /// Rebuilds so many coinbases; what is found wanting must be.
    pub fn confirm(&mut self, slow: &Slow, at_most: usize) -> usize {
        let done = self.chain.confirm(at_most);
        for (id, why) in self.chain.take_condemned() {
            assert_eq!(slow.known[&id].verdict, Verdict::BadCoinbase, "{id} was condemned: {why}");
            self.taint(slow, id);
        }
        done
    }

    /// A bad coinbase takes with it what builds on it or credits it. In layout front nothing is remembered.
    fn taint(&mut self, slow: &Slow, id: ShareId) {
        let remember = slow.share(&id).layout == Layout::Tail;
        let mut tainted = BTreeSet::from([id]);
        loop {
            let more = self.present.keys().filter(|id| slow.depends_on(slow.share(id)).any(|id| tainted.contains(&id)));
            let more: Vec<ShareId> = more.filter(|id| !tainted.contains(id)).copied().collect();
            if more.is_empty() {
                break;
            }
            tainted.extend(more);
        }
        for tainted in tainted {
            // An uncle that is found wanting is not held where a restart has left nothing of it but its row.
            if (self.present.remove(&tainted).is_some() || tainted == id) && remember {
                self.invalid.insert(tainted);
            }
        }
    }

    /// Brings view and rows up to date.
    pub fn take(&mut self, slow: &Slow) {
        let Some((change, batches)) = self.chain.take_change() else { return };
        self.view.apply(&change);
        for batch in batches {
            self.kv.write(&batch.ops, batch.own).unwrap();
            self.view.stored(&batch.ids);
        }
        self.check_rows(slow);
    }

    /// Starts again from the rows, after a power loss that left the first `keep` of the batches since the last sync.
    pub fn restart(&mut self, slow: &Slow, keep: usize) {
        self.take(slow);
        let (tip, confirmed) = (self.chain.tip().id, self.chain.confirmed_tip().id);
        let whole = keep >= self.kv.unsynced();
        self.kv.crash(keep);
        self.chain = open(slow.params, &self.kv);
        self.view = self.chain.view();
        self.restarted = true;
        self.invalid.clear();
        if whole {
            assert_eq!((self.chain.tip().id, self.chain.confirmed_tip().id), (tip, confirmed));
        }
        // A crash can bring back what was found wanting, but nothing that was never held; and of uncles only rows may have been left.
        let before = std::mem::take(&mut self.present);
        let held = |id: &&ShareId| **id != slow.genesis() && self.chain.get(id).is_some();
        let mut held: Vec<ShareId> = slow.known.keys().filter(held).copied().collect();
        let named = |id: &ShareId| before.keys().any(|nephew| slow.share(nephew).uncles.contains(id));
        assert!(held.iter().all(|id| before.contains_key(id) || !slow.known[id].good || !whole || named(id)));
        held.sort_by_key(|id| (slow.share(id).height, *id));
        for id in held {
            let on_chain = self.chain.at_height(slow.share(&id).height).is_some_and(|record| record.id == id);
            self.arrivals += 1;
            self.present.insert(id, if on_chain { 0 } else { self.arrivals });
        }
        self.view = self.chain.view();
    }

    /// Ends a sync: what it brought and has not become the best chain is forgotten.
    pub fn end_sync(&mut self, told: &BTreeSet<ShareId>) {
        self.chain.end_sync();
        self.present.retain(|id, _| self.chain.get(id).is_some() || !told.contains(id));
    }

    /// Compares all that is held.
    pub fn check(&self, slow: &Slow) {
        self.chain.sanity_check().unwrap();
        let tip = self.chain.tip().id;
        // §5: the highest score of all that is held; of equals the first seen.
        let genesis = [(slow.genesis(), 0)];
        let held = self.present.iter().map(|(id, seen)| (*id, *seen)).chain(genesis);
        let best = held.max_by_key(|(id, seen)| (slow.share(id).score, std::cmp::Reverse(*seen))).unwrap().0;
        assert_eq!(tip, best, "tip at {}, best at {}", slow.share(&tip).height, slow.share(&best).height);
        let line = slow.line(&tip);
        assert_eq!(line.len() as u32, self.chain.tip().height + 1);
        for (id, height) in line.iter().rev().zip(0..) {
            let record = self.chain.at_height(height).unwrap();
            let share = slow.share(id);
            assert_eq!((record.id, record.score, record.lead, record.time), (*id, share.score, share.lead, share.time));
            assert_eq!((record.work(), record.demand()), (slow.known[id].work, slow.known[id].demand));
            assert!(height > self.chain.confirmed_height() || slow.known[id].good, "{id} is confirmed");
        }
        for id in self.present.keys() {
            assert!(self.chain.get(id).is_some(), "{id} at {} is gone", slow.share(id).height);
        }
        assert_eq!(self.chain.side_len() + line.len() - 1, self.present.len());
        let confirmed = self.chain.confirmed_tip().id;
        assert!(self.chain.has_unproven() || confirmed == tip);
        assert!(self.chain.payouts().weights.iter().copied().eq(slow.weights(&confirmed)), "weights at {confirmed}");
    }

    /// Compares the view with the chain, after [`Node::take`], and what it gives to work on with the rules.
    pub fn check_view(&mut self, slow: &Slow) {
        self.view.sanity_check().unwrap();
        let fresh = self.chain.view();
        let ids = |view: &ChainView| -> Vec<ShareId> { (0..=view.tip().height).map(|height| view.at_height(height).unwrap().id).collect() };
        assert_eq!(ids(&self.view), ids(&fresh));
        assert_eq!((self.view.confirmed_height(), self.view.payouts()), (fresh.confirmed_height(), fresh.payouts()));
        assert_eq!(self.view.bitcoin().best(), fresh.bitcoin().best());
        assert_eq!(self.view.bitcoin().len(), fresh.bitcoin().len());
        for beside in self.view.all_beside() {
            assert!(slow.known[&beside.record.id].good, "{} is told as proved", beside.record.id);
        }
        let next = self.view.next(slow.params, late());
        let creditable = |id: &&ShareId| slow.known[*id].good && slow.may_credit(&next.parent, &[**id]);
        let creditable: Vec<ShareId> = self.present.keys().filter(creditable).copied().collect();
        assert!(next.uncles.iter().all(|uncle| slow.known[uncle].good));
        assert!(slow.may_credit(&next.parent, &next.uncles), "{:?} for a child of {}", next.uncles, next.parent);
        // Once all is proved, as many are drawn as there are.
        if !self.chain.has_unproven() && !self.restarted {
            // Those that build on others of them come on top.
            assert!(next.uncles.len() >= creditable.len().min(3), "{creditable:?} may be credited, {:?} are", next.uncles);
        }
    }

    /// The best chain, the uncles that it credits and the Bitcoin headers that they build on have rows, after [`Node::take`].
    pub fn check_rows(&self, slow: &Slow) {
        let row = |id: &ShareId| {
            let share = slow.share(id);
            let (own, block) = (share_key(share.height, id), block_key(share.bitcoin_height - 1, &share.bitcoin_prev()));
            assert!(self.kv.get(Family::Shares, &own).unwrap().is_some(), "no row of {id} at {}", share.height);
            let first = share.bitcoin_height == 1;
            assert!(first || self.kv.get(Family::Bitcoin, &block).unwrap().is_some(), "no row of the header below {id}");
        };
        for id in slow.line(&self.chain.tip().id).iter().filter(|id| **id != slow.genesis()) {
            row(id);
            slow.share(id).uncles.iter().for_each(row);
        }
    }

    /// Compares the outputs of each class at the confirmed tip.
    pub fn check_outputs(&self, slow: &Slow, child: &Share) {
        let parent = self.chain.confirmed_tip().id;
        for class in Class::ALL {
            let child = Share { class, parent, ..child.clone() };
            let found = self.chain.payouts().outputs(slow.params, class, child.value, child.bitcoin_height, &child.script);
            assert_eq!(found, slow.outputs(&parent, &child), "{class:?}");
        }
    }

    /// Compares two indices that should hold the same best chain.
    pub fn assert_same_chain(&self, other: &Chain) {
        let chain = &self.chain;
        assert_eq!((chain.tip(), chain.confirmed_tip()), (other.tip(), other.confirmed_tip()));
        let (above, others) = (chain.table.above(0), other.table.above(0));
        assert!(above.iter().map(|record| record.id).eq(others.iter().map(|record| record.id)));
        assert!(above.iter().zip(others).all(|(one, other)| one.rare == other.rare));
        assert_eq!((chain.payouts(), &chain.window), (other.payouts(), &other.window));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Taken,
    Known,
    Pending,
    Dropped,
    Bad,
    Invalid,
}
