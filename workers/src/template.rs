//! A block template: what Bitcoin's side offers to mine on, and how it is read from `getblocktemplate`'s answer; and the first one after a
//! new block, which is there before bitcoind has gathered transactions for it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bitcoin::hex::FromHex;
use rockpool_net::limits::BRANCH_MAX;
use rockpool_net::sha256::sha256d;
use rockpool_net::wire::message::TxIds;
use rockpool_net::wire::share::Class;
use rockpool_store::bitcoin::Rules;
use rockpool_store::limits::{MIN_DIFFICULTY_AFTER_S, PERIOD_BLOCKS};
use rockpool_store::params::Params;
use rockpool_store::rules::target::target_bytes;
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::trim::{Listed, Trim, trims};

/// What bitcoind (or the embedded chain) offers to mine on. One copy for all miners.
#[derive(Debug, PartialEq, Eq)]
pub struct Template {
    /// Counts templates since start; a later one replaces an earlier one.
    pub sequence: u64,
    /// Height of the block to be.
    pub height: u32,
    /// Hash of its parent, bytes as hashed.
    pub prev: [u8; 32],
    /// Header version that the template asks for.
    pub version: u32,
    /// Target, compact.
    pub bits: u32,
    /// Least header time.
    pub mintime: u32,
    /// Greatest header time: beyond it Bitcoin demands other bits. [`u32::MAX`] where it never does.
    pub maxtime: u32,
    /// Header time that it proposes.
    pub curtime: u32,
    /// By class, smallest first: what of the transactions a block has room for beside the coinbase.
    pub trims: [Trim; 4],
    /// The transactions but the coinbase. A parent stands before its children. Successive templates share those that they have in common.
    pub txs: Vec<Arc<Tx>>,
}

/// A transaction of templates.
#[derive(Debug, PartialEq, Eq)]
pub struct Tx {
    /// Its ids.
    pub ids: TxIds,
    /// It, encoded with witnesses.
    pub data: Box<[u8]>,
}

impl Template {
    /// What a block with a coinbase of this class holds.
    pub fn trim(&self, class: Class) -> &Trim {
        &self.trims[class as usize]
    }

    /// Whether miners would work on the same for this one: all is alike but when it was made.
    pub fn same_work(&self, other: &Template) -> bool {
        let fields =
            |template: &Template| (template.height, template.prev, template.version, template.bits, template.mintime, template.maxtime);
        fields(self) == fields(other) && self.trims == other.trims
    }

    /// Work on a block that has just come: a coinbase that claims the subsidy, and nothing else. On a small machine bitcoind takes seconds
    /// to gather transactions, and until then whatever miners do is worth nothing. `before` is what the same bitcoind offered last. `None`
    /// if Bitcoin's bits cannot be told from the new block alone, since a wrong job is worse than a late one, or if more blocks are coming.
    pub fn first(params: &Params, tip: &RawChainInfo, before: &Before, sequence: u64, now_unix: u32) -> Option<Template> {
        // It is catching up, and this block is but one of many: by the time that miners hear of it the next is there.
        if tip.headers.is_some_and(|headers| headers > tip.blocks) {
            return None;
        }
        let height = tip.blocks.checked_add(1)?;
        let (bits, maxtime) = tip.next_bits(params.bitcoin, height, before.bits, now_unix)?;
        let mintime = tip.mediantime.checked_add(1)?;
        Some(Template {
            sequence,
            height,
            prev: hash(&tip.bestblockhash, "bestblockhash").ok()?,
            version: before.version,
            bits,
            mintime,
            maxtime,
            curtime: now_unix.max(mintime),
            trims: std::array::from_fn(|_| Trim::empty(params.subsidy(height))),
            txs: Vec::new(),
        })
    }

    /// Narrows the times that a header may have to those at which Bitcoin demands this template's bits (BTC-7): where a network knows
    /// minimum difficulty, they are others for a block that comes more than 20 minutes after the one before it.
    pub fn keep_bits(&mut self, rules: &Rules, prev_time: u32) {
        if !rules.min_difficulty || !rules.retargets || self.height.is_multiple_of(PERIOD_BLOCKS) {
            return;
        }
        let edge = edge(prev_time);
        if self.curtime > edge {
            self.mintime = self.mintime.max(edge.saturating_add(1));
        } else if self.bits != rules.limit_bits {
            self.maxtime = edge;
        }
    }
}

/// The last header time after a block of this one at which the real difficulty holds, where a network knows minimum difficulty.
fn edge(prev_time: u32) -> u32 {
    prev_time.saturating_add(u32::try_from(MIN_DIFFICULTY_AFTER_S).unwrap_or(u32::MAX))
}

/// What the last template of a bitcoind says of the next.
#[derive(Clone, Debug)]
pub struct Before {
    /// The block that it builds on, as RPC shows it.
    pub prev: String,
    /// Its version.
    pub version: u32,
    /// Its bits.
    pub bits: u32,
}

/// `getblockchaininfo`'s answer, as far as the first template on its newest block asks. One call tells it all, so that no template that is
/// being made meanwhile comes between.
#[derive(Clone, Debug, Deserialize)]
pub struct RawChainInfo {
    /// Its hash.
    pub bestblockhash: String,
    /// Its height.
    blocks: u32,
    /// That of the best header.
    headers: Option<u32>,
    /// Median time of the eleven blocks that end with it.
    mediantime: u32,
    /// Its header's time, from version 23 on.
    time: Option<u32>,
    /// Its bits, from version 29 on.
    bits: Option<String>,
    difficulty: f64,
}

impl RawChainInfo {
    /// The bits of the block on this one, and until when they are right; `last` are those of the last template.
    fn next_bits(&self, rules: &Rules, height: u32, last: u32, now_unix: u32) -> Option<(u32, u32)> {
        let bits = match &self.bits {
            Some(bits) => u32::from_str_radix(bits, 16).ok()?,
            // Two targets that differ differ by more than one part in 2^23.
            None if (difficulty(last) / self.difficulty - 1.0).abs() < 1e-9 => last,
            None => return None,
        };
        match rules.retargets {
            false => Some((bits, u32::MAX)),
            // Set anew by the first block of the period that ends.
            true if height.is_multiple_of(PERIOD_BLOCKS) => None,
            true if !rules.min_difficulty => Some((bits, u32::MAX)),
            // Which difficulty is the real one, an easy block does not say; and after 20 minutes any may come.
            true => (bits != rules.limit_bits).then_some((bits, edge(self.time?))).filter(|(_, edge)| now_unix <= *edge),
        }
    }
}

/// A target as bitcoind shows difficulties.
fn difficulty(bits: u32) -> f64 {
    let value = |bits| target_bytes(bits).iter().rev().fold(0.0, |value, byte| value * 256.0 + f64::from(*byte));
    value(0x1d00_ffff) / value(bits)
}

/// One copy of each transaction for all templates that hold it.
#[derive(Debug, Default)]
pub struct Pool {
    /// By the id with witnesses.
    known: BTreeMap<[u8; 32], Weak<Tx>>,
}

impl Pool {
    /// The transaction of this encoding, whose ids bitcoind says are these.
    fn tx(&mut self, listed: &Listed, data: Box<[u8]>) -> Arc<Tx> {
        let known = self.known.get(&listed.wtxid).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| known.data == data && known.ids.txid == listed.txid) {
            return known;
        }
        // Hashed here and not taken from the answer: it is told to peers.
        let ids = TxIds { txid: listed.txid, wtxid: sha256d(&data) };
        let tx = Arc::new(Tx { ids, data });
        self.known.insert(listed.wtxid, Arc::downgrade(&tx));
        tx
    }

    /// Forgets what no template holds any more.
    fn forget(&mut self) {
        self.known.retain(|_, tx| tx.strong_count() > 0);
    }
}

/// Why a template cannot be mined on.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// A field is not what BIP22, BIP23 and BIP145 say.
    #[error("bitcoind's template has a bad {0}; is this bitcoind, version 22 or later?")]
    Field(&'static str),
    /// Rules that a miner must know and we do not.
    #[error("bitcoind's template demands the rule {0}, which this version does not know; update Rockpool")]
    Rule(String),
}

/// `getblocktemplate`'s answer, the fields that are used.
#[derive(Debug, Deserialize)]
pub struct RawTemplate {
    version: i64,
    #[serde(default)]
    rules: Vec<String>,
    /// The block that it builds on.
    pub previousblockhash: String,
    transactions: Vec<RawTx>,
    coinbasevalue: u64,
    /// The word that makes the next call wait for something new.
    pub longpollid: String,
    mintime: u32,
    curtime: u32,
    bits: String,
    /// The block's height.
    pub height: u32,
    default_witness_commitment: String,
}

#[derive(Debug, Deserialize)]
struct RawTx {
    /// Decoded as it is read: in hex all of them together would be as large again as the rest of the node.
    #[serde(deserialize_with = "bytes")]
    data: Option<Box<[u8]>>,
    #[serde(deserialize_with = "shown_hash")]
    txid: Option<[u8; 32]>,
    /// The id with witnesses (BIP145).
    #[serde(deserialize_with = "shown_hash")]
    hash: Option<[u8; 32]>,
    /// Which of the list must stand before it, counted from 1 (BIP22).
    depends: Vec<usize>,
    fee: u64,
    weight: u32,
}

/// Rules that a template may demand of its miner (BIP9: "!" before the name); all others are refused.
const RULES_KNOWN: [&str; 2] = ["!segwit", "!signet"];

impl RawTemplate {
    /// Checks the fields and lays the template out, as number `sequence` since start.
    pub fn build(self, sequence: u64, pool: &mut Pool) -> Result<Template, TemplateError> {
        if let Some(rule) = self.rules.iter().find(|rule| rule.starts_with('!') && !RULES_KNOWN.contains(&rule.as_str())) {
            return Err(TemplateError::Rule(rule.chars().take(40).collect()));
        }
        let listed = self.transactions.iter().enumerate().map(|(place, tx)| tx.listed(place)).collect::<Result<Vec<_>, _>>()?;
        let whole = Trim {
            kept: listed.len(),
            value: self.coinbasevalue,
            witness_commitment: witness_commitment(&self.default_witness_commitment)?,
            branch: branch(listed.iter().map(|tx| tx.txid).collect()),
        };
        if whole.branch.len() > BRANCH_MAX {
            return Err(TemplateError::Field("transactions: too many"));
        }
        let data = self.transactions.into_iter().map(|tx| tx.data.ok_or(TemplateError::Field("transaction data")));
        let txs = data.zip(&listed).map(|(data, listed)| Ok(pool.tx(listed, data?))).collect::<Result<_, _>>()?;
        pool.forget();
        Ok(Template {
            sequence,
            height: self.height,
            prev: hash(&self.previousblockhash, "previousblockhash")?,
            version: u32::try_from(self.version)
                .or(i32::try_from(self.version).map(|v| v as u32))
                .or(Err(TemplateError::Field("version")))?,
            bits: u32::from_str_radix(&self.bits, 16).or(Err(TemplateError::Field("bits")))?,
            mintime: self.mintime,
            maxtime: u32::MAX,
            curtime: self.curtime.max(self.mintime),
            trims: trims(whole, &listed)?,
            txs,
        })
    }
}

impl RawTx {
    /// What trimming asks of it; `place` is where it stands in the list, from 0.
    fn listed(&self, place: usize) -> Result<Listed, TemplateError> {
        // A block in which a parent comes later is none; here it is what lets any number of the last be dropped.
        if self.depends.iter().any(|parent| !(1..=place).contains(parent)) {
            return Err(TemplateError::Field("transactions: depends"));
        }
        let txid = self.txid.ok_or(TemplateError::Field("txid"))?;
        let wtxid = self.hash.ok_or(TemplateError::Field("transaction hash"))?;
        Ok(Listed { txid, wtxid, fee: self.fee, weight: self.weight })
    }
}

/// The merkle siblings of the first leaf, from the bottom up, in a tree whose other leaves are `rest`.
pub fn branch(rest: Vec<[u8; 32]>) -> Vec<[u8; 32]> {
    let (mut level, mut siblings) = (rest, Vec::new());
    // `level` holds the level's nodes without the first, which is the coinbase's own and unknown.
    while let Some(&sibling) = level.first() {
        siblings.push(sibling);
        let rest = &level[1..];
        level = rest.chunks(2).map(|pair| node(&pair[0], pair.get(1).unwrap_or(&pair[0]))).collect();
    }
    siblings
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut both = [0; 64];
    both[..32].copy_from_slice(left);
    both[32..].copy_from_slice(right);
    sha256d(&both)
}

/// A hash as RPC shows it, most significant byte first, to the bytes as hashed.
fn hash(text: &str, field: &'static str) -> Result<[u8; 32], TemplateError> {
    let mut bytes = <[u8; 32]>::from_hex(text).or(Err(TemplateError::Field(field)))?;
    bytes.reverse();
    Ok(bytes)
}

/// Hex, if it is such.
fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<[u8]>>, D::Error> {
    Ok(Vec::from_hex(&Cow::<str>::deserialize(from)?).ok().map(Vec::into_boxed_slice))
}

/// A hash, if it is one.
fn shown_hash<'de, D: Deserializer<'de>>(from: D) -> Result<Option<[u8; 32]>, D::Error> {
    Ok(hash(&Cow::<str>::deserialize(from)?, "").ok())
}

/// The commitment in `OP_RETURN aa21a9ed ‖ commitment` (BIP141).
fn witness_commitment(script: &str) -> Result<[u8; 32], TemplateError> {
    let bytes = <[u8; 38]>::from_hex(script).or(Err(TemplateError::Field("default_witness_commitment")))?;
    let commitment = bytes.strip_prefix(&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed]).and_then(|rest| rest.try_into().ok());
    commitment.ok_or(TemplateError::Field("default_witness_commitment"))
}

#[cfg(test)]
pub(crate) mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use bitcoin::consensus::{
        self,
        encode::{deserialize_hex, serialize_hex},
    };
    use bitcoin::hashes::Hash;
    use bitcoin::{
        Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, WitnessMerkleNode, Wtxid, absolute,
        merkle_tree, transaction,
    };
    use rockpool_net::wire::share::merkle_root;
    use serde_json::{Value, json};

    use super::*;

    /// The one transaction beside the coinbase of Bitcoin's block 170, the first that paid somebody.
    const FIRST_PAYMENT: &str = "\
        0100000001c997a5e56e104102fa209c6a852dd90660a20b2d9c352423edce25857fcd3704000000004847304402204e45e16932b8af514961a1d3a1\
        a25fdf3f4f7732e9d624c6c61548ab5fb8cd410220181522ec8eca07de4860a4acdd12909d831cc56cbbac4622082221a8768d1d0901ffffffff0200\
        ca9a3b00000000434104ae1a62fe09c5f51b13905f07f06b99a2f7159b2225f374cd378d71302fa28414e7aab37397f554a7df5f142c21c1b7303b8a\
        0626f1baded5c72a704f7e6cd84cac00286bee0000000043410411db93e1dcdb8a016b49840f8c53bc1eb68a382e97b1482ecad7b148a6909a5cb2e0\
        eaddfb84ccf9744464f82e160bfa9b8b64f9d4c03f999b8643f656b412a3ac00000000";

    fn txid(shown: &str) -> [u8; 32] {
        hash(shown, "txid").unwrap()
    }

    /// A transaction with a witness, so that its id is not the hash of its data.
    pub(crate) fn payment(number: u32) -> Transaction {
        let input = TxIn {
            previous_output: OutPoint { txid: Txid::from_byte_array([number as u8; 32]), vout: number },
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[vec![number as u8; 71]]),
        };
        let output = TxOut { value: Amount::from_sat(u64::from(number)), script_pubkey: ScriptBuf::new_op_return([number as u8]) };
        Transaction { version: transaction::Version::TWO, lock_time: absolute::LockTime::ZERO, input: vec![input], output: vec![output] }
    }

    /// A transaction as `getblocktemplate` lists it.
    pub(crate) fn listing(tx: &Transaction, fee: u64, depends: &[usize]) -> Value {
        json!({
            "data": serialize_hex(tx), "txid": tx.compute_txid().to_string(), "hash": tx.compute_wtxid().to_string(), "depends": depends,
            "fee": fee, "sigops": 1, "weight": tx.weight().to_wu()
        })
    }

    pub(crate) fn answer(txs: &[Transaction]) -> Value {
        let txs: Vec<_> = txs.iter().map(|tx| listing(tx, 7, &[])).collect();
        json!({
            "capabilities": ["proposal"], "version": 0x2000_0000, "rules": ["csv", "!segwit", "taproot"], "vbrequired": 0,
            "previousblockhash": "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206", "transactions": txs,
            "coinbasevalue": 5_000_000_007_u64, "longpollid": "abc7", "target": "7fffff", "mintime": 1_296_688_603, "sigoplimit": 80_000,
            "curtime": 1_700_000_000, "bits": "207fffff", "height": 1,
            "default_witness_commitment": "6a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf9"
        })
    }

    /// A template of these, on regtest, its witness commitment by the `bitcoin` crate.
    pub(crate) fn template_of(listed: Vec<Value>) -> Template {
        let txs: Vec<Transaction> = listed.iter().map(|tx| deserialize_hex(tx["data"].as_str().unwrap()).unwrap()).collect();
        let fees: u64 = listed.iter().map(|tx| tx["fee"].as_u64().unwrap()).sum();
        let mut changed = answer(&[]);
        (changed["transactions"], changed["coinbasevalue"]) = (listed.into(), (5_000_000_000 + fees).into());
        changed["default_witness_commitment"] = format!("6a24aa21a9ed{}", serialize_hex(&witness_commitment_of(&txs))).into();
        build(changed).unwrap()
    }

    /// BIP141's commitment to these transactions after a coinbase, by the `bitcoin` crate.
    pub(crate) fn witness_commitment_of(txs: &[Transaction]) -> [u8; 32] {
        let leaves = std::iter::once(Wtxid::all_zeros()).chain(txs.iter().map(Transaction::compute_wtxid));
        let root = WitnessMerkleNode::from_raw_hash(merkle_tree::calculate_root(leaves).unwrap().to_raw_hash());
        Block::compute_witness_commitment(&root, &[0; 32]).to_byte_array()
    }

    fn build(answer: Value) -> Result<Template, TemplateError> {
        serde_json::from_value::<RawTemplate>(answer).unwrap().build(3, &mut Pool::default())
    }

    #[test]
    fn the_branch_of_block_170_gives_its_merkle_root() {
        let tx: Transaction = deserialize_hex(FIRST_PAYMENT).unwrap();
        let template = build(answer(&[tx])).unwrap();
        let coinbase = txid("b1fea52486ce0c62bb442b530a3f0132b826c74e473d1f2c220bfa78111c5082");
        let root = txid("7dac2c5666815c17a3b36427de37bb9d2e2c5ccec3f8633eb91a4205cb4c10ff");
        assert_eq!(merkle_root(coinbase, &template.trim(Class::N12).branch), root);
    }

    #[test]
    fn the_branch_agrees_with_the_bitcoin_crate_for_every_small_count() {
        let coinbase = [9; 32];
        for count in 0..40 {
            let txs: Vec<_> = (0..count).map(payment).collect();
            let template = build(answer(&txs)).unwrap();
            let leaves = std::iter::once(coinbase).chain(txs.iter().map(|tx| tx.compute_txid().to_byte_array()));
            let root = merkle_tree::calculate_root(leaves.map(Txid::from_byte_array)).unwrap();
            assert_eq!(merkle_root(coinbase, &template.trim(Class::N360).branch), root.to_byte_array(), "{count} transactions");
            assert_eq!(template.txs.len(), count as usize);
            let ids = |tx: &Transaction| TxIds { txid: tx.compute_txid().to_byte_array(), wtxid: tx.compute_wtxid().to_byte_array() };
            assert_eq!(template.txs.iter().map(|tx| tx.ids).collect::<Vec<_>>(), txs.iter().map(ids).collect::<Vec<_>>());
        }
    }

    #[test]
    fn fields_are_read_as_they_are_meant() {
        let template = build(answer(&[])).unwrap();
        let trim = template.trim(Class::N12);
        assert_eq!((template.sequence, template.height, trim.value), (3, 1, 5_000_000_007));
        assert_eq!((template.version, template.bits), (0x2000_0000, 0x207f_ffff));
        assert_eq!((template.mintime, template.curtime), (1_296_688_603, 1_700_000_000));
        assert_eq!((template.prev[0], template.prev[31]), (0x06, 0x0f));
        // BIP141's commitment of a block without transactions.
        assert_eq!(trim.witness_commitment, sha256d(&[0; 64]));
        assert!(trim.branch.is_empty() && trim.kept == 0 && template.txs.is_empty());
        assert!(template.trims.iter().all(|other| other == trim));
    }

    /// Elsewhere a share's coinbase held what one's own bitcoind or configuration said, and other nodes took it for wrong.
    #[test]
    fn what_bitcoind_would_have_in_a_coinbase_is_ignored() {
        let mut changed = answer(&[]);
        let plain = build(changed.clone()).unwrap();
        for aux in [json!({}), json!({"flags": ""}), json!({"flags": "062f503253482f"}), json!(null)] {
            changed["coinbaseaux"] = aux;
            assert_eq!(build(changed.clone()).unwrap(), plain);
        }
    }

    /// What `getblockchaininfo` says of a chain whose newest block is of this height, bits and time; `bits` from version 29 on.
    fn chain(blocks: u32, bits: Option<u32>, difficulty: f64, time: u32) -> RawChainInfo {
        let bits = bits.map(|bits| format!("{bits:08x}"));
        RawChainInfo {
            bestblockhash: "0f".repeat(32),
            blocks,
            headers: Some(blocks),
            mediantime: time - 3_000,
            time: Some(time),
            bits,
            difficulty,
        }
    }

    #[test]
    fn the_first_work_on_a_block_has_the_bits_that_bitcoin_demands_or_is_none() {
        use rockpool_store::params::{Network, params};
        const NOW: u32 = 1_800_000_000;
        let before = Before { prev: "0e".repeat(32), version: 0x2000_0004, bits: 0x1702_3456 };
        let first = |network, chain: &RawChainInfo| Template::first(params(network), chain, &before, 9, NOW);
        let fields = |template: Template| (template.bits, template.mintime, template.maxtime);
        let main = |chain: &RawChainInfo| first(Network::Main, chain).map(fields);
        let hard = Some(0x1702_ffff);
        assert_eq!(main(&chain(900_000, hard, 1.0, NOW - 600)), Some((0x1702_ffff, NOW - 3_599, u32::MAX)));
        // The next one is the first of a period.
        assert_eq!(main(&chain(2_016 * 450 - 1, hard, 1.0, NOW)), None);
        assert!(main(&chain(2_016 * 450, hard, 1.0, NOW)).is_some() && main(&chain(2_016 * 450 - 2, hard, 1.0, NOW)).is_some());
        // Before version 29 only the difficulty is told, which is that of the last template or another.
        let same = difficulty(before.bits);
        assert_eq!(main(&chain(900_000, None, same, NOW)), Some((before.bits, NOW - 2_999, u32::MAX)));
        assert_eq!(main(&chain(900_000, None, difficulty(before.bits + 1), NOW)), None);
        assert_eq!(main(&chain(900_000, None, 0.0, NOW)), None);
        let behind = RawChainInfo { headers: Some(900_001), ..chain(900_000, hard, 1.0, NOW) };
        assert_eq!(main(&behind), None, "a block that is not the last for long");
        // Known values of a block of main's and of regtest's limit, as bitcoind shows them.
        assert!((difficulty(0x1d00_ffff) - 1.0).abs() < 1e-15 && (difficulty(0x1b04_04cb) / 16_307.420_938_523_983 - 1.0).abs() < 1e-12);
        assert!((difficulty(0x207f_ffff) / 4.656_542_373_906_925e-10 - 1.0).abs() < 1e-12);

        let testnet4 = |chain: &RawChainInfo| first(Network::Testnet4, chain).map(fields);
        assert_eq!(testnet4(&chain(90_000, hard, 1.0, NOW - 100)), Some((0x1702_ffff, NOW - 3_099, NOW + 1_100)));
        assert_eq!(testnet4(&chain(90_000, hard, 1.0, NOW - 1_200)), Some((0x1702_ffff, NOW - 4_199, NOW)));
        assert_eq!(testnet4(&chain(90_000, hard, 1.0, NOW - 1_201)), None, "the easiest bits by now");
        assert_eq!(testnet4(&chain(90_000, Some(0x1d00_ffff), 1.0, NOW)), None, "the real difficulty is not told");
        let old = RawChainInfo { time: None, ..chain(90_000, hard, 1.0, NOW) };
        assert_eq!(testnet4(&old), None);
        let regtest = first(Network::Regtest, &chain(2_015, Some(0x207f_ffff), 1.0, NOW - 5_000)).unwrap();
        assert_eq!((regtest.bits, regtest.maxtime, regtest.height, regtest.sequence), (0x207f_ffff, u32::MAX, 2_016, 9));
        assert_eq!((regtest.version, regtest.curtime, regtest.prev), (0x2000_0004, NOW, [0x0f; 32]));
        let signet = first(Network::Signet, &chain(90_000, Some(0x1e03_77ae), 1.0, NOW)).unwrap();
        assert!(signet.trims.iter().all(|trim| *trim == Trim::empty(params(Network::Signet).subsidy(90_001))));
    }

    /// BTC-7 on testnet4, where 20 minutes after a block the easiest bits are demanded.
    #[test]
    fn header_times_are_kept_to_those_of_the_bits() {
        use rockpool_store::params::{Network, params};
        let [testnet4, main] = [Network::Testnet4, Network::Main].map(|network| params(network).bitcoin);
        let kept = |rules: &Rules, height: u32, bits: u32, after: u32| {
            let mut changed = answer(&[]);
            (changed["height"], changed["bits"], changed["mintime"]) = (height.into(), format!("{bits:08x}").into(), 1_000.into());
            changed["curtime"] = (2_000 + after).into();
            let mut template = build(changed).unwrap();
            template.keep_bits(rules, 2_000);
            (template.mintime, template.maxtime)
        };
        assert_eq!(kept(testnet4, 5, 0x1702_ffff, 1_200), (1_000, 3_200));
        assert_eq!(kept(testnet4, 5, 0x1d00_ffff, 1_201), (3_201, u32::MAX));
        // The real difficulty is the easiest: any time will do.
        assert_eq!(kept(testnet4, 5, 0x1d00_ffff, 1_200), (1_000, u32::MAX));
        assert_eq!(kept(testnet4, 2_016, 0x1702_ffff, 1_300), (1_000, u32::MAX), "a period's first block");
        assert_eq!(kept(main, 5, 0x1702_ffff, 1_300), (1_000, u32::MAX));
    }

    #[test]
    fn templates_share_their_transactions_and_forget_those_of_none() {
        let mut pool = Pool::default();
        let all: Vec<_> = (0..5).map(payment).collect();
        let mut build = |txs: &[Transaction]| {
            let template = serde_json::from_value::<RawTemplate>(answer(txs)).unwrap().build(3, &mut pool).unwrap();
            (template, pool.known.len())
        };
        let (first, _) = build(&all[..4]);
        let (second, known) = build(&all[2..]);
        assert_eq!(known, 5);
        assert!(Arc::ptr_eq(&first.txs[2], &second.txs[0]) && Arc::ptr_eq(&first.txs[3], &second.txs[1]));
        assert_eq!(second.txs[0].data, consensus::serialize(&all[2]).into());
        drop(first);
        let (third, known) = build(&all[4..]);
        assert_eq!((known, Arc::strong_count(&third.txs[0])), (3, 2));
        // A name that stands for another transaction is no match.
        let mut lies = listing(&all[0], 7, &[]);
        lies["hash"] = all[4].compute_wtxid().to_string().into();
        let mut changed = answer(&[]);
        changed["transactions"] = json!([lies]);
        let lie = serde_json::from_value::<RawTemplate>(changed).unwrap().build(3, &mut pool).unwrap();
        assert_eq!(lie.txs[0].data, consensus::serialize(&all[0]).into());
        assert_eq!(lie.txs[0].ids.wtxid, all[0].compute_wtxid().to_byte_array());
    }

    #[test]
    fn what_cannot_be_mined_on_is_refused_with_the_field() {
        let tx = |field: &str, value: Value| {
            let mut listed = listing(&payment(1), 7, &[]);
            listed[field] = value;
            json!([listed])
        };
        let cases = [
            ("previousblockhash", json!("00"), TemplateError::Field("previousblockhash")),
            ("bits", json!("7ffffffff"), TemplateError::Field("bits")),
            ("version", json!(1_u64 << 40), TemplateError::Field("version")),
            (
                "default_witness_commitment",
                json!("6a24aa21a9ee".to_owned() + &"00".repeat(32)),
                TemplateError::Field("default_witness_commitment"),
            ),
            ("transactions", tx("data", json!("0")), TemplateError::Field("transaction data")),
            ("transactions", tx("txid", json!("11")), TemplateError::Field("txid")),
            ("transactions", tx("hash", json!("11")), TemplateError::Field("transaction hash")),
            ("transactions", tx("depends", json!([1])), TemplateError::Field("transactions: depends")),
            ("transactions", tx("depends", json!([0])), TemplateError::Field("transactions: depends")),
            ("rules", json!(["csv", "!quantum"]), TemplateError::Rule("!quantum".into())),
        ];
        for (field, value, error) in cases {
            let mut changed = answer(&[]);
            changed[field] = value;
            assert_eq!(build(changed), Err(error), "{field}");
        }
        let small = json!({"data": "", "txid": "11".repeat(32), "hash": "11".repeat(32), "depends": [], "fee": 0, "weight": 4});
        let many = vec![small; 1 << BRANCH_MAX];
        let mut changed = answer(&[]);
        changed["transactions"] = json!(many[1..]);
        assert_eq!(build(changed.clone()).unwrap().trim(Class::N12).branch.len(), BRANCH_MAX);
        changed["transactions"] = json!(many);
        assert_eq!(build(changed), Err(TemplateError::Field("transactions: too many")));
    }
}
