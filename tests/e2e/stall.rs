//! The writer stalled for 5 s under load: submits are answered, a found block reaches bitcoind at once, nothing spins, nothing is lost.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rockpool::assemble;
use rockpool::config::Config;
use rockpool_net::id::ShareId;
use rockpool_store::error::StoreError;
use rockpool_store::kv::{Cached, Family, Kv, Op};
use rockpool_store::params::Network;
use rockpool_store::rocks::RocksKv;
use rockpool_workers::outside::BitcoindConfig;

use crate::kit::{ADDRESS, ADDRESS_2, Bitcoind, Miner, get, temp, until};

const STALL: Duration = Duration::from_secs(5);

/// RocksDB whose writes wait while the gate is shut: a disk that stands still.
struct StallingDisk {
    inner: RocksKv,
    shut: Mutex<bool>,
    opened: Condvar,
}

impl StallingDisk {
    fn shut(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.opened.notify_all();
    }
}

impl Kv for StallingDisk {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(family, key)
    }
    fn get_cached(&self, family: Family, key: &[u8]) -> Result<Cached, StoreError> {
        self.inner.get_cached(family, key)
    }
    fn scan(&self, family: Family, from: &[u8], row: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        self.inner.scan(family, from, row)
    }
    fn write(&self, ops: &[Op], sync: bool) -> Result<(), StoreError> {
        let gate = self.opened.wait_while(self.shut.lock().unwrap(), |shut| *shut).unwrap();
        drop(gate);
        self.inner.write(ops, sync)
    }
    fn free_space(&self) -> Result<u64, StoreError> {
        self.inner.free_space()
    }
    fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush()
    }
}

#[test]
fn a_stalled_writer_delays_neither_other_submits_nor_a_found_block_and_loses_nothing() {
    let Some(bitcoind) = Bitcoind::start("a_stalled_writer") else { return };
    let dir = temp();
    let disk = Arc::new(StallingDisk { inner: RocksKv::open(dir.path()).unwrap(), shut: Mutex::new(false), opened: Condvar::new() });
    let bitcoinds = vec![BitcoindConfig::new(&bitcoind.url(), None, Network::Regtest).unwrap()];
    let config = Config { bitcoinds, ..Config::loopback(dir.path().into()) };
    let kv: Arc<dyn Kv> = disk.clone();
    let bitcoin = assemble::bitcoin(&config, &*kv).unwrap();
    let node = assemble::start(&config, kv, bitcoin).unwrap();
    let (stratum, http) = (node.listen.stratum.unwrap(), node.listen.http.unwrap());
    let mut finder = Miner::connect(stratum, ADDRESS);
    let mut others: Vec<Miner> = (0..8).map(|i| Miner::connect(stratum, &format!("{ADDRESS_2}.{i}"))).collect();
    assert_eq!(finder.mine().verdict, Ok(()));
    until("the next template", || (status(http)["bitcoin"]["height"] == bitcoind.height()).then_some(()));

    disk.shut(true);
    let begin = Instant::now();
    // A block found during the stall: bitcoind has it long before the disk moves.
    let height = bitcoind.height();
    let job = loop {
        let job = finder.job();
        if job.parent() == bitcoind.call(&["getbestblockhash"]).as_str().unwrap() {
            break job;
        }
        finder.next_line();
    };
    let (params, found) = finder.grind_for(&job);
    let handed = Instant::now();
    let pending = finder.send("mining.submit", params.clone());
    until("bitcoind to take the block while the disk stalls", || (bitcoind.height() == height + 1).then_some(()));
    let reached = handed.elapsed();
    assert!(reached < STALL / 2, "the block took {reached:?}");

    // Load: shares that must wait for the disk, and submits that need not. Each share is a block too, so that of a round's miners some come
    // late and are stale; that is said at once. Three shares a miner: with four tickets held by the disk its connection would rest.
    let mut waiting: Vec<(usize, u64, ShareId)> = Vec::new();
    let mut slowest = Duration::ZERO;
    for round in 0..3 {
        for (i, miner) in others.iter_mut().enumerate() {
            let job = miner.job();
            let (params, id) = miner.grind_for(&job);
            waiting.push((i, miner.send("mining.submit", params.clone()), id));
            let asked = Instant::now();
            let error = miner.call("mining.submit", params).unwrap_err();
            assert!(error[0] == 22 || error[0] == 21, "round {round}: the same submit once more is answered at once: {error}");
            slowest = slowest.max(asked.elapsed());
        }
        assert_eq!(get(http, "/health").unwrap().0 / 100, 2, "round {round}");
    }
    assert!(slowest < Duration::from_secs(1), "an answer that needs no disk took {slowest:?}");

    // Nothing spins: with all quiet, turns are few. (The idle maximum and the timers make some.)
    let before = turns(http);
    let quiet = Instant::now();
    while quiet.elapsed() < Duration::from_secs(1) {
        std::thread::park_timeout(Duration::from_secs(1));
    }
    let spun = turns(http) - before;
    assert!(spun < 200, "{spun} turns in a quiet second of the stall");
    while begin.elapsed() < STALL {
        std::thread::park_timeout(STALL);
    }
    disk.shut(false);

    assert_eq!(finder.answer(pending), Ok(true.into()));
    let mut held = Vec::new();
    for (i, request, id) in waiting {
        match others[i].answer(request) {
            Ok(verdict) => {
                assert_eq!(verdict, true);
                held.push(id);
            }
            Err(error) => assert_eq!(error[0], 21, "miner {i}: {error}"),
        }
    }
    assert!(held.len() >= 3, "only {} shares waited for the disk", held.len());
    // Shares of one parent: one is on the chain, the others beside it, and the rows of all are on disk.
    let mut rows = BTreeSet::new();
    let mut collect = |key: &[u8], _: &[u8]| rows.insert(key[4..].to_vec());
    disk.scan(Family::Shares, &[], &mut collect).unwrap();
    held.push(found);
    held.iter().for_each(|id| assert!(rows.contains(&id.0[..]), "{id} was acknowledged and is not stored"));
    assert!(node.stop());
    node.join().unwrap();
    eprintln!(
        "block at bitcoind after {reached:?}, slowest answer {slowest:?}, {spun} turns in a quiet second, {} shares held",
        held.len()
    );
}

fn status(http: SocketAddr) -> serde_json::Value {
    serde_json::from_str(&get(http, "/api/v1/status").unwrap().1).unwrap()
}

fn turns(http: SocketAddr) -> u64 {
    let metrics = get(http, "/metrics").unwrap().1;
    let line = metrics.lines().find(|line| line.starts_with("rockpool_net_turns_total ")).expect("turns are counted");
    line.rsplit(' ').next().unwrap().parse().unwrap()
}
