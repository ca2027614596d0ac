//! BIP324 between two hubs, and with peers of the crate's own making, the ill-behaved among them.

use std::time::Duration;

use bip324::{PacketType, Role};
use rockpool_net::close::CloseReason;
use rockpool_net::frame::Frame;
use rockpool_net::hub::io::{Input, Io};
use rockpool_net::id::{ConnId, Lane};
use rockpool_net::limits::{
    DIAL_MAX, READ_TURN_BYTES, SHARE_HEADERS_BYTES_MAX, UNASKED_BYTES_MAX, V1_PREFIX_BYTES, V2_CALL_BYTES, V2_GARBAGE_MAX, V2_GARBAGE_OURS,
    V2_HELLO_BYTES_MAX, V2_KEY_BYTES, V2_KEYS_A_TURN, V2_LENGTH_BYTES, V2_PACKET_EXTRA, V2_SCAN_BYTES, V2_SKIP_COST, V2_SKIPS_A_ROUND,
    V2_TAG_BYTES, V2_TERMINATOR_BYTES, V2_TRIES, V2_TYPE_BYTES, VERSION_BYTES_MAX, WRITE_CONN_BYTES, WRITE_TURN_CALLS,
};
use rockpool_net::pipes::{Net, Weather};
use rockpool_net::transport::Wrapping;
use rockpool_net::wire::message::Command;

use crate::common::{MAGIC, PEER, World, message, secs};
use crate::far::Far;

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Says `version` and `verack` as sessions would, host 0 first, and echoes pings.
fn polite(world: &mut World) {
    for (host, node) in world.nodes.iter_mut().enumerate() {
        node.hook = Box::new(move |_, input, out| match input {
            Input::Opened { conn, listener: None, .. } => out.send_bytes(*conn, message(Command::Version, &[7; 90])),
            Input::Frame { conn, frame: Frame::Message { command: Command::Version, .. } } => {
                if host == 1 {
                    out.send_copy(*conn, &message(Command::Version, &[8; 91]));
                }
                out.send_copy(*conn, &message(Command::Verack, &[]));
            }
            Input::Frame { conn, frame: Frame::Message { command: Command::Ping, payload, .. } } => {
                out.send_copy(*conn, &message(Command::Pong, payload));
            }
            _ => {}
        });
    }
}

/// Commands and payloads of a connection.
fn heard(world: &World, host: usize, conn: ConnId) -> Vec<(Command, Vec<u8>)> {
    let part = |frame: &Frame| match frame {
        Frame::Message { command, payload, .. } => (*command, payload.to_vec()),
        other => panic!("{other:?}"),
    };
    world.nodes[host].frames.iter().filter(|(id, _)| *id == conn).map(|(_, frame)| part(frame)).collect()
}

#[test]
fn two_hubs_speak_v2_however_the_bytes_are_cut() {
    for (seed, chop) in [(1, usize::MAX), (2, 1), (3, 7), (4, 100)] {
        let mut world = World::new(seed, 2, 0, Weather { chop, ..Weather::fair() });
        polite(&mut world);
        let ours = world.hubs[0].outlet().dial(Lane::Peer, Net::addr(1, PEER), Wrapping::V2).unwrap();
        world.run_until(|world| heard(world, 0, ours).len() == 2);
        let theirs = world.nodes[1].opened[0];
        for (host, conn) in [(0, ours), (1, theirs)] {
            assert_eq!(world.hubs[host].outlet().wrapping(conn), Some(Wrapping::V2));
        }
        for n in 0..600u64 {
            world.hubs[0].outlet().send_bytes(ours, message(Command::Ping, &n.to_le_bytes()));
        }
        let large = vec![9; if chop < 100 { 5_000 } else { SHARE_HEADERS_BYTES_MAX }];
        world.hubs[0].outlet().expect(ours, Command::ShareHeaders);
        world.hubs[1].outlet().send_bytes(theirs, message(Command::ShareHeaders, &large));
        world.run_until(|world| heard(world, 0, ours).len() == 603);
        let got = heard(&world, 0, ours);
        let pongs: Vec<_> = got.iter().filter(|(command, _)| *command == Command::Pong).map(|(_, payload)| payload.clone()).collect();
        assert_eq!(pongs, (0..600u64).map(|n| n.to_le_bytes().to_vec()).collect::<Vec<_>>(), "over two changes of keys, chop {chop}");
        assert!(got.contains(&(Command::ShareHeaders, large)));
        assert_eq!([0, 1].map(|host| (world.count(host, "v2_opened"), world.count(host, "v2_failed"))), [(1, 0); 2]);
        assert_eq!((world.nodes[0].why(ours), world.nodes[1].why(theirs)), (None, None));
    }
}

/// A raw side and the hub's name for it, its key sent.
fn greet(world: &mut World, far: &Far) -> (ConnId, ConnId) {
    let (raw, conn) = world.connect(1, 0, PEER);
    world.write_all(1, raw, &far.hello);
    (raw, conn)
}

/// Lets a raw side do its part of the handshake. Returns what it says last, which is not written.
fn key(world: &mut World, raw: ConnId, far: &mut Far) -> Vec<u8> {
    let mut says = vec![];
    world.run_until(|world| {
        let bytes = world.read(1, raw);
        let (more, _) = far.feed(&bytes);
        says.extend(more);
        far.is_ready()
    });
    says
}

/// A raw side through with the handshake.
fn join(world: &mut World, mut far: Far) -> (ConnId, ConnId, Far) {
    let (raw, conn) = greet(world, &far);
    let says = key(world, raw, &mut far);
    world.write_all(1, raw, &says);
    world.run_until(|world| world.hubs[0].outlet().wrapping(conn) == Some(Wrapping::V2));
    (raw, conn, far)
}

fn initiator(garbage: &[u8]) -> Far {
    Far::new(Role::Initiator, MAGIC, 7, garbage)
}

fn why(world: &World, conn: ConnId) -> String {
    world.nodes[0].why(conn).map_or("open".into(), |why| format!("{}{why}", if why.is_fault() { "fault: " } else { "" }))
}

#[test]
fn cut_at_every_offset_it_is_the_same() {
    let mut world = World::new(5, 1, 1, Weather::fair());
    let version = [5; 90];
    let stream = |far: &mut Far, mut says: Vec<u8>| {
        says.extend(far.long(Command::Version.field(), &version));
        says.extend(far.packet(b"nonsense", PacketType::Decoy));
        says.extend(far.long(Command::Verack.field(), &[]));
        says.extend(far.packet(&[&[18][..], &[3; 8]].concat(), PacketType::Genuine));
        says
    };
    let mut far = initiator(b"garbage");
    far.decoys = vec![vec![1; 5]];
    let (hello, mut whole) = (far.hello.len(), None);
    for at in 0.. {
        let mut far = initiator(b"garbage");
        far.decoys = vec![vec![1; 5]];
        let (raw, conn) = world.connect(1, 0, PEER);
        let cut = at.min(hello);
        world.write_all(1, raw, &far.hello[..cut]);
        world.run_for(millis(3));
        world.write_all(1, raw, &far.hello[cut..]);
        let says = key(&mut world, raw, &mut far);
        let says = stream(&mut far, says);
        let cut = at.saturating_sub(hello).min(says.len());
        world.write_all(1, raw, &says[..cut]);
        world.run_for(millis(3));
        world.write_all(1, raw, &says[cut..]);
        world.run_for(millis(3));
        let heard: Vec<Command> = heard(&world, 0, conn).into_iter().map(|(command, _)| command).collect();
        assert_eq!((heard, why(&world, conn)), (vec![Command::Version, Command::Verack, Command::Ping], "open".into()), "cut at {at}");
        world.close(1, raw);
        if at > *whole.get_or_insert(hello + says.len()) {
            break;
        }
    }
    assert_eq!(world.count(0, "v2_decoys"), 2 * world.count(0, "v2_opened"));
}

#[test]
fn garbage_may_have_so_many_bytes_and_no_more() {
    let mut world = World::new(6, 1, 1, Weather::fair());
    for bytes in [0, 1, V2_GARBAGE_MAX] {
        let (_, conn, _) = join(&mut world, initiator(&vec![3; bytes]));
        assert_eq!(why(&world, conn), "open", "{bytes} bytes");
    }
    let mut far = initiator(&vec![3; V2_GARBAGE_MAX + 1]);
    let (raw, conn) = greet(&mut world, &far);
    let says = key(&mut world, raw, &mut far);
    world.write_all(1, raw, &says);
    world.run_for(secs(1));
    assert_eq!(why(&world, conn), "fault: bad frame: v2: no end of its garbage within 4,095 bytes");
    assert_eq!((world.count(0, "v2_opened"), world.count(0, "v2_failed")), (3, 1));
}

#[test]
fn what_is_changed_on_the_way_ends_the_connection() {
    let mut world = World::new(7, 1, 1, Weather::fair());
    let garbage = "fault: bad frame: v2: no end of its garbage within 4,095 bytes";
    let tag = "fault: bad frame: v2: a packet that does not verify";
    // The mark; the version's flags; its tag.
    for (byte, want) in [(0, garbage), (V2_TERMINATOR_BYTES + V2_LENGTH_BYTES, tag), (V2_TERMINATOR_BYTES + V2_PACKET_EXTRA - 1, tag)] {
        let mut far = initiator(b"some");
        let (raw, conn) = greet(&mut world, &far);
        let mut says = key(&mut world, raw, &mut far);
        says[byte] ^= 1;
        world.write_all(1, raw, &says);
        world.write_all(1, raw, &[0; V2_GARBAGE_MAX + V2_TERMINATOR_BYTES]);
        world.run_for(secs(1));
        assert_eq!(why(&world, conn), want);
    }
    // The garbage itself, which the first packet vouches for.
    let mut far = initiator(b"some");
    far.hello[V2_KEY_BYTES] ^= 1;
    let (raw, conn) = greet(&mut world, &far);
    let says = key(&mut world, raw, &mut far);
    world.write_all(1, raw, &says);
    world.run_for(secs(1));
    assert_eq!(why(&world, conn), tag);
    // A message.
    let (raw, conn, mut far) = join(&mut world, initiator(&[]));
    let mut packet = far.long(Command::Version.field(), &[1; 90]);
    packet[50] ^= 1;
    world.write_all(1, raw, &packet);
    world.run_for(secs(1));
    assert_eq!((why(&world, conn).as_str(), world.nodes[0].frames.len()), (tag, 0));
    assert_eq!(V2_PACKET_EXTRA, V2_LENGTH_BYTES + 1 + V2_TAG_BYTES);
}

#[test]
fn a_length_is_judged_before_its_bytes_come() {
    let mut world = World::new(8, 1, 1, Weather::fair());
    let claim = |world: &mut World, bytes: usize, ready: bool, asked: bool| {
        let (raw, conn, mut far) = join(world, initiator(&[]));
        if ready {
            world.hubs[0].outlet().set_handshaken(conn);
        }
        if asked {
            world.hubs[0].outlet().expect(conn, Command::ShareHeaders);
        }
        let packet = far.packet(&vec![0; bytes], PacketType::Genuine);
        world.write_all(1, raw, &packet[..V2_LENGTH_BYTES]);
        world.run_for(secs(1));
        assert_eq!(world.hubs[0].counters().receive_pool.get(), 0);
        let arriving = world.hubs[0].outlet().arriving(conn);
        (why(world, conn), arriving)
    };
    let too_long = |bytes, cap| (format!("fault: bad frame: v2: a packet of {bytes} bytes, at most {cap} are allowed here"), None);
    let (small, unasked) = (V2_TYPE_BYTES + VERSION_BYTES_MAX, V2_TYPE_BYTES + UNASKED_BYTES_MAX);
    let large = V2_TYPE_BYTES + SHARE_HEADERS_BYTES_MAX;
    assert_eq!(claim(&mut world, small, false, false), ("open".into(), None));
    assert_eq!(claim(&mut world, small + 1, false, false), too_long(small + 1, small));
    assert_eq!(claim(&mut world, unasked, true, false), ("open".into(), None));
    assert_eq!(claim(&mut world, unasked + 1, true, false), too_long(unasked + 1, unasked));
    assert_eq!(claim(&mut world, large, true, true), ("open".into(), Some(Command::ShareHeaders)));
    assert_eq!(claim(&mut world, large + 1, true, true), too_long(large + 1, large));
    let most = (1 << 24) - 1;
    assert_eq!(claim(&mut world, most, false, false), too_long(most, small));
}

#[test]
fn messages_in_packets_are_judged_as_those_in_v1_are() {
    let mut world = World::new(9, 1, 1, Weather::fair());
    let say = |world: &mut World, contents: Vec<u8>, ready: bool| {
        let (raw, conn, mut far) = join(world, initiator(&[]));
        if ready {
            world.hubs[0].outlet().set_handshaken(conn);
        }
        let packet = far.packet(&contents, PacketType::Genuine);
        world.write_all(1, raw, &packet);
        world.run_for(secs(1));
        (why(world, conn), heard(world, 0, conn))
    };
    let long = |command: Command, payload: &[u8]| [&[0], &command.field()[..], payload].concat();
    let bad = |what: &str| (format!("fault: bad frame: {what}"), vec![]);
    assert_eq!(say(&mut world, vec![18, 1, 2, 3], false), bad("ping out of turn in the handshake"));
    assert_eq!(say(&mut world, long(Command::Version, &[1; 90]), true), bad("version out of turn in the handshake"));
    assert_eq!(say(&mut world, [&[18][..], &[0; 9]].concat(), true), bad("ping of 9 bytes, at most 8 are allowed"));
    assert_eq!(say(&mut world, long(Command::Ping, &[4; 8]), true), ("open".into(), vec![(Command::Ping, vec![4; 8])]));
    assert_eq!(say(&mut world, [&[18][..], &[4; 8]].concat(), true), ("open".into(), vec![(Command::Ping, vec![4; 8])]));
    // Of an unknown type, of a number that is none, cut short, of nothing.
    for unknown in [[&[0][..], b"sendaddrv2\0\0"].concat(), vec![29, 1], vec![255], vec![0, 1], vec![]] {
        let before = world.count(0, "frames_unknown");
        assert_eq!(say(&mut world, unknown, true), ("open".into(), vec![]));
        assert_eq!(world.count(0, "frames_unknown"), before + 1);
    }
}

#[test]
fn who_speaks_no_v2_is_told_from_who_breaks_it() {
    let mut world = World::new(10, 1, 1, Weather::fair());
    world.net.listen(1, 0, PEER);
    let dial = |world: &mut World| {
        let ours = world.hubs[0].outlet().dial(Lane::Peer, Net::addr(1, PEER), Wrapping::V2).unwrap();
        // Judgement speaks at once; nothing of it is heard before the handshake is done.
        world.hubs[0].outlet().send_bytes(ours, message(Command::Version, &[7; 90]));
        let raw = ConnId { slot: 1_000_000 + ours.slot, generation: ours.generation };
        world.run_until(|world| world.net.io(1, &mut world.mail[1]).accept(0, raw).is_ok());
        world.run_for(secs(1));
        let said = world.read(1, raw);
        assert!((V2_KEY_BYTES..=V2_KEY_BYTES + V2_GARBAGE_OURS).contains(&said.len()), "{}", said.len());
        (ours, raw, said)
    };
    // It closes; it says a v1 header; it says nothing.
    let (ours, raw, _) = dial(&mut world);
    world.close(1, raw);
    world.run_for(secs(1));
    let closed = why(&world, ours);
    assert!(closed.starts_with("no v2: "), "{closed}");
    let (ours, raw, _) = dial(&mut world);
    world.write_all(1, raw, &message(Command::Version, &[7; 90])[..10]);
    world.run_for(secs(1));
    assert_eq!(why(&world, ours), "no v2: v2: it speaks v1");
    let (ours, _, _) = dial(&mut world);
    world.run_for(DIAL_MAX);
    assert_eq!(why(&world, ours), "no v2: timed out: no complete first frame");
    // It has a key, and then breaks the rules: that is no v1.
    let (ours, raw, said) = dial(&mut world);
    let mut far = Far::new(Role::Responder, MAGIC, 9, b"x");
    world.write_all(1, raw, &far.hello);
    far.feed(&said);
    world.write_all(1, raw, &[0; V2_GARBAGE_MAX + V2_TERMINATOR_BYTES + V2_PACKET_EXTRA]);
    world.run_for(secs(1));
    assert!(why(&world, ours).starts_with("fault: bad frame: v2: no end"), "{}", why(&world, ours));
    assert_eq!((world.count(0, "closed_not_v2"), world.count(0, "v2_failed")), (3, 4));
    // What ended in order is not taken for this.
    let (ours, _, _) = dial(&mut world);
    world.hubs[0].outlet().close_after_flush(ours, CloseReason::Done("changed our mind"));
    world.run_for(secs(1));
    assert_eq!(why(&world, ours), "done: changed our mind");
}

#[test]
fn a_v1_peer_of_another_network_is_told_so() {
    let mut world = World::new(11, 1, 1, Weather::fair());
    let (raw, conn) = world.connect(1, 0, PEER);
    let foreign = [b"\xf9\xbe\xb4\xd9", &message(Command::Version, &[7; 90])[4..]].concat();
    world.write_all(1, raw, &foreign[..V1_PREFIX_BYTES]);
    world.run_for(secs(1));
    assert!(why(&world, conn).starts_with("fault: bad frame: message starts with [f9, be, b4, d9]"), "{}", why(&world, conn));
}

#[test]
fn exchanges_of_keys_are_so_many_a_turn_and_everybody_has_his() {
    const CONNS: usize = 5 * V2_KEYS_A_TURN + 3;
    let mut world = World::new(12, 1, 1, Weather::fair());
    let far = initiator(b"storm");
    let raws: Vec<ConnId> = (0..CONNS).map(|_| world.dial(1, 0, PEER)).collect();
    world.run_until(|world| world.nodes[0].opened.len() == CONNS);
    world.run_for(secs(1));
    world.asleep.insert(0);
    for raw in &raws {
        assert_eq!(world.write(1, *raw, &far.hello), far.hello.len());
    }
    world.run_for(secs(1));
    let answered = |world: &mut World, said: &mut [bool]| {
        for (raw, said) in raws.iter().zip(said) {
            *said |= !world.read(1, *raw).is_empty();
        }
    };
    let mut said = vec![false; CONNS];
    let mut turns = 0;
    while said.iter().any(|said| !said) {
        let before = world.count(0, "bytes_out");
        let report = world.turn(0);
        let per_conn = (V2_KEY_BYTES + V2_TERMINATOR_BYTES + V2_PACKET_EXTRA) as u64;
        let sent = (world.count(0, "bytes_out") - before) / per_conn;
        assert!(sent <= 2 * V2_KEYS_A_TURN as u64, "{sent} in a turn");
        world.net.advance(world.now() + millis(2));
        answered(&mut world, &mut said);
        turns += 1;
        assert!(turns < 100 && (report.due <= world.now() || said.iter().all(|said| *said)), "the hub goes on by itself");
    }
    assert!((CONNS.div_ceil(V2_KEYS_A_TURN)..CONNS.div_ceil(V2_KEYS_A_TURN) + 4).contains(&turns), "{turns} turns");
    assert_eq!(world.count(0, "v2_waited"), CONNS.div_ceil(V2_KEYS_A_TURN) as u64 - 1);
    // And then it sleeps.
    for _ in 0..3 {
        world.turn(0);
    }
    assert!(world.turn(0).due > world.now());
}

#[test]
fn decoys_without_end_cost_the_others_nothing() {
    let mut world = World::new(13, 1, 1, Weather::fair());
    let (raw, conn, mut far) = join(&mut world, initiator(&[]));
    let count = 6 * V2_SKIPS_A_ROUND;
    let decoys: Vec<u8> = (0..count).flat_map(|_| far.packet(&[], PacketType::Decoy)).collect();
    world.asleep.insert(0);
    world.write_all(1, raw, &decoys);
    world.run_for(secs(1));
    let mut turns = 0;
    while world.count(0, "v2_decoys") < count as u64 {
        let before = world.count(0, "v2_decoys");
        world.turn(0);
        let opened = world.count(0, "v2_decoys") - before;
        // The turn's first round, and the one that finds that nothing is left to dispatch.
        assert!(opened <= 2 * V2_SKIPS_A_ROUND as u64, "{opened} in a turn");
        turns += 1;
        assert!(turns < 20);
    }
    assert_eq!((why(&world, conn).as_str(), world.nodes[0].frames.len()), ("open", 0));
    // All connections together: what opening costs is taken from the bytes that a turn cuts.
    const { assert!(READ_TURN_BYTES / V2_SKIP_COST >= V2_SKIPS_A_ROUND) };
}

#[test]
fn a_handshake_has_so_many_bytes_pieces_and_tries() {
    let mut world = World::new(14, 1, 1, Weather::fair());
    let outcome = |world: &mut World, far: &mut Far, piece: usize| {
        let (raw, conn) = greet(world, far);
        let says = key(world, raw, far);
        for piece in says.chunks(piece) {
            if world.nodes[0].why(conn).is_none() {
                world.write_all(1, raw, piece);
            }
            world.run_for(millis(3));
        }
        world.run_for(secs(1));
        let ready = world.hubs[0].outlet().wrapping(conn) == Some(Wrapping::V2);
        (ready, why(world, conn))
    };
    let with = |decoys: Vec<Vec<u8>>| {
        let mut far = initiator(b"abc");
        far.decoys = decoys;
        far
    };
    let room = V2_HELLO_BYTES_MAX - V2_KEY_BYTES - 3 - V2_TERMINATOR_BYTES - 2 * V2_PACKET_EXTRA;
    assert_eq!(outcome(&mut world, &mut with(vec![vec![0; room]]), usize::MAX), (true, "open".into()));
    let (ready, why) = outcome(&mut world, &mut with(vec![vec![0; room + 1]]), usize::MAX);
    assert!(!ready && why.starts_with("fault: bad frame: v2: a packet of"), "{why}");
    // Decoys that come one by one: each is an exchange of keys.
    let decoys = |count| vec![vec![0; 30]; count];
    let (all, most) = (50, usize::from(V2_TRIES));
    assert_eq!(outcome(&mut world, &mut with(decoys(most / 2)), all), (true, "open".into()));
    assert_eq!(outcome(&mut world, &mut with(decoys(20)), usize::MAX), (true, "open".into()), "at once they may be many");
    let pieces = (false, "fault: bad frame: v2: a handshake in too many pieces".to_string());
    assert_eq!(outcome(&mut world, &mut with(decoys(4 * most)), all), pieces);
    // Garbage byte by byte: all of it is searched again for each.
    let far = initiator(&[1; V2_GARBAGE_MAX]);
    let (raw, conn) = world.connect(1, 0, PEER);
    world.write_all(1, raw, &far.hello[..V2_KEY_BYTES]);
    world.run_for(millis(5));
    let mut searched = 0;
    for byte in &far.hello[V2_KEY_BYTES..] {
        world.write_all(1, raw, &[*byte]);
        world.run_for(millis(3));
        searched += 1;
        if world.nodes[0].why(conn).is_some() {
            break;
        }
    }
    let least = (2 * V2_SCAN_BYTES).isqrt();
    assert!((least..least + 2 * V2_PACKET_EXTRA + V2_TERMINATOR_BYTES).contains(&searched), "after {searched} bytes");
}

/// A raw side that is through with the handshake, of which something large was asked.
fn asked(world: &mut World) -> (ConnId, ConnId, Far) {
    let (raw, conn, mut far) = join(world, initiator(&[]));
    let hello = [far.long(Command::Version.field(), &[1; 90]), far.long(Command::Verack.field(), &[])].concat();
    world.write_all(1, raw, &hello);
    world.run_for(secs(1));
    world.hubs[0].outlet().expect(conn, Command::ShareHeaders);
    (raw, conn, far)
}

#[test]
fn what_is_no_answer_is_not_taken_for_one_on_its_way() {
    let mut world = World::new(15, 1, 1, Weather::fair());
    let (raw, conn, mut far) = asked(&mut world);
    // What anybody may send unasked may be anything, so it is not waited for.
    let most = V2_TYPE_BYTES + UNASKED_BYTES_MAX;
    for (bytes, kind) in [(most, PacketType::Decoy), (most, PacketType::Genuine)] {
        let packet = far.packet(&vec![255; bytes], kind);
        let (front, rest) = packet.split_at(V2_LENGTH_BYTES);
        world.write_all(1, raw, front);
        world.run_for(millis(5));
        assert_eq!(world.hubs[0].outlet().arriving(conn), None);
        world.write_all(1, raw, rest);
        world.run_for(secs(1));
        assert_eq!(why(&world, conn), "open");
    }
    // One byte more, and it is either the answer or the end.
    for kind in [PacketType::Decoy, PacketType::Genuine] {
        let (raw, conn, mut far) = asked(&mut world);
        let packet = far.packet(&vec![255; most + 1], kind);
        let (front, rest) = packet.split_at(V2_LENGTH_BYTES);
        world.write_all(1, raw, front);
        world.run_for(millis(5));
        assert_eq!(world.hubs[0].outlet().arriving(conn), Some(Command::ShareHeaders));
        world.write_all(1, raw, rest);
        world.run_for(secs(1));
        assert!(why(&world, conn).contains("not asked for"), "{}", why(&world, conn));
    }
}

#[test]
fn of_several_that_were_asked_for_a_packet_may_be_any() {
    let mut world = World::new(18, 1, 1, Weather::fair());
    let (raw, conn, mut far) = asked(&mut world);
    let arriving = |world: &mut World, what| world.hubs[0].outlet().is_arriving(conn, what);
    assert!(!arriving(&mut world, Command::ShareHeaders));
    let packet = far.packet(&vec![0; V2_TYPE_BYTES + UNASKED_BYTES_MAX + 1], PacketType::Genuine);
    world.write_all(1, raw, &packet[..V2_LENGTH_BYTES]);
    world.run_for(millis(5));
    let both = [Command::ShareHeaders, Command::BlockBody];
    assert_eq!(both.map(|what| arriving(&mut world, what)), [true, false]);
    world.hubs[0].outlet().expect(conn, Command::BlockBody);
    assert_eq!(both.map(|what| arriving(&mut world, what)), [true, true]);
    assert!(!arriving(&mut world, Command::Inv));
}

#[test]
fn decoys_put_no_message_off() {
    let mut world = World::new(16, 1, 1, Weather::fair());
    let (raw, conn, mut far) = asked(&mut world);
    // Each time a short one is followed by a long one, which has more time; no piece ends with a packet.
    let front = 10;
    let mut piece = vec![];
    for _ in 0..50 {
        let short = far.packet(&[], PacketType::Decoy);
        let long = far.packet(&vec![0; UNASKED_BYTES_MAX], PacketType::Decoy);
        piece.extend(&short[..front]);
        world.write_all(1, raw, &piece);
        world.run_for(millis(3));
        world.write_all(1, raw, &[&short[front..], &long[..front]].concat());
        world.run_for(millis(3));
        piece = long[front..].to_vec();
    }
    piece.extend(&far.packet(&vec![0; UNASKED_BYTES_MAX], PacketType::Genuine)[..front]);
    world.write_all(1, raw, &piece);
    world.run_for(millis(3));
    assert_eq!((why(&world, conn).as_str(), world.count(0, "v2_decoys")), ("open", 100));
    world.run_for(secs(10 + (V2_TYPE_BYTES + UNASKED_BYTES_MAX) as u64 / 4_096 + 1));
    assert_eq!(why(&world, conn), "timed out: a message was not finished");
}

#[test]
fn one_large_message_is_encrypted_a_turn() {
    const CONNS: usize = 5;
    let mut world = World::new(17, 1, 1, Weather::fair());
    let conns: Vec<_> = (0..CONNS).map(|_| join(&mut world, initiator(&[]))).collect();
    const { assert!(SHARE_HEADERS_BYTES_MAX / V2_CALL_BYTES > WRITE_TURN_CALLS) };
    world.asleep.insert(0);
    for (_, conn, _) in &conns {
        world.hubs[0].outlet().send_bytes(*conn, message(Command::ShareHeaders, &vec![9; SHARE_HEADERS_BYTES_MAX]));
    }
    for turn in 1..=CONNS {
        let before = world.count(0, "bytes_out");
        world.turn(0);
        assert_eq!(world.count(0, "bytes_out") - before, WRITE_CONN_BYTES as u64, "turn {turn}");
    }
    // Those were of one connection each.
    world.asleep.clear();
    let mut said = [0; CONNS];
    world.run_until(|world| {
        for ((raw, ..), said) in conns.iter().zip(&mut said) {
            *said += world.read(1, *raw).len();
        }
        said.iter().all(|said| *said > SHARE_HEADERS_BYTES_MAX)
    });
}
