//! What is done once a day: top coins, where they live, and what each portfolio is worth. A day that was missed stays missing.

use std::collections::BTreeMap;
use std::time::Duration;

use rockpool_net::time::Now;
use rockpool_workers::outside::call::{CallError, Order, Service};

use super::{BITCOIN, Collector, Question};
use crate::limits::{DAILY_EVERY, SNAPSHOT_WAIT, SNAPSHOTS_AT_ONCE};
use crate::portfolio::book::Book;
use crate::portfolio::chains::CHAINS;
use crate::portfolio::model::{Daily, Source, UserId};
use crate::portfolio::value;

/// How the day's work stands.
#[derive(Default)]
pub(super) struct Days {
    /// When coins or contracts were last asked for.
    tried: Option<Duration>,
    /// When a chain's contracts were last asked for their places.
    decimals: BTreeMap<u8, Duration>,
    snapshots: Option<Snapshots>,
}

/// Snapshots that are being made.
struct Snapshots {
    day: u32,
    since: Duration,
    /// The last portfolio that has one.
    after: Option<(UserId, u32)>,
}

/// The calendar's day, since 1970.
pub(super) fn day(now: Now) -> u32 {
    u32::try_from(now.wall.as_secs() / 86_400).unwrap_or(u32::MAX)
}

impl Collector {
    pub(super) fn plan_days(&mut self, now: Now, book: &Book, orders: &mut Vec<Order>) {
        let today = day(now);
        let gecko = self.services.coingecko.endpoint.clone();
        // Not the day that follows: a calendar that was ahead for a moment must not stop this for a year.
        let coins = book.mark(Daily::Coins) != Some(today);
        let busy = self.is_out(|question| matches!(question, Question::Coins(_) | Question::Contracts(_)));
        if !busy && (coins || book.mark(Daily::Contracts) != Some(today)) {
            let at = self.days.tried.map_or(Duration::ZERO, |tried| tried + DAILY_EVERY);
            if at > now.mono {
                self.want(at);
            } else if self.may_ask(now, Service::CoinGecko, &gecko) {
                let (question, call) = if coins {
                    (Question::Coins(today), self.services.coingecko.top())
                } else {
                    (Question::Contracts(today), self.services.coingecko.all())
                };
                self.days.tried = Some(now.mono);
                self.ask(question, call, orders);
            }
        }
        self.plan_decimals(now, book, orders);
        // At midnight, by a calendar that runs on as it does.
        let left = 86_400 - now.wall.as_secs() % 86_400;
        self.want(now.mono + Duration::from_secs(left));
    }

    pub(super) fn came_coins(&mut self, result: Result<Vec<u8>, CallError>, day: u32, book: &mut Book) -> Result<(), CallError> {
        book.set_coins(day, self.services.coingecko.read_top(&result?)?);
        // Contracts may follow at once.
        self.days.tried = None;
        Ok(())
    }

    pub(super) fn came_contracts(&mut self, result: Result<Vec<u8>, CallError>, day: u32, book: &mut Book) -> Result<(), CallError> {
        let found = self.services.coingecko.read_contracts(&result?, book.coins())?;
        if found.is_empty() && CHAINS.iter().any(|chain| book.contracts(chain.id).next().is_some()) {
            // Holdings would be gone with them.
            return Err(CallError::Garbled("a list in which no top coin lives anywhere".into()));
        }
        book.set_contracts(found);
        book.set_mark(Daily::Contracts, day);
        Ok(())
    }

    /// Asks new contracts for their places, on chains on which somebody has an account.
    fn plan_decimals(&mut self, now: Now, book: &Book, orders: &mut Vec<Order>) {
        for endpoint in self.evm.clone() {
            let chain = endpoint.chain.id;
            let used = |source: &Source| matches!(source, Source::Evm { chains, .. } if chains.contains(&chain));
            let of = endpoint.unknown(book);
            let busy = self.is_out(|question| matches!(question, Question::Decimals(of, _) if *of == chain));
            if of.is_empty() || busy || !book.accounts().any(|(_, account)| used(&account.source)) {
                continue;
            }
            let at = self.days.decimals.get(&chain).map_or(Duration::ZERO, |tried| *tried + DAILY_EVERY);
            if at > now.mono {
                self.want(at);
            } else if self.may_ask(now, Service::Evm, &endpoint.name) {
                self.days.decimals.insert(chain, now.mono);
                let call = endpoint.decimals(&of);
                self.ask(Question::Decimals(chain, of), call, orders);
            }
        }
    }

    pub(super) fn came_decimals(
        &mut self,
        result: Result<Vec<u8>, CallError>,
        chain: u8,
        of: &[[u8; 20]],
        book: &mut Book,
    ) -> Result<(), CallError> {
        let Some(endpoint) = self.evm.get(usize::from(chain)) else { return Ok(()) };
        book.set_decimals(&endpoint.read_decimals(&result?, of)?);
        Ok(())
    }

    /// Makes the day's snapshots, so many at a time. After a pause they wait for prices and balances, but not for ever.
    pub(super) fn plan_snapshots(&mut self, now: Now, book: &mut Book) {
        let today = day(now);
        let last = book.mark(Daily::Snapshots);
        if last == Some(today) {
            self.days.snapshots = None;
            return;
        }
        // The calendar has gone back. It is wrong, or was: what was noted on that day must not be lost to what is true of another.
        if last > Some(today) {
            self.days.snapshots = None;
            return book.set_mark(Daily::Snapshots, today);
        }
        let begun = self.days.snapshots.take().filter(|begun| begun.day == today);
        let mut begun = begun.unwrap_or(Snapshots { day: today, since: now.mono, after: None });
        let ready = self.priced.is_fresh(&BITCOIN.to_owned(), now.mono) && self.overdue == 0;
        if begun.after.is_none() && !ready && now.mono < begun.since + SNAPSHOT_WAIT {
            self.want(begun.since + SNAPSHOT_WAIT);
            self.days.snapshots = Some(begun);
            return;
        }
        let left = book.all_portfolios().map(|(user, portfolio)| (user, portfolio.id)).filter(|key| Some(*key) > begun.after);
        let some: Vec<_> = left.take(SNAPSHOTS_AT_ONCE).collect();
        for (user, portfolio) in &some {
            // One of which nothing is known is not one that is worth nothing.
            if book.accounts_in(user, *portfolio).any(|(_, account)| account.checked.is_some()) {
                let snapshot = value::snapshot(book, user, *portfolio, today, &self.services.coingecko.currencies);
                book.snapshot(user, *portfolio, snapshot);
            }
        }
        if some.len() < SNAPSHOTS_AT_ONCE {
            return book.set_mark(Daily::Snapshots, today);
        }
        begun.after = some.last().copied();
        self.days.snapshots = Some(begun);
        // At the next look, which is as soon as one may be.
        self.want(now.mono);
    }
}
