//! Bodies of found blocks, as peers pull them: short ids of the transactions first, then those that are missing.

use crate::id::ShareId;
use crate::limits::{BODY_BYTES_MAX, BODY_PART_BYTES, BODY_PLACES_MAX};
use crate::wire::WireError;
use crate::wire::codec::{Reader, Writer};

/// Most bytes of the CompactSize that counts a part's bytes.
pub(super) const PART_COUNT_BYTES: usize = 5;

/// Asks for part of a stream: the short ids of a block's transactions one after the other, or transactions themselves. Where a transaction
/// of a block is meant, the coinbase is not counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetBlockBody {
    /// The block.
    pub id: ShareId,
    /// The first byte of the stream that is wanted.
    pub offset: u32,
    /// Places of the transactions that the stream is made of, ascending; none for the short ids of all.
    pub places: Vec<u16>,
}

impl GetBlockBody {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<GetBlockBody, WireError> {
        let (id, offset) = (ShareId(reader.array()?), reader.u32()?);
        let count = reader.count("places of transactions", BODY_PLACES_MAX, 2)?;
        let places = (0..count).map(|_| reader.array().map(u16::from_le_bytes)).collect::<Result<_, _>>()?;
        let wanted = GetBlockBody { id, offset, places };
        wanted.check()?;
        Ok(wanted)
    }

    pub(super) fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        self.check()?;
        writer.put(&self.id.0);
        writer.u32(self.offset);
        writer.compact_size(self.places.len() as u64);
        self.places.iter().for_each(|place| writer.put(&place.to_le_bytes()));
        Ok(())
    }

    fn check(&self) -> Result<(), WireError> {
        if self.places.len() > BODY_PLACES_MAX {
            return Err(WireError::TooMany { what: "places of transactions", count: self.places.len() as u64, max: BODY_PLACES_MAX });
        }
        if self.places.is_sorted_by(|one, next| one < next) { Ok(()) } else { Err(WireError::Bad("order of places")) }
    }
}

/// Part of such a stream, in parts of [`BODY_PART_BYTES`] but for the last: the answer to `getblockbody`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockBodyPart {
    /// The block.
    pub id: ShareId,
    /// Where in the stream these bytes begin.
    pub offset: u32,
    /// Bytes of the whole stream.
    pub total: u32,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl BlockBodyPart {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<BlockBodyPart, WireError> {
        let (id, offset, total) = (ShareId(reader.array()?), reader.u32()?, reader.u32()?);
        let bytes = reader.count("bytes of a block", BODY_PART_BYTES, 1)?;
        let part = BlockBodyPart { id, offset, total, bytes: reader.take(bytes)?.to_vec() };
        part.check()?;
        Ok(part)
    }

    pub(super) fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        self.check()?;
        writer.put(&self.id.0);
        writer.u32(self.offset);
        writer.u32(self.total);
        writer.compact_size(self.bytes.len() as u64);
        writer.put(&self.bytes);
        Ok(())
    }

    /// A part is full or ends the stream, so that nobody can make many of little.
    fn check(&self) -> Result<(), WireError> {
        let (offset, total) = (self.offset as usize, self.total as usize);
        if total > BODY_BYTES_MAX {
            return Err(WireError::TooMany { what: "bytes of a block", count: total as u64, max: BODY_BYTES_MAX });
        }
        if self.bytes.len() > BODY_PART_BYTES {
            return Err(WireError::TooMany { what: "bytes of a block", count: self.bytes.len() as u64, max: BODY_PART_BYTES });
        }
        let whole = total.checked_sub(offset).is_some_and(|left| self.bytes.len() == left.min(BODY_PART_BYTES));
        if whole { Ok(()) } else { Err(WireError::Bad("part of a block")) }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::limits::{HEADER_BYTES, UNASKED_BYTES_MAX};
    use crate::wire::command::Command;
    use crate::wire::message::Message;

    const MAGIC: [u8; 4] = [1, 2, 3, 4];

    fn part(offset: usize, total: usize, bytes: usize) -> Result<usize, WireError> {
        let (offset, total) = (offset as u32, total as u32);
        let message = Message::BlockBody(BlockBodyPart { id: ShareId([4; 32]), offset, total, bytes: vec![7; bytes] });
        let sent = message.to_bytes(MAGIC)?;
        assert_eq!(Message::decode(Command::BlockBody, &sent[HEADER_BYTES..]).as_ref(), Ok(&message));
        Ok(sent.len() - HEADER_BYTES)
    }

    #[test]
    fn a_part_is_full_or_ends_its_stream() {
        assert!(part(0, BODY_BYTES_MAX, BODY_PART_BYTES).unwrap() <= Command::BlockBody.cap());
        assert!(Command::BlockBody.cap() <= 512 << 10 && Command::BlockBody.cap() > UNASKED_BYTES_MAX);
        assert!(part(BODY_BYTES_MAX - 5, BODY_BYTES_MAX, 5).is_ok() && part(0, 0, 0).is_ok());
        let bad = Err(WireError::Bad("part of a block"));
        for (offset, total, bytes) in [(0, 10, 9), (0, 10, 0), (11, 10, 0), (0, BODY_BYTES_MAX, 5), (4, 10, 7)] {
            assert_eq!(part(offset, total, bytes), bad);
        }
        assert!(matches!(part(0, BODY_BYTES_MAX + 1, BODY_PART_BYTES), Err(WireError::TooMany { .. })));
        assert!(matches!(part(0, BODY_BYTES_MAX, BODY_PART_BYTES + 1), Err(WireError::TooMany { .. })));
    }

    #[test]
    fn places_ascend_and_are_few_enough_to_come_unasked() {
        let wanted = |places: Vec<u16>| Message::GetBlockBody(GetBlockBody { id: ShareId([4; 32]), offset: 3, places }).to_bytes(MAGIC);
        let most: Vec<u16> = (0..BODY_PLACES_MAX as u16).collect();
        assert!(wanted(most.clone()).unwrap().len() <= UNASKED_BYTES_MAX);
        assert!(matches!(wanted([most, vec![u16::MAX]].concat()), Err(WireError::TooMany { .. })));
        for places in [vec![2, 1], vec![1, 1]] {
            assert_eq!(wanted(places), Err(WireError::Bad("order of places")));
        }
        let mut bytes = wanted(vec![1, 2]).unwrap().split_off(HEADER_BYTES);
        let end = bytes.len();
        bytes[end - 2] = 0;
        assert_eq!(Message::decode(Command::GetBlockBody, &bytes), Err(WireError::Bad("order of places")));
    }
}
