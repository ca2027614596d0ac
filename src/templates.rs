//! The node's own templates, as a service (SHARECHAIN §10): what the blocks of its newest shares would have held. Served from memory, each
//! transaction kept once for all lists that name it; and put on disk as differences, one list on its way at a time.
//!
//! A list holds both ids of each transaction. So whoever has the share can check it: the txids fold to the share's branch, the wtxids to
//! its witness commitment. Fees and bodies nobody can check before the block is there, and then `getblockbody` brings them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use rockpool_net::id::ShareId;
use rockpool_net::limits::{TEMPLATE_PART_MAX, TEMPLATE_TXS_MAX};
use rockpool_net::wire::message::{GetTemplate, TemplatePart, TxIds};
use rockpool_store::kv::Op;
use rockpool_store::templates::TemplateLog;

use crate::limits::{TEMPLATES_BYTES_MAX, TEMPLATES_KEPT};

/// Bytes of a transaction in the pool: its ids, two counts, and its place in a tree whose nodes are half full.
const POOLED_BYTES: usize = size_of::<TxIds>() + 2 * size_of::<usize>() + 3 * size_of::<usize>();
/// Bytes of a transaction in a list.
const LISTED_BYTES: usize = size_of::<Arc<TxIds>>();

// The longest list is kept alone, but kept.
const _: () = assert!(TEMPLATE_TXS_MAX * (POOLED_BYTES + LISTED_BYTES) <= TEMPLATES_BYTES_MAX);

type List = Arc<Vec<Arc<TxIds>>>;

/// The lists of our newest shares.
#[derive(Debug, Default)]
pub struct Templates {
    /// Every transaction that a list names, once.
    pool: BTreeSet<Arc<TxIds>>,
    /// Shares, oldest first, with the number of the template that they were made of.
    shares: VecDeque<(ShareId, u64, List)>,
    /// Transactions of all lists, each as often as it is listed.
    listed: usize,
    /// The way to the disk.
    pub line: TemplateLine,
}

impl Templates {
    /// None yet; lists go to this log.
    pub fn new(log: TemplateLog) -> Templates {
        Templates { line: TemplateLine { log, ..TemplateLine::default() }, ..Templates::default() }
    }

    /// A confirmed share of ours, and the transactions of the template that it was made of, in their order. `sequence` tells templates
    /// apart.
    pub fn remember(&mut self, share: ShareId, sequence: u64, txs: &[TxIds]) {
        if self.shares.iter().any(|(known, ..)| *known == share) {
            return;
        }
        let same = self.shares.iter().rev().find(|(_, of, list)| *of == sequence && list.len() == txs.len());
        let list = match same {
            Some((.., list)) => Arc::clone(list),
            None => {
                let list = Arc::new(txs.iter().map(|tx| self.pooled(tx)).collect::<Vec<_>>());
                self.listed += list.len();
                self.line.waiting = Some((share, Arc::clone(&list)));
                list
            }
        };
        self.shares.push_back((share, sequence, list));
        while self.shares.len() > TEMPLATES_KEPT || self.bytes() > TEMPLATES_BYTES_MAX {
            self.forget_oldest();
        }
    }

    /// The part of a list that a peer asks for; `None` if the share is none of our newest.
    pub fn part(&self, wanted: &GetTemplate) -> Option<TemplatePart> {
        let (id, _, list) = self.shares.iter().find(|(share, ..)| *share == wanted.id)?;
        let first = (wanted.first as usize).min(list.len());
        let txs = list.iter().skip(first).take(TEMPLATE_PART_MAX).map(|tx| **tx).collect();
        Some(TemplatePart { id: *id, first: first as u32, total: list.len() as u32, txs })
    }

    /// Bytes of memory that the lists take.
    pub fn bytes(&self) -> usize {
        self.pool.len() * POOLED_BYTES + self.listed * LISTED_BYTES
    }

    fn pooled(&mut self, tx: &TxIds) -> Arc<TxIds> {
        if let Some(pooled) = self.pool.get(tx) {
            return Arc::clone(pooled);
        }
        let pooled = Arc::new(*tx);
        self.pool.insert(Arc::clone(&pooled));
        pooled
    }

    /// Forgets the oldest share, and with the last share of a list the transactions that no other list names.
    fn forget_oldest(&mut self) {
        let Some((.., list)) = self.shares.pop_front() else { return };
        if self.shares.iter().any(|(.., other)| Arc::ptr_eq(other, &list)) {
            return;
        }
        // What waits for the disk would keep its transactions beyond the cap.
        self.line.waiting.take_if(|(_, waiting)| Arc::ptr_eq(waiting, &list));
        self.listed -= list.len();
        for tx in Arc::unwrap_or_clone(list) {
            // Here and in the pool.
            if Arc::strong_count(&tx) == 2 {
                self.pool.remove(&*tx);
            }
        }
    }
}

/// The way to the disk: no ticket pays for these rows, so one list is on its way at a time. Of what comes meanwhile the newest waits.
#[derive(Debug, Default)]
pub struct TemplateLine {
    log: TemplateLog,
    waiting: Option<(ShareId, List)>,
    /// Rows are out, and the word that they are stored is not back.
    out: bool,
}

impl TemplateLine {
    /// The rows that may go out now, if any.
    pub fn take(&mut self) -> Option<Vec<Op>> {
        let (share, list) = self.waiting.take_if(|_| !self.out)?;
        self.out = true;
        let txids: Vec<[u8; 32]> = list.iter().map(|tx| tx.txid).collect();
        Some(self.log.append(&share, &txids))
    }

    /// What was out is stored.
    pub fn credit(&mut self) {
        self.out = false;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};
    use rockpool_store::kv::{Kv, MemKv};
    use rockpool_store::templates;

    fn tx(number: usize) -> TxIds {
        let txid = rockpool_net::sha256::sha256d(&number.to_le_bytes());
        TxIds { txid, wtxid: rockpool_net::sha256::sha256d(&txid) }
    }

    fn txs(numbers: impl IntoIterator<Item = usize>) -> Vec<TxIds> {
        numbers.into_iter().map(tx).collect()
    }

    fn id(number: usize) -> ShareId {
        ShareId(tx(number).wtxid)
    }

    fn served(templates: &Templates, share: usize) -> Option<Vec<TxIds>> {
        let mut all = Vec::new();
        loop {
            let part = templates.part(&GetTemplate { id: id(share), first: all.len() as u32 })?;
            assert_eq!(part.first as usize, all.len());
            all.extend(part.txs);
            if all.len() == part.total as usize {
                return Some(all);
            }
        }
    }

    /// What the counts say, from scratch.
    fn check(templates: &Templates) {
        let mut lists: Vec<&List> = templates.shares.iter().map(|(.., list)| list).collect();
        lists.sort_by_key(|list| Arc::as_ptr(list));
        lists.dedup_by(|one, other| Arc::ptr_eq(one, other));
        assert_eq!(templates.listed, lists.iter().map(|list| list.len()).sum::<usize>());
        let named: BTreeSet<&TxIds> = lists.iter().flat_map(|list| list.iter().map(|tx| &**tx)).collect();
        assert!(named.into_iter().eq(templates.pool.iter().map(|tx| &**tx)), "the pool holds what is listed and nothing else");
        assert!(templates.bytes() <= TEMPLATES_BYTES_MAX && templates.shares.len() <= TEMPLATES_KEPT);
    }

    #[test]
    fn the_newest_shares_are_served_whole_and_transactions_kept_once() {
        let mut templates = Templates::default();
        // A mempool that moves on by a tenth with every template, two shares of each.
        for share in 0..2 * TEMPLATES_KEPT {
            let from = share / 2 * 100;
            templates.remember(id(share), share as u64 / 2, &txs(from..from + 1_000));
            check(&templates);
        }
        for share in 0..2 * TEMPLATES_KEPT {
            let from = share / 2 * 100;
            let wanted = (share >= TEMPLATES_KEPT).then(|| txs(from..from + 1_000));
            assert_eq!(served(&templates, share), wanted, "share {share}");
        }
        assert_eq!((templates.pool.len(), templates.listed), (1_000 + 14 * 100, 15 * 1_000));
        let bytes = templates.bytes();
        templates.remember(id(2 * TEMPLATES_KEPT - 1), 7, &txs(0..9));
        assert_eq!(templates.bytes(), bytes, "a share is remembered once");
    }

    #[test]
    fn over_the_bytes_the_oldest_go_first() {
        let mut templates = Templates::default();
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let mut fresh = |count| -> Vec<TxIds> {
            let ids = |_| {
                let (mut txid, mut wtxid) = ([0; 32], [0; 32]);
                rng.fill_bytes(&mut txid);
                rng.fill_bytes(&mut wtxid);
                TxIds { txid, wtxid }
            };
            (0..count).map(ids).collect()
        };
        for share in 0..20 {
            templates.remember(id(share), share as u64, &fresh(10_000));
            check(&templates);
        }
        let fit = TEMPLATES_BYTES_MAX / (10_000 * (POOLED_BYTES + LISTED_BYTES));
        assert_eq!(templates.shares.len(), fit);
        let most = fresh(TEMPLATE_TXS_MAX);
        templates.remember(id(99), 99, &most);
        check(&templates);
        assert!(served(&templates, 99) == Some(most), "the longest list there can be is served in parts");
        assert_eq!(templates.shares.len(), 1);
    }

    #[test]
    fn a_part_is_bounded_and_lies_within_the_list() {
        let mut templates = Templates::default();
        templates.remember(id(1), 1, &txs(0..TEMPLATE_PART_MAX + 5));
        let part = |first| templates.part(&GetTemplate { id: id(1), first }).unwrap();
        assert_eq!((part(0).txs.len(), part(8_000).txs.len()), (TEMPLATE_PART_MAX, 5));
        assert_eq!((part(u32::MAX).first, part(u32::MAX).txs.len()), (TEMPLATE_PART_MAX as u32 + 5, 0));
        assert_eq!(templates.part(&GetTemplate { id: id(2), first: 0 }), None);
    }

    #[test]
    fn one_list_is_on_its_way_to_the_disk_and_the_newest_waits() {
        let kv = MemKv::new();
        let mut templates = Templates::new(TemplateLog::open(&kv).unwrap());
        assert_eq!(templates.line.take(), None);
        templates.remember(id(1), 1, &txs(0..50));
        let first = templates.line.take().unwrap();
        for share in 2..9 {
            templates.remember(id(share), share as u64, &txs(share..50));
            // Another share of the same template needs no row of its own.
            templates.remember(id(share + 100), share as u64, &txs(share..50));
            assert_eq!(templates.line.take(), None, "nothing goes out while the disk is busy");
        }
        kv.write(&first, false).unwrap();
        templates.line.credit();
        kv.write(&templates.line.take().unwrap(), false).unwrap();
        templates.line.credit();
        assert_eq!(templates.line.take(), None);
        let mut rows = Vec::new();
        templates::read(&kv, |share, txids| {
            rows.push((share, txids.len()));
            true
        })
        .unwrap();
        assert_eq!(rows, [(id(1), 50), (id(8), 42)]);
    }

    #[test]
    fn what_waits_for_the_disk_does_not_outlive_what_is_served() {
        let mut templates = Templates::default();
        templates.remember(id(0), 0, &txs(0..9));
        assert!(templates.line.take().is_some());
        templates.remember(id(1), 1, &txs(10..20));
        (2..2 + TEMPLATES_KEPT).for_each(|share| templates.remember(id(share), 0, &txs(0..9)));
        check(&templates);
        templates.line.credit();
        assert_eq!(templates.line.take(), None);
    }
}
