//! What of a template fits into a block beside the coinbase of a class (SHARECHAIN §8, last paragraph). bitcoind reserves 8,000 weight
//! units for the coinbase unless it is told otherwise; 360 outputs need 63,000.

use rockpool_net::sha256::sha256d;
use rockpool_net::wire::share::{Class, merkle_root};
use rockpool_store::limits::PREFIX_BYTES;
use rockpool_store::rules::coinbase::TAIL_BYTES;

use crate::limits::BLOCK_WEIGHT_MAX;
use crate::template::{TemplateError, branch};

/// Weight of a block's header.
const HEADER_WEIGHT: u64 = 320;
/// Weight of the coinbase's witness: marker, flag and one item of 32 bytes.
const WITNESS_WEIGHT: u64 = 36;

/// The part of a template's transactions that a block holds beside the largest coinbase of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trim {
    /// How many it keeps, from the first on.
    pub kept: usize,
    /// What the coinbase may pay: subsidy and the fees of those, satoshis.
    pub value: u64,
    /// Witness commitment of a block of those.
    pub witness_commitment: [u8; 32],
    /// Merkle siblings of the coinbase, from the bottom up.
    pub branch: Vec<[u8; 32]>,
}

impl Trim {
    /// That of a block whose only transaction is the coinbase.
    pub fn empty(subsidy: u64) -> Trim {
        Trim { kept: 0, value: subsidy, witness_commitment: commitment(Vec::new()), branch: Vec::new() }
    }
}

/// What trimming asks of a transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed {
    pub txid: [u8; 32],
    pub wtxid: [u8; 32],
    /// Satoshis.
    pub fee: u64,
    pub weight: u32,
}

/// The trims of a template, by class, smallest first. `whole` keeps all of `txs`, in which parents stand before their children: so
/// dropping the last ones never drops a parent and keeps its child.
pub(crate) fn trims(whole: Trim, txs: &[Listed]) -> Result<[Trim; 4], TemplateError> {
    let mut trims: [Trim; 4] = std::array::from_fn(|_| whole.clone());
    let mut last = whole.clone();
    for (trim, class) in trims.iter_mut().zip(Class::ALL) {
        // Most templates are not trimmed at all, or alike for several classes: each set is hashed once.
        let kept = kept(class, txs);
        if kept != last.kept {
            last = trimmed(&whole, txs, kept)?;
        }
        trim.clone_from(&last);
    }
    Ok(trims)
}

fn trimmed(whole: &Trim, txs: &[Listed], kept: usize) -> Result<Trim, TemplateError> {
    let (left, dropped) = txs.split_at(kept);
    let value = dropped.iter().try_fold(whole.value, |value, tx| value.checked_sub(tx.fee));
    Ok(Trim {
        kept,
        value: value.ok_or(TemplateError::Field("fee"))?,
        witness_commitment: commitment(left.iter().map(|tx| tx.wtxid).collect()),
        branch: branch(left.iter().map(|tx| tx.txid).collect()),
    })
}

/// How many of the first transactions fit beside the largest coinbase of this class.
fn kept(class: Class, txs: &[Listed]) -> usize {
    let mut kept = txs.len();
    let mut weight: u64 = txs.iter().map(|tx| u64::from(tx.weight)).sum();
    while kept > 0 && weight + weight_beside(class, kept) > BLOCK_WEIGHT_MAX {
        kept -= 1;
        weight -= u64::from(txs[kept].weight);
    }
    kept
}

/// Weight of all of a block but `txs` transactions: header, their count and the largest coinbase of the class.
fn weight_beside(class: Class, txs: usize) -> u64 {
    let count_bytes = match txs + 1 {
        0..0xfd => 1,
        0xfd..=0xffff => 3,
        _ => 5,
    };
    4 * (PREFIX_BYTES[class as usize] + TAIL_BYTES) as u64 + WITNESS_WEIGHT + HEADER_WEIGHT + 4 * count_bytes
}

/// BIP141's commitment to transactions of these ids with witnesses; the coinbase's counts as zero, and so does its reserved value.
fn commitment(wtxids: Vec<[u8; 32]>) -> [u8; 32] {
    let mut both = [0; 64];
    both[..32].copy_from_slice(&merkle_root([0; 32], &branch(wtxids)));
    sha256d(&both)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use bitcoin::consensus::deserialize;
    use bitcoin::{Block, OutPoint, ScriptBuf, Transaction, Weight, Witness};
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};
    use rockpool_net::wire::share::{Layout, Script};
    use rockpool_store::payouts::Payouts;

    use super::*;
    use crate::template::Template;
    use crate::template::tests::{listing, payment, template_of, witness_commitment_of};
    use crate::testing::{at, fresh_chain, regtest, roll, script};
    use crate::work::Work;

    const SUBSIDY: u64 = 5_000_000_000;
    /// Weight of the smallest transaction of a test.
    const SMALL: u64 = 2_000;

    /// A transaction of exactly this weight, a child of these.
    fn sized(number: u32, weight: u64, parents: &[&Transaction]) -> Transaction {
        let mut tx = payment(number);
        for parent in parents {
            let previous_output = OutPoint { txid: parent.compute_txid(), vout: 0 };
            tx.input.push(bitcoin::TxIn { previous_output, ..tx.input[0].clone() });
        }
        // Most of it is script, at four units a byte, the rest witness, at one.
        tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x6a; (weight - 1_500) as usize / 4]);
        let missing = weight - tx.weight().to_wu() + 71;
        tx.input[0].witness = Witness::from_slice(&[vec![1; missing as usize - 2]]);
        assert_eq!(tx.weight().to_wu(), weight);
        tx
    }

    /// A template of transactions whose fees are 1,000 satoshis and one more for each; parents by their place.
    fn template(weights: &[u64], parents: &BTreeMap<usize, Vec<usize>>) -> (Template, Vec<Transaction>) {
        let (mut txs, mut listed): (Vec<Transaction>, _) = (Vec::new(), Vec::new());
        for (place, weight) in weights.iter().enumerate() {
            let parents = parents.get(&place).cloned().unwrap_or_default();
            let tx = sized(place as u32, *weight, &parents.iter().map(|parent| &txs[*parent]).collect::<Vec<_>>());
            listed.push(listing(&tx, 1_000 + place as u64, &parents.iter().map(|parent| parent + 1).collect::<Vec<_>>()));
            txs.push(tx);
        }
        (template_of(listed), txs)
    }

    fn fees(kept: usize) -> u64 {
        (0..kept as u64).map(|place| 1_000 + place).sum()
    }

    /// The block of a share whose coinbase pays as many as its class may, each by 43 bytes; and how many bytes it has less than the
    /// class' largest, whose height takes a byte more.
    fn fullest_block(template: &Arc<Template>, class: Class) -> (Block, u64) {
        let next = fresh_chain().view().next(regtest(), at(0));
        let weights =
            (0..class.outputs() as u16).map(|n| (Script::P2tr([n.to_be_bytes(), [7; 2]].concat().repeat(8).try_into().unwrap()), 1_000));
        let payouts = Payouts { parent: next.parent, parent_height: 0, weights: weights.collect() };
        let work = Work::new(regtest(), Arc::clone(template), &next, &payouts, (class, Layout::Front), None, 0).unwrap();
        let share = work.share(regtest(), &script(1), work.draft.bits, &roll(&work, &script(1), true));
        let block: Block = deserialize(&work.block(regtest(), &share)).unwrap();
        assert_eq!(block.txdata[0].output.len(), class.outputs() + 2);
        (block, (PREFIX_BYTES[class as usize] as u64) - u64::from(share.proof.prefix_len))
    }

    /// What every trimmed block must be, by the `bitcoin` crate. Gives its weight, as if its coinbase were the largest of its class.
    fn check(template: &Arc<Template>, txs: &[Transaction], class: Class) -> u64 {
        let trim = template.trim(class);
        let (block, missing) = fullest_block(template, class);
        assert!(block.check_merkle_root() && block.check_witness_commitment());
        assert_eq!(block.txdata[1..], txs[..trim.kept]);
        assert_eq!(trim.value, SUBSIDY + fees(trim.kept), "to the satoshi");
        assert_eq!(block.txdata[0].output.iter().map(|output| output.value.to_sat()).sum::<u64>(), trim.value);
        assert_eq!(trim.witness_commitment, witness_commitment_of(&txs[..trim.kept]));
        let weight = block.weight().to_wu() + 4 * missing;
        assert!(weight <= BLOCK_WEIGHT_MAX, "{class:?}: {weight}");
        weight
    }

    #[test]
    fn a_block_of_exactly_the_limit_is_not_trimmed_and_one_unit_above_is() {
        assert_eq!(Weight::MAX_BLOCK.to_wu(), BLOCK_WEIGHT_MAX);
        // From 252 transactions on their count, the coinbase among them, takes three bytes.
        for (class, count) in Class::ALL.into_iter().zip([12, 251, 252, 253]) {
            let room = BLOCK_WEIGHT_MAX - weight_beside(class, count);
            let mut weights = vec![room / count as u64; count];
            weights[count - 1] += room % count as u64;
            let (full, txs) = template(&weights, &BTreeMap::new());
            assert_eq!(full.trim(class).kept, count);
            assert_eq!(check(&Arc::new(full), &txs, class), BLOCK_WEIGHT_MAX, "the limit to the unit");
            weights[3] += 1;
            let (over, txs) = template(&weights, &BTreeMap::new());
            assert_eq!(over.trim(class).kept, count - 1);
            let fewer = if count == 252 { 8 } else { 0 };
            assert_eq!(check(&Arc::new(over), &txs, class), BLOCK_WEIGHT_MAX + 1 - weights[count - 1] - fewer);
        }
    }

    #[test]
    fn what_fits_is_the_templates_own_and_larger_coinbases_leave_less() {
        let (small, txs) = template(&[SMALL; 3], &BTreeMap::new());
        assert!(small.trims.iter().all(|trim| (trim.kept, trim) == (3, &small.trims[0])));
        assert_eq!(small.trims[0].witness_commitment, witness_commitment_of(&txs));
        // Classes differ by 5,632, 16,896 and 37,120 units: four, nine and nineteen of these transactions.
        let count = ((BLOCK_WEIGHT_MAX - weight_beside(Class::N12, 2_000)) / SMALL) as usize;
        let (full, _) = template(&vec![SMALL; count], &BTreeMap::new());
        assert_eq!(full.trims.each_ref().map(|trim| count - trim.kept), [0, 3, 11, 30]);
    }

    /// Seeded templates of families of transactions, a little over a block: what is left is a block by Bitcoin's rules, no child without
    /// its parents, and the next one would not have fitted.
    #[test]
    fn families_are_cut_from_the_end_and_never_torn() {
        let mut rng = ChaCha12Rng::seed_from_u64(11);
        let mut draw = |below: u32| rng.next_u32() % below;
        let mut dropped_children = 0;
        for round in 0..6 {
            // Around 252 transactions their count begins to take three bytes.
            let count = if round % 2 == 0 { 250 + draw(6) as usize } else { 20 + draw(40) as usize };
            let mean = BLOCK_WEIGHT_MAX / count as u64;
            let weights: Vec<u64> = (0..count).map(|_| mean * 3 / 4 + u64::from(draw(mean as u32 / 2))).collect();
            let mut parents = BTreeMap::<usize, Vec<usize>>::new();
            for place in 1..count {
                if draw(2) == 0 {
                    parents.insert(place, vec![draw(place as u32) as usize]);
                }
            }
            let (template, txs) = template(&weights, &parents);
            let template = Arc::new(template);
            for class in Class::ALL {
                let trim = template.trim(class);
                let weight = check(&template, &txs, class);
                if trim.kept < count {
                    let next = weights[trim.kept] + 4 * if trim.kept + 1 == 252 { 2 } else { 0 };
                    assert!(weight + next > BLOCK_WEIGHT_MAX, "{class:?}: {weight} and {next} more would fit");
                }
                let place = |id| txs.iter().position(|tx| tx.compute_txid() == id);
                for tx in &txs[..trim.kept] {
                    let parents = tx.input.iter().filter_map(|input| place(input.previous_output.txid));
                    assert!(parents.into_iter().all(|parent| parent < trim.kept), "a child without its parent");
                }
                dropped_children += parents.range(trim.kept..).count();
            }
        }
        assert!(dropped_children > 0);
    }

    #[test]
    fn fees_of_more_than_the_template_pays_are_refused() {
        let half = BLOCK_WEIGHT_MAX as u32 / 2;
        let txs = [(1, half), (SUBSIDY + 2, half)].map(|(fee, weight)| Listed { txid: [1; 32], wtxid: [2; 32], fee, weight });
        let whole = Trim { kept: 2, value: SUBSIDY + 1, ..Trim::empty(0) };
        assert_eq!(trims(whole.clone(), &txs), Err(TemplateError::Field("fee")));
        // Nothing at all fits: a block of the coinbase alone, as the embedded chain has it.
        let txs = [Listed { txid: [1; 32], wtxid: [2; 32], fee: 1, weight: u32::MAX }; 2];
        assert_eq!(trims(whole, &txs).unwrap()[0], Trim::empty(SUBSIDY - 1));
        assert_eq!(Trim::empty(1).witness_commitment, witness_commitment_of(&[]));
    }
}
