//! A miner's line: a method with its parameters, in all the odd forms that firmware sends.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use rockpool_net::wire::share::Script;
use rockpool_store::params::Network;
use rockpool_workers::work::VERSION_MASK;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::limits::{AGENT_BYTES_MAX, USER_BYTES_MAX};
use crate::stratum::difficulty::asked;
use crate::stratum::firmware::hints;

/// Bytes of extranonce1, the connection's own.
pub const EXTRANONCE1_BYTES: usize = 4;
/// Bytes of extranonce2, the miner's to roll: no device takes more than 8, rental markets want at least 7.
pub const EXTRANONCE2_BYTES: usize = 8;

/// Parameters that are looked at: no method that we know has more.
const PARAMS: usize = 6;

/// A line, nothing of it read but where its parts begin and end: what nobody asks for cannot be out of range, too deep or too long.
#[derive(Debug, Default)]
pub struct Line<'a> {
    /// The request's id, which goes back unchanged whatever JSON value it is; a null and none at all are the same.
    pub id: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    params: Params<'a>,
    /// It has a result or an error, as the answers have that some devices send to what we push.
    answers: bool,
}

/// Positional parameters, each as its JSON stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Params<'a>([Option<&'a str>; PARAMS]);

/// What a line asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// `mining.configure`.
    Configure(Configure),
    /// `mining.subscribe`.
    Subscribe {
        /// The user agent, cut.
        agent: String,
        /// The session that it had before, by the extranonce1 that we name it by.
        session: Option<[u8; EXTRANONCE1_BYTES]>,
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
    /// `client.get_version`, which is a server's question, but is heard from proxies too.
    GetVersion,
    /// An answer to something we pushed.
    Response,
    /// Nothing we know.
    Unknown,
}

/// What `mining.configure` asks for (BIP310).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configure {
    /// Names of extensions, in their order.
    pub extensions: Vec<String>,
    /// `version-rolling.mask`; none means all.
    pub mask: Option<u32>,
    /// `version-rolling.min-bit-count`: fewer bits slow the device down.
    pub min_bits: Option<u32>,
    /// `minimum-difficulty.value`; 0 means any.
    pub least: Option<f64>,
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
    pub fn of(line: &'a str) -> Option<Line<'a>> {
        // A list of its fields would do for serde.
        line.starts_with('{').then(|| serde_json::from_str(line).ok()).flatten()
    }

    /// The same, of bytes that may be no text.
    pub fn parse(line: &'a [u8]) -> Option<Line<'a>> {
        Line::of(str::from_utf8(line).ok()?)
    }

    /// What it asks for.
    pub fn request(&self) -> Request {
        let params = self.params;
        match self.method.map(|method| text_of(method.get())) {
            None if self.answers => Request::Response,
            Some(Some(method)) => match &*method {
                "mining.submit" => Request::Submit(submit(params)),
                "mining.configure" => Request::Configure(configure(params)),
                "mining.subscribe" => {
                    Request::Subscribe { agent: params.cut(0, AGENT_BYTES_MAX), session: params.text(1).as_deref().and_then(hex) }
                }
                "mining.authorize" => {
                    Request::Authorize { user: params.cut(0, USER_BYTES_MAX + 1), password: params.cut(1, AGENT_BYTES_MAX) }
                }
                "mining.suggest_difficulty" => Request::SuggestDifficulty(params.0[0].and_then(number).and_then(asked)),
                "mining.extranonce.subscribe" => Request::ExtranonceSubscribe,
                "mining.ping" => Request::Ping,
                "mining.get_transactions" => Request::GetTransactions(params.text(0).and_then(|job| u64::from_str_radix(&job, 16).ok())),
                "client.get_version" => Request::GetVersion,
                _ => Request::Unknown,
            },
            // No method, or one that is no text.
            None | Some(None) => Request::Unknown,
        }
    }

    /// Its first parameter: in a submit, whose it is.
    pub fn user(&self) -> Option<Cow<'a, str>> {
        self.params.text(0)
    }
}

/// The names of a line's fields.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Id,
    Method,
    Params,
    Result,
    Error,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Line<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Line<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            /// Of a field that stands twice the last counts, as in most parsers.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line<'de>, A::Error> {
                let mut line = Line::default();
                while let Some(field) = map.next_key()? {
                    match field {
                        Field::Id => line.id = map.next_value()?,
                        Field::Method => line.method = map.next_value()?,
                        Field::Params => line.params = map.next_value()?,
                        Field::Result | Field::Error => {
                            line.answers = true;
                            map.next_value::<IgnoredAny>()?;
                        }
                        Field::Other => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(line)
            }
        }
        from.deserialize_map(Fields)
    }
}

impl<'de> Deserialize<'de> for Params<'de> {
    /// A list's first items; of anything else, nothing.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> Visitor<'de> for Items {
            type Value = Params<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Params<'de>, A::Error> {
                let mut params = Params::default();
                for param in &mut params.0 {
                    let Some(item) = items.next_element::<&RawValue>()? else { return Ok(params) };
                    *param = Some(item.get());
                }
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(params)
            }
        }
        let raw = <&RawValue>::deserialize(from)?.get();
        let items = || serde_json::Deserializer::from_str(raw).deserialize_seq(Items).unwrap_or_default();
        Ok(Params::plain(raw).unwrap_or_else(items))
    }
}

impl<'a> Params<'a> {
    /// The items of a list that holds nothing but texts without anything to be unescaped, as nearly every submit does; in JSON that was
    /// found to be whole.
    fn plain(raw: &'a str) -> Option<Params<'a>> {
        let mut rest = raw.strip_prefix('[')?.strip_suffix(']')?.trim_start();
        if rest.contains('\\') {
            return None;
        }
        let mut params = Params::default();
        for param in &mut params.0 {
            if rest.is_empty() {
                return Some(params);
            }
            let end = rest.strip_prefix('"')?.find('"')? + 2;
            *param = Some(&rest[..end]);
            let after = rest[end..].trim_start();
            rest = after.strip_prefix(',').unwrap_or(after).trim_start();
        }
        Some(params)
    }

    /// A parameter that is a text.
    fn text(&self, index: usize) -> Option<Cow<'a, str>> {
        self.0.get(index).copied().flatten().and_then(text_of)
    }

    /// The same, cut at a character boundary to at most so many bytes; empty where there is none.
    fn cut(&self, index: usize, bytes_max: usize) -> String {
        let text = self.text(index).unwrap_or_default();
        let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text[..end].to_owned()
    }
}

/// A JSON value that is a text.
fn text_of(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    // Nearly none has anything to be unescaped.
    if inner.contains('\\') { serde_json::from_str(raw).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// A number, or the text of one. One that is too large for any machine is infinite.
fn number(raw: &str) -> Option<f64> {
    match text_of(raw) {
        Some(text) => text.trim().parse().ok(),
        None => raw.parse().ok(),
    }
}

/// A mask in hex, or a number.
fn mask(raw: &str) -> Option<u32> {
    match text_of(raw) {
        Some(text) => u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok(),
        None => raw.parse().ok(),
    }
}

/// Extensions as a list or, where somebody asks for one alone, as its name; what is out of form is as if it were not there.
fn configure(params: Params<'_>) -> Configure {
    let list = |raw| match serde_json::from_str::<Vec<&RawValue>>(raw) {
        Ok(names) => names.into_iter().map(RawValue::get).collect(),
        Err(_) => vec![raw],
    };
    let mut extensions = Vec::new();
    for name in params.0[0].map(list).unwrap_or_default().into_iter().filter_map(text_of) {
        if !extensions.iter().any(|known: &String| *known == name) {
            extensions.push(name.into_owned());
        }
    }
    let options = params.0[1].and_then(|raw| serde_json::from_str::<BTreeMap<String, &RawValue>>(raw).ok()).unwrap_or_default();
    let option = |name: &str| options.get(name).map(|raw| raw.get());
    Configure {
        extensions,
        mask: option("version-rolling.mask").and_then(mask),
        min_bits: option("version-rolling.min-bit-count").and_then(number).map(|bits| bits as u32),
        least: option("minimum-difficulty.value").and_then(number),
    }
}

fn submit(params: Params<'_>) -> Result<Submit, &'static str> {
    let job = params.text(1).ok_or("job id missing")?;
    // An id that we never gave is a stale job, not a malformed one: number 0 is never given.
    let job = u64::from_str_radix(&job, 16).unwrap_or(0);
    let extranonce2 = params.text(2).as_deref().and_then(hex).ok_or("extranonce2 must be 8 bytes in hex")?;
    let word = |text: &str| hex(text).map(u32::from_be_bytes);
    let ntime = params.text(3).as_deref().and_then(word).ok_or("ntime must be 4 bytes in hex")?;
    let nonce = params.text(4).as_deref().and_then(word).ok_or("nonce must be 4 bytes in hex")?;
    let version_bits = match params.0[5] {
        None => None,
        Some("null") => None,
        Some(raw) => Some(text_of(raw).as_deref().and_then(word).ok_or("version bits must be 4 bytes in hex")?),
    };
    Ok(Submit { job, extranonce2, ntime, nonce, version_bits })
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

/// The part of a user name that names the worker, or nothing.
pub fn worker(user: &str) -> &str {
    let user = user.trim();
    let rest = &user[address(user).len()..];
    rest.char_indices().nth(1).map_or("", |(at, _)| &rest[at..])
}

/// A user name: whom to pay, and the worker's name after a point, or after whatever else no address holds: ckpool's users write `_`,
/// rental markets `/`.
pub fn login(user: &str, network: Network) -> Result<(Script, String), String> {
    if user.len() > USER_BYTES_MAX {
        return Err(format!("user name longer than {USER_BYTES_MAX} bytes"));
    }
    let user = user.trim();
    let address = address(user);
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
    let parsed = parsed
        .require_network(chain)
        .map_err(|_| format!("{} is an address of another network, not {}", shown(address), network.name()))?;
    let script = payable(&parsed).ok_or("only P2WPKH, P2WSH and P2TR addresses can be paid (they begin with bc1, tb1 or bcrt1)")?;
    Ok((script, worker(user).to_owned()))
}

/// What of a user name can be an address.
pub fn address(user: &str) -> &str {
    let user = user.trim();
    &user[..user.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(user.len())]
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
    use crate::limits::DIFFICULTY_MAX;

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
    fn what_nobody_asks_for_is_not_read() {
        let deep = "[".repeat(2_000);
        let deep = format!("{deep}{}", "]".repeat(2_000));
        for value in ["1e999", "-1e-999999", "\"\\ud800\"", "123456789012345678901234567890", &deep] {
            assert_eq!(
                read(&format!(r#"{{"id":{value},"x":{value},"method":"mining.ping","params":[{value}]}}"#)),
                Request::Ping,
                "{value}"
            );
            assert_eq!(read(&format!(r#"{{"method":"mining.ping","params":{value}}}"#)), Request::Ping, "{value}");
            assert_eq!(
                read(&format!(r#"{{"method":"mining.suggest_difficulty","params":[{value}]}}"#)),
                Request::SuggestDifficulty(if value.starts_with("12") { Some(DIFFICULTY_MAX) } else { None }),
                "{value}"
            );
        }
        // A method that is none has an answer, but for what is an answer itself.
        for none in [r#"{"id":1,"method":7}"#, r#"{"id":1,"method":"\ud800"}"#, r#"{"id":1}"#, "{}", r#"{"id":1,"method":null}"#] {
            assert_eq!(read(none), Request::Unknown, "{none}");
        }
        assert_eq!(read(r#"{"id":1,"result":null}"#), Request::Response);
        // Of what stands twice the last counts.
        let twice = Line::parse(br#"{"id":1,"method":"x","id":2,"method":"mining.ping","params":7,"params":[]}"#).unwrap();
        assert_eq!((twice.id.unwrap().get(), twice.request()), ("2", Request::Ping));
    }

    /// The short way to the items of a list is as good as the long one, where it is taken.
    #[test]
    fn plain_lists_of_texts_are_read_at_once() {
        let slow = |list: &str| {
            let values: Option<Vec<&RawValue>> = serde_json::from_str(list).ok();
            values.map(|values| values.into_iter().take(PARAMS).map(|raw| raw.get().to_owned()).collect::<Vec<_>>())
        };
        for list in [
            r#"[]"#,
            r#"[ ]"#,
            r#"["a"]"#,
            r#"[ "a" , "b" ]"#,
            r#"["",""]"#,
            r#"["[,]","{\"x"]"#,
            r#"["a,b","]"]"#,
            r#"["a",null,"b"]"#,
            r#"[1,"a"]"#,
            r#"["a",["b"],"c"]"#,
            r#"["é","x"]"#,
            r#"["1","2","3","4","5","6"]"#,
            r#"["1","2","3","4","5","6","7",8]"#,
            r#"["1","2","3","4","5",6]"#,
            "[\t\"a\"\r,\"b\" ]",
        ] {
            let line = format!(r#"{{"params":{list}}}"#);
            let read = Line::of(&line).unwrap().params;
            let read: Vec<String> = read.0.into_iter().flatten().map(str::to_owned).collect();
            assert_eq!(Some(read), slow(list), "{list}");
        }
        assert!(Params::plain(r#"["w","1f","c708000000000001","64b3f3ec","ed460d91","00002000"]"#).is_some());
        assert!(Params::plain(r#"["w",null]"#).is_none() && Params::plain(r#"["\u0041"]"#).is_none() && Params::plain("{}").is_none());
    }

    #[test]
    fn sessions_are_named_by_their_extranonce() {
        let session = |params: &str| match read(&format!(r#"{{"method":"mining.subscribe","params":{params}}}"#)) {
            Request::Subscribe { session, .. } => session,
            other => panic!("{other:?}"),
        };
        assert_eq!(session(r#"["cgminer/4.12.0","0a0B0c0d"]"#), Some([10, 11, 12, 13]));
        for none in
            ["[\"x\"]", "[\"x\",null]", "[\"x\",\"\"]", "[\"x\",\"1\"]", "[\"x\",\"0a0b0c0d0e\"]", "[\"x\",1]", "[\"x\",\"+a0b0c0d\"]"]
        {
            assert_eq!(session(none), None, "{none}");
        }
    }

    #[test]
    fn odd_forms_are_read() {
        let subscribe = |agent: &str| Request::Subscribe { agent: agent.to_owned(), session: None };
        assert_eq!(read(r#"{"method":"mining.subscribe","params":null}"#), subscribe(""));
        assert_eq!(read(r#"{"method":"mining.subscribe"}"#), subscribe(""));
        assert_eq!(read(r#"{"method":"mining.subscribe","params":{}}"#), subscribe(""));
        assert_eq!(read(r#"{"method":"mining.subscribe","params":["a|b",null,"h:1",null]}"#), subscribe("a|b"));
        assert_eq!(read(r#"{"method":"m\u0069ning.ping","params":[1,2,3]}"#), Request::Ping);
        assert_eq!(read(r#"{"id":4,"result":true,"error":null}"#), Request::Response);
        assert_eq!(read(r#"{"method":"mining.dance"}"#), Request::Unknown);
        let user = Request::Authorize { user: "a.b".into(), password: String::new() };
        assert_eq!(read(r#"{"method":"mining.authorize","params":["a.b"]}"#), user);
        assert_eq!(read(r#"{"method":"mining.authorize","params":["a.b",null]}"#), user);
        assert_eq!(read(r#"{"method":"mining.suggest_difficulty","params":[0.00015]}"#), Request::SuggestDifficulty(Some(0.000_15)));
        assert_eq!(read(r#"{"method":"mining.suggest_difficulty","params":["512"]}"#), Request::SuggestDifficulty(Some(512.0)));
        assert_eq!(read(r#"{"method":"mining.suggest_difficulty","params":[-1]}"#), Request::SuggestDifficulty(None));
        for bad in ["", "{", "hello", "[]", "7", "{}{}", "{\"id\":}", "{\"id\":1,}", "{\"id\":01}", "{id:1}"] {
            assert!(Line::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn configure_takes_every_mask() {
        let ask = |mask: &str| {
            let line = format!(r#"{{"method":"mining.configure","params":[["version-rolling"],{{"version-rolling.mask":{mask}}}]}}"#);
            let Request::Configure(asked) = read(&line) else { panic!("not configure") };
            assert_eq!(asked.extensions, ["version-rolling"]);
            granted(asked.mask)
        };
        assert_eq!(ask("\"ffffffff\""), VERSION_MASK);
        assert_eq!(ask("null"), VERSION_MASK);
        assert_eq!(ask("\"00006000\""), 0x6000);
        assert_eq!(ask("\"c0000000\""), 0);
        assert_eq!(ask("\"0x1FFFE000\""), VERSION_MASK);
        assert_eq!(ask("24576"), 0x6000);
        assert_eq!(ask("1e999"), VERSION_MASK);
        assert_eq!(ask("[\"6000\"]"), VERSION_MASK);
    }

    #[test]
    fn configure_in_odd_forms() {
        let ask = |params: &str| match read(&format!(r#"{{"method":"mining.configure","params":{params}}}"#)) {
            Request::Configure(asked) => asked,
            other => panic!("{other:?}"),
        };
        for nothing in ["null", "[]", "[null]", "{}", "7", "[{}]", "[[],7]", "[[1,null,[]],{\"minimum-difficulty.value\":2}]"] {
            assert_eq!(ask(nothing).extensions, Vec::<String>::new(), "{nothing}");
        }
        let names = |params: &str| ask(params).extensions;
        assert_eq!(names(r#"["version-rolling",{"version-rolling.mask":"6000"}]"#), ["version-rolling"]);
        assert_eq!(names(r#"[["info","minimum-difficulty","info","t\u0065a"],{}]"#), ["info", "minimum-difficulty", "tea"]);
        let least = |value: &str| ask(&format!(r#"[["minimum-difficulty"],{{"minimum-difficulty.value":{value}}}]"#)).least;
        assert_eq!((least("2048"), least("0.5"), least("\"16\""), least("0")), (Some(2048.0), Some(0.5), Some(16.0), Some(0.0)));
        assert_eq!((least("null"), least("[]"), least("\"much\""), least("1e999")), (None, None, None, Some(f64::INFINITY)));
        let bits = |value: &str| ask(&format!(r#"[["version-rolling"],{{"version-rolling.min-bit-count":{value}}}]"#)).min_bits;
        assert_eq!((bits("16"), bits("\"2\""), bits("-1"), bits("{}"), bits("1e999")), (Some(16), Some(2), Some(0), None, Some(u32::MAX)));
        // Of an option that stands twice the last counts.
        let twice = ask(r#"[["minimum-difficulty"],{"minimum-difficulty.value":1,"minimum-difficulty.value":2}]"#);
        assert_eq!(twice.least, Some(2.0));
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
        let Request::Subscribe { agent, .. } = read(&line) else { panic!("not subscribe") };
        assert_eq!(agent.len(), AGENT_BYTES_MAX - 1);
    }

    #[test]
    fn hints_in_the_password() {
        assert_eq!(password_difficulty("x"), None);
        assert_eq!(password_difficulty("d=0.5"), Some(0.5));
        assert_eq!(password_difficulty("l=tail, d=1024"), Some(1024.0));
        assert_eq!(password_difficulty("d=lots"), None);
        assert_eq!(password_difficulty("d=lots,D=2"), Some(2.0));
        for none in ["", "d=", "d=-1", "d=0", "d=nan", "d=inf", "d=1e999", "d 5", "é=5", "xd=5"] {
            assert_eq!(password_difficulty(none), None, "{none}");
        }
    }
}
