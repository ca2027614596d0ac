//! What the node tells of itself: plain values, gathered when somebody asks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rockpool_net::id::ShareId;
use rockpool_net::wire::share::Script;
use rockpool_store::blocks::FoundBlock;
use rockpool_store::handle::ChainStoreHandle;
use rockpool_workers::jobs::Queue;
use rockpool_workers::outside::Gauges;

use crate::bitcoin::NodeStatus;
use crate::blocks::Blocks;
use crate::config::Mode;
use crate::miners::Miners;
use crate::peer::Progress;

rockpool_net::counters! {
    /// Counters of judgement: sessions and what they decided.
    Counters {
        shares_accepted: "submits", "Submits of our miners that were accepted.";
        shares_rejected: "submits", "Submits of our miners that were refused.";
        submits_stale: "submits", "Submits refused because their job is no longer worked on.";
        submits_duplicate: "submits", "Submits refused because they came before.";
        submits_low: "submits", "Submits refused because their hash misses the job's difficulty.";
        chain_shares: "shares", "Shares confirmed since the node started.";
        shares_pushed: "messages", "Newly confirmed shares sent to peers that were not known to have them.";
        shares_bad: "shares", "Shares of peers that cost their sender the connection.";
        shares_invalid: "shares", "Shares of peers that break a rule of the share chain.";
        shares_asked: "shares", "Shares asked of peers by id.";
        syncs: "syncs", "Syncs begun on a peer's better claim.";
        syncs_failed: "syncs", "Syncs given up because the peer stalled or ended below its claim.";
        jobs_sent: "jobs", "Jobs sent to miners.";
        blocks_found: "blocks", "Blocks found by our miners.";
        peers_up: "peers", "Peers whose handshake was done.";
        peers_down: "peers", "Peers that were up and have left.";
        miners_up: "miners", "Miners that have authorised.";
        miners_down: "miners", "Miners that had authorised and have left.";
        reorgs_deep: "times", "So many shares of the best chain were replaced at once that no luck explains it.";
        tips: "times", "The confirmed tip became another.";
        bitcoin_peers_up: "nodes", "Bitcoin nodes whose handshake was done.";
        bitcoin_peers_down: "nodes", "Bitcoin nodes that were up and have left.";
        bitcoin_headers: "headers", "Bitcoin headers that Bitcoin nodes gave and that were checked.";
        bitcoin_announced: "blocks", "New blocks of which a Bitcoin node told before our own headers had them.";
        bitcoin_blocks: "times", "Bitcoin's best header became another.";
        bitcoin_handed: "blocks", "Found blocks that a Bitcoin node was told of or given.";
        bitcoin_outages: "times", "Bitcoin's side could not be reached any more.";
        disk_outages: "times", "The disk was full.";
        notices_lost: "events", "Notifications that the journal, which counts these, has missed.";
        peers_refused: "connections", "Peers whose handshake was refused.";
        book_dials: "dials", "Dials of addresses from the book.";
        feelers: "dials", "Dials of addresses from the book only to see whether they answer.";
        addrs_heard: "addresses", "Addresses that peers told of.";
        addrs_ignored: "addresses", "Addresses beyond what is taken from one peer.";
        addrs_relayed: "messages", "Addresses passed on to peers.";
        peers_evicted: "connections", "Peers that had to go because too many came in.";
        peers_rested: "times", "A peer said more than its budget allows and was not heard for a moment.";
        tokens_refused: "requests", "Requests over HTTP whose token did not hold.";
        streams: "streams" Level, "Event streams that are open now.";
        streams_refused: "streams", "Event streams refused because there were as many as may be.";
        streams_cut: "streams", "Event streams cut because their reader fell behind.";
        stream_payloads: "payloads", "Pieces of news encoded for event streams, each once for all of them.";
        stream_lost: "events", "Notifications that streams were only told the number of, because too many came at once.";
        fetch_dropped: "jobs", "Words to the fetcher dropped because too many waited; it asks again by its deadlines.";
    }
}

/// A place in the share chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tip {
    /// Id of the share.
    pub id: ShareId,
    /// Its height.
    pub height: u32,
    /// Its score.
    pub score: u128,
}

/// Whether miners are served, and if not, what they wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// They are.
    Yes,
    /// No template has come from Bitcoin's side.
    NoTemplate,
    /// No peer is there and the node was not told to mine alone.
    NoPeer,
    /// A peer claims a better chain that has not been fetched yet.
    Behind {
        /// Height of the claim.
        height: u32,
    },
}

/// Where the node listens; `None` where it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listen {
    /// For share peers.
    pub p2p: Option<SocketAddr>,
    /// For miners.
    pub stratum: Option<SocketAddr>,
    /// For browsers and scripts.
    pub http: Option<SocketAddr>,
}

/// The node at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The network's name.
    pub network: &'static str,
    /// Whom its miners' blocks pay.
    pub mode: Mode,
    /// What each of our miners has, by script, where blocks pay by it; nobody has anything where miners are on their own.
    pub credited: Option<Arc<[(Script, u128)]>>,
    /// The magic of its messages.
    pub magic: [u8; 4],
    /// This program's version.
    pub version: &'static str,
    /// The confirmed tip: what miners build on.
    pub tip: Tip,
    /// Height of the candidate tip: above the confirmed one while coinbases are being rebuilt.
    pub candidate_height: u32,
    /// Height of the best claim of a peer that is ahead of us.
    pub claimed_height: Option<u32>,
    /// How far the way to that claim is.
    pub sync: Option<Progress>,
    /// Peers whose handshake is done.
    pub peers: usize,
    /// Addresses in the book, those that we were told of and those that we have been connected to.
    pub book: (usize, usize),
    /// Miners that have authorised.
    pub miners: usize,
    /// Submits accepted since start.
    pub accepted: u64,
    /// Submits refused since start.
    pub rejected: u64,
    /// The block to build on and the height it has in Bitcoin's chain, as the newest template says.
    pub bitcoin: Option<(ShareId, u32)>,
    /// Why Bitcoin's side cannot be reached, if so.
    pub bitcoin_down: Option<String>,
    /// Bitcoin nodes whose handshake is done.
    pub bitcoin_peers: Vec<NodeStatus>,
    /// Whether the disk is full.
    pub disk_full: bool,
    /// Whether miners are served.
    pub serving: Serving,
    /// Blocks that our miners found and that peers told of, newest last, at most [`BLOCKS_SHOWN`](crate::limits::BLOCKS_SHOWN).
    pub blocks: Vec<FoundBlock>,
    /// Where we listen.
    pub listen: Listen,
    /// How long the node has run.
    pub uptime: Duration,
    /// How full the channels to the stages are.
    pub queues: Vec<Queue>,
    /// How calls of services outside stand.
    pub services: Vec<Gauges>,
}

/// What an HTTP answer may draw on.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The node at this moment.
    pub status: &'a Status,
    /// The chain: heights, shares, payouts at the confirmed tip.
    pub chain: &'a ChainStoreHandle,
    /// Found blocks.
    pub blocks: &'a Blocks,
    /// Counters of judgement.
    pub counters: &'a Counters,
    /// Counters of the network core.
    pub net: &'a rockpool_net::counters::Counters,
    /// Own miners.
    pub miners: &'a Miners,
    /// What the reactor's turns took.
    pub times: &'a rockpool_net::times::Times,
}
