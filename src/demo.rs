//! `rockpool demo`: two nodes on loopback beside one embedded regtest chain, and a CPU miner that mines at the first through real Stratum.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rockpool_net::wire::share::Script;
use rockpool_store::kv::Kv;
use rockpool_store::params::{Network, params};
use rockpool_workers::crew::Bitcoin;
use rockpool_workers::embedded::EmbeddedChain;
use serde_json::Value;

use crate::assemble::{self, Running};
use crate::config::Config;
use crate::exit::Failure;
use crate::http::ask;
use crate::http::token::Scope;
use crate::limits::{DEMO_LOOK, DEMO_RATE, DEMO_SETTLE_MAX, DEMO_STOP_MAX, DEMO_THREADS, DEMO_TOKEN_S, WATCH_EVERY};
use crate::miner::{Miner, MinerConfig};
use crate::portfolio::config::PortfolioConfig;
use crate::secret;
use crate::signals::{Pulse, Signals};

/// What a demo runs on.
pub struct Demo {
    /// After how many seconds it ends by itself.
    pub seconds: Option<u64>,
    /// The rows of the two nodes.
    pub stores: [Arc<dyn Kv>; 2],
    /// Where they came from, for error messages.
    pub datadirs: [PathBuf; 2],
    /// Portfolios of the first node, if it keeps any.
    pub portfolios: Option<PortfolioConfig>,
}

/// What one node says of itself.
struct View {
    tip: String,
    height: u64,
}

impl Demo {
    /// Runs until its time is over or a signal comes. What a person wants to see goes to `out`.
    pub fn run(self, signals: &mut Signals, out: &mut impl Write) -> Result<(), Failure> {
        let params = params(Network::Regtest);
        let [first, second] = self.stores;
        let configs = self.datadirs.map(Config::loopback);
        let known = [assemble::bitcoin_tree(&configs[0], &*first)?, assemble::bitcoin_tree(&configs[1], &*second)?];
        let [a, b] = known.each_ref().map(|tree| tree.best().map_or(0, |best| best.height));
        let bitcoin = Arc::new(EmbeddedChain::resume(params, &known[usize::from(b > a)]));
        let begun = bitcoin.tip().height;
        let [mut first_config, mut second_config] = configs;
        if let Some(portfolios) = self.portfolios {
            let secret = secret::draw()?;
            say(out, &format!("a token for portfolios: {}", secret::signed(&secret, "demo", Scope::User, DEMO_TOKEN_S)?));
            (first_config.portfolios, first_config.secret) = (Some(portfolios), Some(secret));
        }
        let a = assemble::start(&first_config, first, Bitcoin::Embedded(bitcoin.clone()))?;
        second_config.peers.extend(a.listen.p2p);
        let b = assemble::start(&second_config, second, Bitcoin::Embedded(bitcoin.clone()))?;
        let nodes = [a, b];
        let blocks = || bitcoin.tip().height.saturating_sub(begun);
        let shown = show(self.seconds, &nodes, &blocks, signals, out);
        // In order, whatever happened before.
        stop(&nodes, signals)?;
        let ends = nodes.map(Running::join);
        shown?;
        ends.into_iter().collect()
    }
}

/// Mines, tells once a second how it goes, and at the end waits until both nodes agree.
fn show(
    seconds: Option<u64>,
    nodes: &[Running; 2],
    blocks: &dyn Fn() -> u32,
    signals: &mut Signals,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let [a, b] = nodes;
    let stratum = a.listen.stratum.ok_or_else(|| Failure::Fault("the first node has no Stratum address".into()))?;
    for (name, node) in [("A", a), ("B", b)] {
        if let Some(http) = node.listen.http {
            say(out, &format!("dashboard of node {name}: http://{http}/"));
        }
    }
    say(out, &format!("miners may join at stratum+tcp://{stratum}, user name {}", address()));
    let mut miner = mine(stratum)?;
    let begin = look(a)?;
    let mut pulses = [Pulse::of(&a.heartbeat), Pulse::of(&b.heartbeat)];
    let (mut elapsed, mut hashes) = (0, 0);
    while seconds.is_none_or(|seconds| elapsed < seconds) {
        let signalled = signals.wait(WATCH_EVERY);
        if signalled {
            break;
        }
        elapsed += 1;
        if pulses.iter_mut().any(Pulse::lost) {
            return Err(Failure::Fault("a node's reactor stands still".into()));
        }
        let views = [look(a)?, look(b)?];
        let done = miner.tally().hashes.load(Relaxed);
        say(out, &summary(elapsed, &views, blocks(), &miner, done - hashes));
        hashes = done;
    }
    miner.stop();
    let views = settle(nodes, signals)?;
    if views[0].tip != views[1].tip {
        return Err(Failure::Fault(format!("the nodes are on different tips, {} and {}", views[0].tip, views[1].tip)));
    }
    let shares = views[0].height.saturating_sub(begin.height);
    say(out, &format!("both nodes on tip {}, {shares} shares, {} blocks", views[0].tip, blocks()));
    say(
        out,
        "that was regtest in this process; rockpool help run tells how to run a node, rockpool run --network regtest is one to mine at",
    );
    Ok(())
}

fn mine(server: SocketAddr) -> Result<Miner, Failure> {
    let (user, difficulty) = (format!("{}.cpu", address()), Some(crate::limits::DIFFICULTY_MIN));
    Miner::start(&MinerConfig { server, user, threads: DEMO_THREADS, rate: DEMO_RATE, difficulty })
        .map_err(|error| Failure::Fault(format!("cannot start the CPU miner: {error}")))
}

/// Waits, but not for long, until both nodes are on one tip.
fn settle(nodes: &[Running; 2], signals: &mut Signals) -> Result<[View; 2], Failure> {
    let mut left = DEMO_SETTLE_MAX;
    let mut last = None;
    loop {
        let views = [look(&nodes[0])?, look(&nodes[1])?];
        // Twice the same: a submit of the miner may still have been on its way.
        if views[0].tip == views[1].tip && last == Some(views[0].height) || left.is_zero() {
            return Ok(views);
        }
        last = Some(views[0].height);
        signals.wait(DEMO_LOOK);
        left = left.saturating_sub(DEMO_LOOK);
    }
}

/// Asks both nodes to stop, and waits until they have, but not for ever.
fn stop(nodes: &[Running; 2], signals: &mut Signals) -> Result<(), Failure> {
    let mut left = DEMO_STOP_MAX;
    let mut told = [false; 2];
    while !nodes.iter().all(Running::ended) {
        if left.is_zero() {
            return Err(Failure::Fault("a node does not stop".into()));
        }
        for (told, node) in told.iter_mut().zip(nodes) {
            *told = *told || node.stop();
        }
        signals.wait(DEMO_LOOK);
        left = left.saturating_sub(DEMO_LOOK);
    }
    Ok(())
}

/// Asks a node through its own front door.
fn look(node: &Running) -> Result<View, Failure> {
    let http = node.listen.http.ok_or_else(|| Failure::Fault("the node has no HTTP address".into()))?;
    let (_, body) = ask::get(http, "/api/v1/status").map_err(|error| Failure::Fault(format!("node at {http} does not answer: {error}")))?;
    let status: Value = serde_json::from_str(&body).map_err(|error| Failure::Fault(format!("node at {http} answers oddly: {error}")))?;
    Ok(View { tip: status["tip"]["id"].as_str().unwrap_or_default().into(), height: status["tip"]["height"].as_u64().unwrap_or(0) })
}

fn summary(elapsed: u64, views: &[View; 2], blocks: u32, miner: &Miner, hashes: u64) -> String {
    let [a, b] = views;
    let same = if a.tip == b.tip { "same tip" } else { "tips differ" };
    let (accepted, refused) = (miner.tally().accepted.load(Relaxed), miner.tally().refused.load(Relaxed));
    let rate = hashes as f64 / WATCH_EVERY.as_secs_f64() / 1e3;
    format!(
        "{elapsed:>4} s  share chain: A at height {}, B at {}, {same}; miner: {accepted} submits accepted, {refused} refused, {rate:.0} \
         kH/s; blocks found: {blocks}",
        a.height, b.height
    )
}

/// An address that nobody has the key of: coins of a regtest chain that ends with the process are no loss.
fn address() -> String {
    let script = Script::P2wpkh(*b"rockpool demo miner.");
    let script = bitcoin::ScriptBuf::from_bytes(script.script_pubkey());
    bitcoin::Address::from_script(&script, bitcoin::Network::Regtest).map(|address| address.to_string()).unwrap_or_default()
}

/// Prints a line at once. A reader that has gone away (`| head`) is no reason to stop, nor to panic.
fn say(out: &mut impl Write, line: &str) {
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use rockpool_store::kv::MemKv;

    use super::*;

    #[test]
    fn two_nodes_mine_agree_and_stop() {
        let (mut signals, _far_end) = Signals::none();
        let stores: [Arc<dyn Kv>; 2] = [Arc::new(MemKv::new()), Arc::new(MemKv::new())];
        let mut out = Vec::new();
        let demo = Demo { seconds: Some(3), stores, datadirs: ["a".into(), "b".into()], portfolios: None };
        let ended = demo.run(&mut signals, &mut out);
        let said = String::from_utf8_lossy(&out);
        eprintln!("{said}");
        assert_eq!(ended, Ok(()), "{said}");
        let last = said.lines().rev().nth(1).unwrap_or_default();
        assert!(last.starts_with("both nodes on tip ") && !last.contains(" 0 shares"), "{said}");
    }
}
