//! The window of shares that are paid, kept as running sums (SPEC, WIN-1 to WIN-5).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rockpool_net::wire::share::Script;

use crate::limits::{TENTHS, WINDOW_BLOCKS};
use crate::params::Params;
use crate::record::Record;
use crate::rules::target::work;

/// What a script gains by one height, in tenths of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// Who.
    pub script: Script,
    /// How much.
    pub tenths: u128,
}

/// One height of the chain as the window counts it: the chain's share, later its uncles too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// Work of the share.
    pub work: u128,
    /// What it is worth to whom.
    pub credits: Vec<Credit>,
}

impl Level {
    /// WIN-2: the level of a chain share.
    pub fn of(share: &Record) -> Level {
        let credits = vec![Credit { script: share.script, tenths: TENTHS.wrapping_mul(share.work) }];
        Level { work: share.work, credits }
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
}

impl Window {
    /// The window that ends with genesis, which is in no window: nobody has anything.
    pub fn new() -> Window {
        Window::default()
    }

    /// Moves on to `tip`, a child of the tip so far. `level` gives the levels of tip's branch.
    pub fn push(&mut self, params: &Params, tip: &Record, level: impl Fn(u32) -> Level) {
        self.top += 1;
        self.count += 1;
        self.add(&level(self.top));
        self.fit(params, tip, level);
    }

    /// Moves back to `tip`, the parent of the tip so far. `level` gives the levels of the branch that is left.
    pub fn pop(&mut self, params: &Params, tip: &Record, level: impl Fn(u32) -> Level) {
        if self.count == 0 {
            return;
        }
        self.remove(&level(self.top));
        self.top -= 1;
        self.count -= 1;
        self.fit(params, tip, level);
    }

    /// What each script has in it, tenths of work, in script order; nobody has nothing.
    pub fn weights(&self) -> impl Iterator<Item = (Script, u128)> + '_ {
        self.sums.iter().map(|(script, sum)| (*script, *sum))
    }

    /// Its lowest height and its highest, the tip's; none while the tip is genesis.
    pub fn heights(&self) -> Option<(u32, u32)> {
        (self.count > 0).then(|| (self.top - self.count + 1, self.top))
    }

    /// WIN-3: the fewest heights that are enough, or all there are.
    fn fit(&mut self, params: &Params, tip: &Record, level: impl Fn(u32) -> Level) {
        let wanted = wanted_work(tip);
        while self.count < self.top && !self.enough(params, wanted, 0, 0) {
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
fn wanted_work(tip: &Record) -> u128 {
    work(tip.bitcoin_bits).saturating_mul(WINDOW_BLOCKS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{Network, params};

    fn script(who: u8) -> Script {
        Script::P2tr([who; 32])
    }

    fn small(window_min: u32, window_max: u32) -> Params {
        let mut params = params(Network::Regtest).clone();
        (params.window_min, params.window_max) = (window_min, window_max);
        params
    }

    /// A chain on genesis in which the share of height h is worth `work` to `who(h)`; Bitcoin's work is 2 throughout.
    fn chain(params: &Params, heights: u32, work: u128, who: impl Fn(u32) -> u8) -> Vec<Record> {
        let genesis = params.genesis_record();
        (0..=heights)
            .map(|height| match height {
                0 => genesis.clone(),
                _ => Record { height, work, script: script(who(height)), bitcoin_bits: 0x207f_ffff, ..genesis.clone() },
            })
            .collect()
    }

    fn moved(params: &Params, chain: &[Record]) -> Window {
        let mut window = Window::new();
        for tip in &chain[1..] {
            window.push(params, tip, |height| Level::of(&chain[height as usize]));
        }
        window
    }

    #[test]
    fn genesis_is_in_no_window() {
        let params = params(Network::Regtest);
        let chain = chain(params, 1, 5, |_| 7);
        let mut window = Window::new();
        assert_eq!((window.heights(), window.weights().count()), (None, 0));
        window.push(params, &chain[1], |height| Level::of(&chain[height as usize]));
        assert_eq!(window.heights(), Some((1, 1)));
        assert_eq!(window.weights().collect::<Vec<_>>(), [(script(7), 50)]);
        window.pop(params, &chain[0], |height| Level::of(&chain[height as usize]));
        assert_eq!(window, Window::new());
        window.pop(params, &chain[0], |height| Level::of(&chain[height as usize]));
        assert_eq!(window, Window::new());
    }

    #[test]
    fn the_least_heights_bind_where_work_is_plenty() {
        let params = params(Network::Regtest);
        let chain = chain(params, 3_000, 2, |height| (height / 1_000) as u8);
        let window = moved(params, &chain);
        assert_eq!(window.heights(), Some((841, 3_000)));
        // 841..=999, 1,000..=1,999, 2,000..=2,999, 3,000.
        let weights = [159 * 20, 1_000 * 20, 1_000 * 20, 20].into_iter().zip(0..).map(|(weight, who)| (script(who), weight));
        assert!(window.weights().eq(weights));
    }

    #[test]
    fn three_blocks_of_work_bind_where_it_is_scarce_and_the_most_heights_end_it() {
        let params = small(5, 12);
        let mut chain = chain(&params, 40, 100, |_| 1);
        // Bitcoin's work is 2 but for two heights, where it is 4,096 and 3; the shares' own falls to 1.
        chain[20].bitcoin_bits = 0x1f0f_ffff;
        chain[31].bitcoin_bits = 0x2055_5555;
        assert_eq!((work(0x1f0f_ffff), work(0x2055_5555)), (4_096, 3));
        chain.iter_mut().skip(22).for_each(|record| record.work = 1);
        let mut window = Window::new();
        let mut lows = vec![0];
        for tip in &chain[1..] {
            window.push(&params, tip, |height| Level::of(&chain[height as usize]));
            lows.push(window.heights().map_or(0, |(low, _)| low));
        }
        assert_eq!((lows[4], lows[5], lows[6], lows[19]), (1, 1, 2, 15));
        // It grows back at its tail as far as it may, and shrinks again.
        assert_eq!((lows[20], lows[21]), (9, 17));
        // Six heights, nine, six: what 3 × 2 and 3 × 3 of work take.
        assert_eq!((lows[30], lows[31], lows[32]), (25, 23, 27));
    }

    #[test]
    fn sums_never_fail_even_where_they_wrap() {
        let params = small(3, 9);
        let chain = chain(&params, 30, u128::MAX, |height| height as u8 % 2);
        let mut window = moved(&params, &chain);
        for height in (0..30).rev() {
            window.pop(&params, &chain[height], |height| Level::of(&chain[height as usize]));
        }
        assert_eq!(window, Window::new());
    }
}
