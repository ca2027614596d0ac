//! The rules of the share chain as pure functions, one for each sentence of `store/SPEC.md`.
//!
//! Miners' side and checkers' side call the same ones: [`child`] says what a share must carry, `share` compares.

pub mod coinbase;
pub mod difficulty;
pub mod draw;
pub mod score;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod second;
pub mod share;
pub mod target;
pub mod window;

use rockpool_net::id::ShareId;
use rockpool_net::wire::share::Share;

use crate::params::Params;
use crate::record::Record;

/// What a share must carry, given its parent and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Derived {
    /// The ruleset in force.
    pub version: u8,
    /// Height.
    pub height: u32,
    /// Lead, seconds.
    pub lead: u32,
    /// Score of the chain that ends with it.
    pub score: u128,
    /// The easiest target allowed to it, compact.
    pub allowed_bits: u32,
    /// Work of that target.
    pub demand: u128,
}

/// What follows for the child of `parent` at `time`. `excess_16_below` is [`score::excess`] of the ancestor exactly 16 heights below the
/// child, zero where there is none. Of times only those above the median are allowed ([`difficulty::median_time`]).
pub fn child(params: &Params, parent: &Record, excess_16_below: u128, time: u32) -> Derived {
    let height = parent.height.saturating_add(1);
    let allowed_bits = difficulty::allowed_bits(params, parent, time);
    let demand = target::work(allowed_bits);
    Derived {
        version: params.version_at(height),
        height,
        lead: difficulty::lead(params, parent.lead, i64::from(time) - i64::from(parent.time)),
        score: score::next(parent.score, demand, excess_16_below),
        allowed_bits,
        demand,
    }
}

/// A share as the index keeps it. `demand` is [`Derived::demand`].
pub fn record(share: &Share, id: ShareId, demand: u128) -> Record {
    Record {
        id,
        parent: share.parent,
        height: share.height,
        lead: share.lead,
        score: share.score,
        bits: share.bits,
        work: target::work(share.bits),
        demand,
        time: share.time,
        script: share.script,
        class: share.class,
        uncles: share.uncles.clone().into_boxed_slice(),
        bitcoin_prev: share.bitcoin_prev(),
        bitcoin_height: share.bitcoin_height,
        bitcoin_bits: share.header_bits(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// Ids of sentences in a text: `DIFF-4`.
    fn ids(text: &str) -> BTreeSet<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        let is_id = |word: &&str| {
            let Some((family, number)) = word.split_once('-') else { return false };
            family.len() > 1 && family.chars().all(|c| c.is_ascii_uppercase()) && number.parse::<u32>().is_ok()
        };
        words.filter(is_id).map(str::to_owned).collect()
    }

    /// Code names no sentence that SPEC does not have, and SPEC has no number twice.
    #[test]
    fn code_and_spec_speak_of_the_same_sentences() {
        let spec = include_str!("../../SPEC.md");
        let sentences: Vec<String> =
            spec.lines().filter_map(|line| line.strip_prefix("- **")?.split_once("**")).map(|(id, _)| id.to_owned()).collect();
        let unique: BTreeSet<String> = sentences.iter().cloned().collect();
        assert_eq!(unique.len(), sentences.len(), "a number stands twice");
        assert!(ids(spec).difference(&unique).all(|id| id == "SHA-256"), "SPEC refers to {:?}", ids(spec).difference(&unique));
        let code = [
            include_str!("../params.rs"),
            include_str!("../payouts.rs"),
            include_str!("coinbase.rs"),
            include_str!("difficulty.rs"),
            include_str!("draw.rs"),
            include_str!("score.rs"),
            include_str!("share.rs"),
            include_str!("target.rs"),
            include_str!("window.rs"),
        ];
        for text in code {
            let named: BTreeSet<String> = ids(text).into_iter().filter(|id| id != "SHA-256").collect();
            assert!(!named.is_empty());
            assert!(named.is_subset(&unique), "unknown: {:?}", named.difference(&unique));
        }
    }
}
