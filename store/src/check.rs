//! `rockpool check`: whether rows are a share chain, found out from scratch and without changing them.
//!
//! The rows are read twice, in order: once to find the best chain by them, once to offer it to a chain that knows nothing yet and rebuilds
//! every coinbase. What neither the best chain nor its uncles reach is counted alone: it stands beside for a while, or a crash left it.

use std::collections::BTreeSet;

use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::sha256::sha256d;
use rockpool_net::time::Now;
use rockpool_net::wire::share::Share;

use crate::chain::{Chain, Offer, Source};
use crate::error::StoreError;
use crate::kv::{Family, Kv, MemKv};
use crate::limits::{FAULTS_LISTED, REACH, UNCLE_DEPTH};
use crate::params::{Network, Params, params};
use crate::portfolios::rows;
use crate::schema::{self, TipRow};

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The network of the rows; `None` if they do not say it, and in an empty store.
    pub network: Option<Network>,
    /// Height of the share that the chain begins with; 0 is genesis.
    pub lowest: u32,
    /// Where the chain ends; `None` in a store that holds none yet.
    pub tip: Option<TipRow>,
    /// Rows of shares.
    pub rows: u64,
    /// Heights of the best chain that pass every rule, from the lowest one on.
    pub shares: u32,
    /// Coinbases among them that were rebuilt from the payouts of their parents; near a base nobody can (SPEC, BASE-3).
    pub coinbases: u32,
    /// Uncles that they credit.
    pub uncles: u32,
    /// Rows of shares that the tip row does not reach.
    pub unreached: u64,
    /// Why the chain is shorter than the tip row says: an unconfirmed share does not hold. The node finds that out by itself.
    pub candidate: Option<String>,
    /// Bitcoin headers.
    pub headers: u64,
    /// What is wrong, at most [`FAULTS_LISTED`].
    pub faults: Vec<String>,
    /// How much more is wrong.
    pub more: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn ok(&self) -> bool {
        self.faults.is_empty()
    }

    fn fault(&mut self, what: String) {
        if self.faults.len() < FAULTS_LISTED {
            self.faults.push(what);
        } else {
            self.more += 1;
        }
    }

    /// What a read gave, unless it found damage, which is noted: any other failure ends the check.
    fn noted<T>(&mut self, read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::Damaged(why)) => {
                self.fault(why);
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }
}

/// Checks a store, of this network if one is given. `key` is drawn from the system's generator, `dir` is named in errors, `progress` hears
/// how many rows of how many are done. An error is a store that cannot be judged: of another format or network, or behind a failing disk.
pub fn check(
    kv: &dyn Kv,
    key: [u64; 2],
    wanted: Option<Network>,
    dir: &str,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report, StoreError> {
    let mut report = Report::default();
    let Some(params) = whose(kv, wanted, dir, &mut report)? else { return Ok(report) };
    let mut check = Check { kv, params, report, chain: Chain::open(params, key, &MemKv::new())? };
    check.headers()?;
    check.portfolios()?;
    if let Some(best) = check.rows()? {
        check.judge(&best, progress)?;
    }
    Ok(check.report)
}

/// The parameters by which the rows are judged; `None` if there is nothing more to be said.
fn whose(kv: &dyn Kv, wanted: Option<Network>, dir: &str, report: &mut Report) -> Result<Option<&'static Params>, StoreError> {
    if !report.noted(schema::has_format(kv, dir))?.unwrap_or(false) {
        return Ok(None);
    }
    let Some(found) = report.noted(schema::network(kv))? else { return Ok(wanted.map(params)) };
    report.network = Some(found.network);
    match wanted.filter(|wanted| *wanted != found.network) {
        None => Ok(Some(found)),
        Some(wanted) => Err(StoreError::WrongNetwork { dir: dir.into(), found: found.name.into(), wanted: wanted.name().into() }),
    }
}

/// The peer that base and uncles around it come from: nobody.
const NOBODY: ConnId = ConnId { slot: 0, generation: 0 };
/// Rows between two words of progress.
const PROGRESS_EVERY: u64 = 1_024;

struct Check<'a> {
    kv: &'a dyn Kv,
    params: &'static Params,
    report: Report,
    /// What was good so far.
    chain: Chain,
}

/// What the best chain consists of, by the rows alone.
struct Best {
    base: Option<(u32, ShareId)>,
    /// The lowest share, then one for each height above.
    ids: Vec<ShareId>,
    uncles: BTreeSet<ShareId>,
}

impl Best {
    fn has(&self, lowest: u32, height: u32, id: &ShareId) -> bool {
        height.checked_sub(lowest).and_then(|above| self.ids.get(above as usize)) == Some(id)
    }
}

/// What is kept of a row for the walk down.
struct Row {
    height: u32,
    id: ShareId,
    parent: ShareId,
    uncles: Box<[ShareId]>,
}

impl Check<'_> {
    /// Bitcoin's headers: a tree by Bitcoin's rules, each under its own key.
    fn headers(&mut self) -> Result<(), StoreError> {
        let (chain, report) = (&mut self.chain, &mut self.report);
        let read = self.kv.scan(Family::Bitcoin, &[], &mut |key, value| {
            report.headers += 1;
            let wrong = match (schema::place_of(key), value.try_into()) {
                (Some((height, hash)), Ok(header)) => wrong_header(chain, height, hash, header),
                _ => Some(format!("the row of a Bitcoin header does not decode: {} bytes under {}", value.len(), key.len())),
            };
            wrong.into_iter().for_each(|wrong| report.fault(wrong));
            true
        });
        self.chain.take_change();
        self.report.noted(read).map(drop)
    }

    /// Users' portfolios: rows decode. What a crash in the middle of a removal has left leads nowhere, and is no fault.
    fn portfolios(&mut self) -> Result<(), StoreError> {
        let report = &mut self.report;
        let read = self.kv.scan(Family::Portfolios, &[], &mut |key, value| {
            if rows::Row::decode(key, value).is_err() {
                report.fault(format!("a row of portfolios does not decode: {} bytes under {}", value.len(), key.len()));
            }
            true
        });
        self.report.noted(read).map(drop)
    }

    /// Decodes every row of a share, and finds the best chain by them. `None` if the rows do not lead from its tip to its lowest share.
    fn rows(&mut self) -> Result<Option<Best>, StoreError> {
        let report = &mut self.report;
        let mut rows = Vec::new();
        let read = self.kv.scan(Family::Shares, &[], &mut |key, value| {
            report.rows += 1;
            match row(key, value) {
                Ok((_, row)) => rows.push(row),
                Err(wrong) => report.fault(wrong),
            }
            true
        });
        let (read, base, tip) = (report.noted(read)?, report.noted(schema::base(self.kv))?, report.noted(schema::tip(self.kv))?);
        let (Some(()), Some(base), Some(tip)) = (read, base, tip) else { return Ok(None) };
        let (lowest, first) = base.unwrap_or((0, self.params.genesis_id()));
        (report.lowest, report.tip) = (lowest, tip);
        let found = walk(&rows, (lowest, first), base, tip);
        if let Ok(best) = &found {
            report.unreached =
                rows.iter().filter(|row| !best.has(lowest, row.height, &row.id) && !best.uncles.contains(&row.id)).count() as u64;
        }
        Ok(found.map_err(|wrong| report.fault(wrong)).ok())
    }

    /// Offers the best chain and its uncles to the chain that knows nothing, in the order of the rows, up to the first share that is not
    /// what it should be.
    fn judge(&mut self, best: &Best, progress: &mut dyn FnMut(u64, u64)) -> Result<(), StoreError> {
        if let Some((height, id)) = best.base
            && !self.begin(height, &id)?
        {
            return Ok(());
        }
        self.chain.begin_sync(NOBODY);
        let (kv, mut done) = (self.kv, 0);
        let read = kv.scan(Family::Shares, &[], &mut |key, value| {
            done += 1;
            if done % PROGRESS_EVERY == 0 {
                progress(done, self.report.rows);
            }
            match row(key, value) {
                Ok((share, row)) => self.judge_one(best, &share, &row),
                // Told of before, and nothing reaches it.
                Err(_) => true,
            }
        });
        self.report.noted(read)?;
        let (tip, wanted) = (self.chain.tip(), best.ids.last());
        let whole = self.report.ok() && self.report.candidate.is_none();
        if whole && wanted.is_some_and(|wanted| *wanted != tip.id && self.chain.get(wanted).is_none_or(|record| record.score < tip.score)) {
            let wrong = format!("by the rules the best of these shares is {} at height {}, the tip row says another", tip.id, tip.height);
            self.report.fault(wrong);
        }
        if let Err(why) = self.chain.sanity_check() {
            self.report.fault(format!("the chain made of the rows contradicts itself: {why}"));
        }
        Ok(())
    }

    /// Begins the chain with the base share.
    fn begin(&mut self, height: u32, id: &ShareId) -> Result<bool, StoreError> {
        let bytes = self.kv.get(Family::Shares, &schema::share_key(height, id))?.unwrap_or_default();
        let began = Share::decode(&bytes).map_or(Offer::Bad("it does not decode"), |share| self.chain.begin_at(&share));
        let good = began == Offer::Taken;
        if !good {
            self.report.fault(format!("share {id} at height {height}, with which the chain begins: {}", why(&began)));
        }
        Ok(good)
    }

    /// Judges one share if it is of the best chain or an uncle. Whether to go on.
    fn judge_one(&mut self, best: &Best, share: &Share, row: &Row) -> bool {
        let lowest = self.report.lowest;
        let on_chain = best.has(lowest, row.height, &row.id);
        if !on_chain && !best.uncles.contains(&row.id) || on_chain && row.height == lowest {
            return true;
        }
        // What lies around a base a chain takes from the sync under way alone.
        let around = lowest > 0 && row.height <= lowest + REACH as u32 + UNCLE_DEPTH;
        let source = if around { Source::Bulk(NOBODY) } else { Source::Peer };
        let offered = self.chain.offer(NEVER_TOO_EARLY, share, source);
        if !matches!(offered, Offer::Taken | Offer::Known) {
            self.report.fault(format!("share {} at height {}: {}", row.id, row.height, why(&offered)));
            return !on_chain;
        }
        self.report.uncles += u32::from(!on_chain);
        // An uncle that comes before its sibling is the best for a while: it too, so that nothing waits when the next one comes.
        let good = self.confirm(best, row);
        // The rows that a node would write are not wanted here.
        self.chain.take_change();
        good
    }

    /// Rebuilds the coinbases of the best chain so far. Whether they match.
    fn confirm(&mut self, best: &Best, row: &Row) -> bool {
        loop {
            let whole = self.chain.window().is_whole(self.params);
            let before = self.chain.confirmed_height();
            let done = self.chain.confirm(1);
            if let Some((id, why)) = self.chain.take_condemned().pop() {
                let wrong = format!("share {id}, of the chain at height {}: {why}", row.height);
                if self.report.tip.is_some_and(|tip| row.height > tip.confirmed_height) {
                    self.report.candidate = Some(wrong);
                } else {
                    self.report.fault(wrong);
                }
                return false;
            }
            let (tip, lowest) = (self.chain.confirmed_tip(), self.report.lowest);
            // Siblings may take the tip from one another, and be confirmed more than once.
            if tip.height > before && tip.height > lowest + self.report.shares && best.has(lowest, tip.height, &tip.id) {
                self.report.shares += 1;
                self.report.coinbases += u32::from(whole);
            }
            if done == 0 {
                return true;
            }
        }
    }
}

/// No share's time is ahead of this one: what was taken once was early then, if ever.
const NEVER_TOO_EARLY: Now = Now { mono: std::time::Duration::ZERO, wall: std::time::Duration::MAX };

/// What is wrong with the row of a Bitcoin header, which goes into the tree.
fn wrong_header(chain: &mut Chain, height: u32, hash: ShareId, header: &[u8; 80]) -> Option<String> {
    let found = ShareId(sha256d(header));
    if found != hash {
        return Some(format!("the row of Bitcoin header {hash} at height {height} holds another, {found}"));
    }
    let offered = chain.offer_blocks(std::slice::from_ref(header));
    if let Some(why) = offered.bad {
        return Some(format!("Bitcoin header {hash} at height {height}: {why}"));
    }
    if let Some(missing) = offered.missing {
        // The lowest one is a root.
        let root = chain.root_at(height, header);
        return root.is_none().then(|| format!("Bitcoin header {hash} at height {height} builds on {missing}, which has no row"));
    }
    let at = chain.bitcoin().get(&hash.0).map_or(height, |block| block.height);
    (at != height).then(|| format!("Bitcoin header {hash} has height {at}, its row says {height}"))
}

/// A share and its row, or what is wrong with it.
fn row(key: &[u8], value: &[u8]) -> Result<(Share, Row), String> {
    let (height, id) = schema::place_of(key).ok_or_else(|| format!("the key of a share's row has {} bytes", key.len()))?;
    let share = Share::decode(value).map_err(|why| format!("the row of share {id} at height {height} does not decode: {why}"))?;
    if share.id() != id || share.height != height {
        let other = share.id();
        return Err(format!("the row of share {id} at height {height} holds another, {other} at height {}", share.height));
    }
    if height == 0 {
        return Err(format!("share {id} has a row at height 0, where genesis is, which has none"));
    }
    let row = Row { height, id, parent: share.parent, uncles: share.uncles.clone().into() };
    Ok((share, row))
}

/// The best chain by its rows, which are in their order: down from the tip row to the lowest share.
fn walk(rows: &[Row], (lowest, first): (u32, ShareId), base: Option<(u32, ShareId)>, tip: Option<TipRow>) -> Result<Best, String> {
    let find = |height: u32, id: ShareId| rows.binary_search_by(|row| (row.height, row.id).cmp(&(height, id))).ok().map(|at| &rows[at]);
    if base.is_some() && find(lowest, first).is_none() {
        return Err(format!("share {first} at height {lowest}, with which the chain begins, has no row"));
    }
    let mut best = Best { base, ids: Vec::new(), uncles: BTreeSet::new() };
    let genesis = TipRow { height: 0, id: first, confirmed_height: 0, confirmed_id: first };
    let tip = match tip {
        Some(tip) => tip,
        None if base.is_none() => genesis,
        None => return Err(format!("the chain begins at height {lowest}, but no row says where it ends")),
    };
    let (mut height, mut id) = (tip.height, tip.id);
    while (height, id) != (lowest, first) {
        if height <= lowest {
            return Err(format!("the best chain has {id} at height {height}, and does not begin with {first} at height {lowest}"));
        }
        let row = find(height, id).ok_or_else(|| format!("share {id} of the best chain has no good row at height {height}"))?;
        best.ids.push(id);
        best.uncles.extend(&row.uncles);
        (height, id) = (height - 1, row.parent);
    }
    best.ids.push(first);
    best.ids.reverse();
    if tip.confirmed_height > tip.height || !best.has(lowest, tip.confirmed_height, &tip.confirmed_id) {
        return Err(format!(
            "the tip row says that {} at height {} is confirmed, which is not of its chain",
            tip.confirmed_id, tip.confirmed_height
        ));
    }
    Ok(best)
}

/// Why an offer was not taken.
fn why(offer: &Offer) -> String {
    match offer {
        Offer::Taken | Offer::Known => "it is good".into(),
        Offer::Pending { missing } => format!("it needs {missing}, a share or a Bitcoin header, of which there is no good row"),
        Offer::Early { due } => format!("it is too early for it before {due}"),
        Offer::Dropped(why) | Offer::Invalid(why) | Offer::Bad(why) => (*why).into(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
