//! The world of one seed: nodes, miners, Bitcoin, what goes wrong between them, and what must come of it.

#[path = "growing.rs"]
mod growing;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_net::close::CloseReason;
use rockpool_net::pipes::Net;
use rockpool_net::sha256::sha256d;
use rockpool_store::chain::Chain;
use rockpool_store::kv::Kv;
use rockpool_store::params::{Network, Params, params};
use rockpool_workers::embedded::EmbeddedChain;

use crate::attack::{self, Attacker};
use crate::check::{self, Agreed};
use crate::drawn::{address, pace, pick, topology, weather};
use crate::faults::{Act, Fault, Tally, plan};
use crate::host::{Machine, P2P, Process, STRATUM, host_of};
use crate::miner::Miner;
use crate::rogue::{self, Rogue};
use crate::{draw, fork};

/// How long all may take to come to one chain once everything is mended: redialling backs off to a minute, and a branch whose times lay
/// ahead of the others' clocks has to be outgrown by one miner.
const SETTLE_MAX: Duration = Duration::from_secs(600);
/// How long until every miner has found a share again.
const SERVED_MAX: Duration = Duration::from_secs(180);
/// How long until everything is at rest when nobody mines.
const REST_MAX: Duration = Duration::from_secs(120);
/// Simulated time of rest in which turns are counted, and the most that one node may take in a second with nothing to do.
const IDLE: (Duration, u64) = (Duration::from_secs(10), 10);
/// Steps at one moment: more is a spin.
const STEPS_MAX: usize = 10_000;

/// Everything.
pub struct World {
    net: Net,
    machines: Vec<Machine>,
    /// Miners, and the node that each mines at.
    miners: Vec<(Miner, usize)>,
    /// Hostile peers, and the node that each attacks.
    attackers: Vec<(Attacker, usize)>,
    rogues: Vec<Rogue>,
    /// Whether they go on when everything else is mended.
    they_stay: bool,
    bitcoin: EmbeddedChain,
    params: &'static Params,
    acts: VecDeque<Act>,
    /// How long all miners mine.
    mining: Duration,
    /// Nodes whose clock was wrong at some time.
    wrong_clocks: BTreeSet<usize>,
    /// Whether anything goes wrong at all.
    troubled: bool,
    agreed: Agreed,
    /// What went wrong and was felt.
    pub tally: Tally,
    /// The last moment and the steps taken at it.
    moment: (Duration, usize),
}

/// Who mines.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mining {
    All,
    /// The first miner, whose node's clock never ran ahead.
    First,
    Nobody,
}

impl World {
    /// The world of a seed, at its beginning.
    pub fn new(seed: u64) -> World {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let params = params(Network::Regtest);
        let (weather, tiny) = weather(&mut rng);
        // Where every byte travels alone, less is worth watching.
        let nodes = 3 + draw(&mut rng, if tiny { 2 } else { 4 }) as usize;
        let mining = Duration::from_secs(if tiny { 15 } else { 40 + draw(&mut rng, 80) });
        let miners = 1 + draw(&mut rng, 3) as usize;
        let (attackers, rogues) = if draw(&mut rng, 2) == 0 { (1 + draw(&mut rng, 3), draw(&mut rng, 3)) } else { (0, draw(&mut rng, 2)) };
        let honest = nodes + miners;
        let hosts = honest + (attackers + rogues) as usize;
        let mut net = Net::new(rng.next_u64(), hosts, weather);
        let edges = topology(&mut rng, nodes);
        let mut machines: Vec<Machine> = (0..nodes)
            .map(|at| {
                let peers: Vec<_> = edges.iter().filter(|(from, _)| *from == at).map(|(_, to)| *to).collect();
                Machine::new(at, &peers, pace(&mut rng), &mut rng)
            })
            .collect();
        machines.iter_mut().for_each(|machine| machine.start(&mut net, params));
        let miners: Vec<_> = (0..miners)
            .map(|i| {
                let node = draw(&mut rng, nodes as u64) as usize;
                (Miner::new(nodes + i, Net::addr(node, STRATUM), &address(i as u8), fork(&mut rng)), node)
            })
            .collect();
        let attackers = (0..attackers as usize).map(|i| {
            let (kind, node) = (*pick(&mut rng, &attack::Kind::ALL), draw(&mut rng, nodes as u64) as usize);
            (Attacker::new(kind, honest + i, Net::addr(node, P2P), params, fork(&mut rng)), node)
        });
        let attackers: Vec<_> = attackers.collect();
        let rogues = (0..rogues as usize).map(|i| {
            let (kind, node) = (*pick(&mut rng, &rogue::Kind::ALL), draw(&mut rng, nodes as u64) as usize);
            Rogue::new(kind, honest + attackers.len() + i, Net::addr(node, STRATUM), &address(100), fork(&mut rng))
        });
        let rogues: Vec<_> = rogues.collect();
        let they_stay = draw(&mut rng, 2) == 0;
        let acts: VecDeque<Act> = plan(&mut rng, nodes, hosts, miners[0].1, mining, if tiny { 20 } else { 600 }).into();
        let troubled = !acts.is_empty() || attackers.iter().any(|(attacker, _)| attacker.kind == attack::Kind::EndlessSync);
        let wrong_clocks = acts.iter().filter_map(|act| act.fault.wrong_clock()).collect();
        let bitcoin = EmbeddedChain::new(params, None);
        let (agreed, tally, moment) = (Agreed::default(), Tally::default(), (Duration::ZERO, 0));
        World {
            net,
            machines,
            miners,
            attackers,
            rogues,
            they_stay,
            bitcoin,
            params,
            acts,
            mining,
            wrong_clocks,
            troubled,
            agreed,
            tally,
            moment,
        }
    }

    /// Mines while things go wrong, mends everything, and demands what must hold then.
    pub fn run(&mut self) {
        while self.moment.0 < self.mining || !self.acts.is_empty() {
            self.step(if self.moment.0 < self.mining { Mining::All } else { Mining::Nobody });
        }
        self.mend();
        if !self.they_stay {
            self.they_leave();
        }
        // Of equal branches everyone keeps the first seen: it takes one more share to tell them apart.
        self.until("one chain", SETTLE_MAX, Mining::First, World::at_one);
        let before: Vec<_> = self.miners.iter().map(|(miner, _)| miner.acknowledged.len()).collect();
        let served = |world: &mut World| world.miners.iter().zip(&before).all(|((miner, _), before)| miner.acknowledged.len() > *before);
        self.until("all miners served", SERVED_MAX, Mining::All, served);
        self.until("one chain again", SETTLE_MAX, Mining::First, World::at_one);
        self.they_leave();
        self.until("rest", REST_MAX, Mining::Nobody, World::at_rest);
        self.idle();
        self.check_end();
        let felt = self.net.felt();
        self.tally.add("pieces held", felt.held);
        self.tally.add("writes chopped", felt.chopped);
        self.tally.add("pipes full", felt.full);
        self.tally.add("calls interrupted", felt.interrupted);
        self.tally.add("dials refused", felt.refused);
        self.tally.add("accepts without a descriptor", felt.exhausted);
    }

    /// A number that differs between two worlds in which anything differed.
    pub fn trace(&self) -> [u8; 32] {
        let tips = self.machines.iter().filter_map(Machine::tip).flat_map(|tip| tip.id.0);
        sha256d(&tips.chain(self.net.trace().to_le_bytes()).collect::<Vec<_>>())
    }

    /// The next moment at which anything happens, and what happens then.
    fn step(&mut self, mining: Mining) {
        let machines = self.machines.iter().filter_map(Machine::due);
        let miners = self.miners.iter().map(|(miner, _)| miner.due());
        let attackers = self.attackers.iter().map(|(attacker, _)| attacker.due());
        let rogues = self.rogues.iter().map(Rogue::due);
        let acts = self.acts.front().map(|act| act.at);
        let next = self.net.next().into_iter().chain(machines).chain(miners).chain(attackers).chain(rogues).chain(acts).min().unwrap();
        let now = next.max(self.moment.0);
        self.moment = if now == self.moment.0 { (now, self.moment.1 + 1) } else { (now, 0) };
        assert!(self.moment.1 < STEPS_MAX, "something spins at {now:?}: {}", self.describe());
        self.net.advance(now);
        while self.acts.front().is_some_and(|act| act.at <= now) {
            let act = self.acts.pop_front().unwrap();
            self.act(act);
        }
        for at in 0..self.machines.len() {
            if self.machines[at].step(&mut self.net, &self.bitcoin) {
                self.check(at);
            }
        }
        for (i, (miner, node)) in self.miners.iter_mut().enumerate() {
            miner.step(&mut self.net, mining == Mining::All || (mining == Mining::First && i == 0));
            self.machines[*node].acknowledge(miner);
        }
        for (attacker, node) in &mut self.attackers {
            let view = self.machines[*node].process.as_ref().map(|process| &process.node.chain().view);
            attacker.step(&mut self.net, view);
        }
        self.rogues.iter_mut().for_each(|rogue| rogue.step(&mut self.net));
    }

    /// Steps until something holds.
    fn until(&mut self, what: &str, within: Duration, mining: Mining, holds: impl Fn(&mut World) -> bool) {
        let begun = self.moment.0;
        let last = begun + within;
        while !holds(self) {
            self.step(mining);
            assert!(self.moment.0 < last, "no {what} within {within:?}: {}", self.describe());
        }
        log::info!("{:?}: {what} after {:?}", self.moment.0, self.moment.0 - begun);
    }

    /// A fault begins or ends.
    fn act(&mut self, act: Act) {
        let Act { at: now, begins, fault } = act;
        log::info!("{now:?}: {fault:?} {}", if begins { "begins" } else { "ends" });
        let nodes = self.machines.len();
        match fault {
            Fault::Clog(host) => self.net.clog(host, begins),
            Fault::Cut(from, to) => self.net.cut(from, to, begins),
            Fault::Partition(last) => {
                let sides = (0..=last).flat_map(|a| (last + 1..nodes).map(move |b| (a, b)));
                sides.for_each(|(a, b)| self.net.partition(a, b, begins));
            }
            Fault::Reset(a, b) if begins => {
                let resets = self.net.reset(a, b);
                self.tally.add("connections reset", resets as u64);
            }
            Fault::Reset(..) => {}
            Fault::Refuse(host) => self.net.refuse(host, begins),
            Fault::Exhaust(host) => self.net.exhaust(host, begins),
            Fault::Step(host, ms) => self.net.set_wall(host, if begins { ms } else { 0 }),
            Fault::Drift(host, ms) if begins => self.net.drift(host, ms),
            Fault::Freeze(host) if begins => self.net.freeze(host),
            Fault::Drift(host, _) | Fault::Freeze(host) => self.net.set_wall(host, 0),
            Fault::Suspend(host, machine) => {
                self.machines[host].asleep = begins;
                if machine {
                    self.net.clog(host, begins);
                }
            }
            Fault::Stall(host, stage) => {
                if let Some(process) = &mut self.machines[host].process {
                    process.stages.stall(stage, begins);
                }
            }
            Fault::DiskFull(host) => self.machines[host].disk.set_free_space(if begins { 0 } else { u64::MAX }),
            Fault::Cold(host) => self.machines[host].disk.set_cold(begins),
            Fault::Interrupt(one_in) => self.net.interrupt(if begins { one_in as usize } else { 0 }),
            Fault::Crash(host) if begins => self.crash(host),
            Fault::Crash(host) => self.restart(host),
        }
        if begins {
            self.tally.add(fault.name(), 1);
        }
    }

    fn crash(&mut self, host: usize) {
        let now = self.moment.0;
        let machine = &mut self.machines[host];
        let Some(process) = &machine.process else { return };
        let recovering = machine.started > Duration::ZERO && now < machine.started + Duration::from_secs(3);
        self.tally.add("crashes during recovery", u64::from(recovering));
        self.tally.waited(process);
        let lost = machine.crash(&mut self.net);
        self.tally.add("batches lost in crashes", lost);
        for (height, id) in &machine.acknowledged {
            assert!(machine.stores(*height, id), "share {id} at height {height} was acknowledged and is lost in a crash of node {host}");
        }
    }

    fn restart(&mut self, host: usize) {
        let machine = &mut self.machines[host];
        if machine.process.is_none() {
            machine.start(&mut self.net, self.params);
        }
    }

    /// Everything is as it should be again.
    fn mend(&mut self) {
        self.net.heal();
        for host in 0..self.machines.len() {
            self.net.set_wall(host, 0);
            self.machines[host].asleep = false;
            self.restart(host);
        }
    }

    fn they_leave(&mut self) {
        for (attacker, _) in &mut self.attackers {
            attacker.leave(&mut self.net);
            self.tally.add(format!("attack: {:?}", attacker.kind), std::mem::take(&mut attacker.done));
        }
        for rogue in &mut self.rogues {
            rogue.leave(&mut self.net);
            self.tally.add(format!("rogue miner: {:?}", rogue.kind), std::mem::take(&mut rogue.done));
        }
    }

    fn check(&mut self, at: usize) {
        let honest = self.machines.len() + self.miners.len();
        let machine = &mut self.machines[at];
        let Some(process) = &mut machine.process else { return };
        for (addr, why) in process.ended.drain(..) {
            let host = host_of(addr);
            assert!(host >= honest || !why.is_fault(), "node {at} cuts honest host {host}: {why}");
            // Who of the others is cut by the node, and not by the line or by himself.
            if host >= honest && !matches!(why, CloseReason::Remote | CloseReason::Socket(_)) {
                let host = host - honest;
                let attacker = self.attackers.get(host).map(|(attacker, _)| format!("cut: {:?}", attacker.kind));
                let rogue = || format!("rogue miner cut: {:?}", self.rogues[host - self.attackers.len()].kind);
                self.tally.add(attacker.unwrap_or_else(rogue), 1);
            }
        }
        check::hub(at, process);
        check::chain(self.params, machine, &mut self.agreed);
    }

    /// Whether all nodes are on one chain.
    fn at_one(&mut self) -> bool {
        let tip = self.machines[0].tip().map(|tip| tip.id);
        self.machines.iter().all(|machine| machine.tip().map(|tip| tip.id) == tip)
    }

    /// Whether nothing is under way anywhere.
    fn at_rest(&mut self) -> bool {
        let quiet = |process: &mut Process| {
            process.stages.quiet()
                && process.hub.outlet().tickets_out() == 0
                && process.hub.inbox() == 0
                && process.hub.outlet().unsent() == 0
        };
        self.at_one()
            && self.miners.iter().all(|(miner, _)| miner.waiting() == 0)
            && self.machines.iter_mut().all(|machine| machine.process.as_mut().is_some_and(quiet))
    }

    /// Nobody does anything: nothing may keep a node busy.
    fn idle(&mut self) {
        let turns = |world: &World| -> Vec<_> { world.machines.iter().filter_map(|m| m.process.as_ref()).map(|p| p.turns).collect() };
        let (before, end) = (turns(self), self.moment.0 + IDLE.0);
        while self.moment.0 < end {
            self.step(Mining::Nobody);
        }
        for (at, (before, after)) in before.into_iter().zip(turns(self)).enumerate() {
            let [worked, own] = [after[0] - before[0], after[1] - before[1]];
            // After each piece that came or went, there may be one more that finds nothing left.
            assert!(
                own <= worked + IDLE.1 * IDLE.0.as_secs(),
                "node {at} takes {own} turns by itself in {:?} of rest, {worked} others",
                IDLE.0
            );
        }
    }

    fn check_end(&mut self) {
        for machine in &mut self.machines {
            let (at, process) = (machine.at, machine.process.as_ref().unwrap());
            let (view, index) = (&process.node.chain().view, process.stages.chain());
            assert_eq!(view.confirmed_tip().id, index.confirmed_tip().id, "view and index of node {at} agree");
            check::payouts(self.params, view, true, &mut self.agreed);
            self.tally.waited(process);
            for (height, id) in &machine.acknowledged {
                assert!(machine.stores(*height, id), "share {id} was acknowledged and is not stored at node {at}");
            }
            // What each keeps on disk opens again to the same tip.
            let reopened = Chain::open(self.params, [1, 2], &*machine.disk as &dyn Kv).unwrap();
            assert_eq!(reopened.confirmed_tip().id, view.confirmed_tip().id, "restart of node {at} from disk");
        }
        for (miner, node) in &self.miners {
            // A job outlived by its Bitcoin block is stale: the one refusal that honest miners meet where all is well. A node whose clock
            // is wrong sees its own work as too far ahead; one that was cut off or slept finds the others far ahead; and while a chain of
            // more work is not yet known to be wrong, ours is far below it.
            let excused = |error: &serde_json::Value| match error[1].as_str().unwrap() {
                "its time or its parent is not known to this node" => self.wrong_clocks.contains(node),
                "too far below the tip" => self.troubled,
                _ => error[0] == 21,
            };
            assert!(miner.refused.iter().all(excused), "at node {node}: {:?}", miner.refused);
        }
    }

    fn describe(&mut self) -> String {
        let describe = |machine: &mut Machine| {
            let Some(process) = &mut machine.process else { return "down".to_owned() };
            let view = &process.node.chain().view;
            let (tip, confirmed) = (view.tip().height, view.confirmed_tip());
            let (height, id, score, time) = (confirmed.height, confirmed.id, confirmed.score, confirmed.time);
            let (conns, out) = (process.hub.conns(), process.hub.outlet().tickets_out());
            let quiet = process.stages.quiet();
            format!("{tip}/{height} {id} score {score} time {time}, {conns} conns, {out} tickets out, stages quiet: {quiet}")
        };
        let nodes: Vec<_> = self.machines.iter_mut().map(describe).collect();
        let miners: Vec<_> = self.miners.iter().map(|(miner, node)| (node, miner.waiting(), miner.served(), miner.client.line)).collect();
        let dues: Vec<_> = self.machines.iter().map(Machine::due).collect();
        let attackers: Vec<_> = self.attackers.iter().map(|(attacker, node)| (attacker.kind, node, attacker.due())).collect();
        let rogues: Vec<_> = self.rogues.iter().map(|rogue| (rogue.kind, rogue.due())).collect();
        format!("{:?}: {nodes:#?}, due {dues:?}, miners {miners:?}, {attackers:?}, {rogues:?}", self.moment)
    }
}
