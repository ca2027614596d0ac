//! What one connection has said and is not cut into frames yet.

use crate::frame::{Cut, Frame, FrameError, Framer};
use crate::limits::RECEIVE_FREE_BYTES;

/// Bytes as they arrive, and the framer that cuts them. No buffer while nothing is unfinished.
#[derive(Debug)]
pub(crate) struct Received {
    pub framer: Framer,
    /// Plaintext; the first `cut` bytes are in frames already.
    bytes: Vec<u8>,
    cut: usize,
    /// Bytes that the unfinished message wants in all, as far as that is known.
    wanted: usize,
}

impl Received {
    /// Nothing yet.
    pub fn new(framer: Framer) -> Received {
        Received { framer, bytes: Vec::new(), cut: 0, wanted: 0 }
    }

    /// Bytes that are in no frame yet.
    pub fn unfinished(&self) -> usize {
        self.bytes.len() - self.cut
    }

    /// Bytes that the unfinished message wants in all.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// What is held from the pool: in steps of 4 KiB, as the buffer grows.
    pub fn pooled(&self) -> usize {
        self.bytes.len().next_multiple_of(RECEIVE_FREE_BYTES).saturating_sub(RECEIVE_FREE_BYTES)
    }

    /// Bytes that may come: to the end of the buffer's current step, and what the pool has.
    pub fn space(&self, pool_free: usize) -> usize {
        RECEIVE_FREE_BYTES + self.pooled() - self.bytes.len() + pool_free
    }

    /// The buffer, with room for `more` bytes that have arrived: doubling up to 4 KiB, from there in steps of as much.
    pub fn grow(&mut self, more: usize) -> &mut Vec<u8> {
        let wanted = self.bytes.len() + more;
        if wanted > self.bytes.capacity() {
            let fits = if wanted < RECEIVE_FREE_BYTES { wanted.next_power_of_two() } else { wanted.next_multiple_of(RECEIVE_FREE_BYTES) };
            self.bytes.reserve_exact(fits - self.bytes.len());
        }
        &mut self.bytes
    }

    /// The next frame, if all of it is there.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        while self.unfinished() > 0 {
            match self.framer.cut(&self.bytes[self.cut..])? {
                Cut::Frame { frame, used } => {
                    self.cut += used.min(self.unfinished());
                    return Ok(Some(frame));
                }
                Cut::Skip(bytes) => self.cut += bytes.min(self.unfinished()),
                Cut::Need(bytes) => {
                    self.wanted = bytes;
                    break;
                }
            }
        }
        Ok(None)
    }

    /// Drops what is cut, once that is half of the buffer, and gives back what the buffer has in excess: all of it when nothing is left.
    pub fn settle(&mut self) {
        if self.unfinished() == 0 {
            self.clear();
        } else if self.cut >= self.unfinished() {
            self.bytes.drain(..self.cut);
            self.cut = 0;
            self.bytes.shrink_to(self.bytes.len().next_multiple_of(RECEIVE_FREE_BYTES));
        }
    }

    /// Forgets all of it.
    pub fn clear(&mut self) {
        (self.bytes, self.cut, self.wanted) = (Vec::new(), 0, 0);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn received(bytes: &[u8]) -> Received {
        let mut received = Received::new(Framer::line());
        received.grow(bytes.len()).extend_from_slice(bytes);
        received
    }

    #[test]
    fn what_is_cut_is_dropped_by_halves_and_an_empty_buffer_is_none() {
        let line = [&[b'x'; 99][..], b"\n"].concat();
        let mut received = received(&line.repeat(100));
        assert_eq!((received.pooled(), received.space(0)), (2 * RECEIVE_FREE_BYTES, 3 * RECEIVE_FREE_BYTES - 10_000));
        for n in 1..=100 {
            assert!(received.next_frame().unwrap().is_some());
            received.settle();
            assert_eq!(received.unfinished(), 100 * (100 - n));
            assert!(received.bytes.len() <= 2 * received.unfinished(), "no more than half of it is cut");
            assert!(received.bytes.capacity() <= RECEIVE_FREE_BYTES + received.bytes.len());
        }
        assert_eq!((received.bytes.capacity(), received.next_frame()), (0, Ok(None)));
    }

    #[test]
    fn a_small_message_takes_a_small_buffer() {
        assert_eq!(received(b"{}\n").bytes.capacity(), 4);
        assert_eq!(received(&[b'x'; 3_000]).bytes.capacity(), RECEIVE_FREE_BYTES);
        assert_eq!(received(&[b'x'; 5_000]).bytes.capacity(), 2 * RECEIVE_FREE_BYTES);
    }
}
