//! What a submit costs the server: in batches of one miner, and one by one of many.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rockpool::limits::INVALID_SUBMITS_MAX;
use rockpool_net::wire::share::{Class, Layout};

use crate::Outcome;
use crate::bare::{self, Bare};
use crate::figures::{clock, goal, info};
use crate::miner::{Miner, mine, named};
use crate::node::Server;
use crate::process::{Process, settle};
use crate::report::{Asked, Figure};

/// Submits in one write.
const BATCH: usize = 50;
/// Miners that submit one by one.
const MINERS: usize = 100;
/// Bytes of a submit's line, about.
const SUBMIT_BYTES: usize = 150;
/// Goals, microseconds of processor time.
const BATCHED_US: f64 = 5.0;
const SINGLE_US: f64 = 8.0;

/// The forms that are measured.
fn forms(asked: &Asked) -> Vec<(Class, Layout)> {
    let classes = Class::ALL.into_iter().filter(|class| !asked.quick || matches!(class, Class::N12 | Class::N360));
    classes.flat_map(|class| [(class, Layout::Tail), (class, Layout::Front)]).collect()
}

/// The goal holds for layout tail.
fn by_goal(name: String, value: f64, layout: Layout, us: f64) -> Figure {
    if layout == Layout::Tail { goal(name, value, "us", us) } else { info(name, value, "us") }
}

/// What the server took, and how long it lasted.
struct Took {
    cpu: BTreeMap<String, Duration>,
    time: Duration,
    submits: usize,
}

impl Took {
    /// Measures `load`, which makes so many submits and tells how many were as expected.
    fn of(server: &Process, submits: usize, load: impl FnOnce() -> Outcome<usize>) -> Outcome<Took> {
        settle();
        let before = server.cpu()?;
        let begin = clock();
        let good = load()?;
        let time = begin.elapsed();
        settle();
        if good != submits {
            return Err(format!("{good} of {submits} submits were answered as they should be").into());
        }
        let mut cpu = server.cpu()?;
        cpu.iter_mut().for_each(|(name, time)| *time -= before.get(name).copied().unwrap_or_default());
        Ok(Took { cpu, time, submits })
    }

    /// Microseconds a submit, of all threads.
    fn us(&self) -> f64 {
        self.cpu.values().sum::<Duration>().as_secs_f64() * 1e6 / self.submits as f64
    }

    /// Submits a second.
    fn rate(&self) -> f64 {
        self.submits as f64 / self.time.as_secs_f64()
    }

    /// By thread, to standard error.
    fn tell(&self, what: &str) {
        let of = |time: &Duration| time.as_secs_f64() * 1e6 / self.submits as f64;
        let parts = self.cpu.iter().filter(|(_, time)| of(time) >= 0.05).map(|(name, time)| format!("{name} {:.2}", of(time)));
        eprintln!("{what}: us of {}", parts.collect::<Vec<_>>().join(", "));
    }
}

/// One miner, 50 submits to a write.
pub fn batches(asked: &Asked) -> Outcome<Vec<Figure>> {
    let (warm, count) = if asked.quick { (200, 400) } else { (500, 2_500) };
    let server = Server::start()?;
    let mut figures = Vec::new();
    for (class, layout) in forms(asked) {
        let mut miner = Miner::connect(server.addr, class, layout, 0)?;
        let form = named(class, layout);
        let mined = mine(&[&miner.job], (warm + count) as u64)?.remove(0);
        // Vardiff finds its place meanwhile.
        send(&mut miner, &mined[..warm])?;
        let took = Took::of(&server.process, count, || send(&mut miner, &mined[warm..]))?;
        took.tell(&format!("batched, {form}"));
        figures.push(by_goal(format!("CPU per accepted submit, 50 per write: {form}"), took.us(), layout, BATCHED_US));
        figures.push(info(format!("submits per second, 50 per write: {form}"), took.rate(), "1/s"));
        // More of these were a flood, which ends the connection.
        let count = count.min(INVALID_SUBMITS_MAX as usize - 1);
        let idle: Vec<String> = (0..count as u64).map(|number| miner.job.submit(1 << 32 | number, 7)).collect();
        let took = Took::of(&server.process, 0, || send(&mut miner, &idle))?;
        let took = Took { submits: count, ..took };
        took.tell(&format!("batched, refused, {form}"));
        figures.push(info(format!("CPU per refused submit (low difficulty), 50 per write: {form}"), took.us(), "us"));
    }
    Ok(figures)
}

/// Sends submits in batches, each when the last is answered. How many were accepted.
fn send(miner: &mut Miner, submits: &[String]) -> Outcome<usize> {
    let mut accepted = 0;
    for batch in submits.chunks(BATCH) {
        miner.stream.write_all(batch.concat().as_bytes())?;
        accepted += miner.answers(batch.len())?;
    }
    Ok(accepted)
}

/// A hundred miners, a submit to a write, the next one when the last is answered.
pub fn one_by_one(asked: &Asked) -> Outcome<Vec<Figure>> {
    let (warm, count) = if asked.quick { (1, 4) } else { (5, 25) };
    let server = Server::start()?;
    let mut figures = Vec::new();
    for (class, layout) in forms(asked) {
        let miners = (0..MINERS).map(|number| Miner::connect(server.addr, class, layout, number)).collect::<Outcome<Vec<_>>>();
        let (mut miners, form) = (miners?, named(class, layout));
        let mined = mine(&miners.iter().map(|miner| &miner.job).collect::<Vec<_>>(), (warm + count) as u64)?;
        rounds(&mut miners, &mined, 0..warm)?;
        let took = Took::of(&server.process, MINERS * count, || rounds(&mut miners, &mined, warm..warm + count))?;
        took.tell(&format!("one by one, {form}"));
        figures.push(by_goal(format!("CPU per accepted submit, one by one, 100 miners: {form}"), took.us(), layout, SINGLE_US));
        figures.push(info(format!("submits per second, one by one, 100 miners: {form}"), took.rate(), "1/s"));
    }
    figures.push(info("CPU of a bare loop per read and write of the same bytes, 100 miners".to_owned(), floor(MINERS * count)?, "us"));
    Ok(figures)
}

/// What a loop takes that hears as many submits of the same length in the same way, and answers each with a line, at once and unread.
fn floor(submits: usize) -> Outcome<f64> {
    let bare = Bare::start(bare::ECHO_ROLE, MINERS)?;
    let line = format!("{:width$}\n", "", width = SUBMIT_BYTES - 1);
    let mut streams = (0..MINERS).map(|_| TcpStream::connect(bare.addr)).collect::<Result<Vec<_>, _>>()?;
    streams.iter().try_for_each(|stream| stream.set_nodelay(true))?;
    let mut answer = vec![0; bare::ANSWER.len()];
    let took = Took::of(&bare.process, submits, || {
        for round in 0..=submits / MINERS {
            for stream in &mut streams {
                if round > 0 {
                    stream.read_exact(&mut answer)?;
                }
                if round < submits / MINERS {
                    stream.write_all(line.as_bytes())?;
                }
            }
        }
        Ok(submits)
    })?;
    Ok(took.us())
}

/// Each miner's submits of these numbers, all miners in turn. How many were accepted.
fn rounds(miners: &mut [Miner], mined: &[Vec<String>], numbers: std::ops::Range<usize>) -> Outcome<usize> {
    let mut accepted = 0;
    for (at, number) in numbers.enumerate() {
        for (miner, mined) in miners.iter_mut().zip(mined) {
            if at > 0 {
                accepted += miner.answers(1)?;
            }
            miner.stream.write_all(mined[number].as_bytes())?;
        }
    }
    for miner in miners {
        accepted += miner.answers(1)?;
    }
    Ok(accepted)
}
