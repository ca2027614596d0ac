//! `blockfound`: whether a share is news of a Bitcoin block (SHARECHAIN §10). It is relayed before its coinbase is rebuilt, so what it
//! takes to be relayed must cost its maker a block's work, now.

use rockpool_net::wire::share::Share;
use rockpool_store::bitcoin::{Tree, required_bits};
use rockpool_store::params::Params;
use rockpool_store::rules::share::{RuleError, check_alone};
use rockpool_store::rules::target;

/// Why a share is no news of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its sender made it up: nothing may be recorded for its id.
    Untied(&'static str),
    /// It may be a share as good as any, and is judged as one.
    NoNews(&'static str),
}

/// Judges a share by the Bitcoin headers that we know.
pub fn judge_by(params: &Params, share: &Share, tree: &Tree) -> Result<(), Refusal> {
    let best = tree.best();
    let before = best.and_then(|best| tree.prev(best));
    let bits = tree.get(&share.bitcoin_prev()).map(|prev| required_bits(params, prev, share.header_time()));
    judge(params, share, best.map(|block| block.hash), before.map(|block| block.hash), bits)
}

/// Judges a share that is said to be a Bitcoin block, given the best known Bitcoin block, the one before it, and the bits that a child of
/// the share's Bitcoin parent must have. What is refused has cost the hashing of its own bytes and is forgotten.
fn judge(
    params: &Params,
    share: &Share,
    best: Option<[u8; 32]>,
    best_prev: Option<[u8; 32]>,
    required_bits: Option<u32>,
) -> Result<(), Refusal> {
    let id = check_alone(params, share).map_err(|error| match error {
        RuleError::Untied(why) => Refusal::Untied(why),
        RuleError::Broken(why) => Refusal::NoNews(why),
    })?;
    let parent = Some(share.bitcoin_prev());
    // Or everybody could have 900,000 old blocks relayed.
    if parent != best && parent != best_prev {
        return Err(Refusal::NoNews("its Bitcoin parent is not at the end of the chain"));
    }
    // The header's own bits are its maker's word.
    if required_bits != Some(share.header_bits()) {
        return Err(Refusal::NoNews("its bits are not those that Bitcoin asks for"));
    }
    if !target::hash_meets(&id.0, share.header_bits()) {
        return Err(Refusal::NoNews("its hash is no block's"));
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rockpool_net::time::Now;
    use rockpool_net::wire::share::{Class, Layout};
    use rockpool_store::chain::Chain;
    use rockpool_store::kv::MemKv;
    use rockpool_store::rules::target::target_bytes;
    use rockpool_workers::embedded::EmbeddedChain;
    use rockpool_workers::template::Template;
    use rockpool_workers::work::{Work, meets};

    use super::*;
    use crate::peer::tests::ALICE;
    use crate::testing::{Grower, mined, regtest};

    const OTHER: [u8; 32] = [7; 32];

    fn verdict(share: &Share, best: [u8; 32], best_prev: [u8; 32], bits: u32) -> Result<(), Refusal> {
        judge(regtest(), share, Some(best), Some(best_prev), Some(bits))
    }

    #[test]
    fn news_is_what_builds_on_the_newest_block_or_the_one_before() {
        let share = Grower::new().grow(ALICE);
        let (parent, bits) = (share.bitcoin_prev(), share.header_bits());
        assert_eq!(verdict(&share, parent, OTHER, bits), Ok(()));
        assert_eq!(verdict(&share, OTHER, parent, bits), Ok(()));
        assert!(matches!(verdict(&share, OTHER, OTHER, bits), Err(Refusal::NoNews(why)) if why.contains("parent")));
        assert!(matches!(judge(regtest(), &share, None, None, None), Err(Refusal::NoNews(_))), "a node without bitcoind relays none");
    }

    #[test]
    fn bits_that_bitcoin_does_not_ask_for_are_no_blocks() {
        let share = Grower::new().grow(ALICE);
        let (parent, bits) = (share.bitcoin_prev(), share.header_bits());
        assert!(matches!(verdict(&share, parent, OTHER, bits - 1), Err(Refusal::NoNews(why)) if why.contains("bits")));
        assert!(matches!(judge(regtest(), &share, Some(parent), None, None), Err(Refusal::NoNews(why)) if why.contains("bits")));
    }

    #[test]
    fn a_share_whose_hash_misses_bitcoins_bits_is_no_block() {
        let at = Now { mono: Duration::ZERO, wall: Duration::from_secs(2_000_000_000) };
        let view = Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap().view();
        let template = Template { bits: 0x1d00_ffff, ..EmbeddedChain::new(regtest(), None).template(at.unix()) };
        let (parent, bits) = (template.prev, template.bits);
        let next = view.next(regtest(), at);
        let work = Work::new(regtest(), Arc::new(template), &next, view.payouts(), (Class::N12, Layout::Tail), Some(ALICE), 9).unwrap();
        let share = mined(&work, &ALICE, [5; 12], |hash| meets(hash, &target_bytes(work.draft.bits)));
        assert_eq!(verdict(&share, parent, OTHER, bits), Err(Refusal::NoNews("its hash is no block's")));
    }

    #[test]
    fn what_is_not_tied_is_a_lie() {
        let share = Grower::new().grow(ALICE);
        // Main's floor no test reaches.
        let main = rockpool_store::params::params(rockpool_store::params::Network::Main);
        let parent = share.bitcoin_prev();
        assert!(matches!(judge(main, &share, Some(parent), None, Some(share.header_bits())), Err(Refusal::Untied(_))));
        let mut lie = share.clone();
        lie.salt ^= 1;
        assert!(matches!(verdict(&lie, parent, OTHER, share.header_bits()), Err(Refusal::Untied(_))));
        let mut broken = share;
        broken.value = 0;
        assert!(matches!(verdict(&broken, parent, OTHER, broken.header_bits()), Err(Refusal::Untied(_))), "the value is tied");
    }
}
