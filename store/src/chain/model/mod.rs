//! Random histories against a second implementation. `CHAINS=100000` in a release build runs as many; `SEED=n` one alone.

#![expect(clippy::unwrap_used, reason = "tests")]

mod based;
mod found;
mod node;
mod peers;
mod rows;
mod slow;
mod vectors;
mod world;

use std::collections::BTreeSet;
use std::panic::catch_unwind;

use rockpool_net::id::ShareId;
use rockpool_net::wire::share::Share;

use self::node::{Node, PEER, late, open};
use self::slow::Slow;
use self::world::World;
use super::{Chain, Offer, Source};
use crate::kv::{Kv, MemKv};

/// Random chains in a normal run.
const CHAINS: u64 = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A history as it is told to one node: what was not yet told, in no order, and what waits for something.
struct Told {
    world: World,
    node: Node,
    shares: Vec<ShareId>,
    blocks: Vec<[u8; 32]>,
    /// All shares that were told and are not held.
    again: Vec<ShareId>,
}

impl Told {
    fn new(seed: u64) -> Told {
        let world = World::new(seed);
        let node = Node::new(world.slow.params);
        let blocks = world.blocks[1..].to_vec();
        Told { world, node, shares: Vec::new(), blocks, again: Vec::new() }
    }

    /// One thing happens.
    fn step(&mut self) {
        match self.world.below(20) {
            0..8 => {
                if self.world.once_in(8) {
                    self.world.mine_block();
                    self.blocks.push(*self.world.blocks.last().unwrap());
                }
                let id = self.world.make_share();
                self.shares.push(id);
            }
            8..15 => self.tell_one(),
            15 => self.tell_block(),
            16..19 => {
                let at_most = self.world.below(4) as usize;
                self.node.confirm(&self.world.slow, at_most);
            }
            _ => self.retell(),
        }
        if self.world.once_in(4) {
            self.node.take(&self.world.slow);
            self.node.check_view(&self.world.slow);
        }
        if self.world.once_in(60) {
            let unsynced = self.node.kv.unsynced() as u32;
            let keep = if self.world.once_in(2) { unsynced } else { self.world.below(unsynced + 1) };
            self.again = self.world.made[1..].to_vec();
            self.node.restart(&self.world.slow, keep as usize);
            self.blocks.extend(self.world.blocks.iter().filter(|hash| self.node.chain.bitcoin().get(hash).is_none()));
        }
        self.node.check(&self.world.slow);
    }

    /// Any of the newest that were not told: children come before their parents.
    fn tell_one(&mut self) {
        let Some(last) = self.shares.len().checked_sub(1) else { return };
        let back = if self.world.once_in(3) { self.world.below(6) as usize } else { last };
        let id = self.shares.remove(last.saturating_sub(back));
        self.tell(id);
    }

    fn tell(&mut self, id: ShareId) {
        let source = if self.world.once_in(3) { Source::Own } else { Source::Peer };
        let share = self.world.slow.share(&id).clone();
        if self.node.offer(&self.world.slow, &share, source) != Offer::Taken {
            self.again.push(id);
        }
    }

    fn tell_block(&mut self) {
        if self.blocks.is_empty() {
            return;
        }
        let at = if self.world.once_in(2) { 0 } else { self.world.below(self.blocks.len() as u32) as usize };
        let block = self.world.slow.blocks[&self.blocks[at]].header;
        let told = self.node.chain.offer_blocks(&[block]);
        assert_eq!(told.bad, None);
        if told.missing.is_none() {
            self.blocks.remove(at);
        }
    }

    /// All that was told and not kept is told again, in the order of its making.
    fn retell(&mut self) {
        let mut again = std::mem::take(&mut self.again);
        again.sort_by_key(|id| self.world.made.iter().position(|made| made == id));
        again.dedup();
        again.into_iter().for_each(|id| self.tell(id));
    }

    /// All is told and proved.
    fn end(&mut self) {
        while !self.blocks.is_empty() {
            self.tell_block();
        }
        self.again.append(&mut self.shares);
        // What falls with a bad share of layout front may have to be told once more, as often as there are such.
        for _ in 0..4 {
            self.retell();
            while self.node.confirm(&self.world.slow, 8) > 0 {}
            self.node.check(&self.world.slow);
        }
        let (best, slow) = (self.world.best(), &self.world.slow);
        let score = |id: &ShareId| slow.share(id).score;
        if score(&self.node.chain.tip().id) < score(&best) {
            // Its first shares were too far below the tip: a sync brings them.
            assert!(self.node.chain.begin_sync(PEER));
            let mut told = BTreeSet::new();
            offer_chain(slow, &best, |share| {
                self.node.offer(slow, share, Source::Bulk(PEER));
                told.insert(share.id());
            });
            self.node.end_sync(&told);
            while self.node.confirm(slow, 8) > 0 {}
            self.node.check(slow);
        }
        assert_eq!(score(&self.node.chain.confirmed_tip().id), score(&best));
        self.node.take(slow);
        self.node.check_view(slow);
        let child = Share::clone(slow.share(&best));
        self.node.check_outputs(slow, &child);
    }

    /// The same index from scratch, and from the rows.
    fn again(&self) {
        let slow = &self.world.slow;
        let mut fresh = open(slow.params, &MemKv::new());
        let headers: Vec<[u8; 80]> = self.world.blocks[1..].iter().map(|hash| slow.blocks[hash].header).collect();
        assert_eq!(fresh.offer_blocks(&headers).bad, None);
        assert!(fresh.begin_sync(PEER));
        offer_chain(slow, &self.node.chain.tip().id, |share| {
            let fate = fresh.offer(late(), share, Source::Bulk(PEER));
            assert!(
                matches!(fate, Offer::Taken | Offer::Known),
                "{} at {}, {} uncles: {fate:?}",
                share.id(),
                share.height,
                share.uncles.len()
            );
        });
        fresh.end_sync();
        while fresh.confirm(8) > 0 {}
        let condemned = fresh.take_condemned();
        assert!(condemned.is_empty(), "{condemned:?}");
        self.node.assert_same_chain(&fresh);
        self.node.assert_same_chain(&reopened(slow, &self.node));
    }

    /// A share of what the view says is next is taken, uncles and all.
    fn mine_next(&mut self) {
        let next = self.node.view.next(self.world.slow.params, late());
        let builder = crate::testing::ShareBuilder::new(self.world.slow.params).uncles(&next.uncles).time(next.time);
        let share = builder.build(&self.world.slow, &next.parent);
        self.world.slow.add(&share);
        assert_eq!(self.node.offer(&self.world.slow, &share, Source::Own), Offer::Taken);
        while self.node.confirm(&self.world.slow, 8) > 0 {}
        assert_eq!(self.node.chain.confirmed_tip().id, share.id());
        self.node.check(&self.world.slow);
    }
}

/// Tells of a chain in order, each share behind the uncles that it credits.
fn offer_chain(slow: &Slow, tip: &ShareId, offer: impl FnMut(&Share)) {
    offer_chain_from(slow, tip, 1, offer);
}

/// The same from this height on.
fn offer_chain_from(slow: &Slow, tip: &ShareId, height: u32, mut offer: impl FnMut(&Share)) {
    for id in slow.line(tip).iter().rev().skip(height as usize) {
        let mut uncles: Vec<_> = slow.share(id).uncles.clone();
        uncles.sort_by_key(|uncle| slow.share(uncle).height);
        uncles.iter().chain([id]).for_each(|id| offer(slow.share(id)));
    }
}

fn reopened(slow: &Slow, node: &Node) -> Chain {
    let chain = open(slow.params, &node.kv as &dyn Kv);
    chain.sanity_check().unwrap();
    chain
}

fn run(seed: u64) -> u32 {
    let mut told = Told::new(seed);
    for _ in 0..40 + told.world.below(200) {
        told.step();
    }
    told.end();
    told.again();
    told.mine_next();
    told.node.chain.tip().height
}

#[test]
fn random_chains_agree_with_a_second_implementation() {
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CHAINS").unwrap_or(CHAINS),
    };
    let (mut heights, mut failed) = (0, Vec::new());
    for seed in seeds {
        match catch_unwind(|| run(seed)) {
            Ok(height) => heights += height,
            Err(_) => {
                eprintln!("that was SEED={seed}");
                failed.push(seed);
            }
        }
    }
    assert!(failed.is_empty(), "seeds {failed:?}");
    eprintln!("{heights} heights");
}
