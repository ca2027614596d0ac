//! Bad input at every door. The sender is refused or dropped with a reason in the log; the node and its other connections are unharmed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rockpool_net::id::ShareId;
use rockpool_net::wire::message::{Message, NetAddr, PROTOCOL_VERSION, Version};
use rockpool_net::wire::share::Share;
use rockpool_store::params::{Network, params};
use rockpool_store::record::Record;
use rockpool_store::testing::{Ancestry, ShareBuilder};
use serde_json::json;

use crate::kit::{ADDRESS, Miner, PATIENCE, Rockpool, temp, until};

/// Regtest's magic (DESIGN: f4c4b7d4).
const MAGIC: [u8; 4] = [0xf4, 0xc4, 0xb7, 0xd4];

/// A node with a miner that works on before and after whatever a test does to it.
struct House {
    node: Rockpool,
    miner: Miner,
    _dir: tempfile::TempDir,
}

impl House {
    fn new() -> House {
        let dir = temp();
        let node = Rockpool::start(dir.path(), &[]);
        let mut miner = Miner::connect(node.stratum, ADDRESS);
        assert_eq!(miner.mine().verdict, Ok(()));
        House { node, miner, _dir: dir }
    }

    /// The sender was dropped, the log says why, and everybody else goes on.
    fn unharmed(&mut self, reason: &str) {
        until(&format!("{reason:?} in the log"), || self.node.log().contains(reason).then_some(()));
        assert!(self.node.runs());
        assert_eq!(self.miner.mine().verdict, Ok(()), "the honest miner goes on");
        assert_eq!(self.node.get("/health").0, 200);
        assert!(!self.node.log().contains("panicked"), "{}", self.node.log());
    }
}

fn send(addr: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The node may close before it has read all: that is its right.
    let _ = stream.write_all(bytes);
    stream
}

/// Reads to the end of the connection: what came, whether it ended well or by a reset.
fn drained(mut stream: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buf = [0; 4096];
    loop {
        match stream.read(&mut buf) {
            Ok(0) => return all,
            Ok(n) => all.extend_from_slice(&buf[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return all,
            Err(error) => panic!("the node did not close the connection: {error}"),
        }
    }
}

fn header(magic: [u8; 4], command: &str, length: u32) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    let mut name = [0; 12];
    name[..command.len()].copy_from_slice(command.as_bytes());
    bytes.extend_from_slice(&name);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

fn hello(nonce: u64) -> Message {
    let nobody = NetAddr { services: 0, addr: SocketAddr::from(([127, 0, 0, 1], 9333)) };
    Message::Version(Version {
        protocol: PROTOCOL_VERSION,
        services: 0,
        time: 1_800_000_000,
        receiver: nobody,
        sender: nobody,
        nonce,
        user_agent: "/e2e/".to_owned(),
        start_height: 0,
        relay: true,
    })
}

/// A peer whose handshake is done.
fn peer(node: &Rockpool, nonce: u64) -> TcpStream {
    let mut stream = TcpStream::connect(node.p2p).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let version = hello(nonce);
    stream.write_all(version.encode(MAGIC).unwrap().bytes()).unwrap();
    stream.write_all(Message::Verack.encode(MAGIC).unwrap().bytes()).unwrap();
    until("the node's verack", || {
        let (command, _) = next_message(&mut stream)?;
        (command == "verack").then_some(())
    });
    stream
}

fn next_message(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = [0; 24];
    stream.read_exact(&mut head).ok()?;
    let length = u32::from_le_bytes(head[16..20].try_into().unwrap());
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).ok()?;
    Some((String::from_utf8_lossy(&head[4..16]).trim_end_matches('\0').to_owned(), payload))
}

#[test]
fn wrong_magic_at_the_peer_door() {
    let mut house = House::new();
    drained(send(house.node.p2p, &header([0xf9, 0xbe, 0xb4, 0xd9], "version", 0)));
    house.unharmed("magic");
}

#[test]
fn garbage_at_the_peer_door() {
    let mut house = House::new();
    // It might be a v2 handshake, until its garbage has no end.
    drained(send(house.node.p2p, &[0xa5; 5_000]));
    house.unharmed("garbage");
}

#[test]
fn a_node_of_another_network_at_the_peer_door() {
    let mut house = House::new();
    drained(send(house.node.p2p, &header([0xf1, 0xc4, 0xb7, 0xd1], "version", 100)));
    house.unharmed("magic");
}

#[test]
fn a_claim_of_four_gigabytes_at_the_peer_door() {
    let mut house = House::new();
    drained(send(house.node.p2p, &header(MAGIC, "version", u32::MAX)));
    house.unharmed("version");
}

#[test]
fn an_oversized_share_after_the_handshake() {
    let mut house = House::new();
    let mut stream = peer(&house.node, 1);
    stream.write_all(&header(MAGIC, "share", 901)).unwrap();
    drained(stream);
    house.unharmed("share");
}

#[test]
fn a_bad_checksum() {
    let mut house = House::new();
    let mut bytes = header(MAGIC, "version", 8);
    bytes.extend_from_slice(&[7; 8]);
    drained(send(house.node.p2p, &bytes));
    house.unharmed("checksum");
}

#[test]
fn a_message_before_the_handshake() {
    let mut house = House::new();
    drained(send(house.node.p2p, Message::Ping(1).encode(MAGIC).unwrap().bytes()));
    house.unharmed("ping");
}

#[test]
fn a_truncated_frame_and_then_the_end() {
    let mut house = House::new();
    let version = hello(2).encode(MAGIC).unwrap();
    for cut in [1, 4, 23, 24, 25, version.bytes().len() - 1] {
        let stream = send(house.node.p2p, &version.bytes()[..cut]);
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        drained(stream);
    }
    house.unharmed("closed by the other side");
}

#[test]
fn a_line_of_a_megabyte_at_the_stratum_door() {
    let mut house = House::new();
    drained(send(house.node.stratum, &vec![b'a'; 1_000_000]));
    house.unharmed("line");
}

#[test]
fn invalid_json_at_the_stratum_door() {
    let mut house = House::new();
    // One such line may be an accident, and is told so. Who says nothing else is no miner.
    for line in ["{\n", "[]\n", "\"mining.submit\"\n", "{\"id\":1,\"method\":\n", "\u{1}\u{2}\u{3}\n"] {
        let answers = drained(send(house.node.stratum, line.repeat(20).as_bytes()));
        assert!(String::from_utf8_lossy(&answers).contains("Parse error"), "{line}");
    }
    drained(send(house.node.stratum, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]));
    let bomb = format!("{{\"id\":1,\"method\":\"mining.submit\",\"params\":{}{}}}\n", "[".repeat(1_500), "]".repeat(1_500));
    let stream = send(house.node.stratum, bomb.as_bytes());
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(String::from_utf8_lossy(&drained(stream)).contains("\"error\":[25,"), "to nobody does it matter how deep it is");
    house.unharmed("JSON");
    house.unharmed("TLS");
}

#[test]
fn bad_submits_get_errors_and_the_connection_stays() {
    let mut house = House::new();
    let mut miner = Miner::connect(house.node.stratum, ADDRESS);
    let job = miner.job();
    let (good, _) = miner.grind_for(&job);
    for (params, code) in [
        (json!([]), 20),
        (json!([ADDRESS, "no such job", good[2], good[3], good[4]]), 21),
        (json!([ADDRESS, good[1], "00", good[3], good[4]]), 20),
        (json!([ADDRESS, good[1], good[2], "zzzzzzzz", good[4]]), 20),
        (json!([ADDRESS, good[1], good[2], "00000000", good[4]]), 20),
        (json!({"a": 1}), 20),
    ] {
        let error = miner.call("mining.submit", params.clone()).unwrap_err();
        assert_eq!(error[0], code, "{params}: {error}");
    }
    assert_eq!(miner.call("mining.submit", good.clone()).unwrap(), true);
    assert_eq!(miner.call("mining.submit", good).unwrap_err()[0], 22, "the same once more");
    assert_eq!(miner.call("no.such.method", json!([])).unwrap_err()[0], -3);
    let mut stranger = Miner::connect(house.node.stratum, ADDRESS);
    assert!(stranger.call("mining.authorize", json!(["1BoatSLRHtKNngkdXEeobR76b53LETtpyT", "x"])).is_err(), "not a segwit address");
    assert_eq!(house.miner.mine().verdict, Ok(()));
}

#[test]
fn nonsense_at_the_http_door() {
    let mut house = House::new();
    for (bytes, status) in [
        (&b"\0\0\0\0\r\n\r\n"[..], "400"),
        (&b"GET / HTTP/9.9\r\n\r\n"[..], "505"),
        (&b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"[..], "501"),
    ] {
        let answer = drained(send(house.node.http, bytes));
        assert!(answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{}", String::from_utf8_lossy(&answer));
    }
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    drained(send(house.node.http, long.as_bytes()));
    assert_eq!(house.node.get("/no/such/path").0, 404);
    assert_eq!(house.node.get("/api/v1/share/zz").0, 400);
    house.unharmed("head");
}

/// The share that the house's miner mined first, as the node itself sends it.
fn honest_share(house: &House) -> Share {
    let mut stream = peer(&house.node, 3);
    let tip: Vec<u8> = crate::kit::unhex(&house.node.tip().0).into_iter().rev().collect();
    let id = rockpool_net::id::ShareId(tip.try_into().unwrap());
    stream.write_all(Message::GetData(vec![id]).encode(MAGIC).unwrap().bytes()).unwrap();
    loop {
        let (command, payload) = next_message(&mut stream).expect("the node sends the share");
        if command == "share" {
            return Share::decode(&payload).unwrap();
        }
    }
}

#[test]
fn an_honest_id_with_flipped_bytes_is_never_marked() {
    let mut victim = House::new();
    let honest = honest_share(&victim);
    let bytes = honest.encode();
    // A second node that has not seen the share yet gets it flipped first, byte by byte, then as it is.
    let dir = temp();
    let other = Rockpool::start(dir.path(), &[]);
    for (nonce, at) in (80..bytes.len()).step_by(7).enumerate() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        let mut stream = peer(&other, 100 + nonce as u64);
        stream.write_all(Message::share_from_bytes(MAGIC, &flipped).bytes()).unwrap();
        drained(stream);
    }
    let mut stream = peer(&other, 4);
    stream.write_all(Message::Share(Box::new(honest.clone())).encode(MAGIC).unwrap().bytes()).unwrap();
    until("the honest share confirmed", || other.confirmed(honest.id()).then_some(()));
    assert!(other.log().contains("misbehaviour") || other.log().contains("bad frame"), "{}", other.log());
    assert_eq!(victim.miner.mine().verdict, Ok(()));
}

/// A chain that consists of genesis.
struct Genesis;

impl Ancestry for Genesis {
    fn record(&self, id: &ShareId) -> Option<Arc<Record>> {
        let params = params(Network::Regtest);
        (*id == params.genesis_id()).then(|| Arc::new(params.genesis_record()))
    }
}

#[test]
fn invalid_shares_are_refused_and_the_chain_stays() {
    let dir = temp();
    let mut node = Rockpool::start(dir.path(), &[]);
    let mut miner = Miner::connect(node.stratum, ADDRESS);
    let params = params(Network::Regtest);
    let honest = ShareBuilder::new(params).build(&Genesis, &params.genesis_id());
    // Tied and worked for, but its coinbase pays somebody else than its parent dictates: invalid for ever, its sender is not to blame.
    let invalid = ShareBuilder::new(params).bad_coinbase().build(&Genesis, &params.genesis_id());
    let mut relay = peer(&node, 5);
    relay.write_all(Message::Share(Box::new(invalid.clone())).encode(MAGIC).unwrap().bytes()).unwrap();
    until("the share called invalid in the log", || node.log().contains(&format!("share {} is invalid", invalid.id())).then_some(()));
    assert_eq!(node.tip().1, 0);
    assert!(!node.confirmed(invalid.id()));
    // Not tied to its header: its sender is dropped.
    let mut liar = peer(&node, 6);
    let forged = Share { value: honest.value + 1, ..honest.clone() };
    liar.write_all(Message::Share(Box::new(forged)).encode(MAGIC).unwrap().bytes()).unwrap();
    drained(liar);
    until("why the liar was dropped", || node.log().contains("misbehaviour: bad share").then_some(()));
    // The honest share of that id is taken, from the relay of the invalid one.
    relay.write_all(Message::Share(Box::new(honest.clone())).encode(MAGIC).unwrap().bytes()).unwrap();
    until("the honest share confirmed", || node.confirmed(honest.id()).then_some(()));
    assert_eq!(miner.mine().verdict, Ok(()));
    assert!(node.runs() && !node.log().contains("panicked"));
}
