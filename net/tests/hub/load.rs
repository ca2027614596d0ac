//! Limits under load: many connections reach them at once, everything is bounded meanwhile, and nothing is lost after.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::common::{HTTP, PEER, STRATUM, World, lines, message, secs};
use rockpool_net::frame::Frame;
use rockpool_net::hub::io::{Input, Mail};
use rockpool_net::hub::tickets::Ticket;
use rockpool_net::id::{ConnId, Lane};
use rockpool_net::limits::{
    ACCEPT_BURST, ACCEPT_PAUSE, DISPATCH_TURN_COST, HTTP_BODY_BYTES_MAX, HTTP_COST, LINE_BYTES_MAX, LINE_COST, READ_CONN_BYTES,
    READ_LINES_BYTES, READ_TURN_BYTES, RECEIVE_POOL_BYTES, ROOM_COST, SHARE_HEADERS_BYTES_MAX, TICKET_BYTES_HTTP, TICKET_BYTES_PEER,
    TICKETS_ALL, TICKETS_BITCOIN, TICKETS_PER_MINER, TICKETS_STRATUM, WRITE_TURN_CALLS, tickets, tickets_per_conn,
};
use rockpool_net::pipes::Weather;
use rockpool_net::wire::message::Command;

/// Frames whose tickets are with a stage, and what was the most at any time.
#[derive(Default)]
struct Stage {
    kept: Vec<(Ticket, usize)>,
    /// Frames and bytes now, and at most, by lane.
    lanes: [[(usize, usize); 2]; Lane::ALL.len()],
    by_conn: BTreeMap<ConnId, usize>,
    /// Frames of one connection, at most.
    most_of_one: usize,
}

impl Stage {
    fn keep(&mut self, ticket: Ticket, bytes: usize) {
        let [now, most] = &mut self.lanes[ticket.lane() as usize];
        *now = (now.0 + 1, now.1 + bytes);
        *most = (most.0.max(now.0), most.1.max(now.1));
        let of_one = self.by_conn.entry(ticket.conn()).or_default();
        *of_one += 1;
        self.most_of_one = self.most_of_one.max(*of_one);
        self.kept.push((ticket, bytes));
    }

    /// Gives a ticket back that it has had, whichever.
    fn give(&mut self, at: usize) -> Ticket {
        let (ticket, bytes) = self.kept.swap_remove(at);
        let [now, _] = &mut self.lanes[ticket.lane() as usize];
        *now = (now.0 - 1, now.1 - bytes);
        *self.by_conn.get_mut(&ticket.conn()).unwrap() -= 1;
        ticket
    }

    fn give_all(&mut self) -> Vec<Ticket> {
        (0..self.kept.len()).map(|_| self.give(0)).collect()
    }

    fn most(&self, lane: Lane) -> (usize, usize) {
        self.lanes[lane as usize][1]
    }
}

/// A world whose only node gives every frame to a stage, and lets peers through without a handshake.
fn staged(seed: u64, weather: Weather) -> (World, Rc<RefCell<Stage>>) {
    let mut world = World::new(seed, 1, 1, weather);
    let stage = Rc::new(RefCell::new(Stage::default()));
    let keep = Rc::clone(&stage);
    world.nodes[0].hook = Box::new(move |_, input, out| match input {
        Input::Frame { frame, .. } => keep.borrow_mut().keep(out.take_ticket().unwrap(), frame.bytes()),
        Input::Opened { conn, lane: Lane::Peer, .. } => {
            out.set_handshaken(*conn);
            (0..9).for_each(|_| out.expect(*conn, Command::ShareHeaders));
        }
        _ => {}
    });
    (world, stage)
}

/// One frame of each lane, the smallest that are any use.
fn small(port: u16) -> Vec<u8> {
    match port {
        PEER => message(Command::Ping, &[7; 8]),
        STRATUM => b"{}\n".to_vec(),
        _ => b"GET / HTTP/1.0\r\n\r\n".to_vec(),
    }
}

#[test]
fn all_lanes_at_their_ends_at_once_and_everything_comes_home() {
    let (mut world, stage) = staged(1, Weather::fair());
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    const EACH: usize = TICKETS_PER_MINER as usize + 8;
    for (port, conns) in [(PEER, 60), (STRATUM, 400), (HTTP, 80)] {
        for _ in 0..conns {
            let (raw, _) = world.connect(1, 0, port);
            world.write_all(1, raw, &small(port).repeat(EACH));
        }
    }
    let mut answered = 0;
    world.run_until(|world| {
        assert!(world.hubs[0].outlet().tickets_out() <= TICKETS_ALL);
        // The stage is slow: it answers a few, in any order, and only when the house is full.
        if world.hubs[0].outlet().tickets_out() == TICKETS_ALL - TICKETS_BITCOIN || answered > 0 {
            let mut stage = stage.borrow_mut();
            for _ in 0..stage.kept.len().min(1 + rng.next_u32() as usize % 200) {
                let at = rng.next_u32() as usize % stage.kept.len();
                let ticket = stage.give(at);
                answered += 1;
                world.mail[0].push_back(Mail { answer: answered, tickets: vec![ticket] });
            }
        }
        world.nodes[0].frames.len() == 540 * EACH && world.hubs[0].outlet().tickets_out() == 0
    });
    let stage = stage.borrow();
    // Bitcoin nodes are none of these: they are dialled.
    for lane in Lane::ALL.into_iter().filter(|lane| *lane != Lane::Bitcoin) {
        assert_eq!(stage.most(lane).0, tickets(lane).0, "{lane:?}");
    }
    assert_eq!((stage.most_of_one, stage.kept.len()), (usize::from(TICKETS_PER_MINER), 0));
    assert_eq!((world.nodes[0].closed.len(), world.hubs[0].inbox(), world.hubs[0].outlet().unsent()), (0, 0, 0));
    assert_eq!(world.count(0, "tickets_peer") + world.count(0, "tickets_stratum") + world.count(0, "tickets_http"), 0);
}

#[test]
fn a_lane_of_large_frames_ends_by_their_bytes_and_the_others_go_on() {
    let body = [format!("POST / HTTP/1.0\r\ncontent-length: {HTTP_BODY_BYTES_MAX}\r\n\r\n").into_bytes(), vec![b'b'; HTTP_BODY_BYTES_MAX]];
    let headers = message(Command::ShareHeaders, &vec![7; SHARE_HEADERS_BYTES_MAX]);
    let cases = [(PEER, headers, TICKET_BYTES_PEER, Lane::Peer), (HTTP, body.concat(), TICKET_BYTES_HTTP, Lane::Http)];
    for (port, said, most, lane) in cases {
        let (mut world, stage) = staged(2, Weather { capacity: 4 << 20, ..Weather::fair() });
        let each = usize::from(tickets_per_conn(lane));
        let conns = 3 * most / said.len() / each;
        for _ in 0..conns {
            let (raw, _) = world.connect(1, 0, port);
            world.write_all(1, raw, &said.repeat(each));
        }
        world.run_for(secs(4));
        let (count, bytes) = stage.borrow().most(lane);
        let largest = stage.borrow().kept.iter().map(|(_, bytes)| *bytes).max().unwrap();
        assert!(bytes >= most && bytes < most + largest, "{lane:?}: {bytes} bytes of {count} frames");
        assert!(count < tickets(lane).0, "the bytes ended it, not the count");
        let (raw, miner) = world.connect(1, 0, STRATUM);
        world.write_all(1, raw, b"hello\n");
        world.run_until(|world| world.nodes[0].frames.iter().any(|(conn, _)| *conn == miner));
        let all = conns * each + 1;
        world.run_until(|world| {
            stage.borrow_mut().give_all().into_iter().for_each(|ticket| world.hubs[0].outlet().home(ticket));
            world.nodes[0].frames.len() == all
        });
        assert_eq!((world.nodes[0].closed.len(), world.hubs[0].outlet().tickets_out()), (0, 0));
    }
}

#[test]
fn a_consumer_that_stops_fills_nothing_but_the_pipes_and_loses_nothing() {
    const CONNS: usize = 300;
    const LINES: usize = 400;
    let (mut world, stage) = staged(3, Weather { capacity: 16 << 10, ..Weather::fair() });
    let conns: Vec<_> = (0..CONNS).map(|_| world.connect(1, 0, STRATUM)).collect();
    let said = lines(LINES, 300);
    let mut sent = vec![0; CONNS];
    let push = |world: &mut World, sent: &mut Vec<usize>| {
        for (sent, &(raw, _)) in sent.iter_mut().zip(&conns) {
            let end = said.len().min(*sent + 4_000);
            *sent += world.write(1, raw, &said[*sent..end]);
        }
    };
    let start = world.now();
    while world.now() < start + secs(5) {
        push(&mut world, &mut sent);
        let soon = world.now() + Duration::from_millis(50);
        world.step(soon);
        assert!(world.hubs[0].inbox() <= tickets(Lane::Stratum).0);
    }
    // Each is read at most once more than it is judged, and then no more: the rest waits with its sender.
    assert!(sent.iter().all(|&sent| sent < said.len()), "every pipe is full");
    assert!(world.count(0, "bytes_in") <= (CONNS * READ_CONN_BYTES) as u64);
    assert_eq!(world.nodes[0].frames.len(), tickets(Lane::Stratum).0);
    let (read, turns) = (world.count(0, "bytes_in"), world.count(0, "turns"));
    world.run_for(secs(5));
    assert_eq!(world.count(0, "bytes_in"), read);
    assert!(world.count(0, "turns") - turns < 8 + CONNS as u64, "it looks once at each first deadline, and does not spin");
    world.run_until(|world| {
        push(world, &mut sent);
        stage.borrow_mut().give_all().into_iter().for_each(|ticket| world.hubs[0].outlet().home(ticket));
        world.nodes[0].frames.len() == CONNS * LINES
    });
    let mut next: BTreeMap<ConnId, usize> = BTreeMap::new();
    for (conn, frame) in &world.nodes[0].frames {
        let Frame::Line(line) = frame else { panic!("{frame:?}") };
        let next = next.entry(*conn).or_default();
        assert_eq!(std::str::from_utf8(line).unwrap().parse(), Ok(*next));
        *next += 1;
    }
    assert_eq!((next.len(), world.nodes[0].closed.len()), (CONNS, 0));
}

#[test]
fn a_reconnect_storm_does_not_hold_up_who_is_there() {
    let mut world = World::new(4, 1, 2, Weather::fair());
    let miners: Vec<_> = (0..100).map(|_| world.connect(1, 0, STRATUM)).collect();
    world.nodes[0].hook = Box::new(|_, input, out| {
        if let Input::Frame { conn, .. } = input {
            out.send_bytes(*conn, b"ok\n".to_vec());
        }
    });
    let mut storm = Vec::new();
    for round in 0..200 {
        for port in [PEER, STRATUM, HTTP] {
            storm.extend((0..2 * ACCEPT_BURST).map(|_| world.dial(2, 0, port)));
        }
        // Half of them leave at once, whether they were let in or not.
        let gone: Vec<ConnId> = storm.drain(..storm.len() / 2).collect();
        gone.into_iter().for_each(|raw| world.close(2, raw));
        miners.iter().for_each(|&(raw, _)| assert_eq!(world.write(1, raw, b"x\n"), 2));
        let soon = world.now() + Duration::from_millis(1);
        world.net.advance(soon);
        let before = (world.count(0, "accepted") + world.count(0, "refused"), world.nodes[0].frames.len());
        world.turn(0);
        let after = (world.count(0, "accepted") + world.count(0, "refused"), world.nodes[0].frames.len());
        assert!(after.0 - before.0 <= 3 * ACCEPT_BURST as u64, "a burst from each listener, no more");
        assert!(round == 0 || after.0 - before.0 == 3 * ACCEPT_BURST as u64, "and no less while they wait");
        assert_eq!(after.1 - before.1, miners.len(), "round {round}: all are judged in the turn in which they spoke");
    }
    world.run_for(secs(1));
    for (raw, conn) in miners {
        assert_eq!(world.nodes[0].why(conn), None);
        assert_eq!(world.read(1, raw).len(), 200 * 3);
    }
}

#[test]
fn without_file_descriptors_who_is_there_is_served() {
    let mut world = World::new(5, 1, 1, Weather::fair());
    let (raw, conn) = world.connect(1, 0, STRATUM);
    let (_, leaving) = world.connect(1, 0, STRATUM);
    world.net.exhaust(0, true);
    for port in [PEER, STRATUM, HTTP] {
        (0..100).for_each(|_| {
            world.dial(1, 0, port);
        });
    }
    world.run_for(secs(1));
    let turns = world.count(0, "turns");
    for line in 1..=20 {
        world.write_all(1, raw, b"x\n");
        world.run_until(|world| world.nodes[0].lines(conn).len() == line);
    }
    world.hubs[0].outlet().close(leaving, rockpool_net::close::CloseReason::Done("makes room"));
    world.run_for(secs(10));
    let pauses = 10_000 / ACCEPT_PAUSE.as_millis() as u64;
    assert!(world.count(0, "turns") - turns <= 3 * pauses + 3 * 20 + 10, "{}", world.count(0, "turns") - turns);
    world.net.exhaust(0, false);
    let from = world.now();
    world.run_until(|world| world.nodes[0].opened.len() == 2 + 300);
    assert!(world.now() - from <= secs(1));
    assert_eq!(world.nodes[0].why(conn), None);
}

#[test]
fn one_connection_is_read_no_further_in_a_turn_than_its_budget() {
    let pings = message(Command::Ping, &[7; 8]).repeat(8 * READ_CONN_BYTES / 32);
    let said = lines(16 * READ_LINES_BYTES / LINE_BYTES_MAX, LINE_BYTES_MAX);
    for (port, said, budget) in [(STRATUM, said, READ_LINES_BYTES), (PEER, pings, READ_CONN_BYTES)] {
        let mut world = World::new(10, 1, 1, Weather { capacity: 1 << 20, ..Weather::fair() });
        world.nodes[0].hook = Box::new(|_, input, out| {
            if let Input::Opened { conn, .. } = input {
                out.set_handshaken(*conn);
            }
        });
        let (raw, _) = world.connect(1, 0, port);
        assert_eq!(world.write(1, raw, &said), said.len());
        let soon = world.now() + Duration::from_millis(1);
        world.net.advance(soon);
        assert_eq!(world.turn(0).bytes_in, budget);
        let mut read = budget;
        world.run_until(|world| {
            assert!(world.reports[0].bytes_in <= budget);
            read += world.reports[0].bytes_in;
            world.net.unread(1, raw) == 0 && world.hubs[0].inbox() == 0
        });
        assert!(read >= said.len(), "{read} bytes");
    }
}

#[test]
fn who_is_read_first_is_drawn_anew_each_turn() {
    // Twice as many as a turn's bytes are enough for, always arriving in the same order: nobody is always first, nobody always last.
    const ROUNDS: usize = 60;
    let each = 2 * READ_TURN_BYTES / READ_LINES_BYTES;
    let mut world = World::new(6, 1, 1, Weather { capacity: 1 << 20, ..Weather::fair() });
    let conns: Vec<ConnId> = (0..each).map(|_| world.connect(1, 0, STRATUM).0).collect();
    let said = lines(READ_LINES_BYTES / LINE_BYTES_MAX, LINE_BYTES_MAX);
    assert_eq!(said.len(), READ_LINES_BYTES);
    let mut early = vec![0; each];
    for _ in 0..ROUNDS {
        conns.iter().for_each(|&raw| assert_eq!(world.write(1, raw, &said), said.len()));
        let soon = world.now() + Duration::from_millis(1);
        world.net.advance(soon);
        assert_eq!(world.turn(0).bytes_in, READ_TURN_BYTES);
        for (early, &raw) in early.iter_mut().zip(&conns) {
            *early += usize::from(world.net.unread(1, raw) == 0);
        }
        world.run_for(secs(1));
    }
    assert_eq!(early.iter().sum::<usize>(), ROUNDS * each / 2);
    // A fair draw gives 30 of 60 each, with a deviation of 4.
    assert!(early.iter().all(|early| (12..=48).contains(early)), "{early:?}");
}

#[test]
fn who_is_written_to_first_is_drawn_anew_each_turn() {
    const ROUNDS: usize = 30;
    let each = 2 * WRITE_TURN_CALLS;
    let mut world = World::with(7, 1, 1, Weather::fair(), crate::common::config(each));
    let conns: Vec<_> = (0..each).map(|_| world.connect(1, 0, STRATUM)).collect();
    conns.iter().for_each(|&(raw, _)| assert_eq!(world.write(1, raw, b"x\n"), 2));
    let mut early = vec![0; each];
    for _ in 0..ROUNDS {
        world.run_for(secs(1));
        conns.iter().for_each(|&(_, conn)| world.hubs[0].outlet().send_bytes(conn, b"x\n".to_vec()));
        assert_eq!(world.turn(0).bytes_out, 2 * WRITE_TURN_CALLS);
        for (early, &(_, conn)) in early.iter_mut().zip(&conns) {
            *early += usize::from(world.net.unread(0, conn) > 0);
        }
        world.turn(0);
        let soon = world.now() + Duration::from_millis(1);
        world.net.advance(soon);
        conns.iter().for_each(|&(raw, _)| drop(world.read(1, raw)));
    }
    assert!(early.iter().all(|early| (1..ROUNDS).contains(early)), "{early:?}");
}

#[test]
fn serving_who_waits_for_room_is_paid_from_the_turns_cost() {
    const WAITING: usize = 20;
    let mut world = World::new(8, 1, 1, Weather { capacity: 8 << 20, ..Weather::fair() });
    let stalled: Vec<_> = (0..WAITING).map(|_| world.connect(1, 0, STRATUM)).collect();
    world.turn(0);
    for &(_, conn) in &stalled {
        world.hubs[0].outlet().send_bytes(conn, vec![1; 300 << 10]);
    }
    world.run_until(|world| world.hubs[0].outlet().unsent() == 0 && !world.nodes[0].rooms.is_empty());
    let told: Vec<usize> = std::iter::from_fn(|| {
        let before = world.nodes[0].rooms.len();
        world.turn(0);
        Some(world.nodes[0].rooms.len() - before).filter(|&told| told > 0)
    })
    .collect();
    let per_turn = (DISPATCH_TURN_COST / ROOM_COST) as usize;
    assert_eq!(told.iter().max(), Some(&per_turn), "{told:?}");
    assert_eq!(world.nodes[0].rooms.len(), WAITING);
}

#[test]
fn a_turn_of_many_kinds_of_frames_ends_at_the_sum_of_their_costs() {
    let mut world = World::new(9, 1, 1, Weather::fair());
    let ports = [HTTP; 60].into_iter().chain([STRATUM; 200]);
    let conns: Vec<_> = ports.map(|port| (port, world.connect(1, 0, port).0)).collect();
    conns.into_iter().for_each(|(port, raw)| assert!(world.write(1, raw, &small(port)) > 0));
    let soon = world.now() + Duration::from_millis(1);
    world.net.advance(soon);
    world.turn(0);
    let cost = |(_, frame): &(ConnId, Frame)| if matches!(frame, Frame::Http(_)) { HTTP_COST } else { LINE_COST };
    let spent: u32 = world.nodes[0].frames.iter().map(cost).sum();
    assert!((DISPATCH_TURN_COST..DISPATCH_TURN_COST + HTTP_COST).contains(&spent), "{spent}");
    assert!(world.turn(0).due > world.now(), "the rest came in one more turn");
    assert_eq!(world.nodes[0].frames.len(), 260);
}

/// Miners whose lane is exhausted pipeline what they like: none of it is hoarded, and a peer's large message still has its room.
#[test]
fn what_waits_for_a_ticket_does_not_fill_the_pool() {
    let mut world = World::new(31, 1, 2, Weather { capacity: 1 << 20, ..Weather::fair() });
    let kept = Rc::new(RefCell::new(Vec::new()));
    let keep = Rc::clone(&kept);
    world.nodes[0].hook = Box::new(move |_, input, out| {
        if matches!(input, Input::Frame { frame: Frame::Line(_), .. }) {
            keep.borrow_mut().extend(out.take_ticket());
        }
    });
    let count = RECEIVE_POOL_BYTES / READ_CONN_BYTES + 20;
    for _ in 0..count {
        let (raw, _) = world.connect(1, 0, STRATUM);
        world.write(1, raw, &lines(READ_CONN_BYTES / 60, 60));
    }
    world.run_for(secs(1));
    assert_eq!(kept.borrow().len(), TICKETS_STRATUM.min(count * usize::from(TICKETS_PER_MINER)));
    assert!(world.count(0, "receive_pool") <= (RECEIVE_POOL_BYTES / 4) as u64, "{}", world.count(0, "receive_pool"));
}
