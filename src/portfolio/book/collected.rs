//! What was collected: a row is noted only where it is not what it was, so that a second run of any collection changes nothing.

use rockpool_net::id::ShareId;
use rockpool_net::wire::share::Script;
use rockpool_store::limits::{COINS_MAX, CONTRACTS_MAX, CURRENCIES_MAX, HOLDINGS_ALL_MAX, HOLDINGS_MAX, HOLDINGS_USER_MAX};
use rockpool_store::limits::{PAID_MAX, PAID_OUTPUTS_MAX, PRICES_MAX, SNAPSHOT_ASSETS_MAX};
use rockpool_store::portfolios::rows::Row;

use super::Book;
use crate::limits::{CHECKED_WRITE_EVERY_S, COIN_NAME_BYTES, COIN_SYMBOL_BYTES};
use crate::portfolio::model::{AccountKey, Coin, Contract, Daily, Holding, Paid, Price, Snapshot, UserId};
use crate::portfolio::text::{cut, cut_to, is_key};

impl Book {
    /// What an account holds, by asset and place.
    pub fn holdings(&self, key: &AccountKey) -> &[Holding] {
        self.accounts.get(key).map_or(&[], |kept| &kept.holdings)
    }

    /// What an account holds, found out at this time: in place of what was known before. Its trouble is over, unless there is no room for
    /// all of it; nothing happens if the account has gone meanwhile.
    pub fn set_holdings(&mut self, key: &AccountKey, now: u64, holdings: Vec<Holding>) {
        self.set_collected(key, now, holdings, None);
    }

    /// The same, where not all could be found out, or not all of it told: its trouble is this one.
    pub fn set_collected(&mut self, key: &AccountKey, now: u64, mut holdings: Vec<Holding>, trouble: Option<String>) {
        let others = self.holdings - self.holdings(key).len();
        let of_user = |account| AccountKey { portfolio: account, account, ..*key };
        let own = self.accounts.range(of_user(0)..=of_user(u32::MAX)).filter(|(of, _)| *of != key);
        let own: usize = own.map(|(_, kept)| kept.holdings.len()).sum();
        let Some(kept) = self.accounts.get_mut(key) else { return };
        holdings.retain(|holding| !holding.amount.is_zero() && is_key(&holding.asset) && is_key(&holding.place));
        holdings.sort_by(|a, b| (&a.asset, &a.place).cmp(&(&b.asset, &b.place)));
        holdings.dedup_by(|again, first| (&again.asset, &again.place) == (&first.asset, &first.place));
        let room = HOLDINGS_MAX.min(HOLDINGS_USER_MAX.saturating_sub(own)).min(HOLDINGS_ALL_MAX.saturating_sub(others));
        let more = holdings.len().saturating_sub(room);
        holdings.truncate(room);
        let no_room = (more > 0).then(|| format!("{more} of its holdings are left out: there is no room for more"));
        let trouble = trouble.map(|why| cut(&why)).or(no_room);
        self.holdings = others + holdings.len();
        let mut ops = Vec::new();
        for old in kept.holdings.iter().filter(|old| !holdings.iter().any(|new| (&new.asset, &new.place) == (&old.asset, &old.place))) {
            ops.push(Row::Holding(*key, old.clone()).delete());
        }
        for new in holdings.iter().filter(|new| !kept.holdings.contains(new)) {
            ops.push(Row::Holding(*key, new.clone()).put());
        }
        let aged = kept.written.is_none_or(|written| now.abs_diff(written) > CHECKED_WRITE_EVERY_S);
        let changed = !ops.is_empty() || kept.account.trouble != trouble || aged;
        (kept.account.checked, kept.account.trouble, kept.holdings) = (Some(now), trouble, holdings);
        if changed {
            kept.written = Some(now);
            // Behind its holdings: what it says of when they were checked is true at any time.
            ops.push(Row::Account(key.user, kept.account.clone()).put());
            self.changes.note(ops);
        }
    }

    /// Why an account's holdings are not known any better; `None` for no reason.
    pub fn set_trouble(&mut self, key: &AccountKey, trouble: Option<String>) {
        let trouble = trouble.map(|why| cut(&why)).filter(|why| !why.is_empty());
        if let Some(kept) = self.accounts.get_mut(key).filter(|kept| kept.account.trouble != trouble) {
            kept.account.trouble = trouble;
            kept.written = kept.account.checked;
            self.changes.note(vec![Row::Account(key.user, kept.account.clone()).put()]);
        }
    }

    /// What the next block would pay a miner, satoshis, if that is known.
    pub fn pending(&self, key: &AccountKey) -> Option<u64> {
        self.accounts.get(key)?.pending
    }

    /// What the next block would pay a miner. Not stored: it is another one with every share.
    pub fn set_pending(&mut self, key: &AccountKey, sats: Option<u64>) {
        if let Some(kept) = self.accounts.get_mut(key) {
            kept.pending = sats;
        }
    }

    /// What a coin is worth.
    pub fn price(&self, asset: &str) -> Option<&Price> {
        self.prices.get(asset)
    }

    /// What coins are worth, by CoinGecko's answer: at most [`PRICES_MAX`] are kept, the oldest go first.
    pub fn set_prices(&mut self, prices: Vec<Price>) {
        let mut ops = Vec::new();
        for mut price in prices {
            price.values.retain(|currency, value| is_key(currency) && value.is_finite() && *value >= 0.0);
            while price.values.len() > CURRENCIES_MAX {
                price.values.pop_last();
            }
            if !is_key(&price.asset) || self.prices.get(&price.asset) == Some(&price) {
                continue;
            }
            if self.prices.len() >= PRICES_MAX && !self.prices.contains_key(&price.asset) {
                let oldest = self.prices.values().min_by_key(|price| price.at).map(|price| price.asset.clone());
                ops.extend(oldest.and_then(|asset| self.prices.remove(&asset)).map(|old| Row::Price(old).delete()));
            }
            ops.push(Row::Price(price.clone()).put());
            self.prices.insert(price.asset.clone(), price);
        }
        self.changes.note(ops);
    }

    /// Top coins, by rank.
    pub fn coins(&self) -> &[Coin] {
        &self.coins
    }

    /// A top coin, by CoinGecko's id.
    pub fn coin(&self, id: &str) -> Option<&Coin> {
        self.coins.iter().find(|coin| coin.id == id)
    }

    /// The top coins of a day, which is marked behind them.
    pub fn set_coins(&mut self, day: u32, mut coins: Vec<Coin>) {
        coins.retain(|coin| is_key(&coin.id));
        coins
            .iter_mut()
            .for_each(|coin| (coin.symbol, coin.name) = (cut_to(&coin.symbol, COIN_SYMBOL_BYTES), cut_to(&coin.name, COIN_NAME_BYTES)));
        coins.sort_by_key(|coin| coin.rank);
        coins.dedup_by_key(|coin| coin.rank);
        coins.truncate(COINS_MAX);
        let gone = self.coins.iter().filter(|old| !coins.iter().any(|new| new.rank == old.rank));
        let mut ops: Vec<_> = gone.map(|old| Row::Coin(old.clone()).delete()).collect();
        ops.extend(coins.iter().filter(|new| !self.coins.contains(new)).map(|new| Row::Coin(new.clone()).put()));
        self.coins = coins;
        self.changes.note(ops);
        self.set_mark(Daily::Coins, day);
    }

    /// Where top coins live on a chain.
    pub fn contracts(&self, chain: u8) -> impl Iterator<Item = &Contract> + use<'_> {
        self.contracts.range((chain, [0; 20])..=(chain, [0xff; 20])).map(|(_, contract)| contract)
    }

    /// Where top coins live, all of them. What a contract has said of its decimals is kept where the new list does not say it.
    pub fn set_contracts(&mut self, contracts: Vec<Contract>) {
        let mut new = std::collections::BTreeMap::new();
        for mut contract in contracts.into_iter().filter(|contract| is_key(&contract.coin)).take(CONTRACTS_MAX) {
            let key = (contract.chain, contract.address);
            contract.decimals = contract.decimals.or_else(|| self.contracts.get(&key)?.decimals);
            new.insert(key, contract);
        }
        let gone = self.contracts.iter().filter(|(key, _)| !new.contains_key(*key));
        let mut ops: Vec<_> = gone.map(|(_, old)| Row::Contract(old.clone()).delete()).collect();
        let changed = new.iter().filter(|(key, new)| self.contracts.get(*key) != Some(*new));
        ops.extend(changed.map(|(_, new)| Row::Contract(new.clone()).put()));
        self.contracts = new;
        self.changes.note(ops);
    }

    /// What contracts say of their decimals: chain, address, places.
    pub fn set_decimals(&mut self, decimals: &[(u8, [u8; 20], u8)]) {
        let mut ops = Vec::new();
        for (chain, address, places) in decimals {
            if let Some(contract) = self.contracts.get_mut(&(*chain, *address)).filter(|contract| contract.decimals != Some(*places)) {
                contract.decimals = Some(*places);
                ops.push(Row::Contract(contract.clone()).put());
            }
        }
        self.changes.note(ops);
    }

    /// What a found block paid, if that was looked up.
    pub fn paid(&self, hash: &ShareId) -> Option<&[(Script, u64)]> {
        self.paid.get(hash).map(Vec::as_slice)
    }

    /// All that found blocks paid.
    pub fn all_paid(&self) -> impl Iterator<Item = (&ShareId, &[(Script, u64)])> + use<'_> {
        self.paid.iter().map(|(hash, outputs)| (hash, outputs.as_slice()))
    }

    /// What a found block paid. At most [`PAID_MAX`] blocks are kept: beyond, none is added.
    pub fn set_paid(&mut self, hash: ShareId, mut outputs: Vec<(Script, u64)>) {
        outputs.truncate(PAID_OUTPUTS_MAX);
        let room = self.paid.len() < PAID_MAX || self.paid.contains_key(&hash);
        if room && self.paid(&hash) != Some(&outputs) {
            self.changes.note(vec![Row::Paid(Paid { hash, outputs: outputs.clone() }).put()]);
            self.paid.insert(hash, outputs);
        }
    }

    /// Forgets what blocks paid that are not among these: they are no longer told of.
    pub fn keep_paid(&mut self, known: &dyn Fn(&ShareId) -> bool) {
        let gone: Vec<_> = self.paid.keys().filter(|hash| !known(hash)).copied().collect();
        let ops = gone.into_iter().map(|hash| Row::Paid(Paid { hash, outputs: self.paid.remove(&hash).unwrap_or_default() }).delete());
        let ops = ops.collect();
        self.changes.note(ops);
    }

    /// What a portfolio is worth on a day: its row is written again each time, over itself. Of its assets the first
    /// [`SNAPSHOT_ASSETS_MAX`] are kept.
    pub fn snapshot(&mut self, user: &UserId, portfolio: u32, mut snapshot: Snapshot) {
        if self.portfolio(user, portfolio).is_some() {
            snapshot.assets.truncate(SNAPSHOT_ASSETS_MAX);
            snapshot.values.retain(|_, value| value.is_finite());
            self.changes.note(vec![Row::Snapshot(*user, portfolio, snapshot).put()]);
        }
    }

    /// The day on which something was last done, if ever.
    pub fn mark(&self, daily: Daily) -> Option<u32> {
        self.marks.get(&daily).copied()
    }

    /// Something was done for this day.
    pub fn set_mark(&mut self, daily: Daily, day: u32) {
        if self.marks.insert(daily, day) != Some(day) {
            self.changes.note(vec![Row::Mark(daily, day).put()]);
        }
    }
}
