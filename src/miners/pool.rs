//! The whole pool by its share chain: how much work was done when, and what is to be expected of it.
//!
//! Work is in hashes. A target of difficulty D takes D × 2³² hashes on average; how many it takes is exponentially distributed.

use rockpool_net::id::ShareId;
use rockpool_store::bitcoin::required_bits;
use rockpool_store::record::Record;
use rockpool_store::rules::target;
use rockpool_store::view::ChainView;

use crate::limits::{POOL_MARK_EVERY, POOL_RATE_S};

/// What the chain holds up to a height: its differences count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sum {
    /// Work of shares and of the uncles that they credit, hashes.
    pub work: f64,
    /// Those uncles.
    pub uncles: u64,
}

impl Sum {
    fn plus(self, record: &Record) -> Sum {
        let uncles: u128 = record.uncles().iter().map(|uncle| target::work(uncle.bits)).sum();
        Sum { work: self.work + record.work() as f64 + uncles as f64, uncles: self.uncles + record.uncles().len() as u64 }
    }
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    height: u32,
    id: ShareId,
    sum: Sum,
}

/// Sums over the confirmed chain, so that no question walks it: one every [`POOL_MARK_EVERY`] heights, and one at the tip.
#[derive(Debug, Default)]
pub struct PoolLine {
    marks: Vec<Mark>,
}

impl PoolLine {
    /// Follows the chain: what has left it is taken back, and what is new is added.
    pub fn follow(&mut self, view: &ChainView) {
        let top = view.confirmed_height();
        let stands = |mark: &Mark| mark.height <= top && view.at_height(mark.height).is_some_and(|record| record.id == mark.id);
        while self.marks.pop_if(|mark| !stands(mark)).is_some() {}
        let lowest = view.lowest();
        let below = self.marks.partition_point(|mark| mark.height < lowest.height);
        self.marks.drain(..below);
        let mut last = *self.marks.last().unwrap_or(&Mark { height: lowest.height, id: lowest.id, sum: Sum::default() });
        if self.marks.is_empty() {
            self.marks.push(last);
        }
        for record in (last.height + 1..=top).map_while(|height| view.at_height(height)) {
            // The tip's own mark goes on until it is one that stays.
            if !last.height.is_multiple_of(POOL_MARK_EVERY) && self.marks.len() > 1 {
                self.marks.pop();
            }
            last = Mark { height: record.height, id: record.id, sum: last.sum.plus(record) };
            self.marks.push(last);
        }
    }

    /// All that the chain holds up to and with this height.
    pub fn at(&self, view: &ChainView, height: u32) -> Sum {
        let above = self.marks.partition_point(|mark| mark.height <= height);
        let Some(mark) = above.checked_sub(1).and_then(|below| self.marks.get(below)) else { return self.lowest() };
        (mark.height + 1..=height).map_while(|height| view.at_height(height)).fold(mark.sum, |sum, record| sum.plus(record))
    }

    /// The lowest height above which the chain holds no more than this work: where a window begins.
    pub fn begin(&self, view: &ChainView, work: f64) -> u32 {
        let top = self.marks.last().copied().map_or(Sum::default(), |mark| mark.sum).work;
        // Half of a smallest share is less than what rounding makes of all of them.
        let from = top - work;
        let above = self.marks.partition_point(|mark| mark.sum.work + 0.5 <= from);
        let Some(mark) = above.checked_sub(1).and_then(|below| self.marks.get(below)) else { return view.lowest().height };
        let mut sum = mark.sum;
        let records = (mark.height + 1..=view.confirmed_height()).map_while(|height| view.at_height(height));
        let below = records.take_while(|record| {
            sum = sum.plus(record);
            sum.work <= from + 0.5
        });
        mark.height + below.count() as u32
    }

    /// Hashes a second of the pool up to `end`, over so many seconds, or since the chain began: shares of the time by the time. The
    /// first share of a young chain begins the observation.
    pub fn rate(&self, view: &ChainView, end: u32, seconds: u32) -> f64 {
        let first = view.lowest().height.max(1);
        let Some(begin) = view.at_height(first) else { return 0.0 };
        let from = end.saturating_sub(seconds);
        let (below, since) = if begin.time >= from { (first, begin.time) } else { (height_at(view, from), from) };
        let elapsed = end.saturating_sub(since);
        let work = self.tip().work - self.at(view, below).work;
        if elapsed == 0 { 0.0 } else { (work / f64::from(elapsed)).max(0.0) }
    }

    /// The same over an hour, as it is shown. While the node is behind, at the time up to which it knows the chain.
    pub fn shown_rate(&self, view: &ChainView, now: u32, behind: bool) -> f64 {
        let tip = view.confirmed_tip().time;
        self.rate(view, if behind { tip } else { now.max(tip) }, POOL_RATE_S)
    }

    /// All that the chain holds.
    pub fn tip(&self) -> Sum {
        self.marks.last().map_or(Sum::default(), |mark| mark.sum)
    }

    /// What is counted from.
    fn lowest(&self) -> Sum {
        self.marks.first().map_or(Sum::default(), |mark| mark.sum)
    }
}

/// The highest share of the confirmed chain that is no younger than this; the lowest that is kept if all are. Times of shares go on but
/// for a few seconds, which do not matter here.
pub fn height_at(view: &ChainView, unix: u32) -> u32 {
    let (mut low, mut high) = (view.lowest().height, view.confirmed_height());
    while low < high {
        let middle = high - (high - low) / 2;
        if view.at_height(middle).is_some_and(|record| record.time <= unix) { low = middle } else { high = middle - 1 }
    }
    low
}

/// Bits that Bitcoin demands of its next block. They need not be the best block's: on testnet4 that may be one of minimum difficulty, and a
/// retarget period may end with it.
pub fn next_bits(view: &ChainView) -> Option<u32> {
    let tree = view.bitcoin();
    tree.best().map(|best| required_bits(tree.params(), best, best.time()))
}

/// Work that Bitcoin's next block takes on average. None where a share takes no less, as on regtest: there every share is a block, and
/// what follows from a block's work alone is wrong.
pub fn block_work(view: &ChainView) -> Option<u128> {
    let share = view.confirmed_tip().demand().max(target::work(view.bitcoin().params().floor_bits));
    next_bits(view).map(target::work).filter(|block| *block > share)
}

/// Hashes that a target takes on average, as a number to divide by.
pub fn hashes_of(bits: u32) -> Option<f64> {
    Some(target::work(bits) as f64).filter(|work| *work > 0.0)
}

/// Seconds until so many hashes are done: work / rate. None at no rate, and none that no number holds.
pub fn seconds(work: Option<f64>, rate: f64) -> Option<f64> {
    work.map(|work| work / rate).filter(|seconds| seconds.is_finite())
}

/// The chance of at least one success: 1 − exp(−rate × seconds / work), exactly for the smallest miners too.
pub fn chance(work: Option<f64>, rate: f64, seconds: f64) -> Option<f64> {
    work.map(|work| -(-rate * seconds / work).exp_m1()).filter(|chance| chance.is_finite())
}

/// Effort in percent: 100 × work done / work that takes on average. Below 100 is lucky.
pub fn effort(done: f64, work: Option<f64>) -> Option<f64> {
    work.map(|work| 100.0 * done / work).filter(|effort| effort.is_finite())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rockpool_net::id::ConnId;
    use rockpool_store::chain::{Chain, Offer, Source};
    use rockpool_store::kv::MemKv;
    use rockpool_store::params::{Network, params};
    use rockpool_store::testing::ShareBuilder;

    use super::*;
    use crate::testing::at;
    use std::time::Duration;

    /// Of the chain as it is, the long way.
    fn walked(view: &ChainView, from: u32, to: u32) -> Sum {
        (from + 1..=to).map(|height| view.at_height(height).unwrap()).fold(Sum::default(), |sum, record| sum.plus(record))
    }

    struct Grown {
        chain: Chain,
        view: ChainView,
        salt: u32,
    }

    impl Grown {
        fn new() -> Grown {
            let chain = Chain::open(params(Network::Regtest), [1, 2], &MemKv::new()).unwrap();
            let view = chain.view();
            Grown { chain, view, salt: 0 }
        }

        /// Shares on a share, of as many times the demanded work.
        fn grow(&mut self, mut on: ShareId, count: usize, harder: usize) -> Vec<ShareId> {
            let mut ids = Vec::new();
            // A sync may begin far below the tip.
            let peer = ConnId { slot: 1, generation: 1 };
            self.chain.begin_sync(peer);
            for _ in 0..count {
                self.salt += 1;
                let share = ShareBuilder::new(params(Network::Regtest)).salt(self.salt).harder(harder).build(&self.chain, &on);
                on = share.id();
                let offer = self.chain.offer(at(Duration::from_secs(500_000_000)), &share, Source::Bulk(peer));
                assert_eq!(offer, Offer::Taken);
                ids.push(on);
            }
            self.chain.confirm(usize::MAX);
            if let Some((change, _)) = self.chain.take_change() {
                self.view.apply(&change);
            }
            ids
        }
    }

    #[test]
    fn sums_follow_the_chain_through_reorgs() {
        let (mut grown, mut line) = (Grown::new(), PoolLine::default());
        line.follow(&grown.view);
        assert_eq!((line.tip(), line.rate(&grown.view, u32::MAX, 3_600)), (Sum::default(), 0.0));
        let genesis = params(Network::Regtest).genesis_id();
        let ids = grown.grow(genesis, 2 * POOL_MARK_EVERY as usize + 40, 1);
        line.follow(&grown.view);
        let check = |grown: &Grown, line: &PoolLine| {
            let top = grown.view.confirmed_height();
            assert_eq!(line.tip(), walked(&grown.view, 0, top));
            for height in (0..=top).step_by(37).chain([top]) {
                assert_eq!(line.at(&grown.view, height), walked(&grown.view, 0, height));
                let window = walked(&grown.view, height, top).work;
                assert_eq!(line.begin(&grown.view, window), height, "where it holds so much work");
            }
            assert!(line.marks.len() as u32 <= top / POOL_MARK_EVERY + 2, "{} marks", line.marks.len());
        };
        check(&grown, &line);
        // A better branch from far below, past a mark.
        let fork = ids[POOL_MARK_EVERY as usize + 20];
        let branch = grown.grow(fork, POOL_MARK_EVERY as usize + 70, 2);
        assert_eq!(grown.view.confirmed_tip().id, *branch.last().unwrap(), "a reorg");
        line.follow(&grown.view);
        check(&grown, &line);
        grown.grow(*branch.last().unwrap(), 3, 1);
        line.follow(&grown.view);
        check(&grown, &line);
        assert_eq!(line.begin(&grown.view, f64::MAX), 0, "no more than there is");
        assert_eq!(line.begin(&grown.view, 0.0), grown.view.confirmed_height());
    }

    #[test]
    fn the_rate_is_work_by_time() {
        let (mut grown, mut line) = (Grown::new(), PoolLine::default());
        grown.grow(params(Network::Regtest).genesis_id(), 50, 1);
        line.follow(&grown.view);
        let view = &grown.view;
        let (first, tip) = (view.at_height(1).unwrap().time, view.confirmed_tip().time);
        // The first share begins the observation: 49 are of the time since.
        let all = walked(view, 1, 50).work / f64::from(tip - first);
        assert_eq!(line.rate(view, tip, 1_000_000), all);
        assert_eq!(line.rate(view, tip + 3 * (tip - first), 10_000_000), all / 4.0, "a pool that stands still has less and less");
        assert_eq!(line.rate(view, tip + 2 * POOL_RATE_S, POOL_RATE_S), 0.0);
        let (middle, span) = (view.at_height(25).unwrap().time, tip - view.at_height(25).unwrap().time);
        assert_eq!(line.rate(view, tip, span), walked(view, height_at(view, middle), 50).work / f64::from(span));
        assert_eq!((line.shown_rate(view, tip - 9, false), line.shown_rate(view, tip + 99_999, true)), (all, all));
        assert_eq!((height_at(view, 0), height_at(view, u32::MAX), height_at(view, middle)), (0, 50, 25));
    }

    /// By hand: difficulty 1 is 0x1d00ffff, ⌊2²⁵⁶ / (0xffff × 2²⁰⁸ + 1)⌋ = 4 295 032 833 hashes.
    #[test]
    fn what_is_to_be_expected_is_as_computed_by_hand() {
        let one = hashes_of(0x1d00_ffff);
        assert_eq!(one, Some(4_295_032_833.0));
        assert_eq!(seconds(one, 4_295_032_833.0 / 10.0), Some(10.0));
        assert_eq!((seconds(one, 0.0), seconds(None, 1.0), seconds(one, f64::MIN_POSITIVE)), (None, None, None), "JSON knows no infinity");
        assert_eq!((hashes_of(0), chance(None, 1.0, 1.0), effort(1.0, None)), (None, None, None));
        assert_eq!((effort(4_295_032_833.0, one), effort(0.0, one)), (Some(100.0), Some(0.0)));
        // As much work as one block takes: 1 − 1/e.
        assert!((chance(one, 4_295_032_833.0, 1.0).unwrap() - 0.632_120_558_828_557_7).abs() < 1e-15);
        assert_eq!((chance(one, 0.0, 86_400.0), chance(one, 1e18, 1e9)), (Some(0.0), Some(1.0)));
        // A terahash at a difficulty of 129.7 T: 1e12 × 86,400 / (1.297e14 × 2³²) = 1.551e-7 a day; 1 − exp(−x) alone would lose half of
        // the digits.
        let work = Some(1.297e14 * 4_294_967_296.0);
        let day = 1e12 * 86_400.0 / (1.297e14 * 4_294_967_296.0);
        assert!((chance(work, 1e12, 86_400.0).unwrap() / (day - day * day / 2.0) - 1.0).abs() < 1e-14);
        assert!((day - 1.551_0e-7).abs() < 1e-11);
        let year = chance(work, 1e12, 365.0 * 86_400.0).unwrap();
        assert!((year - 5.661e-5).abs() < 1e-8, "{year}");
    }
}
