//! The simulator: whole nodes in one process; clock, network, disk and randomness from one seed.
//!
//! Three nodes in a line, A–B–C, with a miner at A and one at C. A partition cuts the line for a drawn time while both sides mine on; then
//! it heals, and all must come to one chain. After each step the invariants hold; a failure prints its seed.
//!
//! `SEED=n cargo test --test simulator` runs one seed, `SEEDS=n` so many.

#![expect(clippy::unwrap_used, reason = "tests")]

mod miner;
mod stages;
mod world;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng;

use crate::world::World;

/// Seeds that every run of the tests takes.
const SEEDS: u64 = 20;

/// A number below `bound`.
fn draw(rng: &mut ChaCha12Rng, bound: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(bound)) >> 64) as u64
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn a_partition_heals_and_all_come_to_one_chain() {
    // RUST_LOG=debug tells what the nodes of a failed seed say.
    let _ = env_logger::builder().is_test(true).try_init();
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let told = Told(seed);
        let mut world = World::new(seed);
        world.run();
        std::mem::forget(told);
    }
}

#[test]
fn the_same_seed_leaves_the_same_trace() {
    let trace = |seed| {
        let mut world = World::new(seed);
        world.run();
        world.trace()
    };
    assert_eq!(trace(3), trace(3));
    assert_ne!(trace(3), trace(4));
}

/// Tells the seed if the test ends while it is held.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("failed: SEED={} cargo test --test simulator", self.0);
    }
}
