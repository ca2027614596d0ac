//! Users who look at their portfolios with a token: how many a second, how long each waits, and what that does to a miner's submits.

use std::time::{Duration, SystemTime};

use rockpool::http::jwks::LOCAL;
use rockpool::http::token::{Caller, Scope, sign};
use rockpool::portfolio::book::Book;
use rockpool::portfolio::config::CURRENCIES;
use rockpool::portfolio::model::{Amount, Holding, Price, Source};
use rockpool_store::kv::Kv;

use crate::Outcome;
use crate::figures::{goal, info};
use crate::load::{Load, Took};
use crate::node::{SECRET, Server};
use crate::probe::{EVERY, Probe};
use crate::process::settle;
use crate::report::{Asked, Figure, median};
use crate::requests::share_of;

/// Users, each with a token and a connection that stays.
const USERS: usize = 100;
/// Requests of a round.
const REQUESTS: usize = 10_000;
/// Accounts of each user, holdings of each account, and coins that have a price.
const ACCOUNTS: u8 = 4;
const HOLDINGS: usize = 10;
const COINS: usize = 100;
/// Requests a second of the paced rounds, which is the goal too.
const PACE: f64 = 5_000.0;
/// Time of a round of submits alone, and of a paced one.
const ALONE: Duration = Duration::from_secs(2);
/// Goals: 5,000 a second, and the slowest of a hundred.
const US_PER_REQUEST: f64 = 200.0;
const P99_MS: f64 = 100.0;

/// What was seen in all rounds.
#[derive(Default)]
struct Seen {
    /// Microseconds a request: the users' round, of the status in the same round, of their ratio.
    users: Vec<f64>,
    status: Vec<f64>,
    ratio: Vec<f64>,
    /// Microseconds of processor time: of the reactor, of the stage.
    reactor: Vec<f64>,
    stage: Vec<f64>,
    each: Vec<Duration>,
    paced: Vec<Duration>,
    /// Submits: alone, among as many requests as can be, among paced ones.
    alone: Vec<Duration>,
    at_most: Vec<Duration>,
    among_paced: Vec<Duration>,
    asked: usize,
}

/// All of it.
pub fn figures(asked: &Asked) -> Outcome<Vec<Figure>> {
    let rounds = if asked.quick { 2 } else { 7 };
    let server = Server::start_with(true)?;
    let submits = rounds * 8 * (ALONE.as_millis() / EVERY.as_millis()) as usize;
    let mut probe = Probe::connect(server.stratum, submits.min(6_000))?;
    let tokens = (0..USERS).map(token).collect::<Outcome<Vec<_>>>()?;
    let (mut load, mut seen) = (Load::new()?, Seen::default());
    for token in &tokens {
        let head = format!("GET /api/v1/portfolios HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
        load.connect_for(server.http, head.into_bytes())?;
    }
    let body = load.ask(1_000, None, None)?.body;
    let mut floor = Load::new()?;
    floor.connect(server.http, USERS)?;
    for _ in 0..rounds {
        seen.alone.extend(during(&mut load, &mut probe, |load, probe| load.listen(ALONE, Some(probe)))?);
        settle();
        let before = cpu(&server)?;
        let took = load.ask(REQUESTS, None, None)?;
        let after = cpu(&server)?;
        let status = floor.ask(REQUESTS, None, None)?;
        let [users, plain] = [&took, &status].map(per_request);
        seen.users.push(users);
        seen.status.push(plain);
        seen.ratio.push(users / plain);
        seen.reactor.push((after.0 - before.0).as_secs_f64() * 1e6 / REQUESTS as f64);
        seen.stage.push((after.1 - before.1).as_secs_f64() * 1e6 / REQUESTS as f64);
        seen.each.extend(took.each);
        seen.at_most.extend(during(&mut load, &mut probe, |load, probe| {
            load.ask(2 * REQUESTS, None, Some(&mut *probe))?;
            load.listen(EVERY, Some(probe))
        })?);
        let (many, paced) = ((PACE * ALONE.as_secs_f64()) as usize, &mut seen.paced);
        seen.among_paced.extend(during(&mut load, &mut probe, |load, probe| {
            paced.extend(load.ask(many, Some(PACE), Some(&mut *probe))?.each);
            load.listen(EVERY, Some(probe))
        })?);
        seen.asked += 3 * REQUESTS + many;
    }
    Ok(seen.told(body))
}

/// A user's token, as the node signs it.
fn token(user: usize) -> Outcome<String> {
    let now = SystemTime::UNIX_EPOCH.elapsed()?.as_secs();
    let caller = Caller { sub: name_of(user), scope: Scope::User };
    Ok(sign(&SECRET, &caller, now, 86_400)?)
}

/// Rows of users whose accounts were asked a moment ago.
pub fn fill(kv: &dyn Kv, now: u64) -> Outcome<()> {
    let mut book = Book::open(kv)?;
    for user in 0..USERS {
        let id = book.meet(LOCAL, &name_of(user), now)?;
        for account in 0..ACCOUNTS {
            let mut address = [account; 20];
            address[..8].copy_from_slice(&user.to_be_bytes());
            let key = book.add_account(&id, 1, format!("account {account}"), Source::Evm { address, chains: vec![0] }, now)?;
            let held = |n: usize| (user + usize::from(account) * HOLDINGS + n) % COINS;
            let amount = |n: usize| Amount::sats(1 + n as u64);
            let holding = |n| Holding { asset: coin(held(n)), place: "ethereum".into(), amount: amount(n), counted: true };
            book.set_holdings(&key, now, (0..HOLDINGS).map(holding).collect());
        }
    }
    let values = |n: usize| CURRENCIES.map(|currency| (currency.to_owned(), 1.5 + n as f64)).into();
    book.set_prices((0..COINS).map(|n| Price { asset: coin(n), at: now, values: values(n) }).collect());
    Ok(book.take().iter().try_for_each(|batch| kv.write(batch, false))?)
}

fn coin(n: usize) -> String {
    format!("coin-{n}")
}

fn name_of(user: usize) -> String {
    format!("user-{user}")
}

/// What submits took while this ran.
fn during(load: &mut Load, probe: &mut Probe, run: impl FnOnce(&mut Load, &mut Probe) -> Outcome<()>) -> Outcome<Vec<Duration>> {
    load.with(probe, run)?;
    Ok(std::mem::take(&mut probe.took))
}

/// Time that the reactor and the stage have spent on a processor.
fn cpu(server: &Server) -> Outcome<(Duration, Duration)> {
    let threads = server.process.cpu()?;
    let of = |name| threads.get(name).copied().unwrap_or_default();
    Ok((of("reactor"), of("upstream")))
}

fn per_request(took: &Took) -> f64 {
    took.all.as_secs_f64() * 1e6 / took.each.len() as f64
}

impl Seen {
    fn told(mut self, body: usize) -> Vec<Figure> {
        let name = |what: &str| format!("{USERS} users' portfolios: {what}");
        let users = median(self.users);
        let mut figures = vec![
            info(name("bytes of an answer"), body as f64, "bytes"),
            goal(name("time per request"), users, "us", US_PER_REQUEST),
            info(name("requests a second"), 1e6 / users, "1/s"),
            info(name("time per request of the status in the same round"), median(self.status), "us"),
            info(name("ratio to the status of the same round"), median(self.ratio), "times"),
            info(name("the reactor's CPU per request"), median(self.reactor), "us"),
            info(name("the stage's CPU per request"), median(self.stage), "us"),
            // Whatever else is answered ends the bench.
            info(name("requests answered with 200"), self.asked as f64, "requests"),
        ];
        for (of, part) in [("p50", 500), ("p99", 990), ("p999", 999)] {
            let bound = |name: String, value| if part == 990 { goal(name, value, "ms", P99_MS) } else { info(name, value, "ms") };
            figures.push(bound(name(of), share_of(&mut self.each, part)));
            figures.push(bound(name(&format!("{of} at {PACE} requests a second")), share_of(&mut self.paced, part)));
        }
        for (of, part) in [("p50", 500), ("p99", 990)] {
            let paced = format!("among {PACE} requests for portfolios a second");
            let rows = [
                ("with portfolios, alone".to_owned(), &mut self.alone),
                (format!("among as many requests for portfolios as {USERS} users can ask"), &mut self.at_most),
                (paced, &mut self.among_paced),
            ];
            for (among, times) in rows {
                figures.push(info(format!("submit to true, {among}: {of}"), share_of(times, part), "ms"));
            }
        }
        figures
    }
}
