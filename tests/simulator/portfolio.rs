//! The stage of portfolios, whole: users who come and go, services that err and lie, a disk that fails, a calendar that jumps, crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool::http::token::{Caller, Scope, Secret, sign};
use rockpool::portfolio::Portfolios;
use rockpool::portfolio::book::Book;
use rockpool::portfolio::config::PortfolioConfig;
use rockpool_net::frame::http::{Method, Request};
use rockpool_net::hub::tickets::Ticket;
use rockpool_net::id::{ConnId, Lane, ShareId};
use rockpool_net::time::Now;
use rockpool_net::wire::share::Script;
use rockpool_store::error::StoreError;
use rockpool_store::kv::{Cached, Family, Kv, MemKv, Op};
use rockpool_store::limits::ROWS_PER_BATCH;
use rockpool_store::params::Network;
use rockpool_store::payouts::Payouts;
use rockpool_store::portfolios::rows::SNAPSHOTS;
use rockpool_workers::jobs::{Answer, Mined, Output, Stage, UpstreamJob};
use rockpool_workers::limits::{ORDERS_MAX, ORDERS_PER_SERVICE_MAX};
use rockpool_workers::outside::call::{Call, CallError, Service};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::services::Services;
use crate::{Told, draw};

const SEEDS: u64 = 100;
const SECRET: Secret = Secret([7; 32]);
const START: u64 = 1_790_000_000;
const MINUTE: Duration = Duration::from_secs(60);
const MINE: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

/// A disk that fails after so many writes.
#[derive(Default)]
struct Disk {
    rows: MemKv,
    left: Mutex<Option<u64>>,
}

impl Kv for Disk {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.rows.get(family, key)
    }
    fn get_cached(&self, family: Family, key: &[u8]) -> Result<Cached, StoreError> {
        self.rows.get_cached(family, key)
    }
    fn scan(&self, family: Family, from: &[u8], row: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        self.rows.scan(family, from, row)
    }
    fn write(&self, ops: &[Op], sync: bool) -> Result<(), StoreError> {
        assert!((1..=ROWS_PER_BATCH).contains(&ops.len()), "a batch of {}", ops.len());
        if let Some(left) = &mut *self.left.lock().unwrap() {
            *left = left.checked_sub(1).ok_or_else(|| StoreError::Disk("drawn".into()))?;
        }
        self.rows.write(ops, sync)
    }
    fn free_space(&self) -> Result<u64, StoreError> {
        self.rows.free_space()
    }
    fn flush(&self) -> Result<(), StoreError> {
        self.rows.flush()
    }
}

struct World {
    rng: ChaCha12Rng,
    disk: Arc<Disk>,
    data: TempDir,
    config: PortfolioConfig,
    stage: Portfolios,
    services: Services,
    now: Now,
    /// Orders under way, by when something comes of them; the number tells apart what comes together.
    out: BTreeMap<(Duration, u64), (u64, Call)>,
    /// Endpoints that are down, and until when.
    down: BTreeMap<Arc<str>, Duration>,
    /// Whether anything goes wrong.
    faulty: bool,
    /// Accounts of each user's first portfolio, as he was told.
    accounts: BTreeMap<u64, BTreeSet<u64>>,
    /// Accounts whose removal or making was not answered before a crash.
    unsure: BTreeMap<u64, BTreeSet<u64>>,
    tag: u64,
    height: u32,
    steps: u64,
    restarts: u64,
    /// What happened, in short.
    trace: Vec<u64>,
}

impl World {
    fn new(seed: u64) -> World {
        let data = TempDir::new().unwrap();
        let keys = data.path().join("keys");
        std::fs::create_dir(&keys).unwrap();
        let chains = PortfolioConfig::default().chains.iter().map(|(chain, _)| (*chain, format!("http://evm/{}", chain.name))).collect();
        let (coingecko, okx, key_file) = ("http://gecko".into(), "http://okx".into(), Some(keys.join("key")));
        let config = PortfolioConfig { coingecko, okx, key_file, chains, ..PortfolioConfig::default() };
        let disk = Arc::new(Disk::default());
        let stage = open(&config, &disk, &data);
        let now = Now { mono: Duration::ZERO, wall: Duration::from_secs(START) };
        World {
            rng: ChaCha12Rng::seed_from_u64(seed),
            disk,
            data,
            config,
            stage,
            services: Services::new(START),
            now,
            out: BTreeMap::new(),
            down: BTreeMap::new(),
            faulty: true,
            accounts: BTreeMap::new(),
            unsure: BTreeMap::new(),
            tag: 0,
            height: 840_000,
            steps: 0,
            restarts: 0,
            trace: Vec::new(),
        }
    }

    fn draw(&mut self, bound: u64) -> u64 {
        draw(&mut self.rng, bound)
    }

    /// The stage's turn; what it answered to requests, by their tags. `None` if its disk failed, and it began anew.
    fn step(&mut self, mut jobs: Vec<UpstreamJob>) -> Option<BTreeMap<u64, (u16, Value)>> {
        self.steps += 1;
        let tags: BTreeSet<_> =
            jobs.iter().filter_map(|job| if let UpstreamJob::Ask { tag, .. } = job { Some(*tag) } else { None }).collect();
        let heard = jobs.iter().filter(|job| matches!(job, UpstreamJob::Mined(_))).count();
        let mut out = Output::default();
        self.stage.step(self.now, &mut jobs, &mut out);
        let (mut told, mut died, mut credits) = (BTreeMap::new(), false, 0);
        for (answer, tickets) in out.mail {
            match answer {
                Answer::Told { conn, tag, status, body, .. } => {
                    assert!(tickets.len() == 1 && tickets[0].conn() == conn);
                    assert!(told.insert(tag, (status, serde_json::from_slice(&body).unwrap())).is_none(), "told twice");
                }
                Answer::MinedHeard => credits += 1,
                Answer::Died { .. } => died = true,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((told.keys().copied().collect::<BTreeSet<_>>(), credits), (tags, heard), "every request is answered at once, once");
        for order in out.orders {
            let after = if self.faulty { 50 + self.draw(40_000) } else { 50 + self.draw(500) };
            self.tag += 1;
            self.trace.extend([order.id, order.call.service as u64]);
            assert!(self.out.values().all(|(id, _)| *id != order.id), "an order's word is used twice");
            self.out.insert((self.now.mono + Duration::from_millis(after), self.tag), (order.id, order.call));
        }
        assert!(self.out.len() <= ORDERS_MAX);
        for service in Service::ALL {
            assert!(self.out.values().filter(|(_, call)| call.service == service).count() <= ORDERS_PER_SERVICE_MAX);
        }
        if died {
            self.crash();
            return None;
        }
        assert!(self.stage.due().is_some_and(|due| due > self.now.mono), "a busy loop");
        Some(told)
    }

    /// The process ends and begins anew: of what was written since the last sync a part is there.
    fn crash(&mut self) {
        *self.disk.left.lock().unwrap() = None;
        let keep = self.draw(self.disk.rows.unsynced() as u64 + 1);
        self.disk.rows.crash(keep as usize);
        self.stage = open(&self.config, &self.disk, &self.data);
        self.out.clear();
        let down = self.down.values_mut();
        down.for_each(|until| *until = until.saturating_sub(self.now.mono));
        self.now.mono = Duration::ZERO;
        self.restarts += 1;
        self.trace.push(u64::MAX);
    }

    /// A user asks something.
    fn ask(&mut self, user: u64, method: Method, path: &str, body: Option<Value>) -> Option<(u16, Value)> {
        self.tag += 1;
        let tag = self.tag;
        let caller = Caller { sub: format!("user-{user}"), scope: Scope::User };
        let token = sign(&SECRET, &caller, self.now.wall.as_secs(), 600).unwrap();
        let mut request = Request::new(method, path);
        request.authorization = Some(format!("Bearer {token}").into());
        if let Some(body) = body {
            request.content_type = Some("application/json".into());
            request.body = body.to_string().into_bytes().into();
        }
        let conn = ConnId { slot: user as u32, generation: 1 };
        let ticket = Ticket::for_test(Lane::Http, conn);
        let told = self.step(vec![UpstreamJob::Ask { conn, tag, request: Box::new(request), ticket }])?.remove(&tag)?;
        self.trace.push(u64::from(told.0));
        let full = told.1["error"]["code"] == "disk_full";
        assert!(told.0 < 500 || full, "{method:?} {path}: {told:?}");
        Some(told)
    }

    /// A user does something with what is his, or looks at it.
    fn user(&mut self) {
        let user = self.draw(4);
        let own: Vec<u64> = self.accounts.get(&user).into_iter().flatten().copied().collect();
        let paths = ["/1/holdings", "/1/history", "/1", "", "/1/accounts", "/1?currency=eur"];
        match self.draw(10) {
            0..3 if own.len() < 6 => {
                let body = self.account();
                match self.ask(user, Method::Post, "/api/v1/portfolios/1/accounts", Some(body)) {
                    Some((201, told)) => drop(self.accounts.entry(user).or_default().insert(told["id"].as_u64().unwrap())),
                    // It is there already.
                    Some((409, _)) => {}
                    // It may be there or not.
                    told => {
                        assert!(told.as_ref().is_none_or(|(status, _)| *status >= 500), "an account was refused: {told:?}");
                        self.unsure.entry(user).or_default().extend(1..=64);
                    }
                }
            }
            3 if !own.is_empty() => {
                let account = own[self.draw(own.len() as u64) as usize];
                let told = self.ask(user, Method::Delete, &format!("/api/v1/portfolios/1/accounts/{account}"), None);
                match told {
                    Some((200, _)) => drop(self.accounts.get_mut(&user).map(|accounts| accounts.remove(&account))),
                    _ => {
                        self.unsure.entry(user).or_default().insert(account);
                    }
                }
            }
            other => {
                let path = format!("/api/v1/portfolios{}", paths[other as usize % paths.len()]);
                self.ask(user, Method::Get, &path, None);
            }
        }
    }

    fn account(&mut self) -> Value {
        match self.draw(5) {
            0 => json!({"kind": "bitcoin", "name": "b", "address": MINE}),
            1 => json!({"kind": "miner", "name": "m", "address": MINE}),
            2 => json!({"kind": "okx", "name": "o", "key": "k", "secret": "s", "passphrase": "p"}),
            3 => json!({"kind": "evm", "name": "all", "address": format!("0x{:040x}", 0xab)}),
            _ => json!({"kind": "evm", "name": "e", "address": format!("0x{:040x}", 7 + self.draw(3)), "chains": ["base", "bsc"]}),
        }
    }

    /// What comes of a call.
    fn result(&mut self, call: &Call) -> Result<Vec<u8>, CallError> {
        let down = self.down.get(&call.endpoint).is_some_and(|until| *until > self.now.mono);
        let odd = self.faulty && self.draw(10) == 0;
        if down || odd {
            let status = |status| CallError::Status { status, said: None, retry_after: Some(Duration::from_secs(30)) };
            return match self.draw(11) {
                0 => Err(CallError::Timeout),
                1 => Err(CallError::Busy { service: call.service.name(), in_flight: 5, waited: MINUTE }),
                2 => Err(CallError::Open { endpoint: call.endpoint.clone(), failures: 5, left: Duration::from_secs(29) }),
                3 => Err(CallError::Unreachable("refused".into())),
                4 => Err(status(429)),
                5 => Err(status(503)),
                6 => Err(CallError::TooLong(9)),
                7 => Err(CallError::Refused("no".into())),
                8 if !down => self.lie(call),
                9 if !down => Ok(b"[{\"id\":0}]".to_vec()),
                _ => Err(CallError::Garbled("odd".into())),
            };
        }
        self.services.answer(call)
    }

    /// An answer with other figures than there are: a digit is another, or a sign, or a piece is missing.
    fn lie(&mut self, call: &Call) -> Result<Vec<u8>, CallError> {
        let mut bytes = self.services.answer(call)?;
        for _ in 0..1 + self.draw(3) {
            let at = self.draw(bytes.len() as u64) as usize;
            bytes[at] = b"0123456789-+eE.\"[]{},: \xff"[self.draw(24) as usize];
        }
        Ok(bytes)
    }

    fn mined(&mut self) {
        self.height += 1;
        let script = Script::P2wpkh([1; 20]);
        let payouts = Arc::new(Payouts { parent: ShareId([0; 32]), parent_height: 1, weights: Arc::new([(script, 5)]) });
        let block = |n: u8| (ShareId([n; 32]), 839_900 + u32::from(n), self.height - 839_899 - u32::from(n));
        let mined = Mined { payouts, value: 1_000, height: self.height, blocks: (0..3).map(block).collect() };
        self.step(vec![UpstreamJob::Mined(Box::new(mined))]);
    }

    fn fault(&mut self) {
        match self.draw(12) {
            0..4 => {
                let names = ["coingecko", "okx", "bitcoind", "ethereum", "base", "bsc"];
                let (name, time) = (names[self.draw(6) as usize], Duration::from_secs(self.draw(1_800)));
                self.down.insert(name.into(), self.now.mono + time);
            }
            4..6 => self.disk.rows.set_free_space(0),
            6..8 => self.disk.rows.set_free_space(u64::MAX),
            8 => *self.disk.left.lock().unwrap() = Some(self.rng.next_u64() % 20),
            9 => self.crash(),
            10 => {
                let days = Duration::from_secs(86_400 * self.draw(800));
                let back = self.draw(2) == 0;
                self.now.wall = if back { self.now.wall.saturating_sub(days).max(days) } else { self.now.wall + days };
            }
            _ => self.services.worth = 1.0 + self.draw(1_000) as f64,
        }
    }

    /// Time passes, and what is due happens.
    fn pass(&mut self, time: Duration) {
        let mut left = time;
        loop {
            let back = self.out.keys().next().map(|(at, _)| *at);
            let due = self.stage.due().unwrap_or(Duration::MAX);
            let at = due.min(back.unwrap_or(Duration::MAX)).max(self.now.mono);
            let wait = (at - self.now.mono).min(left);
            (self.now.mono, self.now.wall) = (self.now.mono + wait, self.now.wall + wait);
            left -= wait;
            if self.now.mono < at {
                return;
            }
            let mut jobs = Vec::new();
            while let Some(entry) = self.out.first_entry().filter(|entry| entry.key().0 <= self.now.mono) {
                let (order, call) = entry.remove();
                let result = self.result(&call);
                jobs.push(UpstreamJob::Brought { order, result });
            }
            self.step(jobs);
        }
    }

    /// What users were told is there, but for what they do not know.
    fn check(&mut self) {
        for user in 0..4 {
            let Some((200, told)) = self.ask(user, Method::Get, "/api/v1/portfolios/1/accounts", None) else { continue };
            let list: BTreeSet<u64> = told["list"].as_array().unwrap().iter().map(|of| of["id"].as_u64().unwrap()).collect();
            let unsure = self.unsure.remove(&user).unwrap_or_default();
            let known = self.accounts.entry(user).or_default();
            let differ: BTreeSet<u64> = list.symmetric_difference(known).copied().filter(|id| !unsure.contains(id)).collect();
            assert!(differ.is_empty(), "user {user} has {list:?}, and was told {known:?}");
            *known = list;
        }
    }

    fn run(&mut self) {
        for _ in 0..60 {
            match self.draw(8) {
                0 => self.fault(),
                1 => self.mined(),
                2..5 => self.user(),
                _ => {}
            }
            let time = Duration::from_secs(self.draw(400));
            self.pass(time);
            if self.draw(5) == 0 {
                self.check();
            }
        }
    }

    /// All is mended: everything is known in good time, nothing is in trouble, and then nothing changes any more.
    fn mend(&mut self) {
        self.faulty = false;
        // Prices of a time that is to come by the node's calendar are taken as of now: each minute another.
        self.services.now = self.now.wall.as_secs();
        self.down.clear();
        self.disk.rows.set_free_space(u64::MAX);
        *self.disk.left.lock().unwrap() = None;
        self.pass(MINUTE);
        self.check();
        self.mined();
        for _ in 0..20 {
            self.look();
            self.pass(4 * MINUTE);
        }
        for user in 0..4 {
            let (status, told) = self.ask(user, Method::Get, "/api/v1/portfolios/1/accounts", None).unwrap();
            assert_eq!(status, 200);
            for account in told["list"].as_array().unwrap() {
                assert!(account["trouble"].is_null(), "{account}");
                let age = account["checked_age_s"].as_u64().unwrap();
                assert!(age <= 4_800, "{account}");
                assert_eq!(account["value"]["unpriced"], u64::from(account["kind"] == "okx"), "{account}");
            }
        }
        let (rows, steps) = (self.rows(), self.steps);
        for _ in 0..5 {
            self.look();
            self.pass(2 * MINUTE);
        }
        assert!(self.rows() == rows, "a run over the same changes a row");
        assert!(self.steps - steps < 600, "{} steps in ten minutes", self.steps - steps);
        let book = Book::open(&*self.disk).unwrap();
        assert!(!book.is_changed(), "rows that nothing leads to");
    }

    fn look(&mut self) {
        for user in 0..4 {
            self.ask(user, Method::Get, "/api/v1/portfolios", None);
        }
    }

    /// All rows but accounts', which say when they were checked each hour, and snapshots and marks, which are of the day.
    fn rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        self.disk
            .scan(Family::Portfolios, &[], &mut |key, value| {
                if ![0, 3, SNAPSHOTS[0]].contains(&key[0]) {
                    rows.push((key.to_vec(), value.to_vec()));
                }
                true
            })
            .unwrap();
        rows
    }
}

fn open(config: &PortfolioConfig, disk: &Arc<Disk>, data: &TempDir) -> Portfolios {
    let datadir = data.path().join("data");
    Portfolios::open(config, disk.clone(), SECRET, Network::Regtest, &datadir).unwrap()
}

fn story(seed: u64) -> World {
    let told = Told(seed);
    let mut world = World::new(seed);
    world.run();
    world.mend();
    std::mem::forget(told);
    world
}

#[test]
fn portfolios_outlive_whatever_goes_wrong() {
    let seeds = crate::number("SEED").map_or(0..crate::number("SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    let many = seeds.end - seeds.start > 1;
    let (mut restarts, mut orders, mut steps) = (0, 0, 0);
    for seed in seeds {
        let world = story(seed);
        restarts += world.restarts;
        orders += world.trace.len();
        steps += world.steps;
    }
    println!("{restarts} restarts, {orders} orders and answers, {steps} steps");
    assert!(!many || restarts > 0);
    assert_eq!(story(3).trace, story(3).trace, "the same seed, the same story");
}
