//! An HTTP/1.1 answer and its bytes.

use std::fmt::Write;
use std::sync::Arc;

use rockpool_net::frame::http::Bad;
use rockpool_net::payload::Payload;
use serde::Serialize;
use serde_json::json;

use crate::http::error::{Code, reason};
use crate::http::routes::{JSON, TEXT};

/// How long a client may keep an answer, and what a browser may do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Figures: not at all. Whatever a browser takes them for, it loads nothing and runs nothing.
    Not,
    /// Part of the dashboard: kept, and asked for again each time, which costs nothing while its tag is the same. It may load and run what
    /// comes from here.
    Page,
}

/// The bytes of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    Own(Vec<u8>),
    Fixed(&'static [u8]),
    /// Has no end but the connection's, so neither a length nor chunks, and HTTP/1.0 understands it too: only its head is known here.
    Endless,
    /// Behind a head of so many bytes, as a GET is answered on a connection that stays.
    Whole(Arc<Payload>, usize),
}

/// A status, a body and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The body's type.
    kind: &'static str,
    body: Body,
    kept: Kept,
    /// Names the content, quotes and all; none if empty.
    tag: String,
    /// Header lines of this answer alone.
    lines: String,
}

impl Reply {
    fn new(status: u16, kind: &'static str, body: Body) -> Reply {
        Reply { status, kind, body, kept: Kept::Not, tag: String::new(), lines: String::new() }
    }

    /// JSON, with success.
    pub fn json(body: &impl Serialize) -> Reply {
        serde_json::to_vec(body).map_or_else(|error| Reply::error(Code::Internal, &error.to_string()), Reply::json_bytes)
    }

    /// JSON that is rendered already.
    pub fn json_bytes(body: Vec<u8>) -> Reply {
        Reply::new(200, JSON, Body::Own(body))
    }

    /// What a stage answers: JSON, with its status and header lines.
    pub fn told(status: u16, body: Vec<u8>, lines: &[(&'static str, String)]) -> Reply {
        let reply = Reply::new(status, JSON, Body::Own(body));
        lines.iter().fold(reply, |reply, (name, value)| reply.with(name, value))
    }

    /// A refusal, as JSON: what happened and what to do.
    pub fn error(code: Code, message: &str) -> Reply {
        let body = json!({ "error": { "code": code.name(), "message": message } });
        Reply::new(code.status(), JSON, Body::Own(body.to_string().into_bytes()))
    }

    /// A method that this path does not have, and those that it has (RFC 9110 §15.5.6).
    pub fn not_allowed(allow: &str) -> Reply {
        Reply::error(Code::MethodNotAllowed, &format!("only {allow} is answered here")).with("Allow", allow)
    }

    /// The last word on a request that cannot be read.
    pub fn bad(bad: Bad) -> Reply {
        let code = match bad {
            Bad::Malformed(_) => Code::BadRequest,
            Bad::TargetTooLong => Code::UriTooLong,
            Bad::HeadTooLong | Bad::TooManyLines => Code::HeadTooLarge,
            Bad::BodyTooLong => Code::TooLarge,
            Bad::Encoded => Code::NotImplemented,
            Bad::Expects => Code::ExpectationFailed,
            Bad::Version => Code::BadVersion,
        };
        Reply::error(code, &bad.to_string())
    }

    /// Plain text.
    pub fn text(status: u16, body: String) -> Reply {
        Reply::new(status, TEXT, Body::Own(body.into_bytes()))
    }

    /// What is part of the program and has a tag, in quotes.
    pub fn kept(kind: &'static str, body: &'static [u8], kept: Kept, tag: &str) -> Reply {
        Reply { kept, tag: tag.to_owned(), ..Reply::new(200, kind, Body::Fixed(body)) }
    }

    /// Success, and nothing to say.
    pub fn nothing() -> Reply {
        Reply::new(204, "", Body::Fixed(&[]))
    }

    /// The head of what has no end. Where there is one there is no next answer.
    pub fn endless(kind: &'static str) -> Reply {
        Reply::new(200, kind, Body::Endless)
    }

    /// With one more header line.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Reply {
        self.lines += &format!("{name}: {value}\r\n");
        self
    }

    /// The same for many: they share the bytes.
    #[must_use]
    pub fn shared(self) -> Reply {
        let head = self.head(true).len();
        Reply { body: Body::Whole(self.payload(false, true), head), ..self }
    }

    /// The same, or 304 if the client says that it has it (RFC 9110 §13.1.2).
    #[must_use]
    pub fn unless(self, has: Option<&str>) -> Reply {
        let same = |tag: &str| tag == "*" || tag.trim_start_matches("W/") == self.tag;
        let has = has.is_some_and(|tags| tags.split(',').any(|tag| same(tag.trim())));
        if has && self.status == 200 && !self.tag.is_empty() {
            return Reply { status: 304, body: Body::Fixed(&[]), ..self };
        }
        self
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        match &self.body {
            Body::Own(bytes) => bytes,
            Body::Fixed(bytes) => bytes,
            Body::Endless => &[],
            Body::Whole(payload, head) => payload.bytes().get(*head..).unwrap_or_default(),
        }
    }

    /// The bytes to send: without the body for a HEAD request.
    pub fn payload(&self, head: bool, keep_alive: bool) -> Arc<Payload> {
        if let Body::Whole(payload, _) = &self.body
            && !head
            && keep_alive
            && self.lines.is_empty()
        {
            return Arc::clone(payload);
        }
        let mut bytes = self.head(keep_alive).into_bytes();
        if !head {
            bytes.extend_from_slice(self.body());
        }
        Arc::new(Payload::new(bytes))
    }

    fn head(&self, keep_alive: bool) -> String {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        // Writing to a String does not fail. An answer without a body says nothing of one.
        if !matches!(self.status, 204 | 304) {
            let _ = write!(head, "Content-Type: {}\r\n", self.kind);
        }
        if !matches!(self.status, 204 | 304) && self.body != Body::Endless {
            let _ = write!(head, "Content-Length: {}\r\n", self.body().len());
        }
        let _ = write!(head, "Connection: {}\r\n", if keep_alive { "keep-alive" } else { "close" });
        head += match self.kept {
            Kept::Not => "Cache-Control: no-store\r\nContent-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n",
            Kept::Page => {
                "Cache-Control: no-cache\r\nVary: Accept-Encoding\r\nContent-Security-Policy: default-src 'none'; script-src 'self'; \
                 style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
                 frame-ancestors 'none'\r\n"
            }
        };
        if !self.tag.is_empty() {
            let _ = write!(head, "ETag: {}\r\n", self.tag);
        }
        head + SAFE + &self.lines + "\r\n"
    }
}

/// What every answer tells a browser: take it for what it is called, show it in no page of others, tell nobody where you came from.
const SAFE: &str = "X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\n\
                    Cross-Origin-Resource-Policy: same-origin\r\nCross-Origin-Opener-Policy: same-origin\r\n";

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::http::routes::HTML;

    fn text(reply: &Reply, head: bool, keep_alive: bool) -> String {
        String::from_utf8(reply.payload(head, keep_alive).bytes().to_vec()).unwrap()
    }

    #[test]
    fn heads_tell_length_and_fate_of_the_connection() {
        let reply = Reply::text(200, "häuser".into());
        let said = text(&reply, false, true);
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("\r\n\r\nhäuser"), "{said}");
        assert!(said.contains("Content-Length: 7\r\n") && said.contains("Connection: keep-alive\r\n"), "{said}");
        let said = text(&reply, true, false);
        assert!(said.contains("Content-Length: 7\r\n") && said.contains("Connection: close\r\n") && said.ends_with("\r\n\r\n"), "{said}");
    }

    #[test]
    fn what_is_shared_is_the_same_bytes_for_all() {
        let reply = Reply::text(200, "x".into());
        let (shared, whole) = (reply.clone().shared(), reply.payload(false, true));
        assert_eq!((shared.payload(false, true), shared.body()), (whole, &b"x"[..]));
        assert!(Arc::ptr_eq(&shared.payload(false, true), &shared.clone().payload(false, true)));
        for (head, keep_alive) in [(true, true), (false, false), (true, false)] {
            assert_eq!(shared.payload(head, keep_alive), reply.payload(head, keep_alive));
        }
        assert!(text(&shared.with("A", "b"), false, true).contains("\r\nA: b\r\n\r\nx"));
    }

    #[test]
    fn who_has_it_already_is_told_so() {
        let page = || Reply::kept(TEXT, b"x", Kept::Page, "\"1-gzip\"");
        for (has, status) in [
            (None, 200),
            (Some("\"1\""), 200),
            (Some("1-gzip"), 200),
            (Some(""), 200),
            (Some("\"1-gzip\""), 304),
            (Some("W/\"1-gzip\""), 304),
            (Some("\"0\", \"1-gzip\""), 304),
            (Some("*"), 304),
        ] {
            assert_eq!(page().unless(has).status, status, "{has:?}");
        }
        let said = text(&page().unless(Some("*")), false, true);
        assert!(said.starts_with("HTTP/1.1 304 Not Modified\r\n") && said.ends_with("\r\n\r\n"), "{said}");
        assert!(said.contains("ETag: \"1-gzip\"\r\n") && said.contains("Vary: ") && !said.contains("Content-Length"), "{said}");
        assert_eq!(Reply::text(200, "x".into()).unless(Some("*")).status, 200, "what has no tag cannot be had");
    }

    #[test]
    fn browsers_are_told_what_they_may_do() {
        let (figures, page) = (text(&Reply::json(&1), false, true), text(&Reply::kept(HTML, b"x", Kept::Page, "\"1\""), false, true));
        for said in [&figures, &page, &text(&Reply::error(Code::NotFound, "x"), true, false)] {
            for line in ["X-Content-Type-Options: nosniff", "X-Frame-Options: DENY", "Referrer-Policy: no-referrer"] {
                assert!(said.contains(&format!("\r\n{line}\r\n")), "{line} in {said}");
            }
            assert!(said.contains("default-src 'none'") && !said.contains("unsafe"), "{said}");
        }
        assert!(figures.contains("Cache-Control: no-store") && !figures.contains("script-src"));
        assert!(page.contains("Cache-Control: no-cache") && page.contains("script-src 'self';") && page.contains("Vary: Accept-Encoding"));
    }

    #[test]
    fn failures_are_json() {
        let said = text(&Reply::not_allowed("GET, HEAD"), false, false);
        assert!(said.starts_with("HTTP/1.1 405 Method Not Allowed\r\n") && said.contains("\r\nAllow: GET, HEAD\r\n"), "{said}");
        let body: serde_json::Value = serde_json::from_str(said.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(body, json!({"error": {"code": "method_not_allowed", "message": "only GET, HEAD is answered here"}}));
    }
}
