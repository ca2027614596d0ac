//! Where the chain begins: at genesis, at the base share of a node that began in the middle, or at the oldest height that is kept.

use std::collections::VecDeque;
use std::sync::Arc;

use rockpool_net::id::ShareId;
use rockpool_net::wire::share::Share;

use super::side::Side;
use super::{Chain, Offer};
use crate::limits::{BASE_HEIGHT_MAX, BITCOIN_BELOW, KEPT_SLACK};
use crate::payouts::Payouts;
use crate::record::{Place, Record};
use crate::rules::share::{RuleError, check_alone};
use crate::rules::window::Window;
use crate::table::Table;

impl Chain {
    /// Begins the chain anew with a base share, whose own place is taken as given (SPEC, BASE-1): only a chain of genesis alone can.
    pub fn begin_at(&mut self, share: &Share) -> Offer {
        if self.tip().height > 0 || share.height == 0 {
            return Offer::Dropped("a chain that has begun takes no base");
        }
        let id = match check_alone(self.params, share) {
            Ok(id) => id,
            Err(RuleError::Untied(why) | RuleError::Broken(why)) => return Offer::Bad(why),
        };
        if share.version != self.params.version_at(share.height) || share.lead > self.params.lead_max_s || share.height > BASE_HEIGHT_MAX {
            return Offer::Bad("BASE-1: the base share's version, lead or height cannot be");
        }
        let Some(bitcoin) = self.bitcoin.get(&share.bitcoin_prev()).cloned() else {
            return Offer::Pending { missing: ShareId(share.bitcoin_prev()) };
        };
        let script = self.scripts.shared(&share.script);
        let place = Place { allowed_bits: share.bits, best_bitcoin: None, script, bitcoin, uncles: Vec::new() };
        self.forget_all();
        self.rows.put(share.height, id, share.encode().into(), false);
        self.begin_with(Arc::new(place.record(share, id)));
        Offer::Taken
    }

    /// Gives up a chain that was begun with a base share: genesis is all there is again. For a peer's chain that ended below its claim.
    pub fn begin_anew(&mut self) {
        self.forget_all();
        self.begin_with(Arc::new(self.params.genesis_record()));
    }

    /// Deletes the rows of everything.
    fn forget_all(&mut self) {
        let lowest = Arc::clone(self.lowest());
        self.unproven.clear();
        self.credited.clear();
        self.candidates.clear();
        let all: Vec<Arc<Record>> = std::iter::once(lowest).chain(self.table.above(0).iter().cloned()).collect();
        for live in std::mem::take(&mut self.side).iter() {
            self.delete_with_uncles(&live.record);
        }
        all.iter().filter(|record| record.height > 0).for_each(|record| self.delete_with_uncles(record));
    }

    fn delete_with_uncles(&mut self, record: &Record) {
        self.rows.delete(record.height, record.id);
        record.uncles().iter().for_each(|uncle| self.rows.delete(uncle.height, uncle.id));
    }

    /// A chain of one share.
    pub(super) fn begin_with(&mut self, lowest: Arc<Record>) {
        self.hold(&lowest);
        self.window = Window::new(lowest.height);
        self.payouts = VecDeque::from([(Arc::new(Payouts::new(&lowest, &self.window)), lowest.height == 0)]);
        self.table = Table::new(Arc::clone(&lowest), self.keyed);
        self.seen.clear();
        self.side = Side::default();
        (self.told.fork, self.told.confirmed) = (lowest.height, lowest.height);
        self.news.base = true;
        self.news.beside.clear();
    }

    /// Deletes what is older than what is kept, many heights at a time.
    pub(super) fn keep(&mut self) {
        let (lowest, confirmed) = (self.lowest().height, self.confirmed_height());
        if confirmed - lowest <= self.params.kept + KEPT_SLACK {
            return;
        }
        let base = confirmed - self.params.kept;
        for live in self.side.take_below(base) {
            self.forget(&live);
        }
        let below = self.table.raise(base);
        self.window.raise(base);
        self.seen.drain(..below.len());
        for record in below {
            if record.height > 0 {
                self.rows.delete(record.height, record.id);
            }
            record.uncles().iter().for_each(|uncle| self.rows.delete(uncle.height, uncle.id));
        }
        let lowest = Arc::clone(self.lowest());
        lowest.uncles().iter().for_each(|uncle| self.rows.delete(uncle.height, uncle.id));
        self.news.base = true;
        let below = lowest.bitcoin.height.saturating_sub(BITCOIN_BELOW);
        self.forget_blocks(below);
    }

    /// Forgets Bitcoin headers below this height, as far as none are asked for.
    pub(super) fn forget_blocks(&mut self, below: u32) {
        let forgotten = self.bitcoin.prune(below);
        if !forgotten.is_empty() {
            forgotten.iter().for_each(|block| self.rows.delete_block(block));
            // As it came out: who follows must not weigh it against what is known by the end of the change.
            self.news.blocks_below = self.bitcoin.root().map(|root| root.height);
        }
    }
}
