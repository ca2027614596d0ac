//! What messages are called, and what each may cost: most bytes on the wire, and time of a turn.

use std::fmt;

use crate::limits::{
    ADDRS_MAX, BODY_PART_BYTES, BODY_PLACES_MAX, BTC_HEADERS_MAX, GETDATA_MAX, INV_MAX, LOCATOR_MAX, SHARE_BYTES_MAX,
    SHARE_HEADERS_BYTES_MAX, TEMPLATE_PART_MAX, UNKNOWN_BYTES_MAX, VERSION_BYTES_MAX,
};
use crate::wire::addr::ENTRY_BYTES;
use crate::wire::body::PART_COUNT_BYTES;
use crate::wire::message::{BTC_HEADER_BYTES, COUNT_BYTES, ID_BYTES, TX_IDS_BYTES};

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Command {
    /// Who speaks; the first message on both sides.
    Version,
    /// The other's `version` is accepted.
    Verack,
    /// Are you there?
    Ping,
    /// The answer to `ping`, with its nonce.
    Pong,
    /// Where the sender's chain stands.
    ChainTip,
    /// Asks for shares from a fork point on.
    GetHeaders,
    /// Shares of the best chain, in order.
    ShareHeaders,
    /// Shares that the sender has.
    Inv,
    /// Asks for shares by id.
    GetData,
    /// Shares that were asked for and are not there.
    NotFound,
    /// One share.
    Share,
    /// Bitcoin headers that shares build on.
    BtcHeaders,
    /// Asks for part of the list of transactions of a share's block.
    GetTemplate,
    /// Part of such a list: the answer to `gettemplate`.
    Template,
    /// A share that is a Bitcoin block.
    BlockFound,
    /// Asks for part of a found block's body.
    GetBlockBody,
    /// Part of such a body: the answer to `getblockbody`.
    BlockBody,
    /// Asks for addresses of peers.
    GetAddr,
    /// Addresses of peers.
    AddrV2,
    /// Anything else: skipped, never given to anyone.
    Unknown,
}

impl Command {
    /// All of them; a command's place here is its number.
    pub const ALL: [Command; 20] = [
        Command::Version,
        Command::Verack,
        Command::Ping,
        Command::Pong,
        Command::ChainTip,
        Command::GetHeaders,
        Command::ShareHeaders,
        Command::Inv,
        Command::GetData,
        Command::NotFound,
        Command::Share,
        Command::BtcHeaders,
        Command::GetTemplate,
        Command::Template,
        Command::BlockFound,
        Command::GetBlockBody,
        Command::BlockBody,
        Command::GetAddr,
        Command::AddrV2,
        Command::Unknown,
    ];

    /// Name on the wire, most bytes of its payload, and dispatch cost.
    const fn row(self) -> (&'static str, usize, u32) {
        match self {
            Command::Version => ("version", VERSION_BYTES_MAX, 20),
            Command::Verack => ("verack", 0, 20),
            Command::Ping => ("ping", 8, 2),
            Command::Pong => ("pong", 8, 2),
            Command::ChainTip => ("chaintip", 92, 5),
            Command::GetHeaders => ("getheaders", COUNT_BYTES + (LOCATOR_MAX + 1) * ID_BYTES, 10),
            Command::ShareHeaders => ("shareheaders", SHARE_HEADERS_BYTES_MAX, 1_000),
            Command::Inv => ("inv", COUNT_BYTES + INV_MAX * ID_BYTES, 20),
            Command::GetData => ("getdata", COUNT_BYTES + GETDATA_MAX * ID_BYTES, 10),
            Command::NotFound => ("notfound", COUNT_BYTES + GETDATA_MAX * ID_BYTES, 50),
            Command::Share => ("share", SHARE_BYTES_MAX, 10),
            Command::BtcHeaders => ("btcheaders", COUNT_BYTES + BTC_HEADERS_MAX * BTC_HEADER_BYTES, 200),
            Command::GetTemplate => ("gettemplate", ID_BYTES + 4, 10),
            Command::Template => ("template", ID_BYTES + 8 + COUNT_BYTES + TEMPLATE_PART_MAX * TX_IDS_BYTES, 200),
            // Its proof is checked at once, some twenty blocks of SHA-256.
            Command::BlockFound => ("blockfound", SHARE_BYTES_MAX, 50),
            Command::GetBlockBody => ("getblockbody", ID_BYTES + 4 + COUNT_BYTES + 2 * BODY_PLACES_MAX, 50),
            // The last part has all transactions hashed.
            Command::BlockBody => ("blockbody", ID_BYTES + 8 + PART_COUNT_BYTES + BODY_PART_BYTES, 1_000),
            Command::GetAddr => ("getaddr", 0, 50),
            Command::AddrV2 => ("addrv2", COUNT_BYTES + ADDRS_MAX * ENTRY_BYTES, 200),
            Command::Unknown => ("unknown", UNKNOWN_BYTES_MAX, 1),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Most bytes of its payload.
    pub fn cap(self) -> usize {
        self.row().1
    }

    /// What its dispatch costs a turn, in units of about a microsecond on a small machine.
    pub fn cost(self) -> u32 {
        self.row().2
    }

    /// Its name as the header carries it, padded with zeros.
    pub fn field(self) -> [u8; 12] {
        FIELDS[self as usize]
    }

    /// What a header's name means: `None` unless it is printable ASCII padded with zeros, [`Command::Unknown`] if it is not one of ours.
    pub fn from_field(field: &[u8; 12]) -> Option<Command> {
        if let Some(at) = FIELDS.iter().position(|known| known == field) {
            return Some(Command::ALL[at]);
        }
        let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
        let (name, padding) = field.split_at(end);
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) || padding.iter().any(|&byte| byte != 0) {
            return None;
        }
        Some(Command::Unknown)
    }
}

/// The names of all commands as headers carry them, in their order.
const FIELDS: [[u8; 12]; Command::ALL.len()] = {
    let mut fields = [[0; 12]; Command::ALL.len()];
    let mut at = 0;
    while at < fields.len() {
        let name = Command::ALL[at].row().0.as_bytes();
        let (field, _) = fields[at].split_at_mut(name.len());
        field.copy_from_slice(name);
        at += 1;
    }
    fields
};

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DISPATCH_TURN_COST;

    #[test]
    fn commands_read_back_from_their_field_and_malformed_fields_do_not() {
        for (number, command) in Command::ALL.into_iter().enumerate() {
            assert_eq!(command as usize, number);
            assert_eq!(Command::from_field(&command.field()), Some(command));
            assert!(command.cost() > 0 && command.cost() <= DISPATCH_TURN_COST);
        }
        assert_eq!(Command::from_field(b"sendaddrv2\0\0"), Some(Command::Unknown));
        assert_eq!(Command::from_field(b"pings\0\0\0\0\0\0\0"), Some(Command::Unknown));
        for bad in [
            b"\0\0\0\0\0\0\0\0\0\0\0\0",
            b"ping\0x\0\0\0\0\0\0",
            b"pi ng\0\0\0\0\0\0\0",
            b"ping\xff\0\0\0\0\0\0\0",
            b"\nping\0\0\0\0\0\0\0",
        ] {
            assert_eq!(Command::from_field(bad), None, "{bad:?}");
        }
    }
}
