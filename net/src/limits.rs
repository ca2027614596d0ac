//! Every limit of this crate: a named constant with its unit and its reason. Each has a test that reaches it.

// Frames and messages

/// Bytes of a v1 message header: magic 4, command 12, length 4, checksum 4 (Bitcoin's layout).
pub const HEADER_BYTES: usize = 24;
/// Most bytes of a message's payload that a peer may send without being asked for it.
pub const UNASKED_BYTES_MAX: usize = 64 << 10;
/// Most bytes of an unknown message: it is read over, so that a newer peer may say more than we understand.
pub const UNKNOWN_BYTES_MAX: usize = UNASKED_BYTES_MAX;
/// Most bytes of a `version` payload: Bitcoin's fields are 86 bytes with the user agent beside.
pub const VERSION_BYTES_MAX: usize = 1 << 10;
/// Most bytes of a user agent, as Bitcoin Core allows.
pub const USER_AGENT_BYTES_MAX: usize = 256;
/// Most ids in a locator: steps double after 10, so 64 reach further than shares are kept.
pub const LOCATOR_MAX: usize = 64;
/// Most shares in one `shareheaders`.
pub const SHARE_HEADERS_MAX: usize = 2_000;
/// Most bytes of a `shareheaders` payload: about 800 usual shares, a second of a slow home line.
pub const SHARE_HEADERS_BYTES_MAX: usize = 512 << 10;
/// Most ids in one `inv`.
pub const INV_MAX: usize = 1_000;
/// Most ids in one `getdata` or `notfound`: what one answer can hold open.
pub const GETDATA_MAX: usize = 128;
/// Most bytes of a share (SHARECHAIN §1). Three uncles, a 32-byte script and a branch of 16 are 884.
pub const SHARE_BYTES_MAX: usize = 900;
/// Fewest bytes of a share: no uncle, a 20-byte script, no branch.
pub const SHARE_BYTES_MIN: usize = 264;
/// Most uncles a share may credit (SHARECHAIN §6).
pub const UNCLES_MAX: usize = 3;
/// Most merkle siblings of a coinbase: a block of 4,000,000 weight units holds under 2^16 transactions (SHARECHAIN §1).
pub const BRANCH_MAX: usize = 16;
/// Fewest bytes of a coinbase before X: one block of SHA-256 (SHARECHAIN §1).
pub const PREFIX_BYTES_MIN: u32 = 64;
/// Most bytes of a coinbase before X: 360 outputs fit (SHARECHAIN §1).
pub const PREFIX_BYTES_MAX: u32 = 16_256;
/// Most bytes of a Stratum line with its newline. Firmware sends under 1 KiB; `mining.submit` about 200.
pub const LINE_BYTES_MAX: usize = 4 << 10;
/// Most bytes of an HTTP request's head, as common servers allow.
pub const HTTP_HEAD_BYTES_MAX: usize = 8 << 10;
/// Most header lines of an HTTP request; browsers send about 20.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Most bytes of an HTTP request's body: the largest call is a found block's hash or an account's settings.
pub const HTTP_BODY_BYTES_MAX: usize = 16 << 10;
/// Dispatch cost of a line, in the units of [`crate::wire::message::Command::cost`]: JSON and a job for a stage.
pub const LINE_COST: u32 = 10;
/// Dispatch cost of an HTTP request: an answer is rendered.
pub const HTTP_COST: u32 = 50;
