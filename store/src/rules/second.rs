//! A second implementation of window and draw: slow and obvious, written from the sentences of SPEC and not from the first one. Both
//! must agree.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_net::id::ShareId;
use rockpool_net::sha256::{sha256, tagged};
use rockpool_net::wire::share::{Class, Script};
use ruint::Uint;

use crate::params::{Network, Params, params};
use crate::payouts::Payouts;
use crate::record::Record;
use crate::rules::window::{Credit, Level, Window};

/// Wide enough for a hash times a sum, the largest there is.
type Wide = Uint<512, 8>;

/// A height of a chain: who is paid for how much work, the uncles' included.
type Height = Vec<(Script, u128)>;

/// Lowest height and weights of the window that ends with the last height of `chain`, whose first is genesis's.
fn slow_window(params: &Params, chain: &[Height], wanted: u128) -> (usize, BTreeMap<Script, u128>) {
    let top = chain.len() - 1;
    let enough = |low: usize| {
        let heights = top + 1 - low;
        let held: u128 = chain[low..].iter().flatten().map(|(_, work)| work).sum();
        heights as u32 >= params.window_max || (heights as u32 >= params.window_min && held >= wanted)
    };
    let low = (1..=top).rev().find(|low| enough(*low)).unwrap_or(1);
    let mut weights = BTreeMap::new();
    for (script, work) in chain.iter().skip(low).flatten() {
        *weights.entry(*script).or_insert(0) += 10 * work;
    }
    (low, weights)
}

pub(crate) fn slow_outputs(
    weights: &BTreeMap<Script, u128>,
    parent: &ShareId,
    dust: u64,
    subsidy: u64,
    class: Class,
    value: u64,
) -> Vec<(Script, u64)> {
    let seed = tagged(b"rockpool/draw", &[&parent.0]);
    let key = |script: &Script| sha256(&[&seed, &[script.type_byte()][..], script.program()].concat());
    let mut parts: Vec<(Script, Wide)> = weights.iter().map(|(script, weight)| (*script, Wide::from(*weight))).collect();
    let total: Wide = parts.iter().map(|part| part.1).sum();
    let v0 = Wide::from(subsidy.max(1));
    let mut d = Wide::from(dust) * total / v0;
    if d * v0 < Wide::from(dust) * total || d == Wide::ZERO {
        d += Wide::ONE;
    }
    let mut q = Wide::ONE;
    for places in [360u16, 144, 46, 12] {
        if usize::from(places) < class.outputs() {
            break;
        }
        if parts.len() <= usize::from(places) && parts.iter().all(|part| part.1 >= d * q) {
            continue;
        }
        parts.sort_by_key(|part| (Reverse(part.1), part.0));
        let sum_from = |k: usize| parts[k..].iter().map(|part| part.1).sum::<Wide>();
        let mut k = 0;
        let m = loop {
            let s = sum_from(k);
            if s == Wide::ZERO {
                break Wide::ZERO;
            }
            let m = (s / (d * q)).min(Wide::from(usize::from(places) - k));
            if m == Wide::ZERO {
                k = k.saturating_sub(1);
                break Wide::ONE;
            }
            if parts[k].1 * m <= s {
                break m;
            }
            k += 1;
        };
        let s = sum_from(k);
        let hash = Wide::from(Uint::<256, 4>::from_be_bytes(sha256(&[&seed[..], &places.to_be_bytes()].concat())));
        let u = (hash * s) >> 256usize;
        let mut after: Vec<(Script, Wide)> = parts[..k].iter().map(|part| (part.0, part.1 * m.max(Wide::ONE))).collect();
        let mut chance = parts[k..].to_vec();
        chance.sort_by_key(|part| (key(&part.0), part.0));
        let mut before = Wide::ZERO;
        for (script, n) in chance {
            let end = before + n * m;
            if (0..m.to::<u64>()).map(|j| u + Wide::from(j) * s).any(|point| before <= point && point < end) {
                after.push((script, s));
            }
            before = end;
        }
        parts = after;
        q *= m.max(Wide::ONE);
    }
    parts.sort_by_key(|part| part.0);
    let mut outputs: Vec<(Script, u64)> =
        parts.iter().map(|(script, n)| (*script, (Wide::from(value) * *n / (total * q)).to::<u64>())).collect();
    let mut left = value - outputs.iter().map(|output| output.1).sum::<u64>();
    for output in &mut outputs {
        if left > 0 {
            output.1 += 1;
            left -= 1;
        }
    }
    outputs
}

fn below(rng: &mut ChaCha12Rng, end: u32) -> u32 {
    rng.next_u32() % end
}

fn any_script(rng: &mut ChaCha12Rng, people: u32) -> Script {
    let who = below(rng, people);
    let program = sha256(&who.to_le_bytes());
    match who % 3 {
        0 => Script::P2wpkh(*program.first_chunk().unwrap()),
        1 => Script::P2wsh(program),
        _ => Script::P2tr(program),
    }
}

/// Weights of the most different sizes: u128 up to 2⁹⁹.
fn any_work(rng: &mut ChaCha12Rng, widest: u32) -> u128 {
    1 + (u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64())) % (1 << (1 + below(rng, widest)))
}

#[test]
fn two_independent_implementations_agree_on_100_000_random_windows_through_reorgs() {
    let mut windows = 0;
    for seed in 0..1_700 {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let window_min = 1 + below(&mut rng, 30);
        let mut params = params(Network::Regtest).clone();
        (params.window_min, params.window_max) = (window_min, window_min + below(&mut rng, 80));
        let (people, widest) = (1 + below(&mut rng, 90), 1 + below(&mut rng, 98));
        let mut chain: Vec<Height> = vec![Vec::new()];
        let level = |height: &Height| Level {
            work: height.iter().map(|(_, work)| work).sum(),
            credits: height.iter().map(|(script, work)| Credit { script: *script, tenths: 10 * work }).collect(),
        };
        let mut window = Window::new(0);
        for step in 0..60u32 {
            let back = if below(&mut rng, 8) == 0 { below(&mut rng, chain.len() as u32) } else { 0 };
            for _ in 0..back {
                let wanted = any_work(&mut rng, widest);
                window.pop(&params, wanted, |height| level(&chain[height as usize]));
                chain.pop();
                let (low, weights) = slow_window(&params, &chain, wanted);
                assert!(window.heights().is_none_or(|(lowest, _)| lowest == low as u32), "seed {seed}, step {step}");
                assert!(window.weights().eq(weights), "seed {seed}, step {step}");
            }
            let height = chain.len() as u32;
            let id = ShareId(sha256(&[&seed.to_le_bytes()[..], &step.to_le_bytes()].concat()));
            // What is wanted changes at random from one share to the next: the window must grow at its tail too.
            let wanted = any_work(&mut rng, widest + 4);
            let credits = 1 + below(&mut rng, 3) * below(&mut rng, 2);
            chain.push((0..credits).map(|_| (any_script(&mut rng, people), any_work(&mut rng, widest))).collect());
            window.push(&params, wanted, |height| level(&chain[height as usize]));
            let (low, weights) = slow_window(&params, &chain, wanted);
            assert_eq!(window.heights(), Some((low as u32, height)), "seed {seed}, step {step}");
            assert!(window.weights().eq(weights.clone()), "seed {seed}, step {step}");

            let tip = Record { id, height, ..params.genesis_record() };
            let payouts = Payouts::new(&tip, &window);
            let class = Class::ALL[below(&mut rng, 4) as usize];
            let bitcoin_height = below(&mut rng, 40 * 150);
            let value = params.subsidy(bitcoin_height) + u64::from(below(&mut rng, 100_000_000));
            let own = any_script(&mut rng, people);
            let expected = slow_outputs(&weights, &id, params.dust, params.subsidy(bitcoin_height), class, value);
            assert_eq!(payouts.outputs(&params, class, value, bitcoin_height, &own), expected, "seed {seed}, step {step}");
            windows += 1;
        }
    }
    assert!(windows >= 100_000);
}

#[test]
fn both_agree_where_hundreds_are_paid() {
    for seed in 0..12 {
        let mut rng = ChaCha12Rng::seed_from_u64(1_000 + seed);
        let (count, widest) = (1 + below(&mut rng, 900), 1 + below(&mut rng, 98));
        let weights: BTreeMap<Script, u128> = (0..count).map(|_| (any_script(&mut rng, 2_000), any_work(&mut rng, widest))).collect();
        let listed: Vec<_> = weights.clone().into_iter().collect();
        let parent = ShareId(sha256(&seed.to_le_bytes()));
        let subsidy = [5_000_000_000, 312_500_000, 5_000_000, 1, 0][below(&mut rng, 5) as usize];
        let value = subsidy + u64::from(rng.next_u32());
        for class in Class::ALL {
            let drawn = crate::rules::draw::draw(&listed, &parent, 10_000, subsidy, class);
            let expected = slow_outputs(&weights, &parent, 10_000, subsidy, class, value);
            assert_eq!(crate::rules::draw::pay(&drawn, value), expected, "seed {seed}, {class:?}");
        }
    }
}
