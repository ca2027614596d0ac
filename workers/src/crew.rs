//! The one thread runner: spawns, names, catches panics, reports deaths, joins. Drives the stages and stops them in order.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded};
use rockpool_net::hub::io::Mail;
use rockpool_net::time::Now;
use rockpool_store::chain::Chain;
use rockpool_store::error::StoreError;
use rockpool_store::handle::StoreHandle;
use rockpool_store::kv::Kv;
use rockpool_store::params::Params;

use crate::embedded::{self, EmbeddedChain};
use crate::emission::EmissionWorker;
use crate::fetcher::BlockFetcher;
use crate::jobs::{Answer, EmissionJob, Fate, FetchJob, Jobs, OrganiseJob, Output, ReadJob, Stage, Stages, SubmitJob, WriteJob};
use crate::limits::{
    BITCOINDS_MAX, EMISSION_MAX, EMISSION_SLOTS, FETCH_SLOTS, ORGANISE_SLOTS, READ_SLOTS, RETRY_MIN, STOP_SUBMIT_MAX, SUBMIT_SLOTS, WRITE_SLOTS,
};
use crate::organise::OrganiseWorker;
use crate::outside::{self, BitcoindConfig};
use crate::reader::Reader;
use crate::writer::StoreWriter;

/// Posts one message to the reactor's mailbox and wakes it once; `false` if the mailbox is full. `Postbox::post` in the node.
pub type Post = Arc<dyn Fn(Vec<Mail<Answer>>) -> bool + Send + Sync>;

/// Where blocks come from and go to.
pub enum Bitcoin {
    /// A regtest chain in this process, possibly shared with other nodes in it.
    Embedded(Arc<EmbeddedChain>),
    /// bitcoinds: templates of the first that answers, found blocks to all. At most [`BITCOINDS_MAX`].
    Nodes(Vec<BitcoindConfig>),
}

/// What a crew needs to start.
pub struct CrewConfig {
    /// The network's parameters.
    pub params: &'static Params,
    /// When the process' monotonic time began: the same instant that the reactor counts from.
    pub start: Instant,
    /// Processor cores.
    pub cores: usize,
    /// The rows.
    pub kv: Arc<dyn Kv>,
    /// The chain index, as loaded from the rows.
    pub chain: Chain,
    /// The reactor's mailbox.
    pub post: Post,
    /// Bitcoin's side.
    pub bitcoin: Bitcoin,
}

/// The node's threads beside the reactor.
pub struct Crew {
    emission: Vec<Sender<Vec<EmissionJob>>>,
    organise: Sender<Vec<OrganiseJob>>,
    fetch: Sender<Vec<FetchJob>>,
    read: Sender<Vec<ReadJob>>,
    /// Said only who left, while the organiser was busy.
    organise_held: Vec<OrganiseJob>,
    /// In the order in which they end.
    threads: Vec<JoinHandle<()>>,
    /// Dropped at the stop: pauses of the threads that wait for outsiders end.
    stop: Sender<()>,
    /// Disconnected once every `submit` thread has ended.
    submits_done: Receiver<()>,
    embedded: Option<Arc<EmbeddedChain>>,
    kv: Arc<dyn Kv>,
    post: Post,
}

impl Crew {
    /// Spawns all threads.
    pub fn start(config: CrewConfig) -> io::Result<Crew> {
        let CrewConfig { params, start, cores, kv, chain, post, bitcoin } = config;
        let clock = Clock { start };
        let (stop, stopped) = bounded(0);
        let (submit_alive, submits_done) = bounded(0);
        let embedded = match &bitcoin {
            Bitcoin::Embedded(chain) => Some(chain.clone()),
            Bitcoin::Nodes(_) => None,
        };
        let submit = spawn_outsiders(bitcoin, &Outsider { params, clock, post: post.clone(), stopped }, &submit_alive)?;
        drop(submit_alive);

        let (emission_jobs, emission_inboxes): (Vec<_>, Vec<_>) =
            (0..cores.saturating_sub(1).clamp(1, EMISSION_MAX)).map(|_| bounded(EMISSION_SLOTS)).unzip();
        let (organise, organise_inbox) = bounded(ORGANISE_SLOTS);
        let (write, write_inbox) = bounded(WRITE_SLOTS);
        let (fetch, fetch_inbox) = bounded(FETCH_SLOTS);
        let (read, read_inbox) = bounded(READ_SLOTS);
        let mut threads = Vec::new();
        for (index, inbox) in emission_inboxes.into_iter().enumerate() {
            let out = Outlets { submit: submit.clone(), organise: Some(organise.clone()), ..Outlets::new(&post) };
            threads.push(run(EMISSION_NAMES[index], &post, drive(EMISSION_NAMES[index], EmissionWorker::new(params), inbox, out, clock))?);
        }
        let out = Outlets { write: Some(write), ..Outlets::new(&post) };
        threads.push(run("organiser", &post, drive("organiser", OrganiseWorker::new(params, chain), organise_inbox, out, clock))?);
        threads.push(run("writer", &post, drive("writer", StoreWriter::new(kv.clone()), write_inbox, Outlets::new(&post), clock))?);
        threads.push(run("fetcher", &post, drive("fetcher", BlockFetcher::new(), fetch_inbox, Outlets::new(&post), clock))?);
        let reader = Reader::new(StoreHandle::new(kv.clone()));
        threads.push(run("reader", &post, drive("reader", reader, read_inbox, Outlets::new(&post), clock))?);
        let emission = emission_jobs;
        Ok(Crew { emission, organise, fetch, read, organise_held: Vec::new(), threads, stop, submits_done, embedded, kv, post })
    }

    /// Ends the stages in the order of their data's way, each after it has done what it was given; then makes the rows safe. Threads that
    /// wait for outsiders are not joined, but found blocks that are on their way get a moment.
    pub fn stop(self) -> Result<(), StoreError> {
        let Crew { emission, organise, fetch, read, threads, stop, submits_done, embedded, kv, .. } = self;
        drop((emission, organise, fetch, read));
        for thread in threads {
            // `run` has caught and reported a panic already.
            let _ = thread.join();
        }
        drop(stop);
        if let Some(chain) = embedded {
            chain.wake();
        }
        let _ = submits_done.recv_timeout(STOP_SUBMIT_MAX);
        kv.flush()
    }

    fn send<J>(&self, stage: &'static str, to: &Sender<Vec<J>>, jobs: Vec<J>) {
        if let Err(why) = give(to, jobs) {
            report(&self.post, stage, why);
        }
    }
}

impl Stages for Crew {
    fn give(&mut self, jobs: &mut Jobs) {
        // A connection always has the same worker, so that its submits are answered in order.
        let workers = self.emission.len();
        let mut shares: Vec<Vec<EmissionJob>> = (0..workers).map(|_| Vec::new()).collect();
        jobs.emission.drain(..).for_each(|job| shares[job.claim.conn.slot as usize % workers].push(job));
        for (to, jobs) in self.emission.iter().zip(shares) {
            self.send("emission", to, jobs);
        }
        self.organise_held.append(&mut jobs.organise);
        // A message that only says who left has no ticket, and so no right to a slot of its own.
        let ticketed = self.organise_held.iter().any(|job| !matches!(job, OrganiseJob::PeerGone(_)));
        if ticketed || self.organise.is_empty() {
            let jobs = std::mem::take(&mut self.organise_held);
            self.send("organiser", &self.organise, jobs);
        }
        self.send("fetcher", &self.fetch, std::mem::take(&mut jobs.fetch));
        self.send("reader", &self.read, std::mem::take(&mut jobs.read));
    }
}

const EMISSION_NAMES: [&str; EMISSION_MAX] =
    ["emission-0", "emission-1", "emission-2", "emission-3", "emission-4", "emission-5", "emission-6", "emission-7"];
const SUBMIT_NAMES: [&str; BITCOINDS_MAX] = ["submit-0", "submit-1", "submit-2", "submit-3"];

/// The clock of all stages. Reads the machine's clocks; pure code is given [`Now`].
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this shell owns the stages' clock")]
    pub(crate) fn now(&self) -> Now {
        Now { mono: self.start.elapsed(), wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() }
    }
}

/// Spawns a thread with a name of at most 15 characters (the system cuts longer ones), and reports its death if it panics.
fn run(name: &'static str, post: &Post, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let post = post.clone();
    thread::Builder::new().name(name.into()).spawn(move || {
        // What the body owned is dropped with it; nobody sees it half-changed.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
            let why = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
            report(&post, name, format!("panicked: {}", why.as_deref().unwrap_or("no message")));
        }
    })
}

/// Tells the reactor, and the log, that a stage cannot go on. Waits for room: this must not be lost.
fn report(post: &Post, stage: &'static str, why: String) {
    log::error!("{stage}: {why}");
    let (_never, wait) = bounded::<()>(0);
    for _ in 0..100 {
        if post(vec![Mail { answer: Answer::Died { stage, why: why.clone() }, tickets: Vec::new() }]) {
            return;
        }
        let _ = wait.recv_timeout(Duration::from_millis(50));
    }
}

/// Hands one message over without waiting. Nothing is no message. A receiver that is gone has been reported by itself.
fn give<J>(to: &Sender<Vec<J>>, jobs: Vec<J>) -> Result<(), String> {
    if jobs.is_empty() {
        return Ok(());
    }
    match to.try_send(jobs) {
        Err(TrySendError::Full(_)) => Err(format!("its channel of {} messages is full, a defect", to.capacity().unwrap_or(0))),
        Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
    }
}

/// What a thread that waits for outsiders has of the node. It is not joined at the stop: it may be deep in a call.
#[derive(Clone)]
pub(crate) struct Outsider {
    pub(crate) params: &'static Params,
    clock: Clock,
    post: Post,
    /// Disconnected at the stop.
    stopped: Receiver<()>,
}

impl Outsider {
    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    /// Waits, but not beyond the stop. Whether to go on.
    pub(crate) fn rest(&self, time: Duration) -> bool {
        self.stopped.recv_timeout(time) == Err(RecvTimeoutError::Timeout)
    }

    /// Posts one answer, in time if there is no room at once. Whether to go on.
    pub(crate) fn say(&self, mut answer: impl FnMut() -> Answer) -> bool {
        while !(self.post)(vec![Mail { answer: answer(), tickets: Vec::new() }]) {
            if !self.rest(RETRY_MIN) {
                return false;
            }
        }
        true
    }
}

/// Spawns `template` and one `submit` for each place that takes blocks.
fn spawn_outsiders(bitcoin: Bitcoin, outsider: &Outsider, alive: &Sender<()>) -> io::Result<Vec<Sender<SubmitJob>>> {
    let post = &outsider.post;
    match bitcoin {
        Bitcoin::Embedded(chain) => {
            let (submit, found) = bounded(SUBMIT_SLOTS);
            let (node, offered, alive) = (outsider.clone(), chain.clone(), alive.clone());
            run(SUBMIT_NAMES[0], post, move || {
                let _alive = alive;
                embedded::take(&chain, &found, &node);
            })?;
            let node = outsider.clone();
            run("template", post, move || embedded::offer(&offered, &node))?;
            Ok(vec![submit])
        }
        Bitcoin::Nodes(nodes) => {
            let mut submits = Vec::new();
            for (bitcoind, name) in nodes.iter().cloned().zip(SUBMIT_NAMES) {
                let (submit, found) = bounded(SUBMIT_SLOTS);
                let (node, alive) = (outsider.clone(), alive.clone());
                run(name, post, move || {
                    let _alive = alive;
                    outside::submit(bitcoind, &found, &node);
                })?;
                submits.push(submit);
            }
            let node = outsider.clone();
            run("template", post, move || outside::watch(nodes, &node))?;
            Ok(submits)
        }
    }
}

/// Where a stage's output goes.
struct Outlets {
    submit: Vec<Sender<SubmitJob>>,
    organise: Option<Sender<Vec<OrganiseJob>>>,
    write: Option<Sender<Vec<WriteJob>>>,
    /// Rows that no ticket pays for, and so without a right to a slot of their own.
    write_held: Vec<WriteJob>,
    post: Post,
}

impl Outlets {
    fn new(post: &Post) -> Outlets {
        Outlets { submit: Vec::new(), organise: None, write: None, write_held: Vec::new(), post: post.clone() }
    }

    /// In the order that [`Output`] promises.
    fn send(&mut self, out: &mut Output) -> Result<(), String> {
        for job in out.submit.drain(..) {
            for to in &self.submit {
                if let Err(TrySendError::Full(job)) = to.try_send(job.clone()) {
                    // A bitcoind that takes nothing is no defect of ours.
                    let fate = Fate::Unreachable(format!("{SUBMIT_SLOTS} found blocks wait for it already"));
                    out.mail.push((Answer::Fate { hash: job.hash, node: "bitcoind".into(), fate }, Vec::new()));
                }
            }
        }
        let mail: Vec<_> = out.mail.drain(..).map(|(answer, tickets)| Mail { answer, tickets }).collect();
        if !mail.is_empty() && !(self.post)(mail) {
            return Err("the mailbox is full, a defect".into());
        }
        self.organise.as_ref().map_or(Ok(()), |to| give(to, std::mem::take(&mut out.organise)))?;
        let Some(to) = &self.write else { return Ok(()) };
        self.write_held.append(&mut out.write);
        let ticketed = self.write_held.iter().any(|job| !job.tickets.is_empty());
        if ticketed || to.is_empty() { give(to, std::mem::take(&mut self.write_held)) } else { Ok(()) }
    }
}

/// A stage's loop: waits for jobs or for what is due, takes all that is queued, steps, sends. Ends when nobody can give it jobs any more
/// and nothing is left that it can do at once.
fn drive<S>(name: &'static str, mut stage: S, inbox: Receiver<Vec<S::Job>>, mut out: Outlets, clock: Clock) -> impl FnOnce() + Send + 'static
where
    S: Stage + Send + 'static,
    S::Job: Send + 'static,
{
    move || {
        let (mut jobs, mut output) = (Vec::new(), Output::default());
        loop {
            let wait = stage.due().map(|due| due.saturating_sub(clock.now().mono));
            let first = match wait {
                Some(Duration::ZERO) => match inbox.try_recv() {
                    Ok(first) => first,
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => Vec::new(),
                },
                Some(wait) => match inbox.recv_timeout(wait) {
                    Ok(first) => first,
                    Err(RecvTimeoutError::Timeout) => Vec::new(),
                    Err(RecvTimeoutError::Disconnected) => return,
                },
                None => match inbox.recv() {
                    Ok(first) => first,
                    Err(_) => return,
                },
            };
            jobs.extend(first);
            inbox.try_iter().for_each(|more| jobs.extend(more));
            stage.step(clock.now(), &mut jobs, &mut output);
            if let Err(why) = out.send(&mut output) {
                report(&out.post, name, why);
                return;
            }
        }
    }
}
