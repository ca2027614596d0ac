//! Eight real nodes that know one seed each: they find each other, stay on one chain while a third of them is killed again and again, and
//! come together by their address books when the seed is gone.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;
use tempfile::TempDir;

use crate::kit::{ADDRESS, Miner, Rockpool, temp, until};

/// How many.
const NODES: usize = 8;
/// How often some are killed.
const ROUNDS: usize = 4;

/// A node with what outlives its process.
struct Place {
    dir: TempDir,
    /// Where it listened first, and does so ever after: that is what others know of it.
    p2p: Option<SocketAddr>,
    node: Option<Rockpool>,
}

impl Place {
    fn start(&mut self, seed: Option<SocketAddr>) -> SocketAddr {
        let p2p = self.p2p.map(|addr| addr.to_string());
        let seed = seed.map(|addr| addr.to_string());
        let flags = p2p.iter().flat_map(|addr| ["--p2p", addr]).chain(seed.iter().flat_map(|addr| ["--peer", addr]));
        let node = Rockpool::start(self.dir.path(), &flags.collect::<Vec<_>>());
        let addr = node.p2p;
        (self.p2p, self.node) = (Some(addr), Some(node));
        addr
    }

    fn stop(&mut self) {
        if let Some(mut node) = self.node.take() {
            assert!(node.stop().0.success());
        }
    }

    fn kill(&mut self) {
        if let Some(mut node) = self.node.take() {
            node.kill();
        }
    }
}

/// Those that a node has dialled, or was dialled by, are one connection of two: who is reached from the first by such ways.
fn reached(places: &[Place]) -> usize {
    let alive: Vec<(SocketAddr, &Rockpool)> = places.iter().filter_map(|place| Some((place.p2p?, place.node.as_ref()?))).collect();
    let mut ways = BTreeSet::new();
    for (addr, node) in &alive {
        let list: Value = serde_json::from_str(&node.get("/api/v1/peers").1).unwrap();
        for peer in list["peers"].as_array().unwrap() {
            // An inbound one's port is none that it listens at: its own list tells.
            if peer["direction"] == "outbound" && peer["up"] == true {
                let to: SocketAddr = peer["addr"].as_str().unwrap().parse().unwrap();
                ways.insert((*addr, to));
                ways.insert((to, *addr));
            }
        }
    }
    let alive: BTreeSet<SocketAddr> = alive.into_iter().map(|(addr, _)| addr).collect();
    let mut seen: BTreeSet<SocketAddr> = alive.iter().take(1).copied().collect();
    loop {
        let more: Vec<_> = ways.iter().filter(|(from, to)| seen.contains(from) && alive.contains(to) && !seen.contains(to)).collect();
        if more.is_empty() {
            return seen.len();
        }
        seen.extend(more.into_iter().map(|(_, to)| *to));
    }
}

/// Waits until all that run are one graph on one tip.
fn come_together(places: &[Place], what: &str) {
    let alive = places.iter().filter(|place| place.node.is_some()).count();
    until(&format!("{what}: one graph of {alive}"), || (reached(places) == alive).then_some(()));
    until(&format!("{what}: one tip of {alive}"), || {
        let tips: BTreeSet<_> = places.iter().filter_map(|place| Some(place.node.as_ref()?.tip())).collect();
        (tips.len() == 1).then_some(())
    });
}

/// Peers that a node has, by their addresses, of those that it dialled.
fn outbound(place: &Place) -> BTreeSet<SocketAddr> {
    let list: Value = serde_json::from_str(&place.node.as_ref().unwrap().get("/api/v1/peers").1).unwrap();
    let dialled = list["peers"].as_array().unwrap().iter().filter(|peer| peer["direction"] == "outbound" && peer["up"] == true);
    dialled.map(|peer| peer["addr"].as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn eight_nodes_that_know_one_seed_stay_one_network_without_it() {
    let mut rng = ChaCha12Rng::seed_from_u64(6);
    let mut places: Vec<Place> = (0..NODES).map(|_| Place { dir: temp(), p2p: None, node: None }).collect();
    let seed = places[0].start(None);
    for place in &mut places[1..] {
        place.start(Some(seed));
    }
    come_together(&places, "at first");
    // Each has heard of others than the seed, and has dialled one.
    for (number, place) in places.iter().enumerate().skip(1) {
        until(&format!("node {number} to find another"), || outbound(place).iter().any(|addr| *addr != seed).then_some(()));
    }

    // One mines, and never dies; a third of the others does, the seed among them sometimes, with what is under way.
    let mut miner = Miner::connect(places[1].node.as_ref().unwrap().stratum, ADDRESS);
    let mut mined = 0;
    for round in 0..ROUNDS {
        let mut doomed = BTreeSet::new();
        while doomed.len() < NODES / 3 {
            doomed.insert([0, 2, 3, 4, 5, 6, 7][rng.next_u32() as usize % 7]);
        }
        mined += u64::from(miner.mine().verdict.is_ok());
        doomed.iter().for_each(|number| places[*number].kill());
        mined += u64::from(miner.mine().verdict.is_ok());
        for number in &doomed {
            places[*number].start(Some(seed).filter(|_| *number > 0));
        }
        mined += u64::from(miner.mine().verdict.is_ok());
        come_together(&places, &format!("round {round}, {doomed:?} killed"));
        let (_, height) = places[0].node.as_ref().unwrap().tip();
        assert_eq!(height, mined, "round {round}: every share that was taken is there");
    }
    drop(miner);

    // All at once, in order, since a book is written once a minute only; and the seed never again: what they have is their books.
    places.iter_mut().for_each(Place::stop);
    for place in &mut places[1..] {
        place.start(None);
    }
    come_together(&places, "without the seed");
    let mut miner = Miner::connect(places[NODES - 1].node.as_ref().unwrap().stratum, ADDRESS);
    assert_eq!(miner.mine().verdict, Ok(()));
    come_together(&places, "and one more share");
    assert_eq!(places[1].node.as_ref().unwrap().tip().1, mined + 1);
}
