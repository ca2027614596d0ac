//! `progress` of the status: long work that goes on.

use serde::Serialize;

use crate::limits::SYNC_GAP;
use crate::status::Facts;

/// Long work that goes on.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Work {
    /// "headers": Bitcoin's are fetched from its nodes; "sync": shares from peers; "rebuild": their coinbases are made again.
    what: &'static str,
    done: u32,
    of: u32,
    /// What is counted.
    unit: &'static str,
    /// Time left at the speed so far, seconds; null where it is not known.
    seconds_left: Option<u64>,
}

/// All of it, in the order in which it is done.
pub fn works(facts: Facts<'_>) -> Vec<Work> {
    let status = facts.status;
    let headers = facts.chain.view.bitcoin().best().map_or(0, |best| best.height);
    let claimed = status.bitcoin_peers.iter().map(|node| node.height).max().unwrap_or(0);
    let sync = status.sync.map(|sync| (sync.height, sync.target, sync.seconds_left));
    let (height, target, left) = sync.unwrap_or((status.candidate_height, status.candidate_height, None));
    let work = |what, (done, of), unit, seconds_left| Work { what, done, of, unit, seconds_left };
    let all = [
        work("headers", (headers, claimed), "headers", None),
        work("sync", (height, target), "shares", left),
        // The time left of a sync is that of both.
        work("rebuild", (status.tip.height, status.candidate_height), "coinbases", left),
    ];
    // A little is always on its way.
    all.into_iter().filter(|work| work.of > work.done.saturating_add(SYNC_GAP)).collect()
}
