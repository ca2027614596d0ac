//! Nodes without a share chain: `--solo` and `--standalone`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bitcoin::Block;
use bitcoin::consensus::deserialize;
use rockpool_net::id::ConnId;
use rockpool_net::limits::TICKETS_PER_MINER;
use rockpool_net::wire::share::Script;
use rockpool_store::kv::MemKv;
use rockpool_workers::embedded::EmbeddedChain;
use rockpool_workers::jobs::{Fate, SubmitJob};
use rockpool_workers::limits::{CREDITS_TOLD, DISK_FULL_LOOK};

use crate::config::Mode;
use crate::limits::{BOARD_AGE_MAX, FREE_DIFFICULTY_MAX, JUDGED_STALL_MAX};
use crate::miner::{State, Tally, hello};
use crate::stratum::request::login;
use crate::testing::{ADDRESS, Inline, STRATUM, World, regtest};

const OTHER: &str = "bcrt1q6z64a43mjgkcq0ul2znwneq3spghrlau9slefp";
/// The easiest that there is.
const EASY: f64 = 1e-5;

/// A miner that searches, on the wire.
struct Device {
    conn: ConnId,
    user: &'static str,
    state: State,
    tally: Tally,
}

impl Device {
    fn plug_in(world: &mut World<Inline>, user: &'static str, difficulty: f64) -> Device {
        let conn = world.connect(STRATUM);
        let mut device = Device { conn, user, state: State::default(), tally: Tally::default() };
        world.feed(conn, &hello(user, Some(difficulty)));
        device.listen(world);
        device
    }

    fn listen(&mut self, world: &mut World<Inline>) {
        world.settle();
        for line in world.taken(self.conn).split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.state.hear(line, &self.tally).unwrap();
        }
    }

    /// Submits so many hashes that meet its difficulty.
    fn submit(&mut self, world: &mut World<Inline>, count: u64) {
        let before = self.tally.accepted.load(Relaxed);
        for _ in 0..count {
            let nonce = std::iter::repeat_with(|| self.state.search(1 << 20).1).find_map(|nonce| nonce).unwrap();
            let line = self.state.submit(self.user, nonce).unwrap();
            world.feed(self.conn, &line);
            self.listen(world);
        }
        assert_eq!(self.tally.accepted.load(Relaxed), before + count);
    }
}

fn script(address: &str) -> Script {
    login(address, regtest().network).unwrap().0
}

/// Whom a found block pays, and how much; Bitcoin takes it.
fn paid(bitcoin: &EmbeddedChain, block: &SubmitJob) -> BTreeMap<Script, u64> {
    assert_eq!(bitcoin.submit(&block.block, 1_700_000_000), Fate::Accepted);
    let block: Block = deserialize(&block.block).unwrap();
    let outputs = block.txdata[0].output.iter();
    outputs.filter_map(|output| Some((Script::from_script_pubkey(output.script_pubkey.as_bytes())?, output.value.to_sat()))).collect()
}

fn blocks(world: &mut World<Inline>) -> Vec<SubmitJob> {
    std::mem::take(&mut world.node.stages_mut().blocks)
}

#[test]
fn solo_a_block_pays_all_to_whoever_finds_it() {
    let mut world = World::whole_in(Mode::Solo, &Arc::new(MemKv::new()));
    let mut bitcoin = EmbeddedChain::new(regtest(), None);
    world.template(&bitcoin, 1);
    for user in [ADDRESS, OTHER] {
        let mut device = Device::plug_in(&mut world, user, EASY);
        while world.node.stages_mut().blocks.is_empty() {
            device.submit(&mut world, 1);
        }
        let found = blocks(&mut world).remove(0);
        let value = regtest().subsidy(1);
        assert_eq!(paid(&bitcoin, &found), BTreeMap::from([(script(user), value)]));
        bitcoin = EmbeddedChain::new(regtest(), None);
    }
    assert_eq!(world.node.chain().view.tip().height, 0, "there is no share chain");
}

/// On regtest, where every hash that a CPU submits could be a block, a miner's difficulty is its own affair.
#[test]
fn solo_the_difficulty_is_not_that_of_a_regtest_block() {
    let mut world = World::whole_in(Mode::Solo, &Arc::new(MemKv::new()));
    world.template(&EmbeddedChain::new(regtest(), None), 1);
    for (wanted, told) in [(1e-5, 1e-5), (10.0 * FREE_DIFFICULTY_MAX, FREE_DIFFICULTY_MAX)] {
        let device = Device::plug_in(&mut world, ADDRESS, wanted);
        assert_eq!(device.state.difficulty, Some(told));
    }
}

#[test]
fn standalone_a_block_pays_by_the_work_that_each_miner_did_lately() {
    let kv = Arc::new(MemKv::new());
    let mut world = World::whole_in(Mode::Standalone, &kv);
    let bitcoin = EmbeddedChain::new(regtest(), None);
    world.template(&bitcoin, 1);
    let mut small = Device::plug_in(&mut world, ADDRESS, 1e-5);
    let mut large = Device::plug_in(&mut world, OTHER, 3e-5);
    large.submit(&mut world, 3);
    small.submit(&mut world, 3);
    assert_eq!(kv.unsynced(), 0, "an accepted submit has reached the disk");
    // New work pays by it, and work is made anew now and then.
    world.pass(CREDITS_TOLD.max(BOARD_AGE_MAX));
    small.submit(&mut world, 1);
    large.submit(&mut world, 1);
    blocks(&mut world);
    world.template(&bitcoin, 2);
    small.listen(&mut world);
    small.submit(&mut world, 1);
    let found = blocks(&mut world).remove(0);
    let (pays, value) = (paid(&bitcoin, &found), regtest().subsidy(1));
    assert_eq!(pays.values().sum::<u64>(), value);
    // Told with the first submit of the second round: three of either, and one more of the small one.
    let part = pays[&script(ADDRESS)] as f64 / value as f64;
    assert!((part - 4.0 / 13.0).abs() < 1e-3, "{part}");
    drop(world);

    // A restart knows what was done.
    let mut world = World::whole_in(Mode::Standalone, &kv);
    world.template(&bitcoin, 1);
    let mut third = Device::plug_in(&mut world, ADDRESS, 1e-5);
    third.submit(&mut world, 1);
    let found = blocks(&mut world).remove(0);
    let part = paid(&bitcoin, &found)[&script(ADDRESS)] as f64 / value as f64;
    assert!((part - 5.0 / 17.0).abs() < 1e-3, "{part}");
    assert_eq!(world.node.chain().view.tip().height, 0, "there is no share chain");
}

#[test]
fn standalone_the_first_block_of_a_pool_pays_its_finder() {
    let mut world = World::whole_in(Mode::Standalone, &Arc::new(MemKv::new()));
    let bitcoin = EmbeddedChain::new(regtest(), None);
    world.template(&bitcoin, 1);
    let mut device = Device::plug_in(&mut world, OTHER, 1e-5);
    device.submit(&mut world, 1);
    let found = blocks(&mut world).remove(0);
    assert_eq!(paid(&bitcoin, &found), BTreeMap::from([(script(OTHER), regtest().subsidy(1))]));
}

/// Every submit waits for the disk there; a block in it must not.
/// A card that is busy with itself for a minute: what was sent before it was known waits, and no block with it.
#[test]
fn standalone_a_disk_that_hangs_holds_back_pay_and_no_block() {
    let mut world = World::whole_in(Mode::Standalone, &Arc::new(MemKv::new()));
    world.template(&EmbeddedChain::new(regtest(), None), 1);
    let mut device = Device::plug_in(&mut world, OTHER, 1e-5);
    world.node.stages_mut().hangs = true;
    let mut found = Vec::new();
    for number in 0..4 * u32::from(TICKETS_PER_MINER) {
        let nonce = std::iter::repeat_with(|| device.state.search(1 << 20).1).find_map(|nonce| nonce).unwrap();
        let line = device.state.submit(device.user, nonce).unwrap();
        world.feed(device.conn, &line);
        device.listen(&mut world);
        found.push(blocks(&mut world).len());
        if number == 3 {
            world.pass(JUDGED_STALL_MAX);
        }
    }
    assert!(found[found.len() / 2..].contains(&1), "{found:?}");
    assert_eq!(device.tally.accepted.load(Relaxed), 0);
    world.node.stages_mut().hangs = false;
    device.listen(&mut world);
    assert_eq!(device.tally.accepted.load(Relaxed), 4, "what was under way is paid");
    device.submit(&mut world, 1);
}

#[test]
fn standalone_a_full_disk_holds_back_pay_and_no_block() {
    let kv = Arc::new(MemKv::new());
    let mut world = World::whole_in(Mode::Standalone, &kv);
    let bitcoin = EmbeddedChain::new(regtest(), None);
    world.template(&bitcoin, 1);
    let mut device = Device::plug_in(&mut world, OTHER, 1e-5);
    kv.set_free_space(0);
    let mut found = Vec::new();
    for _ in 0..4 * u32::from(TICKETS_PER_MINER) {
        let nonce = std::iter::repeat_with(|| device.state.search(1 << 20).1).find_map(|nonce| nonce).unwrap();
        let line = device.state.submit(device.user, nonce).unwrap();
        world.feed(device.conn, &line);
        device.listen(&mut world);
        found.push(blocks(&mut world).len());
    }
    assert!(found[found.len() / 2..].contains(&1), "{found:?}");
    let of = |tally: &Tally| (tally.accepted.load(Relaxed), tally.refused.load(Relaxed));
    let (none, refused) = of(&device.tally);
    assert!(none == 0 && refused > 0, "who is not paid for what it does is told so");
    kv.set_free_space(u64::MAX);
    world.pass(DISK_FULL_LOOK);
    device.listen(&mut world);
    let (stored, _) = of(&device.tally);
    assert!(stored > 0, "what was under way is paid");
    device.submit(&mut world, 1);
    assert_eq!(of(&device.tally), (stored + 1, refused));
}
