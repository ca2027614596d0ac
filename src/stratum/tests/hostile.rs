//! What nobody should send, and what a seeded generator makes of it.

use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_net::close::CloseReason;
use rockpool_net::events::Event;
use rockpool_net::hub::{FramerKind, Hub, HubConfig, ListenerRow};
use rockpool_net::id::{ConnId, Lane};
use rockpool_net::limits::LINE_BYTES_MAX;
use rockpool_workers::embedded::EmbeddedChain;
use serde_json::Value;

use super::{SUBSCRIBE, authorize, error_code, miner, serving, submit};
use crate::limits::{
    AGENT_BYTES_MAX, GARBAGE_LINES_MAX, JOBS_PAST_MAX, MINERS_MAX, MINERS_PER_ADDR, REFUSED_MAX, SUBMITS_SEEN_MAX, USER_BYTES_MAX,
};
use crate::stratum::request::Line;
use crate::testing::{ADDRESS, Inline, Recorder, STRATUM, World, regtest};

#[test]
fn what_is_no_json_is_told_and_ends_a_connection_that_says_nothing_else() {
    let (mut world, _) = serving();
    let (good, _) = miner(&mut world);
    let bad = world.connect(STRATUM);
    let garbage = ["hello there", "{\"id\":1,\"method\":", "[]", "{\"id\":1,\"method\":\"mining.ping\"}}", "\u{fffd}\u{1}"];
    for line in garbage.iter().cycle().take(GARBAGE_LINES_MAX as usize) {
        world.line(bad, line);
        let said = world.lines(bad);
        assert_eq!((error_code(&said), &said[0]["id"]), (-32_700, &serde_json::Value::Null), "{line}");
    }
    // One good line between, and the count begins anew.
    world.line(bad, r#"{"id":1,"method":"mining.ping"}"#);
    assert_eq!(world.lines(bad)[0]["result"], "pong");
    for _ in 0..GARBAGE_LINES_MAX {
        world.line(bad, "garbage");
        assert!(world.is_open(bad));
    }
    world.line(bad, "garbage");
    assert!(!world.is_open(bad) && world.is_open(good));
    world.line(good, r#"{"id":1,"method":"mining.ping"}"#);
    assert_eq!(world.lines(good)[0]["result"], "pong");
}

#[test]
fn numbers_that_no_machine_holds_are_no_reason_to_drop_anybody() {
    let (mut world, _) = serving();
    let conn = world.connect(STRATUM);
    for line in [
        r#"{"id":1e999,"method":"mining.suggest_difficulty","params":[1e999]}"#,
        r#"{"id":1,"method":"mining.suggest_difficulty","params":[-1e999]}"#,
        r#"{"id":99999999999999999999999999,"method":"mining.ping","x":1e999,"params":1e999}"#,
        SUBSCRIBE,
        &authorize(),
    ] {
        world.line(conn, line);
        let text = String::from_utf8(world.taken(conn)).unwrap();
        assert!(text.contains("\"error\":null"), "{line}: {text}");
    }
}

/// Why a miner at work is dropped after it sent these bytes; `None` if it is not.
fn dropped(bytes: &[u8]) -> Option<CloseReason> {
    let (mut world, _) = serving();
    let (conn, _) = miner(&mut world);
    world.published();
    world.feed(conn, bytes);
    world.turns();
    let down = |event| if let Event::MinerDown { why, .. } = event { Some(why) } else { None };
    let why = world.published().into_iter().find_map(down);
    assert_eq!(why.is_none(), world.is_open(conn));
    why
}

#[test]
fn a_line_over_the_limit_ends_with_a_reason() {
    let line = |bytes: usize| {
        let mut line = r#"{"id":1,"method":"mining.ping","params":[""#.to_owned();
        line.push_str(&"x".repeat(bytes - line.len() - 4));
        line.push_str("\"]}\n");
        assert_eq!(line.len(), bytes);
        line
    };
    assert_eq!(dropped(line(LINE_BYTES_MAX).as_bytes()), None);
    let why = dropped(line(LINE_BYTES_MAX + 1).as_bytes()).map(|why| why.to_string());
    assert!(why.as_ref().is_some_and(|why| why.contains(&format!("longer than {LINE_BYTES_MAX} bytes"))), "{why:?}");
    assert!(dropped(&vec![b'x'; 1 << 20]).is_some());
    assert_eq!(dropped(&vec![b' '; 1 << 16]), None, "white space is nothing");
}

/// Four kibibytes of a user name, an agent and a password: refused with a sentence, or cut.
#[test]
fn names_of_any_length_are_met() {
    for letter in ["x", "é", ".", "\\\"", "\\u0000"] {
        let (mut world, _) = serving();
        let conn = world.connect(STRATUM);
        let long = letter.repeat((LINE_BYTES_MAX - 200) / letter.len());
        for (line, refused) in [
            (format!(r#"{{"id":1,"method":"mining.subscribe","params":["{long}"]}}"#), false),
            (format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}.{long}","x"]}}"#), true),
            (format!(r#"{{"id":2,"method":"mining.authorize","params":["{long}","x"]}}"#), true),
            (format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}","{long}"]}}"#), false),
        ] {
            world.line(conn, &line);
            assert_eq!(!world.lines(conn)[0]["error"].is_null(), refused, "{line}");
        }
        let held = world.node.sessions.miner_mut(conn).unwrap().held();
        assert!(held.agent <= AGENT_BYTES_MAX && held.password <= AGENT_BYTES_MAX && held.user <= USER_BYTES_MAX, "{held:?}");
    }
}

/// A request for a page, in pieces and of other methods.
#[test]
fn browsers_and_scripts_are_told_where_they_are() {
    for request in [
        "GET /favicon.ico HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
        "HEAD / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ] {
        for at in [1, 3, request.len() - 1] {
            let (mut world, _) = serving();
            let conn = world.connect(STRATUM);
            let (first, second) = request.split_at(at);
            world.feed(conn, first.as_bytes());
            world.turns();
            world.feed(conn, second.as_bytes());
            world.turns();
            let said = String::from_utf8(world.taken(conn)).unwrap();
            assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.contains("stratum+tcp"), "{said}");
            assert!(!world.is_open(conn), "{request}");
        }
    }
}

#[test]
fn a_tls_client_ends_with_a_reason() {
    let (mut world, _) = serving();
    let conn = world.connect(STRATUM);
    world.feed(conn, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
    world.turns();
    assert!(!world.is_open(conn) && world.taken(conn).is_empty());
}

#[test]
fn nesting_however_deep_is_only_text() {
    let (mut world, _) = serving();
    let conn = world.connect(STRATUM);
    let half = LINE_BYTES_MAX / 2 - 64;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let depth = half / open.len().max(close.len());
        let inner = if open == "[" { "" } else { "0" };
        let deep = format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
        for line in [format!(r#"{{"id":1,"method":"mining.authorize","params":{deep}}}"#), format!(r#"{{"method":"x","id":{deep}}}"#)] {
            world.line(conn, &line);
            let said = String::from_utf8(world.taken(conn)).unwrap();
            assert!(said.lines().next().unwrap().contains("\"error\":["), "{said}");
        }
    }
    assert!(world.is_open(conn));
}

const METHODS: [&str; 12] = [
    "mining.configure",
    "mining.subscribe",
    "mining.authorize",
    "mining.submit",
    "mining.submit",
    "mining.submit",
    "mining.suggest_difficulty",
    "mining.extranonce.subscribe",
    "mining.ping",
    "mining.get_transactions",
    "client.get_version",
    "mining.unheard_of",
];

/// A generator of lines, good, bent and hostile.
struct Lines {
    rng: ChaCha12Rng,
    /// Counts ids, so that each answer is told from the others.
    id: u64,
    /// What the miner heard last: a job.
    job: Value,
}

impl Lines {
    fn below(&mut self, bound: usize) -> usize {
        self.rng.next_u32() as usize % bound
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    /// A JSON value of any kind.
    fn value(&mut self, depth: usize) -> String {
        match self.below(if depth > 0 { 12 } else { 9 }) {
            0 => "null".into(),
            1 => self.pick(&["true", "false", "0", "-1", "1e999", "-1e-999", "0.00001", "18446744073709551616", "4294967295"]).into(),
            2 => format!("\"{ADDRESS}.rig\""),
            3 => self
                .pick(&["\"d=0.001,c=1\"", "\"c=360;l=front\"", "\"d=1e308\"", "\"d=nan\"", "\"bob\"", "\"\\ud800\"", "\"\\u0000é\""])
                .into(),
            4 => format!("\"{:x}\"", self.rng.next_u64() >> self.below(64)),
            5 => self
                .pick(&["\"1fffe000\"", "\"ffffffff\"", "\"00000000\"", "\"0000000000000001\"", "\"\"", "\"bitaxe/1\"", "\"NerdMinerV2\""])
                .into(),
            6 => self.job[self.rng.next_u32() as usize % 9].to_string(),
            7 => format!("\"{}\"", "x".repeat(self.below(600))),
            8 => r#"["version-rolling","minimum-difficulty","subscribe-extranonce","info"]"#.into(),
            9 => {
                let value = self.value(depth - 1);
                let name = self.pick(&["version-rolling.mask", "minimum-difficulty.value", "version-rolling.min-bit-count", "a"]);
                format!("{{\"{name}\":{value}}}")
            }
            _ => {
                let values: Vec<String> = (0..self.below(7)).map(|_| self.value(depth - 1)).collect();
                format!("[{}]", values.join(","))
            }
        }
    }

    /// A request, and the id that its one answer must have.
    fn request(&mut self) -> (String, String) {
        self.id += 1;
        let id = match self.below(4) {
            0 => format!("\"s{}\"", self.id),
            1 => format!("{}.5", self.id),
            2 => format!("[{},{{\"a\":null}}]", self.id),
            _ => self.id.to_string(),
        };
        let method = METHODS[self.below(METHODS.len())];
        let params = match self.below(4) {
            0 => self.value(2),
            1 if !self.job.is_null() => {
                let line: Value = serde_json::from_str(&submit(&self.job, self.rng.next_u32() % 8)).unwrap();
                line["params"].to_string()
            }
            _ => {
                let values: Vec<String> = (0..self.below(8)).map(|_| self.value(1)).collect();
                format!("[{}]", values.join(","))
            }
        };
        let line = match self.below(3) {
            0 => format!(r#"{{"id":{id},"method":"{method}","params":{params}}}"#),
            1 => format!(r#"{{"params":{params}, "x":{params} ,"method":"{method}","id":{id}}}"#),
            _ => format!(r#"{{"jsonrpc":"2.0","method":"nothing","id":0,"method":"{method}","id":{id},"params":{params}}}"#),
        };
        (line, id)
    }

    /// A line of which nobody knows what becomes of it: a request with some bytes changed, or none at all.
    fn hostile(&mut self) -> Vec<u8> {
        let mut line = self.request().0.into_bytes();
        for _ in 0..=self.below(6) {
            let at = self.below(line.len().max(1)).min(line.len());
            match self.below(5) {
                0 => line.truncate(at),
                1 => line.insert(at, self.rng.next_u32() as u8),
                2 => line.splice(at..at, *b"\\\"").for_each(drop),
                3 => line.splice(at..at, *b"{[").for_each(drop),
                _ => {
                    if let Some(byte) = line.get_mut(at) {
                        *byte = self.rng.next_u32() as u8;
                    }
                }
            }
        }
        line.retain(|byte| *byte != b'\n');
        line.truncate(LINE_BYTES_MAX - 2);
        line
    }
}

/// What was said: jobs are remembered, and the answers' ids come back as they were written.
fn hear(world: &mut World<Inline>, conn: ConnId, lines: &mut Lines) -> Vec<String> {
    let text = String::from_utf8(world.taken(conn)).unwrap();
    let mut ids = Vec::new();
    for line in text.lines() {
        let said: Value = serde_json::from_str(&line.replace("1e999", "1")).unwrap_or_else(|error| panic!("{error}: {line}"));
        if said["method"] == "mining.notify" {
            lines.job = said["params"].clone();
        }
        if said.get("method").is_none() {
            assert!(said["result"].is_null() != said["error"].is_null(), "{line}");
            ids.push(Line::parse(line.as_bytes()).unwrap().id.map_or("null", |id| id.get()).to_owned());
        }
    }
    ids
}

/// Whatever a miner sends, each request has one answer under its id, nothing panics, and what is remembered of it stays within its limits.
#[test]
fn every_request_is_answered_once_whatever_comes_between() {
    for seed in 0..24 {
        let mut world = World::whole(&[], seed);
        let bitcoin = EmbeddedChain::new(regtest(), None);
        world.template(&bitcoin, 1);
        let mut lines = Lines { rng: ChaCha12Rng::seed_from_u64(seed), id: 0, job: Value::Null };
        let (mut conn, mut connections) = (world.connect(STRATUM), 1);
        for step in 0..400 {
            match lines.below(40) {
                0 => world.template(&bitcoin, 2 + step),
                1 => world.pass(Duration::from_secs(lines.below(70) as u64)),
                2 => world.line(conn, SUBSCRIBE),
                3 => world.line(conn, &authorize()),
                _ => {}
            }
            world.settle();
            hear(&mut world, conn, &mut lines);
            if !world.is_open(conn) {
                // Idle, a flood, or too many lines that are nothing: a device comes back.
                (conn, connections) = (world.connect(STRATUM), connections + 1);
            }
            if lines.below(3) == 0 {
                let line = lines.hostile();
                world.feed(conn, &[&line[..], b"\n"].concat());
                world.settle();
                hear(&mut world, conn, &mut lines);
            } else {
                let batch: Vec<(String, String)> = (0..1 + lines.below(4)).map(|_| lines.request()).collect();
                let text: String = batch.iter().map(|(line, _)| format!("{line}\r\n")).collect();
                // In two pieces, cut anywhere.
                let at = lines.below(text.len());
                world.feed(conn, &text.as_bytes()[..at]);
                world.settle();
                world.feed(conn, &text.as_bytes()[at..]);
                world.settle();
                let mut ids = hear(&mut world, conn, &mut lines);
                let mut wanted: Vec<String> = batch.into_iter().map(|(_, id)| id).collect();
                if world.is_open(conn) {
                    ids.sort_unstable();
                    wanted.sort_unstable();
                    assert_eq!(ids, wanted, "seed {seed}, step {step}: {text}");
                }
            }
            if let Some(miner) = world.node.sessions.miner_mut(conn) {
                let held = miner.held();
                assert!(held.jobs <= JOBS_PAST_MAX + 1 && held.seen <= SUBMITS_SEEN_MAX && held.refused <= REFUSED_MAX, "{held:?}");
                assert!(held.agent <= AGENT_BYTES_MAX && held.user <= USER_BYTES_MAX && held.password <= AGENT_BYTES_MAX, "{held:?}");
            }
            assert_eq!(world.hub.outlet().tickets_out(), 0, "seed {seed}, step {step}: a ticket is lost");
        }
        assert!(connections < 40, "{connections} connections: most lines are no reason to be dropped");
    }
}

/// So many miners at once, so many of one address, and who is turned away harms nobody. The operator's own networks are spared the latter.
#[test]
fn miners_are_limited_in_all_and_by_address() {
    let is_open_after = |world: &mut World<Recorder>, ip| {
        let conn = world.connect_from(ip, STRATUM);
        world.is_open(conn)
    };
    let row = ListenerRow {
        lane: Lane::Stratum,
        framer: FramerKind::LineOrHttp,
        conns_max: MINERS_MAX,
        per_addr_max: MINERS_PER_ADDR,
        per_group_max: MINERS_PER_ADDR,
        spare_private: true,
        first_frame: Duration::from_secs(600),
    };
    let (mut world, _) = serving();
    let listeners = vec![ListenerRow { conns_max: 1, ..row.clone() }, row];
    world.hub = Hub::new(HubConfig { magic: regtest().magic, listeners, dials_max: 0, bitcoin_magic: [0; 4], bitcoin_dials_max: 0 });
    let one = [8, 8, 8, 8];
    let conns: Vec<ConnId> = (0..MINERS_PER_ADDR).map(|_| world.connect_from(one, STRATUM)).collect();
    assert!(conns.iter().all(|conn| world.is_open(*conn)));
    assert!(!is_open_after(&mut world, one), "one more of this address");
    let mut home = Vec::new();
    for number in MINERS_PER_ADDR..MINERS_MAX {
        home.push(world.connect_from([10, 0, (number >> 12) as u8, 1], STRATUM));
    }
    assert!(home.iter().all(|conn| world.is_open(*conn)), "a farm is behind one address");
    assert!(!is_open_after(&mut world, [9, 9, 9, 9]), "one more in all");
    world.hang_up(home[0]);
    let next = world.connect_from([9, 9, 9, 9], STRATUM);
    assert!(world.is_open(next) && world.is_open(conns[0]));
}

/// The body of the fuzz target over seeded lines.
#[test]
fn lines_of_all_kinds_are_read_without_harm() {
    for seed in 0..4 {
        let mut lines = Lines { rng: ChaCha12Rng::seed_from_u64(seed), id: 0, job: Value::Null };
        for _ in 0..5_000 {
            super::fuzzed::line(&lines.hostile());
            super::fuzzed::line(lines.request().0.as_bytes());
            super::fuzzed::line(lines.value(2).as_bytes());
        }
        let mut bytes = vec![0; 64];
        for _ in 0..2_000 {
            lines.rng.fill_bytes(&mut bytes);
            super::fuzzed::line(&bytes);
        }
    }
}
