//! The simulated network itself: repeatable, and broken only as it is told to be.

use std::time::Duration;

use crate::common::{STRATUM, World, lines, secs};
use rockpool_net::hub::io::Input;
use rockpool_net::id::Lane;
use rockpool_net::pipes::{Net, Weather};
use rockpool_net::transport::Wrapping;

fn rough() -> Weather {
    Weather { delay: (Duration::from_millis(1), Duration::from_millis(80)), chop: 30, capacity: 700 }
}

/// Three hubs in a line that echo, with faults on the way.
fn story(seed: u64) -> (u64, Vec<usize>) {
    let mut world = World::new(seed, 3, 0, rough());
    for node in &mut world.nodes {
        node.hook = Box::new(|_, input, out| match input {
            Input::Opened { conn, listener: None, .. } => out.send_bytes(*conn, lines(40, 30)),
            Input::Frame { conn, .. } if out.room(*conn) => out.send_bytes(*conn, b"again\n".to_vec()),
            _ => {}
        });
    }
    for (from, to) in [(0, 1), (1, 2)] {
        let addr = Net::addr(to, STRATUM);
        world.hubs[from].outlet().dial(Lane::Stratum, addr, Wrapping::V1).unwrap();
    }
    world.run_for(secs(3));
    world.net.partition(1, 2, true);
    world.run_for(secs(3));
    world.net.partition(1, 2, false);
    world.net.reset(0, 1);
    world.run_for(secs(3));
    (world.net.trace(), world.nodes.iter().map(|node| node.frames.len()).collect())
}

#[test]
fn the_same_seed_is_the_same_story_to_the_last_byte() {
    assert_eq!(story(1), story(1));
    assert_ne!(story(1).0, story(2).0);
    assert!(story(1).1.iter().all(|&frames| frames > 20));
}

#[test]
fn a_cut_way_holds_what_is_sent_and_loses_nothing() {
    let mut world = World::new(3, 1, 1, rough());
    let (raw, conn) = world.connect(1, 0, STRATUM);
    world.write_all(1, raw, b"before\n");
    world.run_until(|world| world.nodes[0].lines(conn).len() == 1);
    // One way: the hub is not heard of nothing, but hears.
    world.net.cut(0, 1, true);
    world.write(1, raw, b"x\n");
    world.hubs[0].outlet().send_bytes(conn, vec![b'z'; 2_000]);
    world.run_for(secs(5));
    assert!(world.read(1, raw).is_empty());
    let unread = world.net.unread(0, world.nodes[0].opened[0]);
    assert!(unread > 0 && unread <= 700, "the pipe is full: {unread}");
    assert!(world.hubs[0].outlet().unsent() >= 1_300);
    world.net.cut(0, 1, false);
    let mut got = 0;
    world.run_until(|world| {
        got += world.read(1, raw).len();
        got == 2_000
    });
}

#[test]
fn a_clogged_host_hears_nothing_until_it_is_freed() {
    let mut world = World::new(4, 1, 1, rough());
    let (raw, conn) = world.connect(1, 0, STRATUM);
    world.net.clog(0, true);
    let sent = world.write(1, raw, b"hello\n");
    world.run_for(secs(5));
    assert_eq!(world.nodes[0].frames.len(), 0);
    world.net.clog(0, false);
    world.write_all(1, raw, &b"hello\n"[sent..]);
    world.run_until(|world| world.nodes[0].lines(conn) == ["hello"]);
}

#[test]
fn a_crash_is_seen_by_the_other_side() {
    let mut world = World::new(5, 2, 0, Weather::fair());
    let addr = Net::addr(1, STRATUM);
    let conn = world.hubs[0].outlet().dial(Lane::Stratum, addr, Wrapping::V1).unwrap();
    world.run_until(|world| world.nodes[0].opened == [conn]);
    world.net.crash(1);
    world.asleep.insert(1);
    world.run_until(|world| world.nodes[0].why(conn).is_some());
    let again = world.hubs[0].outlet().dial(Lane::Stratum, addr, Wrapping::V1).unwrap();
    world.run_until(|world| world.nodes[0].why(again).is_some());
    assert_eq!(world.nodes[0].opened, [conn]);
}

#[test]
fn clocks_of_hosts_may_differ() {
    let mut net = Net::new(6, 2, Weather::fair());
    net.set_wall(1, -90_000);
    net.advance(secs(10));
    assert_eq!(net.now(0).unix() - net.now(1).unix(), 90);
    assert_eq!(net.now(0).mono, net.now(1).mono);
}
