//! The JSON that the API answers with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::hex::DisplayHex;
use rockpool_net::hub::io::Stage;
use rockpool_net::id::ShareId;
use rockpool_net::times::Times;
use rockpool_net::wire::share::{Class, Layout, Script, Share};
use rockpool_store::bitcoin::Tree;
use rockpool_store::handle::ChainStoreHandle;
use rockpool_store::params::{Network, Params};
use rockpool_store::payouts::Payouts;
use rockpool_store::record::Record;
use rockpool_store::rules::target::target;
use serde::Serialize;

use crate::bitcoin::NodeStatus;
use crate::config::Mode;
use crate::http::{blocks, trouble};
use crate::peer::Progress;
use crate::status::Facts;
use crate::stratum::difficulty::difficulty_of;

/// All satoshis that there will ever be.
pub const SATS_MAX: u64 = 2_100_000_000_000_000;

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
    peers: usize,
    miners: usize,
    shares: Shares,
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
            peers: status.peers,
            miners: status.miners,
            shares: Shares { accepted: status.accepted, rejected: status.rejected },
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

/// `GET /api/v1/share/<id>`.
#[derive(Debug, Serialize)]
pub struct ShareView {
    id: String,
    height: u32,
    confirmed: bool,
    parent: String,
    uncles: Vec<String>,
    script: String,
    address: Option<String>,
    bits: String,
    time: u32,
    lead: u32,
    score: u128,
    version: u8,
    class: &'static str,
    layout: &'static str,
    salt: u32,
    value: u64,
    witness_commitment: String,
    bitcoin_height: u32,
    bitcoin_parent: String,
    header: String,
}

/// A share and where it stands in the chain.
pub fn share(share: &Share, params: &Params, chain: &ChainStoreHandle) -> ShareView {
    let id = if share.height == 0 { params.genesis_id() } else { share.id() };
    ShareView {
        id: id.to_string(),
        height: share.height,
        confirmed: chain.view.is_confirmed(&id),
        parent: share.parent.to_string(),
        uncles: share.uncles.iter().map(ShareId::to_string).collect(),
        script: share.script.script_pubkey().to_lower_hex_string(),
        address: address(&share.script, params),
        bits: format!("{:08x}", share.bits),
        time: share.time,
        lead: share.lead,
        score: share.score,
        version: share.version,
        class: class(share.class),
        layout: match share.layout {
            Layout::Tail => "tail",
            Layout::Front => "front",
        },
        salt: share.salt,
        value: share.value,
        witness_commitment: share.witness_commitment.to_lower_hex_string(),
        bitcoin_height: share.bitcoin_height,
        bitcoin_parent: ShareId(share.bitcoin_prev()).to_string(),
        header: share.header.to_lower_hex_string(),
    }
}

/// `GET /api/v1/shares`.
#[derive(Debug, Serialize)]
pub struct SharesView {
    network: &'static str,
    /// Height of the share that the chain begins with; 0 is genesis.
    lowest: u32,
    /// Height of the confirmed tip.
    height: u32,
    shares: Vec<ListedShare>,
}

#[derive(Debug, Serialize)]
struct ListedShare {
    height: u32,
    id: String,
    time: u32,
    difficulty: f64,
    script: String,
    address: Option<String>,
    uncles: Vec<String>,
    class: &'static str,
    bitcoin_height: u32,
}

/// Shares of a confirmed chain between these heights.
pub fn shares(params: &Params, lowest: u32, height: u32, shares: &[Share]) -> SharesView {
    let listed = |share: &Share| ListedShare {
        height: share.height,
        id: share.id().to_string(),
        time: share.time,
        difficulty: target(share.bits).map_or(0.0, |target| difficulty_of(&target.to_le_bytes())),
        script: share.script.script_pubkey().to_lower_hex_string(),
        address: address(&share.script, params),
        uncles: share.uncles.iter().map(ShareId::to_string).collect(),
        class: class(share.class),
        bitcoin_height: share.bitcoin_height,
    };
    SharesView { network: params.name, lowest, height, shares: shares.iter().map(listed).collect() }
}

/// `GET /api/v1/payouts`.
#[derive(Debug, Serialize)]
pub struct PayoutsView {
    /// Whom blocks pay: "chain", "solo" or "standalone".
    mode: &'static str,
    /// The share that they follow from; without a share chain the block of Bitcoin that is built on.
    parent: String,
    height: u32,
    class: &'static str,
    value: u64,
    bitcoin_height: u32,
    /// Scripts that have something in the window; where a class has no room for all of them, some are drawn.
    payees: usize,
    pays: Vec<Pay>,
    note: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Pay {
    script: String,
    address: Option<String>,
    sats: u64,
    /// Its part of the window's work.
    weight: f64,
}

/// Height of the block that is looked for on this tip, where no template tells it: above the best of Bitcoin's headers that is known.
pub fn next_height(tip: &Record, bitcoin: &Tree) -> u32 {
    bitcoin.best().map_or(0, |best| best.height.saturating_add(1)).max(tip.bitcoin_height())
}

/// What a block with these payouts pays.
pub fn payouts(params: &Params, mode: Mode, payouts: &Payouts, of: Class, (value, bitcoin_height): (u64, u32)) -> PayoutsView {
    let first = payouts.weights.is_empty();
    // Without weights all goes to the share's own script, which nobody has told us here (SHARECHAIN §7).
    let outputs = if first { Vec::new() } else { payouts.outputs(params, of, value, bitcoin_height, &Script::P2wpkh([0; 20])) };
    let all: f64 = payouts.weights.iter().map(|(_, weight)| *weight as f64).sum();
    let place = |script: &Script| payouts.weights.binary_search_by(|(of, _)| of.cmp(script));
    let weight = |script: &Script| place(script).map_or(0.0, |place| payouts.weights[place].1 as f64);
    let pays = outputs.iter().map(|(script, sats)| Pay {
        script: script.script_pubkey().to_lower_hex_string(),
        address: address(script, params),
        sats: *sats,
        weight: weight(script) / all,
    });
    PayoutsView {
        mode: mode.name(),
        parent: payouts.parent.to_string(),
        height: payouts.parent_height,
        class: class(of),
        value,
        bitcoin_height,
        payees: payouts.weights.len(),
        pays: pays.collect(),
        note: match mode {
            Mode::Solo => Some("solo: a block pays all to the miner that finds it"),
            Mode::Standalone if first => Some("nobody has done any work yet: a block pays all to the miner that finds it"),
            Mode::Chain if first => Some("the first share after genesis pays all to its own miner"),
            Mode::Chain | Mode::Standalone => None,
        },
    }
}

/// An id as it is shown: 64 hexadecimal digits, the last byte first.
pub fn parse_id(text: &str) -> Option<ShareId> {
    let mut bytes = <[u8; 32] as bitcoin::hex::FromHex>::from_hex(text).ok()?;
    bytes.reverse();
    Some(ShareId(bytes))
}

/// A class by its name.
pub fn class(class: Class) -> &'static str {
    match class {
        Class::N12 => "N12",
        Class::N46 => "N46",
        Class::N144 => "N144",
        Class::N360 => "N360",
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
