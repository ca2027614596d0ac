//! Nodes that begin: at genesis, and at a base share.

use std::net::SocketAddr;
use std::sync::Arc;

use rockpool_net::id::ShareId;
use rockpool_net::wire::share::Share;
use rockpool_store::chain::{Chain, Offer, Source};
use rockpool_store::kv::MemKv;
use rockpool_store::params::Params;
use rockpool_store::testing::{ShareBuilder, bitcoin_header};

use crate::testing::{PEER, World, at, exchange, regtest};

/// Regtest with a short memory.
fn forgetful() -> &'static Params {
    let mut params = regtest().clone();
    (params.window_min, params.window_max, params.kept) = (10, 40, 120);
    Box::leak(Box::new(params))
}

/// A chain with an uncle every seventh height and a Bitcoin block every tenth, the last ones stale, in the order of its making.
fn chain(params: &'static Params, heights: u32) -> (Vec<[u8; 80]>, Vec<Share>) {
    let mut chain = Chain::open(params, [1, 2], &MemKv::new()).unwrap();
    let late = at(std::time::Duration::from_secs(60));
    let (mut headers, mut shares, mut uncle): (Vec<[u8; 80]>, Vec<Share>, Option<ShareId>) = (Vec::new(), Vec::new(), None);
    for height in 1..=heights {
        let best = Arc::clone(chain.bitcoin().best().unwrap());
        if height % 10 == 5 {
            headers.push(bitcoin_header(&best, 1));
            chain.offer_blocks(&headers[headers.len() - 1..]);
        }
        let (parent, best) = (chain.tip().id, Arc::clone(chain.bitcoin().best().unwrap()));
        let build = || ShareBuilder::new(params).bitcoin(best.hash, best.height + 1, 0x207f_ffff).time(1_400_000_000 + height);
        let credited: Vec<ShareId> = uncle.take().into_iter().collect();
        let share = build().miner(height as u8 % 5).uncles(&credited).build(&chain, &parent);
        let side = (height % 7 == 3).then(|| build().miner(9).build(&chain, &parent));
        uncle = side.as_ref().map(Share::id);
        for share in [Some(share), side].into_iter().flatten() {
            assert_eq!(chain.offer(late, &share, Source::Peer), Offer::Taken, "height {height}");
            shares.push(share);
        }
        chain.confirm(9);
    }
    (headers, shares)
}

/// A node that has the chain and one that begins meet; they end on one tip, and agree on what it pays.
fn meet(heights: u32) -> World<crate::testing::Inline> {
    let params = forgetful();
    let mut fresh = World::whole_of(params, &[SocketAddr::from(([127, 0, 0, 1], 9333))], 1);
    let mut old = World::whole_of(params, &[], 2);
    let (headers, shares) = chain(params, heights);
    old.headers(headers);
    old.offer(shares);
    assert_eq!(old.node.chain().view.confirmed_height(), heights);
    fresh.settle();
    let (on_fresh, on_old) = (fresh.pick_up(), old.connect(PEER));
    exchange(&mut fresh, on_fresh, &mut old, on_old);
    let (a, b) = (&fresh.node.chain().view, &old.node.chain().view);
    assert_eq!((a.confirmed_tip(), a.payouts()), (b.confirmed_tip(), b.payouts()));
    assert_eq!(fresh.hub.outlet().tickets_out() + old.hub.outlet().tickets_out(), 0);
    assert!(fresh.is_open(on_fresh) && old.is_open(on_old));
    fresh
}

#[test]
fn a_node_that_begins_near_genesis_fetches_all() {
    assert_eq!(meet(120).node.chain().view.lowest().height, 0);
}

#[test]
fn a_node_that_begins_late_takes_a_base_share_and_agrees_on_payouts() {
    for heights in 200..208 {
        assert_eq!(meet(heights).node.chain().view.lowest().height, heights - 120, "at {heights}");
    }
}
