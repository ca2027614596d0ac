//! The chain as it is drawn: the confirmed shares of a range with the uncles that they credit, and what stands beside them. From memory
//! alone, however far down it is asked for.

use std::collections::{BTreeSet, VecDeque};

use bitcoin::hex::DisplayHex;
use rockpool_net::id::ShareId;
use rockpool_net::wire::share::{Script, Share};
use rockpool_store::params::Params;
use rockpool_store::rules::target::target;
use rockpool_store::view::ChainView;
use serde::Serialize;

use crate::http::json::address;
use crate::limits::{BESIDE_LISTED_MAX, OWN_SHARES_KEPT};
use crate::stratum::difficulty::difficulty_of;

/// Shares that this node's miners made since its start, the oldest forgotten first.
#[derive(Debug, Default)]
pub struct OwnShares {
    ids: BTreeSet<ShareId>,
    order: VecDeque<ShareId>,
}

impl OwnShares {
    /// One more.
    pub fn remember(&mut self, id: ShareId) {
        if !self.ids.insert(id) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > OWN_SHARES_KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    /// Whether it is one of them.
    pub fn contains(&self, id: &ShareId) -> bool {
        self.ids.contains(id)
    }
}

/// `GET /api/v1/chain`.
#[derive(Debug, Serialize)]
pub struct ChainPage {
    network: &'static str,
    /// Height of the share that the chain begins with; 0 is genesis.
    lowest: u32,
    /// Height of the confirmed tip.
    height: u32,
    /// The newest first.
    shares: Vec<Listed>,
    /// Shares of these heights that are neither of the chain nor credited by a listed one, the highest first; the lowest are left out
    /// where they are too many.
    beside: Vec<Aside>,
}

#[derive(Debug, Serialize)]
struct Listed {
    height: u32,
    id: String,
    parent: String,
    /// Unix seconds.
    time: u32,
    difficulty: f64,
    address: Option<String>,
    script: String,
    /// One of this node's miners made it, as far as it is remembered.
    own: bool,
    /// Height of the Bitcoin block that it tried to be.
    bitcoin_height: u32,
    uncles: Vec<Credited>,
}

#[derive(Debug, Serialize)]
struct Credited {
    id: String,
    height: u32,
    difficulty: f64,
    address: Option<String>,
    own: bool,
}

#[derive(Debug, Serialize)]
struct Aside {
    id: String,
    parent: String,
    height: u32,
    /// Unix seconds.
    time: u32,
    difficulty: f64,
    address: Option<String>,
    own: bool,
}

/// Heights of the confirmed chain from this one on down, so many at most, highest first.
pub fn heights(view: &ChainView, from: u32, count: usize) -> impl Iterator<Item = u32> + use<> {
    (view.lowest().height.max(1)..=view.confirmed_height().min(from)).rev().take(count)
}

/// The shares from this height on down, so many at most.
pub fn page(params: &Params, view: &ChainView, own: &OwnShares, from: u32, count: usize) -> ChainPage {
    let records: Vec<_> = heights(view, from, count).filter_map(|height| view.at_height(height)).collect();
    let payee = |script: &Script| address(script, params);
    let shares = records.iter().map(|record| Listed {
        height: record.height,
        id: record.id.to_string(),
        parent: record.parent.to_string(),
        time: record.time,
        difficulty: difficulty(record.bits),
        address: payee(&record.script),
        script: record.script.script_pubkey().to_lower_hex_string(),
        own: own.contains(&record.id),
        bitcoin_height: record.bitcoin_height(),
        uncles: record
            .uncles()
            .iter()
            .map(|uncle| Credited {
                id: uncle.id.to_string(),
                height: uncle.height,
                difficulty: difficulty(uncle.bits),
                address: payee(&uncle.script),
                own: own.contains(&uncle.id),
            })
            .collect(),
    });
    ChainPage {
        network: params.name,
        lowest: view.lowest().height,
        height: view.confirmed_height(),
        shares: shares.collect(),
        beside: records.last().map_or_else(Vec::new, |lowest| aside(params, view, own, lowest.height..=from)),
    }
}

fn aside(params: &Params, view: &ChainView, own: &OwnShares, heights: std::ops::RangeInclusive<u32>) -> Vec<Aside> {
    let (lowest, top) = (*heights.start(), view.confirmed_height().min(*heights.end()));
    let credited: BTreeSet<ShareId> =
        (lowest..=top).filter_map(|height| view.at_height(height)).flat_map(|record| record.uncles()).map(|uncle| uncle.id).collect();
    let of_range = view.all_beside().rev().map(|beside| &beside.record).filter(|record| heights.contains(&record.height));
    let listed = of_range.filter(|record| !credited.contains(&record.id)).take(BESIDE_LISTED_MAX).map(|record| Aside {
        id: record.id.to_string(),
        parent: record.parent.to_string(),
        height: record.height,
        time: record.time,
        difficulty: difficulty(record.bits),
        address: address(&record.script, params),
        own: own.contains(&record.id),
    });
    listed.collect()
}

/// `GET /api/v1/headers`: raw material for scripts.
#[derive(Debug, Serialize)]
pub struct HeaderView {
    height: u32,
    id: String,
    parent: String,
    /// Unix seconds.
    time: u32,
    /// Compact target, eight hexadecimal digits.
    bits: String,
    /// The 80 bytes of Bitcoin's header, in hexadecimal digits.
    header: String,
    score: u128,
    /// Seconds that the chain runs ahead of its schedule.
    lead: u32,
}

/// Headers of shares.
pub fn headers(shares: &[Share]) -> Vec<HeaderView> {
    let header = |share: &Share| HeaderView {
        height: share.height,
        id: share.id().to_string(),
        parent: share.parent.to_string(),
        time: share.time,
        bits: format!("{:08x}", share.bits),
        header: share.header.to_lower_hex_string(),
        score: share.score,
        lead: share.lead,
    };
    shares.iter().map(header).collect()
}

/// Difficulty of a compact target, as Bitcoin counts it.
pub fn difficulty(bits: u32) -> f64 {
    target(bits).map_or(0.0, |target| difficulty_of(&target.to_le_bytes()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};
    use rockpool_net::time::Now;
    use rockpool_store::chain::{Chain, Offer, Source};
    use rockpool_store::kv::MemKv;
    use rockpool_store::limits::BESIDE_DEPTH;
    use rockpool_store::params::{Network, params};
    use rockpool_store::testing::ShareBuilder;
    use serde_json::Value;

    use super::*;

    const LATE: Now = Now { mono: Duration::ZERO, wall: Duration::from_secs(2_000_000_000) };

    /// All that was ever offered, and the view of it.
    struct Model {
        params: &'static Params,
        shares: BTreeMap<ShareId, Share>,
        own: OwnShares,
        view: ChainView,
    }

    impl Model {
        /// A chain with forks and uncles.
        fn grown(seed: u64, steps: u32) -> Model {
            let (params, mut rng) = (params(Network::Regtest), ChaCha12Rng::seed_from_u64(seed));
            let mut chain = Chain::open(params, [1, 2], &MemKv::new()).unwrap();
            let (mut view, mut own, mut shares) = (chain.view(), OwnShares::default(), BTreeMap::new());
            for salt in 0..steps {
                let tip = chain.tip().clone();
                // Now and then a sibling of the tip, else its child with the uncles that there are.
                let fork = tip.height > 2 && rng.next_u32() % 3 == 0;
                let builder = ShareBuilder::new(params).miner((rng.next_u32() % 5) as u8).salt(salt);
                let share = if fork {
                    builder.build(&chain, &tip.parent)
                } else {
                    let next = view.next(params, LATE);
                    let uncles = if next.parent == tip.id && rng.next_u32() % 2 == 0 { next.uncles } else { Vec::new() };
                    builder.uncles(&uncles).build(&chain, &tip.id)
                };
                assert_eq!(chain.offer(LATE, &share, Source::Peer), Offer::Taken);
                while chain.confirm(8) > 0 {}
                view.apply(&chain.take_change().unwrap().0);
                if rng.next_u32() % 4 == 0 {
                    own.remember(share.id());
                }
                shares.insert(share.id(), share);
            }
            Model { params, shares, own, view }
        }

        /// The confirmed chain, the highest first, by its shares alone.
        fn chain(&self) -> Vec<&Share> {
            let below = |share: &&Share| self.shares.get(&share.parent);
            std::iter::successors(self.shares.get(&self.view.confirmed_tip().id), below).collect()
        }

        fn page(&self, from: u32, count: usize) -> Value {
            serde_json::to_value(page(self.params, &self.view, &self.own, from, count)).unwrap()
        }
    }

    fn texts<'a>(list: &'a Value, name: &str) -> Vec<&'a str> {
        list.as_array().unwrap().iter().map(|row| row[name].as_str().unwrap()).collect()
    }

    /// Whatever range is asked for, it is what a walk over all shares finds.
    #[test]
    fn every_range_is_that_of_a_slow_walk() {
        for seed in 0..4 {
            let model = Model::grown(seed, 120);
            let chain = model.chain();
            let top = chain[0].height;
            assert!(chain.len() > 60 && chain.iter().any(|share| !share.uncles.is_empty()), "uncles are there");
            let mut rng = ChaCha12Rng::seed_from_u64(seed + 100);
            let drawn = (0..300).map(|_| (rng.next_u32() % (top + 10), (rng.next_u32() % 201) as usize)).collect::<Vec<_>>();
            let (mut asides, mut owned) = (0, 0);
            for (from, count) in drawn.into_iter().chain([(u32::MAX, 200), (0, 200), (top, 0), (1, 1)]) {
                let got = model.page(from, count);
                let wanted: Vec<&&Share> = chain.iter().filter(|share| share.height <= from).take(count).collect();
                assert_eq!((&got["height"], &got["lowest"], &got["network"]), (&top.into(), &0.into(), &"regtest".into()));
                let ids: Vec<String> = wanted.iter().map(|share| share.id().to_string()).collect();
                assert_eq!(texts(&got["shares"], "id"), ids, "from {from}, {count}");
                for (row, share) in got["shares"].as_array().unwrap().iter().zip(&wanted) {
                    assert_eq!((&row["height"], &row["time"]), (&share.height.into(), &share.time.into()));
                    assert_eq!((&row["parent"], &row["own"]), (&share.parent.to_string().into(), &model.own.contains(&share.id()).into()));
                    assert_eq!(row["bitcoin_height"], share.bitcoin_height);
                    assert_eq!(row["script"], share.script.script_pubkey().to_lower_hex_string());
                    assert!(row["address"].as_str().unwrap().starts_with("bcrt1q") && row["difficulty"].as_f64().unwrap() > 0.0);
                    let uncles: Vec<String> = share.uncles.iter().map(ShareId::to_string).collect();
                    assert_eq!(texts(&row["uncles"], "id"), uncles);
                    for (row, id) in row["uncles"].as_array().unwrap().iter().zip(&share.uncles) {
                        assert_eq!((&row["height"], &row["own"]), (&model.shares[id].height.into(), &model.own.contains(id).into()));
                    }
                    owned += usize::from(row["own"] == true);
                }
                let Some(low) = wanted.last().map(|share| share.height) else {
                    assert_eq!(got["beside"], Value::Array(Vec::new()));
                    continue;
                };
                let listed = |id: &ShareId| chain.iter().any(|share| share.id() == *id);
                let credited = |id: &ShareId| wanted.iter().any(|share| share.uncles.contains(id));
                let near = top.saturating_sub(BESIDE_DEPTH);
                let beside = model
                    .shares
                    .iter()
                    .filter(|(id, share)| share.height > near && (low..=from).contains(&share.height) && !listed(id) && !credited(id));
                let mut beside: Vec<_> = beside.map(|(id, share)| (share.height, *id)).collect();
                beside.sort_unstable_by(|a, b| b.cmp(a));
                let ids: Vec<String> = beside.iter().map(|(_, id)| id.to_string()).collect();
                assert_eq!(texts(&got["beside"], "id"), ids, "from {from}, {count}");
                asides += ids.len();
            }
            assert!(asides > 20 && owned > 1_000, "{asides} beside, {owned} own");
        }
    }

    #[test]
    fn headers_are_those_of_the_shares() {
        let model = Model::grown(9, 20);
        let shares: Vec<Share> = model.chain().into_iter().cloned().collect();
        let rows = serde_json::to_value(headers(&shares)).unwrap();
        for (row, share) in rows.as_array().unwrap().iter().zip(&shares) {
            let header = <[u8; 80] as bitcoin::hex::FromHex>::from_hex(row["header"].as_str().unwrap()).unwrap();
            assert_eq!(ShareId(rockpool_net::sha256::sha256d(&header)), share.id());
            assert_eq!((&row["height"], &row["lead"]), (&share.height.into(), &share.lead.into()));
            assert_eq!(row["bits"], format!("{:08x}", share.bits));
        }
        assert_eq!(rows.as_array().unwrap().len(), shares.len());
    }

    #[test]
    fn lists_and_memory_have_an_end() {
        let mut own = OwnShares::default();
        let id = |number: usize| ShareId(rockpool_net::sha256::sha256(&number.to_le_bytes()));
        (0..=OWN_SHARES_KEPT).for_each(|number| own.remember(id(number)));
        own.remember(id(1));
        assert_eq!((own.ids.len(), own.order.len()), (OWN_SHARES_KEPT, OWN_SHARES_KEPT));
        assert!(!own.contains(&id(0)) && own.contains(&id(1)) && own.contains(&id(OWN_SHARES_KEPT)));

        let params = params(Network::Regtest);
        let mut chain = Chain::open(params, [1, 2], &MemKv::new()).unwrap();
        let mut view = chain.view();
        for salt in 0..=BESIDE_LISTED_MAX as u32 + 2 {
            let share = ShareBuilder::new(params).salt(salt).build(&chain, &params.genesis_id());
            assert_eq!(chain.offer(LATE, &share, Source::Peer), Offer::Taken);
            while chain.confirm(8) > 0 {}
        }
        view.apply(&chain.take_change().unwrap().0);
        assert!(view.all_beside().count() > BESIDE_LISTED_MAX);
        assert_eq!(page(params, &view, &own, 9, 1).beside.len(), BESIDE_LISTED_MAX);
    }
}
