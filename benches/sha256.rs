//! Which SHA-256: the one that the house uses (`sha2`) against the one that comes with the `bitcoin` crate, interleaved in one run.
//!
//! What counts: a header's double hash, done for every submit; a message's checksum, done for every message; one more block after a
//! midstate, which is all that a submit costs of its coinbase.

mod report;

use std::hint::black_box;
use std::time::{Duration, Instant};

use bitcoin::hashes::{Hash, sha256d as theirs};
use rockpool_net::sha256::{Midstate, sha256d};

use crate::report::{Figure, asked, median, print};

/// Bytes of a share with a P2WPKH script and twelve siblings, as it travels.
const SHARE_BYTES: usize = 648;

fn main() {
    let asked = asked();
    let (rounds, time) = if asked.quick { (5, Duration::from_millis(50)) } else { (9, Duration::from_millis(300)) };
    let (header, share, tail) = ([7u8; 80], [9u8; SHARE_BYTES], [3u8; 48]);
    let mut midstate = Midstate::new();
    midstate.update_blocks(&[1; 704]);

    let mut times: [Vec<f64>; 5] = Default::default();
    for _ in 0..rounds {
        times[0].push(nanoseconds(time, || sha256d(black_box(&header))));
        times[1].push(nanoseconds(time, || theirs::Hash::hash(black_box(&header))));
        times[2].push(nanoseconds(time, || sha256d(black_box(&share))));
        times[3].push(nanoseconds(time, || theirs::Hash::hash(black_box(&share))));
        times[4].push(nanoseconds(time, || black_box(midstate).finish(black_box(&tail))));
    }
    let ratio = |ours: usize, others: usize| median(times[ours].iter().zip(&times[others]).map(|(a, b)| a / b).collect());
    let ns = |name: &str, at: usize| Figure { name: name.to_owned(), value: median(times[at].clone()), unit: "ns", goal: None };
    // Of the same round: the house uses what wins.
    let against = |name: &str, value: f64| Figure { name: name.to_owned(), value, unit: "x", goal: Some(1.0) };
    let figures = [
        ns("header, double hash: sha2", 0),
        ns("header, double hash: bitcoin_hashes", 1),
        against("header: sha2 / bitcoin_hashes", ratio(0, 1)),
        ns("share, checksum: sha2", 2),
        ns("share, checksum: bitcoin_hashes", 3),
        against("share: sha2 / bitcoin_hashes", ratio(2, 3)),
        ns("submit, coinbase after its midstate: sha2", 4),
    ];
    print(&asked, &figures);
}

/// Nanoseconds per call of `work`, repeated for about `time`.
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn nanoseconds<T>(time: Duration, mut work: impl FnMut() -> T) -> f64 {
    let (begin, mut calls) = (Instant::now(), 0u32);
    while begin.elapsed() < time {
        for _ in 0..64 {
            black_box(work());
        }
        calls += 64;
    }
    begin.elapsed().as_nanos() as f64 / f64::from(calls)
}
