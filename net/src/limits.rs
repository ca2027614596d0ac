//! Every limit of this crate: a named constant with its unit and its reason. Each has a test that reaches it.

use std::time::Duration;

use crate::hub::HubConfig;
use crate::id::Lane;

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
/// Most Bitcoin headers in one `btcheaders`, as in Bitcoin's own `headers`: a retarget period nearly.
pub const BTC_HEADERS_MAX: usize = 2_000;
/// Bytes of a header in Bitcoin's own `headers`: the header, and a count of transactions that is always zero.
pub const BITCOIN_HEADER_BYTES: usize = 81;
/// Most bytes of a Bitcoin node's message that we do not understand, as Bitcoin Core has it for all: read over, nothing of it is held.
pub const BITCOIN_UNKNOWN_BYTES_MAX: usize = 4_000_000;
/// Most hashes in a Bitcoin node's locator, as Bitcoin Core allows.
pub const BITCOIN_LOCATOR_MAX: usize = 101;
/// Most bytes of a block: no weight below 4,000,000 has more.
pub const BITCOIN_BLOCK_BYTES_MAX: usize = 4_000_000;
/// Bitcoin nodes that may be dialled: some agree with each other, and each costs us the headers' announcements only.
pub const BITCOIN_PEERS_MAX: usize = 8;
/// Most transactions in one `template`: 64 bytes each, under 512 KiB, so that most blocks' lists are of one part.
pub const TEMPLATE_PART_MAX: usize = 8_000;
/// Most transactions of a block beside its coinbase: what [`BRANCH_MAX`] siblings can hold.
pub const TEMPLATE_TXS_MAX: usize = (1 << BRANCH_MAX) - 1;
/// Most bytes of a found block's transactions that a peer may say there are (SHARECHAIN §10): a block's weight allows no more.
pub const BODY_BYTES_MAX: usize = 4_000_000;
/// Bytes in one `blockbody`: eight of them are the largest block, and each fits 512 KiB.
pub const BODY_PART_BYTES: usize = 500_000;
/// Most transactions that one `getblockbody` names, so that it may come unasked: three times a full block's.
pub const BODY_PLACES_MAX: usize = 16_000;
/// Most addresses in one `addrv2`, as BIP155 has it.
pub const ADDRS_MAX: usize = 1_000;
/// Most bytes of an address in it, as BIP155 has it.
pub const ADDR_BYTES_MAX: usize = 512;
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

// BIP324 ("v2")

/// Bytes by which a v1 peer of another network is known: the magic and the name of `version`.
pub const V1_PREFIX_BYTES: usize = 16;
/// Bytes of a key of BIP324's handshake.
pub const V2_KEY_BYTES: usize = 64;
/// Bytes of the mark that ends garbage.
pub const V2_TERMINATOR_BYTES: usize = 16;
/// Bytes of a packet's encrypted length.
pub const V2_LENGTH_BYTES: usize = 3;
/// Bytes of a packet's tag.
pub const V2_TAG_BYTES: usize = 16;
/// Bytes of a packet beside its contents: length, flags, tag.
pub const V2_PACKET_EXTRA: usize = V2_LENGTH_BYTES + 1 + V2_TAG_BYTES;
/// Bytes of a message's type at most: a zero and the name.
pub const V2_TYPE_BYTES: usize = 13;
/// Most bytes of garbage that BIP324 allows.
pub const V2_GARBAGE_MAX: usize = 4_095;
/// Most bytes of garbage that we send, a drawn number: they hide nothing but where the handshake ends.
pub const V2_GARBAGE_OURS: usize = 64;
/// Most bytes of a handshake: key, garbage, mark, decoys and version. Bitcoin Core sends no decoys.
pub const V2_HELLO_BYTES_MAX: usize = 8 << 10;
/// Bytes that are searched for the end of the garbage in all, since each piece has all be searched again: 64 times the most there may be.
pub const V2_SCAN_BYTES: usize = 64 * V2_GARBAGE_MAX;
/// Times that a handshake may have a packet before its version that is not whole: each costs an exchange of keys.
pub const V2_TRIES: u8 = 8;
/// Exchanges of keys in one turn, at about 150 µs each and three times that on a small machine: a reconnect storm leaves room for who is
/// there.
pub const V2_KEYS_A_TURN: usize = 8;
/// Packets of one connection that are opened in one round and give no frame.
pub const V2_SKIPS_A_ROUND: usize = 64;
/// Messages of one peer that come to nothing, of unknown commands or decoys, after which its session is to see what they cost.
pub const UNHEARD_MAX: u32 = 256;
/// What each such packet takes of the bytes that are cut in a turn, beside its own: to verify the smallest costs as much as to hash that.
pub const V2_SKIP_COST: usize = 512;

// The turn

/// Longest wait of a poll when nothing is due: the node looks around once a second.
pub const IDLE_MAX: Duration = Duration::from_secs(1);
/// A gap between turns beyond the asked timeout that counts as sleep of the machine, not as time: deadlines are moved by it.
pub const GAP_MAX: Duration = Duration::from_secs(5);
/// Bytes read from one connection in one turn, and the size of the one shared read buffer, so that no flooder holds up the rest.
pub const READ_CONN_BYTES: usize = 64 << 10;
/// Bytes read from one miner in one turn, some 40 submits: miners with many lines in one piece could else hoard the pool of unfinished
/// messages while their tickets are out.
pub const READ_LINES_BYTES: usize = 2 * LINE_BYTES_MAX;
/// Bytes read from all connections in one turn, and cut into frames in one: a mebibyte of checksums is about 4 ms on a small machine.
pub const READ_TURN_BYTES: usize = 1 << 20;
/// Bytes written to one connection in one turn.
pub const WRITE_CONN_BYTES: usize = 64 << 10;
/// Write calls in one turn, at about 5 µs each.
pub const WRITE_TURN_CALLS: usize = 512;
/// Bytes that are encrypted in the time of one write call, at about 100 MB/s, and count as one: a large message is encrypted whole, 40 ms
/// for the largest block, so that other connections' large ones are left to the next turns.
pub const V2_CALL_BYTES: usize = 512;
/// Slices in one write call: 16 payloads at once, far below what any system allows.
pub const WRITE_SLICES: usize = 16;
/// Dispatch cost of one turn, in units of about a microsecond ([`crate::wire::message::Command::cost`]).
pub const DISPATCH_TURN_COST: u32 = 4_000;
/// What serving a connection costs that has room: 500 shares for a `getheaders`.
pub const ROOM_COST: u32 = 1_000;
/// Pieces of mail taken in one turn: more than any sum of tickets lets arrive, so that only a defect reaches it.
pub const MAIL_TURN_MAX: usize = 16_384;
/// Connections accepted from one listener in one turn: a reconnect storm leaves room for who is there.
pub const ACCEPT_BURST: usize = 16;
/// A listener's rest after the process ran out of file descriptors: it must not spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

// Memory

/// Bytes of an unfinished message that a connection may hold on its own; what is beyond comes from the pool.
pub const RECEIVE_FREE_BYTES: usize = 4 << 10;
/// Empty buffers of as much that are kept for the next to arrive: as many as connections tell of themselves in one poll.
pub const RECEIVE_SPARE: usize = 32;
/// The pool of all unfinished messages beyond that, bytes. Memory grows as bytes arrive, never by a claimed length.
pub const RECEIVE_POOL_BYTES: usize = 16 << 20;
/// Bytes of a connection's own that wait in one piece, so that many small answers leave in one write.
pub const OWN_RUN_BYTES: usize = 4 << 10;
/// Bytes in an outbox up to which what was asked for is served.
pub const OUTBOX_SOFT_BYTES: usize = 256 << 10;
/// Bytes in an outbox over which its connection is cut: it does not read what we send.
pub const OUTBOX_HARD_BYTES: usize = 1 << 20;
/// Bytes in a Bitcoin node's outbox over which it is cut: two of the largest blocks fit with all else. One payload is shared by all
/// who get it.
pub const OUTBOX_BITCOIN_BYTES: usize = 2 * (HEADER_BYTES + BITCOIN_BLOCK_BYTES_MAX) + (64 << 10);
/// Bytes in a browser's outbox over which it is cut: the largest answer, 200 shares, fits upon what may still wait of the one before.
pub const OUTBOX_HTTP_BYTES: usize = OUTBOX_SOFT_BYTES + (512 << 10);
/// Bytes in the outboxes of all browsers over which the one with the largest is cut: a quarter of what all lanes share, so that those who
/// ask much and read nothing push out each other and neither peers nor miners.
pub const OUTBOX_HTTP_SUM_BYTES: usize = 8 << 20;
/// Bytes in all outboxes over which the connection with the largest is cut. Those of Bitcoin nodes do not count and are not cut for it:
/// there are few, all configured by the user, and a found block must not be held up by peers who read slowly.
pub const OUTBOX_SUM_BYTES: usize = 32 << 20;
/// Size asked of the kernel for a socket's send buffer: left to itself it takes 4 MiB from us for a peer that never reads.
pub const SOCKET_SEND_BYTES: usize = 128 << 10;
/// Bytes of one connection inline in the slab.
pub const CONN_BYTES_MAX: usize = 192;

// Tickets: frames in the house, by lane

/// Frames of one connection that are cut in one round: who says much takes turns with the others.
pub const FRAMES_A_ROUND: usize = 4;
/// Frames of one peer in the house at once, so that a flooder cannot take a lane.
pub const TICKETS_PER_CONN: u8 = 4;
/// Requests of one browser in the house at once. Who does not read keeps its ticket only while more than [`OUTBOX_SOFT_BYTES`] wait
/// for it, and [`OUTBOX_HTTP_SUM_BYTES`] are that much for half as many as there are tickets: the other half is left to those who read.
pub const TICKETS_PER_BROWSER: u8 = 1;
/// Frames of one miner in the house at once: the submits that a device or a proxy sends in one go are judged in one, which halves what each
/// costs. It takes 32 flooders to take the lane, and what they have in the house is judged within a millisecond.
pub const TICKETS_PER_MINER: u8 = 32;
/// Frames of peers in the house at once.
pub const TICKETS_PEER: usize = 128;
/// Frames of miners in the house at once: a burst of submits after a block, held for one disk sync.
pub const TICKETS_STRATUM: usize = 1_024;
/// HTTP requests in the house at once.
pub const TICKETS_HTTP: usize = 64;
/// Frames of Bitcoin nodes in the house at once: of each the headers that are checked, and those that arrive meanwhile.
pub const TICKETS_BITCOIN: usize = BITCOIN_PEERS_MAX * TICKETS_PER_CONN as usize;
/// All tickets: what every inner channel is measured by.
pub const TICKETS_ALL: usize = TICKETS_PEER + TICKETS_STRATUM + TICKETS_HTTP + TICKETS_BITCOIN;
/// Bytes of peers' frames in the house over which none is cut: 16 of the largest. One frame may reach over it.
pub const TICKET_BYTES_PEER: usize = 8 << 20;
/// Bytes of miners' frames in the house over which none is cut.
pub const TICKET_BYTES_STRATUM: usize = 1 << 20;
/// Bytes of HTTP requests in the house over which none is cut: more than those who do not read may have.
pub const TICKET_BYTES_HTTP: usize = 800 << 10;
// They leave half of the tickets.
const _: () = assert!(2 * OUTBOX_HTTP_SUM_BYTES / OUTBOX_SOFT_BYTES * TICKETS_PER_BROWSER as usize <= TICKETS_HTTP);
const _: () = assert!(OUTBOX_HTTP_SUM_BYTES / OUTBOX_SOFT_BYTES * (HTTP_HEAD_BYTES_MAX + HTTP_BODY_BYTES_MAX) < TICKET_BYTES_HTTP);
/// Bytes of Bitcoin nodes' frames in the house over which none is cut: eight full `headers`, while one node at a time is synced from.
pub const TICKET_BYTES_BITCOIN: usize = 8 * BTC_HEADERS_MAX * BITCOIN_HEADER_BYTES;

// Time

/// An unfinished message's time from its first byte, beside what its length takes at [`MESSAGE_RATE_MIN`]: the end of who sends a byte a
/// second.
pub const MESSAGE_GRACE: Duration = Duration::from_secs(10);
/// Bytes a second that an unfinished message must come with: the largest has 138 s, which a line of 32 kbit/s keeps.
pub const MESSAGE_RATE_MIN: u64 = 4 << 10;
/// Age from which an unfinished message that holds part of the pool may have to make room, while others want it.
pub const POOL_GRACE: Duration = Duration::from_secs(5);
/// An outbox's time without a byte leaving it.
pub const OUTBOX_STALL_MAX: Duration = Duration::from_secs(30);
/// Time for a farewell: to flush the outbox, and for the other side to end too.
pub const FLUSH_MAX: Duration = Duration::from_secs(5);
/// Time for a dial to succeed.
pub const DIAL_MAX: Duration = Duration::from_secs(10);
/// Time after which the kernel gives up bytes that the other side does not acknowledge (a cable pulled).
pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(60);

// Notifications

/// Most notifications that wait for one subscriber, whatever it asks for.
pub const EVENTS_MAX: usize = 4_096;
/// Most subscribers at once: live pages, metrics and logs.
pub const SUBSCRIBERS_MAX: usize = 256;

/// The most bytes that are read from one connection of a lane in one turn.
pub const fn read_bytes(lane: Lane) -> usize {
    match lane {
        Lane::Peer | Lane::Http | Lane::Bitcoin => READ_CONN_BYTES,
        Lane::Stratum => READ_LINES_BYTES,
    }
}

/// The most frames of one connection in the house.
pub const fn tickets_per_conn(lane: Lane) -> u8 {
    match lane {
        Lane::Peer | Lane::Bitcoin => TICKETS_PER_CONN,
        Lane::Stratum => TICKETS_PER_MINER,
        Lane::Http => TICKETS_PER_BROWSER,
    }
}

/// The most frames that a lane may have in the house, and their bytes.
pub const fn tickets(lane: Lane) -> (usize, usize) {
    match lane {
        Lane::Peer => (TICKETS_PEER, TICKET_BYTES_PEER),
        Lane::Stratum => (TICKETS_STRATUM, TICKET_BYTES_STRATUM),
        Lane::Http => (TICKETS_HTTP, TICKET_BYTES_HTTP),
        Lane::Bitcoin => (TICKETS_BITCOIN, TICKET_BYTES_BITCOIN),
    }
}

/// The most bytes that may wait in the outbox of one connection.
pub const fn outbox_bytes(lane: Lane) -> usize {
    match lane {
        Lane::Peer | Lane::Stratum => OUTBOX_HARD_BYTES,
        Lane::Http => OUTBOX_HTTP_BYTES,
        Lane::Bitcoin => OUTBOX_BITCOIN_BYTES,
    }
}

/// Bytes of memory that the hub of this configuration can come to hold, at the worst, the kernel's buffers apart.
pub fn worst_case_bytes(config: &HubConfig) -> u64 {
    // Framer, timer entry, place in the backlogs and the outbox's queue of one connection, generously; and the ciphers of v2, or its
    // handshake.
    const CONN_HEAP: usize = 512 + 768;
    let per_conn = CONN_BYTES_MAX + CONN_HEAP + RECEIVE_FREE_BYTES;
    let frames: usize = Lane::ALL.iter().map(|&lane| tickets(lane).1 + SHARE_HEADERS_BYTES_MAX).sum();
    // The smallest messages, of about 30 bytes, cost as much again for their place in the queue.
    let outboxes = 2 * (OUTBOX_SUM_BYTES + OUTBOX_HARD_BYTES) + config.bitcoin_dials_max * OUTBOX_BITCOIN_BYTES;
    let shared = READ_CONN_BYTES + RECEIVE_SPARE * RECEIVE_FREE_BYTES + RECEIVE_POOL_BYTES + outboxes + frames;
    (config.conns_max() as u64) * (per_conn as u64) + shared as u64
}
