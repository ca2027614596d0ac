//! Peers against a node whose stages keep their jobs.

mod addrs;
mod begin;
mod bodies;
mod failures;
mod gate;
mod missing;
mod sync;
mod upon;
mod whole;

use std::net::SocketAddr;
use std::time::Duration;

use rockpool_net::events::Event;
use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::limits::{MESSAGE_RATE_MIN, TICKETS_PER_CONN};
use rockpool_net::wire::message::{ChainTip, GetHeaders, Message, NetAddr, PROTOCOL_VERSION, Start, Version};
use rockpool_net::wire::share::{Script, Share};
use rockpool_workers::jobs::{Answer, FetchJob, OrganiseJob, ShareFate, Stages};

use crate::limits::{ASKED_MAX, DIAL_FIRST, HANDSHAKE_MAX, PING_EVERY, SILENCE_MAX, SYNC_ANSWER_MAX, SYNC_GAP, SYNC_GRACE, SYNC_SHARES};
use crate::testing::{Grower, PEER, Recorder, World, regtest};

pub(crate) const ALICE: Script = Script::P2wpkh([1; 20]);
const BOB: Script = Script::P2wpkh([2; 20]);

fn version(nonce: u64) -> Message {
    let addr = NetAddr { services: 0, addr: SocketAddr::from(([127, 0, 0, 1], 1)) };
    Message::Version(Version {
        protocol: PROTOCOL_VERSION,
        services: 0,
        time: 1_700_000_000,
        receiver: addr,
        sender: addr,
        nonce,
        user_agent: "/test/".to_owned(),
        start_height: 0,
        relay: true,
    })
}

fn tip(height: u32, score: u128) -> Message {
    let tip = ShareId([height as u8; 32]);
    Message::ChainTip(ChainTip { genesis: regtest().genesis_id(), tip, height, score, features: 0 })
}

fn tip_of(share: &Share) -> Message {
    Message::ChainTip(ChainTip { genesis: regtest().genesis_id(), tip: share.id(), height: share.height, score: share.score, features: 0 })
}

/// A peer that has dialled us and shaken hands; what it was told so far is taken away.
fn peer<S: Stages>(world: &mut World<S>) -> ConnId {
    let conn = world.connect(PEER);
    shake_hands(world, conn);
    world.taken(conn);
    conn
}

/// The other side's part of the handshake.
pub(crate) fn shake_hands<S: Stages>(world: &mut World<S>, conn: ConnId) {
    world.say(conn, &version(u64::from(conn.slot) + 1));
    world.say(conn, &Message::Verack);
}

/// The peer says that its chain has this height.
pub(crate) fn claim<S: Stages>(world: &mut World<S>, conn: ConnId, height: u32) {
    world.say(conn, &tip(height, u128::MAX));
}

/// The locator of the first `getheaders`.
fn asked(messages: &[Message]) -> Option<&[ShareId]> {
    messages.iter().find_map(|message| match message {
        Message::GetHeaders(GetHeaders { from: Start::Locator(ids), .. }) => Some(&ids[..]),
        _ => None,
    })
}

fn organise(world: &mut World<Recorder>) -> Vec<OrganiseJob> {
    std::mem::take(&mut world.node.stages_mut().jobs.organise)
}

/// The organiser's word that nothing changed but what is given, with the ticket of the job.
fn organised(world: &mut World<Recorder>, job: OrganiseJob, fates: Vec<(ConnId, ShareId, ShareFate)>, bulk_done: Vec<(ConnId, u32)>) {
    let ticket = match job {
        OrganiseJob::Own { ticket, .. }
        | OrganiseJob::Credit { ticket, .. }
        | OrganiseJob::Tip { ticket, .. }
        | OrganiseJob::Bulk { ticket, .. }
        | OrganiseJob::Blocks { ticket, .. } => ticket,
        OrganiseJob::PeerGone(_) | OrganiseJob::BeginAnew | OrganiseJob::Bitcoin(_) => panic!("nobody waits for an answer"),
    };
    let answer = Answer::Organised { change: None, refused: Vec::new(), fates, missing: Vec::new(), bulk_done };
    world.mail(answer, vec![ticket]);
}

#[test]
fn who_is_dialled_answers_version_with_version_and_verack() {
    let mut world = World::recorded(&[], true);
    let conn = world.connect(PEER);
    assert!(world.messages(conn).is_empty(), "who was dialled speaks second");
    world.say(conn, &version(5));
    assert!(matches!(world.messages(conn)[..], [Message::Version(_), Message::Verack]));
    world.say(conn, &Message::Verack);
    assert!(matches!(world.messages(conn)[..], [Message::ChainTip(ChainTip { height: 0, .. })]));
    assert!(matches!(world.published()[..], [Event::PeerUp { outbound: false, .. }]));
    assert_eq!(world.node.status(world.now()).peers, 1);
}

#[test]
fn who_dials_speaks_first() {
    let mut world = World::recorded(&[SocketAddr::from(([10, 0, 0, 1], 9333))], true);
    world.turns();
    let conn = world.pick_up();
    assert!(matches!(world.messages(conn)[..], [Message::Version(_)]));
    world.say(conn, &version(5));
    assert!(matches!(world.messages(conn)[..], [Message::Verack]));
    world.say(conn, &Message::Verack);
    assert!(matches!(world.published()[..], [Event::PeerUp { outbound: true, .. }]));
}

#[test]
fn every_other_order_is_refused() {
    let old = match version(1) {
        Message::Version(version) => Message::Version(Version { protocol: 1, ..version }),
        other => other,
    };
    let orders: [&[Message]; 8] = [
        &[Message::Verack],
        &[Message::Ping(1)],
        &[tip(1, 1)],
        &[old],
        &[version(1), version(1)],
        &[version(1), Message::Ping(1)],
        &[version(1), Message::Verack, version(1)],
        &[version(1), Message::Verack, Message::Verack],
    ];
    for order in orders {
        let mut world = World::recorded(&[], true);
        let (good, conn) = (peer(&mut world), world.connect(PEER));
        for message in order {
            assert!(world.is_open(conn), "{order:?}");
            world.say(conn, message);
        }
        assert!(!world.is_open(conn), "{order:?}");
        world.say(good, &Message::Ping(3));
        assert_eq!(world.messages(good), [Message::Pong(3)], "the others are unharmed");
    }
}

#[test]
fn a_handshake_has_ten_seconds_whatever_is_said() {
    let mut world = World::recorded(&[], true);
    let conn = world.connect(PEER);
    world.pass(HANDSHAKE_MAX / 2);
    world.say(conn, &version(5));
    world.pass(HANDSHAKE_MAX / 2 - Duration::from_secs(1));
    assert!(world.is_open(conn));
    world.pass(Duration::from_secs(1));
    assert!(!world.is_open(conn));
}

#[test]
fn a_node_that_dials_itself_hangs_up_for_good() {
    let mut world = World::recorded(&[SocketAddr::from(([127, 0, 0, 1], 9333))], true);
    world.turns();
    let (out, back) = (world.pick_up(), world.connect(PEER));
    let said = world.taken(out);
    world.feed(back, &said);
    world.turns();
    assert!(!world.is_open(back));
    world.hang_up(out);
    world.pass(Duration::from_secs(120));
    assert!(world.wires.dials.is_empty());
}

#[test]
fn configured_peers_are_dialled_again_with_growing_pauses() {
    let mut world = World::recorded(&[SocketAddr::from(([10, 0, 0, 1], 9333))], true);
    world.turns();
    let mut gaps = Vec::new();
    for _ in 0..4 {
        let conn = world.pick_up();
        world.hang_up(conn);
        let from = world.now().mono;
        while world.wires.dials.is_empty() {
            world.pass(Duration::from_secs(1));
        }
        gaps.push((world.now().mono - from).as_secs());
    }
    assert_eq!(gaps, [1, 2, 4, 8]);
    assert_eq!(DIAL_FIRST.as_secs(), 1);
}

#[test]
fn the_living_are_pinged_and_the_silent_dropped() {
    let mut world = World::recorded(&[], true);
    let (alive, dead) = (peer(&mut world), peer(&mut world));
    for _ in 0..SILENCE_MAX.as_secs() / PING_EVERY.as_secs() {
        world.pass(PING_EVERY);
        let messages = world.messages(alive);
        let [Message::Ping(nonce)] = messages[..] else { panic!("{messages:?}") };
        world.say(alive, &Message::Pong(nonce));
    }
    assert!(world.is_open(alive) && !world.is_open(dead));
    assert!(world.published().iter().any(|event| matches!(event, Event::PeerDown { conn, .. } if *conn == dead)));
}

#[test]
fn a_peer_of_another_chain_is_dropped() {
    let mut world = World::recorded(&[], true);
    let conn = peer(&mut world);
    world.say(conn, &Message::ChainTip(ChainTip { genesis: ShareId([9; 32]), tip: ShareId([9; 32]), height: 0, score: 0, features: 0 }));
    assert!(!world.is_open(conn));
}

#[test]
fn a_better_claim_begins_a_sync_and_the_next_waits() {
    let mut world = World::recorded(&[], true);
    let (one, two) = (peer(&mut world), peer(&mut world));
    world.say(one, &tip(40, 1000));
    assert_eq!(asked(&world.messages(one)).unwrap(), [regtest().genesis_id()]);
    world.say(two, &tip(50, 2000));
    assert!(asked(&world.messages(two)).is_none(), "one at a time");
    // The first stalls: it is dropped, and the other has its turn.
    world.pass(SYNC_ANSWER_MAX);
    assert!(!world.is_open(one) && world.is_open(two));
    assert!(asked(&world.messages(two)).is_some());
    assert_eq!(world.node.counters().syncs_failed.get(), 1);
}

#[test]
fn an_answer_over_a_slow_line_is_in_time_while_it_comes() {
    let mut world = World::recorded(&[], true);
    let conn = peer(&mut world);
    let shares = Grower::new().grow_many(SYNC_SHARES - 1, ALICE);
    let last = shares.last().unwrap();
    world.say(conn, &tip(last.height, last.score));
    assert!(asked(&world.messages(conn)).is_some());
    let answer = Message::ShareHeaders(shares).encode(regtest().magic).unwrap();
    let second = Duration::from_secs(1);
    let time = second * (answer.bytes().len() as u64 / MESSAGE_RATE_MIN) as u32;
    assert!(time > SYNC_ANSWER_MAX);
    for chunk in answer.bytes().chunks(MESSAGE_RATE_MIN as usize) {
        assert!(world.is_open(conn) && world.node.stages_mut().jobs.organise.is_empty());
        world.feed(conn, chunk);
        world.pass(second);
    }
    assert_eq!(world.node.stages_mut().jobs.organise.len(), 1);
    assert_eq!(world.node.counters().syncs_failed.get(), 0);
}

/// Four shares of the peer wait for a disk that stands still, so that nothing of it is read: its answer's delay is our own.
#[test]
fn a_peer_that_we_do_not_read_is_not_late_with_its_answer() {
    let mut world = World::recorded(&[], true);
    let conn = peer(&mut world);
    world.say(conn, &tip(40, 1000));
    assert!(asked(&world.messages(conn)).is_some());
    for share in Grower::new().grow_many(usize::from(TICKETS_PER_CONN), ALICE) {
        world.say(conn, &Message::Share(Box::new(share)));
    }
    assert_eq!(world.hub.outlet().tickets_out(), usize::from(TICKETS_PER_CONN));
    world.pass(2 * SYNC_ANSWER_MAX);
    assert!(world.is_open(conn));
    assert_eq!(world.node.counters().syncs_failed.get(), 0);
}

#[test]
fn a_claim_just_above_ours_is_left_to_push_for_a_moment() {
    let mut world = World::recorded(&[], true);
    let conn = peer(&mut world);
    world.say(conn, &tip(1, 10));
    assert!(asked(&world.messages(conn)).is_none());
    world.pass(SYNC_GRACE);
    assert!(asked(&world.messages(conn)).is_some());
    for (height, at_once) in [(SYNC_GAP, false), (SYNC_GAP + 1, true)] {
        let mut world = World::recorded(&[], true);
        let conn = peer(&mut world);
        world.say(conn, &tip(height, 10));
        assert_eq!(asked(&world.messages(conn)).is_some(), at_once);
    }
}

#[test]
fn answers_that_end_below_the_claim_cost_the_connection() {
    let mut grower = Grower::new();
    let shares = grower.grow_many(3, ALICE);
    let mut world = World::recorded(&[], true);
    let empty = peer(&mut world);
    world.say(empty, &tip(40, u128::MAX));
    world.say(empty, &Message::ShareHeaders(Vec::new()));
    assert!(!world.is_open(empty));
    let short = peer(&mut world);
    world.say(short, &tip(40, u128::MAX));
    world.say(short, &Message::ShareHeaders(shares));
    assert!(!world.is_open(short));
    assert!(organise(&mut world).iter().all(|job| matches!(job, OrganiseJob::PeerGone(_))));
    assert_eq!(world.hub.outlet().tickets_out(), 0);
}

#[test]
fn shares_that_were_not_asked_for_or_do_not_follow_cost_the_connection() {
    let mut grower = Grower::new();
    let mut shares = grower.grow_many(4, ALICE);
    let mut world = World::recorded(&[], true);
    let conn = peer(&mut world);
    world.say(conn, &Message::ShareHeaders(shares.clone()));
    assert!(!world.is_open(conn));
    let claim = tip_of(&shares[3]);
    shares.remove(1);
    let conn = peer(&mut world);
    world.say(conn, &claim);
    world.say(conn, &Message::ShareHeaders(shares.clone()));
    assert!(!world.is_open(conn));
    let conn = peer(&mut world);
    world.say(conn, &claim);
    world.say(conn, &Message::ShareHeaders(shares.split_off(1)));
    assert!(!world.is_open(conn), "its first share builds on nothing that we know");
}

#[test]
fn a_sync_goes_on_from_its_last_share_and_ends_below_its_claim_if_nothing_comes_of_it() {
    let mut grower = Grower::new();
    let shares = grower.grow_many(SYNC_SHARES, ALICE);
    let mut world = World::recorded(&[], true);
    let conn = peer(&mut world);
    world.say(conn, &tip(40_000, u128::MAX));
    world.taken(conn);
    world.say(conn, &Message::ShareHeaders(shares.clone()));
    let job = organise(&mut world).remove(0);
    organised(&mut world, job, Vec::new(), vec![(conn, SYNC_SHARES as u32)]);
    let last = shares.last().unwrap();
    let ranges = |messages: &[Message]| {
        messages.iter().filter(|message| matches!(message, Message::GetHeaders(GetHeaders { from: Start::Height(501), .. }))).count()
    };
    assert_eq!((ranges(&world.messages(conn)), last.height), (1, 500), "by height from here on");
    // The rest reaches the claim by its own word, but our tip stays where it is.
    let mut end = grower.grow(ALICE);
    end.score = u128::MAX;
    world.say(conn, &Message::ShareHeaders(vec![end]));
    let job = organise(&mut world).remove(0);
    organised(&mut world, job, Vec::new(), vec![(conn, 0)]);
    assert!(world.is_open(conn));
    world.pass(crate::limits::SYNC_SETTLE_MAX);
    assert!(!world.is_open(conn));
}

#[test]
fn a_claim_that_grew_during_its_sync_is_followed_up() {
    let shares = Grower::new().grow_many(9, ALICE);
    let mut world = World::recorded(&[], true);
    let conn = peer(&mut world);
    world.say(conn, &tip_of(&shares[3]));
    world.say(conn, &Message::ShareHeaders(shares[..4].to_vec()));
    world.say(conn, &tip_of(&shares[8]));
    world.taken(conn);
    world.confirm(&shares[..4]);
    let job = organise(&mut world).remove(0);
    organised(&mut world, job, Vec::new(), vec![(conn, 4)]);
    assert_eq!(asked(&world.messages(conn)).unwrap()[0], shares[3].id());
    assert_eq!(world.node.counters().syncs.get(), 2);
}

#[test]
fn a_pushed_share_goes_to_the_organiser_and_its_fate_to_its_sender() {
    let mut grower = Grower::new();
    let share = grower.grow(ALICE);
    let mut world = World::recorded(&[], true);
    let (honest, liar) = (peer(&mut world), peer(&mut world));
    world.say(honest, &Message::Share(Box::new(share.clone())));
    let job = organise(&mut world).remove(0);
    assert!(matches!(&job, OrganiseJob::Tip { share: given, .. } if **given == share));
    organised(&mut world, job, vec![(honest, share.id(), ShareFate::Invalid("x"))], Vec::new());
    assert!(world.is_open(honest), "who relays an invalid share is not to blame");
    world.say(liar, &Message::Share(Box::new(share.clone())));
    let job = organise(&mut world).remove(0);
    organised(&mut world, job, vec![(liar, share.id(), ShareFate::Bad("not tied"))], Vec::new());
    assert!(!world.is_open(liar) && world.is_open(honest));
    assert_eq!(world.node.counters().shares_bad.get(), 1);
    assert_eq!(world.hub.outlet().tickets_out(), 0);
}

#[test]
fn the_fetcher_hears_one_message_at_a_time() {
    let mut world = World::recorded(&[], true);
    let one = peer(&mut world);
    let two = peer(&mut world);
    let fetch = std::mem::take(&mut world.node.stages_mut().jobs.fetch);
    assert!(matches!(fetch[..], [FetchJob::PeerUp(conn)] if conn == one), "{fetch:?}");
    let missing = ShareId([8; 32]);
    world.mail(Answer::Requests(vec![(two, vec![missing])]), Vec::new());
    let fetch = std::mem::take(&mut world.node.stages_mut().jobs.fetch);
    assert!(matches!(fetch[..], [FetchJob::PeerUp(conn)] if conn == two), "{fetch:?}");
    assert!(world.messages(two).contains(&Message::GetData(vec![missing])));
    world.mail(Answer::Requests(Vec::new()), Vec::new());
    world.say(two, &Message::NotFound(vec![missing, ShareId([7; 32])]));
    let fetch = std::mem::take(&mut world.node.stages_mut().jobs.fetch);
    assert!(matches!(fetch[..], [FetchJob::NotFound(id, _)] if id == missing), "what was not asked for is not heard: {fetch:?}");
}

#[test]
fn an_inv_of_invented_ids_is_few_words_to_the_fetcher() {
    let mut world = World::recorded(&[], true);
    let conn = peer(&mut world);
    world.node.stages_mut().jobs.fetch.clear();
    world.mail(Answer::Requests(Vec::new()), Vec::new());
    let ids: Vec<_> = (0..1_000u16).map(|n| ShareId([[n as u8, (n >> 8) as u8]; 16].concat().try_into().unwrap())).collect();
    world.say(conn, &Message::Inv(ids.clone()));
    let said = &world.node.stages_mut().jobs.fetch;
    let missing = said.iter().filter(|job| matches!(job, FetchJob::Missing(id, _) if ids.contains(id))).count();
    assert_eq!(missing, rockpool_workers::limits::FETCH_FROM_PEER_MAX);
}

#[test]
fn what_is_asked_of_one_peer_is_bounded() {
    let mut world = World::recorded(&[], true);
    let conn = peer(&mut world);
    let ids: Vec<ShareId> = (0..ASKED_MAX as u32 + 1).map(|n| ShareId([n.to_be_bytes(); 8].concat().try_into().unwrap())).collect();
    world.mail(Answer::Requests(vec![(conn, ids.clone())]), Vec::new());
    let sent: usize = world.messages(conn).iter().map(|message| if let Message::GetData(ids) = message { ids.len() } else { 0 }).sum();
    assert_eq!(sent, ASKED_MAX);
    let fetch = &world.node.stages_mut().jobs.fetch;
    assert!(matches!(fetch.last(), Some(FetchJob::NotFound(id, _)) if *id == ids[ASKED_MAX]));
}
