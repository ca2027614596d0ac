//! Who comes with which token: of the node itself ([`token`], HS256), or of an identity provider such as Keycloak, signed by RS256 with one
//! of the keys that it shows as a JSON Web Key Set (RFC 7517).
//!
//! Pure: tokens, times and what was fetched go in; users, refusals and calls come out. Which key a token is verified with, and how, follows
//! from the configuration and the key. What the token says of its algorithm must be that, and is never followed (RFC 8725 §3.1).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use rockpool_net::sha256::sha256;
use rockpool_net::time::Now;
use rockpool_workers::outside::call::{Call, CallError, Service, What};
use serde_json::{Map, Value};

use crate::http::token::{self, Refusal, Secret};
use crate::limits::{
    JWKS_AGAIN_MIN, JWKS_BYTES_MAX, JWKS_DEADLINE, JWKS_KEYS_MAX, JWKS_REFRESH, KEY_ID_BYTES_MAX, RSA_BYTES_MAX, RSA_BYTES_MIN,
    TOKEN_LEEWAY_S, TOKENS_KNOWN_MAX, USER_TOKEN_BYTES_MAX, USER_TOKEN_SUB_BYTES_MAX,
};

/// The issuer of tokens that the node signs itself.
pub const LOCAL: &str = "rockpool";
/// The one algorithm of an identity provider's keys.
const ALGORITHM: &str = "RS256";

/// An identity provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What its tokens must say in `iss`.
    pub issuer: String,
    /// What they must say in `aud`.
    pub audience: String,
    /// Where it shows its keys.
    pub jwks: String,
}

/// A user, as a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// Who vouches: [`LOCAL`], or the identity provider.
    pub issuer: Arc<str>,
    /// The user's name there.
    pub sub: Arc<str>,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no token.
    #[error("this needs a token: Authorization: Bearer TOKEN; `rockpool token --scope user --sub NAME` prints one")]
    Missing,
    /// The token is not good.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It may be: the key that it names is being looked for.
    #[error("the key of this token is being fetched from who signed it; try again in a second")]
    Fetching,
}

/// A key that tokens are verified with.
#[derive(Debug)]
struct Key {
    /// Modulus, big-endian, without leading zeros.
    n: Vec<u8>,
    /// Exponent, likewise.
    e: Vec<u8>,
}

/// A token that was found good, until it expires.
#[derive(Debug)]
struct Verified {
    bearer: Bearer,
    /// The key that it was verified with.
    kid: String,
    /// Unix seconds, leeway included.
    until: u64,
}

/// What tokens are verified with.
#[derive(Debug)]
pub struct Keys {
    secret: Secret,
    local: Arc<str>,
    identity: Option<(Identity, Arc<str>)>,
    keys: BTreeMap<String, Key>,
    /// Whether a fetch is under way.
    fetching: bool,
    /// A key was asked for that is not there.
    missed: bool,
    /// When the last fetch began.
    asked: Option<Duration>,
    /// When keys came last.
    came: Option<Duration>,
    /// The last fetch failed, and the log was told.
    failed: bool,
    /// Tokens that were found good, by their hash, so that a request does not cost a check each.
    verified: BTreeMap<[u8; 32], Verified>,
    /// Their hashes, the oldest first.
    order: VecDeque<[u8; 32]>,
}

impl Keys {
    /// The node's own secret, and an identity provider, if there is one.
    pub fn new(secret: Secret, identity: Option<Identity>) -> Keys {
        Keys {
            secret,
            local: LOCAL.into(),
            identity: identity.map(|identity| (identity.clone(), identity.issuer.into())),
            keys: BTreeMap::new(),
            fetching: false,
            missed: false,
            asked: None,
            came: None,
            failed: false,
            verified: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Who comes with this `Authorization` line (RFC 6750 §2.1).
    pub fn check(&mut self, authorization: Option<&str>, now: Now) -> Result<Bearer, Denied> {
        let (scheme, token) = authorization.and_then(|line| line.split_once(' ')).ok_or(Denied::Missing)?;
        if !scheme.eq_ignore_ascii_case("Bearer") {
            return Err(Denied::Missing);
        }
        let (token, unix) = (token.trim(), now.wall.as_secs());
        if token.len() > USER_TOKEN_BYTES_MAX {
            return Err(Refusal::UserTooLong.into());
        }
        match &self.identity {
            Some((identity, issuer)) => {
                let (identity, issuer) = (identity.clone(), issuer.clone());
                match named_key(token)? {
                    Some(kid) => self.foreign(token, kid, &identity, issuer, now),
                    None => self.own(token, unix),
                }
            }
            None => self.own(token, unix),
        }
    }

    /// A token of the node itself: whatever its scope, its own portfolios are the user's.
    fn own(&self, token: &str, now: u64) -> Result<Bearer, Denied> {
        let caller = token::verify(&self.secret, token, now)?;
        Ok(Bearer { issuer: self.local.clone(), sub: caller.sub.into() })
    }

    /// A token of the identity provider.
    fn foreign(&mut self, token: &str, kid: String, identity: &Identity, issuer: Arc<str>, now: Now) -> Result<Bearer, Denied> {
        let unix = now.wall.as_secs();
        let hash = sha256(token.as_bytes());
        if let Some(known) = self.verified.get(&hash) {
            return if unix < known.until { Ok(known.bearer.clone()) } else { Err(Refusal::Expired.into()) };
        }
        let Some(key) = self.keys.get(&kid) else { return Err(self.miss(now)) };
        let claims = opened(token, key)?;
        let (sub, until) = claimed(&claims, identity, unix)?;
        let bearer = Bearer { issuer, sub };
        if self.order.len() == TOKENS_KNOWN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.verified.remove(&oldest);
        }
        self.verified.insert(hash, Verified { bearer: bearer.clone(), kid, until });
        self.order.push_back(hash);
        Ok(bearer)
    }

    /// The key is not there: it may be new, and is looked for if that was not done a moment ago.
    fn miss(&mut self, now: Now) -> Denied {
        if !self.fetching && self.may_fetch(now.mono) {
            self.missed = true;
        }
        if self.fetching || self.missed { Denied::Fetching } else { Refusal::UnknownKey.into() }
    }

    fn may_fetch(&self, now: Duration) -> bool {
        self.asked.is_none_or(|asked| now >= asked + JWKS_AGAIN_MIN)
    }

    /// When keys are wanted next; never without an identity provider, and not while they are on their way.
    pub fn due(&self) -> Option<Duration> {
        self.identity.as_ref().filter(|_| !self.fetching)?;
        let again = self.asked.map_or(Duration::ZERO, |asked| asked + JWKS_AGAIN_MIN);
        match self.came {
            Some(came) if !self.missed => Some(again.max(came + JWKS_REFRESH)),
            _ => Some(again),
        }
    }

    /// The fetch of the keys, if it is time for it: [`Keys::came`] must follow.
    pub fn wants(&mut self, now: Now) -> Option<Call> {
        if self.due().is_none_or(|due| now.mono < due) {
            return None;
        }
        let (identity, _) = self.identity.as_ref()?;
        (self.fetching, self.missed, self.asked) = (true, false, Some(now.mono));
        Some(Call {
            service: Service::Identity,
            endpoint: Service::Identity.name().into(),
            what: What::Http { url: identity.jwks.clone(), headers: Arc::new(|_| Vec::new()), body: None },
            idempotent: true,
            deadline: JWKS_DEADLINE,
            bytes_max: JWKS_BYTES_MAX,
        })
    }

    /// What the fetch brought. Keys that are no longer shown are good for nothing any more, nor is what was verified with them; a fetch
    /// that failed changes nothing.
    pub fn came(&mut self, result: Result<&[u8], &CallError>, now: Now) {
        self.fetching = false;
        if result == Err(&CallError::Stopped) {
            return;
        }
        let keys = result.map_err(ToString::to_string).and_then(parse);
        match keys {
            Ok(keys) => {
                (self.came, self.failed) = (Some(now.mono), false);
                // Whatever is under a name now may not be what it was.
                self.verified.retain(|_, token| {
                    let (before, after) = (self.keys.get(&token.kid), keys.get(&token.kid));
                    before.zip(after).is_some_and(|(before, after)| (&before.n, &before.e) == (&after.n, &after.e))
                });
                self.order.retain(|hash| self.verified.contains_key(hash));
                self.keys = keys;
            }
            // Tried again every few seconds, for days if need be: one line says so.
            Err(why) if std::mem::replace(&mut self.failed, true) => log::debug!("the keys of users' tokens: {why}"),
            Err(why) => log::warn!("the keys of users' tokens: {why}; trying again every {JWKS_AGAIN_MIN:?}"),
        }
    }
}

/// The key that a token names; none for a token of the node itself, which names none.
fn named_key(token: &str) -> Result<Option<String>, Denied> {
    let header = token.split('.').next().and_then(token::decode).ok_or(Refusal::Malformed)?;
    let header: Map<String, Value> = serde_json::from_slice(&header).map_err(|_| Refusal::Malformed)?;
    let Some(kid) = header.get("kid") else { return Ok(None) };
    // What must be understood is not (RFC 7515 §4.1.11).
    if header.get("alg").and_then(Value::as_str) != Some(ALGORITHM) || header.contains_key("crit") {
        return Err(Refusal::UserAlgorithm.into());
    }
    let kid = kid.as_str().filter(|kid| kid.len() <= KEY_ID_BYTES_MAX).ok_or(Refusal::Malformed)?;
    Ok(Some(kid.to_owned()))
}

/// The claims of a token that was signed with this key. Nothing of them is looked at before.
fn opened(token: &str, key: &Key) -> Result<Map<String, Value>, Refusal> {
    let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
    let (_, claims) = signed.split_once('.').ok_or(Refusal::Malformed)?;
    let (claims, signature) = token::decode(claims).zip(token::decode(signature)).ok_or(Refusal::Malformed)?;
    let verifier = RsaPublicKeyComponents { n: &key.n, e: &key.e };
    verifier.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature).map_err(|_| Refusal::UserSignature)?;
    serde_json::from_slice(&claims).map_err(|_| Refusal::UserClaims)
}

/// The user's name, and until when the token is good, Unix seconds. Claims beside these are the provider's own.
fn claimed(claims: &Map<String, Value>, identity: &Identity, now: u64) -> Result<(Arc<str>, u64), Refusal> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(&identity.issuer) {
        return Err(Refusal::Issuer);
    }
    let ours = |audience: &Value| audience.as_str() == Some(&identity.audience);
    let for_us = match claims.get("aud") {
        Some(Value::Array(list)) => list.iter().any(ours),
        Some(one) => ours(one),
        None => false,
    };
    if !for_us {
        return Err(Refusal::UserAudience);
    }
    // Keycloak signs other things with the same keys: tokens that say who logged in (`ID`), or that he logged out.
    if claims.get("typ").is_some_and(|typ| typ.as_str() != Some("Bearer")) {
        return Err(Refusal::UserClaims);
    }
    let until = seconds(claims.get("exp")).ok_or(Refusal::UserClaims)?.saturating_add(TOKEN_LEEWAY_S);
    if now >= until {
        return Err(Refusal::UserExpired);
    }
    for name in ["nbf", "iat"] {
        let from = claims.get(name).map_or(Some(0), |from| seconds(Some(from))).ok_or(Refusal::UserClaims)?;
        if from > now.saturating_add(TOKEN_LEEWAY_S) {
            return Err(Refusal::Ahead);
        }
    }
    let good = |sub: &&str| !sub.is_empty() && sub.len() <= USER_TOKEN_SUB_BYTES_MAX && !sub.contains(char::is_control);
    Ok((text("sub").filter(good).ok_or(Refusal::UserClaims)?.into(), until))
}

/// Seconds, of which some providers tell fractions.
fn seconds(claim: Option<&Value>) -> Option<u64> {
    let claim = claim?;
    claim.as_u64().or_else(|| claim.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| seconds as u64))
}

/// The keys of a set that tokens can be verified with, by their names. Others, such as those for encryption, are passed over.
fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Key>, String> {
    let set: Value = serde_json::from_slice(bytes).map_err(|error| format!("not JSON: {error}"))?;
    let list = set.get("keys").and_then(Value::as_array).ok_or("there is no list of keys")?;
    let mut keys = BTreeMap::new();
    for (kid, key) in list.iter().filter_map(key) {
        // Of two with one name neither is known to be meant.
        if keys.insert(kid.to_owned(), key).is_some() {
            return Err(format!("two keys are called {kid:?}"));
        }
    }
    match keys.len() {
        0 => Err("none of the keys is for RS256 and of 2,048 to 8,192 bits".into()),
        1..=JWKS_KEYS_MAX => Ok(keys),
        some => Err(format!("{some} keys, more than {JWKS_KEYS_MAX}")),
    }
}

/// A key of a set, if it is one of RSA for signatures by RS256.
fn key(of: &Value) -> Option<(&str, Key)> {
    let text = |name: &str| of.get(name).and_then(Value::as_str);
    let is_or_unsaid = |name: &str, wanted: &str| of.get(name).is_none_or(|said| said.as_str() == Some(wanted));
    let fits = text("kty") == Some("RSA") && is_or_unsaid("use", "sig") && is_or_unsaid("alg", ALGORITHM);
    let kid = text("kid").filter(|kid| fits && kid.len() <= KEY_ID_BYTES_MAX)?;
    let (n, e) = (token::decode(text("n")?)?, token::decode(text("e")?)?);
    let trimmed = |bytes: Vec<u8>| bytes.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
    let key = Key { n: trimmed(n), e: trimmed(e) };
    (RSA_BYTES_MIN..=RSA_BYTES_MAX).contains(&key.n.len()).then_some((kid, key))
}

#[cfg(test)]
mod tests;
