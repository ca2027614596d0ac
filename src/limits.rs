//! Every limit of the root crate: a named constant with its unit and its reason.

use std::time::Duration;

use rockpool_net::limits::{BODY_BYTES_MAX, SHARE_BYTES_MAX, SHARE_HEADERS_BYTES_MAX};
use rockpool_store::limits::PEER_ADDRS_MAX;
use rockpool_workers::limits::FETCH_MISSING_MAX;

// Peers

/// Time a peer has for the whole handshake, from the connection's first moment, whatever it sends meanwhile.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Time between our pings.
pub const PING_EVERY: Duration = Duration::from_secs(30);
/// A peer of which nothing was heard for so long is dead: three pings unanswered.
pub const SILENCE_MAX: Duration = Duration::from_secs(90);
/// Least time between two `chaintip` to one peer: ten times a tip's usual life, and nothing against a burst of tips.
pub const CHAINTIP_EVERY: Duration = Duration::from_secs(1);
/// Ids per peer that it is known to have, oldest forgotten: twice what is pushed. A forgotten one costs a share sent twice.
pub const KNOWN_MAX: usize = 64;
/// Shares further than this below the tip come by sync, not by push (SHARECHAIN, parameters: near tip).
pub const PUSH_DEPTH: u32 = 30;
/// Shares replaced at once from which on an operator should hear of it (SHARECHAIN §5): honest nodes' reorgs are three deep at most.
pub const REORG_ALARM: u32 = 36;
/// Time between the first dial of a configured peer and the second; it doubles from there.
pub const DIAL_FIRST: Duration = Duration::from_secs(1);
/// Most time between two dials of a configured peer: a peer that comes back is found within a minute.
pub const DIAL_LAST: Duration = Duration::from_secs(60);
/// Time for which an address that was in vain dialled for v2, and is up in v1, is dialled for v1 alone.
pub const V1_REMEMBERED: Duration = Duration::from_secs(24 * 3_600);
/// Addresses of the book of which it is known how they speak: many times those that are dialled in a day.
pub const WRAPS_MAX: usize = 1_000;
/// Handshakes of v2 in a row that do not come about with an address that has spoken v2, until it is dialled for v1.
pub const V2_FAILURES: u8 = 3;
/// A peer that stayed so long was a good one: the next dial comes at once.
pub const DIAL_GOOD: Duration = Duration::from_secs(60);
/// Shares asked of one peer by id and not come yet: the fetcher keeps 16, a few may overlap while a peer says it has not got them.
pub const ASKED_MAX: usize = 256;

/// Requests of one peer that wait to be served, over which it is not heard meanwhile; what was cut before comes on top. A node asks for a
/// sync's part and 256 shares at most, three messages.
pub const REQUESTS_MAX: usize = 4;

// The address book

/// Buckets of *new*, the addresses that we were told of.
pub const NEW_BUCKETS: usize = 256;
/// Buckets of *tried*, the addresses that we have been connected to.
pub const TRIED_BUCKETS: usize = 64;
/// Addresses in a bucket: 5,120 in all, with 1.5 MB of memory; the network is expected to have hundreds of nodes, Bitcoin's book has four
/// times as many places in *new*.
pub const BUCKET_SLOTS: usize = 16;
const _: () = assert!((NEW_BUCKETS + TRIED_BUCKETS) * BUCKET_SLOTS == PEER_ADDRS_MAX);
/// Buckets of *new* that one netgroup of sources can reach: a sixteenth, as in Bitcoin.
pub const NEW_PER_SOURCE: usize = 16;
/// Buckets of *tried* that the addresses of one netgroup can reach: a thirty-second, as in Bitcoin.
pub const TRIED_PER_GROUP: usize = 2;
/// Netgroups of *tried* that all of *new* weigh as much as where one is drawn to be dialled: a flood fills *new* first.
pub const NEW_WEIGHT: usize = 16;
/// Seconds after which an address that was not seen gives way to another.
pub const ADDR_HORIZON_S: u32 = 30 * 86_400;
/// Dials in vain after which one gives way that never answered.
pub const ADDR_FAILURES_EVER: u8 = 3;
/// Dials in vain after which one gives way that has not answered for [`ADDR_FAILURES_S`].
pub const ADDR_FAILURES_MAX: u8 = 10;
/// Seconds that one that answered is kept whatever happens.
pub const ADDR_FAILURES_S: u32 = 7 * 86_400;
/// Addresses that wait for another's place in *tried*.
pub const BOOK_RIVALS_MAX: usize = 10;
/// Seconds since its last answer in which an address keeps its place in *tried* undoubted.
pub const RIVAL_FRESH_S: u32 = 4 * 3_600;
/// Seconds after which a place in *tried* goes to who waits for it though nobody has dialled who stands there.
pub const RIVAL_TEST_S: u32 = 40 * 60;
/// Addresses that are remembered to be our own.
pub const BOOK_OWN_MAX: usize = 16;
/// Seconds by which a word of an address must be newer to be taken down, and between two writes of such words.
pub const SEEN_STEP_S: u32 = 3_600;
/// Part of the book that a stranger is told, percent.
pub const GETADDR_PERCENT: usize = 23;
/// Addresses that a stranger is told in any case: a network of so few has nothing to hide, and its nodes have to find each other.
pub const GETADDR_FEW: usize = 16;

// Dials from the address book

/// Peers that we dial and keep (DESIGN §4), those of the configuration among them.
pub const OUTBOUND_TARGET: usize = 8;
/// Connections of the book's at once whose handshake is not done: a network that has failed is not stormed when it is back.
pub const DIALS_AT_ONCE: usize = 3;
/// Least time between two dials from the book.
pub const DIAL_PAUSE: Duration = Duration::from_millis(500);
/// Time after which the book is asked again where it had nobody to dial.
pub const DIAL_LOOK: Duration = Duration::from_secs(10);
/// Seconds from a dial to the next of the same address, a quarter more or less; they double with every failure.
pub const BACKOFF_FIRST_S: u32 = 15;
/// Most of them.
pub const BACKOFF_LAST_S: u32 = 3_600;
/// Seconds from a dial to the next of an address that is worth no place, while others answer.
pub const BACKOFF_BAD_S: u32 = 86_400;
/// Mean time between two feelers, as Bitcoin's.
pub const FEELER_EVERY: Duration = Duration::from_secs(120);
/// Time that a peer must have been up to become an anchor, and how often it is looked who is behind.
pub const ANCHOR_AFTER: Duration = Duration::from_secs(60);
/// Time after which a dialled peer makes room that has been far behind or said nothing of its chain, while another of them has kept up.
pub const BEHIND_MAX: Duration = Duration::from_secs(1_200);

// What is said of addresses

/// Addresses that one peer may tell of at once without being asked.
pub const ADDR_BURST: usize = 100;
/// Time for one more.
pub const ADDR_EVERY: Duration = Duration::from_secs(10);
/// Addresses in a message up to which it is news, to be passed on.
pub const ADDR_NEWS_MAX: usize = 10;
/// Dispatch cost of such a message: what a peer passes on in an hour ([`RELAYED_MAX`]), to eight others, is within [`PEER_COST_BURST`].
pub const ADDR_NEWS_COST: u32 = 10;
const _: () = assert!(ADDR_NEWS_COST as usize * RELAYED_MAX * RELAY_PEERS / OUTBOUND_TARGET <= PEER_COST_BURST as usize);
/// Seconds since an address was seen in which it is news; and by which it may lie ahead of our clock.
pub const ADDR_FRESH_S: u32 = 600;
/// Seconds by which another's word on when an address was seen counts less than our own, as in Bitcoin.
pub const ADDR_PENALTY_S: u32 = 7_200;
/// Seconds ago that an address is taken to be seen whose time lies ahead of our clock, as in Bitcoin.
pub const ADDR_PUSHED_BACK_S: u32 = 5 * 86_400;
/// Peers that an address is passed on to.
pub const RELAY_PEERS: usize = 2;
/// Time in which an address is not passed on again.
pub const RELAY_AGAIN: Duration = Duration::from_secs(3_600);
/// Addresses that wait to be passed on, for the end of the turn.
pub const RELAYS_MAX: usize = 64;
/// Addresses passed on in [`RELAY_AGAIN`] at most: a network of a thousand nodes, each of which tells of itself once a day to eight.
pub const RELAYED_MAX: usize = 1_000;
/// Time that all who ask hear the same addresses.
pub const ANSWER_LIFE: Duration = Duration::from_secs(86_400);
/// Time between two words to a peer on our own address.
pub const ANNOUNCE_EVERY: Duration = Duration::from_secs(86_400);

// Rows of peers

/// Least time between two writes of the address book.
pub const BOOK_WRITE_EVERY: Duration = Duration::from_secs(60);
/// Least time between two writes of what was only seen again.
pub const BOOK_STAMPS_EVERY: Duration = Duration::from_secs(3_600);
/// Anchors and bans that wait for the disk.
pub const KEPT_WAITING_MAX: usize = 2_048;
// Bitcoin's own network

/// Time that a Bitcoin node has to answer `getheaders`: one that reads its index from a slow disk takes seconds.
pub const BITCOIN_ANSWER_MAX: Duration = Duration::from_secs(120);
/// Headers in a message that is taken for news of new blocks, as Bitcoin Core announces them: up to eight at once.
pub const BITCOIN_ANNOUNCED_MAX: usize = 8;
/// Answers of one Bitcoin node that may lead nowhere within [`BITCOIN_STRIKES_SPAN`]: reorgs and races make one or two of them.
pub const BITCOIN_STRIKES_MAX: u32 = 8;
/// Time after which they are forgotten.
pub const BITCOIN_STRIKES_SPAN: Duration = Duration::from_secs(600);
/// Time that a Bitcoin node is left alone which broke the rules: it may be mended, and the user chose it.
pub const BITCOIN_REST: Duration = Duration::from_secs(3_600);
/// Found blocks of which is remembered that a Bitcoin node was told.
pub const BITCOIN_HANDED_MAX: usize = 16;
/// Times that a Bitcoin node is sent one block: unasked, and once more if it asks.
pub const BITCOIN_SENT_MAX: u32 = 2;

// Own templates

/// Shares of ours whose lists of transactions are served (SHARECHAIN §10).
pub const TEMPLATES_KEPT: usize = 30;
/// Bytes of memory for all of these lists (SHARECHAIN §10): thirty of 2,000 transactions that share nothing.
pub const TEMPLATES_BYTES_MAX: usize = 8 << 20;
/// Least time between two parts of lists that one peer is sent (SHARECHAIN §10); what it asks for sooner is said not to be there.
pub const TEMPLATE_EVERY: Duration = Duration::from_secs(1);

// Bodies of found blocks

/// Bodies pulled at once, each from one peer (SHARECHAIN §10). One takes at most 18 MB: the bytes that arrive, the transactions made of
/// them with their ids, and the block.
pub const BODY_PULLS_MAX: usize = 2;
/// Time that one peer is given for a body (SHARECHAIN §10): 4 MB at 70 kB/s.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(60);
/// Time within it that a peer has to begin its next part.
pub const BODY_ANSWER_MAX: Duration = Duration::from_secs(10);
/// Time after which a peer that has told of a block and not got it is asked again: it may be pulling it itself.
pub const BODY_RETRY: Duration = Duration::from_secs(1);
/// Peers that are remembered to have a block beside the one that is asked.
pub const BODY_PEERS_MAX: usize = 8;
/// Bytes of bodies that one peer is sent in [`BODY_TIME_MAX`]: the largest block twice. What it asks for beyond is said not to be there.
pub const BODY_SENT_MAX: usize = 2 * BODY_BYTES_MAX;
/// Words of peers on blocks that cannot be pulled yet, one of each peer on each: the parent's payouts are not known, or others are being
/// pulled.
pub const BODY_HEARD_MAX: usize = 16;

// Sync

/// Shares in our answer to `getheaders`, always if there are so many: of the largest size they fit a `shareheaders`. An answer of fewer
/// ends at the sender's tip.
pub const SYNC_SHARES: usize = 500;
/// Bitcoin headers in one message that was not asked for: what 64 KiB hold, and room.
pub const BTC_HEADERS_UNASKED_MAX: usize = 720;
/// Bitcoin headers sent along with one answer to `getheaders`: shares of five hours build on thirty, the first ones of a chain on more.
pub const BTC_HEADERS_ALONG_MAX: usize = 4 * BTC_HEADERS_UNASKED_MAX;
/// Time a peer has to begin its answer to `getheaders`; once it comes, its length says how long it may take (`MESSAGE_RATE_MIN`).
pub const SYNC_ANSWER_MAX: Duration = Duration::from_secs(30);
/// How often the owner of a sync may come to claim less without being called a liar: honest peers do it when a better chain is confirmed.
pub const CLAIM_LOWERED_EVERY: Duration = Duration::from_secs(10);
/// Answers of one sync that may bring nothing new: a reorg over there makes one of them. A second one ends a lie within a minute
/// (SHARECHAIN §11).
pub const SYNC_BARREN_MAX: u32 = 1;
/// Time between the organiser's word that a sync's last shares are worked off and our tip being there: its changes may be several.
pub const SYNC_SETTLE_MAX: Duration = Duration::from_secs(10);
/// Heights of one range that is asked for: an answer of [`SYNC_SHARES`] holds them with their uncles, or nearly.
pub const SYNC_RANGE: u32 = 400;
/// Ranges that are asked for or wait for lower ones: at most 3 MB of shares, one range of each peer.
pub const SYNC_PARTS_MAX: usize = 8;
// All that is asked for and has not come, ranges and missing shares, is at most 8 MiB.
const _: () = assert!(SYNC_PARTS_MAX * SHARE_HEADERS_BYTES_MAX + FETCH_MISSING_MAX * SHARE_BYTES_MAX <= 8 << 20);
/// A sync's messages that the organiser works on, or has before it.
pub const SYNC_HANDED_MAX: usize = 4;
/// Time that a peer has which merely helps with a range, before another is asked.
pub const SYNC_HELP_MAX: Duration = Duration::from_secs(10);
/// Peers that are asked for a base share when a node begins.
pub const BASE_PROBES_MAX: usize = 8;
/// Time from the first such question to the choice among those that have answered.
pub const BASE_PROBE_MAX: Duration = Duration::from_secs(5);
/// How often the log tells of the progress of a sync.
pub const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// Time from which on the speed so far says something of the time left.
pub const PROGRESS_FROM: Duration = Duration::from_secs(2);
/// Time that a claim a little above ours is left to the push of its shares before it is worth a sync.
pub const SYNC_GRACE: Duration = Duration::from_secs(1);
/// Heights that push and fetcher are trusted to close by themselves.
pub const SYNC_GAP: u32 = 2;

// Words to the fetcher

/// Words that wait for the fetcher's credit, those of who came and left apart: a sync's worth of missing shares.
pub const FETCH_WAITING_MAX: usize = 4_096;

// Miners

/// Time from the connection to the first line.
pub const FIRST_LINE_MAX: Duration = Duration::from_secs(10);
/// Time from the connection to `mining.subscribe` and a successful `mining.authorize`.
pub const AUTHORIZE_MAX: Duration = Duration::from_secs(60);
/// Time without any line after which a miner is gone: ten times what the slowest sends at our difficulty.
pub const MINER_IDLE_MAX: Duration = Duration::from_secs(600);
/// Most time between two jobs: some firmware reconnects after a minute or three without one.
pub const NOTIFY_EVERY: Duration = Duration::from_secs(55);
/// Age at which work is joined anew for a fresh share time when a job is due.
pub const BOARD_AGE_MAX: Duration = Duration::from_secs(20);
/// How often miners at work hear of another tip while a better claim is looked into: a lie must not keep them on an old one.
pub const BEHIND_NOTIFY: Duration = Duration::from_secs(5);
/// Boards at once. With payouts there are eight, one for each class and layout; on genesis, while each script has its own, a household's.
pub const BOARDS_MAX: usize = 64;
/// Newest shares of the confirmed chain by which is judged who makes too many of them: an hour's (SHARECHAIN §4).
pub const HARDER_SPAN: usize = 360;
/// Part of them that one script should make at most, percent.
pub const HARDER_PERCENT: u32 = 3;
/// Shares that a script must have made of them before its target becomes harder: fewer say nothing.
pub const HARDER_SHARES_MIN: u32 = 12;
/// Least time between two steps of a script's target, each a factor of two.
pub const HARDER_EVERY: Duration = Duration::from_secs(600);
/// Scripts whose targets are harder, or were just now: twice as many as can make so many shares at once.
pub const HARDER_SCRIPTS_MAX: usize = 64;
/// Past jobs of one miner that are still taken while their Bitcoin parent holds.
pub const JOBS_PAST_MAX: usize = 16;
/// Age at which a past job is no longer taken: devices drop a job for the next within seconds, and many a pool's last ten minutes.
pub const JOB_AGE_MAX: Duration = Duration::from_secs(300);
/// Bytes of transactions that templates may keep which only past jobs work on: those that newer ones do not hold. A minute of main changes
/// some 300 kB of a template.
pub const TEMPLATES_PAST_BYTES_MAX: usize = 4 << 20;
/// Lines that miners can share, at once: those of a household's payees, in each class. A large coinbase's has 60 kB.
pub const LINES_SHARED_MAX: usize = 32;
/// Invalid submits of one miner, in a row and within [`INVALID_SPAN`], that are a flood: what a sound one sends in half an hour.
pub const INVALID_SUBMITS_MAX: u32 = 512;
/// Time over which invalid submits are counted.
pub const INVALID_SPAN: Duration = Duration::from_secs(60);
/// Time that an address is kept out after a flood.
pub const BAN_TIME: Duration = Duration::from_secs(600);
/// Lines of one miner in a row that are no JSON object and are told so; a connection that says nothing else speaks another protocol.
pub const GARBAGE_LINES_MAX: u32 = 8;
/// Addresses that one miner was refused beside its own, remembered so that what is submitted for them is refused too: a proxy's worth.
pub const REFUSED_MAX: usize = 16;
/// Stale and duplicate submits since the last good one of a device that does not get out by itself: sound ones send a few after a block.
pub const STUCK_SUBMITS: u32 = 16;
/// Submits of a pool of our own that are on their way to the disk at most: the rest of the tickets is for blocks, which do not wait for it.
pub const JUDGED_OUT_MAX: usize = 768;
/// Time in which none of them comes home after which the disk hangs: a card that is busy with itself takes half as long.
pub const JUDGED_STALL_MAX: Duration = Duration::from_secs(2);
/// Time after work was taken away in which what is found in it is no sign that a device is stuck: a fast one with a slow line sends dozens,
/// and would lose its new work over the old.
pub const STALE_EXCUSED: Duration = Duration::from_secs(30);
/// Time that a session can be taken up again after its connection has ended, as ckpool has it: a device restarts in one or two minutes.
pub const RESUME_TIME: Duration = Duration::from_secs(600);
/// Sessions kept to be taken up again: a household's and a shed's. Each is a few hundred bytes, and up to 80 KiB if it submitted all that
/// is remembered ([`SUBMITS_SEEN_MAX`]).
pub const RESUME_MAX: usize = 256;
/// Addresses kept out at once.
pub const BANS_MAX: usize = 1_024;
/// Submits of one miner remembered to tell duplicates, those of its oldest work forgotten first: at 0.3 a second an hour's.
pub const SUBMITS_SEEN_MAX: usize = 1_024;
/// Bytes kept of a miner's user agent.
pub const AGENT_BYTES_MAX: usize = 128;
/// Bytes of a user name, `address[.worker]`: the longest that firmware sends whole is 127.
pub const USER_BYTES_MAX: usize = 192;
/// Bytes of transactions that `mining.get_transactions` answers with; more is bitcoind's to tell.
pub const TRANSACTIONS_BYTES_MAX: usize = 8 << 10;
/// Salts remembered to tell our own shares: those of the last templates that a share may still come from.
pub const SALTS_KEPT: usize = 64;
/// Easiest difficulty that vardiff gives: a device of 13 kH/s then finds 0.3 shares a second.
pub const DIFFICULTY_MIN: f64 = 1e-5;
/// Hardest difficulty that may be asked for: beyond it a 256-bit target has no bits left worth the name.
pub const DIFFICULTY_MAX: f64 = 1e15;
/// Difficulty of a miner that gave no hint: a device of 1 MH/s is led down from here in five minutes, one of 1 PH/s up in seconds.
pub const DIFFICULTY_START: f64 = 1.0;
/// Difficulty of a job on regtest at most where there is no share chain whose shares are harder: a second of a CPU's work.
pub const FREE_DIFFICULTY_MAX: f64 = 1e-3;

// HTTP

/// Time an HTTP connection has for its request and for taking the answer.
pub const HTTP_MAX: Duration = Duration::from_secs(30);
/// Names, or origins, that may be configured for HTTP: each request is compared with all of them.
pub const HTTP_DOORS_MAX: usize = 64;
/// Bytes of the dashboard's files, uncompressed: a phone with a slow line has it in seconds.
pub const PAGE_BYTES_MAX: usize = 150_000;
/// Event streams at once: as many HTTP connections stay for requests.
pub const STREAMS_MAX: usize = HTTP_CONNS_MAX / 2;
/// Bytes that a stream has not read over which it is cut: minutes of a busy node's events, beside what the system holds for it.
pub const STREAM_BACKLOG_BYTES: usize = 64 << 10;
/// Bytes of events told in one second, some 60 of them, all kinds together but those that nobody can bring about at will: of a sync's
/// thousands of shares, and of a farm's miners that come back at once, the number is told. All streams then take some tenth of a core.
pub const STREAM_BYTES_A_SECOND: usize = 8 << 10;
/// Bytes of past events that are kept for who comes back: some 250. No more are told in one turn, whatever they are, so that who reads is
/// never cut for them.
pub const STREAM_PAST_BYTES: usize = STREAM_BACKLOG_BYTES / 2;
/// Characters of a reason or a bitcoind's word that an event tells.
pub const STREAM_TEXT_CHARS: usize = 256;
/// Least time between two looks whether the status is another.
pub const STREAM_STATUS_MIN: Duration = Duration::from_secs(1);
/// Time after which the status is sent all the same, for proxies that close what is silent for a minute.
pub const STREAM_HEARTBEAT: Duration = Duration::from_secs(15);
/// Time after which a browser is to come back when its stream has ended.
pub const STREAM_RETRY: Duration = Duration::from_secs(3);
/// Confirmed tips whose payouts can be asked for: a minute's, so that who has just seen a block can check what it pays.
pub const PAYOUTS_KEPT: usize = 6;
/// Shares in one list, if the question does not say.
pub const SHARES_LISTED: u8 = 20;
/// Shares in one list: as many as the reader has read before anybody notices; who wants more asks again, from further down.
pub const SHARES_LISTED_MAX: u8 = 200;
/// Draws of payouts that are kept: all classes of all that can be asked for, so that nobody has one made again by asking for many.
pub const DRAWS_KEPT: usize = 4 * (PAYOUTS_KEPT + 2);
/// Shares beside the chain in one list: as many as shares of it.
pub const BESIDE_LISTED_MAX: usize = SHARES_LISTED_MAX as usize;
/// Shares of this node's miners that are known to be that, 200 kB: a home miner's of two weeks.
pub const OWN_SHARES_KEPT: usize = 2_048;

// Tokens

/// Bytes of a token: those that the node makes have some 300.
pub const TOKEN_BYTES_MAX: usize = 1 << 10;
/// Bytes of the name in one.
pub const TOKEN_SUB_BYTES_MAX: usize = 64;
/// Days that a token is good for at most: ten years. There is no way to call one back but a new secret.
pub const TOKEN_DAYS_MAX: u64 = 3_650;
/// Days that one is good for if it is not said.
pub const TOKEN_DAYS: u64 = 30;
/// Seconds that a token is good for which a command signs for itself.
pub const TOKEN_CLI_S: u64 = 60;
/// Seconds by which the clock of who made a token may differ from ours.
pub const TOKEN_LEEWAY_S: u64 = 60;
/// Bytes of a user's token: those of an identity provider, with all its claims, have one to two thousand.
pub const USER_TOKEN_BYTES_MAX: usize = 4 << 10;
/// Bytes of a user's name in one (OpenID Connect §2).
pub const USER_TOKEN_SUB_BYTES_MAX: usize = 255;
/// Tokens that are known to be good, 2 MB: as many as there are users, each of whom has one at a time.
pub const TOKENS_KNOWN_MAX: usize = 4_096;
/// How often an identity provider's keys are fetched anew: so long does a token outlive the key that it was signed with.
pub const JWKS_REFRESH: Duration = Duration::from_secs(3_600);
/// Least time between two fetches of the keys, however many tokens name keys that are not there.
pub const JWKS_AGAIN_MIN: Duration = Duration::from_secs(10);
/// Time for one fetch.
pub const JWKS_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a set of keys: Keycloak's, with chains of certificates, have some 6 kB.
pub const JWKS_BYTES_MAX: u64 = 256 << 10;
/// Keys of a set that tokens can be verified with: Keycloak shows one or two, and a few more while they are changed.
pub const JWKS_KEYS_MAX: usize = 16;
/// Bytes of a key's name.
pub const KEY_ID_BYTES_MAX: usize = 128;
/// Bytes of an RSA key's modulus at least, 2,048 bits: shorter ones can be broken.
pub const RSA_BYTES_MIN: usize = 256;
/// At most, 8,192 bits: what a check may cost.
pub const RSA_BYTES_MAX: usize = 1_024;

// The node

/// Time for the stages' threads to end and the disk to be flushed after the last turn, before the watchdog counts: an SD card with
/// megabytes to write.
pub const LEAVE_MAX: Duration = Duration::from_secs(30);
/// Time an ordered stop waits for tickets to come home.
pub const STOP_MAX: Duration = Duration::from_secs(2);
/// Found blocks that `status` lists.
pub const BLOCKS_SHOWN: usize = 16;
/// Found blocks that are held in memory for peers to pull, of our miners' and of peers' as many each: 16 MB at most.
pub const BODIES_SERVED: usize = 2;
/// Words of bitcoinds on blocks that the node has not heard of yet: four bitcoinds on four blocks.
pub const EARLY_FATES_MAX: usize = 16;

// Configuration and the shell

/// Peers connected at once where the configuration does not say: a home machine's file limit is 1,024 and miners need some.
pub const PEERS_DEFAULT: usize = 1_000;
/// Most that `--max-peers` may ask for: slabs are allocated at start.
pub const PEERS_MAX: usize = 10_000;
/// Connections at once of one address on the peers' port: two nodes of a household and one that is being restarted.
pub const PEERS_PER_ADDR: usize = 3;
/// Connections at once of one network, an IPv4 /16 or an IPv6 /32, on the peers' port: a large provider's honest nodes, and 63 networks to
/// fill the default.
pub const PEERS_PER_GROUP: usize = 16;
/// Slots above the peers that may be there: newcomers wait in them for somebody to be evicted, [`EVICT_EVERY`] at most.
pub const PEERS_RESERVE: usize = 64;
/// Least time between two looks at whom to evict. A look at 1,000 peers takes some 0.1 ms, and a reconnect storm so one per cent of a core.
pub const EVICT_EVERY: Duration = Duration::from_millis(10);
/// Addresses that misbehaved and are remembered, the oldest forgotten first: some 600 kB.
pub const DISCOURAGED_MAX: usize = 10_000;
/// Time that an address is remembered for it: it may have another tenant tomorrow.
pub const DISCOURAGED_TIME: Duration = Duration::from_secs(24 * 3_600);
/// Dispatch cost that one peer may cause in a second by what it says unasked ([`rockpool_net::wire::message::Command::cost`], about a
/// microsecond each): ten times what an honest one does, and 300 flooders take less than a third of a core.
pub const PEER_COST_RATE: u32 = 1_000;
/// Ids of a long `inv` that are looked up for one unit of that cost.
pub const INV_IDS_PER_COST: u32 = 4;
/// Dispatch cost that it may cause at once: five seconds' worth. A sync of all that is kept asks for little more than half of it.
pub const PEER_COST_BURST: u32 = 5_000;
/// Least time that a peer over its budget is not heard: a flooder is looked at ten times a second, not for every message.
pub const PEER_REST: Duration = Duration::from_millis(100);
/// Newest shares of peers of which is remembered who sent them first.
pub const FIRSTS_KEPT: usize = 64;
/// Peers that have left and are remembered with the reason.
pub const LEFT_KEPT: usize = 64;
/// Peers, or bans, in one list of the API, and if the question does not say.
pub const PEERS_LISTED_MAX: usize = 200;
/// Time of a ban if the user does not say.
pub const BAN_SECONDS: u32 = 24 * 3_600;
/// Longest time of a ban: ten years.
pub const BAN_SECONDS_MAX: u32 = 10 * 365 * 24 * 3_600;
/// Of those who dialled us, the last to give us a share that we had not got are never evicted: shares cost work.
pub const EVICT_KEEP_GAVE: usize = 8;
/// Nor are those with the fastest answers to a ping: it takes a machine nearby. As many as Bitcoin Core keeps.
pub const EVICT_KEEP_PING: usize = 8;
/// Nor the oldest of so many networks, by a secret order: nobody knows where to rent machines. As many as Bitcoin Core keeps.
pub const EVICT_KEEP_GROUPS: usize = 4;
/// Time that a peer has to be there for that: who comes from everywhere in a storm does not take their places in passing.
pub const EVICT_SETTLED: Duration = Duration::from_secs(60);
/// Miners connected at once: a large farm, at 2 KiB each while idle. An empty slot costs a few hundred bytes at most.
pub const MINERS_MAX: usize = 10_240;
/// Miners at once behind one public address.
pub const MINERS_PER_ADDR: usize = 256;
/// HTTP connections at once: half of them for event streams. An idle one takes some 5 KiB.
pub const HTTP_CONNS_MAX: usize = 1_024;
/// HTTP connections at once of one address: browsers open six. This machine's own, a reverse proxy's among them, are not counted.
pub const HTTP_PER_ADDR: usize = 16;
/// File descriptors beside connections: RocksDB's files, listeners, bitcoind, the terminal.
pub const FILES_BESIDE: usize = 192;
/// Peers that may be configured to dial: each is dialled for ever.
pub const PEERS_CONFIGURED_MAX: usize = 64;
/// Rules for firmware that may be configured: each user agent is looked for in all of them.
pub const FIRMWARE_RULES_MAX: usize = 64;
/// Bytes of a configuration file: a hundred lines are 4 KiB.
pub const CONFIG_BYTES_MAX: u64 = 64 << 10;
/// Log lines that wait for whoever reads the log: a burst, not a stall.
pub const LOG_LINES_MAX: usize = 1_024;
/// Bytes that one place of the code may log in [`LOG_REFILL`]: a hostile peer writes no more than a few gigabytes a year to a disk.
pub const LOG_PLACE_BYTES_MAX: usize = 1 << 20;
/// How often every place may log anew.
pub const LOG_REFILL: Duration = Duration::from_secs(3_600);
/// Bytes of one log line: what strangers send may stand in it.
pub const LOG_LINE_BYTES_MAX: usize = 1 << 10;
/// Time that the end of the process waits for the log to be written, twice at most.
pub const LOG_FLUSH_MAX: Duration = Duration::from_millis(250);
/// Time that `rockpool status` gives the node to connect and to answer.
pub const STATUS_TIME_MAX: Duration = Duration::from_secs(5);
/// Bytes of an answer that `rockpool status` reads: the largest page is far below.
pub const STATUS_BYTES_MAX: u64 = 1 << 20;
/// How often a terminal is told how far long work of the command line is.
pub const METER_TERMINAL_EVERY: Duration = Duration::from_millis(200);
/// The same for a file or a pipe.
pub const METER_LINE_EVERY: Duration = Duration::from_secs(10);
/// How often the watchdog looks.
pub const WATCH_EVERY: Duration = Duration::from_secs(1);

// The demo

/// Time that the demo's second node is given, once nothing is mined any more, to reach the first one's tip.
pub const DEMO_SETTLE_MAX: Duration = Duration::from_secs(5);
/// Time that the demo's nodes are given to stop: three times what an ordered stop takes at most.
pub const DEMO_STOP_MAX: Duration = Duration::from_secs(10);
/// How often it looks meanwhile.
pub const DEMO_LOOK: Duration = Duration::from_millis(50);
/// Threads of the demo's miner.
pub const DEMO_THREADS: usize = 1;
/// Seconds that the token is good which a demo with portfolios prints: its users and its secret end with it.
pub const DEMO_TOKEN_S: u64 = 86_400;
/// Hashes a second of each: a tenth of what a small machine's core can do.
pub const DEMO_RATE: u64 = 200_000;

// The CPU miner

/// How often a thread of the CPU miner hashes a slice; it listens in between.
pub const MINER_SLICE: Duration = Duration::from_millis(20);
/// Pause of the CPU miner between two tries to reach its server, and its time for a connection to stand.
pub const MINER_RETRY: Duration = Duration::from_secs(1);
/// Bytes of one line that the CPU miner takes from its server: the largest coinbase in hex and some.
pub const MINER_LINE_BYTES_MAX: usize = 64 << 10;

// Figures of miners

/// How often the weights of what a worker submitted are computed at most: with every submit they would cost more than all else about it.
pub const RATE_FOLD: Duration = Duration::from_secs(1);
/// Seconds that a worker is taken to have been there at least: two submits that come together are no giant.
pub const RATE_SETTLES_S: f64 = 10.0;
/// How often rates are summed up for those who ask.
pub const FIGURES_EVERY: Duration = Duration::from_secs(1);
/// How often the charts get what was seen.
pub const CHARTS_EVERY: Duration = Duration::from_secs(10);
/// How often what has changed goes to the disk: cards wear out by writes.
pub const FIGURES_WRITE_EVERY: Duration = Duration::from_secs(600);
/// How often a new best hash may go there before: a new worker has a handful in its first minute, later they are rare.
pub const BEST_WRITE_EVERY: Duration = Duration::from_secs(10);
/// Heights between two sums of the share chain's work that are kept: as many at most are added up when somebody asks, and a chain of four
/// weeks has a thousand sums.
pub const POOL_MARK_EVERY: u32 = 256;
/// Seconds over which the pool's rate is told: on main 360 shares, which are off by a twentieth at most times.
pub const POOL_RATE_S: u32 = 3_600;
/// How often workers are forgotten to make room for others: all are looked at.
pub const ROOM_EVERY: Duration = Duration::from_secs(1);
/// Found blocks of which the pool's luck is told.
pub const LUCK_BLOCKS: usize = 20;
/// Bytes of an address in a path: the longest there are have 62, with some room for what is none.
pub const ADDRESS_BYTES_MAX: usize = 128;

// What portfolios are collected from

/// Time for one try of a call to an outside service: free endpoints take seconds at bad times.
pub const OUTSIDE_TRY_MAX: Duration = Duration::from_secs(20);
/// Bytes of an answer of the usual kind: prices of a hundred coins in eight currencies are a twentieth of it.
pub const OUTSIDE_ANSWER_BYTES: u64 = 1 << 20;
/// Coins whose prices are asked for in one call: the address is still shorter than what servers take.
pub const PRICES_PER_CALL: usize = 100;
/// The highest price of one coin that is believed, in any currency.
pub const PRICE_MAX: f64 = 1e15;
/// Bytes of CoinGecko's list of all coins with their contracts: four times what it is.
pub const COINS_LIST_BYTES: u64 = 16 << 20;
/// Entries of that list: five times what there are.
pub const COINS_LISTED_MAX: usize = 100_000;
/// Requests in one JSON-RPC batch, the most that public endpoints take.
pub const EVM_BATCH_MAX: usize = 100;
/// Contracts that are asked of on each chain, those of the best ranked coins: with the chain's id and its own coin they fill one batch.
pub const TOKENS_PER_CHAIN: usize = EVM_BATCH_MAX - 2;
/// Characters of a coin's symbol at OKX: twice the longest.
pub const OKX_SYMBOL_MAX: usize = 32;
/// Places of an amount at OKX that are kept: as many as any chain has.
pub const OKX_PLACES_MAX: usize = 18;
/// Time for a scan of all unspent outputs: twenty minutes on a small machine with a slow disk.
pub const SCAN_TIME_MAX: Duration = Duration::from_secs(1_800);
/// Bytes of what it finds: some 40,000 outputs.
pub const SCAN_ANSWER_BYTES: u64 = 16 << 20;
/// Bytes of the names of a block's transactions, or of its first: the most transactions that fit a block have names of 1.2 MB.
pub const BLOCK_ANSWER_BYTES: u64 = 4 << 20;
/// Confirmations with which a block's payments can be spent: Bitcoin's rule.
pub const MATURE_DEPTH: u32 = 100;
/// How long an endpoint is left alone after its first failure; doubled with each that follows.
pub const ENDPOINT_PAUSE_MIN: Duration = Duration::from_secs(60);
/// Longest time for which an endpoint is left alone: one that is back is found so soon.
pub const ENDPOINT_PAUSE_MAX: Duration = Duration::from_secs(300);
/// Orders for one service that are out at once: those of the four services and one for keys are all that a stage may have out.
pub const COLLECT_ORDERS_MAX: usize = 15;
/// Orders for bitcoind that are out at once: it has more important things to do.
pub const BITCOIND_ORDERS_MAX: usize = 1;
/// Least time between two looks at what is due: a look passes over all accounts.
pub const COLLECT_MIN: Duration = Duration::from_secs(1);
/// Most time between two looks.
pub const COLLECT_MAX: Duration = Duration::from_secs(60);
/// How old prices are when they are asked for again while somebody looks.
pub const PRICES_EVERY: Duration = Duration::from_secs(60);
/// The same while nobody does: 4,320 calls a month, where a free key has 10,000.
pub const PRICES_IDLE_EVERY: Duration = Duration::from_secs(600);
/// Least time between two rounds of calls for prices, whatever becomes new.
pub const PRICES_APART: Duration = Duration::from_secs(10);
/// Coins whose prices are known to be new: as many as prices are kept.
pub const PRICED_MAX: usize = 10_000;
/// How long what a chain told is new: whoever else wants the same gets it.
pub const CHAIN_DATA_FOR: Duration = Duration::from_secs(30);
/// Addresses on chains of which what they told is kept.
pub const CHAIN_DATA_MAX: usize = 1_000;
/// How long after somebody looked his accounts are asked for often.
pub const LOOKED_FOR: Duration = Duration::from_secs(600);
/// How often that is.
pub const LOOKED_EVERY: Duration = Duration::from_secs(60);
/// How often accounts are asked for at which nobody looks.
pub const IDLE_EVERY: Duration = Duration::from_secs(3_600);
/// How soon something is asked again whose endpoint failed, so that others have their turn before it.
pub const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Least time between two scans of all unspent outputs.
pub const SCAN_EVERY: Duration = Duration::from_secs(600);
/// Addresses that one scan looks for.
pub const SCAN_ADDRESSES_MAX: usize = 100;
/// Least time between two tries of what is done once a day.
pub const DAILY_EVERY: Duration = Duration::from_secs(600);
/// Longest time for which the day's snapshots wait for prices and balances.
pub const SNAPSHOT_WAIT: Duration = Duration::from_secs(600);
/// Portfolios of which a snapshot is made in one look.
pub const SNAPSHOTS_AT_ONCE: usize = 100;

// Portfolios

/// Currencies in which prices are asked for: each is a number more in every row of a price.
pub const CURRENCIES_MAX: usize = 8;
/// Most time between the starts of two calls to one service: prices are asked for once a minute.
pub const OUTSIDE_DELAY_MAX: Duration = Duration::from_secs(60);
/// The same of bitcoind: a new block takes some six calls before miners have a template on it.
pub const BITCOIND_DELAY_MAX: Duration = Duration::from_millis(100);
/// Bytes of a service's URL, or of what it knows the operator by: many times what there are.
pub const OUTSIDE_TEXT_BYTES_MAX: usize = 512;
/// Seconds after which it is written down again that an account was checked, though it holds what it held.
pub const CHECKED_WRITE_EVERY_S: u64 = 3_600;
/// Letters of a currency's code: the longest that CoinGecko knows has as many.
pub const CURRENCY_BYTES_MAX: usize = 5;
/// Days of a portfolio's worth that are told at once: ten years.
pub const HISTORY_DAYS_MAX: u64 = 3_650;
/// Bytes of each of the three texts that OKX knows a user by: its own have some 36.
pub const OKX_KEY_BYTES_MAX: usize = 128;
/// Characters of the name of a portfolio or an account.
pub const NAME_CHARS_MAX: usize = 64;
/// Bytes of a coin's symbol and of its name, as they are told: the longest that are known have half as many.
pub const COIN_SYMBOL_BYTES: usize = 32;
/// Bytes of its name.
pub const COIN_NAME_BYTES: usize = 64;
/// How often a disk that had no room for rows of portfolios is tried again.
pub const UNWRITTEN_RETRY: Duration = Duration::from_secs(1);
/// How often the stage of portfolios is told how miners stand at most: a sync brings hundreds of tips a second.
pub const MINED_EVERY: Duration = Duration::from_secs(1);
