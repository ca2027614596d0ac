//! How connections begin and end: told once, with the reason.

use std::time::Duration;

use crate::common::{HTTP, PEER, STRATUM, World, config, lines, secs};
use rockpool_net::close::CloseReason;
use rockpool_net::frame::Frame;
use rockpool_net::hub::HubConfig;
use rockpool_net::hub::io::{Input, Mail};
use rockpool_net::id::Lane;
use rockpool_net::limits::{BITCOIN_PEERS_MAX, DIAL_MAX, LINE_BYTES_MAX, MESSAGE_GRACE, TICKETS_PER_MINER};
use rockpool_net::pipes::{Net, Weather};
use rockpool_net::transport::Wrapping;

#[test]
fn a_silent_connection_has_until_its_first_frame_and_bytes_do_not_put_that_off() {
    let mut world = World::new(1, 1, 1, Weather::fair());
    let (_, silent) = world.connect(1, 0, STRATUM);
    let (loris, dripping) = world.connect(1, 0, STRATUM);
    for _ in 0..9 {
        world.run_for(secs(1));
        world.write_all(1, loris, b"{");
    }
    assert_eq!(world.nodes[0].closed, []);
    world.run_for(secs(2));
    for conn in [silent, dripping] {
        assert_eq!(world.nodes[0].why(conn), Some(&CloseReason::Timeout("no complete first frame")));
    }
    assert!(world.is_ended(1, loris));
}

#[test]
fn a_message_has_to_end_in_time() {
    let mut world = World::new(2, 1, 1, Weather::fair());
    let (raw, conn) = world.connect(1, 0, STRATUM);
    let (_, idle) = {
        let (raw, idle) = world.connect(1, 0, STRATUM);
        world.write_all(1, raw, b"hello\n");
        (raw, idle)
    };
    world.write_all(1, raw, b"hello\n{");
    let start = world.now();
    while world.now() < start + MESSAGE_GRACE - secs(1) {
        world.run_for(secs(1));
        world.write_all(1, raw, b"{");
    }
    assert_eq!(world.nodes[0].closed, []);
    world.run_for(secs(3));
    assert_eq!(world.nodes[0].why(conn), Some(&CloseReason::Timeout("a message was not finished")));
    assert_eq!(world.nodes[0].why(idle), None, "who has said all it began may be silent: that is the session's to judge");
}

#[test]
fn bytes_that_are_no_frame_end_their_connection_alone() {
    let mut world = World::new(3, 1, 1, Weather::fair());
    let (long, a) = world.connect(1, 0, STRATUM);
    let (foreign, b) = world.connect(1, 0, PEER);
    let (fine, c) = world.connect(1, 0, STRATUM);
    world.write_all(1, long, &[b'x'; LINE_BYTES_MAX + 1]);
    world.write_all(1, foreign, b"\xf9\xbe\xb4\xd9version\0\0\0\0\x00123456789");
    world.write_all(1, fine, b"ok\n");
    world.run_for(secs(1));
    for conn in [a, b] {
        let why = world.nodes[0].why(conn).unwrap();
        assert!(matches!(why, CloseReason::BadFrame(_)) && why.is_fault(), "{why}");
    }
    assert_eq!((world.nodes[0].why(c), world.nodes[0].lines(c)), (None, vec!["ok".to_string()]));
    assert_eq!(world.count(0, "closed_bad_frame"), 2);
}

#[test]
fn who_says_all_and_closes_is_heard_and_answered() {
    let mut world = World::new(4, 1, 1, Weather::fair());
    // The answers come from a stage, a while later.
    world.nodes[0].hook = Box::new(move |_, input, out| {
        if let Input::Frame { conn, frame: Frame::Line(line) } = input {
            out.send_bytes(*conn, line.to_vec());
        }
    });
    let (raw, conn) = world.connect(1, 0, STRATUM);
    let said = lines(3 * usize::from(TICKETS_PER_MINER), 20);
    assert_eq!(world.write(1, raw, &said), said.len());
    world.close(1, raw);
    world.run_for(secs(1));
    assert_eq!(world.nodes[0].lines(conn).len(), 3 * usize::from(TICKETS_PER_MINER));
    let why = world.nodes[0].why(conn);
    assert!(matches!(why, Some(CloseReason::Remote | CloseReason::Socket(_))), "{why:?}");
    assert_eq!(world.hubs[0].conns(), 0);
}

#[test]
fn an_ended_connection_waits_for_answers_that_are_under_way() {
    let mut world = World::new(5, 1, 1, Weather::fair());
    let kept = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let keep = std::rc::Rc::clone(&kept);
    world.nodes[0].hook = Box::new(move |_, input, out| {
        if matches!(input, Input::Frame { .. }) {
            keep.borrow_mut().extend(out.take_ticket());
        }
    });
    let (raw, conn) = world.connect(1, 0, STRATUM);
    assert_eq!(world.write(1, raw, b"a\nb\n"), 4);
    world.close(1, raw);
    world.run_for(secs(3));
    assert_eq!(world.nodes[0].why(conn), None);
    let tickets = std::mem::take(&mut *kept.borrow_mut());
    assert_eq!(tickets.len(), 2);
    world.mail[0].push_back(Mail { answer: 1, tickets });
    world.run_until(|world| world.nodes[0].why(conn) == Some(&CloseReason::Remote));
}

#[test]
fn a_reset_and_a_close_of_our_own_are_told_once() {
    let mut world = World::new(6, 1, 1, Weather::fair());
    let (_, reset) = world.connect(1, 0, STRATUM);
    assert_eq!(world.net.reset(0, 1), 1);
    world.run_until(|world| world.nodes[0].why(reset).is_some());
    assert!(matches!(world.nodes[0].why(reset), Some(CloseReason::Socket(_))));

    let (raw, ours) = world.connect(1, 0, STRATUM);
    world.nodes[0].hook = Box::new(|_, input, out| {
        if let Input::Frame { conn, .. } = input {
            out.close(*conn, CloseReason::Misbehaviour("first".into()));
            out.close(*conn, CloseReason::Done("second"));
            out.send_bytes(*conn, b"lost".to_vec());
        }
    });
    world.write_all(1, raw, b"x\ny\nz\n");
    world.run_for(secs(2));
    assert_eq!(world.nodes[0].why(ours), Some(&CloseReason::Misbehaviour("first".into())));
    assert_eq!((world.nodes[0].frames.len(), world.count(0, "frames_dropped")), (2 - 1, 2), "what came behind is not judged");
    assert_eq!((world.read(1, raw), world.hubs[0].outlet().tickets_out()), (vec![], 0));
}

#[test]
fn dials_end_in_opened_or_closed() {
    let mut world = World::new(7, 4, 0, Weather::fair());
    world.net.refuse(2, true);
    world.net.partition(0, 3, true);
    let out = world.hubs[0].outlet();
    let [good, refused, lost, cancelled] = [1, 2, 3, 3].map(|host| out.dial(Lane::Peer, Net::addr(host, PEER), Wrapping::V1).unwrap());
    let nowhere = out.dial(Lane::Peer, "192.0.2.1:9".parse().unwrap(), Wrapping::V1).unwrap();
    out.send_bytes(good, b"early".to_vec());
    out.close(cancelled, CloseReason::Done("changed our mind"));
    world.run_for(secs(1));
    assert_eq!((world.nodes[0].opened.as_slice(), world.nodes[1].opened.len()), ([good].as_slice(), 1));
    assert_eq!(world.count(1, "bytes_in"), 5, "what was sent before it was open waits for that");
    for conn in [refused, nowhere] {
        assert!(matches!(world.nodes[0].why(conn), Some(CloseReason::Dial(_))));
    }
    assert_eq!(world.nodes[0].why(cancelled), Some(&CloseReason::Done("changed our mind")));
    assert_eq!(world.nodes[0].why(lost), None);
    world.run_for(DIAL_MAX);
    assert_eq!(world.nodes[0].why(lost), Some(&CloseReason::Dial("no answer in time".into())));
}

#[test]
fn dials_are_bounded_and_a_slot_comes_back() {
    let config = HubConfig { bitcoin_dials_max: BITCOIN_PEERS_MAX, ..config(1_000) };
    let most = config.dials_max;
    let mut world = World::with(8, 2, 0, Weather::fair(), config);
    let addr = Net::addr(1, PEER);
    let dialled: Vec<_> = (0..most).map(|_| world.hubs[0].outlet().dial(Lane::Peer, addr, Wrapping::V1).unwrap()).collect();
    assert!(matches!(world.hubs[0].outlet().dial(Lane::Peer, addr, Wrapping::V1), Err(CloseReason::Full(_))));
    world.run_until(|world| world.nodes[0].opened.len() == most);
    world.hubs[0].outlet().close(dialled[0], CloseReason::Done("test"));
    world.run_until(|world| world.nodes[0].why(dialled[0]).is_some());
    world.hubs[0].outlet().dial(Lane::Peer, addr, Wrapping::V1).unwrap();
    // Bitcoin nodes have slots of their own, and no more.
    assert!((0..BITCOIN_PEERS_MAX).all(|_| world.hubs[0].outlet().dial(Lane::Bitcoin, addr, Wrapping::V1).is_ok()));
    assert!(matches!(world.hubs[0].outlet().dial(Lane::Bitcoin, addr, Wrapping::V1), Err(CloseReason::Full(_))));
}

#[test]
fn a_browser_at_the_miners_port_is_understood() {
    let mut world = World::new(9, 1, 1, Weather { chop: 3, ..Weather::fair() });
    let (raw, conn) = world.connect(1, 0, STRATUM);
    world.write_all(1, raw, b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n");
    world.run_until(|world| !world.nodes[0].frames.is_empty());
    assert!(matches!(&world.nodes[0].frames[0], (id, Frame::Http(request)) if *id == conn && &*request.path == "/hello"));
    let (raw, _) = world.connect(1, 0, HTTP);
    world.write_all(1, raw, b"GET / HTTP/1.0\r\n\r\n");
    world.run_until(|world| world.nodes[0].frames.len() == 2);
    world.run_for(Duration::from_secs(1));
}
