//! Tokens: who may change something over HTTP. JSON Web Tokens (RFC 7519) of one kind alone, signed by HMAC-SHA256 with the node's secret.
//!
//! Pure: the secret and the time go in, a caller or a refusal comes out.

use std::fmt;

use bitcoin::hashes::cmp::fixed_time_eq;
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use serde::{Deserialize, Serialize};

use crate::limits::{TOKEN_BYTES_MAX, TOKEN_LEEWAY_S, TOKEN_SUB_BYTES_MAX, USER_TOKEN_BYTES_MAX};

/// Whom a token is for: it is worth nothing where another service shares the secret.
const AUDIENCE: &str = "rockpool";
/// The one algorithm. What a token says of its algorithm is compared with this and never followed (RFC 8725 §3.1).
const ALGORITHM: &str = "HS256";

/// What the node signs its tokens with, and nobody else knows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everything.
    Admin,
    /// What is his own.
    User,
}

impl Scope {
    /// By its name.
    pub fn parse(name: &str) -> Option<Scope> {
        match name {
            "admin" => Some(Scope::Admin),
            "user" => Some(Scope::User),
            _ => None,
        }
    }

    /// Whether it reaches as far as what is asked for.
    pub fn covers(self, wanted: Scope) -> bool {
        self == Scope::Admin || self == wanted
    }
}

/// Who asks, as a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// His name.
    pub sub: String,
    /// What he may do.
    pub scope: Scope,
}

/// Why a token is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Longer than any that the node makes.
    #[error("the token has more than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// Not three parts in base64url.
    #[error("the token is no JSON Web Token")]
    Malformed,
    /// Not by HMAC-SHA256.
    #[error("the token's header is not that of HS256 alone")]
    Algorithm,
    /// Another secret, or no longer what was signed.
    #[error("the token's signature is not this node's; make one with `rockpool token`")]
    Signature,
    /// It says too little, too much or nonsense.
    #[error("the token must claim sub, scope (admin or user), iat, exp and aud, and nothing else")]
    Claims,
    /// For somebody else.
    #[error("the token is not for rockpool (aud)")]
    Audience,
    /// It was good once.
    #[error("the token has expired; make a new one with `rockpool token`")]
    Expired,
    /// It will be good.
    #[error("the token's time lies ahead: one of the two clocks is wrong")]
    Ahead,
    /// A user's token is longer than any.
    #[error("the token has more than {USER_TOKEN_BYTES_MAX} bytes")]
    UserTooLong,
    /// It names a key of the identity provider, but is not signed as its keys sign.
    #[error("the token names a key, but its header is not that of RS256")]
    UserAlgorithm,
    /// The identity provider shows no such key.
    #[error("the key that the token names is none of the identity provider's")]
    UnknownKey,
    /// Another key, or no longer what was signed.
    #[error("the token's signature is not by the key that it names")]
    UserSignature,
    /// It says too little or nonsense.
    #[error("the token must claim sub, iss, aud and exp, and be an access token")]
    UserClaims,
    /// Of another provider, or another of its realms.
    #[error("the token is of another issuer (iss) than --jwt-issuer")]
    Issuer,
    /// For somebody else.
    #[error("the token is not for this node: its audience (aud) is not --jwt-audience")]
    UserAudience,
    /// It was good once.
    #[error("the token has expired; get a new one where it came from")]
    UserExpired,
}

/// The first part. A header with anything more, such as `crit` or `jwk`, asks for what is not done here.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    alg: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    typ: Option<&'a str>,
}

/// The second part. One that is not known may narrow what the others grant, so there is none.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    sub: String,
    scope: Scope,
    /// Unix seconds.
    iat: u64,
    /// Unix seconds.
    exp: u64,
    aud: String,
}

/// A token for a caller, good from `now` on for so many seconds. Times are Unix seconds.
pub fn sign(secret: &Secret, caller: &Caller, now: u64, seconds: u64) -> Result<String, Refusal> {
    let header = Header { alg: ALGORITHM, typ: Some("JWT") };
    let claims =
        Claims { sub: caller.sub.clone(), scope: caller.scope, iat: now, exp: now.saturating_add(seconds), aud: AUDIENCE.to_owned() };
    named(&claims.sub)?;
    let (Ok(header), Ok(claims)) = (serde_json::to_vec(&header), serde_json::to_vec(&claims)) else { return Err(Refusal::Claims) };
    let mut token = encode(&header) + "." + &encode(&claims);
    let mac = mac(&secret.0, &token);
    token.push('.');
    token += &encode(&mac);
    Ok(token)
}

/// Who comes with this token. Nothing of it is looked at before its signature has been found good but its length and its header.
pub fn verify(secret: &Secret, token: &str, now: u64) -> Result<Caller, Refusal> {
    let claims: Claims = serde_json::from_slice(&opened(&secret.0, token)?).map_err(|_| Refusal::Claims)?;
    if claims.aud != AUDIENCE {
        return Err(Refusal::Audience);
    }
    if now >= claims.exp.saturating_add(TOKEN_LEEWAY_S) {
        return Err(Refusal::Expired);
    }
    if claims.iat > now.saturating_add(TOKEN_LEEWAY_S) {
        return Err(Refusal::Ahead);
    }
    named(&claims.sub)?;
    Ok(Caller { sub: claims.sub, scope: claims.scope })
}

/// A name that may stand in a line of a log.
fn named(sub: &str) -> Result<(), Refusal> {
    let good = !sub.is_empty() && sub.len() <= TOKEN_SUB_BYTES_MAX && !sub.chars().any(char::is_control);
    if good { Ok(()) } else { Err(Refusal::Claims) }
}

/// The claims of a token that was signed with this key, as bytes.
fn opened(key: &[u8], token: &str) -> Result<Vec<u8>, Refusal> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::TooLong);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(Refusal::Malformed)?;
    let [header, claims, signature] = [header, claims, signature].map(decode);
    let (Some(header), Some(claims), Some(signature)) = (header, claims, signature) else { return Err(Refusal::Malformed) };
    match serde_json::from_slice(&header) {
        Ok(Header { alg: ALGORITHM, typ: None | Some("JWT") }) => {}
        _ => return Err(Refusal::Algorithm),
    }
    let mac = mac(key, signed);
    // In constant time: how much of a guess is right must not be heard.
    if signature.len() == mac.len() && fixed_time_eq(&signature, &mac) { Ok(claims) } else { Err(Refusal::Signature) }
}

fn mac(key: &[u8], text: &str) -> [u8; 32] {
    let mut engine = HmacEngine::<sha256::Hash>::new(key);
    engine.input(text.as_bytes());
    Hmac::from_engine(engine).to_byte_array()
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// base64url without padding (RFC 7515 §2).
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        text.extend((0..=chunk.len()).map(|digit| char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize])));
    }
    text
}

/// The reverse, of what [`encode`] makes alone: no padding, no white space, no bits set that mean nothing.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for digit in chunk {
            bits = bits << 6 | DIGITS.iter().position(|known| known == digit)? as u32;
        }
        let some = chunk.len() * 6 / 8;
        bits <<= 6 * (4 - chunk.len());
        if some == 0 || bits & ((1 << (24 - 8 * some)) - 1) != 0 {
            return None;
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[1..=some]);
    }
    Some(bytes)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};
    use serde_json::json;

    use super::*;

    const SECRET: Secret = Secret([7; 32]);
    const NOW: u64 = 1_790_000_000;

    fn token_of(header: &str, claims: &str) -> String {
        let signed = encode(header.as_bytes()) + "." + &encode(claims.as_bytes());
        let mac = mac(&SECRET.0, &signed);
        signed + "." + &encode(&mac)
    }

    const HEADER: &str = r#"{"alg":"HS256"}"#;

    fn claims() -> serde_json::Value {
        json!({"sub": "me", "scope": "admin", "iat": NOW, "exp": NOW + 100, "aud": "rockpool"})
    }

    fn admin() -> Caller {
        Caller { sub: "me".into(), scope: Scope::Admin }
    }

    /// RFC 7515 A.1, with line breaks in its header, and the key of its own.
    #[test]
    fn the_vector_of_the_rfc_opens_and_no_other_text_does() {
        let key = decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow").unwrap();
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                     eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                     dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let claims = "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";
        assert_eq!((key.len(), opened(&key, token)), (64, Ok(claims.as_bytes().to_vec())));
        for at in 0..token.len() {
            for other in ["A", "B", "_", ".", "="] {
                let mut text = token.to_owned();
                text.replace_range(at..=at, other);
                assert!(text == token || opened(&key, &text).is_err(), "{text}");
            }
        }
        assert_eq!(opened(&key[1..], token), Err(Refusal::Signature));
    }

    #[test]
    fn what_is_signed_is_verified_until_it_expires() {
        for caller in [admin(), Caller { sub: "x".repeat(TOKEN_SUB_BYTES_MAX), scope: Scope::User }] {
            let token = sign(&SECRET, &caller, NOW, 60).unwrap();
            assert!(token.len() < TOKEN_BYTES_MAX);
            for now in [NOW - TOKEN_LEEWAY_S, NOW, NOW + 59 + TOKEN_LEEWAY_S] {
                assert_eq!(verify(&SECRET, &token, now), Ok(caller.clone()));
            }
            assert_eq!(verify(&SECRET, &token, NOW - TOKEN_LEEWAY_S - 1), Err(Refusal::Ahead));
            assert_eq!(verify(&SECRET, &token, NOW + 60 + TOKEN_LEEWAY_S), Err(Refusal::Expired));
            assert_eq!(verify(&Secret([8; 32]), &token, NOW), Err(Refusal::Signature));
        }
        for sub in [String::new(), "a\nb".into(), "x".repeat(TOKEN_SUB_BYTES_MAX + 1)] {
            assert_eq!(sign(&SECRET, &Caller { sub, scope: Scope::User }, NOW, 1), Err(Refusal::Claims));
        }
        assert!(Scope::Admin.covers(Scope::User) && Scope::User.covers(Scope::User) && !Scope::User.covers(Scope::Admin));
        assert_eq!((format!("{SECRET:?}"), Scope::parse("root")), ("Secret(…)".into(), None));
    }

    #[test]
    fn no_other_algorithm_is_heard_of() {
        let claims = claims().to_string();
        assert_eq!(verify(&SECRET, &token_of(HEADER, &claims), NOW), Ok(admin()));
        assert_eq!(verify(&SECRET, &token_of(r#"{"typ":"JWT","alg":"HS256"}"#, &claims), NOW), Ok(admin()));
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"None"}"#,
            r#"{"alg":"hs256"}"#,
            r#"{"alg":"HS256 "}"#,
            r#"{"alg":"HS512"}"#,
            r#"{"alg":"RS256"}"#,
            r#"{"alg":["HS256"]}"#,
            r#"{"alg":null}"#,
            r#"{"ALG":"HS256"}"#,
            r#"{"alg":"HS256","alg":"HS256"}"#,
            r#"{"alg":"none","alg":"HS256"}"#,
            r#"{"alg":"HS256","typ":"JOSE"}"#,
            r#"{"alg":"HS256","kid":"../../dev/null"}"#,
            r#"{"alg":"HS256","crit":["exp"]}"#,
            r#"{"alg":"HS256"} x"#,
            r#"["HS256"]"#,
            r#"{"typ":"JWT"}"#,
            "",
        ] {
            assert_eq!(verify(&SECRET, &token_of(header, &claims), NOW), Err(Refusal::Algorithm), "{header}");
        }
        // Unsigned, as `none` wants it, whatever the header says.
        for header in [r#"{"alg":"none"}"#, HEADER] {
            let token = encode(header.as_bytes()) + "." + &encode(claims.as_bytes()) + ".";
            assert!(matches!(verify(&SECRET, &token, NOW), Err(Refusal::Algorithm | Refusal::Signature)));
        }
    }

    #[test]
    fn claims_are_all_there_and_no_others() {
        let with = |name: &str, value: serde_json::Value| {
            let mut claims = claims();
            claims[name] = value;
            verify(&SECRET, &token_of(HEADER, &claims.to_string()), NOW)
        };
        assert_eq!(with("sub", json!("me")), Ok(admin()));
        assert_eq!(with("aud", json!("another")), Err(Refusal::Audience));
        for (name, value) in [
            ("sub", json!("")),
            ("sub", json!(7)),
            ("sub", json!("x".repeat(TOKEN_SUB_BYTES_MAX + 1))),
            ("scope", json!("root")),
            ("scope", json!("Admin")),
            ("scope", json!(["admin"])),
            ("iat", json!(-1)),
            ("iat", json!("1790000000")),
            ("exp", json!(1.5)),
            ("exp", json!(null)),
            ("aud", json!(["rockpool"])),
            ("nbf", json!(NOW)),
            ("iss", json!("x")),
        ] {
            assert_eq!(with(name, value.clone()), Err(Refusal::Claims), "{name} {value}");
        }
        for name in ["sub", "scope", "iat", "exp", "aud"] {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(name);
            assert_eq!(verify(&SECRET, &token_of(HEADER, &claims.to_string()), NOW), Err(Refusal::Claims), "{name}");
        }
        let twice = claims().to_string().replace(r#""sub""#, r#""scope":"user","sub""#);
        assert_eq!(verify(&SECRET, &token_of(HEADER, &twice), NOW), Err(Refusal::Claims));
        // The end of time overflows nothing.
        assert_eq!(with("exp", json!(u64::MAX)), Ok(admin()));
        assert_eq!(with("iat", json!(u64::MAX)), Err(Refusal::Ahead));
        assert_eq!(verify(&SECRET, &sign(&SECRET, &admin(), NOW, u64::MAX).unwrap(), NOW), Ok(admin()));
    }

    #[test]
    fn what_is_no_token_is_refused_before_anything_is_computed() {
        let good = token_of(HEADER, &claims().to_string());
        for bad in ["", ".", "..", "a.b", &good[1..], &format!("{good}="), &format!("{good}.x"), &good.replace('.', " "), "ä.ö.ü"] {
            assert!(matches!(verify(&SECRET, bad, NOW), Err(Refusal::Malformed | Refusal::Algorithm)), "{bad}");
        }
        let long = "x".repeat(TOKEN_BYTES_MAX);
        assert_eq!(verify(&SECRET, &long, NOW), Err(Refusal::Malformed));
        assert_eq!(verify(&SECRET, &(long + "x"), NOW), Err(Refusal::TooLong));
    }

    /// Whatever becomes of a good token on its way, it is that token or none.
    #[test]
    fn a_mutated_token_is_never_good() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let good = sign(&SECRET, &admin(), NOW, 3_600).unwrap();
        let mut refused = [0; 3];
        for _ in 0..50_000 {
            let mut text = good.clone().into_bytes();
            for _ in 0..1 + rng.next_u32() % 3 {
                let (at, other) = (rng.next_u32() as usize % text.len(), rng.next_u32() as usize % text.len());
                match rng.next_u32() % 6 {
                    0 => text[at] = (rng.next_u32() % 128) as u8,
                    1 => text[at] = DIGITS[rng.next_u32() as usize % 64],
                    2 => text.swap(at, other),
                    3 => text.insert(at, b"._-=A"[rng.next_u32() as usize % 5]),
                    4 => drop(text.remove(at)),
                    _ => text.truncate(at.max(4)),
                }
            }
            let text = String::from_utf8(text).unwrap();
            match verify(&SECRET, &text, NOW) {
                Ok(caller) => assert_eq!((&text, caller), (&good, admin())),
                Err(Refusal::Malformed) => refused[0] += 1,
                Err(Refusal::Algorithm) => refused[1] += 1,
                Err(Refusal::Signature) => refused[2] += 1,
                // What is not signed is never read.
                Err(other) => panic!("{other:?}: {text}"),
            }
        }
        assert!(refused.iter().all(|count| *count > 1_000), "{refused:?}");
    }

    #[test]
    fn base64url_is_that_of_the_rfc_and_one_text_is_one_value() {
        assert_eq!((encode(&[3, 236, 255, 224, 193]), decode("A-z_4ME")), ("A-z_4ME".into(), Some(vec![3, 236, 255, 224, 193])));
        for (bytes, text) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg")] {
            assert_eq!((encode(bytes.as_bytes()).as_str(), decode(text)), (text, Some(bytes.as_bytes().to_vec())));
        }
        for bad in ["Z", "Zm9vY", "Zh", "Zm9", "Zg==", "Zg\n", "Z+", "Z/", "é"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
        let mut rng = ChaCha12Rng::seed_from_u64(2);
        for _ in 0..10_000 {
            let text: String = (0..rng.next_u32() % 12).map(|_| char::from(DIGITS[rng.next_u32() as usize % 64])).collect();
            assert!(decode(&text).is_none_or(|bytes| encode(&bytes) == text), "{text}");
        }
    }
}
