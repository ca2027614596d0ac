//! A pool of this node's own miners (`--standalone`): what each has done lately, from its submits, and so what a block pays it. PPLNS as
//! on the share chain: the newest work counts, three times that of a Bitcoin block if so much was done, else that of two weeks.
//!
//! Submits of ten minutes are one row a script, or a busy pool would keep millions of them. Periods in which nobody mines do not count:
//! a pool that was switched off for a month pays as it would have paid then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rockpool_net::wire::share::Script;

use crate::error::StoreError;
use crate::kv::{Family, Kv, Op};
use crate::limits::{BATCH_OPS_MAX, PPLNS_PERIOD_S, PPLNS_PERIODS_MAX, PPLNS_PERIODS_MIN, PPLNS_ROWS_MAX, PPLNS_SCRIPTS_MAX};

/// What a miner of ours did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PplnsShare {
    /// Whom it is credited to.
    pub script: Script,
    /// Hashes that it takes on average: those of the difficulty that it was judged by.
    pub work: u128,
}

/// Ten minutes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Period {
    /// Unix time by [`PPLNS_PERIOD_S`].
    number: u32,
    work: u128,
    of: BTreeMap<Script, u128>,
}

/// The window. Sums wrap instead of failing: to reach 2¹²⁸ takes more hashes than can be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pplns {
    /// Oldest first.
    periods: VecDeque<Period>,
    /// Unix time, by [`PPLNS_PERIOD_S`], in which the newest began: not its number where the clock was set back.
    began: u32,
    sums: BTreeMap<Script, u128>,
    work: u128,
    rows: usize,
    /// Rows of the newest period that the disk does not have as they are.
    changed: BTreeSet<Script>,
    /// Rows to be deleted, by period.
    gone: BTreeSet<(u32, Script)>,
}

impl Pplns {
    /// The window as the rows hold it.
    pub fn open(kv: &dyn Kv) -> Result<Pplns, StoreError> {
        let mut pplns = Pplns::default();
        let mut bad = false;
        kv.scan(Family::Pplns, &[], &mut |key, value| {
            let row = parse(key, value);
            bad = row.is_none();
            if let Some((number, share)) = row {
                pplns.count(number, &share);
                pplns.bound(PPLNS_PERIODS_MAX);
            }
            !bad
        })?;
        pplns.began = pplns.periods.back().map_or(0, |newest| newest.number);
        if bad { Err(StoreError::Damaged("a row of the own pool's work does not decode".into())) } else { Ok(pplns) }
    }

    /// Credits a submit. `now` in Unix seconds; where the clock was set back, periods are counted on from the newest. `wanted` is the work
    /// that the window should hold. Between two calls of [`Pplns::take_ops`] there may be [`BATCH_OPS_MAX`] of it, all at the same time.
    pub fn add_pplns_share(&mut self, now: u32, share: &PplnsShare, wanted: u128) {
        let (began, newest) = (now / PPLNS_PERIOD_S, self.periods.back().map(|period| period.number));
        let number = match newest {
            Some(newest) if began == self.began => newest,
            // Or all would be of one period until the clock has caught up, which may be years.
            Some(newest) => began.max(newest.saturating_add(1)),
            None => began,
        };
        self.count(number, share);
        self.began = began;
        self.changed.insert(share.script);
        self.fit(wanted);
    }

    /// The changes of rows since the last call, at most a batch of them; what is deleted may take several.
    pub fn take_ops(&mut self) -> Vec<Op> {
        let mut ops = Vec::new();
        if let Some(newest) = self.periods.back() {
            while ops.len() < BATCH_OPS_MAX
                && let Some(script) = self.changed.pop_first()
            {
                let work = newest.of.get(&script).copied().unwrap_or_default();
                ops.push(Op::Put(Family::Pplns, key(newest.number, &script), work.to_be_bytes().to_vec()));
            }
        }
        while ops.len() < BATCH_OPS_MAX
            && let Some((number, script)) = self.gone.pop_first()
        {
            ops.push(Op::Delete(Family::Pplns, key(number, &script)));
        }
        ops
    }

    /// What each script has in the window, in script order.
    pub fn weights(&self) -> impl Iterator<Item = (Script, u128)> + '_ {
        self.sums.iter().map(|(script, sum)| (*script, *sum))
    }

    /// Whether nobody has anything in it.
    pub fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    fn count(&mut self, number: u32, share: &PplnsShare) {
        if self.periods.back().is_none_or(|newest| newest.number != number) {
            self.periods.push_back(Period { number, ..Period::default() });
        }
        let Some(period) = self.periods.back_mut() else { return };
        let of = period.of.entry(share.script).or_insert_with(|| {
            self.rows += 1;
            self.gone.remove(&(number, share.script));
            0
        });
        let sum = self.sums.entry(share.script).or_default();
        for sum in [of, sum, &mut period.work, &mut self.work] {
            *sum = sum.wrapping_add(share.work);
        }
    }

    /// Leaves out the oldest periods that are not needed.
    fn fit(&mut self, wanted: u128) {
        while self.periods.len() > PPLNS_PERIODS_MIN
            && self.periods.front().is_some_and(|oldest| self.work.wrapping_sub(oldest.work) >= wanted)
        {
            self.drop_oldest();
        }
        self.bound(PPLNS_PERIODS_MAX);
        if self.sums.len() > PPLNS_SCRIPTS_MAX {
            self.drop_least();
        }
    }

    fn bound(&mut self, periods: usize) {
        while self.periods.len() > periods || (self.rows > PPLNS_ROWS_MAX && self.periods.len() > 1) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.periods.pop_front() else { return };
        self.work = self.work.wrapping_sub(oldest.work);
        self.rows -= oldest.of.len();
        for (script, work) in oldest.of {
            if let Some(sum) = self.sums.get_mut(&script) {
                *sum = sum.wrapping_sub(work);
                if *sum == 0 {
                    self.sums.remove(&script);
                }
            }
            self.gone.insert((oldest.number, script));
        }
    }

    /// Forgets the quarter of all scripts that did least: addresses cost nothing, and must not push out who works.
    fn drop_least(&mut self) {
        let mut order: Vec<(u128, Script)> = self.sums.iter().map(|(script, sum)| (*sum, *script)).collect();
        order.sort_unstable();
        let least: BTreeSet<Script> = order.into_iter().take(PPLNS_SCRIPTS_MAX / 4).map(|(_, script)| script).collect();
        self.sums.retain(|script, _| !least.contains(script));
        self.changed.retain(|script| !least.contains(script));
        let Pplns { periods, work, rows, gone, .. } = self;
        for Period { number, work: all, of } in periods {
            of.retain(|script, did| {
                let stays = !least.contains(script);
                if !stays {
                    (*all, *work) = (all.wrapping_sub(*did), work.wrapping_sub(*did));
                    *rows -= 1;
                    gone.insert((*number, *script));
                }
                stays
            });
        }
    }
}

/// Key of a row: period u32, big-endian, then kind and program of the script.
fn key(number: u32, script: &Script) -> Vec<u8> {
    [&number.to_be_bytes()[..], &[script.type_byte()], script.program()].concat()
}

fn parse(key: &[u8], value: &[u8]) -> Option<(u32, PplnsShare)> {
    let (number, rest) = key.split_first_chunk()?;
    let (kind, program) = rest.split_first()?;
    let script = Script::from_parts(*kind, program)?;
    let work = u128::from_be_bytes(value.try_into().ok()?);
    Some((u32::from_be_bytes(*number), PplnsShare { script, work }))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;
    use crate::kv::MemKv;

    const NOW: u32 = 1_700_000_400;
    /// More work than any test does.
    const ENDLESS: u128 = u128::MAX;

    fn script(who: u32) -> Script {
        Script::P2wsh(rockpool_net::sha256::sha256d(&who.to_be_bytes()))
    }

    fn add(pplns: &mut Pplns, kv: &MemKv, period: u32, (who, work): (u32, u128), wanted: u128) {
        pplns.add_pplns_share(NOW + period * PPLNS_PERIOD_S, &PplnsShare { script: script(who), work }, wanted);
        kv.write(&pplns.take_ops(), true).unwrap();
    }

    fn weights(pplns: &Pplns) -> BTreeMap<Script, u128> {
        pplns.weights().collect()
    }

    /// What the rows say now, and what is written of it at once.
    fn stored(pplns: &mut Pplns, kv: &MemKv) -> Pplns {
        while !pplns.gone.is_empty() {
            kv.write(&pplns.take_ops(), true).unwrap();
        }
        Pplns { began: pplns.began, ..Pplns::open(kv).unwrap() }
    }

    #[test]
    fn work_counts_by_script_and_survives_a_restart() {
        let (kv, mut pplns) = (MemKv::new(), Pplns::open(&MemKv::new()).unwrap());
        assert!(pplns.is_empty() && pplns.take_ops().is_empty());
        for (period, who, work) in [(0, 1, 5), (0, 2, 7), (0, 1, 5), (3, 2, 100), (3, 3, 1)] {
            add(&mut pplns, &kv, period, (who, work), ENDLESS);
        }
        let wanted = BTreeMap::from([(script(1), 10), (script(2), 107), (script(3), 1)]);
        assert_eq!(weights(&pplns), wanted);
        assert_eq!(stored(&mut pplns, &kv), pplns);
        assert_eq!(pplns.rows, 4, "a row a script and period, however many submits");
        // The clock is set back by a day: nothing is lost, and rows stay in order.
        pplns.add_pplns_share(NOW - 86_400, &PplnsShare { script: script(3), work: 4 }, ENDLESS);
        kv.write(&pplns.take_ops(), true).unwrap();
        assert_eq!(weights(&pplns)[&script(3)], 5);
        assert_eq!(stored(&mut pplns, &kv), pplns);
    }

    #[test]
    fn the_window_ends_with_the_work_wanted_or_after_two_weeks_of_mining() {
        let (kv, mut pplns) = (MemKv::new(), Pplns::default());
        for period in 0..100 {
            add(&mut pplns, &kv, period, (period, 10), 500);
        }
        assert_eq!(pplns.periods.len(), 50, "the fewest whose work is enough");
        assert_eq!(weights(&pplns).keys().copied().collect::<BTreeSet<_>>(), (50..100).map(script).collect());
        assert_eq!(stored(&mut pplns, &kv), pplns);
        add(&mut pplns, &kv, 100, (1, 1_000_000), 500);
        assert_eq!(pplns.periods.len(), PPLNS_PERIODS_MIN, "however fast the pool is, six hours count");
        for period in 0..2 * PPLNS_PERIODS_MAX as u32 {
            // A month without mining takes nobody's work away.
            let pause = if period < 1_000 { 0 } else { 4_320 };
            add(&mut pplns, &kv, 101 + pause + period, (1, 1), ENDLESS);
        }
        assert_eq!(pplns.periods.len(), PPLNS_PERIODS_MAX);
        assert_eq!(weights(&pplns), BTreeMap::from([(script(1), PPLNS_PERIODS_MAX as u128)]));
        assert_eq!(stored(&mut pplns, &kv), pplns);
    }

    #[test]
    fn rows_are_bounded_and_deleted_batch_by_batch() {
        let (kv, mut pplns) = (MemKv::new(), Pplns::default());
        let each = PPLNS_SCRIPTS_MAX as u32 / 2;
        for period in 0..2 * PPLNS_ROWS_MAX as u32 / each {
            for who in 0..each {
                pplns.add_pplns_share(NOW + period * PPLNS_PERIOD_S, &PplnsShare { script: script(who), work: 1 }, ENDLESS);
                let ops = pplns.take_ops();
                assert!(!ops.is_empty() && ops.len() <= BATCH_OPS_MAX);
                kv.write(&ops, true).unwrap();
            }
        }
        assert_eq!((pplns.periods.len() as u32, pplns.rows), (PPLNS_ROWS_MAX as u32 / each, PPLNS_ROWS_MAX));
        assert_eq!(weights(&pplns).len() as u32, each);
        assert_eq!(stored(&mut pplns, &kv), pplns);
    }

    /// Addresses cost nothing: who names ever new ones, and does next to nothing for each, takes nothing from who works.
    #[test]
    fn a_flood_of_scripts_pushes_nobody_out_who_works() {
        let (kv, mut pplns) = (MemKv::new(), Pplns::default());
        let honest = 3;
        let mut did = [0; 3];
        for round in 0..3 * PPLNS_SCRIPTS_MAX as u32 {
            add(&mut pplns, &kv, round / 1_000, (honest + round, 1), ENDLESS);
            if round % 500 == 0 {
                for (who, did) in (0..honest).zip(&mut did) {
                    add(&mut pplns, &kv, round / 1_000, (who, 10), ENDLESS);
                    *did += 10;
                }
            }
            assert!(pplns.sums.len() <= PPLNS_SCRIPTS_MAX);
        }
        let weights = weights(&pplns);
        assert_eq!([0, 1, 2].map(|who| weights[&script(who)]), did);
        assert_eq!(pplns.work, weights.values().sum::<u128>());
        assert_eq!(pplns.rows, pplns.periods.iter().map(|period| period.of.len()).sum::<usize>());
        // Who was forgotten may come back in the same period.
        let newest = pplns.periods.back().unwrap().number - NOW / PPLNS_PERIOD_S;
        for who in 0..PPLNS_SCRIPTS_MAX as u32 / 2 {
            add(&mut pplns, &kv, newest, (honest + who, 1), ENDLESS);
        }
        assert_eq!(stored(&mut pplns, &kv), pplns);
    }

    #[test]
    fn a_clock_set_back_by_years_does_not_stop_the_window() {
        let (kv, mut pplns) = (MemKv::new(), Pplns::default());
        let years = 1_000_000;
        add(&mut pplns, &kv, years, (1, 1_000), ENDLESS);
        for period in 0..PPLNS_PERIODS_MAX as u32 {
            assert_eq!(weights(&pplns)[&script(1)], 1_000);
            add(&mut pplns, &kv, period, (2, 1), ENDLESS);
            add(&mut pplns, &kv, period, (2, 1), ENDLESS);
            if period % 500 == 0 {
                assert_eq!(stored(&mut pplns, &kv), pplns);
            }
        }
        assert_eq!(weights(&pplns), BTreeMap::from([(script(2), 2 * PPLNS_PERIODS_MAX as u128)]));
        // The clock catches up, and a restart in the middle of a period goes on with it.
        add(&mut pplns, &kv, years + 5_000, (3, 1), ENDLESS);
        let mut pplns = Pplns::open(&kv).unwrap();
        add(&mut pplns, &kv, years + 5_000, (3, 1), ENDLESS);
        assert_eq!(pplns.periods.back().map(|newest| newest.work), Some(2));
    }

    /// The plain way: all submits in a list.
    #[test]
    fn random_pools_agree_with_a_list_of_their_submits() {
        for seed in 0..20 {
            let mut rng = ChaCha12Rng::seed_from_u64(seed);
            let (kv, mut pplns, mut list, mut period) = (MemKv::new(), Pplns::default(), Vec::new(), 0);
            let wanted = u128::from(rng.next_u32() % 3_000);
            for _ in 0..500 {
                period += u32::from(rng.next_u32().is_multiple_of(3)) * (1 + rng.next_u32() % 5);
                let share = (rng.next_u32() % 7, u128::from(rng.next_u32() % 20));
                add(&mut pplns, &kv, period, share, wanted);
                list.push((period, share));
                let mut periods: Vec<u32> = list.iter().map(|(period, _)| *period).collect();
                periods.dedup();
                let mut from = 0;
                let work = |from: usize| -> u128 { list.iter().filter(|(of, _)| *of >= periods[from]).map(|(_, (_, work))| work).sum() };
                while periods.len() - from > PPLNS_PERIODS_MIN && work(from + 1) >= wanted {
                    from += 1;
                }
                let first = periods[from];
                list.retain(|(period, _)| *period >= first);
            }
            let mut sums = BTreeMap::new();
            list.iter().for_each(|(_, (who, work))| *sums.entry(script(*who)).or_insert(0) += work);
            sums.retain(|_, sum| *sum > 0);
            let mut found = weights(&pplns);
            found.retain(|_, sum| *sum > 0);
            assert_eq!(found, sums, "seed {seed}");
            assert_eq!(stored(&mut pplns, &kv), pplns, "seed {seed}");
        }
    }

    #[test]
    fn rows_that_do_not_decode_are_damage() {
        for (key, value) in
            [(vec![1], vec![0; 16]), (key(1, &script(1)), vec![0; 15]), ([key(1, &script(1)), vec![0]].concat(), vec![0; 16])]
        {
            let kv = MemKv::new();
            kv.write(&[Op::Put(Family::Pplns, key, value)], true).unwrap();
            assert!(matches!(Pplns::open(&kv), Err(StoreError::Damaged(_))));
        }
    }
}
