//! HTTP/1 requests, as far as a node's small server needs them.

use super::{Cut, Frame, FrameError};
use crate::limits::{HTTP_BODY_BYTES_MAX, HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX};

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
    /// The header `Authorization`, if it is there and text.
    pub authorization: Option<Box<str>>,
    /// The header `Content-Type`, if it is there and text.
    pub content_type: Option<Box<str>>,
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
            authorization: None,
            content_type: None,
            passed_on: false,
            body: Box::default(),
            keep_alive: true,
        }
    }

    /// Bytes that it holds in memory beside itself.
    pub fn bytes(&self) -> usize {
        let texts = [Some(&self.path), self.authorization.as_ref(), self.content_type.as_ref()];
        texts.into_iter().flatten().map(|text| text.len()).sum::<usize>() + self.body.len()
    }
}

/// Cuts requests.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// Bytes at the front that are known to hold no end of the head.
    looked: usize,
    /// Bytes of the head and of the whole request, once its head is read.
    found: Option<(usize, usize)>,
}

impl Requests {
    /// The next request, if all of it is there.
    pub fn cut(&mut self, buf: &[u8]) -> Result<Cut, FrameError> {
        let (head, whole) = match self.found {
            Some(found) => found,
            None => {
                let breaks = buf.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                if breaks > 0 {
                    return Ok(Cut::Skip(breaks));
                }
                let within = &buf[..buf.len().min(HTTP_HEAD_BYTES_MAX)];
                let Some(head) = head_end(within, self.looked) else {
                    if within.len() == HTTP_HEAD_BYTES_MAX {
                        return Err(FrameError::HttpHeadTooLong(HTTP_HEAD_BYTES_MAX));
                    }
                    // An end of two line breaks has at most two bytes in front of what comes next.
                    self.looked = within.len().saturating_sub(2);
                    return Ok(Cut::Need(buf.len() + 1));
                };
                let (_, body) = parse(&buf[..head])?;
                *self.found.insert((head, head + body))
            }
        };
        let Some(body) = buf.get(head..whole) else { return Ok(Cut::Need(whole)) };
        *self = Requests::default();
        let (mut request, _) = parse(&buf[..head])?;
        request.body = body.into();
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
fn parse(head: &[u8]) -> Result<(Request, usize), FrameError> {
    let mut lines = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut lines);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(bytes)) if bytes == head.len() => {}
        Ok(_) => return Err(FrameError::HttpMalformed("no request line or broken lines")),
        Err(httparse::Error::TooManyHeaders) => return Err(FrameError::HttpMalformed("too many header lines")),
        Err(httparse::Error::Version) => return Err(FrameError::HttpMalformed("not HTTP/1")),
        Err(_) => return Err(FrameError::HttpMalformed("a character that may not stand there")),
    }
    let mut request = Request::new(method(parsed.method.unwrap_or_default()), parsed.path.unwrap_or_default());
    request.keep_alive = parsed.version == Some(1);
    let mut body = None;
    for line in parsed.headers.iter() {
        let text = || std::str::from_utf8(line.value).ok().map(Box::from);
        match line.name.to_ascii_lowercase().as_str() {
            "authorization" => request.authorization = text(),
            "content-type" => request.content_type = text(),
            "origin" | "forwarded" | "x-forwarded-for" | "x-real-ip" | "via" => request.passed_on = true,
            // What the user has typed or opened himself.
            "sec-fetch-site" => request.passed_on |= line.value.trim_ascii() != b"none",
            "connection" => request.keep_alive = keep_alive(line.value, request.keep_alive),
            "transfer-encoding" => return Err(FrameError::HttpEncoded),
            // Two lengths are how a request is smuggled past whoever reads the other one.
            "content-length" if body.is_some() => return Err(FrameError::HttpMalformed("two lengths of body")),
            "content-length" => body = Some(content_length(line.value)?),
            _ => {}
        }
    }
    Ok((request, body.unwrap_or(0)))
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
fn content_length(value: &[u8]) -> Result<usize, FrameError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(FrameError::HttpMalformed("length of body is not a number"));
    }
    let add = |sum: usize, digit: &u8| sum.saturating_mul(10).saturating_add(usize::from(digit - b'0'));
    let bytes = value.iter().fold(0, add);
    if bytes > HTTP_BODY_BYTES_MAX { Err(FrameError::HttpBodyTooLong(HTTP_BODY_BYTES_MAX)) } else { Ok(bytes) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::super::{Framer, tests::frames};
    use super::*;

    fn requests(framer: &mut Framer, chunks: &[&[u8]]) -> Result<Vec<Request>, FrameError> {
        let request = |frame| match frame {
            Frame::Http(request) => request,
            other => panic!("{other:?}"),
        };
        frames(framer, chunks).map(|frames| frames.into_iter().map(request).collect())
    }

    fn one(text: &str) -> Result<Request, FrameError> {
        requests(&mut Framer::http(), &[text.as_bytes()]).map(|mut requests| {
            assert_eq!(requests.len(), 1, "{text:?}");
            requests.remove(0)
        })
    }

    const TWO: &str = concat!(
        "GET /api/v1/status?full=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a.b.c\r\n\r\n",
        "\r\nPOST /x HTTP/1.0\nCONTENT-TYPE:  application/json \ncontent-length: 7\n\n{\"a\":1}",
    );

    fn two() -> Vec<Request> {
        let get = Request { authorization: Some("Bearer a.b.c".into()), ..Request::new(Method::Get, "/api/v1/status?full=1") };
        let post = Request {
            content_type: Some("application/json".into()),
            body: b"{\"a\":1}"[..].into(),
            keep_alive: false,
            ..Request::new(Method::Post, "/x")
        };
        assert_eq!((get.bytes(), post.bytes()), (21 + 12, 2 + 16 + 7));
        vec![get, post]
    }

    #[test]
    fn what_a_page_or_a_proxy_passes_on_is_told() {
        for (line, passed_on) in [
            ("Host: x", false),
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
            assert_eq!(one(&format!("POST / HTTP/1.1\r\n{line}\r\n\r\n")).unwrap().passed_on, passed_on, "{line}");
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
            assert_eq!(one(&format!("{token} / HTTP/1.1\r\n\r\n")).unwrap().method, method);
        }
        assert_eq!(one("BREW /pot HTTP/1.1\r\n\r\n").unwrap().method, Method::Other);
        let keeps = |version: &str, line: &str| one(&format!("GET / HTTP/{version}\r\n{line}\r\n")).unwrap().keep_alive;
        assert!(keeps("1.1", "") && !keeps("1.0", ""));
        assert!(!keeps("1.1", "Connection: Upgrade, Close\r\n") && keeps("1.0", "Connection: keep-alive\r\n"));
    }

    #[test]
    fn malformed_heads_are_refused() {
        for bad in [
            "GET\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET / HTTP/1.1 \r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\na: \u{1}\r\n\r\n",
            "{\"id\":1}\n\n",
            "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        ] {
            assert!(matches!(one(bad), Err(FrameError::HttpMalformed(_))), "{bad:?}: {:?}", one(bad));
        }
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
        assert_eq!(one(chunked), Err(FrameError::HttpEncoded));
    }

    #[test]
    fn head_lines_and_body_reach_their_limits_and_no_further() {
        let head = |bytes: usize| {
            let (front, end) = ("GET / HTTP/1.1\r\na: ", "\r\n\r\n");
            format!("{front}{}{end}", "x".repeat(bytes - front.len() - end.len()))
        };
        assert!(one(&head(HTTP_HEAD_BYTES_MAX)).is_ok());
        assert_eq!(one(&head(HTTP_HEAD_BYTES_MAX + 1)), Err(FrameError::HttpHeadTooLong(HTTP_HEAD_BYTES_MAX)));
        assert_eq!(Requests::default().cut(&[b'x'; 1 << 20]), Err(FrameError::HttpHeadTooLong(HTTP_HEAD_BYTES_MAX)));

        let lines = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert!(one(&lines(HTTP_HEADERS_MAX)).is_ok());
        assert_eq!(one(&lines(HTTP_HEADERS_MAX + 1)), Err(FrameError::HttpMalformed("too many header lines")));

        let post = |bytes: usize| format!("POST / HTTP/1.1\r\nContent-Length: {bytes}\r\n\r\n");
        let body = "y".repeat(HTTP_BODY_BYTES_MAX);
        let request = one(&format!("{}{body}", post(body.len()))).unwrap();
        assert_eq!(*request.body, *body.as_bytes());
        for over in [HTTP_BODY_BYTES_MAX + 1, usize::MAX] {
            // Refused at the head, before a byte of the body is there.
            assert_eq!(one(&post(over)), Err(FrameError::HttpBodyTooLong(HTTP_BODY_BYTES_MAX)));
        }
        let absurd = "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999999\r\n\r\n";
        assert_eq!(one(absurd), Err(FrameError::HttpBodyTooLong(HTTP_BODY_BYTES_MAX)));
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
        let late = frames(&mut Framer::Sniff, &[b" \r", b"\n", b"GE", b"T / HTTP/1.1\r\n\r\n"]).unwrap();
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
                match whole {
                    Ok(frames) => cut += frames.len(),
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(cut > 10_000 && refused > 10_000, "{cut} cut, {refused} refused");
    }
}
