//! The window of shares that are paid, kept as running sums (SPEC, WIN-1 to WIN-5).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rockpool_net::wire::share::Script;

use crate::bitcoin::{Block, period_bits_of_child};
use crate::limits::{TENTHS, WINDOW_BLOCKS};
use crate::params::Params;
use crate::record::Record;
use crate::rules::{target, uncles};

/// What a script gains by one height, in tenths of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// Who.
    pub script: Script,
    /// How much.
    pub tenths: u128,
}

/// One height of the chain as the window counts it: the chain's share and its uncles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// Work of the share and of its uncles.
    pub work: u128,
    /// What it is worth to whom.
    pub credits: Vec<Credit>,
}

impl Level {
    /// Of a height that is not there: worth nothing.
    pub const NONE: Level = Level { work: 0, credits: Vec::new() };

    /// WIN-2: the level of a chain share.
    pub fn of(share: &Record) -> Level {
        let (work, demand) = (share.work(), share.demand());
        let mut level = Level { work, credits: Vec::with_capacity(1 + share.uncles().len()) };
        let mut own = TENTHS.wrapping_mul(work);
        for uncle in share.uncles() {
            let work = target::work(uncle.bits);
            own = own.wrapping_add(uncles::bounty(work, demand));
            level.work = level.work.wrapping_add(work);
            level.credits.push(Credit { script: *uncle.script, tenths: uncles::left(work, demand) });
        }
        level.credits.push(Credit { script: *share.script, tenths: own });
        level
    }
}

/// The window that ends with a tip, and what each script has in it.
///
/// Sums wrap instead of failing, so that what is added can always be taken away again: to reach 2¹²⁸ takes more hashes than can be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    sums: BTreeMap<Script, u128>,
    work: u128,
    /// Heights in it: `top - count + 1 ..= top`.
    count: u32,
    top: u32,
    /// The height that is in no window: genesis, or the base share that the chain was begun at.
    floor: u32,
}

impl Window {
    /// The window that ends with the lowest share there is (genesis, or a base), which is in no window: nobody has anything.
    pub fn new(floor: u32) -> Window {
        Window { floor, top: floor, ..Window::default() }
    }

    /// Moves one height up. `wanted` is [`wanted_work`] there; `level` gives the levels of the new tip's branch.
    pub fn push(&mut self, params: &Params, wanted: u128, level: impl Fn(u32) -> Level) {
        self.top += 1;
        self.count += 1;
        self.add(&level(self.top));
        self.fit(params, wanted, level);
    }

    /// Moves one height down. `wanted` is [`wanted_work`] there; `level` gives the levels of the branch so far.
    pub fn pop(&mut self, params: &Params, wanted: u128, level: impl Fn(u32) -> Level) {
        if self.count == 0 {
            return;
        }
        self.remove(&level(self.top));
        self.top -= 1;
        self.count -= 1;
        self.fit(params, wanted, level);
    }

    /// Nothing is known any more of heights up to this one. A window that comes down there again is as if the chain had begun there.
    pub fn raise(&mut self, floor: u32) {
        self.floor = self.floor.max(floor);
    }

    /// What each script has in it, tenths of work, in script order; nobody has nothing.
    pub fn weights(&self) -> impl Iterator<Item = (Script, u128)> + '_ {
        self.sums.iter().map(|(script, sum)| (*script, *sum))
    }

    /// BASE-3: whether it is the one that a node would have that knows the chain from genesis on: nothing is known of heights up to the
    /// base, so it must be whole without them.
    pub fn is_whole(&self, params: &Params) -> bool {
        self.floor == 0 || self.count >= params.window_max || self.count < self.top - self.floor
    }

    /// Its lowest height and its highest, the tip's; none while the tip is the lowest share there is.
    pub fn heights(&self) -> Option<(u32, u32)> {
        (self.count > 0).then(|| (self.top - self.count + 1, self.top))
    }

    /// WIN-3: the fewest heights that are enough, or all there are.
    fn fit(&mut self, params: &Params, wanted: u128, level: impl Fn(u32) -> Level) {
        while self.count < self.top - self.floor && !self.enough(params, wanted, 0, 0) {
            self.count += 1;
            self.add(&level(self.top - self.count + 1));
        }
        while self.count > 1 {
            let low = level(self.top - self.count + 1);
            if !self.enough(params, wanted, 1, low.work) {
                break;
            }
            self.remove(&low);
            self.count -= 1;
        }
    }

    /// Whether it would be enough with this many heights and this work less.
    fn enough(&self, params: &Params, wanted: u128, heights: u32, work: u128) -> bool {
        let count = self.count - heights;
        count >= params.window_max || (count >= params.window_min && self.work.wrapping_sub(work) >= wanted)
    }

    fn add(&mut self, level: &Level) {
        self.work = self.work.wrapping_add(level.work);
        for credit in &level.credits {
            let sum = self.sums.entry(credit.script).or_insert(0);
            *sum = sum.wrapping_add(credit.tenths);
        }
    }

    fn remove(&mut self, level: &Level) {
        self.work = self.work.wrapping_sub(level.work);
        for credit in &level.credits {
            if let Entry::Occupied(mut sum) = self.sums.entry(credit.script) {
                *sum.get_mut() = sum.get().wrapping_sub(credit.tenths);
                if *sum.get() == 0 {
                    sum.remove();
                }
            }
        }
    }
}

/// WIN-4: the work that a window ending with `tip` must hold.
pub fn wanted_work(params: &Params, tip: &Record) -> u128 {
    window_work(params, &tip.bitcoin)
}

/// The work that a window must hold whose newest work builds on this block of Bitcoin's.
pub fn window_work(params: &Params, bitcoin: &Block) -> u128 {
    target::work(period_bits_of_child(params, bitcoin)).saturating_mul(WINDOW_BLOCKS)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bitcoin::required_bits;
    use crate::params::{Network, params};
    use crate::record::{Rare, Uncle};

    fn script(who: u8) -> Script {
        Script::P2tr([who; 32])
    }

    fn small(window_min: u32, window_max: u32) -> Params {
        let mut params = params(Network::Regtest).clone();
        (params.window_min, params.window_max) = (window_min, window_max);
        params
    }

    /// A level that is worth `work` to one script.
    fn worth(work: u128, who: u8) -> Level {
        Level { work, credits: vec![Credit { script: script(who), tenths: TENTHS.wrapping_mul(work) }] }
    }

    /// Levels by height, genesis first, each worth `work` to `who(height)`.
    fn chain(heights: u32, work: u128, who: impl Fn(u32) -> u8) -> Vec<Level> {
        (0..=heights).map(|height| if height == 0 { Level::NONE } else { worth(work, who(height)) }).collect()
    }

    fn moved(params: &Params, chain: &[Level], wanted: u128) -> Window {
        let mut window = Window::new(0);
        for _ in 1..chain.len() {
            window.push(params, wanted, |height| chain[height as usize].clone());
        }
        window
    }

    #[test]
    fn genesis_is_in_no_window() {
        let params = params(Network::Regtest);
        let chain = chain(1, 5, |_| 7);
        let mut window = Window::new(0);
        assert_eq!((window.heights(), window.weights().count()), (None, 0));
        window.push(params, 6, |height| chain[height as usize].clone());
        assert_eq!(window.heights(), Some((1, 1)));
        assert_eq!(window.weights().collect::<Vec<_>>(), [(script(7), 50)]);
        window.pop(params, 6, |height| chain[height as usize].clone());
        assert_eq!(window, Window::new(0));
        window.pop(params, 6, |height| chain[height as usize].clone());
        assert_eq!(window, Window::new(0));
    }

    #[test]
    fn the_least_heights_bind_where_work_is_plenty() {
        let params = params(Network::Regtest);
        let window = moved(params, &chain(3_000, 2, |height| (height / 1_000) as u8), 6);
        assert_eq!(window.heights(), Some((841, 3_000)));
        // 841..=999, 1,000..=1,999, 2,000..=2,999, 3,000.
        let weights = [159 * 20, 1_000 * 20, 1_000 * 20, 20].into_iter().zip(0..).map(|(weight, who)| (script(who), weight));
        assert!(window.weights().eq(weights));
    }

    #[test]
    fn three_blocks_of_work_bind_where_it_is_scarce_and_the_most_heights_end_it() {
        let params = small(5, 12);
        let mut chain = chain(40, 100, |_| 1);
        // Three blocks are worth 6 but at two heights, where it is 12,288 and 9; the shares' own work falls to 1.
        chain[22..].fill(worth(1, 1));
        let wanted = |height: usize| [6, 12_288, 9][usize::from(height == 20) + 2 * usize::from(height == 31)];
        let mut window = Window::new(0);
        let mut lows = vec![0];
        for height in 1..=40 {
            window.push(&params, wanted(height), |height| chain[height as usize].clone());
            lows.push(window.heights().map_or(0, |(low, _)| low));
        }
        assert_eq!((lows[4], lows[5], lows[6], lows[19]), (1, 1, 2, 15));
        // It grows back at its tail as far as it may, and shrinks again.
        assert_eq!((lows[20], lows[21]), (9, 17));
        // Six heights, nine, six: what 6 and 9 of work take.
        assert_eq!((lows[30], lows[31], lows[32]), (25, 23, 27));
    }

    /// However long it is: elsewhere every payout walks all of it, and a reorg of more than a hundred heights reads it anew.
    #[test]
    fn a_share_more_or_less_looks_at_few_heights_of_two_weeks() {
        let params = params(Network::Main);
        let heights = params.window_max + 3_000;
        // Scarce work: the most heights bind.
        let chain = chain(heights, 1, |height| (height % 200) as u8);
        let looks = std::cell::Cell::new(0u32);
        let level = |height: u32| {
            looks.set(looks.get() + 1);
            chain[height as usize].clone()
        };
        let mut window = Window::new(0);
        for _ in 1..=heights {
            looks.set(0);
            window.push(params, u128::MAX, level);
            assert!(looks.get() <= 4, "{} looks", looks.get());
        }
        assert_eq!(window.heights(), Some((heights - params.window_max + 1, heights)));
        let full = window.clone();
        for _ in 0..1_000 {
            looks.set(0);
            window.pop(params, u128::MAX, level);
            assert!(looks.get() <= 4, "{} looks", looks.get());
        }
        assert_eq!(window.heights(), Some((heights - 1_000 - params.window_max + 1, heights - 1_000)));
        (0..1_000).for_each(|_| window.push(params, u128::MAX, level));
        assert_eq!(window, full);
    }

    #[test]
    fn sums_never_fail_even_where_they_wrap() {
        let params = small(3, 9);
        let chain = chain(30, u128::MAX, |height| height as u8 % 2);
        let mut window = moved(&params, &chain, 6);
        for _ in 0..30 {
            window.pop(&params, 6, |height| chain[height as usize].clone());
        }
        assert_eq!(window, Window::new(0));
    }

    #[test]
    fn nothing_below_the_base_is_counted_and_the_window_says_when_that_shows() {
        let params = small(5, 12);
        let level = |height: u32| worth(1, height as u8);
        let (mut begun, mut whole) = (Window::new(100), Window::new(0));
        (0..100).for_each(|_| whole.push(&params, 9, level));
        for height in 101..=140u32 {
            begun.push(&params, 9, level);
            whole.push(&params, 9, level);
            assert_eq!(begun.is_whole(&params), height > 109, "at {height}: nine heights are wanted");
            assert_eq!(begun.weights().eq(whole.weights()), height >= 109, "at {height}");
            assert!(whole.is_whole(&params));
        }
        // Where work is scarce the most heights end it.
        let mut begun = Window::new(100);
        for height in 101..=140u32 {
            begun.push(&params, u128::MAX, level);
            assert_eq!(begun.is_whole(&params), height >= 112, "at {height}");
        }
    }

    #[test]
    fn three_blocks_are_those_of_the_periods_first() {
        let params = params(Network::Regtest);
        assert_eq!(wanted_work(params, &params.genesis_record()), 6);
    }

    /// Elsewhere a header's own bits say how long the window is, and whoever finds a share chooses them.
    #[test]
    fn an_easy_block_on_testnet4_changes_no_window() {
        let (testnet4, hard, easy) = (params(Network::Testnet4), 0x1a01_0000, 0x1d00_ffff);
        for bits in [easy, hard] {
            let mut block = Block::named([1; 32], 100_000, 1_700_000_000, bits);
            block.period_bits = hard;
            let tip = Record { bitcoin: Arc::new(block), ..testnet4.genesis_record() };
            assert_eq!(wanted_work(testnet4, &tip), 3 * target::work(hard));
        }
        // The share's own header is the period's first: its bits, as Bitcoin demands them.
        let mut last = Block::named([1; 32], 2_016 * 50 - 1, 1_700_000_000, easy);
        last.period_bits = hard;
        let required = required_bits(testnet4, &last, 1_700_000_001);
        let tip = Record { bitcoin: Arc::new(last), ..testnet4.genesis_record() };
        assert_eq!(wanted_work(testnet4, &tip), 3 * target::work(required));
        assert!(target::work(required) > 1_000 * target::work(easy));
    }

    #[test]
    fn an_uncle_leaves_a_tenth_and_no_more_than_a_tenth_of_what_was_demanded() {
        let genesis = params(Network::Regtest).genesis_record();
        let uncle = |bits| Uncle { id: genesis.id, height: 4, bits, script: Arc::new(script(9)) };
        // Work 16,384 and 2; the nephew's own 4,096, of which 256 were demanded.
        let uncles = vec![uncle(0x1f03_ffff), uncle(0x207f_ffff)];
        let rare = Some(Box::new(Rare { uncles, ..Rare::default() }));
        let nephew = Record { height: 5, bits: 0x1f0f_ffff, allowed_bits: 0x2000_ffff, script: Arc::new(script(1)), rare, ..genesis };
        assert_eq!((nephew.work(), nephew.demand(), target::work(0x1f03_ffff)), (4_096, 256, 16_384));
        let level = Level::of(&nephew);
        let credits: Vec<_> = level.credits.iter().map(|credit| (credit.script, credit.tenths)).collect();
        assert_eq!(level.work, 4_096 + 16_384 + 2);
        assert_eq!(credits, [(script(9), 163_840 - 256), (script(9), 20 - 2), (script(1), 40_960 + 256 + 2)]);
        assert_eq!(credits.iter().map(|credit| credit.1).sum::<u128>(), 10 * level.work, "nothing is made and nothing lost");
    }
}
