//! Limits of the store, each with unit and reason. What a network may set for itself stands in [`crate::params`].

/// Newest ancestors whose median time a share must exceed. As Bitcoin's.
pub const MEDIAN_SPAN: usize = 11;
/// Binary order of how much harder than allowed a share's target may be by choice: 2⁴ = 16 times.
pub const HARDER_MAX_LOG2: usize = 4;
/// Newest ancestors that the rules may ask of a share: as deep as uncles lie, and some for the branches that they stand on.
pub const REACH: usize = 32;
/// Heights that an uncle may lie below its nephew: a selfish miner who hides longer branches makes others lose all of theirs.
pub const UNCLE_DEPTH: u32 = 24;
/// Heights below the confirmed tip down to which the uncles that the chain credits are at hand: the next share's uncles may be so deep, and
/// what these credit in turn, with the branches that it stands on, as deep below them as rules may ask.
pub const CREDITED_DEPTH: u32 = UNCLE_DEPTH + REACH as u32;
/// Seconds that a Bitcoin header's time may be ahead of its share's time. Bitcoin allows as much ahead of now.
pub const HEADER_AHEAD_MAX_S: u32 = 7_200;
/// The window's work in multiples of the work of a Bitcoin block.
pub const WINDOW_BLOCKS: u128 = 3;
/// Parts of a share's work that its weight is counted in: an uncle leaves one of them to its nephew.
pub const TENTHS: u128 = 10;
/// Bytes of a coinbase before X, by class, smallest first, in either layout: what devices hold, less the 48 bytes after it.
pub const PREFIX_BYTES: [usize; 4] = [704, 2_112, 6_336, 15_616];
/// Side shares further below our tip than this many times its demand are dropped: 30 of the hardest shares. Nothing so far behind can be
/// an uncle.
pub const SPAM_DEPTH: u128 = 30 << HARDER_MAX_LOG2;
/// Shares kept beside the best chain, lowest score out first.
pub const SIDE_MAX: usize = 2_000;
/// Bytes of memory for the shares of the one sync under way while its branch is no better than ours.
pub const SCRATCH_BYTES_MAX: usize = 200_000_000;
/// Heights below the confirmed tip in which shares beside the best chain are served and may be credited (SHARECHAIN, parameters: near tip):
/// as deep as the branch of an uncle may reach that the next share credits, or its end would be credited by nobody.
pub const BESIDE_DEPTH: u32 = REACH as u32 - 1;
/// Highest base share: centuries of heights, and as many more before a height would not fit its field.
pub const BASE_HEIGHT_MAX: u32 = 1 << 31;
/// Shares of a branch beside the best chain up to which coinbases are rebuilt before it overtakes: as many as work may go on beside a tip
/// that is not mined upon.
pub const PROVE_MAX: usize = 4 * REACH;
/// Uncles around a base share, and those credited near the confirmed tip, beyond which none around a base is taken: three a height of
/// either, where around a base is as far below it as above.
pub const AROUND_BASE_MAX: usize = 3 * (2 * UNCLE_DEPTH + CREDITED_DEPTH) as usize;
/// Newest confirmed shares whose payouts are at hand: an uncle's parent is no further below.
pub const PAYOUTS_RECENT: usize = REACH;
/// Heights by which the chain may exceed what is kept before the oldest are deleted, all at once: three hours' worth, during which a peer
/// that is about to begin at the oldest still finds it.
pub const KEPT_SLACK: u32 = 1_008;
/// Bitcoin blocks kept below the lowest one that a kept share builds on: a retarget looks one period back, uncles and stale blocks less.
pub const BITCOIN_BELOW: u32 = 2_016;
/// Invalid shares that are remembered, newest first; one that is forgotten would only be judged again.
pub const INVALID_MAX: usize = 10_000;
/// Bytes of keys and values in one batch of rows, so that a commit never holds up a miner's share for long.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Changes in one batch of rows.
pub const BATCH_OPS_MAX: usize = 256;
/// Bitcoin blocks between two settings of its difficulty.
pub const PERIOD_BLOCKS: u32 = 2_016;
/// Seconds that such a period is meant to take: two weeks.
pub const PERIOD_S: i64 = 1_209_600;
/// Seconds after its parent beyond which a block may be of minimum difficulty where the network knows that: 20 minutes.
pub const MIN_DIFFICULTY_AFTER_S: u64 = 1_200;
/// Seconds that BIP94 lets a period's first block be before the last of the one before.
pub const WARP_MAX_S: i64 = 600;
/// Bitcoin headers off the best chain that are kept, those of least work out first: a year has a handful on main, but they are free on
/// regtest and cheap on testnet4.
pub const SIDE_HEADERS_MAX: usize = 10_000;
/// Heights below the best Bitcoin header at which a fresh node's headers begin at the latest: four retarget periods. Shares are kept for
/// four weeks, and the oldest of them ask for the first block of the period that they are in.
pub const HEADERS_BELOW: u32 = 8_064;
/// Periods of Bitcoin headers below the best one that are always kept: shares of four weeks build on two, and one holds the first of them.
pub const PERIODS_KEPT: u32 = 2;
/// Rows of a group of own templates, the first of them whole: reading one list takes no more than these.
pub const TEMPLATE_GROUP_ROWS_MAX: u32 = 144;
/// Bytes of the rows of a group of own templates; one list of a block is half of it at most.
pub const TEMPLATE_GROUP_BYTES_MAX: usize = 1 << 20;
/// Groups of own templates that are kept: with those before, 2,016 lists and 14 MiB.
pub const TEMPLATE_GROUPS_MAX: usize = 14;
/// Seconds of mining that are one row a script in an own pool's window.
pub const PPLNS_PERIOD_S: u32 = 600;
/// Periods of an own pool's window at most: two weeks of mining, as on the share chain.
pub const PPLNS_PERIODS_MAX: usize = 2_016;
/// Periods of it at least, however much work is done in them: six hours, as on the share chain.
pub const PPLNS_PERIODS_MIN: usize = 36;
/// Rows of it: 65 scripts over two weeks, 12 MiB of memory. With more scripts the window is shorter.
pub const PPLNS_ROWS_MAX: usize = 1 << 17;
/// Scripts of it: beyond, those that did least are forgotten. More than a node has miners, and few enough that the reactor finds in
/// milliseconds who of them is paid.
pub const PPLNS_SCRIPTS_MAX: usize = 1 << 14;
/// What `check` finds wrong and tells one by one; the rest it counts.
pub const FAULTS_LISTED: usize = 20;
/// Found blocks that are remembered with what became of them, of our miners' and of peers' as many each: years of them for a pool, eight
/// minutes on regtest.
pub const BLOCKS_KEPT: usize = 500;
/// Found blocks that are kept themselves while no bitcoind has taken them, of our miners' and of peers' as many each: more are not on
/// their way at once but on regtest.
pub const BLOCK_BODIES_KEPT: usize = 4;
/// Bytes of a block: as many as its weight allows.
pub const BLOCK_BYTES_MAX: usize = 4_000_000;
/// Bytes of a block in one row: two of them are a batch.
pub const BLOCK_PART_BYTES: usize = 500_000;
/// bitcoinds whose word of a block is kept: four by RPC, eight over Bitcoin's own protocol.
pub const BLOCK_FATES_MAX: usize = 12;
/// Bytes of a name or a reason in a block's record.
pub const BLOCK_TEXT_BYTES: usize = 200;
/// Confirmations, of a block or of the one in its place, from which on its end is certain: its coinbase can be spent then.
pub const BLOCK_FINAL: u32 = 100;
/// Addresses of peers that are kept: as many as the book has places.
pub const PEER_ADDRS_MAX: usize = 5_120;
/// Outbound peers that are dialled first at a start, so that who floods the book gains nothing by having a node restart.
pub const ANCHORS_MAX: usize = 2;
/// Bans that are kept, so that nobody fills a disk by misbehaving.
pub const BANS_MAX: usize = 1_000;
/// Bytes of a ban's reason.
pub const BAN_TEXT_BYTES: usize = 200;
/// Confirmations of a found block, or of another in its place, from which on it is not handed in again.
pub const BLOCK_STALE: u32 = 6;
/// Workers whose figures are kept, in memory and on disk: beyond, those that did least and are long gone are forgotten. A home has a
/// handful, a farm a few thousand; 2 MiB of memory.
pub const WORKERS_KEPT: usize = 4_096;
/// Bytes of a worker's name; of a longer one the beginning counts.
pub const WORKER_NAME_BYTES: usize = 64;
/// Charts over time: an hour, a day, a week, a month.
pub const CHART_SPANS: usize = 4;
/// Points of a chart in one row: few enough that the row under way costs little to write again.
pub const CHART_POINTS_ROW: usize = 60;
/// Rows of all charts: 360 points of each, and one row more at either end.
pub const CHART_ROWS_MAX: usize = CHART_SPANS * (360 / CHART_POINTS_ROW + 2);
/// Places after the point of an amount: as many as digits of an amount can have.
pub const AMOUNT_DECIMALS_MAX: u8 = 38;
/// Users whose portfolios are kept: beyond, the oldest without an account makes room.
pub const USERS_MAX: usize = 4_096;
/// Portfolios of a user.
pub const PORTFOLIOS_MAX: usize = 8;
/// Accounts of a user, in all his portfolios.
pub const ACCOUNTS_MAX: usize = 32;
/// Accounts of all users: 16 MiB of memory at worst, and as many as can be asked about within an hour.
pub const ACCOUNTS_ALL_MAX: usize = 16_384;
/// Holdings of an account: wallets with more hold what others threw at them.
pub const HOLDINGS_MAX: usize = 256;
/// Holdings of a user, in all his accounts: as many fit one answer over HTTP, whatever their names.
pub const HOLDINGS_USER_MAX: usize = 700;
/// Holdings of all accounts: 24 MiB of memory at worst.
pub const HOLDINGS_ALL_MAX: usize = 65_536;
/// Coins whose prices are kept: of those that are held, and no more.
pub const PRICES_MAX: usize = 10_000;
/// Currencies of a price or a value.
pub const CURRENCIES_MAX: usize = 8;
/// Top coins of a day.
pub const COINS_MAX: usize = 100;
/// Contracts of them: as many on each of ten chains.
pub const CONTRACTS_MAX: usize = 1_000;
/// Chains of one account.
pub const EVM_CHAINS_MAX: usize = 16;
/// Assets of a snapshot, those worth most: what a user can have written each day stays small.
pub const SNAPSHOT_ASSETS_MAX: usize = 32;
/// Days for which snapshots are kept: ten years.
pub const SNAPSHOT_DAYS_MAX: u32 = 3_650;
/// Confirmed found blocks whose outputs are kept: as many as are remembered, of our miners' and of peers'.
pub const PAID_MAX: usize = 2 * BLOCKS_KEPT;
/// Outputs of one of them that are kept, more than any class of coinbase has room for.
pub const PAID_OUTPUTS_MAX: usize = 512;
/// Bytes of a text in a portfolio's row: 64 characters of four bytes.
pub const PORTFOLIO_TEXT_BYTES: usize = 256;
/// Bytes of an exchange's keys, encrypted.
pub const SEALED_BYTES_MAX: usize = 1_024;
/// Changes of portfolios' rows that are written at once.
pub const ROWS_PER_BATCH: usize = 100;
