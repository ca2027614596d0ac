//! HTTP: what a request is answered with. Nothing here reads a socket: the node hands in the request and what it knows, and gets an answer.

pub mod access;
pub mod ask;
pub mod blocks;
pub mod chain;
pub mod error;
pub mod history;
pub mod json;
pub mod jwks;
pub mod metrics;
pub mod miners;
pub mod openapi;
pub mod packed;
pub mod page;
pub mod payouts;
pub mod peers;
pub mod pool;
pub mod progress;
pub mod reply;
pub mod routes;
pub mod services;
pub mod share;
pub mod stream;
pub mod token;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use rockpool_net::frame::http::Request;
use rockpool_net::id::ShareId;
use rockpool_net::time::Now;
use rockpool_net::wire::share::{Class, Share};
use rockpool_store::handle::Found;
use rockpool_store::params::Params;
use rockpool_store::payouts::Payouts;
use rockpool_workers::jobs::Reads;

use crate::config::Mode;
use crate::http::access::Doors;
use crate::http::chain::OwnShares;
use crate::http::error::Code;
use crate::http::miners::Summed;
use crate::http::payouts::{Draws, Worth, You};
use crate::http::reply::Reply;
use crate::http::routes::{Asked, Route};
use crate::http::stream::Streams;
use crate::limits::PAYOUTS_KEPT;
use crate::miners::Miners;
use crate::miners::pool::PoolLine;
use crate::peer::Peers;
use crate::session::Sessions;
use crate::status::{Facts, Serving, Status};
use crate::stratum::jobs::own_payouts;
use crate::turn::Turn;

/// What is to be done about a request.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// Send this.
    Send(Reply),
    /// The connection becomes a stream of events, which begins with this.
    Stream(Reply),
    /// The stage `upstream` answers it.
    Upstream,
    /// These rows must be read from disk: a job for the reader. With what it has read the same request is answered again.
    Read(Reads),
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Answer {
        Answer::Send(reply)
    }
}

impl From<Result<Reply, Reply>> for Answer {
    fn from(reply: Result<Reply, Reply>) -> Answer {
        Answer::Send(reply.unwrap_or_else(|refused| refused))
    }
}

/// What the reader has read for a request: `None` before it was asked to, and for each row one that is there.
pub type Rows<'a> = Option<&'a [Option<Vec<u8>>]>;

/// What answers are made of, beside what a turn has.
pub struct Desk<'a> {
    /// What is rendered and remembered.
    pub pages: &'a mut Pages,
    /// Event streams.
    pub streams: &'a mut Streams,
    /// The other sessions.
    pub sessions: &'a mut Sessions,
    /// Peers.
    pub peers: &'a mut Peers,
    /// Own miners.
    pub miners: &'a Miners,
    /// The pool by its share chain.
    pub line: &'a PoolLine,
    /// The node at this moment.
    pub status: &'a Status,
}

/// What a request from this address is answered with.
pub fn answer(request: &Request, from: SocketAddr, rows: Rows<'_>, desk: &mut Desk<'_>, turn: &mut Turn<'_>) -> Answer {
    match asked(request, from, desk, turn).map_or_else(Answer::Send, |asked| dispatch(&asked, rows, desk, turn)) {
        Answer::Send(reply) => desk.pages.doors.opened(request, reply.unless(request.has.as_deref())).into(),
        Answer::Stream(head) => Answer::Stream(desk.pages.doors.opened(request, head)),
        other @ (Answer::Upstream | Answer::Read(_)) => other,
    }
}

/// What is asked for, if it is there and whoever asks may; else what is said instead.
fn asked<'a>(request: &'a Request, from: SocketAddr, desk: &Desk<'_>, turn: &Turn<'_>) -> Result<Asked<'a>, Reply> {
    desk.pages.doors.meant(request)?;
    if let Some(preflight) = desk.pages.doors.preflight(request) {
        return Err(preflight);
    }
    let asked = Asked::find(request)?;
    access::may(asked.row.access, request, from, turn)?;
    Ok(asked)
}

fn dispatch(asked: &Asked<'_>, rows: Rows<'_>, desk: &mut Desk<'_>, turn: &mut Turn<'_>) -> Answer {
    let facts = facts(desk.status, desk.miners, turn);
    match asked.row.route {
        route @ (Route::Page | Route::Style | Route::Script | Route::PortfolioScript) => page::answer(route, asked.request.gzip).into(),
        Route::Health => health(facts).into(),
        Route::Metrics => Reply::text(200, metrics::render(facts)).into(),
        Route::Status => desk.pages.status(facts).into(),
        Route::Events if desk.streams.has_room() => Answer::Stream(stream::head()),
        Route::Events => {
            turn.counters.streams_refused.add(1);
            Reply::error(Code::Busy, "as many event streams are open as may be: try again later, or ask for the status").into()
        }
        Route::OpenApi => desk.pages.openapi(desk.status.version).into(),
        Route::Turns => Reply::json(&json::turns(facts.times)).into(),
        Route::Chain => desk.pages.chain(asked, facts).into(),
        Route::Headers => desk.pages.shares(asked, rows, facts, |_, _, shares| Reply::json(&chain::headers(shares))),
        Route::Shares => {
            let params = desk.pages.params;
            desk.pages.shares(asked, rows, facts, |lowest, top, shares| Reply::json(&share::shares(params, lowest, top, shares)))
        }
        Route::Share => desk.pages.share(asked, rows, facts),
        Route::Payouts => desk.pages.payouts(asked, facts).into(),
        Route::Miners => miners::list(asked, &mut desk.pages.summed, desk.miners, desk.pages.params, turn.now).into(),
        Route::Miner => miners::one(asked, &mut desk.pages.summed, (desk.miners, desk.sessions), desk.pages.params, turn.now).into(),
        Route::Sessions => miners::sessions(asked, desk.miners, desk.sessions, desk.pages.params, turn).into(),
        Route::Pool => desk.pages.pool(turn.now, desk.line, facts).into(),
        Route::History => history::history(asked, desk.miners).into(),
        Route::Blocks => blocks::list(asked, facts).into(),
        Route::Peers => peers::list(asked, desk.sessions, desk.peers, turn).into(),
        Route::AddPeer => peers::add(asked, desk.peers, turn).into(),
        Route::Bans => peers::bans(asked, desk.peers, turn).into(),
        Route::AddBan => peers::ban(asked, desk.sessions, desk.peers, turn).into(),
        Route::LiftBan => peers::unban(asked, desk.peers).into(),
        Route::Blocknotify => {
            turn.jobs.blocknotify = true;
            Reply::json(&serde_json::json!({ "heard": true })).into()
        }
        _ if !turn.config.portfolios => Reply::error(Code::NotFound, OFF).into(),
        Route::Portfolios
        | Route::AddPortfolio
        | Route::Portfolio
        | Route::RemovePortfolio
        | Route::Accounts
        | Route::AddAccount
        | Route::RemoveAccount
        | Route::Holdings
        | Route::Worth
        | Route::Coins => Answer::Upstream,
        Route::Services => services::list(&desk.status.services).into(),
    }
}

/// What is said of portfolios where there are none.
const OFF: &str = "portfolios are off: start the node with --portfolios";

/// What an answer may draw on.
pub fn facts<'a>(status: &'a Status, miners: &'a Miners, turn: &'a Turn<'_>) -> Facts<'a> {
    let (net, times) = (turn.out.counters(), turn.out.times());
    Facts { status, chain: turn.chain, blocks: turn.blocks, counters: turn.counters, miners, net, times }
}

/// HTTP's side of a node: what it has rendered and remembers.
#[derive(Debug)]
pub struct Pages {
    params: &'static Params,
    /// Who may come in.
    pub doors: Doors,
    /// What the node told of itself in this turn, if anybody asked: all that a turn dispatches has the same.
    pub(crate) told: Option<Status>,
    /// The same, rendered.
    status: Option<Reply>,
    /// The API's description, once somebody has asked for it.
    openapi: Option<Reply>,
    /// What was told of the pool, in which second and at which confirmed tip.
    pool: Option<(u64, ShareId, Reply)>,
    /// Payouts at the newest confirmed tips, newest last.
    payouts: VecDeque<Arc<Payouts>>,
    /// Draws of them that were asked for.
    draws: Draws,
    /// What our miners made.
    pub own: OwnShares,
    /// What they do.
    summed: Summed,
}

impl Pages {
    /// Of a node on this network.
    pub fn new(params: &'static Params) -> Pages {
        let (doors, payouts, draws, own) = (Doors::default(), VecDeque::new(), Draws::default(), OwnShares::default());
        Pages { params, doors, told: None, status: None, openapi: None, pool: None, payouts, draws, own, summed: Summed::default() }
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

    /// What was told in this turn may be another in the next.
    pub(crate) fn turn_ends(&mut self) {
        (self.told, self.status) = (None, None);
    }

    /// The node at this moment, rendered once a turn.
    pub fn status(&mut self, facts: Facts<'_>) -> Reply {
        self.status.get_or_insert_with(|| Reply::json(&json::Status::of(facts)).shared()).clone()
    }

    fn openapi(&mut self, version: &str) -> Reply {
        self.openapi.get_or_insert_with(|| Reply::json(&openapi::document(version)).shared()).clone()
    }

    /// Made once a second at most, and with every tip.
    fn pool(&mut self, now: Now, line: &PoolLine, facts: Facts<'_>) -> Reply {
        let key = (now.mono.as_secs(), facts.chain.view.confirmed_tip().id);
        match &self.pool {
            Some((second, tip, reply)) if (*second, *tip) == key => reply.clone(),
            _ => {
                let reply = Reply::json(&pool::pool(self.params, now, line, facts.miners, facts)).shared();
                self.pool.insert((key.0, key.1, reply)).2.clone()
            }
        }
    }

    /// What a block on the share that work builds on, or on a parent of a moment ago, pays.
    fn payouts(&mut self, asked: &Asked<'_>, facts: Facts<'_>) -> Result<Reply, Reply> {
        let (view, status, params) = (&facts.chain.view, facts.status, self.params);
        let untold = || payouts::next_height(view.confirmed_tip(), view.bitcoin());
        let height = status.bitcoin.map_or_else(untold, |(_, height)| height.saturating_add(1));
        let own = status.credited.as_ref().map(|credited| {
            let (prev, height) = status.bitcoin.unwrap_or_default();
            Arc::new(own_payouts(prev, height, credited))
        });
        let now = own.as_ref().unwrap_or(view.upon());
        let of = match asked.text("parent").and_then(share::parse_id) {
            Some(parent) if parent != now.parent => self
                .payouts_at(&parent)
                .ok_or_else(|| Reply::error(Code::NotFound, "payouts are kept for the newest few confirmed tips only"))?,
            _ => now,
        };
        let of = Arc::clone(of);
        let class = Class::ALL.into_iter().find(|class| Some(payouts::class(*class)) == asked.text("class")).unwrap_or(Class::N12);
        let value = asked.number("value").unwrap_or(params.subsidy(height));
        let draw = self.draws.of(params, &of, class, height);
        let you = asked.text("address").map(|address| You::of(draw, params, value, Worth::of(view, status.mode), address)).transpose();
        let you = you.map_err(|why| Reply::error(Code::BadParameter, &why))?.filter(|_| status.mode != Mode::Solo);
        Ok(Reply::json(&payouts::payouts(params, status.mode, draw, (value, height), you)))
    }

    /// Shares of the confirmed chain, the newest first, with the heights of the lowest that is kept and of the tip. What is in no memory is
    /// read first; what has left the chain meanwhile is left out.
    fn shares(&self, asked: &Asked<'_>, rows: Rows<'_>, facts: Facts<'_>, tell: impl Fn(u32, u32, &[Share]) -> Reply) -> Answer {
        let view = &facts.chain.view;
        let (from, count) = asked.range();
        let records: Vec<_> = chain::heights(view, from, count).filter_map(|height| view.at_height(height)).collect();
        let cold = records.iter().filter(|record| view.bytes(&record.id).is_none()).map(|record| (record.height, record.id));
        let cold: Vec<_> = cold.collect();
        let Some(rows) = rows.or(cold.is_empty().then_some(&[])) else { return Answer::Read(Reads::Shares(cold)) };
        let read = rows.iter().flatten().filter_map(|bytes| Share::decode(bytes).ok());
        let read: BTreeMap<ShareId, Share> = read.map(|share| (share.id(), share)).collect();
        let share = |id: &ShareId| read.get(id).cloned().or_else(|| Share::decode(&view.bytes(id)?).ok());
        let shares: Vec<Share> = records.iter().filter_map(|record| share(&record.id)).collect();
        tell(view.lowest().height, view.confirmed_height(), &shares).into()
    }

    /// The same as a chain, from memory alone.
    fn chain(&self, asked: &Asked<'_>, facts: Facts<'_>) -> Reply {
        let (from, count) = asked.range();
        Reply::json(&chain::page(self.params, &facts.chain.view, &self.own, from, count))
    }

    /// One share: from memory, else from its row.
    fn share(&self, asked: &Asked<'_>, rows: Rows<'_>, facts: Facts<'_>) -> Answer {
        let no_such_share = || Reply::error(Code::NotFound, "no such share in this node's chain");
        let tell = |share: &Share| Reply::json(&share::share(share, self.params, facts.chain)).into();
        if let Some(rows) = rows {
            let share = rows.first().and_then(Option::as_deref).and_then(|bytes| Share::decode(bytes).ok());
            return share.as_ref().map_or_else(|| no_such_share().into(), tell);
        }
        let Some(id) = asked.text("id").and_then(share::parse_id) else { return no_such_share().into() };
        if id == self.params.genesis_id() {
            return tell(self.params.genesis());
        }
        match facts.chain.share_bytes(&id) {
            Ok(Found::Bytes(bytes)) => match Share::decode(&bytes) {
                Ok(share) => tell(&share),
                Err(error) => Reply::error(Code::Internal, &format!("the stored share does not decode: {error}")).into(),
            },
            Ok(Found::Cold(height)) => Answer::Read(Reads::Shares(vec![(height, id)])),
            Ok(Found::Absent) => no_such_share().into(),
            Err(error) => Reply::error(Code::Internal, &error.to_string()).into(),
        }
    }
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

#[cfg(test)]
mod tests;
