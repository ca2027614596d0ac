//! A million cheap shares of many peers: proof of work at the floor, tied, on side branches, with coinbases that nobody dictated. In a
//! process of its own, so that its memory can be told from the bench's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_net::hub::tickets::Ticket;
use rockpool_net::id::{ConnId, Lane, ShareId};
use rockpool_net::time::Now;
use rockpool_net::wire::share::{Class, Layout, Proof, Script, Share};
use rockpool_store::bitcoin::Block;
use rockpool_store::chain::Chain;
use rockpool_store::kv::{Family, Op};
use rockpool_store::params::{Network, Params, params};
use rockpool_store::record::Record;
use rockpool_store::rules::child;
use rockpool_workers::jobs::{Answer, OrganiseJob, Output, Stage};
use rockpool_workers::organise::OrganiseWorker;
use serde_json::{Value, json};

use crate::figures::{Memory, Times, clock, goal, info};
use crate::line::{Line, prove};
use crate::made::LATE;
use crate::report::Figure;
use crate::tip::newest_block;
use crate::{Bench, Outcome};

/// The word on the command line that makes a process of this bench the attacked one.
pub const ROLE: &str = "--spammed";
const SHARES: u32 = 1_000_000;
const QUICK: u32 = 50_000;
/// Peers that send them, and how many of their shares a turn of the reactor hands over.
const PEERS: u32 = 500;
const AT_ONCE: u32 = 64;
/// How often memory is looked at, in steps.
const LOOK: u32 = 64;
const MB: f64 = 1e6;

/// Rows of the attack.
pub fn figures(bench: &Bench) -> Outcome<Vec<Figure>> {
    let count = if bench.asked.quick { QUICK } else { SHARES };
    let dir = bench.fed()?.dir.path();
    let out = Command::new(std::env::current_exe()?)
        .arg(ROLE)
        .arg(dir)
        .args(["--count", &count.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    let told: Value = serde_json::from_slice(&out.stdout)?;
    let value = |name: &str| told[name].as_f64().unwrap_or(f64::NAN);
    let name = |what: &str| format!("{count} cheap shares of {PEERS} peers: {what}");
    Ok(vec![
        goal(&name("rows that stay"), value("rows"), "rows", 0.0),
        goal(&name("memory"), value("memory") / MB, "MB", 16.0),
        goal(&name("honest shares refused afterwards"), value("refused"), "shares", 0.0),
        info(&name("honest shares of two in one turn that are taken only later"), value("late"), "shares"),
        info(&name("rows written meanwhile"), value("written"), "rows"),
        info(&name("the organiser's time for one"), value("us"), "us"),
        info(&name("the organiser's longest step"), value("longest_ms"), "ms"),
    ])
}

/// Has an organiser attacked, then lets honest shares go on: on the tip and beside it, at first a while apart, then in one turn.
pub fn play(dir: &Path, count: u32) -> Outcome<()> {
    let params = params(Network::Regtest);
    let kv = rockpool_store::rocks::RocksKv::open(&dir.join("chain"))?;
    let chain = Chain::open(params, [1, 2], &kv)?;
    let bitcoin = newest_block(&chain);
    let mut attack = Attack { params, rng: ChaCha12Rng::seed_from_u64(9), bitcoin: Arc::clone(&bitcoin), own: Vec::new() };
    let mut line = Line::of(params, &chain, chain.confirmed_height(), 10);
    let worker = OrganiseWorker::new(params, chain);
    let mut attacked = Attacked { worker, mono: Duration::ZERO, steps: Times::default(), rows: BTreeSet::new(), written: 0 };
    attacked.settle();
    let (before, mut most) = (Memory::of("self")?.anon, 0.0f64);
    let (begin, mut made) = (clock(), Duration::ZERO);
    for number in 0..count / AT_ONCE {
        let making = clock();
        let shares = (0..AT_ONCE).map(|_| attack.next(attacked.worker.chain())).collect();
        made += making.elapsed();
        attacked.take(shares);
        if number % LOOK == 0 {
            most = most.max(Memory::of("self")?.anon - before);
        }
    }
    let us = (begin.elapsed() - made).as_secs_f64() * 1e6 / f64::from(count);
    attacked.settle();
    most = most.max(Memory::of("self")?.anon - before);
    let (rows, written) = (attacked.rows.len(), attacked.written);
    let refused = attacked.honest(&mut line, &bitcoin, false);
    let late = attacked.honest(&mut line, &bitcoin, true);
    let longest = attacked.steps.us(1.0) / 1e3;
    let told = json!({"rows": rows, "written": written, "memory": most, "refused": refused, "late": late, "us": us, "longest_ms": longest});
    println!("{told}");
    Ok(())
}

/// Steps after which nothing is left to be done.
const SETTLE: u32 = 300;
/// Honest heights of one kind at the end: some of them have a share beside the chain.
const HONEST: u32 = 400;

/// How often what a share lacks is asked for.
const ASKED: u32 = 4;

/// The attacked organiser, and what it has written.
struct Attacked {
    worker: OrganiseWorker,
    mono: Duration,
    steps: Times,
    /// Rows that are there now and were not before.
    rows: BTreeSet<Vec<u8>>,
    written: usize,
}

impl Attacked {
    /// Shares of a turn of the reactor, each of another peer. Returns the ids that the organiser asks for.
    fn take(&mut self, shares: Vec<Share>) -> Vec<ShareId> {
        let mut jobs: Vec<OrganiseJob> = shares.into_iter().enumerate().map(|(number, share)| tip(share, number as u32)).collect();
        let mut missing = Vec::new();
        loop {
            let mut out = Output::default();
            self.mono += Duration::from_millis(5);
            let now = Now { mono: self.mono, wall: LATE.wall };
            self.steps.of(|| self.worker.step(now, &mut jobs, &mut out));
            out.write.into_iter().flat_map(|job| job.ops).for_each(|op| self.write(op));
            missing.extend(out.mail.into_iter().flat_map(|(answer, _)| missing_in(answer)));
            if !self.worker.owes() {
                return missing;
            }
        }
    }

    /// Lets it finish whatever it has to do.
    fn settle(&mut self) {
        (0..SETTLE).for_each(|_| drop(self.take(Vec::new())));
    }

    fn write(&mut self, op: Op) {
        match op {
            Op::Put(Family::Shares, key, _) => {
                self.rows.insert(key);
                self.written += 1;
            }
            Op::Delete(Family::Shares, key) => drop(self.rows.remove(&key)),
            Op::Put(..) | Op::Delete(..) => {}
        }
    }

    /// Honest shares, `together` with those beside them or a while apart; what is asked for comes again. Returns how many are not there in
    /// the end.
    fn honest(&mut self, line: &mut Line, bitcoin: &Arc<Block>, together: bool) -> usize {
        let (mut lost, mut made) = (0, BTreeMap::new());
        for _ in 0..HONEST {
            let mut shares = Vec::new();
            line.grow(bitcoin, &mut shares);
            made.extend(shares.iter().map(|share| (share.id(), share.clone())));
            for shares in shares.chunks(if together { shares.len() } else { 1 }) {
                let mut missing = self.take(shares.to_vec());
                self.settle();
                // A share tells of one uncle that it lacks at a time.
                for _ in 0..ASKED {
                    missing = self.take(missing.iter().filter_map(|id| made.get(id)).cloned().collect());
                }
            }
            let chain = self.worker.chain();
            lost += shares.iter().filter(|share| chain.get(&share.id()).is_none()).count();
            lost += usize::from(chain.tip().id != line.tip().id);
        }
        lost
    }
}

fn tip(share: Share, number: u32) -> OrganiseJob {
    let conn = ConnId { slot: 10 + number % PEERS, generation: 1 };
    OrganiseJob::Tip { share: Arc::new(share), ticket: Ticket::for_test(Lane::Peer, conn) }
}

fn missing_in(answer: Answer) -> Vec<ShareId> {
    match answer {
        Answer::Organised { missing, .. } => missing.into_iter().map(|missing| missing.id).collect(),
        _ => Vec::new(),
    }
}

/// Who makes cheap shares.
struct Attack {
    params: &'static Params,
    rng: ChaCha12Rng,
    bitcoin: Arc<Block>,
    /// Its newest shares, to build on.
    own: Vec<Arc<Record>>,
}

impl Attack {
    /// The next one: beside one of the newest shares, on the tip, or on another of its own.
    fn next(&mut self, chain: &Chain) -> Share {
        let kind = self.rng.next_u32() % 100;
        let below = |depth: u32| chain.at_height(chain.confirmed_height() - depth).cloned();
        let own = || self.own.iter().rev().find_map(|record| chain.get(&record.id).cloned());
        let parent = match kind {
            0..10 => None,
            10..40 => own(),
            _ => below(1 + self.rng.next_u32() % 12),
        };
        let parent = parent.unwrap_or_else(|| Arc::clone(chain.confirmed_tip()));
        let next = child(self.params, &parent, parent.time + 1);
        let mut share = Share {
            header: [0; 80],
            version: next.version,
            class: Class::N12,
            layout: if kind.is_multiple_of(4) { Layout::Front } else { Layout::Tail },
            parent: parent.id,
            uncles: Vec::new(),
            script: Script::P2wpkh([self.rng.next_u32() as u8; 20]),
            bits: next.allowed_bits,
            time: parent.time + 1,
            height: next.height,
            lead: next.lead,
            score: next.score(next.allowed_bits),
            salt: self.rng.next_u32(),
            value: self.params.subsidy(self.bitcoin.height + 1),
            witness_commitment: [3; 32],
            bitcoin_height: self.bitcoin.height + 1,
            proof: Proof { prefix_len: 704, midstate: [5; 32], extranonce: [6; 12], branch: Vec::new() },
        };
        share.header[..4].copy_from_slice(&0x2000_0000u32.to_le_bytes());
        share.header[4..36].copy_from_slice(&self.bitcoin.hash);
        share.header[68..72].copy_from_slice(&share.time.to_le_bytes());
        share.header[72..76].copy_from_slice(&self.bitcoin.bits().to_le_bytes());
        let id = prove(self.params, &mut share, 0);
        if self.own.len() >= 64 {
            self.own.remove(0);
        }
        self.own.push(Arc::new(Record { id, ..Record::clone(&parent) }));
        share
    }
}
