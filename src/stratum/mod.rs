//! Stratum V1: miners, their jobs and what they submit.
//!
//! | file | what |
//! |---|---|
//! | `request` | lines, as firmware sends them |
//! | `session` | a miner's connection |
//! | `jobs` | work as text, shared by all miners |
//! | `vardiff` | how often a miner submits |
//! | `difficulty` | difficulties and targets |

pub mod difficulty;
pub mod jobs;
pub mod request;
pub mod session;
pub mod vardiff;

use crate::status::Serving;
use crate::stratum::jobs::Boards;
use crate::stratum::request::EXTRANONCE1_BYTES;

/// What all miners share.
#[derive(Debug)]
pub struct Server {
    /// Work.
    pub boards: Boards,
    /// Whether miners are served; the node looks before each turn's inputs.
    pub serving: Serving,
    extranonce: u32,
}

impl Server {
    /// Nothing to work on yet. Extranonces are counted from `first`, which is drawn.
    pub fn new(first: u32) -> Server {
        Server { boards: Boards::default(), serving: Serving::NoTemplate, extranonce: first }
    }

    /// An extranonce1 that no other connection has: a counter, which comes round after four billion of them. Never zero.
    pub fn extranonce1(&mut self) -> [u8; EXTRANONCE1_BYTES] {
        self.extranonce = self.extranonce.checked_add(1).unwrap_or(1);
        self.extranonce.to_be_bytes()
    }
}

/// What a browser on the Stratum port is told.
pub const FRIENDLY: &str = concat!(
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 128\r\nConnection: close\r\n\r\n",
    "This port speaks Stratum: point a miner at it as stratum+tcp://host:port, user name ",
    "your Bitcoin address. The web page is elsewhere.\n",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extranonces_are_never_zero() {
        let mut server = Server::new(u32::MAX - 1);
        assert_eq!(server.extranonce1(), [0xff; 4]);
        assert_eq!(server.extranonce1(), [0, 0, 0, 1]);
        assert_eq!(server.extranonce1(), [0, 0, 0, 2]);
    }

    #[test]
    fn the_friendly_answer_says_its_length() {
        let (head, body) = FRIENDLY.split_once("\r\n\r\n").unwrap_or_default();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
