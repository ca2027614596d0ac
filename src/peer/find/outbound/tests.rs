use rand_chacha::rand_core::SeedableRng;
use rockpool_store::kv::{Kv, MemKv};
use rockpool_store::peers::PeerRows;

use super::*;
use crate::limits::{NEW_BUCKETS, RIVAL_FRESH_S};

const START: u64 = 1_700_000_000;

fn at(mono: Duration) -> Now {
    Now { mono, wall: Duration::from_secs(START) + mono }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn addr(group: u8, number: u8) -> SocketAddr {
    SocketAddr::from(([20, group, number, 1], 9_333))
}

fn conn(slot: u32) -> ConnId {
    ConnId { slot, generation: 1 }
}

/// A book that knows the first address of so many netgroups, and the policy.
struct World {
    book: Book,
    outbound: Outbound,
    rng: ChaCha12Rng,
    now: Duration,
    slots: u32,
    configured: Vec<SocketAddr>,
    there: Vec<SocketAddr>,
    inbound: BTreeSet<SocketAddr>,
    banned: Vec<IpAddr>,
}

impl World {
    fn new(groups: u8, anchors: &[SocketAddr]) -> World {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let mut book = Book::open(&PeerRows::default(), false, &mut rng);
        for group in 0..groups {
            book.add(START as u32, addr(group, 1), 0, START as u32, addr(group, 2).ip());
        }
        let (outbound, now) = (Outbound::new(anchors), Duration::ZERO);
        let (configured, there, inbound, banned) = (Vec::new(), Vec::new(), BTreeSet::new(), Vec::new());
        World { book, outbound, rng, now, slots: 0, configured, there, inbound, banned }
    }

    /// The dial that is due now.
    fn dial(&mut self) -> Option<(SocketAddr, Aim, ConnId)> {
        let is_banned = |ip: IpAddr| self.banned.contains(&ip);
        let around = Around { configured: &self.configured, outbound: &self.there, inbound: &self.inbound, is_banned: &is_banned };
        let (addr, aim) = self.outbound.next(at(self.now), &mut self.book, &mut self.rng, &around)?;
        self.slots += 1;
        self.outbound.began(addr, aim, conn(self.slots));
        Some((addr, aim, conn(self.slots)))
    }

    fn up(&mut self, addr: SocketAddr, conn: ConnId) {
        self.outbound.up(self.now, conn);
        self.book.good(at(self.now).unix(), addr, 0);
    }

    /// All dials within a time, every one of which succeeds, or fails.
    fn dials(&mut self, time: Duration, good: bool) -> Vec<(SocketAddr, Aim)> {
        self.dials_by(Duration::from_millis(100), time, good)
    }

    /// The same, looked at less often.
    fn dials_by(&mut self, step: Duration, time: Duration, good: bool) -> Vec<(SocketAddr, Aim)> {
        let (end, mut dials) = (self.now + time, Vec::new());
        while self.now < end {
            if let Some((addr, aim, conn)) = self.dial() {
                if good && aim == Aim::Peer {
                    self.up(addr, conn)
                } else {
                    _ = self.outbound.closed(self.now, conn);
                }
                dials.push((addr, aim));
            }
            self.now += step;
        }
        dials
    }
}

#[test]
fn eight_stand_in_all_with_those_of_the_configuration() {
    let mut world = World::new(60, &[]);
    world.there = vec![addr(200, 1), addr(201, 1)];
    world.configured = world.there.clone();
    let dials = world.dials(secs(60), true);
    assert_eq!(dials.iter().filter(|(_, aim)| *aim == Aim::Peer).count(), OUTBOUND_TARGET - 2);
    // One leaves, and another comes in its place.
    let row = world.outbound.rows[0].conn;
    assert_eq!(world.outbound.closed(world.now, row).map(|(_, up)| up), Some(true));
    assert_eq!(world.dials(secs(60), true).iter().filter(|(_, aim)| *aim == Aim::Peer).count(), 1);
}

#[test]
fn of_each_netgroup_there_is_one_and_local_ones_are_spared() {
    let mut world = World::new(3, &[]);
    for number in 2..100 {
        world.book.add(START as u32, addr(1, number), 0, START as u32, addr(number, 2).ip());
    }
    assert_eq!(world.dials(secs(100), true).len(), 3);
    let groups: BTreeSet<_> = world.outbound.rows.iter().map(|row| group(row.addr)).collect();
    assert_eq!(groups.len(), 3);
    // On regtest a household's nodes are of one /16.
    let mut world = World::new(0, &[]);
    world.book = Book::open(&PeerRows::default(), true, &mut world.rng);
    for port in 1..20 {
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        world.book.add(START as u32, addr, 0, START as u32, addr.ip());
    }
    world.dials(secs(100), true);
    assert_eq!(world.outbound.rows.len(), OUTBOUND_TARGET);
}

#[test]
fn nobody_is_dialled_who_is_banned_configured_or_there_already() {
    let mut world = World::new(4, &[addr(0, 1)]);
    world.banned = vec![addr(0, 1).ip()];
    world.configured = vec![addr(1, 1)];
    world.inbound = BTreeSet::from([addr(2, 1)]);
    let dials = world.dials(secs(600), true);
    assert_eq!(dials.iter().filter(|(_, aim)| *aim == Aim::Peer).map(|(addr, _)| *addr).collect::<Vec<_>>(), [addr(3, 1)]);
    assert!(dials.iter().all(|(addr, _)| addr.ip() != world.banned[0] && *addr != world.configured[0]));
}

#[test]
fn dials_are_few_at_once_and_spaced() {
    let mut world = World::new(60, &[]);
    let mut begun = Vec::new();
    for _ in 0..100 {
        begun.extend(world.dial().map(|(.., conn)| (world.now, conn)));
        world.now += Duration::from_millis(50);
    }
    assert_eq!(begun.len(), DIALS_AT_ONCE);
    assert!(begun.windows(2).all(|pair| pair[1].0 - pair[0].0 >= DIAL_PAUSE));
    // A line that is down: of sixty addresses a few a second are tried, none of them soon again.
    begun.into_iter().for_each(|(_, conn)| _ = world.outbound.closed(world.now, conn));
    let failed = world.dials(secs(20), false);
    assert!(failed.len() as u128 <= 20_000 / DIAL_PAUSE.as_millis() + 1, "{}", failed.len());
    let soon: BTreeSet<_> = failed.iter().map(|(addr, _)| *addr).collect();
    assert!(soon.len() > failed.len() / 2);
}

/// What one address costs us that never answers: less and less.
#[test]
fn an_address_that_fails_is_left_alone_longer_and_longer() {
    let mut world = World::new(1, &[]);
    let mut dialled = Vec::new();
    while dialled.len() < 12 {
        // Others answer meanwhile: our line works.
        world.book.add(at(world.now).unix(), addr(9, 9), 0, at(world.now).unix(), addr(9, 1).ip());
        world.book.good(at(world.now).unix(), addr(9, 9), 0);
        world.banned = vec![addr(9, 9).ip()];
        let before = world.now;
        dialled.extend(world.dials(secs(1), false).into_iter().map(|_| before.as_secs() as u32));
    }
    let pauses: Vec<u32> = dialled.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] >= BACKOFF_FIRST_S && pauses.iter().all(|pause| *pause <= BACKOFF_LAST_S * 5 / 4 + 20), "{pauses:?}");
    assert!(pauses[pauses.len() - 1] > BACKOFF_LAST_S * 3 / 4 - 20, "{pauses:?}");
    let odd: BTreeSet<_> = pauses.iter().map(|pause| pause % BACKOFF_FIRST_S).collect();
    assert!(odd.len() > 3, "there is jitter: {pauses:?}");
    // A clock that is set back years does not keep anybody waiting for years.
    let row = *world.book.row(addr(0, 1)).unwrap();
    assert!(rested(row.tried_at - 1, &row, world.book.key()) && !rested(row.tried_at, &row, world.book.key()));
}

/// Whoever tells of addresses that are strangers' has few nodes knock there, and seldom: also where there are fewer peers than we want, and
/// all who are there stay for days.
#[test]
fn who_never_answers_is_dialled_once_a_day_while_others_stand_and_again_when_none_does() {
    let mut world = World::new(30, &[]);
    let (first, _, stands) = world.dial().unwrap();
    world.up(first, stands);
    let day = secs(u64::from(BACKOFF_BAD_S));
    world.dials_by(secs(2), day, false);
    let count = |dials: Vec<(SocketAddr, Aim)>| dials.len();
    let more = count(world.dials_by(secs(2), day, false));
    assert!((20..=29 * 2).contains(&more), "{more} in a day");
    // One is seen again by others: it is dialled once more.
    let (back, seen) = (if first == addr(5, 1) { addr(6, 1) } else { addr(5, 1) }, at(world.now).unix());
    world.book.add(seen, back, 0, seen, back.ip());
    let again = world.dials_by(secs(2), secs(600), false);
    assert_eq!(again.iter().filter(|(addr, _)| *addr == back).count(), 1);
    _ = world.outbound.closed(world.now, stands);
    let alone = world.dials_by(secs(1), 2 * secs(u64::from(BACKOFF_LAST_S)), false);
    assert_eq!(alone.iter().map(|(addr, _)| *addr).collect::<BTreeSet<_>>().len(), 30, "now they are all there is");
}

#[test]
fn anchors_come_first_and_are_kept_while_the_node_runs() {
    let (kv, mut world) = (MemKv::new(), World::new(60, &[addr(150, 1), addr(151, 1)]));
    assert!([addr(150, 1), addr(151, 1)].iter().all(|anchor| world.book.row(*anchor).is_none()), "not only those of the book");
    let dials = world.dials(secs(30), true);
    assert_eq!(dials.iter().take(2).map(|(addr, _)| *addr).collect::<Vec<_>>(), [addr(150, 1), addr(151, 1)]);
    world.now += ANCHOR_AFTER;
    assert!(world.outbound.anchors(world.now).is_empty(), "they stand");
    // Another takes the place of one that has left, once it has stayed; both gone, both are kept.
    let gone = world.outbound.rows[0].conn;
    world.outbound.closed(world.now, gone);
    let ops = world.outbound.anchors(world.now);
    kv.write(&ops, true).unwrap();
    assert_eq!((ops.len(), PeerRows::open(&kv).unwrap().anchors), (1, vec![world.outbound.rows[1].addr]));
    assert_eq!(world.outbound.anchors.len(), ANCHORS_MAX);
    let all: Vec<_> = world.outbound.rows.iter().map(|row| row.conn).collect();
    all.into_iter().for_each(|conn| _ = world.outbound.closed(world.now, conn));
    assert!(world.outbound.anchors(world.now + ANCHOR_AFTER).is_empty() && world.outbound.anchors.len() == ANCHORS_MAX);
    // Who has just come is none, nor is a feeler.
    let mut world = World::new(60, &[]);
    world.dials(secs(30), true);
    assert!(world.outbound.anchors(Duration::ZERO + ANCHOR_AFTER - DIAL_PAUSE).is_empty());
    let ops = world.outbound.anchors(world.now + ANCHOR_AFTER);
    assert_eq!(ops.len(), ANCHORS_MAX);
    // One that is ourselves or banned is struck, and the other stays.
    kv.write(&ops, true).unwrap();
    let [one, other] = PeerRows::open(&kv).unwrap().anchors.try_into().unwrap();
    kv.write(&world.outbound.forget(one), true).unwrap();
    assert_eq!(PeerRows::open(&kv).unwrap().anchors, [other]);
    assert!(world.outbound.forget(one).is_empty());
}

#[test]
fn feelers_go_to_new_addresses_every_two_minutes_or_so() {
    let mut world = World::new(NEW_BUCKETS.min(200) as u8, &[]);
    let hours = 10;
    let dials = world.dials(secs(hours * 3_600), true);
    let feelers: Vec<_> = dials.iter().filter(|(_, aim)| *aim == Aim::Feeler).collect();
    let wanted = hours * 3_600 / FEELER_EVERY.as_secs();
    assert!((wanted / 2..wanted * 2).contains(&(feelers.len() as u64)), "{} of {wanted}", feelers.len());
    let (fed, tried): (BTreeSet<_>, _) = (feelers.iter().map(|(addr, _)| *addr).collect(), world.book.sizes().1);
    assert!(fed.len() > 50 && tried == OUTBOUND_TARGET, "in this test they do not answer");
    assert!(!fed.iter().any(|addr| world.outbound.rows.iter().any(|row| row.addr == *addr)));
    // Without any connection they would only tell that the line is down.
    let mut world = World::new(60, &[]);
    assert!(world.dials(secs(3_600), false).iter().all(|(_, aim)| *aim == Aim::Peer));
}

#[test]
fn who_stays_far_behind_makes_room_where_another_does_not() {
    let mut world = World::new(60, &[]);
    world.dials(secs(30), true);
    let (late, mute) = (world.outbound.rows[3].conn, world.outbound.rows[5].conn);
    let ours = 1_000;
    let heights = |others: Option<u32>| {
        move |conn: ConnId| match conn {
            conn if conn == late => Some(ours - PUSH_DEPTH - 1),
            conn if conn == mute => None,
            _ => others,
        }
    };
    let near = heights(Some(ours - PUSH_DEPTH));
    let run = |world: &mut World, time: Duration, height: &dyn Fn(ConnId) -> Option<u32>| {
        let (end, mut out) = (world.now + time, Vec::new());
        while world.now < end {
            if let Some((conn, _)) = world.outbound.look(world.now, ours, height) {
                world.outbound.closed(world.now, conn);
                out.push(conn);
            }
            world.now += secs(1);
        }
        out
    };
    assert!(run(&mut world, BEHIND_MAX, &near).is_empty());
    assert_eq!(run(&mut world, 4 * ANCHOR_AFTER, &near), [late, mute]);
    // Where all are behind, it is us who are alone.
    let mut world = World::new(60, &[]);
    world.dials(secs(30), true);
    assert!(run(&mut world, 3 * BEHIND_MAX, &|_| Some(1)).is_empty());
}

#[test]
fn a_connection_to_ourselves_is_known_by_its_nonce() {
    let mut world = World::new(1, &[]);
    let (addr, aim, conn) = world.dial().unwrap();
    assert!(aim == Aim::Peer && world.outbound.holds(conn));
    world.outbound.spoke(conn, 7);
    assert_eq!((world.outbound.own_addr(7), world.outbound.own_addr(8)), (Some(addr), None));
    world.outbound.closed(world.now, conn);
    assert_eq!(world.outbound.own_addr(7), None);
    world.outbound.hurry(world.now);
    assert!(world.outbound.due() <= world.now + DIAL_LOOK);
}

/// Who has been connected for hours did not answer lately, but it stands.
#[test]
fn a_peer_that_stands_keeps_its_place_in_tried() {
    let mut world = World::new(0, &[]);
    for number in 0..250 {
        world.book.add(START as u32, addr(1, number), 0, START as u32, addr(number, 2).ip());
        world.book.good(START as u32, addr(1, number), 0);
    }
    assert_eq!(world.book.doubted(START as u32 + 1), [], "all have answered a moment ago");
    world.now = secs(u64::from(RIVAL_FRESH_S));
    let wants: Vec<_> = (0..250).map(|number| addr(1, number)).filter(|addr| world.book.row(*addr).is_some_and(|row| !row.tried)).collect();
    wants.into_iter().for_each(|addr| world.book.good(at(world.now).unix(), addr, 0));
    world.now += secs(1);
    let doubted = world.book.doubted(at(world.now).unix())[0];
    world.outbound.began(doubted, Aim::Peer, conn(900));
    world.outbound.up(world.now, conn(900));
    let end = world.now + FEELER_EVERY * 6;
    while world.now < end {
        world.dial();
        world.now += secs(1);
    }
    assert!(world.book.row(doubted).is_some_and(|row| row.tried && row.success > START as u32 + RIVAL_FRESH_S));
}
