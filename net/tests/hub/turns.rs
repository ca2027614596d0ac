//! The turn: its cost, its order, its clock, mail and timers.

use std::time::Duration;

use crate::common::{HTTP, STRATUM, World, lines, secs};
use rockpool_net::hub::io::{Input, Mail};
use rockpool_net::id::ConnId;
use rockpool_net::limits::{
    ACCEPT_BURST, ACCEPT_PAUSE, DISPATCH_TURN_COST, GAP_MAX, IDLE_MAX, LINE_COST, MAIL_TURN_MAX, RECEIVE_POOL_BYTES, TICKETS_PER_CONN,
    worst_case_bytes,
};
use rockpool_net::pipes::Weather;

#[test]
fn dispatch_ends_at_its_cost_and_goes_on_where_it_stopped() {
    let mut world = World::new(1, 1, 1, Weather::fair());
    let conns: Vec<_> = (0..200).map(|_| world.connect(1, 0, STRATUM)).collect();
    conns.iter().for_each(|&(raw, _)| world.write_all(1, raw, &lines(usize::from(TICKETS_PER_CONN), 20)));
    let soon = world.now() + Duration::from_millis(1);
    world.net.advance(soon);
    let per_turn = (DISPATCH_TURN_COST / LINE_COST) as usize;
    assert!(per_turn < 800);
    let first = world.turn(0);
    assert_eq!((first.frames, world.nodes[0].frames.len(), world.hubs[0].inbox()), (800, per_turn, 800 - per_turn));
    assert!(first.due <= world.now(), "the next turn is to run now");
    // An answer does not wait for frames.
    world.mail[0].push_back(Mail { answer: 5, tickets: vec![] });
    world.turn(0);
    assert_eq!(world.nodes[0].answers, [5]);
    world.run_until(|world| world.nodes[0].frames.len() == 800);
    for &(_, conn) in &conns {
        assert!(world.nodes[0].lines(conn).iter().enumerate().all(|(i, line)| line.parse() == Ok(i)));
    }
}

#[test]
fn the_order_is_drawn_and_the_seed_repeats_it() {
    let order = |seed| {
        let mut world = World::new(seed, 1, 1, Weather::fair());
        let conns: Vec<_> = (0..30).map(|_| world.connect(1, 0, STRATUM)).collect();
        conns.iter().for_each(|&(raw, _)| assert_eq!(world.write(1, raw, b"x\n"), 2));
        world.run_until(|world| world.nodes[0].frames.len() == 30);
        (world.nodes[0].frames.iter().map(|(conn, _)| conn.slot).collect::<Vec<_>>(), world.net.trace())
    };
    assert_eq!(order(1), order(1));
    assert_ne!(order(1).0, order(2).0);
    assert_ne!(order(1).0, (0..30).collect::<Vec<_>>(), "not just the order of arrival");
}

#[test]
fn sleep_of_the_machine_is_no_time() {
    let mut world = World::new(2, 1, 1, Weather::fair());
    let (_, conn) = world.connect(1, 0, STRATUM);
    let (_, http) = world.connect(1, 0, HTTP);
    world.hubs[0].outlet().pause(http, true);
    let before = world.turn(0).due - IDLE_MAX;
    world.hubs[0].outlet().set_timer(conn, Some(before + secs(8)));
    world.hubs[0].outlet().set_wake(Some(before + secs(7)));
    world.asleep.insert(0);
    world.run_for(secs(3_600));
    world.asleep.clear();
    world.turn(0);
    assert_eq!((world.nodes[0].timers.len(), world.nodes[0].wakes.len(), world.nodes[0].closed.len()), (0, 0, 0));
    assert_eq!(world.count(0, "gaps"), 1);
    let awake = world.hubs[0].outlet().now().mono;
    assert!(awake <= before + IDLE_MAX + GAP_MAX, "{awake:?}");
    world.run_until(|world| world.nodes[0].timers.len() == 1);
    let (told, _) = world.nodes[0].timers[0];
    assert!(told >= before + secs(8) && told < before + secs(9), "{told:?}");
    assert_eq!(world.nodes[0].wakes.len(), 1);
}

#[test]
fn where_nothing_is_due_the_next_turn_comes_at_the_idle_maximum() {
    let mut world = World::new(10, 1, 0, Weather::fair());
    assert_eq!(world.turn(0).due, world.now() + IDLE_MAX);
}

#[test]
fn a_gap_a_little_longer_than_the_most_is_none() {
    let mut world = World::new(11, 1, 0, Weather::fair());
    world.run_for(secs(2));
    let due = world.turn(0).due;
    world.net.advance(due + GAP_MAX + Duration::from_millis(1));
    world.turn(0);
    assert_eq!((world.count(0, "gaps"), world.hubs[0].outlet().now().mono), (1, due));
}

#[test]
fn a_short_gap_is_time() {
    let mut world = World::new(3, 1, 1, Weather::fair());
    let due = world.turn(0).due;
    world.net.advance(due + GAP_MAX - Duration::from_millis(1));
    world.turn(0);
    assert_eq!((world.count(0, "gaps"), world.hubs[0].outlet().now().mono), (0, due + GAP_MAX - Duration::from_millis(1)));
}

#[test]
fn timers_come_at_their_time_once_and_the_last_setting_counts() {
    let mut world = World::new(4, 1, 1, Weather::fair());
    let conns: Vec<ConnId> = (0..3).map(|_| world.connect(1, 0, HTTP).1).collect();
    let start = world.now();
    let out = world.hubs[0].outlet();
    out.set_timer(conns[0], Some(start + secs(3)));
    out.set_timer(conns[1], Some(start + secs(1)));
    out.set_timer(conns[1], Some(start + secs(2)));
    out.set_timer(conns[2], Some(start + secs(1)));
    out.set_timer(conns[2], None);
    out.set_wake(Some(start + secs(4)));
    world.run_for(secs(6));
    assert_eq!(world.nodes[0].timers, [(start + secs(2), conns[1]), (start + secs(3), conns[0])]);
    assert_eq!(world.nodes[0].wakes, [start + secs(4)]);
}

#[test]
fn a_timer_set_while_its_connection_is_paused_is_put_off_by_the_rest_of_the_pause() {
    let mut world = World::new(10, 1, 1, Weather::fair());
    let (_, conn) = world.connect(1, 0, STRATUM);
    let start = world.now();
    world.hubs[0].outlet().pause(conn, true);
    world.run_for(secs(20));
    world.hubs[0].outlet().set_timer(conn, Some(start + secs(25)));
    world.run_for(secs(10));
    assert_eq!(world.nodes[0].timers, []);
    world.hubs[0].outlet().pause(conn, false);
    world.run_until(|world| !world.nodes[0].timers.is_empty());
    let (told, _) = world.nodes[0].timers[0];
    // The hub's time of a call between turns is that of the last turn: a second early at most.
    assert!(told >= start + secs(34) && told <= start + secs(37), "{told:?}");
}

#[test]
fn what_arrived_before_a_timer_is_judged_before_it() {
    let mut world = World::new(5, 1, 1, Weather::fair());
    let (raw, conn) = world.connect(1, 0, STRATUM);
    world.nodes[0].hook = Box::new(move |now, input, out| {
        if matches!(input, Input::Frame { .. }) {
            out.set_timer(conn, Some(now.mono + secs(5)));
        }
    });
    let at = world.now() + Duration::from_millis(1);
    world.hubs[0].outlet().set_timer(conn, Some(at));
    assert_eq!(world.write(1, raw, b"pong\n"), 5);
    world.run_for(secs(1));
    assert_eq!((world.nodes[0].frames.len(), world.nodes[0].timers.len()), (1, 0));
    world.run_until(|world| world.nodes[0].timers.len() == 1);
}

#[test]
fn mail_beyond_what_a_turn_takes_is_taken_by_the_next_at_once() {
    let mut world = World::new(6, 1, 0, Weather::fair());
    world.mail[0].extend((0..MAIL_TURN_MAX as u32 + 3).map(|answer| Mail { answer, tickets: vec![] }));
    let report = world.turn(0);
    assert_eq!((world.nodes[0].answers.len(), report.inputs), (MAIL_TURN_MAX, MAIL_TURN_MAX));
    assert!(report.due <= world.now());
    world.turn(0);
    assert_eq!(world.nodes[0].answers, (0..MAIL_TURN_MAX as u32 + 3).collect::<Vec<_>>());
}

#[test]
fn accepts_come_in_bursts_and_a_listener_after_one_stays_ready() {
    let mut world = World::new(7, 1, 1, Weather::fair());
    (0..40).for_each(|_| {
        world.dial(1, 0, STRATUM);
    });
    let soon = world.now() + Duration::from_millis(1);
    world.net.advance(soon);
    let accepted: Vec<u64> = (0..3)
        .map(|_| {
            world.turn(0);
            world.count(0, "accepted")
        })
        .collect();
    let burst = ACCEPT_BURST as u64;
    assert_eq!(accepted, [burst, 2 * burst, 40]);
}

#[test]
fn without_file_descriptors_a_listener_rests_and_recovers() {
    let mut world = World::new(8, 1, 1, Weather::fair());
    world.net.exhaust(0, true);
    (0..100).for_each(|_| {
        world.dial(1, 0, STRATUM);
    });
    world.run_for(secs(5));
    let rests = 5_000 / ACCEPT_PAUSE.as_millis() as u64;
    assert!((rests - 2..=rests + 1).contains(&world.count(0, "accept_pauses")), "{}", world.count(0, "accept_pauses"));
    assert!(world.count(0, "turns") < rests + 20, "it does not spin");
    world.net.exhaust(0, false);
    world.run_for(ACCEPT_PAUSE + Duration::from_millis(50));
    assert_eq!(world.nodes[0].opened.len(), 100);
}

#[test]
fn a_full_row_refuses_and_leaves_the_others_their_slots() {
    let mut config = crate::common::config(5);
    config.listeners[2].per_addr_max = 2;
    config.listeners[2].spare_private = false;
    let mut world = World::with(9, 1, 2, Weather::fair(), config);
    let miners: Vec<ConnId> = (0..8).map(|_| world.dial(1, 0, STRATUM)).collect();
    world.run_for(secs(1));
    assert_eq!((world.nodes[0].opened.len(), world.count(0, "refused")), (5, 3));
    assert_eq!(miners.into_iter().filter(|&raw| world.is_ended(1, raw)).count(), 3);
    (0..3).for_each(|_| {
        world.dial(1, 0, HTTP);
        world.dial(2, 0, HTTP);
    });
    world.run_for(secs(1));
    assert_eq!(world.nodes[0].opened.len(), 5 + 4, "two of each address");
    assert_eq!(world.nodes[0].closed, [], "a refused one was never opened");
}

#[test]
fn a_thousand_connections_fit_a_small_machine() {
    let bytes = worst_case_bytes(&crate::common::config(1_000));
    assert!(bytes > (RECEIVE_POOL_BYTES + 3_000 * 4_096) as u64);
    assert!(bytes < 128 << 20, "{bytes}");
}
