//! Which branch is the best: adopted when it is better than ours, cut when another is. What lost stays beside the chain for a while.

use std::sync::Arc;

use rockpool_net::id::{ConnId, ShareId};

use super::{Chain, Live, level};
use crate::limits::{CREDITED_DEPTH, REACH, UNCLE_DEPTH};
use crate::record::Record;
use crate::rules::score;
use crate::rules::window::wanted_work;

impl Chain {
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
        for mut live in self.side.take_scratch() {
            // Others may build on an uncle that was credited a moment ago.
            if self.is_recent_uncle(&live.record) && self.get(&live.record.parent).is_some() {
                live.scratch = false;
                self.put_beside(live);
            } else {
                self.forget(&live);
            }
        }
    }

    /// Puts a share beside the best chain. If it may become an uncle there, its coinbase is rebuilt when there is time.
    pub(super) fn put_beside(&mut self, live: Live) {
        let near = live.record.height + UNCLE_DEPTH > self.confirmed_height();
        if near && !live.proven && !live.scratch {
            self.unproven.insert((live.record.height, live.record.id));
        }
        if live.proven {
            // It may have been confirmed and cut since the last change was told: then the view has never seen that it is good.
            self.news.beside.push(live.record.id);
        }
        self.side.insert(live);
    }

    /// Makes the best of the side shares the tip, if it is better than ours; then drops what is too much beside it. Where a bad branch has
    /// hidden it, one of equal score may have been seen before ours (SPEC, SCORE-3).
    pub(super) fn select(&mut self) {
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
    pub(super) fn trim(&mut self) {
        if self.candidates.is_empty() {
            for live in self.side.take_excess() {
                self.forget(&live);
            }
        }
    }

    /// Whether the best chain credits it, so high that shares which build on it may be credited too (SPEC, UNC-4).
    pub(super) fn is_recent_uncle(&self, record: &Record) -> bool {
        record.height + REACH as u32 >= self.confirmed_height() && self.table.uncle_height(&record.id).is_some()
    }

    /// Uncles that were credited long ago stay in their rows, and take no room beside the chain from others: those of the share that has
    /// just come so deep below the confirmed tip.
    pub(super) fn drop_old_uncles(&mut self) {
        let deep = self.confirmed_height().checked_sub(CREDITED_DEPTH);
        let Some(nephew) = deep.and_then(|height| self.table.at(height)).cloned() else { return };
        for uncle in nephew.uncles() {
            if self.side.get(&uncle.id).is_some_and(|live| live.row) && !self.side.has_children(&uncle.id) {
                self.side.take(&uncle.id);
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
        let fork = self.table.get(&at).map_or(self.lowest().height, |record| record.height);
        for live in self.cut(fork) {
            self.put_beside(live);
        }
        for mut live in branch.into_iter().rev() {
            live.scratch = false;
            self.hold(&live.record);
            self.write_row(&mut live, false);
            for uncle in &live.uncles {
                self.credited.insert(uncle.record.id, uncle.clone());
            }
            self.table.push(Arc::clone(&live.record));
            self.seen.push(live.seen);
            self.candidates.push_back(live);
        }
    }

    /// Cuts the best chain above a height; the window goes back with the confirmed tip.
    pub(super) fn cut(&mut self, fork: u32) -> Vec<Live> {
        let confirmed = self.confirmed_height();
        let first_cut = fork.saturating_sub(confirmed) as usize;
        let unconfirmed = self.candidates.split_off(first_cut.min(self.candidates.len()));
        for height in (fork..confirmed).rev() {
            if let Some(tip) = self.table.at(height) {
                let wanted = wanted_work(self.params, tip);
                self.window.pop(self.params, wanted, |height| level(&self.table, height));
            }
        }
        let seen = self.seen.split_off((fork - self.lowest().height) as usize);
        let settled = self.table.cut(fork).into_iter().zip(seen).take(confirmed.saturating_sub(fork) as usize);
        let settled =
            settled.map(|(record, seen)| Live { record, bytes: None, proven: true, uncles: Vec::new(), row: true, scratch: false, seen });
        let cut = settled.chain(unconfirmed).collect();
        if fork < confirmed {
            self.payouts.retain(|(payouts, _)| payouts.parent_height <= fork);
            if self.payouts.is_empty() {
                self.payouts.push_back(self.payouts_of_window());
            }
        }
        self.told.fork = self.told.fork.min(fork);
        self.told.confirmed = self.told.confirmed.min(fork);
        cut
    }

    /// Writes a side share's row, with those of its ancestors beside the best chain, without which it could not be found again.
    pub(super) fn write(&mut self, id: ShareId, own: bool) {
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

    /// Writes a share's row, and those of the uncles it names, without which nobody could judge it.
    fn write_row(&mut self, live: &mut Live, own: bool) {
        // A share without its bytes was confirmed once, so its row is written.
        let Some(bytes) = live.bytes.as_ref().filter(|_| !live.row) else { return };
        for uncle in &live.uncles {
            if let Some(bytes) = &uncle.bytes {
                self.rows.put(uncle.record.height, uncle.record.id, Arc::clone(bytes), false);
            }
            if let Some(beside) = self.side.get_mut(&uncle.record.id) {
                beside.row = true;
            }
        }
        self.rows.put(live.record.height, live.record.id, Arc::clone(bytes), own);
        live.row = true;
    }

    /// A share is beside the best chain no more. Its row goes, and those of the uncles it named, unless others need them.
    pub(super) fn forget(&mut self, live: &Live) {
        self.unproven.remove(&(live.record.height, live.record.id));
        if live.row {
            self.delete_row(live.record.height, live.record.id);
            for uncle in live.record.uncles() {
                if self.side.get(&uncle.id).is_none_or(|beside| !beside.row) {
                    self.delete_row(uncle.height, uncle.id);
                }
            }
        }
    }

    fn delete_row(&mut self, height: u32, id: ShareId) {
        let needed = self.table.get(&id).is_some() || self.table.uncle_height(&id).is_some() || self.side.names(&id);
        if !needed {
            self.rows.delete(height, id);
            // Where the row was all that was left of it, whoever credits it next has to bring it again.
            if self.credited.get(&id).is_some_and(|named| named.bytes.is_none()) {
                self.credited.remove(&id);
            }
        }
    }
}
