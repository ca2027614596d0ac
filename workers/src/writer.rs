//! The writer: the one that changes rows. Seed 001's `StoreWriter`, with typed batches for its commands and mail for its replies.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rockpool_net::time::Now;
use rockpool_store::error::StoreError;
use rockpool_store::kv::{Family, Kv, Op};

use crate::jobs::{Answer, Output, Stage, WriteJob};
use crate::limits::{DISK_FULL_LOOK, FREE_SPACE_MIN, MEASURE_EVERY, WRITE_BYTES_MAX};

/// Writes what is queued as one batch, and tells after the commit. Holds its batches while the disk is full.
pub struct StoreWriter {
    kv: Arc<dyn Kv>,
    /// Bounded by the tickets: each message to the writer holds one.
    queue: VecDeque<WriteJob>,
    state: State,
    /// When the store's figures are taken again.
    measure: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Writes,
    /// No room: looks again at this time.
    Full(Duration),
    /// A write failed: what memory knows is ahead of the disk. The node stops.
    Failed,
}

impl StoreWriter {
    /// A writer of these rows.
    pub fn new(kv: Arc<dyn Kv>) -> StoreWriter {
        StoreWriter { kv, queue: VecDeque::new(), state: State::Writes, measure: Duration::ZERO }
    }

    /// Writes one batch of what is queued.
    fn write(&mut self, now: Now, out: &mut Output) {
        let Some(batch) = self.gather() else { return };
        let room = self.kv.free_space().and_then(|free| if free < FREE_SPACE_MIN { Err(StoreError::NoSpace) } else { Ok(()) });
        match room.and_then(|()| self.kv.write(&batch.ops, batch.sync)) {
            Ok(()) => {
                // The node gives one template at a time, and waits for the word; and so with other rows of its own.
                let template = batch.ops.iter().any(|op| matches!(op, Op::Put(Family::Templates, ..)));
                if self.state != State::Writes {
                    out.mail.push((Answer::DiskFull(false), Vec::new()));
                }
                self.state = State::Writes;
                if now.mono >= self.measure {
                    self.measure = now.mono + MEASURE_EVERY;
                    self.kv.measure();
                }
                out.mail.push((Answer::Stored { ids: batch.ids, claims: batch.claims }, batch.tickets));
                if template {
                    out.mail.push((Answer::TemplateStored, Vec::new()));
                }
                out.mail.extend(batch.ends.into_iter().map(|family| (Answer::RowsStored(family), Vec::new())));
            }
            Err(StoreError::NoSpace) => {
                self.queue.push_front(batch);
                if self.state == State::Writes {
                    out.mail.push((Answer::DiskFull(true), Vec::new()));
                }
                self.state = State::Full(now.mono + DISK_FULL_LOOK);
            }
            Err(why) => {
                self.state = State::Failed;
                out.mail.push((Answer::Died { stage: "writer", why: why.to_string() }, batch.tickets));
                self.let_go(out);
            }
        }
    }

    /// Joins what is queued, in order, up to [`WRITE_BYTES_MAX`]; synced if any part asks for it.
    fn gather(&mut self) -> Option<WriteJob> {
        let mut batch = self.queue.pop_front()?;
        let mut bytes = size(&batch.ops);
        while self.queue.front().is_some_and(|next| bytes + size(&next.ops) <= WRITE_BYTES_MAX) {
            let Some(next) = self.queue.pop_front() else { break };
            bytes += size(&next.ops);
            batch.ops.extend(next.ops);
            batch.sync |= next.sync;
            batch.ends.extend(next.ends);
            batch.ids.extend(next.ids);
            batch.claims.extend(next.claims);
            batch.tickets.extend(next.tickets);
        }
        Some(batch)
    }

    /// Lets tickets go home without a word about their rows: they are not stored and nobody is told they were.
    fn let_go(&mut self, out: &mut Output) {
        let tickets: Vec<_> = self.queue.drain(..).flat_map(|job| job.tickets).collect();
        if !tickets.is_empty() {
            out.mail.push((Answer::Stored { ids: Vec::new(), claims: Vec::new() }, tickets));
        }
    }
}

impl Stage for StoreWriter {
    type Job = WriteJob;

    fn step(&mut self, now: Now, jobs: &mut Vec<WriteJob>, out: &mut Output) {
        self.queue.extend(jobs.drain(..));
        match self.state {
            State::Writes => self.write(now, out),
            State::Full(look) if look <= now.mono => self.write(now, out),
            State::Full(_) => {}
            State::Failed => self.let_go(out),
        }
    }

    fn due(&self) -> Option<Duration> {
        match self.state {
            _ if self.queue.is_empty() => None,
            State::Writes => Some(Duration::ZERO),
            State::Full(look) => Some(look),
            State::Failed => None,
        }
    }
}

/// Bytes of a batch's rows.
pub(crate) fn size(ops: &[Op]) -> usize {
    ops.iter().map(op_size).sum()
}

/// Bytes of one command.
pub(crate) fn op_size(op: &Op) -> usize {
    match op {
        Op::Put(_, key, value) => key.len() + value.len(),
        Op::Delete(_, key) => key.len(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::sync::Mutex;

    use rockpool_net::counters::Counter;
    use rockpool_net::id::ShareId;
    use rockpool_store::kv::{Cached, MemKv};

    use super::*;
    use crate::testing::{at, claim, id, ticket};

    fn job(n: u64, sync: bool) -> WriteJob {
        let ops = vec![Op::Put(Family::Shares, n.to_be_bytes().to_vec(), vec![n as u8])];
        WriteJob { ops, sync, ids: vec![id(n)], claims: vec![claim(n as u32)], tickets: vec![ticket(n as u32)], ..WriteJob::default() }
    }

    fn step(writer: &mut StoreWriter, ms: u64, mut jobs: Vec<WriteJob>) -> Output {
        let mut out = Output::default();
        writer.step(at(ms), &mut jobs, &mut out);
        assert!(jobs.is_empty());
        out
    }

    fn stored(out: &Output) -> Vec<ShareId> {
        let ids = out.mail.iter().filter_map(|(answer, _)| if let Answer::Stored { ids, .. } = answer { Some(ids) } else { None });
        ids.flatten().copied().collect()
    }

    #[test]
    fn what_is_queued_is_one_write_synced_if_any_part_is() {
        let kv = Arc::new(MemKv::new());
        let mut writer = StoreWriter::new(kv.clone());
        let out = step(&mut writer, 0, vec![job(1, false), job(2, false)]);
        assert_eq!((stored(&out), out.mail[0].1.len(), kv.unsynced()), (vec![id(1), id(2)], 2, 1));
        step(&mut writer, 1, vec![job(3, false), job(4, true), job(5, false)]);
        assert_eq!(kv.unsynced(), 0);
        assert_eq!(kv.get(Family::Shares, &5u64.to_be_bytes()).unwrap(), Some(vec![5]));
    }

    #[test]
    fn a_write_is_bounded_and_the_rest_follows_at_once() {
        let mut writer = StoreWriter::new(Arc::new(MemKv::new()));
        let big = |n| WriteJob {
            ops: vec![Op::Put(Family::Shares, vec![n], vec![0; WRITE_BYTES_MAX / 2])],
            ids: vec![id(u64::from(n))],
            ..WriteJob::default()
        };
        assert_eq!(stored(&step(&mut writer, 0, vec![big(1), big(2), big(3)])), [id(1)]);
        assert_eq!(writer.due(), Some(Duration::ZERO));
        assert_eq!(stored(&step(&mut writer, 0, vec![])), [id(2)]);
        assert_eq!(stored(&step(&mut writer, 0, vec![])), [id(3)]);
        assert_eq!(writer.due(), None);
    }

    #[test]
    fn a_full_disk_holds_batches_and_says_so_once_until_there_is_room() {
        let kv = Arc::new(MemKv::new());
        let mut writer = StoreWriter::new(kv.clone());
        kv.set_free_space(FREE_SPACE_MIN - 1);
        let out = step(&mut writer, 0, vec![job(1, true)]);
        assert!(matches!(out.mail[..], [(Answer::DiskFull(true), _)]));
        assert!(step(&mut writer, 10, vec![job(2, false)]).mail.is_empty());
        assert_eq!(writer.due(), Some(DISK_FULL_LOOK));
        assert!(step(&mut writer, 1_000, vec![]).mail.is_empty());
        kv.set_free_space(FREE_SPACE_MIN);
        let out = step(&mut writer, 2_000, vec![]);
        assert!(matches!(out.mail[0].0, Answer::DiskFull(false)));
        assert_eq!(stored(&out), [id(1), id(2)]);
        assert_eq!(out.mail[1].1.len(), 2);
        assert_eq!(writer.due(), None);
    }

    /// A disk whose writes fail in a given way.
    struct Bad(MemKv, Mutex<Vec<StoreError>>, Counter);

    impl Kv for Bad {
        fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            self.0.get(family, key)
        }
        fn get_cached(&self, family: Family, key: &[u8]) -> Result<Cached, StoreError> {
            self.0.get_cached(family, key)
        }
        fn scan(&self, family: Family, from: &[u8], row: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
            self.0.scan(family, from, row)
        }
        fn write(&self, ops: &[Op], sync: bool) -> Result<(), StoreError> {
            self.1.lock().unwrap().pop().map_or_else(|| self.0.write(ops, sync), Err)
        }
        fn free_space(&self) -> Result<u64, StoreError> {
            self.0.free_space()
        }
        fn flush(&self) -> Result<(), StoreError> {
            self.0.flush()
        }
        fn measure(&self) {
            self.2.add(1);
        }
    }

    #[test]
    fn the_store_is_measured_at_writes_and_not_at_each() {
        let kv = Arc::new(Bad(MemKv::new(), Mutex::default(), Counter::default()));
        let (mut writer, every) = (StoreWriter::new(kv.clone()), MEASURE_EVERY.as_millis() as u64);
        let measured = [0, 1, every - 1, every, every + 1, 2 * every].map(|ms| {
            step(&mut writer, ms, vec![job(ms, true)]);
            kv.2.get()
        });
        assert_eq!((measured, writer.due()), ([1, 1, 1, 2, 2, 3], None));
    }

    #[test]
    fn rows_of_a_template_are_told_of_once_they_are_stored() {
        let kv = Arc::new(MemKv::new());
        let mut writer = StoreWriter::new(kv.clone());
        let template = || WriteJob { ops: vec![Op::Put(Family::Templates, vec![1], vec![2])], ..WriteJob::default() };
        let told = |out: &Output| out.mail.iter().filter(|(answer, _)| matches!(answer, Answer::TemplateStored)).count();
        kv.set_free_space(0);
        assert_eq!(told(&step(&mut writer, 0, vec![template()])), 0);
        kv.set_free_space(FREE_SPACE_MIN);
        assert_eq!(told(&step(&mut writer, 1_000, vec![job(1, true)])), 1);
        assert_eq!(told(&step(&mut writer, 1_000, vec![job(2, true)])), 0);
    }

    #[test]
    fn rows_of_a_family_are_told_of_when_the_last_of_them_is_stored() {
        let mut writer = StoreWriter::new(Arc::new(MemKv::new()));
        let rows = |family, ends: &[Family]| {
            let ops = vec![Op::Put(family, vec![1], vec![2])];
            WriteJob { ops, ends: ends.to_vec(), ..WriteJob::default() }
        };
        let (blocks, peers) = (|ends| rows(Family::Blocks, ends), |ends| rows(Family::Peers, ends));
        let told = |out: &Output| {
            let of = |answer: &Answer| if let Answer::RowsStored(family) = answer { Some(*family) } else { None };
            out.mail.iter().filter_map(|(answer, _)| of(answer)).collect::<Vec<_>>()
        };
        assert_eq!(told(&step(&mut writer, 0, vec![blocks(&[])])), []);
        assert_eq!(told(&step(&mut writer, 0, vec![job(1, true), blocks(&[]), blocks(&[Family::Blocks]), job(2, true)])), [Family::Blocks]);
        let both = vec![blocks(&[]), peers(&[Family::Peers]), blocks(&[Family::Blocks])];
        assert_eq!(told(&step(&mut writer, 0, both)), [Family::Peers, Family::Blocks]);
    }

    #[test]
    fn no_space_within_a_write_is_a_full_disk_too() {
        let mut writer = StoreWriter::new(Arc::new(Bad(MemKv::new(), Mutex::new(vec![StoreError::NoSpace]), Counter::default())));
        assert!(matches!(step(&mut writer, 0, vec![job(1, true)]).mail[..], [(Answer::DiskFull(true), _)]));
        assert_eq!(stored(&step(&mut writer, 1_000, vec![])), [id(1)]);
    }

    #[test]
    fn a_failed_write_ends_the_node_and_nobody_is_told_that_it_is_stored() {
        let mut writer =
            StoreWriter::new(Arc::new(Bad(MemKv::new(), Mutex::new(vec![StoreError::Disk("EIO".into())]), Counter::default())));
        let out = step(&mut writer, 0, vec![job(1, true), job(2, true)]);
        assert!(matches!(&out.mail[..], [(Answer::Died { stage: "writer", why }, tickets)] if why.contains("EIO") && tickets.len() == 2));
        // The disk works again, but what memory knows is ahead of it.
        let out = step(&mut writer, 1, vec![job(3, true)]);
        assert!(stored(&out).is_empty());
        assert!(matches!(&out.mail[..], [(Answer::Stored { claims, .. }, tickets)] if claims.is_empty() && tickets.len() == 1));
    }
}
