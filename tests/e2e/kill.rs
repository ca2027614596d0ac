//! kill -9 during mining, twenty times: the node is ready again each time, no acknowledged share is missing, tip and index agree. How long
//! the slowest start took is told, not asserted: machines are noisy.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rockpool_net::id::ShareId;
use rockpool_store::kv::{Family, Kv};
use rockpool_store::rocks::RocksKv;
use serde_json::Value;

use crate::kit::{ADDRESS, Miner, Rockpool, temp};

const KILLS: usize = 20;

#[test]
fn killed_twenty_times_while_mining_it_keeps_every_acknowledged_share() {
    let dir = temp();
    let mut acknowledged: Vec<ShareId> = Vec::new();
    let mut slowest = Duration::ZERO;
    for round in 0..KILLS {
        let start = std::time::Instant::now();
        let mut node = Rockpool::start(dir.path(), &[]);
        slowest = slowest.max(start.elapsed());
        let status = node.status();
        assert_eq!(status["tip"]["height"], status["candidate_height"], "round {round}: tip and index agree");
        walk(&node);
        let mut miner = Miner::connect(node.stratum, ADDRESS);
        // A different number each time, and the last submit is in flight when the process dies.
        for _ in 0..3 + round % 5 {
            let share = miner.mine();
            assert_eq!(share.verdict, Ok(()));
            acknowledged.push(share.id);
        }
        let job = miner.job();
        let (params, _) = miner.grind_for(&job);
        miner.send("mining.submit", params);
        node.kill();
        // On a chain or beside it (a job may be older than the tip by a moment): the row is there.
        let rows = rows(dir.path());
        for id in &acknowledged {
            assert!(rows.contains(&id.0[..]), "round {round}: acknowledged share {id} is missing");
        }
    }
    eprintln!("{KILLS} kills, {} acknowledged shares, slowest start {slowest:?}", acknowledged.len());
}

/// Ids of all shares on disk.
fn rows(dir: &Path) -> BTreeSet<Vec<u8>> {
    let kv = RocksKv::open(&dir.join("chain")).unwrap();
    let mut rows = BTreeSet::new();
    kv.scan(Family::Shares, &[], &mut |key, _| rows.insert(key[4..].to_vec())).unwrap();
    rows
}

/// From the tip down to genesis by parents, heights falling by one: what the index says hangs together on disk.
fn walk(node: &Rockpool) {
    let (mut id, mut height) = node.tip();
    while height > 0 {
        let (code, body) = node.get(&format!("/api/v1/share/{id}"));
        assert_eq!(code, 200, "{id} at height {height}");
        let share: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((share["height"].as_u64(), &share["confirmed"]), (Some(height), &Value::Bool(true)));
        id = share["parent"].as_str().unwrap().to_owned();
        height -= 1;
    }
}
