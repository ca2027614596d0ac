//! Who takes part beside selfish miners: honest ones, and those who play with targets, times, siblings and uncles.

use std::cell::Cell;

use rockpool::limits::{HARDER_EVERY, HARDER_PERCENT, HARDER_SHARES_MIN, HARDER_SPAN};
use rockpool_net::limits::UNCLES_MAX;
use rockpool_store::limits::{HARDER_MAX_LOG2, UNCLE_DEPTH};

use super::chain::Harder;
use super::world::{Plan, Strategy, View};

/// Does what a node does. `log2` is the power of two by which its targets are harder.
#[derive(Default)]
pub struct Honest {
    pub log2: usize,
}

impl Strategy for Honest {
    fn plan(&mut self, view: &View) -> Plan {
        Plan { parent: view.tip, time: view.honest_time(view.tip), harder: Harder::Times2(self.log2) }
    }
}

/// Harder by choice, as a node chooses it (`src/stratum/harder.rs`): so that the same work would have made at most 3 % of the newest 360
/// shares, a factor of two at most in ten minutes, never before it made 12.
#[derive(Default)]
pub struct Polite {
    log2: usize,
    /// When it may change next.
    next: u32,
}

impl Strategy for Polite {
    fn plan(&mut self, view: &View) -> Plan {
        if view.now >= self.next {
            let newest: Vec<usize> = view.tree.line(view.tip).take(HARDER_SPAN).collect();
            let own: Vec<_> = newest.iter().filter(|share| view.own(**share)).map(|share| view.tree.get(*share)).collect();
            let easy: f64 = own.iter().map(|share| (share.work as f64 / share.demand as f64).round()).sum();
            let (others, percent) = ((newest.len() - own.len()) as f64, f64::from(HARDER_PERCENT));
            let fits = |log2: &usize| easy * (100.0 - percent) <= others * percent * f64::from(1 << log2);
            let wanted = (0..HARDER_MAX_LOG2).find(fits).unwrap_or(HARDER_MAX_LOG2);
            let enough = own.len() >= HARDER_SHARES_MIN as usize;
            if wanted < self.log2 || wanted > self.log2 && enough {
                self.next = view.now + HARDER_EVERY.as_secs() as u32;
                self.log2 = if wanted > self.log2 { self.log2 + 1 } else { self.log2 - 1 };
            }
        }
        Plan { parent: view.tip, time: view.honest_time(view.tip), harder: Harder::Times2(self.log2) }
    }
}

/// Looks for a share of sixteen times the work on an ancestor of the tip, goes on from there in secret, and publishes when that is better
/// than the tip: reorgs, which pay only if those who are beaten are not credited.
pub struct Lagging {
    /// Heights below the tip.
    lag: u32,
    head: Option<usize>,
}

impl Lagging {
    pub fn new(lag: u32) -> Lagging {
        Lagging { lag, head: None }
    }
}

impl Strategy for Lagging {
    fn plan(&mut self, view: &View) -> Plan {
        let tip = view.tree.get(view.tip);
        // Its own branch is given up once it is as far behind as it began.
        self.head = self.head.filter(|head| view.tree.get(*head).height + 2 * self.lag > tip.height);
        let parent = self.head.unwrap_or_else(|| view.tree.ancestor(view.tip, tip.height.saturating_sub(self.lag)));
        Plan { parent, time: view.honest_time(parent), harder: Harder::Times2(4) }
    }

    fn found(&mut self, view: &View, share: usize) -> Vec<usize> {
        if view.tree.get(share).score > view.tree.get(view.tip).score {
            self.head = None;
            return vec![share];
        }
        self.head = Some(share);
        Vec::new()
    }
}

/// Looks for siblings of others' tips that are harder than these.
pub struct Sibling(pub Harder);

impl Strategy for Sibling {
    fn plan(&mut self, view: &View) -> Plan {
        let parent = if view.own(view.tip) { view.tip } else { view.tree.get(view.tip).parent };
        Plan { parent, time: view.honest_time(parent), harder: self.0 }
    }
}

/// Which uncles a miner credits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credited {
    All,
    Own,
}

impl Credited {
    pub fn holds(self, own: bool) -> bool {
        self == Credited::All || own
    }
}

/// Makes siblings of its own in secret until it has as many as a share may credit, then credits them itself, so that no one else gains by
/// them; others' uncles it credits with the room that is left, or not.
pub struct Hoarder {
    pub credited: Credited,
    /// How many siblings to make before a share.
    pub hoard: usize,
    share_next: Cell<bool>,
    /// What others do not know of.
    hidden: Vec<usize>,
}

impl Hoarder {
    pub fn new(credited: Credited, hoard: usize) -> Hoarder {
        Hoarder { credited, hoard: hoard.min(UNCLES_MAX), share_next: Cell::new(false), hidden: Vec::new() }
    }
}

impl Strategy for Hoarder {
    fn plan(&mut self, view: &View) -> Plan {
        let own = view.tree.uncles(view.tip, |share| view.own(share)).len();
        let sibling = own < self.hoard && view.tree.get(view.tip).height > UNCLE_DEPTH;
        self.share_next.set(!sibling);
        let parent = if sibling { view.tree.get(view.tip).parent } else { view.tip };
        Plan { parent, time: view.honest_time(parent), harder: Harder::Times2(0) }
    }

    fn credits(&self, view: &View, uncle: usize) -> bool {
        self.share_next.get() && self.credited.holds(view.own(uncle))
    }

    fn found(&mut self, _: &View, share: usize) -> Vec<usize> {
        if self.share_next.get() {
            return vec![share];
        }
        self.hidden.push(share);
        Vec::new()
    }

    fn came(&mut self, view: &View, _: usize) -> Vec<usize> {
        let height = view.tree.get(view.tip).height;
        let old: Vec<usize> = self.hidden.iter().copied().filter(|share| view.tree.get(*share).height + 3 <= height).collect();
        self.hidden.retain(|share| !old.contains(share));
        old
    }
}

/// When a miner says that its shares were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dated {
    Honestly,
    /// As early as may be.
    Early,
    /// As late as may be.
    Late,
    /// Late on others' shares, so that the next target is easier; early on its own, so that others pay for it.
    InTurn,
}

impl Dated {
    pub fn time(self, view: &View, parent: usize) -> u32 {
        let early = view.tree.earliest(parent);
        let late = (view.now + 120).max(early);
        match self {
            Dated::Honestly => view.honest_time(parent),
            Dated::Early => early,
            Dated::Late => late,
            Dated::InTurn if view.own(parent) => early,
            Dated::InTurn => late,
        }
    }
}

/// Honest but for times.
pub struct Dater(pub Dated);

impl Strategy for Dater {
    fn plan(&mut self, view: &View) -> Plan {
        Plan { parent: view.tip, time: self.0.time(view, view.tip), harder: Harder::Times2(0) }
    }
}
