//! The network: miners who race, and shares that travel.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_store::limits::TENTHS;
use rockpool_store::params::{Network, params};
use rockpool_store::rules::score;

use super::chain::{Harder, Other, START, Template, Tree};

/// Seconds after which a template is made anew while nothing happens: the target eases, and times grow.
const REFRESH: f64 = 10.0;
/// Seconds of a share's way: between honest nodes, and from and to one that is connected better than all others.
pub const HONEST_WAY: (f64, f64) = (0.5, 2.0);
pub const FAST_WAY: (f64, f64) = (0.1, 0.4);

/// What a miner wants to look for.
pub struct Plan {
    pub parent: usize,
    pub time: u32,
    pub harder: Harder,
}

/// What a miner knows when it decides.
pub struct View<'a> {
    pub tree: &'a Tree,
    pub me: usize,
    /// Unix seconds.
    pub now: u32,
    /// The best of the shares that reached it and those it published.
    pub tip: usize,
    known: &'a [Vec<f64>],
    clock: f64,
}

impl View<'_> {
    /// Whether a share of somebody has reached it, or is its own.
    pub fn knows(&self, share: usize) -> bool {
        self.tree.get(share).miner == self.me || self.known[share][self.me] <= self.clock
    }

    /// Whether a share is its own.
    pub fn own(&self, share: usize) -> bool {
        self.tree.get(share).miner == self.me
    }

    /// The time that an honest miner gives to a child of `parent`.
    pub fn honest_time(&self, parent: usize) -> u32 {
        self.now.max(self.tree.earliest(parent))
    }
}

/// How a miner behaves. What it says to publish takes everything with it that others must have first.
pub trait Strategy {
    /// What to look for now.
    fn plan(&mut self, view: &View) -> Plan {
        Plan { parent: view.tip, time: view.honest_time(view.tip), harder: Harder::Times2(0) }
    }

    /// Whether to credit an uncle that may be credited.
    fn credits(&self, _view: &View, _uncle: usize) -> bool {
        true
    }

    /// It found a share: what to publish.
    fn found(&mut self, _view: &View, share: usize) -> Vec<usize> {
        vec![share]
    }

    /// A share of others came: what to publish.
    fn came(&mut self, _view: &View, _share: usize) -> Vec<usize> {
        Vec::new()
    }
}

/// A miner and its node.
pub struct Miner {
    /// Its part of all hashes.
    pub hash: f64,
    /// Seconds to and from others; the better connected of two decides.
    pub way: (f64, f64),
    pub strategy: Box<dyn Strategy>,
}

struct Node {
    miner: Miner,
    tip: usize,
    template: Option<Template>,
    /// Proofs a second.
    rate: f64,
    /// When the template is too old.
    until: f64,
    /// Work of all that it found.
    found: f64,
}

/// What a run showed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// The first miner's part of all credit less its part of all work found: luck is in both.
    pub gain: f64,
    /// Work of uncles by all work credited.
    pub uncles: f64,
    /// Work that is credited to nobody, by all work found.
    pub lost: f64,
    /// Reorgs of a node for each height.
    pub reorgs: f64,
    /// Shares that were its best chain and then not, in one reorg: on average, the most of 99.9 % of them, and the most of all.
    pub reorg_mean: f64,
    pub reorg_999: u32,
    pub reorg: u32,
}

pub struct World {
    tree: Tree,
    nodes: Vec<Node>,
    /// When each share reaches each node, seconds; never, while it is withheld.
    known: Vec<Vec<f64>>,
    /// Arrivals: when, share, at whom. Times are positive, so that their bits are in order.
    under_way: BinaryHeap<Reverse<(u64, usize, usize)>>,
    clock: f64,
    rate: f64,
    /// Depths of reorgs at all nodes.
    depths: Vec<u32>,
    rng: ChaCha12Rng,
}

impl World {
    pub fn new(miners: Vec<Miner>, other: Other, seed: u64) -> World {
        let tree = Tree::new(other);
        let rate = tree.rate();
        let known = vec![vec![0.0; miners.len()]];
        let node = |miner| Node { miner, tip: 0, template: None, rate: 0.0, until: 0.0, found: 0.0 };
        let nodes = miners.into_iter().map(node).collect();
        let rng = ChaCha12Rng::seed_from_u64(seed);
        World { tree, nodes, known, under_way: BinaryHeap::new(), clock: 0.0, rate, depths: Vec::new(), rng }
    }

    /// Mines until the last miner's chain has so many heights.
    pub fn run(mut self, heights: u32) -> Outcome {
        let judge = self.nodes.len() - 1;
        while self.tree.get(self.nodes[judge].tip).height < heights {
            self.step();
        }
        let head = self.nodes[judge].tip;
        let (tenths, of_uncles) = self.tree.credits(head, self.nodes.len());
        let (credited, found) = (tenths.iter().sum::<f64>(), self.nodes.iter().map(|node| node.found).sum::<f64>());
        self.depths.sort_unstable();
        let count = self.depths.len().max(1);
        Outcome {
            gain: tenths[0] / credited - self.nodes[0].found / found,
            uncles: of_uncles / credited,
            lost: 1.0 - credited / TENTHS as f64 / found,
            reorgs: self.depths.len() as f64 / self.nodes.len() as f64 / f64::from(heights),
            reorg_mean: f64::from(self.depths.iter().sum::<u32>()) / count as f64,
            reorg_999: self.depths.get(count * 999 / 1000).copied().unwrap_or(0),
            reorg: self.depths.last().copied().unwrap_or(0),
        }
    }

    /// On to the next that happens: a proof, an arrival, a template that is too old.
    fn step(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].until <= self.clock {
                self.plan(node);
            }
        }
        let total: f64 = self.nodes.iter().map(|node| node.rate).sum();
        let proof = self.clock - (1.0 - self.uniform()).ln() / total;
        let refresh = self.nodes.iter().map(|node| node.until).fold(f64::INFINITY, f64::min);
        let arrival = self.under_way.peek().map_or(f64::INFINITY, |Reverse((when, ..))| f64::from_bits(*when));
        // Proofs have no memory: who did not find one by then begins anew.
        if arrival <= proof.min(refresh) {
            self.clock = arrival;
            if let Some(Reverse((_, share, node))) = self.under_way.pop() {
                self.learn(node, share);
            }
        } else if refresh < proof {
            self.clock = refresh;
        } else {
            self.clock = proof;
            let mut point = self.uniform() * total;
            let finder = self.nodes.iter().position(|node| {
                point -= node.rate;
                point < 0.0
            });
            self.find(finder.unwrap_or(0));
        }
    }

    fn plan(&mut self, node: usize) {
        let (view, strategy) = view(&self.tree, &self.known, self.clock, &mut self.nodes[node], node);
        let Plan { parent, time, harder } = strategy.plan(&view);
        let template = self.tree.template(parent, time, harder);
        let own = &mut self.nodes[node];
        own.rate = own.miner.hash * self.rate / template.work as f64;
        own.template = Some(template);
        own.until = self.clock + REFRESH;
    }

    fn find(&mut self, node: usize) {
        let Some(template) = self.nodes[node].template else { return };
        let (view, strategy) = view(&self.tree, &self.known, self.clock, &mut self.nodes[node], node);
        let uncles = self.tree.uncles(template.parent, |share| view.knows(share) && strategy.credits(&view, share));
        let share = self.tree.add(&template, node, uncles);
        self.nodes[node].found += template.work as f64;
        self.known.push(vec![f64::INFINITY; self.nodes.len()]);
        let (view, strategy) = self::view(&self.tree, &self.known, self.clock, &mut self.nodes[node], node);
        let published = strategy.found(&view, share);
        self.publish_all(node, published);
        self.nodes[node].until = self.clock;
    }

    /// A share came to a node that knows all that it builds on.
    fn learn(&mut self, node: usize, share: usize) {
        self.move_tip(node, share);
        let (view, strategy) = view(&self.tree, &self.known, self.clock, &mut self.nodes[node], node);
        let published = strategy.came(&view, share);
        self.publish_all(node, published);
    }

    fn move_tip(&mut self, node: usize, share: usize) {
        let tip = self.nodes[node].tip;
        let (new, old) = (self.tree.get(share), self.tree.get(tip));
        if score::displaces(new.score, old.score) {
            let (mut a, mut b) = (share, tip);
            while a != b {
                let (high, low) = (self.tree.get(a).height, self.tree.get(b).height);
                a = if high >= low { self.tree.get(a).parent } else { a };
                b = if low >= high { self.tree.get(b).parent } else { b };
            }
            let depth = old.height - self.tree.get(a).height;
            if depth > 0 {
                self.depths.push(depth);
            }
            self.nodes[node].tip = share;
            self.nodes[node].until = self.clock;
        }
    }

    fn publish_all(&mut self, node: usize, shares: Vec<usize>) {
        for share in shares {
            self.publish(node, share);
        }
        if self.nodes[node].template.is_some_and(|template| template.parent != self.nodes[node].tip) {
            self.nodes[node].until = self.clock;
        }
    }

    /// Sends a share to all, whatever it builds on and credits first.
    fn publish(&mut self, node: usize, share: usize) {
        if self.known[share][node].is_finite() {
            return;
        }
        let mut before = self.tree.get(share).uncles.clone();
        before.push(self.tree.get(share).parent);
        before.iter().for_each(|share| self.publish(node, *share));
        // Held while its time is too far ahead.
        let free = f64::from(self.tree.get(share).time - START) - f64::from(params(Network::Main).time_ahead_max_s);
        for other in 0..self.nodes.len() {
            let way = if other == node { 0.0 } else { self.way(node, other) };
            let after = before.iter().map(|share| self.known[*share][other]).fold(free, f64::max);
            let when = (self.clock + way).max(after);
            self.known[share][other] = when;
            if other == node {
                self.move_tip(node, share);
            } else {
                self.under_way.push(Reverse((when.to_bits(), share, other)));
            }
        }
    }

    fn way(&mut self, from: usize, to: usize) -> f64 {
        let (a, b) = (self.nodes[from].miner.way, self.nodes[to].miner.way);
        let (least, most) = if a.1 < b.1 { a } else { b };
        least + (most - least) * self.uniform()
    }

    fn uniform(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// What a node knows, and its strategy.
fn view<'a>(tree: &'a Tree, known: &'a [Vec<f64>], clock: f64, node: &'a mut Node, me: usize) -> (View<'a>, &'a mut dyn Strategy) {
    let view = View { tree, me, now: START + clock as u32, tip: node.tip, known, clock };
    (view, &mut *node.miner.strategy)
}
