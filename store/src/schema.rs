//! Rows of the store: keys, values, what is checked when it is opened. `store/SCHEMA.md` has the tables.

use rockpool_net::id::ShareId;

use crate::error::StoreError;
use crate::kv::{Family, Kv, Op};
use crate::params::Params;

/// The format that this version writes and reads.
pub const FORMAT: u32 = 1;

const FORMAT_KEY: &[u8] = b"format";
const NETWORK_KEY: &[u8] = b"network";
const TIP_KEY: &[u8] = b"tip";

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

/// Checks format and network of a store, or writes them to an empty one. `dir` is named in errors.
pub fn open(kv: &dyn Kv, params: &Params, dir: &str) -> Result<(), StoreError> {
    let network = network_row(params);
    let Some(format) = kv.get(Family::Meta, FORMAT_KEY)? else {
        if !is_empty(kv)? {
            return Err(StoreError::Damaged("there are rows, but no format number".into()));
        }
        let ops = [
            Op::Put(Family::Meta, FORMAT_KEY.to_vec(), FORMAT.to_be_bytes().to_vec()),
            Op::Put(Family::Meta, NETWORK_KEY.to_vec(), network),
        ];
        return kv.write(&ops, true);
    };
    let format = format.try_into().map_err(|_| StoreError::Damaged("the format number is not four bytes".into()))?;
    let found = u32::from_be_bytes(format);
    if found != FORMAT {
        return Err(StoreError::WrongFormat { dir: dir.into(), found, wanted: FORMAT });
    }
    let found = kv.get(Family::Meta, NETWORK_KEY)?.ok_or_else(|| StoreError::Damaged("the network's row is missing".into()))?;
    if found != network {
        let found = name_in(&found);
        return Err(StoreError::WrongNetwork { dir: dir.into(), found, wanted: name_in(&network) });
    }
    Ok(())
}

/// The tip row; a fresh store has none.
pub fn tip(kv: &dyn Kv) -> Result<Option<TipRow>, StoreError> {
    let Some(value) = kv.get(Family::Meta, TIP_KEY)? else { return Ok(None) };
    TipRow::parse(&value).map(Some).ok_or_else(|| StoreError::Damaged("the tip row does not decode".into()))
}

/// Calls `row` with height, id and bytes of every stored share, ascending by height; its first error ends the scan.
pub fn shares(kv: &dyn Kv, mut row: impl FnMut(u32, ShareId, &[u8]) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let mut result = Ok(());
    kv.scan(Family::Shares, &[], &mut |key, value| {
        result = match share_of(key) {
            Some((height, id)) => row(height, id, value),
            None => Err(StoreError::Damaged(format!("a share's key has {} bytes", key.len()))),
        };
        result.is_ok()
    })?;
    result
}

fn share_of(key: &[u8]) -> Option<(u32, ShareId)> {
    let key: &[u8; 36] = key.try_into().ok()?;
    let (height, rest) = key.split_first_chunk()?;
    let (id, _) = rest.split_first_chunk()?;
    Some((u32::from_be_bytes(*height), ShareId(*id)))
}

fn is_empty(kv: &dyn Kv) -> Result<bool, StoreError> {
    let mut empty = true;
    for family in [Family::Shares, Family::Meta] {
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
