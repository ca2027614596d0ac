//! Bitcoin's chain, by the node's own bitcoind: what addresses hold, and what a found block paid to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hex::FromHex;
use rockpool_net::id::ShareId;
use rockpool_net::wire::share::Script;
use rockpool_workers::outside::call::{Call, CallError, Service, What};
use serde_json::{Value, json};

use super::{garbled, json};
use crate::limits::{BLOCK_ANSWER_BYTES, OUTSIDE_TRY_MAX, SCAN_ANSWER_BYTES, SCAN_TIME_MAX};

/// Satoshis that there can be at most.
const SATS_MAX: u64 = 21_000_000 * 100_000_000;

fn rpc(endpoint: &Arc<str>, method: &'static str, params: Value, deadline: Duration, bytes_max: u64) -> Call {
    // What fails is asked again in good time: bitcoind has more important things to do than to hear it at once.
    Call {
        service: Service::Bitcoind,
        endpoint: endpoint.clone(),
        what: What::Rpc { method, params },
        idempotent: false,
        deadline,
        bytes_max,
    }
}

/// The script that an address stands for. Its network was looked at when it was given.
pub fn script(address: &str) -> Option<Vec<u8>> {
    let address: bitcoin::Address<bitcoin::address::NetworkUnchecked> = address.parse().ok()?;
    Some(address.assume_checked().script_pubkey().into_bytes())
}

/// What these addresses hold, by one scan of all unspent outputs: minutes of bitcoind's time.
pub fn scan(endpoint: &Arc<str>, addresses: &[String]) -> Call {
    let wanted: Vec<_> = addresses.iter().map(|address| format!("addr({address})")).collect();
    rpc(endpoint, "scantxoutset", json!(["start", wanted]), SCAN_TIME_MAX, SCAN_ANSWER_BYTES)
}

/// Satoshis of each address that was asked for, those without any included.
pub fn read_scan(bytes: &[u8], addresses: &[String]) -> Result<BTreeMap<String, u64>, CallError> {
    let answer = json(bytes)?;
    match answer["success"].as_bool() {
        Some(true) => {}
        Some(false) => return Err(CallError::Refused("the scan was stopped".into())),
        None => return Err(garbled("no word of whether the scan was done")),
    }
    let mut held: BTreeMap<_, u64> = addresses.iter().map(|address| (address.clone(), 0)).collect();
    let by_script: BTreeMap<_, _> = addresses.iter().filter_map(|address| Some((script(address)?, address))).collect();
    let mut seen = BTreeSet::new();
    for of in answer["unspents"].as_array().ok_or_else(|| garbled("no list of outputs"))? {
        let (Some(txid), Some(vout)) = (of["txid"].as_str(), of["vout"].as_u64()) else { return Err(garbled("an output without a name")) };
        let script = of["scriptPubKey"].as_str().and_then(|script| Vec::from_hex(script).ok()).ok_or_else(|| garbled("no script"))?;
        let sats = sats(&of["amount"]).ok_or_else(|| garbled("an amount that cannot be"))?;
        // Another's script was not asked for; an output stands there once.
        let Some(address) = by_script.get(&script).filter(|_| seen.insert((txid, vout))) else { continue };
        let sum = held.get_mut(*address).ok_or_else(|| garbled("no address"))?;
        *sum = sum.checked_add(sats).filter(|sum| *sum <= SATS_MAX).ok_or_else(|| garbled("more bitcoins than there are"))?;
    }
    Ok(held)
}

/// A block's transactions, by name.
pub fn block(endpoint: &Arc<str>, hash: &ShareId) -> Call {
    rpc(endpoint, "getblock", json!([hash.to_string(), 1]), OUTSIDE_TRY_MAX, BLOCK_ANSWER_BYTES)
}

/// The name of the block's first transaction.
pub fn read_block(bytes: &[u8], hash: &ShareId) -> Result<String, CallError> {
    let answer = json(bytes)?;
    if answer["hash"].as_str() != Some(&hash.to_string()) {
        return Err(garbled("another block than was asked for"));
    }
    let name = answer["tx"][0].as_str().filter(|name| <[u8; 32]>::from_hex(name).is_ok());
    name.map(str::to_owned).ok_or_else(|| garbled("no first transaction"))
}

/// The block's first transaction.
pub fn coinbase(endpoint: &Arc<str>, hash: &ShareId, name: &str) -> Call {
    rpc(endpoint, "getrawtransaction", json!([name, true, hash.to_string()]), OUTSIDE_TRY_MAX, BLOCK_ANSWER_BYTES)
}

/// What a block's first transaction pays to whom, as far as they are scripts that miners can have.
pub fn read_coinbase(bytes: &[u8], name: &str) -> Result<Vec<(Script, u64)>, CallError> {
    let answer = json(bytes)?;
    if answer["txid"].as_str() != Some(name) || !answer["vin"][0]["coinbase"].is_string() {
        return Err(garbled("another transaction than was asked for"));
    }
    let mut paid: BTreeMap<Script, u64> = BTreeMap::new();
    for of in answer["vout"].as_array().ok_or_else(|| garbled("no outputs"))? {
        let script =
            of["scriptPubKey"]["hex"].as_str().and_then(|script| Vec::from_hex(script).ok()).ok_or_else(|| garbled("no script"))?;
        let sats = sats(&of["value"]).ok_or_else(|| garbled("an amount that cannot be"))?;
        if let Some(script) = Script::from_script_pubkey(&script).filter(|_| sats > 0) {
            let sum = paid.entry(script).or_default();
            *sum = sum.checked_add(sats).filter(|sum| *sum <= SATS_MAX).ok_or_else(|| garbled("more bitcoins than there are"))?;
        }
    }
    Ok(paid.into_iter().collect())
}

/// Bitcoins with eight places, as bitcoind writes them. As many as there can be are exact in a float.
fn sats(bitcoins: &Value) -> Option<u64> {
    let sats = (bitcoins.as_f64()? * 1e8).round();
    (0.0..=SATS_MAX as f64).contains(&sats).then_some(sats as u64)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const MINE: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
    const OTHER: &str = "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa";

    fn at() -> Arc<str> {
        "bitcoind".into()
    }

    fn hex(script: &[u8]) -> String {
        bitcoin::hex::DisplayHex::to_lower_hex_string(script)
    }

    fn output(n: u64, address: &str, amount: Value) -> Value {
        json!({"txid": "ab".repeat(32), "vout": n, "scriptPubKey": hex(&script(address).unwrap()), "desc": "addr(x)#y", "amount": amount,
            "coinbase": false, "height": 5, "blockhash": "00", "confirmations": 1})
    }

    fn scanned(unspents: Value) -> Result<BTreeMap<String, u64>, CallError> {
        let answer = json!({"success": true, "txouts": 9, "height": 840_000, "bestblock": "00", "unspents": unspents, "total_amount": 1.0});
        read_scan(answer.to_string().as_bytes(), &[MINE.to_owned(), OTHER.to_owned()])
    }

    #[test]
    fn one_scan_tells_what_all_addresses_hold() {
        let call = scan(&at(), &[MINE.to_owned(), OTHER.to_owned()]);
        let What::Rpc { method, params } = &call.what else { panic!() };
        assert_eq!((*method, params), ("scantxoutset", &json!(["start", [format!("addr({MINE})"), format!("addr({OTHER})")]])));
        // A second one beside it would be refused; it takes as long as it takes.
        assert!(!call.idempotent && call.deadline == SCAN_TIME_MAX && call.bytes_max == SCAN_ANSWER_BYTES);
        let held =
            scanned(json!([output(0, MINE, json!(0.1)), output(1, MINE, json!(0.000_000_01)), output(0, MINE, json!(0.1))])).unwrap();
        assert_eq!((held[MINE], held[OTHER]), (10_000_001, 0), "one output stands there twice");
        let all = scanned(json!([output(0, OTHER, json!(20_999_999.976_9))])).unwrap();
        assert_eq!(all[OTHER], 2_099_999_997_690_000);
        for sats in [1u64, 29, 58, 1_000_003, 123_456_789, 2_099_999_999_999_999] {
            let text = format!("{}.{:08}", sats / 100_000_000, sats % 100_000_000);
            assert_eq!(scanned(json!([output(0, MINE, serde_json::from_str(&text).unwrap())])).unwrap()[MINE], sats);
        }
    }

    #[test]
    fn a_scan_that_cannot_be_is_refused() {
        let stranger = "bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry";
        assert_eq!(scanned(json!([output(0, stranger, json!(1))])).unwrap().values().sum::<u64>(), 0, "another's address");
        for of in [
            json!([output(0, MINE, json!(-0.1))]),
            json!([output(0, MINE, json!("0.1"))]),
            json!([output(0, MINE, json!(21_000_000.000_000_01))]),
            json!([output(0, MINE, json!(1e300))]),
            json!([output(0, MINE, json!(21_000_000)), output(1, MINE, json!(0.000_000_01))]),
            json!([{"vout": 0}]),
            json!([{"txid": "a", "vout": 0, "scriptPubKey": "zz", "amount": 1}]),
            json!({}),
            Value::Null,
        ] {
            assert!(matches!(scanned(of.clone()), Err(CallError::Garbled(_))), "{of}");
        }
        let of = |text: &str| read_scan(text.as_bytes(), &[]).unwrap_err();
        assert_eq!(of(r#"{"success":false,"unspents":[]}"#), CallError::Refused("the scan was stopped".into()));
        assert!(
            matches!(of("null"), CallError::Garbled(_))
                && matches!(of(r#"{"success":true,"unspents":[{"amount":1e400}]}"#), CallError::Garbled(_))
        );
    }

    #[test]
    fn a_blocks_payments_are_read_from_its_first_transaction() {
        let (hash, name) = (ShareId([7; 32]), "ab".repeat(32));
        let call = block(&at(), &hash);
        assert!(!call.idempotent && call.bytes_max == BLOCK_ANSWER_BYTES);
        let What::Rpc { method, params } = call.what else { panic!() };
        assert_eq!((method, params), ("getblock", json!(["07".repeat(32), 1])));
        let answer = json!({"hash": "07".repeat(32), "confirmations": 3, "height": 5, "nTx": 2, "tx": [name, "cd".repeat(32)]});
        assert_eq!(read_block(answer.to_string().as_bytes(), &hash).unwrap(), name);
        for bad in [
            json!({"hash": "08".repeat(32), "tx": [name]}),
            json!({"hash": "07".repeat(32), "tx": []}),
            json!({"hash": "07".repeat(32), "tx": ["x"]}),
        ] {
            assert!(matches!(read_block(bad.to_string().as_bytes(), &hash), Err(CallError::Garbled(_))), "{bad}");
        }
        let What::Rpc { method, params } = coinbase(&at(), &hash, &name).what else { panic!() };
        assert_eq!((method, params), ("getrawtransaction", json!([name, true, "07".repeat(32)])));
        let (one, two) = (Script::P2wpkh([1; 20]), Script::P2tr([2; 32]));
        let out = |script: &[u8], value: f64| json!({"value": value, "n": 0, "scriptPubKey": {"asm": "", "hex": hex(script), "type": "x"}});
        let answer = |outputs: Value| json!({"txid": name, "vin": [{"coinbase": "03", "sequence": 0}], "vout": outputs}).to_string();
        let outputs = json!([
            out(&two.script_pubkey(), 3.0),
            out(&one.script_pubkey(), 0.125),
            out(&[0x6a, 0x24], 0.0),
            out(&one.script_pubkey(), 0.000_000_01)
        ]);
        assert_eq!(read_coinbase(answer(outputs).as_bytes(), &name).unwrap(), [(one, 12_500_001), (two, 300_000_000)]);
        assert!(read_coinbase(answer(json!([out(&[], -1.0)])).as_bytes(), &name).is_err());
        assert!(read_coinbase(answer(json!([])).as_bytes(), "another").is_err());
        assert!(read_coinbase(answer(json!(7)).as_bytes(), &name).is_err());
        assert!(read_coinbase(json!({"txid": name, "vin": [{"txid": "x"}], "vout": []}).to_string().as_bytes(), &name).is_err());
    }
}
