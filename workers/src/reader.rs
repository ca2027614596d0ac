//! The reader: cold reads, so that the reactor never waits for the disk.

use std::collections::VecDeque;
use std::time::Duration;

use rockpool_net::time::Now;
use rockpool_store::handle::StoreHandle;

use crate::jobs::{Answer, Output, ReadJob, Reads, Stage};

/// Reads rows that the cache did not hold, one request a step, so that each is answered as soon as it is read.
pub struct Reader {
    store: StoreHandle,
    /// Bounded by the tickets: each job holds one.
    queue: VecDeque<ReadJob>,
}

impl Reader {
    /// A reader of these rows.
    pub fn new(store: StoreHandle) -> Reader {
        Reader { store, queue: VecDeque::new() }
    }
}

impl Stage for Reader {
    type Job = ReadJob;

    fn step(&mut self, _now: Now, jobs: &mut Vec<ReadJob>, out: &mut Output) {
        self.queue.extend(jobs.drain(..));
        let Some(ReadJob { conn, tag, rows, ticket }) = self.queue.pop_front() else { return };
        let read = match rows {
            Reads::Shares(rows) => rows.iter().map(|(height, id)| self.store.get_share(*height, id)).collect::<Result<Vec<_>, _>>(),
            Reads::Keys(family, keys) => keys.iter().map(|key| self.store.get(family, key)).collect(),
        };
        let answer = match read {
            Ok(rows) => Answer::Read { conn, tag, rows },
            Err(why) => Answer::Died { stage: "reader", why: why.to_string() },
        };
        out.mail.push((answer, vec![ticket]));
    }

    fn due(&self) -> Option<Duration> {
        (!self.queue.is_empty()).then_some(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use rockpool_store::kv::{Family, Kv, MemKv, Op};
    use rockpool_store::schema::share_key;

    use super::*;
    use crate::testing::{at, conn, id, ticket};

    #[test]
    fn rows_come_in_the_order_asked_and_each_request_is_answered_by_itself() {
        let kv = Arc::new(MemKv::new());
        kv.write(&[Op::Put(Family::Shares, share_key(5, &id(1)), vec![1]), Op::Put(Family::Shares, share_key(6, &id(2)), vec![2])], false)
            .unwrap();
        let mut reader = Reader::new(StoreHandle::new(kv));
        let job = |n: u32, rows| ReadJob { conn: conn(n), tag: u64::from(n), rows, ticket: ticket(n) };
        let keys = Reads::Keys(Family::Shares, vec![share_key(6, &id(2)), Vec::new()]);
        let mut jobs = vec![job(1, Reads::Shares(vec![(6, id(2)), (5, id(2)), (5, id(1))])), job(2, keys)];
        let mut out = Output::default();
        reader.step(at(0), &mut jobs, &mut out);
        assert_eq!(reader.due(), Some(Duration::ZERO));
        assert_eq!(out.mail.len(), 1);
        reader.step(at(0), &mut jobs, &mut out);
        assert_eq!(reader.due(), None);
        let answers: Vec<_> = out.mail.into_iter().map(|(answer, tickets)| (answer, tickets[0].conn())).collect();
        let wanted = [Some(vec![2]), None, Some(vec![1])];
        assert!(matches!(&answers[0], (Answer::Read { tag: 1, rows, .. }, home) if rows[..] == wanted && *home == conn(1)));
        assert!(matches!(&answers[1], (Answer::Read { tag: 2, rows, .. }, _) if rows[..] == [Some(vec![2]), None]));
    }
}
