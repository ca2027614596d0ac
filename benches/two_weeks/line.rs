//! A line of honest shares: each pays by its coinbase what its parent dictates. It keeps what the next one needs, records and a window, so
//! that one costs no more than its own coinbase.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_net::id::ShareId;
use rockpool_net::sha256::{Midstate, sha256d};
use rockpool_net::wire::share::{Class, Layout, Proof, Script, Share, merkle_root};
use rockpool_store::bitcoin::Block;
use rockpool_store::chain::Chain;
use rockpool_store::limits::{MEDIAN_SPAN, REACH};
use rockpool_store::params::Params;
use rockpool_store::payouts::Payouts;
use rockpool_store::record::{Place, Record, Scripts, Uncle};
use rockpool_store::rules::window::{Level, Window, wanted_work};
use rockpool_store::rules::{Ancestors, child, coinbase, difficulty, target};

/// Miners of unequal hash rate.
pub const MINERS: usize = 200;
/// The largest of them choose targets harder than allowed.
const HARDER_MINERS: usize = 10;
/// Siblings of a merkle branch: a block of four thousand transactions.
const BRANCH: usize = 12;
/// Heights of a hundred that have an uncle.
const UNCLES_PERCENT: u32 = 3;
/// Classes of a hundred shares: N46 and N144, and the rest N12; and those of layout front.
const N46_PERCENT: u32 = 20;
const N144_PERCENT: u32 = 10;
const FRONT_PERCENT: u32 = 10;
/// Fees, satoshis.
const FEES_MAX: u32 = 30_000_000;

/// Shares of a line, and those beside it that it credits.
pub struct Line {
    params: &'static Params,
    /// From the lowest that is kept to the tip.
    records: Vec<Arc<Record>>,
    window: Window,
    payouts: Arc<Payouts>,
    rng: ChaCha12Rng,
    /// Payees, and the sums of their parts of the hash rate up to each.
    miners: Vec<(Script, u64)>,
    scripts: Scripts,
    /// Shares beside the line that wait for a nephew.
    uncles: VecDeque<Uncle>,
}

impl Line {
    /// A line of genesis alone.
    pub fn new(params: &'static Params, seed: u64) -> Line {
        let genesis = Arc::new(params.genesis_record());
        let window = Window::new(0);
        let payouts = Arc::new(Payouts::new(&genesis, &window));
        Line {
            params,
            records: vec![genesis],
            window,
            payouts,
            rng: ChaCha12Rng::seed_from_u64(seed),
            miners: miners(),
            scripts: Scripts::default(),
            uncles: VecDeque::new(),
        }
    }

    /// A line that goes on from the confirmed share of a chain at a height. None of its first uncles is known any more.
    pub fn of(params: &'static Params, chain: &Chain, height: u32, seed: u64) -> Line {
        let lowest = chain.lowest().height;
        let records: Vec<_> = (lowest..=chain.confirmed_height()).filter_map(|height| chain.at_height(height).cloned()).collect();
        let mut line = Line { records, window: chain.window().clone(), ..Line::new(params, seed) };
        let level = |records: &[Arc<Record>], height: u32| records.get((height - lowest) as usize).map_or(Level::NONE, |r| Level::of(r));
        for _ in height..chain.confirmed_height() {
            let wanted = wanted_work(params, line.tip());
            line.window.pop(params, wanted, |height| level(&line.records, height));
            line.records.pop();
        }
        line.payouts = Arc::new(Payouts::new(line.tip(), &line.window));
        line
    }

    /// The highest share.
    pub fn tip(&self) -> &Arc<Record> {
        &self.records[self.records.len() - 1]
    }

    /// The next share of the line on this Bitcoin block, behind one beside it where it gets an uncle.
    pub fn grow(&mut self, bitcoin: &Arc<Block>, shares: &mut Vec<Share>) {
        let newest = self.newest();
        let ancestors = Ancestors::new(&newest);
        // About one interval a height, with the jitter that clocks and chance have.
        let steady = (self.tip().time + self.params.interval_s).max(self.steady_time());
        let time = (steady - 2 + self.rng.next_u32() % 4).max(ancestors.median_time() + 1);
        let uncles = self.due_uncles();
        let share = self.share(&newest, bitcoin, time, &uncles, true);
        // No harder than what was allowed, or it were the better one.
        let beside =
            (self.rng.next_u32() % 100 < UNCLES_PERCENT && self.tip().height > 0).then(|| self.share(&newest, bitcoin, time, &[], false));
        let record = self.record(&share, &newest, bitcoin, uncles);
        if let Some(beside) = &beside {
            let uncle = self.record(beside, &newest, bitcoin, Vec::new()).as_uncle();
            self.uncles.push_back(uncle);
        }
        self.records.push(Arc::new(record));
        let lowest = self.records[0].height;
        let records = &self.records;
        self.window.push(self.params, wanted_work(self.params, &records[records.len() - 1]), |height| {
            records.get((height - lowest) as usize).map_or(Level::NONE, |record| Level::of(record))
        });
        self.payouts = Arc::new(Payouts::new(self.tip(), &self.window));
        shares.push(share);
        shares.extend(beside);
    }

    /// When a share of this height would come if all came in time.
    fn steady_time(&self) -> u32 {
        super::made::START + self.tip().height * self.params.interval_s
    }

    fn newest(&self) -> Vec<Arc<Record>> {
        self.records.iter().rev().take(REACH.max(MEDIAN_SPAN)).cloned().collect()
    }

    /// Uncles whose time has come: one to three heights after their sibling.
    fn due_uncles(&mut self) -> Vec<Uncle> {
        let height = self.tip().height + 1;
        let mut due = Vec::new();
        while let Some(uncle) = self.uncles.front()
            && (uncle.height + 3 <= height || self.rng.next_u32().is_multiple_of(2))
            && due.len() < 3
        {
            due.extend(self.uncles.pop_front());
        }
        due.sort_unstable_by_key(|uncle: &Uncle| uncle.id);
        due
    }

    /// A share on the tip by one of the miners, drawn by their hash rates.
    fn share(&mut self, newest: &[Arc<Record>], bitcoin: &Arc<Block>, time: u32, uncles: &[Uncle], heavy: bool) -> Share {
        let parent = &newest[0];
        let all = self.miners.last().map_or(1, |(_, sum)| *sum);
        let drawn = self.rng.next_u64() % all;
        let miner = self.miners.partition_point(|(_, sum)| *sum <= drawn);
        let next = child(self.params, parent, time);
        let harder = if heavy && miner < HARDER_MINERS { self.rng.next_u32() as usize % 3 } else { 0 };
        let easiest = target::target(next.allowed_bits).unwrap_or_default();
        let bits = target::compact(easiest >> harder);
        let bitcoin_height = bitcoin.height + 1;
        let percent = self.rng.next_u32() % 100;
        let class = match percent {
            0..N144_PERCENT => Class::N144,
            _ if percent < N144_PERCENT + N46_PERCENT => Class::N46,
            _ => Class::N12,
        };
        let layout = if self.rng.next_u32() % 100 < FRONT_PERCENT { Layout::Front } else { Layout::Tail };
        // Templates differ from node to node and change every few seconds, so nothing of a branch is ever there twice.
        let (mut branch, mut witness_commitment, mut extranonce) = (vec![[0; 32]; BRANCH], [0; 32], [0; 12]);
        branch.iter_mut().for_each(|sibling| self.rng.fill_bytes(sibling));
        self.rng.fill_bytes(&mut witness_commitment);
        self.rng.fill_bytes(&mut extranonce);
        let mut share = Share {
            header: [0; 80],
            version: next.version,
            class,
            layout,
            parent: parent.id,
            uncles: uncles.iter().map(|uncle| uncle.id).collect(),
            script: self.miners[miner].0,
            bits,
            time,
            height: next.height,
            lead: next.lead,
            score: next.score(bits),
            salt: self.rng.next_u32(),
            value: self.params.subsidy(bitcoin_height) + u64::from(self.rng.next_u32() % FEES_MAX),
            witness_commitment,
            bitcoin_height,
            proof: Proof { prefix_len: 0, midstate: [0; 32], extranonce, branch },
        };
        share.header[..4].copy_from_slice(&(0x2000_0000 | self.rng.next_u32() & 0x1fff_e000).to_le_bytes());
        share.header[4..36].copy_from_slice(&bitcoin.hash);
        share.header[68..72].copy_from_slice(&time.to_le_bytes());
        share.header[72..76].copy_from_slice(&bitcoin.bits().to_le_bytes());
        pay(self.params, &mut share, &self.payouts);
        prove(self.params, &mut share, self.rng.next_u32());
        share
    }

    fn record(&mut self, share: &Share, newest: &[Arc<Record>], bitcoin: &Arc<Block>, uncles: Vec<Uncle>) -> Record {
        let allowed_bits = difficulty::allowed_bits(self.params, &newest[0], share.time);
        let script = self.scripts.shared(&share.script);
        Place { allowed_bits, best_bitcoin: None, script, bitcoin: Arc::clone(bitcoin), uncles }.record(share, share.id())
    }
}

/// Gives a share the coinbase that its parent's payouts dictate.
pub fn pay(params: &Params, share: &mut Share, payouts: &Payouts) {
    let outputs = payouts.outputs(params, share.class, share.value, share.bitcoin_height, &share.script);
    let prefix = coinbase::prefix_of(share, &outputs);
    let mut midstate = Midstate::new();
    midstate.update_blocks(&prefix);
    share.proof.midstate = midstate.to_bytes();
    share.proof.prefix_len = prefix.len() as u32;
}

/// Ties a share's fields to its header, and works until its hash meets its target.
pub fn prove(params: &Params, share: &mut Share, from: u32) -> ShareId {
    let x = if share.layout == Layout::Tail { share.proof.extranonce } else { [0; 12] };
    let tail = coinbase::tail(&x, &share.commitment(&params.genesis_id()), coinbase::locktime(share.bitcoin_height));
    let before = Midstate::from_bytes(share.proof.midstate, u64::from(share.proof.prefix_len));
    let root = merkle_root(rockpool_net::sha256::sha256(&before.finish(&tail)), &share.proof.branch);
    share.header[36..68].copy_from_slice(&root);
    let mut nonce = from;
    loop {
        share.header[76..].copy_from_slice(&nonce.to_le_bytes());
        let id = share.id();
        if target::hash_meets(&id.0, share.bits) {
            return id;
        }
        nonce = nonce.wrapping_add(1);
    }
}

/// A header on a block whose hash meets regtest's target.
pub fn mine_block(prev: &[u8; 32], time: u32, number: u32) -> [u8; 80] {
    const BITS: u32 = 0x207f_ffff;
    let mut header = [0; 80];
    header[..4].copy_from_slice(&0x2000_0000u32.to_le_bytes());
    header[4..36].copy_from_slice(prev);
    header[36..68].copy_from_slice(&sha256d(&number.to_le_bytes()));
    header[68..72].copy_from_slice(&time.to_le_bytes());
    header[72..76].copy_from_slice(&BITS.to_le_bytes());
    let mut nonce = 0u32;
    while !target::hash_meets(&sha256d(&header), BITS) {
        nonce += 1;
        header[76..].copy_from_slice(&nonce.to_le_bytes());
    }
    header
}

/// Payees of all three kinds; the largest has a tenth of all, the smallest a three-thousandth: rates fall as a power of the rank.
fn miners() -> Vec<(Script, u64)> {
    let mut sum = 0;
    let rank = |number: usize| {
        let program = sha256d(&(number as u32).to_le_bytes());
        let mut short = [0; 20];
        short.copy_from_slice(&program[..20]);
        match number % 3 {
            0 => Script::P2wpkh(short),
            1 => Script::P2tr(program),
            _ => Script::P2wsh(program),
        }
    };
    (0..MINERS)
        .map(|number| {
            sum += (1e9 / (number as f64 + 3.0)) as u64;
            (rank(number), sum)
        })
        .collect()
}

/// Parts of a hundred shares by class, layout and miner's kind, for the heading.
pub fn mix(shares: &[Share]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for share in shares {
        let class = match share.class {
            Class::N12 => "N12",
            Class::N46 => "N46",
            Class::N144 => "N144",
            Class::N360 => "N360",
        };
        *counts.entry(class).or_default() += 1;
        *counts.entry("layout front").or_default() += usize::from(share.layout == Layout::Front);
        *counts.entry("uncles credited").or_default() += share.uncles.len();
    }
    let parts = counts.iter().map(|(name, count)| format!("{name} {:.1} %", *count as f64 * 100.0 / shares.len() as f64));
    parts.collect::<Vec<_>>().join(", ")
}
