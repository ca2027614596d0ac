use super::*;
use crate::kv::Op;
use crate::limits::SIDE_MAX;
use crate::rules::target::hash_meets;
use crate::schema::{FORMAT_OLDEST, block_key, share_key};
use crate::testing::{ShareBuilder, least_time};

/// Heights of the chain that most tests damage.
const HEIGHTS: u32 = 40;

fn regtest() -> &'static Params {
    params(Network::Regtest)
}

fn build() -> ShareBuilder {
    ShareBuilder::new(regtest())
}

/// A Bitcoin header of regtest that meets its bits.
fn header_on(prev: [u8; 32], time: u32) -> [u8; 80] {
    let mut header = [0; 80];
    header[..4].copy_from_slice(&0x2000_0000u32.to_le_bytes());
    header[4..36].copy_from_slice(&prev);
    header[68..72].copy_from_slice(&time.to_le_bytes());
    header[72..76].copy_from_slice(&0x207f_ffffu32.to_le_bytes());
    let nonce = (0u32..).find(|nonce| {
        header[76..].copy_from_slice(&nonce.to_le_bytes());
        hash_meets(&sha256d(&header), 0x207f_ffff)
    });
    header[76..].copy_from_slice(&nonce.unwrap().to_le_bytes());
    header
}

/// A store, the chain that wrote it, and what is in it.
struct Made {
    kv: MemKv,
    chain: Chain,
    /// The best chain, from height 1 on.
    shares: Vec<Share>,
    /// Uncles that it credits.
    uncles: Vec<Share>,
    headers: Vec<[u8; 80]>,
}

impl Made {
    /// Genesis, and three Bitcoin headers.
    fn new() -> Made {
        let kv = MemKv::new();
        schema::open(&kv, regtest(), "d").unwrap();
        let mut chain = Chain::open(regtest(), [1, 2], &kv).unwrap();
        let mut headers = Vec::new();
        let mut prev = regtest().genesis().bitcoin_prev();
        for n in 1..=3 {
            let header = header_on(prev, regtest().genesis().time + n);
            prev = sha256d(&header);
            headers.push(header);
        }
        assert_eq!(chain.offer_blocks(&headers).new.len(), 3);
        Made { kv, chain, shares: Vec::new(), uncles: Vec::new(), headers }
    }

    /// So many heights of four miners, each fifth with an uncle.
    fn of(heights: u32) -> Made {
        Made::with(heights, 5)
    }

    /// So many heights of four miners. Every so many have a sibling that the next one credits; from height 10 on they build on the newest
    /// Bitcoin header.
    fn with(heights: u32, every: u32) -> Made {
        let mut made = Made::new();
        let mut uncle: Option<Share> = None;
        for height in 1..=heights {
            let tip = made.chain.tip().id;
            let mut builder = build().miner(height as u8 % 4);
            if height == 10 {
                let prev = sha256d(&made.headers[2]);
                builder = builder.bitcoin(prev, 4, 0x207f_ffff);
            }
            if let Some(uncle) = uncle.take() {
                builder = builder.uncles(&[uncle.id()]);
                made.uncles.push(uncle);
            }
            let share = builder.build(&made.chain, &tip);
            if height % every == 0 && height < heights {
                uncle = Some(build().miner(9).salt(7).build(&made.chain, &tip));
            }
            made.take(&share);
            made.shares.push(share);
            uncle.iter().for_each(|uncle| made.take(uncle));
        }
        made.store();
        made
    }

    fn take(&mut self, share: &Share) {
        assert_eq!(self.chain.offer(NEVER_TOO_EARLY, share, Source::Peer), Offer::Taken);
        while self.chain.confirm(8) > 0 {}
    }

    fn store(&mut self) {
        let (_, batches) = self.chain.take_change().unwrap();
        batches.iter().for_each(|batch| self.kv.write(&batch.ops, true).unwrap());
    }

    fn share(&self, height: u32) -> &Share {
        &self.shares[height as usize - 1]
    }

    fn key(&self, height: u32) -> Vec<u8> {
        share_key(height, &self.share(height).id())
    }

    fn tip(&self) -> TipRow {
        schema::tip(&self.kv).unwrap().unwrap()
    }

    /// What is put on the tip whatever the rules say, with the tip row that a node would write then.
    fn forced(&self, share: &Share) -> Vec<Op> {
        let (height, id) = (share.height, share.id());
        let tip = TipRow { height, id, confirmed_height: height, confirmed_id: id };
        vec![Op::Put(Family::Shares, share_key(height, &id), share.encode()), tip.put()]
    }
}

fn checked(kv: &dyn Kv) -> Report {
    check(kv, [3, 4], None, "d", &mut |_, _| {}).unwrap()
}

/// All rows of a store.
fn rows(kv: &dyn Kv) -> Vec<Op> {
    let mut rows = Vec::new();
    for family in [Family::Meta, Family::Bitcoin, Family::Shares] {
        kv.scan(family, &[], &mut |key, value| {
            rows.push(Op::Put(family, key.to_vec(), value.to_vec()));
            true
        })
        .unwrap();
    }
    rows
}

fn copied(kv: &dyn Kv) -> MemKv {
    let copy = MemKv::new();
    copy.write(&rows(kv), true).unwrap();
    copy
}

#[test]
fn a_good_store_is_good_and_stays_as_it_was() {
    let made = Made::of(HEIGHTS);
    let before = rows(&made.kv);
    let report = checked(&made.kv);
    assert_eq!(report.faults, [""; 0]);
    assert!(report.ok() && report.network == Some(Network::Regtest) && report.candidate.is_none());
    assert_eq!((report.lowest, report.tip), (0, Some(made.tip())));
    assert_eq!((report.shares, report.coinbases, report.uncles), (HEIGHTS, HEIGHTS, made.uncles.len() as u32));
    assert_eq!((report.rows, report.unreached, report.headers), (u64::from(HEIGHTS) + made.uncles.len() as u64, 0, 3));
    assert!(made.uncles.len() > 5 && made.tip().confirmed_height == HEIGHTS);
    assert_eq!(rows(&made.kv), before);
    assert_eq!(check(&made.kv, [3, 4], Some(Network::Regtest), "d", &mut |_, _| {}).unwrap(), report);
}

#[test]
fn a_store_of_another_network_or_format_is_not_judged() {
    let made = Made::of(3);
    let of = |kv: &MemKv, wanted| check(kv, [3, 4], wanted, "d", &mut |_, _| {}).unwrap_err();
    assert!(matches!(of(&made.kv, Some(Network::Main)), StoreError::WrongNetwork { .. }));
    made.kv.write(&[Op::Put(Family::Meta, b"format".to_vec(), (FORMAT_OLDEST - 1).to_be_bytes().to_vec())], true).unwrap();
    assert!(matches!(of(&made.kv, None), StoreError::WrongFormat { .. }));
}

#[test]
fn an_empty_store_and_one_without_shares_are_good() {
    let kv = MemKv::new();
    assert_eq!(checked(&kv), Report::default());
    schema::open(&kv, regtest(), "d").unwrap();
    let report = checked(&kv);
    assert!(report.ok() && report.network == Some(Network::Regtest) && report.tip.is_none());
}

#[test]
fn what_the_tip_row_does_not_reach_is_counted() {
    let made = Made::of(HEIGHTS);
    let below = TipRow { height: 35, id: made.share(35).id(), confirmed_height: 34, confirmed_id: made.share(34).id() };
    made.kv.write(&[below.put()], true).unwrap();
    let report = checked(&made.kv);
    // The five above it, and the uncle that the one at 36 credits.
    assert!(report.ok(), "{:?}", report.faults);
    assert_eq!((report.shares, report.unreached, report.uncles), (35, 6, made.uncles.len() as u32 - 1));
}

#[test]
fn an_unconfirmed_share_that_does_not_hold_is_no_damage() {
    let made = Made::of(HEIGHTS);
    let bad = build().bad_coinbase().build(&made.chain, &made.chain.tip().id);
    let tip = TipRow { height: bad.height, id: bad.id(), ..made.tip() };
    made.kv.write(&made.forced(&bad), true).unwrap();
    assert!(checked(&made.kv).faults[0].contains("COIN-9"), "confirmed it is");
    made.kv.write(&[tip.put()], true).unwrap();
    let report = checked(&made.kv);
    assert!(report.ok() && report.candidate.unwrap().contains("COIN-9"));
    assert_eq!(report.shares, HEIGHTS);
}

#[test]
fn more_uncles_than_are_kept_beside_a_chain_are_no_damage() {
    let made = Made::with(SIDE_MAX as u32 + 100, 1);
    let report = checked(&made.kv);
    assert_eq!(report.faults, [""; 0]);
    assert_eq!((report.shares, report.coinbases, report.uncles), (SIDE_MAX as u32 + 100, SIDE_MAX as u32 + 100, SIDE_MAX as u32 + 99));
}

/// What is done to a store, and what must be said of it.
type Damage = (&'static str, fn(&Made) -> Vec<Op>, &'static str);

fn put(key: Vec<u8>, value: Vec<u8>) -> Vec<Op> {
    vec![Op::Put(Family::Shares, key, value)]
}

fn put_block(key: Vec<u8>, value: &[u8]) -> Vec<Op> {
    vec![Op::Put(Family::Bitcoin, key, value.to_vec())]
}

fn put_meta(key: &str, value: &[u8]) -> Vec<Op> {
    vec![Op::Put(Family::Meta, key.as_bytes().to_vec(), value.to_vec())]
}

const DAMAGES: &[Damage] = &[
    ("no format", |_| vec![Op::Delete(Family::Meta, b"format".to_vec())], "there are rows, but no format number"),
    ("a torn format", |_| put_meta("format", &[1]), "the format number is not four bytes"),
    ("no network", |_| vec![Op::Delete(Family::Meta, b"network".to_vec())], "the network's row is missing"),
    ("another genesis", |_| put_meta("network", b"regtest:x"), "another genesis"),
    ("a torn tip row", |_| put_meta("tip", &[1; 71]), "the tip row does not decode"),
    ("a torn base row", |_| put_meta("base", &[1; 35]), "the base row does not decode"),
    ("a base without a row", |_| vec![schema::put_base(7, &ShareId([7; 32]))], "with which the chain begins, has no row"),
    ("a base beside the chain", |made| vec![schema::put_base(made.uncles[0].height, &made.uncles[0].id())], "does not begin with"),
    (
        "a base without a tip",
        |made| vec![schema::put_base(7, &made.share(7).id()), Op::Delete(Family::Meta, b"tip".to_vec())],
        "no row says where it ends",
    ),
    ("a tip without a row", |made| vec![TipRow { id: ShareId([7; 32]), ..made.tip() }.put()], "has no good row at height 40"),
    ("a tip of another height", |made| vec![TipRow { height: 41, ..made.tip() }.put()], "has no good row at height 41"),
    ("confirmed above the tip", |made| vec![TipRow { confirmed_height: 41, ..made.tip() }.put()], "which is not of its chain"),
    ("confirmed beside the chain", |made| vec![TipRow { confirmed_height: 39, ..made.tip() }.put()], "which is not of its chain"),
    ("a short key", |_| put(vec![1; 35], vec![1]), "the key of a share's row has 35 bytes"),
    ("a torn share", |made| put(made.key(20), made.share(20).encode()[..99].to_vec()), "does not decode"),
    ("another share in a row", |made| put(made.key(20), made.share(21).encode()), "holds another"),
    ("a share under another height", |made| put(share_key(19, &made.share(20).id()), made.share(20).encode()), "holds another"),
    ("genesis with a row", |_| put(share_key(0, &regtest().genesis_id()), regtest().genesis().encode()), "at height 0"),
    ("a share that is not there", |made| vec![Op::Delete(Family::Shares, made.key(20))], "has no good row at height 20"),
    (
        "an uncle that is not there",
        |made| vec![Op::Delete(Family::Shares, share_key(made.uncles[1].height, &made.uncles[1].id()))],
        "of which there is no good row",
    ),
    (
        "a flipped bit",
        |made| {
            let mut share = made.share(20).clone();
            share.proof.extranonce[3] ^= 1;
            put(made.key(20), share.encode())
        },
        "at height 20: TIE-3",
    ),
    (
        "a broken rule",
        |made| made.forced(&build().time(least_time(&made.chain, &made.chain.tip().id) - 1).build(&made.chain, &made.chain.tip().id)),
        "at height 41: TIME-1",
    ),
    (
        "an uncle credited twice",
        |made| made.forced(&build().uncles(&[made.uncles.last().unwrap().id()]).build(&made.chain, &made.chain.tip().id)),
        "at height 41: UNC-3",
    ),
    ("a coinbase that pays others", |made| made.forced(&build().bad_coinbase().build(&made.chain, &made.chain.tip().id)), "COIN-9"),
    ("a Bitcoin header's torn key", |made| put_block(vec![1; 37], &made.headers[0]), "80 bytes under 37"),
    ("a torn Bitcoin header", |made| put_block(block_key(2, &sha256d(&made.headers[1])), &made.headers[1][..79]), "79 bytes under 36"),
    ("another Bitcoin header in a row", |made| put_block(block_key(2, &sha256d(&made.headers[1])), &made.headers[0]), "holds another"),
    ("a Bitcoin header of another height", |made| put_block(block_key(9, &sha256d(&made.headers[1])), &made.headers[1]), "its row says 9"),
    (
        "a Bitcoin header on nothing",
        |made| {
            let header = header_on([7; 32], made.share(1).time);
            put_block(block_key(5, &sha256d(&header)), &header)
        },
        "which has no row",
    ),
    (
        "a Bitcoin header against the rules",
        |made| {
            let header = header_on(sha256d(&made.headers[2]), 1);
            put_block(block_key(4, &sha256d(&header)), &header)
        },
        "time is not above",
    ),
    (
        "a Bitcoin header that is not there",
        |made| vec![Op::Delete(Family::Bitcoin, block_key(3, &sha256d(&made.headers[2])))],
        "at height 10: it needs",
    ),
    (
        "no Bitcoin headers at all",
        |made| (1..).zip(&made.headers).map(|(height, header)| Op::Delete(Family::Bitcoin, block_key(height, &sha256d(header)))).collect(),
        "at height 10: it needs",
    ),
];

#[test]
fn every_damage_is_told_and_nothing_is_changed() {
    let made = Made::of(HEIGHTS);
    for (name, damage, says) in DAMAGES {
        let kv = copied(&made.kv);
        kv.write(&damage(&made), true).unwrap();
        let before = rows(&kv);
        let report = checked(&kv);
        let told = report.faults.iter().filter(|fault| fault.contains(says)).count();
        assert!(!report.ok() && told > 0, "{name}: {:?}, not {says:?}", report.faults);
        assert!(report.faults.len() <= 3 && report.more == 0, "{name}: one damage is told in few words: {:?}", report.faults);
        assert!(rows(&kv) == before, "{name}");
    }
}

#[test]
fn what_is_wrong_is_listed_up_to_a_limit_and_then_counted() {
    let made = Made::of(HEIGHTS);
    let torn = 5 + FAULTS_LISTED as u64;
    let ops: Vec<Op> = (0..torn).map(|n| Op::Put(Family::Shares, share_key(99, &ShareId([n as u8; 32])), vec![1])).collect();
    made.kv.write(&ops, true).unwrap();
    let report = checked(&made.kv);
    assert_eq!((report.faults.len(), report.more), (FAULTS_LISTED, 5));
    // The best chain is judged all the same.
    assert_eq!((report.shares, report.rows), (HEIGHTS, u64::from(HEIGHTS) + made.uncles.len() as u64 + torn));
}

#[test]
fn the_best_by_the_rules_must_be_the_tip() {
    let mut made = Made::new();
    // In a hurry, so that much work is demanded in the end.
    for height in 0..80 {
        let parent = made.chain.tip().id;
        let time = made.chain.tip().time + height % 2;
        let share = build().time(time.max(least_time(&made.chain, &parent))).build(&made.chain, &parent);
        made.take(&share);
        made.shares.push(share);
    }
    // One that comes late and has little to do, and its child, together worth less than the sibling that the child credits.
    let tip = made.chain.tip().clone();
    let late = build().miner(2).time(tip.time + 10_000).build(&made.chain, &tip.id);
    made.take(&late);
    let child = build().time(tip.time + 20_000).build(&made.chain, &late.id());
    made.take(&child);
    let uncle = build().miner(3).time(tip.time + 1).build(&made.chain, &tip.id);
    let child = build().time(tip.time + 20_000).uncles(&[uncle.id()]).build(&made.chain, &late.id());
    assert!(uncle.score > child.score);
    made.store();
    made.kv.write(&made.forced(&child), true).unwrap();
    made.kv.write(&put(share_key(uncle.height, &uncle.id()), uncle.encode()), true).unwrap();
    let report = checked(&made.kv);
    assert!(report.faults.len() == 1 && report.faults[0].contains("by the rules the best"), "{:?}", report.faults);
}

/// A store that was begun in the middle of a chain, as a sync does it.
fn based(made: &Made, base: u32) -> MemKv {
    let kv = MemKv::new();
    schema::open(&kv, regtest(), "d").unwrap();
    let mut chain = Chain::open(regtest(), [1, 2], &kv).unwrap();
    chain.offer_blocks(&made.headers);
    assert_eq!(chain.begin_at(made.share(base)), Offer::Taken);
    assert!(chain.begin_sync(NOBODY));
    for share in &made.shares[base as usize..] {
        for id in &share.uncles {
            let uncle = made.uncles.iter().find(|uncle| uncle.id() == *id).unwrap();
            assert_eq!(chain.offer(NEVER_TOO_EARLY, uncle, Source::Bulk(NOBODY)), Offer::Taken);
        }
        assert_eq!(chain.offer(NEVER_TOO_EARLY, share, Source::Bulk(NOBODY)), Offer::Taken);
        while chain.confirm(8) > 0 {}
    }
    let (_, batches) = chain.take_change().unwrap();
    batches.iter().for_each(|batch| kv.write(&batch.ops, true).unwrap());
    kv
}

#[test]
fn a_chain_begun_at_a_base_is_judged_from_there() {
    let (window, above) = (regtest().window_min, 60);
    let made = Made::of(19 + window + above);
    // The child of the base credits an uncle whose parent has no row.
    let base = 15;
    let kv = based(&made, base);
    let mut words = Vec::new();
    let report = check(&kv, [3, 4], None, "d", &mut |done, of| words.push((done, of))).unwrap();
    assert_eq!(report.faults, [""; 0]);
    assert_eq!((report.lowest, report.shares), (base, 4 + window + above));
    // Windows are whole from where one height of them is to spare.
    assert_eq!(report.coinbases, 4 + above - 1);
    assert_eq!(report.uncles, made.uncles.iter().filter(|uncle| uncle.height + 2 > base).count() as u32);
    assert_eq!(words, [(1_024, report.rows), (2_048, report.rows)]);
    // The base itself is checked as far as it can be.
    let mut share = made.share(base).clone();
    share.proof.extranonce[0] ^= 1;
    kv.write(&put(made.key(base), share.encode()), true).unwrap();
    assert!(checked(&kv).faults[0].contains("with which the chain begins: TIE-3"));
    // A coinbase near the base is not known to be wrong; one above it is.
    for (height, wrong) in [(base + 100, false), (base + window + 50, true)] {
        let kv = based(&made, base);
        let bad = build().bad_coinbase().build(&made.chain, &made.share(height - 1).id());
        kv.write(&made.forced(&bad), true).unwrap();
        assert_eq!(checked(&kv).ok(), !wrong, "{height}");
    }
}

#[cfg(feature = "rocks")]
#[test]
fn rocksdb_is_checked_without_a_change() {
    use crate::rocks::RocksKv;
    use std::{collections::BTreeMap, fs, path::Path};

    fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
        entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
    }

    let made = Made::of(HEIGHTS);
    let dir = tempfile::tempdir().unwrap();
    let kv = RocksKv::open(dir.path()).unwrap();
    kv.write(&rows(&made.kv), true).unwrap();
    drop(kv);
    // Rows in the log alone, then, after a start, in a table file.
    for _ in 0..2 {
        let before = files(dir.path());
        let kv = RocksKv::open_read_only(dir.path()).unwrap();
        assert_eq!(checked(&kv), checked(&made.kv));
        assert!(kv.write(&put(vec![1; 36], vec![1]), true).is_err());
        drop(kv);
        assert!(files(dir.path()) == before);
        drop(RocksKv::open(dir.path()).unwrap());
    }
    let tables = files(dir.path()).into_iter().filter(|(name, _)| name.ends_with(".sst"));
    let (name, mut bytes) = tables.max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    fs::write(dir.path().join(name), bytes).unwrap();
    let report = checked(&RocksKv::open_read_only(dir.path()).unwrap());
    assert!(!report.ok() && report.faults[0].contains("checksum"), "{:?}", report.faults);
}

#[test]
fn rows_of_portfolios_decode_or_are_faults() {
    use crate::portfolios::{Daily, rows::Row};
    let made = Made::of(3);
    made.kv.write(&[Row::Mark(Daily::Coins, 7).put()], true).unwrap();
    assert!(checked(&made.kv).ok());
    made.kv.write(&[Op::Put(Family::Portfolios, vec![1; 5], vec![2])], true).unwrap();
    assert_eq!(checked(&made.kv).faults, ["a row of portfolios does not decode: 1 bytes under 5"]);
}
