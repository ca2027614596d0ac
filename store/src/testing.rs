//! Valid shares for tests, on any parent: tied, with the coinbase that the parent dictates. Behind the feature `testing`.

use std::sync::Arc;

use rockpool_net::id::ShareId;
use rockpool_net::sha256::{Midstate, sha256d};
use rockpool_net::wire::share::{Class, Layout, Proof, Script, Share, merkle_root};

use crate::bitcoin::Block;
use crate::chain::Chain;
use crate::limits::MEDIAN_SPAN;
use crate::params::Params;
use crate::payouts::Payouts;
use crate::record::Record;
use crate::rules::window::{Level, Window, wanted_work};
use crate::rules::{child, coinbase, difficulty, target};
use crate::view::ChainView;

/// Where a builder finds what a share builds on.
pub trait Ancestry {
    /// The record of a share.
    fn record(&self, id: &ShareId) -> Option<Arc<Record>>;

    /// Payouts at a share, where they are at hand; elsewhere they are computed anew from genesis.
    fn payouts_at(&self, _id: &ShareId) -> Option<Arc<Payouts>> {
        None
    }
}

impl Ancestry for Chain {
    fn record(&self, id: &ShareId) -> Option<Arc<Record>> {
        self.get(id).cloned()
    }

    fn payouts_at(&self, id: &ShareId) -> Option<Arc<Payouts>> {
        Some(self.payouts()).filter(|payouts| payouts.parent == *id).cloned()
    }
}

impl Ancestry for ChainView {
    fn record(&self, id: &ShareId) -> Option<Arc<Record>> {
        self.get(id).cloned()
    }

    fn payouts_at(&self, id: &ShareId) -> Option<Arc<Payouts>> {
        Some(self.payouts()).filter(|payouts| payouts.parent == *id).cloned()
    }
}

/// Makes shares. On regtest one costs a hash or two.
#[derive(Clone, Debug)]
pub struct ShareBuilder {
    params: &'static Params,
    script: Script,
    salt: u32,
    class: Class,
    layout: Layout,
    time: Option<u32>,
    harder: usize,
    bitcoin: Option<([u8; 32], u32, u32)>,
    uncles: Vec<ShareId>,
    bad_coinbase: bool,
}

impl ShareBuilder {
    /// Of a network; a share's own script and salt tell siblings apart.
    pub fn new(params: &'static Params) -> ShareBuilder {
        ShareBuilder {
            params,
            script: Script::P2wpkh([1; 20]),
            salt: 0,
            class: Class::N12,
            layout: Layout::Tail,
            time: None,
            harder: 0,
            bitcoin: None,
            uncles: Vec::new(),
            bad_coinbase: false,
        }
    }

    /// Pays this miner, one of many.
    pub fn miner(mut self, number: u8) -> ShareBuilder {
        self.script = Script::P2wpkh([number; 20]);
        self
    }

    /// Pays this script.
    pub fn script(mut self, script: Script) -> ShareBuilder {
        self.script = script;
        self
    }

    /// With this salt.
    pub fn salt(mut self, salt: u32) -> ShareBuilder {
        self.salt = salt;
        self
    }

    /// With a coinbase of this size.
    pub fn class(mut self, class: Class) -> ShareBuilder {
        self.class = class;
        self
    }

    /// With the extranonce there.
    pub fn layout(mut self, layout: Layout) -> ShareBuilder {
        self.layout = layout;
        self
    }

    /// At this time, Unix seconds, instead of one interval after the parent.
    pub fn time(mut self, unix: u32) -> ShareBuilder {
        self.time = Some(unix);
        self
    }

    /// With a target so many times halved; up to four times is allowed.
    pub fn harder(mut self, halvings: usize) -> ShareBuilder {
        self.harder = halvings;
        self
    }

    /// On this Bitcoin block, at this height, with these bits, instead of the parent's.
    pub fn bitcoin(mut self, prev: [u8; 32], height: u32, bits: u32) -> ShareBuilder {
        self.bitcoin = Some((prev, height, bits));
        self
    }

    /// Crediting these uncles.
    pub fn uncles(mut self, uncles: &[ShareId]) -> ShareBuilder {
        self.uncles = uncles.to_vec();
        self.uncles.sort_unstable();
        self
    }

    /// Tied, but with a coinbase that is not the one its parent dictates.
    pub fn bad_coinbase(mut self) -> ShareBuilder {
        self.bad_coinbase = true;
        self
    }

    /// The share on a parent. Panics if the parent is unknown: a test's mistake.
    pub fn build(&self, chain: &impl Ancestry, parent: &ShareId) -> Share {
        let Some(parent) = chain.record(parent) else { panic!("share {parent} is not there to be built on") };
        let time = self.time.unwrap_or(parent.time + self.params.interval_s);
        let next = child(self.params, &parent, time);
        let bits = target::compact(target::target(next.allowed_bits).unwrap_or_default() >> self.harder);
        let (prev, bitcoin_height, bitcoin_bits) =
            self.bitcoin.unwrap_or((parent.bitcoin.hash, parent.bitcoin_height(), parent.bitcoin.bits()));
        let mut share = Share {
            header: [0; 80],
            version: next.version,
            class: self.class,
            layout: self.layout,
            parent: parent.id,
            uncles: self.uncles.clone(),
            script: self.script,
            bits,
            time,
            height: next.height,
            lead: next.lead,
            score: next.score(bits),
            salt: self.salt,
            value: self.params.subsidy(bitcoin_height),
            witness_commitment: [0x77; 32],
            bitcoin_height,
            proof: Proof { prefix_len: 0, midstate: [0; 32], extranonce: [9; 12], branch: vec![[0x55; 32]] },
        };
        share.header[..4].copy_from_slice(&0x2000_0000u32.to_le_bytes());
        share.header[4..36].copy_from_slice(&prev);
        share.header[68..72].copy_from_slice(&time.to_le_bytes());
        share.header[72..76].copy_from_slice(&bitcoin_bits.to_le_bytes());
        self.prove(&mut share, &payouts(self.params, chain, &parent));
        share
    }

    /// Ties the share's fields to its header, and works until the hash meets the target.
    fn prove(&self, share: &mut Share, payouts: &Payouts) {
        let outputs = payouts.outputs(self.params, share.class, share.value, share.bitcoin_height, &share.script);
        let mut prefix = coinbase::prefix_of(share, &outputs);
        if self.bad_coinbase {
            // The sequence of another transaction: nothing that the share says of itself.
            prefix[0] ^= 1;
        }
        let mut midstate = Midstate::new();
        midstate.update_blocks(&prefix);
        share.proof.midstate = midstate.to_bytes();
        share.proof.prefix_len = prefix.len() as u32;
        let x = if share.layout == Layout::Tail { share.proof.extranonce } else { [0; 12] };
        let commitment = share.commitment(&self.params.genesis_id());
        let transaction = coinbase::coinbase_tx(&prefix, x, commitment, coinbase::locktime(share.bitcoin_height), false);
        let root = merkle_root(sha256d(&transaction), &share.proof.branch);
        share.header[36..68].copy_from_slice(&root);
        for nonce in 0u32.. {
            share.header[76..].copy_from_slice(&nonce.to_le_bytes());
            if target::hash_meets(&share.id().0, share.bits) {
                break;
            }
        }
    }
}

/// A regtest header on a Bitcoin block, so many seconds after it.
pub fn bitcoin_header(prev: &Block, after: u32) -> [u8; 80] {
    let mut header = [0; 80];
    header[..4].copy_from_slice(&0x2000_0000u32.to_le_bytes());
    header[4..36].copy_from_slice(&prev.hash);
    header[68..72].copy_from_slice(&(prev.time() + after).to_le_bytes());
    header[72..76].copy_from_slice(&0x207f_ffffu32.to_le_bytes());
    for nonce in 0u32.. {
        header[76..].copy_from_slice(&nonce.to_le_bytes());
        if target::hash_meets(&sha256d(&header), 0x207f_ffff) {
            break;
        }
    }
    header
}

/// The share with the proof that its fields need, whatever they say.
pub fn proved(params: &'static Params, mut share: Share, chain: &impl Ancestry) -> Share {
    let Some(parent) = chain.record(&share.parent) else { panic!("share {} is not there to be built on", share.parent) };
    ShareBuilder::new(params).prove(&mut share, &payouts(params, chain, &parent));
    share
}

/// Payouts at a share.
pub(crate) fn payouts(params: &Params, chain: &impl Ancestry, parent: &Arc<Record>) -> Arc<Payouts> {
    if let Some(payouts) = chain.payouts_at(&parent.id) {
        return payouts;
    }
    let mut branch: Vec<_> = std::iter::successors(Some(Arc::clone(parent)), |record| chain.record(&record.parent)).collect();
    branch.reverse();
    let lowest = branch.first().map_or(0, |record| record.height);
    let mut window = Window::new(lowest);
    for record in branch.iter().skip(1) {
        window.push(params, wanted_work(params, record), |height| Level::of(&branch[(height - lowest) as usize]));
    }
    Arc::new(Payouts::new(parent, &window))
}

/// The least time that a child of this share may have, Unix seconds.
pub fn least_time(chain: &impl Ancestry, parent: &ShareId) -> u32 {
    let below = std::iter::successors(chain.record(parent), |record| chain.record(&record.parent));
    let newest: Vec<u32> = below.take(MEDIAN_SPAN).map(|record| record.time).collect();
    difficulty::median_time(&newest) + 1
}
