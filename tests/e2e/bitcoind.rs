//! A real bitcoind on regtest: it accepts blocks found through Stratum, with the payouts that the share chain dictates.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::kit::{ADDRESS, ADDRESS_2, Bitcoind, Miner, Rockpool, temp, until};

/// What a block without transactions may pay on regtest below height 150.
pub const SUBSIDY: u64 = 5_000_000_000;

#[test]
fn a_block_found_through_stratum_is_accepted_and_pays_what_the_share_chain_dictates() {
    let Some(bitcoind) = Bitcoind::start("a_block_found_through_stratum") else { return };
    let dirs = [temp(), temp()];
    let a = Rockpool::start(dirs[0].path(), &["--bitcoind", &bitcoind.url(), "--alone"]);
    // B sees shares only: it has no bitcoind, and nobody mines there.
    let b = Rockpool::start(dirs[1].path(), &["--peer", &a.p2p.to_string()]);
    until("B to be connected", || (a.status()["peers"] == 1).then_some(()));

    let mut first = Miner::connect(a.stratum, &format!("{ADDRESS}.one"));
    let mut second = Miner::connect(a.stratum, &format!("{ADDRESS_2}.two"));
    for round in 0..6 {
        // On regtest every share is a block. The job after it builds on that block.
        let miner = if round % 2 == 0 { &mut first } else { &mut second };
        let height = bitcoind.height();
        let best = bitcoind.call(&["getbestblockhash"]);
        until("A's template on bitcoind's tip", || (a.status()["bitcoin"]["tip"] == best).then_some(()));
        // Before: what both nodes say that the next block pays.
        until("B on A's tip", || (a.tip() == b.tip()).then_some(()));
        let job = miner.job();
        assert_eq!(best, job.parent());
        let genesis = a.tip().1 == 0;
        let dictated = [dictated(&a), dictated(&b)];
        let share = miner.mine_for(&job);
        assert_eq!(share.verdict, Ok(()), "round {round}");
        let hash = share.id.to_string();
        until("bitcoind to take the block", || (bitcoind.height() == height + 1).then_some(()));
        assert_eq!(bitcoind.call(&["getbestblockhash"]), Value::String(hash.clone()));
        let paid = paid(&bitcoind.call(&["getblock", &hash, "2"]));
        assert_eq!(paid.values().sum::<u64>(), SUBSIDY);
        if genesis {
            assert_eq!(paid.len(), 1, "the first share pays its own script");
        } else {
            assert_eq!(paid, dictated[0], "A dictates");
            assert_eq!(paid, dictated[1], "B, which saw shares only, dictates");
        }
        until("the share confirmed at B, which rebuilt its coinbase", || b.confirmed(share.id).then_some(()));
    }
    let pays_both = bitcoind.call(&["getblock", bitcoind.call(&["getbestblockhash"]).as_str().unwrap(), "2"]);
    assert_eq!(paid(&pays_both).len(), 2, "both miners are paid by the last block");
}

/// Outputs of a block's coinbase with a value: script → satoshis.
pub fn paid(block: &Value) -> BTreeMap<String, u64> {
    let outputs = block["tx"][0]["vout"].as_array().unwrap();
    let sats = |value: &Value| (value.as_f64().unwrap() * 1e8).round() as u64;
    let script = |output: &Value| output["scriptPubKey"]["hex"].as_str().unwrap().to_owned();
    outputs.iter().filter(|output| sats(&output["value"]) > 0).map(|output| (script(output), sats(&output["value"]))).collect()
}

/// What a node says that the next block at its confirmed tip pays: script → satoshis.
fn dictated(node: &Rockpool) -> BTreeMap<String, u64> {
    let payouts: Value = serde_json::from_str(&node.get(&format!("/api/v1/payouts?value={SUBSIDY}&class=N12")).1).unwrap();
    let pays = payouts["pays"].as_array().map(Vec::as_slice).unwrap_or_default();
    pays.iter().map(|pay| (pay["script"].as_str().unwrap().to_owned(), pay["sats"].as_u64().unwrap())).collect()
}

#[test]
fn a_wrong_password_and_another_network_are_one_line_and_exit_code_2() {
    let Some(bitcoind) = Bitcoind::start("a_wrong_password_and_another_network") else { return };
    for (network, url, says) in [("regtest", bitcoind.wrong_url(), "password"), ("testnet4", bitcoind.url(), "regtest")] {
        let dir = temp();
        let out = Command::new(env!("CARGO_BIN_EXE_rockpool"))
            .args(["run", "--network", network, "--bitcoind", &url, "--p2p", "127.0.0.1:0", "--stratum", "127.0.0.1:0"])
            .args(["--http", "127.0.0.1:0", "--datadir"])
            .arg(dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{said}");
        let errors: Vec<_> = said.lines().filter(|line| line.starts_with("rockpool:")).collect();
        assert!(errors.len() == 1 && errors[0].contains(says), "{said}");
        assert!(!said.contains("panicked") && !said.contains("pass@"), "{said}");
    }
}

/// SHARECHAIN §3: whoever keeps a share keeps the Bitcoin header that it builds on, or no new node could ever sync past one.
#[test]
fn a_chain_with_a_share_on_a_stale_bitcoin_block_syncs_on_a_fresh_bitcoind() {
    let Some(bitcoind) = Bitcoind::start("a_chain_with_a_share_on_a_stale_bitcoin_block") else { return };
    let Some(fresh) = Bitcoind::start("a_chain_with_a_share_on_a_stale_bitcoin_block") else { return };
    let dirs = [temp(), temp()];
    let a = Rockpool::start(dirs[0].path(), &["--bitcoind", &bitcoind.url(), "--alone"]);
    let mut miner = Miner::connect(a.stratum, &format!("{ADDRESS}.one"));
    let mut mine = |count: usize| {
        for _ in 0..count {
            let best = bitcoind.call(&["getbestblockhash"]);
            until("A's template on bitcoind's tip", || (a.status()["bitcoin"]["tip"] == best).then_some(()));
            let job = miner.job();
            assert_eq!(miner.mine_for(&job).verdict, Ok(()));
            until("bitcoind to take the block", || (bitcoind.call(&["getbestblockhash"]) != best).then_some(()));
        }
    };
    mine(4);
    // The block that the fourth share builds on, and what stands on it, are replaced by three others, of a bitcoind that has not seen them.
    let submit = |from: &Bitcoind, to: &Bitcoind, height: u64| {
        let hash = from.call(&["getblockhash", &height.to_string()]);
        let block = from.call(&["getblock", hash.as_str().unwrap(), "0"]);
        to.call_long("submitblock", block.as_str().unwrap());
    };
    let fork = bitcoind.height() - 2;
    (1..=fork).for_each(|height| submit(&bitcoind, &fresh, height));
    fresh.call(&["generatetoaddress", "3", ADDRESS_2]);
    (fork + 1..=fork + 3).for_each(|height| submit(&fresh, &bitcoind, height));
    mine(2);
    (fork + 4..=bitcoind.height()).for_each(|height| submit(&bitcoind, &fresh, height));
    until("the fresh bitcoind on the same tip", || {
        (fresh.call(&["getbestblockhash"]) == bitcoind.call(&["getbestblockhash"])).then_some(())
    });
    let c = Rockpool::start(dirs[1].path(), &["--bitcoind", &fresh.url(), "--peer", &a.p2p.to_string()]);
    until("C on A's tip", || (a.tip() == c.tip()).then_some(()));
    assert_eq!(c.tip().1, 6);
}
