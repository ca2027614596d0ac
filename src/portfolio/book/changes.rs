//! Rows that have changed, in batches.

use rockpool_store::kv::Op;
use rockpool_store::limits::ROWS_PER_BATCH;

use crate::portfolio::model::UserId;

/// Changes that are not written yet, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Changes {
    batches: Vec<Vec<Op>>,
    gone: Vec<(UserId, u32)>,
    pub(super) noted: u64,
}

impl Changes {
    /// Notes changes that belong together: where a batch has room for all of them, they are in one.
    pub(super) fn note(&mut self, ops: Vec<Op>) {
        self.noted += u64::from(!ops.is_empty());
        if let Some(last) = self.batches.last_mut()
            && last.len() + ops.len() <= ROWS_PER_BATCH
        {
            return last.extend(ops);
        }
        self.batches.extend(ops.chunks(ROWS_PER_BATCH).map(<[Op]>::to_vec));
    }

    /// Notes that a portfolio's snapshots are to be deleted.
    pub(super) fn gone(&mut self, user: UserId, portfolio: u32) {
        self.gone.push((user, portfolio));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.gone.is_empty()
    }

    pub(super) fn take(&mut self) -> Vec<Vec<Op>> {
        std::mem::take(&mut self.batches)
    }

    pub(super) fn take_gone(&mut self) -> Vec<(UserId, u32)> {
        std::mem::take(&mut self.gone)
    }
}
