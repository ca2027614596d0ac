//! A block template: what Bitcoin's side offers to mine on, and how it is read from `getblocktemplate`'s answer.

use bitcoin::hex::FromHex;
use rockpool_net::limits::BRANCH_MAX;
use rockpool_net::sha256::sha256d;
use rockpool_net::wire::message::TxIds;
use rockpool_net::wire::share::Class;
use serde::Deserialize;
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
    /// Header time that it proposes.
    pub curtime: u32,
    /// By class, smallest first: what of the transactions a block has room for beside the coinbase.
    pub trims: [Trim; 4],
    /// The transactions but the coinbase, encoded with witnesses. A parent stands before its children.
    pub txs: Vec<Box<[u8]>>,
    /// Their ids, in the same order.
    pub ids: Vec<TxIds>,
}

impl Template {
    /// What a block with a coinbase of this class holds.
    pub fn trim(&self, class: Class) -> &Trim {
        &self.trims[class as usize]
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
    data: String,
    txid: String,
    /// The id with witnesses (BIP145).
    hash: String,
    /// Which of the list must stand before it, counted from 1 (BIP22).
    depends: Vec<usize>,
    fee: u64,
    weight: u32,
}

/// Rules that a template may demand of its miner (BIP9: "!" before the name); all others are refused.
const RULES_KNOWN: [&str; 2] = ["!segwit", "!signet"];

impl RawTemplate {
    /// Checks the fields and lays the template out, as number `sequence` since start.
    pub fn build(self, sequence: u64) -> Result<Template, TemplateError> {
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
        let txs = self.transactions.iter().map(|tx| Vec::from_hex(&tx.data).map(Vec::into_boxed_slice)).collect::<Result<Vec<_>, _>>();
        let txs = txs.or(Err(TemplateError::Field("transaction data")))?;
        // Hashed here and not taken from the answer: older nodes leave it out, and this thread has the time.
        let ids = listed.iter().zip(&txs).map(|(listed, tx)| TxIds { txid: listed.txid, wtxid: sha256d(tx) }).collect();
        Ok(Template {
            sequence,
            height: self.height,
            prev: hash(&self.previousblockhash, "previousblockhash")?,
            version: u32::try_from(self.version)
                .or(i32::try_from(self.version).map(|v| v as u32))
                .or(Err(TemplateError::Field("version")))?,
            bits: u32::from_str_radix(&self.bits, 16).or(Err(TemplateError::Field("bits")))?,
            mintime: self.mintime,
            curtime: self.curtime.max(self.mintime),
            trims: trims(whole, &listed)?,
            txs,
            ids,
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
        Ok(Listed { txid: hash(&self.txid, "txid")?, wtxid: hash(&self.hash, "transaction hash")?, fee: self.fee, weight: self.weight })
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

/// The commitment in `OP_RETURN aa21a9ed ‖ commitment` (BIP141).
fn witness_commitment(script: &str) -> Result<[u8; 32], TemplateError> {
    let bytes = <[u8; 38]>::from_hex(script).or(Err(TemplateError::Field("default_witness_commitment")))?;
    let commitment = bytes.strip_prefix(&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed]).and_then(|rest| rest.try_into().ok());
    commitment.ok_or(TemplateError::Field("default_witness_commitment"))
}

#[cfg(test)]
pub(crate) mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
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
        serde_json::from_value::<RawTemplate>(answer).unwrap().build(3)
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
            assert_eq!(template.ids, txs.iter().map(ids).collect::<Vec<_>>());
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
