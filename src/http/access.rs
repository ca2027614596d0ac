//! Who is answered.

use std::net::SocketAddr;

use rockpool_net::frame::http::Request;

use crate::http::error::Code;
use crate::http::reply::Reply;
use crate::http::routes::Access;
use crate::http::token::{self, Caller, Scope};
use crate::turn::Turn;

/// Whether who asks from this address is answered.
pub fn may(access: Access, request: &Request, from: SocketAddr, turn: &Turn<'_>) -> Result<(), Reply> {
    match access {
        Access::Open => Ok(()),
        Access::Token => caller(request, turn).and_then(|caller| within(&caller, Scope::Admin)),
        Access::Loopback => here(request, from),
    }
}

/// Who comes with the token of this request (RFC 6750 §2.1), from wherever. A wrong one costs one hash over its bounded length.
fn caller(request: &Request, turn: &Turn<'_>) -> Result<Caller, Reply> {
    let (scheme, token) = request.authorization.as_deref().and_then(|line| line.split_once(' ')).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("Bearer") {
        let why = "this needs a token: Authorization: Bearer TOKEN; `rockpool token` prints one";
        return Err(Reply::error(Code::Unauthorized, why).with("WWW-Authenticate", "Bearer"));
    }
    token::verify(&turn.config.secret, token.trim(), turn.now.wall.as_secs()).map_err(|refusal| {
        turn.counters.tokens_refused.add(1);
        Reply::error(Code::Unauthorized, &refusal.to_string()).with("WWW-Authenticate", "Bearer error=\"invalid_token\"")
    })
}

/// Whether the caller's scope reaches as far as this one.
fn within(caller: &Caller, wanted: Scope) -> Result<(), Reply> {
    if caller.scope.covers(wanted) {
        return Ok(());
    }
    let why = "the token's scope does not reach this; `rockpool token --scope admin` prints one that does";
    Err(Reply::error(Code::Forbidden, why).with("WWW-Authenticate", "Bearer error=\"insufficient_scope\""))
}

/// Only who is on this machine is heard, and no page that its browser shows.
fn here(request: &Request, from: SocketAddr) -> Result<(), Reply> {
    if !from.ip().to_canonical().is_loopback() {
        return Err(Reply::error(Code::Forbidden, "only who is on this machine is heard here"));
    }
    if request.passed_on {
        return Err(Reply::error(Code::Forbidden, "no page in a browser is heard here, and nobody through a proxy; use `rockpool`"));
    }
    Ok(())
}
