//! Rows of the node's own on their way to the disk: found blocks, peers. The chain's rows go there from the organiser.

use rockpool_store::kv::{Family, Op};
use rockpool_store::limits::{BATCH_BYTES_MAX, BATCH_OPS_MAX};
use rockpool_workers::jobs::WriteJob;

/// The way of one family's rows to the writer: one message at a time, since no ticket pays for it.
#[derive(Debug, Default)]
pub struct RowLine {
    /// Rows are out, and the word that they are stored is not back.
    out: bool,
}

impl RowLine {
    /// Whether rows are on their way: the next must wait.
    pub fn is_out(&self) -> bool {
        self.out
    }

    /// These rows as one message of batches, each written whole; none without rows.
    pub fn give(&mut self, family: Family, ops: Vec<Op>) -> Vec<WriteJob> {
        let mut jobs: Vec<WriteJob> = Vec::new();
        let mut bytes = 0;
        for op in ops {
            let size = match &op {
                Op::Put(_, key, value) => key.len() + value.len(),
                Op::Delete(_, key) => key.len(),
            };
            if jobs.last().is_none_or(|job| job.ops.len() == BATCH_OPS_MAX || bytes + size > BATCH_BYTES_MAX) {
                jobs.push(WriteJob { sync: true, ..WriteJob::default() });
                bytes = 0;
            }
            bytes += size;
            if let Some(job) = jobs.last_mut() {
                job.ops.push(op);
            }
        }
        if let Some(last) = jobs.last_mut() {
            last.ends = vec![family];
            self.out = true;
        }
        jobs
    }

    /// What was out is stored.
    pub fn credit(&mut self) {
        self.out = false;
    }
}
