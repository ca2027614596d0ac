//! However the bytes are cut on their way, what is understood is the same: every kind of message at every offset, and byte by byte.

use std::time::Duration;

use crate::common::{HTTP, PEER, STRATUM, World, message, secs};
use rockpool_net::close::CloseReason;
use rockpool_net::frame::Frame;
use rockpool_net::hub::io::Input;
use rockpool_net::id::ConnId;
use rockpool_net::limits::{HEADER_BYTES, SHARE_BYTES_MAX, SHARE_HEADERS_BYTES_MAX, UNKNOWN_BYTES_MAX, VERSION_BYTES_MAX};
use rockpool_net::pipes::Weather;
use rockpool_net::wire::message::Command;

/// What a peer may say from beginning to end: every command, some larger than what a connection holds of its own, unknown ones between.
fn said_by_a_peer() -> Vec<Vec<u8>> {
    let handshake = [Command::Version, Command::Verack];
    let rest = Command::ALL.into_iter().filter(|command| !handshake.contains(command));
    handshake
        .into_iter()
        .chain(rest)
        .chain([Command::Inv, Command::Ping])
        .map(|command| {
            let payload: Vec<u8> = (0..command.cap().min(90)).map(|i| i as u8 ^ 0x5a).collect();
            message(command, &payload)
        })
        .collect()
}

/// One of each command but the unknown, which is skipped, and two more.
const PEER_FRAMES: usize = Command::ALL.len() - 1 + 2;

fn said_by_a_miner() -> Vec<Vec<u8>> {
    [&b"{\"id\":1,\"method\":\"mining.subscribe\"}\n"[..], b"\r\n", b"  {\"id\":2}\t\r\n", b"[]\n", b"last\n"].map(<[u8]>::to_vec).to_vec()
}

fn said_by_a_browser() -> Vec<Vec<u8>> {
    [&b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n"[..], b"POST /b HTTP/1.0\r\ncontent-length: 11\r\n\r\nhello world", b"GET /c HTTP/1.0\r\n\r\n"]
        .map(<[u8]>::to_vec)
        .to_vec()
}

fn millisecond(world: &mut World) {
    let soon = world.now() + Duration::from_millis(1);
    world.net.advance(soon);
    // More than one: a connection has a few frames in a turn at most.
    (0..5).for_each(|_| {
        world.turn(0);
    });
}

/// The frames that come of these pieces on a connection of their own.
fn heard(world: &mut World, port: u16, pieces: &[&[u8]]) -> Vec<Frame> {
    let (raw, conn) = world.connect(1, 0, port);
    world.nodes[0].frames.clear();
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        assert_eq!(world.write(1, raw, piece), piece.len());
        millisecond(world);
    }
    world.run_for(secs(1));
    assert_eq!(world.nodes[0].why(conn), None);
    let frames = std::mem::take(&mut world.nodes[0].frames);
    world.close(1, raw);
    world.run_for(Duration::from_millis(5));
    assert_eq!((world.hubs[0].conns(), world.count(0, "receive_pool"), world.hubs[0].outlet().tickets_out()), (0, 0, 0));
    frames.into_iter().map(|(id, frame)| (id == conn).then_some(frame).unwrap()).collect()
}

#[test]
fn every_message_cut_at_every_offset_and_byte_by_byte_is_understood_the_same() {
    for (port, said, frames) in [(PEER, said_by_a_peer(), PEER_FRAMES), (STRATUM, said_by_a_miner(), 4), (HTTP, said_by_a_browser(), 3)] {
        let stream = said.concat();
        let mut world = World::new(1, 1, 1, Weather::fair());
        let want = heard(&mut world, port, &[&stream]);
        assert_eq!(want.len(), frames);
        for at in 1..stream.len() {
            let (front, rest) = stream.split_at(at);
            assert!(heard(&mut world, port, &[front, rest]) == want, "{port}: cut at {at}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert!(heard(&mut world, port, &bytes) == want, "{port}: byte by byte");
        let unknown = world.count(0, "frames_unknown");
        assert_eq!(unknown, if port == PEER { stream.len() as u64 + 1 } else { 0 });
    }
}

#[test]
fn thousands_of_streams_chopped_at_random_are_understood_the_same() {
    let said = [(PEER, said_by_a_peer()), (STRATUM, said_by_a_miner()), (HTTP, said_by_a_browser())];
    for seed in 0..10 {
        let weather = Weather { delay: (Duration::ZERO, Duration::from_millis(20)), chop: 60, capacity: 2_000 };
        let mut world = World::new(seed, 1, 1, weather);
        let conns: Vec<(usize, ConnId, ConnId)> = (0..300)
            .map(|i| {
                let (raw, conn) = world.connect(1, 0, said[i % 3].0);
                (i % 3, raw, conn)
            })
            .collect();
        let mut left: Vec<Vec<u8>> = conns.iter().map(|&(kind, ..)| said[kind].1.concat()).collect();
        world.run_until(|world| {
            for (left, &(_, raw, _)) in left.iter_mut().zip(&conns) {
                let sent = world.write(1, raw, left);
                left.drain(..sent);
            }
            left.iter().all(Vec::is_empty)
        });
        world.run_for(secs(2));
        let mut wanted: [Option<Vec<&Frame>>; 3] = [None, None, None];
        for (kind, _, conn) in conns {
            let got: Vec<&Frame> = world.nodes[0].frames.iter().filter(|(id, _)| *id == conn).map(|(_, frame)| frame).collect();
            assert_eq!(got.len(), [PEER_FRAMES, 4, 3][kind], "seed {seed}");
            let want = wanted[kind].get_or_insert_with(|| got.clone());
            assert!(got == *want, "seed {seed}");
        }
        assert_eq!(world.nodes[0].closed.len(), 0);
    }
}

#[test]
fn what_claims_more_than_its_cap_ends_its_connection_and_nobody_elses() {
    let claims = [
        (Command::Version, VERSION_BYTES_MAX),
        (Command::Unknown, UNKNOWN_BYTES_MAX),
        (Command::Share, SHARE_BYTES_MAX),
        (Command::ShareHeaders, SHARE_HEADERS_BYTES_MAX),
        (Command::BtcHeaders, Command::BtcHeaders.cap()),
        (Command::Template, Command::Template.cap()),
    ];
    for (command, cap) in claims {
        let mut world = World::new(3, 1, 1, Weather { capacity: 1 << 20, ..Weather::fair() });
        if command != Command::Version {
            world.nodes[0].hook = Box::new(move |_, input, out| {
                if let Input::Opened { conn, .. } = input {
                    out.set_handshaken(*conn);
                    out.expect(*conn, command);
                }
            });
        }
        let (fits, good) = world.connect(1, 0, PEER);
        let (over, bad) = world.connect(1, 0, PEER);
        world.write_all(1, fits, &message(command, &vec![7; cap]));
        // The header alone is enough to be refused.
        world.write_all(1, over, &message(command, &vec![7; cap + 1])[..HEADER_BYTES]);
        world.run_for(secs(1));
        assert!(matches!(world.nodes[0].why(bad), Some(CloseReason::BadFrame(_))), "{command}: {:?}", world.nodes[0].why(bad));
        assert_eq!(world.nodes[0].why(good), None, "{command}");
        assert_eq!(world.nodes[0].frames.len() as u64 + world.count(0, "frames_unknown"), 1);
    }
}

#[test]
fn what_is_larger_than_a_connection_holds_of_its_own_is_understood_in_any_pieces() {
    let inv = message(Command::Inv, &vec![0xab; Command::Inv.cap()]);
    for piece in [1_000, 4_095, 4_096, 4_097, inv.len() - 1] {
        let mut world = World::new(2, 1, 1, Weather::fair());
        world.nodes[0].hook = Box::new(|_, input, out| {
            if let Input::Opened { conn, .. } = input {
                out.set_handshaken(*conn);
            }
        });
        let pieces: Vec<&[u8]> = inv.chunks(piece).collect();
        let frames = heard(&mut world, PEER, &pieces);
        assert!(matches!(&frames[..], [Frame::Message { command: Command::Inv, payload, .. }] if payload.len() == Command::Inv.cap()));
    }
}
