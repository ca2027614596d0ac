//! All that is known of portfolios, in memory but for snapshots, and the rows of whatever changes.
//!
//! Pure: the stage writes what [`Book::take`] gives before it tells anybody.

mod changes;
mod collected;
mod open;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use bitcoin::hashes::{Hash, HashEngine, sha256};
use rockpool_net::id::ShareId;
use rockpool_net::time::Now;
use rockpool_net::wire::share::Script;
use rockpool_store::error::StoreError;
use rockpool_store::kv::{Family, Kv, Op};
use rockpool_store::limits::{ACCOUNTS_ALL_MAX, ACCOUNTS_MAX, PORTFOLIOS_MAX, ROWS_PER_BATCH, USERS_MAX};
use rockpool_store::portfolios::rows::{Row, snapshot_key, snapshot_of};

use super::model::{Account, AccountKey, Coin, Contract, Daily, Holding, Portfolio, Price, Source, User, UserId};
use super::text::cut;
use changes::Changes;

/// The portfolio that everybody begins with.
const FIRST_PORTFOLIO: &str = "main";

/// Why there is no room for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Of all users.
    #[error("{USERS_MAX} users have accounts here, which is as many as are kept")]
    Users,
    /// Of the user's portfolios.
    #[error("there are {PORTFOLIOS_MAX} portfolios already, which is as many as are kept: remove one first")]
    Portfolios,
    /// Of the user's accounts.
    #[error("there are {ACCOUNTS_MAX} accounts already, which is as many as are kept: remove one first")]
    Accounts,
    /// Of all accounts.
    #[error("the node keeps {ACCOUNTS_ALL_MAX} accounts of all users, and no more")]
    AllAccounts,
}

/// A user with what is his.
#[derive(Debug)]
struct Member {
    user: User,
    portfolios: BTreeMap<u32, Portfolio>,
    /// When he last asked for anything, monotonic; not since the start if never.
    looked: Option<Duration>,
    /// Accounts in all of his portfolios.
    accounts: usize,
}

/// An account with what it holds.
#[derive(Debug)]
struct Kept {
    account: Account,
    /// What its row says of when it was checked.
    written: Option<u64>,
    /// By asset and place, ascending.
    holdings: Vec<Holding>,
    /// Of a miner: what the next block would pay it, satoshis.
    pending: Option<u64>,
}

/// All that is known.
#[derive(Debug, Default)]
pub struct Book {
    members: BTreeMap<UserId, Member>,
    accounts: BTreeMap<AccountKey, Kept>,
    /// Holdings of all accounts.
    holdings: usize,
    prices: BTreeMap<String, Price>,
    coins: Vec<Coin>,
    contracts: BTreeMap<(u8, [u8; 20]), Contract>,
    paid: BTreeMap<ShareId, Vec<(Script, u64)>>,
    marks: BTreeMap<Daily, u32>,
    changes: Changes,
}

/// What deletes the snapshots of a portfolio that is gone, at most a batch of them: asked again until there are none.
pub fn gone_rows(kv: &dyn Kv, user: &UserId, portfolio: u32) -> Result<Vec<Op>, StoreError> {
    let mut ops = Vec::new();
    kv.scan(Family::Portfolios, &snapshot_key(user, portfolio, 0), &mut |key, _| {
        let mine = snapshot_of(key).is_some_and(|(of, which, _)| (of, which) == (*user, portfolio));
        if mine {
            ops.push(Op::Delete(Family::Portfolios, key.to_vec()));
        }
        mine && ops.len() < ROWS_PER_BATCH
    })?;
    Ok(ops)
}

/// The id of who is `sub` at `issuer`.
pub fn user_id(issuer: &str, sub: &str) -> UserId {
    let tag = sha256::Hash::hash(b"rockpool/user").to_byte_array();
    let mut engine = sha256::Hash::engine();
    [&tag[..], &tag, issuer.as_bytes(), &[0], sub.as_bytes()].iter().for_each(|part| engine.input(part));
    let hash = sha256::Hash::from_engine(engine).to_byte_array();
    UserId(std::array::from_fn(|at| hash[at]))
}

impl Book {
    /// Rows of what has changed since this was last asked, in batches of at most [`ROWS_PER_BATCH`]: each is one write, in this
    /// order.
    pub fn take(&mut self) -> Vec<Vec<Op>> {
        self.changes.take()
    }

    /// Whether [`Book::take`] would give anything.
    pub fn is_changed(&self) -> bool {
        !self.changes.is_empty()
    }

    /// How many collections of changes there ever were: another number than before says that something has changed.
    pub fn noted(&self) -> u64 {
        self.changes.noted
    }

    /// Portfolios that are gone, whose snapshots are still to be deleted from disk: once.
    pub fn take_gone(&mut self) -> Vec<(UserId, u32)> {
        self.changes.take_gone()
    }

    /// A user, if he was seen before.
    pub fn user(&self, id: &UserId) -> Option<&User> {
        self.members.get(id).map(|member| &member.user)
    }

    /// How many there are.
    pub fn users(&self) -> usize {
        self.members.len()
    }

    /// The user who is `sub` at `issuer`: made with one portfolio if he was never seen. Who makes room for him is the oldest user without
    /// an account, so that whoever has something here cannot be pushed out.
    pub fn meet(&mut self, issuer: &str, sub: &str, now: u64) -> Result<UserId, Full> {
        let id = user_id(issuer, sub);
        if self.members.contains_key(&id) {
            return Ok(id);
        }
        if self.members.len() >= USERS_MAX {
            let idle = self.members.values().filter(|member| member.accounts == 0);
            let oldest = idle.min_by_key(|member| (member.user.since, member.user.id)).map(|member| member.user.id);
            self.forget(&oldest.ok_or(Full::Users)?);
        }
        let user = User { id, issuer: cut(issuer), sub: cut(sub), since: now, last_portfolio: 1, last_account: 0 };
        let first = Portfolio { id: 1, name: FIRST_PORTFOLIO.to_owned(), since: now };
        self.changes.note(vec![Row::User(user.clone()).put(), Row::Portfolio(id, first.clone()).put()]);
        self.members.insert(id, Member { user, portfolios: BTreeMap::from([(1, first)]), looked: None, accounts: 0 });
        Ok(id)
    }

    /// Forgets a user who has no account.
    fn forget(&mut self, id: &UserId) {
        let Some(member) = self.members.remove(id) else { return };
        let mut ops = vec![Row::User(member.user).delete()];
        for portfolio in member.portfolios.into_values() {
            self.changes.gone(*id, portfolio.id);
            ops.push(Row::Portfolio(*id, portfolio).delete());
        }
        self.changes.note(ops);
    }

    /// Somebody looks at what is his.
    pub fn looked(&mut self, user: &UserId, now: Now) {
        if let Some(member) = self.members.get_mut(user) {
            member.looked = Some(now.mono);
        }
    }

    /// When somebody last looked, monotonic; `None` for not since the start.
    pub fn last_looked(&self, user: &UserId) -> Option<Duration> {
        self.members.get(user).and_then(|member| member.looked)
    }

    /// A user's portfolios, oldest first.
    pub fn portfolios(&self, user: &UserId) -> impl Iterator<Item = &Portfolio> + use<'_> {
        self.members.get(user).into_iter().flat_map(|member| member.portfolios.values())
    }

    /// One of them.
    pub fn portfolio(&self, user: &UserId, id: u32) -> Option<&Portfolio> {
        self.members.get(user)?.portfolios.get(&id)
    }

    /// All users' portfolios.
    pub fn all_portfolios(&self) -> impl Iterator<Item = (UserId, &Portfolio)> + use<'_> {
        self.members.values().flat_map(|member| member.portfolios.values().map(|portfolio| (member.user.id, portfolio)))
    }

    /// Makes a portfolio, and tells its id.
    pub fn add_portfolio(&mut self, user: &UserId, name: String, now: u64) -> Result<u32, Full> {
        let member = self.members.get_mut(user).ok_or(Full::Users)?;
        if member.portfolios.len() >= PORTFOLIOS_MAX {
            return Err(Full::Portfolios);
        }
        let id = member.user.last_portfolio.checked_add(1).ok_or(Full::Portfolios)?;
        member.user.last_portfolio = id;
        let portfolio = Portfolio { id, name, since: now };
        self.changes.note(vec![Row::User(member.user.clone()).put(), Row::Portfolio(*user, portfolio.clone()).put()]);
        member.portfolios.insert(id, portfolio);
        Ok(id)
    }

    /// Removes a portfolio with all that is in it. Whether it was there.
    pub fn remove_portfolio(&mut self, user: &UserId, id: u32) -> bool {
        let Some(portfolio) = self.members.get_mut(user).and_then(|member| member.portfolios.remove(&id)) else { return false };
        // First, so that a crash in between leaves rows that nothing leads to: the next start deletes them.
        self.changes.note(vec![Row::Portfolio(*user, portfolio).delete()]);
        let keys: Vec<_> = self.accounts_in(user, id).map(|(key, _)| key).collect();
        for key in &keys {
            self.remove_account(key);
        }
        self.changes.gone(*user, id);
        true
    }

    /// All accounts.
    pub fn accounts(&self) -> impl Iterator<Item = (AccountKey, &Account)> + use<'_> {
        self.accounts.iter().map(|(key, kept)| (*key, &kept.account))
    }

    /// Accounts of a portfolio, oldest first.
    pub fn accounts_in(&self, user: &UserId, portfolio: u32) -> impl Iterator<Item = (AccountKey, &Account)> + use<'_> {
        let key = |account| AccountKey { user: *user, portfolio, account };
        self.accounts.range(key(0)..=key(u32::MAX)).map(|(key, kept)| (*key, &kept.account))
    }

    /// An account.
    pub fn account(&self, key: &AccountKey) -> Option<&Account> {
        self.accounts.get(key).map(|kept| &kept.account)
    }

    /// The id that the user's next account will have: what its keys are sealed for.
    pub fn next_account(&self, user: &UserId) -> Result<u32, Full> {
        let member = self.members.get(user).ok_or(Full::Users)?;
        if member.accounts >= ACCOUNTS_MAX {
            return Err(Full::Accounts);
        }
        if self.accounts.len() >= ACCOUNTS_ALL_MAX {
            return Err(Full::AllAccounts);
        }
        member.user.last_account.checked_add(1).ok_or(Full::Accounts)
    }

    /// Adds an account to a portfolio that is there, under [`Book::next_account`].
    pub fn add_account(&mut self, user: &UserId, portfolio: u32, name: String, source: Source, now: u64) -> Result<AccountKey, Full> {
        let id = self.next_account(user)?;
        let member = self.members.get_mut(user).filter(|member| member.portfolios.contains_key(&portfolio)).ok_or(Full::Portfolios)?;
        let account = Account { id, portfolio, name, since: now, source, checked: None, trouble: None };
        member.user.last_account = id;
        member.accounts += 1;
        self.changes.note(vec![Row::User(member.user.clone()).put(), Row::Account(*user, account.clone()).put()]);
        let key = AccountKey { user: *user, portfolio, account: id };
        self.accounts.insert(key, Kept { account, written: None, holdings: Vec::new(), pending: None });
        Ok(key)
    }

    /// Removes an account with what it holds. Whether it was there.
    pub fn remove_account(&mut self, key: &AccountKey) -> bool {
        let Some(kept) = self.accounts.remove(key) else { return false };
        if let Some(member) = self.members.get_mut(&key.user) {
            member.accounts = member.accounts.saturating_sub(1);
        }
        self.holdings -= kept.holdings.len();
        let mut ops = vec![Row::Account(key.user, kept.account).delete()];
        ops.extend(kept.holdings.into_iter().map(|holding| Row::Holding(*key, holding).delete()));
        self.changes.note(ops);
        true
    }
}
