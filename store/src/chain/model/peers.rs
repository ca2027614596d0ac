//! Several nodes that learn of one history in different ways: in different orders, with restarts, from a base on, or after a long
//! separation. Each serves what it has, and no more; in the end all must stand on the same chain, and take what any of them mines.

use std::collections::BTreeSet;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use rockpool_net::id::ShareId;
use rockpool_net::wire::share::Share;

use super::node::{PEER, late, open};
use super::number;
use super::world::{World, small_windows};
use crate::chain::{Chain, Offer, Source};
use crate::kv::{Family, Kv, MemKv};
use crate::limits::{REACH, UNCLE_DEPTH};
use crate::params::Params;
use crate::record::Record;
use crate::schema::share_key;
use crate::testing::ShareBuilder;
use crate::view::ChainView;

/// The highest base.
const BASE_MAX: u32 = 20;

/// A node as its peers see it: what it holds, its rows, and what it serves.
struct Peer {
    name: &'static str,
    chain: Chain,
    view: ChainView,
    kv: MemKv,
}

impl Peer {
    fn new(name: &'static str, params: &'static Params, world: &World) -> Peer {
        let kv = MemKv::new();
        let mut chain = open(params, &kv);
        let headers: Vec<[u8; 80]> = world.blocks[1..].iter().map(|hash| world.slow.blocks[hash].header).collect();
        assert_eq!(chain.offer_blocks(&headers).bad, None);
        let view = chain.view();
        let mut peer = Peer { name, chain, view, kv };
        peer.write();
        peer
    }

    fn write(&mut self) {
        let Some((change, batches)) = self.chain.take_change() else { return };
        self.view.apply(&change);
        for batch in batches {
            self.kv.write(&batch.ops, batch.own).unwrap();
            self.view.stored(&batch.ids);
        }
    }

    fn restart(&mut self) {
        self.write();
        let (tip, confirmed) = (self.chain.tip().id, self.chain.confirmed_tip().id);
        self.chain = open(self.view.bitcoin().params(), &self.kv);
        self.chain.sanity_check().unwrap();
        assert_eq!((self.chain.tip().id, self.chain.confirmed_tip().id), (tip, confirmed), "{}", self.name);
        self.view = self.chain.view();
    }

    fn confirm(&mut self, at_most: usize) {
        self.chain.confirm(at_most);
        let condemned = self.chain.take_condemned();
        assert!(condemned.is_empty(), "{}: {condemned:?}", self.name);
    }

    fn confirm_all(&mut self) {
        while self.chain.has_unproven() {
            self.confirm(8);
        }
        self.write();
        self.chain.sanity_check().unwrap();
        self.view.sanity_check().unwrap();
    }

    /// A share by its id, as `getdata` finds it.
    fn serve(&self, id: &ShareId) -> Option<Share> {
        let of_chain = self.view.get(id).map(|record| record.height).or_else(|| self.view.uncle_height(id));
        let height = of_chain.or_else(|| self.view.beside(id).map(|beside| beside.record.height));
        let row = height.and_then(|height| self.kv.get(Family::Shares, &share_key(height, id)).unwrap());
        let bytes = row.or_else(|| self.view.bytes(id).map(|bytes| bytes.to_vec()))?;
        Some(Share::decode(&bytes).unwrap())
    }

    /// Its chain above a height as `getheaders` finds it, each share behind the uncles that it credits.
    fn serve_above(&self, height: u32) -> Vec<Share> {
        let mut shares = Vec::new();
        for height in height + 1..=self.view.confirmed_height() {
            let record: &Record = self.view.at_height(height).unwrap();
            let mut uncles: Vec<_> = record.uncles().iter().collect();
            uncles.sort_by_key(|uncle| uncle.height);
            shares.extend(uncles.into_iter().map(|uncle| uncle.id).chain([record.id]).map(|id| self.serve(&id).unwrap()));
        }
        shares
    }

    /// Takes a share that a peer has, and what is missing to judge it, as the organiser does: only what a sync itself waits for
    /// belongs to that sync.
    fn take(&mut self, share: &Share, source: Source, from: &Peer) -> Offer {
        let mut offer = self.chain.offer(late(), share, source);
        let mut asked = BTreeSet::new();
        while let Offer::Pending { missing } = offer {
            // Nobody is asked twice for one id.
            let Some(other) = from.serve(&missing).filter(|_| asked.insert(missing)) else { break };
            // What is fetched for what was fetched comes as from any peer.
            let nested = self.take(&other, source, from);
            if !matches!(nested, Offer::Taken | Offer::Known) {
                return nested;
            }
            offer = self.chain.offer(late(), share, source);
        }
        offer
    }

    /// Follows another's confirmed chain.
    fn sync(&mut self, from: &Peer) {
        let at = self.chain.confirmed_height();
        let fork = from.view.find_fork(&self.view.locator()).unwrap_or_else(|| panic!("{} and {} at {at}", self.name, from.name));
        assert!(self.chain.begin_sync(PEER));
        for share in from.serve_above(fork) {
            let fate = self.take(&share, Source::Bulk(PEER), from);
            let told = matches!(fate, Offer::Taken | Offer::Known);
            assert!(told, "{} of {}: {} at {}, fork {fork}, own {at}: {fate:?}", self.name, from.name, share.id(), share.height);
        }
        self.chain.end_sync();
        self.confirm_all();
        assert!(self.chain.confirmed_tip().score >= from.chain.confirmed_tip().score);
    }
}

/// A good share on this one, with as many uncles as can be found among all.
fn grow(world: &mut World, parent: ShareId, harder: usize) -> ShareId {
    let slow = &world.slow;
    let (height, last) = (slow.share(&parent).height + 1, slow.share(&parent).time);
    let near: Vec<ShareId> =
        world.made.iter().filter(|id| (height.saturating_sub(UNCLE_DEPTH)..height).contains(&slow.share(id).height)).copied().collect();
    let mut times: Vec<u32> = slow.line(&parent).iter().take(11).map(|id| slow.share(id).time).collect();
    times.sort_unstable();
    let mut uncles: Vec<ShareId> = Vec::new();
    let most = world.below(4) as usize;
    for _ in 0..3 * near.len() {
        if uncles.len() >= most {
            break;
        }
        let mut more = uncles.clone();
        more.push(near[world.below(near.len() as u32) as usize]);
        more.sort_unstable();
        if world.slow.may_credit(&parent, &more) {
            uncles = more;
        }
    }
    let time = (last + world.below(4)).max(times[times.len() / 2] + 1);
    let builder = ShareBuilder::new(world.slow.params).miner(world.below(9) as u8).salt(world.below(u32::MAX)).time(time);
    let share = builder.harder(harder).uncles(&uncles).build(&world.slow, &parent);
    let id = world.slow.add(&share);
    assert!(world.slow.known[&id].good, "{:?}", world.slow.known[&id].verdict);
    world.made.push(id);
    id
}

/// A trunk with many short branches.
fn trunk(world: &mut World, mut tip: ShareId, heights: u32) -> ShareId {
    for _ in 0..heights {
        let mut side = tip;
        for _ in 0..[0, 0, 0, 1, 1, 2, 3][world.below(7) as usize] {
            side = grow(world, side, 0);
        }
        tip = grow(world, tip, 1);
    }
    tip
}

/// Tells a node of these, any of the first few first; what cannot be judged yet is told again.
fn tell(world: &mut World, peer: &mut Peer, ids: &[ShareId], jitter: u32, restarts: u32) {
    let mut rest: Vec<ShareId> = ids.to_vec();
    for _ in 0..20 * ids.len() {
        if rest.is_empty() {
            break;
        }
        let at = world.below(jitter.min(rest.len() as u32)) as usize;
        let id = rest.remove(at);
        match peer.chain.offer(late(), world.slow.share(&id), Source::Peer) {
            Offer::Taken | Offer::Known | Offer::Dropped(_) => {}
            Offer::Pending { missing } => {
                let back = (at + 1 + world.below(8) as usize).min(rest.len());
                rest.insert(back, id);
                // A restart forgets what lies beside the chain, so it is fetched again.
                if !rest.contains(&missing) {
                    rest.insert(at, missing);
                }
            }
            other => panic!("{}: {id} at {}: {other:?}", peer.name, world.slow.share(&id).height),
        }
        let at_most = world.below(4) as usize;
        peer.confirm(at_most);
        if world.once_in(3) {
            peer.write();
        }
        if world.once_in(restarts) {
            peer.restart();
        }
    }
    // What is left was beside the chain before a restart, and is too far below by now.
}

fn run(seed: u64) {
    let params = small_windows()[seed as usize % small_windows().len()];
    let mut world = World::good(params, ChaCha12Rng::seed_from_u64(seed));
    let genesis = world.slow.genesis();
    let heights = BASE_MAX + 2 * (REACH as u32 + UNCLE_DEPTH) + world.below(30);
    let fork = trunk(&mut world, genesis, heights);
    let common = world.made[1..].to_vec();
    // Two sides that do not hear of each other. The shorter one's shares are as hard as may be, or easy at last.
    let (mut less, mut more) = (fork, fork);
    let (mut of_less, mut of_more) = (Vec::new(), Vec::new());
    let (apart, hard) = (8 + world.below(REACH as u32 + UNCLE_DEPTH), world.below(5) as usize);
    for _ in 0..apart {
        more = grow(&mut world, more, 4);
        of_more.push(more);
        if world.once_in(4) {
            let side = grow(&mut world, more, 0);
            of_more.push(side);
        }
    }
    while of_less.len() < apart as usize && world.slow.share(&less).score < world.slow.share(&more).score {
        less = grow(&mut world, less, hard);
        of_less.push(less);
    }
    if world.slow.share(&less).score >= world.slow.share(&more).score {
        of_less.pop();
    }
    let mut peers: Vec<Peer> = ["ordered", "shuffled", "lost"].map(|name| Peer::new(name, params, &world)).into();
    tell(&mut world, &mut peers[0], &[&common[..], &of_more[..]].concat(), 1, u32::MAX);
    tell(&mut world, &mut peers[1], &[&common[..], &of_more[..]].concat(), 12, 90);
    tell(&mut world, &mut peers[2], &[&common[..], &of_less[..]].concat(), 3, 200);
    for peer in &mut peers {
        peer.confirm_all();
        if world.once_in(2) {
            peer.restart();
            peer.confirm_all();
        }
    }
    // Shares that are pushed are not enough for who has restarted so often: what is too far below by then comes with a sync.
    let [ordered, shuffled, ..] = &mut peers[..] else { unreachable!() };
    assert!(ordered.chain.confirmed_tip().score >= world.slow.share(&more).score);
    shuffled.sync(ordered);
    // One more begins with a base, so far below that it can judge where the others' locators make it begin, and one with nothing.
    let base = 1 + world.below(BASE_MAX);
    let [mut based, mut late_comer] = ["based", "late"].map(|name| Peer::new(name, params, &world));
    let first = peers[2].view.at_height(base).unwrap().id;
    assert_eq!(based.chain.begin_at(&peers[2].serve(&first).unwrap()), Offer::Taken);
    based.write();
    based.sync(&peers[2]);
    if world.once_in(2) {
        based.restart();
        based.confirm_all();
    }
    late_comer.sync(&peers[1]);
    peers.extend([based, late_comer]);
    finish(&mut world, peers);
}

/// All come to stand on one chain, and mine on in turn.
fn finish(world: &mut World, mut peers: Vec<Peer>) {
    peers.sort_by_key(|peer| peer.chain.confirmed_tip().score);
    let best = peers.pop().unwrap();
    for peer in &mut peers {
        if peer.chain.confirmed_tip().id != best.chain.confirmed_tip().id {
            peer.sync(&best);
        }
    }
    peers.push(best);
    for turn in 0..12 {
        let at = world.below(peers.len() as u32) as usize;
        let mut miner = peers.swap_remove(at);
        let next = miner.view.next(world.slow.params, late());
        let builder = ShareBuilder::new(world.slow.params).uncles(&next.uncles).time(next.time - 700_000_000 + turn * 7);
        let share = builder.build(&world.slow, &next.parent);
        world.slow.add(&share);
        let verdict = &world.slow.known[&share.id()];
        assert!(verdict.good, "{}: {:?}", miner.name, verdict.verdict);
        assert_eq!(miner.chain.offer(late(), &share, Source::Own), Offer::Taken);
        miner.confirm_all();
        for peer in &mut peers {
            let fate = peer.take(&share, Source::Peer, &miner);
            assert!(matches!(fate, Offer::Taken | Offer::Known), "{} of {}: {fate:?}", peer.name, miner.name);
            peer.confirm_all();
            assert_eq!(peer.chain.confirmed_tip().id, share.id(), "{} of {}", peer.name, miner.name);
            if peer.chain.window().is_whole(world.slow.params) {
                assert!(peer.chain.payouts().weights.iter().copied().eq(world.slow.weights(&share.id())), "{}", peer.name);
            }
            if world.once_in(6) {
                peer.restart();
                peer.confirm_all();
            }
        }
        peers.push(miner);
    }
}

#[test]
fn nodes_that_learnt_of_one_history_in_different_ways_come_to_agree() {
    match number("SEED") {
        Some(seed) => (seed..seed + number("PEERS").unwrap_or(1)).for_each(run),
        None => (0..number("PEERS").unwrap_or(6)).for_each(|seed| {
            if std::panic::catch_unwind(|| run(seed)).is_err() {
                panic!("that was SEED={seed}");
            }
        }),
    }
}
