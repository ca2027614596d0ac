//! The checks of a share, in their order: alone, in its context, and its coinbase (SPEC, ENC, TIE, and what names them).

use rockpool_net::id::ShareId;
use rockpool_net::sha256::Midstate;
use rockpool_net::wire::share::{Layout, Share};
use thiserror::Error;

use crate::bitcoin::Block;
use crate::limits::HEADER_AHEAD_MAX_S;
use crate::params::Params;
use crate::payouts::Payouts;
use crate::record::Record;
use crate::rules::{Ancestors, Derived, bitcoin, child, coinbase, difficulty, target, uncles};

/// Why a share is refused. The text names the broken sentence of `store/SPEC.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RuleError {
    /// Its proof does not tie its fields to its header: whoever sent it made them up. Nothing may be recorded for its id, which an
    /// honest share may have.
    #[error("{0}")]
    Untied(&'static str),
    /// Tied fields break an objective rule: the share is invalid for ever, and its children are.
    #[error("{0}")]
    Broken(&'static str),
}

impl RuleError {
    /// The broken sentence.
    pub fn reason(&self) -> &'static str {
        match self {
            RuleError::Untied(reason) | RuleError::Broken(reason) => reason,
        }
    }
}

/// What can be told of a share from its own bytes: lengths, proof of work, tie, then the rules on its own fields. Gives its id.
pub fn check_alone(params: &Params, share: &Share) -> Result<ShareId, RuleError> {
    use RuleError::{Broken, Untied};
    share.check_limits().or(Err(Untied("ENC-2: lengths or order of its parts")))?;
    let id = share.id();
    if !bits_within_floor(params, share.bits) {
        return Err(Untied("TIE-1: its target is not canonical, or easier than the floor"));
    }
    if !target::hash_meets(&id.0, share.bits) {
        return Err(Untied("TIE-2: its hash does not meet its target"));
    }
    if !share.tied(&params.genesis_id()) {
        return Err(Untied("TIE-3: its proof does not lead to the header's merkle root"));
    }
    if share.header_version() & 0xe000_0000 != 0x2000_0000 {
        return Err(Broken("BTC-1: the header's version does not begin with the bits 001"));
    }
    if share.header_time() > share.time.saturating_add(HEADER_AHEAD_MAX_S) {
        return Err(Broken("BTC-2: the header's time is too far ahead of the share's"));
    }
    if target::target(share.header_bits()).is_none() {
        return Err(Broken("BTC-3: the header's bits are no target"));
    }
    if share.value < params.subsidy(share.bitcoin_height) {
        return Err(Broken("PAY-1: it pays out less than the subsidy"));
    }
    Ok(id)
}

/// Whether the place that a share names is the one that follows from its parent: what [`check_alone`] passed, before its coinbase.
/// `uncles` are the shares that it names, `prev` the Bitcoin block that it builds on, `least_work` as for [`bitcoin::check`].
pub fn check_context(
    params: &Params,
    share: &Share,
    ancestors: Ancestors<'_>,
    uncles: &[&Record],
    (prev, least_work): (&Block, u128),
) -> Result<Derived, RuleError> {
    use RuleError::Broken;
    let Some(parent) = ancestors.parent() else { return Err(Broken("TIE-4: it has no parent")) };
    let derived = child(params, parent, share.time);
    if share.height != derived.height {
        return Err(Broken("TIE-4: its height is not its parent's and one"));
    }
    if share.version != derived.version {
        return Err(Broken("NET-3: its version is not the ruleset in force at its height"));
    }
    // BASE-2: what lies below a base is not known, so what depends on it is taken as given.
    let near_base = ancestors.near_base();
    if !near_base && share.time <= ancestors.median_time() {
        return Err(Broken("TIME-1: its time is not above the median of its newest ancestors"));
    }
    if share.lead != derived.lead {
        return Err(Broken("DIFF-4: its lead does not follow from its parent"));
    }
    if !difficulty::bits_in_range(share.bits, derived.allowed_bits) {
        return Err(Broken("DIFF-6: its target is not between the allowed one and a sixteenth of it"));
    }
    if share.score != derived.score(share.bits) {
        return Err(Broken("SCORE-2: its score does not follow from its parent"));
    }
    if !near_base {
        uncles::check(share.height, uncles, ancestors)?;
    }
    bitcoin::check(params, share, prev, least_work)?;
    Ok(derived)
}

/// COIN-9: rebuilds the coinbase before X from the payouts at the share's parent; midstate and length must be those of its proof. In
/// layout *front* only this ties the extranonce, so there a failure says nothing about the id.
pub fn check_coinbase(params: &Params, share: &Share, payouts: &Payouts) -> Result<(), RuleError> {
    let outputs = payouts.outputs(params, share.class, share.value, share.bitcoin_height, &share.script);
    let prefix = coinbase::prefix_of(share, &outputs);
    let mut midstate = Midstate::new();
    midstate.update_blocks(&prefix);
    if prefix.len() == share.proof.prefix_len as usize && midstate.to_bytes() == share.proof.midstate {
        return Ok(());
    }
    Err(match share.layout {
        Layout::Tail => RuleError::Broken("COIN-9: its coinbase does not pay what its parent dictates"),
        Layout::Front => RuleError::Untied("COIN-9: its coinbase, extranonce included, is not the one its parent dictates"),
    })
}

/// TIE-1: whether bits are canonical and no easier than the network's floor.
fn bits_within_floor(params: &Params, bits: u32) -> bool {
    target::is_canonical(bits) && target::target(bits) <= target::target(params.floor_bits)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::params::{Network, params};
    use crate::record::Place;
    use crate::rules::window::{Level, Window};
    use rockpool_net::sha256::sha256;
    use rockpool_net::wire::share::{Class, Proof, Script, merkle_root};
    use ruint::aliases::U256;

    const OWN: Script = Script::P2tr([7; 32]);

    /// A chain of three shares on regtest's genesis, and the payouts at its tip.
    struct Chain {
        params: &'static Params,
        /// Its shares, the newest first.
        newest: Vec<Arc<Record>>,
        payouts: Payouts,
    }

    fn chain() -> Chain {
        let params = params(Network::Regtest);
        let mut records = vec![params.genesis_record()];
        let mut window = Window::new(0);
        for height in 1..=3u8 {
            let parent = records.last().unwrap();
            let time = 1_800_000_000 + u32::from(height);
            let derived = child(params, parent, time);
            let share = Share {
                height: derived.height,
                lead: derived.lead,
                score: derived.score(derived.allowed_bits),
                bits: derived.allowed_bits,
                time,
                script: Script::P2wpkh([height; 20]),
                ..(**params.genesis()).clone()
            };
            let place = Place {
                allowed_bits: derived.allowed_bits,
                best_bitcoin: None,
                script: Arc::new(share.script),
                bitcoin: Arc::clone(&parent.bitcoin),
                uncles: Vec::new(),
            };
            records.push(Record { parent: parent.id, ..place.record(&share, ShareId([height; 32])) });
            window.push(params, 6, |height| Level::of(&records[height as usize]));
        }
        let newest: Vec<_> = records.into_iter().rev().map(Arc::new).collect();
        let payouts = Payouts::new(&newest[0], &window);
        Chain { params, newest, payouts }
    }

    impl Chain {
        /// An honest share on the tip.
        fn share(&self, layout: Layout) -> Share {
            let derived = child(self.params, &self.newest[0], 1_800_000_010);
            let share = Share {
                header: [0; 80],
                version: derived.version,
                class: Class::N46,
                layout,
                parent: self.newest[0].id,
                uncles: Vec::new(),
                script: OWN,
                bits: derived.allowed_bits,
                time: 1_800_000_010,
                height: derived.height,
                lead: derived.lead,
                score: derived.score(derived.allowed_bits),
                salt: 0x0102_0304,
                value: 5_000_001_234,
                witness_commitment: [0x3c; 32],
                bitcoin_height: 1,
                proof: Proof {
                    prefix_len: 64,
                    midstate: [0; 32],
                    extranonce: *b"\0\0\0\x01extranon",
                    branch: vec![[1; 32], [2; 32], [3; 32]],
                },
            };
            self.mined(share)
        }

        /// The share with the coinbase that it must have, and with proof.
        fn mined(&self, mut share: Share) -> Share {
            let outputs = self.payouts.outputs(self.params, share.class, share.value, share.bitcoin_height, &share.script);
            let prefix = coinbase::prefix_of(&share, &outputs);
            let mut midstate = Midstate::new();
            midstate.update_blocks(&prefix);
            (share.proof.prefix_len, share.proof.midstate) = (prefix.len() as u32, midstate.to_bytes());
            self.tied(share)
        }

        /// The share with the header that its fields lead to, whatever they are, and a hash that meets its target.
        fn tied(&self, mut share: Share) -> Share {
            let x = if share.layout == Layout::Tail { share.proof.extranonce } else { [0; 12] };
            let commitment = share.commitment(&self.params.genesis_id());
            let tail = coinbase::tail(&x, &commitment, coinbase::locktime(share.bitcoin_height));
            let midstate = Midstate::from_bytes(share.proof.midstate, u64::from(share.proof.prefix_len));
            let root = merkle_root(sha256(&midstate.finish(&tail)), &share.proof.branch);
            let fresh = share.header == [0; 80];
            share.header[36..68].copy_from_slice(&root);
            if fresh {
                share.header[..4].copy_from_slice(&0x2000_0000u32.to_le_bytes());
                share.header[68..72].copy_from_slice(&share.time.to_le_bytes());
                share.header[72..76].copy_from_slice(&0x207f_ffffu32.to_le_bytes());
            }
            for nonce in 0u32.. {
                share.header[76..].copy_from_slice(&nonce.to_le_bytes());
                if target::hash_meets(&share.id().0, share.bits) || nonce == 1 << 16 {
                    break;
                }
            }
            share
        }

        fn context(&self, share: &Share) -> Result<Derived, RuleError> {
            let prev = &self.newest[0].bitcoin;
            check_context(self.params, share, Ancestors::new(&self.newest), &[], (prev, 0))
        }
    }

    #[test]
    fn an_honest_share_passes_everything() {
        let chain = chain();
        for layout in [Layout::Tail, Layout::Front] {
            let share = chain.share(layout);
            assert_eq!(check_alone(chain.params, &share), Ok(share.id()));
            assert_eq!(chain.context(&share).unwrap().height, 4);
            assert_eq!(check_coinbase(chain.params, &share, &chain.payouts), Ok(()));
        }
    }

    /// No relay can make anyone record something for an honest id: whatever byte it changes, the id is another one or the proof does
    /// not tie. (In layout front the extranonce shows only when the coinbase is rebuilt, and then counts as not tied.)
    #[test]
    fn an_honest_id_with_any_byte_flipped_is_never_marked() {
        let chain = chain();
        for layout in [Layout::Tail, Layout::Front] {
            let honest = chain.share(layout);
            let bytes = honest.encode();
            let mut decoded = 0;
            for (at, flip) in (0..bytes.len()).flat_map(|at| [1, 0x10, 0x80, 0xff].map(|flip| (at, flip))) {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                let Ok(share) = Share::decode(&bytes) else { continue };
                decoded += 1;
                let verdict = check_alone(chain.params, &share).and_then(|_| check_coinbase(chain.params, &share, &chain.payouts));
                assert!(
                    share.id() != honest.id() || matches!(verdict, Err(RuleError::Untied(_))),
                    "byte {at} ^ {flip:02x}, {layout:?}: {verdict:?}"
                );
            }
            assert!(decoded > 3 * honest.encode().len(), "only {decoded} decoded");
        }
    }

    #[test]
    fn a_share_alone_is_refused_for_what_it_breaks() {
        type Change = fn(&mut Share);
        let chain = chain();
        let cases: [(&str, Change); 7] = [
            ("TIE-1", |share| share.bits = 0x2100_7fff),
            ("TIE-1", |share| share.bits = 0x2100_8000),
            ("TIE-2", |share| share.bits = 0x0301_0000),
            ("BTC-1", |share| share.header[3] = 0x40),
            ("BTC-2", |share| share.header[68..72].copy_from_slice(&(share.time + 7_201).to_le_bytes())),
            ("BTC-3", |share| share.header[72..76].copy_from_slice(&0x1d80_ffffu32.to_le_bytes())),
            ("PAY-1", |share| share.value = 4_999_999_999),
        ];
        for (sentence, change) in cases {
            let mut share = chain.share(Layout::Tail);
            change(&mut share);
            let error = check_alone(chain.params, &chain.mined(share)).unwrap_err();
            assert!(error.reason().starts_with(sentence), "{sentence}: {error}");
            assert_eq!(matches!(error, RuleError::Untied(_)), sentence.starts_with("TIE"), "{error:?}");
        }
        // On the edge.
        let mut share = chain.share(Layout::Tail);
        share.header[68..72].copy_from_slice(&(share.time + 7_200).to_le_bytes());
        share.value = 5_000_000_000;
        share.header[..4].copy_from_slice(&0x3fff_e000u32.to_le_bytes());
        assert!(check_alone(chain.params, &chain.mined(share)).is_ok());
    }

    #[test]
    fn lengths_come_first_and_tie_before_all_else() {
        let chain = chain();
        let mut share = chain.share(Layout::Tail);
        share.proof.prefix_len += 1;
        assert!(check_alone(chain.params, &share).unwrap_err().reason().starts_with("ENC-2"));
        // Broken in many ways, and not tied: nothing may be said but that.
        let mut share = chain.share(Layout::Tail);
        (share.value, share.uncles) = (0, vec![ShareId([1; 32])]);
        assert_eq!(
            check_alone(chain.params, &share).unwrap_err(),
            RuleError::Untied("TIE-3: its proof does not lead to the header's merkle root")
        );
        // Tied on another network only.
        let share = chain.share(Layout::Tail);
        let mut main = params(Network::Main).clone();
        main.floor_bits = 0x207f_ffff;
        assert!(check_alone(&main, &share).unwrap_err().reason().starts_with("TIE-3"));
        // Locktime would be −1.
        let mut share = chain.share(Layout::Tail);
        share.bitcoin_height = 0;
        assert!(check_alone(chain.params, &chain.mined(share)).unwrap_err().reason().starts_with("TIE-3"));
    }

    #[test]
    fn a_place_that_does_not_follow_is_refused() {
        type Change = fn(&mut Share);
        let chain = chain();
        let cases: [(&str, Change); 12] = [
            ("TIE-4", |share| share.height += 1),
            ("TIE-4", |share| share.height = 0),
            ("NET-3", |share| share.version = 2),
            ("NET-3", |share| share.version = 0),
            ("TIME-1", |share| share.time = 1_800_000_001),
            ("DIFF-4", |share| share.lead += 1),
            ("DIFF-6", |share| share.bits -= 0x0100_0000),
            ("SCORE-2", |share| share.score += 1),
            ("SCORE-2", |share| share.score = u128::MAX),
            ("BTC-5", |share| share.bitcoin_height += 1),
            ("BTC-7", |share| share.header[72..76].copy_from_slice(&0x207f_fffeu32.to_le_bytes())),
            ("BTC-8", |share| share.header[68..72].copy_from_slice(&0u32.to_le_bytes())),
        ];
        for (sentence, change) in cases {
            let mut share = chain.share(Layout::Tail);
            change(&mut share);
            let error = chain.context(&share).unwrap_err();
            assert!(error.reason().starts_with(sentence), "{sentence}: {error}");
            assert!(matches!(error, RuleError::Broken(_)));
        }
        // Sixteen times harder is its own choice, counts sixteen times, and changes nothing else.
        let mut share = chain.share(Layout::Tail);
        let easiest = chain.context(&share).unwrap();
        share.bits = difficulty::hardest_bits(share.bits);
        assert!(chain.context(&share).unwrap_err().reason().starts_with("SCORE-2"));
        share.score = easiest.score(share.bits);
        assert_eq!(chain.context(&share), Ok(easiest));
        assert_eq!(share.score - easiest.parent_score, 16 * (easiest.score(easiest.allowed_bits) - easiest.parent_score));
        // One block behind what an ancestor used is the most.
        let (prev, share) = (&chain.newest[0].bitcoin, chain.share(Layout::Tail));
        let error = check_context(chain.params, &share, Ancestors::new(&chain.newest), &[], (prev, 1)).unwrap_err();
        assert!(error.reason().starts_with("BTC-6"));
    }

    #[test]
    fn a_coinbase_that_pays_otherwise_is_refused() {
        let chain = chain();
        let cheat = |layout| {
            let mut share = chain.share(layout);
            // All to itself.
            let prefix = coinbase::prefix_of(&share, &[(OWN, share.value)]);
            let mut midstate = Midstate::new();
            midstate.update_blocks(&prefix);
            (share.proof.prefix_len, share.proof.midstate) = (prefix.len() as u32, midstate.to_bytes());
            chain.tied(share)
        };
        let share = cheat(Layout::Tail);
        assert!(check_alone(chain.params, &share).is_ok());
        assert!(matches!(check_coinbase(chain.params, &share, &chain.payouts), Err(RuleError::Broken(_))));
        // In layout front it may be the relay's lie and not the share's.
        let share = cheat(Layout::Front);
        assert!(check_alone(chain.params, &share).is_ok());
        assert!(matches!(check_coinbase(chain.params, &share, &chain.payouts), Err(RuleError::Untied(_))));
        // The right midstate with another length does not tie, the right length with another midstate neither.
        let mut share = chain.share(Layout::Tail);
        share.proof.prefix_len += 64;
        assert!(check_coinbase(chain.params, &chain.tied(share), &chain.payouts).is_err());
    }

    #[test]
    fn the_floor_itself_is_allowed() {
        let params = params(Network::Main);
        assert!(bits_within_floor(params, params.floor_bits) && bits_within_floor(params, 0x1b04_04cb));
        let easier = target::compact(target::target(params.floor_bits).unwrap() + (U256::ONE << 200));
        assert!(target::is_canonical(easier) && !bits_within_floor(params, easier) && !bits_within_floor(params, 0));
    }
}
