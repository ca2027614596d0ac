//! Everything outside this process that is asked over HTTP: bitcoind, and what tells owners of portfolios what they have and what it is
//! worth. Nothing else may block on a socket.

pub mod bitcoind;
pub mod bulkhead;
pub mod cache;
pub mod call;
pub mod circuit;
pub(crate) mod door;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod gate;
pub mod retry;

use std::fmt;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rockpool_net::reactor::Clock;
use serde::de::IgnoredAny;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

pub use bitcoind::{BitcoindConfig, BitcoindMistake, Check};
pub(crate) use bitcoind::{submit, watch};
use call::{Call, CallError, Service, What, site};
use circuit::Health;
use door::Door;
pub use door::{Gauges, OUTCOMES};
use gate::Limits;
use retry::{Draw, Tries};

use crate::limits::{OUTSIDE_CONNECT, REASON_BYTES_MAX, SAID_BYTES_MAX, SECRET_BYTES_MIN};

/// How outside services are asked.
pub struct OutsideConfig {
    /// The node's clock.
    pub clock: Clock,
    /// What pauses are drawn by: another number in each node, so that not all come back at once.
    pub seed: u64,
    /// Limits other than the defaults; bitcoind's are its own ([`BitcoindConfig::limited`]).
    pub limits: Vec<(Service, Limits)>,
    /// The bitcoind that is asked.
    pub bitcoind: Option<BitcoindConfig>,
}

/// The client for all outside services. Its calls wait, and may be made by any number of threads at once.
pub struct Outside {
    doors: [Arc<Door>; Service::ALL.len()],
    draw: Mutex<Draw>,
    bitcoind: Option<BitcoindConfig>,
    plain: ureq::Agent,
    /// With the system's root certificates, which are read when first needed, and again if there were none.
    tls: OnceLock<ureq::Agent>,
    stopped: AtomicBool,
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outside")
    }
}

impl Outside {
    /// A client that has asked nobody yet: nothing is opened, read or spawned.
    pub fn new(config: OutsideConfig) -> Outside {
        let OutsideConfig { clock, seed, limits, bitcoind } = config;
        let doors = Service::ALL.map(|service| match &bitcoind {
            Some(bitcoind) if service == Service::Bitcoind => Arc::clone(&bitcoind.door),
            _ => {
                let given = limits.iter().rev().find(|(other, _)| *other == service);
                Arc::new(Door::new(service, given.map_or(Limits::of(service), |(_, limits)| *limits), clock))
            }
        });
        let draw = Mutex::new(Draw(seed));
        Outside { doors, draw, bitcoind, plain: agent(None), tls: OnceLock::new(), stopped: AtomicBool::new(false) }
    }

    /// Makes a call, and waits for what comes of it: JSON, or why there is none. It ends within a time that its call and its service's
    /// limits set, whatever the service does.
    pub fn call(&self, call: &Call) -> Result<Vec<u8>, CallError> {
        let door = self.door(call.service);
        // What strangers send must not end the node, not even by a defect of the client. What has panicked is dropped or as it was: a try
        // that had started has ended.
        let caught = catch_unwind(AssertUnwindSafe(|| self.try_it(call, door)));
        let result = caught.unwrap_or_else(|_| {
            log::error!("{}: {:?}: the call panicked, a defect", call.service.name(), call.what);
            Err(CallError::Garbled("the call failed by a defect of this node".into()))
        });
        door.count(&result);
        if let Err(why) = &result {
            log::debug!("{}: {:?}: {why}", call.service.name(), call.what);
        }
        result
    }

    fn try_it(&self, call: &Call, door: &Door) -> Result<Vec<u8>, CallError> {
        let mut tries = Tries::new(call, &door.limits, door.now().mono);
        loop {
            let acquire = tries.within(door.limits.acquire(), door.now().mono);
            let started = match door.start(&call.endpoint, acquire, &self.stopped) {
                Ok(started) => started,
                Err(why) => return Err(tries.never(why)),
            };
            let now = door.now();
            let result = match tries.within(call.deadline, now.mono) {
                Duration::ZERO => Err(CallError::Timeout),
                deadline => self.ask(call, deadline, now.wall),
            };
            started.ends(Health::of(&result));
            let Err(why) = result else { return result };
            let drawn = self.draw.lock().unwrap_or_else(PoisonError::into_inner).draw();
            let Some(pause) = tries.again(&why, drawn, door.now().mono) else { return Err(why) };
            if !door.pause(pause, &self.stopped) {
                return Err(CallError::Stopped);
            }
        }
    }

    /// One try.
    fn ask(&self, call: &Call, deadline: Duration, wall: Duration) -> Result<Vec<u8>, CallError> {
        match &call.what {
            What::Rpc { method, params } => {
                let bitcoind = self.bitcoind.as_ref().ok_or_else(|| CallError::Unreachable("this node has no bitcoind".into()))?;
                bitcoind.ask(method, params, deadline, call.bytes_max)
            }
            What::Http { url, headers, body } => {
                let agent = self.agent(url)?;
                let lines = headers(wall);
                // What may be a key: behind the host, and in header lines.
                let pieces = url.split(['/', '?', '&', '=', ',']).skip(3).map(str::to_owned);
                let secrets: Vec<_> = pieces.chain(lines.iter().map(|(_, value)| value.clone())).collect();
                let response = match body {
                    None => {
                        let request = agent.get(url).config().timeout_global(Some(deadline)).build();
                        lines.into_iter().fold(request, |request, (name, value)| request.header(name, value)).call()
                    }
                    Some(body) => {
                        let request = agent.post(url).content_type("application/json").config().timeout_global(Some(deadline)).build();
                        lines.into_iter().fold(request, |request, (name, value)| request.header(name, value)).send(body)
                    }
                };
                answer(response.map_err(failed)?, call.bytes_max, &secrets)
            }
        }
    }

    fn agent(&self, url: &str) -> Result<&ureq::Agent, CallError> {
        if url.starts_with("http://") {
            return Ok(&self.plain);
        }
        match self.tls.get() {
            Some(agent) => Ok(agent),
            None => self.trust(roots()),
        }
    }

    /// Takes these for the system's root certificates, from now on. Where there are none, they are looked for at the next call.
    fn trust(&self, roots: Result<Vec<Certificate<'static>>, String>) -> Result<&ureq::Agent, CallError> {
        let roots = roots.map_err(CallError::Unreachable)?;
        Ok(self.tls.get_or_init(|| agent(Some(roots))))
    }

    /// How the calls of each service stand. Waits for nothing.
    pub fn gauges(&self) -> [Gauges; Service::ALL.len()] {
        Service::ALL.map(|service| self.door(service).gauges())
    }

    /// The node stops: calls that wait end at once, those under way when they do.
    pub fn stop(&self) {
        self.stopped.store(true, Relaxed);
        self.doors.iter().for_each(|door| door.wake());
    }

    /// What holds for a service.
    pub(crate) fn limits(&self, service: Service) -> Limits {
        self.door(service).limits
    }

    fn door(&self, service: Service) -> &Door {
        &self.doors[service as usize]
    }
}

/// The system's root certificates, or why there are none.
fn roots() -> Result<Vec<Certificate<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    let why = || found.errors.first().map_or("there are none".to_owned(), ToString::to_string);
    let roots: Vec<_> = found.certs.iter().map(|cert| Certificate::from_der(cert).to_owned()).collect();
    if roots.is_empty() { Err(format!("the system's root certificates cannot be read: {}", why())) } else { Ok(roots) }
}

/// An agent that follows no redirect: an API that moves is told as such, and no secret goes elsewhere.
fn agent(roots: Option<Vec<Certificate<'static>>>) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .user_agent(concat!("rockpool/", env!("CARGO_PKG_VERSION")))
        .accept("application/json")
        .timeout_connect(Some(OUTSIDE_CONNECT));
    let config = match roots {
        Some(roots) => {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let roots = RootCerts::from(roots);
            config.tls_config(TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(provider).build())
        }
        None => config,
    };
    config.build().new_agent()
}

/// Reads an answer: JSON that is called JSON, and no more of it than was asked for. What it says of a failure is told to users and logs, so
/// that no secret that was sent is in it, though many servers repeat the path that they do not know.
fn answer(mut response: ureq::http::Response<ureq::Body>, bytes_max: u64, secrets: &[String]) -> Result<Vec<u8>, CallError> {
    let status = response.status().as_u16();
    let field = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if !(200..300).contains(&status) {
        // A path may hold a secret.
        let moved =
            field("location").filter(|_| status < 400).map(|to| format!("moved to {}", site(&to)).trim_end_matches(" to ").to_owned());
        // Seconds; nobody whom we ask tells a date.
        let retry_after = field("retry-after").and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let mut said = Vec::new();
        let _ = response.body_mut().as_reader().take(SAID_BYTES_MAX).read_to_end(&mut said);
        let said = moved.map_or_else(|| short(&hidden(&String::from_utf8_lossy(&said), secrets)), |moved| short(&moved));
        return Err(CallError::Status { status, said: Some(said).filter(|said| !said.is_empty()), retry_after });
    }
    let kind = field("content-type").unwrap_or_default().to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind != "application/json" && !(kind.starts_with("application/") && kind.ends_with("+json")) {
        return Err(CallError::Garbled(if kind.is_empty() { "no content type".into() } else { format!("content type {}", short(kind)) }));
    }
    let bytes = response.body_mut().with_config().limit(bytes_max).read_to_vec().map_err(|why| match why {
        ureq::Error::BodyExceedsLimit(_) => CallError::TooLong(bytes_max),
        why => failed(why),
    })?;
    serde_json::from_slice::<IgnoredAny>(&bytes).map_err(|why| CallError::Garbled(short(&why.to_string())))?;
    Ok(bytes)
}

/// The same text without these, the short ones apart: they are words such as `v3`.
fn hidden(said: &str, secrets: &[String]) -> String {
    let long = secrets.iter().filter(|secret| secret.len() >= SECRET_BYTES_MIN);
    long.fold(said.to_owned(), |said, secret| said.replace(secret.as_str(), "…"))
}

fn failed(why: ureq::Error) -> CallError {
    match why {
        ureq::Error::Timeout(_) => CallError::Timeout,
        // Nobody was asked.
        ureq::Error::Http(_) | ureq::Error::BadUri(_) => CallError::Refused("the URL or a header line is none".into()),
        ureq::Error::Io(why) if why.kind() == io::ErrorKind::TimedOut => CallError::Timeout,
        why => CallError::Unreachable(short(&why.to_string())),
    }
}

/// What others say, short enough for a log's line and without control characters.
fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REASON_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests;
