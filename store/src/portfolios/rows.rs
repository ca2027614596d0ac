//! Portfolios as rows. `store/SCHEMA.md` has the table; integers in keys are big-endian, in values little-endian, texts have their length
//! before them.

use std::collections::BTreeMap;

use rockpool_net::id::ShareId;
use rockpool_net::wire::WireError;
use rockpool_net::wire::codec::{Reader, Writer};
use rockpool_net::wire::share::Script;

use super::{Account, AccountKey, Amount, Coin, Contract, Daily, Holding, Paid, Portfolio, Price, Sealed, Snapshot, Source, User, UserId};
use crate::kv::{Family, Op};
use crate::limits::{CURRENCIES_MAX, EVM_CHAINS_MAX, PAID_OUTPUTS_MAX, PORTFOLIO_TEXT_BYTES, SEALED_BYTES_MAX, SNAPSHOT_ASSETS_MAX};

const MARK: u8 = 0;
const USER: u8 = 1;
const PORTFOLIO: u8 = 2;
const ACCOUNT: u8 = 3;
const HOLDING: u8 = 4;
const PRICE: u8 = 5;
const COIN: u8 = 6;
const CONTRACT: u8 = 7;
const PAID: u8 = 8;
/// The last kind, whose rows may be many and are not kept in memory.
const SNAPSHOT: u8 = 9;

/// A row with what its key says.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// The day on which something was last done.
    Mark(Daily, u32),
    /// A user.
    User(User),
    /// A portfolio, and whose it is.
    Portfolio(UserId, Portfolio),
    /// An account, and whose it is.
    Account(UserId, Account),
    /// A holding, and of which account.
    Holding(AccountKey, Holding),
    /// A price.
    Price(Price),
    /// A top coin.
    Coin(Coin),
    /// A contract.
    Contract(Contract),
    /// A snapshot of a user's portfolio.
    Snapshot(UserId, u32, Snapshot),
    /// What a block paid.
    Paid(Paid),
}

impl Row {
    /// Its key.
    pub fn key(&self) -> Vec<u8> {
        match self {
            Row::Mark(daily, _) => vec![MARK, *daily as u8],
            Row::User(user) => key(USER, &[&user.id.0]),
            Row::Portfolio(user, portfolio) => key(PORTFOLIO, &[&user.0, &portfolio.id.to_be_bytes()]),
            Row::Account(user, Account { id, portfolio, .. }) => key(ACCOUNT, &[&user.0, &portfolio.to_be_bytes(), &id.to_be_bytes()]),
            Row::Holding(AccountKey { user, portfolio, account }, holding) => {
                let (asset, place) = (holding.asset.as_bytes(), holding.place.as_bytes());
                key(HOLDING, &[&user.0, &portfolio.to_be_bytes(), &account.to_be_bytes(), asset, &[0], place])
            }
            Row::Price(price) => key(PRICE, &[price.asset.as_bytes()]),
            Row::Coin(coin) => key(COIN, &[&coin.rank.to_be_bytes()]),
            Row::Contract(contract) => key(CONTRACT, &[&[contract.chain], &contract.address]),
            Row::Snapshot(user, portfolio, snapshot) => snapshot_key(user, *portfolio, snapshot.day),
            Row::Paid(paid) => key(PAID, &[&paid.hash.0]),
        }
    }

    /// The change that keeps it.
    pub fn put(&self) -> Op {
        let mut writer = Writer::with_capacity(64);
        match self {
            Row::Mark(_, day) => writer.u32(*day),
            Row::User(user) => {
                writer.u64(user.since);
                writer.u32(user.last_portfolio);
                writer.u32(user.last_account);
                text(&mut writer, &user.issuer);
                text(&mut writer, &user.sub);
            }
            Row::Portfolio(_, portfolio) => {
                writer.u64(portfolio.since);
                text(&mut writer, &portfolio.name);
            }
            Row::Account(_, account) => write_account(&mut writer, account),
            Row::Holding(_, holding) => {
                write_amount(&mut writer, &holding.amount);
                writer.u8(u8::from(holding.counted));
            }
            Row::Price(price) => {
                writer.u64(price.at);
                write_values(&mut writer, &price.values);
            }
            Row::Coin(coin) => [&coin.id, &coin.symbol, &coin.name].into_iter().for_each(|of| text(&mut writer, of)),
            Row::Contract(contract) => {
                // One more than they are: none is zero.
                writer.u8(contract.decimals.map_or(0, |places| places.saturating_add(1)));
                text(&mut writer, &contract.coin);
            }
            Row::Snapshot(_, _, snapshot) => {
                write_values(&mut writer, &snapshot.values);
                writer.compact_size(snapshot.assets.len() as u64);
                for (asset, amount) in &snapshot.assets {
                    text(&mut writer, asset);
                    write_amount(&mut writer, amount);
                }
            }
            Row::Paid(paid) => {
                writer.compact_size(paid.outputs.len() as u64);
                for (script, sats) in &paid.outputs {
                    writer.u8(script.type_byte());
                    writer.put(script.program());
                    writer.u64(*sats);
                }
            }
        }
        Op::Put(Family::Portfolios, self.key(), writer.into_bytes())
    }

    /// The change that forgets it.
    pub fn delete(&self) -> Op {
        Op::Delete(Family::Portfolios, self.key())
    }

    /// The row that stands under a key.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Row, WireError> {
        let (mut key, mut value) = (Reader::new(key), Reader::new(value));
        let row = Row::read(&mut key, &mut value)?;
        key.finish()?;
        value.finish()?;
        Ok(row)
    }

    fn read(key: &mut Reader<'_>, value: &mut Reader<'_>) -> Result<Row, WireError> {
        Ok(match key.u8()? {
            MARK => {
                let which = key.u8()?;
                let daily = Daily::ALL.into_iter().find(|daily| *daily as u8 == which).ok_or(WireError::Bad("mark"))?;
                Row::Mark(daily, value.u32()?)
            }
            USER => {
                let (id, since) = (UserId(key.array()?), value.u64()?);
                let (last_portfolio, last_account) = (value.u32()?, value.u32()?);
                Row::User(User { id, issuer: read_text(value)?, sub: read_text(value)?, since, last_portfolio, last_account })
            }
            PORTFOLIO => {
                let (user, id, since) = (UserId(key.array()?), number(key)?, value.u64()?);
                Row::Portfolio(user, Portfolio { id, name: read_text(value)?, since })
            }
            ACCOUNT => {
                let (user, portfolio, id) = (UserId(key.array()?), number(key)?, number(key)?);
                Row::Account(user, read_account(value, portfolio, id)?)
            }
            HOLDING => {
                let of = AccountKey { user: UserId(key.array()?), portfolio: number(key)?, account: number(key)? };
                let (asset, place) = rest(key)?
                    .split_once('\0')
                    .map(|(asset, place)| (asset.to_owned(), place.to_owned()))
                    .ok_or(WireError::Bad("holding"))?;
                let (amount, counted) = (read_amount(value)?, value.u8()?);
                Row::Holding(of, Holding { asset, place, amount, counted: flag(counted)? })
            }
            PRICE => Row::Price(Price { asset: rest(key)?, at: value.u64()?, values: read_values(value)? }),
            COIN => {
                let rank = u16::from_be_bytes(key.array()?);
                Row::Coin(Coin { rank, id: read_text(value)?, symbol: read_text(value)?, name: read_text(value)? })
            }
            CONTRACT => {
                let (chain, address, places) = (key.u8()?, key.array()?, value.u8()?);
                Row::Contract(Contract { chain, address, coin: read_text(value)?, decimals: places.checked_sub(1) })
            }
            SNAPSHOT => {
                let (user, portfolio, day) = (UserId(key.array()?), number(key)?, number(key)?);
                Row::Snapshot(user, portfolio, read_snapshot(value, day)?)
            }
            PAID => {
                let (hash, mut outputs) = (ShareId(key.array()?), Vec::new());
                for _ in 0..value.count("outputs", PAID_OUTPUTS_MAX, 29)? {
                    let kind = value.u8()?;
                    let script = Script::from_parts(kind, value.take(if kind == 0 { 20 } else { 32 })?).ok_or(WireError::Bad("script"))?;
                    outputs.push((script, value.u64()?));
                }
                Row::Paid(Paid { hash, outputs })
            }
            _ => return Err(WireError::Bad("kind")),
        })
    }
}

/// Key of a portfolio's snapshot.
pub fn snapshot_key(user: &UserId, portfolio: u32, day: u32) -> Vec<u8> {
    key(SNAPSHOT, &[&user.0, &portfolio.to_be_bytes(), &day.to_be_bytes()])
}

/// Where snapshots begin among the keys: behind all that is kept in memory.
pub const SNAPSHOTS: &[u8] = &[SNAPSHOT];

/// Whose snapshot a key stands for, and of which day, if it does.
pub fn snapshot_of(key: &[u8]) -> Option<(UserId, u32, u32)> {
    let (kind, rest) = key.split_first()?;
    let (user, rest) = rest.split_first_chunk()?;
    let (portfolio, day) = rest.split_first_chunk()?;
    let day = day.try_into().ok()?;
    (*kind == SNAPSHOT).then(|| (UserId(*user), u32::from_be_bytes(*portfolio), u32::from_be_bytes(day)))
}

/// What a snapshot's row says of values, without a look at its assets: for who reads ten years of them.
pub fn snapshot_values(row: &[u8]) -> Option<BTreeMap<String, f64>> {
    read_values(&mut Reader::new(row)).ok()
}

fn key(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![kind];
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

fn number(key: &mut Reader<'_>) -> Result<u32, WireError> {
    key.array().map(u32::from_be_bytes)
}

/// A text at the end of a key.
fn rest(key: &mut Reader<'_>) -> Result<String, WireError> {
    as_text(key.take(key.left())?, 2 * PORTFOLIO_TEXT_BYTES)
}

fn text(writer: &mut Writer, text: &str) {
    writer.compact_size(text.len() as u64);
    writer.put(text.as_bytes());
}

fn read_text(reader: &mut Reader<'_>) -> Result<String, WireError> {
    let count = reader.count("bytes of a text", PORTFOLIO_TEXT_BYTES, 1)?;
    as_text(reader.take(count)?, PORTFOLIO_TEXT_BYTES)
}

fn as_text(bytes: &[u8], max: usize) -> Result<String, WireError> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= max);
    text.map(str::to_owned).ok_or(WireError::Bad("text"))
}

fn flag(byte: u8) -> Result<bool, WireError> {
    if byte < 2 { Ok(byte == 1) } else { Err(WireError::Bad("flag")) }
}

fn write_amount(writer: &mut Writer, amount: &Amount) {
    writer.u128(amount.units);
    writer.u8(amount.decimals);
}

fn read_amount(reader: &mut Reader<'_>) -> Result<Amount, WireError> {
    Ok(Amount { units: reader.u128()?, decimals: reader.u8()? })
}

fn write_values(writer: &mut Writer, values: &BTreeMap<String, f64>) {
    writer.compact_size(values.len() as u64);
    for (currency, value) in values {
        text(writer, currency);
        writer.u64(value.to_bits());
    }
}

fn read_values(reader: &mut Reader<'_>) -> Result<BTreeMap<String, f64>, WireError> {
    let mut values = BTreeMap::new();
    for _ in 0..reader.count("currencies", CURRENCIES_MAX, 9)? {
        let (currency, value) = (read_text(reader)?, f64::from_bits(reader.u64()?));
        if !value.is_finite() {
            return Err(WireError::Bad("value"));
        }
        values.insert(currency, value);
    }
    Ok(values)
}

fn read_snapshot(value: &mut Reader<'_>, day: u32) -> Result<Snapshot, WireError> {
    let (values, mut assets) = (read_values(value)?, Vec::new());
    for _ in 0..value.count("assets", SNAPSHOT_ASSETS_MAX, 18)? {
        assets.push((read_text(value)?, read_amount(value)?));
    }
    Ok(Snapshot { day, values, assets })
}

fn write_account(writer: &mut Writer, account: &Account) {
    writer.u64(account.since);
    writer.u64(account.checked.unwrap_or(0));
    text(writer, &account.name);
    text(writer, account.trouble.as_deref().unwrap_or_default());
    match &account.source {
        Source::Bitcoin { address } => {
            writer.u8(0);
            text(writer, address);
        }
        Source::Evm { address, chains } => {
            writer.u8(1);
            writer.put(address);
            writer.compact_size(chains.len() as u64);
            writer.put(chains);
        }
        Source::Okx { sealed } => {
            writer.u8(2);
            writer.compact_size(sealed.0.len() as u64);
            writer.put(&sealed.0);
        }
        Source::Miner { address } => {
            writer.u8(3);
            text(writer, address);
        }
    }
}

fn read_account(value: &mut Reader<'_>, portfolio: u32, id: u32) -> Result<Account, WireError> {
    let (since, checked) = (value.u64()?, value.u64()?);
    let (name, trouble) = (read_text(value)?, read_text(value)?);
    let source = match value.u8()? {
        0 => Source::Bitcoin { address: read_text(value)? },
        1 => {
            let (address, count) = (value.array()?, value.count("chains", EVM_CHAINS_MAX, 1)?);
            Source::Evm { address, chains: value.take(count)?.to_vec() }
        }
        2 => {
            let count = value.count("bytes of sealed keys", SEALED_BYTES_MAX, 1)?;
            Source::Okx { sealed: Sealed(value.take(count)?.to_vec()) }
        }
        3 => Source::Miner { address: read_text(value)? },
        _ => return Err(WireError::Bad("source")),
    };
    let (checked, trouble) = (Some(checked).filter(|at| *at > 0), Some(trouble).filter(|why| !why.is_empty()));
    Ok(Account { id, portfolio, name, since, source, checked, trouble })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    const USER: UserId = UserId([7; 16]);

    fn values(count: usize) -> BTreeMap<String, f64> {
        (0..count).map(|n| (format!("c{n}"), n as f64 / 3.0)).collect()
    }

    fn account(source: Source) -> Row {
        let (name, trouble) = ("n".repeat(PORTFOLIO_TEXT_BYTES), Some("no answer in time".into()));
        Row::Account(USER, Account { id: 3, portfolio: 2, name, since: 5, source, checked: Some(6), trouble })
    }

    /// One of each kind, with as much in it as there may be.
    fn rows() -> Vec<Row> {
        let amount = Amount { units: u128::MAX, decimals: 18 };
        let outputs = |count| {
            (0..count).map(|n| (Script::from_parts((n % 2) as u8, &[9; 32][..if n % 2 == 0 { 20 } else { 32 }]).unwrap(), n as u64))
        };
        let assets = (0..SNAPSHOT_ASSETS_MAX).map(|n| (format!("a{n}"), amount)).collect();
        let of = AccountKey { user: USER, portfolio: 2, account: 3 };
        vec![
            Row::Mark(Daily::Snapshots, 20_000),
            Row::User(User { id: USER, issuer: "i".into(), sub: "s".into(), since: 1, last_portfolio: 2, last_account: 3 }),
            Row::Portfolio(USER, Portfolio { id: 2, name: "main".into(), since: 4 }),
            account(Source::Bitcoin { address: "bc1q".into() }),
            account(Source::Evm { address: [8; 20], chains: (0..EVM_CHAINS_MAX as u8).collect() }),
            account(Source::Okx { sealed: Sealed(vec![1; SEALED_BYTES_MAX]) }),
            account(Source::Miner { address: "bc1p".into() }),
            Row::Holding(of, Holding { asset: "evm:base:0x00".into(), place: "base".into(), amount, counted: true }),
            Row::Price(Price { asset: "bitcoin".into(), at: 9, values: values(CURRENCIES_MAX) }),
            Row::Coin(Coin { rank: 1, id: "bitcoin".into(), symbol: "btc".into(), name: "Bitcoin".into() }),
            Row::Contract(Contract { chain: 1, address: [3; 20], coin: "usd-coin".into(), decimals: Some(6) }),
            Row::Contract(Contract { chain: 1, address: [4; 20], coin: "x".into(), decimals: None }),
            Row::Paid(Paid { hash: ShareId([2; 32]), outputs: outputs(PAID_OUTPUTS_MAX).collect() }),
            Row::Snapshot(USER, 2, Snapshot { day: 20_000, values: values(2), assets }),
        ]
    }

    fn parts(op: Op) -> (Vec<u8>, Vec<u8>) {
        let Op::Put(Family::Portfolios, key, value) = op else { panic!("no row of portfolios") };
        (key, value)
    }

    #[test]
    fn rows_read_as_they_were_written_and_nothing_else_does() {
        let mut keys = Vec::new();
        for row in rows() {
            let (key, value) = parts(row.put());
            assert_eq!(row.delete(), Op::Delete(Family::Portfolios, key.clone()));
            assert_eq!(Row::decode(&key, &value), Ok(row.clone()));
            for cut in 0..value.len() {
                assert_ne!(Row::decode(&key, &value[..cut]), Ok(row.clone()), "{row:?}");
            }
            assert!(Row::decode(&key, &[&value[..], &[0]].concat()).is_err(), "{row:?}");
            keys.push(key);
        }
        assert!(keys.is_sorted() && keys.last().is_some_and(|last| last.as_slice() > SNAPSHOTS), "in the order in which they are read");
        assert_eq!(snapshot_of(&snapshot_key(&USER, 2, 3)), Some((USER, 2, 3)));
        assert_eq!(snapshot_of(&keys[1]), None);
        assert!(!format!("{:?}", rows()).contains("[1, 1, 1"), "sealed keys are not shown");
    }

    #[test]
    fn what_is_too_much_does_not_decode() {
        let value = |count: usize| values(count);
        for row in [
            Row::Price(Price { asset: "b".into(), at: 9, values: value(CURRENCIES_MAX + 1) }),
            Row::Price(Price { asset: "b".into(), at: 9, values: BTreeMap::from([("usd".into(), f64::NAN)]) }),
            Row::Snapshot(
                USER,
                1,
                Snapshot { day: 1, values: value(1), assets: vec![("a".into(), Amount::sats(1)); SNAPSHOT_ASSETS_MAX + 1] },
            ),
            Row::Paid(Paid { hash: ShareId([2; 32]), outputs: vec![(Script::from_parts(0, &[1; 20]).unwrap(), 1); PAID_OUTPUTS_MAX + 1] }),
            account(Source::Evm { address: [8; 20], chains: vec![0; EVM_CHAINS_MAX + 1] }),
            account(Source::Okx { sealed: Sealed(vec![1; SEALED_BYTES_MAX + 1]) }),
            Row::Portfolio(USER, Portfolio { id: 1, name: "n".repeat(PORTFOLIO_TEXT_BYTES + 1), since: 1 }),
        ] {
            let (key, value) = parts(row.put());
            assert!(Row::decode(&key, &value).is_err(), "{row:?}");
        }
    }

    #[test]
    fn garbage_never_panics() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let mut good = 0;
        for _ in 0..20_000 {
            let rows = rows();
            let (mut key, mut value) = parts(rows[rng.next_u32() as usize % rows.len()].put());
            for bytes in [&mut key, &mut value] {
                let at = rng.next_u32() as usize % bytes.len();
                bytes[at] ^= (rng.next_u32() % 256) as u8;
                if rng.next_u32() % 4 == 0 {
                    bytes.truncate(at);
                }
            }
            // What decodes is written as it was read.
            if let Ok(row) = Row::decode(&key, &value) {
                good += 1;
                assert_eq!(Row::decode(&parts(row.put()).0, &parts(row.put()).1).map_err(|_| row.key()), Ok(row));
            }
        }
        assert!(good > 1_000, "{good}");
    }
}
