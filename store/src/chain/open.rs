//! The index after a start: one scan of the rows, then the walk down from the tip row.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rockpool_net::id::ShareId;
use rockpool_net::wire::share::Share;

use super::rows::Rows;
use super::side::{Live, Named, Side};
use super::{Chain, News, Told};
use crate::bitcoin::{Added, Block, HeaderError, Tree};
use crate::error::StoreError;
use crate::kv::{Family, Kv};
use crate::limits::{CREDITED_DEPTH, REACH, UNCLE_DEPTH};
use crate::params::Params;
use crate::payouts::Payouts;
use crate::record::{Place, Record, Scripts};
use crate::rules::window::{Window, wanted_work};
use crate::rules::{self, Ancestors, uncles};
use crate::schema::{self, TipRow, share_key};
use crate::table::{Keyed, Table};

/// Records of rows, in the order of the rows: by height, then id.
#[derive(Default)]
struct Scanned {
    records: Vec<Arc<Record>>,
}

impl Scanned {
    fn get(&self, height: u32, id: &ShareId) -> Option<&Arc<Record>> {
        let index = self.records.binary_search_by(|record| (record.height, record.id).cmp(&(height, *id))).ok()?;
        self.records.get(index)
    }

    fn parent(&self, record: &Record) -> Option<&Arc<Record>> {
        self.get(record.height.checked_sub(1)?, &record.parent)
    }

    /// An uncle of a share at this height.
    fn uncle(&self, height: u32, id: &ShareId) -> Option<&Arc<Record>> {
        (1..=UNCLE_DEPTH).find_map(|depth| self.get(height.checked_sub(depth)?, id))
    }
}

impl Chain {
    /// The chain that the rows hold; a fresh store holds genesis alone. `key` is drawn from the node's generator.
    ///
    /// The tip row alone decides what the best chain is. What it does not reach is kept beside it as if it came anew, and may then be
    /// better: a crash can have hit between the rows of a branch and the tip row. So there may be a change to take at once.
    pub fn open(params: &'static Params, key: [u64; 2], kv: &dyn Kv) -> Result<Chain, StoreError> {
        let mut chain = Chain::fresh(params, Keyed::new(key));
        let (tree, left) = read_tree(params, kv)?;
        chain.bitcoin = tree;
        left.iter().for_each(|block| chain.rows.delete_block(block));
        let base = schema::base(kv)?;
        let scanned = chain.scan(kv, base)?;
        if let Some(base) = base {
            let lowest = scanned.get(base.0, &base.1);
            let lowest = lowest.ok_or_else(|| StoreError::Damaged(format!("share {} that the chain begins with has no row", base.1)))?;
            chain.begin_with(Arc::clone(lowest));
            chain.news.base = false;
        }
        if let Some(tip) = schema::tip(kv)? {
            chain.walk(&scanned, tip)?;
            chain.read_candidates(kv, &scanned, tip)?;
            for height in chain.lowest().height + 1..=tip.confirmed_height {
                if let Some(record) = chain.table.at(height) {
                    let wanted = wanted_work(params, record);
                    chain.window.push(params, wanted, |height| super::level(&chain.table, height));
                }
            }
            chain.payouts = VecDeque::from([chain.payouts_of_window()]);
        }
        chain.bitcoin.limit();
        chain.bitcoin.pushed_out().iter().for_each(|block| chain.rows.delete_block(block));
        chain.told = Told::of(chain.tip_row());
        chain.read_beside(kv, &scanned)?;
        chain.select();
        Ok(chain)
    }

    /// Genesis alone.
    fn fresh(params: &'static Params, keyed: Keyed) -> Chain {
        let genesis = Arc::new(params.genesis_record());
        let window = Window::new(0);
        let payouts = Arc::new(Payouts::new(&genesis, &window));
        let tip = TipRow { height: 0, id: genesis.id, confirmed_height: 0, confirmed_id: genesis.id };
        Chain {
            params,
            keyed,
            bitcoin: Tree::new(params),
            scripts: Scripts::default(),
            table: Table::new(genesis, keyed),
            seen: Vec::new(),
            candidates: VecDeque::new(),
            side: Side::default(),
            credited: BTreeMap::new(),
            unproven: BTreeSet::new(),
            invalid: BTreeMap::new(),
            invalid_order: VecDeque::new(),
            condemned: Vec::new(),
            window,
            payouts: VecDeque::from([(payouts, true)]),
            upon: None,
            syncing: None,
            arrivals: 0,
            rows: Rows::default(),
            told: Told::of(tip),
            news: News::default(),
        }
    }

    /// Records of all rows. Rows are ordered by height, so parents and uncles come first; a row without its parent's is deleted, unless it
    /// is the base's or one that an uncle around the base has.
    fn scan(&mut self, kv: &dyn Kv, base: Option<(u32, ShareId)>) -> Result<Scanned, StoreError> {
        let mut scanned = Scanned { records: vec![Arc::clone(self.lowest())] };
        schema::shares(kv, |height, id, bytes| {
            let share = decode(height, id, bytes)?;
            let parent = height.checked_sub(1).and_then(|below| scanned.get(below, &share.parent));
            let around = base.is_some_and(|(base, _)| height <= base + UNCLE_DEPTH);
            let place = parent.map_or(Ok(None), |parent| self.place(&scanned, parent, &share, id))?;
            // Around a base a parent may be missing, or what an uncle credits itself.
            let place = place.or_else(|| if around { self.loose(&share) } else { None });
            match place {
                Some(place) => scanned.records.push(Arc::new(place.record(&share, id))),
                None => self.rows.delete(height, id),
            }
            Ok(())
        })?;
        Ok(scanned)
    }

    /// The place of a row's share. Rows were checked before they were written, and have checksums; what follows from the parent is computed
    /// anyway. `None` where an uncle or the Bitcoin block has no row, which happens to shares beside the best chain alone.
    fn place(&mut self, scanned: &Scanned, parent: &Arc<Record>, share: &Share, id: ShareId) -> Result<Option<Place>, StoreError> {
        let derived = rules::child(self.params, parent, share.time);
        if (derived.height, derived.score(share.bits), derived.lead) != (share.height, share.score, share.lead) {
            return Err(StoreError::Damaged(format!("share {id} at height {} does not follow from its parent's row", share.height)));
        }
        let uncles: Option<Vec<_>> =
            share.uncles.iter().map(|uncle| scanned.uncle(share.height, uncle).map(|uncle| uncle.as_uncle())).collect();
        let (Some(uncles), Some(bitcoin)) = (uncles, self.bitcoin.get(&share.bitcoin_prev()).cloned()) else { return Ok(None) };
        let best_bitcoin = Some(parent.best_bitcoin()).filter(|best| bitcoin.work < best.work).cloned();
        Ok(Some(Place { allowed_bits: derived.allowed_bits, best_bitcoin, script: self.scripts.shared(&share.script), bitcoin, uncles }))
    }

    /// The place of a share of which nothing below is known.
    fn loose(&mut self, share: &Share) -> Option<Place> {
        let bitcoin = self.bitcoin.get(&share.bitcoin_prev()).cloned()?;
        let script = self.scripts.shared(&share.script);
        Some(Place { allowed_bits: share.bits, best_bitcoin: None, script, bitcoin, uncles: Vec::new() })
    }

    /// Takes the best chain out of the records, from the tip row down to the lowest share.
    fn walk(&mut self, scanned: &Scanned, tip: TipRow) -> Result<(), StoreError> {
        let mut best = Vec::new();
        let (mut at, mut height) = (tip.id, tip.height);
        while at != self.lowest().id {
            let record = scanned.get(height, &at).filter(|record| record.height > self.lowest().height);
            let record =
                record.ok_or_else(|| StoreError::Damaged(format!("share {at} of the best chain has no row at height {height}")))?;
            (at, height) = (record.parent, height - 1);
            best.push(record);
        }
        if height != self.lowest().height || tip.confirmed_height > tip.height || tip.confirmed_height < height {
            return Err(StoreError::Damaged(format!("the tip row says height {}, its chain has {}", tip.height, best.len())));
        }
        for record in best.into_iter().rev() {
            let uncles = record.uncles().iter().filter_map(|uncle| scanned.get(uncle.height, &uncle.id));
            uncles.chain([record]).for_each(|record| self.bitcoin.hold(&record.bitcoin.hash));
            self.table.push(Arc::clone(record));
            self.seen.push(0);
        }
        Ok(())
    }

    /// The shares above the confirmed height, and uncles credited near it.
    fn read_candidates(&mut self, kv: &dyn Kv, scanned: &Scanned, tip: TipRow) -> Result<(), StoreError> {
        let near = tip.confirmed_height.saturating_sub(CREDITED_DEPTH).max(self.lowest().height);
        for record in self.table.above(near).to_vec() {
            for uncle in record.uncles() {
                if let Some(uncle) = scanned.get(uncle.height, &uncle.id) {
                    let named = Named { record: Arc::clone(uncle), bytes: None, proven: true, branch: Vec::new() };
                    self.credited.insert(uncle.id, named);
                }
            }
        }
        for record in self.table.above(tip.confirmed_height).to_vec() {
            let live = read(kv, scanned, &record, 0)?;
            self.candidates.push_back(live);
        }
        if self.confirmed_tip().id != tip.confirmed_id {
            return Err(StoreError::Damaged(format!("{} is not at the confirmed height of its chain", tip.confirmed_id)));
        }
        Ok(())
    }

    /// What the tip row does not reach: shares beside the best chain; of the uncles that it credits those that others may still build on.
    fn read_beside(&mut self, kv: &dyn Kv, scanned: &Scanned) -> Result<(), StoreError> {
        let mut loose = Vec::new();
        for record in &scanned.records {
            let on_chain = self.table.get(&record.id).is_some() || record.height == 0;
            if on_chain || (self.table.uncle_height(&record.id).is_some() && !self.is_recent_uncle(record)) {
                continue;
            }
            if self.get(&record.parent).is_none() {
                if self.table.uncle_height(&record.id).is_none() {
                    loose.push(record);
                }
                continue;
            }
            self.arrivals += 1;
            let live = read(kv, scanned, record, self.arrivals)?;
            self.put_beside(live);
        }
        // On an uncle that the best chain credits: not beside it, but a share that is may credit it and cannot be judged without it.
        for record in loose.into_iter().filter(|record| !self.side.names(&record.id)) {
            self.rows.delete(record.height, record.id);
        }
        Ok(())
    }
}

/// Bitcoin's headers as the rows hold them. The lowest was a root before, so it is one again.
pub fn bitcoin_tree(params: &'static Params, kv: &dyn Kv) -> Result<Tree, StoreError> {
    read_tree(params, kv).map(|(tree, _)| tree)
}

/// The same, and blocks below its root whose rows a crash has left.
fn read_tree(params: &'static Params, kv: &dyn Kv) -> Result<(Tree, Vec<Arc<Block>>), StoreError> {
    let (mut tree, mut left) = (Tree::unlimited(params), Vec::new());
    schema::blocks(kv, |height, header| {
        let added = match tree.add(header) {
            Ok(Added::Orphan(_)) => begin_anew(&mut tree, height, header, &mut left),
            other => other.map(|_| true),
        };
        match added {
            Ok(true) => Ok(()),
            _ => Err(StoreError::Damaged(format!("a Bitcoin header at height {height} does not follow from the rows below it"))),
        }
    })?;
    Ok((tree, left))
}

/// The tree goes on with a block above all that it holds, which is `left` behind. Whether it may.
fn begin_anew(tree: &mut Tree, height: u32, header: &[u8; 80], left: &mut Vec<Arc<Block>>) -> Result<bool, HeaderError> {
    let lower: Vec<_> = tree.iter().cloned().collect();
    let begun = tree.root_at(height, header)?.is_some();
    // The network's first block alone has no row.
    let rows = begun && lower.len() > 1;
    left.extend(lower.into_iter().filter(|_| rows));
    Ok(begun)
}

/// A share that is to be proved again, with the uncles it names.
fn read(kv: &dyn Kv, scanned: &Scanned, record: &Arc<Record>, seen: u64) -> Result<Live, StoreError> {
    let below = std::iter::successors(scanned.parent(record), |record| scanned.parent(record));
    let newest: Vec<_> = below.take(REACH).cloned().collect();
    let uncles = record.uncles().iter().map(|uncle| {
        let uncle = scanned.get(uncle.height, &uncle.id);
        let uncle = uncle.ok_or_else(|| StoreError::Damaged(format!("an uncle of share {} has no row", record.id)))?;
        let mut height = uncle.height;
        let find = |id: &ShareId| {
            height = height.checked_sub(1)?;
            scanned.get(height, id).cloned()
        };
        // Near a base not all of it is kept.
        let branch = uncles::branch(uncle, Ancestors::new(&newest), find).unwrap_or_default();
        Ok(Named { record: Arc::clone(uncle), bytes: Some(read_bytes(kv, uncle)?), proven: false, branch })
    });
    let uncles = uncles.collect::<Result<_, StoreError>>()?;
    let bytes = Some(read_bytes(kv, record)?);
    Ok(Live { record: Arc::clone(record), bytes, proven: false, uncles, row: true, scratch: false, seen })
}

fn read_bytes(kv: &dyn Kv, record: &Record) -> Result<Arc<[u8]>, StoreError> {
    let (height, id) = (record.height, record.id);
    let bytes = kv.get(Family::Shares, &share_key(height, &id))?;
    bytes.map(Arc::from).ok_or_else(|| StoreError::Damaged(format!("share {id} at height {height} was there a moment ago")))
}

fn decode(height: u32, id: ShareId, bytes: &[u8]) -> Result<Share, StoreError> {
    let damaged = |why: String| StoreError::Damaged(format!("the row of share {id} at height {height}: {why}"));
    let share = Share::decode(bytes).map_err(|error| damaged(error.to_string()))?;
    if share.id() != id || share.height != height {
        return Err(damaged("it holds another share".into()));
    }
    Ok(share)
}
