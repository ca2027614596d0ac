//! The tree of shares of a simulated network. Everything that a rule decides is asked of `rockpool_store::rules`; the records it takes are
//! made in [`Tree::record`] alone.

use rockpool_net::wire::share::Script;
use rockpool_store::limits::{MEDIAN_SPAN, TENTHS};
use rockpool_store::params::{Network, Params, params};
use rockpool_store::record::Record;
use rockpool_store::rules::window::{Level, Window};
use rockpool_store::rules::{Derived, child, difficulty, score, target};

/// The most uncles that a share credits, and how far below it they may be (SHARECHAIN, uncles).
pub const UNCLES_MAX: usize = 3;
pub const UNCLE_DEPTH: u32 = 6;

/// The lead that every run begins with, seconds, and its time, Unix seconds.
pub const LEAD: u32 = 5_000;
pub const START: u32 = 1_800_000_000;

/// A share: its place in the tree, and what the rules ask of it. Genesis is number 0 and its own parent.
#[derive(Clone, Debug)]
pub struct Mined {
    pub parent: usize,
    pub height: u32,
    pub lead: u32,
    pub score: u128,
    pub time: u32,
    pub work: u128,
    pub demand: u128,
    pub miner: usize,
    pub uncles: Vec<usize>,
}

/// What the proof is looked for on: a share in all but its uncles.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    pub parent: usize,
    pub time: u32,
    pub derived: Derived,
    pub work: u128,
}

/// How much harder than allowed a share's target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harder {
    /// By this power of two, 4 at most.
    Times2(usize),
    /// By one percent.
    Percent,
}

/// What makes a chain better than another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scored {
    /// The rules as they are.
    #[default]
    AsRuled,
    /// All work of a share counts at once.
    AtOnce,
    /// Of a share's work whole multiples of its demand count at once, the rest never.
    Multiples,
}

/// What ends a window: its fewest heights in a pool of more than a twelfth of Bitcoin's hash rate, the work of three Bitcoin blocks, or
/// its most heights in a pool that finds no three blocks in two weeks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Fewest,
    Work,
    Most,
}

/// Rules that a network could have instead: they show what ours are good for, and that the model sees it.
#[derive(Clone, Copy, Debug)]
pub struct Other {
    pub scored: Scored,
    /// The most uncles of a share, and how far below it they may be.
    pub uncles_max: usize,
    pub uncle_depth: u32,
}

impl Default for Other {
    fn default() -> Other {
        Other { scored: Scored::AsRuled, uncles_max: UNCLES_MAX, uncle_depth: UNCLE_DEPTH }
    }
}

impl Default for Tree {
    fn default() -> Tree {
        Tree::new(Other::default())
    }
}

/// All shares that were ever found, published or not.
pub struct Tree {
    params: &'static Params,
    genesis: Record,
    other: Other,
    shares: Vec<Mined>,
    /// Numbers of shares by height.
    levels: Vec<Vec<usize>>,
}

impl Tree {
    pub fn new(other: Other) -> Tree {
        let params = params(Network::Main);
        let genesis =
            Mined { parent: 0, height: 0, lead: LEAD, score: 0, time: START, work: 0, demand: 0, miner: usize::MAX, uncles: Vec::new() };
        Tree { params, genesis: params.genesis_record(), other, shares: vec![genesis], levels: vec![vec![0]] }
    }

    /// The hash rate at which shares of the first difficulty come as often as they should.
    pub fn rate(&self) -> f64 {
        self.derive(0, START).demand as f64 / f64::from(self.params.interval_s)
    }

    pub fn get(&self, share: usize) -> &Mined {
        &self.shares[share]
    }

    /// The share as rules take it: what they look at, all else as genesis has it.
    fn record(&self, share: usize) -> Record {
        let Mined { height, lead, score, time, work, demand, .. } = self.shares[share];
        Record { height, lead, score, time, work, demand, ..self.genesis.clone() }
    }

    fn derive(&self, parent: usize, time: u32) -> Derived {
        let height = self.shares[parent].height + 1;
        let excess_below = match score::excess_height(height) {
            Some(below) if self.other.scored == Scored::AsRuled => score::excess(&self.record(self.ancestor(parent, below))),
            _ => 0,
        };
        child(self.params, &self.record(parent), excess_below, time)
    }

    /// What a child of `parent` at `time` is looked for with.
    pub fn template(&self, parent: usize, time: u32, harder: Harder) -> Template {
        let derived = self.derive(parent, time);
        let work = match (harder, target::target(derived.allowed_bits)) {
            (Harder::Times2(0), _) | (_, None) => derived.demand,
            (Harder::Times2(4), _) => target::work(difficulty::hardest_bits(derived.allowed_bits)),
            (Harder::Times2(log2), Some(allowed)) => target::work(target::compact(allowed >> log2)),
            // 1/128 and 1/512 of it less: one percent to a fiftieth of it.
            (Harder::Percent, Some(allowed)) => target::work(target::compact(allowed - (allowed >> 7usize) - (allowed >> 9usize))),
        };
        Template { parent, time, derived, work }
    }

    /// Adds a found share.
    pub fn add(&mut self, template: &Template, miner: usize, uncles: Vec<usize>) -> usize {
        let Template { parent, time, derived, work } = *template;
        let at_once = match self.other.scored {
            Scored::AsRuled => 0,
            Scored::AtOnce => work - derived.demand,
            Scored::Multiples => work - derived.demand - work % derived.demand,
        };
        let number = self.shares.len();
        let height = derived.height;
        self.shares.push(Mined {
            parent,
            height,
            lead: derived.lead,
            score: derived.score + at_once,
            time,
            work,
            demand: derived.demand,
            miner,
            uncles,
        });
        if self.levels.len() <= height as usize {
            self.levels.push(Vec::new());
        }
        self.levels[height as usize].push(number);
        number
    }

    /// The ancestor at a height, or the share itself.
    pub fn ancestor(&self, mut share: usize, height: u32) -> usize {
        while self.shares[share].height > height {
            share = self.shares[share].parent;
        }
        share
    }

    /// The share and its ancestors, genesis last.
    pub fn line(&self, share: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(share), |share| (*share != 0).then(|| self.shares[*share].parent))
    }

    /// The earliest time of a child.
    pub fn earliest(&self, parent: usize) -> u32 {
        let mut times = [0; MEDIAN_SPAN];
        let mut count = 0;
        for (at, share) in times.iter_mut().zip(self.line(parent)) {
            *at = self.shares[share].time;
            count += 1;
        }
        difficulty::median_time(&times[..count]) + 1
    }

    /// The uncles that a child of `parent` credits, of those that `wanted` says yes to: as many as may be, the lowest first, so that who
    /// builds on an uncle is creditable with it.
    pub fn uncles(&self, parent: usize, wanted: impl Fn(usize) -> bool) -> Vec<usize> {
        let height = self.shares[parent].height + 1;
        let lowest = height.saturating_sub(self.other.uncle_depth).max(1);
        if (lowest..height).all(|level| self.levels[level as usize].len() < 2) {
            return Vec::new();
        }
        // Chain shares from `parent` down to where the lowest uncle's parent may be, and all that they credit. Who credits a parent that
        // lies lower is looked for further down: it is at most so far above it.
        let line: Vec<usize> = self.line(parent).take(2 * self.other.uncle_depth as usize + 2).collect();
        let credited: Vec<usize> = line.iter().flat_map(|share| self.shares[*share].uncles.iter().copied()).collect();
        let mut uncles: Vec<usize> = Vec::new();
        for level in lowest..height {
            for &share in &self.levels[level as usize] {
                let above = self.shares[share].parent;
                let rooted = line.contains(&above) || credited.contains(&above) || uncles.contains(&above);
                if uncles.len() < self.other.uncles_max && rooted && !line.contains(&share) && !credited.contains(&share) && wanted(share) {
                    uncles.push(share);
                }
            }
        }
        uncles
    }

    /// What the chain that ends with `head` is worth to each miner: tenths of work, and of these the parts of uncles.
    pub fn credits(&self, head: usize, miners: usize) -> (Vec<f64>, f64) {
        let mut tenths = vec![0.0; miners];
        let mut of_uncles = 0.0;
        let whole = |share: &Mined| (TENTHS * share.work) as f64;
        for number in self.line(head).filter(|share| *share != 0) {
            let share = &self.shares[number];
            tenths[share.miner] += whole(share);
            for uncle in share.uncles.iter().map(|uncle| &self.shares[*uncle]) {
                let left = uncle.work.min(share.demand) as f64;
                tenths[share.miner] += left;
                tenths[uncle.miner] += whole(uncle) - left;
                of_uncles += whole(uncle);
            }
        }
        (tenths, of_uncles)
    }

    /// In a chain without branches: what a hash in each share is paid by the blocks that are found later, by what it is worth. Every share
    /// may be a block with a chance that goes by its work.
    pub fn worth(&self, bound: Bound) -> Vec<f64> {
        let bitcoin_bits = match bound {
            Bound::Fewest => self.params.floor_bits,
            // A Bitcoin block is worth 4,096 of the first shares.
            Bound::Work => target::target(self.derive(0, START).allowed_bits).map_or(0, |allowed| target::compact(allowed >> 12usize)),
            Bound::Most => 0x1700_8001,
        };
        let tip = Record { bitcoin_bits, ..self.genesis.clone() };
        let mut kept = Window::new();
        // What begins to be paid at a share less what ends.
        let mut steps = vec![0.0; self.shares.len() + 1];
        for next in 2..self.shares.len() {
            kept.push(self.params, &tip, |height| self.level(height as usize));
            let Some((low, top)) = kept.heights() else { continue };
            let sum: u128 = kept.weights().map(|(_, tenths)| tenths).sum();
            let paid = (TENTHS * self.shares[next].work) as f64 / sum as f64;
            steps[low as usize] += paid;
            steps[top as usize + 1] -= paid;
        }
        let mut worth = 0.0;
        steps
            .iter()
            .map(|step| {
                worth += step;
                worth
            })
            .collect()
    }

    fn level(&self, share: usize) -> Level {
        Level::of(&Record { script: Script::P2wpkh([self.shares[share].miner as u8; 20]), ..self.record(share) })
    }
}
