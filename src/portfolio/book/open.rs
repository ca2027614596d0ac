//! The book as it stands on disk.

use rockpool_store::error::StoreError;
use rockpool_store::kv::{Family, Kv, Op};
use rockpool_store::limits::{ACCOUNTS_ALL_MAX, COINS_MAX, CONTRACTS_MAX, HOLDINGS_ALL_MAX, PAID_MAX, PRICES_MAX, USERS_MAX};
use rockpool_store::portfolios::rows::{Row, SNAPSHOTS, snapshot_key, snapshot_of};

use super::{Book, Kept, Member};
use crate::portfolio::model::{AccountKey, Paid};

impl Book {
    /// What is stored. A row that does not decode takes nothing from the others; neither does one that nothing leads to, which a crash in
    /// the middle of a removal leaves: both are among the first changes, as deletions.
    pub fn open(kv: &dyn Kv) -> Result<Book, StoreError> {
        let mut book = Book::default();
        let mut bad = Vec::new();
        kv.scan(Family::Portfolios, &[], &mut |key, value| {
            // Snapshots may be many, and are looked at by portfolio.
            let kept = key < SNAPSHOTS;
            if kept && Row::decode(key, value).map_or(true, |row| !book.add(row)) {
                bad.push(Op::Delete(Family::Portfolios, key.to_vec()));
            }
            kept
        })?;
        book.find_gone(kv, &mut bad)?;
        book.changes.note(bad);
        Ok(book)
    }

    /// Finds snapshots of portfolios that are no more, and keys that are none.
    fn find_gone(&mut self, kv: &dyn Kv, bad: &mut Vec<Op>) -> Result<(), StoreError> {
        let mut next = SNAPSHOTS.to_vec();
        loop {
            let mut found = None;
            kv.scan(Family::Portfolios, &next, &mut |key, _| {
                found = Some(key.to_vec());
                false
            })?;
            let Some(key) = found else { return Ok(()) };
            next = match snapshot_of(&key) {
                Some((user, portfolio, _)) => {
                    if self.portfolio(&user, portfolio).is_none() {
                        self.changes.gone(user, portfolio);
                    }
                    snapshot_key(&user, portfolio, u32::MAX)
                }
                None => {
                    bad.push(Op::Delete(Family::Portfolios, key.clone()));
                    key
                }
            };
            next.push(0);
        }
    }

    /// Adds a row, if there is a place for it.
    fn add(&mut self, row: Row) -> bool {
        match row {
            Row::Mark(daily, day) => drop(self.marks.insert(daily, day)),
            Row::User(user) if self.members.len() < USERS_MAX => {
                let member = Member { portfolios: Default::default(), looked: None, accounts: 0, user };
                self.members.insert(member.user.id, member);
            }
            Row::Portfolio(user, portfolio) => {
                let Some(member) = self.members.get_mut(&user) else { return false };
                member.portfolios.insert(portfolio.id, portfolio);
            }
            Row::Account(user, account) if self.accounts.len() < ACCOUNTS_ALL_MAX => {
                let key = AccountKey { user, portfolio: account.portfolio, account: account.id };
                let member = self.members.get_mut(&user).filter(|member| member.portfolios.contains_key(&account.portfolio));
                let Some(member) = member else { return false };
                member.accounts += 1;
                self.accounts.insert(key, Kept { written: account.checked, account, holdings: Vec::new(), pending: None });
            }
            Row::Holding(key, holding) if self.holdings < HOLDINGS_ALL_MAX => {
                let Some(kept) = self.accounts.get_mut(&key) else { return false };
                // In the order of asset and place: the byte between them is below all others.
                kept.holdings.push(holding);
                self.holdings += 1;
            }
            Row::Price(price) if self.prices.len() < PRICES_MAX => drop(self.prices.insert(price.asset.clone(), price)),
            Row::Coin(coin) if self.coins.len() < COINS_MAX => self.coins.push(coin),
            Row::Contract(contract) if self.contracts.len() < CONTRACTS_MAX => {
                self.contracts.insert((contract.chain, contract.address), contract);
            }
            Row::Paid(Paid { hash, outputs }) if self.paid.len() < PAID_MAX => drop(self.paid.insert(hash, outputs)),
            _ => return false,
        }
        true
    }
}
