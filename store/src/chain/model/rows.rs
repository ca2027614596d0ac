//! Rows that say anything: a start refuses them with a sentence or makes a chain of them, and never panics.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::node::{Node, late};
use super::world::World;
use crate::chain::{Chain, Source};
use crate::kv::{Family, Kv, MemKv, Op};
use crate::schema;

const FAMILIES: [Family; 3] = [Family::Shares, Family::Bitcoin, Family::Meta];

type Row = (Family, Vec<u8>, Vec<u8>);

fn rows(kv: &dyn Kv) -> Vec<Row> {
    let mut rows = Vec::new();
    for family in FAMILIES {
        kv.scan(family, &[], &mut |key, value| {
            rows.push((family, key.to_vec(), value.to_vec()));
            true
        })
        .unwrap();
    }
    rows
}

fn mutate(rng: &mut ChaCha12Rng, bytes: &mut Vec<u8>) {
    let at = rng.next_u32() as usize % (bytes.len() + 1);
    match rng.next_u32() % 6 {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, rng.next_u32() as u8),
        2 => bytes.extend_from_within(at..),
        3 => bytes.clear(),
        _ if at < bytes.len() => bytes[at] ^= 1 << (rng.next_u32() % 8),
        _ => bytes.push(0),
    }
}

/// A store with a chain, uncles and side shares, its tip row and, where `based`, a base row.
fn a_store(seed: u64, based: bool) -> (World, Vec<Row>) {
    let mut world = World::new(seed);
    let mut node = Node::new(world.slow.params);
    for _ in 0..40 {
        let id = world.make_share();
        let headers: Vec<[u8; 80]> = world.blocks[1..].iter().map(|hash| world.slow.blocks[hash].header).collect();
        node.chain.offer_blocks(&headers);
        node.chain.offer(late(), world.slow.share(&id), Source::Own);
        node.chain.confirm(2);
    }
    for batch in node.chain.take_change().unwrap().1 {
        node.kv.write(&batch.ops, true).unwrap();
    }
    if based {
        let low = node.chain.at_height(node.chain.confirmed_height() / 2).unwrap();
        node.kv.write(&[schema::put_base(low.height, &low.id)], true).unwrap();
    }
    let rows = rows(&node.kv);
    (world, rows)
}

#[test]
fn rows_that_say_anything_are_refused_or_make_a_whole_chain() {
    let (mut refused, mut opened) = (0, 0);
    for seed in 0..12 {
        let (world, rows) = a_store(seed, seed % 3 == 0);
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        for _ in 0..150 {
            let mut changed = rows.clone();
            for _ in 0..1 + rng.next_u32() % 3 {
                // The few rows of the meta family come as often as all others.
                let metas = changed.iter().filter(|row| row.0 == Family::Meta).count();
                let from = if rng.next_u32() % 2 == 0 { changed.len() - metas } else { 0 };
                let at = from + rng.next_u32() as usize % (changed.len() - from).max(1);
                let Some(row) = changed.get_mut(at) else { continue };
                match rng.next_u32() % 8 {
                    0 => drop(changed.remove(at)),
                    1 => mutate(&mut rng, &mut row.1),
                    _ => mutate(&mut rng, &mut row.2),
                }
            }
            let kv = MemKv::new();
            let ops: Vec<Op> = changed.into_iter().map(|(family, key, value)| Op::Put(family, key, value)).collect();
            kv.write(&ops, true).unwrap();
            match Chain::open(world.slow.params, [1, 2], &kv) {
                Ok(mut chain) => {
                    opened += 1;
                    chain.sanity_check().unwrap();
                    while chain.confirm(8) > 0 {}
                    chain.sanity_check().unwrap();
                    let _ = chain.take_change();
                }
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().is_empty());
                }
            }
        }
    }
    assert!(refused > 100 && opened > 100, "{refused} refused, {opened} opened");
}

#[test]
fn tip_and_base_rows_are_refused_or_read_exactly() {
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    for round in 0..2_000u32 {
        let mut bytes = vec![0; [72, 36, rng.next_u32() as usize % 100][round as usize % 3]];
        rng.fill_bytes(&mut bytes);
        let kv = MemKv::new();
        let keys = [&b"tip"[..], b"base"];
        kv.write(&keys.map(|key| Op::Put(Family::Meta, key.to_vec(), bytes.clone())), true).unwrap();
        match schema::tip(&kv) {
            Ok(row) => assert_eq!(row.unwrap().put(), Op::Put(Family::Meta, b"tip".to_vec(), bytes.clone())),
            Err(_) => assert_ne!(bytes.len(), 72),
        }
        match schema::base(&kv) {
            Ok(base) => {
                let (height, id) = base.unwrap();
                assert_eq!(schema::put_base(height, &id), Op::Put(Family::Meta, b"base".to_vec(), bytes));
            }
            Err(_) => assert_ne!(bytes.len(), 36),
        }
    }
}
