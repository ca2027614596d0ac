//! The table itself.

use rockpool_net::frame::http::Method;

use super::{Access, EVENTS, HTML, JSON, Kind, Param, Place, Route, Row, TEXT};
use crate::http::error::Code;
use crate::http::payouts::SATS_MAX;
use crate::limits::{
    ADDRESS_BYTES_MAX, CURRENCY_BYTES_MAX, HISTORY_DAYS_MAX, PEERS_LISTED_MAX, SHARES_LISTED, SHARES_LISTED_MAX, USER_BYTES_MAX,
};

const fn query(name: &'static str, kind: Kind, unit: &'static str, help: &'static str) -> Param {
    Param { name, place: Place::Query, kind, unit, help }
}

const fn in_path(name: &'static str, kind: Kind, help: &'static str) -> Param {
    Param { name, place: Place::Path, kind, unit: "", help }
}

/// `count`, of every list.
pub const fn count(default: u64) -> Param {
    let kind = Kind::Number { min: 0, max: PEERS_LISTED_MAX as u64, default: Some(default) };
    query("count", kind, "rows", "How many are listed.")
}

/// `from`, of a list that goes down from a height.
pub const FROM: Param = query(
    "from",
    Kind::Number { min: 0, max: u32::MAX as u64, default: None },
    "height",
    "The highest share that is listed; the newest if it is not given.",
);

/// `offset`, of any other list.
pub const OFFSET: Param =
    query("offset", Kind::Number { min: 0, max: u32::MAX as u64, default: Some(0) }, "rows", "How many are left out at the front.");

const PAGE: &[Param] = &[OFFSET, count(PEERS_LISTED_MAX as u64)];
// One bound for all lists.
const _: () = assert!(SHARES_LISTED_MAX as usize == PEERS_LISTED_MAX);

/// What most routes have in common: anybody may read JSON.
const READ: Row = Row {
    route: Route::Status,
    method: Method::Get,
    path: "",
    access: Access::Open,
    summary: "",
    params: &[],
    body: "",
    status: 200,
    kind: JSON,
    schema: "",
    errors: &[],
};

const CHANGE: Row = Row { method: Method::Post, access: Access::Token, ..READ };

/// A user's own.
const MINE: Row = Row { access: Access::User, ..READ };

const NEW: Row = Row { method: Method::Post, status: 201, ..MINE };

const GONE: Row = Row { method: Method::Delete, errors: &[Code::NotFound, Code::DiskFull], ..MINE };

/// Ids count up from 1.
const ID: Kind = Kind::Number { min: 1, max: u32::MAX as u64, default: None };

const PORTFOLIO: Param = in_path("portfolio", ID, "The portfolio's id.");

const CURRENCY: Param = query(
    "currency",
    Kind::Text { bytes: CURRENCY_BYTES_MAX },
    "",
    "The currency in which values are told, one of the operator's; the first of these if it is not given.",
);

/// All routes, in the order of the documentation.
pub static ROUTES: &[Row] = &[
    Row { route: Route::Page, path: "/", kind: HTML, summary: "The dashboard.", ..READ },
    Row { route: Route::Style, path: "/style.css", kind: "text/css; charset=utf-8", summary: "Its style.", ..READ },
    Row { route: Route::Script, path: "/script.js", kind: "text/javascript; charset=utf-8", summary: "Its script.", ..READ },
    Row {
        route: Route::PortfolioScript,
        path: "/portfolio.js",
        kind: "text/javascript; charset=utf-8",
        summary: "The script of its section on portfolios.",
        ..READ
    },
    Row {
        route: Route::Health,
        path: "/health",
        kind: TEXT,
        summary: "Whether miners are served: 200 and `ok`, or 503 and why not.",
        ..READ
    },
    Row { route: Route::Metrics, path: "/metrics", kind: TEXT, summary: "Figures in Prometheus' text format.", ..READ },
    Row { route: Route::OpenApi, path: "/api/v1/openapi.json", summary: "This API's description, OpenAPI 3.1.", ..READ },
    Row { route: Route::Status, path: "/api/v1/status", schema: "Status", summary: "The node at this moment.", ..READ },
    Row {
        route: Route::Events,
        path: "/api/v1/events",
        kind: EVENTS,
        summary: "What happens, as server-sent events: begins with `status`, and with what came after the `Last-Event-ID`, if it is still \
                  known.",
        errors: &[Code::Busy],
        ..READ
    },
    Row {
        route: Route::Chain,
        path: "/api/v1/chain",
        schema: "Chain",
        summary: "The confirmed chain, the newest first, with the uncles that it credits and what stands beside it.",
        params: &[FROM, count(SHARES_LISTED as u64)],
        ..READ
    },
    Row {
        route: Route::Headers,
        path: "/api/v1/headers",
        schema: "[Header]",
        summary: "Headers of shares of the confirmed chain, the newest first, for scripts.",
        params: &[FROM, count(SHARES_LISTED as u64)],
        ..READ
    },
    Row {
        route: Route::Shares,
        path: "/api/v1/shares",
        schema: "Shares",
        summary: "Shares of the confirmed chain, the newest first.",
        params: &[FROM, count(SHARES_LISTED as u64)],
        ..READ
    },
    Row {
        route: Route::Share,
        path: "/api/v1/share/{id}",
        schema: "Share",
        summary: "One share.",
        params: &[in_path("id", Kind::Id, "The share's id.")],
        errors: &[Code::NotFound],
        ..READ
    },
    Row {
        route: Route::Payouts,
        path: "/api/v1/payouts",
        schema: "Payouts",
        summary: "Whom a block pays that is found now, or was found on a parent of a moment ago.",
        params: &[
            query(
                "value",
                Kind::Number { min: 0, max: SATS_MAX, default: None },
                "satoshis",
                "What the block is worth; today's subsidy if it is not given.",
            ),
            query(
                "class",
                Kind::Choice { of: &["N12", "N46", "N144", "N360"], default: "N12" },
                "",
                "Class of the coinbase: how many payees it has room for.",
            ),
            query("parent", Kind::Id, "", "The share that is built on; that of the work that miners have if it is not given."),
            query("address", Kind::Text { bytes: USER_BYTES_MAX }, "", "Tells as `you` what this address has of it."),
        ],
        errors: &[Code::NotFound],
        ..READ
    },
    Row {
        route: Route::Miners,
        path: "/api/v1/miners",
        schema: "Miners",
        summary: "Own miners by address: hash rates in hashes per second, submits, best difficulties.",
        params: &[
            OFFSET,
            count(PEERS_LISTED_MAX as u64),
            query(
                "sort",
                Kind::Choice { of: &["rate", "best", "name"], default: "rate" },
                "",
                "By the rate over 15 minutes, by the best difficulty ever, or by the script that the address stands for.",
            ),
        ],
        ..READ
    },
    Row {
        route: Route::Miner,
        path: "/api/v1/miners/{address}",
        schema: "Miner",
        summary: "One address and its workers.",
        params: &[in_path("address", Kind::Text { bytes: ADDRESS_BYTES_MAX }, "The address."), OFFSET, count(PEERS_LISTED_MAX as u64)],
        errors: &[Code::NotFound],
        ..READ
    },
    Row {
        route: Route::Sessions,
        path: "/api/v1/sessions",
        access: Access::Token,
        schema: "Sessions",
        summary: "Connections of miners, with their network addresses.",
        params: PAGE,
        ..READ
    },
    Row {
        route: Route::Pool,
        path: "/api/v1/pool",
        schema: "Pool",
        summary: "The whole pool: rates, luck, and what a miner may expect. What is not known is null.",
        ..READ
    },
    Row {
        route: Route::History,
        path: "/api/v1/history",
        schema: "History",
        summary: "Points of a chart: time, own rate, pool's rate, miners, submits accepted, submits rejected.",
        params: &[query("span", Kind::Choice { of: &["1h", "1d", "7d", "30d"], default: "1d" }, "", "How far back.")],
        ..READ
    },
    Row {
        route: Route::Blocks,
        path: "/api/v1/blocks",
        schema: "Blocks",
        summary: "Found blocks and their fate, the newest first.",
        params: &[OFFSET, count(SHARES_LISTED as u64)],
        ..READ
    },
    Row {
        route: Route::Peers,
        path: "/api/v1/peers",
        schema: "Peers",
        summary: "Peers that are connected, and those that have left lately and why.",
        params: PAGE,
        ..READ
    },
    Row {
        route: Route::AddPeer,
        path: "/api/v1/peers",
        body: "NewPeer",
        schema: "PeerAdded",
        summary: "Names one more peer to dial until the node stops.",
        errors: &[Code::Conflict],
        ..CHANGE
    },
    Row {
        route: Route::Bans,
        path: "/api/v1/bans",
        schema: "Bans",
        summary: "Addresses and networks that are banned.",
        params: PAGE,
        ..READ
    },
    Row {
        route: Route::AddBan,
        path: "/api/v1/bans",
        body: "NewBan",
        schema: "BanAdded",
        summary: "Bans an address or a network, and closes its connections.",
        errors: &[Code::Conflict],
        ..CHANGE
    },
    Row {
        route: Route::LiftBan,
        method: Method::Delete,
        path: "/api/v1/bans/{of}",
        schema: "BanLifted",
        summary: "Lifts a ban.",
        params: &[in_path("of", Kind::Text { bytes: 64 }, "The address or network, as it is listed.")],
        errors: &[Code::NotFound],
        ..CHANGE
    },
    Row {
        route: Route::Blocknotify,
        path: "/api/v1/blocknotify",
        access: Access::Loopback,
        schema: "Heard",
        summary: "bitcoind's option -blocknotify: there is a new block.",
        params: &[query("hash", Kind::Text { bytes: 64 }, "", "What bitcoind calls the block; it is asked for it all the same.")],
        ..CHANGE
    },
    Row { route: Route::Turns, path: "/api/v1/turns", schema: "Turns", summary: "The reactor's slowest turns.", ..READ },
    Row {
        route: Route::Portfolios,
        path: "/api/v1/portfolios",
        schema: "Portfolios",
        summary: "Your portfolios and what each is worth. Who asks for the first time gets one, `main`.",
        params: &[CURRENCY],
        ..MINE
    },
    Row {
        route: Route::AddPortfolio,
        path: "/api/v1/portfolios",
        body: "NewPortfolio",
        schema: "PortfolioAdded",
        summary: "One more portfolio of yours.",
        errors: &[Code::Conflict, Code::DiskFull],
        ..NEW
    },
    Row {
        route: Route::Portfolio,
        path: "/api/v1/portfolios/{portfolio}",
        schema: "Portfolio",
        summary: "A portfolio of yours: what it is worth, its accounts, and which coin has how much of it.",
        params: &[PORTFOLIO, CURRENCY],
        errors: &[Code::NotFound],
        ..MINE
    },
    Row {
        route: Route::RemovePortfolio,
        path: "/api/v1/portfolios/{portfolio}",
        schema: "Removed",
        summary: "Removes a portfolio of yours with its accounts, holdings and history.",
        params: &[PORTFOLIO],
        ..GONE
    },
    Row {
        route: Route::Accounts,
        path: "/api/v1/portfolios/{portfolio}/accounts",
        schema: "Accounts",
        summary: "Its accounts: Bitcoin and EVM addresses, accounts at OKX, miners of this pool.",
        params: &[PORTFOLIO, CURRENCY],
        errors: &[Code::NotFound],
        ..MINE
    },
    Row {
        route: Route::AddAccount,
        path: "/api/v1/portfolios/{portfolio}/accounts",
        body: "NewAccount",
        schema: "Account",
        summary: "One more account. A secret that comes with it is sealed before it is stored and never told again.",
        params: &[PORTFOLIO, CURRENCY],
        errors: &[Code::NotFound, Code::Conflict, Code::DiskFull],
        ..NEW
    },
    Row {
        route: Route::RemoveAccount,
        path: "/api/v1/portfolios/{portfolio}/accounts/{account}",
        schema: "Removed",
        summary: "Removes an account with its holdings.",
        params: &[PORTFOLIO, in_path("account", ID, "The account's id.")],
        ..GONE
    },
    Row {
        route: Route::Holdings,
        path: "/api/v1/portfolios/{portfolio}/holdings",
        schema: "Holdings",
        summary: "What is held in its accounts, and what it is worth as far as its price is known.",
        params: &[PORTFOLIO, CURRENCY],
        errors: &[Code::NotFound],
        ..MINE
    },
    Row {
        route: Route::Worth,
        path: "/api/v1/portfolios/{portfolio}/history",
        schema: "Worth",
        summary: "What it was worth at midnight (UTC) of each day that this node saw, oldest first.",
        params: &[
            PORTFOLIO,
            CURRENCY,
            query("days", Kind::Number { min: 1, max: HISTORY_DAYS_MAX, default: Some(365) }, "days", "How far back."),
        ],
        errors: &[Code::NotFound],
        ..MINE
    },
    Row {
        route: Route::Coins,
        path: "/api/v1/coins",
        schema: "Coins",
        summary: "The coins of the largest market value, as of the day that they were asked for last.",
        params: &[CURRENCY],
        ..MINE
    },
    Row {
        route: Route::Services,
        path: "/api/v1/services",
        access: Access::Token,
        schema: "Services",
        summary: "Services outside that this node asks, how they may be asked, and what came of it.",
        errors: &[Code::NotFound],
        ..READ
    },
];
