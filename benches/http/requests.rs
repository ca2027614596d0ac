//! Requests for the status: how many a second, how long each takes, and what they do to a miner's submits.

use std::time::Duration;

use crate::Outcome;
use crate::bare;
use crate::figures::{goal, info};
use crate::load::{Load, Took};
use crate::node::Server;
use crate::probe::{EVERY, Probe};
use crate::process::settle;
use crate::report::{Asked, Figure, median};

/// Clients, each with one connection that stays.
const CLIENTS: usize = 100;
/// Requests of a round.
const REQUESTS: usize = 10_000;
/// Requests of the long round.
const MANY: usize = 200_000;
/// Requests a second of the paced rounds: what is asked of the node at the most elsewhere, and its goal.
const PACES: [f64; 2] = [5_000.0, 20_000.0];
/// Time of a round of submits alone, and of a paced one.
const ALONE: Duration = Duration::from_secs(2);
/// Goals: 20,000 a second, and the slowest of a hundred.
const US_PER_REQUEST: f64 = 50.0;
const P99_MS: f64 = 20.0;

/// What was seen in all rounds.
#[derive(Default)]
struct Seen {
    /// Microseconds a request: of the node, of the bare loop, of their ratio.
    node: Vec<f64>,
    bare: Vec<f64>,
    ratio: Vec<f64>,
    /// Microseconds of processor time of the reactor.
    cpu: Vec<f64>,
    each: Vec<Duration>,
    bare_each: Vec<Duration>,
    /// At each pace: requests, and the submits among them.
    paced: [(Vec<Duration>, Vec<Duration>); PACES.len()],
    /// Submits: alone, among as many requests as can be.
    alone: Vec<Duration>,
    at_most: Vec<Duration>,
}

/// All of it.
pub fn figures(asked: &Asked) -> Outcome<Vec<Figure>> {
    let rounds = if asked.quick { 2 } else { 7 };
    let server = Server::start()?;
    // First, since mining takes its time and idle clients are closed.
    let submits = rounds * 12 * (ALONE.as_millis() / EVERY.as_millis()) as usize;
    let mut probe = Probe::connect(server.stratum, submits.min(6_000))?;
    let (mut load, mut seen) = (Load::new()?, Seen::default());
    load.connect(server.http, CLIENTS)?;
    let body = load.ask(1_000, None, None)?.body;
    let (_bare, addr) = bare::start(body)?;
    let mut floor = Load::new()?;
    floor.connect(addr, CLIENTS)?;
    floor.ask(1_000, None, None)?;
    for _ in 0..rounds {
        seen.alone.extend(submitted(&mut load, &mut probe, |load, probe| load.listen(ALONE, Some(probe)))?);
        let took = load.ask(REQUESTS, None, None)?;
        let bare = floor.ask(REQUESTS, None, None)?;
        let [node, bare_us] = [&took, &bare].map(per_request);
        seen.node.push(node);
        seen.bare.push(bare_us);
        seen.ratio.push(node / bare_us);
        seen.each.extend(took.each);
        seen.bare_each.extend(bare.each);
        settle();
        let before = reactor(&server)?;
        seen.at_most.extend(submitted(&mut load, &mut probe, |load, probe| asked_for(load, 4 * REQUESTS, None, probe))?);
        seen.cpu.push((reactor(&server)? - before).as_secs_f64() * 1e6 / (4 * REQUESTS) as f64);
        for (pace, (requests, submits)) in PACES.into_iter().zip(&mut seen.paced) {
            let many = (pace * ALONE.as_secs_f64()) as usize;
            submits.extend(submitted(&mut load, &mut probe, |load, probe| {
                requests.extend(load.ask(many, Some(pace), Some(&mut *probe))?.each);
                load.listen(EVERY, Some(probe))
            })?);
        }
    }
    let many = load.ask(if asked.quick { MANY / 10 } else { MANY }, None, None)?;
    Ok(seen.told(body, many))
}

fn asked_for(load: &mut Load, requests: usize, rate: Option<f64>, probe: &mut Probe) -> Outcome<()> {
    load.ask(requests, rate, Some(&mut *probe))?;
    load.listen(EVERY, Some(probe))
}

/// What submits took while this ran.
fn submitted(load: &mut Load, probe: &mut Probe, run: impl FnOnce(&mut Load, &mut Probe) -> Outcome<()>) -> Outcome<Vec<Duration>> {
    load.with(probe, run)?;
    Ok(std::mem::take(&mut probe.took))
}

/// Time that the reactor has spent on a processor.
pub fn reactor(server: &Server) -> Outcome<Duration> {
    Ok(server.process.cpu()?.get("reactor").copied().unwrap_or_default())
}

fn per_request(took: &Took) -> f64 {
    took.all.as_secs_f64() * 1e6 / took.each.len() as f64
}

/// Of sorted times, the one that so many of a thousand are below, in milliseconds.
pub fn share_of(times: &mut [Duration], of_thousand: usize) -> f64 {
    times.sort();
    let at = (times.len() * of_thousand / 1_000).min(times.len().saturating_sub(1));
    times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

impl Seen {
    fn told(mut self, body: usize, mut many: Took) -> Vec<Figure> {
        let mut figures = vec![info("bytes of the status".into(), body as f64, "bytes")];
        figures.push(goal(format!("{CLIENTS} clients: time per request"), median(self.node), "us", US_PER_REQUEST));
        figures.push(info(format!("{CLIENTS} clients: time per request of the bare loop"), median(self.bare), "us"));
        figures.push(info(format!("{CLIENTS} clients: ratio to the bare loop of the same round"), median(self.ratio), "times"));
        figures.push(info(format!("{CLIENTS} clients: the reactor's CPU per request"), median(self.cpu), "us"));
        for (name, of) in [("p50", 500), ("p99", 990), ("p999", 999)] {
            let bound = |name: String, value| if of == 990 { goal(name, value, "ms", P99_MS) } else { info(name, value, "ms") };
            figures.push(bound(format!("{CLIENTS} clients: {name}"), share_of(&mut self.each, of)));
            figures.push(info(format!("{CLIENTS} clients: {name} of the bare loop"), share_of(&mut self.bare_each, of), "ms"));
            figures.push(bound(format!("{CLIENTS} clients, {} requests: {name}", many.each.len()), share_of(&mut many.each, of)));
            for (pace, (requests, _)) in PACES.into_iter().zip(&mut self.paced) {
                figures.push(bound(format!("{pace} requests a second: {name}"), share_of(requests, of)));
            }
        }
        let us = per_request(&many);
        figures.push(goal(format!("{CLIENTS} clients, {} requests: time per request", many.each.len()), us, "us", US_PER_REQUEST));
        for (name, of) in [("p50", 500), ("p99", 990)] {
            let paced =
                PACES.into_iter().zip(&mut self.paced).map(|(pace, (_, submits))| (format!("among {pace} requests a second"), submits));
            let most = format!("among as many requests as {CLIENTS} clients can ask");
            let rows = [("alone".to_owned(), &mut self.alone), (most, &mut self.at_most)];
            for (among, times) in rows.into_iter().chain(paced) {
                figures.push(info(format!("submit to true, {among}: {name}"), share_of(times, of), "ms"));
            }
        }
        figures
    }
}
