//! The one thread runner: spawns, names, catches panics, reports deaths, joins. Drives the stages and stops them in order.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded};
use rockpool_net::hub::io::Mail;
use rockpool_net::reactor::Clock;
use rockpool_net::time::Now;
use rockpool_store::chain::Chain;
use rockpool_store::error::StoreError;
use rockpool_store::handle::StoreHandle;
use rockpool_store::kv::Kv;
use rockpool_store::params::Params;
use rockpool_store::pplns::Pplns;

use crate::callers::{self, Upstream};
use crate::embedded::{self, EmbeddedChain};
use crate::emission::EmissionWorker;
use crate::fetcher::BlockFetcher;
use crate::jobs::{
    Answer, EmissionJob, Fate, FetchJob, Jobs, OrganiseJob, Output, Queue, ReadJob, Stage, Stages, SubmitJob, UpstreamJob, WriteJob,
};
use crate::limits::{
    BITCOINDS_MAX, EMISSION_MAX, EMISSION_SLOTS, FETCH_SLOTS, ORGANISE_FREE_SLOTS, ORGANISE_SLOTS, READ_SLOTS, REPORT_TRIES, RETRY_MIN,
    STOP_SUBMIT_MAX, SUBMIT_SLOTS, UPSTREAM_SLOTS, WRITE_SLOTS,
};
use crate::organise::OrganiseWorker;
use crate::outside::call::{Order, Service};
use crate::outside::{self, BitcoindConfig, Gauges, Outside};
use crate::reader::Reader;
use crate::writer::StoreWriter;

/// Posts one message to the reactor's mailbox and wakes it once; `false` if the mailbox is full. In the node
/// `Arc::new(move |mail| postbox.post(mail).is_ok())`.
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
    /// The reactor's clock, so that all tell the same time.
    pub clock: Clock,
    /// Processor cores.
    pub cores: usize,
    /// The rows.
    pub kv: Arc<dyn Kv>,
    /// The chain index, as loaded from the rows.
    pub chain: Chain,
    /// What our miners did where they are a pool of their own, as loaded from the rows.
    pub pplns: Pplns,
    /// The reactor's mailbox.
    pub post: Post,
    /// Bitcoin's side.
    pub bitcoin: Bitcoin,
    /// Portfolios, if there are any.
    pub upstream: Option<Upstream>,
}

/// The way to the stage `upstream`, and what it asks by.
struct Portfolios {
    jobs: Arc<Sender<Vec<UpstreamJob>>>,
    outside: Arc<Outside>,
}

/// The node's threads beside the reactor.
pub struct Crew {
    submit: Vec<Sender<SubmitJob>>,
    emission: Vec<Sender<Vec<EmissionJob>>>,
    organise: Sender<Vec<OrganiseJob>>,
    fetch: Sender<Vec<FetchJob>>,
    read: Sender<Vec<ReadJob>>,
    write: Sender<Vec<WriteJob>>,
    upstream: Option<Portfolios>,
    /// To who watches Bitcoin: there may be a new block.
    blocknotify: Sender<()>,
    /// Without a ticket, while the organiser was busy.
    organise_held: Vec<OrganiseJob>,
    /// In the order in which they end.
    threads: Vec<JoinHandle<()>>,
    /// Dropped at the stop: pauses of the threads that wait for outsiders end.
    stop: Sender<()>,
    /// Disconnected once every `submit` thread has ended.
    submits_done: Receiver<()>,
    kv: Arc<dyn Kv>,
    post: Post,
}

impl Crew {
    /// Spawns all threads.
    pub fn start(config: CrewConfig) -> io::Result<Crew> {
        let CrewConfig { params, clock, cores, kv, chain, pplns, post, bitcoin, upstream } = config;
        let (stop, stopped) = bounded(0);
        let (submit_alive, submits_done) = bounded(0);
        let locator = chain.bitcoin().locator();
        let (blocknotify, notified) = bounded(1);
        let submit = spawn_outsiders(bitcoin, (locator, notified), &Outsider { clock, post: post.clone(), stopped }, &submit_alive)?;
        drop(submit_alive);

        let (emission_jobs, emission_inboxes): (Vec<_>, Vec<_>) =
            (0..cores.saturating_sub(1).clamp(1, EMISSION_MAX)).map(|_| bounded(EMISSION_SLOTS)).unzip();
        let (organise, organise_inbox) = bounded(ORGANISE_SLOTS);
        let (write, write_inbox) = bounded(WRITE_SLOTS);
        let (fetch, fetch_inbox) = bounded(FETCH_SLOTS);
        let (read, read_inbox) = bounded(READ_SLOTS);
        let mut threads = Vec::new();
        for (inbox, name) in emission_inboxes.into_iter().zip(EMISSION_NAMES) {
            let out = Outlets { submit: submit.clone(), organise: Some(organise.clone()), ..Outlets::new(&post) };
            threads.push(spawn(Driven::new(name, EmissionWorker::new(params), inbox, out), clock)?);
        }
        let out = Outlets { write: Some(write.clone()), ..Outlets::new(&post) };
        let organiser = OrganiseWorker::new(params, chain).crediting(pplns);
        threads.push(spawn(Driven::new("organiser", organiser, organise_inbox, out), clock)?);
        threads.push(spawn(Driven::new("writer", StoreWriter::new(kv.clone()), write_inbox, Outlets::new(&post)), clock)?);
        threads.push(spawn(Driven::new("fetcher", BlockFetcher::new(), fetch_inbox, Outlets::new(&post)), clock)?);
        let reader = Reader::new(StoreHandle::new(kv.clone()));
        threads.push(spawn(Driven::new("reader", reader, read_inbox, Outlets::new(&post)), clock)?);
        let upstream = upstream.map(|upstream| spawn_upstream(upstream, clock, &post, &mut threads)).transpose()?;
        let emission = emission_jobs;
        let organise_held = Vec::new();
        Ok(Crew {
            submit,
            emission,
            organise,
            fetch,
            read,
            write,
            upstream,
            blocknotify,
            organise_held,
            threads,
            stop,
            submits_done,
            kv,
            post,
        })
    }

    /// Ends the stages in the order of their data's way, each after it has done what it was given; then makes the rows safe. Threads that
    /// wait for outsiders are not joined, but found blocks that are on their way get a moment.
    pub fn stop(self) -> Result<(), StoreError> {
        let Crew { submit, emission, organise, fetch, read, write, upstream, threads, stop, submits_done, kv, .. } = self;
        if let Some(upstream) = &upstream {
            upstream.outside.stop();
        }
        drop((submit, emission, organise, fetch, read, write, upstream));
        for thread in threads {
            // `run` has caught and reported a panic already.
            let _ = thread.join();
        }
        drop(stop);
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
        let full = submit_all(&self.submit, jobs.submit.drain(..));
        if !full.is_empty() && !(self.post)(full.into_iter().map(|answer| Mail { answer, tickets: Vec::new() }).collect()) {
            report(&self.post, "submit", "the mailbox is full, a defect".into());
        }
        // A connection always has the same worker, so that its submits are answered in order.
        let workers = self.emission.len();
        let mut shares: Vec<Vec<EmissionJob>> = (0..workers).map(|_| Vec::new()).collect();
        jobs.emission.drain(..).for_each(|job| shares[job.claim.conn.slot as usize % workers].push(job));
        for (to, jobs) in self.emission.iter().zip(shares) {
            self.send("emission", to, jobs);
        }
        self.organise_held.append(&mut jobs.organise);
        // A message that says only who left, or what Bitcoin's side says, has no ticket, and so no right to a slot of its own. While the
        // channel holds fewer than the free slots, no more than these are taken by such messages.
        let ticketed = self.organise_held.iter().any(|job| job.has_ticket());
        if ticketed || self.organise.len() < ORGANISE_FREE_SLOTS {
            let jobs = std::mem::take(&mut self.organise_held);
            self.send("organiser", &self.organise, jobs);
        }
        self.send("fetcher", &self.fetch, std::mem::take(&mut jobs.fetch));
        self.send("reader", &self.read, std::mem::take(&mut jobs.read));
        self.send("writer", &self.write, std::mem::take(&mut jobs.write));
        if let Some(upstream) = &self.upstream {
            self.send("upstream", &upstream.jobs, std::mem::take(&mut jobs.upstream));
        }
        if std::mem::take(&mut jobs.blocknotify) {
            // One that was not heard yet says as much. The embedded chain needs none.
            let _ = self.blocknotify.try_send(());
        }
    }

    fn queues(&self) -> Vec<Queue> {
        let mut queues = vec![
            queue("emission", &self.emission),
            queue("organiser", std::slice::from_ref(&self.organise)),
            queue("fetcher", std::slice::from_ref(&self.fetch)),
            queue("reader", std::slice::from_ref(&self.read)),
            queue("writer", std::slice::from_ref(&self.write)),
            queue("submit", &self.submit),
        ];
        queues.extend(self.upstream.as_ref().map(|upstream| queue("upstream", std::slice::from_ref(&*upstream.jobs))));
        queues
    }

    fn services(&self) -> Vec<Gauges> {
        self.upstream.as_ref().map_or_else(Vec::new, |upstream| upstream.outside.gauges().into())
    }
}

fn queue<T>(name: &'static str, channels: &[Sender<T>]) -> Queue {
    let sum = |of: fn(&Sender<T>) -> usize| channels.iter().map(of).sum();
    Queue { name, depth: sum(Sender::len), slots: sum(|channel| channel.capacity().unwrap_or(0)) }
}

const EMISSION_NAMES: [&str; EMISSION_MAX] =
    ["emission-0", "emission-1", "emission-2", "emission-3", "emission-4", "emission-5", "emission-6", "emission-7"];
const SUBMIT_NAMES: [&str; BITCOINDS_MAX] = ["submit-0", "submit-1", "submit-2", "submit-3"];

/// Spawns a thread with a name of at most 15 characters (the system cuts longer ones), and reports its death if it panics.
fn run(name: &'static str, post: &Post, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    run_as(name.into(), name, post, body)
}

/// The same for one of several that are told of by one name.
pub(crate) fn run_as(
    thread_name: String,
    name: &'static str,
    post: &Post,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let post = post.clone();
    thread::Builder::new().name(thread_name).spawn(move || {
        // What the body owned is dropped with it; nobody sees it half-changed.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
            let why = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
            report(&post, name, format!("panicked: {}", why.as_deref().unwrap_or("no message")));
        }
    })
}

/// Spawns a stage's thread.
fn spawn<S>(driven: Driven<S>, clock: Clock) -> io::Result<JoinHandle<()>>
where
    S: Stage + Send + 'static,
    S::Job: Send,
{
    let post = driven.out.post.clone();
    run(driven.name, &post, move || driven.run(clock))
}

/// Hands found blocks to every bitcoind. What is to be told of those that take no more. Half of the places are for our own miners' alone.
fn submit_all(to: &[Sender<SubmitJob>], jobs: impl Iterator<Item = SubmitJob>) -> Vec<Answer> {
    let mut full = Vec::new();
    for job in jobs {
        for to in to {
            let room = job.own || to.len() < SUBMIT_SLOTS / 2;
            if !room || matches!(to.try_send(job.clone()), Err(TrySendError::Full(_))) {
                // A bitcoind that takes nothing is no defect of ours.
                let fate = Fate::Unreachable(format!("{SUBMIT_SLOTS} found blocks wait for it already"));
                full.push(Answer::Fate { hash: job.hash, height: job.height, node: "bitcoind".into(), fate });
            }
        }
    }
    full
}

/// Tells the reactor that a stage cannot go on. Waits for room: this must not be lost.
pub(crate) fn report(post: &Post, stage: &'static str, why: String) {
    let (_never, wait) = bounded::<()>(0);
    for _ in 0..REPORT_TRIES {
        if post(vec![Mail { answer: Answer::Died { stage, why: why.clone() }, tickets: Vec::new() }]) {
            return;
        }
        let _ = wait.recv_timeout(RETRY_MIN);
    }
    log::error!("{stage}: {why}; and the reactor takes no mail");
}

/// Hands one message over without waiting. Nothing is no message. A receiver that is gone has been reported by itself.
pub(crate) fn give<J>(to: &Sender<Vec<J>>, jobs: Vec<J>) -> Result<(), String> {
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
    clock: Clock,
    post: Post,
    /// Disconnected at the stop.
    stopped: Receiver<()>,
}

impl Outsider {
    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    /// Spawns a thread beside this one, not joined either. That there is none to be had is its death.
    pub(crate) fn spawn(&self, name: &'static str, body: impl FnOnce() + Send + 'static) {
        if let Err(why) = run(name, &self.post, body) {
            report(&self.post, name, format!("cannot be spawned: {why}"));
        }
    }

    /// Waits, but not beyond the stop. Whether to go on.
    pub(crate) fn rest(&self, time: Duration) -> bool {
        self.stopped.recv_timeout(time) == Err(RecvTimeoutError::Timeout)
    }

    /// Posts one answer, in time if there is no room at once. Whether to go on.
    pub(crate) fn say(&self, mut answer: impl FnMut() -> Answer) -> bool {
        self.say_all(|| vec![answer()])
    }

    /// Posts answers as one message.
    pub(crate) fn say_all(&self, mut answers: impl FnMut() -> Vec<Answer>) -> bool {
        while !(self.post)(answers().into_iter().map(|answer| Mail { answer, tickets: Vec::new() }).collect()) {
            if !self.rest(RETRY_MIN) {
                return false;
            }
        }
        true
    }
}

/// An outsider of no crew, for tests of its threads.
#[cfg(test)]
pub(crate) fn outsider(post: Post, stopped: Receiver<()>) -> Outsider {
    Outsider { clock: Clock::start(), post, stopped }
}

/// Spawns `template`, which is told where the node's headers stand and hears of new blocks, and a `submit` for each bitcoind; or the one
/// thread that is both for the embedded chain.
fn spawn_outsiders(
    bitcoin: Bitcoin,
    (locator, notified): (Vec<[u8; 32]>, Receiver<()>),
    outsider: &Outsider,
    alive: &Sender<()>,
) -> io::Result<Vec<Sender<SubmitJob>>> {
    let post = &outsider.post;
    match bitcoin {
        Bitcoin::Embedded(chain) => {
            let (submit, found) = bounded(SUBMIT_SLOTS);
            let (node, alive) = (outsider.clone(), alive.clone());
            run("embedded", post, move || {
                let _alive = alive;
                embedded::serve(&chain, &found, &node);
            })?;
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
            run("template", post, move || outside::watch(nodes, locator, notified, &node))?;
            Ok(submits)
        }
    }
}

/// Spawns the stage `upstream`, and the callers that make the calls that it orders.
fn spawn_upstream(upstream: Upstream, clock: Clock, post: &Post, threads: &mut Vec<JoinHandle<()>>) -> io::Result<Portfolios> {
    let Upstream { stage, outside } = upstream;
    let (jobs, inbox) = bounded(UPSTREAM_SLOTS);
    let jobs = Arc::new(jobs);
    let orders = callers::spawn(&outside, &jobs, post)?;
    threads.push(spawn(Driven::new("upstream", stage, inbox, Outlets { orders, ..Outlets::new(post) }), clock)?);
    Ok(Portfolios { jobs, outside })
}

/// Where a stage's output goes.
struct Outlets {
    submit: Vec<Sender<SubmitJob>>,
    organise: Option<Sender<Vec<OrganiseJob>>>,
    write: Option<Sender<Vec<WriteJob>>>,
    /// Rows that no ticket pays for, and so without a right to a slot of their own.
    write_held: Vec<WriteJob>,
    /// One for each service.
    orders: Vec<(Service, Sender<Order>)>,
    post: Post,
}

impl Outlets {
    fn new(post: &Post) -> Outlets {
        Outlets { submit: Vec::new(), organise: None, write: None, write_held: Vec::new(), orders: Vec::new(), post: post.clone() }
    }

    /// In the order that [`Output`] promises.
    fn send(&mut self, out: &mut Output) -> Result<(), String> {
        let full = submit_all(&self.submit, out.submit.drain(..));
        out.mail.extend(full.into_iter().map(|answer| (answer, Vec::new())));
        let mail: Vec<_> = out.mail.drain(..).map(|(answer, tickets)| Mail { answer, tickets }).collect();
        if !mail.is_empty() && !(self.post)(mail) {
            return Err("the mailbox is full, a defect".into());
        }
        self.organise.as_ref().map_or(Ok(()), |to| give(to, std::mem::take(&mut out.organise)))?;
        callers::order(&self.orders, out.orders.drain(..))?;
        let Some(to) = &self.write else { return Ok(()) };
        self.write_held.append(&mut out.write);
        let ticketed = self.write_held.iter().any(|job| !job.tickets.is_empty());
        if ticketed || to.is_empty() { give(to, std::mem::take(&mut self.write_held)) } else { Ok(()) }
    }
}

/// A stage between its inbox and its outlets.
struct Driven<S: Stage> {
    name: &'static str,
    stage: S,
    inbox: Receiver<Vec<S::Job>>,
    out: Outlets,
    jobs: Vec<S::Job>,
    output: Output,
}

impl<S: Stage> Driven<S> {
    fn new(name: &'static str, stage: S, inbox: Receiver<Vec<S::Job>>, out: Outlets) -> Driven<S> {
        Driven { name, stage, inbox, out, jobs: Vec::new(), output: Output::default() }
    }

    /// Waits for jobs or for what is due. `None` when nobody can give it jobs any more and nothing is left that it can do at once.
    fn wait(&self, clock: Clock) -> Option<Vec<S::Job>> {
        match self.stage.due().map(|due| due.saturating_sub(clock.now().mono)) {
            Some(Duration::ZERO) if self.stage.owes() => Some(Vec::new()),
            Some(Duration::ZERO) => match self.inbox.try_recv() {
                Ok(first) => Some(first),
                Err(TryRecvError::Empty) => Some(Vec::new()),
                Err(TryRecvError::Disconnected) => None,
            },
            Some(wait) => match self.inbox.recv_timeout(wait) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => Some(Vec::new()),
                Err(RecvTimeoutError::Disconnected) => None,
            },
            None => self.inbox.recv().ok(),
        }
    }

    /// Takes all that is queued behind these first jobs, steps once, sends what the step put out.
    fn step(&mut self, now: Now, first: Vec<S::Job>) -> Result<(), String> {
        self.jobs.extend(first);
        self.inbox.try_iter().for_each(|more| self.jobs.extend(more));
        self.stage.step(now, &mut self.jobs, &mut self.output);
        self.out.send(&mut self.output)
    }

    /// A thread's whole life.
    fn run(mut self, clock: Clock) {
        while let Some(first) = self.wait(clock) {
            if let Err(why) = self.step(clock.now(), first) {
                return report(&self.out.post, self.name, why);
            }
        }
        // Rows that no ticket pays for wait for a free channel; the writer takes them before it ends.
        if let Some(to) = &self.out.write
            && !self.out.write_held.is_empty()
        {
            let _ = to.send(std::mem::take(&mut self.out.write_held));
        }
    }
}

#[cfg(test)]
mod property;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use rockpool_net::hub::tickets::Ticket;
    use rockpool_net::id::ConnId;
    use rockpool_net::wire::share::{Class, Layout};
    use rockpool_store::kv::{Cached, Family, MemKv, Op};
    use rockpool_store::view::ChainView;

    use super::*;
    use crate::jobs::{BitcoinNews, Reads, Tips};
    use crate::testing::{at, claim, conn, regtest, roll, script, ticket};
    use crate::work::{Roll, Work};

    /// How long a test waits for what must come. Nothing waits for as long when all is well.
    const SOON: Duration = Duration::from_secs(30);

    /// Rows in memory behind a gate: a write takes one permit, and waits for it; `Err` in a permit is a panic.
    struct Gated {
        rows: MemKv,
        permits: Receiver<Result<(), ()>>,
        waits: Sender<()>,
    }

    impl Kv for Gated {
        fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            self.rows.get(family, key)
        }
        fn get_cached(&self, family: Family, key: &[u8]) -> Result<Cached, StoreError> {
            self.rows.get_cached(family, key)
        }
        fn scan(&self, family: Family, from: &[u8], row: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
            self.rows.scan(family, from, row)
        }
        fn write(&self, ops: &[Op], sync: bool) -> Result<(), StoreError> {
            let _ = self.waits.try_send(());
            // A gate without a keeper is open.
            if self.permits.recv() == Ok(Err(())) {
                panic!("the disk is on fire");
            }
            self.rows.write(ops, sync)
        }
        fn free_space(&self) -> Result<u64, StoreError> {
            self.rows.free_space()
        }
        fn flush(&self) -> Result<(), StoreError> {
            self.rows.flush()
        }
    }

    /// A crew on an embedded chain, its mailbox, and the view of a reactor.
    struct Node {
        crew: Crew,
        kv: Arc<Gated>,
        permits: Option<Sender<Result<(), ()>>>,
        waits: Receiver<()>,
        mail: Receiver<Vec<Mail<Answer>>>,
        open: Vec<Mail<Answer>>,
        view: ChainView,
        template: Option<Arc<crate::template::Template>>,
        home: Vec<ConnId>,
    }

    impl Node {
        fn start() -> Node {
            let (permit, permits) = bounded(100);
            let (waiting, waits) = bounded(100);
            let kv = Arc::new(Gated { rows: MemKv::new(), permits, waits: waiting });
            let chain = Chain::open(regtest(), [1, 2], &*kv).unwrap();
            let view = chain.view();
            let (post, mail) = bounded(crate::limits::MAILBOX_SLOTS);
            let bitcoin = Bitcoin::Embedded(Arc::new(EmbeddedChain::new(regtest(), None)));
            let post: Post = Arc::new(move |message| post.try_send(message).is_ok());
            let config = CrewConfig {
                params: regtest(),
                clock: Clock::start(),
                cores: 4,
                kv: kv.clone(),
                chain,
                pplns: Pplns::default(),
                post,
                bitcoin,
                upstream: None,
            };
            let crew = Crew::start(config).unwrap();
            Node { crew, kv, permits: Some(permit), waits, mail, open: Vec::new(), view, template: None, home: Vec::new() }
        }

        /// The next answer that is not about templates and changes of the chain, which are done as a reactor does them.
        fn next(&mut self) -> Answer {
            loop {
                while self.open.is_empty() {
                    self.open = self.mail.recv_timeout(SOON).unwrap();
                }
                let Mail { answer, tickets } = self.open.remove(0);
                self.home.extend(tickets.iter().map(Ticket::conn));
                match answer {
                    Answer::Bitcoin(news) => {
                        self.crew.give(&mut Jobs { organise: vec![OrganiseJob::Bitcoin(news)], ..Jobs::default() });
                    }
                    Answer::Template(template) => self.template = Some(template),
                    Answer::Organised { change: Some(change), refused, .. } if refused.is_empty() => {
                        self.view.apply(&change);
                    }
                    other => return other,
                }
            }
        }

        /// Whether the next answer is one of these, whatever comes before it.
        fn wait(&mut self, mut wanted: impl FnMut(&Answer) -> bool) -> Answer {
            loop {
                let answer = self.next();
                if wanted(&answer) {
                    return answer;
                }
            }
        }

        /// Work on the newest template.
        fn work(&mut self) -> Arc<Work> {
            while self.template.is_none() {
                let Mail { answer, .. } = self.mail.recv_timeout(SOON).unwrap().remove(0);
                let Answer::Template(template) = answer else { panic!("{answer:?}") };
                self.template = Some(template);
            }
            let template = self.template.clone().unwrap();
            let now = Now { wall: Duration::from_secs(template.curtime.into()), ..at(0) };
            let next = self.view.next(regtest(), now);
            Arc::new(Work::new(regtest(), template, &next, self.view.payouts(), (Class::N46, Layout::Tail), Some(script(1)), 0).unwrap())
        }

        fn submit(&mut self, work: &Arc<Work>, roll: Roll, n: u32) {
            let Roll { extranonce, version, ntime, nonce } = roll;
            let (claim, ticket) = (claim(n), ticket(n));
            let (work, bits, target) = (work.clone(), work.draft.bits, [0xff; 32]);
            let job = EmissionJob { claim, work, script: script(1), bits, extranonce, version, ntime, nonce, target, unpaid: None, ticket };
            self.crew.give(&mut Jobs { emission: vec![job], ..Jobs::default() });
        }
    }

    #[test]
    fn names_fit_into_what_the_system_keeps() {
        let names = EMISSION_NAMES.iter().chain(&SUBMIT_NAMES).chain(&["organiser", "writer", "fetcher", "reader", "template"]);
        assert!(names.into_iter().all(|name| name.len() <= 15));
    }

    #[test]
    fn what_the_node_hands_in_reaches_bitcoind() {
        let mut node = Node::start();
        let work = node.work();
        let share = work.share(regtest(), &script(1), work.draft.bits, &roll(&work, &script(1), true));
        let block: Arc<[u8]> = work.block(regtest(), &share).into();
        node.crew.give(&mut Jobs { submit: vec![SubmitJob { hash: share.id(), height: 1, block, own: true }], ..Jobs::default() });
        let answer = node.next();
        assert!(matches!(&answer, Answer::Fate { hash, fate: Fate::Accepted, .. } if *hash == share.id()), "{answer:?}");
    }

    #[test]
    fn a_stalled_disk_delays_neither_verdicts_nor_a_found_block() {
        let mut node = Node::start();
        let work = node.work();
        let (good, bad) = (roll(&work, &script(1), true), roll(&work, &script(1), false));
        node.submit(&work, good, 1);
        node.waits.recv_timeout(SOON).unwrap();
        // The writer stands in its write from here on.
        // A chain in the same process may have judged the block before emission has said that there is one.
        let first = [node.next(), node.next()];
        assert!(first.iter().any(|answer| matches!(answer, Answer::BlockFound { conn: found, .. } if *found == conn(1))), "{first:?}");
        assert!(first.iter().any(|answer| matches!(answer, Answer::Fate { fate: Fate::Accepted, .. })), "{first:?}");
        for n in 2..50 {
            node.submit(&work, bad, n);
            assert!(matches!(node.next(), Answer::Verdict { claim, result: Ok(()) } if claim.conn == conn(n)));
        }
        // The share is on its way: no claim was answered, no ticket of it is home, and it is confirmed all the same.
        assert!(!node.home.contains(&conn(1)));
        let submitted = node.home.len();
        assert_eq!(submitted, 48);
        // A second block on the new tip passes too.
        while node.view.tip().height < 1 || node.template.as_ref().is_none_or(|template| template.height < 2) {
            let Ok(message) = node.mail.recv_timeout(SOON) else { panic!("no change, no template") };
            node.open = message;
            node.open.push(Mail { answer: Answer::Stop, tickets: Vec::new() });
            node.wait(|answer| matches!(answer, Answer::Stop));
        }
        let work = node.work();
        let good = roll(&work, &script(1), true);
        node.submit(&work, good, 50);
        assert!(matches!(node.wait(|answer| matches!(answer, Answer::Fate { .. })), Answer::Fate { fate: Fate::Accepted, .. }));
        let mut rows = 0;
        let mut count = |_: &[u8], _: &[u8]| {
            rows += 1;
            true
        };
        node.kv.rows.scan(Family::Shares, &[], &mut count).unwrap();
        assert_eq!(rows, 0);
        // The disk comes back.
        drop(node.permits.take());
        let mut claims = Vec::new();
        while claims.len() < 2 {
            let Answer::Stored { claims: stored, .. } = node.wait(|answer| matches!(answer, Answer::Stored { .. })) else { continue };
            claims.extend(stored.into_iter().map(|claim| claim.conn));
        }
        assert_eq!(claims, [conn(1), conn(50)]);
        assert!(node.home.contains(&conn(1)) && node.home.contains(&conn(50)));
        node.crew.stop().unwrap();
    }

    #[test]
    fn a_panicking_stage_is_reported_and_the_rest_stops_in_order() {
        let mut node = Node::start();
        let work = node.work();
        node.permits.as_ref().unwrap().send(Err(())).unwrap();
        let good = roll(&work, &script(1), true);
        node.submit(&work, good, 1);
        let died = node.wait(|answer| matches!(answer, Answer::Died { .. }));
        assert!(matches!(died, Answer::Died { stage: "writer", why } if why == "panicked: the disk is on fire"));
        // The others are there still, and what is for the dead is dropped.
        let bad = roll(&work, &script(1), false);
        node.submit(&work, bad, 2);
        node.wait(|answer| matches!(answer, Answer::Verdict { claim, .. } if claim.conn == conn(2)));
        node.crew.stop().unwrap();
    }

    #[test]
    fn a_stop_finishes_what_was_given() {
        let mut node = Node::start();
        drop(node.permits.take());
        let work = node.work();
        let good = roll(&work, &script(1), true);
        node.submit(&work, good, 1);
        for n in 2..200 {
            let bad = Roll { extranonce: [n as u8; 12], ..roll(&work, &script(1), false) };
            node.submit(&work, bad, n);
        }
        node.crew.fetch.send(vec![FetchJob::PeerUp(conn(1))]).unwrap();
        let Node { crew, mail, kv, .. } = node;
        crew.stop().unwrap();
        let (mut home, mut told): (BTreeMap<ConnId, usize>, BTreeMap<ConnId, usize>) = Default::default();
        let (mut stored, mut credits) = (0, 0);
        for Mail { answer, tickets } in mail.try_iter().flatten() {
            tickets.iter().for_each(|ticket| *home.entry(ticket.conn()).or_default() += 1);
            let claims = match answer {
                Answer::Stored { claims, .. } => {
                    stored += claims.len();
                    claims
                }
                Answer::Verdict { claim, .. } => vec![claim],
                Answer::Organised { refused, .. } => refused.into_iter().map(|(claim, _)| claim).collect(),
                Answer::Requests(_) => {
                    credits += 1;
                    Vec::new()
                }
                _ => Vec::new(),
            };
            claims.iter().for_each(|claim| *told.entry(claim.conn).or_default() += 1);
        }
        assert!(stored > 1 && credits == 1);
        assert!(home.len() == 199 && home.values().all(|count| *count == 1));
        assert_eq!(home, told);
        assert_eq!(kv.rows.unsynced(), 0);
    }

    #[test]
    fn a_connection_always_has_the_same_worker() {
        let (sender, inboxes): (Vec<_>, Vec<_>) = (0..3).map(|_| bounded(10)).unzip();
        let mut node = Node::start();
        let work = node.work();
        let (crew, emission) = (&mut node.crew, sender);
        crew.emission = emission;
        let bad = roll(&work, &script(1), false);
        let job = |n: u32| {
            let Roll { extranonce, version, ntime, nonce } = bad;
            let (claim, ticket) = (claim(n), ticket(n));
            let (work, bits, target) = (work.clone(), work.draft.bits, [0xff; 32]);
            EmissionJob { claim, work, script: script(1), bits, extranonce, version, ntime, nonce, target, unpaid: None, ticket }
        };
        crew.give(&mut Jobs { emission: (0..30).chain(0..30).map(job).collect(), ..Jobs::default() });
        for (index, inbox) in inboxes.iter().enumerate() {
            // What a turn has for a stage is one message.
            let message = inbox.try_recv().unwrap();
            assert_eq!((message.len(), inbox.len()), (20, 0));
            assert!(message.iter().all(|job| job.claim.conn.slot as usize % 3 == index));
        }
    }

    #[test]
    fn what_has_no_ticket_is_held_back_while_the_organiser_is_busy() {
        let mut node = Node::start();
        let (organise, inbox) = bounded(ORGANISE_FREE_SLOTS + 1);
        node.crew.organise = organise;
        let free = |n: u32| match n % 2 {
            0 => OrganiseJob::PeerGone(conn(n)),
            _ => OrganiseJob::Bitcoin(BitcoinNews::Tips(Tips { active: [n as u8; 32], ..Tips::default() })),
        };
        let give = |crew: &mut Crew, jobs| crew.give(&mut Jobs { organise: jobs, ..Jobs::default() });
        (0..ORGANISE_FREE_SLOTS as u32 + 9).for_each(|n| give(&mut node.crew, vec![free(n)]));
        assert_eq!((inbox.len(), node.crew.organise_held.len()), (ORGANISE_FREE_SLOTS, 9));
        let share = OrganiseJob::Tip { share: regtest().genesis().clone(), ticket: ticket(1) };
        give(&mut node.crew, vec![share]);
        assert_eq!((inbox.len(), node.crew.organise_held.len()), (ORGANISE_FREE_SLOTS + 1, 0));
        assert_eq!(inbox.try_iter().last().map(|message| message.len()), Some(10));
    }

    #[test]
    fn a_full_channel_is_a_defect_that_is_reported_and_a_dead_receiver_is_none() {
        let mut node = Node::start();
        let (read, inbox) = bounded(1);
        node.crew.read = read;
        let read = |n| Jobs {
            read: vec![ReadJob { conn: conn(n), tag: 0, rows: Reads::Shares(Vec::new()), ticket: ticket(n) }],
            ..Jobs::default()
        };
        node.crew.give(&mut read(1));
        node.crew.give(&mut read(2));
        let died = node.wait(|answer| matches!(answer, Answer::Died { .. }));
        assert!(matches!(died, Answer::Died { stage: "reader", why } if why.contains("full")));
        drop(inbox);
        assert_eq!(give(&node.crew.read, read(3).read), Ok(()));
        assert_eq!(give(&node.crew.read, Vec::new()), Ok(()));
    }

    /// Puts out, in one step, one of each.
    struct Loud;

    impl Stage for Loud {
        type Job = ();

        fn step(&mut self, _now: Now, jobs: &mut Vec<()>, out: &mut Output) {
            jobs.clear();
            out.submit.push(SubmitJob { hash: crate::testing::id(1), height: 1, block: Arc::from([]), own: true });
            out.mail.push((Answer::DiskFull(true), Vec::new()));
            out.organise.push(OrganiseJob::PeerGone(conn(1)));
            out.write.push(WriteJob { tickets: vec![ticket(1)], ..WriteJob::default() });
        }
    }

    #[test]
    fn a_found_block_goes_first_then_the_mail_then_the_jobs() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let ((submit, submits), (organise, organises), (write, writes)) = (bounded(8), bounded(8), bounded(8));
        let seen = order.clone();
        let (watch_submits, watch_organises, watch_writes) = (submits.clone(), organises.clone(), writes.clone());
        let post: Post = Arc::new(move |mail| {
            seen.lock().unwrap().push((mail.len(), watch_submits.len(), watch_organises.len(), watch_writes.len()));
            true
        });
        let out = Outlets { submit: vec![submit], organise: Some(organise), write: Some(write), ..Outlets::new(&post) };
        let (jobs, inbox) = bounded(4);
        jobs.send(vec![()]).unwrap();
        drop(jobs);
        Driven::new("loud", Loud, inbox, out).run(Clock::start());
        assert_eq!(*order.lock().unwrap(), [(1, 1, 0, 0)]);
        assert_eq!((submits.len(), organises.len(), writes.len()), (1, 1, 1));
    }

    #[test]
    fn rows_without_a_ticket_wait_while_the_writer_is_busy() {
        let post: Post = Arc::new(|_| true);
        let (write, writes) = bounded(2);
        let mut outlets = Outlets { write: Some(write), ..Outlets::new(&post) };
        let mut send =
            |tickets| outlets.send(&mut Output { write: vec![WriteJob { tickets, ..WriteJob::default() }], ..Output::default() });
        for _ in 0..5 {
            assert_eq!(send(Vec::new()), Ok(()));
        }
        assert_eq!(writes.len(), 1);
        assert_eq!(send(vec![ticket(1)]), Ok(()));
        assert_eq!(writes.try_iter().map(|message: Vec<WriteJob>| message.len()).collect::<Vec<_>>(), [1, 5]);
    }

    #[test]
    fn a_block_too_many_for_a_bitcoind_is_told_of() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let seen = told.clone();
        let post: Post = Arc::new(move |mail: Vec<Mail<Answer>>| {
            seen.lock().unwrap().extend(mail);
            true
        });
        let (submit, _found) = bounded(SUBMIT_SLOTS);
        let mut outlets = Outlets { submit: vec![submit], ..Outlets::new(&post) };
        let job = |own| SubmitJob { hash: crate::testing::id(1), height: 1, block: Arc::from([]), own };
        let mut refused = |own, count: usize| {
            let submit = (0..count).map(|_| job(own)).collect();
            assert_eq!(outlets.send(&mut Output { submit, ..Output::default() }), Ok(()));
            let mail = std::mem::take(&mut *told.lock().unwrap());
            assert!(mail.iter().all(|mail| matches!(mail.answer, Answer::Fate { fate: Fate::Unreachable(_), .. })));
            mail.len()
        };
        assert_eq!(refused(false, SUBMIT_SLOTS), SUBMIT_SLOTS / 2, "peers' take no more than half of the places");
        assert_eq!(refused(true, SUBMIT_SLOTS / 2 + 1), 1);
    }
}
