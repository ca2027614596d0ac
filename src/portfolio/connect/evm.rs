//! Chains like Ethereum's, by JSON-RPC: what an address holds of the coin that fees are paid in, and of top coins' contracts.

use std::sync::Arc;

use rockpool_store::limits::AMOUNT_DECIMALS_MAX;
use rockpool_workers::outside::call::{Call, CallError, Service};
use serde_json::{Value, json};

use super::{garbled, http, json, no_headers, said};
use crate::limits::EVM_BATCH_MAX;
use crate::portfolio::chains::{Chain, NATIVE_DECIMALS};
use crate::portfolio::model::{Amount, Contract, Holding};

/// First bytes of a call of `balanceOf(address)`.
const BALANCE_OF: &str = "0x70a08231";
/// First bytes of a call of `decimals()`.
const DECIMALS: &str = "0x313ce567";
/// Error code of a call that the contract itself refuses.
const REVERTED: i64 = 3;

/// Where a chain is asked.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Which chain.
    pub chain: &'static Chain,
    /// Its name among endpoints.
    pub name: Arc<str>,
    /// Where.
    pub url: String,
}

impl Endpoint {
    /// One for this chain at this URL.
    pub fn new(chain: &'static Chain, url: &str) -> Endpoint {
        Endpoint { chain, name: chain.name.into(), url: url.to_owned() }
    }

    /// A batch of calls. The first asks which chain it is: an endpoint of another would tell of another's coins.
    fn batch(&self, calls: Vec<(&str, Value)>) -> Call {
        let first = [("eth_chainId", json!([]))];
        let all = first.into_iter().chain(calls).take(EVM_BATCH_MAX).enumerate();
        let batch: Vec<_> =
            all.map(|(id, (method, params))| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).collect();
        http(Service::Evm, &self.name, self.url.clone(), no_headers(), Some(Value::from(batch).to_string()))
    }

    /// What an address holds: of the chain's coin and of each of these contracts, at most [`crate::limits::TOKENS_PER_CHAIN`].
    pub fn balances(&self, address: &[u8; 20], tokens: &[Contract]) -> Call {
        let native = ("eth_getBalance", json!([hex(address), "latest"]));
        let data = format!("{BALANCE_OF}{:0>64}", &hex(address)[2..]);
        let tokens = tokens.iter().map(|token| call(&token.address, &data));
        self.batch([native].into_iter().chain(tokens).collect())
    }

    /// What the address holds, by the answer to [`Endpoint::balances`]. Of a contract that is none, or tells of more than there can be,
    /// nothing.
    pub fn read_balances(&self, bytes: &[u8], tokens: &[Contract]) -> Result<Vec<Holding>, CallError> {
        let answers = self.answers(bytes, 1 + tokens.len())?;
        let (native, of_tokens) = answers.split_first().ok_or_else(|| garbled("no balance"))?;
        let native = native.clone().map_err(refused)?;
        let native = native.as_str().and_then(quantity).ok_or_else(|| garbled("a balance that is none"))?;
        let mut holdings = vec![self.holding(self.chain.native, native, NATIVE_DECIMALS)];
        for (token, answer) in tokens.iter().zip(of_tokens) {
            let Some(units) = word(answer)? else { continue };
            if let Some(decimals) = token.decimals.filter(|_| token.coin != self.chain.native) {
                holdings.push(self.holding(&token.coin, units, decimals));
            }
        }
        holdings.retain(|holding| !holding.amount.is_zero());
        Ok(holdings)
    }

    fn holding(&self, asset: &str, units: u128, decimals: u8) -> Holding {
        Holding { asset: asset.to_owned(), place: self.chain.name.to_owned(), amount: Amount { units, decimals }, counted: true }
    }

    /// How many places the amounts of contracts have.
    pub fn decimals(&self, of: &[[u8; 20]]) -> Call {
        self.batch(of.iter().map(|contract| call(contract, DECIMALS)).collect())
    }

    /// The places of those that say so: chain, address, places.
    pub fn read_decimals(&self, bytes: &[u8], of: &[[u8; 20]]) -> Result<Vec<(u8, [u8; 20], u8)>, CallError> {
        let mut found = Vec::new();
        for (contract, answer) in of.iter().zip(self.answers(bytes, of.len())?) {
            let places = word(&answer)?.and_then(|places| u8::try_from(places).ok()).filter(|places| *places <= AMOUNT_DECIMALS_MAX);
            found.extend(places.map(|places| (self.chain.id, *contract, places)));
        }
        Ok(found)
    }

    /// The results, or errors, of a batch behind its first, in the order asked; they may have come in any.
    fn answers(&self, bytes: &[u8], count: usize) -> Result<Vec<Result<Value, Value>>, CallError> {
        let answer = json(bytes)?;
        // A service that refuses all of it says so once.
        let list = match &answer {
            Value::Array(list) => list,
            Value::Object(one) if one.contains_key("error") => return Err(refused(one["error"].clone())),
            _ => return Err(garbled("no list of answers")),
        };
        let mut places: Vec<Option<Result<Value, Value>>> = vec![None; count + 1];
        for of in list {
            let place = of["id"]
                .as_u64()
                .and_then(|id| places.get_mut(usize::try_from(id).ok()?))
                .ok_or_else(|| garbled("an answer to nothing"))?;
            let result = match (of.get("result"), of.get("error")) {
                (_, Some(error)) if !error.is_null() => Err(error.clone()),
                (Some(result), _) => Ok(result.clone()),
                _ => return Err(garbled("an answer without a result")),
            };
            if place.replace(result).is_some() {
                return Err(garbled("two answers to the same"));
            }
        }
        let mut answers = places.into_iter().collect::<Option<Vec<_>>>().ok_or_else(|| garbled("an answer is missing"))?;
        let chain = answers.remove(0).map_err(refused)?;
        match chain.as_str().and_then(quantity) {
            Some(id) if id == u128::from(self.chain.chain_id) => Ok(answers),
            Some(id) => {
                Err(CallError::Refused(format!("the endpoint is of chain {id}, not of {} ({})", self.chain.name, self.chain.chain_id)))
            }
            None => Err(garbled("no chain id")),
        }
    }
}

fn refused(error: Value) -> CallError {
    CallError::Refused(said(&error["message"]))
}

/// A call of a contract that changes nothing.
fn call(contract: &[u8; 20], data: &str) -> (&'static str, Value) {
    ("eth_call", json!([{"to": hex(contract), "data": data}, "latest"]))
}

fn hex(address: &[u8; 20]) -> String {
    format!("0x{}", bitcoin::hex::DisplayHex::as_hex(address))
}

/// A number as JSON-RPC writes it.
fn quantity(text: &str) -> Option<u128> {
    let digits = text.strip_prefix("0x").filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    u128::from_str_radix(digits, 16).ok()
}

/// What a contract answers: one word of 32 bytes. `None` from one that is none, refuses, or answers with a number that cannot be; an error
/// that is not the contract's is one of the whole batch.
fn word(answer: &Result<Value, Value>) -> Result<Option<u128>, CallError> {
    match answer {
        Ok(result) => {
            let text = result.as_str().ok_or_else(|| garbled("a result that is no text"))?;
            Ok(Some(text).filter(|text| text.len() == 66).and_then(quantity_of_word))
        }
        Err(error) if error["code"].as_i64() == Some(REVERTED) || said(&error["message"]).contains("revert") => Ok(None),
        Err(error) => Err(refused(error.clone())),
    }
}

/// A word of 32 bytes, unless more than half of them are in use.
fn quantity_of_word(text: &str) -> Option<u128> {
    let digits = text.strip_prefix("0x")?;
    let (high, low) = digits.split_at_checked(32)?;
    high.bytes().all(|digit| digit == b'0').then(|| quantity(&format!("0x{low}")))?
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use rockpool_workers::outside::call::What;

    use super::*;
    use crate::limits::TOKENS_PER_CHAIN;
    use crate::portfolio::chains::by_name;

    const OWNER: [u8; 20] = [0xab; 20];

    fn endpoint() -> Endpoint {
        Endpoint::new(by_name("arbitrum").unwrap(), "http://host/key")
    }

    fn token(n: u8, decimals: Option<u8>) -> Contract {
        Contract { chain: 1, address: [n; 20], coin: format!("coin-{n}"), decimals }
    }

    fn body(call: &Call) -> Vec<Value> {
        let What::Http { url, body: Some(body), .. } = &call.what else { panic!("{call:?}") };
        assert_eq!((url.as_str(), &*call.endpoint, call.service), ("http://host/key", "arbitrum", Service::Evm));
        serde_json::from_str(body).unwrap()
    }

    fn number(n: u128) -> Value {
        format!("0x{n:064x}").into()
    }

    fn answer(id: usize, result: impl Into<Value>) -> Value {
        json!({"jsonrpc": "2.0", "id": id, "result": result.into()})
    }

    fn error(id: usize, code: i64, message: &str) -> Value {
        json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
    }

    fn read(answers: &[Value], tokens: &[Contract]) -> Result<Vec<(String, String)>, CallError> {
        let holdings = endpoint().read_balances(json!(answers).to_string().as_bytes(), tokens)?;
        assert!(holdings.iter().all(|of| of.place == "arbitrum" && of.counted));
        Ok(holdings.into_iter().map(|of| (of.asset, of.amount.to_string())).collect())
    }

    fn of(asset: &str, amount: &str) -> (String, String) {
        (asset.to_owned(), amount.to_owned())
    }

    #[test]
    fn balances_are_asked_in_one_batch_and_read_in_any_order() {
        let tokens = [token(1, Some(6)), token(2, Some(18)), token(3, Some(0))];
        let batch = body(&endpoint().balances(&OWNER, &tokens));
        assert_eq!(batch[0], json!({"jsonrpc": "2.0", "id": 0, "method": "eth_chainId", "params": []}));
        let owner = format!("0x{}", "ab".repeat(20));
        assert_eq!(batch[1], json!({"jsonrpc": "2.0", "id": 1, "method": "eth_getBalance", "params": [owner, "latest"]}));
        let data = format!("0x70a08231{}{}", "00".repeat(12), "ab".repeat(20));
        let params = json!([{"to": format!("0x{}", "01".repeat(20)), "data": data}, "latest"]);
        assert_eq!(batch[2], json!({"jsonrpc": "2.0", "id": 2, "method": "eth_call", "params": params}));
        assert_eq!(batch.len(), 5);
        let answers =
            [answer(4, number(7)), answer(3, number(0)), answer(2, number(1_500_000)), answer(1, "0xde0b6b3a7640000"), answer(0, "0xa4b1")];
        assert_eq!(read(&answers, &tokens).unwrap(), [of("ethereum", "1"), of("coin-1", "1.5"), of("coin-3", "7")]);
    }

    #[test]
    fn a_batch_never_holds_more_than_it_may() {
        let tokens: Vec<_> = (0..TOKENS_PER_CHAIN).map(|n| token(n as u8, Some(1))).collect();
        assert_eq!(body(&endpoint().balances(&OWNER, &tokens)).len(), EVM_BATCH_MAX);
        assert_eq!(body(&endpoint().decimals(&[[1; 20]; TOKENS_PER_CHAIN])).len(), TOKENS_PER_CHAIN + 1);
    }

    #[test]
    fn contracts_that_lie_tell_of_nothing() {
        let tokens: Vec<_> = (1..8).map(|n| token(n, Some(0))).chain([token(9, None)]).collect();
        let most = format!("0x{}", "f".repeat(64));
        let answers = [
            answer(0, "0xa4b1"),
            answer(1, "0x0"),
            answer(2, most),
            answer(3, "0x"),
            error(4, 3, "execution reverted"),
            error(5, -32_000, "VM execution error: revert"),
            answer(6, format!("0x{}", "zz".repeat(32))),
            answer(7, format!("{}00", number(5).as_str().unwrap())),
            answer(8, number(u128::MAX)),
            answer(9, number(1)),
        ];
        assert_eq!(read(&answers, &tokens).unwrap(), [of("coin-7", &u128::MAX.to_string())]);
        // What fees are paid in is counted once, whatever contract shows it too.
        let native = Contract { coin: "ethereum".into(), ..token(1, Some(18)) };
        assert_eq!(read(&[answer(0, "0xa4b1"), answer(1, "0x0"), answer(2, number(1))], &[native]), Ok(Vec::new()));
    }

    #[test]
    fn an_answer_that_cannot_be_is_refused_whole() {
        let tokens = [token(1, Some(6))];
        let good = || [answer(0, "0xa4b1"), answer(1, "0x1"), answer(2, number(1))];
        assert!(read(&good(), &tokens).is_ok());
        let with = |place: usize, value: Value| {
            let mut all = good().to_vec();
            all[place] = value;
            read(&all, &tokens).unwrap_err()
        };
        for (place, value) in [
            (1, answer(1, format!("0x{}", "f".repeat(64)))),
            (1, answer(1, "-0x1")),
            (1, answer(1, "0x-1")),
            (1, answer(1, "0x+1")),
            (1, answer(1, "0x")),
            (1, answer(1, 5)),
            (1, json!({"id": 1})),
            (1, answer(0, "0xa4b1")),
            (1, answer(3, "0x1")),
            (1, json!({"id": "1", "result": "0x1"})),
            (1, Value::Null),
            (2, answer(2, Value::Null)),
        ] {
            assert!(matches!(with(place, value.clone()), CallError::Garbled(_)), "{value}");
        }
        assert_eq!(with(0, answer(0, "0x1")).to_string(), "refused: the endpoint is of chain 1, not of arbitrum (42161)");
        // A limit of the service is no balance of nothing.
        assert_eq!(with(2, error(2, -32_005, "limit exceeded")), CallError::Refused("limit exceeded".into()));
        assert_eq!(with(1, error(1, -32_000, "header not found")), CallError::Refused("header not found".into()));
        let whole = |text: &str| endpoint().read_balances(text.as_bytes(), &tokens).unwrap_err();
        assert_eq!(
            whole(r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"no batches"},"id":null}"#),
            CallError::Refused("no batches".into())
        );
        for text in ["", "[]", "{}", "7", r#"[{"id":18446744073709551616,"result":"0x1"}]"#] {
            assert!(matches!(whole(text), CallError::Garbled(_)), "{text}");
        }
    }

    #[test]
    fn places_of_contracts_are_taken_if_they_can_be() {
        let of: Vec<[u8; 20]> = (1..6).map(|n| [n; 20]).collect();
        assert_eq!(
            body(&endpoint().decimals(&of))[1]["params"],
            json!([{"to": format!("0x{}", "01".repeat(20)), "data": "0x313ce567"}, "latest"])
        );
        let most = u128::from(AMOUNT_DECIMALS_MAX);
        let answers = json!([
            answer(0, "0xa4b1"),
            answer(1, number(6)),
            answer(2, number(most + 1)),
            answer(3, number(256 + 18)),
            answer(4, number(most)),
            error(5, 3, "execution reverted")
        ]);
        let found = endpoint().read_decimals(answers.to_string().as_bytes(), &of).unwrap();
        assert_eq!(found, [(1, [1; 20], 6), (1, [4; 20], AMOUNT_DECIMALS_MAX)]);
    }
}
