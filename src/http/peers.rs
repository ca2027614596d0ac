//! Peers and bans over HTTP: what is listed, and what who has a token may change.

use rockpool_net::id::ConnId;
use rockpool_net::transport::Wrapping;
use rockpool_store::limits::{BAN_TEXT_BYTES, BANS_MAX};
use rockpool_store::peers::{Ban, Subnet};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::config::{self, Mode};
use crate::http::error::Code;
use crate::http::reply::Reply;
use crate::http::routes::Asked;
use crate::limits::{BAN_SECONDS, BAN_SECONDS_MAX, PEERS_CONFIGURED_MAX};
use crate::peer::Peers;
use crate::peer::session::Peer;
use crate::session::Sessions;
use crate::turn::Turn;

/// `GET /api/v1/peers`.
#[derive(Debug, Serialize)]
struct PeersView {
    network: &'static str,
    /// Peers that may have dialled us at once.
    inbound_max: usize,
    inbound: usize,
    outbound: usize,
    /// From the one at `offset` on, in no order that means anything.
    offset: usize,
    peers: Vec<PeerView>,
    /// Those that have left lately, the newest first.
    left: Vec<LeftView>,
}

#[derive(Debug, Serialize)]
struct PeerView {
    addr: String,
    /// `inbound`, `outbound` or `feeler`.
    direction: &'static str,
    /// The user has named its address.
    configured: bool,
    /// Its handshake is done.
    up: bool,
    /// Unix seconds.
    since: u32,
    /// The newest answer to a ping, and the fastest.
    ping_ms: Option<f64>,
    ping_best_ms: Option<f64>,
    /// What it calls itself.
    agent: String,
    /// Where it says its chain stands.
    height: Option<u32>,
    score: Option<u128>,
    bytes_in: u64,
    bytes_out: u64,
    /// `v1`, or `v2` if it is encrypted.
    transport: &'static str,
    /// When it last gave us a good share that we had not got, Unix seconds.
    last_share: Option<u64>,
}

#[derive(Debug, Serialize)]
struct LeftView {
    addr: String,
    direction: &'static str,
    /// Unix seconds.
    at: u32,
    stayed_s: u64,
    why: String,
}

#[derive(Debug, Serialize)]
struct BanView {
    of: String,
    /// Unix seconds.
    until: u32,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    addr: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unwanted {
    #[serde(alias = "subnet")]
    addr: String,
    seconds: Option<u32>,
    #[serde(default)]
    reason: String,
}

/// `POST /api/v1/peers`.
pub fn add(asked: &Asked<'_>, peers: &mut Peers, turn: &Turn<'_>) -> Result<Reply, Reply> {
    if turn.config.mode != Mode::Chain {
        return Err(Reply::error(Code::Conflict, "this node runs without a share chain, and so without peers"));
    }
    let Named { addr } = asked.body("{\"addr\": \"IP:port\"}")?;
    let addr = config::peer(&addr)
        .map_err(|_| Reply::error(Code::BadBody, "addr is an IP address with or without a port, such as 203.0.113.7:9333"))?;
    if peers.gate.bans.is_banned(addr.ip(), turn.now.unix()) {
        return Err(Reply::error(Code::Conflict, &format!("{} is banned; lift the ban first", addr.ip())));
    }
    if !peers.dials.add(turn.now.mono, addr) {
        let why =
            format!("{PEERS_CONFIGURED_MAX} peers are named already, and each is dialled for ever; a restart forgets those not configured");
        return Err(Reply::error(Code::Conflict, &why));
    }
    Ok(Reply::json(&json!({ "addr": addr.to_string(), "dialling": true })))
}

/// `POST /api/v1/bans`.
pub fn ban(asked: &Asked<'_>, sessions: &mut Sessions, peers: &mut Peers, turn: &mut Turn<'_>) -> Result<Reply, Reply> {
    let Unwanted { addr, seconds, reason } = asked.body("{\"addr\": \"IP or IP/BITS\", \"seconds\": N, \"reason\": \"TEXT\"}")?;
    let of = subnet(&addr, Code::BadBody)?;
    let seconds = seconds.unwrap_or(BAN_SECONDS);
    if seconds == 0 || seconds > BAN_SECONDS_MAX {
        return Err(Reply::error(Code::BadBody, &format!("seconds is a number from 1 to {BAN_SECONDS_MAX}, ten years")));
    }
    if reason.len() > BAN_TEXT_BYTES || reason.chars().any(char::is_control) {
        return Err(Reply::error(Code::BadBody, &format!("reason is one line of at most {BAN_TEXT_BYTES} bytes")));
    }
    let until = turn.now.unix().saturating_add(seconds);
    let ban = Ban { of, until, why: reason };
    let view = view(&ban);
    let Ok(closed) = peers.gate.ban(ban, sessions, turn) else {
        return Err(Reply::error(Code::Conflict, &format!("there are {BANS_MAX} bans already; lift some, or ban a subnet")));
    };
    Ok(Reply::json(&json!({ "of": view.of, "until": view.until, "reason": view.reason, "closed": closed })))
}

/// `DELETE /api/v1/bans/{of}`.
pub fn unban(asked: &Asked<'_>, peers: &mut Peers) -> Result<Reply, Reply> {
    let of = subnet(asked.text("of").unwrap_or_default(), Code::BadParameter)?;
    if !peers.gate.bans.unban(&of) {
        return Err(Reply::error(Code::NotFound, &format!("{of} is not banned; GET /api/v1/bans lists what is")));
    }
    Ok(Reply::json(&json!({ "of": of.to_string(), "lifted": true })))
}

fn subnet(text: &str, code: Code) -> Result<Subnet, Reply> {
    text.parse().map_err(|_| Reply::error(code, "give an IP address, or a subnet such as 203.0.113.0/24 or 2001:db8::/32"))
}

/// `GET /api/v1/peers`.
pub fn list(asked: &Asked<'_>, sessions: &mut Sessions, peers: &Peers, turn: &Turn<'_>) -> Reply {
    let (offset, count) = asked.page();
    let (mut inbound, mut outbound, mut listed) = (0, 0, Vec::new());
    for (conn, peer) in sessions.peers_mut() {
        if inbound + outbound >= offset && listed.len() < count {
            let feeler = peers.outbound.is_feeler(conn);
            listed.push(PeerView { direction: if feeler { "feeler" } else { direction(peer.outbound) }, ..row(conn, peer, turn) });
        }
        *(if peer.outbound { &mut outbound } else { &mut inbound }) += 1;
    }
    let left = peers.gate.gone().map(|left| LeftView {
        addr: left.addr.to_string(),
        direction: direction(left.outbound),
        at: left.at,
        stayed_s: left.stayed.as_secs(),
        why: left.why.to_string().chars().take(BAN_TEXT_BYTES).collect(),
    });
    let (network, inbound_max) = (turn.config.params.name, turn.config.inbound_max);
    Reply::json(&PeersView { network, inbound_max, inbound, outbound, offset, peers: listed, left: left.collect() })
}

fn row(conn: ConnId, peer: &Peer, turn: &Turn<'_>) -> PeerView {
    let ms = |time: std::time::Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    let (traits, (bytes_in, bytes_out)) = (&peer.traits, turn.out.traffic(conn));
    PeerView {
        addr: peer.addr.to_string(),
        direction: direction(peer.outbound),
        configured: traits.named,
        up: peer.ready(),
        since: traits.since,
        ping_ms: traits.pings.last.map(ms),
        ping_best_ms: traits.pings.best.map(ms),
        agent: traits.agent.clone(),
        height: peer.claim.map(|claim| claim.height),
        score: peer.claim.map(|claim| claim.score),
        bytes_in,
        bytes_out,
        transport: if turn.out.wrapping(conn) == Some(Wrapping::V2) { "v2" } else { "v1" },
        last_share: traits.gave.map(|gave| turn.now.wall.saturating_sub(turn.now.mono.saturating_sub(gave)).as_secs()),
    }
}

fn direction(outbound: bool) -> &'static str {
    if outbound { "outbound" } else { "inbound" }
}

/// `GET /api/v1/bans`.
pub fn bans(asked: &Asked<'_>, peers: &Peers, turn: &Turn<'_>) -> Reply {
    let (offset, count) = asked.page();
    let bans: Vec<_> = peers.gate.bans.iter(turn.now.unix()).collect();
    let listed: Vec<_> = bans.iter().skip(offset).take(count).map(|ban| view(ban)).collect();
    Reply::json(&json!({ "count": bans.len(), "offset": offset, "bans": listed }))
}

fn view(ban: &Ban) -> BanView {
    BanView { of: ban.of.to_string(), until: ban.until, reason: ban.why.clone() }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::http::token::{self, Caller, Scope};
    use crate::limits::{PEERS_LISTED_MAX, TOKEN_LEEWAY_S};
    use crate::peer::tests::{claim, shake_hands};
    use crate::testing::{HTTP, PEER, Recorder, SECRET, World};

    /// What a request is answered with, on a connection of its own.
    fn said(world: &mut World<Recorder>, from: [u8; 4], head: &str, body: &str) -> String {
        let conn = world.connect_from(from, HTTP);
        let length = body.len();
        world.feed(conn, format!("{head}Host: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes());
        world.turns();
        String::from_utf8(world.taken(conn)).unwrap()
    }

    fn split(said: &str) -> (u16, Value) {
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    fn asked(world: &mut World<Recorder>, from: [u8; 4], head: &str, body: &str) -> (u16, Value) {
        split(&said(world, from, head, body))
    }

    const HERE: [u8; 4] = [127, 0, 0, 1];

    fn get(world: &mut World<Recorder>, path: &str) -> (u16, Value) {
        asked(world, HERE, &format!("GET {path} HTTP/1.1\r\n"), "")
    }

    /// The header line of a good token.
    fn bearer(world: &World<Recorder>, scope: Scope) -> String {
        let caller = Caller { sub: "me".into(), scope };
        format!("Authorization: Bearer {}\r\n", token::sign(&SECRET, &caller, world.now().unix().into(), 60).unwrap())
    }

    fn post(world: &mut World<Recorder>, path: &str, body: &str) -> (u16, Value) {
        let token = bearer(world, Scope::Admin);
        asked(world, HERE, &format!("POST {path} HTTP/1.1\r\n{token}Content-Type: application/json; charset=utf-8\r\n"), body)
    }

    #[test]
    fn peers_are_listed_with_all_that_is_known_of_them() {
        let mut world = World::recorded(&["8.8.4.4:9333".parse().unwrap()], true);
        world.turns();
        let out = world.pick_up();
        shake_hands(&mut world, out);
        let conn = world.connect_from([9, 9, 9, 9], PEER);
        shake_hands(&mut world, conn);
        claim(&mut world, conn, 70);
        world.connect_from([7, 7, 7, 7], PEER);
        let (code, list) = get(&mut world, "/api/v1/peers");
        assert_eq!((code, &list["inbound"], &list["outbound"], &list["network"]), (200, &json!(2), &json!(1), &json!("regtest")));
        let peers = list["peers"].as_array().unwrap();
        let of = |addr: &str| peers.iter().find(|peer| peer["addr"].as_str().unwrap().starts_with(addr)).unwrap();
        let dialled = of("8.8.4.4:9333");
        assert_eq!((&dialled["direction"], &dialled["configured"], &dialled["height"]), (&json!("outbound"), &json!(true), &json!(null)));
        let came = of("9.9.9.9:");
        assert_eq!((&came["direction"], &came["up"], &came["agent"]), (&json!("inbound"), &json!(true), &json!("/test/")));
        assert_eq!((&came["height"], &came["transport"], &came["ping_ms"]), (&json!(70), &json!("v1"), &json!(null)));
        assert!(came["bytes_in"].as_u64().unwrap() > 100 && came["bytes_out"].as_u64().unwrap() > 100);
        assert_eq!(of("7.7.7.7:")["up"], json!(false));
        world.hang_up(conn);
        let (_, list) = get(&mut world, "/api/v1/peers?offset=1&count=1");
        assert_eq!((list["peers"].as_array().unwrap().len(), &list["inbound"]), (1, &json!(1)));
        assert_eq!(list["left"][0]["why"], json!("closed by the other side"));
        for bad in ["count=201", "count=-1", "offset=x", "from=1"] {
            assert_eq!(get(&mut world, &format!("/api/v1/peers?{bad}")).0, 400, "{bad}");
        }
        let most = get(&mut world, &format!("/api/v1/peers?count={PEERS_LISTED_MAX}")).0;
        assert_eq!(most, 200);
    }

    #[test]
    fn a_peer_is_named_and_dialled_at_once() {
        let mut world = World::recorded(&[], true);
        let (code, said) = post(&mut world, "/api/v1/peers", r#"{"addr": "8.8.4.4"}"#);
        assert_eq!((code, &said["addr"], &said["dialling"]), (200, &json!("8.8.4.4:9333"), &json!(true)));
        assert_eq!(world.wires.dials.iter().map(|(_, addr)| addr.to_string()).collect::<Vec<_>>(), ["8.8.4.4:9333"]);
        for (body, code) in [
            ("", 400),
            ("{}", 400),
            ("[]", 400),
            (r#"{"addr": 7}"#, 400),
            (r#"{"addr": "example.org"}"#, 400),
            (r#"{"addr": "1.1.1.1:0"}"#, 400),
            (r#"{"addr": "1.1.1.1", "more": 1}"#, 400),
        ] {
            let (got, said) = post(&mut world, "/api/v1/peers", body);
            assert!(got == code && said["error"]["message"].as_str().is_some_and(|why| !why.is_empty()), "{body}: {got} {said}");
        }
        for number in 1..PEERS_CONFIGURED_MAX {
            assert_eq!(post(&mut world, "/api/v1/peers", &format!(r#"{{"addr": "9.9.9.{number}"}}"#)).0, 200);
        }
        let (code, said) = post(&mut world, "/api/v1/peers", r#"{"addr": "9.9.8.1"}"#);
        assert!(code == 409 && said["error"]["message"].as_str().unwrap().starts_with("64 peers are named already"), "{said}");
    }

    #[test]
    fn bans_are_added_listed_and_lifted() {
        let mut world = World::recorded(&[], true);
        let bad = world.connect_from([8, 8, 9, 9], PEER);
        let (code, said) = post(&mut world, "/api/v1/bans", r#"{"addr": "8.8.0.0/16", "seconds": 60, "reason": "no more"}"#);
        assert_eq!((code, &said["of"], &said["closed"], &said["reason"]), (200, &json!("8.8.0.0/16"), &json!(1), &json!("no more")));
        assert!(!world.is_open(bad));
        assert_eq!(post(&mut world, "/api/v1/bans", r#"{"subnet": "2001:db8::1"}"#).0, 200);
        let (_, list) = get(&mut world, "/api/v1/bans");
        let now = u64::from(world.now().unix());
        assert_eq!((&list["count"], &list["bans"][0]["of"]), (&json!(2), &json!("8.8.0.0/16")));
        assert_eq!((&list["bans"][0]["until"], &list["bans"][1]["until"]), (&json!(now + 60), &json!(now + u64::from(BAN_SECONDS))));
        assert_eq!(post(&mut world, "/api/v1/peers", r#"{"addr": "8.8.1.1"}"#).0, 409, "banned");
        let token = bearer(&world, Scope::Admin);
        let delete =
            |world: &mut World<Recorder>, of: &str| asked(world, HERE, &format!("DELETE /api/v1/bans/{of} HTTP/1.1\r\n{token}"), "");
        assert_eq!(delete(&mut world, "8.8.0.0/16"), (200, json!({"of": "8.8.0.0/16", "lifted": true})));
        assert_eq!(delete(&mut world, "8.8.0.0%2F16").0, 404);
        assert_eq!(delete(&mut world, "2001%3adb8::1").0, 200);
        assert_eq!(delete(&mut world, "nobody").0, 400);
        let long = "x".repeat(BAN_TEXT_BYTES + 1);
        for body in [
            r#"{"addr": "8.8.8.8/33"}"#.to_owned(),
            r#"{"addr": "8.8.8.8:9333"}"#.to_owned(),
            r#"{"addr": "8.8.8.8", "seconds": 0}"#.to_owned(),
            format!(r#"{{"addr": "8.8.8.8", "seconds": {}}}"#, BAN_SECONDS_MAX + 1),
            format!(r#"{{"addr": "8.8.8.8", "reason": "{long}"}}"#),
            r#"{"addr": "8.8.8.8", "reason": "a\nb"}"#.to_owned(),
            r#"{"seconds": 5}"#.to_owned(),
        ] {
            assert_eq!(post(&mut world, "/api/v1/bans", &body).0, 400, "{body}");
        }
    }

    #[test]
    fn only_who_has_a_good_token_changes_anything_and_from_anywhere() {
        let mut world = World::recorded(&[], true);
        let (admin, user) = (bearer(&world, Scope::Admin), bearer(&world, Scope::User));
        let (body, json) = (r#"{"addr": "8.8.4.4"}"#, "Content-Type: application/json\r\n");
        let wrong = admin.replace("Bearer ", "Bearer x");
        for (method, path) in [("POST", "/api/v1/peers"), ("POST", "/api/v1/bans"), ("DELETE", "/api/v1/bans/8.8.4.4")] {
            let head = format!("{method} {path} HTTP/1.1\r\n{json}");
            for from in [HERE, [192, 168, 0, 9], [8, 8, 8, 8]] {
                for (token, status, code, challenge) in [
                    ("", 401, "unauthorized", "Bearer\r\n"),
                    ("Authorization: Basic bWU6eA==\r\n", 401, "unauthorized", "Bearer\r\n"),
                    ("Authorization: Bearer\r\n", 401, "unauthorized", "Bearer\r\n"),
                    (&wrong, 401, "unauthorized", "Bearer error=\"invalid_token\"\r\n"),
                    (&user, 403, "forbidden", "Bearer error=\"insufficient_scope\"\r\n"),
                ] {
                    let said = said(&mut world, from, &format!("{head}{token}"), body);
                    assert!(said.contains(&format!("\r\nWWW-Authenticate: {challenge}")), "{token}: {said}");
                    let (got, error) = split(&said);
                    assert_eq!((got, &error["error"]["code"]), (status, &json!(code)), "{token}");
                }
            }
        }
        assert!(world.wires.dials.is_empty());
        assert_eq!(world.node.counters().tokens_refused.get(), 9, "a wrong token each");
        let passed_on = "Origin: http://127.0.0.1:9332\r\nSec-Fetch-Site: same-origin\r\nX-Forwarded-For: 8.8.8.8\r\n";
        let head = format!("POST /api/v1/peers HTTP/1.1\r\n{}{passed_on}", admin.replace("Bearer", "bearer"));
        let (code, error) = asked(&mut world, [8, 8, 8, 8], &head, body);
        assert_eq!((code, &error["error"]["code"]), (415, &json!("unsupported_media")), "a form of a page has no such type");
        assert_eq!(asked(&mut world, [8, 8, 8, 8], &format!("{head}{json}"), body).0, 200);
        assert_eq!(world.wires.dials.len(), 1);
        world.skip(std::time::Duration::from_secs(60 + TOKEN_LEEWAY_S));
        let (code, error) = asked(&mut world, HERE, &format!("{head}{json}"), body);
        assert!(code == 401 && error["error"]["message"].as_str().unwrap().contains("expired"), "{error}");
        for path in ["/api/v1/peers", "/api/v1/bans"] {
            assert_eq!(asked(&mut world, HERE, &format!("PUT {path} HTTP/1.1\r\n"), "").0, 405);
            // Looking is everybody's.
            assert_eq!(asked(&mut world, [8, 8, 8, 8], &format!("GET {path} HTTP/1.1\r\n"), "").0, 200);
        }
        assert_eq!(asked(&mut world, HERE, "GET /api/v1/bans/8.8.8.8 HTTP/1.1\r\n", "").0, 405);
    }
}
