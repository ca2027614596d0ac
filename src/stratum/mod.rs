//! Stratum V1: miners, their jobs and what they submit.
//!
//! | file | what |
//! |---|---|
//! | `request` | lines, as firmware sends them |
//! | `session` | a miner's connection |
//! | `answers` | what miners are told, as lines |
//! | `resume` | sessions that outlive their connection |
//! | `judged` | submits on their way through the stages |
//! | `seen` | submits, to tell duplicates |
//! | `jobs` | work as text, shared by all miners |
//! | `vardiff` | how often a miner submits |
//! | `difficulty` | difficulties and targets |
//! | `firmware` | class and layout of a miner's coinbase |
//! | `flood` | floods of invalid shares |
//! | `harder` | bits harder than they must be |

mod answers;
pub mod difficulty;
pub mod firmware;
pub mod flood;
pub mod harder;
pub mod jobs;
pub mod judged;
pub mod request;
pub mod resume;
pub mod seen;
pub mod session;
pub mod vardiff;

use crate::limits::{BAN_TIME, BANS_MAX};
use crate::miners::Miners;
use crate::shunned::Shunned;
use crate::status::Serving;
use crate::stratum::firmware::Firmware;
use crate::stratum::harder::Harder;
use crate::stratum::jobs::Boards;
use crate::stratum::judged::Judged;
use crate::stratum::request::EXTRANONCE1_BYTES;
use crate::stratum::resume::Resumable;

/// What all miners share.
#[derive(Debug)]
pub struct Server {
    /// Work.
    pub boards: Boards,
    /// How much harder than allowed its shares are, by script.
    pub harder: Harder,
    /// Whether miners are served; the node looks before each turn's inputs.
    pub serving: Serving,
    /// Nothing can be stored.
    pub disk_full: bool,
    /// Submits that the stages have.
    pub judged: Judged,
    /// Addresses that are kept out.
    pub bans: Shunned,
    /// What is known of firmware, the operator's rules among it.
    pub firmware: Firmware,
    /// Sessions whose connections have ended.
    pub resumable: Resumable,
    /// What they do.
    pub miners: Miners,
    extranonce: u32,
}

impl Server {
    /// Nothing to work on yet. Extranonces are counted from `first`, which is drawn.
    pub fn new(first: u32) -> Server {
        Server {
            boards: Boards::default(),
            harder: Harder::default(),
            serving: Serving::NoTemplate,
            disk_full: false,
            judged: Judged::default(),
            bans: Shunned::new(BAN_TIME, BANS_MAX),
            firmware: Firmware::default(),
            resumable: Resumable::default(),
            miners: Miners::default(),
            extranonce: first,
        }
    }

    /// An extranonce1 that no other connection has: a counter, which comes round after four billion of them. Never zero.
    pub fn extranonce1(&mut self) -> [u8; EXTRANONCE1_BYTES] {
        self.extranonce = self.extranonce.checked_add(1).unwrap_or(1);
        self.extranonce.to_be_bytes()
    }
}

/// What a browser on the Stratum port is told.
pub const FRIENDLY: &str = concat!(
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 133\r\nConnection: close\r\n\r\n",
    "This port speaks Stratum: point a miner at it as stratum+tcp://host:port, user name ",
    "your Bitcoin address. The web page is elsewhere.\n",
);

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests;
