//! Every limit of this crate: a named constant with its unit and its reason, and the relations between them.

use std::time::Duration;

use rockpool_net::limits::{TICKETS_ALL, TICKETS_BITCOIN, TICKETS_HTTP, TICKETS_PEER, TICKETS_STRATUM};
use rockpool_store::limits::SCRATCH_BYTES_MAX;

// Stages

/// Submits that the organiser credits in a step where miners are a pool of their own: a row each at most, so that a batch holds them.
pub const CREDIT_SLICE: usize = 64;
/// How often the reactor is told what each of them has: new work is made no more often.
pub const CREDITS_TOLD: Duration = Duration::from_secs(10);
/// Emission workers at most: beyond eight cores the reactor is the narrow place.
pub const EMISSION_MAX: usize = 8;
/// Submits that emission judges before it posts: a found block among the first waits for no more than these, about 100 µs.
pub const EMISSION_SLICE: usize = 64;
/// Commitments that an emission worker keeps, so that not every submit makes its own anew: those of a farm whose miners are all paid apart,
/// half a megabyte.
pub const COMMITMENTS_MAX: usize = 4_096;
/// Tied shares that the organiser takes before it looks at its lanes again (DESIGN §5).
pub const TIED_SLICE: usize = 64;
/// Coinbases that the organiser rebuilds before it looks at its lanes again (DESIGN §5).
pub const REBUILT_SLICE: usize = 8;
/// Shares waiting for their coinbase to be rebuilt over which no more shares of a sync are taken: two weeks of them. At some 800 bytes each
/// they take no more than the scratch that a sync may take anyway.
pub const BACKLOG_MAX: usize = 122_000;
/// Missing shares that one peer may name at once: as many as it may have pending.
pub const FETCH_FROM_PEER_MAX: usize = PENDING_PEER_MAX;
/// Shares of one peer that wait for something unknown (SHARECHAIN §2).
pub const PENDING_PEER_MAX: usize = 64;
/// Shares of all peers that wait for something unknown (SHARECHAIN §2).
pub const PENDING_MAX: usize = 2_000;
/// How long a share waits for something unknown (SHARECHAIN §2).
pub const PENDING_AGE_MAX: Duration = Duration::from_secs(600);
/// How often shares are looked at again that wait for the clock.
pub const PENDING_LOOK: Duration = Duration::from_secs(1);
/// Time that a sync's message waits for an uncle or a Bitcoin header that it needs: some peers can be asked meanwhile, one after the other.
pub const BULK_WAIT_MAX: Duration = Duration::from_secs(10);
/// Time without a message of the sync under way after which it is over, and what it brought so far is forgotten.
pub const SYNC_IDLE_MAX: Duration = Duration::from_secs(60);
/// Shortest time between two answers of the organiser that no ticket pays for (confirmations during a sync).
pub const PROGRESS_MIN: Duration = Duration::from_millis(200);
/// Bytes that the writer gathers from its queue into one write.
pub const WRITE_BYTES_MAX: usize = 4 << 20;
/// Free space under which nothing is written (DESIGN §7): RocksDB needs room to compact, and so does the machine's owner to act.
pub const FREE_SPACE_MIN: u64 = 64 << 20;
/// How long the writer rests on a full disk before it looks again.
pub const DISK_FULL_LOOK: Duration = Duration::from_secs(1);
/// Least time between two looks at the store's own figures, at a write: what does not change needs no look.
pub const MEASURE_EVERY: Duration = Duration::from_secs(5);
/// Shares asked of one peer and not yet come (SHARECHAIN §9).
pub const FETCH_PEER_MAX: usize = 16;
/// Shares that are missing and known to be: as many as may wait for them.
pub const FETCH_MISSING_MAX: usize = PENDING_MAX;
/// Peers that are asked for one share beside those that say they have it: with three of ten hostile one honest is among them but for
/// six cases in a million, and an invented id costs no more than that many questions.
pub const FETCH_TRIES_MAX: u32 = 10;
/// Time after which a share is asked of another peer; doubled with each.
pub const FETCH_DEADLINE: Duration = Duration::from_secs(2);
/// Longest time that a peer is given for a share.
pub const FETCH_DEADLINE_MAX: Duration = Duration::from_secs(30);
/// Time after which a share that nobody is left to be asked for is forgotten. A peer that names it again begins it anew.
pub const FETCH_FORGET: Duration = Duration::from_secs(60);
/// Shortest time between two retries that the fetcher speaks of unasked.
pub const FETCH_RETRY_MIN: Duration = Duration::from_millis(250);

// Channels and the mailbox (DESIGN §5, Tickets)

/// Most answers that one ticket makes. A submit that finds a block makes three: `BlockFound` by emission, `Organised` by the organiser,
/// `Stored` by the writer. Nothing makes more; shares of a sync are told of when their whole message is done.
pub const ANSWERS_PER_TICKET_MAX: usize = 3;
/// Messages to one emission worker: each holds a submit's ticket or more.
pub const EMISSION_SLOTS: usize = TICKETS_STRATUM;
/// Messages to the organiser: each holds a ticket of a submit or of a peer's or a Bitcoin node's frame, but for those that no ticket pays
/// for.
pub const ORGANISE_SLOTS: usize = TICKETS_STRATUM + TICKETS_PEER + TICKETS_BITCOIN + ORGANISE_FREE_SLOTS;
/// Messages to the organiser without a ticket: who left, and what Bitcoin's side says. [`crate::crew::Crew`] holds them back while the
/// channel holds as many messages of any kind; the organiser empties it at every step, so that seldom happens, and a header is there before
/// the first share that builds on it.
pub const ORGANISE_FREE_SLOTS: usize = 64;
/// Messages to the writer: one a step of the organiser, each with a ticket, but for one of rows that no ticket pays for (progress of the
/// confirmed chain, shares that waited for the clock): such rows are held back while the channel is not empty.
pub const WRITE_SLOTS: usize = TICKETS_STRATUM + TICKETS_PEER + TICKETS_BITCOIN + 1 + TEMPLATE_SLOTS + ROW_SLOTS;
/// Messages to the writer with rows of an own template: the node holds one credit.
pub const TEMPLATE_SLOTS: usize = 1;
/// Messages to the writer with rows of found blocks, of peers, and of figures: the node holds one credit for each of the three.
pub const ROW_SLOTS: usize = 3;
/// Messages to the fetcher: the node holds one credit.
pub const FETCH_SLOTS: usize = 1;
/// Messages to the stage `upstream`: each holds a ticket of an HTTP request, says how miners stand (the node holds one credit), or brings
/// what came of an order.
pub const UPSTREAM_SLOTS: usize = TICKETS_HTTP + MINED_SLOTS + ORDERS_MAX;
/// Messages that say how miners stand: the node holds one credit.
pub const MINED_SLOTS: usize = 1;
/// Orders that the stage `upstream` may have out of which nothing has come back.
pub const ORDERS_MAX: usize = 64;
/// Those of them for one service: what its channel holds.
pub const ORDERS_PER_SERVICE_MAX: usize = 16;
/// Messages to the reader: each holds a ticket of a peer's frame or of an HTTP request.
pub const READ_SLOTS: usize = TICKETS_PEER + TICKETS_HTTP;
/// Found blocks that wait for one bitcoind.
pub const SUBMIT_SLOTS: usize = 16;
/// Longest turn of the reactor: then the watchdog ends the process (DESIGN §5). So a source that speaks unasked, and no more often than
/// once in so many milliseconds, has no more messages in the mailbox than fit into this time.
pub const TURN_MAX: Duration = Duration::from_secs(10);
/// Shortest time between two messages of a thread that watches Bitcoin, or between two pairs of headers and the template on them.
pub const TEMPLATE_MIN: Duration = Duration::from_millis(20);
/// How often a dying thread tries to tell of it, half a second apart.
pub const REPORT_TRIES: usize = 4;
/// bitcoinds at most (DESIGN §5).
pub const BITCOINDS_MAX: usize = 4;
/// Messages that no ticket pays for: progress of the organiser, retries of the fetcher, headers and templates, the full disk, the fates of
/// found blocks (no more are found, or brought by peers, than there are tickets, by those that wait for a bitcoind already), the writes of
/// the deepest reorg, deaths of threads and a signal.
pub const UNASKED_SLOTS: usize = in_a_turn(PROGRESS_MIN)
    + in_a_turn(FETCH_RETRY_MIN)
    + 2 * in_a_turn(TEMPLATE_MIN)
    + in_a_turn(DISK_FULL_LOOK)
    + BITCOINDS_MAX * (TICKETS_STRATUM + TICKETS_PEER + SUBMIT_SLOTS)
    + SCRATCH_BYTES_MAX / WRITE_BYTES_MAX
    + EMISSION_MAX
    + 16;
/// Messages that the mailbox must hold. The root builds the reactor with it.
pub const MAILBOX_SLOTS: usize =
    ANSWERS_PER_TICKET_MAX * TICKETS_ALL + FETCH_SLOTS + TEMPLATE_SLOTS + ROW_SLOTS + MINED_SLOTS + UNASKED_SLOTS;

const fn in_a_turn(every: Duration) -> usize {
    (TURN_MAX.as_millis() / every.as_millis()) as usize + 1
}

// What must hold between them.
const _: () = {
    assert!(EMISSION_SLOTS >= TICKETS_STRATUM, "a submit's ticket must find room at its emission worker");
    assert!(
        WRITE_SLOTS > TICKETS_STRATUM + TICKETS_PEER + TICKETS_BITCOIN + TEMPLATE_SLOTS + ROW_SLOTS,
        "each ticketed batch must find room at the writer"
    );
    assert!(
        ORGANISE_SLOTS >= TICKETS_STRATUM + TICKETS_PEER + TICKETS_BITCOIN + ORGANISE_FREE_SLOTS && ORGANISE_FREE_SLOTS > 0,
        "all shares, and what no ticket pays for, must find room at the organiser"
    );
    assert!(READ_SLOTS >= TICKETS_PEER + TICKETS_HTTP, "each cold read must find room at the reader");
    assert!(UPSTREAM_SLOTS >= TICKETS_HTTP + MINED_SLOTS + ORDERS_MAX, "requests, miners and all that is brought must find room upstream");
    assert!(ORDERS_PER_SERVICE_MAX <= ORDERS_MAX && WAITING_MAX > IN_FLIGHT_MAX, "an order must find room at its service");
    assert!(CIRCUIT_MIN.as_secs() <= CIRCUIT_MAX.as_secs() && RETRY_AFTER_MAX.as_secs() <= CIRCUIT_MAX.as_secs());
    assert!(BITCOIND_CALLERS < BITCOIND_IN_FLIGHT, "templates must find room at bitcoind beside portfolios");
    assert!(MAILBOX_SLOTS > ANSWERS_PER_TICKET_MAX * TICKETS_ALL, "all answers must find room in the mailbox");
    assert!(FETCH_PEER_MAX <= rockpool_net::limits::GETDATA_MAX, "one getdata must hold all that a peer is asked for");
    assert!(BRANCHES_MAX * BRANCH_WALK_MAX <= HEADERS_MAX, "the branches told of at once are one message");
    assert!(PENDING_PEER_MAX <= PENDING_MAX && FETCH_DEADLINE.as_secs() < FETCH_DEADLINE_MAX.as_secs());
};

// Bitcoin's side

/// Time for one call of bitcoind: a Pi needs over 10 s for a template.
pub const RPC_DEADLINE: Duration = Duration::from_secs(60);
/// Time for a small call, where another bitcoind can take over from one that hangs: twice what a Pi needs for a template or a block, during
/// which it answers nobody.
pub const RPC_SPARE_DEADLINE: Duration = Duration::from_secs(20);
/// Time for a connection to bitcoind to stand. With [`RETRY_MAX`] less than the five seconds in which there is work after its return.
pub const RPC_CONNECT: Duration = Duration::from_secs(2);
/// Time for the check at start: a bitcoind that takes longer is waited for by its own thread.
pub const RPC_CHECK_DEADLINE: Duration = Duration::from_secs(5);
/// Time for a long poll, which bitcoind answers when there is a new block, or about a minute after its mempool changed: a thread whose
/// connection died unseen ends some day.
pub const LONGPOLL_DEADLINE: Duration = Duration::from_secs(86_400);
/// How often a small call looks for a new block while a long poll waits: what the long poll brings of one comes seconds later on a small
/// machine, since bitcoind gathers transactions first. A call that waits for the next block would hold one of bitcoind's few threads.
pub const BLOCK_LOOK: Duration = Duration::from_millis(250);
/// How long the long poll is waited for once miners have their first work on a new block: a Pi needs over 10 s for a template.
pub const FULL_TEMPLATE_WAIT: Duration = Duration::from_secs(20);
/// How long a long poll may bring nothing of a new block that there is no first work for, before a plain call asks: the poll's
/// connection may have died unseen.
pub const LONGPOLL_LOOK: Duration = Duration::from_secs(3);
/// Least time between two looks because somebody says that there may be a new block: whoever says so all the time has bitcoind asked for
/// little, and two blocks in a row are heard of soon enough.
pub const BLOCKNOTIFY_MIN: Duration = Duration::from_millis(250);
/// Time that a bitcoind which has lost its newest blocks is given to catch up, while miners go on with the work that they have: it asks its
/// peers for a few blocks, and on a Pi each takes ten seconds.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(60);
/// After so long without a new template one is asked for plainly: header times go on, and on a test network the target changes with them.
pub const TEMPLATE_AGE_MAX: Duration = Duration::from_secs(90);
/// First pause after a failed call; doubled with each.
pub const RETRY_MIN: Duration = Duration::from_millis(500);
/// Longest pause after a failed call.
pub const RETRY_MAX: Duration = Duration::from_secs(2);
/// Time during which a found block is tried again. Others find the next one in ten minutes only on average: a block whose bitcoind is away
/// for twenty is still the first of its height one time in seven, after an hour one time in four hundred.
pub const SUBMIT_TIME_MAX: Duration = Duration::from_secs(3_600);
/// Weight of a block, Bitcoin's rule: what trimming keeps every template under (SHARECHAIN §8).
pub const BLOCK_WEIGHT_MAX: u64 = 4_000_000;
/// Bytes of a template's answer: a full block is 8 MB in hex, its transactions' names and fees three more.
pub const TEMPLATE_BYTES_MAX: u64 = 32 << 20;
/// Bytes of any other answer.
pub const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a refusal that are kept and shown.
pub const REASON_BYTES_MAX: usize = 200;
/// Bytes of a cookie file.
pub const COOKIE_BYTES_MAX: u64 = 1 << 10;
/// How long an ordered stop waits for found blocks that are on their way.
pub const STOP_SUBMIT_MAX: Duration = Duration::from_millis(500);
/// Bitcoin headers in one message: as many as Bitcoin's own nodes send at once.
pub const HEADERS_MAX: usize = 2_000;
/// Heights below bitcoind's tip down to which is remembered what the node was told of, and down to which branches are told of: a week.
pub const HEADERS_TOLD: u32 = 1_008;
/// Blocks of a branch that are asked for one by one: longer ones are asked for by height, if the chain is on them, or left alone.
pub const BRANCH_WALK_MAX: usize = 100;
/// Branches off bitcoind's chain told of at once; the others after the next block.
pub const BRANCHES_MAX: usize = 16;
/// Ends of branches that are told of at once, of each kind the newest: more than there are in a week but on testnet4.
pub const TIPS_MAX: usize = 64;
/// Time that bitcoind is given for a block that a share builds on, before the share is no longer mined upon; none where the block's bits
/// are the easiest, since such headers cost nothing (SHARECHAIN §3).
pub const LACKED_MAX: Duration = Duration::from_secs(120);
/// Blocks of which is remembered since when they are lacked: each took the work of a Bitcoin block.
pub const LACKED_KEPT: usize = 64;
/// Time after which a share that builds on a Bitcoin block of less work than we know of is late (SHARECHAIN §3).
pub const LATE_AFTER: Duration = Duration::from_secs(20);
/// Heights by which late shares must lead before they are mined upon (SHARECHAIN §3).
pub const LATE_LEAD: u32 = 2;
/// Shares of layout front, the newest that came by themselves, whose senders are remembered: to be dropped if a coinbase does not match.
/// Ten minutes of shares; but while a sync is under way nearly all are judged within the step in which they come.
pub const FRONT_KEPT: usize = 64;
/// Late shares that are remembered, the highest: as many as are kept beside the best chain.
pub const LATE_KEPT: usize = rockpool_store::limits::SIDE_MAX;
/// Newest Bitcoin blocks of which is remembered when they became known: a share on one further behind is late by the oldest of them.
pub const KNOWN_KEPT: usize = 16;
/// How often the embedded chain offers a template with a fresh time.
pub const EMBEDDED_REFRESH: Duration = Duration::from_secs(20);
/// Headers that the embedded chain remembers, those of lost branches among them: of half an hour in which a flood finds four a second.
pub const EMBEDDED_HEADERS_KEPT: usize = 8_192;
/// Blocks that the embedded chain remembers: more than any branch is deep, and the eleven that its median time asks for.
pub const EMBEDDED_KEPT: usize = 288;

// Services outside

/// Calls of one service under way at once, whatever is configured: each has a thread.
pub const IN_FLIGHT_MAX: usize = 16;
/// Calls that wait for one service's bulkhead: more than the node has threads that call.
pub const WAITING_MAX: usize = 128;
/// How long a call waits for its start: the last of [`ORDERS_PER_SERVICE_MAX`] orders at CoinGecko's two seconds between two.
pub const ACQUIRE_MAX: Duration = Duration::from_secs(40);
/// Tries of a call that may be tried again.
pub const CALL_TRIES: u32 = 3;
/// Time from a call's coming to its end, all tries and pauses included; a call whose own deadline is longer has that, and one try.
pub const CALL_TIME_MAX: Duration = Duration::from_secs(120);
/// Longest pause before the second try; doubled with each, and each drawn from nothing up to it.
pub const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause before any try.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(20);
/// Longest wish of a service that a call waits for (`Retry-After`); who wishes for more is told of as down.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Failures in a row after which an endpoint is left alone.
pub const CIRCUIT_FAILURES: u32 = 5;
/// For how long at first; doubled with each probe that fails.
pub const CIRCUIT_MIN: Duration = Duration::from_secs(30);
/// Longest time for which an endpoint is left alone, whatever it wishes: one that is back is found so soon.
pub const CIRCUIT_MAX: Duration = Duration::from_secs(300);
/// What is told of the time left while a probe is under way.
pub const CIRCUIT_PROBE_LOOK: Duration = Duration::from_secs(1);
/// Calls of one bitcoind under way at once, found blocks and the long poll apart.
pub const BITCOIND_IN_FLIGHT: usize = 4;
/// Calls of bitcoind for portfolios at once. Some take minutes and hold one of bitcoind's threads, of which an older one has four: beside
/// them are the long poll, the watch for new blocks, and one that must be free for a found block.
pub const BITCOIND_CALLERS: usize = 1;
/// Bytes of a refusal of a service outside that are read: secrets are taken out before it is cut to [`REASON_BYTES_MAX`].
pub const SAID_BYTES_MAX: u64 = 4 << 10;
/// Bytes of the shortest piece of an address, or of a header line, that may be a secret: OKX takes no shorter passphrase.
pub const SECRET_BYTES_MIN: usize = 8;
/// Time for a connection to a service outside to stand, TLS included.
pub const OUTSIDE_CONNECT: Duration = Duration::from_secs(10);
