//! What must hold after every step, whatever goes wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use rockpool_net::id::ShareId;
use rockpool_net::limits::{OUTBOX_SUM_BYTES, RECEIVE_FREE_BYTES, RECEIVE_POOL_BYTES, TICKETS_ALL, worst_case_bytes};
use rockpool_net::wire::share::{Class, Script};
use rockpool_store::params::Params;
use rockpool_store::payouts::Payouts;
use rockpool_store::rules::window::{Level, Window, wanted_work};
use rockpool_store::view::ChainView;

use crate::host::{Machine, Process};

/// Tip changes between two recomputations of the payouts from genesis, where the chain only grew.
const RECOMPUTE_EVERY: u32 = 16;

/// What all nodes must agree on.
#[derive(Default)]
pub struct Agreed {
    /// Payouts at a share, as the first node saw them.
    payouts: BTreeMap<ShareId, Arc<[(Script, u128)]>>,
}

/// The hub's bounds after a turn.
pub fn hub(at: usize, process: &mut Process) {
    let (inbox, conns) = (process.hub.inbox(), process.hub.conns());
    let out = process.hub.outlet().tickets_out();
    assert!(inbox <= out && out <= TICKETS_ALL, "node {at}: {inbox} frames in the inbox, {out} tickets out");
    assert!(conns <= process.config.conns_max(), "node {at}: {conns} connections");
    let counters = process.hub.counters();
    let (pool, outboxes) = (counters.receive_pool.get(), counters.outbox_sum.get());
    assert!(pool <= RECEIVE_POOL_BYTES as u64, "node {at}: {pool} bytes in the pool");
    assert!(outboxes <= OUTBOX_SUM_BYTES as u64, "node {at}: {outboxes} bytes in outboxes");
    let held = pool + outboxes + (conns * RECEIVE_FREE_BYTES) as u64;
    assert!(held <= worst_case_bytes(&process.config), "node {at}: {held} bytes held");
    assert!(process.node.stopping().is_none(), "node {at} stops: {:?}", process.node.stopping());
    for why in process.stages.refused.drain(..) {
        // Somebody was faster, or a clock is wrong by hours, or the node slept while Bitcoin went on.
        let excused = ["inconclusive", "time-too-old", "time-too-new", "prev-blk-not-found"].iter().any(|excuse| why.starts_with(excuse));
        assert!(excused, "node {at}: Bitcoin refuses a block: {why}");
    }
}

/// The chain after a turn in which it may have changed.
pub fn chain(params: &Params, machine: &mut Machine, agreed: &mut Agreed) {
    let at = machine.at;
    let Some(process) = &mut machine.process else { return };
    let (view, index) = (&process.node.chain().view, process.stages.chain());
    let quiet = process.stages.quiet() && process.stages.due().is_none();
    if quiet {
        assert_eq!((view.tip().id, view.confirmed_tip().id), (index.tip().id, index.confirmed_tip().id), "view and index of node {at}");
    }
    let now = [view.tip().id, view.confirmed_tip().id];
    if now == process.checked {
        return;
    }
    let before = std::mem::replace(&mut process.checked, now);
    assert_eq!(view.sanity_check(), Ok(()), "view of node {at}");
    // No branch beside the best chain has more work, among others.
    assert_eq!(index.sanity_check(), Ok(()), "index of node {at}");
    assert!(view.confirmed_tip().score <= view.tip().score, "node {at}");
    if now[0] != before[0] {
        machine.acknowledged.retain(|(_, id)| view.get(id).is_some());
    }
    if now[1] != before[1] {
        let grew = view.get(&before[1]).is_some();
        payouts(params, view, !grew || view.confirmed_height().is_multiple_of(RECOMPUTE_EVERY), agreed);
    }
}

/// Payouts are those that every node has at this share, add up to what is paid, and follow from the chain.
pub fn payouts(params: &Params, view: &ChainView, recompute: bool, agreed: &mut Agreed) {
    let (tip, payouts) = (view.confirmed_tip(), view.payouts());
    let first = agreed.payouts.entry(tip.id).or_insert_with(|| Arc::clone(&payouts.weights));
    assert_eq!(**first, *payouts.weights, "payouts at {} depend on who computes them", tip.id);
    let height = tip.bitcoin_height() + 1;
    for fees in [0, 1, 12_345_678] {
        let value = params.subsidy(height) + fees;
        for class in Class::ALL {
            let outputs = payouts.outputs(params, class, value, height, &tip.script);
            assert_eq!(outputs.iter().map(|(_, sats)| sats).sum::<u64>(), value, "outputs at {}", tip.id);
            assert!(outputs.len() <= class.outputs(), "{} outputs of {class:?}", outputs.len());
        }
    }
    if recompute {
        let level = |height| Level::of(view.at_height(height).unwrap());
        let mut window = Window::new(0);
        for height in 1..=tip.height {
            window.push(params, wanted_work(params, view.at_height(height).unwrap()), level);
        }
        assert_eq!(**payouts, Payouts::new(tip, &window), "payouts at {} follow from the chain", tip.id);
    }
}
