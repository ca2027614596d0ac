//! The index after a start: one scan of the rows, then the walk down from the tip row.

use super::*;
use crate::error::StoreError;
use crate::kv::{Family, Kv};
use crate::schema::{self, share_key};

impl Chain {
    /// The chain that the rows hold; a fresh store holds genesis alone. `key` is drawn from the node's generator.
    ///
    /// The tip row alone decides what the best chain is. What it does not reach is kept beside it as if it came anew, and may then be
    /// better: a crash can have hit between the rows of a branch and the tip row. So there may be a change to take at once.
    pub fn open(params: &'static Params, key: [u64; 2], kv: &dyn Kv) -> Result<Chain, StoreError> {
        let mut chain = Chain::fresh(params, Keyed::new(key));
        let mut records = chain.scan(kv)?;
        if let Some(tip) = schema::tip(kv)? {
            chain.walk(&mut records, tip)?;
            for record in chain.table.above(tip.confirmed_height) {
                let unproven = Some(read(kv, record)?);
                chain.candidates.push_back(Live { record: Arc::clone(record), unproven, row: true, scratch: false, seen: 0 });
            }
            if chain.confirmed_tip().id != tip.confirmed_id {
                return Err(StoreError::Damaged(format!("{} is not at the confirmed height of its chain", tip.confirmed_id)));
            }
            for height in 1..=tip.confirmed_height {
                if let Some(record) = chain.table.at(height) {
                    chain.window.push(params, record, |height| level(&chain.table, height));
                }
            }
            chain.payouts = Arc::new(Payouts::new(chain.confirmed_tip(), &chain.window));
        }
        chain.told = Told::of(chain.tip_row());
        let mut beside: Vec<_> = records.into_values().collect();
        beside.sort_unstable_by_key(|record| (record.height, record.id));
        for record in beside {
            let unproven = Some(read(kv, &record)?);
            chain.arrivals += 1;
            chain.side.insert(Live { record, unproven, row: true, scratch: false, seen: chain.arrivals });
        }
        chain.select();
        Ok(chain)
    }

    /// Genesis alone.
    fn fresh(params: &'static Params, keyed: Keyed) -> Chain {
        let genesis = Arc::new(params.genesis_record());
        let window = Window::new();
        let payouts = Arc::new(Payouts::new(&genesis, &window));
        let tip = TipRow { height: 0, id: genesis.id, confirmed_height: 0, confirmed_id: genesis.id };
        Chain {
            params,
            keyed,
            table: Table::new(genesis, keyed),
            seen: Vec::new(),
            candidates: VecDeque::new(),
            side: Side::default(),
            invalid: BTreeMap::new(),
            invalid_order: VecDeque::new(),
            condemned: Vec::new(),
            window,
            payouts,
            syncing: None,
            arrivals: 0,
            rows: Rows::default(),
            told: Told::of(tip),
        }
    }

    /// Records of all rows by id. Rows are ordered by height, so parents come first; a row whose parent has none is deleted.
    fn scan(&mut self, kv: &dyn Kv) -> Result<BTreeMap<ShareId, Arc<Record>>, StoreError> {
        let mut records: BTreeMap<ShareId, Arc<Record>> = BTreeMap::new();
        schema::shares(kv, |height, id, bytes| {
            let share = decode(height, id, bytes)?;
            let of = |id: &ShareId| records.get(id).or_else(|| self.table.get(id));
            let Some(parent) = of(&share.parent) else {
                self.rows.delete(height, id);
                return Ok(());
            };
            // Rows were checked before they were written, and have checksums. What follows from the parent is computed anyway.
            let excess = std::iter::successors(Some(parent), |record| of(&record.parent)).nth(EXCESS_DELAY as usize - 1);
            let derived = rules::child(self.params, parent, excess.map_or(0, |record| score::excess(record)), share.time);
            if (derived.height, derived.score, derived.lead) != (height, share.score, share.lead) {
                return Err(StoreError::Damaged(format!("share {id} at height {height} does not follow from its parent's row")));
            }
            records.insert(id, Arc::new(rules::record(&share, id, derived.demand)));
            Ok(())
        })?;
        Ok(records)
    }

    /// Takes the best chain out of the records, from the tip row down to genesis.
    fn walk(&mut self, records: &mut BTreeMap<ShareId, Arc<Record>>, tip: TipRow) -> Result<(), StoreError> {
        let mut best = Vec::new();
        let mut at = tip.id;
        while at != self.table.tip().id {
            let record = records.remove(&at).ok_or_else(|| StoreError::Damaged(format!("share {at} of the best chain has no row")))?;
            at = record.parent;
            best.push(record);
        }
        if best.len() as u32 != tip.height || tip.confirmed_height > tip.height {
            return Err(StoreError::Damaged(format!("the tip row says height {}, its chain has {}", tip.height, best.len())));
        }
        for record in best.into_iter().rev() {
            self.table.push(record);
            self.seen.push(0);
        }
        Ok(())
    }
}

fn read(kv: &dyn Kv, record: &Record) -> Result<Arc<Share>, StoreError> {
    let (height, id) = (record.height, record.id);
    let bytes = kv.get(Family::Shares, &share_key(height, &id))?;
    let bytes = bytes.ok_or_else(|| StoreError::Damaged(format!("share {id} at height {height} was there a moment ago")))?;
    decode(height, id, &bytes).map(Arc::new)
}

fn decode(height: u32, id: ShareId, bytes: &[u8]) -> Result<Share, StoreError> {
    let damaged = |why: String| StoreError::Damaged(format!("the row of share {id} at height {height}: {why}"));
    let share = Share::decode(bytes).map_err(|error| damaged(error.to_string()))?;
    if share.id() != id || share.height != height {
        return Err(damaged("it holds another share".into()));
    }
    Ok(share)
}
