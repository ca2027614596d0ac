//! A miner that speaks as the families of firmware do, and stumbles over what they stumble over; one test each, against a whole node whose
//! stages really judge. What they send is what is known of them, not recorded from them.

use std::sync::Arc;
use std::time::Duration;

use rockpool_net::events::Event;
use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::sha256::sha256d;
use rockpool_net::wire::share::{Script, merkle_root};
use rockpool_store::params::{Network, params};
use rockpool_workers::embedded::EmbeddedChain;
use rockpool_workers::jobs::Answer;
use rockpool_workers::template::Template;
use rockpool_workers::work::meets;
use serde_json::{Value, json};

use crate::limits::NOTIFY_EVERY;
use crate::session::Session;
use crate::stratum::difficulty::target_of;
use crate::stratum::jobs::{hex, words_reversed};
use crate::testing::{ADDRESS, Grower, Inline, STRATUM, World, regtest};

/// The same payee on main.
const MAIN: &str = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";

/// A device.
struct Device {
    conn: ConnId,
    extranonce1: String,
    /// What it was told last, which counts from the next job on.
    told: Option<f64>,
    /// Its newest job, and the difficulty that it was given with.
    job: Option<(Value, f64)>,
    /// What it rolls last, so that it never submits the same twice.
    extranonce2: u64,
    /// The mask that it was granted.
    mask: u32,
    /// How often it was pushed a mask.
    masks: usize,
    jobs: usize,
    /// What its owner reads.
    shown: Vec<String>,
}

/// A header that is good enough, in the fields of `mining.submit`.
struct Found {
    job: String,
    extranonce2: String,
    ntime: String,
    nonce: String,
    /// Rolled version bits.
    bits: String,
    /// What the device made of all that.
    hash: ShareId,
}

impl Found {
    /// The five parameters that every device sends.
    fn five(&self, user: &str) -> Value {
        json!([user, self.job, self.extranonce2, self.ntime, self.nonce])
    }

    /// The same and the version bits.
    fn six(&self, user: &str) -> Value {
        json!([user, self.job, self.extranonce2, self.ntime, self.nonce, self.bits])
    }
}

/// A whole node that serves miners.
fn serving() -> (World<Inline>, EmbeddedChain) {
    let mut world = World::whole(&[], 5);
    let bitcoin = EmbeddedChain::new(regtest(), None);
    world.template(&bitcoin, 1);
    world.settle();
    (world, bitcoin)
}

fn bytes(text: &str) -> Vec<u8> {
    assert_eq!(text.len() % 2, 0, "an odd number of digits reboots a Bitaxe (ESP-Miner 1844): {text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn word(text: &Value) -> u32 {
    let text = text.as_str().unwrap();
    assert_eq!(text.len(), 8, "{text}");
    u32::from_str_radix(text, 16).unwrap()
}

impl Device {
    fn plug_in(world: &mut World<Inline>) -> Device {
        let conn = world.connect(STRATUM);
        Device { conn, extranonce1: String::new(), told: None, job: None, extranonce2: 0, mask: 0, masks: 0, jobs: 0, shown: vec![] }
    }

    /// Sends a line as it is, with what ends it, and hears the answers: those that are not pushes.
    fn send(&mut self, world: &mut World<Inline>, bytes: &[u8]) -> Vec<Value> {
        world.feed(self.conn, bytes);
        world.settle();
        self.hear(world)
    }

    /// Sends one request and waits for its answer, as devices do that take the very next line for it.
    fn ask(&mut self, world: &mut World<Inline>, line: &str) -> Value {
        let mut answers = self.send(world, format!("{line}\n").as_bytes());
        assert_eq!(answers.len(), 1, "one line is answered once: {line}");
        answers.remove(0)
    }

    /// The same; what it asks for is granted.
    fn granted(&mut self, world: &mut World<Inline>, line: &str) -> Value {
        let answer = self.ask(world, line);
        assert_eq!(answer["error"], Value::Null, "{line}: {answer}");
        answer["result"].clone()
    }

    fn hear(&mut self, world: &mut World<Inline>) -> Vec<Value> {
        let text = String::from_utf8(world.taken(self.conn)).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        let mut answers = Vec::new();
        for line in text.lines() {
            assert!(line.is_ascii() && line.starts_with('{'), "{line}");
            let said: Value = serde_json::from_str(line).unwrap();
            match said["method"].as_str() {
                None => answers.push(self.answer(line, said)),
                Some(method) => {
                    assert!(line.starts_with(r#"{"id":null,"#), "some firmware answers what has an id: {line}");
                    self.push(method, line, &said["params"]);
                }
            }
        }
        answers
    }

    fn answer(&mut self, line: &str, said: Value) -> Value {
        // Parsers of C look for both names, and for an error of three.
        assert!(line.contains(r#""result":"#) && line.contains(r#""error":"#), "{line}");
        if let Some(error) = said["error"].as_array() {
            assert!(error.len() == 3 && error[0].is_i64() && error[1].is_string(), "{line}");
        }
        if let Some(extranonce1) = said["result"][1].as_str() {
            assert!(self.job.is_none(), "an extranonce1 must not change under a job");
            assert_ne!(extranonce1, "00000000", "some firmware reads it as none");
            assert_eq!(said["result"][2], 8, "Whatsminer fails on more, rental markets want seven at least");
            // NerdMiner looks for a text there.
            assert!(said["result"][0][0][1].is_string());
            self.extranonce1 = extranonce1.to_owned();
        }
        if let Some(mask) = said["result"]["version-rolling.mask"].as_str() {
            self.mask = word(&json!(mask));
        }
        said
    }

    fn push(&mut self, method: &str, line: &str, params: &Value) {
        match method {
            "mining.set_difficulty" => {
                assert!(!line.contains(['e', 'E']) || !line.split("params").nth(1).unwrap().contains(['e', 'E']), "no exponents: {line}");
                self.told = params[0].as_f64().filter(|told| *told > 0.0);
                assert!(self.told.is_some(), "{line}");
            }
            "mining.notify" => {
                assert!(!self.extranonce1.is_empty(), "a job before the extranonce");
                // sgminer's kin keep difficulty 1 until they are told, so it comes before the first job.
                self.job = Some((params.clone(), self.told.unwrap()));
                self.jobs += 1;
            }
            "mining.set_version_mask" => {
                assert_eq!(word(&params[0]), self.mask, "what the answer said");
                self.masks += 1;
            }
            "client.show_message" => self.shown.push(params[0].as_str().unwrap().to_owned()),
            other => panic!("no device here asked for {other}"),
        }
    }

    /// Hashes its job until a header meets the difficulty that the job was given with. `bits` are rolled if the mask allows.
    fn find(&mut self, bits: u32) -> Found {
        let target = target_of(self.job.as_ref().unwrap().1);
        // On regtest every second hash is a share: one that surely is one.
        self.search(bits, |hash| meets(hash, &target) && hash[31] < 0x7f)
    }

    /// The same until a header is wanted.
    fn search(&mut self, bits: u32, wanted: impl Fn(&[u8; 32]) -> bool) -> Found {
        let (job, _) = self.job.clone().unwrap();
        assert_eq!(bits & !self.mask, 0, "a device rolls what it was granted");
        self.extranonce2 += 1;
        let extranonce2 = format!("{:016x}", self.extranonce2);
        let text = |index: usize| job[index].as_str().unwrap();
        let coinbase = bytes(&[text(2), &self.extranonce1, &extranonce2, text(3)].concat());
        let branch: Vec<[u8; 32]> =
            job[4].as_array().unwrap().iter().map(|hash| bytes(hash.as_str().unwrap()).try_into().unwrap()).collect();
        let (version, nbits, ntime) = (word(&job[5]), word(&job[6]), word(&job[7]));
        assert_eq!(version & self.mask, 0, "bits to roll that are set already (c2pool 1392)");
        let mut header = [0; 80];
        header[..4].copy_from_slice(&(version | bits).to_le_bytes());
        header[4..36].copy_from_slice(&words_reversed(&bytes32(text(1))));
        header[36..68].copy_from_slice(&merkle_root(sha256d(&coinbase), &branch));
        header[68..72].copy_from_slice(&ntime.to_le_bytes());
        header[72..76].copy_from_slice(&nbits.to_le_bytes());
        let nonce = (0..u32::MAX).find(|nonce| {
            header[76..].copy_from_slice(&nonce.to_le_bytes());
            wanted(&sha256d(&header))
        });
        let hash = ShareId(sha256d(&header));
        let (job, ntime, nonce) = (text(0).to_owned(), text(7).to_owned(), hex(&nonce.unwrap().to_be_bytes()));
        Found { job, extranonce2, ntime, nonce, bits: format!("{bits:08x}"), hash }
    }

    /// A submit with this id is taken, and the node hashed what the device did: on regtest its share is a block.
    fn credited(&mut self, world: &mut World<Inline>, id: &str, found: &Found, params: &Value) {
        world.published();
        self.accepted(world, id, params);
        let same = |event: &Event| matches!(event, Event::BlockFound { hash, .. } if *hash == found.hash);
        assert!(world.published().iter().any(same), "another header than the device's");
    }

    /// A submit with this id is taken.
    fn accepted(&mut self, world: &mut World<Inline>, id: &str, params: &Value) {
        let answer = self.ask(world, &format!(r#"{{"id":{id},"method":"mining.submit","params":{params}}}"#));
        assert_eq!(answer, json!({"id": serde_json::from_str::<Value>(id).unwrap(), "result": true, "error": null}));
    }

    /// A submit is refused with this code.
    fn refused(&mut self, world: &mut World<Inline>, params: &Value, code: i64) {
        let answer = self.ask(world, &format!(r#"{{"params":{params},"id":4,"method":"mining.submit"}}"#));
        assert_eq!((&answer["error"][0], &answer["result"]), (&json!(code), &Value::Null), "{answer}");
    }
}

fn bytes32(text: &str) -> [u8; 32] {
    bytes(text).try_into().unwrap()
}

/// The same on main, where a block of difficulty 1 could be found and a share takes far more: the difficulties of small devices count.
fn serving_on_main() -> World<Inline> {
    let main = params(Network::Main);
    let mut world = World::whole_of(main, &[], 6);
    let template = EmbeddedChain::new(regtest(), None).template(world.now().unix());
    world.mail(Answer::Template(Arc::new(Template { bits: 0x1d00_ffff, ..template })), Vec::new());
    world.settle();
    world
}

/// ESP-Miner `stratum_api.c`: configure with all bits, then the rest without waiting; each submit with six parameters.
#[test]
fn bitaxe() {
    let (mut world, bitcoin) = serving();
    let mut device = Device::plug_in(&mut world);
    device.granted(
        &mut world,
        r#"{"id": 1, "method": "mining.configure", "params": [["version-rolling"], {"version-rolling.mask": "ffffffff"}]}"#,
    );
    assert_eq!((device.mask, device.masks), (0x1fff_e000, 0), "the next line that some wait for is the answer to subscribe");
    let rest = [
        r#"{"id": 2, "method": "mining.subscribe", "params": ["bitaxe/BM1370/v2.9.0"]}"#.to_owned(),
        format!(r#"{{"id": 3, "method": "mining.authorize", "params": ["{ADDRESS}.bitaxe", "x"]}}"#),
        r#"{"id": 4, "method": "mining.suggest_difficulty", "params": [1000]}"#.to_owned(),
        r#"{"id": 5, "method": "mining.extranonce.subscribe", "params": []}"#.to_owned(),
    ];
    let answers = device.send(&mut world, format!("{}\n", rest.join("\n")).as_bytes());
    assert_eq!(answers.iter().map(|answer| answer["id"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert!(answers.iter().all(|answer| answer["error"].is_null()), "{answers:?}");
    assert_eq!(device.masks, 1, "with the first job");
    let found = device.find(0x0000_2000);
    device.credited(&mut world, "6", &found, &found.six(ADDRESS));
    // It sends again what a job of the same template leads it to (ESP-Miner 1587): told at once, and never a reason to drop it.
    device.refused(&mut world, &found.six(ADDRESS), 22);
    // A new template of the same block: work in the pipeline still counts.
    let before = device.find(0x1fff_e000);
    world.template(&bitcoin, 2);
    world.settle();
    let jobs = device.jobs;
    device.hear(&mut world);
    assert!(device.jobs > jobs, "it is told of new work");
    device.credited(&mut world, "7", &before, &before.six(ADDRESS));
    // It shows what it reads out of coinb2: the outputs stand there.
    let (job, _) = device.job.clone().unwrap();
    assert!(job[3].as_str().unwrap().contains("160014"), "no output to be shown");
}

/// NerdQAxe: as the Bitaxe, but honours a narrower mask if its owner sets one, and asks for difficulty before it authorises.
#[test]
fn nerdqaxe() {
    let (mut world, _) = serving();
    let mut device = Device::plug_in(&mut world);
    device
        .granted(&mut world, r#"{"id":1,"method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"0000e000"}]}"#);
    assert_eq!(device.mask, 0xe000);
    device.granted(&mut world, r#"{"id":2,"method":"mining.subscribe","params":["NerdQAxe++/BM1370/v1.0.30"]}"#);
    device.granted(&mut world, r#"{"id":3,"method":"mining.suggest_difficulty","params":[1024.5]}"#);
    device.granted(&mut world, &format!(r#"{{"id":4,"method":"mining.authorize","params":["{ADDRESS}.nerdqaxe","x"]}}"#));
    let mut found = device.find(0xa000);
    device.credited(&mut world, "5", &found, &found.six(ADDRESS));
    found = Found { bits: "1fffe000".to_owned(), ..device.find(0) };
    device.refused(&mut world, &found.six(ADDRESS), 20);
}

/// Stock bmminer of the S9 to the S21: configure with two extensions, ids of its own counting, params before method.
#[test]
fn antminer_stock() {
    let (mut world, _) = serving();
    let mut device = Device::plug_in(&mut world);
    let extensions = r#"["minimum-difficulty","version-rolling"]"#;
    let options = r#"{"minimum-difficulty.value":2048,"version-rolling.mask":"1fffe000","version-rolling.min-bit-count":2}"#;
    let line = format!(r#"{{"method":"mining.configure","id":0,"params":[{extensions},{options}]}}"#);
    let granted = device.granted(&mut world, &line);
    assert_eq!(granted, json!({"minimum-difficulty": false, "version-rolling": true, "version-rolling.mask": "1fffe000"}));
    device.granted(&mut world, r#"{"id": 1, "method": "mining.subscribe", "params": ["Antminer S21/Mon Mar  4 14:58:31 CST 2024"]}"#);
    device.granted(&mut world, &format!(r#"{{"id": 2, "method": "mining.authorize", "params": ["{ADDRESS}.s21", "123"]}}"#));
    let found = device.find(0x1000_0000);
    device.credited(&mut world, "3", &found, &found.six(ADDRESS));
    // The oldest of them roll nothing and send five parameters.
    let found = device.find(0);
    device.credited(&mut world, "4", &found, &found.five(ADDRESS));
}

/// Builds of bmminer from before BIP320 ask for two bits that nobody may roll: told so, they mine without.
#[test]
fn antminer_of_the_first_asicboost() {
    let (mut world, _) = serving();
    let mut device = Device::plug_in(&mut world);
    let line = r#"{"id":1,"method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"c0000000"}]}"#;
    let granted = device.granted(&mut world, line);
    assert_eq!(granted, json!({"version-rolling": false, "version-rolling.mask": "00000000"}));
    assert_eq!(device.masks, 0, "nothing to roll");
    let answer = device.ask(&mut world, r#"{"id":2,"method":"mining.multi_version","params":[4]}"#);
    assert_eq!(answer["error"][0], -3, "an answer, not silence: it would wait");
    device.granted(&mut world, r#"{"id":3,"method":"mining.subscribe","params":["bmminer/2.0.0"]}"#);
    device.granted(&mut world, &format!(r#"{{"id":4,"method":"mining.authorize","params":["{ADDRESS}","x"]}}"#));
    let found = device.find(0);
    device.credited(&mut world, "5", &found, &found.six(ADDRESS));
}

/// LUXminer on an Antminer: a bar in its user agent, nulls among the parameters.
#[test]
fn luxminer() {
    let (mut world, _) = serving();
    let mut device = Device::plug_in(&mut world);
    device.granted(&mut world, r#"{"id":1,"method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":null}]}"#);
    assert_eq!(device.mask, 0x1fff_e000, "no mask is any mask");
    let agent = "Antminer S19k Pro|LUXminer 2024.12.12.175745-abcdef";
    device.granted(&mut world, &format!(r#"{{"id":2,"method":"mining.subscribe","params":["{agent}",null,"pool.example:3333",null]}}"#));
    device.granted(&mut world, &format!(r#"{{"id":3,"method":"mining.authorize","params":["{ADDRESS}.lux",null]}}"#));
    let found = device.find(0x0400_0000);
    device.credited(&mut world, "4", &found, &found.six(ADDRESS));
}

/// Braiins OS: idles unless BIP310 is granted; all extensions in one request, and all of the handshake in one segment.
#[test]
fn braiins() {
    let (mut world, _) = serving();
    let mut device = Device::plug_in(&mut world);
    let extensions = r#"["version-rolling","subscribe-extranonce"]"#;
    let options = r#"{"version-rolling.mask":"1FFFE000","version-rolling.min-bit-count":16}"#;
    let lines = [
        format!(r#"{{"id":0,"method":"mining.configure","params":[{extensions},{options}]}}"#),
        r#"{"id":1,"method":"mining.subscribe","params":["bosminer-plus-tuner 0.2.0-36c56a9363"]}"#.to_owned(),
        format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}.braiins",""]}}"#),
    ];
    let answers = device.send(&mut world, format!("{}\n", lines.join("\n")).as_bytes());
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[0]["result"], json!({"version-rolling": true, "version-rolling.mask": "1fffe000", "subscribe-extranonce": true}));
    let found = device.find(0x1fff_e000);
    device.credited(&mut world, "3", &found, &found.six(ADDRESS));
}

/// cgminer: counts ids from 0, subscribes again with the session id of its last connection, asks for a job's transactions.
#[test]
fn cgminer() {
    let (mut world, _) = serving();
    let mut device = Device::plug_in(&mut world);
    let before = device.granted(&mut world, r#"{"id": 0, "method": "mining.subscribe", "params": ["cgminer/4.12.0"]}"#);
    device.granted(&mut world, &format!(r#"{{"id": 1, "method": "mining.authorize", "params": ["{ADDRESS}.c", "x"]}}"#));
    let late = device.find(0);
    world.hang_up(device.conn);
    let mut device = Device::plug_in(&mut world);
    let session = before[0][1][1].as_str().unwrap();
    let line = format!(r#"{{"id": 0, "method": "mining.subscribe", "params": ["cgminer/4.12.0", "{session}"]}}"#);
    let again = device.granted(&mut world, &line);
    assert_eq!(again[1], before[1], "the session goes on");
    device.granted(&mut world, r#"{"id": 1, "method": "mining.extranonce.subscribe", "params": []}"#);
    device.granted(&mut world, &format!(r#"{{"id": 2, "method": "mining.authorize", "params": ["{ADDRESS}.c", "x"]}}"#));
    let job = device.job.clone().unwrap().0;
    let txs = device.granted(&mut world, &format!(r#"{{"id": 3, "method": "mining.get_transactions", "params": [{}]}}"#, job[0]));
    assert_eq!(txs, json!([]));
    // It answers a version request that nobody made, and nobody minds.
    assert!(device.send(&mut world, b"{\"id\": null, \"result\": \"cgminer/4.12.0\", \"error\": null}\n").is_empty());
    let found = device.find(0);
    // What it had found when the connection broke still counts.
    device.credited(&mut world, "4", &late, &late.five(ADDRESS));
    device.credited(&mut world, "5", &found, &found.five(ADDRESS));
}

/// Canaan's Avalon: a cgminer that rolls without asking, spells in capitals and cuts a user name at 63 characters.
#[test]
fn avalon() {
    let (mut world, _) = serving();
    let mut device = Device::plug_in(&mut world);
    let answers = device.send(&mut world, b"\r\n {\"id\": 1, \"method\": \"mining.subscribe\", \"params\": [\"cgminer/4.11.1\"]}\r\n\r\n");
    assert_eq!(answers.len(), 1);
    let user: String = format!("{ADDRESS}.the-one-in-the-cellar-behind-the-door").chars().take(63).collect();
    device.granted(&mut world, &format!(r#"{{"id": 2, "method": "mining.authorize", "params": ["{user}", "1234"]}}"#));
    device.mask = 0x1fff_e000;
    let found = device.find(0x0f00_e000);
    let capitals = json!([
        user,
        found.job.to_uppercase(),
        found.extranonce2.to_uppercase(),
        found.ntime.to_uppercase(),
        found.nonce.to_uppercase(),
        found.bits.to_uppercase()
    ]);
    device.credited(&mut world, "3", &found, &capitals);
    device.refused(&mut world, &found.six(&user), 22);
}

/// MicroBT's Whatsminer: negotiates after it has authorised, and tells its ids as text.
#[test]
fn whatsminer() {
    let (mut world, _) = serving();
    let mut device = Device::plug_in(&mut world);
    device.granted(&mut world, r#"{"id":"1","method":"mining.subscribe","params":["whatsminer/v1.1"]}"#);
    device.granted(&mut world, &format!(r#"{{"id":"2","method":"mining.authorize","params":["{ADDRESS}.m60","x"]}}"#));
    let line = r#"{"id":"3","method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"1fffe000"}]}"#;
    device.granted(&mut world, line);
    let found = device.find(0x0abc_e000 & 0x1fff_e000);
    device.credited(&mut world, "\"4\"", &found, &found.six(ADDRESS));
}

/// With more payees than most classes pay, each device's coinbase is as large as it holds and no larger (DATUM's gateway found the sizes).
#[test]
fn coinbases_fit_their_devices() {
    let mut grower = Grower::new();
    let shares: Vec<_> = (0..400u16).map(|payee| grower.grow(Script::P2tr(sha256d(&payee.to_le_bytes())))).collect();
    let mut world = World::recorded(&[], true);
    world.confirm(&shares);
    world.template(&EmbeddedChain::new(regtest(), None), 1);
    let paid = world.node.chain().view.payouts().weights.len();
    assert!(paid > 144, "{paid}: too few to fill a class");
    for (agent, password, payees, bytes_max) in [
        ("NerdMinerV2/V1.8.3", "x", 1, 255),
        ("cgminer/4.12.0", "x", 12, 752),
        ("Antminer S19j Pro/2023", "x", 12, 750),
        ("NerdQAxe++/BM1370/v1.0.30", "x", 12, 752),
        ("Antminer S21/2024", "x", 46, 2_250),
        ("bosminer-plus-tuner 0.2.0", "x", 46, 2_250),
        ("whatsminer/v1.1", "x", 144, 6_500),
        ("bitaxe/BM1370/v2.9.0", "x", 144, 6_500),
        ("PowerPlay-BM/1", "x", 360, 16_000),
        ("xminer-1.2.7", "x", 360, 16_000),
        ("xminer-1.2.7", "c=1", 1, 255),
    ] {
        let conn = world.connect(STRATUM);
        world.line(conn, &format!(r#"{{"id":1,"method":"mining.subscribe","params":["{agent}"]}}"#));
        world.line(conn, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}","{password}"]}}"#));
        let lines = world.lines(conn);
        let job = &lines.last().unwrap()["params"];
        let coinbase = bytes(&[job[2].as_str().unwrap(), &"00".repeat(12), job[3].as_str().unwrap()].concat());
        assert!(coinbase.len() <= bytes_max, "{agent}: {} bytes", coinbase.len());
        let tx: bitcoin::Transaction = bitcoin::consensus::deserialize(&coinbase).unwrap();
        assert_eq!(tx.output.len(), payees.min(paid) + 2, "{agent}");
    }
}

/// NerdMiner v2: 255 bytes for a coinbase, the next line for the answer, and its wish again every 30 s to keep the connection alive. It
/// plays a lottery (SHARECHAIN §8, end).
#[test]
fn nerdminer() {
    let mut world = serving_on_main();
    let mut device = Device::plug_in(&mut world);
    device.granted(&mut world, r#"{"id": 1, "method": "mining.subscribe", "params": ["NerdMinerV2/V1.8.3"]}"#);
    device.granted(&mut world, &format!(r#"{{"id": 2, "method": "mining.authorize", "params": ["{MAIN}.nerd", "x"]}}"#));
    let suggest = r#"{"id": 3, "method": "mining.suggest_difficulty", "params": [0.00015]}"#;
    device.granted(&mut world, suggest);
    assert!(device.shown[0].contains("solo lottery") && device.shown.len() == 1, "{:?}", device.shown);
    let (job, difficulty) = device.job.clone().unwrap();
    assert_eq!(difficulty, 0.000_15);
    let digits = job[2].as_str().unwrap().len() + 2 * 12 + job[3].as_str().unwrap().len();
    assert!(digits / 2 <= 255, "{digits} digits do not fit its buffer");
    let jobs = device.jobs;
    world.pass(Duration::from_secs(25));
    device.granted(&mut world, suggest);
    world.pass(Duration::from_secs(25));
    device.granted(&mut world, suggest);
    assert!(device.jobs <= jobs + 1, "only silence brings another job, not its wish");
    let found = device.find(0);
    device.accepted(&mut world, "4", &found.five(MAIN));
    let target = target_of(device.job.as_ref().unwrap().1);
    let worse = device.search(0, |hash| !meets(hash, &target));
    device.refused(&mut world, &worse.five(MAIN), 23);
    let block = |world: &mut World<Inline>| {
        let events = world.published();
        assert!(!events.iter().any(|event| matches!(event, Event::ShareAccepted { .. })), "never a share");
        events.iter().any(|event| matches!(event, Event::BlockFound { .. }))
    };
    assert!(!block(&mut world));
    assert_eq!((world.node.stages_mut().found, world.node.chain().view.tip().height), (0, 0));
}

/// And if it wins, on regtest, the block is submitted, and is no share either.
#[test]
fn nerdminer_that_wins() {
    let (mut world, _) = serving();
    let mut device = Device::plug_in(&mut world);
    device.granted(&mut world, r#"{"id": 1, "method": "mining.subscribe", "params": ["NerdMinerV2/V1.8.3"]}"#);
    device.granted(&mut world, &format!(r#"{{"id": 2, "method": "mining.authorize", "params": ["{ADDRESS}", ""]}}"#));
    let found = device.find(0);
    device.credited(&mut world, "3", &found, &found.five(ADDRESS));
    assert_eq!((world.node.stages_mut().found, world.node.chain().view.tip().height), (1, 0));
    // Its owner may know better than its name.
    device.granted(&mut world, &format!(r#"{{"id": 4, "method": "mining.authorize", "params": ["{ADDRESS}", "c=12"]}}"#));
    let found = device.find(0);
    device.credited(&mut world, "5", &found, &found.five(ADDRESS));
    assert_eq!((world.node.stages_mut().found, world.node.chain().view.tip().height), (2, 1));
}

/// A submit counts by the difficulty of its job, not by what was told last (ESP-Miner 212).
#[test]
fn submits_are_judged_by_their_jobs() {
    let mut world = serving_on_main();
    let mut device = Device::plug_in(&mut world);
    device.granted(&mut world, r#"{"id":1,"method":"mining.suggest_difficulty","params":["0.00002"]}"#);
    device.granted(&mut world, r#"{"id":2,"method":"mining.subscribe","params":["cpuminer-opt/24.5"]}"#);
    device.granted(&mut world, &format!(r#"{{"id":3,"method":"mining.authorize","params":["{MAIN}"]}}"#));
    assert_eq!(device.job.as_ref().unwrap().1, 0.000_02);
    let (easy, hard) = (target_of(0.000_02), target_of(0.000_2));
    let early = device.search(0, |hash| meets(hash, &easy) && !meets(hash, &hard));
    device.granted(&mut world, r#"{"id":4,"method":"mining.suggest_difficulty","params":[0.0002]}"#);
    assert_eq!(device.job.as_ref().unwrap().1, 0.000_2);
    let late = device.search(0, |hash| meets(hash, &easy) && !meets(hash, &hard));
    device.refused(&mut world, &late.five(MAIN), 23);
    device.accepted(&mut world, "5", &early.five(MAIN));
    // And the other way round: what was hard stays hard.
    let before = device.search(0, |hash| meets(hash, &easy) && !meets(hash, &hard));
    device.granted(&mut world, r#"{"id":6,"method":"mining.suggest_difficulty","params":[0.00002]}"#);
    device.refused(&mut world, &before.five(MAIN), 23);
}

/// A device that keeps to the difficulty it likes, whatever it is told, is met there (public-pool 152); one whose submits are wrong in
/// another way is not sent easier work, which would only bring more of them.
#[test]
fn devices_that_do_not_listen() {
    for stubborn in [true, false] {
        let mut world = serving_on_main();
        let mut device = Device::plug_in(&mut world);
        device.granted(&mut world, r#"{"id":1,"method":"mining.subscribe","params":["ESP32-stubborn"]}"#);
        device.granted(&mut world, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{MAIN}","x"]}}"#));
        assert_eq!(device.job.as_ref().unwrap().1, 1.0);
        let likes = target_of(0.000_02);
        for _ in 0..20 {
            world.pass(Duration::from_secs(20));
            world.settle();
            device.hear(&mut world);
            let found = device.search(0, |hash| meets(hash, &likes));
            let found = if stubborn { found } else { Found { bits: "f0000000".to_owned(), ..found } };
            let line = format!(r#"{{"id":3,"method":"mining.submit","params":{}}}"#, found.six(MAIN));
            device.send(&mut world, format!("{line}\n").as_bytes());
        }
        let told = device.told.unwrap();
        assert!(if stubborn { told < 0.001 } else { told == 1.0 }, "{stubborn}: {told}");
    }
}

/// Proxies authorise again and again: nobody's difficulty begins anew, and no work is taken away.
#[test]
fn to_authorise_again_changes_nothing() {
    let mut world = serving_on_main();
    let mut device = Device::plug_in(&mut world);
    device.granted(&mut world, r#"{"id":1,"method":"mining.subscribe","params":["farm-proxy"]}"#);
    device.granted(&mut world, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{MAIN}.1","d=0.00002"]}}"#));
    device.granted(&mut world, r#"{"id":3,"method":"mining.suggest_difficulty","params":[0.0002]}"#);
    let jobs = device.jobs;
    for worker in 1..40 {
        device.granted(&mut world, &format!(r#"{{"id":4,"method":"mining.authorize","params":["{MAIN}.{worker}","d=0.00002"]}}"#));
    }
    assert_eq!((device.jobs, device.told), (jobs, Some(0.000_2)));
    device.granted(&mut world, &format!(r#"{{"id":5,"method":"mining.authorize","params":["{MAIN}.1","d=0.00003"]}}"#));
    assert_eq!((device.jobs, device.told), (jobs + 1, Some(0.000_03)), "another wish is news");
}

/// Owners type what they like: points, signs, other alphabets, even in bytes that are no UTF-8.
#[test]
fn user_names_of_all_kinds() {
    let rests = [".rig.2", "_rig", "/rig/2", ".rig 2", r#".Wörk-\u00e9r \\\"'<&"#, r".\t\u0000", "", ".", "+512", "~half.rig"];
    for rest in rests.map(str::as_bytes).into_iter().chain([&b".k\xf6ln"[..]]) {
        let (mut world, _) = serving();
        let mut device = Device::plug_in(&mut world);
        device.granted(&mut world, r#"{"id":1,"method":"mining.subscribe","params":["x"]}"#);
        let line = [format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}"#).as_bytes(), rest, b"\",\"x\"]}\n"].concat();
        let answers = device.send(&mut world, &line);
        assert_eq!(answers[0]["result"], true, "{:?}: {answers:?}", String::from_utf8_lossy(rest));
        let found = device.find(0);
        device.credited(&mut world, "3", &found, &found.five(ADDRESS));
    }
}

/// pooler's cpuminer: takes the very next line for the answer, submits with id 4 whatever it is, five parameters.
#[test]
fn cpuminer() {
    let (mut world, _) = serving();
    let mut device = Device::plug_in(&mut world);
    device.granted(&mut world, r#"{"id": 1, "method": "mining.subscribe", "params": ["cpuminer/2.5.1"]}"#);
    device.granted(&mut world, &format!(r#"{{"id": 2, "method": "mining.authorize", "params": ["{ADDRESS}", ""]}}"#));
    let answer = device.ask(&mut world, r#"{"id": 3, "method": "mining.extranonce.subscribe", "params": []}"#);
    assert_eq!(answer["result"], true, "or it logs a scare");
    for _ in 0..3 {
        let found = device.find(0);
        device.credited(&mut world, "4", &found, &found.five(ADDRESS));
    }
}

/// Rental markets' proxies: authorise before they subscribe, set difficulty by password, and roll version bits that they never negotiated.
#[test]
fn mining_rig_rentals() {
    let (mut world, _) = serving();
    let mut device = Device::plug_in(&mut world);
    device.granted(&mut world, &format!(r#"{{"id":1,"method":"mining.authorize","params":["{ADDRESS}.mrr","d=16384"]}}"#));
    device.granted(&mut world, r#"{"id":2,"method":"mining.subscribe","params":["Antminer S21/1.0","00000001"]}"#);
    device.mask = 0x1fff_e000;
    let found = device.find(0x0000_6000);
    device.credited(&mut world, "3", &found, &found.six(ADDRESS));
}

/// NiceHash: one line, then the next; nulls for ids of what it does not care about. It works at 500,000 or not at all.
#[test]
fn nicehash() {
    let main = params(Network::Main);
    for password in ["x", "d=500000", "d=16"] {
        let (mut world, _) = serving();
        let mut device = Device::plug_in(&mut world);
        let subscribed = device.granted(&mut world, r#"{"id":1,"method":"mining.subscribe","params":["NiceHash/1.0.0"]}"#);
        assert!(subscribed[2].as_u64().unwrap() >= 7, "room for all that rent");
        device.granted(&mut world, r#"{"id":null,"method":"mining.extranonce.subscribe","params":[]}"#);
        device.granted(&mut world, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}","{password}"]}}"#));
        let found = device.find(0);
        device.credited(&mut world, "3", &found, &found.five(ADDRESS));
        // Where shares are hard enough, that is what it gets, and silence does not lead it away from there.
        let mut world = World::whole_of(main, &[], 6);
        let mut device = Device::plug_in(&mut world);
        device.granted(&mut world, r#"{"id":1,"method":"mining.subscribe","params":["NiceHash/1.0.0"]}"#);
        device.granted(&mut world, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{MAIN}","{password}"]}}"#));
        let Some(Session::Miner(miner)) = world.node.sessions.get_mut(device.conn) else { panic!("no miner") };
        assert_eq!(miner.wanted_difficulty(), 500_000.0, "{password}");
    }
}

/// Proxies of farms: many requests in a segment, cut where the network likes, several workers of one address, and submits of each.
#[test]
fn proxies() {
    let (mut world, _) = serving();
    let mut device = Device::plug_in(&mut world);
    let lines = [
        r#"{"jsonrpc":"2.0","id":"c-1","method":"mining.subscribe","params":["ckpool-proxy/1.0",null]}"#.to_owned(),
        format!(r#"{{"id":"a-1","method":"mining.authorize","params":["{ADDRESS}.rig1","x"],"worker":"eth1.0"}}"#),
        format!(r#"{{"id":"a-2","method":"mining.authorize","params":["{ADDRESS}.rig2","x"]}}"#),
        r#"{"id":1.5,"method":"mining.ping"}"#.to_owned(),
    ];
    let text = format!("{}\n", lines.join("\r\n"));
    let (first, second) = text.split_at(text.len() / 2);
    let mut answers = device.send(&mut world, first.as_bytes());
    answers.extend(device.send(&mut world, second.as_bytes()));
    assert_eq!(answers.iter().map(|answer| &answer["id"]).collect::<Vec<_>>(), [&json!("c-1"), &json!("a-1"), &json!("a-2"), &json!(1.5)]);
    assert_eq!(device.jobs, 1, "another worker takes no work away");
    let founds: Vec<Found> = (0..20).map(|_| device.find(0)).collect();
    let submits = founds.iter().enumerate().map(|(index, found)| {
        let params = found.five(&format!("{ADDRESS}.rig{}", 1 + index % 2));
        format!("{{\"id\":{index},\"method\":\"mining.submit\",\"params\":{params}}}\n")
    });
    let answers = device.send(&mut world, submits.collect::<String>().as_bytes());
    let mut ids: Vec<u64> = answers.iter().filter(|answer| answer["result"] == true).map(|answer| answer["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..20).collect::<Vec<_>>(), "{answers:?}");
}

/// Each kind of refused submit has the code that firmware knows.
#[test]
fn refusals_have_the_standard_codes() {
    let (mut world, bitcoin) = serving();
    let mut device = Device::plug_in(&mut world);
    let nothing = json!(["u", "1", "0000000000000001", "00000000", "00000000"]);
    device.refused(&mut world, &nothing, 25);
    device.granted(&mut world, r#"{"id":1,"method":"mining.subscribe","params":[]}"#);
    device.refused(&mut world, &nothing, 24);
    device.granted(&mut world, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}"]}}"#));
    let with = |found: &Found, at: usize, field: &str| {
        let mut params = found.six("u");
        params[at] = json!(field);
        params
    };
    let found = device.find(0);
    device.refused(&mut world, &with(&found, 1, "7fffffff"), 21);
    device.refused(&mut world, &with(&found, 1, "not a job of ours"), 21);
    device.refused(&mut world, &with(&found, 2, "00000001"), 20);
    device.refused(&mut world, &with(&found, 3, "00000001"), 20);
    device.refused(&mut world, &with(&found, 3, "ffffffff"), 20);
    device.refused(&mut world, &with(&found, 5, "20000000"), 20);
    device.refused(&mut world, &json!([]), 20);
    device.refused(&mut world, &json!({"job_id": found.job}), 20);
    device.credited(&mut world, "3", &found, &found.six("u"));
    device.refused(&mut world, &found.five("u"), 22);
    let stale = device.find(0);
    let mut template = bitcoin.template(world.now().unix());
    (template.prev, template.height, template.sequence) = ([9; 32], template.height + 1, 3);
    world.mail(Answer::Template(Arc::new(template)), Vec::new());
    world.settle();
    device.hear(&mut world);
    device.refused(&mut world, &stale.six("u"), 21);
    assert!(world.is_open(device.conn), "none of this is a reason to drop it");
}

/// Whoever asks for what nobody knows hears the standard error, and goes on.
#[test]
fn methods_that_nobody_knows_are_answered() {
    let (mut world, _) = serving();
    let mut device = Device::plug_in(&mut world);
    for method in ["mining.multi_version", "mining.suggest_target", "mining.capabilities", "eth_submitLogin", "login", ""] {
        let answer = device.ask(&mut world, &format!(r#"{{"id":"q","method":"{method}","params":["x"]}}"#));
        assert_eq!(answer, json!({"id": "q", "result": null, "error": [-3, "Method not found", null]}));
    }
    device.granted(&mut world, r#"{"id":1,"method":"mining.subscribe","params":["x"]}"#);
    device.granted(&mut world, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}"]}}"#));
    assert!(device.job.is_some());
}

/// Devices that hear no job for a minute or three begin anew (ESP-Miner 65): one comes in time, whatever happens.
#[test]
fn devices_of_little_patience() {
    let (mut world, _) = serving();
    let mut device = Device::plug_in(&mut world);
    device.granted(&mut world, r#"{"id":1,"method":"mining.subscribe","params":["bitaxe/BM1366/v2.0.0"]}"#);
    device.granted(&mut world, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}"]}}"#));
    for minute in 1..=5 {
        world.pass(NOTIFY_EVERY);
        world.settle();
        device.hear(&mut world);
        assert!(device.jobs > minute, "{minute}");
    }
    let found = device.find(0);
    device.credited(&mut world, "3", &found, &found.five("u"));
}

/// Whatever a device sends for an id and for parameters, each of its lines has one answer under the same id, and it stays connected.
#[test]
fn odd_forms_are_answered_once() {
    let ids = ["0", "null", "\"\"", "\"a\\u00e9\"", "-1", "1.5e3", "18446744073709551616", "[]", "{\"a\":[1]}", "false"];
    let methods = [
        "mining.configure",
        "mining.subscribe",
        "mining.authorize",
        "mining.submit",
        "mining.suggest_difficulty",
        "mining.extranonce.subscribe",
        "mining.ping",
        "mining.get_transactions",
        "mining.unheard_of",
    ];
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let long = format!("[\"{0}\",\"{0}\"]", "x".repeat(1_500));
    let forms = [
        "null",
        "{}",
        "[]",
        "7",
        "\"x\"",
        "[null]",
        "[null,null,null,null,null,null]",
        "[[]]",
        "[{}]",
        "[[[]],{}]",
        "[-1]",
        "[0]",
        "[1e308]",
        "[\"NaN\"]",
        "[\"inf\"]",
        "[\"1e999\"]",
        "[true,false]",
        "[\"\",\"\",\"\",\"\",\"\",\"\"]",
        "[\"\\u0000\"]",
        "[[\"version-rolling\"],7]",
        "[[\"version-rolling\"],{\"version-rolling.mask\":7}]",
        "[[\"version-rolling\",3,null],[]]",
        "[[\"version-rolling\"],{\"version-rolling.mask\":\"\"}]",
        "[\"w\",1,\"0000000000000001\",\"00000000\",\"00000000\"]",
        "[\"w\",\"1\",1,2,3,4,5,6]",
        "[\"w\",\"-1\",\"00000000000000é1\",\"0x000000\",\"00000000\"]",
        &deep,
        &long,
    ];
    for method in methods {
        let (mut world, _) = serving();
        let mut device = Device::plug_in(&mut world);
        for form in forms {
            for id in ids {
                let answer = device.ask(&mut world, &format!(r#"{{"id":{id},"method":"{method}","params":{form}}}"#));
                assert!(world.is_open(device.conn), "{method} {form} {id}");
                assert_eq!(answer["id"], serde_json::from_str::<Value>(id).unwrap_or_default());
            }
        }
    }
}
