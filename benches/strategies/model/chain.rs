//! The tree of shares of a simulated network. Everything that a rule decides is asked of `rockpool_store::rules`; the records it takes are
//! made in [`Tree::record`] alone.

use std::ops::Deref;
use std::sync::Arc;

use rockpool_net::id::ShareId;
use rockpool_net::limits::UNCLES_MAX;
use rockpool_net::wire::share::Script;
use rockpool_store::limits::{MEDIAN_SPAN, REACH, TENTHS, UNCLE_DEPTH, WINDOW_BLOCKS};
use rockpool_store::params::{Network, Params, params};
use rockpool_store::record::{Rare, Record};
use rockpool_store::rules::window::{Level, Window};
use rockpool_store::rules::{Ancestors, Derived, child, difficulty, target, uncles};

/// The lead that every run begins with, seconds, and its time, Unix seconds.
pub const LEAD: u32 = 5_000;
pub const START: u32 = 1_800_000_000;

/// A share: its record, and what the simulation alone has numbers for. Genesis is number 0 and its own parent.
#[derive(Clone, Debug)]
pub struct Mined {
    pub parent: usize,
    pub work: u128,
    pub demand: u128,
    pub miner: usize,
    pub uncles: Vec<usize>,
    record: Arc<Record>,
}

impl Deref for Mined {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.record
    }
}

/// What the proof is looked for on: a share in all but its uncles.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    pub parent: usize,
    pub time: u32,
    pub derived: Derived,
    pub bits: u32,
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

/// What ends a window: its fewest heights in a pool of more than a twelfth of Bitcoin's hash rate, the work of three Bitcoin blocks, or
/// its most heights in a pool that finds no three blocks in two weeks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Fewest,
    Work,
    Most,
}

/// Heights after which the old rule counted what a share did above what was demanded of it.
const EXCESS_DELAY: u32 = 16;

/// Rules that this network had once, and what else could be: they show what ours are good for, and that the model sees it.
#[derive(Clone, Copy, Debug)]
pub struct Other {
    /// Work above what was demanded counts for the descendants alone, from so many heights on.
    pub late: bool,
    /// How far below a share its uncles may be.
    pub uncle_depth: u32,
    /// No rule, but what nodes do no more: to credit an uncle a share later than its parent, not at once with it.
    pub apart: bool,
}

impl Default for Other {
    fn default() -> Other {
        Other { late: false, uncle_depth: UNCLE_DEPTH, apart: false }
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
    other: Other,
    shares: Vec<Mined>,
    /// Numbers of shares by height.
    levels: Vec<Vec<usize>>,
    /// Payees, by miner.
    scripts: Vec<Arc<Script>>,
}

impl Tree {
    pub fn new(other: Other) -> Tree {
        let params = params(Network::Main);
        let record = Arc::new(Record { id: id(0), lead: LEAD, time: START, ..params.genesis_record() });
        let genesis = Mined { parent: 0, work: 0, demand: 0, miner: usize::MAX, uncles: Vec::new(), record };
        let scripts = (0..=u8::MAX).map(|miner| Arc::new(Script::P2wpkh([miner; 20]))).collect();
        Tree { params, other, shares: vec![genesis], levels: vec![vec![0]], scripts }
    }

    /// The hash rate at which shares of the first difficulty come as often as they should.
    pub fn rate(&self) -> f64 {
        self.derive(0, START).demand as f64 / f64::from(self.params.interval_s)
    }

    pub fn get(&self, share: usize) -> &Mined {
        &self.shares[share]
    }

    fn derive(&self, parent: usize, time: u32) -> Derived {
        child(self.params, &self.shares[parent], time)
    }

    /// What a child of `parent` at `time` is looked for with.
    pub fn template(&self, parent: usize, time: u32, harder: Harder) -> Template {
        let derived = self.derive(parent, time);
        let bits = match (harder, target::target(derived.allowed_bits)) {
            (Harder::Times2(0), _) | (_, None) => derived.allowed_bits,
            (Harder::Times2(4), _) => difficulty::hardest_bits(derived.allowed_bits),
            (Harder::Times2(log2), Some(allowed)) => target::compact(allowed >> log2),
            // 1/128 and 1/512 of it less: one percent to a fiftieth of it.
            (Harder::Percent, Some(allowed)) => target::compact(allowed - (allowed >> 7usize) - (allowed >> 9usize)),
        };
        Template { parent, time, derived, bits, work: target::work(bits) }
    }

    fn score(&self, template: &Template) -> u128 {
        let Template { parent, derived, bits, .. } = *template;
        if !self.other.late {
            return derived.score(bits);
        }
        let below = derived.height.checked_sub(EXCESS_DELAY).map(|height| &self.shares[self.ancestor(parent, height)]);
        derived.parent_score + derived.demand + below.map_or(0, |below| below.work - below.demand)
    }

    /// Adds a found share.
    pub fn add(&mut self, template: &Template, miner: usize, uncles: Vec<usize>) -> usize {
        let Template { parent, time, derived, bits, work } = *template;
        let number = self.shares.len();
        let credited: Vec<_> = uncles.iter().map(|uncle| self.shares[*uncle].as_uncle()).collect();
        let record = Record {
            id: id(number),
            parent: self.shares[parent].id,
            score: self.score(template),
            height: derived.height,
            lead: derived.lead,
            time,
            bits,
            allowed_bits: derived.allowed_bits,
            script: Arc::clone(&self.scripts[miner]),
            rare: (!credited.is_empty()).then(|| Box::new(Rare { uncles: credited, ..Rare::default() })),
            ..Record::clone(&self.shares[0])
        };
        let height = record.height as usize;
        self.shares.push(Mined { parent, work, demand: derived.demand, miner, uncles, record: Arc::new(record) });
        if self.levels.len() <= height {
            self.levels.push(Vec::new());
        }
        self.levels[height].push(number);
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

    /// The uncles that a child of `parent` credits, of those that `wanted` says yes to: as a node does it, the lowest first, each of them
    /// one that it could credit alone.
    pub fn uncles(&self, parent: usize, wanted: impl Fn(usize) -> bool) -> Vec<usize> {
        let height = self.shares[parent].height + 1;
        let line: Vec<usize> = self.line(parent).take(REACH).collect();
        let newest: Vec<Arc<Record>> = line.iter().map(|share| Arc::clone(&self.shares[*share].record)).collect();
        let ancestors = Ancestors::new(&newest);
        let credited: Vec<usize> = line.iter().flat_map(|share| self.shares[*share].uncles.iter().copied()).collect();
        let lowest = height.saturating_sub(self.other.uncle_depth).max(1);
        // The rules say no to ancestors and to what was credited, too; this is quicker.
        let beside = self.levels[lowest as usize..height as usize].iter().flatten().copied();
        let beside = beside.filter(|share| !line.contains(share) && !credited.contains(share) && wanted(*share));
        let find = |id: &ShareId| Some(Arc::clone(&self.shares[number(id)].record));
        let mut chosen: Vec<usize> = Vec::new();
        for share in beside {
            let with: &[usize] = if self.other.apart { &[] } else { &chosen };
            let named: Vec<&Record> = with.iter().chain([&share]).map(|share| &*self.shares[*share].record).collect();
            let reached = || uncles::branch(&self.shares[share], ancestors, find).is_ok();
            if chosen.len() < UNCLES_MAX && uncles::check(height, &named, ancestors).is_ok() && reached() {
                chosen.push(share);
            }
        }
        chosen
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
                tenths[share.miner] += uncles::bounty(uncle.work, share.demand) as f64;
                tenths[uncle.miner] += uncles::left(uncle.work, share.demand) as f64;
                of_uncles += whole(uncle);
            }
        }
        (tenths, of_uncles)
    }

    /// In a chain without branches: what a hash in each share is paid by the blocks that are found later, by what it is worth. Every share
    /// may be a block with a chance that goes by its work.
    pub fn worth(&self, bound: Bound) -> Vec<f64> {
        let wanted = match bound {
            Bound::Fewest => 0,
            // A Bitcoin block is worth 4,096 of the first shares.
            Bound::Work => (self.derive(0, START).demand << 12) * WINDOW_BLOCKS,
            Bound::Most => u128::MAX,
        };
        let mut kept = Window::new(0);
        // What begins to be paid at a share less what ends.
        let mut steps = vec![0.0; self.shares.len() + 1];
        for next in 2..self.shares.len() {
            kept.push(self.params, wanted, |height| Level::of(&self.shares[height as usize]));
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
}

/// The id of the share of this number. Ids are in the order of the numbers.
fn id(number: usize) -> ShareId {
    let mut id = [0; 32];
    id[24..].copy_from_slice(&(number as u64).to_be_bytes());
    ShareId(id)
}

fn number(id: &ShareId) -> usize {
    id.0[24..].iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}
