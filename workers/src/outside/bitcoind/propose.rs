//! The blocks that a template stands for, for bitcoind to judge before anybody works on them (BIP23's `proposal`).

use bitcoin::hashes::Hash;
use bitcoin::hex::DisplayHex;
use bitcoin::transaction::{OutPoint, Transaction, TxIn, TxOut, Version};
use bitcoin::{Amount, ScriptBuf, Sequence, VarInt, Witness, absolute, consensus, script};
use rockpool_net::wire::share::merkle_root;
use serde_json::json;

use super::{Rpc, RpcError, short};
use crate::limits::{ANSWER_BYTES_MAX, RPC_DEADLINE};
use crate::template::Template;
use crate::trim::Trim;

impl Rpc {
    /// What bitcoind has against a block of this template, if anything. Each set of transactions that a class may keep is a block of its
    /// own.
    pub(super) fn propose(&mut self, template: &Template) -> Result<Option<String>, RpcError> {
        let mut before = None;
        for trim in &template.trims {
            if before.replace(trim.kept) == Some(trim.kept) {
                continue;
            }
            let proposal = json!([{"mode": "proposal", "rules": ["segwit"], "data": block(template, trim).to_lower_hex_string()}]);
            match self.call::<Option<String>>("getblocktemplate", proposal, RPC_DEADLINE, ANSWER_BYTES_MAX)? {
                // It has gone on since, and its long poll is about to tell.
                Some(word) if word == "inconclusive-not-best-prevblk" => {}
                Some(word) => return Ok(Some(short(&word))),
                None => {}
            }
        }
        Ok(None)
    }
}

/// A block of these transactions under a coinbase that pays nobody, encoded. All that it does not share with a block that miners find is
/// whom that pays, which no rule of Bitcoin asks for, and its proof of work, which a proposal goes without.
fn block(template: &Template, trim: &Trim) -> Vec<u8> {
    let commitment = [&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed][..], &trim.witness_commitment].concat();
    let outputs = [(trim.value, ScriptBuf::new_op_return([])), (0, ScriptBuf::from_bytes(commitment))];
    let coinbase = Transaction {
        version: Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: script::Builder::new().push_int(i64::from(template.height)).push_slice([0; 8]).into_script(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[0; 32]]),
        }],
        output: outputs.into_iter().map(|(value, script_pubkey)| TxOut { value: Amount::from_sat(value), script_pubkey }).collect(),
    };
    let root = merkle_root(coinbase.compute_txid().to_byte_array(), &trim.branch);
    let txs = &template.txs[..trim.kept];
    let mut block = Vec::with_capacity(1_000 + txs.iter().map(|tx| tx.data.len()).sum::<usize>());
    block.extend_from_slice(&template.version.to_le_bytes());
    block.extend_from_slice(&template.prev);
    block.extend_from_slice(&root);
    [template.curtime, template.bits, 0].iter().for_each(|field| block.extend_from_slice(&field.to_le_bytes()));
    block.extend_from_slice(&consensus::serialize(&VarInt(txs.len() as u64 + 1)));
    block.extend_from_slice(&consensus::serialize(&coinbase));
    txs.iter().for_each(|tx| block.extend_from_slice(&tx.data));
    block
}
