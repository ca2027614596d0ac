//! CoinGecko: what coins are worth, which are the top ones, and where they live on chains.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use rockpool_store::limits::COINS_MAX;
use rockpool_workers::outside::call::{Call, CallError, Headers, Service};
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{garbled, http, json, no_headers};
use crate::limits::{COINS_LIST_BYTES, COINS_LISTED_MAX, PRICE_MAX, TOKENS_PER_CHAIN};
use crate::portfolio::chains::CHAINS;
use crate::portfolio::model::{Coin, Contract, Price};

/// Where Polygon's own coin stands as though it were a token, under whichever of its names: the same balance would be counted twice.
const POLYGON_NATIVE: [u8; 20] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x10];

/// How CoinGecko is asked.
pub struct CoinGecko {
    base: String,
    headers: Headers,
    /// Of values.
    pub currencies: Vec<String>,
    /// Its name among endpoints.
    pub endpoint: Arc<str>,
}

impl CoinGecko {
    /// At this URL, with the operator's key if there is one, for values in these currencies.
    pub fn new(base: &str, key: Option<&str>, currencies: &[String]) -> CoinGecko {
        let headers = key.map_or_else(no_headers, |key| {
            let key = key.to_owned();
            Arc::new(move |_| vec![("x-cg-demo-api-key", key.clone())])
        });
        CoinGecko { base: base.to_owned(), headers, currencies: currencies.to_vec(), endpoint: "coingecko".into() }
    }

    fn get(&self, path: &str) -> Call {
        http(Service::CoinGecko, &self.endpoint, format!("{}{path}", self.base), self.headers.clone(), None)
    }

    /// What these coins are worth: at most [`crate::limits::PRICES_PER_CALL`].
    pub fn prices(&self, ids: &[String]) -> Call {
        let ids: Vec<_> = ids.iter().map(|id| escaped(id)).collect();
        let of = format!("ids={}&vs_currencies={}", ids.join(","), self.currencies.join(","));
        self.get(&format!("/simple/price?{of}&include_last_updated_at=true"))
    }

    /// The prices of coins that were asked for, as far as the answer has them.
    pub fn read_prices(&self, bytes: &[u8], asked: &[String], now: u64) -> Result<Vec<Price>, CallError> {
        let answer = json(bytes)?;
        let all = answer.as_object().ok_or_else(|| garbled("no table of prices"))?;
        let price = |id: &String| {
            let of = all.get(id)?;
            // A price from the future would be fresh for ever.
            let at = of["last_updated_at"].as_u64().filter(|at| *at > 0)?.min(now);
            let value = |currency: &String| of[currency].as_f64().filter(|value| *value > 0.0 && *value <= PRICE_MAX);
            let values: BTreeMap<_, _> = self.currencies.iter().filter_map(|currency| Some((currency.clone(), value(currency)?))).collect();
            (!values.is_empty()).then(|| Price { asset: id.clone(), at, values })
        };
        Ok(asked.iter().filter_map(price).collect())
    }

    /// The top coins by market value.
    pub fn top(&self) -> Call {
        self.get(&format!("/coins/markets?vs_currency=usd&order=market_cap_desc&per_page={COINS_MAX}&page=1"))
    }

    /// The top coins, ranked as they came.
    pub fn read_top(&self, bytes: &[u8]) -> Result<Vec<Coin>, CallError> {
        let answer = json(bytes)?;
        let mut coins: Vec<Coin> = Vec::new();
        for of in answer.as_array().ok_or_else(|| garbled("no list of coins"))? {
            let text = |name: &str| of[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
            let (Some(id), Some(symbol), Some(name)) = (text("id"), text("symbol"), text("name")) else { continue };
            if coins.len() < COINS_MAX && !coins.iter().any(|coin| coin.id == id) {
                coins.push(Coin { rank: coins.len() as u16 + 1, id, symbol, name });
            }
        }
        if coins.is_empty() { Err(garbled("a list without a coin")) } else { Ok(coins) }
    }

    /// All coins, with where they live.
    pub fn all(&self) -> Call {
        Call { bytes_max: COINS_LIST_BYTES, ..self.get("/coins/list?include_platform=true") }
    }

    /// Where the top coins live on known chains, the best [`TOKENS_PER_CHAIN`] of each. The list of all coins is long, and not kept.
    pub fn read_contracts(&self, bytes: &[u8], top: &[Coin]) -> Result<Vec<Contract>, CallError> {
        let ranks: BTreeMap<_, _> = top.iter().map(|coin| (coin.id.as_str(), coin.rank)).collect();
        let mut found = BTreeMap::new();
        let mut look = |coin: Listed| {
            let Some((id, rank)) = coin.id.and_then(|id| ranks.get_key_value(&*id)) else { return };
            // What fees are paid in is no contract, though some chains have one that shows the same balance.
            let lives = CHAINS.iter().zip(coin.platforms.0).filter(|(chain, _)| chain.native != *id);
            for (chain, address) in
                lives.filter_map(|(chain, address)| Some((chain, address.filter(|address| *address != POLYGON_NATIVE)?)))
            {
                found.insert((chain.id, *rank), Contract { chain: chain.id, address, coin: (*id).to_owned(), decimals: None });
            }
        };
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let read = reader.deserialize_seq(Each(&mut look)).and_then(|()| reader.end());
        read.map_err(|error| garbled(&format!("no list of coins: {error}")))?;
        let best = |chain: u8| found.range((chain, 0)..=(chain, u16::MAX)).take(TOKENS_PER_CHAIN).map(|(_, contract)| contract.clone());
        Ok(CHAINS.iter().flat_map(|chain| best(chain.id)).collect())
    }
}

/// An address of an EVM chain.
pub fn address(text: &str) -> Option<[u8; 20]> {
    bitcoin::hex::FromHex::from_hex(text.strip_prefix("0x")?).ok()
}

/// Text as part of a query.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // A String takes all that is written.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// What is read of an entry of the list of all coins. As JSON's values, an entry made for it could take sixteen times its bytes.
#[derive(Default, Deserialize)]
struct Listed<'a> {
    #[serde(default, borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(default)]
    platforms: Platforms,
}

/// A coin's address on each known chain.
#[derive(Default)]
struct Platforms([Option<[u8; 20]>; CHAINS.len()]);

impl<'de> Deserialize<'de> for Platforms {
    fn deserialize<D: Deserializer<'de>>(of: D) -> Result<Platforms, D::Error> {
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = Platforms;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Platforms, A::Error> {
                let mut platforms = Platforms::default();
                while let Some(name) = table.next_key::<Cow<'de, str>>()? {
                    match CHAINS.iter().position(|chain| chain.platform == name) {
                        Some(at) => platforms.0[at] = table.next_value::<Option<Cow<'de, str>>>()?.and_then(|text| address(&text)),
                        None => drop(table.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(platforms)
            }
        }
        of.deserialize_map(Table)
    }
}

/// Hands over the entries of a list one by one, so that none is kept.
struct Each<'a>(&'a mut dyn FnMut(Listed<'_>));

impl<'de> Visitor<'de> for Each<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut count = 0;
        while let Some(coin) = list.next_element::<Listed<'de>>()? {
            count += 1;
            if count > COINS_LISTED_MAX {
                return Err(A::Error::custom("more coins than there can be"));
            }
            (self.0)(coin);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use rockpool_workers::outside::call::What;
    use serde_json::json;

    use super::*;
    use crate::limits::{OUTSIDE_ANSWER_BYTES, OUTSIDE_TRY_MAX, PRICES_PER_CALL};

    fn gecko() -> CoinGecko {
        CoinGecko::new("http://host/api/v3", Some("CG-1"), &["usd".into(), "eur".into()])
    }

    fn ids(of: &[&str]) -> Vec<String> {
        of.iter().map(|id| (*id).to_owned()).collect()
    }

    fn url(call: &Call) -> String {
        let What::Http { url, headers, body: None } = &call.what else { panic!("{call:?}") };
        assert_eq!(headers(std::time::Duration::ZERO), [("x-cg-demo-api-key", "CG-1".to_owned())]);
        assert!(call.idempotent && call.service == Service::CoinGecko && call.deadline == OUTSIDE_TRY_MAX);
        url.clone()
    }

    #[test]
    fn prices_are_read_as_documented() {
        let asked = ids(&["bitcoin", "a,b/ü", "gone"]);
        let want = "http://host/api/v3/simple/price?ids=bitcoin,a%2Cb%2F%C3%BC,gone&vs_currencies=usd,eur&include_last_updated_at=true";
        let call = gecko().prices(&asked);
        assert_eq!((url(&call).as_str(), call.bytes_max), (want, OUTSIDE_ANSWER_BYTES));
        // The longest names there are, as many as go into one call: servers take addresses of 8 KiB.
        assert!(url(&gecko().prices(&vec!["x".repeat(60); PRICES_PER_CALL])).len() < 8_000);
        let answer = json!({
            "bitcoin": {"usd": 67187.3358936566, "eur": 61234, "last_updated_at": 1_711_356_300},
            "a,b/ü": {"usd": 1.5e-9, "eur": null, "last_updated_at": 1_711_356_301},
            "nobody-asked": {"usd": 1, "eur": 1, "last_updated_at": 1_711_356_300},
        });
        let prices = gecko().read_prices(answer.to_string().as_bytes(), &asked, 1_711_356_400).unwrap();
        let price = |asset: &str, at, values: &[(&str, f64)]| Price {
            asset: asset.into(),
            at,
            values: values.iter().map(|(currency, value)| ((*currency).to_owned(), *value)).collect(),
        };
        let first = price("bitcoin", 1_711_356_300, &[("usd", 67_187.335_893_656_6), ("eur", 61_234.0)]);
        assert_eq!(prices, [first, price("a,b/ü", 1_711_356_301, &[("usd", 1.5e-9)])]);
    }

    #[test]
    fn prices_that_cannot_be_are_left_out() {
        let read = |text: &str| gecko().read_prices(text.as_bytes(), &ids(&["bitcoin"]), 1_000);
        for of in [
            r#"{"bitcoin":{"usd":-1,"eur":-0.0,"last_updated_at":5}}"#,
            r#"{"bitcoin":{"usd":0,"eur":"9","last_updated_at":5}}"#,
            r#"{"bitcoin":{"usd":1e16,"last_updated_at":5}}"#,
            r#"{"bitcoin":{"usd":1,"last_updated_at":-5}}"#,
            r#"{"bitcoin":{"usd":1,"last_updated_at":null}}"#,
            r#"{"bitcoin":{"usd":1}}"#,
            r#"{"bitcoin":{}}"#,
            r#"{"bitcoin":7}"#,
            r#"{"bitcoin":[]}"#,
            "{}",
        ] {
            assert_eq!(read(of), Ok(Vec::new()), "{of}");
        }
        let most = read(&format!(r#"{{"bitcoin":{{"usd":{PRICE_MAX},"last_updated_at":5}}}}"#)).unwrap();
        assert_eq!(most[0].values["usd"], PRICE_MAX);
        // From the future: as if it were of now. Twice the same key: the last stands, whichever it is.
        let ahead = read(r#"{"bitcoin":{"usd":3,"last_updated_at":99999999999},"bitcoin":{"usd":4,"last_updated_at":99999999999}}"#);
        assert_eq!((ahead.as_ref().unwrap()[0].at, ahead.unwrap()[0].values["usd"]), (1_000, 4.0));
        for of in ["", "[]", "null", r#"{"bitcoin":{"usd":NaN}}"#, r#"{"bitcoin":{"usd":1e400,"last_updated_at":5}}"#, "{\"bitcoin\":"] {
            assert!(matches!(read(of), Err(CallError::Garbled(_))), "{of}");
        }
    }

    #[test]
    fn top_coins_are_ranked_as_they_come() {
        assert_eq!(
            url(&gecko().top()),
            format!("http://host/api/v3/coins/markets?vs_currency=usd&order=market_cap_desc&per_page={COINS_MAX}&page=1")
        );
        let coin = |id: &str, symbol: &str, name: &str| {
            json!({"id": id, "symbol": symbol, "name": name, "current_price": 70_187, "market_cap": 1_381_651_251_183u64,
                "market_cap_rank": 1, "price_change_24h": -12.5, "roi": null, "last_updated": "2024-04-07T16:49:31.736Z"})
        };
        let answer =
            json!([coin("bitcoin", "btc", "Bitcoin"), coin("bitcoin", "btc", "again"), {"id": 7}, coin("tether", "usdt", "Tether")]);
        let coins = gecko().read_top(answer.to_string().as_bytes()).unwrap();
        let told: Vec<_> = coins.iter().map(|coin| (coin.rank, coin.id.as_str(), coin.symbol.as_str(), coin.name.as_str())).collect();
        assert_eq!(told, [(1, "bitcoin", "btc", "Bitcoin"), (2, "tether", "usdt", "Tether")]);
        let many: Vec<_> = (0..5 * COINS_MAX).map(|n| coin(&format!("coin-{n}"), "c", "Coin")).collect();
        assert_eq!(gecko().read_top(json!(many).to_string().as_bytes()).unwrap().len(), COINS_MAX);
        for of in ["[]", "[{}]", "{}", r#"{"status":{"error_code":429}}"#] {
            assert!(matches!(gecko().read_top(of.as_bytes()), Err(CallError::Garbled(_))), "{of}");
        }
    }

    #[test]
    fn contracts_of_top_coins_are_found_and_native_coins_are_none() {
        let call = gecko().all();
        assert_eq!((url(&call).as_str(), call.bytes_max), ("http://host/api/v3/coins/list?include_platform=true", COINS_LIST_BYTES));
        let coin = |rank, id: &str| Coin { rank, id: id.into(), symbol: String::new(), name: String::new() };
        let top = [coin(1, "usd-coin"), coin(2, "polygon-ecosystem-token"), coin(3, "bitcoin")];
        let usdc = "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48";
        let answer = json!([
            {"id": "01coin", "symbol": "zoc", "name": "01coin", "platforms": {}},
            {"id": "usd-coin", "symbol": "usdc", "name": "USDC",
                "platforms": {"ethereum": usdc, "polygon-pos": "0x3C499C542CEF5E3811E1192CE70D8CC03D5C3359", "stellar": "USDC-GA5Z",
                    "base": null, "optimistic-ethereum": "", "solana": "EPjFWdd5"}},
            {"id": "polygon-ecosystem-token", "symbol": "pol", "name": "POL",
                "platforms": {"ethereum": "0x455e53cbb86018ac2b8092fdcd39d8444affc3f6",
                    "polygon-pos": "0x0000000000000000000000000000000000001010"}},
            {"id": "bitcoin", "symbol": "btc", "name": "Bitcoin", "platforms": {"": ""}},
        ]);
        let found = gecko().read_contracts(answer.to_string().as_bytes(), &top).unwrap();
        let told: Vec<_> = found.iter().map(|of| (of.chain, of.coin.as_str(), of.address[0], of.decimals)).collect();
        assert_eq!(told, [(0, "usd-coin", 0xa0, None), (0, "polygon-ecosystem-token", 0x45, None), (4, "usd-coin", 0x3c, None)]);
    }

    #[test]
    fn a_list_of_a_million_coins_is_refused_and_of_a_chain_the_best_are_kept() {
        let list = |count: usize| format!("[{}{{}}]", "{},".repeat(count - 1));
        let many = gecko().read_contracts(list(COINS_LISTED_MAX + 1).as_bytes(), &[]);
        assert!(matches!(many, Err(CallError::Garbled(why)) if why.contains("more coins")));
        assert_eq!(gecko().read_contracts(list(COINS_LISTED_MAX).as_bytes(), &[]), Ok(Vec::new()));
        let name = |n: usize| format!("coin-{n}");
        let top: Vec<_> =
            (0..COINS_MAX).map(|n| Coin { rank: n as u16 + 1, id: name(n), symbol: String::new(), name: String::new() }).collect();
        let list: Vec<_> = (0..COINS_MAX).rev().map(|n| json!({"id": name(n), "platforms": {"base": format!("0x{n:040x}")}})).collect();
        let found = gecko().read_contracts(json!(list).to_string().as_bytes(), &top).unwrap();
        assert_eq!((found.len(), found[0].coin.as_str()), (TOKENS_PER_CHAIN, "coin-0"));
        for bad in ["[[[]", "[7]", "{}", r#"[{"id":[0,0]}]"#, r#"[{"platforms":[0,0]}]"#, r#"[{"platforms":{"base":[0,0]}}]"#] {
            assert!(gecko().read_contracts(bad.as_bytes(), &[]).is_err(), "{bad}");
        }
        // What is not known is passed over unread, however deep.
        let odd = format!(r#"[{{"id":null,"more":{},"platforms":{{"moon":[[0]]}}}}]"#, "[".repeat(9) + &"]".repeat(9));
        assert_eq!(gecko().read_contracts(odd.as_bytes(), &top), Ok(Vec::new()));
        let old_name = json!([{"id": "coin-1", "platforms": {"polygon-pos": "0x0000000000000000000000000000000000001010"}}]);
        assert_eq!(gecko().read_contracts(old_name.to_string().as_bytes(), &top), Ok(Vec::new()), "counted as the chain's own coin");
    }
}
