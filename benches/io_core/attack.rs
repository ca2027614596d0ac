//! A whole node under attack, over real sockets on loopback. Honest peers hand each other new shares through it; what they see with hostile
//! peers beside them is set against what they see without, in the same round.
//!
//! The node, the hostile peers and the honest ones are three processes: the bench starts itself twice more. Where there are two processors
//! the node has one to itself, its stages' threads included, and all peers share the other; the hostile ones yield to the honest ones there,
//! and each sends no more than 8 KiB in 5 ms, so that honest clocks can still be read: no line rate, but more than the node can take of most
//! kinds. One hostile peer alone sends what its socket takes.
//!
//! Beside the rows, each run tells on standard error what it saw. To find a culprit: `ATTACK_ONLY` names the scenarios to run, with semicolons
//! between them; `ATTACK_KIND` makes all hostile peers one kind (see `hostile::Kind`); `ATTACK_COUNTERS` prints the node's counters.

mod crowd;
mod hostile;
mod node;
mod shares;
mod talk;

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use crate::report::{Asked, Figure, median};

use self::crowd::{Crowd, Seen};
use self::hostile::{Did, Hostile};
use self::node::{Node, pin};
use self::shares::Shares;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Peers that the attacked node takes.
const PEERS_MAX: usize = 1_500;
/// Shares that are there before anyone measures: something to ask for, and to replay.
const OLD_SHARES: usize = 400;
/// Shares at the beginning of a run that are sent but not measured.
const WARM_UP: usize = 5;
/// Time between two shares: two hundred times what the network aims at.
const EVERY: Duration = Duration::from_millis(50);
/// Time that hostile peers have to be at their work.
const RAMP: Duration = Duration::from_millis(1_500);

/// One way to run.
#[derive(Clone, Copy)]
struct Scenario {
    name: &'static str,
    honest: usize,
    /// How many hostile peers, of which kind.
    hostile: Option<(usize, &'static str)>,
    /// The scenario of the same round that it is measured by.
    against: Option<&'static str>,
}

const SCENARIOS: [Scenario; 7] = [
    Scenario { name: "700 honest", honest: 700, hostile: None, against: None },
    Scenario { name: "700 + 300 hostile, 1.6 MB/s each", honest: 700, hostile: Some((300, "all")), against: Some("700 honest") },
    Scenario { name: "1000 honest", honest: 1_000, hostile: None, against: None },
    Scenario { name: "100 honest", honest: 100, hostile: None, against: None },
    Scenario { name: "100 + 1 pinger at line rate", honest: 100, hostile: Some((1, "Pings")), against: Some("100 honest") },
    Scenario { name: "100 + 1 deaf pinger at line rate", honest: 100, hostile: Some((1, "DeafPings")), against: Some("100 honest") },
    Scenario { name: "100 + 1 junk sender at line rate", honest: 100, hostile: Some((1, "Junk")), against: Some("100 honest") },
];

/// What one run showed.
struct Ran {
    seen: Seen,
    did: Option<Did>,
    longest_ms: f64,
    p999_ms: f64,
    /// How long the HTTP port took for an answer at the end, milliseconds.
    http_ms: f64,
    /// The reactor's percent of a processor.
    reactor: f64,
    /// What it was kept waiting for it by others, its own stages among them: a part of every latency, and none of its doing.
    waited: f64,
    /// Bytes that the node grew by at most while it ran, as a part of what it says it may.
    memory: f64,
    grown_mb: f64,
}

/// Whether this process was started to play a part in a bench, and has played it.
pub fn played() -> bool {
    let args: Vec<String> = std::env::args().collect();
    let outcome = match args.get(1).map(String::as_str) {
        Some(node::ROLE) => node::play(),
        Some(hostile::ROLE) => hostile::play(&args[2..]),
        _ => return false,
    };
    if let Err(error) = outcome {
        eprintln!("{}: {error}", args[1]);
    }
    true
}

/// All rows.
pub fn figures(asked: &Asked) -> Vec<Figure> {
    let (rounds, count) = if asked.quick { (1, 40) } else { (3, 200) };
    let mut ran: BTreeMap<&str, Vec<Ran>> = BTreeMap::new();
    let outcome = std::thread::scope(|scope| {
        // A thread of its own, so that the caller keeps its processors.
        let measuring = scope.spawn(|| {
            pin(1);
            let run = |ran: &mut BTreeMap<_, Vec<_>>| -> Result<(), String> {
                let shares = Shares::new(OLD_SHARES + count + WARM_UP).map_err(|error| error.to_string())?;
                for round in 0..rounds {
                    for scenario in SCENARIOS.iter().filter(|scenario| wanted(scenario, asked)) {
                        let one = run(scenario, &shares, count, round).map_err(|error| format!("{}: {error}", scenario.name))?;
                        ran.entry(scenario.name).or_default().push(one);
                    }
                }
                Ok(())
            };
            run(&mut ran)
        });
        measuring.join()
    });
    if let Ok(Err(why)) = outcome {
        eprintln!("the attack was not measured to its end: {why}");
    }
    SCENARIOS.iter().filter_map(|scenario| Some(rows(scenario, ran.get(scenario.name)?, &ran))).flatten().collect()
}

/// A short run leaves out what is no part of a ratio.
fn wanted(scenario: &Scenario, asked: &Asked) -> bool {
    let only = std::env::var("ATTACK_ONLY").ok();
    only.is_none_or(|only| only.split(';').any(|name| name == scenario.name)) && !(asked.quick && scenario.name == "1000 honest")
}

fn run(scenario: &Scenario, shares: &Shares, count: usize, round: u64) -> Outcome<Ran> {
    let node = Node::start()?;
    let (_, fresh) = node.memory()?;
    let mut crowd = Crowd::new(node.p2p, shares)?;
    crowd.join(1)?;
    crowd.fill(OLD_SHARES)?;
    while node.height()? < OLD_SHARES as u64 {
        crowd.rest(Duration::from_millis(5))?;
    }
    crowd.join(scenario.honest - 1)?;
    let kind = std::env::var("ATTACK_KIND").ok();
    let start = |(count, all): (usize, &str)| Hostile::start(node.p2p, round, count, kind.as_deref().unwrap_or(all));
    let hostile = scenario.hostile.map(start).transpose()?;
    crowd.rest(if hostile.is_some() { RAMP } else { RAMP / 5 })?;
    let (before, cpu) = (node.turns()?, node.cpu()?);
    let seen = crowd.measure(count + WARM_UP, WARM_UP, EVERY)?;
    let (after, cpu_after) = (node.turns()?, node.cpu()?);
    let (peak, _) = node.memory()?;
    let did = hostile.map(Hostile::stop).transpose()?;
    let (longest_ms, p999_ms) = after.since(&before);
    let (turns, seconds) = after.count(&before);
    let part = |at: usize| {
        let percent = |(name, used): (&String, &[f64; 2])| {
            let before = cpu.get(name).map_or(0.0, |before| before[at]);
            (name.clone(), 100.0 * (used[at] - before) / seconds)
        };
        cpu_after.iter().map(percent).filter(|(_, percent)| *percent >= 0.5).collect::<BTreeMap<String, f64>>()
    };
    let (ran, waited) = (part(0), part(1));
    let grown = peak - fresh;
    let Seen { p50, p99, late, lost, cut, asked } = seen;
    eprintln!("{}: p50 {p50:.2} p99 {p99:.2} ms, {lost} lost, {cut} cut, {asked} asked for, sent at most {late:.1} ms late", scenario.name);
    eprintln!("  {turns} turns in {seconds:.1} s, longest {longest_ms:.1} ms {}, p99.9 {p999_ms:.1} ms", after.slowest(&before));
    eprintln!("  % of a core: {ran:.0?}, kept waiting for it {waited:.0?}; grew {:.1} MB; {did:.0?}", grown / 1e6);
    if std::env::var_os("ATTACK_COUNTERS").is_some() {
        eprintln!("{:#?}", node.counters()?);
    }
    let of_reactor = |percent: &BTreeMap<String, f64>| percent.get("reactor").copied().unwrap_or(0.0);
    let (reactor, waited) = (of_reactor(&ran), of_reactor(&waited));
    let http_ms = after.answered.as_secs_f64() * 1_000.0;
    Ok(Ran { seen, did, longest_ms, p999_ms, http_ms, reactor, waited, memory: grown / node.worst_case_bytes, grown_mb: grown / 1e6 })
}

fn rows(scenario: &Scenario, ran: &[Ran], all: &BTreeMap<&str, Vec<Ran>>) -> Vec<Figure> {
    let of = |value: &dyn Fn(&Ran) -> f64| median(ran.iter().map(value).collect());
    let most = |value: &dyn Fn(&Ran) -> f64| ran.iter().map(value).fold(0.0, f64::max);
    let figure = |what: &str, value: f64, unit: &'static str, goal: Option<f64>| Figure {
        name: format!("{}: {what}", scenario.name),
        value,
        unit,
        goal,
    };
    let mut rows = vec![
        figure("latency p50", of(&|ran| ran.seen.p50), "ms", None),
        figure("latency p99", of(&|ran| ran.seen.p99), "ms", None),
        figure("shares lost", most(&|ran| ran.seen.lost as f64), "arrivals", Some(0.0)),
        figure("latest own send", most(&|ran| ran.seen.late), "ms", None),
        figure("reactor", of(&|ran| ran.reactor), "% core", None),
        figure("reactor kept waiting", of(&|ran| ran.waited), "% time", None),
    ];
    let Some(quiet) = scenario.against.and_then(|name| all.get(name)) else { return rows };
    let ratio = median(ran.iter().zip(quiet).map(|(ran, quiet)| ran.seen.p99 / quiet.seen.p99).collect());
    rows.push(figure("p99 / without them", ratio, "x", Some(2.0)));
    let more = median(ran.iter().zip(quiet).map(|(ran, quiet)| ran.reactor - quiet.reactor).collect());
    rows.push(figure("reactor beyond quiet", more, "% core", None));
    rows.push(figure("honest peers cut", most(&|ran| ran.seen.cut as f64), "peers", Some(0.0)));
    rows.push(figure("longest turn", most(&|ran| ran.longest_ms), "ms", None));
    rows.push(figure("turn p99.9", of(&|ran| ran.p999_ms), "ms", Some(10.0)));
    rows.push(figure("HTTP answer", of(&|ran| ran.http_ms), "ms", None));
    let did = |value: &dyn Fn(&Did) -> f64| of(&|ran| ran.did.as_ref().map_or(0.0, value));
    rows.push(figure("hostile turns", did(&|did| did.turns_per_s), "1/s", None));
    rows.push(figure("hostile bytes", did(&|did| did.mb_per_s), "MB/s", None));
    rows.push(figure("hostile connects", did(&|did| did.dials_per_s), "1/s", None));
    rows.push(figure("hostile cut", did(&|did| did.cuts_per_s), "1/s", None));
    rows.push(figure("memory grown", most(&|ran| ran.grown_mb), "MB", None));
    rows.push(figure("memory / worst_case_bytes", most(&|ran| ran.memory), "x", Some(1.0)));
    rows
}

/// The time.
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn now() -> Instant {
    Instant::now()
}
