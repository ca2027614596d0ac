//! `--solo` and `--standalone` as processes, with a real bitcoind.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::bitcoind::{SUBSIDY, paid};
use crate::kit::{ADDRESS, ADDRESS_2, Bitcoind, Miner, Rockpool, temp, until};

/// Finds a block as this miner, which bitcoind takes: whom it pays.
fn found(node: &Rockpool, bitcoind: &Bitcoind, miner: &mut Miner) -> BTreeMap<String, u64> {
    let (height, best) = (bitcoind.height(), bitcoind.call(&["getbestblockhash"]));
    until("a template on bitcoind's tip", || (node.status()["bitcoin"]["tip"] == best).then_some(()));
    let submitted = miner.mine();
    assert_eq!(submitted.verdict, Ok(()));
    until("bitcoind to take the block", || (bitcoind.height() == height + 1).then_some(()));
    let pays = paid(&bitcoind.call(&["getblock", &submitted.id.to_string(), "2"]));
    assert_eq!(pays.values().sum::<u64>(), SUBSIDY);
    pays
}

fn script(bitcoind: &Bitcoind, address: &str) -> String {
    bitcoind.call(&["validateaddress", address])["scriptPubKey"].as_str().unwrap().to_owned()
}

#[test]
fn solo_pays_whoever_finds_a_block() {
    let Some(bitcoind) = Bitcoind::start("solo_pays_whoever_finds_a_block") else { return };
    let dir = temp();
    let node = Rockpool::start(dir.path(), &["--bitcoind", &bitcoind.url(), "--solo"]);
    assert_eq!((node.status()["mode"].as_str(), &node.status()["listen"]["p2p"]), (Some("solo"), &Value::Null));
    for address in [ADDRESS, ADDRESS_2, ADDRESS] {
        let mut miner = Miner::connect(node.stratum, &format!("{address}.rig"));
        assert_eq!(found(&node, &bitcoind, &mut miner), BTreeMap::from([(script(&bitcoind, address), SUBSIDY)]));
    }
    assert_eq!(node.tip().1, 0, "there is no share chain");
}

/// What was acknowledged is paid, also after kill -9.
#[test]
fn standalone_pays_its_own_miners_and_forgets_nothing() {
    let Some(bitcoind) = Bitcoind::start("standalone_pays_its_own_miners") else { return };
    let dir = temp();
    let run = || Rockpool::start(dir.path(), &["--bitcoind", &bitcoind.url(), "--standalone"]);
    let mut node = run();
    assert_eq!(node.status()["mode"], "standalone");
    let mut miner = Miner::connect(node.stratum, &format!("{ADDRESS}.one"));
    assert_eq!(
        found(&node, &bitcoind, &mut miner),
        BTreeMap::from([(script(&bitcoind, ADDRESS), SUBSIDY)]),
        "nobody else has done anything"
    );
    node.kill();

    let mut node = run();
    let mut other = Miner::connect(node.stratum, &format!("{ADDRESS_2}.two"));
    let pays = found(&node, &bitcoind, &mut other);
    assert_eq!(pays, BTreeMap::from([(script(&bitcoind, ADDRESS), SUBSIDY)]), "as it stood when the job was made");
    node.kill();

    let dictated = Command::new(env!("CARGO_BIN_EXE_rockpool")).args(["payouts", "--json", "--datadir"]).arg(dir.path()).output().unwrap();
    let dictated: Value = serde_json::from_slice(&dictated.stdout).unwrap();
    assert_eq!((dictated["mode"].as_str(), dictated["pays"].as_array().map(Vec::len)), (Some("standalone"), Some(2)));
    let node = run();
    let mut miner = Miner::connect(node.stratum, ADDRESS);
    let pays = found(&node, &bitcoind, &mut miner);
    let each =
        dictated["pays"].as_array().unwrap().iter().map(|pay| (pay["script"].as_str().unwrap().to_owned(), pay["sats"].as_u64().unwrap()));
    assert_eq!(pays, each.collect(), "as the stopped node's directory said");
    assert!(pays.values().all(|sats| (SUBSIDY / 2).abs_diff(*sats) < 2), "both did the same: {pays:?}");
}
