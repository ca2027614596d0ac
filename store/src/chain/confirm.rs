//! Coinbases rebuilt: of the best chain, whose confirmed part grows by it, and of shares beside it, which may become uncles.

use std::sync::Arc;

use rockpool_net::id::ShareId;
use rockpool_net::wire::share::Share;

use super::{BUILDS_ON_INVALID, Chain, level};
use crate::limits::{CREDITED_DEPTH, PAYOUTS_RECENT, PROVE_MAX, REACH, SIDE_MAX};
use crate::payouts::Payouts;
use crate::record::Record;
use crate::rules::share::{RuleError, check_coinbase};
use crate::rules::window::{Level, wanted_work};

impl Chain {
    /// Rebuilds the coinbases of at most this many shares: candidates above the confirmed height, and when there are none, shares beside
    /// the best chain. Returns how many it did.
    pub fn confirm(&mut self, at_most: usize) -> usize {
        for done in 0..at_most {
            if self.candidates.is_empty() {
                let Some((_, id)) = self.unproven.pop_first() else { return done };
                self.prove_beside(id);
                continue;
            }
            match self.prove_candidate() {
                Ok(()) => self.settle(),
                Err((id, error)) => self.condemn(id, error),
            }
        }
        at_most
    }

    /// The lowest candidate and the uncles it names (SPEC, COIN-9, UNC-5).
    fn prove_candidate(&self) -> Result<(), (ShareId, RuleError)> {
        let Some(candidate) = self.candidates.front() else { return Ok(()) };
        let prove = |record: &Record, bytes: &[u8], branch: &[Arc<Record>]| {
            let proved =
                self.prove(record, bytes, branch).unwrap_or(Err(RuleError::Untied("UNC-4: nothing is known of its parent any more")));
            proved.map_err(|error| (record.id, error))
        };
        let mut uncles: Vec<_> = candidate.uncles.iter().collect();
        uncles.sort_unstable_by_key(|uncle| uncle.record.height);
        for uncle in uncles {
            let proven = uncle.proven || self.side.get(&uncle.record.id).is_some_and(|live| live.proven);
            if let Some(bytes) = uncle.bytes.as_ref().filter(|_| !proven) {
                prove(&uncle.record, bytes, &uncle.branch)?;
            }
        }
        match candidate.bytes.as_ref().filter(|_| !candidate.proven) {
            Some(bytes) => prove(&candidate.record, bytes, &[]),
            None => Ok(()),
        }
    }

    /// Rebuilds the coinbase of a share whose ancestors are proved. `branch` is what is known to lie
    /// between it and the confirmed chain. `None` if nobody can say what it must be: its branch is too long.
    fn prove(&self, record: &Record, bytes: &[u8], branch: &[Arc<Record>]) -> Option<Result<(), RuleError>> {
        let Ok(share) = Share::decode(bytes) else { return Some(Err(RuleError::Untied("ENC-1: its encoding does not decode"))) };
        let (payouts, whole) = match self.payouts_at(&record.parent, branch) {
            Some(payouts) => payouts,
            // An uncle near a base, whose parent is not kept.
            None if record.height <= self.lowest().height + REACH as u32 && self.lowest().height > 0 => return Some(Ok(())),
            None => return None,
        };
        // BASE-3: so near to a base nobody can tell what its parent dictates.
        Some(if whole { check_coinbase(self.params, &share, &payouts) } else { Ok(()) })
    }

    /// Payouts at a share of the confirmed chain, or near it, and whether its window is whole.
    pub(super) fn payouts_at(&self, id: &ShareId, known: &[Arc<Record>]) -> Option<(Arc<Payouts>, bool)> {
        if let Some(payouts) = self.payouts.iter().rev().find(|(payouts, _)| payouts.parent == *id) {
            return Some(payouts.clone());
        }
        // Down to where its branch parts from the confirmed chain, and up along it.
        let mut branch: Vec<&Arc<Record>> = Vec::new();
        let mut at = id;
        let fork = loop {
            if let Some(record) = self.table.get(at).filter(|record| record.height <= self.confirmed_height()) {
                break record.height;
            }
            let record = known.iter().find(|record| record.id == *at).or_else(|| self.side.get(at).map(|live| &live.record));
            let record = record.filter(|_| branch.len() < PROVE_MAX)?;
            branch.push(record);
            at = &record.parent;
        };
        let mut window = self.window.clone();
        for height in (fork..self.confirmed_height()).rev() {
            let tip = self.table.at(height)?;
            window.pop(self.params, wanted_work(self.params, tip), |height| level(&self.table, height));
        }
        for record in branch.iter().rev() {
            let of_branch = |height: u32| branch.iter().find(|record| record.height == height);
            let level = |height: u32| match of_branch(height) {
                Some(record) if height > fork => Level::of(record),
                _ => level(&self.table, height),
            };
            window.push(self.params, wanted_work(self.params, record), level);
        }
        let parent = branch.first().copied().or_else(|| self.table.at(fork))?;
        Some((Arc::new(Payouts::new(parent, &window)), window.is_whole(self.params)))
    }

    /// The lowest candidate is confirmed.
    fn settle(&mut self) {
        let Some(live) = self.candidates.pop_front() else { return };
        live.uncles.iter().map(|uncle| &uncle.record).chain([&live.record]).for_each(|record| self.hold(record));
        let wanted = wanted_work(self.params, &live.record);
        self.window.push(self.params, wanted, |height| level(&self.table, height));
        self.payouts.push_back(self.payouts_of_window());
        if self.payouts.len() > PAYOUTS_RECENT {
            self.payouts.pop_front();
        }
        let confirmed = self.confirmed_height();
        self.credited.retain(|_, uncle| uncle.record.height + CREDITED_DEPTH > confirmed);
        self.keep();
        if self.side.near_len() >= SIDE_MAX {
            self.drop_old_uncles();
        }
        self.trim();
    }

    /// Payouts at the confirmed tip, made of its window, and whether that is whole.
    pub(super) fn payouts_of_window(&self) -> (Arc<Payouts>, bool) {
        (Arc::new(Payouts::new(self.confirmed_tip(), &self.window)), self.window.is_whole(self.params))
    }

    /// Rebuilds the coinbase of a share beside the best chain, all of which is confirmed.
    fn prove_beside(&mut self, id: ShareId) {
        let Some(live) = self.side.get(&id) else { return };
        let parent = &live.record.parent;
        // Not on a parent that is not proved itself: no share could credit it.
        let on_proven = self.table.get(parent).is_some() || self.side.get(parent).is_some_and(|parent| parent.proven);
        let uncles_proven = live.uncles.iter().all(|uncle| {
            let beside = self.side.get(&uncle.record.id).is_some_and(|live| live.proven);
            uncle.proven || beside || self.table.get(&uncle.record.id).is_some()
        });
        let Some(bytes) = live.bytes.clone().filter(|_| on_proven && uncles_proven) else { return };
        match self.prove(&Arc::clone(&live.record), &bytes, &[]) {
            // It waits, unproved, until its branch is the best: that it is too long for an uncle is no fault of it.
            None => {}
            Some(Ok(())) => {
                if let Some(live) = self.side.get_mut(&id) {
                    live.proven = true;
                    self.news.beside.push(id);
                }
            }
            Some(Err(error)) => self.taint(id, error),
        }
    }

    /// A coinbase that the lowest candidate stands on, its own or an uncle's, is not what the parent dictates.
    fn condemn(&mut self, id: ShareId, error: RuleError) {
        let Some(bad) = self.candidates.front() else { return };
        let height = bad.record.height;
        for live in self.cut(height.saturating_sub(1)) {
            self.put_beside(live);
        }
        self.taint(id, error);
        self.select();
    }

    /// Where a coinbase breaks a rule on tied fields, its share is invalid; in layout front it counts as not tied, and nothing is recorded
    /// (SHARECHAIN §1). What builds on it or credits it goes with it.
    fn taint(&mut self, id: ShareId, error: RuleError) {
        self.condemned.push((id, error));
        self.credited.remove(&id);
        if let RuleError::Broken(why) = error {
            self.mark_invalid(id, why);
        }
        for live in self.side.take_tainted(id) {
            self.forget(&live);
            if let RuleError::Broken(_) = error
                && live.record.id != id
            {
                self.mark_invalid(live.record.id, BUILDS_ON_INVALID);
            }
        }
    }
}
