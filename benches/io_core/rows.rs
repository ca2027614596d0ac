//! What is measured: each row gives a value per contender and round; all contenders of a round run one after the other.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use crate::client::{Batches, Client};
use crate::contenders::{self, BLIND, FLOOR, OURS};
use crate::process::Server;
use crate::report::{Asked, Figure, median};

/// How long, and how often.
pub struct Effort {
    pub rounds: usize,
    pub warmup: Duration,
    pub time: Duration,
}

impl Effort {
    pub fn of(asked: &Asked) -> Effort {
        let ms = Duration::from_millis;
        if asked.quick { Effort { rounds: 3, warmup: ms(20), time: ms(100) } } else { Effort { rounds: 5, warmup: ms(100), time: ms(500) } }
    }
}

/// Values by contender, one of each round, the same round at the same place.
#[derive(Default)]
pub struct Rounds(BTreeMap<&'static str, Vec<f64>>);

impl Rounds {
    pub fn push(&mut self, contender: &'static str, value: f64) {
        self.0.entry(contender).or_default().push(value);
    }

    pub fn median(&self, contender: &str) -> Option<f64> {
        self.0.get(contender).map(|values| median(values.clone()))
    }

    /// The median of the ratios of each round.
    pub fn ratio(&self, contender: &str, to: &str) -> Option<f64> {
        let ratios = self.0.get(contender)?.iter().zip(self.0.get(to)?).map(|(value, to)| value / to);
        Some(median(ratios.collect()))
    }
}

/// ping→pong: `batch` per write, `peers` peers with one batch in flight each.
pub struct PingPong {
    pub peers: usize,
    pub batch: usize,
    /// Goals for the house: microseconds, ratio to the floor.
    pub goals: (Option<f64>, Option<f64>),
    /// Whether it is to be ahead of tokio and threads.
    pub ahead: bool,
}

/// The table of rows.
pub const PING_PONG: [PingPong; 7] = [
    PingPong { peers: 50, batch: 100, goals: (Some(0.5), None), ahead: true },
    PingPong { peers: 1, batch: 100, goals: (None, None), ahead: true },
    PingPong { peers: 100, batch: 100, goals: (None, None), ahead: true },
    PingPong { peers: 1_000, batch: 100, goals: (None, None), ahead: true },
    PingPong { peers: 1, batch: 1, goals: (None, None), ahead: true },
    PingPong { peers: 100, batch: 1, goals: (None, Some(1.25)), ahead: true },
    PingPong { peers: 1_000, batch: 1, goals: (None, None), ahead: true },
];

impl PingPong {
    pub fn name(&self) -> String {
        format!("ping x{}, {} peers", self.batch, self.peers)
    }

    pub fn figures(&self, effort: &Effort) -> io::Result<Vec<Figure>> {
        let (mut cpu, mut rate) = (Rounds::default(), Rounds::default());
        let batches = Batches::new(self.batch);
        for _ in 0..effort.rounds {
            for contender in contenders::all() {
                let server = Server::start(contender, self.peers)?;
                let mut client = Client::connect(server.addr, self.peers, contender == BLIND)?;
                client.closed_loop(&batches, effort.warmup)?;
                let before = server.cpu_ns()?;
                let (answers, time) = client.closed_loop(&batches, effort.time)?;
                cpu.push(contender, (server.cpu_ns()? - before) as f64 / 1e3 / answers as f64);
                rate.push(contender, answers as f64 / time.as_secs_f64());
            }
        }
        let name = self.name();
        let mut figures = Vec::new();
        for contender in contenders::all() {
            let goal = self.goals.0.filter(|_| contender == OURS);
            figures.extend(cpu.median(contender).map(|value| figure(&name, contender, value, "us/message", goal)));
            figures.extend(rate.median(contender).map(|value| figure(&name, &format!("{contender}, rate"), value, "messages/s", None)));
        }
        figures.extend(ratios(&name, &cpu, self.goals.1, self.ahead));
        Ok(figures)
    }
}

/// All contenders against the floor, and ours against tokio and threads.
pub fn ratios(name: &str, rounds: &Rounds, goal: Option<f64>, ahead: bool) -> Vec<Figure> {
    let others = contenders::all().into_iter().filter(|contender| *contender != FLOOR);
    let to_floor = others.map(|contender| (contender, FLOOR, goal.filter(|_| contender == OURS)));
    let to_rivals = ["threads", "tokio"].map(|rival| (OURS, rival, ahead.then_some(1.0)));
    let all = to_floor.chain(to_rivals);
    all.filter_map(|(a, b, goal)| Some(figure(name, &format!("{a} / {b}"), rounds.ratio(a, b)?, "x", goal))).collect()
}

pub fn figure(name: &str, what: &str, value: f64, unit: &'static str, goal: Option<f64>) -> Figure {
    Figure { name: format!("{name}: {what}"), value, unit, goal }
}
