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
use rockpool_workers::jobs::{Answer, Fate, Jobs, OrganiseJob, Output, Stage, Stages, SubmitJob};
use rockpool_workers::limits::{EMISSION_SLOTS, FETCH_SLOTS, MAILBOX_SLOTS, ORGANISE_FREE_SLOTS, ORGANISE_SLOTS, READ_SLOTS, WRITE_SLOTS};
use rockpool_workers::organise::OrganiseWorker;
use rockpool_workers::reader::Reader;
use rockpool_workers::writer::StoreWriter;

use crate::draw;

/// Longest that a message waits for its stage, microseconds, where the seed does not stall it.
const DELAY_MAX_US: u64 = 2_000;

/// How often messages wait for a slow stage: a slow disk, a busy core.
#[derive(Clone, Copy)]
pub struct Pace {
    /// One message in so many; zero for none.
    pub odds: u64,
    /// Up to so long, microseconds.
    pub wait_max_us: u64,
}

/// A stage by its place, for who stalls it.
pub const STAGES: usize = 5;
pub const WRITER: usize = 2;

/// What a node's turn gave, not yet with its stage.
#[derive(Default)]
pub struct Given(Jobs);

impl Stages for Given {
    fn give(&mut self, jobs: &mut Jobs) {
        self.0.emission.append(&mut jobs.emission);
        self.0.organise.append(&mut jobs.organise);
        self.0.fetch.append(&mut jobs.fetch);
        self.0.read.append(&mut jobs.read);
        // There are no portfolios, but what a turn has for them must not stay with it.
        self.0.upstream.append(&mut jobs.upstream);
        self.0.write.append(&mut jobs.write);
        self.0.submit.append(&mut jobs.submit);
    }
}

/// One stage and its channel: messages with the time from which the stage sees them.
struct Line<S: Stage> {
    stage: S,
    channel: VecDeque<(Duration, Vec<S::Job>)>,
    /// Messages that the channel of its thread holds.
    slots: usize,
    /// It does nothing until then: for ever, as long as it is stalled.
    stalled: Duration,
    /// Messages that waited for it longer than usual.
    waited: u64,
}

impl<S: Stage> Line<S> {
    fn new(stage: S, slots: usize) -> Line<S> {
        Line { stage, channel: VecDeque::new(), slots, stalled: Duration::ZERO, waited: 0 }
    }

    /// A channel keeps its order: a message is not seen before those ahead of it.
    fn push(&mut self, now: Duration, jobs: Vec<S::Job>, pace: Pace, rng: &mut ChaCha12Rng) {
        if jobs.is_empty() {
            return;
        }
        let slow = pace.odds > 0 && draw(rng, pace.odds) == 0;
        let at = now + Duration::from_micros(draw(rng, if slow { pace.wait_max_us } else { DELAY_MAX_US }));
        let after = self.channel.back().map_or(Duration::ZERO, |(at, _)| *at);
        self.waited += u64::from(slow || now < self.stalled);
        self.channel.push_back((at.max(after), jobs));
        assert!(self.channel.len() <= self.slots, "{} messages wait for a stage with {} slots", self.channel.len(), self.slots);
    }

    fn due(&self) -> Option<Duration> {
        let due = self.channel.front().map(|(at, _)| *at).into_iter().chain(self.stage.due()).min();
        due.map(|due| due.max(self.stalled))
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
    /// What has no ticket, which waits until the organiser's channel has room for it or a share goes there.
    held: Vec<OrganiseJob>,
    /// The reactor's mailbox, messages in the order of their posting.
    pub mailbox: VecDeque<Mail<Answer>>,
    /// Blocks that the node handed in by itself and that are on their way.
    submit: Vec<SubmitJob>,
    /// No block reaches Bitcoin from here.
    pub dead: bool,
    /// Blocks that Bitcoin refused, with the reason.
    pub refused: Vec<String>,
    pace: Pace,
    rng: ChaCha12Rng,
}

impl Inline {
    /// The stages over these rows.
    pub fn new(params: &'static Params, chain: Chain, kv: &Arc<dyn Kv>, pace: Pace, rng: ChaCha12Rng) -> Inline {
        Inline {
            emission: Line::new(EmissionWorker::new(params), EMISSION_SLOTS),
            organise: Line::new(OrganiseWorker::new(params, chain), ORGANISE_SLOTS),
            write: Line::new(StoreWriter::new(kv.clone()), WRITE_SLOTS),
            fetch: Line::new(BlockFetcher::new(), FETCH_SLOTS),
            read: Line::new(Reader::new(StoreHandle::new(kv.clone())), READ_SLOTS),
            held: Vec::new(),
            mailbox: VecDeque::new(),
            submit: Vec::new(),
            dead: false,
            refused: Vec::new(),
            pace,
            rng,
        }
    }

    /// Takes what a turn gave.
    pub fn take(&mut self, now: Duration, given: &mut Given) {
        let jobs = std::mem::take(&mut given.0);
        let (pace, rng) = (self.pace, &mut self.rng);
        self.emission.push(now, jobs.emission, pace, rng);
        // As `Crew` does with what has no ticket.
        self.held.extend(jobs.organise);
        let ticketed = self.held.iter().any(|job| job.has_ticket());
        if ticketed || self.organise.channel.len() < ORGANISE_FREE_SLOTS {
            self.organise.push(now, std::mem::take(&mut self.held), pace, rng);
        }
        self.fetch.push(now, jobs.fetch, pace, rng);
        self.read.push(now, jobs.read, pace, rng);
        self.write.push(now, jobs.write, pace, rng);
        self.submit.extend(jobs.submit);
    }

    /// Stalls a stage, by its place, or lets it go on.
    pub fn stall(&mut self, stage: usize, stalled: bool) {
        let until = if stalled { Duration::MAX } else { Duration::ZERO };
        match stage {
            0 => self.emission.stalled = until,
            1 => self.organise.stalled = until,
            WRITER => self.write.stalled = until,
            3 => self.fetch.stalled = until,
            _ => self.read.stalled = until,
        }
    }

    /// Messages that waited for a slow or stalled stage: the writer's, and the others'.
    pub fn waited(&self) -> [u64; 2] {
        [self.write.waited, self.emission.waited + self.organise.waited + self.fetch.waited + self.read.waited]
    }

    /// When the next stage has something to do.
    pub fn due(&self) -> Option<Duration> {
        let handed_in = (!self.submit.is_empty()).then_some(Duration::ZERO);
        let stages = [self.emission.due(), self.organise.due(), self.write.due(), self.fetch.due(), self.read.due(), handed_in];
        stages.into_iter().flatten().min()
    }

    /// Whether nothing is on its way to a stage or to the reactor.
    pub fn quiet(&self) -> bool {
        let channels = [self.emission.channel.len(), self.organise.channel.len(), self.write.channel.len(), self.fetch.channel.len()];
        channels.iter().sum::<usize>() + self.read.channel.len() + self.mailbox.len() + self.held.len() + self.submit.len() == 0
    }

    /// The organiser's chain.
    pub fn chain(&self) -> &Chain {
        self.organise.stage.chain()
    }

    /// Runs every stage that is due, once.
    pub fn step(&mut self, now: Now, bitcoin: &EmbeddedChain) {
        let due = |at: Option<Duration>| at.is_some_and(|at| at <= now.mono);
        let mut out = Output::default();
        if due(self.emission.due()) {
            self.emission.step(now, &mut out);
        }
        if due(self.organise.due()) {
            self.organise.step(now, &mut out);
        }
        if due(self.write.due()) {
            self.write.step(now, &mut out);
        }
        if due(self.fetch.due()) {
            self.fetch.step(now, &mut out);
        }
        if due(self.read.due()) {
            self.read.step(now, &mut out);
        }
        for job in out.submit.into_iter().chain(self.submit.drain(..)) {
            let dead = || Fate::Unreachable("it is dead".to_owned());
            let fate = if self.dead { dead() } else { bitcoin.submit(&job.block, now.unix()) };
            if let Fate::Refused(why) = &fate {
                self.refused.push(why.clone());
            }
            let answer = Answer::Fate { hash: job.hash, height: job.height, node: "embedded".into(), fate };
            self.mailbox.push_back(Mail { answer, tickets: Vec::new() });
        }
        self.mailbox.extend(out.mail.into_iter().map(|(answer, tickets)| Mail { answer, tickets }));
        assert!(self.mailbox.len() <= MAILBOX_SLOTS, "the mailbox holds all tickets that can reach it");
        self.organise.push(now.mono, out.organise, self.pace, &mut self.rng);
        self.write.push(now.mono, out.write, self.pace, &mut self.rng);
    }
}
