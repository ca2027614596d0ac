//! Work: a template joined with the payouts at the confirmed tip. One for all miners of a class.

use std::sync::Arc;

use bitcoin::consensus::encode::{VarInt, deserialize, serialize};
use rockpool_net::sha256::{Midstate, sha256, sha256d};
use rockpool_net::wire::share::{Class, Layout, Proof, Script, Share, merkle_root};
use rockpool_store::params::Params;
use rockpool_store::payouts::Payouts;
use rockpool_store::rules::{coinbase, target};
use rockpool_store::view::Next;
use thiserror::Error;

use crate::template::Template;

/// Bits of the header version that a miner may roll (BIP320).
pub const VERSION_MASK: u32 = 0x1fff_e000;
/// How far a header's time may run ahead of now, seconds (Bitcoin's rule).
pub const NTIME_AHEAD_MAX_S: u32 = 7_200;

/// A template joined with payouts: all of a share but header, script and extranonce.
#[derive(Debug)]
pub struct Work {
    /// The template.
    pub template: Arc<Template>,
    /// The share to be: header zero and script meaningless until a submit fills them, all else final, proof's prefix length, midstate
    /// and branch included.
    pub draft: Share,
    /// Coinbase bytes before the extranonce: `coinb1` of every job of this work.
    pub prefix: Vec<u8>,
    /// While the parent is genesis all goes to the share's own script, so this work is for that script alone.
    pub only_for: Option<Script>,
}

/// Why no work can be made. None of these is a miner's fault; each is a defect or a template that cannot be paid out.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum WorkError {
    /// Payouts and place in the chain are of different tips.
    #[error("payouts are of another tip than the work")]
    OtherTip,
    /// While the parent is genesis all goes to the share's own script, so there must be one.
    #[error("the first share's work needs the miner's own script")]
    NoScript,
    /// The check before use failed.
    #[error("the work does not hold together: {0}; it is not given to miners")]
    Unsound(&'static str),
}

/// What a miner chose: everything of a submit that enters the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roll {
    /// extranonce1 ‖ extranonce2.
    pub extranonce: [u8; 12],
    /// Header version, rolled bits included.
    pub version: u32,
    /// Header time.
    pub ntime: u32,
    /// Header nonce.
    pub nonce: u32,
}

impl Work {
    /// Joins a template with the payouts at the confirmed tip, whose successor `next` describes, and checks the result once
    /// (SHARECHAIN §1, layout tail).
    pub fn new(
        params: &Params,
        template: Arc<Template>,
        next: &Next,
        payouts: &Payouts,
        class: Class,
        only_for: Option<Script>,
        salt: u32,
    ) -> Result<Work, WorkError> {
        if next.parent != payouts.parent {
            return Err(WorkError::OtherTip);
        }
        let only_for = if payouts.weights.is_empty() { Some(only_for.ok_or(WorkError::NoScript)?) } else { None };
        // With weights the own script is not looked at.
        let own = only_for.unwrap_or(Script::P2wpkh([0; 20]));
        let outputs = payouts.outputs(params, class, template.value, template.height, &own);
        let prefix = coinbase::prefix(None, template.height, &outputs, &template.witness_commitment);
        let mut midstate = Midstate::new();
        midstate.update_blocks(&prefix);
        let draft = Share {
            header: [0; 80],
            version: params.version_at(next.height),
            class,
            layout: Layout::Tail,
            parent: next.parent,
            uncles: next.uncles.clone(),
            script: own,
            bits: next.bits,
            time: next.time,
            height: next.height,
            lead: next.lead,
            score: next.score,
            salt,
            value: template.value,
            witness_commitment: template.witness_commitment,
            bitcoin_height: template.height,
            proof: Proof {
                prefix_len: prefix.len() as u32,
                midstate: midstate.to_bytes(),
                extranonce: [0; 12],
                branch: template.branch.clone(),
            },
        };
        let work = Work { template, draft, prefix, only_for };
        work.verify(params)?;
        Ok(work)
    }

    /// What ties the share of this script to its header: the 32 bytes after the extranonce.
    pub fn commitment(&self, params: &Params, script: &Script) -> [u8; 32] {
        Share { script: *script, ..self.draft.clone() }.commitment(&params.genesis_id())
    }

    /// Coinbase before the extranonce, one text for all miners of the class.
    pub fn coinb1(&self) -> &[u8] {
        &self.prefix
    }

    /// Coinbase after the extranonce: commitment and locktime.
    pub fn coinb2(&self, params: &Params, script: &Script) -> [u8; 36] {
        let mut tail = [0; 36];
        tail[..32].copy_from_slice(&self.commitment(params, script));
        tail[32..].copy_from_slice(&self.locktime().to_le_bytes());
        tail
    }

    /// The block header of a submit, from the midstate: one block of SHA-256 for the coinbase, however many outputs it has.
    pub fn header(&self, params: &Params, script: &Script, roll: &Roll) -> [u8; 80] {
        let mut tail = [0; 48];
        tail[..12].copy_from_slice(&roll.extranonce);
        tail[12..].copy_from_slice(&self.coinb2(params, script));
        let midstate = Midstate::from_bytes(self.draft.proof.midstate, u64::from(self.draft.proof.prefix_len));
        let root = merkle_root(sha256(&midstate.finish(&tail)), &self.draft.proof.branch);
        let mut header = [0; 80];
        header[..4].copy_from_slice(&roll.version.to_le_bytes());
        header[4..36].copy_from_slice(&self.template.prev);
        header[36..68].copy_from_slice(&root);
        header[68..72].copy_from_slice(&roll.ntime.to_le_bytes());
        header[72..76].copy_from_slice(&self.template.bits.to_le_bytes());
        header[76..].copy_from_slice(&roll.nonce.to_le_bytes());
        header
    }

    /// The share that a submit makes.
    pub fn share(&self, params: &Params, script: &Script, roll: &Roll) -> Share {
        let mut share = Share { header: self.header(params, script, roll), script: *script, ..self.draft.clone() };
        share.proof.extranonce = roll.extranonce;
        share
    }

    /// The whole block of a share of this work, encoded with witnesses: what bitcoind is sent.
    pub fn block(&self, params: &Params, share: &Share) -> Vec<u8> {
        let coinbase =
            coinbase::coinbase_tx(&self.prefix, share.proof.extranonce, self.commitment(params, &share.script), self.locktime(), true);
        let txs = self.template.txs.iter().map(|tx| tx.len()).sum::<usize>();
        let mut block = Vec::with_capacity(80 + 9 + coinbase.len() + txs);
        block.extend_from_slice(&share.header);
        block.extend_from_slice(&serialize(&VarInt(self.template.txs.len() as u64 + 1)));
        block.extend_from_slice(&coinbase);
        self.template.txs.iter().for_each(|tx| block.extend_from_slice(tx));
        block
    }

    /// The share's target, as hashes are compared: little-endian, most significant byte last.
    pub fn share_target(&self) -> [u8; 32] {
        target::target_bytes(self.draft.bits)
    }

    /// Bitcoin's target, as hashes are compared.
    pub fn network_target(&self) -> [u8; 32] {
        target::target_bytes(self.template.bits)
    }

    fn locktime(&self) -> u32 {
        coinbase::locktime(self.template.height)
    }

    /// Rebuilds the coinbase as a miner would, and asks the chain's own check whether a share of it would tie; and Bitcoin's own decoder
    /// whether it is a transaction that pays what the template allows. A wrong job looks fine to miners and wastes all they do.
    fn verify(&self, params: &Params) -> Result<(), WorkError> {
        // BTC-1, BTC-3 and PAY-1 of the share chain: shares of such a template would be invalid, every one.
        let template = &self.template;
        let sound = template.version & 0xe000_0000 == 0x2000_0000 && template.value >= params.subsidy(template.height);
        if !sound || target::target(template.bits).is_none() {
            return Err(WorkError::Unsound("bitcoind's template breaks the share chain's rules (version, value or bits)"));
        }
        let roll =
            Roll { extranonce: *b"rockpool\x01\x02\x03\x04", version: self.template.version, ntime: self.template.curtime, nonce: 0 };
        let tail = self.coinb2(params, &self.draft.script);
        let bytes = [self.coinb1(), &roll.extranonce, &tail].concat();
        let share = self.share(params, &self.draft.script, &roll);
        if share.merkle_root() != merkle_root(sha256d(&bytes), &self.template.branch) {
            return Err(WorkError::Unsound("the midstate is not that of coinb1"));
        }
        if !share.tied(&params.genesis_id()) {
            return Err(WorkError::Unsound("the proof does not tie"));
        }
        let tx: bitcoin::Transaction = deserialize(&bytes).or(Err(WorkError::Unsound("the coinbase does not decode")))?;
        let paid: Option<u64> = tx.output.iter().try_fold(0u64, |sum, output| sum.checked_add(output.value.to_sat()));
        if !tx.is_coinbase() || paid != Some(self.template.value) {
            return Err(WorkError::Unsound("the coinbase does not pay what the template allows"));
        }
        Ok(())
    }
}

/// Whether a hash is at most a target, both little-endian as hashes are compared.
pub fn meets(hash: &[u8; 32], target: &[u8; 32]) -> bool {
    hash.iter().rev().le(target.iter().rev())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use bitcoin::hashes::Hash;
    use bitcoin::{Block, Transaction};
    use rockpool_store::view::ChainView;

    use super::*;
    use crate::embedded::EmbeddedChain;
    use crate::jobs::Fate;
    use crate::template;
    use crate::testing::{Grower, at, fresh_chain, regtest, roll, script, work_on};

    /// A template with transactions that have witnesses, its witness commitment by the `bitcoin` crate.
    fn template_with(txs: &[Transaction]) -> Template {
        let mut leaves = vec![bitcoin::Wtxid::all_zeros()];
        leaves.extend(txs.iter().map(Transaction::compute_wtxid));
        let root = bitcoin::merkle_tree::calculate_root(leaves.into_iter()).unwrap();
        let commitment = Block::compute_witness_commitment(&bitcoin::WitnessMerkleNode::from_raw_hash(root.to_raw_hash()), &[0; 32]);
        let txids: Vec<_> = txs.iter().map(|tx| tx.compute_txid().to_byte_array()).collect();
        Template {
            branch: template::branch(&txids),
            txs: txs.iter().map(|tx| serialize(tx).into()).collect(),
            witness_commitment: commitment.to_byte_array(),
            ..EmbeddedChain::new(regtest(), None).template(at(0).unix())
        }
    }

    fn work(view: &ChainView, template: Template, class: Class) -> Work {
        Work::new(regtest(), Arc::new(template), &view.next(regtest(), at(0)), view.payouts(), class, Some(script(1)), 7).unwrap()
    }

    /// A chain whose shares are of 40 scripts, so that classes differ.
    fn crowded() -> ChainView {
        let mut grower = Grower::new();
        for n in 0..40 {
            grower.grow(script(n), 0);
        }
        grower.chain.view()
    }

    #[test]
    fn the_midstates_header_is_that_of_the_whole_coinbase() {
        let view = crowded();
        for class in Class::ALL {
            for count in [0, 1, 2, 5] {
                let txs: Vec<_> = (0..count).map(template::tests::payment).collect();
                let work = work(&view, template_with(&txs), class);
                for nonce in 0..20 {
                    let own = script(nonce as u8);
                    let roll = Roll { extranonce: [nonce as u8; 12], version: 0x2000_e000, ntime: 1_700_000_000 + nonce, nonce };
                    let coinbase = [work.coinb1(), &roll.extranonce, &work.coinb2(regtest(), &own)].concat();
                    let root = txs.iter().map(|tx| tx.compute_txid().to_byte_array());
                    let leaves = std::iter::once(sha256d(&coinbase)).chain(root).map(bitcoin::Txid::from_byte_array);
                    let root = bitcoin::merkle_tree::calculate_root(leaves).unwrap();
                    let header: bitcoin::block::Header = deserialize(&work.header(regtest(), &own, &roll)).unwrap();
                    assert_eq!(header.merkle_root.to_raw_hash(), root.to_raw_hash());
                    assert_eq!((header.version.to_consensus() as u32, header.time, header.nonce), (roll.version, roll.ntime, roll.nonce));
                    assert_eq!(header.prev_blockhash.to_byte_array(), work.template.prev);
                    assert_eq!(header.bits.to_consensus(), work.template.bits);
                }
            }
        }
    }

    #[test]
    fn a_whole_block_is_what_the_bitcoin_crate_calls_one() {
        let view = crowded();
        let txs: Vec<_> = (0..5).map(template::tests::payment).collect();
        let work = work(&view, template_with(&txs), Class::N46);
        let share = work.share(regtest(), &script(3), &roll(&work, &script(3), true));
        assert!(share.tied(&regtest().genesis_id()));
        let block: Block = deserialize(&work.block(regtest(), &share)).unwrap();
        assert!(block.check_merkle_root() && block.check_witness_commitment());
        assert_eq!(block.block_hash().to_byte_array(), share.id().0);
        assert_eq!(block.txdata[1..], txs);
        let outputs: Vec<_> =
            block.txdata[0].output.iter().map(|output| (output.script_pubkey.to_bytes(), output.value.to_sat())).collect();
        let dictated = view.payouts().outputs(regtest(), Class::N46, work.template.value, work.template.height, &script(3));
        assert!(dictated.len() > 20);
        let dictated: Vec<_> = dictated.iter().map(|(script, value)| (script.script_pubkey(), *value)).collect();
        assert_eq!(outputs[..dictated.len()], dictated);
    }

    #[test]
    fn the_embedded_chain_accepts_what_is_mined() {
        let (chain, bitcoin) = (fresh_chain(), EmbeddedChain::new(regtest(), None));
        for height in 1..=40 {
            let now = at(u64::from(height) * 1_000);
            let work = work_on(&chain, &bitcoin, now, script(1), height);
            let share = work.share(regtest(), &script(1), &roll(&work, &script(1), true));
            assert_eq!(bitcoin.submit(&work.block(regtest(), &share), now.unix()), Fate::Accepted, "height {height}");
            assert_eq!((bitcoin.tip().hash, bitcoin.tip().height), (share.id().0, height));
        }
    }

    #[test]
    fn payouts_of_another_tip_and_a_first_share_of_nobody_are_refused() {
        let (view, other) = (fresh_chain().view(), crowded());
        let template = || Arc::new(template_with(&[]));
        let (next, params) = (view.next(regtest(), at(0)), regtest());
        let refused = Work::new(params, template(), &next, other.payouts(), Class::N12, Some(script(1)), 0);
        assert_eq!(refused.unwrap_err(), WorkError::OtherTip);
        assert_eq!(Work::new(params, template(), &next, view.payouts(), Class::N12, None, 0).unwrap_err(), WorkError::NoScript);
        assert_eq!(Work::new(params, template(), &next, view.payouts(), Class::N12, Some(script(1)), 0).unwrap().only_for, Some(script(1)));
        let next = other.next(params, at(0));
        assert_eq!(Work::new(params, template(), &next, other.payouts(), Class::N12, Some(script(1)), 0).unwrap().only_for, None);
    }

    #[test]
    fn work_that_does_not_hold_together_is_never_used() {
        let sound = || work(&crowded(), template_with(&[template::tests::payment(1)]), Class::N46);
        assert_eq!(sound().verify(regtest()), Ok(()));
        let mut work = sound();
        work.prefix[100] ^= 1;
        assert_eq!(work.verify(regtest()), Err(WorkError::Unsound("the midstate is not that of coinb1")));
        let mut work = sound();
        work.draft.proof.branch.clear();
        assert_eq!(work.verify(regtest()), Err(WorkError::Unsound("the midstate is not that of coinb1")));
        let mut work = sound();
        Arc::get_mut(&mut work.template).unwrap().value += 1;
        assert_eq!(work.verify(regtest()), Err(WorkError::Unsound("the coinbase does not pay what the template allows")));
        let mut work = sound();
        work.draft.bitcoin_height += 1;
        assert_eq!(work.verify(regtest()), Err(WorkError::Unsound("the proof does not tie")));
    }

    #[test]
    fn hashes_are_compared_from_their_last_byte() {
        let number = |high: u8, low: u8| std::array::from_fn(|i| if i == 31 { high } else { low });
        assert!(meets(&number(1, 255), &number(2, 0)) && meets(&number(2, 3), &number(2, 3)));
        assert!(!meets(&number(2, 4), &number(2, 3)) && !meets(&number(3, 0), &number(2, 255)));
    }
}
