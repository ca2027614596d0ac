//! The fixed table of routes: what is asked with which parameters, who may, and what comes back. Answering 404 and 405, checking
//! parameters and describing the API (`/api/v1/openapi.json`) all follow from it.
//!
//! One more is a [`Route`], a row, an arm of `dispatch` in `src/http/mod.rs` and a schema in `src/http/schemas.txt`. Tests hold the row
//! against what it answers, and `docs/api.md` against the table (`WRITE_PAPERS=1 cargo test --test install` writes it anew).

use std::borrow::Cow;

use rockpool_net::frame::http::{Method, Request};
use serde::Deserialize;

use crate::http::error::Code;
use crate::http::payouts::SATS_MAX;
use crate::http::reply::Reply;
use crate::limits::{ADDRESS_BYTES_MAX, PEERS_LISTED_MAX, SHARES_LISTED, SHARES_LISTED_MAX, USER_BYTES_MAX};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The page, its style and its script.
    Page,
    /// Its style.
    Style,
    /// Its script.
    Script,
    /// Whether miners are served, for who watches over machines.
    Health,
    /// Figures for Prometheus.
    Metrics,
    /// This API's description.
    OpenApi,
    /// The node at this moment.
    Status,
    /// What happens, live.
    Events,
    /// The reactor's slowest turns.
    Turns,
    /// The chain with its uncles, from memory.
    Chain,
    /// Headers of shares.
    Headers,
    /// Shares of the confirmed chain.
    Shares,
    /// One share.
    Share,
    /// Whom the next block pays.
    Payouts,
    /// Own miners by address.
    Miners,
    /// One address and its workers.
    Miner,
    /// Connections of miners.
    Sessions,
    /// The whole pool.
    Pool,
    /// Points of charts.
    History,
    /// Found blocks.
    Blocks,
    /// Peers.
    Peers,
    /// One more peer to dial.
    AddPeer,
    /// Bans.
    Bans,
    /// One more ban.
    AddBan,
    /// A ban is lifted.
    LiftBan,
    /// bitcoind has a new block.
    Blocknotify,
}

/// Who is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Open,
    /// Who has a token.
    Token,
    /// Who is on this machine, and no page that its browser shows.
    Loopback,
}

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the path. The last one takes all that is left of it.
    Path,
    /// In the query.
    Query,
}

/// What a parameter may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A whole number within these bounds.
    Number {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
        /// If it is not given.
        default: Option<u64>,
    },
    /// A share's or a block's id, 64 hexadecimal digits.
    Id,
    /// One of these words.
    Choice {
        /// The words.
        of: &'static [&'static str],
        /// If it is not given; none if empty.
        default: &'static str,
    },
    /// Text of at most so many bytes.
    Text {
        /// The most.
        bytes: usize,
    },
}

/// A parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// Where it stands.
    pub place: Place,
    /// What it may be.
    pub kind: Kind,
    /// Of a number; else empty.
    pub unit: &'static str,
    /// What it means.
    pub help: &'static str,
}

/// A route.
#[derive(Debug)]
pub struct Row {
    /// What is asked for.
    pub route: Route,
    /// The method; HEAD is answered where GET is.
    pub method: Method,
    /// The path, its parameters in braces.
    pub path: &'static str,
    /// Who is answered.
    pub access: Access,
    /// One line on what it does.
    pub summary: &'static str,
    /// Its parameters.
    pub params: &'static [Param],
    /// The name of the schema of the body that it takes; none if empty.
    pub body: &'static str,
    /// The content type of the answer.
    pub kind: &'static str,
    /// The name of the schema of the answer, where it is JSON.
    pub schema: &'static str,
    /// What it is refused with, beside what every route may be: a parameter that is not as described, no access, no JSON.
    pub errors: &'static [Code],
}

/// JSON.
pub const JSON: &str = "application/json";
/// Plain text.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// Server-sent events.
pub const EVENTS: &str = "text/event-stream";
/// A page.
pub const HTML: &str = "text/html; charset=utf-8";

/// Most parameters of a route.
const PARAMS_MAX: usize = 4;
// A row with more would not be understood.
const _: () = {
    let mut at = 0;
    while at < ROUTES.len() {
        assert!(ROUTES[at].params.len() <= PARAMS_MAX);
        at += 1;
    }
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
    kind: JSON,
    schema: "",
    errors: &[],
};

const CHANGE: Row = Row { method: Method::Post, access: Access::Token, ..READ };

/// All routes, in the order of the documentation.
pub static ROUTES: &[Row] = &[
    Row { route: Route::Page, path: "/", kind: HTML, summary: "The dashboard.", ..READ },
    Row { route: Route::Style, path: "/style.css", kind: "text/css; charset=utf-8", summary: "Its style.", ..READ },
    Row { route: Route::Script, path: "/script.js", kind: "text/javascript; charset=utf-8", summary: "Its script.", ..READ },
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
];

/// A request whose route is known and whose parameters are as described.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The route.
    pub row: &'static Row,
    /// The request.
    pub request: &'a Request,
    /// What was given, in the table's order.
    given: [Option<Cow<'a, str>>; PARAMS_MAX],
}

impl<'a> Asked<'a> {
    /// The route of a request, and its parameters; else what it is refused with.
    pub fn find(request: &'a Request) -> Result<Asked<'a>, Reply> {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let method = if request.method == Method::Head { Method::Get } else { request.method };
        let rest = |row: &Row| fits(row.path, path);
        let Some((row, rest)) = ROUTES.iter().filter(|row| row.method == method).find_map(|row| Some((row, rest(row)?))) else {
            let methods: Vec<&str> = ROUTES.iter().filter(|row| rest(row).is_some()).flat_map(|row| names(row.method)).copied().collect();
            if methods.is_empty() {
                return Err(Reply::error(Code::NotFound, "there is nothing here; begin with / or /api/v1/status"));
            }
            return Err(Reply::not_allowed(&methods.join(", ")));
        };
        let mut asked = Asked { row, request, given: Default::default() };
        if let Some(at) = row.params.iter().position(|param| param.place == Place::Path) {
            asked.give(at, rest)?;
        }
        for (name, text) in query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
            let known = |param: &Param| param.place == Place::Query && param.name == name;
            let Some(at) = row.params.iter().position(known) else { return Err(unknown(row)) };
            if asked.given[at].is_some() {
                return Err(Reply::error(Code::BadParameter, &format!("{} is given twice", row.params[at].name)));
            }
            asked.give(at, text)?;
        }
        Ok(asked)
    }

    fn give(&mut self, at: usize, text: &'a str) -> Result<(), Reply> {
        let param = &self.row.params[at];
        let text = decode(text, param.place).filter(|text| param.kind.takes(text));
        let text = text.ok_or_else(|| Reply::error(Code::BadParameter, &param.describe()))?;
        self.given[at] = Some(text);
        Ok(())
    }

    /// A parameter as it was given.
    pub fn text(&self, name: &str) -> Option<&str> {
        let at = self.row.params.iter().position(|param| param.name == name)?;
        let default = match self.row.params[at].kind {
            Kind::Choice { default, .. } if !default.is_empty() => Some(default),
            _ => None,
        };
        self.given[at].as_deref().or(default)
    }

    /// A number, or the default of it.
    pub fn number(&self, name: &str) -> Option<u64> {
        let at = self.row.params.iter().position(|param| param.name == name)?;
        let Kind::Number { default, .. } = self.row.params[at].kind else { return None };
        self.given[at].as_deref().and_then(|text| text.parse().ok()).or(default)
    }

    /// The page of a list that is asked for: how many rows to leave out, and how many to tell.
    pub fn page(&self) -> (usize, usize) {
        let number = |name| self.number(name).unwrap_or(0) as usize;
        (number("offset"), number("count"))
    }

    /// The page of a list that goes down from a height: the highest, and how many.
    pub fn range(&self) -> (u32, usize) {
        (self.number("from").map_or(u32::MAX, |from| from as u32), self.number("count").unwrap_or(0) as usize)
    }

    /// The body, which must be JSON and is told to be it. `wanted` shows what it should be.
    pub fn body<T: for<'b> Deserialize<'b>>(&self, wanted: &str) -> Result<T, Reply> {
        let kind = self.request.content_type.as_deref().unwrap_or_default();
        if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(JSON)) {
            return Err(Reply::error(Code::UnsupportedMedia, "send JSON, with Content-Type: application/json"));
        }
        serde_json::from_slice(&self.request.body).map_err(|error| Reply::error(Code::BadBody, &format!("send {wanted}: {error}")))
    }
}

impl Kind {
    fn takes(&self, text: &str) -> bool {
        match self {
            // `parse` would take a sign.
            Kind::Number { min, max, .. } => !text.starts_with('+') && text.parse().is_ok_and(|of: u64| (*min..=*max).contains(&of)),
            Kind::Id => text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()),
            Kind::Choice { of, .. } => of.contains(&text),
            Kind::Text { bytes } => !text.is_empty() && text.len() <= *bytes && !text.contains(char::is_control),
        }
    }
}

impl Param {
    /// What it should be, for who gave something else.
    fn describe(&self) -> String {
        let name = self.name;
        match self.kind {
            Kind::Number { min, max, .. } => format!("{name} is a number from {min} to {max} ({})", self.unit),
            Kind::Id => format!("{name} is an id, 64 hexadecimal digits"),
            Kind::Choice { of, .. } => format!("{name} is one of {}", of.join(", ")),
            Kind::Text { bytes } => format!("{name} is text of at most {bytes} bytes"),
        }
    }
}

fn unknown(row: &Row) -> Reply {
    let names: Vec<&str> = row.params.iter().filter(|param| param.place == Place::Query).map(|param| param.name).collect();
    let known = if names.is_empty() { "no parameters are".to_owned() } else { format!("only {} is", names.join(", ")) };
    Reply::error(Code::BadParameter, &format!("{known} understood here"))
}

/// What a path has in the place of the pattern's last parameter; nothing if it has none. `None` if it is another path.
fn fits<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    match pattern.split_once('{') {
        None => (pattern == path).then_some(""),
        Some((front, _)) => path.strip_prefix(front).filter(|rest| !rest.is_empty()),
    }
}

fn names(method: Method) -> &'static [&'static str] {
    match method {
        Method::Get => &["GET", "HEAD"],
        Method::Post => &["POST"],
        Method::Delete => &["DELETE"],
        Method::Put => &["PUT"],
        Method::Head | Method::Options | Method::Other => &[],
    }
}

/// Text without its `%` signs; `None` if they are broken, or hide what is no text.
fn decode(text: &str, place: Place) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        let (byte, left) = match (first, after) {
            (b'%', [high, low, left @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                ((digit(*high)? * 16 + digit(*low)?) as u8, left)
            }
            (b'%', _) => return None,
            (b'+', _) if place == Place::Query => (b' ', after),
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = left;
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}
