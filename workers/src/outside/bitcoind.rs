//! bitcoind by JSON-RPC. Runs on threads that are not joined at the stop.

mod headers;
mod propose;
mod watch;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bitcoin::hex::DisplayHex;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use rockpool_net::reactor::Clock;
use rockpool_net::sha256::sha256d;
use rockpool_store::bitcoin::rules;
use rockpool_store::params::Network;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;

use crate::crew::Outsider;
use crate::jobs::{Answer, Fate, SubmitJob};
use crate::limits::{
    ANSWER_BYTES_MAX, BITCOIND_CALLERS, COOKIE_BYTES_MAX, RETRY_MAX, RETRY_MIN, RPC_CHECK_DEADLINE, RPC_CONNECT, RPC_DEADLINE,
    SUBMIT_SLOTS, SUBMIT_TIME_MAX,
};

use super::call::{CallError, Service};
use super::door::Door;
use super::gate::Limits;
use super::short;
pub(crate) use watch::watch;

/// Where a bitcoind is, and how it knows us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitcoindConfig {
    /// Host and port: its name in logs and answers. Never shows a password.
    pub host: String,
    /// The network that it must be of.
    pub network: Network,
    /// Whether it is asked to judge each template as a block before miners get it.
    pub proposals: bool,
    auth: Auth,
    /// Its bulkhead, which all copies share.
    pub(super) door: Arc<Door>,
}

#[derive(Clone, PartialEq, Eq)]
enum Auth {
    None,
    User(String),
    Cookie(PathBuf),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Auth::None => "none",
            Auth::User(_) => "user and password",
            Auth::Cookie(_) => "cookie file",
        })
    }
}

/// The user's mistake about a bitcoind: exit code 2 at start.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BitcoindMistake {
    /// The URL is none that we can use.
    #[error("--bitcoind {0:?} is not of the form http://user:password@host:port")]
    Url(String),
    /// It does not let us in.
    #[error("bitcoind at {host} refuses {auth}; {advice}")]
    Password {
        /// Which.
        host: String,
        /// What we offered.
        auth: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// The cookie file cannot be read although bitcoind is there.
    #[error("cannot read the cookie file {file} of bitcoind at {host}: {why}")]
    Cookie {
        /// Which bitcoind.
        host: String,
        /// Which file.
        file: String,
        /// What the system says.
        why: String,
    },
    /// It is of another network.
    #[error("bitcoind at {host} is on network {found}, this node on {wanted}; give another --bitcoind or --network")]
    Network {
        /// Which.
        host: String,
        /// Its network.
        found: String,
        /// Ours.
        wanted: Network,
    },
    /// Its chain has the right name, but begins with another block.
    #[error("bitcoind at {host} is on a chain of another first block, {found}, than {wanted}; is this a node of Bitcoin?")]
    Genesis {
        /// Which.
        host: String,
        /// Its first block.
        found: String,
        /// Our network.
        wanted: Network,
    },
    /// A signet whose blocks must be signed.
    #[error("bitcoind at {0} is on a signet whose blocks need a signature that no pool has; the public trial network is testnet4")]
    Signed(String),
}

/// What the check at start found, if not a mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// It answers and is of our network.
    Ready,
    /// It cannot be reached, or is warming up: it is waited for.
    Later(String),
}

impl BitcoindConfig {
    /// Reads a `--bitcoind` URL. A user in it goes before a cookie file; without a port the network's own is taken.
    pub fn new(url: &str, cookie: Option<PathBuf>, network: Network) -> Result<BitcoindConfig, BitcoindMistake> {
        // The password must not get into a log by way of the error.
        let mistake = || BitcoindMistake::Url(url.rsplit_once('@').map_or(url.to_owned(), |(_, host)| format!("http://…@{host}")));
        let rest = url.strip_prefix("http://").ok_or_else(mistake)?;
        let (user, host) = rest.rsplit_once('@').map_or((None, rest), |(user, host)| (Some(user), host));
        let host = host.trim_end_matches('/');
        let (name, port) = match host.rsplit_once(':') {
            // A colon within brackets belongs to an IPv6 address.
            Some((name, port)) if !port.ends_with(']') => (name, port.parse().map_err(|_| mistake())?),
            _ => (host, default_port(network)),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._[]:%".contains(c);
        if name.is_empty() || !name.chars().all(plain) || user.is_some_and(|user| !user.contains(':')) {
            return Err(mistake());
        }
        let auth = match (user, cookie) {
            (Some(user), _) => Auth::User(user.to_owned()),
            (None, Some(file)) => Auth::Cookie(file),
            (None, None) => Auth::None,
        };
        let door = Arc::new(Door::new(Service::Bitcoind, Limits::of(Service::Bitcoind), Clock::start()));
        Ok(BitcoindConfig { host: format!("{name}:{port}"), network, proposals: false, auth, door })
    }

    /// The same with other limits of calls; but there is always a place beside the one that portfolios may hold for minutes.
    #[must_use]
    pub fn limited(self, limits: Limits) -> BitcoindConfig {
        let limits = Limits { in_flight: limits.in_flight.max(BITCOIND_CALLERS + 1), ..limits };
        BitcoindConfig { door: Arc::new(Door::new(Service::Bitcoind, limits, Clock::start())), ..self }
    }

    /// One call whose place in the bulkhead the caller has. Its `result`, as JSON.
    pub(super) fn ask(&self, method: &str, params: &Value, deadline: Duration, bytes_max: u64) -> Result<Vec<u8>, CallError> {
        let result = Rpc::new(self.clone()).call_beside::<Value>(method, params.clone(), deadline, bytes_max);
        result.map(|result| result.to_string().into_bytes()).map_err(|why| match why {
            RpcError::Refused(..) | RpcError::Unauthorized => CallError::Refused(why.to_string()),
            RpcError::Garbled(why) => CallError::Garbled(why),
            RpcError::Timeout => CallError::Timeout,
            RpcError::TooLong(most) => CallError::TooLong(most),
            RpcError::Cookie(_) | RpcError::WarmingUp(_) | RpcError::Behind | RpcError::Unreachable(_) => {
                CallError::Unreachable(why.to_string())
            }
        })
    }

    /// Asks once whether this bitcoind is the right one. The root does so at start, before anything else is begun.
    pub fn check(&self) -> Result<Check, BitcoindMistake> {
        Rpc::new(self.clone()).check(RPC_CHECK_DEADLINE)
    }
}

/// bitcoind's own default ports.
fn default_port(network: Network) -> u16 {
    match network {
        Network::Main => 8332,
        Network::Testnet4 => 48332,
        Network::Signet => 38332,
        Network::Regtest => 18443,
    }
}

/// What became of a call that brought no result.
#[derive(Debug, Error)]
enum RpcError {
    #[error("user or password refused")]
    Unauthorized,
    #[error("cannot read the cookie file: {0}")]
    Cookie(io::Error),
    #[error("warming up: {0}")]
    WarmingUp(String),
    #[error("error {0}: {1}")]
    Refused(i64, String),
    #[error("no answer in time")]
    Timeout,
    #[error("it has yet to catch up")]
    Behind,
    #[error("{0}")]
    Unreachable(String),
    #[error("answer not understood: {0}")]
    Garbled(String),
    #[error("an answer of more than {0} bytes")]
    TooLong(u64),
}

/// bitcoind's word for "not yet" (RPC_IN_WARMUP).
const WARMING_UP: i64 = -28;

/// The node's own calls as an endpoint. Nothing is said of its health, so its circuit never opens: templates are asked for again at once.
const OWN: &str = "node";

/// The node's own calls end by themselves.
static GOES_ON: AtomicBool = AtomicBool::new(false);

/// bitcoind's word for a block whose parent it does not know.
const NO_PARENT: &str = "prev-blk-not-found";

#[derive(Deserialize)]
struct Reply<T> {
    #[serde(default)]
    id: Value,
    result: Option<T>,
    error: Option<ReplyError>,
}

impl<T: DeserializeOwned> Reply<T> {
    fn result(self) -> Result<T, RpcError> {
        match self {
            Reply { error: Some(error), .. } if error.code == WARMING_UP => Err(RpcError::WarmingUp(short(&error.message))),
            Reply { error: Some(error), .. } => Err(RpcError::Refused(error.code, short(&error.message))),
            Reply { result: Some(result), .. } => Ok(result),
            Reply { .. } => serde_json::from_str("null").map_err(|_| RpcError::Garbled("neither result nor error".into())),
        }
    }
}

fn request(id: Value, method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "1.0", "id": id, "method": method, "params": params})
}

#[derive(Deserialize)]
struct ReplyError {
    code: i64,
    message: String,
}

#[derive(Deserialize)]
struct ChainInfo {
    chain: String,
    #[serde(default)]
    blocks: u32,
    /// Height of the best header that it has, blocks that it knows to be invalid apart.
    #[serde(default)]
    headers: u32,
    #[serde(default)]
    bestblockhash: String,
    signet_challenge: Option<String>,
}

/// One bitcoind, called by one thread.
struct Rpc {
    config: BitcoindConfig,
    agent: ureq::Agent,
    /// The cookie as last read: bitcoind writes a new one each time it starts.
    cookie: Option<String>,
    /// Deadline of small calls.
    small: Duration,
}

impl Rpc {
    fn new(config: BitcoindConfig) -> Rpc {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(RPC_CONNECT))
            // bitcoind closes what is idle for 30 s; a call over such a connection would fail for nothing.
            .max_idle_connections(0)
            .build()
            .new_agent();
        Rpc { config, agent, cookie: None, small: RPC_DEADLINE }
    }

    /// Whether it is there and of our network.
    fn check(&mut self, deadline: Duration) -> Result<Check, BitcoindMistake> {
        let host = self.config.host.clone();
        let info: ChainInfo = match self.call("getblockchaininfo", json!([]), deadline, ANSWER_BYTES_MAX) {
            Ok(info) => info,
            Err(RpcError::Unauthorized) => return Err(self.config.password_mistake()),
            Err(RpcError::Cookie(why)) => return self.config.cookie_mistake(&why, deadline),
            Err(why) => return Ok(Check::Later(why.to_string())),
        };
        let wanted = self.config.network;
        // bitcoind's names are ours.
        if info.chain != wanted.name() {
            return Err(BitcoindMistake::Network { host, found: short(&info.chain), wanted });
        }
        // SHARECHAIN §11: a challenge of OP_TRUE, or none that is told.
        if wanted == Network::Signet && info.signet_challenge.is_some_and(|challenge| challenge != "51") {
            return Err(BitcoindMistake::Signed(host));
        }
        let found: String = match self.call("getblockhash", json!([0]), deadline, ANSWER_BYTES_MAX) {
            Ok(hash) => hash,
            Err(why) => return Ok(Check::Later(why.to_string())),
        };
        if found != watch::shown(&sha256d(&rules(wanted).genesis)) {
            return Err(BitcoindMistake::Genesis { host, found: short(&found), wanted });
        }
        Ok(Check::Ready)
    }

    /// One call.
    fn call<T: DeserializeOwned>(&mut self, method: &str, params: Value, deadline: Duration, bytes_max: u64) -> Result<T, RpcError> {
        self.post::<Reply<T>>(&request(json!("rockpool"), method, &params), deadline, bytes_max, true)?.result()
    }

    /// One call that nothing may hold up: a found block, or the long poll, which would hold a place for hours.
    fn call_beside<T: DeserializeOwned>(&mut self, method: &str, params: Value, deadline: Duration, bytes_max: u64) -> Result<T, RpcError> {
        self.post::<Reply<T>>(&request(json!("rockpool"), method, &params), deadline, bytes_max, false)?.result()
    }

    /// Calls of one method in one request: a result for each, in their order. What is refused is told apart from a request that failed.
    fn batch<T: DeserializeOwned>(&mut self, method: &str, params: &[Value]) -> Result<Vec<Result<T, RpcError>>, RpcError> {
        if params.is_empty() {
            return Ok(Vec::new());
        }
        let calls = params.iter().enumerate().map(|(id, params)| request(json!(id), method, params)).collect();
        let mut replies: Vec<Reply<T>> = self.post(&Value::Array(calls), self.small, ANSWER_BYTES_MAX, true)?;
        // JSON-RPC allows any order.
        replies.sort_by_key(|reply| reply.id.as_u64());
        if !replies.iter().map(|reply| reply.id.as_u64()).eq((0..params.len() as u64).map(Some)) {
            return Err(RpcError::Garbled("not one answer for each call".into()));
        }
        Ok(replies.into_iter().map(Reply::result).collect())
    }

    /// One request, through the bulkhead or beside it. A cookie that is refused is read again once.
    fn post<R: DeserializeOwned>(&mut self, body: &Value, deadline: Duration, bytes_max: u64, through: bool) -> Result<R, RpcError> {
        let body = body.to_string();
        let door = Arc::clone(&self.config.door);
        let endpoint = Arc::from(OWN);
        // The node's own threads and the one that asks for portfolios are no more than there are places, so none of them waits unless the
        // configuration wants it.
        let _place = if through { Some(door.start(&endpoint, deadline, &GOES_ON).map_err(|_| RpcError::Timeout)?) } else { None };
        let had_cookie = self.cookie.is_some();
        match self.post_once(&body, deadline, bytes_max) {
            Err(RpcError::Unauthorized) if had_cookie => {
                self.cookie = None;
                self.post_once(&body, deadline, bytes_max)
            }
            other => other,
        }
    }

    fn post_once<R: DeserializeOwned>(&mut self, body: &str, deadline: Duration, bytes_max: u64) -> Result<R, RpcError> {
        let mut request = self.agent.post(format!("http://{}/", self.config.host)).header("content-type", "application/json");
        if let Some(auth) = self.auth()? {
            request = request.header("authorization", auth);
        }
        let mut response = request.config().timeout_global(Some(deadline)).build().send(body).map_err(failed)?;
        let status = response.status().as_u16();
        if status == 401 || status == 403 {
            self.cookie = None;
            return Err(RpcError::Unauthorized);
        }
        // Errors of calls come with status 500 and 404, and a body like any other; from HTTP itself with no JSON.
        let body = io::BufReader::new(response.body_mut().with_config().limit(bytes_max).reader());
        serde_json::from_reader(body).map_err(|why: serde_json::Error| {
            let garbled = RpcError::Garbled(short(&why.to_string()));
            match status {
                200 if why.is_io() => match io::Error::from(why).into() {
                    ureq::Error::BodyExceedsLimit(_) => RpcError::TooLong(bytes_max),
                    // What came too slowly is no nonsense.
                    ureq::Error::Timeout(_) => RpcError::Timeout,
                    _ => garbled,
                },
                200 => garbled,
                _ => RpcError::Unreachable(format!("HTTP status {status}")),
            }
        })
    }

    /// The value of the `authorization` header.
    fn auth(&mut self) -> Result<Option<String>, RpcError> {
        let user = match &self.config.auth {
            Auth::None => return Ok(None),
            Auth::User(user) => user.clone(),
            Auth::Cookie(file) => match &self.cookie {
                Some(cookie) => cookie.clone(),
                None => {
                    let mut text = String::new();
                    File::open(file).and_then(|file| file.take(COOKIE_BYTES_MAX).read_to_string(&mut text)).map_err(RpcError::Cookie)?;
                    self.cookie.insert(text.trim().to_owned()).clone()
                }
            },
        };
        Ok(Some(format!("Basic {}", base64(user.as_bytes()))))
    }
}

impl BitcoindConfig {
    fn password_mistake(&self) -> BitcoindMistake {
        let (auth, advice) = match self.auth {
            Auth::None => ("calls without a password", "give --bitcoind http://user:password@host:port or --bitcoind-cookie FILE"),
            Auth::User(_) => ("user or password", "compare with rpcuser and rpcpassword, or rpcauth, in bitcoin.conf"),
            Auth::Cookie(_) => ("the cookie", "is the file that of this bitcoind?"),
        };
        BitcoindMistake::Password { host: self.host.clone(), auth, advice }
    }

    /// bitcoind writes its cookie when it starts, so a missing one is a mistake only if bitcoind is there already.
    fn cookie_mistake(&self, why: &io::Error, deadline: Duration) -> Result<Check, BitcoindMistake> {
        let file = if let Auth::Cookie(file) = &self.auth { file.display().to_string() } else { String::new() };
        let mut naked = Rpc::new(BitcoindConfig { auth: Auth::None, ..self.clone() });
        match naked.call::<ChainInfo>("getblockchaininfo", json!([]), deadline, ANSWER_BYTES_MAX) {
            Err(RpcError::Unauthorized) => Err(BitcoindMistake::Cookie { host: self.host.clone(), file, why: why.to_string() }),
            _ => Ok(Check::Later(format!("no cookie file {file} yet"))),
        }
    }
}

/// A `submit` thread: hands found blocks to one bitcoind, again and again while it is away.
pub(crate) fn submit(config: BitcoindConfig, found: &Receiver<SubmitJob>, node: &Outsider) {
    let mut rpc = Rpc::new(config);
    let mut waiting: VecDeque<(SubmitJob, Duration)> = VecDeque::new();
    let mut pause = RETRY_MIN;
    let mut open = true;
    while open || !waiting.is_empty() {
        let next = if waiting.is_empty() { found.recv().map_err(|_| RecvTimeoutError::Disconnected) } else { found.recv_timeout(pause) };
        match next {
            Ok(job) => waiting.push_back((job, node.now().mono)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => open = false,
        }
        let mut again = VecDeque::new();
        loop {
            // Each call may take a minute: what has come meanwhile does not wait for all the others.
            let room = SUBMIT_SLOTS.saturating_sub(waiting.len());
            waiting.extend(found.try_iter().take(room).map(|job| (job, node.now().mono)));
            let Some((job, since)) = first(&mut waiting) else { break };
            // Those of peers are no reason to give up one of ours.
            let others = waiting.iter().chain(&again).filter(|(other, _)| other.own || !job.own).count();
            let fate = match submit_once(&mut rpc, &job) {
                Ok(fate) => fate,
                Err(why) if open && worth_a_retry(node.now().mono.saturating_sub(since), others) => {
                    log::error!("found block {} did not reach bitcoind at {}: {why}; trying again", job.hash, rpc.config.host);
                    // The next one is tried all the same: this one's trouble may be its own.
                    again.push_back((job, since));
                    continue;
                }
                Err(why) => Fate::Unreachable(why.to_string()),
            };
            if !node.say(|| Answer::Fate { hash: job.hash, height: job.height, node: rpc.config.host.clone(), fate: fate.clone() }) {
                return;
            }
        }
        pause = if again.is_empty() { RETRY_MIN } else { (pause * 2).min(RETRY_MAX) };
        waiting = again;
    }
}

/// The next to be handed in: our own miners' first.
fn first(waiting: &mut VecDeque<(SubmitJob, Duration)>) -> Option<(SubmitJob, Duration)> {
    let place = waiting.iter().position(|(job, _)| job.own).unwrap_or(0);
    waiting.remove(place)
}

/// Whether a found block that has waited so long, beside so many others, is tried again.
fn worth_a_retry(waited: Duration, others: usize) -> bool {
    waited < SUBMIT_TIME_MAX && others < SUBMIT_SLOTS
}

/// One try. An error means that nobody knows whether it arrived.
fn submit_once(rpc: &mut Rpc, job: &SubmitJob) -> Result<Fate, RpcError> {
    let block = json!([job.block.to_lower_hex_string()]);
    let verdict = rpc.call_beside::<Option<String>>("submitblock", block, RPC_DEADLINE, ANSWER_BYTES_MAX);
    match verdict {
        Ok(None) => Ok(Fate::Accepted),
        // A try before this one arrived, or another way was faster.
        Ok(Some(word)) if word == "duplicate" => Ok(Fate::Accepted),
        // It has yet to catch up: killed, it may have lost blocks that it had.
        Ok(Some(word)) if word == NO_PARENT => Err(RpcError::Behind),
        Ok(Some(word)) => refused(rpc, short(&word)),
        Err(RpcError::Refused(code, why)) => refused(rpc, format!("error {code}: {why}")),
        Err(why) => Err(why),
    }
}

/// A refusal counts, but for one by a bitcoind of another network in the place of ours.
fn refused(rpc: &mut Rpc, word: String) -> Result<Fate, RpcError> {
    match rpc.check(RPC_DEADLINE) {
        Ok(Check::Ready) => Ok(Fate::Refused(word)),
        Ok(Check::Later(why)) => Err(RpcError::Unreachable(why)),
        Err(mistake) => Err(RpcError::Unreachable(mistake.to_string())),
    }
}

fn failed(why: ureq::Error) -> RpcError {
    match why {
        ureq::Error::Timeout(ureq::Timeout::Global | ureq::Timeout::RecvResponse | ureq::Timeout::RecvBody) => RpcError::Timeout,
        why => RpcError::Unreachable(short(&why.to_string())),
    }
}

/// RFC 4648, for the one header that needs it.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use Value;
    use crossbeam_channel::{Sender, bounded, never};
    use rockpool_net::hub::io::Mail;

    use super::watch::{Watch, watch_all};
    use super::*;
    use crate::crew::outsider;
    use crate::jobs::{BitcoinNews, Tips};
    use crate::limits::{REASON_BYTES_MAX, TEMPLATE_BYTES_MAX};
    use crate::template::tests::answer;
    use crate::testing::id;

    const SOON: Duration = Duration::from_secs(30);

    /// What the fake does with a call.
    enum Act {
        /// Status and body.
        Say(u16, String),
        /// The head and a part of the body, then the end.
        Cut(String),
        /// The connection is reset.
        Reset,
        /// No answer until the caller gives up.
        Hang,
        /// This result, once that is sent.
        After(Receiver<()>, Value),
    }

    fn result(value: Value) -> Act {
        Act::Say(200, json!({"result": value, "error": null, "id": "rockpool"}).to_string())
    }

    fn error(status: u16, code: i64, message: &str) -> Act {
        Act::Say(status, json!({"result": null, "error": {"code": code, "message": message}, "id": "rockpool"}).to_string())
    }

    fn regtest_info() -> Act {
        info(&answer(&[])["previousblockhash"], 0, json!("207fffff"), 4.656_542_373_906_925e-10)
    }

    /// The state of a chain: its newest block, that one's height, bits (none before version 29) and difficulty.
    fn info(best: &Value, blocks: u32, bits: Value, difficulty: f64) -> Act {
        let mut info =
            json!({"chain": "regtest", "blocks": blocks, "bestblockhash": best, "mediantime": 1_296_688_602, "time": 1_296_688_602});
        if !bits.is_null() {
            info["bits"] = bits;
        }
        info["difficulty"] = json!(difficulty);
        result(info)
    }

    /// One that knows of no branches.
    fn fake(mut act: impl FnMut(&str, &Value, &str) -> Act + Send + 'static) -> String {
        fake_whole(move |method, params, auth| match method {
            "getchaintips" => result(json!([])),
            "getblockhash" if params[0] == 0 => first_block(Network::Regtest),
            _ => act(method, params, auth),
        })
    }

    fn first_block(network: Network) -> Act {
        result(json!(shown(sha256d(&rules(network).genesis))))
    }

    /// A bitcoind made of a listener and a function from a call (method, params, authorization) to an act. Gives its host and port.
    fn fake_whole(mut act: impl FnMut(&str, &Value, &str) -> Act + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        // Ends with the test's process; it waits for nobody.
        thread::Builder::new()
            .spawn(move || {
                let mut hung = Vec::new();
                for mut stream in listener.incoming().flatten() {
                    let Some((head, body)) = read_call(&mut stream) else { continue };
                    let auth = field(&head, "authorization").unwrap_or_default().to_owned();
                    let call: Value = serde_json::from_slice(&body).unwrap();
                    let write = |mut stream: TcpStream, status: u16, length: usize, body: &str| {
                        let _ = write!(
                            stream,
                            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
                        );
                    };
                    let mut one = |call: &Value| act(call["method"].as_str().unwrap(), &call["params"], &auth);
                    let done = match call.as_array() {
                        Some(calls) => together(calls.iter().map(|call| (&call["id"], one(call)))),
                        None => one(&call),
                    };
                    match done {
                        Act::Say(status, body) => write(stream, status, body.len(), &body),
                        Act::Cut(body) => write(stream, 200, body.len() + 10, &body),
                        Act::Reset => drop(stream),
                        Act::Hang => hung.push(stream),
                        Act::After(word, value) => {
                            let Act::Say(status, body) = result(value) else { continue };
                            let late = move || {
                                if word.recv().is_ok() {
                                    write(stream, status, body.len(), &body)
                                }
                            };
                            thread::Builder::new().spawn(late).unwrap();
                        }
                    }
                }
            })
            .unwrap();
        host
    }

    /// Answers to the calls of a batch, as one; the first that is no answer instead of all.
    fn together<'a>(acts: impl Iterator<Item = (&'a Value, Act)>) -> Act {
        let mut replies = Vec::new();
        for (id, act) in acts {
            let Act::Say(200 | 500, body) = act else { return act };
            let mut reply: Value = serde_json::from_str(&body).unwrap();
            reply["id"] = id.clone();
            replies.push(reply);
        }
        // bitcoind keeps the order; nobody has to.
        replies.reverse();
        Act::Say(200, Value::Array(replies).to_string())
    }

    fn read_call(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).ok()?;
        let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        Some((head, body))
    }

    fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn config(host: &str) -> BitcoindConfig {
        BitcoindConfig::new(&format!("http://user:pass@{host}"), None, Network::Regtest).unwrap()
    }

    fn check(act: impl FnMut(&str, &Value, &str) -> Act + Send + 'static) -> Result<Check, BitcoindMistake> {
        config(&fake(act)).check()
    }

    fn later(act: impl FnMut(&str, &Value, &str) -> Act + Send + 'static) -> String {
        match check(act) {
            Ok(Check::Later(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy")];
        cases.into_iter().for_each(|(plain, text)| assert_eq!(base64(plain.as_bytes()), text));
    }

    #[test]
    fn urls_are_read_and_passwords_are_never_shown() {
        let new = |url: &str, cookie: Option<&str>| BitcoindConfig::new(url, cookie.map(PathBuf::from), Network::Regtest);
        assert_eq!(new("http://u:p@localhost:99/", None).unwrap().host, "localhost:99");
        assert_eq!(new("http://u:p@[::1]", None).unwrap().host, "[::1]:18443");
        assert_eq!(new("http://u:p@h", Some("/c")).unwrap().auth, Auth::User("u:p".into()));
        assert_eq!(new("http://h", Some("/c")).unwrap().auth, Auth::Cookie("/c".into()));
        for bad in [
            "",
            "h:8332",
            "https://h",
            "http://",
            "http://u:p@",
            "http://u@h:1",
            "http://u:p@h:port",
            "http://u:p@h:99999",
            "http://u:p@h/wallet/x",
        ] {
            assert!(matches!(new(bad, None), Err(BitcoindMistake::Url(_))), "{bad}");
        }
        let shown = new("http://u:secret@h:port", None).unwrap_err().to_string();
        assert!(!shown.contains("secret") && shown.contains("h:port"), "{shown}");
        assert!(!format!("{:?}", new("http://u:secret@h", None).unwrap()).contains("secret"));
    }

    #[test]
    fn the_check_tells_mistakes_from_what_time_will_mend() {
        assert_eq!(check(|_, _, _| regtest_info()), Ok(Check::Ready));
        assert!(matches!(check(|_, _, _| Act::Say(401, String::new())), Err(BitcoindMistake::Password { .. })));
        let other = check(|_, _, _| result(json!({"chain": "main"})));
        assert!(matches!(other, Err(BitcoindMistake::Network { found, wanted: Network::Regtest, .. }) if found == "main"));
        // A chain of that name, but none of Bitcoin's.
        let litecoin = fake_whole(|method, _, _| if method == "getblockhash" { first_block(Network::Signet) } else { regtest_info() });
        assert!(matches!(config(&litecoin).check(), Err(BitcoindMistake::Genesis { wanted: Network::Regtest, .. })));
        assert!(later(|_, _, _| error(500, -28, "Loading block index…")).contains("warming up: Loading"));
        assert!(later(|_, _, _| Act::Say(500, "<html>".into())).contains("500"));
        assert!(later(|_, _, _| Act::Say(503, "Work queue depth exceeded".into())).contains("503"));
        assert!(later(|_, _, _| Act::Cut("{\"result\": {\"chain\": \"reg".into())).len() > 5);
        assert!(later(|_, _, _| Act::Say(200, "{\"result\": {\"chain\": \"reg".into())).contains("not understood"));
        assert!(later(|_, _, _| Act::Say(200, "[]".into())).contains("not understood"));
        assert!(later(|_, _, _| result(Value::Null)).contains("neither"));
        assert!(later(|_, _, _| Act::Reset).len() > 5);
        // Nobody listens there.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(matches!(config(&port.to_string()).check(), Ok(Check::Later(_))));
    }

    #[test]
    fn a_signet_must_be_one_that_anybody_can_mine() {
        let check = |info: Value| {
            let host = fake_whole(move |method, _, _| match method {
                "getblockhash" => first_block(Network::Signet),
                _ => result(info.clone()),
            });
            BitcoindConfig::new(&format!("http://u:p@{host}"), None, Network::Signet).unwrap().check()
        };
        assert_eq!(check(json!({"chain": "signet", "signet_challenge": "51"})), Ok(Check::Ready));
        assert!(matches!(check(json!({"chain": "signet", "signet_challenge": "512103ad"})), Err(BitcoindMistake::Signed(_))));
    }

    #[test]
    fn an_answer_is_read_no_further_than_its_bound() {
        let endless = || Act::Say(200, format!("{{\"result\": {{\"chain\": \"{}\"}}}}", "x".repeat(ANSWER_BYTES_MAX as usize)));
        assert!(matches!(check(move |_, _, _| endless()), Ok(Check::Later(_))));
        let long = format!("bad\n{}", "x".repeat(1_000));
        let why = later(move |_, _, _| error(500, -1, &long));
        assert!(why.len() < REASON_BYTES_MAX + 50 && !why.contains('\n'));
    }

    #[test]
    fn a_new_cookie_is_read_when_the_old_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".cookie");
        let host = fake(
            |_, _, auth| if auth == format!("Basic {}", base64(b"__cookie__:2")) { regtest_info() } else { Act::Say(401, String::new()) },
        );
        let config = BitcoindConfig::new(&format!("http://{host}"), Some(file.clone()), Network::Regtest).unwrap();
        // bitcoind is there, so its cookie should be.
        assert!(matches!(config.check(), Err(BitcoindMistake::Cookie { .. })));
        std::fs::write(&file, "__cookie__:1").unwrap();
        let mut rpc = Rpc::new(config.clone());
        assert!(matches!(rpc.check(SOON), Err(BitcoindMistake::Password { auth: "the cookie", .. })));
        std::fs::write(&file, "__cookie__:2\n").unwrap();
        assert_eq!(rpc.check(SOON), Ok(Check::Ready));
        // It restarts and writes another; within one call nobody notices.
        rpc.cookie = Some("__cookie__:1".into());
        assert_eq!(rpc.check(SOON), Ok(Check::Ready));
        // Without a bitcoind a missing cookie is waited for.
        std::fs::remove_file(&file).unwrap();
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = BitcoindConfig { host: nobody.to_string(), ..config };
        assert!(matches!(config.check(), Ok(Check::Later(why)) if why.contains("cookie")));
    }

    #[test]
    fn no_more_of_a_cookie_is_read_than_a_cookie_has() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".cookie");
        std::fs::write(&file, "c".repeat(3 * COOKIE_BYTES_MAX as usize)).unwrap();
        let (auths, seen) = bounded(ANSWERS_MAX);
        let host = fake(move |_, _, auth| {
            auths.send(auth.to_owned()).unwrap();
            regtest_info()
        });
        let config = BitcoindConfig::new(&format!("http://{host}"), Some(file), Network::Regtest).unwrap();
        assert_eq!(config.check(), Ok(Check::Ready));
        assert_eq!(seen.recv().unwrap(), format!("Basic {}", base64("c".repeat(COOKIE_BYTES_MAX as usize).as_bytes())));
    }

    #[test]
    fn a_template_is_read_up_to_its_bound_and_no_further() {
        let said = |bytes: usize| {
            let Act::Say(_, body) = result(answer(&[])) else { panic!() };
            Act::Say(200, format!("{}{body}", " ".repeat(bytes - body.len())))
        };
        let mut calls = 0;
        let host = fake(move |method, _, _| {
            if method == "getblockchaininfo" {
                return regtest_info();
            }
            calls += 1;
            let most = TEMPLATE_BYTES_MAX as usize;
            said(if calls == 1 { most + 1 } else { most - 1 })
        });
        let (answers, stop, thread) = run(move |node| watch(vec![config(&host)], Vec::new(), never(), node));
        assert!(matches!(answers.recv_timeout(SOON).unwrap(), Answer::BitcoinDown(Some(_))));
        assert!(matches!(answers.recv_timeout(SOON).unwrap(), Answer::BitcoinDown(None)));
        assert!(matches!(answers.recv_timeout(SOON).unwrap(), Answer::Template(_)));
        drop(stop);
        thread.join().unwrap();
    }

    #[test]
    fn a_found_block_is_tried_again_for_an_hour_beside_few_others() {
        let little = Duration::from_millis(1);
        assert!(worth_a_retry(SUBMIT_TIME_MAX - little, 0) && !worth_a_retry(SUBMIT_TIME_MAX, 0));
        assert!(worth_a_retry(little, SUBMIT_SLOTS - 1) && !worth_a_retry(little, SUBMIT_SLOTS));
    }

    /// More than any test here hears: a thread that says more stands still, and its test with it.
    const ANSWERS_MAX: usize = 1_000;

    /// Runs an outsider's thread; the sender ends it.
    fn run(body: impl FnOnce(&Outsider) + Send + 'static) -> (Receiver<Answer>, Sender<()>, thread::JoinHandle<()>) {
        let (post, answers) = bounded(ANSWERS_MAX);
        let post = move |mail: Vec<Mail<Answer>>| mail.into_iter().all(|mail| post.send(mail.answer).is_ok());
        let (stop, stopped) = bounded(0);
        let node = outsider(Arc::new(post), stopped);
        (answers, stop, thread::Builder::new().spawn(move || body(&node)).unwrap())
    }

    #[test]
    fn templates_come_by_long_poll_and_a_plain_call_finds_what_a_dead_one_does_not_tell() {
        let (calls, seen) = bounded(ANSWERS_MAX);
        let (mut height, mut looks) = (0, 0);
        let host = fake(move |method, params, _| {
            if method == "getblockchaininfo" {
                if height < 3 {
                    return regtest_info();
                }
                // Twice the block that the template of the fake builds on, then another of a difficulty that says nothing of the next.
                looks += 1;
                let same = answer(&[])["previousblockhash"].clone();
                calls.send(Some("look".into())).unwrap();
                return info(&if looks < 3 { same } else { json!("44".repeat(32)) }, 2, json!(null), 77.0);
            }
            let longpollid = params[0]["longpollid"].as_str().map(str::to_owned);
            assert_eq!((method, params[0]["rules"].clone()), ("getblocktemplate", json!(["segwit"])));
            calls.send(longpollid.clone()).unwrap();
            height += 1;
            if height == 3 {
                return Act::Hang;
            }
            let mut template = answer(&[]);
            (template["height"], template["longpollid"]) = (json!(height), json!(format!("id{height}")));
            result(template)
        });
        let mut watch = Watch::new(config(&host));
        watch.patience = Duration::from_millis(300);
        let (answers, stop, thread) = run(move |node| watch_all(vec![watch], Vec::new(), never(), node));
        let heights = (1..=4).map(|sequence| match answers.recv_timeout(SOON).unwrap() {
            Answer::Template(template) => {
                assert_eq!(template.sequence, sequence);
                template.height
            }
            other => panic!("{other:?}"),
        });
        let heights: Vec<u32> = heights.collect();
        assert_eq!(heights, [1, 2, 4, 5]);
        // However many looks there are in between.
        let asked: Vec<_> = seen.iter().filter(|call| call.as_deref() != Some("look")).take(5).collect();
        // No second long poll for what the first still asks for: bitcoind would work on both.
        let id = |n: u32| Some(format!("id{n}"));
        assert_eq!(asked, [None, id(1), id(2), None, id(4)]);
        drop(stop);
        thread.join().unwrap();
    }

    /// The word of a new block brings work on it before the long poll does, and what the long poll brings follows.
    #[test]
    fn the_first_work_on_a_new_block_does_not_wait_for_its_transactions() {
        let genesis = sha256d(&rules(Network::Regtest).genesis);
        let (hash, header) = header_on(genesis, 7);
        let mut templates = 0;
        let (proposed, proposal) = bounded(ANSWERS_MAX);
        let host = fake(move |method, params, _| match method {
            "getblockchaininfo" if templates < 2 => info(&json!(shown(genesis)), 0, json!("207fffff"), 4.6e-10),
            "getblockchaininfo" => info(&json!(shown(hash)), 1, json!("207fffff"), 4.6e-10),
            "getblockheader" => result(json!(header.to_lower_hex_string())),
            _ if params[0]["mode"] == "proposal" => {
                proposed.send(params[0]["data"].as_str().unwrap().len()).unwrap();
                result(Value::Null)
            }
            _ => {
                templates += 1;
                let mut template = answer(&[]);
                template["longpollid"] = json!(format!("id{templates}"));
                template["previousblockhash"] = json!(shown(genesis));
                if templates > 1 { Act::Hang } else { result(template) }
            }
        });
        let config = BitcoindConfig { proposals: true, ..config(&host) };
        let (answers, stop, thread) = run(move |node| watch(vec![config], Vec::new(), never(), node));
        let next = || answers.recv_timeout(SOON).unwrap();
        assert!(matches!(next(), Answer::Template(template) if template.prev == genesis));
        assert!(matches!(next(), Answer::Bitcoin(BitcoinNews::Headers(headers)) if headers == [header]), "the header comes first");
        let Answer::Template(first) = next() else { panic!("no template") };
        assert_eq!((first.sequence, first.height, first.prev, first.bits), (2, 2, hash, 0x207f_ffff));
        assert_eq!((first.version, first.mintime, first.maxtime), (0x2000_0000, 1_296_688_603, u32::MAX));
        assert_eq!(first.trims, std::array::from_fn(|_| crate::trim::Trim::empty(5_000_000_000)));
        assert!(first.txs.is_empty() && first.curtime >= first.mintime);
        assert_eq!(proposal.iter().take(2).count(), 2, "it is judged like any other");
        drop(stop);
        // It hangs in its long poll, as at every stop.
        drop(thread);
    }

    /// bitcoind made what the long poll brings while the block before was the newest, and it takes its time on the wire. Meanwhile miners
    /// have gone on to the next.
    #[test]
    fn an_answer_that_a_block_has_overtaken_sends_nobody_back() {
        let genesis = sha256d(&rules(Network::Regtest).genesis);
        let (hash, header) = header_on(genesis, 7);
        let ((go, gone), (calls, seen)) = (bounded(1), bounded(ANSWERS_MAX));
        let (mut gone, mut templates) = (Some(gone), 0);
        let host = fake(move |method, params, _| match method {
            "getblockchaininfo" if templates < 2 => info(&json!(shown(genesis)), 0, json!("207fffff"), 4.6e-10),
            "getblockchaininfo" => info(&json!(shown(hash)), 1, json!("207fffff"), 4.6e-10),
            "getconnectioncount" => result(json!(8)),
            "getblockheader" => result(json!(header.to_lower_hex_string())),
            _ => {
                templates += 1;
                calls.send(params[0]["longpollid"].clone()).unwrap();
                let mut template = answer(&[]);
                let (prev, height) = if templates < 3 { (genesis, 1) } else { (hash, 2) };
                (template["previousblockhash"], template["height"]) = (json!(shown(prev)), json!(height));
                template["longpollid"] = json!(format!("id{templates}"));
                match templates {
                    2 => Act::After(gone.take().unwrap(), template),
                    4.. => Act::Hang,
                    _ => result(template),
                }
            }
        });
        let (answers, stop, thread) = run(move |node| watch(vec![config(&host)], Vec::new(), never(), node));
        let template = || loop {
            if let Answer::Template(template) = answers.recv_timeout(SOON).unwrap() {
                return (template.sequence, template.height, template.prev);
            }
        };
        assert_eq!((template(), template()), ((1, 1, genesis), (2, 2, hash)));
        go.send(()).unwrap();
        assert_eq!(template(), (3, 2, hash));
        let asked: Vec<Value> = seen.iter().take(4).collect();
        assert_eq!(asked, [Value::Null, json!("id1"), json!("id2"), json!("id3")], "bitcoind answers the third at once");
        drop(stop);
        // It hangs in its long poll, as at every stop.
        drop(thread);
    }

    /// A header on another, and both as bitcoind shows them: (hash, header).
    fn header_on(prev: [u8; 32], salt: u8) -> ([u8; 32], [u8; 80]) {
        let mut header = [salt; 80];
        header[4..36].copy_from_slice(&prev);
        (rockpool_net::sha256::sha256d(&header), header)
    }

    fn shown(mut hash: [u8; 32]) -> String {
        hash.reverse();
        hash.to_lower_hex_string()
    }

    #[test]
    fn headers_come_before_the_template_on_them_and_what_is_beside_after_it() {
        let genesis = rockpool_net::sha256::sha256d(&rockpool_store::bitcoin::rules(Network::Regtest).genesis);
        let mut chain = vec![(genesis, [0; 80])];
        (1..=130).for_each(|salt| chain.push(header_on(chain[chain.len() - 1].0, salt)));
        let stale = header_on(chain[127].0, 200);
        let (expected, side) = (chain.clone(), stale);
        let (mut templates, mut looks) = (0, 0);
        let host = fake_whole(move |method, params, _| {
            let header = |hash: &str| chain.iter().chain([&stale]).find(|block| shown(block.0) == hash);
            match method {
                "getblockchaininfo" => regtest_info(),
                "getchaintips" => {
                    looks += 1;
                    let tips = json!([
                        {"height": 129, "hash": shown(chain[129].0), "branchlen": 0, "status": "active"},
                        {"height": 128, "hash": shown(stale.0), "branchlen": 1, "status": "valid-fork"},
                        {"height": 128, "hash": shown([7; 32]), "branchlen": 1, "status": "invalid"},
                        {"height": 128, "hash": shown([8; 32]), "branchlen": 1, "status": "headers-only"},
                    ]);
                    // A look that fails is none.
                    if looks == 1 { result(tips) } else { Act::Reset }
                }
                "getblockhash" => match chain.get(params[0].as_u64().unwrap() as usize) {
                    Some((hash, _)) => result(json!(shown(*hash))),
                    None => error(500, -8, "Block height out of range"),
                },
                "getblockheader" => match header(params[0].as_str().unwrap()) {
                    Some((_, header)) => result(json!(header.to_lower_hex_string())),
                    None => error(500, -5, "Block not found"),
                },
                _ => {
                    templates += 1;
                    let height = (128 + templates).min(130);
                    let mut template = answer(&[]);
                    template["previousblockhash"] = json!(shown(chain[height].0));
                    (template["height"], template["longpollid"]) = (json!(height + 1), json!(format!("id{templates}")));
                    if templates > 2 { Act::Hang } else { result(template) }
                }
            }
        });
        let (answers, stop, thread) = run(move |node| watch(vec![config(&host)], Vec::new(), never(), node));
        let next = || answers.recv_timeout(SOON).unwrap();
        let told = |blocks: &[([u8; 32], [u8; 80])]| BitcoinNews::Headers(blocks.iter().map(|block| block.1).collect());
        assert!(matches!(next(), Answer::Bitcoin(news) if news == told(&expected[1..=129])));
        assert!(matches!(next(), Answer::Template(template) if template.prev == expected[129].0));
        assert!(matches!(next(), Answer::Bitcoin(news) if news == told(&[side])));
        let tips = Tips { active: expected[129].0, valid: vec![side.0], invalid: vec![[7; 32]] };
        assert!(matches!(next(), Answer::Bitcoin(news) if news == BitcoinNews::Tips(tips)));
        assert!(matches!(next(), Answer::Bitcoin(news) if news == told(&expected[130..])));
        assert!(matches!(next(), Answer::Template(template) if template.prev == expected[130].0));
        drop(stop);
        // It hangs in its long poll, as at every stop.
        drop(thread);
    }

    #[test]
    fn no_template_comes_without_its_headers() {
        let mut calls = 0;
        let host = fake(move |method, _, _| match method {
            "getblockchaininfo" => regtest_info(),
            "getblockheader" => {
                calls += 1;
                // A header that is none, none at all, and one of another block.
                match calls {
                    1 => result(json!("00ff")),
                    2 => Act::Say(503, "Work queue depth exceeded".into()),
                    _ => result(json!("11".repeat(80))),
                }
            }
            "getblockhash" => result(json!("22".repeat(32))),
            _ => {
                let mut template = answer(&[]);
                (template["previousblockhash"], template["height"]) = (json!("33".repeat(32)), json!(2));
                result(template)
            }
        });
        let (answers, stop, thread) = run(move |node| watch(vec![config(&host)], Vec::new(), never(), node));
        let down = answers.recv_timeout(SOON).unwrap();
        assert!(matches!(&down, Answer::BitcoinDown(Some(why)) if why.contains("a header that is none")), "{down:?}");
        drop(stop);
        thread.join().unwrap();
        assert_eq!(answers.try_iter().count(), 0);
    }

    #[test]
    fn a_batch_has_an_answer_for_each_call_in_their_order() {
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        assert!(matches!(Rpc::new(config(&nobody)).batch::<u32>("getblockhash", &[]), Ok(none) if none.is_empty()), "nothing is asked");
        let host = fake(|_, params, _| match params[0].as_u64() {
            Some(5) => error(500, -8, "out of range"),
            height => result(json!(height)),
        });
        let mut rpc = Rpc::new(config(&host));
        let calls: Vec<Value> = (3..7).map(|height| json!([height])).collect();
        let heights: Vec<Option<u32>> = rpc.batch("getblockhash", &calls).unwrap().into_iter().map(Result::ok).collect();
        assert_eq!(heights, [Some(3), Some(4), None, Some(6)]);
        let host = fake(|_, _, _| Act::Say(201, "[]".into()));
        assert!(matches!(Rpc::new(config(&host)).batch::<u32>("getblockhash", &calls), Err(RpcError::Garbled(_))));
        // The password is asked for once for all; warming up is no answer.
        let host = fake(|_, _, _| Act::Say(401, String::new()));
        assert!(matches!(Rpc::new(config(&host)).batch::<u32>("getblockhash", &calls), Err(RpcError::Unauthorized)));
        let host = fake(|_, _, _| error(500, -28, "Loading"));
        let warming = Rpc::new(config(&host)).batch::<u32>("getblockhash", &calls).unwrap();
        assert!(warming.iter().all(|result| matches!(result, Err(RpcError::WarmingUp(_)))));
    }

    /// What is heard of a bitcoind that offers a template of height 9, goes away and comes back with one of height 7 and this to say of
    /// itself; after that it has 9 again.
    fn heights_after_a_loss(peers: u32, headers: u32, knows: bool) -> Vec<u32> {
        let mut templates = 0;
        let host = fake(move |method, _, _| match method {
            "getblockchaininfo" => {
                result(json!({"chain": "regtest", "blocks": 6, "headers": headers, "bestblockhash": answer(&[])["previousblockhash"]}))
            }
            "getconnectioncount" => result(json!(peers)),
            "getblockheader" if knows => result(json!("11".repeat(80))),
            "getblockheader" => error(500, -5, "Block not found"),
            _ => {
                templates += 1;
                let mut template = answer(&[]);
                (template["height"], template["longpollid"]) =
                    (json!([9, 0, 7, 9, 9][templates.min(5) - 1]), json!(format!("id{templates}")));
                if templates == 2 { Act::Reset } else { result(template) }
            }
        });
        let (answers, stop, thread) = run(move |node| watch(vec![config(&host)], Vec::new(), never(), node));
        let templates = std::iter::repeat_with(|| answers.recv_timeout(SOON).unwrap());
        let heights = templates.filter_map(|answer| if let Answer::Template(template) = answer { Some(template.height) } else { None });
        let heights = heights.take(2).collect();
        drop(stop);
        thread.join().unwrap();
        heights
    }

    #[test]
    fn miners_keep_their_work_while_bitcoind_catches_up_with_it() {
        assert_eq!(heights_after_a_loss(8, 6, false), [9, 9], "it does not know the block yet");
        assert_eq!(heights_after_a_loss(8, 8, true), [9, 9], "it has but the header");
        assert_eq!(heights_after_a_loss(8, 6, true), [9, 7], "it mines on another branch");
        assert_eq!(heights_after_a_loss(0, 6, false), [9, 7], "it has nobody to catch up from");
    }

    /// bitcoind keeps a thread for each long poll. One whose templates are no good is asked again and again, and must have threads left for
    /// the block that somebody finds meanwhile.
    #[test]
    fn templates_that_are_no_good_leave_no_long_polls_behind() {
        let (calls, seen) = bounded(ANSWERS_MAX);
        let host = fake(move |method, params, _| {
            if method != "getblocktemplate" {
                return regtest_info();
            }
            calls.send(params[0]["longpollid"].clone()).unwrap();
            let mut template = answer(&[]);
            template["rules"] = json!(["!unheard-of"]);
            if params[0]["longpollid"].is_null() { result(template) } else { Act::Hang }
        });
        let (answers, stop, thread) = run(move |node| watch(vec![config(&host)], Vec::new(), never(), node));
        assert!(matches!(answers.recv_timeout(SOON).unwrap(), Answer::BitcoinDown(Some(why)) if why.contains("unheard-of")));
        assert_eq!(seen.iter().take(3).collect::<Vec<_>>(), [Value::Null, Value::Null, Value::Null]);
        drop(stop);
        thread.join().unwrap();
    }

    #[test]
    fn an_outage_is_one_word_and_its_end_another() {
        let mut calls = 0;
        let host = fake(move |method, _, _| {
            calls += 1;
            match (method, calls) {
                (_, 1) => error(500, -28, "Loading"),
                (_, 2) => Act::Reset,
                ("getblockchaininfo", _) => regtest_info(),
                (_, 4) => Act::Say(200, "{\"result\": {\"version\": 5".into()),
                _ => result(answer(&[])),
            }
        });
        let (answers, stop, thread) = run(move |node| watch(vec![config(&host)], Vec::new(), never(), node));
        assert!(matches!(answers.recv_timeout(SOON).unwrap(), Answer::BitcoinDown(Some(why)) if why.contains("warming up")));
        assert!(matches!(answers.recv_timeout(SOON).unwrap(), Answer::BitcoinDown(None)));
        assert!(matches!(answers.recv_timeout(SOON).unwrap(), Answer::Template(_)));
        drop(stop);
        thread.join().unwrap();
    }

    #[test]
    fn another_bitcoind_takes_over_and_the_wrong_network_is_found_out_late() {
        let dead = fake(|_, _, _| Act::Reset);
        let alive = fake(|method, _, _| if method == "getblockchaininfo" { regtest_info() } else { result(answer(&[])) });
        let (answers, stop, thread) = run(move |node| watch(vec![config(&dead), config(&alive)], Vec::new(), never(), node));
        assert!(matches!(answers.recv_timeout(SOON).unwrap(), Answer::BitcoinDown(Some(_))));
        assert!(matches!(answers.recv_timeout(SOON).unwrap(), Answer::BitcoinDown(None)));
        assert!(matches!(answers.recv_timeout(SOON).unwrap(), Answer::Template(_)));
        drop(stop);
        thread.join().unwrap();
        let mut calls = 0;
        let other = fake(move |_, _, _| {
            calls += 1;
            if calls == 1 { error(500, -28, "Loading") } else { result(json!({"chain": "main"})) }
        });
        let (answers, _stop, thread) = run(move |node| watch(vec![config(&other)], Vec::new(), never(), node));
        assert!(matches!(answers.recv_timeout(SOON).unwrap(), Answer::BitcoinDown(Some(_))));
        assert!(matches!(answers.recv_timeout(SOON).unwrap(), Answer::Mistake(why) if why.contains("main")));
        thread.join().unwrap();
    }

    #[test]
    fn of_each_bitcoind_that_is_wrong_is_told_but_once() {
        let mut calls = 0;
        let first = fake(move |method, _, _| {
            calls += 1;
            match (method, calls) {
                (_, 1) => regtest_info(),
                (_, 2) => result(answer(&[])),
                (_, 3) => Act::Reset,
                _ => result(json!({"chain": "main"})),
            }
        });
        let (asked, rounds) = bounded(ANSWERS_MAX);
        let second = fake(move |_, _, _| {
            asked.send(()).unwrap();
            result(json!({"chain": "signet"}))
        });
        let (answers, stop, thread) = run(move |node| watch(vec![config(&first), config(&second)], Vec::new(), never(), node));
        assert!(matches!(answers.recv_timeout(SOON).unwrap(), Answer::Template(_)));
        for says in ["bitcoind at", "signet", "main"] {
            assert!(matches!(answers.recv_timeout(SOON).unwrap(), Answer::BitcoinDown(Some(why)) if why.contains(says)), "{says}");
        }
        (0..3).for_each(|_| rounds.recv_timeout(SOON).unwrap());
        drop(stop);
        thread.join().unwrap();
        assert_eq!(answers.try_iter().count(), 0);
    }

    #[test]
    fn a_found_block_is_submitted_until_somebody_knows() {
        let mut calls = 0;
        let host = fake(move |method, params, _| {
            if method == "getblockchaininfo" {
                // A bitcoind of another network is in the place of ours when the last block comes.
                return if calls == 9 { result(json!({"chain": "main"})) } else { regtest_info() };
            }
            assert_eq!((method, params), ("submitblock", &json!(["00ff"])));
            calls += 1;
            match calls {
                1 => Act::Reset,
                2 => error(500, -28, "Loading"),
                3 => result(json!("prev-blk-not-found")),
                4 => result(json!("duplicate")),
                5 | 10 => result(Value::Null),
                6 => result(json!("inconclusive")),
                7 => error(500, -22, "Block decode failed"),
                9 => result(json!("high-hash")),
                _ => result(json!("bad-cb-amount")),
            }
        });
        let (found, jobs) = bounded(SUBMIT_SLOTS);
        let (answers, _stop, thread) = run(move |node| submit(config(&host), &jobs, node));
        let fates = (0..6).map(|n| {
            found.send(SubmitJob { hash: id(n), height: 1, block: Arc::from([0, 0xff]), own: n < 2 }).unwrap();
            match answers.recv_timeout(SOON).unwrap() {
                Answer::Fate { hash, fate, .. } if hash == id(n) => fate,
                other => panic!("{other:?}"),
            }
        });
        let fates: Vec<_> = fates.collect();
        let refused = |why: &str| Fate::Refused(why.into());
        let three = [refused("inconclusive"), refused("error -22: Block decode failed"), refused("bad-cb-amount")];
        assert_eq!((&fates[..2], &fates[2..5], &fates[5]), (&[Fate::Accepted, Fate::Accepted][..], &three[..], &Fate::Accepted));
        drop(found);
        thread.join().unwrap();
    }

    #[test]
    fn our_own_block_goes_before_those_of_peers() {
        let (calls, seen) = bounded(ANSWERS_MAX);
        let host = fake(move |_, params, _| {
            calls.send(params[0].as_str().map(str::to_owned)).unwrap();
            result(Value::Null)
        });
        let (found, jobs) = bounded(SUBMIT_SLOTS);
        let job = |n: u64, own: bool| SubmitJob { hash: id(n), height: 1, block: Arc::from([u8::from(own)]), own };
        (0..6).for_each(|n| found.send(job(n, n == 5)).unwrap());
        drop(found);
        let (answers, _stop, thread) = run(move |node| submit(config(&host), &jobs, node));
        thread.join().unwrap();
        assert_eq!((seen.recv().unwrap().as_deref(), answers.iter().count()), (Some("01"), 6));
    }

    #[test]
    fn a_stop_does_not_wait_for_a_bitcoind_that_is_away() {
        let host = fake(|_, _, _| Act::Reset);
        let (found, jobs) = bounded(SUBMIT_SLOTS);
        (0..3).for_each(|n| found.send(SubmitJob { hash: id(n), height: 1, block: Arc::from([0]), own: true }).unwrap());
        drop(found);
        let (answers, _stop, thread) = run(move |node| submit(config(&host), &jobs, node));
        thread.join().unwrap();
        assert_eq!(answers.iter().filter(|answer| matches!(answer, Answer::Fate { fate: Fate::Unreachable(_), .. })).count(), 3);
    }

    #[test]
    fn found_blocks_and_the_long_poll_wait_for_no_place_and_all_else_does() {
        let host = fake(|method, _, _| match method {
            "submitblock" => result(Value::Null),
            "getblocktemplate" => result(answer(&[])),
            _ => regtest_info(),
        });
        let limits = Limits { in_flight: BITCOIND_CALLERS + 1, ..Limits::of(Service::Bitcoind) };
        let config = config(&host).limited(limits);
        assert_eq!(config.clone().limited(Limits { in_flight: 1, ..limits }), config, "one beside portfolios at least");
        let endpoint = Arc::from("portfolios");
        let mut places: Vec<_> = (0..=BITCOIND_CALLERS).map(|_| config.door.start(&endpoint, SOON, &GOES_ON).unwrap()).collect();
        let mut rpc = Rpc::new(config.clone());
        let moment = Duration::from_millis(20);
        let info = |rpc: &mut Rpc, deadline| rpc.call::<Value>("getblockchaininfo", json!([]), deadline, ANSWER_BYTES_MAX);
        assert!(matches!(info(&mut rpc, moment), Err(RpcError::Timeout)));
        let job = SubmitJob { hash: id(1), height: 1, block: Arc::from([1]), own: true };
        assert!(matches!(submit_once(&mut rpc, &job), Ok(Fate::Accepted)));
        assert!(rpc.template(Some("x")).is_ok());
        assert_eq!(config.door.gauges().in_flight, places.len(), "counted beside it");
        // What fails for portfolios, again and again, is nothing to the node.
        for _ in 0..20 {
            places.pop().into_iter().for_each(|place| place.ends(crate::outside::circuit::Health::Bad(None)));
        }
        assert!(info(&mut rpc, SOON).is_ok());
    }
}
