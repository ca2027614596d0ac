//! Shares beside the best chain: near the tip a bounded number, and the scratch of the one sync under way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rockpool_net::id::ShareId;

use crate::limits::{SCRATCH_BYTES_MAX, SIDE_MAX};
use crate::record::Record;

/// A share that is not settled: beside the best chain, or on it but not yet confirmed.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub record: Arc<Record>,
    /// Its encoding; `None` where its row is written and nothing is left to be proved.
    pub bytes: Option<Arc<[u8]>>,
    /// Whether its coinbase was rebuilt and found to match: validity is recorded apart from position.
    pub proven: bool,
    /// The uncles that it names: what is needed of them when it becomes the best chain, whatever has become of them by then.
    pub uncles: Vec<Named>,
    /// Whether its row is written or on its way: it is to be deleted when the share is forgotten.
    pub row: bool,
    /// Whether it belongs to the sync under way and lies too far below our tip to be kept otherwise.
    pub scratch: bool,
    /// When it arrived, counted from 1; 0 for what was the best chain at start. Of equal scores the first seen is the better.
    pub seen: u64,
}

/// A share that another names as its uncle.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub record: Arc<Record>,
    /// Its encoding; `None` where its row is written and it was proved.
    pub bytes: Option<Arc<[u8]>>,
    /// What was known when it was named; later than that it may have been proved.
    pub proven: bool,
    /// What lies between it and the chain of who names it: needed to tell what it must pay, whatever has become of these by then.
    pub branch: Vec<Arc<Record>>,
}

impl Live {
    /// Memory that it takes, bytes; map entries included by a guess on the high side.
    fn bytes(&self) -> usize {
        let own = size_of::<Live>() + size_of::<Record>() + self.bytes.as_ref().map_or(0, |bytes| bytes.len());
        own + self.uncles.len() * (size_of::<Named>() + UNCLE_BYTES) + ENTRY_BYTES
    }

    /// What a nephew keeps of it.
    pub fn named(&self) -> Named {
        Named { record: Arc::clone(&self.record), bytes: self.bytes.clone(), proven: self.proven, branch: Vec::new() }
    }
}

/// The first and the last id there could be.
const FIRST: ShareId = ShareId([0; 32]);
const LAST: ShareId = ShareId([0xff; 32]);

/// Entries of a share in the sets below, bytes.
const ENTRY_BYTES: usize = 300;
/// What an uncle takes in its nephew's index entry and in the sets below, its branch of up to 32 places included, bytes.
const UNCLE_BYTES: usize = 500;

/// Shares beside the best chain, by id, by parent, by uncle and by score.
#[derive(Debug, Default)]
pub(super) struct Side {
    by_id: BTreeMap<ShareId, Live>,
    by_parent: BTreeSet<(ShareId, ShareId)>,
    by_uncle: BTreeSet<(ShareId, ShareId)>,
    near: BTreeSet<(u128, ShareId)>,
    scratch: BTreeSet<(u128, ShareId)>,
    scratch_bytes: usize,
}

impl Side {
    pub fn get(&self, id: &ShareId) -> Option<&Live> {
        self.by_id.get(id)
    }

    pub fn get_mut(&mut self, id: &ShareId) -> Option<&mut Live> {
        self.by_id.get_mut(id)
    }

    /// Whether a share beside the best chain names this one as its uncle.
    pub fn names(&self, id: &ShareId) -> bool {
        self.by_uncle.range((*id, FIRST)..=(*id, LAST)).next().is_some()
    }

    /// Whether a share beside the best chain builds on this one.
    pub fn has_children(&self, id: &ShareId) -> bool {
        self.by_parent.range((*id, FIRST)..=(*id, LAST)).next().is_some()
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// How many of them are no scratch of a sync.
    pub fn near_len(&self) -> usize {
        self.near.len()
    }

    #[cfg(test)]
    pub fn is_empty_of_scratch(&self) -> bool {
        self.scratch.is_empty() && self.scratch_bytes == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = &Live> {
        self.by_id.values()
    }

    /// Whether the scratch has no room for this share.
    pub fn is_full_for(&self, live: &Live) -> bool {
        live.scratch && self.scratch_bytes + live.bytes() > SCRATCH_BYTES_MAX
    }

    pub fn insert(&mut self, live: Live) {
        let id = live.record.id;
        self.by_parent.insert((live.record.parent, id));
        self.by_uncle.extend(live.record.uncles().iter().map(|uncle| (uncle.id, id)));
        if live.scratch {
            self.scratch.insert((live.record.score, id));
            self.scratch_bytes += live.bytes();
        } else {
            self.near.insert((live.record.score, id));
        }
        self.by_id.insert(id, live);
    }

    pub fn take(&mut self, id: &ShareId) -> Option<Live> {
        let live = self.by_id.remove(id)?;
        self.by_parent.remove(&(live.record.parent, *id));
        for uncle in live.record.uncles() {
            self.by_uncle.remove(&(uncle.id, *id));
        }
        if live.scratch {
            self.scratch.remove(&(live.record.score, *id));
            self.scratch_bytes -= live.bytes();
        } else {
            self.near.remove(&(live.record.score, *id));
        }
        Some(live)
    }

    /// Takes a share, if it is here, and all that builds on it, parents before children.
    pub fn take_branch(&mut self, id: ShareId) -> Vec<Live> {
        self.take_all(id, |side| vec![&side.by_parent])
    }

    /// Takes a share, if it is here, and all that is no better than it: what builds on it or names it as an uncle.
    pub fn take_tainted(&mut self, id: ShareId) -> Vec<Live> {
        self.take_all(id, |side| vec![&side.by_parent, &side.by_uncle])
    }

    fn take_all(&mut self, id: ShareId, sets: impl Fn(&Side) -> Vec<&BTreeSet<(ShareId, ShareId)>>) -> Vec<Live> {
        let mut taken: Vec<Live> = self.take(&id).into_iter().collect();
        let mut roots = vec![id];
        while let Some(root) = roots.pop() {
            let ids: BTreeSet<ShareId> =
                sets(self).into_iter().flat_map(|set| set.range((root, FIRST)..=(root, LAST))).map(|(_, id)| *id).collect();
            taken.extend(ids.iter().filter_map(|id| self.take(id)));
            roots.extend(ids);
        }
        taken
    }

    /// Takes the sync's scratch and all that builds on it.
    pub fn take_scratch(&mut self) -> Vec<Live> {
        let mut taken = Vec::new();
        while let Some((_, id)) = self.scratch.first().copied() {
            taken.extend(self.take_branch(id));
        }
        taken
    }

    /// Takes what is too much near the tip, lowest score first, each with what builds on it.
    pub fn take_excess(&mut self) -> Vec<Live> {
        let mut taken = Vec::new();
        while self.near.len() > SIDE_MAX
            && let Some((_, id)) = self.near.first().copied()
        {
            taken.extend(self.take_branch(id));
        }
        taken
    }

    /// Takes what builds on heights below this one, each with what builds on it.
    pub fn take_below(&mut self, height: u32) -> Vec<Live> {
        let low: Vec<ShareId> = self.iter().filter(|live| live.record.height <= height).map(|live| live.record.id).collect();
        low.into_iter().flat_map(|id| self.take_branch(id)).collect()
    }

    /// The share of the highest score; of equal ones the first seen.
    pub fn best(&self) -> Option<&Live> {
        let top = [&self.near, &self.scratch].into_iter().filter_map(|set| set.last()).map(|(score, _)| *score).max()?;
        let of_top = (top, FIRST)..=(top, LAST);
        let ids = self.near.range(of_top.clone()).chain(self.scratch.range(of_top));
        ids.filter_map(|(_, id)| self.get(id)).min_by_key(|live| live.seen)
    }

    /// Whether the sets agree.
    pub fn sanity_check(&self) -> Result<(), String> {
        let count = self.by_id.len();
        if self.scratch_bytes > SCRATCH_BYTES_MAX {
            return Err(format!("{} bytes of scratch", self.scratch_bytes));
        }
        if self.by_parent.len() != count || self.near.len() + self.scratch.len() != count {
            return Err(format!(
                "{count} side shares, {} by parent, {} near, {} scratch",
                self.by_parent.len(),
                self.near.len(),
                self.scratch.len()
            ));
        }
        let bytes: usize = self.iter().filter(|live| live.scratch).map(Live::bytes).sum();
        if bytes != self.scratch_bytes {
            return Err(format!("{bytes} bytes of scratch, {} counted", self.scratch_bytes));
        }
        Ok(())
    }
}
