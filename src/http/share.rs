//! Shares as the API tells them.

use bitcoin::hex::DisplayHex;
use rockpool_net::id::ShareId;
use rockpool_net::wire::share::{Layout, Share};
use rockpool_store::handle::ChainStoreHandle;
use rockpool_store::params::Params;
use serde::Serialize;

use crate::http::chain::difficulty;
use crate::http::json::address;
use crate::http::payouts::class;

/// `GET /api/v1/share/<id>`.
#[derive(Debug, Serialize)]
pub struct ShareView {
    id: String,
    height: u32,
    confirmed: bool,
    /// `confirmed`; `uncle` if a confirmed share credits it, its nephew; else `beside`.
    place: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    nephew: Option<String>,
    parent: String,
    uncles: Vec<String>,
    script: String,
    address: Option<String>,
    bits: String,
    time: u32,
    lead: u32,
    score: u128,
    version: u8,
    class: &'static str,
    layout: &'static str,
    salt: u32,
    value: u64,
    witness_commitment: String,
    bitcoin_height: u32,
    bitcoin_parent: String,
    header: String,
}

/// A share and where it stands in the chain.
pub fn share(share: &Share, params: &Params, chain: &ChainStoreHandle) -> ShareView {
    let id = if share.height == 0 { params.genesis_id() } else { share.id() };
    let (view, confirmed) = (&chain.view, chain.view.is_confirmed(&id));
    let nephew = view.nephew(&id).filter(|nephew| !confirmed && nephew.height <= view.confirmed_height());
    ShareView {
        id: id.to_string(),
        height: share.height,
        confirmed,
        place: match nephew {
            _ if confirmed => "confirmed",
            Some(_) => "uncle",
            None => "beside",
        },
        nephew: nephew.map(|nephew| nephew.id.to_string()),
        parent: share.parent.to_string(),
        uncles: share.uncles.iter().map(ShareId::to_string).collect(),
        script: share.script.script_pubkey().to_lower_hex_string(),
        address: address(&share.script, params),
        bits: format!("{:08x}", share.bits),
        time: share.time,
        lead: share.lead,
        score: share.score,
        version: share.version,
        class: class(share.class),
        layout: match share.layout {
            Layout::Tail => "tail",
            Layout::Front => "front",
        },
        salt: share.salt,
        value: share.value,
        witness_commitment: share.witness_commitment.to_lower_hex_string(),
        bitcoin_height: share.bitcoin_height,
        bitcoin_parent: ShareId(share.bitcoin_prev()).to_string(),
        header: share.header.to_lower_hex_string(),
    }
}

/// `GET /api/v1/shares`.
#[derive(Debug, Serialize)]
pub struct SharesView {
    network: &'static str,
    /// Height of the share that the chain begins with; 0 is genesis.
    lowest: u32,
    /// Height of the confirmed tip.
    height: u32,
    shares: Vec<ListedShare>,
}

#[derive(Debug, Serialize)]
struct ListedShare {
    height: u32,
    id: String,
    time: u32,
    difficulty: f64,
    script: String,
    address: Option<String>,
    uncles: Vec<String>,
    class: &'static str,
    bitcoin_height: u32,
}

/// Shares of a confirmed chain between these heights.
pub fn shares(params: &Params, lowest: u32, height: u32, shares: &[Share]) -> SharesView {
    let listed = |share: &Share| ListedShare {
        height: share.height,
        id: share.id().to_string(),
        time: share.time,
        difficulty: difficulty(share.bits),
        script: share.script.script_pubkey().to_lower_hex_string(),
        address: address(&share.script, params),
        uncles: share.uncles.iter().map(ShareId::to_string).collect(),
        class: class(share.class),
        bitcoin_height: share.bitcoin_height,
    };
    SharesView { network: params.name, lowest, height, shares: shares.iter().map(listed).collect() }
}

/// An id as it is shown: 64 hexadecimal digits, the last byte first.
pub fn parse_id(text: &str) -> Option<ShareId> {
    let mut bytes = <[u8; 32] as bitcoin::hex::FromHex>::from_hex(text).ok()?;
    bytes.reverse();
    Some(ShareId(bytes))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rockpool_net::time::Now;
    use rockpool_store::chain::{Chain, Offer, Source};
    use rockpool_store::handle::StoreHandle;
    use rockpool_store::kv::MemKv;
    use rockpool_store::params::{Network, params};
    use rockpool_store::testing::ShareBuilder;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_share_is_confirmed_an_uncle_or_beside() {
        let (kv, params) = (Arc::new(MemKv::new()), params(Network::Regtest));
        let mut chain = Chain::open(params, [1, 2], &*kv).unwrap();
        let mut handle = ChainStoreHandle::new(chain.view(), StoreHandle::new(kv));
        let late = Now { mono: Duration::ZERO, wall: Duration::from_secs(2_000_000_000) };
        let genesis = chain.tip().id;
        let [first, uncle, lost] = [1, 2, 3].map(|miner| ShareBuilder::new(params).miner(miner).build(&chain, &genesis));
        for share in [&first, &uncle, &lost] {
            assert_eq!(chain.offer(late, share, Source::Peer), Offer::Taken);
        }
        let nephew = ShareBuilder::new(params).uncles(&[uncle.id()]).build(&chain, &first.id());
        assert_eq!(chain.offer(late, &nephew, Source::Peer), Offer::Taken);
        while chain.confirm(8) > 0 {}
        handle.view.apply(&chain.take_change().unwrap().0);
        let place = |of: &Share| {
            let told: Value = serde_json::to_value(share(of, params, &handle)).unwrap();
            (told["place"].clone(), told["nephew"].clone(), told["confirmed"].clone())
        };
        assert_eq!(place(&first), (json!("confirmed"), Value::Null, json!(true)));
        assert_eq!(place(&uncle), (json!("uncle"), json!(nephew.id().to_string()), json!(false)));
        assert_eq!(place(&lost), (json!("beside"), Value::Null, json!(false)));
        assert_eq!(place(params.genesis()), (json!("confirmed"), Value::Null, json!(true)));
    }
}
