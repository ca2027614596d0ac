//! The simulator: whole nodes in one process; clock, network, disk and randomness from one seed.
//!
//! Each seed draws a world of three to six nodes with miners and perhaps attackers, and what goes wrong in it: see `faults` and `attack`.
//! After each step the invariants of `check` hold. Then all is mended, and all must come to one chain, serve their miners and come to rest.
//! A failure prints its seed.
//!
//! `SEED=n cargo test --test simulator` runs one seed, `SEEDS=n` so many.

#![expect(clippy::unwrap_used, reason = "tests")]

mod attack;
mod blocks;
mod check;
mod client;
mod drawn;
mod faults;
mod host;
mod miner;
mod outside;
mod portfolio;
mod rogue;
mod services;
mod stages;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::faults::Tally;
use crate::world::World;

/// Seeds that every run of the tests takes.
const SEEDS: u64 = 200;
/// Seeds at once.
const THREADS: usize = 2;

/// A number below `bound`.
fn draw(rng: &mut ChaCha12Rng, bound: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// A generator of its own.
fn fork(rng: &mut ChaCha12Rng) -> ChaCha12Rng {
    ChaCha12Rng::seed_from_u64(rng.next_u64())
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The story of a seed, from its beginning to its rest.
fn story(seed: u64) -> World {
    let told = Told(seed);
    let mut world = World::new(seed);
    world.run();
    std::mem::forget(told);
    world
}

#[test]
fn whatever_goes_wrong_all_come_to_one_chain_once_it_is_mended() {
    // RUST_LOG=debug tells what the nodes of a failed seed say.
    let _ = env_logger::builder().is_test(true).try_init();
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    };
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return tally;
            }
            tally.merge(&story(seed).tally);
        }
    };
    let tally = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        let mut all = Tally::default();
        threads.into_iter().for_each(|thread| all.merge(&thread.join().unwrap_or_else(|_| panic!("a seed failed"))));
        all
    });
    println!("{} seeds: {:#?}", seeds.end - seeds.start, tally.0);
    if seeds.end - seeds.start >= SEEDS {
        let attacks = attack::Kind::ALL.iter().map(|kind| format!("attack: {kind:?}"));
        let rogues = rogue::Kind::ALL.iter().map(|kind| format!("rogue miner: {kind:?}"));
        let cut = attack::Kind::ALL.iter().filter(|kind| kind.is_cut()).map(|kind| format!("cut: {kind:?}"));
        let rogues_cut = [rogue::Kind::Garbage, rogue::Kind::LongLine, rogue::Kind::Deaf].map(|kind| format!("rogue miner cut: {kind:?}"));
        let slow = ["messages that waited for a slow writer", "messages that waited for another slow stage"].map(str::to_owned);
        let v2 = ["connections that became v2", "handshakes of v2 that failed"].map(str::to_owned);
        for what in
            faults::WANTED.map(str::to_owned).into_iter().chain(slow).chain(v2).chain(attacks).chain(cut).chain(rogues).chain(rogues_cut)
        {
            assert!(tally.0.get(&what).is_some_and(|n| *n > 0), "no seed had any: {what}");
        }
    }
}

/// Seed 53. A node asked for shares, replaced the tip that it had named by another, and dropped its honest peer for
/// "shareheaders that do not follow each other": the answer was checked against the chain of then, not against what was asked.
#[test]
fn a_reorg_while_a_sync_is_answered_is_not_the_peers_fault() {
    story(53);
}

/// Seed 175. Miners found many shares a second, so that most uncles credited uncles 24 heights below them. A node had forgotten those
/// though its own chain credited them, fetched one, which waited for the next, down to where the chain began, and never came to the others'
/// chain.
#[test]
fn uncles_that_credit_uncles_all_the_way_down_keep_no_node_from_syncing() {
    story(175);
}

#[test]
fn twenty_nodes_that_know_one_each_become_one_network_and_stay_it_through_restarts() {
    let _ = env_logger::builder().is_test(true).try_init();
    // The first twice: what happens follows from the seed alone.
    let seeds = number("SEED").map_or(vec![0, 1, 2, 0], |seed| vec![seed; 2]);
    let grow = |seed: u64| {
        let told = Told(seed);
        let mut world = World::growing(seed);
        let grown = world.grow();
        std::mem::forget(told);
        println!("seed {seed}: {:?} connections of a node, {} restarts", grown.degrees, grown.restarts);
        assert!(grown.restarts > 6);
        world.trace()
    };
    let traces: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = seeds.iter().map(|&seed| (seed, scope.spawn(move || grow(seed)))).collect();
        threads.into_iter().map(|(seed, thread)| thread.join().unwrap_or_else(|_| panic!("seed {seed} failed"))).collect()
    });
    assert_eq!(traces.first(), traces.last());
    assert!(traces.len() == 2 || traces[0] != traces[1]);
}

#[test]
fn the_same_seed_leaves_the_same_trace() {
    for seed in [3, 4, 5] {
        assert_eq!(story(seed).trace(), story(seed).trace());
    }
    assert_ne!(story(3).trace(), story(4).trace());
}

/// Tells the seed if the story ends while it is held.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("failed: SEED={} cargo test --test simulator", self.0);
    }
}
