//! The fixed table of routes: what is asked with which parameters, who may, and what comes back. Answering 404 and 405, checking
//! parameters and describing the API (`/api/v1/openapi.json`) all follow from it.
//!
//! One more is a [`Route`], a row (`src/http/routes/table.rs`), an arm of `dispatch` in `src/http/mod.rs` and a schema in
//! `src/http/schemas.txt`. Tests hold the row against what it answers, and `docs/api.md` against the table (`WRITE_PAPERS=1 cargo test
//! --test install` writes it anew).

mod table;

use std::borrow::Cow;

use rockpool_net::frame::http::{Method, Request};
use serde::Deserialize;

pub use self::table::ROUTES;
use crate::http::error::Code;
use crate::http::reply::Reply;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The page, its style and its script.
    Page,
    /// Its style.
    Style,
    /// Its script.
    Script,
    /// The script of its section on portfolios.
    PortfolioScript,
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
    /// A user's portfolios.
    Portfolios,
    /// One more of them.
    AddPortfolio,
    /// One of them.
    Portfolio,
    /// One goes, with all that is in it.
    RemovePortfolio,
    /// Accounts of one.
    Accounts,
    /// One more account.
    AddAccount,
    /// An account goes.
    RemoveAccount,
    /// What is held in all accounts of one.
    Holdings,
    /// What it was worth.
    Worth,
    /// The most valued coins.
    Coins,
    /// Services outside, and how they are asked.
    Services,
}

/// Who is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Open,
    /// Who has a token.
    Token,
    /// Who has a token of any scope, of this node or of whom its operator names (`--jwt-issuer`). The stage `upstream` looks at it.
    User,
    /// Who is on this machine, and no page that its browser shows.
    Loopback,
}

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the path, up to the next slash. What is at its end and no number takes all that is left.
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
    /// The status of success.
    pub status: u16,
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
        let Some((row, places)) = ROUTES.iter().filter(|row| row.method == method).find_map(|row| Some((row, fits(row, path)?))) else {
            let there = ROUTES.iter().filter(|row| fits(row, path).is_some());
            let methods: Vec<&str> = there.flat_map(|row| names(row.method)).copied().collect();
            if methods.is_empty() {
                return Err(Reply::error(Code::NotFound, "there is nothing here; begin with / or /api/v1/status"));
            }
            return Err(Reply::not_allowed(&methods.join(", ")));
        };
        let mut asked = Asked { row, request, given: Default::default() };
        for (at, text) in places.into_iter().enumerate().filter(|(at, _)| is_in_path(row, *at)) {
            asked.give(at, text)?;
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
            Kind::Number { min, max, .. } if self.unit.is_empty() => format!("{name} is a number from {min} to {max}"),
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

fn is_in_path(row: &Row, at: usize) -> bool {
    row.params.get(at).is_some_and(|param| param.place == Place::Path)
}

/// What a path has in the places of a row's parameters, which stand first in the row. `None` if it is another path.
fn fits<'a>(row: &Row, path: &'a str) -> Option<[&'a str; PARAMS_MAX]> {
    let (mut places, mut rest, mut pattern) = ([""; PARAMS_MAX], path, row.path);
    for (at, place) in places.iter_mut().enumerate().take_while(|(at, _)| is_in_path(row, *at)) {
        let (front, behind) = pattern.split_once('{')?;
        let (_, behind) = behind.split_once('}')?;
        rest = rest.strip_prefix(front)?;
        let takes_all = behind.is_empty() && !matches!(row.params[at].kind, Kind::Number { .. });
        let end = if takes_all { rest.len() } else { rest.find('/').unwrap_or(rest.len()) };
        (*place, rest) = rest.split_at(end);
        if place.is_empty() {
            return None;
        }
        pattern = behind;
    }
    (pattern == rest).then_some(places)
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
