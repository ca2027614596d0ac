//! The node's own templates on disk: which transactions the blocks of its own shares would have held. The lists of seed 000, which would
//! take gigabytes whole, as differences to the list before.
//!
//! Rows stand in groups. The first row of a group is a whole list, so that reading begins anywhere with little, and the oldest group is
//! deleted as one. The newest [`TEMPLATE_GROUPS_MAX`] are kept.

use std::collections::VecDeque;

use rockpool_net::id::ShareId;
use rockpool_net::limits::TEMPLATE_TXS_MAX;
use rockpool_net::wire::WireError;
use rockpool_net::wire::codec::{Reader, Writer};

use crate::error::StoreError;
use crate::kv::{Family, Kv, Op};
use crate::limits::{TEMPLATE_GROUP_BYTES_MAX, TEMPLATE_GROUP_ROWS_MAX, TEMPLATE_GROUPS_MAX};

/// A transaction's id, bytes as hashed.
pub type Txid = [u8; 32];

const WHOLE: u8 = 0;
const DIFFERENCE: u8 = 1;

/// Makes the rows. Knows of the disk only which groups are there.
#[derive(Debug, Default)]
pub struct TemplateLog {
    /// Groups on disk, oldest first, the one being written last.
    groups: VecDeque<u32>,
    /// Rows and bytes of the one being written; no rows: the next begins another.
    rows: u32,
    bytes: usize,
    /// The list of the last row.
    last: Vec<Txid>,
}

impl TemplateLog {
    /// Goes on behind what is stored, with a group of its own.
    pub fn open(kv: &dyn Kv) -> Result<TemplateLog, StoreError> {
        let (mut groups, mut from) = (VecDeque::new(), Some(0));
        while let Some(next) = from {
            let mut found = Ok(None);
            kv.scan(Family::Templates, &key(next, 0), &mut |key, _| {
                found = place(key).map(Some);
                false
            })?;
            let group = found?.map(|(group, _)| group);
            groups.extend(group);
            from = group.and_then(|group| group.checked_add(1));
        }
        Ok(TemplateLog { groups, ..TemplateLog::default() })
    }

    /// The changes that add the list of this share's block, in the order of the block, the coinbase not counted.
    pub fn append(&mut self, share: &ShareId, txids: &[Txid]) -> Vec<Op> {
        let mut row = if self.rows == 0 { whole(share, txids) } else { shorter(share, &self.last, txids) };
        let mut ops = Vec::new();
        if self.rows == 0 || self.rows == TEMPLATE_GROUP_ROWS_MAX || self.bytes + row.len() > TEMPLATE_GROUP_BYTES_MAX {
            row = whole(share, txids);
            self.begin_group(&mut ops);
        }
        let group = self.groups.back().copied().unwrap_or_default();
        let key = key(group, self.rows);
        self.rows += 1;
        self.bytes += row.len();
        self.last = txids.to_vec();
        ops.push(Op::Put(Family::Templates, key, row));
        ops
    }

    fn begin_group(&mut self, ops: &mut Vec<Op>) {
        while self.groups.len() >= TEMPLATE_GROUPS_MAX
            && let Some(oldest) = self.groups.pop_front()
        {
            // How many rows it has nobody remembers after a restart; deleting one that is not there harms nothing.
            ops.extend((0..TEMPLATE_GROUP_ROWS_MAX).map(|row| Op::Delete(Family::Templates, key(oldest, row))));
        }
        self.groups.push_back(self.groups.back().map_or(0, |last| last.wrapping_add(1)));
        (self.rows, self.bytes) = (0, 0);
    }
}

/// Calls `list` with every share and its list, oldest first, until it returns false.
pub fn read(kv: &dyn Kv, mut list: impl FnMut(ShareId, &[Txid]) -> bool) -> Result<(), StoreError> {
    let (mut result, mut before): (_, Option<(u32, u32)>) = (Ok(()), None);
    let mut txids = Vec::new();
    kv.scan(Family::Templates, &[], &mut |key, value| {
        let read = place(key).and_then(|(group, row)| {
            let follows = before.is_some_and(|(last_group, last_row)| group == last_group && last_row.checked_add(1) == Some(row));
            before = Some((group, row));
            // A difference is to the row before it in its group.
            let base = follows.then_some(&txids[..]);
            decode(value, base).map_err(|error| StoreError::Damaged(format!("row {row} of group {group} of the templates: {error}")))
        });
        match read {
            Ok((share, read)) => {
                txids = read;
                list(share, &txids)
            }
            Err(error) => {
                result = Err(error);
                false
            }
        }
    })?;
    result
}

/// group u32 ‖ row u32, big-endian, so that a scan meets a difference behind what it differs from.
fn key(group: u32, row: u32) -> Vec<u8> {
    [group.to_be_bytes(), row.to_be_bytes()].concat()
}

fn place(key: &[u8]) -> Result<(u32, u32), StoreError> {
    let (group, row) = key
        .split_first_chunk()
        .zip(key.last_chunk())
        .filter(|_| key.len() == 8)
        .map(|((group, _), row)| (group, row))
        .ok_or_else(|| StoreError::Damaged(format!("a template's key has {} bytes", key.len())))?;
    Ok((u32::from_be_bytes(*group), u32::from_be_bytes(*row)))
}

/// The row of a whole list: share 32 · 0 · count · txids 32n.
fn whole(share: &ShareId, txids: &[Txid]) -> Vec<u8> {
    let mut writer = Writer::with_capacity(32 + 1 + 5 + 32 * txids.len());
    writer.put(&share.0);
    writer.u8(WHOLE);
    writer.compact_size(txids.len() as u64);
    txids.iter().for_each(|txid| writer.put(txid));
    writer.into_bytes()
}

/// The row of a list as its difference to the one before, or whole if that is no longer: share 32 · 1 · count · gaps of the places in the
/// old list that are gone · count · (gap of a place in the new list · txid 32)n. A gap is the distance from the place after the last one.
fn shorter(share: &ShareId, old: &[Txid], new: &[Txid]) -> Vec<u8> {
    let (removed, added) = difference(old, new);
    let mut writer = Writer::with_capacity(32 + 1 + 10 + 3 * removed.len() + 35 * added.len());
    writer.put(&share.0);
    writer.u8(DIFFERENCE);
    writer.compact_size(removed.len() as u64);
    let mut next = 0;
    for place in removed {
        writer.compact_size((place - next) as u64);
        next = place + 1;
    }
    writer.compact_size(added.len() as u64);
    next = 0;
    for place in added {
        writer.compact_size((place - next) as u64);
        writer.put(&new[place]);
        next = place + 1;
    }
    let (row, all) = (writer.into_bytes(), whole(share, new));
    if row.len() < all.len() { row } else { all }
}

/// Places in the old list that are gone and places in the new one that are new. What moved is both, as little of it as can be: what stays
/// is the longest run of the old list that the new one has in the same order.
fn difference(old: &[Txid], new: &[Txid]) -> (Vec<usize>, Vec<usize>) {
    let mut sorted: Vec<usize> = (0..new.len()).collect();
    sorted.sort_unstable_by_key(|&place| new[place]);
    let find = |txid: &Txid| sorted.binary_search_by_key(txid, |&place| new[place]).ok().map(|at| sorted[at]);
    let both: Vec<(usize, usize)> = old.iter().enumerate().filter_map(|(from, txid)| Some((from, find(txid)?))).collect();
    // Patience: `ends[n]` ends the run of length n + 1 whose end lies lowest, `before` leads back along each run.
    let (mut ends, mut before): (Vec<usize>, Vec<Option<usize>>) = (Vec::new(), Vec::with_capacity(both.len()));
    for (at, &(_, to)) in both.iter().enumerate() {
        let length = ends.partition_point(|&end| both[end].1 < to);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        match ends.get_mut(length) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let (mut gone, mut fresh) = (vec![true; old.len()], vec![true; new.len()]);
    let mut end = ends.last().copied();
    while let Some(at) = end {
        let (from, to) = both[at];
        (gone[from], fresh[to]) = (false, false);
        end = before[at];
    }
    let places = |marks: &[bool]| (0..marks.len()).filter(|&place| marks[place]).collect();
    (places(&gone), places(&fresh))
}

/// The share and the list of a row, given the list before it in its group.
fn decode(row: &[u8], before: Option<&[Txid]>) -> Result<(ShareId, Vec<Txid>), WireError> {
    let mut reader = Reader::new(row);
    let (share, kind) = (ShareId(reader.array()?), reader.u8()?);
    let txids = match (kind, before) {
        (WHOLE, _) => {
            let count = reader.count("transactions", TEMPLATE_TXS_MAX, 32)?;
            (0..count).map(|_| reader.array()).collect::<Result<_, _>>()?
        }
        (DIFFERENCE, Some(before)) => apply(&mut reader, before)?,
        (DIFFERENCE, None) => return Err(WireError::Bad("difference to nothing")),
        _ => return Err(WireError::Bad("kind of row")),
    };
    reader.finish()?;
    Ok((share, txids))
}

fn apply(reader: &mut Reader<'_>, before: &[Txid]) -> Result<Vec<Txid>, WireError> {
    let mut kept = Vec::with_capacity(before.len());
    let mut rest = before;
    for _ in 0..reader.count("removed transactions", before.len(), 1)? {
        let gap = usize::try_from(reader.compact_size()?).unwrap_or(usize::MAX);
        let (stay, behind) = rest.split_at_checked(gap).ok_or(WireError::Bad("place of a removed transaction"))?;
        let (_, behind) = behind.split_first().ok_or(WireError::Bad("place of a removed transaction"))?;
        kept.extend_from_slice(stay);
        rest = behind;
    }
    kept.extend_from_slice(rest);
    let count = reader.count("added transactions", TEMPLATE_TXS_MAX.saturating_sub(kept.len()), 33)?;
    let mut txids = Vec::with_capacity(kept.len() + count);
    let mut rest = &kept[..];
    for _ in 0..count {
        let gap = usize::try_from(reader.compact_size()?).unwrap_or(usize::MAX);
        let (stay, behind) = rest.split_at_checked(gap).ok_or(WireError::Bad("place of an added transaction"))?;
        txids.extend_from_slice(stay);
        txids.push(reader.array()?);
        rest = behind;
    }
    txids.extend_from_slice(rest);
    Ok(txids)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;
    use crate::kv::MemKv;

    fn txid(number: u32) -> Txid {
        rockpool_net::sha256::sha256d(&number.to_le_bytes())
    }

    fn id(number: u32) -> ShareId {
        ShareId(txid(number ^ 0xffff_ffff))
    }

    fn list(numbers: impl IntoIterator<Item = u32>) -> Vec<Txid> {
        numbers.into_iter().map(txid).collect()
    }

    fn all(kv: &MemKv) -> Vec<(ShareId, Vec<Txid>)> {
        let mut lists = Vec::new();
        read(kv, |share, txids| {
            lists.push((share, txids.to_vec()));
            true
        })
        .unwrap();
        lists
    }

    fn rows(kv: &MemKv) -> Vec<(u32, u32, usize)> {
        let mut rows = Vec::new();
        kv.scan(Family::Templates, &[], &mut |key, value| {
            let (group, row) = place(key).unwrap();
            rows.push((group, row, value.len()));
            true
        })
        .unwrap();
        rows
    }

    /// As mempools do it: some go, some come, some move, sometimes a block takes most.
    fn evolve(rng: &mut ChaCha12Rng, list: &mut Vec<Txid>) {
        let draw = |rng: &mut ChaCha12Rng, below: usize| rng.next_u32() as usize % below.max(1);
        match draw(rng, 12) {
            0 => list.clear(),
            1 => list.truncate(draw(rng, list.len() + 1)),
            2 => list.reverse(),
            _ => {}
        }
        for _ in 0..draw(rng, 8) {
            let at = draw(rng, list.len() + 1);
            match draw(rng, 4) {
                0 if at < list.len() => drop(list.remove(at)),
                1 if at < list.len() => {
                    let moved = list.remove(at);
                    list.insert(draw(rng, list.len() + 1), moved);
                }
                // Few numbers, so that some come back, and a few twice, which no block has and no bytes can forbid.
                _ => list.insert(at, txid(rng.next_u32() % 200)),
            }
        }
    }

    #[test]
    fn random_sequences_of_templates_read_back_across_groups_and_restarts() {
        for seed in 0..20 {
            let mut rng = ChaCha12Rng::seed_from_u64(seed);
            let (kv, mut log) = (MemKv::new(), TemplateLog::default());
            let (mut now, mut wanted) = (Vec::new(), Vec::new());
            for number in 0..400 {
                evolve(&mut rng, &mut now);
                kv.write(&log.append(&id(number), &now), false).unwrap();
                wanted.push((id(number), now.clone()));
                if rng.next_u32().is_multiple_of(100) {
                    log = TemplateLog::open(&kv).unwrap();
                }
            }
            assert!(all(&kv) == wanted, "seed {seed}");
        }
    }

    #[test]
    fn a_difference_holds_what_changed_and_no_more() {
        let old = list(0..1_000);
        let size = |new: Vec<Txid>| shorter(&id(0), &old, &new).len();
        let head = 32 + 1 + 1 + 1;
        assert_eq!(size(old.clone()), head);
        assert_eq!(size(list((0..1_000).chain([7_000]))), head + 3 + 32);
        assert_eq!(size(list((0..1_000).filter(|n| *n != 500))), head + 3);
        // One that moves from the front to the end costs itself, not all that it passed.
        assert_eq!(size(list((1..1_000).chain([0]))), head + 1 + 3 + 32);
        let other = list(5_000..5_010);
        assert_eq!(size(other.clone()), whole(&id(0), &other).len(), "where nothing stays the whole list is shorter");
    }

    #[test]
    fn groups_begin_with_a_whole_list_and_the_oldest_goes_as_one() {
        let (kv, mut log) = (MemKv::new(), TemplateLog::default());
        let most = TEMPLATE_GROUP_ROWS_MAX * TEMPLATE_GROUPS_MAX as u32;
        for number in 0..most + 1 {
            kv.write(&log.append(&id(number), &list(number..number + 5)), false).unwrap();
        }
        let rows = rows(&kv);
        assert_eq!(rows.len() as u32, most - TEMPLATE_GROUP_ROWS_MAX + 1);
        assert_eq!((rows[0].0, rows.last().unwrap().0), (1, TEMPLATE_GROUPS_MAX as u32));
        let lists = all(&kv);
        assert_eq!(lists[0], (id(TEMPLATE_GROUP_ROWS_MAX), list(TEMPLATE_GROUP_ROWS_MAX..TEMPLATE_GROUP_ROWS_MAX + 5)));
        assert_eq!(lists.last().unwrap().0, id(most));
    }

    #[test]
    fn a_group_ends_at_its_bytes_and_all_of_them_keep_to_theirs() {
        let (kv, mut log) = (MemKv::new(), TemplateLog::default());
        // Lists that share nothing, of about 320 kB: three to a group.
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        for number in 0..60 {
            let mut fresh = vec![[0; 32]; 10_000];
            fresh.iter_mut().for_each(|txid| rng.fill_bytes(txid));
            let ops = log.append(&id(number), &fresh);
            assert!(ops.len() <= crate::limits::BATCH_OPS_MAX);
            kv.write(&ops, false).unwrap();
        }
        let rows = rows(&kv);
        let bytes = |group| rows.iter().filter(|row| row.0 == group).map(|row| row.2).sum::<usize>();
        let groups: std::collections::BTreeSet<u32> = rows.iter().map(|row| row.0).collect();
        assert_eq!((groups.len(), rows.len()), (TEMPLATE_GROUPS_MAX, 3 * TEMPLATE_GROUPS_MAX));
        assert!(groups.iter().all(|group| bytes(*group) <= TEMPLATE_GROUP_BYTES_MAX));
        assert_eq!(all(&kv).last().unwrap().0, id(59));
    }

    #[test]
    fn after_a_restart_a_group_of_its_own_goes_on_behind_the_others() {
        let (kv, mut log) = (MemKv::new(), TemplateLog::default());
        for restart in 0..3 * TEMPLATE_GROUPS_MAX as u32 {
            kv.write(&log.append(&id(2 * restart), &list(0..9)), false).unwrap();
            kv.write(&log.append(&id(2 * restart + 1), &list(1..9)), false).unwrap();
            log = TemplateLog::open(&kv).unwrap();
        }
        let lists = all(&kv);
        assert_eq!(lists.len(), 2 * TEMPLATE_GROUPS_MAX);
        assert_eq!(lists.last(), Some(&(id(6 * TEMPLATE_GROUPS_MAX as u32 - 1), list(1..9))));
        // A crash keeps a prefix of what was not synced: a group without its end reads as well.
        kv.flush().unwrap();
        kv.write(&log.append(&id(1_000), &list(3..9)), false).unwrap();
        kv.write(&log.append(&id(1_001), &list(4..9)), false).unwrap();
        kv.crash(1);
        assert_eq!(all(&kv).last(), Some(&(id(1_000), list(3..9))));
    }

    #[test]
    fn arbitrary_rows_never_panic_and_damage_is_told() {
        let mut rng = ChaCha12Rng::seed_from_u64(3);
        let before = list(0..40);
        let seeds = [whole(&id(1), &list(5..30)), shorter(&id(1), &before, &list((3..20).chain(50..55).chain(25..38)))];
        let (mut read, mut refused) = (0, 0);
        for number in 0..40_000 {
            let mut row = if number % 4 == 0 { vec![0; rng.next_u32() as usize % 80] } else { seeds[number % 2].clone() };
            if number % 4 == 0 {
                rng.fill_bytes(&mut row);
            }
            for _ in 0..rng.next_u32() % 3 {
                let at = rng.next_u32() as usize % row.len().max(1);
                match rng.next_u32() % 3 {
                    0 => row.truncate(at),
                    _ if at < row.len() => row[at] = rng.next_u32() as u8,
                    _ => {}
                }
            }
            match decode(&row, Some(&before)) {
                Ok((_, list)) => {
                    assert!(list.len() <= TEMPLATE_TXS_MAX);
                    read += 1;
                }
                Err(_) => refused += 1,
            }
        }
        assert!(read > 5_000 && refused > 5_000, "{read} read, {refused} refused");
        assert_eq!(decode(&seeds[1], None), Err(WireError::Bad("difference to nothing")));
        for (key, value) in [(vec![1, 2, 3], whole(&id(1), &before)), (key(0, 1), seeds[1].clone()), (key(0, 0), vec![9; 40])] {
            let kv = MemKv::new();
            kv.write(&[Op::Put(Family::Templates, key, value)], true).unwrap();
            assert!(matches!(super::read(&kv, |_, _| true), Err(StoreError::Damaged(_))));
        }
    }

    /// Nothing is allocated by a count that could not have come: the largest list is of as many bytes as its row, or as the one before.
    #[test]
    fn a_list_is_never_longer_than_a_block_could_hold() {
        let most = list(0..TEMPLATE_TXS_MAX as u32);
        assert_eq!(decode(&whole(&id(1), &most), None), Ok((id(1), most.clone())));
        let over = list(0..TEMPLATE_TXS_MAX as u32 + 1);
        assert!(matches!(decode(&whole(&id(1), &over), None), Err(WireError::TooMany { .. })));
        let row = shorter(&id(1), &most, &over);
        assert!(matches!(decode(&row, Some(&most)), Err(WireError::TooMany { .. })));
    }
}
