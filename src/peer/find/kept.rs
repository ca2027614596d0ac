//! What is kept of peers, on its way to the disk: anchors and bans soon, the address book now and then, and nothing where nothing has
//! changed. Cards wear out by writes.

use std::collections::BTreeMap;
use std::time::Duration;

use rockpool_store::kv::{Family, Op};
use rockpool_workers::jobs::WriteJob;

use crate::limits::{BOOK_STAMPS_EVERY, BOOK_WRITE_EVERY, KEPT_WAITING_MAX};
use crate::peer::find::book::Book;
use crate::rows::RowLine;

/// The rows that wait.
#[derive(Debug, Default)]
pub struct Kept {
    /// Where they go.
    pub line: RowLine,
    /// Those that are to go at once, by their keys.
    soon: BTreeMap<Vec<u8>, Op>,
    /// When the book may be written again.
    book: Duration,
    /// When its stamps alone may be.
    stamps: Duration,
}

impl Kept {
    /// These rows are to be written at once, in place of what waits under the same keys.
    pub fn soon(&mut self, ops: impl IntoIterator<Item = Op>) {
        for op in ops {
            let (Op::Put(_, key, _) | Op::Delete(_, key)) = &op;
            if self.soon.len() < KEPT_WAITING_MAX || self.soon.contains_key(key) {
                self.soon.insert(key.clone(), op);
            }
        }
    }

    /// The rows that may go to the disk now, as one message.
    pub fn take(&mut self, now: Duration, book: &mut Book) -> Vec<WriteJob> {
        if self.line.is_out() || self.due(book).is_none_or(|due| now < due) {
            return Vec::new();
        }
        let mut ops: Vec<Op> = std::mem::take(&mut self.soon).into_values().collect();
        let stamps = now >= self.stamps;
        if now >= self.book && (book.has_changed() || (stamps && book.has_stamps())) {
            self.book = now + BOOK_WRITE_EVERY;
            if stamps {
                self.stamps = now + BOOK_STAMPS_EVERY;
            }
            ops.extend(book.take(stamps));
        }
        self.line.give(Family::Peers, ops)
    }

    /// When something may be written, if there is anything.
    pub fn due(&self, book: &Book) -> Option<Duration> {
        if self.line.is_out() {
            None
        } else if !self.soon.is_empty() {
            Some(Duration::ZERO)
        } else if book.has_changed() {
            Some(self.book)
        } else {
            book.has_stamps().then(|| self.stamps.max(self.book))
        }
    }

    /// Everything goes to the disk with the next batch: the node stops.
    pub fn hurry(&mut self) {
        (self.book, self.stamps) = (Duration::ZERO, Duration::ZERO);
    }

    /// Whether nothing waits that is to be written at once.
    pub fn is_clean(&self) -> bool {
        self.soon.is_empty()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::net::SocketAddr;

    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::SeedableRng;
    use rockpool_store::kv::{Kv, MemKv};
    use rockpool_store::limits::BATCH_OPS_MAX;
    use rockpool_store::peers::{Ban, PeerRows, Subnet};

    use super::*;
    use crate::limits::SEEN_STEP_S;

    const NOW: u32 = 1_700_000_000;

    fn addr(number: u16) -> SocketAddr {
        let [a, b] = number.to_be_bytes();
        SocketAddr::from(([20 + a, b, 1, 1], 9_333))
    }

    fn ban(number: u32) -> Op {
        Ban { of: Subnet::host(std::net::IpAddr::V4(number.into())), until: NOW, why: "asked".into() }.put()
    }

    fn write(kept: &mut Kept, book: &mut Book, seconds: u64, kv: &MemKv) -> usize {
        let jobs = kept.take(Duration::from_secs(seconds), book);
        jobs.iter().for_each(|job| kv.write(&job.ops, job.sync).unwrap());
        assert!(jobs.iter().all(|job| job.ops.len() <= BATCH_OPS_MAX));
        kept.line.credit();
        jobs.iter().map(|job| job.ops.len()).sum()
    }

    #[test]
    fn the_book_is_written_once_a_minute_and_bans_at_once() {
        let (kv, mut kept, mut rng) = (MemKv::new(), Kept::default(), ChaCha12Rng::seed_from_u64(1));
        let mut book = Book::open(&PeerRows::default(), false, &mut rng);
        let minute = BOOK_WRITE_EVERY.as_secs();
        assert_eq!(write(&mut kept, &mut book, 0, &kv), 1, "its key");
        assert_eq!((kept.due(&book), write(&mut kept, &mut book, 9 * minute, &kv)), (None, 0), "nothing has changed");
        (0..600).for_each(|number| _ = book.add(NOW, addr(number), 0, NOW, addr(number).ip()));
        let known = book.sizes().0;
        assert_eq!(write(&mut kept, &mut book, 10 * minute, &kv), known);
        book.add(NOW, addr(5_000), 0, NOW, addr(1).ip());
        kept.soon([ban(1), ban(2), ban(1)]);
        assert_eq!((kept.due(&book), write(&mut kept, &mut book, 11 * minute - 1, &kv)), (Some(Duration::ZERO), 2));
        assert_eq!(kept.due(&book), Some(Duration::from_secs(11 * minute)));
        assert_eq!((write(&mut kept, &mut book, 11 * minute - 1, &kv), write(&mut kept, &mut book, 11 * minute, &kv)), (0, 1));
        // A stamp alone waits for its hour.
        book.left(NOW + SEEN_STEP_S, addr(5_000));
        let hour = BOOK_STAMPS_EVERY;
        assert_eq!(kept.due(&book), Some(hour));
        assert_eq!((write(&mut kept, &mut book, hour.as_secs() - 1, &kv), write(&mut kept, &mut book, hour.as_secs(), &kv)), (0, 1));
        let rows = PeerRows::open(&kv).unwrap();
        assert_eq!((rows.addrs.len(), rows.bans.len(), rows.bad.len()), (known + 1, 2, 0));
    }

    #[test]
    fn one_message_is_out_at_a_time_and_what_waits_for_a_disk_that_hangs_is_bounded() {
        let (mut kept, mut rng) = (Kept::default(), ChaCha12Rng::seed_from_u64(1));
        let mut book = Book::open(&PeerRows::default(), false, &mut rng);
        assert_eq!(kept.take(Duration::ZERO, &mut book).len(), 1);
        (0..2 * KEPT_WAITING_MAX as u32).for_each(|number| kept.soon([ban(number)]));
        assert!(kept.take(BOOK_WRITE_EVERY, &mut book).is_empty() && kept.due(&book).is_none() && !kept.is_clean());
        assert_eq!(kept.soon.len(), KEPT_WAITING_MAX);
        kept.line.credit();
        let jobs = kept.take(BOOK_WRITE_EVERY, &mut book);
        assert_eq!(jobs.iter().map(|job| job.ops.len()).sum::<usize>(), KEPT_WAITING_MAX);
        assert!(jobs.iter().all(|job| job.ops.len() <= BATCH_OPS_MAX) && jobs.last().unwrap().ends == [Family::Peers]);
        // At the end of the node nothing waits for its minute.
        kept.line.credit();
        book.add(NOW, addr(1), 0, NOW, addr(2).ip());
        assert!(kept.take(BOOK_WRITE_EVERY / 2, &mut book).is_empty());
        kept.hurry();
        assert_eq!(kept.take(BOOK_WRITE_EVERY / 2, &mut book).len(), 1);
    }
}
