//! Where share chains are known to have failed elsewhere: none of it happens here.

use rockpool_net::sha256::{Midstate, sha256};
use rockpool_net::wire::share::{Class, Script, merkle_root};

use super::*;
use crate::limits::BASE_HEIGHT_MAX;
use crate::rules::target::hash_meets;

/// Ties a share's fields to its header, whatever they say, and works until the hash meets its target or that is no use.
fn tied(mut share: Share) -> Share {
    let x = if share.layout == Layout::Tail { share.proof.extranonce } else { [0; 12] };
    let locktime = share.bitcoin_height.saturating_sub(1).to_le_bytes();
    let tail = [&x[..], &share.commitment(&regtest().genesis_id()), &locktime].concat();
    let start = Midstate::from_bytes(share.proof.midstate, u64::from(share.proof.prefix_len));
    let root = merkle_root(sha256(&start.finish(&tail)), &share.proof.branch);
    share.header[36..68].copy_from_slice(&root);
    for nonce in 0..200u32 {
        share.header[76..].copy_from_slice(&nonce.to_le_bytes());
        if hash_meets(&share.id().0, share.bits) {
            break;
        }
    }
    share
}

/// A chain of three shares, confirmed.
fn three() -> Chain {
    let mut chain = fresh();
    grow(&mut chain, regtest().genesis_id(), 3, 0, Source::Peer);
    confirm_all(&mut chain);
    chain
}

/// Elsewhere any header of Bitcoin's could be wrapped in as many shares as one liked, since its work was bound to none of their fields.
#[test]
fn one_proof_of_work_is_one_share() {
    type Change = fn(&mut Share);
    let mut chain = three();
    let honest = build().salt(5).build(&chain, &chain.tip().id);
    let changes: [(&str, Change); 16] = [
        ("script", |share| share.script = Script::P2wpkh([0x66; 20])),
        ("kind of script", |share| share.script = Script::P2tr([0x66; 32])),
        ("parent", |share| share.parent = regtest().genesis_id()),
        ("uncles", |share| share.uncles = vec![regtest().genesis_id()]),
        ("version", |share| share.version += 1),
        ("class", |share| share.class = Class::N360),
        ("layout", |share| share.layout = Layout::Front),
        ("bits", |share| share.bits = crate::rules::difficulty::hardest_bits(share.bits)),
        ("time", |share| share.time += 1),
        ("height", |share| share.height += 1),
        ("lead", |share| share.lead += 1),
        ("score", |share| share.score += 1),
        ("salt", |share| share.salt += 1),
        ("value", |share| share.value += 1),
        ("witness commitment", |share| share.witness_commitment[0] ^= 1),
        ("Bitcoin height", |share| share.bitcoin_height += 1),
    ];
    for (what, change) in changes {
        let mut other = honest.clone();
        change(&mut other);
        assert!(other != honest && other.id() == honest.id(), "{what}");
        for source in [Source::Peer, Source::Own, Source::Bulk(peer(1))] {
            let fate = offer(&mut chain, &other, source);
            assert!(matches!(fate, Offer::Bad(_)), "{what}: {fate:?}");
        }
    }
    assert!(chain.invalid.is_empty() && chain.take_condemned().is_empty());
    // A header that commits to no share, however much it worked: Bitcoin's own first one.
    let mut wrapped = honest.clone();
    wrapped.header = chain.bitcoin().root().unwrap().header;
    assert!(matches!(offer(&mut chain, &wrapped, Source::Peer), Offer::Bad(_)));
    assert_eq!(offer(&mut chain, &honest, Source::Peer), Offer::Taken);
}

/// What is changed of a share.
type Change = Box<dyn Fn(&mut Share)>;

/// Elsewhere a target of zero, or a fee of more than the whole, ended the process.
#[test]
fn fields_at_their_ends_are_refused_without_a_panic() {
    let mut changes: Vec<Change> = vec![Box::new(|_| {})];
    for word in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX, 0x0100_0000, 0x0300_0001, 0x2100_ffff, 0x1d80_ffff, 0xff7f_ffff] {
        changes.push(Box::new(move |share| share.bits = word));
        changes.push(Box::new(move |share| share.time = word));
        changes.push(Box::new(move |share| share.height = word));
        changes.push(Box::new(move |share| share.lead = word));
        changes.push(Box::new(move |share| share.bitcoin_height = word));
        changes.push(Box::new(move |share| share.version = word as u8));
        for at in [0, 68, 72] {
            changes.push(Box::new(move |share| share.header[at..at + 4].copy_from_slice(&word.to_le_bytes())));
        }
        let wide = u128::from(word) << 96 | u128::from(word);
        changes.push(Box::new(move |share| share.score = wide));
        changes.push(Box::new(move |share| share.value = wide as u64));
        changes.push(Box::new(move |share| share.value = u64::from(word) << 32 | u64::from(word)));
        changes.push(Box::new(move |share| (share.score, share.value) = (u128::MAX, u64::MAX)));
    }
    let (mut tied_ones, mut taken) = (0, 0);
    for first in 0..changes.len() {
        // One alone, and with another that a draw names.
        for second in [0, (first * 7 + 3) % changes.len()] {
            let mut chain = three();
            let tip = chain.tip().id;
            let mut share = build().salt(9).build(&chain, &tip);
            changes[first](&mut share);
            changes[second](&mut share);
            let share = tied(share);
            tied_ones += usize::from(share.tied(&regtest().genesis_id()) && hash_meets(&share.id().0, share.bits));
            let fate = offer(&mut chain, &share, Source::Peer);
            let bulk = offer(&mut chain, &share, Source::Bulk(peer(1)));
            assert!(fate == bulk || fate == Offer::Taken, "{fate:?}, {bulk:?}");
            confirm_all(&mut chain);
            // What pays more than there is to pay is for Bitcoin to refuse.
            if fate == Offer::Taken {
                taken += 1;
            }
            chain.sanity_check().unwrap();
            // The chain goes on.
            let next = build().salt(10).build(&chain, &tip);
            assert!(matches!(offer(&mut chain, &next, Source::Peer), Offer::Taken));
            confirm_all(&mut chain);
            // A payout of any value is a sum that can be paid.
            let pays = chain.payouts().outputs(regtest(), share.class, share.value, share.bitcoin_height, &share.script);
            assert_eq!(pays.iter().map(|(_, sats)| u128::from(*sats)).sum::<u128>(), u128::from(share.value));
        }
    }
    assert!(tied_ones > 100 && taken > 0, "{tied_ones} tied, {taken} taken");
}

/// Elsewhere whatever lay on the disk was confirmed once a child of it came, judged or not.
#[test]
fn what_was_stored_without_proof_is_proved_after_a_restart() {
    let kv = MemKv::new();
    let mut chain = open(&kv);
    let honest = grow(&mut chain, regtest().genesis_id(), 3, 0, Source::Peer);
    confirm_all(&mut chain);
    let bad = build().salt(1).bad_coinbase().build(&chain, &honest[2].id());
    assert_eq!(offer(&mut chain, &bad, Source::Peer), Offer::Taken);
    let above = grow(&mut chain, bad.id(), 5, 2, Source::Peer);
    for batch in chain.take_change().unwrap().1 {
        kv.write(&batch.ops, batch.own).unwrap();
    }
    let mut again = open(&kv);
    assert_eq!((again.tip().id, again.confirmed_tip().id), (above[4].id(), honest[2].id()));
    let child = build().salt(3).build(&again, &above[4].id());
    assert_eq!(offer(&mut again, &child, Source::Peer), Offer::Taken);
    assert_eq!(again.confirmed_tip().id, honest[2].id(), "a child proves nothing");
    assert_eq!(again.view().next(regtest(), late()).parent, honest[2].id());
    confirm_all(&mut again);
    assert_eq!((again.tip().id, again.confirmed_tip().id), (honest[2].id(), honest[2].id()));
    for batch in again.take_change().unwrap().1 {
        kv.write(&batch.ops, batch.own).unwrap();
    }
    assert_eq!(rows(&kv).len(), 3 + 1, "nobody has to clear its rows by hand");
    again.sanity_check().unwrap();
}

/// Elsewhere whether a share may credit another depended on what the judging node had confirmed by then.
#[test]
fn what_may_be_credited_does_not_depend_on_what_a_node_saw_first() {
    let mut chain = three();
    let parent = chain.tip().id;
    let (one, other) = (build().miner(7).build(&chain, &parent), build().miner(8).build(&chain, &parent));
    for share in [&one, &other] {
        assert_eq!(offer(&mut chain, share, Source::Peer), Offer::Taken);
    }
    let nephew = build().uncles(&[other.id()]).build(&chain, &one.id());
    let mut ends = Vec::new();
    for order in [[&one, &other, &nephew], [&other, &one, &nephew], [&nephew, &other, &one], [&other, &nephew, &one]] {
        for lazy in [false, true] {
            let mut node = three();
            for share in order.into_iter().chain([&nephew]) {
                let fate = offer(&mut node, share, Source::Peer);
                assert!(matches!(fate, Offer::Taken | Offer::Known | Offer::Pending { .. }), "{fate:?}");
                if !lazy {
                    confirm_all(&mut node);
                }
            }
            confirm_all(&mut node);
            node.sanity_check().unwrap();
            ends.push((node.confirmed_tip().id, node.payouts().weights.clone()));
        }
    }
    assert_eq!(ends[0].0, nephew.id());
    assert!(ends.iter().all(|end| *end == ends[0]));
}

/// Elsewhere several nephews could each credit the same uncle.
#[test]
fn a_share_is_credited_by_the_first_that_names_it_and_by_nobody_twice() {
    let mut chain = three();
    let parent = chain.tip().id;
    let uncle = build().miner(7).build(&chain, &chain.tip().parent);
    assert_eq!(offer(&mut chain, &uncle, Source::Peer), Offer::Taken);
    // Two siblings may both name it, since only one of them stays; what builds on either may not.
    let first = build().miner(1).uncles(&[uncle.id()]).build(&chain, &parent);
    let second = build().miner(2).uncles(&[uncle.id()]).build(&chain, &parent);
    for share in [&first, &second] {
        assert_eq!(offer(&mut chain, share, Source::Peer), Offer::Taken);
    }
    for nephew in [&first, &second] {
        let again = build().salt(3).uncles(&[uncle.id()]).build(&chain, &nephew.id());
        assert!(matches!(offer(&mut chain, &again, Source::Peer), Offer::Invalid(why) if why.starts_with("UNC-3")));
        // The loser as an uncle does not bring its own uncle along once more.
        let loser = if nephew.id() == first.id() { &second } else { &first };
        let both = build().salt(4).uncles(&[loser.id()]).build(&chain, &nephew.id());
        let fate = offer(&mut chain, &both, Source::Peer);
        assert!(matches!(fate, Offer::Taken), "{fate:?}");
    }
    confirm_all(&mut chain);
    let weights: BTreeMap<_, _> = chain.payouts().weights.iter().copied().collect();
    let (work, nephew) = (crate::rules::target::work(uncle.bits), chain.table.at(first.height).unwrap());
    assert_eq!(weights[&uncle.script], 10 * work - work.min(nephew.demand()), "nine tenths, and those once");
    chain.sanity_check().unwrap();
}

/// A base share's own place is taken as given, so whoever makes one says what it likes.
#[test]
fn a_base_share_with_fields_at_their_ends_is_refused_or_goes_on_without_a_panic() {
    let ends = [1, BASE_HEIGHT_MAX - 1, BASE_HEIGHT_MAX, BASE_HEIGHT_MAX + 1, u32::MAX - 1, u32::MAX];
    let mut changes: Vec<Change> = Vec::new();
    for word in ends {
        changes.push(Box::new(move |share| share.height = word));
        changes.push(Box::new(move |share| share.time = word));
        changes.push(Box::new(move |share| share.lead = word));
        changes.push(Box::new(move |share| share.bitcoin_height = word));
        changes.push(Box::new(move |share| share.score = u128::MAX - u128::from(word)));
    }
    let mut begun = 0;
    for (number, change) in changes.iter().enumerate() {
        let mut chain = open(&MemKv::new());
        let mut share = build().salt(9).build(&three(), &three().tip().id);
        change(&mut share);
        let share = tied(share);
        assert!(chain.begin_sync(peer(1)));
        let offer_base = chain.begin_at(&share);
        assert!(matches!(offer_base, Offer::Taken | Offer::Bad(_)), "{offer_base:?}");
        assert!(share.height <= BASE_HEIGHT_MAX || offer_base != Offer::Taken);
        if offer_base == Offer::Taken && share.time < u32::MAX / 2 {
            // Of a score that leaves no room nothing is gained.
            while chain.tip().height < share.height + 40 && chain.tip().score < u128::MAX {
                let next = build().salt(number as u32).build(&chain, &chain.tip().id);
                assert_eq!(offer(&mut chain, &next, Source::Bulk(peer(1))), Offer::Taken);
            }
            confirm_all(&mut chain);
            begun += 1;
        }
        chain.sanity_check().unwrap();
    }
    assert!(begun > 5, "{begun}");
}
