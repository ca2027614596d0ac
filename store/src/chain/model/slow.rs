//! The rules a second time, slow and obvious, written from the sentences of SHARECHAIN (§1 to §8) and not from the first implementation:
//! every sum is made anew from genesis, every question is put to all ancestors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::consensus::serialize;
use bitcoin::opcodes::OP_0;
use bitcoin::opcodes::all::{OP_PUSHNUM_1, OP_RETURN};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute, transaction};
use rockpool_net::id::ShareId;
use rockpool_net::sha256::{Midstate, sha256d};
use rockpool_net::wire::share::{Layout, Script, Share, merkle_root};
use ruint::Uint;

use crate::bitcoin::Block;
use crate::params::Params;
use crate::payouts::Payouts;
use crate::record::{Place, Record};
use crate::rules::second::slow_outputs;
use crate::testing::Ancestry;

/// Wide enough for everything.
pub type Wide = Uint<512, 8>;

/// What the rules say of a share by itself, its parent and its uncles being what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// Its proof does not tie its fields.
    Untied(&'static str),
    /// A rule on tied fields is broken that shows without the payouts.
    Broken(&'static str),
    /// Its coinbase is not the one that its parent dictates.
    BadCoinbase,
}

/// A share and what follows from its place.
pub struct Known {
    pub share: Share,
    pub verdict: Verdict,
    /// Whether it, its ancestors and all they credit are good.
    pub good: bool,
    pub work: u128,
    pub demand: u128,
    record: Arc<Record>,
}

/// A Bitcoin header in its place.
pub struct SlowBlock {
    pub header: [u8; 80],
    pub height: u32,
}

/// All there is, whoever knows of it.
pub struct Slow {
    pub params: &'static Params,
    pub known: BTreeMap<ShareId, Known>,
    pub blocks: BTreeMap<[u8; 32], SlowBlock>,
    genesis: ShareId,
}

impl Ancestry for Slow {
    fn record(&self, id: &ShareId) -> Option<Arc<Record>> {
        self.known.get(id).map(|known| Arc::clone(&known.record))
    }

    fn payouts_at(&self, id: &ShareId) -> Option<Arc<Payouts>> {
        let weights: Vec<_> = self.weights(id).into_iter().collect();
        Some(Arc::new(Payouts { parent: *id, parent_height: self.known[id].share.height, weights: weights.into() }))
    }
}

/// The target of a compact number: its lower three bytes stand at the top of as many bytes as the upper one says.
pub fn target(bits: u32) -> Option<Wide> {
    let (size, mantissa) = (bits >> 24, Wide::from(bits & 0x007f_ffff));
    let target = if size >= 3 { mantissa << (8 * (size as usize - 3)) } else { mantissa >> (8 * (3 - size as usize)) };
    (bits & 0x0080_0000 == 0 && target != Wide::ZERO && target < Wide::ONE << 256).then_some(target)
}

/// The compact number of a target: its bytes from the first that is not zero, a zero before it where that looks like a sign.
pub fn compact(target: Wide) -> u32 {
    let mut bytes: Vec<u8> = target.to_be_bytes::<64>().into_iter().skip_while(|byte| *byte == 0).collect();
    if bytes.first().is_some_and(|byte| *byte >= 0x80) {
        bytes.insert(0, 0);
    }
    let size = bytes.len() as u32;
    bytes.resize(bytes.len().max(3), 0);
    size << 24 | u32::from(bytes[0]) << 16 | u32::from(bytes[1]) << 8 | u32::from(bytes[2])
}

/// ⌊2²⁵⁶ / (target + 1)⌋, as much as 128 bits hold.
pub fn work(bits: u32) -> u128 {
    let Some(target) = target(bits) else { return 0 };
    u128::try_from((Wide::ONE << 256) / (target + Wide::ONE)).unwrap_or(u128::MAX)
}

/// floor × 2^(−L / half-life) as aserti3 does it, its exponent rounded down.
pub fn allowed_bits(params: &Params, parent_lead: u32, dt: i64) -> u32 {
    let l = (i128::from(parent_lead) - (i128::from(dt) - i128::from(params.easing_s)).max(0)).max(0);
    let exponent = (-l * 65_536).div_euclid(i128::from(params.half_life_s));
    let (shifts, fraction) = (exponent.div_euclid(65_536), exponent.rem_euclid(65_536));
    let cubic = 195_766_423_245_049 * fraction + 971_821_376 * fraction.pow(2) + 5_127 * fraction.pow(3) + (1 << 47);
    let factor = 65_536 + (cubic >> 48);
    let floor = target(params.floor_bits).unwrap();
    compact((floor * Wide::from(factor as u128)) >> usize::try_from(16 - shifts).unwrap())
}

fn word(header: &[u8; 80], at: usize) -> u32 {
    u32::from_le_bytes(header[at..at + 4].try_into().unwrap())
}

impl Slow {
    pub fn new(params: &'static Params) -> Slow {
        let share = Share::clone(params.genesis());
        let genesis = params.genesis_id();
        let first = params.bitcoin.genesis;
        let record = Arc::new(params.genesis_record());
        let known = Known { share, verdict: Verdict::Good, good: true, work: 0, demand: 0, record };
        Slow {
            params,
            known: BTreeMap::from([(genesis, known)]),
            blocks: BTreeMap::from([(sha256d(&first), SlowBlock { header: first, height: 0 })]),
            genesis,
        }
    }

    pub fn share(&self, id: &ShareId) -> &Share {
        &self.known[id].share
    }

    pub fn genesis(&self) -> ShareId {
        self.genesis
    }

    /// The share itself, its parent, and so on down to genesis.
    pub fn line(&self, id: &ShareId) -> Vec<ShareId> {
        std::iter::successors(Some(*id), |id| (*id != self.genesis).then(|| self.share(id).parent)).collect()
    }

    /// Puts a share, all it refers to being known, among the others, with the verdict on it.
    pub fn add(&mut self, share: &Share) -> ShareId {
        let verdict = self.judge(share);
        let id = share.id();
        let parent = self.share(&share.parent);
        let allowed = allowed_bits(self.params, parent.lead, i64::from(share.time) - i64::from(parent.time));
        let block = &self.blocks[&share.bitcoin_prev()];
        let bitcoin = Block::named(share.bitcoin_prev(), block.height, word(&block.header, 68), word(&block.header, 72));
        let uncles = share.uncles.iter().map(|uncle| self.known[uncle].record.as_uncle()).collect();
        let place = Place { allowed_bits: allowed, best_bitcoin: None, script: Arc::new(share.script), bitcoin: Arc::new(bitcoin), uncles };
        let good = verdict == Verdict::Good && self.depends_on(share).all(|id| self.known[&id].good);
        let known = Known {
            record: Arc::new(place.record(share, id)),
            share: share.clone(),
            verdict,
            good,
            work: work(share.bits),
            demand: work(allowed),
        };
        self.known.insert(id, known);
        id
    }

    /// Parent and uncles.
    pub fn depends_on<'a>(&self, share: &'a Share) -> impl Iterator<Item = ShareId> + 'a {
        std::iter::once(share.parent).chain(share.uncles.iter().copied())
    }

    /// §1 to §7 in their order.
    pub fn judge(&self, share: &Share) -> Verdict {
        if let Err(why) = self.tied(share) {
            return Verdict::Untied(why);
        }
        match self.alone(share).and_then(|()| self.placed(share)) {
            Err(why) => Verdict::Broken(why),
            Ok(()) if self.coinbase_is_right(share) => Verdict::Good,
            Ok(()) => Verdict::BadCoinbase,
        }
    }

    /// §1: lengths, hash ≤ bits ≤ floor, tie.
    fn tied(&self, share: &Share) -> Result<(), &'static str> {
        if share.uncles.len() > 3 || share.uncles.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err("uncles");
        }
        let own = target(share.bits).filter(|own| compact(*own) == share.bits).ok_or("canonical bits")?;
        if own > target(self.params.floor_bits).unwrap() {
            return Err("floor");
        }
        if Wide::from(Uint::<256, 4>::from_le_bytes(share.id().0)) > own {
            return Err("proof of work");
        }
        if share.tied(&self.genesis) { Ok(()) } else { Err("tie") }
    }

    /// The rules that its own fields show, whatever it builds on.
    pub fn alone(&self, share: &Share) -> Result<(), &'static str> {
        let rules = [
            (share.header_version() & 0xe000_0000 == 0x2000_0000, "header version"),
            (share.header_time() <= share.time + 7_200, "header time ahead"),
            (share.value >= subsidy(self.params, share.bitcoin_height), "subsidy"),
        ];
        all(rules)
    }

    /// The rules on its place.
    fn placed(&self, share: &Share) -> Result<(), &'static str> {
        let params = self.params;
        let parent = self.share(&share.parent);
        let line = self.line(&share.parent);
        let mut times: Vec<u32> = line.iter().take(11).map(|id| self.share(id).time).collect();
        times.sort_unstable();
        let dt = i64::from(share.time) - i64::from(parent.time);
        let lead = (i64::from(parent.lead) + i64::from(params.interval_s) - dt).max(0).min(i64::from(params.lead_max_s));
        let allowed = allowed_bits(params, parent.lead, dt);
        let hardest = target(allowed).unwrap() / Wide::from(16);
        let rules = [
            (share.version == 1, "version"),
            (share.height == parent.height + 1, "height"),
            (share.time > times[times.len() / 2], "median time"),
            (i64::from(share.lead) == lead, "lead"),
            (target(share.bits) <= target(allowed), "easier than allowed"),
            (target(share.bits) >= target(compact(hardest)), "harder than a sixteenth"),
            (share.score == self.score(&line, work(share.bits), work(allowed)), "score"),
        ];
        all(rules)?;
        self.on_bitcoin(share, &line)?;
        if self.may_credit(&share.parent, &share.uncles) { Ok(()) } else { Err("uncles") }
    }

    /// §3: what is objective of Bitcoin's side.
    fn on_bitcoin(&self, share: &Share, line: &[ShareId]) -> Result<(), &'static str> {
        let prev = &self.blocks[&share.bitcoin_prev()];
        let mut times: Vec<u32> = self.block_line(&share.bitcoin_prev()).iter().take(11).map(|block| word(&block.header, 68)).collect();
        times.sort_unstable();
        // T: the parent of most work used by an ancestor; of genesis itself nothing follows, since it builds on Bitcoin's first.
        let most = line.iter().map(|id| self.share(id).bitcoin_prev()).max_by_key(|hash| self.chainwork(hash)).unwrap();
        let before = self.blocks[&most].header[4..36].try_into().unwrap();
        let rules = [
            (share.bitcoin_height == prev.height + 1, "Bitcoin height"),
            (self.chainwork(&share.bitcoin_prev()) >= self.chainwork(&before), "two Bitcoin blocks behind"),
            // Regtest never retargets, and all its blocks are of the limit.
            (share.header_bits() == self.params.bitcoin.limit_bits, "header bits"),
            (share.header_time() > times[times.len() / 2], "header time"),
        ];
        all(rules)
    }

    /// A block, the one before it, and so on down to the first.
    fn block_line(&self, hash: &[u8; 32]) -> Vec<&SlowBlock> {
        let prev = |block: &&SlowBlock| self.blocks.get(&block.header[4..36]);
        std::iter::successors(self.blocks.get(hash), prev).collect()
    }

    pub fn chainwork(&self, hash: &[u8; 32]) -> u128 {
        self.block_line(hash).iter().map(|block| work(word(&block.header, 72))).sum()
    }

    /// SCORE-2: Σ of each share's demand as many times as its work holds it, for a share on this line, its parent first, genesis last.
    fn score(&self, line: &[ShareId], work: u128, demand: u128) -> u128 {
        let counted = |work: u128, demand: u128| if demand == 0 { 0 } else { work - work % demand };
        counted(work, demand) + line.iter().map(|id| counted(self.known[id].work, self.known[id].demand)).sum::<u128>()
    }

    /// §6, validity apart: whether a child of `parent` may credit these.
    pub fn may_credit(&self, parent: &ShareId, uncles: &[ShareId]) -> bool {
        let line = self.line(parent);
        let ancestors: BTreeSet<ShareId> = line.iter().copied().collect();
        let credited: BTreeSet<ShareId> = line.iter().flat_map(|id| self.share(id).uncles.clone()).collect();
        let height = self.share(parent).height + 1;
        let reached = |id: &ShareId| ancestors.contains(id) || credited.contains(id) || uncles.contains(id);
        uncles.len() <= 3
            && uncles.windows(2).all(|pair| pair[0] < pair[1])
            && uncles.iter().all(|id| {
                let uncle = self.share(id);
                let deep = (1..=24).any(|below| uncle.height + below == height);
                let new = !ancestors.contains(id) && !credited.contains(id);
                // Beyond §6: what it credits itself must be reached too, or who syncs the chain and its uncles could not judge it.
                // And it must not have left the chain long ago: what it must pay follows from its own branch.
                let parted = self.line(id).into_iter().find(|id| ancestors.contains(id)).unwrap();
                let recent = line.iter().take(32).any(|id| *id == parted);
                deep && new && recent && self.depends_on(uncle).all(|id| reached(&id))
            })
    }

    /// §6 and §7: what each script gets of a height, in tenths, and its work.
    fn level(&self, id: &ShareId) -> (u128, Vec<(Script, u128)>) {
        let nephew = &self.known[id];
        let (mut work, mut own, mut credits) = (nephew.work, 10 * nephew.work, Vec::new());
        for uncle in nephew.share.uncles.iter().map(|uncle| &self.known[uncle]) {
            let bounty = uncle.work.min(nephew.demand);
            work += uncle.work;
            own += bounty;
            credits.push((uncle.share.script, 10 * uncle.work - bounty));
        }
        credits.push((nephew.share.script, own));
        (work, credits)
    }

    /// §7: the weights of the window that ends with this share, from scratch.
    pub fn weights(&self, id: &ShareId) -> BTreeMap<Script, u128> {
        let mut weights = BTreeMap::new();
        let (mut count, mut held) = (0, 0);
        for id in self.line(id).iter().filter(|id| **id != self.genesis) {
            // Bitcoin's bits are those of its first block on regtest, ever.
            if count == self.params.window_max || count >= self.params.window_min && held >= 3 * work(self.params.bitcoin.limit_bits) {
                break;
            }
            let (work, credits) = self.level(id);
            count += 1;
            held += work;
            credits.into_iter().for_each(|(script, tenths)| *weights.entry(script).or_insert(0) += tenths);
        }
        weights
    }

    /// §8: what a child of `parent` must pay.
    pub fn outputs(&self, parent: &ShareId, child: &Share) -> Vec<(Script, u64)> {
        let weights = self.weights(parent);
        if *parent == self.genesis {
            return vec![(child.script, child.value)];
        }
        let subsidy = subsidy(self.params, child.bitcoin_height);
        slow_outputs(&weights, parent, self.params.dust, subsidy, child.class, child.value)
    }

    /// §1: whether the coinbase that its parent dictates, made whole, leads to the header's merkle root and has the proof's midstate.
    fn coinbase_is_right(&self, share: &Share) -> bool {
        let bytes = coinbase(share, &self.outputs(&share.parent, share), &share.commitment(&self.genesis));
        let prefix = &bytes[..bytes.len() - 48];
        let mut midstate = Midstate::new();
        midstate.update_blocks(prefix);
        merkle_root(sha256d(&bytes), &share.proof.branch) == share.merkle_root()
            && prefix.len() == share.proof.prefix_len as usize
            && midstate.to_bytes() == share.proof.midstate
    }
}

/// The first rule that does not hold.
fn all<const N: usize>(rules: [(bool, &'static str); N]) -> Result<(), &'static str> {
    rules.into_iter().try_for_each(|(holds, why)| if holds { Ok(()) } else { Err(why) })
}

pub fn subsidy(params: &Params, bitcoin_height: u32) -> u64 {
    (0..bitcoin_height / params.halving).fold(5_000_000_000, |subsidy, _| subsidy / 2)
}

/// The coinbase, without witness, as Bitcoin's own library writes it.
pub fn coinbase(share: &Share, outputs: &[(Script, u64)], commitment: &[u8; 32]) -> Vec<u8> {
    let whole = |padding: usize| serialize(&transaction_of(share, outputs, commitment, padding));
    // All before X, 48 bytes from the end, is a multiple of 64.
    whole((64 - (whole(0).len() - 48) % 64) % 64)
}

fn transaction_of(share: &Share, outputs: &[(Script, u64)], commitment: &[u8; 32], padding: usize) -> Transaction {
    let pushed = |bytes: &[u8]| PushBytesBuf::try_from(bytes.to_vec()).unwrap();
    let tag = [&b"/rockpool"[..], &vec![b' '; padding]].concat();
    let mut script_sig = Builder::new().push_int(i64::from(share.bitcoin_height)).push_slice(pushed(&tag));
    let mut x = share.proof.extranonce;
    if share.layout == Layout::Front {
        script_sig = script_sig.push_slice(pushed(&x));
        x = [0; 12];
    }
    let pay = |(script, value): &(Script, u64)| {
        let version = if matches!(script, Script::P2tr(_)) { OP_PUSHNUM_1 } else { OP_0 };
        let script_pubkey = Builder::new().push_opcode(version).push_slice(pushed(script.program())).into_script();
        TxOut { value: Amount::from_sat(*value), script_pubkey }
    };
    let says = |bytes: &[u8]| {
        let script_pubkey: ScriptBuf = Builder::new().push_opcode(OP_RETURN).push_slice(pushed(bytes)).into_script();
        TxOut { value: Amount::ZERO, script_pubkey }
    };
    let mut output: Vec<TxOut> = outputs.iter().map(pay).collect();
    output.push(says(&[&[0xaa, 0x21, 0xa9, 0xed], &share.witness_commitment[..]].concat()));
    output.push(says(&[&x[..], commitment].concat()));
    let input = TxIn {
        previous_output: OutPoint::null(),
        script_sig: script_sig.into_script(),
        sequence: Sequence(0xffff_fffe),
        witness: Witness::new(),
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::from_consensus(share.bitcoin_height - 1),
        input: vec![input],
        output,
    }
}
