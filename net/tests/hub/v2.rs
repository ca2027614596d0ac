//! BIP324 between two hubs, and with peers of the crate's own making, the ill-behaved among them.

use rockpool_net::frame::Frame;
use rockpool_net::hub::io::Input;
use rockpool_net::id::{ConnId, Lane};
use rockpool_net::limits::SHARE_HEADERS_BYTES_MAX;
use rockpool_net::pipes::{Net, Weather};
use rockpool_net::transport::Wrapping;
use rockpool_net::wire::message::Command;

use crate::common::{PEER, World, message};

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
