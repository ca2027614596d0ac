//! A sync from several peers at once, where a fresh node begins, and the Bitcoin headers along with shares.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rockpool_net::events::Event;
use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::limits::UNASKED_BYTES_MAX;
use rockpool_net::wire::message::{GetHeaders, Message, Start};
use rockpool_net::wire::share::{Script, Share};
use rockpool_store::bitcoin::Block;
use rockpool_store::chain::{Chain, Offer, Source};
use rockpool_store::kv::MemKv;
use rockpool_store::testing::{ShareBuilder, bitcoin_header};
use rockpool_workers::jobs::{Answer, BitcoinNews, OrganiseJob, ShareFate, Stages};

use crate::limits::{
    BASE_PROBE_MAX, BASE_PROBES_MAX, BTC_HEADERS_ALONG_MAX, BTC_HEADERS_UNASKED_MAX, CHAINTIP_EVERY, CLAIM_LOWERED_EVERY, PROGRESS_EVERY,
    PROGRESS_FROM, SYNC_ANSWER_MAX, SYNC_HANDED_MAX, SYNC_HELP_MAX, SYNC_PARTS_MAX, SYNC_RANGE, SYNC_SHARES,
};
use crate::peer::Progress;
use crate::peer::tests::{ALICE, asked, claim, organise, organised, peer, tip, tip_of};
use crate::testing::{Grower, Inline, Recorder, World, at, regtest};

/// A chain that looks like one to who judges no share: each names the one below it, its heights begin above this one, its score is ten
/// times its height. Salts tell branches apart.
fn forged(above: u32, count: u32, salt: u32) -> Vec<Share> {
    let share = Grower::new().grow(ALICE);
    let mut parent = regtest().genesis_id();
    let heights = above + 1..=above + count;
    let shares = heights.map(|height| {
        let mut share = Share { parent, height, score: 10 * u128::from(height), ..share.clone() };
        share.header[36..40].copy_from_slice(&salt.to_le_bytes());
        share.header[76..].copy_from_slice(&height.to_le_bytes());
        parent = share.id();
        share
    });
    shares.collect()
}

/// What an honest peer answers who is asked from this height on, of a chain that begins at height 1.
fn answer(shares: &[Share], first: u32) -> Message {
    Message::ShareHeaders(shares.iter().skip(first as usize - 1).take(SYNC_SHARES).cloned().collect())
}

/// Heights from which on a peer was asked for shares since this was last looked at.
fn heights(world: &mut World<Recorder>, conn: ConnId) -> Vec<u32> {
    let heights = world.messages(conn).into_iter().filter_map(|message| match message {
        Message::GetHeaders(GetHeaders { from: Start::Height(height), .. }) => Some(height),
        _ => None,
    });
    heights.collect()
}

/// The messages of a sync that the organiser was given.
fn bulks(world: &mut World<Recorder>) -> Vec<OrganiseJob> {
    organise(world).into_iter().filter(|job| matches!(job, OrganiseJob::Bulk { .. })).collect()
}

/// Heights of the first and the last share of such a message.
fn ends(job: &OrganiseJob, owner: ConnId) -> (u32, u32) {
    let OrganiseJob::Bulk { sync, shares, base: false, .. } = job else { panic!("{job:?}") };
    assert_eq!(*sync, owner, "whoever sent it, it is of one sync");
    (shares[0].height, shares[shares.len() - 1].height)
}

/// The organiser has taken all of such a message.
fn done(world: &mut World<Recorder>, job: OrganiseJob, owner: ConnId) {
    let last = ends(&job, owner).1;
    organised(world, job, Vec::new(), vec![(owner, last)]);
}

/// A node that was given the first 500 shares of a better claim by its owner, and now asks for more; the claim's owner, and helpers.
fn begun(shares: &[Share], helpers: usize) -> (World<Recorder>, ConnId, Vec<ConnId>) {
    let mut world = World::recorded(&[], true);
    let owner = peer(&mut world);
    let helpers: Vec<ConnId> = (0..helpers).map(|_| peer(&mut world)).collect();
    let last = shares.last().unwrap();
    world.say(owner, &tip_of(last));
    assert!(asked(&world.messages(owner)).is_some());
    for conn in &helpers {
        world.say(*conn, &tip_of(last));
        assert!(world.messages(*conn).is_empty(), "its claim waits, and where the chains part one peer says");
    }
    world.say(owner, &answer(shares, 1));
    let job = bulks(&mut world).remove(0);
    assert_eq!(ends(&job, owner), (1, SYNC_SHARES as u32));
    done(&mut world, job, owner);
    (world, owner, helpers)
}

fn closed(world: &mut World<impl Stages>, conn: ConnId) -> String {
    assert!(!world.is_open(conn));
    let down = world.published().into_iter().find_map(|event| match event {
        Event::PeerDown { conn: gone, why, .. } if gone == conn => Some(format!("{why:?}")),
        _ => None,
    });
    down.unwrap()
}

#[test]
fn ranges_are_asked_of_several_peers_at_once_and_handed_on_in_order() {
    let full = SYNC_SHARES as u32;
    let (parts, target) = (SYNC_PARTS_MAX as u32, full + (SYNC_PARTS_MAX as u32 + 2) * SYNC_RANGE);
    let shares = forged(0, target, 0);
    let mut world = World::recorded(&[], true);
    let (owner, near) = (peer(&mut world), peer(&mut world));
    let helpers: Vec<ConnId> = (0..SYNC_PARTS_MAX + 1).map(|_| peer(&mut world)).collect();
    world.say(owner, &tip_of(&shares[target as usize - 1]));
    // The range's shares end above this one.
    world.say(near, &tip_of(&shares[(full + SYNC_RANGE) as usize - 1]));
    helpers.iter().for_each(|conn| world.say(*conn, &tip_of(&shares[target as usize - 1])));
    world.taken(owner);
    world.say(owner, &answer(&shares, 1));
    let mut open: BTreeMap<u32, ConnId> = BTreeMap::new();
    let look = |world: &mut World<Recorder>, open: &mut BTreeMap<u32, ConnId>| {
        for conn in [owner].iter().chain(&helpers) {
            let heights = heights(world, *conn);
            assert!(heights.is_empty() || (heights.len() == 1 && !open.values().any(|other| other == conn)), "one range of each peer");
            open.extend(heights.into_iter().map(|height| (height, *conn)));
        }
    };
    look(&mut world, &mut open);
    let wanted: Vec<u32> = (0..parts).map(|part| full + 1 + part * SYNC_RANGE).collect();
    assert_eq!(open.keys().copied().collect::<Vec<_>>(), wanted);
    assert_eq!(open[&(full + 1)], owner);
    // The highest answers first: they wait, each with its ticket.
    for first in wanted.iter().skip(1).rev() {
        let conn = open.remove(first).unwrap();
        world.say(conn, &answer(&shares, *first));
        look(&mut world, &mut open);
        assert_eq!(open.len() as u32, wanted.iter().position(|height| height == first).unwrap() as u32, "no range above those that wait");
    }
    let mut given = bulks(&mut world);
    assert_eq!(given.len(), 1);
    assert_eq!(world.hub.outlet().tickets_out(), SYNC_PARTS_MAX);
    let mut upto = 0;
    loop {
        while let Some((first, conn)) = open.pop_first() {
            world.say(conn, &answer(&shares, first));
            look(&mut world, &mut open);
        }
        given.extend(bulks(&mut world));
        assert!(given.len() <= SYNC_HANDED_MAX);
        if upto == 0 {
            assert_eq!(given.len(), SYNC_HANDED_MAX, "as many as there may be, since all have come");
        }
        if given.is_empty() {
            break;
        }
        let job = given.remove(0);
        let (first, last) = ends(&job, owner);
        assert_eq!(first, upto + 1);
        upto = last;
        done(&mut world, job, owner);
        look(&mut world, &mut open);
        assert!(open.len() <= SYNC_PARTS_MAX);
    }
    assert_eq!(upto, target);
    assert!(heights(&mut world, near).is_empty(), "its claim does not reach as far");
    assert!(world.is_open(owner) && helpers.iter().all(|conn| world.is_open(*conn)));
    assert_eq!(world.hub.outlet().tickets_out(), 0);
}

#[test]
fn a_helper_that_says_nothing_is_let_be_and_its_range_asked_of_another() {
    let shares = forged(0, SYNC_SHARES as u32 + 2 * SYNC_RANGE, 0);
    let (mut world, owner, helpers) = begun(&shares, 2);
    let (silent, other) = (helpers[0], helpers[1]);
    assert_eq!((heights(&mut world, owner), heights(&mut world, silent), heights(&mut world, other)), (vec![501], vec![901], vec![]));
    world.pass(SYNC_HELP_MAX - Duration::from_secs(1));
    assert!(heights(&mut world, other).is_empty());
    world.pass(Duration::from_secs(1));
    assert_eq!(heights(&mut world, other), [901]);
    // It was only slow.
    world.say(silent, &answer(&shares, 901));
    assert!(world.is_open(silent) && bulks(&mut world).is_empty());
    assert_eq!(world.hub.outlet().tickets_out(), 0, "what is not wanted any more keeps no ticket");
    world.say(other, &answer(&shares, 901));
    world.say(owner, &answer(&shares, 501));
    let jobs = bulks(&mut world);
    assert_eq!(jobs.iter().map(|job| ends(job, owner)).collect::<Vec<_>>(), [(501, 900), (901, 1300)]);
    jobs.into_iter().for_each(|job| done(&mut world, job, owner));
    assert!([owner, silent, other].iter().all(|conn| world.is_open(*conn)));
    assert_eq!((world.node.counters().syncs_failed.get(), world.hub.outlet().tickets_out()), (0, 0));
    // An answer more than it was asked for.
    world.say(silent, &answer(&shares, 901));
    assert!(closed(&mut world, silent).contains("not asked for"));
}

#[test]
fn a_helper_whose_shares_do_not_fit_is_not_asked_again() {
    let shares = forged(0, SYNC_SHARES as u32 + 3 * SYNC_RANGE, 0);
    let (mut world, owner, helpers) = begun(&shares, 2);
    let (beside, elsewhere) = (helpers[0], helpers[1]);
    assert_eq!(
        (heights(&mut world, owner), heights(&mut world, beside), heights(&mut world, elsewhere)),
        (vec![501], vec![901], vec![1301])
    );
    // One does not begin where it should, which shows at once; the other is on another branch, which shows when what is below has come.
    let branch = forged(0, 1700, 1);
    world.say(elsewhere, &answer(&shares, 1302));
    assert_eq!(world.hub.outlet().tickets_out(), 0);
    world.say(beside, &answer(&branch, 901));
    assert_eq!(world.hub.outlet().tickets_out(), 1);
    assert_eq!((heights(&mut world, beside), heights(&mut world, elsewhere)), (vec![1301], vec![]), "nothing is known of it yet");
    world.say(owner, &answer(&shares, 501));
    assert_eq!(heights(&mut world, owner), [901]);
    world.say(beside, &answer(&branch, 1301));
    world.say(owner, &answer(&shares, 901));
    assert_eq!(heights(&mut world, owner), [1301], "nobody else is left");
    world.say(owner, &answer(&shares, 1301));
    let jobs = bulks(&mut world);
    assert_eq!(jobs.iter().map(|job| ends(job, owner)).collect::<Vec<_>>(), [(501, 900), (901, 1300), (1301, 1700)]);
    jobs.into_iter().for_each(|job| done(&mut world, job, owner));
    for conn in [beside, elsewhere] {
        assert!(world.is_open(conn) && heights(&mut world, conn).is_empty());
    }
    assert_eq!((world.node.counters().syncs_failed.get(), world.hub.outlet().tickets_out()), (0, 0));
}

/// What a helper sends follows on what is below it, and is nothing the organiser can take: the helper pays for it, and nobody else.
#[test]
fn a_lying_helper_costs_only_itself() {
    let shares = forged(0, SYNC_SHARES as u32 + 5 * SYNC_RANGE, 0);
    let (mut world, owner, helpers) = begun(&shares, 2);
    let (liar, honest) = (helpers[0], helpers[1]);
    assert_eq!((heights(&mut world, owner), heights(&mut world, liar), heights(&mut world, honest)), (vec![501], vec![901], vec![1301]));
    world.say(owner, &answer(&shares, 501));
    world.say(liar, &answer(&shares, 901));
    world.say(honest, &answer(&shares, 1301));
    assert_eq!((heights(&mut world, owner), heights(&mut world, liar)), (vec![1701], vec![2101]));
    world.say(owner, &answer(&shares, 1701));
    let mut jobs = VecDeque::from(bulks(&mut world));
    assert_eq!(jobs.iter().map(|job| ends(job, owner)).collect::<Vec<_>>(), [(501, 900), (901, 1300), (1301, 1700), (1701, 2100)]);
    done(&mut world, jobs.pop_front().unwrap(), owner);
    world.messages(owner);
    // The rest builds on what was taken of the lie: nothing of it is.
    let bad = vec![(liar, shares[1_000].id(), ShareFate::Bad("its coinbase"))];
    organised(&mut world, jobs.pop_front().unwrap(), bad, vec![(owner, 1_000)]);
    assert!(!world.is_open(liar));
    organised(&mut world, jobs.pop_front().unwrap(), Vec::new(), vec![(owner, 0)]);
    assert!(world.messages(owner).is_empty() && world.messages(honest).is_empty(), "the organiser still has one of them");
    organised(&mut world, jobs.pop_front().unwrap(), Vec::new(), vec![(owner, 0)]);
    let messages = world.messages(owner);
    assert_eq!(asked(&messages).and_then(|ids| ids.first()), Some(&shares[899].id()), "from where all was well");
    world.say(owner, &answer(&shares, 901));
    let job = bulks(&mut world).remove(0);
    assert_eq!(ends(&job, owner), (901, 1400));
    done(&mut world, job, owner);
    assert_eq!((heights(&mut world, owner), heights(&mut world, honest)), (vec![1401], vec![1801]));
    assert!(world.is_open(owner) && world.is_open(honest));
    assert_eq!((world.node.counters().syncs_failed.get(), world.hub.outlet().tickets_out()), (0, 0));
}

/// A helper with a chain of its own that parts within its range: the owner's next range does not follow on it, and is not to blame.
#[test]
fn a_helper_with_another_chain_does_not_cost_the_owner_its_sync() {
    let shares = forged(0, SYNC_SHARES as u32 + 4 * SYNC_RANGE, 0);
    for time in ["at the organiser", "taken"] {
        let (mut world, owner, helpers) = begun(&shares, 3);
        let mut branch = shares[900..1_000].to_vec();
        branch.extend(forged(1_000, 300, 1));
        branch[100].parent = branch[99].id();
        world.say(owner, &answer(&shares, 501));
        world.say(helpers[0], &Message::ShareHeaders(branch));
        let mut jobs = VecDeque::from(bulks(&mut world));
        assert_eq!(jobs.iter().map(|job| ends(job, owner)).collect::<Vec<_>>(), [(501, 900), (901, 1300)]);
        if time == "taken" {
            jobs.drain(..).for_each(|job| done(&mut world, job, owner));
        }
        world.messages(owner);
        world.say(helpers[1], &answer(&shares, 1301));
        assert_eq!(heights(&mut world, owner), [1301], "what follows on nothing is asked of the owner");
        world.say(owner, &answer(&shares, 1301));
        let messages = world.messages(owner);
        assert!(asked(&messages).is_some(), "where to go on it says again: {messages:?}");
        // It knows nothing of that branch, and begins where our best chain ends.
        world.say(owner, &answer(&shares, 1));
        jobs.extend(bulks(&mut world));
        assert_eq!(jobs.back().map(|job| ends(job, owner)), Some((1, 500)));
        jobs.drain(..).for_each(|job| done(&mut world, job, owner));
        assert_eq!(heights(&mut world, owner), [501]);
        assert!(world.is_open(owner) && helpers.iter().all(|conn| world.is_open(*conn)));
        assert_eq!((world.node.counters().syncs_failed.get(), world.hub.outlet().tickets_out()), (0, 0));
    }
}

#[test]
fn what_a_peer_that_leaves_was_asked_for_is_asked_of_another() {
    let shares = forged(0, SYNC_SHARES as u32 + 3 * SYNC_RANGE, 0);
    let (mut world, owner, helpers) = begun(&shares, 3);
    let (leaves, stays, third) = (helpers[0], helpers[1], helpers[2]);
    assert_eq!((heights(&mut world, owner), heights(&mut world, leaves), heights(&mut world, stays)), (vec![501], vec![901], vec![1301]));
    world.hang_up(leaves);
    assert_eq!((heights(&mut world, third), heights(&mut world, stays)), (vec![901], vec![]));
    // What has come waits for what is below it. The owner leaves: it is let go, with its ticket, and the next claim has its turn, of a
    // peer that owes no answer.
    world.say(stays, &answer(&shares, 1301));
    assert_eq!(world.hub.outlet().tickets_out(), 1);
    world.hang_up(owner);
    assert_eq!((world.hub.outlet().tickets_out(), world.node.counters().syncs_failed.get()), (0, 1));
    assert!(asked(&world.messages(stays)).is_some());
    world.say(third, &answer(&shares, 901));
    assert!(world.is_open(third), "it was asked");
    world.say(stays, &answer(&shares, 1));
    let job = bulks(&mut world).remove(0);
    assert_eq!(ends(&job, stays), (1, 500));
    assert_eq!((heights(&mut world, stays), heights(&mut world, third)), (vec![501], vec![901]));
    done(&mut world, job, stays);
    assert_eq!(world.hub.outlet().tickets_out(), 0);
}

/// Of ranges with many uncles an answer ends before the range does.
#[test]
fn the_rest_of_a_range_that_did_not_fit_is_asked_for() {
    let shares = forged(0, SYNC_SHARES as u32 + 2 * SYNC_RANGE, 0);
    let (mut world, owner, helpers) = begun(&shares, 1);
    assert_eq!((heights(&mut world, owner), heights(&mut world, helpers[0])), (vec![501], vec![901]));
    let mut short = shares[500..700].to_vec();
    // Uncles fill it up.
    let uncles = forged(0, SYNC_SHARES as u32, 2);
    for index in (0..200).rev() {
        let wanted = if index < 100 { 2 } else { 1 };
        let mine: Vec<Share> = uncles[2 * index..2 * index + wanted].to_vec();
        short[index].uncles = mine.iter().map(Share::id).collect();
        short[index].uncles.sort_unstable();
        short.splice(index..index, mine);
    }
    assert_eq!(short.len(), SYNC_SHARES);
    world.say(owner, &Message::ShareHeaders(short));
    let job = bulks(&mut world).remove(0);
    assert_eq!(ends(&job, owner).1, 700);
    assert_eq!(heights(&mut world, owner), [701]);
    world.say(helpers[0], &answer(&shares, 901));
    assert!(bulks(&mut world).is_empty());
    world.say(owner, &answer(&shares, 701));
    let jobs = bulks(&mut world);
    assert_eq!(jobs.iter().map(|job| ends(job, owner)).collect::<Vec<_>>(), [(701, 900), (901, 1300)]);
    let last = ends(&job, owner).1;
    organised(&mut world, job, Vec::new(), vec![(owner, last)]);
    jobs.into_iter().for_each(|job| done(&mut world, job, owner));
    assert_eq!(world.hub.outlet().tickets_out(), 0);
}

/// A fresh node, and peers with claims of so many more heights than are kept; what each was asked for.
fn probed(world: &mut World<Recorder>, count: u32) -> Vec<(ConnId, Vec<u32>)> {
    let peers: Vec<ConnId> = (0..count).map(|_| peer(world)).collect();
    for (number, conn) in (1..).zip(&peers) {
        world.say(*conn, &tip(regtest().kept + 100 * number, 1_000_000 * u128::from(number)));
    }
    peers
        .into_iter()
        .map(|conn| {
            let asked = heights(world, conn);
            (conn, asked)
        })
        .collect()
}

/// A base of this height and score, and the shares above it.
fn base(height: u32, score: u128) -> Vec<Share> {
    let mut shares = forged(height - 1, SYNC_SHARES as u32, 0);
    (0..).zip(&mut shares).for_each(|(above, share)| share.score = score + above);
    shares
}

#[test]
fn a_fresh_node_begins_at_the_base_whose_chain_has_gained_most() {
    let mut world = World::recorded(&[], true);
    let peers = probed(&mut world, BASE_PROBES_MAX as u32 + 1);
    for (number, (conn, heights)) in (1..).zip(&peers) {
        let wanted = if number <= BASE_PROBES_MAX as u32 { vec![100 * number] } else { Vec::new() };
        assert_eq!(*heights, wanted, "peer {conn:?}");
    }
    // The third's chain has gained most, though its claim is not the best; the fifth shows none; the eighth is silent.
    let show = |number: u32| base(100 * number, 1_000_000 * u128::from(number) - if number == 3 { 50_000 } else { 40_000 });
    for number in [1, 2, 3, 4, 6, 7] {
        world.say(peers[number as usize - 1].0, &Message::ShareHeaders(show(number)));
    }
    world.say(peers[4].0, &Message::ShareHeaders(show(4)));
    assert!(closed(&mut world, peers[4].0).contains("no base share"));
    world.pass(BASE_PROBE_MAX - Duration::from_secs(1));
    assert!(!world.node.peers.syncing());
    world.pass(Duration::from_secs(1));
    let chosen = peers[2].0;
    assert_eq!(heights(&mut world, chosen), [300]);
    assert_eq!((world.hub.outlet().tickets_out(), world.node.counters().syncs.get()), (0, 1));
    world.say(chosen, &Message::ShareHeaders(show(3)));
    let job = bulks(&mut world).remove(0);
    assert!(matches!(&job, OrganiseJob::Bulk { sync, shares, base: true, .. } if *sync == chosen && shares[0].height == 300));
    organised(&mut world, job, Vec::new(), vec![(chosen, 799)]);
    assert_eq!(heights(&mut world, chosen), [800]);
    // The eighth's word comes late, and is let pass. Nobody is dropped who did nothing wrong.
    world.say(peers[7].0, &Message::ShareHeaders(show(8)));
    for (number, (conn, _)) in (1..).zip(&peers) {
        assert_eq!(world.is_open(*conn), number != 5, "peer {number}");
    }
    assert_eq!(world.hub.outlet().tickets_out(), 0);
}

#[test]
fn a_base_is_chosen_at_once_when_all_have_shown_theirs_and_must_come_again() {
    let mut world = World::recorded(&[], true);
    let peers = probed(&mut world, 2);
    let (one, two) = (peers[0].0, peers[1].0);
    let (first, mut second) = (base(100, 1_000), base(200, 1_000));
    world.say(one, &Message::ShareHeaders(first.clone()));
    world.say(two, &Message::ShareHeaders(second.clone()));
    assert_eq!((heights(&mut world, one), heights(&mut world, two)), (vec![], vec![200]));
    // Its score was invented to look like a gain.
    second[0].score -= 1;
    world.say(two, &Message::ShareHeaders(second));
    assert!(!world.is_open(two));
    assert!(bulks(&mut world).is_empty());
    assert_eq!(heights(&mut world, one), [100], "the other shows its own anew");
    world.say(one, &Message::ShareHeaders(first.clone()));
    assert_eq!(heights(&mut world, one), [100]);
    world.say(one, &Message::ShareHeaders(first));
    let jobs = bulks(&mut world);
    assert!(matches!(&jobs[..], [OrganiseJob::Bulk { base: true, .. }]));
}

#[test]
fn a_chain_that_was_begun_and_ends_below_its_claim_is_given_up() {
    let real = Grower::new().grow_many(5, ALICE);
    let mut world = World::recorded(&[], true);
    let conn = probed(&mut world, 1)[0].0;
    let mut shares = base(100, 1_000);
    world.say(conn, &Message::ShareHeaders(shares.clone()));
    assert_eq!(heights(&mut world, conn), [100]);
    world.say(conn, &Message::ShareHeaders(shares.clone()));
    // The organiser begins a chain; that it is another one than the peer's is nothing to who judges no share.
    let mut chain = Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap();
    assert_eq!(chain.begin_at(&real[4]), Offer::Taken);
    let (change, _) = chain.take_change().unwrap();
    let Some(OrganiseJob::Bulk { ticket, .. }) = bulks(&mut world).pop() else { panic!("nothing was handed on") };
    let answer = Answer::Organised {
        change: Some(Box::new(change)),
        refused: Vec::new(),
        fates: Vec::new(),
        missing: Vec::new(),
        bulk_done: vec![(conn, 599)],
    };
    world.mail(answer, vec![ticket]);
    assert_eq!(world.node.chain().view.lowest().height, 5);
    assert_eq!(heights(&mut world, conn), [600]);
    let mut end = shares.split_off(499);
    end[0].height = 600;
    world.say(conn, &Message::ShareHeaders(end));
    assert!(closed(&mut world, conn).contains("ends below its claim"));
    assert!(organise(&mut world).iter().any(|job| matches!(job, OrganiseJob::BeginAnew)));
    assert_eq!(world.hub.outlet().tickets_out(), 0);
}

/// While a better chain is confirmed over there, its owner has less to give than it claimed, and says so. That is no lie, but nobody may say
/// it time after time, or others would never have their turn.
#[test]
fn who_comes_to_claim_less_is_held_to_that_once_in_a_while() {
    let shares = Grower::new().grow_many(4, ALICE);
    let rests = |pause: Duration| {
        let mut world = World::recorded(&[], true);
        world.confirm(&shares[..2]);
        let conn = peer(&mut world);
        for _ in 0..2 {
            claim(&mut world, conn, 10);
            assert!(asked(&world.messages(conn)).is_some(), "its claim is looked into");
            world.say(conn, &tip_of(&shares[1]));
            world.say(conn, &Message::ShareHeaders(Vec::new()));
            if !world.is_open(conn) {
                break;
            }
            world.skip(pause);
        }
        assert_eq!(world.hub.outlet().tickets_out(), 0);
        world.is_open(conn)
    };
    assert!(rests(CLAIM_LOWERED_EVERY));
    assert!(!rests(CLAIM_LOWERED_EVERY / 2));
}

/// Two chains, the second of them better.
fn rivals() -> (Vec<Share>, Vec<Share>) {
    (Grower::new().grow_many(4, ALICE), Grower::new().grow_many(6, Script::P2wpkh([9; 20])))
}

/// What a peer is answered who asks for all, if it is answered.
fn told(world: &mut World<Recorder>, conn: ConnId) -> Option<Vec<Share>> {
    let told = |message| if let Message::ShareHeaders(shares) = message { Some(shares) } else { None };
    world.messages(conn).into_iter().find_map(told)
}

const ALL: Message = Message::GetHeaders(GetHeaders { from: Start::Height(1), stop: ShareId([0; 32]) });

/// What is left of the old chain would look as if it had ended there, below what we had claimed.
#[test]
fn who_asks_while_rows_are_read_and_we_reorganise_is_told_of_the_new_chain() {
    let (before, after) = rivals();
    let mut world = World::recorded(&[], true);
    world.confirm_without_bytes(&before);
    let conn = peer(&mut world);
    world.say(conn, &ALL);
    let read = world.node.stages_mut().jobs.read.remove(0);
    world.confirm(&after);
    let rows = before.iter().take(2).map(|share| Some(share.encode())).chain([None, None]).collect();
    world.mail(Answer::Read { conn, tag: read.tag, rows }, vec![read.ticket]);
    assert_eq!(told(&mut world, conn), Some(after));
    assert_eq!(world.hub.outlet().tickets_out(), 0);
}

/// While a better chain is confirmed we have less to give than the tip that the peer was told of: it waits until we have as much.
#[test]
fn who_asks_while_a_better_chain_is_confirmed_waits_for_that() {
    let (before, after) = rivals();
    let mut world = World::recorded(&[], true);
    world.confirm(&before);
    let conn = peer(&mut world);
    let mut chain = Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap();
    for share in &after {
        assert_eq!(chain.offer(at(Duration::from_secs(60)), share, Source::Peer), Offer::Taken);
    }
    chain.confirm(1);
    world.organised(chain.take_change().unwrap().0);
    world.messages(conn);
    world.say(conn, &ALL);
    assert_eq!(told(&mut world, conn), None);
    chain.confirm(after.len());
    world.organised(chain.take_change().unwrap().0);
    world.pass(CHAINTIP_EVERY);
    assert_eq!(told(&mut world, conn), Some(after));
    assert_eq!(world.hub.outlet().tickets_out(), 0);
}

#[test]
fn a_peer_that_has_nothing_of_what_we_keep_is_told_so_and_left() {
    let shares = Grower::new().grow_many(3, ALICE);
    for (above, why) in [(1, "nothing in common"), (0, "ends below its claim")] {
        let mut world = World::recorded(&[], true);
        world.confirm(&shares);
        let conn = peer(&mut world);
        claim(&mut world, conn, 3 + regtest().kept + above);
        assert!(asked(&world.messages(conn)).is_some());
        world.say(conn, &Message::ShareHeaders(Vec::new()));
        let closed = closed(&mut world, conn);
        assert!(closed.contains(why), "{closed}");
        assert_eq!(world.hub.outlet().tickets_out(), 0);
    }
}

#[test]
fn the_status_tells_how_far_a_sync_is() {
    let shares = Grower::new().grow_many(4, ALICE);
    let mut world = World::recorded(&[], true);
    let progress = |world: &World<Recorder>| world.node.status(world.now()).sync;
    assert_eq!(progress(&world), None);
    let conn = peer(&mut world);
    claim(&mut world, conn, 20);
    world.skip(PROGRESS_FROM * 2);
    let some = |height, seconds_left| Some(Progress { height, confirmed: height, target: 20, seconds_left });
    assert_eq!(progress(&world), some(0, None), "nothing is confirmed that would say how fast it goes");
    world.confirm(&shares);
    // Four in twice that time, so sixteen in eight times of it.
    assert_eq!(progress(&world), some(4, Some(8 * PROGRESS_FROM.as_secs())));
    let mut world = World::recorded(&[], true);
    let conn = peer(&mut world);
    claim(&mut world, conn, 20);
    world.confirm(&shares);
    world.skip(PROGRESS_FROM - Duration::from_millis(1));
    assert_eq!(progress(&world), some(4, None), "too short a time to judge by");
    world.skip(Duration::from_millis(1));
    assert!(progress(&world).unwrap().seconds_left.is_some());
    // The log hears of it now and then, however often claims are compared.
    let mut told = Vec::new();
    let begin = world.now().mono;
    while world.now().mono < begin + 2 * PROGRESS_EVERY {
        claim(&mut world, conn, 20);
        told.push(world.node.peers.told);
        world.skip(Duration::from_secs(1));
    }
    told.dedup();
    assert!((2..=3).contains(&told.len()), "{told:?}");
    assert!(told.windows(2).all(|pair| pair[1] - pair[0] >= PROGRESS_EVERY || pair[0] == Duration::ZERO));
    assert!(world.is_open(conn) && 2 * PROGRESS_EVERY < SYNC_ANSWER_MAX);
}

/// A whole node and a chain of its own that both know the same Bitcoin headers: so many blocks above the first.
fn on_bitcoin(count: u32) -> (World<Inline>, Chain, Vec<Arc<Block>>) {
    let (mut world, mut chain) = (World::whole(&[], 1), Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap());
    let blocks = (0..count).map(|_| above(&mut chain, None, 600)).collect::<Vec<_>>();
    world.mail(Answer::Bitcoin(BitcoinNews::Headers(blocks.iter().map(|block| block.header).collect())), Vec::new());
    world.settle();
    (world, chain, blocks)
}

/// One more block on this one, or on the best.
fn above(chain: &mut Chain, on: Option<&Arc<Block>>, after: u32) -> Arc<Block> {
    let on = on.or(chain.bitcoin().best()).unwrap();
    let taken = chain.offer_blocks(&[bitcoin_header(&Arc::clone(on), after)]);
    Arc::clone(chain.bitcoin().get(&taken.new[0].0).unwrap())
}

/// A share on the tip of the chain that builds on this Bitcoin block.
fn share_on(chain: &mut Chain, block: &Block) -> Share {
    let time = block.time().max(chain.tip().time) + 1;
    let share = ShareBuilder::new(regtest()).bitcoin(block.hash, block.height + 1, block.bits()).time(time).build(chain, &chain.tip().id);
    assert_eq!(chain.offer(at(Duration::from_secs(900)), &share, Source::Peer), Offer::Taken);
    share
}

/// What the node answers: the Bitcoin headers' messages, and ids of the shares, which must come behind them.
fn served(world: &mut World<Inline>, conn: ConnId, from: Start) -> (Vec<Vec<[u8; 80]>>, Vec<ShareId>) {
    world.messages(conn);
    world.say(conn, &Message::GetHeaders(GetHeaders { from, stop: ShareId::default() }));
    world.settle();
    let mut headers = Vec::new();
    for message in world.messages(conn) {
        match message {
            Message::BtcHeaders(some) => headers.push(some),
            Message::ShareHeaders(shares) => return (headers, shares.iter().map(Share::id).collect()),
            _ => {}
        }
    }
    panic!("no answer");
}

#[test]
fn bitcoin_headers_come_before_the_shares_that_build_on_them() {
    let (mut world, mut chain, blocks) = on_bitcoin(12);
    let stale = above(&mut chain, Some(&blocks[10]), 601);
    world.mail(Answer::Bitcoin(BitcoinNews::Headers(vec![stale.header])), Vec::new());
    let on = [&blocks[8], &blocks[8], &blocks[9], &stale, &blocks[11], &stale];
    let shares: Vec<Share> = on.into_iter().map(|block| share_on(&mut chain, block)).collect();
    world.skip(Duration::from_secs(900));
    world.offer(shares.clone());
    assert_eq!(world.node.chain().view.confirmed_tip().id, shares[5].id());
    let conn = peer(&mut world);
    let ids: Vec<ShareId> = shares.iter().map(Share::id).collect();
    let headers = |range: std::ops::Range<usize>| blocks[range].iter().map(|block| block.header).collect::<Vec<_>>();
    // Who has nothing: all of them, ascending, the stale one with them, and each once.
    let all = [headers(0..11), vec![stale.header], headers(11..12)].concat();
    assert_eq!(served(&mut world, conn, Start::Locator(vec![regtest().genesis_id()])), (vec![all.clone()], ids.clone()));
    assert_eq!(served(&mut world, conn, Start::Height(1)), (vec![all], ids.clone()));
    // Who has the second share has what it builds on.
    let (came, rest) = served(&mut world, conn, Start::Locator(vec![ids[1]]));
    assert_eq!((came, rest), (vec![[headers(9..11), vec![stale.header], headers(11..12)].concat()], ids[2..].to_vec()));
    assert_eq!(served(&mut world, conn, Start::Height(2)).0, [[headers(9..11), vec![stale.header], headers(11..12)].concat()]);
    // The last one builds on what the asker knows, and at the tip there is nothing.
    assert_eq!(served(&mut world, conn, Start::Height(7)), (Vec::new(), Vec::new()));
    // A header by its hash, with those below it.
    world.say(conn, &Message::GetData(vec![ShareId(stale.hash), ShareId([9; 32])]));
    let messages = world.messages(conn);
    let below = [headers(0..11), vec![stale.header]].concat();
    let answer = messages.iter().find_map(|message| if let Message::BtcHeaders(headers) = message { Some(headers) } else { None }).unwrap();
    assert_eq!(answer[answer.len() - 12..], below);
    assert!(messages.contains(&Message::NotFound(vec![ShareId([9; 32])])));
    assert_eq!(world.hub.outlet().tickets_out(), 0);
}

#[test]
fn no_message_of_bitcoin_headers_is_longer_than_what_may_come_unasked() {
    let full = Message::BtcHeaders(vec![[0; 80]; BTC_HEADERS_UNASKED_MAX]);
    assert!(full.encode(regtest().magic).unwrap().bytes().len() <= UNASKED_BYTES_MAX);
    let (mut world, mut chain, blocks) = on_bitcoin(BTC_HEADERS_ALONG_MAX as u32 + 20);
    let share = share_on(&mut chain, blocks.last().unwrap());
    world.skip(Duration::from_secs(900));
    world.offer(vec![share.clone()]);
    let conn = peer(&mut world);
    let (came, shares) = served(&mut world, conn, Start::Height(1));
    assert_eq!(shares, [share.id()]);
    assert!(came.iter().all(|headers| headers.len() == BTC_HEADERS_UNASKED_MAX));
    let headers: Vec<_> = came.concat();
    assert_eq!(
        headers,
        blocks[..BTC_HEADERS_ALONG_MAX].iter().map(|block| block.header).collect::<Vec<_>>(),
        "the lowest, so that they fit"
    );
    let last = blocks.last().unwrap();
    world.say(conn, &Message::GetData(vec![ShareId(last.hash)]));
    let Some(Message::BtcHeaders(branch)) = world.messages(conn).pop() else { panic!("no answer") };
    let lowest = blocks.len() - BTC_HEADERS_UNASKED_MAX;
    assert_eq!(branch, blocks[lowest..].iter().map(|block| block.header).collect::<Vec<_>>());
    // Who is sent as much takes it.
    world.say(conn, &full);
    assert!(world.is_open(conn));
    world.say(conn, &Message::BtcHeaders(vec![[0; 80]; BTC_HEADERS_UNASKED_MAX + 100]));
    assert!(!world.is_open(conn));
}
