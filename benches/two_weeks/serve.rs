//! What the reactor does for a peer that syncs: one `shareheaders` after the other, from memory, and the look-ups that this is made of.

use std::sync::Arc;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rockpool::limits::{BTC_HEADERS_ALONG_MAX, SYNC_SHARES};
use rockpool_net::id::ShareId;
use rockpool_net::wire::message::Message;
use rockpool_store::handle::{ChainStoreHandle, Found, StoreHandle};
use rockpool_store::kv::Kv;

use crate::figures::{Times, goal, info};
use crate::report::Figure;
use crate::{Bench, Outcome};

/// Places in the chain at which a peer may be, and messages assembled at each while its rows are in memory.
const PLACES: usize = 40;
const TIMES: usize = 25;
/// Look-ups of each kind.
const LOOKUPS: usize = 20_000;
/// A look-up is done so many times for one reading of the clock.
const AT_ONCE: usize = 20;

/// Rows of what is served.
pub fn figures(bench: &Bench) -> Outcome<Vec<Figure>> {
    let (chain, kv) = bench.open()?;
    let handle = ChainStoreHandle::new(chain.view(), StoreHandle::new(Arc::<rockpool_store::rocks::RocksKv>::clone(&kv) as Arc<dyn Kv>));
    drop(chain);
    let (mut rng, tip) = (ChaCha12Rng::seed_from_u64(5), handle.view.confirmed_height());
    let (mut all, mut range, mut reads, mut encode) = (Times::default(), Times::default(), Times::default(), Times::default());
    let mut bytes_of_one = Times::default();
    for _ in 0..PLACES {
        let first = 1 + rng.next_u32() % (tip - SYNC_SHARES as u32);
        let rows = handle.range(first, SYNC_SHARES);
        for (height, id) in &rows {
            handle.store.get_share(*height, id)?.ok_or_else(|| format!("share {id} of height {height} has no row"))?;
        }
        for _ in 0..TIMES {
            let message = all.of(|| assemble(&handle, bench.made.params.magic, first))?;
            if message < SYNC_SHARES / 2 {
                return Err(format!("a message of {message} shares, the rest was not in memory").into());
            }
            let rows = range.of(|| handle.range(first, SYNC_SHARES));
            let shares = reads.of(|| bytes(&handle, &rows))?;
            encode.of(|| Message::share_headers_from_bytes(bench.made.params.magic, shares.iter().cloned()));
        }
        for _ in 0..LOOKUPS / PLACES / AT_ONCE {
            let (height, id) = rows[rng.next_u32() as usize % rows.len()];
            bytes_of_one.of(|| (0..AT_ONCE).filter(|_| matches!(handle.bytes_at(height, &id), Ok(Found::Bytes(_)))).count());
        }
    }
    let mut figures = vec![
        info("shareheaders, warm, p50", all.us(0.5) / 1e3, "ms"),
        goal("shareheaders, warm, p99", all.us(0.99) / 1e3, "ms", 2.0),
        info("shareheaders: which, p50", range.us(0.5), "us"),
        info("shareheaders: their bytes out of RocksDB's cache, p50", reads.us(0.5), "us"),
        info("shareheaders: encoding, p50", encode.us(0.5), "us"),
        goal("look-up: bytes of one share, cached, p50", bytes_of_one.us(0.5) / AT_ONCE as f64, "us", 10.0),
    ];
    figures.extend(lookups(&handle, &mut rng));
    Ok(figures)
}

/// One message as `src/peer/serve.rs` makes it. Returns how many shares it holds.
fn assemble(handle: &ChainStoreHandle, magic: [u8; 4], first: u32) -> Outcome<usize> {
    let rows = handle.range(first, SYNC_SHARES);
    let shares = bytes(handle, &rows)?;
    let (mut headers, mut last) = (Vec::new(), None);
    for prev in shares.iter().filter_map(|bytes| <[u8; 32]>::try_from(bytes.get(4..36)?).ok()) {
        if last.replace(prev) != Some(prev) {
            headers.extend(handle.view.headers_between(first - 1, &prev, BTC_HEADERS_ALONG_MAX - headers.len()));
        }
    }
    let (message, count) = Message::share_headers_from_bytes(magic, shares);
    std::hint::black_box((message, headers));
    Ok(count)
}

fn bytes(handle: &ChainStoreHandle, rows: &[(u32, ShareId)]) -> Outcome<Vec<Arc<[u8]>>> {
    let mut shares = Vec::with_capacity(rows.len());
    for (height, id) in rows {
        match handle.bytes_at(*height, id)? {
            Found::Bytes(bytes) => shares.push(bytes),
            _ => break,
        }
    }
    Ok(shares)
}

/// Look-ups in the view.
fn lookups(handle: &ChainStoreHandle, rng: &mut ChaCha12Rng) -> Vec<Figure> {
    let view = &handle.view;
    let tip = view.confirmed_height();
    let (mut by_id, mut by_height, mut locator, mut fork) = (Times::default(), Times::default(), Times::default(), Times::default());
    let theirs = view.locator();
    for _ in 0..LOOKUPS / AT_ONCE {
        let heights: Vec<u32> = (0..AT_ONCE).map(|_| 1 + rng.next_u32() % tip).collect();
        let ids: Vec<ShareId> = heights.iter().filter_map(|height| view.at_height(*height)).map(|record| record.id).collect();
        by_id.of(|| ids.iter().filter(|id| view.get(id).is_some()).count());
        by_height.of(|| heights.iter().filter(|height| view.at_height(**height).is_some()).count());
        locator.of(|| view.locator());
        fork.of(|| view.find_fork(&theirs));
    }
    let of_one = |times: &mut Times| times.us(0.5) / AT_ONCE as f64;
    vec![
        goal("look-up: view by id, p50", of_one(&mut by_id), "us", 10.0),
        goal("look-up: view by height, p50", of_one(&mut by_height), "us", 10.0),
        goal("look-up: locator, p50", locator.us(0.5), "us", 10.0),
        goal("look-up: fork by a locator, p50", fork.us(0.5), "us", 10.0),
    ]
}
