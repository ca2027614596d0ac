//! The whole chain through the organiser over RocksDB, as a sync brings it, without the sockets.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use rockpool::limits::SYNC_SHARES;
use rockpool_net::hub::tickets::Ticket;
use rockpool_net::id::{ConnId, Lane};
use rockpool_net::time::Now;
use rockpool_net::wire::share::Share;
use rockpool_store::chain::Chain;
use rockpool_store::kv::Kv;
use rockpool_store::rocks::RocksKv;
use rockpool_store::schema;
use rockpool_workers::jobs::{Answer, OrganiseJob, Output, Stage, WriteJob};
use rockpool_workers::organise::OrganiseWorker;
use tempfile::TempDir;

use crate::figures::{Times, clock, goal, info, thread_cpu};
use crate::made::{LATE, Made};
use crate::report::Figure;
use crate::{Bench, Outcome};

/// Who syncs with us.
pub const PEER: ConnId = ConnId { slot: 1, generation: 1 };
/// Bitcoin headers in one message.
const HEADERS: usize = 720;
/// Writes that wait for the disk.
const WRITES: usize = 64;

/// The chain in a data directory.
pub struct Fed {
    /// The node's data directory.
    pub dir: TempDir,
    /// Time until all was tied, and until all was confirmed.
    tied: Duration,
    confirmed: Duration,
    /// What the organiser took of a processor until all was tied; in all; the writer.
    tied_cpu: Duration,
    organiser: Duration,
    writer: Duration,
    longest_ms: f64,
}

/// What is fed to an organiser, a message at a time: its next one when the last is done.
pub struct Sync {
    jobs: VecDeque<OrganiseJob>,
}

impl Sync {
    /// Bitcoin's headers, then these shares.
    pub fn new(made: &Made, shares: &[Share]) -> Sync {
        let ticket = || Ticket::for_test(Lane::Peer, PEER);
        let blocks = made.headers.chunks(HEADERS);
        let mut jobs: VecDeque<_> =
            blocks.map(|headers| OrganiseJob::Blocks { headers: headers.to_vec(), own: false, ticket: ticket() }).collect();
        let bulk = |shares: &[Share]| OrganiseJob::Bulk { sync: PEER, shares: shares.to_vec(), base: false, ticket: ticket() };
        jobs.extend(shares.chunks(SYNC_SHARES).map(bulk));
        Sync { jobs }
    }

    /// What to give the organiser now, after what it said last.
    pub fn next(&mut self, out: &Output) -> Vec<OrganiseJob> {
        let done = |answer: &Answer| matches!(answer, Answer::Organised { .. });
        let home = out.mail.iter().filter(|(answer, _)| done(answer)).map(|(_, tickets)| tickets.len()).sum::<usize>();
        let written = out.write.iter().map(|write| write.tickets.len()).sum::<usize>();
        self.jobs.drain(..(home + written).min(self.jobs.len())).collect()
    }

    /// The first messages: two, so that one always waits.
    pub fn first(&mut self) -> Vec<OrganiseJob> {
        self.jobs.drain(..2.min(self.jobs.len())).collect()
    }
}

impl Fed {
    /// Feeds all of it.
    pub fn new(made: &Made) -> Outcome<Fed> {
        let dir = tempfile::tempdir()?;
        let kv = RocksKv::open(&dir.path().join("chain"))?;
        schema::open(&kv, made.params, "bench")?;
        let chain = Chain::open(made.params, [1, 2], &kv)?;
        let mut worker = OrganiseWorker::new(made.params, chain);
        let (send, receive) = sync_channel(WRITES);
        let mut sync = Sync::new(made, &made.shares);
        let mut fed = Fed {
            dir,
            tied: Duration::ZERO,
            confirmed: Duration::ZERO,
            tied_cpu: Duration::ZERO,
            organiser: Duration::ZERO,
            writer: Duration::ZERO,
            longest_ms: 0.0,
        };
        let mut steps = Times::default();
        fed.writer = std::thread::scope(|scope| -> Outcome<Duration> {
            let rows = &kv;
            let writer =
                std::thread::Builder::new().spawn_scoped(scope, move || write(rows, &receive).map_err(|error| error.to_string()))?;
            let (begin, cpu) = (clock(), thread_cpu()?);
            let mut jobs = sync.first();
            while fed.confirmed.is_zero() {
                let now = Now { mono: begin.elapsed(), wall: LATE.wall };
                let mut out = Output::default();
                steps.of(|| worker.step(now, &mut jobs, &mut out));
                jobs = sync.next(&out);
                if !out.write.is_empty() {
                    send.send(std::mem::take(&mut out.write))?;
                }
                let chain = worker.chain();
                if fed.tied.is_zero() && chain.tip().height == made.heights {
                    (fed.tied, fed.tied_cpu) = (begin.elapsed(), thread_cpu()? - cpu);
                }
                if chain.confirmed_height() == made.heights {
                    fed.confirmed = begin.elapsed();
                } else if jobs.is_empty() && worker.due().is_none() {
                    return Err(format!("the organiser stands still at height {}", chain.tip().height).into());
                }
            }
            // The last change is told a moment later.
            let (mut out, later) = (Output::default(), Now { mono: begin.elapsed() + Duration::from_secs(1), wall: LATE.wall });
            worker.step(later, &mut Vec::new(), &mut out);
            send.send(out.write)?;
            fed.organiser = thread_cpu()? - cpu;
            drop(send);
            Ok(writer.join().map_err(|_| "the writer panicked")??)
        })?;
        fed.longest_ms = steps.us(1.0) / 1e3;
        Ok(fed)
    }
}

/// The writer: each batch as it comes. Returns what it took of a processor.
fn write(kv: &RocksKv, receive: &Receiver<Vec<WriteJob>>) -> Outcome<Duration> {
    let before = thread_cpu()?;
    while let Ok(jobs) = receive.recv() {
        for job in jobs {
            kv.write(&job.ops, job.sync)?;
        }
    }
    Ok(thread_cpu()? - before)
}

/// Rows of a sync that is nothing but the organiser.
pub fn figures(bench: &Bench) -> Outcome<Vec<Figure>> {
    let (made, fed) = (&bench.made, bench.fed()?);
    let shares = made.shares.len() as f64;
    let part = f64::from(made.heights) / f64::from(crate::made::HEIGHTS);
    Ok(vec![
        goal("sync in one process: all tied", fed.tied.as_secs_f64(), "s", 5.0 * part),
        goal("sync in one process: all confirmed", fed.confirmed.as_secs_f64(), "s", 60.0 * part),
        info("sync in one process: organiser's CPU until all is tied", fed.tied_cpu.as_secs_f64(), "s"),
        info("sync in one process: organiser's CPU until all is confirmed", fed.organiser.as_secs_f64(), "s"),
        info("sync in one process: organiser's CPU per share", fed.organiser.as_secs_f64() * 1e6 / shares, "us"),
        info("sync in one process: writer's CPU per share", fed.writer.as_secs_f64() * 1e6 / shares, "us"),
        info("sync in one process: organiser's longest step", fed.longest_ms, "ms"),
    ])
}
