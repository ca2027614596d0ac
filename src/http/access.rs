//! Who is answered.

use std::net::SocketAddr;

use rockpool_net::frame::http::Request;

use crate::http::error::Code;
use crate::http::reply::Reply;
use crate::http::routes::Access;

/// Whether who asks from this address is answered.
pub fn may(access: Access, request: &Request, from: SocketAddr) -> Result<(), Reply> {
    match access {
        Access::Open => Ok(()),
        Access::Token | Access::Loopback => here(request, from),
    }
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
