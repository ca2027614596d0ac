//! What is to be written: the last word on each row since the last change, cut into batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use rockpool_net::id::ShareId;

use crate::bitcoin::Block;
use crate::kv::{Family, Op};
use crate::limits::{BATCH_BYTES_MAX, BATCH_OPS_MAX};
use crate::schema::{block_key, share_key};

/// Rows that are written in one atomic step. Batches are written in the order in which they were made.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The changes, at most `BATCH_BYTES_MAX` and `BATCH_OPS_MAX`.
    pub ops: Vec<Op>,
    /// Shares whose rows it writes.
    pub ids: Vec<ShareId>,
    /// Whether it holds a share of our own miners, so that it must have reached the disk before they are told.
    pub own: bool,
}

/// The last word on a share's row.
#[derive(Debug)]
enum Row {
    Put { bytes: Arc<[u8]>, own: bool },
    Delete,
}

/// Rows to write and to delete: of shares by height, so that parents come before their children, and of Bitcoin headers.
#[derive(Debug, Default)]
pub(super) struct Rows {
    shares: BTreeMap<(u32, ShareId), Row>,
    /// Headers to write; `None` is one to delete.
    blocks: BTreeMap<(u32, [u8; 32]), Option<[u8; 80]>>,
}

impl Rows {
    pub fn put(&mut self, height: u32, id: ShareId, bytes: Arc<[u8]>, own: bool) {
        let own = own || matches!(self.shares.get(&(height, id)), Some(Row::Put { own: true, .. }));
        self.shares.insert((height, id), Row::Put { bytes, own });
    }

    /// Deleting a row that was never written does no harm.
    pub fn delete(&mut self, height: u32, id: ShareId) {
        self.shares.insert((height, id), Row::Delete);
    }

    pub fn put_block(&mut self, block: &Block) {
        self.blocks.insert((block.height, block.hash), Some(block.header));
    }

    pub fn delete_block(&mut self, block: &Block) {
        self.blocks.insert((block.height, block.hash), None);
    }

    pub fn is_empty(&self) -> bool {
        self.shares.is_empty() && self.blocks.is_empty()
    }

    /// Everything so far as batches; the shares' bytes that they write are told too. First what is new, headers before the shares that
    /// build on them, then the tip row, which alone decides what the chain is, then the deletion of what lost: a crash between any two
    /// leaves one chain or the other whole. `ends` are the rows that say where the chain begins and ends, in one batch.
    pub fn take(&mut self, ends: Vec<Op>, told: &mut Vec<(ShareId, Arc<[u8]>)>) -> Vec<Batch> {
        let mut batches = Batches::default();
        let mut losers = Vec::new();
        for ((height, hash), header) in std::mem::take(&mut self.blocks) {
            let key = block_key(height, &hash);
            match header {
                Some(header) => drop(batches.with(Op::Put(Family::Bitcoin, key, header.to_vec()))),
                None => losers.push(Op::Delete(Family::Bitcoin, key)),
            }
        }
        for ((height, id), row) in std::mem::take(&mut self.shares) {
            match row {
                Row::Put { bytes, own } => {
                    let batch = batches.with(Op::Put(Family::Shares, share_key(height, &id), bytes.to_vec()));
                    batch.ids.push(id);
                    batch.own |= own;
                    told.push((id, bytes));
                }
                Row::Delete => losers.push(Op::Delete(Family::Shares, share_key(height, &id))),
            }
        }
        if !ends.is_empty() {
            batches.with_all(ends);
        }
        // Children before parents, so that no row is ever without its parent's.
        for op in losers.into_iter().rev() {
            batches.with(op);
        }
        batches.done
    }
}

#[derive(Default)]
struct Batches {
    done: Vec<Batch>,
    /// Bytes of the last one.
    bytes: usize,
}

impl Batches {
    /// The batch that takes this change, with it: the last one, or a new one if that is full.
    fn with(&mut self, op: Op) -> &mut Batch {
        self.with_all(vec![op])
    }

    /// The same for changes that must be made at once; there are few of them.
    fn with_all(&mut self, ops: Vec<Op>) -> &mut Batch {
        let bytes: usize = ops
            .iter()
            .map(|op| match op {
                Op::Put(_, key, value) => key.len() + value.len(),
                Op::Delete(_, key) => key.len(),
            })
            .sum();
        let fits = |batch: &Batch| batch.ops.len() + ops.len() <= BATCH_OPS_MAX && self.bytes + bytes <= BATCH_BYTES_MAX;
        if !self.done.last().is_some_and(fits) {
            self.done.push(Batch::default());
            self.bytes = 0;
        }
        self.bytes += bytes;
        let last = self.done.len() - 1;
        let batch = &mut self.done[last];
        batch.ops.extend(ops);
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::TipRow;

    fn id(number: u32) -> ShareId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        ShareId(id)
    }

    fn bytes_of(batch: &Batch) -> usize {
        let bytes = |op: &Op| match op {
            Op::Put(_, key, value) => key.len() + value.len(),
            Op::Delete(_, key) => key.len(),
        };
        batch.ops.iter().map(bytes).sum()
    }

    #[test]
    fn batches_keep_both_limits() {
        for (count, size) in [(1_000, 600), (40, 100_000), (3, BATCH_BYTES_MAX - 36)] {
            let mut rows = Rows::default();
            (0..count).for_each(|number| rows.put(number, id(number), vec![1; size].into(), number == 2));
            let mut told = Vec::new();
            let batches = rows.take(Vec::new(), &mut told);
            assert!(batches.iter().all(|batch| batch.ops.len() <= BATCH_OPS_MAX && bytes_of(batch) <= BATCH_BYTES_MAX));
            let fullest = batches.iter().any(|batch| batch.ops.len() == BATCH_OPS_MAX || bytes_of(batch) + size + 36 > BATCH_BYTES_MAX);
            assert!(fullest && batches.len() > 1, "a limit is reached");
            let ids: Vec<ShareId> = batches.iter().flat_map(|batch| batch.ids.clone()).collect();
            assert_eq!(ids, (0..count).map(id).collect::<Vec<_>>(), "parents first, none lost");
            assert!(batches.iter().all(|batch| batch.own == batch.ids.contains(&id(2))), "only the batch of the own share is synced");
            assert_eq!(told.len(), count as usize);
            assert!(rows.is_empty());
        }
    }

    #[test]
    fn new_rows_then_the_tip_then_what_lost() {
        let mut rows = Rows::default();
        rows.delete(1, id(1));
        rows.delete(2, id(2));
        rows.put(3, id(3), vec![3].into(), false);
        // The last word on a row counts.
        rows.put(4, id(4), vec![4].into(), false);
        rows.delete(4, id(4));
        rows.delete(5, id(5));
        rows.put(5, id(5), vec![5].into(), false);
        let tip = TipRow { height: 5, id: id(5), confirmed_height: 3, confirmed_id: id(3) };
        let batches = rows.take(vec![tip.put()], &mut Vec::new());
        let delete = |number: u32| Op::Delete(Family::Shares, share_key(number, &id(number)));
        let put = |number: u32| Op::Put(Family::Shares, share_key(number, &id(number)), vec![number as u8]);
        assert_eq!(batches[0].ops, [put(3), put(5), tip.put(), delete(4), delete(2), delete(1)]);
        assert_eq!(batches.len(), 1);
    }
}
