//! Miners against a whole node: the hub is real, the wires are in memory, the stages keep their jobs.
//!
//! What is known to be amiss in p2poolv2's server, and the test that it is not so here:
//!
//! | there | here |
//! |---|---|
//! | unknown methods end the connection | `methods_that_nobody_knows_are_answered` |
//! | so does bad JSON | `what_is_no_json_is_told_and_ends_a_connection_that_says_nothing_else` |
//! | so does a second subscribe or authorize | `the_reply_to_subscribe_is_the_very_next_line`, `to_authorise_again_changes_nothing` |
//! | so does a second bad user name | `a_bad_address_is_shown_once` |
//! | difficulty is suggested in whole numbers, 100 at least | `nerdminer`, `odd_forms_are_read` |
//! | the mask that is asked for is ignored | `nerdqaxe`, `configure_takes_every_mask` |
//! | an authorised miner that is silent stays for ever | `deadlines_hold_for_who_says_nothing_or_not_enough` |
//! | nothing limits connections of an address, excess goes unsaid | `miners_are_limited_in_all_and_by_address` |
//! | difficulty falls with a submit alone | `a_slow_device_is_led_down_in_minutes` |
//! | difficulty is not bounded by the share chain's | `difficulty_is_never_harder_than_the_share_chains` |
//! | submits are judged by the newest difficulty | `submits_are_judged_by_their_jobs` |
//! | one that is too easy is `false` without an error, header times go unchecked | `refusals_have_the_standard_codes` |
//! | an error's third item is a text | `unknown_methods_are_refused_without_a_disconnect` |
//! | jobs stay for half an hour, in memory for each miner | `past_jobs_are_bounded`, `boards_are_limited` |
//! | each share of the chain takes all work away | `a_new_share_tip_takes_no_work_away` |
//! | the port is shut until the chain is there | `without_a_peer_miners_wait_and_are_told_once` |
//! | a restart leaves devices without work until the next notify | `handshakes_in_every_order_that_firmware_uses_lead_to_a_job` |
//! | one coinbase for all, of 500 payees | `coinbases_fit_their_devices` |
//! | one large miner shuts out the small | `a_script_of_many_shares_is_given_harder_jobs` |

use std::sync::Arc;
use std::time::Duration;

use rockpool_net::id::ConnId;
use rockpool_net::wire::message::TxIds;
use rockpool_net::wire::share::{Class, Layout};
use rockpool_store::rules::difficulty::bits_in_range;
use rockpool_store::rules::target::{compact_of, target_bytes};
use rockpool_workers::embedded::EmbeddedChain;
use rockpool_workers::jobs::{Answer, EmissionJob, SubmitRefusal};
use rockpool_workers::template::Tx;
use serde_json::{Value, json};

use crate::config::Mode;
use crate::limits::{
    AUTHORIZE_MAX, BAN_TIME, BOARDS_MAX, FIRST_LINE_MAX, HARDER_SHARES_MIN, INVALID_SUBMITS_MAX, JOBS_PAST_MAX, MINER_IDLE_MAX,
    NOTIFY_EVERY, SUBMITS_SEEN_MAX,
};
use crate::stratum;
use crate::stratum::jobs::hex;
use crate::stratum::{FRIENDLY, Server};
use crate::testing::{ADDRESS, Grower, Recorder, STRATUM, World, regtest};

mod families;
mod fuzzed;
mod hostile;
mod modes;
mod protocol;
mod work;

const SUBSCRIBE: &str = r#"{"id":1,"method":"mining.subscribe","params":["test/1"]}"#;

fn authorize() -> String {
    format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}.rig","x"]}}"#)
}

/// A node that serves miners, and its Bitcoin.
fn serving() -> (World<Recorder>, EmbeddedChain) {
    let mut world = World::recorded(&[], true);
    let bitcoin = EmbeddedChain::new(regtest(), None);
    world.template(&bitcoin, 1);
    (world, bitcoin)
}

/// A miner at work, what it was told while it came taken away; its last job's parameters.
fn miner(world: &mut World<Recorder>) -> (ConnId, Value) {
    let conn = world.connect(STRATUM);
    world.line(conn, SUBSCRIBE);
    world.line(conn, &authorize());
    let lines = world.lines(conn);
    (conn, notify(&lines).expect("a job").clone())
}

fn notify(lines: &[Value]) -> Option<&Value> {
    lines.iter().rev().find(|line| line["method"] == "mining.notify").map(|line| &line["params"])
}

fn difficulty(lines: &[Value]) -> Option<f64> {
    lines.iter().rev().find(|line| line["method"] == "mining.set_difficulty").and_then(|line| line["params"][0].as_f64())
}

fn submit(job: &Value, nonce: u32) -> String {
    let (id, ntime) = (job[0].as_str().unwrap(), job[7].as_str().unwrap());
    format!(r#"{{"id":4,"method":"mining.submit","params":["w","{id}","0000000000000001","{ntime}","{nonce:08x}"]}}"#)
}

fn error_code(lines: &[Value]) -> i64 {
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["result"], Value::Null);
    lines[0]["error"][0].as_i64().unwrap()
}

fn emitted(world: &mut World<Recorder>) -> Vec<EmissionJob> {
    std::mem::take(&mut world.node.stages_mut().jobs.emission)
}

/// The stages' word on a job, with its ticket.
fn judge(world: &mut World<Recorder>, job: EmissionJob, result: Result<(), SubmitRefusal>) {
    world.mail(Answer::Verdict { claim: job.claim, result }, vec![job.ticket]);
}

#[test]
fn handshakes_in_every_order_that_firmware_uses_lead_to_a_job() {
    let configure = r#"{"id":0,"method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"ffffffff"}]}"#;
    let suggest = r#"{"id":7,"method":"mining.suggest_difficulty","params":[0.00015]}"#;
    let extranonce = r#"{"id":8,"method":"mining.extranonce.subscribe","params":[]}"#;
    let agent = r#"{"id":1,"method":"mining.subscribe","params":["Antminer S19k Pro|LUXminer 1",null,"host:port",null]}"#;
    let bare = format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}"]}}"#);
    let authorize = authorize();
    let orders: [&[&str]; 6] = [
        &[configure, SUBSCRIBE, &authorize, suggest, extranonce],
        &[SUBSCRIBE, &authorize, suggest],
        &[configure, agent, &authorize],
        &[SUBSCRIBE, &authorize],
        &[&bare, SUBSCRIBE],
        &[suggest, extranonce, &bare, configure, SUBSCRIBE],
    ];
    for order in orders {
        for at_once in [false, true] {
            let (mut world, _) = serving();
            let conn = world.connect(STRATUM);
            if at_once {
                world.feed(conn, format!("  \r\n\n{}\r\n", order.join("\r\n")).as_bytes());
                world.turns();
            } else {
                order.iter().for_each(|line| world.line(conn, line));
            }
            let lines = world.lines(conn);
            let job = notify(&lines).unwrap();
            assert_eq!(job[8], true, "the first job is clean");
            assert!(difficulty(&lines).is_some());
            let replies: Vec<&Value> = lines.iter().filter(|line| line.get("method").is_none()).collect();
            assert_eq!(replies.len(), order.len(), "{replies:?}");
            assert!(replies.iter().all(|reply| reply["error"] == Value::Null), "{replies:?}");
        }
    }
}

#[test]
fn the_reply_to_subscribe_is_the_very_next_line() {
    let (mut world, _) = serving();
    let conn = world.connect(STRATUM);
    world.line(conn, SUBSCRIBE);
    let lines = world.lines(conn);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["id"], 1);
    assert_eq!(lines[0]["result"][0][0][0], "mining.set_difficulty");
    assert_eq!(lines[0]["result"][0][1][0], "mining.notify");
    let extranonce1 = lines[0]["result"][1].as_str().unwrap().to_owned();
    assert_eq!((extranonce1.len(), lines[0]["result"][2].as_u64()), (8, Some(8)));
    let other = world.connect(STRATUM);
    world.line(other, SUBSCRIBE);
    assert_ne!(world.lines(other)[0]["result"][1], json!(extranonce1), "each has its own");
    world.line(conn, SUBSCRIBE);
    assert_eq!(world.lines(conn)[0]["result"][1], json!(extranonce1), "and keeps it");
}

#[test]
fn request_ids_come_back_exactly() {
    let (mut world, _) = serving();
    let conn = world.connect(STRATUM);
    for id in ["17", "\"x\\u00e9\"", "1.50", "null", "[1,{\"a\":2}]", "-3"] {
        world.feed(conn, format!("{{\"id\":{id},\"method\":\"mining.ping\"}}\n").as_bytes());
        world.turns();
        let said = String::from_utf8(world.taken(conn)).unwrap();
        assert_eq!(said, format!("{{\"id\":{id},\"result\":\"pong\",\"error\":null}}\n"));
    }
}

#[test]
fn configure_grants_what_it_can() {
    let (mut world, _) = serving();
    let conn = world.connect(STRATUM);
    let all = r#"["version-rolling","minimum-difficulty","subscribe-extranonce","tea"]"#;
    let options = r#"{"version-rolling.mask":"1fffe000","minimum-difficulty.value":2048}"#;
    world.line(conn, &format!(r#"{{"id":3,"method":"mining.configure","params":[{all},{options}]}}"#));
    let wanted = json!({
        "version-rolling": true, "version-rolling.mask": "1fffe000", "minimum-difficulty": false, "subscribe-extranonce": true,
    });
    assert_eq!(world.lines(conn)[0]["result"], wanted);
}

#[test]
fn unknown_methods_are_refused_without_a_disconnect() {
    let (mut world, _) = serving();
    let conn = world.connect(STRATUM);
    world.line(conn, r#"{"id":9,"method":"mining.dance","params":[]}"#);
    assert_eq!(world.lines(conn), [json!({"id": 9, "result": null, "error": [-3, "Method not found", null]})]);
    world.line(conn, r#"{"id":10,"result":true,"error":null}"#);
    assert!(world.lines(conn).is_empty(), "an answer is not answered");
    assert!(world.is_open(conn));
}

#[test]
fn a_flood_of_invalid_shares_ends_the_connection_and_bans_a_stranger() {
    for (ip, banned) in [([8, 8, 8, 8], true), ([192, 168, 1, 7], false)] {
        for subscribed in [false, true] {
            let (mut world, _) = serving();
            let conn = world.connect_from(ip, STRATUM);
            let job = if subscribed {
                world.line(conn, SUBSCRIBE);
                world.line(conn, &authorize());
                notify(&world.lines(conn)).unwrap().clone()
            } else {
                json!(["1", "", "", "", [], "", "", "00000000", true])
            };
            let bad = |nonce: u32| submit(&job, nonce).replace("0000000000000001", "0001");
            let lines: Vec<String> = (1..INVALID_SUBMITS_MAX).map(bad).collect();
            world.feed(conn, format!("{}\n", lines.join("\n")).as_bytes());
            world.turns();
            assert!(world.is_open(conn));
            world.line(conn, &bad(0));
            assert!(!world.is_open(conn));
            let again = world.connect_from(ip, STRATUM);
            assert_eq!(world.is_open(again), !banned, "{ip:?}");
            let other = world.connect_from([8, 8, 4, 4], STRATUM);
            assert!(world.is_open(other));
            world.skip(BAN_TIME);
            let again = world.connect_from(ip, STRATUM);
            assert!(world.is_open(again), "it is over after a while");
        }
    }
}

/// NerdQAxe sends a thousand duplicates a day: told each time, never held against it. Nor is what comes late.
#[test]
fn duplicates_and_stale_shares_are_no_flood() {
    let (mut world, _) = serving();
    let (conn, job) = miner(&mut world);
    world.line(conn, &submit(&job, 1));
    let stale = json!(["7fff", "", "", "", [], "", "", "00000000", true]);
    for _ in 0..INVALID_SUBMITS_MAX {
        world.line(conn, &submit(&job, 1));
        world.line(conn, &submit(&stale, 1));
    }
    assert!(world.is_open(conn));
    assert_eq!(emitted(&mut world).len(), 1);
}

#[test]
fn a_bad_address_is_told_and_may_be_mended() {
    let (mut world, _) = serving();
    let conn = world.connect(STRATUM);
    world.line(conn, SUBSCRIBE);
    world.lines(conn);
    world.line(conn, r#"{"id":2,"method":"mining.authorize","params":["bob","x"]}"#);
    assert_eq!(error_code(&world.lines(conn)[..1]), 24);
    world.line(conn, r#"{"id":2,"method":"mining.authorize","params":[null,"x"]}"#);
    assert_eq!(error_code(&world.lines(conn)), 24);
    world.line(conn, &authorize());
    assert!(notify(&world.lines(conn)).is_some());
    assert_eq!(world.node.status(world.now()).miners, 1);
}

#[test]
fn submits_in_no_state_for_it_are_refused() {
    let (mut world, _) = serving();
    let job = json!(["1", "", "", "", [], "", "", "00000000", true]);
    let conn = world.connect(STRATUM);
    world.line(conn, &submit(&job, 1));
    assert_eq!(error_code(&world.lines(conn)), 25);
    world.line(conn, SUBSCRIBE);
    world.lines(conn);
    world.line(conn, &submit(&job, 1));
    assert_eq!(error_code(&world.lines(conn)), 24);
    assert!(emitted(&mut world).is_empty());
    assert_eq!(world.hub.outlet().tickets_out(), 0);
}

#[test]
fn a_submit_becomes_a_job_and_its_verdict_a_reply() {
    let (mut world, _) = serving();
    let (conn, job) = miner(&mut world);
    world.line(conn, &submit(&job, 0x0102_0304));
    let emission = emitted(&mut world).remove(0);
    assert!(world.lines(conn).is_empty(), "it is answered when it is judged");
    assert_eq!(world.hub.outlet().tickets_out(), 1);
    assert_eq!((emission.nonce, &emission.extranonce[4..]), (0x0102_0304, &[0, 0, 0, 0, 0, 0, 0, 1][..]));
    assert_ne!(emission.extranonce[..4], [0; 4]);
    assert_eq!(emission.version, emission.work.template.version);
    judge(&mut world, emission, Ok(()));
    assert_eq!(world.lines(conn), [json!({"id": 4, "result": true, "error": null})]);
    assert_eq!(world.hub.outlet().tickets_out(), 0);
    let refusals = [
        (SubmitRefusal::Stale, 21),
        (SubmitRefusal::Duplicate, 22),
        (SubmitRefusal::LowDifficulty, 23),
        (SubmitRefusal::BadField("x"), 20),
        (SubmitRefusal::Refused("y"), 20),
    ];
    for (nonce, (refusal, code)) in (1..).zip(refusals) {
        world.line(conn, &submit(&job, nonce));
        let emission = emitted(&mut world).remove(0);
        judge(&mut world, emission, Err(refusal));
        assert_eq!(error_code(&world.lines(conn)), code);
    }
    let status = world.node.status(world.now());
    assert_eq!((status.accepted, status.rejected), (1, 5));
}

#[test]
fn a_submit_waits_for_the_disk_when_it_is_a_share() {
    let (mut world, _) = serving();
    let (conn, job) = miner(&mut world);
    world.line(conn, &submit(&job, 1));
    let emission = emitted(&mut world).remove(0);
    world.mail(Answer::Stored { ids: Vec::new(), claims: vec![emission.claim] }, vec![emission.ticket]);
    assert_eq!(world.lines(conn)[0]["result"], true);
}

#[test]
fn a_verdict_for_a_miner_that_left_reaches_nobody() {
    let (mut world, _) = serving();
    let (conn, job) = miner(&mut world);
    world.line(conn, &submit(&job, 1));
    let emission = emitted(&mut world).remove(0);
    world.hang_up(conn);
    let next = world.connect(STRATUM);
    judge(&mut world, emission, Ok(()));
    assert!(world.lines(next).is_empty());
    assert_eq!(world.hub.outlet().tickets_out(), 0);
}

#[test]
fn fields_out_of_form_are_told() {
    let (mut world, _) = serving();
    let (conn, job) = miner(&mut world);
    let good = submit(&job, 7);
    for bad in [
        good.replace("0000000000000001", "00000001"),
        good.replace("00000007\"", "0000000g\""),
        good.replace("00000007\"", "00000007\",\"20000000\""),
        good.replace("00000007\"", "00000007\",7"),
    ] {
        world.line(conn, &bad);
        assert_eq!(error_code(&world.lines(conn)), 20, "{bad}");
    }
    assert!(emitted(&mut world).is_empty());
    // The bits are rolled without having been negotiated, as some firmware does.
    world.line(conn, &good.replace("00000007\"", "00000007\",\"00002000\""));
    assert_eq!(emitted(&mut world)[0].version & 0x1fff_e000, 0x2000);
}

#[test]
fn the_same_submit_again_is_a_duplicate_whatever_the_job_says() {
    let (mut world, bitcoin) = serving();
    let (conn, job) = miner(&mut world);
    world.line(conn, &submit(&job, 1));
    assert_eq!(emitted(&mut world).len(), 1);
    world.line(conn, &submit(&job, 1));
    assert_eq!(error_code(&world.lines(conn)), 22);
    // A new job on the same work: a device that starts over must not hash the same headers again.
    world.line(conn, r#"{"id":7,"method":"mining.suggest_difficulty","params":[0.00002]}"#);
    let lines = world.lines(conn);
    let again = notify(&lines).unwrap_or(&job).clone();
    world.line(conn, &submit(&again, 1));
    let fresh = emitted(&mut world).len();
    assert_eq!(fresh == 1, again[0] != job[0]);
    // Ids are never reused, and other work is other work.
    world.template(&bitcoin, 2);
    let lines = world.lines(conn);
    let other = notify(&lines).unwrap();
    assert_ne!(other[0], job[0]);
    world.line(conn, &submit(other, 1));
    assert_eq!(emitted(&mut world).len(), 1);
}

#[test]
fn remembered_submits_are_bounded() {
    let (mut world, bitcoin) = serving();
    let (conn, job) = miner(&mut world);
    for nonce in 0..SUBMITS_SEEN_MAX as u32 + 10 {
        world.line(conn, &submit(&job, nonce));
        let emission = emitted(&mut world).remove(0);
        assert_eq!(emission.unpaid.is_some(), nonce >= SUBMITS_SEEN_MAX as u32);
        // The chain's own refusal: as many of the miner's fault would be a flood.
        judge(&mut world, emission, Err(SubmitRefusal::Refused("x")));
    }
    world.lines(conn);
    // Beyond the bound the oldest is forgotten: it goes to the stages again. The share chain has a share but once, and a pool of our own
    // miners must not pay for it once more.
    world.line(conn, &submit(&job, SUBMITS_SEEN_MAX as u32 + 9));
    assert_eq!(error_code(&world.lines(conn)), 22);
    for _ in 0..2 {
        world.line(conn, &submit(&job, 0));
        let again = emitted(&mut world);
        assert!(again.len() == 1 && again[0].unpaid.is_some());
    }
    world.template(&bitcoin, 2);
    let lines = world.lines(conn);
    world.line(conn, &submit(notify(&lines).unwrap(), 0));
    assert!(emitted(&mut world)[0].unpaid.is_none(), "new work counts again");
}

/// Where each submit is credited, no hash can be handed in for the hardest of many jobs that it meets: they are jobs on other headers.
#[test]
fn in_a_pool_of_our_own_a_hash_is_credited_as_what_it_was_looked_for() {
    let mut world = World::recorded(&[], true);
    world.node.server.boards.mode = Mode::Standalone;
    world.template(&EmbeddedChain::new(regtest(), None), 1);
    let (conn, job) = miner(&mut world);
    let mut coinbases = vec![job[3].clone()];
    for difficulty in [1e-4, 2e-4, 5e-4] {
        world.line(conn, &format!(r#"{{"id":5,"method":"mining.suggest_difficulty","params":[{difficulty}]}}"#));
        let lines = world.lines(conn);
        let other = notify(&lines).unwrap();
        assert_eq!((&other[1], &other[2]), (&job[1], &job[2]));
        assert!(!coinbases.contains(&other[3]), "{difficulty}");
        coinbases.push(other[3].clone());
        world.line(conn, &submit(other, 1));
        let emission = emitted(&mut world).remove(0);
        assert_eq!(emission.bits, compact_of(&emission.target));
        judge(&mut world, emission, Err(SubmitRefusal::Refused("x")));
        world.lines(conn);
    }
}

#[test]
fn jobs_die_with_their_block_and_outlive_a_new_template_of_it() {
    let (mut world, bitcoin) = serving();
    let (conn, job) = miner(&mut world);
    world.template(&bitcoin, 2);
    let lines = world.lines(conn);
    assert_eq!(notify(&lines).unwrap()[8], false);
    world.line(conn, &submit(&job, 1));
    assert_eq!(emitted(&mut world).len(), 1, "a past job of the same block is taken");
    let mut template = bitcoin.template(world.now().unix());
    (template.prev, template.height, template.sequence) = ([9; 32], template.height + 1, 3);
    world.mail(Answer::Template(Arc::new(template)), Vec::new());
    let lines = world.lines(conn);
    assert_eq!(notify(&lines).unwrap()[8], true);
    world.line(conn, &submit(&job, 2));
    assert_eq!(error_code(&world.lines(conn)), 21);
    world.template(&bitcoin, 2);
    assert!(world.lines(conn).is_empty(), "an older template changes nothing");
}

#[test]
fn past_jobs_are_bounded() {
    let (mut world, bitcoin) = serving();
    let (conn, first) = miner(&mut world);
    let mut jobs = vec![first];
    for sequence in 0..JOBS_PAST_MAX as u64 + 1 {
        world.template(&bitcoin, sequence + 2);
        jobs.push(notify(&world.lines(conn)).unwrap().clone());
    }
    world.line(conn, &submit(&jobs[0], 1));
    assert_eq!(error_code(&world.lines(conn)), 21);
    world.line(conn, &submit(&jobs[1], 1));
    assert_eq!(emitted(&mut world).len(), 1);
}

#[test]
fn a_job_comes_at_least_every_minute_with_fresh_times() {
    let (mut world, _) = serving();
    let (conn, mut last) = miner(&mut world);
    for _ in 0..5 {
        world.pass(NOTIFY_EVERY);
        world.line(conn, r#"{"id":1,"method":"mining.ping"}"#);
        let lines = world.lines(conn);
        let next = notify(&lines).unwrap().clone();
        assert_ne!(next[0], last[0]);
        assert!(next[7].as_str() > last[7].as_str(), "ntime stands still");
        assert_ne!(next[3], last[3], "share time stands still");
        assert_eq!(next[8], false);
        last = next;
    }
}

#[test]
fn difficulty_is_never_harder_than_the_share_chains() {
    let (mut world, _) = serving();
    let conn = world.connect(STRATUM);
    world.line(conn, SUBSCRIBE);
    world.line(conn, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}","d=100000"]}}"#));
    let lines = world.lines(conn);
    world.line(conn, &submit(notify(&lines).unwrap(), 1));
    let job = emitted(&mut world).remove(0);
    assert!(rockpool_workers::work::meets(&target_bytes(job.bits), &job.target), "a share would be lost");
    assert_eq!(difficulty(&lines), Some(job.claim.difficulty));
}

#[test]
fn deadlines_hold_for_who_says_nothing_or_not_enough() {
    let (mut world, _) = serving();
    let silent = world.connect(STRATUM);
    let nameless = world.connect(STRATUM);
    world.line(nameless, SUBSCRIBE);
    let (idle, _) = miner(&mut world);
    let aloof = world.connect(STRATUM);
    world.line(aloof, &authorize());
    world.pass(FIRST_LINE_MAX);
    assert!(!world.is_open(silent) && world.is_open(nameless) && world.is_open(aloof));
    for _ in 0..5 {
        world.line(nameless, r#"{"id":1,"method":"mining.ping"}"#);
        world.line(aloof, r#"{"id":1,"method":"mining.ping"}"#);
        world.pass((AUTHORIZE_MAX - FIRST_LINE_MAX) / 5);
    }
    assert!(!world.is_open(nameless) && !world.is_open(aloof), "words do not put the deadline off");
    world.pass(MINER_IDLE_MAX - AUTHORIZE_MAX - Duration::from_secs(5));
    assert!(world.is_open(idle));
    world.pass(Duration::from_secs(6));
    assert!(!world.is_open(idle));
}

#[test]
fn without_a_peer_miners_wait_and_are_told_once() {
    let mut world = World::recorded(&[], false);
    world.template(&EmbeddedChain::new(regtest(), None), 1);
    let conn = world.connect(STRATUM);
    world.line(conn, SUBSCRIBE);
    world.line(conn, &authorize());
    world.template(&EmbeddedChain::new(regtest(), None), 2);
    let lines = world.lines(conn);
    assert!(notify(&lines).is_none());
    assert_eq!(lines.iter().filter(|line| line["method"] == "client.show_message").count(), 1);
}

#[test]
fn transactions_are_listed_while_they_are_few() {
    let (mut world, _) = serving();
    let (conn, job) = miner(&mut world);
    world.line(conn, &format!(r#"{{"id":5,"method":"mining.get_transactions","params":[{}]}}"#, job[0]));
    assert_eq!(world.lines(conn)[0]["result"], json!([]));
    world.line(conn, r#"{"id":5,"method":"mining.get_transactions","params":["ffff"]}"#);
    assert_eq!(error_code(&world.lines(conn)), 21);
    let mut template = EmbeddedChain::new(regtest(), None).template(world.now().unix());
    let data = vec![0; crate::limits::TRANSACTIONS_BYTES_MAX + 1].into();
    (template.sequence, template.txs) = (9, vec![Arc::new(Tx { ids: TxIds { txid: [1; 32], wtxid: [1; 32] }, data })]);
    template.trims.iter_mut().for_each(|trim| trim.kept = 1);
    world.mail(Answer::Template(Arc::new(template)), Vec::new());
    world.lines(conn);
    world.line(conn, r#"{"id":5,"method":"mining.get_transactions","params":[]}"#);
    assert_eq!(error_code(&world.lines(conn)), 20);
}

#[test]
fn a_browser_on_this_port_gets_a_friendly_answer() {
    let (mut world, _) = serving();
    let conn = world.connect(STRATUM);
    world.feed(conn, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    world.turns();
    let said = String::from_utf8(world.taken(conn)).unwrap();
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.contains("stratum+tcp"), "{said}");
    assert!(!world.is_open(conn));
}

#[test]
fn extranonces_are_never_zero() {
    let mut server = Server::new(u32::MAX - 1);
    assert_eq!(server.extranonce1(), [0xff; 4]);
    assert_eq!(server.extranonce1(), [0, 0, 0, 1]);
    assert_eq!(server.extranonce1(), [0, 0, 0, 2]);
}

#[test]
fn the_friendly_answer_says_its_length() {
    let (head, body) = FRIENDLY.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
}

/// On genesis each script has work of its own; a stranger who names thousands does not fill the memory with it.
#[test]
fn boards_are_limited() {
    let (mut world, _) = serving();
    let mut most = (0, 0);
    for number in 0..3 * BOARDS_MAX as u32 {
        let mut hash = [7; 20];
        hash[..4].copy_from_slice(&number.to_le_bytes());
        let program = bitcoin::WitnessProgram::new(bitcoin::WitnessVersion::V0, &hash).unwrap();
        let address = bitcoin::Address::from_witness_program(program, bitcoin::Network::Regtest);
        let conn = world.connect(STRATUM);
        world.line(conn, SUBSCRIBE);
        for password in ["x", "c=1"] {
            world.line(conn, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{address}","{password}"]}}"#));
            let held = world.node.server.boards.held();
            most = (held.0.max(most.0), held.1.max(most.1));
        }
        world.hang_up(conn);
    }
    assert_eq!(most, (BOARDS_MAX, BOARDS_MAX));
}

#[test]
fn firmware_and_password_say_what_coinbase_a_miner_gets() {
    let (mut world, _) = serving();
    let conn = world.connect(STRATUM);
    let job = |world: &mut World<Recorder>, line: &str| {
        world.line(conn, line);
        let lines = world.lines(conn);
        let Some(job) = notify(&lines) else { panic!("no job after {line}") };
        assert_eq!(job[8], true, "what it had is of another form");
        world.line(conn, &submit(job, 1));
        let emitted = emitted(world).remove(0);
        let form = (emitted.work.draft.class, emitted.work.draft.layout);
        judge(world, emitted, Ok(()));
        world.lines(conn);
        (form, job[3].as_str().unwrap().len() > 72)
    };
    world.line(conn, r#"{"id":1,"method":"mining.subscribe","params":["bitaxe/BM1370/v2.9.0"]}"#);
    world.lines(conn);
    assert_eq!(job(&mut world, &authorize()), ((Class::N144, Layout::Front), true));
    let told = format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}.rig","c=360,l=tail"]}}"#);
    assert_eq!(job(&mut world, &told), ((Class::N360, Layout::Tail), false));
    let told = format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}.rig","l=front;c=12"]}}"#);
    assert_eq!(job(&mut world, &told), ((Class::N12, Layout::Front), true));
}

/// A chain of one script's shares: its next job is harder by choice, is told so, and is judged so; another's is not.
#[test]
fn a_script_of_many_shares_is_given_harder_jobs() {
    let (mut world, bitcoin) = serving();
    let script = crate::stratum::request::login(ADDRESS, regtest().network).unwrap().0;
    let mut grower = Grower::new();
    let mut shares = grower.grow_many(HARDER_SHARES_MIN as usize - 1, script);
    world.confirm(&shares);
    world.template(&bitcoin, 2);
    let (conn, job) = miner(&mut world);
    let told = |world: &mut World<Recorder>, job: &Value| {
        world.line(conn, &submit(job, 1));
        let emitted = emitted(world).remove(0);
        let (bits, allowed, difficulty) = (emitted.bits, emitted.work.draft.bits, emitted.claim.difficulty);
        judge(world, emitted, Ok(()));
        world.lines(conn);
        (bits, allowed, difficulty)
    };
    let (bits, allowed, easy) = told(&mut world, &job);
    assert_eq!(bits, allowed, "eleven are too few to say anything");
    shares.push(grower.grow(script));
    world.confirm(&shares);
    let lines = world.lines(conn);
    let (bits, allowed, hard) = told(&mut world, notify(&lines).unwrap());
    assert!(bits != allowed && bits_in_range(bits, allowed));
    assert!(hard > easy * 1.5, "{easy} and {hard}: told with the job");
    assert_eq!(difficulty(&lines), Some(hard));
    // The script of another miner, of the same board, is as small as before.
    let other = world.connect(STRATUM);
    world.line(other, SUBSCRIBE);
    world.line(other, r#"{"id":2,"method":"mining.authorize","params":["bcrt1q6z64a43mjgkcq0ul2znwneq3spghrlau9slefp","x"]}"#);
    let lines = world.lines(other);
    world.line(other, &submit(notify(&lines).unwrap(), 1));
    let job = emitted(&mut world).remove(0);
    assert_eq!((job.bits, job.work.draft.bits), (allowed, allowed));
}
