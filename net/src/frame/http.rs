//! HTTP/1 requests, as far as a node's small server needs them.
//!
//! What could be read in two ways is refused (RFC 9112 §11.2): who sits in front of us might read it in the other one. What is refused is
//! told to the session as a frame of its own, so that it can say why; nothing behind it is looked at.

use thiserror::Error;

use super::{Cut, Frame};
use crate::limits::{HTTP_BODY_BYTES_MAX, HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX};

/// Why a request is refused. The end of the connection: where the next one begins is not known any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Bad {
    /// It cannot be read, or in two ways.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// No end of the target within the limit of a head.
    #[error("the target is longer than a head of {HTTP_HEAD_BYTES_MAX} bytes")]
    TargetTooLong,
    /// No end of the head within the limit.
    #[error("the head is longer than {HTTP_HEAD_BYTES_MAX} bytes")]
    HeadTooLong,
    /// More header lines than allowed.
    #[error("more than {HTTP_HEADERS_MAX} header lines")]
    TooManyLines,
    /// The body is longer than allowed.
    #[error("the body is longer than {HTTP_BODY_BYTES_MAX} bytes")]
    BodyTooLong,
    /// The body comes in chunks, or encoded otherwise.
    #[error("a body with a transfer encoding: send it with a Content-Length")]
    Encoded,
    /// The client waits for a word before it sends the body.
    #[error("bodies are at most {HTTP_BODY_BYTES_MAX} bytes: send it at once, without Expect")]
    Expects,
    /// Another version of HTTP.
    #[error("HTTP/1.1 and HTTP/1.0 are spoken here")]
    Version,
}

/// What is asked for, as far as it is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
    /// OPTIONS.
    Options,
    /// Any other token.
    Other,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The target as sent: path and query, not decoded.
    pub path: Box<str>,
    /// Whom it is meant for, the header `Host` or what an absolute target says: a name or an address, perhaps with a port. HTTP/1.0 need
    /// not say.
    pub host: Option<Box<str>>,
    /// The header `Origin`: the page that asks, told by its browser.
    pub origin: Option<Box<str>>,
    /// The header `If-None-Match`: what the client has already.
    pub has: Option<Box<str>>,
    /// The client takes answers compressed by gzip.
    pub gzip: bool,
    /// The header `Authorization`, if it is there; empty if it is no text.
    pub authorization: Option<Box<str>>,
    /// The header `Content-Type`, if it is there and text.
    pub content_type: Option<Box<str>>,
    /// The header `Last-Event-ID`, if it is a number: the event that a stream's reader has seen last.
    pub last_event: Option<u64>,
    /// It is passed on: by a page that a browser shows (`Origin`, `Sec-Fetch-Site`), or by a proxy for somebody elsewhere (`Forwarded`,
    /// `X-Forwarded-For`, `X-Real-IP`, `Via`). Its sender's address then says nothing of who asks.
    pub passed_on: bool,
    /// The body, exactly as long as `Content-Length` says.
    pub body: Box<[u8]>,
    /// Whether the connection stays for another request after the answer.
    pub keep_alive: bool,
}

impl Request {
    /// A request with nothing but a method and a target, of a connection that stays.
    pub fn new(method: Method, path: &str) -> Request {
        Request {
            method,
            path: path.into(),
            host: None,
            origin: None,
            has: None,
            gzip: false,
            authorization: None,
            content_type: None,
            last_event: None,
            passed_on: false,
            body: Box::default(),
            keep_alive: true,
        }
    }

    /// Bytes that it holds in memory beside itself.
    pub fn bytes(&self) -> usize {
        let lines = [&self.host, &self.origin, &self.has, &self.authorization, &self.content_type];
        self.path.len() + lines.into_iter().flatten().map(|text| text.len()).sum::<usize>() + self.body.len()
    }
}

/// Cuts requests.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// Bytes at the front that are known to hold no end of the head.
    looked: usize,
    /// Bytes of the head and of the whole request, once its head is read.
    found: Option<(usize, usize)>,
    /// One was refused: nothing is read any more.
    over: bool,
}

impl Requests {
    /// The next request, if all of it is there.
    pub fn cut(&mut self, buf: &[u8]) -> Cut {
        if buf.is_empty() {
            return Cut::Need(1);
        }
        if self.over {
            return Cut::Skip(buf.len());
        }
        self.try_cut(buf).unwrap_or_else(|bad| {
            self.over = true;
            Cut::Frame { frame: Frame::BadHttp(bad), used: buf.len() }
        })
    }

    fn try_cut(&mut self, buf: &[u8]) -> Result<Cut, Bad> {
        let (head, whole, mut request) = match self.found {
            Some((head, whole)) if buf.len() < whole => return Ok(Cut::Need(whole.max(head))),
            Some((head, whole)) => (head, whole, parse(&buf[..head])?.0),
            None => {
                let breaks = buf.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                if breaks > 0 {
                    return Ok(Cut::Skip(breaks));
                }
                // A method is letters. What begins otherwise, such as a TLS handshake, might never come to an end of its lines.
                if !buf.first().is_some_and(u8::is_ascii_alphabetic) {
                    return Err(Bad::Malformed("this port speaks HTTP/1.1, without TLS"));
                }
                let within = &buf[..buf.len().min(HTTP_HEAD_BYTES_MAX)];
                let Some(head) = head_end(within, self.looked) else {
                    if within.len() == HTTP_HEAD_BYTES_MAX {
                        return Err(if within.contains(&b'\n') { Bad::HeadTooLong } else { Bad::TargetTooLong });
                    }
                    // An end of two line breaks has at most two bytes in front of what comes next.
                    self.looked = within.len().saturating_sub(2);
                    return Ok(Cut::Need(buf.len() + 1));
                };
                let (request, body) = parse(&buf[..head])?;
                if buf.len() < head + body {
                    self.found = Some((head, head + body));
                    return Ok(Cut::Need(head + body));
                }
                (head, head + body, request)
            }
        };
        *self = Requests::default();
        request.body = buf[head..whole].into();
        Ok(Cut::Frame { frame: Frame::Http(request), used: whole })
    }
}

/// What the first bytes of a connection speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sniffed {
    Http,
    Other,
    /// They are the beginning of a method and too few.
    Undecided,
}

/// Whether these bytes begin an HTTP request. No JSON value begins with a capital letter.
pub(super) fn sniff(buf: &[u8]) -> Sniffed {
    let methods = [&b"GET "[..], b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH "];
    let fits = |method: &&[u8]| buf.iter().zip(*method).all(|(a, b)| a == b);
    match methods.into_iter().find(fits) {
        Some(method) if buf.len() >= method.len() => Sniffed::Http,
        Some(_) => Sniffed::Undecided,
        None => Sniffed::Other,
    }
}

/// Where the head ends: after its empty line.
fn head_end(buf: &[u8], from: usize) -> Option<usize> {
    let ends = |at: usize| match buf.get(at..)? {
        [b'\n', b'\n', ..] => Some(at + 2),
        [b'\n', b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    };
    (from..buf.len()).find_map(ends)
}

/// A complete head, and how many bytes of body it announces.
fn parse(head: &[u8]) -> Result<(Request, usize), Bad> {
    // A line break alone ends a line for some and not for others.
    if head.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r') {
        return Err(Bad::Malformed("a line that does not end with CR LF"));
    }
    let mut lines = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut lines);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(bytes)) if bytes == head.len() => {}
        Ok(_) => return Err(Bad::Malformed("no request line or broken lines")),
        Err(httparse::Error::TooManyHeaders) => return Err(Bad::TooManyLines),
        Err(httparse::Error::Version) if names_version(head) => return Err(Bad::Version),
        Err(_) => return Err(Bad::Malformed("a character that may not stand there")),
    }
    let first = parsed.version == Some(1);
    let (path, mut host) = target(parsed.path.unwrap_or_default())?;
    let mut request = Request { keep_alive: first, ..Request::new(method(parsed.method.unwrap_or_default()), path) };
    let (mut hosts, mut body, mut encoded) = (0, None, false);
    for line in parsed.headers.iter() {
        let text = || std::str::from_utf8(line.value).ok().map(Box::from);
        match Name::of(line.name) {
            Name::Host => {
                hosts += 1;
                host = host.or(Some(authority(line.value)?));
            }
            // One may be checked in front of us, and the other here.
            Name::Authorization if request.authorization.is_some() => return Err(Bad::Malformed("two Authorization lines")),
            Name::Authorization => request.authorization = Some(text().unwrap_or_default()),
            Name::ContentType => request.content_type = text(),
            Name::Origin => (request.origin, request.passed_on) = (text(), true),
            Name::IfNoneMatch => request.has = text(),
            Name::AcceptEncoding => request.gzip = takes_gzip(line.value),
            Name::LastEvent => request.last_event = text().and_then(|text| text.parse().ok()),
            Name::PassedOn => request.passed_on = true,
            // What the user has typed or opened himself.
            Name::FetchSite => request.passed_on |= line.value.trim_ascii() != b"none",
            Name::Connection => request.keep_alive = keep_alive(line.value, request.keep_alive),
            Name::TransferEncoding => encoded = true,
            // Two lengths are how a request is smuggled past whoever reads the other one.
            Name::ContentLength if body.is_some() => return Err(Bad::Malformed("two lengths of body")),
            Name::ContentLength => body = Some(content_length(line.value)?),
            Name::Expect => return Err(Bad::Expects),
            Name::Other => {}
        }
    }
    // The same, by a length and an encoding; HTTP/1.0 knows no encoding.
    if encoded && (body.is_some() || !first) {
        return Err(Bad::Malformed("a transfer encoding where none may be"));
    }
    if encoded {
        return Err(Bad::Encoded);
    }
    if hosts > 1 || (first && hosts == 0) {
        return Err(Bad::Malformed("HTTP/1.1 has one Host line"));
    }
    let body = body.unwrap_or(0);
    if body > HTTP_BODY_BYTES_MAX {
        return Err(Bad::BodyTooLong);
    }
    request.host = host.map(Box::from);
    Ok((request, body))
}

/// Whether the request line is one, of whatever version.
fn names_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    matches!(words[..], [_, _, version] if version.starts_with(b"HTTP/"))
}

/// Header lines that mean something here.
enum Name {
    Host,
    Authorization,
    ContentType,
    Origin,
    IfNoneMatch,
    AcceptEncoding,
    LastEvent,
    PassedOn,
    FetchSite,
    Connection,
    TransferEncoding,
    ContentLength,
    Expect,
    Other,
}

impl Name {
    fn of(name: &str) -> Name {
        let names = [
            ("host", Name::Host),
            ("authorization", Name::Authorization),
            ("content-type", Name::ContentType),
            ("origin", Name::Origin),
            ("if-none-match", Name::IfNoneMatch),
            ("accept-encoding", Name::AcceptEncoding),
            ("last-event-id", Name::LastEvent),
            ("forwarded", Name::PassedOn),
            ("x-forwarded-for", Name::PassedOn),
            ("x-real-ip", Name::PassedOn),
            ("via", Name::PassedOn),
            ("sec-fetch-site", Name::FetchSite),
            ("connection", Name::Connection),
            ("transfer-encoding", Name::TransferEncoding),
            ("content-length", Name::ContentLength),
            ("expect", Name::Expect),
        ];
        names.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map_or(Name::Other, |(_, name)| name)
    }
}

/// Path and query of a target, and whom an absolute one is meant for (RFC 9112 §3.2).
fn target(target: &str) -> Result<(&str, Option<&str>), Bad> {
    if target.starts_with('/') || target == "*" {
        return Ok((target, None));
    }
    let absolute = target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://")).map(|scheme| &target[scheme.len()..]);
    let rest = absolute.ok_or(Bad::Malformed("a target that is no path"))?;
    let (host, path) = rest.find(['/', '?']).map_or((rest, "/"), |at| rest.split_at(at));
    // A query may follow at once; the path before it is then the root, which takes none.
    let path = if path.starts_with('?') { "/" } else { path };
    Ok((path, Some(authority(host.as_bytes())?)))
}

/// A name or an address, perhaps with a port: nothing that could stand for something else.
fn authority(value: &[u8]) -> Result<&str, Bad> {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte);
    let text = std::str::from_utf8(value).ok().filter(|text| !text.is_empty() && text.as_bytes().iter().all(fits));
    text.ok_or(Bad::Malformed("a Host that is no name and no address"))
}

/// Whether `gzip`, or anything, is taken, and not at weight zero.
fn takes_gzip(value: &[u8]) -> bool {
    let named = |coding: &&[u8]| {
        let name = coding.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        name.eq_ignore_ascii_case(b"gzip") || name == b"*"
    };
    let weight = |coding: &[u8]| coding.split(|&byte| byte == b'=').nth(1).map(|weight| weight.trim_ascii().to_vec());
    let none = |weight: Vec<u8>| weight.iter().all(|byte| matches!(byte, b'0' | b'.'));
    value.split(|&byte| byte == b',').find(named).is_some_and(|coding| !weight(coding).is_some_and(none))
}

fn method(token: &str) -> Method {
    match token {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        _ => Method::Other,
    }
}

fn keep_alive(value: &[u8], otherwise: bool) -> bool {
    let has = |wanted: &[u8]| value.split(|&byte| byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(wanted));
    !has(b"close") && (otherwise || has(b"keep-alive"))
}

/// Digits only: no sign, no list. A length of any size is understood, so that one too large is called that.
fn content_length(value: &[u8]) -> Result<usize, Bad> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Bad::Malformed("length of body is not a number"));
    }
    let add = |sum: usize, digit: &u8| sum.saturating_mul(10).saturating_add(usize::from(digit - b'0'));
    Ok(value.iter().fold(0, add))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::super::{Framer, tests::frames};
    use super::*;

    fn requests(framer: &mut Framer, chunks: &[&[u8]]) -> Result<Vec<Request>, Bad> {
        let request = |frame| match frame {
            Frame::Http(request) => Ok(request),
            Frame::BadHttp(bad) => Err(bad),
            other => panic!("{other:?}"),
        };
        frames(framer, chunks).unwrap().into_iter().map(request).collect()
    }

    fn one(text: &str) -> Result<Request, Bad> {
        requests(&mut Framer::http(), &[text.as_bytes()]).map(|mut requests| {
            assert_eq!(requests.len(), 1, "{text:?}");
            requests.remove(0)
        })
    }

    /// A request with these lines beside its `Host`.
    fn with(lines: &str) -> Result<Request, Bad> {
        one(&format!("POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\n"))
    }

    const TWO: &str = concat!(
        "GET /api/v1/status?full=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a.b.c\r\n\r\n",
        "\r\nPOST /x HTTP/1.0\r\nCONTENT-TYPE:  application/json \r\nLast-Event-ID: 7\r\ncontent-length: 7\r\n\r\n{\"a\":1}",
    );

    fn two() -> Vec<Request> {
        let get = Request {
            host: Some("x".into()),
            authorization: Some("Bearer a.b.c".into()),
            ..Request::new(Method::Get, "/api/v1/status?full=1")
        };
        let post = Request {
            content_type: Some("application/json".into()),
            last_event: Some(7),
            body: b"{\"a\":1}"[..].into(),
            keep_alive: false,
            ..Request::new(Method::Post, "/x")
        };
        assert_eq!((get.bytes(), post.bytes()), (21 + 1 + 12, 2 + 16 + 7));
        vec![get, post]
    }

    #[test]
    fn what_a_page_or_a_proxy_passes_on_is_told() {
        for (line, passed_on) in [
            ("Accept: x", false),
            ("Sec-Fetch-Site: none", false),
            ("Sec-Fetch-Site: cross-site", true),
            ("sec-fetch-site: same-origin", true),
            ("ORIGIN: null", true),
            ("Origin: http://127.0.0.1:9332", true),
            ("X-Forwarded-For: 8.8.8.8", true),
            ("Forwarded: for=8.8.8.8", true),
            ("X-Real-IP: 8.8.8.8", true),
            ("Via: 1.1 proxy", true),
        ] {
            assert_eq!(with(&format!("{line}\r\n")).unwrap().passed_on, passed_on, "{line}");
        }
    }

    #[test]
    fn requests_are_cut_at_every_offset_as_at_once() {
        let text = TWO.as_bytes();
        for framer in [Framer::http(), Framer::Sniff] {
            assert_eq!(requests(&mut framer.clone(), &[text]), Ok(two()));
            for at in 0..=text.len() {
                assert_eq!(requests(&mut framer.clone(), &[&text[..at], &text[at..]]), Ok(two()), "cut at {at}");
            }
            let bytes: Vec<&[u8]> = text.chunks(1).collect();
            assert_eq!(requests(&mut framer.clone(), &bytes), Ok(two()));
        }
    }

    #[test]
    fn methods_and_connection_are_understood() {
        for (token, method) in [("HEAD", Method::Head), ("PUT", Method::Put), ("DELETE", Method::Delete), ("OPTIONS", Method::Options)] {
            assert_eq!(one(&format!("{token} / HTTP/1.1\r\nHost: x\r\n\r\n")).unwrap().method, method);
        }
        assert_eq!(one("BREW /pot HTTP/1.0\r\n\r\n").unwrap().method, Method::Other);
        let keeps = |version: &str, line: &str| one(&format!("GET / HTTP/{version}\r\nHost: x\r\n{line}\r\n")).unwrap().keep_alive;
        assert!(keeps("1.1", "") && !keeps("1.0", ""));
        assert!(!keeps("1.1", "Connection: Upgrade, Close\r\n") && keeps("1.0", "Connection: keep-alive\r\n"));
    }

    #[test]
    fn whom_it_is_for_and_what_is_taken_are_told() {
        let told = |target: &str, host: &str| {
            let request = one(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))?;
            Ok((String::from(request.path), String::from(request.host.unwrap())))
        };
        assert_eq!(told("/a?b", "[::1]:9332"), Ok(("/a?b".into(), "[::1]:9332".into())));
        assert_eq!(told("http://b.c:1/a?b", "d"), Ok(("/a?b".into(), "b.c:1".into())), "an absolute target is the one that counts");
        assert_eq!(told("HTTP://b", "d"), Ok(("/".into(), "b".into())));
        assert_eq!(told("*", "d"), Ok(("*".into(), "d".into())));
        for bad in ["b.c:1", "https://b/", "http://", "http:///x", "http://u@b/"] {
            assert!(matches!(told(bad, "d"), Err(Bad::Malformed(_))), "{bad}");
        }
        for bad in ["", "a b", "a,b", "a/b", "u@b", "h\u{f6}h"] {
            assert!(matches!(told("/", bad), Err(Bad::Malformed(_))), "{bad}");
        }
        let gzip = |value: &str| with(&format!("Accept-Encoding: {value}\r\n")).unwrap().gzip;
        assert!(gzip("gzip") && gzip("br, GZIP;q=0.5") && gzip("*") && !gzip("br") && !gzip("gzip;q=0") && !gzip("gzip; q=0.000"));
        let request = with("If-None-Match: \"a\"\r\nOrigin: http://x\r\n").unwrap();
        assert_eq!((request.has.as_deref(), request.origin.as_deref()), (Some("\"a\""), Some("http://x")));
    }

    #[test]
    fn malformed_heads_are_refused() {
        for bad in [
            "GET\r\n\r\n",
            "GET /\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.0 \r\n\r\n",
            "GET / HTTP/1.0\r\nno colon\r\n\r\n",
            "GET / HTTP/1.0\r\nspace : x\r\n\r\n",
            "GET / HTTP/1.0\r\na: b\r\n folded\r\n\r\n",
            "GET / HTTP/1.0\r\na: \u{1}\r\n\r\n",
            "GET / HTTP/1.0\r\na: b\rc: d\r\n\r\n",
            "GET /\u{0} HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.0\n\n",
            "GET / HTTP/1.0\r\na: b\nc: d\r\n\r\n",
            "GET / HTTP/1.0\r\na: b\r\n\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
            "{\"id\":1}",
            "\u{16}\u{3}\u{1}",
        ] {
            assert!(matches!(one(bad), Err(Bad::Malformed(_))), "{bad:?}: {:?}", one(bad));
        }
        for bad in [
            "Content-Length: -1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length:\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Authorization: Bearer a\r\nAuthorization: Bearer a\r\n",
            "Authorization: \u{f6}\r\nauthorization: Bearer a\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
        ] {
            assert!(matches!(with(bad), Err(Bad::Malformed(_))), "{bad:?}: {:?}", with(bad));
        }
        assert!(matches!(one("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(Bad::Malformed(_))));
        for encoding in ["chunked", "gzip, chunked", "identity", "xchunked", ""] {
            assert_eq!(with(&format!("Transfer-Encoding: {encoding}\r\n")), Err(Bad::Encoded), "{encoding}");
        }
        assert_eq!(with("Expect: 100-continue\r\nContent-Length: 5\r\n"), Err(Bad::Expects));
        for other in ["GET / HTTP/2.0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.2\r\n\r\n"] {
            assert_eq!(one(other), Err(Bad::Version), "{other:?}");
        }
    }

    #[test]
    fn nothing_is_read_behind_what_is_refused() {
        let smuggled = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /secret HTTP/1.1\r\nHost: x\r\n\r\n";
        for at in 0..=smuggled.len() {
            let got = frames(&mut Framer::http(), &[TWO.as_bytes(), &smuggled[..at], &smuggled[at..]]).unwrap();
            assert_eq!((got.len(), got.last()), (3, Some(&Frame::BadHttp(Bad::Encoded))), "cut at {at}");
        }
    }

    #[test]
    fn head_lines_and_body_reach_their_limits_and_no_further() {
        let head = |front: &str, bytes: usize, end: &str| format!("{front}{}{end}", "x".repeat(bytes - front.len() - end.len()));
        let lines = |bytes| head("GET / HTTP/1.0\r\na: ", bytes, "\r\n\r\n");
        let target = |bytes| head("GET /", bytes, " HTTP/1.0\r\n\r\n");
        assert!(one(&lines(HTTP_HEAD_BYTES_MAX)).is_ok() && one(&target(HTTP_HEAD_BYTES_MAX)).is_ok());
        assert_eq!(one(&lines(HTTP_HEAD_BYTES_MAX + 1)), Err(Bad::HeadTooLong));
        assert_eq!(one(&target(HTTP_HEAD_BYTES_MAX + 20)), Err(Bad::TargetTooLong));
        assert_eq!(one(&"x".repeat(1 << 20)), Err(Bad::TargetTooLong));

        let lines = |count: usize| format!("GET / HTTP/1.0\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert!(one(&lines(HTTP_HEADERS_MAX)).is_ok());
        assert_eq!(one(&lines(HTTP_HEADERS_MAX + 1)), Err(Bad::TooManyLines));

        let post = |bytes: usize| format!("POST / HTTP/1.0\r\nContent-Length: {bytes}\r\n\r\n");
        let body = "y".repeat(HTTP_BODY_BYTES_MAX);
        let request = one(&format!("{}{body}", post(body.len()))).unwrap();
        assert_eq!(*request.body, *body.as_bytes());
        for over in [HTTP_BODY_BYTES_MAX + 1, usize::MAX] {
            // Refused at the head, before a byte of the body is there.
            assert_eq!(one(&post(over)), Err(Bad::BodyTooLong));
        }
        assert_eq!(with("Content-Length: 99999999999999999999999999\r\n"), Err(Bad::BodyTooLong));
    }

    #[test]
    fn the_first_bytes_tell_http_from_lines() {
        for line in ["{\"id\":1}", "[]", "GETTING", "PO", "Hello"] {
            let text = format!(" \r\n{line}\n");
            for at in 0..=text.len() {
                let (front, rest) = text.as_bytes().split_at(at);
                let got = frames(&mut Framer::Sniff, &[front, rest]);
                assert_eq!(got, Ok(vec![Frame::Line(line.as_bytes().into())]), "{line} cut at {at}");
            }
        }
        let late = frames(&mut Framer::Sniff, &[b" \r", b"\n", b"GE", b"T / HTTP/1.0\r\n\r\n"]).unwrap();
        assert!(matches!(late[..], [Frame::Http(_)]), "{late:?}");
        assert_eq!(sniff(b""), Sniffed::Undecided);
        assert_eq!(sniff(b"OPTIO"), Sniffed::Undecided);
        assert_eq!(sniff(b"GET "), Sniffed::Http);
        assert_eq!(sniff(b"get "), Sniffed::Other);
        // Decided once: a line after a line is a line, whatever it says.
        let lines = frames(&mut Framer::Sniff, &[b"{}\nGET / HTTP/1.1\r\n\r\n"]).unwrap();
        assert_eq!(lines, [Frame::Line(b"{}"[..].into()), Frame::Line(b"GET / HTTP/1.1"[..].into())]);
    }

    /// Whatever bytes come in whatever pieces: no panic, and the same outcome as in one piece.
    #[test]
    fn arbitrary_text_has_one_outcome_however_it_is_cut() {
        let mut rng = ChaCha12Rng::seed_from_u64(4);
        let (mut cut, mut refused) = (0, 0);
        for _ in 0..100_000 {
            let mut text = TWO.as_bytes().to_vec();
            text.truncate(1 + rng.next_u32() as usize % text.len());
            for _ in 0..rng.next_u32() % 4 {
                let at = rng.next_u32() as usize % text.len();
                text[at] = if rng.next_u32() % 2 == 0 { rng.next_u32() as u8 } else { b"\r\n: 0"[rng.next_u32() as usize % 5] };
            }
            let at = rng.next_u32() as usize % text.len();
            for framer in [Framer::http(), Framer::Sniff, Framer::line()] {
                let whole = frames(&mut framer.clone(), &[&text]);
                assert_eq!(frames(&mut framer.clone(), &[&text[..at], &text[at..]]), whole, "{text:?}");
                let bad = |frame: &&Frame| matches!(frame, Frame::BadHttp(_));
                match whole {
                    Ok(frames) => {
                        cut += frames.len();
                        refused += frames.iter().filter(bad).count();
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(cut > 10_000 && refused > 10_000, "{cut} cut, {refused} refused");
    }
}
