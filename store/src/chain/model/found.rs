//! What random histories have found wrong, each as a history of its own.

use rockpool_net::id::ShareId;
use rockpool_net::wire::share::Share;

use super::node::{late, open};
use crate::chain::{Chain, Offer, Source};
use crate::kv::{Kv, MemKv};
use crate::limits::REACH;
use crate::params::{Network, Params, params};
use crate::testing::ShareBuilder;

fn regtest() -> &'static Params {
    params(Network::Regtest)
}

fn genesis() -> ShareId {
    regtest().genesis_id()
}

/// A share on `parent` that credits these.
fn build(chain: &Chain, parent: ShareId, salt: u32, uncles: &[&Share]) -> Share {
    let uncles: Vec<ShareId> = uncles.iter().map(|uncle| uncle.id()).collect();
    ShareBuilder::new(regtest()).salt(salt).uncles(&uncles).build(chain, &parent)
}

fn take(chain: &mut Chain, share: &Share, source: Source) {
    assert_eq!(chain.offer(late(), share, source), Offer::Taken);
}

/// One more share, which must be taken.
fn grow(chain: &mut Chain, parent: ShareId, salt: u32, uncles: &[&Share]) -> Share {
    let share = build(chain, parent, salt, uncles);
    take(chain, &share, Source::Peer);
    share
}

fn confirm_all(chain: &mut Chain) {
    while chain.confirm(8) > 0 {}
    assert!(chain.take_condemned().is_empty());
    chain.sanity_check().unwrap();
}

fn restart(chain: &mut Chain, kv: &MemKv) {
    write(chain, kv);
    *chain = open(regtest(), kv);
    chain.sanity_check().unwrap();
}

fn write(chain: &mut Chain, kv: &MemKv) {
    for batch in chain.take_change().unwrap_or_default().1 {
        kv.write(&batch.ops, batch.own).unwrap();
    }
}

/// The chain and its uncles were not enough to judge the chain: a restart found the nephew "damaged", a sync waited for ever.
#[test]
fn an_uncle_that_credits_what_the_chain_does_not_is_refused() {
    let kv = MemKv::new();
    let mut chain = open(regtest(), &kv);
    let one = grow(&mut chain, genesis(), 0, &[]);
    let two = grow(&mut chain, one.id(), 0, &[]);
    let three = grow(&mut chain, two.id(), 0, &[]);
    let lost = grow(&mut chain, one.id(), 1, &[]);
    let four = grow(&mut chain, three.id(), 0, &[]);
    let uncle = grow(&mut chain, three.id(), 1, &[&lost]);
    let bad = build(&chain, four.id(), 0, &[&uncle]);
    let fate = chain.offer(late(), &bad, Source::Peer);
    assert!(matches!(fate, Offer::Invalid(why) if why.starts_with("UNC-4")), "{fate:?}");
    let nephew = grow(&mut chain, four.id(), 0, &[&lost, &uncle]);
    confirm_all(&mut chain);
    restart(&mut chain, &kv);
    assert_eq!(chain.confirmed_tip().id, nephew.id());
}

/// Shares of a branch longer than rules look back were taken for bad and thrown away, so that no such branch could ever overtake.
#[test]
fn a_long_rival_branch_overtakes_share_by_share() {
    let mut chain = open(regtest(), &MemKv::new());
    let (mut ours, mut theirs) = (genesis(), genesis());
    for _ in 0..25 {
        ours = grow(&mut chain, ours, 0, &[]).id();
        confirm_all(&mut chain);
        theirs = grow(&mut chain, theirs, 1, &[]).id();
        confirm_all(&mut chain);
    }
    assert_eq!(chain.tip().id, ours);
    let winner = grow(&mut chain, theirs, 1, &[]);
    confirm_all(&mut chain);
    assert_eq!(chain.confirmed_tip().id, winner.id());
}

/// Each share of a losing branch can be credited in turn. Of the eighteenth nobody but who once followed that branch could tell what it
/// must pay: some nodes took the nephew and others did not.
#[test]
fn an_uncle_on_a_long_branch_is_refused() {
    let mut chain = open(regtest(), &MemKv::new());
    let (mut ours, mut theirs) = (grow(&mut chain, genesis(), 0, &[]), grow(&mut chain, genesis(), 1, &[]));
    confirm_all(&mut chain);
    let why = loop {
        let nephew = build(&chain, ours.id(), 0, &[&theirs]);
        match chain.offer(late(), &nephew, Source::Peer) {
            Offer::Taken => ours = nephew,
            Offer::Invalid(why) => break why,
            other => panic!("{other:?}"),
        }
        confirm_all(&mut chain);
        assert_eq!(chain.confirmed_tip().id, ours.id());
        theirs = grow(&mut chain, theirs.id(), 1, &[]);
        confirm_all(&mut chain);
    };
    assert!(why.starts_with("UNC-4"), "{why}");
    assert_eq!(ours.height as usize, REACH, "genesis is none of the newest ancestors any more");
    // Nor does the view draw it for its own.
    let next = chain.view().next(regtest(), late());
    assert!(next.uncles.is_empty());
}

/// Confirmed and cut between two changes, it was told neither as of the chain nor as a proved share beside it.
#[test]
fn what_was_proved_and_cut_since_the_last_change_may_be_credited() {
    let mut chain = open(regtest(), &MemKv::new());
    let mut view = chain.view();
    let lost = grow(&mut chain, genesis(), 0, &[]);
    confirm_all(&mut chain);
    let one = grow(&mut chain, genesis(), 1, &[]);
    let two = grow(&mut chain, one.id(), 1, &[]);
    confirm_all(&mut chain);
    view.apply(&chain.take_change().unwrap().0);
    assert_eq!(view.confirmed_tip().id, two.id());
    assert_eq!(view.next(regtest(), late()).uncles, [lost.id()]);
}

/// After a restart an uncle's row was deleted since its parent, an uncle of the best chain, is in no index then: the own share that credits
/// it could not be read any more at the next one.
#[test]
fn an_own_share_beside_the_chain_keeps_its_uncles_through_restarts() {
    let kv = MemKv::new();
    let mut chain = open(regtest(), &kv);
    let one = grow(&mut chain, genesis(), 0, &[]);
    let first = grow(&mut chain, genesis(), 1, &[]);
    let two = grow(&mut chain, one.id(), 0, &[&first]);
    let second = grow(&mut chain, first.id(), 1, &[]);
    let three = grow(&mut chain, two.id(), 0, &[]);
    let own = build(&chain, two.id(), 2, &[&second]);
    take(&mut chain, &own, Source::Own);
    confirm_all(&mut chain);
    for _ in 0..3 {
        restart(&mut chain, &kv);
        confirm_all(&mut chain);
        assert!(chain.get(&own.id()).is_some(), "an own share was promised to last");
    }
    assert_eq!(chain.tip().id, three.id());
    // It becomes the best chain, with all that it stands on.
    let tip = grow(&mut chain, own.id(), 2, &[]);
    confirm_all(&mut chain);
    restart(&mut chain, &kv);
    assert_eq!(chain.confirmed_tip().id, tip.id());
}

/// After a restart nothing but its row is left of a credited uncle. When that goes with the nephew, the next nephew's row would stand
/// without it.
#[test]
fn who_credits_an_uncle_whose_row_has_gone_brings_it_again() {
    let kv = MemKv::new();
    let mut chain = open(regtest(), &kv);
    let one = grow(&mut chain, genesis(), 0, &[]);
    let uncle = grow(&mut chain, genesis(), 1, &[]);
    confirm_all(&mut chain);
    let two = ShareBuilder::new(regtest()).salt(3).uncles(&[uncle.id()]).bad_coinbase().build(&chain, &one.id());
    take(&mut chain, &two, Source::Peer);
    restart(&mut chain, &kv);
    // The nephew proves bad, and its rows go.
    while chain.confirm(8) > 0 {}
    assert_eq!(chain.take_condemned().len(), 1);
    write(&mut chain, &kv);
    let nephew = ShareBuilder::new(regtest()).salt(4).uncles(&[uncle.id()]).build(&chain, &one.id());
    if let Offer::Pending { missing } = chain.offer(late(), &nephew, Source::Peer) {
        assert_eq!(missing, uncle.id());
        take(&mut chain, &uncle, Source::Peer);
        take(&mut chain, &nephew, Source::Peer);
    }
    confirm_all(&mut chain);
    restart(&mut chain, &kv);
    assert_eq!(chain.confirmed_tip().id, nephew.id());
}
