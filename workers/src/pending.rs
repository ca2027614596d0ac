//! Shares that wait, without blame, for something this node does not know yet (SHARECHAIN §2). Not relayed, not stored, bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::wire::share::Share;

use crate::limits::{PENDING_AGE_MAX, PENDING_MAX, PENDING_PEER_MAX};

/// A share that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) id: ShareId,
    pub(crate) share: Arc<Share>,
    /// Who sent it.
    pub(crate) from: ConnId,
    /// Since when.
    pub(crate) since: Duration,
}

/// All shares that wait.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// By the share that they wait for; under `None` those that wait for the clock.
    waiting: BTreeMap<Option<ShareId>, Vec<Waiting>>,
    ids: BTreeSet<ShareId>,
    per_peer: BTreeMap<ConnId, usize>,
}

impl Pending {
    pub(crate) fn contains(&self, id: &ShareId) -> bool {
        self.ids.contains(id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Lets a share wait for `missing`, or for the clock. Over a limit it is forgotten at once: it can be fetched again.
    pub(crate) fn add(&mut self, missing: Option<ShareId>, waiting: Waiting) {
        let of_peer = self.per_peer.get(&waiting.from).copied().unwrap_or(0);
        if of_peer >= PENDING_PEER_MAX || self.ids.len() >= PENDING_MAX || !self.ids.insert(waiting.id) {
            return;
        }
        self.per_peer.insert(waiting.from, of_peer + 1);
        self.waiting.entry(missing).or_default().push(waiting);
    }

    /// Whether the second waits for the first, or for one that does; or they are the same.
    pub(crate) fn leads_to(&self, first: ShareId, second: ShareId) -> bool {
        // Nothing waits for what builds on it, so there is an end, and no share waits for two.
        let mut next = vec![first];
        while let Some(id) = next.pop() {
            if id == second {
                return true;
            }
            next.extend(self.waiting.get(&Some(id)).into_iter().flatten().map(|waiting| waiting.id));
        }
        false
    }

    /// What is to be fetched so that this one may come: itself, or what it waits for here, or what that waits for.
    pub(crate) fn wanted(&self, id: ShareId) -> ShareId {
        let above = |id: &ShareId| {
            let of_id = |list: &Vec<Waiting>| list.iter().any(|waiting| waiting.id == *id);
            self.waiting.iter().find_map(|(missing, list)| missing.filter(|_| of_id(list)))
        };
        std::iter::successors(Some(id), above).last().unwrap_or(id)
    }

    /// What waited for this share.
    pub(crate) fn arrived(&mut self, id: ShareId) -> Vec<Waiting> {
        let freed = self.waiting.remove(&Some(id)).unwrap_or_default();
        freed.iter().for_each(|waiting| self.forget(waiting));
        freed
    }

    /// What waits for the clock: to be looked at again.
    pub(crate) fn clocked(&mut self) -> Vec<Waiting> {
        let freed = self.waiting.remove(&None).unwrap_or_default();
        freed.iter().for_each(|waiting| self.forget(waiting));
        freed
    }

    /// Forgets what a peer sent that has left.
    pub(crate) fn peer_gone(&mut self, conn: ConnId) {
        if self.per_peer.contains_key(&conn) {
            self.drop_where(|waiting| waiting.from == conn);
        }
    }

    /// Forgets what has waited too long.
    pub(crate) fn expire(&mut self, now: Duration) {
        self.drop_where(|waiting| waiting.since + PENDING_AGE_MAX <= now);
    }

    fn drop_where(&mut self, mut gone: impl FnMut(&Waiting) -> bool) {
        let mut dropped = Vec::new();
        self.waiting.retain(|_, list| {
            dropped.extend(list.extract_if(.., |waiting| gone(waiting)));
            !list.is_empty()
        });
        dropped.iter().for_each(|waiting| self.forget(waiting));
    }

    fn forget(&mut self, waiting: &Waiting) {
        self.ids.remove(&waiting.id);
        if let Some(count) = self.per_peer.get_mut(&waiting.from) {
            *count -= 1;
            if *count == 0 {
                self.per_peer.remove(&waiting.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{conn, id, regtest};

    fn waiting(n: u64, from: u32, since: u64) -> Waiting {
        Waiting { id: id(n), share: regtest().genesis().clone(), from: conn(from), since: Duration::from_secs(since) }
    }

    fn ids(list: Vec<Waiting>) -> Vec<ShareId> {
        list.into_iter().map(|waiting| waiting.id).collect()
    }

    #[test]
    fn the_limits_hold_and_what_leaves_makes_room() {
        let mut pending = Pending::default();
        let total = PENDING_MAX as u64 + 500;
        for n in 0..total {
            pending.add(Some(id(9_999)), waiting(n, (n / 70) as u32, 0));
        }
        assert_eq!(pending.ids.len(), PENDING_MAX);
        assert!(pending.per_peer.values().all(|count| *count <= PENDING_PEER_MAX));
        assert!(pending.contains(&id(PENDING_PEER_MAX as u64 - 1)) && !pending.contains(&id(PENDING_PEER_MAX as u64)));
        pending.peer_gone(conn(0));
        assert_eq!(pending.ids.len(), PENDING_MAX - PENDING_PEER_MAX);
        pending.add(None, waiting(total, 0, 0));
        assert!(pending.contains(&id(total)));
    }

    #[test]
    fn what_waited_for_a_share_comes_when_it_comes() {
        let mut pending = Pending::default();
        pending.add(Some(id(1)), waiting(2, 1, 0));
        pending.add(Some(id(1)), waiting(3, 2, 0));
        pending.add(Some(id(1)), waiting(3, 1, 0));
        pending.add(Some(id(4)), waiting(5, 1, 0));
        pending.add(None, waiting(6, 1, 0));
        assert_eq!(ids(pending.arrived(id(1))), [id(2), id(3)]);
        assert_eq!(ids(pending.arrived(id(1))), []);
        assert_eq!(ids(pending.clocked()), [id(6)]);
        assert!(pending.contains(&id(5)) && !pending.contains(&id(3)));
    }

    #[test]
    fn what_a_sync_waits_for_is_found_however_many_wait_between() {
        let mut pending = Pending::default();
        pending.add(Some(id(1)), waiting(2, 1, 0));
        pending.add(Some(id(1)), waiting(5, 1, 0));
        pending.add(Some(id(2)), waiting(3, 2, 0));
        pending.add(None, waiting(6, 1, 0));
        assert!([1, 2, 3].into_iter().all(|first| pending.leads_to(id(first), id(3))));
        assert!([4, 5, 6].into_iter().all(|other| !pending.leads_to(id(other), id(3)) && !pending.leads_to(id(3), id(other))));
    }

    #[test]
    fn what_is_to_be_fetched_is_what_nobody_waits_below() {
        let mut pending = Pending::default();
        pending.add(Some(id(1)), waiting(2, 1, 0));
        pending.add(Some(id(2)), waiting(3, 2, 0));
        pending.add(None, waiting(6, 1, 0));
        assert_eq!([1, 2, 3, 6, 9].map(|n| pending.wanted(id(n))), [1, 1, 1, 6, 9].map(id));
    }

    #[test]
    fn what_waits_too_long_is_forgotten() {
        let mut pending = Pending::default();
        pending.add(Some(id(1)), waiting(2, 1, 0));
        pending.add(None, waiting(3, 1, 1));
        pending.expire(PENDING_AGE_MAX - Duration::from_millis(1));
        assert_eq!(pending.ids.len(), 2);
        pending.expire(PENDING_AGE_MAX);
        assert!(!pending.contains(&id(2)) && pending.contains(&id(3)));
        pending.expire(PENDING_AGE_MAX + Duration::from_secs(1));
        assert!(pending.is_empty() && pending.per_peer.is_empty() && pending.waiting.is_empty());
    }
}
