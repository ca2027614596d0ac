//! What users ask of their portfolios, and what they are told.
//!
//! Whoever asks sees and changes what is his alone: every look into the book begins with his own id, and what is another's is as little
//! there as what is nobody's.

mod accounts;
#[cfg(test)]
mod tests;

use rockpool_store::error::StoreError;
use rockpool_store::kv::{Family, Kv};
use rockpool_store::limits::SNAPSHOT_DAYS_MAX;
use rockpool_store::params::Network;
use rockpool_store::portfolios::rows::{snapshot_key, snapshot_of, snapshot_values};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::book::{Book, Full};
use super::model::{AccountKey, Portfolio, UserId};
use super::seal::Sealer;
use super::value::{self, Value};
use crate::http::error::Code;
use crate::limits::NAME_CHARS_MAX;
pub use accounts::NewAccount;

/// Seconds of a day.
pub const DAY_S: u64 = 86_400;

/// A portfolio to be made.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPortfolio {
    /// What it is to be called.
    pub name: String,
}

/// What is asked.
pub enum Question {
    /// All portfolios.
    List,
    /// Make one.
    Add(NewPortfolio),
    /// Remove one.
    Remove(u32),
    /// One with its accounts, and what it consists of.
    Show(u32),
    /// Its accounts.
    Accounts(u32),
    /// Add one to it.
    AddAccount(u32, NewAccount),
    /// Remove one from it.
    RemoveAccount(u32, u32),
    /// What its accounts hold.
    Holdings(u32),
    /// What it was worth on so many days.
    History(u32, u32),
    /// Top coins.
    Coins,
}

impl Question {
    /// Whether it asks for a change.
    pub fn changes(&self) -> bool {
        matches!(self, Question::Add(_) | Question::Remove(_) | Question::AddAccount(..) | Question::RemoveAccount(..))
    }
}

/// Why somebody is told nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// The kind of reason.
    pub code: Code,
    /// What happened and what to do.
    pub why: String,
}

impl Refused {
    fn new(code: Code, why: impl Into<String>) -> Refused {
        Refused { code, why: why.into() }
    }
}

impl From<Full> for Refused {
    fn from(full: Full) -> Refused {
        let code = match full {
            Full::Portfolios | Full::Accounts => Code::Conflict,
            Full::Users | Full::AllAccounts => Code::Limit,
        };
        Refused::new(code, full.to_string())
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Refused {
        // What exactly fails is the operator's to know.
        log::error!("portfolios: history cannot be read: {error}");
        Refused::new(Code::Internal, "the disk cannot be read")
    }
}

/// What answers are made of.
pub struct Desk<'a> {
    /// All that is known.
    pub book: &'a mut Book,
    /// Where snapshots are.
    pub kv: &'a dyn Kv,
    /// Seals what is secret, if there is a key.
    pub sealer: Option<&'a Sealer>,
    /// Currencies in which values are told, the usual one first.
    pub currencies: &'a [String],
    /// The network of Bitcoin addresses.
    pub network: Network,
    /// Unix seconds.
    pub now: u64,
}

/// A status and JSON.
pub type Told = Result<(u16, Json), Refused>;

impl Desk<'_> {
    /// What a user is told. `currency` is what he wants values in.
    pub fn answer(&mut self, user: &UserId, question: Question, currency: Option<&str>) -> Told {
        let currency = self.currency(currency)?;
        let told = match question {
            Question::List => self.list(user, &currency),
            Question::Add(new) => return self.add(user, &new.name),
            Question::Remove(id) if self.book.remove_portfolio(user, id) => json!({ "removed": id }),
            Question::Remove(_) => return Err(no_portfolio()),
            Question::Show(id) => self.show(user, id, &currency)?,
            Question::Accounts(id) => self.accounts(user, id, &currency)?,
            Question::AddAccount(id, new) => return self.add_account(user, id, new, &currency),
            Question::RemoveAccount(portfolio, account) => {
                self.portfolio(user, portfolio)?;
                if !self.book.remove_account(&AccountKey { user: *user, portfolio, account }) {
                    return Err(Refused::new(Code::NotFound, "there is no such account"));
                }
                json!({ "removed": account })
            }
            Question::Holdings(id) => self.holdings(user, id, &currency)?,
            Question::History(id, days) => self.history(user, id, days, &currency)?,
            Question::Coins => self.coins(&currency),
        };
        Ok((200, told))
    }

    fn currency(&self, wanted: Option<&str>) -> Result<String, Refused> {
        let usual = self.currencies.first().map_or("usd", String::as_str);
        let wanted = wanted.unwrap_or(usual);
        let known = self.currencies.iter().any(|known| known.eq_ignore_ascii_case(wanted));
        let refused = || Refused::new(Code::BadParameter, format!("currency: this node tells values in {}", self.currencies.join(", ")));
        known.then(|| wanted.to_ascii_lowercase()).ok_or_else(refused)
    }

    /// A portfolio of the user.
    fn portfolio(&self, user: &UserId, id: u32) -> Result<&Portfolio, Refused> {
        self.book.portfolio(user, id).ok_or_else(no_portfolio)
    }

    fn value(&self, value: &Value) -> Json {
        json!({
            "amount": value.amount,
            "complete": value.complete,
            "unpriced": value.unpriced,
            "price_age_s": value.priced.map(|at| self.age(at)),
            "checked_age_s": value.checked.map(|at| self.age(at)),
        })
    }

    /// Seconds since then, by this node's clock.
    fn age(&self, at: u64) -> u64 {
        self.now.saturating_sub(at)
    }

    fn of_portfolio(&self, user: &UserId, portfolio: &Portfolio, currency: &str) -> Json {
        let accounts = || self.book.accounts_in(user, portfolio.id);
        json!({
            "id": portfolio.id,
            "name": portfolio.name,
            "since": portfolio.since,
            "accounts": accounts().count(),
            "value": self.value(&value::value(self.book, accounts(), currency)),
        })
    }

    fn list(&self, user: &UserId, currency: &str) -> Json {
        let who = self.book.user(user).map(|user| json!({ "name": user.sub, "issuer": user.issuer, "since": user.since }));
        let list: Vec<_> = self.book.portfolios(user).map(|portfolio| self.of_portfolio(user, portfolio, currency)).collect();
        json!({ "user": who, "currency": currency, "currencies": self.currencies, "portfolios": list })
    }

    fn add(&mut self, user: &UserId, wanted: &str) -> Told {
        let id = self.book.add_portfolio(user, name(wanted)?, self.now)?;
        let portfolio = self.portfolio(user, id)?;
        Ok((201, json!({ "id": id, "name": portfolio.name, "since": portfolio.since })))
    }

    fn show(&self, user: &UserId, id: u32, currency: &str) -> Result<Json, Refused> {
        let portfolio = self.portfolio(user, id)?;
        let accounts: Vec<_> = self.book.accounts_in(user, id).map(|(key, account)| self.account(&key, account, currency)).collect();
        let part = |part: value::Part| {
            let (symbol, name) = self.names(&part.asset);
            json!({
                "asset": part.asset,
                "symbol": symbol,
                "name": name,
                "amount": part.amount.to_string(),
                "price": part.price.map(|(price, _)| price),
                "price_age_s": part.price.map(|(_, at)| self.age(at)),
                "value": part.value,
                "share": part.share,
            })
        };
        let allocation: Vec<_> = value::allocation(self.book, user, id, currency).into_iter().map(part).collect();
        Ok(json!({
            "id": id,
            "name": portfolio.name,
            "since": portfolio.since,
            "currency": currency,
            "value": self.value(&value::value(self.book, self.book.accounts_in(user, id), currency)),
            "accounts": accounts,
            "allocation": allocation,
        }))
    }

    /// Symbol, in capital letters as people know them, and name.
    fn names(&self, asset: &str) -> (Option<String>, Option<String>) {
        let (symbol, name) = value::names(self.book, asset);
        (symbol.map(str::to_uppercase), name.map(str::to_owned))
    }

    fn holdings(&self, user: &UserId, id: u32, currency: &str) -> Result<Json, Refused> {
        self.portfolio(user, id)?;
        let mut list = Vec::new();
        for (key, _) in self.book.accounts_in(user, id) {
            for holding in self.book.holdings(&key) {
                let (symbol, name) = self.names(&holding.asset);
                let price = value::price(self.book, &holding.asset, currency);
                list.push(json!({
                    "account": key.account,
                    "asset": holding.asset,
                    "symbol": symbol,
                    "name": name,
                    "place": holding.place,
                    "amount": holding.amount.to_string(),
                    "price": price.map(|(price, _)| price),
                    "price_at": price.map(|(_, at)| at),
                    "price_age_s": price.map(|(_, at)| self.age(at)),
                    "value": price.map(|(price, _)| price * holding.amount.to_f64()),
                    "counted": holding.counted,
                }));
            }
        }
        Ok(json!({ "currency": currency, "list": list }))
    }

    fn history(&self, user: &UserId, id: u32, days: u32, currency: &str) -> Result<Json, Refused> {
        self.portfolio(user, id)?;
        let today = u32::try_from(self.now / DAY_S).unwrap_or(u32::MAX);
        let first = today.saturating_add(1).saturating_sub(days.clamp(1, SNAPSHOT_DAYS_MAX));
        // Of a day that is to come there is one if the calendar was once ahead.
        let end = snapshot_key(user, id, today);
        let mut points = Vec::new();
        self.kv.scan(Family::Portfolios, &snapshot_key(user, id, first), &mut |key, row| {
            if key > end.as_slice() || points.len() == SNAPSHOT_DAYS_MAX as usize {
                return false;
            }
            // One that does not decode is a day of which nothing is known.
            if let Some(((_, _, day), values)) = snapshot_of(key).zip(snapshot_values(row)) {
                points.push(json!([u64::from(day) * DAY_S, values.get(currency)]));
            }
            true
        })?;
        Ok(json!({ "currency": currency, "points": points }))
    }

    fn coins(&self, currency: &str) -> Json {
        let coin = |coin: &super::model::Coin| {
            let price = value::price(self.book, &coin.id, currency);
            json!({
                "rank": coin.rank,
                "id": coin.id,
                "symbol": coin.symbol.to_uppercase(),
                "name": coin.name,
                "price": price.map(|(price, _)| price),
                "price_age_s": price.map(|(_, at)| self.age(at)),
            })
        };
        let list: Vec<_> = self.book.coins().iter().map(coin).collect();
        let day = self.book.mark(super::model::Daily::Coins).map(|day| u64::from(day) * DAY_S);
        json!({ "day": day, "list": list })
    }
}

/// What is said of another's portfolio and of none: nobody learns from it which there are.
fn no_portfolio() -> Refused {
    Refused::new(Code::NotFound, "there is no such portfolio")
}

/// A name as it is kept.
fn name(wanted: &str) -> Result<String, Refused> {
    let wanted = wanted.trim();
    let good = (1..=NAME_CHARS_MAX).contains(&wanted.chars().count()) && !wanted.chars().any(char::is_control);
    let refused = || Refused::new(Code::BadBody, format!("name: give 1 to {NAME_CHARS_MAX} characters in one line"));
    good.then(|| wanted.to_owned()).ok_or_else(refused)
}
