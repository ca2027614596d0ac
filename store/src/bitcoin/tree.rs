//! A tree of Bitcoin headers: every branch that was told of, and the best chain of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rockpool_net::sha256::sha256d;
use thiserror::Error;

use super::{Block, Rules, prev, required_bits, start, warps, word};
use crate::limits::{MEDIAN_SPAN, PERIOD_BLOCKS, PERIODS_KEPT, SIDE_HEADERS_MAX};
use crate::params::{Network, Params};
use crate::rules::difficulty::median_time;
use crate::rules::target::{hash_meets, target};

/// Hashes of a locator before its steps double.
const LOCATOR_DENSE: usize = 10;

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// Its bits are no target, or one easier than the network's limit.
    #[error("the Bitcoin header's bits are no target of this network")]
    Target,
    /// Its hash does not meet its own bits.
    #[error("the Bitcoin header's hash does not meet its bits")]
    Work,
    /// Bitcoin demands other bits there.
    #[error("the Bitcoin header has bits {found:08x} where {required:08x} are demanded")]
    Bits {
        /// What it has.
        found: u32,
        /// What it must have.
        required: u32,
    },
    /// Its time is not above the median of the eleven blocks before it.
    #[error("the Bitcoin header's time is not above the median of those before it")]
    Time,
    /// It begins a period over ten minutes before the last block of the one before (BIP94).
    #[error("the Bitcoin header begins a period too long before the end of the one before")]
    Warp,
    /// A root that does not begin a period, or a first block that is not this network's.
    #[error("no tree of Bitcoin headers can begin with this one")]
    Root,
    /// A branch that is not the best has more headers than are kept beside the best chain.
    #[error("there is no room for more Bitcoin headers of this branch")]
    Full,
}

/// What became of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is in the tree now.
    New(Arc<Block>),
    /// It was there.
    Known,
    /// The block before it, named here, is not in the tree.
    Orphan([u8; 32]),
}

#[derive(Clone, Debug)]
struct Node {
    block: Arc<Block>,
    /// How many blocks of the tree build on it.
    children: u32,
}

/// Bitcoin headers from a root up, each checked against the one before it. A clone shares the blocks.
#[derive(Clone, Debug)]
pub struct Tree {
    params: &'static Params,
    nodes: BTreeMap<[u8; 32], Node>,
    /// The best chain, from the root to the block of most work; of equals the first seen.
    chain: VecDeque<Arc<Block>>,
    /// Blocks that none builds on, by their work.
    leaves: BTreeSet<(u128, [u8; 32])>,
    /// What the newest change pushed out.
    pushed_out: Vec<Arc<Block>>,
    /// Blocks that shares of the chain build on: never pushed out.
    held: BTreeSet<[u8; 32]>,
    /// How many of these are off the best chain.
    held_beside: usize,
    /// How many others may be off the best chain.
    room: usize,
}

impl Tree {
    /// A tree with the network's first block. Main begins with none, since nobody wants 840,000 headers: [`Tree::root_at`] gives one.
    pub fn new(params: &'static Params) -> Tree {
        let (nodes, chain, leaves) = (BTreeMap::new(), VecDeque::new(), BTreeSet::new());
        let mut tree =
            Tree { params, nodes, chain, leaves, pushed_out: Vec::new(), held: BTreeSet::new(), held_beside: 0, room: SIDE_HEADERS_MAX };
        if params.network != Network::Main {
            tree.plant(Arc::new(Block::root(0, &params.bitcoin.genesis)));
        }
        tree
    }

    /// A tree that is read from where another was written: it has room for all of it until [`Tree::limit`].
    pub(crate) fn unlimited(params: &'static Params) -> Tree {
        Tree { room: usize::MAX, ..Tree::new(params) }
    }

    /// From now on at most [`SIDE_HEADERS_MAX`] blocks are off the best chain; those that are held do not count. What is too much is
    /// pushed out.
    pub(crate) fn limit(&mut self) {
        self.pushed_out.clear();
        self.room = SIDE_HEADERS_MAX;
        self.make_room(None);
    }

    /// The network's parameters.
    pub fn params(&self) -> &'static Params {
        self.params
    }

    /// Begins the tree anew with this block, on the word of one's own bitcoind alone: only with a period's first block, whose bits need
    /// none before it, and only while nothing grows on the root that is there, or all of it is lower (Bitcoin peers have told of old
    /// headers) and no share builds on it. `None` where the tree stays as it is, and where the block builds on what it holds: it is to be
    /// added.
    pub fn root_at(&mut self, height: u32, header: &[u8; 80]) -> Result<Option<Arc<Block>>, HeaderError> {
        let root = Arc::new(Block::root(height, header));
        check_alone(self.params.bitcoin, &root.hash, header)?;
        if !height.is_multiple_of(PERIOD_BLOCKS) || height == 0 && *header != self.params.bitcoin.genesis {
            return Err(HeaderError::Root);
        }
        if self.nodes.contains_key(&root.hash) || self.nodes.contains_key(&root.prev()) || !self.may_begin_at(height) {
            return Ok(None);
        }
        self.plant(root.clone());
        Ok(Some(root))
    }

    fn may_begin_at(&self, height: u32) -> bool {
        self.nodes.len() <= 1 || self.held.is_empty() && self.best().is_some_and(|best| best.height < height)
    }

    /// Adds a header. Its hash must meet its bits; these must be what Bitcoin demands there; its time must be above the median time of the
    /// block before, where eleven are known or Bitcoin began with fewer, and within BIP94 where that is in force.
    pub fn add(&mut self, header: &[u8; 80]) -> Result<Added, HeaderError> {
        self.pushed_out.clear();
        let rules = self.params.bitcoin;
        let hash = sha256d(header);
        if self.nodes.contains_key(&hash) {
            return Ok(Added::Known);
        }
        check_alone(rules, &hash, header)?;
        let Some(parent) = self.get(&prev(header)).cloned() else { return Ok(Added::Orphan(prev(header))) };
        let (time, bits) = (word(header, 68), word(header, 72));
        let required = required_bits(self.params, &parent, time);
        if bits != required {
            return Err(HeaderError::Bits { found: bits, required });
        }
        if parent.median_time != 0 && time <= parent.median_time {
            return Err(HeaderError::Time);
        }
        if warps(rules, &parent, time) {
            return Err(HeaderError::Warp);
        }
        let mut block = Block::child(rules, &parent, hash, header);
        block.median_time = self.median_time(&parent, time);
        let block = Arc::new(block);
        if self.attach(block.clone()) { Ok(Added::New(block)) } else { Err(HeaderError::Full) }
    }

    /// Adds a block that another tree has checked: one that follows it change by change stays equal to it. A block whose parent is unknown
    /// becomes the root where [`Tree::root_at`] would make it that; else it is ignored.
    pub fn insert(&mut self, block: Arc<Block>) {
        self.pushed_out.clear();
        if self.nodes.contains_key(&block.hash) {
            return;
        }
        if self.nodes.contains_key(&block.prev()) {
            self.attach(block);
        } else if self.may_begin_at(block.height) && block.height.is_multiple_of(PERIOD_BLOCKS) {
            self.plant(block);
        }
    }

    /// Never pushes this block out: a share builds on it, which nobody could judge without it.
    pub fn hold(&mut self, hash: &[u8; 32]) {
        let Some(block) = self.get(hash).cloned() else { return };
        if self.held.insert(*hash) && !self.is_best(&block) {
            self.held_beside += 1;
        }
    }

    /// Whether it is never pushed out.
    pub fn is_held(&self, hash: &[u8; 32]) -> bool {
        self.held.contains(hash)
    }

    /// Blocks off the best chain that the newest [`Tree::add`] or [`Tree::insert`] pushed out for want of room.
    pub fn pushed_out(&self) -> &[Arc<Block>] {
        &self.pushed_out
    }

    /// A block by its hash.
    pub fn get(&self, hash: &[u8; 32]) -> Option<&Arc<Block>> {
        self.nodes.get(hash).map(|node| &node.block)
    }

    /// The block that all others build on.
    pub fn root(&self) -> Option<&Arc<Block>> {
        self.chain.front()
    }

    /// The block of most work; of equals the first seen.
    pub fn best(&self) -> Option<&Arc<Block>> {
        self.chain.back()
    }

    /// The block before another; `None` for the root.
    pub fn prev(&self, block: &Block) -> Option<&Arc<Block>> {
        self.get(&block.prev())
    }

    /// The block of the best chain at a height.
    pub fn at_height(&self, height: u32) -> Option<&Arc<Block>> {
        let root = self.root()?;
        self.chain.get(height.checked_sub(root.height)? as usize)
    }

    /// Whether a block is on the best chain.
    pub fn is_best(&self, block: &Block) -> bool {
        self.at_height(block.height).is_some_and(|best| best.hash == block.hash)
    }

    /// Whether both are in the tree, and `of` is `block` or builds on it.
    pub fn is_ancestor(&self, block: &[u8; 32], of: &[u8; 32]) -> bool {
        self.fork(block, of).is_some_and(|fork| fork.hash == *block)
    }

    /// How many blocks the tree holds.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All blocks, in the order of their hashes.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Block>> {
        self.nodes.values().map(|node| &node.block)
    }

    /// The newest block that both build on or are; `None` where one is unknown.
    pub fn fork(&self, one: &[u8; 32], other: &[u8; 32]) -> Option<&Arc<Block>> {
        let (mut one, mut other) = (self.get(one)?, self.get(other)?);
        loop {
            if one.hash == other.hash {
                return Some(one);
            }
            if one.height < other.height {
                std::mem::swap(&mut one, &mut other);
            }
            // Along the best chain one step is enough.
            one = if self.is_best(one) && one.height > other.height { self.at_height(other.height)? } else { self.prev(one)? };
        }
    }

    /// Blocks on the branch of `to` above where it parts from that of `from`, ascending, at most `most`, the lowest ones. If `from` is
    /// unknown, all from the root on; none if `to` is.
    pub fn path(&self, from: &[u8; 32], to: &[u8; 32], most: usize) -> Vec<Arc<Block>> {
        let (Some(mut at), Some(root)) = (self.get(to), self.root()) else { return Vec::new() };
        let first = self.fork(from, to).map_or(root.height, |fork| fork.height.saturating_add(1));
        let mut side = Vec::new();
        while at.height >= first && !self.is_best(at) {
            side.push(at);
            let Some(below) = self.prev(at) else { break };
            at = below;
        }
        let shared = at.height.saturating_add(1).saturating_sub(first) as usize;
        let skip = (first - root.height) as usize;
        self.chain.iter().skip(skip).take(shared).chain(side.into_iter().rev()).take(most).cloned().collect()
    }

    /// Hashes of the best chain from its tip down: the newest one by one, then in steps that double, the root last. Of an empty tree that
    /// of the block at which the network [starts](start).
    pub fn locator(&self) -> Vec<[u8; 32]> {
        let mut locator = Vec::new();
        if self.is_empty() {
            locator.push(sha256d(start(self.params.network).1));
        }
        let (mut at, mut step) = (self.chain.len(), 1);
        while at > 1 {
            locator.push(self.chain[at - 1].hash);
            if locator.len() >= LOCATOR_DENSE {
                step *= 2;
            }
            at = at.saturating_sub(step);
        }
        locator.extend(self.root().map(|root| root.hash));
        locator
    }

    /// Forgets blocks below this height, but keeps two periods below the best block: the period's first block there, or the newest below
    /// it, becomes the root, and what does not build on it is forgotten as well.
    pub fn prune(&mut self, below: u32) -> Vec<Arc<Block>> {
        let (Some(root), Some(best)) = (self.root(), self.best()) else { return Vec::new() };
        let below = below.min(best.height.saturating_sub(PERIODS_KEPT * PERIOD_BLOCKS));
        let height = below - below % PERIOD_BLOCKS;
        if height <= root.height {
            return Vec::new();
        }
        self.chain.drain(..(height - root.height) as usize);
        let mut all: Vec<_> = std::mem::take(&mut self.nodes).into_values().collect();
        all.sort_by_key(|node| (node.block.height, node.block.hash));
        let mut forgotten = Vec::new();
        for node in all {
            let block = &node.block;
            if self.is_best(block) || self.nodes.contains_key(&block.prev()) {
                self.nodes.insert(block.hash, node);
            } else {
                self.leaves.remove(&(block.work, block.hash));
                self.held.remove(&block.hash);
                forgotten.push(node.block);
            }
        }
        self.held_beside = self.held.iter().filter(|hash| self.get(hash).is_some_and(|block| !self.is_best(block))).count();
        forgotten
    }

    /// Makes this the only block.
    fn plant(&mut self, root: Arc<Block>) {
        self.pushed_out.clear();
        self.nodes.clear();
        self.leaves.clear();
        self.chain.clear();
        self.held.clear();
        self.held_beside = 0;
        self.leaves.insert((root.work, root.hash));
        self.chain.push_back(root.clone());
        self.nodes.insert(root.hash, Node { block: root, children: 0 });
    }

    /// Puts a block on its parent, which is there. False if there is no room for it.
    fn attach(&mut self, block: Arc<Block>) -> bool {
        if let Some(parent) = self.nodes.get_mut(&block.prev()) {
            parent.children += 1;
            self.leaves.remove(&(parent.block.work, parent.block.hash));
        }
        self.leaves.insert((block.work, block.hash));
        self.nodes.insert(block.hash, Node { block: block.clone(), children: 0 });
        if self.best().is_some_and(|best| block.work > best.work) {
            self.lead_to(block.clone());
        }
        self.make_room(Some(block.hash))
    }

    /// Makes the best chain the one that ends with this block.
    fn lead_to(&mut self, tip: Arc<Block>) {
        let mut branch = Vec::new();
        let mut at = Some(&tip);
        while let Some(block) = at.filter(|block| !self.is_best(block)) {
            branch.push(block.clone());
            at = self.prev(block);
        }
        let kept = at.zip(self.root()).map_or(0, |(fork, root)| (fork.height - root.height) as usize + 1);
        self.held_beside += self.chain.iter().skip(kept).filter(|block| self.held.contains(&block.hash)).count();
        self.held_beside -= branch.iter().filter(|block| self.held.contains(&block.hash)).count();
        self.chain.truncate(kept);
        self.chain.extend(branch.into_iter().rev());
    }

    /// Off the best chain there are too many blocks: those that are held, for which shares were found, do not count.
    fn is_full(&self) -> bool {
        self.nodes.len() - self.chain.len() > self.room.saturating_add(self.held_beside)
    }

    /// Pushes out blocks that none builds on until there are no more than [`SIDE_HEADERS_MAX`] off the best chain, those of the least work
    /// first, which are the oldest: never one that is held, nor `new`, or a branch that comes to overtake could not grow from its first
    /// block. Where there is no other it is pushed out itself, and false returned.
    fn make_room(&mut self, new: Option<[u8; 32]>) -> bool {
        while self.is_full() {
            let best = self.best().map(|best| best.hash);
            let may_go = |hash: &[u8; 32]| Some(*hash) != new && Some(*hash) != best && !self.held.contains(hash);
            let Some(out) = self.leaves.iter().map(|(_, hash)| *hash).find(may_go) else {
                new.map(|new| self.remove_leaf(&new));
                return false;
            };
            let removed = self.remove_leaf(&out);
            self.pushed_out.extend(removed);
        }
        true
    }

    fn remove_leaf(&mut self, hash: &[u8; 32]) -> Option<Arc<Block>> {
        let block = self.nodes.remove(hash)?.block;
        self.leaves.remove(&(block.work, block.hash));
        if let Some(parent) = self.nodes.get_mut(&block.prev()) {
            parent.children -= 1;
            if parent.children == 0 {
                self.leaves.insert((parent.block.work, parent.block.hash));
            }
        }
        Some(block)
    }

    /// The median time of the newest blocks of a branch that ends with a block of this time on `parent`.
    fn median_time(&self, parent: &Arc<Block>, time: u32) -> u32 {
        let mut times = vec![time];
        let mut at = Some(parent);
        let mut lowest = parent.height;
        while let Some(block) = at.filter(|_| times.len() < MEDIAN_SPAN) {
            times.push(block.time());
            lowest = block.height;
            at = self.prev(block);
        }
        if times.len() == MEDIAN_SPAN || lowest == 0 { median_time(&times) } else { 0 }
    }

    /// Compares all that is kept twice; for tests, and for a look at a tree read from the disk.
    pub fn sanity_check(&self) -> Result<(), String> {
        let Some((root, best)) = self.root().zip(self.best()) else {
            return if self.is_empty() && self.leaves.is_empty() { Ok(()) } else { Err("blocks without a root".into()) };
        };
        let mut children: BTreeMap<[u8; 32], u32> = BTreeMap::new();
        for block in self.iter() {
            let name = || format!("block {} of height {}", rockpool_net::id::ShareId(block.hash), block.height);
            if block.work > best.work {
                return Err(format!("{} has more work than the best", name()));
            }
            if block.hash == root.hash {
                continue;
            }
            let Some(parent) = self.prev(block) else { return Err(format!("{} has no parent", name())) };
            *children.entry(parent.hash).or_default() += 1;
            let mut expected = Block::child(self.params.bitcoin, parent, sha256d(&block.header), &block.header);
            // Blocks below the root were there when those just above it came.
            expected.median_time = self.median_time(parent, block.time());
            if expected.median_time == 0 || block.height < root.height + MEDIAN_SPAN as u32 {
                expected.median_time = block.median_time;
            }
            if **block != expected {
                return Err(format!("{} does not follow from its parent", name()));
            }
        }
        for (hash, node) in &self.nodes {
            let counted = children.get(hash).copied().unwrap_or(0);
            if node.children != counted || (counted == 0) != self.leaves.contains(&(node.block.work, *hash)) {
                return Err(format!("children of height {} are miscounted", node.block.height));
            }
        }
        let linked = self.chain.iter().zip(self.chain.iter().skip(1)).all(|(below, above)| above.prev() == below.hash);
        if !linked || self.chain.iter().any(|block| !self.nodes.contains_key(&block.hash)) {
            return Err("the best chain is torn".into());
        }
        let held_beside = self.held.iter().filter(|hash| self.get(hash).is_none_or(|block| !self.is_best(block))).count();
        if held_beside != self.held_beside {
            return Err(format!("{held_beside} blocks are held beside the best chain, {} counted", self.held_beside));
        }
        if self.leaves.len() > self.nodes.len() || self.is_full() {
            return Err("more headers than there is room for".into());
        }
        Ok(())
    }
}

/// What can be told of a header alone: its bits are a target of the network, and its hash meets it.
fn check_alone(rules: &Rules, hash: &[u8; 32], header: &[u8; 80]) -> Result<(), HeaderError> {
    let bits = word(header, 72);
    if target(bits).is_none_or(|own| target(rules.limit_bits).is_some_and(|limit| own > limit)) {
        return Err(HeaderError::Target);
    }
    if hash_meets(hash, bits) { Ok(()) } else { Err(HeaderError::Work) }
}
