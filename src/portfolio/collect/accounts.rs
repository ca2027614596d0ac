//! Accounts on chains and at OKX: often while somebody looks, else now and then; an address on a chain is asked for once, whoever has it.

use std::collections::BTreeMap;
use std::time::Duration;

use rockpool_net::time::Now;
use rockpool_workers::outside::call::{CallError, Order, Service};

use super::{Collector, Question, is_its_failure, is_looking, trouble};
use crate::limits::{AGAIN_AFTER, IDLE_EVERY, LOOKED_EVERY, TOKENS_PER_CHAIN};
use crate::portfolio::book::Book;
use crate::portfolio::connect::{evm, okx};
use crate::portfolio::model::{Account, AccountKey, Contract, Holding, Source};

/// What is asked for by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// An address on a chain.
    Chain(u8, [u8; 20]),
    /// An account at OKX.
    Okx(AccountKey),
}

/// How asking for it went.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    /// When there was last an answer.
    last: Option<Duration>,
    /// Not before this time.
    not_before: Duration,
}

/// How often somebody wants it, and whose it is.
struct Wanted {
    every: Duration,
    keys: Vec<AccountKey>,
}

impl Collector {
    pub(super) fn plan_accounts(&mut self, now: Now, book: &mut Book, orders: &mut Vec<Order>) {
        let mut wanted: BTreeMap<Subject, Wanted> = BTreeMap::new();
        for (key, account) in book.accounts() {
            let every = if is_looking(book, now, &key.user) { LOOKED_EVERY } else { IDLE_EVERY };
            for subject in subjects(key, account) {
                let wanted = wanted.entry(subject).or_insert(Wanted { every, keys: Vec::new() });
                wanted.every = wanted.every.min(every);
                wanted.keys.push(key);
            }
        }
        self.asked.retain(|subject, _| wanted.contains_key(subject));
        self.chain_trouble.retain(|(chain, address), _| wanted.contains_key(&Subject::Chain(*chain, *address)));
        self.trading.retain(|key, _| wanted.contains_key(&Subject::Okx(*key)));
        let mut due = Vec::new();
        self.overdue = 0;
        for (subject, Wanted { every, keys }) in wanted {
            // Whoever adds and removes accounts again and again stands behind those who wait already.
            let new = Asked { last: None, not_before: now.mono };
            let Asked { last, not_before } = *self.asked.entry(subject).or_insert(new);
            let news = self.tell_new(now, &subject, &keys, book);
            let at = last.filter(|_| news).map_or(Duration::ZERO, |last| last + every).max(not_before);
            if self.is_under_way(&subject) {
                self.overdue += 1;
            } else if at <= now.mono {
                self.overdue += 1;
                due.push((at, subject, keys));
            } else {
                self.want(at);
            }
        }
        // Those that have waited longest go first; all chains of one address before the next, so that new accounts are known one by one.
        due.sort_by_key(|(at, subject, _)| match subject {
            Subject::Chain(_, address) => (*at, Some(*address)),
            Subject::Okx(_) => (*at, None),
        });
        for (_, subject, keys) in due {
            match subject {
                Subject::Chain(chain, address) => self.plan_chain(now, (chain, address), keys, book, orders),
                Subject::Okx(key) => self.plan_okx(now, key, book, orders),
            }
        }
    }

    /// Tells new accounts what is known of an address that others had before them. Whether nobody waits for what is not known.
    fn tell_new(&self, now: Now, subject: &Subject, keys: &[AccountKey], book: &mut Book) -> bool {
        let Subject::Chain(chain, address) = subject else { return true };
        let mut new = keys.iter().filter(|key| is_unchecked(book, key)).peekable();
        let known = self.chain_data.get(&(*chain, *address), now.mono).is_some();
        let waits = new.peek().is_some() && !known && !self.chain_trouble.contains_key(&(*chain, *address));
        let new: Vec<_> = new.copied().filter(|_| known).collect();
        new.iter().for_each(|key| self.merge(now, key, book));
        !waits
    }

    fn is_under_way(&self, subject: &Subject) -> bool {
        self.is_out(|question| match (question, subject) {
            (Question::Chain(chain, address, ..), Subject::Chain(of, at)) => (chain, address) == (of, at),
            (Question::Okx(_, key), Subject::Okx(of)) => key == of,
            _ => false,
        })
    }

    fn plan_chain(&mut self, now: Now, at: (u8, [u8; 20]), keys: Vec<AccountKey>, book: &mut Book, orders: &mut Vec<Order>) {
        // An account that was removed and is back, or another's with the same address.
        if self.chain_data.is_fresh(&at, now.mono) {
            let last = self.chain_data.get(&at, now.mono).map(|cached| now.mono.saturating_sub(cached.age));
            self.asked.insert(Subject::Chain(at.0, at.1), Asked { last, not_before: Duration::ZERO });
            return keys.iter().for_each(|key| self.merge(now, key, book));
        }
        let Some(endpoint) = self.evm.get(usize::from(at.0)).cloned() else { return };
        if self.may_ask(now, Service::Evm, &endpoint.name) {
            let tokens: Vec<Contract> =
                book.contracts(at.0).filter(|contract| contract.decimals.is_some()).take(TOKENS_PER_CHAIN).cloned().collect();
            let call = endpoint.balances(&at.1, &tokens);
            self.ask(Question::Chain(at.0, at.1, tokens, keys), call, orders);
        } else if self.endpoints.is_failing(&endpoint.name) && keys.iter().any(|key| is_unchecked(book, key)) {
            // What else a new account holds need not wait until this address has its turn with a chain that is down.
            self.chain_trouble.entry(at).or_insert_with(|| format!("{}: it failed, and is left alone for a while", endpoint.name));
            keys.iter().for_each(|key| self.merge(now, key, book));
        }
    }

    pub(super) fn came_chain(
        &mut self,
        now: Now,
        result: Result<Vec<u8>, CallError>,
        at: (u8, [u8; 20]),
        tokens: &[Contract],
        keys: &[AccountKey],
        book: &mut Book,
    ) -> Result<(), CallError> {
        let Some(endpoint) = self.evm.get(usize::from(at.0)).cloned() else { return Ok(()) };
        let read = result.and_then(|bytes| endpoint.read_balances(&bytes, tokens));
        self.note_asked(now, Subject::Chain(at.0, at.1), read.as_ref().err());
        let error = match read {
            Ok(holdings) => {
                self.chain_data.put(at, holdings, now.mono);
                self.chain_trouble.remove(&at);
                None
            }
            Err(error) => {
                self.chain_trouble.insert(at, trouble(&endpoint.name, &error));
                Some(error)
            }
        };
        keys.iter().for_each(|key| self.merge(now, key, book));
        error.map_or(Ok(()), Err)
    }

    /// Puts together what an account holds on all of its chains: what each told last, or what is in the book of it.
    fn merge(&self, now: Now, key: &AccountKey, book: &mut Book) {
        let Some(Source::Evm { address, chains }) = book.account(key).map(|account| account.source.clone()) else { return };
        let trouble = chains.iter().find_map(|chain| self.chain_trouble.get(&(*chain, address)).cloned());
        let told = |chain: &u8| self.chain_data.get(&(*chain, address), now.mono);
        let first = book.account(key).is_some_and(|account| account.checked.is_none());
        // Half of a new account would look like all of it. A chain that is down does not hide the others.
        if first && chains.iter().any(|chain| told(chain).is_none() && !self.chain_trouble.contains_key(&(*chain, address))) {
            return book.set_trouble(key, trouble);
        }
        let mut holdings = Vec::new();
        for chain in &chains {
            match (told(chain), self.evm.get(usize::from(*chain))) {
                (Some(told), _) => holdings.extend(told.value.iter().cloned()),
                (None, Some(endpoint)) => {
                    holdings.extend(book.holdings(key).iter().filter(|holding| holding.place == endpoint.chain.name).cloned());
                }
                _ => {}
            }
        }
        book.set_collected(key, now.wall.as_secs(), summed(holdings), trouble);
    }

    fn plan_okx(&mut self, now: Now, key: AccountKey, book: &mut Book, orders: &mut Vec<Order>) {
        let Some(Source::Okx { sealed }) = book.account(&key).map(|account| &account.source) else { return };
        if !self.may_ask(now, Service::Okx, &self.okx.clone()) {
            return;
        }
        match (self.services.unseal)(&key, sealed) {
            Ok(keys) => {
                let part = if self.trading.contains_key(&key) { okx::Part::Funding } else { okx::Part::Trading };
                let call = okx::balances(&self.okx, &self.services.okx, part, &keys);
                self.ask(Question::Okx(part, key), call, orders);
            }
            Err(why) => {
                self.asked.insert(Subject::Okx(key), Asked { last: Some(now.mono), not_before: now.mono + IDLE_EVERY });
                book.set_trouble(&key, Some(why));
            }
        }
    }

    pub(super) fn came_okx(
        &mut self,
        now: Now,
        result: Result<Vec<u8>, CallError>,
        part: okx::Part,
        key: AccountKey,
        book: &mut Book,
    ) -> Result<(), CallError> {
        let read = result.and_then(|bytes| okx::read_balances(&bytes, part, book.coins()));
        let subject = Subject::Okx(key);
        match read {
            Ok(trading) if part == okx::Part::Trading => drop(self.trading.insert(key, trading)),
            Ok((funding, owed)) => {
                let (mut holdings, debts) = self.trading.remove(&key).unwrap_or_default();
                holdings.extend(funding);
                self.note_asked(now, subject, None);
                book.set_collected(&key, now.wall.as_secs(), holdings, debts.or(owed));
            }
            Err(error) => {
                // Parts of different times would count twice what was moved in between.
                self.trading.remove(&key);
                self.note_asked(now, subject, Some(&error));
                book.set_trouble(&key, Some(trouble(&self.okx, &error)));
                return Err(error);
            }
        }
        Ok(())
    }

    /// An answer, or a refusal that is about the subject itself, is good for a while; what the endpoint failed at is asked again soon.
    fn note_asked(&mut self, now: Now, subject: Subject, error: Option<&CallError>) {
        let asked = self.asked.entry(subject).or_default();
        if error.is_some_and(|error| is_its_failure(error) || matches!(error, CallError::Busy { .. })) {
            asked.not_before = now.mono + AGAIN_AFTER;
        } else {
            *asked = Asked { last: Some(now.mono), not_before: Duration::ZERO };
        }
    }
}

/// Whether nothing is known of an account yet.
fn is_unchecked(book: &Book, key: &AccountKey) -> bool {
    book.account(key).is_some_and(|account| account.checked.is_none())
}

/// What must be asked for an account.
fn subjects(key: AccountKey, account: &Account) -> Vec<Subject> {
    match &account.source {
        Source::Evm { address, chains } => chains.iter().map(|chain| Subject::Chain(*chain, *address)).collect(),
        Source::Okx { .. } => vec![Subject::Okx(key)],
        Source::Bitcoin { .. } | Source::Miner { .. } => Vec::new(),
    }
}

/// One holding of each asset and place.
fn summed(mut holdings: Vec<Holding>) -> Vec<Holding> {
    holdings.sort_by(|a, b| (&a.asset, &a.place).cmp(&(&b.asset, &b.place)));
    let mut summed: Vec<Holding> = Vec::new();
    for holding in holdings {
        match summed.last_mut().filter(|last| (&last.asset, &last.place) == (&holding.asset, &holding.place)) {
            // More than can be told is as good as the most.
            Some(last) => last.amount = last.amount.plus(&holding.amount).unwrap_or(last.amount),
            None => summed.push(holding),
        }
    }
    summed
}

impl evm::Endpoint {
    /// Contracts of this chain that have not said how many places their amounts have.
    pub(super) fn unknown(&self, book: &Book) -> Vec<[u8; 20]> {
        let unknown = book.contracts(self.chain.id).filter(|contract| contract.decimals.is_none());
        unknown.take(TOKENS_PER_CHAIN).map(|contract| contract.address).collect()
    }
}
