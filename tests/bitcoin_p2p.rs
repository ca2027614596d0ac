//! A whole node against real Bitcoin nodes, over Bitcoin's own protocol: it follows their headers and reorgs, hears of new blocks, and
//! hands over found ones, while bitcoind's RPC is cut where that must not matter. Without RocksDB.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests of a real process, which owns a clock")]

#[path = "e2e/daemon.rs"]
#[expect(dead_code, reason = "the whole-process tests ask for more")]
mod daemon;
#[path = "e2e/proxy.rs"]
#[expect(dead_code, reason = "tests of a failing bitcoind ask for more")]
mod proxy;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::{ADDRESS, ADDRESS_2, Bitcoind, PATIENCE, until};
use proxy::Proxy;
use rockpool::assemble::{self, Running};
use rockpool::config::Config;
use rockpool::http::ask;
use rockpool::miner::{Miner, MinerConfig};
use rockpool_net::events::{Event, Subscription};
use rockpool_store::kv::MemKv;
use rockpool_store::params::Network;
use rockpool_workers::crew::Bitcoin;
use rockpool_workers::outside::BitcoindConfig;
use serde_json::Value;

/// Nobody listens here: what is bound to port 0 once and given back.
fn dead_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A bitcoind that listens for other nodes, and where.
fn listening(test: &str) -> Option<(Bitcoind, SocketAddr)> {
    let addr = SocketAddr::from(([127, 0, 0, 1], dead_port()));
    let bind = format!("-bind={addr}");
    let bitcoind = Bitcoind::start_with(test, &["-listen=1", &bind, "-listenonion=0", "-maxconnections=16"])?;
    Some((bitcoind, addr))
}

/// A node in this process.
struct Node {
    running: Option<Running>,
    events: Subscription,
}

impl Node {
    /// On a bitcoind's RPC at this port, with these Bitcoin nodes.
    fn start(rpc: u16, peers: &[SocketAddr], kv: &Arc<MemKv>) -> Node {
        let bitcoind = BitcoindConfig::new(&format!("http://user:pass@127.0.0.1:{rpc}"), None, Network::Regtest).unwrap();
        let config = Config { bitcoinds: vec![bitcoind], bitcoin_peers: peers.to_vec(), ..Config::loopback("test".into()) };
        let nodes = Bitcoin::Nodes(config.bitcoinds.clone());
        let running = assemble::start(&config, kv.clone(), nodes).unwrap();
        let events = running.events.subscribe(4_096).unwrap();
        Node { running: Some(running), events }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// The next notification that this makes something of.
    fn hear<T>(&self, what: &str, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        until(what, || std::iter::from_fn(|| self.events.take()).find_map(|notice| wanted(notice.event)))
    }

    /// Until this is the best block that it knows. What happened before it was listened to is in the status already.
    fn until_on(&self, best: &str) {
        let started = Instant::now();
        let mut looked = started;
        loop {
            while let Some(notice) = self.events.take() {
                if matches!(notice.event, Event::BitcoinBlock { hash, .. } if hash.to_string() == best) {
                    return;
                }
            }
            if looked.elapsed() > Duration::from_secs(1) {
                looked = Instant::now();
                if self.status()["bitcoin"]["best"] == best {
                    return;
                }
            }
            assert!(started.elapsed() < PATIENCE, "{best} is not the best header");
            std::thread::park_timeout(Duration::from_micros(200));
        }
    }

    /// A miner at work on it.
    fn mine(&self) -> Miner {
        let server = self.running().listen.stratum.unwrap();
        Miner::start(&MinerConfig { server, user: ADDRESS.into(), threads: 1, rate: 10_000, difficulty: Some(1e-5) }).unwrap()
    }

    fn status(&self) -> Value {
        let (code, body) = ask::get(self.running().listen.http.unwrap(), "/api/v1/status").unwrap();
        assert_eq!(code, 200);
        serde_json::from_str(&body).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            until("a place in the mailbox", || running.stop().then_some(()));
            let _ = running.join();
        }
    }
}

fn best(bitcoind: &Bitcoind) -> String {
    bitcoind.call(&["getbestblockhash"]).as_str().unwrap().to_owned()
}

/// Until bitcoind's chain ends with one of these.
fn until_taken(bitcoind: &Bitcoind, found: &mut Vec<String>, node: &Node) -> String {
    until("a found block in bitcoind's chain", || {
        while let Some(notice) = node.events.take() {
            if let Event::BlockFound { hash, .. } = notice.event {
                found.push(hash.to_string());
            }
        }
        Some(best(bitcoind)).filter(|best| found.contains(best))
    })
}

#[test]
fn headers_are_synced_and_new_blocks_heard_of_without_rpc() {
    let Some((bitcoind, addr)) = listening("headers_are_synced") else { return };
    (0..5).for_each(|_| drop(bitcoind.call(&["generatetoaddress", "1000", ADDRESS_2])));
    let node = Node::start(dead_port(), &[addr], &Arc::default());
    node.until_on(&best(&bitcoind));
    let peers = until("the node in the status", || Some(node.status()["bitcoin"]["peers"].clone()).filter(|peers| peers[0].is_object()));
    assert_eq!((&peers[0]["addr"], peers[0]["height"].as_u64()), (&Value::from(addr.to_string()), Some(5_001)));
    assert!(peers[0]["agent"].as_str().unwrap().starts_with("/Satoshi:"), "{peers}");

    // New blocks, one by one.
    let mut took = Vec::new();
    for _ in 0..10 {
        let hash = bitcoind.call(&["generatetoaddress", "1", ADDRESS])[0].as_str().unwrap().to_owned();
        let said = Instant::now();
        node.until_on(&hash);
        took.push(said.elapsed());
    }
    eprintln!("a new block is noticed {took:?} after bitcoind's answer");
}

#[test]
fn a_reorg_and_a_killed_bitcoind_are_followed() {
    let Some((mut bitcoind, addr)) = listening("a_reorg_is_followed") else { return };
    bitcoind.call(&["generatetoaddress", "50", ADDRESS_2]);
    let node = Node::start(dead_port(), &[addr], &Arc::default());
    node.until_on(&best(&bitcoind));

    // Back by ten blocks and on by eleven, to another address, or they would be the same blocks again.
    let fork = bitcoind.call(&["getblockhash", "42"]);
    bitcoind.call(&["invalidateblock", fork.as_str().unwrap()]);
    assert_eq!(bitcoind.height(), 41);
    bitcoind.call(&["generatetoaddress", "11", ADDRESS]);
    node.until_on(&best(&bitcoind));

    bitcoind.kill();
    node.hear("word of its end", |event| matches!(event, Event::BitcoinPeerDown { .. }).then_some(()));
    bitcoind.again(&[]);
    bitcoind.until_up();
    // It may have lost all of its blocks.
    bitcoind.call(&["generatetoaddress", "60", ADDRESS_2]);
    node.until_on(&best(&bitcoind));
}

#[test]
fn found_blocks_get_into_the_chain_while_rpc_is_dead() {
    let Some((bitcoind, addr)) = listening("found_blocks_get_into_the_chain") else { return };
    let proxy = Proxy::start(bitcoind.port());
    let kv = Arc::new(MemKv::new());
    let node = Node::start(proxy.port(), &[addr], &kv);
    let (mut work, mut up) = (false, false);
    node.hear("work, and the Bitcoin node", |event| {
        work |= matches!(event, Event::WorkChanged { .. });
        up |= matches!(event, Event::BitcoinPeerUp { .. });
        (work && up).then_some(())
    });
    // From now on bitcoind is heard of and reached over Bitcoin's own protocol alone.
    proxy.switch(dead_port());
    let mut found = Vec::new();
    let mut miner = node.mine();
    let taken = until_taken(&bitcoind, &mut found, &node);
    miner.stop();
    // The node says so itself, and the block's story has it.
    let story = until("its story", || {
        let blocks = node.status()["blocks"].as_array().unwrap().clone();
        let fate = |block: &Value| {
            block["fates"].as_array().unwrap().iter().any(|fate| fate["node"] == addr.to_string() && fate["fate"] == "accepted")
        };
        blocks.into_iter().find(|block| block["hash"] == taken.as_str() && fate(block))
    });
    assert_eq!(story["found_by"], "miner");
}

#[test]
fn a_block_that_nobody_took_before_the_stop_is_handed_over_after_it() {
    let Some((bitcoind, addr)) = listening("a_block_that_nobody_took") else { return };
    let proxy = Proxy::start(bitcoind.port());
    let kv = Arc::new(MemKv::new());
    let node = Node::start(proxy.port(), &[], &kv);
    node.hear("work", |event| matches!(event, Event::WorkChanged { .. }).then_some(()));
    proxy.switch(dead_port());
    let mut miner = node.mine();
    let hash = node.hear("a block", |event| if let Event::BlockFound { hash, .. } = event { Some(hash.to_string()) } else { None });
    miner.stop();
    drop(node);
    assert_eq!(bitcoind.height(), 1);
    let node = Node::start(dead_port(), &[addr], &kv);
    let mut found = vec![hash];
    until_taken(&bitcoind, &mut found, &node);
    assert_eq!(bitcoind.height(), 2);
}

/// A figure more than a test: against a regtest node of one's own with so many blocks, which take many minutes to make, at
/// `BITCOIN_P2P=IP:port`; with `--nocapture` it is printed.
#[test]
fn all_headers_of_a_long_chain() {
    let Some(addr) = std::env::var("BITCOIN_P2P").ok().map(|addr| addr.parse().unwrap()) else {
        eprintln!("skipped: BITCOIN_P2P names no node");
        return;
    };
    for round in 0..3 {
        let started = Instant::now();
        let node = Node::start(dead_port(), &[addr], &Arc::default());
        let all = node.hear("its height", |event| if let Event::BitcoinPeerUp { height, .. } = event { Some(height) } else { None });
        node.hear("its last header", |event| matches!(event, Event::BitcoinBlock { height, .. } if height >= all).then_some(()));
        eprintln!("round {round}: {all} headers are synced and checked {:?} after the start", started.elapsed());
    }
}
