//! This node's pool: what confirmed blocks paid a miner, and what the next one would.

use std::collections::BTreeMap;

use rockpool_net::wire::share::Script;
use rockpool_store::payouts::Payouts;
use rockpool_workers::jobs::Mined;

use crate::limits::MATURE_DEPTH;
use crate::portfolio::book::Book;
use crate::portfolio::model::{Amount, Holding};

/// What a miner was paid by blocks of Bitcoin's best chain, satoshis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Earned {
    /// By blocks deep enough that it can be spent.
    pub paid: u64,
    /// By the others.
    pub immature: u64,
}

/// What each script was paid, as far as blocks' outputs are known.
pub fn earned(mined: &Mined, book: &Book) -> BTreeMap<Script, Earned> {
    let mut all: BTreeMap<Script, Earned> = BTreeMap::new();
    for (hash, _, confirmations) in &mined.blocks {
        for (script, sats) in book.paid(hash).unwrap_or_default() {
            let earned = all.entry(*script).or_default();
            let sum = if *confirmations >= MATURE_DEPTH { &mut earned.paid } else { &mut earned.immature };
            *sum = sum.saturating_add(*sats);
        }
    }
    all
}

/// An account's holdings. Not counted where another account of the portfolio tells what the address itself holds.
pub fn holdings(earned: Earned, counted: bool) -> Vec<Holding> {
    let holding = |place: &str, sats| Holding { asset: "bitcoin".into(), place: place.into(), amount: Amount::sats(sats), counted };
    let both = [holding("paid", earned.paid), holding("immature", earned.immature)];
    both.into_iter().filter(|holding| !holding.amount.is_zero()).collect()
}

/// What a block of this value would pay a script, in expectation where not all find a place in its coinbase.
pub fn pending(payouts: &Payouts, value: u64, script: &Script) -> u64 {
    let all: u128 = payouts.weights.iter().fold(0, |sum, (_, weight)| sum.saturating_add(*weight));
    let own = payouts.weights.binary_search_by_key(script, |(script, _)| *script).map_or(0, |at| payouts.weights[at].1);
    // So many bits less change no satoshi, and the product fits.
    let excess = (64 - value.leading_zeros()).saturating_sub(all.leading_zeros());
    let (own, all) = (own >> excess, all >> excess);
    let part = (own * u128::from(value)).checked_div(all).unwrap_or_default();
    u64::try_from(part).unwrap_or(value).min(value)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rockpool_net::id::ShareId;

    use super::*;

    fn payouts(weights: &[(Script, u128)]) -> Payouts {
        Payouts { parent: ShareId([0; 32]), parent_height: 9, weights: weights.into() }
    }

    #[test]
    fn what_is_deep_enough_is_paid_and_the_rest_immature() {
        let (one, two) = (Script::P2wpkh([1; 20]), Script::P2tr([2; 32]));
        let mut book = Book::default();
        let block = |n: u8, confirmations| (ShareId([n; 32]), u32::from(n), confirmations);
        book.set_paid(ShareId([1; 32]), vec![(one, 5), (two, 7)]);
        book.set_paid(ShareId([2; 32]), vec![(one, 11)]);
        book.set_paid(ShareId([9; 32]), vec![(one, 1_000)]);
        let blocks = vec![block(1, MATURE_DEPTH), block(2, MATURE_DEPTH - 1), block(3, 1)];
        let mined = Mined { payouts: Arc::new(payouts(&[])), value: 0, height: 0, blocks };
        let all = earned(&mined, &book);
        // A block that is no longer in the best chain pays nothing.
        assert_eq!(all, BTreeMap::from([(one, Earned { paid: 5, immature: 11 }), (two, Earned { paid: 7, immature: 0 })]));
        let told: Vec<_> = holdings(all[&one], true).into_iter().map(|of| (of.place, of.amount.to_string(), of.counted)).collect();
        assert_eq!(told, [("paid".to_owned(), "0.00000005".to_owned(), true), ("immature".to_owned(), "0.00000011".to_owned(), true)]);
        assert!(holdings(all[&two], false).iter().all(|of| !of.counted && of.place == "paid"));
        assert_eq!(holdings(Earned::default(), true), []);
    }

    #[test]
    fn the_next_block_is_split_by_weight() {
        let (one, two, none) = (Script::P2wpkh([1; 20]), Script::P2tr([2; 32]), Script::P2wsh([3; 32]));
        let value = 312_500_000;
        for scale in [1, 1u128 << 64, 1 << 125] {
            let payouts = payouts(&[(one, scale), (two, 3 * scale)]);
            assert_eq!(
                (pending(&payouts, value, &one), pending(&payouts, value, &two), pending(&payouts, value, &none)),
                (78_125_000, 234_375_000, 0)
            );
            assert_eq!(pending(&payouts, 0, &one), 0);
        }
        assert_eq!(pending(&payouts(&[]), value, &one), 0);
        let most = payouts(&[(one, u128::MAX), (two, u128::MAX)]);
        assert!(pending(&most, u64::MAX, &one) > 0 && pending(&most, value, &two) <= value);
    }
}
