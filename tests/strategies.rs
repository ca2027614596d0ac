//! What miners gain who keep to the rules of the share chain and not to its customs. The bench `strategies` plays the same games for
//! longer; `store/SPEC.md` has its table.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../benches/strategies/model/mod.rs"]
mod model;

use model::chain::Bound;
use model::hopper::hoppings;
use model::rows::{Effort, Mean, choosers, games, mean};
use model::world::Outcome;

/// Games whose goals the rules of today miss; by how much is in the bench. Whoever mends that strikes a line.
const MISSED: [&str; 1] = ["selfish, twice as hard, shows nothing, 40 %"];

/// A game whose gain varies so much that a short one says nothing.
const LONG: &str = "selfish, shows nothing, 40 %";

/// In a pool of more than a twelfth of Bitcoin's hash rate a window is no fixed work, so that to mine before the others return pays: a
/// stated limit of the rules. Whoever mends it strikes this line.
const MISSED_HOPPER: (&str, Bound) = ("hopper after idle hours", Bound::Fewest);

/// Plays all games whose name begins so, in all `count` of them; gives names, gains in points, and goals.
fn play(begin: &str, count: usize) -> Vec<(String, Mean, f64, Vec<Outcome>)> {
    let chosen = games().into_iter().filter(|game| game.name.starts_with(begin) && !MISSED.contains(&&*game.name));
    let played: Vec<_> = chosen
        .map(|game| {
            let (heights, seeds) = if game.name == LONG { (20_000, 8) } else { (3_000, 2) };
            let outcomes = game.play(&Effort { heights, seeds });
            let gain = mean(&outcomes.iter().map(|outcome| outcome.gain * 100.0).collect::<Vec<_>>());
            (game.name, gain, game.goal.unwrap_or(f64::INFINITY), outcomes)
        })
        .collect();
    assert_eq!(played.len(), count, "games that begin with {begin:?}");
    played
}

fn within_goals(begin: &str, count: usize) -> Vec<(String, Mean, f64, Vec<Outcome>)> {
    let played = play(begin, count);
    for (name, gain, goal, _) in &played {
        assert!(gain.value <= *goal, "{name}: {:.2} ± {:.2} points, at most {goal}", gain.value, gain.error);
    }
    played
}

#[test]
fn honest_miners_earn_their_share() {
    for (name, gain, goal, outcomes) in within_goals("honest", 7) {
        assert!(gain.value > -goal, "{name}: {:.2} points", gain.value);
        for Outcome { uncles, lost, reorgs, reorg_mean, reorg_999, .. } in outcomes {
            // What comes too late is credited all but whole.
            assert!((0.03..0.2).contains(&uncles) && lost.abs() < 0.01, "{name}: {uncles} uncles, {lost} lost");
            // A tip gives way now and then, and seldom takes its parent along.
            let shallow = reorgs < 0.1 && reorg_mean < 1.3 && reorg_999 <= 5;
            assert!(shallow, "{name}: {reorgs} a height, {reorg_mean} deep, 99.9 % {reorg_999}");
        }
    }
}

#[test]
fn a_lagging_heavy_miner_earns_no_more_than_its_share() {
    // It does displace: what that costs others they get back from who credits them.
    for (lag, (name, _, _, outcomes)) in [1, 4, 15].into_iter().zip(within_goals("lagging", 3)) {
        assert!(outcomes.iter().all(|outcome| outcome.reorg >= lag && outcome.lost < 0.03), "{name}: {outcomes:?}");
    }
}

#[test]
fn a_sibling_1_percent_harder_does_not_displace() {
    let played = within_goals("siblings 1 % harder", 1);
    for outcome in &played[0].3 {
        // All it finds is an uncle, and what it pays for that is a tenth.
        assert!(outcome.gain < -0.02 && outcome.uncles > 0.3 && outcome.reorg <= 4, "{outcome:?}");
    }
}

#[test]
fn selfish_miners_gain_what_is_said_of_them() {
    for begin in ["selfish, 20", "selfish, 33", "selfish, 40"] {
        within_goals(begin, 1);
    }
    within_goals("selfish, shows nothing", 3);
    // It is a strategy: with much of the hash rate it pays.
    let gain = play("selfish, credits no one, 40", 1)[0].1.value;
    assert!(gain > 1.0, "{gain}");
}

#[test]
fn little_is_to_be_gained_from_those_whose_targets_are_harder() {
    within_goals("selfish, credits no one, against 12 who keep to 3 %", 4);
    within_goals("selfish, credits no one, against 12 who are 16 times harder", 4);
    // If excess counted late, light shares would beat heavy ones: the model can tell.
    let light = play("if excess counted 16 later", 1)[0].1.value;
    assert!(light > 2.0, "{light}");
}

#[test]
fn hoarding_uncles_and_playing_with_times_gain_nothing() {
    within_goals("hoards siblings", 2);
    within_goals("credits no one's uncles", 1);
    within_goals("times", 3);
}

#[test]
fn hoppers_gain_nothing() {
    // The windows of two weeks take a minute.
    let hoppings = hoppings().into_iter().filter(|hopping| hopping.bound != Bound::Most);
    let short: Vec<_> = hoppings.filter(|hopping| (hopping.name, hopping.bound) != MISSED_HOPPER).collect();
    assert_eq!(short.len(), 4);
    for hopping in short {
        let (gain, goal) = (hopping.run(30_000, 1) * 100.0, hopping.goal.unwrap());
        assert!(gain <= goal, "{}, {:?}: {gain:.2} %, at most {goal}", hopping.name, hopping.bound);
    }
}

#[test]
fn choosing_the_class_gains_what_is_said_of_it() {
    for (chooser, goal) in choosers() {
        let gain = chooser.gain(30, 1) / chooser.hash * 100.0;
        // Few draws, so luck is in it: half as much again.
        assert!(gain > 0.2 && gain < 1.5 * goal, "{chooser:?}: {gain:.2} %, at most {goal}");
    }
}
