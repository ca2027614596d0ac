//! The bodies of the fuzz targets in `tests/fuzz`, run over seeded inputs: some thousands of random and mutated ones, and what was found.

#![expect(clippy::expect_used, reason = "tests")]

#[path = "../hub/far.rs"]
#[expect(clippy::unwrap_used, dead_code, reason = "a peer of the tests")]
mod far;
mod frame;
mod hub;
mod message;
mod share;
mod v2;

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_net::id::ShareId;
use rockpool_net::wire::message::Command;
use rockpool_net::wire::share::{Class, Layout, Proof, Script, Share};

/// Runs a body over inputs grown from these: each is one of them, or random bytes, changed in a few places.
fn run(body: fn(&[u8]), seeds: &[Vec<u8>], inputs: usize, bytes_max: usize) {
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    for number in 0..inputs {
        let input = if seeds.is_empty() || number % 4 == 0 {
            let mut bytes = vec![0; rng.next_u32() as usize % bytes_max];
            rng.fill_bytes(&mut bytes);
            bytes
        } else {
            let mut bytes = seeds[rng.next_u32() as usize % seeds.len()].clone();
            (0..rng.next_u32() % 6).for_each(|_| mutate(&mut rng, &mut bytes));
            bytes
        };
        // An input of few bytes is a test of its own, once it is printed.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(&input))) {
            eprintln!("input {number}: {input:?}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn mutate(rng: &mut ChaCha12Rng, bytes: &mut Vec<u8>) {
    let at = rng.next_u32() as usize % (bytes.len() + 1);
    match rng.next_u32() % 6 {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, rng.next_u32() as u8),
        2 => bytes.extend_from_within(at..),
        3 if at < bytes.len() => bytes[at] ^= 1 << (rng.next_u32() % 8),
        _ if at < bytes.len() => bytes[at] = rng.next_u32() as u8,
        _ => {}
    }
}

#[test]
fn frames_are_the_same_however_they_are_cut() {
    let texts = [
        "GET /a?b=1 HTTP/1.1\r\nHost: x\r\n\r\n\r\nPOST /x HTTP/1.0\r\ncontent-length: 7\r\nAuthorization: y\r\n\r\n{\"a\":1}PUT / HTTP/1.0\r\n\r\n",
        "{\"id\":1}\r\n\r\n  {\"id\": 2}\t\n\n[]\n null\nno end",
    ];
    let mut seeds = Vec::new();
    for kind in 0..10 {
        texts.iter().for_each(|text| seeds.push([&[kind, 3, 1, 40, 128][..], text.as_bytes()].concat()));
        let version = [&[kind, 200, 1, 25, 9, 0, 100, 0][..], &[7; 100], &[1, 0, 0, 2, 8, 0], &[1; 8], &[11, 5, 0], &[2; 5]].concat();
        seeds.push(version);
        seeds.push([&[kind, 130, 2, 60, 255, 6, 0xff, 0xff][..], &[b'x'; 70_000]].concat());
        seeds.push([&[kind, 129, 128, 1, 200][..], &b"PUT /".repeat(2_000)].concat());
    }
    run(frame::frame, &seeds, 5_000, 400);
}

#[test]
fn payloads_are_refused_or_read_exactly() {
    let ids = |count: u8| [&[count][..], &vec![7; 32 * usize::from(count)]].concat();
    let mut seeds: Vec<Vec<u8>> = (0..16).map(|number| [&[number][..], &ids(3)].concat()).collect();
    seeds.extend([[vec![10], a_share()].concat(), [vec![6, 2], a_share(), a_share()].concat()]);
    seeds.extend([vec![1], [vec![2], vec![9; 8]].concat(), [vec![4], vec![9; 92]].concat(), [&[5, 1][..], &[3; 64]].concat()]);
    // A height in place of a locator, Bitcoin headers, part of a list of transactions and the asking for it, a found block.
    seeds.extend([[&[5, 0][..], &[3; 36]].concat(), [&[11, 2][..], &[8; 160]].concat(), [&[12][..], &[9; 36]].concat()]);
    seeds.extend([[&[13][..], &[9; 32], &[1, 0, 0, 0, 3, 0, 0, 0, 2], &[4; 128]].concat(), [vec![14], a_share()].concat()]);
    // As Bitcoin nodes say them: one header, one item.
    for number in 0x80..0x80 + Command::ALL.len() as u8 {
        seeds.extend([[&[number, 1][..], &[9; 80], &[0]].concat(), [&[number, 1][..], &[9; 36]].concat()]);
    }
    run(message::message, &seeds, 20_000, 600);
}

#[test]
fn v2_says_what_was_said_or_nothing() {
    let packets = [&[1, 20][..], &[5; 20], &[0, 9], &[6; 9], &[3, 0, 1, 200], &[7; 200]].concat();
    let mut seeds = Vec::new();
    for who in 0..2 {
        for (garbage, decoy, at, change) in [(0, 0, 0, 0), (7, 0, 3, 0), (200, 33, 9, 0), (5, 1, 70, 1), (0, 0, 140, 128), (3, 0, 64, 2)] {
            seeds.push([&[who, garbage, decoy, at, change, 17][..], &packets].concat());
        }
    }
    seeds.iter().for_each(|seed| v2::v2(seed));
    run(v2::v2, &seeds, 500, 300);
}

#[test]
fn shares_are_refused_or_read_exactly() {
    share::share(&a_share());
    run(share::share, &[a_share()], 20_000, 1_000);
}

#[test]
fn the_hub_keeps_its_accounts_whatever_is_done_to_it() {
    let mut seeds = Vec::new();
    for (weather, config) in [(0, 15), (1, 5), (0x1a, 15), (0x2d, 13)] {
        // Four connections to a port, their words, decisions on the frames, time, answers, and reading what was said.
        for port in 0..3 {
            let says = [(1, 10), (1, 3), (1, 7)][usize::from(port)];
            let mut ops: Vec<(u8, u8)> = vec![(0x30, port), (12 | 0x10, 0), (12 | 0x20, 0)];
            for conn in 0..4 {
                ops.extend([
                    (6 | 8 << 4, 0),
                    (6, 4),
                    (7, 3),
                    (8 | 0x10, 5),
                    (says.0 | conn << 4, says.1),
                    (12 | 0x10, 0),
                    (3 | conn << 4, 20),
                ]);
            }
            ops.extend([(9, 2), (12 | 0x30, 0), (8 | 0xc0, 60), (9, 0), (11, 0), (4 | 0x10, 1), (4 | 0x20, 0), (12 | 0x60, 0)]);
            let bytes = ops.into_iter().flat_map(|(op, how)| [op, how]);
            seeds.push([weather, config, port].into_iter().chain(bytes).collect());
        }
    }
    // A mebibyte to each of forty: more than all outboxes may hold.
    seeds.push([&[0, 15, 0][..], &[0xf0, 0].repeat(3), &[0x1c, 0, 0x1c, 0, 0x26, 6, 0x26, 4, 9, 0, 9, 0, 0x6c, 0]].concat());
    seeds.iter().for_each(|seed: &Vec<u8>| hub::hub(seed));
    run(hub::hub, &seeds, 2_000, 400);
}

/// Found by fuzzing: frames behind the one at which the connection was closed kept its farewell from being written, and the hub turning.
#[test]
fn a_farewell_does_not_wait_for_frames_that_nobody_judges() {
    hub::hub(&[0, 0, 0, 0, 0, 28, 0, 70, 0, 33, 10, 60, 0, 0]);
}

/// Found by reading: who had more to say when the node stopped reading was never written to again, and the hub turned.
#[test]
fn what_is_not_cut_any_more_keeps_nothing_from_being_written() {
    hub::hub(&[0, 0, 0, 0, 1, 28, 0, 246, 250, 6, 2, 1, 3, 60, 0]);
}

/// The encoding of a share with an uncle and two siblings of the coinbase.
fn a_share() -> Vec<u8> {
    let proof = Proof { prefix_len: 320, midstate: [4; 32], extranonce: [5; 12], branch: vec![[6; 32], [7; 32]] };
    let share = Share {
        header: [8; 80],
        version: 1,
        class: Class::N46,
        layout: Layout::Tail,
        parent: ShareId([9; 32]),
        uncles: vec![ShareId([10; 32])],
        script: Script::P2wpkh([11; 20]),
        bits: 0x1b3f_ffc0,
        time: 1_800_000_000,
        height: 4_321,
        lead: 17,
        score: 1 << 70,
        salt: 12,
        value: 312_500_000,
        witness_commitment: [13; 32],
        bitcoin_height: 957_000,
        proof,
    };
    share.encode()
}
