//! The stages run inline: each has a queue of messages as its thread's channel would hold, worked off after a drawn delay.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rockpool_net::hub::io::Mail;
use rockpool_net::time::Now;
use rockpool_store::chain::Chain;
use rockpool_store::handle::StoreHandle;
use rockpool_store::kv::Kv;
use rockpool_store::params::Params;
use rockpool_workers::embedded::EmbeddedChain;
use rockpool_workers::emission::EmissionWorker;
use rockpool_workers::fetcher::BlockFetcher;
use rockpool_workers::jobs::{Answer, Jobs, Output, Stage, Stages};
use rockpool_workers::limits::MAILBOX_SLOTS;
use rockpool_workers::organise::OrganiseWorker;
use rockpool_workers::reader::Reader;
use rockpool_workers::writer::StoreWriter;

use crate::draw;

/// Longest that a message waits for its stage, microseconds, where the seed does not stall it.
const DELAY_MAX_US: u64 = 2_000;
/// One message in so many waits for a stalled stage, up to [`STALL_MAX_US`].
const STALL_ODDS: u64 = 50;
/// A slow disk, a busy core.
const STALL_MAX_US: u64 = 3_000_000;

/// What a node's turn gave, not yet with its stage.
#[derive(Default)]
pub struct Given(Jobs);

impl Stages for Given {
    fn give(&mut self, jobs: &mut Jobs) {
        self.0.emission.append(&mut jobs.emission);
        self.0.organise.append(&mut jobs.organise);
        self.0.fetch.append(&mut jobs.fetch);
        self.0.read.append(&mut jobs.read);
    }
}

/// One stage and its channel: messages with the time from which the stage sees them.
struct Line<S: Stage> {
    stage: S,
    channel: VecDeque<(Duration, Vec<S::Job>)>,
}

impl<S: Stage> Line<S> {
    fn new(stage: S) -> Line<S> {
        Line { stage, channel: VecDeque::new() }
    }

    /// A channel keeps its order: a message is not seen before those ahead of it.
    fn push(&mut self, now: Duration, jobs: Vec<S::Job>, rng: &mut ChaCha12Rng) {
        if jobs.is_empty() {
            return;
        }
        let most = if draw(rng, STALL_ODDS) == 0 { STALL_MAX_US } else { DELAY_MAX_US };
        let at = now + Duration::from_micros(draw(rng, most));
        let after = self.channel.back().map_or(Duration::ZERO, |(at, _)| *at);
        self.channel.push_back((at.max(after), jobs));
    }

    fn due(&self) -> Option<Duration> {
        self.channel.front().map(|(at, _)| *at).into_iter().chain(self.stage.due()).min()
    }

    fn step(&mut self, now: Now, out: &mut Output) {
        let mut jobs = Vec::new();
        while self.channel.front().is_some_and(|(at, _)| *at <= now.mono) {
            jobs.extend(self.channel.pop_front().into_iter().flat_map(|(_, jobs)| jobs));
        }
        self.stage.step(now, &mut jobs, out);
        assert!(jobs.is_empty(), "a stage takes all it is given into its own queues");
    }
}

/// All stages of one node, and its mailbox.
pub struct Inline {
    emission: Line<EmissionWorker>,
    organise: Line<OrganiseWorker>,
    write: Line<StoreWriter>,
    fetch: Line<BlockFetcher>,
    read: Line<Reader>,
    /// The reactor's mailbox, messages in the order of their posting.
    pub mailbox: VecDeque<Mail<Answer>>,
    rng: ChaCha12Rng,
}

impl Inline {
    /// The stages over these rows.
    pub fn new(params: &'static Params, chain: Chain, kv: &Arc<dyn Kv>, rng: ChaCha12Rng) -> Inline {
        Inline {
            emission: Line::new(EmissionWorker::new(params)),
            organise: Line::new(OrganiseWorker::new(params, chain)),
            write: Line::new(StoreWriter::new(kv.clone())),
            fetch: Line::new(BlockFetcher::new()),
            read: Line::new(Reader::new(StoreHandle::new(kv.clone()))),
            mailbox: VecDeque::new(),
            rng,
        }
    }

    /// Takes what a turn gave.
    pub fn take(&mut self, now: Duration, given: &mut Given) {
        let jobs = std::mem::take(&mut given.0);
        self.emission.push(now, jobs.emission, &mut self.rng);
        self.organise.push(now, jobs.organise, &mut self.rng);
        self.fetch.push(now, jobs.fetch, &mut self.rng);
        self.read.push(now, jobs.read, &mut self.rng);
    }

    /// When the next stage has something to do.
    pub fn due(&self) -> Option<Duration> {
        [self.emission.due(), self.organise.due(), self.write.due(), self.fetch.due(), self.read.due()].into_iter().flatten().min()
    }

    /// Whether nothing is on its way to a stage or to the reactor.
    pub fn quiet(&self) -> bool {
        let channels = [self.emission.channel.len(), self.organise.channel.len(), self.write.channel.len(), self.fetch.channel.len()];
        channels.iter().sum::<usize>() + self.read.channel.len() + self.mailbox.len() == 0
    }

    /// The organiser's chain.
    pub fn chain(&self) -> &Chain {
        self.organise.stage.chain()
    }

    /// Runs every stage that is due, once. Whether one was.
    pub fn step(&mut self, now: Now, bitcoin: &EmbeddedChain) -> bool {
        let due = |at: Option<Duration>| at.is_some_and(|at| at <= now.mono);
        let (mut out, mut ran) = (Output::default(), false);
        if due(self.emission.due()) {
            self.emission.step(now, &mut out);
            ran = true;
        }
        if due(self.organise.due()) {
            self.organise.step(now, &mut out);
            ran = true;
        }
        if due(self.write.due()) {
            self.write.step(now, &mut out);
            ran = true;
        }
        if due(self.fetch.due()) {
            self.fetch.step(now, &mut out);
            ran = true;
        }
        if due(self.read.due()) {
            self.read.step(now, &mut out);
            ran = true;
        }
        for job in out.submit {
            let fate = bitcoin.submit(&job.block, now.unix());
            self.mailbox.push_back(Mail {
                answer: Answer::Fate { hash: job.hash, height: job.height, node: "embedded".into(), fate },
                tickets: Vec::new(),
            });
        }
        self.mailbox.extend(out.mail.into_iter().map(|(answer, tickets)| Mail { answer, tickets }));
        assert!(self.mailbox.len() <= MAILBOX_SLOTS, "the mailbox holds all tickets that can reach it");
        self.organise.push(now.mono, out.organise, &mut self.rng);
        self.write.push(now.mono, out.write, &mut self.rng);
        ran
    }
}
