//! What happens at the tip: payouts for a new template, a peer's share that is taken, a reorg.

use std::sync::Arc;

use rockpool_net::wire::share::{Class, Script, Share};
use rockpool_store::bitcoin::Block;
use rockpool_store::chain::{Chain, Offer, Source};
use rockpool_store::kv::{Family, Op};
use rockpool_store::params::{Network, params};
use rockpool_store::payouts::Payouts;
use rockpool_store::rules::draw;
use rockpool_store::rules::window::{Level, Window, wanted_work};
use rockpool_store::view::ChainView;

use crate::fed::PEER;
use crate::figures::{Times, clock, goal, info};
use crate::line::{Line, MINERS};
use crate::made::LATE;
use crate::report::Figure;
use crate::{Bench, Outcome};

/// Tips whose payouts are computed.
const TIPS: u32 = 1_000;
/// Peers' shares that are taken at the tip.
const TAKEN: u32 = 2_000;
/// Depth of a reorg, and how many are made.
const DEPTH: u32 = 100;
const REORGS: u64 = 8;
/// Value and Bitcoin height of a block of main's in 2026.
const VALUE: u64 = 320_000_000;
const HEIGHT: u32 = 950_000;

/// Payouts for a new template, for each class: with what regtest pays, with what main pays, and with many more miners.
pub fn payouts(bench: &Bench) -> Outcome<Vec<Figure>> {
    let (chain, _) = bench.open()?;
    let regtest = bench.made.params;
    // As many heights as there are, all in the window, which moves on by one and drops one.
    let mut full = regtest.clone();
    (full.window_min, full.window_max) = (bench.made.heights - TIPS, bench.made.heights - TIPS);
    let (mut window, mut moves) = (Window::new(0), Times::default());
    let mut figures = Vec::new();
    let mut tips = Vec::new();
    for height in 1..=bench.made.heights {
        let Some(record) = chain.at_height(height) else { return Err(format!("there is no height {height}").into()) };
        let level = |height: u32| chain.at_height(height).map_or(Level::NONE, |record| Level::of(record));
        let wanted = wanted_work(&full, record);
        if height <= full.window_max {
            window.push(&full, wanted, level);
            continue;
        }
        let payouts = moves.of(|| {
            window.push(&full, wanted, level);
            Payouts::new(record, &window)
        });
        tips.push((payouts, record.bitcoin_height()));
    }
    let scripts = tips.last().map_or(0, |(payouts, _)| payouts.weights.len());
    if scripts != MINERS {
        return Err(format!("{scripts} scripts in the full window").into());
    }
    let own = Script::P2wpkh([7; 20]);
    for class in Class::ALL {
        let (mut here, mut main) = (Times::default(), Times::default());
        for (payouts, height) in &tips {
            here.of(|| payouts.outputs(regtest, class, regtest.subsidy(*height) + 1, *height, &own));
            main.of(|| payouts.outputs(params(Network::Main), class, VALUE, HEIGHT, &own));
        }
        figures.push(goal(&format!("payouts, {MINERS} miners, {class:?}, main"), main.us(0.5), "us", 100.0));
        figures.push(goal(&format!("payouts, {MINERS} miners, {class:?}, regtest at its end"), here.us(0.5), "us", 100.0));
    }
    figures.push(info("payouts: the full window moves on and is summed up", moves.us(0.5), "us"));
    figures.extend(crowd());
    Ok(figures)
}

/// A thousand miners.
fn crowd() -> Vec<Figure> {
    let script = |number: u32| {
        let mut program = [0; 32];
        program[..4].copy_from_slice(&number.to_be_bytes());
        Script::P2tr(program)
    };
    let weights: Vec<(Script, u128)> = (0..1_000).map(|number| (script(number), 10_000_000_000 / (u128::from(number) + 3))).collect();
    let mut figures = Vec::new();
    for class in [Class::N12, Class::N360] {
        let mut times = Times::default();
        for number in 0..TIPS {
            let parent = rockpool_net::id::ShareId(rockpool_net::sha256::sha256(&number.to_le_bytes()));
            times.of(|| draw::pay(&draw::draw(&weights, &parent, 10_000, 312_500_000, class), VALUE));
        }
        figures.push(info(&format!("payouts, 1000 miners, {class:?}, main"), times.us(0.5), "us"));
    }
    figures
}

/// Shares of a peer at the tip, then reorgs.
pub fn accept(bench: &Bench) -> Outcome<Vec<Figure>> {
    let (mut chain, _) = bench.open()?;
    // What was beside the chain is proved anew after a start.
    while chain.has_unproven() {
        chain.confirm(1);
    }
    let mut view = chain.view();
    chain.take_change();
    let mut figures = take(bench, &mut chain, &mut view)?;
    figures.extend(reorgs(bench, &mut chain, &mut view)?);
    Ok(figures)
}

fn take(bench: &Bench, chain: &mut Chain, view: &mut ChainView) -> Outcome<Vec<Figure>> {
    let mut line = Line::of(bench.made.params, chain, chain.confirmed_height(), 6);
    let bitcoin = newest_block(chain);
    let (mut offers, mut confirms, mut changes, mut applies, mut all) =
        (Times::default(), Times::default(), Times::default(), Times::default(), Times::default());
    for _ in 0..TAKEN {
        let mut shares = Vec::new();
        line.grow(&bitcoin, &mut shares);
        for share in shares {
            let begin = clock();
            let offer = offers.of(|| chain.offer(LATE, &share, Source::Peer));
            confirms.of(|| while chain.has_unproven() && chain.confirm(1) > 0 {});
            let change = changes.of(|| chain.take_change()).ok_or("nothing changed")?;
            applies.of(|| view.apply(&change.0));
            all.push(begin.elapsed());
            if offer != Offer::Taken {
                return Err(format!("a peer's share: {offer:?}").into());
            }
            for batch in change.1 {
                view.stored(&batch.ids);
            }
        }
    }
    if view.confirmed_tip().id != line.tip().id {
        return Err("the chain did not follow".into());
    }
    Ok(vec![
        goal("peer's share at the tip, mean", all.mean_us(), "us", 300.0),
        goal("peer's share at the tip, p50", all.us(0.5), "us", 300.0),
        info("peer's share at the tip, p99", all.us(0.99), "us"),
        info("peer's share: tied and put in place, mean", offers.mean_us(), "us"),
        info("peer's share: coinbase rebuilt, mean", confirms.mean_us(), "us"),
        info("peer's share: the change taken, mean", changes.mean_us(), "us"),
        info("peer's share: the view follows, mean", applies.mean_us(), "us"),
    ])
}

/// Branches that part from the chain below the tip and become better than it, as a sync brings them.
fn reorgs(bench: &Bench, chain: &mut Chain, view: &mut ChainView) -> Outcome<Vec<Figure>> {
    let (mut times, mut told, mut tips) = (Times::default(), Times::default(), 0);
    for round in 0..REORGS {
        let (fork, score) = (chain.confirmed_height() - DEPTH, chain.tip().score);
        let mut line = Line::of(bench.made.params, chain, fork, 7 + round);
        let bitcoin = newest_block(chain);
        let mut shares: Vec<Share> = Vec::new();
        while line.tip().score <= score {
            line.grow(&bitcoin, &mut shares);
        }
        // The one that makes the branch better, behind all others.
        let last = shares.iter().position(|share| share.id() == line.tip().id).ok_or("no last share")?;
        let last = shares.remove(last);
        chain.begin_sync(PEER);
        for share in &shares {
            match chain.offer(LATE, share, Source::Bulk(PEER)) {
                Offer::Taken => {}
                other => return Err(format!("a share of the branch: {other:?}").into()),
            }
        }
        if let Some((change, _)) = chain.take_change() {
            view.apply(&change);
        }
        let begin = clock();
        chain.offer(LATE, &last, Source::Bulk(PEER));
        while chain.backlog() > 0 {
            chain.confirm(8);
        }
        let (change, batches) = chain.take_change().ok_or("nothing changed")?;
        told.push(begin.elapsed());
        let depth = view.apply(&change);
        times.push(begin.elapsed());
        chain.end_sync();
        if depth < DEPTH || view.confirmed_tip().id != last.id() {
            return Err(format!("a reorg of depth {depth}, confirmed height {}", view.confirmed_height()).into());
        }
        let tip_rows = |op: &Op| matches!(op, Op::Put(Family::Meta, key, _) if key == b"tip");
        tips = tips.max(batches.iter().filter(|batch| batch.ops.iter().any(tip_rows)).count());
    }
    Ok(vec![
        goal("reorg of depth 100, p50", times.us(0.5) / 1e3, "ms", 50.0),
        goal("reorg of depth 100, the longest", times.us(1.0) / 1e3, "ms", 50.0),
        goal("reorg of depth 100: batches that hold the tip row", tips as f64, "batches", 1.0),
    ])
}

/// The best Bitcoin block that the tip's ancestors built on.
pub fn newest_block(chain: &Chain) -> Arc<Block> {
    Arc::clone(&chain.confirmed_tip().bitcoin)
}
