//! Portfolios in a whole node: who comes first, what kill -9 leaves, and what a stolen data directory tells.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rockpool_store::kv::{Family, Kv};
use rockpool_store::portfolios::rows::Row;
use rockpool_store::rocks::RocksKv;
use rockpool_workers::outside::fake::{Asked, FakeService, Reply};
use serde_json::{Value, json};

use crate::kit::{PATIENCE, Rockpool, temp, until};

/// Connections that ask at once, and how often each.
const CONNECTIONS: usize = 500;
const REQUESTS: usize = 2;
/// Coins that the service knows: with their prices as many rows as one write has at most.
const COINS: usize = 100;
const KILLS: u64 = 10;
/// What nobody but OKX and its user may know.
const SECRETS: [&str; 3] = ["7e57-0f-a-key", "S3CR3T-0f-0kx", "W0RD-0f-passing"];

/// A token of the node for a user.
pub fn token(dir: &Path, sub: &str) -> String {
    let args = ["token", "--scope", "user", "--sub", sub, "--datadir"];
    let out = Command::new(env!("CARGO_BIN_EXE_rockpool")).args(args).arg(dir).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn request(method: &str, path: &str, token: &str, body: &str) -> String {
    let length = body.len();
    let lines = format!("Host: test\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n");
    format!("{method} {path} HTTP/1.1\r\n{lines}\r\n{body}")
}

/// The next answer on a connection: status and JSON.
fn answer(reader: &mut impl BufRead) -> (u16, Value) {
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let begin = head.len();
        assert!(reader.read_line(&mut head).unwrap() > 0, "the node hung up after {head:?}");
        if let Some(text) = head[begin..].strip_prefix("Content-Length: ") {
            length = text.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_slice(&body).unwrap())
}

fn connect(http: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    BufReader::new(stream)
}

fn ask(http: SocketAddr, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
    let mut reader = connect(http);
    let body = if body.is_null() { String::new() } else { body.to_string() };
    reader.get_mut().write_all(request(method, path, token, &body).as_bytes()).unwrap();
    answer(&mut reader)
}

/// All rows of portfolios on disk.
fn rows(dir: &Path) -> Vec<Row> {
    let kv = RocksKv::open(&dir.join("chain")).unwrap();
    let mut rows = Vec::new();
    kv.scan(Family::Portfolios, &[], &mut |key, value| {
        rows.push(Row::decode(key, value).unwrap());
        true
    })
    .unwrap();
    rows
}

/// Nothing is asked outside but of services of the test.
fn flags<'a>(coingecko: &'a str, okx: &'a str) -> Vec<&'a str> {
    vec!["--portfolios", "--currency", "usd", "--coingecko", coingecko, "--okx", okx, "--outside", "coingecko=5,0", "--outside", "okx=3,0"]
}

#[test]
fn a_thousand_first_requests_at_once_make_one_user() {
    let (dir, nowhere) = (temp(), FakeService::refused());
    let mut node = Rockpool::start(dir.path(), &flags(&nowhere, &nowhere));
    let token = token(dir.path(), "ann");
    let asked = request("GET", "/api/v1/portfolios", &token, "").repeat(REQUESTS);
    let mut readers: Vec<_> = (0..CONNECTIONS).map(|_| connect(node.http)).collect();
    readers.iter_mut().for_each(|reader| reader.get_mut().write_all(asked.as_bytes()).unwrap());
    let answers: Vec<_> = readers.iter_mut().flat_map(|reader| [(); REQUESTS].map(|()| answer(reader))).collect();
    assert_eq!(answers.len(), CONNECTIONS * REQUESTS);
    let since = answers[0].1["user"]["since"].as_u64().unwrap();
    for (status, told) in &answers {
        let user = json!({ "name": "ann", "issuer": "rockpool", "since": since });
        assert_eq!((*status, &told["user"], told["portfolios"].as_array().unwrap().len()), (200, &user, 1));
    }
    node.kill();
    let rows = rows(dir.path());
    let users: Vec<_> = rows.iter().filter(|row| matches!(row, Row::User(user) if user.since == since)).collect();
    let portfolios = rows.iter().filter(|row| matches!(row, Row::Portfolio(..))).count();
    assert_eq!((users.len(), portfolios, rows.iter().filter(|row| matches!(row, Row::User(_))).count()), (1, 1, 1));
}

fn coin(n: usize) -> String {
    if n == 0 { "bitcoin".into() } else { format!("coin-{n}") }
}

/// CoinGecko with prices that are others at each call, and a word about each call that was answered.
fn coingecko(prices: Arc<AtomicU64>) -> FakeService {
    FakeService::start(move |asked: &Asked| match asked.path() {
        "/simple/price" => {
            let worth = prices.fetch_add(1, Ordering::SeqCst) + 1;
            let ids = asked.query("ids").unwrap().split(',');
            let price = |id: &str| (id.to_owned(), json!({ "usd": worth, "last_updated_at": 1_700_000_000 + worth }));
            Reply::json(&Value::Object(ids.map(price).collect()))
        }
        "/coins/markets" => {
            let coin = |n| json!({ "id": coin(n), "symbol": format!("c{n}"), "name": coin(n) });
            Reply::json(&(0..COINS).map(coin).collect())
        }
        _ => Reply::json(&json!([])),
    })
}

#[test]
fn killed_while_prices_are_written_it_has_them_by_whole_batches() {
    let (dir, nowhere, prices) = (temp(), FakeService::refused(), Arc::new(AtomicU64::new(0)));
    let service = coingecko(prices.clone());
    let url = service.url();
    let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
    for round in 0..KILLS {
        let mut node = Rockpool::start(dir.path(), &flags(&url, &nowhere));
        let token = token(dir.path(), "ann");
        let before = prices.load(Ordering::SeqCst);
        assert_eq!(ask(node.http, "GET", "/api/v1/portfolios", &token, &Value::Null).0, 200);
        // Top coins are known since the first round: whoever looks has their prices asked for.
        let coins = until("prices", || {
            let (_, told) = ask(node.http, "GET", "/api/v1/coins", &token, &Value::Null);
            let coins = told["list"].as_array().unwrap().len();
            (prices.load(Ordering::SeqCst) > before && coins == COINS).then_some(coins)
        });
        assert_eq!(coins, COINS);
        // Each time a little later: before, while and after the rows are written.
        for _ in 0..round {
            node.get("/api/v1/status");
        }
        node.kill();
        let mut worths: BTreeMap<u64, usize> = BTreeMap::new();
        for row in rows(dir.path()) {
            if let Row::Price(price) = row {
                *worths.entry(price.values["usd"] as u64).or_default() += 1;
            }
        }
        // Of each answer that is there all rows are, but those that a later answer has overwritten, whole itself.
        let whole = |of: &usize| *of == COINS || *of == COINS - 1 || *of == 1;
        assert!(worths.values().all(whole) && worths.values().sum::<usize>() <= COINS, "round {round}: {worths:?}");
        worths.keys().for_each(|worth| *seen.entry(*worth).or_default() += 1);
    }
    eprintln!("{KILLS} kills, prices of {} answers were found after them", seen.len());
    assert!(seen.len() > 1, "prices came to the disk: {seen:?}");
    // What was left is taken up, and nothing of it is refused.
    let node = Rockpool::start(dir.path(), &flags(&url, &nowhere));
    let told = ask(node.http, "GET", "/api/v1/coins", &token(dir.path(), "ann"), &Value::Null).1;
    assert_eq!(told["list"].as_array().unwrap().len(), COINS);
}

/// All that is in a directory and below.
fn bytes(dir: &Path, all: &mut Vec<u8>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            bytes(&path, all);
        } else {
            all.extend(std::fs::read(path).unwrap());
        }
    }
}

#[test]
fn a_stolen_data_directory_tells_no_secret_of_okx() {
    let (dir, keep) = (temp(), temp());
    let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let heard = asked.clone();
    let okx = FakeService::start(move |asked| {
        heard.lock().unwrap().push(asked.clone());
        Reply::json(&json!({ "code": "0", "msg": "", "data": [] }))
    });
    let (nowhere, url) = (FakeService::refused(), okx.url());
    let file = keep.path().join("portfolio.key");
    let mut with_key = flags(&nowhere, &url);
    with_key.extend(["--portfolio-key", file.to_str().unwrap()]);
    let mut node = Rockpool::start(dir.path(), &with_key);
    let token = token(dir.path(), "ann");
    let [key, secret, passphrase] = SECRETS;
    let new = json!({ "kind": "okx", "name": "exchange", "key": key, "secret": secret, "passphrase": passphrase });
    let (status, told) = ask(node.http, "POST", "/api/v1/portfolios/1/accounts", &token, &new);
    assert_eq!((status, &told["kind"]), (201, &json!("okx")), "{told}");
    // The node itself can use it.
    until("OKX to be asked", || {
        let asked = asked.lock().unwrap();
        asked.iter().find(|asked| asked.header("ok-access-key") == Some(key)).map(drop)
    });
    let list = ask(node.http, "GET", "/api/v1/portfolios/1/accounts", &token, &Value::Null).1;
    let (page, log) = (node.get("/metrics").1, node.log());
    node.stop();
    let mut stolen = Vec::new();
    bytes(dir.path(), &mut stolen);
    assert!(stolen.windows(8).any(|window| window == b"exchange"), "the row is there");
    for secret in SECRETS {
        assert!(!stolen.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret} is in the data directory");
        for told in [&told.to_string(), &list.to_string(), &page, &log, &node.log()] {
            assert!(!told.contains(secret), "{told}");
        }
    }
    // Whoever has the directory and a key of his own has nothing: OKX is not asked, and the account says why.
    let other = keep.path().join("other.key");
    asked.lock().unwrap().clear();
    let mut with_other = flags(&nowhere, &url);
    with_other.extend(["--portfolio-key", other.to_str().unwrap()]);
    let node = Rockpool::start(dir.path(), &with_other);
    let trouble = until("the account's trouble", || {
        let list = ask(node.http, "GET", "/api/v1/portfolios/1/accounts", &token, &Value::Null).1;
        list["list"][0]["trouble"].as_str().map(str::to_owned)
    });
    assert!(trouble.contains("--portfolio-key") && asked.lock().unwrap().is_empty(), "{trouble}");
}
