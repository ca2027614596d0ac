//! Every connector through the real client, against a service that answers as the real one documents it, and errs in every way.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rockpool_net::id::ShareId;
use rockpool_net::reactor::Clock;
use rockpool_store::params::Network;
use rockpool_workers::outside::bitcoind::BitcoindConfig;
use rockpool_workers::outside::fake::{FakeService, Fault, Reply};
use rockpool_workers::outside::gate::Limits;
use rockpool_workers::outside::{Outside, OutsideConfig};
use serde_json::json;

use super::coingecko::CoinGecko;
use super::*;
use crate::portfolio::chains::CHAINS;
use crate::portfolio::model::{Coin, Contract};
use crate::portfolio::seal::okx_keys;
use crate::portfolio::services::Services as World;

const MINE: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
const NOW: u64 = 1_790_000_000;

/// What an answer comes to, in words.
type Read = Box<dyn Fn(&[u8]) -> Result<String, CallError>>;

/// All connectors: a name, the call, how its answer is read, and what that comes to.
fn connectors(url: &str) -> Vec<(&'static str, Call, Read, &'static str)> {
    fn told<T: std::fmt::Debug>(result: Result<T, CallError>) -> Result<String, CallError> {
        result.map(|read| format!("{read:?}"))
    }
    let gecko = || CoinGecko::new(url, Some("key"), &["usd".into()]);
    let keys = okx_keys("key".into(), "secret".into(), "word".into()).unwrap();
    let base = url.to_owned();
    let evm = move || evm::Endpoint::new(&CHAINS[1], &format!("{base}/arbitrum"));
    let token = || vec![Contract { chain: 1, address: [2; 20], coin: "tether".into(), decimals: Some(6) }];
    let top = || vec![Coin { rank: 1, id: "coin-2".into(), symbol: "c2".into(), name: "Coin".into() }];
    let (okx, own, hash): (Arc<str>, Arc<str>, _) = ("okx".into(), "bitcoind".into(), ShareId([7; 32]));
    let (ids, mine, name) = (vec!["bitcoin".to_owned()], vec![MINE.to_owned()], "07".repeat(32));
    let (scanned, first) = (mine.clone(), name.clone());
    let reader = gecko();
    let (balances, places) = (evm(), evm());
    let (of_balances, of_places) = (evm(), evm());
    vec![
        (
            "prices",
            gecko().prices(&ids),
            Box::new(move |bytes| told(reader.read_prices(bytes, &ids, NOW))),
            r#"[Price { asset: "bitcoin", at: 1789999980, values: {"usd": 2.0} }]"#,
        ),
        (
            "top coins",
            gecko().top(),
            Box::new(move |bytes| told(CoinGecko::new("", None, &[]).read_top(bytes).map(|coins| coins.len()))),
            "100",
        ),
        (
            "contracts",
            gecko().all(),
            Box::new(move |bytes| told(CoinGecko::new("", None, &[]).read_contracts(bytes, &top()).map(|found| found.len()))),
            "6",
        ),
        (
            "trading account",
            okx::balances(&okx, url, okx::Part::Trading, &keys),
            Box::new(|bytes| told(okx::read_balances(bytes, okx::Part::Trading, &[]).map(|(held, _)| held[0].amount.to_string()))),
            r#""1.5""#,
        ),
        (
            "funding account",
            okx::balances(&okx, url, okx::Part::Funding, &keys),
            Box::new(|bytes| told(okx::read_balances(bytes, okx::Part::Funding, &[]).map(|(held, _)| held[0].asset.clone()))),
            r#""okx:NOWHERE""#,
        ),
        (
            "balances",
            of_balances.balances(&[1; 20], &token()),
            Box::new(move |bytes| told(balances.read_balances(bytes, &token()).map(|held| held[1].amount.to_string()))),
            r#""5""#,
        ),
        (
            "places",
            of_places.decimals(&[[2; 20]]),
            Box::new(move |bytes| told(places.read_decimals(bytes, &[[2; 20]]).map(|of| of[0].2))),
            "6",
        ),
        (
            "scan",
            bitcoin::scan(&own, &mine),
            Box::new(move |bytes| told(bitcoin::read_scan(bytes, &scanned).map(|held| held[MINE]))),
            "25000000",
        ),
        ("block", bitcoin::block(&own, &hash), Box::new(move |bytes| told(bitcoin::read_block(bytes, &hash).map(|name| name.len()))), "64"),
        (
            "first transaction",
            bitcoin::coinbase(&own, &hash, &name),
            Box::new(move |bytes| told(bitcoin::read_coinbase(bytes, &first))),
            "[(P2wpkh([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]), 50000000)]",
        ),
    ]
}

/// A service that is all of them at once, and bitcoind.
fn start() -> FakeService {
    let mut world = World::new(NOW);
    world.paid.push((format!("0014{}", "01".repeat(20)), 0.5));
    FakeService::start(move |asked| good(&mut world, &asked.target, &asked.body, asked.header("ok-access-sign").is_some()))
}

fn good(world: &mut World, target: &str, body: &str, signed: bool) -> Reply {
    if target != "/" {
        assert_eq!(signed, target.starts_with("/api/v5/"), "{target}");
        return Reply::json(&world.http(target, body));
    }
    let asked: Value = serde_json::from_str(body).unwrap();
    let methods = ["scantxoutset", "getblock", "getrawtransaction"];
    let method = methods.into_iter().find(|method| asked["method"] == **method).unwrap();
    let what = rockpool_workers::outside::call::What::Rpc { method, params: asked["params"].clone() };
    let endpoint: Arc<str> = "own".into();
    let call = Call { what, ..http(Service::Bitcoind, &endpoint, String::new(), no_headers(), None) };
    let result: Value = serde_json::from_slice(&world.answer(&call).unwrap()).unwrap();
    Reply::json(&json!({"result": result, "error": null, "id": asked["id"]}))
}

/// A client that tries once and waits for nothing.
fn client(service: &FakeService) -> Outside {
    let limits = Limits { in_flight: 1, delay: Duration::ZERO, acquire: Duration::from_secs(5), tries: 1 };
    let limits = Service::ALL.iter().map(|service| (*service, limits)).collect();
    let bitcoind = BitcoindConfig::new(&format!("http://user:word@{}", service.host()), None, Network::Regtest).unwrap();
    Outside::new(OutsideConfig { clock: Clock::start(), seed: 1, limits, bitcoind: Some(bitcoind) })
}

#[test]
fn every_connector_reads_what_its_service_documents() {
    let service = start();
    let outside = client(&service);
    for (name, call, read, want) in connectors(&service.url()) {
        let answer = outside.call(&call).unwrap();
        assert_eq!(read(&answer), Ok(want.to_owned()), "{name}");
    }
    let asked = service.asked();
    assert_eq!(asked.len(), connectors("").len());
    assert_eq!(asked[0].header("x-cg-demo-api-key"), Some("key"));
    assert_eq!(asked[3].header("ok-access-passphrase"), Some("word"));
}

#[test]
fn every_connector_outlives_every_fault() {
    let service = start();
    let short = Duration::from_millis(300);
    let faults: Vec<(&str, Reply)> = vec![
        ("429", Reply::status(429).header("retry-after", "30")),
        ("500", Reply::status(500)),
        ("503", Reply::status(503)),
        ("404", Reply::status(404)),
        ("moved", Reply::status(302).header("location", "http://127.0.0.1:1/")),
        ("wrong type", Reply::text("text/html", "<html>")),
        ("no JSON", Reply::text("application/json", "{\"result\":")),
        ("other JSON", Reply::json(&json!({"a": [1, {"result": 5}]}))),
        ("null", Reply::json(&Value::Null)),
        ("number", Reply::text("application/json", "1e400")),
        ("deep", Reply::text("application/json", &"[".repeat(100_000))),
        ("cut", Reply::json(&json!({"result": "x".repeat(5_000)})).fault(Fault::Cut)),
        ("hung up", Reply::status(200).fault(Fault::HangUp)),
        ("slow head", Reply::status(200).fault(Fault::SlowHead(short * 20))),
        ("slow body", Reply::status(200).fault(Fault::SlowBody(short))),
        ("endless", Reply::status(200).fault(Fault::Endless)),
    ];
    for (name, call, read, _) in connectors(&service.url()) {
        for (fault, reply) in &faults {
            let reply = reply.clone();
            service.answer(move |_| reply.clone());
            let slow = fault.starts_with("slow");
            let call = Call { deadline: if slow { short } else { call.deadline.min(Duration::from_secs(20)) }, ..call.clone() };
            let result = client(&service).call(&call).and_then(|answer| read(&answer));
            if (name, *fault) == ("prices", "other JSON") {
                // Of coins that it does not know, CoinGecko says nothing.
                assert_eq!(result, Ok("[]".into()));
                continue;
            }
            let Err(error) = result else { panic!("{name}, {fault}: {result:?}") };
            let words = error.to_string();
            assert!(words.len() < 400 && !words.contains("secret") && !words.contains('\n'), "{name}, {fault}: {words}");
            match *fault {
                "slow head" | "slow body" => assert_eq!(error, CallError::Timeout, "{name}"),
                "cut" | "hung up" => assert!(matches!(error, CallError::Unreachable(_) | CallError::Garbled(_)), "{name}: {error:?}"),
                "429" if call.service != Service::Bitcoind => {
                    assert!(matches!(error, CallError::Status { status: 429, .. }), "{name}: {error:?}")
                }
                _ => {}
            }
        }
        // A service that is not there at all, and one that is back.
        let gone = connectors(&FakeService::refused()).into_iter().find(|(of, ..)| *of == name).unwrap().1;
        if call.service != Service::Bitcoind {
            assert!(matches!(client(&service).call(&gone), Err(CallError::Unreachable(_))), "{name}");
        }
    }
    let world = Mutex::new(World::new(NOW));
    service.answer(move |asked| {
        let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
        good(&mut world, &asked.target, &asked.body, asked.header("ok-access-sign").is_some())
    });
    let (_, call, read, want) = connectors(&service.url()).swap_remove(0);
    assert_eq!(read(&client(&service).call(&call).unwrap()), Ok(want.to_owned()));
}
