//! Own miners' shares while a sync keeps the organiser busy: how long each waits for its answer.

use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_net::hub::tickets::Ticket;
use rockpool_net::id::{ConnId, Lane};
use rockpool_net::time::Now;
use rockpool_store::chain::Chain;
use rockpool_store::kv::MemKv;
use rockpool_store::testing::ShareBuilder;
use rockpool_workers::jobs::{Answer, Claim, OrganiseJob, Output, Stage};
use rockpool_workers::organise::OrganiseWorker;

use crate::fed::Sync;
use crate::figures::{Times, clock, goal, info};
use crate::made::LATE;
use crate::report::Figure;
use crate::{Bench, Outcome};

/// Own shares of a run, about: fewer than are kept beside the chain, where all of them end.
const OWN: u32 = 1_000;
/// When a sync is left to itself.
const GIVEN_UP: Duration = Duration::from_secs(60);
const MINER: ConnId = ConnId { slot: 2, generation: 1 };

/// A sync of the whole chain, in the organiser alone. Own shares come at random moments of its steps: such a share waits for the rest of
/// that step, is taken first in the next one, and is told of at that one's end.
pub fn figures(bench: &Bench) -> Outcome<Vec<Figure>> {
    let made = &bench.made;
    let mut worker = OrganiseWorker::new(made.params, Chain::open(made.params, [1, 2], &MemKv::new())?);
    let (mut sync, mut rng, begin) = (Sync::new(made, &made.shares), ChaCha12Rng::seed_from_u64(8), clock());
    let (mut waited, mut steps, mut asleep) = (Times::default(), Times::default(), Duration::ZERO);
    let (mut jobs, mut wait, mut next, mut taken) = (sync.first(), None::<Duration>, 3, 0);
    while worker.chain().confirmed_height() < made.heights {
        if wait.is_some() {
            // The job was made of the chain of a moment ago. Making the share is not the organiser's time.
            let paused = clock();
            let chain = worker.chain();
            let share = ShareBuilder::new(made.params).miner(9).salt(rng.next_u32()).time(chain.confirmed_tip().time + 2);
            let share = std::sync::Arc::new(share.build(chain, &chain.confirmed_tip().id));
            let request = "1".into();
            let claim = Claim { conn: MINER, request, difficulty: 1.0, credited: false, worker: 0, achieved: 0.0, share: false };
            jobs.push(OrganiseJob::Own { share, claim, ticket: Ticket::for_test(Lane::Stratum, MINER) });
            asleep += paused.elapsed();
        }
        let now = Now { mono: begin.elapsed() - asleep, wall: LATE.wall };
        let (mut out, started) = (Output::default(), clock());
        worker.step(now, &mut jobs, &mut out);
        let took = started.elapsed();
        steps.push(took);
        if let Some(before) = wait.take() {
            let told = out.mail.iter().any(|(answer, _)| matches!(answer, Answer::Organised { change: Some(_), .. }));
            let stored = out.write.iter().any(|write| write.sync && write.claims.len() == 1);
            if !(told && stored) {
                return Err(refused(&out).into());
            }
            waited.push(before + took);
            taken += 1;
        }
        next -= 1;
        if next == 0 && worker.chain().confirmed_height() > 0 {
            // At a random moment of the step that has just ended.
            wait = Some(took.mul_f64(f64::from(rng.next_u32()) / f64::from(u32::MAX)));
        }
        if next == 0 {
            // A step rebuilds eight coinbases.
            next = 1 + rng.next_u32() % (made.heights / (8 * OWN) * 2).max(2);
        }
        jobs = sync.next(&out);
        if worker.chain().tip().height >= made.heights && worker.chain().backlog() == 0 {
            break;
        }
    }
    eprintln!("own share in a sync: {taken} of them, the chain is at height {}", worker.chain().tip().height);
    let (longest, took) = overtaken(bench)?;
    Ok(vec![
        info("own share in a sync, p50", waited.us(0.5) / 1e3, "ms"),
        info("own share in a sync, p99", waited.us(0.99) / 1e3, "ms"),
        goal("own share in a sync, the longest", waited.us(1.0) / 1e3, "ms", 20.0),
        info("own share in a sync: the organiser's step, p99", steps.us(0.99) / 1e3, "ms"),
        goal("sync that overtakes a chain half as long: the organiser's longest step", longest / 1e3, "ms", 20.0),
        info("sync that overtakes a chain half as long: time until confirmed", took, "s"),
    ])
}

/// The longest step of a sync whose chain becomes better than ours, which is half as long, and takes its place at once: microseconds. And the
/// seconds that this sync took in all, or [`GIVEN_UP`].
fn overtaken(bench: &Bench) -> Outcome<(f64, f64)> {
    let made = &bench.made;
    let ours = made.another(made.heights / 2, 11)?;
    let mut worker = OrganiseWorker::new(made.params, Chain::open(made.params, [1, 2], &MemKv::new())?);
    let (begin, mut of_last) = (clock(), (0.0, 0.0));
    for shares in [&ours, &made.shares] {
        let (mut sync, mut steps) = (Sync::new(made, shares), Times::default());
        let (mut jobs, height, since) = (sync.first(), shares.last().map_or(0, |share| share.height), clock());
        while worker.chain().confirmed_height() < height && since.elapsed() < GIVEN_UP {
            let mut out = Output::default();
            let now = Now { mono: begin.elapsed(), wall: LATE.wall };
            steps.of(|| worker.step(now, &mut jobs, &mut out));
            jobs = sync.next(&out);
            if jobs.is_empty() && worker.due().is_none() {
                return Err(format!("the organiser stands still at height {}", worker.chain().tip().height).into());
            }
        }
        of_last = (steps.us(1.0), since.elapsed().as_secs_f64());
    }
    Ok(of_last)
}

/// Why an own share was not taken.
fn refused(out: &Output) -> String {
    let refused = out.mail.iter().find_map(|(answer, _)| match answer {
        Answer::Organised { refused, .. } => refused.first().map(|(_, why)| format!("{why:?}")),
        _ => None,
    });
    format!("an own share was not taken: {}", refused.unwrap_or_default())
}
