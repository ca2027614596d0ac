//! A network that grows from one known address each: twenty nodes find each other, and go on finding each other while a third of them are
//! restarted at random, and the nodes that all began with among them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_net::pipes::{Net, Weather};
use rockpool_store::params::{Network, params};
use rockpool_workers::embedded::EmbeddedChain;

use super::{Mining, SETTLE_MAX, World};
use crate::check::Agreed;
use crate::drawn::address;
use crate::faults::{Act, Fault, Tally};
use crate::host::{Machine, STRATUM, host_of};
use crate::miner::Miner;
use crate::stages::Pace;
use crate::{draw, fork};

/// Nodes.
const NODES: usize = 20;
/// Time that they are given to find each other.
const GROWTH: Duration = Duration::from_secs(120);
/// Time in which restarts go on after it.
const RESTARTS: Duration = Duration::from_secs(120);
/// How long a node that was started may take to be one of them again.
const JOINED: Duration = Duration::from_secs(90);
/// Fewest others that a node should know how to stay with by then.
const PEERS_MIN: usize = 4;

/// What a grown network looks like.
pub struct Grown {
    /// Fewest and most connections of a node with others at the end of its growth.
    pub degrees: (usize, usize),
    /// Restarts.
    pub restarts: u64,
}

impl World {
    /// Twenty nodes, each of which is given the address of one other: all of the same, or each of one that was there before.
    pub fn growing(seed: u64) -> World {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let params = params(Network::Regtest);
        let weather = Weather { delay: (Duration::from_micros(500), Duration::from_millis(80)), chop: usize::MAX, capacity: 64 << 10 };
        let mut net = Net::new(rng.next_u64(), NODES + 2, weather);
        let star = draw(&mut rng, 2) == 0;
        let mut known = |at: usize| match at {
            0 => 1,
            _ if star => 0,
            _ => draw(&mut rng, at as u64) as usize,
        };
        let known: Vec<usize> = (0..NODES).map(&mut known).collect();
        let pace = || Pace { odds: 0, wait_max_us: 0 };
        let mut machines: Vec<_> = known.iter().enumerate().map(|(at, known)| Machine::new(at, &[*known], pace(), &mut rng)).collect();
        machines.iter_mut().for_each(|machine| machine.start(&mut net, params));
        // A third of them, the one that all know among them; each goes down for a while, again and again.
        let mut third = vec![0];
        while third.len() < NODES / 3 {
            let node = 1 + draw(&mut rng, NODES as u64 - 1) as usize;
            if !third.contains(&node) {
                third.push(node);
            }
        }
        let mut acts: Vec<Act> = Vec::new();
        for node in &third {
            let mut at = GROWTH + Duration::from_secs(draw(&mut rng, 40));
            while at < GROWTH + RESTARTS {
                let back = at + Duration::from_secs(2 + draw(&mut rng, 40));
                let act = |at, begins| Act { at, begins, fault: Fault::Crash(*node) };
                acts.extend([act(at, true), act(back, false)]);
                at = back + Duration::from_secs(30 + draw(&mut rng, 90));
            }
        }
        acts.sort_by_key(|act| act.at);
        // Miners at nodes that stay.
        let stay: Vec<usize> = (0..NODES).filter(|at| !third.contains(at)).collect();
        let miners = (0..2).map(|i| {
            let node = stay[draw(&mut rng, stay.len() as u64) as usize];
            (Miner::new(NODES + i, Net::addr(node, STRATUM), &address(i as u8), fork(&mut rng)), node)
        });
        World {
            miners: miners.collect(),
            net,
            machines,
            attackers: Vec::new(),
            rogues: Vec::new(),
            they_stay: false,
            bitcoin: EmbeddedChain::new(params, None),
            params,
            acts: acts.into(),
            mining: GROWTH + RESTARTS,
            wrong_clocks: BTreeSet::new(),
            troubled: true,
            agreed: Agreed::default(),
            tally: Tally::default(),
            moment: (Duration::ZERO, 0),
        }
    }

    /// Grows, is restarted, and must be one network all the time and on one tip at the end.
    pub fn grow(&mut self) -> Grown {
        while self.moment.0 < GROWTH {
            self.step(Mining::All);
        }
        let degrees: Vec<usize> = self.neighbours().values().map(BTreeSet::len).collect();
        let degrees = (degrees.iter().copied().min().unwrap_or(0), degrees.iter().copied().max().unwrap_or(0));
        assert!(degrees.0 >= PEERS_MIN, "a node has {} peers: {:?}", degrees.0, self.neighbours());
        let mut look = GROWTH;
        while self.moment.0 < self.mining || !self.acts.is_empty() {
            self.step(Mining::All);
            if self.moment.0 >= look {
                self.assert_joined();
                look += Duration::from_secs(5);
            }
        }
        let rest = self.moment.0 + JOINED;
        while self.moment.0 < rest {
            self.step(Mining::All);
        }
        self.assert_joined();
        self.until("one chain", SETTLE_MAX, Mining::First, World::at_one);
        Grown { degrees, restarts: self.tally.0.get(Fault::Crash(0).name()).copied().unwrap_or(0) }
    }

    /// With whom each running node has a connection that both have.
    fn neighbours(&self) -> BTreeMap<usize, BTreeSet<usize>> {
        let ends = |at: usize| self.machines[at].process.iter().flat_map(|process| process.peer_addrs().map(host_of)).collect();
        let ends: Vec<BTreeSet<usize>> = (0..NODES).map(ends).collect();
        let both = |at: usize| ends[at].iter().copied().filter(|to| *to < NODES && *to != at && ends[*to].contains(&at)).collect();
        (0..NODES).filter(|at| self.machines[*at].process.is_some()).map(|at| (at, both(at))).collect()
    }

    /// All nodes that have run for a while are of one network.
    fn assert_joined(&self) {
        let (neighbours, now) = (self.neighbours(), self.moment.0);
        let settled: Vec<usize> = neighbours.keys().copied().filter(|at| now >= self.machines[*at].started + JOINED).collect();
        let (mut found, mut next) = (BTreeSet::from([settled[0]]), VecDeque::from([settled[0]]));
        while let Some(at) = next.pop_front() {
            next.extend(neighbours[&at].iter().copied().filter(|to| found.insert(*to)));
        }
        let lost: Vec<_> = settled.iter().filter(|at| !found.contains(at)).collect();
        assert!(lost.is_empty(), "{now:?}: {lost:?} are cut off: {neighbours:?}");
    }
}
