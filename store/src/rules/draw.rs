//! The draw: who is paid by a coinbase of so many outputs, and how much (SPEC, PAY-3 to PAY-8).
//!
//! Large payees are paid exactly, small ones S/m with a chance of n·m/S, so that everyone's expectation is exact in every class.

use rockpool_net::id::ShareId;
use rockpool_net::sha256::{sha256, tagged};
use rockpool_net::wire::share::{Class, Script};
use ruint::Uint;
use ruint::aliases::U256;

/// What the draw left of the weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// Who is paid, in script order, and their parts of `whole`.
    pub parts: Vec<(Script, U256)>,
    /// Sum of the parts: W·q.
    pub whole: U256,
}

/// PAY-3: the result for a class. `weights` in script order, none zero; `subsidy` is Bitcoin's at the share's Bitcoin height.
pub fn draw(weights: &[(Script, u128)], parent: &ShareId, dust: u64, subsidy: u64, class: Class) -> Drawn {
    let seed = tagged(b"rockpool/draw", &[&parent.0]);
    let mut keys = Keys::new(&seed, weights);
    let mut parts = parts(weights);
    let mut whole = parts.iter().fold(U256::ZERO, |sum, part| sum + part.n);
    let mut least = least(whole, dust, subsidy);
    for step_class in Class::ALL.into_iter().rev().take_while(|step_class| *step_class >= class) {
        let places = step_class.outputs();
        if parts.len() <= places && parts.iter().all(|part| part.n >= least) {
            continue;
        }
        let factor = step(&mut parts, &mut keys, places, least, |sum| point(&seed, places as u16, sum));
        whole *= factor;
        least *= factor;
    }
    parts.sort_unstable_by_key(|part| part.script);
    Drawn { parts: parts.into_iter().map(|part| (weights[part.script].0, part.n)).collect(), whole }
}

/// PAY-7, PAY-8: what each is paid of `value`: rounded down, and one satoshi more to as many of the first as satoshis are left.
pub fn pay(drawn: &Drawn, value: u64) -> Vec<(Script, u64)> {
    let value_wide = U256::from(value);
    let share = |n: U256| if drawn.whole.is_zero() { 0 } else { u64::try_from(value_wide * n / drawn.whole).unwrap_or(value) };
    let mut pays: Vec<(Script, u64)> = drawn.parts.iter().map(|(script, n)| (*script, share(*n))).collect();
    let left = value.saturating_sub(pays.iter().map(|(_, paid)| paid).sum());
    pays.iter_mut().take(left as usize).for_each(|(_, paid)| *paid += 1);
    pays
}

/// What a class leaves to chance, whoever is drawn: for who is told his chance. No rule asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Odds(Vec<Round>);

/// One class's draw (PAY-6) that is made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Round {
    /// From this on a part was certain; nobody was if there is none.
    certain: Option<U256>,
    /// How many of the others were drawn.
    drawn: usize,
    /// The sum of the others.
    sum: U256,
}

impl Odds {
    /// Of the same draw as [`draw`]. Who is drawn in a round comes out of it with the same part as everybody who is, so the next round does
    /// not depend on who it was.
    pub fn new(weights: &[(Script, u128)], dust: u64, subsidy: u64, class: Class) -> Odds {
        let mut parts = parts(weights);
        let mut least = least(parts.iter().fold(U256::ZERO, |sum, part| sum + part.n), dust, subsidy);
        let mut rounds = Vec::new();
        for step_class in Class::ALL.into_iter().rev().take_while(|step_class| *step_class >= class) {
            let places = step_class.outputs();
            if parts.len() <= places && parts.iter().all(|part| part.n >= least) {
                continue;
            }
            parts.sort_unstable_by(|a, b| b.n.cmp(&a.n).then(a.script.cmp(&b.script)));
            let (certain, drawn, sum) = split(&parts, places, least);
            rounds.push(Round { certain: certain.checked_sub(1).map(|last| parts[last].n), drawn, sum });
            let factor = U256::from(drawn).max(U256::ONE);
            parts.truncate(certain + drawn);
            let (sure, rest) = parts.split_at_mut(certain);
            sure.iter_mut().for_each(|part| part.n *= factor);
            rest.iter_mut().for_each(|part| part.n = sum);
            least *= factor;
        }
        Odds(rounds)
    }

    /// The chance, up to 1, that who has this weight is paid.
    pub fn chance(&self, weight: u128) -> f64 {
        let (mut n, mut chance) = (U256::from(weight), if weight == 0 { 0.0 } else { 1.0 });
        for Round { certain, drawn, sum } in &self.0 {
            if certain.is_some_and(|least| n >= least) {
                n *= U256::from(*drawn).max(U256::ONE);
            } else {
                chance *= f64::from(n) * *drawn as f64 / f64::from(*sum);
                n = *sum;
            }
        }
        chance
    }
}

/// One script in the draw. Small, since there are a thousand and they are sorted: a script's place among the weights, which are in script
/// order, says all that the order of scripts is asked for.
#[derive(Clone, Copy, Debug)]
struct Part {
    script: usize,
    n: U256,
}

/// All of them at the start.
fn parts(weights: &[(Script, u128)]) -> Vec<Part> {
    weights.iter().enumerate().map(|(script, (_, weight))| Part { script, n: U256::from(*weight) }).collect()
}

/// The order of chance. Keys are made when they are first asked for: who is certain in every class needs none.
struct Keys<'a> {
    seed: [u8; 32],
    weights: &'a [(Script, u128)],
    made: Vec<Option<[u8; 32]>>,
}

impl<'a> Keys<'a> {
    fn new(seed: &[u8; 32], weights: &'a [(Script, u128)]) -> Keys<'a> {
        Keys { seed: *seed, weights, made: vec![None; weights.len()] }
    }

    /// PAY-5: key = SHA256(seed ‖ script), the script as a share encodes it.
    fn of(&mut self, script: usize) -> [u8; 32] {
        *self.made[script].get_or_insert_with(|| {
            let script = &self.weights[script].0;
            let (mut bytes, program) = ([0; 65], script.program());
            bytes[..32].copy_from_slice(&self.seed);
            bytes[32] = script.type_byte();
            bytes[33..33 + program.len()].copy_from_slice(program);
            sha256(&bytes[..33 + program.len()])
        })
    }

    /// Sorts by key, then script. The first bytes of a key tell nearly all apart.
    fn sort(&mut self, parts: &mut [Part]) {
        let mut keyed: Vec<(u64, Part)> = parts.iter().map(|part| (head(&self.of(part.script)), *part)).collect();
        let whole = |part: &Part| (self.made[part.script], part.script);
        keyed.sort_unstable_by(|(a, of_a), (b, of_b)| a.cmp(b).then_with(|| whole(of_a).cmp(&whole(of_b))));
        parts.iter_mut().zip(keyed).for_each(|(part, (_, sorted))| *part = sorted);
    }
}

fn head(key: &[u8; 32]) -> u64 {
    key.iter().take(8).fold(0, |head, byte| head << 8 | u64::from(*byte))
}

/// PAY-4: D, the weight that `dust` satoshis of the subsidy are worth, rounded up, at least 1.
fn least(whole: U256, dust: u64, subsidy: u64) -> U256 {
    let subsidy = U256::from(subsidy.max(1));
    (U256::from(dust) * whole).div_ceil(subsidy).max(U256::ONE)
}

/// PAY-6: u of a class's step, evenly below `sum`.
fn point(seed: &[u8; 32], places: u16, sum: U256) -> U256 {
    let hash = U256::from_be_bytes(sha256(&[&seed[..], &places.to_be_bytes()].concat()));
    let wide: Uint<512, 8> = Uint::from(hash) * Uint::from(sum);
    // Below `sum`, so it fits.
    (wide >> 256usize).saturating_to()
}

/// PAY-6: one class's draw among `parts` for `places` outputs of at least `least` each; gives the factor by which everything grew.
fn step(parts: &mut Vec<Part>, keys: &mut Keys<'_>, places: usize, least: U256, point: impl Fn(U256) -> U256) -> U256 {
    parts.sort_unstable_by(|a, b| b.n.cmp(&a.n).then(a.script.cmp(&b.script)));
    let (certain, drawn, sum) = split(parts, places, least);
    let m = U256::from(drawn);
    let factor = m.max(U256::ONE);
    let mut rest = parts.split_off(certain);
    parts.iter_mut().for_each(|part| part.n *= factor);
    if drawn > 0 {
        keys.sort(&mut rest);
        // Points u, u + S, …, u + (m − 1)·S on a line on which each part takes n·m: at most S, so no part holds two of them.
        let mut next = point(sum);
        let mut end = U256::ZERO;
        for mut part in rest {
            end += part.n * m;
            if next < end {
                next += sum;
                part.n = sum;
                parts.push(part);
            }
        }
    }
    factor
}

/// PAY-6: of parts in descending order, how many are certain, how many of the others are drawn, and the sum of these others.
fn split(parts: &[Part], places: usize, least: U256) -> (usize, usize, U256) {
    let mut sum = parts.iter().fold(U256::ZERO, |sum, part| sum + part.n);
    let mut certain = 0;
    loop {
        if sum.is_zero() {
            return (certain, 0, sum);
        }
        let free = places - certain;
        // min(free, ⌊sum / least⌋). Mostly there is enough for all places, and a division takes ten times as long as the rest of a turn.
        // The product is far below 2²⁵⁶: D below 2¹⁹², q below 2²⁵.
        let mut drawn = if least * U256::from(free) <= sum { free } else { (sum / least).saturating_to() };
        if drawn == 0 {
            // Too little is left for an output of its own, or no place: the smallest of the certain ones takes its chance with the rest.
            if certain > 0 {
                certain -= 1;
                sum += parts[certain].n;
            }
            drawn = 1;
            return (certain, drawn, sum);
        }
        if parts[certain].n * U256::from(drawn) <= sum {
            return (certain, drawn, sum);
        }
        sum -= parts[certain].n;
        certain += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};
    use std::collections::BTreeMap;

    fn script(who: u32) -> Script {
        let mut program = [0; 20];
        program[..4].copy_from_slice(&who.to_be_bytes());
        Script::P2wpkh(program)
    }

    fn weights(works: &[u128]) -> Vec<(Script, u128)> {
        works.iter().enumerate().map(|(who, work)| (script(who as u32), *work)).collect()
    }

    /// A few giants, a long tail: as pools are.
    fn pool(rng: &mut ChaCha12Rng, count: usize) -> Vec<(Script, u128)> {
        let tail = |rng: &mut ChaCha12Rng| 10u128.pow(rng.next_u32() % 15) + u128::from(rng.next_u32());
        let works: Vec<u128> = (0..count).map(|_| tail(rng)).collect();
        weights(&works)
    }

    fn id(number: u64) -> ShareId {
        ShareId(sha256(&number.to_le_bytes()))
    }

    /// For every u there is: n after the step, summed over all u, is n·m·S, so that the expectation is exact.
    #[test]
    fn the_expectation_is_exact_over_every_u() {
        let mut rng = ChaCha12Rng::seed_from_u64(3);
        let mut drew = 0;
        for round in 0..600u32 {
            let count = 1 + rng.next_u32() % 9;
            let works: Vec<u128> = (0..count).map(|_| 1 + u128::from(rng.next_u32() % [3, 40, 400][round as usize % 3])).collect();
            let weights = weights(&works);
            let (parts, mut keys) = (parts(&weights), Keys::new(&[round as u8; 32], &weights));
            let (places, least) = (1 + rng.next_u32() as usize % 6, U256::from(1 + rng.next_u32() % 60));
            let mut sorted = parts.clone();
            sorted.sort_by(|a, b| b.n.cmp(&a.n).then(a.script.cmp(&b.script)));
            let (_, drawn, sum) = split(&sorted, places, least);
            let (factor, whole) = (U256::from(drawn.max(1)), works.iter().sum::<u128>());
            let mut totals: BTreeMap<usize, U256> = BTreeMap::new();
            for u in 0..sum.to::<u64>().max(1) {
                let mut after = parts.clone();
                assert_eq!(step(&mut after, &mut keys, places, least, |_| U256::from(u)), factor);
                assert!(after.len() <= places, "{} of {places}", after.len());
                assert_eq!(after.iter().map(|part| part.n).sum::<U256>(), U256::from(whole) * factor, "round {round}, u {u}");
                after.iter().for_each(|part| *totals.entry(part.script).or_default() += part.n);
            }
            let times = sum.max(U256::ONE);
            for part in &parts {
                assert_eq!(totals.get(&part.script), Some(&(part.n * factor * times)), "round {round}");
            }
            drew += usize::from(drawn > 0);
        }
        assert!(drew > 300, "only {drew} rounds drew");
    }

    #[test]
    fn sums_dust_counts_and_nesting_hold() {
        let mut rng = ChaCha12Rng::seed_from_u64(4);
        for round in 0..300 {
            let weights = {
                let count = 1 + rng.next_u32() as usize % 1_000;
                pool(&mut rng, count)
            };
            let subsidy = 312_500_000 >> (rng.next_u32() % 3);
            let value = subsidy + u64::from(rng.next_u32());
            let mut larger: Option<Vec<Script>> = None;
            for class in Class::ALL.into_iter().rev() {
                let drawn = draw(&weights, &id(round), 10_000, subsidy, class);
                assert_eq!(drawn.parts.iter().map(|(_, n)| *n).sum::<U256>(), drawn.whole);
                let pays = pay(&drawn, value);
                assert_eq!(pays.iter().map(|(_, paid)| paid).sum::<u64>(), value, "round {round}, {class:?}");
                assert!(!pays.is_empty() && pays.len() <= class.outputs());
                assert!(pays.is_sorted_by(|a, b| a.0 < b.0));
                assert!(pays.iter().all(|(_, paid)| *paid >= 10_000), "round {round}, {class:?}");
                let scripts: Vec<Script> = pays.iter().map(|(script, _)| *script).collect();
                if let Some(larger) = &larger {
                    assert!(
                        scripts.iter().all(|script| larger.contains(script)),
                        "round {round}, {class:?} is not within the larger class"
                    );
                }
                larger = Some(scripts);
            }
        }
    }

    #[test]
    fn whoever_fits_is_paid_exactly() {
        let weights = weights(&[100, 200, 300, 400]);
        for class in Class::ALL {
            let pays = pay(&draw(&weights, &id(1), 10_000, 312_500_000, class), 1_000_000_003);
            // .3, .6, .9 and .2 are cut off: two satoshis, one each to the first two.
            assert_eq!(pays.iter().map(|(_, paid)| *paid).collect::<Vec<_>>(), [100_000_001, 200_000_001, 300_000_000, 400_000_001]);
        }
    }

    #[test]
    fn giants_are_certain_and_exact_in_every_class() {
        // Half of all, and a thousand who share the rest.
        let mut works = vec![1_000_000u128];
        works.extend(std::iter::repeat_n(1_000, 1_000));
        let weights = weights(&works);
        for class in Class::ALL {
            for parent in 0..20 {
                let pays = pay(&draw(&weights, &id(parent), 10_000, 312_500_000, class), 400_000_000);
                let giant = pays.iter().find(|(who, _)| *who == script(0)).map(|(_, paid)| *paid);
                assert!(giant.is_some_and(|paid| paid.abs_diff(200_000_000) <= 1), "{class:?}: {giant:?}");
                assert_eq!(pays.len(), class.outputs());
            }
        }
    }

    /// Frequencies over many parents: a small payee of weight w is paid as often and as much as it should be.
    #[test]
    fn small_payees_get_their_part_over_many_shares() {
        let works: Vec<u128> = (1..=100).collect();
        let weights = weights(&works);
        let (value, rounds) = (312_500_000u64, 4_000);
        let mut paid = vec![0u64; works.len()];
        for parent in 0..rounds {
            for (who, sum) in pay(&draw(&weights, &id(parent), 10_000, value, Class::N12), value) {
                paid[weights.iter().position(|(script, _)| *script == who).unwrap_or(0)] += sum;
            }
        }
        for group in [0..25, 25..50, 50..75, 75..100] {
            let got: u64 = paid[group.clone()].iter().sum();
            let due = works[group.clone()].iter().sum::<u128>() as f64 / 5_050.0 * value as f64 * rounds as f64;
            assert!((got as f64 / due - 1.0).abs() < 0.03, "{group:?}: {}", got as f64 / due);
        }
    }

    /// Who splits himself over all places of a coinbase drives nobody out: the small are drawn as often as their weight says.
    #[test]
    fn a_crowd_of_scripts_of_one_owner_does_not_starve_the_small() {
        let (owner, small, rounds, value) = (720usize, 100usize, 3_000u64, 312_500_000u64);
        let works: Vec<u128> = std::iter::repeat_n(1_000, owner).chain(std::iter::repeat_n(90, small)).collect();
        let (weights, whole) = (weights(&works), works.iter().sum::<u128>());
        for class in [Class::N12, Class::N360] {
            let mut got = 0u128;
            for parent in 0..rounds {
                for (who, sum) in pay(&draw(&weights, &id(parent), 10_000, value, class), value) {
                    let at = weights.binary_search_by_key(&who, |(script, _)| *script).unwrap_or(0);
                    got += if at >= owner { u128::from(sum) } else { 0 };
                }
            }
            let due = 90.0 * small as f64 / whole as f64 * value as f64 * rounds as f64;
            assert!((got as f64 / due - 1.0).abs() < 0.1, "{class:?}: {} of what is due", got as f64 / due);
        }
    }

    /// Exactly: who is paid gets what his chance has made of his weight.
    #[test]
    fn chance_times_pay_is_the_weight_in_every_class() {
        let mut rng = ChaCha12Rng::seed_from_u64(11);
        let mut uncertain = 0;
        for round in 0..400 {
            let count = 1 + rng.next_u32() as usize % [15, 200, 1_000][round as usize % 3];
            let weights = pool(&mut rng, count);
            let (total, subsidy) = (weights.iter().map(|(_, weight)| *weight as f64).sum::<f64>(), 312_500_000 >> (rng.next_u32() % 8));
            for class in Class::ALL {
                let (odds, drawn) = (Odds::new(&weights, 10_000, subsidy, class), draw(&weights, &id(round), 10_000, subsidy, class));
                for (script, n) in &drawn.parts {
                    let weight = weights[weights.binary_search_by_key(script, |(script, _)| *script).unwrap_or(0)].1;
                    let (chance, part) = (odds.chance(weight), f64::from(*n) / f64::from(drawn.whole));
                    assert!((chance * part / (weight as f64 / total) - 1.0).abs() < 1e-9, "round {round}, {class:?}: {chance}, {part}");
                    assert!(chance > 0.0 && chance <= 1.0 + 1e-9);
                    uncertain += usize::from(chance < 0.999);
                }
                // As many are paid as the chances say.
                let sum: f64 = weights.iter().map(|(_, weight)| odds.chance(*weight)).sum();
                assert!((sum - drawn.parts.len() as f64).abs() < 1e-6, "round {round}, {class:?}: {sum}, {}", drawn.parts.len());
            }
        }
        assert!(uncertain > 10_000, "{uncertain}");
        assert_eq!(Odds::new(&weights(&[5]), 10_000, 312_500_000, Class::N12).chance(0), 0.0);
    }

    #[test]
    fn below_dust_one_is_drawn_and_gets_all() {
        // W < D: dust is more than the whole subsidy.
        let weights = weights(&[1, 2, 3]);
        let mut winners = [0; 3];
        for parent in 0..300 {
            for class in Class::ALL {
                let pays = pay(&draw(&weights, &id(parent), 10_000, 100, class), 100);
                assert_eq!((pays.len(), pays[0].1), (1, 100));
                if class == Class::N12 {
                    winners[weights.iter().position(|(script, _)| *script == pays[0].0).unwrap_or(0)] += 1;
                }
            }
        }
        assert!(winners[0] > 25 && winners[1] > 70 && winners[2] > 110, "{winners:?}");
    }

    #[test]
    fn no_weights_and_the_largest_weights_do_no_harm() {
        let none = draw(&[], &id(1), 10_000, 312_500_000, Class::N12);
        assert!(pay(&none, 5).is_empty() && none.whole.is_zero());
        let huge = weights(&[u128::MAX / 400; 400]);
        for class in Class::ALL {
            let pays = pay(&draw(&huge, &id(2), 10_000, 5_000_000_000, class), u64::MAX);
            assert_eq!(pays.iter().map(|(_, paid)| u128::from(*paid)).sum::<u128>(), u128::from(u64::MAX));
            assert_eq!(pays.len(), class.outputs());
        }
    }
}
