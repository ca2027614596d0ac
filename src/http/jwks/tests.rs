//! Tokens as an identity provider makes them, with keys that are used nowhere else.
#![expect(clippy::unwrap_used, reason = "tests")]

use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair};
use serde_json::json;

use super::*;
use crate::http::token::{Caller, Scope, encode};

/// Private keys of 2,048 bits, PKCS #1 in base64url.
const FIRST: &str = "\
    MIIEpAIBAAKCAQEAvTNzwTcDhRj3ODdo6mbKKWsJd1OsqwWo83m7l7MAR2xcGLO7-Nlxb6R62zMJEIQ14XPJoIt1-TvkBsaBpboiTah5ocITa6HT-PPVxY2eqG3t7xeI\
    XI0I4oqb7y0hfmFumujzMRnKp2qE7nUpPhMImE6EjM4QHnagHJPBCR3PtR-WgE4yJTyfNBAVgIJ1_vRbT2_jud_eaTNvGFNgunw_nswCab8s45kgW4PT-IkXUpbsYidG\
    WkGL3utBTx-cOqBjdrh4UPzcyMC7vnEceyL_PlqWxpg86zaRHFM-tQ-iYqDMfK4NISvMWZoSmaapaqvCBtWE_C_21vYOx5NjnWx3ZwIDAQABAoIBABzN7AYS85C8W8rt\
    uKXTD10d5BuMHCIPYwjqVBKE2HqHN0A1gN0icaAvGNstWmhu0Gsp_xzXjpbqtM0JRKyv-U_8YcQsMVu2D_j7WmTQqkJ3Nf2sBgEdIaintJTFuK8uczHXXErx48X4NBO_\
    t48xQ6I4dfqf1plksvyWzBEwvjITQYRKbCRSgjP2nX2pSCDn9o3aqP4Tb9e6NMROYFoCuVgQxzkUGHRSvjUNIYKcCS4Yg50iH_CRogNFag4WWDUp5atMMxkByzJPPemh\
    UaNO47LXbTy0x-w1Yp6775IhxgQMjnB9fawIRfeznWLLCaEGQXYrhOsLUauhW9N1rYsUu50CgYEA4cLgQrPrjsSX1E-ZgqRDYxo21JRpo2VGQa1IuLHefoippBxwZ8Wa\
    sGbJgwYyXdHpYbhb9E7_648Qsbj3eswORVBsZP6vCBfVpDsxl7Geuv40qmOXdxRyEV-QkYKcqVYV3z9aNJAaB7SuU1lPxZLxqls05TLiDfq-WfEZ2qagw3sCgYEA1or2\
    VWMpnWMLEcFyH0nOX9TSQKjh7lH2lMRkGF24kf9B2xePNWJ4JNxvH-iWcCti-ZPtfqUcbukSHUS8CjLZhwvVp6gHf22EXYx6nUl74Fil5vGiRac3RTjJ2lcREm3VvrVE\
    MMpJnLiwJFUSpHdscJBDkvtERQYq0IOqEQh-EgUCgYAlK1aM5N51hPySYgCeN7k4icpZOY4i7rugeI0ui2pcXte_Q0dmbmxHesTWo6CLPdI02ouZL6CHAej3ucJVH1-C\
    HfmaryvWI0ZzYaOKnB3MH6pAG2GGo4EcRyWgL2bnolq7hMyvNsJyXlcNNfkiSE0thRKyYaxCLPRGDqH5E9IIHQKBgQCFw1x0vn_qxh7XsjHSOjU24L06XVGIQogoFw6F\
    dqGmPW01CcpbMYrRCLMsRNrPEu4Bx-5yYMWKjTyjDQDkpvGjVoieoJAULhcyMG0edfuLVBoUFKHlJa27Nf38aP6W6-4xmljqxqUA1tHTxUr7Sg5NXFUVZh4Znw_As-ar\
    -gyIdQKBgQDOgWp2KRemmWSAyGnzrcNLjusus50EzSwt_wweddBdPFAM5MLyweiFl6oxFI29g-PWIEQsSxLF5gjW3uDNVBK_X13j4KSQOxlN_b5edKNzbBXsx7OUflvD\
    Wdqc8AKCCh6pVNz5bEigKl0WXK91ZwF5kt0fTa_rdes1yjHaWyFbcQ";
const SECOND: &str = "\
    MIIEowIBAAKCAQEAkkTHVjuheSKcgIOOkR4q-SITF0dnFck8BTKdR-0aUoajczswaPrv76cFV2bvj2tKNnyAXC4R8Hrq0F6qRSYL2R2EfZEnpjL-6pxQtoSld5zIIa3Z\
    RX8Aoc2Kt-bMsj15JOYpMiIhFWijV3-zhYC4Z7IpZDokKIzZyidkPQHGY9CROSYWGa93rGBxThv7ZV1FrRumuriTl-Uq_56XMJ3LAvnf-gxUSRn-f5ODEIoynwcza1c3\
    _OrhJvqGabf-TvMh-2-nL2XQs8UoOLA1VrioxlTYuItDyHfek3_skp0grJ5y7715M_GACBy5kyTg0zxksWgdn6FAzQN8i79TXh3lJQIDAQABAoIBAD47VCJs2Y1L_BEz\
    p_c3QipgZIX9g68BwO8nM0LUbuQY07clwjmQNoCc68ldiuRWzirzert9gHV0Hq7L8B7eiqD0DZhNJ3TvcoUIP9EAC9Sh2IZ3zJ7kY7Tz2ibXZFUbkYzw_isN2UyeCg0i\
    0JMnCo5X_4Nct2CnWMxJST0poap6gE1k8mK-lofPmupr6Sv4F-A-dpMBqqr3uZMBZXearOQGGJcPbDdufilOqK3oakUycSuYX9DPNu0Ruk_-g6JVDIidOPSfgPZFQo5A\
    C0RKl-xertySmzgyORaPHrWbXdsiX4A81nVX0c4JXyDSGvRmzlmJqKjDBb-zN11vxllw8psCgYEAywB10ZlxcOhz_MELYm0IJoxQFF4r2uCMJDlOy68Coj5et6P2gXUt\
    G9UedcXRvjG9q8SI2lIAA1-S6tFpV9roiZhgBGLnYGkvxK8dxGsKixhCYlQm9rn0RrIZSW4YAEZRKFceJ5ymmTZEVXmLGNEk_VQdFCgrNLmlFvalu970PmMCgYEAuHSV\
    Xn2ilq8U1zXejP1oPhjo_6mLXs4MhTRyq2CNj-kmwlL5Bk2CFf6P3FjYP0WrRJ7PGxSRdFYi-KbwV1nIKZDFbe0wIfOSmEOciRddaZgIMif8Pqv6l0f3Fu1u2C-eEKmm\
    bE02ceQeWWJKIhHW0TuNen2jZ_UneaHoAJTEgNcCgYAHwl--gDf20dvFGHff7jz2hDx3WtYgSp7wr4QUgv79xpaGPG0qq5jqzG2aoNIQjAQs8Zkthx7bAicydIirRAHJ\
    aJqa8FDZvYuG4A6qOFEx2d6HtaG7ooX0wc_3n46pTAbEHPhZGULA7nMUNU4cx7m7OSDXaWWlYUcvJoRVNwNs8wKBgCUw7IUW09eKCauy4uKOnZwXrbMO3lkJNqENCCnh\
    1-kyW2xHCoroydfhceQ9zaxEQdoeIygUp5dLXtW_4ynZonAvDn-xmUjfMamdyEwj9-O4kb57LXL9fhNOoVVwHi9cuoQlkLa5gsbH9g6TsNrZufSKC2atOmtVlNYDfSHQ\
    3SYVAoGBAIU9qoWZqBrzyvsHmnUYnvL67TRJqO2MnU98Y3snTKlkzQLmKc_T7h2EV56hQxYhx6QF1oKqX18cMYm-ieiGduVw7prr4q9HPjBZELoOfumJKVigbkliz3DM\
    wrIrwwDB2oNc1oNJ9_iD_OGyFM6bvAtzWWYFwNnM8oHhpSASNzu2";
const SECRET: Secret = Secret([7; 32]);
const UNIX: u64 = 1_790_000_000;

fn pair(key: &str) -> RsaKeyPair {
    RsaKeyPair::from_der(&token::decode(key).unwrap()).unwrap()
}

/// A key of a set, as Keycloak shows it.
fn shown(kid: &str, key: &str) -> Value {
    let public = pair(key).public().clone();
    let parts = PublicKeyComponents::<Vec<u8>>::from(&public);
    json!({"kid": kid, "kty": "RSA", "alg": "RS256", "use": "sig", "n": encode(&parts.n), "e": encode(&parts.e),
        "x5c": ["MIIC"], "x5t": "abc", "x5t#S256": "def"})
}

fn set(keys: &[Value]) -> Vec<u8> {
    // For encryption, as Keycloak has one beside.
    let other = json!({"kid": "enc", "kty": "RSA", "alg": "RSA-OAEP", "use": "enc", "n": "AQAB", "e": "AQAB"});
    let curve = json!({"kid": "ec", "kty": "EC", "crv": "P-256", "x": "a", "y": "b"});
    let all = [&[other, curve], keys].concat();
    json!({ "keys": all }).to_string().into_bytes()
}

fn identity() -> Identity {
    Identity {
        issuer: "https://id.example.org/realms/home".into(),
        audience: "rockpool".into(),
        jwks: "https://id.example.org/realms/home/protocol/openid-connect/certs".into(),
    }
}

fn claims() -> Value {
    json!({"exp": UNIX + 300, "iat": UNIX, "jti": "1", "iss": identity().issuer, "aud": ["account", "rockpool"],
        "sub": "f3b1", "typ": "Bearer", "azp": "web", "scope": "openid email", "preferred_username": "ann"})
}

fn signed_by(key: &str, header: &Value, claims: &Value, padding: &'static dyn RsaEncoding) -> String {
    let signed = encode(header.to_string().as_bytes()) + "." + &encode(claims.to_string().as_bytes());
    let pair = pair(key);
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(padding, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("Bearer {signed}.{}", encode(&signature))
}

fn header(kid: &str) -> Value {
    json!({"alg": "RS256", "typ": "JWT", "kid": kid})
}

fn signed(key: &str, kid: &str, claims: &Value) -> String {
    signed_by(key, &header(kid), claims, &RSA_PKCS1_SHA256)
}

fn at(mono: u64) -> Now {
    Now { mono: Duration::from_secs(mono), wall: Duration::from_secs(UNIX + mono) }
}

/// Keys that were fetched at the start.
fn keys(of: &[Value]) -> Keys {
    let mut keys = Keys::new(SECRET, Some(identity()));
    assert!(keys.wants(at(0)).is_some());
    keys.came(Ok(&set(of)), at(0));
    keys
}

fn ann() -> Bearer {
    Bearer { issuer: identity().issuer.into(), sub: "f3b1".into() }
}

#[test]
fn a_token_of_the_provider_is_good_until_it_expires() {
    let mut keys = keys(&[shown("a", FIRST)]);
    let token = signed(FIRST, "a", &claims());
    assert_eq!(keys.check(Some(&token), at(0)), Ok(ann()));
    assert_eq!(keys.verified.len(), 1);
    // Once more, from memory, until the last second of the leeway.
    assert_eq!(keys.check(Some(&token), at(299 + TOKEN_LEEWAY_S)), Ok(ann()));
    assert_eq!(keys.check(Some(&token), at(300 + TOKEN_LEEWAY_S)), Err(Refusal::Expired.into()));
    // One that is seen for the first time then.
    let late = signed(FIRST, "a", &{
        let mut claims = claims();
        claims["jti"] = "2".into();
        claims
    });
    assert_eq!(keys.check(Some(&late), at(300 + TOKEN_LEEWAY_S)), Err(Refusal::UserExpired.into()));
    let one = |audience: Value| {
        let mut claims = claims();
        claims["aud"] = audience;
        signed(FIRST, "a", &claims)
    };
    assert_eq!(keys.check(Some(&one("rockpool".into())), at(0)), Ok(ann()));
    for no in [json!("account"), json!(["account"]), json!([]), json!(null), json!(["rockpool2", 7])] {
        assert_eq!(keys.check(Some(&one(no)), at(0)), Err(Refusal::UserAudience.into()));
    }
}

#[test]
fn claims_that_say_something_else_are_refused() {
    let mut keys = keys(&[shown("a", FIRST)]);
    for (name, value, refusal) in [
        ("iss", json!("https://id.example.org/realms/other"), Refusal::Issuer),
        ("iss", json!(null), Refusal::Issuer),
        ("typ", json!("ID"), Refusal::UserClaims),
        ("typ", json!("Refresh"), Refusal::UserClaims),
        ("exp", json!(null), Refusal::UserClaims),
        ("exp", json!("later"), Refusal::UserClaims),
        ("exp", json!(-1), Refusal::UserClaims),
        ("exp", json!(UNIX - TOKEN_LEEWAY_S), Refusal::UserExpired),
        ("nbf", json!(UNIX + TOKEN_LEEWAY_S + 1), Refusal::Ahead),
        ("iat", json!(UNIX + TOKEN_LEEWAY_S + 1), Refusal::Ahead),
        ("nbf", json!("now"), Refusal::UserClaims),
        ("sub", json!(null), Refusal::UserClaims),
        ("sub", json!(""), Refusal::UserClaims),
        ("sub", json!("a\nb"), Refusal::UserClaims),
        ("sub", json!("x".repeat(USER_TOKEN_SUB_BYTES_MAX + 1)), Refusal::UserClaims),
    ] {
        let mut claims = claims();
        claims[name] = value;
        assert_eq!(keys.check(Some(&signed(FIRST, "a", &claims)), at(0)), Err(refusal.into()), "{claims}");
    }
    let mut fits = claims();
    fits["sub"] = "x".repeat(USER_TOKEN_SUB_BYTES_MAX).into();
    (fits["exp"], fits["nbf"]) = (json!(UNIX as f64 + 0.5), json!(UNIX + TOKEN_LEEWAY_S));
    assert!(keys.check(Some(&signed(FIRST, "a", &fits)), at(0)).is_ok());
}

#[test]
fn what_was_signed_otherwise_is_forged() {
    let mut keys = keys(&[shown("a", FIRST)]);
    let good = signed(FIRST, "a", &claims());
    assert_eq!(keys.check(Some(&signed(SECOND, "a", &claims())), at(0)), Err(Refusal::UserSignature.into()));
    // Another hash, whatever the header says of it.
    let sha512 = signed_by(FIRST, &header("a"), &claims(), &RSA_PKCS1_SHA512);
    assert_eq!(keys.check(Some(&sha512), at(0)), Err(Refusal::UserSignature.into()));
    // Each part of a good one changed.
    let parts: Vec<&str> = good["Bearer ".len()..].split('.').collect();
    let mut other = claims();
    other["sub"] = "admin".into();
    let other = encode(other.to_string().as_bytes());
    let cut = encode(&token::decode(parts[2]).unwrap()[..255]);
    for forged in [
        format!("{}.{other}.{}", parts[0], parts[2]),
        format!("{}.{}.{cut}", parts[0], parts[1]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}.{}", parts[0], parts[1], encode(&[0; 256])),
    ] {
        assert_eq!(keys.check(Some(&format!("Bearer {forged}")), at(0)), Err(Refusal::UserSignature.into()), "{forged}");
    }
    for broken in ["", ".", "..", "a.b", "a.b.c", &format!("{}.{}", parts[0], parts[1]), &format!("{good}.x")["Bearer ".len()..]] {
        assert!(matches!(keys.check(Some(&format!("Bearer {broken}")), at(0)), Err(Denied::Refused(_))), "{broken}");
    }
    assert!(keys.verified.is_empty(), "nothing of these is remembered");
    let long = format!("Bearer {}", "x".repeat(USER_TOKEN_BYTES_MAX + 1));
    assert_eq!(keys.check(Some(&long), at(0)), Err(Refusal::UserTooLong.into()));
    for none in [None, Some(""), Some("Bearer"), Some("Basic abc"), Some(&good["Bearer ".len()..])] {
        assert_eq!(keys.check(none, at(0)), Err(Denied::Missing), "{none:?}");
    }
}

/// RFC 8725 §2.1: no algorithm at all, a key that anybody can read taken for a secret, a key that the token brings along.
#[test]
fn the_algorithm_is_never_the_tokens_choice() {
    let mut keys = keys(&[shown("a", FIRST)]);
    let body = encode(claims().to_string().as_bytes());
    let unsigned = |header: Value| format!("Bearer {}.{body}.", encode(header.to_string().as_bytes()));
    for alg in ["none", "None", "NONE", "HS256", "RS384", "RS512", "PS256", "ES256", ""] {
        let named = json!({"alg": alg, "kid": "a"});
        assert_eq!(keys.check(Some(&unsigned(named)), at(0)), Err(Refusal::UserAlgorithm.into()), "{alg}");
        let unnamed = if alg == "HS256" { Refusal::Signature } else { Refusal::Algorithm };
        assert_eq!(keys.check(Some(&unsigned(json!({ "alg": alg }))), at(0)), Err(unnamed.into()), "{alg}");
    }
    // Signed by HMAC with the public key, in the forms in which it can be read.
    let public = shown("a", FIRST);
    let claims = json!({"sub": "me", "scope": "admin", "iat": UNIX, "exp": UNIX + 100, "aud": "rockpool"});
    for secret in [public["n"].as_str().unwrap().as_bytes().to_vec(), token::decode(public["n"].as_str().unwrap()).unwrap()] {
        let mac = |text: &str| {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
            encode(ring::hmac::sign(&key, text.as_bytes()).as_ref())
        };
        for header in [json!({"alg": "HS256", "typ": "JWT"}), json!({"alg": "HS256", "typ": "JWT", "kid": "a"})] {
            let text = encode(header.to_string().as_bytes()) + "." + &encode(claims.to_string().as_bytes());
            let token = format!("Bearer {text}.{}", mac(&text));
            let refused = [Refusal::Signature, Refusal::UserAlgorithm].map(|refusal| Err(refusal.into()));
            assert!(refused.contains(&keys.check(Some(&token), at(0))), "{header}");
        }
    }
    // A good signature by a key of its own.
    let brought = json!({"alg": "RS256", "kid": "b", "jwk": shown("b", SECOND), "jku": "https://evil.example/keys"});
    let token = signed_by(SECOND, &brought, &self::claims(), &RSA_PKCS1_SHA256);
    assert_eq!(keys.check(Some(&token), at(1)), Err(Refusal::UnknownKey.into()));
    let critical = json!({"alg": "RS256", "kid": "a", "crit": ["exp"]});
    let token = signed_by(FIRST, &critical, &self::claims(), &RSA_PKCS1_SHA256);
    assert_eq!(keys.check(Some(&token), at(0)), Err(Refusal::UserAlgorithm.into()));
}

#[test]
fn tokens_of_the_node_itself_are_good_beside() {
    let caller = Caller { sub: "home".into(), scope: Scope::User };
    let token = format!("bearer {}", token::sign(&SECRET, &caller, UNIX, 60).unwrap());
    let home = Bearer { issuer: LOCAL.into(), sub: "home".into() };
    for mut keys in [keys(&[shown("a", FIRST)]), Keys::new(SECRET, None)] {
        assert_eq!(keys.check(Some(&token), at(0)), Ok(home.clone()));
        assert_eq!(keys.check(Some(&token), at(60 + TOKEN_LEEWAY_S)), Err(Refusal::Expired.into()));
    }
    let mut alone = Keys::new(SECRET, None);
    assert_eq!((alone.due(), alone.wants(at(0)).is_some()), (None, false), "nobody is asked without a provider");
    assert_eq!(alone.check(Some(&signed(FIRST, "a", &claims())), at(0)), Err(Refusal::Algorithm.into()));
}

#[test]
fn keys_that_change_are_found_and_old_ones_end() {
    let mut keys = Keys::new(SECRET, Some(identity()));
    let (old, new) = (signed(FIRST, "a", &claims()), signed(SECOND, "b", &claims()));
    // Before the first answer nobody is refused for good.
    assert_eq!(keys.check(Some(&old), at(0)), Err(Denied::Fetching));
    let call = keys.wants(at(0)).unwrap();
    assert!(matches!(&call.what, What::Http { url, body: None, .. } if *url == identity().jwks) && call.idempotent);
    assert_eq!((call.deadline, call.bytes_max), (JWKS_DEADLINE, JWKS_BYTES_MAX));
    assert_eq!((keys.due(), keys.wants(at(100)).is_some()), (None, false), "one fetch at a time");
    assert_eq!(keys.check(Some(&old), at(1)), Err(Denied::Fetching));
    keys.came(Ok(&set(&[shown("a", FIRST)])), at(1));
    assert_eq!(keys.check(Some(&old), at(1)), Ok(ann()));

    // The provider signs with another key: looked for at once, but not again and again.
    assert_eq!(keys.check(Some(&new), at(5)), Err(Refusal::UnknownKey.into()), "a fetch was begun a moment ago");
    assert_eq!(keys.check(Some(&new), at(10)), Err(Denied::Fetching));
    assert!(keys.wants(at(10)).is_some());
    keys.came(Ok(&set(&[shown("a", FIRST), shown("b", SECOND)])), at(11));
    assert_eq!(keys.check(Some(&new), at(11)), Ok(ann()));
    let unknown = signed(SECOND, "c", &claims());
    for second in 12..20 {
        assert_eq!(keys.check(Some(&unknown), at(second)), Err(Refusal::UnknownKey.into()));
        assert!(keys.wants(at(second)).is_none());
    }

    // An hour later all are fetched anew; the old key is gone, and what it has signed with it. The other's stays known.
    assert_eq!(keys.due(), Some(at(11).mono + JWKS_REFRESH));
    assert!(keys.wants(at(11 + JWKS_REFRESH.as_secs())).is_some());
    keys.came(Ok(&set(&[shown("b", SECOND)])), at(20));
    assert_eq!((keys.verified.len(), keys.order.len()), (1, 1));
    assert_eq!(keys.check(Some(&new), at(20)), Ok(ann()));
    assert_eq!(keys.check(Some(&old), at(20)), Err(Refusal::UnknownKey.into()));
    // Another key under a known name ends what the one before has signed.
    assert!(keys.wants(at(20 + 2 * JWKS_REFRESH.as_secs())).is_some());
    keys.came(Ok(&set(&[shown("b", FIRST)])), at(21));
    assert_eq!(keys.check(Some(&new), at(21)), Err(Refusal::UserSignature.into()));
}

#[test]
fn a_fetch_that_fails_changes_nothing_and_is_tried_again_in_a_while() {
    let mut keys = keys(&[shown("a", FIRST)]);
    let token = signed(FIRST, "a", &claims());
    let hour = JWKS_REFRESH.as_secs();
    for (round, bad) in [
        b"<html>".to_vec(),
        b"{}".to_vec(),
        set(&[]),
        set(&[shown("a", FIRST), shown("a", SECOND)]),
        set(&(0..=JWKS_KEYS_MAX).map(|n| shown(&n.to_string(), FIRST)).collect::<Vec<_>>()),
    ]
    .into_iter()
    .enumerate()
    {
        let now = hour + round as u64 * JWKS_AGAIN_MIN.as_secs();
        assert!(keys.wants(at(now)).is_some(), "{round}");
        assert_eq!(keys.failed, round > 0, "one line in the log for all of it");
        keys.came(Ok(&bad), at(now));
        assert_eq!(keys.due(), Some(at(now).mono + JWKS_AGAIN_MIN));
        assert!(keys.wants(at(now + JWKS_AGAIN_MIN.as_secs() - 1)).is_none());
        assert_eq!(keys.check(Some(&token), at(0)), Ok(ann()));
    }
    assert!(keys.wants(at(2 * hour)).is_some());
    keys.came(Err(&CallError::Timeout), at(2 * hour));
    assert_eq!(keys.check(Some(&token), at(0)), Ok(ann()));
    assert!(keys.failed && keys.wants(at(2 * hour + JWKS_AGAIN_MIN.as_secs())).is_some());
    keys.came(Ok(&set(&[shown("a", FIRST)])), at(2 * hour + 11));
    assert!(!keys.failed, "the next outage is told of again");
    keys.came(Err(&CallError::Stopped), at(2 * hour + 12));
    assert!(!keys.failed, "a stop is none");
    let full: Vec<_> = (0..JWKS_KEYS_MAX).map(|n| shown(&n.to_string(), FIRST)).collect();
    assert!(parse(&set(&full)).is_ok_and(|keys| keys.len() == JWKS_KEYS_MAX));
}

#[test]
fn keys_too_short_too_long_or_for_something_else_are_passed_over() {
    let of = |n: usize, change: &dyn Fn(&mut Value)| {
        let mut key = shown("a", FIRST);
        key["n"] = encode(&vec![0xc1; n]).into();
        change(&mut key);
        super::key(&key).is_some()
    };
    assert!(of(RSA_BYTES_MIN, &|_| {}) && of(RSA_BYTES_MAX, &|_| {}));
    assert!(!of(RSA_BYTES_MIN - 1, &|_| {}) && !of(RSA_BYTES_MAX + 1, &|_| {}));
    assert!(of(RSA_BYTES_MIN, &|key| key["kid"] = "x".repeat(KEY_ID_BYTES_MAX).into()));
    assert!(!of(RSA_BYTES_MIN, &|key| key["kid"] = "x".repeat(KEY_ID_BYTES_MAX + 1).into()));
    for (name, value) in [("kty", json!("EC")), ("use", json!("enc")), ("alg", json!("RS512")), ("kid", json!(null)), ("e", json!("=="))] {
        assert!(!of(RSA_BYTES_MIN, &|key| key[name] = value.clone()), "{name}");
    }
}

#[test]
fn no_more_tokens_are_remembered_than_there_is_room_for() {
    let mut keys = keys(&[shown("a", FIRST)]);
    let token = signed(FIRST, "a", &claims());
    for n in 0..TOKENS_KNOWN_MAX {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_be_bytes());
        keys.verified.insert(hash, Verified { bearer: ann(), kid: "a".into(), until: u64::MAX });
        keys.order.push_back(hash);
    }
    assert_eq!(keys.check(Some(&token), at(0)), Ok(ann()));
    assert_eq!((keys.verified.len(), keys.order.len()), (TOKENS_KNOWN_MAX, TOKENS_KNOWN_MAX));
    assert!(!keys.verified.contains_key(&[0; 32]), "the oldest has made room");
}
