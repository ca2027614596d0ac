//! Hopping: mining only while it seems to pay. One chain without delays, of whole windows, so that each share is worth what later blocks
//! pay it.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::chain::{Bound, Harder, LEAD, START, Tree};

/// A day and an hour, seconds.
const DAY: f64 = 86_400.0;
const HOUR: f64 = 3_600.0;

/// What a hopper sees when it decides.
#[derive(Clone, Copy)]
pub struct Sight {
    /// Seconds since the start.
    clock: f64,
    /// Lead of the newest share, which stands for the difficulty, and its mean over a day.
    lead: f64,
    mean: f64,
}

/// Who stays and who comes and goes. Hash rates by that at which the first difficulty is in balance.
pub struct Hopping {
    pub name: &'static str,
    /// Hash rate of those who stay, by seconds since the start.
    steady: fn(f64) -> f64,
    /// Of the hopper, while it mines.
    hash: f64,
    mines: fn(&Sight) -> bool,
    pub bound: Bound,
    /// Windows that pass before the first share that is looked at.
    before: u32,
    /// Percent more than a hash is worth that one of the hopper's should earn at most.
    pub goal: Option<f64>,
}

/// Heights of a full window: two weeks, three blocks of work at the first difficulty, the fewest.
const HEIGHTS: [(Bound, u32); 3] = [(Bound::Most, 120_960), (Bound::Work, 12_288), (Bound::Fewest, 2_160)];

/// All of them.
pub fn hoppings() -> Vec<Hopping> {
    let steady: fn(f64) -> f64 = |_| 1.0;
    let daily: fn(f64) -> f64 = |clock| 1.0 + 0.3 * (clock / DAY * std::f64::consts::TAU).sin();
    let pauses: fn(f64) -> f64 = |clock| if clock % (3.0 * DAY) < 6.0 * HOUR { 1e-4 } else { 1.0 };
    let easy: fn(&Sight) -> bool = |sight| sight.lead < sight.mean;
    let by_day: fn(&Sight) -> bool = |sight| sight.clock % DAY < DAY / 2.0;
    let by_week: fn(&Sight) -> bool = |sight| sight.clock % (14.0 * DAY) < 7.0 * DAY;
    let by_month: fn(&Sight) -> bool = |sight| sight.clock % (28.0 * DAY) < 14.0 * DAY;
    let after_pause: fn(&Sight) -> bool = |sight| sight.clock % (3.0 * DAY) < 7.0 * HOUR && sight.lead < 0.9 * LEAD as f64;
    let first_day: fn(&Sight) -> bool = |sight| sight.clock < DAY;
    let row = |name, steady, hash, mines, bound| Hopping { name, steady, hash, mines, bound, before: 1, goal: Some(2.0) };
    vec![
        row("hopper who stays", steady, 0.3, |_| true, Bound::Most),
        row("hopper while targets are easy", daily, 0.3, easy, Bound::Most),
        row("hopper while targets are easy", daily, 0.3, easy, Bound::Fewest),
        row("hopper while targets are easy", daily, 0.3, easy, Bound::Work),
        row("hopper every other half day", steady, 1.0, by_day, Bound::Most),
        row("hopper every other half day", steady, 1.0, by_day, Bound::Fewest),
        row("hopper every other week", steady, 1.0, by_week, Bound::Most),
        row("hopper every other two weeks", steady, 1.0, by_month, Bound::Most),
        row("hopper after idle hours", pauses, 1.0, after_pause, Bound::Most),
        row("hopper after idle hours", pauses, 1.0, after_pause, Bound::Work),
        row("hopper after idle hours", pauses, 1.0, after_pause, Bound::Fewest),
        // While a network is young there is nobody else to pay.
        Hopping { before: 0, goal: None, ..row("hopper on the first day of a network", steady, 0.3, first_day, Bound::Most) },
    ]
}

impl Hopping {
    /// Of so many heights, or of a window if that is more: what a hash of the hopper's earns by what it is worth, less one.
    pub fn run(&self, heights: u32, seed: u64) -> f64 {
        let window = HEIGHTS.iter().find(|(bound, _)| *bound == self.bound).map_or(0, |(_, heights)| *heights);
        // A window of three blocks is longer while targets are easy.
        let (before, looked, after) = (self.before * window, heights.max(window), 2 * window);
        let tree = self.mine(before + looked + after, seed);
        let worth = tree.worth(self.bound);
        let (mut work, mut paid) = (0.0, 0.0);
        for share in (1 + before as usize..=(before + looked) as usize).filter(|share| tree.get(*share).miner == 0) {
            work += tree.get(share).work as f64;
            paid += tree.get(share).work as f64 * worth[share];
        }
        paid / work - 1.0
    }

    fn mine(&self, heights: u32, seed: u64) -> Tree {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut uniform = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut tree = Tree::default();
        let full = tree.rate();
        let (mut tip, mut clock, mut mean) = (0, 0.0f64, f64::from(LEAD));
        while tree.get(tip).height < heights {
            let lead = f64::from(tree.get(tip).lead);
            let hops = (self.mines)(&Sight { clock, lead, mean });
            let (steady, hopper) = ((self.steady)(clock), if hops { self.hash } else { 0.0 });
            let time = (START + clock as u32).max(tree.earliest(tip));
            let template = tree.template(tip, time, Harder::Times2(0));
            let rate = (steady + hopper) * full / template.work as f64;
            // For so long hash rates, targets and minds stay as they are; what was not found by then is looked for anew.
            let wait = (-(1.0 - uniform()).ln() / rate).min(30.0);
            clock += wait;
            mean += (lead - mean) * wait / DAY;
            if wait < 30.0 {
                let miner = usize::from(uniform() * (steady + hopper) < steady);
                tip = tree.add(&template, miner, Vec::new());
            }
        }
        tree
    }
}
