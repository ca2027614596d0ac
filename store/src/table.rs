//! The best chain by height and by id: what the organiser's index and the reactor's view both are at heart.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use rockpool_net::id::ShareId;

use crate::limits::UNCLE_DEPTH;
use crate::record::{Record, Uncle};

/// A hash function with a secret drawn at start, so that nobody can choose ids that fall together.
#[derive(Clone, Copy, Debug)]
pub struct Keyed {
    key: [u64; 2],
}

impl Keyed {
    /// With a secret from the node's generator.
    pub fn new(key: [u64; 2]) -> Keyed {
        Keyed { key }
    }
}

impl BuildHasher for Keyed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        self.key.hash(&mut hasher);
        hasher
    }
}

/// A record found by its id, so that the set holds one pointer a share and no second copy of the id.
#[derive(Clone, Debug)]
struct ById(Arc<Record>);

impl Borrow<ShareId> for ById {
    fn borrow(&self) -> &ShareId {
        &self.0.id
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &ById) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

/// A chain of records from the lowest that is kept (genesis, or a base) to its tip.
#[derive(Clone, Debug)]
pub struct Table {
    lowest: Arc<Record>,
    /// Heights above the lowest.
    above: Vec<Arc<Record>>,
    by_id: HashSet<ById, Keyed>,
    /// Heights of the uncles that these credit.
    uncles: HashMap<ShareId, u32, Keyed>,
}

impl Table {
    /// A chain of one record.
    pub fn new(lowest: Arc<Record>, keyed: Keyed) -> Table {
        let mut by_id = HashSet::with_hasher(keyed);
        by_id.insert(ById(Arc::clone(&lowest)));
        Table { lowest, above: Vec::new(), by_id, uncles: HashMap::with_hasher(keyed) }
    }

    /// The highest record.
    pub fn tip(&self) -> &Arc<Record> {
        self.above.last().unwrap_or(&self.lowest)
    }

    /// The lowest record that is kept.
    pub fn lowest(&self) -> &Arc<Record> {
        &self.lowest
    }

    /// The record at a height.
    pub fn at(&self, height: u32) -> Option<&Arc<Record>> {
        match height.checked_sub(self.lowest.height)? {
            0 => Some(&self.lowest),
            above => self.above.get(above as usize - 1),
        }
    }

    /// The records above a height, ascending.
    pub fn above(&self, height: u32) -> &[Arc<Record>] {
        self.above.get(height.saturating_sub(self.lowest.height) as usize..).unwrap_or_default()
    }

    /// The record of an id, if it is of this chain.
    pub fn get(&self, id: &ShareId) -> Option<&Arc<Record>> {
        self.by_id.get(id).map(|entry| &entry.0)
    }

    /// Height of an uncle that a share of this chain credits.
    pub fn uncle_height(&self, id: &ShareId) -> Option<u32> {
        self.uncles.get(id).copied()
    }

    /// The share of this chain that credits this one, and what it says of it.
    pub fn uncle(&self, id: &ShareId) -> Option<(&Arc<Record>, &Uncle)> {
        let height = self.uncle_height(id)?;
        let mut nephews = (height + 1..=height.saturating_add(UNCLE_DEPTH)).map_while(|height| self.at(height));
        nephews.find_map(|nephew| nephew.uncles().iter().find(|uncle| uncle.id == *id).map(|uncle| (nephew, uncle)))
    }

    /// Puts a record on the tip. Refused, without a change, unless it is the tip's child.
    pub fn push(&mut self, record: Arc<Record>) -> bool {
        let fits = record.parent == self.tip().id && record.height == self.tip().height + 1;
        if fits && self.by_id.insert(ById(Arc::clone(&record))) {
            self.uncles.extend(record.uncles().iter().map(|uncle| (uncle.id, uncle.height)));
            self.above.push(record);
            return true;
        }
        false
    }

    /// Cuts what stands above a height; it comes back in ascending order.
    pub fn cut(&mut self, height: u32) -> Vec<Arc<Record>> {
        let kept = height.saturating_sub(self.lowest.height) as usize;
        let cut = self.above.split_off(self.above.len().min(kept));
        self.forget(&cut);
        cut
    }

    /// Makes this height the lowest that is kept; what was below comes back in ascending order.
    pub fn raise(&mut self, height: u32) -> Vec<Arc<Record>> {
        let Some(lowest) = self.at(height).cloned().filter(|lowest| lowest.id != self.lowest.id) else { return Vec::new() };
        let rest = self.above.split_off((height - self.lowest.height) as usize);
        let mut below = vec![std::mem::replace(&mut self.lowest, lowest)];
        below.append(&mut self.above);
        // The new lowest one stays by its id; its own uncles are in no window any more.
        let lowest = below.pop();
        self.above = rest;
        self.forget(&below);
        for uncle in self.lowest.uncles() {
            self.uncles.remove(&uncle.id);
        }
        debug_assert!(lowest.is_some_and(|lowest| lowest.id == self.lowest.id));
        below
    }

    fn forget(&mut self, records: &[Arc<Record>]) {
        for record in records {
            self.by_id.remove(&record.id);
            for uncle in record.uncles() {
                self.uncles.remove(&uncle.id);
            }
        }
    }

    /// Ids to find a common ancestor by: the newest ten one by one, then with doubling steps, the lowest one last.
    /// 32 bits of height need no more than 10 + 32 of them.
    pub fn locator(&self) -> Vec<ShareId> {
        let mut ids = Vec::new();
        let (mut height, mut step) = (self.tip().height, 1);
        while let Some(record) = self.at(height) {
            ids.push(record.id);
            if height == self.lowest.height {
                break;
            }
            if ids.len() >= LOCATOR_DENSE {
                step *= 2;
            }
            height = height.saturating_sub(step).max(self.lowest.height);
        }
        ids
    }

    /// Height of the highest of these ids that is of this chain; `None` where the chains have nothing in common that is kept.
    pub fn find_fork(&self, locator: &[ShareId]) -> Option<u32> {
        locator.iter().filter_map(|id| self.get(id)).map(|record| record.height).max()
    }

    /// Whether heights, parents and ids agree. For tests, invariants and `check`.
    pub fn sanity_check(&self) -> Result<(), String> {
        let mut parent = &self.lowest;
        for record in &self.above {
            if record.height != parent.height + 1 || record.parent != parent.id {
                return Err(format!("{} at height {} is no child of {}", record.id, record.height, parent.id));
            }
            if self.get(&record.id).is_none_or(|found| !Arc::ptr_eq(found, record)) {
                return Err(format!("{} at height {} is not found by its id", record.id, record.height));
            }
            if record.uncles().iter().any(|uncle| self.uncle_height(&uncle.id) != Some(uncle.height)) {
                return Err(format!("an uncle of {} at height {} is not found by its id", record.id, record.height));
            }
            parent = record;
        }
        let credited: usize = self.above.iter().map(|record| record.uncles().len()).sum();
        if credited != self.uncles.len() {
            return Err(format!("{} uncles are found by their ids, {credited} are credited", self.uncles.len()));
        }
        if self.by_id.len() != self.above.len() + 1 {
            return Err(format!("{} ids for {} heights", self.by_id.len(), self.above.len() + 1));
        }
        Ok(())
    }
}

/// Newest ids of a locator without a gap: most forks are shallower.
const LOCATOR_DENSE: usize = 10;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::params::{Network, params};

    /// A chain of this many heights above genesis; `branch` tells its ids from another's.
    fn chain(heights: u32, branch: u8) -> Table {
        let genesis = params(Network::Regtest).genesis_record();
        let mut table = Table::new(Arc::new(genesis), Keyed::new([3, 4]));
        extend(&mut table, heights, branch);
        table
    }

    fn extend(table: &mut Table, heights: u32, branch: u8) {
        for _ in 0..heights {
            let tip = table.tip();
            let mut id = [branch; 32];
            id[..4].copy_from_slice(&(tip.height + 1).to_be_bytes());
            let record = Record { id: ShareId(id), parent: tip.id, height: tip.height + 1, ..Record::clone(tip) };
            assert!(table.push(Arc::new(record)));
        }
    }

    #[test]
    fn only_the_tips_child_is_pushed() {
        let mut table = chain(5, 1);
        let (tip, below) = (Arc::clone(table.tip()), Arc::clone(table.at(4).unwrap()));
        assert!(!table.push(Arc::clone(&tip)) && !table.push(below));
        assert!(!table.push(Arc::new(Record { height: 7, parent: tip.id, ..Record::clone(&tip) })));
        assert!(table.at(6).is_none());
        table.sanity_check().unwrap();
    }

    #[test]
    fn what_is_cut_is_found_no_more() {
        let mut table = chain(10, 1);
        let cut = table.cut(6);
        assert_eq!(cut.iter().map(|record| record.height).collect::<Vec<_>>(), [7, 8, 9, 10]);
        assert_eq!(table.tip().height, 6);
        assert!(cut.iter().all(|record| table.get(&record.id).is_none() && table.at(record.height).is_none()));
        extend(&mut table, 3, 2);
        table.sanity_check().unwrap();
        assert!(table.cut(99).is_empty());
        assert_eq!(table.cut(0).len(), 9);
        assert_eq!(table.tip().height, 0);
        table.sanity_check().unwrap();
    }

    #[test]
    fn a_locator_is_dense_at_the_tip_and_ends_with_genesis() {
        let table = chain(1_000, 1);
        let heights: Vec<u32> = table.locator().iter().map(|id| table.get(id).unwrap().height).collect();
        assert_eq!(heights[..10], [1_000, 999, 998, 997, 996, 995, 994, 993, 992, 991]);
        assert_eq!(heights[10..], [989, 985, 977, 961, 929, 865, 737, 481, 0]);
        assert_eq!(chain(0, 1).locator(), [params(Network::Regtest).genesis_id()]);
    }

    #[test]
    fn a_locator_of_the_longest_chain_fits_its_message() {
        assert!(LOCATOR_DENSE + u32::BITS as usize <= rockpool_net::limits::LOCATOR_MAX);
    }

    #[test]
    fn forks_are_found_at_or_below_where_they_are() {
        let ours = chain(300, 1);
        for fork in [0, 1, 40, 290, 300] {
            let mut theirs = chain(300, 1);
            theirs.cut(fork);
            extend(&mut theirs, 20, 2);
            let found = ours.find_fork(&theirs.locator()).unwrap();
            // Steps double, so what is fetched twice is no more than what is new.
            assert!(found <= fork && (fork - found) <= 20, "fork at {fork}, found {found}");
        }
        assert_eq!(ours.find_fork(&[ShareId([9; 32])]), None);
    }
}
