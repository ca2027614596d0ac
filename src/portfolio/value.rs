//! What holdings are worth: exact amounts by prices that are told with their age.

use std::collections::BTreeMap;

use super::book::Book;
use super::chains::CHAINS;
use super::model::{Account, AccountKey, Amount, Snapshot, UserId};

/// What some accounts are worth in a currency, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Value {
    /// The sum; `None` where nothing of it is known.
    pub amount: Option<f64>,
    /// Whether it is the value of everything: every account was checked, and everything counted has a price.
    pub complete: bool,
    /// Holdings that have no price.
    pub unpriced: usize,
    /// When the oldest price of it was made, Unix seconds.
    pub priced: Option<u64>,
    /// When the account was checked that was longest ago, Unix seconds; `None` if one never was.
    pub checked: Option<u64>,
}

/// What accounts are worth.
pub fn value<'a>(book: &Book, accounts: impl Iterator<Item = (AccountKey, &'a Account)>, currency: &str) -> Value {
    let (mut sum, mut priced, mut unchecked, mut any) = (0.0, 0, 0, false);
    let mut value = Value::default();
    for (key, account) in accounts {
        let first = !std::mem::replace(&mut any, true);
        unchecked += usize::from(account.checked.is_none());
        value.checked = if first { account.checked } else { value.checked.min(account.checked) };
        for holding in book.holdings(&key).iter().filter(|holding| holding.counted) {
            match price(book, &holding.asset, currency) {
                Some((price, at)) => {
                    sum += price * holding.amount.to_f64();
                    priced += 1;
                    value.priced = Some(value.priced.map_or(at, |oldest| oldest.min(at)));
                }
                None => value.unpriced += 1,
            }
        }
    }
    value.complete = unchecked == 0 && value.unpriced == 0;
    value.amount = (priced > 0 || value.complete).then_some(sum).filter(|sum: &f64| sum.is_finite());
    value
}

/// What one of an asset is worth, and when that was said.
pub fn price(book: &Book, asset: &str, currency: &str) -> Option<(f64, u64)> {
    let price = book.price(asset)?;
    price.values.get(currency).map(|value| (*value, price.at))
}

/// A part of a portfolio.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What.
    pub asset: String,
    /// How much.
    pub amount: Amount,
    /// What one of it is worth, and when that was said.
    pub price: Option<(f64, u64)>,
    /// What all of it is worth.
    pub value: Option<f64>,
    /// Its share of what has a price, of 1.
    pub share: Option<f64>,
}

/// What a portfolio consists of, by value, the most first; what has no price comes last.
pub fn allocation(book: &Book, user: &UserId, portfolio: u32, currency: &str) -> Vec<Part> {
    let mut sums: BTreeMap<&str, (Amount, f64)> = BTreeMap::new();
    for (key, _) in book.accounts_in(user, portfolio) {
        for holding in book.holdings(&key).iter().filter(|holding| holding.counted) {
            let (sum, about) = sums.entry(&holding.asset).or_insert((Amount::default(), 0.0));
            // More than can be told is as much as can be.
            *sum = sum.plus(&holding.amount).unwrap_or(Amount { units: u128::MAX, decimals: sum.decimals });
            *about += holding.amount.to_f64();
        }
    }
    let part = |(asset, (amount, about)): (&str, _)| {
        let price = price(book, asset, currency);
        let value = price.map(|(price, _)| price * about).filter(|value: &f64| value.is_finite());
        Part { asset: asset.to_owned(), amount, price, value, share: None }
    };
    let mut parts: Vec<Part> = sums.into_iter().map(part).collect();
    let all: f64 = parts.iter().filter_map(|part| part.value).sum();
    parts.iter_mut().for_each(|part| part.share = part.value.filter(|_| all > 0.0).map(|value| value / all));
    parts.sort_by(|a, b| b.value.unwrap_or(-1.0).total_cmp(&a.value.unwrap_or(-1.0)).then_with(|| a.asset.cmp(&b.asset)));
    parts
}

/// A portfolio on this day, in these currencies. One whose value is not known in any way is none.
pub fn snapshot(book: &Book, user: &UserId, portfolio: u32, day: u32, currencies: &[String]) -> Snapshot {
    let in_currency = |currency: &String| Some((currency.clone(), value(book, book.accounts_in(user, portfolio), currency).amount?));
    let values = currencies.iter().filter_map(in_currency).collect();
    let parts = currencies.first().map(|currency| allocation(book, user, portfolio, currency)).unwrap_or_default();
    Snapshot { day, values, assets: parts.into_iter().map(|part| (part.asset, part.amount)).collect() }
}

/// Symbol and name of an asset, as far as they are known.
pub fn names<'a>(book: &'a Book, asset: &'a str) -> (Option<&'a str>, Option<&'a str>) {
    if let Some(coin) = book.coin(asset) {
        return (Some(&coin.symbol), Some(&coin.name));
    }
    let native = || CHAINS.iter().find(|chain| chain.native == asset).map(|chain| chain.symbol);
    match asset {
        "bitcoin" => (Some("btc"), Some("Bitcoin")),
        _ => (asset.strip_prefix("okx:").or_else(native), None),
    }
}
