//! HTTP: what a request is answered with. Pure: the node hands in the request and what it knows, and gets bytes to send.

pub mod ask;
pub mod blocks;
pub mod json;
pub mod metrics;
pub mod page;
pub mod peers;
pub mod reply;
pub mod token;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rockpool_net::frame::http::{Method, Request};
use rockpool_net::id::ShareId;
use rockpool_net::payload::Payload;
use rockpool_net::time::Now;
use rockpool_net::wire::share::{Class, Share};
use rockpool_store::handle::Found;
use rockpool_store::params::Params;
use rockpool_store::payouts::Payouts;

use crate::http::reply::Reply;
use crate::limits::{PAYOUTS_KEPT, SHARES_LISTED, SHARES_LISTED_MAX};
use crate::status::{Facts, Serving};
use crate::stratum::jobs::own_payouts;

/// What is to be done about a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Send this.
    Send {
        /// Head and body.
        payload: Arc<Payload>,
        /// Close the connection once it is sent.
        close: bool,
    },
    /// Rows of shares must be read from disk: a job for the reader, whose answer goes to [`Pages::read`].
    Read {
        /// Heights and ids of the shares.
        rows: Vec<(u32, ShareId)>,
        /// The word for the job, given back with its answer.
        tag: u64,
    },
}

/// HTTP's side of a node: what it has rendered and remembers.
#[derive(Debug)]
pub struct Pages {
    params: &'static Params,
    /// The moment for which `status` was rendered: all that a turn dispatches has the same.
    rendered: Option<Duration>,
    status: Vec<u8>,
    /// Payouts at the newest confirmed tips, newest last.
    payouts: VecDeque<Arc<Payouts>>,
}

/// Bits of a read job's tag.
const KEEP: u64 = 1;
const HEAD: u64 = 2;
/// A list of shares: how many of them, and the height that it begins with.
const LIST: u64 = 4;
const COUNT_SHIFT: u32 = 8;
const FROM_SHIFT: u32 = 32;

impl Pages {
    /// Of a node on this network.
    pub fn new(params: &'static Params) -> Pages {
        Pages { params, rendered: None, status: Vec::new(), payouts: VecDeque::new() }
    }

    /// The confirmed tip has these payouts now: they are remembered for a while after it has moved on.
    pub fn remember(&mut self, payouts: &Arc<Payouts>) {
        if self.payouts.back().is_some_and(|last| last.parent == payouts.parent) {
            return;
        }
        if self.payouts.len() == PAYOUTS_KEPT {
            self.payouts.pop_front();
        }
        self.payouts.push_back(payouts.clone());
    }

    /// Payouts at a share, if it was a confirmed tip a while ago.
    pub fn payouts_at(&self, share: &ShareId) -> Option<&Arc<Payouts>> {
        self.payouts.iter().find(|payouts| payouts.parent == *share)
    }

    /// What a request is answered with.
    pub fn answer(&mut self, now: Now, request: &Request, facts: Facts<'_>) -> Answer {
        let tag = tag(request);
        if !matches!(request.method, Method::Get | Method::Head) {
            return send(tag, &Reply::not_allowed("GET, HEAD", "only GET and HEAD are answered here"));
        }
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let reply = match path {
            "/" => Reply::html(page::render(facts)),
            "/health" => health(facts),
            "/metrics" => Reply::text(200, metrics::render(facts)),
            "/api/v1/status" => self.status(now, facts),
            "/api/v1/turns" => Reply::json(&json::turns(facts.times)),
            "/api/v1/payouts" => self.payouts(query, facts),
            "/api/v1/blocks" => match listed(query) {
                Ok((_, count)) => Reply::json(&blocks::blocks(facts.chain.view.bitcoin(), facts.blocks.iter().take(count.into()))),
                Err(reply) => reply,
            },
            "/api/v1/shares" => match listed(query) {
                Ok((from, count)) => {
                    let tag = tag | LIST | u64::from(count) << COUNT_SHIFT | u64::from(from) << FROM_SHIFT;
                    return self.shares(tag, None, facts);
                }
                Err(reply) => reply,
            },
            _ => match path.strip_prefix("/api/v1/share/") {
                Some(id) => match self.share(id, facts) {
                    Ok(row) => return Answer::Read { rows: vec![row], tag },
                    Err(reply) => reply,
                },
                None => Reply::error(404, "there is nothing here; begin with / or /api/v1/status"),
            },
        };
        send(tag, &reply)
    }

    /// The answer to a request that waited for rows.
    pub fn read(&self, tag: u64, rows: &[Option<Vec<u8>>], facts: Facts<'_>) -> Answer {
        if tag & LIST != 0 {
            return self.shares(tag, Some(rows), facts);
        }
        let share = rows.first().and_then(Option::as_deref).and_then(|bytes| Share::decode(bytes).ok());
        send(tag, &share.map_or_else(no_such_share, |share| Reply::json(&json::share(&share, self.params, facts.chain))))
    }

    fn status(&mut self, now: Now, facts: Facts<'_>) -> Reply {
        if self.rendered != Some(now.mono) {
            self.rendered = Some(now.mono);
            self.status = Reply::json(&json::Status::of(facts)).body;
        }
        Reply::json_bytes(self.status.clone())
    }

    /// `?value=SATS&class=N12&parent=ID`: what a block on the confirmed tip, or on a parent of a moment ago, pays.
    fn payouts(&self, query: &str, facts: Facts<'_>) -> Reply {
        let view = &facts.chain.view;
        let untold = || json::next_height(view.confirmed_tip(), view.bitcoin());
        let height = facts.status.bitcoin.map_or_else(untold, |(_, height)| height.saturating_add(1));
        let status = facts.status;
        let own = status.credited.as_ref().map(|credited| {
            let (prev, height) = status.bitcoin.unwrap_or_default();
            Arc::new(own_payouts(prev, height, credited))
        });
        let (mut value, mut class, mut payouts) = (self.params.subsidy(height), Class::N12, own.as_ref().unwrap_or(view.payouts()));
        for (name, text) in query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
            match name {
                "value" => match text.parse().ok().filter(|value| *value <= json::SATS_MAX) {
                    Some(read) => value = read,
                    None => return Reply::error(400, "value is a number of satoshis, at most 2100000000000000"),
                },
                "class" => match Class::ALL.into_iter().find(|class| json::class(*class) == text) {
                    Some(read) => class = read,
                    None => return Reply::error(400, "class is N12, N46, N144 or N360"),
                },
                "parent" => match json::parse_id(text).map(|id| self.payouts_at(&id)) {
                    Some(Some(found)) => payouts = found,
                    Some(None) => return Reply::error(404, "payouts are kept for the newest few confirmed tips only"),
                    None => return Reply::error(400, "parent is a share's id, 64 hexadecimal digits"),
                },
                _ => return Reply::error(400, "value, class and parent are understood here"),
            }
        }
        Reply::json(&json::payouts(self.params, status.mode, payouts, class, (value, height)))
    }

    /// Shares of the confirmed chain, the newest first. What is in no memory is read first; what has left the chain meanwhile is left out.
    fn shares(&self, tag: u64, rows: Option<&[Option<Vec<u8>>]>, facts: Facts<'_>) -> Answer {
        let view = &facts.chain.view;
        let (lowest, top) = (view.lowest().height, view.confirmed_height());
        let (from, count) = ((tag >> FROM_SHIFT) as u32, (tag >> COUNT_SHIFT) as u8);
        let heights = (lowest.max(1)..=top.min(from)).rev().take(count.into());
        let records: Vec<_> = heights.filter_map(|height| view.at_height(height)).collect();
        let cold = records.iter().filter(|record| view.bytes(&record.id).is_none()).map(|record| (record.height, record.id));
        let cold: Vec<_> = cold.collect();
        let Some(rows) = rows.or(cold.is_empty().then_some(&[])) else { return Answer::Read { rows: cold, tag } };
        let read = rows.iter().flatten().filter_map(|bytes| Share::decode(bytes).ok());
        let read: BTreeMap<ShareId, Share> = read.map(|share| (share.id(), share)).collect();
        let share = |id: &ShareId| read.get(id).cloned().or_else(|| Share::decode(&view.bytes(id)?).ok());
        let shares: Vec<Share> = records.iter().filter_map(|record| share(&record.id)).collect();
        send(tag, &Reply::json(&json::shares(self.params, lowest, top, &shares)))
    }

    /// The share itself if it is in memory, else where its row is.
    fn share(&self, id: &str, facts: Facts<'_>) -> Result<(u32, ShareId), Reply> {
        let Some(id) = json::parse_id(id) else { return Err(Reply::error(400, "a share's id is 64 hexadecimal digits")) };
        if id == self.params.genesis_id() {
            return Err(Reply::json(&json::share(self.params.genesis(), self.params, facts.chain)));
        }
        match facts.chain.share_bytes(&id) {
            Ok(Found::Bytes(bytes)) => Err(match Share::decode(&bytes) {
                Ok(share) => Reply::json(&json::share(&share, self.params, facts.chain)),
                Err(error) => Reply::error(500, &format!("the stored share does not decode: {error}")),
            }),
            Ok(Found::Cold(height)) => Ok((height, id)),
            Ok(Found::Absent) => Err(no_such_share()),
            Err(error) => Err(Reply::error(500, &error.to_string())),
        }
    }
}

/// `?from=HEIGHT&count=N`: the highest share that is listed, and how many.
fn listed(query: &str) -> Result<(u32, u8), Reply> {
    let (mut from, mut count) = (u32::MAX, SHARES_LISTED);
    for (name, text) in query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
        match name {
            "from" => from = text.parse().map_err(|_| Reply::error(400, "from is a height"))?,
            "count" => match text.parse().ok().filter(|count| *count <= SHARES_LISTED_MAX) {
                Some(read) => count = read,
                None => return Err(Reply::error(400, &format!("count is a number, at most {SHARES_LISTED_MAX}"))),
            },
            _ => return Err(Reply::error(400, "from and count are understood here")),
        }
    }
    Ok((from, count))
}

/// Why miners are not served, or not well; `None` if all is as it should be.
pub fn trouble(facts: Facts<'_>) -> Option<String> {
    let status = facts.status;
    match status.serving {
        _ if status.disk_full => Some("the disk is full: make room, shares are held back until then".into()),
        _ if status.bitcoin_down.is_some() => status.bitcoin_down.as_ref().map(|why| format!("bitcoind cannot be reached: {why}")),
        Serving::Yes => None,
        Serving::NoTemplate => Some("no block template has come from bitcoind yet".into()),
        Serving::NoPeer => Some("no peer is connected; give --peer, or --alone to mine without".into()),
        Serving::Behind { height } => Some(format!("syncing: at height {} of {height}", status.tip.height)),
    }
}

fn health(facts: Facts<'_>) -> Reply {
    trouble(facts).map_or_else(|| Reply::text(200, "ok\n".into()), |why| Reply::text(503, format!("{why}\n")))
}

fn no_such_share() -> Reply {
    Reply::error(404, "no such share in this node's chain")
}

/// What bitcoind's option `-blocknotify` says, if this is it: the answer, and whether bitcoind is to be asked for the new block. Only who
/// is on this machine is heard, and no page that its browser shows.
pub fn blocknotify(request: &Request, from: SocketAddr) -> Option<(Answer, bool)> {
    if request.path.split_once('?').map_or(&*request.path, |(path, _)| path) != "/api/v1/blocknotify" {
        return None;
    }
    let reply = match request.method {
        Method::Post if request.passed_on => Reply::error(403, "no page in a browser is heard here, and nobody through a proxy"),
        Method::Post if from.ip().to_canonical().is_loopback() => Reply::json(&serde_json::json!({ "heard": true })),
        Method::Post => Reply::error(403, "only who is on this machine is heard here"),
        _ => Reply::not_allowed("POST", "only POST is answered here"),
    };
    let heard = reply.code == 200;
    Some((send(tag(request), &reply), heard))
}

/// The answer of what answers are not made of facts alone.
pub fn told(request: &Request, reply: &Reply) -> Answer {
    send(tag(request), reply)
}

/// How a request is answered.
fn tag(request: &Request) -> u64 {
    let head = if request.method == Method::Head { HEAD } else { 0 };
    head | if request.keep_alive { KEEP } else { 0 }
}

fn send(tag: u64, reply: &Reply) -> Answer {
    let keep = tag & KEEP != 0;
    Answer::Send { payload: reply.payload(tag & HEAD != 0, keep), close: !keep }
}

#[cfg(test)]
mod tests;
