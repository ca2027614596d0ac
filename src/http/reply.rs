//! An HTTP/1.1 answer and its bytes.

use std::sync::Arc;

use rockpool_net::payload::Payload;
use serde::Serialize;
use serde_json::json;

use crate::http::error::{Code, reason};
use crate::http::routes::{HTML, JSON, TEXT};

/// A status, a body and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The body's type.
    kind: &'static str,
    /// The body.
    pub body: Vec<u8>,
    /// Header lines of this answer alone.
    lines: String,
}

impl Reply {
    fn new(status: u16, kind: &'static str, body: Vec<u8>) -> Reply {
        Reply { status, kind, body, lines: String::new() }
    }

    /// JSON, with success.
    pub fn json(body: &impl Serialize) -> Reply {
        serde_json::to_vec(body).map_or_else(|error| Reply::error(Code::Internal, &error.to_string()), Reply::json_bytes)
    }

    /// JSON that is rendered already.
    pub fn json_bytes(body: Vec<u8>) -> Reply {
        Reply::new(200, JSON, body)
    }

    /// A refusal, as JSON: what happened and what to do.
    pub fn error(code: Code, message: &str) -> Reply {
        let body = json!({ "error": { "code": code.name(), "message": message } });
        Reply::new(code.status(), JSON, body.to_string().into_bytes())
    }

    /// A method that this path does not have, and those that it has (RFC 9110 §15.5.6).
    pub fn not_allowed(allow: &str) -> Reply {
        Reply::error(Code::MethodNotAllowed, &format!("only {allow} is answered here")).with("Allow", allow)
    }

    /// Plain text.
    pub fn text(status: u16, body: String) -> Reply {
        Reply::new(status, TEXT, body.into_bytes())
    }

    /// A page.
    pub fn html(body: String) -> Reply {
        Reply::new(200, HTML, body.into_bytes())
    }

    /// With one more header line.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Reply {
        self.lines += &format!("{name}: {value}\r\n");
        self
    }

    /// The bytes to send: without the body for a HEAD request.
    pub fn payload(&self, head: bool, keep_alive: bool) -> Arc<Payload> {
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let mut bytes = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: {connection}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n{}\r\n",
            self.status,
            reason(self.status),
            self.kind,
            self.body.len(),
            self.lines,
        )
        .into_bytes();
        if !head {
            bytes.extend_from_slice(&self.body);
        }
        Arc::new(Payload::new(bytes))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

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
    fn failures_are_json() {
        let said = text(&Reply::not_allowed("GET, HEAD"), false, false);
        assert!(said.starts_with("HTTP/1.1 405 Method Not Allowed\r\n") && said.contains("\r\nAllow: GET, HEAD\r\n"), "{said}");
        let body: serde_json::Value = serde_json::from_str(said.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(body, json!({"error": {"code": "method_not_allowed", "message": "only GET, HEAD is answered here"}}));
    }
}
