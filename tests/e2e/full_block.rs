//! Blocks as full as they may be, with the largest coinbases: a real bitcoind judges what trimming leaves.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Address, Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, transaction};
use rockpool_net::time::Now;
use rockpool_net::wire::share::{Class, Layout, Script, Share};
use rockpool_store::chain::{Chain, Offer, Source};
use rockpool_store::kv::MemKv;
use rockpool_store::params::{self, Params};
use rockpool_store::rules::target::target_bytes;
use rockpool_store::testing::ShareBuilder;
use rockpool_store::view::ChainView;
use rockpool_workers::template::{Pool, RawTemplate, Template};
use rockpool_workers::work::{Roll, Work, meets};
use serde_json::{Value, json};

use crate::kit::{Bitcoind, hex};

/// Families of three transactions with 9,900 bytes of data each: 4.8 million weight units, a fifth more than a block holds.
const FAMILIES: usize = 40;
/// Small transactions of a lower fee rate, which fill what is left.
const SMALL: usize = 130;
/// Satoshis of a coin that a test's transaction spends.
const COIN: u64 = 1_000_000;

#[test]
fn a_full_mempool_template_with_360_outputs_is_accepted_by_bitcoind() {
    let test = "a_full_mempool_template_with_360_outputs_is_accepted_by_bitcoind";
    let Some(bitcoind) = Bitcoind::start_with(test, &["-datacarriersize=10000"]) else { return };
    fill_mempool(&bitcoind);
    let before = bitcoind.call(&["getbestblockhash"]);
    let raw: RawTemplate = serde_json::from_value(bitcoind.call(&["getblocktemplate", r#"{"rules":["segwit"]}"#])).unwrap();
    let template = raw.build(1, &mut Pool::default()).unwrap();
    let [kept_12, .., kept_360] = template.trims.each_ref().map(|trim| trim.kept);
    assert_eq!(kept_12, template.txs.len(), "bitcoind leaves room for a coinbase of 12 outputs");
    assert!(kept_360 + 2 < kept_12, "and none for one of 360: of {kept_12} transactions {kept_360} fit");
    let lost = template.trims[0].value - template.trims[3].value;
    assert!(lost > 0 && lost < template.trims[0].value / 1_000, "what is dropped pays least: {lost} satoshis");

    let (view, template) = (crowded(), Arc::new(template));
    for class in Class::ALL {
        for layout in [Layout::Tail, Layout::Front] {
            let (_, block) = mined(&view, &template, (class, layout));
            assert_eq!(proposed(&bitcoind, &block), "", "{class:?} {layout:?}");
        }
    }
    // Untrimmed it is no block: the test can fail.
    let mut untrimmed = Template { trims: template.trims.clone(), txs: template.txs.clone(), ..*template };
    untrimmed.trims[3] = untrimmed.trims[0].clone();
    let refused = proposed(&bitcoind, &mined(&view, &Arc::new(untrimmed), (Class::N360, Layout::Tail)).1);
    assert!(refused.as_str().unwrap().starts_with("bad-blk-"), "{refused}");

    for layout in [Layout::Tail, Layout::Front] {
        let (share, block) = mined(&view, &template, (Class::N360, layout));
        assert_eq!(bitcoind.call_long("submitblock", &block), "", "null: it is taken");
        let best = bitcoind.call(&["getbestblockhash"]);
        assert_eq!(best, share.id().to_string());
        let block = bitcoind.call(&["getblock", best.as_str().unwrap(), "1"]);
        assert_eq!(block["nTx"], kept_360 + 1);
        let weight = block["weight"].as_u64().unwrap();
        // The next transaction would have been one of 40,000 units.
        assert!((3_955_000..=4_000_000).contains(&weight), "{weight}");
        let coinbase = bitcoind.call(&["getrawtransaction", block["tx"][0].as_str().unwrap(), "true", best.as_str().unwrap()]);
        assert_eq!(coinbase["vout"].as_array().unwrap().len(), 360 + 2);
        // The block leaves again, and its transactions are in the mempool as before: the next layout is mined on the same template.
        bitcoind.call(&["invalidateblock", best.as_str().unwrap()]);
        assert_eq!(bitcoind.call(&["getbestblockhash"]), before);
    }
}

/// bitcoind's word on a block, whatever its proof of work: nothing, or what is wrong.
fn proposed(bitcoind: &Bitcoind, block: &str) -> Value {
    bitcoind.call_long("getblocktemplate", &json!({"mode": "proposal", "data": block, "rules": ["segwit"]}).to_string())
}

/// A share and its block, in hex.
fn mined(view: &ChainView, template: &Arc<Template>, form: (Class, Layout)) -> (Share, String) {
    let (params, own) = (regtest(), Script::P2tr([1; 32]));
    let next = view.next(params, at(template.curtime));
    let work = Work::new(params, Arc::clone(template), &next, view.payouts(), form, None, 7).unwrap();
    let bits = work.draft.bits;
    let rolls = (0..).map(|nonce| Roll { extranonce: [9; 12], version: template.version, ntime: template.curtime, nonce });
    let mut shares = rolls.map(|roll| work.share(params, &own, bits, &roll));
    let share = shares.find(|share| meets(&share.id().0, &target_bytes(bits)) && meets(&share.id().0, &work.network_target())).unwrap();
    let block = hex(&work.block(params, &share));
    (share, block)
}

/// A chain whose shares are of 400 scripts.
fn crowded() -> ChainView {
    let mut chain = Chain::open(regtest(), [1, 2], &MemKv::new()).unwrap();
    for n in 0..400_u16 {
        let script = Script::P2tr([n.to_be_bytes(); 16].concat().try_into().unwrap());
        let share = ShareBuilder::new(regtest()).script(script).build(&chain, &chain.tip().id);
        assert_eq!(chain.offer(at(share.time), &share, Source::Peer), Offer::Taken);
        chain.confirm(1);
    }
    chain.view()
}

fn regtest() -> &'static Params {
    params::params(params::Network::Regtest)
}

fn at(unix: u32) -> Now {
    Now { mono: Duration::ZERO, wall: Duration::from_secs(unix.into()) }
}

/// Anybody's coins: a witness script of OP_TRUE, so that nothing needs to be signed.
fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51])
}

/// Puts more into the mempool than a block holds.
fn fill_mempool(bitcoind: &Bitcoind) {
    let address = Address::p2wsh(&anyone(), Network::Regtest).to_string();
    let blocks = bitcoind.call(&["generatetoaddress", "101", &address]);
    let first = bitcoind.call(&["getblock", blocks[0].as_str().unwrap(), "1"]);
    let coinbase: Txid = first["tx"][0].as_str().unwrap().parse().unwrap();
    let send = |tx: &Transaction| {
        // No bound on its fee.
        bitcoind.call(&["sendrawtransaction", &serialize_hex(tx), "0"]);
        tx.compute_txid()
    };
    let coins = send(&spend(OutPoint { txid: coinbase, vout: 0 }, vec![coin(COIN); FAMILIES + SMALL]));
    bitcoind.call(&["generatetoaddress", "1", &address]);
    for family in 0..FAMILIES {
        let (mut from, mut left) = (OutPoint { txid: coins, vout: family as u32 }, COIN);
        for member in 0..3 {
            let data = bitcoin::script::PushBytesBuf::try_from(vec![member; 9_900]).unwrap();
            left -= 100_000 + family as u64;
            let data = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new_op_return(data) };
            from = OutPoint { txid: send(&spend(from, vec![coin(left), data])), vout: 0 };
        }
    }
    for small in 0..SMALL {
        send(&spend(OutPoint { txid: coins, vout: (FAMILIES + small) as u32 }, vec![coin(COIN - 500 - small as u64)]));
    }
}

fn coin(sats: u64) -> TxOut {
    TxOut { value: Amount::from_sat(sats), script_pubkey: anyone().to_p2wsh() }
}

fn spend(previous_output: OutPoint, output: Vec<TxOut>) -> Transaction {
    let witness = Witness::from_slice(&[anyone().into_bytes()]);
    let input = vec![TxIn { previous_output, script_sig: ScriptBuf::new(), sequence: Sequence::MAX, witness }];
    Transaction { version: transaction::Version::TWO, lock_time: LockTime::ZERO, input, output }
}
