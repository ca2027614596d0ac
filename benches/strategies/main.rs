//! What miners gain who keep to the rules of the share chain and not to its customs: the table of `store/SPEC.md`.
//!
//! `--only TEXT` plays the games alone whose name holds it.

mod model;
#[path = "../report/mod.rs"]
mod report;

use crate::model::chain::Bound;
use crate::model::hopper::hoppings;
use crate::model::rows::{Effort, choosers, games, mean};
use crate::model::world::Outcome;
use crate::report::{Asked, Figure, asked, median, print};

fn main() {
    let asked = asked();
    let args: Vec<String> = std::env::args().collect();
    let only = args.iter().position(|arg| arg == "--only").and_then(|at| args.get(at + 1));
    let only = only.map_or("", String::as_str);
    let figures = [played(&asked, only), hopped(&asked, only), chosen(&asked, only)];
    print(&asked, &figures.into_iter().flatten().collect::<Vec<_>>());
}

fn figures(name: &str, unit: &'static str, values: &[f64], goal: Option<f64>) -> [Figure; 2] {
    let mean = mean(values);
    let figure = |what: &str, value, goal| Figure { name: format!("{name}: {what}"), value, unit, goal };
    [figure("gain", mean.value, goal), figure("standard error", mean.error, None)]
}

/// Branches, delays and uncles.
fn played(asked: &Asked, only: &str) -> Vec<Figure> {
    let effort = if asked.quick { Effort { heights: 5_000, seeds: 2 } } else { Effort { heights: 50_000, seeds: 4 } };
    let mut found = Vec::new();
    for game in games().iter().filter(|game| game.name.contains(only)) {
        let outcomes = game.play(&effort);
        let all = |of: fn(&Outcome) -> f64| outcomes.iter().map(of).collect::<Vec<f64>>();
        found.extend(figures(&game.name, "points", &all(|outcome| outcome.gain * 100.0), game.goal));
        let beside = |what: &str, unit, values| Figure { name: format!("{}: {what}", game.name), value: median(values), unit, goal: None };
        found.push(beside("work of uncles", "%", all(|outcome| outcome.uncles * 100.0)));
        found.push(beside("work lost", "%", all(|outcome| outcome.lost * 100.0)));
        found.push(beside("reorgs of a node", "/ 1000 heights", all(|outcome| outcome.reorgs * 1000.0)));
        found.push(beside("depth of a reorg", "heights", all(|outcome| outcome.reorg_mean)));
        found.push(beside("depth of 99.9 % of reorgs", "heights", all(|outcome| f64::from(outcome.reorg_999))));
        found.push(beside("deepest reorg", "heights", all(|outcome| f64::from(outcome.reorg))));
    }
    found
}

/// Windows. A hopper's gain is given by what it earns.
fn hopped(asked: &Asked, only: &str) -> Vec<Figure> {
    let (heights, seeds) = if asked.quick { (60_000, 1) } else { (480_000, 3) };
    let mut found = Vec::new();
    for hopping in hoppings() {
        let bound = match hopping.bound {
            Bound::Fewest => "2160 heights",
            Bound::Work => "three blocks",
            Bound::Most => "two weeks",
        };
        let name = format!("{}, window of {bound}", hopping.name);
        if name.contains(only) {
            let values: Vec<f64> = (1..=seeds).map(|seed| hopping.run(heights, seed) * 100.0).collect();
            found.extend(figures(&name, "%", &values, hopping.goal));
        }
    }
    found
}

/// Draws. A chooser's gain is given by what it earns.
fn chosen(asked: &Asked, only: &str) -> Vec<Figure> {
    let (parents, seeds) = if asked.quick { (100, 2) } else { (2_000, 4) };
    let mut found = Vec::new();
    for (chooser, goal) in choosers() {
        let name = format!("best class of each template, {:.0} %, scripts: {}", chooser.hash * 100.0, chooser.scripts);
        if name.contains(only) {
            let values: Vec<f64> = (1..=seeds).map(|seed| chooser.gain(parents, seed) / chooser.hash * 100.0).collect();
            found.extend(figures(&name, "%", &values, Some(goal)));
        }
    }
    found
}
