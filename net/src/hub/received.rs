//! What one connection has said and is not cut into frames yet.

use rand_chacha::ChaCha12Rng;
use secp256k1::{Secp256k1, SignOnly};

use crate::frame::{Cut, Frame, FrameError, Framer};
use crate::limits::{RECEIVE_FREE_BYTES, RECEIVE_SPARE, V2_PACKET_EXTRA, V2_SKIPS_A_ROUND};
use crate::transport::Transport;
use crate::transport::v2::{Opened, V2};

/// What the bytes that are there come to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A frame.
    Frame(Frame),
    /// Nothing until more comes.
    Nothing,
    /// An exchange of keys is due: [`Received::exchange`].
    Keys,
    /// So many packets that are no frame were opened that the others have their turn.
    Enough,
}

/// Buffers of one step that nobody has at the moment: most messages are read, cut and done with in one turn.
#[derive(Debug, Default)]
pub(crate) struct Spare(Vec<Vec<u8>>);

impl Spare {
    fn keep(&mut self, mut buffer: Vec<u8>) {
        if self.0.len() < RECEIVE_SPARE && buffer.capacity() == RECEIVE_FREE_BYTES {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

/// Bytes as they arrive, and the framer that cuts them. No buffer while nothing is unfinished.
#[derive(Debug)]
pub(crate) struct Received {
    pub framer: Framer,
    /// As they came; the first `cut` bytes are in frames already.
    bytes: Vec<u8>,
    cut: usize,
    /// Bytes that the unfinished message wants in all, as far as that is known.
    wanted: usize,
    /// Bytes read from the connection and written to it so far: here, since the slab's places are small.
    pub traffic: (u64, u64),
    /// Packets that were no frame, since this was last asked.
    skipped: u32,
    /// Messages and packets that came to nothing, since the session last asked.
    pub unheard: u32,
}

impl Received {
    /// Nothing yet.
    pub fn new(framer: Framer) -> Received {
        Received { framer, bytes: Vec::new(), cut: 0, wanted: 0, skipped: 0, unheard: 0, traffic: (0, 0) }
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

    /// The buffer, with room for `more` bytes that have arrived, in steps of 4 KiB.
    pub fn grow(&mut self, more: usize, spare: &mut Spare) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = spare.0.pop().unwrap_or_default();
        }
        let wanted = self.bytes.len() + more;
        if wanted > self.bytes.capacity() {
            self.bytes.reserve_exact(wanted.next_multiple_of(RECEIVE_FREE_BYTES) - self.bytes.len());
        }
        &mut self.bytes
    }

    /// The next frame, if all of it is there.
    pub fn next_frame(&mut self, transport: &mut Transport) -> Result<Next, FrameError> {
        if let Framer::V1(v1) = &self.framer
            && !transport.decide(v1.magic(), &self.bytes[self.cut..])
        {
            return Ok(Next::Nothing);
        }
        if let Transport::V2(v2) = transport {
            return self.next_packet(v2);
        }
        while self.unfinished() > 0 {
            match self.framer.cut(&self.bytes[self.cut..])? {
                Cut::Frame { frame, used } => {
                    self.cut += used.min(self.unfinished());
                    return Ok(Next::Frame(frame));
                }
                Cut::Skip(bytes) => self.cut += bytes.min(self.unfinished()),
                Cut::Need(bytes) => {
                    self.wanted = bytes;
                    break;
                }
            }
        }
        Ok(Next::Nothing)
    }

    /// The same where the bytes come in packets, which are opened in place.
    fn next_packet(&mut self, v2: &mut V2) -> Result<Next, FrameError> {
        let Framer::V1(v1) = &mut self.framer else { return Ok(Next::Nothing) };
        for _ in 0..V2_SKIPS_A_ROUND {
            let front = &mut self.bytes[self.cut..];
            if v2.is_foreign_v1(front)
                && let Some(&magic) = front.first_chunk()
            {
                return Err(FrameError::Magic(magic));
            }
            match v2.open(v1.magic(), v1.packet_cap(), front)? {
                Opened::Need(bytes) => {
                    self.wanted = bytes;
                    return Ok(Next::Nothing);
                }
                Opened::Keys => return Ok(Next::Keys),
                Opened::Skip(bytes) => {
                    v1.nothing(bytes.saturating_sub(V2_PACKET_EXTRA))?;
                    self.cut += bytes;
                }
                Opened::Packet(contents, used) => {
                    let frame = v1.packet(contents)?;
                    self.cut += used;
                    if let Some(frame) = frame {
                        return Ok(Next::Frame(frame));
                    }
                }
            }
            self.skipped += 1;
            if self.cut == self.bytes.len() {
                return Ok(Next::Nothing);
            }
        }
        Ok(Next::Enough)
    }

    /// What is due of the exchange of keys that [`Next::Keys`] asked for. Returns what is to be sent.
    pub fn exchange(&mut self, v2: &mut V2, rng: &mut ChaCha12Rng, curve: &Secp256k1<SignOnly>) -> Result<Vec<u8>, FrameError> {
        let Framer::V1(v1) = &self.framer else { return Ok(Vec::new()) };
        Ok(v2.exchange(v1.magic(), &self.bytes[self.cut..], rng, curve)?)
    }

    /// Packets that were no frame, since this was last asked.
    pub fn take_skipped(&mut self) -> u32 {
        std::mem::take(&mut self.skipped)
    }

    /// Drops what is cut, once that is half of the buffer, and gives back what the buffer has in excess: all of it when nothing is left.
    pub fn settle(&mut self, spare: &mut Spare) {
        if self.unfinished() == 0 {
            spare.keep(std::mem::take(&mut self.bytes));
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

    fn received(bytes: &[u8], spare: &mut Spare) -> Received {
        let mut received = Received::new(Framer::line());
        received.grow(bytes.len(), spare).extend_from_slice(bytes);
        received
    }

    #[test]
    fn what_is_cut_is_dropped_by_halves_and_an_empty_buffer_is_none() {
        let line = [&[b'x'; 99][..], b"\n"].concat();
        let spare = &mut Spare::default();
        let mut received = received(&line.repeat(100), spare);
        assert_eq!((received.pooled(), received.space(0)), (2 * RECEIVE_FREE_BYTES, 3 * RECEIVE_FREE_BYTES - 10_000));
        for n in 1..=100 {
            assert!(matches!(received.next_frame(&mut Transport::Plain), Ok(Next::Frame(_))));
            received.settle(spare);
            assert_eq!(received.unfinished(), 100 * (100 - n));
            assert!(received.bytes.len() <= 2 * received.unfinished(), "no more than half of it is cut");
            assert!(received.bytes.capacity() <= RECEIVE_FREE_BYTES + received.bytes.len());
        }
        assert_eq!((received.bytes.capacity(), received.next_frame(&mut Transport::Plain)), (0, Ok(Next::Nothing)));
    }

    #[test]
    fn so_many_buffers_are_kept_for_the_next_and_no_large_one() {
        let spare = &mut Spare::default();
        let mut all: Vec<_> = (0..RECEIVE_SPARE + 3).map(|_| received(b"{}\n", spare)).collect();
        all.push(received(&[&[b'x'; RECEIVE_FREE_BYTES - 1][..], b"\n\n"].concat(), spare));
        for received in &mut all {
            let mut next = || received.next_frame(&mut Transport::Plain).unwrap();
            assert!(matches!((next(), next()), (Next::Frame(_), Next::Nothing)));
            received.settle(spare);
        }
        assert_eq!(spare.0.len(), RECEIVE_SPARE);
        assert!(spare.0.iter().all(|buffer| buffer.is_empty() && buffer.capacity() == RECEIVE_FREE_BYTES));
        assert_eq!((received(b"{}", spare).bytes.capacity(), spare.0.len()), (RECEIVE_FREE_BYTES, RECEIVE_SPARE - 1));
    }
}
