//! The table: who plays what against whom, and what may be gained by it.

use rockpool_store::limits::HARDER_MAX_LOG2;

use super::chain::{Harder, Other};
use super::chooser::Chooser;
use super::miners::{Credited, Dated, Dater, Hoarder, Honest, Lagging, Polite, Sibling};
use super::selfish::{Manner, Selfish};
use super::world::{FAST_WAY, HONEST_WAY, Miner, Outcome, Strategy, World};

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Heights of a run.
    pub heights: u32,
    /// Runs of a row, each from a seed of its own.
    pub seeds: u64,
}

/// Honest nodes beside the player.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Of equal hash rates, their targets as easy as allowed: as if there were more and smaller ones.
    Small,
    /// Of equal hash rates, each too large for the policy of harder targets, which they follow.
    Large,
    /// Of equal hash rates, their targets as hard as allowed.
    Heavy,
    /// One has half of the honest hash rate and follows the policy; the others stand for many small ones.
    OneLarge,
}

/// How many they are.
const HONEST: usize = 12;

impl Pool {
    /// Their parts of the honest hash rate.
    fn parts(self) -> [f64; HONEST] {
        if self != Pool::OneLarge {
            return [1.0 / HONEST as f64; HONEST];
        }
        let mut parts = [0.5 / (HONEST - 1) as f64; HONEST];
        parts[0] = 0.5;
        parts
    }

    /// How a name tells of them.
    fn against(self) -> &'static str {
        match self {
            Pool::Small => "",
            Pool::Large => ", against 12 who keep to 3 %",
            Pool::Heavy => ", against 12 who are 16 times harder",
            Pool::OneLarge => ", against one half that keeps to 3 %",
        }
    }

    fn strategy(self, number: usize) -> Box<dyn Strategy> {
        match (self, number) {
            (Pool::Large, _) | (Pool::OneLarge, 0) => Box::new(Polite::default()),
            (Pool::Heavy, _) => Box::new(Honest { log2: HARDER_MAX_LOG2 }),
            _ => Box::new(Honest::default()),
        }
    }
}

/// One game.
pub struct Game {
    pub name: String,
    /// The player's part of all hashes.
    pub hash: f64,
    /// Points above its part of the hashes that it should gain at most.
    pub goal: Option<f64>,
    way: (f64, f64),
    other: Other,
    pool: Pool,
    player: Box<dyn Fn() -> Box<dyn Strategy>>,
}

/// A mean of runs.
#[derive(Clone, Copy, Debug)]
pub struct Mean {
    pub value: f64,
    pub error: f64,
}

/// Mean and standard error.
pub fn mean(values: &[f64]) -> Mean {
    let count = values.len() as f64;
    let value = values.iter().sum::<f64>() / count;
    let spread = values.iter().map(|one| (one - value).powi(2)).sum::<f64>();
    Mean { value, error: (spread / (count - 1.0).max(1.0) / count).sqrt() }
}

impl Game {
    fn new<S: Strategy + 'static>(what: &str, hash: f64, goal: Option<f64>, player: impl Fn() -> S + 'static) -> Game {
        let player = Box::new(move || Box::new(player()) as Box<dyn Strategy>);
        let name = format!("{what}, {:.0} %", hash * 100.0);
        Game { name, hash, goal, way: FAST_WAY, other: Other::default(), pool: Pool::Small, player }
    }

    fn with(self, change: impl FnOnce(&mut Game)) -> Game {
        let mut game = self;
        change(&mut game);
        game
    }

    /// Plays it.
    pub fn play(&self, effort: &Effort) -> Vec<Outcome> {
        (1..=effort.seeds).map(|seed| World::new(self.miners(), self.other, seed).run(effort.heights)).collect()
    }

    fn miners(&self) -> Vec<Miner> {
        let mut miners = vec![Miner { hash: self.hash, way: self.way, strategy: (self.player)() }];
        miners.extend(self.pool.parts().iter().enumerate().map(|(number, part)| Miner {
            hash: (1.0 - self.hash) * part,
            way: HONEST_WAY,
            strategy: self.pool.strategy(number),
        }));
        miners
    }
}

/// All games.
pub fn games() -> Vec<Game> {
    [honest(), heavy(), selfish(), polite(), uncles_and_times(), once()].into_iter().flatten().collect()
}

fn honest() -> Vec<Game> {
    let plain = [0.01, 0.1, 0.3].map(|hash| Game::new("honest", hash, Some(0.5), Honest::default).with(|game| game.way = HONEST_WAY));
    let heavy =
        Game::new("honest, 16 times harder", 0.3, Some(0.5), || Honest { log2: HARDER_MAX_LOG2 }).with(|game| game.way = HONEST_WAY);
    let fast = Game::new("honest, well connected", 0.3, Some(0.5), Honest::default);
    // One of all, who are alike.
    let part = 1.0 / (HONEST as f64 + 1.0);
    let polite = Game::new("honest, all keep to 3 %", part, Some(0.5), Polite::default).with(|game| game.pool = Pool::Large);
    let all =
        Game::new("honest, all 16 times harder", part, Some(0.5), || Honest { log2: HARDER_MAX_LOG2 }).with(|game| game.pool = Pool::Heavy);
    let alike = [polite, all].map(|game| game.with(|game| game.way = HONEST_WAY));
    plain.into_iter().chain([heavy, fast]).chain(alike).collect()
}

fn heavy() -> Vec<Game> {
    let lagging = |lag: u32| Game::new(&format!("lagging by {lag}, 16 times harder"), 0.1, Some(0.0), move || Lagging::new(lag));
    let siblings = Game::new("siblings 1 % harder", 0.3, Some(0.0), || Sibling(Harder::Percent));
    let twice = Game::new("siblings twice as hard", 0.3, Some(0.6), || Sibling(Harder::Times2(1)));
    [1, 4, 15].map(lagging).into_iter().chain([siblings, twice]).collect()
}

/// Who withholds, with what it is called: as it is in the books; who credits no one else's uncles; and who shows nothing at all before it
/// is about to be level, dates its shares back so that its branch is a little better then, and goes on while it is two behind.
const SELFISH: [(&str, Manner); 3] = [
    ("selfish", Manner { dated: Dated::Honestly, credited: Credited::All, waits: false, trail: 0, matches: true, log2: 0 }),
    ("selfish, credits no one", Manner { dated: Dated::Honestly, credited: Credited::Own, waits: false, trail: 0, matches: true, log2: 0 }),
    ("selfish, shows nothing", Manner { dated: Dated::Early, credited: Credited::Own, waits: true, trail: 2, matches: false, log2: 0 }),
];

/// Points that a selfish miner should gain at most: two percent of what it would earn, and what SHARECHAIN says of 40 %.
fn selfish_goal(hash: f64) -> Option<f64> {
    Some(if hash < 0.4 { 2.0 } else { 5.0 })
}

fn selfish() -> Vec<Game> {
    let each = |hash: f64| SELFISH.map(|(what, manner)| Game::new(what, hash, selfish_goal(hash), move || Selfish::new(manner)));
    // A branch of few and heavier shares varies more.
    let twice = Manner { log2: 1, ..SELFISH[2].1 };
    let twice = Game::new("selfish, twice as hard, shows nothing", 0.4, selfish_goal(0.4), move || Selfish::new(twice));
    [0.2, 0.33, 0.4].into_iter().flat_map(each).chain([twice]).collect()
}

/// The same against honest ones who make their targets harder by choice.
fn polite() -> Vec<Game> {
    let (what, manner) = SELFISH[1];
    let against = |pool: Pool, hash: f64| {
        let name = format!("{what}{}", pool.against());
        Game::new(&name, hash, selfish_goal(hash), move || Selfish::new(manner)).with(|game| game.pool = pool)
    };
    let pools = [Pool::Large, Pool::OneLarge, Pool::Heavy];
    pools.into_iter().flat_map(|pool| [0.1, 0.2, 0.33, 0.4].map(|hash| against(pool, hash))).collect()
}

fn uncles_and_times() -> Vec<Game> {
    let hoards = [(Credited::All, "credits all"), (Credited::Own, "credits its own")];
    let hoards =
        hoards.map(|(credited, what)| Game::new(&format!("hoards siblings, {what}"), 0.3, Some(0.5), move || Hoarder::new(credited, 3)));
    let denies = Game::new("credits no one's uncles", 0.3, Some(0.5), || Hoarder::new(Credited::Own, 0));
    let dates =
        [(Dated::Early, "times as early as may be"), (Dated::Late, "times as late as may be"), (Dated::InTurn, "times late and early")];
    let dates = dates.map(|(dated, what)| Game::new(what, 0.3, Some(0.5), move || Dater(dated)));
    hoards.into_iter().chain([denies]).chain(dates).collect()
}

/// What the rules are not any more, and why: what was done above what was demanded counted 16 heights later, so that light shares beat
/// heavy ones, and uncles were at most 6 below, so that longer hidden branches took all from others. And what nodes did worse.
fn once() -> Vec<Game> {
    let named = |mut game: Game, with: &str, other: Other| {
        (game.name, game.goal, game.other) = (format!("{with}: {}", game.name), None, other);
        game
    };
    let (late, shallow) = (Other { late: true, ..Other::default() }, Other { uncle_depth: 6, ..Other::default() });
    let apart = Other { apart: true, ..Other::default() };
    let games = polite().into_iter().filter(|game| game.pool == Pool::Large && game.hash == 0.2);
    let games = games.map(|game| named(game, "if excess counted 16 later", late));
    let hidden = || selfish().into_iter().filter(|game| game.name.starts_with(SELFISH[2].0) && game.hash == 0.4);
    let below = hidden().map(|game| named(game, "if uncles were up to 6 below", shallow));
    games.chain(below).chain(hidden().map(|game| named(game, "if uncles were credited after their parents", apart))).collect()
}

/// Choosers of classes, with their goals: what SHARECHAIN says they gain at most, percent of what they earn.
pub fn choosers() -> Vec<(Chooser, f64)> {
    let chooser = |hash, scripts| Chooser { hash, scripts, others: 200, spread: 6 };
    let one = [0.01, 0.03, 0.05].map(|hash| (chooser(hash, 1), 2.1));
    let split = [(0.2, 48), (0.3, 96), (0.5, 96)].map(|(hash, scripts)| (chooser(hash, scripts), 7.0));
    one.into_iter().chain(split).collect()
}
