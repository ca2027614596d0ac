//! Which uncles a share may credit (SPEC, UNC-1 to UNC-5), and what each of them gets (UNC-6).

use std::sync::Arc;

use rockpool_net::id::ShareId;

use crate::limits::{TENTHS, UNCLE_DEPTH};
use crate::record::Record;
use crate::rules::Ancestors;
use crate::rules::share::RuleError;

/// UNC-1 to UNC-4: whether a share of this height, on these ancestors, may credit these shares. All of them are in the index; that they
/// are valid (UNC-5) shows when their coinbases are rebuilt.
pub fn check(height: u32, uncles: &[&Record], ancestors: Ancestors<'_>) -> Result<(), RuleError> {
    uncles.iter().try_for_each(|uncle| check_one(height, uncle, uncles, ancestors).map_err(RuleError::Broken))
}

/// Whether a share on these ancestors that credits `named` could credit this one too, by its place alone.
pub fn may_credit(height: u32, uncle: &Record, named: &[&Record], ancestors: Ancestors<'_>) -> bool {
    check_one(height, uncle, named, ancestors).is_ok()
}

fn check_one(height: u32, uncle: &Record, named: &[&Record], ancestors: Ancestors<'_>) -> Result<(), &'static str> {
    if !(1..=UNCLE_DEPTH).contains(&height.saturating_sub(uncle.height)) {
        return Err("UNC-1: an uncle is not 1 to 24 heights below");
    }
    if ancestors.iter().any(|ancestor| ancestor.id == uncle.id) {
        return Err("UNC-2: an uncle is an ancestor");
    }
    let credited = |id: &ShareId| ancestors.iter().any(|ancestor| ancestor.credits(id));
    if credited(&uncle.id) {
        return Err("UNC-3: an uncle was credited by an ancestor");
    }
    let known =
        |id: &ShareId| ancestors.iter().any(|ancestor| ancestor.id == *id) || credited(id) || named.iter().any(|other| other.id == *id);
    // The uncles that it credits itself as well, or who has only the chain and its uncles could not judge it.
    if !known(&uncle.parent) || !uncle.uncles().iter().all(|own| known(&own.id)) {
        return Err("UNC-4: an uncle's parent, or a share that it credits, is neither an ancestor nor credited");
    }
    Ok(())
}

/// Why it cannot be said how an uncle's branch leaves the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreached {
    /// Nothing is known here of this share of it.
    Unknown(ShareId),
    /// It leaves the chain below all ancestors that rules may ask for.
    TooLong,
}

/// UNC-4: the shares between an uncle and the newest of these ancestors that it builds on, its parent first; `find` knows shares beside
/// them. What the uncle must pay follows from these, so that there must not be too many.
pub fn branch(
    uncle: &Record,
    ancestors: Ancestors<'_>,
    mut find: impl FnMut(&ShareId) -> Option<Arc<Record>>,
) -> Result<Vec<Arc<Record>>, Unreached> {
    let mut branch = Vec::new();
    let mut parent = uncle.parent;
    let lowest = ancestors.iter().last().map_or(0, |ancestor| ancestor.height);
    while ancestors.iter().all(|ancestor| ancestor.id != parent) {
        let record = find(&parent).ok_or(Unreached::Unknown(parent))?;
        if record.height <= lowest {
            return Err(Unreached::TooLong);
        }
        parent = record.parent;
        branch.push(record);
    }
    Ok(branch)
}

/// UNC-6: what a nephew gets of an uncle's work, in tenths: a tenth of it, but no more than a tenth of what was demanded of the nephew, or
/// heavy tips became bait.
pub fn bounty(uncle_work: u128, nephew_demand: u128) -> u128 {
    uncle_work.min(nephew_demand)
}

/// UNC-6: what is left to the uncle, in tenths.
pub fn left(uncle_work: u128, nephew_demand: u128) -> u128 {
    TENTHS.wrapping_mul(uncle_work).wrapping_sub(bounty(uncle_work, nephew_demand))
}
