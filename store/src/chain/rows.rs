//! What is to be written: the last word on each row since the last change, cut into batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use rockpool_net::id::ShareId;

use crate::kv::{Family, Op};
use crate::limits::{BATCH_BYTES_MAX, BATCH_OPS_MAX};
use crate::schema::{TipRow, share_key};

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

/// Shares' rows to write and to delete, by height, so that parents come before their children.
#[derive(Debug, Default)]
pub(super) struct Rows {
    changes: BTreeMap<(u32, ShareId), Row>,
}

impl Rows {
    pub fn put(&mut self, height: u32, id: ShareId, bytes: Vec<u8>, own: bool) {
        self.changes.insert((height, id), Row::Put { bytes: bytes.into(), own });
    }

    /// Deleting a row that was never written does no harm.
    pub fn delete(&mut self, height: u32, id: ShareId) {
        self.changes.insert((height, id), Row::Delete);
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Everything so far as batches; the shares' bytes that they write are told too. First what is new, then the tip row, which alone
    /// decides what the chain is, then the deletion of what lost: a crash between any two leaves one chain or the other whole.
    pub fn take(&mut self, tip: Option<TipRow>, told: &mut Vec<(ShareId, Arc<[u8]>)>) -> Vec<Batch> {
        let mut batches = Batches::default();
        let mut losers = Vec::new();
        for ((height, id), row) in std::mem::take(&mut self.changes) {
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
        if let Some(tip) = tip {
            batches.with(tip.put());
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
        let bytes = match &op {
            Op::Put(_, key, value) => key.len() + value.len(),
            Op::Delete(_, key) => key.len(),
        };
        let full = self.done.last().is_none_or(|batch| batch.ops.len() >= BATCH_OPS_MAX || self.bytes + bytes > BATCH_BYTES_MAX);
        if full {
            self.done.push(Batch::default());
            self.bytes = 0;
        }
        self.bytes += bytes;
        let last = self.done.len() - 1;
        let batch = &mut self.done[last];
        batch.ops.push(op);
        batch
    }
}
