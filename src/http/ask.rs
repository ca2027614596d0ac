//! The other side of the API: what `rockpool status` asks a running node. A program of its own, so it may wait on its socket.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::limits::{STATUS_BYTES_MAX, STATUS_TIME_MAX};

/// `GET path`: the code and the body.
pub fn get(addr: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    send(addr, "GET", path, "", "")
}

/// Any request, with a token or none, and a body of JSON or none.
pub fn send(addr: SocketAddr, method: &str, path: &str, token: &str, body: &str) -> io::Result<(u16, String)> {
    let mut socket = TcpStream::connect_timeout(&addr, STATUS_TIME_MAX)?;
    socket.set_read_timeout(Some(STATUS_TIME_MAX))?;
    socket.set_write_timeout(Some(STATUS_TIME_MAX))?;
    let json =
        if body.is_empty() { String::new() } else { format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()) };
    let token = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    write!(socket, "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n{token}{json}\r\n{body}")?;
    let mut answer = Vec::new();
    socket.take(STATUS_BYTES_MAX).read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "what answers there is no Rockpool node"))
}

/// Why a node refuses a request, in its own words; `None` if these are not a node's.
pub fn refusal(body: &str) -> Option<String> {
    let said: Value = serde_json::from_str(body).ok()?;
    said["error"]["message"].as_str().map(plain_text)
}

/// An answer for a terminal: what strangers call themselves in it moves no cursor, begins no line and turns none around.
pub fn plain(answer: Value) -> Value {
    match answer {
        Value::String(text) => plain_text(&text).into(),
        Value::Array(list) => list.into_iter().map(plain).collect(),
        Value::Object(fields) => Value::Object(fields.into_iter().map(|(name, value)| (name, plain(value))).collect()),
        other => other,
    }
}

fn plain_text(text: &str) -> String {
    let acts = |letter: char| letter.is_control() || matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.replace(acts, " ")
}

fn parse(answer: &[u8]) -> Option<(u16, String)> {
    let (head, body) = std::str::from_utf8(answer).ok()?.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((code, body.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_code_and_its_body() {
        assert_eq!(parse(b"HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nwhy\r\n\r\n"), Some((503, "why\r\n\r\n".into())));
        for no in [&b"HTTP/1.1 200 OK\r\n"[..], b"SSH-2.0\r\n\r\n", b"HTTP/1.1 2", b"", b"HTTP/1.1 \xff\xff\xff\r\n\r\n"] {
            assert_eq!(parse(no), None, "{no:?}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_nodes_words() {
        let body = r#"{"error": {"code": "conflict", "message": "too\u001bmany"}}"#;
        assert_eq!(refusal(body), Some("too many".into()));
        for no in ["", "{}", "[]", r#"{"error": "text"}"#, r#"{"error": {"message": 7}}"#, "<html>"] {
            assert_eq!(refusal(no), None, "{no}");
        }
    }

    #[test]
    fn what_strangers_call_themselves_is_plain() {
        let said = serde_json::json!({ "list": [{ "name": "a\n\u{1b}[2Jb\u{9b}\u{202e}c é", "best": 7, "address": null }] });
        assert_eq!(plain(said), serde_json::json!({ "list": [{ "name": "a  [2Jb  c é", "best": 7, "address": null }] }));
    }

    #[test]
    fn an_answer_without_end_is_cut() {
        let Ok(listener) = std::net::TcpListener::bind("127.0.0.1:0") else { panic!("no listener") };
        let Ok(addr) = listener.local_addr() else { panic!("no address") };
        let answer = std::thread::scope(|scope| {
            scope.spawn(|| {
                let Ok((mut socket, _)) = listener.accept() else { return };
                let head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
                let mut bytes = head;
                while socket.write_all(&bytes).is_ok() {
                    bytes = vec![b'x'; 1 << 16];
                }
            });
            get(addr, "/")
        });
        assert!(answer.is_ok_and(|(code, body)| code == 200 && body.len() < STATUS_BYTES_MAX as usize));
    }
}
