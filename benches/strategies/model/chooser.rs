//! Choosing the class of a coinbase by what the draw would pay in each.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_net::id::ShareId;
use rockpool_net::wire::share::{Class, Script};
use rockpool_store::params::{Network, params};
use rockpool_store::rules::draw::draw;

/// Weight of everybody, so that a script of the least weight has many of it.
const WHOLE: u128 = 1 << 80;
/// A Bitcoin height of today.
const HEIGHT: u32 = 900_000;

/// Someone with a part of the weight on so many scripts of equal weight.
#[derive(Clone, Copy, Debug)]
pub struct Chooser {
    pub hash: f64,
    pub scripts: usize,
    /// Scripts of the others, and how much their weights differ: the largest by the smallest, as a power of two.
    pub others: usize,
    pub spread: u32,
}

impl Chooser {
    /// Points that it gains by taking, for each template, the class that pays it best: its part of all blocks is as its part of the hashes.
    pub fn gain(&self, parents: usize, seed: u64) -> f64 {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let weights = self.weights(&mut rng);
        let params = params(Network::Main);
        let subsidy = params.subsidy(HEIGHT);
        let (mut best, mut plain) = (0.0, 0.0);
        for _ in 0..parents {
            let mut id = [0; 32];
            rng.fill_bytes(&mut id);
            let paid = Class::ALL.map(|class| {
                let drawn = draw(&weights, &ShareId(id), params.dust, subsidy, class);
                let own = drawn.parts.iter().filter(|(script, _)| is_own(script)).map(|(_, n)| f64::from(*n));
                own.sum::<f64>() / f64::from(drawn.whole)
            });
            best += paid.into_iter().fold(0.0, f64::max);
            // Every class alone pays its part on average: their mean takes some of the luck away.
            plain += paid.iter().sum::<f64>() / paid.len() as f64;
        }
        self.hash * (best - plain) / parents as f64
    }

    fn weights(&self, rng: &mut ChaCha12Rng) -> Vec<(Script, u128)> {
        let others: Vec<f64> =
            (0..self.others).map(|_| 2f64.powf(f64::from(self.spread) * f64::from(rng.next_u32()) / 2f64.powi(32))).collect();
        let whole: f64 = others.iter().sum();
        let own = (0..self.scripts).map(|_| (true, self.hash / self.scripts as f64));
        let others = others.iter().map(|weight| (false, weight / whole * (1.0 - self.hash)));
        let mut weights: Vec<(Script, u128)> = own
            .chain(others)
            .enumerate()
            .map(|(number, (own, part))| (script(number as u32, own), (part * WHOLE as f64) as u128))
            .collect();
        weights.sort_unstable();
        weights
    }
}

/// Scripts of the chooser and of the others are mixed in their order.
fn script(number: u32, own: bool) -> Script {
    let mut program = [0; 20];
    program[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b1).to_be_bytes());
    program[19] = u8::from(own);
    Script::P2wpkh(program)
}

fn is_own(script: &Script) -> bool {
    script.program()[19] == 1
}
