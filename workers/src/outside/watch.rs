//! The `template` thread: what to mine on, and the headers below it, by one bitcoind of several.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hex::{DisplayHex, FromHex};
use rockpool_store::params::Network;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;

use super::headers::{FollowError, Follower, Hash, Header, Source, Status, Tip};
use super::{BitcoindConfig, BitcoindMistake, Check, Rpc, RpcError};
use crate::crew::Outsider;
use crate::jobs::Answer;
use crate::limits::{ANSWER_BYTES_MAX, LONGPOLL_DEADLINE, RETRY_MAX, RETRY_MIN, RPC_DEADLINE, TEMPLATE_BYTES_MAX, TEMPLATE_MIN};
use crate::template::{RawTemplate, Template};

/// The `template` thread: watches the first bitcoind that answers, by long poll, and posts what it offers. `locator`: where the node's own
/// tree of Bitcoin headers stands.
pub(crate) fn watch(nodes: Vec<BitcoindConfig>, locator: Vec<Hash>, node: &Outsider) {
    watch_all(nodes.into_iter().map(Watch::new).collect(), locator, node);
}

pub(super) fn watch_all(mut watches: Vec<Watch>, locator: Vec<Hash>, node: &Outsider) {
    let Some(network) = watches.first().map(|watch| watch.rpc.config.network) else { return };
    let mut follower = Follower::new(network, locator);
    let (mut sequence, mut pause, mut down) = (0, RETRY_MIN, None::<String>);
    loop {
        let several = watches.len() > 1;
        let watch = &mut watches[0];
        match watch.next(sequence + 1).and_then(|template| Ok((watch.lead_up(&mut follower, &template, node)?, template))) {
            Ok((false, _)) => return,
            Ok((true, template)) => {
                sequence += 1;
                pause = RETRY_MIN;
                let template = Arc::new(template);
                if down.take().is_some() && !node.say(|| Answer::BitcoinDown(None)) {
                    return;
                }
                if !node.say(|| Answer::Template(template.clone())) || !node.rest(TEMPLATE_MIN) {
                    return;
                }
                // With every template, once a minute or so: a block beside the chain changes nothing in it.
                if !watch.look_beside(&mut follower, node) {
                    return;
                }
            }
            // Nothing new in all this time, or a connection that died unseen: a plain call tells.
            Err(Trouble::Later(RpcError::Timeout)) if watch.longpollid.take().is_some() => {}
            // A mistake of the start showed late, since bitcoind came late. A running node's bitcoind is waited for, whatever it says.
            Err(Trouble::Mistake(why)) if sequence == 0 => {
                node.say(|| Answer::Mistake(why.to_string()));
                return;
            }
            Err(why) => {
                watch.longpollid = None;
                watch.checked = false;
                let why = format!("bitcoind at {}: {why}", watch.rpc.config.host);
                follower.lost();
                // One word for an outage, however often it is tried.
                if down.is_none() && !node.say(|| Answer::BitcoinDown(Some(why.clone()))) {
                    return;
                }
                down = Some(why);
                watches.rotate_left(1);
                // The next one is asked at once, but no round of all of them goes without a pause.
                if !node.rest(if several { pause / 2 } else { pause }) {
                    return;
                }
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
    }
}

pub(super) struct Watch {
    rpc: Rpc,
    /// Whether it is known to be of our network since it was last away.
    checked: bool,
    longpollid: Option<String>,
    /// How long a long poll may take.
    pub patience: Duration,
}

#[derive(Debug, Error)]
enum Trouble {
    #[error("{0}")]
    Mistake(BitcoindMistake),
    #[error("{0}")]
    Later(RpcError),
    #[error("{0}")]
    Template(crate::template::TemplateError),
    #[error("{0}")]
    Headers(FollowError<RpcError>),
}

impl Watch {
    pub fn new(config: BitcoindConfig) -> Watch {
        Watch { rpc: Rpc::new(config), checked: false, longpollid: None, patience: LONGPOLL_DEADLINE }
    }

    /// The next template: at once, or, with a `longpollid`, when there is something new.
    fn next(&mut self, sequence: u64) -> Result<Template, Trouble> {
        if !self.checked {
            match self.rpc.check(RPC_DEADLINE).map_err(Trouble::Mistake)? {
                Check::Ready => self.checked = true,
                Check::Later(why) => return Err(Trouble::Later(RpcError::Unreachable(why))),
            }
        }
        let mut rules = vec!["segwit"];
        if self.rpc.config.network == Network::Signet {
            rules.push("signet");
        }
        let (request, deadline) = match &self.longpollid {
            Some(id) => (json!([{"rules": rules, "longpollid": id}]), self.patience),
            None => (json!([{"rules": rules}]), RPC_DEADLINE),
        };
        let raw: RawTemplate = self.rpc.call("getblocktemplate", request, deadline, TEMPLATE_BYTES_MAX).map_err(Trouble::Later)?;
        self.longpollid = Some(raw.longpollid.clone());
        raw.build(sequence).map_err(Trouble::Template)
    }

    /// Tells of all headers up to the block that this template builds on. Whether to go on.
    fn lead_up(&mut self, follower: &mut Follower, template: &Template, node: &Outsider) -> Result<bool, Trouble> {
        let mut said = false;
        while let Some(news) = follower.next(&mut self.rpc, template.prev, template.height.saturating_sub(1)).map_err(Trouble::Headers)? {
            // The template follows the last of them at once.
            if said && !node.rest(TEMPLATE_MIN) || !node.say(|| Answer::Bitcoin(news.clone())) {
                return Ok(false);
            }
            said = true;
        }
        Ok(true)
    }

    /// Tells of what there is beside the chain that is mined on. Whether to go on.
    fn look_beside(&mut self, follower: &mut Follower, node: &Outsider) -> bool {
        let news = follower.branches(&mut self.rpc).unwrap_or_else(|why| {
            // The chain itself is there. The next template brings another look.
            log::info!("bitcoind at {}: {why}, asked for its branches", self.rpc.config.host);
            Vec::new()
        });
        news.into_iter().all(|news| node.say(|| Answer::Bitcoin(news.clone())) && node.rest(TEMPLATE_MIN))
    }
}

#[derive(Deserialize)]
struct Placed {
    height: u32,
    /// −1 off the active chain.
    confirmations: i64,
}

#[derive(Deserialize)]
struct RawTip {
    height: u32,
    hash: String,
    branchlen: u32,
    status: String,
}

impl Source for Rpc {
    type Error = RpcError;

    fn headers(&mut self, hashes: &[Hash]) -> Result<Vec<Option<Header>>, RpcError> {
        let calls: Vec<Value> = hashes.iter().map(|hash| json!([shown(hash), false])).collect();
        let headers: Vec<Option<String>> = known(self.batch("getblockheader", &calls)?)?;
        headers.into_iter().map(|header| header.map(|text| Header::from_hex(&text).or(Err(garbled("header")))).transpose()).collect()
    }

    fn active(&mut self, hashes: &[Hash]) -> Result<Vec<Option<u32>>, RpcError> {
        let calls: Vec<Value> = hashes.iter().map(|hash| json!([shown(hash), true])).collect();
        let placed: Vec<Option<Placed>> = known(self.batch("getblockheader", &calls)?)?;
        Ok(placed.into_iter().map(|placed| placed.filter(|placed| placed.confirmations >= 0).map(|placed| placed.height)).collect())
    }

    fn hashes(&mut self, heights: Range<u32>) -> Result<Vec<Option<Hash>>, RpcError> {
        let calls: Vec<Value> = heights.map(|height| json!([height])).collect();
        let hashes: Vec<Option<String>> = known(self.batch("getblockhash", &calls)?)?;
        hashes.into_iter().map(|hash| hash.map(|text| read(&text)).transpose()).collect()
    }

    fn tips(&mut self) -> Result<Vec<Tip>, RpcError> {
        let tips: Vec<RawTip> = self.call("getchaintips", json!([]), RPC_DEADLINE, ANSWER_BYTES_MAX)?;
        let tip = |RawTip { height, hash, branchlen, status }| {
            let status = match status.as_str() {
                "active" => Status::Active,
                "valid-fork" | "valid-headers" => Status::Valid,
                "invalid" => Status::Invalid,
                _ => Status::Other,
            };
            Ok(Tip { hash: read(&hash)?, height, depth: branchlen, status })
        };
        tips.into_iter().map(tip).collect()
    }
}

/// Results of a batch, without those that were refused: what was asked for is unknown there.
fn known<T: DeserializeOwned>(results: Vec<Result<T, RpcError>>) -> Result<Vec<Option<T>>, RpcError> {
    let known = |result| match result {
        Ok(value) => Ok(Some(value)),
        Err(RpcError::Refused(..)) => Ok(None),
        Err(why) => Err(why),
    };
    results.into_iter().map(known).collect()
}

/// A hash as RPC shows it, most significant byte first.
fn shown(hash: &Hash) -> String {
    let mut bytes = *hash;
    bytes.reverse();
    bytes.to_lower_hex_string()
}

fn read(text: &str) -> Result<Hash, RpcError> {
    let mut bytes = Hash::from_hex(text).or(Err(garbled("hash")))?;
    bytes.reverse();
    Ok(bytes)
}

fn garbled(what: &str) -> RpcError {
    RpcError::Garbled(format!("a {what} that is none"))
}
