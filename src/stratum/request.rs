//! A miner's line: a method with its parameters, in all the odd forms that firmware sends.

use std::borrow::Cow;

use rockpool_net::wire::share::Script;
use rockpool_store::params::Network;
use rockpool_workers::work::VERSION_MASK;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::limits::{AGENT_BYTES_MAX, USER_BYTES_MAX};
use crate::stratum::difficulty::asked;
use crate::stratum::firmware::hints;

/// Bytes of extranonce1, the connection's own.
pub const EXTRANONCE1_BYTES: usize = 4;
/// Bytes of extranonce2, the miner's to roll: no device takes more than 8, rental markets want at least 7.
pub const EXTRANONCE2_BYTES: usize = 8;

/// A line, its id kept as it stands: whatever JSON value it is, it goes back unchanged.
#[derive(Debug, Deserialize)]
pub struct Line<'a> {
    /// The request's id; a null and none at all are the same.
    #[serde(borrow, default)]
    pub id: Option<&'a RawValue>,
    /// Absent in the answers that some devices send to what we push.
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(default)]
    params: Value,
}

/// What a line asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// `mining.configure`: the extensions asked for, and the version bits wanted (none means all).
    Configure {
        /// Names of extensions, in their order.
        extensions: Vec<String>,
        /// `version-rolling.mask`.
        mask: Option<u32>,
    },
    /// `mining.subscribe`.
    Subscribe {
        /// The user agent, cut.
        agent: String,
    },
    /// `mining.authorize`.
    Authorize {
        /// `address[.worker]`.
        user: String,
        /// Hints, `d=…,c=…,l=…`.
        password: String,
    },
    /// `mining.submit`; what is wrong with its fields is told only after who sent it is known.
    Submit(Result<Submit, &'static str>),
    /// `mining.suggest_difficulty`.
    SuggestDifficulty(Option<f64>),
    /// `mining.extranonce.subscribe`.
    ExtranonceSubscribe,
    /// `mining.ping`.
    Ping,
    /// `mining.get_transactions`, of this job or of the newest.
    GetTransactions(Option<u64>),
    /// An answer to something we pushed.
    Response,
    /// Nothing we know.
    Unknown,
}

/// A submit's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submit {
    /// The job's id.
    pub job: u64,
    /// What the miner rolled of the coinbase.
    pub extranonce2: [u8; EXTRANONCE2_BYTES],
    /// Header time.
    pub ntime: u32,
    /// Header nonce.
    pub nonce: u32,
    /// The version bits that it rolled, if it sent any.
    pub version_bits: Option<u32>,
}

impl<'a> Line<'a> {
    /// Reads a line; `None` if it is no JSON object.
    pub fn parse(line: &'a [u8]) -> Option<Line<'a>> {
        // A list of three would do for serde.
        line.starts_with(b"{").then(|| serde_json::from_slice(line).ok()).flatten()
    }

    /// What it asks for.
    pub fn request(&self) -> Request {
        let params = self.params.as_array().map_or(&[][..], Vec::as_slice);
        match self.method.as_deref() {
            None => Request::Response,
            Some("mining.configure") => configure(params),
            Some("mining.subscribe") => Request::Subscribe { agent: text(params, 0, AGENT_BYTES_MAX) },
            Some("mining.authorize") => {
                Request::Authorize { user: text(params, 0, USER_BYTES_MAX + 1), password: text(params, 1, AGENT_BYTES_MAX) }
            }
            Some("mining.submit") => Request::Submit(submit(params)),
            Some("mining.suggest_difficulty") => Request::SuggestDifficulty(params.first().and_then(number).and_then(asked)),
            Some("mining.extranonce.subscribe") => Request::ExtranonceSubscribe,
            Some("mining.ping") => Request::Ping,
            Some("mining.get_transactions") => {
                let job = params.first().and_then(Value::as_str).and_then(|job| u64::from_str_radix(job, 16).ok());
                Request::GetTransactions(job)
            }
            Some(_) => Request::Unknown,
        }
    }
}

fn configure(params: &[Value]) -> Request {
    let extensions = params.first().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let extensions = extensions.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let mask = params.get(1).and_then(|options| options.get("version-rolling.mask")).and_then(Value::as_str);
    Request::Configure { extensions, mask: mask.and_then(|mask| u32::from_str_radix(mask.trim_start_matches("0x"), 16).ok()) }
}

fn submit(params: &[Value]) -> Result<Submit, &'static str> {
    let field = |index: usize| params.get(index).and_then(Value::as_str);
    let job = field(1).ok_or("job id missing")?;
    // An id that we never gave is a stale job, not a malformed one: number 0 is never given.
    let job = u64::from_str_radix(job, 16).unwrap_or(0);
    let extranonce2 = field(2).and_then(hex).ok_or("extranonce2 must be 8 bytes in hex")?;
    let word = |text: &str| hex(text).map(u32::from_be_bytes);
    let ntime = field(3).and_then(word).ok_or("ntime must be 4 bytes in hex")?;
    let nonce = field(4).and_then(word).ok_or("nonce must be 4 bytes in hex")?;
    let version_bits = match params.get(5) {
        None | Some(Value::Null) => None,
        Some(bits) => Some(bits.as_str().and_then(word).ok_or("version bits must be 4 bytes in hex")?),
    };
    Ok(Submit { job, extranonce2, ntime, nonce, version_bits })
}

/// A text parameter, cut at a character boundary to at most so many bytes; empty where there is none.
fn text(params: &[Value], index: usize, bytes_max: usize) -> String {
    let text = params.get(index).and_then(Value::as_str).unwrap_or_default();
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}

/// A number, or the text of one.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// Exactly `N` bytes of hex in either case.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

/// The header version of a submit: the job's with the rolled bits in their place.
pub fn rolled(version: u32, mask: u32, bits: Option<u32>) -> Result<u32, &'static str> {
    match bits {
        None => Ok(version),
        Some(bits) if bits & !mask == 0 => Ok((version & !mask) | bits),
        Some(_) => Err("version bits outside the mask"),
    }
}

/// The bits that a miner may roll of those it asked for.
pub fn granted(asked: Option<u32>) -> u32 {
    asked.map_or(VERSION_MASK, |asked| asked & VERSION_MASK)
}

/// A user name: whom to pay, and the worker's name after a point, or after whatever else no address holds: ckpool's users write `_`,
/// rental markets `/`.
pub fn login(user: &str, network: Network) -> Result<(Script, String), String> {
    if user.len() > USER_BYTES_MAX {
        return Err(format!("user name longer than {USER_BYTES_MAX} bytes"));
    }
    let user = user.trim();
    let (address, rest) = user.split_at(user.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(user.len()));
    let worker = rest.char_indices().nth(1).map_or("", |(at, _)| &rest[at..]);
    if address.is_empty() {
        return Err("user name must be a Bitcoin address, optionally followed by .worker".to_owned());
    }
    let chain = match network {
        Network::Main => bitcoin::Network::Bitcoin,
        Network::Signet => bitcoin::Network::Signet,
        Network::Testnet4 => bitcoin::Network::Testnet4,
        Network::Regtest => bitcoin::Network::Regtest,
    };
    let parsed: bitcoin::Address<bitcoin::address::NetworkUnchecked> =
        address.parse().map_err(|_| format!("{} is not a Bitcoin address", shown(address)))?;
    let parsed = parsed.require_network(chain).map_err(|_| format!("{} is an address of another network, not {chain}", shown(address)))?;
    let script = payable(&parsed).ok_or("only P2WPKH, P2WSH and P2TR addresses can be paid (they begin with bc1, tb1 or bcrt1)")?;
    Ok((script, worker.to_owned()))
}

fn payable(address: &bitcoin::Address) -> Option<Script> {
    let program = address.witness_program()?;
    let bytes = program.program().as_bytes();
    match (program.version().to_num(), bytes.len()) {
        (0, 20) => Some(Script::P2wpkh(bytes.try_into().ok()?)),
        (0, 32) => Some(Script::P2wsh(bytes.try_into().ok()?)),
        (1, 32) => Some(Script::P2tr(bytes.try_into().ok()?)),
        _ => None,
    }
}

/// What somebody typed, fit for a message: printable and short.
fn shown(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(90).collect()
}

/// The difficulty in a password of hints, `d=0.001,…`.
pub fn password_difficulty(password: &str) -> Option<f64> {
    hints(password, "d=").find_map(|value| value.parse().ok().and_then(asked))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn read(line: &str) -> Request {
        Line::parse(line.as_bytes()).unwrap().request()
    }

    #[test]
    fn ids_of_any_kind_stay_as_they_stand() {
        for id in ["1", "\"abc\"", "1.50", "-7", "[1, {\"a\":null}]", "\"\\u00e9\\n\"", "true", "1e400"] {
            let line = format!(r#"{{"id": {id} ,"method":"mining.ping"}}"#);
            assert_eq!(Line::parse(line.as_bytes()).unwrap().id.unwrap().get(), id);
        }
        assert!(Line::parse(br#"{"id":null,"method":"mining.ping"}"#).unwrap().id.is_none());
        assert!(Line::parse(br#"{"method":"mining.ping"}"#).unwrap().id.is_none());
    }

    #[test]
    fn odd_forms_are_read() {
        assert_eq!(read(r#"{"method":"mining.subscribe","params":null}"#), Request::Subscribe { agent: String::new() });
        assert_eq!(read(r#"{"method":"mining.subscribe"}"#), Request::Subscribe { agent: String::new() });
        assert_eq!(read(r#"{"method":"mining.subscribe","params":{}}"#), Request::Subscribe { agent: String::new() });
        assert_eq!(read(r#"{"method":"mining.subscribe","params":["a|b",null,"h:1",null]}"#), Request::Subscribe { agent: "a|b".into() });
        assert_eq!(read(r#"{"method":"m\u0069ning.ping","params":[1,2,3]}"#), Request::Ping);
        assert_eq!(read(r#"{"id":4,"result":true,"error":null}"#), Request::Response);
        assert_eq!(read(r#"{"method":"mining.dance"}"#), Request::Unknown);
        let user = Request::Authorize { user: "a.b".into(), password: String::new() };
        assert_eq!(read(r#"{"method":"mining.authorize","params":["a.b"]}"#), user);
        assert_eq!(read(r#"{"method":"mining.authorize","params":["a.b",null]}"#), user);
        assert_eq!(read(r#"{"method":"mining.suggest_difficulty","params":[0.00015]}"#), Request::SuggestDifficulty(Some(0.000_15)));
        assert_eq!(read(r#"{"method":"mining.suggest_difficulty","params":["512"]}"#), Request::SuggestDifficulty(Some(512.0)));
        assert_eq!(read(r#"{"method":"mining.suggest_difficulty","params":[-1]}"#), Request::SuggestDifficulty(None));
        for bad in ["", "{", "hello", "[]", "7", r#"{"method":7}"#] {
            assert!(Line::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn configure_takes_every_mask() {
        let ask = |mask: &str| {
            let line = format!(r#"{{"method":"mining.configure","params":[["version-rolling"],{{"version-rolling.mask":{mask}}}]}}"#);
            let Request::Configure { extensions, mask } = read(&line) else { panic!("not configure") };
            assert_eq!(extensions, ["version-rolling"]);
            granted(mask)
        };
        assert_eq!(ask("\"ffffffff\""), VERSION_MASK);
        assert_eq!(ask("null"), VERSION_MASK);
        assert_eq!(ask("\"00006000\""), 0x6000);
        assert_eq!(ask("\"c0000000\""), 0);
        assert_eq!(read(r#"{"method":"mining.configure","params":[null]}"#), Request::Configure { extensions: vec![], mask: None });
    }

    #[test]
    fn submits_of_five_and_six_fields() {
        let five = r#"{"method":"mining.submit","params":["u","1f","c708000000000001","64b3f3ec","ed460d91"]}"#;
        let wanted =
            Submit { job: 0x1f, extranonce2: [0xc7, 8, 0, 0, 0, 0, 0, 1], ntime: 0x64b3_f3ec, nonce: 0xed46_0d91, version_bits: None };
        assert_eq!(read(five), Request::Submit(Ok(wanted)));
        let six = five.replace("91\"]", "91\",\"00002000\"]");
        assert_eq!(read(&six), Request::Submit(Ok(Submit { version_bits: Some(0x2000), ..wanted })));
        assert_eq!(read(&five.replace("0001", "01")), Request::Submit(Err("extranonce2 must be 8 bytes in hex")));
        assert_eq!(read(&five.replace("ed460d91", "+d460d91")), Request::Submit(Err("nonce must be 4 bytes in hex")));
        assert_eq!(read(&five.replace("\"1f\"", "31")), Request::Submit(Err("job id missing")));
        assert_eq!(read(&six.replace("00002000", "2000")), Request::Submit(Err("version bits must be 4 bytes in hex")));
        assert_eq!(rolled(0x2000_0000, VERSION_MASK, Some(0x2000)), Ok(0x2000_2000));
        assert!(rolled(0x2000_0000, VERSION_MASK, Some(0x2000_2000)).is_err());
        assert_eq!(rolled(0x2000_0000, VERSION_MASK, None), Ok(0x2000_0000));
    }

    #[test]
    fn only_witness_addresses_of_the_network_can_be_paid() {
        let (script, worker) = login("tb1qumezefzdeqqwn5zfvgdrhxjzc5ylr39uhuxcz4.bitaxe3.x", Network::Testnet4).unwrap();
        assert!(matches!(script, Script::P2wpkh(_)));
        assert_eq!(worker, "bitaxe3.x");
        for (rest, name) in
            [("_rig", "rig"), ("/rig 1", "rig 1"), (".ä\"<b>", "ä\"<b>"), ("~a.b", "a.b"), ("+5000", "5000"), (".", ""), ("  ", "")]
        {
            let (same, worker) = login(&format!(" tb1qumezefzdeqqwn5zfvgdrhxjzc5ylr39uhuxcz4{rest}"), Network::Testnet4).unwrap();
            assert_eq!((same, worker.as_str()), (script, name), "{rest}");
        }
        let capitals = "TB1QUMEZEFZDEQQWN5ZFVGDRHXJZC5YLR39UHUXCZ4_A";
        assert_eq!(login(capitals, Network::Testnet4).unwrap(), (script, "A".to_owned()));
        assert!(login("tb1qumezefzdeqqwn5zfvgdrhxjzc5ylr39uhuxcz4", Network::Signet).is_ok());
        let taproot = "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr";
        assert!(matches!(login(taproot, Network::Main).unwrap().0, Script::P2tr(_)));
        for (user, network, says) in [
            ("tb1qumezefzdeqqwn5zfvgdrhxjzc5ylr39uhuxcz4", Network::Main, "another network"),
            ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", Network::Main, "only P2WPKH"),
            ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", Network::Regtest, "another network"),
            ("bob.rig1", Network::Main, "not a Bitcoin address"),
            (".rig1", Network::Main, "must be a Bitcoin address"),
            ("", Network::Main, "must be a Bitcoin address"),
        ] {
            let error = login(user, network).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        assert!(login(&"a".repeat(USER_BYTES_MAX + 1), Network::Main).unwrap_err().contains("longer"));
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let agent = "é".repeat(AGENT_BYTES_MAX);
        let line = format!(r#"{{"method":"mining.subscribe","params":["x{agent}"]}}"#);
        let Request::Subscribe { agent } = read(&line) else { panic!("not subscribe") };
        assert_eq!(agent.len(), AGENT_BYTES_MAX - 1);
    }

    #[test]
    fn hints_in_the_password() {
        assert_eq!(password_difficulty("x"), None);
        assert_eq!(password_difficulty("d=0.5"), Some(0.5));
        assert_eq!(password_difficulty("l=tail, d=1024"), Some(1024.0));
        assert_eq!(password_difficulty("d=lots"), None);
    }
}
