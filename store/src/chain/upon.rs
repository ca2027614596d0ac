//! The share that work builds on: the confirmed tip, unless who gives out work has reasons of its own (SPEC, BTC). No rule looks at it.

use std::cmp::Reverse;
use std::sync::Arc;

use rockpool_net::id::ShareId;

use super::Chain;
use super::offer::least_score;
use crate::limits::BESIDE_DEPTH;
use crate::record::Record;

impl Chain {
    /// The shares that work may build on: the newest confirmed ones, and the proved ones beside them, but none so low that what builds on
    /// it would not be kept (SPEC, SCORE-4). Those of the highest score come first; of equal ones the confirmed one, then the first seen.
    pub fn near(&self) -> Vec<Arc<Record>> {
        let confirmed = self.confirmed_height();
        let lowest = self.lowest().height.max((confirmed + 1).saturating_sub(BESIDE_DEPTH));
        let best = self.confirmed_tip().score;
        let mut beside: Vec<_> = self.side.iter().filter(|live| live.proven && live.record.height >= lowest).collect();
        beside.retain(|live| live.record.score <= best);
        beside.sort_by_key(|live| live.seen);
        let chain = (lowest..=confirmed).rev().filter_map(|height| self.table.at(height));
        let mut near: Vec<_> = chain.chain(beside.into_iter().map(|live| &live.record)).cloned().collect();
        let least = least_score(self.confirmed_tip());
        near.retain(|record| record.score >= least);
        near.sort_by_key(|record| Reverse(record.score));
        near
    }

    /// The share that work builds on, if it is not the confirmed tip.
    pub fn upon(&self) -> Option<ShareId> {
        self.upon.as_ref().map(|payouts| payouts.parent)
    }

    /// From now on work builds on this share, one of [`near`](Chain::near), or, with `None`, on the confirmed tip, whichever that is.
    /// Where nobody can say what a child of it must pay, its branch being too long, work builds on the confirmed tip as well. Whether that
    /// is something new.
    pub fn build_upon(&mut self, id: Option<ShareId>) -> bool {
        if self.upon() == id {
            return false;
        }
        let upon = id.and_then(|id| self.payouts_at(&id, &[])).map(|(payouts, _)| payouts);
        let new = self.upon.is_some() || upon.is_some();
        self.upon = upon;
        self.news.upon |= new;
        new
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use rockpool_net::time::Now;
    use rockpool_net::wire::share::Share;

    use super::*;
    use crate::chain::{Offer, Source};
    use crate::kv::MemKv;
    use crate::params::{Network, Params, params};
    use crate::testing::{ShareBuilder, least_time, payouts};
    use crate::view::ChainView;

    const LATE: Now = Now { mono: Duration::ZERO, wall: Duration::from_secs(2_000_000_000) };

    fn regtest() -> &'static Params {
        params(Network::Regtest)
    }

    fn take(chain: &mut Chain, share: &Share, source: Source) -> ShareId {
        assert_eq!(chain.offer(LATE, share, source), Offer::Taken);
        chain.confirm(9);
        share.id()
    }

    fn grow(chain: &mut Chain, on: &ShareId, miner: u8) -> ShareId {
        let share = ShareBuilder::new(regtest()).miner(miner).build(chain, on);
        take(chain, &share, Source::Peer)
    }

    fn follow(chain: &mut Chain, view: &mut ChainView) {
        view.apply(&chain.take_change().unwrap().0);
        view.sanity_check().unwrap();
    }

    /// A share of what the view says, with its payouts, as miners are given it: proved like any other.
    fn work(chain: &mut Chain, view: &ChainView) -> ShareId {
        let next = view.next(regtest(), Now { mono: Duration::ZERO, wall: Duration::ZERO });
        assert_eq!((next.parent, *view.upon() == payouts(regtest(), chain, chain.get(&next.parent).unwrap())), (view.upon().parent, true));
        let share = ShareBuilder::new(regtest()).miner(9).time(next.time).uncles(&next.uncles).build(chain, &next.parent);
        assert_eq!((share.height, share.lead), (next.height, next.lead));
        take(chain, &share, Source::Own)
    }

    #[test]
    fn work_builds_upon_an_older_share_and_on_what_was_made_of_it_and_then_upon_the_tip_again() {
        let mut chain = Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap();
        let mut view = chain.view();
        let mut ids = vec![chain.tip().id];
        for n in 0..5 {
            ids.push(grow(&mut chain, &ids[n], n as u8));
        }
        follow(&mut chain, &mut view);
        assert_eq!(view.upon().parent, ids[5]);
        assert!(chain.build_upon(Some(ids[3])) && !chain.build_upon(Some(ids[3])));
        follow(&mut chain, &mut view);
        assert!(chain.take_change().is_none());
        // The tip is what it was.
        assert_eq!((view.upon().parent, view.confirmed_tip().id, view.payouts().parent), (ids[3], ids[5], ids[5]));
        let first = work(&mut chain, &view);
        assert_eq!(chain.confirmed_tip().id, ids[5]);
        // A sibling of the tip's parent is not better than that; what is made of it is no worse than the tip.
        assert!(chain.build_upon(Some(first)));
        follow(&mut chain, &mut view);
        let second = work(&mut chain, &view);
        assert!(chain.build_upon(Some(second)));
        follow(&mut chain, &mut view);
        let third = work(&mut chain, &view);
        assert_eq!((chain.confirmed_tip().id, chain.get(&third).unwrap().parent), (third, second));
        assert!(chain.build_upon(None) && !chain.build_upon(None));
        follow(&mut chain, &mut view);
        assert_eq!((view.upon().parent, view.next(regtest(), LATE).parent), (third, third));
        work(&mut chain, &view);
        chain.sanity_check().unwrap();
    }

    /// Hard shares, and then a pause: demand falls, and with it how far below the tip a share may lie.
    #[test]
    fn what_builds_on_any_of_them_is_kept() {
        let mut chain = Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap();
        for _ in 0..30 {
            let id = chain.tip().id;
            let share = ShareBuilder::new(regtest()).harder(4).time(least_time(&chain, &id)).build(&chain, &id);
            take(&mut chain, &share, Source::Peer);
        }
        let (id, time) = (chain.tip().id, chain.tip().time + 10_000);
        for n in 1..=2 {
            let on = chain.tip().id;
            let share = ShareBuilder::new(regtest()).time(time + n).build(&chain, &on);
            take(&mut chain, &share, Source::Peer);
        }
        let near = chain.near();
        assert!(near.iter().any(|record| record.id == id));
        // The lowest first, so that the tip stays where it is.
        for record in near.iter().rev() {
            let share = ShareBuilder::new(regtest()).miner(9).build(&chain, &record.id);
            assert_eq!(chain.offer(LATE, &share, Source::Own), Offer::Taken, "on height {} of {}", record.height, near[0].height);
        }
    }

    #[test]
    fn the_best_share_stands_first_and_none_is_deeper_than_the_view_holds() {
        let mut chain = Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap();
        let mut ids = vec![chain.tip().id];
        for n in 0..40 {
            ids.push(grow(&mut chain, &ids[n], 1));
        }
        let beside = [grow(&mut chain, &ids[39], 2), grow(&mut chain, &ids[39], 3)];
        let low = grow(&mut chain, &ids[10], 2);
        let unproven = ShareBuilder::new(regtest()).miner(4).build(&chain, &ids[39]);
        assert_eq!(chain.offer(LATE, &unproven, Source::Peer), Offer::Taken);
        let near: Vec<ShareId> = chain.near().iter().map(|record| record.id).collect();
        assert_eq!(near[..4], [ids[40], beside[0], beside[1], ids[39]]);
        assert_eq!((near.len(), near.last()), (BESIDE_DEPTH as usize + 2, Some(&ids[41 - BESIDE_DEPTH as usize])));
        assert!(!near.contains(&low) && !near.contains(&unproven.id()));
        let view = chain.view();
        assert!(near.iter().all(|id| view.get(id).is_some() || view.beside(id).is_some()));
    }
}
