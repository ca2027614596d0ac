//! Bitcoin's chain, by the node's own bitcoind, which works for the pool first: one scan for the addresses of all, and what each found
//! block paid, once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rockpool_net::id::ShareId;
use rockpool_net::time::Now;
use rockpool_net::wire::share::Script;
use rockpool_store::limits::PAID_MAX;
use rockpool_workers::jobs::Mined;
use rockpool_workers::outside::call::{CallError, Order, Service};

use super::{BITCOIN, Collector, Question, is_looking, trouble};
use crate::limits::{AGAIN_AFTER, DAILY_EVERY, IDLE_EVERY, SCAN_ADDRESSES_MAX, SCAN_EVERY};
use crate::portfolio::book::Book;
use crate::portfolio::connect::{bitcoin, miners};
use crate::portfolio::model::{AccountKey, Amount, Holding, Source};

/// What is said where there is none to ask.
const NO_BITCOIND: &str = "this node has no bitcoind to ask: start it with --bitcoind";

/// What is said of an address with very many outputs.
const TOO_MANY: &str = "bitcoind: there are more outputs at this address than can be told of";
/// What is said until the last of them is known: what was paid looks like all of it before.
const LOOKED_UP: &str = "what some found blocks paid is still to be looked up";

/// What is known of scans and blocks.
#[derive(Default)]
pub(super) struct Blocks {
    mined: Option<Mined>,
    /// What each script was paid, until something changes.
    earned: Option<BTreeMap<Script, miners::Earned>>,
    /// The height for which each address was last scanned.
    scanned: BTreeMap<String, u32>,
    /// Addresses with more outputs than bitcoind may tell of, and the height for which each was last scanned.
    too_many: BTreeMap<String, u32>,
    /// Addresses in a scan at most, while one of those is looked for.
    scan_most: Option<usize>,
    /// When the last scan ended.
    scan_ended: Option<Duration>,
    /// Blocks whose outputs are looked up: the first transaction's name once known, when to go on, and how often that failed.
    lookups: BTreeMap<ShareId, Lookup>,
    /// Why the last lookup told nothing.
    trouble: Option<String>,
}

#[derive(Default)]
struct Lookup {
    name: Option<String>,
    not_before: Duration,
    failures: u32,
}

impl Blocks {
    pub(super) fn mined(&mut self, mined: Mined) {
        self.lookups.retain(|hash, _| mined.blocks.iter().any(|(known, ..)| known == hash));
        (self.mined, self.earned) = (Some(mined), None);
    }
}

impl Collector {
    pub(super) fn plan_blocks(&mut self, now: Now, book: &mut Book, orders: &mut Vec<Order>) {
        self.plan_lookup(now, book, orders);
        self.plan_scan(now, book, orders);
        self.tell_miners(now, book);
    }

    fn plan_lookup(&mut self, now: Now, book: &mut Book, orders: &mut Vec<Order>) {
        let Some(mined) = self.blocks.mined.as_ref().filter(|_| self.services.bitcoind) else { return };
        let mut unknown: Vec<_> = mined.blocks.iter().map(|(hash, ..)| *hash).filter(|hash| book.paid(hash).is_none()).collect();
        // The newest first: a pruned bitcoind has no old ones.
        unknown.reverse();
        if !unknown.is_empty() && book.all_paid().count() >= PAID_MAX {
            book.keep_paid(&|hash| mined.blocks.iter().any(|(known, ..)| known == hash));
        }
        for hash in unknown {
            let lookup = self.blocks.lookups.entry(hash).or_default();
            if lookup.not_before > now.mono {
                let at = lookup.not_before;
                self.want(at);
                continue;
            }
            let name = lookup.name.clone();
            if self.may_ask(now, Service::Bitcoind, &self.bitcoind.clone()) {
                let (question, call) = match name {
                    Some(name) => (Question::Coinbase(hash, name.clone()), bitcoin::coinbase(&self.bitcoind, &hash, &name)),
                    None => (Question::Block(hash), bitcoin::block(&self.bitcoind, &hash)),
                };
                self.ask(question, call, orders);
            }
            return;
        }
    }

    pub(super) fn came_block(&mut self, now: Now, result: Result<Vec<u8>, CallError>, hash: ShareId) -> Result<(), CallError> {
        let read = result.and_then(|bytes| bitcoin::read_block(&bytes, &hash));
        let Some(lookup) = self.blocks.lookups.get_mut(&hash) else { return read.map(drop) };
        match read {
            Ok(name) => {
                lookup.name = Some(name);
                Ok(())
            }
            Err(error) => Err(self.failed_lookup(now, hash, error)),
        }
    }

    pub(super) fn came_coinbase(
        &mut self,
        now: Now,
        result: Result<Vec<u8>, CallError>,
        hash: ShareId,
        name: &str,
        book: &mut Book,
    ) -> Result<(), CallError> {
        match result.and_then(|bytes| bitcoin::read_coinbase(&bytes, name)) {
            Ok(outputs) => {
                book.set_paid(hash, outputs);
                self.blocks.lookups.remove(&hash);
                (self.blocks.earned, self.blocks.trouble) = (None, None);
                Ok(())
            }
            Err(error) => Err(self.failed_lookup(now, hash, error)),
        }
    }

    /// Begins anew later: a block that a pruned bitcoind no longer has will not come back, so ever more rarely. That bitcoind was not there
    /// says nothing of the block.
    fn failed_lookup(&mut self, now: Now, hash: ShareId, error: CallError) -> CallError {
        let absent = matches!(
            error,
            CallError::Unreachable(_) | CallError::Open { .. } | CallError::Timeout | CallError::Busy { .. } | CallError::Stopped
        );
        if let Some(lookup) = self.blocks.lookups.get_mut(&hash).filter(|_| absent) {
            lookup.not_before = now.mono + AGAIN_AFTER;
        } else if let Some(lookup) = self.blocks.lookups.get_mut(&hash) {
            let failures = lookup.failures.saturating_add(1);
            let pause = DAILY_EVERY * 2u32.saturating_pow(failures - 1).min(144);
            *lookup = Lookup { name: None, not_before: now.mono + pause, failures };
        }
        self.blocks.trouble = Some(format!("what a found block paid is not known: {}", trouble(&self.bitcoind, &error)));
        error
    }

    fn plan_scan(&mut self, now: Now, book: &mut Book, orders: &mut Vec<Order>) {
        let (mut wanted, mut looking) = (BTreeSet::new(), false);
        for (key, account) in book.accounts() {
            if let Source::Bitcoin { address } = &account.source {
                wanted.insert(address.clone());
                looking |= is_looking(book, now, &key.user);
            }
        }
        if !self.services.bitcoind {
            return bitcoin_keys(book, &|_| true).iter().for_each(|(key, _)| book.set_trouble(key, Some(NO_BITCOIND.to_owned())));
        }
        let height = self.blocks.mined.as_ref().map_or(0, |mined| mined.height);
        self.blocks.scanned.retain(|address, _| wanted.contains(address));
        self.blocks.too_many.retain(|address, _| wanted.remove(address));
        let is_new = |address: &String| self.blocks.scanned.get(address).is_none_or(|scanned| *scanned != height);
        let mut due: Vec<_> = wanted.into_iter().filter(is_new).collect();
        let never = due.iter().any(|address| !self.blocks.scanned.contains_key(address));
        // By itself, and after all others, in case that it has fewer outputs now.
        let crowded = self.blocks.too_many.iter().filter(|(_, scanned)| **scanned != height).min_by_key(|(_, scanned)| **scanned);
        due.extend(crowded.filter(|_| due.is_empty()).map(|(address, _)| address.clone()));
        let every = if looking || never { SCAN_EVERY } else { IDLE_EVERY };
        let at = self.blocks.scan_ended.map_or(Duration::ZERO, |ended| ended + every);
        if due.is_empty() || self.is_out(|question| matches!(question, Question::Scan(..))) {
            return;
        }
        if at > now.mono {
            return self.want(at);
        }
        if self.may_ask(now, Service::Bitcoind, &self.bitcoind.clone()) {
            due.sort_by_key(|address| self.blocks.scanned.get(address).copied());
            due.truncate(self.blocks.scan_most.unwrap_or(SCAN_ADDRESSES_MAX));
            let call = bitcoin::scan(&self.bitcoind, &due);
            self.ask(Question::Scan(due, height), call, orders);
        }
    }

    pub(super) fn came_scan(
        &mut self,
        now: Now,
        result: Result<Vec<u8>, CallError>,
        addresses: &[String],
        height: u32,
        book: &mut Book,
    ) -> Result<(), CallError> {
        // However long it took: between two scans bitcoind has its time for itself.
        self.blocks.scan_ended = Some(now.mono);
        let keys = bitcoin_keys(book, &|address| addresses.contains(address));
        match result.and_then(|bytes| bitcoin::read_scan(&bytes, addresses)) {
            Ok(held) => {
                for (key, address) in keys {
                    let amount = Amount::sats(held.get(&address).copied().unwrap_or_default());
                    let holding = Holding { asset: BITCOIN.into(), place: BITCOIN.into(), amount, counted: true };
                    book.set_holdings(&key, now.wall.as_secs(), vec![holding]);
                }
                self.blocks.too_many.retain(|address, _| !held.contains_key(address));
                self.blocks.scanned.extend(held.into_keys().map(|address| (address, height)));
                self.blocks.scan_most = self.blocks.scan_most.map(|most| most * 2).filter(|most| *most < SCAN_ADDRESSES_MAX);
                Ok(())
            }
            // With one that has more outputs than fit, nothing is told of the others: it is found by halves, and asked for by itself from
            // then on. Whoever added it would else hold up all.
            Err(CallError::TooLong(_)) if addresses.len() > 1 => {
                self.blocks.scan_most = Some(addresses.len() / 2);
                Ok(())
            }
            Err(CallError::TooLong(_)) => {
                self.blocks.scan_most = None;
                self.blocks.too_many.extend(addresses.iter().map(|address| (address.clone(), height)));
                keys.iter().for_each(|(key, _)| book.set_trouble(key, Some(TOO_MANY.to_owned())));
                Ok(())
            }
            Err(error) => {
                let why = trouble(&self.bitcoind, &error);
                keys.iter().for_each(|(key, _)| book.set_trouble(key, Some(why.clone())));
                Err(error)
            }
        }
    }

    /// What miners were paid, and what the next block would pay them.
    fn tell_miners(&mut self, now: Now, book: &mut Book) {
        let Some(mined) = &self.blocks.mined else { return };
        let miners = book.accounts().filter_map(|(key, account)| match &account.source {
            Source::Miner { address } => Some((key, address.clone())),
            _ => None,
        });
        let miners: Vec<_> = miners.collect();
        if miners.is_empty() {
            return;
        }
        let earned = self.blocks.earned.get_or_insert_with(|| miners::earned(mined, book));
        let unknown = mined.blocks.iter().any(|(hash, ..)| book.paid(hash).is_none());
        let trouble = match (unknown, self.services.bitcoind) {
            (false, _) => None,
            (true, true) => self.blocks.trouble.clone().or_else(|| Some(LOOKED_UP.to_owned())),
            (true, false) => Some(format!("what found blocks paid is not known: {NO_BITCOIND}")),
        };
        for (key, address) in miners {
            let Some(script) = bitcoin::script(&address).and_then(|script| Script::from_script_pubkey(&script)) else { continue };
            let same = |of: &Source| matches!(of, Source::Bitcoin { address: other } if *other == address);
            let counted = !book.accounts_in(&key.user, key.portfolio).any(|(_, account)| same(&account.source));
            let holdings = miners::holdings(earned.get(&script).copied().unwrap_or_default(), counted);
            book.set_pending(&key, Some(miners::pending(&mined.payouts, mined.value, &script)));
            book.set_collected(&key, now.wall.as_secs(), holdings, trouble.clone());
        }
    }
}

/// Accounts of Bitcoin addresses, with the address.
fn bitcoin_keys(book: &Book, such: &dyn Fn(&String) -> bool) -> Vec<(AccountKey, String)> {
    let keys = book.accounts().filter_map(|(key, account)| match &account.source {
        Source::Bitcoin { address } if such(address) => Some((key, address.clone())),
        _ => None,
    });
    keys.collect()
}

#[cfg(test)]
impl Collector {
    /// Addresses that are scanned for no more, and how many are in a scan while one is looked for.
    pub(super) fn blocks_sought(&self) -> (usize, Option<usize>) {
        (self.blocks.too_many.len(), self.blocks.scan_most)
    }

    /// How often each lookup has failed.
    pub(super) fn blocks_tried(&self) -> Vec<u32> {
        self.blocks.lookups.values().map(|lookup| lookup.failures).collect()
    }
}
