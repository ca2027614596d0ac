//! What is asked of services when, and what is made of their answers.
//!
//! Pure: the stage hands over orders and brings what came of them. Clocks of intervals are monotonic, so that a calendar that jumps makes
//! no burst; days are the calendar's.

mod accounts;
mod blocks;
mod daily;
mod endpoints;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rockpool_net::id::ShareId;
use rockpool_net::time::Now;
use rockpool_workers::jobs::Mined;
use rockpool_workers::outside::cache::TtlCache;
use rockpool_workers::outside::call::{Call, CallError, Order, Service};

use super::book::Book;
use super::chains::Chain;
use super::connect::coingecko::CoinGecko;
use super::connect::{evm, okx};
use super::model::{AccountKey, Contract, Daily, Holding, Sealed};
use crate::limits::{
    AGAIN_AFTER, BITCOIND_ORDERS_MAX, CHAIN_DATA_FOR, CHAIN_DATA_MAX, COLLECT_MAX, COLLECT_MIN, COLLECT_ORDERS_MAX, LOOKED_FOR, PRICED_MAX,
    PRICES_APART, PRICES_EVERY, PRICES_IDLE_EVERY, PRICES_PER_CALL,
};
use accounts::{Asked, Subject};
use blocks::Blocks;
use daily::Days;
use endpoints::{Endpoints, is_its_failure};

/// What bitcoins are called where prices are.
const BITCOIN: &str = "bitcoin";

/// Opens an account's keys, or says why that cannot be.
pub type Unseal = Box<dyn Fn(&AccountKey, &Sealed) -> Result<okx::Keys, String> + Send>;

/// Where services are.
pub struct Services {
    /// Prices.
    pub coingecko: CoinGecko,
    /// OKX's URL.
    pub okx: String,
    /// Each chain's endpoint, by the chain's id.
    pub chains: Vec<(&'static Chain, String)>,
    /// Whether the node has a bitcoind.
    pub bitcoind: bool,
    /// Opens keys.
    pub unseal: Unseal,
}

/// What an order asks.
enum Question {
    Prices(Vec<String>),
    Coins(u32),
    Contracts(u32),
    Decimals(u8, Vec<[u8; 20]>),
    Chain(u8, [u8; 20], Vec<Contract>, Vec<AccountKey>),
    Okx(okx::Part, AccountKey),
    Scan(Vec<String>, u32),
    Block(ShareId),
    Coinbase(ShareId, String),
}

struct Sent {
    question: Question,
    service: Service,
    endpoint: Arc<str>,
}

/// Keeps what is known of prices and accounts as new as it should be.
pub struct Collector {
    services: Services,
    evm: Vec<evm::Endpoint>,
    okx: Arc<str>,
    bitcoind: Arc<str>,
    endpoints: Endpoints,
    out: BTreeMap<u64, Sent>,
    last_order: u64,
    /// When the last look was, and when the next is wanted.
    looked: Option<Duration>,
    next: Duration,
    /// Before when no prices are asked for, and coins whose prices were told lately, or that there is none.
    prices_from: Duration,
    priced: TtlCache<String, ()>,
    /// What chains told lately, and why they did not.
    chain_data: TtlCache<(u8, [u8; 20]), Vec<Holding>>,
    chain_trouble: BTreeMap<(u8, [u8; 20]), String>,
    /// When accounts were asked for.
    asked: BTreeMap<Subject, Asked>,
    /// Accounts that are due or under way.
    overdue: usize,
    /// What OKX told of the first part of an account whose second is yet to come.
    trading: BTreeMap<AccountKey, (Vec<Holding>, Option<String>)>,
    blocks: Blocks,
    days: Days,
}

impl Collector {
    /// One that has asked nothing yet.
    pub fn new(services: Services) -> Collector {
        let evm = services.chains.iter().map(|(chain, url)| evm::Endpoint::new(chain, url)).collect();
        Collector {
            services,
            evm,
            okx: "okx".into(),
            bitcoind: "bitcoind".into(),
            endpoints: Endpoints::default(),
            out: BTreeMap::new(),
            last_order: 0,
            looked: None,
            next: Duration::ZERO,
            prices_from: Duration::ZERO,
            priced: TtlCache::new(PRICES_EVERY, PRICED_MAX),
            chain_data: TtlCache::new(CHAIN_DATA_FOR, CHAIN_DATA_MAX),
            chain_trouble: BTreeMap::new(),
            asked: BTreeMap::new(),
            overdue: 0,
            trading: BTreeMap::new(),
            blocks: Blocks::default(),
            days: Days::default(),
        }
    }

    /// There is no bitcoind: nothing is asked of it.
    pub fn without_bitcoind(&mut self) {
        self.services.bitcoind = false;
    }

    /// When it wants to look at what is due.
    pub fn due(&self) -> Duration {
        self.next
    }

    /// Something has changed: somebody looks, or has another account. There is a look soon.
    pub fn wake(&mut self) {
        self.next = self.next.min(self.looked.map_or(Duration::ZERO, |looked| looked + COLLECT_MIN));
    }

    /// How miners stand.
    pub fn mined(&mut self, mined: Mined) {
        self.blocks.mined(mined);
        self.wake();
    }

    /// Orders what is due, if it is time for a look. Ids of orders begin at 1.
    pub fn plan(&mut self, now: Now, book: &mut Book, orders: &mut Vec<Order>) {
        if now.mono < self.next {
            return;
        }
        self.looked = Some(now.mono);
        self.next = now.mono + COLLECT_MAX;
        self.plan_prices(now, book, orders);
        self.plan_days(now, book, orders);
        self.plan_accounts(now, book, orders);
        self.plan_blocks(now, book, orders);
        self.plan_snapshots(now, book);
        self.next = self.next.max(now.mono + COLLECT_MIN);
    }

    /// What came of an order. One that was answered before, or is not known, is passed over.
    pub fn came(&mut self, now: Now, order: u64, result: Result<Vec<u8>, CallError>, book: &mut Book) {
        let Some(Sent { question, endpoint, .. }) = self.out.remove(&order) else { return };
        let error = match question {
            Question::Prices(ids) => self.came_prices(now, result, &ids, book).err(),
            Question::Coins(day) => self.came_coins(result, day, book).err(),
            Question::Contracts(day) => self.came_contracts(result, day, book).err(),
            Question::Decimals(chain, of) => self.came_decimals(result, chain, &of, book).err(),
            Question::Chain(chain, address, tokens, keys) => self.came_chain(now, result, (chain, address), &tokens, &keys, book).err(),
            Question::Okx(part, key) => self.came_okx(now, result, part, key, book).err(),
            Question::Scan(addresses, height) => self.came_scan(now, result, &addresses, height, book).err(),
            Question::Block(hash) => self.came_block(now, result, hash).err(),
            Question::Coinbase(hash, name) => self.came_coinbase(now, result, hash, &name, book).err(),
        };
        self.endpoints.came(&endpoint, now.mono, error.as_ref());
        if let Some(error) = error.filter(|error| *error != CallError::Stopped) {
            log::debug!("{endpoint}: {error}");
        }
        self.wake();
    }

    /// Wants a look at this time, if not before.
    fn want(&mut self, at: Duration) {
        self.next = self.next.min(at);
    }

    /// Whether an order may go there now. If not, there is a look when it may.
    fn may_ask(&mut self, now: Now, service: Service, endpoint: &str) -> bool {
        let most = if service == Service::Bitcoind { BITCOIND_ORDERS_MAX } else { COLLECT_ORDERS_MAX };
        if self.out.values().filter(|sent| sent.service == service).count() >= most {
            return false;
        }
        match self.endpoints.from(endpoint) {
            Some(from) if from <= now.mono => true,
            Some(from) => {
                self.want(from);
                false
            }
            None => false,
        }
    }

    fn ask(&mut self, question: Question, call: Call, orders: &mut Vec<Order>) {
        self.last_order += 1;
        self.endpoints.asked(&call.endpoint);
        self.out.insert(self.last_order, Sent { question, service: call.service, endpoint: call.endpoint.clone() });
        orders.push(Order { id: self.last_order, call });
    }

    /// Whether such an order is out.
    fn is_out(&self, such: impl Fn(&Question) -> bool) -> bool {
        self.out.values().any(|sent| such(&sent.question))
    }

    /// Asks for prices of what is held, of bitcoins, and of top coins while somebody looks: often then and for the day's snapshots, else
    /// now and then, since a free key has few calls a month. A coin that is new is asked for soon. What is nearly due goes along, so that
    /// calls stay few.
    fn plan_prices(&mut self, now: Now, book: &Book, orders: &mut Vec<Order>) {
        if now.mono < self.prices_from {
            return self.want(self.prices_from);
        }
        let mut wanted = BTreeSet::from([BITCOIN]);
        for (key, _) in book.accounts() {
            wanted.extend(book.holdings(&key).iter().map(|holding| holding.asset.as_str()).filter(|asset| !asset.contains(':')));
        }
        let looks = book.all_portfolios().any(|(user, _)| is_looking(book, now, &user));
        if looks {
            wanted.extend(book.coins().iter().map(|coin| coin.id.as_str()));
        }
        let snapshots = book.mark(Daily::Snapshots) != Some(daily::day(now));
        let every = if looks || snapshots { PRICES_EVERY } else { PRICES_IDLE_EVERY };
        let under_way = |id: &str| {
            let asks = |sent: &Sent| matches!(&sent.question, Question::Prices(ids) if ids.iter().any(|asked| asked == id));
            self.out.values().any(asks)
        };
        let age = |id: &str| self.priced.get(&id.to_owned(), now.mono).map_or(Duration::MAX, |cached| cached.age);
        let old: Vec<_> = wanted.iter().map(|id| (age(id), *id)).filter(|(_, id)| !under_way(id)).collect();
        let oldest = old.iter().map(|(age, _)| *age).max().unwrap_or_default();
        if oldest < every {
            return self.want(now.mono + (every - oldest));
        }
        let due: Vec<_> = old.into_iter().filter(|(age, _)| *age >= every / 2).map(|(_, id)| id.to_owned()).collect();
        for ids in due.chunks(PRICES_PER_CALL) {
            let endpoint = self.services.coingecko.endpoint.clone();
            if !self.may_ask(now, Service::CoinGecko, &endpoint) {
                return;
            }
            let call = self.services.coingecko.prices(ids);
            self.ask(Question::Prices(ids.to_vec()), call, orders);
        }
        // Whatever users come to hold one after the other.
        self.prices_from = now.mono + PRICES_APART;
    }

    fn came_prices(&mut self, now: Now, result: Result<Vec<u8>, CallError>, ids: &[String], book: &mut Book) -> Result<(), CallError> {
        let prices = result.and_then(|bytes| self.services.coingecko.read_prices(&bytes, ids, now.wall.as_secs()));
        // Its endpoint may be left alone for longer.
        let prices = prices.inspect_err(|_| self.prices_from = now.mono + AGAIN_AFTER)?;
        // Of a coin that it does not know it tells nothing: that need not be asked again before the others.
        ids.iter().for_each(|id| self.priced.put(id.clone(), (), now.mono));
        book.set_prices(prices);
        Ok(())
    }
}

/// Whether a user has looked lately.
fn is_looking(book: &Book, now: Now, user: &super::model::UserId) -> bool {
    book.last_looked(user).is_some_and(|at| now.mono.saturating_sub(at) < LOOKED_FOR)
}

/// Why a service told nothing, the same words for the same reason: they are part of a row.
fn trouble(endpoint: &str, error: &CallError) -> String {
    match error {
        CallError::Busy { .. } => format!("{endpoint}: too many calls are under way"),
        CallError::Open { .. } => format!("{endpoint}: it failed again and again, and is left alone for a while"),
        CallError::Unreachable(_) => format!("{endpoint}: it cannot be reached"),
        _ => format!("{endpoint}: {error}"),
    }
}
