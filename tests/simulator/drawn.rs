//! What of a world is drawn before it begins: lines, who dials whom, how fast its stages are.

use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rockpool_net::pipes::Weather;
use rockpool_net::wire::share::Script;

use crate::draw;
use crate::stages::Pace;

/// A line's weather, and whether every few bytes travel alone. At its slowest a line carries about 20 kB a second: what an answer of a sync
/// needs to come within its deadline.
pub fn weather(rng: &mut ChaCha12Rng) -> (Weather, bool) {
    let kind = draw(rng, 10);
    let (longest_us, chop) = match kind {
        0 => (400, 1 + draw(rng, 7) as usize),
        1 | 2 => (3_000, 64),
        3 | 4 => (1_000 + draw(rng, 60_000), 1_500),
        _ => (1_000 + draw(rng, 200_000), usize::MAX),
    };
    let narrow = draw(rng, 4) == 0;
    let capacity = if narrow { 600 + draw(rng, 3_000) } else { 16_384 + draw(rng, 60_000) } as usize;
    let longest = Duration::from_micros(if narrow { longest_us.min(20_000) } else { longest_us });
    (Weather { delay: (Duration::from_micros(100), longest), chop, capacity }, kind == 0)
}

/// Who dials whom: a line, a ring, a star or everybody.
pub fn topology(rng: &mut ChaCha12Rng, nodes: usize) -> Vec<(usize, usize)> {
    let line = (1..nodes).map(|at| (at - 1, at));
    let pairs: Vec<(usize, usize)> = match draw(rng, 4) {
        0 => line.collect(),
        1 => line.chain([(nodes - 1, 0)]).collect(),
        2 => (1..nodes).map(|at| (0, at)).collect(),
        _ => (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b))).collect(),
    };
    let directed = pairs.into_iter().flat_map(|(a, b)| match draw(rng, 4) {
        0 => vec![(a, b), (b, a)],
        1 => vec![(b, a)],
        _ => vec![(a, b)],
    });
    directed.collect()
}

/// How fast a node's stages are.
pub fn pace(rng: &mut ChaCha12Rng) -> Pace {
    match draw(rng, 4) {
        0 => Pace { odds: 10 + draw(rng, 100), wait_max_us: 100_000 + draw(rng, 9_900_000) },
        1 => Pace { odds: 5 + draw(rng, 20), wait_max_us: 300_000 },
        _ => Pace { odds: 0, wait_max_us: 0 },
    }
}

/// One of these.
pub fn pick<'a, T>(rng: &mut ChaCha12Rng, all: &'a [T]) -> &'a T {
    &all[draw(rng, all.len() as u64) as usize]
}

/// A miner's address.
pub fn address(number: u8) -> String {
    let script = bitcoin::ScriptBuf::from(Script::P2wpkh([number + 1; 20]).script_pubkey());
    bitcoin::Address::from_script(&script, bitcoin::Network::Regtest).unwrap().to_string()
}
