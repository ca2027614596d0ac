//! Rows of the store: keys, values, what is checked when it is opened. `store/SCHEMA.md` has the tables.

use rockpool_net::id::ShareId;

use crate::error::StoreError;
use crate::kv::{Family, Kv, Op};
use crate::limits::BATCH_OPS_MAX;
use crate::params::{Network, Params, params};

/// The format that this version writes and reads. Format 1 knew no Bitcoin headers.
pub const FORMAT: u32 = 6;
/// The oldest format that a store is taken over from as it is: it only knew no found blocks, 3 no peers, 4 no figures of
/// miners, and 5 no portfolios.
pub const FORMAT_OLDEST: u32 = 2;

const FORMAT_KEY: &[u8] = b"format";
const NETWORK_KEY: &[u8] = b"network";
const TIP_KEY: &[u8] = b"tip";
const BASE_KEY: &[u8] = b"base";

/// Where the chain ends: the one row that decides what the chain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TipRow {
    /// Height of the best tied share.
    pub height: u32,
    /// Its id.
    pub id: ShareId,
    /// Height up to which the chain is confirmed.
    pub confirmed_height: u32,
    /// Id at that height.
    pub confirmed_id: ShareId,
}

impl TipRow {
    /// The change that makes it the tip.
    pub fn put(&self) -> Op {
        let mut value = Vec::with_capacity(72);
        value.extend(self.height.to_be_bytes());
        value.extend(self.id.0);
        value.extend(self.confirmed_height.to_be_bytes());
        value.extend(self.confirmed_id.0);
        Op::Put(Family::Meta, TIP_KEY.to_vec(), value)
    }

    fn parse(value: &[u8]) -> Option<TipRow> {
        let value: &[u8; 72] = value.try_into().ok()?;
        let (height, rest) = value.split_first_chunk()?;
        let (id, rest) = rest.split_first_chunk()?;
        let (confirmed_height, rest) = rest.split_first_chunk()?;
        let (confirmed_id, _) = rest.split_first_chunk()?;
        Some(TipRow {
            height: u32::from_be_bytes(*height),
            id: ShareId(*id),
            confirmed_height: u32::from_be_bytes(*confirmed_height),
            confirmed_id: ShareId(*confirmed_id),
        })
    }
}

/// Key of a share's row: height, big-endian, then id, so that a scan meets parents before their children.
pub fn share_key(height: u32, id: &ShareId) -> Vec<u8> {
    let mut key = Vec::with_capacity(36);
    key.extend(height.to_be_bytes());
    key.extend(id.0);
    key
}

/// Key of a Bitcoin header's row: height, big-endian, then hash, so that a scan meets parents before their children.
pub fn block_key(height: u32, hash: &[u8; 32]) -> Vec<u8> {
    share_key(height, &ShareId(*hash))
}

/// The change that makes the chain begin with this share.
pub fn put_base(height: u32, id: &ShareId) -> Op {
    Op::Put(Family::Meta, BASE_KEY.to_vec(), share_key(height, id))
}

/// The change that makes the chain begin with genesis.
pub fn delete_base() -> Op {
    Op::Delete(Family::Meta, BASE_KEY.to_vec())
}

/// Height and id of the lowest share that is kept; `None` for genesis, which has no row.
pub fn base(kv: &dyn Kv) -> Result<Option<(u32, ShareId)>, StoreError> {
    let Some(value) = kv.get(Family::Meta, BASE_KEY)? else { return Ok(None) };
    place_of(&value).map(Some).ok_or_else(|| StoreError::Damaged("the base row does not decode".into()))
}

/// Checks format and network of a store, or writes them to an empty one. `dir` is named in errors.
pub fn open(kv: &dyn Kv, params: &Params, dir: &str) -> Result<(), StoreError> {
    if !has_format(kv, dir)? {
        let ops = [
            Op::Put(Family::Meta, FORMAT_KEY.to_vec(), FORMAT.to_be_bytes().to_vec()),
            Op::Put(Family::Meta, NETWORK_KEY.to_vec(), network_row(params)),
        ];
        return kv.write(&ops, true);
    }
    let found = kv.get(Family::Meta, NETWORK_KEY)?.ok_or_else(no_network)?;
    if found != network_row(params) {
        return Err(StoreError::WrongNetwork { dir: dir.into(), found: name_in(&found), wanted: params.name.into() });
    }
    if kv.get(Family::Meta, FORMAT_KEY)?.is_some_and(|format| format != FORMAT.to_be_bytes()) {
        kv.write(&[Op::Put(Family::Meta, FORMAT_KEY.to_vec(), FORMAT.to_be_bytes().to_vec())], true)?;
    }
    Ok(())
}

/// Deletes the share chain and nothing else: found blocks, peers, bans, figures and portfolios stay. What a crash leaves half deleted has
/// no tip any more.
pub fn forget_chain(kv: &dyn Kv) -> Result<(), StoreError> {
    kv.write(&[Op::Delete(Family::Meta, TIP_KEY.to_vec()), delete_base()], true)?;
    for family in [Family::Shares, Family::Bitcoin, Family::Templates] {
        let mut next = Vec::new();
        loop {
            let mut ops = Vec::new();
            kv.scan(family, &next, &mut |key, _| {
                ops.push(Op::Delete(family, key.to_vec()));
                ops.len() < BATCH_OPS_MAX
            })?;
            let Some(Op::Delete(_, last)) = ops.last() else { break };
            // Not from the front again: all that is deleted would be passed over each time.
            next.clone_from(last);
            next.push(0);
            kv.write(&ops, false)?;
        }
    }
    kv.flush()
}

/// The format number that a store has, whether this version knows it or not; an empty one has none.
pub fn format(kv: &dyn Kv) -> Result<Option<u32>, StoreError> {
    let Some(format) = kv.get(Family::Meta, FORMAT_KEY)? else { return Ok(None) };
    let format = format.try_into().map_err(|_| StoreError::Damaged("the format number is not four bytes".into()))?;
    Ok(Some(u32::from_be_bytes(format)))
}

/// Whether a store has a format number, which must be ours or one that is taken over; an empty one has none. `dir` is named in errors.
pub fn has_format(kv: &dyn Kv, dir: &str) -> Result<bool, StoreError> {
    let Some(format) = format(kv)? else {
        return if is_empty(kv)? { Ok(false) } else { Err(StoreError::Damaged("there are rows, but no format number".into())) };
    };
    match format {
        FORMAT_OLDEST..=FORMAT => Ok(true),
        found => Err(StoreError::WrongFormat { dir: dir.into(), found, wanted: FORMAT }),
    }
}

/// The network that the rows are of.
pub fn network(kv: &dyn Kv) -> Result<&'static Params, StoreError> {
    let found = kv.get(Family::Meta, NETWORK_KEY)?.ok_or_else(no_network)?;
    let unknown =
        || StoreError::Damaged(format!("the network's row names {:?}, or another genesis than that network has", name_in(&found)));
    Network::ALL.into_iter().map(params).find(|params| network_row(params) == found).ok_or_else(unknown)
}

fn no_network() -> StoreError {
    StoreError::Damaged("the network's row is missing".into())
}

/// The tip row; a fresh store has none.
pub fn tip(kv: &dyn Kv) -> Result<Option<TipRow>, StoreError> {
    let Some(value) = kv.get(Family::Meta, TIP_KEY)? else { return Ok(None) };
    TipRow::parse(&value).map(Some).ok_or_else(|| StoreError::Damaged("the tip row does not decode".into()))
}

/// Calls `row` with height and bytes of every stored Bitcoin header, ascending by height; its first error ends the scan.
pub fn blocks(kv: &dyn Kv, mut row: impl FnMut(u32, &[u8; 80]) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let mut result = Ok(());
    kv.scan(Family::Bitcoin, &[], &mut |key, value| {
        result = match (place_of(key), value.try_into()) {
            (Some((height, _)), Ok(header)) => row(height, header),
            _ => Err(StoreError::Damaged("a Bitcoin header's row does not decode".into())),
        };
        result.is_ok()
    })?;
    result
}

/// Calls `row` with height, id and bytes of every stored share, ascending by height; its first error ends the scan.
pub fn shares(kv: &dyn Kv, mut row: impl FnMut(u32, ShareId, &[u8]) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let mut result = Ok(());
    kv.scan(Family::Shares, &[], &mut |key, value| {
        result = match place_of(key) {
            Some((height, id)) => row(height, id, value),
            None => Err(StoreError::Damaged(format!("a share's key has {} bytes", key.len()))),
        };
        result.is_ok()
    })?;
    result
}

/// Height and id, or hash, that a row's key stands for.
pub fn place_of(key: &[u8]) -> Option<(u32, ShareId)> {
    let key: &[u8; 36] = key.try_into().ok()?;
    let (height, rest) = key.split_first_chunk()?;
    let (id, _) = rest.split_first_chunk()?;
    Some((u32::from_be_bytes(*height), ShareId(*id)))
}

fn is_empty(kv: &dyn Kv) -> Result<bool, StoreError> {
    let mut empty = true;
    for family in Family::ALL {
        kv.scan(family, &[], &mut |_, _| {
            empty = false;
            false
        })?;
    }
    Ok(empty)
}

/// The network's name, a colon, and the id of its genesis: a network with another genesis is another network.
fn network_row(params: &Params) -> Vec<u8> {
    let mut row = format!("{}:", params.name).into_bytes();
    row.extend(params.genesis_id().0);
    row
}

fn name_in(row: &[u8]) -> String {
    let name = row.split(|byte| *byte == b':').next().unwrap_or(row);
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::kv::MemKv;

    #[test]
    fn a_store_is_opened_again_by_its_own_network_alone() {
        let kv = MemKv::new();
        open(&kv, params(Network::Regtest), "d").unwrap();
        assert_eq!(kv.unsynced(), 0, "what says whose it is has reached the disk");
        open(&kv, params(Network::Regtest), "d").unwrap();
        let error = open(&kv, params(Network::Main), "d").unwrap_err();
        assert_eq!(error.to_string(), "data directory d belongs to network regtest, not main; give another --datadir");
    }

    #[test]
    fn the_chain_is_forgotten_and_nothing_else() {
        let kv = MemKv::new();
        open(&kv, params(Network::Regtest), "d").unwrap();
        let rows = |family| {
            let mut rows = 0;
            kv.scan(family, &[], &mut |_, _| {
                rows += 1;
                true
            })
            .unwrap();
            rows
        };
        let many = 2 * BATCH_OPS_MAX as u32 + 1;
        for family in Family::ALL {
            let ops: Vec<_> = (0..many).map(|n| Op::Put(family, n.to_be_bytes().to_vec(), vec![1])).collect();
            kv.write(&ops, true).unwrap();
        }
        kv.write(&[put_base(7, &ShareId::default())], true).unwrap();
        kv.write(&[TipRow { height: 9, id: ShareId::default(), confirmed_height: 9, confirmed_id: ShareId::default() }.put()], true)
            .unwrap();
        forget_chain(&kv).unwrap();
        assert_eq!((tip(&kv).unwrap(), base(&kv).unwrap()), (None, None));
        for family in Family::ALL {
            let chain = matches!(family, Family::Shares | Family::Bitcoin | Family::Templates);
            let meta = if family == Family::Meta { 2 } else { 0 };
            assert_eq!(rows(family), if chain { 0 } else { many + meta }, "{family:?}");
        }
        open(&kv, params(Network::Regtest), "d").unwrap();
    }

    #[test]
    fn another_format_is_refused() {
        let kv = MemKv::new();
        open(&kv, params(Network::Regtest), "d").unwrap();
        for (format, says) in [(FORMAT_OLDEST - 1, "--resync"), (FORMAT + 1, "a newer version")] {
            kv.write(&[Op::Put(Family::Meta, FORMAT_KEY.to_vec(), format.to_be_bytes().to_vec())], true).unwrap();
            let error = open(&kv, params(Network::Regtest), "d").unwrap_err();
            assert!(matches!(error, StoreError::WrongFormat { found, wanted: FORMAT, .. } if found == format), "{error}");
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn a_store_of_a_format_before_is_taken_over_when_a_node_opens_it() {
        for before in FORMAT_OLDEST..FORMAT {
            let kv = MemKv::new();
            open(&kv, params(Network::Regtest), "d").unwrap();
            kv.write(&[Op::Put(Family::Meta, FORMAT_KEY.to_vec(), before.to_be_bytes().to_vec())], true).unwrap();
            assert!(has_format(&kv, "d").unwrap(), "it can be read");
            assert!(open(&kv, params(Network::Main), "d").is_err());
            assert_eq!(kv.get(Family::Meta, FORMAT_KEY).unwrap().unwrap(), before.to_be_bytes(), "what is refused stays as it is");
            open(&kv, params(Network::Regtest), "d").unwrap();
            assert_eq!(kv.get(Family::Meta, FORMAT_KEY).unwrap().unwrap(), FORMAT.to_be_bytes());
            assert_eq!(kv.unsynced(), 0);
        }
    }

    #[test]
    fn the_network_is_found_by_its_row() {
        for of in Network::ALL {
            let kv = MemKv::new();
            assert!(matches!(network(&kv), Err(StoreError::Damaged(_))));
            assert!(!has_format(&kv, "d").unwrap());
            open(&kv, params(of), "d").unwrap();
            assert!(has_format(&kv, "d").unwrap());
            assert_eq!(network(&kv).unwrap().network, of);
        }
        let kv = MemKv::new();
        kv.write(&[Op::Put(Family::Meta, NETWORK_KEY.to_vec(), b"regtest:of another genesis".to_vec())], true).unwrap();
        assert!(network(&kv).unwrap_err().to_string().contains("\"regtest\", or another genesis"));
    }

    #[test]
    fn rows_that_say_not_whose_they_are_are_damage() {
        let damage = |op: Op| {
            let kv = MemKv::new();
            open(&kv, params(Network::Regtest), "d").unwrap();
            kv.write(&[op], true).unwrap();
            assert!(matches!(open(&kv, params(Network::Regtest), "d"), Err(StoreError::Damaged(_))));
        };
        damage(Op::Delete(Family::Meta, FORMAT_KEY.to_vec()));
        damage(Op::Delete(Family::Meta, NETWORK_KEY.to_vec()));
        damage(Op::Put(Family::Meta, FORMAT_KEY.to_vec(), vec![1]));
    }

    #[test]
    fn a_tip_row_reads_as_it_was_written() {
        let kv = MemKv::new();
        assert_eq!(tip(&kv).unwrap(), None);
        let row = TipRow { height: 258, id: ShareId([1; 32]), confirmed_height: 257, confirmed_id: ShareId([2; 32]) };
        kv.write(&[row.put()], true).unwrap();
        assert_eq!(tip(&kv).unwrap(), Some(row));
    }

    #[test]
    fn keys_sort_by_height() {
        let id = ShareId([0; 32]);
        assert!(share_key(255, &ShareId([0xff; 32])) < share_key(256, &id) && share_key(256, &id) < share_key(65_536, &id));
    }
}
