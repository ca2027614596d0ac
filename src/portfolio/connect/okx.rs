//! OKX: what an account has there, by its keys for reading.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ring::hmac;
use rockpool_workers::outside::call::{Call, CallError, Service};
use serde_json::Value;

use super::{garbled, http, json, said};
use crate::http::blocks::date;
use crate::limits::{OKX_PLACES_MAX, OKX_SYMBOL_MAX};
use crate::portfolio::model::{Amount, Coin, Holding};

/// Keys of an account. They show nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// The key's name.
    pub key: String,
    /// What requests are signed with.
    pub secret: String,
    /// The word that goes with it.
    pub passphrase: String,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

/// A part of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What is traded with.
    Trading,
    /// What comes and goes.
    Funding,
}

impl Part {
    fn path(self) -> &'static str {
        match self {
            Part::Trading => "/api/v5/account/balance",
            Part::Funding => "/api/v5/asset/balances",
        }
    }

    /// As holdings say where they are.
    pub fn place(self) -> &'static str {
        match self {
            Part::Trading => "trading",
            Part::Funding => "funding",
        }
    }
}

/// Balances of a part of an account.
pub fn balances(endpoint: &Arc<str>, base: &str, part: Part, keys: &Keys) -> Call {
    let signer = hmac::Key::new(hmac::HMAC_SHA256, keys.secret.as_bytes());
    let (key, passphrase) = (keys.key.clone(), keys.passphrase.clone());
    let headers = Arc::new(move |wall: Duration| {
        let at = timestamp(wall);
        let signed = hmac::sign(&signer, format!("{at}GET{}", part.path()).as_bytes());
        vec![
            ("OK-ACCESS-KEY", key.clone()),
            ("OK-ACCESS-SIGN", base64(signed.as_ref())),
            ("OK-ACCESS-TIMESTAMP", at),
            ("OK-ACCESS-PASSPHRASE", passphrase.clone()),
        ]
    });
    http(Service::Okx, endpoint, format!("{base}{}", part.path()), headers, None)
}

/// What a part of an account holds, and what cannot be told as a holding.
pub fn read_balances(bytes: &[u8], part: Part, top: &[Coin]) -> Result<(Vec<Holding>, Option<String>), CallError> {
    let answer = json(bytes)?;
    match answer["code"].as_str() {
        Some("0") => {}
        Some(code) => return Err(CallError::Refused(format!("OKX says {}: {}", said(&Value::from(code)), said(&answer["msg"])))),
        None => return Err(garbled("no code")),
    }
    let data = answer["data"].as_array().ok_or_else(|| garbled("no data"))?;
    let (list, field) = match part {
        Part::Trading => {
            let details = data.first().map_or(Some(&[][..]), |of| of["details"].as_array().map(Vec::as_slice));
            (details.ok_or_else(|| garbled("no details"))?, "eq")
        }
        Part::Funding => (data.as_slice(), "bal"),
    };
    let (mut holdings, mut owed): (Vec<Holding>, Vec<&str>) = (Vec::new(), Vec::new());
    for of in list {
        let symbol = of["ccy"].as_str().filter(|symbol| is_symbol(symbol)).ok_or_else(|| garbled("no symbol of a coin"))?;
        let text = of[field].as_str().ok_or_else(|| garbled("no amount"))?;
        if text.starts_with('-') {
            owed.push(symbol);
            continue;
        }
        let amount = amount(text).ok_or_else(|| garbled("an amount that is none"))?;
        let asset = asset(symbol, top);
        // Twice the same coin would be added up by no rule of the service.
        if holdings.iter().any(|holding| holding.asset == asset) {
            return Err(garbled("a coin stands there twice"));
        }
        if !amount.is_zero() {
            holdings.push(Holding { asset, place: part.place().to_owned(), amount, counted: true });
        }
    }
    owed.truncate(3);
    let owed = (!owed.is_empty()).then(|| format!("debts are not counted: {}", owed.join(", ")));
    Ok((holdings, owed))
}

/// The top coin of a symbol, the best ranked one if there are several; else it stands under its symbol.
fn asset(symbol: &str, top: &[Coin]) -> String {
    let known = top.iter().filter(|coin| coin.symbol.eq_ignore_ascii_case(symbol)).min_by_key(|coin| coin.rank);
    known.map_or_else(|| format!("okx:{symbol}"), |coin| coin.id.clone())
}

fn is_symbol(text: &str) -> bool {
    (1..=OKX_SYMBOL_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// An amount, without places that nobody sees. Nothing is zero: so OKX writes what an account of this kind does not have.
fn amount(text: &str) -> Option<Amount> {
    if text.is_empty() {
        return Some(Amount::default());
    }
    let end = text.find('.').map_or(text.len(), |point| (point + 1 + OKX_PLACES_MAX).min(text.len()));
    let (kept, cut) = text.is_char_boundary(end).then(|| text.split_at(end))?;
    cut.bytes().all(|byte| byte.is_ascii_digit()).then(|| Amount::parse(kept))?
}

/// ISO 8601 in milliseconds.
fn timestamp(wall: Duration) -> String {
    format!("{}.{:03}Z", date(wall.as_secs()).replace(' ', "T"), wall.subsec_millis())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().enumerate().fold(0u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use rockpool_workers::outside::call::What;
    use serde_json::json;

    use super::*;

    fn top() -> Vec<Coin> {
        let coin = |rank, id: &str, symbol: &str| Coin { rank, id: id.into(), symbol: symbol.into(), name: String::new() };
        vec![coin(1, "bitcoin", "btc"), coin(2, "ethereum", "eth"), coin(9, "fake-eth", "ETH"), coin(3, "tether", "usdt")]
    }

    fn told(holdings: &[Holding]) -> Vec<(String, String, String)> {
        holdings.iter().map(|of| (of.asset.clone(), of.place.clone(), of.amount.to_string())).collect()
    }

    #[test]
    fn requests_are_signed_at_the_time_of_the_try() {
        let keys = Keys { key: "37c541a1".into(), secret: "22582BD0CFF14C41EDBF1AB98506286D".into(), passphrase: "word".into() };
        let call = balances(&"okx".into(), "https://www.okx.com", Part::Trading, &keys);
        let What::Http { url, headers, body: None } = &call.what else { panic!("{call:?}") };
        assert_eq!(url, "https://www.okx.com/api/v5/account/balance");
        let lines = headers(Duration::from_millis(1_607_418_537_715));
        assert_eq!(lines[2], ("OK-ACCESS-TIMESTAMP", "2020-12-08T09:08:57.715Z".to_owned()));
        // By `openssl dgst -sha256 -hmac`, of "2020-12-08T09:08:57.715ZGET/api/v5/account/balance".
        assert_eq!(lines[1], ("OK-ACCESS-SIGN", "AkD5YszBhggtIyjDlmTy/9PpNVntel+1Lff8wh0qpQw=".to_owned()));
        assert_eq!((lines[0].1.as_str(), lines[3].1.as_str()), ("37c541a1", "word"));
        assert_ne!(headers(Duration::from_millis(1_607_418_537_716))[1], lines[1]);
        let shown = format!("{call:?} {keys:?}");
        assert!(!shown.contains("22582") && !shown.contains("word") && !shown.contains("37c5"), "{shown}");
    }

    #[test]
    fn base64_is_as_in_rfc_4648() {
        for (text, want) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(text.as_bytes()), want);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn both_parts_are_read_as_documented() {
        let trading = json!({"code": "0", "msg": "", "data": [{"adjEq": "55415.624719833286", "totalEq": "55837.43556134779",
        "uTime": "1705474164160",
        "details": [
            {"ccy": "USDT", "eq": "4992.890093622894", "cashBal": "4850.435693622894", "availBal": "4834.317093622894", "disEq": "4991.5"},
            {"ccy": "BTC", "eq": "0.0000000000123456789012345678901234567890123", "cashBal": ""},
            {"ccy": "ETH", "eq": "0", "cashBal": "0"},
            {"ccy": "SOL", "eq": "-1.5"},
            {"ccy": "XYZ", "eq": "7"},
        ]}]});
        let (holdings, owed) = read_balances(trading.to_string().as_bytes(), Part::Trading, &top()).unwrap();
        let of = |asset: &str, place: &str, amount: &str| (asset.to_owned(), place.to_owned(), amount.to_owned());
        assert_eq!(
            told(&holdings),
            [of("tether", "trading", "4992.890093622894"), of("bitcoin", "trading", "0.000000000012345678"), of("okx:XYZ", "trading", "7"),]
        );
        assert_eq!(owed.unwrap(), "debts are not counted: SOL");
        let funding = json!({"code": "0", "msg": "", "data": [
            {"availBal": "37.11827078", "bal": "37.11827078", "ccy": "ETH", "frozenBal": "0"},
            {"availBal": "", "bal": "", "ccy": "BTC", "frozenBal": "0"}]});
        let (holdings, owed) = read_balances(funding.to_string().as_bytes(), Part::Funding, &top()).unwrap();
        assert_eq!((told(&holdings), owed), (vec![of("ethereum", "funding", "37.11827078")], None), "the best ranked of the symbol");
        let none = br#"{"code":"0","data":[],"msg":""}"#;
        assert_eq!(read_balances(none, Part::Trading, &top()), Ok((Vec::new(), None)));
        assert_eq!(read_balances(none, Part::Funding, &top()), Ok((Vec::new(), None)));
    }

    #[test]
    fn codes_in_a_good_answer_are_refusals() {
        let read = |text: &str| read_balances(text.as_bytes(), Part::Funding, &top());
        let refused = read(r#"{"code":"50111","msg":"Invalid OK-ACCESS-KEY\n","data":[]}"#).unwrap_err();
        assert_eq!(refused, CallError::Refused("OKX says 50111: Invalid OK-ACCESS-KEY ".into()));
        let long = read(&json!({"code": "1", "msg": "x".repeat(9_999)}).to_string()).unwrap_err().to_string();
        assert!(long.len() < 200, "{long}");
    }

    #[test]
    fn what_cannot_be_refuses_all() {
        let funding = |balance: Value, symbol: Value| {
            let answer = json!({"code": "0", "data": [{"ccy": symbol, "bal": balance}]});
            read_balances(answer.to_string().as_bytes(), Part::Funding, &top()).map(|(holdings, _)| told(&holdings))
        };
        for balance in
            ["NaN", "1e400", "Infinity", "0x10", "+1", "1.2.3", "1.ü", "1.0000000000000000000000000ü", &u128::MAX.to_string().repeat(2)]
        {
            assert!(funding(balance.into(), "BTC".into()).is_err(), "{balance}");
        }
        assert!(funding(1.into(), "BTC".into()).is_err() && funding("1".into(), Value::Null).is_err());
        assert!(funding("1".into(), "X".repeat(OKX_SYMBOL_MAX).into()).is_ok());
        assert!(funding("1".into(), "X".repeat(OKX_SYMBOL_MAX + 1).into()).is_err() && funding("1".into(), "A B".into()).is_err());
        let places = format!("0.{}1", "0".repeat(OKX_PLACES_MAX - 1));
        assert_eq!(funding(format!("{places}9").into(), "BTC".into()).unwrap()[0].2, places);
        for text in ["", "[]", "{}", r#"{"code":0,"data":[]}"#, r#"{"code":"0"}"#, r#"{"code":"0","data":{}}"#] {
            assert!(matches!(read_balances(text.as_bytes(), Part::Funding, &[]), Err(CallError::Garbled(_))), "{text}");
        }
        let twice = r#"{"code":"0","data":[{"ccy":"BTC","bal":"1"},{"ccy":"btc","bal":"1"}]}"#;
        assert!(read_balances(twice.as_bytes(), Part::Funding, &top()).is_err());
        assert!(read_balances(br#"{"code":"0","data":[{"totalEq":"1"}]}"#, Part::Trading, &[]).is_err());
    }
}
