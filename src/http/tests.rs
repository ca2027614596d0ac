#![expect(clippy::unwrap_used, reason = "tests")]

mod hostile;

use std::sync::Arc;
use std::time::Duration;

use rockpool_net::counters::Kind;
use rockpool_net::frame::http::Method;
use rockpool_net::hub::TurnReport;
use rockpool_net::hub::io::Stage;
use rockpool_net::payload::Payload;
use rockpool_net::time::Now;
use rockpool_net::times::{SlowTurn, StageTimes};
use rockpool_net::wire::share::Script;
use rockpool_store::blocks::FoundBlock;
use rockpool_store::chain::{Chain, Source};
use rockpool_store::gauges::Gauges;
use rockpool_store::handle::{ChainStoreHandle, StoreHandle};
use rockpool_store::kv::MemKv;
use rockpool_store::organised::ChainChange;
use rockpool_store::params::{Network, params};
use rockpool_store::testing::ShareBuilder;
use rockpool_workers::jobs::{Fate, Queue};
use rockpool_workers::outside::call::Service;
use rockpool_workers::outside::gate::Limits;
use rockpool_workers::outside::{self, OUTCOMES};
use serde_json::{Value, json};

use super::metrics::exposition::{self, Page};
use super::*;
use crate::blocks::{Blocks, finder};
use crate::config::Mode;
use crate::http::token::{Caller, Scope};
use crate::limits::{SHARES_LISTED, SHARES_LISTED_MAX};
use crate::node::Parts;
use crate::peer::Progress;
use crate::status::{Counters, Listen, Status, Tip};
use crate::testing::{Recorder, SECRET, World};

/// Series on the page of metrics: what a small Prometheus does not notice.
const METRIC_SERIES_MAX: usize = 600;

/// A node three shares high, the newest by another miner, on a Bitcoin chain of 99 blocks; and its pages.
struct Front {
    pages: Pages,
    chain: ChainStoreHandle,
    status: Status,
    blocks: Blocks,
    counters: Counters,
    world: World<Recorder>,
    shares: Vec<Share>,
    now: Now,
}

impl Front {
    fn new() -> Front {
        let params = params(Network::Regtest);
        let kv = Arc::new(MemKv::new());
        let mut chain = Chain::open(params, [1, 2], &*kv).unwrap();
        let mut view = chain.view();
        let mut pages = Pages::new(params);
        pages.remember(view.payouts());
        let mut shares = Vec::new();
        for miner in [1, 1, 2] {
            let parent = chain.tip().id;
            let share = ShareBuilder::new(params).miner(miner).build(&chain, &parent);
            let now = Now { mono: Duration::ZERO, wall: Duration::from_secs(share.time.into()) };
            chain.offer(now, &share, Source::Peer);
            chain.confirm(1);
            let (change, _) = chain.take_change().unwrap();
            view.apply(&change);
            pages.remember(view.payouts());
            shares.push(share);
        }
        let tip = view.confirmed_tip().clone();
        let status = Status {
            network: params.name,
            mode: Mode::Chain,
            credited: None,
            magic: params.magic,
            version: "1.2.3",
            tip: Tip { id: tip.id, height: tip.height, score: tip.score },
            candidate_height: 5,
            claimed_height: Some(9),
            sync: Some(Progress { height: 5, confirmed: 3, target: 9, seconds_left: Some(12) }),
            book: (0, 0),
            peers: 2,
            miners: 1,
            accepted: 7,
            rejected: 3,
            bitcoin: Some((ShareId([0xbb; 32]), 99)),
            bitcoin_down: None,
            bitcoin_peers: Vec::new(),
            disk_full: false,
            serving: Serving::Yes,
            blocks: vec![FoundBlock {
                fates: vec![("a:1".into(), Fate::Refused("stale".into()))],
                ..FoundBlock::new(tip.id, 99, 5, finder(Some("bob")), Script::P2wpkh([1; 20]))
            }],
            listen: Listen { p2p: None, stratum: "127.0.0.1:2".parse().ok(), http: "127.0.0.1:3".parse().ok() },
            uptime: Duration::from_millis(61_500),
            queues: Vec::new(),
            services: Vec::new(),
        };
        let now = Now { mono: Duration::from_secs(1), wall: Duration::from_secs(1) };
        let chain = ChainStoreHandle::new(view, StoreHandle::new(kv));
        Front {
            pages,
            chain,
            status,
            blocks: Blocks::default(),
            counters: Counters::default(),
            world: World::recorded(&[], true),
            shares,
            now,
        }
    }

    /// A request of the reader's rows, if there are any.
    fn answered(&mut self, request: &Request, from: SocketAddr, rows: Rows<'_>) -> Answer {
        let Parts { sessions, peers, server, line, turn, .. } = self.world.node.parts(self.now, self.world.hub.outlet());
        let mut turn = Turn { chain: &mut self.chain, blocks: &mut self.blocks, counters: &self.counters, ..turn };
        let streams = &mut Streams::default();
        let mut desk = Desk { pages: &mut self.pages, streams, sessions, peers, miners: &server.miners, line, status: &self.status };
        answer(request, from, rows, &mut desk, &mut turn)
    }

    fn ask(&mut self, method: Method, path: &str) -> (u16, String, String) {
        self.ask_from("127.0.0.1", &Request::new(method, path))
    }

    fn ask_from(&mut self, from: &str, request: &Request) -> (u16, String, String) {
        match self.answered(request, format!("{from}:4711").parse().unwrap(), None) {
            Answer::Send(reply) => split(&reply.payload(request.method == Method::Head, true)),
            other => panic!("{request:?}: {other:?}"),
        }
    }

    fn get(&mut self, path: &str) -> (u16, String) {
        let (code, _, body) = self.ask(Method::Get, path);
        (code, body)
    }

    fn json(&mut self, path: &str) -> Value {
        let (code, body) = self.get(path);
        assert_eq!(code, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    #[track_caller]
    fn refused(&mut self, path: &str, wanted: u16, says: &str) {
        let (code, body) = self.get(path);
        let error: Value = serde_json::from_str(&body).unwrap();
        assert!(code == wanted && error["error"]["message"].as_str().unwrap().contains(says), "{path}: {code} {body}");
    }
}

fn split(payload: &Payload) -> (u16, String, String) {
    let text = String::from_utf8(payload.bytes().to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.into(), body.into())
}

#[test]
fn status_has_the_fields_that_scripts_read() {
    let mut front = Front::new();
    let status = front.json("/api/v1/status");
    assert_eq!((&status["network"], &status["magic"], &status["version"]), (&"regtest".into(), &"f4c4b7d4".into(), &"1.2.3".into()));
    assert_eq!(status["tip"]["id"], front.shares[2].id().to_string());
    assert_eq!(status["tip"]["height"], 3);
    assert_eq!(status["tip"]["score"].as_u64(), Some(front.status.tip.score as u64));
    assert_eq!(status["sync"], json!({"height": 5, "confirmed": 3, "target": 9, "seconds_left": 12}));
    let sync = json!({"what": "sync", "done": 5, "of": 9, "unit": "shares", "seconds_left": 12});
    assert_eq!(status["progress"], json!([sync]));
    assert_eq!((&status["candidate_height"], &status["claimed_height"]), (&5.into(), &9.into()));
    assert_eq!((&status["peers"], &status["miners"]), (&2.into(), &1.into()));
    assert_eq!((&status["shares"]["accepted"], &status["shares"]["rejected"]), (&7.into(), &3.into()));
    assert_eq!((&status["bitcoin"]["tip"], &status["bitcoin"]["height"]), (&"bb".repeat(32).into(), &99.into()));
    assert_eq!(status["listen"], serde_json::json!({"p2p": null, "stratum": "127.0.0.1:2", "http": "127.0.0.1:3"}));
    assert_eq!((&status["uptime_s"], &status["trouble"]), (&61.into(), &Value::Null));
    assert_eq!(status["blocks"][0]["fates"][0], serde_json::json!({"node": "a:1", "fate": "refused", "why": "stale"}));
}

#[test]
fn status_is_rendered_once_a_turn() {
    let mut front = Front::new();
    front.json("/api/v1/status");
    front.status.peers = 50;
    assert_eq!(front.json("/api/v1/status")["peers"], 2, "the same turn, the same answer");
    front.pages.turn_ends();
    assert_eq!(front.json("/api/v1/status")["peers"], 50);
}

#[test]
fn a_share_is_told_with_its_place() {
    let mut front = Front::new();
    let (id, parent) = (front.shares[2].id(), front.shares[1].id());
    let share = front.json(&format!("/api/v1/share/{id}"));
    assert_eq!((&share["id"], &share["parent"]), (&id.to_string().into(), &parent.to_string().into()));
    assert_eq!((&share["height"], &share["confirmed"], &share["class"]), (&3.into(), &true.into(), &"N12".into()));
    assert_eq!(share["script"], format!("0014{}", "02".repeat(20)));
    assert!(share["address"].as_str().unwrap().starts_with("bcrt1q"), "{share}");
    assert_eq!(share["value"], front.shares[2].value);
    let genesis = params(Network::Regtest).genesis_id();
    assert_eq!(front.json(&format!("/api/v1/share/{genesis}"))["height"], 0);
    front.refused(&format!("/api/v1/share/{}", "ab".repeat(32)), 404, "no such share");
    front.refused("/api/v1/share/xyz", 400, "64 hexadecimal digits");
}

#[test]
fn a_share_on_disk_is_read_first() {
    let mut front = Front::new();
    let share = front.shares[0].clone();
    front.chain.view.stored(&[share.id()]);
    let (request, from) = (Request::new(Method::Get, &format!("/api/v1/share/{}", share.id())), "127.0.0.1:1".parse().unwrap());
    assert_eq!(front.answered(&request, from, None), Answer::Read(Reads::Shares(vec![(1, share.id())])));
    let Answer::Send(reply) = front.answered(&request, from, Some(&[Some(share.encode())])) else { panic!("not sent") };
    let told: Value = serde_json::from_slice(reply.body()).unwrap();
    assert_eq!((reply.status, &told["id"]), (200, &json!(share.id().to_string())));
    let Answer::Send(reply) = front.answered(&request, from, Some(&[None])) else { panic!("not sent") };
    assert_eq!(reply.status, 404);
}

fn heights(list: &Value) -> Vec<u64> {
    list["shares"].as_array().unwrap().iter().map(|share| share["height"].as_u64().unwrap()).collect()
}

#[test]
fn shares_are_listed_from_the_newest_down() {
    let mut front = Front::new();
    let all = front.json("/api/v1/shares");
    assert_eq!((&all["network"], &all["lowest"], &all["height"]), (&"regtest".into(), &0.into(), &3.into()));
    assert_eq!(heights(&all), [3, 2, 1]);
    let (newest, share) = (&all["shares"][0], &front.shares[2]);
    assert_eq!((&newest["id"], &newest["time"]), (&share.id().to_string().into(), &share.time.into()));
    assert_eq!((&newest["class"], &newest["uncles"]), (&"N12".into(), &serde_json::json!([])));
    assert!(newest["address"].as_str().unwrap().starts_with("bcrt1q"), "{newest}");
    // Regtest's easiest target.
    assert!((newest["difficulty"].as_f64().unwrap() / 4.6565e-10 - 1.0).abs() < 1e-4, "{newest}");
    for (query, wanted) in [
        ("from=2", vec![2, 1]),
        ("count=1", vec![3]),
        ("from=2&count=1", vec![2]),
        ("from=0", vec![]),
        ("count=0", vec![]),
        ("from=9&", vec![3, 2, 1]),
    ] {
        assert_eq!(heights(&front.json(&format!("/api/v1/shares?{query}"))), wanted, "{query}");
    }
    assert_eq!(heights(&front.json(&format!("/api/v1/shares?count={SHARES_LISTED_MAX}"))), [3, 2, 1]);
    front.refused(&format!("/api/v1/shares?count={}", u16::from(SHARES_LISTED_MAX) + 1), 400, "count is");
    front.refused("/api/v1/shares?from=-1", 400, "from is");
    front.refused("/api/v1/shares?height=1", 400, "only from, count is understood here");
    front.refused("/api/v1/shares?from=1&from=2", 400, "from is given twice");
    front.refused("/api/v1/status?x", 400, "no parameters are understood here");
    const { assert!(SHARES_LISTED < SHARES_LISTED_MAX) };
    for sign in ["%2B5", "+5", "-5", "%205", "5%00", ""] {
        front.refused(&format!("/api/v1/shares?count={sign}"), 400, "count is a number");
    }
}

#[test]
fn listed_shares_on_disk_are_read_first() {
    let mut front = Front::new();
    let ids: Vec<ShareId> = front.shares.iter().map(Share::id).collect();
    front.chain.view.stored(&[ids[0], ids[1]]);
    let (request, from) = (Request::new(Method::Get, "/api/v1/shares?from=3&count=3"), "127.0.0.1:1".parse().unwrap());
    let wanted = Reads::Shares(vec![(2, ids[1]), (1, ids[0])]);
    assert_eq!(front.answered(&request, from, None), Answer::Read(wanted));
    let rows = [Some(front.shares[1].encode()), Some(front.shares[0].encode())];
    let mut list = |rows: &[Option<Vec<u8>>]| {
        let Answer::Send(reply) = front.answered(&request, from, Some(rows)) else { panic!("not sent") };
        heights(&serde_json::from_slice(reply.body()).unwrap())
    };
    assert_eq!(list(&rows), [3, 2, 1]);
    // What has left the chain while it was read is left out.
    assert_eq!(list(&[None, rows[1].clone()]), [3, 1]);
}

#[test]
fn payouts_are_those_of_the_tip_or_of_one_before() {
    let mut front = Front::new();
    let value = 5_000_000_001_u64;
    let now = front.json(&format!("/api/v1/payouts?value={value}&class=N12"));
    assert_eq!((&now["parent"], &now["height"]), (&front.shares[2].id().to_string().into(), &3.into()));
    assert_eq!((&now["bitcoin_height"], &now["class"], &now["value"]), (&100.into(), &"N12".into(), &value.into()));
    let pays = now["pays"].as_array().unwrap();
    assert_eq!(pays.iter().map(|pay| pay["sats"].as_u64().unwrap()).sum::<u64>(), value);
    let scripts: Vec<_> = pays.iter().map(|pay| pay["script"].as_str().unwrap().to_owned()).collect();
    let script = |n: u8| bitcoin::hex::DisplayHex::to_lower_hex_string(&Script::P2wpkh([n; 20]).script_pubkey()[..]);
    assert_eq!(scripts, [script(1), script(2)]);

    let weights: Vec<f64> = pays.iter().map(|pay| pay["weight"].as_f64().unwrap()).collect();
    assert!(now["payees"] == 2 && (weights[0] - 2.0 / 3.0).abs() < 1e-12 && (weights[1] - 1.0 / 3.0).abs() < 1e-12, "{now}");

    let before = front.json(&format!("/api/v1/payouts?value={value}&parent={}", front.shares[1].id()));
    assert_eq!(before["pays"].as_array().unwrap().len(), 1);
    assert_eq!(before["pays"][0]["sats"], value);
    let first = front.json(&format!("/api/v1/payouts?parent={}", params(Network::Regtest).genesis_id()));
    assert!(first["pays"].as_array().unwrap().is_empty() && first["note"].is_string(), "{first}");

    // Without a template the chain's own headers tell the height.
    assert_eq!(now["bitcoin_height"], 100);
    front.status.bitcoin = None;
    assert_eq!(front.json("/api/v1/payouts")["bitcoin_height"], 1);

    front.refused("/api/v1/payouts?value=-1", 400, "value is");
    front.refused("/api/v1/payouts?value=2100000000000001", 400, "value is");
    front.refused("/api/v1/payouts?class=N13", 400, "class is");
    front.refused("/api/v1/payouts?parent=12", 400, "parent is");
    front.refused(&format!("/api/v1/payouts?parent={}", "00".repeat(32)), 404, "newest few");
    front.refused("/api/v1/payouts?colour=red", 400, "only value, class, parent, address is understood here");
}

#[test]
fn payouts_of_old_tips_are_forgotten() {
    let mut front = Front::new();
    let mut payouts = (**front.chain.view.payouts()).clone();
    for n in 0..PAYOUTS_KEPT {
        payouts.parent = ShareId([n as u8; 32]);
        front.pages.remember(&Arc::new(payouts.clone()));
        // Told twice, remembered once.
        front.pages.remember(&Arc::new(payouts.clone()));
    }
    assert_eq!(front.pages.payouts.len(), PAYOUTS_KEPT);
    front.json(&format!("/api/v1/payouts?parent={}", "00".repeat(32)));
    front.refused(&format!("/api/v1/payouts?parent={}", front.shares[1].id()), 404, "newest few");
    // The tip's are known all the same.
    front.json(&format!("/api/v1/payouts?parent={}", front.shares[2].id()));
}

#[test]
fn payouts_are_those_of_the_share_that_work_builds_on() {
    let mut front = Front::new();
    let (at, own) = (front.chain.view.confirmed_height(), front.shares[1].clone());
    let weights = [(own.script, 20_u128)].into();
    let upon = Payouts { parent: own.id(), parent_height: own.height, weights };
    let change = ChainChange { fork_height: at, confirmed_height: at, upon: Some(Arc::new(upon)), ..ChainChange::default() };
    front.chain.view.apply(&change);
    for path in ["/api/v1/payouts?value=7".to_owned(), format!("/api/v1/payouts?value=7&parent={}", own.id())] {
        let now = front.json(&path);
        assert_eq!((&now["parent"], &now["height"], &now["pays"][0]["sats"]), (&own.id().to_string().into(), &2.into(), &7.into()));
    }
    let tip = front.json(&format!("/api/v1/payouts?parent={}", front.shares[2].id()));
    assert_eq!((&tip["height"], &tip["you"]), (&3.into(), &Value::Null));
    let address = json::address(&own.script, params(Network::Regtest)).unwrap();
    let you = front.json(&format!("/api/v1/payouts?value=7&address={address}"))["you"].take();
    assert_eq!((&you["sats"], &you["chance"], &you["weight"]), (&7.into(), &1.0.into(), &1.0.into()));
    front.refused("/api/v1/payouts?address=bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", 400, "another network");
    front.refused(&format!("/api/v1/payouts?address={address}.worker"), 400, "without a worker");
}

#[test]
fn the_chain_and_its_headers_are_listed() {
    let mut front = Front::new();
    front.pages.own.remember(front.shares[1].id());
    let list = front.json("/api/v1/chain?count=2");
    assert_eq!((heights(&list), &list["shares"][1]["own"], &list["height"]), (vec![3, 2], &true.into(), &3.into()));
    let headers = front.json("/api/v1/headers?from=1");
    assert_eq!((headers.as_array().unwrap().len(), &headers[0]["id"]), (1, &front.shares[0].id().to_string().into()));
    for path in ["chain", "headers"] {
        front.refused(&format!("/api/v1/{path}?count=201"), 400, "count is");
        front.refused(&format!("/api/v1/{path}?from=-1"), 400, "from is");
    }
}

#[test]
fn health_says_why_not() {
    let mut front = Front::new();
    assert_eq!(front.get("/health"), (200, "ok\n".into()));
    front.status.serving = Serving::Behind { height: 12 };
    assert_eq!(front.get("/health"), (503, "syncing: at height 3 of 12\n".into()));
    front.status.serving = Serving::NoPeer;
    assert!(front.get("/health").1.contains("--alone"));
    front.status.bitcoin_down = Some("connection refused".into());
    assert_eq!(front.get("/health"), (503, "bitcoind cannot be reached: connection refused\n".into()));
    front.status.disk_full = true;
    assert!(front.get("/health").1.starts_with("the disk is full"));
}

/// Services outside, one of which is down.
fn gauges() -> Vec<outside::Gauges> {
    let gauges = |service: Service| outside::Gauges {
        service,
        limits: Limits::of(service),
        in_flight: 2,
        waiting: 1,
        open: usize::from(service == Service::Okx),
        calls: OUTCOMES.map(|outcome| (outcome, 7)),
    };
    Service::ALL.map(gauges).into()
}

/// The page of metrics, which must be well made, as a node with a disk has it.
fn metrics(front: &mut Front) -> (Page, String) {
    front.status.queues = vec![Queue { name: "reader", depth: 3, slots: 192 }];
    front.status.services = gauges();
    crate::process::look();
    let (code, mut text) = front.get("/metrics");
    assert_eq!(code, 200);
    super::metrics::table(&mut text, "rockpool_store", Gauges::default().rows());
    (exposition::parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}")), text)
}

#[test]
fn metrics_are_in_prometheus_format() {
    let mut front = Front::new();
    front.counters.shares_accepted.add(41);
    let net = front.world.hub.outlet().counters();
    net.bytes_in.add(42);
    net.closed_remote.add(5);
    net.tickets_http.set(2);
    let (page, text) = metrics(&mut front);
    for line in [
        "rockpool_build_info{version=\"1.2.3\",network=\"regtest\",mode=\"chain\"} 1",
        "rockpool_tip_height 3",
        "rockpool_healthy 1",
        "rockpool_shares_accepted_total 41",
        "rockpool_net_in_bytes_total 42",
        "rockpool_net_closed_total{reason=\"remote\"} 5",
        "rockpool_net_tickets{lane=\"http\"} 2",
        "rockpool_net_tickets_max{lane=\"stratum\"} 1024",
        "rockpool_queue_depth{queue=\"reader\"} 3",
        "rockpool_queue_slots{queue=\"reader\"} 192",
        "rockpool_outside_calls_total{service=\"coingecko\",outcome=\"timeout\"} 7",
        "rockpool_outside_in_flight{service=\"evm\"} 2",
        "rockpool_outside_in_flight_max{service=\"coingecko\"} 5",
        "rockpool_outside_waiting{service=\"bitcoind\"} 1",
        "rockpool_outside_open{service=\"okx\"} 1",
        "rockpool_miners_max 10240",
    ] {
        assert!(text.lines().any(|have| have == line), "no {line:?} in {text}");
    }
    // Every row of the tables is there once, as the sum or the level that it is.
    for (prefix, rows) in [
        ("rockpool", front.counters.rows()),
        ("rockpool_net", front.world.hub.outlet().counters().rows()),
        ("rockpool_store", Gauges::default().rows()),
    ] {
        for row in rows {
            let end = if row.name.starts_with("files_level_") { row.name.rsplit_once('_') } else { row.name.split_once('_') };
            let (front, back) = end.unwrap_or((row.name, ""));
            let total = if row.kind == Kind::Sum { "_total" } else { "" };
            let of_label = page.families.get(&format!("{prefix}_{front}{total}"));
            let sample =
                of_label.is_some_and(|family| family.samples.iter().any(|sample| sample.labels.iter().any(|(_, value)| value == back)));
            let family = page.families.get(&format!("{prefix}_{}", row.metric()));
            let kind = if row.kind == Kind::Sum { "counter" } else { "gauge" };
            assert!(sample != family.is_some_and(|family| family.kind == kind && family.samples.len() == 1), "{prefix}_{}", row.name);
        }
    }
    assert_eq!(page.value("rockpool_shares_accepted_total"), Some(41.0));
    // Bounded, whatever happens.
    let series: usize = page.families.values().map(|family| family.samples.len()).sum();
    assert!(series < METRIC_SERIES_MAX, "{series} series");
}

/// Every metric that an expression names.
fn metrics_named(expr: &str) -> impl Iterator<Item = &str> {
    let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("rockpool_") || word.starts_with("process_"))
}

#[test]
fn the_dashboard_for_grafana_names_metrics_that_are_there() {
    let (page, _) = metrics(&mut Front::new());
    let board: Value = serde_json::from_str(include_str!("../../dist/grafana/rockpool.json")).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let (mut ids, mut named) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()) && !panel["title"].as_str().unwrap().is_empty());
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = target["expr"].as_str().unwrap();
            assert!(expr.contains("job=\"$job\"") && expr.matches('(').count() == expr.matches(')').count(), "{expr}");
            for name in metrics_named(expr) {
                assert!(page.has(name), "{name} of panel {} is not on the page", panel["title"]);
                named.insert(name.to_owned());
            }
        }
    }
    assert!(panels.len() > 30 && named.len() > 60, "{} panels, {} metrics", panels.len(), named.len());
    for variable in board["templating"]["list"].as_array().unwrap() {
        assert!(metrics_named(variable["query"]["query"].as_str().unwrap_or_default()).all(|name| page.has(name)));
    }
}

#[test]
fn alerts_name_metrics_that_are_there_and_say_what_to_do() {
    let (page, _) = metrics(&mut Front::new());
    let (rules, config) = (include_str!("../../dist/prometheus/alerts.yml"), include_str!("../../dist/prometheus/prometheus.yml"));
    assert!(config.contains("- alerts.yml") && config.contains("127.0.0.1:9332"));
    let names: Vec<&str> = metrics_named(rules).collect();
    assert!(names.len() > 15 && names.iter().all(|name| page.has(name)), "{:?}", names.iter().find(|name| !page.has(name)));
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 10);
    for alert in alerts {
        for wanted in ["expr: ", "severity: ", "summary: \"", "description: \""] {
            assert_eq!(alert.matches(wanted).count(), 1, "{wanted} in {alert}");
        }
    }
}

#[test]
fn what_is_not_there_and_what_is_not_allowed() {
    let mut front = Front::new();
    for path in ["/nothing", "/api/v1/", "/api/v2/status", "*", "", "/api/v1/share"] {
        front.refused(path, 404, "nothing here");
    }
    for method in [Method::Post, Method::Put, Method::Delete, Method::Options, Method::Other] {
        let (code, head, _) = front.ask(method, "/api/v1/status");
        assert!(code == 405 && head.contains("Allow: GET, HEAD"), "{head}");
    }
    let (code, head, body) = front.ask(Method::Head, "/health");
    assert!(code == 200 && head.contains("Content-Length: 3") && body.is_empty());
}

#[test]
fn turns_are_told_by_histogram_and_the_slowest_by_what_they_did() {
    let mut front = Front::new();
    for us in [3, 900] {
        let mut times = StageTimes::default();
        times.add(Stage::Dispatch, Duration::from_micros(us));
        times.add(Stage::Poll, Duration::from_secs(1));
        front.world.hub.outlet().times().record(SlowTurn {
            began: Duration::from_millis(us),
            times,
            report: TurnReport { frames: 7, ..TurnReport::default() },
        });
    }
    let (_, text) = front.get("/metrics");
    for line in [
        "rockpool_net_turn_seconds_bucket{le=\"0.000002\"} 0",
        "rockpool_net_turn_seconds_bucket{le=\"0.000004\"} 1",
        "rockpool_net_turn_seconds_bucket{le=\"+Inf\"} 2",
        "rockpool_net_turn_seconds_sum 0.000903",
        "rockpool_net_stage_seconds_bucket{stage=\"dispatch\",le=\"0.001024\"} 2",
        "rockpool_net_stage_seconds_count{stage=\"poll\"} 2",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is missing:\n{text}");
    }
    let turns = front.json("/api/v1/turns");
    assert_eq!((&turns["turns"], &turns["slowest"].as_array().unwrap().len()), (&2.into(), &2));
    let slowest = &turns["slowest"][0];
    assert_eq!((&slowest["began_s"], &slowest["busy_us"], &slowest["frames"]), (&0.9.into(), &900.into(), &7.into()));
    assert_eq!((&slowest["stages_us"]["dispatch"], &slowest["stages_us"]["poll"]), (&900.into(), &1_000_000.into()));
}

#[test]
fn only_who_is_on_this_machine_says_that_there_is_a_new_block() {
    let mut front = Front::new();
    let mut ask = |method, path: &str, from: &str| {
        let request = Request { passed_on: path.ends_with('!'), ..Request::new(method, path.trim_end_matches('!')) };
        let (code, head, _) = front.ask_from(from, &request);
        (code, std::mem::take(&mut front.world.node.parts(front.now, front.world.hub.outlet()).turn.jobs.blocknotify), head)
    };
    let path = "/api/v1/blocknotify";
    for from in ["127.0.0.1", "127.8.9.1", "[::1]", "[::ffff:127.0.0.1]"] {
        assert!(matches!(ask(Method::Post, &format!("{path}?hash=00"), from), (200, true, _)), "{from}");
    }
    for from in ["192.168.1.2", "8.8.8.8", "[2001:db8::1]", "[::ffff:10.0.0.1]"] {
        assert!(matches!(ask(Method::Post, path, from), (403, false, _)), "{from}");
    }
    assert!(matches!(ask(Method::Post, &format!("{path}!"), "127.0.0.1"), (403, false, _)), "a page in a browser");
    let (code, heard, text) = ask(Method::Get, path, "127.0.0.1");
    assert!(code == 405 && !heard && text.contains("\r\nAllow: POST"), "{text}");
}

#[test]
fn found_blocks_are_listed_newest_first() {
    let mut front = Front::new();
    for number in 0..30 {
        let block = FoundBlock::new(ShareId([number; 32]), number.into(), 5, finder(Some("bob")), Script::P2wpkh([1; 20]));
        front.blocks.found(block, None);
    }
    let heights =
        |told: Value| told["blocks"].as_array().unwrap().iter().map(|block| block["height"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(heights(front.json("/api/v1/blocks")), (30 - u64::from(SHARES_LISTED)..30).rev().collect::<Vec<_>>());
    assert_eq!(heights(front.json("/api/v1/blocks?count=2")), [29, 28]);
    assert_eq!(front.get("/api/v1/blocks?count=x").0, 400);
    let told = front.json("/api/v1/blocks?count=1");
    let block = &told["blocks"][0];
    assert_eq!((&block["found_by"], &block["name"], &block["state"]), (&json!("miner"), &json!("bob"), &json!("open")));
    assert_eq!(front.json("/api/v1/status")["blocks"][0]["name"], "bob");
}

#[test]
fn services_are_told_to_who_has_a_token() {
    let mut front = Front::new();
    front.status.services = gauges();
    let token = token::sign(&SECRET, &Caller { sub: "a".into(), scope: Scope::Admin }, front.now.unix().into(), 60).unwrap();
    let request = Request { authorization: Some(format!("Bearer {token}").into()), ..Request::new(Method::Get, "/api/v1/services") };
    let mut ask = |on| {
        front.world.node.config.portfolios = on;
        let (code, _, body) = front.ask_from("8.8.8.8", &request);
        (code, serde_json::from_str::<Value>(&body).unwrap())
    };
    assert_eq!(ask(false).0, 404);
    let (code, told) = ask(true);
    assert_eq!((code, told["list"].as_array().unwrap().len()), (200, Service::ALL.len()));
    let first = &told["list"][0];
    assert_eq!((&first["name"], &first["in_flight_max"], &first["delay_ms"]), (&json!("coingecko"), &json!(5), &json!(2_000)));
    assert_eq!((&first["calls"]["ok"], &first["waiting"], &first["open"]), (&json!(7), &json!(1), &json!(0)));
}
