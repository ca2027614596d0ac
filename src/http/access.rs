//! Who is answered.

use std::net::{IpAddr, SocketAddr};

use rockpool_net::frame::http::{Method, Request};

use crate::http::error::Code;
use crate::http::reply::Reply;
use crate::http::routes::Access;
use crate::http::token::{self, Caller, Scope};
use crate::limits::HTTP_DOORS_MAX;
use crate::turn::Turn;

/// What the operator says of who may come in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doors {
    /// Names of this node beside those that it has anyway (`--http-host`).
    pub hosts: Vec<String>,
    /// Pages of others that may read what this node tells (`--http-origin`).
    pub origins: Vec<String>,
}

/// Ends of names that nobody can buy: whoever answers to them is in the same house, or an onion service of its own.
const HOME: [&str; 5] = [".local", ".lan", ".home.arpa", ".internal", ".onion"];

impl Doors {
    /// What was configured, checked.
    pub fn new(hosts: Vec<String>, origins: Vec<String>) -> Result<Doors, String> {
        if hosts.len().max(origins.len()) > HTTP_DOORS_MAX {
            return Err(format!("--http-host and --http-origin may be given {HTTP_DOORS_MAX} times each"));
        }
        let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
        if let Some(bad) = hosts.iter().find(|host| !is_name(host)) {
            return Err(format!("--http-host: {bad:?} is no name: give it without scheme and port, like pool.example.org"));
        }
        let is_origin = |origin: &str| {
            let rest = origin.strip_prefix("https://").or(origin.strip_prefix("http://"));
            rest.is_some_and(|rest| is_name(&rest.replace([':', '[', ']'], "")) && rest.to_ascii_lowercase() == *rest)
        };
        if let Some(bad) = origins.iter().find(|origin| !is_origin(origin)) {
            return Err(format!("--http-origin: {bad:?} is no origin: give scheme and name alone, like https://stats.example.org"));
        }
        Ok(Doors { hosts, origins })
    }

    /// Whether the request is meant for this node. A page of others that has its own name lead here, to read what is told at home (DNS
    /// rebinding), is still asked for by that name.
    pub fn meant(&self, request: &Request) -> Result<(), Reply> {
        let Some(host) = &request.host else { return Ok(()) };
        let name = without_port(host);
        let known = |known: &String| known.eq_ignore_ascii_case(name);
        let home = |end: &&str| name.len() > end.len() && name.to_ascii_lowercase().ends_with(*end);
        if is_address(name) || !name.contains('.') || HOME.iter().any(home) || self.hosts.iter().any(known) {
            return Ok(());
        }
        Err(Reply::error(Code::Misdirected, "this node does not go by that name; if it should, start it with --http-host NAME"))
    }

    /// The page that asks, if it is one of those that may.
    pub fn origin<'a>(&self, request: &'a Request) -> Option<&'a str> {
        request.origin.as_deref().filter(|origin| self.origins.iter().any(|known| known == origin))
    }

    /// The answer to a browser that asks whether such a page may ask (a preflight), if this is it.
    pub fn preflight(&self, request: &Request) -> Option<Reply> {
        (request.method == Method::Options && self.origin(request).is_some()).then(|| {
            let reply = Reply::nothing().with("Access-Control-Allow-Methods", "GET, HEAD");
            reply.with("Access-Control-Allow-Headers", "Authorization").with("Access-Control-Max-Age", "600")
        })
    }

    /// The answer, and to a page that may read it the word that it may.
    pub fn opened(&self, request: &Request, reply: Reply) -> Reply {
        if self.origins.is_empty() {
            return reply;
        }
        let reply = reply.with("Vary", "Origin");
        let looks = matches!(request.method, Method::Get | Method::Head | Method::Options);
        match self.origin(request).filter(|_| looks) {
            Some(origin) => reply.with("Access-Control-Allow-Origin", origin),
            None => reply,
        }
    }
}

/// The name or address in front of the port. What is written otherwise stays as it is, and is no name that anybody has.
fn without_port(host: &str) -> &str {
    let end = host.find(']').map_or(0, |at| at + 1);
    let name = host[end..].find(':').map_or(host, |at| &host[..end + at]);
    name.trim_end_matches('.')
}

fn is_address(name: &str) -> bool {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    bare.unwrap_or(name).parse::<IpAddr>().is_ok()
}

/// Whether who asks from this address is answered.
pub fn may(access: Access, request: &Request, from: SocketAddr, turn: &Turn<'_>) -> Result<(), Reply> {
    match access {
        // Who comes to a stage is looked at there.
        Access::Open | Access::User => Ok(()),
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn to(host: &str) -> Request {
        Request { host: Some(host.into()), ..Request::new(Method::Get, "/") }
    }

    #[test]
    fn a_node_goes_by_addresses_and_names_of_the_house() {
        let doors = Doors { hosts: vec!["pool.example.org".into()], ..Doors::default() };
        for host in [
            "127.0.0.1",
            "192.168.1.5:9332",
            "[::1]",
            "[2001:db8::1]:80",
            "localhost:9332",
            "rockpool",
            "pi.local",
            "PI.Local:80",
            "pi.lan.",
            "a.b.home.arpa",
            "x.internal",
            "abc.onion",
            "Pool.Example.org:443",
        ] {
            assert_eq!(doors.meant(&to(host)), Ok(()), "{host}");
        }
        for host in [
            "example.org",
            "evil.pool.example.org",
            "pool.example.org.evil.com:9332",
            ".local",
            "127.0.0.1.evil.com",
            "[::1].com.x",
            "1.2.3",
        ] {
            assert_eq!(doors.meant(&to(host)).unwrap_err().status, 421, "{host}");
        }
        assert_eq!(doors.meant(&Request::new(Method::Get, "/")), Ok(()), "HTTP/1.0 says no name");
    }

    #[test]
    fn only_names_and_origins_are_configured() {
        let new = |hosts: &[&str], origins: &[&str]| {
            let owned = |of: &[&str]| of.iter().map(|of| (*of).to_owned()).collect();
            Doors::new(owned(hosts), owned(origins))
        };
        assert!(new(&["pool.example.org", "pi_2"], &["https://a.org", "http://127.0.0.1:3000", "http://[2001:db8]:80"]).is_ok());
        for bad in ["", "https://a.org", "a.org:80", "a/b", "*"] {
            assert!(new(&[bad], &[]).unwrap_err().contains("is no name"), "{bad}");
        }
        for bad in ["", "*", "null", "a.org", "https://", "https://a.org/", "https://A.org", "ftp://a.org"] {
            assert!(new(&[], &[bad]).unwrap_err().contains("is no origin"), "{bad}");
        }
        assert!(new(&["a"; HTTP_DOORS_MAX], &[]).is_ok() && new(&["a"; HTTP_DOORS_MAX + 1], &[]).is_err());
    }

    #[test]
    fn pages_of_others_may_read_if_they_are_named() {
        let from = |method, origin: &str| Request { origin: Some(origin.into()), ..Request::new(method, "/") };
        let (none, one) = (Doors::default(), Doors { origins: vec!["https://a.org".into()], ..Doors::default() });
        let said = |doors: &Doors, request: &Request| {
            let reply = doors.preflight(request).unwrap_or_else(|| Reply::text(200, "x".into()));
            String::from_utf8(doors.opened(request, reply).payload(false, true).bytes().to_vec()).unwrap()
        };
        let allowed = "\r\nAccess-Control-Allow-Origin: https://a.org\r\n";
        assert!(said(&one, &from(Method::Get, "https://a.org")).contains(allowed));
        let preflight = said(&one, &from(Method::Options, "https://a.org"));
        assert!(preflight.starts_with("HTTP/1.1 204 ") && preflight.contains(allowed) && preflight.contains("Methods: GET, HEAD\r\n"));
        for (doors, request) in [
            (&none, from(Method::Get, "https://a.org")),
            (&none, from(Method::Options, "https://a.org")),
            (&one, from(Method::Get, "https://b.org")),
            (&one, from(Method::Get, "https://a.org.b.org")),
            (&one, from(Method::Get, "null")),
            (&one, from(Method::Options, "https://b.org")),
            (&one, from(Method::Post, "https://a.org")),
            (&one, Request::new(Method::Get, "/")),
        ] {
            let said = said(doors, &request);
            assert!(!said.contains("Access-Control") && said.starts_with("HTTP/1.1 200 "), "{request:?}: {said}");
            assert_eq!(said.contains("\r\nVary: Origin\r\n"), !doors.origins.is_empty());
        }
    }
}
