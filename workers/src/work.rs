//! Work: a template joined with the payouts at the share that it builds on. One for all miners of a class and layout.

use std::borrow::Cow;
use std::sync::Arc;

use bitcoin::consensus::encode::{VarInt, deserialize, serialize};
use rockpool_net::sha256::{Midstate, sha256, sha256d};
use rockpool_net::wire::share::{Class, Layout, Proof, Script, Share, merkle_root};
use rockpool_store::params::{Network, Params};
use rockpool_store::payouts::Payouts;
use rockpool_store::rules::coinbase::{self, X_BYTES};
use rockpool_store::rules::{score, target};
use rockpool_store::view::Next;
use thiserror::Error;

use crate::template::Template;
use crate::trim::Trim;

/// Bits of the header version that a miner may roll (BIP320).
pub const VERSION_MASK: u32 = 0x1fff_e000;
/// How far a header's time may run ahead of now, seconds (Bitcoin's rule).
pub const NTIME_AHEAD_MAX_S: u32 = 7_200;

/// Bytes of a lottery's coinbase: NerdMiner's buffer holds 255.
pub const LOTTERY_BYTES: usize = 240;

/// A template joined with payouts: all of a share but header, script, extranonce and, for those who choose it harder, bits.
#[derive(Debug)]
pub struct Work {
    /// The template.
    pub template: Arc<Template>,
    /// The share to be: header zero and script meaningless until a submit fills them, bits the easiest that are allowed. All else is final,
    /// the proof's prefix length and branch included, and in layout *tail* its midstate.
    pub draft: Share,
    /// Coinbase bytes before X. In layout *front* the extranonce, which stands in them, is zero until a submit fills it.
    prefix: Vec<u8>,
    /// While the parent is genesis all goes to the share's own script, so this work is for that script alone; a lottery's always is, and so
    /// is that of an own pool in which nobody has anything.
    pub only_for: Option<Script>,
    /// What it is work for.
    pub kind: Kind,
}

/// What becomes of the hashes that meet their job's difficulty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They may be shares of the share chain.
    Chain,
    /// They may be blocks, and are never shares: for who mines solo, and for devices that hold no coinbase of the share chain
    /// (SHARECHAIN §8, end).
    Lottery,
    /// Each is credited in a pool of this node's own miners.
    Pool,
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
    /// Joins a template with the payouts at the share whose successor `next` describes, and checks the result once
    /// (SHARECHAIN §1).
    pub fn new(
        params: &Params,
        template: Arc<Template>,
        next: &Next,
        payouts: &Payouts,
        (class, layout): (Class, Layout),
        only_for: Option<Script>,
        salt: u32,
    ) -> Result<Work, WorkError> {
        if next.parent != payouts.parent {
            return Err(WorkError::OtherTip);
        }
        let only_for = if payouts.weights.is_empty() { Some(only_for.ok_or(WorkError::NoScript)?) } else { None };
        // With weights the own script is not looked at.
        let own = only_for.unwrap_or(Script::P2wpkh([0; 20]));
        let outputs = payouts.outputs(params, class, template.trim(class).value, template.height, &own);
        let work = Work::joined(params, template, next, (class, layout), own, &outputs, salt)?;
        Ok(Work { only_for, ..work })
    }

    /// Work for a pool of this node's own miners, with its payouts, whose parent is the block that the template builds on.
    pub fn pooled(
        params: &Params,
        template: Arc<Template>,
        next: &Next,
        payouts: &Payouts,
        form: (Class, Layout),
        only_for: Option<Script>,
        salt: u32,
    ) -> Result<Work, WorkError> {
        let next = Next { parent: payouts.parent, bits: bits_without_chain(params, &template, next), ..next.clone() };
        Ok(Work { kind: Kind::Pool, ..Work::new(params, template, &next, payouts, form, only_for, salt)? })
    }

    /// Work whose block pays this script alone, in a coinbase of [`LOTTERY_BYTES`] bytes.
    pub fn lottery(params: &Params, template: Arc<Template>, next: &Next, script: Script, salt: u32) -> Result<Work, WorkError> {
        let outputs = [(script, template.trim(Class::N12).value)];
        let next = Next { bits: bits_without_chain(params, &template, next), ..next.clone() };
        let work = Work::joined(params, template, &next, (Class::N12, Layout::Tail), script, &outputs, salt)?;
        Ok(Work { only_for: Some(script), kind: Kind::Lottery, ..work })
    }

    fn joined(
        params: &Params,
        template: Arc<Template>,
        next: &Next,
        (class, layout): (Class, Layout),
        own: Script,
        outputs: &[(Script, u64)],
        salt: u32,
    ) -> Result<Work, WorkError> {
        let trim = template.trim(class);
        let front = (layout == Layout::Front).then_some(&[0; X_BYTES]);
        let prefix = coinbase::prefix(front, template.height, outputs, &trim.witness_commitment);
        let draft = Share {
            header: [0; 80],
            version: params.version_at(next.height),
            class,
            layout,
            parent: next.parent,
            uncles: next.uncles.clone(),
            script: own,
            bits: next.bits,
            time: next.time,
            height: next.height,
            lead: next.lead,
            score: score::next(next.parent_score, target::work(next.bits), target::work(next.bits)),
            salt,
            value: trim.value,
            witness_commitment: trim.witness_commitment,
            bitcoin_height: template.height,
            proof: Proof {
                prefix_len: prefix.len() as u32,
                midstate: midstate(&prefix).to_bytes(),
                extranonce: [0; X_BYTES],
                branch: trim.branch.clone(),
            },
        };
        let work = Work { template, draft, prefix, only_for: None, kind: Kind::Chain };
        work.verify(params)?;
        Ok(work)
    }

    /// What of the template a block of this work holds.
    pub fn trim(&self) -> &Trim {
        self.template.trim(self.draft.class)
    }

    /// Score of a share of these bits: the draft's is that of the easiest.
    fn score(&self, bits: u32) -> u128 {
        let demand = target::work(self.draft.bits);
        let parent_score = self.draft.score.saturating_sub(score::counted(demand, demand));
        score::next(parent_score, target::work(bits), demand)
    }

    /// What ties the share of this script and target to its header: the 32 bytes after X.
    pub fn commitment(&self, params: &Params, script: &Script, bits: u32) -> [u8; 32] {
        Share { script: *script, bits, score: self.score(bits), ..self.draft.clone() }.commitment(&params.genesis_id())
    }

    /// Coinbase before the extranonce, one text for all miners of the class and layout.
    pub fn coinb1(&self) -> &[u8] {
        match self.draft.layout {
            Layout::Tail => &self.prefix,
            Layout::Front => &self.prefix[..coinbase::extranonce_at(&self.prefix)],
        }
    }

    /// Coinbase after the extranonce as far as it is the same for all miners: nothing in layout *tail*, in layout *front* all up to X and
    /// X itself, which is zero.
    pub fn coinb2_shared(&self) -> Vec<u8> {
        match self.draft.layout {
            Layout::Tail => Vec::new(),
            Layout::Front => [&self.prefix[coinbase::extranonce_at(&self.prefix) + X_BYTES..], &[0; X_BYTES]].concat(),
        }
    }

    /// What comes after that: commitment and locktime.
    pub fn coinb2_own(&self, params: &Params, script: &Script, bits: u32) -> [u8; 36] {
        let mut own = [0; 36];
        own[..32].copy_from_slice(&self.commitment(params, script, bits));
        own[32..].copy_from_slice(&self.locktime().to_le_bytes());
        own
    }

    /// The block header of a submit. In layout *tail* the coinbase costs one block of SHA-256, however many outputs it has; in layout
    /// *front* all of it is hashed.
    pub fn header(&self, params: &Params, script: &Script, bits: u32, roll: &Roll) -> [u8; 80] {
        self.header_of(&self.commitment(params, script, bits), roll)
    }

    /// The same for who knows the commitment already: all submits of a job share it.
    pub fn header_of(&self, commitment: &[u8; 32], roll: &Roll) -> [u8; 80] {
        self.header_after(&self.midstate(&roll.extranonce), commitment, roll)
    }

    /// The share that a submit makes.
    pub fn share(&self, params: &Params, script: &Script, bits: u32, roll: &Roll) -> Share {
        let midstate = self.midstate(&roll.extranonce);
        let header = self.header_after(&midstate, &self.commitment(params, script, bits), roll);
        let mut share = Share { header, script: *script, bits, score: self.score(bits), ..self.draft.clone() };
        share.proof.midstate = midstate.to_bytes();
        share.proof.extranonce = roll.extranonce;
        share
    }

    /// The whole block of a share of this work, encoded with witnesses: what bitcoind is sent.
    pub fn block(&self, params: &Params, share: &Share) -> Vec<u8> {
        let extranonce = &share.proof.extranonce;
        let commitment = self.commitment(params, &share.script, share.bits);
        let coinbase = coinbase::coinbase_tx(&self.prefix(extranonce), self.x(extranonce), commitment, self.locktime(), true);
        let txs = &self.template.txs[..self.trim().kept];
        let mut block = Vec::with_capacity(80 + 9 + coinbase.len() + txs.iter().map(|tx| tx.data.len()).sum::<usize>());
        block.extend_from_slice(&share.header);
        block.extend_from_slice(&serialize(&VarInt(txs.len() as u64 + 1)));
        block.extend_from_slice(&coinbase);
        txs.iter().for_each(|tx| block.extend_from_slice(&tx.data));
        block
    }

    /// Bitcoin's target, as hashes are compared.
    pub fn network_target(&self) -> [u8; 32] {
        target::target_bytes(self.template.bits)
    }

    fn locktime(&self) -> u32 {
        coinbase::locktime(self.template.height)
    }

    /// COIN-7: X of a coinbase with this extranonce.
    fn x(&self, extranonce: &[u8; X_BYTES]) -> [u8; X_BYTES] {
        match self.draft.layout {
            Layout::Tail => *extranonce,
            Layout::Front => [0; X_BYTES],
        }
    }

    /// The coinbase before X, with this extranonce where it stands there.
    fn prefix(&self, extranonce: &[u8; X_BYTES]) -> Cow<'_, [u8]> {
        match self.draft.layout {
            Layout::Tail => Cow::Borrowed(&self.prefix),
            Layout::Front => {
                let (mut prefix, at) = (self.prefix.clone(), coinbase::extranonce_at(&self.prefix));
                prefix[at..at + X_BYTES].copy_from_slice(extranonce);
                Cow::Owned(prefix)
            }
        }
    }

    /// SHA-256 of the coinbase up to X.
    fn midstate(&self, extranonce: &[u8; X_BYTES]) -> Midstate {
        match self.draft.layout {
            Layout::Tail => Midstate::from_bytes(self.draft.proof.midstate, u64::from(self.draft.proof.prefix_len)),
            Layout::Front => midstate(&self.prefix(extranonce)),
        }
    }

    fn header_after(&self, midstate: &Midstate, commitment: &[u8; 32], roll: &Roll) -> [u8; 80] {
        let tail = coinbase::tail(&self.x(&roll.extranonce), commitment, self.locktime());
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

    /// Rebuilds the coinbase as a miner would, and asks the chain's own check whether a share of it would tie; and Bitcoin's own decoder
    /// whether it is a transaction that pays what the template allows. A wrong job looks fine to miners and wastes all they do.
    fn verify(&self, params: &Params) -> Result<(), WorkError> {
        // BTC-1, BTC-3 and PAY-1 of the share chain: shares of such a template would be invalid, every one.
        let (template, value) = (&self.template, self.trim().value);
        let sound = template.version & 0xe000_0000 == 0x2000_0000 && value >= params.subsidy(template.height);
        if !sound || target::target(template.bits).is_none() {
            return Err(WorkError::Unsound("bitcoind's template breaks the share chain's rules (version, value or bits)"));
        }
        let roll = Roll { extranonce: *b"rockpool\x01\x02\x03\x04", version: template.version, ntime: template.curtime, nonce: 0 };
        let (script, bits) = (&self.draft.script, self.draft.bits);
        let bytes = [self.coinb1(), &roll.extranonce, &self.coinb2_shared(), &self.coinb2_own(params, script, bits)].concat();
        let share = self.share(params, script, bits, &roll);
        if share.merkle_root() != merkle_root(sha256d(&bytes), &self.trim().branch) {
            return Err(WorkError::Unsound("the midstate is not that of the coinbase"));
        }
        if !share.tied(&params.genesis_id()) {
            return Err(WorkError::Unsound("the proof does not tie"));
        }
        let tx: bitcoin::Transaction = deserialize(&bytes).or(Err(WorkError::Unsound("the coinbase does not decode")))?;
        let paid: Option<u64> = tx.output.iter().try_fold(0u64, |sum, output| sum.checked_add(output.value.to_sat()));
        if !tx.is_coinbase() || paid != Some(value) {
            return Err(WorkError::Unsound("the coinbase does not pay what the template allows"));
        }
        Ok(())
    }
}

/// What jobs commit to that are none of the share chain: what may be found must be submitted, so they are no harder than a block. On
/// regtest, where blocks cost nothing, they are as hard as shares.
fn bits_without_chain(params: &Params, template: &Template, next: &Next) -> u32 {
    if params.network == Network::Regtest { next.bits } else { template.bits }
}

fn midstate(prefix: &[u8]) -> Midstate {
    let mut midstate = Midstate::new();
    midstate.update_blocks(prefix);
    midstate
}

/// Whether a hash is at most a target, both little-endian as hashes are compared.
pub fn meets(hash: &[u8; 32], target: &[u8; 32]) -> bool {
    hash.iter().rev().le(target.iter().rev())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeSet;

    use bitcoin::hashes::Hash;
    use bitcoin::{Block, Transaction};
    use rockpool_store::rules::difficulty::hardest_bits;
    use rockpool_store::rules::share::{RuleError, check_alone, check_coinbase};
    use rockpool_store::rules::target::target_bytes;
    use rockpool_store::view::ChainView;

    use super::*;
    use crate::embedded::EmbeddedChain;
    use crate::jobs::Fate;
    use crate::template;
    use crate::testing::{Grower, at, fresh_chain, regtest, roll, script, work_of};

    /// A template of these transactions, the first of which pays a fee of 7 satoshis and each next one more.
    pub(crate) fn template_with(txs: &[Transaction]) -> Template {
        let listed = (7..).zip(txs).map(|(fee, tx)| template::tests::listing(tx, fee, &[])).collect();
        template::tests::template_of(listed)
    }

    fn forms() -> Vec<(Class, Layout)> {
        Class::ALL.into_iter().flat_map(|class| [(class, Layout::Tail), (class, Layout::Front)]).collect()
    }

    fn work(view: &ChainView, template: Template, form: (Class, Layout)) -> Work {
        Work::new(regtest(), Arc::new(template), &view.next(regtest(), at(0)), view.payouts(), form, Some(script(1)), 7).unwrap()
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
    fn the_header_is_that_of_the_coinbase_that_a_miner_assembles() {
        let view = crowded();
        for form in forms() {
            for count in [0, 1, 2, 5] {
                let txs: Vec<_> = (0..count).map(template::tests::payment).collect();
                let work = work(&view, template_with(&txs), form);
                for nonce in 0..20 {
                    let (own, bits) = (script(nonce as u8), hardest_bits(work.draft.bits));
                    let roll = Roll { extranonce: [nonce as u8; 12], version: 0x2000_e000, ntime: 1_700_000_000 + nonce, nonce };
                    let coinb2 = [&work.coinb2_shared()[..], &work.coinb2_own(regtest(), &own, bits)].concat();
                    let coinbase = [work.coinb1(), &roll.extranonce, &coinb2].concat();
                    let root = txs.iter().map(|tx| tx.compute_txid().to_byte_array());
                    let leaves = std::iter::once(sha256d(&coinbase)).chain(root).map(bitcoin::Txid::from_byte_array);
                    let root = bitcoin::merkle_tree::calculate_root(leaves).unwrap();
                    let header: bitcoin::block::Header = deserialize(&work.header(regtest(), &own, bits, &roll)).unwrap();
                    assert_eq!(header.merkle_root.to_raw_hash(), root.to_raw_hash());
                    assert_eq!((header.version.to_consensus() as u32, header.time, header.nonce), (roll.version, roll.ntime, roll.nonce));
                    assert_eq!(header.prev_blockhash.to_byte_array(), work.template.prev);
                    assert_eq!(header.bits.to_consensus(), work.template.bits);
                }
            }
        }
    }

    /// Layout *tail* is cheap for us, layout *front* is what firmware reads outputs out of.
    #[test]
    fn the_extranonce_stands_where_the_layout_says() {
        let view = crowded();
        let texts = |layout| {
            let work = work(&view, template_with(&[]), (Class::N46, layout));
            (work.coinb1().to_vec(), work.coinb2_shared())
        };
        let (coinb1, shared) = texts(Layout::Tail);
        assert!(coinb1.len().is_multiple_of(64) && coinb1.len() > 1_000 && shared.is_empty());
        let (coinb1, shared) = texts(Layout::Front);
        assert!(coinb1.len() < 42 + 100 && shared.len() > 1_000);
        assert!(shared.starts_with(&[0xfe, 0xff, 0xff, 0xff, 42]), "sequence and 42 outputs");
        assert!(shared.ends_with(&[[0x6a, 0x2c].as_slice(), &[0; 12]].concat()), "X is zero");
    }

    #[test]
    fn shares_of_every_form_tie_pass_the_rules_and_are_blocks_of_the_bitcoin_crate() {
        let view = crowded();
        let txs: Vec<_> = (0..5).map(template::tests::payment).collect();
        for form in forms() {
            let work = work(&view, template_with(&txs), form);
            for bits in [work.draft.bits, hardest_bits(work.draft.bits)] {
                let rolls = (0..).map(|nonce| Roll { nonce, ..roll(&work, &script(3), true) });
                let mut shares = rolls.map(|roll| work.share(regtest(), &script(3), bits, &roll));
                let share = shares.find(|share| meets(&share.id().0, &target_bytes(bits))).unwrap();
                assert_eq!((share.class, share.layout, share.bits), (form.0, form.1, bits));
                assert!(share.tied(&regtest().genesis_id()));
                assert_eq!(check_alone(regtest(), &share), Ok(share.id()));
                assert_eq!(check_coinbase(regtest(), &share, view.payouts()), Ok(()));
                let block: Block = deserialize(&work.block(regtest(), &share)).unwrap();
                assert!(block.check_merkle_root() && block.check_witness_commitment());
                assert_eq!(block.block_hash().to_byte_array(), share.id().0);
                assert_eq!(block.txdata[1..], txs);
                let outputs: Vec<_> =
                    block.txdata[0].output.iter().map(|output| (output.script_pubkey.to_bytes(), output.value.to_sat())).collect();
                let dictated = view.payouts().outputs(regtest(), form.0, work.trim().value, work.template.height, &script(3));
                assert_eq!(dictated.len(), form.0.outputs().min(40));
                let dictated: Vec<_> = dictated.iter().map(|(script, value)| (script.script_pubkey(), *value)).collect();
                assert_eq!(outputs[..dictated.len()], dictated);
            }
        }
    }

    /// A share of layout *front* whose extranonce is another one is not tied: the rebuilt coinbase shows it.
    #[test]
    fn the_rebuilt_coinbase_ties_the_extranonce_of_layout_front() {
        let (view, bits) = (crowded(), regtest().floor_bits);
        let work = work(&view, template_with(&[]), (Class::N12, Layout::Front));
        let mut share = work.share(regtest(), &script(3), bits, &roll(&work, &script(3), true));
        share.proof.extranonce[11] ^= 1;
        assert!(matches!(check_coinbase(regtest(), &share, view.payouts()), Err(RuleError::Untied(_))));
    }

    /// Outputs of 31 and 43 bytes, heights of one to four: every residue of the coinbase's length comes up in both layouts.
    #[test]
    fn every_residue_of_the_prefix_holds_together_in_both_layouts() {
        for layout in [Layout::Tail, Layout::Front] {
            let mut residues = BTreeSet::new();
            for count in 1..=64u8 {
                let weights = (0..count).map(|n| (script(n), 1_000_000)).collect();
                let view = crowded();
                let next = view.next(regtest(), at(0));
                let payouts = Payouts { parent: next.parent, parent_height: next.height - 1, weights };
                let form = (Class::N144, layout);
                let work = Work::new(regtest(), Arc::new(template_with(&[])), &next, &payouts, form, None, 7).unwrap();
                let share = work.share(regtest(), &script(3), work.draft.bits, &roll(&work, &script(3), true));
                assert_eq!(check_alone(regtest(), &share), Ok(share.id()));
                assert_eq!(check_coinbase(regtest(), &share, &payouts), Ok(()));
                let block: Block = deserialize(&work.block(regtest(), &share)).unwrap();
                assert!(block.check_merkle_root() && block.check_witness_commitment());
                assert_eq!(block.txdata[0].output.len(), usize::from(count) + 2);
                // After the height's push, which is one byte: the length of tag and padding.
                residues.insert(usize::from(block.txdata[0].input[0].script_sig.as_bytes()[1]) - coinbase::TAG.len());
            }
            assert_eq!(residues, (0..64).collect());
        }
    }

    #[test]
    fn the_embedded_chain_accepts_what_is_mined() {
        let (chain, bitcoin) = (fresh_chain(), EmbeddedChain::new(regtest(), None));
        for (height, form) in (1..=40).zip(forms().into_iter().cycle()) {
            let now = at(u64::from(height) * 1_000);
            let work = work_of(form, &chain, &bitcoin, now, script(1), height);
            let share = work.share(regtest(), &script(1), work.draft.bits, &roll(&work, &script(1), true));
            assert_eq!(bitcoin.submit(&work.block(regtest(), &share), now.unix()), Fate::Accepted, "height {height}");
            assert_eq!((bitcoin.tip().hash, bitcoin.tip().height), (share.id().0, height));
        }
    }

    #[test]
    fn payouts_of_another_tip_and_a_first_share_of_nobody_are_refused() {
        const FORM: (Class, Layout) = (Class::N12, Layout::Tail);
        let (view, other) = (fresh_chain().view(), crowded());
        let template = || Arc::new(template_with(&[]));
        let (next, params) = (view.next(regtest(), at(0)), regtest());
        let refused = Work::new(params, template(), &next, other.payouts(), FORM, Some(script(1)), 0);
        assert_eq!(refused.unwrap_err(), WorkError::OtherTip);
        assert_eq!(Work::new(params, template(), &next, view.payouts(), FORM, None, 0).unwrap_err(), WorkError::NoScript);
        assert_eq!(Work::new(params, template(), &next, view.payouts(), FORM, Some(script(1)), 0).unwrap().only_for, Some(script(1)));
        let next = other.next(params, at(0));
        assert_eq!(Work::new(params, template(), &next, other.payouts(), FORM, Some(script(1)), 0).unwrap().only_for, None);
    }

    #[test]
    fn work_that_does_not_hold_together_is_never_used() {
        for layout in [Layout::Tail, Layout::Front] {
            let sound = || work(&crowded(), template_with(&[template::tests::payment(1)]), (Class::N46, layout));
            assert_eq!(sound().verify(regtest()), Ok(()));
            let refused = |change: fn(&mut Work), why: &'static str| {
                let mut work = sound();
                change(&mut work);
                assert_eq!(work.verify(regtest()), Err(WorkError::Unsound(why)), "{layout:?}");
            };
            refused(|work| work.draft.proof.branch.clear(), "the midstate is not that of the coinbase");
            refused(|work| work.draft.bitcoin_height += 1, "the proof does not tie");
            let other_value = |work: &mut Work| Arc::get_mut(&mut work.template).unwrap().trims[1].value += 1;
            refused(other_value, "the coinbase does not pay what the template allows");
            let below_subsidy = |work: &mut Work| Arc::get_mut(&mut work.template).unwrap().trims[1].value = 4_999_999_999;
            refused(below_subsidy, "bitcoind's template breaks the share chain's rules (version, value or bits)");
            // In layout front the midstate is made of the prefix at every submit, so only what it means can be wrong.
            let flipped = |work: &mut Work| work.prefix[200] ^= 1;
            match layout {
                Layout::Tail => refused(flipped, "the midstate is not that of the coinbase"),
                Layout::Front => {
                    let mut work = sound();
                    let length = work.prefix.len();
                    work.prefix.truncate(length - 1);
                    assert!(matches!(work.verify(regtest()), Err(WorkError::Unsound(_))));
                }
            }
        }
    }

    #[test]
    fn hashes_are_compared_from_their_last_byte() {
        let number = |high: u8, low: u8| std::array::from_fn(|i| if i == 31 { high } else { low });
        assert!(meets(&number(1, 255), &number(2, 0)) && meets(&number(2, 3), &number(2, 3)));
        assert!(!meets(&number(2, 4), &number(2, 3)) && !meets(&number(3, 0), &number(2, 255)));
    }
}
