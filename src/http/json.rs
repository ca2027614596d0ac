//! The JSON that the API answers with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::hex::DisplayHex;
use rockpool_net::hub::io::Stage;
use rockpool_net::id::ShareId;
use rockpool_net::times::Times;
use rockpool_net::wire::share::Script;
use rockpool_store::params::{Network, Params};
use serde::Serialize;

use crate::bitcoin::NodeStatus;
use crate::http::miners::rounded;
use crate::http::progress::{Work, works};
use crate::http::{blocks, trouble};
use crate::miners::rates::SHORT;
use crate::peer::Progress;
use crate::status::Facts;

/// `GET /api/v1/turns`: the reactor's slowest turns since the start, slowest first, times in microseconds.
#[derive(Debug, Serialize)]
pub struct Turns {
    turns: u64,
    slowest: Vec<SlowTurn>,
}

#[derive(Debug, Serialize)]
struct SlowTurn {
    /// Seconds since the start at which it began.
    began_s: f64,
    busy_us: u64,
    stages_us: BTreeMap<&'static str, u64>,
    bytes_in: usize,
    bytes_out: usize,
    frames: usize,
    inputs: usize,
}

/// The slowest turns.
pub fn turns(times: &Times) -> Turns {
    let micros = |time: Duration| time.as_micros() as u64;
    let slow = |turn: &rockpool_net::times::SlowTurn| SlowTurn {
        began_s: turn.began.as_secs_f64(),
        busy_us: micros(turn.times.busy()),
        stages_us: Stage::ALL.into_iter().map(|stage| (stage.name(), micros(turn.times.of(stage)))).collect(),
        bytes_in: turn.report.bytes_in,
        bytes_out: turn.report.bytes_out,
        frames: turn.report.frames,
        inputs: turn.report.inputs,
    };
    Turns { turns: times.turns().buckets().iter().sum(), slowest: times.slowest().iter().map(slow).collect() }
}

/// `GET /api/v1/status`.
#[derive(Debug, Serialize)]
pub struct Status {
    network: &'static str,
    /// Whom blocks pay: "chain", "solo" or "standalone".
    mode: &'static str,
    magic: String,
    version: &'static str,
    /// The confirmed tip.
    tip: Tip,
    /// Height up to which shares are tied; above the tip's while coinbases are being rebuilt.
    candidate_height: u32,
    /// Height of the best claim of a peer that is ahead of us.
    claimed_height: Option<u32>,
    /// How far the way to that claim is; null where there is none.
    sync: Option<Sync>,
    /// Long work that goes on; empty where there is none.
    progress: Vec<Work>,
    peers: usize,
    miners: usize,
    shares: Shares,
    /// Hashes a second: of our miners over five minutes, of the pool over an hour.
    rates: Rates,
    /// Blocks our miners found since the start; and the newest of all that are known, newest last.
    blocks_found: u64,
    blocks: Vec<blocks::Block>,
    bitcoin: Bitcoin,
    trouble: Option<String>,
    listen: Listen,
    uptime_s: u64,
}

#[derive(Debug, Serialize)]
struct Tip {
    id: String,
    height: u32,
    score: u128,
}

/// `sync` of the status.
#[derive(Debug, Serialize)]
struct Sync {
    /// Height of the best tied share.
    height: u32,
    /// Height up to which coinbases are rebuilt.
    confirmed: u32,
    /// Height of the best claim.
    target: u32,
    /// Time left at the speed so far, seconds; null at first.
    seconds_left: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Rates {
    own: f64,
    pool: f64,
}

#[derive(Debug, Serialize)]
struct Shares {
    accepted: u64,
    rejected: u64,
}

#[derive(Debug, Serialize)]
struct Bitcoin {
    tip: Option<String>,
    height: Option<u32>,
    /// The best header that is known, and its height: work may not build on it yet.
    best: Option<String>,
    headers: Option<u32>,
    peers: Vec<BitcoinPeer>,
}

/// A node of Bitcoin's own network.
#[derive(Debug, Serialize)]
struct BitcoinPeer {
    addr: SocketAddr,
    agent: String,
    height: u32,
    up_s: u64,
}

#[derive(Debug, Serialize)]
struct Listen {
    p2p: Option<SocketAddr>,
    stratum: Option<SocketAddr>,
    http: Option<SocketAddr>,
}

impl Status {
    /// As text.
    pub fn render(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The node at this moment.
    pub fn of(facts: Facts<'_>) -> Status {
        let status = facts.status;
        Status {
            network: status.network,
            mode: status.mode.name(),
            magic: status.magic.to_lower_hex_string(),
            version: status.version,
            tip: Tip { id: status.tip.id.to_string(), height: status.tip.height, score: status.tip.score },
            candidate_height: status.candidate_height,
            claimed_height: status.claimed_height,
            sync: status.sync.map(|Progress { height, confirmed, target, seconds_left }| Sync { height, confirmed, target, seconds_left }),
            progress: works(facts),
            peers: status.peers,
            miners: status.miners,
            shares: Shares { accepted: status.accepted, rejected: status.rejected },
            rates: Rates { own: rounded(facts.miners.totals().rates[SHORT]), pool: rounded(facts.miners.pool_rate()) },
            blocks_found: facts.counters.blocks_found.get(),
            blocks: status.blocks.iter().map(|block| blocks::block(facts.chain.view.bitcoin(), block)).collect(),
            bitcoin: Bitcoin::of(facts),
            trouble: trouble(facts),
            listen: Listen { p2p: status.listen.p2p, stratum: status.listen.stratum, http: status.listen.http },
            uptime_s: status.uptime.as_secs(),
        }
    }
}

impl Bitcoin {
    fn of(facts: Facts<'_>) -> Bitcoin {
        let status = facts.status;
        let peer =
            |node: &NodeStatus| BitcoinPeer { addr: node.addr, agent: node.agent.clone(), height: node.height, up_s: node.up.as_secs() };
        Bitcoin {
            tip: status.bitcoin.map(|(tip, _)| tip.to_string()),
            height: status.bitcoin.map(|(_, height)| height),
            best: facts.chain.view.bitcoin().best().map(|best| ShareId(best.hash).to_string()),
            headers: facts.chain.view.bitcoin().best().map(|best| best.height),
            peers: status.bitcoin_peers.iter().map(peer).collect(),
        }
    }
}

/// The address that a script is shown as.
pub fn address(script: &Script, params: &Params) -> Option<String> {
    let network = match params.network {
        Network::Main => bitcoin::Network::Bitcoin,
        Network::Testnet4 => bitcoin::Network::Testnet4,
        Network::Signet => bitcoin::Network::Signet,
        Network::Regtest => bitcoin::Network::Regtest,
    };
    let script = bitcoin::ScriptBuf::from_bytes(script.script_pubkey());
    bitcoin::Address::from_script(&script, network).ok().map(|address| address.to_string())
}
