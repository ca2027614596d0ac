//! The whole pool as the API tells of it: rates, luck, and what a miner may expect.

use rockpool_net::time::Now;
use rockpool_net::wire::share::{Class, Script};
use rockpool_store::blocks::FoundBlock;
use rockpool_store::params::Params;
use rockpool_store::view::ChainView;
use serde::Serialize;

use crate::blocks::Blocks;
use crate::config::Mode;
use crate::http::json::address;
use crate::http::miners::rounded;
use crate::http::payouts::next_height;
use crate::limits::LUCK_BLOCKS;
use crate::miners::Miners;
use crate::miners::pool::{PoolLine, block_work, chance, effort, hashes_of, height_at, next_bits, seconds};
use crate::miners::rates::{HASHES, HOUR};
use crate::status::Facts;
use crate::stratum::jobs::{own_payouts, share_difficulty};

/// Seconds between Bitcoin's blocks that its difficulty aims at.
const BLOCK_INTERVAL_S: f64 = 600.0;
const DAY_S: f64 = 86_400.0;
/// Parts of work that weights are counted in (SPEC, PAY-1).
const TENTHS: f64 = 10.0;

/// `GET /api/v1/pool`. What is not known, or would be without end, is null.
#[derive(Serialize)]
pub struct Pool {
    network: &'static str,
    time: u32,
    /// Seconds between shares that the share chain aims at.
    share_interval_s: u32,
    /// What a share takes at least now; null without a share chain.
    share_difficulty: Option<f64>,
    pool_rate: f64,
    pool_rate_1d: Option<f64>,
    own_rate: f64,
    miners_in_window: usize,
    shares_in_window: Option<u32>,
    uncles_in_window: Option<u64>,
    window_s: Option<u32>,
    network_difficulty: Option<f64>,
    network_rate: Option<f64>,
    /// Of Bitcoin's best block.
    block_height: Option<u32>,
    block_interval_s: f64,
    luck: Luck,
    expect: Expect,
    best: Best,
}

#[derive(Serialize)]
struct Luck {
    /// Work since the last block, of what one takes on average.
    effort_percent: Option<f64>,
    /// Since when: the last block, or the oldest share that is kept.
    since: Option<u32>,
    /// Newest first.
    blocks: Vec<LuckyBlock>,
}

#[derive(Serialize)]
struct LuckyBlock {
    height: u32,
    hash: String,
    effort_percent: Option<f64>,
    time: u32,
}

#[derive(Serialize)]
struct Expect {
    pool_block_s: Option<f64>,
    own_share_s: Option<f64>,
    own_block_solo_s: Option<f64>,
    /// What a block that is found now pays the addresses of our miners; null where the finder gets all of it.
    own_sats_next_block: Option<u64>,
    /// That a miner of ours finds a block in that time.
    chance_day: Option<f64>,
    chance_week: Option<f64>,
    chance_year: Option<f64>,
}

#[derive(Serialize)]
struct Best {
    session: Option<f64>,
    ever: Option<f64>,
    /// Whose the best ever is.
    address: Option<String>,
    worker: Option<String>,
    time: Option<u32>,
}

/// The pool at this moment.
pub fn pool(params: &Params, now: Now, line: &PoolLine, miners: &Miners, facts: Facts<'_>) -> Pool {
    let (view, mode) = (&facts.chain.view, facts.status.mode);
    let is_chain = mode == Mode::Chain;
    let block = block_work(view).map(|work| work as f64);
    let (own_rate, pool_rate) = (miners.totals().rates[HOUR], miners.pool_rate());
    let share_bits = view.confirmed_tip().allowed_bits;
    let share = Some(if share_bits == 0 { params.floor_bits } else { share_bits }).filter(|_| is_chain);
    let begin = is_chain.then(|| window_begin(line, view));
    let (top, before) = (view.confirmed_height(), begin.map(|begin| line.at(view, begin)));
    let best = miners.best();
    Pool {
        network: params.name,
        time: now.unix(),
        share_interval_s: params.interval_s,
        share_difficulty: share.map(share_difficulty),
        pool_rate: rounded(pool_rate),
        pool_rate_1d: miners.charts().pool_day().map(rounded),
        own_rate: rounded(own_rate),
        miners_in_window: match mode {
            Mode::Chain => view.payouts().weights.len(),
            Mode::Solo | Mode::Standalone => facts.status.credited.as_ref().map_or(0, |credited| credited.len()),
        },
        shares_in_window: begin.map(|begin| top - begin),
        uncles_in_window: before.map(|before| line.tip().uncles.saturating_sub(before.uncles)),
        // From the first share in it to now.
        window_s: begin.and_then(|begin| view.at_height(begin + 1)).map(|first| now.unix().saturating_sub(first.time)),
        // Difficulty as Bitcoin counts it: of the target, not of the work.
        network_difficulty: next_bits(view).map(share_difficulty),
        network_rate: block.map(|work| rounded(work / BLOCK_INTERVAL_S)),
        block_height: view.bitcoin().best().map(|best| best.height),
        block_interval_s: BLOCK_INTERVAL_S,
        luck: if is_chain { luck(line, view, block, facts.blocks) } else { Luck { effort_percent: None, since: None, blocks: Vec::new() } },
        expect: Expect {
            pool_block_s: seconds(block, pool_rate),
            own_share_s: seconds(share.map(|bits| share_difficulty(bits) * HASHES), own_rate),
            own_block_solo_s: seconds(block, own_rate),
            own_sats_next_block: own_sats(params, miners, facts),
            chance_day: chance(block, own_rate, DAY_S),
            chance_week: chance(block, own_rate, 7.0 * DAY_S),
            chance_year: chance(block, own_rate, 365.0 * DAY_S),
        },
        best: Best {
            session: best[1].map(|best| best.difficulty),
            ever: best[0].map(|best| best.difficulty),
            address: best[0].and_then(|best| address(&best.script, params)),
            worker: best[0].map(|best| best.name.to_string()),
            time: best[0].map(|best| best.time),
        },
    }
}

/// The height below the window's first share. Its weights are all the work in it: what an uncle leaves to its nephew is counted there.
fn window_begin(line: &PoolLine, view: &ChainView) -> u32 {
    let weights: f64 = view.payouts().weights.iter().map(|(_, weight)| *weight as f64).sum();
    line.begin(view, weights / TENTHS)
}

/// How much work each block took: what the chain holds since the block before it, of what one takes on average by the difficulty at its
/// height. Blocks that are no shares are not the pool's work. `block` is the work of the next.
fn luck(line: &PoolLine, view: &ChainView, block: Option<f64>, blocks: &Blocks) -> Luck {
    // A share tells its own place in the chain; an uncle, or one that is no longer kept, when it was heard of.
    let place = |found: &FoundBlock| view.get(&found.hash).map_or_else(|| height_at(view, found.time), |record| record.height);
    let lowest = view.lowest();
    let kept = |found: &FoundBlock| lowest.height == 0 || found.time > lowest.time;
    let found: Vec<&FoundBlock> = blocks.iter().filter(|found| found.is_share).take(LUCK_BLOCKS + 1).collect();
    let work = |found: &FoundBlock| line.at(view, place(found)).work;
    let all = found.iter().enumerate().take(LUCK_BLOCKS).map(|(at, newer)| {
        let before = match found.get(at + 1) {
            Some(older) => kept(older).then(|| work(older)),
            // The first of all: since the chain began, if that is still known.
            None => (lowest.height == 0).then(|| line.at(view, 0).work),
        };
        // Of its period's first block: its own bits may be those of minimum difficulty.
        let there = view.bitcoin().at_height(newer.height).and_then(|there| hashes_of(there.period_bits));
        let takes = block.and(there.or(block));
        let effort_percent = before.filter(|_| kept(newer)).and_then(|before| effort((work(newer) - before).max(0.0), takes));
        LuckyBlock { height: newer.height, hash: newer.hash.to_string(), effort_percent, time: newer.time }
    });
    let last = found.first().filter(|last| kept(last));
    let since = last.map_or_else(|| view.at_height(lowest.height.max(1)).map(|first| first.time), |last| Some(last.time));
    let done = line.tip().work - last.map_or(line.at(view, lowest.height).work, |last| work(last));
    Luck { effort_percent: effort(done.max(0.0), block).filter(|_| since.is_some()), since, blocks: all.collect() }
}

/// What the next block pays our miners' addresses, fees left out. Where all goes to its finder, nobody can say.
fn own_sats(params: &Params, miners: &Miners, facts: Facts<'_>) -> Option<u64> {
    let (view, status) = (&facts.chain.view, facts.status);
    let height = status.bitcoin.map_or_else(|| next_height(view.confirmed_tip(), view.bitcoin()), |(_, height)| height.saturating_add(1));
    let own = match status.mode {
        Mode::Chain => None,
        Mode::Solo => return None,
        Mode::Standalone => {
            let (prev, height) = status.bitcoin.unwrap_or_default();
            Some(own_payouts(prev, height, status.credited.as_ref()?))
        }
    };
    let payouts = own.as_ref().unwrap_or(view.payouts());
    if payouts.weights.is_empty() {
        return None;
    }
    let outputs = payouts.outputs(params, Class::N12, params.subsidy(height), height, &Script::P2wpkh([0; 20]));
    Some(outputs.iter().filter(|(script, _)| miners.is_own(script)).map(|(_, sats)| sats).sum())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{Grower, HTTP, Recorder, STRATUM, World, block_found};

    fn pool(world: &mut World<Recorder>) -> Value {
        world.pass(Duration::from_secs(2));
        let conn = world.connect(HTTP);
        world.feed(conn, b"GET /api/v1/pool HTTP/1.1\r\nHost: localhost\r\n\r\n");
        world.turns();
        let text = String::from_utf8(world.taken(conn)).unwrap();
        serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// What is told of luck where a block takes so much work.
    fn lucky(world: &World<Recorder>, block: Option<f64>) -> Value {
        let view = &world.node.chain().view;
        let mut line = PoolLine::default();
        line.follow(view);
        serde_json::to_value(luck(&line, view, block, &world.node.blocks)).unwrap()
    }

    /// Efforts by hand: of every share's work between two blocks, of what a block takes on average.
    #[test]
    fn luck_is_work_between_blocks_of_what_one_takes() {
        let mut world = World::recorded(&[], true);
        let shares = Grower::new().grow_many(60, Script::P2wpkh([1; 20]));
        world.confirm(&shares);
        let work = |world: &World<Recorder>, from: u32, to: u32| -> f64 {
            (from..=to).map(|height| world.node.chain().view.at_height(height).unwrap().work() as f64).sum()
        };
        // Regtest's bits are 0x207fffff: ⌊2²⁵⁶ / (0x7fffff × 2²³² + 1)⌋ = 2 hashes a block.
        let percent = |work: f64| 100.0 * work / 2.0;
        let before = lucky(&world, Some(2.0));
        assert_eq!((&before["effort_percent"], &before["blocks"]), (&json!(percent(work(&world, 1, 60))), &json!([])));
        assert_eq!(before["since"], json!(shares[0].time), "since the chain began");
        let conn = world.connect(STRATUM);
        for height in [5, 12, 30] {
            let share = shares[height as usize - 1].clone();
            world.mail(block_found(conn, share.id(), height, Some(share)), Vec::new());
        }
        let told = lucky(&world, Some(2.0));
        let blocks = told["blocks"].as_array().unwrap();
        let efforts: Vec<_> = blocks.iter().map(|block| (block["height"].clone(), block["effort_percent"].as_f64().unwrap())).collect();
        let by_hand = [(30, 13, 30), (12, 6, 12), (5, 1, 5)].map(|(height, from, to)| (json!(height), percent(work(&world, from, to))));
        assert_eq!(efforts, by_hand);
        assert_eq!(told["effort_percent"], json!(percent(work(&world, 31, 60))));

        // Here every share is a block: nothing that follows from what a block takes is told.
        let told = pool(&mut world);
        let (expect, luck) = (&told["expect"], &told["luck"]);
        for wrong in ["pool_block_s", "own_block_solo_s", "chance_day", "chance_week", "chance_year"] {
            assert_eq!(expect[wrong], json!(null), "{wrong}");
        }
        assert_eq!((&luck["effort_percent"], &luck["blocks"][0]["effort_percent"]), (&json!(null), &json!(null)));
        assert_eq!((&told["network_rate"], told["network_difficulty"].is_number()), (&json!(null), true));

        let (first, last) = (shares[0].time, told["time"].as_u64().unwrap() as u32);
        let rate = work(&world, 2, 60) / f64::from(last.max(shares[59].time) - first);
        assert!((told["pool_rate"].as_f64().unwrap() / rate - 1.0).abs() < 0.1, "{} and {rate}", told["pool_rate"]);
        assert_eq!((&told["own_rate"], &expect["own_share_s"], &expect["own_sats_next_block"]), (&json!(0.0), &json!(null), &json!(0)));
        assert_eq!((&told["shares_in_window"], &told["miners_in_window"]), (&json!(60), &json!(1)));
        assert_eq!(told["block_height"], json!(0));
        // As many as are told of, the newest.
        for share in &shares[30..60] {
            world.mail(block_found(conn, share.id(), share.height, Some(share.clone())), Vec::new());
        }
        let told = lucky(&world, Some(2.0));
        let blocks = told["blocks"].as_array().unwrap();
        assert_eq!((blocks.len(), &blocks[0]["height"], &blocks[LUCK_BLOCKS - 1]["height"]), (LUCK_BLOCKS, &json!(60), &json!(41)));
        assert!(blocks.iter().all(|block| block["effort_percent"].as_f64().unwrap() > 0.0));
    }
}
