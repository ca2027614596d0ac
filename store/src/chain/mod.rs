//! The organiser's index: which shares there are, which of them are the best chain, up to where it is confirmed.
//!
//! *Candidate*: the best chain of tied shares. *Confirmed*: its prefix whose coinbases were rebuilt from the payouts that their parents
//! dictate. Shares beside the best chain live in `side`; what must reach the disk is collected in `rows`.

mod open;
mod rows;
mod side;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::time::Now;
use rockpool_net::wire::share::Share;

use crate::limits::{EXCESS_DELAY, INVALID_MAX, MEDIAN_SPAN, SIDE_MAX, SPAM_DEPTH};
use crate::organised::ChainChange;
use crate::params::Params;
use crate::payouts::Payouts;
use crate::record::Record;
use crate::rules::share::{RuleError, check_alone, check_coinbase, check_context};
use crate::rules::window::{Level, Window};
use crate::rules::{self, difficulty, score};
use crate::schema::TipRow;
use crate::table::{Keyed, Table};
use crate::view::ChainView;

pub use rows::Batch;
use rows::Rows;
use side::{Live, Side};

/// How a share came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// One of our miners made it: it is stored even beside the best chain, since its miner is told so.
    Own,
    /// A peer pushed it, or sent it because we asked for it by id.
    Peer,
    /// A peer sent it in bulk. If that peer's sync is under way, it may lie far below our tip.
    Bulk(ConnId),
}

/// What became of an offered share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is in the index.
    Taken,
    /// It was there already.
    Known,
    /// It waits, without blame, for the share it builds on.
    Pending {
        /// The id of that share.
        missing: ShareId,
    },
    /// It waits, without blame, for its time: to be offered again then.
    Early {
        /// Unix seconds from which on it may be offered again.
        due: u32,
    },
    /// Not kept, without blame: too far below our tip, or no room.
    Dropped(&'static str),
    /// It breaks a rule on tied fields: it and what builds on it are remembered as invalid.
    Invalid(&'static str),
    /// Not a share: nothing is recorded for its id, and its sender is to blame.
    Bad(&'static str),
}

/// The index of the share chain. One owner, no clock, no disk.
#[derive(Debug)]
pub struct Chain {
    params: &'static Params,
    keyed: Keyed,
    /// The best chain, candidates included.
    table: Table,
    /// When its shares arrived, from height 1 up.
    seen: Vec<u64>,
    /// Its shares above the confirmed height, ascending.
    candidates: VecDeque<Live>,
    /// Shares beside the best chain.
    side: Side,
    /// Tied shares that break a rule, newest last, and why. A forgotten one is judged anew when it comes again.
    invalid: BTreeMap<ShareId, &'static str>,
    invalid_order: VecDeque<ShareId>,
    /// Shares whose coinbase was rebuilt and does not match, since they were last asked for.
    condemned: Vec<(ShareId, &'static str)>,
    window: Window,
    /// Payouts at the confirmed tip.
    payouts: Arc<Payouts>,
    syncing: Option<ConnId>,
    /// Counts arrivals.
    arrivals: u64,
    rows: Rows,
    told: Told,
}

/// What the last change has told.
#[derive(Clone, Copy, Debug)]
struct Told {
    tip: TipRow,
    payouts: ShareId,
    /// Lowest height that the best chain was cut to since.
    fork: u32,
    /// Lowest height that the confirmed chain fell to since.
    confirmed: u32,
}

impl Chain {
    /// The highest share of the best chain.
    pub fn tip(&self) -> &Arc<Record> {
        self.table.tip()
    }

    /// The highest confirmed share: the one to mine on.
    pub fn confirmed_tip(&self) -> &Arc<Record> {
        self.table.at(self.confirmed_height()).unwrap_or(self.table.tip())
    }

    /// Its height.
    pub fn confirmed_height(&self) -> u32 {
        self.table.tip().height - self.candidates.len() as u32
    }

    /// Shares of the best chain whose coinbases are still to be rebuilt.
    pub fn backlog(&self) -> usize {
        self.candidates.len()
    }

    /// Payouts at the confirmed tip.
    pub fn payouts(&self) -> &Arc<Payouts> {
        &self.payouts
    }

    /// The record of a share, on the best chain or beside it.
    pub fn get(&self, id: &ShareId) -> Option<&Arc<Record>> {
        self.table.get(id).or_else(|| self.side.get(id).map(|live| &live.record))
    }

    /// Shares beside the best chain.
    pub fn side_len(&self) -> usize {
        self.side.len()
    }

    /// The reactor's view of what the chain is now.
    pub fn view(&self) -> ChainView {
        ChainView::new(self.table.clone(), self.confirmed_height(), Arc::clone(&self.payouts), self.keyed)
    }

    /// From now on shares that this peer sends in bulk may lie far below our tip (SHARECHAIN §5). One sync at a time: refused while
    /// another is under way.
    pub fn begin_sync(&mut self, peer: ConnId) -> bool {
        if self.syncing.is_some_and(|other| other != peer) {
            return false;
        }
        self.syncing = Some(peer);
        true
    }

    /// The peer whose sync is under way.
    pub fn syncing(&self) -> Option<ConnId> {
        self.syncing
    }

    /// The sync is over. What it brought has become the best chain, or is forgotten.
    pub fn end_sync(&mut self) {
        self.syncing = None;
        for live in self.side.take_scratch() {
            self.forget(&live);
        }
    }

    /// Judges a share and, if it is good, puts it into the index.
    ///
    /// The order of checks is that of SHARECHAIN §1; nothing is recorded for a share that fails before "tie".
    pub fn offer(&mut self, now: Now, share: Arc<Share>, source: Source) -> Offer {
        let id = share.id();
        if self.get(&id).is_some() {
            return Offer::Known;
        }
        if let Some(why) = self.invalid.get(&id) {
            return Offer::Invalid(why);
        }
        if let Err(error) = check_alone(self.params, &share) {
            return self.refuse(id, error);
        }
        if self.invalid.contains_key(&share.parent) {
            return self.mark_invalid(id, BUILDS_ON_INVALID);
        }
        let Some(parent) = self.get(&share.parent).cloned() else { return Offer::Pending { missing: share.parent } };
        let demand = match self.check_context(&share, &parent) {
            Ok(demand) => demand,
            Err(error) => return self.refuse(id, error),
        };
        if difficulty::too_new(self.params, share.time, now.unix()) {
            return Offer::Early { due: share.time - self.params.time_ahead_max_s };
        }
        let record = Arc::new(rules::record(&share, id, demand));
        self.take_in(record, share, source)
    }

    /// Rebuilds the coinbases of at most this many candidates above the confirmed height; returns how many it did.
    pub fn confirm(&mut self, at_most: usize) -> usize {
        for done in 0..at_most {
            let Some(candidate) = self.candidates.front() else { return done };
            match candidate.unproven.as_ref().map_or(Ok(()), |share| check_coinbase(self.params, share, &self.payouts)) {
                Ok(()) => self.settle(),
                Err(error) => self.condemn(error),
            }
        }
        at_most
    }

    /// The shares that [`confirm`](Chain::confirm) found wanting since the last call, and why: for the log.
    pub fn take_condemned(&mut self) -> Vec<(ShareId, &'static str)> {
        std::mem::take(&mut self.condemned)
    }

    /// What changed since the last call, for the reactor's view, and the batches that bring the disk there, in the order in which they
    /// must be written. `None` if nothing did. An own share that was taken but is in no batch was found wanting since.
    pub fn take_change(&mut self) -> Option<(ChainChange, Vec<Batch>)> {
        let tip = self.tip_row();
        let moved = tip != self.told.tip || self.told.fork < self.told.tip.height;
        if !moved && self.rows.is_empty() {
            return None;
        }
        let mut bytes = Vec::new();
        let batches = self.rows.take((tip != self.told.tip).then_some(tip), &mut bytes);
        let heights = |above: u32, to: u32| (above + 1..=to).filter_map(|height| self.table.at(height));
        let change = ChainChange {
            fork_height: self.told.fork,
            added: heights(self.told.fork, tip.height).cloned().collect(),
            confirmed_height: tip.confirmed_height,
            confirmed: heights(self.told.confirmed, tip.confirmed_height).map(|record| record.id).collect(),
            bytes,
            payouts: (self.told.payouts != tip.confirmed_id).then(|| Arc::clone(&self.payouts)),
        };
        self.told = Told::of(tip);
        Some((change, batches))
    }

    /// Whether the index agrees with itself. For tests, invariants and `check`.
    pub fn sanity_check(&self) -> Result<(), String> {
        self.table.sanity_check()?;
        self.side.sanity_check()?;
        let tip = self.tip();
        if self.candidates.is_empty() && self.side.near_len() > SIDE_MAX {
            return Err(format!("{} shares beside the best chain", self.side.near_len()));
        }
        for (live, height) in self.candidates.iter().zip(self.confirmed_height() + 1..) {
            if self.table.at(height).is_none_or(|record| !Arc::ptr_eq(record, &live.record)) {
                return Err(format!("candidate {} is not at height {height} of the best chain", live.record.id));
            }
        }
        for record in self.side.iter().map(|live| &live.record) {
            let parent = self.get(&record.parent).ok_or_else(|| format!("side share {} has no parent", record.id))?;
            if parent.height + 1 != record.height || record.score > tip.score || self.table.get(&record.id).is_some() {
                return Err(format!("side share {} at height {}, score {}", record.id, record.height, record.score));
            }
        }
        if let Some(id) = self.invalid.keys().find(|id| self.get(id).is_some()) {
            return Err(format!("{id} is invalid and in the index"));
        }
        if self.payouts.parent != self.confirmed_tip().id {
            return Err(format!("payouts of {}, confirmed tip {}", self.payouts.parent, self.confirmed_tip().id));
        }
        Ok(())
    }

    /// Puts a share that passed every check but the rebuilding of its coinbase where it belongs.
    fn take_in(&mut self, record: Arc<Record>, share: Arc<Share>, source: Source) -> Offer {
        let id = record.id;
        let far = record.score.saturating_add(self.tip().demand.saturating_mul(SPAM_DEPTH)) < self.tip().score;
        let of_sync = matches!(source, Source::Bulk(peer) if self.syncing == Some(peer));
        if far && !of_sync {
            return Offer::Dropped("too far below the tip");
        }
        self.arrivals += 1;
        // What a sync brings is kept apart: where our tip is hard, thousands of its shares are near it.
        let live = Live { record, unproven: Some(share), row: false, scratch: of_sync, seen: self.arrivals };
        if self.side.is_full_for(&live) {
            return Offer::Dropped("no room in the scratch of the sync");
        }
        let no_room = self.side.near_len() >= SIDE_MAX && !self.candidates.is_empty();
        if !of_sync && no_room && !score::displaces(live.record.score, self.tip().score) {
            return Offer::Dropped("too many shares beside the best chain");
        }
        self.side.insert(live);
        if source == Source::Own || of_sync {
            self.write(id, source == Source::Own);
        }
        self.select();
        if self.get(&id).is_some() { Offer::Taken } else { Offer::Dropped("too many shares beside the best chain") }
    }

    /// Checks a share against its parent and what is below it; gives the work of the easiest target that was allowed to it.
    fn check_context(&self, share: &Share, parent: &Arc<Record>) -> Result<u128, RuleError> {
        // The parent first, then its ancestors.
        let mut below = std::iter::successors(Some(parent), |record| self.get(&record.parent));
        let newest: Vec<u32> = below.clone().take(MEDIAN_SPAN).map(|record| record.time).collect();
        let excess = below.nth(EXCESS_DELAY as usize - 1).map_or(0, |record| score::excess(record));
        let derived = check_context(self.params, share, parent, excess, difficulty::median_time(&newest))?;
        Ok(derived.demand)
    }

    /// Makes the best of the side shares the tip, if it is better than ours; then drops what is too much beside it. Where a bad branch has
    /// hidden it, one of equal score may have been seen before ours.
    fn select(&mut self) {
        let (score, seen) = (self.tip().score, self.seen.last().copied().unwrap_or(0));
        let is_better = |live: &&Live| score::displaces(live.record.score, score) || (live.record.score == score && live.seen < seen);
        let better = self.side.best().filter(is_better).map(|live| live.record.id);
        if let Some(id) = better {
            self.adopt(id);
        }
        self.trim();
    }

    /// Drops what is too much beside the best chain, but not before that chain is confirmed: until then the one that lost may be needed
    /// again, and work that pays nobody must not delete work that paid.
    fn trim(&mut self) {
        if self.candidates.is_empty() {
            for live in self.side.take_excess() {
                self.forget(&live);
            }
        }
    }

    /// Makes a side share the tip: its branch goes up to where it parts from the best chain, and what stood there comes beside it.
    fn adopt(&mut self, id: ShareId) {
        let mut at = id;
        let mut branch = Vec::new();
        while let Some(live) = self.side.take(&at) {
            at = live.record.parent;
            branch.push(live);
        }
        let fork = self.table.get(&at).map_or(0, |record| record.height);
        for live in self.cut(fork) {
            self.side.insert(live);
        }
        for mut live in branch.into_iter().rev() {
            live.scratch = false;
            self.write_row(&mut live, false);
            self.table.push(Arc::clone(&live.record));
            self.seen.push(live.seen);
            self.candidates.push_back(live);
        }
    }

    /// Cuts the best chain above a height; the window goes back with the confirmed tip.
    fn cut(&mut self, fork: u32) -> Vec<Live> {
        let confirmed = self.confirmed_height();
        let first_cut = fork.saturating_sub(confirmed) as usize;
        let unconfirmed = self.candidates.split_off(first_cut.min(self.candidates.len()));
        for height in (fork..confirmed).rev() {
            if let Some(tip) = self.table.at(height) {
                self.window.pop(self.params, tip, |height| level(&self.table, height));
            }
        }
        let seen = self.seen.split_off(fork as usize);
        let settled = self.table.cut(fork).into_iter().zip(seen).take(confirmed.saturating_sub(fork) as usize);
        let settled = settled.map(|(record, seen)| Live { record, unproven: None, row: true, scratch: false, seen });
        let cut = settled.chain(unconfirmed).collect();
        if fork < confirmed {
            self.payouts = Arc::new(Payouts::new(self.table.tip(), &self.window));
        }
        self.told.fork = self.told.fork.min(fork);
        self.told.confirmed = self.told.confirmed.min(fork);
        cut
    }

    /// The lowest candidate is confirmed.
    fn settle(&mut self) {
        if let Some(live) = self.candidates.pop_front() {
            self.window.push(self.params, &live.record, |height| level(&self.table, height));
            self.payouts = Arc::new(Payouts::new(&live.record, &self.window));
            self.trim();
        }
    }

    /// The coinbase of the lowest candidate is not what its parent dictates. Where that breaks a rule on tied fields, the share is invalid;
    /// in layout front it counts as not tied, and nothing is recorded (SHARECHAIN §1). What builds on it goes with it.
    fn condemn(&mut self, error: RuleError) {
        let Some(bad) = self.candidates.front() else { return };
        let (id, height) = (bad.record.id, bad.record.height);
        self.condemned.push((id, error.reason()));
        for live in self.cut(height.saturating_sub(1)) {
            self.side.insert(live);
        }
        for live in self.side.take_branch(id) {
            self.forget(&live);
            match error {
                RuleError::Broken(why) if live.record.id == id => self.mark_invalid(id, why),
                RuleError::Broken(_) => self.mark_invalid(live.record.id, BUILDS_ON_INVALID),
                RuleError::Untied(_) => continue,
            };
        }
        self.select();
    }

    /// Writes a side share's row, with those of its ancestors beside the best chain, without which it could not be found again.
    fn write(&mut self, id: ShareId, own: bool) {
        let mut at = id;
        while let Some(mut live) = self.side.take(&at) {
            let done = live.row;
            self.write_row(&mut live, own && at == id);
            at = live.record.parent;
            self.side.insert(live);
            if done {
                break;
            }
        }
    }

    fn write_row(&mut self, live: &mut Live, own: bool) {
        // A share without its bytes was confirmed once, so its row is written.
        if let Some(share) = live.unproven.as_ref().filter(|_| !live.row) {
            self.rows.put(live.record.height, live.record.id, share.encode(), own);
            live.row = true;
        }
    }

    fn forget(&mut self, live: &Live) {
        if live.row {
            self.rows.delete(live.record.height, live.record.id);
        }
    }

    fn refuse(&mut self, id: ShareId, error: RuleError) -> Offer {
        match error {
            RuleError::Untied(why) => Offer::Bad(why),
            RuleError::Broken(why) => self.mark_invalid(id, why),
        }
    }

    /// Remembers that a tied share breaks a rule; the oldest such memory goes when there are too many.
    fn mark_invalid(&mut self, id: ShareId, why: &'static str) -> Offer {
        if self.invalid.insert(id, why).is_none() {
            self.invalid_order.push_back(id);
        }
        if self.invalid_order.len() > INVALID_MAX {
            let oldest = self.invalid_order.pop_front();
            oldest.map(|id| self.invalid.remove(&id));
        }
        Offer::Invalid(why)
    }

    fn tip_row(&self) -> TipRow {
        let (tip, confirmed) = (self.tip(), self.confirmed_tip());
        TipRow { height: tip.height, id: tip.id, confirmed_height: confirmed.height, confirmed_id: confirmed.id }
    }
}

/// Why a share is invalid that breaks no rule itself.
const BUILDS_ON_INVALID: &str = "it builds on an invalid share";

/// A height of the chain as the window counts it.
fn level(table: &Table, height: u32) -> Level {
    table.at(height).map_or(Level { work: 0, credits: Vec::new() }, |record| Level::of(record))
}

impl Told {
    fn of(tip: TipRow) -> Told {
        Told { tip, payouts: tip.confirmed_id, fork: tip.height, confirmed: tip.confirmed_height }
    }
}
