//! Users' portfolios: what they own elsewhere and here, what it is worth, and how both came about. Off unless configured.
//!
//! [`Portfolios`] is the stage `upstream`: it knows who asks, answers from memory, and writes what changes before it says so.

pub mod address;
pub mod book;
pub mod chains;
pub mod collect;
pub mod config;
pub mod connect;
pub mod desk;
mod keccak;
pub mod mined;
pub mod model;
pub mod seal;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
#[path = "../../tests/simulator/services.rs"]
mod services;
#[cfg(test)]
mod tests;
mod text;
pub mod value;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rockpool_net::frame::http::Request;
use rockpool_net::hub::tickets::Ticket;
use rockpool_net::id::ConnId;
use rockpool_net::time::Now;
use rockpool_store::error::StoreError;
use rockpool_store::kv::{Kv, Op};
use rockpool_store::params::Network;
use rockpool_workers::jobs::{Answer, Output, Stage, UpstreamJob};
use rockpool_workers::limits::FREE_SPACE_MIN;
use rockpool_workers::outside::call::Order;

use crate::exit::Failure;
use crate::http::error::Code;
use crate::http::jwks::{Denied, Keys};
use crate::http::reply::Reply;
use crate::http::routes::{Asked, Route};
use crate::http::token::Secret;
use crate::limits::UNWRITTEN_RETRY;
use book::{Book, gone_rows, user_id};
use collect::{Collector, Services, Unseal};
use config::PortfolioConfig;
use connect::coingecko::CoinGecko;
use desk::{Desk, NewAccount, NewPortfolio, Question, Refused};
use model::UserId;
use seal::Sealer;

/// The stage's name.
const STAGE: &str = "upstream";
/// The order for the keys of users' tokens. Those of collections count up from 1.
const KEYS_ORDER: u64 = 0;

/// What is told to a request.
struct Said {
    status: u16,
    body: Vec<u8>,
    lines: Vec<(&'static str, String)>,
}

impl Said {
    fn error(code: Code, why: &str) -> Said {
        Said::from(Reply::error(code, why))
    }

    fn with(mut self, name: &'static str, value: &str) -> Said {
        self.lines.push((name, value.to_owned()));
        self
    }
}

impl From<Reply> for Said {
    fn from(reply: Reply) -> Said {
        Said { status: reply.status, body: reply.body().to_vec(), lines: Vec::new() }
    }
}

impl From<Refused> for Said {
    fn from(refused: Refused) -> Said {
        Said::error(refused.code, &refused.why)
    }
}

impl From<Denied> for Said {
    fn from(denied: Denied) -> Said {
        let why = denied.to_string();
        match denied {
            Denied::Missing => Said::error(Code::Unauthorized, &why).with("WWW-Authenticate", "Bearer"),
            Denied::Refused(_) => Said::error(Code::Unauthorized, &why).with("WWW-Authenticate", "Bearer error=\"invalid_token\""),
            Denied::Fetching => Said::error(Code::Busy, &why).with("Retry-After", "1"),
        }
    }
}

/// An answer on its way out.
struct Pending {
    conn: ConnId,
    tag: u64,
    said: Said,
    ticket: Ticket,
    /// Whether it is true only once what has changed is on disk.
    changed: bool,
}

/// The stage `upstream`.
pub struct Portfolios {
    kv: Arc<dyn Kv>,
    book: Book,
    keys: Keys,
    collector: Collector,
    sealer: Option<Arc<Sealer>>,
    currencies: Vec<String>,
    network: Network,
    /// Batches for which the disk had no room, in their order.
    unwritten: Vec<Vec<Op>>,
    /// Portfolios whose snapshots are still to be deleted.
    gone: Vec<(UserId, u32)>,
    /// When the disk is tried again, which has no room now: nothing is collected meanwhile.
    retry: Option<Duration>,
    /// The disk has failed: what is in memory must not be trusted any more.
    dead: bool,
}

impl Portfolios {
    /// As they are stored, by this configuration. `secret` is what the node signs its own tokens with.
    pub fn open(
        config: &PortfolioConfig,
        kv: Arc<dyn Kv>,
        secret: Secret,
        network: Network,
        datadir: &Path,
    ) -> Result<Portfolios, Failure> {
        let sealer = config.key_file.as_deref().map(|file| Sealer::load(file, datadir)).transpose()?.map(Arc::new);
        let currencies = &config.currencies;
        let services = Services {
            coingecko: CoinGecko::new(&config.coingecko, config.coingecko_key.as_deref(), currencies),
            okx: config.okx.clone(),
            chains: config.chains.clone(),
            bitcoind: true,
            unseal: unseal(sealer.clone()),
        };
        Ok(Portfolios {
            book: Book::open(&*kv)?,
            kv,
            keys: Keys::new(secret, config.identity.clone()),
            collector: Collector::new(services),
            sealer,
            currencies: currencies.clone(),
            network,
            unwritten: Vec::new(),
            gone: Vec::new(),
            retry: None,
            dead: false,
        })
    }

    /// The same of a node that has no bitcoind.
    #[must_use]
    pub fn without_bitcoind(mut self) -> Portfolios {
        self.collector.without_bitcoind();
        self
    }

    /// Whether anything may be changed now.
    fn has_room(&self) -> bool {
        self.unwritten.is_empty() && self.kv.free_space().is_ok_and(|free| free >= FREE_SPACE_MIN)
    }

    /// What a request is answered with.
    fn said(&mut self, now: Now, request: &Request, room: bool) -> Said {
        let bearer = match self.keys.check(request.authorization.as_deref(), now) {
            Ok(bearer) => bearer,
            Err(denied) => return denied.into(),
        };
        let asked = match Asked::find(request) {
            Ok(asked) => asked,
            Err(reply) => return reply.into(),
        };
        let question = match question(&asked) {
            Ok(question) => question,
            Err(said) => return said,
        };
        let known = self.book.user(&user_id(&bearer.issuer, &bearer.sub)).is_some();
        if !room && (!known || question.changes()) {
            return Said::error(Code::DiskFull, "the disk is full: nothing can be changed until there is room");
        }
        let unix = now.wall.as_secs();
        let user = match self.book.meet(&bearer.issuer, &bearer.sub, unix) {
            Ok(user) => user,
            Err(full) => return Refused::from(full).into(),
        };
        self.book.looked(&user, now);
        self.collector.wake();
        let (sealer, currencies) = (self.sealer.as_deref(), self.currencies.as_slice());
        let mut desk = Desk { book: &mut self.book, kv: &*self.kv, sealer, currencies, network: self.network, now: unix };
        match desk.answer(&user, question, asked.text("currency")) {
            Ok((status, body)) => Said { status, body: body.to_string().into_bytes(), lines: Vec::new() },
            Err(refused) => refused.into(),
        }
    }

    /// Writes what has changed, whole batches in their order; the last is on disk when this returns. What there is no room for is kept.
    fn save(&mut self, now: Now) -> Result<(), StoreError> {
        self.unwritten.append(&mut self.book.take());
        self.gone.append(&mut self.book.take_gone());
        let result = self.write();
        if !self.unwritten.is_empty() || !self.gone.is_empty() {
            self.retry = Some(now.mono + UNWRITTEN_RETRY);
        }
        result
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let last = self.unwritten.len().saturating_sub(1);
        for (at, batch) in self.unwritten.iter().enumerate() {
            if let Err(error) = self.kv.write(batch, at == last) {
                self.unwritten.drain(..at);
                return Err(error);
            }
        }
        self.unwritten.clear();
        while let Some((user, portfolio)) = self.gone.last() {
            let ops = gone_rows(&*self.kv, user, *portfolio)?;
            if ops.is_empty() {
                self.gone.pop();
            } else {
                self.kv.write(&ops, false)?;
            }
        }
        Ok(())
    }

    /// Does what was asked, and what it comes to.
    fn take(&mut self, now: Now, jobs: &mut Vec<UpstreamJob>, out: &mut Output) -> Vec<Pending> {
        let mut pending = Vec::new();
        let room = self.has_room();
        self.retry = (!room).then(|| now.mono + UNWRITTEN_RETRY);
        for job in jobs.drain(..) {
            match job {
                UpstreamJob::Ask { conn, tag, request, ticket } => {
                    let before = self.book.noted();
                    let said = self.said(now, &request, room);
                    pending.push(Pending { conn, tag, said, ticket, changed: self.book.noted() != before });
                }
                UpstreamJob::Mined(mined) => {
                    self.collector.mined(*mined);
                    out.mail.push((Answer::MinedHeard, Vec::new()));
                }
                UpstreamJob::Brought { order: KEYS_ORDER, result } => self.keys.came(result.as_deref(), now),
                UpstreamJob::Brought { order, result } => self.collector.came(now, order, result, &mut self.book),
            }
        }
        if room && !self.dead {
            self.collector.plan(now, &mut self.book, &mut out.orders);
        }
        if let Some(call) = self.keys.wants(now) {
            out.orders.push(Order { id: KEYS_ORDER, call });
        }
        pending
    }
}

impl Stage for Portfolios {
    type Job = UpstreamJob;

    fn step(&mut self, now: Now, jobs: &mut Vec<UpstreamJob>, out: &mut Output) {
        let mut pending = self.take(now, jobs, out);
        let saved = if self.dead { Ok(()) } else { self.save(now) };
        let unsaved = match &saved {
            Ok(()) => None,
            Err(StoreError::NoSpace) => {
                Some(Said::error(Code::DiskFull, "the disk is full: what was asked for is done once there is room"))
            }
            Err(error) => {
                self.dead = true;
                out.mail.push((Answer::Died { stage: STAGE, why: error.to_string() }, Vec::new()));
                None
            }
        };
        for Pending { conn, tag, said, ticket, changed } in pending.drain(..) {
            let Said { status, body, lines } = match &unsaved {
                Some(full) if changed => Said { status: full.status, body: full.body.clone(), lines: Vec::new() },
                _ if self.dead => Said::error(Code::Internal, "the disk has failed, and the node stops"),
                _ => said,
            };
            out.mail.push((Answer::Told { conn, tag, status, body, lines }, vec![ticket]));
        }
    }

    fn due(&self) -> Option<Duration> {
        if self.dead {
            return None;
        }
        let next = self.retry.unwrap_or_else(|| self.collector.due());
        Some(self.keys.due().map_or(next, |due| due.min(next)))
    }

    fn owes(&self) -> bool {
        false
    }
}

/// Opens keys of accounts with the key that seals them.
fn unseal(sealer: Option<Arc<Sealer>>) -> Unseal {
    Box::new(move |of, sealed| {
        let sealer = sealer.as_ref().ok_or("its keys cannot be opened: the node was started without --portfolio-key")?;
        Ok(sealer.open(sealed, of).ok_or("its keys were sealed with another --portfolio-key: remove the account and add it again")?)
    })
}

/// What a request asks, by its route.
fn question(asked: &Asked<'_>) -> Result<Question, Said> {
    // Routes know that they fit.
    let id = |name| asked.number(name).and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
    Ok(match asked.row.route {
        Route::Portfolios => Question::List,
        Route::AddPortfolio => {
            let new: NewPortfolio = asked.body(r#"{"name": "…"}"#)?;
            Question::Add(new)
        }
        Route::Portfolio => Question::Show(id("portfolio")),
        Route::RemovePortfolio => Question::Remove(id("portfolio")),
        Route::Accounts => Question::Accounts(id("portfolio")),
        Route::AddAccount => Question::AddAccount(id("portfolio"), new_account(asked)?),
        Route::RemoveAccount => Question::RemoveAccount(id("portfolio"), id("account")),
        Route::Holdings => Question::Holdings(id("portfolio")),
        Route::Worth => Question::History(id("portfolio"), id("days")),
        Route::Coins => Question::Coins,
        _ => return Err(Said::error(Code::NotFound, "there is nothing here")),
    })
}

/// The account that is to be added. What is wrong with it is not repeated: it may be a secret in the wrong place.
fn new_account(asked: &Asked<'_>) -> Result<NewAccount, Said> {
    let wanted =
        r#"{"kind": "bitcoin", "name": "…", "address": "…"}, or kind evm with chains, miner, or okx with key, secret and passphrase"#;
    asked.body::<NewAccount>(wanted).map_err(|reply| match reply.status {
        400 => Said::error(Code::BadBody, &format!("send {wanted}")),
        _ => reply.into(),
    })
}
