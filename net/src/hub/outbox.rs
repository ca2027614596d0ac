//! What waits to be written to one connection, in order.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use crate::limits::{OWN_RUN_BYTES, WRITE_CONN_BYTES, WRITE_SLICES};
use crate::payload::Payload;
use crate::transport::Transport;

/// A piece of output: shared with other outboxes, or this connection's own.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Encoded once for all who get it.
    Shared(Arc<Payload>),
    /// For this connection alone.
    Own(Vec<u8>),
}

impl Entry {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Entry::Shared(payload) => payload.bytes(),
            Entry::Own(bytes) => bytes,
        }
    }
}

/// The queue of one connection. No heap memory while it is empty, and none but the entry's while it holds one.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    first: Option<Entry>,
    #[expect(clippy::box_collection, reason = "few connections have more than one entry, and each is kept small")]
    rest: Option<Box<VecDeque<Entry>>>,
    /// Bytes that are not written yet.
    bytes: u32,
    /// Bytes of the first entry that are written.
    written: u32,
    /// Entries from the front that are wire bytes already.
    sealed: u32,
}

impl Outbox {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes as usize
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Adds an entry; an empty one is nothing. Own bytes join those before them that the transport has not seen yet, up to
    /// [`OWN_RUN_BYTES`].
    pub fn push(&mut self, entry: Entry) {
        let len = entry.bytes().len();
        if len == 0 {
            return;
        }
        // An outbox is cut at `OUTBOX_HARD_BYTES` by its owner, and an entry is a message: far below 4 GiB.
        self.bytes = self.bytes.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        if let Entry::Own(bytes) = &entry
            && let Some(run) = self.run(len)
        {
            run.extend_from_slice(bytes);
        } else if self.first.is_none() {
            self.first = Some(entry);
        } else {
            self.rest.get_or_insert_default().push_back(entry);
        }
    }

    /// Adds a copy of own bytes.
    pub fn push_copy(&mut self, bytes: &[u8]) {
        if let Some(run) = self.run(bytes.len()) {
            run.extend_from_slice(bytes);
            self.bytes = self.bytes.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        } else {
            self.push(Entry::Own(bytes.to_vec()));
        }
    }

    /// The last entry, if so many own bytes may join it.
    fn run(&mut self, more: usize) -> Option<&mut Vec<u8>> {
        let unsealed = self.count() > self.sealed as usize;
        match self.last_mut() {
            Some(Entry::Own(run)) if unsealed && run.len() + more <= OWN_RUN_BYTES => Some(run),
            _ => None,
        }
    }

    /// Adds bytes of the transport's own before all that it has not made wire bytes of.
    pub fn push_sealed(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        self.bytes = self.bytes.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        match (self.sealed as usize).checked_sub(1) {
            Some(at) => self.rest.get_or_insert_default().insert(at, Entry::Own(bytes)),
            None => {
                if let Some(first) = self.first.replace(Entry::Own(bytes)) {
                    self.rest.get_or_insert_default().push_front(first);
                }
            }
        }
        self.sealed += 1;
    }

    /// Whether some of it is wire bytes already.
    pub fn is_sealed(&self) -> bool {
        self.sealed > 0
    }

    /// Makes wire bytes of as many entries as one write can take. `scratch` is anybody's, for the time of the call. Returns the bytes that
    /// had to be encrypted.
    pub fn seal(&mut self, transport: &mut Transport, scratch: &mut Vec<u8>) -> usize {
        let mut encrypted = 0;
        if !transport.is_ready() {
            return encrypted;
        }
        let (sealed, mut bytes, mut wire, mut count) = (self.sealed as usize, self.bytes as usize, 0, 0);
        for (at, entry) in self.entries_mut().enumerate().take(WRITE_SLICES) {
            if at >= sealed {
                let plain = entry.bytes().len();
                if let Some(other) = transport.seal(entry.bytes(), scratch) {
                    *entry = Entry::Own(other);
                    encrypted += plain;
                }
                bytes = bytes + entry.bytes().len() - plain;
            }
            count += 1;
            wire += entry.bytes().len();
            // Ciphertext is this connection's alone: no more of it than is written at once.
            if wire >= WRITE_CONN_BYTES {
                break;
            }
        }
        self.sealed = self.sealed.max(count);
        self.bytes = bytes as u32;
        encrypted
    }

    /// The next wire bytes, at most `budget`, as slices. Returns how many slices and their bytes.
    pub fn gather<'a>(&'a self, budget: usize, slices: &mut [IoSlice<'a>; WRITE_SLICES]) -> (usize, usize) {
        let (mut count, mut total) = (0, 0);
        for (index, entry) in self.entries().take(self.sealed as usize).enumerate().take(WRITE_SLICES) {
            let start = if index == 0 { self.written as usize } else { 0 };
            let bytes = &entry.bytes()[start..];
            let bytes = &bytes[..bytes.len().min(budget - total)];
            if bytes.is_empty() {
                break;
            }
            slices[count] = IoSlice::new(bytes);
            count += 1;
            total += bytes.len();
        }
        (count, total)
    }

    /// Drops bytes that were written.
    pub fn written(&mut self, mut n: usize) {
        self.bytes -= n as u32;
        while let Some(first) = &self.first {
            let left = first.bytes().len() - self.written as usize;
            if n < left {
                self.written += n as u32;
                return;
            }
            n -= left;
            (self.written, self.sealed) = (0, self.sealed - 1);
            self.first = self.rest.as_mut().and_then(|rest| rest.pop_front());
        }
        self.rest = None;
    }

    fn count(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.as_ref().map_or(0, |rest| rest.len())
    }

    fn last_mut(&mut self) -> Option<&mut Entry> {
        self.rest.as_mut().and_then(|rest| rest.back_mut()).or(self.first.as_mut())
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.first.iter().chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }

    fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.first.iter_mut().chain(self.rest.iter_mut().flat_map(|rest| rest.iter_mut()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(outbox: &Outbox, budget: usize) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
        let (count, total) = outbox.gather(budget, &mut slices);
        let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
        assert_eq!(bytes.len(), total);
        bytes
    }

    #[test]
    fn bytes_leave_in_order_whatever_the_pieces() {
        let shared = Arc::new(Payload::new(*b"defg"));
        for step in 1..12 {
            let mut outbox = Outbox::default();
            for entry in [
                Entry::Own(b"ab".into()),
                Entry::Own(b"c".into()),
                Entry::Own(vec![]),
                Entry::Shared(shared.clone()),
                Entry::Own(b"h".into()),
            ] {
                outbox.push(entry);
            }
            let mut out = Vec::new();
            while !outbox.is_empty() {
                outbox.seal(&mut Transport::Plain, &mut Vec::new());
                let piece = gathered(&outbox, step);
                outbox.written(piece.len());
                out.extend(piece);
            }
            assert_eq!(out, b"abcdefgh");
            assert_eq!((outbox.len(), outbox.count(), outbox.rest.is_none()), (0, 0, true));
        }
        assert_eq!(Arc::strong_count(&shared), 1);
    }

    #[test]
    fn small_answers_leave_in_one_piece_of_bounded_size() {
        let mut outbox = Outbox::default();
        (0..OWN_RUN_BYTES / 32 + 1).for_each(|_| outbox.push(Entry::Own(vec![7; 32])));
        assert_eq!(outbox.entries().map(|entry| entry.bytes().len()).collect::<Vec<_>>(), [OWN_RUN_BYTES, 32]);
        // What the transport has sealed is not added to: its packets are closed.
        outbox.seal(&mut Transport::Plain, &mut Vec::new());
        outbox.push(Entry::Own(vec![8; 32]));
        assert_eq!((outbox.count(), outbox.len()), (3, OWN_RUN_BYTES + 64));
    }

    #[test]
    fn one_write_takes_a_bounded_number_of_slices() {
        let mut outbox = Outbox::default();
        (0..WRITE_SLICES as u8 + 4).for_each(|byte| outbox.push(Entry::Shared(Arc::new(Payload::new([byte])))));
        outbox.seal(&mut Transport::Plain, &mut Vec::new());
        assert_eq!(gathered(&outbox, 1_000).len(), WRITE_SLICES);
        outbox.written(WRITE_SLICES);
        outbox.seal(&mut Transport::Plain, &mut Vec::new());
        assert_eq!(gathered(&outbox, 1_000), [16, 17, 18, 19]);
    }
}
