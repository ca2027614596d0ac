//! Writing: order, back-pressure, slow readers, and that two full sides go on.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{HTTP, STRATUM, World, config, lines, secs};
use rockpool_net::close::CloseReason;
use rockpool_net::frame::Frame;
use rockpool_net::hub::HubConfig;
use rockpool_net::hub::io::Input;
use rockpool_net::id::{ConnId, Lane};
use rockpool_net::limits::{
    BITCOIN_BLOCK_BYTES_MAX, BITCOIN_PEERS_MAX, DISPATCH_TURN_COST, FLUSH_MAX, HEADER_BYTES, LINE_COST, OUTBOX_BITCOIN_BYTES,
    OUTBOX_HARD_BYTES, OUTBOX_HTTP_BYTES, OUTBOX_HTTP_SUM_BYTES, OUTBOX_SOFT_BYTES, OUTBOX_STALL_MAX, OUTBOX_SUM_BYTES, TICKETS_PER_MINER,
    WRITE_CONN_BYTES, WRITE_SLICES, WRITE_TURN_CALLS,
};
use rockpool_net::payload::Payload;
use rockpool_net::pipes::{Net, Weather};
use rockpool_net::transport::Wrapping;

#[test]
fn bytes_arrive_in_order_through_any_pipe() {
    for seed in 0..20 {
        let weather = Weather { delay: (Duration::ZERO, Duration::from_millis(9)), chop: 50, capacity: 500 };
        let mut world = World::new(seed, 1, 1, weather);
        let (raw, conn) = world.connect(1, 0, STRATUM);
        let shared = Arc::new(Payload::new(lines(20, 33)));
        let mut want = Vec::new();
        for i in 0..20u8 {
            world.hubs[0].outlet().send_bytes(conn, vec![i; 10 * usize::from(i)]);
            world.hubs[0].outlet().send(conn, Arc::clone(&shared));
            want.extend(vec![i; 10 * usize::from(i)]);
            want.extend_from_slice(shared.bytes());
        }
        let mut got = Vec::new();
        world.run_until(|world| {
            got.extend(world.read(1, raw));
            got.len() == want.len()
        });
        assert!(got == want, "seed {seed}");
        assert_eq!((world.hubs[0].outlet().unsent(), Arc::strong_count(&shared)), (0, 1));
    }
}

#[test]
fn two_full_sides_do_not_wait_for_each_other() {
    // Each side says more than both pipes hold, at once, and neither reads before it has written all it can.
    let weather = Weather { capacity: 64 << 10, ..Weather::fair() };
    let mut world = World::new(1, 2, 0, weather);
    let said = lines(9_000, 100);
    for node in &mut world.nodes {
        let said = said.clone();
        node.hook = Box::new(move |_, input, out| {
            if let Input::Opened { conn, .. } = input {
                out.send_bytes(*conn, said.clone());
            }
        });
    }
    let addr = Net::addr(1, STRATUM);
    world.hubs[0].outlet().dial(Lane::Stratum, addr, Wrapping::V1).unwrap();
    world.run_until(|world| world.nodes.iter().all(|node| node.frames.len() == 9_000));
    assert!(world.nodes.iter().all(|node| node.closed.is_empty()));
}

#[test]
fn who_sent_something_but_not_all_is_not_read_next_turn() {
    let mut world = World::new(2, 1, 1, Weather { capacity: 1_000, ..Weather::fair() });
    let (raw, conn) = world.connect(1, 0, STRATUM);
    world.hubs[0].outlet().send_bytes(conn, vec![b'x'; 5_000]);
    assert_eq!(world.write(1, raw, b"a\n"), 2);
    let mut reads = vec![];
    // The first turn writes a part; by the next the line has arrived.
    world.turn(0);
    let soon = world.now() + Duration::from_millis(2);
    world.net.advance(soon);
    for _ in 0..2 {
        world.turn(0);
        reads.push(world.nodes[0].frames.len());
    }
    assert_eq!(reads, [0, 1], "left out for one turn, no more");
}

#[test]
fn who_could_send_nothing_is_read_next_turn() {
    let mut world = World::new(12, 1, 1, Weather { capacity: 1_000, ..Weather::fair() });
    let (raw, conn) = world.connect(1, 0, STRATUM);
    // Fills the pipe to the brim, so that the next write finds no room at all.
    world.hubs[0].outlet().send_bytes(conn, vec![b'x'; 1_000]);
    assert_eq!(world.turn(0).bytes_out, 1_000);
    world.hubs[0].outlet().send_bytes(conn, vec![b'y'; 10]);
    assert_eq!(world.turn(0).bytes_out, 0);
    assert_eq!(world.write(1, raw, b"b\n"), 2);
    let soon = world.now() + Duration::from_millis(2);
    world.net.advance(soon);
    world.turn(0);
    assert_eq!(world.nodes[0].frames.len(), 1);
}

#[test]
fn a_reader_that_never_reads_is_cut_at_the_hard_cap() {
    let mut world = World::new(3, 1, 1, Weather::fair());
    let (_, conn) = world.connect(1, 0, STRATUM);
    let chunk = Arc::new(Payload::new(vec![7; 64 << 10]));
    let sent = Rc::new(Cell::new(0));
    let count = Rc::clone(&sent);
    world.nodes[0].hook = Box::new(move |now, input, out| {
        if matches!(input, Input::Wake) {
            out.send(conn, Arc::clone(&chunk));
            count.set(count.get() + chunk.bytes().len());
            out.set_wake(Some(now.mono + Duration::from_millis(100)));
        }
    });
    world.hubs[0].outlet().set_wake(Some(secs(0)));
    world.run_until(|world| !world.nodes[0].closed.is_empty());
    assert!(matches!(world.nodes[0].why(conn), Some(CloseReason::SlowReader(bytes)) if *bytes > OUTBOX_HARD_BYTES));
    let pipe = Weather::fair().capacity;
    assert!(sent.get() > OUTBOX_HARD_BYTES + pipe && sent.get() <= OUTBOX_HARD_BYTES + pipe + (128 << 10), "{}", sent.get());
    assert_eq!(world.hubs[0].outlet().unsent(), 0);
}

#[test]
fn an_outbox_that_makes_no_progress_ends_its_connection() {
    let mut world = World::new(4, 1, 2, Weather { capacity: 10_000, ..Weather::fair() });
    let (_, stuck) = world.connect(1, 0, STRATUM);
    let (raw, slow) = world.connect(2, 0, STRATUM);
    let start = world.now();
    world.nodes[0].hook = Box::new(|_, _, _| {});
    for conn in [stuck, slow] {
        // Both have spoken, so that no other deadline runs.
        world.hubs[0].outlet().send_bytes(conn, vec![1; 100_000]);
    }
    world.write_all(2, raw, b"x\n");
    // One reads a little now and then: that is progress.
    for _ in 0..4 {
        world.run_for(OUTBOX_STALL_MAX / 2);
        let mut few = [0; 12_000];
        let _ = rockpool_net::hub::io::Io::read(&mut world.net.io(2, &mut world.mail[2]), raw, &mut few);
    }
    assert!(matches!(world.nodes[0].why(stuck), Some(CloseReason::Timeout(_))));
    assert_eq!(world.nodes[0].why(slow), None);
    assert!(world.now() - start > OUTBOX_STALL_MAX);
    world.run_for(OUTBOX_STALL_MAX + secs(2));
    assert!(matches!(world.nodes[0].why(slow), Some(CloseReason::Timeout("nothing left the outbox in 30 s"))));
}

#[test]
fn room_ends_at_the_soft_cap_and_is_told_when_it_is_back() {
    let mut world = World::new(5, 1, 1, Weather { capacity: 10_000, ..Weather::fair() });
    let (raw, conn) = world.connect(1, 0, STRATUM);
    let out = world.hubs[0].outlet();
    out.send_bytes(conn, vec![1; OUTBOX_SOFT_BYTES - 1]);
    assert!(out.room(conn));
    out.send_bytes(conn, vec![1; 1]);
    assert!(!out.room(conn));
    out.send_bytes(conn, vec![1; 50_000]);
    let mut got = 0;
    world.run_until(|world| {
        got += world.read(1, raw).len();
        assert_eq!(world.hubs[0].outlet().room(conn), world.hubs[0].outlet().unsent() < OUTBOX_SOFT_BYTES);
        !world.nodes[0].rooms.is_empty()
    });
    assert!(got >= 50_000);
    world.run_until(|world| {
        got += world.read(1, raw).len();
        got == OUTBOX_SOFT_BYTES + 50_000
    });
    assert_eq!(world.nodes[0].rooms, [conn], "told once");
}

#[test]
fn over_the_sum_of_all_outboxes_the_largest_goes_first() {
    let mut world = World::new(6, 1, 1, Weather { capacity: 1_000, ..Weather::fair() });
    let conns: Vec<ConnId> = (0..OUTBOX_SUM_BYTES / OUTBOX_HARD_BYTES + 4).map(|_| world.connect(1, 0, STRATUM).1).collect();
    let shared = Arc::new(Payload::new(vec![1; OUTBOX_HARD_BYTES - 10_000]));
    let (largest, rest) = conns.split_first().unwrap();
    world.hubs[0].outlet().send_bytes(*largest, vec![1; OUTBOX_HARD_BYTES - 10]);
    let out = world.hubs[0].outlet();
    for &conn in rest {
        out.send(conn, Arc::clone(&shared));
        assert!(out.unsent() <= OUTBOX_SUM_BYTES);
    }
    world.run_until(|world| world.nodes[0].closed.len() >= 2);
    assert_eq!(world.nodes[0].closed[0].0, *largest);
    assert_eq!(world.count(0, "outbox_cut"), world.nodes[0].closed.len() as u64);
}

#[test]
fn browsers_that_read_nothing_push_out_each_other_and_nobody_else() {
    let mut world = World::new(6, 2, 1, Weather { capacity: 1_000, ..Weather::fair() });
    let miner = world.connect(1, 0, STRATUM).1;
    let browsers: Vec<ConnId> = (0..OUTBOX_HTTP_SUM_BYTES / OUTBOX_HTTP_BYTES + 4).map(|_| world.connect(1, 0, HTTP).1).collect();
    let out = world.hubs[0].outlet();
    out.send_bytes(miner, vec![1; OUTBOX_HARD_BYTES - 10]);
    let others = out.unsent();
    let answer = Arc::new(Payload::new(vec![1; OUTBOX_HTTP_BYTES - 10_000]));
    out.send_bytes(browsers[0], vec![1; OUTBOX_HTTP_BYTES - 10]);
    for &browser in &browsers[1..] {
        out.send(browser, Arc::clone(&answer));
        assert!(out.unsent() - others <= OUTBOX_HTTP_SUM_BYTES);
    }
    assert_eq!(out.unread(browsers[1]), answer.bytes().len());
    out.send_bytes(browsers[1], vec![1; 10_001]);
    world.run_until(|world| world.nodes[0].closed.len() >= 2);
    let closed = &world.nodes[0].closed;
    assert!(closed.iter().all(|(conn, _)| browsers.contains(conn)) && closed.iter().any(|(conn, _)| *conn == browsers[0]), "{closed:?}");
    assert!(matches!(world.nodes[0].why(browsers[1]), Some(CloseReason::SlowReader(bytes)) if *bytes > OUTBOX_HTTP_BYTES));
}

#[test]
fn blocks_for_bitcoin_nodes_wait_beside_the_sum() {
    let config = HubConfig { bitcoin_dials_max: BITCOIN_PEERS_MAX, ..config(1_000) };
    let mut world = World::with(6, 2, 1, Weather { capacity: 1_000, ..Weather::fair() }, config);
    let nodes: Vec<ConnId> =
        (0..BITCOIN_PEERS_MAX).map(|_| world.hubs[0].outlet().dial(Lane::Bitcoin, Net::addr(1, STRATUM), Wrapping::V1).unwrap()).collect();
    world.run_until(|world| world.nodes[0].opened.len() == nodes.len());
    let conns: Vec<ConnId> = (0..OUTBOX_SUM_BYTES / OUTBOX_HARD_BYTES + 4).map(|_| world.connect(2, 0, STRATUM).1).collect();
    let out = world.hubs[0].outlet();
    let block = Arc::new(Payload::new(vec![1; BITCOIN_BLOCK_BYTES_MAX + HEADER_BYTES]));
    (0..2).for_each(|_| nodes.iter().for_each(|&node| out.send(node, Arc::clone(&block))));
    let blocks = out.unsent();
    assert!(blocks > OUTBOX_SUM_BYTES && Arc::strong_count(&block) == 1 + 2 * nodes.len(), "{blocks}");
    let piece = Arc::new(Payload::new(vec![1; OUTBOX_HARD_BYTES - 10]));
    for &conn in &conns {
        out.send(conn, Arc::clone(&piece));
        assert!(out.unsent() - blocks <= OUTBOX_SUM_BYTES);
    }
    world.run_until(|world| !world.nodes[0].closed.is_empty());
    assert!(nodes.iter().all(|&node| world.nodes[0].why(node).is_none()), "they are not cut for what others do not read");
    // But for what they do not read themselves.
    world.hubs[0].outlet().send_bytes(nodes[0], vec![1; OUTBOX_BITCOIN_BYTES / 2]);
    world.run_until(|world| world.nodes[0].why(nodes[0]).is_some());
    assert!(matches!(world.nodes[0].why(nodes[0]), Some(CloseReason::SlowReader(bytes)) if *bytes > OUTBOX_BITCOIN_BYTES));
}

#[test]
fn writes_keep_to_their_budgets_and_nobody_is_forgotten() {
    let mut world = World::new(7, 1, 1, Weather { capacity: 16 << 20, ..Weather::fair() });
    let conns: Vec<_> = (0..600).map(|_| world.connect(1, 0, STRATUM)).collect();
    world.turn(0);
    conns.iter().for_each(|&(_, conn)| world.hubs[0].outlet().send_bytes(conn, vec![1; 100]));
    let before = world.count(0, "writes");
    let report = world.turn(0);
    assert_eq!(world.count(0, "writes") - before, WRITE_TURN_CALLS as u64);
    assert_eq!(report.bytes_out, 100 * WRITE_TURN_CALLS);
    assert!(report.due <= world.now(), "the rest is to be written now");
    assert_eq!(world.turn(0).bytes_out, 100 * (600 - WRITE_TURN_CALLS));
    // Many small pieces cost as many calls as they take.
    let piece = Arc::new(Payload::new([1]));
    for &(_, conn) in &conns {
        (0..3 * WRITE_SLICES).for_each(|_| world.hubs[0].outlet().send(conn, Arc::clone(&piece)));
    }
    assert_eq!(world.turn(0).bytes_out, WRITE_SLICES * WRITE_TURN_CALLS);
    world.run_until(|world| world.hubs[0].outlet().unsent() == 0);
    world.hubs[0].outlet().send_bytes(conns[0].1, vec![2; 3 * WRITE_CONN_BYTES / 2]);
    assert_eq!(world.turn(0).bytes_out, WRITE_CONN_BYTES);
    assert_eq!(world.turn(0).bytes_out, WRITE_CONN_BYTES / 2);
}

#[test]
fn a_farewell_is_flushed_before_the_end_and_not_waited_for_without_end() {
    let mut world = World::new(8, 1, 2, Weather { capacity: 5_000, ..Weather::fair() });
    let (raw, conn) = world.connect(1, 0, STRATUM);
    let (_, deaf) = world.connect(2, 0, STRATUM);
    for conn in [conn, deaf] {
        let out = world.hubs[0].outlet();
        out.send_bytes(conn, vec![b'f'; 20_000]);
        out.close_after_flush(conn, CloseReason::Done("said all"));
        out.send_bytes(conn, b"never sent".to_vec());
    }
    world.write_all(1, raw, b"never read\n");
    let mut got = Vec::new();
    world.run_until(|world| {
        got.extend(world.read(1, raw));
        world.is_ended(1, raw)
    });
    assert_eq!(world.nodes[0].why(conn), None, "the other side may take its time to end");
    world.close(1, raw);
    world.run_for(secs(1));
    assert!(got == vec![b'f'; 20_000], "{} bytes", got.len());
    assert_eq!(world.nodes[0].why(conn), Some(&CloseReason::Done("said all")));
    assert_eq!((world.nodes[0].why(deaf), world.nodes[0].frames.len()), (None, 0));
    world.run_for(FLUSH_MAX + secs(1));
    assert_eq!(world.nodes[0].why(deaf), Some(&CloseReason::Done("said all")));
}

#[test]
fn answers_to_what_came_together_leave_together_and_wait_for_no_stage() {
    let mut world = World::new(11, 1, 1, Weather::fair());
    let kept = Rc::new(RefCell::new(Vec::new()));
    let keep = Rc::clone(&kept);
    world.nodes[0].hook = Box::new(move |_, input, out| {
        let Input::Frame { conn, frame: Frame::Line(line) } = input else { return };
        out.send_bytes(*conn, b"ok\n".to_vec());
        if line.starts_with(b"keep") {
            keep.borrow_mut().extend(out.take_ticket());
        }
    });
    let (raw, conn) = world.connect(1, 0, STRATUM);
    let before = world.count(0, "writes");
    let several_turns = 2 * (DISPATCH_TURN_COST / LINE_COST) as usize;
    world.write_all(1, raw, &b"x\n".repeat(several_turns + 9));
    world.run_for(secs(1));
    assert_eq!(world.nodes[0].lines(conn).len(), several_turns + 9);
    assert_eq!((world.read(1, raw).len(), world.count(0, "writes") - before), (3 * (several_turns + 9), 1));
    // A stage holds all its tickets: its other lines wait, what was answered does not.
    world.write_all(1, raw, &b"keep\n".repeat(usize::from(TICKETS_PER_MINER) + 5));
    world.run_for(secs(1));
    assert_eq!(kept.borrow().len(), usize::from(TICKETS_PER_MINER));
    assert_eq!(world.read(1, raw).len(), 3 * usize::from(TICKETS_PER_MINER));
    kept.borrow_mut().drain(..).for_each(|ticket| world.hubs[0].outlet().home(ticket));
    world.run_for(secs(1));
    assert_eq!(world.nodes[0].lines(conn).len(), several_turns + 9 + usize::from(TICKETS_PER_MINER) + 5);
}
