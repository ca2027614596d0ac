//! Who comes in, who has to leave, and who is not heard for a while.

use rockpool_net::close::CloseReason;
use rockpool_net::limits::UNHEARD_MAX;
use rockpool_net::wire::message::{AddrEntry, Command};
use rockpool_store::kv::MemKv;
use rockpool_store::peers::Ban;

use super::*;
use crate::limits::{
    ADDR_NEWS_COST, ADDR_NEWS_MAX, DIAL_LAST, DISCOURAGED_MAX, DISCOURAGED_TIME, EVICT_EVERY, EVICT_SETTLED, FIRSTS_KEPT, INV_IDS_PER_COST,
    LEFT_KEPT, OUTBOUND_TARGET, PEER_COST_BURST, PEER_COST_RATE, PEER_REST, PEERS_CONFIGURED_MAX, PEERS_RESERVE, RELAY_PEERS, RELAYED_MAX,
};
use crate::peer::gate::BANNED;

/// A place of its own in the world, for each number.
fn place(number: u32) -> [u8; 4] {
    [20 + (number >> 8) as u8, number as u8, 1, 1]
}

fn came<S: Stages>(world: &mut World<S>, ip: [u8; 4]) -> ConnId {
    let conn = world.connect_from(ip, PEER);
    shake_hands(world, conn);
    world.taken(conn);
    conn
}

fn live<S: Stages>(world: &mut World<S>, conns: &[ConnId]) -> usize {
    conns.iter().filter(|conn| world.is_open(**conn)).count()
}

fn inbound_max<S: Stages>(world: &World<S>) -> usize {
    world.node.config.inbound_max
}

fn misbehave<S: Stages>(world: &mut World<S>, conn: ConnId) {
    world.say(conn, &Message::Inv(Vec::new()));
    world.feed(conn, b"these are no bytes of a message");
    world.turns();
    assert!(!world.is_open(conn));
}

fn ban<S: Stages>(world: &mut World<S>, of: &str, seconds: u32) -> usize {
    let now = world.now();
    let ban = Ban { of: of.parse().unwrap(), until: now.unix() + seconds, why: "asked".into() };
    let parts = world.node.parts(now, world.hub.outlet());
    let (peers, sessions, mut turn) = (parts.peers, parts.sessions, parts.turn);
    let closed = peers.gate.ban(ban, sessions, &mut turn).unwrap();
    world.turns();
    closed
}

#[test]
fn a_full_node_lets_a_newcomer_in_and_the_crowd_pays() {
    let mut world = World::recorded(&[], true);
    let most = inbound_max(&world);
    let honest: Vec<_> = (0..most as u32 / 2).map(|number| came(&mut world, place(number))).collect();
    let crowd: Vec<_> = (honest.len()..most).map(|number| came(&mut world, [9, 9, 1, number as u8])).collect();
    world.pass(EVICT_EVERY);
    assert_eq!(live(&mut world, &crowd), crowd.len());
    let late: Vec<_> = (0..10).map(|number| came(&mut world, place(1_000 + number))).collect();
    world.pass(EVICT_EVERY);
    assert_eq!((live(&mut world, &honest), live(&mut world, &late)), (honest.len(), late.len()));
    assert_eq!(live(&mut world, &crowd), crowd.len() - late.len());
    assert_eq!(world.node.counters().peers_evicted.get(), late.len() as u64);
    // One more of the crowd goes itself, and one of this machine comes in always.
    let more = came(&mut world, [9, 9, 2, 2]);
    world.pass(EVICT_EVERY);
    assert!(!world.is_open(more));
    let own = came(&mut world, [127, 0, 0, 1]);
    world.pass(EVICT_EVERY);
    assert!(world.is_open(own) && live(&mut world, &honest) == honest.len());
}

/// 5,000 connects a second from everywhere against a full node: nobody who was there is lost, no more is held than there is room for, and
/// no turn has more to do than a burst of accepts makes.
#[test]
fn a_reconnect_storm_costs_no_established_peer() {
    let mut world = World::recorded(&[], true);
    let most = inbound_max(&world);
    let honest: Vec<_> = (0..most as u32).map(|number| came(&mut world, place(number))).collect();
    world.pass(EVICT_SETTLED);
    let (mut dialled, mut inputs) = (0_u32, 0);
    for _ in 0..10_000 {
        world.skip(Duration::from_millis(1));
        for _ in 0..5 {
            dialled += 1;
            // From networks that we know and from others, again and again.
            let from = dialled.wrapping_mul(2_654_435_761);
            world.knock([30 + (from >> 28) as u8, (from >> 16) as u8, (from >> 8) as u8, from as u8], PEER);
        }
        inputs = inputs.max(world.turn().inputs);
        assert!(world.hub.conns() <= most + PEERS_RESERVE);
        if dialled % 7 == 0 {
            let newest = world.newest();
            world.feed(newest, version(1).encode(regtest().magic).unwrap().bytes());
        }
    }
    assert_eq!(dialled, 50_000);
    assert_eq!(live(&mut world, &honest), most);
    world.pass(EVICT_EVERY);
    assert_eq!(world.hub.conns(), most);
    assert!(inputs <= 2 * (most + PEERS_RESERVE), "{inputs} inputs in one turn");
    // And each of them is still a peer.
    for conn in honest {
        world.taken(conn);
        world.say(conn, &Message::Ping(7));
        assert!(matches!(world.messages(conn)[..], [.., Message::Pong(7)]));
    }
}

#[test]
fn who_gave_a_share_first_has_the_credit_and_only_for_a_good_one() {
    let mut world = World::recorded(&[], true);
    let shares = Grower::new().grow_many(3, ALICE);
    let (first, second) = (came(&mut world, place(1)), came(&mut world, place(2)));
    let gave = |world: &mut World<Recorder>, conn| world.node.sessions.peer_mut(conn).unwrap().traits.gave;
    for conn in [first, second] {
        world.say(conn, &Message::Share(Box::new(shares[0].clone())));
    }
    assert_eq!(gave(&mut world, first), None, "nobody has judged it yet");
    for (job, conn) in organise(&mut world).into_iter().zip([first, second]) {
        organised(&mut world, job, vec![(conn, shares[0].id(), ShareFate::Taken)], Vec::new());
    }
    assert_eq!((gave(&mut world, first), gave(&mut world, second)), (Some(world.now().mono), None));
    world.say(second, &Message::Share(Box::new(shares[1].clone())));
    let job = organise(&mut world).remove(0);
    organised(&mut world, job, vec![(second, shares[1].id(), ShareFate::Pending)], Vec::new());
    assert_eq!(gave(&mut world, second), None);
    // What is remembered of who was first is bounded.
    let gate = &mut world.node.peers.gate;
    (0..FIRSTS_KEPT as u8).for_each(|number| gate.sent(ShareId([number; 32]), second));
    assert!(!gate.was_first(&shares[0].id(), first) && gate.was_first(&ShareId([0; 32]), second));
}

#[test]
fn pings_are_measured_by_their_nonce() {
    let mut world = World::recorded(&[], true);
    let conn = came(&mut world, place(1));
    world.pass(PING_EVERY);
    let messages = world.messages(conn);
    let Some(Message::Ping(nonce)) = messages.iter().find(|message| matches!(message, Message::Ping(_))) else { panic!("no ping") };
    world.skip(Duration::from_millis(80));
    world.say(conn, &Message::Pong(nonce.wrapping_add(1)));
    assert_eq!(world.node.sessions.peer_mut(conn).unwrap().traits.pings.best, None);
    world.say(conn, &Message::Pong(*nonce));
    assert_eq!(world.node.sessions.peer_mut(conn).unwrap().traits.pings.best, Some(Duration::from_millis(80)));
}

#[test]
fn who_misbehaved_is_the_first_to_go_and_forgotten_after_a_day() {
    let mut world = World::recorded(&[], true);
    let most = inbound_max(&world);
    let bad = came(&mut world, place(7));
    misbehave(&mut world, bad);
    assert!(world.node.peers.gate.gone().next().unwrap().why.is_fault());
    // It may come back while there is room, and goes before the crowd.
    let again = came(&mut world, place(7));
    let crowd: Vec<_> = (1..most).map(|number| came(&mut world, [9, 9, 1, number as u8])).collect();
    world.pass(EVICT_EVERY);
    assert!(world.is_open(again));
    let late = came(&mut world, place(8));
    world.pass(EVICT_EVERY);
    assert!(!world.is_open(again) && world.is_open(late) && live(&mut world, &crowd) == crowd.len());

    let gate = &mut world.node.peers.gate;
    let (now, addr) = (Duration::from_secs(1_000_000), |number: u32| SocketAddr::from((std::net::Ipv4Addr::from(0x1400_0000 + number), 1)));
    let left =
        |addr| crate::peer::gate::Left { addr, outbound: true, stayed: Duration::ZERO, at: 0, why: CloseReason::BadFrame("noise".into()) };
    (0..=DISCOURAGED_MAX as u32).for_each(|number| gate.went(now, left(addr(number)), false, false));
    assert!(
        !gate.is_discouraged(now, addr(0)) && gate.is_discouraged(now, addr(1)) && gate.is_discouraged(now, addr(DISCOURAGED_MAX as u32))
    );
    assert!(!gate.is_discouraged(now + DISCOURAGED_TIME, addr(1)));
    assert_eq!(gate.gone().count(), LEFT_KEPT);
    // Neither this machine, nor its networks, nor whom the user has named.
    for spared in ["127.0.0.1:1", "192.168.0.9:1"] {
        let spared = spared.parse().unwrap();
        gate.went(now, left(spared), false, true);
        assert!(!gate.is_discouraged(now, spared));
    }
    gate.went(now, left("7.7.7.7:1".parse().unwrap()), true, true);
    assert!(!gate.is_discouraged(now, "7.7.7.7:1".parse().unwrap()));
}

#[test]
fn a_banned_address_is_neither_let_in_nor_dialled_nor_kept() {
    let there: SocketAddr = "8.8.4.4:9333".parse().unwrap();
    let mut world = World::recorded(&[there], true);
    world.turns();
    let dialled = world.pick_up();
    let (bad, good) = (came(&mut world, [8, 8, 9, 9]), came(&mut world, [8, 9, 0, 1]));
    assert_eq!(ban(&mut world, "8.8.0.0/16", 1_000), 2);
    assert!(!world.is_open(dialled) && !world.is_open(bad) && world.is_open(good));
    world.published();
    let again = world.connect_from([8, 8, 1, 1], PEER);
    assert!(!world.is_open(again) && world.taken(again).is_empty() && world.node.sessions.peer_mut(again).is_none());
    // A miner of that network is no peer.
    let miner = world.connect_from([8, 8, 1, 1], crate::testing::STRATUM);
    assert!(world.is_open(miner));
    world.pass(2 * DIAL_LAST);
    let dials = |world: &World<Recorder>| world.wires.dials.iter().filter(|(_, addr)| *addr == there).count();
    assert_eq!(dials(&world), 0);
    world.pass(Duration::from_secs(1_000) + DIAL_LAST);
    assert!(dials(&world) > 0, "the ban is over");
    let after = world.connect_from([8, 8, 1, 1], PEER);
    assert!(world.is_open(after));
    let left: Vec<_> = world.node.peers.gate.gone().filter(|left| left.why == BANNED).map(|left| left.addr.ip()).collect();
    assert_eq!(left, [std::net::IpAddr::from([8, 8, 9, 9])], "of those whose handshake was done");
}

#[test]
fn a_ban_holds_after_a_restart() {
    let kv = std::sync::Arc::new(MemKv::new());
    let mut world = World::whole_on(&kv, regtest(), &[], 1);
    ban(&mut world, "8.8.0.0/16", 1_000);
    ban(&mut world, "9.9.9.9", 1_000);
    assert!(world.node.peers.gate.bans.unban(&"9.9.9.9".parse().unwrap()));
    world.settle();
    drop(world);
    kv.crash(0);
    let mut world = World::whole_on(&kv, regtest(), &[], 2);
    world.settle();
    let (banned, free) = (world.connect_from([8, 8, 1, 1], PEER), world.connect_from([9, 9, 9, 9], PEER));
    assert!(!world.is_open(banned) && world.is_open(free));
}

#[test]
fn the_user_may_name_peers_while_the_node_runs() {
    let mut world = World::recorded(&[], true);
    world.turns();
    let (now, addr) = (world.now().mono, |number: usize| SocketAddr::from(([8, 8, (number >> 8) as u8, number as u8], 9_333)));
    let dials = &mut world.node.peers.dials;
    assert!((0..PEERS_CONFIGURED_MAX).all(|number| dials.add(now, addr(number))));
    assert!(!dials.add(now, addr(PEERS_CONFIGURED_MAX)) && dials.add(now, addr(0)), "one that is there needs no room");
    assert!(dials.names(addr(5).ip()) && !dials.names(addr(PEERS_CONFIGURED_MAX).ip()));
    world.turns();
    assert!(world.wires.dials.iter().any(|(_, dialled)| *dialled == addr(0)), "it is dialled at once");
}

/// Bytes that the node has read of a peer.
fn read<S: Stages>(world: &mut World<S>, conn: ConnId) -> u64 {
    world.hub.outlet().traffic(conn).0
}

#[test]
fn a_flooder_is_heard_at_its_rate_and_the_others_are_not_held_up() {
    let mut world = World::recorded(&[], true);
    let (flooder, other) = (came(&mut world, place(1)), came(&mut world, place(2)));
    let ping = Message::Ping(1).encode(regtest().magic).unwrap();
    let (cost, size) = (Command::Ping.cost(), ping.bytes().len() as u64);
    // More than it may say in its first burst and a hundred seconds.
    let many = (PEER_COST_BURST + 200 * PEER_COST_RATE) / cost;
    world.feed(flooder, &ping.bytes().repeat(many as usize));
    let before = read(&mut world, flooder);
    world.turns();
    let burst = (read(&mut world, flooder) - before) / size * u64::from(cost);
    // And what was read at once with it.
    let at_once = 2 * (64 << 10) / size * u64::from(cost);
    assert!(burst >= PEER_COST_BURST.into() && burst <= u64::from(PEER_COST_BURST) + at_once, "{burst}");
    assert!(world.is_open(flooder) && world.node.counters().peers_rested.get() > 0);
    world.taken(other);
    world.say(other, &Message::Ping(9));
    assert!(matches!(world.messages(other)[..], [.., Message::Pong(9)]), "the other is heard at once");
    let begun = read(&mut world, flooder);
    for _ in 0..1_000 {
        world.pass(PEER_REST);
        world.taken(flooder);
    }
    let heard = (read(&mut world, flooder) - begun) / size * u64::from(cost);
    // What is read at once is cut before more is read: a read's worth either way.
    let (wanted, slack) = (u64::from(PEER_COST_RATE) * 100, (64 << 10) / size * u64::from(cost));
    assert!(heard.abs_diff(wanted) <= slack + wanted / 10, "{heard} in 100 s");
    assert!(world.is_open(flooder), "nobody is dropped for it");
}

#[test]
fn a_long_inv_costs_by_its_ids() {
    let mut world = World::recorded(&[], true);
    let flooder = came(&mut world, place(1));
    let inv = Message::Inv((0..1_000_u32).map(|number| ShareId([number as u8; 32])).collect()).encode(regtest().magic).unwrap();
    let each = Command::Inv.cost() + 1_000 / INV_IDS_PER_COST;
    // The handshake has cost something too.
    for _ in 0..(PEER_COST_BURST - 100) / each {
        world.feed(flooder, inv.bytes());
        world.turns();
    }
    assert_eq!(world.node.counters().peers_rested.get(), 0);
    world.feed(flooder, &inv.bytes().repeat(2));
    world.turns();
    assert_eq!(world.node.counters().peers_rested.get(), 1);
}

/// An honest peer to which somebody tells of many addresses passes them on: that must not make it unheard.
#[test]
fn news_of_addresses_that_is_passed_on_is_cheap_and_long_lists_are_not() {
    let mut world = World::recorded(&[], true);
    let (honest, flooder) = (came(&mut world, place(1)), came(&mut world, place(2)));
    let entry = |number: usize| AddrEntry::new(SocketAddr::from((place(number as u32), 9_333)), 0, world.now().unix());
    let [few, many] = [ADDR_NEWS_MAX, ADDR_NEWS_MAX + 1]
        .map(|count| Message::AddrV2((0..count).map(entry).collect()).encode(regtest().magic).unwrap().bytes().to_vec());
    for _ in 0..RELAYED_MAX * RELAY_PEERS / OUTBOUND_TARGET {
        world.feed(honest, &few);
        world.turns();
    }
    assert_eq!(world.node.counters().peers_rested.get(), 0);
    for _ in 0..PEER_COST_BURST / Command::AddrV2.cost() + 1 {
        world.feed(flooder, &many);
        world.turns();
    }
    assert_eq!(world.node.counters().peers_rested.get(), 1);
    assert!(Command::AddrV2.cost() > ADDR_NEWS_COST);
}

/// Who tells of the same block again and again has told news once.
#[test]
fn a_found_block_is_free_once() {
    let mut world = World::recorded(&[], true);
    let flooder = came(&mut world, place(1));
    let share = Grower::new().grow(ALICE);
    let found = Message::BlockFound(Box::new(share)).encode(regtest().magic).unwrap();
    for _ in 0..=PEER_COST_BURST / Command::BlockFound.cost() + 1 {
        world.feed(flooder, found.bytes());
        world.turns();
        let jobs = organise(&mut world);
        jobs.into_iter().for_each(|job| organised(&mut world, job, Vec::new(), Vec::new()));
    }
    assert!(world.node.counters().peers_rested.get() > 0);
}

#[test]
fn a_flooder_that_is_not_heard_does_not_time_out_and_may_leave() {
    let mut world = World::recorded(&[], true);
    let flooder = came(&mut world, place(1));
    let inv = Message::Inv(vec![ShareId([9; 32])]).encode(regtest().magic).unwrap();
    world.feed(flooder, &inv.bytes().repeat(20_000));
    world.turns();
    assert!(world.node.counters().peers_rested.get() > 0);
    world.pass(SILENCE_MAX / 2);
    assert!(world.is_open(flooder));
    world.hang_up(flooder);
    world.pass(2 * PEER_REST);
    assert_eq!(world.node.peers.gate.due(64), None, "nobody waits for it");
}

/// What comes to nothing has its price too.
#[test]
fn a_flood_of_unknown_commands_is_heard_at_its_rate() {
    let mut world = World::recorded(&[], true);
    let flooder = came(&mut world, place(1));
    let mut unknown = Message::GetAddr.encode(regtest().magic).unwrap().bytes().to_vec();
    unknown[4..16].copy_from_slice(b"sendcmpct\0\0\0");
    let cost = u64::from(Command::Unknown.cost());
    world.feed(flooder, &unknown.repeat(UNHEARD_MAX as usize - 1));
    world.turns();
    assert_eq!(world.hub.outlet().take_unheard(flooder), UNHEARD_MAX - 1, "a few wait for the next timer");
    let most = u64::from(PEER_COST_BURST + 200 * PEER_COST_RATE);
    world.feed(flooder, &unknown.repeat((most / cost) as usize));
    world.turns();
    assert_eq!(world.node.counters().peers_rested.get(), 1);
    let begun = read(&mut world, flooder);
    for _ in 0..500 {
        world.pass(PEER_REST);
    }
    let (heard, at_once) = ((read(&mut world, flooder) - begun) / 24 * cost, (64 << 10) / 24 * cost);
    assert!(heard <= u64::from(PEER_COST_RATE) * 50 + 2 * at_once, "{heard} in 50 s");
    assert!(world.is_open(flooder), "nobody is dropped for that");
}

/// Its clocks stand still while it is not heard, however long: it is pinged when it is heard again, and dropped only if it is silent then.
#[test]
fn who_was_not_heard_for_long_is_not_dropped_as_silent() {
    let mut world = World::recorded(&[], true);
    let flooder = came(&mut world, place(1));
    let ask = Message::GetAddr.encode(regtest().magic).unwrap();
    // As many as are read at once.
    let many = (64 << 10) / ask.bytes().len();
    world.feed(flooder, &ask.bytes().repeat(many));
    world.turns();
    let rest = (many as u64 * u64::from(Command::GetAddr.cost()) - u64::from(PEER_COST_BURST)) / u64::from(PEER_COST_RATE);
    assert!(Duration::from_secs(rest) > SILENCE_MAX);
    world.taken(flooder);
    world.pass(Duration::from_secs(rest) + PING_EVERY);
    let messages = world.messages(flooder);
    let Some(Message::Ping(nonce)) = messages.last() else { panic!("{messages:?}") };
    world.say(flooder, &Message::Pong(*nonce));
    world.pass(PING_EVERY);
    assert!(world.is_open(flooder));
    world.pass(SILENCE_MAX);
    assert!(!world.is_open(flooder));
}
