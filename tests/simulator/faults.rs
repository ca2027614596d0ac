//! What goes wrong in the world of one seed, and when: each seed draws which kinds of faults are on, how often and for how long.

use std::collections::BTreeMap;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;

use crate::draw;
use crate::host::Process;
use crate::stages::{STAGES, WRITER};

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing arrives at this host.
    Clog(usize),
    /// Nothing arrives from the first at the second.
    Cut(usize, usize),
    /// Nothing arrives between the nodes before this one, this one included, and those after it.
    Partition(usize),
    /// All connections between two hosts are reset.
    Reset(usize, usize),
    /// The host refuses dials.
    Refuse(usize),
    /// The host has no file descriptor left.
    Exhaust(usize),
    /// The host's calendar clock jumps by so many milliseconds.
    Step(usize, i64),
    /// The host's calendar clock gains so many milliseconds in a minute.
    Drift(usize, i64),
    /// The host's calendar clock stands still.
    Freeze(usize),
    /// The host's process gets no turn; with `true` nothing arrives there either, as when the machine sleeps.
    Suspend(usize, bool),
    /// A stage of the host's node does nothing.
    Stall(usize, usize),
    /// The host's disk is full.
    DiskFull(usize),
    /// The host's caches are cold: shares are read from the disk.
    Cold(usize),
    /// System calls are interrupted, one in so many.
    Interrupt(u64),
    /// The host's node dies; it starts again when the fault ends.
    Crash(usize),
}

impl Fault {
    /// The host whose calendar clock it makes wrong.
    pub fn wrong_clock(self) -> Option<usize> {
        match self {
            Fault::Step(host, _) | Fault::Drift(host, _) | Fault::Freeze(host) => Some(host),
            _ => None,
        }
    }

    /// Its kind.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Clog(_) => "clogs",
            Fault::Cut(..) => "one-way partitions",
            Fault::Partition(_) => "two-way partitions",
            Fault::Reset(..) => "resets",
            Fault::Refuse(_) => "refusals",
            Fault::Exhaust(_) => "exhaustions",
            Fault::Step(_, ms) if ms < 0 => "clocks set back",
            Fault::Step(..) => "clocks set ahead",
            Fault::Drift(..) => "clocks drifting",
            Fault::Freeze(_) => "clocks frozen",
            Fault::Suspend(_, false) => "processes suspended",
            Fault::Suspend(_, true) => "machines suspended",
            Fault::Stall(_, WRITER) => "writers stalled",
            Fault::Stall(..) => "other stages stalled",
            Fault::DiskFull(_) => "disks full",
            Fault::Cold(_) => "caches cold",
            Fault::Interrupt(_) => "storms of signals",
            Fault::Crash(_) => "crashes",
        }
    }
}

/// A fault's beginning or end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Act {
    pub at: Duration,
    pub begins: bool,
    pub fault: Fault,
}

/// Kinds of [`Fault`].
const KINDS: u64 = 15;

/// All that goes wrong between the beginning and `end`, in order. `nodes` are hosts 0 to `nodes`; the clock of the node `steady` never runs
/// ahead, so that one node's shares are good to all others at any time. Nothing lasts
/// longer than `patience_s`.
pub fn plan(rng: &mut ChaCha12Rng, nodes: usize, hosts: usize, steady: usize, end: Duration, patience_s: u64) -> Vec<Act> {
    let mut acts = Vec::new();
    for kind in 0..KINDS {
        if draw(rng, 3) > 0 {
            continue;
        }
        for _ in 0..1 + draw(rng, 3) {
            let node = draw(rng, nodes as u64) as usize;
            let at = Duration::from_millis(2_000 + draw(rng, end.as_millis() as u64 - 2_000));
            let (fault, longest_s) = one(rng, kind, node, nodes, hosts, steady);
            // Mostly short ones; the long ones outlast every deadline.
            let longest_s = longest_s.min(patience_s);
            let longest_ms = if draw(rng, 3) == 0 { longest_s * 1_000 } else { longest_s * 150 };
            let until = at + Duration::from_millis(1 + draw(rng, longest_ms));
            acts.push(Act { at, begins: true, fault });
            acts.push(Act { at: until, begins: false, fault });
            if matches!(fault, Fault::Crash(_)) && draw(rng, 2) == 0 {
                // And again while it is busy coming back.
                let again = until + Duration::from_millis(draw(rng, 2_000));
                acts.push(Act { at: again, begins: true, fault });
                acts.push(Act { at: again + Duration::from_millis(draw(rng, 10_000)), begins: false, fault });
            }
        }
    }
    acts.sort();
    acts
}

/// One fault of a kind, and the longest that it lasts, seconds.
fn one(rng: &mut ChaCha12Rng, kind: u64, node: usize, nodes: usize, hosts: usize, steady: usize) -> (Fault, u64) {
    let any = draw(rng, hosts as u64) as usize;
    let other = (node + 1 + draw(rng, nodes as u64 - 1) as usize) % nodes;
    match kind {
        0 => (Fault::Clog(any), 60),
        1 => (Fault::Cut(node, if any == node { other } else { any }), 110),
        2 => (Fault::Partition(node), 110),
        3 => (Fault::Reset(node, if any == node { other } else { any }), 1),
        4 => (Fault::Refuse(node), 60),
        5 => (Fault::Exhaust(node), 60),
        6 => {
            let ms = draw(rng, 7_000_000) as i64;
            (Fault::Step(node, if node == steady || draw(rng, 2) == 0 { -ms } else { ms }), 90)
        }
        7 => (Fault::Drift(node, if draw(rng, 2) == 0 { 1_000 } else { -1_000 }), 120),
        8 => (Fault::Freeze(node), 120),
        9 => (Fault::Suspend(node, draw(rng, 2) == 0), 600),
        10 => (Fault::Stall(node, if draw(rng, 2) == 0 { WRITER } else { draw(rng, STAGES as u64) as usize }), 10),
        11 => (Fault::DiskFull(node), 20),
        12 => (Fault::Cold(node), 120),
        13 => (Fault::Interrupt(2 + draw(rng, 50)), 60),
        _ => (Fault::Crash(node), 30),
    }
}

/// What every run of the tests must have felt at least once: a fault that never comes proves nothing.
pub const WANTED: [&str; 27] = [
    "clogs",
    "one-way partitions",
    "two-way partitions",
    "resets",
    "refusals",
    "exhaustions",
    "clocks set back",
    "clocks set ahead",
    "clocks drifting",
    "clocks frozen",
    "processes suspended",
    "machines suspended",
    "writers stalled",
    "other stages stalled",
    "disks full",
    "caches cold",
    "storms of signals",
    "crashes",
    "crashes during recovery",
    "batches lost in crashes",
    "connections reset",
    "pieces held",
    "writes chopped",
    "pipes full",
    "calls interrupted",
    "dials refused",
    "accepts without a descriptor",
];

/// How many of each kind were felt.
#[derive(Clone, Debug, Default)]
pub struct Tally(pub BTreeMap<String, u64>);

impl Tally {
    pub fn add(&mut self, what: impl Into<String>, n: u64) {
        *self.0.entry(what.into()).or_default() += n;
    }

    /// Messages that waited for a node's slow stages, and how its connections were wrapped, before it goes.
    pub fn waited(&mut self, process: &Process) {
        let counters = process.hub.counters();
        self.add("connections that became v2", counters.v2_opened.get());
        self.add("handshakes of v2 that failed", counters.v2_failed.get());
        self.add("dials for v2 that found none", counters.closed_not_v2.get());
        let [writer, others] = process.stages.waited();
        self.add("messages that waited for a slow writer", writer);
        self.add("messages that waited for another slow stage", others);
    }

    pub fn merge(&mut self, other: &Tally) {
        other.0.iter().for_each(|(what, n)| self.add(what.as_str(), *n));
    }
}
