//! Services outside that answer as the real ones document it, out of a few figures.

use std::collections::BTreeMap;

use rockpool_workers::outside::call::{Call, CallError, What};
use serde_json::{Value, json};

/// Coins that have contracts, on every chain: the first of the top ones behind bitcoin and ether.
pub const TOKENS: usize = 3;

/// What the services know.
pub struct Services {
    /// Their time, Unix seconds. Prices are of the minute.
    pub now: u64,
    /// Dollars for a coin of any kind.
    pub worth: f64,
    /// Top coins.
    pub coins: usize,
    /// The smallest units that each address has of each coin, on each chain.
    pub units: u128,
    /// What OKX says that each part of an account has.
    pub okx: String,
    /// What each Bitcoin address has in one output.
    pub bitcoins: f64,
    /// What each block paid to whom: script in hex, bitcoins.
    pub paid: Vec<(String, f64)>,
    /// How often each thing was asked.
    pub asked: BTreeMap<&'static str, usize>,
}

impl Services {
    /// Some.
    pub fn new(now: u64) -> Services {
        let (okx, paid, asked) = ("1.5".to_owned(), Vec::new(), BTreeMap::new());
        Services { now, worth: 2.0, coins: 100, units: 5_000_000, okx, bitcoins: 0.25, paid, asked }
    }

    /// The answer to a call.
    pub fn answer(&mut self, call: &Call) -> Result<Vec<u8>, CallError> {
        let answer = match &call.what {
            What::Http { url, body, .. } => self.http(url, body.as_deref().unwrap_or_default()),
            What::Rpc { method, params } => self.rpc(method, params)?,
        };
        Ok(answer.to_string().into_bytes())
    }

    /// The answer of whichever service this URL is of; a chain's ends with its name.
    pub fn http(&mut self, url: &str, body: &str) -> Value {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let parameter = |name: &str| query.split('&').filter_map(|pair| pair.split_once('=')).find(|(of, _)| *of == name).map(|(_, of)| of);
        let kinds = ["simple/price", "coins/markets", "coins/list", "account/balance", "asset/balances"];
        let kind = kinds.into_iter().find(|kind| path.ends_with(kind)).unwrap_or("evm");
        *self.asked.entry(kind).or_default() += 1;
        match kind {
            "simple/price" => {
                let currencies: Vec<_> = parameter("vs_currencies").unwrap().split(',').collect();
                let price = |id: &str| {
                    let mut of: serde_json::Map<_, _> = currencies.iter().map(|of| ((*of).to_owned(), json!(self.worth))).collect();
                    of.insert("last_updated_at".into(), json!(self.now / 60 * 60));
                    (id.to_owned(), Value::Object(of))
                };
                Value::Object(parameter("ids").unwrap().split(',').map(price).collect())
            }
            "coins/markets" => (0..self.coins).map(|n| json!({"id": coin(n), "symbol": symbol(n), "name": coin(n)})).collect(),
            "coins/list" => (0..self.coins).map(|n| json!({"id": coin(n), "platforms": platforms(n)})).collect(),
            "account/balance" => json!({"code": "0", "msg": "", "data": [{"details": [{"ccy": "BTC", "eq": self.okx}]}]}),
            "asset/balances" => json!({"code": "0", "msg": "", "data": [{"ccy": "NOWHERE", "bal": self.okx}]}),
            _ => {
                let chain = path.rsplit('/').next().unwrap();
                let calls: Vec<Value> = serde_json::from_str(body).unwrap();
                assert!(calls.len() <= 100, "a batch of {}", calls.len());
                calls.iter().rev().map(|call| json!({"jsonrpc": "2.0", "id": call["id"], "result": self.evm(chain, call)})).collect()
            }
        }
    }

    fn evm(&self, chain: &str, call: &Value) -> String {
        match call["method"].as_str().unwrap() {
            "eth_chainId" => {
                let ids = [("ethereum", 1), ("arbitrum", 42_161), ("optimism", 10), ("base", 8_453), ("polygon", 137), ("bsc", 56)];
                format!("{:#x}", ids.iter().find(|(name, _)| *name == chain).unwrap().1)
            }
            "eth_getBalance" => format!("{:#x}", self.units),
            _ if call["params"][0]["data"].as_str().unwrap().starts_with("0x313ce567") => format!("0x{:064x}", 6),
            _ => format!("0x{:064x}", self.units),
        }
    }

    fn rpc(&mut self, method: &'static str, params: &Value) -> Result<Value, CallError> {
        *self.asked.entry(method).or_default() += 1;
        Ok(match method {
            "scantxoutset" => {
                let outputs = params[1].as_array().unwrap().iter().enumerate().map(|(n, of)| {
                    let address = of.as_str().unwrap().trim_start_matches("addr(").trim_end_matches(')');
                    let address: bitcoin::Address<bitcoin::address::NetworkUnchecked> = address.parse().unwrap();
                    let script = address.assume_checked().script_pubkey().to_hex_string();
                    json!({"txid": "ab", "vout": n, "scriptPubKey": script, "amount": self.bitcoins, "height": 1, "coinbase": false})
                });
                json!({"success": true, "height": 1, "unspents": outputs.collect::<Vec<_>>()})
            }
            "getblock" => json!({"hash": params[0], "tx": [params[0], "00"]}),
            "getrawtransaction" => {
                let outputs = self.paid.iter().map(|(script, value)| json!({"value": value, "scriptPubKey": {"hex": script}}));
                json!({"txid": params[0], "vin": [{"coinbase": "03"}], "vout": outputs.collect::<Vec<_>>()})
            }
            _ => return Err(CallError::Refused("no such method".into())),
        })
    }
}

fn coin(n: usize) -> String {
    ["bitcoin", "ethereum"].get(n).map_or_else(|| format!("coin-{n}"), |id| (*id).to_owned())
}

fn symbol(n: usize) -> String {
    ["btc", "eth"].get(n).map_or_else(|| format!("c{n}"), |id| (*id).to_owned())
}

fn platforms(n: usize) -> Value {
    let address = format!("0x{n:040x}");
    if !(2..2 + TOKENS).contains(&n) {
        return json!({});
    }
    json!({"ethereum": address, "arbitrum-one": address, "optimistic-ethereum": address, "base": address, "polygon-pos": address,
        "binance-smart-chain": address})
}
