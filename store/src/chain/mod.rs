//! The organiser's index: which shares there are, which of them are the best chain, up to where it is confirmed.
//!
//! *Candidate*: the best chain of tied shares. *Confirmed*: its prefix whose coinbases were rebuilt from the payouts that their parents
//! dictate.
//!
//! | file | what |
//! |---|---|
//! | here | what it is asked, what it tells |
//! | `offer` | the judgement of one share |
//! | `branch` | which branch is the best |
//! | `confirm` | coinbases rebuilt, of the best chain and beside it |
//! | `base` | where it begins |
//! | `side` | shares beside the best chain |
//! | `upon` | the share that work builds on |
//! | `rows`, `open` | the disk |

mod base;
mod branch;
mod confirm;
#[cfg(test)]
mod model;
mod offer;
mod open;
mod rows;
mod side;
#[cfg(test)]
mod tests;
mod upon;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rockpool_net::id::{ConnId, ShareId};

use crate::bitcoin::{Block, Tree};
use crate::limits::{INVALID_MAX, SIDE_MAX};
use crate::organised::{Beside, ChainChange};
use crate::params::Params;
use crate::payouts::Payouts;
use crate::record::{Record, Scripts};
use crate::rules::share::RuleError;
use crate::rules::window::{Level, Window};
use crate::schema::{self, TipRow};
use crate::table::{Keyed, Table};
use crate::view::ChainView;

pub use offer::{Blocks, Offer, Source};
pub use open::bitcoin_tree;
pub use rows::Batch;
use rows::Rows;
use side::{Live, Named, Side};

/// The index of the share chain. One owner, no clock, no disk.
#[derive(Debug)]
pub struct Chain {
    params: &'static Params,
    keyed: Keyed,
    /// Bitcoin's headers, as far down as shares build on them.
    bitcoin: Tree,
    scripts: Scripts,
    /// The best chain, candidates included.
    table: Table,
    /// When its shares arrived, from the height above the lowest up.
    seen: Vec<u64>,
    /// Its shares above the confirmed height, ascending.
    candidates: VecDeque<Live>,
    /// Shares beside the best chain.
    side: Side,
    /// Uncles credited near the confirmed tip, and those around a base, whose own places are not known.
    credited: BTreeMap<ShareId, Named>,
    /// Shares beside the best chain, by height, whose coinbases are to be rebuilt since they may become uncles.
    unproven: BTreeSet<(u32, ShareId)>,
    /// Tied shares that break a rule, newest last, and why. A forgotten one is judged anew when it comes again.
    invalid: BTreeMap<ShareId, &'static str>,
    invalid_order: VecDeque<ShareId>,
    /// Shares whose coinbase was rebuilt and does not match, since they were last asked for.
    condemned: Vec<(ShareId, RuleError)>,
    window: Window,
    /// Payouts at the confirmed tip and the newest shares below it, ascending, and whether their windows are whole (SPEC, BASE-3).
    payouts: VecDeque<(Arc<Payouts>, bool)>,
    /// Payouts at the share that work builds on, if it is not the confirmed tip.
    upon: Option<Arc<Payouts>>,
    syncing: Option<ConnId>,
    /// Counts arrivals.
    arrivals: u64,
    rows: Rows,
    told: Told,
    /// What [`Chain::take_change`] will tell beside the best chain's own changes.
    news: News,
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

/// What has happened beside the best chain since the last change was told.
#[derive(Debug, Default)]
struct News {
    /// Shares beside the best chain that were proved.
    beside: Vec<ShareId>,
    /// Bitcoin headers.
    blocks: Vec<Arc<Block>>,
    /// Those that shares of the chain build on, each with the number of headers that were new then.
    held: Vec<(usize, [u8; 32])>,
    /// The lowest share is another one.
    base: bool,
    /// Bitcoin headers below this height are forgotten.
    blocks_below: Option<u32>,
    /// Work builds on another share, whatever the confirmed tip is.
    upon: bool,
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

    /// The lowest share that is kept: genesis, or where the chain was begun or cut off.
    pub fn lowest(&self) -> &Arc<Record> {
        self.table.lowest()
    }

    /// The best chain's share at a height.
    pub fn at_height(&self, height: u32) -> Option<&Arc<Record>> {
        self.table.at(height)
    }

    /// Shares of the best chain whose coinbases are still to be rebuilt.
    pub fn backlog(&self) -> usize {
        self.candidates.len()
    }

    /// Whether there is a coinbase to rebuild, on the best chain or beside it.
    pub fn has_unproven(&self) -> bool {
        !(self.candidates.is_empty() && self.unproven.is_empty())
    }

    /// Payouts at the confirmed tip.
    pub fn payouts(&self) -> &Arc<Payouts> {
        // One is pushed with the first share and none is ever the last to be taken.
        &self.payouts[self.payouts.len() - 1].0
    }

    /// Bitcoin's headers.
    pub fn bitcoin(&self) -> &Tree {
        &self.bitcoin
    }

    /// The record of a share, on the best chain or beside it.
    pub fn get(&self, id: &ShareId) -> Option<&Arc<Record>> {
        self.table.get(id).or_else(|| self.side.get(id).map(|live| &live.record))
    }

    /// Whether the best chain credits this share as an uncle.
    pub fn credits(&self, id: &ShareId) -> bool {
        self.table.uncle_height(id).is_some()
    }

    /// Shares beside the best chain.
    pub fn side_len(&self) -> usize {
        self.side.len()
    }

    /// The window of shares that are paid at the confirmed tip.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// The reactor's view of what the chain is now.
    pub fn view(&self) -> ChainView {
        let mut view =
            ChainView::new(self.table.clone(), self.confirmed_height(), Arc::clone(self.payouts()), self.bitcoin.clone(), self.keyed);
        view.put_beside(&self.beside(self.side.iter().filter(|live| live.proven).map(|live| live.record.id)));
        view
    }

    /// The shares that [`confirm`](Chain::confirm) found wanting since the last call, and why: for the log.
    pub fn take_condemned(&mut self) -> Vec<(ShareId, RuleError)> {
        std::mem::take(&mut self.condemned)
    }

    /// What changed since the last call, for the reactor's view, and the batches that bring the disk there, in the order in which they
    /// must be written. `None` if nothing did. An own share that was taken but is in no batch was found wanting since.
    pub fn take_change(&mut self) -> Option<(ChainChange, Vec<Batch>)> {
        let tip = self.tip_row();
        let moved = tip != self.told.tip || self.told.fork < self.told.tip.height;
        if !moved && self.rows.is_empty() && self.news.is_empty() {
            return None;
        }
        let News { beside, blocks, held, base, blocks_below, .. } = std::mem::take(&mut self.news);
        let mut ends = Vec::new();
        if base {
            let lowest = self.lowest();
            ends.push(if lowest.height == 0 { schema::delete_base() } else { schema::put_base(lowest.height, &lowest.id) });
        }
        if base || tip != self.told.tip {
            ends.push(tip.put());
        }
        let mut bytes = Vec::new();
        let batches = self.rows.take(ends, &mut bytes);
        // What was told last may lie below what is kept by now.
        let fork = self.told.fork.max(self.lowest().height);
        let heights = |above: u32, to: u32| (above + 1..=to).filter_map(|height| self.table.at(height));
        let change = ChainChange {
            base: base.then(|| Arc::clone(self.lowest())),
            fork_height: fork,
            added: heights(fork, tip.height).cloned().collect(),
            confirmed_height: tip.confirmed_height,
            confirmed: heights(self.told.confirmed, tip.confirmed_height).map(|record| record.id).collect(),
            bytes,
            payouts: (self.told.payouts != tip.confirmed_id).then(|| Arc::clone(self.payouts())),
            upon: self.upon.clone(),
            beside: self.beside(beside.into_iter()),
            blocks,
            held,
            blocks_below,
        };
        self.told = Told::of(tip);
        Some((change, batches))
    }

    /// Whether the index agrees with itself. For tests, invariants and `check`.
    pub fn sanity_check(&self) -> Result<(), String> {
        self.table.sanity_check()?;
        self.side.sanity_check()?;
        self.bitcoin.sanity_check()?;
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
        if self.payouts().parent != self.confirmed_tip().id {
            return Err(format!("payouts of {}, confirmed tip {}", self.payouts().parent, self.confirmed_tip().id));
        }
        if self.seen.len() as u32 != tip.height - self.lowest().height {
            return Err(format!("{} arrivals, {} heights", self.seen.len(), tip.height - self.lowest().height));
        }
        Ok(())
    }

    /// Those of these that are beside the best chain, with their bytes where no row holds them.
    fn beside(&self, ids: impl Iterator<Item = ShareId>) -> Vec<Beside> {
        let lives = ids.filter_map(|id| self.side.get(&id));
        lives.map(|live| Beside { record: Arc::clone(&live.record), bytes: live.bytes.clone() }).collect()
    }

    /// Remembers that a tied share breaks a rule; the oldest such memory goes when there are too many.
    fn mark_invalid(&mut self, id: ShareId, why: &'static str) {
        if self.invalid.insert(id, why).is_none() {
            self.invalid_order.push_back(id);
        }
        if self.invalid_order.len() > INVALID_MAX {
            let oldest = self.invalid_order.pop_front();
            oldest.map(|id| self.invalid.remove(&id));
        }
    }

    /// The Bitcoin header that this share builds on is never pushed out by others (SPEC, BTC-4).
    fn hold(&mut self, record: &Record) {
        let hash = record.bitcoin.hash;
        // What is not in the tree any more is held by no tree that follows this one either.
        if self.bitcoin.get(&hash).is_some() && !self.bitcoin.is_held(&hash) {
            self.bitcoin.hold(&hash);
            self.news.held.push((self.news.blocks.len(), hash));
        }
    }

    fn tip_row(&self) -> TipRow {
        let (tip, confirmed) = (self.tip(), self.confirmed_tip());
        TipRow { height: tip.height, id: tip.id, confirmed_height: confirmed.height, confirmed_id: confirmed.id }
    }
}

/// Why a share is invalid that breaks no rule itself.
const BUILDS_ON_INVALID: &str = "it builds on an invalid share, or credits one";

/// A height of the chain as the window counts it.
fn level(table: &Table, height: u32) -> Level {
    table.at(height).map_or(Level::NONE, |record| Level::of(record))
}

impl Told {
    fn of(tip: TipRow) -> Told {
        Told { tip, payouts: tip.confirmed_id, fork: tip.height, confirmed: tip.confirmed_height }
    }
}

impl News {
    fn is_empty(&self) -> bool {
        self.beside.is_empty() && self.blocks.is_empty() && !self.base && self.blocks_below.is_none() && !self.upon
    }
}
