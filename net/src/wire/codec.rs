//! Reading and writing of bounded, canonical values: integers little-endian, lengths as Bitcoin's CompactSize in its shortest form.

use crate::wire::WireError;

/// Reads values off the front of bytes that have arrived. Never allocates.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from their start.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { left: bytes }
    }

    /// Bytes not yet read.
    pub fn left(&self) -> usize {
        self.left.len()
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (front, rest) = self.left.split_at_checked(count).ok_or(WireError::Short { wanted: count, left: self.left.len() })?;
        self.left = rest;
        Ok(front)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (front, rest) = self.left.split_first_chunk().ok_or(WireError::Short { wanted: N, left: self.left.len() })?;
        self.left = rest;
        Ok(*front)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Sixteen bytes.
    pub fn u128(&mut self) -> Result<u128, WireError> {
        self.array().map(u128::from_le_bytes)
    }

    /// A CompactSize in its shortest form.
    pub fn compact_size(&mut self) -> Result<u64, WireError> {
        let (value, least) = match self.u8()? {
            0xfd => (u64::from(u16::from_le_bytes(self.array()?)), 0xfd),
            0xfe => (u64::from(self.u32()?), 1 << 16),
            0xff => (self.u64()?, 1 << 32),
            small => (u64::from(small), 0),
        };
        if value < least { Err(WireError::NotShortest) } else { Ok(value) }
    }

    /// How many of `what` follow: at most `max`, and no more than could lie in the bytes that are left at `each` bytes or more, so that
    /// the caller may allocate by it.
    pub fn count(&mut self, what: &'static str, max: usize, each: usize) -> Result<usize, WireError> {
        let claimed = self.compact_size()?;
        let count = usize::try_from(claimed).unwrap_or(usize::MAX);
        if count > max {
            return Err(WireError::TooMany { what, count: claimed, max });
        }
        let wanted = count.saturating_mul(each);
        if wanted > self.left() { Err(WireError::Short { wanted, left: self.left() }) } else { Ok(count) }
    }

    /// Everything is read.
    pub fn finish(self) -> Result<(), WireError> {
        if self.left.is_empty() { Ok(()) } else { Err(WireError::Trailing(self.left.len())) }
    }
}

/// Writes what [`Reader`] reads.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Nothing written, room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Writer {
        Writer { bytes: Vec::with_capacity(capacity) }
    }

    /// Bytes as they are.
    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    /// Sixteen bytes.
    pub fn u128(&mut self, value: u128) {
        self.put(&value.to_le_bytes());
    }

    /// A CompactSize in its shortest form.
    pub fn compact_size(&mut self, value: u64) {
        match value {
            0..=0xfc => self.u8(value as u8),
            0xfd..=0xffff => {
                self.u8(0xfd);
                self.put(&(value as u16).to_le_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.u8(0xfe);
                self.u32(value as u32);
            }
            _ => {
                self.u8(0xff);
                self.u64(value);
            }
        }
    }

    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_sizes_read_back_and_only_in_their_shortest_form() {
        for value in [0, 1, 0xfc, 0xfd, 0xfe, 0xff, 0x100, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
            let mut writer = Writer::default();
            writer.compact_size(value);
            let bytes = writer.into_bytes();
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.compact_size(), Ok(value));
            assert_eq!(reader.finish(), Ok(()));
            for cut in 0..bytes.len() {
                assert!(matches!(Reader::new(&bytes[..cut]).compact_size(), Err(WireError::Short { .. })), "{value} cut at {cut}");
            }
        }
        for longer in [&[0xfd, 0xfc, 0][..], &[0xfe, 0xff, 0xff, 0, 0], &[0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]] {
            assert_eq!(Reader::new(longer).compact_size(), Err(WireError::NotShortest));
        }
    }

    #[test]
    fn a_count_is_refused_before_anything_could_be_allocated_by_it() {
        let mut bytes = vec![3];
        bytes.extend([0; 96]);
        assert_eq!(Reader::new(&bytes).count("ids", 3, 32), Ok(3));
        assert_eq!(Reader::new(&bytes).count("ids", 2, 32), Err(WireError::TooMany { what: "ids", count: 3, max: 2 }));
        assert_eq!(Reader::new(&bytes[..96]).count("ids", 3, 32), Err(WireError::Short { wanted: 96, left: 95 }));
        let huge = [0xff; 9];
        assert_eq!(Reader::new(&huge).count("ids", 3, 32), Err(WireError::TooMany { what: "ids", count: u64::MAX, max: 3 }));
        assert_eq!(Reader::new(&huge).count("ids", usize::MAX, 32), Err(WireError::Short { wanted: usize::MAX, left: 0 }));
    }

    #[test]
    fn what_is_left_over_is_an_error() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.take(2), Ok(&[1, 2][..]));
        assert_eq!(reader.take(2), Err(WireError::Short { wanted: 2, left: 1 }));
        assert_eq!(reader.finish(), Err(WireError::Trailing(1)));
    }
}
