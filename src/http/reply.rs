//! An HTTP/1.1 answer and its bytes.

use std::sync::Arc;

use rockpool_net::payload::Payload;
use serde::Serialize;
use serde_json::json;

/// A status, a body and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status code.
    pub code: u16,
    /// The body's type.
    kind: &'static str,
    /// The body.
    pub body: Vec<u8>,
    /// Methods that a 405 must name (RFC 9110 §15.5.6); else empty.
    allow: &'static str,
}

const JSON: &str = "application/json";

impl Reply {
    /// JSON, with success.
    pub fn json(body: &impl Serialize) -> Reply {
        serde_json::to_vec(body).map_or_else(|error| Reply::error(500, &error.to_string()), Reply::json_bytes)
    }

    /// JSON that is rendered already.
    pub fn json_bytes(body: Vec<u8>) -> Reply {
        Reply { code: 200, kind: JSON, body, allow: "" }
    }

    /// A failure, as JSON.
    pub fn error(code: u16, why: &str) -> Reply {
        Reply { code, kind: JSON, body: json!({ "error": why }).to_string().into_bytes(), allow: "" }
    }

    /// A method that this path does not have, and those that it has.
    pub fn not_allowed(allow: &'static str, why: &str) -> Reply {
        Reply { allow, ..Reply::error(405, why) }
    }

    /// Plain text.
    pub fn text(code: u16, body: String) -> Reply {
        Reply { code, kind: "text/plain; charset=utf-8", body: body.into_bytes(), allow: "" }
    }

    /// A page.
    pub fn html(body: String) -> Reply {
        Reply { code: 200, kind: "text/html; charset=utf-8", body: body.into_bytes(), allow: "" }
    }

    /// The bytes to send: without the body for a HEAD request.
    pub fn payload(&self, head: bool, keep_alive: bool) -> Arc<Payload> {
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let allow = if self.allow.is_empty() { String::new() } else { format!("Allow: {}\r\n", self.allow) };
        let mut bytes = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: {connection}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n{allow}\r\n",
            self.code,
            reason(self.code),
            self.kind,
            self.body.len(),
        )
        .into_bytes();
        if !head {
            bytes.extend_from_slice(&self.body);
        }
        Arc::new(Payload::new(bytes))
    }
}

fn reason(code: u16) -> &'static str {
    match code {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        415 => "Unsupported Media Type",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
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
        let said = text(&Reply::not_allowed("GET, HEAD", "say \"GET\""), false, false);
        assert!(said.starts_with("HTTP/1.1 405 Method Not Allowed\r\n") && said.contains("\r\nAllow: GET, HEAD\r\n"), "{said}");
        assert!(said.ends_with("\r\n\r\n{\"error\":\"say \\\"GET\\\"\"}"), "{said}");
    }
}
