//! Reading: what an edge-triggered world never tells twice, budgets, fairness, memory of unfinished messages.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::{HTTP, MAGIC, PEER, STRATUM, World, lines, secs};
use rockpool_net::close::CloseReason;
use rockpool_net::frame::Frame;
use rockpool_net::hub::io::Input;
use rockpool_net::id::ConnId;
use rockpool_net::limits::{
    DISPATCH_TURN_COST, FRAMES_A_ROUND, HEADER_BYTES, LINE_COST, MESSAGE_GRACE, MESSAGE_RATE_MIN, POOL_GRACE, READ_LINES_BYTES,
    READ_TURN_BYTES, RECEIVE_FREE_BYTES, RECEIVE_POOL_BYTES, SHARE_HEADERS_BYTES_MAX,
};
use rockpool_net::pipes::Weather;
use rockpool_net::wire::message::{Command, Message};

fn deep() -> Weather {
    Weather { capacity: 16 << 20, ..Weather::fair() }
}

#[test]
fn ten_megabytes_told_of_once_are_read_to_the_last_byte() {
    let mut world = World::new(1, 1, 1, deep());
    let (raw, conn) = world.connect(1, 0, STRATUM);
    let sent = lines(10_000, 1_000);
    assert_eq!(world.write(1, raw, &sent), sent.len(), "all in one write: one arrival, one event");
    world.run_until(|world| world.nodes[0].frames.len() == 10_000);
    let got: Vec<String> = world.nodes[0].lines(conn);
    assert!(got.iter().enumerate().all(|(i, line)| line.parse() == Ok(i)));
    assert_eq!(world.count(0, "bytes_in"), sent.len() as u64);
}

#[test]
fn lines_chopped_anyhow_come_out_whole_and_in_order() {
    for seed in 0..20 {
        let weather = Weather { delay: (Duration::ZERO, Duration::from_millis(30)), chop: 40, capacity: 300 };
        let mut world = World::new(seed, 1, 1, weather);
        let (raw, conn) = world.connect(1, 0, STRATUM);
        world.write_all(1, raw, &lines(200, 37));
        world.run_until(|world| world.nodes[0].frames.len() == 200);
        assert!(world.nodes[0].lines(conn).iter().enumerate().all(|(i, line)| line.parse() == Ok(i)), "seed {seed}");
    }
}

#[test]
fn a_turn_reads_no_more_than_its_budget_and_the_next_begins_with_who_was_left_out() {
    let mut world = World::new(2, 1, 1, deep());
    let conns: Vec<_> = (0..160).map(|_| world.connect(1, 0, STRATUM)).collect();
    let sent = lines(READ_LINES_BYTES / 64, 64);
    conns.iter().for_each(|&(raw, _)| assert_eq!(world.write(1, raw, &sent), sent.len()));
    let soon = world.now() + Duration::from_millis(1);
    world.net.advance(soon);
    let first = world.turn(0);
    assert_eq!(first.bytes_in, READ_TURN_BYTES);
    let read = |world: &World| conns.iter().filter(|(raw, _)| world.net.unread(1, *raw) == 0).count();
    assert_eq!(read(&world), READ_TURN_BYTES / READ_LINES_BYTES);
    let second = world.turn(0);
    assert_eq!((second.bytes_in, read(&world)), ((160 - 128) * READ_LINES_BYTES, 160));
    world.run_for(secs(1));
    let judged: BTreeSet<ConnId> = world.nodes[0].frames.iter().map(|(conn, _)| *conn).collect();
    assert_eq!(judged.len(), 160, "everybody was reached");
    assert!(world.count(0, "budgets_spent") >= 1);
}

#[test]
fn a_flooder_does_not_hold_up_the_others() {
    let mut world = World::new(3, 1, 1, deep());
    let (flooder, flooding) = world.connect(1, 0, STRATUM);
    let honest: Vec<_> = (0..99).map(|_| world.connect(1, 0, STRATUM)).collect();
    world.write(1, flooder, &lines(100_000, 60));
    world.run_until(|world| world.nodes[0].frames.len() > 50);
    let (turns, before) = (world.nodes[0].turns, world.nodes[0].frames.len());
    honest.iter().for_each(|&(raw, _)| assert_eq!(world.write(1, raw, b"{}\n"), 3));
    let soon = world.now() + Duration::from_millis(1);
    world.net.advance(soon);
    while world.nodes[0].frames.iter().filter(|(conn, _)| *conn != flooding).count() < 99 {
        world.turn(0);
    }
    assert!(world.nodes[0].turns - turns <= 2, "arrived in one turn, judged in it or the next");
    let last = world.nodes[0].frames.iter().rposition(|(conn, _)| *conn != flooding).unwrap();
    let flood = world.nodes[0].frames[before..last].iter().filter(|(conn, _)| *conn == flooding).count();
    assert!(flood <= 2 * FRAMES_A_ROUND, "{flood} of its lines came before the others'");
    // Behind them it has what is left of the turn.
    assert!(world.nodes[0].frames.len() - before <= 99 + 2 * (DISPATCH_TURN_COST / LINE_COST) as usize);
}

#[test]
fn a_claimed_length_takes_no_memory_until_its_bytes_come() {
    let mut world = World::new(4, 1, 1, Weather::fair());
    world.nodes[0].hook = Box::new(|_, input, out| {
        if let Input::Opened { conn, .. } = input {
            out.set_handshaken(*conn);
            out.expect(*conn, Command::ShareHeaders);
        }
    });
    for _ in 0..50 {
        let (raw, _) = world.connect(1, 0, PEER);
        world.write_all(1, raw, &header("shareheaders", SHARE_HEADERS_BYTES_MAX));
    }
    world.run_for(secs(1));
    assert_eq!((world.hubs[0].conns(), world.count(0, "receive_pool")), (50, 0));
}

/// A v1 header that claims so many bytes of payload.
fn header(command: &str, bytes: usize) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(command.as_bytes());
    header.resize(16, 0);
    header.extend_from_slice(&(bytes as u32).to_le_bytes());
    header.extend_from_slice(&[0; 4]);
    assert_eq!(header.len(), HEADER_BYTES);
    header
}

#[test]
fn unfinished_messages_share_one_pool_and_who_finds_it_empty_waits() {
    let mut world = World::new(5, 1, 2, Weather { capacity: 1 << 20, ..Weather::fair() });
    world.nodes[0].hook = Box::new(|_, input, out| {
        if let Input::Opened { conn, .. } = input {
            out.set_handshaken(*conn);
            out.expect(*conn, Command::ShareHeaders);
        }
    });
    let ping = Message::Ping(1).encode(MAGIC).unwrap();
    let unfinished = SHARE_HEADERS_BYTES_MAX - 1;
    let hogs: Vec<ConnId> = (0..RECEIVE_POOL_BYTES / unfinished + 6)
        .map(|_| {
            let (raw, _) = world.connect(1, 0, PEER);
            let message = [ping.bytes().to_vec(), header("shareheaders", SHARE_HEADERS_BYTES_MAX), vec![7; unfinished]].concat();
            assert_eq!(world.write(1, raw, &message), message.len());
            raw
        })
        .collect();
    world.run_for(secs(2));
    assert_eq!(world.count(0, "receive_pool"), RECEIVE_POOL_BYTES as u64);
    assert!(world.count(0, "receive_waited") >= 5);
    // It waits without spinning (each connection's first deadline, put off since, is looked at once), and small messages of others pass.
    let turns = world.count(0, "turns");
    let (miner, conn) = world.connect(2, 0, STRATUM);
    let line = [vec![b'x'; RECEIVE_FREE_BYTES - 10], b"\n".to_vec()].concat();
    world.write_all(2, miner, &line);
    world.run_until(|world| world.nodes[0].frames.iter().any(|(id, _)| *id == conn));
    assert_eq!(world.nodes[0].closed, [], "each has its grace");
    // The slowest of those that hold it make room, and no more of them than it takes.
    world.run_for(POOL_GRACE + secs(10));
    let cut = world.count(0, "receive_cut") as usize;
    assert_eq!((cut, world.nodes[0].closed.len()), (hogs.len() - RECEIVE_POOL_BYTES / (SHARE_HEADERS_BYTES_MAX - RECEIVE_FREE_BYTES), cut));
    assert!(world.count(0, "turns") - turns <= 40 + hogs.len() as u64, "{}", world.count(0, "turns") - turns);
    // The others have the time that their length takes at the slowest rate allowed, and then go too.
    let time = MESSAGE_GRACE + Duration::from_secs(SHARE_HEADERS_BYTES_MAX as u64 / MESSAGE_RATE_MIN);
    world.run_for(time - POOL_GRACE - secs(15));
    assert_eq!(world.nodes[0].closed.len(), cut);
    world.run_for(secs(20));
    assert!(world.nodes[0].closed.iter().all(|(_, why)| matches!(why, CloseReason::Timeout(_))));
    assert_eq!((world.nodes[0].closed.len(), world.count(0, "receive_pool")), (hogs.len(), 0));
}

#[test]
fn an_idle_connection_holds_no_buffer_and_a_finished_message_gives_its_back() {
    let mut world = World::new(6, 1, 1, Weather::fair());
    let (raw, _) = world.connect(1, 0, HTTP);
    let request = [b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 12000\r\n\r\n".to_vec(), vec![b'b'; 12_000]].concat();
    world.write_all(1, raw, &request[..11_000]);
    world.run_for(secs(1));
    assert_eq!(world.count(0, "receive_pool"), 8 << 10, "11,000 bytes are three steps, of which the first is free");
    world.write_all(1, raw, &request[11_000..]);
    world.run_until(|world| !world.nodes[0].frames.is_empty());
    assert_eq!(world.count(0, "receive_pool"), 0);
    assert!(matches!(&world.nodes[0].frames[0].1, Frame::Http(request) if request.body.len() == 12_000));
}

#[test]
fn what_a_connection_holds_beyond_its_own_is_the_pools() {
    let mut world = World::new(9, 1, 1, Weather::fair());
    let (raw, _) = world.connect(1, 0, HTTP);
    let request = [b"POST /x HTTP/1.0\r\ncontent-length: 12000\r\n\r\n".to_vec(), vec![b'b'; 12_000]].concat();
    let mut sent = 0;
    for (held, pooled) in
        [(RECEIVE_FREE_BYTES, 0), (RECEIVE_FREE_BYTES + 1, 1), (2 * RECEIVE_FREE_BYTES, 1), (2 * RECEIVE_FREE_BYTES + 1, 2)]
    {
        world.write_all(1, raw, &request[sent..held]);
        sent = held;
        world.run_for(secs(1));
        assert_eq!(world.count(0, "receive_pool"), (pooled * RECEIVE_FREE_BYTES) as u64, "{held} bytes");
    }
}

#[test]
fn a_paused_connection_is_not_read_and_goes_on_without_another_event() {
    let mut world = World::new(7, 1, 1, Weather::fair());
    let (raw, conn) = world.connect(1, 0, STRATUM);
    world.hubs[0].outlet().pause(conn, true);
    world.write_all(1, raw, &lines(3, 10));
    let turns = world.count(0, "turns");
    world.run_for(secs(60));
    assert_eq!(world.nodes[0].frames.len(), 0);
    assert!(world.count(0, "turns") - turns < 65, "it does not spin");
    assert_eq!(world.nodes[0].closed, [], "the deadline of its first frame stands still");
    world.hubs[0].outlet().pause(conn, false);
    world.run_until(|world| world.nodes[0].frames.len() == 3);
}

#[test]
fn a_stopping_node_reads_and_accepts_nothing_more() {
    let mut world = World::new(8, 1, 1, Weather::fair());
    let (raw, _) = world.connect(1, 0, STRATUM);
    world.hubs[0].outlet().stop_reading();
    world.write_all(1, raw, &lines(3, 10));
    world.dial(1, 0, STRATUM);
    let turns = world.count(0, "turns");
    world.run_for(secs(20));
    assert_eq!((world.nodes[0].frames.len(), world.nodes[0].opened.len()), (0, 1));
    assert!(world.count(0, "turns") - turns < 25, "it does not spin");
}
