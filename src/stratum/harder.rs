//! Harder by choice (SHARECHAIN §4): a script that makes many of the chain's shares makes fewer and heavier ones, so that large miners do
//! not push small ones out. Its work is paid all the same, and what it finds between its target and the easiest one is lost to nobody.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rockpool_net::id::ShareId;
use rockpool_net::wire::share::Script;
use rockpool_store::limits::HARDER_MAX_LOG2;
use rockpool_store::record::Record;
use rockpool_store::rules::target;
use rockpool_store::view::ChainView;

use crate::limits::{HARDER_EVERY, HARDER_PERCENT, HARDER_SCRIPTS_MAX, HARDER_SHARES_MIN, HARDER_SPAN};

/// How much harder than allowed this node makes the shares of each script.
#[derive(Debug, Default)]
pub struct Harder {
    recent: Recent,
    /// Of the scripts that were given harder bits, or lost them lately.
    chosen: BTreeMap<Script, Chosen>,
}

/// What was chosen for a script.
#[derive(Clone, Copy, Debug)]
struct Chosen {
    /// How often the allowed target is halved.
    halvings: usize,
    since: Duration,
}

impl Harder {
    /// The bits of this script's next job, where `allowed` are the easiest at the confirmed tip.
    pub fn bits(&mut self, now: Duration, view: &ChainView, script: &Script, allowed: u32) -> u32 {
        self.recent.follow(view);
        halved(allowed, self.halvings(now, script))
    }

    /// How often a script's target is halved: a step up at most every [`HARDER_EVERY`], and not before it made [`HARDER_SHARES_MIN`] of
    /// the newest shares; a step down no more often.
    fn halvings(&mut self, now: Duration, script: &Script) -> usize {
        let made = self.recent.made.get(script).copied().unwrap_or_default();
        let chosen = self.chosen.get(script);
        let (wanted, held) = (made.wanted(self.recent.shares.len() as u32), chosen.map_or(0, |chosen| chosen.halvings));
        if wanted == held || chosen.is_some_and(|chosen| now.saturating_sub(chosen.since) < HARDER_EVERY) {
            return held;
        }
        if wanted > held && made.shares < HARDER_SHARES_MIN {
            return held;
        }
        let halvings = if wanted > held { held + 1 } else { held - 1 };
        self.choose(now, *script, halvings);
        halvings
    }

    fn choose(&mut self, now: Duration, script: Script, halvings: usize) {
        self.chosen.retain(|_, chosen| chosen.halvings > 0 || now.saturating_sub(chosen.since) < HARDER_EVERY);
        // No more than thirty scripts can make so many shares at once; what is forgotten here begins anew.
        if self.chosen.len() >= HARDER_SCRIPTS_MAX
            && !self.chosen.contains_key(&script)
            && let Some(oldest) = self.chosen.iter().min_by_key(|(_, chosen)| chosen.since).map(|(script, _)| *script)
        {
            self.chosen.remove(&oldest);
        }
        self.chosen.insert(script, Chosen { halvings, since: now });
    }
}

/// The allowed target so many times halved: DIFF-6 allows up to four times.
fn halved(allowed: u32, halvings: usize) -> u32 {
    target::compact(target::target(allowed).unwrap_or_default() >> halvings.min(HARDER_MAX_LOG2))
}

/// What a script made of the newest shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Made {
    shares: u32,
    /// Shares that the same work would have made at the easiest targets.
    easy: u32,
}

impl Made {
    /// The fewest halvings with which the same work had made at most [`HARDER_PERCENT`] of the newest shares, of which there are `all`;
    /// four if none is enough. Judged by work, not by what it made: that follows an hour late, and a choice by it would swing.
    fn wanted(&self, all: u32) -> usize {
        let others = u64::from(all.saturating_sub(self.shares));
        let fits =
            |halvings: &usize| u64::from(self.easy) * u64::from(100 - HARDER_PERCENT) <= (others * u64::from(HARDER_PERCENT)) << halvings;
        (0..HARDER_MAX_LOG2).find(fits).unwrap_or(HARDER_MAX_LOG2)
    }
}

/// The newest shares of the confirmed chain, counted as they come and go.
#[derive(Debug, Default)]
struct Recent {
    /// Id, script and [`easy`], ascending by height.
    shares: VecDeque<(ShareId, Script, u32)>,
    /// Height of the last of them.
    top: u32,
    made: BTreeMap<Script, Made>,
}

impl Recent {
    /// Follows the confirmed tip: nothing to do while it stays, one share at each end when it grows by one.
    fn follow(&mut self, view: &ChainView) {
        let tip = view.confirmed_height();
        let holds = |height: u32, id: &ShareId| height <= tip && view.at_height(height).is_some_and(|record| record.id == *id);
        while let Some(&last) = self.shares.back()
            && !holds(self.top, &last.0)
        {
            self.shares.pop_back();
            self.leave(last);
            self.top -= 1;
        }
        let lowest = tip.saturating_sub(HARDER_SPAN as u32);
        if self.shares.is_empty() || self.top < lowest {
            *self = Recent { top: lowest, ..Recent::default() };
        }
        for record in (self.top + 1..=tip).filter_map(|height| view.at_height(height)) {
            let last = self.enter(record);
            self.shares.push_back(last);
        }
        self.top = tip;
        while self.shares.len() > HARDER_SPAN {
            let Some(first) = self.shares.pop_front() else { break };
            self.leave(first);
        }
        // After a reorg to a shorter branch older ones are among the newest again. Genesis, of height 0, is nobody's.
        while self.shares.len() < HARDER_SPAN
            && let Some(height @ 1..) = self.top.checked_sub(self.shares.len() as u32)
            && let Some(record) = view.at_height(height)
        {
            let first = self.enter(record);
            self.shares.push_front(first);
        }
    }

    fn enter(&mut self, record: &Record) -> (ShareId, Script, u32) {
        let (script, easy) = (record.script, easy(record));
        let made = self.made.entry(script).or_default();
        (made.shares, made.easy) = (made.shares + 1, made.easy + easy);
        (record.id, script, easy)
    }

    fn leave(&mut self, (_, script, easy): (ShareId, Script, u32)) {
        if let Some(made) = self.made.get_mut(&script) {
            (made.shares, made.easy) = (made.shares - 1, made.easy - easy);
            if made.shares == 0 {
                self.made.remove(&script);
            }
        }
    }
}

/// How many shares of the easiest target a share's work is worth.
fn easy(record: &Record) -> u32 {
    let rounded = record.work.saturating_add(record.demand / 2) / record.demand.max(1);
    rounded.clamp(1, 1 << HARDER_MAX_LOG2) as u32
}
