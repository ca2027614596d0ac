//! What decoders allocate, counted by the allocator: never more than a few times what arrived, whatever its counts claim.
//!
//! One test: the count is the process's.

use std::alloc::System;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool_net::id::ShareId;
use rockpool_net::limits::{ADDRS_MAX, GETDATA_MAX, SHARE_BYTES_MAX, SHARE_BYTES_MIN, SHARE_HEADERS_BYTES_MAX};
use rockpool_net::wire::codec::Writer;
use rockpool_net::wire::message::{Command, Message};
use rockpool_net::wire::share::{Class, Layout, Proof, Script, Share};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes allocated, all in all, for each byte that arrived: a decoded share takes more than its shortest encoding, and a list that grows
/// is copied.
const TIMES_MAX: usize = 6;
/// Bytes that any payload may cost: a share's own lists, the words of an error.
const FREE_BYTES: usize = 2_048;

fn check(command: Command, payload: &[u8]) -> bool {
    let region = Region::new(COUNTING);
    let decoded = Message::decode(command, payload);
    let bytes = region.change().bytes_allocated;
    assert!(bytes <= TIMES_MAX * payload.len() + FREE_BYTES, "{command}: {bytes} bytes for {} that arrived", payload.len());
    decoded.is_ok()
}

fn a_share(uncles: u8, siblings: u8) -> Vec<u8> {
    let proof =
        Proof { prefix_len: 320, midstate: [4; 32], extranonce: [5; 12], branch: (0..siblings).map(|number| [number; 32]).collect() };
    let share = Share {
        header: [8; 80],
        version: 1,
        class: Class::N46,
        layout: Layout::Tail,
        parent: ShareId([9; 32]),
        uncles: (0..uncles).map(|number| ShareId([number; 32])).collect(),
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

#[test]
fn decoders_allocate_no_more_than_a_few_times_what_arrived() {
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    let (shortest, longest) = (a_share(0, 0), a_share(3, 16));
    assert!(shortest.len() == SHARE_BYTES_MIN && longest.len() <= SHARE_BYTES_MAX);
    // The counts that promise most, with much behind them, a little, and nothing.
    for command in Command::ALL {
        for count in [vec![0xfc], vec![0xfd, 0xff, 0xff], vec![0xfe, 0xff, 0xff, 0xff, 0xff], vec![0xff; 9]] {
            for behind in [0, 1, 31, 32, 80, 900, 20_000] {
                for before in [0, 32, 36, 40, 80] {
                    check(command, &[vec![7; before], count.clone(), vec![7; behind]].concat());
                }
            }
        }
        check(command, &vec![0; command.cap() + 1]);
    }
    // Honest lists, short and full.
    let counted = |count: usize| {
        let mut writer = Writer::default();
        writer.compact_size(count as u64);
        writer.into_bytes()
    };
    let most = SHARE_HEADERS_BYTES_MAX / shortest.len() - 1;
    let full = [counted(most), shortest.repeat(most)].concat();
    assert!(check(Command::ShareHeaders, &full));
    assert!(check(Command::ShareHeaders, &[&[1], &longest[..]].concat()));
    assert!(check(Command::GetData, &[counted(GETDATA_MAX), vec![7; 32 * GETDATA_MAX]].concat()));
    let addr = [&[1, 2, 3, 4, 9, 99, 0, 0, 1][..]].concat();
    assert!(check(Command::AddrV2, &[counted(ADDRS_MAX), addr.repeat(ADDRS_MAX)].concat()));
    assert!(check(Command::Share, &longest));
    // Anything.
    let mut read = 0;
    for round in 0..20_000 {
        let mut payload = match round % 3 {
            0 => vec![0; rng.next_u32() as usize % 2_000],
            1 => [&[2][..], &longest, &shortest].concat(),
            _ => longest.clone(),
        };
        if round % 3 == 0 {
            rng.fill_bytes(&mut payload);
        }
        for _ in 0..rng.next_u32() % 3 {
            let at = rng.next_u32() as usize % payload.len().max(1);
            if let Some(byte) = payload.get_mut(at) {
                *byte = rng.next_u32() as u8;
            }
        }
        let commands = [Command::ALL[rng.next_u32() as usize % Command::ALL.len()], Command::ShareHeaders, Command::Share];
        read += usize::from(check(commands[round % 3], &payload));
    }
    assert!(read > 5_000, "{read} were read");
}
