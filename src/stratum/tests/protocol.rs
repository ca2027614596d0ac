//! What is negotiated, pushed and taken up again.

use std::sync::Arc;
use std::time::Duration;

use rockpool_store::params::{Network, params};
use serde_json::{Value, json};

use super::{SUBSCRIBE, authorize, difficulty, emitted, error_code, judge, miner, notify, serving, submit};
use crate::limits::{JOBS_PAST_MAX, NOTIFY_EVERY, REFUSED_MAX, RESUME_TIME, STALE_EXCUSED, STUCK_SUBMITS};
use crate::stratum::firmware::Firmware;
use crate::stratum::jobs::share_difficulty;
use crate::testing::{ADDRESS, Grower, STRATUM, World};
use rockpool_workers::template::Template;
use rockpool_workers::work::Kind;

/// Another payee of regtest.
const OTHER: &str = "bcrt1q6z64a43mjgkcq0ul2znwneq3spghrlau9slefp";
/// A payee of main.
const MAIN: &str = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";

fn configure(extensions: &str, options: &str) -> String {
    format!(r#"{{"id":3,"method":"mining.configure","params":[{extensions},{options}]}}"#)
}

fn pushed<'a>(lines: &'a [Value], method: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["method"] == method).map(|line| &line["params"][0]).collect()
}

#[test]
fn a_mask_is_pushed_after_it_was_granted_and_when_it_changes() {
    let (mut world, _) = serving();
    let (conn, job) = miner(&mut world);
    for (asked, granted) in [("ffffffff", "1fffe000"), ("00006000", "00006000")] {
        world.line(conn, &configure(r#"["version-rolling"]"#, &format!(r#"{{"version-rolling.mask":"{asked}"}}"#)));
        let lines = world.lines(conn);
        assert_eq!(lines[0]["result"], json!({"version-rolling": true, "version-rolling.mask": granted}), "the answer comes first");
        assert_eq!(lines[1], json!({"id": null, "method": "mining.set_version_mask", "params": [granted]}));
        assert_eq!(lines.len(), 2);
    }
    world.line(conn, &submit(&job, 1).replace("00000001\"]", "00000001\",\"00008000\"]"));
    assert_eq!(error_code(&world.lines(conn)), 20, "outside what it has now");
    world.line(conn, &submit(&job, 1).replace("00000001\"]", "00000001\",\"00002000\"]"));
    assert_eq!(emitted(&mut world).len(), 1);
}

#[test]
fn before_the_first_job_answers_come_alone() {
    let (mut world, _) = serving();
    let conn = world.connect(STRATUM);
    let configure = configure(r#"["version-rolling"]"#, "{}");
    for line in [&configure, SUBSCRIBE, &configure] {
        world.line(conn, line);
        assert_eq!(world.lines(conn).len(), 1, "cgminer takes the next line for the answer");
    }
    world.line(conn, &authorize());
    let lines = world.lines(conn);
    let methods: Vec<&str> = lines.iter().filter_map(|line| line["method"].as_str()).collect();
    assert_eq!(methods, ["mining.set_version_mask", "mining.set_difficulty", "mining.notify"]);
}

#[test]
fn more_bits_than_there_are_is_no_reason_to_refuse() {
    let (mut world, _) = serving();
    let conn = world.connect(STRATUM);
    for bits in ["16", "17", "4294967295", "\"99\"", "null"] {
        let options = format!(r#"{{"version-rolling.mask":"1fffe000","version-rolling.min-bit-count":{bits}}}"#);
        world.line(conn, &configure(r#"["version-rolling"]"#, &options));
        assert_eq!(world.lines(conn)[0]["result"]["version-rolling"], true, "{bits}");
    }
}

#[test]
fn extensions_are_answered_each_once_and_what_is_unknown_not_at_all() {
    let (mut world, _) = serving();
    let conn = world.connect(STRATUM);
    let options = r#"{"info.connection-url":"stratum+tcp://x","info.hw-version":"1","info.sw-version":"2","info.hw-id":"3"}"#;
    world.line(conn, &configure(r#"["info","subscribe-extranonce","info","tea",7]"#, options));
    let text = String::from_utf8(world.taken(conn)).unwrap();
    assert_eq!(text, "{\"id\":3,\"result\":{\"info\":true,\"subscribe-extranonce\":true},\"error\":null}\n");
    world.line(conn, &configure("\"version-rolling\"", "null"));
    assert_eq!(world.lines(conn)[0]["result"], json!({"version-rolling": true, "version-rolling.mask": "1fffe000"}));
}

/// On main no share is ever easier than difficulty 1,024, so that much can be promised.
#[test]
fn a_least_difficulty_is_kept_and_promised_as_far_as_shares_allow() {
    let main = params(Network::Main);
    let floor = share_difficulty(main.floor_bits);
    for (value, promised, wanted) in [
        ("16", true, 16.0),
        ("\"512.5\"", true, 512.5),
        ("1024", floor >= 1024.0, 1024.0),
        ("2048", false, 2048.0),
        ("0", true, 1.0),
        ("1e-9", true, 1.0),
        ("-1", false, 1.0),
        ("null", false, 1.0),
        ("1e999", false, 1.0),
        ("1e300", false, crate::limits::DIFFICULTY_MAX),
    ] {
        let mut world = World::whole_of(main, &[], 6);
        let conn = world.connect(STRATUM);
        world.line(conn, &configure(r#"["minimum-difficulty"]"#, &format!(r#"{{"minimum-difficulty.value":{value}}}"#)));
        assert_eq!(world.lines(conn)[0]["result"], json!({"minimum-difficulty": promised}), "{value}");
        world.line(conn, SUBSCRIBE);
        world.line(conn, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{MAIN}","d=0.001"]}}"#));
        let least = if wanted > 1.0 { wanted } else { 0.001 };
        assert_eq!(world.node.sessions.miner_mut(conn).unwrap().wanted_difficulty(), least, "{value}");
    }
    // A miner at work hears of it.
    let (mut world, _) = serving();
    let conn = world.connect(STRATUM);
    world.line(conn, SUBSCRIBE);
    world.line(conn, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}","d=0.00000001"]}}"#));
    world.lines(conn);
    assert!(world.node.sessions.miner_mut(conn).unwrap().wanted_difficulty() < 0.001);
    world.line(conn, &configure(r#"["minimum-difficulty"]"#, r#"{"minimum-difficulty.value":8}"#));
    assert_eq!(world.node.sessions.miner_mut(conn).unwrap().wanted_difficulty(), 8.0);
}

#[test]
fn a_proxy_that_asks_for_the_version_is_told() {
    let (mut world, _) = serving();
    let conn = world.connect(STRATUM);
    world.line(conn, r#"{"id":"v","method":"client.get_version","params":[]}"#);
    let told = world.lines(conn);
    assert_eq!((&told[0]["id"], told[0]["result"].as_str()), (&json!("v"), Some(concat!("Rockpool/", env!("CARGO_PKG_VERSION")))));
}

/// A job's coinbase commits to one payee, and every rig behind a proxy works on the same job: a second address would mine for the first.
#[test]
fn a_connection_mines_for_one_address() {
    let (mut world, _) = serving();
    let (conn, job) = miner(&mut world);
    let ask = |world: &mut World<_>, user: &str| {
        world.line(conn, &format!(r#"{{"id":5,"method":"mining.authorize","params":["{user}","x"]}}"#));
        world.lines(conn)
    };
    for user in [format!("{ADDRESS}.rig2"), ADDRESS.to_owned(), format!("{}_b", ADDRESS.to_uppercase())] {
        assert_eq!(ask(&mut world, &user), [json!({"id": 5, "result": true, "error": null})], "another worker of the same address");
    }
    let lines = ask(&mut world, &format!("{OTHER}.rig1"));
    assert_eq!(error_code(&lines[..1]), 24);
    let text = lines[0]["error"][1].as_str().unwrap();
    assert!(text.contains("another address") && text.contains("connect once for each"), "{text}");
    assert!(pushed(&lines, "client.show_message")[0].as_str().unwrap().contains(text), "whoever looks at the device reads it");
    assert!(notify(&lines).is_none(), "its work stays what it is");
    // What it submits for that address is nobody's; its own and what says nothing of an address is its own.
    for (user, code) in
        [(format!("{OTHER}.rig1"), Some(24)), (format!("{}.rig7", OTHER.to_uppercase()), Some(24)), (OTHER.to_owned(), Some(24))]
    {
        world.line(conn, &submit(&job, 9).replace("\"w\"", &format!("\"{user}\"")));
        assert_eq!(Some(error_code(&world.lines(conn))), code, "{user}");
    }
    for (nonce, user) in (1..).zip([format!("{ADDRESS}.rig9"), "rig".to_owned(), String::new()]) {
        world.line(conn, &submit(&job, nonce).replace("\"w\"", &format!("\"{user}\"")));
        let job = emitted(&mut world).remove(0);
        assert_eq!(job.script, crate::stratum::request::login(ADDRESS, Network::Regtest).unwrap().0);
        judge(&mut world, job, Ok(()));
        assert_eq!(world.lines(conn)[0]["result"], true);
    }
    // Its owner reads it once.
    assert_eq!(ask(&mut world, OTHER).len(), 1);
}

#[test]
fn refused_addresses_that_are_remembered_are_bounded() {
    let (mut world, _) = serving();
    let (conn, job) = miner(&mut world);
    let addresses: Vec<String> = (0..REFUSED_MAX as u8 + 1)
        .map(|number| {
            let program = bitcoin::WitnessProgram::new(bitcoin::WitnessVersion::V0, &[number; 20]).unwrap();
            bitcoin::Address::from_witness_program(program, bitcoin::Network::Regtest).to_string()
        })
        .collect();
    for address in addresses.iter().chain(&addresses) {
        world.line(conn, &format!(r#"{{"id":5,"method":"mining.authorize","params":["{address}","x"]}}"#));
        assert_eq!(error_code(&world.lines(conn)[..1]), 24);
    }
    let submit_of = |address: &str| submit(&job, 1).replace("\"w\"", &format!("\"{address}\""));
    world.line(conn, &submit_of(&addresses[REFUSED_MAX - 1]));
    assert_eq!(error_code(&world.lines(conn)), 24);
    world.line(conn, &submit_of(&addresses[REFUSED_MAX]));
    assert_eq!(emitted(&mut world).len(), 1, "one that was forgotten is the connection's own, as all names are");
}

#[test]
fn a_bad_address_is_shown_once() {
    let (mut world, _) = serving();
    let conn = world.connect(STRATUM);
    world.line(conn, SUBSCRIBE);
    let early = world.connect(STRATUM);
    world.line(early, r#"{"id":5,"method":"mining.authorize","params":["bob"]}"#);
    assert_eq!(error_code(&world.lines(early)), 24, "nothing between this and the answer to subscribe");
    let long = "x".repeat(2_000);
    for (user, times) in [("bob", 1), ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", 0), ("", 0), ("\\\"\\u0000", 0), (long.as_str(), 0)] {
        world.line(conn, &format!(r#"{{"id":5,"method":"mining.authorize","params":["{user}"]}}"#));
        let lines = world.lines(conn);
        let told = lines.iter().filter(|line| line["error"][0] == 24).count();
        assert_eq!((told, pushed(&lines, "client.show_message").len()), (1, times), "{lines:?}");
    }
    world.line(conn, &authorize());
    assert!(notify(&world.lines(conn)).is_some(), "and it may be mended");
}

fn subscribe_again(world: &mut World<crate::testing::Recorder>, ip: [u8; 4], session: &str) -> (rockpool_net::id::ConnId, String) {
    let conn = world.connect_from(ip, STRATUM);
    world.line(conn, &format!(r#"{{"id":1,"method":"mining.subscribe","params":["test/1","{session}"]}}"#));
    let lines = world.lines(conn);
    let extranonce1 = lines[0]["result"][1].as_str().unwrap().to_owned();
    assert_eq!(lines[0]["result"][0][1][1], json!(extranonce1), "it is the session's name too");
    (conn, extranonce1)
}

#[test]
fn a_session_goes_on_where_it_was_and_never_twice() {
    let (home, away) = ([127, 0, 0, 1], [127, 0, 0, 2]);
    let (mut world, _) = serving();
    let (conn, session) = subscribe_again(&mut world, home, "ffffffff");
    world.line(conn, &authorize());
    let job = notify(&world.lines(conn)).unwrap().clone();
    world.line(conn, &submit(&job, 1));
    let first = emitted(&mut world).remove(0);
    judge(&mut world, first, Ok(()));
    let (live, taken) = subscribe_again(&mut world, home, &session);
    assert_ne!(taken, session, "another's, who is there");
    world.hang_up(live);
    world.hang_up(conn);
    let (stranger, taken) = subscribe_again(&mut world, away, &session);
    assert_ne!(taken, session, "names can be guessed");
    let (again, taken) = subscribe_again(&mut world, home, &session);
    assert_eq!(taken, session);
    let (third, other) = subscribe_again(&mut world, home, &session);
    assert!(other != session && stranger != third);
    world.line(again, &authorize());
    let lines = world.lines(again);
    let fresh = notify(&lines).unwrap().clone();
    assert!(fresh[8] == true && fresh[0] != job[0], "the first job is clean, and never one that it had");
    assert!(fresh[7].as_str() > job[7].as_str(), "the same headers again");
    world.line(again, &submit(&job, 1));
    assert_eq!(error_code(&world.lines(again)), 22, "what counted before does not count again");
    world.line(again, &submit(&job, 2));
    let late = emitted(&mut world).remove(0);
    assert_eq!(super::hex(&late.extranonce[..4]), session);
    judge(&mut world, late, Ok(()));
}

#[test]
fn what_is_taken_up_again_is_worth_no_more_than_it_was() {
    let home = [127, 0, 0, 1];
    // A new block: its jobs are stale.
    let (mut world, bitcoin) = serving();
    let (conn, session) = subscribe_again(&mut world, home, "");
    world.line(conn, &authorize());
    let job = notify(&world.lines(conn)).unwrap().clone();
    world.hang_up(conn);
    let mut template = bitcoin.template(world.now().unix());
    (template.prev, template.height, template.sequence) = ([9; 32], template.height + 1, 3);
    world.mail(rockpool_workers::jobs::Answer::Template(std::sync::Arc::new(template)), Vec::new());
    let (conn, taken) = subscribe_again(&mut world, home, &session);
    assert_eq!(taken, session);
    world.line(conn, &authorize());
    world.lines(conn);
    world.line(conn, &submit(&job, 1));
    assert_eq!(error_code(&world.lines(conn)), 21);
    // Another payee: its jobs are not that one's.
    let (mut world, _) = serving();
    let (conn, session) = subscribe_again(&mut world, home, "");
    world.line(conn, &authorize());
    let job = notify(&world.lines(conn)).unwrap().clone();
    world.hang_up(conn);
    let (conn, _) = subscribe_again(&mut world, home, &session);
    world.line(conn, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{OTHER}","x"]}}"#));
    world.lines(conn);
    world.line(conn, &submit(&job, 1));
    assert_eq!(error_code(&world.lines(conn)), 21);
    // Too late, and one that never worked.
    let (mut world, _) = serving();
    let (conn, _) = miner(&mut world);
    world.line(conn, SUBSCRIBE);
    let session = world.lines(conn)[0]["result"][1].as_str().unwrap().to_owned();
    world.hang_up(conn);
    world.pass(RESUME_TIME + Duration::from_secs(1));
    let (idle, fresh) = subscribe_again(&mut world, home, &session);
    assert_ne!(fresh, session);
    world.hang_up(idle);
    assert_ne!(subscribe_again(&mut world, home, &fresh).1, fresh);
}

/// A device that was led to its difficulty is not led there anew.
#[test]
fn difficulty_is_taken_up_again() {
    let main = params(Network::Main);
    let mut world = World::whole_of(main, &[], 6);
    let template = rockpool_workers::embedded::EmbeddedChain::new(crate::testing::regtest(), None).template(world.now().unix());
    let template = rockpool_workers::template::Template { bits: 0x1d00_ffff, ..template };
    world.mail(rockpool_workers::jobs::Answer::Template(std::sync::Arc::new(template)), Vec::new());
    world.settle();
    let begin = |world: &mut World<_>, session: &str| {
        let conn = world.connect(STRATUM);
        world.line(conn, &format!(r#"{{"id":1,"method":"mining.subscribe","params":["x","{session}"]}}"#));
        let session = world.lines(conn)[0]["result"][1].as_str().unwrap().to_owned();
        world.line(conn, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{MAIN}","x"]}}"#));
        (conn, session, difficulty(&world.lines(conn)).unwrap())
    };
    let (conn, session, start) = begin(&mut world, "");
    world.line(conn, r#"{"id":3,"method":"mining.suggest_difficulty","params":[0.25]}"#);
    world.hang_up(conn);
    let (_, again, told) = begin(&mut world, &session);
    assert_eq!((start, told, again == session), (1.0, 0.25, true));
}

#[test]
fn the_operators_rules_say_what_a_device_gets() {
    let (mut world, _) = serving();
    world.node.server.firmware = Firmware { rules: vec!["test/=1".parse().unwrap()] };
    let conn = world.connect(STRATUM);
    world.line(conn, SUBSCRIBE);
    world.line(conn, &authorize());
    let lines = world.lines(conn);
    assert!(pushed(&lines, "client.show_message")[0].as_str().unwrap().contains("lottery"));
    world.line(conn, &submit(notify(&lines).unwrap(), 1));
    assert_eq!(emitted(&mut world)[0].work.kind, Kind::Lottery);
}

/// A device that only sends again what it had sent, or goes on with an old job, is told to drop its work; with another extranonce1, if it
/// takes one, it hashes what nobody has hashed.
#[test]
fn a_device_that_is_stuck_is_helped_out() {
    let good = |world: &mut World<_>, conn, line: &str| {
        world.line(conn, line);
        let job = emitted(world).remove(0);
        let extranonce1 = super::hex(&job.extranonce[..4]);
        judge(world, job, Ok(()));
        world.lines(conn);
        extranonce1
    };
    for (takes, refused, stuck) in [(true, STUCK_SUBMITS, true), (false, STUCK_SUBMITS, true), (true, STUCK_SUBMITS - 1, false)] {
        let (mut world, bitcoin) = serving();
        let (conn, job) = miner(&mut world);
        if takes {
            world.line(conn, r#"{"id":3,"method":"mining.extranonce.subscribe","params":[]}"#);
        }
        let before = good(&mut world, conn, &submit(&job, 1));
        for number in 0..refused {
            let line = submit(&job, 1);
            world.line(conn, &if number % 2 == 0 { line } else { line.replacen(job[0].as_str().unwrap(), "7777", 1) });
        }
        world.lines(conn);
        // The next job that it gets anyhow, for whatever reason.
        if takes {
            world.pass(NOTIFY_EVERY);
        } else {
            world.template(&bitcoin, 2);
        }
        let lines = world.lines(conn);
        let fresh = notify(&lines).unwrap();
        assert_eq!(fresh[8], stuck, "{takes} {refused}");
        let told: Vec<&Value> = lines.iter().filter(|line| line["method"] == "mining.set_extranonce").collect();
        assert_eq!(told.len(), usize::from(stuck && takes));
        let after = good(&mut world, conn, &submit(fresh, 1));
        match told.first() {
            Some(told) => assert_eq!((&told["params"], &told["id"]), (&json!([after, 8]), &Value::Null)),
            None => assert_eq!(after, before),
        }
        assert_eq!(after != before, stuck && takes);
        world.pass(NOTIFY_EVERY);
        assert_eq!(notify(&world.lines(conn)).unwrap()[8], false, "once helped is enough");
    }
}

/// A fast miner far away goes on with a block for as long as word of the next one is under way, twice. Its new work is not taken away for
/// that, or it would never get anything in while its line is slower than jobs follow each other.
#[test]
fn a_miner_with_a_slow_line_is_not_stuck() {
    for (passed, stuck) in [(STALE_EXCUSED - Duration::from_secs(1), false), (STALE_EXCUSED, true)] {
        let (mut world, bitcoin) = serving();
        let (conn, old) = miner(&mut world);
        world.line(conn, r#"{"id":3,"method":"mining.extranonce.subscribe","params":[]}"#);
        let on_next = |sequence: u64| {
            let template = bitcoin.template(1_700_000_000);
            let (prev, height, mintime) = ([9; 32], template.height + 1, template.mintime + sequence as u32);
            rockpool_workers::jobs::Answer::Template(Arc::new(Template { prev, height, mintime, sequence, ..template }))
        };
        world.mail(on_next(2), Vec::new());
        let first = notify(&world.lines(conn)).unwrap().clone();
        world.pass(passed);
        (0..2 * STUCK_SUBMITS).for_each(|nonce| world.line(conn, &submit(&old, nonce)));
        world.lines(conn);
        world.mail(on_next(3), Vec::new());
        let lines = world.lines(conn);
        assert_eq!(notify(&lines).unwrap()[8], stuck);
        assert_eq!(lines.iter().any(|line| line["method"] == "mining.set_extranonce"), stuck);
        world.line(conn, &submit(&first, 1));
        assert_eq!(emitted(&mut world).len(), usize::from(!stuck), "what it finds in the new work");
    }
}

/// p2poolv2 takes all work away with each share of the chain, every ten seconds.
#[test]
fn a_new_share_tip_takes_no_work_away() {
    let (mut world, _) = serving();
    let (conn, first) = miner(&mut world);
    let mut grower = Grower::new();
    let script = crate::stratum::request::login(OTHER, Network::Regtest).unwrap().0;
    let mut shares = Vec::new();
    for _ in 0..JOBS_PAST_MAX / 2 {
        shares.push(grower.grow(script));
        world.confirm(&shares);
        let lines = world.lines(conn);
        assert_eq!(notify(&lines).unwrap()[8], false);
        assert!(lines.len() <= 2, "a job and at most a difficulty: {lines:?}");
    }
    world.line(conn, &submit(&first, 1));
    assert_eq!(emitted(&mut world).len(), 1, "what it was given before the tips changed");
}
