//! The rules of the share chain as pure functions, one for each sentence of `store/SPEC.md`.
//!
//! Miners' side and checkers' side call the same ones: [`child`] says what a share must carry, `share` compares.

pub mod bitcoin;
pub mod coinbase;
pub mod difficulty;
pub mod draw;
pub mod score;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
pub(crate) mod second;
pub mod share;
pub mod target;
pub mod uncles;
pub mod window;

use std::sync::Arc;

use crate::limits::MEDIAN_SPAN;
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
    /// The easiest target allowed to it, compact.
    pub allowed_bits: u32,
    /// Work of that target.
    pub demand: u128,
    /// Score of the chain that ends with its parent.
    pub parent_score: u128,
}

/// The newest ancestors of a share, its parent first: [`REACH`](crate::limits::REACH) of them, or as many as are kept.
#[derive(Clone, Copy, Debug)]
pub struct Ancestors<'a> {
    newest: &'a [Arc<Record>],
}

impl<'a> Ancestors<'a> {
    /// These, the parent first.
    pub fn new(newest: &'a [Arc<Record>]) -> Ancestors<'a> {
        Ancestors { newest }
    }

    /// The parent; `None` only if there are no ancestors.
    pub fn parent(&self) -> Option<&'a Record> {
        self.newest.first().map(Arc::as_ref)
    }

    /// All that are kept.
    pub fn iter(&self) -> impl Iterator<Item = &'a Record> {
        self.newest.iter().map(Arc::as_ref)
    }

    /// BASE-2: whether rules that look further down than the parent cannot be checked, since a base share is too near.
    pub fn near_base(&self) -> bool {
        self.newest.len() < crate::limits::REACH && self.newest.last().is_some_and(|lowest| lowest.height > 0)
    }

    /// [`difficulty::median_time`] of the newest of them.
    pub fn median_time(&self) -> u32 {
        let newest: Vec<u32> = self.newest.iter().take(MEDIAN_SPAN).map(|record| record.time).collect();
        difficulty::median_time(&newest)
    }
}

impl Derived {
    /// Score of the chain that ends with a share of these bits.
    pub fn score(&self, bits: u32) -> u128 {
        score::next(self.parent_score, target::work(bits), self.demand)
    }
}

/// What follows for the child of `parent` at `time`. Of times only those above the median are allowed ([`difficulty::median_time`]).
pub fn child(params: &Params, parent: &Record, time: u32) -> Derived {
    let height = parent.height.saturating_add(1);
    let allowed_bits = difficulty::allowed_bits(params, parent, time);
    Derived {
        version: params.version_at(height),
        height,
        lead: difficulty::lead(params, parent.lead, i64::from(time) - i64::from(parent.time)),
        allowed_bits,
        demand: target::work(allowed_bits),
        parent_score: parent.score,
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
            include_str!("bitcoin.rs"),
            include_str!("coinbase.rs"),
            include_str!("difficulty.rs"),
            include_str!("draw.rs"),
            include_str!("score.rs"),
            include_str!("share.rs"),
            include_str!("target.rs"),
            include_str!("uncles.rs"),
            include_str!("window.rs"),
        ];
        for text in code {
            let named: BTreeSet<String> = ids(text).into_iter().filter(|id| id != "SHA-256").collect();
            assert!(!named.is_empty());
            assert!(named.is_subset(&unique), "unknown: {:?}", named.difference(&unique));
        }
    }
}
