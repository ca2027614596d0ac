//! Values of contenders that were measured in rounds, and the figures made of them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::contenders::{self, BITCOIND, FLOOR, NODE, OURS, V2};
use crate::report::{Asked, Figure, median};

/// How often, and how long.
pub struct Effort {
    pub rounds: usize,
    /// The slow ones, that have no goals, take part in the first round only.
    pub hasty: bool,
    pub warmup: Duration,
    pub time: Duration,
    /// Messages that are passed on in a round.
    pub shares: usize,
    /// Time of idleness, and its rounds.
    pub idle: (Duration, usize),
}

impl Effort {
    pub fn of(asked: &Asked) -> Effort {
        let ms = Duration::from_millis;
        if asked.quick {
            Effort { rounds: 2, hasty: true, warmup: ms(10), time: ms(100), shares: 20, idle: (ms(2_000), 1) }
        } else {
            Effort { rounds: 5, hasty: false, warmup: ms(100), time: ms(500), shares: 100, idle: (ms(5_000), 3) }
        }
    }

    /// Who takes part in a round, those aside.
    pub fn contenders(&self, round: usize, aside: &[&str]) -> Vec<&'static str> {
        let late = self.hasty && round > 0;
        let out = |contender: &str| aside.contains(&contender) || late && [NODE, BITCOIND].contains(&contender);
        contenders::all().into_iter().filter(|contender| !out(contender)).collect()
    }
}

/// Values by contender, one of each round, the same round at the same place; some are missing from a round on.
#[derive(Default)]
pub struct Rounds(BTreeMap<&'static str, Vec<f64>>);

impl Rounds {
    pub fn push(&mut self, contender: &'static str, value: f64) {
        self.0.entry(contender).or_default().push(value);
    }

    fn median(&self, contender: &str) -> Option<f64> {
        self.0.get(contender).map(|values| median(values.clone()))
    }

    /// The median of the ratios of each round.
    fn ratio(&self, contender: &str, to: &str) -> Option<f64> {
        let ratios = self.0.get(contender)?.iter().zip(self.0.get(to)?).map(|(value, to)| value / to);
        Some(median(ratios.collect()))
    }

    /// The medians of all contenders. The goal is ours.
    pub fn medians(&self, name: &str, unit: &'static str, goal: Option<f64>) -> Vec<Figure> {
        let all = contenders::all().into_iter();
        all.filter_map(|contender| Some(figure(name, contender, self.median(contender)?, unit, goal.filter(|_| contender == OURS))))
            .collect()
    }

    /// All against the floor, with a goal for ours; and ours against the rivals, which it is to be ahead of.
    pub fn ratios(&self, name: &str, goal: Option<f64>) -> Vec<Figure> {
        let others = contenders::all().into_iter().filter(|contender| *contender != FLOOR);
        let to_floor = others.map(|contender| (contender, FLOOR, goal.filter(|_| contender == OURS)));
        let to_rivals = ["threads", "tokio"].map(|rival| (OURS, rival, Some(1.0)));
        let all = to_floor.chain(to_rivals);
        all.filter_map(|(a, b, goal)| Some(figure(name, &format!("{a} / {b}"), self.ratio(a, b)?, "x", goal))).collect()
    }

    /// Ours in v2 against ours in v1.
    pub fn v2_ratio(&self, name: &str, goal: Option<f64>) -> Option<Figure> {
        Some(figure(name, &format!("{V2} / {OURS}"), self.ratio(V2, OURS)?, "x", goal))
    }

    /// What ours takes more in v2 than in v1.
    pub fn v2_more(&self, name: &str, unit: &'static str, goal: Option<f64>) -> Option<Figure> {
        Some(figure(name, &format!("{V2} - {OURS}"), self.median(V2)? - self.median(OURS)?, unit, goal))
    }

    /// The largest of all rounds, ours.
    pub fn largest(&self, name: &str, unit: &'static str) -> Option<Figure> {
        let value = self.0.get(OURS)?.iter().copied().max_by(f64::total_cmp)?;
        Some(figure(name, OURS, value, unit, None))
    }
}

fn figure(name: &str, what: &str, value: f64, unit: &'static str, goal: Option<f64>) -> Figure {
    Figure { name: format!("{name}: {what}"), value, unit, goal }
}
