#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use rockpool_net::id::ShareId;
use rockpool_net::wire::share::Script;
use rockpool_store::kv::{Kv, MemKv};
use rockpool_store::params::Network;
use rockpool_workers::embedded::EmbeddedChain;

use super::*;
use crate::http::jwks::LOCAL;
use crate::http::token::{self, Caller, Scope};
use crate::peer::tests::shake_hands;
use crate::portfolio::Portfolios;
use crate::portfolio::book::Book;
use crate::portfolio::config::PortfolioConfig;
use crate::portfolio::model::{Amount, Coin, Holding, Price, Source};
use crate::testing::{ADDRESS, Grower, HTTP, Inline, PEER, SECRET, STRATUM, World, block_found, regtest};

/// Schemas of which this small node has nothing to tell.
const UNSEEN: &[&str] =
    &["BitcoinPeer", "Sync", "Work", "BlockFate", "SlowTurn", "You", "Pending", "Uncle", "SideShare", "LuckyBlock", "Service"];

/// Rows of a user who has something.
fn rich(now: u64) -> Arc<dyn Kv> {
    let kv = MemKv::new();
    let mut book = Book::open(&kv).unwrap();
    let user = book.meet(LOCAL, "test", now).unwrap();
    let source = Source::Evm { address: [1; 20], chains: vec![0] };
    let key = book.add_account(&user, 1, "hot".into(), source, now).unwrap();
    let holding = |asset: &str| Holding { asset: asset.into(), place: "ethereum".into(), amount: Amount::sats(5), counted: true };
    book.set_holdings(&key, now, vec![holding("bitcoin"), holding("unpriced")]);
    book.set_prices(vec![Price { asset: "bitcoin".into(), at: now, values: [("usd".to_owned(), 7.5)].into() }]);
    book.set_coins(1, vec![Coin { rank: 1, id: "bitcoin".into(), symbol: "btc".into(), name: "Bitcoin".into() }]);
    book.take().iter().for_each(|batch| kv.write(batch, false).unwrap());
    Arc::new(kv)
}

/// A node with some of everything, and a share of its chain.
fn node() -> (World<Inline>, ShareId) {
    let mut world = World::whole(&[], 1);
    let portfolios =
        Portfolios::open(&PortfolioConfig::default(), rich(world.now().unix().into()), SECRET, Network::Regtest, Path::new("data"));
    world.node.stages_mut().upstream = Some(Box::new(portfolios.unwrap()));
    world.node.config.portfolios = true;
    let shares = Grower::new().grow_many(3, Script::P2wpkh([1; 20]));
    let id = shares[1].id();
    world.offer(shares);
    for (ip, stays) in [([9, 9, 9, 9], true), ([7, 7, 7, 7], false)] {
        let peer = world.connect_from(ip, PEER);
        shake_hands(&mut world, peer);
        if !stays {
            world.hang_up(peer);
        }
    }
    world.template(&EmbeddedChain::new(regtest(), None), 1);
    let miner = world.connect(STRATUM);
    world.line(miner, r#"{"id":1,"method":"mining.subscribe"}"#);
    world.line(miner, &format!(r#"{{"id":2,"method":"mining.authorize","params":["{ADDRESS}"]}}"#));
    let conn = world.connect(HTTP);
    world.mail(block_found(conn, ShareId([7; 32]), 5, None), Vec::new());
    world.settle();
    (world, id)
}

/// What a request is answered with: the status, the content type and the body.
fn ask(world: &mut World<Inline>, row: &Row, path: &str) -> (u16, String, String) {
    let body = match row.body {
        "" => "",
        "NewPeer" => r#"{"addr": "8.8.4.4"}"#,
        "NewBan" => r#"{"addr": "8.8.0.0/16", "seconds": 60, "reason": "x"}"#,
        "NewPortfolio" => r#"{"name": "savings"}"#,
        "NewAccount" => r#"{"kind": "bitcoin", "name": "cold", "address": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"}"#,
        other => panic!("give an example of {other}"),
    };
    let (conn, length) = (world.connect(HTTP), body.len());
    let lines = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let method = method(row.method).to_uppercase();
    let caller = Caller { sub: "test".into(), scope: Scope::Admin };
    let token = token::sign(&SECRET, &caller, world.now().unix().into(), 60).unwrap();
    let lines = format!("{lines}Authorization: Bearer {token}\r\n");
    world.feed(conn, format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: {length}\r\n\r\n{body}").as_bytes());
    world.settle();
    let said = String::from_utf8_lossy(&world.taken(conn)).into_owned();
    world.hang_up(conn);
    let (head, body) = said.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{path} is not answered"));
    let kind = head.lines().find_map(|line| line.strip_prefix("Content-Type: ")).unwrap_or_default();
    (head[9..12].parse().unwrap(), kind.into(), body.into())
}

/// The path of a route with its parameters filled in.
fn filled(row: &Row, share: &ShareId) -> String {
    let path = row.path.replace("{id}", &share.to_string()).replace("{of}", "8.8.0.0/16").replace("{address}", ADDRESS);
    // The one that was added before: the accounts of the other are asked for.
    let portfolio = if row.route == Route::RemovePortfolio { "2" } else { "1" };
    let path = path.replace("{portfolio}", portfolio).replace("{account}", "1");
    assert!(!path.contains('{'), "give an example of what {path} is asked for");
    path
}

/// A value is what its schema says: each field that it names is there, of its type, and none beside.
fn fits(document: &Value, schema: &Value, value: &Value, at: &str, seen: &mut BTreeSet<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.strip_prefix('#').unwrap()).unwrap_or_else(|| panic!("{at}: no schema {name}"));
        seen.insert(name.rsplit('/').next().unwrap().to_owned());
        return fits(document, schema, value, at, seen);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        return if value.is_null() { assert_eq!(any[1]["type"], "null") } else { fits(document, &any[0], value, at, seen) };
    }
    if let Some(of) = schema["enum"].as_array() {
        assert!(of.contains(value), "{at}: {value} is none of {of:?}");
    }
    let is_whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
    let right = match schema["type"].as_str().unwrap() {
        "integer" => is_whole,
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{at}: {other}"),
    };
    assert!(right, "{at}: {value} is no {}", schema["type"]);
    if let Some(pattern) = schema["pattern"].as_str() {
        let text = value.as_str().unwrap();
        let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(digits && (!pattern.contains("{64}") || text.len() == 64), "{at}: {text} is not {pattern}");
    }
    value.as_array().into_iter().flatten().for_each(|item| fits(document, &schema["items"], item, &format!("{at}[]"), seen));
    for (name, value) in value.as_object().into_iter().flatten() {
        let more = &schema["additionalProperties"];
        let property = if more.is_object() { more } else { &schema["properties"][name] };
        assert!(property.is_object(), "{at}.{name} is not in the schema");
        fits(document, property, value, &format!("{at}.{name}"), seen);
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(value.get(name.as_str().unwrap()).is_some(), "{at} has no {name}");
    }
}

#[test]
fn every_route_answers_with_what_the_document_says() {
    let (mut world, share) = node();
    let index = ROUTES.iter().find(|row| row.path == "/api/v1/openapi.json").unwrap();
    let document: Value = serde_json::from_str(&ask(&mut world, index, index.path).2).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut seen = BTreeSet::new();
    let order = |row: &&Row| [Method::Post, Method::Get, Method::Delete].iter().position(|method| *method == row.method);
    let mut rows: Vec<&Row> = ROUTES.iter().collect();
    rows.sort_by_key(order);
    for row in rows {
        let told = &document["paths"][row.path][method(row.method)]["responses"];
        assert!(told.is_object(), "{} is not in the document", row.path);
        if row.kind.starts_with("text/event-stream") {
            continue;
        }
        let (status, kind, body) = ask(&mut world, row, &filled(row, &share));
        let schema = &told[status.to_string()]["content"][&kind]["schema"];
        assert!(status == row.status || row.route == Route::Health, "{}: {status} {body}", row.path);
        assert!(schema.is_object(), "{}: {status} {kind} is not in the document", row.path);
        if kind == JSON && row.path != index.path {
            fits(&document, schema, &serde_json::from_str(&body).unwrap(), row.path, &mut seen);
        }
        if !row.body.is_empty() {
            seen.insert(row.body.to_owned());
        }
    }
    let (status, _, body) = ask(&mut world, index, "/nothing");
    assert_eq!(status, 404);
    fits(&document, &reference("Error"), &serde_json::from_str(&body).unwrap(), "error", &mut seen);
    let names = document["components"]["schemas"].as_object().unwrap().keys();
    let missed: Vec<_> = names.filter(|name| !seen.contains(*name) && !UNSEEN.contains(&name.as_str())).collect();
    assert!(missed.is_empty(), "no answer had any of {missed:?}");
}

#[test]
fn parameters_are_taken_within_the_bounds_of_the_table_and_refused_beyond() {
    let (mut world, share) = node();
    for row in ROUTES.iter().filter(|row| row.method == Method::Get && !row.kind.starts_with("text/event-stream")) {
        let path = filled(row, &share);
        let mut ask = |name: &str, value: &str| {
            let (status, _, body) = ask(&mut world, row, &format!("{path}?{name}={value}"));
            let body: Value = serde_json::from_str(&body).unwrap_or_default();
            (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
        };
        for param in row.params.iter().filter(|param| param.place == Place::Query) {
            let mut good = Vec::new();
            let mut bad = vec![String::new(), "%00".into(), "-1".into()];
            match param.kind {
                Kind::Number { min, max, default } => {
                    assert!(default.is_none_or(|default| (min..=max).contains(&default)) && !param.unit.is_empty(), "{param:?}");
                    good.extend([min.to_string(), max.to_string()]);
                    bad.extend([(max + 1).to_string(), "1.5".into(), "x".into()]);
                }
                Kind::Choice { of, default } => {
                    assert!(default.is_empty() || of.contains(&default), "{param:?}");
                    good.extend(of.iter().map(|word| (*word).to_owned()));
                    bad.push(of[0].to_lowercase() + "x");
                }
                Kind::Id => bad.push("x".repeat(64)),
                Kind::Text { bytes } => {
                    bad.pop();
                    bad.push("x".repeat(bytes + 1));
                }
            }
            for value in good {
                assert_eq!(ask(param.name, &value).0, 200, "{path}?{}={value}", param.name);
            }
            for value in bad {
                let wanted = (400, "bad_parameter".to_owned());
                assert_eq!(ask(param.name, &value), wanted, "{path}?{}={value}", param.name);
            }
        }
        assert_eq!(ask("no_such_parameter", "1"), (400, "bad_parameter".to_owned()), "{path}");
    }
}

#[test]
fn the_table_is_of_one_piece() {
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for row in ROUTES {
        assert!(names.insert(format!("{:?}", row.route)), "{:?} stands twice", row.route);
        assert!(paths.insert((row.path, method(row.method))), "{} stands twice", row.path);
        assert!(row.summary.ends_with('.') && (row.kind != JSON || !row.schema.is_empty() || row.route == Route::OpenApi), "{row:?}");
        let in_path = row.params.iter().filter(|param| param.place == Place::Path).count();
        assert_eq!(row.path.matches('{').count(), in_path, "{}", row.path);
        for param in row.params {
            assert!(param.help.ends_with('.'), "{param:?}");
        }
        // Those in the path stand first, in its order.
        let places = row.path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap());
        assert!(places.eq(row.params.iter().take(in_path).map(|param| param.name)), "{}", row.path);
    }
}
