//! What travels between the reactor and the stages: jobs out, answers back.

use std::sync::Arc;
use std::time::Duration;

use rockpool_net::frame::http::Request;
use rockpool_net::hub::tickets::Ticket;
use rockpool_net::id::{ConnId, ShareId};
use rockpool_net::wire::share::{Script, Share};
pub use rockpool_store::blocks::Fate;
use rockpool_store::kv::{Family, Op};
use rockpool_store::organised::ChainChange;
use rockpool_store::payouts::Payouts;
use rockpool_store::pplns::PplnsShare;

use crate::outside::Gauges;
use crate::outside::call::{CallError, Order};
use crate::template::Template;
use crate::work::Work;

/// Whom to tell what became of a submit.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The miner's connection.
    pub conn: ConnId,
    /// The id of its request, any JSON value, echoed as it came.
    pub request: Arc<str>,
    /// Difficulty that the submit is credited with in the miner's statistics.
    pub difficulty: f64,
    /// Whether it is to be credited in a pool of our own: then `true` comes once that is stored.
    pub credited: bool,
    /// The node's word for the worker whose it is.
    pub worker: u64,
    /// The difficulty that its hash has; zero before it is judged.
    pub achieved: f64,
    /// Whether it is a share of the share chain; emission finds out.
    pub share: bool,
}

/// A miner's submit, as dispatch found it: job known, not a duplicate.
#[derive(Debug)]
pub struct EmissionJob {
    /// Whom to tell.
    pub claim: Claim,
    /// The work that the job was made of.
    pub work: Arc<Work>,
    /// Who is paid for the share.
    pub script: Script,
    /// The target that its job committed to, compact: harder than the work's by choice, or the same.
    pub bits: u32,
    /// extranonce1 ‖ extranonce2.
    pub extranonce: [u8; 12],
    /// Header version, rolled bits included.
    pub version: u32,
    /// Header time.
    pub ntime: u32,
    /// Header nonce.
    pub nonce: u32,
    /// The job's difficulty as a target, little-endian as hashes are compared (most significant byte last).
    pub target: [u8; 32],
    /// Why a pool of our own miners does not credit it, if it does not. It may be a block all the same.
    pub unpaid: Option<&'static str>,
    /// The frame's ticket.
    pub ticket: Ticket,
}

/// Why a submit was refused. Codes are Stratum's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitRefusal {
    /// 21: the job is no longer worked on.
    Stale,
    /// 22: the same submit came before.
    Duplicate,
    /// 23: the hash does not meet the job's difficulty.
    LowDifficulty,
    /// 20: header time or version outside what the job allows.
    BadField(&'static str),
    /// 20: the share chain refused the share.
    Refused(&'static str),
}

/// What Bitcoin's side says of headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BitcoinNews {
    /// Where the headers of a fresh node begin: the first block of a retarget period, on bitcoind's active chain.
    Root {
        /// Its height.
        height: u32,
        /// Its header.
        header: [u8; 80],
    },
    /// Ascending, each after the one that it builds on, at most [`crate::limits::HEADERS_MAX`]. bitcoind has these blocks and knows nothing
    /// against them.
    Headers(Vec<[u8; 80]>),
    /// How bitcoind's branches end. The embedded chain never says this.
    Tips(Tips),
    /// bitcoind cannot be reached: what was said of its branches says nothing any more.
    Lost,
    /// No Bitcoin peer can be reached: what they told says nothing any more of what they have.
    PeersLost,
}

/// The ends of bitcoind's branches, in place of all that was said of them before. Of each kind at most [`crate::limits::TIPS_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tips {
    /// The block that it mines on. The headers up to it were told of before.
    pub active: [u8; 32],
    /// Ends of other branches all blocks of which it has, and nothing against them.
    pub valid: Vec<[u8; 32]>,
    /// Ends of branches that hold an invalid block.
    pub invalid: Vec<[u8; 32]>,
}

/// What the organiser is given. Its lanes, first to last: `Own`, `Tip`, `Bulk`.
#[derive(Debug)]
pub enum OrganiseJob {
    /// A share of one of our miners, from emission.
    Own {
        /// The share.
        share: Arc<Share>,
        /// Whom to tell.
        claim: Claim,
        /// The submit's ticket.
        ticket: Ticket,
    },
    /// A submit of one of our miners, where they are a pool of their own.
    Credit {
        /// What it is worth to whom.
        share: PplnsShare,
        /// Whom to tell.
        claim: Claim,
        /// The submit's ticket.
        ticket: Ticket,
    },
    /// A share that a peer pushed, or sent because we asked for it by id.
    Tip {
        /// The share.
        share: Arc<Share>,
        /// Who sent it (the ticket's connection).
        ticket: Ticket,
    },
    /// Shares of a sync, ascending from a fork point.
    Bulk {
        /// The peer on whose claim the sync was begun; others may help (the ticket's connection).
        sync: ConnId,
        /// The shares.
        shares: Vec<Share>,
        /// Whether a chain of genesis alone is to begin with the first of them (SHARECHAIN §9).
        base: bool,
        /// The frame's ticket.
        ticket: Ticket,
    },
    /// Bitcoin headers that a peer sent along, or that a Bitcoin peer told of.
    Blocks {
        /// The headers, ascending.
        headers: Vec<[u8; 80]>,
        /// Whether a Bitcoin peer of the configuration told of them: our own side of Bitcoin, like bitcoind. It has these blocks.
        own: bool,
        /// Who sent them (the ticket's connection).
        ticket: Ticket,
    },
    /// A peer has left: what it had pending is forgotten.
    PeerGone(ConnId),
    /// The chain that was begun with a base share is given up: its peer's claim was a lie.
    BeginAnew,
    /// Bitcoin's side has spoken.
    Bitcoin(BitcoinNews),
}

impl OrganiseJob {
    /// Whether a ticket pays for its place in the organiser's channel.
    pub fn has_ticket(&self) -> bool {
        !matches!(self, OrganiseJob::PeerGone(_) | OrganiseJob::BeginAnew | OrganiseJob::Bitcoin(_))
    }
}

/// A batch on its way to disk, with whom to tell.
#[derive(Debug, Default)]
pub struct WriteJob {
    /// Rows: one of the chain's batches, at most 1 MiB and 256 commands.
    pub ops: Vec<Op>,
    /// Whether it must have reached the disk before it is told: it holds an own share.
    pub sync: bool,
    /// Ids whose rows are in it.
    pub ids: Vec<ShareId>,
    /// Submits that get their `true` once it is stored.
    pub claims: Vec<Claim>,
    /// Tickets whose last answer is `Stored`.
    pub tickets: Vec<Ticket>,
    /// Families of which it ends what the node gave: `RowsStored` follows for each.
    pub ends: Vec<Family>,
}

/// What the fetcher is told: in one message a turn, one message at a time (its answer gives the credit back).
#[derive(Debug)]
pub enum FetchJob {
    /// A peer can be asked.
    PeerUp(ConnId),
    /// A peer has left: what it was asked for is asked of others.
    PeerDown(ConnId),
    /// A share is missing; `from` knows it.
    Missing(ShareId, ConnId),
    /// A share has come, by whatever way.
    Arrived(ShareId),
    /// A peer says that it has not got it.
    NotFound(ShareId, ConnId),
}

/// A cold read: rows that the cache did not hold.
#[derive(Debug)]
pub struct ReadJob {
    /// For whom.
    pub conn: ConnId,
    /// The caller's word for the request, given back with the answer.
    pub tag: u64,
    /// Which rows.
    pub rows: Reads,
    /// The request's ticket.
    pub ticket: Ticket,
}

/// Rows for the reader. Its answer has one for each, in this order, or nothing where none is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Shares, by height and id.
    Shares(Vec<(u32, ShareId)>),
    /// Rows of any family, by key.
    Keys(Family, Vec<Vec<u8>>),
}

/// What the `upstream` stage is given, which keeps portfolios and asks outside services.
#[derive(Debug)]
pub enum UpstreamJob {
    /// A request that it answers: `Told` follows with the ticket.
    Ask {
        /// For whom.
        conn: ConnId,
        /// The caller's word for the request, given back with the answer.
        tag: u64,
        /// The request, whose route is known to be one of the stage's.
        request: Box<Request>,
        /// The request's ticket.
        ticket: Ticket,
    },
    /// How the node's miners stand, in place of what was said before. One at a time: `MinedHeard` gives the credit back.
    Mined(Box<Mined>),
    /// An order is done.
    Brought {
        /// The stage's word for it.
        order: u64,
        /// The answer's bytes: JSON.
        result: Result<Vec<u8>, CallError>,
    },
}

/// How the node's miners stand.
#[derive(Clone, Debug)]
pub struct Mined {
    /// What each script has of the window, at the share that work builds on.
    pub payouts: Arc<Payouts>,
    /// What the next block is worth, satoshis, as far as it is known.
    pub value: u64,
    /// Its height in Bitcoin's chain.
    pub height: u32,
    /// Found blocks on Bitcoin's best chain, newest last: hash, height in Bitcoin's chain, confirmations (1 for the best block itself).
    pub blocks: Vec<(ShareId, u32, u32)>,
}

/// A found block on its way to bitcoind.
#[derive(Clone, Debug)]
pub struct SubmitJob {
    /// Hash of the block, which is the id of its share if it is one.
    pub hash: ShareId,
    /// Height in Bitcoin's chain.
    pub height: u32,
    /// The whole block, encoded with witnesses.
    pub block: Arc<[u8]>,
    /// A miner of this node found it: it goes before those of peers, whose nodes hand them in too.
    pub own: bool,
}

/// Why a peer's share was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShareFate {
    /// Taken, or known already.
    Taken,
    /// Waits for something we do not know yet.
    Pending,
    /// It breaks a rule on tied fields; kept as invalid, its sender is not to blame unless it is bad before "tie".
    Invalid(&'static str),
    /// Not tied or otherwise nonsense: its sender is dropped, nothing is recorded.
    Bad(&'static str),
    /// Not a share but a Bitcoin header, and none of Bitcoin's: its sender is dropped.
    BadHeader(String),
}

/// A share, or a Bitcoin header, that others wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The share's id or the block's hash.
    pub id: ShareId,
    /// A peer that should know it.
    pub from: ConnId,
    /// Whether a message of the sync under way waits for it; else what waits may come with a sync anyway.
    pub bulk: bool,
}

/// What the stages answer.
#[derive(Debug)]
pub enum Answer {
    /// A submit was judged and needs no storing: met the job's difficulty but no share's target (`Ok`), or refused.
    Verdict {
        /// Whom to tell.
        claim: Claim,
        /// The judgement.
        result: Result<(), SubmitRefusal>,
    },
    /// One of our miners found a block; it is on its way to bitcoind already.
    BlockFound {
        /// Its hash.
        hash: ShareId,
        /// Its height in Bitcoin's chain.
        height: u32,
        /// Who found it.
        conn: ConnId,
        /// Its share, if it is one: what peers are told.
        share: Option<Arc<Share>>,
        /// Who is paid for it.
        script: Script,
        /// What its coinbase pays, satoshis.
        value: u64,
        /// The whole block: what is kept until a bitcoind has taken it, and served to peers.
        block: Arc<[u8]>,
    },
    /// The organiser's step.
    Organised {
        /// What changed, if anything did.
        change: Option<Box<ChainChange>>,
        /// Own submits refused by the chain.
        refused: Vec<(Claim, SubmitRefusal)>,
        /// Fates of peers' shares: the sender, the id, what became of it.
        fates: Vec<(ConnId, ShareId, ShareFate)>,
        /// Shares that pending ones wait for, with a peer that should know them.
        missing: Vec<Missing>,
        /// Syncs whose message is worked off: the peer that the sync was begun on, and the height of the best share that it brought.
        bulk_done: Vec<(ConnId, u32)>,
    },
    /// A batch is stored.
    Stored {
        /// Rows that are.
        ids: Vec<ShareId>,
        /// Submits that get their `true` now.
        claims: Vec<Claim>,
    },
    /// What each miner has in a pool of our own, by script.
    Credited(Arc<[(Script, u128)]>),
    /// Rows of an own template are stored: the next may come.
    TemplateStored,
    /// What the node gave of its own rows in this family is stored: the next may come.
    RowsStored(Family),
    /// The disk is full (true) or has room again (false).
    DiskFull(bool),
    /// Whom to ask for what: the one answer to a message of `FetchJob`s. Empty when nothing is to be asked: it gives the credit back.
    Requests(Vec<(ConnId, Vec<ShareId>)>),
    /// Whom to ask because a deadline passed. Spoken unasked, so it gives no credit back.
    Retry(Vec<(ConnId, Vec<ShareId>)>),
    /// Rows read: in the order asked, `None` where there is none.
    Read {
        /// For whom.
        conn: ConnId,
        /// The caller's word.
        tag: u64,
        /// The shares' bytes.
        rows: Vec<Option<Vec<u8>>>,
    },
    /// What the `upstream` stage answers to a request.
    Told {
        /// For whom.
        conn: ConnId,
        /// The caller's word.
        tag: u64,
        /// The HTTP status.
        status: u16,
        /// JSON.
        body: Vec<u8>,
        /// Header lines of this answer alone.
        lines: Vec<(&'static str, String)>,
    },
    /// The `upstream` stage has heard how miners stand: the next may come.
    MinedHeard,
    /// Bitcoin's headers, for the organiser: those that a template builds on come before it.
    Bitcoin(BitcoinNews),
    /// New work from Bitcoin's side.
    Template(Arc<Template>),
    /// Bitcoin's side cannot be reached (why), or can again (`None`).
    BitcoinDown(Option<String>),
    /// Bitcoin's side is configured wrongly, which showed only after the start: the node stops with exit code 2.
    Mistake(String),
    /// What became of a found block.
    Fate {
        /// Its hash.
        hash: ShareId,
        /// Its height in Bitcoin's chain.
        height: u32,
        /// Which bitcoind.
        node: String,
        /// What it said.
        fate: Fate,
    },
    /// A stage has died, or cannot go on: the node stops with exit code 3.
    Died {
        /// Its thread's name.
        stage: &'static str,
        /// Why.
        why: String,
    },
    /// A signal asks the node to stop.
    Stop,
}

/// What a turn has for the stages, collected by dispatch and handed over at its end.
#[derive(Debug, Default)]
pub struct Jobs {
    /// Submits.
    pub emission: Vec<EmissionJob>,
    /// Shares of peers; peers that left.
    pub organise: Vec<OrganiseJob>,
    /// What the fetcher should know. Given only while the node holds its credit: one message at a time.
    pub fetch: Vec<FetchJob>,
    /// Cold reads.
    pub read: Vec<ReadJob>,
    /// Requests about portfolios, and how miners stand; only where there are portfolios.
    pub upstream: Vec<UpstreamJob>,
    /// Rows of an own template, and of found blocks. No ticket pays for them: given only while the node holds its credit for either, one
    /// message's worth at a time.
    pub write: Vec<WriteJob>,
    /// Blocks that peers' miners found, and those of before the start that nobody has taken: to every bitcoind, before anything else.
    pub submit: Vec<SubmitJob>,
    /// Somebody says that bitcoind has a new block: it is asked at once.
    pub blocknotify: bool,
}

/// Where a turn's jobs go: threads in the node ([`crate::crew::Crew`]), steps run inline in the simulator.
pub trait Stages {
    /// Takes all jobs out of `jobs`, without waiting. Called at the end of every turn, jobs or none.
    fn give(&mut self, jobs: &mut Jobs);

    /// How full the channels to the stages are.
    fn queues(&self) -> Vec<Queue> {
        Vec::new()
    }

    /// How calls of services outside stand; none where there are no portfolios.
    fn services(&self) -> Vec<Gauges> {
        Vec::new()
    }
}

/// A channel to a stage, or all of them to the threads of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// The stage.
    pub name: &'static str,
    /// Messages that wait in it.
    pub depth: usize,
    /// Messages that it has room for.
    pub slots: usize,
}

/// What one step of a stage puts out. The shell sends `submit` first, then the mail as one message, then the other stages' jobs: so a
/// found block waits for nothing, and the reactor hears of a share (`Organised`) before it can hear that it is stored (`Stored`).
#[derive(Debug, Default)]
pub struct Output {
    /// Found blocks, to every bitcoind.
    pub submit: Vec<SubmitJob>,
    /// Own shares, to the organiser.
    pub organise: Vec<OrganiseJob>,
    /// Batches, to the writer.
    pub write: Vec<WriteJob>,
    /// Calls to outside services, each made beside all others.
    pub orders: Vec<Order>,
    /// Answers, to the reactor, each with the tickets that come home with it.
    pub mail: Vec<(Answer, Vec<Ticket>)>,
}

/// A stage: a pure step between its jobs and its answers. Threads drive it in the node, the simulator inline.
pub trait Stage {
    /// What it is given.
    type Job;

    /// Takes the new jobs into its own bounded queues and does one bounded slice of work.
    fn step(&mut self, now: rockpool_net::time::Now, jobs: &mut Vec<Self::Job>, out: &mut Output);

    /// The monotonic time at which it wants another step without a new job; a time that has passed means at once.
    fn due(&self) -> Option<Duration> {
        None
    }

    /// Whether somebody waits for what is due, so that it is done before an ordered stop. The rest is done after the next start.
    fn owes(&self) -> bool {
        true
    }
}

impl<S: Stage + ?Sized> Stage for Box<S> {
    type Job = S::Job;

    fn step(&mut self, now: rockpool_net::time::Now, jobs: &mut Vec<S::Job>, out: &mut Output) {
        (**self).step(now, jobs, out);
    }

    fn due(&self) -> Option<Duration> {
        (**self).due()
    }

    fn owes(&self) -> bool {
        (**self).owes()
    }
}
