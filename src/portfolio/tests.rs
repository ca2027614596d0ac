#![expect(clippy::unwrap_used, reason = "tests")]
use std::time::Duration;

use rockpool_net::frame::http::Method;
use rockpool_net::hub::tickets::Ticket;
use rockpool_net::id::Lane;
use rockpool_store::kv::{Cached, Family, MemKv};
use rockpool_workers::jobs::Mined;
use rockpool_workers::outside::call::CallError;
use serde_json::{Value, json};

use super::*;
use crate::http::token::{Caller, Scope, sign};

const SECRET: Secret = Secret([7; 32]);
const NOW: u64 = 1_790_000_000;

fn at(s: u64) -> Now {
    Now { mono: Duration::from_secs(s), wall: Duration::from_secs(NOW + s) }
}

fn token(sub: &str) -> Box<str> {
    let caller = Caller { sub: sub.into(), scope: Scope::User };
    format!("Bearer {}", sign(&SECRET, &caller, NOW, 1_000_000).unwrap()).into()
}

fn ask(method: Method, path: &str, sub: &str, body: Option<Value>) -> Request {
    let content_type = body.as_ref().map(|_| "application/json".into());
    let body = body.map(|body| body.to_string().into_bytes().into()).unwrap_or_default();
    Request { authorization: Some(token(sub)), content_type, body, ..Request::new(method, path) }
}

fn get(path: &str, sub: &str) -> Request {
    ask(Method::Get, path, sub, None)
}

fn conn(slot: u32) -> ConnId {
    ConnId { slot, generation: 1 }
}

/// A disk that counts its writes, and fails when it is told to.
#[derive(Default)]
struct Disk {
    rows: MemKv,
    writes: std::sync::Mutex<Vec<(usize, bool)>>,
    fails: std::sync::Mutex<Option<StoreError>>,
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
        if let Some(error) = self.fails.lock().unwrap().take() {
            return Err(error);
        }
        self.writes.lock().unwrap().push((ops.len(), sync));
        self.rows.write(ops, sync)
    }
    fn free_space(&self) -> Result<u64, StoreError> {
        self.rows.free_space()
    }
    fn flush(&self) -> Result<(), StoreError> {
        self.rows.flush()
    }
}

/// Status, body and lines of an answer.
type Heard = (u16, Value, Vec<(&'static str, String)>);

struct World {
    disk: Arc<Disk>,
    stage: Portfolios,
    out: Output,
}

impl World {
    fn on(disk: Arc<Disk>, config: &PortfolioConfig) -> World {
        let dir = tempfile::tempdir().unwrap();
        let stage = Portfolios::open(config, disk.clone(), SECRET, Network::Regtest, dir.path()).unwrap().without_bitcoind();
        World { disk, stage, out: Output::default() }
    }

    fn new() -> World {
        World::on(Arc::default(), &PortfolioConfig::default())
    }

    /// Hands over requests in one step; status, body and lines of each answer.
    fn tell(&mut self, now: Now, requests: Vec<Request>) -> Vec<Heard> {
        let job = |(n, request): (usize, Request)| {
            let conn = conn(n as u32);
            let ticket = Ticket::for_test(Lane::Http, conn);
            UpstreamJob::Ask { conn, tag: n as u64, request: Box::new(request), ticket }
        };
        let count = requests.len();
        let mut jobs: Vec<_> = requests.into_iter().enumerate().map(job).collect();
        self.out = Output::default();
        self.stage.step(now, &mut jobs, &mut self.out);
        assert!(jobs.is_empty());
        let mut told = Vec::new();
        for (answer, tickets) in &self.out.mail {
            if let Answer::Told { conn: to, tag, status, body, lines } = answer {
                assert_eq!((*to, *tag, tickets.len()), (conn(told.len() as u32), told.len() as u64, 1));
                told.push((*status, serde_json::from_slice(body).unwrap(), lines.clone()));
            }
        }
        assert_eq!(told.len(), count, "every request has its answer, and every ticket comes home");
        told
    }

    fn one(&mut self, s: u64, request: Request) -> (u16, Value) {
        let (status, body, _) = self.tell(at(s), vec![request]).remove(0);
        (status, body)
    }

    fn writes(&self) -> Vec<(usize, bool)> {
        std::mem::take(&mut self.disk.writes.lock().unwrap())
    }
}

fn account(name: &str) -> Value {
    json!({ "kind": "bitcoin", "name": name, "address": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080" })
}

#[test]
fn a_thousand_first_requests_make_one_user() {
    let mut world = World::new();
    let told = world.tell(at(0), (0..1_000).map(|_| get("/api/v1/portfolios", "ann")).collect());
    assert!(told.iter().all(|(status, body, _)| *status == 200 && *body == told[0].1));
    assert_eq!((&told[0].1["user"]["since"], told[0].1["portfolios"].as_array().unwrap().len()), (&json!(NOW), 1));
    assert_eq!(world.writes(), [(2, true)], "the user and the first portfolio, synced before anybody is told");
    world.tell(at(9), vec![get("/api/v1/portfolios", "ann")]);
    assert_eq!(world.writes(), []);
    // A thousand others: ten writes of a hundred rows each and more, the last synced.
    let told = world.tell(at(10), (0..1_000).map(|n| get("/api/v1/portfolios", &n.to_string())).collect());
    assert!(told.iter().all(|(status, ..)| *status == 200));
    let writes = world.writes();
    assert!(writes.len() == 20 && writes.iter().all(|(rows, _)| *rows == 100) && writes.last().unwrap().1, "{writes:?}");
}

#[test]
fn every_route_answers_and_what_was_told_survives_a_crash() {
    let mut world = World::new();
    assert_eq!(world.one(0, ask(Method::Post, "/api/v1/portfolios", "ann", Some(json!({ "name": "two" })))).0, 201);
    assert_eq!(world.one(1, ask(Method::Post, "/api/v1/portfolios/2/accounts", "ann", Some(account("a")))).0, 201);
    for path in ["", "/1", "/2", "/2/accounts", "/2/holdings?currency=eur", "/2/history?days=9"] {
        assert_eq!(world.one(2, get(&format!("/api/v1/portfolios{path}"), "ann")).0, 200, "{path}");
    }
    assert_eq!(world.one(3, get("/api/v1/coins", "ann")), (200, json!({ "day": null, "list": [] })));
    assert_eq!(world.one(4, ask(Method::Delete, "/api/v1/portfolios/1", "ann", None)), (200, json!({ "removed": 1 })));
    world.disk.rows.crash(0);
    let mut world = World::on(world.disk, &PortfolioConfig::default());
    let told = world.one(5, get("/api/v1/portfolios", "ann")).1;
    assert_eq!((told["portfolios"].as_array().unwrap().len(), &told["portfolios"][0]["accounts"]), (1, &json!(1)));
    assert_eq!(world.one(6, ask(Method::Delete, "/api/v1/portfolios/2/accounts/1", "ann", None)), (200, json!({ "removed": 1 })));
    for path in ["/2/accounts/1", "/7"] {
        assert_eq!(world.one(7, ask(Method::Delete, &format!("/api/v1/portfolios{path}"), "ann", None)).0, 404);
    }
    for path in ["/0", "/x", "/4294967296", "/1/nothing"] {
        assert!([400, 404].contains(&world.one(8, get(&format!("/api/v1/portfolios{path}"), "ann")).0), "{path}");
    }
}

#[test]
fn whoever_has_no_good_token_makes_no_user() {
    let mut world = World::new();
    let mut bad = get("/api/v1/portfolios", "ann");
    bad.authorization = Some("Bearer a.b.c".into());
    let mut none = get("/api/v1/portfolios", "ann");
    none.authorization = None;
    let told = world.tell(at(0), vec![bad, none]);
    let (status, body, lines) = &told[0];
    assert_eq!((*status, &body["error"]["code"], lines[0].1.as_str()), (401, &json!("unauthorized"), "Bearer error=\"invalid_token\""));
    assert_eq!((told[1].0, &told[1].2[0]), (401, &("WWW-Authenticate", "Bearer".to_owned())));
    assert_eq!((world.writes(), world.stage.book.users()), (vec![], 0));
    // A body that is wrong is not repeated: it may hold a secret.
    let wrong = json!({ "kind": "okx", "name": "o", "key": "K", "secret": ["S3CRET"], "passphrase": "P" });
    let (status, body) = world.one(1, ask(Method::Post, "/api/v1/portfolios/1/accounts", "ann", Some(wrong)));
    assert!(status == 400 && !body.to_string().contains("S3CRET"), "{body}");
}

#[test]
fn keys_of_an_identity_provider_are_ordered_and_come() {
    let identity =
        crate::http::jwks::Identity { issuer: "https://id".into(), audience: "rockpool".into(), jwks: "https://id/certs".into() };
    let mut world = World::on(Arc::default(), &PortfolioConfig { identity: Some(identity), ..PortfolioConfig::default() });
    assert_eq!(world.stage.due(), Some(Duration::ZERO));
    let mut keys_at = |s: u64, brought: Option<UpstreamJob>| {
        let mut out = Output::default();
        world.stage.step(at(s), &mut brought.into_iter().collect(), &mut out);
        out.orders.iter().any(|order| order.id == KEYS_ORDER)
    };
    assert!(keys_at(0, Some(UpstreamJob::Brought { order: 77, result: Ok(Vec::new()) })));
    assert!(!keys_at(1, None), "on their way");
    let kid = crate::http::token::encode(br#"{"alg":"RS256","kid":"k1"}"#);
    let mut foreign = get("/api/v1/portfolios", "ann");
    foreign.authorization = Some(format!("Bearer {kid}.e30.AA").into());
    let (status, _, lines) = world.tell(at(1), vec![foreign]).remove(0);
    assert_eq!((status, lines), (503, vec![("Retry-After", "1".to_owned())]));
    let mut out = Output::default();
    world.stage.step(at(2), &mut vec![UpstreamJob::Brought { order: KEYS_ORDER, result: Err(CallError::Timeout) }], &mut out);
    assert!(!out.orders.iter().any(|order| order.id == KEYS_ORDER), "and not at once again");
}

#[test]
fn on_a_full_disk_what_is_known_is_told_and_nothing_changes() {
    let mut world = World::new();
    world.one(0, get("/api/v1/portfolios", "ann"));
    world.writes();
    world.disk.rows.set_free_space(FREE_SPACE_MIN - 1);
    let add = || ask(Method::Post, "/api/v1/portfolios", "ann", Some(json!({ "name": "two" })));
    assert_eq!(world.one(1, get("/api/v1/portfolios", "ann")).0, 200);
    for request in [add(), ask(Method::Delete, "/api/v1/portfolios/1", "ann", None), get("/api/v1/portfolios", "bob")] {
        let (status, body) = world.one(2, request);
        assert_eq!((status, &body["error"]["code"]), (503, &json!("disk_full")));
    }
    assert_eq!((world.writes(), world.stage.book.users()), (vec![], 1));
    assert_eq!(world.stage.due(), Some(at(2).mono + UNWRITTEN_RETRY), "it does not spin, and collects nothing");
    world.disk.rows.set_free_space(u64::MAX);
    // There seemed to be room: what was asked for is done once there is, in its order, and nothing else before.
    *world.disk.fails.lock().unwrap() = Some(StoreError::NoSpace);
    assert_eq!(world.one(3, add()).1["error"]["code"], "disk_full");
    assert_eq!(world.stage.due(), Some(at(3).mono + UNWRITTEN_RETRY));
    *world.disk.fails.lock().unwrap() = Some(StoreError::NoSpace);
    assert_eq!(world.one(3, add()).1["error"]["code"], "disk_full");
    world.stage.step(at(4), &mut Vec::new(), &mut world.out);
    assert_eq!(world.writes(), [(2, true)]);
    assert_eq!(world.one(5, add()).1["id"], 3);
}

#[test]
fn a_disk_that_fails_ends_the_node_and_nobody_is_told_that_it_is_done() {
    let mut world = World::new();
    *world.disk.fails.lock().unwrap() = Some(StoreError::Disk("EIO".into()));
    assert_eq!(world.one(0, get("/api/v1/portfolios", "ann")).0, 500);
    assert!(matches!(&world.out.mail[0], (Answer::Died { stage: "upstream", why }, _) if why.contains("EIO")));
    // It works again, but what memory knows is ahead of it.
    assert_eq!(world.one(1, get("/api/v1/portfolios", "ann")).0, 500);
    assert_eq!((world.writes(), world.out.mail.len()), (vec![], 1));
}

#[test]
fn a_removed_portfolio_leaves_no_snapshot_behind() {
    let mut world = World::new();
    world.one(0, get("/api/v1/portfolios", "ann"));
    let ann = user_id("rockpool", "ann");
    for day in 0..250 {
        world.stage.book.snapshot(&ann, 1, model::Snapshot { day, values: Default::default(), assets: Vec::new() });
    }
    world.stage.step(at(1), &mut Vec::new(), &mut world.out);
    assert_eq!(gone_rows(&world.disk.rows, &ann, 1).unwrap().len(), 100);
    world.writes();
    world.one(2, ask(Method::Delete, "/api/v1/portfolios/1", "ann", None));
    assert_eq!(gone_rows(&world.disk.rows, &ann, 1).unwrap(), []);
    assert_eq!(world.writes().iter().map(|(rows, _)| *rows).collect::<Vec<_>>(), [1, 100, 100, 50]);
}

#[test]
fn how_miners_stand_is_heard() {
    let mut world = World::new();
    let payouts = Arc::new(rockpool_store::payouts::Payouts { parent: Default::default(), parent_height: 0, weights: [].into() });
    let mined = Mined { payouts, value: 0, height: 1, blocks: Vec::new() };
    world.stage.step(at(0), &mut vec![UpstreamJob::Mined(Box::new(mined))], &mut world.out);
    assert!(matches!(&world.out.mail[..], [(Answer::MinedHeard, tickets)] if tickets.is_empty()));
}
