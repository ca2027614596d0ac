//! The `template` thread: what to mine on, and the headers below it, by one bitcoind of several.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hex::{DisplayHex, FromHex};
use crossbeam_channel::{Receiver, Sender, bounded, select};
use rockpool_store::params::{Network, params};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;

use super::headers::{FollowError, Follower, Hash, Header, Source, Status, Tip};
use super::{BitcoindConfig, BitcoindMistake, ChainInfo, Check, Rpc, RpcError};
use crate::crew::Outsider;
use crate::jobs::Answer;
use crate::limits::{
    ANSWER_BYTES_MAX, BLOCK_LOOK, BLOCKNOTIFY_MIN, CATCH_UP_MAX, FULL_TEMPLATE_WAIT, LONGPOLL_DEADLINE, LONGPOLL_LOOK, RETRY_MAX,
    RETRY_MIN, RPC_DEADLINE, RPC_SPARE_DEADLINE, TEMPLATE_AGE_MAX, TEMPLATE_BYTES_MAX, TEMPLATE_MIN,
};
use crate::template::{Before, Pool, RawChainInfo, RawTemplate, Template};

/// The `template` thread: watches the first bitcoind that answers, in the order in which they were given, and posts what it offers. One
/// further up that is back takes over again. `locator`: where the node's own tree of Bitcoin headers stands; `notified`: somebody says that
/// there may be a new block.
pub(crate) fn watch(nodes: Vec<BitcoindConfig>, locator: Vec<Hash>, notified: Receiver<()>, node: &Outsider) {
    watch_all(nodes.into_iter().map(Watch::new).collect(), locator, notified, node);
}

pub(super) fn watch_all(mut watches: Vec<Watch>, locator: Vec<Hash>, notified: Receiver<()>, node: &Outsider) {
    let Some(network) = watches.first().map(|watch| watch.rpc.config.network) else { return };
    if watches.len() > 1 {
        watches.iter_mut().for_each(|watch| watch.rpc.small = RPC_SPARE_DEADLINE);
    }
    let (mut follower, mut pool) = (Follower::new(network, locator), Pool::default());
    let mut hint = Hint { notified, heard_from: Duration::ZERO };
    let (mut at, mut sequence, mut floor, mut pause, mut down) = (0, 0, Floor::default(), RETRY_MIN, false);
    loop {
        let found = match back(&mut watches[..at], floor.height, node) {
            Some((first, raw)) => {
                log::info!("bitcoind at {} is back and goes before {}", watches[first].rpc.config.host, watches[at].rpc.config.host);
                watches[at].leave();
                at = first;
                watches[at].take(raw, sequence + 1, &floor, &mut pool, node)
            }
            None => watches[at].next(sequence + 1, &floor, &mut pool, &mut hint, node),
        };
        let watch = &mut watches[at];
        let lead_up = |template: Option<Template>| match template {
            Some(template) => Ok((watch.lead_up(&mut follower, &template, node)?, Some(template))),
            None => Ok((true, None)),
        };
        match found.and_then(lead_up) {
            Ok((false, _)) => return,
            // Nothing new; the rest is only for a stop.
            Ok((true, None)) if node.rest(Duration::ZERO) => {}
            Ok((true, None)) => return,
            Ok((true, Some(template))) => {
                sequence += 1;
                floor = Floor { height: template.height, prev: template.prev, lacked: None };
                pause = RETRY_MIN;
                let template = Arc::new(template);
                if std::mem::take(&mut down) && !node.say(|| Answer::BitcoinDown(None)) {
                    return;
                }
                if !node.say(|| Answer::Template(template.clone())) || !node.rest(TEMPLATE_MIN) {
                    return;
                }
                // With every complete template, once a minute or so: a block beside the chain changes nothing in it.
                if watch.news.is_none() && !watch.look_beside(&mut follower, node) {
                    return;
                }
            }
            // A mistake of the start showed late, since bitcoind came late. A running node's bitcoind is waited for, whatever it says.
            Err(Trouble::Mistake(why)) if sequence == 0 => {
                node.say(|| Answer::Mistake(why.to_string()));
                return;
            }
            Err(why) => {
                watch.leave();
                // One that answers, but not well or not soon, is not asked soon whether it is back: it would be left again at once.
                let slow = matches!(why, Trouble::Later(RpcError::Timeout));
                if matches!(why, Trouble::Later(RpcError::Behind)) {
                    floor.lacked.get_or_insert(node.now().mono);
                }
                let answers = slow || !matches!(why, Trouble::Later(_) | Trouble::Mistake(_));
                watch.since = node.now().mono + if answers { TEMPLATE_AGE_MAX } else { Duration::ZERO };
                // One word for an outage, however often it is tried; but that one is wrong is another.
                let wrong = matches!(why, Trouble::Mistake(_)) && !std::mem::replace(&mut watch.wrong, true);
                let why = format!("bitcoind at {}: {why}", watch.rpc.config.host);
                follower.lost();
                if (!down || wrong) && !node.say(|| Answer::BitcoinDown(Some(why.clone()))) {
                    return;
                }
                down = true;
                at = (at + 1) % watches.len();
                // The next one is asked at once, but no round of all of them goes without a pause.
                if at == 0 && !node.rest(pause) {
                    return;
                }
                pause = if at == 0 { (pause * 2).min(RETRY_MAX) } else { pause };
            }
        }
    }
}

/// The first of these that offers a template again, and what it offers. All are asked by threads of their own: one that hangs holds up
/// nobody. One that has yet to catch up with the blocks of this height does not count.
fn back(before: &mut [Watch], height: u32, node: &Outsider) -> Option<(usize, RawTemplate)> {
    for (place, watch) in before.iter_mut().enumerate() {
        match watch.poll.as_mut().and_then(|poll| poll.wait(Duration::ZERO)) {
            Some(Ok(raw)) if raw.height >= height => return Some((place, raw)),
            Some(Err(why)) => log::debug!("bitcoind at {} is not back: {why}", watch.rpc.config.host),
            _ => {}
        }
        let idle = watch.poll.as_ref().is_none_or(|poll| !poll.asked);
        if idle && node.now().mono >= watch.since + watch.patience {
            watch.ask(None, node);
        }
    }
    None
}

pub(super) struct Watch {
    rpc: Rpc,
    /// Whether it is known to be of our network since it was last away.
    checked: bool,
    /// Whether it was told of that it is not since it last gave a template.
    wrong: bool,
    /// Its long poll; while another one is watched, the question whether it is back.
    poll: Option<Poll>,
    /// Its last complete template, and when it was last asked for one.
    before: Option<Before>,
    since: Duration,
    /// A newer block than that builds on.
    news: Option<News>,
    /// How long nothing may come by long poll after a new block before a template is asked for plainly.
    pub patience: Duration,
}

/// A block that the long poll has not told of yet.
struct News {
    hash: String,
    /// Until when the long poll is waited for.
    until: Duration,
}

#[derive(Debug, Error)]
pub(super) enum Trouble {
    #[error("{0}")]
    Mistake(BitcoindMistake),
    #[error("{0}")]
    Later(RpcError),
    #[error("{0}")]
    Template(crate::template::TemplateError),
    #[error("it offers a template and refuses a block of it: {0}")]
    Proposal(String),
    #[error("{0}")]
    Headers(FollowError<RpcError>),
}

impl Watch {
    pub fn new(config: BitcoindConfig) -> Watch {
        Watch {
            rpc: Rpc::new(config),
            checked: false,
            wrong: false,
            poll: None,
            before: None,
            since: Duration::ZERO,
            news: None,
            patience: LONGPOLL_LOOK,
        }
    }

    /// It is away, or another one is better.
    fn leave(&mut self) {
        (self.checked, self.poll, self.before, self.news) = (false, None, None, None);
    }

    /// The next template: at once, or, if there was one before, what the long poll brings; on a new block that it has not told of yet,
    /// first one without transactions. `None` if there is nothing new, whoever says that there may be.
    fn next(
        &mut self,
        sequence: u64,
        floor: &Floor,
        pool: &mut Pool,
        hint: &mut Hint,
        node: &Outsider,
    ) -> Result<Option<Template>, Trouble> {
        let polled = match &mut self.poll {
            Some(poll) if poll.asked => hint.or_answer(poll, node),
            _ => None,
        };
        let raw = match polled {
            Some(Err(Trouble::Later(RpcError::Timeout))) | None => {
                let polls = self.poll.as_ref().is_some_and(|poll| poll.asked);
                // If nothing is new, header times go on all the same.
                if let Some(before) = self.before.clone().filter(|_| polls && node.now().mono < self.since + TEMPLATE_AGE_MAX) {
                    match self.look(&before, sequence, floor, node)? {
                        Look::Wait => return Ok(None),
                        Look::First(template) => return Ok(Some(*template)),
                        // A block that the long poll did not tell of, or another bitcoind in this one's place.
                        Look::Ask => self.checked = false,
                    }
                }
                if !self.checked {
                    self.rpc.ready()?;
                }
                self.rpc.template(None)?
            }
            Some(raw) => raw?,
        };
        self.take(raw, sequence, floor, pool, node)
    }

    /// A small call while the long poll waits: whether there is another block than the last template builds on.
    fn look(&mut self, before: &Before, sequence: u64, floor: &Floor, node: &Outsider) -> Result<Look, Trouble> {
        let tip: RawChainInfo = self.rpc.info().map_err(Trouble::Later)?;
        let now = node.now();
        match &self.news {
            None if tip.bestblockhash == before.prev => return Ok(Look::Wait),
            Some(news) if news.hash == tip.bestblockhash => return Ok(if now.mono < news.until { Look::Wait } else { Look::Ask }),
            // A block came and went: the long poll may see nothing new.
            Some(_) if tip.bestblockhash == before.prev => return Ok(Look::Ask),
            _ => {}
        }
        let params = params(self.rpc.config.network);
        let mut first = Template::first(params, &tip, before, sequence, now.unix());
        if first.as_ref().is_some_and(|first| first.height < floor.height) {
            return Ok(Look::Ask);
        }
        if let Some(template) = first.as_ref().filter(|_| self.rpc.config.proposals)
            && let Some(why) = self.rpc.propose(template).map_err(Trouble::Later)?
        {
            log::info!("bitcoind at {} refuses a block without transactions: {why}", self.rpc.config.host);
            first = None;
        }
        let patience = if first.is_some() { FULL_TEMPLATE_WAIT } else { self.patience };
        self.news = Some(News { hash: tip.bestblockhash, until: now.mono + patience });
        Ok(first.map_or(Look::Wait, |template| Look::First(Box::new(template))))
    }

    /// Waits for what comes after this template from now on. `None` if it was made before a block that miners work on already.
    fn take(
        &mut self,
        raw: RawTemplate,
        sequence: u64,
        floor: &Floor,
        pool: &mut Pool,
        node: &Outsider,
    ) -> Result<Option<Template>, Trouble> {
        let longpollid = Some(raw.longpollid.clone());
        if raw.height < floor.height {
            let info: ChainInfo = self.rpc.info().map_err(Trouble::Later)?;
            if info.bestblockhash != raw.previousblockhash {
                // What is on that block comes by the next long poll, at once.
                self.ask(longpollid, node);
                return Ok(None);
            }
            if floor.holds(node.now().mono) && self.rpc.lacks(&info, floor.prev).map_err(Trouble::Later)? {
                return Err(Trouble::Later(RpcError::Behind));
            }
        }
        (self.checked, self.wrong) = (true, false);
        let prev = raw.previousblockhash.clone();
        let mut template = raw.build(sequence, pool).map_err(Trouble::Template)?;
        self.news = None;
        self.before = Some(Before { prev: prev.clone(), version: template.version, bits: template.bits });
        let rules = params(self.rpc.config.network).bitcoin;
        if rules.min_difficulty && rules.retargets {
            let prev: RawHeader =
                self.rpc.call("getblockheader", json!([prev]), self.rpc.small, ANSWER_BYTES_MAX).map_err(Trouble::Later)?;
            template.keep_bits(rules, prev.time);
        }
        let proposals = self.rpc.config.proposals;
        if let Some(word) = if proposals { self.rpc.propose(&template).map_err(Trouble::Later)? } else { None } {
            return Err(Trouble::Proposal(word));
        }
        // Not before it is known to be good: who offers nothing good is asked again soon, and each time a long poll would be left behind.
        self.ask(longpollid, node);
        Ok(Some(template))
    }

    /// Has the thread ask. bitcoind still works on a long poll of which nobody wants the answer, so one for the same is kept; any other has
    /// ended there already.
    fn ask(&mut self, longpollid: Option<String>, node: &Outsider) {
        self.since = node.now().mono;
        match &mut self.poll {
            Some(poll) if poll.asked && poll.longpollid == longpollid => {}
            Some(poll) if !poll.asked => poll.ask(longpollid),
            other => other.insert(Poll::start(self.rpc.config.clone(), node)).ask(longpollid),
        }
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

/// What miners work on: the height of their template, and the block that it builds on.
#[derive(Default)]
struct Floor {
    height: u32,
    prev: Hash,
    /// Since when bitcoind lacks that block.
    lacked: Option<Duration>,
}

impl Floor {
    /// Whether a bitcoind that offers less may still catch up. Killed, it has lost its newest blocks, and gets them from its peers within
    /// seconds; shares on a block below would soon be late (SHARECHAIN §3).
    fn holds(&self, now: Duration) -> bool {
        self.lacked.is_none_or(|since| now < since + CATCH_UP_MAX)
    }
}

impl Rpc {
    /// Whether it is about to get this block, or one above it. It is not where it has no peers, nor where it has the block and mines on
    /// another one of more work.
    fn lacks(&mut self, info: &ChainInfo, block: Hash) -> Result<bool, RpcError> {
        let peers: u32 = self.call("getconnectioncount", json!([]), self.small, ANSWER_BYTES_MAX)?;
        Ok(peers > 0 && (info.headers > info.blocks || self.headers(&[block])?.iter().all(Option::is_none)))
    }

    fn info<T: DeserializeOwned>(&mut self) -> Result<T, RpcError> {
        self.call("getblockchaininfo", json!([]), self.small, ANSWER_BYTES_MAX)
    }

    /// Whether it is there and of our network.
    fn ready(&mut self) -> Result<(), Trouble> {
        match self.check(self.small).map_err(Trouble::Mistake)? {
            Check::Ready => Ok(()),
            Check::Later(why) => Err(Trouble::Later(RpcError::Unreachable(why))),
        }
    }

    /// A template: at once, or, with a `longpollid`, when there is something new.
    pub(super) fn template(&mut self, longpollid: Option<&str>) -> Result<RawTemplate, Trouble> {
        let mut rules = vec!["segwit"];
        if self.config.network == Network::Signet {
            rules.push("signet");
        }
        let method = "getblocktemplate";
        let template = match longpollid {
            Some(id) => self.call_beside(method, json!([{"rules": rules, "longpollid": id}]), LONGPOLL_DEADLINE, TEMPLATE_BYTES_MAX),
            None => self.call(method, json!([{"rules": rules}]), RPC_DEADLINE, TEMPLATE_BYTES_MAX),
        };
        template.map_err(Trouble::Later)
    }
}

/// A thread that has one long call at a time to make. bitcoind keeps a thread for each long poll until there is something new, even after
/// the caller has hung up: where nothing happens for an hour, a few abandoned ones would leave it none for anybody's calls.
struct Poll {
    asks: Sender<Option<String>>,
    answers: Receiver<Result<RawTemplate, Trouble>>,
    /// What was asked last, and whether the answer is still to come.
    longpollid: Option<String>,
    asked: bool,
}

impl Poll {
    /// Begins a thread, which ends, once this is dropped, with its call.
    fn start(config: BitcoindConfig, node: &Outsider) -> Poll {
        let (asks, asked) = bounded::<Option<String>>(1);
        let (answer, answers) = bounded(1);
        node.spawn("long-poll", move || {
            let mut rpc = Rpc::new(config);
            for longpollid in asked {
                let template = match longpollid {
                    Some(id) => rpc.template(Some(&id)),
                    None => rpc.ready().and_then(|()| rpc.template(None)),
                };
                if answer.send(template).is_err() {
                    return;
                }
            }
        });
        Poll { asks, answers, longpollid: None, asked: false }
    }

    fn ask(&mut self, longpollid: Option<String>) {
        self.asked = self.asks.try_send(longpollid.clone()).is_ok();
        self.longpollid = longpollid;
    }

    /// The answer, if it comes in this time.
    fn wait(&mut self, patience: Duration) -> Option<Result<RawTemplate, Trouble>> {
        let answer = self.answers.recv_timeout(patience).ok()?;
        self.asked = false;
        Some(answer)
    }
}

/// What a look for a new block comes to.
enum Look {
    /// Nothing is new, or the long poll is about to tell.
    Wait,
    /// There is, and this is the first work on it.
    First(Box<Template>),
    /// A template is to be asked for.
    Ask,
}

#[derive(Deserialize)]
struct RawHeader {
    time: u32,
}

/// What others say of new blocks.
struct Hint {
    notified: Receiver<()>,
    /// Not before: a flood of words is not a flood of calls.
    heard_from: Duration,
}

impl Hint {
    /// The answer to a long poll, if it comes before any hint and before it is time for a look. Where somebody tells of blocks anyway there
    /// is less to look for.
    fn or_answer(&mut self, poll: &mut Poll, node: &Outsider) -> Option<Result<RawTemplate, Trouble>> {
        let patience = if self.heard_from.is_zero() { BLOCK_LOOK } else { LONGPOLL_LOOK };
        let deaf = self.heard_from.saturating_sub(node.now().mono).min(patience);
        if let Some(answer) = poll.wait(deaf) {
            return Some(answer);
        }
        select! {
            recv(poll.answers) -> answer => {
                poll.asked = false;
                answer.ok()
            }
            recv(self.notified) -> _ => {
                self.heard_from = node.now().mono + BLOCKNOTIFY_MIN;
                None
            }
            default(patience - deaf) => None,
        }
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
        let tips: Vec<RawTip> = self.call("getchaintips", json!([]), self.small, ANSWER_BYTES_MAX)?;
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
pub(super) fn shown(hash: &Hash) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitcoind_has_a_minute_to_catch_up() {
        let floor = |lacked| Floor { lacked, ..Floor::default() };
        let since = Duration::from_secs(1_000);
        assert!(floor(None).holds(since));
        assert!(floor(Some(since)).holds(since + CATCH_UP_MAX - Duration::from_nanos(1)));
        assert!(!floor(Some(since)).holds(since + CATCH_UP_MAX));
    }
}
