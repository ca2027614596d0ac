//! Who does not do his part is gone at his deadline, by the hundred and to the turn; who does is not, whatever the clocks do.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{PEER, STRATUM, World, lines, message, secs};
use rockpool_net::close::CloseReason;
use rockpool_net::hub::Outlet;
use rockpool_net::hub::io::Input;
use rockpool_net::id::{ConnId, Lane};
use rockpool_net::limits::{DIAL_MAX, FLUSH_MAX, IDLE_MAX, OUTBOX_HARD_BYTES, OUTBOX_SOFT_BYTES, OUTBOX_STALL_MAX};
use rockpool_net::payload::Payload;
use rockpool_net::pipes::{Net, Weather};
use rockpool_net::transport::Wrapping;
use rockpool_net::wire::message::Command;

/// The time that every listener's row gives for the first frame.
const FIRST_FRAME: Duration = Duration::from_secs(10);

/// When connections were told to be open and to be closed.
type Times = Rc<RefCell<BTreeMap<ConnId, (Duration, Option<Duration>)>>>;

/// A hub that answers each frame, notes when connections come and go, and sends `said` to all every second.
fn broadcasting(seed: u64, raw: usize, said: usize, capacity: usize) -> (World, Times) {
    let mut world = World::new(seed, 1, raw, Weather { capacity, ..Weather::fair() });
    let times = Times::default();
    let noted = Rc::clone(&times);
    let said = Arc::new(Payload::new(lines(said / 100, 100)));
    world.nodes[0].hook = Box::new(move |now, input, out| match input {
        Input::Opened { conn, .. } => drop(noted.borrow_mut().insert(*conn, (now.mono, None))),
        Input::Closed { conn, .. } => noted.borrow_mut().get_mut(conn).unwrap().1 = Some(now.mono),
        Input::Frame { conn, .. } => out.send_bytes(*conn, b"ok\n".to_vec()),
        Input::Wake => {
            let open: Vec<ConnId> = noted.borrow().iter().filter(|(_, times)| times.1.is_none()).map(|(conn, _)| *conn).collect();
            open.into_iter().for_each(|conn| out.send(conn, Arc::clone(&said)));
            out.set_wake(Some(now.mono + secs(1)));
        }
        _ => {}
    });
    (world, times)
}

/// Asserts that it was closed for running out of time, this long after it was opened, to the turn.
fn assert_gone(world: &World, times: &Times, conn: ConnId, after: Duration) {
    let (opened, closed) = times.borrow()[&conn];
    let lived = closed.unwrap_or_else(|| panic!("{conn} is still there")) - opened;
    assert!(matches!(world.nodes[0].why(conn), Some(CloseReason::Timeout(_))), "{:?}", world.nodes[0].why(conn));
    assert!(lived >= after && lived <= after + IDLE_MAX + Duration::from_millis(50), "{conn} lived {lived:?}, not {after:?}");
}

#[test]
fn five_hundred_who_never_say_anything_whole_are_gone_at_their_deadline_and_nobody_else() {
    let (mut world, times) = broadcasting(1, 4, 0, 64 << 10);
    let connect =
        |world: &mut World, raw, port, count: usize| -> Vec<(ConnId, ConnId)> { (0..count).map(|_| world.connect(raw, 0, port)).collect() };
    let loris = [connect(&mut world, 1, STRATUM, 170), connect(&mut world, 1, PEER, 80)];
    let mute = connect(&mut world, 2, STRATUM, 150);
    let half_open = connect(&mut world, 3, PEER, 100);
    world.net.partition(0, 3, true);
    let honest = connect(&mut world, 4, STRATUM, 100);
    let hello = message(Command::Version, &[7; 90]);
    for second in 0..14 {
        for &(raw, _) in &loris[0] {
            world.write(1, raw, b"{");
        }
        for &(raw, _) in &loris[1] {
            world.write(1, raw, &hello[second..=second]);
        }
        honest.iter().for_each(|&(raw, _)| assert_eq!(world.write(4, raw, b"x\n"), 2));
        world.run_for(secs(1));
    }
    for &(_, conn) in loris.iter().flatten().chain(&mute).chain(&half_open) {
        assert_gone(&world, &times, conn, FIRST_FRAME);
    }
    for (raw, conn) in honest {
        assert_eq!((world.read(4, raw).len(), world.nodes[0].why(conn)), (14 * 3, None));
    }
    assert_eq!((world.nodes[0].closed.len(), world.hubs[0].conns(), world.count(0, "refused")), (500, 100, 0));
}

#[test]
fn hundreds_who_do_not_read_or_are_not_there_any_more_are_gone_in_time_and_nobody_else() {
    // A second's broadcast is small enough that it is the time which ends them, not the bytes.
    const BYTES: usize = 2_000;
    const PIPE: usize = 8 << 10;
    let (mut world, times) = broadcasting(2, 3, BYTES, PIPE);
    let deaf: Vec<_> = (0..300).map(|_| world.connect(1, 0, STRATUM)).collect();
    let lost: Vec<_> = (0..100).map(|_| world.connect(2, 0, STRATUM)).collect();
    let honest: Vec<_> = (0..100).map(|_| world.connect(3, 0, STRATUM)).collect();
    for (host, conns) in [(1, &deaf), (2, &lost), (3, &honest)] {
        conns.iter().for_each(|&(raw, _)| assert_eq!(world.write(host, raw, b"x\n"), 2));
    }
    world.run_for(secs(1));
    world.net.partition(0, 2, true);
    let (start, mut got) = (world.now(), 0);
    world.hubs[0].outlet().set_wake(Some(start));
    let pipe_full = PIPE.div_ceil(BYTES) as u64;
    for _ in 0..45 {
        world.run_for(secs(1));
        got += honest.iter().map(|&(raw, _)| world.read(3, raw).len()).sum::<usize>();
        assert!(world.hubs[0].outlet().unsent() <= 400 * 40 * BYTES);
    }
    let latest = start + secs(pipe_full) + OUTBOX_STALL_MAX + IDLE_MAX + secs(1);
    for &(_, conn) in deaf.iter().chain(&lost) {
        let closed = times.borrow()[&conn].1.unwrap();
        assert!(closed >= start + OUTBOX_STALL_MAX && closed <= latest, "{conn}: {:?}", closed - start);
    }
    assert_eq!((world.nodes[0].closed.len(), world.hubs[0].conns()), (400, 100));
    assert!(got >= 100 * 44 * BYTES, "{got}");
    assert!(world.hubs[0].outlet().unsent() <= 100 * BYTES);
}

#[test]
fn two_hubs_that_both_write_four_megabytes_and_read_each_other_end() {
    // As Bitcoin Core's p2p_net_deadlock. Each side says more as soon as there is room, and never waits to be answered.
    const LINES: usize = 42_000;
    const PART: usize = 3_000;
    for capacity in [8 << 10, 64 << 10, 1 << 20] {
        let mut world = World::new(3, 2, 0, Weather { capacity, ..Weather::fair() });
        for node in &mut world.nodes {
            let (part, mut left) = (Arc::new(Payload::new(lines(PART, 100))), LINES / PART);
            let mut more = move |conn: ConnId, out: &mut Outlet| {
                while left > 0 && out.room(conn) {
                    out.send(conn, Arc::clone(&part));
                    left -= 1;
                }
            };
            node.hook = Box::new(move |_, input, out| {
                if let Input::Opened { conn, .. } | Input::Room { conn } = input {
                    more(*conn, out);
                }
            });
        }
        let addr = Net::addr(1, STRATUM);
        world.hubs[0].outlet().dial(Lane::Stratum, addr, Wrapping::V1).unwrap();
        let from = world.now();
        world.run_until(|world| world.nodes.iter().all(|node| node.frames.len() == LINES));
        assert!(world.now() - from <= secs(5), "{capacity}: {:?}", world.now() - from);
        assert!(world.nodes.iter().all(|node| node.closed.is_empty()));
        assert!((0..2).all(|host| world.hubs[host].outlet().unsent() == 0));
    }
}

/// One connection in each state that has a deadline. Returns their names with when they are due at the latest.
fn one_of_each(world: &mut World) -> Vec<(ConnId, Duration)> {
    let now = world.now();
    let (_, mute) = world.connect(1, 0, STRATUM);
    let (raw, unread) = world.connect(1, 0, STRATUM);
    world.write_all(1, raw, b"hello\n");
    let (raw, leaving) = world.connect(1, 0, STRATUM);
    world.write_all(1, raw, b"hello\n");
    let (raw, timed) = world.connect(1, 0, STRATUM);
    world.write_all(1, raw, b"hello\n");
    world.run_until(|world| world.nodes[0].frames.len() == 3);
    let out = world.hubs[0].outlet();
    let dialling = out.dial(Lane::Peer, Net::addr(2, PEER), Wrapping::V1).unwrap();
    out.send_bytes(unread, vec![1; OUTBOX_SOFT_BYTES]);
    out.send_bytes(leaving, vec![1; OUTBOX_SOFT_BYTES]);
    out.close_after_flush(leaving, CloseReason::Done("said all"));
    out.set_timer(timed, Some(now + secs(20)));
    world.turn(0);
    let dues = [(mute, FIRST_FRAME), (unread, OUTBOX_STALL_MAX), (leaving, FLUSH_MAX), (dialling, DIAL_MAX)];
    dues.map(|(conn, due)| (conn, now + due)).to_vec()
}

#[test]
fn an_hour_of_sleep_cuts_nobody_in_any_state_and_takes_nothing_from_their_time() {
    let mut world = World::new(4, 1, 2, Weather { capacity: 10_000, ..Weather::fair() });
    world.net.partition(0, 2, true);
    let (raw, idle) = world.connect(1, 0, STRATUM);
    world.write_all(1, raw, b"hello\n");
    world.run_until(|world| world.nodes[0].frames.len() == 1);
    world.nodes[0].frames.clear();
    let dues = one_of_each(&mut world);
    world.run_for(secs(1));
    let slept = secs(3_600);
    world.asleep.insert(0);
    world.run_for(slept);
    world.asleep.clear();
    (0..3).for_each(|_| {
        world.turn(0);
    });
    assert_eq!((world.nodes[0].closed.as_slice(), world.nodes[0].timers.len()), ([].as_slice(), 0));
    let mut closed: BTreeMap<ConnId, Duration> = BTreeMap::new();
    let end = world.now() + secs(60);
    while world.now() < end {
        world.step(end);
        for (conn, _) in &world.nodes[0].closed {
            closed.entry(*conn).or_insert(world.now());
        }
    }
    for (conn, due) in dues {
        let at = closed[&conn] - slept;
        assert!(at + IDLE_MAX >= due && at <= due + 3 * IDLE_MAX, "{conn}: {at:?}, due {due:?}: {:?}", world.nodes[0].why(conn));
    }
    assert_eq!((world.nodes[0].why(idle), world.nodes[0].timers.len()), (None, 1));
}

#[test]
fn jumps_of_the_calendar_are_no_time_at_all() {
    let mut world = World::new(5, 1, 2, Weather { capacity: 10_000, ..Weather::fair() });
    world.net.partition(0, 2, true);
    let dues = one_of_each(&mut world);
    let (turns, from) = (world.count(0, "turns"), world.now());
    for ahead_ms in [7_200_000, -7_200_000, 0, -1_700_000_000_000, 7_200_000] {
        world.net.set_wall(0, ahead_ms);
        world.run_for(Duration::from_millis(700));
    }
    assert_eq!((world.nodes[0].closed.as_slice(), world.nodes[0].timers.len()), ([].as_slice(), 0));
    assert!(world.count(0, "turns") - turns <= 20, "it does not spin");
    assert_eq!(world.count(0, "gaps"), 0);
    world.run_until(|world| world.nodes[0].closed.len() == dues.len() && world.nodes[0].timers.len() == 1);
    assert!(world.now() - from <= OUTBOX_STALL_MAX + secs(3), "and puts nothing off");
}

#[test]
fn who_reads_slowly_under_the_hard_cap_stays() {
    // A poor line: what is sent each second is read each second, a second late.
    let (mut world, times) = broadcasting(6, 1, 50_000, 64 << 10);
    let (raw, conn) = world.connect(1, 0, STRATUM);
    world.write_all(1, raw, b"x\n");
    let now = world.now();
    world.hubs[0].outlet().set_wake(Some(now));
    let mut got = 0;
    for _ in 0..100 {
        world.run_for(secs(1));
        got += world.read(1, raw).len();
        assert!(world.hubs[0].outlet().unsent() < OUTBOX_HARD_BYTES);
    }
    assert_eq!(times.borrow()[&conn].1, None);
    assert!(got >= 95 * 50_000, "{got}");
}
