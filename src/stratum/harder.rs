//! Harder by choice (SHARECHAIN §4): a script that makes many of the chain's shares makes fewer and heavier ones, so that large miners do
//! not push small ones out. Its work is paid all the same, and what it finds between its target and the easiest one is lost to nobody.
//!
//! Nothing of this is kept on disk: after a restart the chain itself tells how hard a script's newest share was made, and it goes on there.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rockpool_net::id::ShareId;
use rockpool_net::wire::share::Script;
use rockpool_store::limits::HARDER_MAX_LOG2;
use rockpool_store::record::Record;
use rockpool_store::rules::target;
use rockpool_store::view::ChainView;

use crate::limits::{HARDER_EVERY, HARDER_PERCENT, HARDER_SCRIPTS_MAX, HARDER_SHARES_MIN, HARDER_SPAN};

/// How much harder than allowed this node makes the shares of each script.
#[derive(Debug, Default)]
pub struct Harder {
    recent: Recent,
    /// Of the scripts that were given harder bits, or lost them lately.
    chosen: BTreeMap<Script, Chosen>,
}

/// What was chosen for a script.
#[derive(Clone, Copy, Debug)]
struct Chosen {
    /// How often the allowed target is halved.
    halvings: usize,
    since: Duration,
}

impl Harder {
    /// The bits of this script's next job, where `allowed` are the easiest at the confirmed tip.
    pub fn bits(&mut self, now: Duration, view: &ChainView, script: &Script, allowed: u32) -> u32 {
        let begins = self.recent.shares.is_empty();
        self.recent.follow(view);
        if begins {
            self.take_up(now);
        }
        halved(allowed, self.halvings(now, script))
    }

    /// The node has just started, and knows nothing but the chain: what it chose for a script before shows in that script's newest share.
    /// Begun anew, a large one would take forty minutes to come back to where it was, and push small ones out meanwhile.
    fn take_up(&mut self, now: Duration) {
        for (_, script, easy) in self.recent.shares.iter().rev() {
            let large = self.recent.made.get(script).is_some_and(|made| made.shares >= HARDER_SHARES_MIN);
            if large && !self.chosen.contains_key(script) {
                self.chosen.insert(*script, Chosen { halvings: easy.ilog2() as usize, since: now });
            }
        }
    }

    /// How often a script's target is halved: a step up at most every [`HARDER_EVERY`], and not before it made [`HARDER_SHARES_MIN`] of
    /// the newest shares; a step down no more often.
    fn halvings(&mut self, now: Duration, script: &Script) -> usize {
        let made = self.recent.made.get(script).copied().unwrap_or_default();
        let chosen = self.chosen.get(script);
        let (wanted, held) = (made.wanted(self.recent.shares.len() as u32), chosen.map_or(0, |chosen| chosen.halvings));
        if wanted == held || chosen.is_some_and(|chosen| now.saturating_sub(chosen.since) < HARDER_EVERY) {
            return held;
        }
        if wanted > held && made.shares < HARDER_SHARES_MIN {
            return held;
        }
        let halvings = if wanted > held { held + 1 } else { held - 1 };
        self.choose(now, *script, halvings);
        halvings
    }

    fn choose(&mut self, now: Duration, script: Script, halvings: usize) {
        self.chosen.retain(|_, chosen| chosen.halvings > 0 || now.saturating_sub(chosen.since) < HARDER_EVERY);
        // No more than thirty scripts can make so many shares at once; what is forgotten here begins anew.
        if self.chosen.len() >= HARDER_SCRIPTS_MAX
            && !self.chosen.contains_key(&script)
            && let Some(oldest) = self.chosen.iter().min_by_key(|(_, chosen)| chosen.since).map(|(script, _)| *script)
        {
            self.chosen.remove(&oldest);
        }
        self.chosen.insert(script, Chosen { halvings, since: now });
    }
}

/// The allowed target so many times halved: DIFF-6 allows up to four times.
fn halved(allowed: u32, halvings: usize) -> u32 {
    target::compact(target::target(allowed).unwrap_or_default() >> halvings.min(HARDER_MAX_LOG2))
}

/// What a script made of the newest shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Made {
    shares: u32,
    /// Shares that the same work would have made at the easiest targets.
    easy: u32,
}

impl Made {
    /// The fewest halvings with which the same work had made at most [`HARDER_PERCENT`] of the newest shares, of which there are `all`;
    /// four if none is enough. Judged by work, not by what it made: that follows an hour late, and a choice by it would swing.
    fn wanted(&self, all: u32) -> usize {
        let others = u64::from(all.saturating_sub(self.shares));
        let fits =
            |halvings: &usize| u64::from(self.easy) * u64::from(100 - HARDER_PERCENT) <= (others * u64::from(HARDER_PERCENT)) << halvings;
        (0..HARDER_MAX_LOG2).find(fits).unwrap_or(HARDER_MAX_LOG2)
    }
}

/// The newest shares of the confirmed chain, counted as they come and go.
#[derive(Debug, Default)]
struct Recent {
    /// Id, script and [`easy`], ascending by height.
    shares: VecDeque<(ShareId, Script, u32)>,
    /// Height of the last of them.
    top: u32,
    made: BTreeMap<Script, Made>,
}

impl Recent {
    /// Follows the confirmed tip: nothing to do while it stays, one share at each end when it grows by one.
    fn follow(&mut self, view: &ChainView) {
        let tip = view.confirmed_height();
        let holds = |height: u32, id: &ShareId| height <= tip && view.at_height(height).is_some_and(|record| record.id == *id);
        while let Some(&last) = self.shares.back()
            && !holds(self.top, &last.0)
        {
            self.shares.pop_back();
            self.leave(last);
            self.top -= 1;
        }
        let lowest = tip.saturating_sub(HARDER_SPAN as u32);
        if self.shares.is_empty() || self.top < lowest {
            *self = Recent { top: lowest, ..Recent::default() };
        }
        for record in (self.top + 1..=tip).filter_map(|height| view.at_height(height)) {
            let last = self.enter(record);
            self.shares.push_back(last);
        }
        self.top = tip;
        while self.shares.len() > HARDER_SPAN {
            let Some(first) = self.shares.pop_front() else { break };
            self.leave(first);
        }
        // After a reorg to a shorter branch older ones are among the newest again. Genesis, of height 0, is nobody's.
        while self.shares.len() < HARDER_SPAN
            && let Some(height @ 1..) = self.top.checked_sub(self.shares.len() as u32)
            && let Some(record) = view.at_height(height)
        {
            let first = self.enter(record);
            self.shares.push_front(first);
        }
    }

    fn enter(&mut self, record: &Record) -> (ShareId, Script, u32) {
        let (script, easy) = (*record.script, easy(record));
        let made = self.made.entry(script).or_default();
        (made.shares, made.easy) = (made.shares + 1, made.easy + easy);
        (record.id, script, easy)
    }

    fn leave(&mut self, (_, script, easy): (ShareId, Script, u32)) {
        if let Some(made) = self.made.get_mut(&script) {
            (made.shares, made.easy) = (made.shares - 1, made.easy - easy);
            if made.shares == 0 {
                self.made.remove(&script);
            }
        }
    }
}

/// How many shares of the easiest target a share's work is worth.
fn easy(record: &Record) -> u32 {
    let demand = record.demand().max(1);
    let rounded = record.work().saturating_add(demand / 2) / demand;
    rounded.clamp(1, 1 << HARDER_MAX_LOG2) as u32
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::testing::{at, regtest};
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};
    use rockpool_store::chain::{Chain, Offer, Source};
    use rockpool_store::kv::MemKv;
    use rockpool_store::rules::difficulty::{bits_in_range, hardest_bits};
    use rockpool_store::testing::ShareBuilder;
    use std::sync::Arc;

    const SCRIPT: Script = Script::P2wpkh([1; 20]);
    const OTHERS: Script = Script::P2wpkh([2; 20]);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    impl Harder {
        /// The next share of the chain, made at so many halvings.
        fn add(&mut self, script: Script, halvings: usize) {
            let allowed = 0x1f0f_ff00;
            let bits = target::compact(target::target(allowed).unwrap() >> halvings);
            let record = Record { height: 1, bits, allowed_bits: allowed, script: Arc::new(script), ..regtest().genesis_record() };
            let last = self.recent.enter(&record);
            self.recent.shares.push_back(last);
            if self.recent.shares.len() > HARDER_SPAN {
                let first = self.recent.shares.pop_front().unwrap();
                self.recent.leave(first);
            }
        }
    }

    /// A chain of so many shares, ten seconds apart, as difficulty sees to it, of whose hashes one script has this part, in permille: how
    /// many of the last half it made, in permille, and its halvings at each.
    fn simulate(permille: u64, shares: u64, seed: u64) -> (u64, Vec<usize>) {
        let (mut harder, mut rng) = (Harder::default(), ChaCha12Rng::seed_from_u64(seed));
        let (mut made, mut given) = (0, Vec::new());
        for share in 0..shares {
            let halvings = harder.halvings(seconds(share * 10), &SCRIPT);
            given.push(halvings);
            let (own, others) = ((permille << 8) >> halvings, (1_000 - permille) << 8);
            let mine = (u64::from(rng.next_u32()) * (own + others)) >> 32 < own;
            made += u64::from(mine && share >= shares / 2);
            harder.add(if mine { SCRIPT } else { OTHERS }, if mine { halvings } else { 0 });
        }
        (made * 2_000 / shares, given)
    }

    #[test]
    fn a_large_script_makes_no_more_than_its_part_of_the_shares() {
        let most = u64::from(HARDER_PERCENT) * 10;
        for permille in [40, 60, 100, 200, 300] {
            // Two days.
            let (made, given) = simulate(permille, 17_280, permille);
            assert!((most * 2 / 3..=most).contains(&made), "{permille} permille of the hashes made {made} of the shares");
            for (before, after) in given.iter().zip(&given[1..]) {
                assert!(before.abs_diff(*after) <= 1, "a step is a factor of two");
            }
            let steps: Vec<usize> = (1..given.len()).filter(|share| given[*share] != given[share - 1]).collect();
            assert!(steps.windows(2).all(|pair| (pair[1] - pair[0]) as u64 * 10 >= HARDER_EVERY.as_secs()), "too soon");
        }
        // Sixteen times is the most, and who makes few is left alone.
        let (made, given) = simulate(600, 17_280, 1);
        assert!((70..=100).contains(&made) && given[8_640..].iter().filter(|halvings| **halvings == HARDER_MAX_LOG2).count() > 8_000);
        let (made, given) = simulate(10, 17_280, 1);
        assert!((7..=13).contains(&made) && given.iter().all(|halvings| *halvings == 0));
    }

    #[test]
    fn nothing_is_harder_before_twelve_shares_and_then_step_by_step() {
        let mut harder = Harder::default();
        let mut given = Vec::new();
        for share in 0..400 {
            given.push(harder.halvings(seconds(share * 10), &SCRIPT));
            harder.add(SCRIPT, given[share as usize]);
        }
        let changes: Vec<usize> = (1..given.len()).filter(|share| given[*share] != given[share - 1]).collect();
        let (first, every) = (HARDER_SHARES_MIN as usize, HARDER_EVERY.as_secs() as usize / 10);
        assert_eq!(changes, [first, first + every, first + 2 * every, first + 3 * every]);
        assert_eq!(given.last(), Some(&HARDER_MAX_LOG2));
        // It stops: what it made leaves the newest shares, and with them its factor goes, as slowly as it came.
        let (mut left, mut share) = (given[399], 400);
        let mut lost = Vec::new();
        while left > 0 {
            harder.add(OTHERS, 0);
            let now = harder.halvings(seconds(share * 10), &SCRIPT);
            if now != left {
                lost.push(share);
            }
            (left, share) = (now, share + 1);
        }
        assert!(lost.windows(2).all(|pair| (pair[1] - pair[0]) as usize >= every), "{lost:?}");
        assert!(lost.len() == HARDER_MAX_LOG2 && share < 400 + 800, "{lost:?}");
        // The newest shares are others' by now, and it is as if it had never been there.
        assert_eq!(harder.recent.made.get(&SCRIPT), None);
        harder.choose(seconds(share * 10) + HARDER_EVERY, OTHERS, 1);
        assert_eq!(harder.chosen.keys().collect::<Vec<_>>(), [&OTHERS]);
    }

    #[test]
    fn a_restart_goes_on_where_the_chain_says_it_was() {
        let mut before = Harder::default();
        for share in 0..300 {
            before.add(SCRIPT, share / 100);
            before.add(OTHERS, 0);
        }
        (0..HARDER_SHARES_MIN - 1).for_each(|_| before.add(Script::P2wpkh([3; 20]), 4));
        let mut after = Harder { recent: before.recent, ..Harder::default() };
        let now = seconds(50);
        after.take_up(now);
        assert_eq!(after.halvings(now, &SCRIPT), 2, "where its newest share was");
        assert_eq!((after.halvings(now, &OTHERS), after.halvings(now, &Script::P2wpkh([3; 20]))), (0, 0), "too few shares say nothing");
        assert_eq!(after.halvings(now + HARDER_EVERY, &SCRIPT), 3, "and from there step by step");
        assert_eq!(after.halvings(now + HARDER_EVERY, &OTHERS), 1);
        // A chain that begins under the eyes of the node tells nothing that it did not choose itself.
        let mut fresh = Harder::default();
        fresh.take_up(now);
        assert!(fresh.chosen.is_empty());
    }

    /// The same by a chain that a node finds when it starts.
    #[test]
    fn a_node_that_starts_looks_at_the_chain() {
        let params = regtest();
        let mut chain = Chain::open(params, [1, 2], &MemKv::new()).unwrap();
        let mut parent = params.genesis_id();
        for salt in 0..=HARDER_SHARES_MIN {
            let share = ShareBuilder::new(params).miner(1).salt(salt).harder(2).build(&chain, &parent);
            parent = share.id();
            assert_eq!(chain.offer(at(seconds(200_000)), &share, Source::Peer), Offer::Taken);
        }
        chain.confirm(100);
        let view = chain.view();
        let newest = view.at_height(view.confirmed_height()).unwrap();
        let (script, halvings) = (*newest.script, easy(newest).ilog2() as usize);
        assert!(halvings > 0, "the builder made it no harder");
        let allowed = newest.allowed_bits;
        assert_eq!(Harder::default().bits(seconds(5), &view, &script, allowed), halved(allowed, halvings));
    }

    #[test]
    fn what_is_remembered_of_scripts_is_bounded() {
        let mut harder = Harder::default();
        for n in 0..=HARDER_SCRIPTS_MAX as u8 {
            harder.choose(seconds(n.into()), Script::P2wpkh([n; 20]), 2);
        }
        assert_eq!(harder.chosen.len(), HARDER_SCRIPTS_MAX);
        assert!(!harder.chosen.contains_key(&Script::P2wpkh([0; 20])), "the oldest choice is forgotten");
    }

    #[test]
    fn all_factors_are_within_what_the_rules_allow() {
        for allowed in [0x207f_ffff, 0x1b3f_ffc0, 0x1d00_ffff, 0x1723_4567, 0x1700_8000] {
            let all: Vec<u32> = (0..=HARDER_MAX_LOG2).map(|halvings| halved(allowed, halvings)).collect();
            assert_eq!((all[0], all[HARDER_MAX_LOG2]), (allowed, hardest_bits(allowed)));
            assert!(all.iter().all(|bits| bits_in_range(*bits, allowed)));
            assert!(all.windows(2).all(|pair| target::work(pair[1]) / 2 >= target::work(pair[0])));
        }
    }

    /// Counting as shares come and go is as good as counting anew, through reorgs of every depth, to longer branches and to shorter ones.
    #[test]
    fn counts_follow_the_confirmed_chain() {
        let params = regtest();
        let mut chain = Chain::open(params, [1, 2], &MemKv::new()).unwrap();
        let (mut recent, mut rng) = (Recent::default(), ChaCha12Rng::seed_from_u64(5));
        let (mut reorgs, mut salt, mut shorter) = (0, 0, None);
        while chain.tip().height < HARDER_SPAN as u32 + 40 {
            salt += 1;
            // Mostly the tip is built on; now and then a branch begins below it, hard enough to be the better one sooner or later.
            let below = if salt % 9 == 0 { rng.next_u32() % 25 } else { 0 };
            let before = chain.tip().id;
            let mut parent = chain.view().at_height(chain.tip().height.saturating_sub(below)).unwrap().id;
            for _ in 0..=below {
                let share = ShareBuilder::new(params).miner((rng.next_u32() % 5) as u8).salt(salt).harder(rng.next_u32() as usize % 5);
                let share = share.build(&chain, &parent);
                parent = share.id();
                if chain.offer(at(seconds(200_000)), &share, Source::Peer) != Offer::Taken {
                    break;
                }
            }
            chain.confirm(100);
            reorgs += u32::from(below > 0 && chain.view().get(&before).is_none());
            let view = chain.view();
            recent.follow(&view);
            let lowest = (view.confirmed_height() + 1).saturating_sub(HARDER_SPAN as u32).max(1);
            let newest: Vec<_> = (lowest..=view.confirmed_height()).filter_map(|height| view.at_height(height)).collect();
            assert_eq!(
                recent.shares.iter().map(|share| share.0).collect::<Vec<_>>(),
                newest.iter().map(|record| record.id).collect::<Vec<_>>()
            );
            let mut made = BTreeMap::<Script, Made>::new();
            for record in newest {
                let of = made.entry(*record.script).or_default();
                (of.shares, of.easy) = (of.shares + 1, of.easy + easy(record));
            }
            assert_eq!(recent.made, made);
            if shorter.is_none() && view.confirmed_height() > HARDER_SPAN as u32 + 10 {
                shorter = Some(view);
            }
        }
        assert!(reorgs > 5, "{reorgs}");
        // One that looks for the first time, or again after long, sees the same.
        let mut late = Recent::default();
        late.follow(&chain.view());
        assert_eq!((&late.shares, &late.made, late.top), (&recent.shares, &recent.made, recent.top));
        // On a shorter branch older shares are among the newest again.
        let (shorter, mut anew) = (shorter.unwrap(), Recent::default());
        assert!(shorter.confirmed_height() < recent.top);
        anew.follow(&shorter);
        late.follow(&shorter);
        assert_eq!((late.shares, late.made, late.top), (anew.shares, anew.made, anew.top));
    }
}
