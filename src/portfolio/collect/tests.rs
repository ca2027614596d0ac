#![expect(clippy::unwrap_used, reason = "tests")]

use rockpool_net::wire::share::Script;
use rockpool_store::kv::{Kv, MemKv};
use rockpool_store::limits::ROWS_PER_BATCH;
use rockpool_store::payouts::Payouts;

use rockpool_workers::limits::{ORDERS_MAX, ORDERS_PER_SERVICE_MAX};
use rockpool_workers::outside::call::What;

use super::*;
use crate::limits::*;
use crate::portfolio::chains::CHAINS;
use crate::portfolio::model::{Amount, Daily, Source, UserId};
use crate::portfolio::services::{Services as World, TOKENS};

const MINE: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
const START: u64 = 1_790_000_000;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// A collector with its book and disk, a clock, and services that answer.
struct Rig {
    collector: Collector,
    book: Book,
    kv: MemKv,
    user: UserId,
    mono: Duration,
    /// What the calendar is ahead of its start and the monotonic clock.
    ahead: i64,
    world: World,
    /// Services that cannot be reached, and what they are as errors.
    down: BTreeMap<Service, CallError>,
    /// An address with more outputs than bitcoind may tell of.
    crowded: Option<String>,
    /// An endpoint that cannot be reached.
    down_at: Option<&'static str>,
    /// Orders out that are not answered until the test says so.
    held: Option<Vec<Order>>,
    rows: usize,
    writes: usize,
    orders: usize,
    steps: usize,
}

impl World {
    /// How often something was asked.
    fn count(&self, kind: &str) -> usize {
        self.asked.get(kind).copied().unwrap_or_default()
    }
}

fn collector() -> Collector {
    with(true)
}

fn with(bitcoind: bool) -> Collector {
    let keys = || okx::Keys { key: "k".into(), secret: "s".into(), passphrase: "p".into() };
    Collector::new(super::Services {
        coingecko: CoinGecko::new("http://gecko", None, &["usd".into(), "eur".into()]),
        okx: "http://okx".into(),
        chains: CHAINS.iter().map(|chain| (chain, format!("http://evm/{}", chain.name))).collect(),
        bitcoind,
        unseal: Box::new(move |_, sealed| if sealed.0.is_empty() { Err("no key file".into()) } else { Ok(keys()) }),
    })
}

impl Rig {
    fn new() -> Rig {
        let mut book = Book::default();
        let user = book.meet("rockpool", "me", START).unwrap();
        Rig {
            collector: collector(),
            book,
            kv: MemKv::default(),
            user,
            mono: Duration::from_secs(7),
            ahead: 0,
            world: World::new(START),
            down: BTreeMap::new(),
            crowded: None,
            down_at: None,
            held: None,
            rows: 0,
            writes: 0,
            orders: 0,
            steps: 0,
        }
    }

    /// With an account of each kind.
    fn full() -> Rig {
        let mut rig = Rig::new();
        rig.add(evm(0xab, &[0, 1, 2, 3, 4, 5]));
        rig.add(Source::Okx { sealed: Sealed(vec![1]) });
        rig.add(Source::Bitcoin { address: MINE.into() });
        rig.add(Source::Miner { address: MINE.into() });
        rig.mined(840_000, 1);
        rig
    }

    fn add(&mut self, source: Source) -> AccountKey {
        let now = self.now().wall.as_secs();
        let key = self.book.add_account(&self.user, 1, "account".into(), source, now).unwrap();
        self.collector.wake();
        key
    }

    fn now(&self) -> Now {
        Now { mono: self.mono, wall: Duration::from_secs(START.saturating_add_signed(self.ahead)) + self.mono }
    }

    /// A found block of two, with this many confirmations, and one of 150.
    fn mined(&mut self, height: u32, confirmations: u32) {
        let script = Script::from_script_pubkey(&crate::portfolio::connect::bitcoin::script(MINE).unwrap()).unwrap();
        let payouts = Payouts { parent: ShareId([0; 32]), parent_height: 1, weights: Arc::new([(script, 5)]) };
        let blocks = vec![(ShareId([1; 32]), height - 150, 150), (ShareId([2; 32]), height - confirmations, confirmations)];
        self.collector.mined(Mined { payouts: Arc::new(payouts), value: 312_500_000, height, blocks });
    }

    fn look(&mut self) {
        self.book.looked(&self.user, self.now());
        self.collector.wake();
    }

    /// One look, what it orders, and what comes of that.
    fn step(&mut self) -> Vec<Order> {
        let (now, mut orders) = (self.now(), Vec::new());
        self.steps += 1;
        self.collector.plan(now, &mut self.book, &mut orders);
        self.orders += orders.len();
        assert!(self.collector.out.len() <= ORDERS_MAX);
        for service in Service::ALL {
            let out = self.collector.out.values().filter(|sent| sent.service == service).count();
            assert!(out <= ORDERS_PER_SERVICE_MAX.min(COLLECT_ORDERS_MAX));
        }
        if let Some(held) = &mut self.held {
            held.extend(orders.iter().cloned());
        } else {
            orders.iter().for_each(|order| self.answer(order));
        }
        self.save();
        orders
    }

    fn answer(&mut self, order: &Order) {
        let now = self.now();
        let result = match self.down.get(&order.call.service) {
            Some(error) => Err(error.clone()),
            None if self.crowded.as_ref().is_some_and(|of| asks_for(order, of)) => Err(CallError::TooLong(SCAN_ANSWER_BYTES)),
            None if self.down_at == Some(&*order.call.endpoint) => Err(CallError::Timeout),
            None => self.world.answer(&order.call),
        };
        self.collector.came(now, order.id, result, &mut self.book);
    }

    fn save(&mut self) {
        for batch in self.book.take() {
            assert!((1..=ROWS_PER_BATCH).contains(&batch.len()));
            self.writes += 1;
            self.rows += batch.len();
            self.kv.write(&batch, true).unwrap();
        }
    }

    /// Goes on for so long, at the times at which it is wanted.
    fn run(&mut self, time: Duration) {
        let end = self.mono + time;
        loop {
            self.step();
            let due = self.collector.due();
            assert!(due >= self.mono + COLLECT_MIN, "a busy loop");
            if due > end {
                self.mono = end;
                return;
            }
            self.mono = due;
        }
    }

    fn holdings(&self, key: &AccountKey) -> Vec<String> {
        self.book.holdings(key).iter().map(|of| format!("{} {} {} {}", of.asset, of.place, of.amount, of.counted)).collect()
    }

    fn trouble(&self, key: &AccountKey) -> String {
        self.book.account(key).unwrap().trouble.clone().unwrap_or_default()
    }

    fn keys(&self) -> Vec<AccountKey> {
        self.book.accounts().map(|(key, _)| key).collect()
    }

    fn price_age(&self) -> u64 {
        self.now().wall.as_secs() - self.book.price("bitcoin").unwrap().at
    }
}

/// Whether an order is a scan for this address, among others.
fn asks_for(order: &Order, address: &str) -> bool {
    matches!(&order.call.what, What::Rpc { method: "scantxoutset", params } if params.to_string().contains(address))
}

fn evm(byte: u8, chains: &[u8]) -> Source {
    Source::Evm { address: [byte; 20], chains: chains.to_vec() }
}

/// Distinct Bitcoin addresses.
fn address(n: u32) -> String {
    let mut program = [0; 20];
    program[..4].copy_from_slice(&n.to_be_bytes());
    let program = bitcoin::WitnessProgram::new(bitcoin::WitnessVersion::V0, &program).unwrap();
    bitcoin::Address::from_witness_program(program, bitcoin::KnownHrp::Regtest).to_string()
}

#[test]
fn everything_is_collected() {
    let mut rig = Rig::full();
    let script = bitcoin::hex::DisplayHex::to_lower_hex_string(&crate::portfolio::connect::bitcoin::script(MINE).unwrap()[..]);
    rig.world.paid = vec![(script, 0.5)];
    rig.look();
    rig.run(3 * MINUTE);
    let keys = rig.keys();
    let on_chain: Vec<_> = rig.holdings(&keys[0]);
    assert_eq!(on_chain.len(), CHAINS.len() * (1 + TOKENS), "{on_chain:?}");
    assert!(on_chain.contains(&"binancecoin bsc 0.000000000005 true".to_owned()) && on_chain.contains(&"coin-3 base 5 true".to_owned()));
    assert_eq!(rig.holdings(&keys[1]), ["bitcoin trading 1.5 true", "okx:NOWHERE funding 1.5 true"]);
    assert_eq!(rig.holdings(&keys[2]), ["bitcoin bitcoin 0.25 true"]);
    // The same portfolio has the address itself, which holds what was paid.
    assert_eq!(rig.holdings(&keys[3]), ["bitcoin immature 0.5 false", "bitcoin paid 0.5 false"]);
    assert_eq!(rig.book.pending(&keys[3]), Some(312_500_000));
    rig.book.remove_account(&keys[2]);
    rig.look();
    rig.run(MINUTE);
    assert_eq!(rig.holdings(&keys[3])[0], "bitcoin immature 0.5 true");
    assert!(keys.iter().filter(|key| **key != keys[2]).all(|key| rig.trouble(key).is_empty()));
    assert_eq!(rig.book.price("coin-4").unwrap().values["eur"], 2.0);
    assert_eq!(rig.world.count("getblock"), 2, "each block once");
    for daily in Daily::ALL {
        assert_eq!(rig.book.mark(daily), Some((START / 86_400) as u32), "{daily:?}");
    }
}

#[test]
fn a_second_run_of_each_job_changes_no_row() {
    let mut rig = Rig::full();
    rig.look();
    rig.run(5 * MINUTE);
    let (rows, orders, asked) = (rig.rows, rig.orders, rig.world.asked.clone());
    assert!(rows > 100);
    // Everything is new to a node that starts, but for its rows.
    rig.book = Book::open(&rig.kv).unwrap();
    rig.collector = collector();
    rig.look();
    rig.mined(840_000, 1);
    rig.run(20 * MINUTE);
    assert_eq!(rig.rows, rows, "rows were written again");
    assert!(rig.orders > 2 * orders);
    for kind in ["simple/price", "account/balance", "asset/balances", "evm", "scantxoutset"] {
        assert!(rig.world.count(kind) > asked[kind], "{kind}");
    }
    // What is done once a day or once for ever was not done again. It changes no row either.
    for kind in ["coins/markets", "coins/list", "getblock", "getrawtransaction"] {
        assert_eq!(rig.world.count(kind), asked[kind], "{kind}");
    }
    let today = (START / 86_400) as u32;
    let mut call = |call: Call| rig.world.answer(&call).unwrap();
    let (top, all) = (call(rig.collector.services.coingecko.top()), call(rig.collector.services.coingecko.all()));
    rig.collector.came_coins(Ok(top), today, &mut rig.book).unwrap();
    rig.collector.came_contracts(Ok(all), today, &mut rig.book).unwrap();
    for endpoint in rig.collector.evm.clone() {
        let of: Vec<_> = rig.book.contracts(endpoint.chain.id).map(|contract| contract.address).collect();
        let places = rig.world.answer(&endpoint.decimals(&of)).unwrap();
        rig.collector.came_decimals(Ok(places), endpoint.chain.id, &of, &mut rig.book).unwrap();
    }
    rig.save();
    assert_eq!(rig.rows, rows);
}

#[test]
fn a_hundred_prices_are_one_call_and_one_write() {
    let mut rig = Rig::new();
    let key = rig.add(evm(1, &[]));
    let holding = |n| Holding { asset: format!("coin-{n}"), place: "x".into(), amount: Amount::sats(1), counted: true };
    rig.book.set_holdings(&key, START, (1..PRICES_PER_CALL).map(holding).collect());
    rig.save();
    rig.held = Some(Vec::new());
    rig.step();
    let (writes, rows) = (rig.writes, rig.rows);
    let orders = rig.held.take().unwrap();
    let prices: Vec<_> =
        orders.iter().filter(|order| matches!(&order.call.what, What::Http { url, .. } if url.contains("simple/price"))).collect();
    assert_eq!(prices.len(), 1);
    rig.answer(prices[0]);
    rig.save();
    assert_eq!((rig.writes - writes, rig.rows - rows), (1, PRICES_PER_CALL));
}

#[test]
fn calls_for_prices_stay_few_however_holdings_come() {
    let mut rig = Rig::new();
    // With what is held they fit one call.
    rig.world.coins = 90;
    for n in 0..5 {
        let key = rig.add(evm(n, &[]));
        let holding = Holding { asset: format!("odd-{n}"), place: "x".into(), amount: Amount::sats(1), counted: true };
        rig.book.set_holdings(&key, START, vec![holding]);
        rig.look();
        rig.run(Duration::from_secs(11));
    }
    rig.run(5 * MINUTE);
    let before = rig.world.count("simple/price");
    rig.look();
    rig.run(10 * MINUTE);
    let calls = rig.world.count("simple/price") - before;
    assert!((9..=11).contains(&calls), "{calls} calls in ten minutes");
    assert!(rig.collector.priced.len() <= PRICED_MAX && rig.collector.priced.is_fresh(&"odd-4".into(), rig.mono - PRICES_EVERY / 2));
}

#[test]
fn prices_at_which_nobody_looks_are_within_the_calls_of_a_free_key() {
    let mut rig = Rig::full();
    rig.world.coins = 90;
    rig.run(HOUR);
    rig.world.asked.clear();
    let end = rig.mono + 24 * HOUR;
    while rig.mono < end {
        rig.run(HOUR);
        rig.mined(840_001 + (rig.mono.as_secs() / 600) as u32, 2);
    }
    let calls = rig.world.count("simple/price");
    assert!((140..200).contains(&calls) && calls * 31 < 10_000, "{calls} calls a day");
    // Whoever looks has new ones at the next look.
    rig.run(PRICES_IDLE_EVERY / 2);
    rig.world.asked.clear();
    rig.look();
    rig.run(2 * COLLECT_MIN);
    assert_eq!(rig.world.count("simple/price"), 1);
    rig.run(9 * MINUTE);
    assert!((9..=10).contains(&rig.world.count("simple/price")), "{}", rig.world.count("simple/price"));
}

#[test]
fn a_coin_that_is_new_has_its_price_soon_and_nobody_makes_calls_by_that() {
    let mut rig = Rig::full();
    rig.run(HOUR + MINUTE);
    let key = rig.add(evm(1, &[]));
    rig.world.asked.clear();
    let holding = |n: usize| Holding { asset: format!("odd-{n}"), place: "x".into(), amount: Amount::sats(1), counted: true };
    rig.book.set_holdings(&key, START, vec![holding(0)]);
    rig.collector.wake();
    rig.run(2 * COLLECT_MIN);
    assert_eq!(rig.world.count("simple/price"), 1, "not only after its ten minutes");
    // Another coin each second.
    for n in 1..=600 {
        rig.book.set_holdings(&key, START, vec![holding(n)]);
        rig.collector.wake();
        rig.run(COLLECT_MIN);
    }
    let calls = rig.world.count("simple/price");
    assert!(calls <= 1 + (600 / PRICES_APART.as_secs()) as usize, "{calls} calls in ten minutes");
    // One that is refused is not asked for at each look.
    rig.world.asked.clear();
    rig.down.insert(Service::CoinGecko, CallError::Status { status: 400, said: None, retry_after: None });
    let orders = rig.orders;
    rig.book.set_holdings(&key, START, vec![holding(999)]);
    rig.collector.wake();
    rig.run(Duration::from_secs(50));
    assert!(rig.orders - orders <= 3, "{}", rig.orders - orders);
}

#[test]
fn each_service_is_down_for_ten_minutes() {
    let failures = |service: Service| {
        let status = |status| CallError::Status { status, said: Some("odd".into()), retry_after: Some(Duration::from_secs(30)) };
        let open = CallError::Open { endpoint: "x".into(), failures: 5, left: Duration::from_secs(29) };
        let busy = CallError::Busy { service: service.name(), in_flight: 5, waited: MINUTE };
        let unreachable = CallError::Unreachable("refused".into());
        [CallError::Timeout, unreachable, status(503), status(429), open, busy, CallError::Garbled("odd".into()), CallError::TooLong(1)]
    };
    for service in [Service::CoinGecko, Service::Okx, Service::Evm, Service::Bitcoind] {
        for error in failures(service) {
            let mut rig = Rig::full();
            rig.look();
            rig.run(5 * MINUTE);
            let before: Vec<_> = rig.keys().iter().map(|key| rig.holdings(key)).collect();
            rig.down.insert(service, error.clone());
            let (orders, steps) = (rig.orders, rig.steps);
            let of_service = |rig: &Rig| match service {
                Service::CoinGecko => rig.world.count("simple/price"),
                Service::Okx => rig.world.count("asset/balances"),
                Service::Evm => rig.world.count("evm"),
                _ => rig.world.count("scantxoutset"),
            };
            let answered = of_service(&rig);
            for minute in 0..10 {
                rig.look();
                rig.mined(840_001 + minute, 2);
                rig.world.now += 60;
                rig.run(MINUTE);
            }
            let told = format!("{service:?} {error:?}");
            // Six chains, two parts of an account, prices, a scan: each at most once a minute, and once more where it began together.
            assert!(rig.orders - orders <= 11 * 10, "{told}: {} orders", rig.orders - orders);
            assert!(rig.steps - steps <= 20 * 10, "{told}: {} looks", rig.steps - steps);
            assert_eq!(of_service(&rig), answered, "{told}");
            // What was known is still told, and how old it is.
            assert_eq!(rig.keys().iter().map(|key| rig.holdings(key)).collect::<Vec<_>>(), before, "{told}");
            if service == Service::CoinGecko {
                assert!(rig.price_age() >= 600, "{told}: {}", rig.price_age());
            } else {
                let at = [(Service::Evm, 0), (Service::Okx, 1), (Service::Bitcoind, 2)].iter().find(|(of, _)| *of == service).unwrap().1;
                let account = rig.book.account(&rig.keys()[at]).unwrap();
                assert!(account.trouble.is_some(), "{told}");
                let age = rig.now().wall.as_secs() - account.checked.unwrap();
                assert!(age >= 540 || service == Service::Evm, "{told}: {age}");
            }
            // It is back: found within the longest pause, by the first probe.
            rig.down.clear();
            rig.world.now += 60;
            rig.look();
            rig.run(ENDPOINT_PAUSE_MAX.max(SCAN_EVERY) + MINUTE);
            assert!(of_service(&rig) > answered, "{told}");
            assert!(rig.keys().iter().all(|key| rig.trouble(key).is_empty()), "{told}");
            assert!(rig.collector.endpoints.from("ethereum") == Some(Duration::ZERO));
        }
    }
}

#[test]
fn one_chain_that_is_down_takes_nothing_from_the_others() {
    let mut rig = Rig::new();
    let key = rig.add(evm(1, &[0, 1]));
    rig.run(3 * MINUTE);
    let all = rig.holdings(&key);
    rig.world.units += 1;
    rig.held = Some(Vec::new());
    rig.look();
    for _ in 0..120 {
        rig.mono += COLLECT_MIN;
        rig.step();
        for order in rig.held.replace(Vec::new()).unwrap() {
            if &*order.call.endpoint == "arbitrum" {
                rig.collector.came(rig.now(), order.id, Err(CallError::Timeout), &mut rig.book);
            } else {
                rig.answer(&order);
            }
        }
    }
    rig.save();
    let (now, changed) = (rig.holdings(&key), |of: &String| of.contains("arbitrum"));
    assert_eq!(now.iter().filter(|of| changed(of)).collect::<Vec<_>>(), all.iter().filter(|of| changed(of)).collect::<Vec<_>>());
    assert!(now.contains(&"ethereum ethereum 0.000000000005000001 true".to_owned()), "{now:?}");
    assert_eq!(rig.trouble(&key), "arbitrum: no answer in time");
    // The same trouble is not written again and again.
    let rows = rig.rows;
    rig.down.insert(Service::Evm, CallError::Timeout);
    rig.held = None;
    rig.run(MINUTE);
    rig.look();
    rig.run(10 * MINUTE);
    assert!(rig.rows - rows <= 12 * 2 + 12, "{} rows", rig.rows - rows);
}

#[test]
fn accounts_are_asked_often_while_somebody_looks() {
    let mut rig = Rig::new();
    rig.add(evm(1, &[0]));
    rig.add(Source::Okx { sealed: Sealed(vec![1]) });
    rig.run(10 * MINUTE);
    let (evm, okx) = (rig.world.count("evm"), rig.world.count("account/balance"));
    rig.run(10 * HOUR);
    let idle = rig.world.count("account/balance") - okx;
    assert!((9..=11).contains(&idle) && rig.world.count("evm") - evm <= 12, "{idle} in ten hours, {:?}", IDLE_EVERY);
    let okx = rig.world.count("account/balance");
    rig.look();
    rig.run(2 * HOUR);
    let often = rig.world.count("account/balance") - okx;
    let want = (LOOKED_FOR.as_secs() / LOOKED_EVERY.as_secs()) as usize;
    assert!((want - 1..=want + 3).contains(&often), "{often}");
}

#[test]
fn one_address_is_asked_once_whoever_has_it() {
    let mut rig = Rig::new();
    let other = rig.book.meet("rockpool", "other", START).unwrap();
    let first = rig.add(evm(7, &[0]));
    rig.run(Duration::from_secs(5));
    let asked = rig.world.count("evm");
    let second = rig.book.add_account(&other, 1, "same".into(), evm(7, &[0]), START).unwrap();
    rig.book.remove_account(&first);
    rig.collector.wake();
    rig.run(CHAIN_DATA_FOR - Duration::from_secs(10));
    assert_eq!(rig.holdings(&second).len(), 1);
    assert_eq!(rig.world.count("evm"), asked, "but for places of contracts");
    // Beyond what is kept, all is asked anew.
    for n in 0..=CHAIN_DATA_MAX {
        rig.collector.chain_data.put((0, [n as u8; 20].map(|byte: u8| byte ^ (n >> 8) as u8)), Vec::new(), rig.mono);
    }
    assert!(rig.collector.chain_data.len() <= CHAIN_DATA_MAX);
}

#[test]
fn half_of_a_new_account_is_not_told_as_all_of_it() {
    let mut rig = Rig::new();
    rig.held = Some(Vec::new());
    let key = rig.add(evm(1, &[0, 1]));
    rig.step();
    let orders: Vec<_> = rig.held.take().unwrap().into_iter().filter(|order| order.call.service == Service::Evm).collect();
    assert_eq!(orders.len(), 2);
    rig.answer(&orders[0]);
    assert_eq!((rig.holdings(&key).len(), rig.book.account(&key).unwrap().checked), (0, None));
    rig.answer(&orders[1]);
    assert_eq!((rig.holdings(&key).len(), rig.book.account(&key).unwrap().checked), (2, Some(rig.now().wall.as_secs())));
    // A chain that is down from the beginning does not hide the others.
    rig.held = Some(Vec::new());
    let key = rig.add(evm(2, &[0, 1]));
    rig.mono += COLLECT_MIN;
    rig.step();
    for order in rig.held.take().unwrap().into_iter().filter(|order| order.call.service == Service::Evm) {
        if &*order.call.endpoint == "ethereum" {
            rig.answer(&order);
        } else {
            rig.collector.came(rig.now(), order.id, Err(CallError::Timeout), &mut rig.book);
        }
    }
    assert_eq!((rig.holdings(&key).len(), rig.trouble(&key).as_str()), (1, "arbitrum: no answer in time"));
}

#[test]
fn a_long_stop_is_caught_up_without_a_burst() {
    let mut rig = Rig::full();
    rig.run(5 * MINUTE);
    for n in 0..28 {
        rig.add(evm(n, &[0, 1, 2, 3, 4, 5]));
    }
    rig.run(5 * MINUTE);
    // Off for three days and a half.
    rig.book = Book::open(&rig.kv).unwrap();
    (rig.collector, rig.world.now) = (collector(), rig.world.now + 302_400);
    rig.ahead += 302_400;
    rig.mono = Duration::ZERO;
    rig.mined(840_500, 3);
    rig.world.asked.clear();
    let today = (rig.now().wall.as_secs() / 86_400) as u32;
    let first = rig.step();
    for service in Service::ALL {
        assert!(first.iter().filter(|order| order.call.service == service).count() <= COLLECT_ORDERS_MAX);
    }
    rig.run(10 * MINUTE);
    for (kind, most) in
        [("coins/markets", 1), ("coins/list", 1), ("scantxoutset", 1), ("account/balance", 1), ("evm", 29 * 6 + 6), ("simple/price", 12)]
    {
        assert!((1..=most).contains(&rig.world.count(kind)), "{kind}: {}", rig.world.count(kind));
    }
    // One snapshot, of today; the days between have none.
    let days = snapshot_days(&rig.kv);
    assert_eq!(days, [(START / 86_400) as u32, today]);
    // And at midnight the next.
    rig.run(24 * HOUR);
    assert_eq!(snapshot_days(&rig.kv), [(START / 86_400) as u32, today, today + 1]);
}

/// Days of which there are snapshots.
fn snapshot_days(kv: &MemKv) -> Vec<u32> {
    use rockpool_store::kv::Family;
    use rockpool_store::portfolios::rows::{SNAPSHOTS, snapshot_of};
    let mut days = Vec::new();
    kv.scan(Family::Portfolios, SNAPSHOTS, &mut |key, _| {
        days.extend(snapshot_of(key).map(|(_, _, day)| day));
        true
    })
    .unwrap();
    days.dedup();
    days
}

#[test]
fn snapshots_wait_for_prices_but_not_for_ever_and_are_made_so_many_at_a_time() {
    let mut rig = Rig::new();
    for n in 0..2 * SNAPSHOTS_AT_ONCE {
        let user = rig.book.meet("rockpool", &format!("user {n}"), START).unwrap();
        let key = rig.book.add_account(&user, 1, "a".into(), evm(1, &[]), START).unwrap();
        let holding = Holding { asset: "bitcoin".into(), place: "x".into(), amount: Amount::sats(100_000_000), counted: true };
        rig.book.set_holdings(&key, START, vec![holding]);
    }
    rig.save();
    rig.down.insert(Service::CoinGecko, CallError::Timeout);
    rig.run(SNAPSHOT_WAIT - COLLECT_MIN);
    assert!(snapshot_days(&rig.kv).is_empty());
    let (rows, steps) = (rig.rows, rig.steps);
    rig.run(10 * COLLECT_MIN);
    let today = (START / 86_400) as u32;
    assert_eq!((snapshot_days(&rig.kv), rig.book.mark(Daily::Snapshots)), (vec![today], Some(today)));
    // All portfolios, of which one has no account; and the mark.
    assert_eq!(rig.rows - rows, 2 * SNAPSHOTS_AT_ONCE + 1);
    assert!(rig.steps - steps >= 3);
    rig.run(HOUR);
    assert_eq!(rig.rows - rows, 2 * SNAPSHOTS_AT_ONCE + 1, "once a day");
}

#[test]
fn a_calendar_that_jumps_by_a_year_makes_no_burst_and_stops_nothing() {
    const YEAR: i64 = 365 * 86_400;
    let mut rig = Rig::full();
    rig.look();
    rig.run(5 * MINUTE);
    for jump in [YEAR, -2 * YEAR, YEAR] {
        let (orders, steps) = (rig.orders, rig.steps);
        rig.ahead += jump;
        rig.run(30 * MINUTE);
        let today = (rig.now().wall.as_secs() / 86_400) as u32;
        assert!(Daily::ALL.iter().all(|daily| rig.book.mark(*daily) == Some(today)), "{jump}");
        assert!(
            rig.orders - orders < 200 && rig.steps - steps < 200,
            "{jump}: {} orders, {} looks",
            rig.orders - orders,
            rig.steps - steps
        );
        assert!(rig.keys().iter().all(|key| rig.trouble(key).is_empty()));
    }
    // One that jumps to and fro every minute has the day's work done as often as it may be tried, and no more.
    let asked = rig.world.count("coins/markets") + rig.world.count("coins/list");
    for minute in 0..60 {
        rig.ahead += if minute % 2 == 0 { YEAR } else { -YEAR };
        rig.run(MINUTE);
    }
    let often = rig.world.count("coins/markets") + rig.world.count("coins/list") - asked;
    assert!(often <= 2 * (HOUR.as_secs() / DAILY_EVERY.as_secs()) as usize + 2, "{often}");
}

#[test]
fn a_calendar_that_is_behind_takes_no_day_from_the_history() {
    use rockpool_store::kv::Family;
    use rockpool_store::portfolios::rows::SNAPSHOTS;
    let all = |rig: &Rig| {
        let mut rows = BTreeMap::new();
        let mut add = |key: &[u8], row: &[u8]| {
            rows.insert(key.to_vec(), row.to_vec());
            true
        };
        rig.kv.scan(Family::Portfolios, SNAPSHOTS, &mut add).unwrap();
        rows
    };
    let mut rig = Rig::full();
    rig.run(5 * 24 * HOUR);
    let before = all(&rig);
    assert_eq!(before.len(), 6);
    rig.ahead -= 3 * 86_400;
    // Worth another sum since.
    let key = rig.keys()[2];
    let holding = Holding { asset: "bitcoin".into(), place: "bitcoin".into(), amount: Amount::sats(7), counted: true };
    rig.book.set_holdings(&key, START, vec![holding]);
    rig.run(HOUR);
    assert_eq!(all(&rig), before, "what was noted stays");
    rig.ahead += 3 * 86_400;
    rig.run(48 * HOUR);
    let after = all(&rig);
    assert_eq!(after.len(), 8, "and it goes on");
    assert_eq!(before.iter().filter(|(key, row)| after.get(*key) != Some(row)).count(), 1, "the day itself is told again");
}

#[test]
fn a_bitcoind_that_is_away_for_a_day_is_asked_of_blocks_as_soon_as_it_is_back() {
    for error in [CallError::Unreachable("refused".into()), CallError::Timeout] {
        let mut rig = Rig::full();
        rig.down.insert(Service::Bitcoind, error);
        rig.run(26 * HOUR);
        rig.down.clear();
        rig.run(10 * MINUTE);
        assert_eq!(rig.world.count("getrawtransaction"), 2);
        assert_eq!(rig.trouble(&rig.keys()[3]), "");
    }
}

#[test]
fn a_miner_hears_that_blocks_are_still_to_be_looked_up() {
    let mut rig = Rig::full();
    rig.held = Some(Vec::new());
    rig.step();
    assert!(rig.trouble(&rig.keys()[3]).contains("still to be looked up"));
    rig.held.take().unwrap().iter().for_each(|order| rig.answer(order));
    rig.run(MINUTE);
    assert_eq!(rig.trouble(&rig.keys()[3]), "");
}

#[test]
fn new_accounts_do_not_wait_for_a_chain_that_is_down() {
    let mut rig = Rig::new();
    rig.down_at = Some("polygon");
    let keys: Vec<_> = (1..=30).map(|n| rig.add(evm(n, &[0, 4]))).collect();
    rig.look();
    rig.run(2 * MINUTE);
    for key in &keys {
        assert!(rig.book.account(key).unwrap().checked.is_some() && !rig.holdings(key).is_empty());
        assert!(rig.trouble(key).contains("polygon"), "{}", rig.trouble(key));
    }
}

#[test]
fn whoever_adds_accounts_again_and_again_stands_behind_those_who_wait() {
    let mut rig = Rig::new();
    let ann = rig.add(evm(1, &[0]));
    let bob = rig.book.meet("rockpool", "bob", START).unwrap();
    rig.run(2 * MINUTE);
    let checked = |rig: &Rig| rig.book.account(&ann).unwrap().checked.unwrap();
    let before = checked(&rig);
    // Before hers: a lower address each, as many as are asked for in a second, and others in their place a second later.
    let mut waited = Duration::ZERO;
    let mut n = 0u32;
    while checked(&rig) == before {
        let keys: Vec<_> = rig.book.accounts().map(|(key, _)| key).filter(|key| key.user == bob).collect();
        assert!(keys.iter().all(|key| rig.book.remove_account(key)));
        for _ in 0..2 * COLLECT_ORDERS_MAX {
            n += 1;
            let mut address = [0; 20];
            address[4..8].copy_from_slice(&n.to_be_bytes());
            rig.book.add_account(&bob, 1, "b".into(), Source::Evm { address, chains: vec![0] }, START).unwrap();
        }
        rig.look();
        rig.run(COLLECT_MIN);
        waited += COLLECT_MIN;
        assert!(waited <= LOOKED_EVERY + 5 * COLLECT_MIN, "she is never asked for");
    }
}

#[test]
fn what_comes_for_an_account_that_is_gone_is_passed_over() {
    let mut rig = Rig::full();
    rig.held = Some(Vec::new());
    rig.step();
    for key in rig.keys() {
        rig.book.remove_account(&key);
    }
    rig.save();
    let orders = rig.held.take().unwrap();
    assert!(orders.len() >= 9);
    rig.down.insert(Service::Okx, CallError::Refused("no".into()));
    orders.iter().for_each(|order| rig.answer(order));
    // And what was answered already, or never asked.
    orders.iter().for_each(|order| rig.answer(order));
    rig.collector.came(rig.now(), 999_999, Ok(Vec::new()), &mut rig.book);
    rig.run(5 * MINUTE);
    assert_eq!(rig.book.accounts().count(), 0);
    assert!(rig.collector.asked.is_empty() && rig.collector.trading.is_empty() && rig.collector.chain_trouble.is_empty());
    let open = Book::open(&rig.kv).unwrap();
    assert!(open.accounts().count() == 0 && !open.is_changed(), "no row of it is left");
}

#[test]
fn one_scan_looks_for_all_and_not_before_a_new_block() {
    let mut rig = Rig::new();
    rig.mined(840_000, 1);
    let mut keys = Vec::new();
    for n in 0..SCAN_ADDRESSES_MAX as u32 + 10 {
        let user = rig.book.meet("rockpool", &format!("user {}", n / 32), START).unwrap();
        keys.push(rig.book.add_account(&user, 1, "a".into(), Source::Bitcoin { address: address(n) }, START).unwrap());
    }
    rig.run(MINUTE);
    let known = |rig: &Rig| keys.iter().filter(|key| rig.book.account(key).unwrap().checked.is_some()).count();
    assert_eq!((rig.world.count("scantxoutset"), known(&rig)), (1, SCAN_ADDRESSES_MAX));
    rig.run(SCAN_EVERY);
    assert_eq!((rig.world.count("scantxoutset"), known(&rig)), (2, keys.len()));
    rig.look();
    rig.run(HOUR);
    assert_eq!(rig.world.count("scantxoutset"), 2, "no new block");
    rig.mined(840_001, 1);
    let user = rig.book.meet("rockpool", "user 0", START).unwrap();
    rig.book.looked(&user, rig.now());
    rig.run(MINUTE);
    assert_eq!(rig.world.count("scantxoutset"), 3);
}

#[test]
fn an_address_with_too_many_outputs_holds_up_no_other() {
    let mut rig = Rig::new();
    rig.mined(840_000, 1);
    let mut keys = Vec::new();
    for n in 0..SCAN_ADDRESSES_MAX as u32 {
        let user = rig.book.meet("rockpool", &format!("user {}", n / 32), START).unwrap();
        keys.push(rig.book.add_account(&user, 1, "a".into(), Source::Bitcoin { address: address(n) }, START).unwrap());
    }
    rig.crowded = Some(address(77));
    // Blocks come meanwhile.
    for height in 840_001..840_025 {
        rig.run(SCAN_EVERY + MINUTE);
        rig.mined(height, 1);
    }
    let unknown: Vec<_> = keys.iter().filter(|key| rig.holdings(key).is_empty()).collect();
    assert_eq!(unknown.len(), 1);
    assert!(rig.trouble(unknown[0]).contains("more outputs"), "{}", rig.trouble(unknown[0]));
    assert!(keys.iter().filter(|key| *key != unknown[0]).all(|key| rig.trouble(key).is_empty()));
    // It is known now, and all others are found by one scan again.
    rig.world.asked.clear();
    rig.mined(840_100, 1);
    rig.run(HOUR + SCAN_EVERY);
    assert_eq!((rig.world.count("scantxoutset"), rig.collector.blocks_sought()), (1, (1, None)));
    // Somebody has swept it up.
    rig.crowded = None;
    rig.mined(840_101, 1);
    rig.run(2 * HOUR + SCAN_EVERY);
    assert_eq!((rig.holdings(unknown[0]).len(), rig.trouble(unknown[0])), (1, String::new()));
    assert_eq!((rig.world.count("scantxoutset"), rig.collector.blocks_sought()), (3, (0, None)));
}

#[test]
fn a_scan_may_take_its_time_and_there_is_one_at_a_time() {
    let mut rig = Rig::new();
    let key = rig.add(Source::Bitcoin { address: MINE.into() });
    rig.mined(840_000, 1);
    rig.held = Some(Vec::new());
    let is_scan = |order: &Order| matches!(order.call.what, What::Rpc { method: "scantxoutset", .. });
    for minute in 0..25 {
        rig.mined(840_000 + minute, 1);
        rig.look();
        rig.run(MINUTE);
        let others: Vec<_> = rig.held.as_mut().unwrap().extract_if(.., |order| !is_scan(order)).collect();
        others.iter().for_each(|order| rig.answer(order));
        assert!(rig.held.as_ref().unwrap().len() <= BITCOIND_ORDERS_MAX);
    }
    let scan = rig.held.take().unwrap().pop().unwrap();
    rig.answer(&scan);
    assert_eq!(rig.holdings(&key), ["bitcoin bitcoin 0.25 true"]);
    let ended = rig.mono;
    // The next only after a pause, though blocks came meanwhile.
    rig.world.asked.clear();
    rig.run(SCAN_EVERY - MINUTE);
    assert_eq!(rig.world.count("scantxoutset"), 0, "{ended:?}");
    rig.look();
    rig.run(2 * MINUTE);
    assert_eq!(rig.world.count("scantxoutset"), 1);
    // Somebody else scans, by hand.
    let busy = CallError::Refused("error -8: Scan already in progress, use action \"abort\" or \"status\"".into());
    rig.down.insert(Service::Bitcoind, busy);
    rig.mined(840_100, 1);
    rig.look();
    let orders = rig.orders;
    rig.run(SCAN_EVERY + MINUTE);
    assert!(rig.trouble(&key).contains("Scan already in progress") && rig.holdings(&key).len() == 1);
    assert!(rig.orders - orders < 40);
    rig.down.clear();
    rig.look();
    rig.run(SCAN_EVERY + MINUTE);
    assert_eq!(rig.trouble(&key), "");
}

#[test]
fn without_a_bitcoind_or_with_a_pruned_one_that_is_told() {
    let mut rig = Rig::full();
    rig.collector = with(false);
    rig.mined(840_000, 1);
    rig.run(5 * MINUTE);
    let keys = rig.keys();
    assert!(rig.trouble(&keys[2]).contains("no bitcoind") && rig.trouble(&keys[3]).contains("no bitcoind"));
    assert_eq!(rig.world.count("scantxoutset") + rig.world.count("getblock"), 0);
    assert_eq!(rig.book.pending(&keys[3]), Some(312_500_000));
    let rows = rig.rows;
    rig.run(20 * MINUTE);
    assert!(rig.rows - rows <= 2, "prices alone may change");

    let mut rig = Rig::full();
    rig.down.insert(Service::Bitcoind, CallError::Refused("error -1: Block not available (pruned data)".into()));
    rig.run(10 * HOUR);
    let keys = rig.keys();
    assert!(rig.trouble(&keys[3]).contains("pruned"), "{}", rig.trouble(&keys[3]));
    // Two blocks and a scan, ever more rarely.
    let asked = rig.collector.blocks_tried();
    assert!(asked.iter().all(|failures| *failures <= 7), "{asked:?}");
}

#[test]
fn keys_that_cannot_be_opened_or_are_refused_are_told() {
    let mut rig = Rig::new();
    let sealed = rig.add(Source::Okx { sealed: Sealed(Vec::new()) });
    let refused = rig.add(Source::Okx { sealed: Sealed(vec![1]) });
    rig.down.insert(Service::Okx, CallError::Status { status: 401, said: Some("Invalid Sign".into()), retry_after: None });
    rig.look();
    rig.run(30 * MINUTE);
    assert_eq!((rig.trouble(&sealed).as_str(), rig.trouble(&refused).as_str()), ("no key file", "okx: HTTP status 401: Invalid Sign"));
    assert!(rig.orders < 60, "{}", rig.orders);
    // One user's bad keys are not the exchange's failure.
    assert_eq!(rig.collector.endpoints.from("okx"), Some(Duration::ZERO));
}

#[test]
fn a_subject_whose_endpoint_fails_lets_others_try_before_it() {
    let mut rig = Rig::new();
    let (bad, good) = (rig.add(evm(1, &[0])), rig.add(evm(2, &[0])));
    rig.held = Some(Vec::new());
    rig.look();
    for _ in 0..30 {
        rig.run(AGAIN_AFTER / 2);
        for order in rig.held.replace(Vec::new()).unwrap() {
            let is_bad = matches!(&order.call.what, What::Http { body: Some(body), .. } if body.contains(&"01".repeat(20)));
            if is_bad {
                rig.collector.came(rig.now(), order.id, Ok(b"nonsense".to_vec()), &mut rig.book);
            } else {
                rig.answer(&order);
            }
        }
    }
    assert!(rig.trouble(&bad).contains("answer not understood"));
    assert_eq!((rig.holdings(&good).is_empty(), rig.trouble(&good).as_str()), (false, ""));
}

#[test]
fn orders_of_all_services_and_one_for_keys_are_as_many_as_may_be_out() {
    const { assert!(4 * COLLECT_ORDERS_MAX < ORDERS_MAX && COLLECT_ORDERS_MAX <= ORDERS_PER_SERVICE_MAX) };
    let mut rig = Rig::new();
    for n in 0..30 {
        rig.add(evm(n, &[0, 1, 2, 3, 4, 5]));
    }
    rig.held = Some(Vec::new());
    rig.run(10 * MINUTE);
    let of_evm = rig.held.as_ref().unwrap().iter().filter(|order| order.call.service == Service::Evm).count();
    assert_eq!(of_evm, COLLECT_ORDERS_MAX, "no more while none is answered");
    assert!(rig.steps <= 10 * 2 + 5, "{} looks while nothing comes, one each {COLLECT_MAX:?}", rig.steps);
}
