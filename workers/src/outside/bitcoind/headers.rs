//! Which headers the node is told of, and when: from where it stands to the block that a template builds on, over reorgs, and those of
//! stale branches. Asks through [`Source`], blocks nowhere itself.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use rockpool_net::sha256::sha256d;
use rockpool_store::bitcoin::{rules, start};
use rockpool_store::limits::{HEADERS_BELOW, PERIOD_BLOCKS};
use rockpool_store::params::Network;
use thiserror::Error;

use crate::jobs::{BitcoinNews, Tips};
use crate::limits::{BRANCH_WALK_MAX, BRANCHES_MAX, HEADERS_MAX, HEADERS_TOLD, TIPS_MAX};

/// Bytes of a hash, as hashed.
pub(super) type Hash = [u8; 32];
/// Bytes of a header.
pub(super) type Header = [u8; 80];

/// What can be asked of a bitcoind.
pub(super) trait Source {
    /// Why it cannot answer.
    type Error;
    /// The headers of these blocks, of each that it knows.
    fn headers(&mut self, hashes: &[Hash]) -> Result<Vec<Option<Header>>, Self::Error>;
    /// The heights of these blocks, of each that is on its active chain.
    fn active(&mut self, hashes: &[Hash]) -> Result<Vec<Option<u32>>, Self::Error>;
    /// The blocks of its active chain at these heights, of each that it has.
    fn hashes(&mut self, heights: std::ops::Range<u32>) -> Result<Vec<Option<Hash>>, Self::Error>;
    /// The ends of all branches that it knows.
    fn tips(&mut self) -> Result<Vec<Tip>, Self::Error>;
}

/// The end of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tip {
    pub hash: Hash,
    pub height: u32,
    /// How many blocks it is off the active chain.
    pub depth: u32,
    pub status: Status,
}

/// What bitcoind says of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// The active chain.
    Active,
    /// It has all blocks, and nothing against them: `valid-fork`, `valid-headers`.
    Valid,
    /// One of them is invalid.
    Invalid,
    /// It lacks blocks of it.
    Other,
}

/// Why there is nothing to tell.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum FollowError<E> {
    /// It cannot answer.
    #[error("{0}")]
    Source(E),
    /// Its chain changes while it is asked; it is asked again.
    #[error("its headers do not fit together")]
    Torn,
}

impl<E> From<E> for FollowError<E> {
    fn from(why: E) -> FollowError<E> {
        FollowError::Source(why)
    }
}

/// What the node has been told of. Follows whichever bitcoind is asked.
pub(super) struct Follower {
    network: Network,
    /// Where the node stood at start, newest first; empty once that was looked up.
    locator: Vec<Hash>,
    /// The active chain as last told of, by height; empty before the first question.
    chain: BTreeMap<u32, Hash>,
    /// All blocks told of, with their heights; none further below the active chain's tip than [`HEADERS_TOLD`].
    told: BTreeMap<Hash, u32>,
    /// What was said last of the ends of its branches.
    said: Option<Tips>,
}

impl Follower {
    /// For a node whose headers these are: some hashes of its best chain, newest first.
    pub fn new(network: Network, locator: Vec<Hash>) -> Follower {
        Follower { network, locator, chain: BTreeMap::new(), told: BTreeMap::new(), said: None }
    }

    /// The next thing that the node must hear before it may be given work on the block `tip` of this height: `None` once it has heard of
    /// that.
    pub fn next<S: Source>(&mut self, source: &mut S, tip: Hash, height: u32) -> Result<Option<BitcoinNews>, FollowError<S::Error>> {
        // Once from where the node stands, once from where it begins anew.
        for _ in 0..2 {
            if self.chain.is_empty()
                && let Some(root) = self.begin(source, height)?
            {
                return Ok(Some(root));
            }
            if self.told.contains_key(&tip) {
                return Ok(None);
            }
            let top = self.chain.last_key_value().map_or(0, |(top, _)| *top);
            if height.saturating_sub(top) as usize <= BRANCH_WALK_MAX
                && let Some((from, headers)) = self.walk(source, tip, BRANCH_WALK_MAX)?
            {
                self.extend(from, &headers);
                return Ok(Some(BitcoinNews::Headers(headers)));
            }
            if let Some(headers) = self.by_height(source, height)? {
                return Ok(Some(BitcoinNews::Headers(headers)));
            }
        }
        Err(FollowError::Torn)
    }

    /// bitcoind cannot be reached: how its branches end is said anew when it is back.
    pub fn lost(&mut self) {
        self.said = None;
    }

    /// What there is beside the active chain, if anything new: stale blocks, and how its branches end.
    pub fn branches<S: Source>(&mut self, source: &mut S) -> Result<Vec<BitcoinNews>, S::Error> {
        let lowest = self.chain.last_key_value().map_or(0, |(top, _)| top.saturating_sub(HEADERS_TOLD));
        let mut tips: Vec<Tip> = source.tips()?.into_iter().filter(|tip| tip.height >= lowest).collect();
        // If they are too many, the newest are those that matter.
        tips.sort_by_key(|tip| Reverse(tip.height));
        let mut news: Vec<BitcoinNews> = self.stale(source, &tips)?.into_iter().collect();
        let ends = |status| tips.iter().filter(move |tip| tip.status == status).map(|tip| tip.hash);
        // It may have gone on since its template: then the header comes first, and this with the next look.
        if let Some(active) = ends(Status::Active).find(|hash| self.told.contains_key(hash)) {
            let [valid, invalid] = [Status::Valid, Status::Invalid].map(|status| ends(status).take(TIPS_MAX).collect());
            let tips = Tips { active, valid, invalid };
            if self.said.as_ref() != Some(&tips) {
                news.push(BitcoinNews::Tips(tips.clone()));
                self.said = Some(tips);
            }
        }
        Ok(news)
    }

    /// Headers of stale branches that were not told of.
    fn stale<S: Source>(&mut self, source: &mut S, tips: &[Tip]) -> Result<Option<BitcoinNews>, S::Error> {
        let mut headers = Vec::new();
        // One that parts from the chain below all that the node was told of is of no use.
        let lowest = self.chain.first_key_value().map_or(0, |(lowest, _)| *lowest);
        let wanted = |tip: &&Tip| {
            let near = tip.depth as usize <= BRANCH_WALK_MAX && tip.height.saturating_sub(tip.depth) >= lowest;
            tip.status == Status::Valid && near && !self.told.contains_key(&tip.hash)
        };
        let wanted: Vec<Tip> = tips.iter().filter(wanted).take(BRANCHES_MAX).copied().collect();
        for tip in wanted {
            if let Some((from, branch)) = self.walk(source, tip.hash, tip.depth as usize)? {
                self.told.extend(branch.iter().map(|header| sha256d(header)).zip(from..));
                headers.extend(branch);
            }
        }
        Ok((!headers.is_empty()).then_some(BitcoinNews::Headers(headers)))
    }

    /// Looks up where the node stands on the active chain, or where a fresh one begins.
    fn begin<S: Source>(&mut self, source: &mut S, height: u32) -> Result<Option<BitcoinNews>, FollowError<S::Error>> {
        // The block at which the network starts is all that a fresh node has.
        if self.locator.is_empty() || self.locator == [sha256d(start(self.network).1)] {
            return self.root(source, height);
        }
        let heights = source.active(&self.locator)?;
        let Some((hash, base)) = self.locator.iter().zip(heights).find_map(|(hash, height)| Some((*hash, height?))) else {
            return self.root(source, height);
        };
        self.locator.clear();
        self.chain.insert(base, hash);
        self.told.insert(hash, base);
        Ok(None)
    }

    /// Begins a node's headers at a period's first block, or at Bitcoin's own, which only main must be told of.
    fn root<S: Source>(&mut self, source: &mut S, height: u32) -> Result<Option<BitcoinNews>, FollowError<S::Error>> {
        let below = height.saturating_sub(HEADERS_BELOW);
        let root = below - below % PERIOD_BLOCKS;
        let header = match root {
            0 => rules(self.network).genesis,
            _ => {
                let hash = source.hashes(root..root.saturating_add(1))?.first().copied().flatten().ok_or(FollowError::Torn)?;
                source.headers(&[hash])?.first().copied().flatten().filter(|header| sha256d(header) == hash).ok_or(FollowError::Torn)?
            }
        };
        let hash = sha256d(&header);
        self.locator.clear();
        self.chain.insert(root, hash);
        self.told.insert(hash, root);
        let built_in = root == 0 && self.network != Network::Main;
        Ok((!built_in).then_some(BitcoinNews::Root { height: root, header }))
    }

    /// Headers from above a block told of up to this one, found by walking back, and the height of the first; `None` if that is further
    /// than `most` blocks, or leads to where nothing is known.
    fn walk<S: Source>(&self, source: &mut S, tip: Hash, most: usize) -> Result<Option<(u32, Vec<Header>)>, S::Error> {
        let (mut at, mut headers) = (tip, Vec::new());
        while !self.told.contains_key(&at) {
            let header = source.headers(&[at])?.first().copied().flatten().filter(|header| sha256d(header) == at);
            let Some(header) = header.filter(|_| headers.len() < most) else { return Ok(None) };
            headers.push(header);
            at = prev(&header);
        }
        headers.reverse();
        Ok(self.told.get(&at).map(|height| (height.saturating_add(1), headers)))
    }

    /// The next headers of the active chain above where it parts from what was told of; `None` if the node stands on nothing that this
    /// bitcoind has, so that it begins anew.
    fn by_height<S: Source>(&mut self, source: &mut S, height: u32) -> Result<Option<Vec<Header>>, FollowError<S::Error>> {
        let heights = self.chain.first_key_value().zip(self.chain.last_key_value());
        let (lowest, top) = heights.map_or((0, 0), |((lowest, _), (top, _))| (*lowest, *top));
        let active = source.hashes(lowest..top.saturating_add(1))?;
        let same = |(height, hash): &(u32, Option<Hash>)| hash.is_some() && self.chain.get(height).copied() == *hash;
        let Some((base, _)) = (lowest..).zip(active).filter(same).last() else {
            self.chain.clear();
            self.told.clear();
            return Ok(None);
        };
        let from = base.saturating_add(1);
        let to = height.saturating_add(1).min(from.saturating_add(HEADERS_MAX as u32)).max(from);
        let hashes: Vec<Hash> = source.hashes(from..to)?.into_iter().map_while(|hash| hash).collect();
        let headers: Vec<Header> = source.headers(&hashes)?.into_iter().map_while(|header| header).collect();
        let below = self.chain.get(&base).into_iter().chain(&hashes);
        let linked = hashes
            .iter()
            .zip(&headers)
            .zip(below)
            .take_while(|((hash, header), below)| sha256d(*header) == **hash && prev(header) == **below);
        let headers: Vec<Header> = linked.map(|((_, header), _)| *header).collect();
        if headers.is_empty() {
            return Err(FollowError::Torn);
        }
        self.extend(from, &headers);
        Ok(Some(headers))
    }

    /// The active chain goes on with these headers from this height on.
    fn extend(&mut self, from: u32, headers: &[Header]) {
        self.chain.split_off(&from);
        for (height, header) in (from..).zip(headers) {
            let hash = sha256d(header);
            self.chain.insert(height, hash);
            self.told.insert(hash, height);
        }
        if let Some(lowest) = self.chain.last_key_value().map(|(top, _)| top.saturating_sub(HEADERS_TOLD)) {
            self.chain = self.chain.split_off(&lowest);
            self.told.retain(|_, height| *height >= lowest);
        }
    }
}

fn prev(header: &Header) -> Hash {
    let mut prev = [0; 32];
    prev.copy_from_slice(&header[4..36]);
    prev
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
